//! Deployments, ReplicaSets, StatefulSets, DaemonSets, ReplicationControllers, Jobs and CronJobs.

use super::go::{self, Part, Shape};
use super::json::{at, default, each, made, same, text};
use super::pod::default_template;
use super::pod_rules::{not_negative, validate_template};
use super::{jobs, selector, statefulsets};
use crate::error::{FieldError, FieldErrorKind};
use crate::object;
use serde_json::{Map, Value, json};

/// How DaemonSets number their templates, for clients from before `metadata.generation`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const JOB_NAME: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
const JOB_UID: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];

const STRATEGY: &Shape = &[
    ("Type", "type", Part::Text),
    (
        "RollingUpdate",
        "rollingUpdate",
        Part::One(&[
            ("MaxUnavailable", "maxUnavailable", Part::Plain),
            ("MaxSurge", "maxSurge", Part::Plain),
        ]),
    ),
];

/// Defaults by plural.
pub(super) fn defaults(plural: &str, object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if plural == "replicationcontrollers" && labels.is_object() && object::labels(object).next().is_none() {
        object::set_meta(object, "labels", Some(labels.clone()));
    }
    if plural == "daemonsets" {
        let annotations = object::metadata_mut(object)
            .entry("annotations")
            .or_insert_with(|| json!({}));
        default(annotations, TEMPLATE_GENERATION, "1");
    }
    let Some(spec) = at(object, "spec") else { return };
    match plural {
        "deployments" => {
            default_template(spec, "template");
            default(spec, "replicas", 1);
            default(spec, "revisionHistoryLimit", 10);
            default(spec, "progressDeadlineSeconds", 600);
            rolling(
                spec,
                "strategy",
                json!({"maxUnavailable": "25%", "maxSurge": "25%"}),
            );
        }
        "replicasets" => {
            default_template(spec, "template");
            default(spec, "replicas", 1);
        }
        "replicationcontrollers" => {
            default_template(spec, "template");
            default(spec, "replicas", 1);
            if labels.is_object() {
                default(spec, "selector", labels);
            }
        }
        "statefulsets" => {
            default_template(spec, "template");
            default(spec, "replicas", 1);
            default(spec, "podManagementPolicy", "OrderedReady");
            default(spec, "revisionHistoryLimit", 10);
            rolling(spec, "updateStrategy", json!({"partition": 0}));
            if let Some(policy) = made(spec, "persistentVolumeClaimRetentionPolicy") {
                default(policy, "whenDeleted", "Retain");
                default(policy, "whenScaled", "Retain");
            }
            for claim in each(spec, "volumeClaimTemplates") {
                default(claim, "apiVersion", "v1");
                default(claim, "kind", "PersistentVolumeClaim");
                if let Some(spec) = at(claim, "spec") {
                    default(spec, "volumeMode", "Filesystem");
                }
                if let Some(status) = made(claim, "status") {
                    default(status, "phase", "Pending");
                }
            }
        }
        "daemonsets" => {
            default_template(spec, "template");
            default(spec, "revisionHistoryLimit", 10);
            rolling(
                spec,
                "updateStrategy",
                json!({"maxUnavailable": 1, "maxSurge": 0}),
            );
        }
        "jobs" => default_job(spec),
        "cronjobs" => {
            default(spec, "concurrencyPolicy", "Allow");
            default(spec, "suspend", false);
            default(spec, "successfulJobsHistoryLimit", 3);
            default(spec, "failedJobsHistoryLimit", 1);
            if let Some(job) = at(spec, "jobTemplate").and_then(|t| at(t, "spec")) {
                default_template(job, "template");
            }
        }
        _ => default_template(spec, "template"),
    }
    if plural == "jobs" {
        let labels = object["spec"]["template"]["metadata"]["labels"].clone();
        if labels.is_object() && object::labels(object).next().is_none() {
            object::set_meta(object, "labels", Some(labels));
        }
    }
}

fn rolling(spec: &mut Value, key: &str, parameters: Value) {
    let Some(strategy) = made(spec, key) else { return };
    // One of them takes a named strategy as it is.
    if key == "updateStrategy"
        && parameters.get("partition").is_some()
        && !text(strategy, "type").is_empty()
        && strategy["rollingUpdate"].is_null()
    {
        return;
    }
    default(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate"
        && let (Some(update), Value::Object(parameters)) = (made(strategy, "rollingUpdate"), parameters)
    {
        for (name, value) in parameters {
            default(update, &name, value);
        }
    }
}

fn default_job(spec: &mut Value) {
    default_template(spec, "template");
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = 1.into();
    }
    default(spec, "parallelism", 1);
    let backoff = if spec["backoffLimitPerIndex"].is_null() {
        6
    } else {
        i64::from(i32::MAX)
    };
    default(spec, "backoffLimit", backoff);
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    default(spec, "manualSelector", false);
    let replacement = if spec["podFailurePolicy"].is_null() {
        "TerminatingOrFailed"
    } else {
        "Failed"
    };
    default(spec, "podReplacementPolicy", replacement);
    if let Some(policy) = at(spec, "podFailurePolicy") {
        for rule in each(policy, "rules") {
            for condition in each(rule, "onPodConditions") {
                if text(condition, "status").is_empty() {
                    condition["status"] = "True".into();
                }
            }
        }
    }
}

