//! What may be written of a pod through its subresources: debugging containers, amounts of cpu and memory, its status.

use super::json::{at, copy, items, same, text};
use super::pod::qos_class;
use super::pod_rules::{all, validate_spec};
use crate::error::{FieldError, FieldErrorKind};
use crate::object;
use crate::registry::names;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What of a container a debugging one may not have.
const NOT_FOR_EPHEMERAL: [&str; 7] = [
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
];
const LISTS: [&str; 2] = ["containers", "initContainers"];
/// What of a container's amounts may change while it runs.
const RESIZED: [&str; 2] = ["cpu", "memory"];

/// Takes from the old pod all that is not written through `subresource`.
pub(super) fn prepare(subresource: &str, new: &mut Value, old: &Value) {
    let sent = std::mem::take(&mut new["spec"]);
    let mut spec = old["spec"].clone();
    if subresource == "ephemeralcontainers" {
        copy(&sent, &mut spec, "ephemeralContainers");
    } else {
        for list in LISTS {
            let names =
                |spec: &Value| -> Vec<Value> { items(spec, list).map(|c| c["name"].clone()).collect() };
            if names(&sent) != names(&spec) {
                continue;
            }
            for (i, container) in items(&sent, list).enumerate() {
                for key in ["resources", "resizePolicy"] {
                    copy(container, &mut spec[list][i], key);
                }
            }
        }
    }
    new["spec"] = spec;
    for field in ["labels", "annotations", "ownerReferences", "finalizers"] {
        object::set_meta(new, field, old["metadata"].get(field).cloned());
    }
}

/// The first of a pod's addresses has a field of its own, which wins.
pub(super) fn prepare_status(pod: &mut Value) {
    let Some(status) = at(pod, "status") else { return };
    let first = text(&status["podIPs"][0], "ip").to_owned();
    let own = text(status, "podIP").to_owned();
    if own.is_empty() {
        if !first.is_empty() {
            status["podIP"] = first.into();
        }
    } else if own != first {
        status["podIPs"] = json!([{ "ip": own }]);
    }
}

/// What is wrong with a change through `subresource`.
pub(super) fn validate(subresource: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    match subresource {
        "ephemeralcontainers" => validate_ephemeral(&new["spec"], &old["spec"]),
        "resize" => validate_resize(new, old),
        "status" => validate_status(&new["status"], &old["status"]),
        _ => Vec::new(),
    }
}

fn validate_ephemeral(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let others: BTreeSet<&str> = LISTS
        .iter()
        .flat_map(|list| items(new, list))
        .map(|c| text(c, "name"))
        .collect();
    let mut seen = others.clone();
    for (i, container) in items(new, "ephemeralContainers").enumerate() {
        let at = format!("spec.ephemeralContainers[{i}]");
        let name = text(container, "name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else {
            let field = format!("{at}.name");
            all(&mut errors, &field, &container["name"], names::dns_label(name));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(field, &container["name"]));
            }
        }
        if text(container, "image").is_empty() {
            errors.push(FieldError::required(format!("{at}.image"), ""));
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            errors.push(FieldError::new(
                FieldErrorKind::NotFound,
                format!("{at}.targetContainerName"),
                format!("Not found: {target:?}"),
            ));
        }
        for key in NOT_FOR_EPHEMERAL {
            if !same(&container[key], &Value::Null) {
                let why = "cannot be set for an Ephemeral Container";
                errors.push(FieldError::forbidden(format!("{at}.{key}"), why));
            }
        }
    }
    if !errors.is_empty() {
        return errors;
    }
    for was in items(old, "ephemeralContainers") {
        let name = text(was, "name");
        let now = items(new, "ephemeralContainers").find(|c| text(c, "name") == name);
        let what = match now {
            Some(now) if same(now, was) => continue,
            Some(_) => "changed",
            None => "removed",
        };
        let why = format!("existing ephemeral containers {name:?} may not be {what}\n");
        errors.push(FieldError::forbidden("spec.ephemeralContainers", &why));
    }
    errors
}

