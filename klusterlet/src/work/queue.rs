//! A work queue as controllers need it: a key is handled by one worker at a time, repeated adds fold into one, keys can be
//! added for later, failing keys back off, and keys that come all the time come at a pace.

use super::pace::{Pace, Tokens};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Shortest and longest wait of a failing key.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));

/// The queue. Share it by `Arc`.
#[derive(Debug)]
pub struct Queue<K> {
    inner: Mutex<Inner<K>>,
    wake: Notify,
}

#[derive(Debug)]
struct Inner<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    active: HashSet<K>,
    again: HashSet<K>,
    later: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
    pace: Option<Pace>,
    tokens: HashMap<K, Tokens>,
    sweep_at: usize,
}

/// Keys whose pace is remembered before those are forgotten that need not be.
const SWEEP_AT: usize = 256;

impl<K: Clone + Eq + Hash> Default for Queue<K> {
    fn default() -> Self {
        let inner = Inner {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            active: HashSet::new(),
            again: HashSet::new(),
            later: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            pace: None,
            tokens: HashMap::new(),
            sweep_at: SWEEP_AT,
        };
        Self {
            inner: Mutex::new(inner),
            wake: Notify::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// One in which no key is handled more often than the pace allows.
    pub fn paced(pace: Pace) -> Self {
        let queue = Self::default();
        queue.with(|q| q.pace = Some(pace));
        queue
    }

    fn with<T>(&self, f: impl FnOnce(&mut Inner<K>) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a key now. While it is being handled it is handled once more afterwards.
    pub fn add(&self, key: K) {
        self.with(|q| q.add(key));
        self.wake.notify_one();
    }

    /// Adds a key for later, unless it is already due earlier.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.with(|q| q.add_at(key, Instant::now() + delay));
        self.wake.notify_one();
    }

    /// The next key, when there is one. The caller must say [`Queue::done`] for it.
    pub async fn next(&self) -> K {
        loop {
            let notified = self.wake.notified();
            let (key, due) = self.with(|q| {
                q.promote(Instant::now());
                (q.take(Instant::now()), q.later.keys().next().map(|(at, _)| *at))
            });
            if let Some(key) = key {
                // Others may be ready too, and a permit is never stored twice.
                self.wake.notify_one();
                return key;
            }
            match due {
                Some(at) => tokio::select! { () = notified => {}, () = tokio::time::sleep_until(at) => {} },
                None => notified.await,
            }
        }
    }

    /// The key was handled. Success resets its back-off.
    pub fn done(&self, key: &K) {
        self.with(|q| {
            q.failures.remove(key);
            q.finish(key);
        });
        self.wake.notify_one();
    }

    /// Handling the key failed: it comes again after a wait that doubles each time.
    pub fn failed(&self, key: &K) -> Duration {
        let delay = self.with(|q| {
            let count = q.failures.entry(key.clone()).or_insert(0);
            let delay = BACKOFF.0.saturating_mul(1 << (*count).min(16)).min(BACKOFF.1);
            *count += 1;
            q.finish(key);
            q.add_at(key.clone(), Instant::now() + delay);
            delay
        });
        self.wake.notify_one();
        delay
    }

    /// How many keys wait for their turn, and how many failed last.
    pub fn figures(&self) -> (usize, usize) {
        self.with(|q| (q.ready.len(), q.failures.len()))
    }

    /// Forgets how often a key failed: what it needs has changed, so it is worth trying at once.
    pub fn forget(&self, key: &K) {
        self.with(|q| q.failures.remove(key));
    }
}

impl<K: Clone + Eq + Hash> Inner<K> {
    fn add(&mut self, key: K) {
        if let Some(at) = self.due.remove(&key) {
            self.later.remove(&at);
        }
        if self.active.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: K, at: Instant) {
        if self.queued.contains(&key) || self.again.contains(&key) {
            return;
        }
        if let Some(old) = self.due.get(&key).copied() {
            if old.0 <= at {
                return;
            }
            self.later.remove(&old);
        }
        self.sequence += 1;
        self.due.insert(key.clone(), (at, self.sequence));
        self.later.insert((at, self.sequence), key);
    }

    fn promote(&mut self, now: Instant) {
        while let Some((&at, _)) = self.later.first_key_value() {
            if at.0 > now {
                break;
            }
            if let Some(key) = self.later.remove(&at) {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self, now: Instant) -> Option<K> {
        while let Some(key) = self.ready.pop_front() {
            self.queued.remove(&key);
            match self.tokens(&key, now) {
                Ok(()) => {
                    self.active.insert(key.clone());
                    return Some(key);
                }
                Err(wait) => self.add_at(key, now + wait),
            }
        }
        None
    }

    fn tokens(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        let Some(pace) = self.pace else { return Ok(()) };
        if self.tokens.len() >= self.sweep_at {
            self.tokens.retain(|_, tokens| !tokens.is_full(pace, now));
            self.sweep_at = (self.tokens.len() * 2).max(SWEEP_AT);
        }
        let full = || Tokens::full(pace, now);
        self.tokens
            .entry(key.clone())
            .or_insert_with(full)
            .take(pace, now)
    }

    fn finish(&mut self, key: &K) {
        self.active.remove(key);
        if self.again.remove(key) {
            self.add(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_handled_by_one_worker_and_once_more_when_added_meanwhile() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "b");
        assert!(
            tokio::time::timeout(Duration::from_secs(1), queue.next())
                .await
                .is_err()
        );
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn failing_keys_back_off_and_success_forgets() {
        let queue = Queue::default();
        queue.add("a");
        let mut last = Duration::ZERO;
        for _ in 0..15 {
            assert_eq!(queue.next().await, "a");
            let delay = queue.failed(&"a");
            assert!(delay >= last && delay <= BACKOFF.1);
            last = delay;
        }
        assert_eq!(last, BACKOFF.1);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.failed(&"a"), BACKOFF.0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_all_the_time_comes_at_a_pace_and_holds_up_nobody() {
        let queue = Queue::paced(Pace {
            burst: 10.0,
            per_second: 5.0,
        });
        let start = Instant::now();
        let mut handled = HashMap::new();
        // One key comes every millisecond, a hundred others once each.
        for millisecond in 0..2000 {
            queue.add(0);
            if millisecond % 20 == 10 {
                queue.add(millisecond);
            }
            while let Ok(key) = tokio::time::timeout(Duration::ZERO, queue.next()).await {
                *handled.entry(key).or_insert(0) += 1;
                assert!(
                    key == 0 || start.elapsed() == Duration::from_millis(key),
                    "{key} waited"
                );
                queue.done(&key);
            }
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(handled.len(), 101);
        let flapping = handled[&0];
        assert!((18..=20).contains(&flapping), "{flapping}");
        // The last one is not lost.
        assert_eq!(queue.next().await, 0);
        assert!(start.elapsed() < Duration::from_millis(2300));
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_of_keys_that_are_quiet_is_forgotten() {
        let queue = Queue::paced(Pace {
            burst: 2.0,
            per_second: 1.0,
        });
        for key in 0..10 * SWEEP_AT {
            queue.add(key);
            queue.next().await;
            queue.done(&key);
            tokio::time::advance(Duration::from_millis(50)).await;
        }
        assert!(queue.with(|q| q.tokens.len()) <= SWEEP_AT);
    }

    #[tokio::test(start_paused = true)]
    async fn later_is_later_and_now_overtakes() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(9));
        queue.add_after("b", Duration::from_secs(2));
        assert_eq!(queue.next().await, "b");
        assert_eq!(start.elapsed(), Duration::from_secs(2));
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(
            tokio::time::timeout(Duration::from_secs(60), queue.next())
                .await
                .is_err()
        );
    }
}
