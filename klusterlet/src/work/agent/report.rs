//! Tells the hub what became of each work. Apart from reconciling, so that a hub that is slow or has too much to do holds up
//! no repair on the cluster. One write of a work's status at a time, always of the newest; one that changes all the time is
//! thinned out (`super::STATUS_PACE`).

use super::{Agent, Key, ReconcileError, memory, rehearse};
use crate::work::state::WorkState;
use crate::work::status;
use crate::work::trust::Hold;
use crate::work::{applied, dry_run, objects};
use jiff::Timestamp;
use kube::ResourceExt as _;
use muster_crds::conditions::{self, NewCondition, set_condition};
use muster_crds::constants::{conditions as types, finalizers, reasons};
use muster_crds::names::applied_manifest_work_name;
use muster_crds::work::v1::{ManifestWork, ManifestWorkStatus};
use serde_json::json;
use std::sync::Arc;

/// The status that a work should have, as far as it is known already. `held`: why nothing of it is removed now.
pub fn desired(known: &WorkState, held: Option<NewCondition>, now: Timestamp) -> Option<ManifestWorkStatus> {
    if known.cached {
        return None;
    }
    let generation = known.work.metadata.generation;
    let so_far = known.so_far();
    let mut new = if known.work.metadata.deletion_timestamp.is_some() {
        if !known
            .work
            .finalizers()
            .iter()
            .any(|f| f == finalizers::MANIFEST_WORK)
        {
            return None;
        }
        let mut status = so_far.into_owned();
        if known.unremoved.is_some() || conditions::find(&status.conditions, types::DELETING).is_none() {
            let refused = known.unremoved.as_deref().unwrap_or_default();
            let message = if refused.is_empty() {
                "ManifestWork is being deleted".to_owned()
            } else {
                format!("ManifestWork is being deleted; {}", applied::refusals(refused))
            };
            let deleting = NewCondition::new(types::DELETING, true, reasons::WORK_DELETING, message);
            set_condition(&mut status.conditions, deleting.observed(generation), now);
        }
        status
    } else if dry_run::is_stopped(&known.work) {
        so_far.into_owned()
    } else if let Some(problem) = memory::unusable_name(&known.work.name_any()) {
        let mut status = so_far.into_owned();
        let failed = NewCondition::new(
            types::APPLIED,
            false,
            reasons::APPLIED_MANIFEST_WORK_FAILED,
            problem,
        );
        set_condition(&mut status.conditions, failed.observed(generation), now);
        status
    } else {
        // Reports of an older generation say nothing of this one.
        if known.generation != generation {
            return None;
        }
        let told = conditions::find(&known.status.conditions, types::DEGRADED);
        if known.unremoved.is_none() && told.is_some_and(|c| c.reason == reasons::REMOVAL_FAILED) {
            // Of the last run: whether it is still so is found out first.
            return None;
        }
        let reports: Option<Vec<status::Report>> = known.manifests.iter().map(|m| m.report.clone()).collect();
        let mut reports = reports?;
        status::bounds::bound(&mut reports);
        let refused = known.unremoved.as_deref().unwrap_or_default();
        let unremoved = (!refused.is_empty()).then(|| applied::refusals(refused));
        status::status(&so_far, generation, &reports, unremoved.as_deref(), now)
    };
    match held {
        Some(held) => {
            set_condition(&mut new.conditions, held.observed(generation), now);
        }
        None => {
            conditions::remove(&mut new.conditions, types::REMOVAL_HELD);
        }
    }
    match rehearse::condition(known) {
        Some(answer) => {
            set_condition(&mut new.conditions, answer.observed(generation), now);
        }
        None if dry_run::asked(&known.work).is_some() => {}
        None => {
            conditions::remove(&mut new.conditions, types::DRY_RUN);
        }
    }
    Some(new)
}

impl Agent {
    /// Writes statuses for ever.
    pub(super) async fn report(self: Arc<Self>) {
        loop {
            let name = self.statuses.next().await;
            match self.tell_status(&name).await {
                Ok(()) => self.statuses.done(&name),
                Err(error) => {
                    let delay = self.statuses.failed(&name);
                    tracing::debug!(work = name, %error, ?delay, "the status is written later");
                }
            }
        }
    }

