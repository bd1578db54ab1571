//! Keys to look at: each once however often it was named, never twice at a time, again when its time has come.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use muster_observe::prometheus_client::metrics::{counter::Counter, histogram::Histogram};

use crate::{error::Error, metrics};

/// What a queue holds.
pub type Key = Arc<str>;

/// When a key is to be looked at again, apart from when something about it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Not by itself.
    Idle,
    /// As soon as its turn comes.
    Now,
    /// When that much time has passed.
    After(Duration),
}

#[derive(Default)]
struct State {
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    running: HashSet<Key>,
    /// Named while running.
    dirty: HashSet<Key>,
    timers: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
}

/// How reconciles ended, and how long they took.
pub struct Counts {
    success: Counter,
    conflict: Counter,
    error: Counter,
    /// How long they took.
    pub seconds: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            success: Counter::default(),
            conflict: Counter::default(),
            error: Counter::default(),
            seconds: metrics::seconds(),
        }
    }
}

impl Counts {
    /// How many ended how.
    pub fn by_result(&self) -> [(&'static str, &Counter); 3] {
        [
            ("success", &self.success),
            ("conflict", &self.conflict),
            ("error", &self.error),
        ]
    }
}

/// A queue of keys and its worker.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Notify,
    /// How reconciles went.
    pub counts: Counts,
}

/// How long what runs at shutdown may take to end.
const DRAIN: Duration = Duration::from_secs(5);

impl Queue {
    /// An empty queue.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many keys wait for their turn.
    pub fn depth(&self) -> usize {
        self.lock().ready.len()
    }

    /// How many keys' last reconcile failed.
    pub fn failing(&self) -> usize {
        self.lock().failures.len()
    }

    /// Has the key looked at.
    pub fn add(&self, key: &str) {
        let mut state = self.lock();
        if state.running.contains(key) {
            state.dirty.insert(key.into());
            return;
        }
        if state.queued.contains(key) {
            return;
        }
        state.push(key.into());
        drop(state);
        self.wake.notify_one();
    }

