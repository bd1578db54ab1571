//! The status of a work from what happened to its manifests: one pure function, so that the same facts always give the
//! same status and an unchanged status is never written (wire §1.7).

use super::feedback::Feedback;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use muster_crds::conditions::{self, NewCondition, Status, set_condition};
use muster_crds::constants::{conditions as types, reasons};
use muster_crds::work::v1::{
    ConditionRule, ManifestCondition, ManifestResourceMeta, ManifestWorkStatus, StatusFeedbackResult,
};

/// Whether a manifest was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is as it should be.
    Yes,
    /// It is not: the server's or our own words.
    No {
        /// Condition reason.
        reason: &'static str,
        /// Why.
        message: String,
    },
}

/// Whether a manifest's object exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It does.
    Exists,
    /// It does not.
    Missing,
    /// Could not be found out.
    Unknown {
        /// Condition reason.
        reason: &'static str,
        /// Why.
        message: String,
    },
}

/// All there is to say about one manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Identity, as the status shows it.
    pub meta: ManifestResourceMeta,
    /// Applied or not.
    pub applied: Applied,
    /// There or not.
    pub availability: Availability,
    /// Values asked for; `None` when no rule asks.
    pub feedback: Option<Feedback>,
    /// Rules that this agent does not evaluate.
    pub unsupported_rules: Vec<ConditionRule>,
}

/// The work's new status. Conditions of others are kept, ours keep their transition times where nothing changed.
pub fn status(
    old: &ManifestWorkStatus,
    generation: Option<i64>,
    reports: &[Report],
    now: Timestamp,
) -> ManifestWorkStatus {
    let mut new = old.clone();
    new.resource_status.manifests = reports
        .iter()
        .map(|report| {
            let previous = old
                .resource_status
                .manifests
                .iter()
                .find(|m| m.resource_meta == report.meta);
            manifest(previous, report, generation, now)
        })
        .collect();
    let failed = reports.iter().any(|r| r.applied != Applied::Yes);
    let applied = if failed {
        NewCondition::new(
            types::APPLIED,
            false,
            reasons::APPLIED_MANIFEST_WORK_FAILED,
            "Failed to apply manifest work",
        )
    } else {
        NewCondition::new(
            types::APPLIED,
            true,
            reasons::APPLIED_MANIFEST_WORK_COMPLETE,
            "Apply manifest work complete",
        )
    };
    set_condition(&mut new.conditions, applied.observed(generation), now);
    set_condition(&mut new.conditions, available(reports).observed(generation), now);
    new
}

fn available(reports: &[Report]) -> NewCondition {
    let total = reports.len();
    let missing = reports
        .iter()
        .filter(|r| r.availability == Availability::Missing)
        .count();
    let unknown = reports
        .iter()
        .filter(|r| matches!(r.availability, Availability::Unknown { .. }))
        .count();
    if missing > 0 {
        let message = format!("{missing} of {total} resources are not available");
        NewCondition::new(types::AVAILABLE, false, reasons::RESOURCES_NOT_AVAILABLE, message)
    } else if unknown > 0 {
        let message = format!("{unknown} of {total} resources have unknown status");
        NewCondition::new(
            types::AVAILABLE,
            Status::Unknown,
            reasons::RESOURCES_STATUS_UNKNOWN,
            message,
        )
    } else {
        NewCondition::new(
            types::AVAILABLE,
            true,
            reasons::RESOURCES_AVAILABLE,
            "All resources are available",
        )
    }
}

fn manifest(
    old: Option<&ManifestCondition>,
    report: &Report,
    generation: Option<i64>,
    now: Timestamp,
) -> ManifestCondition {
    let mut list: Vec<Condition> = old.map(|o| o.conditions.clone()).unwrap_or_default();
    let applied = match &report.applied {
        Applied::Yes => NewCondition::new(
            types::APPLIED,
            true,
            reasons::APPLIED_MANIFEST_COMPLETE,
            "Apply manifest complete",
        ),
        Applied::No { reason, message } => {
            let message = format!("Failed to apply manifest: {message}");
            NewCondition::new(types::APPLIED, false, *reason, message)
        }
    };
    let available = match &report.availability {
        Availability::Exists => NewCondition::new(
            types::AVAILABLE,
            true,
            reasons::RESOURCE_AVAILABLE,
            "Resource is available",
        ),
        Availability::Missing => NewCondition::new(
            types::AVAILABLE,
            false,
            reasons::RESOURCE_NOT_AVAILABLE,
            "Resource is not available",
        ),
        Availability::Unknown { reason, message } => {
            NewCondition::new(types::AVAILABLE, Status::Unknown, *reason, message.as_str())
        }
    };
    set_condition(&mut list, applied.observed(generation), now);
    set_condition(&mut list, available.observed(generation), now);
    let old_values = old
        .map(|o| o.status_feedbacks.values.as_slice())
        .unwrap_or_default();
    let values = match &report.feedback {
        None => Vec::new(),
        Some(feedback) => feedback.values.clone(),
    };
    if values != old_values {
        // Its transition time tells when the values last changed.
        conditions::remove(&mut list, types::STATUS_FEEDBACK_SYNCED);
    }
    set_condition(
        &mut list,
        feedback_synced(report.feedback.as_ref()).observed(generation),
        now,
    );
    for rule in &report.unsupported_rules {
        let condition = NewCondition::new(
            rule.condition.as_str(),
            Status::Unknown,
            reasons::CONDITION_RULE_INVALID,
            "condition rules are not evaluated by this klusterlet",
        );
        set_condition(&mut list, condition.observed(generation), now);
    }
    ManifestCondition {
        resource_meta: report.meta.clone(),
        status_feedbacks: StatusFeedbackResult { values },
        conditions: list,
    }
}

