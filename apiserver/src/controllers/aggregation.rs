//! ClusterRoles with an `aggregationRule`: their rules are those of the roles it selects.

use super::kinds;
use super::plan::{Action, Plan};
use crate::object;
use crate::store::Entry;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// By what each role gathers that does. On a hub every cluster has a role, and none of them is gathered: looking at all
/// roles whenever one comes would cost each new cluster as much as there are clusters.
#[derive(Debug, Default)]
pub struct Gathering(BTreeMap<Arc<str>, Vec<Value>>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gatherer {
    aggregation_rule: Option<AggregationRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AggregationRule {
    cluster_role_selectors: Option<Vec<Value>>,
}

impl Gathering {
    /// Takes a role in as it is now (or, with `gone`, was last); `before` is its state before that. Whether the rules of any
    /// role may have to be others now.
    pub fn noticed(&mut self, now: &Entry, gone: bool, before: Option<&Entry>) -> bool {
        let gatherer = serde_json::from_slice::<Gatherer>(&now.json).ok();
        let selectors = gatherer
            .and_then(|g| g.aggregation_rule)
            .and_then(|r| r.cluster_role_selectors)
            .filter(|_| !gone);
        if let Some(selectors) = selectors {
            self.0.insert(Arc::clone(&now.key.name), selectors);
            return true;
        }
        self.0.remove(&now.key.name);
        let states = std::iter::once(now).chain(before);
        let labelled: Vec<Value> = states.map(labelled).collect();
        let selectors = self.0.values().flatten();
        let mut pairs = selectors.flat_map(|s| labelled.iter().map(move |l| (s, l)));
        pairs.any(|(selector, labels)| selects(selector, labels))
    }
}

/// A role's labels, as an object with nothing else.
fn labelled(role: &Entry) -> Value {
    let labels: BTreeMap<&str, &str> = role.labels().iter().map(|(k, v)| (&**k, &**v)).collect();
    json!({"metadata": {"labels": labels}})
}

/// Field manager of the rules that are gathered.
const MANAGER: &str = "clusterrole-aggregation-controller";

/// What makes every aggregated role the sum of what it selects.
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
            let config = json!({
                "apiVersion": role["apiVersion"], "kind": role["kind"],
                // A role that came in its place is another's.
                "metadata": {"name": object::name(role), "uid": object::uid(role)},
                "rules": rules,
            });
            Some(Action::Apply {
                resource: kinds::CLUSTER_ROLES.into(),
                manager: MANAGER,
                config,
            })
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
