//! Admission policies and their bindings.

use super::super::json::{items, text};
use super::super::selector;
use super::rules;
use crate::error::FieldError;
use crate::object;
use crate::registry::names;
use crate::rest::admission::definition::scope;
use crate::schema::cel::free::{Gives, Scope};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Most audit annotations.
const MOST_ANNOTATIONS: usize = 20;
/// Longest expression of one.
const LONGEST_ANNOTATION: usize = 5 << 10;

/// What both kinds of policies have; gives the names of their expressions.
fn common(errors: &mut Vec<FieldError>, spec: &Value, mutating: bool) -> Scope {
    rules::required(
        errors,
        "spec.failurePolicy",
        &spec["failurePolicy"],
        &["Fail", "Ignore"],
    );
    if !spec["paramKind"].is_null() {
        param_kind(errors, &spec["paramKind"]);
    }
    let (at, constraints) = ("spec.matchConstraints", &spec["matchConstraints"]);
    if constraints.is_null() {
        errors.push(FieldError::required(at, ""));
    } else {
        rules::resources(errors, at, constraints);
        if items(constraints, "resourceRules").next().is_none() {
            errors.push(FieldError::required(format!("{at}.resourceRules"), ""));
        }
        if mutating {
            rules::mutating_operations(errors, at, constraints);
        }
    }
    let mut scope = scope(spec);
    rules::conditions(errors, "spec.matchConditions", spec, &scope);
    if mutating || items(spec, "variables").next().is_some() {
        scope = scope.composing();
    }
    for (i, variable) in items(spec, "variables").enumerate() {
        let at = format!("spec.variables[{i}]");
        let (name, expression) = (text(variable, "name"), text(variable, "expression"));
        if name.trim().is_empty() {
            errors.push(FieldError::required(
                format!("{at}.name"),
                "name is not specified",
            ));
        } else if !is_identifier(name) {
            let message = "must be a valid CEL identifier";
            errors.push(FieldError::invalid(
                format!("{at}.name"),
                &variable["name"],
                message,
            ));
        }
        let field = format!("{at}.expression");
        if expression.trim().is_empty() {
            errors.push(FieldError::required(field, "expression is not specified"));
        } else if let Err(why) = scope.declare(name, expression) {
            errors.push(FieldError::invalid(field, &variable["expression"], &why));
        }
    }
    scope
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !crate::schema::cel::RESERVED.contains(&name)
}

fn param_kind(errors: &mut Vec<FieldError>, kind: &Value) {
    let (field, written) = ("spec.paramKind.apiVersion", text(kind, "apiVersion"));
    let mut refuse = |value: &str, message: &str| {
        errors.push(FieldError::invalid(field, &json!(value), message));
    };
    let parts: Vec<&str> = written.split('/').collect();
    match parts.as_slice() {
        [""] => errors.push(FieldError::required(field, "")),
        ["", ""] => refuse(written, "version must be specified"),
        [_] | [_, _] => {
            let (group, version) = written.split_once('/').unwrap_or(("", written));
            let wrong = names::dns_subdomain(group);
            if !group.is_empty() && !wrong.is_empty() {
                refuse(group, &wrong.join(","));
            }
            let wrong = names::dns_1035_label(version);
            if version.is_empty() {
                refuse(written, "version must be specified");
            } else if !wrong.is_empty() {
                refuse(version, &wrong.join(","));
            }
        }
        _ => refuse(written, &format!("unexpected GroupVersion string: {written}")),
    }
    let (field, written) = ("spec.paramKind.kind", text(kind, "kind"));
    let wrong = names::dns_1035_label(&written.to_lowercase());
    if written.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if !wrong.is_empty() {
        let message = format!(
            "may have mixed case, but should otherwise match: {}",
            wrong.join(",")
        );
        errors.push(FieldError::invalid(field, &kind["kind"], &message));
    }
}

/// What is wrong with a ValidatingAdmissionPolicy.
pub(super) fn validating(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    let scope = common(&mut errors, spec, false);
    let none = |key: &str| items(spec, key).next().is_none();
    if none("validations") && none("auditAnnotations") {
        for key in ["validations", "auditAnnotations"] {
            let message = "validations or auditAnnotations must contain at least one item";
            errors.push(FieldError::required(format!("spec.{key}"), message));
        }
        return errors;
    }
    for (i, validation) in items(spec, "validations").enumerate() {
        self::validation(&mut errors, &format!("spec.validations[{i}]"), validation, &scope);
    }
    audit_annotations(&mut errors, object, &scope);
    errors
}

