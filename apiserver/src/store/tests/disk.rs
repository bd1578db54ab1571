//! The durable store: across restarts, many writers, and disks that fail.

use super::*;
use redb::StorageBackend;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub(super) fn open(path: &Path) -> Store {
    Store::open(StoreOptions {
        path: Some(path.to_owned()),
        keep_revisions: 100,
    })
    .unwrap()
}

fn refused(path: &Path) -> String {
    match Store::open(StoreOptions {
        path: Some(path.to_owned()),
        keep_revisions: 100,
    }) {
        Err(StoreError::Disk(message)) => message,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("{} was opened", path.display()),
    }
}

#[tokio::test]
async fn a_reopened_store_has_everything_and_its_revision() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let (a, b) = (key("n", "a"), key("", "b"));
    let store = open(&path);
    assert_eq!(store.revision(), 1);
    drop(store);
    let store = open(&path);
    assert_eq!(store.revision(), 1);
    assert!(store.watch_all(0).is_ok());
    create(&store, &a, 1).await;
    create(&store, &b, 1).await;
    update(&store, &a, 2).await;
    delete(&store, &b).await;
    assert_eq!(store.revision(), 5);
    drop(store);
    let store = open(&path);
    assert_eq!(store.revision(), 5);
    assert_eq!(shown(&store.list(&range(None)).unwrap().entries), ["n/a=2"]);
    assert_eq!((store.count(PODS), store.get(&a).unwrap().revision), (1, 4));
    // The past went with the process.
    assert_eq!(store.watch(PODS, None, 4).unwrap_err(), StoreError::Compacted(5));
    assert_eq!(
        store.watch("/secrets", None, 4).unwrap_err(),
        StoreError::Compacted(5)
    );
    assert_eq!(store.list(&range(Some(4))).unwrap_err(), StoreError::Compacted(5));
    let mut watch = store.watch(PODS, None, 5).unwrap();
    assert_eq!(create(&store, &b, 3).await.revision, 6);
    assert_eq!(next(&mut watch).await.unwrap().revision, 6);
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_closed_store_has_written_what_waited_and_frees_its_file_whoever_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = open(&path);
    let held = store.clone();
    let waiting: Vec<_> = (0..50)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { create(&store, &key("n", &format!("a{n}")), 1).await })
        })
        .collect();
    futures::future::join_all(waiting).await;
    store.close();
    store.close();
    let reopened = open(&path);
    assert_eq!(reopened.count(PODS), 50);
    assert_eq!((held.count(PODS), held.revision()), (50, reopened.revision()));
    let refused = held
        .put(key("n", "late"), object(&key("n", "late"), 1), Expect::Absent)
        .await;
    assert!(matches!(refused, Err(StoreError::Disk(_))), "{refused:?}");
    assert!(reopened.get(&key("n", "late")).is_none());
}

#[tokio::test]
async fn a_store_that_skipped_ahead_has_everything_and_no_past() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let key = key("n", "a");
    let open_from = |revision| {
        let options = StoreOptions {
            path: Some(path.clone()),
            keep_revisions: 100,
        };
        Store::open_from(options, revision).unwrap()
    };
    {
        let store = open(&path);
        create(&store, &key, 1).await;
        let seen = store.revision();
        drop(store);
        drop(open_from(1_000_000));
        // Nothing was written meanwhile, and the clock was set back.
        let store = open_from(5);
        assert_eq!(store.revision(), 1_000_000, "it went back");
        let watch = store.watch(&key.resource, None, seen);
        assert!(matches!(watch, Err(StoreError::Compacted(1_000_000))));
        let mut watch = store.watch(&key.resource, None, 1_000_000).unwrap();
        assert_eq!(update(&store, &key, 2).await.revision, 1_000_001);
        assert_eq!(next(&mut watch).await.unwrap().revision, 1_000_001);
    }
    let store = open(&path);
    assert_eq!((store.revision(), store.count(&key.resource)), (1_000_001, 1));
}

