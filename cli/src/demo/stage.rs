//! How the demo tells what it does: one line a step with the time it took; colours only for a terminal that wants them.

use crate::{Error, output};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// Columns of a step's title.
const WIDTH: usize = 60;

/// Standard output, with steps.
#[derive(Debug)]
pub struct Stage {
    terminal: bool,
    colours: bool,
    steps: usize,
    step: Option<(String, Instant)>,
    begun: Instant,
    done: bool,
}

impl Stage {
    /// Looks what standard output is.
    pub fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        // no-color.org: any value that is not empty.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Self {
            terminal: terminal && !dumb,
            colours: terminal && !unwanted && !dumb,
            steps: 0,
            step: None,
            begun: Instant::now(),
            done: false,
        }
    }

    /// Begins a step. A terminal shows it at once.
    pub fn begin(&mut self, title: impl Into<String>) -> Result<(), Error> {
        let title = title.into();
        self.steps += 1;
        if self.terminal {
            output::print(&format!("{:>2}  {title} …", self.steps))?;
        }
        self.step = Some((title, Instant::now()));
        Ok(())
    }

    /// Ends the step, with what came of it, a line each.
    pub fn end(&mut self, details: &[String]) -> Result<(), Error> {
        let Some((title, begun)) = self.step.take() else {
            return Ok(());
        };
        let mut text = String::new();
        if self.terminal {
            // Back to the beginning of the line, and clear it.
            text.push_str("\r\x1b[2K");
        }
        text.push_str(&step_line(self.steps, &title, begun.elapsed(), self.colours));
        for detail in details {
            let (dim, off) = if self.colours {
                ("\x1b[2m", "\x1b[0m")
            } else {
                ("", "")
            };
            text.extend(["      ", dim, detail, off, "\n"]);
        }
        output::print(&text)
    }

    /// A step that fails leaves its title on a line of its own.
    pub fn abandon(&mut self) {
        if let Some((title, _)) = self.step.take() {
            let line = format!("{:>2}  {title}", self.steps);
            let text = if self.terminal {
                format!("\r\x1b[2K{line}\n")
            } else {
                format!("{line}\n")
            };
            // The error itself follows on standard error.
            let _ = output::print(&text);
        }
    }

    /// Ends the play.
    pub fn done(&mut self) -> Result<(), Error> {
        self.done = true;
        output::print(&format!(
            "\nAll shown in {:.2} s.\n",
            self.begun.elapsed().as_secs_f64()
        ))
    }

    /// Whether it is ended.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

fn step_line(number: usize, title: &str, took: Duration, colours: bool) -> String {
    let took = format!("{:.2} s", took.as_secs_f64());
    let (green, bold, off) = if colours {
        ("\x1b[32m", "\x1b[1m", "\x1b[0m")
    } else {
        ("", "", "")
    };
    format!("{green}{number:>2}{off}  {bold}{title:<WIDTH$}{off}{took:>8}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_one_line() {
        let plain = step_line(3, "start the hub", Duration::from_millis(1234), false);
        assert_eq!(
            plain,
            format!(" 3  start the hub{}1.23 s\n", " ".repeat(WIDTH - 13 + 2))
        );
        assert!(step_line(3, "x", Duration::ZERO, true).contains("\x1b[32m 3\x1b[0m"));
    }
}
