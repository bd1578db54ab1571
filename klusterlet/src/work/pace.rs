//! How often one key may be handled: what happens now and then goes at once, what happens all the time is thinned out.

use std::time::Duration;
use tokio::time::Instant;

/// So many at once, and then so many a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// At once.
    pub burst: f64,
    /// A second.
    pub per_second: f64,
}

/// What one key has left of it.
#[derive(Debug, Clone, Copy)]
pub struct Tokens {
    left: f64,
    at: Instant,
}

impl Tokens {
    /// All that the pace allows at once.
    pub fn full(pace: Pace, now: Instant) -> Self {
        Self {
            left: pace.burst,
            at: now,
        }
    }

    fn refill(&mut self, pace: Pace, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * pace.per_second).min(pace.burst);
        self.at = now;
    }

    /// Takes one, or says when there will be one.
    pub fn take(&mut self, pace: Pace, now: Instant) -> Result<(), Duration> {
        self.refill(pace, now);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        // A little more, so that rounding does not make it come too early.
        Err(Duration::from_secs_f64((1.0 - self.left) / pace.per_second) + Duration::from_micros(10))
    }

    /// Whether nothing is missing: then it need not be remembered.
    pub fn is_full(&mut self, pace: Pace, now: Instant) -> bool {
        self.refill(pace, now);
        self.left >= pace.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_at_once_and_then_so_many_a_second() {
        let pace = Pace {
            burst: 3.0,
            per_second: 2.0,
        };
        let start = Instant::now();
        let mut tokens = Tokens::full(pace, start);
        // When it is asked for, in milliseconds, and how long it must wait.
        let cases = [
            (0, 0),
            (0, 0),
            (0, 0),
            (0, 500),
            (400, 100),
            (501, 0),
            (502, 499),
            (1002, 0),
            (9000, 0),
            (9000, 0),
            (9000, 0),
            (9000, 500),
        ];
        for (at, wait) in cases {
            let now = start + Duration::from_millis(at);
            let found = tokens.take(pace, now).err().map_or(0, |w| w.as_millis());
            assert!(found.abs_diff(wait) <= 1, "at {at}: {found}, not {wait}");
        }
        assert!(!tokens.is_full(pace, start + Duration::from_secs(10)));
        assert!(tokens.is_full(pace, start + Duration::from_secs(11)));
    }
}