    /// What of a work could not be removed now.
    pub(super) fn unremoved(&self, name: &str, refused: Vec<String>) {
        let mut state = self.state();
        let Some(current) = state.works.get_mut(name) else {
            return;
        };
        // A webhook that is not well names another port or moment each time: that is no news.
        let known = current.unremoved.as_deref();
        if known.is_some_and(|known| applied::same_but_numbers(known, &refused)) {
            return;
        }
        if !refused.is_empty() {
            tracing::warn!(work = name, "{}", applied::refusals(&refused));
        }
        current.unremoved = Some(refused);
    }

    /// A work was looked at: its status is written if that changed anything.
    pub(super) fn tell_soon(&self, name: &str) {
        if self.news(name).is_some() {
            self.statuses.add(name.to_owned());
        } else if self.thaw(name) {
            self.queue.add(Key::Work(name.to_owned()));
        }
    }

    fn news(&self, name: &str) -> Option<(Arc<ManifestWork>, ManifestWorkStatus)> {
        let mut state = self.state();
        let now = Timestamp::now();
        let applied = applied_manifest_work_name(&self.settings.hub_hash, name);
        let grace = self.settings.eviction_grace;
        let hold = state.applied.get(&applied).and_then(|a| Hold::of(a));
        let held = hold
            .filter(|h| h.left(now, grace).is_some())
            .map(|hold| NewCondition::new(types::REMOVAL_HELD, true, hold.reason.as_str(), hold.told(grace)));
        let known = state.works.get_mut(name)?;
        let status = desired(known, held, now)?;
        let told = status == *known.status;
        if known.progress.found(&known.work, &status, told) {
            self.saved.changed();
        }
        (!told).then(|| (known.work.clone(), status))
    }

    async fn tell_status(&self, name: &str) -> Result<(), ReconcileError> {
        if let Some((work, status)) = self.news(name) {
            let there = self.write_status(&work, &status).await?;
            if there && self.news(name).is_some() {
                // What is so now may be what the hub had before this write.
                self.statuses.add(name.to_owned());
            }
        }
        if self.thaw(name) {
            self.queue.add(Key::Work(name.to_owned()));
        }
        Ok(())
    }

