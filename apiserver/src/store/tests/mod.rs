//! What the store promises, one by one; [`model`] compares it with a simple model under random use.

pub(crate) mod disk;
mod model;

use super::*;
use serde_json::json;
use std::time::Duration;

const PODS: &str = "/pods";

fn memory(keep_revisions: usize) -> Store {
    Store::open(StoreOptions {
        path: None,
        keep_revisions,
    })
    .unwrap()
}

fn key(namespace: &str, name: &str) -> Key {
    Key::new(PODS, namespace, name)
}

fn object(key: &Key, x: u64) -> Value {
    json!({"metadata": {"namespace": &*key.namespace, "name": &*key.name, "labels": {"x": x.to_string()}}, "x": x})
}

async fn create(store: &Store, key: &Key, x: u64) -> Arc<Entry> {
    store
        .put(key.clone(), object(key, x), Expect::Absent)
        .await
        .unwrap()
}

async fn update(store: &Store, key: &Key, x: u64) -> Arc<Entry> {
    let revision = store.get(key).unwrap().revision;
    store
        .put(key.clone(), object(key, x), Expect::Revision(revision))
        .await
        .unwrap()
}

async fn delete(store: &Store, key: &Key) -> Arc<Entry> {
    let last = store.get(key).unwrap();
    store
        .delete(key.clone(), last.value(), last.revision)
        .await
        .unwrap()
}

fn range(at: Option<u64>) -> Range {
    Range {
        resource: PODS.into(),
        at,
        ..Range::default()
    }
}

/// `namespace/name=x` of each entry.
fn shown(entries: &[Arc<Entry>]) -> Vec<String> {
    let one = |e: &Arc<Entry>| {
        let value = e.value();
        assert_eq!(value["metadata"]["resourceVersion"], e.revision.to_string());
        format!("{}/{}={}", e.key.namespace, e.key.name, value["x"])
    };
    entries.iter().map(one).collect()
}

async fn next(watch: &mut Watch) -> Result<Arc<Event>, StoreError> {
    tokio::time::timeout(Duration::from_secs(10), watch.next())
        .await
        .expect("an event within ten seconds")
}

#[tokio::test]
async fn writes_need_what_they_expect() {
    let store = memory(100);
    let a = key("n", "a");
    assert_eq!(store.revision(), 1);
    let absent = store.put(a.clone(), json!({}), Expect::Revision(1)).await;
    assert_eq!(absent.unwrap_err(), StoreError::Missing);
    assert_eq!(
        store.delete(a.clone(), json!({}), 1).await.unwrap_err(),
        StoreError::Missing
    );
    assert_eq!(create(&store, &a, 1).await.revision, 2);
    let again = store.put(a.clone(), json!({}), Expect::Absent).await;
    assert_eq!(again.unwrap_err(), StoreError::Exists);
    assert_eq!(update(&store, &a, 2).await.revision, 3);
    let stale = store.put(a.clone(), json!({}), Expect::Revision(2)).await;
    assert_eq!(stale.unwrap_err(), StoreError::Changed(3));
    assert_eq!(
        store.delete(a.clone(), json!({}), 2).await.unwrap_err(),
        StoreError::Changed(3)
    );
    // What was refused took no revision.
    assert_eq!(store.revision(), 3);
    assert_eq!(shown(&[store.get(&a).unwrap()]), ["n/a=2"]);
    let gone = delete(&store, &a).await;
    assert_eq!((gone.revision, shown(&[gone])), (4, vec!["n/a=2".to_owned()]));
    assert!(store.get(&a).is_none());
    assert_eq!(create(&store, &a, 3).await.revision, 5);
    assert_eq!(store.count(PODS), 1);
    assert_eq!(store.count("/nothing"), 0);
}

#[tokio::test]
async fn labels_are_read_from_the_stored_object() {
    let store = memory(10);
    let entry = create(&store, &key("n", "a"), 7).await;
    assert_eq!(entry.labels(), [("x".into(), "7".into())]);
    let odd = json!({"metadata": {"labels": {"quote\"d": "line\nbreak"}}});
    let entry = store.put(key("n", "b"), odd, Expect::Absent).await.unwrap();
    assert_eq!(entry.labels(), [("quote\"d".into(), "line\nbreak".into())]);
    let none = store
        .put(
            key("n", "c"),
            json!({"metadata": {"labels": null}}),
            Expect::Absent,
        )
        .await
        .unwrap();
    assert!(none.labels().is_empty());
}

