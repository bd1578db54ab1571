//! What is kept of replica sets, works, placements and decisions: names, labels, conditions, hashes; never what they embed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, api::ObjectMeta};
use muster_crds::{
    cluster::v1beta1::PlacementDecision,
    conditions::find,
    constants::{conditions, labels},
    work::{
        v1::ManifestWork,
        v1alpha1::{
            CascadeDeletionPolicy, LocalPlacementReference, ManifestWorkReplicaSet,
            ManifestWorkReplicaSetStatus,
        },
    },
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::rollout::State;
use crate::{cache::Cache, registration::view};

/// The hash of a work's spec, made as the spec is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecHash(pub u64);

impl<'de> Deserialize<'de> for SpecHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::of)
    }
}

impl SpecHash {
    /// Of a spec, whatever the order of its fields. That a manifest was never made (`creationTimestamp: null`) says nothing.
    pub fn of(mut spec: Value) -> Self {
        let manifests = spec.pointer_mut("/workload/manifests");
        for manifest in manifests.and_then(Value::as_array_mut).into_iter().flatten() {
            let metadata = manifest.get_mut("metadata").and_then(Value::as_object_mut);
            if let Some(metadata) = metadata
                && metadata.get("creationTimestamp").is_some_and(Value::is_null)
            {
                metadata.remove("creationTimestamp");
            }
        }
        let mut hasher = DefaultHasher::new();
        view::hash(&spec, &mut hasher);
        Self(hasher.finish())
    }
}

/// A ManifestWork without what it embeds.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = ManifestWork)]
pub struct WorkOutline {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SpecHash,
    #[serde(default)]
    status: WorkStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct WorkStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

impl WorkOutline {
    /// Hash of its spec.
    pub fn spec(&self) -> SpecHash {
        self.spec
    }
}

/// A ManifestWorkReplicaSet without its template.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = ManifestWorkReplicaSet)]
pub struct SetOutline {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SetSpec,
    #[serde(default)]
    status: ManifestWorkReplicaSetStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SetSpec {
    manifest_work_template: SpecHash,
    placement_refs: Vec<LocalPlacementReference>,
    cascade_deletion_policy: CascadeDeletionPolicy,
}

/// What is kept of a replica set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetView {
    /// Its uid.
    pub uid: String,
    /// Its resource version.
    pub resource_version: String,
    /// Its generation.
    pub generation: Option<i64>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Its labels, which its works have too.
    pub labels: BTreeMap<String, String>,
    /// Hash of its template.
    pub template: SpecHash,
    /// Its placements.
    pub placement_refs: Vec<LocalPlacementReference>,
    /// How it goes.
    pub policy: CascadeDeletionPolicy,
    /// Its status.
    pub status: ManifestWorkReplicaSetStatus,
}

impl SetView {
    /// What is kept of a replica set.
    pub fn of(set: &SetOutline) -> Self {
        let metadata = &set.metadata;
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation,
            deleting: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            labels: metadata.labels.clone().unwrap_or_default(),
            template: set.spec.manifest_work_template,
            placement_refs: set.spec.placement_refs.clone(),
            policy: set.spec.cascade_deletion_policy,
            status: set.status.clone(),
        }
    }

    /// The labels of its works for a placement.
    pub fn work_labels(&self, owner: &str, placement: &str) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.insert(labels::REPLICA_SET.to_owned(), owner.to_owned());
        labels.insert(labels::REPLICA_SET_PLACEMENT.to_owned(), placement.to_owned());
        labels
    }
}

/// What is kept of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// True, False, or neither.
    pub holds: Option<bool>,
    /// The generation it speaks of.
    pub of: Option<i64>,
    /// Since when it is so.
    pub since: Timestamp,
}

/// What is kept of a work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkView {
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: Option<i64>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Hash of its spec.
    pub spec: SpecHash,
    /// When its spec was last written, as far as the server tells.
    pub written: Option<Timestamp>,
    /// Whether it is applied.
    pub applied: Option<Said>,
    /// Whether all its objects are there.
    pub available: Option<Said>,
    /// Whether it is on its way.
    pub progressing: Option<Said>,
    /// Whether it is not as good as it should be.
    pub degraded: Option<Said>,
}

