//! Follows the hub's works and the cluster's AppliedManifestWorks; what the last run saved stands in while the hub is away.

use super::{Agent, Key, memory};
use crate::work::saved::SavedError;
use crate::work::state::ObjectKey;
use crate::work::trust::{self, Hold, Told};
use crate::work::watches::{Backoff, Coverage, is_forbidden};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use muster_crds::names::applied_manifest_work_name;
use muster_crds::work::v1::{AppliedManifestWork, ManifestWork};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A watch that goes on after it was broken tells first what happened meanwhile, which may be another hub's past.
const REPLAY: Duration = Duration::from_secs(60);

impl Agent {
    /// Watches the hub's works of this cluster.
    pub(super) async fn follow_works(self: Arc<Self>) {
        let watch = || {
            let api: Api<ManifestWork> = Api::namespaced(self.hub.client().clone(), &self.settings.cluster);
            watcher(api, watcher::Config::default()).boxed()
        };
        let mut events = watch();
        let mut backoff = Backoff::default();
        let mut fresh: HashSet<String> = HashSet::new();
        let mut broken: Option<Instant> = None;
        self.remember().await;
        loop {
            let synced = self.state().hub_synced;
            let next = tokio::select! {
                event = events.try_next() => event,
                // The hub is not what it was.
                () = self.look_again.notified() => { events = watch(); continue; }
                // Until the hub answers for the first time, what was saved by the last run counts (law 5).
                () = tokio::time::sleep(Duration::from_secs(5)), if !synced => { self.load_saved().await; continue; }
            };
            let event = match next {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => {
                    broken = Some(Instant::now());
                    // How the cluster stands at the hub is said where its ManagedCluster is followed.
                    if is_forbidden(&error) {
                        tracing::debug!(%error, "the hub does not let its works be watched");
                    } else {
                        tracing::warn!(%error, "the hub's works can not be watched; what is known stays in place");
                    }
                    if !self.state().hub_synced {
                        self.load_saved().await;
                    }
                    tokio::select! { () = backoff.watch_again(&error) => {}, () = self.ready.notified() => {} }
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
                    broken = None;
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
                    self.evictions.notify_one();
                    self.saved.changed();
                }
                watcher::Event::Apply(work) => {
                    let name = work.name_any();
                    if self.state().knows_newer(&work) {
                        // An answer to a write was faster than the watch.
                        continue;
                    }
                    if self.state().work_applied(work) {
                        self.wake(Key::Work(name));
                        self.saved.changed();
                    } else {
                        // Somebody else may have written the status.
                        self.tell_soon(&name);
                    }
                }
                watcher::Event::Delete(work) => {
                    let name = work.name_any();
                    let live = broken.is_none_or(|at| at.elapsed() > REPLAY);
                    if live && trust::has_hardly_begun(&work) {
                        self.state().work_ended(work.metadata.uid);
                    }
                    self.forget_work(&name);
                    self.saved.changed();
                }
            }
        }
    }

    /// While works have manifests of kinds that are not served: watches the CustomResourceDefinitions, so that they are
    /// applied as soon as they can be.
    pub(super) async fn follow_kinds(self: Arc<Self>) {
        loop {
            self.kind_missing.notified().await;
            let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(self.spoke.client().clone());
            let mut events = watcher(api, watcher::Config::default()).boxed();
            let mut backoff = Backoff::default();
            while !self.state().missing_kinds(None).is_empty() {
                match events.try_next().await {
                    Ok(Some(watcher::Event::Apply(crd) | watcher::Event::InitApply(crd))) => {
                        backoff = Backoff::default();
                        let name = crd.name_any();
                        let group = name.split_once('.').map_or("", |(_, group)| group);
                        self.applier.forget_group(group);
                        let works = self.state().missing_kinds(Some(group));
                        for work in works {
                            self.wake(Key::Work(work));
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "CustomResourceDefinitions can not be watched, it goes on");
                        backoff.wait().await;
                    }
                }
            }
        }
    }

