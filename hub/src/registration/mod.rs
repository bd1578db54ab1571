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
pub mod event;
pub mod lease;
pub mod membership;
pub mod plan;
pub mod profiles;
pub mod rbac;
pub mod refused;
pub mod sets;
pub mod shared;
pub mod taints;
pub mod token;
pub mod view;
pub mod waiting;

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
    stamped: bool,
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
        stamped,
        namespace: Some(options.namespace.clone()),
    };
    let trusted = if auto_approve {
        options.trusted()
    } else {
        approve::Trusted::default()
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
    let metrics = writer.metrics();
    metrics.know(&caches);
    metrics.follow("ManagedCluster", &queues.clusters);
    metrics.follow("CertificateSigningRequest", &queues.requests);
    metrics.follow("shared ClusterRoles", &queues.shared);
    let waiting = Arc::<waiting::Waiting>::default();
    let membership = membership::Queues {
        sets: Queue::new(),
        bindings: Queue::new(),
        namespaces: Queue::new(),
    };
    metrics.follow("ManagedClusterSet", &membership.sets);
    metrics.follow("ManagedClusterSetBinding", &membership.bindings);
    metrics.follow("managed namespaces", &membership.namespaces);
    let clusters_known = Arc::new(membership::Context {
        sets: Cache::new(|set, _, _| sets::SetView::of(set)),
        bindings: Cache::new(|binding, _, _| view::BindingView::of(binding)),
        clusters: caches.clusters.clone(),
        writer: writer.clone(),
        seen: membership::Seen::default(),
        said: std::sync::Mutex::default(),
    });
    let (known, concerned) = (clusters_known.clone(), membership.clone());
    let changed = move |name: &str| known.cluster_changed(name, &concerned);
    caches.start(&writer.client(), &queues, &waiting, changed, shutdown, tasks);

    let approval = Arc::new(approve::Context {
        requests: caches.requests.clone(),
        clusters: caches.clusters.clone(),
        namespaces: caches.namespaces.clone(),
        tokens: caches.tokens.clone(),
        waiting,
        writer: writer.clone(),
        trusted,
        namespace: policy.namespace.clone(),
        counting: tokio::sync::Mutex::default(),
        said: std::sync::Mutex::default(),
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

    if gates.enabled(Feature::ClusterProfile) {
        profiles::start(writer, workers, shutdown, tasks);
    }
    start_sets(
        writer,
        clusters_known,
        &membership,
        gates.enabled(Feature::DefaultClusterSet),
        shutdown,
        tasks,
    );
}

/// What follows from sets, and the two sets every hub has.
fn start_sets(
    writer: &Arc<Writer>,
    context: Arc<membership::Context>,
    queues: &membership::Queues,
    defaults: bool,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    let kept = Arc::new(sets::Context {
        sets: context.sets.clone(),
        writer: writer.clone(),
    });
    let (known, named) = (context.clone(), queues.clone());
    tasks.spawn(context.sets.clone().run(
        "ManagedClusterSets",
        Api::all(writer.client()),
        Config::default(),
        shutdown.clone(),
        move |_, name| known.set_changed(name, &named),
    ));
    let bindings = queues.bindings.clone();
    tasks.spawn(context.bindings.clone().run(
        "ManagedClusterSetBindings",
        Api::all(writer.client()),
        Config::default(),
        shutdown.clone(),
        move |namespace, name| bindings.add(&format!("{namespace}/{name}")),
    ));
    if defaults {
        queues.sets.add(names::DEFAULT_CLUSTER_SET);
        queues.sets.add(names::GLOBAL_CLUSTER_SET);
    }
    let (queues, shutdown) = (queues.clone(), shutdown.clone());
    tasks.spawn(async move {
        let known = async {
            tokio::join!(
                context.sets.ready(),
                context.bindings.ready(),
                context.clusters.ready()
            )
        };
        if shutdown.run_until_cancelled(known).await.is_none() {
            return;
        }
        let sets = |name: Arc<str>| {
            let (context, kept) = (context.clone(), kept.clone());
            async move {
                if defaults {
                    kept.reconcile(&name).await?;
                }
                context.reconcile_set(&name).await
            }
        };
        let bindings = |key: Arc<str>| {
            let context = context.clone();
            async move { context.reconcile_binding(&key).await }
        };
        let namespaces = |name: Arc<str>| {
            let context = context.clone();
            async move { context.reconcile_namespaces(&name).await }
        };
        let stop = || shutdown.clone();
        tokio::join!(
            queues.sets.run("ManagedClusterSet", 1, stop(), sets),
            queues
                .bindings
                .run("ManagedClusterSetBinding", 1, stop(), bindings),
            queues.namespaces.run("managed namespaces", 4, stop(), namespaces),
        );
    });
}
