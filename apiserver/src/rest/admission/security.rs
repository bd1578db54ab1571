//! Pod Security: what labels of a namespace say pods in it may do (KEP-2579, kube-apiserver's plugin PodSecurity).
//!
//! `enforce` refuses pods, `warn` warns of pods and of what makes pods. `audit` is for an audit log, which there is none of.

mod checks;
mod level;

use super::{Api, Operation, Review, subject};
use crate::ApiError;
use crate::object;
use crate::rest::store_error;
use crate::store::{Key, Range};
use checks::Verdict;
use level::{LevelVersion, Policy};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Subresources of pods that change nothing a policy looks at.
const IGNORED: [&str; 4] = ["binding", "eviction", "log", "status"];
/// Most pods of a namespace that are looked at when its label changes.
const MOST_PODS: usize = 3000;

/// Where a kind has its pods, as a path to what has metadata and spec.
fn template(storage: &str) -> Option<&'static str> {
    match storage {
        "/podtemplates" => Some("/template"),
        "/replicationcontrollers"
        | "apps/deployments"
        | "apps/replicasets"
        | "apps/statefulsets"
        | "apps/daemonsets"
        | "batch/jobs" => Some("/spec/template"),
        "batch/cronjobs" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// Refuses what the labels of a namespace forbid; gives warnings.
pub fn validate(
    api: &Api,
    review: &Review<'_>,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<Vec<String>, ApiError> {
    let Some(new) = new else {
        return Ok(Vec::new());
    };
    match &*review.resource.storage {
        "/namespaces" if review.subresource.is_empty() => namespace(api, review, new, old),
        "/pods" if !IGNORED.contains(&review.subresource) => {
            let policy = policy(api, review);
            if policy.is_privileged() || old.is_some_and(|old| !is_significant(new, old)) {
                return Ok(Vec::new());
            }
            let verdict = checks::verdict(policy.enforce, new);
            if verdict.allows() {
                return Ok(warnings(policy.warn, new));
            }
            let (level, detail) = (policy.enforce, verdict.detail());
            let message = format!("violates PodSecurity \"{level}\": {detail}");
            Err(ApiError::forbidden(
                subject(review.resource, review.name),
                &message,
            ))
        }
        storage if review.subresource.is_empty() => {
            let Some(pod) = template(storage).and_then(|path| new.pointer(path)) else {
                return Ok(Vec::new());
            };
            Ok(warnings(policy(api, review).warn, pod))
        }
        _ => Ok(Vec::new()),
    }
}

fn warnings(level: LevelVersion, pod: &Value) -> Vec<String> {
    let verdict = checks::verdict(level, pod);
    if verdict.allows() {
        return Vec::new();
    }
    vec![format!(
        "would violate PodSecurity \"{level}\": {}",
        verdict.detail()
    )]
}

/// What the labels of the namespace of a write say.
fn policy(api: &Api, review: &Review<'_>) -> Policy {
    let entry = api.store.get(&Key::new("/namespaces", "", review.namespace));
    let labels = entry.map(|entry| entry.value()["metadata"]["labels"].take());
    Policy::of(&labels.unwrap_or_default()).0
}

/// Whether a change of a pod is one that a policy looks at: another image, another container.
fn is_significant(new: &Value, old: &Value) -> bool {
    let containers = |pod: &Value, list: &str| {
        let all = pod["spec"][list].as_array().cloned().unwrap_or_default();
        all.into_iter()
            .map(|mut c| (c["name"].take(), c["image"].take()))
            .collect::<Vec<_>>()
    };
    let images = |pod: &Value, list: &str| {
        containers(pod, list)
            .into_iter()
            .map(|(_, image)| image)
            .collect::<Vec<_>>()
    };
    let ephemeral = containers(old, "ephemeralContainers");
    ["containers", "initContainers"]
        .iter()
        .any(|list| images(new, list) != images(old, list))
        || containers(new, "ephemeralContainers")
            .iter()
            .any(|container| !ephemeral.contains(container))
}

/// Labels have to make sense, and what they forbid of the pods that are there is told.
fn namespace(
    api: &Api,
    review: &Review<'_>,
    new: &Value,
    old: Option<&Value>,
) -> Result<Vec<String>, ApiError> {
    let (policy, errors) = Policy::of(&new["metadata"]["labels"]);
    let (former, old_errors) = old
        .map(|old| Policy::of(&old["metadata"]["labels"]))
        .unwrap_or_default();
    if !errors.is_empty() && errors != old_errors {
        return Err(ApiError::invalid("", "Namespace", object::name(new), errors));
    }
    let (wanted, was) = (policy.enforce, former.enforce);
    let stricter = wanted != was
        && !wanted.is_privileged()
        && !(wanted.version == was.version && wanted.level <= was.level);
    if review.operation != Operation::Update || !stricter {
        return Ok(Vec::new());
    }
    let range = Range {
        resource: "/pods".to_owned(),
        namespace: Some(object::name(new).to_owned()),
        ..Range::default()
    };
    let page = api.store.list(&range);
    let page = page.map_err(|e| store_error(&e, review.resource, review.name))?;
    let pods: Vec<Value> = page.entries.iter().map(|entry| entry.value()).collect();
    Ok(existing(&pods, object::name(new), wanted))
}

/// What is said of pods that are there and would not be let in.
fn existing(pods: &[Value], namespace: &str, wanted: LevelVersion) -> Vec<String> {
    let mut controllers = BTreeSet::new();
    let is_first = |pod: &&Value| {
        let owners = pod["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten();
        let controller = owners
            .filter(|o| o["controller"] == true)
            .find_map(|o| o["uid"].as_str());
        controller.is_none_or(|uid| controllers.insert(uid.to_owned()))
    };
    // One of each controller's pods comes before its others.
    let (mut looked_at, others): (Vec<&Value>, Vec<&Value>) = pods.iter().partition(is_first);
    looked_at.extend(others);
    looked_at.truncate(MOST_PODS);
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pod in &looked_at {
        let verdict: Verdict = checks::verdict(wanted, pod);
        if !verdict.allows() {
            found.entry(verdict.reason()).or_default().push(object::name(pod));
        }
    }
    let mut out = Vec::new();
    if looked_at.len() < pods.len() {
        out.push(format!(
            "new PodSecurity enforce level only checked against the first {} of {} existing pods",
            looked_at.len(),
            pods.len()
        ));
    }
    if found.is_empty() {
        return out;
    }
    out.push(format!(
        "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{wanted}\""
    ));
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reason, names)| {
            let first = names.iter().min().copied().unwrap_or_default();
            match names.len() - 1 {
                0 => format!("{first}: {reason}"),
                1 => format!("{first} (and 1 other pod): {reason}"),
                more => format!("{first} (and {more} other pods): {reason}"),
            }
        })
        .collect();
    lines.sort();
    out.extend(lines);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_that_are_there_are_told_of_once_for_each_reason() {
        let pod = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
        let pods = [
            pod("b", json!({"hostPID": true})),
            pod("a", json!({"hostPID": true})),
            pod(
                "c",
                json!({"hostPID": true, "containers": [{"name": "c", "securityContext": {"privileged": true}}]}),
            ),
            pod("d", json!({})),
        ];
        let (policy, _) = Policy::of(&json!({"pod-security.kubernetes.io/enforce": "baseline"}));
        assert_eq!(
            existing(&pods, "n", policy.enforce),
            [
                "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
                "a (and 1 other pod): host namespaces",
                "c: host namespaces, privileged",
            ]
        );
        assert!(existing(&pods[3..], "n", policy.enforce).is_empty());
    }

    #[test]
    fn some_changes_of_a_pod_are_looked_at() {
        let old = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
        for (pointer, value, want) in [
            ("/spec/containers/0/image", json!("j"), true),
            ("/spec/containers/0/name", json!("d"), false),
            (
                "/spec",
                json!({"containers": [{"image": "i"}], "ephemeralContainers": [{"name": "e"}]}),
                true,
            ),
        ] {
            let mut new = old.clone();
            *new.pointer_mut(pointer).unwrap() = value;
            assert_eq!(is_significant(&new, &old), want, "{new}");
        }
    }
}
