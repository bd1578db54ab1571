//! Several hubs: which is chosen, when it is left, and that workloads are handed over untouched.

use super::{accept, lease_of, not_somebodys, until_available};
use crate::Result;
use muster_tests::fleet::Hub;
use muster_tests::objects::{
    APPLIED_WORKS, cluster_path, deployment, deployment_path, is_applied, work, work_path, works_path,
};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, Link};
use serde_json::Value;
use std::time::Duration;

/// A cluster that knows two hubs, each behind a link; not started.
async fn two() -> anyhow::Result<(Fleet, Hub, Link)> {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    let second = Hub::embedded("second hub", &FleetOptions::default()).await?;
    let link = Link::open(second.plane.address())?;
    let file = second.plane.bootstrap_kubeconfig(link.address()).await?;
    let options = &mut fleet.clusters[0].options;
    options.feature_gates = vec!["MultipleHubs=true".to_owned()];
    options.bootstrap_kubeconfigs = options
        .bootstrap_kubeconfig
        .take()
        .into_iter()
        .chain([file])
        .collect();
    options.hub_connection_timeout_seconds = 3;
    options.appliedmanifestwork_eviction_grace_period = Duration::from_secs(3);
    Ok((fleet, second, link))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_cluster_goes_to_its_next_hub_and_its_workloads_do_not_notice() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    let (mut fleet, second, _link) = two().await?;
    fleet.clusters[0].start();
    fleet.until_available().await?;
    let (name, ns, spoke) = (
        fleet.clusters[0].name.clone(),
        fleet.clusters[0].namespace(),
        fleet.clusters[0].kube(),
    );
    let there = second.plane.kube();
    assert!(
        there.find(&cluster_path(&name)).await?.is_none(),
        "the first good one is chosen"
    );
    let app = work(&name, "app", &[deployment(&ns, "web", 1)]);
    fleet.create(&app).await?;
    fleet.until_applied(&name, "app").await?;
    let path = deployment_path(&ns, "web");
    let before = spoke.get(&path).await?;

    // The second hub has the same work for it.
    there
        .ensure("/api/v1/namespaces", &muster_tests::objects::namespace(&name))
        .await?;
    there.create(&works_path(&name), &app).await?;
    accept(&fleet.kube(), &name, false).await?;
    until_available(&there, &name).await?;
    there
        .until(
            &work_path(&name, "app"),
            SOON,
            "it is applied from there",
            is_applied,
        )
        .await?;
    // The first hub's record goes, and what it recorded stays.
    let what = "only the second hub's record is there";
    let agent = fleet.clusters[0].options.agent_id.clone().unwrap_or_default();
    spoke
        .until_all(APPLIED_WORKS, SOON, what, |works| {
            let mine = |work: &&Value| work["spec"]["agentID"] == agent.as_str();
            (works.values().filter(mine).count() == 1)
                .then_some(())
                .ok_or_else(|| format!("{:?}", works.keys()))
        })
        .await?;
    let after = spoke.get(&path).await?;
    let kept = |object: &Value| {
        (
            object["metadata"]["uid"].clone(),
            object["metadata"]["generation"].clone(),
            object["spec"].clone(),
        )
    };
    assert_eq!(kept(&after), kept(&before));
    assert!(fleet.clusters[0].is_running());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_silent_for_too_long_is_left_and_come_back_to() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    let (mut fleet, second, link) = two().await?;
    fleet.clusters[0].start();
    fleet.until_available().await?;
    let (first, there) = (fleet.kube(), second.plane.kube());
    let name = fleet.clusters[0].name.clone();
    // A hub is not missed sooner than two renewals are due.
    lease_of(&first, &name, 1).await?;
    super::renew_stops(&first, &name).await?;
    super::renewed(&first, &name).await?;
    fleet.clusters[0].link.cut().await?;
    until_available(&there, &name).await?;
    lease_of(&there, &name, 1).await?;
    super::renew_stops(&there, &name).await?;
    super::renewed(&there, &name).await?;
    // The first one is there again, but the present one is good: it is kept until it is lost too.
    fleet.clusters[0].link.heal()?;
    super::renew_stops(&first, &name).await?;
    super::renew_stops(&there, &name).await?;
    super::renewed(&there, &name).await?;
    link.cut().await?;
    super::renewed(&first, &name).await?;
    fleet.until_available().await
}
