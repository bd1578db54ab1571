//! The store: every object's versions in memory, a dense revision log to watch from, redb under it.
//!
//! (signatures are fixed; bodies follow)

use bytes::Bytes;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Identity of an object in the store. `resource` is `group/plural` (`/configmaps` for core), `namespace` is `""` for
/// cluster-scoped objects. Ordering is the order of lists: resource, namespace, name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `group/plural`.
    pub resource: Arc<str>,
    /// Namespace or `""`.
    pub namespace: Arc<str>,
    /// Object name.
    pub name: Arc<str>,
}

/// One version of one object. `json` is the whole object as stored, `metadata.resourceVersion` included.
#[derive(Debug)]
pub struct Entry {
    /// Which object.
    pub key: Key,
    /// The revision that wrote this version.
    pub revision: u64,
    /// Serialised object.
    pub json: Bytes,
    labels: OnceLock<Box<[(Box<str>, Box<str>)]>>,
}

impl Entry {
    /// The object, parsed anew.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// Labels, parsed once.
    pub fn labels(&self) -> &[(Box<str>, Box<str>)] {
        self.labels.get_or_init(|| {
            crate::object::labels(&self.value()).map(|(k, v)| (k.into(), v.into())).collect()
        })
    }
}

/// What happened to an object at one revision.
#[derive(Debug)]
pub struct Event {
    /// Revision of the change: unique, increasing by one.
    pub revision: u64,
    /// True when the object went away. `entry` is then its last state, stamped with `revision`.
    pub deleted: bool,
    /// The new version (or the last one).
    pub entry: Arc<Entry>,
    /// The version before, `None` on creation.
    pub prev: Option<Arc<Entry>>,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The object does not exist.
    Absent,
    /// The object exists and was last written at this revision.
    Revision(u64),
}

/// A part of one resource, in key order.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// `group/plural`.
    pub resource: String,
    /// Only this namespace; `None` for all.
    pub namespace: Option<String>,
    /// Start behind this (namespace, name).
    pub after: Option<(String, String)>,
    /// At most so many; 0 for no limit.
    pub limit: usize,
    /// As it was at this revision; `None` for now.
    pub at: Option<u64>,
}

/// The answer to a [`Range`].
#[derive(Debug)]
pub struct Page {
    /// Entries in key order.
    pub entries: Vec<Arc<Entry>>,
    /// The revision the page shows.
    pub revision: u64,
    /// How many more there are behind it.
    pub remaining: usize,
}

/// Why the store said no.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// [`Expect::Absent`] and it is there.
    #[error("the object exists")]
    Exists,
    /// [`Expect::Revision`] and it is not there.
    #[error("the object does not exist")]
    Missing,
    /// [`Expect::Revision`] and it was written since, at the revision given.
    #[error("the object was written at revision {0}")]
    Changed(u64),
    /// The revision asked for is no longer kept; the oldest kept is given.
    #[error("revision is compacted, oldest kept is {0}")]
    Compacted(u64),
    /// The revision asked for has not happened yet; the current one is given.
    #[error("revision is in the future, current is {0}")]
    Future(u64),
    /// The disk did not take the write. Nothing was changed.
    #[error("the store cannot write: {0}")]
    Disk(String),
}

/// Where and how to keep objects.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Database file; `None` keeps everything in memory only.
    pub path: Option<PathBuf>,
    /// How many past revisions stay watchable and listable.
    pub keep_revisions: usize,
}
