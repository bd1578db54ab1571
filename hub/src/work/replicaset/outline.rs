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
mod tests {
    use serde_json::json;

    use super::*;

    fn work(change: impl FnOnce(&mut Value)) -> WorkOutline {
        let condition = |type_: &str, status: &str, second: i64| {
            json!({"type": type_, "status": status, "reason": "R", "message": "", "observedGeneration": 2,
                "lastTransitionTime": Timestamp::from_second(second).unwrap().to_string()})
        };
        let mut value = json!({
            "metadata": {"name": "w", "namespace": "c1", "uid": "u", "resourceVersion": "7", "generation": 2,
                "labels": {labels::REPLICA_SET: "ns.a", labels::REPLICA_SET_PLACEMENT: "p"}},
            "spec": {"workload": {"manifests": [{"kind": "Job"}]}},
            "status": {"conditions": [condition("Applied", "True", 10), condition("Progressing", "True", 20),
                condition("Degraded", "False", 30)]},
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_cluster_is_as_far_as_its_klusterlet_says_of_the_present_generation() {
        type Change = fn(&mut Value);
        let at = |second: i64| Some(Timestamp::from_second(second).unwrap());
        let cases: [(&str, Change, State); 14] = [
            ("on its way", |_| {}, State::Progressing(at(20))),
            (
                "not known",
                |w| w["status"]["conditions"][1]["status"] = json!("Unknown"),
                State::Progressing(at(20)),
            ),
            (
                "there",
                |w| w["status"]["conditions"][1]["status"] = json!("False"),
                State::Succeeded(at(20)),
            ),
            (
                "there, and not quite well",
                |w| {
                    w["status"]["conditions"][1]["status"] = json!("False");
                    w["status"]["conditions"][2]["status"] = json!("True");
                },
                State::Succeeded(at(20)),
            ),
            (
                "failed",
                |w| w["status"]["conditions"][2]["status"] = json!("True"),
                State::Failed(at(30)),
            ),
            (
                "not applied",
                |w| w["status"]["conditions"][0]["status"] = json!("False"),
                State::Applying(None),
            ),
            (
                "applied earlier",
                |w| w["status"]["conditions"][0]["observedGeneration"] = json!(1),
                State::Applying(None),
            ),
            ("no word", |w| w["status"] = json!({}), State::Applying(None)),
            (
                "no word of progress",
                |w| {
                    w["status"]["conditions"].as_array_mut().unwrap().remove(1);
                },
                State::Applying(None),
            ),
            (
                "progress of an earlier one",
                |w| w["status"]["conditions"][1]["observedGeneration"] = json!(1),
                State::Applying(None),
            ),
            (
                "degraded in an earlier one",
                |w| w["status"]["conditions"][2]["observedGeneration"] = json!(1),
                State::Applying(None),
            ),
            (
                "no word of health",
                |w| {
                    w["status"]["conditions"].as_array_mut().unwrap().remove(2);
                },
                State::Progressing(at(20)),
            ),
            (
                "of no generation",
                |w| {
                    w["status"]["conditions"][0]
                        .as_object_mut()
                        .unwrap()
                        .remove("observedGeneration");
                },
                State::Applying(None),
            ),
            (
                "not known to be degraded",
                |w| w["status"]["conditions"][2]["status"] = json!("Unknown"),
                State::Progressing(at(20)),
            ),
        ];
        for (what, change, wanted) in cases {
            assert_eq!(WorkView::of(&work(change)).state(), wanted, "{what}");
        }
        // Nothing counts from before the template was there.
        let written = work(|w| {
            w["metadata"]["managedFields"] = json!([
                {"manager": "hub", "operation": "Update", "time": "1970-01-01T00:00:25Z", "fieldsV1": {"f:spec": {}}},
                {"manager": "labels", "operation": "Update", "time": "1970-01-01T00:00:50Z",
                    "fieldsV1": {"f:metadata": {}}},
                {"manager": "agent", "operation": "Update", "subresource": "status", "time": "1970-01-01T00:01:00Z",
                    "fieldsV1": {"f:status": {}}},
            ]);
        });
        assert_eq!(WorkView::of(&written).state(), State::Progressing(at(25)));
    }

    #[test]
    fn specs_are_the_same_whatever_the_order_of_their_fields() {
        let hash = |text: &str| serde_json::from_str::<SpecHash>(text).unwrap();
        let spec =
            hash(r#"{"workload": {"manifests": [{"a": 1, "metadata": {"name": "n"}}]}, "executor": {}}"#);
        for same in [
            r#"{"executor": {}, "workload": {"manifests": [{"metadata": {"name": "n"}, "a": 1}]}}"#,
            r#"{"executor": {}, "workload": {"manifests": [{"metadata": {"name": "n", "creationTimestamp": null}, "a": 1}]}}"#,
        ] {
            assert_eq!(hash(same), spec, "{same}");
        }
        for other in [
            r#"{"workload": {"manifests": [{"a": 1, "metadata": {"name": "n"}}]}}"#,
            r#"{"executor": {}, "workload": {"manifests": [{"metadata": {"name": "n"}, "a": "1"}]}}"#,
            r#"{"executor": {}, "workload": {"manifests": []}}"#,
        ] {
            assert_ne!(hash(other), spec, "{other}");
        }
    }

    #[test]
    fn works_are_found_by_their_replica_set() {
        let works = Works::default();
        let named = |name: &str, version: &str, owner: &str| {
            work(|w| {
                w["metadata"]["name"] = json!(name);
                w["metadata"]["resourceVersion"] = json!(version);
                w["metadata"]["labels"] = json!({labels::REPLICA_SET: owner});
            })
        };
        let found = |owner: &str| -> Vec<String> {
            works.of(owner).iter().map(|work| work.name.to_string()).collect()
        };
        works.wrote(&named("x", "1", "ns.a"));
        works.wrote(&named("y", "2", "ns.a"));
        assert_eq!(found("ns.a"), ["x", "y"]);
        works.cache.wrote(&named("x", "3", "ns.b"));
        let mut told = Vec::new();
        works.seen("c1", "x", |owner| told.push(owner.to_owned()));
        assert_eq!(told, ["ns.a", "ns.b"]);
        assert_eq!(
            (found("ns.a"), found("ns.b")),
            (vec!["y".to_owned()], vec!["x".to_owned()])
        );
        works.removed("c1", "x");
        assert_eq!(found("ns.b"), Vec::<String>::new());
        let index = works.index();
        assert_eq!((index.works.len(), index.owners.len()), (1, 1));
    }
}
