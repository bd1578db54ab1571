//! RuntimeClasses: what pods of one cost and where they can run (kube-apiserver's plugin RuntimeClass).

use super::{Api, Operation, Review, subject};
use crate::ApiError;
use crate::store::Key;
use serde_json::Value;

const CLASSES: &str = "node.k8s.io/runtimeclasses";

fn concerns(review: &Review<'_>) -> bool {
    &*review.resource.storage == "/pods"
        && review.operation == Operation::Create
        && review.subresource.is_empty()
}

fn refuse<T>(review: &Review<'_>, why: &str) -> Result<T, ApiError> {
    Err(ApiError::forbidden(subject(review.resource, review.name), why))
}

/// The class that a pod names.
fn class(api: &Api, review: &Review<'_>, pod: &Value) -> Result<Value, ApiError> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str() else {
        return Ok(Value::Null);
    };
    match api.store.get(&Key::new(CLASSES, "", name)) {
        Some(entry) => Ok(entry.value()),
        None => refuse(review, &format!("pod rejected: RuntimeClass {name:?} not found")),
    }
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn is_empty(amounts: &Value) -> bool {
    amounts.as_object().is_none_or(serde_json::Map::is_empty)
}

/// Writes the overhead and the scheduling of its class into a new pod.
pub fn defaults(api: &Api, review: &Review<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if !concerns(review) || !pod["spec"].is_object() {
        return Ok(());
    }
    let class = class(api, review, pod)?;
    let overhead = &class["overhead"]["podFixed"];
    if !class["overhead"].is_null() {
        let said = &pod["spec"]["overhead"];
        if !is_empty(said) && said != overhead {
            return refuse(review, MISMATCH);
        }
        if !is_empty(overhead) {
            pod["spec"]["overhead"] = overhead.clone();
        }
    }
    schedule(&class["scheduling"], &mut pod["spec"]).or_else(|why| refuse(review, &why))
}

/// Holds the overhead of a new pod against that of its class.
pub fn validate(api: &Api, review: &Review<'_>, pod: &Value) -> Result<(), ApiError> {
    if !concerns(review) {
        return Ok(());
    }
    let class = class(api, review, pod)?;
    let (said, wanted) = (&pod["spec"]["overhead"], &class["overhead"]["podFixed"]);
    if class["overhead"].is_null() {
        if said.is_null() {
            return Ok(());
        }
        let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        return refuse(review, why);
    }
    if said == wanted || is_empty(said) && is_empty(wanted) {
        Ok(())
    } else {
        refuse(review, MISMATCH)
    }
}

fn schedule(scheduling: &Value, spec: &mut Value) -> Result<(), String> {
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let said = &spec["nodeSelector"][key];
        if !said.is_null() && said != value {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(value),
                text(said)
            ));
        }
        spec["nodeSelector"][key] = value.clone();
    }
    let more = scheduling["tolerations"].as_array().cloned().unwrap_or_default();
    if scheduling.is_null() {
        return Ok(());
    }
    let mut all = spec["tolerations"].as_array().cloned().unwrap_or_default();
    all.extend(more);
    let merged = merged(&all);
    if !merged.is_empty() {
        spec["tolerations"] = Value::Array(merged);
    }
    Ok(())
}

/// Tolerations without those that others make superfluous; of two that are the same the first stays.
fn merged(all: &[Value]) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for (i, one) in all.iter().enumerate() {
        let before = kept.iter().any(|other| covers(other, one));
        let after = all[i + 1..]
            .iter()
            .any(|other| other != one && covers(other, one));
        if !before && !after {
            kept.push(one.clone());
        }
    }
    kept
}

/// Whether what `other` tolerates has in it all that `one` does.
fn covers(other: &Value, one: &Value) -> bool {
    let text = |toleration: &Value, key: &str| toleration[key].as_str().unwrap_or_default().to_owned();
    if other == one {
        return true;
    }
    let exists = text(other, "operator") == "Exists";
    let key = text(other, "key");
    if text(one, "key") != key && !(key.is_empty() && exists) {
        return false;
    }
    let effect = text(other, "effect");
    if text(one, "effect") != effect && !effect.is_empty() {
        return false;
    }
    if effect == "NoExecute"
        && let Some(most) = other["tolerationSeconds"].as_i64()
        && one["tolerationSeconds"]
            .as_i64()
            .is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    match text(other, "operator").as_str() {
        "Exists" => true,
        "Equal" | "" => {
            matches!(text(one, "operator").as_str(), "Equal" | "")
                && text(one, "value") == text(other, "value")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tolerations_are_merged() {
        let key = |key: &str, effect: &str| json!({"key": key, "operator": "Exists", "effect": effect});
        let everything = json!({"operator": "Exists"});
        for (all, want) in [
            (vec![], vec![]),
            (vec![key("a", ""), key("a", "")], vec![key("a", "")]),
            (vec![key("a", "NoExecute"), key("a", "")], vec![key("a", "")]),
            (
                vec![key("a", "NoExecute"), key("b", "")],
                vec![key("a", "NoExecute"), key("b", "")],
            ),
            (vec![key("a", ""), everything.clone()], vec![everything.clone()]),
            (
                vec![
                    json!({"key": "a", "value": "1"}),
                    json!({"key": "a", "value": "2"}),
                ],
                vec![
                    json!({"key": "a", "value": "1"}),
                    json!({"key": "a", "value": "2"}),
                ],
            ),
        ] {
            assert_eq!(merged(&all), want, "{all:?}");
        }
    }

    #[test]
    fn nodes_are_selected_by_both() {
        let scheduling = json!({"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}]});
        let mut spec = json!({"nodeSelector": {"c": "d"}});
        schedule(&scheduling, &mut spec).unwrap();
        assert_eq!(
            spec,
            json!({"nodeSelector": {"a": "b", "c": "d"}, "tolerations": [{"key": "k"}]})
        );
        let mut other = json!({"nodeSelector": {"a": "x"}});
        let why = "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = x";
        assert_eq!(schedule(&scheduling, &mut other), Err(why.to_owned()));
    }
}
