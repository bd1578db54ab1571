//! Where a pod may run: affinity to nodes and pods, and how pods are spread.

use super::json::{items, text};
use super::pod_rules::all;
use super::selector;
use crate::error::FieldError;
use crate::registry::names;
use serde_json::{Value, json};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const OPERATOR: &str = "not a valid selector operator";

/// What is wrong with an affinity.
pub(super) fn validate_affinity(affinity: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let nodes = &affinity["nodeAffinity"];
    let required = &nodes[REQUIRED];
    if !required.is_null() {
        validate_node_selector(required, &format!("{at}.nodeAffinity.{REQUIRED}"), errors);
    }
    for (i, term) in items(nodes, PREFERRED).enumerate() {
        let at = format!("{at}.nodeAffinity.{PREFERRED}[{i}]");
        weight(term, &at, errors);
        node_term(&term["preference"], &format!("{at}.preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (i, term) in items(&affinity[kind], REQUIRED).enumerate() {
            pod_term(term, &format!("{at}.{kind}.{REQUIRED}[{i}]"), errors);
        }
        for (i, term) in items(&affinity[kind], PREFERRED).enumerate() {
            let at = format!("{at}.{kind}.{PREFERRED}[{i}]");
            weight(term, &at, errors);
            pod_term(&term["podAffinityTerm"], &format!("{at}.podAffinityTerm"), errors);
        }
    }
}

/// What is wrong with a `NodeSelector`.
pub(super) fn validate_node_selector(required: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let at = format!("{at}.nodeSelectorTerms");
    if items(required, "nodeSelectorTerms").next().is_none() {
        errors.push(FieldError::required(
            at,
            "must have at least one node selector term",
        ));
        return;
    }
    for (i, term) in items(required, "nodeSelectorTerms").enumerate() {
        node_term(term, &format!("{at}[{i}]"), errors);
    }
}

/// Whether a waiting pod's new node affinity asks for no less than the old one: the same terms, each with what it asked
/// for and perhaps more.
pub(super) fn narrows(new: &Value, old: &Value) -> bool {
    let terms = |affinity: &Value| affinity["nodeAffinity"][REQUIRED]["nodeSelectorTerms"].clone();
    let (new, old) = (terms(new), terms(old));
    let Some(old) = old.as_array().filter(|terms| !terms.is_empty()) else {
        return true;
    };
    let Some(new) = new.as_array().filter(|terms| terms.len() == old.len()) else {
        return false;
    };
    old.iter().zip(new).all(|(was, now)| {
        ["matchExpressions", "matchFields"].iter().all(|key| {
            let kept = items(was, key).zip(items(now, key)).all(|(a, b)| a == b);
            kept && items(was, key).count() <= items(now, key).count()
        })
    })
}

/// Puts the old node affinity into a changed spec.
pub(super) fn keep_node_affinity(spec: &mut Value, old: &Value) {
    if spec["affinity"].is_object() || old["affinity"].is_object() {
        let was = old["affinity"]["nodeAffinity"].clone();
        if let Some(affinity) = super::json::made(spec, "affinity") {
            affinity["nodeAffinity"] = was;
        }
    }
}

fn weight(term: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let weight = term["weight"].as_i64().unwrap_or(0);
    if !(1..=100).contains(&weight) {
        let message = "must be in the range 1-100";
        errors.push(FieldError::invalid(
            format!("{at}.weight"),
            &json!(weight),
            message,
        ));
    }
}

fn node_term(term: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for (i, requirement) in items(term, "matchExpressions").enumerate() {
        let at = format!("{at}.matchExpressions[{i}]");
        let values = items(requirement, "values").count();
        match text(requirement, "operator") {
            "In" | "NotIn" if values == 0 => errors.push(FieldError::required(
                format!("{at}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if values > 0 => errors.push(FieldError::forbidden(
                format!("{at}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Gt" | "Lt" if values != 1 => errors.push(FieldError::required(
                format!("{at}.values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.push(FieldError::invalid(
                format!("{at}.operator"),
                &json!(other),
                OPERATOR,
            )),
        }
        let key = text(requirement, "key");
        all(errors, &format!("{at}.key"), &json!(key), names::label_key(key));
        for (j, value) in items(requirement, "values").enumerate() {
            let messages = names::label_value(value.as_str().unwrap_or_default());
            all(errors, &format!("{at}.values[{j}]"), value, messages);
        }
    }
    for (i, requirement) in items(term, "matchFields").enumerate() {
        let at = format!("{at}.matchFields[{i}]");
        match text(requirement, "operator") {
            "In" | "NotIn" => {
                if items(requirement, "values").count() != 1 {
                    errors.push(FieldError::required(
                        format!("{at}.values"),
                        "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                    ));
                }
            }
            other => errors.push(FieldError::invalid(
                format!("{at}.operator"),
                &json!(other),
                OPERATOR,
            )),
        }
        let key = text(requirement, "key");
        if key == "metadata.name" {
            for (j, value) in items(requirement, "values").enumerate() {
                let messages = names::dns_subdomain(value.as_str().unwrap_or_default());
                all(errors, &format!("{at}.values[{j}]"), value, messages);
            }
        } else {
            let message = "not a valid field selector key";
            errors.push(FieldError::invalid(format!("{at}.key"), &json!(key), message));
        }
    }
}

fn pod_term(term: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for key in ["labelSelector", "namespaceSelector"] {
        errors.extend(selector::validate(&term[key], &format!("{at}.{key}")));
    }
    for namespace in items(term, "namespaces") {
        let messages = names::dns_label(namespace.as_str().unwrap_or_default());
        all(errors, &format!("{at}.namespace"), namespace, messages);
    }
    for key in ["matchLabelKeys", "mismatchLabelKeys"] {
        label_keys(term, key, at, errors);
    }
    topology_key(term, at, errors);
}

fn topology_key(term: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let topology = text(term, "topologyKey");
    let field = format!("{at}.topologyKey");
    if topology.is_empty() {
        errors.push(FieldError::required(field.clone(), "can not be empty"));
    }
    all(errors, &field, &json!(topology), names::label_key(topology));
}

fn label_keys(term: &Value, key: &str, at: &str, errors: &mut Vec<FieldError>) {
    let at = format!("{at}.{key}");
    if items(term, key).next().is_some() && term["labelSelector"].is_null() {
        let message = "must not be specified when labelSelector is not set";
        errors.push(FieldError::forbidden(at.clone(), message));
    }
    for (i, label) in items(term, key).enumerate() {
        let messages = names::label_key(label.as_str().unwrap_or_default());
        all(errors, &format!("{at}[{i}]"), label, messages);
    }
}

/// What is wrong with `topologySpreadConstraints`.
pub(super) fn validate_spread(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for (i, constraint) in items(spec, "topologySpreadConstraints").enumerate() {
        let at = format!("{field}.topologySpreadConstraints[{i}]");
        let positive = |errors: &mut Vec<FieldError>, key: &str| {
            let value = constraint[key].as_i64().unwrap_or(0);
            if value <= 0 {
                let message = "must be greater than zero";
                errors.push(FieldError::invalid(format!("{at}.{key}"), &json!(value), message));
            }
        };
        positive(errors, "maxSkew");
        let topology = text(constraint, "topologyKey");
        if topology.is_empty() {
            errors.push(FieldError::required(
                format!("{at}.topologyKey"),
                "can not be empty",
            ));
        }
        let when = text(constraint, "whenUnsatisfiable");
        if !matches!(when, "DoNotSchedule" | "ScheduleAnyway") {
            errors.push(FieldError::not_supported(
                format!("{at}.whenUnsatisfiable"),
                &json!(when),
                &["DoNotSchedule", "ScheduleAnyway"],
            ));
        }
        let again = |other: &&Value| {
            (text(other, "topologyKey"), text(other, "whenUnsatisfiable")) == (topology, when)
        };
        for _ in items(spec, "topologySpreadConstraints").skip(i + 1).filter(again) {
            errors.push(FieldError::duplicate(
                format!("{at}.{{topologyKey, whenUnsatisfiable}}"),
                &json!(format!("{{{topology}, {when}}}")),
            ));
        }
        if !constraint["minDomains"].is_null() {
            positive(errors, "minDomains");
            if when != "DoNotSchedule" {
                let message =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.push(FieldError::invalid(
                    format!("{at}.minDomains"),
                    &constraint["minDomains"],
                    &message,
                ));
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let policy = &constraint[key];
            if !policy.is_null() && policy != "Honor" && policy != "Ignore" {
                errors.push(FieldError::not_supported(
                    format!("{at}.{key}"),
                    policy,
                    &["Honor", "Ignore"],
                ));
            }
        }
        label_keys(constraint, "matchLabelKeys", &at, errors);
        errors.extend(selector::validate(
            &constraint["labelSelector"],
            &format!("{at}.labelSelector"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(check: impl Fn(&mut Vec<FieldError>)) -> Vec<String> {
        let mut errors = Vec::new();
        check(&mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn affinities() {
        let requirement = |key: &str, operator: &str, values: Value| {
            json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": key, "operator": operator, "values": values}]}]}}})
        };
        let first = format!("a.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0].matchExpressions[0]");
        for (affinity, want) in [
            (requirement("a", "In", json!(["b"])), None),
            (requirement("a", "In", json!([])), Some(format!("{first}.values"))),
            (
                requirement("a", "Gt", json!(["1", "2"])),
                Some(format!("{first}.values")),
            ),
            (
                requirement("a", "Frob", json!([])),
                Some(format!("{first}.operator")),
            ),
            (
                requirement("a_!", "Exists", json!([])),
                Some(format!("{first}.key")),
            ),
            (
                json!({"podAffinity": {PREFERRED: [{"weight": 0, "podAffinityTerm": {"topologyKey": "z"}}]}}),
                Some(format!("a.podAffinity.{PREFERRED}[0].weight")),
            ),
            (
                json!({"podAffinity": {REQUIRED: [{"topologyKey": "z", "namespaces": ["A"]}]}}),
                Some(format!("a.podAffinity.{REQUIRED}[0].namespace")),
            ),
        ] {
            let told = fields(|e| validate_affinity(&affinity, "a", e));
            assert_eq!(told, want.into_iter().collect::<Vec<_>>(), "{affinity}");
        }
    }

    #[test]
    fn spreading() {
        let good = json!({"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"});
        for (change, want) in [
            (json!({}), None),
            (json!({"maxSkew": 0}), Some("maxSkew")),
            (json!({"topologyKey": ""}), Some("topologyKey")),
            (json!({"whenUnsatisfiable": "Frob"}), Some("whenUnsatisfiable")),
            (json!({"minDomains": 0}), Some("minDomains")),
            (json!({"nodeTaintsPolicy": "x"}), Some("nodeTaintsPolicy")),
            (json!({"matchLabelKeys": ["a"]}), Some("matchLabelKeys")),
        ] {
            let mut constraint = good.clone();
            for (key, value) in change.as_object().unwrap() {
                constraint[key] = value.clone();
            }
            let spec = json!({"topologySpreadConstraints": [constraint]});
            let told = fields(|e| validate_spread(&spec, "s", e));
            let want: Vec<String> = want
                .map(|w| format!("s.topologySpreadConstraints[0].{w}"))
                .into_iter()
                .collect();
            assert_eq!(told, want, "{change}");
        }
        let twice = json!({"topologySpreadConstraints": [good, good]});
        assert_eq!(fields(|e| validate_spread(&twice, "s", e)).len(), 1);
    }
}
