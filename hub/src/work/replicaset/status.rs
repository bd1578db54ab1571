//! What a replica set says of itself (ocm-wire §4): counts, and three conditions.

use jiff::Timestamp;
use muster_crds::{
    conditions::{NewCondition, set_condition},
    constants::{conditions, reasons},
    work::v1alpha1::{ManifestWorkReplicaSetStatus, ManifestWorkReplicaSetSummary, PlacementSummary},
};

use super::deploy::Placed;

/// How many names a message tells.
const NAMES: usize = 5;

/// The status that follows from the placements and from the one `before` it; `refused` when a write was refused for good.
pub fn status(
    before: &ManifestWorkReplicaSetStatus,
    generation: Option<i64>,
    placed: &[Placed],
    refused: bool,
    now: Timestamp,
) -> ManifestWorkReplicaSetStatus {
    let mut status = before.clone();
    status.summary = ManifestWorkReplicaSetSummary::default();
    for one in placed {
        add(&mut status.summary, &one.summary);
    }
    status.placements_summary = placed
        .iter()
        .map(|one| PlacementSummary {
            name: one.name.clone(),
            available_decision_groups: format!(
                "{} ({} / {} clusters applied)",
                one.groups, one.summary.total, one.clusters
            ),
            summary: one.summary,
        })
        .collect();
    for condition in [
        verified(placed),
        rolled_out(placed),
        applied(placed, &status.summary, refused),
    ] {
        set_condition(&mut status.conditions, condition.observed(generation), now);
    }
    status
}

/// The status of one that can have no works.
pub fn unable(
    before: &ManifestWorkReplicaSetStatus,
    generation: Option<i64>,
    reason: &str,
    why: String,
    now: Timestamp,
) -> ManifestWorkReplicaSetStatus {
    let mut status = before.clone();
    let condition =
        NewCondition::new(conditions::MANIFESTWORK_APPLIED, false, reason, why).observed(generation);
    set_condition(&mut status.conditions, condition, now);
    status
}

fn add(sum: &mut ManifestWorkReplicaSetSummary, one: &ManifestWorkReplicaSetSummary) {
    sum.total += one.total;
    sum.progressing += one.progressing;
    sum.available += one.available;
    sum.degraded += one.degraded;
    sum.applied += one.applied;
    sum.desired_total += one.desired_total;
    sum.updated += one.updated;
}

fn verified(placed: &[Placed]) -> NewCondition {
    let new = |status: bool, reason: &str, message: String| {
        NewCondition::new(conditions::PLACEMENT_VERIFIED, status, reason, message)
    };
    let undecided = names(
        placed
            .iter()
            .filter(|one| !one.decided)
            .map(|one| one.name.as_str()),
    );
    if !undecided.is_empty() {
        let message = format!("there are no PlacementDecisions of {undecided}, or no such Placement");
        return new(false, reasons::PLACEMENT_DECISION_NOT_FOUND, message);
    }
    if placed.iter().all(|one| one.clusters == 0) {
        let message = "no cluster is decided for".to_owned();
        return new(false, reasons::PLACEMENT_DECISION_EMPTY, message);
    }
    let wrong: Vec<String> = placed
        .iter()
        .filter_map(|one| Some(format!("placement {}: {}", one.name, one.problem.as_ref()?)))
        .collect();
    if wrong.is_empty() {
        new(true, reasons::AS_EXPECTED, String::new())
    } else {
        new(false, reasons::NOT_AS_EXPECTED, wrong.join("; "))
    }
}

fn rolled_out(placed: &[Placed]) -> NewCondition {
    let succeeded: usize = placed.iter().map(|one| one.rollout.succeeded).sum();
    let clusters: usize = placed.iter().map(|one| one.clusters).sum();
    let whole = placed
        .iter()
        .all(|one| one.decided && one.announced == 0 && one.problem.is_none());
    let complete = whole && clusters > 0 && succeeded == clusters;
    let mut message = vec![format!("{succeeded} of {clusters} clusters are done")];
    for one in placed {
        if one.rollout.breach {
            message.push(format!(
                "placement {} stopped: more clusters failed than may",
                one.name
            ));
        }
        let late = names(one.rollout.timed_out.iter().map(String::as_str));
        if !late.is_empty() {
            message.push(format!("took too long: {late}"));
        }
    }
    let message = message.join("; ");
    let reason = if complete {
        reasons::COMPLETE
    } else {
        reasons::PROGRESSING
    };
    NewCondition::new(conditions::PLACEMENT_ROLLED_OUT, complete, reason, message)
}

