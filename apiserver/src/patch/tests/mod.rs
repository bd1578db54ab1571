//! Expected fieldsV1, messages and codes are facts from a kube-apiserver 1.36.

mod configuration;
mod merging;
mod ownership;
mod properties;
mod types;

use crate::schema::Schema;
use jiff::Timestamp;
use serde_json::{Value, json};

/// A custom resource with each way to merge.
fn gadget() -> Schema {
    types::schema(&json!({"type": "object", "fields": {
        "metadata": {"type": "object"},
        "status": {"type": "object", "fields": {"ready": {"type": "integer"}}},
        "spec": {"type": "object", "fields": {
            "name": {"type": "string"},
            "size": {"type": "integer"},
            "free": {"type": "object", "preserve": true},
            "m": {"type": "object", "map": {"type": "integer"}},
            "whole": {"type": "object", "map-type": "atomic", "map": {"type": "string"}},
            "list": {"type": "array", "items": {"type": "string"}},
            "tags": {"type": "array", "list-type": "set", "items": {"type": "string"}},
            "ports": {"type": "array", "list-type": "map", "list-map-keys": ["port", "protocol"], "items": {
                "type": "object", "fields": {"port": {"type": "integer"}, "name": {"type": "string"},
                    "protocol": {"type": "string", "default": "TCP"}}}},
            "items": {"type": "array", "list-type": "map", "list-map-keys": ["k"], "items": {"type": "object",
                "fields": {"k": {"type": "string"}, "v": {"type": "integer", "default": 1}}}},
        }},
    }}))
}

fn builtin(name: &str) -> &'static Schema {
    crate::schema::builtin::named(name).expect(name)
}

fn config_map() -> &'static Schema {
    builtin("io.k8s.api.core.v1.ConfigMap")
}

fn deployment() -> &'static Schema {
    builtin("io.k8s.api.apps.v1.Deployment")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// The fieldsV1 of a manager's entry, null when there is none.
fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array();
    let entry = entries.into_iter().flatten().find(|e| e["manager"] == manager);
    entry.map_or(Value::Null, |e| e["fieldsV1"].clone())
}
