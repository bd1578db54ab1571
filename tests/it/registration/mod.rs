//! Registration, a module a concern: joining, tokens, forged requests, rights, denial, leaving, rotation, availability.

mod availability;
mod bad_input;
mod denial;
mod detach;
mod facts;
mod forged;
mod join;
mod proxies;
mod rebootstrap;
mod reserved;
mod returning;
mod rights;
mod room;
mod rotation;
mod sets;
mod several_hubs;
mod threats;
mod tokens;

use crate::Result;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_apiserver::pki::{new_key, request};
use muster_crds::constants::{conditions, labels, names};
use muster_crds::names as naming;
use muster_tests::control_plane::{EXTERNAL, is_embedded};
use muster_tests::objects::{CLUSTERS, CSRS, cluster_path, condition, has_condition};
use muster_tests::wait::{SOON, eventually};
use muster_tests::{Fleet, Kube};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Needs the embedded server; says so where it is not.
fn embedded_only() -> bool {
    if !is_embedded() {
        eprintln!("skipped: embedded only");
    }
    is_embedded()
}

/// Needs a server that tests may do everything with; says so where it is somebody's.
fn not_somebodys() -> bool {
    let somebodys = std::env::var_os(EXTERNAL).is_some();
    if somebodys {
        eprintln!("skipped: not on the cluster of {EXTERNAL}");
    }
    !somebodys
}

/// Whoever holds a join token.
async fn holder(fleet: &Fleet, token: &str) -> anyhow::Result<Kube> {
    let plane = &fleet.hub.plane;
    let file = plane.token_kubeconfig(token, plane.address())?;
    Kube::from_file("hub with a join token", &file).await
}

/// The same once the API server knows the token: a kube-apiserver looks into a cache, and may not at once.
async fn believed(fleet: &Fleet, token: &str) -> anyhow::Result<Kube> {
    let holder = holder(fleet, token).await?;
    eventually(SOON, "the API server knows the token", async || {
        match holder.get(CLUSTERS).await {
            Err(refused) if refused.code == 401 => Err(refused.to_string()),
            _ => Ok(()),
        }
    })
    .await?;
    Ok(holder)
}

/// A certificate request as an agent makes it.
fn csr(label: &str, user: &str, organizations: &[String], signer: &str) -> anyhow::Result<Value> {
    let organizations: Vec<&str> = organizations.iter().map(String::as_str).collect();
    let pem = request::write(user, &organizations, &new_key()?)?;
    Ok(csr_of_pem(label, pem.as_bytes(), signer))
}

fn csr_of_pem(label: &str, pem: &[u8], signer: &str) -> Value {
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "forged-", "labels": {labels::CLUSTER_NAME: label}},
        "spec": {"request": STANDARD.encode(pem), "signerName": signer,
            "usages": ["digital signature", "key encipherment", "client auth"]}})
}

