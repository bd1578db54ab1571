//! Counters of a workload's status fit each other (`ValidateDeploymentStatus` and its like).

use super::pod_rules::not_negative;
use crate::error::FieldError;
use serde_json::Value;

/// What is wrong with the status of a Deployment, ReplicaSet or StatefulSet.
pub(super) fn validate(plural: &str, status: &Value) -> Vec<FieldError> {
    let parts: &[&str] = match plural {
        "deployments" => &["updatedReplicas", "readyReplicas", "availableReplicas"],
        "replicasets" => &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        "statefulsets" => &[
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
        ],
        _ => return Vec::new(),
    };
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    let mut errors = Vec::new();
    not_negative(&mut errors, "status.replicas", &status["replicas"]);
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
