//! A PersistentVolumeClaim that a Pod uses, and a PersistentVolume that is bound, go when they are used no more: they carry a
//! finalizer from the start, and it is taken off here.

use super::plan::{Action, Plan};
use crate::object;
use crate::registry::usage;
use serde_json::Value;

/// On every claim.
pub const CLAIM: &str = "kubernetes.io/pvc-protection";
/// On every volume.
pub const VOLUME: &str = "kubernetes.io/pv-protection";

/// Whether a Pod that runs, or is about to, has the claim.
pub fn uses(pod: &Value, claim: &str) -> bool {
    let scheduled = pod["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
    let volumes = pod["spec"]["volumes"].as_array();
    scheduled
        && !usage::has_ended(pod)
        && volumes.into_iter().flatten().any(|volume| {
            // A generic ephemeral volume's claim is named after the Pod and the volume (KEP-1698).
            let ephemeral = || {
                let name = volume["name"].as_str().unwrap_or_default();
                format!("{}-{name}", object::name(pod))
            };
            volume["persistentVolumeClaim"]["claimName"] == claim
                || (!volume["ephemeral"].is_null() && ephemeral() == claim)
        })
}

/// Whether a volume belongs to a claim.
pub fn is_bound(volume: &Value) -> bool {
    volume["status"]["phase"] == "Bound"
}

/// Lets go of what is being deleted and not used.
pub fn decide(resource: &'static str, finalizer: &str, found: &Value, used: bool) -> Plan {
    let list = found["metadata"]["finalizers"].as_array();
    let held = list.is_some_and(|l| l.iter().any(|f| f == finalizer));
    if used || !held || !object::is_deleting(found) {
        return Plan::default();
    }
    let mut free = found.clone();
    if let Some(list) = free["metadata"]["finalizers"].as_array_mut() {
        list.retain(|f| f != finalizer);
    }
    Plan::of([Action::update(resource, free)])
}

#[cfg(test)]
mod tests {
    use super::super::kinds;
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_use_claims_while_they_run() {
        let pod = |node: &str, phase: &str, volume: Value| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "volumes": [volume]}, "status": {"phase": phase}});
        let claim = || json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
        let ephemeral = || json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {}}});
        for (pod, name, expected) in [
            (pod("n", "Running", claim()), "c", true),
            (pod("n", "Running", claim()), "other", false),
            (pod("", "Pending", claim()), "c", false),
            (pod("n", "Succeeded", claim()), "c", false),
            (pod("n", "Running", ephemeral()), "p-v", true),
            (pod("n", "Running", ephemeral()), "v", false),
        ] {
            assert_eq!(uses(&pod, name), expected, "{pod} {name}");
        }
    }

    #[test]
    fn what_is_used_or_not_deleted_is_held() {
        let claim = |deleting: bool, finalizers: Value| {
            let mut claim = json!({"metadata": {"name": "c", "namespace": "n", "finalizers": finalizers}});
            if deleting {
                claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            claim
        };
        let decided = |claim: &Value, used| decide(kinds::CLAIMS, CLAIM, claim, used).actions;
        for (claim, used) in [
            (claim(false, json!([CLAIM])), false),
            (claim(true, json!([CLAIM])), true),
            (claim(true, json!(["other"])), false),
        ] {
            assert!(decided(&claim, used).is_empty(), "{claim}");
        }
        let free = decided(&claim(true, json!(["other", CLAIM])), false);
        assert_eq!(
            free,
            [Action::update(kinds::CLAIMS, claim(true, json!(["other"])))]
        );
    }
}
