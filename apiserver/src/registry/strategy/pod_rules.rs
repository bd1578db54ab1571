//! What may be in a pod, in a template, and what of a pod may change (`pkg/apis/core/validation`).

use super::check::Spot;
use super::json::{items, same, text};
use super::metadata::validate_labels;
use super::{pod_containers, pod_parts, pod_scheduling, pod_volumes};
use crate::error::FieldError;
use crate::registry::names;
use serde_json::{Value, json};

const POSITIVE: &str = "must be greater than or equal to 0";

/// An error for each of `messages`.
pub(super) fn all(errors: &mut Vec<FieldError>, field: &str, value: &Value, messages: Vec<String>) {
    errors.extend(
        messages
            .into_iter()
            .map(|m| FieldError::invalid(field, value, &m)),
    );
}

pub(super) fn one_of(errors: &mut Vec<FieldError>, field: &str, value: &Value, allowed: &[&str]) {
    match value.as_str() {
        None | Some("") => errors.push(FieldError::required(field, "")),
        Some(s) if !allowed.contains(&s) => errors.push(FieldError::not_supported(field, value, allowed)),
        Some(_) => {}
    }
}

/// As [`one_of`] where the field may be absent.
pub(super) fn one_of_if_set(errors: &mut Vec<FieldError>, field: &str, value: &Value, allowed: &[&str]) {
    if !value.is_null() && !value.as_str().is_some_and(|s| allowed.contains(&s)) {
        errors.push(FieldError::not_supported(field, value, allowed));
    }
}

pub(super) fn not_negative(errors: &mut Vec<FieldError>, field: &str, value: &Value) {
    if value.as_i64().is_some_and(|n| n < 0) {
        errors.push(FieldError::invalid(field, value, POSITIVE));
    }
}

pub(super) fn port_number(errors: &mut Vec<FieldError>, field: &str, value: &Value) {
    if !value.as_i64().is_some_and(|n| (1..=65535).contains(&n)) {
        errors.push(FieldError::invalid(
            field,
            value,
            "must be between 1 and 65535, inclusive",
        ));
    }
}

/// What is wrong with a PodSpec at `field`.
pub(super) fn validate_spec(spec: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let whole = Spot::new(spec, field);
    let volumes = pod_volumes::validate(&whole, &mut errors);
    pod_containers::validate(&whole, &volumes, &mut errors);
    let policies = ["Always", "OnFailure", "Never"];
    one_of(
        &mut errors,
        &format!("{field}.restartPolicy"),
        &spec["restartPolicy"],
        &policies,
    );
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(
        &mut errors,
        &format!("{field}.dnsPolicy"),
        &spec["dnsPolicy"],
        &dns,
    );
    errors.extend(validate_labels(
        &spec["nodeSelector"],
        &format!("{field}.nodeSelector"),
    ));
    let account = text(spec, "serviceAccountName");
    if !account.is_empty() {
        let at = format!("{field}.serviceAccountName");
        all(
            &mut errors,
            &at,
            &spec["serviceAccountName"],
            names::dns_subdomain(account),
        );
    }
    let node = text(spec, "nodeName");
    if !node.is_empty() {
        let at = format!("{field}.nodeName");
        all(&mut errors, &at, &spec["nodeName"], names::dns_subdomain(node));
    }
    if let Some(deadline) = spec["activeDeadlineSeconds"].as_i64()
        && !(1..=i64::from(i32::MAX)).contains(&deadline)
    {
        let at = format!("{field}.activeDeadlineSeconds");
        let message = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(at, &spec["activeDeadlineSeconds"], message));
    }
    for (i, toleration) in items(spec, "tolerations").enumerate() {
        let at = format!("{field}.tolerations[{i}]");
        pod_parts::validate_toleration(toleration, &at, &mut errors);
    }
    pod_parts::validate_rest(spec, field, &mut errors);
    errors
}

