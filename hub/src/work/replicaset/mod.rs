//! ManifestWorkReplicaSets: one work on every cluster that placements select (gate ManifestWorkReplicaSet, ocm-wire §4).
//!
//! `rollout` says which clusters a change reaches next, `deploy` what that comes to, `status` what is told of it: all of
//! them purely, from what `outline` keeps. `controller` looks and decides, `writes` does it. Templates are read when they are written, and
//! kept nowhere.

mod controller;
mod deploy;
mod outline;
mod rollout;
mod status;
mod writes;

use std::sync::Arc;

use kube::{Api, runtime::watcher::Config};
use muster_crds::constants::labels;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::controller::Context;
use crate::{queue::Queue, writer::Writer};

/// Starts the watches and the controller on `tasks`.
pub fn start(writer: &Arc<Writer>, workers: usize, shutdown: &CancellationToken, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    writer.metrics().follow("ManifestWorkReplicaSet", &queue);
    let context = Arc::new(Context::new(writer.clone()));
    let client = || writer.client();
    let stop = || shutdown.clone();
    let named = queue.clone();
    tasks.spawn(context.sets.clone().run(
        "ManifestWorkReplicaSets",
        Api::all(client()),
        Config::default(),
        stop(),
        move |namespace, name| named.add(&format!("{namespace}/{name}")),
    ));
    let (known, named) = (context.clone(), queue.clone());
    tasks.spawn(context.works.cache.clone().run(
        "ManifestWorks of replica sets",
        Api::all(client()),
        Config::default().labels(labels::REPLICA_SET),
        stop(),
        move |cluster, name| {
            known.works.seen(cluster, name, |owner| {
                if let Some(key) = deploy::key(owner) {
                    named.add(&key);
                }
            });
        },
    ));
    let (known, named) = (context.clone(), queue.clone());
    tasks.spawn(context.placements.clone().run(
        "Placements",
        Api::all(client()),
        Config::default(),
        stop(),
        move |namespace, _| all_in(&known, namespace, &named),
    ));
    let (known, named) = (context.clone(), queue.clone());
    tasks.spawn(context.decisions.clone().run(
        "PlacementDecisions",
        Api::all(client()),
        Config::default(),
        stop(),
        move |namespace, _| all_in(&known, namespace, &named),
    ));
    let (known, named) = (context.clone(), queue.clone());
    tasks.spawn(context.namespaces.clone().run(
        "Namespaces, for replica sets",
        Api::all(client()),
        Config::default(),
        stop(),
        move |_, name| wake(&known, name, &named),
    ));
    let (known, named) = (context.clone(), queue.clone());
    tasks.spawn(context.clusters.clone().run(
        "ManagedClusters, for replica sets",
        Api::all(client()),
        Config::default(),
        stop(),
        move |_, name| wake(&known, name, &named),
    ));
    let stop = shutdown.clone();
    tasks.spawn(async move {
        // Deciding on half of what there is would delete the other half.
        if stop.run_until_cancelled(context.ready()).await.is_none() {
            return;
        }
        let reconcile = |key: Arc<str>| {
            let context = context.clone();
            async move { context.reconcile(&key).await }
        };
        queue
            .run("ManifestWorkReplicaSet", workers, stop, reconcile)
            .await;
    });
}

/// A placement, or what is decided for it, changed: its namespace has few replica sets.
fn all_in(context: &Context, namespace: &str, queue: &Queue) {
    for (name, _) in context.sets.list(namespace) {
        queue.add(&format!("{namespace}/{name}"));
    }
}

fn wake(context: &Context, cluster: &str, queue: &Queue) {
    for key in context.cluster_changed(cluster) {
        queue.add(&key);
    }
}
