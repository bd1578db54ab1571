//! Deployments: a ReplicaSet for each template they had, the newest of them scaled up.

use super::kinds;
use super::pod;
use crate::controllers::plan::{Action, Plan, condition};
use crate::object;
use crate::rest::rfc3339;
use jiff::Timestamp;
use serde_json::{Value, json};

const REVISION: &str = "deployment.kubernetes.io/revision";
const HASH: &str = "pod-template-hash";
/// `revisionHistoryLimit` when it is not set.
const HISTORY: i64 = 10;

fn replicas(set: &Value) -> i64 {
    set["spec"]["replicas"].as_i64().unwrap_or(0)
}

fn revision(object: &Value) -> i64 {
    object["metadata"]["annotations"][REVISION]
        .as_str()
        .and_then(|r| r.parse().ok())
        .unwrap_or(0)
}

fn count(set: &Value, field: &str) -> i64 {
    set["status"][field].as_i64().unwrap_or(0)
}

/// The template a set was made from.
fn origin(set: &Value) -> Value {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
    }
    template
}

/// Whether a set has done all that was asked of it.
fn is_settled(set: &Value) -> bool {
    set["status"]["observedGeneration"] == set["metadata"]["generation"]
        && count(set, "replicas") == replicas(set)
        && count(set, "availableReplicas") == replicas(set)
}

/// The next step of a Deployment. Its status is written when its ReplicaSets have settled.
pub fn decide(deployment: &Value, sets: &[Value], now: Timestamp) -> Plan {
    let desired = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    let template = &deployment["spec"]["template"];
    let sets: Vec<&Value> = sets.iter().filter(|s| !object::is_deleting(s)).collect();
    let current = sets.iter().copied().find(|s| origin(s) == *template);
    let others: Vec<&Value> = sets
        .iter()
        .copied()
        .filter(|s| current.is_none_or(|c| object::uid(c) != object::uid(s)))
        .collect();
    let latest = others.iter().map(|s| revision(s)).max().unwrap_or(0);
    let paused = deployment["spec"]["paused"] == true;
    let mut actions = Vec::new();
    let recreate = deployment["spec"]["strategy"]["type"] == "Recreate";
    let old_are_gone = others
        .iter()
        .all(|s| replicas(s) == 0 && count(s, "replicas") == 0);
    match current {
        // While it is paused its template may change, and nothing comes of it.
        None if paused => {}
        None => {
            let target = if recreate && !old_are_gone { 0 } else { desired };
            actions.push(Action::create(
                kinds::REPLICA_SETS,
                new_set(deployment, target, latest + 1),
            ));
        }
        Some(set) => {
            let target = if recreate && !old_are_gone { 0 } else { desired };
            let mut new = set.clone();
            new["spec"]["replicas"] = target.into();
            if revision(set) <= latest {
                // Rolled back to: it is the newest again.
                annotate(&mut new, latest + 1);
            }
            if new != *set {
                actions.push(Action::update(kinds::REPLICA_SETS, new));
            }
        }
    }
    let current_is_up = current.is_some_and(|s| is_settled(s) && replicas(s) == desired);
    if !paused && (recreate || current_is_up) {
        for set in others.iter().filter(|s| replicas(s) != 0) {
            let mut set = (*set).clone();
            set["spec"]["replicas"] = 0.into();
            actions.push(Action::update(kinds::REPLICA_SETS, set));
        }
    }
    let settled = sets.iter().all(|s| is_settled(s));
    if !actions.is_empty() || !settled || (current.is_none() && !paused) {
        return Plan::of(actions);
    }
    let mut deployment = deployment.clone();
    if let Some(set) = current
        && revision(&deployment) != revision(set)
    {
        annotate(&mut deployment, revision(set));
        return Plan::of([Action::update(kinds::DEPLOYMENTS, deployment)]);
    }
    actions.extend(expired(&deployment, &others));
    if set_status(&mut deployment, &sets, current, desired, now) {
        actions.push(Action::status(kinds::DEPLOYMENTS, deployment));
    }
    Plan::of(actions)
}

fn annotate(object: &mut Value, revision: i64) {
    let metadata = object::metadata_mut(object);
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    annotations[REVISION] = revision.to_string().into();
}

