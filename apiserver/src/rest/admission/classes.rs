//! Classes that are used when none is named (DefaultStorageClass, DefaultIngressClass), and PriorityClasses that must not
//! come or go (Priority).

use super::{Api, Operation, Review, subject};
use crate::ApiError;
use crate::object;
use crate::rest::store_error;
use crate::store::Range;
use serde_json::{Value, json};
use std::cmp::Reverse;

const STORAGE: &str = "storage.k8s.io/storageclasses";
const INGRESS: &str = "networking.k8s.io/ingressclasses";
const PRIORITY: &str = "scheduling.k8s.io/priorityclasses";
const DEFAULT_STORAGE: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
const DEFAULT_INGRESS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
/// The older ways to name a class.
const STORAGE_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const SYSTEM: [&str; 2] = ["system-node-critical", "system-cluster-critical"];

fn all(api: &Api, review: &Review<'_>, resource: &str) -> Result<Vec<Value>, ApiError> {
    let range = Range {
        resource: resource.to_owned(),
        ..Range::default()
    };
    let page = api.store.list(&range);
    let page = page.map_err(|e| store_error(&e, review.resource, review.name))?;
    Ok(page.entries.iter().map(|entry| entry.value()).collect())
}

/// Names the class of a new claim or Ingress that names none.
pub fn defaults(api: &Api, review: &Review<'_>, object: &mut Value) -> Result<(), ApiError> {
    if review.operation != Operation::Create || !object["spec"].is_object() {
        return Ok(());
    }
    let (field, annotation, classes, marks) = match &*review.resource.storage {
        "/persistentvolumeclaims" => (
            "storageClassName",
            STORAGE_ANNOTATION,
            STORAGE,
            &DEFAULT_STORAGE[..],
        ),
        "networking.k8s.io/ingresses" => (
            "ingressClassName",
            INGRESS_ANNOTATION,
            INGRESS,
            &DEFAULT_INGRESS[..],
        ),
        _ => return Ok(()),
    };
    let named = !object["spec"][field].is_null() || !object["metadata"]["annotations"][annotation].is_null();
    if named {
        return Ok(());
    }
    if let Some(class) = usual(all(api, review, classes)?, marks).first() {
        object["spec"][field] = object::name(class).into();
    }
    Ok(())
}

/// The classes that are to be used by default: the newest first, and of the same age by name.
fn usual(mut classes: Vec<Value>, annotations: &[&str]) -> Vec<Value> {
    classes.retain(|class| {
        annotations
            .iter()
            .any(|key| class["metadata"]["annotations"][*key] == "true")
    });
    classes.sort_by_key(|class| {
        (
            Reverse(object::meta(class, "creationTimestamp").to_owned()),
            object::name(class).to_owned(),
        )
    });
    classes
}

/// Refuses a second default PriorityClass, and the end of one that the system needs.
pub fn validate(api: &Api, review: &Review<'_>, new: Option<&Value>) -> Result<(), ApiError> {
    if &*review.resource.storage != PRIORITY {
        return Ok(());
    }
    let refuse = |why: &str| Err(ApiError::forbidden(subject(review.resource, review.name), why));
    let Some(new) = new else {
        if review.operation == Operation::Delete && SYSTEM.contains(&review.name) {
            return refuse("this is a system priority class and cannot be deleted");
        }
        return Ok(());
    };
    if new["globalDefault"] != json!(true) {
        return Ok(());
    }
    let other = all(api, review, PRIORITY)?
        .into_iter()
        .find(|class| class["globalDefault"] == json!(true) && object::name(class) != object::name(new));
    match other {
        Some(other) => refuse(&format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            object::name(&other)
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_default_is_used() {
        let class = |name: &str, at: &str, default: &str| json!({"metadata": {"name": name, "creationTimestamp": at, "annotations": {DEFAULT_STORAGE[0]: default}}});
        let classes = vec![
            class("old", "2024-01-01T00:00:00Z", "true"),
            class("b", "2025-01-01T00:00:00Z", "true"),
            class("a", "2025-01-01T00:00:00Z", "true"),
            class("not", "2026-01-01T00:00:00Z", "false"),
        ];
        let names: Vec<String> = usual(classes, &DEFAULT_STORAGE)
            .iter()
            .map(|class| object::name(class).to_owned())
            .collect();
        assert_eq!(names, ["a", "b", "old"]);
    }
}
