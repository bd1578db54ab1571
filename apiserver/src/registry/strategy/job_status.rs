//! What the status of a Job may say: counters that are none below zero, lists of indexes, and how a finished Job ended.

use super::check::{Errors, Spot};
use super::job_policies::count_indexes;
use super::json::{items, same, text};
use crate::error::FieldErrorKind;
use serde_json::Value;
use std::collections::BTreeSet;

fn has(status: &Value, kind: &str) -> bool {
    items(status, "conditions").any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

/// What is wrong with the status of `job`, which was `old`'s.
pub(super) fn validate(job: &Value, old: &Value) -> Errors {
    let status = Spot::new(&job["status"], "status");
    let mut errors = Vec::new();
    for key in ["active", "succeeded", "failed", "ready", "terminating"] {
        status.at(key).not_negative(&mut errors);
    }
    // What was written before these rules were, and stays, is not looked at again.
    let changed = |keys: &[&str]| {
        keys.iter()
            .any(|key| !same(&status.value[*key], &old["status"][*key]))
    };
    let ready = status.at("ready");
    if changed(&["ready", "active"]) && ready.is_set() && ready.number() > status.at("active").number() {
        ready.invalid(&mut errors, "cannot set more ready pods than active");
    }
    for list in ["succeeded", "failed"] {
        let mut seen = BTreeSet::new();
        for uid in status.at("uncountedTerminatedPods").list(list) {
            if uid.is_empty() {
                uid.invalid_text(&mut errors, "must not be empty");
            } else if !seen.insert(uid.text()) {
                uid.duplicate(&mut errors);
            }
        }
    }
    if changed(&["completedIndexes", "failedIndexes"]) {
        indexes(&status, &job["spec"], &mut errors);
    }
    if changed(&["conditions", "completionTime", "startTime"]) {
        finished(&status, &mut errors);
    }
    let spec = &job["spec"];
    let start = status.at("startTime");
    if spec["suspend"] != true && !old["status"]["startTime"].is_null() && changed(&["startTime"]) {
        let why = "field is immutable for unsuspended job once set";
        start.invalid(&mut errors, why);
    }
    for (kind, what) in [
        ("Complete", "terminal Complete=True"),
        ("Failed", "terminal Failed=True"),
        ("FailureTarget", "FailureTarget=true"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet=true"),
    ] {
        if has(&old["status"], kind) && !has(status.value, kind) {
            let message = format!("Invalid value: cannot disable the {what} condition");
            status
                .at("conditions")
                .refuse(&mut errors, FieldErrorKind::Invalid, message);
        }
    }
    // One that may be made smaller may have counted more.
    let elastic = text(spec, "completionMode") == "Indexed" && spec["completions"] == spec["parallelism"];
    for key in ["succeeded", "failed"] {
        if key == "succeeded" && elastic {
            continue;
        }
        let count = status.at(key);
        if count.number() < old["status"][key].as_i64().unwrap_or(0) {
            let shown = count.number().to_string();
            let why = format!("cannot decrease the {key} counter");
            count.invalid_shown(&mut errors, &shown, &why);
        }
    }
    errors
}

fn indexes(status: &Spot<'_>, spec: &Value, errors: &mut Errors) {
    let completions = spec["completions"].as_i64().unwrap_or(0);
    let mut sound = true;
    for key in ["completedIndexes", "failedIndexes"] {
        let list = status.at(key);
        if let Err(why) = count_indexes(list.text(), completions) {
            list.invalid(errors, &format!("error parsing {key}: {why}"));
            sound = false;
        }
    }
    let (completed, failed) = (status.at("completedIndexes"), status.at("failedIndexes"));
    if !sound || completed.is_empty() || failed.is_empty() {
        return;
    }
    if let Some(both) = first_in_both(completed.text(), failed.text()) {
        let why = format!("failedIndexes and completedIndexes overlap at index: {both}");
        failed.invalid(errors, &why);
    }
}

/// The first index that two ascending lists have. They are compared by their ranges: a few signs may stand for very many.
fn first_in_both(one: &str, other: &str) -> Option<i64> {
    let ranges = |list: &str| -> Vec<(i64, i64)> {
        list.split(',')
            .map(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                (first.parse().unwrap_or(0), last.parse().unwrap_or(0))
            })
            .collect()
    };
    let (one, other) = (ranges(one), ranges(other));
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (one.peek(), other.peek()) {
        if a.1 < b.0 {
            one.next();
        } else if b.1 < a.0 {
            other.next();
        } else {
            return Some(a.0.max(b.0));
        }
    }
    None
}

/// A Job that ended says when it began, and when and why it ended.
fn finished(status: &Spot<'_>, errors: &mut Errors) {
    let (complete, failed) = (has(status.value, "Complete"), has(status.value, "Failed"));
    let (start, completion) = (status.at("startTime"), status.at("completionTime"));
    if (complete || failed) && !start.is_set() {
        start.missing(errors, "startTime is required for finished job");
    }
    if complete && !completion.is_set() {
        completion.missing(errors, "completionTime is required for Complete jobs");
    }
    if completion.is_set() && !complete {
        let why = "cannot set completionTime when there is no Complete=True condition";
        completion.invalid(errors, why);
    }
    let refuse = |errors: &mut Errors, why: &str| {
        let message = format!("Invalid value: {why}");
        status
            .at("conditions")
            .refuse(errors, FieldErrorKind::Invalid, message);
    };
    if complete && failed {
        refuse(errors, "cannot set Complete=True and Failed=true conditions");
    }
    if complete && !has(status.value, "SuccessCriteriaMet") {
        let why = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        refuse(errors, why);
    }
    if failed && !has(status.value, "FailureTarget") {
        let why = "cannot set Failed=True condition without the FailureTarget=true condition";
        refuse(errors, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn statuses() {
        let time = "2024-01-01T00:00:00Z";
        let done =
            json!([{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}]);
        for (status, want) in [
            (json!({"active": 1, "ready": 1}), ""),
            (json!({"ready": 1}), "status.ready"),
            (json!({"succeeded": 0}), "status.succeeded"),
            (json!({"succeeded": 1, "completedIndexes": "0-1"}), ""),
            (
                json!({"succeeded": 1, "completedIndexes": "9"}),
                "status.completedIndexes",
            ),
            (
                json!({"succeeded": 1, "completedIndexes": "0", "failedIndexes": "0-1"}),
                "status.failedIndexes",
            ),
            (
                json!({"succeeded": 1, "startTime": time, "completionTime": time, "conditions": done}),
                "",
            ),
            (
                json!({"succeeded": 1, "startTime": time, "conditions": done}),
                "status.completionTime",
            ),
            (
                json!({"succeeded": 1, "completionTime": time}),
                "status.completionTime",
            ),
        ] {
            let counted = i64::from(!status["succeeded"].is_null());
            let job = json!({"spec": {"completions": 3}, "status": status});
            let old = json!({"status": {"succeeded": counted}});
            let errors = validate(&job, &old);
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields.join(" "), want, "{status}");
        }
    }
}
