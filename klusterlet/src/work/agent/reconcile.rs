//! Brings one work about: its finalizer, its record, its objects, its status.

use super::memory::{self, soonest};
use super::{Agent, Key, OBJECTS_AT_ONCE, ReconcileError};
use crate::work::apply::{Look, Outcome, Retry};
use crate::work::objects::{self, RequestError};
use crate::work::state::{self, WorkState};
use crate::work::{applied, dry_run, manifest, order, status};
use futures::StreamExt as _;
use kube::ResourceExt as _;
use muster_crds::conditions;
use muster_crds::constants::{annotations, conditions as types, finalizers};
use muster_crds::names::applied_manifest_work_name;
use muster_crds::work::v1::{AppliedManifestResourceMeta, AppliedManifestWork, ManifestWork};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

impl Agent {
    pub(super) async fn reconcile_work(&self, name: &str) -> Result<Option<Duration>, ReconcileError> {
        if !self.state().applied_synced {
            return Err(ReconcileError::NotYet(
                "AppliedManifestWorks are not listed yet".into(),
            ));
        }
        let Some(known) = self.state().works.get(name).cloned() else {
            self.queue.add(Key::Applied(applied_manifest_work_name(
                &self.settings.hub_hash,
                name,
            )));
            return Ok(None);
        };
        if known.work.metadata.deletion_timestamp.is_some() {
            return self.finalize_work(name, &known).await;
        }
        if dry_run::asked(&known.work).is_some() {
            self.rehearsals.add(name.to_owned());
        }
        if dry_run::is_stopped(&known.work) {
            return Ok(None);
        }
        if memory::unusable_name(name).is_some() {
            self.tell_soon(name);
            return Ok(None);
        }
        if known.cached && !self.is_in_place(name, known.work.metadata.uid.as_deref()) {
            // Known from the last run only, and not on the cluster: it may have been deleted since it was put by, and the
            // record be that of the next by its name. Without the hub what is in place is kept, and nothing is made.
            return Ok(None);
        }
        // A completed work is frozen: it is looked at, and nothing of it is applied (wire §3.5).
        let frozen = conditions::is_true(&known.so_far().conditions, types::COMPLETE);
        if !known.cached {
            self.ensure_finalizer(&known.work).await?;
        }
        let applied = if frozen {
            None
        } else {
            Some(self.ensure_applied(name, &known.work).await?)
        };
        let evicting =
            |a: &AppliedManifestWork| a.status.as_ref().is_some_and(|s| s.eviction_start_time.is_some());
        let (applied, held) = match applied {
            Some(applied) => {
                let held = self.hold(name, &known.work, &applied).await?;
                if evicting(&applied) {
                    // The work was gone and is back within the grace period.
                    self.queue.add(Key::Applied(applied.name_any()));
                }
                // It may have been annotated.
                let latest = self.state().applied.get(&applied.name_any()).cloned();
                (latest.or(Some(applied)), held)
            }
            None => (None, None),
        };
        let owner = applied
            .as_deref()
            .map(applied::owner_reference)
            .unwrap_or_default();
        let todo = self.prepare(name, &known, frozen);
        let outcomes = self.apply_all(&known.work, &owner, todo).await;
        let mut again = Retry::No;
        let moved;
        let (reports, uids, waiting) = {
            let mut state = self.state();
            let Some(current) = state.works.get_mut(name) else {
                return Ok(None);
            };
            if current.work.metadata.uid != known.work.metadata.uid {
                // Another work by that name, of which nothing was looked at yet: none of this is about it.
                self.queue.add(Key::Work(name.to_owned()));
                return Ok(None);
            }
            if current.work.metadata.generation != known.work.metadata.generation {
                self.queue.add(Key::Work(name.to_owned()));
            }
            let (mut settled, mut former) = (Vec::new(), Vec::new());
            for (ordinal, outcome) in outcomes {
                again = soonest(again, outcome.retry);
                if state::misses_kind(&outcome.report) {
                    self.kind_missing.notify_one();
                }
                if let (Some(key), Some(revision), Retry::No) =
                    (&outcome.key, &outcome.settled, outcome.retry)
                {
                    settled.push((ordinal, key.clone(), revision.clone()));
                }
                if let Some(manifest) = current.manifests.get_mut(ordinal) {
                    if outcome.key.is_none() {
                        former.extend(manifest.key.take());
                    }
                    manifest.key = outcome.key;
                    manifest.served = outcome.served;
                    manifest.uid = outcome.uid;
                    manifest.settled = outcome.settled;
                    manifest.contention = outcome.contention;
                    manifest.blind = outcome.blind;
                    if outcome.retry != Retry::No {
                        manifest.dirty = true;
                    }
                    if outcome.report.applied == status::Applied::Yes {
                        manifest.applied_at = known.work.metadata.generation;
                    }
                    manifest.report = Some(outcome.report);
                }
            }
            let reports: Vec<status::Report> = current
                .manifests
                .iter()
                .filter_map(|m| m.report.clone())
                .collect();
            let uids: Vec<String> = current.manifests.iter().map(|m| m.uid.clone()).collect();
            let waiting = current.manifests.iter().any(|m| m.report.is_none());
            for (ordinal, key, revision) in settled {
                state.settled(&key, name, ordinal, &revision);
            }
            // Where it was, nothing is served any more.
            moved = !former.is_empty();
            for key in former {
                state.disown(&key, name);
                state.object_gone(&key);
            }
            (reports, uids, waiting)
        };
        if moved {
            self.drop_unneeded_watches();
        }
        if waiting {
            return Err(ReconcileError::NotYet("not every manifest was looked at".into()));
        }
        self.tell_soon(name);
        let all_gone = if let Some(applied) = &applied {
            self.record(applied, &known, &reports, &uids, held.is_some())
                .await?
        } else {
            self.unremoved(name, Vec::new());
            true
        };
        // It may say now what could not be removed, or that nothing is in the way any more.
        self.tell_soon(name);
        if let Some(left) = held {
            again = soonest(again, Retry::After(left));
        }
        match again {
            _ if !all_gone => Err(ReconcileError::NotYet(
                "removed objects are still being deleted, or not all seen".into(),
            )),
            Retry::Backoff => Err(ReconcileError::NotYet("a manifest was not applied".into())),
            Retry::After(delay) => Ok(Some(delay)),
            Retry::No => Ok(None),
        }
    }