/// What is wrong with a pod, besides what templates may not say either.
pub(super) fn validate_pod(spec: &Value, is_new: bool) -> Vec<FieldError> {
    let mut errors = validate_spec(spec, "spec");
    if is_new && items(spec, "ephemeralContainers").next().is_some() {
        errors.push(FieldError::forbidden(
            "spec.ephemeralContainers",
            "cannot be set on create",
        ));
    }
    if is_new && items(spec, "schedulingGates").next().is_some() && !text(spec, "nodeName").is_empty() {
        errors.push(FieldError::forbidden(
            "spec.nodeName",
            "cannot be set until all schedulingGates have been cleared",
        ));
    }
    errors
}

/// What is wrong with a pod template at `spec.template`.
pub(super) fn validate_template(template: &Value) -> Vec<FieldError> {
    validate_template_at(template, "spec.template")
}

/// What is wrong with a pod template at `path`.
pub(super) fn validate_template_at(template: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = validate_labels(&template["metadata"]["labels"], &format!("{path}.labels"));
    errors.extend(validate_spec(&template["spec"], &format!("{path}.spec")));
    errors
}

/// Whether two tolerations are of the same, for however long.
fn tolerates_alike(new: &Value, old: &Value) -> bool {
    let mut new = new.clone();
    super::json::copy(old, &mut new, "tolerationSeconds");
    same(&new, old)
}

/// What of a pod's spec may not change: all but images, deadlines, added tolerations and the like.
pub(super) fn validate_change(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["containers", "initContainers"] {
        if items(&new["spec"], list).count() != items(&old["spec"], list).count() {
            let message = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(format!("spec.{list}"), message));
            return errors;
        }
    }
    let deadlines = (
        new["spec"]["activeDeadlineSeconds"].as_i64(),
        old["spec"]["activeDeadlineSeconds"].as_i64(),
    );
    match deadlines {
        (Some(new_deadline), Some(deadline)) if new_deadline > deadline => {
            errors.push(FieldError::invalid(
                "spec.activeDeadlineSeconds",
                &json!(new_deadline),
                "must be less than or equal to previous value",
            ));
            return errors;
        }
        (None, Some(deadline)) => {
            errors.push(FieldError::invalid(
                "spec.activeDeadlineSeconds",
                &json!(deadline),
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
    let tolerations_kept = items(&old["spec"], "tolerations")
        .all(|t| items(&new["spec"], "tolerations").any(|n| tolerates_alike(n, t)));
    let mut allowed = new["spec"].clone();
    for list in ["containers", "initContainers"] {
        for (i, container) in items(&old["spec"], list).enumerate() {
            allowed[list][i]["image"] = container["image"].clone();
        }
    }
    for (i, gate) in items(&new["spec"], "schedulingGates").enumerate() {
        let name = text(gate, "name");
        if !items(&old["spec"], "schedulingGates").any(|was| text(was, "name") == name) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(FieldError::forbidden(
                format!("spec.schedulingGates[{i}].name"),
                &why,
            ));
        }
    }
    let mut keys = vec!["activeDeadlineSeconds", "schedulingGates"];
    // Before it is scheduled, where a pod may run can be narrowed.
    if items(&old["spec"], "schedulingGates").next().is_some() {
        let was = old["spec"]["nodeSelector"].as_object().into_iter().flatten();
        if was
            .into_iter()
            .all(|(key, value)| new["spec"]["nodeSelector"].get(key) == Some(value))
        {
            keys.push("nodeSelector");
        }
        if pod_scheduling::narrows(&new["spec"]["affinity"], &old["spec"]["affinity"]) {
            pod_scheduling::keep_node_affinity(&mut allowed, &old["spec"]);
        }
    }
    if tolerations_kept {
        keys.push("tolerations");
    }
    if new["spec"]["terminationGracePeriodSeconds"] == 1
        && old["spec"]["terminationGracePeriodSeconds"]
            .as_i64()
            .is_some_and(|s| s < 0)
    {
        keys.push("terminationGracePeriodSeconds");
    }
    for key in keys {
        super::json::copy(&old["spec"], &mut allowed, key);
    }
    if !same(&allowed, &old["spec"]) {
        errors.push(FieldError::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    errors
}
