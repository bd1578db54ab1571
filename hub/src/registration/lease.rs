//! Whether a cluster is still heard of, and whether its clock is the hub's (ocm-wire §2.6).

use jiff::{SignedDuration, Timestamp};
use muster_crds::{
    conditions::{NewCondition, Status, find, is_false},
    constants::{conditions, names, reasons},
};
use serde_json::{Value, json};

use super::{
    plan::Observed,
    rbac::{Desired, Kind},
};

/// Reason of the event that tells of a cluster nobody hears of.
pub const EVENT_AVAILABLE_UNKNOWN: &str = "AvailableUnknown";

/// How long a cluster may be silent.
pub fn grace(lease_seconds: Option<i32>, factor: f64) -> SignedDuration {
    let seconds = lease_seconds
        .filter(|seconds| *seconds > 0)
        .map_or(names::DEFAULT_LEASE_DURATION.as_secs_f64(), f64::from);
    SignedDuration::try_from_secs_f64(seconds * factor).unwrap_or(SignedDuration::MAX)
}

/// What the lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing was heard for longer than the cluster may be silent.
    Silent,
    /// It was heard of, and will be silent too long at that time.
    Until(Timestamp),
    /// There is no lease, so nothing is known.
    NoLease,
}

/// What the cluster's lease says at `now`. A renewal that was seen counts by the hub's clock, whatever the agent's says.
/// Of a lease that was only found, the agent's word counts as far as its clock is not known to be wrong; where it is
/// older than the cluster, the cluster's age counts: it is a former one's of that name. Where the lease was given another
/// duration, the silence counts from then at the earliest: the agent renewed by the former one.
pub fn heard(observed: &Observed, now: Timestamp, factor: f64) -> Heard {
    let cluster = &observed.cluster;
    let Some(lease) = &observed.lease else {
        return if cluster.deleting {
            Heard::Silent
        } else {
            Heard::NoLease
        };
    };
    let skewed = is_false(&cluster.conditions, conditions::CLOCK_SYNCED) && lease.offset.is_none();
    let told = match (lease.renewed, lease.found) {
        (_, Some(found)) if skewed => Some(found),
        // Nobody renewed it after it was found. A clock that is a little behind is known from renewals that were seen.
        (Some(renewed), Some(found)) => {
            let renewed = renewed.checked_add(lease.lag).unwrap_or(found);
            Some(renewed.min(found))
        }
        (renewed, _) => renewed,
    };
    let Some(last) = lease.seen.or_else(|| told.max(cluster.created)) else {
        return Heard::NoLease;
    };
    let last = [observed.room_since, cluster.lease_changed]
        .into_iter()
        .flatten()
        .fold(last, Timestamp::max);
    match last.checked_add(grace(cluster.lease_seconds, factor)) {
        Ok(expiry) if expiry > now => Heard::Until(expiry),
        Ok(_) => Heard::Silent,
        Err(_) => Heard::Until(Timestamp::MAX),
    }
}

/// The condition of a cluster nobody hears of, unless it has it.
pub fn unknown(observed: &Observed) -> Option<NewCondition> {
    let condition = NewCondition::new(
        conditions::CLUSTER_AVAILABLE,
        Status::Unknown,
        reasons::LEASE_UPDATE_STOPPED,
        "Registration agent stopped updating its lease.",
    );
    let current = find(&observed.cluster.conditions, conditions::CLUSTER_AVAILABLE);
    let same = current.is_some_and(|current| {
        current.status == condition.status.as_str()
            && current.reason == condition.reason
            && current.message == condition.message
    });
    (!same).then_some(condition)
}

/// What the last renewal says of the cluster's clock; nothing when it was not seen to happen and looks late, for then
/// it may just be old.
pub fn clock(observed: &Observed, factor: f64) -> Option<NewCondition> {
    let cluster = &observed.cluster;
    let lease = observed.lease.as_ref().filter(|_| !cluster.skip_clock)?;
    let (renewed, seen) = (lease.renewed?, lease.seen?);
    // Positive: the agent's clock is ahead.
    let ahead = match lease.offset {
        Some(offset) => SignedDuration::from_secs(offset.saturating_neg()),
        None => renewed.duration_since(seen),
    };
    Some(if ahead.abs() < grace(cluster.lease_seconds, factor) {
        NewCondition::new(
            conditions::CLOCK_SYNCED,
            Status::True,
            reasons::CLOCK_SYNCED,
            "The clock of the managed cluster is synced with the hub.",
        )
    } else {
        let known = find(&cluster.conditions, conditions::CLOCK_SYNCED);
        NewCondition::new(
            conditions::CLOCK_SYNCED,
            Status::False,
            reasons::CLOCK_OUT_OF_SYNC,
            skew(ahead, known.map(|known| known.message.as_str())),
        )
    })
}

