//! What the agent knows: the hub's works, what was applied of them, and what the managed cluster was last seen to hold.
//!
//! One plain structure behind one lock, never held across an await. Payloads of applied objects are kept between the watch
//! event that brought them and the reconcile that looks at them; of those seen last, some longer (`recent`).

use super::agent::progress::Progress;
use super::contention::Contention;
use super::objects::Served;
use super::policy;
use super::recent::Recent;
use super::refusals::Refusals;
use super::status::Report;
use super::trust::{HubSeen, Told};
use muster_crds::conditions::NewCondition;
use muster_crds::work::v1::{
    AppliedManifestResourceMeta, AppliedManifestWork, ManifestWork, ManifestWorkStatus,
};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tokio::time::Instant;

/// An object of the managed cluster, whatever version it is asked for in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// API group.
    pub group: String,
    /// Plural resource.
    pub resource: String,
    /// Namespace, `""` for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What a drift watch last saw of an object.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The object, until a reconcile took it.
    pub object: Option<Arc<Value>>,
    /// UIDs of the AppliedManifestWorks that own it.
    records: Vec<String>,
}

/// What is known of an object without asking.
#[derive(Debug)]
pub enum Known {
    /// It was last seen so.
    Object(Arc<Value>),
    /// It was not seen.
    Absent,
    /// It is there, and has to be asked for.
    Unknown,
}

/// What the agent remembers of one manifest between reconciles.
#[derive(Debug, Clone, Default)]
pub struct ManifestState {
    /// Where its object lives, once the kind is known.
    pub key: Option<ObjectKey>,
    /// The resource it is applied as.
    pub served: Option<Arc<Served>>,
    /// Must be looked at again.
    pub dirty: bool,
    /// UID of the object.
    pub uid: String,
    /// resourceVersion at which the object was found to be as it should be.
    pub settled: Option<String>,
    /// Hash of the manifest and all that the work says about it.
    pub fingerprint: String,
    /// An earlier manifest of the same object.
    pub twin: Option<usize>,
    /// Outcome of the last look.
    pub report: Option<Report>,
    /// Generation of the work at which it was last applied.
    pub applied_at: Option<i64>,
    /// The fight over it, if there is one.
    pub contention: Contention,
    /// The work's executor may not see the object: nothing that happens to it is told.
    pub blind: bool,
}

/// One work.
#[derive(Debug, Clone)]
pub struct WorkState {
    /// The work, without its status.
    pub work: Arc<ManifestWork>,
    /// Its status as the hub has it.
    pub status: Arc<ManifestWorkStatus>,
    /// What was found that decides how it is applied.
    pub progress: Progress,
    /// One for each manifest of the generation below.
    pub manifests: Vec<ManifestState>,
    /// Generation that `manifests` belongs to.
    pub generation: Option<i64>,
    /// Hash of what the work says about all its manifests, which `manifests` belongs to.
    pub common: String,
    /// Known only from the last run: the hub has not been reached since.
    pub cached: bool,
    /// What applying it would change, when that was asked.
    pub rehearsed: Option<Rehearsal>,
    /// What of it could not be removed, and why, as far as this run has tried.
    pub unremoved: Option<Vec<String>>,
}

/// The answer to what applying a work would change.
#[derive(Debug, Clone, PartialEq)]
pub struct Rehearsal {
    /// The annotation that asked.
    pub asked: String,
    /// The generation that was asked about.
    pub generation: Option<i64>,
    /// The answer.
    pub answer: NewCondition,
}

