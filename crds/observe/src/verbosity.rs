//! How much a process logs, by one flag in the two forms people know: `-v`, `-vv`, `-vvv`, and Kubernetes' own `-v=4` or
//! `--v=4`, which the manifests of others have.

/// The flag.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Verbosity {
    /// Log more to standard error; twice and thrice for still more. A number is Kubernetes': -v=2 is what is logged anyway
    #[arg(
        short = 'v',
        long = "verbose",
        alias = "v",
        global = true,
        value_name = "LEVEL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "3",
        value_parser = steps
    )]
    given: Vec<u8>,
}

impl Verbosity {
    /// The filter of the log, where one is asked for.
    pub fn filter(&self) -> Option<&'static str> {
        match self.given.iter().fold(0, |all: u8, one| all.saturating_add(*one)) {
            0 => None,
            // What kube says of a watch that fails, its caller says too.
            1 => Some("info,kube_runtime=error"),
            2 => Some(
                "info,kube_runtime=error,muster=debug,muster_hub=debug,muster_klusterlet=debug,muster_apiserver=debug",
            ),
            _ => Some("debug"),
        }
    }
}

/// How many times -v a level of Kubernetes' is.
fn steps(level: &str) -> Result<u8, String> {
    let level: u32 = level
        .parse()
        .map_err(|_| format!("{level:?} is no level: write -v, or a number as in -v=4"))?;
    Ok(match level {
        0..=2 => 0,
        3 => 1,
        4..=5 => 2,
        _ => 3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        verbosity: Verbosity,
        #[command(subcommand)]
        sub: Option<Sub>,
    }

    #[derive(clap::Subcommand)]
    enum Sub {
        Run { name: Option<String> },
    }

    #[test]
    fn both_forms_are_read() {
        let usual = "info,kube_runtime=error";
        let ours = "info,kube_runtime=error,muster=debug,muster_hub=debug,muster_klusterlet=debug,muster_apiserver=debug";
        for (line, expected) in [
            ("", None),
            ("-v", Some(usual)),
            ("--verbose", Some(usual)),
            ("-vv", Some(ours)),
            ("-v -v", Some(ours)),
            ("-vvv", Some("debug")),
            ("-v=0", None),
            ("-v=2", None),
            ("--v=2", None),
            ("--v=4", Some(ours)),
            ("-v=10", Some("debug")),
            ("run -v=4", Some(ours)),
            ("run --v=2", None),
            ("run -vv", Some(ours)),
        ] {
            let words = std::iter::once("x").chain(line.split_whitespace());
            let read = Line::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!(read.verbosity.filter(), expected, "{line}");
        }
        // What follows is not taken for a level.
        let read = Line::try_parse_from(["x", "run", "-v", "name"]).unwrap_or_else(|e| panic!("{e}"));
        assert!(matches!(read.sub, Some(Sub::Run { name: Some(name) }) if name == "name"));
        let error = Line::try_parse_from(["x", "--v=much"]).map(drop).unwrap_err();
        assert!(error.to_string().contains("is no level"), "{error}");
    }
}
