//! Warnings kube-apiserver sends with objects that are fine and still not what one should write.

use super::json::{items, text};
use super::pod_warnings;
use crate::object;
use crate::registry::{Resource, names};
use crate::schema::formats;
use serde_json::Value;
use std::collections::BTreeSet;

const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";
const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

/// Warnings for an object of this resource; `old` is what it was before.
pub(super) fn of(resource: &Resource, value: &Value, old: Option<&Value>) -> Vec<String> {
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
            // Which of them it is is only told of built-in kinds.
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
    if !resource.is_custom() {
        out.extend(of_builtin(resource, value, old));
    }
    out
}

fn of_builtin(resource: &Resource, value: &Value, old: Option<&Value>) -> Vec<String> {
    let annotations = &value["metadata"]["annotations"];
    let spec = &value["spec"];
    let mut out = Vec::new();
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => {
            if old.is_none() {
                pod_warnings::app_armor(value, &mut out);
                hostname(value, "the Pod's hostname", &mut out);
            }
            out.extend(pod_warnings::of(value, ""));
        }
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs")
        | ("", "replicationcontrollers") => {
            if old.is_none() {
                hostname(value, "Pod names and hostnames", &mut out);
            }
            many_indexes(spec, &mut out);
            if is_another(value, old) {
                out.extend(pod_warnings::of(&spec["template"], "spec.template"));
            }
        }
        ("batch", "cronjobs") if is_another(value, old) => {
            let template = &spec["jobTemplate"]["spec"]["template"];
            out.extend(pod_warnings::of(template, "spec.jobTemplate.spec.template"));
        }
        ("", "podtemplates") => out.extend(pod_warnings::of(&value["template"], "template")),
        ("networking.k8s.io", "ingresses")
            if old.is_none()
                && !annotations[INGRESS_CLASS].is_null()
                && spec["ingressClassName"].is_null() =>
        {
            out.push(format!(
                "annotation {INGRESS_CLASS:?} is deprecated, please use 'spec.ingressClassName' instead"
            ));
        }
        ("", "persistentvolumeclaims") => {
            old_class(annotations, &mut out);
            let requests = &spec["resources"]["requests"];
            pod_warnings::fraction(requests, "storage", "spec.resources.requests", &mut out);
        }
        ("", "persistentvolumes") => {
            old_class(annotations, &mut out);
            pod_warnings::sources(spec, "spec", &mut out);
        }
        ("storage.k8s.io", "storageclasses") => {
            for (i, topology) in items(value, "allowedTopologies").enumerate() {
                for (j, expression) in items(topology, "matchLabelExpressions").enumerate() {
                    if let Some(why) = pod_warnings::node_label(text(expression, "key")) {
                        out.push(format!(
                            "allowedTopologies[{i}].matchLabelExpressions[{j}].key: {why}"
                        ));
                    }
                }
            }
        }
        ("storage.k8s.io", "csidrivers") => {
            let tokens = items(spec, "tokenRequests").next().is_some();
            if tokens && spec["serviceAccountTokenInSecrets"].is_null() {
                out.push(
                    "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"
                        .to_owned(),
                );
            }
        }
        ("", "serviceaccounts") => {
            let was = old.is_some_and(|old| !old["metadata"]["annotations"][MOUNTABLE].is_null());
            if !annotations[MOUNTABLE].is_null() && !was {
                out.push(format!(
                    "metadata.annotations[{MOUNTABLE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
                ));
            }
        }
        ("", "services") => {
            if items(spec, "externalIPs").next().is_some() {
                out.push(
                    "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
                        .to_owned(),
                );
            }
            if text(spec, "trafficDistribution") == "PreferClose" {
                out.push(
                    "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""
                        .to_owned(),
                );
            }
        }
        ("discovery.k8s.io", "endpointslices") if text(value, "addressType") == "FQDN" => {
            out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        ("apiextensions.k8s.io", _) => {
            for version in items(spec, "versions") {
                let mut unknown = BTreeSet::new();
                unknown_formats(&version["schema"]["openAPIV3Schema"], &mut unknown);
                let told = unknown.iter().map(|f| format!("unrecognized format {f:?}"));
                out.extend(told);
            }
        }
        _ => {}
    }
    out
}

