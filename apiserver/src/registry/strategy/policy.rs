//! Networking, policy, autoscaling, scheduling and storage kinds: defaults and the rules people run into.

use super::check::Spot;
use super::go::{self, TOLERATION};
use super::json::{at, default, each, items, made, same, text};
use super::metadata::validate_labels;
use super::pod_rules::one_of;
use super::{pod_parts, pod_resources};
use crate::error::{FieldError, FieldErrorKind};
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

/// What is wrong with an object of these kinds.
pub(super) fn validate(plural: &str, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match plural {
        "priorityclasses" => {
            let system = object::name(object).starts_with("system-");
            if system
                && !matches!(
                    object::name(object),
                    "system-node-critical" | "system-cluster-critical"
                )
            {
                let message = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {} is not a known system priority class",
                    object::name(object)
                );
                errors.push(FieldError::forbidden("metadata.name", &message));
            } else if !system
                && object["value"]
                    .as_i64()
                    .is_some_and(|v| v > HIGHEST_USER_PRIORITY)
            {
                let message =
                    format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
                errors.push(FieldError::forbidden("value", &message));
            }
            let policies = ["PreemptLowerPriority", "Never"];
            one_of(
                &mut errors,
                "preemptionPolicy",
                &object["preemptionPolicy"],
                &policies,
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
            validate_runtime(object, &mut errors);
        }
        _ => {}
    }
    errors
}

/// What pods of a runtime cost, and where they run.
fn validate_runtime(class: &Value, errors: &mut Vec<FieldError>) {
    let fixed = json!({"limits": class["overhead"]["podFixed"]});
    pod_resources::validate(&Spot::new(&fixed, "overhead"), errors);
    let scheduling = Spot::new(&class["scheduling"], "scheduling");
    let selector = scheduling.at("nodeSelector");
    errors.extend(validate_labels(selector.value, &selector.path));
    let mut seen = Vec::new();
    for toleration in scheduling.list("tolerations") {
        pod_parts::validate_toleration(toleration.value, &toleration.path, errors);
        if seen.contains(&toleration.value) {
            let shown = go::shown(toleration.value, TOLERATION);
            let message = format!("Duplicate value: {shown}");
            toleration.refuse(errors, FieldErrorKind::Duplicate, message);
        }
        seen.push(toleration.value);
    }
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
