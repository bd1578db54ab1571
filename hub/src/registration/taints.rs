//! Taints that follow availability (ocm-wire §1.1).

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use muster_crds::{
    cluster::v1::{Taint, TaintEffect},
    conditions::{is_false, is_true},
    constants::{conditions::CLUSTER_AVAILABLE, taints},
};

/// The taints the cluster should have, or none when it has them. Other people's taints stay as they are, but all have a
/// time: where a webhook gives new ones theirs (`stamped`), only those that came while nobody looked get it here.
pub fn decide(
    current: &[Taint],
    conditions: &[Condition],
    stamped: bool,
    now: Timestamp,
) -> Option<Vec<Taint>> {
    let wanted = if is_true(conditions, CLUSTER_AVAILABLE) {
        None
    } else if is_false(conditions, CLUSTER_AVAILABLE) {
        Some(taints::UNAVAILABLE)
    } else {
        Some(taints::UNREACHABLE)
    };
    let ours = |taint: &Taint| {
        (taint.key == taints::UNAVAILABLE || taint.key == taints::UNREACHABLE)
            && taint.value.is_empty()
            && taint.effect == TaintEffect::NoSelect
    };
    let mut next: Vec<Taint> = current
        .iter()
        .filter(|taint| !ours(taint) || Some(taint.key.as_str()) == wanted)
        .cloned()
        .map(|taint| Taint {
            time_added: Some(taint.time_added.unwrap_or(Time(now))),
            ..taint
        })
        .collect();
    if let Some(key) = wanted
        && !next.iter().any(ours)
    {
        next.push(Taint {
            key: key.to_owned(),
            value: String::new(),
            effect: TaintEffect::NoSelect,
            time_added: (!stamped).then_some(Time(now)),
        });
    }
    (next != current).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str) -> Taint {
        Taint {
            key: key.to_owned(),
            value: String::new(),
            effect: TaintEffect::NoSelect,
            time_added: Some(Time(Timestamp::UNIX_EPOCH)),
        }
    }

    fn available(status: &str) -> Vec<Condition> {
        vec![Condition {
            type_: CLUSTER_AVAILABLE.to_owned(),
            status: status.to_owned(),
            reason: "R".to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }]
    }

    #[test]
    fn taints_follow_availability_and_leave_others_alone() {
        let (gone, down, other) = (
            taints::UNREACHABLE,
            taints::UNAVAILABLE,
            "example.com/maintenance",
        );
        for (status, current, wanted) in [
            (None, vec![], Some(vec![gone])),
            (None, vec![gone], None),
            (Some("Unknown"), vec![down, other], Some(vec![other, gone])),
            (Some("False"), vec![gone], Some(vec![down])),
            (Some("False"), vec![other, down], None),
            (Some("True"), vec![gone, other, down], Some(vec![other])),
            (Some("True"), vec![other], None),
            (Some("True"), vec![], None),
        ] {
            let conditions = status.map(available).unwrap_or_default();
            let current: Vec<_> = current.into_iter().map(taint).collect();
            let next = decide(&current, &conditions, false, Timestamp::UNIX_EPOCH);
            let keys = next.map(|taints| taints.into_iter().map(|taint| taint.key).collect::<Vec<_>>());
            let wanted = wanted.map(|keys| keys.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(keys, wanted, "{status:?} with {current:?}");
        }
    }

    #[test]
    fn a_taint_of_the_same_key_with_another_effect_is_somebody_elses() {
        let theirs = Taint {
            effect: TaintEffect::PreferNoSelect,
            ..taint(taints::UNREACHABLE)
        };
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(
            decide(std::slice::from_ref(&theirs), &available("True"), false, now),
            None
        );
        assert_eq!(
            decide(&[theirs], &[], false, now).map(|taints| taints.len()),
            Some(2)
        );
    }

    #[test]
    fn every_taint_has_a_time_and_one_writer_of_it() {
        let now = Timestamp::from_second(1_000).unwrap();
        let timeless = Taint {
            time_added: None,
            ..taint("example.com/theirs")
        };
        for stamped in [false, true] {
            let next = decide(std::slice::from_ref(&timeless), &available("False"), stamped, now).unwrap();
            let times: Vec<_> = next.iter().map(|taint| taint.time_added.clone()).collect();
            // A webhook refuses a time on a taint that is new, and fills it in.
            let own = (!stamped).then_some(Time(now));
            assert_eq!(times, [Some(Time(now)), own]);
            let settled = decide(&next[..1], &available("True"), stamped, now);
            assert_eq!(settled, None, "nothing is written twice");
        }
    }
}
