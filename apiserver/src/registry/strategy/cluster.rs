//! Namespaces, Nodes, volumes, Events, Leases, quotas and endpoints: defaults and rules of the core's other kinds.

use super::json::{at, copy, default, each, items, made, same, text};
use super::pod_rules::not_negative;
use super::{events, nodes, scopes, storage, volume_defaults};
use crate::controllers::protection;
use crate::error::FieldError;
use crate::object;
use crate::registry::names;
use serde_json::{Value, json};

/// Label every namespace carries its own name under.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
const NODE_INFO: [&str; 10] = [
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
];
const NOT_READY: &str = "node.kubernetes.io/not-ready";

fn add_finalizer(object: &mut Value, name: &str) {
    if object::finalizers(object).any(|f| f == name) {
        return;
    }
    let list = object::metadata_mut(object)
        .entry("finalizers")
        .or_insert_with(|| json!([]));
    if let Value::Array(list) = list {
        list.push(name.into());
    }
}

/// Defaults by plural.
pub(super) fn defaults(plural: &str, object: &mut Value) {
    match plural {
        "namespaces" => {
            let name = object::name(object).to_owned();
            if !name.is_empty() {
                object::child_mut(object, "metadata")
                    .entry("labels")
                    .or_insert_with(|| json!({}));
                if let Some(labels) = at(object, "metadata").and_then(|m| made(m, "labels")) {
                    labels[NAMESPACE_NAME] = name.into();
                }
            }
        }
        "nodes" => default_node(object),
        "persistentvolumeclaims" => {
            if let Some(spec) = at(object, "spec") {
                default(spec, "volumeMode", "Filesystem");
            }
            if let Some(status) = made(object, "status") {
                default(status, "phase", "Pending");
            }
        }
        "persistentvolumes" => {
            if let Some(spec) = at(object, "spec") {
                default(spec, "persistentVolumeReclaimPolicy", "Retain");
                default(spec, "volumeMode", "Filesystem");
                volume_defaults::fill(spec);
            }
            if let Some(status) = made(object, "status") {
                default(status, "phase", "Pending");
            }
        }
        "endpoints" => {
            for subset in each(object, "subsets") {
                for port in each(subset, "ports") {
                    default(port, "protocol", "TCP");
                }
            }
        }
        "events" if text(object, "apiVersion") == "v1" => {
            default(object, "source", json!({}));
            default(object, "reportingComponent", "");
            default(object, "reportingInstance", "");
            for key in ["eventTime", "firstTimestamp", "lastTimestamp"] {
                default(object, key, Value::Null);
            }
        }
        "events" => {
            default(object, "deprecatedSource", json!({}));
            default(object, "regarding", json!({}));
            for key in ["eventTime", "deprecatedFirstTimestamp", "deprecatedLastTimestamp"] {
                default(object, key, Value::Null);
            }
        }
        "limitranges" => {
            if let Some(spec) = at(object, "spec") {
                for limit in each(spec, "limits") {
                    default_limit(limit);
                }
            }
        }
        _ => {}
    }
}

/// Of a container's limits, what is left out follows from what is said.
fn default_limit(limit: &mut Value) {
    if text(limit, "type") != "Container" {
        return;
    }
    for (from, to) in [
        ("max", "default"),
        ("default", "defaultRequest"),
        ("min", "defaultRequest"),
    ] {
        if let Value::Object(amounts) = limit[from].clone()
            && let Some(target) = made(limit, to)
        {
            for (name, amount) in amounts {
                default(target, &name, amount);
            }
        }
    }
}

fn default_node(node: &mut Value) {
    made(node, "spec");
    if let Some(spec) = at(node, "spec") {
        // The older field is the first of the newer, and wins.
        let (range, first) = (spec["podCIDR"].clone(), spec["podCIDRs"][0].clone());
        if text(spec, "podCIDR").is_empty() {
            if first.is_string() {
                spec["podCIDR"] = first;
            }
        } else if range != first {
            spec["podCIDRs"] = json!([range]);
        }
    }
    let Some(status) = made(node, "status") else {
        return;
    };
    let capacity = status["capacity"].clone();
    if capacity.is_object() && status["allocatable"].is_null() {
        status["allocatable"] = capacity;
    }
    if let Some(endpoint) = made(status, "daemonEndpoints").and_then(|d| made(d, "kubeletEndpoint")) {
        default(endpoint, "Port", 0);
    }
    if let Some(info) = made(status, "nodeInfo") {
        for key in NODE_INFO {
            default(info, key, "");
        }
    }
}