/// Amounts may change and nothing else; a pod stays in its class.
fn validate_resize(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate_spec(&new["spec"], "spec");
    if !errors.is_empty() {
        return errors;
    }
    if qos_class(&new["spec"]) != qos_class(&old["spec"]) {
        errors.push(FieldError::invalid(
            "spec",
            &json!(qos_class(&old["spec"])),
            "Pod QOS Class may not change as a result of resizing",
        ));
    }
    // A kubelet that can resize says what its containers have.
    let unable = items(&old["status"], "containerStatuses")
        .any(|c| !c["state"]["running"].is_null() && c["resources"].is_null());
    if unable {
        let why = "Pod running on node without support for resize";
        errors.push(FieldError::forbidden("spec", why));
    }
    let mut rest = new["spec"].clone();
    for list in LISTS {
        for (i, was) in items(&old["spec"], list).enumerate() {
            for amounts in ["limits", "requests"] {
                for name in RESIZED {
                    let was = &was["resources"][amounts][name];
                    let Some(now) = rest[list][i]["resources"].as_object_mut() else {
                        continue;
                    };
                    let now = now.entry(amounts).or_insert_with(|| json!({}));
                    now[name] = was.clone();
                }
            }
        }
    }
    if !same(&rest, &old["spec"]) {
        let why = "only cpu and memory resources are mutable";
        errors.push(FieldError::forbidden("spec", why));
    }
    errors
}

fn validate_status(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, condition) in items(new, "conditions").enumerate() {
        let kind = text(condition, "type");
        if kind != text(&old["conditions"][i], "type") {
            let field = format!("status.conditions[{i}].Type");
            all(
                &mut errors,
                &field,
                &condition["type"],
                names::qualified_name(kind),
            );
        }
    }
    let node = text(new, "nominatedNodeName");
    if !node.is_empty() {
        all(
            &mut errors,
            "status.nominatedNodeName",
            &new["nominatedNodeName"],
            names::dns_subdomain(node),
        );
    }
    if new["observedGeneration"].as_i64().is_some_and(|n| n < 0) {
        let why = "must be a non-negative integer";
        errors.push(FieldError::invalid(
            "status.observedGeneration",
            &new["observedGeneration"],
            why,
        ));
    }
    if !text(new, "qosClass").is_empty()
        && !text(old, "qosClass").is_empty()
        && text(new, "qosClass") != text(old, "qosClass")
    {
        let class = json!(text(new, "qosClass"));
        errors.push(FieldError::invalid(
            "status.qosClass",
            &class,
            "field is immutable",
        ));
    }
    validate_addresses(new, "podIPs", &mut errors);
    validate_addresses(new, "hostIPs", &mut errors);
    let first = &new["hostIPs"][0]["ip"];
    if first.is_string() && text(new, "hostIP") != first.as_str().unwrap_or_default() {
        let why = "must be equal to `hostIP`";
        errors.push(FieldError::invalid("status.hostIPs[0].ip", first, why));
    }
    errors
}