#[tokio::test]
async fn whether_an_object_is_being_deleted_is_read_from_it() {
    let store = memory(10);
    for (name, metadata, deleting) in [
        ("a", json!({}), false),
        ("b", json!({"deletionTimestamp": null}), false),
        ("c", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), true),
    ] {
        let object = json!({"metadata": metadata, "spec": {"deletionTimestamp": "not this one"}});
        let entry = store.put(key("n", name), object, Expect::Absent).await.unwrap();
        assert_eq!(
            (entry.is_deleting(), entry.is_deleting()),
            (deleting, deleting),
            "{name}"
        );
    }
}

#[tokio::test]
async fn lists_show_any_kept_revision() {
    let store = memory(100);
    let (a, b, c) = (key("n", "a"), key("m", "b"), key("n", "c"));
    create(&store, &a, 1).await; // 2
    create(&store, &b, 1).await; // 3
    update(&store, &a, 2).await; // 4
    delete(&store, &b).await; // 5
    create(&store, &c, 1).await; // 6
    create(&store, &b, 2).await; // 7
    for (at, want) in [
        (1, vec![]),
        (2, vec!["n/a=1"]),
        (3, vec!["m/b=1", "n/a=1"]),
        (4, vec!["m/b=1", "n/a=2"]),
        (5, vec!["n/a=2"]),
        (6, vec!["n/a=2", "n/c=1"]),
        (7, vec!["m/b=2", "n/a=2", "n/c=1"]),
    ] {
        let page = store.list(&range(Some(at))).unwrap();
        assert_eq!(
            (shown(&page.entries), page.revision),
            (want.iter().map(ToString::to_string).collect(), at)
        );
        let one = Range {
            namespace: Some("n".into()),
            ..range(Some(at))
        };
        let want: Vec<_> = want.into_iter().filter(|w| w.starts_with("n/")).collect();
        assert_eq!(shown(&store.list(&one).unwrap().entries), want);
    }
    assert_eq!(store.list(&range(None)).unwrap().revision, 7);
    assert_eq!(store.list(&range(Some(8))).unwrap_err(), StoreError::Future(7));
}

#[tokio::test]
async fn pages_join_to_the_whole_list_while_it_changes() {
    let store = memory(1000);
    for i in 0..25 {
        create(&store, &key(["m", "n", "o"][i % 3], &format!("{i:02}")), 0).await;
    }
    let whole = store.list(&range(None)).unwrap();
    let (mut after, mut got, mut left) = (None, Vec::new(), Vec::new());
    for step in 0.. {
        let page = store
            .list(&Range {
                after: after.clone(),
                limit: 10,
                ..range(Some(whole.revision))
            })
            .unwrap();
        left.push(page.remaining);
        got.extend(page.entries);
        if page.remaining == 0 {
            break;
        }
        after = got
            .last()
            .map(|e| (e.key.namespace.to_string(), e.key.name.to_string()));
        // Before, at and behind the position, and in namespaces that were not there.
        delete(&store, &key(["m", "n", "o"][step], &format!("{step:02}"))).await;
        delete(&store, &key("o", &format!("{:02}", 23 - 3 * step))).await;
        create(&store, &key("a", &format!("new{step}")), 1).await;
        create(&store, &key("z", &format!("new{step}")), 1).await;
        update(&store, &key("n", "10"), step as u64).await;
    }
    assert_eq!(shown(&got), shown(&whole.entries));
    assert_eq!(left, [15, 5, 0]);
    let behind = Range {
        namespace: Some("m".into()),
        after: Some(("n".into(), "x".into())),
        ..range(None)
    };
    assert!(store.list(&behind).unwrap().entries.is_empty());
    let before = Range {
        namespace: Some("z".into()),
        after: Some(("n".into(), "x".into())),
        ..range(None)
    };
    assert_eq!(store.list(&before).unwrap().entries.len(), 2);
}

