//! The store: every object in memory, a dense revision log to watch from and to look back with, redb under it.
//!
//! Readers never wait for the disk. Writes of a durable store go to one thread that takes all that wait, checks each
//! against memory and the ones before it, commits them as one redb transaction with one fsync, and only then shows
//! them ([`writer`]). Past states are answered by undoing the log ([`state`]), so an object costs memory once, and
//! only the last [`StoreOptions::keep_revisions`] changes cost more.

mod disk;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod watch;
mod writer;

pub use watch::Watch;

use bytes::Bytes;
use disk::Disk;
use serde::Deserialize;
use serde_json::Value;
use state::{Action, Scope, State, Write};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use writer::Writer;

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

impl Key {
    /// A key from its three parts.
    pub fn new(
        resource: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        name: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// Labels of an object, key and value.
type Labels = Box<[(Box<str>, Box<str>)]>;

/// One version of one object. `json` is the whole object as stored, `metadata.resourceVersion` included.
#[derive(Debug)]
pub struct Entry {
    /// Which object.
    pub key: Key,
    /// The revision that wrote this version.
    pub revision: u64,
    /// Serialised object.
    pub json: Bytes,
    labels: OnceLock<Labels>,
    deleting: OnceLock<bool>,
}

/// The part of an object that [`Entry::labels`] reads; the rest is skipped without building it.
#[derive(Deserialize)]
struct Labelled<'a> {
    #[serde(borrow, default)]
    metadata: LabelledMeta<'a>,
}

#[derive(Deserialize, Default)]
struct LabelledMeta<'a> {
    #[serde(borrow, default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

/// The part of an object that [`Entry::is_deleting`] reads.
#[derive(Deserialize)]
struct Deleting {
    #[serde(default)]
    metadata: DeletingMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct DeletingMeta {
    deletion_timestamp: Option<serde::de::IgnoredAny>,
}

impl Entry {
    /// An entry as the store makes it.
    pub fn new(key: Key, revision: u64, json: Bytes) -> Self {
        Self {
            key,
            revision,
            json,
            labels: OnceLock::new(),
            deleting: OnceLock::new(),
        }
    }

    /// The object, parsed anew.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// Whether its deletion was asked for, read once: every new object asks this of its namespace and of its definition,
    /// which is a hundred times as large as most objects.
    pub fn is_deleting(&self) -> bool {
        *self.deleting.get_or_init(|| {
            let object = serde_json::from_slice::<Deleting>(&self.json);
            object.is_ok_and(|object| object.metadata.deletion_timestamp.is_some())
        })
    }

    /// Labels, parsed once.
    pub fn labels(&self) -> &[(Box<str>, Box<str>)] {
        self.labels.get_or_init(|| {
            let labelled: Option<Labelled<'_>> = serde_json::from_slice(&self.json).ok();
            let labels = labelled.and_then(|l| l.metadata.labels).unwrap_or_default();
            labels.into_iter().map(|(k, v)| (k.into(), v.into())).collect()
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
    frame: Bytes,
}

impl Event {
    /// The watch event as sent: `{"type":"ADDED|MODIFIED|DELETED","object":<json>}` and a newline. `entry.json` is a
    /// slice of it, so it costs no memory and no work of its own.
    pub fn frame(&self) -> Bytes {
        self.frame.clone()
    }
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

/// State and its lock, shared by the store, its writer thread and its watches.
type Shared = RwLock<State>;

// A panic under the lock would be a bug in this module; what it left is still whole, because a commit changes the
// state only after everything that can fail.
fn read(shared: &Shared) -> RwLockReadGuard<'_, State> {
    shared.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shared: &Shared) -> RwLockWriteGuard<'_, State> {
    shared.write().unwrap_or_else(PoisonError::into_inner)
}

/// The store. Clones share it; when it is closed or the last is dropped the file is closed.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    /// The file, where there is one.
    path: Option<Arc<Path>>,
    /// `None` in memory: then writes commit in the caller.
    writer: Option<Arc<Writer>>,
}

impl Store {
    /// As [`Self::open_from`], from wherever the file is.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        Self::open_from(options, 0)
    }

    /// Opens or makes the store and loads it. Every revision up to `revision` is taken as given out and no longer kept: a
    /// file that may be a copy from earlier must not have what its clients saw of the time since taken for the present. The
    /// file has it before anybody can be told, so that it also holds for the next start. Fails with [`StoreError::Disk`] when the file is held by another process,
    /// not a store, damaged, or cannot be read.
    pub fn open_from(options: StoreOptions, revision: u64) -> Result<Self, StoreError> {
        match options.path {
            None => {
                let mut state = State::new(1, 0, options.keep_revisions);
                state.skip_to(revision);
                Ok(Self {
                    shared: Arc::new(RwLock::new(state)),
                    path: None,
                    writer: None,
                })
            }
            Some(path) => {
                let known = Some(Arc::from(path.as_path()));
                let store = Self::on(Disk::file(path), options.keep_revisions, revision)?;
                Ok(Self { path: known, ..store })
            }
        }
    }

