//! Takes away what a work applied, then the work itself (wire §3.7).

use super::{Agent, OBJECTS_AT_ONCE, ReconcileError};
use crate::work::applied::{self, Removed};
use crate::work::refusals::News;
use crate::work::state::WorkState;
use crate::work::{objects, settings};
use futures::StreamExt as _;
use kube::ResourceExt as _;
use muster_crds::constants::finalizers;
use muster_crds::names::applied_manifest_work_name;
use muster_crds::work::v1::{
    AppliedManifestResourceMeta, AppliedManifestWork, ManifestResourceMeta, ManifestWork,
};
use serde_json::json;
use std::time::Duration;

/// True when nothing is there any more.
fn all_gone(removed: Removed) -> Result<bool, ReconcileError> {
    match removed.error {
        Some(error) => Err(ReconcileError::Spoke(error)),
        None => Ok(removed.left.is_empty()),
    }
}

impl Agent {
    /// The hub wants the work gone: first what it applied, then the work itself.
    pub(super) async fn finalize_work(
        &self,
        name: &str,
        known: &WorkState,
    ) -> Result<Option<Duration>, ReconcileError> {
        let work = &known.work;
        if known.cached || !work.finalizers().iter().any(|f| f == finalizers::MANIFEST_WORK) {
            return Ok(None);
        }
        let applied_name = applied_manifest_work_name(&self.settings.hub_hash, name);
        let applied = self.state().applied.get(&applied_name).cloned();
        let applied = match applied {
            Some(applied) => Some(applied),
            // What an agent of another ID left for this hub and work goes with it too.
            None => match self.adopt_applied(&applied_name).await {
                Ok(answer) => Some(self.learn_applied(answer)?),
                Err(ReconcileError::Spoke(error)) if error.is_not_found() => None,
                Err(error) => return Err(error),
            },
        };
        if let Some(applied) = applied {
            if applied.metadata.deletion_timestamp.is_none()
                && let Some(left) = self.hold(name, work, &applied).await?
            {
                self.statuses.add(name.to_owned());
                return Ok(Some(left));
            }
            self.let_orphans_go(work, &applied).await?;
            let gone = self.take_away(&applied).await;
            if !matches!(gone, Ok(true)) {
                // What takes longer than this is told; what does not would be a write that nobody sees.
                self.statuses.add(name.to_owned());
            }
            if !gone? {
                return Err(ReconcileError::NotYet(
                    "its objects are still being deleted".into(),
                ));
            }
        }
        let list: Vec<&String> = work
            .finalizers()
            .iter()
            .filter(|f| *f != finalizers::MANIFEST_WORK)
            .collect();
        let patch = json!({"metadata": {"uid": work.metadata.uid, "finalizers": list}});
        let hub = self.hub.of(name).hurried();
        match objects::merge(&hub, &self.work_path(name), &patch).await {
            Ok(answer) => {
                // The end of the record wakes this work once more: by then its finalizer is known to be gone.
                self.learn(answer);
                Ok(None)
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(ReconcileError::Hub(error)),
        }
    }

    /// The work may have been told to leave objects behind in the very moment before it was deleted, or while the agent could
    /// not hear it: then they still have its record as an owner.
    async fn let_orphans_go(
        &self,
        work: &ManifestWork,
        applied: &AppliedManifestWork,
    ) -> Result<(), ReconcileError> {
        let spoke = &self.spoke.of(&work.name_any());
        let record = &applied.uid().unwrap_or_default();
        let mut orphans: Vec<AppliedManifestResourceMeta> = Vec::new();
        for entry in applied.status.iter().flat_map(|s| &s.applied_resources) {
            let meta = ManifestResourceMeta {
                group: entry.group.clone(),
                resource: entry.resource.clone(),
                namespace: entry.namespace.clone(),
                name: entry.name.clone(),
                ..ManifestResourceMeta::default()
            };
            if !settings::owns(&work.spec, &meta) {
                orphans.push(entry.clone());
            }
        }
        let letting = orphans
            .into_iter()
            .map(|entry| async move { applied::let_go(spoke, &self.applier.mapper, &entry, record).await });
        let mut letting = futures::stream::iter(letting).buffer_unordered(OBJECTS_AT_ONCE);
        while let Some(done) = letting.next().await {
            done.map_err(ReconcileError::Spoke)?;
        }
        Ok(())
    }

    /// Removes the record and all that is recorded. False while objects are still going.
    async fn take_away(&self, applied: &AppliedManifestWork) -> Result<bool, ReconcileError> {
        // Neither waits for the other: the record's finalizer keeps it until the objects are gone.
        let (marked, removed) = tokio::join!(self.delete_applied(applied), self.remove_objects(applied));
        self.unremoved(&applied.spec.manifest_work_name, removed.refused.clone());
        marked?;
        Ok(all_gone(removed)? && self.release_applied(applied).await?)
    }

    pub(super) async fn delete_applied(&self, applied: &AppliedManifestWork) -> Result<(), ReconcileError> {
        if applied.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let path = format!("{}/{}", applied::PATH, applied.name_any());
        match objects::delete(&self.spoke, &path, &applied.uid().unwrap_or_default()).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(ReconcileError::Spoke(error)),
        }
    }

    /// Removes everything recorded, then the record's finalizer. False while objects are still going.
    pub(super) async fn finalize_applied(
        &self,
        applied: &AppliedManifestWork,
    ) -> Result<bool, ReconcileError> {
        let removed = self.remove_objects(applied).await;
        let record = applied.name_any();
        let told = applied::refusals(&removed.refused);
        let news = self
            .state()
            .refusals
            .tried(&record, &removed.refused, removed.error.is_some());
        match news {
            Some(News::Refused) => tracing::warn!(record, "{told}; it is tried again"),
            Some(News::Still) => tracing::debug!(record, "{told}"),
            Some(News::Over) => {
                tracing::info!(record, "nothing of it is refused any more: it is being removed");
            }
            None => {}
        }
        Ok(all_gone(removed)? && self.release_applied(applied).await?)
    }

    async fn remove_objects(&self, applied: &AppliedManifestWork) -> Removed {
        let uid = applied.uid().unwrap_or_default();
        let spoke = &self.spoke.of(&applied.spec.manifest_work_name);
        let resources = applied
            .status
            .as_ref()
            .map(|s| s.applied_resources.clone())
            .unwrap_or_default();
        applied::remove_all(spoke, &self.applier.mapper, resources, &uid, OBJECTS_AT_ONCE).await
    }

    /// Lets the record go.
    async fn release_applied(&self, applied: &AppliedManifestWork) -> Result<bool, ReconcileError> {
        let list: Vec<&String> = applied
            .finalizers()
            .iter()
            .filter(|f| *f != finalizers::APPLIED_MANIFEST_WORK)
            .collect();
        let patch = json!({"metadata": {"uid": applied.metadata.uid, "finalizers": list}});
        let path = format!("{}/{}", applied::PATH, applied.name_any());
        let spoke = self.spoke.of(&applied.spec.manifest_work_name);
        match objects::merge(&spoke, &path, &patch).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(ReconcileError::Spoke(error)),
        }
        let mut state = self.state();
        state.applied.remove(&applied.name_any());
        state.missing.remove(&applied.name_any());
        if applied.spec.hub_hash == self.settings.hub_hash {
            state.told.remove(&applied.spec.manifest_work_name);
        }
        drop(state);
        if applied
            .status
            .as_ref()
            .is_some_and(|s| s.eviction_start_time.is_some())
        {
            self.evictions.notify_one();
            self.saved.changed();
        }
        Ok(true)
    }
}
