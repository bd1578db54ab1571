//! HorizontalPodAutoscalers: what they measure and how they scale (`pkg/apis/autoscaling/validation`).

use super::check::Spot;
use super::json::{items, text};
use super::pod_resources;
use super::quantity::Amount;
use crate::error::FieldError;
use crate::registry::names;
use serde_json::{Value, json};

const TARGETS: [&str; 3] = ["Utilization", "Value", "AverageValue"];
/// Longest window and period of a scaling rule, in seconds.
const MAX_WINDOW: i64 = 3600;
const MAX_PERIOD: i64 = 1800;

/// What is wrong with an autoscaler of `autoscaling/v2`, or with the one metric of `autoscaling/v1`.
pub(super) fn validate(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    let percentage = &spec["targetCPUUtilizationPercentage"];
    if percentage.as_i64().is_some_and(|p| p < 1) {
        errors.push(FieldError::invalid(
            "spec.metrics[0].resource.target.averageUtilization",
            percentage,
            "must be greater than 0",
        ));
    }
    for (i, metric) in items(spec, "metrics").enumerate() {
        for kind in ["object", "pods", "resource", "containerResource", "external"] {
            if metric[kind].is_object() {
                source(
                    kind,
                    &metric[kind],
                    &format!("spec.metrics[{i}].{kind}"),
                    &mut errors,
                );
            }
        }
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = &spec["behavior"][direction];
        if rules.is_object() {
            scaling(rules, &format!("spec.behavior.{direction}"), &mut errors);
        }
    }
    errors
}

fn source(kind: &str, metric: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let required = |errors: &mut Vec<FieldError>, value: &Value, key: &str, field: &str, why: &str| {
        if text(value, key).is_empty() {
            errors.push(FieldError::required(format!("{at}.{field}"), why));
        }
    };
    if kind == "object" {
        let described = &metric["describedObject"];
        required(errors, described, "kind", "describedObject.kind", "");
        required(errors, described, "name", "describedObject.name", "");
    }
    if matches!(kind, "resource" | "containerResource") {
        required(errors, metric, "name", "name", "must specify a resource name");
    } else {
        required(
            errors,
            &metric["metric"],
            "name",
            "metric.name",
            "must specify a metric name",
        );
    }
    if kind == "containerResource" {
        let name = Spot::new(&metric["name"], format!("{at}.name"));
        if !name.is_empty() {
            pod_resources::check_name(name.text(), &name, errors);
        }
        let container = Spot::new(&metric["container"], format!("{at}.container"));
        if container.required(errors, "must specify a container") {
            container.named(errors, names::dns_label);
        }
    }
    let wanted = &metric["target"];
    target(wanted, &format!("{at}.target"), errors);
    let set = |key: &str| !wanted[key].is_null();
    let why = match kind {
        "pods" => {
            let positive = Amount::of(&wanted["averageValue"]).exceeds(Amount::ZERO);
            (!positive).then_some(("averageValue", "must specify a positive target averageValue"))
        }
        "object" => (!set("value") && !set("averageValue"))
            .then_some(("averageValue", "must set either a target value or averageValue")),
        "external" => (!set("value") && !set("averageValue")).then_some((
            "averageValue",
            "must set either a target value for metric or a per-pod target",
        )),
        _ => (!set("averageUtilization") && !set("averageValue")).then_some((
            "averageUtilization",
            "must set either a target raw value or a target utilization",
        )),
    };
    if let Some((key, why)) = why {
        errors.push(FieldError::required(format!("{at}.target.{key}"), why));
    }
}

fn target(target: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let kind = text(target, "type");
    let field = format!("{at}.type");
    if kind.is_empty() {
        errors.push(FieldError::required(
            field.clone(),
            "must specify a metric target type",
        ));
    }
    if !TARGETS.contains(&kind) {
        let why = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(field, &json!(kind), why));
    }
    for key in ["value", "averageValue"] {
        let value = &target[key];
        if !value.is_null() && !Amount::of(value).exceeds(Amount::ZERO) {
            errors.push(FieldError::invalid(
                format!("{at}.{key}"),
                value,
                "must be positive",
            ));
        }
    }
    let utilization = &target["averageUtilization"];
    if utilization.as_i64().is_some_and(|n| n < 1) {
        let why = "must be greater than 0";
        errors.push(FieldError::invalid(
            format!("{at}.averageUtilization"),
            utilization,
            why,
        ));
    }
}

fn scaling(rules: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let window = &rules["stabilizationWindowSeconds"];
    let field = format!("{at}.stabilizationWindowSeconds");
    match window.as_i64() {
        Some(n) if n < 0 => {
            let why = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(field, window, why));
        }
        Some(n) if n > MAX_WINDOW => {
            let why = format!("must be less than or equal to {MAX_WINDOW}");
            errors.push(FieldError::invalid(field, window, &why));
        }
        _ => {}
    }
    let tolerance = &rules["tolerance"];
    if Amount::ZERO.exceeds(Amount::of(tolerance)) {
        let why = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(format!("{at}.tolerance"), tolerance, why));
    }
    let select = &rules["selectPolicy"];
    if !select.is_null() && !["Max", "Min", "Disabled"].iter().any(|s| select == s) {
        errors.push(FieldError::not_supported(
            format!("{at}.selectPolicy"),
            select,
            &["Disabled", "Max", "Min"],
        ));
    }
    for (i, policy) in items(rules, "policies").enumerate() {
        let at = format!("{at}.policies[{i}]");
        let kind = text(policy, "type");
        if !matches!(kind, "Pods" | "Percent") {
            errors.push(FieldError::not_supported(
                format!("{at}.type"),
                &json!(kind),
                &["Percent", "Pods"],
            ));
        }
        for key in ["value", "periodSeconds"] {
            let number = policy[key].as_i64().unwrap_or(0);
            let field = format!("{at}.{key}");
            if number <= 0 {
                let why = "must be greater than zero";
                errors.push(FieldError::invalid(field, &json!(number), why));
            } else if key == "periodSeconds" && number > MAX_PERIOD {
                let why = format!("must be less than or equal to {MAX_PERIOD}");
                errors.push(FieldError::invalid(field, &json!(number), &why));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_and_behavior() {
        let utilization = json!({"type": "Utilization", "averageUtilization": 80});
        for (spec, want) in [
            (
                json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": utilization}}]}),
                vec![],
            ),
            (
                json!({"metrics": [{"type": "Resource", "resource": {"target": utilization}}]}),
                vec!["spec.metrics[0].resource.name"],
            ),
            (
                json!({"metrics": [{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue"}}}]}),
                vec!["spec.metrics[0].pods.target.averageValue"],
            ),
            (
                json!({"metrics": [{"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "Frob", "value": "1"}}}]}),
                vec!["spec.metrics[0].external.target.type"],
            ),
            (
                json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": -1, "selectPolicy": "x",
                    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}}}),
                vec![
                    "spec.behavior.scaleUp.stabilizationWindowSeconds",
                    "spec.behavior.scaleUp.selectPolicy",
                    "spec.behavior.scaleUp.policies[0].periodSeconds",
                ],
            ),
            (
                json!({"targetCPUUtilizationPercentage": 0}),
                vec!["spec.metrics[0].resource.target.averageUtilization"],
            ),
        ] {
            let errors = validate(&json!({"spec": spec}));
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields, want, "{spec}");
        }
    }
}
