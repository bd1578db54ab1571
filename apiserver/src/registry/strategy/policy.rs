//! Networking, policy, autoscaling, scheduling and storage kinds: defaults and the rules people run into.

use super::json::{at, default, each, items, made, same, text};
use super::pod_rules::{not_negative, one_of};
use super::selector;
use crate::error::FieldError;
use crate::object;
use serde_json::{Value, json};

/// Highest value of a PriorityClass that is not the system's.
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

/// Defaults by plural.
pub(super) fn defaults(plural: &str, object: &mut Value) {
    match plural {
        "networkpolicies" => {
            let Some(spec) = made(object, "spec") else { return };
            default(spec, "podSelector", json!({}));
            for list in ["ingress", "egress"] {
                for rule in each(spec, list) {
                    for port in each(rule, "ports") {
                        default(port, "protocol", "TCP");
                    }
                }
            }
            let egress = items(spec, "egress").next().is_some();
            default(
                spec,
                "policyTypes",
                if egress {
                    json!(["Ingress", "Egress"])
                } else {
                    json!(["Ingress"])
                },
            );
        }
        "ingressclasses" => {
            if let Some(parameters) = at(object, "spec").and_then(|s| at(s, "parameters")) {
                default(parameters, "scope", "Cluster");
            }
        }
        "horizontalpodautoscalers" => {
            let legacy = text(object, "apiVersion") == "autoscaling/v1";
            let Some(spec) = at(object, "spec") else { return };
            default(spec, "minReplicas", 1);
            if legacy {
                default(spec, "targetCPUUtilizationPercentage", 80);
                return;
            }
            if items(spec, "metrics").next().is_none() {
                spec["metrics"] = json!([{
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                }]);
            }
            if let Some(behavior) = at(spec, "behavior") {
                default_behavior(behavior);
            }
        }
        "priorityclasses" => default(object, "preemptionPolicy", "PreemptLowerPriority"),
        "storageclasses" => {
            default(object, "reclaimPolicy", "Delete");
            default(object, "volumeBindingMode", "Immediate");
        }
        "csidrivers" => {
            if let Some(spec) = made(object, "spec") {
                default(spec, "attachRequired", true);
                for key in [
                    "podInfoOnMount",
                    "storageCapacity",
                    "requiresRepublish",
                    "seLinuxMount",
                ] {
                    default(spec, key, false);
                }
                default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
                default(spec, "volumeLifecycleModes", json!(["Persistent"]));
            }
        }
        "endpointslices" => {
            for port in each(object, "ports") {
                default(port, "name", "");
                default(port, "protocol", "TCP");
            }
        }
        "flowschemas" => {
            if let Some(spec) = made(object, "spec") {
                default(spec, "matchingPrecedence", 1000);
            }
        }
        "prioritylevelconfigurations" => {
            if let Some(limited) = at(object, "spec").and_then(|s| at(s, "limited")) {
                default(limited, "nominalConcurrencyShares", 30);
                default(limited, "lendablePercent", 0);
            }
        }
        _ => {}
    }
}

fn default_behavior(behavior: &mut Value) {
    let up = json!([
        {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15},
    ]);
    let down = json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]);
    for (key, policies, window) in [("scaleUp", up, Some(0)), ("scaleDown", down, None)] {
        let Some(rules) = made(behavior, key) else {
            continue;
        };
        default(rules, "policies", policies);
        default(rules, "selectPolicy", "Max");
        if let Some(window) = window {
            default(rules, "stabilizationWindowSeconds", window);
        }
    }
}

/// A status as a new object has it.
pub(super) fn empty_status(plural: &str) -> Value {
    match plural {
        "services" | "ingresses" => json!({"loadBalancer": {}}),
        "poddisruptionbudgets" => {
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0})
        }
        "horizontalpodautoscalers" => json!({"desiredReplicas": 0, "currentMetrics": null}),
        "volumeattachments" => json!({"attached": false}),
        _ => json!({}),
    }
}

