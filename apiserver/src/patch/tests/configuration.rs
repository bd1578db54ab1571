//! What policies merge into objects.

use super::types::schema;
use crate::patch::configured;
use serde_json::json;

#[test]
fn a_configuration_is_merged_but_replaces_nothing_whole() {
    let schema = schema(&json!({"type": "object", "fields": {
        "spec": {"type": "object", "fields": {
            "replicas": {"type": "integer"},
            "labels": {"type": "object", "map": {"type": "string"}},
            "args": {"type": "array", "items": {"type": "string"}},
            "parts": {"type": "array", "list-type": "map", "list-map-keys": ["name"], "items": {"type": "object", "fields": {
                "name": {"type": "string"}, "image": {"type": "string"},
                "args": {"type": "array", "items": {"type": "string"}},
            }}},
        }},
    }}));
    let object =
        json!({"spec": {"replicas": 1, "labels": {"a": "b"}, "parts": [{"name": "x", "image": "i"}]}});
    let atomic = "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: ";
    let misfit = "failed to convert patch object to typed object: ";
    for (configuration, want) in [
        (json!({}), Ok(object.clone())),
        (
            json!({"spec": {"replicas": 2, "labels": {"c": "d"}, "parts": [{"name": "x", "image": "j"}, {"name": "y"}]}}),
            Ok(
                json!({"spec": {"replicas": 2, "labels": {"a": "b", "c": "d"}, "parts": [{"name": "x", "image": "j"}, {"name": "y"}]}}),
            ),
        ),
        (
            json!({"spec": {"args": ["a"]}}),
            Err(format!("{atomic}.spec.args")),
        ),
        (
            json!({"spec": {"args": [], "parts": [{"name": "x", "args": []}]}}),
            Err(format!("{atomic}.spec.args, .spec.parts[0].args")),
        ),
        (
            json!({"spec": {"frob": 1}}),
            Err(format!("{misfit}.spec.frob: field not declared in schema")),
        ),
        (
            json!({"spec": {"labels": null}}),
            Err(format!("{misfit}.spec.labels: expected map, got &{{NULL_VALUE}}")),
        ),
        (
            json!({"spec": {"replicas": "x"}}),
            Err(format!(
                "{misfit}.spec.replicas: expected numeric (int or float), got string"
            )),
        ),
    ] {
        assert_eq!(
            configured(&schema, &object, &configuration),
            want,
            "{configuration}"
        );
    }
}

#[test]
fn steps_are_taken_one_by_one() {
    let object = json!({"data": {"k": "v"}, "list": [1]});
    let missing = "missing value";
    for (steps, want) in [
        (json!([]), Ok(Some(object.clone()))),
        (
            json!([{"op": "replace", "path": "/data/l", "value": "w"}, {"op": "remove", "path": "/data/k"}]),
            Ok(Some(json!({"data": {"l": "w"}, "list": [1]}))),
        ),
        (json!([{"op": "test", "path": "/data/k", "value": "w"}]), Ok(None)),
        (json!([{"op": "test", "path": "/data/n", "value": "w"}]), Ok(None)),
        (
            json!([{"op": "copy", "from": "/data/n", "path": "/data/z"}]),
            Ok(Some(json!({"data": {"k": "v", "z": null}, "list": [1]}))),
        ),
        (
            json!([{"op": "frob", "path": "/a"}]),
            Err("Unexpected kind: frob".to_owned()),
        ),
        (
            json!([{"op": "remove", "path": "/data/n"}]),
            Err(format!(
                "error in remove for path: '/data/n': Unable to remove nonexistent key: n: {missing}"
            )),
        ),
        (
            json!([{"op": "remove", "path": "/n/x"}]),
            Err(format!(
                "remove operation does not apply: doc is missing path: \"/n/x\": {missing}"
            )),
        ),
        (
            json!([{"op": "add", "path": "/data/x/y", "value": 1}]),
            Err(format!(
                "add operation does not apply: doc is missing path: \"/data/x/y\": {missing}"
            )),
        ),
    ] {
        let operations = steps.as_array().unwrap().clone();
        assert_eq!(crate::patch::steps(&object, operations), want, "{steps}");
    }
}
