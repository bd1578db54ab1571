//! Conditions by rules and by derivation: set and taken away again, and summed up to the work (wire §3.5).

use super::{Applied, Availability, Report};
use crate::work::health::Health;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use muster_crds::conditions::{NewCondition, Status, find, set_condition};
use muster_crds::constants::{conditions as types, reasons};
use muster_crds::work::v1::ManifestCondition;
use std::collections::BTreeMap;

/// What an object's health says in conditions.
pub fn health_conditions(health: Option<Health>) -> Vec<NewCondition> {
    let both = |progressing: bool, degraded: bool, message: &str| {
        // The words of progress change often; they are said once.
        let quiet = if degraded {
            message
        } else {
            "Nothing says that something is wrong"
        };
        let reason = |holds: bool, reason| if holds { reason } else { reasons::WORKLOAD_CURRENT };
        vec![
            NewCondition::new(
                types::PROGRESSING,
                progressing,
                reason(progressing, reasons::WORKLOAD_PROGRESSING),
                message,
            ),
            NewCondition::new(
                types::DEGRADED,
                degraded,
                reason(degraded, reasons::WORKLOAD_DEGRADED),
                quiet,
            ),
        ]
    };
    match health {
        None => Vec::new(),
        Some(Health::Current(message)) => both(false, false, &message),
        Some(Health::Progressing(message)) => both(true, false, &message),
        Some(Health::Degraded(message)) => both(true, true, &message),
    }
}

/// Whether a condition comes from a rule (also `ConditionRulesAggregated`, wire §3.5).
fn by_rule(reason: &str) -> bool {
    reason.starts_with("ConditionRule")
}

/// Whether a condition is one that this agent derives, so that it may take it away again.
fn derived(condition: &Condition) -> bool {
    [
        reasons::WORKLOAD_PROGRESSING,
        reasons::WORKLOAD_CURRENT,
        reasons::WORKLOAD_DEGRADED,
        reasons::CONTENDED,
        reasons::REMOVAL_FAILED,
        reasons::MANIFESTS_NOT_APPLIED,
        reasons::MANIFESTS_PROGRESSING,
        reasons::MANIFESTS_CURRENT,
        reasons::MANIFESTS_DEGRADED,
        reasons::DRIFTED,
        reasons::IN_SYNC,
    ]
    .contains(&condition.reason.as_str())
}

/// Sets the new conditions, and removes those of rules and derivations that were not given this time.
pub fn exchange(list: &mut Vec<Condition>, new: Vec<NewCondition>, generation: Option<i64>, now: Timestamp) {
    list.retain(|c| !(by_rule(&c.reason) || derived(c)) || new.iter().any(|n| n.type_ == c.type_));
    for condition in new {
        set_condition(list, condition.observed(generation), now);
    }
}

/// The same for a manifest. What a rule said of an object that is gone since stays for its generation: a finished Job
/// that was cleaned up is finished. Of an object that could not be read everything stays.
pub fn exchange_of_manifest(
    list: &mut Vec<Condition>,
    report: &Report,
    generation: Option<i64>,
    now: Timestamp,
) {
    let new = report.conditions.clone();
    let kept = list.iter().filter(|c| match report.availability {
        Availability::Exists => false,
        Availability::Missing => by_rule(&c.reason) && c.observed_generation == generation,
        Availability::Unknown { .. } => by_rule(&c.reason) || derived(c),
    });
    let kept: Vec<Condition> = kept
        .filter(|c| !new.iter().any(|n| n.type_ == c.type_))
        .cloned()
        .collect();
    exchange(list, new, generation, now);
    list.extend(kept);
}

/// The work is degraded for this too: what is left of what it had is nothing that a manifest could tell.
pub fn degrade(summed: &mut Vec<NewCondition>, told: &str) {
    let before = summed.iter().find(|c| c.type_ == types::DEGRADED);
    let message = match before.filter(|c| c.status == Status::True) {
        Some(degraded) => format!("{told}; {}", degraded.message),
        None => told.to_owned(),
    };
    summed.retain(|c| c.type_ != types::DEGRADED);
    summed.push(NewCondition::new(
        types::DEGRADED,
        true,
        reasons::REMOVAL_FAILED,
        message,
    ));
}

