//! Two clusters, one name: the one that has it is unharmed, and the other is told.

use super::{lease_path, lose, renew_stops, renewed, stays, until_available};
use crate::{MUSTER, Result};
use muster_crds::constants::{annotations, conditions};
use muster_tests::objects::{cluster_path, configmap, configmap_path, work, works_path};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, Kube, Program};
use serde_json::{Value, json};
use std::time::Duration;

/// A cluster that is Available, and another than those that come after it.
async fn joined_alone() -> anyhow::Result<Fleet> {
    let fleet = Fleet::start(FleetOptions {
        own_clusters: true,
        ..FleetOptions::default()
    })
    .await?;
    fleet.until_available().await?;
    Ok(fleet)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_returns_to_a_name_that_is_anothers_stands_back() -> Result {
    let mut fleet = joined_alone().await?;
    let (hub, name) = (fleet.kube(), fleet.clusters[0].name.clone());
    let ns = fleet.clusters[0].namespace();
    let former = fleet.clusters[0].at_hub().await?;
    fleet
        .create(&work(&name, "old", &[configmap(&ns, "old", "1")]))
        .await?;
    fleet.until_applied(&name, "old").await?;
    lose(&fleet, 0).await?;
    let admin = fleet.hub.plane.kubeconfig().display().to_string();
    let run = Program::new(MUSTER)?
        .run(&["detach", &name, "--force", "--kubeconfig", &admin])
        .await?;
    assert_eq!(run.code, 0, "{run:?}");
    hub.until_gone(&cluster_path(&name), SOON).await?;

    // Another cluster comes under its name, with works of its own, and both have certificates in its group.
    fleet.add_cluster(&name).await?.options.agent_id = Some("heir".into());
    fleet.clusters[1].start();
    until_available(&hub, &name).await?;
    let heirs = fleet.clusters[1].namespace();
    fleet
        .create(&work(&name, "new", &[configmap(&heirs, "new", "1")]))
        .await?;
    fleet.until_applied(&name, "new").await?;
    let heir_uid =
        hub.get(&cluster_path(&name)).await?["metadata"]["annotations"][annotations::CLUSTER_UID].clone();
    assert!(heir_uid.is_string());

    fleet.clusters[0].stop().await?;
    fleet.clusters[0].link.heal()?;
    // The former one's certificate is good for nothing of the heir's, though it is in the group of the name.
    let status = format!("{}/status", cluster_path(&name));
    let lease = hub.get(&lease_path(&name)).await?;
    for (what, answer) in [
        ("works", former.get(&works_path(&name)).await),
        ("cluster", former.get(&cluster_path(&name)).await),
        ("lease", former.replace(&lease_path(&name), &lease).await),
        (
            "status",
            former
                .merge(&status, &json!({"status": {"conditions": []}}))
                .await,
        ),
    ] {
        assert_eq!(answer.map(drop).map_err(|r| r.code), Err(403), "{what}");
    }

    fleet.clusters[0].start();
    let (first, second) = (fleet.clusters[0].kube(), fleet.clusters[1].kube());
    stays(Duration::from_secs(3), "the returning cluster", async || {
        let cluster = hub.get(&cluster_path(&name)).await?;
        anyhow::ensure!(
            cluster["metadata"]["annotations"][annotations::CLUSTER_UID] == heir_uid,
            "it took the name"
        );
        anyhow::ensure!(
            cluster["metadata"]["annotations"][annotations::AGENT] == "heir",
            "its agent has the name"
        );
        anyhow::ensure!(
            first.find(&configmap_path(&heirs, "new")).await?.is_none(),
            "it works for the other"
        );
        anyhow::ensure!(
            first.find(&configmap_path(&ns, "old")).await?.is_some(),
            "what it applied is gone"
        );
        Ok(())
    })
    .await?;
    assert!(fleet.clusters[0].is_running());
    assert_eq!(
        fleet.clusters[0].applied_works().await?.len(),
        1,
        "it has a record of the other's works"
    );
    // The lease is the heir's alone: once that one is cut off, nobody renews it.
    renew_stops(&hub, &name).await?;
    super::lease_of(&hub, &name, 1).await?;
    renewed(&hub, &name).await?;
    fleet.clusters[1].link.cut().await?;
    let last = hub.get(&lease_path(&name)).await?["spec"]["renewTime"].clone();
    stays(
        Duration::from_secs(3),
        "the lease of a cluster that is cut off",
        async || {
            anyhow::ensure!(
                hub.get(&lease_path(&name)).await?["spec"]["renewTime"] == last,
                "somebody else renews it"
            );
            Ok(())
        },
    )
    .await?;
    fleet.clusters[1].link.heal()?;
    until_available(&hub, &name).await?;
    second.get(&configmap_path(&heirs, "new")).await?;
    Ok(())
}

/// That a cluster is who it was, and available all the time since.
pub async fn unharmed(hub: &Kube, before: &Value) -> Result {
    let since = |cluster: &Value| {
        let all = cluster["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        all.into_iter()
            .find(|c| c["type"] == conditions::CLUSTER_AVAILABLE)
            .map(|c| (c["status"].clone(), c["lastTransitionTime"].clone()))
    };
    let after = hub.get(&cluster_path(super::name(before))).await?;
    for field in ["uid", "annotations", "labels"] {
        assert_eq!(after["metadata"][field], before["metadata"][field], "{field}");
    }
    assert_eq!(after["spec"]["hubAcceptsClient"], true);
    assert_eq!(since(&after), since(before));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_clusters_with_one_name_the_second_is_told_and_the_first_unharmed() -> Result {
    let mut fleet = joined_alone().await?;
    let (hub, name) = (fleet.kube(), fleet.clusters[0].name.clone());
    let before = hub.get(&cluster_path(&name)).await?;
    fleet.add_cluster(&name).await?.options.agent_id = Some("second".into());
    fleet.clusters[1].start();
    let error = fleet.clusters[1].failure().await?;
    assert!(
        error.contains(&format!("the name {name:?} is taken")) && error.contains("another --cluster-name"),
        "{error}"
    );
    assert!(!error.contains('\n'), "{error}");
    unharmed(&hub, &before).await?;
    until_available(&hub, &name).await
}
