//! Warnings kube-apiserver sends with objects that are fine and still not what one should write.

use super::json::{items, text};
use crate::object;
use crate::registry::Resource;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Warnings for an object of this resource.
pub(super) fn of(resource: &Resource, value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(custom) = &resource.custom
        && custom.webhook_conversion
    {
        out.push(format!(
            "{}: conversion webhooks are not called; versions differ in apiVersion only",
            custom.crd
        ));
    }
    for (i, name) in object::finalizers(value).enumerate() {
        if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
            let at = if resource.is_custom() {
                String::new()
            } else {
                format!("[{i}]")
            };
            out.push(format!(
                "metadata.finalizers{at}: {name:?}: prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"
            ));
        }
    }
    let (spec, at) = match resource.plural.as_str() {
        "pods" => (&value["spec"], "spec"),
        "deployments" | "replicasets" | "statefulsets" | "daemonsets" | "jobs" => {
            (&value["spec"]["template"]["spec"], "spec.template.spec")
        }
        _ => return out,
    };
    if resource.is_custom() {
        return out;
    }
    annotations(value, at, &mut out);
    for list in ["initContainers", "containers"] {
        for (i, container) in items(spec, list).enumerate() {
            let mut ports: Vec<Value> = Vec::new();
            for (j, port) in items(container, "ports").enumerate() {
                let key = json!([
                    port["containerPort"],
                    port["protocol"],
                    port["hostPort"],
                    port["hostIP"]
                ]);
                if let Some(first) = ports.iter().position(|p| *p == key) {
                    out.push(format!(
                        "{at}.{list}[{i}].ports[{j}]: duplicate port definition with {at}.{list}[{i}].ports[{first}]"
                    ));
                }
                ports.push(key);
            }
            let mut seen = BTreeSet::new();
            for (j, variable) in items(container, "env").enumerate() {
                let name = text(variable, "name");
                if !seen.insert(name) {
                    out.push(format!(
                        "{at}.{list}[{i}].env[{j}]: hides previous definition of {name:?}, which may be dropped when using apply"
                    ));
                }
            }
        }
    }
    out
}

/// Annotations of pods that mean nothing any more.
fn annotations(value: &Value, at: &str, out: &mut Vec<String>) {
    let (pod, place) = if at == "spec" {
        (value, "metadata")
    } else {
        (&value["spec"]["template"], "spec.template.metadata")
    };
    for key in pod["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flat_map(serde_json::Map::keys)
    {
        let why = if key.starts_with("container.apparmor.security.beta.kubernetes.io/") {
            "deprecated since v1.30; use the \"appArmorProfile\" field instead"
        } else if key == "seccomp.security.alpha.kubernetes.io/pod"
            || key.starts_with("container.seccomp.security.alpha.kubernetes.io/")
        {
            "non-functional in v1.27+; use the \"seccompProfile\" field instead"
        } else {
            continue;
        };
        out.push(format!("{place}.annotations[{key}]: {why}"));
    }
}