fn validation(errors: &mut Vec<FieldError>, at: &str, validation: &Value, scope: &Scope) {
    // Messages are no place to ask for rights.
    let unauthorized = scope.without("authorizer");
    let mut compile = |key: &str, gives| {
        if let Err(why) = scope.compile(text(validation, key), gives) {
            errors.push(FieldError::invalid(format!("{at}.{key}"), &validation[key], &why));
        }
    };
    let is_blank = |key: &str| text(validation, key).trim().is_empty();
    if is_blank("expression") {
        let message = "expression is not specified";
        errors.push(FieldError::required(format!("{at}.expression"), message));
    } else {
        compile("expression", Gives::Bool);
    }
    let blank = |errors: &mut Vec<FieldError>, key: &str| {
        let message = "must be non-empty if specified";
        errors.push(FieldError::invalid(
            format!("{at}.{key}"),
            &validation[key],
            message,
        ));
    };
    match (
        text(validation, "messageExpression"),
        is_blank("messageExpression"),
    ) {
        ("", _) => {}
        (_, true) => blank(errors, "messageExpression"),
        (_, false) => {
            if let Err(why) = unauthorized.compile(text(validation, "messageExpression"), Gives::Text) {
                let field = format!("{at}.messageExpression");
                errors.push(FieldError::invalid(field, &validation["messageExpression"], &why));
            }
        }
    }
    let message = text(validation, "message");
    if !message.is_empty() && is_blank("message") {
        blank(errors, "message");
    } else if message.trim().contains(['\n', '\r']) {
        let field = format!("{at}.message");
        errors.push(FieldError::invalid(
            field,
            &validation["message"],
            "must not contain line breaks",
        ));
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
    rules::supported(errors, &format!("{at}.reason"), &validation["reason"], &reasons);
}

fn audit_annotations(errors: &mut Vec<FieldError>, policy: &Value, scope: &Scope) {
    let (spec, at) = (&policy["spec"], "spec.auditAnnotations");
    if items(spec, "auditAnnotations").count() > MOST_ANNOTATIONS {
        let message = format!("must not have more than {MOST_ANNOTATIONS} auditAnnotations");
        errors.push(FieldError::invalid(at, &spec["auditAnnotations"], &message));
    }
    let mut seen = BTreeSet::new();
    for (i, annotation) in items(spec, "auditAnnotations").enumerate() {
        let (field, key) = (format!("{at}[{i}].key"), text(annotation, "key"));
        let whole = format!("{}/{key}", object::name(policy));
        for message in names::label_key(&whole) {
            errors.push(FieldError::invalid(field.clone(), &json!(whole), &message));
        }
        let value = format!("{at}[{i}].valueExpression");
        let expression = text(annotation, "valueExpression").trim();
        if expression.is_empty() {
            errors.push(FieldError::required(value, "valueExpression is not specified"));
        } else if expression.len() > LONGEST_ANNOTATION {
            let message = format!("must not exceed {LONGEST_ANNOTATION} bytes in length");
            errors.push(FieldError::required(value, &message));
        } else if let Err(why) = scope.compile(expression, Gives::TextOrNull) {
            errors.push(FieldError::invalid(value, &annotation["valueExpression"], &why));
        }
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(field, &annotation["key"]));
        }
    }
}

/// What is wrong with a MutatingAdmissionPolicy.
pub(super) fn mutating(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    let scope = common(&mut errors, spec, true).constructing();
    if items(spec, "mutations").next().is_none() {
        let message = "mutations must contain at least one item";
        errors.push(FieldError::required("spec.mutations", message));
    }
    for (i, mutation) in items(spec, "mutations").enumerate() {
        self::mutation(&mut errors, &format!("spec.mutations[{i}]"), mutation, &scope);
    }
    let (field, policy) = ("spec.reinvocationPolicy", &spec["reinvocationPolicy"]);
    if policy.is_null() || policy == "" {
        errors.push(FieldError::required(field, ""));
    } else {
        rules::supported(&mut errors, field, policy, &["IfNeeded", "Never"]);
    }
    errors
}