fn validate_backend(backend: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let service = &backend["service"];
    match (service.is_null(), backend["resource"].is_null()) {
        (true, true) => errors.push(FieldError::required(at, "port name or number is required")),
        (false, false) => {
            let message = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(at, &json!(""), message));
        }
        (false, true) => {
            if text(service, "name").is_empty() {
                errors.push(FieldError::required(format!("{at}.service.name"), ""));
            }
            let port = &service["port"];
            let (number, name) = (!port["number"].is_null(), !text(port, "name").is_empty());
            if number && name {
                let message = "cannot set both port name & port number";
                errors.push(FieldError::invalid(
                    format!("{at}.service.port"),
                    &json!(""),
                    message,
                ));
            } else if !number && !name {
                let message = "port name or number is required";
                errors.push(FieldError::required(format!("{at}.service.port"), message));
            }
        }
        (true, false) => {}
    }
}

fn validate_ingress(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if items(spec, "rules").next().is_none() && spec["defaultBackend"].is_null() {
        let message = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid("spec", &json!([]), message));
    }
    if !spec["defaultBackend"].is_null() {
        validate_backend(&spec["defaultBackend"], "spec.defaultBackend", &mut errors);
    }
    for (i, rule) in items(spec, "rules").enumerate() {
        let host = text(rule, "host");
        if !host.is_empty() {
            let bare = host.strip_prefix("*.").unwrap_or(host);
            for message in crate::registry::names::dns_subdomain(bare) {
                errors.push(FieldError::invalid(
                    format!("spec.rules[{i}].host"),
                    &rule["host"],
                    &message,
                ));
            }
        }
        let http = &rule["http"];
        if !http.is_null() && items(http, "paths").next().is_none() {
            errors.push(FieldError::required(format!("spec.rules[{i}].http.paths"), ""));
        }
        for (j, path) in items(http, "paths").enumerate() {
            let at = format!("spec.rules[{i}].http.paths[{j}]");
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            match path["pathType"].as_str() {
                None => {
                    let message = "pathType must be specified";
                    errors.push(FieldError::required(format!("{at}.pathType"), message));
                }
                Some(k) if !kinds.contains(&k) => {
                    errors.push(FieldError::not_supported(
                        format!("{at}.pathType"),
                        &path["pathType"],
                        &kinds,
                    ));
                }
                Some("Exact" | "Prefix") if !text(path, "path").starts_with('/') => {
                    let message = "must be an absolute path";
                    errors.push(FieldError::invalid(
                        format!("{at}.path"),
                        &json!(text(path, "path")),
                        message,
                    ));
                }
                Some(_) => {}
            }
            validate_backend(&path["backend"], &format!("{at}.backend"), &mut errors);
        }
    }
    errors
}

