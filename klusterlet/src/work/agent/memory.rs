//! What the agent remembers of a work from one generation to the next.

use crate::work::apply::Retry;
use crate::work::manifest::{self, Identity};
use crate::work::policy::{Drift, Policy};
use crate::work::state::{self, ManifestState, ObjectKey, WorkState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_crds::constants::{annotations, finalizers};
use muster_crds::work::v1::{AppliedManifestWork, ManifestCondition, ManifestWork, ManifestWorkStatus};
use std::collections::HashSet;

/// The memory for a new generation: manifests that are the same as before keep theirs. Also the objects no longer there.
pub fn renew(
    current: &mut WorkState,
    work: &ManifestWork,
    common: &str,
) -> (Vec<ManifestState>, Vec<ObjectKey>) {
    let mut old = std::mem::take(&mut current.manifests);
    let twins = manifest::twins(work.spec.workload.manifests.iter().map(|m| &m.0));
    let fresh: Vec<ManifestState> = work
        .spec
        .workload
        .manifests
        .iter()
        .zip(twins)
        .enumerate()
        .map(|(ordinal, (m, twin))| {
            let fingerprint = format!(
                "{}{common}{}",
                manifest::hash(&m.0),
                if twin.is_some() { "+" } else { "" }
            );
            let same = old
                .iter_mut()
                .find(|o| o.fingerprint == fingerprint && o.report.is_some());
            match same {
                Some(known) => {
                    let mut kept = std::mem::take(known);
                    // Left behind so that its object counts as still there.
                    known.key.clone_from(&kept.key);
                    kept.twin = twin;
                    if let Some(report) = &mut kept.report {
                        report.meta.ordinal = i32::try_from(ordinal).unwrap_or(i32::MAX);
                    }
                    kept
                }
                None => ManifestState {
                    blind: work.spec.executor.is_some(),
                    fingerprint,
                    twin,
                    dirty: true,
                    ..ManifestState::default()
                },
            }
        })
        .collect();
    let kept: HashSet<&ObjectKey> = fresh.iter().filter_map(|m| m.key.as_ref()).collect();
    let names: HashSet<(&str, &str)> = work
        .spec
        .workload
        .manifests
        .iter()
        .map(|m| (m.kind(), m.name()))
        .collect();
    let dropped = old
        .iter()
        .filter(|m| {
            let still = m
                .report
                .as_ref()
                .map(|r| (r.meta.kind.as_str(), r.meta.name.as_str()));
            still.is_none_or(|id| !names.contains(&id))
        })
        .filter_map(|m| m.key.clone())
        .filter(|key| !kept.contains(key))
        .collect();
    (fresh, dropped)
}

/// The status of a manifest as the hub has it, by what it names; of several, the one at its place.
pub fn status_of<'a>(
    status: &'a ManifestWorkStatus,
    work: &ManifestWork,
    ordinal: usize,
) -> Option<&'a ManifestCondition> {
    let identity = Identity::of(&work.spec.workload.manifests.get(ordinal)?.0);
    let place = i32::try_from(ordinal).ok()?;
    let names = |m: &&ManifestCondition| {
        let meta = &m.resource_meta;
        // The status says which namespace was meant where the manifest says none.
        let namespace = identity.namespace.is_empty()
            || meta.namespace.is_empty()
            || meta.namespace == identity.namespace;
        namespace && meta.group == identity.group && meta.kind == identity.kind && meta.name == identity.name
    };
    let list = &status.resource_status.manifests;
    let here = list
        .iter()
        .filter(names)
        .find(|m| m.resource_meta.ordinal == place);
    here.or_else(|| list.iter().find(names))
}

/// The annotations that say how a work is applied.
pub fn policy(work: &ManifestWork) -> [Option<&String>; 2] {
    let annotation = |key| work.metadata.annotations.as_ref().and_then(|a| a.get(key));
    [annotation(annotations::DRIFT), annotation(annotations::TAKE_OVER)]
}

/// Whether changes on the cluster are taken back at any time.
pub fn is_enforced(work: &ManifestWork) -> bool {
    let policy = Policy::of(work.metadata.annotations.as_ref());
    policy.is_ok_and(|p| p.drift == Drift::Enforce)
}

pub fn soonest(a: Retry, b: Retry) -> Retry {
    match (a, b) {
        (Retry::Backoff, _) | (_, Retry::Backoff) => Retry::Backoff,
        (Retry::After(a), Retry::After(b)) => Retry::After(a.min(b)),
        (Retry::After(a), Retry::No) | (Retry::No, Retry::After(a)) => Retry::After(a),
        (Retry::No, Retry::No) => Retry::No,
    }
}

