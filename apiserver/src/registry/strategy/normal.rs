//! The form built-in objects take after Go's typed decoder and encoder: nulls and empty optional maps and lists vanish.

use super::json::{default, each};
use super::quantity;
use crate::schema::{Schema, Type};
use serde_json::Value;

/// Removes nulls, and empty maps and lists of optional fields, wherever the schema knows the field.
pub(super) fn drop_empty(schema: &Schema, object: &mut Value) {
    match object {
        Value::Object(map) => {
            let is_map = schema.properties.is_empty();
            map.retain(|key, value| {
                if value.is_null() {
                    // In a map, null is Go's zero value of the element; in a struct the field is absent.
                    return is_map && schema.additional.is_none();
                }
                let child = schema.property(key).or_else(|| schema.additional());
                let Some(child) = child else { return true };
                drop_empty(child, value);
                if is_map || schema.required.iter().any(|r| **r == **key) {
                    return true;
                }
                match value {
                    Value::Array(list) => !list.is_empty(),
                    Value::Object(fields) if fields.is_empty() => !is_plain_map(child),
                    _ => true,
                }
            });
        }
        Value::Array(list) => {
            if let Some(items) = schema.items() {
                for item in list {
                    drop_empty(items, item);
                }
            }
        }
        _ => {}
    }
}

/// Writes every quantity the way kube-apiserver does: no fraction, the largest suffix of its family.
pub(super) fn quantities(schema: &Schema, object: &mut Value) {
    match object {
        Value::Object(map) => {
            for (key, value) in map {
                let Some(child) = schema.property(key).or_else(|| schema.additional()) else {
                    continue;
                };
                if child.kind == Type::Quantity {
                    let text = match &*value {
                        Value::String(text) => text.clone(),
                        Value::Number(number) => number.to_string(),
                        _ => continue,
                    };
                    *value = quantity::canonical(&text).unwrap_or(text).into();
                } else {
                    quantities(child, value);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.items() {
                for item in list {
                    quantities(items, item);
                }
            }
        }
        _ => {}
    }
}

/// Fields of conditions in which Go writes a time that is not set as null.
const CONDITION_TIMES: [(&str, &[&str]); 9] = [
    ("deployments", &["lastUpdateTime", "lastTransitionTime"]),
    ("replicasets", &["lastTransitionTime"]),
    ("statefulsets", &["lastTransitionTime"]),
    ("daemonsets", &["lastTransitionTime"]),
    ("replicationcontrollers", &["lastTransitionTime"]),
    ("jobs", &["lastProbeTime", "lastTransitionTime"]),
    ("pods", &["lastProbeTime", "lastTransitionTime"]),
    ("nodes", &["lastHeartbeatTime", "lastTransitionTime"]),
    ("persistentvolumeclaims", &["lastProbeTime", "lastTransitionTime"]),
];

/// Writes the times that conditions of this kind leave out.
pub(super) fn condition_times(plural: &str, object: &mut Value) {
    let Some((_, times)) = CONDITION_TIMES.iter().find(|(of, _)| *of == plural) else {
        return;
    };
    let Some(status) = object.get_mut("status") else {
        return;
    };
    for condition in each(status, "conditions") {
        for time in *times {
            default(condition, time, Value::Null);
        }
    }
}

fn is_plain_map(schema: &Schema) -> bool {
    schema.kind == Type::Object && schema.properties.is_empty() && schema.additional.is_some()
}