    /// Which works the last run knew: a hub that knows others, or older ones, is not taken at its word (law 3).
    async fn remember(&self) {
        let mut backoff = Backoff::default();
        loop {
            match self.saved.load().await {
                Ok(loaded) => {
                    let mut state = self.state();
                    if let (Some(before), Some(now)) = (&loaded.hub, &state.hub) {
                        state.hub_changed = trust::changed(before, now);
                    }
                    state.hub = state.hub.take().or(loaded.hub);
                    let known = loaded.works.iter().map(|w| (w.name_any(), Told::of(w)));
                    state.told = known.chain(loaded.told).collect();
                    let found = loaded
                        .works
                        .into_iter()
                        .filter_map(|w| Some((w.metadata.name?, (w.metadata.uid, w.status?))));
                    state.last_run = found.collect();
                    return;
                }
                Err(SavedError::Request(error)) if matches!(error.code(), 0 | 429 | 500..) => {
                    tracing::warn!(%error, "what the last run knew can not be read, it is tried again");
                    backoff.wait().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "what the last run knew can not be read, it goes on without");
                    return;
                }
            }
        }
    }

    pub(super) fn wake(&self, key: Key) {
        self.queue.forget(&key);
        self.queue.add(key);
    }

    pub(super) fn forget_work(&self, name: &str) {
        self.state().work_gone(name);
        self.queue.add(Key::Applied(applied_manifest_work_name(
            &self.settings.hub_hash,
            name,
        )));
        self.drop_unneeded_watches();
    }

    pub(super) fn drop_unneeded_watches(&self) {
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

    pub(super) async fn load_saved(&self) {
        if !self.state().works.is_empty() {
            return;
        }
        match self.saved.load().await {
            Ok(loaded) if loaded.works.is_empty() => {}
            Ok(loaded) => {
                let works = loaded.works;
                tracing::info!(
                    works = works.len(),
                    "the hub is away: keeping the works of the last run in place"
                );
                for mut work in works {
                    let name = work.name_any();
                    // What was found of it is known from the start.
                    work.status = None;
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
    pub(super) async fn follow_applied(self: Arc<Self>) {
        let api: Api<AppliedManifestWork> = Api::all(self.spoke.client().clone());
        let mut events = watcher(api, watcher::Config::default()).boxed();
        let mut backoff = Backoff::default();
        let mut fresh = HashSet::new();
        loop {
            let event = match events.try_next().await {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "AppliedManifestWorks can not be watched, it goes on");
                    backoff.watch_again(&error).await;
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
                    self.applied_seen(applied, true);
                }
                watcher::Event::Apply(applied) => self.applied_seen(applied, false),
                watcher::Event::InitDone => {
                    let (works, ended): (Vec<String>, _) = {
                        let mut state = self.state();
                        state.applied_synced = true;
                        state.applied.retain(|name, _| fresh.contains(name));
                        let ended = state.refusals.keep(|record| fresh.contains(record));
                        (state.works.keys().cloned().collect(), ended)
                    };
                    fresh.clear();
                    for record in &ended {
                        no_longer_refused(record);
                    }
                    for name in works {
                        self.queue.add(Key::Work(name));
                    }
                }
                watcher::Event::Delete(applied) => {
                    let name = applied.name_any();
                    let was_refused = {
                        let mut state = self.state();
                        state.applied.remove(&name);
                        state.refusals.over(&name)
                    };
                    if was_refused {
                        no_longer_refused(&name);
                    }
                    // Its work goes on without a record: it must be made again, or the work's own deletion go on.
                    self.wake(Key::Work(applied.spec.manifest_work_name.clone()));
                }
            }
        }
    }

    /// `listed`: a watch began with it. Then it counts however early it seems: a cluster that was restored has lower revisions
    /// than it had.
    pub(super) fn applied_seen(&self, mut applied: AppliedManifestWork, listed: bool) {
        let name = applied.name_any();
        applied.metadata.managed_fields = None;
        if applied.spec.agent_id != self.settings.agent_id {
            return;
        }
        let mut state = self.state();
        let older = state.applied.get(&name).is_some_and(|known| {
            known.metadata.uid == applied.metadata.uid && memory::revision(known) > memory::revision(&applied)
        });
        let mut let_go = None;
        if listed || !older {
            let hold = Hold::of(&applied);
            let work = applied.spec.manifest_work_name.clone();
            let before = state.applied.insert(name.clone(), Arc::new(applied));
            let_go = before.filter(|b| Hold::of(b) != hold).map(|_| work);
        }
        drop(state);
        if let Some(work) = let_go {
            // Somebody decided what was in doubt.
            self.wake(Key::Work(work));
        }
        self.queue.add(Key::Applied(name));
    }
}

/// Somebody ended a record of which something could not be removed.
fn no_longer_refused(record: &str) {
    tracing::info!(
        record,
        "the record is gone: what of it could not be removed is not tried any more"
    );
}
