//! Certificates that end soon: the agents of each maker renew theirs at the other's hub.

use super::agents::CREDENTIALS;
use super::{Agents, Cluster, Hub, Maker, Ocm, registration};
use crate::Result;
use crate::registration::csrs_path;
use muster_apiserver::server::ServerOptions;
use muster_crds::constants::conditions;
use muster_tests::control_plane::is_embedded;
use muster_tests::eventually;
use muster_tests::objects::{cluster_path, has_condition};
use muster_tests::wait::SOON;
use serde_json::json;
use std::time::Duration;

/// For how long certificates are signed. They are good from five minutes before, so that a little more than a quarter of their
/// life is left when they are new; with less, OCM's agent goes on asking before it has joined, until it may ask no more.
const SIGNED_FOR: Duration = Duration::from_secs(105);
/// Two rotations at a fifth of that life at the latest, and some time for it.
const RENEWED: Duration = Duration::from_secs(150);

/// The embedded server signs for as long as a test likes; a kube-apiserver's signer for ten minutes at least.
fn short() -> Option<ServerOptions> {
    if !is_embedded() {
        eprintln!("skipped: embedded only");
        return None;
    }
    Some(ServerOptions {
        signing_duration: SIGNED_FOR,
        ..ServerOptions::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn our_klusterlet_renews_at_ocms_hub() -> Result {
    let (Some(server), Some(ocm)) = (short(), Ocm::found().await?) else {
        return Ok(());
    };
    let hub = Hub::ocms_on(&ocm, server).await?;
    hub.explain(renew(&ocm, &hub, Maker::Muster).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn ocms_agent_renews_at_our_hub() -> Result {
    let (Some(server), Some(ocm)) = (short(), Ocm::found().await?) else {
        return Ok(());
    };
    let hub = Hub::ours_on(server).await?;
    renew(&ocm, &hub, Maker::Ocm).await
}

async fn renew(ocm: &Ocm, hub: &Hub, maker: Maker) -> Result {
    let cluster = Cluster::start(ocm).await?;
    let agents = Agents::start(ocm, &cluster, hub, maker)?;
    let told = async {
        registration::asks(hub, &cluster).await?;
        let user = muster_crds::names::user(&cluster.name, &cluster.agent);
        eventually(
            RENEWED,
            "two certificates are asked for with the one before",
            async || {
                // OCM's agent looks at its certificate when its Secret changes, else every few minutes.
                let touched =
                    json!({"metadata": {"annotations": {"touched": jiff::Timestamp::now().to_string()}}});
                match cluster.kube().merge(CREDENTIALS, &touched).await {
                    Err(refused) if refused.code != 404 => return Err(refused.to_string()),
                    _ => tokio::time::sleep(Duration::from_millis(500)).await,
                }
                let csrs = hub.kube.list(&csrs_path(&cluster.name)).await;
                let given = csrs.map_err(|refused| refused.to_string())?;
                let given = given.iter().filter(|csr| {
                    csr["spec"]["username"] == user.as_str() && csr["status"]["certificate"].is_string()
                });
                let given = given.count();
                (given >= 2).then_some(()).ok_or_else(|| format!("{given}"))
            },
        )
        .await?;
        let path = cluster_path(&cluster.name);
        hub.kube
            .until(&path, SOON, "that is told", |object| {
                has_condition(object, conditions::CERTIFICATE_ROTATED, "True")
            })
            .await
    }
    .await;
    agents.explain(told)
}
