//! Label selectors: their rules and whether they match (apimachinery `meta/v1/validation`).

use super::json::{items, text};
use super::metadata::validate_labels;
use crate::error::{FieldError, FieldErrorKind};
use crate::registry::names;
use serde_json::Value;

/// What is wrong with a `metav1.LabelSelector` at `field`.
pub(super) fn validate(selector: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = validate_labels(&selector["matchLabels"], &format!("{field}.matchLabels"));
    for (i, e) in items(selector, "matchExpressions").enumerate() {
        let at = format!("{field}.matchExpressions[{i}]");
        let empty = items(e, "values").next().is_none();
        match text(e, "operator") {
            "In" | "NotIn" if empty => errors.push(FieldError::required(
                format!("{at}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !empty => errors.push(FieldError::forbidden(
                format!("{at}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(FieldError::invalid(
                format!("{at}.operator"),
                &e["operator"],
                "not a valid selector operator",
            )),
        }
        for message in names::qualified_name(text(e, "key")) {
            errors.push(FieldError::invalid(format!("{at}.key"), &e["key"], &message));
        }
        for (j, value) in items(e, "values").enumerate() {
            for message in names::label_value(value.as_str().unwrap_or_default()) {
                errors.push(FieldError::invalid(format!("{at}.values[{j}]"), value, &message));
            }
        }
    }
    errors
}

/// Whether nothing is asked for: matches everything.
pub(super) fn is_empty(selector: &Value) -> bool {
    selector["matchLabels"]
        .as_object()
        .is_none_or(serde_json::Map::is_empty)
        && items(selector, "matchExpressions").next().is_none()
}

/// Whether a `metav1.LabelSelector` matches labels. A null selector matches nothing.
pub fn matches(selector: &Value, labels: &Value) -> bool {
    if !selector.is_object() {
        return false;
    }
    let all_equal = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .all(|(k, v)| labels.get(k) == Some(v));
    all_equal
        && items(selector, "matchExpressions").all(|e| {
            let have = labels.get(text(e, "key"));
            let listed = |v: &Value| items(e, "values").any(|x| x == v);
            match text(e, "operator") {
                "In" => have.is_some_and(listed),
                "NotIn" => !have.is_some_and(listed),
                "Exists" => have.is_some(),
                "DoesNotExist" => have.is_none(),
                _ => false,
            }
        })
}

/// A selector's `spec.selector` rules and that it matches the template's labels, as every workload asks.
pub(super) fn validate_template(kind: &str, spec: &Value, errors: &mut Vec<FieldError>) {
    let selector = &spec["selector"];
    let mut unreadable = false;
    // One of them is silent about what it can not read.
    let silent = kind == "daemonset";
    if selector.is_null() {
        if !silent {
            errors.push(FieldError::required("spec.selector", ""));
        }
    } else {
        let wrong = validate(selector, "spec.selector");
        unreadable = !wrong.is_empty();
        errors.extend(wrong);
        if is_empty(selector) {
            let message = format!("empty selector is invalid for {kind}");
            errors.push(FieldError::invalid("spec.selector", selector, &message));
        }
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if unreadable && silent {
        return;
    }
    if unreadable {
        let part = |key: &str| {
            let value = selector.get(key)?;
            Some(format!("{key:?}:{value}"))
        };
        let parts: Vec<String> = ["matchLabels", "matchExpressions"]
            .into_iter()
            .filter_map(part)
            .collect();
        errors.push(FieldError::new(
            FieldErrorKind::Invalid,
            "spec.selector",
            format!("Invalid value: {{{}}}: invalid label selector", parts.join(",")),
        ));
    } else if !matches(selector, labels) {
        let message = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            labels,
            message,
        ));
    }
}
