//! Deployments, ReplicaSets, StatefulSets, DaemonSets, ReplicationControllers, Jobs and CronJobs.

use super::json::{at, copy, default, each, made, same, text};
use super::pod::default_template;
use super::pod_rules::{not_negative, one_of, one_of_if_set, validate_template};
use super::{cron, selector};
use crate::error::{FieldError, FieldErrorKind};
use crate::object;
use serde_json::{Map, Value, json};

/// How DaemonSets number their templates, for clients from before `metadata.generation`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const JOB_NAME: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
const JOB_UID: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
/// Longest name of a CronJob: its Jobs' names are eleven longer.
const CRONJOB_NAME_MAX: usize = 52;

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
    match plural {
        "daemonsets" => {
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
        "jobs" => {
            // A Job is often sent again as it was first written, without what the server generated.
            if let Some(spec) = at(new, "spec") {
                if spec["selector"].is_null() {
                    copy(&old["spec"], spec, "selector");
                }
                let generated = &old["spec"]["template"]["metadata"]["labels"];
                if let Some(labels) = made(spec, "template")
                    .and_then(|t| made(t, "metadata"))
                    .and_then(|m| made(m, "labels"))
                {
                    for key in JOB_NAME.into_iter().chain(JOB_UID) {
                        if let Some(value) = generated.get(key) {
                            default(labels, key, value.clone());
                        }
                    }
                }
            }
        }
        _ => {}
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
        "jobs" => return validate_job(spec, "spec", false),
        "cronjobs" => return validate_cronjob(object),
        "replicationcontrollers" => {
            not_negative(&mut errors, "spec.replicas", &spec["replicas"]);
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
            errors.extend(validate_template(spec));
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
            return super::pod_rules::validate_spec(&object["template"]["spec"], "template.spec");
        }
        _ => {}
    }
    not_negative(&mut errors, "spec.replicas", &spec["replicas"]);
    let kind = match plural {
        "statefulsets" => "statefulset",
        "daemonsets" => "daemonset",
        _ => "deployment",
    };
    selector::validate_template(kind, spec, &mut errors);
    errors.extend(validate_template(spec));
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
    if plural == "statefulsets" {
        // Before anything else, and in words of their own.
        let mut first = Vec::new();
        let policy = &spec["podManagementPolicy"];
        if !matches!(policy.as_str(), None | Some("OrderedReady" | "Parallel")) {
            let message = "must be 'OrderedReady' or 'Parallel'";
            first.push(FieldError::invalid("spec.podManagementPolicy", policy, message));
        }
        let strategy = &spec["updateStrategy"];
        let update = &strategy["rollingUpdate"];
        match text(strategy, "type") {
            "RollingUpdate" | "" => not_negative(
                &mut first,
                "spec.updateStrategy.rollingUpdate.partition",
                &update["partition"],
            ),
            "OnDelete" if !update.is_null() => {
                let shown = format!(
                    "{{\"Partition\":{},\"MaxUnavailable\":{}}}",
                    update["partition"], update["maxUnavailable"]
                );
                first.push(FieldError::new(
                    FieldErrorKind::Invalid,
                    "spec.updateStrategy.rollingUpdate",
                    format!("Invalid value: {shown}: only allowed for updateStrategy 'RollingUpdate'"),
                ));
            }
            "OnDelete" => {}
            other => first.push(FieldError::new(
                FieldErrorKind::Invalid,
                "spec.updateStrategy",
                format!(
                    "Invalid value: {{\"Type\":{other:?},\"RollingUpdate\":null}}: must be 'RollingUpdate' or 'OnDelete'"
                ),
            )),
        }
        first.append(&mut errors);
        errors = first;
    } else if plural != "replicasets" {
        let strategy = &spec[key];
        if plural == "deployments" && !types.contains(&text(strategy, "type")) {
            // As Go shows its own struct.
            let update = &strategy["rollingUpdate"];
            let update = if update.is_null() {
                "null".to_owned()
            } else {
                let (unavailable, surge) = (&update["maxUnavailable"], &update["maxSurge"]);
                format!("{{\"MaxUnavailable\":{unavailable},\"MaxSurge\":{surge}}}")
            };
            errors.push(FieldError::new(
                FieldErrorKind::NotSupported,
                "spec.strategy",
                format!(
                    "Unsupported value: {{\"Type\":{},\"RollingUpdate\":{update}}}: supported values: \"Recreate\", \"RollingUpdate\"",
                    strategy["type"]
                ),
            ));
            return errors;
        }
        one_of(&mut errors, &format!("spec.{key}.type"), &strategy["type"], types);
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
    for key in ["minReadySeconds", "revisionHistoryLimit"] {
        not_negative(&mut errors, &format!("spec.{key}"), &spec[key]);
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

fn validate_job(spec: &Value, field: &str, in_cronjob: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ] {
        not_negative(&mut errors, &format!("{field}.{key}"), &spec[key]);
    }
    one_of(
        &mut errors,
        &format!("{field}.completionMode"),
        &spec["completionMode"],
        &["NonIndexed", "Indexed"],
    );
    one_of_if_set(
        &mut errors,
        &format!("{field}.podReplacementPolicy"),
        &spec["podReplacementPolicy"],
        &["Failed", "TerminatingOrFailed"],
    );
    if in_cronjob {
        errors.retain(|e| !e.field.ends_with("completionMode"));
        errors.extend(super::pod_rules::validate_spec(
            &spec["template"]["spec"],
            &format!("{field}.template.spec"),
        ));
    } else {
        if spec["selector"].is_null() {
            errors.push(FieldError::required("spec.selector", ""));
        } else {
            errors.extend(selector::validate(&spec["selector"], "spec.selector"));
            let labels = &spec["template"]["metadata"]["labels"];
            if !selector::matches(&spec["selector"], labels) {
                let message = "`selector` does not match template `labels`";
                errors.push(FieldError::invalid(
                    "spec.template.metadata.labels",
                    labels,
                    message,
                ));
            }
        }
        errors.extend(validate_template(spec));
    }
    let restart = &spec["template"]["spec"]["restartPolicy"];
    let at = format!("{field}.template.spec.restartPolicy");
    match restart.as_str() {
        Some("OnFailure" | "Never") => {}
        None | Some("" | "Always") => {
            errors.push(FieldError::required(at, "valid values: \"OnFailure\", \"Never\""));
        }
        Some(_) => {
            errors.retain(|e| e.field != at);
            errors.push(FieldError::not_supported(at, restart, &["OnFailure", "Never"]));
        }
    }
    if text(spec, "completionMode") == "Indexed" && spec["completions"].is_null() {
        let message = "when completion mode is Indexed";
        errors.push(FieldError::required(format!("{field}.completions"), message));
    }
    errors
}

fn validate_cronjob(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    if object::name(object).len() > CRONJOB_NAME_MAX {
        let message = format!("must be no more than {CRONJOB_NAME_MAX} characters");
        errors.push(FieldError::invalid(
            "metadata.name",
            &object["metadata"]["name"],
            &message,
        ));
    }
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        errors.push(FieldError::required("spec.schedule", ""));
    } else if schedule.contains("TZ=") {
        let message = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid("spec.schedule", &spec["schedule"], message));
    } else if let Some(message) = cron::complaint(schedule) {
        errors.push(FieldError::invalid("spec.schedule", &spec["schedule"], &message));
    }
    let zone = text(spec, "timeZone");
    if !zone.is_empty() && jiff::tz::TimeZone::get(zone).is_err() {
        let message = format!("unknown time zone {zone}");
        errors.push(FieldError::invalid("spec.timeZone", &spec["timeZone"], &message));
    }
    not_negative(
        &mut errors,
        "spec.startingDeadlineSeconds",
        &spec["startingDeadlineSeconds"],
    );
    let policies = ["Allow", "Forbid", "Replace"];
    one_of(
        &mut errors,
        "spec.concurrencyPolicy",
        &spec["concurrencyPolicy"],
        &policies,
    );
    for key in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(&mut errors, &format!("spec.{key}"), &spec[key]);
    }
    errors.extend(validate_job(
        &spec["jobTemplate"]["spec"],
        "spec.jobTemplate.spec",
        true,
    ));
    errors
}
