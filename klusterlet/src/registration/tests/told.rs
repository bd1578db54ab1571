//! What goes wrong at a hub that a cluster has joined, told on the cluster: not at once, but as long as it lasts.

use super::flow::{CLUSTER, LEASE, accept, events, eventually, is, joined, start};
use super::hubs::one;
use super::stub::Stub;
use muster_crds::constants::conditions as types;
use serde_json::json;
use std::time::Duration;

/// What is told to be wrong now, if anything is.
fn told(spoke: &Stub) -> Option<String> {
    let all = events(spoke);
    let find = |reason: &str| {
        let found = all.iter().find(|(of, _)| of == reason);
        found.map(|(_, event)| event.clone())
    };
    let degraded = find("HubConnectionDegraded")?;
    let at = |event: &serde_json::Value| event["lastTimestamp"].as_str().unwrap().to_owned();
    let over = find("HubConnectionFunctional").is_some_and(|over| at(&over) >= at(&degraded));
    (!over).then(|| degraded["message"].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn renewals_that_are_refused_are_told_while_they_are() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &[]);
    joined(&hub).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(events(&spoke), [], "all is well");
    hub.with(|s| s.closed = vec![format!("GET {LEASE}"), format!("PUT {LEASE}")]);
    // The next renewal comes within 75 s, and two leases are waited for after that.
    tokio::time::sleep(Duration::from_secs(110)).await;
    assert_eq!(told(&spoke), None, "one that fails is no news");
    tokio::time::sleep(Duration::from_secs(100)).await;
    let words = "the hub https://hub has taken no renewal of the lease of cluster c1 for 12";
    let message = told(&spoke).unwrap();
    assert!(
        message.starts_with(words) && message.contains("not accepted"),
        "{message}"
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    let (_, event) = &events(&spoke)[0];
    let count = event["count"].as_i64().unwrap();
    assert!((4..=8).contains(&count), "told {count} times in ten minutes");
    hub.with(|s| s.closed.clear());
    eventually("that it is over is told", 30, || told(&spoke).is_none()).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(events(&spoke).len(), 2);
    assert_eq!(events(&spoke)[1].1["count"], 1, "and once");
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_refused_is_told_while_it_is() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &[]);
    joined(&hub).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    hub.with(|s| s.closed = vec![format!("PATCH {CLUSTER}/status")]);
    let claim = "/apis/cluster.open-cluster-management.io/v1alpha1/clusterclaims/zone";
    spoke.put(
        claim,
        json!({"apiVersion": "cluster.open-cluster-management.io/v1alpha1", "kind": "ClusterClaim",
        "metadata": {}, "spec": {"value": "north"}}),
    );
    tokio::time::sleep(Duration::from_secs(115)).await;
    assert_eq!(told(&spoke), None);
    // It is found out by a try, and up to 15 s lie between two of them.
    eventually("that it is refused is told", 30, || told(&spoke).is_some()).await;
    let message = told(&spoke).unwrap();
    let lasted = message
        .strip_prefix("the hub https://hub has not taken the status of cluster c1 for ")
        .and_then(|rest| rest.split_once(" s: not accepted"))
        .and_then(|(seconds, _)| seconds.parse::<u64>().ok());
    assert!(lasted.is_some_and(|s| (120..140).contains(&s)), "{message}");
    hub.with(|s| s.closed.clear());
    eventually("that it is over is told", 100, || told(&spoke).is_none()).await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_nobody_accepts_or_that_is_denied_is_told_so() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &[]);
    eventually("the ManagedCluster is there", 30, || hub.get(CLUSTER).is_some()).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(told(&spoke), None, "a person is given a minute");
    eventually("that it waits is told", 60, || told(&spoke).is_some()).await;
    assert!(told(&spoke).unwrap().contains("waits to be accepted"));
    accept(&hub);
    eventually("available", 30, || is(&hub, types::CLUSTER_AVAILABLE, "True")).await;
    eventually("that it is over is told", 30, || told(&spoke).is_none()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    hub.change(CLUSTER, |c| {
        c["spec"]["hubAcceptsClient"] = false.into();
        c["status"]["conditions"][0]["status"] = "False".into();
    });
    eventually("that it is denied is told", 10, || told(&spoke).is_some()).await;
    assert!(told(&spoke).unwrap().contains("the hub denied this cluster"));
    tokio::time::sleep(Duration::from_secs(600)).await;
    accept(&hub);
    eventually("that it is over is told", 90, || told(&spoke).is_none()).await;
    run.end().await;
}
