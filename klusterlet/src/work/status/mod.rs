//! The status of a work from what happened to its manifests: one pure function, so that the same facts always give the
//! same status and an unchanged status is never written (wire §1.7).

pub mod bounds;
mod conditions;

use super::feedback::Feedback;
use conditions::{aggregated, exchange, exchange_of_manifest};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use muster_crds::conditions::{NewCondition, Status, find, is_true, remove, set_condition};
use muster_crds::constants::{conditions as types, reasons};
use muster_crds::work::v1::{
    ManifestCondition, ManifestResourceMeta, ManifestWorkStatus, StatusFeedbackResult,
};

pub use conditions::health_conditions;

/// Whether a manifest was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is as it should be.
    Yes,
    /// It was only looked at, because it is complete: what was said of it last still holds.
    Kept,
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
    /// Conditions by rules, and those derived where no rule speaks.
    pub conditions: Vec<NewCondition>,
}

impl Report {
    /// The same with conditions that were derived, where there is none of their type yet.
    pub fn derive(&mut self, derived: impl IntoIterator<Item = NewCondition>) {
        for condition in derived {
            if !self.conditions.iter().any(|c| c.type_ == condition.type_) {
                self.conditions.push(condition);
            }
        }
    }

    /// The same with a condition in place of one of its type.
    pub fn set(&mut self, condition: NewCondition) {
        self.conditions.retain(|c| c.type_ != condition.type_);
        self.conditions.push(condition);
    }
}

