//! What people get wrong when they join: one clear error each, and nothing half done. Names that are not allowed or taken and
//! tokens that are used up are in `tokens` and `returning`, clocks in `availability`.

use super::not_somebodys;
use crate::{MUSTER, Result};
use anyhow::Context as _;
use muster_crds::constants::names;
use muster_crds::names as naming;
use muster_tests::control_plane::redirected;
use muster_tests::objects::CLUSTERS;
use muster_tests::wait::{SOON, eventually};
use muster_tests::{ControlPlane, Fleet, FleetOptions, Program, tokens};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_bootstrap_credential_is_told_at_once() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    let hub = &fleet.hub.plane;
    let expired = json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-expird", "namespace": "kube-system"},
        "stringData": {"token-id": "expird", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true", "expiration": "2020-01-01T00:00:00Z",
            "auth-extra-groups": names::BOOTSTRAP_GROUP}});
    hub.kube()
        .ensure("/api/v1/namespaces/kube-system/secrets", &expired)
        .await?;
    let link = fleet.clusters[0].link.address();
    let files = [
        hub.token_kubeconfig("expird.0123456789abcdef", link)?,
        hub.token_kubeconfig("nobody.fedcba9876543210", link)?,
    ];
    for file in files {
        let cluster = &mut fleet.clusters[0];
        cluster.options.bootstrap_kubeconfig = Some(file.clone());
        cluster.start();
        let error = cluster.failure().await?;
        assert!(
            error.contains("refuses the credential") && error.contains(&file.display().to_string()),
            "{error}"
        );
        assert!(
            !error.contains('\n') && !error.contains("fedcba9876543210"),
            "{error}"
        );
        assert!(
            !cluster.credentials().join("kubeconfig").exists(),
            "half of the credentials were written"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_ca_and_a_wrong_server_are_told_at_once() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    let before = fleet.kube().list(CLUSTERS).await?.len();
    let hub = fleet.hub.plane.address();
    let other = ControlPlane::embedded("another", muster_apiserver::server::ServerOptions::default()).await?;
    let kubeconfig = other.bootstrap_kubeconfig(other.address()).await?;
    let text = std::fs::read_to_string(&kubeconfig)?;
    let wrong_ca = fleet.clusters[0].dir().join("wrong-ca.kubeconfig");
    std::fs::write(&wrong_ca, redirected(&text, hub)?)?;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let nowhere = fleet.clusters[0].dir().join("nowhere.kubeconfig");
    std::fs::write(&nowhere, redirected(&text, nobody)?)?;
    // An API server that is no hub, with a credential it takes.
    let no_hub = other.kubeconfig().to_owned();
    for (file, mentions) in [
        (
            wrong_ca,
            [
                "can not be trusted with the CA of",
                "the CA is wrong or was replaced",
            ],
        ),
        (nowhere, ["can not be reached", "check that it runs"]),
        (
            no_hub,
            ["is no hub", "check the server in the bootstrap kubeconfig"],
        ),
    ] {
        let cluster = &mut fleet.clusters[0];
        cluster.options.bootstrap_kubeconfig = Some(file.clone());
        cluster.start();
        let error = cluster.failure().await?;
        for mention in mentions {
            assert!(error.contains(mention), "no {mention:?} in {error}");
        }
        assert!(!error.contains('\n'), "more than one line: {error}");
        assert!(!cluster.credentials().join("kubeconfig").exists());
    }
    assert_eq!(
        fleet.kube().list(CLUSTERS).await?.len(),
        before,
        "a ManagedCluster was made"
    );
    Ok(())
}

/// The Events beside the bootstrap Secret: reason, count, message.
async fn told_beside_the_secret(fleet: &Fleet) -> anyhow::Result<Vec<(String, i64, String)>> {
    let cluster = &fleet.clusters[0];
    let path = format!("/api/v1/namespaces/{}/events", cluster.options.namespace);
    let secret = cluster.options.bootstrap_kubeconfig_secret.as_str();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = cluster.kube().list(&path).await?;
    Ok(events
        .iter()
        .filter(|event| event["involvedObject"]["name"] == secret)
        .map(|event| {
            let count = event["count"].as_i64().unwrap_or_default();
            (text(&event["reason"]), count, text(&event["message"]))
        })
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_cluster_from_its_hub_is_told_on_the_cluster() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    // With no more rights than deploy/ gives.
    let mut fleet = Fleet::prepare(FleetOptions {
        deployed: true,
        ..FleetOptions::default()
    })
    .await?;
    let (hub, link) = (fleet.hub.plane.address(), fleet.clusters[0].link.address());
    let right = fleet.clusters[0].options.bootstrap_kubeconfig.clone();
    let other = ControlPlane::embedded("another", muster_apiserver::server::ServerOptions::default()).await?;
    let kubeconfig = other.bootstrap_kubeconfig(other.address()).await?;
    let text = std::fs::read_to_string(&kubeconfig)?;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let dir = fleet.clusters[0].dir();
    let (wrong_ca, nowhere) = (dir.join("wrong-ca.kubeconfig"), dir.join("nowhere.kubeconfig"));
    std::fs::write(&wrong_ca, redirected(&text, hub)?)?;
    std::fs::write(&nowhere, redirected(&text, nobody)?)?;
    let expired = tokens::make(&fleet.kube(), &["--ttl", "1s"]).await?;
    let bad_token = fleet.hub.plane.token_kubeconfig(&expired, link)?;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    for (count, (file, mention)) in (1..).zip([
        (&wrong_ca, "can not be trusted with the CA of"),
        (&nowhere, "can not be reached"),
        (&bad_token, "refuses the credential of"),
        // Started again and again, as Pods are: still one Event.
        (&bad_token, "refuses the credential of"),
    ]) {
        let cluster = &mut fleet.clusters[0];
        cluster.options.bootstrap_kubeconfig = Some(file.clone());
        cluster.start();
        let error = cluster.failure().await?;
        let told = told_beside_the_secret(&fleet).await?;
        let wanted = ("HubConnectionDegraded".to_owned(), count, error);
        assert_eq!(told, [wanted], "{mention}");
        assert!(told[0].2.contains(mention), "{told:?}");
    }
    fleet.clusters[0].options.bootstrap_kubeconfig = right;
    fleet.clusters[0].start();
    fleet.until_available().await?;
    eventually(SOON, "that all is well is told", async || {
        let told = told_beside_the_secret(&fleet).await.map_err(|e| e.to_string())?;
        let reasons: Vec<&str> = told.iter().map(|(reason, _, _)| reason.as_str()).collect();
        (reasons == ["HubConnectionDegraded", "HubConnectionFunctional"])
            .then_some(())
            .ok_or_else(|| format!("{told:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_takes_neither_lease_nor_status_of_a_cluster_is_told_of_there() -> Result {
    let mut fleet = Fleet::joined(1).await?;
    let (hub, name) = (fleet.kube(), fleet.clusters[0].name.clone());
    super::lease_of(&hub, &name, 1).await?;
    super::renew_stops(&hub, &name).await?;
    super::renewed(&hub, &name).await?;
    assert_eq!(told_beside_the_secret(&fleet).await?, []);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = format!("{rbac}/clusterroles/{}", naming::cluster_role(&name));
    let binding = naming::registration_role_binding(&name);
    let binding = format!("{rbac}/namespaces/{name}/rolebindings/{binding}");
    for (count, mention) in [
        (1, "has taken no renewal of the lease"),
        (2, "has not taken the status"),
    ] {
        // Rights that somebody took away, while nobody is there who gives them back.
        fleet.hub.stop().await?;
        if mention.contains("lease") {
            hub.delete(&binding).await?;
        } else {
            let mut less = hub.get(&role).await?;
            let rules = less["rules"].as_array_mut().context("it has rules")?;
            rules.retain(|rule| rule["resources"] != json!(["managedclusters/status"]));
            hub.replace(&role, &less).await?;
            let claim = json!({"apiVersion": "cluster.open-cluster-management.io/v1alpha1", "kind": "ClusterClaim",
                "metadata": {"name": format!("{name}.example.com")}, "spec": {"value": "to be told"}});
            let claims = "/apis/cluster.open-cluster-management.io/v1alpha1/clusterclaims";
            fleet.clusters[0].kube().create(claims, &claim).await?;
        }
        eventually(SOON, mention, async || {
            let told = told_beside_the_secret(&fleet).await.map_err(|e| e.to_string())?;
            let degraded = told
                .iter()
                .find(|(reason, _, _)| reason == "HubConnectionDegraded");
            degraded
                .is_some_and(|(_, _, message)| message.contains(mention))
                .then_some(())
                .ok_or_else(|| format!("{told:?}"))
        })
        .await?;
        fleet.hub.start();
        eventually(SOON, "that it is over is told", async || {
            let told = told_beside_the_secret(&fleet).await.map_err(|e| e.to_string())?;
            let well = told
                .iter()
                .find(|(reason, _, _)| reason == "HubConnectionFunctional");
            well.is_some_and(|(_, told, _)| *told == count)
                .then_some(())
                .ok_or_else(|| format!("{told:?}"))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_line_that_is_wrong_is_told_in_one_line() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    let fleet = Fleet::prepare(FleetOptions::default()).await?;
    let before = fleet.kube().list(CLUSTERS).await?.len();
    let program = Program::new(MUSTER)?;
    let admin = fleet.hub.plane.kubeconfig().display().to_string();
    let spoke = fleet.clusters[0].plane.kubeconfig().display().to_string();
    let made = program.run(&["token", "create", "--kubeconfig", &admin]).await?;
    let line: Vec<&str> = made.stdout.split_whitespace().skip(1).collect();
    let ended = tokens::make(&fleet.kube(), &["--ttl", "1s"]).await?;
    let other = ControlPlane::embedded("another", muster_apiserver::server::ServerOptions::default()).await?;
    let elsewhere = format!("https://{}", other.address());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let nowhere = format!("https://{nobody}");
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let with = |index: usize, value: &str| {
        let mut line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        line[index] = value.to_owned();
        line
    };
    // muster join --hub URL --token TOKEN --ca CA
    let cut: String = line[6].chars().take(40).collect();
    for (line, code, mention) in [
        (with(4, &ended), 1, "does not take the join token"),
        (
            with(4, "abcdef.0000000000000000"),
            1,
            "does not take the join token",
        ),
        (with(4, "abcdef.0123"), 2, "a join token is 6 and 16"),
        (with(6, &cut), 2, "is the line whole?"),
        (with(2, &elsewhere), 1, "the line is another hub's"),
        (with(2, &nowhere), 1, "check the URL"),
        (with(2, "http://hub"), 2, "https://hub.example.com:6443"),
    ] {
        let args: Vec<&str> = line
            .iter()
            .map(String::as_str)
            .chain(["--kubeconfig", &spoke, "--dir", "agent"])
            .collect();
        let run = program.run(&args).await?;
        assert!(
            run.code == code && run.stderr.contains(mention),
            "no {mention:?} in {run:?}"
        );
        assert!(
            !run.stderr.contains("0123456789abcdef") && !run.stderr.contains(ended.as_str()),
            "{run:?}"
        );
    }
    assert!(!program.home().join("agent/hub-kubeconfig/kubeconfig").exists());
    assert_eq!(
        fleet.kube().list(CLUSTERS).await?.len(),
        before,
        "a ManagedCluster was made"
    );
    Ok(())
}
