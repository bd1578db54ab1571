use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::work::replicaset::outline::{SetOutline, SpecHash, WorkOutline};

fn set(refs: &[&str], change: impl FnOnce(&mut Value)) -> SetView {
    let refs: Vec<Value> = refs.iter().map(|name| json!({"name": name})).collect();
    let mut value = json!({
        "metadata": {"name": "a", "namespace": "ns", "uid": "u", "labels": {"team": "x"}},
        "spec": {"manifestWorkTemplate": {"v": 1}, "placementRefs": refs},
    });
    change(&mut value);
    SetView::of(&serde_json::from_value::<SetOutline>(value).unwrap())
}

/// `placement:clusters` with clusters in groups apart by `|`; without a `:` nothing is decided.
fn decided(text: &str) -> Decided {
    let Some((_, groups)) = text.split_once(':') else {
        return Decided::default();
    };
    let views: Vec<DecisionView> = (0..)
        .zip(groups.split('|'))
        .map(|(index, clusters)| DecisionView {
            placement: String::new(),
            index,
            group: String::new(),
            clusters: clusters.split_whitespace().map(str::to_owned).collect(),
        })
        .collect();
    Decided::of(views.iter(), 0)
}

/// `cluster/name placement version`, with a `-` behind it when it is being deleted, a `~` when it has no label of the set's.
fn work(text: &str) -> Work {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (cluster, name) = words[0].split_once('/').unwrap();
    let deleting = words[2].contains('-');
    let mut labels =
        json!({labels::REPLICA_SET: "ns.a", labels::REPLICA_SET_PLACEMENT: words[1], "team": "x"});
    if words[2].contains('~') {
        labels["team"] = json!("y");
    }
    let version: i64 = words[2].trim_end_matches(['-', '~']).parse().unwrap();
    let condition = |type_: &str, status: &str| {
        json!({"type": type_, "status": status, "reason": "R", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "1970-01-01T00:00:00Z"})
    };
    let outline: WorkOutline = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": cluster, "uid": name, "labels": labels, "generation": 1,
            "deletionTimestamp": deleting.then_some("1970-01-01T00:00:00Z")},
        "spec": {"v": version},
        "status": {"conditions": [condition("Applied", "True"), condition("Progressing", "False"),
            condition("Available", "True")]},
    }))
    .unwrap();
    Work {
        cluster: cluster.into(),
        name: name.into(),
        view: Arc::new(WorkView::of(&outline)),
    }
}

fn run(set: &SetView, placements: &[&str], works: &[&str], closed: &[&str]) -> Plan {
    let decided: Vec<Decided> = placements.iter().map(|text| decided(text)).collect();
    let works: Vec<Work> = works.iter().map(|text| work(text)).collect();
    let facts = Facts {
        set,
        owner: "ns.a",
        decided: &decided,
        works: &works,
        now: Timestamp::UNIX_EPOCH,
    };
    plan(
        &facts,
        |work| work.view.spec == set.template,
        |cluster| closed.contains(&cluster).then(|| "closed".to_owned()),
    )
}

/// The writes, in order, in words.
fn told(plan: &Plan) -> Vec<String> {
    let mut all: Vec<String> = plan
        .writes
        .iter()
        .map(|write| match write {
            Write::Create { cluster, placement } => format!("create {cluster} {placement}"),
            Write::Delete { cluster, name, uid } => {
                assert_eq!(&**name, uid);
                format!("delete {cluster}/{name}")
            }
            Write::Change {
                cluster,
                name,
                spec,
                labels,
                ..
            } => {
                let labels: Vec<&str> = labels.values().map(String::as_str).collect();
                let spec = if *spec { " spec" } else { "" };
                format!("change {cluster}/{name}{spec} {}", labels.join(","))
                    .trim_end()
                    .to_owned()
            }
        })
        .collect();
    all.sort();
    all
}