#[tokio::test]
async fn what_is_no_store_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = open(&path);
    let message = refused(&path);
    assert!(
        message.contains("store.redb: another process has this store open"),
        "{message}"
    );
    create(&store, &key("n", "a"), 1).await;
    drop(store);
    drop(open(&path));
    let garbage = dir.path().join("garbage");
    std::fs::write(
        &garbage,
        "not a database, but long enough to look for a header in it".repeat(1000),
    )
    .unwrap();
    assert!(refused(&garbage).contains("garbage: "), "{}", refused(&garbage));
    assert_eq!(std::fs::read(&garbage).unwrap()[..5], *b"not a");
    let cut = dir.path().join("cut");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    assert!(refused(&cut).contains("cut: "), "{}", refused(&cut));
    assert!(refused(dir.path()).contains(&*dir.path().to_string_lossy()));
    let nowhere = dir.path().join("no/such/directory");
    assert!(refused(&nowhere).contains("no/such/directory: "));
}

/// A disk in memory that counts its syncs and fails when told to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Platter {
    bytes: Arc<Mutex<Vec<u8>>>,
    syncs: Arc<AtomicUsize>,
    /// The operation number from which on writes and syncs fail; 0 for never.
    fail_from: Arc<AtomicU64>,
    operations: Arc<AtomicU64>,
}

impl Platter {
    fn operate(&self) -> io::Result<()> {
        let operation = self.operations.fetch_add(1, Ordering::SeqCst) + 1;
        let fail_from = self.fail_from.load(Ordering::SeqCst);
        if fail_from != 0 && operation >= fail_from {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no space left on device",
            ));
        }
        Ok(())
    }

    pub(crate) fn fail_after(&self, operations: u64) {
        self.fail_from.store(
            self.operations.load(Ordering::SeqCst) + operations + 1,
            Ordering::SeqCst,
        );
    }

    pub(crate) fn mend(&self) {
        self.fail_from.store(0, Ordering::SeqCst);
    }

    pub(crate) fn open(&self) -> Result<Store, StoreError> {
        self.open_from(0)
    }

    fn open_from(&self, revision: u64) -> Result<Store, StoreError> {
        let platter = self.clone();
        let open = move || {
            let backend = platter.clone();
            crate::store::disk::builder()
                .create_with_backend(backend)
                .map_err(|e| StoreError::Disk(e.to_string()))
        };
        Store::on(Disk::new(Box::new(open)), 100, revision)
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let slice = bytes
            .get(start..start + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(slice);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.operate()?;
        self.bytes
            .lock()
            .unwrap()
            .resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.operate()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate()?;
        let start = usize::try_from(offset).unwrap();
        self.bytes.lock().unwrap()[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

#[tokio::test]
async fn writers_share_a_sync() {
    let platter = Platter::default();
    let store = platter.open().unwrap();
    let before = platter.syncs.load(Ordering::SeqCst);
    // All writes wait behind the platter's lock, so that one batch has to take them.
    let held = platter.bytes.lock().unwrap();
    let writes: Vec<_> = (0..200)
        .map(|i| {
            let (store, key) = (store.clone(), key("n", &format!("{i:03}")));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async { create(&store, &key, i).await.revision })
            })
        })
        .collect();
    while store.writer.as_ref().unwrap().submitted() < 200 {
        std::thread::yield_now();
    }
    drop(held);
    let mut revisions: Vec<u64> = writes.into_iter().map(|w| w.join().unwrap()).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (2..202).collect::<Vec<_>>());
    let syncs = platter.syncs.load(Ordering::SeqCst) - before;
    assert!(syncs <= 4, "200 writes took {syncs} syncs");
}

#[tokio::test]
async fn a_batch_is_judged_write_by_write() {
    let platter = Platter::default();
    let store = platter.open().unwrap();
    let a = key("n", "a");
    let held = platter.bytes.lock().unwrap();
    let writer = store.writer.clone().unwrap();
    // The first is taken at once and waits for the platter; the others make one batch behind it.
    let put = |x, expect| Write {
        key: a.clone(),
        object: object(&a, x),
        action: Action::Put(expect),
    };
    let remove = |revision| Write {
        key: a.clone(),
        object: object(&a, 0),
        action: Action::Delete(revision),
    };
    let first = writer.submit(put(1, Expect::Absent)).unwrap();
    let rest: Vec<_> = [
        put(2, Expect::Revision(2)), // 3
        put(3, Expect::Revision(2)), // changed by the one before
        put(4, Expect::Absent),      // there
        remove(3),                   // 4
        remove(3),                   // gone
        put(5, Expect::Absent),      // 5
    ]
    .into_iter()
    .map(|w| writer.submit(w).unwrap())
    .collect();
    drop(held);
    assert_eq!(first.await.unwrap().unwrap().revision, 2);
    let mut got = Vec::new();
    for answer in rest {
        got.push(answer.await.unwrap().map(|e| e.revision));
    }
    let want = [
        Ok(3),
        Err(StoreError::Changed(3)),
        Err(StoreError::Exists),
        Ok(4),
        Err(StoreError::Missing),
        Ok(5),
    ];
    assert_eq!(got, want);
    drop((store, writer));
    assert_eq!(
        shown(&platter.open().unwrap().list(&range(None)).unwrap().entries),
        ["n/a=5"]
    );
}

