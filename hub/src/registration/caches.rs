//! The watches registration shares, and which queue each feeds.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    certificates::v1::CertificateSigningRequest,
    coordination::v1::Lease,
    core::v1::{Namespace, Secret},
    rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding},
};
use kube::{
    Api, Client, Resource,
    api::PartialObjectMeta,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::Config,
};
use muster_crds::{
    cluster::v1::ManagedCluster,
    constants::{labels, names},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    approve,
    token::{self, TokenView},
    view::{ClusterView, CsrView, ItemView, LeaseView, ObjectView},
    waiting::Waiting,
};
use crate::{cache::Cache, options::GcResource, queue::Queue};

/// Metadata of some kind.
pub type Meta = PartialObjectMeta<DynamicObject>;

/// A kind that is cleaned up with its cluster.
pub struct Cleaned {
    /// Its API.
    pub resource: ApiResource,
    /// Its objects.
    pub items: Arc<Cache<Meta, ItemView>>,
}

/// Everything registration watches.
pub struct Caches {
    /// All clusters.
    pub clusters: Arc<Cache<ManagedCluster, ClusterView>>,
    /// Agents' certificate requests.
    pub requests: Arc<Cache<CertificateSigningRequest, CsrView>>,
    /// Join tokens; never their secrets.
    pub tokens: Arc<Cache<PartialObjectMeta<Secret>, TokenView>>,
    /// Clusters' namespaces.
    pub namespaces: Arc<Cache<PartialObjectMeta<Namespace>, ObjectView>>,
    /// Clusters' ClusterRoles, and the shared ones.
    pub roles: Arc<Cache<ClusterRole, ObjectView>>,
    /// Clusters' ClusterRoleBindings.
    pub role_bindings: Arc<Cache<ClusterRoleBinding, ObjectView>>,
    /// Clusters' RoleBindings.
    pub bindings: Arc<Cache<RoleBinding, ObjectView>>,
    /// Clusters' leases.
    pub leases: Arc<Cache<Lease, LeaseView>>,
    /// Works: as long as there are any, their agent keeps its rights.
    pub works: Arc<Cache<Meta, ItemView>>,
    /// What goes with a cluster, in order; works are among it unless the hub was told otherwise.
    pub cleaned: Vec<Cleaned>,
    works_apart: bool,
}

/// The queues that events go to.
#[derive(Clone)]
pub struct Queues {
    /// Clusters by name.
    pub clusters: Arc<Queue>,
    /// Certificate requests by name.
    pub requests: Arc<Queue>,
    /// One key: the shared roles.
    pub shared: Arc<Queue>,
}

fn items() -> Arc<Cache<Meta, ItemView>> {
    Cache::new(|object: &Meta, _, _| ItemView::of(&object.metadata))
}

fn work_resource() -> ApiResource {
    let kind = "manifestworks";
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(muster_crds::work::GROUP, "v1", kind), kind)
}

fn kept<K>(keys: BTreeSet<String>) -> Arc<Cache<K, ObjectView>>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + std::fmt::Debug + Send + 'static,
{
    Cache::new(move |object: &K, _, _| {
        let data = serde_json::to_value(object).unwrap_or(Value::Null);
        ObjectView::of(object.meta(), &data, &keys)
    })
}

impl Caches {
    /// Empty caches; `label_keys` are those that the hub sets on what it makes.
    pub fn new(label_keys: &BTreeSet<String>, cleaned: &[GcResource]) -> Self {
        let keys = label_keys.clone();
        let cleaned: Vec<Cleaned> = cleaned
            .iter()
            .map(|resource| Cleaned {
                resource: ApiResource::from_gvk_with_plural(
                    &GroupVersionKind::gvk(&resource.group, &resource.version, &resource.resource),
                    &resource.resource,
                ),
                items: items(),
            })
            .collect();
        let among = cleaned.iter().find(|cleaned| cleaned.resource == work_resource());
        let works = among.map_or_else(items, |cleaned| cleaned.items.clone());
        let works_apart = among.is_none();
        Self {
            clusters: Cache::new(|cluster: &ManagedCluster, before, _| {
                ClusterView::of(cluster).after(before, Timestamp::now())
            }),
            requests: Cache::new(|csr: &CertificateSigningRequest, _, _| CsrView::of(csr)),
            tokens: Cache::new(|secret: &PartialObjectMeta<Secret>, _, _| TokenView::of(&secret.metadata)),
            namespaces: Cache::new(move |object: &PartialObjectMeta<Namespace>, _, _| {
                ObjectView::of(&object.metadata, &Value::Null, &keys)
            }),
            roles: kept(label_keys.clone()),
            role_bindings: kept(label_keys.clone()),
            bindings: kept(label_keys.clone()),
            leases: Cache::new(|lease: &Lease, before, sighting| {
                LeaseView::of(lease, before, sighting, Timestamp::now())
            }),
            works,
            cleaned,
            works_apart,
        }
    }

