//! Checks by name, and how Kubernetes' components tell of them.

use std::fmt::{self, Write as _};

/// Whether something is well; an error says what is not.
pub trait Check: Fn() -> Result<(), String> + Send + Sync + 'static {}

impl<F: Fn() -> Result<(), String> + Send + Sync + 'static> Check for F {}

/// Checks that are asked together.
#[derive(Default)]
pub struct Checks(Vec<(&'static str, Box<dyn Check>)>);

impl fmt::Debug for Checks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Checks {
    /// Adds one.
    pub fn add(&mut self, name: &'static str, check: impl Check) {
        self.0.push((name, Box::new(check)));
    }

    /// Asks all. `Ok` is `ok`, or with `verbose` a line for each; `Err` always has those lines.
    pub fn ask(&self, path: &str, verbose: bool) -> Result<String, String> {
        let (mut lines, mut failed) = ("[+]ping ok\n".to_owned(), false);
        for (name, check) in &self.0 {
            // Writing to a string cannot fail.
            let _ = match check() {
                Ok(()) => writeln!(lines, "[+]{name} ok"),
                Err(reason) => {
                    failed = true;
                    writeln!(lines, "[-]{name} failed: {}", reason.replace('\n', " "))
                }
            };
        }
        if failed {
            Err(format!("{lines}{path} check failed\n"))
        } else if verbose {
            Ok(format!("{lines}{path} check passed\n"))
        } else {
            Ok("ok".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_told_as_kubernetes_does() {
        let mut checks = Checks::default();
        assert_eq!(checks.ask("livez", false), Ok("ok".to_owned()));
        checks.add("one", || Ok(()));
        assert_eq!(
            checks.ask("livez", true),
            Ok("[+]ping ok\n[+]one ok\nlivez check passed\n".to_owned())
        );
        checks.add("two", || Err("it\nfell".to_owned()));
        assert_eq!(
            checks.ask("livez", false),
            Err("[+]ping ok\n[+]one ok\n[-]two failed: it fell\nlivez check failed\n".to_owned())
        );
    }
}
