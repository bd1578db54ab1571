//! Brings the works of a replica set to what they should be, and says how they are.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Resource,
    api::{DeleteParams, PartialObjectMeta, PostParams, Preconditions},
    core::Request,
};
use muster_crds::{
    cluster::{
        v1::ManagedCluster,
        v1beta1::{Placement, PlacementDecision},
    },
    constants::finalizers,
    work::v1alpha1::{CascadeDeletionPolicy, ManifestWorkReplicaSetStatus},
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;

use super::{
    deploy::{self, Decided, Plan, Write},
    outline::{DecisionView, SetOutline, SetView, SpecHash, Work, WorkOutline, WorkView, Works},
    status,
};
use crate::{
    cache::Cache,
    error::Error,
    queue::{Key, Next},
    writer::{FIELD_MANAGER, Writer, guarded},
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
struct Memory {
    holds: HashMap<String, Hold>,
    told: Option<Instant>,
    /// Works that the server stores otherwise than they were written: the template, and what became of it.
    stored: HashMap<(Arc<str>, Arc<str>), (SpecHash, SpecHash)>,
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
    writer: Arc<Writer>,
    memory: Mutex<HashMap<Key, Memory>>,
    /// Which replica sets wait for a cluster.
    waiting: Mutex<HashMap<String, HashSet<Key>>>,
}

/// A replica set that is looked at.
struct Subject<'a> {
    key: &'a str,
    namespace: &'a str,
    name: &'a str,
    owner: &'a str,
    set: Arc<SetView>,
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

    fn memory(&self) -> MutexGuard<'_, HashMap<Key, Memory>> {
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
        deploy::plan(set, owner, &decided, &works, current, closed, Timestamp::now())
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

    /// The template, as text; `None` when it is not the one that was planned for.
    async fn template(&self, subject: &Subject<'_>) -> Result<Option<Box<RawValue>>, Error> {
        #[derive(Deserialize)]
        struct Whole {
            spec: Template,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Template {
            #[serde(default)]
            manifest_work_template: Option<Box<RawValue>>,
        }
        let Subject {
            key,
            namespace,
            name,
            set,
            ..
        } = subject;
        let what = format!("get ManifestWorkReplicaSet {key}");
        let request = Request::new(SetOutline::url_path(&(), Some(namespace)))
            .get(name, &kube::api::GetParams::default())
            .map_err(|error| Error::request(what.clone())(kube::Error::BuildRequest(error)))?;
        let client = self.writer.client();
        let text = self
            .writer
            .bounded(what.clone(), client.request_text(request))
            .await?;
        let read = |error| Error::request(what.clone())(kube::Error::SerdeError(error));
        let outline: SetOutline = serde_json::from_str(&text).map_err(read)?;
        if SetView::of(&outline).template != set.template {
            self.sets.wrote(&outline);
            return Ok(None);
        }
        let whole: Whole = serde_json::from_str(&text).map_err(read)?;
        let none = || RawValue::from_string("{}".to_owned()).unwrap_or_default();
        Ok(Some(whole.spec.manifest_work_template.unwrap_or_else(none)))
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

    async fn write(&self, subject: &Subject<'_>, write: &Write, template: &RawValue) -> Result<(), Error> {
        match write {
            Write::Create { cluster, placement } => self.create(subject, cluster, placement, template).await,
            Write::Delete { cluster, name, uid } => self.delete(cluster, name, uid).await,
            Write::Change {
                cluster,
                name,
                uid,
                spec,
                labels,
            } => {
                let test = json!({"op": "test", "path": "/metadata/uid", "value": uid});
                let mut patch = vec![test.to_string()];
                for (key, value) in labels {
                    let path = format!("/metadata/labels/{}", key.replace('~', "~0").replace('/', "~1"));
                    patch.push(json!({"op": "add", "path": path, "value": value}).to_string());
                }
                if *spec {
                    patch.push(format!(r#"{{"op":"add","path":"/spec","value":{template}}}"#));
                }
                let url = format!(
                    "{}/{name}?fieldManager={FIELD_MANAGER}",
                    WorkOutline::url_path(&(), Some(cluster))
                );
                let what = format!("patch ManifestWork {cluster}/{name}");
                let request = http::Request::patch(url)
                    .header(http::header::CONTENT_TYPE, "application/json-patch+json")
                    .body(format!("[{}]", patch.join(",")).into_bytes())
                    .map_err(|error| Error::request(what.clone())(kube::Error::HttpError(error)))?;
                let client = self.writer.client();
                let work = self
                    .writer
                    .bounded(what, client.request::<WorkOutline>(request))
                    .await?;
                self.wrote(subject, &work, *spec);
                Ok(())
            }
        }
    }

    async fn create(
        &self,
        subject: &Subject<'_>,
        cluster: &str,
        placement: &str,
        template: &RawValue,
    ) -> Result<(), Error> {
        let labels = subject.set.work_labels(subject.owner, placement);
        let name = work_name(subject.namespace, subject.name);
        let named = json!({"name": name, "namespace": cluster, "labels": labels});
        match self.post(subject, cluster, &named, template).await {
            Err(error) if error.is_conflict() => {}
            result => return result,
        }
        // A work of that name is there: one of ours that the watch has not told yet, or somebody else's.
        let api = Api::<WorkOutline>::namespaced(self.writer.client(), cluster);
        let what = format!("get ManifestWork {cluster}/{name}");
        if let Some(work) = self.writer.bounded(what, api.get_opt(&name)).await?
            && WorkView::of(&work).owner() == Some(subject.owner)
        {
            self.works.wrote(&work);
            return Ok(());
        }
        let prefix = format!("{}-", subject.name);
        let unnamed = json!({"generateName": prefix, "namespace": cluster, "labels": labels});
        self.post(subject, cluster, &unnamed, template).await
    }

    async fn post(
        &self,
        subject: &Subject<'_>,
        cluster: &str,
        metadata: &Value,
        template: &RawValue,
    ) -> Result<(), Error> {
        let body = format!(
            r#"{{"apiVersion":"{}","kind":"{}","metadata":{metadata},"spec":{template}}}"#,
            WorkOutline::api_version(&()),
            WorkOutline::kind(&()),
        );
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let what = format!("create ManifestWork in {cluster}");
        let request = Request::new(WorkOutline::url_path(&(), Some(cluster)))
            .create(&parameters, body.into_bytes())
            .map_err(|error| Error::request(what.clone())(kube::Error::BuildRequest(error)))?;
        let client = self.writer.client();
        let work = self
            .writer
            .bounded(what, client.request::<WorkOutline>(request))
            .await?;
        self.wrote(subject, &work, true);
        Ok(())
    }

    /// The answer to a write of a work, with the template or without.
    fn wrote(&self, subject: &Subject<'_>, work: &WorkOutline, spec: bool) {
        self.works.wrote(work);
        let stored = work.spec();
        let metadata = work.meta();
        if let (true, Some(cluster), Some(name)) = (spec, &metadata.namespace, &metadata.name) {
            let place = (cluster.as_str().into(), name.as_str().into());
            let mut memory = self.memory();
            let memory = memory.entry(subject.key.into()).or_default();
            if stored == subject.set.template {
                memory.stored.remove(&place);
            } else {
                memory.stored.insert(place, (subject.set.template, stored));
            }
        }
    }

    async fn delete(&self, cluster: &str, name: &str, uid: &str) -> Result<(), Error> {
        let api = Api::<WorkOutline>::namespaced(self.writer.client(), cluster);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let what = format!("delete ManifestWork {cluster}/{name}");
        match self.writer.bounded(what, api.delete(name, &parameters)).await {
            // As long as its klusterlet holds it.
            Ok(answer) => match answer.left() {
                Some(work) => self.works.wrote(&work),
                None => self.works.removed(cluster, name),
            },
            Err(error) if error.status().is_some_and(|status| status.code == 404) => {
                self.works.removed(cluster, name);
            }
            // Another in its place: the watch tells.
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
        Ok(())
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

/// The name of a replica set's works: the same each time, so that none is made twice, and another for every namespace.
fn work_name(namespace: &str, name: &str) -> String {
    // FNV-1a
    let hash = namespace.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{name}-{:05x}", hash & 0xf_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_are_named_after_their_replica_set_and_its_namespace() {
        let name = work_name("shop", "web");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(name, work_name("shop", "web"));
        assert_ne!(name, work_name("other", "web"));
    }
}
