//! The store's file: the current objects and the revision, in one redb database.
//!
//! The log is not on disk. After a restart watches from before it get `Compacted` and list again, which is what clients
//! of Kubernetes do anyway.

use super::state::State;
use super::{Entry, Event, Key, StoreError};
use bytes::Bytes;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// By `resource\0namespace\0name`: the revision that wrote the object, and the object.
const OBJECTS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("objects");
/// `format` and `revision`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// What `format` must be.
const FORMAT: u64 = 1;
/// Objects are all in memory, so redb's own cache only has to hold the pages that a transaction touches.
const CACHE_BYTES: usize = 4 << 20;

type Open = Box<dyn Fn() -> Result<Database, StoreError> + Send>;

/// The open file, or the way to open it again.
pub(super) struct Disk {
    open: Open,
    database: Option<Database>,
    /// Objects of batches that failed: what the disk has of them is unknown until they are written again.
    suspect: HashSet<Key>,
}

impl Disk {
    /// The file at `path`, made with mode 0600 when it is not there: objects include Secrets.
    pub(super) fn file(path: PathBuf) -> Self {
        Self::new(Box::new(move || open_file(&path)))
    }

    /// A disk on whatever `open` gives.
    pub(super) fn new(open: Open) -> Self {
        Self {
            open,
            database: None,
            suspect: HashSet::new(),
        }
    }

    /// Reads everything into `state`, which becomes that of the last commit.
    pub(super) fn load(&mut self, state: &mut State) -> Result<(), StoreError> {
        guarded(|| self.try_load(state))
    }

    fn try_load(&mut self, state: &mut State) -> Result<(), StoreError> {
        let database = (self.open)()?;
        let transaction = database.begin_read().map_err(disk)?;
        let meta = match transaction.open_table(META) {
            Ok(table) => Some(table),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(e) => return Err(disk(e)),
        };
        let Some(meta) = meta else {
            drop(transaction);
            initialise(&database).map_err(disk)?;
            self.database = Some(database);
            return Ok(());
        };
        let number = |name: &str| -> Result<u64, StoreError> {
            let value = meta.get(name).map_err(disk)?;
            value
                .map(|v| v.value())
                .ok_or_else(|| StoreError::Disk(format!("the file has no {name}")))
        };
        let format = number("format")?;
        if format != FORMAT {
            let message = format!("the file has format {format}, this version reads {FORMAT}");
            return Err(StoreError::Disk(message));
        }
        let revision = number("revision")?;
        let objects = transaction.open_table(OBJECTS).map_err(disk)?;
        let mut failed = None;
        let entries = objects.iter().map_err(disk)?.map_while(|row| {
            let read = row.map_err(disk).and_then(|(key, value)| {
                let key = decode(key.value())?;
                let (written, json) = value.value();
                if written > revision {
                    let message = format!("the file is at revision {revision}, an object in it at {written}");
                    return Err(StoreError::Disk(message));
                }
                Ok(Entry::new(key, written, Bytes::copy_from_slice(json)))
            });
            read.map_err(|e| failed = Some(e)).ok()
        });
        // A file that was only made has nothing before its first revision to be missed.
        let floor = if revision == 1 { 0 } else { revision };
        state.restore(revision, floor, entries);
        if let Some(error) = failed {
            return Err(error);
        }
        self.database = Some(database);
        Ok(())
    }

