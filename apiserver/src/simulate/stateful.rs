//! StatefulSets: pods with numbers. All come at once; a new template replaces them all.

use super::kinds;
use super::pod;
use crate::controllers::plan::{Action, Plan};
use crate::object;
use serde_json::{Value, json};

const REVISION: &str = "controller-revision-hash";

/// The next step of a StatefulSet. Its status is written when its pods have settled.
pub fn decide(set: &Value, pods: &[Value], nodes: usize) -> Plan {
    let spec = &set["spec"];
    let replicas = spec["replicas"].as_i64().unwrap_or(1);
    let start = spec["ordinals"]["start"].as_i64().unwrap_or(0);
    let template = &spec["template"];
    let revision = format!("{}-{}", object::name(set), pod::template_hash(template));
    let wanted = (start..start + replicas).map(|ordinal| {
        let revision = &revision;
        let make: Box<dyn Fn(&str) -> Value + '_> = Box::new(move |name: &str| {
            let ordinal = ordinal.to_string();
            let labels = [
                ("apps.kubernetes.io/pod-index", ordinal.as_str()),
                ("statefulset.kubernetes.io/pod-name", name),
                (REVISION, revision.as_str()),
            ];
            let mut pod = pod::from_template(set, template, name, &pod::node_for(name, nodes), &labels);
            pod["spec"]["hostname"] = name.into();
            if let Some(service) = spec["serviceName"].as_str().filter(|s| !s.is_empty()) {
                pod["spec"]["subdomain"] = service.into();
            }
            pod
        });
        (format!("{}-{ordinal}", object::name(set)), make)
    });
    let rolls = spec["updateStrategy"]["type"] != "OnDelete";
    let partition = spec["updateStrategy"]["rollingUpdate"]["partition"]
        .as_i64()
        .unwrap_or(0);
    let is_new = |p: &Value| p["metadata"]["labels"][REVISION] == revision;
    let ordinal = |p: &Value| {
        object::name(p)
            .rsplit('-')
            .next()
            .and_then(|n| n.parse::<i64>().ok())
            .unwrap_or(0)
    };
    let actions = pod::align(pods, wanted, |p| rolls && !is_new(p) && ordinal(p) >= partition);
    let active: Vec<&Value> = pods.iter().filter(|p| pod::is_active(p)).collect();
    if !actions.is_empty() || active.iter().any(|p| !pod::is_ready(p)) {
        return Plan::of(actions);
    }
    let updated = active.iter().filter(|p| is_new(p)).count();
    let complete = updated == active.len();
    let before = set["status"]["currentRevision"]
        .as_str()
        .filter(|r| !r.is_empty());
    let current = if complete {
        revision.as_str()
    } else {
        before.unwrap_or(&revision)
    };
    let count = json!(active.len());
    let fields = [
        ("observedGeneration", set["metadata"]["generation"].clone()),
        ("replicas", count.clone()),
        ("readyReplicas", count.clone()),
        ("availableReplicas", count.clone()),
        (
            "currentReplicas",
            if complete {
                count
            } else {
                json!(active.len() - updated)
            },
        ),
        ("updatedReplicas", updated.into()),
        ("currentRevision", current.into()),
        ("updateRevision", revision.as_str().into()),
        ("collisionCount", 0.into()),
    ];
    let mut set = set.clone();
    if pod::set_status(
        &mut set,
        &fields,
        &["replicas", "availableReplicas", "collisionCount"],
    ) {
        return Plan::of([Action::status(kinds::STATEFUL_SETS, set)]);
    }
    Plan::default()
}
