//! The work agent: watches the hub's works and the cluster's AppliedManifestWorks, and reconciles each work in a few
//! concurrent workers. A reconcile looks only at manifests that changed or whose object did.

use super::applied;
use super::apply::{Applier, Outcome, Retry};
use super::manifest;
use super::objects::{self, Mapper, RequestError};
use super::order;
use super::queue::Queue;
use super::state::{ManifestState, ObjectKey, State, WorkState};
use super::status;
use super::watches::{Backoff, Coverage, Watches};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use muster_crds::conditions::{self, NewCondition, set_condition};
use muster_crds::constants::{conditions as types, finalizers, reasons};
use muster_crds::names::applied_manifest_work_name;
use muster_crds::work::v1::{AppliedManifestWork, ManifestWork, ManifestWorkStatus};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How the agent runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the managed cluster: the namespace of its works on the hub.
    pub cluster: String,
    /// SHA-256 of the hub's URL (wire §3.1).
    pub hub_hash: String,
    /// Recorded in AppliedManifestWorks; defaults to the hub hash.
    pub agent_id: String,
    /// Works reconciled at the same time.
    pub workers: usize,
    /// How long what a vanished work applied is kept.
    pub eviction_grace: Duration,
}

/// Objects of one kind rank applied at the same time.
const OBJECTS_AT_ONCE: usize = 16;

/// What is reconciled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// A work by name.
    Work(String),
    /// An AppliedManifestWork by name.
    Applied(String),
}