/// A status as a new object has it: its required counters at zero.
pub(super) fn empty_status(plural: &str) -> Value {
    match plural {
        "statefulsets" => json!({"replicas": 0, "availableReplicas": 0}),
        "replicasets" | "replicationcontrollers" => json!({"replicas": 0}),
        "daemonsets" => json!({
            "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0,
        }),
        _ => json!({}),
    }
}

/// What a new workload gets beyond defaults.
pub(super) fn prepare_create(plural: &str, object: &mut Value) {
    match plural {
        "daemonsets" => {
            let annotations = object::metadata_mut(object)
                .entry("annotations")
                .or_insert_with(|| json!({}));
            annotations[TEMPLATE_GENERATION] = "1".into();
        }
        "jobs" if object["spec"]["manualSelector"] != json!(true) => {
            let (name, uid) = (object::name(object).to_owned(), object::uid(object).to_owned());
            let bare = object::labels(object).next().is_none();
            let Some(spec) = at(object, "spec") else { return };
            if let Some(meta) = made(spec, "template").and_then(|t| made(t, "metadata"))
                && let Some(labels) = made(meta, "labels")
            {
                for (keys, value) in [(JOB_NAME, &name), (JOB_UID, &uid)] {
                    for key in keys {
                        default(labels, key, value.as_str());
                    }
                }
            }
            if let Some(matching) = made(spec, "selector").and_then(|s| made(s, "matchLabels")) {
                default(matching, JOB_UID[0], uid);
            }
            if bare {
                let labels = object["spec"]["template"]["metadata"]["labels"].clone();
                object::set_meta(object, "labels", Some(labels));
            }
        }
        _ => {}
    }
}

/// What a changed workload takes over from its last state.
pub(super) fn prepare_update(plural: &str, new: &mut Value, old: &Value) {
    if plural != "daemonsets" {
        return;
    }
    let was = &old["metadata"]["annotations"][TEMPLATE_GENERATION];
    let number: i64 = was.as_str().and_then(|n| n.parse().ok()).unwrap_or(1);
    let changed = !same(&new["spec"]["template"], &old["spec"]["template"]);
    let number = if changed { number + 1 } else { number };
    let annotations = object::metadata_mut(new)
        .entry("annotations")
        .or_insert_with(|| json!({}));
    if let Value::Object(map) = annotations {
        map.insert(TEMPLATE_GENERATION.to_owned(), number.to_string().into());
    }
}

fn percent_or_number(errors: &mut Vec<FieldError>, field: &str, value: &Value) {
    if let Some(s) = value.as_str() {
        let percent = s
            .strip_suffix('%')
            .is_some_and(|p| !p.is_empty() && p.bytes().all(|c| c.is_ascii_digit()));
        if !percent {
            let message = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            errors.push(FieldError::invalid(field, value, message));
        }
    } else {
        not_negative(errors, field, value);
    }
}

/// A number, or a share of no more than all.
pub(super) fn int_or_percent(errors: &mut Vec<FieldError>, field: &str, value: &Value) {
    let before = errors.len();
    percent_or_number(errors, field, value);
    let percent = value.as_str().and_then(|s| s.strip_suffix('%'));
    if errors.len() == before && percent.is_some_and(|p| p.parse::<u64>().map_or(true, |p| p > 100)) {
        errors.push(FieldError::invalid(field, value, "must not be greater than 100%"));
    }
}

fn zero(value: &Value) -> bool {
    *value == json!(0) || *value == json!("0%")
}