/// The work's new status. `unremoved`: what it does not have any more and is still there, and why. Conditions of others are kept,
/// ours keep their transition times where nothing changed.
pub fn status(
    old: &ManifestWorkStatus,
    generation: Option<i64>,
    reports: &[Report],
    unremoved: Option<&str>,
    now: Timestamp,
) -> ManifestWorkStatus {
    let mut new = old.clone();
    // A completed work is looked at, and nothing of it is applied: what was applied of it is of an earlier generation.
    let frozen = is_true(&old.conditions, types::COMPLETE) && find(&old.conditions, types::APPLIED).is_some();
    new.resource_status.manifests = reports
        .iter()
        .map(|report| {
            manifest(
                previous(&old.resource_status.manifests, &report.meta),
                report,
                frozen,
                generation,
                now,
            )
        })
        .collect();
    let failed = reports.iter().any(|r| matches!(r.applied, Applied::No { .. }));
    let applied = if reports.is_empty() {
        NewCondition::new(
            types::APPLIED,
            false,
            reasons::APPLIED_MANIFEST_WORK_FAILED,
            "Failed to apply manifest work: it has no manifests",
        )
    } else if failed {
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
    if !frozen {
        set_condition(&mut new.conditions, applied.observed(generation), now);
    }
    let mut summed = aggregated(&new.resource_status.manifests, reports);
    let there = available(reports);
    // A rule may say when an object is available. What is not there never is.
    let ruled = summed.iter().position(|c| c.type_ == types::AVAILABLE);
    match ruled {
        Some(at) if there.status != Status::True => summed[at] = there,
        Some(_) => {}
        None => {
            set_condition(&mut new.conditions, there.observed(generation), now);
        }
    }
    if let Some(told) = unremoved {
        conditions::degrade(&mut summed, told);
    }
    exchange(&mut new.conditions, summed, generation, now);
    new
}

/// What was said of an object before, at whatever place in the work it was.
pub fn previous<'a>(
    list: &'a [ManifestCondition],
    meta: &ManifestResourceMeta,
) -> Option<&'a ManifestCondition> {
    let moved = |m: &&ManifestCondition| {
        let at = m.resource_meta.ordinal;
        m.resource_meta
            == ManifestResourceMeta {
                ordinal: at,
                ..meta.clone()
            }
    };
    list.iter()
        .find(|m| m.resource_meta == *meta)
        .or_else(|| list.iter().find(moved))
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
    if total == 0 {
        NewCondition::new(
            types::AVAILABLE,
            Status::Unknown,
            reasons::RESOURCES_STATUS_UNKNOWN,
            "cannot get any available resource ",
        )
    } else if missing > 0 {
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
    frozen: bool,
    generation: Option<i64>,
    now: Timestamp,
) -> ManifestCondition {
    let mut list: Vec<Condition> = old.map(|o| o.conditions.clone()).unwrap_or_default();
    let applied = match &report.applied {
        // What was said last still holds, and of what came since nothing was applied.
        Applied::Kept => None,
        Applied::Yes if frozen && find(&list, types::APPLIED).is_some() => None,
        Applied::Yes => Some(NewCondition::new(
            types::APPLIED,
            true,
            reasons::APPLIED_MANIFEST_COMPLETE,
            "Apply manifest complete",
        )),
        Applied::No { reason, message } => {
            let message = format!("Failed to apply manifest: {message}");
            Some(NewCondition::new(types::APPLIED, false, *reason, message))
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
    if let Some(applied) = applied {
        set_condition(&mut list, applied.observed(generation), now);
    }
    let ruled = report.conditions.iter().any(|c| c.type_ == types::AVAILABLE);
    if !ruled {
        set_condition(&mut list, available.observed(generation), now);
    }
    let old_values = old
        .map(|o| o.status_feedbacks.values.as_slice())
        .unwrap_or_default();
    let values = match &report.feedback {
        None => Vec::new(),
        Some(feedback) => feedback.values.clone(),
    };
    if values != old_values {
        // Its transition time tells when the values last changed.
        remove(&mut list, types::STATUS_FEEDBACK_SYNCED);
    }
    set_condition(
        &mut list,
        feedback_synced(report.feedback.as_ref()).observed(generation),
        now,
    );
    exchange_of_manifest(&mut list, report, generation, now);
    ManifestCondition {
        resource_meta: report.meta.clone(),
        status_feedbacks: StatusFeedbackResult { values },
        conditions: list,
    }
}

/// Of the errors of one manifest's feedback, in characters; the API allows 32,768 and a work may have many.
const LONGEST_MESSAGE: usize = 4096;

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
            &feedback
                .errors
                .join("; ")
                .chars()
                .take(LONGEST_MESSAGE)
                .collect::<String>(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::health::Health;
    use muster_crds::conditions;
    use serde_json::json;

    fn status(
        old: &ManifestWorkStatus,
        generation: Option<i64>,
        reports: &[Report],
        now: Timestamp,
    ) -> ManifestWorkStatus {
        super::status(old, generation, reports, None, now)
    }

    #[test]
    fn what_can_not_be_removed_is_told_until_it_is_gone() {
        let reports = [report("a", Applied::Yes, Availability::Exists)];
        let degraded = |status: &ManifestWorkStatus| {
            let found = find(&status.conditions, types::DEGRADED).unwrap();
            (found.status.clone(), found.reason.clone(), found.message.clone())
        };
        let told = "not removed: configmaps d/b: it is forbidden";
        let first = super::status(
            &ManifestWorkStatus::default(),
            Some(1),
            &reports,
            Some(told),
            at(1),
        );
        let expected = (
            "True".to_owned(),
            reasons::REMOVAL_FAILED.to_owned(),
            told.to_owned(),
        );
        assert_eq!(degraded(&first), expected);
        assert!(conditions::is_true(&first.conditions, types::APPLIED));
        let again = super::status(&first, Some(1), &reports, Some(told), at(9));
        assert_eq!(again, first);
        let gone = status(&first, Some(1), &reports, at(10));
        assert_eq!(degraded(&gone).1, reasons::MANIFESTS_CURRENT);
    }

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
            conditions: Vec::new(),
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
    fn what_moves_in_the_work_keeps_its_times() {
        let mut one = report("a", Applied::Yes, Availability::Exists);
        let first = status(&ManifestWorkStatus::default(), Some(1), &[one.clone()], at(1));
        one.meta.ordinal = 1;
        let new = report("b", Applied::Yes, Availability::Exists);
        let second = status(&first, Some(2), &[new, one], at(2));
        let times: Vec<_> = second
            .resource_status
            .manifests
            .iter()
            .map(|m| {
                conditions::find(&m.conditions, types::APPLIED)
                    .unwrap()
                    .last_transition_time
                    .0
            })
            .collect();
        assert_eq!(times, [at(2), at(1)]);
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

    fn ruled(type_: &str, status: Status) -> NewCondition {
        NewCondition::new(
            type_,
            status,
            reasons::CONDITION_RULE_EVALUATED,
            format!("{type_} here"),
        )
    }

    #[test]
    fn rules_are_summed_up() {
        use Status::{False, True, Unknown};
        let cases: [(&str, &[Status], Status); 10] = [
            ("Custom", &[True, True], True),
            ("Custom", &[True, Unknown], Unknown),
            ("Custom", &[True, Unknown, False], False),
            ("Complete", &[True, False], False),
            ("Progressing", &[True, False], True),
            ("Progressing", &[Unknown, False], Unknown),
            ("Progressing", &[False, False], False),
            ("Degraded", &[False, True], True),
            ("Degraded", &[False, Unknown], Unknown),
            ("Degraded", &[False, False], False),
        ];
        for (type_, statuses, expected) in cases {
            let reports: Vec<_> = statuses
                .iter()
                .enumerate()
                .map(|(i, s)| {
                    let mut one = report(&i.to_string(), Applied::Yes, Availability::Exists);
                    one.conditions = vec![ruled(type_, *s)];
                    one
                })
                .collect();
            let status = status(&ManifestWorkStatus::default(), Some(2), &reports, at(1));
            let found = conditions::find(&status.conditions, type_).unwrap();
            assert_eq!(found.status, expected.as_str(), "{type_} {statuses:?}");
            assert_eq!(found.reason, reasons::CONDITION_RULES_AGGREGATED);
            assert_eq!(
                found.message,
                format!("Aggregated from {} manifest conditions", statuses.len())
            );
            assert_eq!(found.observed_generation, Some(2));
        }
    }

    #[test]
    fn derived_state_counts_where_no_rule_speaks() {
        let mut plain = report("a", Applied::Yes, Availability::Exists);
        let summed = |reports: &[Report]| {
            let status = status(&ManifestWorkStatus::default(), Some(1), reports, at(1));
            [types::PROGRESSING, types::DEGRADED].map(|t| {
                let c = conditions::find(&status.conditions, t).unwrap();
                (c.status.clone(), c.reason.clone())
            })
        };
        let pair = |p: (&str, &str), d: (&str, &str)| [p, d].map(|(s, r)| (s.to_owned(), r.to_owned()));
        let current = ("False", reasons::MANIFESTS_CURRENT);
        assert_eq!(summed(&[plain.clone()]), pair(current, current));
        let mut sick = report("b", Applied::Yes, Availability::Exists);
        sick.derive(health_conditions(Some(Health::Degraded("x".into()))));
        let expected = pair(
            ("True", reasons::MANIFESTS_PROGRESSING),
            ("True", reasons::MANIFESTS_DEGRADED),
        );
        assert_eq!(summed(&[plain.clone(), sick.clone()]), expected);
        let unapplied = report("c", failed(), Availability::Exists);
        assert_eq!(
            summed(&[unapplied]),
            pair(("True", reasons::MANIFESTS_NOT_APPLIED), current)
        );
        // A rule of its own takes the place of what would be derived of the manifest, and of no other.
        plain.conditions = vec![ruled(types::DEGRADED, Status::False)];
        plain.derive(health_conditions(Some(Health::Degraded("x".into()))));
        assert_eq!(plain.conditions.len(), 2);
        let by_rules = |status: &str| (status.to_owned(), reasons::CONDITION_RULES_AGGREGATED.to_owned());
        let healthy = report("d", Applied::Yes, Availability::Exists);
        let [_, degraded] = summed(&[plain.clone(), healthy]);
        assert_eq!(degraded, by_rules("False"));
        let [_, degraded] = summed(&[plain.clone(), sick.clone()]);
        assert_eq!(degraded, ("True".into(), reasons::MANIFESTS_DEGRADED.into()));
        let mut unsure = plain.clone();
        unsure.conditions = vec![ruled(types::DEGRADED, Status::Unknown)];
        let [_, degraded] = summed(&[unsure.clone(), sick.clone()]);
        assert_eq!(degraded.0, "True");
        sick.conditions = health_conditions(Some(Health::Current("x".into())));
        let [_, degraded] = summed(&[unsure, sick.clone()]);
        assert_eq!(degraded, by_rules("Unknown"));
        // What is not applied progresses, unless a rule of its own says otherwise.
        let mut still = report("e", Applied::Yes, Availability::Exists);
        still.conditions = vec![ruled(types::PROGRESSING, Status::False)];
        let mut unapplied = report("f", failed(), Availability::Exists);
        let [progressing, _] = summed(&[still.clone(), unapplied.clone()]);
        assert_eq!(
            progressing,
            ("True".into(), reasons::MANIFESTS_NOT_APPLIED.into())
        );
        unapplied.conditions = still.conditions.clone();
        let [progressing, _] = summed(&[still, unapplied]);
        assert_eq!(progressing, by_rules("False"));
        // But a fight is a fight.
        sick.set(NewCondition::new(types::DEGRADED, true, reasons::CONTENDED, "m"));
        let [_, degraded] = summed(&[plain, sick]);
        assert_eq!(degraded, ("True".into(), reasons::CONTENDED.into()));
    }

    #[test]
    fn rule_conditions_that_are_gone_are_pruned_and_others_stay() {
        let mut one = report("a", Applied::Yes, Availability::Exists);
        one.conditions = vec![ruled("Custom", Status::True)];
        let mut first = status(&ManifestWorkStatus::default(), Some(1), &[one.clone()], at(1));
        let theirs = NewCondition::new("Theirs", true, "R", "");
        set_condition(
            &mut first.resource_status.manifests[0].conditions,
            theirs.clone(),
            at(1),
        );
        set_condition(&mut first.conditions, theirs, at(1));
        one.conditions.clear();
        let second = status(&first, Some(2), &[one], at(2));
        for list in [
            &second.conditions,
            &second.resource_status.manifests[0].conditions,
        ] {
            assert!(conditions::find(list, "Custom").is_none());
            assert!(conditions::is_true(list, "Theirs"));
        }
    }

    #[test]
    fn what_finished_stays_finished_when_it_is_cleaned_up() {
        let complete = |s: &ManifestWorkStatus| conditions::is_true(&s.conditions, types::COMPLETE);
        let mut one = report("a", Applied::Yes, Availability::Exists);
        one.conditions = vec![ruled(types::COMPLETE, Status::True)];
        let first = status(&ManifestWorkStatus::default(), Some(1), &[one], at(1));
        let gone = report("a", Applied::Kept, Availability::Missing);
        let second = status(&first, Some(1), std::slice::from_ref(&gone), at(2));
        assert!(complete(&first) && complete(&second));
        assert!(
            !complete(&status(&second, Some(2), &[gone], at(3))),
            "of an older generation"
        );
        let unread = Availability::Unknown {
            reason: reasons::FETCHING_RESOURCE_FAILED,
            message: "x".into(),
        };
        assert!(complete(&status(
            &first,
            Some(2),
            &[report("a", Applied::Kept, unread)],
            at(2)
        )));
    }

    #[test]
    fn what_is_only_looked_at_keeps_its_applied_condition() {
        let first = status(
            &ManifestWorkStatus::default(),
            Some(1),
            &[report("a", failed(), Availability::Exists)],
            at(1),
        );
        let kept = status(
            &first,
            Some(2),
            &[report("a", Applied::Kept, Availability::Exists)],
            at(2),
        );
        let applied =
            conditions::find(&kept.resource_status.manifests[0].conditions, types::APPLIED).unwrap();
        assert_eq!(
            (applied.status.as_str(), applied.observed_generation),
            ("False", Some(1))
        );
    }
}