type Words<'a> = &'a [&'a str];

#[test]
fn works_follow_the_decisions() {
    let (one, two) = (set(&["p"], |_| ()), set(&["p", "q"], |_| ()));
    let cases: [(&SetView, Words<'_>, Words<'_>, Words<'_>); 17] = [
        (&one, &["p:c1 c2"], &[], &["create c1 p", "create c2 p"]),
        (&one, &["p:c1 | c2"], &["c1/w p 1"], &["create c2 p"]),
        (&one, &["p:c1 c2"], &["c1/w p 1", "c2/w p 1"], &[]),
        // A template change, or somebody's.
        (&one, &["p:c1"], &["c1/w p 2"], &["change c1/w spec"]),
        (&one, &["p:c1"], &["c1/w p 1~"], &["change c1/w x"]),
        (&one, &["p:c1"], &["c1/w p 2~"], &["change c1/w spec x"]),
        // Decided for no more.
        (&one, &["p:c1"], &["c1/w p 1", "c2/w p 1"], &["delete c2/w"]),
        (&one, &["p:"], &["c1/w p 1", "c2/w p 1-"], &["delete c1/w"]),
        // Referred to no more.
        (&one, &["p:c1"], &["c2/w old 1"], &["create c1 p", "delete c2/w"]),
        (&one, &["p:c1"], &["c1/w old 1"], &["change c1/w p"]),
        // Nothing decided: all stay as they are, save those of no placement.
        (
            &one,
            &["p"],
            &["c1/w p 1", "c2/w p 2~", "c3/w old 1"],
            &["delete c3/w"],
        ),
        // The first placement has a cluster that two decided for, and the second has it when the first lets go.
        (
            &two,
            &["p:c1 c2", "q:c2 c3"],
            &[],
            &["create c1 p", "create c2 p", "create c3 q"],
        ),
        (&two, &["p:c1", "q:c1"], &["c1/w q 1"], &["change c1/w p"]),
        (&two, &["p:", "q:c1"], &["c1/w p 1"], &["change c1/w q"]),
        (
            &two,
            &["p", "q:c1"],
            &["c1/w p 1", "c2/w p 1"],
            &["change c1/w q"],
        ),
        // Of two works on a cluster the better one stays.
        (
            &two,
            &["p:c1", "q:"],
            &["c1/a q 1", "c1/b p 1", "c1/c p 2"],
            &["delete c1/a", "delete c1/c"],
        ),
        // One that is going is waited for.
        (&one, &["p:c1"], &["c1/w p 1-"], &[]),
    ];
    for (set, placements, works, wanted) in cases {
        assert_eq!(
            told(&run(set, placements, works, &[])),
            wanted,
            "{placements:?} {works:?}"
        );
    }
}

#[test]
fn a_rollout_holds_back_the_template_and_no_labels() {
    let slow = set(&["p"], |set| {
        set["spec"]["placementRefs"][0]["rolloutStrategy"] =
            json!({"type": "Progressive", "progressive": {"maxConcurrency": 1}});
    });
    let plan = run(&slow, &["p:c1 c2 c3"], &["c1/w p 2", "c2/w p 2~"], &[]);
    assert_eq!(told(&plan), ["change c1/w spec", "change c2/w x"]);
    assert_eq!(plan.placed[0].rollout.start, ["c1"]);
    let plan = run(&slow, &["p:c1 c2 c3"], &["c1/w p 1", "c2/w p 2"], &[]);
    assert_eq!(told(&plan), ["change c2/w spec"]);
    // A cluster that cannot have a work holds up nobody.
    let plan = run(&slow, &["p:c1 c2 c3"], &[], &["c1"]);
    assert_eq!(told(&plan), ["create c2 p"]);
    assert_eq!(plan.placed[0].closed, [("c1".to_owned(), "closed".to_owned())]);
    assert_eq!(plan.placed[0].clusters, 3);
    let wrong = set(&["p"], |set| {
        set["spec"]["placementRefs"][0]["rolloutStrategy"] =
            json!({"type": "All", "all": {"minSuccessTime": "soon"}});
    });
    let plan = run(&wrong, &["p:c1 c2"], &["c2/w p 2", "c3/w p 1"], &[]);
    assert_eq!(told(&plan), ["delete c3/w"]);
    assert!(plan.placed[0].problem.is_some());
}

#[test]
fn only_works_that_have_the_template_and_stay_are_counted() {
    let two = set(&["p", "q", "p"], |_| ());
    let plan = run(
        &two,
        &["p:c1 c2 c3 | c4", "q:c4 c5", "p:c1"],
        &[
            "c1/w p 1",
            "c2/w p 2",
            "c3/w p 1-",
            "c4/w p 1",
            "c5/w q 1",
            "c6/w q 1",
        ],
        &[],
    );
    assert_eq!(plan.placed.len(), 2, "named twice, counted once");
    let counts: Vec<(i64, i64, i64, usize, usize)> = plan
        .placed
        .iter()
        .map(|placed| {
            let sum = placed.summary;
            assert_eq!((sum.total, sum.total), (sum.applied, sum.available));
            (
                sum.total,
                sum.desired_total,
                sum.updated,
                placed.groups,
                placed.rollout.succeeded,
            )
        })
        .collect();
    assert_eq!(counts, [(2, 4, 2, 2, 2), (1, 1, 1, 1, 1)]);
    // The works of a placement for which nothing is decided are still told of.
    let plan = run(&set(&["p"], |_| ()), &["p"], &["c1/w p 1"], &[]);
    let placed = &plan.placed[0];
    assert_eq!(
        (placed.summary.total, placed.summary.desired_total, placed.decided),
        (1, 1, false)
    );
}

#[test]
fn slices_of_a_group_are_one_group() {
    let slice = |index: i32, group: &str, clusters: &[&str]| DecisionView {
        placement: "p".to_owned(),
        index,
        group: group.to_owned(),
        clusters: clusters.iter().map(|cluster| (*cluster).to_owned()).collect(),
    };
    let views = [
        slice(10, "", &["z"]),
        slice(2, "x", &["b"]),
        slice(2, "x", &["a", "b"]),
        slice(11, "", &["a"]),
    ];
    let decided = Decided::of(views.iter(), 5);
    let groups: Vec<(i32, String)> = decided
        .groups
        .unwrap()
        .iter()
        .map(|group| (group.index, group.clusters.join(" ")))
        .collect();
    assert_eq!(
        groups,
        [(2, "a b".to_owned()), (10, "z".to_owned()), (11, String::new())]
    );
    assert_eq!(decided.selected, 5);
    assert_eq!(Decided::of([].into_iter(), 5).groups, None);
}

#[test]
fn a_label_names_a_replica_set_whatever_its_name() {
    for name in ["a", "a.b.c"] {
        let owner = owner("ns", name).unwrap();
        assert_eq!(key(&owner), Some(format!("ns/{name}")));
    }
    assert!(owner("ns", &"a".repeat(60)).is_ok());
    let (reason, why) = owner("ns", &"a".repeat(61)).unwrap_err();
    assert_eq!(reason, "InvalidManifestWorkName");
    assert!(why.contains("would have 64 characters"), "{why}");
    assert_eq!(key("nothing"), None);
    assert_eq!(SpecHash::default(), SpecHash(0));
}