pub fn revision(applied: &AppliedManifestWork) -> u64 {
    state::revision(applied.metadata.resource_version.as_deref())
}

/// Longest name of a work: with the hub's hash before it, it is the name of an object of the cluster.
const LONGEST_NAME: usize = 253 - 64 - 1;

/// Why nothing of a work by this name can be applied, or `None`.
pub fn unusable_name(name: &str) -> Option<String> {
    (name.len() > LONGEST_NAME).then(|| {
        format!(
            "Failed to apply manifest work: its name has {} characters, {LONGEST_NAME} are allowed",
            name.len()
        )
    })
}

/// Whether a newer version of a work says anything that its agent does not write itself.
pub fn says_more(known: &ManifestWork, newer: &ManifestWork) -> bool {
    let (known, newer) = (&known.metadata, &newer.metadata);
    known.generation != newer.generation
        || known.deletion_timestamp != newer.deletion_timestamp
        || known.labels != newer.labels
        || known.annotations != newer.annotations
        || lacks_ours(newer) && !lacks_ours(known)
}

/// Somebody took the agent's finalizer off.
fn lacks_ours(metadata: &ObjectMeta) -> bool {
    let mut finalizers = metadata.finalizers.iter().flatten();
    !finalizers.any(|f| f == finalizers::MANIFEST_WORK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::agent::progress::Progress;
    use crate::work::status;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn a_name_must_leave_room_for_the_hubs_hash() {
        assert_eq!(unusable_name(&"a".repeat(188)), None);
        let problem = unusable_name(&"a".repeat(189)).unwrap();
        assert!(
            problem.ends_with("its name has 189 characters, 188 are allowed"),
            "{problem}"
        );
    }

    #[test]
    fn an_unchanged_manifest_keeps_its_memory_across_generations() {
        let work = |data: &str| -> ManifestWork {
            serde_json::from_value(
                json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
                "metadata": {"name": "w"}, "spec": {"workload": {"manifests": [
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": data}},
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}}]}}}),
            )
            .unwrap()
        };
        let first = work("1");
        let mut current = WorkState {
            work: Arc::new(first.clone()),
            status: Arc::default(),
            progress: Progress::default(),
            manifests: Vec::new(),
            generation: None,
            common: String::new(),
            cached: false,
            rehearsed: None,
            unremoved: None,
        };
        current.manifests = renew(&mut current, &first, "c").0;
        for (manifest, name) in current.manifests.iter_mut().zip(["a", "b"]) {
            manifest.dirty = false;
            manifest.report = Some(status::Report {
                meta: muster_crds::work::v1::ManifestResourceMeta {
                    kind: "ConfigMap".into(),
                    name: name.into(),
                    ..Default::default()
                },
                applied: status::Applied::Yes,
                availability: status::Availability::Exists,
                feedback: None,
                conditions: vec![],
            });
        }
        let (fresh, dropped) = renew(&mut current, &work("2"), "c");
        assert!(fresh[0].dirty && fresh[0].report.is_none());
        assert!(!fresh[1].dirty && fresh[1].report.is_some());
        assert!(dropped.is_empty());
    }

    #[test]
    fn an_answer_may_say_more_than_what_was_written() {
        let work = |metadata: serde_json::Value| -> ManifestWork {
            serde_json::from_value(
                serde_json::json!({"apiVersion": "work.open-cluster-management.io/v1",
                "kind": "ManifestWork", "metadata": metadata}),
            )
            .unwrap()
        };
        let known = work(serde_json::json!({"name": "w", "generation": 1, "resourceVersion": "1"}));
        let ours = |metadata: serde_json::Value| {
            let mut work = work(metadata);
            work.metadata.finalizers = Some(vec![finalizers::MANIFEST_WORK.to_owned()]);
            work
        };
        assert!(says_more(
            &ours(serde_json::json!({})),
            &work(serde_json::json!({}))
        ));
        assert!(!says_more(
            &work(serde_json::json!({})),
            &ours(serde_json::json!({}))
        ));
        for (newer, more) in [
            (
                serde_json::json!({"generation": 1, "resourceVersion": "2", "finalizers": ["ours"]}),
                false,
            ),
            (serde_json::json!({"generation": 2}), true),
            (
                serde_json::json!({"generation": 1, "deletionTimestamp": "2026-01-01T00:00:00Z"}),
                true,
            ),
            (serde_json::json!({"generation": 1, "labels": {"a": "b"}}), true),
            (
                serde_json::json!({"generation": 1, "annotations": {"a": "b"}}),
                true,
            ),
        ] {
            assert_eq!(says_more(&known, &work(newer.clone())), more, "{newer}");
        }
    }
}
