//! Very many works, very large works, and what a restart asks of both API servers: by Law 2, no write.

use crate::common::process::Memory;
use crate::common::requests::Requests;
use crate::common::{Table, ms, size};
use crate::work::{CLIENTS, IDLE, create, delete, name};
use crate::{Cluster, Events, Hub, is_true};
use anyhow::Result;
use muster_tests::Program;
use muster_tests::objects::{configmap, work, work_path, works_path};
use serde_json::Value;
use std::collections::HashSet;
use std::time::Instant;

const CLUSTER: &str = "bench2";

/// The rows about one cluster with very much on it.
pub async fn measure(table: &Table, program: &Program, hub: &mut Hub) -> Result<()> {
    let (mut cluster, _) = Cluster::start(program, hub, CLUSTER).await?;
    let mut clusters = Events::of(&hub.admin, muster_tests::objects::CLUSTERS).await?;
    clusters
        .until("the cluster is available", |_, o| {
            is_true(o, "ManagedClusterConditionAvailable")
        })
        .await?;
    let mut works = Events::of(&hub.admin, &works_path(CLUSTER)).await?;

    let objects = size("OBJECTS", 1000);
    let manifests: Vec<Value> = (0..objects)
        .map(|n| configmap("default", &format!("large-{n}"), "0"))
        .collect();
    let mut h = hub.admin.connect().await?;
    let start = Instant::now();
    create(&mut h, &work(CLUSTER, "large", &manifests)).await?;
    let applied = works
        .until("the large work is applied", |_, o| {
            name(o) == "large" && is_true(o, "Applied")
        })
        .await?;
    table.row(
        &format!("one work of {objects} objects -> Applied"),
        &ms(applied - start),
        "",
    );
    tokio::time::sleep(IDLE).await;
    table.row("  klusterlet then", &cluster.memory()?.show(), "");
    let start = Instant::now();
    delete(&mut h, &work_path(CLUSTER, "large")).await?;
    let gone = works
        .until("the large work is gone", |kind, o| {
            kind == "DELETED" && name(o) == "large"
        })
        .await?;
    table.row("  deleted -> gone", &ms(gone - start), "");

    let count = size("MANY", 5000);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(hub.admin.connect().await?);
    }
    let start = Instant::now();
    let creating = clients.iter_mut().enumerate().map(|(client, h)| async move {
        for n in (client..count).step_by(CLIENTS) {
            let w = format!("many-{n}");
            create(h, &work(CLUSTER, &w, &[configmap("default", &w, "0")])).await?;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(creating).await?;
    let created = start.elapsed();
    let mut seen = HashSet::new();
    let applied = works
        .until("all works are applied", |_, o| {
            if name(o).starts_with("many-") && is_true(o, "Applied") {
                seen.insert(name(o).to_owned());
            }
            seen.len() == count
        })
        .await?;
    let what = format!("{count} works of one object -> all Applied (the requests alone)");
    table.row(&what, &format!("{} ({})", ms(applied - start), ms(created)), "");
    tokio::time::sleep(IDLE).await;
    table.row("  klusterlet then", &cluster.memory()?.show(), "");
    table.row("  hub standalone then", &hub.memory()?.show(), "");
    let server = Memory::of(cluster.server.process.id())?;
    table.row("  managed cluster's API server then", &server.show(), "");

    restart_klusterlet(table, program, hub, &mut cluster, count).await?;
    restart_hub(table, program, hub, &cluster, count).await
}

/// The klusterlet starts again over what is there.
async fn restart_klusterlet(
    table: &Table,
    program: &Program,
    hub: &Hub,
    cluster: &mut Cluster,
    works: usize,
) -> Result<()> {
    let spoke = cluster.server.target()?;
    cluster.klusterlet.signal("TERM")?;
    cluster.klusterlet.until_ended(crate::LONG).await?;
    let before = (Requests::of(&hub.admin).await?, Requests::of(&spoke).await?);
    let start = cluster.restart(program, hub, CLUSTER)?;
    let quiet = quiet(&[hub.admin.clone(), spoke.clone()]).await?;
    let after = (Requests::of(&hub.admin).await?, Requests::of(&spoke).await?);
    let (at_hub, at_spoke) = (after.0.since(&before.0), after.1.since(&before.1));
    table.row(
        &format!("klusterlet restarted over {works} works, until it is quiet"),
        &ms(quiet - start),
        "",
    );
    table.row(
        "  requests at the hub / managed cluster",
        &format!("{} / {}", at_hub.all(), at_spoke.all()),
        "",
    );
    table.row(
        "  writes among them",
        &format!("{} / {}", at_hub.writes(), at_spoke.writes()),
        "0 / 0",
    );
    table.note(&format!("at the hub: {}", at_hub.show()));
    table.note(&format!("at the managed cluster: {}", at_spoke.show()));
    tokio::time::sleep(IDLE).await;
    table.row("  klusterlet then", &cluster.memory()?.show(), "");
    Ok(())
}

/// The hub starts again over what is there, and the agents come back to it.
async fn restart_hub(
    table: &Table,
    program: &Program,
    hub: &mut Hub,
    cluster: &Cluster,
    works: usize,
) -> Result<()> {
    let spoke = cluster.server.target()?;
    let before = Requests::of(&spoke).await?;
    let start = hub.restart(program).await?;
    table.row(
        &format!("hub restarted with {works} works, start to ready"),
        &ms(hub.started_in),
        "",
    );
    let quiet = quiet(&[hub.admin.clone(), spoke.clone()]).await?;
    // A server counts from its start.
    let at_hub = Requests::of(&hub.admin).await?.since(&Requests::default());
    let at_spoke = Requests::of(&spoke).await?.since(&before);
    table.row("  until hub and klusterlet are quiet", &ms(quiet - start), "10 s");
    table.row(
        "  writes at the hub / managed cluster",
        &format!("{} / {}", at_hub.writes(), at_spoke.writes()),
        "0 / 0",
    );
    table.note(&format!("at the hub: {}", at_hub.show()));
    table.note(&format!("at the managed cluster: {}", at_spoke.show()));
    Ok(())
}

/// The moment after which nothing was asked of these servers for a while.
async fn quiet(servers: &[crate::common::client::Target]) -> Result<Instant> {
    let mut last = Instant::now();
    let mut seen = 0;
    while last.elapsed() < IDLE {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let mut all = 0;
        for server in servers {
            all += Requests::of(server).await?.since(&Requests::default()).all();
        }
        if all != seen {
            (seen, last) = (all, Instant::now());
        }
    }
    Ok(last)
}