    pub(super) async fn ensure_finalizer(&self, work: &ManifestWork) -> Result<(), ReconcileError> {
        if work.finalizers().iter().any(|f| f == finalizers::MANIFEST_WORK) {
            return Ok(());
        }
        let mut list = work.finalizers().to_vec();
        list.push(finalizers::MANIFEST_WORK.to_owned());
        let patch = json!({"metadata": {
            "uid": work.metadata.uid, "resourceVersion": work.metadata.resource_version, "finalizers": list}});
        // Not at any price: the cluster's other works must not wait for a hub that has too much to do.
        let hub = self.hub.of(&work.name_any()).hurried();
        let answer = objects::merge(&hub, &self.work_path(&work.name_any()), &patch)
            .await
            .map_err(ReconcileError::Hub)?;
        self.learn(answer);
        Ok(())
    }

    /// Takes the hub's answer to a write as news, without waiting for the watch to say the same. It may have more news than what
    /// was written, of which the watch will bring nothing new then.
    pub(super) fn learn(&self, answer: Value) {
        self.take_in(answer, false);
    }

    /// The same of what was asked for because the hub has another version than was thought: also of an earlier one, as a hub
    /// has that was restored.
    pub(super) fn learn_again(&self, answer: Value) {
        self.take_in(answer, true);
    }

    fn take_in(&self, answer: Value, whatever: bool) {
        let Ok(work) = serde_json::from_value::<ManifestWork>(answer) else {
            return;
        };
        let name = work.name_any();
        let more = {
            let mut state = self.state();
            let Some(known) = state.works.get(&name).map(|known| known.work.clone()) else {
                return;
            };
            if known.metadata.uid != work.metadata.uid || (!whatever && state.knows_newer(&work)) {
                return;
            }
            let more = memory::says_more(&known, &work);
            state.work_applied(work);
            more
        };
        if more {
            self.wake(Key::Work(name));
            self.saved.changed();
        }
    }

