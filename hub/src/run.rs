//! The hub as one future, for its own process and for others'.

use std::sync::Arc;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{error::Error, install, options::HubOptions, registration, writer::Writer};

/// Runs the hub's controllers until `shutdown`; then ends what is under way and returns. An API server that goes away
/// is waited for. Errors say what a person has to change first.
pub async fn run(client: Client, options: HubOptions, shutdown: CancellationToken) -> Result<(), Error> {
    // Twice as many writes as clusters at a time: some of a cluster's go at once.
    let writer = Arc::new(Writer::new(client, usize::from(options.workers) * 2));
    if options.install_crds {
        let Some(installed) = shutdown.run_until_cancelled(install::install(&writer)).await else {
            return Ok(());
        };
        installed?;
    }
    // However this ends, the tasks end with it.
    let stop = shutdown.child_token();
    let _guard = stop.clone().drop_guard();
    let mut tasks = JoinSet::new();
    registration::start(&writer, &options, &stop, &mut tasks);
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err() || !shutdown.is_cancelled() {
            return Err(Error::Ended("registration"));
        }
    }
    Ok(())
}
