//! A hub whose storage is full, seen by klusterlets: one that has joined says so once and asks seldom, one that comes is told
//! why it has to wait, and with room again both go on by themselves.

use super::{lease_path, until_available};
use crate::crash::start_hub;
use crate::{MUSTER, Result};
use anyhow::Context as _;
use muster_apiserver::server::ServerOptions;
use muster_tests::control_plane::bootstrap_kubeconfig;
use muster_tests::objects::{cluster_path, configmap, configmap_path, namespace, work, works_path};
use muster_tests::program::Process;
use muster_tests::wait::SOON;
use muster_tests::{ControlPlane, Kube, Program, eventually};
use serde_json::json;
use std::time::Duration;

/// Not even this much fits, in the end.
const SPARE: usize = 100;
/// How long what is asked of a full hub is counted.
const WHILE: Duration = Duration::from_secs(7);

/// A klusterlet as a process, and the server it is for.
async fn klusterlet(
    program: &Program,
    name: &str,
    bootstrap: &str,
) -> anyhow::Result<(ControlPlane, Process)> {
    let spoke = ControlPlane::embedded(name, ServerOptions::default()).await?;
    let kubeconfig = spoke.kubeconfig().display().to_string();
    let process = program.spawn(&[
        "klusterlet",
        "--cluster-name",
        name,
        "--bootstrap-kubeconfig",
        bootstrap,
        "--spoke-kubeconfig",
        &kubeconfig,
        "--hub-kubeconfig-dir",
        name,
    ])?;
    Ok((spoke, process))
}

/// Fills the hub until the smallest of writes is refused.
async fn fill(kube: &Kube) -> Result {
    let maps = "/api/v1/namespaces/default/configmaps";
    let mut size = 100_000;
    for _ in 0..2000 {
        let filler = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "m-"},
            "data": {"filler": "x".repeat(size)}});
        if kube.create(maps, &filler).await.is_err() {
            if size == SPARE {
                return Ok(());
            }
            size = (size / 10).max(SPARE);
        }
    }
    anyhow::bail!("the disk does not fill")
}

/// Requests that the hub's API server had no room for.
async fn refused(hub: &Kube) -> anyhow::Result<u64> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let metrics = hub.client().request_text(request).await?;
    let all = metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{") && line.contains("code=\"500\""));
    all.map(|line| {
        let count = line.rsplit(' ').next().context("a counter has a value")?;
        Ok(count.parse::<u64>()?)
    })
    .sum()
}

async fn until_says(process: &Process, what: &str) -> Result {
    eventually(SOON, &format!("it says {what:?}"), async || {
        let log = process.stderr();
        log.contains(what).then_some(()).ok_or(log)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_without_room_is_told_of_once_and_asked_seldom() -> Result {
    let whole = Program::new(MUSTER)?;
    let full = whole.with_little_room()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("127.0.0.1:{port}");
    let mut process = start_hub(&full, &address)?;
    let admin = whole.home().join("hub/admin.kubeconfig");
    process.until_file(&admin).await?;
    let kube = Kube::from_file("hub", &admin).await?;
    let bootstrap = bootstrap_kubeconfig(&kube, &admin, whole.home()).await?;
    let bootstrap = bootstrap.display().to_string();
    let (spoke, first) = klusterlet(&whole, "first", &bootstrap).await?;
    until_available(&kube, "first").await?;
    spoke
        .kube()
        .create("/api/v1/namespaces", &namespace("app"))
        .await?;
    let app = work("first", "app", &[configmap("app", "settings", "1")]);
    kube.create(&works_path("first"), &app).await?;
    spoke
        .kube()
        .until_there(&configmap_path("app", "settings"), SOON)
        .await?;
    super::lease_of(&kube, "first", 5).await?;

    // What a refused write had begun is room again for a smaller one, as a renewal is.
    let what = "the hub has no room to store anything";
    eventually(SOON, &format!("it says {what:?}"), async || {
        let log = first.stderr();
        if log.contains(what) {
            return Ok(());
        }
        fill(&kube).await.map_err(|e| format!("{e:#}"))?;
        Err(log)
    })
    .await?;
    // One who comes is told as well, and waits.
    let (_other, mut second) = klusterlet(&whole, "second", &bootstrap).await?;
    until_says(
        &second,
        "it has no room to store anything, and its operator has to make some",
    )
    .await?;
    // The lease every five seconds at most, the newcomer later and later, and the hub itself a write or two.
    let before = refused(&kube).await?;
    tokio::time::sleep(WHILE).await;
    let asked = refused(&kube).await? - before;
    eprintln!("{asked} writes were asked of a full hub in {} s", WHILE.as_secs());
    assert!(asked <= 20, "{asked} writes");
    for (which, process) in [("first", &first), ("second", &second)] {
        let log = process.stderr();
        assert!(log.lines().count() < 60, "{which} says too much: {log}");
    }
    let log = first.stderr();
    assert_eq!(log.matches("the hub has no room").count(), 1, "{log}");
    assert!(
        second.until_ended(Duration::from_millis(1)).await.is_err(),
        "it gave up: {}",
        second.stderr()
    );
    // What is applied stays.
    spoke.kube().get(&configmap_path("app", "settings")).await?;

    process.kill()?;
    let again = start_hub(&whole, &address)?;
    until_says(&first, "the hub takes writes again")
        .await
        .with_context(|| again.stderr())?;
    super::renew_stops(&kube, "first").await?;
    super::renewed(&kube, "first").await?;
    until_available(&kube, "first").await?;
    // It waited no longer than a minute for its next try.
    kube.until_there(&cluster_path("second"), SOON * 2).await?;
    kube.until_there(&lease_path("second"), SOON).await?;
    until_available(&kube, "second").await
}
