//! Pods: made from a template, and running (or done) as soon as they are there.

use super::node;
use crate::controllers::kinds::PODS;
use crate::controllers::plan::{Action, Plan, is_true};
use crate::object;
use crate::rest::rfc3339;
use jiff::Timestamp;
use serde_json::{Value, json};

/// FNV-1a: the same text always has the same name.
pub fn hash(text: &str) -> u32 {
    text.bytes()
        .fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// A number in the letters of generated names, which spell no words.
pub fn letters(mut number: u32, length: usize) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = String::with_capacity(length);
    for _ in 0..length {
        text.push(char::from(ALPHABET[(number % 27) as usize]));
        number /= 27;
    }
    text
}

/// What a template is called: `pod-template-hash`, `controller-revision-hash`.
pub fn template_hash(template: &Value) -> String {
    letters(hash(&template.to_string()), 7)
}

/// A pod of a template, on a node, controlled by `owner`.
pub fn from_template(
    owner: &Value,
    template: &Value,
    name: &str,
    on: &str,
    labels: &[(&str, &str)],
) -> Value {
    let mut metadata = json!({
        "name": name,
        "namespace": object::namespace(owner),
        "ownerReferences": [reference(owner)],
        "labels": template["metadata"]["labels"].as_object().cloned().unwrap_or_default(),
    });
    if let Some(annotations) = template["metadata"]["annotations"].as_object() {
        metadata["annotations"] = json!(annotations);
    }
    for (key, value) in labels {
        metadata["labels"][*key] = (*value).into();
    }
    let mut spec = template["spec"].clone();
    spec["nodeName"] = on.into();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// The reference of a controller.
pub fn reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"],
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The node that pods of this name are on.
pub fn node_for(name: &str, nodes: usize) -> String {
    node::name(hash(name) as usize % nodes.max(1))
}

/// Whether it is neither done nor going.
pub fn is_active(pod: &Value) -> bool {
    !object::is_deleting(pod) && !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// Whether it is ready.
pub fn is_ready(pod: &Value) -> bool {
    is_true(pod, "Ready")
}

/// A new pod runs. One that is not to run forever, and a Job made, is done.
pub fn decide(pod: &Value, now: Timestamp) -> Plan {
    let phase = pod["status"]["phase"].as_str().unwrap_or("Pending");
    if object::is_deleting(pod) {
        // Its containers end as soon as they are told to: nothing uses up the time they have. Who holds it by a finalizer
        // is waited for by the API server.
        let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64();
        return match grace {
            Some(seconds) if seconds > 0 => Plan::of([Action::delete_ended(pod)]),
            _ => Plan::default(),
        };
    }
    if phase != "Pending" {
        return Plan::default();
    }
    let owners = pod["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten();
    let completes = pod["spec"]["restartPolicy"] != "Always" && owners.clone().any(|o| o["kind"] == "Job");
    let now = rfc3339(now);
    let condition = |kind: &str| {
        let mut condition = json!({"type": kind, "status": "True", "lastTransitionTime": now});
        if completes && matches!(kind, "Ready" | "ContainersReady") {
            condition["status"] = "False".into();
            condition["reason"] = "PodCompleted".into();
        } else if completes && kind == "Initialized" {
            condition["reason"] = "PodCompleted".into();
        }
        condition
    };
    let uid = object::uid(pod);
    let done = json!({"terminated": {
        "exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now,
        "containerID": format!("simulated://{uid}"),
    }});
    let container = |c: &Value, init: bool| {
        let ended = completes || init;
        let state = if ended {
            done.clone()
        } else {
            json!({"running": {"startedAt": now}})
        };
        json!({
            "name": c["name"], "image": c["image"], "imageID": c["image"], "ready": !completes,
            "started": !ended, "restartCount": 0, "state": state,
            "containerID": format!("simulated://{uid}/{}", c["name"].as_str().unwrap_or_default()),
        })
    };
    let containers = |field: &str| -> Vec<Value> {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.map(|c| container(c, field == "initContainers")).collect()
    };
    let kinds = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ];
    let number = hash(uid);
    let address = format!("10.244.{}.{}", number % 256, number / 256 % 254 + 1);
    let mut pod = pod.clone();
    let status = object::child_mut(&mut pod, "status");
    status.insert(
        "phase".into(),
        if completes { "Succeeded" } else { "Running" }.into(),
    );
    status.insert("conditions".into(), kinds.iter().map(|k| condition(k)).collect());
    status.insert("startTime".into(), now.clone().into());
    status.insert("podIP".into(), address.clone().into());
    status.insert("podIPs".into(), json!([{"ip": address}]));
    status.insert("containerStatuses".into(), containers("containers").into());
    let init = containers("initContainers");
    if !init.is_empty() {
        status.insert("initContainerStatuses".into(), init.into());
    }
    Plan::of([Action::status(PODS, pod)])
}

/// What a controller with fixed names for its pods does: make the missing, remove the others. `wanted` are names and
/// how to make them. Names that a going pod still has are waited for.
pub fn align<'a>(
    pods: &[Value],
    wanted: impl IntoIterator<Item = (String, Box<dyn Fn(&str) -> Value + 'a>)>,
    stale: impl Fn(&Value) -> bool,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for (name, make) in wanted {
        if !pods.iter().any(|p| object::name(p) == name) {
            actions.push(Action::create(PODS, make(&name)));
        }
        names.insert(name);
    }
    for pod in pods.iter().filter(|p| !object::is_deleting(p)) {
        if !names.contains(object::name(pod)) || stale(pod) {
            actions.push(Action::delete(PODS, pod, None));
        }
    }
    actions
}

/// Sets fields of `status`; zeros and nulls are left out, as Go's omitempty does. Returns whether anything changed.
pub fn set_status(object: &mut Value, fields: &[(&str, Value)], keep_zero: &[&str]) -> bool {
    let before = object["status"].clone();
    let status = object::child_mut(object, "status");
    for (name, value) in fields {
        let empty = value.is_null() || (value.as_i64() == Some(0) && !keep_zero.contains(name));
        if empty {
            status.remove(*name);
        } else {
            status.insert((*name).to_owned(), value.clone());
        }
    }
    object["status"] != before
}