/// Everything the agent knows.
#[derive(Debug, Default)]
pub struct State {
    /// Works by name.
    pub works: HashMap<String, WorkState>,
    /// AppliedManifestWorks by their own name.
    pub applied: HashMap<String, Arc<AppliedManifestWork>>,
    /// Which works an object belongs to.
    pub owners: HashMap<ObjectKey, HashSet<String>>,
    /// Where owned objects are that may own others: how many of them are in which namespace, `""` for custom objects of the
    /// cluster.
    pub hosts: HashMap<String, usize>,
    /// Whether there is any owned object.
    pub holding: tokio::sync::watch::Sender<bool>,
    /// What the drift watches hold.
    pub seen: HashMap<ObjectKey, Seen>,
    /// What those seen last hold.
    recent: Recent,
    /// Which of it is owned by an AppliedManifestWork, by its UID, and in which version it was seen.
    owned: HashMap<String, HashMap<ObjectKey, String>>,
    /// Which work the cluster was last told of under each name, as long as something of it is on the cluster.
    pub told: HashMap<String, Told>,
    /// What the last run found of works by their names, with their UIDs.
    pub last_run: HashMap<String, (Option<String>, ManifestWorkStatus)>,
    /// UIDs of the works that were last deleted at the hub while this agent looked on: with them it is the hub's word that they
    /// are over, and not that it lost them.
    ended: VecDeque<String>,
    /// Since when works have been missing at the hub in this run, by AppliedManifestWork.
    pub missing: HashMap<String, Instant>,
    /// What could not be removed of AppliedManifestWorks that are being deleted without their work.
    pub refusals: Refusals,
    /// Which hub it is.
    pub hub: Option<HubSeen>,
    /// Why the hub is not what it was before.
    pub hub_changed: Option<&'static str>,
    /// The hub's list of works is complete, and the cluster's of AppliedManifestWorks.
    pub hub_synced: bool,
    /// The cluster's list of AppliedManifestWorks is complete.
    pub applied_synced: bool,
}

/// Works remembered that have ended; only records that somebody left without an end need them.
const ENDED: usize = 1024;

/// Whether only its kind is missing to a manifest whose resource is not known.
pub fn misses_kind(report: &Report) -> bool {
    report.meta.resource.is_empty() && !report.meta.kind.is_empty() && !report.meta.name.is_empty()
}

impl WorkState {
    /// The status to go by: the hub's, with what it has not heard of yet.
    pub fn so_far(&self) -> Cow<'_, ManifestWorkStatus> {
        self.progress.over(&self.work, &self.status)
    }
}

impl State {
    /// The hub has this work now. True when it must be reconciled.
    pub fn work_applied(&mut self, mut work: ManifestWork) -> bool {
        let name = work.metadata.name.clone().unwrap_or_default();
        let status = Arc::new(work.status.take().unwrap_or_default());
        work.metadata.managed_fields = None;
        match self.works.get_mut(&name) {
            Some(known) if known.work.metadata.uid == work.metadata.uid => {
                let changed = known.cached
                    || known.work.metadata.generation != work.metadata.generation
                    || known.work.metadata.deletion_timestamp != work.metadata.deletion_timestamp
                    || known.work.metadata.finalizers != work.metadata.finalizers
                    || known.work.metadata.labels != work.metadata.labels
                    || known.work.metadata.annotations != work.metadata.annotations;
                known.cached = false;
                known.status = status;
                known.work = Arc::new(work);
                changed
            }
            _ => {
                self.forget_objects(&name);
                let progress = match self.last_run.remove(&name) {
                    Some((uid, found)) if uid == work.metadata.uid => Progress::of_last_run(found),
                    _ => Progress::default(),
                };
                let state = WorkState {
                    work: Arc::new(work),
                    status,
                    progress,
                    manifests: Vec::new(),
                    generation: None,
                    common: String::new(),
                    cached: false,
                    rehearsed: None,
                    unremoved: None,
                };
                self.works.insert(name, state);
                true
            }
        }
    }

    /// Whether a later version of this very work is known than this one.
    pub fn knows_newer(&self, work: &ManifestWork) -> bool {
        let name = work.metadata.name.as_deref().unwrap_or_default();
        self.works.get(name).is_some_and(|known| {
            let (known, other) = (&known.work.metadata, &work.metadata);
            known.uid == other.uid
                && revision(known.resource_version.as_deref()) > revision(other.resource_version.as_deref())
        })
    }

    /// The hub said that the work with this UID was deleted.
    pub fn work_ended(&mut self, uid: Option<String>) {
        if self.ended.len() >= ENDED {
            self.ended.pop_front();
        }
        self.ended.extend(uid);
    }

    /// Whether the hub has said so in this run.
    pub fn has_ended(&self, uid: &str) -> bool {
        self.ended.iter().any(|ended| ended == uid)
    }

    /// The hub no longer has this work.
    pub fn work_gone(&mut self, name: &str) {
        self.forget_objects(name);
        self.works.remove(name);
    }