    /// Calls `reconcile` for every key, at most `workers` at a time, until `shutdown`; then waits for what runs.
    /// A failed key comes again, later and later.
    pub async fn run<F, Fut>(
        &self,
        what: &'static str,
        workers: usize,
        shutdown: CancellationToken,
        reconcile: F,
    ) where
        F: Fn(Key) -> Fut,
        Fut: Future<Output = Result<Next, Error>>,
    {
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < workers {
                let Some(key) = self.take() else { break };
                let (work, began) = (reconcile(key.clone()), Instant::now());
                running.push(async move { (key, work.await, began.elapsed()) });
            }
            let due = self.next_due();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some((key, result, took)) = running.next(), if !running.is_empty() => {
                    self.counts.seconds.observe(took.as_secs_f64());
                    self.done(what, &key, result);
                }
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.fire(),
            }
        }
        let drain = async { while running.next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drain).await.is_err() {
            tracing::warn!(
                what,
                "ended with work under way; it is taken up again at the next start"
            );
        }
    }

    fn take(&self) -> Option<Key> {
        let mut state = self.lock();
        let key = state.ready.pop_front()?;
        state.queued.remove(&key);
        state.running.insert(key.clone());
        Some(key)
    }

    fn done(&self, what: &'static str, key: &Key, result: Result<Next, Error>) {
        let mut state = self.lock();
        state.running.remove(key);
        let mut again = state.dirty.remove(key);
        let after = match result {
            Ok(next) => {
                self.counts.success.inc();
                state.failures.remove(key);
                again |= next == Next::Now;
                match next {
                    Next::After(after) => Some(after),
                    Next::Idle | Next::Now => None,
                }
            }
            Err(error) => {
                let failures = state.failures.entry(key.clone()).or_default();
                *failures += 1;
                let after = backoff(*failures);
                if error.is_conflict() {
                    &self.counts.conflict
                } else {
                    &self.counts.error
                }
                .inc();
                // A lost race is no failure to tell of: the next look sees who won.
                if error.is_no_room() {
                    // Told once, for all.
                    tracing::debug!(what, key = &**key, %error, retry_in = ?after, "not done; trying again");
                } else if error.is_conflict() && *failures < 5 {
                    tracing::debug!(what, key = &**key, %error, "written meanwhile; looking again");
                } else {
                    tracing::warn!(what, key = &**key, %error, retry_in = ?after, "not done; trying again");
                }
                Some(after)
            }
        };
        state.set_timer(key, after.map(|after| Instant::now() + after));
        if again {
            state.push(key.clone());
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.lock().timers.first().map(|(due, _)| *due)
    }

    fn fire(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        while let Some((due, key)) = state.timers.first().cloned() {
            if due > now {
                break;
            }
            state.set_timer(&key, None);
            if state.running.contains(&key) {
                state.dirty.insert(key);
            } else if !state.queued.contains(&key) {
                state.push(key);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, key: Key) {
        if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn set_timer(&mut self, key: &Key, due: Option<Instant>) {
        if let Some(before) = self.due.remove(key) {
            self.timers.remove(&(before, key.clone()));
        }
        if let Some(due) = due {
            self.due.insert(key.clone(), due);
            self.timers.insert((due, key.clone()));
        }
    }
}

/// 50 ms, doubled with every failure, at most half a minute.
fn backoff(failures: u32) -> Duration {
    Duration::from_millis(50 << failures.saturating_sub(1).min(10)).min(Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_never_runs_twice_at_a_time_and_a_change_meanwhile_is_not_lost() {
        let queue = Queue::new();
        let (running, runs, worst) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let shutdown = CancellationToken::new();
        queue.add("a");
        queue.add("a");
        let work = queue.run("test", 8, shutdown.clone(), |key| {
            let (running, runs, worst, queue) = (&running, &runs, &worst, &queue);
            async move {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                worst.fetch_max(now, Ordering::SeqCst);
                if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                    queue.add(&key);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(Next::Idle)
            }
        });
        let stop = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            shutdown.cancel();
        };
        tokio::join!(work, stop);
        assert_eq!(
            (runs.load(Ordering::SeqCst), worst.load(Ordering::SeqCst)),
            (2, 1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn timers_fire_once_and_failures_back_off() {
        let queue = Queue::new();
        let started = Instant::now();
        let seen = Mutex::new(Vec::new());
        let shutdown = CancellationToken::new();
        queue.add("timer");
        queue.add("fails");
        let work = queue.run("test", 1, shutdown.clone(), |key| {
            let mut seen = seen.lock().unwrap();
            seen.push((key.to_string(), started.elapsed().as_millis()));
            let times = seen.iter().filter(|(name, _)| **name == *key).count();
            async move {
                match (&*key, times) {
                    ("timer", 1) => Ok(Next::After(Duration::from_secs(3))),
                    ("fails", 1..=3) => Err(Error::Several("no".to_owned())),
                    _ => Ok(Next::Idle),
                }
            }
        });
        let stop = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            shutdown.cancel();
        };
        tokio::join!(work, stop);
        let times = |key: &str| -> Vec<u128> {
            seen.lock()
                .unwrap()
                .iter()
                .filter(|(name, _)| name == key)
                .map(|(_, time)| *time)
                .collect()
        };
        // The timer wheel counts in milliseconds and rounds up.
        let near = |times: Vec<u128>, wanted: &[u128]| {
            assert_eq!(times.len(), wanted.len(), "{times:?}");
            assert!(
                times
                    .iter()
                    .zip(wanted)
                    .all(|(time, wanted)| time.abs_diff(*wanted) <= 5),
                "{times:?}"
            );
        };
        near(times("timer"), &[0, 3000]);
        near(times("fails"), &[0, 50, 150, 350]);
    }
}
