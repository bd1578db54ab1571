//! What of a work's status decides how it is applied: what is complete is not applied any more (wire §3.5), and what reports
//! drift or is applied once not a second time. Such findings hold also before the hub has heard of them, and after a restart
//! without the hub (law 5): a Job that ran must not run again because its cluster was cut off.

use super::memory::is_enforced;
use crate::work::status;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use muster_crds::conditions::is_true;
use muster_crds::constants::conditions as types;
use muster_crds::work::v1::{ManifestCondition, ManifestWork, ManifestWorkStatus, StatusFeedbackResult};
use std::borrow::Cow;

/// What was found last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Of the status, the conditions that decide.
    found: ManifestWorkStatus,
    /// The hub's status says all of it, or is the later word.
    told: bool,
}

impl Progress {
    /// Of the last run.
    pub fn of_last_run(found: ManifestWorkStatus) -> Self {
        Self { found, told: false }
    }

    /// A work's status came out so; `told`: just as the hub has it. True when that is worth keeping beyond this run.
    pub fn found(&mut self, work: &ManifestWork, status: &ManifestWorkStatus, told: bool) -> bool {
        let found = deciding(work, status);
        let news = found != self.found;
        *self = Self { found, told };
        news
    }

    /// The status to go by.
    pub fn over<'a>(&self, work: &ManifestWork, hubs: &'a ManifestWorkStatus) -> Cow<'a, ManifestWorkStatus> {
        if self.told || self.found == ManifestWorkStatus::default() {
            return Cow::Borrowed(hubs);
        }
        let current = |c: &&Condition| c.observed_generation == work.metadata.generation;
        let mut all = hubs.clone();
        add(&mut all.conditions, self.found.conditions.iter().filter(current));
        for manifest in &self.found.resource_status.manifests {
            let conditions = manifest.conditions.iter().filter(current);
            let list = &mut all.resource_status.manifests;
            let known = status::previous(list, &manifest.resource_meta).map(|m| m.resource_meta.clone());
            match list.iter_mut().find(|m| Some(&m.resource_meta) == known.as_ref()) {
                Some(manifest) => add(&mut manifest.conditions, conditions),
                None => list.push(ManifestCondition {
                    conditions: conditions.cloned().collect(),
                    ..manifest.clone()
                }),
            }
        }
        Cow::Owned(all)
    }
}

fn add<'a>(list: &mut Vec<Condition>, found: impl Iterator<Item = &'a Condition>) {
    for condition in found {
        if !is_true(list, &condition.type_) {
            list.retain(|c| c.type_ != condition.type_);
            list.push(condition.clone());
        }
    }
}

/// Of a status, what decides how its work is applied; nothing for most.
pub fn deciding(work: &ManifestWork, status: &ManifestWorkStatus) -> ManifestWorkStatus {
    let once = !is_enforced(work);
    let decides = |c: &&Condition| {
        c.status == "True"
            && c.observed_generation == work.metadata.generation
            && (c.type_ == types::COMPLETE || (once && c.type_ == types::APPLIED))
    };
    let of = |list: &[Condition]| -> Vec<Condition> { list.iter().filter(decides).cloned().collect() };
    let mut out = ManifestWorkStatus {
        conditions: of(&status.conditions),
        ..ManifestWorkStatus::default()
    };
    let manifests = status
        .resource_status
        .manifests
        .iter()
        .map(|m| ManifestCondition {
            resource_meta: m.resource_meta.clone(),
            status_feedbacks: StatusFeedbackResult::default(),
            conditions: of(&m.conditions),
        });
    out.resource_status.manifests = manifests.filter(|m| !m.conditions.is_empty()).collect();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_crds::constants::annotations;
    use serde_json::json;

    fn work(generation: i64, drift: Option<&str>) -> ManifestWork {
        let mut work: ManifestWork =
            serde_json::from_value(json!({"apiVersion": "v1", "kind": "ManifestWork",
            "metadata": {"name": "w", "generation": generation}}))
            .unwrap();
        if let Some(drift) = drift {
            let annotation = (annotations::DRIFT.to_owned(), drift.to_owned());
            work.metadata.annotations = Some([annotation].into());
        }
        work
    }

    fn status(of_work: &[&str], of_manifest: &[&str]) -> ManifestWorkStatus {
        let list = |types: &[&str]| -> serde_json::Value {
            types
                .iter()
                .map(|t| {
                    json!({"type": t, "status": "True", "reason": "r", "message": "", "observedGeneration": 1,
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
                })
                .collect()
        };
        let meta = json!({"ordinal": 0, "group": "batch", "version": "v1", "kind": "Job", "resource": "jobs",
            "name": "j", "namespace": "d"});
        serde_json::from_value(
            json!({"conditions": list(of_work), "resourceStatus": {"manifests": [
            {"resourceMeta": meta, "statusFeedback": {}, "conditions": list(of_manifest)}]}}),
        )
        .unwrap()
    }

    fn types(status: &ManifestWorkStatus) -> String {
        let names = |list: &[Condition]| {
            let mut names: Vec<&str> = list.iter().map(|c| c.type_.as_str()).collect();
            names.sort_unstable();
            names.join(" ")
        };
        let manifests = status.resource_status.manifests.iter();
        let manifests: Vec<String> = manifests.map(|m| names(&m.conditions)).collect();
        format!("{} | {}", names(&status.conditions), manifests.join(" | "))
    }

    #[test]
    fn what_decides() {
        let all = status(&["Applied", "Complete", "Available"], &["Applied", "Complete"]);
        for (work, expected) in [
            (work(1, None), "Complete | Complete"),
            (work(1, Some("Once")), "Applied Complete | Applied Complete"),
            (work(1, Some("Report")), "Applied Complete | Applied Complete"),
            (work(2, None), " | "),
        ] {
            assert_eq!(types(&deciding(&work, &all)), expected);
        }
        let none = deciding(&work(1, None), &status(&["Applied"], &["Applied", "Available"]));
        assert_eq!(none, ManifestWorkStatus::default());
    }

    #[test]
    fn what_the_hub_has_not_heard_of_counts_until_it_has() {
        let work = work(1, None);
        let (before, done) = (
            status(&["Applied"], &["Applied"]),
            status(&["Applied", "Complete"], &["Applied", "Complete"]),
        );
        let mut progress = Progress::default();
        assert_eq!(*progress.over(&work, &before), before);
        assert!(progress.found(&work, &done, false));
        assert!(!progress.found(&work, &done, false), "it is no news any more");
        assert_eq!(
            types(&progress.over(&work, &before)),
            "Applied Complete | Applied Complete"
        );
        // Also where the hub knows nothing of the manifest, as after a restart without it.
        let again = Progress::of_last_run(deciding(&work, &done));
        assert_eq!(
            types(&again.over(&work, &ManifestWorkStatus::default())),
            "Complete | Complete"
        );
        // A new generation begins anew.
        let newer = self::work(2, None);
        assert_eq!(types(&progress.over(&newer, &before)), "Applied | Applied");
        // Once the hub has it, its word counts.
        assert!(!progress.found(&work, &done, true));
        assert_eq!(*progress.over(&work, &before), before);
    }
}
