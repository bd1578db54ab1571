//! What a status may say: counters of a workload fit each other (`ValidateDeploymentStatus` and its like), amounts and
//! addresses are such.

use super::check::Spot;
use super::pod_rules::not_negative;
use super::{bounds, claim_status, job_status, network, nodes, quantity};
use crate::error::FieldError;
use crate::registry::names;
use serde_json::{Value, json};

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
pub(super) fn validate(plural: &str, object: &Value, old: &Value) -> Vec<FieldError> {
    let status = &object["status"];
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
        "nodes" => return nodes::validate_status(status),
        "services" | "ingresses" => return validate_balancer(object, plural == "services"),
        "jobs" => return job_status::validate(object, old),
        "resourceclaims" => return claim_status::validate(object, old),
        "persistentvolumeclaims" => return validate_claim(status),
        "resourcequotas" => {
            let amounts =
                ["hard", "used"].map(|key| bounds::validate_hard(&status[key], &format!("status.{key}")));
            return amounts.concat();
        }
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
                &number(key).into(),
                "cannot be greater than status.replicas",
            ));
        }
    }
    let collisions = old["status"]["collisionCount"].as_i64().unwrap_or(0);
    if number("collisionCount") < collisions {
        let count = Spot::new(&status["collisionCount"], "status.collisionCount");
        let shown = count.number().to_string();
        count.invalid_shown(&mut errors, &shown, "cannot be decremented");
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

/// Where a balancer is reached. Only a Service may say how.
fn validate_balancer(object: &Value, of_service: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let ingresses = Spot::new(&object["status"]["loadBalancer"], "status.loadBalancer").list("ingress");
    for ingress in &ingresses {
        let (ip, mode, host) = (ingress.at("ip"), ingress.at("ipMode"), ingress.at("hostname"));
        if !ip.is_empty() {
            network::check_address(&mut errors, &ip.path, ip.value);
        }
        if of_service && mode.is_set() {
            if ip.is_empty() {
                mode.forbidden(&mut errors, "may not be specified when `ip` is not set");
            } else {
                mode.among(&mut errors, &["Proxy", "VIP"]);
            }
        }
        host.named_if_given(&mut errors, names::dns_subdomain);
        if host.text().parse::<std::net::IpAddr>().is_ok() {
            host.invalid(&mut errors, "must be a DNS name, not an IP address");
        }
    }
    errors
}

/// What a claim was given, and how far its growing got.
fn validate_claim(status: &Value) -> Vec<FieldError> {
    const STATES: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let mut errors = Vec::new();
    let status = Spot::new(status, "status");
    for key in ["capacity", "allocatedResources"] {
        for (_, amount) in status.at(key).entries() {
            if amount
                .value
                .as_str()
                .and_then(quantity::nanos)
                .is_some_and(|n| n < 0)
            {
                let why = "must be a valid resource quantity";
                amount.invalid_shown(&mut errors, amount.text(), why);
            }
        }
    }
    let growing = status.at("allocatedResourceStatuses");
    for (name, state) in growing.entries() {
        if !name.contains('/') && name != "storage" {
            errors.push(FieldError::not_supported(
                &growing.path,
                &json!(name),
                &["storage"],
            ));
        }
        if !STATES.contains(&state.text()) {
            errors.push(FieldError::not_supported(&growing.path, &json!(name), &STATES));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        for (plural, status, want) in [
            (
                "services",
                json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4", "ipMode": "VIP"}, {"hostname": "a.io"}]}}),
                "",
            ),
            (
                "services",
                json!({"loadBalancer": {"ingress": [{"hostname": "a.io", "ipMode": "VIP"}]}}),
                "status.loadBalancer.ingress[0].ipMode",
            ),
            (
                "ingresses",
                json!({"loadBalancer": {"ingress": [{"hostname": "1.2.3.4"}]}}),
                "status.loadBalancer.ingress[0].hostname",
            ),
            (
                "persistentvolumeclaims",
                json!({"capacity": {"storage": "-1"}}),
                "status.capacity[storage]",
            ),
            (
                "persistentvolumeclaims",
                json!({"allocatedResourceStatuses": {"storage": "NodeResizePending"}}),
                "",
            ),
            (
                "resourcequotas",
                json!({"used": {"pods": "-1"}}),
                "status.used[pods]",
            ),
        ] {
            let errors = validate(plural, &json!({ "status": status }), &Value::Null);
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields.join(" "), want, "{status}");
        }
    }
}
