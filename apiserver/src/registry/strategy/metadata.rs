//! Rules of `metadata` for every kind, with kube-apiserver's messages (apimachinery `api/validation/objectmeta.go`).

use crate::controllers::crd::CLEANUP as CRD_CLEANUP;
use crate::error::{FieldError, FieldErrorKind};
use crate::object;
use crate::registry::Resource;
use crate::registry::names;
use crate::registry::strategy::json::same;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// All annotations of an object together, keys and values, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;
const IMMUTABLE: &str = "field is immutable";

/// How a kind's objects may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameRule {
    Subdomain,
    Label,
    ServiceName,
    PathSegment,
    Address,
}

fn name_rule(resource: &Resource) -> NameRule {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") | ("apps", "statefulsets") => NameRule::Label,
        ("", "services") => NameRule::ServiceName,
        ("rbac.authorization.k8s.io" | "apiregistration.k8s.io" | "events.k8s.io", _)
        | ("", "events")
        | ("policy", "poddisruptionbudgets") => NameRule::PathSegment,
        ("networking.k8s.io", "ipaddresses") => NameRule::Address,
        _ => NameRule::Subdomain,
    }
}

fn check_name(rule: NameRule, name: &str, prefix: bool) -> Vec<String> {
    // A generateName may end with what only its random end makes valid.
    let trimmed;
    let name = if prefix && name.len() > 1 && name.ends_with('-') {
        trimmed = format!("{}a", &name[..name.len() - 1]);
        trimmed.as_str()
    } else {
        name
    };
    match rule {
        NameRule::Subdomain => names::dns_subdomain(name),
        NameRule::Label | NameRule::ServiceName if name.contains('.') => {
            vec!["must not contain dots".to_owned()]
        }
        NameRule::Label | NameRule::ServiceName => names::dns_label(name),
        NameRule::PathSegment => names::path_segment(name),
        NameRule::Address => names::address(name),
    }
}

/// Errors of labels: bad keys and bad values, all at `field`.
pub fn validate_labels(labels: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        for message in names::label_key(key) {
            errors.push(FieldError::invalid(field, &json!(key), &message));
        }
        let value = value.as_str().unwrap_or_default();
        for message in names::label_value(value) {
            errors.push(FieldError::invalid(field, &json!(value), &message));
        }
    }
    errors
}

pub(super) fn validate_annotations(annotations: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        for message in names::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(field, &json!(key), &message));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        let message = format!("Too long: may not be more than {ANNOTATIONS_MAX} bytes");
        errors.push(FieldError::new(FieldErrorKind::TooLong, field, message));
    }
    errors
}

/// What is wrong with the finalizers. Those of custom resources need not be anyone's, which is warned of.
fn validate_finalizers(resource: &Resource, meta: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let all: Vec<&str> = meta["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (i, name) in all.iter().enumerate() {
        let field = format!("metadata.finalizers[{i}]");
        for message in names::qualified_name(name) {
            errors.push(FieldError::invalid(&field, &json!(name), &message));
        }
        let standard = matches!(
            *name,
            "kubernetes" | "orphan" | "foregroundDeletion" | CRD_CLEANUP
        );
        if !name.contains('/') && !standard && resource.custom.is_none() {
            let message = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(&field, &json!(name), message));
        }
    }
    if all.contains(&"orphan") && all.contains(&"foregroundDeletion") {
        let message = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid("metadata.finalizers", &json!(all), message));
    }
    errors
}

