//! A map that remembers what was used lately, and no more than it may.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: what is not used while one fills is forgotten with the next.
#[derive(Debug)]
pub struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// Holds at most `capacity` entries, and the last half of that for certain.
    pub fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            generation: capacity.div_ceil(2).max(1),
        }
    }

    /// An entry, which counts as used.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// Adds or replaces an entry.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// An entry, made when there is none.
    pub fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> Option<&mut V>
    where
        K: Copy,
    {
        if self.get_mut(&key).is_none() {
            self.insert(key, make());
        }
        self.young.get_mut(&key)
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let mut recent = Recent::new(8);
        for number in 0..1000 {
            recent.insert(number, number);
            assert_eq!(recent.get_mut(&0), Some(&mut 0), "used each time");
            assert!(recent.len() <= 9, "{}", recent.len());
        }
        assert_eq!(recent.get_mut(&999), Some(&mut 999));
        assert_eq!(recent.get_mut(&500), None);
        assert_eq!(recent.entry(500, || 1), Some(&mut 1));
    }
}
