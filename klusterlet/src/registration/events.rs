//! Events at the hub about the cluster's own availability, as the agent sees it (wire §2.7, §9.3).

use crate::work::objects;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use muster_crds::cluster::v1::{ManagedCluster, ManagedClusterStatus};
use muster_crds::conditions::{is_false, is_true};
use muster_crds::constants::conditions::CLUSTER_AVAILABLE;
use serde_json::{Value, json};

const REPORTER: &str = "klusterlet-agent";

/// Whether availability changed from one status to the next, and to what.
pub fn transition(old: &ManagedClusterStatus, new: &ManagedClusterStatus) -> Option<bool> {
    let type_ = CLUSTER_AVAILABLE;
    if is_true(&new.conditions, type_) && !is_true(&old.conditions, type_) {
        Some(true)
    } else if is_false(&new.conditions, type_) && !is_false(&old.conditions, type_) {
        Some(false)
    } else {
        None
    }
}

/// The event of a transition.
pub fn event(cluster: &ManagedCluster, agent: &str, available: bool, now: Timestamp) -> Value {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let (reason, kind, words) = if available {
        ("Available", "Normal", "is available")
    } else {
        ("Unavailable", "Warning", "is not available")
    };
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": format!("{name}.{:x}", now.as_nanosecond()), "namespace": name},
        "eventTime": MicroTime(now),
        "reportingController": REPORTER,
        "reportingInstance": format!("{REPORTER}-{agent}"),
        "action": reason,
        "reason": reason,
        "type": kind,
        "note": format!("The managed cluster {name} {words}, its agent says"),
        // Not its real namespace, it has none; but an event must be in that of what it is about.
        "regarding": {
            "apiVersion": "cluster.open-cluster-management.io/v1",
            "kind": "ManagedCluster",
            "name": name,
            "namespace": name,
            "uid": cluster.metadata.uid,
        },
    })
}

/// Tells the hub. An event that can not be written is not worth a second try.
pub async fn send(hub: &Client, event: &Value) {
    let namespace = event["metadata"]["namespace"].as_str().unwrap_or_default();
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    if let Err(error) = objects::create(hub, &path, event).await {
        tracing::debug!(%error, "the event was not written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_crds::conditions::{NewCondition, Status, set_condition};

    fn status(available: Option<Status>) -> ManagedClusterStatus {
        let mut status = ManagedClusterStatus::default();
        if let Some(available) = available {
            let condition = NewCondition::new(CLUSTER_AVAILABLE, available, "R", "");
            set_condition(&mut status.conditions, condition, Timestamp::UNIX_EPOCH);
        }
        status
    }

    #[test]
    fn only_transitions_are_told() {
        use Status::{False, True, Unknown};
        for (old, new, expected) in [
            (None, Some(True), Some(true)),
            (Some(Unknown), Some(True), Some(true)),
            (Some(True), Some(True), None),
            (Some(True), Some(False), Some(false)),
            (Some(False), Some(False), None),
            (Some(False), Some(True), Some(true)),
            (None, None, None),
        ] {
            assert_eq!(
                transition(&status(old), &status(new)),
                expected,
                "{old:?} {new:?}"
            );
        }
    }
}
