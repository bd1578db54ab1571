//! Jobs and CronJobs: how a Job counts what its pods do, and when one is made.

use super::check::{Errors, Spot};
use super::go;
use super::job_policies::{self, FAILURE_POLICY, SUCCESS_POLICY};
use super::pod_rules::validate_template_at;
use super::{cron, selector};
use crate::error::{FieldError, FieldErrorKind};
use crate::object;
use crate::registry::names;
use serde_json::{Value, json};

/// Longest name of a CronJob: its Jobs' names are eleven longer.
const CRONJOB_NAME_MAX: usize = 52;
/// The most indexes that run at once.
const MAX_PARALLEL: i64 = 100_000;
/// What is wrong with a Job.
pub(super) fn validate(job: &Value) -> Errors {
    let spec = Spot::new(&job["spec"], "spec");
    let mut errors = Vec::new();
    validate_spec(&spec, &mut errors);
    let selector = spec.at("selector");
    if selector.is_set() {
        errors.extend(selector::validate(selector.value, &selector.path));
    } else {
        selector.missing(&mut errors, "");
    }
    let labels = &spec.value["template"]["metadata"]["labels"];
    if !selector::matches(selector.value, labels) {
        let why = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", labels, why));
    }
    errors
}

fn validate_spec(spec: &Spot<'_>, errors: &mut Errors) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.at(key).not_negative(errors);
    }
    let (limit, failed) = (spec.at("backoffLimitPerIndex"), spec.at("maxFailedIndexes"));
    if failed.is_set() && !limit.is_set() {
        limit.missing(errors, "when maxFailedIndexes is specified");
    }
    if let Some(manager) = spec.given("managedBy") {
        manager_name(&manager, errors);
    }
    let mode = spec.at("completionMode");
    mode.among_if_set(errors, &["NonIndexed", "Indexed"]);
    let indexed = mode.text() == "Indexed";
    let completions = spec.at("completions");
    if indexed {
        if !completions.is_set() {
            completions.missing(errors, "when completion mode is Indexed");
        }
        if spec.at("parallelism").number() > MAX_PARALLEL {
            let why = format!("must be less than or equal to {MAX_PARALLEL} when completion mode is Indexed");
            spec.at("parallelism").invalid(errors, &why);
        }
        if completions.is_set() && failed.number() > completions.number() {
            failed.invalid(errors, "must be less than or equal to completions");
        }
    } else if matches!(mode.text(), "NonIndexed") || !mode.is_set() {
        for only in [&limit, &failed].into_iter().filter(|only| only.is_set()) {
            only.invalid(errors, "requires indexed completion mode");
        }
    }
    if let Some(policy) = spec.given("podFailurePolicy") {
        job_policies::failure(&policy, spec.value, errors);
    }
    if let Some(policy) = spec.given("successPolicy") {
        if indexed {
            job_policies::success(&policy, completions.number(), errors);
        } else {
            let shown = go::shown(policy.value, SUCCESS_POLICY);
            policy.invalid_shown(errors, &shown, "requires indexed completion mode");
        }
    }
    let replacements: &[&str] = if spec.at("podFailurePolicy").is_set() {
        &["Failed"]
    } else {
        &["Failed", "TerminatingOrFailed"]
    };
    spec.at("podReplacementPolicy").among_if_set(errors, replacements);
    restarting(spec, errors);
}

/// The template, whose pods a Job does not have restarted for ever.
fn restarting(spec: &Spot<'_>, errors: &mut Errors) {
    let template = spec.at("template");
    let restart = template.at("spec").at("restartPolicy");
    errors.extend(validate_template_at(template.value, &template.path));
    match restart.text() {
        "" | "Always" => restart.missing(errors, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.at("podFailurePolicy").is_set() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            restart.invalid(errors, why);
        }
        "OnFailure" | "Never" => {}
        _ => restart.among(errors, &["OnFailure", "Never"]),
    }
}

fn manager_name(manager: &Spot<'_>, errors: &mut Errors) {
    if !manager.required(errors, "") {
        return;
    }
    domain_path(manager, errors);
    if manager.text().len() > 63 {
        let why = "Too long: may not be more than 63 bytes";
        manager.refuse(errors, FieldErrorKind::TooLong, why);
    }
}