fn mutation(errors: &mut Vec<FieldError>, at: &str, mutation: &Value, scope: &Scope) {
    const CONFIGURATION: (&str, &str) = ("ApplyConfiguration", "applyConfiguration");
    const PATCH: (&str, &str) = ("JSONPatch", "jsonPatch");
    let patch_type = &mutation["patchType"];
    let (wanted, other, gives) = match patch_type.as_str().unwrap_or_default() {
        "" => return errors.push(FieldError::required(format!("{at}.patchType"), "")),
        "ApplyConfiguration" => (CONFIGURATION, PATCH, Gives::Object),
        "JSONPatch" => (PATCH, CONFIGURATION, Gives::Patch),
        _ => {
            let types = [CONFIGURATION.0, PATCH.0];
            let error = FieldError::not_supported(format!("{at}.patchType"), patch_type, &types);
            return errors.push(error);
        }
    };
    let ((kind, key), (_, other)) = (wanted, other);
    let field = format!("{at}.{key}.expression");
    let expression = text(&mutation[key], "expression").trim();
    if mutation[key].is_null() {
        let message = format!("must be specified when patchType is {kind}");
        errors.push(FieldError::required(format!("{at}.{key}"), &message));
    } else if expression.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if let Err(why) = scope.compile(expression, gives) {
        errors.push(FieldError::invalid(field, &json!(expression), &why));
    }
    if !mutation[other].is_null() {
        let message = format!("must not be specified when patchType is {kind}");
        let shown = json!(format!("{{{other}}}"));
        errors.push(FieldError::invalid(format!("{at}.{other}"), &shown, &message));
    }
}

/// What is wrong with a binding.
pub(super) fn binding(object: &Value, validating: bool) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    let policy = text(spec, "policyName");
    if policy.is_empty() {
        errors.push(FieldError::required("spec.policyName", ""));
    } else {
        for message in names::dns_subdomain(policy) {
            errors.push(FieldError::invalid(
                "spec.policyName",
                &spec["policyName"],
                &message,
            ));
        }
    }
    if !spec["paramRef"].is_null() {
        param_ref(&mut errors, &spec["paramRef"]);
    }
    if !spec["matchResources"].is_null() {
        rules::resources(&mut errors, "spec.matchResources", &spec["matchResources"]);
        if !validating {
            rules::mutating_operations(&mut errors, "spec.matchResources", &spec["matchResources"]);
        }
    }
    if validating {
        actions(&mut errors, spec);
    }
    errors
}

fn param_ref(errors: &mut Vec<FieldError>, reference: &Value) {
    const BOTH: &str = "name and selector are mutually exclusive";
    let name = text(reference, "name");
    let has_selector = !reference["selector"].is_null();
    for message in names::path_segment(name) {
        errors.push(FieldError::invalid(
            "spec.paramRef.name",
            &reference["name"],
            &message,
        ));
    }
    if !name.is_empty() && has_selector {
        errors.push(FieldError::forbidden("spec.paramRef.name", BOTH));
    }
    if has_selector {
        errors.extend(selector::validate(
            &reference["selector"],
            "spec.paramRef.selector",
        ));
        if !name.is_empty() {
            errors.push(FieldError::forbidden("spec.paramRef.selector", BOTH));
        }
    } else if name.is_empty() {
        let message = "one of name or selector must be specified";
        errors.push(FieldError::required("spec.paramRef", message));
    }
    let (field, action) = (
        "spec.paramRef.parameterNotFoundAction",
        &reference["parameterNotFoundAction"],
    );
    if action.is_null() || action == "" {
        errors.push(FieldError::required(field, ""));
    } else {
        rules::supported(errors, field, action, &["Deny", "Allow"]);
    }
}

fn actions(errors: &mut Vec<FieldError>, spec: &Value) {
    let field = "spec.validationActions";
    let mut seen = BTreeSet::new();
    for (i, action) in items(spec, "validationActions").enumerate() {
        let at = format!("{field}[{i}]");
        rules::supported(errors, &at, action, &["Audit", "Deny", "Warn"]);
        if !seen.insert(action.as_str().unwrap_or_default()) {
            errors.push(FieldError::duplicate(at, action));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let message = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(FieldError::invalid(field, &spec["validationActions"], message));
    }
    if seen.is_empty() {
        errors.push(FieldError::required(
            field,
            "at least one validation action is required",
        ));
    }
}
