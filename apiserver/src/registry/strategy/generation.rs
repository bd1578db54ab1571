//! Which kinds count `metadata.generation`, and what counts as a new one.

use super::json::same;
use crate::registry::Resource;
use serde_json::{Value, json};

/// Whether the server numbers the wanted states of this built-in kind. Others keep what a client wrote.
pub(super) fn counts(resource: &Resource) -> bool {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("apps", plural) => plural != "controllerrevisions",
        ("", plural) => matches!(plural, "pods" | "replicationcontrollers" | "podtemplates"),
        ("networking.k8s.io", plural) => plural != "ipaddresses",
        ("storage.k8s.io", plural) => plural == "csidrivers",
        ("resource.k8s.io", plural) => matches!(plural, "resourceslices" | "deviceclasses"),
        (
            "batch"
            | "policy"
            | "scheduling.k8s.io"
            | "admissionregistration.k8s.io"
            | "apiextensions.k8s.io"
            | "discovery.k8s.io"
            | "flowcontrol.apiserver.k8s.io",
            _,
        ) => true,
        _ => false,
    }
}

/// Whether a change of the main resource is a new wanted state.
pub(super) fn changed(resource: &Resource, new: &Value, old: &Value) -> bool {
    let group = resource.group.as_str();
    // A Deployment's annotations are read by its controller.
    if resource.plural == "deployments"
        && !same(&new["metadata"]["annotations"], &old["metadata"]["annotations"])
    {
        return true;
    }
    if group == "discovery.k8s.io" && !same(&new["metadata"]["labels"], &old["metadata"]["labels"]) {
        return true;
    }
    if group == "scheduling.k8s.io" {
        return false;
    }
    let keys: std::collections::BTreeSet<&String> = new
        .as_object()
        .into_iter()
        .chain(old.as_object())
        .flat_map(|m| m.keys())
        .collect();
    keys.into_iter()
        .filter(|k| !matches!(k.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
        .any(|k| {
            !same(
                new.get(k).unwrap_or(&json!(null)),
                old.get(k).unwrap_or(&json!(null)),
            )
        })
}