/// What is wrong with a workload.
pub(super) fn validate(plural: &str, object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    match plural {
        "jobs" => return jobs::validate(object),
        "cronjobs" => return jobs::validate_cron(object),
        "statefulsets" => return statefulsets::validate(spec),
        "replicationcontrollers" => {
            for key in ["minReadySeconds", "replicas"] {
                not_negative(&mut errors, &format!("spec.{key}"), &spec[key]);
            }
            if spec["selector"].as_object().is_none_or(Map::is_empty) {
                errors.push(FieldError::required("spec.selector", ""));
            }
            if spec["template"].is_null() {
                errors.push(FieldError::required("spec.template", ""));
                return errors;
            }
            let labels = &spec["template"]["metadata"]["labels"];
            if !selector::matches(&json!({"matchLabels": spec["selector"]}), labels) {
                let message = "`selector` does not match template `labels`";
                errors.push(FieldError::invalid(
                    "spec.template.metadata.labels",
                    labels,
                    message,
                ));
            }
            errors.extend(validate_template(&spec["template"]));
            return errors;
        }
        "controllerrevisions" => {
            not_negative(&mut errors, "revision", &object["revision"]);
            if object["data"].is_null() {
                errors.push(FieldError::required("data", "data is mandatory"));
            }
            return errors;
        }
        "podtemplates" => {
            return super::pod_rules::validate_template_at(&object["template"], "template");
        }
        _ => {}
    }
    not_negative(&mut errors, "spec.replicas", &spec["replicas"]);
    let kind = match plural {
        "daemonsets" => "daemonset",
        _ => "deployment",
    };
    selector::validate_template(kind, spec, &mut errors);
    errors.extend(validate_template(&spec["template"]));
    let restart = &spec["template"]["spec"]["restartPolicy"];
    if restart.is_string() && *restart != json!("Always") {
        let field = "spec.template.spec.restartPolicy";
        errors.push(FieldError::not_supported(field, restart, &["Always"]));
    }
    let key = if plural == "deployments" {
        "strategy"
    } else {
        "updateStrategy"
    };
    let types: &[&str] = if plural == "deployments" {
        &["Recreate", "RollingUpdate"]
    } else {
        &["OnDelete", "RollingUpdate"]
    };
    if plural != "replicasets" {
        let strategy = &spec[key];
        if plural == "deployments" && !types.contains(&text(strategy, "type")) {
            errors.push(FieldError::new(
                FieldErrorKind::NotSupported,
                "spec.strategy",
                format!(
                    "Unsupported value: {}: supported values: \"Recreate\", \"RollingUpdate\"",
                    go::shown(strategy, STRATEGY)
                ),
            ));
            return errors;
        }
        if plural == "daemonsets" && !types.contains(&text(strategy, "type")) {
            let message = format!(
                "Unsupported value: {}: supported values: \"RollingUpdate\", \"OnDelete\"",
                go::shown(strategy, STRATEGY)
            );
            let kind = FieldErrorKind::NotSupported;
            errors.push(FieldError::new(kind, "spec.updateStrategy", message));
        }
        let update = &strategy["rollingUpdate"];
        for part in ["maxUnavailable", "maxSurge"] {
            percent_or_number(
                &mut errors,
                &format!("spec.{key}.rollingUpdate.{part}"),
                &update[part],
            );
        }
        if text(strategy, "type") == "Recreate" && !update.is_null() {
            let message = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", message));
        }
        if update.is_object() && zero(&update["maxUnavailable"]) && zero(&update["maxSurge"]) {
            let field = format!("spec.{key}.rollingUpdate.maxUnavailable");
            errors.push(if plural == "daemonsets" {
                FieldError::required(field, "cannot be 0 when maxSurge is 0")
            } else {
                FieldError::invalid(
                    field,
                    &update["maxUnavailable"],
                    "may not be 0 when `maxSurge` is 0",
                )
            });
        }
    }
    if plural == "daemonsets" {
        let surge = &spec[key]["rollingUpdate"]["maxSurge"];
        let (surge_set, unavailable) = (
            !surge.is_null() && !zero(surge),
            &spec[key]["rollingUpdate"]["maxUnavailable"],
        );
        if surge_set && !unavailable.is_null() && !zero(unavailable) {
            let field = format!("spec.{key}.rollingUpdate.maxSurge");
            let why = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(field, surge, why));
        }
    }
    for key in ["minReadySeconds", "revisionHistoryLimit"] {
        not_negative(&mut errors, &format!("spec.{key}"), &spec[key]);
    }
    if plural == "deployments" {
        let deadline = &spec["progressDeadlineSeconds"];
        not_negative(&mut errors, "spec.progressDeadlineSeconds", deadline);
    }
    if plural == "deployments"
        && let (Some(deadline), ready) = (
            spec["progressDeadlineSeconds"].as_i64(),
            spec["minReadySeconds"].as_i64().unwrap_or(0),
        )
        && deadline <= ready
    {
        let message = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid(
            "spec.progressDeadlineSeconds",
            &json!(deadline),
            message,
        ));
    }
    errors
}

/// A Job selects its pods by its own uid, unless it says that it does not.
pub(super) fn validate_generated(job: &Value) -> Vec<FieldError> {
    let spec = &job["spec"];
    let selector = &spec["selector"];
    let generated = json!({"matchLabels": {JOB_UID[0]: object::uid(job)}});
    if spec["manualSelector"] == json!(true) || selector.is_null() || *selector == generated {
        return Vec::new();
    }
    vec![FieldError::invalid(
        "spec.selector",
        selector,
        "`selector` not auto-generated",
    )]
}