#[tokio::test]
async fn a_watch_gets_every_change_of_its_scope_in_order() {
    let store = memory(100);
    let (a, b) = (key("n", "a"), key("m", "b"));
    let other = Key::new("apps/deployments", "n", "a");
    create(&store, &a, 1).await;
    let mut all = store.watch_all(1).unwrap();
    let mut pods = store.watch(PODS, None, 2).unwrap();
    let mut in_m = store.watch(PODS, Some("m"), 1).unwrap();
    let mut only_a = store.watch_object(&a, 1).unwrap();
    create(&store, &other, 1).await; // 3
    create(&store, &b, 1).await; // 4
    update(&store, &a, 2).await; // 5
    delete(&store, &b).await; // 6
    let seen = |watch: &mut Watch| {
        let mut seen = Vec::new();
        while let Some(event) = watch.try_next() {
            let event = event.unwrap();
            let frame: Value = serde_json::from_slice(&event.frame()).unwrap();
            assert!(event.frame().ends_with(b"}\n"));
            assert_eq!(frame["object"], event.entry.value());
            assert_eq!(
                frame["object"]["metadata"]["resourceVersion"],
                event.revision.to_string()
            );
            assert_eq!(event.prev.is_none(), frame["type"] == "ADDED");
            seen.push(format!("{} {}", event.revision, frame["type"].as_str().unwrap()));
        }
        (seen, watch.revision())
    };
    let strings = |list: &[&str]| (list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), 6);
    assert_eq!(pods.revision(), 2);
    assert_eq!(
        seen(&mut all),
        strings(&["2 ADDED", "3 ADDED", "4 ADDED", "5 MODIFIED", "6 DELETED"])
    );
    assert_eq!(seen(&mut pods), strings(&["4 ADDED", "5 MODIFIED", "6 DELETED"]));
    assert_eq!(seen(&mut in_m), strings(&["4 ADDED", "6 DELETED"]));
    assert_eq!(seen(&mut only_a), strings(&["2 ADDED", "5 MODIFIED"]));
    // A cluster-scoped object has no namespace to watch apart.
    let mut cluster = store.watch(PODS, Some(""), 4).unwrap();
    assert_eq!(seen(&mut cluster), strings(&["5 MODIFIED", "6 DELETED"]));
    assert_eq!(store.watch(PODS, None, 7).unwrap_err(), StoreError::Future(6));
}

#[tokio::test]
async fn a_waiting_watch_is_woken_by_its_own_scope() {
    let store = memory(100);
    let a = key("n", "a");
    for mut watch in [
        store.watch_all(1).unwrap(),
        store.watch(PODS, None, 1).unwrap(),
        store.watch(PODS, Some("n"), 1).unwrap(),
        store.watch_object(&a, 1).unwrap(),
    ] {
        let from = store.revision();
        while let Some(event) = watch.try_next() {
            event.unwrap();
        }
        let writer = async {
            // The watch is polled first, so this wakes one that waits.
            create(&store, &a, 1).await;
            delete(&store, &a).await;
        };
        let (event, ()) = tokio::join!(next(&mut watch), writer);
        assert_eq!(event.unwrap().revision, from + 1);
        assert_eq!(next(&mut watch).await.unwrap().revision, from + 2);
    }
}

#[tokio::test]
async fn compaction_drops_the_oldest_and_says_so() {
    let store = memory(5);
    let (a, b) = (key("n", "a"), key("n", "b"));
    create(&store, &b, 0).await; // 2
    create(&store, &a, 0).await; // 3
    let mut slow = store.watch(PODS, None, 3).unwrap();
    let mut straddling = store.watch(PODS, None, 7).unwrap_err();
    assert_eq!(straddling, StoreError::Future(3));
    for x in 1..=8 {
        update(&store, &a, x).await; // 4..=11
    }
    // Kept: 7 to 11. So 6 can be shown and watched from, 5 cannot.
    assert_eq!(store.list(&range(Some(5))).unwrap_err(), StoreError::Compacted(6));
    assert_eq!(
        shown(&store.list(&range(Some(6))).unwrap().entries),
        ["n/a=3", "n/b=0"]
    );
    straddling = store.watch(PODS, None, 5).unwrap_err();
    assert_eq!(straddling, StoreError::Compacted(6));
    assert_eq!(store.watch_all(5).unwrap_err(), StoreError::Compacted(6));
    let mut kept = store.watch(PODS, None, 6).unwrap();
    assert_eq!(next(&mut kept).await.unwrap().revision, 7);
    // One that fell behind is told, every time, and never given a gap.
    assert_eq!(next(&mut slow).await.unwrap_err(), StoreError::Compacted(6));
    assert_eq!(slow.revision(), 3);
    assert_eq!(next(&mut slow).await.unwrap_err(), StoreError::Compacted(6));
}

