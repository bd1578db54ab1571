//! ClusterProfiles: in every namespace with a bound ManagedClusterSetBinding, one for each cluster of the set, for tools
//! that know nothing of Open Cluster Management (gate ClusterProfile, ocm-wire §1.17).
//!
//! A key is `namespace/cluster`: whether there is to be a profile, and what it says, is decided for each by itself.

mod decision;

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use kube::{Api, runtime::watcher::Config};
use muster_crds::{
    cluster::{
        v1::ManagedCluster,
        v1beta2::{ManagedClusterSet, ManagedClusterSetBinding},
    },
    constants::labels,
    multicluster::v1alpha1::ClusterProfile,
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::decision::{ClusterFacts, Decision, ProfileView, decide};
use super::{sets::SetView, view::BindingView};
use crate::{
    cache::Cache,
    error::Error,
    queue::{Next, Queue},
    writer::{Writer, guarded},
};

/// What the controller works with.
pub struct Context {
    clusters: Arc<Cache<ManagedCluster, ClusterFacts>>,
    sets: Arc<Cache<ManagedClusterSet, SetView>>,
    bindings: Arc<Cache<ManagedClusterSetBinding, BindingView>>,
    profiles: Arc<Cache<ClusterProfile, ProfileView>>,
    writer: Arc<Writer>,
}

impl Context {
    /// Brings one profile to what it should be.
    pub async fn reconcile(&self, key: &str) -> Result<Next, Error> {
        let Some((namespace, name)) = key.split_once('/') else {
            return Ok(Next::Idle);
        };
        let bindings = self.bindings.list(namespace);
        let profile = self.profiles.get(namespace, name);
        let decision = decide(
            name,
            self.clusters.get("", name).as_deref(),
            bindings.iter().map(|(_, binding)| binding.as_ref()),
            |set| self.sets.get("", set),
            profile.as_deref(),
            Timestamp::now(),
        );
        let api = Api::<ClusterProfile>::namespaced(self.writer.client(), namespace);
        let subject = format!("ClusterProfile {key}");
        let known = profile.unwrap_or_default();
        match decision {
            Decision::Leave => {}
            Decision::Create => return self.create(&api, namespace, name, &subject).await,
            Decision::Update { status, labels } => {
                let mut version = known.resource_version.clone();
                if let Some(status) = status {
                    let patch = guarded(json!({"status": status}), &known.uid, Some(&version));
                    let answer = self
                        .writer
                        .patch(&api, name, Some("status"), &patch, &subject)
                        .await?;
                    self.profiles.wrote(&answer);
                    version = answer.metadata.resource_version.clone().unwrap_or(version);
                }
                if let Some(labels) = labels {
                    let patch = guarded(
                        json!({"metadata": {"labels": labels}}),
                        &known.uid,
                        Some(&version),
                    );
                    let answer = self.writer.patch(&api, name, None, &patch, &subject).await?;
                    self.profiles.wrote(&answer);
                }
            }
            Decision::Delete => {
                if self.writer.delete(&api, name, Some(&known.uid), &subject).await? {
                    self.profiles.removed(namespace, name);
                }
            }
        }
        Ok(Next::Idle)
    }

    async fn create(
        &self,
        api: &Api<ClusterProfile>,
        namespace: &str,
        name: &str,
        subject: &str,
    ) -> Result<Next, Error> {
        let labels =
            json!({labels::CLUSTER_MANAGER: labels::CLUSTER_MANAGER_NAME, labels::CLUSTER_NAME: name});
        let profile = json!({
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"displayName": name, "clusterManager": {"name": labels::CLUSTER_MANAGER_NAME}},
        });
        let profile = serde_json::from_value(profile)
            .map_err(|error| Error::request(format!("make {subject}"))(kube::Error::SerdeError(error)))?;
        match self.writer.create(api, &profile, subject).await {
            Ok(answer) => {
                self.profiles.wrote(&answer);
                Ok(Next::Now)
            }
            // The namespace goes, and its bindings with it: they say when there is more to do.
            Err(error) if namespace_goes(&error) => Ok(Next::Idle),
            Err(error) => Err(error),
        }
    }
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

/// Starts the watches and the controller on `tasks`.
pub fn start(writer: &Arc<Writer>, workers: usize, shutdown: &CancellationToken, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    writer.metrics().follow("ClusterProfile", &queue);
    let context = Arc::new(Context {
        clusters: Cache::new(|cluster, _, _| ClusterFacts::of(cluster)),
        sets: Cache::new(|set, _, _| SetView::of(set)),
        bindings: Cache::new(|binding, _, _| BindingView::of(binding)),
        profiles: Cache::new(|profile, _, _| ProfileView::of(profile)),
        writer: writer.clone(),
    });
    let (known, named) = (context.clone(), queue.clone());
    tasks.spawn(context.clusters.clone().run(
        "ManagedClusters, for ClusterProfiles",
        Api::all(writer.client()),
        Config::default(),
        shutdown.clone(),
        move |_, name| {
            for namespace in known.namespaces() {
                named.add(&format!("{namespace}/{name}"));
            }
        },
    ));
    let (known, named) = (context.clone(), queue.clone());
    tasks.spawn(context.sets.clone().run(
        "ManagedClusterSets, for ClusterProfiles",
        Api::all(writer.client()),
        Config::default(),
        shutdown.clone(),
        move |_, name| {
            for (namespace, _, binding) in known.bindings.everything() {
                if binding.set == name {
                    known.all_in(&namespace, &named);
                }
            }
        },
    ));
    let (known, named) = (context.clone(), queue.clone());
    tasks.spawn(context.bindings.clone().run(
        "ManagedClusterSetBindings, for ClusterProfiles",
        Api::all(writer.client()),
        Config::default(),
        shutdown.clone(),
        move |namespace, _| known.all_in(namespace, &named),
    ));
    let named = queue.clone();
    tasks.spawn(context.profiles.clone().run(
        "ClusterProfiles",
        Api::all(writer.client()),
        Config::default(),
        shutdown.clone(),
        move |namespace, name| named.add(&format!("{namespace}/{name}")),
    ));
    let stop = shutdown.clone();
    tasks.spawn(async move {
        let known = async {
            tokio::join!(
                context.clusters.ready(),
                context.sets.ready(),
                context.bindings.ready(),
                context.profiles.ready()
            )
        };
        if stop.run_until_cancelled(known).await.is_none() {
            return;
        }
        let reconcile = |key: Arc<str>| {
            let context = context.clone();
            async move { context.reconcile(&key).await }
        };
        queue.run("ClusterProfile", workers, stop, reconcile).await;
    });
}

impl Context {
    /// The namespaces in which clusters have profiles, or may have.
    fn namespaces(&self) -> BTreeSet<String> {
        let bindings = self.bindings.everything().into_iter();
        bindings.map(|(namespace, _, _)| namespace).collect()
    }

    /// Has every cluster's profile in a namespace looked at, and those of clusters that are no more.
    fn all_in(&self, namespace: &str, queue: &Queue) {
        let clusters = self.clusters.list("").into_iter().map(|(name, _)| name);
        let there = self.profiles.list(namespace).into_iter().map(|(name, _)| name);
        for name in clusters.chain(there) {
            queue.add(&format!("{namespace}/{name}"));
        }
    }
}
