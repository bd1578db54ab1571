//! Kinds that bound others: quotas, limit ranges, disruption budgets and autoscalers.

use super::check::Spot;
use super::json::{items, text};
use super::pod_rules::one_of_if_set;
use super::{pod_resources, quantity, scopes, selector, workloads};
use crate::error::{FieldError, FieldErrorKind};
use crate::registry::{names, split_api_version};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
/// What a quota may count by a name without a domain.
pub(super) const COUNTED: [&str; 21] = [
    "cpu",
    "memory",
    "storage",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "services",
    "services.nodeports",
    "services.loadbalancers",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "resourceclaims",
];
/// How a quota names the storage of one class.
const CLASS_STORAGE: &str = ".storageclass.storage.k8s.io/requests.storage";

fn amount(value: &Value) -> Option<i128> {
    value.as_str().and_then(quantity::nanos)
}

fn is_huge_pages(name: &str) -> bool {
    name.strip_prefix("requests.")
        .unwrap_or(name)
        .starts_with("hugepages-")
}

/// Amounts in a map that are below zero.
pub(super) fn validate_amounts(map: &Value, at: &str) -> Vec<FieldError> {
    let amounts = map.as_object().into_iter().flatten();
    amounts
        .filter(|(_, value)| amount(value).is_some_and(|n| n < 0))
        .map(|(name, value)| FieldError::invalid(format!("{at}.{name}"), value, NOT_NEGATIVE))
        .collect()
}

fn validate_quota(spec: &Value) -> Vec<FieldError> {
    let mut errors = validate_hard(&spec["hard"], "spec.hard");
    errors.extend(scopes::validate(spec));
    errors
}

/// Amounts of a quota at `path`: of what can be counted, none below zero.
pub(super) fn validate_hard(hard: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, value) in hard.as_object().into_iter().flatten() {
        let field = format!("{path}[{name}]");
        let mut refuse =
            |value: &Value, message: &str| errors.push(FieldError::invalid(&field, value, message));
        for message in names::qualified_name(name) {
            refuse(&json!(name), &message);
        }
        let known = COUNTED.contains(&name.as_str()) || is_huge_pages(name);
        if !name.contains('/') && !known {
            refuse(
                &json!(name),
                "must be a standard resource type or fully qualified",
            );
            refuse(&json!(name), "must be a standard resource for quota");
        }
        let Some(nanos) = amount(value) else { continue };
        if nanos < 0 {
            refuse(value, NOT_NEGATIVE);
        }
        // What Kubernetes does not know by name is counted.
        let extended =
            name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.");
        let class = name.ends_with(CLASS_STORAGE);
        if (extended || class || is_count(name)) && nanos % 1_000_000_000 != 0 {
            refuse(value, "must be an integer");
        }
    }
    errors
}

/// Whether a resource is a number of objects.
fn is_count(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "services"
            | "services.nodeports"
            | "services.loadbalancers"
            | "replicationcontrollers"
            | "resourcequotas"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
    )
}

