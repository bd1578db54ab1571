//! Objects of CustomResourceDefinitions (apiextensions-apiserver `pkg/registry/customresource`).

use super::json::{copy, remove};
use crate::error::FieldError;
use crate::object;
use crate::registry::{Custom, ScalePaths};
use crate::schema::{default, validate as schema_validate};
use serde_json::{Map, Value, json};

pub(super) fn defaults(custom: &Custom, object: &mut Value) {
    default::apply_defaults(&custom.schema, object);
}

/// Defaults an object that was read and defaulted before. A `null` that is still there was meant, and is for the rules of the
/// schema to judge.
pub(super) fn defaults_again(custom: &Custom, object: &mut Value) {
    let given = has_null(object).then(|| object.clone());
    defaults(custom, object);
    for (field, given) in given.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let schema = custom.schema.child(field).filter(|_| field != "metadata");
        if let (Some(schema), Some(value)) = (schema, object.get_mut(field)) {
            default::restore_nulls(schema, given, value);
        }
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(fields) => fields.values().any(has_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

pub(super) fn prepare_create(custom: &Custom, object: &mut Value) {
    if custom.status {
        remove(object, "status");
        // What a client says of it is dropped, what the definition says is not: every read there fills it in.
        if custom
            .schema
            .property("status")
            .is_some_and(|s| s.default.is_some())
        {
            default::apply_defaults(&custom.schema, object);
        }
    }
    object::set_meta(object, "generation", Some(1.into()));
}

/// A copy without some fields.
fn apart_from(object: &Value, without: &[&str]) -> Value {
    let fields = object.as_object().into_iter().flatten();
    let kept = fields.filter(|(field, _)| !without.contains(&field.as_str()));
    Value::Object(
        kept.map(|(field, value)| (field.clone(), value.clone()))
            .collect(),
    )
}

/// Whether anything differs that counts as another generation: neither metadata nor, where it is apart, the status.
fn is_another(custom: &Custom, a: &Value, b: &Value) -> bool {
    let none = Map::new();
    let [a, b] = [a, b].map(|object| object.as_object().unwrap_or(&none));
    let counts =
        |field: &str| !(matches!(field, "metadata" | "apiVersion") || custom.status && field == "status");
    let fields = |of: &'_ Map<String, Value>| of.keys().filter(|field| counts(field)).count();
    fields(a) != fields(b)
        || a.iter()
            .any(|(field, value)| counts(field) && b.get(field) != Some(value))
}

pub(super) fn prepare_update(custom: &Custom, subresource: &str, new: &mut Value, old: &Value) {
    if subresource == "status" {
        // Nothing but the status is taken from the request.
        let mut given = std::mem::replace(new, Value::Null);
        *new = apart_from(old, &["status"]);
        new["apiVersion"] = given["apiVersion"].take();
        for field in ["managedFields", "resourceVersion"] {
            let value = given["metadata"].as_object_mut().and_then(|m| m.remove(field));
            object::set_meta(new, field, value);
        }
        if let Some(status) = given.as_object_mut().and_then(|o| o.remove("status")) {
            new["status"] = status;
        }
        return;
    }
    if custom.status {
        copy(old, new, "status");
    }
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
    let changed = is_another(custom, new, old);
    if changed || generation > 0 {
        let next = if changed { generation + 1 } else { generation };
        object::set_meta(new, "generation", Some(next.into()));
    }
}

/// The value a scale path like `.spec.replicas` points at.
pub fn scale_value<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut at = object;
    for part in path.trim_start_matches('.').split('.') {
        at = at.get(part)?;
    }
    Some(at)
}

/// Where a scale path leads.
enum At<'a> {
    Value(&'a Value),
    /// To something that has no fields, before its end.
    Blocked(&'a Value),
}

fn reach<'a>(object: &'a Value, path: &str) -> Option<At<'a>> {
    let mut at = object;
    for part in path.trim_start_matches('.').split('.') {
        if !at.is_object() {
            return Some(At::Blocked(at));
        }
        at = at.get(part)?;
    }
    Some(At::Value(at))
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        Value::Null => "<nil>",
    }
}

fn validate_scale(paths: &ScalePaths, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for path in [&paths.spec, &paths.status] {
        let Some(value) = reach(object, path) else {
            continue;
        };
        let field = path.clone();
        let value = match value {
            At::Value(value) => value,
            At::Blocked(value) => {
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let message = format!(
                    "{path} accessor error: {shown} is of the type {}, expected map[string]interface{{}}",
                    go_type(value)
                );
                errors.push(FieldError::invalid(field, &json!(0), &message));
                continue;
            }
        };
        match value.as_i64() {
            None => {
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let message = format!(
                    "{path} accessor error: {shown} is of the type {}, expected int64",
                    go_type(value)
                );
                errors.push(FieldError::invalid(field, &json!(0), &message));
            }
            Some(n) if n < 0 => {
                errors.push(FieldError::invalid(
                    field,
                    value,
                    "should be a non-negative integer",
                ));
            }
            Some(n) if n > i64::from(i32::MAX) => {
                let message = format!("should be less than or equal to {}", i32::MAX);
                errors.push(FieldError::invalid(field, value, &message));
            }
            Some(_) => {}
        }
    }
    errors
}

/// What is wrong with a custom object: its schema's values, its scale paths, its CEL rules.
pub(super) fn validate(
    custom: &Custom,
    subresource: &str,
    object: &Value,
    old: Option<&Value>,
) -> Vec<FieldError> {
    let mut errors = match custom.schema.property("status") {
        Some(status) if subresource == "status" => {
            let before = old.and_then(|o| o.get("status"));
            let mut errors = match object.get("status") {
                Some(value) => schema_validate::validate(status, value, before, ""),
                None => Vec::new(),
            };
            for error in &mut errors {
                error.field = match error.field.as_str() {
                    "<nil>" => "status".to_owned(),
                    below => format!("status.{below}"),
                };
            }
            errors
        }
        _ => schema_validate::validate(&custom.schema, object, old, ""),
    };
    if let Some(paths) = &custom.scale {
        errors.extend(validate_scale(paths, object));
    }
    if !custom.rules.is_empty() {
        match schema_validate::unchecked_rules(&errors) {
            Some(unchecked) => errors.push(unchecked),
            None => errors.extend(custom.rules.check(object, old)),
        }
    }
    errors
}
