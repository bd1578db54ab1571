#![allow(clippy::needless_pass_by_value)] // short calls with json!

use super::{at, builtin, config_map, deployment, gadget, owned};
use crate::ApiError;
use crate::patch::FieldSet;
use crate::patch::apply::Applier;
use crate::patch::managed::{keep_times, update};
use crate::schema::Schema;
use serde_json::{Value, json};

fn apply(
    schema: &Schema,
    live: Option<&Value>,
    manager: &str,
    force: bool,
    config: &Value,
) -> Result<Value, ApiError> {
    let api_version = config["apiVersion"].as_str().unwrap().to_owned();
    let applier = Applier {
        schema,
        api_version: &api_version,
        kind: config["kind"].as_str().unwrap_or("Deployment"),
        manager,
        subresource: "",
        force,
        now: at(100),
        reset_fields: &FieldSet::of(&[&["status"]]),
    };
    applier.apply(live, config)
}

fn cm(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ap"}, "data": data})
}

fn apply_cm(live: Option<&Value>, manager: &str, force: bool, data: Value) -> Result<Value, ApiError> {
    apply(config_map(), live, manager, force, &cm(data))
}

fn put(schema: &Schema, live: Option<&Value>, mut new: Value, manager: &str, seconds: i64) -> Value {
    let version = new["apiVersion"].as_str().unwrap().to_owned();
    update(
        schema,
        live,
        &mut new,
        manager,
        &version,
        "",
        &FieldSet::of(&[&["status"]]),
        at(seconds),
    );
    new
}

#[test]
fn apply_creates_shares_and_takes() {
    let one = apply_cm(None, "one", false, json!({"a": "1", "b": "1"})).unwrap();
    assert_eq!(one["data"], json!({"a": "1", "b": "1"}));
    let entry = json!({"manager": "one", "operation": "Apply", "apiVersion": "v1", "time": "1970-01-01T00:01:40Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:a": {}, "f:b": {}}}});
    assert_eq!(one["metadata"]["managedFields"], json!([entry]));

    let refused = apply_cm(Some(&one), "two", false, json!({"a": "2"})).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"one\": .data.a"
    );
    assert_eq!(
        refused.status()["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.a"}])
    );

    let forced = apply_cm(Some(&one), "two", true, json!({"a": "2"})).unwrap();
    assert_eq!(owned(&forced, "one"), json!({"f:data": {"f:b": {}}}));
    assert_eq!(owned(&forced, "two"), json!({"f:data": {"f:a": {}}}));

    let shared = apply_cm(Some(&forced), "three", false, json!({"a": "2"})).unwrap();
    assert_eq!(owned(&shared, "three"), owned(&shared, "two"));

    // A field goes when its last owner stops applying it, and not before.
    let less = apply_cm(Some(&shared), "two", false, json!({})).unwrap();
    assert_eq!(less["data"], json!({"a": "2", "b": "1"}));
    assert_eq!(owned(&less, "two"), json!({"f:data": {}}));
    let gone = apply_cm(Some(&less), "one", false, json!({})).unwrap();
    assert_eq!(gone["data"], json!({"a": "2"}));
    assert_eq!(owned(&gone, "one"), json!({"f:data": {}}));
}

#[test]
fn an_empty_configuration_owns_nothing() {
    let config =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ap", "resourceVersion": "5"}});
    let made = apply(config_map(), None, "four", false, &config).unwrap();
    assert!(made["metadata"].get("managedFields").is_none(), "{made}");
}

#[test]
fn conflicts_with_an_updater_name_its_version() {
    let live = apply_cm(None, "one", false, json!({"b": "1"})).unwrap();
    let mut new = cm(json!({"a": "9", "y": "z"}));
    new["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
    let live = put(config_map(), Some(&live), new, "putter", 200);
    assert_eq!(owned(&live, "putter"), json!({"f:data": {"f:a": {}, "f:y": {}}}));
    assert_eq!(owned(&live, "one"), Value::Null, "all it owned is gone");
    let refused = apply_cm(Some(&live), "one", false, json!({"a": "3"})).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"putter\" using v1: .data.a"
    );
}

fn da(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "da"}, "spec": spec})
}

