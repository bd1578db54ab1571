//! A queue of queues: whoever puts much in waits for himself, not for others.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Items by whose they are; each in turn.
#[derive(Debug)]
pub struct Fair<K, T> {
    turns: VecDeque<K>,
    waiting: HashMap<K, VecDeque<T>>,
}

impl<K, T> Default for Fair<K, T> {
    fn default() -> Self {
        Self {
            turns: VecDeque::new(),
            waiting: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, T> Fair<K, T> {
    /// Puts one in.
    pub fn push(&mut self, key: K, item: T) {
        let line = self.waiting.entry(key.clone()).or_default();
        if line.is_empty() {
            self.turns.push_back(key);
        }
        line.push_back(item);
    }

    /// Takes the next one out that still waits. Those that do not cost nobody a turn.
    pub fn pop(&mut self, waits: impl Fn(&T) -> bool) -> Option<T> {
        while let Some(key) = self.turns.pop_front() {
            let Some(line) = self.waiting.get_mut(&key) else {
                continue;
            };
            let item = std::iter::from_fn(|| line.pop_front()).find(&waits);
            if line.is_empty() {
                self.waiting.remove(&key);
            } else {
                self.turns.push_back(key);
            }
            if item.is_some() {
                return item;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_in_turn() {
        let mut fair = Fair::default();
        for item in 0..5 {
            fair.push("much", item);
        }
        fair.push("one", 10);
        fair.push("two", 20);
        fair.push("two", 21);
        let order: Vec<i32> = std::iter::from_fn(|| fair.pop(|_| true)).collect();
        assert_eq!(order, [0, 10, 20, 1, 21, 2, 3, 4]);
        assert!(fair.turns.is_empty() && fair.waiting.is_empty());
        fair.push("one", 11);
        assert_eq!(fair.pop(|_| true), Some(11));
    }

    #[test]
    fn who_does_not_wait_any_more_costs_nobody_a_turn() {
        let mut fair = Fair::default();
        for item in [0, 0, 0, 1] {
            fair.push("one", item);
        }
        fair.push("gone", 0);
        fair.push("two", 2);
        fair.push("two", 3);
        let order: Vec<i32> = std::iter::from_fn(|| fair.pop(|item| *item > 0)).collect();
        assert_eq!(order, [1, 2, 3]);
        assert!(fair.turns.is_empty() && fair.waiting.is_empty());
    }
}