/// A name like `acme.io/foo`.
fn domain_path(name: &Spot<'_>, errors: &mut Errors) {
    match name.text().split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            for message in names::dns_subdomain(domain) {
                errors.push(FieldError::invalid(&name.path, &json!(domain), &message));
            }
        }
        _ => name.invalid(errors, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

/// What is wrong with a CronJob.
pub(super) fn validate_cron(object: &Value) -> Errors {
    let spec = Spot::new(&object["spec"], "spec");
    let mut errors = Vec::new();
    if object::name(object).len() > CRONJOB_NAME_MAX {
        let message = format!("must be no more than {CRONJOB_NAME_MAX} characters");
        let name = &object["metadata"]["name"];
        errors.push(FieldError::invalid("metadata.name", name, &message));
    }
    let schedule = spec.at("schedule");
    if schedule.required(&mut errors, "") {
        if schedule.text().contains("TZ=") {
            let message = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            schedule.invalid(&mut errors, message);
        } else if let Some(message) = cron::complaint(schedule.text()) {
            schedule.invalid(&mut errors, &message);
        }
    }
    if let Some(zone) = spec.given("timeZone") {
        let name = zone.text();
        if name.is_empty() {
            zone.invalid(&mut errors, "timeZone must be nil or non-empty string");
        } else if name.eq_ignore_ascii_case("local") {
            let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
            zone.invalid(&mut errors, why);
        } else if !is_zone(name) {
            zone.invalid(&mut errors, &format!("unknown time zone {name}"));
        }
    }
    spec.at("startingDeadlineSeconds").not_negative(&mut errors);
    let policy = spec.at("concurrencyPolicy");
    if policy.required(&mut errors, "") {
        policy.among(&mut errors, &["Allow", "Forbid", "Replace"]);
    }
    for key in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.at(key).not_negative(&mut errors);
    }
    let job = spec.at("jobTemplate").at("spec");
    validate_spec(&job, &mut errors);
    if let Some(selector) = job.given("selector") {
        selector.invalid(&mut errors, "`selector` will be auto-generated");
    }
    let manual = job.at("manualSelector");
    if manual.value == true {
        errors.push(FieldError::not_supported(
            &manual.path,
            manual.value,
            &["nil", "false"],
        ));
    }
    errors
}

/// Whether there is a time zone of just this name: files of zones have capital letters. Where the system knows none at all,
/// any may be right.
fn is_zone(name: &str) -> bool {
    jiff::tz::TimeZone::get(name).is_ok_and(|zone| zone.iana_name() == Some(name))
        || jiff::tz::db().available().next().is_none()
}

/// What of a Job may not change.
pub(super) fn validate_update(new: &Value, old: &Value, template: &Value) -> Errors {
    const FIXED: &str = "field is immutable";
    let (spec, was) = (Spot::new(&new["spec"], "spec"), &old["spec"]);
    // A changed Job is looked at twice, and what is wrong with it told twice.
    let mut errors = validate(new);
    let same = |key: &str| super::json::same(&spec.value[key], &was[key]);
    if !same("completions") {
        let completions = spec.at("completions");
        if spec.at("completionMode").text() != "Indexed" {
            completions.invalid(&mut errors, FIXED);
        } else if spec.value["completions"] != spec.value["parallelism"] {
            let why = "can only be modified in tandem with spec.parallelism";
            completions.invalid(&mut errors, why);
        }
    }
    let fixed = |errors: &mut Errors, key: &str| {
        if !same(key) {
            spec.at(key).invalid(errors, FIXED);
        }
    };
    fixed(&mut errors, "selector");
    if !super::json::same(template, &was["template"]) {
        spec.at("template").invalid(&mut errors, FIXED);
    }
    fixed(&mut errors, "completionMode");
    for (key, shape) in [
        ("podFailurePolicy", FAILURE_POLICY),
        ("successPolicy", SUCCESS_POLICY),
    ] {
        if !same(key) {
            let policy = spec.at(key);
            let shown = if policy.is_set() {
                go::shown(policy.value, shape)
            } else {
                "null".to_owned()
            };
            policy.invalid_shown(&mut errors, &shown, FIXED);
        }
    }
    for key in ["backoffLimitPerIndex", "managedBy"] {
        fixed(&mut errors, key);
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(spec: &Value) -> Vec<String> {
        let mut whole = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 1, "backoffLimitPerIndex": 1,
            "template": {"spec": {"restartPolicy": "Never", "dnsPolicy": "ClusterFirst",
                "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always"}]}}});
        for (key, value) in spec.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        let mut errors = Vec::new();
        validate_spec(&Spot::new(&whole, "s"), &mut errors);
        errors
            .iter()
            .map(|e| format!("{}: {}", e.field, e.message))
            .collect()
    }

    #[test]
    fn policies_of_jobs() {
        let failure = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
        for (spec, want) in [
            (json!({}), ""),
            (json!({"managedBy": "x.io/y"}), ""),
            (
                json!({"managedBy": "x"}),
                "s.managedBy: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ),
            (
                json!({"maxFailedIndexes": 4}),
                "s.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions",
            ),
            (
                failure(json!({"action": "Ignore", "onPodConditions": [{"type": "T", "status": "True"}]})),
                "",
            ),
            (
                failure(json!({"action": "Ignore"})),
                "s.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
            ),
            (
                failure(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 1]}})),
                "s.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1]: must be ordered",
            ),
            (
                json!({"successPolicy": {"rules": [{"succeededIndexes": "0-1", "succeededCount": 3}]}}),
                "s.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
            ),
        ] {
            assert_eq!(told(&spec).join("; "), want, "{spec}");
        }
    }

    #[test]
    fn time_zones_are_spelled_as_they_are() {
        for (zone, good) in [
            ("Europe/Vienna", true),
            ("Etc/UTC", true),
            ("UTC", true),
            ("europe/vienna", false),
            ("Frob", false),
        ] {
            assert_eq!(is_zone(zone), good, "{zone}");
        }
    }
}