#[test]
fn a_deployment_merges_containers_env_and_ports_by_key() {
    let one = apply(
        deployment(),
        None,
        "one",
        false,
        &da(json!({
        "selector": {"matchLabels": {"a": "b"}}, "replicas": 2,
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1",
            "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}],
            "env": [{"name": "A", "value": "1"}]}]}}})),
    )
    .unwrap();
    let ports = json!({
        "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}},
        "k:{\"containerPort\":80,\"protocol\":\"UDP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}});
    let container = json!({".": {}, "f:env": {"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}},
        "f:image": {}, "f:name": {}, "f:ports": ports});
    assert_eq!(
        owned(&one, "one"),
        json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": container}}}}})
    );

    let two = apply(
        deployment(),
        Some(&one),
        "two",
        false,
        &da(json!({"template": {"spec": {"containers": [
        {"name": "c", "env": [{"name": "B", "value": "2"}]}, {"name": "d", "image": "j"}]}}})),
    )
    .unwrap();
    let containers = &two["spec"]["template"]["spec"]["containers"];
    assert_eq!(
        containers[0]["env"],
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}])
    );
    assert_eq!(containers[1], json!({"name": "d", "image": "j"}));

    let clash =
        da(json!({"replicas": 5, "template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}));
    assert_eq!(
        apply(deployment(), Some(&two), "two", false, &clash)
            .unwrap_err()
            .to_string(),
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.replicas\n\
         - .spec.template.spec.containers[name=\"c\"].image"
    );

    // Another manager's replicas over the scale subresource; the applier then stops caring for one port.
    let mut scaled = two.clone();
    scaled["spec"]["replicas"] = json!(7);
    update(
        deployment(),
        Some(&two),
        &mut scaled,
        "scaler",
        "apps/v1",
        "scale",
        &FieldSet::EMPTY,
        at(300),
    );
    assert_eq!(owned(&scaled, "scaler"), json!({"f:spec": {"f:replicas": {}}}));
    assert!(owned(&scaled, "one")["f:spec"].get("f:replicas").is_none());
    let fewer = apply(
        deployment(),
        Some(&scaled),
        "one",
        false,
        &da(json!({
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1",
            "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}]}]}}})),
    )
    .unwrap();
    assert_eq!(fewer["spec"]["replicas"], 7);
    assert_eq!(
        fewer["spec"]["template"]["spec"]["containers"][0]["ports"],
        json!([{"containerPort": 80}])
    );
    assert_eq!(
        fewer["spec"]["template"]["spec"]["containers"][0]["env"][1]["name"],
        "B"
    );
}

#[test]
fn a_configuration_must_fit() {
    let cases = [
        (
            da(json!({"selector": {}, "template": {"spec": {"containers": [{"name": "c"}, {"name": "c"}]}}})),
            500,
            "failed to create typed patch object (/da; apps/v1, Kind=Deployment): \
             .spec.template.spec.containers: duplicate entries for key [name=\"c\"]",
        ),
        (
            da(json!({"frob": 1})),
            500,
            "failed to create typed patch object (/da; apps/v1, Kind=Deployment): \
             .spec.frob: field not declared in schema",
        ),
        (
            da(json!({"replicas": "x", "paused": 1})),
            500,
            "failed to create typed patch object (/da; apps/v1, Kind=Deployment): errors:\n  \
             .spec.paused: expected boolean, got &{1}\n  \
             .spec.replicas: expected numeric (int or float), got string",
        ),
        (
            json!({"apiVersion": "apps/v1", "metadata": {}}),
            400,
            "invalid object type: apps/v1, Kind=",
        ),
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"managedFields": []}}),
            400,
            "metadata.managedFields must be nil",
        ),
    ];
    for (config, code, message) in cases {
        let refused = apply(deployment(), None, "one", false, &config).unwrap_err();
        assert_eq!((refused.code(), refused.to_string().as_str()), (code, message));
    }
}

fn gd(spec: Value) -> Value {
    json!({"apiVersion": "x.io/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": spec})
}

#[test]
fn a_custom_resource_merges_by_its_schema() {
    let schema = gadget();
    let one = gd(
        json!({"items": [{"k": "a", "v": 1}, {"k": "b"}], "tags": ["x"], "whole": {"p": "q"}, "list": ["1"]}),
    );
    let one = apply(&schema, None, "one", false, &one).unwrap();
    assert_eq!(
        owned(&one, "one"),
        json!({"f:spec": {"f:items": {"k:{\"k\":\"a\"}": {".": {}, "f:k": {}, "f:v": {}},
            "k:{\"k\":\"b\"}": {".": {}, "f:k": {}}}, "f:tags": {"v:\"x\"": {}}, "f:whole": {}, "f:list": {}}})
    );
    let two = apply(
        &schema,
        Some(&one),
        "two",
        false,
        &gd(json!({"items": [{"k": "c"}], "tags": ["y"]})),
    )
    .unwrap();
    assert_eq!(two["spec"]["tags"], json!(["x", "y"]));
    assert_eq!(
        two["spec"]["items"],
        json!([{"k": "a", "v": 1}, {"k": "b"}, {"k": "c"}])
    );
    let less = apply(
        &schema,
        Some(&two),
        "one",
        false,
        &gd(json!({"items": [{"k": "a", "v": 1}]})),
    )
    .unwrap();
    assert_eq!(
        less["spec"],
        json!({"items": [{"k": "a", "v": 1}, {"k": "c"}], "tags": ["y"]})
    );
    let clash = apply(
        &schema,
        Some(&less),
        "two",
        false,
        &gd(json!({"items": [{"k": "a", "v": 2}]})),
    )
    .unwrap_err();
    assert_eq!(
        clash.to_string(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.items[k=\"a\"].v"
    );
}

#[test]
fn a_creator_owns_what_it_sent() {
    let new = json!({"apiVersion": "x.io/v1", "kind": "Gadget", "metadata": {"name": "g", "uid": "u"},
        "spec": {"name": "abc", "free": {"any": {"thing": 1}}, "items": [{"k": "a", "v": 1}], "m": {"x": 1}},
        "status": {"ready": 5}});
    assert_eq!(
        owned(&put(&gadget(), None, new, "replay", 1), "replay"),
        json!({"f:spec": {".": {}, "f:free": {".": {}, "f:any": {".": {}, "f:thing": {}}},
            "f:items": {".": {}, "k:{\"k\":\"a\"}": {".": {}, "f:k": {}, "f:v": {}}},
            "f:m": {".": {}, "f:x": {}}, "f:name": {}}})
    );
    // Go's zero Deployment has spec, strategy, template and containers, so no one owns those as such.
    let new = da(json!({"selector": {"matchLabels": {"a": "b"}}, "replicas": 1,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"securityContext": {}, "containers": [
            {"name": "c", "resources": {}, "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}}));
    assert_eq!(
        owned(&put(deployment(), None, new, "replay", 1), "replay"),
        json!({"f:spec": {"f:replicas": {}, "f:selector": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
            "f:template": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:securityContext": {},
                "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:resources": {}, "f:ports": {
                    ".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}":
                        {".": {}, "f:containerPort": {}, "f:protocol": {}}}}}}}}})
    );
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
        "rules": [{"verbs": ["get"]}]});
    let role = put(builtin("io.k8s.api.rbac.v1.Role"), None, role, "replay", 1);
    assert_eq!(owned(&role, "replay"), json!({"f:rules": {}}));
}

#[test]
fn the_first_apply_keeps_what_was_there() {
    let mut live = cm(json!({"a": "1", "b": "1"}));
    live["metadata"]["uid"] = json!("u");
    let refused = apply_cm(Some(&live), "one", false, json!({"a": "2"})).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
    let applied = apply_cm(Some(&live), "one", true, json!({"a": "2"})).unwrap();
    assert_eq!(
        owned(&applied, "before-first-apply"),
        json!({"f:data": {".": {}, "f:b": {}}})
    );
}

#[test]
fn what_changes_nothing_changes_no_time() {
    let live = apply_cm(None, "one", false, json!({"a": "1"})).unwrap();
    let applier = Applier {
        schema: config_map(),
        api_version: "v1",
        kind: "ConfigMap",
        manager: "one",
        subresource: "",
        force: false,
        now: at(999),
        reset_fields: &FieldSet::EMPTY,
    };
    assert_eq!(applier.apply(Some(&live), &cm(json!({"a": "1"}))).unwrap(), live);
    assert_eq!(put(config_map(), Some(&live), live.clone(), "other", 999), live);
    // A removal changes no time of the remover, a change does.
    let mut new = live.clone();
    new["data"] = json!({"a": "2"});
    let mut changed = put(config_map(), Some(&live), new.clone(), "putter", 500);
    assert_eq!(
        changed["metadata"]["managedFields"][0]["time"],
        "1970-01-01T00:08:20Z"
    );
    let before = changed.clone();
    changed["metadata"]["managedFields"][0]["time"] = json!("1970-01-01T09:00:00Z");
    changed["metadata"]["resourceVersion"] = json!("8");
    keep_times(&before, &mut changed);
    assert_eq!(
        changed["metadata"]["managedFields"],
        before["metadata"]["managedFields"]
    );
    changed["metadata"]["managedFields"][0]["time"] = json!("1970-01-01T09:00:00Z");
    changed["data"]["x"] = json!("y");
    keep_times(&before, &mut changed);
    assert_ne!(
        changed["metadata"]["managedFields"],
        before["metadata"]["managedFields"]
    );
}

#[test]
fn requests_may_clear_or_set_managed_fields() {
    let live = apply_cm(None, "one", false, json!({"a": "1"})).unwrap();
    for cleared in [json!([]), json!([{}]), json!([{"manager": ""}])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = cleared;
        let new = put(config_map(), Some(&live), new, "x", 5);
        assert!(new["metadata"].get("managedFields").is_none());
        // Not tracked until the next apply.
        let mut more = new.clone();
        more["data"]["z"] = json!("1");
        assert!(
            put(config_map(), Some(&new), more, "x", 6)["metadata"]
                .get("managedFields")
                .is_none()
        );
    }
    for ignored in [
        Value::Null,
        json!("x"),
        json!([{"manager": "x"}]),
        json!([{"operation": "Frob"}, {}]),
    ] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = ignored;
        assert_eq!(put(config_map(), Some(&live), new, "x", 5), live);
    }
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["manager"] = json!("renamed");
    assert_eq!(
        owned(&put(config_map(), Some(&live), new.clone(), "x", 5), "renamed"),
        owned(&live, "one")
    );
    // On a subresource the live entries count.
    update(
        config_map(),
        Some(&live),
        &mut new,
        "x",
        "v1",
        "status",
        &FieldSet::EMPTY,
        at(5),
    );
    assert_eq!(new, live);
}

#[test]
fn at_most_ten_updaters() {
    let mut live = put(config_map(), None, cm(json!({"k0": "v"})), "m0", 0);
    for i in 1..13 {
        let mut new = live.clone();
        new["data"][format!("k{i}")] = json!("v");
        live = put(config_map(), Some(&live), new, &format!("m{i}"), i);
    }
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    assert_eq!(
        owned(&live, "ancient-changes"),
        json!({"f:data": {".": {}, "f:k0": {}, "f:k1": {}, "f:k2": {}, "f:k3": {}}})
    );
    assert_eq!(entries[0]["time"], "1970-01-01T00:00:03Z");
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let mut live = cm(json!({"a": "1", "b": "1"}));
    live["metadata"]["annotations"] = json!({
        "kubectl.kubernetes.io/last-applied-configuration":
            "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"ap\"},\"data\":{\"a\":\"1\"}}\n"});
    let live = put(config_map(), None, live, "kubectl-client-side-apply", 1);
    assert_eq!(
        apply_cm(Some(&live), "other", false, json!({"a": "2"}))
            .unwrap_err()
            .code(),
        409
    );
    let merged = apply_cm(Some(&live), "kubectl", false, json!({"a": "2"})).unwrap();
    assert_eq!(merged["data"], json!({"a": "2", "b": "1"}));
    let note = merged["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
        .as_str()
        .unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(note).unwrap()["data"],
        json!({"a": "2"})
    );
    let refused = apply_cm(Some(&live), "kubectl", false, json!({"b": "2"})).unwrap_err();
    assert!(refused.to_string().contains(": .data.b"), "{refused}");
}

#[test]
fn ownership_follows_a_schema_that_became_atomic() {
    let schema = gadget();
    let mut live = gd(json!({"whole": {"p": "q"}}));
    live["metadata"]["managedFields"] = json!([{"manager": "old", "operation": "Update", "apiVersion": "x.io/v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:whole": {".": {}, "f:p": {}}}}}]);
    let merged = apply(&schema, Some(&live), "new", false, &gd(json!({"size": 1}))).unwrap();
    assert_eq!(owned(&merged, "old"), json!({"f:spec": {"f:whole": {}}}));
}