    /// Writes a batch as one transaction and waits until the disk has it. `current` is an object as memory has it.
    pub(super) fn commit<'a>(
        &mut self,
        events: impl Iterator<Item = &'a Arc<Event>> + Clone,
        current: impl Fn(&Key) -> Option<Arc<Entry>>,
    ) -> Result<(), StoreError> {
        let last = events.clone().last().map(|event| event.revision);
        let written = guarded(|| self.try_commit(events.clone(), last, current));
        if written.is_ok() {
            self.suspect.clear();
        } else {
            // After an I/O error redb refuses everything until it is opened again; and a commit that failed may still
            // have reached the disk.
            self.suspect.extend(events.map(|e| e.entry.key.clone()));
            self.database = None;
        }
        written
    }

    /// Writes the revision alone, and what is not known to be there of batches that failed.
    pub(super) fn note(
        &mut self,
        revision: u64,
        current: impl Fn(&Key) -> Option<Arc<Entry>>,
    ) -> Result<(), StoreError> {
        let written = guarded(|| self.try_commit(std::iter::empty(), Some(revision), current));
        if written.is_ok() {
            self.suspect.clear();
        } else {
            self.database = None;
        }
        written
    }

    fn try_commit<'a>(
        &mut self,
        events: impl Iterator<Item = &'a Arc<Event>>,
        revision: Option<u64>,
        current: impl Fn(&Key) -> Option<Arc<Entry>>,
    ) -> Result<(), StoreError> {
        let database = match &mut self.database {
            Some(database) => database,
            closed => closed.insert((self.open)()?),
        };
        let transaction = database.begin_write().map_err(disk)?;
        {
            let mut objects = transaction.open_table(OBJECTS).map_err(disk)?;
            let mut put = |key: &Key, entry: Option<&Entry>| -> Result<(), StoreError> {
                let name = encode(key);
                match entry {
                    Some(e) => drop(
                        objects
                            .insert(name.as_str(), (e.revision, &*e.json))
                            .map_err(disk)?,
                    ),
                    None => drop(objects.remove(name.as_str()).map_err(disk)?),
                }
                Ok(())
            };
            for key in &self.suspect {
                put(key, current(key).as_deref())?;
            }
            for event in events {
                put(&event.entry.key, (!event.deleted).then_some(&*event.entry))?;
            }
            if let Some(revision) = revision {
                let mut meta = transaction.open_table(META).map_err(disk)?;
                meta.insert("revision", revision).map_err(disk)?;
            }
        }
        transaction.commit().map_err(disk)
    }
}

fn initialise(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("revision", 1)?;
        transaction.open_table(OBJECTS)?;
    }
    transaction.commit()?;
    Ok(())
}

/// redb panics on some damaged pages. To us that is a disk that cannot be read like any other.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let unwound = |_| StoreError::Disk("the file is damaged".into());
    // What the closure held is dropped or replaced by the caller on any error.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(unwound)?
}

/// Opens redb's file with the cache this store wants.
pub(super) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn open_file(path: &Path) -> Result<Database, StoreError> {
    let shown = path.display();
    let at = |e: &dyn std::fmt::Display| StoreError::Disk(format!("{shown}: {e}"));
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = match options.open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let made = options.create_new(true).open(path).map_err(|e| at(&e))?;
            // The file's name must survive a crash as its content does.
            let parent = path
                .parent()
                .filter(|p| !p.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            std::fs::File::open(parent)
                .and_then(|d| d.sync_all())
                .map_err(|e| at(&e))?;
            made
        }
        other => other.map_err(|e| at(&e))?,
    };
    builder().create_file(file).map_err(|e| match e {
        DatabaseError::DatabaseAlreadyOpen => at(&"another process has this store open"),
        other => at(&other),
    })
}

#[allow(clippy::needless_pass_by_value)] // the shape `map_err` wants
fn disk(error: impl std::fmt::Display) -> StoreError {
    StoreError::Disk(error.to_string())
}

fn encode(key: &Key) -> String {
    format!("{}\0{}\0{}", key.resource, key.namespace, key.name)
}

fn decode(text: &str) -> Result<Key, StoreError> {
    let mut parts = text.split('\0');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(resource), Some(namespace), Some(name), None) => Ok(Key::new(resource, namespace, name)),
        _ => Err(StoreError::Disk(format!(
            "the file has a key that is none: {text:?}"
        ))),
    }
}