/// What is wrong with an object of these kinds.
pub(super) fn validate(plural: &str, object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    match plural {
        "networkpolicies" => {
            errors.extend(selector::validate(&spec["podSelector"], "spec.podSelector"));
            for (i, kind) in items(spec, "policyTypes").enumerate() {
                one_of(
                    &mut errors,
                    &format!("spec.policyTypes[{i}]"),
                    kind,
                    &["Egress", "Ingress"],
                );
            }
        }
        "ingresses" => errors = validate_ingress(spec),
        "poddisruptionbudgets" => {
            if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
                let message = "minAvailable and maxUnavailable cannot be both set";
                errors.push(FieldError::invalid("spec", spec, message));
            }
            for key in ["minAvailable", "maxUnavailable"] {
                not_negative(&mut errors, &format!("spec.{key}"), &spec[key]);
            }
            errors.extend(selector::validate(&spec["selector"], "spec.selector"));
        }
        "horizontalpodautoscalers" => {
            let (min, max) = (
                spec["minReplicas"].as_i64(),
                spec["maxReplicas"].as_i64().unwrap_or(0),
            );
            if let Some(min) = min
                && min < 1
            {
                let message = "must be greater than or equal to 1";
                errors.push(FieldError::invalid("spec.minReplicas", &json!(min), message));
            }
            if max < 1 {
                errors.push(FieldError::invalid(
                    "spec.maxReplicas",
                    &json!(max),
                    "must be greater than 0",
                ));
            }
            if min.is_some_and(|m| max < m) {
                let message = "must be greater than or equal to `minReplicas`";
                errors.push(FieldError::invalid("spec.maxReplicas", &json!(max), message));
            }
            for key in ["kind", "name"] {
                if text(&spec["scaleTargetRef"], key).is_empty() {
                    errors.push(FieldError::required(format!("spec.scaleTargetRef.{key}"), ""));
                }
            }
        }
        "priorityclasses" => {
            let system = object::name(object).starts_with("system-");
            if system
                && !matches!(
                    object::name(object),
                    "system-node-critical" | "system-cluster-critical"
                )
            {
                let message = "priority class names with 'system-' prefix are reserved for system use only. error: unknown system priority class";
                errors.push(FieldError::forbidden("metadata.name", message));
            } else if !system
                && object["value"]
                    .as_i64()
                    .is_some_and(|v| v > HIGHEST_USER_PRIORITY)
            {
                let message =
                    format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
                errors.push(FieldError::forbidden("value", &message));
            }
            let policies = ["Never", "PreemptLowerPriority"];
            one_of(
                &mut errors,
                "preemptionPolicy",
                &object["preemptionPolicy"],
                &policies,
            );
        }
        "storageclasses" => {
            if text(object, "provisioner").is_empty() {
                errors.push(FieldError::required("provisioner", ""));
            }
            one_of(
                &mut errors,
                "reclaimPolicy",
                &object["reclaimPolicy"],
                &["Delete", "Retain"],
            );
            let modes = ["Immediate", "WaitForFirstConsumer"];
            one_of(
                &mut errors,
                "volumeBindingMode",
                &object["volumeBindingMode"],
                &modes,
            );
        }
        "runtimeclasses" => {
            let handler = text(object, "handler");
            if handler.is_empty() {
                errors.push(FieldError::required("handler", ""));
            } else {
                for message in crate::registry::names::dns_label(handler) {
                    errors.push(FieldError::invalid("handler", &object["handler"], &message));
                }
            }
        }
        _ => {}
    }
    errors
}

/// What of an object of these kinds may not change.
pub(super) fn validate_update(plural: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut forbidden = |keys: &[&str], message: &dyn Fn(&str) -> String| {
        for key in keys {
            if !same(&new[*key], &old[*key]) {
                errors.push(FieldError::forbidden(*key, &message(key)));
            }
        }
    };
    match plural {
        "priorityclasses" => {
            forbidden(&["value"], &|_| "may not be changed in an update.".to_owned());
            if !same(&new["preemptionPolicy"], &old["preemptionPolicy"]) {
                let value = &new["preemptionPolicy"];
                errors.push(FieldError::invalid(
                    "preemptionPolicy",
                    value,
                    "field is immutable",
                ));
            }
        }
        "storageclasses" => {
            let keys = ["reclaimPolicy", "volumeBindingMode"];
            forbidden(&keys, &|key| format!("updates to {key} are forbidden."));
            for key in ["parameters", "provisioner"] {
                if !same(&new[key], &old[key]) {
                    errors.push(FieldError::invalid(key, &new[key], "field is immutable"));
                }
            }
        }
        "ingressclasses" if !same(&new["spec"]["controller"], &old["spec"]["controller"]) => {
            errors.push(FieldError::invalid(
                "spec.controller",
                &new["spec"]["controller"],
                "field is immutable",
            ));
        }
        "runtimeclasses" if !same(&new["handler"], &old["handler"]) => {
            errors.push(FieldError::invalid(
                "handler",
                &new["handler"],
                "field is immutable",
            ));
        }
        _ => {}
    }
    errors
}
