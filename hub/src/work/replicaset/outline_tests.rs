use serde_json::json;

use super::*;

fn work(change: impl FnOnce(&mut Value)) -> WorkOutline {
    let condition = |type_: &str, status: &str, second: i64| {
        json!({"type": type_, "status": status, "reason": "R", "message": "", "observedGeneration": 2,
            "lastTransitionTime": Timestamp::from_second(second).unwrap().to_string()})
    };
    let mut value = json!({
        "metadata": {"name": "w", "namespace": "c1", "uid": "u", "resourceVersion": "7", "generation": 2,
            "labels": {labels::REPLICA_SET: "ns.a", labels::REPLICA_SET_PLACEMENT: "p"}},
        "spec": {"workload": {"manifests": [{"kind": "Job"}]}},
        "status": {"conditions": [condition("Applied", "True", 10), condition("Progressing", "True", 20),
            condition("Degraded", "False", 30)]},
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_cluster_is_as_far_as_its_klusterlet_says_of_the_present_generation() {
    type Change = fn(&mut Value);
    let at = |second: i64| Some(Timestamp::from_second(second).unwrap());
    let cases: [(&str, Change, State); 14] = [
        ("on its way", |_| {}, State::Progressing(at(20))),
        (
            "not known",
            |w| w["status"]["conditions"][1]["status"] = json!("Unknown"),
            State::Progressing(at(20)),
        ),
        (
            "there",
            |w| w["status"]["conditions"][1]["status"] = json!("False"),
            State::Succeeded(at(20)),
        ),
        (
            "there, and not quite well",
            |w| {
                w["status"]["conditions"][1]["status"] = json!("False");
                w["status"]["conditions"][2]["status"] = json!("True");
            },
            State::Succeeded(at(20)),
        ),
        (
            "failed",
            |w| w["status"]["conditions"][2]["status"] = json!("True"),
            State::Failed(at(30)),
        ),
        (
            "not applied",
            |w| w["status"]["conditions"][0]["status"] = json!("False"),
            State::Applying(None),
        ),
        (
            "applied earlier",
            |w| w["status"]["conditions"][0]["observedGeneration"] = json!(1),
            State::Applying(None),
        ),
        ("no word", |w| w["status"] = json!({}), State::Applying(None)),
        (
            "no word of progress",
            |w| {
                w["status"]["conditions"].as_array_mut().unwrap().remove(1);
            },
            State::Applying(None),
        ),
        (
            "progress of an earlier one",
            |w| w["status"]["conditions"][1]["observedGeneration"] = json!(1),
            State::Applying(None),
        ),
        (
            "degraded in an earlier one",
            |w| w["status"]["conditions"][2]["observedGeneration"] = json!(1),
            State::Applying(None),
        ),
        (
            "no word of health",
            |w| {
                w["status"]["conditions"].as_array_mut().unwrap().remove(2);
            },
            State::Progressing(at(20)),
        ),
        (
            "of no generation",
            |w| {
                w["status"]["conditions"][0]
                    .as_object_mut()
                    .unwrap()
                    .remove("observedGeneration");
            },
            State::Applying(None),
        ),
        (
            "not known to be degraded",
            |w| w["status"]["conditions"][2]["status"] = json!("Unknown"),
            State::Progressing(at(20)),
        ),
    ];
    for (what, change, wanted) in cases {
        assert_eq!(WorkView::of(&work(change)).state(), wanted, "{what}");
    }
    // Nothing counts from before the template was there.
    let written = work(|w| {
        w["metadata"]["managedFields"] = json!([
            {"manager": "hub", "operation": "Update", "time": "1970-01-01T00:00:25Z", "fieldsV1": {"f:spec": {}}},
            {"manager": "labels", "operation": "Update", "time": "1970-01-01T00:00:50Z",
                "fieldsV1": {"f:metadata": {}}},
            {"manager": "agent", "operation": "Update", "subresource": "status", "time": "1970-01-01T00:01:00Z",
                "fieldsV1": {"f:status": {}}},
        ]);
    });
    assert_eq!(WorkView::of(&written).state(), State::Progressing(at(25)));
}

#[test]
fn specs_are_the_same_whatever_the_order_of_their_fields() {
    let hash = |text: &str| serde_json::from_str::<SpecHash>(text).unwrap();
    let spec = hash(r#"{"workload": {"manifests": [{"a": 1, "metadata": {"name": "n"}}]}, "executor": {}}"#);
    for same in [
        r#"{"executor": {}, "workload": {"manifests": [{"metadata": {"name": "n"}, "a": 1}]}}"#,
        r#"{"executor": {}, "workload": {"manifests": [{"metadata": {"name": "n", "creationTimestamp": null}, "a": 1}]}}"#,
    ] {
        assert_eq!(hash(same), spec, "{same}");
    }
    for other in [
        r#"{"workload": {"manifests": [{"a": 1, "metadata": {"name": "n"}}]}}"#,
        r#"{"executor": {}, "workload": {"manifests": [{"metadata": {"name": "n"}, "a": "1"}]}}"#,
        r#"{"executor": {}, "workload": {"manifests": []}}"#,
    ] {
        assert_ne!(hash(other), spec, "{other}");
    }
}

#[test]
fn works_are_found_by_their_replica_set() {
    let works = Works::default();
    let named = |name: &str, version: &str, owner: &str| {
        work(|w| {
            w["metadata"]["name"] = json!(name);
            w["metadata"]["resourceVersion"] = json!(version);
            w["metadata"]["labels"] = json!({labels::REPLICA_SET: owner});
        })
    };
    let found =
        |owner: &str| -> Vec<String> { works.of(owner).iter().map(|work| work.name.to_string()).collect() };
    works.wrote(&named("x", "1", "ns.a"));
    works.wrote(&named("y", "2", "ns.a"));
    assert_eq!(found("ns.a"), ["x", "y"]);
    works.cache.wrote(&named("x", "3", "ns.b"));
    let mut told = Vec::new();
    works.seen("c1", "x", |owner| told.push(owner.to_owned()));
    assert_eq!(told, ["ns.a", "ns.b"]);
    assert_eq!(
        (found("ns.a"), found("ns.b")),
        (vec!["y".to_owned()], vec!["x".to_owned()])
    );
    works.removed("c1", "x");
    assert_eq!(found("ns.b"), Vec::<String>::new());
    let index = works.index();
    assert_eq!((index.works.len(), index.owners.len()), (1, 1));
}