#[tokio::test]
async fn a_failed_disk_write_changes_nothing_and_is_tried_again() {
    let (a, b) = (key("n", "a"), key("n", "b"));
    let mut failures = 0;
    // Wherever in the commit the disk gives up: before, in the middle, at the sync.
    for operations in 0..40 {
        let platter = Platter::default();
        let store = platter.open().unwrap();
        create(&store, &a, 1).await;
        let mut watch = store.watch_all(store.revision()).unwrap();
        platter.fail_after(operations);
        let failed = store.put(b.clone(), object(&b, 1), Expect::Absent).await;
        let Err(error) = failed else {
            break;
        };
        failures += 1;
        assert!(matches!(error, StoreError::Disk(_)), "{error:?}");
        let again = store.put(a.clone(), object(&a, 9), Expect::Revision(2)).await;
        assert!(matches!(again, Err(StoreError::Disk(_))), "{again:?}");
        assert_eq!(
            shown(&store.list(&range(None)).unwrap().entries),
            ["n/a=1"],
            "reads go on"
        );
        assert_eq!(store.revision(), 2);
        assert!(watch.try_next().is_none());
        platter.mend();
        assert_eq!(update(&store, &a, 2).await.revision, 3);
        assert_eq!(next(&mut watch).await.unwrap().revision, 3);
        drop((store, watch));
        // What failed is not there after a restart either, also when the disk had taken it.
        let store = platter.open().unwrap();
        assert_eq!(
            shown(&store.list(&range(None)).unwrap().entries),
            ["n/a=2"],
            "after {operations}"
        );
        assert_eq!(store.revision(), 3);
    }
    assert!((2..40).contains(&failures), "{failures} of 40 places to fail");
}

#[tokio::test]
async fn a_full_disk_is_told_of_until_it_takes_writes_again() {
    let (a, b) = (key("n", "a"), key("n", "b"));
    let platter = Platter::default();
    let store = platter.open().unwrap();
    create(&store, &a, 1).await;
    assert_eq!(store.trouble(), None);
    platter.fail_after(0);
    assert!(store.put(b.clone(), object(&b, 1), Expect::Absent).await.is_err());
    let trouble = store.trouble().unwrap();
    assert!(trouble.contains("no space left on device"), "{trouble}");
    platter.mend();
    // Nobody writes: the store tries by itself.
    let mended = async {
        while store.trouble().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), mended)
        .await
        .unwrap();
    assert_eq!(store.revision(), 2);
    drop(store);
    // Where nothing can be written what is there can be read.
    platter.fail_after(0);
    let store = platter.open_from(1_000);
    platter.mend();
    if let Ok(store) = store {
        assert_eq!((store.revision(), store.count(PODS)), (1_000, 1));
    }
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = open(&path);
    for i in 0..50 {
        create(&store, &key("n", &format!("{i}")), i).await;
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let used = whole.iter().rposition(|b| *b != 0).unwrap();
    let damaged = dir.path().join("damaged");
    for offset in (0..used).step_by(used / 300 + 1).chain(0..64) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0xff;
        std::fs::write(&damaged, bytes).unwrap();
        match Store::open(StoreOptions {
            path: Some(damaged.clone()),
            keep_revisions: 100,
        }) {
            Err(error) => assert!(matches!(error, StoreError::Disk(_)), "{error:?}"),
            // What was damaged may be a free page or the bytes of an object. A write works, or finds it and says so.
            Ok(store) => {
                if let Err(error) = store.put(key("new", "new"), json!({}), Expect::Absent).await {
                    assert!(matches!(error, StoreError::Disk(_)), "{error:?}");
                }
            }
        }
    }
}