/// Addresses are such, and at most one of each family.
fn validate_addresses(status: &Value, list: &str, errors: &mut Vec<FieldError>) {
    let mut families = Vec::new();
    for (i, item) in items(status, list).enumerate() {
        match text(item, "ip").parse::<IpAddr>() {
            Ok(ip) => families.push(ip.is_ipv4()),
            Err(_) => errors.push(FieldError::invalid(
                format!("status.{list}[{i}]"),
                &json!(text(item, "ip")),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            )),
        }
    }
    let twice = |v4: bool| families.iter().filter(|f| **f == v4).count() > 1;
    if twice(true) || twice(false) {
        let shown: Vec<Value> = items(status, list).map(|i| json!({"IP": i["ip"]})).collect();
        let why = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(format!("status.{list}"), &shown.into(), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ephemeral: &Value) -> Value {
        json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "status": {"qosClass": "Burstable"}, "spec": {
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
                "resources": {"requests": {"cpu": "1"}}}],
            "ephemeralContainers": ephemeral}})
    }

    #[test]
    fn debugging_containers_are_added_and_stay() {
        for (new, old, want) in [
            (json!([{"name": "e", "image": "i"}]), json!([]), ""),
            (
                json!([{"name": "c", "image": "i"}]),
                json!([]),
                "spec.ephemeralContainers[0].name",
            ),
            (
                json!([{"name": "e"}]),
                json!([]),
                "spec.ephemeralContainers[0].image",
            ),
            (
                json!([{"name": "e", "image": "i", "ports": [{"containerPort": 1}]}]),
                json!([]),
                "spec.ephemeralContainers[0].ports",
            ),
            (
                json!([{"name": "e", "image": "i", "targetContainerName": "zz"}]),
                json!([]),
                "spec.ephemeralContainers[0].targetContainerName",
            ),
            (
                json!([]),
                json!([{"name": "e", "image": "i"}]),
                "spec.ephemeralContainers",
            ),
            (
                json!([{"name": "e", "image": "i2"}]),
                json!([{"name": "e", "image": "i"}]),
                "spec.ephemeralContainers",
            ),
        ] {
            let errors = validate("ephemeralcontainers", &pod(&new), &pod(&old));
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            let want: Vec<&str> = Some(want).filter(|w| !w.is_empty()).into_iter().collect();
            assert_eq!(fields, want, "{new}");
        }
    }

    #[test]
    fn a_resize_changes_cpu_and_memory_alone() {
        let old = pod(&json!([]));
        for (resources, image, want) in [
            (json!({"requests": {"cpu": "2"}}), "i", ""),
            (json!({"requests": {"cpu": "2"}}), "other", ""),
            (
                json!({"requests": {"cpu": "1", "x.io/g": "1"}, "limits": {"x.io/g": "1"}}),
                "i",
                "Forbidden: only cpu and memory resources are mutable",
            ),
            (
                json!({}),
                "i",
                "Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
            ),
        ] {
            let mut new = old.clone();
            new["spec"]["containers"][0]["resources"] = resources.clone();
            new["spec"]["containers"][0]["image"] = image.into();
            prepare("resize", &mut new, &old);
            assert_eq!(new["spec"]["containers"][0]["image"], "i");
            let errors = validate("resize", &new, &old);
            let messages: Vec<&str> = errors.iter().map(|e| e.message.as_str()).collect();
            let want: Vec<&str> = Some(want).filter(|w| !w.is_empty()).into_iter().collect();
            assert_eq!(messages, want, "{resources}");
        }
    }

    #[test]
    fn a_status_is_checked() {
        let old = json!({"qosClass": "Burstable"});
        for (mut new, want) in [
            (json!({"podIPs": [{"ip": "1.2.3.4"}, {"ip": "fd00::1"}]}), ""),
            (
                json!({"podIPs": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.5"}]}),
                "status.podIPs",
            ),
            (json!({"podIPs": [{"ip": "x"}]}), "status.podIPs[0]"),
            (json!({"hostIPs": [{"ip": "1.2.3.4"}]}), "status.hostIPs[0].ip"),
            (json!({"nominatedNodeName": "A_"}), "status.nominatedNodeName"),
            (json!({"qosClass": "BestEffort"}), "status.qosClass"),
            (
                json!({"conditions": [{"type": "a b"}]}),
                "status.conditions[0].Type",
            ),
        ] {
            super::super::json::default(&mut new, "qosClass", "Burstable");
            let errors = validate_status(&new, &old);
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            let want: Vec<&str> = Some(want).filter(|w| !w.is_empty()).into_iter().collect();
            assert_eq!(fields, want, "{new}");
        }
    }
}
