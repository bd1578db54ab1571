//! Works: how fast what the hub says comes about on the cluster, and what is known of it at the hub.

use crate::common::client::Connection;
use crate::common::process::Memory;
use crate::common::{Table, Times, ms, size};
use crate::{Cluster, Events, Hub, is_true};
use anyhow::Result;
use http::Method;
use muster_tests::Program;
use muster_tests::objects::{
    CLUSTERS, configmap, configmap_path, deployment, feedback, work, work_path, works_path,
};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::{Duration, Instant};

const CLUSTER: &str = "bench1";
/// How long a process is left alone before its memory counts as idle.
const IDLE: Duration = Duration::from_secs(3);

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

async fn create(hub: &mut Connection, work: &Value) -> Result<()> {
    hub.post(&works_path(CLUSTER), work.to_string()).await?;
    Ok(())
}

async fn delete(connection: &mut Connection, path: &str) -> Result<()> {
    connection
        .request(Method::DELETE, path, bytes::Bytes::new())
        .await?;
    Ok(())
}

/// The rows about one cluster.
pub async fn measure(table: &Table, program: &Program, hub: &Hub) -> Result<()> {
    let rounds = size("ROUNDS", 50);
    let mut clusters = Events::of(&hub.admin, CLUSTERS).await?;
    tokio::time::sleep(IDLE).await;
    table.row("hub standalone, idle, no cluster", &hub.memory()?.show(), "20 MB");
    let (cluster, start) = Cluster::start(program, hub, CLUSTER).await?;
    let available = clusters
        .until("the cluster is available", |_, o| {
            is_true(o, "ManagedClusterConditionAvailable")
        })
        .await?;
    table.row(
        "agent start -> ManagedCluster Available",
        &ms(available - start),
        "300 ms",
    );
    tokio::time::sleep(IDLE).await;
    table.row("klusterlet, idle", &cluster.memory()?.show(), "12 MB");

    let spoke = cluster.server.target()?;
    let (mut h, mut s) = (hub.admin.connect().await?, spoke.connect().await?);
    let mut works = Events::of(&hub.admin, &works_path(CLUSTER)).await?;
    let mut times = Vec::new();
    for n in 0..rounds {
        let w = format!("create-{n}");
        let start = Instant::now();
        create(&mut h, &work(CLUSTER, &w, &[configmap("default", &w, "0")])).await?;
        let applied = works
            .until("a work is applied", |_, o| name(o) == w && is_true(o, "Applied"))
            .await?;
        times.push(applied - start);
    }
    table.row(
        "create a work -> Applied at the hub, p50 / p99",
        &Times::new(times).show(),
        "p50 6 ms",
    );

    let mut maps = Events::of(&spoke, "/api/v1/namespaces/default/configmaps").await?;
    let mut times = Vec::new();
    for n in 1..=rounds {
        let value = n.to_string();
        let manifests = [configmap("default", "create-0", &value)];
        let patch = json!({"spec": {"workload": {"manifests": manifests}}});
        let start = Instant::now();
        h.merge(&work_path(CLUSTER, "create-0"), &patch).await?;
        let changed = maps
            .until("the object changes", |_, o| {
                name(o) == "create-0" && o["data"]["value"] == value.as_str()
            })
            .await?;
        times.push(changed - start);
    }
    table.row(
        "change a work -> object changed, p50 / p99",
        &Times::new(times).show(),
        "p50 4 ms",
    );

    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        delete(&mut s, &configmap_path("default", "create-1")).await?;
        let mut gone = false;
        let back = maps
            .until("the object is back", |kind, o| {
                gone |= name(o) == "create-1" && kind == "DELETED";
                gone && name(o) == "create-1" && kind == "ADDED"
            })
            .await?;
        times.push(back - start);
    }
    table.row(
        "object deleted on the cluster -> back, p50 / p99",
        &Times::new(times).show(),
        "p50 5 ms",
    );

    let mut w = work(CLUSTER, "status", &[deployment("default", "status", 1)]);
    w["spec"]["manifestConfigs"] = json!([{"resourceIdentifier": {"group": "apps", "resource": "deployments",
        "namespace": "default", "name": "status"}, "feedbackRules": [{"type": "JSONPaths",
        "jsonPaths": [{"name": "n", "path": ".status.collisionCount"}]}]}]);
    create(&mut h, &w).await?;
    works
        .until("the Deployment is applied", |_, o| {
            name(o) == "status" && is_true(o, "Applied")
        })
        .await?;
    let mut times = Vec::new();
    for n in 1..=rounds {
        let start = Instant::now();
        s.merge(
            "/apis/apps/v1/namespaces/default/deployments/status/status",
            &json!({"status": {"collisionCount": n}}),
        )
        .await?;
        let seen = works
            .until("the feedback comes", |_, o| {
                feedback(o, "status", "n") == Some(n.into())
            })
            .await?;
        times.push(seen - start);
    }
    table.row(
        "status on the cluster -> feedback, p50 / p99",
        &Times::new(times).show(),
        "p50 5 ms",
    );

    burst(table, &mut h, &mut works).await?;
    tokio::time::sleep(IDLE).await;
    table.row("klusterlet, after all this", &cluster.memory()?.show(), "16 MB");
    table.row("hub standalone, after all this", &hub.memory()?.show(), "");
    table.row(
        "managed cluster's API server (in memory)",
        &Memory::of(cluster.server.process.id())?.show(),
        "",
    );
    Ok(())
}

/// Many works at once, there and gone.
async fn burst(table: &Table, h: &mut Connection, works: &mut Events) -> Result<()> {
    let count = size("WORKS", 300);
    let mut applied = HashSet::new();
    let start = Instant::now();
    for n in 0..count {
        let w = format!("burst-{n}");
        create(h, &work(CLUSTER, &w, &[configmap("default", &w, "0")])).await?;
    }
    let created = start.elapsed();
    let end = works
        .until("all works are applied", |_, o| {
            if name(o).starts_with("burst-") && is_true(o, "Applied") {
                applied.insert(name(o).to_owned());
            }
            applied.len() == count
        })
        .await?;
    let what = format!("{count} works one after another -> all Applied");
    let told = format!("{} ({})", ms(end - start), ms(created));
    table.row(&what, &told, "500 ms");
    let start = Instant::now();
    for n in 0..count {
        delete(h, &work_path(CLUSTER, &format!("burst-{n}"))).await?;
    }
    let told_all = start.elapsed();
    let end = works
        .until("all works are gone", |kind, o| {
            if kind == "DELETED" {
                applied.remove(name(o));
            }
            applied.is_empty()
        })
        .await?;
    let what = format!("{count} works deleted -> all gone (the requests alone)");
    let told = format!("{} ({})", ms(end - start), ms(told_all));
    table.row(&what, &told, "500 ms");
    Ok(())
}
