//! What webhooks and policies match: operations, resources, selectors, conditions.

use super::super::json::{items, text};
use super::super::selector;
use crate::error::{FieldError, FieldErrorKind};
use crate::registry::names;
use crate::schema::cel::free::{Gives, Scope};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// Nothing is there to be changed where something is deleted.
const MUTATING: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
pub(super) const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
/// Most match conditions.
const MOST_CONDITIONS: usize = 64;

/// Refuses a value that is there and none of these.
pub(super) fn supported(errors: &mut Vec<FieldError>, field: &str, value: &Value, allowed: &[&str]) {
    if !value.is_null() && !value.as_str().is_some_and(|v| allowed.contains(&v)) {
        errors.push(FieldError::not_supported(field, value, allowed));
    }
}

/// As [`supported`], of a value that has to be there.
pub(super) fn required(errors: &mut Vec<FieldError>, field: &str, value: &Value, allowed: &[&str]) {
    if value.is_null() {
        errors.push(FieldError::required(field, ""));
    }
    supported(errors, field, value, allowed);
}

fn alone(errors: &mut Vec<FieldError>, at: &str, rule: &Value, key: &str, others: &str) {
    let list: Vec<&Value> = items(rule, key).collect();
    let field = format!("{at}.{key}");
    if list.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if list.len() > 1 && list.contains(&&json!("*")) {
        let message = format!("if '*' is present, must not specify other {others}");
        errors.push(FieldError::invalid(field, &rule[key], &message));
    }
}

/// A rule with its operations.
pub(super) fn rule(errors: &mut Vec<FieldError>, at: &str, rule: &Value) {
    alone(errors, at, rule, "operations", "operations");
    for (i, operation) in items(rule, "operations").enumerate() {
        supported(errors, &format!("{at}.operations[{i}]"), operation, &OPERATIONS);
    }
    alone(errors, at, rule, "apiGroups", "API groups");
    alone(errors, at, rule, "apiVersions", "API versions");
    for (i, version) in items(rule, "apiVersions").enumerate() {
        if version == "" {
            errors.push(FieldError::required(format!("{at}.apiVersions[{i}]"), ""));
        }
    }
    let resources: Vec<&str> = items(rule, "resources").filter_map(Value::as_str).collect();
    validate_resources(&resources, &format!("{at}.resources"), errors);
    supported(errors, &format!("{at}.scope"), &rule["scope"], &SCOPES);
}

/// No wildcard makes another resource of the list superfluous.
fn validate_resources(list: &[&str], field: &str, errors: &mut Vec<FieldError>) {
    if list.is_empty() {
        errors.push(FieldError::required(field, ""));
    }
    let (mut all_below, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for (i, resource) in list.iter().enumerate() {
        let at = format!("{field}[{i}]");
        if resource.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        let Some((name, sub)) = resource.split_once('/') else {
            // The last one of its kind decides, there as here.
            plain = *resource != "*";
            continue;
        };
        if all_below.contains(name) {
            let message = format!("if '{name}/*' is present, must not specify {resource}");
            errors.push(FieldError::invalid(at.clone(), &json!(resource), &message));
        }
        if everywhere.contains(sub) {
            let message = format!("if '*/{sub}' is present, must not specify {resource}");
            errors.push(FieldError::invalid(at, &json!(resource), &message));
        }
        if sub == "*" {
            all_below.insert(name);
        }
        if name == "*" {
            everywhere.insert(sub);
        }
    }
    let mut refuse = |message: &str| errors.push(FieldError::invalid(field, &json!(list), message));
    if list.len() > 1 && list.contains(&"*/*") {
        refuse("if '*/*' is present, must not specify other resources");
    }
    if plain && list.contains(&"*") {
        refuse("if '*' is present, must not specify other resources without subresources");
    }
}

/// What a policy or a binding matches.
pub(super) fn resources(errors: &mut Vec<FieldError>, at: &str, of: &Value) {
    required(
        errors,
        &format!("{at}.matchPolicy"),
        &of["matchPolicy"],
        &MATCH_POLICIES,
    );
    for key in ["namespaceSelector", "objectSelector"] {
        let field = format!("{at}.{key}");
        if of[key].is_null() {
            errors.push(FieldError::required(field, ""));
        } else {
            errors.extend(selector::validate(&of[key], &field));
        }
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        for (i, named) in items(of, key).enumerate() {
            let at = format!("{at}.{key}[{i}]");
            let mut seen = BTreeSet::new();
            for (j, name) in items(named, "resourceNames").enumerate() {
                let field = format!("{at}.resourceNames[{j}]");
                let written = name.as_str().unwrap_or_default();
                for message in names::path_segment(written) {
                    errors.push(FieldError::invalid(field.clone(), name, &message));
                }
                if !seen.insert(written) {
                    errors.push(FieldError::duplicate(field, name));
                }
            }
            rule(errors, &at, named);
        }
    }
}

/// Operations that a mutating policy can not have.
pub(super) fn mutating_operations(errors: &mut Vec<FieldError>, at: &str, of: &Value) {
    for rule in items(of, "resourceRules") {
        for operation in items(rule, "operations") {
            let field = format!("{at}.resourceRules.operations");
            supported(errors, &field, operation, &MUTATING);
        }
    }
}

/// The conditions of a webhook or policy.
pub(super) fn conditions(errors: &mut Vec<FieldError>, at: &str, of: &Value, scope: &Scope) {
    let count = items(of, "matchConditions").count();
    if count > MOST_CONDITIONS {
        let message = format!("Too many: {count}: must have at most {MOST_CONDITIONS} items");
        errors.push(FieldError::new(FieldErrorKind::TooMany, at, message));
    }
    let mut seen = BTreeSet::new();
    for (i, condition) in items(of, "matchConditions").enumerate() {
        let field = format!("{at}[{i}].expression");
        let expression = text(condition, "expression").trim();
        if expression.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else if let Err(why) = scope.compile(expression, Gives::Bool) {
            errors.push(FieldError::invalid(field, &json!(expression), &why));
        }
        let (field, name) = (format!("{at}[{i}].name"), text(condition, "name"));
        if name.is_empty() {
            errors.push(FieldError::required(field, ""));
            continue;
        }
        for message in names::label_key(name) {
            errors.push(FieldError::invalid(field.clone(), &json!(name), &message));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(field, &json!(name)));
        }
    }
}
