//! ClusterRoles with an `aggregationRule`: their rules are those of the roles it selects.

use super::kinds;
use super::plan::{Action, Plan};
use crate::object;
use serde_json::Value;

/// The updates that make every aggregated role the sum of what it selects.
pub fn decide(roles: &[Value]) -> Plan {
    let mut sorted: Vec<&Value> = roles.iter().collect();
    sorted.sort_by_key(|r| object::name(r));
    let actions = roles
        .iter()
        .filter(|r| !object::is_deleting(r))
        .filter_map(|role| {
            let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array()?;
            let mut rules: Vec<Value> = Vec::new();
            for selector in selectors {
                let others = sorted.iter().filter(|r| object::name(r) != object::name(role));
                for selected in others.filter(|r| selects(selector, r)) {
                    for rule in selected["rules"].as_array().into_iter().flatten() {
                        if !rules.contains(rule) {
                            rules.push(rule.clone());
                        }
                    }
                }
            }
            let current = role["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
            if current == rules {
                return None;
            }
            let mut role = role.clone();
            role["rules"] = Value::Array(rules);
            Some(Action::update(kinds::CLUSTER_ROLES, role))
        });
    Plan::of(actions)
}

/// Whether a `metav1.LabelSelector` selects an object. One with an operator that does not exist selects nothing.
pub fn selects(selector: &Value, candidate: &Value) -> bool {
    let labels = &candidate["metadata"]["labels"];
    let equal = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .all(|(k, v)| labels[k] == *v);
    equal
        && selector["matchExpressions"]
            .as_array()
            .into_iter()
            .flatten()
            .all(|e| {
                let value = &labels[e["key"].as_str().unwrap_or_default()];
                let listed = e["values"].as_array().is_some_and(|l| l.contains(value));
                match e["operator"].as_str() {
                    Some("In") => listed,
                    Some("NotIn") => !listed,
                    Some("Exists") => !value.is_null(),
                    Some("DoesNotExist") => value.is_null(),
                    _ => false,
                }
            })
}
