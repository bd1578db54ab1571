//! What a hub needs before it can work: its CustomResourceDefinitions and the role of agents that are not accepted
//! yet.

pub mod admission;
pub mod bootstrap;
pub mod crds;

use std::time::Duration;

use crate::{
    error::Error,
    gates::{Feature, FeatureGates},
    writer::Writer,
};

/// Installs or updates everything, and comes back when it is served. An API server that is away is waited for.
pub async fn install(writer: &Writer, gates: &FeatureGates) -> Result<(), Error> {
    let mut wanted = muster_crds::crds::hub();
    if gates.enabled(Feature::ClusterProfile) {
        wanted.push(muster_crds::crds::cluster_profile());
    }
    let mut delay = Duration::from_millis(200);
    loop {
        let result = async {
            crds::install(writer, wanted.clone()).await?;
            admission::install(writer).await?;
            // Last: who waits for the hub waits for this.
            bootstrap::install(writer).await
        };
        match result.await {
            Err(error) if error.is_permanent() => return Err(error),
            Err(error) => tracing::warn!(%error, retry_in = ?delay, "not installed yet"),
            Ok(()) => return Ok(()),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(Duration::from_secs(10));
    }
}