/// One limit of a LimitRange: its amounts in order.
fn validate_limit(limit: &Value, at: &str, errors: &mut Vec<FieldError>) {
    const MAPS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let kind = text(limit, "type");
    for message in names::qualified_name(kind) {
        errors.push(FieldError::invalid(
            format!("{at}.type"),
            &limit["type"],
            &message,
        ));
    }
    if !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
        let message = "must be a standard limit type or fully qualified";
        errors.push(FieldError::invalid(format!("{at}.type"), &limit["type"], message));
    }
    if kind == "Pod" {
        for map in ["default", "defaultRequest"] {
            if limit[map].as_object().is_some_and(|m| !m.is_empty()) {
                let message = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(format!("{at}.{map}"), message));
            }
        }
    }
    if kind == "PersistentVolumeClaim"
        && limit["min"]["storage"].is_null()
        && limit["max"]["storage"].is_null()
    {
        let message = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(format!("{at}.limits"), message));
    }
    let keys: BTreeSet<&String> = MAPS
        .iter()
        .filter_map(|map| limit[*map].as_object())
        .flat_map(serde_json::Map::keys)
        .collect();
    let whole = Spot::new(limit, at);
    for map in MAPS {
        for (name, amount) in whole.at(map).entries() {
            if matches!(kind, "Pod" | "Container") {
                pod_resources::check_name(name, &amount, errors);
            } else if !name.contains('/') && !COUNTED.contains(&name) && !is_huge_pages(name) {
                let message = "must be a standard resource type or fully qualified";
                errors.push(FieldError::invalid(&amount.path, &json!(name), message));
            }
        }
    }
    for key in keys {
        validate_ratio(limit, key, at, errors);
        // Of two amounts the first must not be more than the second; who is told, and with which of the two.
        for (low, high, told, shown, words) in [
            ("min", "max", "min", "min", ("min", "max")),
            (
                "min",
                "defaultRequest",
                "defaultRequest",
                "defaultRequest",
                ("min", "default request"),
            ),
            (
                "defaultRequest",
                "max",
                "defaultRequest",
                "defaultRequest",
                ("default request", "max"),
            ),
            (
                "defaultRequest",
                "default",
                "defaultRequest",
                "defaultRequest",
                ("default request", "default limit"),
            ),
            ("min", "default", "default", "min", ("min", "default")),
            ("default", "max", "default", "max", ("default", "max")),
        ] {
            let (a, b) = (&limit[low][key], &limit[high][key]);
            if amount(a).zip(amount(b)).is_some_and(|(a, b)| a > b) {
                let said = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let message = format!(
                    "{} value {} is greater than {} value {}",
                    words.0,
                    said(a),
                    words.1,
                    said(b)
                );
                errors.push(FieldError::invalid(
                    format!("{at}.{told}[{key}]"),
                    &limit[shown][key],
                    &message,
                ));
            }
        }
    }
}

/// How many times more than asked for may be allowed: at least once, and no more than fits between the bounds.
#[allow(clippy::cast_precision_loss)] // as Kubernetes divides them
fn validate_ratio(limit: &Value, key: &str, at: &str, errors: &mut Vec<FieldError>) {
    let shown = &limit["maxLimitRequestRatio"][key];
    let Some(ratio) = amount(shown) else { return };
    let field = format!("{at}.maxLimitRequestRatio[{key}]");
    let said = shown.as_str().unwrap_or_default();
    let mut refuse = |why: &str| errors.push(FieldError::invalid(&field, shown, why));
    if ratio < 1_000_000_000 {
        refuse(&format!("ratio {said} is less than 1"));
    }
    if let (Some(min), Some(max)) = (amount(&limit["min"][key]), amount(&limit["max"][key])) {
        let most = max as f64 / min as f64;
        if ratio as f64 / 1e9 > most {
            refuse(&format!("ratio {said} is greater than max/min = {most:.6}"));
        }
    }
}

fn validate_budget(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let given = |key: &str| !spec[key].is_null();
    if given("minAvailable") && given("maxUnavailable") {
        // As Go shows its own struct.
        let message = format!(
            "Invalid value: {{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}: minAvailable and maxUnavailable cannot be both set",
            spec["minAvailable"],
            spec["selector"],
            spec["maxUnavailable"],
            spec["unhealthyPodEvictionPolicy"],
        );
        errors.push(FieldError::new(FieldErrorKind::Invalid, "spec", message));
    }
    for key in ["minAvailable", "maxUnavailable"] {
        workloads::int_or_percent(&mut errors, &format!("spec.{key}"), &spec[key]);
    }
    errors.extend(selector::validate(&spec["selector"], "spec.selector"));
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    let policy = &spec["unhealthyPodEvictionPolicy"];
    one_of_if_set(&mut errors, "spec.unhealthyPodEvictionPolicy", policy, &policies);
    errors
}

