//! Certificates that are renewed in place: nothing is refused and nothing is lost on the way.

use super::{answered, csrs_path, embedded_only, name};
use crate::Result;
use anyhow::Context as _;
use muster_apiserver::server::ServerOptions;
use muster_crds::constants::conditions;
use muster_tests::objects::{CSRS, cluster_path, configmap, has_condition, work};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, Kube};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How often the certificate is renewed.
const ROTATIONS: usize = 100;

/// How many requests the hub's API server answered with 401.
async fn refused(hub: &Kube) -> anyhow::Result<u64> {
    Ok(answered(hub, 401).await?.values().sum())
}

/// Takes away the requests that were answered once there are others, as the hub's garbage collector does after an hour; counts
/// them.
async fn collect(hub: Kube, cluster: String, issued: Arc<AtomicUsize>) -> anyhow::Result<()> {
    let mut known = BTreeSet::new();
    loop {
        let now: BTreeMap<String, bool> = hub
            .list(&csrs_path(&cluster))
            .await?
            .iter()
            .map(|csr| (name(csr).to_owned(), csr["status"]["certificate"].is_string()))
            .collect();
        // The klusterlet asks again only after it has read the answer before.
        if now.keys().any(|csr| !known.contains(csr)) {
            for csr in now
                .iter()
                .filter(|(csr, signed)| **signed && known.contains(*csr))
            {
                hub.delete(&format!("{CSRS}/{}", csr.0)).await?;
                issued.fetch_add(1, Ordering::SeqCst);
            }
        }
        known = now.into_keys().collect();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_lives_no_longer_than_was_asked_for() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    fleet.clusters[0].options.client_cert_expiration_seconds = 3600;
    fleet.clusters[0].start();
    fleet.until_available().await?;
    let (hub, cluster) = (fleet.kube(), &fleet.clusters[0]);
    let csr = super::csr_of(&hub, &cluster.name).await?;
    assert_eq!(csr["spec"]["expirationSeconds"], 3600);
    let pem = std::fs::read(cluster.credentials().join("tls.crt"))?;
    let validity = muster_hub::certificate::validity(&pem).context("it is a certificate")?;
    let life = validity.not_after.duration_since(validity.not_before).as_secs();
    // Signers begin some minutes in the past.
    assert!((3600..=3600 + 600).contains(&life), "{life} s");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_rotations_lose_no_request_no_status_and_no_watch() -> Result {
    if !embedded_only() {
        return Ok(());
    }
    // A minute is less than what is left when a certificate is renewed (it is good from five minutes before it was signed),
    // so that each is renewed as soon as it is there.
    let fleet = Fleet::start(FleetOptions {
        server: ServerOptions {
            signing_duration: Duration::from_secs(60),
            ..ServerOptions::default()
        },
        ..FleetOptions::default()
    })
    .await?;
    let hub = fleet.kube();
    let cluster = &fleet.clusters[0];
    let issued = Arc::new(AtomicUsize::new(0));
    let collecting = tokio::spawn(collect(hub.clone(), cluster.name.clone(), issued.clone()));
    fleet.until_available().await?;
    let first = std::fs::read(cluster.credentials().join("tls.crt"))?;
    let before = refused(&hub).await?;
    // So short that a renewal that is refused would soon be missed.
    super::lease_of(&hub, &cluster.name, 5).await?;
    let lease = hub.get(&super::lease_path(&cluster.name)).await?["spec"]["renewTime"].clone();

    // Every event of the cluster from here on is looked at. Until its first rotation it may still wait for its rights.
    let path = cluster_path(&cluster.name);
    let rotated = |object: Option<&Value>| has_condition(object, conditions::CERTIFICATE_ROTATED, "True");
    hub.until(&path, SOON, "it rotates its certificate", rotated)
        .await?;
    let lost = hub.until(&path, Duration::from_secs(300), "its status is lost", |object| {
        for condition in [
            conditions::CLUSTER_AVAILABLE,
            conditions::JOINED,
            conditions::HUB_ACCEPTED,
            conditions::CERTIFICATE_ROTATED,
        ] {
            if let Err(problem) = has_condition(object, condition, "True") {
                return Ok(problem);
            }
        }
        Err("it is there".into())
    });
    let worked = async {
        let ns = cluster.namespace();
        let mut round = 0;
        while issued.load(Ordering::SeqCst) <= ROTATIONS {
            // A watch that was not resumed would not bring this.
            let app = format!("app{round}");
            fleet
                .create(&work(&cluster.name, &app, &[configmap(&ns, &app, "1")]))
                .await?;
            fleet.until_applied(&cluster.name, &app).await?;
            round += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(round)
    };
    let rounds = tokio::select! {
        lost = lost => anyhow::bail!("a status was lost: {lost:?}"),
        worked = worked => worked?,
        ended = collecting => anyhow::bail!("nobody takes requests away any more: {ended:?}"),
    };
    eprintln!(
        "{} rotations, {rounds} works meanwhile",
        issued.load(Ordering::SeqCst)
    );
    assert_eq!(refused(&hub).await?, before, "requests were answered with 401");
    assert_ne!(std::fs::read(cluster.credentials().join("tls.crt"))?, first);
    hub.until(
        &super::lease_path(&cluster.name),
        SOON,
        "the lease is renewed",
        |now| {
            let renewed = now.map(|now| &now["spec"]["renewTime"]);
            (renewed != Some(&lease))
                .then_some(())
                .ok_or_else(|| format!("last {lease}"))
        },
    )
    .await?;
    Ok(())
}
