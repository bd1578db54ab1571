//! Runs what a work's author wrote (CEL, jq) so that it can not hold the agent up: on a thread of its own, for a limited
//! time, and not again for a while once it ran over it.
//!
//! Neither interpreter can be stopped from outside or meters its cost, so a thread that runs away is left behind. How many
//! may be left behind is limited too; beyond that nothing is started that has not shown before that it ends.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One evaluation may take this much of a processor's time (wire §3.3 gives jq one second).
const LIMIT: Duration = Duration::from_secs(1);
/// It may last so many times longer, where the machine has much else to do.
const PATIENCE: u32 = 10;
/// What ran over the limit is refused for this long.
pub const PENALTY: Duration = Duration::from_secs(600);
/// Threads that may be left behind at a time by what is evaluated for the first time...
const LEFT_BEHIND: usize = 2;
/// ...and by what ended before: one that runs away on new input is rare.
const LEFT_BEHIND_AT_MOST: usize = 4;
/// So many are known to end; beyond that they are found out anew.
const PROVEN: usize = 4096;
/// Deep expressions recurse; the stack is only reserved, not used up.
const STACK: usize = 64 << 20;
/// A busy machine may take this long to start a thread.
const START: Duration = Duration::from_secs(10);

/// What is known of what was evaluated.
#[derive(Default)]
struct Known {
    refused: Mutex<HashMap<u64, Instant>>,
    ended: Mutex<HashSet<u64>>,
    lost: AtomicUsize,
}

static KNOWN: LazyLock<Arc<Known>> = LazyLock::new(Arc::default);

/// It took too long, now or a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RanAway;

/// Runs `evaluate` off the reactor. `source` is what is evaluated: it is known again by it.
pub async fn run<T: Send + 'static>(
    source: &impl Hash,
    evaluate: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RanAway> {
    KNOWN.run(LIMIT, source, evaluate).await
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    /// Whether it may be started.
    fn lets(&self, key: u64) -> bool {
        let mut refused = locked(&self.refused);
        refused.retain(|_, until| *until > Instant::now());
        if refused.contains_key(&key) {
            return false;
        }
        let lost = self.lost.load(Ordering::Relaxed);
        lost < LEFT_BEHIND || (lost < LEFT_BEHIND_AT_MOST && locked(&self.ended).contains(&key))
    }

    fn ended(&self, key: u64) {
        let mut ended = locked(&self.ended);
        if ended.len() >= PROVEN {
            ended.clear();
        }
        ended.insert(key);
    }

    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        source: &impl Hash,
        evaluate: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RanAway> {
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        let key = hasher.finish();
        if !self.lets(key) {
            return Err(RanAway);
        }
        let (begin, begun) = tokio::sync::oneshot::channel();
        let (tell, told) = tokio::sync::oneshot::channel();
        let over = Arc::new(AtomicBool::new(false));
        let (late, known) = (over.clone(), self.clone());
        let thread = std::thread::Builder::new()
            .name("evaluate".into())
            .stack_size(STACK);
        let started = thread.spawn(move || {
            if begin.send(Used::here()).is_err() {
                return;
            }
            let back = Back { over, known };
            let answer = evaluate();
            drop(back);
            drop(tell.send(answer));
        });
        let (Ok(_), Ok(Ok(used))) = (started, tokio::time::timeout(START, begun).await) else {
            return Err(RanAway);
        };
        tokio::pin!(told);
        let (since, mut left) = (Instant::now(), limit);
        while !left.is_zero() {
            if let Ok(answer) = tokio::time::timeout(left, &mut told).await {
                self.ended(key);
                // Closed without an answer: it panicked.
                return answer.map_err(|_| RanAway);
            }
            let lasted = since.elapsed();
            left = limit.saturating_sub(used.time().unwrap_or(lasted));
            left = left.min((limit * PATIENCE).saturating_sub(lasted));
        }
        self.lost.fetch_add(1, Ordering::Relaxed);
        if late.swap(true, Ordering::Relaxed) {
            // It ended at this very moment.
            self.lost.fetch_sub(1, Ordering::Relaxed);
        }
        locked(&self.refused).insert(key, Instant::now() + PENALTY);
        Err(RanAway)
    }
}

/// How much of a processor's time a thread has had.
struct Used(Option<PathBuf>);

impl Used {
    /// Of the thread it is called on. Where the system does not tell, `time` knows nothing.
    fn here() -> Self {
        Self(std::fs::read_link("/proc/thread-self").ok())
    }

    fn time(&self) -> Option<Duration> {
        let path = Path::new("/proc").join(self.0.as_ref()?).join("schedstat");
        let text = std::fs::read_to_string(path).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    }
}

/// Says when a thread is through, also where it panics.
struct Back {
    over: Arc<AtomicBool>,
    known: Arc<Known>,
}

impl Drop for Back {
    fn drop(&mut self) {
        if self.over.swap(true, Ordering::Relaxed) {
            // Nobody waits any more: this thread was counted as left behind, and is back.
            self.known.lost.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_ends_answers_and_what_does_not_is_refused() {
        let known = Arc::<Known>::default();
        let short = Duration::from_millis(20);
        let mut held = Vec::new();
        let mut endless = || {
            let (release, wait) = std::sync::mpsc::channel::<()>();
            held.push(release);
            move || {
                let _ = wait.recv();
                2
            }
        };
        assert_eq!(known.run(LIMIT, &"one", || 1).await, Ok(1));
        assert_eq!(known.run(short, &"two", endless()).await, Err(RanAway));
        assert_eq!(
            known.run(LIMIT, &"two", || 2).await,
            Err(RanAway),
            "not again so soon"
        );
        assert_eq!(known.run(LIMIT, &"three", || 3).await, Ok(3), "others go on");
        assert_eq!(known.run(short, &"four", endless()).await, Err(RanAway));
        assert_eq!(
            known.run(LIMIT, &"five", || 5).await,
            Err(RanAway),
            "it may run away too"
        );
        assert_eq!(
            known.run(LIMIT, &"three", || 3).await,
            Ok(3),
            "what ended before ends"
        );
        for proven in ["one", "three"] {
            assert_eq!(known.run(short, &proven, endless()).await, Err(RanAway));
        }
        assert_eq!(known.lost.load(Ordering::Relaxed), LEFT_BEHIND_AT_MOST);
        drop(held);
    }

    #[tokio::test]
    async fn what_panics_late_is_left_behind_no_more() {
        let known = Arc::<Known>::default();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let panics = move || assert_eq!(wait.recv(), Ok(()), "what it was waiting for has gone");
        assert_eq!(
            known.run(Duration::from_millis(20), &"one", panics).await,
            Err(RanAway)
        );
        assert_eq!(known.lost.load(Ordering::Relaxed), 1);
        drop(release);
        let patience = Instant::now() + Duration::from_secs(30);
        while known.lost.load(Ordering::Relaxed) > 0 {
            assert!(Instant::now() < patience, "the thread has not come back");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
