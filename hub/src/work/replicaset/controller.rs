//! Brings the works of a replica set to what they should be, and says how they are.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Resource, api::PartialObjectMeta};
use muster_crds::{
    cluster::{
        v1::ManagedCluster,
        v1beta1::{Placement, PlacementDecision},
    },
    constants::finalizers,
    work::v1alpha1::{CascadeDeletionPolicy, ManifestWorkReplicaSetStatus},
};
use serde_json::{json, value::RawValue};
use tokio::time::Instant;

use super::{
    deploy::{self, Decided, Facts, Plan, Write},
    outline::{DecisionView, SetOutline, SetView, SpecHash, Work, Works},
    status,
};
use crate::{
    cache::Cache,
    error::Error,
    queue::{Key, Next},
    writer::{Writer, guarded},
};

/// How many works of one replica set are written at a time.
const AT_A_TIME: usize = 8;
/// When so many are refused in a row, the rest would be too.
const REFUSALS: usize = 8;
/// Counts alone are told no more often than this.
const TELL: Duration = Duration::from_millis(500);
/// After a refusal a cluster is left alone for this long, then for twice as long, up to a bound.
const HOLD: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Writes that had no effect are not done again at once.
const AGAIN: Duration = Duration::from_secs(5);

/// A cluster that is left alone for now.
struct Hold {
    template: SpecHash,
    why: String,
    refused: bool,
    times: u32,
    until: Instant,
}

/// What is remembered of a replica set between two looks. None of it is needed: a hub that starts anew only tries again.
#[derive(Default)]
pub(super) struct Memory {
    holds: HashMap<String, Hold>,
    told: Option<Instant>,
    /// Works that the server stores otherwise than they were written: the template, and what became of it.
    pub(super) stored: HashMap<(Arc<str>, Arc<str>), (SpecHash, SpecHash)>,
}

/// What the controller works with.
pub struct Context {
    /// All replica sets.
    pub sets: Arc<Cache<SetOutline, SetView>>,
    /// All their works.
    pub works: Works,
    /// How many clusters each placement says it selected.
    pub placements: Arc<Cache<Placement, i32>>,
    /// All decisions.
    pub decisions: Arc<Cache<PlacementDecision, DecisionView>>,
    /// All namespaces: whether they are being deleted.
    pub namespaces: Arc<Cache<PartialObjectMeta<Namespace>, bool>>,
    /// All clusters: whether they are being deleted.
    pub clusters: Arc<Cache<PartialObjectMeta<ManagedCluster>, bool>>,
    /// How to write.
    pub writer: Arc<Writer>,
    memory: Mutex<HashMap<Key, Memory>>,
    /// Which replica sets wait for a cluster.
    waiting: Mutex<HashMap<String, HashSet<Key>>>,
}

/// A replica set that is looked at.
pub(super) struct Subject<'a> {
    pub(super) key: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) owner: &'a str,
    pub(super) set: Arc<SetView>,
}

