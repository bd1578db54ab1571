//! Makes a cluster look alive: nodes that are ready, and workloads whose pods run.
//!
//! Objects and writes are real, containers are not: a pod is Running because nobody contradicts, a Job's pods succeed at
//! once. Everything follows from watches; when nothing changes nothing is written but the nodes' leases, and those
//! seldom. What is not imitated: scheduling by resources, probes, volumes, images, adoption of pods by label.

pub mod daemon;
pub mod deployment;
pub mod job;
pub mod node;
pub mod pod;
pub mod replicas;
pub mod stateful;
#[cfg(test)]
mod tests;

use crate::ApiError;
use crate::controllers::access::Access;
use crate::controllers::engine::{self, Reactor};
use crate::controllers::garbage::Index;
use crate::controllers::kinds::PODS;
use crate::controllers::meta::Meta;
use crate::controllers::plan::Plan;
use crate::rest::Api;
use crate::store::{Entry, Event, Key};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Store keys of the kinds that are brought to life.
pub mod kinds {
    /// DaemonSet.
    pub const DAEMON_SETS: &str = "apps/daemonsets";
    /// Deployment.
    pub const DEPLOYMENTS: &str = "apps/deployments";
    /// Lease.
    pub const LEASES: &str = "coordination.k8s.io/leases";
    /// Node.
    pub const NODES: &str = "/nodes";
    /// ReplicaSet.
    pub const REPLICA_SETS: &str = "apps/replicasets";
    /// StatefulSet.
    pub const STATEFUL_SETS: &str = "apps/statefulsets";
}

/// Starts the simulation of a cluster of so many nodes; it stops when `shutdown` is cancelled.
pub fn start(api: Api, nodes: usize, shutdown: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(run(api, nodes, shutdown))
}

/// The same, to be spawned by the caller.
pub async fn run(api: Api, nodes: usize, shutdown: CancellationToken) {
    let store = api.store.clone();
    let simulation = Simulation {
        access: Access::new(api, "muster-simulate"),
        nodes,
        index: Mutex::default(),
    };
    engine::run(Arc::new(simulation), store, shutdown).await;
}

/// What one item of work is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// A node, by number, and its lease.
    Node(usize),
    /// A Deployment, ReplicaSet, StatefulSet, DaemonSet or Job.
    Workload(Key),
    /// A pod.
    Pod(Key),
}

struct Simulation {
    access: Access,
    nodes: usize,
    index: Mutex<Index>,
}

impl Simulation {
    fn noticed(&self, now: &Entry, gone: bool, before: Option<&Entry>, add: &mut dyn FnMut(Work)) {
        let key = &now.key;
        match &*key.resource {
            kinds::NODES | kinds::LEASES if gone => {
                (0..self.nodes)
                    .filter(|i| node::name(*i) == *key.name)
                    .for_each(|i| add(Work::Node(i)));
            }
            crate::controllers::kinds::NAMESPACES
                if before.is_none() && !gone && &*key.name == node::LEASE_NAMESPACE =>
            {
                (0..self.nodes).for_each(|i| add(Work::Node(i)));
            }
            PODS | kinds::REPLICA_SETS => {
                let meta = Meta::of(now);
                let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
                index.noticed(key, &meta, gone, before.map(Meta::of).as_ref(), &mut |_| {});
                for owner in meta.owners().iter().filter(|o| o.controller == Some(true)) {
                    if let Some(kind) = self.access.named_kind(&owner.api_version, &owner.kind) {
                        let owner = Key::new(
                            Arc::clone(&kind.storage),
                            Arc::clone(&key.namespace),
                            owner.name.as_str(),
                        );
                        add(Work::Workload(owner));
                    }
                }
                if gone {
                    return;
                }
                add(if &*key.resource == PODS {
                    Work::Pod(key.clone())
                } else {
                    Work::Workload(key.clone())
                });
            }
            kinds::DEPLOYMENTS | kinds::STATEFUL_SETS | kinds::DAEMON_SETS | job::JOBS if !gone => {
                add(Work::Workload(key.clone()));
            }
            _ => {}
        }
    }

    /// The objects an object controls.
    fn controlled(&self, owner: &Value, resource: &str) -> Vec<Value> {
        let uid = crate::object::uid(owner);
        let keys: Vec<Key> = {
            let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            index
                .dependents(uid)
                .filter(|k| &*k.resource == resource)
                .cloned()
                .collect()
        };
        let found = keys
            .iter()
            .filter_map(|k| self.access.object(&k.resource, &k.namespace, &k.name));
        found.filter(|o| is_controlled_by(o, uid)).collect()
    }
}

/// Whether the object's controller has this uid.
fn is_controlled_by(object: &Value, uid: &str) -> bool {
    let references = object["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten();
    references
        .filter(|r| r["controller"] == true)
        .any(|r| r["uid"] == uid)
}

impl Reactor for Simulation {
    type Work = Work;

    fn on_event(&self, event: &Event, add: &mut dyn FnMut(Work)) {
        self.noticed(&event.entry, event.deleted, event.prev.as_deref(), add);
    }

    fn resync(&self, add: &mut dyn FnMut(Work)) {
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = Index::default();
        (0..self.nodes).for_each(|i| add(Work::Node(i)));
        for resource in [
            kinds::DEPLOYMENTS,
            kinds::REPLICA_SETS,
            kinds::STATEFUL_SETS,
            kinds::DAEMON_SETS,
            job::JOBS,
            PODS,
        ] {
            for entry in self.access.list(resource, None) {
                self.noticed(&entry, false, None, add);
            }
        }
    }

    async fn reconcile(&self, work: &Work) -> Result<Option<Duration>, ApiError> {
        let access = &self.access;
        let now = access.now();
        let plan = match work {
            Work::Node(index) => {
                let name = node::name(*index);
                let node = access.object(kinds::NODES, "", &name);
                let lease = access.object(kinds::LEASES, node::LEASE_NAMESPACE, &name);
                let has_namespace = access
                    .entry(crate::controllers::kinds::NAMESPACES, "", node::LEASE_NAMESPACE)
                    .is_some();
                node::decide(*index, node.as_ref(), has_namespace, lease.as_ref(), now)
            }
            Work::Pod(key) => match access.object(PODS, &key.namespace, &key.name) {
                Some(pod) => pod::decide(&pod, now),
                None => Plan::default(),
            },
            Work::Workload(key) => match access.object(&key.resource, &key.namespace, &key.name) {
                Some(object) if crate::object::is_deleting(&object) => Plan::default(),
                Some(object) => match &*key.resource {
                    kinds::DEPLOYMENTS => {
                        deployment::decide(&object, &self.controlled(&object, kinds::REPLICA_SETS), now)
                    }
                    kinds::REPLICA_SETS => {
                        replicas::decide(&object, &self.controlled(&object, PODS), self.nodes)
                    }
                    kinds::STATEFUL_SETS => {
                        stateful::decide(&object, &self.controlled(&object, PODS), self.nodes)
                    }
                    kinds::DAEMON_SETS => {
                        daemon::decide(&object, &self.controlled(&object, PODS), self.nodes)
                    }
                    job::JOBS => job::decide(&object, &self.controlled(&object, PODS), self.nodes, now),
                    _ => Plan::default(),
                },
                None => Plan::default(),
            },
        };
        access.carry_out(plan).await
    }
}