    /// Whether the cluster has a record of the work with this UID, that is not about to go.
    fn is_in_place(&self, name: &str, uid: Option<&str>) -> bool {
        let applied = applied_manifest_work_name(&self.settings.hub_hash, name);
        let state = self.state();
        state.applied.get(&applied).is_some_and(|record| {
            let of = applied::work_uid(record);
            record.metadata.deletion_timestamp.is_none() && (of.is_none() || of == uid)
        })
    }

    pub(super) async fn ensure_applied(
        &self,
        name: &str,
        work: &ManifestWork,
    ) -> Result<Arc<AppliedManifestWork>, ReconcileError> {
        let applied_name = applied_manifest_work_name(&self.settings.hub_hash, name);
        let known = self.state().applied.get(&applied_name).cloned();
        if let Some(known) = known {
            if known.metadata.deletion_timestamp.is_some() {
                return Err(ReconcileError::NotYet(format!("{applied_name} is being deleted")));
            }
            return self.keep_applied(known, work).await;
        }
        let (hash, agent) = (&self.settings.hub_hash, &self.settings.agent_id);
        let object = applied::new(&applied_name, work, hash, agent);
        let answer = match objects::create(&self.spoke.of(name), applied::PATH, &object).await {
            Err(error) if error.already_exists() => self.adopt_applied(&applied_name).await?,
            other => other.map_err(ReconcileError::Spoke)?,
        };
        self.learn_applied(answer)
    }

    /// Labels of the work are on its record, beside those that somebody else put there, and its kinds.
    async fn keep_applied(
        &self,
        applied: Arc<AppliedManifestWork>,
        work: &ManifestWork,
    ) -> Result<Arc<AppliedManifestWork>, ReconcileError> {
        let has = |(key, value): (&String, &String)| applied.labels().get(key) == Some(value);
        let (noted, kinds) = (applied::noted(&applied), applied::kinds(work));
        // Whether an agent before ours made it for this work, what was told last knows best.
        let unsigned = applied::work_uid(&applied).is_none() && {
            let (state, now) = (self.state(), work.metadata.uid.as_ref());
            let told = state.told.get(&work.name_any());
            told.is_none_or(|told| Some(&told.uid) == now)
        };
        if work.labels().iter().all(has) && kinds.is_subset(&noted) && !unsigned {
            return Ok(applied);
        }
        let kinds = applied::joined(&noted.union(&kinds).cloned().collect());
        let mut annotations = json!({annotations::KINDS: kinds});
        if unsigned {
            annotations[annotations::WORK_UID] = json!(work.metadata.uid);
        }
        self.write_applied(
            &applied,
            &json!({"labels": work.labels(), "annotations": annotations}),
        )
        .await
    }

    pub(super) async fn write_applied(
        &self,
        applied: &AppliedManifestWork,
        metadata: &Value,
    ) -> Result<Arc<AppliedManifestWork>, ReconcileError> {
        let mut patch = json!({ "metadata": metadata });
        patch["metadata"]["uid"] = json!(applied.metadata.uid);
        let path = format!("{}/{}", applied::PATH, applied.name_any());
        let answer = objects::merge(&self.spoke, &path, &patch)
            .await
            .map_err(ReconcileError::Spoke)?;
        self.learn_applied(answer)
    }

    /// Kinds that the work had and has not any more: whether all that is there of them has been seen.
    async fn saw_former_kinds(&self, applied: &AppliedManifestWork, work: &ManifestWork) -> bool {
        let mut all = true;
        for former in applied::noted(applied).difference(&applied::kinds(work)) {
            let Some(identity) = applied::kind(former) else {
                continue;
            };
            all &= match self.applier.mapper.resolve(&self.spoke, &identity).await {
                Ok(served) => self.applier.saw(&served).await,
                Err(RequestError::UnknownKind(_)) => true,
                Err(_) => false,
            };
        }
        all
    }