fn validate_scaler(spec: &Value, old: Option<&Value>) -> Vec<FieldError> {
    const SOURCES: [(&str, &str); 5] = [
        ("ContainerResource", "containerResource"),
        ("External", "external"),
        ("Object", "object"),
        ("Pods", "pods"),
        ("Resource", "resource"),
    ];
    let mut errors = Vec::new();
    let min = spec["minReplicas"].as_i64();
    let max = spec["maxReplicas"].as_i64().unwrap_or(0);
    if let Some(min) = min.filter(|min| *min < 1) {
        let message = "must be greater than or equal to 1";
        errors.push(FieldError::invalid("spec.minReplicas", &json!(min), message));
    }
    if max == 0 {
        errors.push(FieldError::required(
            "spec.maxReplicas",
            "must be set and greater than 0",
        ));
    } else if max < 0 {
        errors.push(FieldError::invalid(
            "spec.maxReplicas",
            &json!(max),
            "must be greater than 0",
        ));
    }
    if min.is_some_and(|min| max < min) {
        let message = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid("spec.maxReplicas", &json!(max), message));
    }
    let target = &spec["scaleTargetRef"];
    for key in ["kind", "name"] {
        if text(target, key).is_empty() {
            errors.push(FieldError::required(format!("spec.scaleTargetRef.{key}"), ""));
        }
    }
    let version = text(target, "apiVersion");
    let grouped = |target: &Value| {
        let version = text(target, "apiVersion");
        let core = version == "v1" && text(target, "kind") == "ReplicationController";
        core || !split_api_version(version).0.is_empty()
    };
    if !grouped(target) && old.is_none_or(|old| grouped(&old["spec"]["scaleTargetRef"])) {
        let message = "apiVersion must specify API group";
        errors.push(FieldError::invalid(
            "spec.scaleTargetRef.apiVersion",
            &json!(version),
            message,
        ));
    }
    for (i, metric) in items(spec, "metrics").enumerate() {
        let at = format!("spec.metrics[{i}]");
        let kind = text(metric, "type");
        match SOURCES.iter().find(|(name, _)| *name == kind) {
            Some((_, field)) if metric[*field].is_null() => {
                let message = "must populate information for the given metric source";
                errors.push(FieldError::required(format!("{at}.{field}"), message));
            }
            Some(_) => {}
            None if kind.is_empty() => {
                errors.push(FieldError::required(
                    format!("{at}.type"),
                    "must specify a metric source type",
                ));
            }
            None => {
                let kinds = SOURCES.map(|(name, _)| name);
                let error = FieldError::not_supported(format!("{at}.type"), &metric["type"], &kinds);
                // Once for the type, and once because no source goes with it.
                errors.extend([error.clone(), error]);
            }
        }
    }
    errors
}

/// What is wrong with an object of these kinds.
pub(super) fn validate(plural: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &object["spec"];
    match plural {
        "resourcequotas" => validate_quota(spec),
        "limitranges" => {
            let mut errors = Vec::new();
            let mut seen = BTreeSet::new();
            for (i, limit) in items(spec, "limits").enumerate() {
                let at = format!("spec.limits[{i}]");
                validate_limit(limit, &at, &mut errors);
                if !seen.insert(text(limit, "type")) {
                    errors.push(FieldError::duplicate(format!("{at}.type"), &limit["type"]));
                }
            }
            errors
        }
        "poddisruptionbudgets" => validate_budget(spec),
        "horizontalpodautoscalers" => validate_scaler(spec, old),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(plural: &str, spec: &Value) -> Vec<String> {
        let errors = validate(plural, &json!({ "spec": spec }), None);
        errors
            .iter()
            .map(|e| format!("{}: {}", e.field, e.message))
            .collect()
    }

    #[test]
    fn amounts_are_in_order() {
        for (limit, want) in [
            (
                json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}}),
                "",
            ),
            (
                json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}),
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            ),
            (
                json!({"type": "Pod", "default": {"cpu": "2"}}),
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            ),
            (
                json!({"type": "Frob"}),
                "spec.limits[0].type: Invalid value: \"Frob\": must be a standard limit type or fully qualified",
            ),
        ] {
            assert_eq!(
                told("limitranges", &json!({ "limits": [limit] })).join("; "),
                want
            );
        }
    }

    #[test]
    fn quotas_count_what_there_is() {
        for (hard, errors) in [
            (
                json!({"pods": "3", "requests.cpu": "1500m", "count/x.io": "1", "requests.hugepages-2Mi": "1"}),
                0,
            ),
            (json!({"frob": "1"}), 2),
            (json!({"pods": "-1"}), 1),
            (json!({"pods": "1500m"}), 1),
        ] {
            assert_eq!(
                told("resourcequotas", &json!({ "hard": hard })).len(),
                errors,
                "{hard}"
            );
        }
    }

    #[test]
    fn shares_are_no_more_than_all() {
        for (share, errors) in [
            (json!("100%"), 0),
            (json!(7), 0),
            (json!("101%"), 1),
            (json!("-1%"), 1),
            (json!(-1), 1),
        ] {
            assert_eq!(
                told("poddisruptionbudgets", &json!({ "minAvailable": share })).len(),
                errors,
                "{share}"
            );
        }
    }
}
