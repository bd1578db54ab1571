//! Pods that are being deleted and are on a node that is not there: no kubelet will end them, so that they are removed after a
//! while. Pods that nobody asked to delete stay as they are.

use super::plan::{Action, Plan};
use crate::object;
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// Nodes, as a store key.
pub const NODES: &str = "/nodes";
/// How long a node may yet appear.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a pod that nothing holds any more may yet be there.
const GOING: Duration = Duration::from_secs(5);

/// The node that has to end a pod, where its deletion waits for that.
pub fn awaited(pod: &Value) -> Option<&str> {
    let grace = pod["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0);
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    (object::is_deleting(pod) && grace > 0 && !node.is_empty()).then_some(node)
}

/// What becomes of a pod that is being deleted.
pub fn decide(pod: &Value, node_is_there: bool, now: Timestamp) -> Plan {
    if !object::is_deleting(pod) {
        return Plan::default();
    }
    let grace = pod["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0);
    let patience = if grace == 0 && object::finalizers(pod).next().is_none() {
        // It is about to go: only a server that ended in between leaves it.
        GOING
    } else if awaited(pod).is_some() && !node_is_there {
        PATIENCE
    } else {
        return Plan::default();
    };
    let end = object::meta(pod, "deletionTimestamp").parse().unwrap_or(now);
    let since = Timestamp::from_second(end.as_second().saturating_sub(grace)).unwrap_or(now);
    let waited = now.duration_since(since).try_into().unwrap_or(Duration::ZERO);
    match patience.checked_sub(waited) {
        Some(left) if !left.is_zero() => Plan::later(left),
        _ => Plan::of([Action::delete_ended(pod)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_of_no_node_goes_after_a_while() {
        let at = |s: &str| s.parse::<Timestamp>().unwrap();
        let pod = json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:30Z",
            "deletionGracePeriodSeconds": 30}, "spec": {"nodeName": "n"}});
        assert_eq!(awaited(&pod), Some("n"));
        assert_eq!(
            decide(&pod, false, at("2026-01-01T00:00:10Z")),
            Plan::later(Duration::from_secs(30))
        );
        let plan = decide(&pod, false, at("2026-01-01T00:00:40Z"));
        assert!(matches!(
            plan.actions.as_slice(),
            [Action::Delete { grace: Some(0), .. }]
        ));
        let stays = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}});
        assert_eq!(decide(&stays, false, at("2026-01-01T00:00:40Z")), Plan::default());
        assert_eq!(
            decide(&pod, true, at("2026-01-01T00:00:40Z")),
            Plan::default(),
            "its node ends it"
        );
        let ended = json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:30Z",
            "deletionGracePeriodSeconds": 0}, "spec": {"nodeName": "n"}});
        assert_eq!(
            decide(&ended, true, at("2026-01-01T00:00:31Z")),
            Plan::later(Duration::from_secs(4))
        );
        let plan = decide(&ended, true, at("2026-01-01T00:00:40Z"));
        assert!(matches!(
            plan.actions.as_slice(),
            [Action::Delete { grace: Some(0), .. }]
        ));
    }
}
