//! What a status may say: counters of a workload fit each other (`ValidateDeploymentStatus` and its like), amounts and
//! addresses are such.

use super::json::{items, text};
use super::pod_rules::not_negative;
use super::{bounds, network};
use crate::error::FieldError;
use serde_json::Value;

/// Numbers that workloads count by, besides those that are parts of `replicas`.
const COUNTERS: [&str; 11] = [
    "observedGeneration",
    "collisionCount",
    "unavailableReplicas",
    "terminatingReplicas",
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
];

/// What is wrong with a status.
pub(super) fn validate(plural: &str, status: &Value) -> Vec<FieldError> {
    let parts: &[&str] = match plural {
        "deployments" => &["updatedReplicas", "readyReplicas", "availableReplicas"],
        "daemonsets" => &[],
        "replicasets" | "replicationcontrollers" => {
            &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"]
        }
        "statefulsets" => &[
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
        ],
        "nodes" => {
            let amounts = ["capacity", "allocatable"];
            let all = amounts.map(|key| bounds::validate_amounts(&status[key], &format!("status.{key}")));
            return all.concat();
        }
        "services" | "ingresses" => return validate_balancer(&status["loadBalancer"]),
        _ => return Vec::new(),
    };
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    let mut errors = Vec::new();
    not_negative(&mut errors, "status.replicas", &status["replicas"]);
    for key in COUNTERS {
        not_negative(&mut errors, &format!("status.{key}"), &status[key]);
    }
    for key in parts {
        let field = format!("status.{key}");
        not_negative(&mut errors, &field, &status[*key]);
        if number(key) > number("replicas") {
            errors.push(FieldError::invalid(
                field,
                &status[*key],
                "cannot be greater than status.replicas",
            ));
        }
    }
    if number("availableReplicas") > number("readyReplicas") {
        let detail = match plural {
            "statefulsets" => "cannot be greater than status.readyReplicas",
            _ => "cannot be greater than readyReplicas",
        };
        errors.push(FieldError::invalid(
            "status.availableReplicas",
            &status["availableReplicas"],
            detail,
        ));
    }
    errors
}

fn validate_balancer(balancer: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, ingress) in items(balancer, "ingress").enumerate() {
        if !text(ingress, "ip").is_empty() {
            let field = format!("status.loadBalancer.ingress[{i}].ip");
            network::check_address(&mut errors, &field, &ingress["ip"]);
        }
    }
    errors
}