#[tokio::test]
async fn quiet_watches_outlive_busy_neighbours() {
    let store = memory(3);
    let (quiet, busy) = (key("quiet", "a"), key("busy", "a"));
    create(&store, &quiet, 0).await;
    create(&store, &busy, 0).await;
    let mut of_namespace = store.watch(PODS, Some("quiet"), store.revision()).unwrap();
    let mut of_object = store.watch_object(&quiet, store.revision()).unwrap();
    let mut of_nothing_yet = store.watch(PODS, Some("later"), store.revision()).unwrap();
    let mut of_kind = store.watch("/secrets", None, store.revision()).unwrap();
    for x in 1..=20 {
        update(&store, &busy, x).await;
    }
    assert_eq!(of_namespace.revision(), store.revision());
    assert_eq!(of_object.revision(), store.revision());
    assert_eq!(
        update(&store, &quiet, 1).await.revision,
        next(&mut of_namespace).await.unwrap().revision
    );
    assert_eq!(next(&mut of_object).await.unwrap().revision, store.revision());
    create(&store, &key("later", "a"), 0).await;
    assert_eq!(
        next(&mut of_nothing_yet).await.unwrap().revision,
        store.revision()
    );
    create(&store, &Key::new("/secrets", "n", "a"), 0).await;
    assert_eq!(next(&mut of_kind).await.unwrap().revision, store.revision());
}

#[tokio::test]
async fn a_namespace_that_was_emptied_and_forgotten_is_not_taken_for_unchanged() {
    let store = memory(3);
    let gone = key("gone", "a");
    create(&store, &gone, 0).await; // 2
    delete(&store, &gone).await; // 3
    create(&store, &key("n", "a"), 0).await; // 4
    for x in 1..=5 {
        update(&store, &key("n", "a"), x).await; // 5..=9
    }
    assert_eq!(
        store.watch(PODS, Some("gone"), 2).unwrap_err(),
        StoreError::Compacted(3)
    );
    assert!(store.watch(PODS, Some("gone"), 3).is_ok());
    let at = Range {
        namespace: Some("gone".into()),
        ..range(Some(2))
    };
    assert_eq!(store.list(&at).unwrap_err(), StoreError::Compacted(3));
}

#[tokio::test]
async fn large_objects_shorten_the_log() {
    let store = memory(1000);
    write(&store.shared).limit_log_bytes(10_000);
    let a = key("n", "a");
    create(&store, &a, 0).await;
    let large = json!({"metadata": {}, "data": "x".repeat(4_000)});
    for _ in 0..5 {
        let revision = store.revision();
        store
            .put(a.clone(), large.clone(), Expect::Revision(revision))
            .await
            .unwrap();
    }
    assert_eq!(store.watch_all(4).unwrap_err(), StoreError::Compacted(5));
    assert!(store.watch_all(5).is_ok());
}

#[tokio::test]
async fn channels_of_unwatched_objects_are_swept() {
    let store = memory(1000);
    for i in 0..500 {
        drop(store.watch_object(&key("n", &i.to_string()), 1).unwrap());
    }
    let a = key("n", "a");
    let mut watch = store.watch_object(&a, 1).unwrap();
    for i in 0..500 {
        drop(store.watch_object(&key("n", &i.to_string()), 1).unwrap());
    }
    assert!(read(&store.shared).object_channels(PODS) <= 130);
    create(&store, &a, 1).await;
    assert_eq!(next(&mut watch).await.unwrap().revision, 2);
}
