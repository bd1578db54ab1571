//! What the hub does about works. The klusterlets do the rest.

pub mod completed;
pub mod replicaset;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{gates::Feature, options::HubOptions, queue::Queue, writer::Writer};

/// Starts the watches and controllers of works on `tasks`: none, unless a gate asks for one.
pub fn start(
    writer: &Arc<Writer>,
    options: &HubOptions,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    let (gates, workers) = (options.gates(), usize::from(options.workers));
    if gates.enabled(Feature::ManifestWorkReplicaSet) {
        replicaset::start(writer, workers, shutdown, tasks);
    }
    if gates.enabled(Feature::CleanUpCompletedManifestWork) {
        start_completed(writer, workers, shutdown, tasks);
    }
}

fn start_completed(
    writer: &Arc<Writer>,
    workers: usize,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    let queue = Queue::new();
    writer.metrics().follow("completed ManifestWork", &queue);
    let context = Arc::new(completed::Context::new(writer.clone()));
    let (watching, named, stop) = (context.clone(), queue.clone(), shutdown.clone());
    tasks.spawn(async move { watching.follow(&named, stop).await });
    let stop = shutdown.clone();
    tasks.spawn(async move {
        let reconcile = |key: Arc<str>| {
            let context = context.clone();
            async move { context.reconcile(&key).await }
        };
        queue
            .run("completed ManifestWork", workers, stop, reconcile)
            .await;
    });
}
