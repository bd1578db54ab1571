//! What may be in a pod, in a template, and what of a pod may change (`pkg/apis/core/validation`). The rules that tools
//! and people run into; values kube-apiserver would also refuse deep inside rare volume sources are let through.

use super::json::{items, same, text};
use super::metadata::validate_labels;
use super::pod_parts;
use crate::error::FieldError;
use crate::registry::names;
use serde_json::{Value, json};
use std::collections::BTreeSet;

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
    if !value.is_null() {
        one_of(errors, field, value, allowed);
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

fn validate_ports(container: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, port) in items(container, "ports").enumerate() {
        let at = format!("{at}.ports[{i}]");
        let name = text(port, "name");
        if !name.is_empty() {
            let messages = names::port_name(name);
            if messages.is_empty() && !seen.insert(name.to_owned()) {
                errors.push(FieldError::duplicate(format!("{at}.name"), &port["name"]));
            }
            all(errors, &format!("{at}.name"), &port["name"], messages);
        }
        if port["containerPort"].as_i64().unwrap_or(0) == 0 {
            errors.push(FieldError::required(format!("{at}.containerPort"), ""));
        } else {
            port_number(errors, &format!("{at}.containerPort"), &port["containerPort"]);
        }
        if port["hostPort"].as_i64().unwrap_or(0) != 0 {
            port_number(errors, &format!("{at}.hostPort"), &port["hostPort"]);
        }
        one_of(
            errors,
            &format!("{at}.protocol"),
            &port["protocol"],
            &["SCTP", "TCP", "UDP"],
        );
    }
}

fn validate_env(container: &Value, at: &str, errors: &mut Vec<FieldError>) {
    const SOURCES: [&str; 5] = [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ];
    for (i, variable) in items(container, "env").enumerate() {
        let at = format!("{at}.env[{i}]");
        if text(variable, "name").is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else {
            let messages = names::env_name(text(variable, "name"));
            all(errors, &format!("{at}.name"), &variable["name"], messages);
        }
        let from = &variable["valueFrom"];
        if from.is_null() {
            continue;
        }
        let set = SOURCES.iter().filter(|s| !from[**s].is_null()).count();
        let field = format!("{at}.valueFrom");
        if !text(variable, "value").is_empty() && set > 0 {
            errors.push(FieldError::invalid(
                field,
                &json!(""),
                "may not be specified when `value` is not empty",
            ));
        } else if set == 0 {
            let message = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            errors.push(FieldError::invalid(field, &json!(""), message));
        } else if set > 1 {
            let message = "may not have more than one field specified at a time";
            errors.push(FieldError::invalid(field, &json!(""), message));
        }
        let at_field = format!("{at}.valueFrom.fieldRef");
        pod_parts::validate_field_ref(&from["fieldRef"], &at_field, errors);
        for source in ["configMapKeyRef", "secretKeyRef"] {
            if !from[source].is_null() && text(&from[source], "key").is_empty() {
                errors.push(FieldError::required(format!("{at}.valueFrom.{source}.key"), ""));
            }
        }
    }
}

fn validate_resources(container: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for list in ["limits", "requests"] {
        for (name, amount) in container["resources"][list].as_object().into_iter().flatten() {
            let field = format!("{at}.resources.{list}[{name}]");
            if amount.as_str().is_some_and(|a| a.starts_with('-')) || amount.as_f64().is_some_and(|a| a < 0.0)
            {
                errors.push(FieldError::invalid(field, amount, POSITIVE));
            } else if !name.contains('/')
                && !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
                && !name.starts_with("hugepages-")
            {
                let message = "must be a standard resource type or fully qualified";
                errors.push(FieldError::invalid(field.clone(), &json!(name), message));
                let message = "must be a standard resource for containers";
                errors.push(FieldError::invalid(field, &json!(name), message));
            }
        }
    }
    pod_parts::validate_requests(&container["resources"], &format!("{at}.resources"), errors);
}

fn validate_mounts(container: &Value, volumes: &BTreeSet<&str>, at: &str, errors: &mut Vec<FieldError>) {
    let mut paths = BTreeSet::new();
    for (i, mount) in items(container, "volumeMounts").enumerate() {
        let at = format!("{at}.volumeMounts[{i}]");
        let name = text(mount, "name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else if !volumes.contains(name) {
            errors.push(FieldError::new(
                crate::error::FieldErrorKind::NotFound,
                format!("{at}.name"),
                format!("Not found: {name:?}"),
            ));
        }
        let path = text(mount, "mountPath");
        if path.is_empty() {
            errors.push(FieldError::required(format!("{at}.mountPath"), ""));
        } else if !paths.insert(path) {
            errors.push(FieldError::invalid(
                format!("{at}.mountPath"),
                &mount["mountPath"],
                "must be unique",
            ));
        }
    }
}

