//! Joining a hub: how a cluster becomes Available, by whose leave, and with what it needs for that.

use super::{accept, answered, approve, csr_of, not_somebodys, until_signed};
use crate::Result;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_crds::constants::{conditions, labels, names};
use muster_tests::control_plane::is_embedded;
use muster_tests::objects::{CLUSTERS, cluster_path, configmap, has_condition, work};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, tokens};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn three_clusters_join() -> Result {
    let fleet = Fleet::start(FleetOptions {
        clusters: 3,
        nodes: if is_embedded() { 2 } else { 0 },
        ..FleetOptions::default()
    })
    .await?;
    fleet.until_available().await?;
    let hub = fleet.kube();
    for cluster in &fleet.clusters {
        let name = &cluster.name;
        let what = "it tells about itself";
        let object = hub
            .until(&cluster_path(name), SOON, what, |object| {
                for condition in [
                    conditions::HUB_ACCEPTED,
                    conditions::JOINED,
                    conditions::CLUSTER_AVAILABLE,
                ] {
                    has_condition(object, condition, "True")?;
                }
                let object = object.ok_or("it is not there")?;
                if is_embedded() && object["status"]["capacity"]["cpu"].is_null() {
                    return Err(format!("no capacity: {}", object["status"]));
                }
                Ok(object.clone())
            })
            .await?;
        let version = cluster.kube().get("/version").await?;
        assert_eq!(object["status"]["version"]["kubernetes"], version["gitVersion"]);

        let namespace = hub.get(&format!("/api/v1/namespaces/{name}")).await?;
        assert_eq!(
            namespace["metadata"]["labels"][labels::CLUSTER_NAME],
            name.as_str()
        );
        let lease = format!(
            "/apis/coordination.k8s.io/v1/namespaces/{name}/leases/{}",
            names::CLUSTER_LEASE
        );
        hub.until(&lease, SOON, "the klusterlet renews its lease", |lease| {
            let renewed = lease.is_some_and(|lease| lease["spec"]["renewTime"].is_string());
            renewed.then_some(()).ok_or_else(|| "no renewTime".into())
        })
        .await?;

        let secret = format!(
            "/api/v1/namespaces/{}/secrets/{}",
            cluster.options.namespace, cluster.options.hub_kubeconfig_secret
        );
        let secret = cluster.kube().get(&secret).await?;
        for key in ["cluster-name", "agent-name", "kubeconfig", "tls.crt", "tls.key"] {
            assert!(
                secret["data"][key].is_string(),
                "the Secret with the hub's credentials has no {key}"
            );
        }
        assert_eq!(secret["data"]["cluster-name"], STANDARD.encode(name));
    }
    Ok(())
}

