//! What of a workload may not change.

use super::jobs;
use super::json::{copy, each, made, same};
use crate::error::{FieldError, FieldErrorKind};
use serde_json::{Value, json};

const IMMUTABLE: &str = "field is immutable";

/// The template of a job without what may change while it waits and never ran: where its pods may run and what they are
/// given.
fn without_places(new: &Value, old: &Value) -> Value {
    let mut template = new["spec"]["template"].clone();
    let was = &old["spec"]["template"];
    if old["spec"]["suspend"] != json!(true) || !old["status"]["startTime"].is_null() {
        return template;
    }
    if let Some(metadata) = made(&mut template, "metadata") {
        for key in ["labels", "annotations"] {
            copy(&was["metadata"], metadata, key);
        }
    }
    let Some(pod) = made(&mut template, "spec") else {
        return template;
    };
    for key in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
        copy(&was["spec"], pod, key);
    }
    for list in ["containers", "initContainers"] {
        for (i, container) in each(pod, list).enumerate() {
            copy(&was["spec"][list][i], container, "resources");
        }
    }
    template
}

/// What of a workload may not change.
pub(super) fn validate_update(plural: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let (spec, was) = (&new["spec"], &old["spec"]);
    let mut errors = Vec::new();
    let fixed = |errors: &mut Vec<FieldError>, key: &str| {
        if !same(&spec[key], &was[key]) {
            errors.push(FieldError::invalid(format!("spec.{key}"), &spec[key], IMMUTABLE));
        }
    };
    match plural {
        "deployments" | "replicasets" | "daemonsets" => fixed(&mut errors, "selector"),
        "jobs" => return jobs::validate_update(new, old, &without_places(new, old)),
        "statefulsets" => {
            let mut allowed = spec.clone();
            for key in [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ] {
                copy(was, &mut allowed, key);
            }
            if !same(&allowed, was) {
                errors.push(FieldError::new(
                    FieldErrorKind::Forbidden,
                    "spec",
                    "Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
                ));
            }
        }
        _ => {}
    }
    errors
}