/// What a new object gets beyond defaults.
pub(super) fn prepare_create(plural: &str, object: &mut Value) {
    match plural {
        "namespaces" => {
            defaults(plural, object);
            if let Some(spec) = made(object, "spec") {
                default(spec, "finalizers", json!([]));
                if let Some(list) = spec["finalizers"].as_array_mut()
                    && !list.iter().any(|f| f == "kubernetes")
                {
                    list.push("kubernetes".into());
                }
            }
            object["status"] = json!({ "phase": "Active" });
        }
        "nodes" => {
            if let Some(spec) = made(object, "spec") {
                default(spec, "taints", json!([]));
                if let Some(list) = spec["taints"].as_array_mut()
                    && !list
                        .iter()
                        .any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule")
                {
                    list.push(json!({ "key": NOT_READY, "effect": "NoSchedule" }));
                }
            }
        }
        "persistentvolumeclaims" => {
            storage::data_sources(object, &Value::Null);
            add_finalizer(object, protection::CLAIM);
            object["status"] = json!({ "phase": "Pending" });
        }
        "persistentvolumes" => {
            add_finalizer(object, protection::VOLUME);
            object["status"] = json!({ "phase": "Pending" });
        }
        _ => {}
    }
}

/// What a changed namespace takes over: finalizers are written through `finalize` only.
pub(super) fn prepare_namespace_update(subresource: &str, new: &mut Value, old: &Value) {
    if subresource == "finalize" {
        copy(old, new, "status");
    } else {
        copy(old, new, "spec");
    }
}

/// What is wrong with an object of these kinds. `modern` tells events.k8s.io from core Events.
pub(super) fn validate(plural: &str, modern: bool, object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    match plural {
        "namespaces" => {
            for (i, name) in items(spec, "finalizers").enumerate() {
                let field = format!("spec.finalizers[{i}]");
                let text = name.as_str().unwrap_or_default();
                for message in names::qualified_name(text) {
                    errors.push(FieldError::invalid(&field, name, &message));
                }
                if !text.contains('/') && !matches!(text, "kubernetes" | "orphan" | "foregroundDeletion") {
                    let message = "name is neither a standard finalizer name nor is it fully qualified";
                    errors.push(FieldError::invalid(&field, name, message));
                }
            }
        }
        "nodes" => {
            errors = nodes::validate(object);
        }
        "leases" => {
            if spec["leaseDurationSeconds"].as_i64().is_some_and(|s| s <= 0) {
                let message = "must be greater than 0";
                errors.push(FieldError::invalid(
                    "spec.leaseDurationSeconds",
                    &spec["leaseDurationSeconds"],
                    message,
                ));
            }
            not_negative(&mut errors, "spec.leaseTransitions", &spec["leaseTransitions"]);
        }
        "events" => errors = events::validate(object, modern),
        _ => {}
    }
    errors
}

/// What of an object of these kinds may not change.
pub(super) fn validate_update(plural: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let (spec, was) = (&new["spec"], &old["spec"]);
    match plural {
        "resourcequotas" => scopes::validate_update(new, old),
        "nodes" => ["podCIDR", "providerID"]
            .into_iter()
            .filter(|key| {
                let list = if *key == "podCIDR" { "podCIDRs" } else { key };
                !text(was, key).is_empty() && !same(&spec[list], &was[list])
            })
            .map(|key| {
                let field = if key == "podCIDR" { "podCIDRs" } else { key };
                FieldError::forbidden(
                    format!("spec.{field}"),
                    &format!("node updates may not change {key} except from \"\" to valid"),
                )
            })
            .collect(),
        "endpointslices" if !same(&new["addressType"], &old["addressType"]) => {
            vec![FieldError::invalid(
                "addressType",
                &new["addressType"],
                "field is immutable",
            )]
        }
        "controllerrevisions" if !same(&new["data"], &old["data"]) => {
            vec![FieldError::invalid("data", &new["data"], "field is immutable")]
        }
        _ => Vec::new(),
    }
}

/// Whether a namespace's phase is that of its `deletionTimestamp`.
pub(super) fn validate_phase(namespace: &Value) -> Vec<FieldError> {
    let phase = &namespace["status"]["phase"];
    let deleting = !namespace["metadata"]["deletionTimestamp"].is_null();
    let problem = match (deleting, phase.as_str()) {
        (false, Some("Active") | None) | (true, Some("Terminating")) => return Vec::new(),
        (false, _) => "may only be 'Active' if `deletionTimestamp` is empty",
        (true, _) => "may only be 'Terminating' if `deletionTimestamp` is not empty",
    };
    vec![FieldError::invalid("status.Phase", phase, problem)]
}
