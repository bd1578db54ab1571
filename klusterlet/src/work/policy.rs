//! What a work's annotations choose: what becomes of changes on the cluster, and of objects that were there before.

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

/// Whether a work already has to do with an object: it carries our label, or a work owns it (OCM's agent does not label).
pub fn is_ours(live: &Value) -> bool {
    let owned = |o: &Value| {
        o["kind"] == "AppliedManifestWork"
            && o["apiVersion"]
                .as_str()
                .is_some_and(|v| v.starts_with("work.open-cluster-management.io/"))
    };
    is_labelled(live)
        || live["metadata"]["ownerReferences"]
            .as_array()
            .is_some_and(|o| o.iter().any(owned))
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
    fn ours_is_what_is_labelled_or_owned_by_a_work() {
        let owner =
            json!([{"apiVersion": "work.open-cluster-management.io/v1", "kind": "AppliedManifestWork"}]);
        let cases = [
            (json!({}), false),
            (json!({"labels": {(labels::APPLIED): "true"}}), true),
            (json!({"ownerReferences": owner}), true),
            (
                json!({"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet"}]}),
                false,
            ),
        ];
        for (metadata, expected) in cases {
            assert_eq!(is_ours(&json!({"metadata": metadata})), expected, "{metadata}");
        }
    }
}
