//! Denial: at once, also on connections that are open, and only a person takes it back.

use super::{accept, denied_csr, embedded_only, honest, lease_path, name};
use crate::Result;
use anyhow::Context as _;
use futures::StreamExt as _;
use kube::core::WatchEvent;
use muster_crds::constants::{conditions, reasons};
use muster_tests::objects::{CSRS, cluster_path, works_path};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, Kube, tokens};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_cluster_can_do_nothing_until_it_is_accepted_again() -> Result {
    let fleet = Fleet::joined(1).await?;
    let (hub, cluster) = (fleet.kube(), &fleet.clusters[0]);
    let works = muster_tests::objects::works_path(&cluster.name);
    let agent = cluster.at_hub().await?;
    agent.list(&works).await?;

    accept(&hub, &cluster.name, false).await?;
    fleet
        .until_condition(&cluster.name, conditions::HUB_ACCEPTED, "False")
        .await?;
    let refused = muster_tests::eventually(SOON, "its works are closed to it", async || {
        match agent.list(&works).await {
            Err(refused) => Ok(refused),
            Ok(_) => Err("it still lists works".into()),
        }
    });
    assert_eq!(refused.await?.code, 403);

    accept(&hub, &cluster.name, true).await?;
    fleet
        .until_condition(&cluster.name, conditions::HUB_ACCEPTED, "True")
        .await?;
    muster_tests::eventually(SOON, "its works are open again", async || {
        agent.list(&works).await.map(drop).map_err(|e| e.to_string())
    })
    .await
}

/// Waits until an agent may not list works any more.
async fn until_closed(agent: &Kube, cluster: &str) -> Result {
    let works = works_path(cluster);
    muster_tests::eventually(SOON, "its works are closed to it", async || {
        match agent.list(&works).await {
            Err(refused) if refused.code == 403 => Ok(()),
            Err(refused) => Err(refused.to_string()),
            Ok(_) => Err("it still lists works".into()),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn denial_ends_a_watch_that_is_open() -> Result {
    // kube-apiserver asks once, when a watch begins; docs/registration.md says what that means.
    if !embedded_only() {
        return Ok(());
    }
    let fleet = Fleet::joined(1).await?;
    let (hub, cluster) = (fleet.kube(), &fleet.clusters[0]);
    let agent = cluster.at_hub().await?;
    let from = agent.get(&works_path(&cluster.name)).await?;
    let from = from["metadata"]["resourceVersion"]
        .as_str()
        .context("a list has a version")?;
    let path = format!("{}?watch=1&resourceVersion={from}", works_path(&cluster.name));
    let request = http::Request::get(path).body(Vec::new())?;
    let mut events = Box::pin(agent.client().request_events::<Value>(request).await?);

    accept(&hub, &cluster.name, false).await?;
    until_closed(&agent, &cluster.name).await?;
    // Nothing happens on it: it ends because its right is gone.
    let rest = async {
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Bookmark(_)) | Err(_) => {}
                Ok(event) => anyhow::bail!("something came: {event:?}"),
            }
        }
        Ok(())
    };
    tokio::time::timeout(SOON, rest)
        .await
        .context("the watch goes on")?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_cluster_gets_no_certificate_and_renews_nothing() -> Result {
    let fleet = Fleet::joined(1).await?;
    let (hub, cluster) = (fleet.kube(), &fleet.clusters[0]);
    let agent = cluster.at_hub().await?;
    accept(&hub, &cluster.name, false).await?;
    until_closed(&agent, &cluster.name).await?;
    let mut lease = hub.get(&lease_path(&cluster.name)).await?;
    lease["spec"]["holderIdentity"] = "still here".into();
    let renewal = honest(&cluster.name, &format!("agent-{}", cluster.name))?;
    let status = json!({"status": {"conditions": []}});
    let spec = json!({"spec": {"hubAcceptsClient": true}});
    let path = cluster_path(&cluster.name);
    for (what, answer) in [
        ("renewal", agent.create(CSRS, &renewal).await),
        ("lease", agent.replace(&lease_path(&cluster.name), &lease).await),
        ("status", agent.merge(&format!("{path}/status"), &status).await),
        ("acceptance", agent.merge(&path, &spec).await),
    ] {
        assert_eq!(answer.map_err(|r| r.code), Err(403), "{what}");
    }
    // It may see that it is denied. And no token brings it in again.
    agent.get(&path).await?;
    let token = tokens::make(&hub, &["--accept"]).await?;
    let holder = super::believed(&fleet, &token).await?;
    let asked = holder.create(CSRS, &honest(&cluster.name, "another")?).await?;
    let (reason, message) = denied_csr(&hub, &cluster.name).await?;
    assert_eq!(reason, reasons::CSR_CLUSTER_DENIED, "{}: {message}", name(&asked));
    Ok(())
}

/// A klusterlet may write its status as long as it has rights: also what says that it was accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_denial_while_no_hub_runs_holds_whatever_the_cluster_says_of_itself() -> Result {
    let mut fleet = Fleet::joined(1).await?;
    let hub = fleet.kube();
    let name = fleet.clusters[0].name.clone();
    let agent = fleet.clusters[0].at_hub().await?;
    fleet.clusters[0].crash().await;
    fleet.hub.stop().await?;
    accept(&hub, &name, false).await?;
    let path = cluster_path(&name);
    let nothing = json!({"status": {"conditions": []}});
    agent.merge(&format!("{path}/status"), &nothing).await?;
    fleet.hub.start();
    until_closed(&agent, &name).await?;
    fleet
        .until_condition(&name, conditions::HUB_ACCEPTED, "False")
        .await
}
