//! The store against a model that keeps every state it ever had.

use super::disk::open;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const KEEP: usize = 100; // what `open` keeps too

#[derive(Debug, Clone)]
enum Step {
    /// Object, value, and whether to expect the right revision.
    Put(u8, u64, bool),
    Delete(u8, bool),
    /// How far back, page size, namespace, where to start.
    List(u64, usize, Option<u8>, Option<u8>),
    /// Kind of scope and how far back to start.
    Watch(u8, u64),
    Drain,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..24u8, any::<u64>(), prop::bool::weighted(0.9)).prop_map(|(o, x, r)| Step::Put(o, x, r)),
        6 => (0..24u8, prop::bool::weighted(0.9)).prop_map(|(o, r)| Step::Delete(o, r)),
        3 => (0..150u64, 0..5usize, prop::option::of(0..4u8), prop::option::of(0..24u8))
            .prop_map(|(b, l, n, a)| Step::List(b, l, n, a)),
        2 => (0..4u8, 0..150u64).prop_map(|(s, b)| Step::Watch(s, b)),
        1 => Just(Step::Drain),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..400)
}

/// Objects 0 to 23: three in each of four namespaces (one of them none), of two kinds.
fn key_of(object: u8) -> Key {
    let kind = if object < 12 { PODS } else { "/secrets" };
    Key::new(
        kind,
        ["", "a", "b", "c"][usize::from(object % 4)],
        format!("o{}", object / 4 % 3),
    )
}

/// Revision and value of each.
type Objects = BTreeMap<Key, (u64, u64)>;
/// The new value, `None` for deleted.
type Change = (Key, Option<u64>);
type InScope = Box<dyn Fn(&Key) -> bool>;

struct Model {
    /// By revision: the state after it, and what it changed.
    states: Vec<(Objects, Option<Change>)>,
    /// Nothing before this is promised.
    floor: u64,
}

impl Model {
    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn now(&self) -> &Objects {
        &self.states.last().unwrap().0
    }

    fn change(&mut self, key: Key, x: Option<u64>) {
        let mut next = self.now().clone();
        match x {
            Some(x) => next.insert(key.clone(), (self.revision() + 1, x)),
            None => next.remove(&key),
        };
        self.states.push((next, Some((key, x))));
    }

    /// The changes a scope sees after a revision.
    fn changes(&self, scope: &dyn Fn(&Key) -> bool, after: u64) -> Vec<(u64, Option<u64>)> {
        let from = usize::try_from(after).unwrap() + 1;
        let all = self.states.iter().enumerate().skip(from);
        all.filter_map(|(r, (_, c))| c.as_ref().filter(|(k, _)| scope(k)).map(|(_, x)| (r as u64, *x)))
            .collect()
    }
}

struct Watching {
    watch: Watch,
    scope: InScope,
    from: u64,
}

/// Everything the watch has for us must be what the model has, up to now, or it must have fallen behind.
fn drain(watching: &mut Watching, model: &Model) {
    let want = model.changes(&watching.scope, watching.from);
    let mut got = Vec::new();
    loop {
        match watching.watch.try_next() {
            None => break,
            Some(Ok(event)) => {
                assert_eq!(
                    event.prev.is_some(),
                    model.states[usize::try_from(event.revision).unwrap() - 1]
                        .0
                        .contains_key(&event.entry.key)
                );
                got.push((
                    event.revision,
                    (!event.deleted).then(|| event.entry.value()["x"].as_u64().unwrap()),
                ));
            }
            Some(Err(StoreError::Compacted(_))) => {
                assert!(
                    model.revision() - watching.from > KEEP as u64,
                    "not that far behind"
                );
                // It gave a beginning without a gap, or nothing.
                assert!(want.starts_with(&got));
                watching.from = u64::MAX;
                return;
            }
            Some(Err(other)) => panic!("{other:?}"),
        }
    }
    assert_eq!(got, want);
    assert_eq!(watching.watch.revision(), model.revision());
    watching.from = model.revision();
}

fn drain_all(watches: &mut [Watching], model: &Model) {
    for watching in watches {
        drain(watching, model);
    }
}

