//! Scopes of quotas: which pods and claims are counted, and that what is counted has such.

use super::bounds::COUNTED;
use super::check::{Errors, Spot};
use super::go::{self, Part, Shape};
use serde_json::Value;
use std::collections::BTreeSet;

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
const OPPOSITES: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
/// What pods use that a quota sums up.
const OF_PODS: [&str; 7] = [
    "pods",
    "cpu",
    "memory",
    "limits.cpu",
    "limits.memory",
    "requests.cpu",
    "requests.memory",
];
const SELECTOR: &Shape = &[(
    "MatchExpressions",
    "matchExpressions",
    Part::Many(&[
        ("ScopeName", "scopeName", Part::Text),
        ("Operator", "operator", Part::Text),
        ("Values", "values", Part::Plain),
    ]),
)];

/// Whether a resource Kubernetes knows can be counted in a scope; those it does not know can.
fn counts(scope: &str, resource: &str) -> bool {
    if !COUNTED.contains(&resource) {
        return true;
    }
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ if SCOPES.contains(&scope) => OF_PODS.contains(&resource),
        _ => true,
    }
}

/// What is wrong with the scopes of a quota.
pub(super) fn validate(spec: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Spot::new(spec, "spec");
    let hard: Vec<&str> = spec.at("hard").entries().iter().map(|(name, _)| *name).collect();
    let fits = |scope: &str| hard.iter().all(|resource| counts(scope, resource));
    let scopes = spec.at("scopes");
    let mut listed = BTreeSet::new();
    for scope in scopes.items() {
        if !SCOPES.contains(&scope.text()) {
            scopes.invalid(&mut errors, "unsupported scope");
        }
        if !fits(scope.text()) {
            scopes.invalid(&mut errors, "unsupported scope applied to resource");
        }
        listed.insert(scope.text());
    }
    conflicts(&scopes, &listed, &scopes.value.to_string(), &mut errors);
    let selector = spec.at("scopeSelector");
    let expressions = selector.at("matchExpressions");
    let shown = go::shown(selector.value, SELECTOR);
    let mut selected = BTreeSet::new();
    for expression in expressions.items() {
        let at = |key: &str| {
            let mut field = expressions.at(key);
            field.value = &expression.value[key];
            field
        };
        let (name, operator, values) = (at("scopeName"), at("operator"), at("values"));
        if !SCOPES.contains(&name.text()) {
            name.invalid_text(&mut errors, "unsupported scope");
        }
        if !fits(name.text()) {
            let why = "unsupported scope applied to resource";
            expressions.invalid_shown(&mut errors, &shown, why);
        }
        let only_there = !matches!(name.text(), "PriorityClass" | "VolumeAttributesClass")
            && SCOPES.contains(&name.text());
        if only_there && operator.text() != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            operator.invalid_text(&mut errors, why);
        }
        match operator.text() {
            "In" | "NotIn" => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                values.required(&mut errors, why);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                values.invalid(&mut errors, why);
            }
            "Exists" | "DoesNotExist" => {}
            _ => operator.invalid_text(&mut errors, "not a valid selector operator"),
        }
        selected.insert(name.text());
    }
    conflicts(&expressions, &selected, &shown, &mut errors);
    errors
}

fn conflicts(at: &Spot<'_>, scopes: &BTreeSet<&str>, shown: &str, errors: &mut Errors) {
    for pair in OPPOSITES {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            at.invalid_shown(errors, shown, "conflicting scopes");
        }
    }
}

/// Which scopes a quota has stays.
pub(super) fn validate_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let scopes = Spot::new(&new["spec"]["scopes"], "spec.scopes");
    let of = |quota: &Value| -> BTreeSet<String> {
        let scopes = super::json::items(&quota["spec"], "scopes");
        scopes.filter_map(|s| s.as_str().map(str::to_owned)).collect()
    };
    if of(new) != of(old) {
        scopes.invalid(&mut errors, "field is immutable");
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scopes_of_what_is_counted() {
        for (spec, want) in [
            (json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}), ""),
            (
                json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}),
                "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
            ),
            (
                json!({"scopes": ["Terminating", "NotTerminating"]}),
                "spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes",
            ),
            (json!({"hard": {"x.io/y": "1"}, "scopes": ["Terminating"]}), ""),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}]}}),
                "",
            ),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "x"}]}}),
                "spec.scopeSelector.matchExpressions.operator: Invalid value: \"x\": not a valid selector operator",
            ),
        ] {
            let told: Vec<String> = validate(&spec)
                .iter()
                .map(|e| format!("{}: {}", e.field, e.message))
                .collect();
            assert_eq!(told.join("; "), want, "{spec}");
        }
    }
}