impl WorkView {
    /// What is kept of a work.
    pub fn of(work: &WorkOutline) -> Self {
        let metadata = &work.metadata;
        let said = |type_: &str| {
            find(&work.status.conditions, type_).map(|condition| Said {
                holds: match condition.status.as_str() {
                    "True" => Some(true),
                    "False" => Some(false),
                    _ => None,
                },
                of: condition.observed_generation,
                since: condition.last_transition_time.0,
            })
        };
        let written = metadata.managed_fields.iter().flatten().filter(|entry| {
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
            entry.subresource.as_deref().unwrap_or_default().is_empty()
                && fields.is_some_and(|fields| fields.get("f:spec").is_some())
        });
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation,
            deleting: metadata.deletion_timestamp.is_some(),
            labels: metadata.labels.clone().unwrap_or_default(),
            spec: work.spec,
            written: written
                .filter_map(|entry| entry.time.as_ref().map(|time| time.0))
                .max(),
            applied: said(conditions::APPLIED),
            available: said(conditions::AVAILABLE),
            progressing: said(conditions::PROGRESSING),
            degraded: said(conditions::DEGRADED),
        }
    }

    /// The replica set it is of.
    pub fn owner(&self) -> Option<&str> {
        self.labels.get(labels::REPLICA_SET).map(String::as_str)
    }

    /// The placement it was made for.
    pub fn placement(&self) -> &str {
        self.labels
            .get(labels::REPLICA_SET_PLACEMENT)
            .map_or("", String::as_str)
    }

    /// How far a work with the present template is, from what its klusterlet says of the present generation.
    pub fn state(&self) -> State {
        let present =
            |said: &Option<Said>| said.filter(|said| said.of.is_some() && said.of == self.generation);
        let stale = |said: &Option<Said>| said.is_some() && present(said).is_none();
        let applied = present(&self.applied).is_some_and(|said| said.holds == Some(true));
        let Some(progressing) = present(&self.progressing).filter(|_| applied && !stale(&self.degraded))
        else {
            return State::Applying(self.written);
        };
        // A condition that was so before the template came has its old time.
        let since = |said: Said| Some(self.written.map_or(said.since, |written| written.max(said.since)));
        match (progressing.holds, self.degraded) {
            (Some(false), _) => State::Succeeded(since(progressing)),
            (Some(true), Some(degraded)) if degraded.holds == Some(true) => State::Failed(since(degraded)),
            _ => State::Progressing(since(progressing)),
        }
    }
}

/// What is kept of a PlacementDecision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecisionView {
    /// Its placement.
    pub placement: String,
    /// Index of its group.
    pub index: i32,
    /// Name of its group.
    pub group: String,
    /// The clusters decided for.
    pub clusters: Vec<String>,
}

impl DecisionView {
    /// What is kept of a decision.
    pub fn of(decision: &PlacementDecision) -> Self {
        let label = |key: &str| {
            let labels = decision.metadata.labels.as_ref();
            labels.and_then(|all| all.get(key)).cloned().unwrap_or_default()
        };
        let clusters = decision.status.iter().flat_map(|status| &status.decisions);
        Self {
            placement: label(labels::PLACEMENT),
            index: label(labels::DECISION_GROUP_INDEX).parse().unwrap_or(0),
            group: label(labels::DECISION_GROUP_NAME),
            clusters: clusters
                .map(|one| one.cluster_name.clone())
                .filter(|name| !name.is_empty())
                .collect(),
        }
    }
}

/// A work, and where it is.
#[derive(Clone, Debug)]
pub struct Work {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// What is kept of it.
    pub view: Arc<WorkView>,
}

type Place = (Arc<str>, Arc<str>);

#[derive(Default)]
struct Index {
    works: HashMap<Arc<str>, BTreeSet<Place>>,
    owners: HashMap<Place, Arc<str>>,
}

/// All works of replica sets, by replica set.
pub struct Works {
    /// What is kept of each.
    pub cache: Arc<Cache<WorkOutline, WorkView>>,
    index: Mutex<Index>,
}

impl Default for Works {
    fn default() -> Self {
        Self {
            cache: Cache::new(|work, _, _| WorkView::of(work)),
            index: Mutex::default(),
        }
    }
}

impl Works {
    /// Takes note of what is known of a work now, and calls `concerned` for the replica sets that it was and is of.
    pub fn seen(&self, cluster: &str, name: &str, mut concerned: impl FnMut(&str)) {
        let place: Place = (cluster.into(), name.into());
        let mut index = self.index();
        let now = self.cache.get(cluster, name).and_then(|view| {
            view.labels
                .get(labels::REPLICA_SET)
                .map(|owner| owner.as_str().into())
        });
        let before = match &now {
            Some(owner) => index.owners.insert(place.clone(), Arc::clone(owner)),
            None => index.owners.remove(&place),
        };
        if before != now
            && let Some(before) = &before
            && let Some(works) = index.works.get_mut(before)
        {
            works.remove(&place);
            if works.is_empty() {
                index.works.remove(before);
            }
        }
        if let Some(owner) = &now {
            index.works.entry(owner.clone()).or_default().insert(place);
        }
        drop(index);
        if before != now
            && let Some(before) = before
        {
            concerned(&before);
        }
        if let Some(now) = now {
            concerned(&now);
        }
    }

    /// The answer to a write of a work.
    pub fn wrote(&self, work: &WorkOutline) {
        self.cache.wrote(work);
        let metadata = &work.metadata;
        if let (Some(cluster), Some(name)) = (&metadata.namespace, &metadata.name) {
            self.seen(cluster, name, |_| ());
        }
    }

    /// A work that is gone.
    pub fn removed(&self, cluster: &str, name: &str) {
        self.cache.removed(cluster, name);
        self.seen(cluster, name, |_| ());
    }

    /// The works of a replica set, by cluster and name.
    pub fn of(&self, owner: &str) -> Vec<Work> {
        let index = self.index();
        let places = index.works.get(owner).into_iter().flatten();
        places
            .filter_map(|(cluster, name)| {
                Some(Work {
                    cluster: cluster.clone(),
                    name: name.clone(),
                    view: self.cache.get(cluster, name)?,
                })
            })
            .collect()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "outline_tests.rs"]
mod tests;