/// `claims` are volumes that a pod gets besides those of its spec.
fn validate_containers(spec: &Value, claims: &[&str], field: &str, errors: &mut Vec<FieldError>) {
    let own = items(spec, "volumes").map(|v| text(v, "name"));
    let volumes: BTreeSet<&str> = own.chain(claims.iter().copied()).collect();
    let mut names_seen = BTreeSet::new();
    for list in ["containers", "initContainers"] {
        if list == "containers" && items(spec, list).next().is_none() {
            errors.push(FieldError::required(format!("{field}.containers"), ""));
        }
        for (i, container) in items(spec, list).enumerate() {
            let at = format!("{field}.{list}[{i}]");
            let name = text(container, "name");
            if name.is_empty() {
                errors.push(FieldError::required(format!("{at}.name"), ""));
            } else {
                all(
                    errors,
                    &format!("{at}.name"),
                    &container["name"],
                    names::dns_label(name),
                );
            }
            if !name.is_empty() && !names_seen.insert(name.to_owned()) {
                errors.push(FieldError::duplicate(format!("{at}.name"), &container["name"]));
            }
            let image = text(container, "image");
            if image.is_empty() {
                errors.push(FieldError::required(format!("{at}.image"), ""));
            } else if image.trim() != image {
                let message = "must not have leading or trailing whitespace";
                errors.push(FieldError::invalid(
                    format!("{at}.image"),
                    &container["image"],
                    message,
                ));
            }
            validate_ports(container, &at, errors);
            validate_env(container, &at, errors);
            validate_mounts(container, &volumes, &at, errors);
            pod_parts::validate_hooks(container, &at, errors);
            let messages = ["File", "FallbackToLogsOnError"];
            one_of_if_set(
                errors,
                &format!("{at}.terminationMessagePolicy"),
                &container["terminationMessagePolicy"],
                &messages,
            );
            let policies = ["Always", "IfNotPresent", "Never"];
            one_of(
                errors,
                &format!("{at}.imagePullPolicy"),
                &container["imagePullPolicy"],
                &policies,
            );
            validate_resources(container, &at, errors);
            pod_parts::validate_security(container, &at, errors);
        }
    }
}

fn validate_volumes(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, volume) in items(spec, "volumes").enumerate() {
        let at = format!("{field}.volumes[{i}]");
        let name = text(volume, "name");
        if text(&volume["hostPath"], "path")
            .split('/')
            .any(|part| part == "..")
        {
            errors.push(FieldError::invalid(
                format!("{at}.hostPath.path"),
                &volume["hostPath"]["path"],
                "must not contain '..'",
            ));
        }
        if name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else {
            all(
                errors,
                &format!("{at}.name"),
                &volume["name"],
                names::dns_label(name),
            );
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), &volume["name"]));
            }
        }
        let sources: Vec<&String> = volume
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, _)| k)
            .filter(|k| *k != "name")
            .collect();
        if let Some(second) = sources.get(1) {
            errors.push(FieldError::forbidden(
                format!("{at}.{second}"),
                "may not specify more than 1 volume type",
            ));
        }
        for (source, key) in [("secret", "secretName"), ("persistentVolumeClaim", "claimName")] {
            if !volume[source].is_null() && text(&volume[source], key).is_empty() {
                errors.push(FieldError::required(format!("{at}.{source}.{key}"), ""));
            }
        }
        if !volume["configMap"].is_null() && text(&volume["configMap"], "name").is_empty() {
            errors.push(FieldError::required(format!("{at}.configMap.name"), ""));
        }
        for source in ["configMap", "secret", "projected", "downwardAPI"] {
            let mode = &volume[source]["defaultMode"];
            if mode.as_i64().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
                errors.push(FieldError::invalid(
                    format!("{at}.{source}.defaultMode"),
                    mode,
                    "must be a number between 0 and 0777 (octal), both inclusive",
                ));
            }
        }
        if !volume["hostPath"].is_null() && text(&volume["hostPath"], "path").is_empty() {
            errors.push(FieldError::required(format!("{at}.hostPath.path"), ""));
        }
    }
}

/// What is wrong with a PodSpec at `field`.
pub(super) fn validate_spec(spec: &Value, field: &str) -> Vec<FieldError> {
    validate_spec_with(spec, &[], field)
}

fn validate_spec_with(spec: &Value, claims: &[&str], field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    validate_volumes(spec, field, &mut errors);
    validate_containers(spec, claims, field, &mut errors);
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

/// What is wrong with the pod template of a workload. Its pods may mount what its claim templates are named as well.
pub(super) fn validate_template(workload: &Value) -> Vec<FieldError> {
    let template = &workload["template"];
    let claims: Vec<&str> = items(workload, "volumeClaimTemplates")
        .map(|claim| text(&claim["metadata"], "name"))
        .collect();
    let mut errors = validate_labels(&template["metadata"]["labels"], "spec.template.labels");
    errors.extend(validate_spec_with(
        &template["spec"],
        &claims,
        "spec.template.spec",
    ));
    errors
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
    let tolerations_kept =
        items(&old["spec"], "tolerations").all(|t| items(&new["spec"], "tolerations").any(|n| same(n, t)));
    let mut allowed = new["spec"].clone();
    for list in ["containers", "initContainers"] {
        for (i, container) in items(&old["spec"], list).enumerate() {
            allowed[list][i]["image"] = container["image"].clone();
        }
    }
    let mut keys = vec!["activeDeadlineSeconds", "schedulingGates"];
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
