//! Joining again in place: credentials that were lost, ran out or are for another hub, bootstrap data that changed.

use super::{
    approve, csr_of, decide, embedded_only, name, not_somebodys, renew_stops, renewed, requests_of,
    until_available, until_said,
};
use crate::Result;
use anyhow::Context as _;
use muster_apiserver::server::ServerOptions;
use muster_crds::constants::{annotations, conditions, names};
use muster_tests::fleet::Hub;
use muster_tests::objects::{CSRS, cluster_path, configmap, configmap_path, has_condition, work};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, eventually};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_klusterlet_uses_the_certificate_it_has() -> Result {
    let mut fleet = Fleet::joined(1).await?;
    let certificate = std::fs::read(fleet.clusters[0].credentials().join("tls.crt"))?;
    let requests = requests_of(&fleet).await?;
    for from in ["files", "Secret"] {
        fleet.clusters[0].stop().await?;
        if from == "Secret" {
            std::fs::remove_dir_all(fleet.clusters[0].credentials())?;
        }
        renew_stops(&fleet.kube(), &fleet.clusters[0].name).await?;
        fleet.clusters[0].start();
        renewed(&fleet.kube(), &fleet.clusters[0].name)
            .await
            .context(from)?;
        fleet.until_available().await?;
        assert_eq!(
            requests_of(&fleet).await?,
            requests,
            "{from}: it asked for a certificate although it has one"
        );
        assert_eq!(
            std::fs::read(fleet.clusters[0].credentials().join("tls.crt"))?,
            certificate
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_klusterlet_that_lost_its_credentials_joins_again() -> Result {
    let mut fleet = Fleet::joined(1).await?;
    let requests = requests_of(&fleet).await?;
    let cluster = &mut fleet.clusters[0];
    cluster.stop().await?;
    let old = std::fs::read(cluster.credentials().join("tls.crt"))?;
    std::fs::remove_dir_all(cluster.credentials())?;
    let (namespace, secret) = (&cluster.options.namespace, &cluster.options.hub_kubeconfig_secret);
    cluster
        .kube()
        .delete(&format!("/api/v1/namespaces/{namespace}/secrets/{secret}"))
        .await?;
    renew_stops(&fleet.kube(), &fleet.clusters[0].name).await?;
    fleet.clusters[0].start();
    renewed(&fleet.kube(), &fleet.clusters[0].name).await?;
    fleet.until_available().await?;
    assert_eq!(requests_of(&fleet).await?, requests + 1);
    assert_ne!(
        std::fs::read(fleet.clusters[0].credentials().join("tls.crt"))?,
        old
    );
    Ok(())
}

/// A certificate for the klusterlet that is none of the hub's it has: soon over, or of another name.
async fn swap_certificate(fleet: &mut Fleet, user: &str, groups: &[&str], life: Duration) -> Result {
    let other = fleet.hub.plane.certificate(user, groups, life)?;
    let cluster = &mut fleet.clusters[0];
    let (namespace, secret) = (&cluster.options.namespace, &cluster.options.hub_kubeconfig_secret);
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{secret}");
    let data = json!({"stringData": {"tls.crt": other.0, "tls.key": other.1}});
    cluster.kube().merge(&path, &data).await?;
    std::fs::write(cluster.credentials().join("tls.crt"), other.0)?;
    std::fs::write(cluster.credentials().join("tls.key"), other.1)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_is_not_used() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    let mut fleet = Fleet::joined(1).await?;
    let (hub, cluster) = (fleet.kube(), fleet.clusters[0].name.clone());
    let requests = requests_of(&fleet).await?;
    fleet.clusters[0].stop().await?;
    let other = "another";
    let groups = [
        muster_crds::names::cluster_group(other),
        names::MANAGED_CLUSTERS_GROUP.to_owned(),
    ];
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let user = muster_crds::names::user(other, "a");
    swap_certificate(&mut fleet, &user, &groups, Duration::from_secs(3600)).await?;
    renew_stops(&hub, &cluster).await?;
    fleet.clusters[0].start();
    renewed(&hub, &cluster).await?;
    assert_eq!(requests_of(&fleet).await?, requests + 1);
    Ok(())
}

/// Waits until the certificate the klusterlet was given is over, by the clock of both sides.
async fn until_over(fleet: &Fleet) -> Result {
    let pem = std::fs::read(fleet.clusters[0].credentials().join("tls.crt"))?;
    let validity = muster_hub::certificate::validity(&pem).context("it is a certificate")?;
    eventually(SOON, "the certificate is over", async || {
        let now = jiff::Timestamp::now();
        // It is good in the whole of its last second.
        (now.as_second() > validity.not_after.as_second())
            .then_some(())
            .ok_or_else(|| format!("{now} is not after {}", validity.not_after))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_klusterlet_away_for_longer_than_its_certificate_lives_registers_anew() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    let mut fleet = Fleet::joined(1).await?;
    let (hub, cluster) = (fleet.kube(), fleet.clusters[0].name.clone());
    let (ns, agent) = (
        fleet.clusters[0].namespace(),
        hub.get(&cluster_path(&cluster)).await?["metadata"]["annotations"][annotations::AGENT].clone(),
    );
    let agent = agent.as_str().context("the hub knows its agent")?.to_owned();
    fleet
        .create(&work(&cluster, "app", &[configmap(&ns, "settings", "1")]))
        .await?;
    fleet.until_applied(&cluster, "app").await?;
    let path = configmap_path(&ns, "settings");
    let before = fleet.clusters[0].kube().get(&path).await?;
    let user = muster_crds::names::user(&cluster, &agent);
    let groups = [
        muster_crds::names::cluster_group(&cluster),
        names::MANAGED_CLUSTERS_GROUP.to_owned(),
    ];
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    for how in ["it ran and did not reach the hub", "it did not run"] {
        let requests = requests_of(&fleet).await?;
        fleet.clusters[0].stop().await?;
        renew_stops(&hub, &cluster).await?;
        swap_certificate(&mut fleet, &user, &groups, Duration::from_secs(3)).await?;
        if how.starts_with("it ran") {
            fleet.clusters[0].link.cut().await?;
            fleet.clusters[0].start();
            until_over(&fleet).await?;
            fleet.clusters[0].link.heal()?;
        } else {
            until_over(&fleet).await?;
            // The hub does not know it by that certificate any more.
            let answer = fleet.clusters[0]
                .at_hub()
                .await?
                .get(&cluster_path(&cluster))
                .await;
            assert!(
                matches!(&answer, Err(refused) if [0, 401].contains(&refused.code)),
                "{answer:?}"
            );
            fleet.clusters[0].start();
        }
        renewed(&hub, &cluster).await.context(how)?;
        fleet.until_available().await.context(how)?;
        assert!(fleet.clusters[0].is_running(), "{how}");
        assert_eq!(requests_of(&fleet).await?, requests + 1, "{how}");
        let object = hub.get(&cluster_path(&cluster)).await?;
        assert_eq!(
            object["metadata"]["annotations"][annotations::AGENT],
            agent.as_str()
        );
        fleet.until_applied(&cluster, "app").await.context(how)?;
        let after = fleet.clusters[0].kube().get(&path).await?;
        assert_eq!(after, before, "{how}: the workload was touched");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_bootstrap_file_moves_the_cluster_to_another_hub_without_a_restart() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    // A hub that was set up anew: another CA, another address.
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (cluster.name.as_str(), cluster.namespace());
    let app = work(name, "app", &[configmap(&ns, "settings", "1")]);
    fleet.create(&app).await?;
    fleet.until_applied(name, "app").await?;
    let path = configmap_path(&ns, "settings");
    let before = cluster.kube().get(&path).await?;

    let second = Hub::embedded("second hub", &FleetOptions::default()).await?;
    let file = second.plane.bootstrap_kubeconfig(second.plane.address()).await?;
    let bootstrap = cluster
        .options
        .bootstrap_kubeconfig
        .clone()
        .context("the fleet gives one")?;
    // The file is looked at with each renewal.
    super::lease_of(&fleet.kube(), name, 1).await?;
    std::fs::copy(file, bootstrap)?;
    until_available(&second.plane.kube(), name).await?;
    assert!(cluster.is_running(), "it did not go on");

    // The same work from there finds its object and takes it over as it is.
    let there = second.plane.kube();
    there
        .create(&muster_tests::objects::works_path(name), &app)
        .await?;
    there
        .until(
            &muster_tests::objects::work_path(name, "app"),
            SOON,
            "it is applied",
            muster_tests::objects::is_applied,
        )
        .await?;
    let after = cluster.kube().get(&path).await?;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["data"], before["data"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_secret_may_change_and_go_while_it_runs() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    let link = fleet.clusters[0].link.address();
    let wrong = fleet
        .hub
        .plane
        .token_kubeconfig("nobody.fedcba9876543210", link)?;
    let right = fleet.hub.plane.bootstrap_kubeconfig(link).await?;
    let hub = fleet.kube();
    let cluster = &mut fleet.clusters[0];
    cluster.options.bootstrap_kubeconfig = None;
    let agent = cluster.options.namespace.clone();
    let spoke = cluster.kube();
    let namespaces = "/api/v1/namespaces";
    spoke
        .ensure(namespaces, &muster_tests::objects::namespace(&agent))
        .await?;
    let secrets = format!("{namespaces}/{agent}/secrets");
    let path = format!("{secrets}/{}", names::BOOTSTRAP_SECRET);
    let text = |file: &std::path::Path| std::fs::read_to_string(file);
    let secret = |text: String| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": names::BOOTSTRAP_SECRET},
            "stringData": {"kubeconfig": text}})
    };
    spoke.create(&secrets, &secret(text(&right)?)).await?;
    cluster.start();
    let name = cluster.name.clone();
    until_available(&hub, &name).await?;
    // Neither a bad credential nor none at all cut off a cluster that has its own.
    for step in ["changed", "deleted"] {
        if step == "changed" {
            spoke
                .merge(&path, &json!({"stringData": {"kubeconfig": text(&wrong)?}}))
                .await?;
        } else {
            spoke.delete(&path).await?;
        }
        super::lease_of(&hub, &name, 1).await?;
        renew_stops(&hub, &name).await?;
        renewed(&hub, &name).await.context(step)?;
        assert!(fleet.clusters[0].is_running(), "{step}");
    }
    // A detached one waits for new data, and joins again when they come.
    hub.delete(&cluster_path(&name)).await?;
    hub.until_gone(&cluster_path(&name), SOON).await?;
    spoke.create(&secrets, &secret(text(&right)?)).await?;
    until_available(&hub, &name).await?;
    assert!(fleet.clusters[0].is_running());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_requests_are_enough_and_the_renewal_says_so() -> Result {
    if !embedded_only() {
        return Ok(());
    }
    // So short-lived that the klusterlet always wants a new one.
    let fleet = Fleet::start(FleetOptions {
        server: ServerOptions {
            signing_duration: Duration::from_secs(60),
            ..ServerOptions::default()
        },
        ..FleetOptions::default()
    })
    .await?;
    let (hub, cluster) = (fleet.kube(), &fleet.clusters[0].name);
    let said = "too many csr created already on hub";
    until_said(&hub, cluster, conditions::CERTIFICATE_ROTATED, "False", said).await?;
    // And the first, which it made with another credential.
    assert_eq!(requests_of(&fleet).await?, 10 + 1);
    has_condition(
        Some(&hub.get(&cluster_path(cluster)).await?),
        conditions::CLUSTER_AVAILABLE,
        "True",
    )
    .map_err(anyhow::Error::msg)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_request_is_told_and_another_is_made_when_somebody_lets_it_in() -> Result {
    let mut fleet = Fleet::start(FleetOptions {
        auto_approve: false,
        ..FleetOptions::default()
    })
    .await?;
    let (hub, cluster) = (fleet.kube(), fleet.clusters[0].name.clone());
    let first = csr_of(&hub, &cluster).await?;
    decide(&hub, name(&first), "Denied").await?;
    // It goes on: a person who said no may say yes. Started again it asks at once.
    eventually(SOON, "the denial is read", async || {
        let csr = hub
            .get(&format!("{CSRS}/{}", name(&first)))
            .await
            .map_err(|e| e.to_string())?;
        has_condition(Some(&csr), "Denied", "True")
    })
    .await?;
    assert!(fleet.clusters[0].is_running());
    fleet.clusters[0].stop().await?;
    fleet.clusters[0].start();
    let path = super::csrs_path(&cluster);
    let second = hub
        .until_all(&path, SOON, "it asks again", |csrs| {
            let other = csrs.values().find(|csr| name(csr) != name(&first));
            other
                .cloned()
                .ok_or_else(|| "only the denied one is there".into())
        })
        .await?;
    approve(&hub, name(&second)).await?;
    super::accept(&hub, &cluster, true).await?;
    until_available(&hub, &cluster).await
}