    /// An AppliedManifestWork that an agent of another ID left for the same hub and work: ours from now on.
    pub(super) async fn adopt_applied(&self, name: &str) -> Result<Value, ReconcileError> {
        let path = format!("{}/{name}", applied::PATH);
        let live = objects::get(&self.spoke, &path)
            .await
            .map_err(ReconcileError::Spoke)?;
        if live["spec"]["agentID"] == self.settings.agent_id.as_str() {
            return Ok(live);
        }
        let patch = json!({"metadata": {"uid": live["metadata"]["uid"],
            "resourceVersion": live["metadata"]["resourceVersion"]}, "spec": {"agentID": self.settings.agent_id}});
        objects::merge(&self.spoke, &path, &patch)
            .await
            .map_err(ReconcileError::Spoke)
    }

    pub(super) fn learn_applied(&self, answer: Value) -> Result<Arc<AppliedManifestWork>, ReconcileError> {
        let applied: AppliedManifestWork = serde_json::from_value(answer)
            .map_err(|e| ReconcileError::Spoke(RequestError::Kube(Box::new(kube::Error::SerdeError(e)))))?;
        let (applied, mut state) = (Arc::new(applied), self.state());
        let older = |known: &Arc<AppliedManifestWork>| {
            known.metadata.uid == applied.metadata.uid && memory::revision(known) > memory::revision(&applied)
        };
        // The watch may have been faster.
        if !state.applied.get(&applied.name_any()).is_some_and(older) {
            state.applied.insert(applied.name_any(), applied.clone());
        }
        Ok(applied)
    }

    /// Brings the per-manifest memory to the work's current generation and says which ordinals must be looked at.
    pub(super) fn prepare(&self, name: &str, known: &WorkState, frozen: bool) -> Vec<Look> {
        let work = &known.work;
        let common = manifest::hash(&json!([
            work.spec.manifest_configs,
            work.spec.delete_option,
            work.spec.executor,
            memory::policy(work)
        ]));
        let mut state = self.state();
        let Some(current) = state.works.get_mut(name) else {
            return Vec::new();
        };
        if current.generation != work.metadata.generation
            || current.common != common
            || current.manifests.len() != work.spec.workload.manifests.len()
        {
            let (mut fresh, dropped) = memory::renew(current, work, &common);
            if current.generation != work.metadata.generation && !memory::is_enforced(work) {
                // Applied once a generation: also what is as it was before.
                for manifest in &mut fresh {
                    manifest.report = None;
                }
            }
            current.manifests = fresh;
            current.generation = work.metadata.generation;
            current.common = common;
            for key in dropped {
                state.disown(&key, name);
            }
        }
        let Some(current) = state.works.get_mut(name) else {
            return Vec::new();
        };
        let mut todo = Vec::new();
        let so_far = known.so_far();
        for (ordinal, manifest) in current.manifests.iter_mut().enumerate() {
            if manifest.dirty || manifest.report.is_none() {
                manifest.dirty = false;
                let trusted = manifest
                    .report
                    .as_ref()
                    .is_some_and(|r| r.applied == status::Applied::Yes && manifest.settled.is_some())
                    || manifest.contention.is_known();
                let before = memory::status_of(&so_far, work, ordinal);
                let is = |type_| before.is_some_and(|m| conditions::is_true(&m.conditions, type_));
                let current = before
                    .and_then(|m| conditions::find(&m.conditions, types::APPLIED))
                    .is_some_and(|c| c.observed_generation == work.metadata.generation);
                todo.push(Look {
                    ordinal,
                    trusted,
                    // The hub may know a moment before this agent hears that it does.
                    applied: (current && is(types::APPLIED))
                        || (manifest.applied_at.is_some() && manifest.applied_at == work.metadata.generation),
                    twin: manifest.twin,
                    complete: frozen || is(types::COMPLETE),
                    contention: manifest.contention.clone(),
                });
            }
        }
        todo
    }

