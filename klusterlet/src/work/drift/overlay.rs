//! A manifest laid over a live object, and fields of others taken back out of it.

use super::FIELD_MANAGER;
use crate::work::quantity;
use serde_json::{Map, Value};

/// Managers whose writes belong to how Kubernetes itself runs an object: never drift.
const CONTROL_PLANE: [&str; 5] = [
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-apiserver",
    "muster-apiserver",
];

/// Whether the live object already has everything the manifest says.
pub fn covers(live: &Value, required: &Value) -> bool {
    covers_but_empties(live, required)
        && (!keeps_empties(required) || exactly(&overlaid(live, required), live))
}

/// The same, where empty maps and lists count for nothing.
pub fn covers_but_empties(live: &Value, required: &Value) -> bool {
    let labels_covered = |field: &str| {
        let wanted = required["metadata"][field].as_object();
        wanted
            .into_iter()
            .flatten()
            .all(|(k, v)| live["metadata"][field].get(k) == Some(v))
    };
    labels_covered("labels") && labels_covered("annotations") && same(&overlaid(live, required), live)
}

/// The live object with every field of the manifest as the manifest has it; what the manifest leaves open stays.
pub fn overlaid(live: &Value, required: &Value) -> Value {
    overlay(live, required, false, keeps_empties(required))
}

/// Groups of Kubernetes' own kinds.
const BUILT_IN: [&str; 23] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// Whether an empty map or list of an object is kept by the server and may mean something (`selfSigned: {}`): so it is with
/// custom resources, while Kubernetes' own types drop most of them.
pub fn keeps_empties(object: &Value) -> bool {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    !BUILT_IN.contains(&group)
}

/// Equal with empty maps and lists, but for what only servers write and what is decided apart.
pub fn exactly(a: &Value, b: &Value) -> bool {
    let fields = |object: &Value| -> Value {
        let mut object = object.clone();
        if let Value::Object(fields) = &mut object {
            fields.retain(|field, _| field != "metadata" && field != "status");
        }
        object
    };
    equal(&fields(a), &fields(b))
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k)));
            let null = &Value::Null;
            keys.all(|key| equal(a.get(key).unwrap_or(null), b.get(key).unwrap_or(null)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(x, y)| equal(x, y)),
        (a, b) => a == b,
    }
}

/// `quantities` says that the values are resource quantities, which servers rewrite in their own form; `empties`, that empty
/// maps and lists count.
fn overlay(live: &Value, required: &Value, quantities: bool, empties: bool) -> Value {
    match (live, required) {
        (Value::Object(live), Value::Object(required)) => {
            let mut out = live.clone();
            let top = required.contains_key("kind") && required.contains_key("apiVersion");
            for (key, value) in required {
                if top && matches!(key.as_str(), "metadata" | "status") {
                    continue;
                }
                let merged = match live.get(key) {
                    Some(old) => overlay(old, value, quantities || holds_quantities(key), empties),
                    None if value.is_null() || (!empties && is_empty(value)) => continue,
                    None => value.clone(),
                };
                out.insert(key.clone(), merged);
            }
            Value::Object(out)
        }
        // Lists are the manifest's. Where the items are the same ones, the server's defaults inside them stay.
        (Value::Array(live), Value::Array(required)) if live.len() == required.len() => Value::Array(
            live.iter()
                .zip(required)
                .map(|(l, r)| overlaid_item(l, r, empties))
                .collect(),
        ),
        (live, Value::Null) => live.clone(),
        (live, required) if quantities && quantities_equal(live, required) => live.clone(),
        (_, required) => required.clone(),
    }
}

fn overlaid_item(live: &Value, required: &Value, empties: bool) -> Value {
    let same_name = [
        "name",
        "key",
        "port",
        "containerPort",
        "mountPath",
        "uid",
        "ip",
        "type",
    ]
    .iter()
    .all(|k| required.get(k).is_none() || live.get(k) == required.get(k));
    if same_name {
        overlay(live, required, false, empties)
    } else {
        required.clone()
    }
}

/// Fields of the built-in types that hold quantities.
fn holds_quantities(field: &str) -> bool {
    let fields = [
        "limits",
        "requests",
        "capacity",
        "allocatable",
        "hard",
        "min",
        "max",
        "default",
    ];
    fields.contains(&field)
        || matches!(
            field,
            "defaultRequest" | "maxLimitRequestRatio" | "sizeLimit" | "divisor" | "averageValue"
        )
        || matches!(field, "podFixed" | "overhead")
}

