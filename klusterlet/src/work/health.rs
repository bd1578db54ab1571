//! What state an object is in, from the object alone, for works without rules: is it on its way to what its spec says, and
//! is something wrong with it?
//!
//! Progressing means "not yet what it should be". What is degraded is never what it should be, so Degraded implies
//! Progressing: together they are how OCM's rollouts tell a failure (wire §4).

use serde_json::Value;

/// The state of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It is what it should be.
    Current(String),
    /// It is on its way.
    Progressing(String),
    /// Something is wrong.
    Degraded(String),
}

use Health::{Current, Degraded, Progressing};

/// The state of an object; `None` where its kind has no such thing (a ConfigMap just is).
pub fn derive(object: &Value) -> Option<Health> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, object["kind"].as_str().unwrap_or_default()) {
        ("apps", "Deployment") => Some(observed(object).unwrap_or_else(|| deployment(object))),
        ("apps", "StatefulSet") => Some(observed(object).unwrap_or_else(|| stateful_set(object))),
        ("apps", "DaemonSet") => Some(observed(object).unwrap_or_else(|| daemon_set(object))),
        ("batch", "Job") => Some(job(object)),
        ("batch", "CronJob") => Some(Current("scheduled".into())),
        ("", "Pod") => Some(pod(object)),
        ("", "Service") => service(object),
        ("", "PersistentVolumeClaim") => Some(claim(object)),
        ("", "Namespace") => Some(namespace(object)),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => Some(definition(object)),
        ("apiregistration.k8s.io", "APIService") => Some(api_service(object)),
        _ => by_conditions(object),
    }
}

fn number(value: &Value, path: &str, default: i64) -> i64 {
    value.pointer(path).and_then(Value::as_i64).unwrap_or(default)
}

/// Its controller has not seen the latest spec yet.
fn observed(object: &Value) -> Option<Health> {
    let wanted = object["metadata"]["generation"].as_i64()?;
    let seen = number(object, "/status/observedGeneration", 0);
    (seen < wanted).then(|| Progressing(format!("generation {wanted} is not observed yet")))
}

struct Condition<'a> {
    status: &'a str,
    reason: &'a str,
    message: &'a str,
}

impl Condition<'_> {
    fn told(&self, type_: &str) -> String {
        let parts = [self.reason, self.message];
        let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        let told = format!("{type_} is {}", self.status);
        if parts.is_empty() {
            told
        } else {
            format!("{told}: {}", parts.join(": "))
        }
    }
}

fn condition<'a>(object: &'a Value, type_: &str) -> Option<Condition<'a>> {
    let list = object["status"]["conditions"].as_array()?;
    let found = list.iter().find(|c| c["type"] == type_)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default();
    Some(Condition {
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
    })
}

fn deployment(object: &Value) -> Health {
    let wanted = number(object, "/spec/replicas", 1);
    let [total, updated, available] = ["replicas", "updatedReplicas", "availableReplicas"]
        .map(|f| number(&object["status"], &format!("/{f}"), 0));
    let rollout = condition(object, "Progressing");
    if let Some(failure) = condition(object, "ReplicaFailure").filter(|c| c.status == "True") {
        return Degraded(failure.told("ReplicaFailure"));
    }
    if let Some(stuck) = rollout
        .as_ref()
        .filter(|c| c.status == "False" && c.reason == "ProgressDeadlineExceeded")
    {
        return Degraded(stuck.told("Progressing"));
    }
    if updated < wanted {
        Progressing(format!("{updated} of {wanted} replicas are updated"))
    } else if total > updated {
        Progressing(format!("{} old replicas are still there", total - updated))
    } else if available < wanted {
        let told = format!("{available} of {wanted} replicas are available");
        // A rollout that was through once and has lost replicas since.
        match rollout {
            Some(c) if c.reason == "NewReplicaSetAvailable" => Degraded(told),
            _ => Progressing(told),
        }
    } else {
        Current(format!("{available} of {wanted} replicas are available"))
    }
}

fn stateful_set(object: &Value) -> Health {
    let wanted = number(object, "/spec/replicas", 1);
    let [ready, updated] =
        ["readyReplicas", "updatedReplicas"].map(|f| number(&object["status"], &format!("/{f}"), 0));
    let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition", 0);
    let status = &object["status"];
    let on_delete = object
        .pointer("/spec/updateStrategy/type")
        .is_some_and(|t| t == "OnDelete");
    let rolling = status["updateRevision"] != status["currentRevision"];
    if ready < wanted {
        Progressing(format!("{ready} of {wanted} replicas are ready"))
    } else if !on_delete && rolling && updated < wanted - partition {
        Progressing(format!(
            "{updated} of {} replicas are updated",
            wanted - partition
        ))
    } else {
        Current(format!("{ready} of {wanted} replicas are ready"))
    }
}