    /// Starts all watches on `tasks`.
    pub fn start(
        &self,
        client: &Client,
        queues: &Queues,
        waiting: &Arc<Waiting>,
        cluster_changed: impl Fn(&str) + Send + 'static,
        shutdown: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) {
        let ours = Config::default().labels(&format!("{},!{}", labels::CLUSTER_NAME, labels::ADDON_NAME));
        let stop = || shutdown.clone();
        let Queues {
            clusters,
            requests,
            shared,
        } = queues.clone();

        let (queue, roles) = (clusters.clone(), shared.clone());
        let (waiting, asked) = (waiting.clone(), requests.clone());
        tasks.spawn(self.clusters.clone().run(
            "ManagedClusters",
            Api::all(client.clone()),
            Config::default(),
            stop(),
            move |_, name| {
                queue.add(name);
                roles.add(SHARED);
                waiting.changed(name, &asked);
                cluster_changed(name);
            },
        ));
        let (known, asked) = (self.requests.clone(), requests.clone());
        tasks.spawn(self.tokens.clone().run(
            "Secrets of join tokens",
            Api::namespaced(client.clone(), names::BOOTSTRAP_TOKEN_NAMESPACE),
            Config::default().labels(&token::selector()),
            stop(),
            move |_, name| approve::of_token(&known, name, &asked),
        ));
        tasks.spawn(self.requests.clone().run(
            "CertificateSigningRequests",
            Api::all(client.clone()),
            ours.clone(),
            stop(),
            move |_, name| requests.add(name),
        ));
        let queue = clusters.clone();
        tasks.spawn(self.namespaces.clone().run(
            "Namespaces",
            Api::all(client.clone()),
            ours.clone(),
            stop(),
            move |_, name| queue.add(name),
        ));
        let queue = clusters.clone();
        tasks.spawn(self.roles.clone().run(
            "ClusterRoles",
            Api::all(client.clone()),
            ours.clone(),
            stop(),
            move |_, name| {
                if name == names::REGISTRATION_CLUSTER_ROLE || name == names::WORK_CLUSTER_ROLE {
                    shared.add(SHARED);
                } else if let Some(cluster) = name.strip_prefix(names::MANAGED_CLUSTER_ROLE_PREFIX) {
                    queue.add(cluster);
                }
            },
        ));
        let queue = clusters.clone();
        tasks.spawn(self.role_bindings.clone().run(
            "ClusterRoleBindings",
            Api::all(client.clone()),
            ours.clone(),
            stop(),
            move |_, name| {
                if let Some(cluster) = name.strip_prefix(names::MANAGED_CLUSTER_ROLE_PREFIX) {
                    queue.add(cluster);
                }
            },
        ));
        let queue = clusters.clone();
        tasks.spawn(self.bindings.clone().run(
            "RoleBindings",
            Api::all(client.clone()),
            ours.clone(),
            stop(),
            move |namespace, _| queue.add(namespace),
        ));
        let queue = clusters.clone();
        let leases = Config::default()
            .labels(labels::CLUSTER_NAME)
            .fields(&format!("metadata.name={}", names::CLUSTER_LEASE));
        tasks.spawn(self.leases.clone().run(
            "Leases",
            Api::all(client.clone()),
            leases,
            stop(),
            move |namespace, _| queue.add(namespace),
        ));
        let apart = self.works_apart.then(|| (self.works.clone(), work_resource()));
        let cleaned = self
            .cleaned
            .iter()
            .map(|cleaned| (cleaned.items.clone(), cleaned.resource.clone()));
        for (items, resource) in cleaned.chain(apart) {
            let (queue, known) = (clusters.clone(), self.clusters.clone());
            tasks.spawn(items.run(
                "what is cleaned up with a cluster",
                Api::all_with(client.clone(), &resource),
                Config::default(),
                stop(),
                move |namespace, _| matters(&known, &queue, namespace),
            ));
        }
    }

    /// Whether all that is watched is known; join tokens apart, as in [`Self::ready`].
    pub fn is_ready(&self) -> bool {
        self.clusters.is_ready()
            && self.requests.is_ready()
            && self.namespaces.is_ready()
            && self.roles.is_ready()
            && self.role_bindings.is_ready()
            && self.bindings.is_ready()
            && self.leases.is_ready()
            && self.works.is_ready()
            && self.cleaned.iter().all(|cleaned| cleaned.items.is_ready())
    }

    /// Waits until all that is watched is known.
    pub async fn ready(&self) {
        tokio::join!(
            self.clusters.ready(),
            self.requests.ready(),
            self.namespaces.ready(),
            self.roles.ready(),
            self.role_bindings.ready(),
            self.bindings.ready(),
            self.leases.ready(),
            self.works.ready(),
        );
        for cleaned in &self.cleaned {
            cleaned.items.ready().await;
        }
    }
}

/// The one key of the queue of shared roles.
pub const SHARED: &str = "shared";

/// What is in a cluster's namespace matters only when the cluster goes, is gone, or is kept out.
fn matters(clusters: &Cache<ManagedCluster, ClusterView>, queue: &Queue, cluster: &str) {
    if clusters
        .get("", cluster)
        .is_none_or(|cluster| cluster.deleting || !cluster.accepts)
    {
        queue.add(cluster);
    }
}