/// The references as Go writes them: fields in their declared order.
fn shown_owners(meta: &Value) -> String {
    let owners = meta["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|owner| {
            let order = [
                "apiVersion",
                "kind",
                "name",
                "uid",
                "controller",
                "blockOwnerDeletion",
            ];
            let fields = order
                .iter()
                .filter_map(|k| Some(format!("{k:?}:{}", owner.get(k)?)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        });
    format!("[{}]", owners.collect::<Vec<_>>().join(","))
}

fn validate_owners(meta: &Value) -> Vec<FieldError> {
    const FIELD: &str = "metadata.ownerReferences";
    let mut errors = Vec::new();
    let mut controller: Option<String> = None;
    for owner in meta["ownerReferences"].as_array().into_iter().flatten() {
        let part = |key: &str| owner[key].as_str().unwrap_or_default();
        let api_version = part("apiVersion");
        if api_version.is_empty() || api_version.ends_with('/') || api_version.matches('/').count() > 1 {
            let message = "version must not be empty";
            errors.push(FieldError::invalid(
                format!("{FIELD}.apiVersion"),
                &json!(api_version),
                message,
            ));
        }
        for key in ["kind", "name", "uid"] {
            if part(key).is_empty() {
                errors.push(FieldError::invalid(
                    format!("{FIELD}.{key}"),
                    &json!(""),
                    "must not be empty",
                ));
            }
        }
        if api_version == "v1" && part("kind") == "Event" {
            let message = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(FIELD, owner, message));
        }
        if owner["controller"] == json!(true) {
            let this = format!("{}/{}", part("kind"), part("name"));
            match &controller {
                Some(first) => {
                    let message = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    let shown = shown_owners(meta);
                    let message = format!("Invalid value: {shown}: {message}");
                    errors.push(FieldError::new(FieldErrorKind::Invalid, FIELD, message));
                }
                None => controller = Some(this),
            }
        }
    }
    errors
}

fn validate_common(meta: &Value) -> Vec<FieldError> {
    let mut errors = validate_labels(&meta["labels"], "metadata.labels");
    errors.extend(validate_annotations(&meta["annotations"], "metadata.annotations"));
    errors.extend(validate_owners(meta));
    errors
}

/// What is wrong with the metadata of an object to be created, or, changed, with all but its names.
pub fn validate(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let meta = &object["metadata"];
    let text = |key: &str| meta[key].as_str().unwrap_or_default();
    let rule = name_rule(resource);
    let mut errors = Vec::new();
    let generate = text("generateName");
    if !generate.is_empty() {
        for message in check_name(rule, generate, true) {
            errors.push(FieldError::invalid(
                "metadata.generateName",
                &json!(generate),
                &message,
            ));
        }
    }
    let name = text("name");
    if name.is_empty() {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else {
        for message in check_name(rule, name, false) {
            errors.push(FieldError::invalid("metadata.name", &json!(name), &message));
        }
    }
    let namespace = text("namespace");
    if resource.namespaced {
        if namespace.is_empty() {
            errors.push(FieldError::required("metadata.namespace", ""));
        } else {
            for message in names::dns_label(namespace) {
                errors.push(FieldError::invalid(
                    "metadata.namespace",
                    &json!(namespace),
                    &message,
                ));
            }
        }
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden(
            "metadata.namespace",
            "not allowed on this type",
        ));
    }
    if meta["generation"].as_i64().is_some_and(|g| g < 0) {
        let message = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(
            "metadata.generation",
            &meta["generation"],
            message,
        ));
    }
    errors.extend(validate_common(meta));
    errors.extend(validate_finalizers(resource, meta));
    errors
}

/// What is wrong with a change of metadata.
pub fn validate_update(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let (meta, was) = (&new["metadata"], &old["metadata"]);
    let mut errors = Vec::new();
    if object::is_deleting(old) {
        let before: BTreeSet<&str> = object::finalizers(old).collect();
        let added: Vec<String> = object::finalizers(new)
            .filter(|f| !before.contains(f))
            .map(|f| format!("{f:?}"))
            .collect();
        if !added.is_empty() {
            let message = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", &message));
        }
    }
    if meta["generation"].as_i64().unwrap_or(0) < was["generation"].as_i64().unwrap_or(0) {
        errors.push(FieldError::invalid(
            "metadata.generation",
            &meta["generation"],
            "must not be decremented",
        ));
    }
    for key in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        if !same(&meta[key], &was[key]) {
            errors.push(FieldError::invalid(
                format!("metadata.{key}"),
                &meta[key],
                IMMUTABLE,
            ));
        }
    }
    errors.extend(validate_common(meta));
    errors.extend(validate_finalizers(resource, meta));
    errors
}

/// Takes over what a client may leave out of a change, and may not change.
pub fn prepare_update(new: &mut Value, old: &Value) {
    let was = &old["metadata"];
    for key in ["uid", "name", "namespace"] {
        if object::meta(new, key).is_empty() && !was[key].is_null() {
            object::set_meta(new, key, Some(was[key].clone()));
        }
    }
    // Only the server writes these.
    for key in [
        "creationTimestamp",
        "generation",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        object::set_meta(new, key, was.get(key).filter(|v| !v.is_null()).cloned());
    }
}