fn feedback_synced(feedback: Option<&Feedback>) -> NewCondition {
    let new = |status, reason, message: &str| {
        NewCondition::new(types::STATUS_FEEDBACK_SYNCED, status, reason, message)
    };
    match feedback {
        None => new(
            true,
            reasons::NO_STATUS_FEEDBACK_SYNCED,
            "No status feedback is asked for",
        ),
        Some(feedback) if feedback.errors.is_empty() => new(
            true,
            reasons::STATUS_FEEDBACK_SYNCED,
            "Status feedback is complete",
        ),
        Some(feedback) => new(
            false,
            reasons::STATUS_FEEDBACK_SYNC_FAILED,
            &feedback.errors.join("; "),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(name: &str, applied: Applied, availability: Availability) -> Report {
        let meta = ManifestResourceMeta {
            name: name.into(),
            ..ManifestResourceMeta::default()
        };
        Report {
            meta,
            applied,
            availability,
            feedback: None,
            unsupported_rules: Vec::new(),
        }
    }

    fn failed() -> Applied {
        Applied::No {
            reason: reasons::APPLIED_MANIFEST_FAILED,
            message: "no".into(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn aggregation() {
        use Availability::{Exists, Missing};
        let unknown = || Availability::Unknown {
            reason: reasons::FETCHING_RESOURCE_FAILED,
            message: "x".into(),
        };
        let cases = [
            (
                vec![(Applied::Yes, Exists), (Applied::Yes, Exists)],
                "True",
                "True",
                "All resources are available",
            ),
            (
                vec![(Applied::Yes, Exists), (failed(), Missing)],
                "False",
                "False",
                "1 of 2 resources are not available",
            ),
            (
                vec![(Applied::Yes, Exists), (failed(), unknown())],
                "False",
                "Unknown",
                "1 of 2 resources have unknown status",
            ),
        ];
        for (facts, applied, available, message) in cases {
            let reports: Vec<_> = facts
                .into_iter()
                .enumerate()
                .map(|(i, (a, v))| report(&i.to_string(), a, v))
                .collect();
            let status = status(&ManifestWorkStatus::default(), Some(3), &reports, at(1));
            let find = |t| conditions::find(&status.conditions, t).unwrap();
            assert_eq!(find(types::APPLIED).status, applied);
            assert_eq!(find(types::AVAILABLE).status, available);
            assert_eq!(find(types::AVAILABLE).message, message);
            assert_eq!(find(types::APPLIED).observed_generation, Some(3));
        }
    }

    #[test]
    fn the_same_facts_give_the_same_status() {
        let reports = [
            report("a", Applied::Yes, Availability::Exists),
            report("b", failed(), Availability::Missing),
        ];
        let first = status(&ManifestWorkStatus::default(), Some(1), &reports, at(1));
        assert_eq!(status(&first, Some(1), &reports, at(100)), first);
    }

    #[test]
    fn changed_values_move_the_feedback_conditions_time_and_conditions_of_others_stay() {
        let value = |n: i64| Feedback {
            values: serde_json::from_value(
                json!([{"name": "n", "fieldValue": {"type": "Integer", "integer": n}}]),
            )
            .unwrap(),
            errors: vec![],
        };
        let mut one = report("a", Applied::Yes, Availability::Exists);
        one.feedback = Some(value(1));
        let mut first = status(&ManifestWorkStatus::default(), Some(1), &[one.clone()], at(1));
        set_condition(
            &mut first.conditions,
            NewCondition::new("Theirs", true, "R", ""),
            at(1),
        );
        one.feedback = Some(value(2));
        let second = status(&first, Some(1), &[one], at(50));
        let time = |s: &ManifestWorkStatus| {
            let list = &s.resource_status.manifests[0].conditions;
            conditions::find(list, types::STATUS_FEEDBACK_SYNCED)
                .unwrap()
                .last_transition_time
                .0
        };
        assert_eq!((time(&first), time(&second)), (at(1), at(50)));
        assert!(conditions::is_true(&second.conditions, "Theirs"));
    }
}
