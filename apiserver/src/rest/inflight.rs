//! How many requests are worked on at once. More wait a moment in line; who would wait too long, or behind too many, gets a
//! 429 and comes back (kube-apiserver's `--max-requests-inflight`, with its flow control's short queues).
//!
//! Watches are not counted: open, they cost memory alone. Members of `system:masters` and this process's own controllers go
//! on without a seat, so that an administrator gets in when everybody else is in the way.

use super::path;
use crate::ApiError;
use crate::auth::{SYSTEM_MASTERS, UserInfo};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reading requests at once, as kube-apiserver's default.
pub const READING: usize = 400;
/// Writing requests at once, as kube-apiserver's default.
pub const WRITING: usize = 200;
/// How many may stand in line, for each seat.
const LINE: usize = 20;
/// How long somebody stands in line before being sent away.
const PATIENCE: Duration = Duration::from_secs(10);
/// When who was sent away may come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Seats for requests.
#[derive(Debug)]
pub struct InFlight {
    reading: Seats,
    writing: Seats,
    patience: Duration,
}

#[derive(Debug)]
struct Seats {
    count: usize,
    free: Arc<Semaphore>,
    line: AtomicUsize,
    longest: usize,
}

impl Seats {
    fn new(count: usize, longest: usize) -> Self {
        Self {
            count,
            free: Arc::new(Semaphore::new(count)),
            line: AtomicUsize::new(0),
            longest,
        }
    }

    async fn take(&self, patience: Duration) -> Option<OwnedSemaphorePermit> {
        if let Ok(seat) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(seat);
        }
        let place = InLine::join(self)?;
        let seat = tokio::time::timeout(patience, Arc::clone(&self.free).acquire_owned()).await;
        drop(place);
        seat.ok()?.ok()
    }

    fn taken(&self) -> usize {
        self.count.saturating_sub(self.free.available_permits())
    }
}

/// A place in line, given up when dropped: also when the client goes away.
struct InLine<'a>(&'a AtomicUsize);

impl<'a> InLine<'a> {
    fn join(seats: &'a Seats) -> Option<Self> {
        let place = Self(&seats.line);
        (seats.line.fetch_add(1, Ordering::Relaxed) < seats.longest).then_some(place)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for InFlight {
    fn default() -> Self {
        Self::new(READING, WRITING)
    }
}

impl InFlight {
    /// So many at once of each kind; a limit of 0 is none.
    pub fn new(reading: usize, writing: usize) -> Self {
        let seats = |count: usize| match count {
            0 => Seats::new(Semaphore::MAX_PERMITS, 0),
            count => Seats::new(count, count.saturating_mul(LINE)),
        };
        Self {
            reading: seats(reading),
            writing: seats(writing),
            patience: PATIENCE,
        }
    }

    /// The same limits for who has no time to stand in line.
    #[cfg(test)]
    pub(super) fn impatient(mut self) -> Self {
        (self.reading.longest, self.writing.longest) = (0, 0);
        self
    }

    /// A seat for a request, given back when the value is dropped; `None` for who needs none.
    pub async fn seat(&self, user: &UserInfo, verb: &str) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        if verb == "watch" || user.groups.iter().any(|g| g == SYSTEM_MASTERS) {
            return Ok(None);
        }
        let seats = if path::is_mutating(verb) {
            &self.writing
        } else {
            &self.reading
        };
        let seat = seats.take(self.patience).await;
        seat.map(Some).ok_or_else(|| ApiError::TooManyRequests {
            message: "Too many requests, please try again later.".into(),
            retry_after: RETRY_AFTER,
        })
    }

    /// How many read and how many write at the moment.
    pub fn taken(&self) -> (usize, usize) {
        (self.reading.taken(), self.writing.taken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(group: &str) -> UserInfo {
        UserInfo {
            name: "u".into(),
            groups: vec![group.into()],
            ..UserInfo::default()
        }
    }

    #[tokio::test]
    async fn seats_are_taken_waited_for_and_refused() {
        let alice = user("people");
        let limits = InFlight::new(1, 1).impatient();
        let read = limits.seat(&alice, "list").await.unwrap();
        assert!(read.is_some());
        assert!(matches!(
            limits.seat(&alice, "get").await,
            Err(ApiError::TooManyRequests { .. })
        ));
        let write = limits.seat(&alice, "patch").await.unwrap();
        assert!(limits.seat(&alice, "create").await.is_err());
        assert_eq!(limits.taken(), (1, 1));
        for (user, verb) in [(&alice, "watch"), (&user(SYSTEM_MASTERS), "create")] {
            assert!(limits.seat(user, verb).await.unwrap().is_none());
        }
        drop((read, write));
        assert!(limits.seat(&alice, "get").await.is_ok());
        assert_eq!(limits.taken(), (0, 0));

        let limits = Arc::new(InFlight::new(1, 1));
        let first = limits.seat(&alice, "create").await.unwrap();
        let waiting = tokio::spawn({
            let (limits, alice) = (limits.clone(), alice.clone());
            async move { limits.seat(&alice, "create").await.map(|seat| seat.is_some()) }
        });
        while limits.writing.line.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        drop(first);
        assert!(waiting.await.unwrap().unwrap());
        assert_eq!(limits.writing.line.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn nobody_stands_in_line_forever() {
        let alice = user("people");
        let mut limits = InFlight::new(1, 1);
        limits.patience = Duration::from_millis(5);
        let _held = limits.seat(&alice, "create").await.unwrap();
        assert!(limits.seat(&alice, "create").await.is_err());
        assert_eq!(limits.writing.line.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn zero_is_no_limit() {
        let limits = InFlight::new(0, 0);
        let mut seats = Vec::new();
        for _ in 0..1000 {
            seats.push(limits.seat(&user("people"), "create").await.unwrap());
        }
        assert_eq!(limits.taken().1, 1000);
    }
}