    /// False when the work is gone, of which the watch will tell.
    async fn write_status(
        &self,
        work: &ManifestWork,
        status: &ManifestWorkStatus,
    ) -> Result<bool, ReconcileError> {
        let name = work.name_any();
        let manifests = json!(status.resource_status.manifests);
        let mut status = json!(status);
        // An empty list is left out, and a patch would leave the list that is there.
        status["resourceStatus"]["manifests"] = manifests;
        // The lists in it are whole: over a status that somebody else wrote to since they would undo that.
        let patch = json!({"metadata": {"uid": work.metadata.uid,
            "resourceVersion": work.metadata.resource_version}, "status": status});
        let path = format!("{}/status", self.work_path(&name));
        match objects::merge(&self.hub.of(&name), &path, &patch).await {
            Ok(answer) => {
                self.learn(answer);
                Ok(true)
            }
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) if error.is_conflict() => {
                // What it is now may be heard before the watch says so.
                let now = objects::get(&self.hub.of(&name), &self.work_path(&name)).await;
                self.learn_again(now.map_err(ReconcileError::Hub)?);
                Err(ReconcileError::Hub(error))
            }
            Err(error) => Err(ReconcileError::Hub(error)),
        }
    }

    /// What was only looked at because it was complete, and is not any more, is looked at again. True when there is any.
    fn thaw(&self, name: &str) -> bool {
        let mut state = self.state();
        let Some(current) = state.works.get_mut(name) else {
            return false;
        };
        let so_far = current.so_far().into_owned();
        if conditions::is_true(&so_far.conditions, types::COMPLETE) {
            return false;
        }
        let mut any = false;
        for (ordinal, manifest) in current.manifests.iter_mut().enumerate() {
            let kept = manifest
                .report
                .as_ref()
                .is_some_and(|r| r.applied == status::Applied::Kept);
            let complete = memory::status_of(&so_far, &current.work, ordinal)
                .is_some_and(|m| conditions::is_true(&m.conditions, types::COMPLETE));
            if kept && !complete {
                manifest.dirty = true;
                any = true;
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::agent::progress::Progress;
    use crate::work::state::{ManifestState, Rehearsal};
    use crate::work::status::{Applied, Availability, Report};
    use muster_crds::constants::annotations;
    use muster_crds::work::v1::ManifestResourceMeta;

    fn due(known: &WorkState, held: Option<NewCondition>, now: Timestamp) -> Option<ManifestWorkStatus> {
        desired(known, held, now).filter(|status| *status != *known.status)
    }

    fn known(metadata: serde_json::Value) -> WorkState {
        let mut work: ManifestWork = serde_json::from_value(
            json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
            "metadata": {"name": "w"}, "spec": {"workload": {"manifests": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}]}}}),
        )
        .unwrap();
        work.metadata = serde_json::from_value(metadata).unwrap();
        let report = Report {
            meta: ManifestResourceMeta {
                kind: "ConfigMap".into(),
                name: "a".into(),
                ..Default::default()
            },
            applied: Applied::Yes,
            availability: Availability::Exists,
            feedback: None,
            conditions: vec![],
        };
        WorkState {
            work: Arc::new(work),
            status: Arc::default(),
            progress: Progress::default(),
            manifests: vec![ManifestState {
                report: Some(report),
                ..ManifestState::default()
            }],
            generation: Some(2),
            common: String::new(),
            cached: false,
            rehearsed: None,
            unremoved: None,
        }
    }

    #[test]
    fn what_is_told_and_when() {
        let ours = json!([finalizers::MANIFEST_WORK]);
        let gone = "2026-01-01T00:00:00Z";
        let asking = json!({annotations::DRY_RUN: "x"});
        let plain = || known(json!({"name": "w", "generation": 2, "finalizers": ours}));
        let told = |known: &WorkState| {
            due(known, None, Timestamp::UNIX_EPOCH).map(|status| {
                let mut types: Vec<String> = status.conditions.iter().map(|c| c.type_.clone()).collect();
                types.sort();
                types.join(" ")
            })
        };
        let all = Some("Applied Available Degraded Progressing".to_owned());
        assert_eq!(told(&plain()), all);
        let mut other = plain();
        other.cached = true;
        assert_eq!(told(&other), None, "the hub is away");
        let mut other = plain();
        other.generation = Some(1);
        assert_eq!(told(&other), None, "of an older generation");
        let mut other = plain();
        other.manifests[0].report = None;
        assert_eq!(told(&other), None, "not everything was looked at");
        let deleting = |finalizers: &serde_json::Value| {
            known(json!({"name": "w", "generation": 2, "deletionTimestamp": gone, "finalizers": finalizers}))
        };
        assert_eq!(told(&deleting(&ours)), Some("Deleting".to_owned()));
        assert_eq!(told(&deleting(&json!(["another"]))), None);
        // Who only asks is told the answer, and nothing before it is there.
        let mut stopped = known(json!({"name": "w", "generation": 2, "annotations": asking}));
        assert_eq!(told(&stopped), None);
        let rehearsal = |asked: &str| Rehearsal {
            asked: asked.into(),
            generation: Some(2),
            answer: NewCondition::new(types::DRY_RUN, true, reasons::DRY_RUN_DONE, "{}"),
        };
        stopped.rehearsed = Some(rehearsal("another question"));
        assert_eq!(told(&stopped), None);
        stopped.rehearsed = Some(rehearsal("x"));
        assert_eq!(told(&stopped), Some("DryRun".to_owned()));
        // The answer goes with the question.
        let mut answered = plain();
        answered.rehearsed = Some(rehearsal("x"));
        answered.status = Arc::new(due(&stopped, None, Timestamp::UNIX_EPOCH).unwrap());
        assert_eq!(told(&answered), all);
    }

    #[test]
    fn what_is_told_already_is_not_told_again() {
        let mut one = known(json!({"name": "w", "generation": 2, "finalizers": [finalizers::MANIFEST_WORK]}));
        let held = || {
            Some(NewCondition::new(
                types::REMOVAL_HELD,
                true,
                reasons::HUB_RESTORED,
                "m",
            ))
        };
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let first = due(&one, held(), at(1)).unwrap();
        assert!(conditions::is_true(&first.conditions, types::REMOVAL_HELD));
        one.status = Arc::new(first);
        assert_eq!(due(&one, held(), at(99)), None);
        let over = due(&one, None, at(99)).unwrap();
        assert!(conditions::find(&over.conditions, types::REMOVAL_HELD).is_none());
    }
}