fn daemon_set(object: &Value) -> Health {
    let [wanted, updated, available] = [
        "desiredNumberScheduled",
        "updatedNumberScheduled",
        "numberAvailable",
    ]
    .map(|f| number(&object["status"], &format!("/{f}"), 0));
    let on_delete = object
        .pointer("/spec/updateStrategy/type")
        .is_some_and(|t| t == "OnDelete");
    if !on_delete && updated < wanted {
        Progressing(format!("{updated} of {wanted} Pods are updated"))
    } else if available < wanted {
        Progressing(format!("{available} of {wanted} Pods are available"))
    } else {
        Current(format!("{available} of {wanted} Pods are available"))
    }
}

fn job(object: &Value) -> Health {
    for type_ in ["Failed", "FailureTarget"] {
        if let Some(failed) = condition(object, type_).filter(|c| c.status == "True") {
            return Degraded(failed.told(type_));
        }
    }
    if condition(object, "Complete").is_some_and(|c| c.status == "True") {
        return Current("the Job is complete".into());
    }
    if condition(object, "Suspended").is_some_and(|c| c.status == "True") {
        return Current("the Job is suspended".into());
    }
    let wanted = number(object, "/spec/completions", 1);
    Progressing(format!(
        "{} of {wanted} Pods have succeeded",
        number(object, "/status/succeeded", 0)
    ))
}

fn pod(object: &Value) -> Health {
    let phase = object["status"]["phase"].as_str().unwrap_or("Pending");
    let statuses = ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .filter_map(|f| object["status"][f].as_array())
        .flatten();
    for status in statuses {
        let waiting = &status["state"]["waiting"];
        let reason = waiting["reason"].as_str().unwrap_or_default();
        if [
            "CrashLoopBackOff",
            "ImagePullBackOff",
            "ErrImagePull",
            "InvalidImageName",
            "CreateContainerConfigError",
            "CreateContainerError",
            "RunContainerError",
        ]
        .contains(&reason)
        {
            let name = status["name"].as_str().unwrap_or_default();
            return Degraded(format!("container {name}: {reason}"));
        }
    }
    match phase {
        "Succeeded" => Current("the Pod has succeeded".into()),
        "Failed" => {
            let why = object["status"]["message"]
                .as_str()
                .or(object["status"]["reason"].as_str());
            Degraded(format!(
                "the Pod has failed{}",
                why.map(|w| format!(": {w}")).unwrap_or_default()
            ))
        }
        "Running" if condition(object, "Ready").is_some_and(|c| c.status == "True") => {
            Current("the Pod is ready".into())
        }
        "Running" => Progressing("the Pod runs and is not ready".into()),
        "Unknown" => Degraded("the Pod's node does not answer".into()),
        phase => {
            let scheduled = condition(object, "PodScheduled").filter(|c| c.status == "False");
            Progressing(scheduled.map_or_else(|| format!("the Pod is {phase}"), |c| c.told("PodScheduled")))
        }
    }
}

fn service(object: &Value) -> Option<Health> {
    (object["spec"]["type"] == "LoadBalancer").then(|| {
        let ingress = object
            .pointer("/status/loadBalancer/ingress")
            .and_then(Value::as_array);
        if ingress.is_some_and(|i| !i.is_empty()) {
            Current("the load balancer has an address".into())
        } else {
            Progressing("the load balancer has no address yet".into())
        }
    })
}

fn claim(object: &Value) -> Health {
    match object["status"]["phase"].as_str() {
        Some("Bound") => Current("the claim is bound".into()),
        Some("Lost") => Degraded("the claim has lost its volume".into()),
        _ => Progressing("the claim is not bound yet".into()),
    }
}

fn namespace(object: &Value) -> Health {
    if object["status"]["phase"] == "Terminating" {
        Progressing("the namespace is being deleted".into())
    } else {
        Current("the namespace is active".into())
    }
}

fn definition(object: &Value) -> Health {
    if let Some(taken) = condition(object, "NamesAccepted").filter(|c| c.status == "False") {
        return Degraded(taken.told("NamesAccepted"));
    }
    if let Some(bad) = condition(object, "NonStructuralSchema").filter(|c| c.status == "True") {
        return Degraded(bad.told("NonStructuralSchema"));
    }
    match condition(object, "Established") {
        Some(c) if c.status == "True" => Current("its kind is served".into()),
        _ => Progressing("its kind is not served yet".into()),
    }
}

fn api_service(object: &Value) -> Health {
    match condition(object, "Available") {
        Some(c) if c.status == "True" => Current("the API answers".into()),
        Some(c) if c.status == "False" => Degraded(c.told("Available")),
        _ => Progressing("not known yet whether the API answers".into()),
    }
}