/// What a cluster that joins asks in vain.
async fn refused_of_one_join(fleet: &mut Fleet) -> anyhow::Result<BTreeMap<String, u64>> {
    let hub = fleet.kube();
    let before = answered(&hub, 403).await?;
    fleet.clusters[0].start();
    let begun = Instant::now();
    fleet.until_available().await?;
    eprintln!("available after {} ms", begun.elapsed().as_millis());
    // Works are followed too.
    let (cluster, ns) = (&fleet.clusters[0].name, fleet.clusters[0].namespace());
    fleet
        .create(&work(cluster, "first", &[configmap(&ns, "first", "1")]))
        .await?;
    fleet.until_applied(cluster, "first").await?;
    let mut refused = answered(&hub, 403).await?;
    for (what, count) in &mut refused {
        *count -= before.get(what).copied().unwrap_or_default();
    }
    refused.retain(|_, count| *count > 0);
    Ok(refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_let_in_asks_for_nothing_in_vain() -> Result {
    for by_token in [false, true] {
        let mut fleet = Fleet::prepare(FleetOptions {
            auto_approve: !by_token,
            ..FleetOptions::default()
        })
        .await?;
        if by_token {
            let token = tokens::make(&fleet.kube(), &["--accept"]).await?;
            let cluster = &mut fleet.clusters[0];
            let file = fleet.hub.plane.token_kubeconfig(&token, cluster.link.address())?;
            cluster.options.bootstrap_kubeconfig = Some(file);
        }
        let refused = refused_of_one_join(&mut fleet).await?;
        assert!(refused.is_empty(), "by token {by_token}: {refused:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_accepts_a_cluster() -> Result {
    let fleet = Fleet::start(FleetOptions {
        auto_approve: false,
        ..FleetOptions::default()
    })
    .await?;
    let (hub, name) = (fleet.kube(), &fleet.clusters[0].name);
    let cluster = hub.until_there(&cluster_path(name), SOON).await?;
    assert_eq!(cluster["spec"]["hubAcceptsClient"], false);

    let csr = csr_of(&hub, name).await?;
    approve(&hub, super::name(&csr)).await?;
    until_signed(&hub, super::name(&csr)).await?;
    // With a certificate, but not accepted, a cluster has nothing.
    let cluster = hub.get(&cluster_path(name)).await?;
    assert!(has_condition(Some(&cluster), conditions::JOINED, "True").is_err());
    assert!(hub.find(&format!("/api/v1/namespaces/{name}")).await?.is_none());

    accept(&hub, name, true).await?;
    fleet.until_available().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_approval_by_the_hub_nobody_gets_in() -> Result {
    // The bootstrap user is not among those the hub approves by itself.
    let fleet = Fleet::start(FleetOptions {
        auto_approve: false,
        ..FleetOptions::default()
    })
    .await?;
    let name = &fleet.clusters[0].name;
    let csr = csr_of(&fleet.kube(), name).await?;
    assert_eq!(csr["status"]["conditions"], Value::Null);
    assert!(!fleet.clusters[0].credentials().join("tls.crt").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_names_are_refused_before_anything_is_written() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    let before = fleet.kube().list(CLUSTERS).await?.len();
    let cases = [
        "Upper",
        "under_score",
        "dots.are.not",
        "-dash",
        "",
        &"x".repeat(64),
    ];
    for name in cases {
        let cluster = &mut fleet.clusters[0];
        cluster.options.cluster_name = Some(name.to_owned());
        cluster.start();
        let error = cluster.failure().await?;
        assert!(
            error.contains(&format!("cluster name {name:?} is not valid")),
            "{name:?}: {error}"
        );
        assert!(!error.contains('\n'), "more than one line: {error}");
    }
    assert_eq!(fleet.kube().list(CLUSTERS).await?.len(), before);
    let agent = format!("/api/v1/namespaces/{}", fleet.clusters[0].options.namespace);
    assert!(
        fleet.clusters[0].kube().find(&agent).await?.is_none(),
        "something was written on the cluster"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_may_not_be_made_yet_comes_once_it_may() -> Result {
    // On a shared hub the bootstrap role is everybody's.
    if !not_somebodys() {
        return Ok(());
    }
    let mut fleet = Fleet::prepare(FleetOptions {
        auto_approve: false,
        ..FleetOptions::default()
    })
    .await?;
    let hub = fleet.kube();
    let role = format!(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/{}",
        names::BOOTSTRAP_CLUSTER_ROLE
    );
    let whole = hub.get(&role).await?["rules"].clone();
    // Only what certificates need.
    let rules: Vec<&Value> = whole
        .as_array()
        .into_iter()
        .flatten()
        .filter(|rule| rule["apiGroups"] == json!(["certificates.k8s.io"]))
        .collect();
    hub.merge(&role, &json!({ "rules": rules })).await?;
    // Rights follow their role a moment later on a kube-apiserver.
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": "somebody", "groups": [names::BOOTSTRAP_GROUP], "resourceAttributes": {"verb": "create",
        "group": "cluster.open-cluster-management.io", "resource": "managedclusters"}}});
    let deadline = tokio::time::Instant::now() + SOON;
    while hub
        .create("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)
        .await?["status"]["allowed"]
        == true
    {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the bootstrap group may still make clusters"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    fleet.clusters[0].start();
    let name = fleet.clusters[0].name.clone();
    csr_of(&hub, &name).await?;
    assert!(hub.find(&cluster_path(&name)).await?.is_none());
    hub.merge(&role, &json!({ "rules": whole })).await?;
    hub.until_there(&cluster_path(&name), SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bootstrap_kubeconfig_may_be_in_a_secret() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    let cluster = &mut fleet.clusters[0];
    let file = cluster
        .options
        .bootstrap_kubeconfig
        .take()
        .context("the fleet gives one")?;
    let agent = cluster.options.namespace.clone();
    let namespaces = "/api/v1/namespaces";
    cluster
        .kube()
        .ensure(namespaces, &muster_tests::objects::namespace(&agent))
        .await?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": names::BOOTSTRAP_SECRET},
        "stringData": {"kubeconfig": std::fs::read_to_string(file)?}});
    cluster
        .kube()
        .create(&format!("{namespaces}/{agent}/secrets"), &secret)
        .await?;
    cluster.start();
    fleet.until_available().await
}
