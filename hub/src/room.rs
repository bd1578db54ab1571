//! Whether the API server has room for writes. One that has none is not asked for every object again and again: a single
//! write tries, later and later, and when it is taken the others go on.

use std::time::Duration;

use tokio::time::Instant;

/// First and longest wait between tries.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// What is known of the server's room.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// It takes writes, as far as is known.
    #[default]
    Enough,
    /// It takes none.
    None {
        /// When one write may try.
        next: Instant,
        /// How long to wait after that.
        wait: Duration,
    },
}

impl Room {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None { .. })
    }

    /// Whether a write may be sent; where there is no room, one that may is the only one for a while.
    pub fn admit(&mut self, now: Instant) -> bool {
        match self {
            Self::Enough => true,
            Self::None { next, .. } if now < *next => false,
            Self::None { next, wait } => {
                *next = now + *wait;
                *wait = (*wait * 2).min(WAITS.1);
                true
            }
        }
    }

    /// A write was refused for want of room. Whether that is news.
    pub fn refused(&mut self, now: Instant) -> bool {
        let news = !self.is_none();
        if news {
            *self = Self::None {
                next: now + WAITS.0,
                wait: WAITS.0 * 2,
            };
        }
        news
    }

    /// A write was taken. Whether that is news.
    pub fn taken(&mut self) -> bool {
        std::mem::take(self).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_write_tries_later_and_later_until_one_is_taken() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut room = Room::default();
        assert!(room.admit(at(0)) && !room.taken());
        assert!(room.refused(at(0)), "the first is news");
        assert!(!room.refused(at(0)), "those that were under way are not");
        let mut tried = Vec::new();
        for second in 0..60 {
            for _ in 0..1000 {
                if room.admit(at(second)) {
                    tried.push(second);
                    room.refused(at(second));
                }
            }
        }
        assert_eq!(tried, [1, 3, 7, 15, 30, 45]);
        assert!(room.admit(at(60)));
        assert!(room.taken(), "and that is news");
        assert!(room.admit(at(60)) && !room.taken());
    }
}
