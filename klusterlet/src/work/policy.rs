//! What a work's annotations choose: what becomes of changes on the cluster, and of objects that were there before.

use super::drift::FIELD_MANAGER;
use jiff::{SignedDuration, Timestamp};
use muster_crds::constants::{annotations, labels};
use serde_json::Value;
use std::collections::BTreeMap;

/// What becomes of changes on the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Drift {
    /// They are taken back.
    #[default]
    Enforce,
    /// They are told in the status and stay.
    Report,
    /// They stay.
    Once,
}

/// What becomes of objects that exist and are not ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TakeOver {
    /// They are made what the manifest says.
    #[default]
    Always,
    /// They are taken over where nothing of them would change.
    IfNoDiff,
    /// They are left alone.
    Never,
}

/// Both choices of a work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// Changes on the cluster.
    pub drift: Drift,
    /// Objects of others.
    pub take_over: TakeOver,
}

impl Policy {
    /// Reads a work's annotations. The error names what is wrong and what would be right.
    pub fn of(given: Option<&BTreeMap<String, String>>) -> Result<Self, String> {
        let value = |key: &str| given.and_then(|g| g.get(key)).map(String::as_str);
        let wrong = |key: &str, found: &str, allowed: &str| {
            Err(format!(
                "the annotation {key} is {found:?}, it must be one of {allowed}"
            ))
        };
        let drift = match value(annotations::DRIFT) {
            None | Some("Enforce") => Drift::Enforce,
            Some("Report") => Drift::Report,
            Some("Once") => Drift::Once,
            Some(other) => return wrong(annotations::DRIFT, other, "Enforce, Report, Once"),
        };
        let take_over = match value(annotations::TAKE_OVER) {
            None | Some("Always") => TakeOver::Always,
            Some("IfNoDiff") => TakeOver::IfNoDiff,
            Some("Never") => TakeOver::Never,
            Some(other) => return wrong(annotations::TAKE_OVER, other, "Always, IfNoDiff, Never"),
        };
        Ok(Self { drift, take_over })
    }
}

/// Whether an object carries our label, by which its kind's watch sees it.
pub fn is_labelled(live: &Value) -> bool {
    live["metadata"]["labels"][labels::APPLIED] == "true"
}

/// A server may take so long from a request's beginning to the object's, in which webhooks are asked.
const MAKING: SignedDuration = SignedDuration::from_secs(60);

/// Whether an agent of works wrote the object itself. Somebody's copy of one has its label and owners too, and is none of ours;
/// it may even have kept its field managers, which are older than it then.
pub fn is_our_doing(live: &Value) -> bool {
    let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    let made = time(&live["metadata"]["creationTimestamp"]);
    let managers = live["metadata"]["managedFields"].as_array();
    managers.into_iter().flatten().any(|entry| {
        let manager = entry["manager"].as_str().unwrap_or_default();
        let older = match (made, time(&entry["time"])) {
            (Some(made), Some(wrote)) => made.duration_since(wrote) > MAKING,
            _ => false,
        };
        !older && (manager.starts_with(FIELD_MANAGER) || manager == OCMS_UPDATES)
    })
}

/// By whom OCM's agent updates.
const OCMS_UPDATES: &str = "work";

/// Whether a work wrote an object: it carries our label, or a work owns it (OCM's agent does not label), and it is no copy.
pub fn is_ours(live: &Value) -> bool {
    let owned = |o: &Value| {
        o["kind"] == "AppliedManifestWork"
            && o["apiVersion"]
                .as_str()
                .is_some_and(|v| v.starts_with("work.open-cluster-management.io/"))
    };
    let owners = live["metadata"]["ownerReferences"].as_array();
    is_our_doing(live) && (is_labelled(live) || owners.is_some_and(|o| o.iter().any(owned)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn annotations_choose() {
        let with =
            |key: &str, value: &str| Policy::of(Some(&BTreeMap::from([(key.to_owned(), value.to_owned())])));
        assert_eq!(Policy::of(None), Ok(Policy::default()));
        assert_eq!(with(annotations::DRIFT, "Report").unwrap().drift, Drift::Report);
        assert_eq!(with(annotations::DRIFT, "Once").unwrap().drift, Drift::Once);
        assert_eq!(
            with(annotations::TAKE_OVER, "Never").unwrap().take_over,
            TakeOver::Never
        );
        assert_eq!(
            with(annotations::TAKE_OVER, "IfNoDiff").unwrap().take_over,
            TakeOver::IfNoDiff
        );
        for key in [annotations::DRIFT, annotations::TAKE_OVER] {
            let problem = with(key, "sometimes").unwrap_err();
            assert!(
                problem.contains(key) && problem.contains("sometimes"),
                "{problem}"
            );
        }
    }

    #[test]
    fn ours_is_what_an_agent_wrote_and_labelled_or_owns() {
        let owner =
            json!([{"apiVersion": "work.open-cluster-management.io/v1", "kind": "AppliedManifestWork"}]);
        let made = "2026-01-01T00:10:00Z";
        let by = |manager: &str, time: &str| json!([{"manager": "kubectl", "time": made}, {"manager": manager, "time": time}]);
        let ours = by("work-agent", made);
        let label = json!({(labels::APPLIED): "true"});
        let cases = [
            (json!({"managedFields": ours}), false),
            (json!({"labels": label, "managedFields": ours}), true),
            (json!({"ownerReferences": owner, "managedFields": ours}), true),
            (
                json!({"ownerReferences": owner, "managedFields": by("work", made)}),
                true,
            ),
            (
                json!({"labels": label, "managedFields": by("work-agent-mine", "2026-01-01T00:09:59Z")}),
                true,
            ),
            (
                json!({"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet"}], "managedFields": ours}),
                false,
            ),
            // Copies: made by somebody else, or with all that the original had.
            (json!({"labels": label, "ownerReferences": owner}), false),
            (
                json!({"labels": label, "managedFields": by("kubectl-create", made)}),
                false,
            ),
            (
                json!({"labels": label, "managedFields": by("work-agent", "2026-01-01T00:00:00Z")}),
                false,
            ),
            (
                json!({"labels": label, "managedFields": by("workshop", made)}),
                false,
            ),
        ];
        for (mut metadata, expected) in cases {
            metadata["creationTimestamp"] = json!(made);
            assert_eq!(is_ours(&json!({"metadata": metadata})), expected, "{metadata}");
        }
    }
}
