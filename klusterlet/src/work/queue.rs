//! A work queue as controllers need it: a key is handled by one worker at a time, repeated adds fold into one, keys can be
//! added for later, and failing keys back off.

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
}

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
        };
        Self {
            inner: Mutex::new(inner),
            wake: Notify::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
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
                (q.take(), q.later.keys().next().map(|(at, _)| *at))
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

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.active.insert(key.clone());
        Some(key)
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
