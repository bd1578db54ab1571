//! When a cluster is missed, and that clocks which differ do not make it so.

use super::{embedded_only, lease_of, lease_path, stays, until_said};
use crate::Result;
use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use muster_crds::constants::{conditions, taints};
use muster_hub::HubOptions;
use muster_klusterlet::registration::clock::Clock;
use muster_tests::objects::{cluster_path, has_condition};
use muster_tests::wait::{SOON, eventually};
use muster_tests::{Fleet, FleetOptions};
use std::time::Duration;

/// How long after its last renewal a cluster that is cut off is Unknown, with this factor and lease.
async fn noticed(factor: f64, lease: u32) -> anyhow::Result<f64> {
    let fleet = Fleet::start(FleetOptions {
        hub: HubOptions {
            lease_grace_factor: factor,
            ..HubOptions::default()
        },
        ..FleetOptions::default()
    })
    .await?;
    fleet.until_available().await?;
    let (hub, cluster) = (fleet.kube(), &fleet.clusters[0]);
    lease_of(&hub, &cluster.name, lease).await?;
    super::renew_stops(&hub, &cluster.name).await?;
    super::renewed(&hub, &cluster.name).await?;
    fleet.until_available().await?;
    cluster.link.cut().await?;
    let last = hub.get(&lease_path(&cluster.name)).await?;
    let last: Timestamp = last["spec"]["renewTime"]
        .as_str()
        .context("it was renewed")?
        .parse()?;
    fleet
        .until_condition(&cluster.name, conditions::CLUSTER_AVAILABLE, "Unknown")
        .await?;
    let after = Timestamp::now().duration_since(last).as_secs_f64();
    let what = "it is tainted";
    hub.until(&cluster_path(&cluster.name), SOON, what, |object| {
        let keys = object
            .map(|object| object["spec"]["taints"].to_string())
            .unwrap_or_default();
        keys.contains(taints::UNREACHABLE).then_some(()).ok_or(keys)
    })
    .await?;
    // Back again, it says so itself, and the taint goes.
    cluster.link.heal()?;
    fleet.until_available().await?;
    hub.until(&cluster_path(&cluster.name), SOON, "its taint goes", |object| {
        let keys = object
            .map(|object| object["spec"]["taints"].to_string())
            .unwrap_or_default();
        (!keys.contains(taints::UNREACHABLE)).then_some(()).ok_or(keys)
    })
    .await?;
    Ok(after)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_cluster_is_unknown_after_its_grace_and_not_before() -> Result {
    // The hub is told of the factor; on a shared one there can be only one at a time.
    if !embedded_only() {
        return Ok(());
    }
    let cases = [(1.5, 2), (2.5, 2), (2.5, 5), (5.0, 1)];
    let measured = futures::future::try_join_all(cases.map(|(factor, lease)| noticed(factor, lease))).await?;
    for ((factor, lease), after) in cases.into_iter().zip(measured) {
        let grace = factor * f64::from(lease);
        eprintln!("lease {lease} s × {factor}: Unknown {after:.2} s after the last renewal");
        // The renewal is stamped a moment before the hub sees it.
        assert!(after >= grace, "{after:.2} s is before {grace} s");
        assert!(after < grace + 10.0, "{after:.2} s is long after {grace} s");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_cluster_whose_lease_is_made_shorter_stays_available() -> Result {
    let fleet = Fleet::joined(1).await?;
    let (hub, name) = (fleet.kube(), fleet.clusters[0].name.clone());
    // It is silent for longer already than it may be then.
    eventually(SOON, "its last renewal is old", async || {
        let lease = hub.get(&lease_path(&name)).await.map_err(|e| format!("{e:?}"))?;
        let last = lease["spec"]["renewTime"].as_str().unwrap_or_default();
        let last: Timestamp = last.parse().map_err(|e| format!("{last:?}: {e}"))?;
        let age = Timestamp::now().duration_since(last).as_secs_f64();
        (age > 6.0).then_some(()).ok_or_else(|| format!("{age:.1} s"))
    })
    .await?;
    let before = available(&hub.get(&cluster_path(&name)).await?);
    assert_eq!(before.0, "True");
    // Somebody else writes the lease: the agent's next renewal is refused, and must not wait for that.
    let note = serde_json::json!({"metadata": {"annotations": {"example.com/a": "b"}}});
    hub.merge(&lease_path(&name), &note).await?;
    lease_of(&hub, &name, 2).await?;
    // Longer than the hub waits for one that is lost.
    stays(Duration::from_secs(7), "availability flaps", async || {
        let object = hub.get(&cluster_path(&name)).await?;
        let taints = object["spec"]["taints"].to_string();
        anyhow::ensure!(!taints.contains(taints::UNREACHABLE), "{taints}");
        anyhow::ensure!(available(&object) == before, "{object}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_by_hours_are_told_and_lose_nobody() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions {
        clusters: 2,
        ..FleetOptions::default()
    })
    .await?;
    let hub = fleet.kube();
    let off = [SignedDuration::from_hours(2), SignedDuration::from_hours(-30)];
    for (cluster, off) in fleet.clusters.iter_mut().zip(off) {
        cluster.clock = Clock::new(move || {
            let now = Timestamp::now();
            now.checked_add(off).unwrap_or(now)
        });
        cluster.start();
    }
    fleet.until_available().await?;
    for (cluster, said) in fleet
        .clusters
        .iter()
        .zip(["2 h 0 min ahead of", "30 h 0 min behind"])
    {
        lease_of(&hub, &cluster.name, 1).await?;
        until_said(&hub, &cluster.name, conditions::CLOCK_SYNCED, "False", said).await?;
    }
    // Longer than the hub waits for one that is lost.
    stays(Duration::from_secs(5), "availability flaps", async || {
        for cluster in &fleet.clusters {
            let object = hub.get(&cluster_path(&cluster.name)).await?;
            has_condition(Some(&object), conditions::CLUSTER_AVAILABLE, "True")
                .map_err(anyhow::Error::msg)?;
        }
        Ok(())
    })
    .await?;
    // And lost it is missed like any other.
    fleet.clusters[1].link.cut().await?;
    fleet
        .until_condition(&fleet.clusters[1].name, conditions::CLUSTER_AVAILABLE, "Unknown")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_was_away_takes_nobody_for_lost_who_is_not() -> Result {
    let mut fleet = Fleet::joined(2).await?;
    let hub = fleet.kube();
    for cluster in &fleet.clusters {
        lease_of(&hub, &cluster.name, 1).await?;
    }
    fleet.hub.stop().await?;
    // One goes on, the other is lost while nobody looks.
    fleet.clusters[1].link.cut().await?;
    let name = fleet.clusters[0].name.clone();
    super::renew_stops(&hub, &name).await?;
    super::renewed(&hub, &name).await?;
    fleet.hub.start();
    fleet
        .until_condition(&fleet.clusters[1].name, conditions::CLUSTER_AVAILABLE, "Unknown")
        .await?;
    let object = hub.get(&cluster_path(&name)).await?;
    has_condition(Some(&object), conditions::CLUSTER_AVAILABLE, "True").map_err(anyhow::Error::msg)
}

/// When the condition last became what it is, and what that is.
fn available(object: &serde_json::Value) -> (String, String) {
    let all = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = all
        .into_iter()
        .find(|one| one["type"] == conditions::CLUSTER_AVAILABLE)
        .unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("lastTransitionTime"))
}

/// The hub's watch of leases is interrupted, and they are renewed before it is there again.
#[tokio::test(flavor = "multi_thread")]
async fn a_hub_whose_api_server_starts_again_takes_no_healthy_cluster_for_lost() -> Result {
    if !embedded_only() {
        return Ok(());
    }
    let fleet = Fleet::start(FleetOptions {
        clusters: 3,
        durable_hub: true,
        ..FleetOptions::default()
    })
    .await?;
    fleet.until_available().await?;
    let hub = fleet.kube();
    for cluster in &fleet.clusters {
        lease_of(&hub, &cluster.name, 4).await?;
    }
    let renewed = async |since: Timestamp| {
        for cluster in &fleet.clusters {
            let name = &cluster.name;
            eventually(SOON, &format!("{name} renews"), async || {
                let lease = hub.get(&lease_path(name)).await.map_err(|e| e.to_string())?;
                let last = lease["spec"]["renewTime"].as_str().unwrap_or_default();
                let last: Timestamp = last.parse().map_err(|e| format!("{last:?}: {e}"))?;
                (last > since).then_some(()).ok_or_else(|| last.to_string())
            })
            .await?;
        }
        anyhow::Ok(())
    };
    // Longer than they may be silent, so that what the hub found at first is long ago.
    let begun = Timestamp::now();
    renewed(begun.checked_add(SignedDuration::from_secs(11))?).await?;
    let mut before = Vec::new();
    for cluster in &fleet.clusters {
        before.push(available(&hub.get(&cluster_path(&cluster.name)).await?));
    }
    assert!(before.iter().all(|(status, _)| status == "True"), "{before:?}");
    for _ in 0..3 {
        fleet.hub.plane.stop().await;
        fleet.hub.plane.start_again().await?;
        renewed(Timestamp::now()).await?;
        for (cluster, before) in fleet.clusters.iter().zip(&before) {
            let object = hub.get(&cluster_path(&cluster.name)).await?;
            assert_eq!(available(&object), *before, "{object}");
            let taints = object["spec"]["taints"].to_string();
            assert!(!taints.contains(taints::UNREACHABLE), "{taints}");
        }
    }
    Ok(())
}

/// What the hub finds leases by was taken off one: it is put back, and the cluster is heard of.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_lost_its_label_gets_it_back_and_loses_nobody() -> Result {
    let fleet = Fleet::joined(1).await?;
    let (hub, name) = (fleet.kube(), fleet.clusters[0].name.clone());
    lease_of(&hub, &name, 1).await?;
    let before = available(&hub.get(&cluster_path(&name)).await?);
    let label = muster_crds::constants::labels::CLUSTER_NAME;
    let gone = serde_json::json!({"metadata": {"labels": {label: null}}});
    hub.merge(&lease_path(&name), &gone).await?;
    hub.until(&lease_path(&name), SOON, "its label is back", |lease| {
        let labels = lease
            .map(|lease| lease["metadata"]["labels"].clone())
            .unwrap_or_default();
        (labels[label] == name.as_str())
            .then_some(())
            .ok_or_else(|| labels.to_string())
    })
    .await?;
    // Longer than the hub waits for one that is lost.
    stays(Duration::from_secs(5), "availability flaps", async || {
        let object = hub.get(&cluster_path(&name)).await?;
        anyhow::ensure!(available(&object) == before, "{object}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_api_server_is_unavailable_and_tainted_so() -> Result {
    if !embedded_only() {
        return Ok(());
    }
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    fleet.clusters[0].options.cluster_healthcheck_period = Duration::from_millis(200);
    fleet.clusters[0].start();
    fleet.until_available().await?;
    fleet.clusters[0].plane.stop().await;
    let (hub, name) = (fleet.kube(), fleet.clusters[0].name.clone());
    fleet
        .until_condition(&name, conditions::CLUSTER_AVAILABLE, "False")
        .await?;
    hub.until(&cluster_path(&name), SOON, "it is tainted", |object| {
        let keys = object
            .map(|object| object["spec"]["taints"].to_string())
            .unwrap_or_default();
        keys.contains(taints::UNAVAILABLE).then_some(()).ok_or(keys)
    })
    .await?;
    let events = format!("/apis/events.k8s.io/v1/namespaces/{name}/events");
    hub.until_all(&events, SOON, "the hub is told", |events| {
        let told = events
            .values()
            .any(|event| event["reason"] == "Unavailable" && event["type"] == "Warning");
        told.then_some(()).ok_or_else(|| format!("{events:?}"))
    })
    .await
}