fn applied(placed: &[Placed], sum: &ManifestWorkReplicaSetSummary, refused: bool) -> NewCondition {
    let new = |status: bool, reason: &str, message: String| {
        NewCondition::new(conditions::MANIFESTWORK_APPLIED, status, reason, message)
    };
    let mut message = vec![format!(
        "{} of {} clusters have the template: {} applied, {} available, {} progressing, {} degraded",
        sum.total, sum.desired_total, sum.applied, sum.available, sum.progressing, sum.degraded
    )];
    let closed = placed.iter().flat_map(|one| &one.closed);
    let told = closed.clone().take(NAMES);
    message.extend(told.map(|(cluster, why)| format!("{cluster}: {why}")));
    let more = closed.count().saturating_sub(NAMES);
    if more > 0 {
        message.push(format!("{more} more clusters wait"));
    }
    let message = message.join("; ");
    if refused {
        return new(false, reasons::NOT_AS_EXPECTED, message);
    }
    if sum.desired_total == 0 && sum.total == 0 {
        return new(
            false,
            reasons::PLACEMENT_DECISION_EMPTY,
            "no cluster is decided for".to_owned(),
        );
    }
    if sum.total == sum.desired_total
        && sum.available == sum.total
        && sum.progressing == 0
        && sum.degraded == 0
    {
        return new(true, reasons::AS_EXPECTED, message);
    }
    let wrong = sum.degraded > 0
        || placed
            .iter()
            .any(|one| one.rollout.breach || one.problem.is_some());
    let reason = if wrong {
        reasons::NOT_AS_EXPECTED
    } else {
        reasons::PROCESSING
    };
    new(false, reason, message)
}