/// An absent map or list and an empty one are the same to every type of Kubernetes' own.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// `cpu: 1` and `cpu: "1"`, `1000m` and `1`.
fn quantities_equal(a: &Value, b: &Value) -> bool {
    let number = |v: &Value| match v {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => quantity::parse(s),
        _ => None,
    };
    matches!((number(a), number(b)), (Some(x), Some(y)) if (x - y).abs() <= f64::EPSILON * x.abs())
}

/// Whether an entry of managedFields is neither ours nor the control plane's.
pub fn is_foreign(entry: &Value) -> bool {
    let manager = entry["manager"].as_str().unwrap_or_default();
    let status = entry["subresource"].as_str() == Some("status");
    !status && manager != FIELD_MANAGER && manager != "work" && !CONTROL_PLANE.contains(&manager)
}

/// Removes from `target` the fields that `fields` (fieldsV1 of another manager) names and the manifest does not have. True:
/// the other manager also wrote a list or map that is one value to the server, and has more in it than the manifest says.
/// That may be a default of the server's or the other's doing, which `managedFields` does not tell; it is as the manifest
/// says then.
pub fn take_back(target: &mut Value, required: Option<&Value>, fields: &Value, top: bool) -> bool {
    let mut doubt = false;
    let Some(fields) = fields.as_object() else {
        return doubt;
    };
    for (selector, inner) in fields {
        let leaf = inner.as_object().is_none_or(|m| m.keys().all(|k| k == "."));
        if let Some(name) = selector.strip_prefix("f:") {
            if top && matches!(name, "metadata" | "status" | "apiVersion" | "kind") {
                continue;
            }
            let wanted = required.and_then(|r| r.get(name));
            let Value::Object(map) = target else { return doubt };
            match (wanted, map.get_mut(name)) {
                (None, Some(_)) if leaf => {
                    map.remove(name);
                }
                (Some(wanted), Some(child @ (Value::Array(_) | Value::Object(_))))
                    if inner.as_object().is_none_or(Map::is_empty)
                        && !is_empty(wanted)
                        && child != wanted =>
                {
                    *child = wanted.clone();
                    doubt = true;
                }
                (wanted, Some(child)) if !leaf => {
                    doubt |= take_back(child, wanted, inner, false);
                    if wanted.is_none() && is_empty(child) {
                        map.remove(name);
                    }
                }
                _ => {}
            }
        } else if let Some(keys) = selector.strip_prefix("k:") {
            let (Ok(keys), Value::Array(items)) =
                (serde_json::from_str::<Map<String, Value>>(keys), &mut *target)
            else {
                continue;
            };
            let matches = |item: &Value| keys.iter().all(|(k, v)| item.get(k) == Some(v));
            // The manifest may leave out a key that has a default (`protocol: TCP`).
            let wants = |item: &Value| keys.iter().all(|(k, v)| item.get(k).is_none_or(|have| have == v));
            let wanted = required
                .and_then(Value::as_array)
                .and_then(|r| r.iter().find(|i| wants(i)));
            if let Some(at) = items.iter().position(matches) {
                match wanted {
                    Some(wanted) => doubt |= take_back(&mut items[at], Some(wanted), inner, false),
                    None if inner.get(".").is_some() => {
                        items.remove(at);
                    }
                    None => doubt |= take_back(&mut items[at], None, inner, false),
                }
            }
        }
    }
    doubt
}

/// Equal to the letter, but for what the server keeps of its own. In a list that is one value to the server, an empty
/// selector means other than none.
pub fn identical(a: &Value, b: &Value) -> bool {
    let plain = |object: &Value| {
        let mut object = object.clone();
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            for field in ["managedFields", "resourceVersion", "generation"] {
                metadata.remove(field);
            }
        }
        object
    };
    plain(a) == plain(b)
}

/// Equal but for `managedFields`, and for empty maps and lists, which servers drop.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k)));
            keys.filter(|k| *k != "managedFields")
                .all(|key| match (a.get(key), b.get(key)) {
                    (Some(x), Some(y)) => same(x, y),
                    (Some(x), None) | (None, Some(x)) => is_empty(x),
                    (None, None) => true,
                })
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(x, y)| same(x, y)),
        (a, b) => a == b,
    }
}