    fn on(mut disk: Disk, keep_revisions: usize, revision: u64) -> Result<Self, StoreError> {
        let mut state = State::new(1, 0, keep_revisions);
        disk.load(&mut state)?;
        if revision > state.revision() {
            state.skip_to(revision);
            // A disk that is full must not keep what can be read from being read.
            if let Err(error) = disk.note(revision, |_| None) {
                tracing::warn!(%error, "the store could not write its revision");
            }
        }
        let shared = Arc::new(RwLock::new(state));
        let writer = Writer::start(disk, Arc::clone(&shared))?;
        Ok(Self {
            shared,
            path: None,
            writer: Some(Arc::new(writer)),
        })
    }

    /// Closes the file, whoever still holds a clone: what waits is written first, later writes are refused, and reads go
    /// on. When it returns, another may open the file. In memory there is nothing to close.
    pub fn close(&self) {
        if let Some(writer) = &self.writer {
            writer.close();
        }
    }

    /// Why the disk did not take the last write, until it takes one again; it is tried while nobody writes.
    pub fn trouble(&self) -> Option<String> {
        self.writer.as_ref()?.trouble()
    }

    /// The last revision given out. An empty store is at 1; it never goes back, also not across a crash.
    pub fn revision(&self) -> u64 {
        read(&self.shared).revision()
    }

    /// The object as it is now.
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        read(&self.shared)
            .get(&key.resource, &key.namespace, &key.name)
            .cloned()
    }

    /// A page of one resource, now or at a kept revision. [`StoreError::Compacted`] or [`StoreError::Future`] when that
    /// revision cannot be shown.
    pub fn list(&self, range: &Range) -> Result<Page, StoreError> {
        read(&self.shared).list(range)
    }

    /// How many objects of a resource there are.
    pub fn count(&self, resource: &str) -> usize {
        read(&self.shared).count(resource)
    }

    /// Size of the file; `None` in memory.
    pub fn file_bytes(&self) -> Option<u64> {
        let metadata = std::fs::metadata(self.path.as_deref()?).ok()?;
        Some(metadata.len())
    }

    /// How many past changes are kept, and the bytes of their objects.
    pub fn kept(&self) -> (usize, usize) {
        read(&self.shared).kept()
    }

    /// Every resource that has or had objects, with how many there are, unordered.
    pub fn resources(&self) -> Vec<(Arc<str>, usize)> {
        read(&self.shared).resources()
    }

    /// Writes an object if `expect` holds. Sets its `metadata.resourceVersion` to the revision it gets. When this
    /// returns, the write is on disk and visible; an error means that nothing changed.
    pub async fn put(&self, key: Key, object: Value, expect: Expect) -> Result<Arc<Entry>, StoreError> {
        self.commit(Write {
            key,
            object,
            action: Action::Put(expect),
        })
        .await
    }

    /// Deletes an object last written at `expect_revision`. `last` is its last state; what watchers see and this
    /// returns is `last` with `metadata.resourceVersion` set to the revision of the deletion.
    pub async fn delete(
        &self,
        key: Key,
        last: Value,
        expect_revision: u64,
    ) -> Result<Arc<Entry>, StoreError> {
        self.commit(Write {
            key,
            object: last,
            action: Action::Delete(expect_revision),
        })
        .await
    }

    async fn commit(&self, write: Write) -> Result<Arc<Entry>, StoreError> {
        match &self.writer {
            Some(writer) => writer.commit(write).await,
            None => writer::commit_in_memory(&self.shared, write),
        }
    }

    /// The changes of one resource, in one namespace or all, after a revision. A revision before which changes of that
    /// resource (or namespace) are still known whole can be watched from, else [`StoreError::Compacted`].
    pub fn watch(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after_revision: u64,
    ) -> Result<Watch, StoreError> {
        let scope = match namespace {
            Some(namespace) if !namespace.is_empty() => Scope::Namespace(resource, namespace),
            _ => Scope::Resource(resource),
        };
        self.watch_scope(&scope, after_revision)
    }

    /// The changes of one object after a revision. Writes to its neighbours do not wake the watch.
    pub fn watch_object(&self, key: &Key, after_revision: u64) -> Result<Watch, StoreError> {
        self.watch_scope(&Scope::Object(key), after_revision)
    }

    /// The changes of every resource after a revision.
    pub fn watch_all(&self, after_revision: u64) -> Result<Watch, StoreError> {
        self.watch_scope(&Scope::All, after_revision)
    }

    fn watch_scope(&self, scope: &Scope<'_>, after_revision: u64) -> Result<Watch, StoreError> {
        let channel = write(&self.shared).channel(scope, after_revision)?;
        Watch::start(Arc::clone(&self.shared), channel, after_revision)
    }
}
