//! ReplicaSets: so many pods of a template.

use super::kinds;
use super::pod;
use crate::controllers::plan::{Action, Plan};
use crate::object;
use serde_json::{Value, json};

type Maker<'a> = Box<dyn Fn(&str) -> Value + 'a>;

/// Names of the pods of a set: always the same ones, so that a second pass over an old view makes none twice.
fn names(set: &Value, count: i64) -> impl Iterator<Item = String> {
    let (name, uid) = (object::name(set).to_owned(), object::uid(set).to_owned());
    // Long names are cut as generated names are.
    let prefix: String = name.chars().take(57).collect();
    (0..count).map(move |i| format!("{prefix}-{}", pod::letters(pod::hash(&format!("{uid}/{i}")), 5)))
}

/// The next step of a ReplicaSet. Its status is written when its pods have settled.
pub fn decide(set: &Value, pods: &[Value], nodes: usize) -> Plan {
    let replicas = set["spec"]["replicas"].as_i64().unwrap_or(1);
    let template = &set["spec"]["template"];
    let wanted = names(set, replicas).map(|name| {
        let make: Maker<'_> = Box::new(move |name: &str| {
            pod::from_template(set, template, name, &pod::node_for(name, nodes), &[])
        });
        (name, make)
    });
    let actions = pod::align(pods, wanted, |_| false);
    let active: Vec<&Value> = pods.iter().filter(|p| pod::is_active(p)).collect();
    if !actions.is_empty() || active.iter().any(|p| !pod::is_ready(p)) {
        return Plan::of(actions);
    }
    let count = json!(active.len());
    let mut set = set.clone();
    let fields = [
        ("observedGeneration", set["metadata"]["generation"].clone()),
        ("replicas", count.clone()),
        ("fullyLabeledReplicas", count.clone()),
        ("readyReplicas", count.clone()),
        ("availableReplicas", count),
    ];
    if pod::set_status(&mut set, &fields, &["replicas"]) {
        return Plan::of([Action::status(kinds::REPLICA_SETS, set)]);
    }
    Plan::default()
}
