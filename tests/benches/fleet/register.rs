//! Many clusters at once: the requests of a registration without the agents, so that the hub is what is measured.

use crate::common::client::Target;
use crate::common::{Table, Times, ms};
use crate::{Events, Hub};
use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_klusterlet::registration::csr;
use muster_tests::objects::{CLUSTERS, CSRS};
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Connections that the clusters share to come in: TLS handshakes of a thousand agents are not the hub's controllers.
const CONNECTIONS: usize = 32;

/// A duration, and the part of it that one of so many has.
#[allow(clippy::cast_precision_loss)] // a duration for people
pub fn each(all: Duration, count: usize) -> String {
    let one = all.div_f64(count as f64);
    format!("{}; {}", ms(all), ms(one))
}

/// From the first request until each has a certificate, is accepted, and can renew its lease with that certificate.
pub async fn measure(table: &Table, hub: &Hub, count: usize) -> Result<()> {
    let bootstrap = Target::from_kubeconfig(&hub.bootstrap)?;
    let mut requests = Vec::new();
    for n in 0..count {
        let cluster = format!("c{n}");
        let made = csr::request(&cluster, "agent").map_err(|e| anyhow::anyhow!("{e}"))?;
        requests.push((cluster, made));
    }
    let mut signed = Events::of(&hub.admin, CSRS).await?;
    let mut leases = Events::of(&hub.admin, "/apis/coordination.k8s.io/v1/leases").await?;
    let mut accepted = Events::of(&hub.admin, CLUSTERS).await?;
    let (memory, computed) = (hub.memory()?, hub.computed()?);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(bootstrap.connect().await?);
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (n, mut connection) in connections.into_iter().enumerate() {
        let own: Vec<(String, String)> = requests
            .iter()
            .skip(n)
            .step_by(CONNECTIONS)
            .map(|(cluster, made)| (cluster.clone(), STANDARD.encode(&made.request)))
            .collect();
        tasks.spawn(async move {
            for (cluster, request) in own {
                let object = json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
                    "metadata": {"name": cluster}, "spec": {"hubAcceptsClient": false, "leaseDurationSeconds": 60}});
                connection.post(CLUSTERS, object.to_string()).await?;
                let object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
                    "metadata": {"generateName": format!("{cluster}-"),
                        "labels": {"open-cluster-management.io/cluster-name": cluster}},
                    "spec": {"request": request, "signerName": "kubernetes.io/kube-apiserver-client",
                        "usages": ["digital signature", "key encipherment", "client auth"]}});
                connection.post(CSRS, object.to_string()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let asked = start.elapsed();
    let mut certificates = HashMap::new();
    let certified = signed
        .until("all have certificates", |_, o| {
            let cluster = o["metadata"]["labels"]["open-cluster-management.io/cluster-name"].as_str();
            if let (Some(cluster), Some(cert)) = (cluster, o["status"]["certificate"].as_str()) {
                certificates.insert(cluster.to_owned(), cert.to_owned());
            }
            certificates.len() == count
        })
        .await?;
    let mut found = std::collections::HashSet::new();
    let welcome = accepted
        .until("all are accepted", |_, o| {
            if crate::is_true(o, "HubAcceptedManagedCluster") {
                found.insert(o["metadata"]["name"].to_string());
            }
            found.len() == count
        })
        .await?;
    let mut found = std::collections::HashSet::new();
    let leased = leases
        .until("all have leases", |_, o| {
            if o["metadata"]["name"] == "managed-cluster-lease" {
                found.insert(o["metadata"]["namespace"].to_string());
            }
            found.len() == count
        })
        .await?;
    let end = certified.max(welcome).max(leased);
    let computed = hub.computed()?.saturating_sub(computed);
    let target = match (count, std::env::var_os(muster_tests::control_plane::ASSETS)) {
        (200, None) => "2 s",
        (200, Some(_)) => "12 s",
        _ => "",
    };
    let what = format!("{count} clusters: certificates, acceptance, leases (asked in)");
    table.row(&what, &format!("{} ({})", ms(end - start), ms(asked)), target);
    table.row(
        "  certificates / accepted / leases",
        &format!(
            "{} / {} / {}",
            ms(certified - start),
            ms(welcome - start),
            ms(leased - start)
        ),
        "",
    );
    table.row("  the hub computed; a cluster", &each(computed, count), "");
    // Each certificate is worth what was promised: with it, and only with it, the cluster's lease can be read.
    let mut times = Vec::new();
    for (cluster, made) in requests.iter().step_by((count / 20).max(1)) {
        let certificate = STANDARD.decode(certificates.get(cluster).context("a certificate is missing")?)?;
        let target = Target::new(
            hub.admin.address(),
            &hub.ca,
            Some((&certificate, made.key.as_bytes())),
        )?;
        let start = Instant::now();
        let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{cluster}/leases/managed-cluster-lease");
        target.connect().await?.get(&lease).await?;
        times.push(start.elapsed());
    }
    table.row(
        "  a new connection that reads its lease, p50 / p99",
        &Times::new(times).show(),
        "",
    );
    let then = hub.memory()?;
    table.row(
        "  hub's memory before -> with them",
        &format!(
            "{} -> {}",
            crate::common::process::mb(memory.resident),
            crate::common::process::mb(then.resident)
        ),
        "",
    );
    Ok(())
}