/// An honest request for this agent of this cluster.
pub(crate) fn honest(cluster: &str, agent: &str) -> anyhow::Result<Value> {
    let groups = [
        naming::cluster_group(cluster),
        names::MANAGED_CLUSTERS_GROUP.to_owned(),
    ];
    csr(
        cluster,
        &naming::user(cluster, agent),
        &groups,
        names::KUBE_API_SERVER_CLIENT_SIGNER,
    )
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The collection of a cluster's certificate requests.
pub(crate) fn csrs_path(cluster: &str) -> String {
    let label = labels::CLUSTER_NAME.replace('/', "%2F");
    format!("{CSRS}?labelSelector={label}%3D{cluster}")
}

/// A certificate request of the cluster, once there is one.
pub(crate) async fn csr_of(hub: &Kube, cluster: &str) -> anyhow::Result<Value> {
    let what = "the klusterlet asks for a certificate";
    hub.until_all(&csrs_path(cluster), SOON, what, |csrs| {
        csrs.values().next().cloned().ok_or_else(|| "no CSR".into())
    })
    .await
}

/// A certificate request of the cluster that was denied, once there is one: reason and message.
async fn denied_csr(hub: &Kube, cluster: &str) -> anyhow::Result<(String, String)> {
    let what = "a certificate request is denied";
    hub.until_all(&csrs_path(cluster), SOON, what, |csrs| {
        let denied = csrs.values().find_map(|csr| {
            let conditions = csr["status"]["conditions"].as_array()?;
            conditions.iter().find(|c| c["type"] == "Denied").cloned()
        });
        let denied = denied.ok_or_else(|| format!("none of {} is", csrs.len()))?;
        let text = |field: &str| denied[field].as_str().unwrap_or_default().to_owned();
        Ok((text("reason"), text("message")))
    })
    .await
}

pub(crate) async fn until_signed(hub: &Kube, csr: &str) -> Result {
    hub.until(&format!("{CSRS}/{csr}"), SOON, "it is signed", |csr| {
        let signed = csr.is_some_and(|csr| csr["status"]["certificate"].is_string());
        signed.then_some(()).ok_or_else(|| format!("{csr:?}"))
    })
    .await
}

async fn decide(hub: &Kube, name: &str, decision: &str) -> Result {
    let path = format!("{CSRS}/{name}");
    let mut csr = hub.get(&path).await?;
    csr["status"]["conditions"] =
        json!([{"type": decision, "status": "True", "reason": "Test", "message": "by hand"}]);
    hub.replace(&format!("{path}/approval"), &csr).await?;
    Ok(())
}

pub(crate) async fn approve(hub: &Kube, name: &str) -> Result {
    decide(hub, name, "Approved").await
}

pub(crate) async fn accept(hub: &Kube, cluster: &str, accepted: bool) -> Result {
    let patch = json!({"spec": {"hubAcceptsClient": accepted}});
    hub.merge(&cluster_path(cluster), &patch).await?;
    Ok(())
}

/// How many certificates this fleet's only cluster asked for.
async fn requests_of(fleet: &Fleet) -> anyhow::Result<usize> {
    let path = csrs_path(&fleet.clusters[0].name);
    Ok(fleet.kube().list(&path).await?.len())
}

pub(crate) fn lease_path(cluster: &str) -> String {
    format!(
        "/apis/coordination.k8s.io/v1/namespaces/{cluster}/leases/{}",
        names::CLUSTER_LEASE
    )
}

/// Requests that the hub's API server answered with this code until now, by what was asked.
async fn answered(hub: &Kube, code: u16) -> anyhow::Result<BTreeMap<String, u64>> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let metrics = hub.client().request_text(request).await?;
    let lines = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("apiserver_request_total{"));
    let mut all = BTreeMap::new();
    let mut counters = 0;
    for line in lines {
        counters += 1;
        let (labels, count) = line.rsplit_once("} ").context("a counter has a value")?;
        let label = |name: &str| {
            let value = labels
                .split(',')
                .find_map(|l| l.strip_prefix(name)?.strip_prefix("=\""));
            value.map_or("", |v| v.trim_end_matches('"'))
        };
        if label("code") == code.to_string() {
            let what = format!("{} {}", label("verb"), label("resource"));
            *all.entry(what).or_insert(0) += count.parse::<u64>()?;
        }
    }
    anyhow::ensure!(counters > 0, "no counters in /metrics");
    Ok(all)
}

/// Sets the lease back, so that its next renewal is the klusterlet's that is started after this.
async fn renew_stops(hub: &Kube, cluster: &str) -> Result {
    let past = json!({"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}});
    hub.merge(&lease_path(cluster), &past).await?;
    Ok(())
}

/// Waits for a renewal after [`renew_stops`].
async fn renewed(hub: &Kube, cluster: &str) -> Result {
    let what = "the klusterlet works with the hub again";
    hub.until(&lease_path(cluster), SOON, what, |lease| {
        let at = lease
            .and_then(|lease| lease["spec"]["renewTime"].as_str())
            .unwrap_or("2020");
        (!at.starts_with("2020"))
            .then_some(())
            .ok_or_else(|| format!("last renewed {at}"))
    })
    .await
}

/// Waits until a cluster is Available on this hub.
pub(crate) async fn until_available(hub: &Kube, cluster: &str) -> Result {
    let what = format!("{cluster} is available");
    hub.until(&cluster_path(cluster), SOON, &what, |object| {
        has_condition(object, conditions::CLUSTER_AVAILABLE, "True")
    })
    .await
}

/// Waits for a condition of a cluster whose message mentions this.
async fn until_said(hub: &Kube, cluster: &str, type_: &str, status: &str, mention: &str) -> Result {
    let what = format!("{cluster} has {type_}={status} that mentions {mention:?}");
    hub.until(&cluster_path(cluster), SOON, &what, |object| {
        has_condition(object, type_, status)?;
        let said = object.and_then(|object| condition(object, type_)).map(|(_, m)| m);
        said.is_some_and(|said| said.contains(mention))
            .then_some(())
            .ok_or_else(|| format!("{said:?}"))
    })
    .await
}

/// Makes the lease of a cluster so long.
pub(crate) async fn lease_of(hub: &Kube, cluster: &str, seconds: u32) -> Result {
    let patch = json!({"spec": {"leaseDurationSeconds": seconds}});
    hub.merge(&cluster_path(cluster), &patch).await?;
    Ok(())
}

/// Cuts a cluster off, with a lease so short that the hub soon misses it.
async fn lose(fleet: &Fleet, index: usize) -> Result {
    let cluster = fleet.clusters.get(index).context("the fleet has it")?;
    lease_of(&fleet.kube(), &cluster.name, 1).await?;
    cluster.link.cut().await?;
    fleet
        .until_condition(&cluster.name, conditions::CLUSTER_AVAILABLE, "Unknown")
        .await
}

/// Looks for a while whether something stays as it is: what must not happen has no event to wait for.
pub(crate) async fn stays(within: Duration, what: &str, mut look: impl AsyncFnMut() -> Result) -> Result {
    let until = tokio::time::Instant::now() + within;
    while tokio::time::Instant::now() < until {
        look().await.with_context(|| what.to_owned())?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
