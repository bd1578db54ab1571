//! Roles and bindings (`pkg/apis/rbac`). Escalation is the authorizer's business, not a rule of the object.

use super::json::{at, default, each, items, same, text};
use super::selector;
use crate::error::FieldError;
use crate::registry::names;
use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Groups a client may leave out.
pub(super) fn defaults(plural: &str, object: &mut Value) {
    if !plural.ends_with("bindings") {
        return;
    }
    if let Some(role) = at(object, "roleRef")
        && text(role, "apiGroup").is_empty()
    {
        role["apiGroup"] = GROUP.into();
    }
    for subject in each(object, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") && text(subject, "apiGroup").is_empty() {
            default(subject, "apiGroup", GROUP);
        }
        if text(subject, "kind") == "ServiceAccount" && text(subject, "apiGroup").is_empty() {
            super::json::remove(subject, "apiGroup");
        }
    }
}

fn validate_rules(object: &Value, field: &str, namespaced: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, rule) in items(object, "rules").enumerate() {
        let at = format!("{field}[{i}]");
        let some = |key: &str| items(rule, key).next().is_some();
        if !some("verbs") {
            errors.push(FieldError::required(
                format!("{at}.verbs"),
                "verbs must contain at least one value",
            ));
        }
        if some("nonResourceURLs") {
            if namespaced {
                let message = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(
                    format!("{at}.nonResourceURLs"),
                    &rule["nonResourceURLs"],
                    message,
                ));
            }
            if some("apiGroups") || some("resources") || some("resourceNames") {
                let message = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(
                    format!("{at}.nonResourceURLs"),
                    &rule["nonResourceURLs"],
                    message,
                ));
            }
            continue;
        }
        if !some("apiGroups") {
            let message = "resource rules must supply at least one api group";
            errors.push(FieldError::required(format!("{at}.apiGroups"), message));
        }
        if !some("resources") {
            let message = "resource rules must supply at least one resource";
            errors.push(FieldError::required(format!("{at}.resources"), message));
        }
    }
    errors
}

fn validate_subject(subject: &Value, at: &str, namespaced: bool, errors: &mut Vec<FieldError>) {
    let (kind, name, group) = (
        text(subject, "kind"),
        text(subject, "name"),
        text(subject, "apiGroup"),
    );
    if name.is_empty() {
        errors.push(FieldError::required(format!("{at}.name"), ""));
    }
    let field = format!("{at}.apiGroup");
    match kind {
        "ServiceAccount" => {
            if !name.is_empty() {
                for message in names::dns_subdomain(name) {
                    errors.push(FieldError::invalid(
                        format!("{at}.name"),
                        &subject["name"],
                        &message,
                    ));
                }
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(field, &subject["apiGroup"], &[""]));
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                errors.push(FieldError::required(format!("{at}.namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(FieldError::not_supported(field, &subject["apiGroup"], &[GROUP]));
            }
        }
        _ => {
            let kinds = ["ServiceAccount", "User", "Group"];
            errors.push(FieldError::not_supported(
                format!("{at}.kind"),
                &json!(kind),
                &kinds,
            ));
        }
    }
}

/// What is wrong with a role or binding.
pub(super) fn validate(plural: &str, object: &Value) -> Vec<FieldError> {
    if !plural.ends_with("bindings") {
        let mut errors = validate_rules(object, "rules", plural == "roles");
        let aggregation = &object["aggregationRule"];
        if !aggregation.is_null() && items(aggregation, "clusterRoleSelectors").next().is_none() {
            errors.push(FieldError::required(
                "aggregationRule.clusterRoleSelectors",
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            ));
        }
        for (i, s) in items(&object["aggregationRule"], "clusterRoleSelectors").enumerate() {
            errors.extend(selector::validate(
                s,
                &format!("aggregationRule.clusterRoleSelectors[{i}]"),
            ));
        }
        return errors;
    }
    let role = &object["roleRef"];
    let mut errors = Vec::new();
    if text(role, "apiGroup") != GROUP {
        errors.push(FieldError::not_supported(
            "roleRef.apiGroup",
            &role["apiGroup"],
            &[GROUP],
        ));
    }
    let kinds: &[&str] = if plural == "rolebindings" {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    let kind = text(role, "kind");
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported("roleRef.kind", &json!(kind), kinds));
    }
    let name = text(role, "name");
    if name.is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    } else {
        for message in names::path_segment(name) {
            errors.push(FieldError::invalid("roleRef.name", &role["name"], &message));
        }
    }
    for (i, subject) in items(object, "subjects").enumerate() {
        validate_subject(
            subject,
            &format!("subjects[{i}]"),
            plural == "rolebindings",
            &mut errors,
        );
    }
    errors
}

/// A binding keeps its role for life.
pub(super) fn validate_update(plural: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    if !plural.ends_with("bindings") || same(&new["roleRef"], &old["roleRef"]) {
        return Vec::new();
    }
    let role = &new["roleRef"];
    let shown =
        json!({"APIGroup": text(role, "apiGroup"), "Kind": text(role, "kind"), "Name": text(role, "name")});
    vec![FieldError::invalid("roleRef", &shown, "cannot change roleRef")]
}
