//! When a Job fails, and when it is done: its policies.

use super::check::{Errors, Spot};
use super::go::{Part, Shape};
use super::json::{items, text};
use crate::error::FieldErrorKind;
use crate::registry::names;
use serde_json::Value;
use std::collections::BTreeSet;

/// The most rules of a policy, and exit codes of a rule.
const MAX_RULES: usize = 20;
const MAX_CODES: usize = 255;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

pub(super) const SUCCESS_POLICY: &Shape = &[(
    "Rules",
    "rules",
    Part::Many(&[
        ("SucceededIndexes", "succeededIndexes", Part::Plain),
        ("SucceededCount", "succeededCount", Part::Plain),
    ]),
)];
pub(super) const FAILURE_POLICY: &Shape = &[(
    "Rules",
    "rules",
    Part::Many(&[
        ("Action", "action", Part::Text),
        (
            "OnExitCodes",
            "onExitCodes",
            Part::One(&[
                ("ContainerName", "containerName", Part::Plain),
                ("Operator", "operator", Part::Text),
                ("Values", "values", Part::Plain),
            ]),
        ),
        (
            "OnPodConditions",
            "onPodConditions",
            Part::Many(&[("Type", "type", Part::Text), ("Status", "status", Part::Text)]),
        ),
    ]),
)];

fn too_many(list: &Spot<'_>, most: usize, errors: &mut Errors) {
    let count = list.items().len();
    if count > most {
        let why = format!("Too many: {count}: must have at most {most} items");
        list.refuse(errors, FieldErrorKind::TooMany, why);
    }
}

/// What is wrong with what a Job does about pods that fail.
pub(super) fn failure(policy: &Spot<'_>, job: &Value, errors: &mut Errors) {
    let pod = &job["template"]["spec"];
    let containers: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| items(pod, list))
        .map(|container| text(container, "name"))
        .collect();
    let rules = policy.at("rules");
    too_many(&rules, MAX_RULES, errors);
    for rule in rules.items() {
        let action = rule.at("action");
        match action.text() {
            "" => action.missing(
                errors,
                "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
            ),
            "FailIndex" if job["backoffLimitPerIndex"].is_null() => {
                action.invalid(errors, "requires the backoffLimitPerIndex to be set");
            }
            _ => action.among(errors, &ACTIONS),
        }
        let (codes, conditions) = (rule.at("onExitCodes"), rule.at("onPodConditions"));
        if codes.is_set() {
            exit_codes(&codes, &containers, errors);
        }
        for condition in conditions.items() {
            condition.at("type").named(errors, names::qualified_name);
            let status = condition.at("status");
            if status.is_empty() {
                let why = "valid values: [\"False\" \"True\" \"Unknown\"]";
                status.missing(errors, why);
            } else {
                status.among(errors, &STATUSES);
            }
        }
        let problem = match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        let message = format!("Invalid value: {problem}");
        rule.refuse(errors, FieldErrorKind::Invalid, message);
    }
}

fn exit_codes(codes: &Spot<'_>, containers: &BTreeSet<&str>, errors: &mut Errors) {
    let operator = codes.at("operator");
    if operator.required(errors, "valid values: [\"In\" \"NotIn\"]") {
        operator.among(errors, &["In", "NotIn"]);
    }
    let name = codes.at("containerName");
    if name.is_set() && !containers.contains(name.text()) {
        let why = "must be one of the container or initContainer names in the pod template";
        name.invalid(errors, why);
    }
    let values = codes.at("values");
    if values.is_empty() {
        values.invalid(errors, "at least one value is required");
    }
    too_many(&values, MAX_CODES, errors);
    let mut seen = BTreeSet::new();
    let mut last = i64::MIN;
    let mut ordered = true;
    for value in values.items() {
        let code = value.number();
        if operator.text() == "In" && code == 0 {
            value.invalid(errors, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            value.duplicate(errors);
        }
        ordered &= last <= code;
        last = code;
    }
    if !ordered {
        values.invalid(errors, "must be ordered");
    }
}

/// What is wrong with when a Job is done before all of it is.
pub(super) fn success(policy: &Spot<'_>, completions: i64, errors: &mut Errors) {
    let rules = policy.at("rules");
    let none = "at least one rules must be specified when the successPolicy is specified";
    rules.required(errors, none);
    too_many(&rules, MAX_RULES, errors);
    for rule in rules.items() {
        let (indexes, count) = (rule.at("succeededIndexes"), rule.at("succeededCount"));
        if !indexes.is_set() && !count.is_set() {
            let why = "at least one of succeededCount or succeededIndexes must be specified";
            rule.missing(errors, why);
        }
        let listed = match count_indexes(indexes.text(), completions) {
            Ok(listed) => listed,
            Err(why) => {
                indexes.invalid(errors, &format!("error parsing succeededIndexes: {why}"));
                0
            }
        };
        count.not_negative(errors);
        if count.number() > completions {
            let why =
                format!("must be less than or equal to {completions} (the number of specified completions)");
            count.invalid(errors, &why);
        }
        if indexes.is_set() && count.number() > listed {
            let why = format!(
                "must be less than or equal to {listed} (the number of indexes in the specified succeededIndexes field)"
            );
            count.invalid(errors, &why);
        }
    }
}

/// How many indexes a list like `0,3-5` has, all of them below `completions` and in order.
pub(super) fn count_indexes(list: &str, completions: i64) -> Result<i64, String> {
    if list.is_empty() {
        return Ok(0);
    }
    let (mut total, mut last): (i64, Option<i64>) = (0, None);
    for part in list.split(',') {
        let ends: Vec<&str> = part.split('-').collect();
        if ends.len() > 2 {
            return Err(format!(
                "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let mut first = None;
        for end in ends {
            let index: i64 = end
                .parse()
                .map_err(|_| format!("cannot convert string to integer for index: {end:?}"))?;
            if index >= completions {
                return Err(format!("too large index: {end:?}"));
            }
            if let Some(last) = last.filter(|last| *last >= index) {
                return Err(format!(
                    "non-increasing order, previous: {last}, current: {index}"
                ));
            }
            total += first.map_or(1, |first: i64| index - first);
            first = Some(index);
            last = Some(index);
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted() {
        for (list, want) in [
            ("", Ok(0)),
            ("0", Ok(1)),
            ("0,2-4", Ok(4)),
            ("1,0", Err("non-increasing order, previous: 1, current: 0")),
            ("1-0", Err("non-increasing order, previous: 1, current: 0")),
            ("5", Err("too large index: \"5\"")),
            ("-1", Err("cannot convert string to integer for index: \"\"")),
            (
                "0-1-2",
                Err(
                    "the fragment \"0-1-2\" violates the requirement that an index interval can have at most two parts separated by '-'",
                ),
            ),
        ] {
            assert_eq!(count_indexes(list, 5), want.map_err(str::to_owned), "{list}");
        }
    }
}
