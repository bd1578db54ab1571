//! What decisions about a cluster start from and come to.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use muster_crds::{
    conditions::{NewCondition, set_condition},
    names as naming,
};
use serde_json::{Value, json};

use super::{
    rbac::{self, Desired, Holders, Kind},
    view::{ClusterView, ItemView, LeaseView, ObjectView},
};

/// What the hub was told to do with clusters.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// New clusters are accepted by themselves.
    pub auto_accept: bool,
    /// What is left in a deleted cluster's namespace is deleted.
    pub resource_cleanup: bool,
    /// A cluster without a set is in the default one.
    pub default_set: bool,
    /// Labels on what the hub makes.
    pub labels: BTreeMap<String, String>,
    /// After how many lease durations a cluster is Unknown.
    pub lease_grace_factor: f64,
    /// A webhook sets the times of new taints, and lets nobody else.
    pub stamped: bool,
    /// The hub's own namespace, which is not a cluster's.
    pub namespace: Option<String>,
}

/// Objects of one kind that go with the cluster.
#[derive(Clone, Debug, Default)]
pub struct Remaining {
    /// Place of the kind in the list of kinds to clean up.
    pub resource: usize,
    /// The kind's plural name.
    pub plural: String,
    /// What is there.
    pub items: Vec<(String, Arc<ItemView>)>,
}

/// All that a decision about a cluster looks at.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The cluster.
    pub cluster: Arc<ClusterView>,
    /// Its namespace.
    pub namespace: Option<Arc<ObjectView>>,
    /// The ClusterRole of its name, which may be none of its: see [`Observed::own_role`].
    pub role: Option<Arc<ObjectView>>,
    /// Its ClusterRoleBinding.
    pub role_binding: Option<Arc<ObjectView>>,
    /// Its RoleBinding for registration.
    pub registration: Option<Arc<ObjectView>>,
    /// Its RoleBinding for works.
    pub work: Option<Arc<ObjectView>>,
    /// Its lease.
    pub lease: Option<Arc<LeaseView>>,
    /// How many ManifestWorks its namespace has.
    pub works: usize,
    /// When the hub's API server took writes again after it had no room: before that, no lease could be renewed.
    pub room_since: Option<Timestamp>,
    /// What goes with it, kind by kind in order; only looked at when it is being deleted.
    pub remaining: Vec<Remaining>,
}

impl Observed {
    /// Agents that had the cluster's name before, as far as the hub knows.
    pub fn former(&self) -> Vec<String> {
        let left = self.namespace.iter().flat_map(|namespace| &namespace.former);
        left.chain(&self.cluster.former)
            .fold(Vec::new(), |all, agent| rbac::with_former(&all, agent))
    }

    /// Whether it may have rights that the hub gave it: what it says of itself does not count alone.
    pub fn was_let_in(&self) -> bool {
        self.cluster.was_let_in()
            || [&self.role, &self.role_binding, &self.registration, &self.work]
                .into_iter()
                .flatten()
                .any(|one| one.is_of(&self.cluster.name) && !self.is_former(one))
    }

    /// Whether it was made for a former cluster of that name: the ManagedCluster is younger.
    fn is_former(&self, object: &ObjectView) -> bool {
        object
            .created
            .is_some_and(|made| self.cluster.created.is_some_and(|cluster| made < cluster))
    }

    /// Its ClusterRole: never one that all clusters share, whatever the cluster is called.
    pub fn own_role(&self) -> Option<&Arc<ObjectView>> {
        let name = naming::cluster_role(&self.cluster.name);
        self.role.as_ref().filter(|_| !rbac::is_shared(&name))
    }

