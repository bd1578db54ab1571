//! Webhook configurations and admission policies (`pkg/apis/admissionregistration`).

use super::json::{at, default, each, items, text};
use super::pod_rules::one_of;
use super::selector;
use crate::error::FieldError;
use crate::registry::names;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn default_rules(object: &mut Value, key: &str) {
    for rule in each(object, key) {
        default(rule, "scope", "*");
    }
}

fn default_match(resources: &mut Value) {
    default(resources, "matchPolicy", "Equivalent");
    default(resources, "namespaceSelector", json!({}));
    default(resources, "objectSelector", json!({}));
    default_rules(resources, "resourceRules");
    default_rules(resources, "excludeResourceRules");
}

/// Defaults by plural.
pub(super) fn defaults(plural: &str, object: &mut Value) {
    if plural.ends_with("webhookconfigurations") {
        for hook in each(object, "webhooks") {
            default(hook, "failurePolicy", "Fail");
            default(hook, "matchPolicy", "Equivalent");
            default(hook, "namespaceSelector", json!({}));
            default(hook, "objectSelector", json!({}));
            default(hook, "timeoutSeconds", 10);
            if plural.starts_with("mutating") {
                default(hook, "reinvocationPolicy", "Never");
            }
            if let Some(service) = at(hook, "clientConfig").and_then(|c| at(c, "service")) {
                default(service, "port", 443);
            }
            default_rules(hook, "rules");
        }
        return;
    }
    let Some(spec) = at(object, "spec") else { return };
    if plural.ends_with("policybindings") {
        if let Some(resources) = at(spec, "matchResources") {
            default_match(resources);
        }
    } else {
        default(spec, "failurePolicy", "Fail");
        if let Some(constraints) = at(spec, "matchConstraints") {
            default_match(constraints);
        }
    }
}

fn validate_rules(rules: impl Iterator<Item = Value>, field: &str, errors: &mut Vec<FieldError>) {
    const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    for (i, rule) in rules.enumerate() {
        let at = format!("{field}[{i}]");
        for (key, others) in [
            ("operations", "operations"),
            ("apiGroups", "API groups"),
            ("apiVersions", "API versions"),
            ("resources", "resources"),
        ] {
            let field = format!("{at}.{key}");
            let list: Vec<&str> = items(&rule, key).filter_map(Value::as_str).collect();
            if list.is_empty() {
                errors.push(FieldError::required(field, ""));
                continue;
            }
            if key == "resources" {
                validate_resources(&list, &field, errors);
                continue;
            }
            if list.len() > 1 && list.contains(&"*") {
                let message = format!("if '*' is present, must not specify other {others}");
                errors.push(FieldError::invalid(field.clone(), &rule[key], &message));
            }
            for (j, operation) in items(&rule, key).enumerate().filter(|_| key == "operations") {
                one_of(errors, &format!("{field}[{j}]"), operation, &OPERATIONS);
            }
        }
    }
}

