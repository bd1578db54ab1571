//! The priority of a new pod is that of its PriorityClass (kube-apiserver's plugin Priority).

use super::{Api, Operation, Review, subject};
use crate::ApiError;
use crate::object;
use crate::rest::store_error;
use crate::store::{Key, Range};
use serde_json::Value;

const CLASSES: &str = "scheduling.k8s.io/priorityclasses";

/// Writes the priority of a new pod, or refuses one that says another.
pub fn priority(api: &Api, review: &Review<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let concerned = &*review.resource.storage == "/pods" && review.operation == Operation::Create;
    if !concerned || !pod["spec"].is_object() {
        return Ok(());
    }
    let refuse = |detail: &str| Err(ApiError::forbidden(subject(review.resource, review.name), detail));
    let name = pod["spec"]["priorityClassName"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let class = if name.is_empty() {
        usual(api, review)?
    } else {
        let found = api.store.get(&Key::new(CLASSES, "", name.as_str()));
        if found.is_none() {
            return refuse(&format!("no PriorityClass with name {name} was found"));
        }
        found.map(|entry| entry.value())
    };
    let number = class.as_ref().and_then(|c| c["value"].as_i64()).unwrap_or(0);
    let policy = class.as_ref().and_then(|c| c["preemptionPolicy"].as_str());
    let policy = policy.unwrap_or("PreemptLowerPriority");
    let spec = object::child_mut(pod, "spec");
    if let Some(class) = &class {
        spec.insert("priorityClassName".into(), object::name(class).into());
    }
    if let Some(given) = spec
        .get("priority")
        .and_then(Value::as_i64)
        .filter(|given| *given != number)
    {
        return refuse(&format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {number} from the given PriorityClass name"
        ));
    }
    if let Some(given) = spec
        .get("preemptionPolicy")
        .and_then(Value::as_str)
        .filter(|given| *given != policy)
    {
        return refuse(&format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    spec.insert("priority".into(), number.into());
    spec.insert("preemptionPolicy".into(), policy.into());
    Ok(())
}

/// The class of pods that name none: of those that offer themselves the lowest.
fn usual(api: &Api, review: &Review<'_>) -> Result<Option<Value>, ApiError> {
    let range = Range {
        resource: CLASSES.to_owned(),
        ..Range::default()
    };
    let page = api.store.list(&range);
    let page = page.map_err(|e| store_error(&e, review.resource, review.name))?;
    let classes = page.entries.iter().map(|entry| entry.value());
    Ok(classes
        .filter(|class| class["globalDefault"] == Value::Bool(true))
        .min_by_key(|class| class["value"].as_i64()))
}
