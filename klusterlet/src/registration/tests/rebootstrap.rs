//! Bootstrap data and credentials that change, vanish or come back while the agent runs, and after it was started again.

use super::flow::{AGENT_NS, CLUSTER, LEASE, csrs, eventually, file, hub_secret, joined, start, start_in};
use super::hubs::{kubeconfig, one, two};
use serde_json::{Value, json};
use std::time::Duration;

fn secret(url: &str, token: &str) -> Value {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(kubeconfig(url, token));
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "open-cluster-management-agent"},
        "data": {"kubeconfig": text}})
}

#[tokio::test(start_paused = true)]
async fn bootstrap_secrets_and_files_that_change_take_hold() {
    let (one, two, spoke, hubs) = two();
    let boot = format!("{AGENT_NS}/bootstrap-hub-kubeconfig");
    // Nothing at all at first: the Secret is waited for.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bootstrap");
    let run = start_in(
        dir,
        &spoke,
        &hubs,
        &["--bootstrap-kubeconfig-secret=bootstrap-hub-kubeconfig"],
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!run.task.is_finished());
    spoke.put(&boot, secret("https://hub", "t0ken"));
    joined(&one).await;
    // Another hub.
    spoke.put(&boot, secret("https://hub2", "t0ken"));
    joined(&two).await;
    let text = |v: Value| serde_json::to_string(&v).unwrap();
    assert!(!text(hub_secret(&spoke).unwrap()).is_empty());
    // Bad data do not cut off a hub that works.
    spoke.change(&boot, |s| s["data"]["kubeconfig"] = "bm9uc2Vuc2U6IFs=".into());
    tokio::time::sleep(Duration::from_secs(300)).await;
    let lease = two.get(LEASE).unwrap()["spec"]["renewTime"].clone();
    spoke.delete(&boot);
    eventually("deleted data neither", 200, || {
        two.get(LEASE).unwrap()["spec"]["renewTime"] != lease
    })
    .await;
    drop(path);
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_bootstrap_file_that_changes_takes_hold() {
    let (one, two, spoke, hubs) = two();
    let run = start(&spoke, &hubs, &[]);
    joined(&one).await;
    file(run.dir.path(), "bootstrap", &kubeconfig("https://hub2", "t0ken"));
    eventually("the other hub knows it", 120, || two.get(CLUSTER).is_some()).await;
    joined(&two).await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_detached_joins_again_with_new_bootstrap_data() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &[]);
    joined(&hub).await;
    hub.delete(CLUSTER);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(
        hub.get(CLUSTER).is_none(),
        "a detached cluster does not come back by itself"
    );
    hub.with(|s| s.bootstrap_tokens.push("another".into()));
    let boot = format!("{AGENT_NS}/bootstrap-hub-kubeconfig");
    // Spoiled in between.
    spoke.put(
        &boot,
        json!({"data": {"kubeconfig": "eA=="}, "metadata": {"namespace": "open-cluster-management-agent"}}),
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(hub.get(CLUSTER).is_none());
    spoke.put(&boot, secret("https://hub", "another"));
    joined(&hub).await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_hub_secret_is_kept_whole() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &[]);
    joined(&hub).await;
    let key = format!("{AGENT_NS}/hub-kubeconfig-secret");
    let data = hub_secret(&spoke).unwrap()["data"].clone();
    spoke.delete(&key);
    eventually("it is written again", 30, || {
        hub_secret(&spoke).is_some_and(|s| s["data"] == data)
    })
    .await;
    spoke.change(&key, |s| s["data"]["tls.crt"] = "eA==".into());
    eventually("it is mended", 120, || {
        hub_secret(&spoke).is_some_and(|s| s["data"] == data)
    })
    .await;
    assert_eq!((csrs(&hub), hub.with(|s| s.refused)), (1, 0));
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_restarts_goes_on_with_its_credentials() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &[]);
    joined(&hub).await;
    run.end().await;
    let lease = hub.get(LEASE).unwrap()["spec"]["renewTime"].clone();
    let again = start(&spoke, &hubs, &[]);
    eventually("it renews", 100, || {
        hub.get(LEASE).unwrap()["spec"]["renewTime"] != lease
    })
    .await;
    assert_eq!(csrs(&hub), 1);
    again.end().await;
    // So long away that the certificate expired, and the hub is away too: it stays, and registers when the hub is back.
    tokio::time::sleep(Duration::from_secs(90_000)).await;
    hub.with(|s| s.down = true);
    let late = start(&spoke, &hubs, &[]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!late.task.is_finished());
    hub.with(|s| s.down = false);
    eventually("it registered", 200, || csrs(&hub) == 2).await;
    late.end().await;
}
