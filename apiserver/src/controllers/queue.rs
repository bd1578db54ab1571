//! Keyed work: each key once, none twice at the same time, failures later and later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// First delay after a failure; doubles with each.
const FIRST_DELAY: Duration = Duration::from_millis(5);
/// Longest delay after a failure.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// A queue of keys with the time each is due.
#[derive(Debug)]
pub struct Queue<W> {
    due: BTreeSet<(Instant, W)>,
    when: BTreeMap<W, Instant>,
    /// What runs, and when it is due again because of what happened meanwhile.
    running: BTreeMap<W, Option<Instant>>,
    failures: BTreeMap<W, u32>,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self {
            due: BTreeSet::new(),
            when: BTreeMap::new(),
            running: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }
}

impl<W: Ord + Clone> Queue<W> {
    /// Makes a key due at a time, or earlier if it already is. One that runs becomes due after it has run.
    pub fn add(&mut self, work: W, at: Instant) {
        if let Some(again) = self.running.get_mut(&work) {
            *again = Some(again.map_or(at, |t| t.min(at)));
            return;
        }
        if let Some(before) = self.when.get(&work) {
            if *before <= at {
                return;
            }
            self.due.remove(&(*before, work.clone()));
        }
        self.when.insert(work.clone(), at);
        self.due.insert((at, work));
    }

    /// When the next key is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes a key that is due. It runs until [`Queue::done`].
    pub fn take(&mut self, now: Instant) -> Option<W> {
        if self.next_due()? > now {
            return None;
        }
        let (_, work) = self.due.pop_first()?;
        self.when.remove(&work);
        self.running.insert(work.clone(), None);
        Some(work)
    }

    /// How many keys run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Ends a run. `Ok` says when the key is due on its own, `Err` that it failed.
    pub fn done(&mut self, work: W, result: Result<Option<Duration>, ()>, now: Instant) {
        let happened = self.running.remove(&work).flatten();
        let own = if let Ok(after) = result {
            self.failures.remove(&work);
            after.and_then(|d| now.checked_add(d))
        } else {
            let count = self.failures.entry(work.clone()).or_default();
            let delay = FIRST_DELAY
                .saturating_mul(1 << (*count).min(16))
                .min(LONGEST_DELAY);
            *count += 1;
            Some(now + delay)
        };
        if let Some(at) = own.into_iter().chain(happened).min() {
            self.add(work, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_queued_once_and_never_runs_twice_at_a_time() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut queue = Queue::default();
        queue.add("a", now + second);
        queue.add("a", now);
        queue.add("a", now + second);
        queue.add("b", now + second);
        assert_eq!(queue.take(now), Some("a"));
        assert_eq!(queue.take(now), None);
        assert_eq!(queue.next_due(), Some(now + second));
        queue.add("a", now);
        assert_eq!((queue.take(now), queue.running()), (None, 1));
        queue.done("a", Ok(None), now);
        assert_eq!(queue.take(now), Some("a"));
        queue.done("a", Ok(Some(second * 5)), now);
        assert_eq!(queue.take(now + second), Some("b"));
        queue.done("b", Ok(None), now);
        assert_eq!(queue.next_due(), Some(now + second * 5));
    }

    #[test]
    fn failures_come_back_later_and_later_until_one_succeeds() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let mut delays = Vec::new();
        for _ in 0..20 {
            queue.add("a", now);
            let work = queue.take(now).unwrap();
            queue.done(work, Err(()), now);
            delays.push(queue.next_due().unwrap() - now);
        }
        assert_eq!(
            (delays[0], delays[1], delays[19]),
            (FIRST_DELAY, FIRST_DELAY * 2, LONGEST_DELAY)
        );
        // An event is not held up by the failures before it.
        queue.add("a", now);
        let work = queue.take(now).unwrap();
        queue.done(work, Ok(None), now);
        assert_eq!(queue.next_due(), None);
        queue.add("a", now);
        let work = queue.take(now).unwrap();
        queue.done(work, Err(()), now);
        assert_eq!(queue.next_due(), Some(now + FIRST_DELAY));
    }
}