/// Why a reconcile must come again.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error("the hub: {0}")]
    Hub(#[source] RequestError),
    #[error("the managed cluster: {0}")]
    Spoke(#[source] RequestError),
    #[error("{0}")]
    NotYet(String),
}

/// The agent. [`Agent::run`] drives it.
pub struct Agent {
    hub: Client,
    spoke: Client,
    settings: Settings,
    state: Arc<Mutex<State>>,
    applier: Applier,
    queue: Queue<Key>,
    events: Mutex<Option<tokio::sync::mpsc::UnboundedReceiver<String>>>,
    saved: super::saved::Saved,
    ready: tokio::sync::Notify,
}

impl Agent {
    /// An agent that has not started. `namespace` is the agent's own on the managed cluster, for what it saves.
    pub fn new(hub: Client, spoke: Client, namespace: &str, settings: Settings) -> Arc<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let (notify, events) = tokio::sync::mpsc::unbounded_channel();
        let watches = Watches::new(spoke.clone(), state.clone(), notify);
        let applier = Applier {
            spoke: spoke.clone(),
            mapper: Mapper::default(),
            watches,
            state: state.clone(),
        };
        let saved = super::saved::Saved::new(spoke.clone(), namespace, &settings.hub_hash);
        Arc::new(Self {
            hub,
            spoke,
            settings,
            state,
            applier,
            queue: Queue::default(),
            events: Mutex::new(Some(events)),
            saved,
            ready: tokio::sync::Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hub has just accepted the cluster: what it refused a moment ago is worth asking for again.
    pub fn hub_is_ready(&self) {
        self.ready.notify_one();
    }

    /// Runs until it is cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tasks = tokio::task::JoinSet::new();
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut events) = events {
            let agent = self.clone();
            tasks.spawn(async move {
                while let Some(work) = events.recv().await {
                    agent.queue.forget(&Key::Work(work.clone()));
                    agent.queue.add(Key::Work(work));
                }
            });
        }
        tasks.spawn(self.clone().follow_applied());
        tasks.spawn(self.clone().follow_works());
        for _ in 0..self.settings.workers.max(1) {
            tasks.spawn(self.clone().work());
        }
        let agent = self.clone();
        tasks.spawn(async move { agent.saved.keep(&agent.state).await });
        stop.cancelled().await;
        tasks.shutdown().await;
    }

    /// Watches the hub's works of this cluster.
    async fn follow_works(self: Arc<Self>) {
        let api: Api<ManifestWork> = Api::namespaced(self.hub.clone(), &self.settings.cluster);
        let mut events = watcher(api, watcher::Config::default()).boxed();
        let mut backoff = Backoff::default();
        let mut fresh: HashSet<String> = HashSet::new();
        loop {
            let next = if self.state().hub_synced {
                events.try_next().await
            } else {
                // Until the hub answers for the first time, what was saved by the last run counts (law 5).
                tokio::select! {
                    event = events.try_next() => event,
                    () = tokio::time::sleep(Duration::from_secs(5)) => { self.load_saved().await; continue; }
                }
            };
            let event = match next {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "the hub's works can not be watched; what is known stays in place");
                    if !self.state().hub_synced {
                        self.load_saved().await;
                    }
                    tokio::select! { () = backoff.wait() => {}, () = self.ready.notified() => {} }
                    continue;
                }
            };
            // Every try begins with Init, also one that is refused.
            if !matches!(event, watcher::Event::Init) {
                backoff = Backoff::default();
            }
            match event {
                watcher::Event::Init => fresh.clear(),
                watcher::Event::InitApply(work) => {
                    fresh.insert(work.name_any());
                    let name = work.name_any();
                    self.state().work_applied(work);
                    // A list comes at the start and after an outage: look at everything once; it writes only what differs.
                    self.wake(Key::Work(name));
                }
                watcher::Event::InitDone => {
                    let gone: Vec<String> = {
                        let mut state = self.state();
                        state.hub_synced = true;
                        state
                            .works
                            .keys()
                            .filter(|n| !fresh.contains(*n))
                            .cloned()
                            .collect()
                    };
                    for name in gone {
                        self.forget_work(&name);
                    }
                    fresh.clear();
                    let applied: Vec<String> = self.state().applied.keys().cloned().collect();
                    for name in applied {
                        self.queue.add(Key::Applied(name));
                    }
                    self.saved.changed();
                }
                watcher::Event::Apply(work) => {
                    let name = work.name_any();
                    if self.state().work_applied(work) {
                        self.wake(Key::Work(name));
                        self.saved.changed();
                    }
                }
                watcher::Event::Delete(work) => {
                    self.forget_work(&work.name_any());
                    self.saved.changed();
                }
            }
        }
    }

    fn wake(&self, key: Key) {
        self.queue.forget(&key);
        self.queue.add(key);
    }

    fn forget_work(&self, name: &str) {
        self.state().work_gone(name);
        self.queue.add(Key::Applied(applied_manifest_work_name(
            &self.settings.hub_hash,
            name,
        )));
        self.drop_unneeded_watches();
    }

    fn drop_unneeded_watches(&self) {
        let needed: HashSet<(String, String)> = self
            .state()
            .owners
            .keys()
            .map(|k| (k.group.clone(), k.resource.clone()))
            .collect();
        let named: HashSet<ObjectKey> = self.state().owners.keys().cloned().collect();
        self.applier.watches.keep(|served, coverage| match coverage {
            Coverage::Labelled => needed.contains(&(served.group.clone(), served.plural.clone())),
            Coverage::Named(namespace, name) => named.contains(&ObjectKey {
                group: served.group.clone(),
                resource: served.plural.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
            }),
        });
    }

    async fn load_saved(&self) {
        if !self.state().works.is_empty() {
            return;
        }
        match self.saved.load().await {
            Ok(works) if works.is_empty() => {}
            Ok(works) => {
                tracing::info!(
                    works = works.len(),
                    "the hub is away: keeping the works of the last run in place"
                );
                for work in works {
                    let name = work.name_any();
                    {
                        let mut state = self.state();
                        state.work_applied(work);
                        if let Some(known) = state.works.get_mut(&name) {
                            known.cached = true;
                        }
                    }
                    self.wake(Key::Work(name));
                }
            }
            Err(error) => tracing::warn!(%error, "the works of the last run can not be read"),
        }
    }

    /// Watches the cluster's AppliedManifestWorks.
    async fn follow_applied(self: Arc<Self>) {
        let api: Api<AppliedManifestWork> = Api::all(self.spoke.clone());
        let mut events = watcher(api, watcher::Config::default()).boxed();
        let mut backoff = Backoff::default();
        let mut fresh = HashSet::new();
        loop {
            let event = match events.try_next().await {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "AppliedManifestWorks can not be watched, it goes on");
                    backoff.wait().await;
                    continue;
                }
            };
            // Every try begins with Init, also one that is refused.
            if !matches!(event, watcher::Event::Init) {
                backoff = Backoff::default();
            }
            match event {
                watcher::Event::Init => fresh.clear(),
                watcher::Event::InitApply(applied) => {
                    fresh.insert(applied.name_any());
                    self.applied_seen(applied);
                }
                watcher::Event::Apply(applied) => self.applied_seen(applied),
                watcher::Event::InitDone => {
                    let works: Vec<String> = {
                        let mut state = self.state();
                        state.applied_synced = true;
                        state.applied.retain(|name, _| fresh.contains(name));
                        state.works.keys().cloned().collect()
                    };
                    fresh.clear();
                    for name in works {
                        self.queue.add(Key::Work(name));
                    }
                }
                watcher::Event::Delete(applied) => {
                    self.state().applied.remove(&applied.name_any());
                    // Its work goes on without a record: it must be made again, or the work's own deletion go on.
                    self.wake(Key::Work(applied.spec.manifest_work_name.clone()));
                }
            }
        }
    }

    fn applied_seen(&self, mut applied: AppliedManifestWork) {
        let name = applied.name_any();
        applied.metadata.managed_fields = None;
        if applied.spec.agent_id != self.settings.agent_id {
            return;
        }
        let mut state = self.state();
        let older = state.applied.get(&name).is_some_and(|known| {
            known.metadata.uid == applied.metadata.uid && revision(known) > revision(&applied)
        });
        if !older {
            state.applied.insert(name.clone(), Arc::new(applied));
        }
        drop(state);
        self.queue.add(Key::Applied(name));
    }

    async fn work(self: Arc<Self>) {
        loop {
            let key = self.queue.next().await;
            let result = match &key {
                Key::Work(name) => self.reconcile_work(name).await,
                Key::Applied(name) => self.reconcile_applied(name).await,
            };
            match result {
                Ok(None) => self.queue.done(&key),
                Ok(Some(after)) => {
                    self.queue.done(&key);
                    self.queue.add_after(key, after);
                }
                Err(error) => {
                    let delay = self.queue.failed(&key);
                    tracing::debug!(?key, %error, ?delay, "reconcile comes again");
                }
            }
        }
    }

    async fn reconcile_work(&self, name: &str) -> Result<Option<Duration>, ReconcileError> {
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
        if conditions::is_true(&known.status.conditions, types::COMPLETE) {
            // A completed work is frozen (wire §3.5).
            return Ok(None);
        }
        if !known.cached {
            self.ensure_finalizer(&known.work).await?;
        }
        let applied = self.ensure_applied(name, &known.work).await?;
        let owner = applied::owner_reference(&applied);
        let todo = self.prepare(name, &known.work);
        let outcomes = self.apply_all(&known.work, &owner, &todo).await;
        let mut again = Retry::No;
        let (reports, uids, waiting) = {
            let mut state = self.state();
            let Some(current) = state.works.get_mut(name) else {
                return Ok(None);
            };
            if current.work.metadata.generation != known.work.metadata.generation
                || current.work.metadata.uid != known.work.metadata.uid
            {
                self.queue.add(Key::Work(name.to_owned()));
            }
            for (ordinal, outcome) in outcomes {
                again = soonest(again, outcome.retry);
                if let Some(manifest) = current.manifests.get_mut(ordinal) {
                    manifest.key = outcome.key;
                    manifest.served = outcome.served;
                    manifest.uid = outcome.uid;
                    manifest.settled = outcome.settled;
                    if outcome.retry != Retry::No {
                        manifest.dirty = true;
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
            (reports, uids, waiting)
        };
        if waiting {
            return Err(ReconcileError::NotYet("not every manifest was looked at".into()));
        }
        let (told, recorded) = tokio::join!(
            self.tell_status(name, &known, &reports),
            self.record(&applied, &reports, &uids, name)
        );
        told?;
        let all_gone = recorded?;
        match again {
            _ if !all_gone => Err(ReconcileError::NotYet(
                "removed objects are still being deleted".into(),
            )),
            Retry::Backoff => Err(ReconcileError::NotYet("a manifest was not applied".into())),
            Retry::After(delay) => Ok(Some(delay)),
            Retry::No => Ok(None),
        }
    }

    async fn ensure_finalizer(&self, work: &ManifestWork) -> Result<(), ReconcileError> {
        if work.finalizers().iter().any(|f| f == finalizers::MANIFEST_WORK) {
            return Ok(());
        }
        let mut list = work.finalizers().to_vec();
        list.push(finalizers::MANIFEST_WORK.to_owned());
        let patch = json!({"metadata": {
            "uid": work.metadata.uid, "resourceVersion": work.metadata.resource_version, "finalizers": list}});
        let answer = objects::merge(&self.hub, &self.work_path(&work.name_any()), &patch)
            .await
            .map_err(ReconcileError::Hub)?;
        self.learn(answer);
        Ok(())
    }

    /// Takes the hub's answer to a write as news, without waiting for the watch to say the same.
    fn learn(&self, answer: Value) {
        if let Ok(work) = serde_json::from_value::<ManifestWork>(answer) {
            let mut state = self.state();
            if let Some(known) = state.works.get(&work.name_any()) {
                let newer = known.work.metadata.uid == work.metadata.uid
                    && number(work.metadata.resource_version.as_deref())
                        >= number(known.work.metadata.resource_version.as_deref());
                if newer {
                    state.work_applied(work);
                }
            }
        }
    }

    async fn ensure_applied(
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
            return Ok(known);
        }
        let object = applied::new(
            &applied_name,
            name,
            &self.settings.hub_hash,
            &self.settings.agent_id,
            work.metadata.labels.as_ref(),
        );
        let answer = match objects::create(&self.spoke, applied::PATH, &object).await {
            Err(error) if error.already_exists() => self.adopt_applied(&applied_name).await?,
            other => other.map_err(ReconcileError::Spoke)?,
        };
        self.learn_applied(answer)
    }

    /// An AppliedManifestWork that an agent of another ID left for the same hub and work: ours from now on.
    async fn adopt_applied(&self, name: &str) -> Result<Value, ReconcileError> {
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

    fn learn_applied(&self, answer: Value) -> Result<Arc<AppliedManifestWork>, ReconcileError> {
        let applied: AppliedManifestWork = serde_json::from_value(answer)
            .map_err(|e| ReconcileError::Spoke(RequestError::Kube(Box::new(kube::Error::SerdeError(e)))))?;
        let applied = Arc::new(applied);
        self.state().applied.insert(applied.name_any(), applied.clone());
        Ok(applied)
    }

    /// Brings the per-manifest memory to the work's current generation and says which ordinals must be looked at.
    fn prepare(&self, name: &str, work: &ManifestWork) -> Vec<(usize, bool)> {
        let common = manifest::hash(&json!([
            work.spec.manifest_configs,
            work.spec.delete_option,
            work.spec.executor
        ]));
        let mut state = self.state();
        let Some(current) = state.works.get_mut(name) else {
            return Vec::new();
        };
        if current.generation != work.metadata.generation
            || current.manifests.len() != work.spec.workload.manifests.len()
        {
            let (fresh, dropped) = renew(current, work, &common);
            current.manifests = fresh;
            current.generation = work.metadata.generation;
            for key in dropped {
                state.disown(&key, name);
            }
        }
        let Some(current) = state.works.get_mut(name) else {
            return Vec::new();
        };
        let mut todo = Vec::new();
        for (ordinal, manifest) in current.manifests.iter_mut().enumerate() {
            if manifest.dirty || manifest.report.is_none() {
                manifest.dirty = false;
                let trusted = manifest
                    .report
                    .as_ref()
                    .is_some_and(|r| r.applied == status::Applied::Yes && manifest.settled.is_some());
                todo.push((ordinal, trusted));
            }
        }
        todo
    }

    async fn apply_all(
        &self,
        work: &ManifestWork,
        owner: &Value,
        todo: &[(usize, bool)],
    ) -> Vec<(usize, Outcome)> {
        let mut done = Vec::with_capacity(todo.len());
        let kinds = todo
            .iter()
            .map(|(ordinal, _)| work.spec.workload.manifests[*ordinal].kind());
        for wave in order::waves(kinds) {
            let tasks = wave
                .into_iter()
                .map(|i| todo[i])
                .map(|(ordinal, trusted)| async move {
                    (ordinal, self.applier.apply(work, ordinal, owner, trusted).await)
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
                    self.applier.mapper.forget_group(group);
                }
            }
            done.extend(outcomes);
        }
        done
    }

    async fn tell_status(
        &self,
        name: &str,
        known: &WorkState,
        reports: &[status::Report],
    ) -> Result<(), ReconcileError> {
        if known.cached {
            return Ok(());
        }
        let Some(old) = self.state().works.get(name).map(|w| w.status.clone()) else {
            return Ok(());
        };
        let new = status::status(&old, known.work.metadata.generation, reports, Timestamp::now());
        if new == *old {
            return Ok(());
        }
        self.write_status(name, &known.work, &new).await
    }

    async fn write_status(
        &self,
        name: &str,
        work: &ManifestWork,
        status: &ManifestWorkStatus,
    ) -> Result<(), ReconcileError> {
        let patch = json!({"metadata": {"uid": work.metadata.uid}, "status": status});
        let path = format!("{}/status", self.work_path(name));
        match objects::merge(&self.hub, &path, &patch).await {
            Ok(answer) => {
                self.learn(answer);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(ReconcileError::Hub(error)),
        }
    }

    fn work_path(&self, name: &str) -> String {
        let cluster = &self.settings.cluster;
        format!("/apis/work.open-cluster-management.io/v1/namespaces/{cluster}/manifestworks/{name}")
    }

    /// Removes what the work no longer has, then writes the record. True when nothing is left to wait for.
    async fn record(
        &self,
        applied: &AppliedManifestWork,
        reports: &[status::Report],
        uids: &[String],
        name: &str,
    ) -> Result<bool, ReconcileError> {
        let latest = self.state().applied.get(&applied.name_any()).cloned();
        let Some(latest) = latest else {
            return Err(ReconcileError::NotYet(format!("{} is gone", applied.name_any())));
        };
        let old = latest
            .status
            .as_ref()
            .map(|s| s.applied_resources.clone())
            .unwrap_or_default();
        let mut record = applied::record(&old, reports, uids);
        let mut all_gone = true;
        let uid = applied.uid().unwrap_or_default();
        for entry in record.stale {
            let gone = applied::remove(&self.spoke, &self.applier.mapper, &entry, &uid)
                .await
                .map_err(ReconcileError::Spoke)?;
            if !gone {
                all_gone = false;
                record.resources.push(entry);
            }
        }
        record.resources.sort();
        if record.resources == old {
            return Ok(all_gone);
        }
        tracing::debug!(
            work = name,
            objects = record.resources.len(),
            "recording what is applied"
        );
        let patch = json!({"metadata": {"uid": latest.metadata.uid},
            "status": {"appliedResources": record.resources}});
        let path = format!("{}/{}/status", applied::PATH, applied.name_any());
        let answer = objects::merge(&self.spoke, &path, &patch)
            .await
            .map_err(ReconcileError::Spoke)?;
        self.learn_applied(answer)?;
        Ok(all_gone)
    }

    /// The hub wants the work gone: first what it applied, then the work itself.
    async fn finalize_work(&self, name: &str, known: &WorkState) -> Result<Option<Duration>, ReconcileError> {
        let work = &known.work;
        if known.cached || !work.finalizers().iter().any(|f| f == finalizers::MANIFEST_WORK) {
            return Ok(None);
        }
        let mut status = (*known.status).clone();
        let deleting = NewCondition::new(
            types::DELETING,
            true,
            reasons::WORK_DELETING,
            "ManifestWork is being deleted",
        );
        if set_condition(
            &mut status.conditions,
            deleting.observed(work.metadata.generation),
            Timestamp::now(),
        ) {
            self.write_status(name, work, &status).await?;
        }
        let applied_name = applied_manifest_work_name(&self.settings.hub_hash, name);
        let applied = self.state().applied.get(&applied_name).cloned();
        if let Some(applied) = applied {
            self.delete_applied(&applied).await?;
            if !self.finalize_applied(&applied).await? {
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
        match objects::merge(&self.hub, &self.work_path(name), &patch).await {
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(ReconcileError::Hub(error)),
        }
    }

    async fn delete_applied(&self, applied: &AppliedManifestWork) -> Result<(), ReconcileError> {
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
    async fn finalize_applied(&self, applied: &AppliedManifestWork) -> Result<bool, ReconcileError> {
        let uid = applied.uid().unwrap_or_default();
        let resources = applied
            .status
            .as_ref()
            .map(|s| s.applied_resources.clone())
            .unwrap_or_default();
        let removals = resources.into_iter().map(|entry| {
            let uid = uid.clone();
            async move { applied::remove(&self.spoke, &self.applier.mapper, &entry, &uid).await }
        });
        let results: Vec<_> = futures::stream::iter(removals)
            .buffer_unordered(OBJECTS_AT_ONCE)
            .collect()
            .await;
        let mut all_gone = true;
        for result in results {
            all_gone &= result.map_err(ReconcileError::Spoke)?;
        }
        if !all_gone {
            return Ok(false);
        }
        let list: Vec<&String> = applied
            .finalizers()
            .iter()
            .filter(|f| *f != finalizers::APPLIED_MANIFEST_WORK)
            .collect();
        let patch = json!({"metadata": {"uid": uid, "finalizers": list}});
        let path = format!("{}/{}", applied::PATH, applied.name_any());
        match objects::merge(&self.spoke, &path, &patch).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(ReconcileError::Spoke(error)),
        }
        self.state().applied.remove(&applied.name_any());
        Ok(true)
    }

    /// An AppliedManifestWork changed, or the work it belongs to vanished.
    async fn reconcile_applied(&self, name: &str) -> Result<Option<Duration>, ReconcileError> {
        let (applied, work_known, synced) = {
            let state = self.state();
            let Some(applied) = state.applied.get(name).cloned() else {
                return Ok(None);
            };
            let ours = applied.spec.hub_hash == self.settings.hub_hash;
            let known = ours && state.works.contains_key(&applied.spec.manifest_work_name);
            (applied, known, state.hub_synced)
        };
        if applied.metadata.deletion_timestamp.is_some() {
            if work_known {
                // The work's own reconcile sees to it, or makes the record again afterwards.
                let deleting = self
                    .state()
                    .works
                    .get(&applied.spec.manifest_work_name)
                    .is_some_and(|w| w.work.metadata.deletion_timestamp.is_some());
                if deleting {
                    return Ok(None);
                }
            }
            return if self.finalize_applied(&applied).await? {
                Ok(None)
            } else {
                Err(ReconcileError::NotYet(
                    "its objects are still being deleted".into(),
                ))
            };
        }
        if !synced {
            return Ok(None);
        }
        let started = applied
            .status
            .as_ref()
            .and_then(|s| s.eviction_start_time.clone());
        match evict(
            work_known,
            started.map(|t| t.0),
            Timestamp::now(),
            self.settings.eviction_grace,
        ) {
            Eviction::None => Ok(None),
            Eviction::Clear => self.set_eviction(&applied, None).await.map(|()| None),
            Eviction::Start(now) => {
                tracing::info!(
                    applied = name,
                    "its work is gone from the hub; what it applied stays for the grace period"
                );
                self.set_eviction(&applied, Some(now)).await?;
                Ok(Some(self.settings.eviction_grace))
            }
            Eviction::Wait(left) => Ok(Some(left)),
            Eviction::Now => {
                tracing::info!(
                    applied = name,
                    "the grace period is over: removing what it applied"
                );
                self.delete_applied(&applied).await.map(|()| None)
            }
        }
    }

    async fn set_eviction(
        &self,
        applied: &AppliedManifestWork,
        start: Option<Timestamp>,
    ) -> Result<(), ReconcileError> {
        let start = start.map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
        let patch =
            json!({"metadata": {"uid": applied.metadata.uid}, "status": {"evictionStartTime": start}});
        let path = format!("{}/{}/status", applied::PATH, applied.name_any());
        let answer = objects::merge(&self.spoke, &path, &patch)
            .await
            .map_err(ReconcileError::Spoke)?;
        self.learn_applied(answer).map(|_| ())
    }
}

/// What to do about an AppliedManifestWork whose work may be gone.
#[derive(Debug, PartialEq)]
enum Eviction {
    None,
    Clear,
    Start(Timestamp),
    Wait(Duration),
    Now,
}

fn evict(work_known: bool, started: Option<Timestamp>, now: Timestamp, grace: Duration) -> Eviction {
    match (work_known, started) {
        (true, None) => Eviction::None,
        (true, Some(_)) => Eviction::Clear,
        (false, None) => Eviction::Start(now),
        (false, Some(start)) => {
            let elapsed = Duration::try_from(now.duration_since(start)).unwrap_or_default();
            if elapsed >= grace {
                Eviction::Now
            } else {
                Eviction::Wait(grace.saturating_sub(elapsed))
            }
        }
    }
}

/// The memory for a new generation: manifests that are the same as before keep theirs. Also the objects no longer there.
fn renew(current: &mut WorkState, work: &ManifestWork, common: &str) -> (Vec<ManifestState>, Vec<ObjectKey>) {
    let mut old = std::mem::take(&mut current.manifests);
    let fresh: Vec<ManifestState> = work
        .spec
        .workload
        .manifests
        .iter()
        .enumerate()
        .map(|(ordinal, m)| {
            let fingerprint = format!("{}{common}", manifest::hash(&m.0));
            let same = old
                .iter_mut()
                .find(|o| o.fingerprint == fingerprint && o.report.is_some());
            match same {
                Some(known) => {
                    let mut kept = std::mem::take(known);
                    // Left behind so that its object counts as still there.
                    known.key.clone_from(&kept.key);
                    if let Some(report) = &mut kept.report {
                        report.meta.ordinal = i32::try_from(ordinal).unwrap_or(i32::MAX);
                    }
                    kept
                }
                None => ManifestState {
                    fingerprint,
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

fn soonest(a: Retry, b: Retry) -> Retry {
    match (a, b) {
        (Retry::Backoff, _) | (_, Retry::Backoff) => Retry::Backoff,
        (Retry::After(a), Retry::After(b)) => Retry::After(a.min(b)),
        (Retry::After(a), Retry::No) | (Retry::No, Retry::After(a)) => Retry::After(a),
        (Retry::No, Retry::No) => Retry::No,
    }
}

fn number(revision: Option<&str>) -> u64 {
    revision.and_then(|r| r.parse().ok()).unwrap_or(0)
}

fn revision(applied: &AppliedManifestWork) -> u64 {
    number(applied.metadata.resource_version.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eviction_waits_for_the_grace_period() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let grace = Duration::from_secs(60);
        let cases = [
            (true, None, Eviction::None),
            (true, Some(at(0)), Eviction::Clear),
            (false, None, Eviction::Start(at(100))),
            (false, Some(at(90)), Eviction::Wait(Duration::from_secs(50))),
            (false, Some(at(40)), Eviction::Now),
            (false, Some(at(0)), Eviction::Now),
        ];
        for (known, started, expected) in cases {
            assert_eq!(evict(known, started, at(100), grace), expected);
        }
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
            manifests: Vec::new(),
            generation: None,
            cached: false,
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
                unsupported_rules: vec![],
            });
        }
        let (fresh, dropped) = renew(&mut current, &work("2"), "c");
        assert!(fresh[0].dirty && fresh[0].report.is_none());
        assert!(!fresh[1].dirty && fresh[1].report.is_some());
        assert!(dropped.is_empty());
    }
}
