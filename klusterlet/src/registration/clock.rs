//! Time, here and at the hub. Clocks differ; what the hub says in the `Date` of its answers tells by how much, so that no
//! certificate is taken for expired, and no lease for stale, only because of that.

use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Differences below this are the road's and the header's (whole seconds), not the clocks'.
const NOISE: SignedDuration = SignedDuration::from_secs(5);

/// A source of time that knows how far off the hub's is.
#[derive(Clone)]
pub struct Clock {
    here: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Milliseconds to add to get the hub's time.
    offset: Arc<AtomicI64>,
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").field("offset", &self.offset()).finish()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

impl Clock {
    /// A clock over a source of local time.
    pub fn new(here: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            here: Arc::new(here),
            offset: Arc::new(AtomicI64::new(0)),
        }
    }

    /// The time of this machine.
    pub fn here(&self) -> Timestamp {
        (self.here)()
    }

    /// The time at the hub, as far as it is known.
    pub fn at_hub(&self) -> Timestamp {
        let here = self.here();
        here.checked_add(self.offset()).unwrap_or(here)
    }

    /// The hub's time minus this machine's; zero while nothing else is known.
    pub fn offset(&self) -> SignedDuration {
        SignedDuration::from_millis(self.offset.load(Ordering::Relaxed))
    }

    /// Learns from the `Date` of an answer to a request that was sent at `sent` and has just been answered. Returns the
    /// offset when it became another.
    pub fn learn(&self, sent: Timestamp, date: &str) -> Option<SignedDuration> {
        let date = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
        let new = difference(sent, self.here(), date);
        let old = self.offset();
        if (new - old).abs() < NOISE {
            return None;
        }
        self.offset
            .store(i64::try_from(new.as_millis()).unwrap_or(0), Ordering::Relaxed);
        Some(new)
    }
}

/// What is certain of the difference: the answer was made between `sent` and `received`.
fn difference(sent: Timestamp, received: Timestamp, date: Timestamp) -> SignedDuration {
    let difference = if date > received {
        date.duration_since(received)
    } else if date < sent {
        date.duration_since(sent)
    } else {
        SignedDuration::ZERO
    };
    if difference.abs() < NOISE {
        SignedDuration::ZERO
    } else {
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_counts() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        for (sent, received, date, expected) in [
            (100, 100, 100, 0),
            (100, 130, 115, 0),
            (100, 101, 104, 0),
            (100, 101, 98, 0),
            (100, 101, 7301, 7200),
            (10_000, 10_001, 2800, -7200),
        ] {
            assert_eq!(
                difference(at(sent), at(received), at(date)).as_secs(),
                expected,
                "{sent} {received} {date}"
            );
        }
    }

    #[test]
    fn the_hubs_time_follows_its_answers() {
        let clock = Clock::new(|| Timestamp::from_second(1_000_000_000).unwrap());
        let sent = clock.here();
        assert_eq!(clock.learn(sent, "nonsense"), None);
        // Two hours later than 2001-09-09 01:46:40.
        let learned = clock.learn(sent, "Sun, 09 Sep 2001 03:46:40 GMT");
        assert_eq!(learned, Some(SignedDuration::from_hours(2)));
        assert_eq!(clock.at_hub().as_second(), 1_000_007_200);
        assert_eq!(clock.learn(sent, "Sun, 09 Sep 2001 03:46:42 GMT"), None, "noise");
        assert!(
            clock
                .learn(sent, "Sun, 09 Sep 2001 01:46:40 GMT")
                .is_some_and(|d| d.is_zero())
        );
    }
}
