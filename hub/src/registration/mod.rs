//! Clusters come, stay and go: approval of their certificates, acceptance, leases, taints, clean-up.
//!
//! What is known of a cluster is decided about in one place and at once, so that a cluster costs few writes and no
//! two controllers contend for it.

pub mod accept;
pub mod approve;
pub mod caches;
pub mod cleanup;
pub mod cluster;
pub mod csr;
pub mod lease;
pub mod plan;
pub mod rbac;
pub mod sets;
pub mod shared;
pub mod taints;
pub mod token;
pub mod view;

use std::sync::Arc;

use kube::{Api, runtime::watcher::Config};
use muster_crds::constants::names;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{cache::Cache, gates::Feature, options::HubOptions, queue::Queue, writer::Writer};

/// Starts the watches and controllers of registration on `tasks`.
pub fn start(
    writer: &Arc<Writer>,
    options: &HubOptions,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    let gates = options.gates();
    let auto_approve = gates.enabled(Feature::ManagedClusterAutoApproval);
    let policy = plan::Policy {
        auto_accept: auto_approve,
        resource_cleanup: gates.enabled(Feature::ResourceCleanup),
        default_set: gates.enabled(Feature::DefaultClusterSet),
        labels: options.labels(),
        lease_grace_factor: options.lease_grace_factor,
    };
    let users = if auto_approve {
        options.approved_users()
    } else {
        Vec::new()
    };
    let workers = usize::from(options.workers);
    let caches = Arc::new(caches::Caches::new(
        &rbac::label_keys(&policy.labels),
        &options.gc_resource_list,
    ));
    let queues = caches::Queues {
        clusters: Queue::new(),
        requests: Queue::new(),
        shared: Queue::new(),
    };
    queues.shared.add(caches::SHARED);
    let waiting = Arc::<approve::Waiting>::default();
    caches.start(&writer.client(), &queues, &waiting, shutdown, tasks);

    let approval = Arc::new(approve::Context {
        requests: caches.requests.clone(),
        clusters: caches.clusters.clone(),
        tokens: caches.tokens.clone(),
        waiting,
        writer: writer.clone(),
        users,
        counting: tokio::sync::Mutex::default(),
    });
    let (queue, stop) = (queues.requests, shutdown.clone());
    tasks.spawn(async move {
        // Not for the tokens: where the hub may not read them, the rest goes on.
        let known = async { tokio::join!(approval.requests.ready(), approval.clusters.ready()) };
        if stop.run_until_cancelled(known).await.is_none() {
            return;
        }
        let reconcile = |name: Arc<str>| {
            let context = approval.clone();
            async move { context.reconcile(&name).await }
        };
        queue
            .run("CertificateSigningRequest", workers, stop, reconcile)
            .await;
    });

    let context = Arc::new(cluster::Context {
        caches,
        writer: writer.clone(),
        policy,
    });
    let (queue, stop, clusters) = (queues.clusters, shutdown.clone(), context.clone());
    tasks.spawn(async move {
        // Deciding on half of what there is would write what is there already.
        let Some(()) = stop.run_until_cancelled(clusters.caches.ready()).await else {
            return;
        };
        tracing::info!(clusters = clusters.caches.clusters.count(""), "hub is ready");
        let reconcile = |name: Arc<str>| {
            let context = clusters.clone();
            async move { context.reconcile(&name).await }
        };
        queue.run("ManagedCluster", workers, stop, reconcile).await;
    });

    let (queue, stop) = (queues.shared, shutdown.clone());
    tasks.spawn(async move {
        let Some(()) = stop.run_until_cancelled(context.caches.ready()).await else {
            return;
        };
        let reconcile = |_| {
            let context = context.clone();
            async move { context.reconcile_shared().await }
        };
        queue.run("shared ClusterRoles", 1, stop, reconcile).await;
    });

    if gates.enabled(Feature::DefaultClusterSet) {
        start_sets(writer, shutdown, tasks);
    }
}

fn start_sets(writer: &Arc<Writer>, shutdown: &CancellationToken, tasks: &mut JoinSet<()>) {
    let context = Arc::new(sets::Context {
        sets: Cache::new(|set, _, _| sets::SetView::of(set)),
        writer: writer.clone(),
    });
    let queue = Queue::new();
    queue.add(names::DEFAULT_CLUSTER_SET);
    queue.add(names::GLOBAL_CLUSTER_SET);
    let named = queue.clone();
    tasks.spawn(context.sets.clone().run(
        "ManagedClusterSets",
        Api::all(writer.client()),
        Config::default(),
        shutdown.clone(),
        move |_, name| named.add(name),
    ));
    let stop = shutdown.clone();
    tasks.spawn(async move {
        let Some(()) = stop.run_until_cancelled(context.sets.ready()).await else {
            return;
        };
        let reconcile = |name: Arc<str>| {
            let context = context.clone();
            async move { context.reconcile(&name).await }
        };
        queue.run("ManagedClusterSet", 1, stop, reconcile).await;
    });
}
