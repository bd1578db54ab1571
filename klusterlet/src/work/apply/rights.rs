//! What executors were found to be allowed, remembered as long as nothing about rights changes (gate
//! ExecutorValidatingCaches). Only what is allowed is remembered: what is not is asked again when it is tried again.

use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// An answer is asked again after this, whatever was seen.
const LONGEST: Duration = Duration::from_secs(600);
/// A server may answer from before a change that it has already told of: what it says so soon is not remembered.
const SETTLING: Duration = Duration::from_secs(5);
/// What was not allowed is asked again after this (wire §3.6).
const LATER: Duration = Duration::from_secs(60);
/// What was asked so soon after a change that the answer may be from before it is asked again after this.
pub const ONCE_MORE: Duration = Duration::from_secs(2);

/// Who would do what to which object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Deed {
    /// User name.
    pub user: String,
    /// Verb.
    pub verb: &'static str,
    /// API group.
    pub group: String,
    /// Plural resource.
    pub resource: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What is remembered.
#[derive(Debug, Default)]
pub struct Rights {
    allowed: HashMap<Deed, Instant>,
    /// Kinds of rights, by whether all changes of them are seen.
    seen: HashMap<&'static str, bool>,
    changes: u64,
    changed: Option<Instant>,
}

impl Rights {
    /// Whether it is known to be allowed.
    pub fn allows(&self, deed: &Deed, now: Instant) -> bool {
        let fresh = |at: &Instant| now.duration_since(*at) < LONGEST;
        self.sees_all() && self.allowed.get(deed).is_some_and(fresh)
    }

    /// How many changes there were until now: an answer is of the time when it was asked for.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Remembers that something is allowed, which was asked for when there had been so many changes.
    pub fn learn(&mut self, deed: Deed, changes: u64, now: Instant) {
        if self.sees_all() && changes == self.changes && !self.changed_within(SETTLING, now) {
            self.allowed.retain(|_, at| now.duration_since(*at) < LONGEST);
            self.allowed.insert(deed, now);
        }
    }

    /// When what was not allowed is asked again.
    pub fn ask_again(&self, now: Instant) -> Duration {
        if self.changed_within(SETTLING, now) {
            ONCE_MORE
        } else {
            LATER
        }
    }

    /// Whether there was a change not so long ago.
    pub fn changed_within(&self, time: Duration, now: Instant) -> bool {
        self.changed.is_some_and(|at| now.duration_since(at) < time)
    }

    /// Rights changed, or may have.
    pub fn changed(&mut self, now: Instant) {
        self.allowed.clear();
        self.changes += 1;
        self.changed = Some(now);
    }

    /// From now on all changes of this kind are seen, or no more.
    pub fn watched(&mut self, kind: &'static str, all: bool, now: Instant) {
        if self.seen.insert(kind, all) != Some(all) {
            self.changed(now);
        }
    }

    fn sees_all(&self) -> bool {
        self.seen.len() == KINDS.len() && self.seen.values().all(|seen| *seen)
    }
}

/// The kinds that rights are made of.
pub const KINDS: [&str; 4] = ["roles", "rolebindings", "clusterroles", "clusterrolebindings"];

#[cfg(test)]
mod tests {
    use super::*;

    fn deed(verb: &'static str) -> Deed {
        Deed {
            user: "system:serviceaccount:n:s".into(),
            verb,
            group: String::new(),
            resource: "configmaps".into(),
            namespace: "n".into(),
            name: "a".into(),
        }
    }

    fn watched(now: Instant) -> Rights {
        let mut rights = Rights::default();
        for kind in KINDS {
            rights.watched(kind, true, now);
        }
        rights
    }

    #[test]
    fn only_what_is_known_for_sure_is_remembered() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rights = Rights::default();
        for kind in &KINDS[..3] {
            rights.watched(kind, true, start);
        }
        rights.learn(deed("get"), rights.changes(), at(10));
        assert!(!rights.allows(&deed("get"), at(10)), "not every kind is watched");
        let mut rights = watched(start);
        rights.learn(deed("get"), rights.changes(), at(4));
        assert!(!rights.allows(&deed("get"), at(4)), "too soon after a change");
        rights.learn(deed("get"), rights.changes(), at(5));
        assert!(rights.allows(&deed("get"), at(5)) && !rights.allows(&deed("delete"), at(5)));
        assert!(!rights.allows(&deed("get"), at(605)), "too old");
    }

    #[test]
    fn what_is_not_allowed_just_after_a_change_may_be_an_old_answer_and_is_asked_again_soon() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(Rights::default().ask_again(start), LATER, "nobody looks");
        let mut rights = watched(start);
        for (second, wanted) in [(0, ONCE_MORE), (4, ONCE_MORE), (5, LATER), (60, LATER)] {
            assert_eq!(rights.ask_again(at(second)), wanted, "after {second} s");
        }
        rights.changed(at(61));
        assert_eq!(rights.ask_again(at(62)), ONCE_MORE);
        assert!(rights.changed_within(ONCE_MORE, at(62)) && !rights.changed_within(ONCE_MORE, at(63)));
    }

    #[test]
    fn a_change_forgets_and_so_does_a_watch_that_ends() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rights = watched(start);
        rights.learn(deed("get"), rights.changes(), at(10));
        let before = rights.changes();
        rights.changed(at(11));
        assert!(!rights.allows(&deed("get"), at(11)));
        rights.learn(deed("get"), before, at(20));
        assert!(!rights.allows(&deed("get"), at(20)), "asked before the change");
        rights.learn(deed("get"), rights.changes(), at(20));
        assert!(rights.allows(&deed("get"), at(20)));
        rights.watched("roles", true, at(21));
        assert!(rights.allows(&deed("get"), at(21)), "nothing new");
        rights.watched("roles", false, at(22));
        rights.watched("roles", true, at(23));
        assert!(!rights.allows(&deed("get"), at(23)), "nobody looked for a while");
    }
}