/// Any other kind, by the conditions that many agree on.
fn by_conditions(object: &Value) -> Option<Health> {
    let is = |type_: &str, status: &str| {
        condition(object, type_)
            .filter(|c| c.status == status)
            .map(|c| c.told(type_))
    };
    let known = [
        "Stalled",
        "Degraded",
        "Failed",
        "Ready",
        "Available",
        "Progressing",
        "Reconciling",
    ];
    let list = object["status"]["conditions"].as_array()?;
    if !list
        .iter()
        .any(|c| c["type"].as_str().is_some_and(|t| known.contains(&t)))
    {
        return None;
    }
    if object["status"]["observedGeneration"].is_i64()
        && let Some(waiting) = observed(object)
    {
        return Some(waiting);
    }
    let wrong = ["Stalled", "Degraded", "Failed"]
        .into_iter()
        .find_map(|t| is(t, "True"));
    let moving = || {
        ["Progressing", "Reconciling"]
            .into_iter()
            .find_map(|t| is(t, "True"))
    };
    let missing = || {
        let unknown = |t| is(t, "False").or_else(|| is(t, "Unknown"));
        ["Ready", "Available"].into_iter().find_map(unknown)
    };
    Some(match wrong {
        Some(wrong) => Degraded(wrong),
        None => match (missing(), moving()) {
            // Unless it says itself that it works on it.
            (Some(missing), None) if is("Available", "False").is_some() => Degraded(missing),
            (Some(missing), _) => Progressing(missing),
            // Ready is the last word where an operator says Progressing for ever.
            (None, Some(moving)) if is("Ready", "True").is_none() && is("Available", "True").is_none() => {
                Progressing(moving)
            }
            _ => Current("its conditions say that all is well".into()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[allow(clippy::needless_pass_by_value)] // tables of literals read better
    fn object(api: &str, kind: &str, spec: Value, status: Value) -> Value {
        json!({"apiVersion": api, "kind": kind, "metadata": {"generation": 2}, "spec": spec, "status": status})
    }

    fn told(health: Option<Health>) -> (&'static str, String) {
        match health {
            None => ("none", String::new()),
            Some(Current(m)) => ("current", m),
            Some(Progressing(m)) => ("progressing", m),
            Some(Degraded(m)) => ("degraded", m),
        }
    }

    #[test]
    fn workloads() {
        let with = |status: Value, conditions: Value| {
            let mut status = status;
            status["observedGeneration"] = 2.into();
            status["conditions"] = conditions;
            object("apps/v1", "Deployment", json!({"replicas": 3}), status)
        };
        let rollout =
            |status: &str, reason: &str| json!([{"type": "Progressing", "status": status, "reason": reason}]);
        let counts = |updated: i64, total: i64, available: i64| json!({"updatedReplicas": updated, "replicas": total, "availableReplicas": available});
        let set = |kind: &str, status: Value| object("apps/v1", kind, json!({"replicas": 3}), status);
        let cases = [
            (
                object(
                    "apps/v1",
                    "Deployment",
                    json!({}),
                    json!({"observedGeneration": 1}),
                ),
                "progressing",
                "generation 2",
            ),
            (
                with(counts(1, 3, 3), json!([])),
                "progressing",
                "1 of 3 replicas are updated",
            ),
            (with(counts(3, 4, 3), json!([])), "progressing", "1 old"),
            (
                with(counts(3, 3, 2), rollout("True", "ReplicaSetUpdated")),
                "progressing",
                "2 of 3",
            ),
            (
                with(counts(3, 3, 2), rollout("True", "NewReplicaSetAvailable")),
                "degraded",
                "2 of 3",
            ),
            (
                with(counts(1, 3, 2), rollout("False", "ProgressDeadlineExceeded")),
                "degraded",
                "ProgressDeadlineExceeded",
            ),
            (
                with(counts(3, 3, 3), rollout("True", "NewReplicaSetAvailable")),
                "current",
                "3 of 3",
            ),
            (
                with(
                    counts(0, 0, 0),
                    json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]),
                ),
                "degraded",
                "quota",
            ),
            (
                set(
                    "StatefulSet",
                    json!({"observedGeneration": 2, "readyReplicas": 2}),
                ),
                "progressing",
                "2 of 3",
            ),
            (
                set(
                    "StatefulSet",
                    json!({"observedGeneration": 2, "readyReplicas": 3, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"}),
                ),
                "progressing",
                "1 of 3",
            ),
            (
                set(
                    "StatefulSet",
                    json!({"observedGeneration": 2, "readyReplicas": 3, "updatedReplicas": 3, "currentRevision": "b", "updateRevision": "b"}),
                ),
                "current",
                "",
            ),
            (
                set(
                    "DaemonSet",
                    json!({"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 2}),
                ),
                "progressing",
                "2 of 3",
            ),
            (set("DaemonSet", json!({"observedGeneration": 2})), "current", ""),
        ];
        for (object, expected, part) in cases {
            let (state, message) = told(derive(&object));
            assert_eq!(state, expected, "{object}");
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn other_known_kinds() {
        let is = |type_: &str, status: &str| json!({"conditions": [{"type": type_, "status": status, "reason": "R"}]});
        let none = || json!({});
        let cases = [
            (
                object("batch/v1", "Job", none(), json!({"succeeded": 0})),
                "progressing",
            ),
            (
                object("batch/v1", "Job", none(), is("Complete", "True")),
                "current",
            ),
            (
                object("batch/v1", "Job", none(), is("Failed", "True")),
                "degraded",
            ),
            (object("batch/v1", "CronJob", none(), none()), "current"),
            (
                object("v1", "Pod", none(), json!({"phase": "Pending"})),
                "progressing",
            ),
            (
                object("v1", "Pod", none(), json!({"phase": "Running"})),
                "progressing",
            ),
            (
                object(
                    "v1",
                    "Pod",
                    none(),
                    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
                ),
                "current",
            ),
            (
                object("v1", "Pod", none(), json!({"phase": "Failed"})),
                "degraded",
            ),
            (
                object(
                    "v1",
                    "Pod",
                    none(),
                    json!({"phase": "Pending", "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
                ),
                "degraded",
            ),
            (
                object("v1", "Service", json!({"type": "ClusterIP"}), none()),
                "none",
            ),
            (
                object(
                    "v1",
                    "Service",
                    json!({"type": "LoadBalancer"}),
                    json!({"loadBalancer": {}}),
                ),
                "progressing",
            ),
            (
                object(
                    "v1",
                    "Service",
                    json!({"type": "LoadBalancer"}),
                    json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}),
                ),
                "current",
            ),
            (
                object("v1", "PersistentVolumeClaim", none(), json!({"phase": "Pending"})),
                "progressing",
            ),
            (
                object("v1", "PersistentVolumeClaim", none(), json!({"phase": "Bound"})),
                "current",
            ),
            (
                object("v1", "PersistentVolumeClaim", none(), json!({"phase": "Lost"})),
                "degraded",
            ),
            (
                object("v1", "Namespace", none(), json!({"phase": "Active"})),
                "current",
            ),
            (
                object("v1", "Namespace", none(), json!({"phase": "Terminating"})),
                "progressing",
            ),
            (
                object(
                    "apiextensions.k8s.io/v1",
                    "CustomResourceDefinition",
                    none(),
                    none(),
                ),
                "progressing",
            ),
            (
                object(
                    "apiextensions.k8s.io/v1",
                    "CustomResourceDefinition",
                    none(),
                    is("Established", "True"),
                ),
                "current",
            ),
            (
                object(
                    "apiextensions.k8s.io/v1",
                    "CustomResourceDefinition",
                    none(),
                    is("NamesAccepted", "False"),
                ),
                "degraded",
            ),
            (
                object(
                    "apiregistration.k8s.io/v1",
                    "APIService",
                    none(),
                    is("Available", "False"),
                ),
                "degraded",
            ),
            (object("v1", "ConfigMap", none(), Value::Null), "none"),
        ];
        for (object, expected) in cases {
            assert_eq!(told(derive(&object)).0, expected, "{object}");
        }
    }

    #[test]
    fn any_other_kind_by_its_conditions() {
        let with = |conditions: &[(&str, &str)]| {
            let list: Vec<Value> = conditions
                .iter()
                .map(|(t, s)| json!({"type": t, "status": s, "reason": "R"}))
                .collect();
            object("x.io/v1", "Thing", json!({}), json!({"conditions": list}))
        };
        let cases: [(&[(&str, &str)], &str); 10] = [
            (&[("Ready", "True")], "current"),
            (&[("Ready", "False")], "progressing"),
            (&[("Ready", "Unknown")], "progressing"),
            (&[("Ready", "False"), ("Stalled", "True")], "degraded"),
            (&[("Available", "True"), ("Progressing", "True")], "current"),
            (&[("Available", "False")], "degraded"),
            (&[("Available", "False"), ("Progressing", "True")], "progressing"),
            (&[("Reconciling", "True")], "progressing"),
            (&[("Degraded", "True"), ("Available", "True")], "degraded"),
            (&[("Whatever", "False")], "none"),
        ];
        for (conditions, expected) in cases {
            assert_eq!(told(derive(&with(conditions))).0, expected, "{conditions:?}");
        }
        let mut behind = with(&[("Ready", "True")]);
        behind["status"]["observedGeneration"] = 1.into();
        assert_eq!(told(derive(&behind)).0, "progressing");
    }
}
