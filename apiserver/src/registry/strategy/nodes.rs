//! Nodes: their taints, the addresses of their pods and what they have.

use super::bounds;
use super::check::{Errors, Spot};
use super::go::{self, Part, Shape};
use super::json::{items, text};
use super::network::{NO_RANGE, range};
use super::pod_rules::one_of;
use crate::error::{FieldError, FieldErrorKind};
use crate::registry::names;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ADDRESS: &Shape = &[("Type", "type", Part::Text), ("Address", "address", Part::Text)];

/// What is wrong with a Node.
pub(super) fn validate(node: &Value) -> Errors {
    let spec = Spot::new(&node["spec"], "spec");
    let mut errors = validate_taints(spec.value);
    let ranges = spec.at("podCIDRs");
    let mut families = Vec::new();
    for one in ranges.items() {
        match range(one.text()) {
            Some((address, _)) => families.push(address.is_ipv4()),
            None => one.invalid_text(&mut errors, NO_RANGE),
        }
    }
    if families.len() > 2 || (families.len() == 2 && families[0] == families[1]) {
        let why = "may specify no more than one CIDR for each IP family";
        ranges.invalid(&mut errors, why);
    }
    errors
}

/// Amounts of what a Node has that are below zero.
pub(super) fn validate_amounts(status: &Value) -> Errors {
    let amounts = ["capacity", "allocatable"];
    let found = amounts.map(|key| bounds::validate_amounts(&status[key], &format!("status.{key}")));
    found.concat()
}

/// What is wrong with what a Node says of itself.
pub(super) fn validate_status(status: &Value) -> Errors {
    let mut errors = validate_amounts(status);
    let mut seen = BTreeSet::new();
    for address in Spot::new(status, "status").list("addresses") {
        let shown = go::shown(address.value, ADDRESS);
        if !seen.insert(shown.clone()) {
            let message = format!("Duplicate value: {shown}");
            address.refuse(&mut errors, FieldErrorKind::Duplicate, message);
        }
    }
    errors
}

/// What is wrong with a node's taints, which Kubernetes looks for in its metadata.
fn validate_taints(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, taint) in items(spec, "taints").enumerate() {
        let at = format!("metadata.taints[{i}]");
        for message in names::qualified_name(text(taint, "key")) {
            errors.push(FieldError::invalid(format!("{at}.key"), &taint["key"], &message));
        }
        let value = Spot::new(&taint["value"], format!("{at}.value"));
        value.named_if_given(&mut errors, names::label_value);
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        one_of(&mut errors, &format!("{at}.effect"), &taint["effect"], &effects);
        if !seen.insert((text(taint, "key"), text(taint, "effect"))) {
            // As Go shows its own struct.
            let shown = |key: &str| json!(text(taint, key));
            let message = format!(
                "Duplicate value: {{\"Key\":{},\"Value\":{},\"Effect\":{},\"TimeAdded\":{}}}: taints must be unique by key and effect pair",
                shown("key"),
                shown("value"),
                shown("effect"),
                taint["timeAdded"],
            );
            errors.push(FieldError::new(FieldErrorKind::Duplicate, at, message));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes() {
        for (spec, want) in [
            (json!({"podCIDRs": ["10.1.0.0/24", "2001:db8::/64"]}), vec![]),
            (
                json!({"podCIDRs": ["10.1.0.0/24", "10.2.0.0/24"]}),
                vec!["spec.podCIDRs"],
            ),
            (json!({"podCIDRs": ["x"]}), vec!["spec.podCIDRs[0]"]),
            (
                json!({"taints": [{"key": "k", "value": "a b", "effect": "NoSchedule"}]}),
                vec!["metadata.taints[0].value"],
            ),
        ] {
            let errors = validate(&json!({ "spec": spec }));
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields, want, "{spec}");
        }
        let twice = json!({"addresses": [{"type": "InternalIP", "address": "a"}, {"type": "InternalIP", "address": "a"}]});
        assert_eq!(validate_status(&twice).len(), 1);
        assert_eq!(validate_status(&json!({"capacity": {"cpu": "-1"}})).len(), 1);
    }
}