    /// Ties an object to a work's manifest. From then on, what a drift watch sees of it counts: it is called before the
    /// object is written, so that no event between the write and its answer is lost. Returns the other works that have it.
    pub fn own(&mut self, key: &ObjectKey, work: &str, ordinal: usize) -> Vec<String> {
        let works = self.owners.entry(key.clone()).or_default();
        if works.is_empty()
            && let Some(place) = host(key)
        {
            *self.hosts.entry(place.to_owned()).or_default() += 1;
        }
        works.insert(work.to_owned());
        self.holding
            .send_if_modified(|holding| !std::mem::replace(holding, true));
        let mut others: Vec<String> = works.iter().filter(|w| *w != work).cloned().collect();
        others.sort_unstable();
        let manifests = self.works.get_mut(work).map(|w| &mut w.manifests);
        let former = manifests
            .and_then(|m| m.get_mut(ordinal))
            .and_then(|manifest| manifest.key.replace(key.clone()));
        // Its kind has got another plural, or scope.
        if let Some(former) = former.filter(|former| former != key) {
            self.disown(&former, work);
        }
        others
    }

    /// Whether several works have an object.
    pub fn is_shared(&self, key: &ObjectKey) -> bool {
        self.owners.get(key).is_some_and(|works| works.len() > 1)
    }

    /// A look ended with the object at this revision. When a drift watch saw just that last, as it does of our own
    /// writes, there is nothing more to look at.
    pub fn settled(&mut self, key: &ObjectKey, work: &str, ordinal: usize, revision: &str) {
        let Some(seen) = self.seen.get_mut(key) else {
            return;
        };
        let same = |object: &Arc<Value>| object["metadata"]["resourceVersion"] == revision;
        let manifests = self.works.get_mut(work).map(|w| &mut w.manifests);
        if seen.object.as_ref().is_some_and(same)
            && let Some(manifest) = manifests.and_then(|m| m.get_mut(ordinal))
        {
            seen.object = None;
            manifest.dirty = false;
        }
    }

    fn forget_objects(&mut self, work: &str) {
        let Some(state) = self.works.get(work) else { return };
        let keys: Vec<ObjectKey> = state.manifests.iter().filter_map(|m| m.key.clone()).collect();
        for key in keys {
            self.disown(&key, work);
        }
    }

    /// Unties an object from a work.
    pub fn disown(&mut self, key: &ObjectKey, work: &str) {
        if let Some(works) = self.owners.get_mut(key) {
            works.remove(work);
            if works.is_empty() {
                self.owners.remove(key);
                self.left(key);
            }
        }
    }