/// No wildcard makes another resource of the list superfluous.
fn validate_resources(list: &[&str], field: &str, errors: &mut Vec<FieldError>) {
    let (mut all_below, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for (i, resource) in list.iter().enumerate() {
        let at = format!("{field}[{i}]");
        let Some((name, sub)) = resource.split_once('/') else {
            if resource.is_empty() {
                errors.push(FieldError::required(at, ""));
            }
            plain |= *resource != "*";
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

fn validate_webhooks(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, hook) in items(object, "webhooks").enumerate() {
        let at = format!("webhooks[{i}]");
        let name = text(hook, "name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else {
            for message in names::dns_subdomain(name) {
                errors.push(FieldError::invalid(format!("{at}.name"), &hook["name"], &message));
            }
            if name.split('.').count() < 3 {
                let message = "should be a domain with at least three segments separated by dots";
                errors.push(FieldError::invalid(format!("{at}.name"), &hook["name"], message));
            }
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), &hook["name"]));
            }
        }
        let rules: Vec<Value> = items(hook, "rules").cloned().collect();
        validate_rules(rules.into_iter(), &format!("{at}.rules"), &mut errors);
        one_of(
            &mut errors,
            &format!("{at}.failurePolicy"),
            &hook["failurePolicy"],
            &["Fail", "Ignore"],
        );
        one_of(
            &mut errors,
            &format!("{at}.matchPolicy"),
            &hook["matchPolicy"],
            &["Equivalent", "Exact"],
        );
        one_of(
            &mut errors,
            &format!("{at}.sideEffects"),
            &hook["sideEffects"],
            &["None", "NoneOnDryRun"],
        );
        if !hook["timeoutSeconds"]
            .as_i64()
            .is_some_and(|s| (1..=30).contains(&s))
        {
            let message = "the timeout value must be between 1 and 30 seconds";
            errors.push(FieldError::invalid(
                format!("{at}.timeoutSeconds"),
                &hook["timeoutSeconds"],
                message,
            ));
        }
        for key in ["namespaceSelector", "objectSelector"] {
            errors.extend(selector::validate(&hook[key], &format!("{at}.{key}")));
        }
        let config = &hook["clientConfig"];
        if config["url"].is_null() == config["service"].is_null() {
            let message = "exactly one of url or service is required";
            errors.push(FieldError::required(format!("{at}.clientConfig"), message));
        } else if let Some(url) = config["url"].as_str()
            && !url.starts_with("https://")
        {
            let field = format!("{at}.clientConfig.url");
            let scheme = url.split_once("://").map_or("", |(s, _)| s);
            let message = format!(
                "'https' is the only allowed URL scheme; desired format: https://host[/path], not {scheme:?}"
            );
            errors.push(FieldError::invalid(field, &config["url"], &message));
        }
        if items(hook, "admissionReviewVersions").next().is_none() {
            let message = "must specify one of v1, v1beta1";
            errors.push(FieldError::required(
                format!("{at}.admissionReviewVersions"),
                message,
            ));
        } else if !items(hook, "admissionReviewVersions").any(|v| *v == json!("v1") || *v == json!("v1beta1"))
        {
            let message = "must include at least one of v1, v1beta1";
            let field = format!("{at}.admissionReviewVersions");
            errors.push(FieldError::invalid(
                field,
                &hook["admissionReviewVersions"],
                message,
            ));
        }
    }
    errors
}

/// What is wrong with a webhook configuration, policy or binding.
pub(super) fn validate(plural: &str, object: &Value) -> Vec<FieldError> {
    if plural.ends_with("webhookconfigurations") {
        return validate_webhooks(object);
    }
    let spec = &object["spec"];
    let mut errors = Vec::new();
    if plural.ends_with("policybindings") {
        if text(spec, "policyName").is_empty() {
            errors.push(FieldError::required("spec.policyName", ""));
        }
        if plural == "validatingadmissionpolicybindings" {
            if items(spec, "validationActions").next().is_none() {
                errors.push(FieldError::required(
                    "spec.validationActions",
                    "at least one validation action is required",
                ));
            }
            for (i, action) in items(spec, "validationActions").enumerate() {
                let field = format!("spec.validationActions[{i}]");
                one_of(&mut errors, &field, action, &["Audit", "Deny", "Warn"]);
            }
        }
        return errors;
    }
    one_of(
        &mut errors,
        "spec.failurePolicy",
        &spec["failurePolicy"],
        &["Fail", "Ignore"],
    );
    if spec["matchConstraints"].is_null() {
        errors.push(FieldError::required("spec.matchConstraints", ""));
    } else {
        let field = "spec.matchConstraints.resourceRules";
        let rules: Vec<Value> = items(&spec["matchConstraints"], "resourceRules")
            .cloned()
            .collect();
        if rules.is_empty() {
            errors.push(FieldError::required(field, ""));
        }
        validate_rules(rules.into_iter(), field, &mut errors);
    }
    if plural == "validatingadmissionpolicies" {
        let some = |key: &str| items(spec, key).next().is_some();
        if !some("validations") && !some("auditAnnotations") {
            let message = "validations or auditAnnotations must contain at least one item";
            errors.push(FieldError::required("spec.validations", message));
        }
        let mut found: Vec<FieldError> = crate::rest::admission::policy::problems(spec)
            .into_iter()
            .map(|(field, expression, why)| FieldError::invalid(field, &expression.into(), &why))
            .collect();
        for (i, validation) in items(spec, "validations").enumerate() {
            let at = format!("spec.validations[{i}].");
            let (here, later) = found.into_iter().partition(|e| e.field.starts_with(&at));
            found = later;
            if text(validation, "expression").trim().is_empty() {
                let message = "expression is not specified";
                errors.push(FieldError::required(format!("{at}expression"), message));
            }
            errors.extend::<Vec<_>>(here);
        }
        errors.extend(found);
    } else if items(spec, "mutations").next().is_none() {
        let message = "mutations must contain at least one item";
        errors.push(FieldError::required("spec.mutations", message));
    }
    errors
}