/// The message about two clocks, to the minute; `known` stays as long as it is not wrong by more than a minute: that
/// one answer was a little later than another is not worth a write.
fn skew(ahead: SignedDuration, known: Option<&str>) -> String {
    let message = |seconds: i64| {
        let (direction, seconds) = if seconds < 0 {
            ("behind", -seconds)
        } else {
            ("ahead of", seconds)
        };
        let minutes = (seconds + 30) / 60;
        let amount = match (minutes / 60, minutes % 60) {
            // Very short leases make little matter.
            (0, 0) => format!("{seconds} s"),
            (0, minutes) => format!("{minutes} min"),
            (hours, minutes) => format!("{hours} h {minutes} min"),
        };
        format!(
            "The clock of hub and agent is out of sync. This may cause the Unknown status and affect agent \
             functionalities. The agent's clock is {amount} {direction} the hub's."
        )
    };
    let seconds = ahead.as_secs();
    [0, -45, 45]
        .into_iter()
        .map(|off| message(seconds.saturating_add(off)))
        .find(|message| Some(message.as_str()) == known)
        .unwrap_or_else(|| message(seconds))
}

/// A cluster's first lease: only the hub makes it, the agent renews it.
pub fn first(cluster: &str, lease_seconds: Option<i32>, labels: &Value, now: Timestamp) -> Desired {
    let seconds = lease_seconds.filter(|seconds| *seconds > 0);
    let body = json!({
        "metadata": {"name": names::CLUSTER_LEASE, "namespace": cluster, "labels": labels},
        "spec": {
            "holderIdentity": names::CLUSTER_LEASE,
            "leaseDurationSeconds": seconds.map_or(names::DEFAULT_LEASE_DURATION.as_secs(), |seconds| seconds.unsigned_abs().into()),
            "renewTime": format!("{now:.6}"),
        },
    });
    Desired {
        kind: Kind::Lease,
        namespace: cluster.to_owned(),
        name: names::CLUSTER_LEASE.to_owned(),
        body,
        content: 0,
        role_ref: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::registration::view::{ClusterView, LeaseView};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn observed(lease: Option<LeaseView>) -> Observed {
        Observed {
            cluster: Arc::new(ClusterView {
                created: Some(at(1000)),
                lease_seconds: Some(60),
                ..ClusterView::default()
            }),
            lease: lease.map(Arc::new),
            ..Observed::default()
        }
    }

    #[test]
    fn a_cluster_is_silent_exactly_at_expiry() {
        let lease = |renewed| {
            Some(LeaseView {
                renewed: Some(at(renewed)),
                ..LeaseView::default()
            })
        };
        for (renewed, now, factor, wanted) in [
            (2000, 2000, 5.0, Heard::Until(at(2300))),
            (2000, 2299, 5.0, Heard::Until(at(2300))),
            (2000, 2300, 5.0, Heard::Silent),
            (2000, 2300, 6.0, Heard::Until(at(2360))),
            (2000, 2150, 2.5, Heard::Silent),
            // The lease of a former cluster of that name.
            (10, 1001, 5.0, Heard::Until(at(1300))),
        ] {
            assert_eq!(
                heard(&observed(lease(renewed)), at(now), factor),
                wanted,
                "{renewed} at {now}"
            );
        }
        let renewal = LeaseView {
            renewed: Some(at(10)),
            seen: Some(at(1001)),
            found: Some(at(1000)),
            offset: None,
            lag: SignedDuration::ZERO,
        };
        // Whatever the agent's clock says, it was heard of now.
        assert_eq!(
            heard(&observed(Some(renewal)), at(1001), 5.0),
            Heard::Until(at(1301))
        );
        assert_eq!(heard(&observed(None), at(5000), 5.0), Heard::NoLease);
        let mut gone = observed(None);
        gone.cluster = Arc::new(ClusterView {
            deleting: true,
            ..ClusterView::default()
        });
        assert_eq!(heard(&gone, at(5000), 5.0), Heard::Silent);
    }

    #[test]
    fn no_cluster_is_silent_because_the_hub_had_no_room_for_its_lease() {
        let renewal = LeaseView {
            renewed: Some(at(2000)),
            seen: Some(at(2000)),
            found: Some(at(1000)),
            ..LeaseView::default()
        };
        let mut observed = observed(Some(renewal));
        assert_eq!(heard(&observed, at(9000), 2.5), Heard::Silent);
        observed.room_since = Some(at(8990));
        assert_eq!(heard(&observed, at(9000), 2.5), Heard::Until(at(9140)));
        assert_eq!(heard(&observed, at(9140), 2.5), Heard::Silent);
    }

    #[test]
    fn no_cluster_is_silent_because_its_lease_was_made_shorter() {
        let view = |seconds: i32, uid: &str| ClusterView {
            uid: uid.to_owned(),
            created: Some(at(1000)),
            lease_seconds: Some(seconds),
            ..ClusterView::default()
        };
        let known = view(60, "u").after(None, at(1000));
        assert_eq!(known.lease_changed, None);
        for (what, seconds, uid, renewed, now, wanted) in [
            ("as before", 60, "u", 2000, 2050, Heard::Until(at(2150))),
            ("shorter", 5, "u", 2000, 2050, Heard::Until(at(2062))),
            ("renewed since", 5, "u", 2055, 2056, Heard::Until(at(2067))),
            ("longer", 600, "u", 2000, 2050, Heard::Until(at(3550))),
            // What was known is of another cluster of that name.
            ("another", 5, "v", 2000, 2050, Heard::Silent),
        ] {
            let mut observed = observed(Some(LeaseView {
                renewed: Some(at(renewed)),
                seen: Some(at(renewed)),
                found: Some(at(1000)),
                ..LeaseView::default()
            }));
            let changed = view(seconds, uid).after(Some(&known), at(2050));
            observed.cluster = Arc::new(changed.clone().after(Some(&changed), at(2051)));
            let rounded = match heard(&observed, at(now), 2.5) {
                Heard::Until(time) => Heard::Until(at(time.as_second())),
                other => other,
            };
            assert_eq!(rounded, wanted, "{what}");
            if seconds == 5 && uid == "u" && renewed == 2000 {
                assert_eq!(heard(&observed, at(2063), 2.5), Heard::Silent, "{what}");
            }
        }
    }

    #[test]
    fn a_lease_that_was_found_counts_by_what_is_known_of_its_clock() {
        use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
        let until = |renewed: i64, skewed: bool| {
            let mut observed = observed(Some(LeaseView {
                renewed: Some(at(renewed)),
                found: Some(at(5000)),
                ..LeaseView::default()
            }));
            if skewed {
                Arc::make_mut(&mut observed.cluster).conditions.push(Condition {
                    type_: conditions::CLOCK_SYNCED.to_owned(),
                    status: "False".to_owned(),
                    reason: "R".to_owned(),
                    message: String::new(),
                    observed_generation: None,
                    last_transition_time: Time(at(0)),
                });
            }
            heard(&observed, at(5000), 2.5)
        };
        assert_eq!(until(4990, false), Heard::Until(at(5140)));
        assert_eq!(until(4000, false), Heard::Silent, "lost while the hub was away");
        assert_eq!(
            until(9000, false),
            Heard::Until(at(5150)),
            "a clock ahead hides nothing"
        );
        assert_eq!(
            until(1200, true),
            Heard::Until(at(5150)),
            "a clock behind is no silence"
        );
    }

    /// The hub's watch was interrupted: what it finds afterwards was renewed a moment ago.
    #[test]
    fn no_cluster_is_silent_because_the_hub_did_not_see_its_last_renewal() {
        let lease = |renewed: i64, found: i64, lag: i64| {
            Some(LeaseView {
                renewed: Some(at(renewed)),
                found: Some(at(found)),
                lag: SignedDuration::from_secs(lag),
                ..LeaseView::default()
            })
        };
        for (what, lease, wanted) in [
            (
                "as the clocks agree",
                lease(8990, 9000, 0),
                Heard::Until(at(9140)),
            ),
            // 100 s behind, renewed 55 s ago.
            (
                "a clock a little behind",
                lease(8845, 9000, 100),
                Heard::Until(at(9095)),
            ),
            ("a clock ahead", lease(9100, 9000, 0), Heard::Until(at(9150))),
            ("lost before that", lease(8800, 9000, 10), Heard::Silent),
        ] {
            assert_eq!(heard(&observed(lease), at(9000), 2.5), wanted, "{what}");
        }
    }

    #[test]
    fn the_skew_is_told_and_does_not_flicker() {
        for (seconds, wanted) in [
            (300, "is 5 min ahead of the hub's"),
            (-7200, "is 2 h 0 min behind the hub's"),
            (20, "is 20 s ahead of the hub's"),
        ] {
            let message = skew(SignedDuration::from_secs(seconds), None);
            assert!(message.ends_with(&format!("{wanted}.")), "{message}");
        }
        let first = skew(SignedDuration::from_secs(329), None);
        assert_eq!(skew(SignedDuration::from_secs(331), Some(&first)), first);
        assert_ne!(skew(SignedDuration::from_secs(420), Some(&first)), first);
    }

    #[test]
    fn zero_lease_seconds_mean_the_default() {
        assert_eq!(grace(Some(0), 5.0), SignedDuration::from_secs(300));
        assert_eq!(grace(None, 5.0), SignedDuration::from_secs(300));
        assert_eq!(grace(Some(10), 1.5), SignedDuration::from_secs(15));
    }

    #[test]
    fn only_a_renewal_that_was_seen_tells_of_the_clock() {
        let status = |renewed: i64, seen: Option<i64>| {
            let lease = LeaseView {
                renewed: Some(at(renewed)),
                seen: seen.map(at),
                ..LeaseView::default()
            };
            clock(&observed(Some(lease)), 5.0).map(|condition| condition.status)
        };
        assert_eq!(status(2000, None), None);
        assert_eq!(status(2000, Some(2001)), Some(Status::True));
        assert_eq!(status(2299, Some(2000)), Some(Status::True));
        assert_eq!(status(2300, Some(2000)), Some(Status::False));
        assert_eq!(status(2000, Some(9000)), Some(Status::False));
        let mut skipped = observed(Some(LeaseView {
            renewed: Some(at(1)),
            seen: Some(at(9000)),
            ..LeaseView::default()
        }));
        skipped.cluster = Arc::new(ClusterView {
            skip_clock: true,
            ..ClusterView::default()
        });
        assert_eq!(clock(&skipped, 5.0), None);
    }

    #[test]
    fn an_agent_that_renews_by_the_hubs_time_says_how_far_off_its_own_is() {
        let condition = |offset: i64| {
            let lease = LeaseView {
                renewed: Some(at(2000)),
                seen: Some(at(2001)),
                found: Some(at(1000)),
                offset: Some(offset),
                lag: SignedDuration::ZERO,
            };
            let condition = clock(&observed(Some(lease)), 2.5).unwrap();
            (condition.status, condition.message)
        };
        assert_eq!(condition(100).0, Status::True);
        for (offset, wanted) in [
            (7200, "is 2 h 0 min behind the hub's."),
            (-7200, "is 2 h 0 min ahead of the hub's."),
        ] {
            let (status, message) = condition(offset);
            assert_eq!(status, Status::False);
            assert!(message.ends_with(wanted), "{message}");
        }
        // Its renewals tell of its life whatever the condition says.
        let mut lost = observed(Some(LeaseView {
            renewed: Some(at(1100)),
            found: Some(at(5000)),
            offset: Some(7200),
            ..LeaseView::default()
        }));
        let condition = k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
            type_: conditions::CLOCK_SYNCED.to_owned(),
            status: "False".to_owned(),
            reason: "R".to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)),
        };
        Arc::make_mut(&mut lost.cluster).conditions.push(condition);
        assert_eq!(heard(&lost, at(5000), 2.5), Heard::Silent);
    }
}