    fn left(&mut self, key: &ObjectKey) {
        if let Some(place) = host(key)
            && let Some(count) = self.hosts.get_mut(place)
        {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(place);
            }
        }
        let holds = !self.owners.is_empty();
        self.holding
            .send_if_modified(|holding| std::mem::replace(holding, holds) != holds);
    }

    /// Works that have manifests of a kind that was not served when they were looked at, in this API group.
    pub fn missing_kinds(&self, group: Option<&str>) -> Vec<String> {
        let missing = |m: &ManifestState| {
            m.served.is_none()
                && m.report
                    .as_ref()
                    .is_some_and(|r| misses_kind(r) && group.is_none_or(|g| r.meta.group == g))
        };
        let works = self.works.iter().filter(|(_, w)| w.manifests.iter().any(missing));
        works.map(|(name, _)| name.clone()).collect()
    }

    /// A drift watch began, and found an object. What was kept of it does not count any more, however much later it seems:
    /// a cluster that was restored has lower revisions than it had. Returns the works to reconcile for it.
    pub fn object_listed(&mut self, key: &ObjectKey, object: Value) -> Vec<String> {
        self.recent.remove(key);
        self.object_seen(key, object)
    }

    /// A drift watch saw an object. Returns the works to reconcile for it.
    pub fn object_seen(&mut self, key: &ObjectKey, object: Value) -> Vec<String> {
        let revision = object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let mut works = self.mark_dirty(key, Some(&revision));
        let records = self.note_owners(key, &object);
        self.recent.put(key, &object);
        let waited_for = !works.is_empty();
        for record in object["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
        {
            works.extend(self.disowning(key, record));
        }
        let object = waited_for.then(|| Arc::new(object));
        self.seen.insert(key.clone(), Seen { object, records });
        works
    }

    /// Nobody tells of changes of these objects any more. Returns the works that have them.
    pub fn unwatched(&mut self, is: impl Fn(&ObjectKey) -> bool) -> Vec<String> {
        let mut works = Vec::new();
        for (name, work) in &mut self.works {
            let mut any = false;
            for manifest in &mut work.manifests {
                if manifest.key.as_ref().is_some_and(&is) {
                    manifest.dirty = true;
                    any = true;
                }
            }
            if any {
                works.push(name.clone());
            }
        }
        works
    }

    /// The work that does not have an object its record owns: a stray, of a reconcile that was broken off.
    fn disowning(&self, key: &ObjectKey, owner: &Value) -> Option<String> {
        let record = self.applied.get(owner["name"].as_str()?)?;
        if record.metadata.uid.as_deref() != owner["uid"].as_str() {
            return None;
        }
        let work = &record.spec.manifest_work_name;
        let has = self.owners.get(key).is_some_and(|works| works.contains(work));
        (!has && self.works.contains_key(work)).then(|| work.clone())
    }

    fn note_owners(&mut self, key: &ObjectKey, object: &Value) -> Vec<String> {
        let owners = object["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten();
        let records: Vec<String> = owners
            .filter(|o| o["kind"] == "AppliedManifestWork")
            .filter_map(|o| o["uid"].as_str().map(str::to_owned))
            .filter(|_| policy::is_our_doing(object))
            .collect();
        self.forget_owners(key, &records);
        let api_version = object["apiVersion"].as_str().unwrap_or_default();
        let version = api_version.rsplit('/').next().unwrap_or_default();
        for record in &records {
            let objects = self.owned.entry(record.clone()).or_default();
            objects.insert(key.clone(), version.to_owned());
        }
        records
    }

    fn forget_owners(&mut self, key: &ObjectKey, but: &[String]) {
        let before = self.seen.get(key).map(|s| s.records.clone()).unwrap_or_default();
        for record in before.iter().filter(|r| !but.contains(r)) {
            if let Some(objects) = self.owned.get_mut(record) {
                objects.remove(key);
                if objects.is_empty() {
                    self.owned.remove(record);
                }
            }
        }
    }

    /// What the record with this UID owns and none of these manifests names.
    pub fn strays(&self, record: &str, reports: &[Report]) -> Vec<AppliedManifestResourceMeta> {
        let named: HashSet<(&str, &str, &str, &str)> = reports
            .iter()
            .map(|r| {
                (
                    r.meta.group.as_str(),
                    r.meta.resource.as_str(),
                    r.meta.namespace.as_str(),
                    r.meta.name.as_str(),
                )
            })
            .collect();
        let objects = self.owned.get(record).into_iter().flatten();
        let stray = |(key, _): &(&ObjectKey, &String)| {
            !named.contains(&(&key.group, &key.resource, &key.namespace, &key.name))
        };
        objects
            .filter(stray)
            .map(|(key, version)| AppliedManifestResourceMeta {
                group: key.group.clone(),
                version: version.clone(),
                resource: key.resource.clone(),
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                uid: String::new(),
            })
            .collect()
    }

    /// A drift watch saw an object go. Returns the works to reconcile for it.
    pub fn object_gone(&mut self, key: &ObjectKey) -> Vec<String> {
        self.forget_owners(key, &[]);
        self.seen.remove(key);
        self.recent.remove(key);
        self.mark_dirty(key, None)
    }

    /// An object is so, by the answer to a write.
    pub fn wrote(&mut self, key: &ObjectKey, object: &Value) {
        self.recent.put(key, object);
    }

    /// What is known of an object in this API version, for a look at it. Two works may have it in two versions, and each has a
    /// watch: a look is at the manifest's own.
    pub fn look(&mut self, key: &ObjectKey, api_version: &Value) -> Known {
        let Some(seen) = self.seen.get_mut(key) else {
            return Known::Absent;
        };
        match seen.object.take() {
            Some(object) if object["apiVersion"] == *api_version => Known::Object(object),
            _ => Known::Unknown,
        }
    }

    /// An object as it was last seen in this API version: enough for a write that fails if it has changed since.
    pub fn last_seen(&self, key: &ObjectKey, api_version: &Value) -> Option<Arc<Value>> {
        let object = self.recent.get(key)?;
        (object["apiVersion"] == *api_version).then(|| Arc::new(object))
    }

    fn mark_dirty(&mut self, key: &ObjectKey, revision: Option<&str>) -> Vec<String> {
        let Some(owners) = self.owners.get(key) else {
            return Vec::new();
        };
        let mut works = Vec::new();
        for name in owners {
            let Some(state) = self.works.get_mut(name) else {
                continue;
            };
            let matching = state.manifests.iter_mut().filter(|m| m.key.as_ref() == Some(key));
            for manifest in matching.filter(|m| revision.is_none() || m.settled.as_deref() != revision) {
                manifest.dirty = true;
                if !works.contains(name) {
                    works.push(name.clone());
                }
            }
        }
        works
    }
}

/// Where an object could own others: owners are in the same namespace, or of the cluster. Of the latter, Kubernetes' own
/// kinds own nothing.
fn host(key: &ObjectKey) -> Option<&str> {
    let own = key.group.is_empty() || key.group.ends_with(".k8s.io") || !key.group.contains('.');
    (!key.namespace.is_empty() || !own).then_some(key.namespace.as_str())
}

/// A resourceVersion as a number: that is how they are compared (KEP-5504).
pub fn revision(text: Option<&str>) -> u64 {
    text.and_then(|r| r.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn work(generation: i64, uid: &str) -> ManifestWork {
        serde_json::from_value(
            json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
            "metadata": {"name": "w", "namespace": "c", "uid": uid, "generation": generation}}),
        )
        .unwrap()
    }

    fn key() -> ObjectKey {
        ObjectKey {
            group: String::new(),
            resource: "configmaps".into(),
            namespace: "d".into(),
            name: "a".into(),
        }
    }

    #[test]
    fn only_what_matters_asks_for_a_reconcile() {
        let mut state = State::default();
        assert!(state.work_applied(work(1, "u")));
        assert!(!state.work_applied(work(1, "u")), "nothing changed");
        let mut with_status = work(1, "u");
        with_status.status = Some(ManifestWorkStatus::default());
        assert!(!state.work_applied(with_status), "only the status changed");
        assert!(state.work_applied(work(2, "u")));
        assert!(state.work_applied(work(2, "v")), "another work of the same name");
    }

    #[test]
    fn events_reach_the_works_that_own_the_object_once_it_differs() {
        let mut state = State::default();
        state.work_applied(work(1, "u"));
        let object = |rv: &str| json!({"metadata": {"resourceVersion": rv}});
        assert!(
            state.object_seen(&key(), object("1")).is_empty(),
            "nobody owns it"
        );
        let manifest = ManifestState {
            key: Some(key()),
            settled: Some("2".into()),
            ..ManifestState::default()
        };
        state.works.get_mut("w").unwrap().manifests.push(manifest);
        state.own(&key(), "w", 0);
        assert!(state.object_seen(&key(), object("2")).is_empty(), "our own write");
        assert!(state.seen[&key()].object.is_none());
        assert_eq!(state.object_seen(&key(), object("3")), ["w"]);
        assert!(state.seen[&key()].object.is_some());
        assert_eq!(state.object_gone(&key()), ["w"]);
        assert!(*state.holding.borrow() && state.hosts["d"] == 1);
        state.own(&key(), "w", 0);
        assert_eq!(state.hosts["d"], 1, "the same object");
        state.work_gone("w");
        assert!(state.owners.is_empty());
        assert!(!*state.holding.borrow() && state.hosts.is_empty());
    }

    #[test]
    fn what_a_restored_cluster_lists_is_so_however_much_later_what_is_kept_seems() {
        let mut state = State::default();
        let object = |rv: &str| json!({"apiVersion": "v1", "metadata": {"resourceVersion": rv}});
        let revision = |state: &State| {
            let kept = state.last_seen(&key(), &json!("v1")).unwrap();
            kept["metadata"]["resourceVersion"].clone()
        };
        state.wrote(&key(), &object("500"));
        state.object_seen(&key(), object("300"));
        assert_eq!(revision(&state), "500", "an event may come after the answer");
        state.object_listed(&key(), object("300"));
        assert_eq!(revision(&state), "300");
        state.object_seen(&key(), object("301"));
        assert_eq!(revision(&state), "301");
    }

    #[test]
    fn events_during_the_first_look_are_not_lost() {
        let object = |rv: &str| json!({"metadata": {"resourceVersion": rv}});
        for (last, looked_at_again) in [("1", false), ("2", true)] {
            let mut state = State::default();
            state.work_applied(work(1, "u"));
            state
                .works
                .get_mut("w")
                .unwrap()
                .manifests
                .push(ManifestState::default());
            state.own(&key(), "w", 0);
            // The object is created at revision 1; somebody may write it before the creation is answered.
            state.object_seen(&key(), object("1"));
            state.object_seen(&key(), object(last));
            state.settled(&key(), "w", 0, "1");
            assert_eq!(state.works["w"].manifests[0].dirty, looked_at_again, "{last}");
            assert_eq!(state.seen[&key()].object.is_some(), looked_at_again, "{last}");
        }
    }
}
