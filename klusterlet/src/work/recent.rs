//! Objects of the managed cluster as they were last seen, as long as there is room: a work that changes finds its object here
//! and needs not ask for it. What is written carries the resourceVersion, so that an object that has changed since is noticed.

use super::state::{ObjectKey, revision};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Room for some three hundred small objects. They are kept as text, which takes a fifth of what they take as values.
const ROOM: usize = 512 << 10;
/// A larger one is asked for when it is needed.
const LARGEST: usize = 16 << 10;

/// The objects seen last.
#[derive(Debug, Default)]
pub struct Recent {
    kept: HashMap<ObjectKey, Kept>,
    by_age: BTreeMap<u64, ObjectKey>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    /// Its place in the order.
    age: u64,
    /// resourceVersion.
    revision: u64,
    text: Box<[u8]>,
}

impl Recent {
    /// It was seen so, by a watch or in the answer to a write: what comes later may be the older.
    pub fn put(&mut self, key: &ObjectKey, object: &Value) {
        let revision = revision(object["metadata"]["resourceVersion"].as_str());
        if self.kept.get(key).is_some_and(|kept| kept.revision > revision) {
            return;
        }
        self.remove(key);
        let mut text = Bounded(Vec::new());
        if serde_json::to_writer(&mut text, object).is_err() {
            return;
        }
        let text = text.0.into_boxed_slice();
        self.bytes += text.len();
        let age = self.next;
        self.next += 1;
        self.by_age.insert(age, key.clone());
        self.kept.insert(key.clone(), Kept { age, revision, text });
        while self.bytes > ROOM
            && let Some(oldest) = self.by_age.values().next().cloned()
        {
            self.remove(&oldest);
        }
    }

    /// As it was last seen.
    pub fn get(&self, key: &ObjectKey) -> Option<Value> {
        serde_json::from_slice(&self.kept.get(key)?.text).ok()
    }

    /// It is gone.
    pub fn remove(&mut self, key: &ObjectKey) {
        if let Some(kept) = self.kept.remove(key) {
            self.by_age.remove(&kept.age);
            self.bytes -= kept.text.len();
        }
    }
}

/// Takes no more than the largest object.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > LARGEST {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            group: String::new(),
            resource: "configmaps".into(),
            namespace: "n".into(),
            name: name.into(),
        }
    }

    #[test]
    fn the_last_that_was_seen_is_there_until_the_object_goes() {
        let mut recent = Recent::default();
        recent.put(&key("a"), &json!({"n": 1}));
        recent.put(&key("a"), &json!({"n": 2}));
        assert_eq!(recent.get(&key("a")), Some(json!({"n": 2})));
        assert_eq!(recent.get(&key("b")), None);
        let at = |revision: &str| json!({"metadata": {"resourceVersion": revision}});
        for revision in ["9", "10", "9"] {
            recent.put(&key("c"), &at(revision));
        }
        assert_eq!(
            recent.get(&key("c")),
            Some(at("10")),
            "an event may come after the answer"
        );
        recent.remove(&key("c"));
        recent.remove(&key("a"));
        assert_eq!(recent.get(&key("a")), None);
        assert_eq!((recent.bytes, recent.by_age.len()), (0, 0));
    }

    #[test]
    fn the_oldest_make_room_and_one_that_is_too_large_is_not_kept() {
        let mut recent = Recent::default();
        let text = "x".repeat(LARGEST / 2);
        for n in 0..200 {
            recent.put(&key(&n.to_string()), &json!({"n": n, "text": text}));
        }
        assert!(recent.bytes <= ROOM && recent.kept.len() > 60, "{}", recent.bytes);
        assert_eq!(recent.kept.len(), recent.by_age.len());
        assert!(recent.get(&key("0")).is_none() && recent.get(&key("199")).is_some());
        // What was there before under the name is not what is there now.
        recent.put(&key("199"), &json!({"text": "x".repeat(LARGEST)}));
        assert_eq!(recent.get(&key("199")), None);
    }
}