/// Whether the spec is new: what is as it was has been told.
fn is_another(value: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| old["spec"] != value["spec"])
}

fn hostname(value: &Value, what: &str, out: &mut Vec<String>) {
    let name = object::name(value);
    let why = if name.contains('.') {
        vec!["must not contain dots".to_owned()]
    } else {
        names::dns_label(name)
    };
    if !why.is_empty() {
        out.push(format!(
            "metadata.name: this is used in {what}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            why.join(" ")
        ));
    }
}

/// A Job of so many pods at once that its account of them may grow too long.
fn many_indexes(spec: &Value, out: &mut Vec<String>) {
    let number = |field: &str| spec[field].as_i64().unwrap_or(0);
    if text(spec, "completionMode") == "Indexed"
        && number("completions") > 100_000
        && number("parallelism") > 10_000
    {
        out.push(
            "spec: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
                .to_owned(),
        );
    }
}

fn old_class(annotations: &Value, out: &mut Vec<String>) {
    if !annotations[OLD_CLASS].is_null() {
        out.push(format!(
            "metadata.annotations[{OLD_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
}

/// Formats in a schema that nobody checks.
fn unknown_formats<'a>(schema: &'a Value, found: &mut BTreeSet<&'a str>) {
    match schema {
        Value::Object(fields) => {
            let format = text(schema, "format");
            if !format.is_empty() && !formats::is_known(text(schema, "type"), format) {
                found.insert(format);
            }
            for (key, below) in fields {
                match (key.as_str(), below) {
                    ("properties" | "patternProperties", Value::Object(all)) => {
                        all.values().for_each(|s| unknown_formats(s, found));
                    }
                    ("items" | "additionalProperties" | "not" | "allOf" | "anyOf" | "oneOf", below) => {
                        unknown_formats(below, found);
                    }
                    _ => {}
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|s| unknown_formats(s, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use serde_json::json;

    #[test]
    fn what_one_should_not_write() {
        let registry = Registry::new();
        let pod_spec = json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "containers": [
            {"name": "c", "env": [{"name": "A"}, {"name": "A"}], "ports": [{"containerPort": 1}, {"containerPort": 1}],
             "resources": {"limits": {"memory": "1500m"}}}]});
        let annotated = |key: &str, spec: Value| json!({"metadata": {"name": "a", "annotations": {key: "true"}}, "spec": spec});
        for (group, version, plural, object, want) in [
            (
                "",
                "v1",
                "pods",
                json!({"metadata": {"name": "a.b"}, "spec": pod_spec}),
                vec![
                    "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
                    "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                    "spec.containers[0].resources.limits[memory]: fractional byte value \"1500m\" is invalid, must be an integer",
                    "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                    "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
                ],
            ),
            (
                "apps",
                "v1",
                "deployments",
                json!({"metadata": {"name": "a"}, "spec": {"template": {
                    "metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "x"}},
                    "spec": {"containers": [{"name": "c"}], "topologySpreadConstraints": [{"topologyKey": "z"}],
                        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}}}}}),
                vec![
                    "spec.template.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                    "spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the \"appArmorProfile\" field instead",
                    "spec.template.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector results in matching no pod",
                ],
            ),
            (
                "networking.k8s.io",
                "v1",
                "ingresses",
                annotated(INGRESS_CLASS, json!({})),
                vec![
                    "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead",
                ],
            ),
            (
                "",
                "v1",
                "persistentvolumeclaims",
                annotated(OLD_CLASS, json!({"resources": {"requests": {"storage": "100m"}}})),
                vec![
                    "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
                    "spec.resources.requests[storage]: fractional byte value \"100m\" is invalid, must be an integer",
                ],
            ),
            (
                "apiextensions.k8s.io",
                "v1",
                "customresourcedefinitions",
                json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {
                    "a": {"type": "string", "format": "foo"}, "b": {"items": {"type": "string", "format": "int32"}},
                    "c": {"type": "integer", "format": "int32"}, "d": {"type": "string", "format": "date-time"},
                    "format": {"type": "string"}}}}}]}}),
                vec!["unrecognized format \"foo\"", "unrecognized format \"int32\""],
            ),
        ] {
            let resource = registry.find(group, version, plural).unwrap();
            assert_eq!(of(&resource, &object, None), want, "{object}");
        }
    }
}