impl Context {
    /// Nothing is known yet.
    pub fn new(writer: Arc<Writer>) -> Self {
        Self {
            sets: Cache::new(|set, _, _| SetView::of(set)),
            works: Works::default(),
            placements: Cache::new(|placement: &Placement, _, _| {
                let status = placement.status.as_ref();
                status.map_or(0, |status| status.number_of_selected_clusters)
            }),
            decisions: Cache::new(|decision, _, _| DecisionView::of(decision)),
            namespaces: Cache::new(|object: &PartialObjectMeta<_>, _, _| goes(object)),
            clusters: Cache::new(|object: &PartialObjectMeta<_>, _, _| goes(object)),
            writer,
            memory: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    /// Waits until all is known.
    pub async fn ready(&self) {
        tokio::join!(
            self.sets.ready(),
            self.works.cache.ready(),
            self.placements.ready(),
            self.decisions.ready(),
            self.namespaces.ready(),
            self.clusters.ready(),
        );
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, HashMap<Key, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, HashSet<Key>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something about a cluster changed: the replica sets that wait for it.
    pub fn cluster_changed(&self, cluster: &str) -> HashSet<Key> {
        let keys = self.waiting().remove(cluster).unwrap_or_default();
        let mut memory = self.memory();
        for key in &keys {
            if let Some(memory) = memory.get_mut(key) {
                memory.holds.remove(cluster);
            }
        }
        keys
    }

    /// Brings the works of one replica set to what they should be.
    pub async fn reconcile(&self, key: &str) -> Result<Next, Error> {
        let Some((namespace, name)) = key.split_once('/') else {
            return Ok(Next::Idle);
        };
        let Some(mut set) = self.sets.get(namespace, name) else {
            self.memory().remove(key);
            return Ok(Next::Idle);
        };
        let owner = deploy::owner(namespace, name);
        let subject = |owner, set| Subject {
            key,
            namespace,
            name,
            owner,
            set,
        };
        if set.deleting {
            let owner = owner.as_deref().unwrap_or_default();
            return self.end(&subject(owner, set)).await;
        }
        let ours = finalizers::MANIFEST_WORK_REPLICA_SET;
        if !set.finalizers.iter().any(|one| one == ours) {
            let all: Vec<&str> = set.finalizers.iter().map(String::as_str).chain([ours]).collect();
            set = self.set_finalizers(namespace, name, &set, &all).await?;
        }
        match owner {
            Ok(owner) => self.deploy(&subject(&owner, set)).await,
            Err((reason, why)) => {
                let status = status::unable(&set.status, set.generation, reason, why, Timestamp::now());
                let wait = self.tell(&subject("", set), status).await?;
                Ok(wait.map_or(Next::Idle, Next::After))
            }
        }
    }

    async fn deploy(&self, subject: &Subject<'_>) -> Result<Next, Error> {
        let mut plan = self.plan(subject);
        let mut failure = None;
        let mut again = None;
        if !plan.writes.is_empty() {
            let writes = std::mem::take(&mut plan.writes);
            let template = if writes.iter().any(Write::has_spec) {
                match self.template(subject).await? {
                    Some(template) => template,
                    // It changed, and the cache knows it now.
                    None => return Ok(Next::Now),
                }
            } else {
                RawValue::NULL.to_owned()
            };
            failure = self.carry_out(subject, writes, &template).await;
            plan = self.plan(subject);
            again = (!plan.writes.is_empty()).then_some(AGAIN);
        }
        let (held, refused) = self.note_closed(subject, &plan);
        let status = status::status(
            &subject.set.status,
            subject.set.generation,
            &plan.placed,
            refused,
            Timestamp::now(),
        );
        let told = self.tell(subject, status).await;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let next = [plan.recheck, told?, held, again].into_iter().flatten().min();
        Ok(next.map_or(Next::Idle, Next::After))
    }

    fn plan(&self, subject: &Subject<'_>) -> Plan {
        let Subject {
            key,
            namespace,
            owner,
            set,
            ..
        } = subject;
        let decisions = self.decisions.list(namespace);
        let decided: Vec<Decided> = set
            .placement_refs
            .iter()
            .map(
                |reference| match self.placements.get(namespace, &reference.name) {
                    None => Decided::default(),
                    Some(selected) => {
                        let its = decisions.iter().map(|(_, decision)| decision.as_ref());
                        Decided::of(
                            its.filter(|decision| decision.placement == reference.name),
                            *selected,
                        )
                    }
                },
            )
            .collect();
        let works = self.works.of(owner);
        let memory = self.memory();
        let memory = memory.get(*key);
        let current = |work: &Work| {
            let stored = || {
                let place = (work.cluster.clone(), work.name.clone());
                memory.and_then(|memory| memory.stored.get(&place)) == Some(&(set.template, work.view.spec))
            };
            work.view.spec == set.template || stored()
        };
        let now = Instant::now();
        let closed = |cluster: &str| match self.namespaces.get("", cluster).as_deref() {
            None => Some("it has no namespace at the hub".to_owned()),
            Some(true) => Some("its namespace is being deleted".to_owned()),
            Some(false) if self.clusters.get("", cluster).as_deref() == Some(&true) => {
                Some("it is being deleted".to_owned())
            }
            Some(false) => {
                let hold = memory.and_then(|memory| memory.holds.get(cluster));
                hold.filter(|hold| hold.until > now && hold.template == set.template)
                    .map(|hold| hold.why.clone())
            }
        };
        let facts = Facts {
            set,
            owner,
            decided: &decided,
            works: &works,
            now: Timestamp::now(),
        };
        deploy::plan(&facts, current, closed)
    }

    /// Has changes of clusters that can have no work looked at. How long some are held, and whether for good reason.
    fn note_closed(&self, subject: &Subject<'_>, plan: &Plan) -> (Option<Duration>, bool) {
        let mut waiting = self.waiting();
        for (cluster, _) in plan.placed.iter().flat_map(|placed| &placed.closed) {
            waiting
                .entry(cluster.clone())
                .or_default()
                .insert(subject.key.into());
        }
        drop(waiting);
        let mut memory = self.memory();
        let Some(memory) = memory.get_mut(subject.key) else {
            return (None, false);
        };
        let decided: HashSet<&str> = plan
            .placed
            .iter()
            .flat_map(|placed| &placed.closed)
            .map(|(cluster, _)| cluster.as_str())
            .collect();
        let now = Instant::now();
        let lasts =
            |(cluster, hold): &(&String, &Hold)| decided.contains(cluster.as_str()) && hold.until > now;
        let holds = || memory.holds.iter().filter(lasts);
        let next = holds()
            .map(|(_, hold)| hold.until.saturating_duration_since(now))
            .min();
        (next, holds().any(|(_, hold)| hold.refused))
    }

    /// Does what is to be done, so many at a time. The first failure that is worth another try soon.
    async fn carry_out(
        &self,
        subject: &Subject<'_>,
        writes: Vec<Write>,
        template: &RawValue,
    ) -> Option<Error> {
        let run = |write: Write| async move {
            let result = self.write(subject, &write, template).await;
            (write, result)
        };
        let mut running = stream::iter(writes).map(run).buffer_unordered(AT_A_TIME);
        let (mut failure, mut done, mut refusals) = (None, 0, 0);
        while let Some((write, result)) = running.next().await {
            let cluster = write.cluster();
            match result {
                Ok(()) => {
                    done += 1;
                    if let Some(memory) = self.memory().get_mut(subject.key) {
                        memory.holds.remove(cluster);
                    }
                }
                // Its namespace went as it was written to; or it has gone itself, which the watch tells.
                Err(error) if namespace_goes(&error) => self.hold(subject, cluster, &error, false),
                Err(error) if error.is_permanent() => {
                    tracing::warn!(set = subject.key, cluster, %error, "a work is refused");
                    self.hold(subject, cluster, &error, true);
                    refusals += 1;
                    if done == 0 && refusals >= REFUSALS {
                        break;
                    }
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        failure
    }

    /// Leaves a cluster alone for a while.
    fn hold(&self, subject: &Subject<'_>, cluster: &str, error: &Error, refused: bool) {
        let mut memory = self.memory();
        let holds = &mut memory.entry(subject.key.into()).or_default().holds;
        let before = holds
            .get(cluster)
            .filter(|hold| hold.template == subject.set.template);
        let times = before.map_or(0, |hold| hold.times + 1);
        let hold = Hold {
            template: subject.set.template,
            why: error.to_string(),
            refused,
            times,
            until: Instant::now() + (HOLD.0 * 2u32.pow(times.min(10))).min(HOLD.1),
        };
        holds.insert(cluster.to_owned(), hold);
    }

    /// Deletes the works of one that is being deleted, and lets go of it.
    async fn end(&self, subject: &Subject<'_>) -> Result<Next, Error> {
        let Subject {
            key,
            namespace,
            name,
            owner,
            set,
        } = subject;
        let ours = finalizers::MANIFEST_WORK_REPLICA_SET;
        if !set.finalizers.iter().any(|one| one == ours) {
            return Ok(Next::Idle);
        }
        let standing = || {
            self.works
                .of(owner)
                .into_iter()
                .filter(|work| !work.view.deleting)
        };
        let writes: Vec<Write> = standing().map(|work| Write::delete(&work)).collect();
        if !writes.is_empty() {
            let none = RawValue::NULL;
            if let Some(failure) = self.carry_out(subject, writes, none).await {
                return Err(failure);
            }
        }
        if standing().next().is_some() {
            tracing::debug!(set = key, "its works are not deleted yet");
            return Ok(Next::After(AGAIN));
        }
        if set.policy == CascadeDeletionPolicy::Foreground && !self.works.of(owner).is_empty() {
            // Each that goes is told.
            return Ok(Next::Idle);
        }
        let others: Vec<&str> = set
            .finalizers
            .iter()
            .map(String::as_str)
            .filter(|one| *one != ours)
            .collect();
        self.set_finalizers(namespace, name, set, &others).await?;
        Ok(Next::Idle)
    }

    async fn set_finalizers(
        &self,
        namespace: &str,
        name: &str,
        set: &SetView,
        finalizers: &[&str],
    ) -> Result<Arc<SetView>, Error> {
        let api = Api::<SetOutline>::namespaced(self.writer.client(), namespace);
        let patch = json!({"metadata": {"finalizers": finalizers}});
        let patch = guarded(patch, &set.uid, Some(&set.resource_version));
        let what = format!("ManifestWorkReplicaSet {namespace}/{name}");
        match self.writer.patch(&api, name, None, &patch, &what).await {
            Ok(answer) => {
                self.sets.wrote(&answer);
                Ok(Arc::new(SetView::of(&answer)))
            }
            // Gone meanwhile.
            Err(error) if set.deleting && error.status().is_some_and(|status| status.code == 404) => {
                Ok(Arc::new(set.clone()))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the status if it changed; when only counts did, not too often: how long to wait.
    async fn tell(
        &self,
        subject: &Subject<'_>,
        status: ManifestWorkReplicaSetStatus,
    ) -> Result<Option<Duration>, Error> {
        let Subject {
            key,
            namespace,
            name,
            set,
            ..
        } = subject;
        if status == set.status {
            return Ok(None);
        }
        let last = self.memory().get(*key).and_then(|memory| memory.told);
        let now = Instant::now();
        if let Some(last) = last
            && says(&status) == says(&set.status)
            && now < last + TELL
        {
            return Ok(Some(last + TELL - now));
        }
        self.memory().entry((*key).into()).or_default().told = Some(now);
        let patch = json!({"status": {
            "conditions": status.conditions,
            "summary": status.summary,
            "placementSummary": status.placements_summary,
        }});
        let patch = guarded(patch, &set.uid, Some(&set.resource_version));
        let api = Api::<SetOutline>::namespaced(self.writer.client(), namespace);
        let what = format!("ManifestWorkReplicaSet {key}");
        let answer = self
            .writer
            .patch(&api, name, Some("status"), &patch, &what)
            .await?;
        self.sets.wrote(&answer);
        Ok(None)
    }
}

/// Conditions without their messages: what is told at once.
fn says(status: &ManifestWorkReplicaSetStatus) -> Vec<(&str, &str, &str, Option<i64>)> {
    let all = status.conditions.iter();
    all.map(|one| {
        (
            one.type_.as_str(),
            one.status.as_str(),
            one.reason.as_str(),
            one.observed_generation,
        )
    })
    .collect()
}

fn goes<K: Resource<DynamicType = ()>>(object: &PartialObjectMeta<K>) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

fn namespace_goes(error: &Error) -> bool {
    error.status().is_some_and(|status| {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        status.code == 404
            || causes
                .into_iter()
                .any(|cause| cause.reason == "NamespaceTerminating")
    })
}