    pub(super) async fn apply_all(
        &self,
        work: &ManifestWork,
        owner: &Value,
        todo: Vec<Look>,
    ) -> Vec<(usize, Outcome)> {
        let mut done = Vec::with_capacity(todo.len());
        let kinds = todo
            .iter()
            .map(|look| work.spec.workload.manifests[look.ordinal].kind());
        let waves = order::waves(kinds);
        let mut todo: Vec<Option<Look>> = todo.into_iter().map(Some).collect();
        for wave in waves {
            let looks: Vec<Look> = wave.into_iter().filter_map(|i| todo[i].take()).collect();
            let tasks = looks.into_iter().map(|look| async move {
                let (ordinal, began) = (look.ordinal, tokio::time::Instant::now());
                let outcome = self.applier.apply(work, look, owner).await;
                self.settings
                    .counts
                    .looked_at(&outcome.report.applied, began.elapsed());
                (ordinal, outcome)
            });
            let outcomes: Vec<_> = futures::stream::iter(tasks)
                .buffer_unordered(OBJECTS_AT_ONCE)
                .collect()
                .await;
            for (_, outcome) in &outcomes {
                let crd = outcome.report.meta.kind == "CustomResourceDefinition";
                if crd && outcome.report.applied == status::Applied::Yes {
                    let group = outcome
                        .report
                        .meta
                        .name
                        .split_once('.')
                        .map_or("", |(_, group)| group);
                    self.applier.forget_group(group);
                }
            }
            done.extend(outcomes);
        }
        done
    }

    pub(super) fn work_path(&self, name: &str) -> String {
        let cluster = &self.settings.cluster;
        format!("/apis/work.open-cluster-management.io/v1/namespaces/{cluster}/manifestworks/{name}")
    }

    /// Removes what the work no longer has, then writes the record. True when nothing is left to wait for.
    pub(super) async fn record(
        &self,
        applied: &AppliedManifestWork,
        known: &WorkState,
        reports: &[status::Report],
        uids: &[String],
        held: bool,
    ) -> Result<bool, ReconcileError> {
        let complete = known.cached || self.saw_former_kinds(applied, &known.work).await;
        let latest = self.state().applied.get(&applied.name_any()).cloned();
        let Some(latest) = latest else {
            return Err(ReconcileError::NotYet(format!("{} is gone", applied.name_any())));
        };
        let old = latest
            .status
            .as_ref()
            .map(|s| s.applied_resources.clone())
            .unwrap_or_default();
        let uid = applied.uid().unwrap_or_default();
        let mut before = old.clone();
        let strays = self.state().strays(&uid, reports);
        before.extend(
            strays
                .into_iter()
                .filter(|s| !old.iter().any(|o| applied::same_object(o, s))),
        );
        let mut record = applied::record(&before, reports, uids);
        if known.cached {
            // Of the last run: the hub may have said more since, and what it said then may be recorded.
            let kept = std::mem::take(&mut record.stale);
            record
                .resources
                .extend(kept.into_iter().filter(|k| !k.uid.is_empty()));
        }
        if held {
            record.resources.append(&mut record.stale);
        }
        let (work, mapper) = (known.work.name_any(), &self.applier.mapper);
        let spoke = self.spoke.of(&work);
        // What can not be removed stays recorded, and what is new is recorded beside it.
        let mut removed = applied::remove_all(&spoke, mapper, record.stale, &uid, OBJECTS_AT_ONCE).await;
        let all_gone = removed.left.is_empty();
        record.resources.append(&mut removed.left);
        self.unremoved(&work, removed.refused);
        record.resources.sort();
        if record.resources != old {
            let objects = record.resources.len();
            tracing::debug!(work, objects, "recording what is applied");
            self.write_record(&latest, &record.resources).await?;
        }
        if let Some(error) = removed.error {
            return Err(ReconcileError::Spoke(error));
        }
        let kinds = applied::kinds(&known.work);
        if complete && all_gone && !known.cached && applied::noted(&latest) != kinds {
            let kinds = applied::joined(&kinds);
            self.write_applied(&latest, &json!({"annotations": {annotations::KINDS: kinds}}))
                .await?;
        }
        Ok(all_gone && complete)
    }

    async fn write_record(
        &self,
        applied: &AppliedManifestWork,
        resources: &[AppliedManifestResourceMeta],
    ) -> Result<(), ReconcileError> {
        let patch = json!({"metadata": {"uid": applied.metadata.uid},
            "status": {"appliedResources": resources}});
        let path = format!("{}/{}/status", applied::PATH, applied.name_any());
        let spoke = self.spoke.of(&applied.spec.manifest_work_name);
        let answer = objects::merge(&spoke, &path, &patch)
            .await
            .map_err(ReconcileError::Spoke)?;
        self.learn_applied(answer).map(drop)
    }
}
