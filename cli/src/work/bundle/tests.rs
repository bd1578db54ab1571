use super::*;
use crate::manifests::Place;
use serde_json::json;

fn item(kind: &str, name: &str, bytes: usize) -> (Id, usize) {
    let group = if kind == "CustomResourceDefinition" {
        "apiextensions.k8s.io/v1"
    } else {
        "v1"
    };
    let id =
        Id::of(&json!({"apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": "n"}}));
    (id, bytes)
}

fn items(list: &[(&str, usize)]) -> Vec<(Id, usize)> {
    list.iter()
        .map(|(name, bytes)| item("ConfigMap", name, *bytes))
        .collect()
}

/// How a split divides the names.
fn told(manifests: &[(Id, usize)], split: &Split) -> Vec<(usize, String)> {
    let names = |list: &Vec<usize>| {
        list.iter()
            .map(|i| manifests[*i].0.name.clone())
            .collect::<String>()
    };
    split.iter().map(|(part, list)| (*part, names(list))).collect()
}

fn want(list: &[(usize, &str)]) -> Vec<(usize, String)> {
    list.iter()
        .map(|(part, names)| (*part, (*names).to_owned()))
        .collect()
}

#[test]
fn what_fits_is_one_work_and_what_does_not_is_several_in_order() {
    let none = BTreeMap::new();
    let small = items(&[("a", 40), ("b", 60)]);
    assert_eq!(told(&small, &split(&small, &none, 100)), want(&[(1, "ab")]));
    let mut large = items(&[("a", 40), ("b", 40), ("c", 40), ("d", 80)]);
    large.push(item("CustomResourceDefinition", "X", 20));
    large.push(item("Namespace", "N", 20));
    assert_eq!(
        told(&large, &split(&large, &none, 100)),
        want(&[(1, "XNa"), (2, "bc"), (3, "d")]),
        "what others need comes first; 12 of 100 are left free"
    );
}

/// What happens, the names and sizes after it, and how they are divided then.
type Case<'a> = (&'a str, &'a [(&'a str, usize)], &'a [(usize, &'a str)]);

#[test]
fn a_change_touches_few_works() {
    let first = items(&[("a", 40), ("b", 40), ("c", 40), ("d", 40), ("e", 40)]);
    let ids = |names: &str| -> Vec<Id> {
        names
            .chars()
            .map(|c| item("ConfigMap", &c.to_string(), 0).0)
            .collect()
    };
    let before = BTreeMap::from([(1, ids("ab")), (2, ids("cd")), (3, ids("e"))]);
    assert_eq!(
        told(&first, &split(&first, &BTreeMap::new(), 100)),
        want(&[(1, "ab"), (2, "cd"), (3, "e")])
    );
    let cases: [Case<'_>; 8] = [
        (
            "nothing",
            &[("a", 40), ("b", 40), ("c", 40), ("d", 40), ("e", 40)],
            &[(1, "ab"), (2, "cd"), (3, "e")],
        ),
        (
            "one more at the beginning",
            &[("n", 40), ("a", 40), ("b", 40), ("c", 40), ("d", 40), ("e", 40)],
            &[(1, "ab"), (2, "cd"), (3, "ne")],
        ),
        (
            "one less",
            &[("a", 40), ("c", 40), ("d", 40), ("e", 40)],
            &[(1, "a"), (2, "cd"), (3, "e")],
        ),
        (
            "another order",
            &[("e", 40), ("d", 40), ("c", 40), ("b", 40), ("a", 40)],
            &[(1, "ba"), (2, "dc"), (3, "e")],
        ),
        (
            "one grows in its place",
            &[("a", 55), ("b", 40), ("c", 40), ("d", 40), ("e", 40)],
            &[(1, "ab"), (2, "cd"), (3, "e")],
        ),
        (
            "one grows out of its place",
            &[("a", 70), ("b", 40), ("c", 40), ("d", 40), ("e", 40)],
            &[(1, "a"), (2, "cd"), (3, "be")],
        ),
        (
            "a work gets empty",
            &[("a", 40), ("b", 40), ("e", 40)],
            &[(1, "ab"), (3, "e")],
        ),
        (
            "the first work gets empty",
            &[("c", 40), ("d", 40), ("e", 40)],
            &[(1, "e"), (2, "cd")],
        ),
    ];
    for (what, list, expected) in cases {
        let list = items(list);
        let split = split(&list, &before, 100);
        assert_eq!(told(&list, &split), want(expected), "{what}");
    }
}