fn new_set(deployment: &Value, replicas: i64, revision: i64) -> Value {
    let template = &deployment["spec"]["template"];
    let hash = pod::template_hash(template);
    let mut spec = json!({
        "replicas": replicas,
        "selector": deployment["spec"]["selector"],
        "template": template,
    });
    object::child_mut(&mut spec["selector"], "matchLabels").insert(HASH.into(), hash.clone().into());
    object::child_mut(&mut spec["template"]["metadata"], "labels").insert(HASH.into(), hash.clone().into());
    if let Some(seconds) = deployment["spec"]["minReadySeconds"].as_i64().filter(|s| *s > 0) {
        spec["minReadySeconds"] = seconds.into();
    }
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", object::name(deployment)),
            "namespace": object::namespace(deployment),
            "labels": spec["template"]["metadata"]["labels"],
            "ownerReferences": [pod::reference(deployment)],
        },
        "spec": spec,
    });
    annotate(&mut set, revision);
    set
}

/// Old sets beyond the history that is kept, oldest first.
fn expired<'a>(deployment: &Value, others: &[&'a Value]) -> impl Iterator<Item = Action> + use<'a> {
    let keep = deployment["spec"]["revisionHistoryLimit"]
        .as_i64()
        .unwrap_or(HISTORY);
    let mut empty: Vec<&Value> = others.iter().copied().filter(|s| replicas(s) == 0).collect();
    empty.sort_by_key(|s| revision(s));
    let surplus = empty.len().saturating_sub(usize::try_from(keep).unwrap_or(0));
    empty
        .into_iter()
        .take(surplus)
        .map(|s| Action::delete(kinds::REPLICA_SETS, s, None))
}

/// How many of `desired` may be unavailable: a number, or a share of them rounded down.
fn max_unavailable(deployment: &Value, desired: i64) -> i64 {
    if deployment["spec"]["strategy"]["type"] == "Recreate" {
        return 0;
    }
    let value = &deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"];
    let percent = |text: &str| text.strip_suffix('%').and_then(|p| p.parse::<i64>().ok());
    match value.as_i64() {
        Some(number) => number,
        None => desired * value.as_str().and_then(percent).unwrap_or(25) / 100,
    }
}

fn set_status(
    deployment: &mut Value,
    sets: &[&Value],
    current: Option<&Value>,
    desired: i64,
    now: Timestamp,
) -> bool {
    let before = deployment["status"].clone();
    let sum = |field: &str| sets.iter().map(|s| count(s, field)).sum::<i64>();
    let available = sum("availableReplicas");
    let fields = [
        ("observedGeneration", deployment["metadata"]["generation"].clone()),
        ("replicas", sum("replicas").into()),
        (
            "updatedReplicas",
            current.map_or(0, |s| count(s, "replicas")).into(),
        ),
        ("readyReplicas", sum("readyReplicas").into()),
        ("availableReplicas", available.into()),
        ("unavailableReplicas", (desired - available).max(0).into()),
    ];
    pod::set_status(deployment, &fields, &[]);
    let now = rfc3339(now);
    if available >= desired - max_unavailable(deployment, desired) {
        let message = "Deployment has minimum availability.";
        set_condition(
            deployment,
            "Available",
            "True",
            "MinimumReplicasAvailable",
            message,
            &now,
        );
    } else {
        let message = "Deployment does not have minimum availability.";
        set_condition(
            deployment,
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            message,
            &now,
        );
    }
    if let Some(set) = current {
        let message = format!("ReplicaSet {:?} has successfully progressed.", object::name(set));
        set_condition(
            deployment,
            "Progressing",
            "True",
            "NewReplicaSetAvailable",
            &message,
            &now,
        );
    }
    deployment["status"] != before
}

/// Deployment conditions also carry `lastUpdateTime`.
fn set_condition(deployment: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) {
    use crate::controllers::plan;
    let missing = condition(deployment, kind).is_none_or(|c| c["lastUpdateTime"].is_null());
    let changed = plan::set_condition(deployment, kind, status, reason, message, now);
    let list = deployment["status"]["conditions"].as_array_mut();
    if let Some(condition) = list.and_then(|l| l.iter_mut().find(|c| c["type"] == kind))
        && (changed || missing)
    {
        condition["lastUpdateTime"] = now.into();
    }
}