async fn play(steps: Vec<Step>, durable: bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut store = if durable { open(&path) } else { memory(KEEP) };
    let mut model = Model {
        states: vec![(Objects::new(), None), (Objects::new(), None)],
        floor: 0,
    };
    let mut watches: Vec<Watching> = Vec::new();
    for step in steps {
        match step {
            Step::Put(object, x, right) => {
                let key = key_of(object);
                let there = model.now().get(&key).map(|(r, _)| *r);
                let expect = match (there, right) {
                    (Some(r), true) => Expect::Revision(r),
                    (None, true) | (Some(_), false) => Expect::Absent,
                    (None, false) => Expect::Revision(1),
                };
                let got = store
                    .put(key.clone(), json!({"x": x}), expect)
                    .await
                    .map(|e| e.revision);
                let want = match (there, right) {
                    (_, true) => Ok(model.revision() + 1),
                    (Some(_), false) => Err(StoreError::Exists),
                    (None, false) => Err(StoreError::Missing),
                };
                assert_eq!(got, want);
                if right {
                    model.change(key, Some(x));
                }
            }
            Step::Delete(object, right) => {
                let key = key_of(object);
                let there = model.now().get(&key).copied();
                let revision = there.map_or(1, |(r, _)| if right { r } else { r + 1 });
                let last = json!({"x": there.map_or(0, |(_, x)| x)});
                let got = store
                    .delete(key.clone(), last, revision)
                    .await
                    .map(|e| e.revision);
                let want = match there {
                    None => Err(StoreError::Missing),
                    Some((r, _)) if !right => Err(StoreError::Changed(r)),
                    Some(_) => Ok(model.revision() + 1),
                };
                assert_eq!(got, want);
                if there.is_some() && right {
                    model.change(key, None);
                }
            }
            Step::List(back, limit, namespace, after) => {
                let at = (model.revision() + 10).saturating_sub(back);
                let namespace = namespace.map(|n| ["", "a", "b", "c"][usize::from(n)].to_owned());
                let after = after
                    .map(key_of)
                    .map(|k| (k.namespace.to_string(), k.name.to_string()));
                let range = Range {
                    namespace: namespace.clone(),
                    after: after.clone(),
                    limit,
                    ..range(Some(at))
                };
                match store.list(&range) {
                    Err(StoreError::Future(now)) => assert!(now == model.revision() && at > now),
                    Err(StoreError::Compacted(oldest)) => {
                        assert!(at < oldest && oldest <= model.revision());
                        assert!(at < model.floor || model.revision() - at > KEEP as u64);
                    }
                    Err(other) => panic!("{other:?}"),
                    Ok(page) => {
                        let all: Vec<_> = model.states[usize::try_from(at).unwrap()]
                            .0
                            .iter()
                            .filter(|(k, _)| &*k.resource == PODS)
                            .filter(|(k, _)| namespace.as_deref().is_none_or(|n| n == &*k.namespace))
                            .filter(|(k, _)| {
                                after
                                    .as_ref()
                                    .is_none_or(|(ns, n)| (&*k.namespace, &*k.name) > (ns, n))
                            })
                            .map(|(k, (r, x))| (k.clone(), *r, *x))
                            .collect();
                        let shown = if limit == 0 {
                            all.len()
                        } else {
                            limit.min(all.len())
                        };
                        let got: Vec<_> = page
                            .entries
                            .iter()
                            .map(|e| (e.key.clone(), e.revision, e.value()["x"].as_u64().unwrap()))
                            .collect();
                        assert_eq!(got, all[..shown]);
                        assert_eq!((page.remaining, page.revision), (all.len() - shown, at));
                    }
                }
            }
            Step::Watch(scope, back) => {
                let from = model.revision().saturating_sub(back);
                let only = key_of(5);
                let opened: (_, InScope) = match scope {
                    0 => (store.watch_all(from), Box::new(|_| true)),
                    1 => (store.watch(PODS, None, from), Box::new(|k| &*k.resource == PODS)),
                    2 => (
                        store.watch(PODS, Some("b"), from),
                        Box::new(|k| &*k.resource == PODS && &*k.namespace == "b"),
                    ),
                    _ => (store.watch_object(&only, from), Box::new(move |k| *k == only)),
                };
                match opened {
                    (Ok(watch), scope) => watches.push(Watching { watch, scope, from }),
                    (Err(StoreError::Compacted(oldest)), _) => {
                        assert!(from < oldest && oldest <= model.revision());
                        assert!(from < model.floor || model.revision() - from > KEEP as u64);
                    }
                    (Err(other), _) => panic!("{other:?}"),
                }
            }
            Step::Drain => {
                drain_all(&mut watches, &model);
                watches.retain(|w| w.from != u64::MAX);
            }
            Step::Reopen if durable => {
                drain_all(&mut watches, &model);
                watches.clear();
                drop(store);
                store = open(&path);
                model.floor = model.revision();
            }
            Step::Reopen => {}
        }
        assert_eq!(store.revision(), model.revision());
        let pods = model.now().keys().filter(|k| &*k.resource == PODS).count();
        assert_eq!(store.count(PODS), pods);
    }
    drain_all(&mut watches, &model);
}

fn run(steps: Vec<Step>, durable: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(play(steps, durable));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn in_memory_it_is_the_model(steps in steps()) {
        run(steps, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn on_disk_it_is_the_model_across_restarts(steps in steps()) {
        run(steps, true);
    }
}