/// The work's conditions from those of its manifests, sorted by type.
///
/// What rules give is summed up over the rules, as OCM does: `Progressing` is True when any is, others are False when any is
/// (wire §3.5). `Degraded` is True when any manifest is: one that works must not hide one that does not. A rule speaks for its
/// own manifest: what is derived of the others counts beside it where it is worse. Progressing and Degraded are always there.
pub fn aggregated(manifests: &[ManifestCondition], reports: &[Report]) -> Vec<NewCondition> {
    let mut by_type: BTreeMap<&str, Vec<&Condition>> = BTreeMap::new();
    let counts = |c: &&Condition| by_rule(&c.reason) || derived(c);
    for condition in manifests.iter().flat_map(|m| &m.conditions).filter(counts) {
        by_type.entry(&condition.type_).or_default().push(condition);
    }
    for type_ in [types::PROGRESSING, types::DEGRADED] {
        by_type.entry(type_).or_default();
    }
    by_type
        .into_iter()
        .map(|(type_, list)| {
            let (ruled, derived): (Vec<_>, Vec<_>) = list.into_iter().partition(|c| by_rule(&c.reason));
            let by_rules = (!ruled.is_empty()).then(|| of_rules(type_, &ruled));
            match by_rules {
                Some(by_rules) if !DERIVED.contains(&type_) => by_rules,
                Some(by_rules) => {
                    let derived = of_derived(type_, &derived, manifests, reports);
                    let rank = |c: &NewCondition| order(type_).iter().position(|s| *s == c.status);
                    if rank(&derived) < rank(&by_rules) || derived.reason == reasons::CONTENDED {
                        derived
                    } else {
                        by_rules
                    }
                }
                None => of_derived(type_, &derived, manifests, reports),
            }
        })
        .collect()
}

/// Types that are derived where no rule speaks.
const DERIVED: [&str; 2] = [types::PROGRESSING, types::DEGRADED];

/// What decides comes first.
fn order(type_: &str) -> [Status; 3] {
    match type_ {
        types::PROGRESSING | types::DEGRADED | types::DRIFTED => {
            [Status::True, Status::Unknown, Status::False]
        }
        _ => [Status::False, Status::Unknown, Status::True],
    }
}

fn deciding(type_: &str, list: &[&Condition]) -> Status {
    order(type_)
        .into_iter()
        .find(|s| list.iter().any(|c| c.status == s.as_str()))
        .unwrap_or(Status::False)
}

fn of_rules(type_: &str, ruled: &[&Condition]) -> NewCondition {
    let message = match ruled {
        [only] => only.message.clone(),
        all => format!("Aggregated from {} manifest conditions", all.len()),
    };
    let reason = reasons::CONDITION_RULES_AGGREGATED;
    NewCondition::new(type_, deciding(type_, ruled), reason, message)
}

fn of_derived(
    type_: &str,
    derived: &[&Condition],
    manifests: &[ManifestCondition],
    reports: &[Report],
) -> NewCondition {
    let has_rule = |r: &Report| {
        let of_type = |c: &&NewCondition| c.type_ == type_;
        r.conditions
            .iter()
            .find(of_type)
            .is_some_and(|c| by_rule(&c.reason))
    };
    let unapplied = |r: &&Report| matches!(r.applied, Applied::No { .. }) && !has_rule(r);
    let unapplied = reports.iter().filter(unapplied).count();
    if type_ == types::PROGRESSING && unapplied > 0 {
        let message = format!("{unapplied} of {} manifests are not applied", reports.len());
        return NewCondition::new(type_, true, reasons::MANIFESTS_NOT_APPLIED, message);
    }
    let status = deciding(type_, derived);
    let never = |m: &&ManifestCondition| find(&m.conditions, types::APPLIED).is_none();
    let never_applied = manifests.iter().filter(never).count();
    let message = match type_ {
        _ if status == Status::True => {
            let mut alike = derived.iter().filter(|c| c.status == status.as_str());
            let first = alike.next().map_or("", |c| c.message.as_str());
            match alike.count() {
                0 => first.to_owned(),
                more => format!("{first}; and {more} more"),
            }
        }
        types::PROGRESSING if never_applied > 0 => format!(
            "The work is complete: {never_applied} of {} manifests are not applied any more",
            reports.len()
        ),
        types::PROGRESSING => "Every manifest is what it should be".to_owned(),
        types::DEGRADED => "No manifest is degraded".to_owned(),
        _ => "Nothing differs from the manifests".to_owned(),
    };
    let contended = derived
        .iter()
        .any(|c| c.status == status.as_str() && c.reason == reasons::CONTENDED);
    let reason = match (type_, status) {
        _ if contended => reasons::CONTENDED,
        (types::PROGRESSING, Status::True) => reasons::MANIFESTS_PROGRESSING,
        (types::DEGRADED, Status::True) => reasons::MANIFESTS_DEGRADED,
        (types::DRIFTED, Status::True) => reasons::DRIFTED,
        (types::DRIFTED, _) => reasons::IN_SYNC,
        _ => reasons::MANIFESTS_CURRENT,
    };
    NewCondition::new(type_, status, reason, message)
}