    /// Who has the cluster's rights.
    pub fn holders(&self) -> Holders {
        Holders::of(self.cluster.agent.as_ref(), &self.former())
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Merge patch of the cluster's metadata and spec, at the version that was observed.
    PatchCluster(Value),
    /// The cluster's conditions, at the version that was observed.
    SetConditions(Vec<Condition>),
    /// Makes an object.
    Create(Desired),
    /// Merge patch that brings an object to what is wanted.
    Update(Desired, String),
    /// Deletes an object with that uid.
    Delete(Kind, String, String, String),
    /// Sets an object's finalizers.
    SetFinalizers(Kind, String, String, String, Vec<String>),
    /// Deletes the lease.
    DeleteLease,
    /// Deletes an object of the kind at that place in the list of kinds to clean up.
    DeleteItem(usize, String),
    /// Tells that the cluster became Unknown.
    Event {
        /// Why, in CamelCase.
        reason: &'static str,
        /// What, for people.
        note: String,
    },
}

/// What to do about a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Writes; those of a stage at once, a stage when the one before is done.
    pub stages: Vec<Vec<Write>>,
    /// Look again when all is done: the plan was only a first step.
    pub again: bool,
    /// When time alone will make a difference.
    pub next: Option<Timestamp>,
    /// It takes the cluster for lost, by what the watch brought: the lease itself is to be looked at first.
    pub doubt: bool,
    /// Why something was not done, or what was: for the log.
    pub notes: Vec<String>,
}

impl Plan {
    /// Adds a stage unless it is empty.
    pub fn stage(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.stages.push(writes);
        }
    }

    /// Keeps the earlier of the two times.
    pub fn look_at(&mut self, time: Timestamp) {
        self.next = Some(self.next.map_or(time, |next| next.min(time)));
    }
}

/// The write that sets `new`, if that changes anything.
pub fn set_conditions(cluster: &ClusterView, new: Vec<NewCondition>, now: Timestamp) -> Option<Write> {
    let mut conditions = cluster.conditions.clone();
    let mut changed = false;
    for condition in new {
        changed |= set_condition(&mut conditions, condition, now);
    }
    changed.then_some(Write::SetConditions(conditions))
}

/// The writes that bring one object to what is wanted; empty when it is so, or when it has to vanish first.
pub fn keep(desired: Desired, observed: Option<&ObjectView>) -> Vec<Write> {
    let Some(observed) = observed else {
        return vec![Write::Create(desired)];
    };
    if observed.deleting {
        // It comes back as a new one: what holds the old one is the hub's own finalizer.
        return release(desired.kind, &desired.namespace, &desired.name, observed);
    }
    if observed.role_ref != desired.role_ref {
        return vec![delete(desired.kind, &desired.namespace, &desired.name, observed)];
    }
    let unlisted = finalizers_of(&desired.body)
        .into_iter()
        .any(|finalizer| !observed.finalizers.contains(&finalizer));
    if observed.content == desired.content && !unlisted {
        return Vec::new();
    }
    let mut finalizers = observed.finalizers.clone();
    finalizers.extend(
        finalizers_of(&desired.body)
            .into_iter()
            .filter(|one| !observed.finalizers.contains(one)),
    );
    let mut desired = desired;
    if !finalizers.is_empty() {
        desired.body["metadata"]["finalizers"] = json!(finalizers);
    }
    vec![Write::Update(desired, observed.uid.clone())]
}

/// The write that deletes an object.
pub fn delete(kind: Kind, namespace: &str, name: &str, observed: &ObjectView) -> Write {
    Write::Delete(kind, namespace.to_owned(), name.to_owned(), observed.uid.clone())
}

/// Takes the hub's own finalizer off an object.
pub fn release(kind: Kind, namespace: &str, name: &str, observed: &ObjectView) -> Vec<Write> {
    let own = muster_crds::constants::finalizers::MANIFEST_WORK;
    if !observed.finalizers.iter().any(|finalizer| finalizer == own) {
        return Vec::new();
    }
    let others = observed
        .finalizers
        .iter()
        .filter(|finalizer| *finalizer != own)
        .cloned()
        .collect();
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    vec![Write::SetFinalizers(
        kind,
        namespace,
        name,
        observed.uid.clone(),
        others,
    )]
}

fn finalizers_of(body: &Value) -> Vec<String> {
    body.pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}