/// Whatever comes and goes: everything is in one work, none is too large, nothing moves that need not.
#[test]
fn any_change_is_divided_rightly() {
    use rand::{Rng as _, SeedableRng as _};
    for seed in 0..300 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
        let mut before: BTreeMap<usize, Vec<Id>> = BTreeMap::new();
        for round in 0..6 {
            for _ in 0..random.random_range(0..12) {
                let name = format!("m{}", random.random_range(0..40));
                if random.random_bool(0.3) {
                    sizes.remove(&name);
                } else {
                    sizes.insert(name, random.random_range(1..=100));
                }
            }
            if sizes.is_empty() {
                continue;
            }
            let list: Vec<(Id, usize)> = sizes
                .iter()
                .map(|(name, bytes)| item("ConfigMap", name, *bytes))
                .collect();
            let divided = split(&list, &before, 100);
            let mut seen: Vec<usize> = divided.values().flatten().copied().collect();
            seen.sort_unstable();
            assert_eq!(
                seen,
                (0..list.len()).collect::<Vec<_>>(),
                "seed {seed}, round {round}"
            );
            assert!(divided.contains_key(&1), "seed {seed}, round {round}");
            let mut receives = BTreeSet::new();
            let mut gives = BTreeSet::new();
            for (part, indexes) in &divided {
                let bytes: usize = indexes.iter().map(|i| list[*i].1).sum();
                assert!(
                    bytes <= 100,
                    "seed {seed}, round {round}: part {part} has {bytes}"
                );
                for index in indexes {
                    let was = before.iter().find(|(_, ids)| ids.contains(&list[*index].0));
                    if let Some((was, _)) = was.filter(|(was, _)| *was != part) {
                        receives.insert(*part);
                        gives.insert(*was);
                    }
                }
            }
            let both: Vec<_> = receives.intersection(&gives).collect();
            assert!(
                both.is_empty(),
                "seed {seed}, round {round}: {both:?} give and receive at once"
            );
            let again = split(&list, &ids_of(&list, &divided), 100);
            assert_eq!(again, divided, "seed {seed}, round {round}: not stable");
            before = ids_of(&list, &divided);
        }
    }
}

fn ids_of(list: &[(Id, usize)], split: &Split) -> BTreeMap<usize, Vec<Id>> {
    let ids = |indexes: &Vec<usize>| indexes.iter().map(|i| list[*i].0.clone()).collect();
    split
        .iter()
        .map(|(part, indexes)| (*part, ids(indexes)))
        .collect()
}

fn manifest(name: &str, bytes: usize) -> Manifest {
    Manifest {
        place: Place {
            file: "f".into(),
            document: 1,
            line: 1,
        },
        object: json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n"},
            "data": {"x": "y".repeat(bytes)}}),
    }
}

fn template() -> ManifestWork {
    serde_json::from_value(
        json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
        "metadata": {"name": "app", "namespace": "c"}, "spec": {}}),
    )
    .unwrap()
}

/// The works as they are once the plan is carried out.
fn after(plan: &Plan, existing: &BTreeMap<usize, ManifestWork>) -> BTreeMap<usize, ManifestWork> {
    let mut works = existing.clone();
    for change in plan.first.iter().chain(&plan.then) {
        match change {
            Change::Create(work) | Change::Update(work) => {
                works.insert(part(work).map_or(1, |(_, part)| part), (**work).clone());
            }
            Change::Delete(gone) => works.retain(|_, work| work.name_any() != gone.name_any()),
            Change::Keep(_) => {}
        }
    }
    works
}

fn told_plan(plan: &Plan) -> Vec<String> {
    let one = |change: &Change| {
        let word = match change {
            Change::Create(_) => "+",
            Change::Update(_) => "~",
            Change::Keep(_) => "=",
            Change::Delete(_) => "-",
        };
        format!("{word}{}", change.name())
    };
    let then = plan.then.iter().map(|c| format!("then {}", one(c)));
    plan.first.iter().map(one).chain(then).collect()
}

#[test]
fn plans_take_away_last() {
    let limit = 1000;
    let none = BTreeMap::new();
    let single = plan(
        &template(),
        vec![manifest("a", 400), manifest("b", 200)],
        &none,
        limit,
    );
    assert_eq!(told_plan(&single), ["+app"]);
    let works = after(&single, &none);
    assert!(
        works[&1].metadata.labels.is_none(),
        "one that is all there is needs no mark"
    );
    let same = plan(
        &template(),
        vec![manifest("a", 400), manifest("b", 200)],
        &works,
        limit,
    );
    assert_eq!(told_plan(&same), ["=app"]);

    // It grows into a bundle.
    let three = || vec![manifest("a", 400), manifest("b", 200), manifest("c", 700)];
    let grown = plan(&template(), three(), &works, limit);
    assert_eq!(told_plan(&grown), ["~app", "+app-2"]);
    let works = after(&grown, &works);
    assert_eq!(part(&works[&2]), Some(("app", 2)));
    assert_eq!(parts(&works[&1]), 2);
    assert_eq!(
        told_plan(&plan(&template(), three(), &works, limit)),
        ["=app", "=app-2"]
    );

    // One grows out of its work: first the other has it, then the first gives it away.
    let moved = vec![manifest("a", 700), manifest("b", 200), manifest("c", 400)];
    let moving = plan(&template(), moved, &works, limit);
    assert_eq!(told_plan(&moving), ["~app-2", "then ~app"]);

    // What is no longer needed goes last.
    let shrunk = plan(&template(), vec![manifest("a", 400)], &works, limit);
    assert_eq!(told_plan(&shrunk), ["~app", "then -app-2"]);
    let works = after(&shrunk, &works);
    assert_eq!((works.len(), parts(&works[&1])), (1, 1));

    // The half that is missing is made.
    let mut half = after(&grown, &BTreeMap::new());
    half.remove(&2);
    let completed = plan(&template(), three(), &half, limit);
    assert_eq!(told_plan(&completed), ["=app", "+app-2"]);
}

#[test]
fn the_first_work_has_the_bundles_name() {
    assert_eq!(
        (name("app", 1), name("app", 3)),
        ("app".to_owned(), "app-3".to_owned())
    );
}
