//! What a hub needs before it can work: its CustomResourceDefinitions and the role of agents that are not accepted
//! yet.

pub mod admission;
pub mod bootstrap;
pub mod crds;

use std::time::Duration;

pub use admission::refuses;

use crate::{
    error::Error,
    gates::{Feature, FeatureGates},
    writer::Writer,
};

/// Installs or updates definitions and policies, and comes back when they are served. An API server that is away is
/// waited for. Whether the server holds the policies.
pub async fn definitions(writer: &Writer, gates: &FeatureGates, namespace: &str) -> Result<bool, Error> {
    let mut wanted = muster_crds::crds::hub();
    if gates.enabled(Feature::ClusterProfile) {
        wanted.push(muster_crds::crds::cluster_profile());
    }
    until_done("definitions", || async {
        crds::install(writer, wanted.clone()).await?;
        let (nil, sets) = (Feature::NilExecutorValidating, Feature::ManifestWorkReplicaSet);
        admission::install(writer, gates.enabled(nil), gates.enabled(sets), namespace).await
    })
    .await
}

/// Lets clusters bootstrap. Who waits for the hub waits for this: it comes last.
pub async fn bootstrap(writer: &Writer) -> Result<(), Error> {
    until_done("bootstrap role", || bootstrap::install(writer)).await
}

/// Tries until it is done, or until it fails in a way that more attempts do not change.
pub(crate) async fn until_done<T, F>(what: &str, attempt: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut delay = Duration::from_millis(200);
    loop {
        match attempt().await {
            Err(error) if error.is_permanent() => return Err(error),
            Err(error) => tracing::warn!(what, %error, retry_in = ?delay, "not installed yet"),
            Ok(done) => return Ok(done),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(Duration::from_secs(10));
    }
}