/// The first few names, in words.
fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = all.collect();
    let more = all.len().saturating_sub(NAMES);
    all.truncate(NAMES);
    let named = all.join(", ");
    if more > 0 {
        format!("{named} and {more} more")
    } else {
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(name: &str, clusters: usize, counts: [i64; 5], change: impl FnOnce(&mut Placed)) -> Placed {
        let [total, applied, available, progressing, degraded] = counts;
        let mut one = Placed {
            name: name.to_owned(),
            decided: true,
            groups: 1,
            clusters,
            summary: ManifestWorkReplicaSetSummary {
                total,
                applied,
                available,
                progressing,
                degraded,
                updated: total,
                desired_total: i64::try_from(clusters).unwrap(),
            },
            ..Placed::default()
        };
        change(&mut one);
        one
    }

    /// The three conditions as reasons, where they hold with a `+`.
    fn reasons_of(placed: &[Placed], refused: bool) -> String {
        let status = status(
            &ManifestWorkReplicaSetStatus::default(),
            Some(3),
            placed,
            refused,
            Timestamp::UNIX_EPOCH,
        );
        let all: Vec<String> = status
            .conditions
            .iter()
            .map(|one| {
                assert_eq!(one.observed_generation, Some(3));
                format!("{}{}", if one.status == "True" { "+" } else { "" }, one.reason)
            })
            .collect();
        all.join(" ")
    }

    #[test]
    fn conditions_follow_from_what_the_works_say() {
        let plain = |_: &mut Placed| ();
        for (placed, refused, wanted) in [
            (
                vec![placed("p", 2, [2, 2, 2, 0, 0], |one| one.rollout.succeeded = 2)],
                false,
                "+AsExpected +Complete +AsExpected",
            ),
            (
                vec![placed("p", 2, [2, 2, 2, 0, 0], plain)],
                false,
                "+AsExpected Progressing +AsExpected",
            ),
            // More are on their way than the decisions have yet.
            (
                vec![placed("p", 2, [2, 2, 2, 0, 0], |one| {
                    one.rollout.succeeded = 2;
                    one.announced = 1;
                })],
                false,
                "+AsExpected Progressing +AsExpected",
            ),
            (
                vec![placed("p", 2, [2, 2, 1, 0, 0], plain)],
                false,
                "+AsExpected Progressing Processing",
            ),
            (
                vec![placed("p", 3, [2, 2, 2, 0, 0], plain)],
                false,
                "+AsExpected Progressing Processing",
            ),
            (
                vec![placed("p", 2, [2, 2, 2, 1, 0], plain)],
                false,
                "+AsExpected Progressing Processing",
            ),
            (
                vec![placed("p", 2, [2, 2, 2, 1, 1], plain)],
                false,
                "+AsExpected Progressing NotAsExpected",
            ),
            (
                vec![placed("p", 2, [1, 1, 1, 0, 0], |one| one.rollout.breach = true)],
                false,
                "+AsExpected Progressing NotAsExpected",
            ),
            (
                vec![placed("p", 2, [0; 5], plain)],
                true,
                "+AsExpected Progressing NotAsExpected",
            ),
            (
                vec![placed("p", 2, [0; 5], |one| one.problem = Some("no".to_owned()))],
                false,
                "NotAsExpected Progressing NotAsExpected",
            ),
            (
                vec![placed("p", 0, [0; 5], plain)],
                false,
                "PlacementDecisionEmpty Progressing PlacementDecisionEmpty",
            ),
            (
                vec![
                    placed("p", 0, [0; 5], plain),
                    placed("q", 1, [1, 1, 1, 0, 0], |one| one.rollout.succeeded = 1),
                ],
                false,
                "+AsExpected +Complete +AsExpected",
            ),
            (
                vec![
                    placed("p", 0, [0; 5], |one| one.decided = false),
                    placed("q", 1, [1, 1, 1, 0, 0], |one| one.rollout.succeeded = 1),
                ],
                false,
                "PlacementDecisionNotFound Progressing +AsExpected",
            ),
            (
                vec![placed("p", 0, [0; 5], |one| one.decided = false)],
                false,
                "PlacementDecisionNotFound Progressing PlacementDecisionEmpty",
            ),
        ] {
            assert_eq!(reasons_of(&placed, refused), wanted, "{placed:?}");
        }
    }

    #[test]
    fn counts_are_told_for_each_placement_and_together() {
        let all = [
            placed("p", 4, [3, 2, 1, 1, 1], |one| one.groups = 2),
            placed("q", 1, [1, 1, 1, 0, 0], |_| ()),
        ];
        let told = status(
            &ManifestWorkReplicaSetStatus::default(),
            None,
            &all,
            false,
            Timestamp::UNIX_EPOCH,
        );
        let sum = told.summary;
        assert_eq!(
            (
                sum.total,
                sum.applied,
                sum.available,
                sum.progressing,
                sum.degraded
            ),
            (4, 3, 2, 1, 1)
        );
        assert_eq!((sum.desired_total, sum.updated), (5, 4));
        let first = &told.placements_summary[0];
        assert_eq!(first.available_decision_groups, "2 (3 / 4 clusters applied)");
        assert_eq!((first.name.as_str(), first.summary.applied), ("p", 2));
        // Told again, nothing changes.
        let again = status(&told, None, &all, false, Timestamp::from_second(99).unwrap());
        assert_eq!(again, told);
    }

    #[test]
    fn messages_name_a_few_and_count_the_rest() {
        let late = |count: usize| (1..=count).map(|n| format!("c{n}")).collect::<Vec<_>>();
        let one = placed("p", 9, [0; 5], |one| {
            one.rollout.timed_out = late(7);
            one.rollout.breach = true;
            one.closed = late(6)
                .into_iter()
                .map(|cluster| (cluster, "no namespace".to_owned()))
                .collect();
        });
        let told = status(
            &ManifestWorkReplicaSetStatus::default(),
            None,
            &[one],
            false,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            told.conditions[1].message,
            "0 of 9 clusters are done; placement p stopped: more clusters failed than may; took too long: c1, c2, c3, c4, \
             c5 and 2 more"
        );
        assert!(
            told.conditions[2]
                .message
                .ends_with("c5: no namespace; 1 more clusters wait"),
            "{}",
            told.conditions[2].message
        );
    }
}
