//! DaemonSets: a pod on every node their template selects.

use super::kinds;
use super::{node, pod};
use crate::controllers::plan::{Action, Plan};
use crate::object;
use serde_json::{Value, json};

const REVISION: &str = "controller-revision-hash";

/// The next step of a DaemonSet. Its status is written when its pods have settled.
pub fn decide(set: &Value, pods: &[Value], nodes: usize) -> Plan {
    let template = &set["spec"]["template"];
    let revision = pod::template_hash(template);
    let selector = &template["spec"]["nodeSelector"];
    let on: Vec<String> = (0..nodes)
        .map(node::name)
        .filter(|n| node::selects(selector, n))
        .collect();
    let uid = object::uid(set);
    let wanted = on.iter().map(|on| {
        let revision = &revision;
        let make: Box<dyn Fn(&str) -> Value + '_> =
            Box::new(move |name: &str| pod::from_template(set, template, name, on, &[(REVISION, revision)]));
        let suffix = pod::letters(pod::hash(&format!("{uid}/{on}")), 5);
        (format!("{}-{suffix}", object::name(set)), make)
    });
    let rolls = set["spec"]["updateStrategy"]["type"] != "OnDelete";
    let is_new = |p: &Value| p["metadata"]["labels"][REVISION] == revision;
    let actions = pod::align(pods, wanted, |p| rolls && !is_new(p));
    let active: Vec<&Value> = pods.iter().filter(|p| pod::is_active(p)).collect();
    if !actions.is_empty() || active.iter().any(|p| !pod::is_ready(p)) {
        return Plan::of(actions);
    }
    let count = json!(active.len());
    let fields = [
        ("observedGeneration", set["metadata"]["generation"].clone()),
        ("currentNumberScheduled", count.clone()),
        ("desiredNumberScheduled", on.len().into()),
        ("numberMisscheduled", 0.into()),
        ("numberReady", count.clone()),
        ("numberAvailable", count),
        (
            "updatedNumberScheduled",
            active.iter().filter(|p| is_new(p)).count().into(),
        ),
        ("numberUnavailable", on.len().saturating_sub(active.len()).into()),
    ];
    let keep = [
        "currentNumberScheduled",
        "desiredNumberScheduled",
        "numberMisscheduled",
        "numberReady",
    ];
    let mut set = set.clone();
    if pod::set_status(&mut set, &fields, &keep) {
        return Plan::of([Action::status(kinds::DAEMON_SETS, set)]);
    }
    Plan::default()
}
