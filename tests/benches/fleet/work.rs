//! Works: how fast what the hub says comes about on the cluster, and what is known of it at the hub.

use crate::common::client::{Connection, Target};
use crate::common::process::{Memory, computed};
use crate::common::requests::Requests;
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
/// Who creates and deletes many works at once.
pub const CLIENTS: usize = 16;
/// How long a process is left alone before its memory counts as idle.
pub const IDLE: Duration = Duration::from_secs(3);

/// Its name.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Creates a work.
pub async fn create(hub: &mut Connection, work: &Value) -> Result<()> {
    let cluster = work["metadata"]["namespace"].as_str().unwrap_or_default();
    hub.post(&works_path(cluster), work.to_string()).await?;
    Ok(())
}

/// Deletes what is there.
pub async fn delete(connection: &mut Connection, path: &str) -> Result<()> {
    connection
        .request(Method::DELETE, path, bytes::Bytes::new())
        .await?;
    Ok(())
}

/// What the three processes have computed so far: hub, klusterlet, managed cluster's API server.
fn computing(hub: &Hub, cluster: &Cluster) -> Result<[Duration; 3]> {
    let server = computed(cluster.server.process.id())?;
    Ok([hub.computed()?, computed(cluster.klusterlet.id())?, server])
}

/// How long each computed for one of many since `before`: what a path costs, whatever else the machine does.
fn cost(table: &Table, hub: &Hub, cluster: &Cluster, before: [Duration; 3], rounds: usize) -> Result<()> {
    let rounds = u32::try_from(rounds)?;
    let after = computing(hub, cluster)?;
    let [hub, klusterlet, server] = std::array::from_fn(|i| ms(after[i].saturating_sub(before[i]) / rounds));
    let told = format!("{hub} / {klusterlet} / {server}");
    table.row(
        "  computed for each: hub / klusterlet / managed cluster",
        &told,
        "",
    );
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
    let before = computing(hub, &cluster)?;
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
    cost(table, hub, &cluster, before, rounds)?;

    let mut maps = Events::of(&spoke, "/api/v1/namespaces/default/configmaps").await?;
    let mut times = Vec::new();
    let before = computing(hub, &cluster)?;
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
    cost(table, hub, &cluster, before, rounds)?;

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

    burst(table, hub, &cluster, &mut works).await?;
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
async fn burst(table: &Table, hub: &Hub, cluster: &Cluster, works: &mut Events) -> Result<()> {
    let count = size("WORKS", 300);
    let spoke = cluster.server.target()?;
    let mut applied = HashSet::new();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(hub.admin.connect().await?);
    }
    let before = asked(hub, &spoke).await?;
    let idle = computing(hub, cluster)?;
    let start = Instant::now();
    let creating = clients.iter_mut().enumerate().map(|(client, h)| async move {
        for n in (client..count).step_by(CLIENTS) {
            let w = format!("burst-{n}");
            create(h, &work(CLUSTER, &w, &[configmap("default", &w, "0")])).await?;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(creating).await?;
    let created = start.elapsed();
    let end = works
        .until("all works are applied", |_, o| {
            if name(o).starts_with("burst-") && is_true(o, "Applied") {
                applied.insert(name(o).to_owned());
            }
            applied.len() == count
        })
        .await?;
    let what = format!("{count} works at once -> all Applied (the requests alone)");
    let told = format!("{} ({})", ms(end - start), ms(created));
    table.row(&what, &told, "500 ms");
    tokio::time::sleep(IDLE).await;
    cost(table, hub, cluster, idle, count)?;
    let between = asked(hub, &spoke).await?;
    each(table, count, &before, &between);
    table.row("klusterlet with these works", &cluster.memory()?.show(), "16 MB");
    let idle = computing(hub, cluster)?;
    let start = Instant::now();
    let deleting = clients.iter_mut().enumerate().map(|(client, h)| async move {
        for n in (client..count).step_by(CLIENTS) {
            delete(h, &work_path(CLUSTER, &format!("burst-{n}"))).await?;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(deleting).await?;
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
    tokio::time::sleep(IDLE).await;
    cost(table, hub, cluster, idle, count)?;
    each(table, count, &between, &asked(hub, &spoke).await?);
    Ok(())
}

async fn asked(hub: &Hub, spoke: &Target) -> Result<[Requests; 2]> {
    Ok([Requests::of(&hub.admin).await?, Requests::of(spoke).await?])
}

/// What each of many works cost, the request that began it in it.
fn each(table: &Table, works: usize, before: &[Requests; 2], after: &[Requests; 2]) {
    let [hub, spoke] = [after[0].since(&before[0]), after[1].since(&before[1])];
    #[allow(clippy::cast_precision_loss)] // one digit is shown
    let each = |n: u64| format!("{:.1}", n as f64 / works as f64);
    let all = format!("{} / {}", each(hub.all()), each(spoke.all()));
    table.row("  requests a work, hub / managed cluster", &all, "");
    let writes = format!("{} / {}", each(hub.writes()), each(spoke.writes()));
    table.row("  writes among them", &writes, "");
    table.note(&format!("at the hub: {}", hub.show()));
    table.note(&format!("at the managed cluster: {}", spoke.show()));
}
