//! Webhook configurations and admission policies (`pkg/apis/admissionregistration`).

mod policies;
mod rules;
pub mod webhooks;

use super::json::{at, default, each};
use crate::error::FieldError;
use serde_json::{Value, json};

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

fn problems(plural: &str, object: &Value) -> Vec<FieldError> {
    match plural {
        "validatingadmissionpolicies" => policies::validating(object),
        "validatingadmissionpolicybindings" => policies::binding(object, true),
        "mutatingadmissionpolicies" => policies::mutating(object),
        "mutatingadmissionpolicybindings" => policies::binding(object, false),
        _ => webhooks::validate(object, plural.starts_with("mutating")),
    }
}

/// What is wrong with a webhook configuration, policy or binding. What was wrong with the old one stays as it is: a change
/// need not put it right.
pub(super) fn validate(plural: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = problems(plural, object);
    if let Some(old) = old.filter(|_| !errors.is_empty()) {
        let former = problems(plural, old);
        errors.retain(|error| !former.contains(error));
    }
    errors
}
