//! What the store holds in memory: the current objects in list order, and the log of the last changes.
//!
//! The log is kept three times over the same events: whole, by resource and by namespace of a resource (and for single
//! objects while somebody watches them). So a watch reads and is woken by only what concerns it, and it falls behind
//! only when changes it has not seen are dropped, however busy its neighbours are.

use super::watch::Channel;
use super::{Entry, Event, Expect, Key, Page, Range, StoreError};
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

/// The log keeps fewer than `keep_revisions` changes when their objects take more bytes than this.
const LOG_BYTES: usize = 64 << 20;

/// Single-object channels before the first sweep for unused ones.
const SWEEP_AT: usize = 64;

/// One write, before it is checked.
pub(super) struct Write {
    pub(super) key: Key,
    pub(super) object: Value,
    pub(super) action: Action,
}

/// What a [`Write`] does.
#[derive(Clone, Copy)]
pub(super) enum Action {
    /// Creates or replaces.
    Put(Expect),
    /// Deletes the object last written at this revision.
    Delete(u64),
}

/// What a watch sees.
pub(super) enum Scope<'a> {
    All,
    Resource(&'a str),
    Namespace(&'a str, &'a str),
    Object(&'a Key),
}

/// What a batch has done to objects so far: `None` for deleted.
pub(super) type Overlay = HashMap<Key, Option<Arc<Entry>>>;

pub(super) struct State {
    revision: u64,
    /// Changes up to here are not in the log of any resource that is not known yet.
    floor: u64,
    keep: usize,
    log_bytes: usize,
    max_log_bytes: usize,
    kinds: HashMap<Arc<str>, Kind>,
    all: Arc<Channel>,
}

struct Kind {
    resource: Arc<str>,
    count: usize,
    channel: Arc<Channel>,
    namespaces: BTreeMap<Arc<str>, Slot>,
    /// Changes up to here may be missing in the log of a namespace that is not known (any more).
    forgotten: u64,
    objects: HashMap<(Arc<str>, Arc<str>), Arc<Channel>>,
    sweep_at: usize,
}

struct Slot {
    objects: BTreeMap<Arc<str>, Arc<Entry>>,
    /// Unused for cluster-scoped objects, whose only namespace is the whole resource.
    channel: Arc<Channel>,
}

impl State {
    /// An empty state at `revision` that knows nothing of what was up to `floor`.
    pub(super) fn new(revision: u64, floor: u64, keep_revisions: usize) -> Self {
        Self {
            revision,
            floor,
            keep: keep_revisions.max(1),
            log_bytes: 0,
            max_log_bytes: LOG_BYTES,
            kinds: HashMap::new(),
            all: Channel::new(floor, VecDeque::new()),
        }
    }

    #[cfg(test)]
    pub(super) fn limit_log_bytes(&mut self, bytes: usize) {
        self.max_log_bytes = bytes;
    }

    #[cfg(test)]
    pub(super) fn object_channels(&self, resource: &str) -> usize {
        self.kinds.get(resource).map_or(0, |k| k.objects.len())
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Makes the state that of `entries`, at `revision`, with an empty log.
    pub(super) fn restore(&mut self, revision: u64, floor: u64, entries: impl Iterator<Item = Entry>) {
        *self = Self::new(revision, floor, self.keep);
        for entry in entries {
            let key = self.intern(&entry.key);
            let name = Arc::clone(&key.name);
            let kind = self.kind(&key.resource);
            kind.count += 1;
            let entry = Arc::new(Entry::new(key.clone(), entry.revision, entry.json));
            kind.slot(&key.namespace).objects.insert(name, entry);
        }
    }

    /// Takes every revision up to this one as given out and no longer kept. Forgets who watches.
    pub(super) fn skip_to(&mut self, revision: u64) {
        if revision > self.revision {
            let kinds = std::mem::take(&mut self.kinds);
            let slots = kinds.into_values().flat_map(|kind| kind.namespaces.into_values());
            let entries: Vec<Arc<Entry>> = slots.flat_map(|slot| slot.objects.into_values()).collect();
            let entries = entries
                .iter()
                .map(|e| Entry::new(e.key.clone(), e.revision, e.json.clone()));
            self.restore(revision, revision, entries);
        }
    }

    pub(super) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Arc<Entry>> {
        self.kinds
            .get(resource)?
            .namespaces
            .get(namespace)?
            .objects
            .get(name)
    }

    pub(super) fn count(&self, resource: &str) -> usize {
        self.kinds.get(resource).map_or(0, |k| k.count)
    }

    pub(super) fn kept(&self) -> (usize, usize) {
        (self.all.len(), self.log_bytes)
    }

    pub(super) fn resources(&self) -> Vec<(Arc<str>, usize)> {
        self.kinds
            .values()
            .map(|k| (Arc::clone(&k.resource), k.count))
            .collect()
    }

    // ---- writing

    /// Checks a write against the state and what its batch did before, and makes its event at `revision`.
    pub(super) fn plan(
        &self,
        write: Write,
        overlay: &Overlay,
        revision: u64,
    ) -> Result<Arc<Event>, StoreError> {
        let Write {
            key,
            mut object,
            action,
        } = write;
        let prev = match overlay.get(&key) {
            Some(entry) => entry.clone(),
            None => self.get(&key.resource, &key.namespace, &key.name).cloned(),
        };
        match (action, &prev) {
            (Action::Put(Expect::Absent), Some(_)) => return Err(StoreError::Exists),
            (Action::Put(Expect::Revision(_)) | Action::Delete(_), None) => return Err(StoreError::Missing),
            (Action::Put(Expect::Revision(want)) | Action::Delete(want), Some(there))
                if there.revision != want =>
            {
                return Err(StoreError::Changed(there.revision));
            }
            _ => {}
        }
        let deleted = matches!(action, Action::Delete(_));
        let change = match (deleted, &prev) {
            (true, _) => "DELETED",
            (false, None) => "ADDED",
            (false, Some(_)) => "MODIFIED",
        };
        crate::object::set_meta(&mut object, "resourceVersion", Some(revision.to_string().into()));
        let (frame, json) = frame(change, &object)?;
        let key = prev.as_ref().map_or_else(|| self.intern(&key), |p| p.key.clone());
        let entry = Arc::new(Entry::new(key, revision, json));
        Ok(Arc::new(Event {
            revision,
            deleted,
            entry,
            prev,
            frame,
        }))
    }

    /// Makes an event part of the state and of the log. Adds the channels to wake once the lock is free to `wake`.
    pub(super) fn apply(&mut self, event: &Arc<Event>, wake: &mut Vec<Arc<Channel>>) {
        self.revision = event.revision;
        self.log_bytes += event.entry.json.len();
        self.all.push(event);
        wake.push(Arc::clone(&self.all));
        let key = &event.entry.key;
        let kind = self.kind(&key.resource);
        kind.channel.push(event);
        wake.push(Arc::clone(&kind.channel));
        match (event.deleted, &event.prev) {
            (true, _) => kind.count -= 1,
            (false, None) => kind.count += 1,
            _ => {}
        }
        let slot = kind.slot(&key.namespace);
        if event.deleted {
            slot.objects.remove(&key.name);
        } else if let Some(current) = slot.objects.get_mut(&key.name) {
            *current = Arc::clone(&event.entry);
        } else {
            slot.objects
                .insert(Arc::clone(&key.name), Arc::clone(&event.entry));
        }
        if !key.namespace.is_empty() {
            slot.channel.push(event);
            wake.push(Arc::clone(&slot.channel));
        }
        if !kind.objects.is_empty() {
            let name = (Arc::clone(&key.namespace), Arc::clone(&key.name));
            if let Some(channel) = kind.objects.get(&name) {
                channel.push(event);
                wake.push(Arc::clone(channel));
            }
        }
        self.compact();
    }

    fn compact(&mut self) {
        while self.all.len() > self.keep || (self.log_bytes > self.max_log_bytes && self.all.len() > 1) {
            let Some(event) = self.all.oldest().and_then(|oldest| self.all.forget(oldest)) else {
                return;
            };
            self.log_bytes = self.log_bytes.saturating_sub(event.entry.json.len());
            if let Some(kind) = self.kinds.get_mut(&event.entry.key.resource) {
                kind.forget(&event);
            }
        }
    }

    /// The same key with the parts shared that are known already: a namespace's name is in memory once a resource.
    fn intern(&self, key: &Key) -> Key {
        let Some(kind) = self.kinds.get(&key.resource) else {
            return key.clone();
        };
        let namespace = kind
            .namespaces
            .get_key_value(&key.namespace)
            .map_or(&key.namespace, |(n, _)| n);
        Key {
            resource: Arc::clone(&kind.resource),
            namespace: Arc::clone(namespace),
            name: Arc::clone(&key.name),
        }
    }

    fn kind(&mut self, resource: &Arc<str>) -> &mut Kind {
        let floor = self.floor;
        self.kinds.entry(Arc::clone(resource)).or_insert_with(|| Kind {
            resource: Arc::clone(resource),
            count: 0,
            channel: Channel::new(floor, VecDeque::new()),
            namespaces: BTreeMap::new(),
            forgotten: floor,
            objects: HashMap::new(),
            sweep_at: SWEEP_AT,
        })
    }

    // ---- watching

    /// The channel of a scope. Only a revision that has happened can be watched from.
    pub(super) fn channel(
        &mut self,
        scope: &Scope<'_>,
        after_revision: u64,
    ) -> Result<Arc<Channel>, StoreError> {
        if after_revision > self.revision {
            return Err(StoreError::Future(self.revision));
        }
        let resource = match scope {
            Scope::All => return Ok(Arc::clone(&self.all)),
            Scope::Resource(resource) | Scope::Namespace(resource, _) => *resource,
            Scope::Object(key) => &key.resource,
        };
        let resource = match self.kinds.get_key_value(resource) {
            Some((known, _)) => Arc::clone(known),
            None => resource.into(),
        };
        let kind = self.kind(&resource);
        Ok(match scope {
            Scope::Namespace(_, namespace) => {
                let namespace = match kind.namespaces.get_key_value(*namespace) {
                    Some((known, _)) => Arc::clone(known),
                    None => (*namespace).into(),
                };
                Arc::clone(&kind.slot(&namespace).channel)
            }
            Scope::Object(key) => kind.object_channel(key),
            Scope::All | Scope::Resource(_) => Arc::clone(&kind.channel),
        })
    }

    // ---- reading

    /// One page, in key order.
    pub(super) fn list(&self, range: &Range) -> Result<Page, StoreError> {
        let revision = range.at.unwrap_or(self.revision);
        if revision > self.revision {
            return Err(StoreError::Future(self.revision));
        }
        let Some(kind) = self.kinds.get(range.resource.as_str()) else {
            return if revision < self.floor {
                Err(StoreError::Compacted(self.floor))
            } else {
                Ok(Page {
                    entries: Vec::new(),
                    revision,
                    remaining: 0,
                })
            };
        };
        let undo = if revision == self.revision {
            Vec::new()
        } else {
            kind.since(range, revision)?
        };
        let within = |key: &Key| {
            range.namespace.as_deref().is_none_or(|n| n == &*key.namespace)
                && range
                    .after
                    .as_ref()
                    .is_none_or(|(ns, name)| (&*key.namespace, &*key.name) > (ns.as_str(), name.as_str()))
        };
        // What each object changed since was before its first change: later changes are overwritten by earlier ones.
        let mut before: BTreeMap<(&str, &str), Option<&Arc<Entry>>> = BTreeMap::new();
        for event in undo.iter().rev().filter(|e| within(&e.entry.key)) {
            let key = &event.entry.key;
            before.insert((&key.namespace, &key.name), event.prev.as_ref());
        }
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let mut entries = Vec::new();
        let mut remaining = 0;
        let mut take = |entry: &Arc<Entry>| {
            if entries.len() < limit {
                entries.push(Arc::clone(entry));
            } else {
                remaining += 1;
            }
        };
        let mut before = before.into_iter().peekable();
        for entry in kind.range(range) {
            let name = (&*entry.key.namespace, &*entry.key.name);
            while let Some((_, gone)) = before.next_if(|(k, _)| *k < name) {
                gone.into_iter().for_each(&mut take);
            }
            match before.next_if(|(k, _)| *k == name) {
                Some((_, was)) => was.into_iter().for_each(&mut take),
                None => take(entry),
            }
        }
        for (_, gone) in before {
            gone.into_iter().for_each(&mut take);
        }
        Ok(Page {
            entries,
            revision,
            remaining,
        })
    }
}

impl Kind {
    fn slot(&mut self, namespace: &Arc<str>) -> &mut Slot {
        let forgotten = self.forgotten;
        self.namespaces
            .entry(Arc::clone(namespace))
            .or_insert_with(|| Slot {
                objects: BTreeMap::new(),
                channel: Channel::new(forgotten, VecDeque::new()),
            })
    }

    /// Drops an event from the logs of this resource, and what only the log kept.
    fn forget(&mut self, event: &Event) {
        self.channel.forget(event.revision);
        let key = &event.entry.key;
        if let Some(slot) = self.namespaces.get(&key.namespace) {
            slot.channel.forget(event.revision);
            let unused =
                slot.objects.is_empty() && slot.channel.is_empty() && Arc::strong_count(&slot.channel) == 1;
            if unused {
                // Whoever watches this namespace again must not believe that nothing was here.
                self.forgotten = self.forgotten.max(event.revision);
                self.namespaces.remove(&key.namespace);
            }
        }
        if !self.objects.is_empty() {
            let name = (Arc::clone(&key.namespace), Arc::clone(&key.name));
            if let Some(channel) = self.objects.get(&name) {
                channel.forget(event.revision);
            }
        }
    }

    /// The channel of one object, made from the log when nobody watches the object yet.
    fn object_channel(&mut self, key: &Key) -> Arc<Channel> {
        if self.objects.len() >= self.sweep_at {
            self.objects.retain(|_, channel| Arc::strong_count(channel) > 1);
            self.sweep_at = (self.objects.len() * 2).max(SWEEP_AT);
        }
        let name = (Arc::clone(&key.namespace), Arc::clone(&key.name));
        if let Some(channel) = self.objects.get(&name) {
            return Arc::clone(channel);
        }
        let whole = match self.namespaces.get(&key.namespace) {
            Some(slot) if !key.namespace.is_empty() => &slot.channel,
            _ => &self.channel,
        };
        let dropped = whole.dropped();
        let log = whole.since(dropped).unwrap_or_default();
        let log = log.into_iter().filter(|e| e.entry.key == *key).collect();
        let channel = Channel::new(dropped, log);
        self.objects.insert(name, Arc::clone(&channel));
        channel
    }

    /// The kept events of the range's scope after a revision.
    fn since(&self, range: &Range, revision: u64) -> Result<Vec<Arc<Event>>, StoreError> {
        match range.namespace.as_deref() {
            None | Some("") => self.channel.since(revision),
            Some(namespace) => match self.namespaces.get(namespace) {
                Some(slot) => slot.channel.since(revision),
                None if revision < self.forgotten => Err(StoreError::Compacted(self.forgotten)),
                None => Ok(Vec::new()),
            },
        }
    }

    /// The current entries of a range, in key order, its limit not applied.
    fn range<'a>(&'a self, range: &'a Range) -> impl Iterator<Item = &'a Arc<Entry>> {
        let after = range
            .after
            .as_ref()
            .map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        let (from, to) = match (range.namespace.as_deref(), after) {
            (Some(only), _) => (Included(only), Included(only)),
            (None, Some((namespace, _))) => (Included(namespace), Unbounded),
            (None, None) => (Unbounded, Unbounded),
        };
        self.namespaces
            .range::<str, _>((from, to))
            .flat_map(move |(namespace, slot)| {
                let from = match after {
                    Some((same, name)) if same == &**namespace => Excluded(name),
                    _ => Unbounded,
                };
                // With one namespace asked for, a position behind it leaves nothing, one before it everything.
                let past = after.is_some_and(|(ns, _)| ns > &**namespace);
                slot.objects
                    .range::<str, _>((from, Unbounded))
                    .map(|(_, entry)| entry)
                    .filter(move |_| !past)
            })
    }
}

/// Serialises an object once, inside its watch event: the event and, as a slice of it, the object.
fn frame(change: &str, object: &Value) -> Result<(Bytes, Bytes), StoreError> {
    let mut buffer = Vec::with_capacity(4096);
    buffer.extend_from_slice(br#"{"type":""#);
    buffer.extend_from_slice(change.as_bytes());
    buffer.extend_from_slice(br#"","object":"#);
    let start = buffer.len();
    serde_json::to_writer(&mut buffer, object).map_err(|e| StoreError::Disk(e.to_string()))?;
    let end = buffer.len();
    buffer.extend_from_slice(b"}\n");
    // Copied to its exact size: shrinking in place would leave a hole behind every object.
    let frame = Bytes::copy_from_slice(&buffer);
    let json = frame.slice(start..end);
    Ok((frame, json))
}
