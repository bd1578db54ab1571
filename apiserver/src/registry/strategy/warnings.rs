//! Warnings kube-apiserver sends with objects that are fine and still not what one should write.

use super::json::{items, text};
use crate::object;
use crate::registry::Resource;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Sources of volumes that no longer work: as Kubernetes shows them, and since when.
const GONE: [(&str, &str, &str); 9] = [
    (
        "gitRepo",
        "gitRepo",
        "deprecated in v1.11, and disabled by default in v1.33+",
    ),
    (
        "photonPersistentDisk",
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    (
        "scaleIO",
        "scaleIO",
        "deprecated in v1.16, non-functional in v1.22+",
    ),
    (
        "flocker",
        "flocker",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "storageos",
        "storageOS",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "quobyte",
        "quobyte",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "glusterfs",
        "glusterfs",
        "deprecated in v1.25, non-functional in v1.26+",
    ),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    (
        "cephfs",
        "cephfs",
        "deprecated in v1.28, non-functional in v1.31+",
    ),
];

fn volume(volume: &Value, at: &str, of_pod: bool, out: &mut Vec<String>) {
    for (key, shown, since) in GONE {
        if !volume[key].is_null() && (of_pod || !matches!(key, "flocker" | "quobyte")) {
            out.push(format!("{at}.{shown}: {since}"));
        }
    }
}

fn service(spec: &Value, out: &mut Vec<String>) {
    if items(spec, "externalIPs").next().is_some() {
        let why = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
        out.push(why.to_owned());
    }
    if text(spec, "trafficDistribution") == "PreferClose" {
        let why = "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
        out.push(why.to_owned());
    }
}

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
            out.push(format!(
                "metadata.finalizers[{i}]: {name:?}: prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"
            ));
        }
    }
    if resource.is_custom() {
        return out;
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "services") => service(&value["spec"], &mut out),
        ("", "persistentvolumes") => volume(&value["spec"], "spec", false, &mut out),
        _ => {}
    }
    let (spec, at) = match resource.plural.as_str() {
        "pods" => (&value["spec"], "spec"),
        "deployments" | "replicasets" | "statefulsets" | "daemonsets" | "jobs" => {
            (&value["spec"]["template"]["spec"], "spec.template.spec")
        }
        _ => return out,
    };
    if spec["terminationGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|s| s < 0)
    {
        out.push(format!(
            "{at}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    for (i, one) in items(spec, "volumes").enumerate() {
        volume(one, &format!("{at}.volumes[{i}]"), true, &mut out);
    }
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
