//! Runs what a work's author wrote (CEL, jq) so that it can not hold the agent up: on a thread of its own, for a limited
//! time, and not again for a while once it ran over it.
//!
//! Neither interpreter can be stopped from outside or meters its cost, so a thread that runs away is left behind. How many
//! may be left behind is limited too; beyond that nothing new is started that has not shown before that it ends.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One evaluation may take this long (wire §3.3 gives jq one second).
const LIMIT: Duration = Duration::from_secs(1);
/// What ran over the limit is refused for this long.
pub const PENALTY: Duration = Duration::from_secs(600);
/// Threads that may be left behind at a time.
const LEFT_BEHIND: usize = 2;
/// Deep expressions recurse; the stack is only reserved, not used up.
const STACK: usize = 64 << 20;

static REFUSED: LazyLock<Mutex<HashMap<u64, Instant>>> = LazyLock::new(Mutex::default);
static LOST: AtomicUsize = AtomicUsize::new(0);

/// It took too long, now or a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RanAway;

/// Runs `evaluate` off the reactor. `source` is what is evaluated: it is known again by it.
pub async fn run<T: Send + 'static>(
    source: &impl Hash,
    evaluate: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RanAway> {
    run_within(LIMIT, source, evaluate).await
}

async fn run_within<T: Send + 'static>(
    limit: Duration,
    source: &impl Hash,
    evaluate: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RanAway> {
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    let key = hasher.finish();
    {
        let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, until| *until > Instant::now());
        if refused.contains_key(&key) {
            return Err(RanAway);
        }
    }
    if LOST.load(Ordering::Relaxed) >= LEFT_BEHIND {
        return Err(RanAway);
    }
    let (tell, told) = tokio::sync::oneshot::channel();
    let over = Arc::new(AtomicBool::new(false));
    let late = over.clone();
    let thread = std::thread::Builder::new()
        .name("evaluate".into())
        .stack_size(STACK);
    let started = thread.spawn(move || {
        let answer = evaluate();
        if over.swap(true, Ordering::Relaxed) {
            // Nobody waits any more: this thread was counted as left behind, and is back.
            LOST.fetch_sub(1, Ordering::Relaxed);
        }
        drop(tell.send(answer));
    });
    if started.is_err() {
        return Err(RanAway);
    }
    if let Ok(answer) = tokio::time::timeout(limit, told).await {
        // Closed without an answer: it panicked.
        return answer.map_err(|_| RanAway);
    }
    LOST.fetch_add(1, Ordering::Relaxed);
    if late.swap(true, Ordering::Relaxed) {
        // It ended at this very moment.
        LOST.fetch_sub(1, Ordering::Relaxed);
    }
    REFUSED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(key, Instant::now() + PENALTY);
    Err(RanAway)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_ends_answers_and_what_does_not_is_refused() {
        assert_eq!(run(&"one", || 1).await, Ok(1));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let limit = Duration::from_millis(20);
        let endless = move || {
            let _ = held.recv();
            2
        };
        assert_eq!(run_within(limit, &"two", endless).await, Err(RanAway));
        assert_eq!(run(&"two", || 2).await, Err(RanAway), "not again so soon");
        assert_eq!(run(&"three", || 3).await, Ok(3), "others go on");
        drop(release);
    }
}
