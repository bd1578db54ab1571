//! Configurations of webhooks.

use super::super::json::{items, text};
use super::super::selector;
use super::rules;
use crate::error::FieldError;
use crate::registry::names;
use crate::rest::admission::definition::scope;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const FORM: &str = "; desired format: https://host[/path]";

/// What is wrong with a configuration.
pub(super) fn validate(object: &Value, mutating: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, hook) in items(object, "webhooks").enumerate() {
        let at = format!("webhooks[{i}]");
        webhook(&mut errors, &at, hook, mutating);
        let versions = &hook["admissionReviewVersions"];
        review_versions(
            &mut errors,
            &format!("{at}.admissionReviewVersions"),
            versions,
            "must specify one of v1, v1beta1",
        );
        let name = text(hook, "name");
        if !name.is_empty() && !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{at}.name"), &hook["name"]));
        }
    }
    errors
}

fn webhook(errors: &mut Vec<FieldError>, at: &str, hook: &Value, mutating: bool) {
    let name = text(hook, "name");
    let wrong = names::dns_subdomain(name);
    let field = format!("{at}.name");
    if name.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if !wrong.is_empty() {
        errors.push(FieldError::invalid(field, &hook["name"], &wrong.join(",")));
    } else if name.split('.').count() < 3 {
        let message = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(field, &hook["name"], message));
    }
    for (i, rule) in items(hook, "rules").enumerate() {
        rules::rule(errors, &format!("{at}.rules[{i}]"), rule);
    }
    let mut one_of = |key: &str, allowed: &[&str]| {
        rules::supported(errors, &format!("{at}.{key}"), &hook[key], allowed);
    };
    one_of("failurePolicy", &["Fail", "Ignore"]);
    one_of("matchPolicy", &rules::MATCH_POLICIES);
    if hook["sideEffects"].is_null() {
        let message = "must specify one of None, NoneOnDryRun";
        errors.push(FieldError::required(format!("{at}.sideEffects"), message));
    } else {
        one_of("sideEffects", &["None", "NoneOnDryRun"]);
    }
    let timeout = &hook["timeoutSeconds"];
    if !timeout.is_null() && !timeout.as_i64().is_some_and(|s| (1..=30).contains(&s)) {
        let message = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(
            format!("{at}.timeoutSeconds"),
            timeout,
            message,
        ));
    }
    for key in ["namespaceSelector", "objectSelector"] {
        errors.extend(selector::validate(&hook[key], &format!("{at}.{key}")));
    }
    if mutating {
        let field = format!("{at}.reinvocationPolicy");
        rules::supported(
            errors,
            &field,
            &hook["reinvocationPolicy"],
            &["IfNeeded", "Never"],
        );
    }
    let (config, field) = (&hook["clientConfig"], format!("{at}.clientConfig"));
    if config["url"].is_null() == config["service"].is_null() {
        let message = "exactly one of url or service is required";
        errors.push(FieldError::required(field, message));
    } else if config["service"].is_null() {
        url(errors, &format!("{field}.url"), text(config, "url"));
    } else {
        service(errors, &format!("{field}.service"), &config["service"]);
    }
    rules::conditions(
        errors,
        &format!("{at}.matchConditions"),
        hook,
        &scope(&Value::Null),
    );
}

/// What is wrong with the URL of a webhook.
pub fn url(errors: &mut Vec<FieldError>, field: &str, url: &str) {
    let mut refuse = |value: &str, message: &str| {
        errors.push(FieldError::invalid(field, &json!(value), message));
    };
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, host) = match rest.split_once("://") {
        Some((scheme, host)) => (scheme, host.split('/').next().unwrap_or_default()),
        None => ("", ""),
    };
    let (user, host) = host.rsplit_once('@').map_or((None, host), |(u, h)| (Some(u), h));
    if scheme != "https" {
        refuse(scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        refuse("", &format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        refuse(user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        refuse(fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        refuse(query, "query parameters are not permitted in the URL");
    }
}

fn service(errors: &mut Vec<FieldError>, at: &str, service: &Value) {
    // kube-apiserver takes the one for the other here.
    for (named, checked) in [("name", "namespace"), ("namespace", "name")] {
        if text(service, checked).is_empty() {
            errors.push(FieldError::required(format!("{at}.{named}"), ""));
        }
    }
    let port = &service["port"];
    if !port.is_null() && !port.as_i64().is_some_and(|n| (1..=65535).contains(&n)) {
        let message = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(format!("{at}.port"), port, message));
    }
    let path = text(service, "path");
    let mut refuse = |message: &str| {
        errors.push(FieldError::invalid(
            format!("{at}.path"),
            &service["path"],
            message,
        ));
    };
    if matches!(path, "" | "/") {
        return;
    }
    if path == "//" {
        return refuse("segment[0] may not be empty");
    }
    if !path.starts_with('/') {
        refuse("must start with a '/'");
    }
    let mut chars = path.chars();
    chars.next();
    let steps = chars.as_str();
    for (i, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            refuse(&format!("segment[{i}] may not be empty"));
            continue;
        }
        for message in names::dns_subdomain(step) {
            refuse(&format!("segment[{i}]: {message}"));
        }
    }
}

/// What is wrong with the versions of a review that a webhook takes; `needed` says more where there are none.
pub fn review_versions(errors: &mut Vec<FieldError>, at: &str, list: &Value, needed: &str) {
    let versions: Vec<&str> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if versions.is_empty() {
        errors.push(FieldError::required(at, needed));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        let mut refuse = |message: &str| {
            errors.push(FieldError::invalid(
                format!("{at}[{i}]"),
                &json!(version),
                message,
            ));
        };
        if !seen.insert(version) {
            refuse("duplicate version");
            continue;
        }
        for message in names::dns_1035_label(version) {
            refuse(&message);
        }
    }
    if !versions.iter().any(|v| matches!(*v, "v1" | "v1beta1")) {
        let message = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(at, list, message));
    }
}
