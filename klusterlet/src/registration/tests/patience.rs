//! Who answers late is waited for: asking again, or ending and being started again, would only add to what a server has to do
//! that hundreds of clusters come to at once, or that has just started.

use super::super::answers;
use super::flow::{AGENT_NS, CLUSTER, accept, eventually, hub_secret, is, joined, start, start_in};
use super::hubs::{kubeconfig, one};
use super::stub::{Caller, Stub};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_crds::constants::conditions as types;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_hub_that_answers_late_is_waited_for() {
    let (hub, spoke, hubs) = one();
    hub.with(|s| s.slow = SECOND * 20);
    let begun = Instant::now();
    let run = start(&spoke, &hubs, &[]);
    let asked = || hub.with(|s| s.log.len());
    eventually("it answered", 30, || asked() > 0).await;
    assert!(begun.elapsed() >= SECOND * 20);
    hub.with(|s| {
        assert_eq!(s.log.len(), 1, "it was asked again while it thought: {:?}", s.log);
        s.slow = Duration::ZERO;
    });
    joined(&hub).await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_does_not_answer_is_given_up_after_half_a_minute() {
    let (hub, spoke, hubs) = one();
    hub.with(|s| s.slow = SECOND * 3600);
    let begun = Instant::now();
    let run = start(&spoke, &hubs, &[]);
    let error = run.task.await.unwrap().unwrap_err().to_string();
    assert!(
        error.contains("can not be reached: no answer within 30 s"),
        "{error}"
    );
    let took = begun.elapsed();
    assert!((SECOND * 30..SECOND * 32).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_is_not_there_is_given_up_after_seconds() {
    let (hub, spoke, hubs) = one();
    hub.with(|s| s.down = true);
    let begun = Instant::now();
    let run = start(&spoke, &hubs, &[]);
    let error = run.task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("can not be reached"), "{error}");
    let took = begun.elapsed();
    assert!((SECOND * 5..SECOND * 12).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn its_own_cluster_is_waited_for_as_well() {
    let (_, spoke, _) = one();
    let client = spoke.client(Caller::Admin);
    for (slow, down, problem, least, most) in [
        (20, false, None, 20, 21),
        (3600, false, Some("no answer within 30 s"), 30, 32),
        (0, true, Some("refused"), 5, 12),
    ] {
        spoke.with(|s| (s.slow, s.down) = (SECOND * slow, down));
        let begun = Instant::now();
        let answer = answers(&client, "https://spoke").await;
        match (&answer, problem) {
            (Ok(()), None) => {}
            (Err(told), Some(wanted)) => assert!(told.contains(wanted), "{told}"),
            _ => panic!("{slow} s: {answer:?}"),
        }
        let took = begun.elapsed();
        assert!(
            (SECOND * least..SECOND * most).contains(&took),
            "{slow} s: {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_bootstrap_secret_that_is_read_late_is_used() {
    let (hub, spoke, hubs) = one();
    let text = STANDARD.encode(kubeconfig("https://hub", "t0ken"));
    spoke.put(
        &format!("{AGENT_NS}/bootstrap-hub-kubeconfig"),
        json!({"metadata": {"namespace": "open-cluster-management-agent"}, "data": {"kubeconfig": text}}),
    );
    spoke.with(|s| s.slow = SECOND * 8);
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("not-there").display().to_string();
    let run = start_in(dir, &spoke, &hubs, &["--bootstrap-kubeconfig", &nowhere]);
    eventually("the ManagedCluster is made", 120, || {
        assert!(!run.task.is_finished(), "it gave up");
        hub.with(|s| s.objects.keys().any(|key| key.contains("managedclusters")))
    })
    .await;
    spoke.with(|s| s.slow = Duration::ZERO);
    joined(&hub).await;
    run.end().await;
}

/// A cluster that the hub has accepted, and whose rights it has yet to make.
fn accepted(hub: &Stub) {
    hub.with(|s| s.unaccepting = true);
    let cluster = json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {}, "spec": {"hubAcceptsClient": true}});
    hub.put(CLUSTER, cluster);
}

fn refused(hub: &Stub) -> usize {
    hub.with(|s| s.log.iter().filter(|(_, _, code)| *code == 403).count())
}

#[tokio::test(start_paused = true)]
async fn rights_that_are_on_their_way_are_waited_for() {
    let (hub, spoke, hubs) = one();
    accepted(&hub);
    let run = start(&spoke, &hubs, &[]);
    eventually("it has a certificate", 30, || hub_secret(&spoke).is_some()).await;
    tokio::time::sleep(SECOND * 5).await;
    hub.with(|s| s.unaccepting = false);
    accept(&hub);
    let told = Instant::now();
    eventually("available", 30, || is(&hub, types::CLUSTER_AVAILABLE, "True")).await;
    assert!(told.elapsed() < SECOND, "{:?}", told.elapsed());
    assert_eq!(refused(&hub), 0, "{:?}", hub.with(|s| s.log.clone()));
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn rights_that_do_not_come_are_not_waited_for_for_ever() {
    let (hub, spoke, hubs) = one();
    accepted(&hub);
    let run = start(&spoke, &hubs, &[]);
    eventually("it has a certificate", 30, || hub_secret(&spoke).is_some()).await;
    tokio::time::sleep(SECOND * 29).await;
    assert_eq!(refused(&hub), 0);
    eventually("it asks all the same", 5, || refused(&hub) > 0).await;
    hub.with(|s| s.unaccepting = false);
    accept(&hub);
    eventually("available", 60, || is(&hub, types::CLUSTER_AVAILABLE, "True")).await;
    run.end().await;
}
