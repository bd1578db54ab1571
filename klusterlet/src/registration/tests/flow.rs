//! Joining, staying joined, and everything that may go wrong in between.

use super::super::{driver, trouble};
use super::hubs::{Hubs, context, kubeconfig, one, options};
use super::stub::{Signing, Stub};
use crate::Error;
use jiff::SignedDuration;
use muster_crds::constants::{annotations, conditions as types};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(super) const CLUSTER: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters/c1";
pub(super) const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/c1/leases/managed-cluster-lease";
const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests/";
pub(super) const AGENT_NS: &str = "/api/v1/namespaces/open-cluster-management-agent/secrets";

pub(super) struct Run {
    spoke: Stub,
    stop: CancellationToken,
    pub(super) task: JoinHandle<Result<(), Error>>,
    pub(super) dir: tempfile::TempDir,
}

pub(super) fn start_in(dir: tempfile::TempDir, spoke: &Stub, hubs: &Hubs, args: &[&str]) -> Run {
    let place = dir.path().join("hub-kubeconfig");
    let place = place.to_str().unwrap().to_owned();
    let all = [&["--cluster-name=c1", "--hub-kubeconfig-dir", &place], args].concat();
    let stop = CancellationToken::new();
    let (context, stopped) = (context(spoke, hubs, options(&all)), stop.clone());
    let task = tokio::spawn(async move {
        let run = driver::run(context.clone(), stopped);
        Box::pin(trouble::told(&context, run)).await
    });
    Run {
        spoke: spoke.clone(),
        stop,
        task,
        dir,
    }
}

pub(super) fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

pub(super) fn start(spoke: &Stub, hubs: &Hubs, args: &[&str]) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = file(dir.path(), "bootstrap", &kubeconfig("https://hub", "t0ken"));
    start_in(
        dir,
        spoke,
        hubs,
        &[&["--bootstrap-kubeconfig", &bootstrap], args].concat(),
    )
}

impl Run {
    pub(super) async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        let deleted = self.spoke.with(|s| {
            s.log
                .iter()
                .filter(|l| l.0 == "DELETE")
                .cloned()
                .collect::<Vec<_>>()
        });
        assert!(
            deleted.is_empty(),
            "nothing on the cluster may be deleted: {deleted:?}"
        );
    }
}

pub(super) async fn eventually(what: &str, within: u64, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(within);
    while !holds() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not within {within} s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(50.max(within))).await;
    }
}

/// The Events beside the bootstrap Secret, by their reasons.
pub(super) fn events(spoke: &Stub) -> Vec<(String, Value)> {
    let of = |key: &str| key.contains("/namespaces/open-cluster-management-agent/events/");
    spoke.with(|s| {
        let all = s.objects.iter().filter(|(key, _)| of(key));
        all.map(|(_, o)| (o["reason"].as_str().unwrap().to_owned(), o.clone()))
            .collect()
    })
}

/// What a hub does on acceptance.
pub(super) fn accept(hub: &Stub) {
    hub.change(CLUSTER, |c| {
        c["spec"]["hubAcceptsClient"] = true.into();
        c["status"]["conditions"] = json!([{"type": types::HUB_ACCEPTED, "status": "True", "reason": "R", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    });
    hub.put(LEASE, json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"namespace": "c1"}, "spec": {}}));
}

fn condition(hub: &Stub, type_: &str) -> Option<Value> {
    let cluster = hub.get(CLUSTER)?;
    let list = cluster["status"]["conditions"].as_array()?.clone();
    list.into_iter().find(|c| c["type"] == type_)
}

pub(super) fn is(hub: &Stub, type_: &str, status: &str) -> bool {
    condition(hub, type_).is_some_and(|c| c["status"] == status)
}

pub(super) async fn joined(hub: &Stub) {
    eventually("the ManagedCluster is there", 30, || hub.get(CLUSTER).is_some()).await;
    accept(hub);
    eventually("available", 30, || is(hub, types::CLUSTER_AVAILABLE, "True")).await;
}

pub(super) fn csrs(hub: &Stub) -> usize {
    hub.with(|s| s.objects.keys().filter(|k| k.starts_with(CSRS)).count())
}

fn requests(hub: &Stub) -> usize {
    hub.with(|s| {
        s.log
            .iter()
            .filter(|l| l.0 == "POST" && CSRS.starts_with(&l.1) && l.2 == 201)
            .count()
    })
}

pub(super) fn hub_secret(spoke: &Stub) -> Option<Value> {
    // The names are there before.
    spoke
        .get(&format!("{AGENT_NS}/hub-kubeconfig-secret"))
        .filter(|secret| secret["data"]["tls.crt"].is_string())
}

#[tokio::test(start_paused = true)]
async fn a_cluster_joins_and_tells_of_itself() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &[]);
    joined(&hub).await;
    let cluster = hub.get(CLUSTER).unwrap();
    assert_eq!(
        cluster["metadata"]["annotations"][annotations::CLUSTER_UID],
        "uid-of-spoke"
    );
    assert!(is(&hub, types::JOINED, "True") && is(&hub, types::CERTIFICATE_ROTATED, "True"));
    eventually("the lease is renewed", 100, || {
        !hub.get(LEASE).unwrap()["spec"]["renewTime"].is_null()
    })
    .await;
    eventually("the event is there", 10, || {
        hub.with(|s| {
            s.objects
                .iter()
                .any(|(k, e)| k.starts_with("/apis/events.k8s.io") && e["reason"] == "Available")
        })
    })
    .await;
    assert_eq!((csrs(&hub), hub.with(|s| s.refused)), (1, 0));
    // A second look at the same changes nothing, once the works are saved, too.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let writes = |stub: &Stub| {
        stub.with(|s| {
            s.log
                .iter()
                .filter(|l| l.0 != "GET" && !l.1.contains("/leases/"))
                .count()
        })
    };
    let before = (writes(&hub), writes(&spoke));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!((writes(&hub), writes(&spoke)), before);
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_waits_for_acceptance_asks_seldom() {
    let (hub, spoke, hubs) = one();
    hub.with(|s| s.unaccepting = true);
    let run = start(&spoke, &hubs, &[]);
    eventually("it has a certificate", 30, || hub_secret(&spoke).is_some()).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let before = hub.with(|s| s.log.len());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let asked = hub.with(|s| s.log.len()) - before;
    assert!(asked < 3600 / 2, "{asked} requests in an hour");
    hub.with(|s| s.unaccepting = false);
    joined(&hub).await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_rotations_and_never_a_401() {
    let (hub, spoke, hubs) = one();
    hub.with(|s| s.lifetime = SignedDuration::from_secs(600));
    let run = start(&spoke, &hubs, &[]);
    joined(&hub).await;
    let mut status_lost = false;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(600 * 100);
    while requests(&hub) <= 100 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "only {} requests",
            requests(&hub)
        );
        tokio::time::sleep(Duration::from_secs(20)).await;
        // As a hub's garbage collector does.
        hub.with(|s| s.objects.retain(|k, _| !k.starts_with(CSRS)));
        status_lost |=
            !is(&hub, types::CLUSTER_AVAILABLE, "True") || !is(&hub, types::CERTIFICATE_ROTATED, "True");
        let renewed: jiff::Timestamp = hub.get(LEASE).unwrap()["spec"]["renewTime"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            hub.clock.here().duration_since(renewed).as_secs() < 100,
            "the lease is fresh"
        );
    }
    assert_eq!((hub.with(|s| s.refused), status_lost), (0, false));
    assert!(hub_secret(&spoke).is_some());
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_replaced_and_nothing_is_touched() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &[]);
    joined(&hub).await;
    let old = hub_secret(&spoke).unwrap()["data"]["tls.crt"].clone();
    tokio::time::sleep(Duration::from_secs(5)).await;
    hub.with(|s| s.revoked_before = Some(hub.clock.here()));
    eventually("it registered again", 300, || {
        hub_secret(&spoke).unwrap()["data"]["tls.crt"] != old
    })
    .await;
    let refused = hub.with(|s| s.refused);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(hub.with(|s| s.refused), refused, "the new credentials are used");
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_refuses_everybody_for_a_while_gets_its_agent_back() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &[]);
    joined(&hub).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    hub.with(|s| {
        s.revoked_before = Some(hub.clock.here());
        s.bootstrap_tokens.clear();
    });
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert!(hub.with(|s| s.refused) > 5 && csrs(&hub) == 1 && !run.task.is_finished());
    let tries = hub.with(|s| s.refused);
    assert!(
        tries < 900,
        "{tries} refusals are too many for a quarter of an hour"
    );
    // On the cluster it is told by one Event, which counts.
    let told = events(&spoke);
    assert_eq!(told.len(), 1, "{told:?}");
    let (reason, event) = &told[0];
    assert_eq!(
        (reason.as_str(), &event["type"]),
        ("HubConnectionDegraded", &json!("Warning"))
    );
    let message = event["message"].as_str().unwrap();
    assert!(
        message.contains("refuses the credential") && event["count"].as_i64() > Some(3),
        "{event}"
    );
    hub.with(|s| s.revoked_before = None);
    let before = hub.get(LEASE).unwrap()["spec"]["renewTime"].clone();
    eventually("the old credentials work again", 600, || {
        hub.get(LEASE).unwrap()["spec"]["renewTime"] != before
    })
    .await;
    assert_eq!(csrs(&hub), 1, "nothing was asked for anew");
    eventually("that all is well is told", 600, || {
        let reasons: Vec<String> = events(&spoke).into_iter().map(|(reason, _)| reason).collect();
        reasons == ["HubConnectionDegraded", "HubConnectionFunctional"]
    })
    .await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_denied_request_is_repeated_seldom() {
    let (hub, spoke, hubs) = one();
    hub.with(|s| s.signing = Signing::Deny);
    let run = start(&spoke, &hubs, &[]);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let made = requests(&hub);
    assert!((3..=7).contains(&made), "{made} requests in an hour");
    hub.with(|s| s.signing = Signing::Approve);
    eventually("it asks again", 2 * 3600, || hub_secret(&spoke).is_some()).await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_nobody_decides_is_waited_for() {
    let (hub, spoke, hubs) = one();
    hub.with(|s| s.signing = Signing::Ignore);
    let run = start(&spoke, &hubs, &[]);
    tokio::time::sleep(Duration::from_secs(36_000)).await;
    assert_eq!(requests(&hub), 1);
    // Somebody removes the cluster meanwhile: it is made again, as late as OCM's agent does.
    hub.delete(CLUSTER);
    eventually("the ManagedCluster is there again", 7300, || {
        hub.get(CLUSTER).is_some()
    })
    .await;
    assert_eq!(requests(&hub), 1);
    // Somebody removes the request: another is made.
    hub.with(|s| s.signing = Signing::Approve);
    let key = hub
        .with(|s| s.objects.keys().find(|k| k.starts_with(CSRS)).cloned())
        .unwrap();
    hub.delete(&key);
    eventually("it joined", 60, || hub_secret(&spoke).is_some()).await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_denied_renewal_is_told_and_ended_by_an_approval() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &[]);
    joined(&hub).await;
    hub.with(|s| s.signing = Signing::Deny);
    eventually("the condition tells", 24 * 3600, || {
        is(&hub, types::CERTIFICATE_ROTATED, "False")
    })
    .await;
    let told = condition(&hub, types::CERTIFICATE_ROTATED).unwrap();
    assert_eq!(told["reason"], "ClientCertificateUpdateFailed");
    assert!(
        told["message"].as_str().unwrap().contains("denied: so it is"),
        "{told}"
    );
    hub.with(|s| s.signing = Signing::Approve);
    eventually("the condition tells", 3600, || {
        is(&hub, types::CERTIFICATE_ROTATED, "True")
    })
    .await;
    assert_eq!(hub.with(|s| s.refused), 0);
    run.end().await;
}

fn ten_requests(hub: &Stub, by: &str) {
    for i in 0..10 {
        let labels = json!({"open-cluster-management.io/cluster-name": "c1"});
        hub.put(
            &format!("{CSRS}old-{i}"),
            json!({"metadata": {"labels": labels}, "spec": {"username": by}}),
        );
    }
}

/// Anybody who may ask for a certificate can put any cluster's label on a request.
#[tokio::test(start_paused = true)]
async fn no_number_of_others_requests_keeps_an_agent_from_renewing() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &[]);
    joined(&hub).await;
    ten_requests(&hub, "system:bootstrap:abcdef");
    let old = hub_secret(&spoke).unwrap()["data"]["tls.crt"].clone();
    eventually("it renews", 24 * 3600, || {
        hub_secret(&spoke).unwrap()["data"]["tls.crt"] != old
    })
    .await;
    assert!(is(&hub, types::CERTIFICATE_ROTATED, "True"));
    assert_eq!(hub.with(|s| s.refused), 0);
    run.end().await;
}

/// The hub gave the name to another agent of this very cluster, as after a Pod lost its files: its rights are that one's alone.
#[tokio::test(start_paused = true)]
async fn an_agent_whose_rights_are_another_agents_of_its_cluster_registers_anew() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &["--agent-id=a1"]);
    joined(&hub).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    hub.change(CLUSTER, |c| {
        c["metadata"]["annotations"][annotations::AGENT] = "a2".into();
        c["metadata"]["annotations"][annotations::CLUSTER_UID] = "uid-of-spoke".into();
    });
    hub.with(|s| s.unaccepting = true);
    hub.end_watches();
    eventually("it asks for another certificate", 600, || requests(&hub) == 2).await;
    hub.change(CLUSTER, |c| {
        c["metadata"]["annotations"][annotations::AGENT] = "a1".into();
    });
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(requests(&hub), 2, "it waits for its rights");
    hub.with(|s| s.unaccepting = false);
    let before = hub.get(LEASE).unwrap()["spec"]["renewTime"].clone();
    eventually("it works again", 120, || {
        hub.get(LEASE).unwrap()["spec"]["renewTime"] != before
    })
    .await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_lost_its_files_before_it_joined_keeps_its_name() {
    let (hub, spoke, hubs) = one();
    hub.with(|s| s.signing = Signing::Ignore);
    let run = start(&spoke, &hubs, &[]);
    eventually("it asks", 60, || requests(&hub) == 1).await;
    run.end().await;
    // Another folder, as in another Pod.
    let again = start(&spoke, &hubs, &[]);
    eventually("it asks again", 60, || requests(&hub) == 2).await;
    let users: std::collections::BTreeSet<String> = hub.with(|s| {
        let all = s.objects.iter().filter(|(key, _)| key.starts_with(CSRS));
        all.map(|(_, csr)| Stub::asked_for(csr)).collect()
    });
    assert_eq!(users.len(), 1, "{users:?}");
    again.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_hub_does_not_take_at_first_is_said_later() {
    let (hub, spoke, hubs) = one();
    let put = format!("PUT {CLUSTER}");
    hub.with(|s| s.closed.push(put));
    let run = start(&spoke, &hubs, &["--spoke-external-server-urls=https://a"]);
    eventually("the ManagedCluster is there", 30, || hub.get(CLUSTER).is_some()).await;
    // Made by an administrator, who knows nothing of it.
    hub.change(CLUSTER, |c| c["spec"]["managedClusterClientConfigs"] = json!([]));
    accept(&hub);
    tokio::time::sleep(Duration::from_secs(300)).await;
    let said = || hub.get(CLUSTER).unwrap()["spec"]["managedClusterClientConfigs"][0]["url"] == "https://a";
    assert!(!said());
    let tries = hub.with(|s| s.log.iter().filter(|l| l.0 == "PUT" && l.1 == CLUSTER).count());
    assert!((2..100).contains(&tries), "{tries} tries in five minutes");
    hub.with(|s| s.closed.clear());
    eventually("it is said", 60, said).await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_without_livez_is_asked_for_healthz() {
    for (missing, available) in [(vec!["/livez"], "True"), (vec!["/livez", "/healthz"], "False")] {
        let (hub, spoke, hubs) = one();
        spoke.with(|s| s.missing = missing.iter().map(ToString::to_string).collect());
        let run = start(&spoke, &hubs, &[]);
        eventually("the ManagedCluster is there", 30, || hub.get(CLUSTER).is_some()).await;
        accept(&hub);
        eventually("it says so", 120, || {
            is(&hub, types::CLUSTER_AVAILABLE, available)
        })
        .await;
        run.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn ten_requests_are_enough() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &["--agent-id=a1"]);
    joined(&hub).await;
    ten_requests(&hub, "system:open-cluster-management:c1:a1");
    let before = csrs(&hub);
    eventually("the condition tells", 24 * 3600, || {
        is(&hub, types::CERTIFICATE_ROTATED, "False")
    })
    .await;
    let told = condition(&hub, types::CERTIFICATE_ROTATED).unwrap();
    assert_eq!(
        told["message"],
        "Stop creating csr since there are too many csr created already on hub"
    );
    assert_eq!(csrs(&hub), before);
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_taken_name_is_refused_and_its_owner_unharmed() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &[]);
    joined(&hub).await;
    let other = Stub::new("other", &spoke.clock);
    let cluster = hub.get(CLUSTER).unwrap();
    let second = start(&other, &hubs, &["--agent-id=a2"]);
    let error = second.task.await.unwrap().unwrap_err();
    assert!(
        matches!(&error, Error::NameTaken { cluster, .. } if cluster == "c1"),
        "{error}"
    );
    assert!(
        error.to_string().contains("uid-of-spoke") && error.to_string().contains("uid-of-other"),
        "{error}"
    );
    assert_eq!((csrs(&hub), hub.get(CLUSTER).unwrap()), (1, cluster));
    // Once the owner is gone for good, the name is free.
    run.end().await;
    hub.change(CLUSTER, |c| {
        let list = c["status"]["conditions"].as_array_mut().unwrap();
        list.iter_mut()
            .find(|c| c["type"] == types::CLUSTER_AVAILABLE)
            .unwrap()["status"] = "Unknown".into();
    });
    let heir = start(&other, &hubs, &["--agent-id=a2"]);
    let uid =
        |hub: &Stub| hub.get(CLUSTER).unwrap()["metadata"]["annotations"][annotations::CLUSTER_UID].clone();
    eventually("the name is the other's", 60, || uid(&hub) == "uid-of-other").await;
    heir.end().await;
}

#[tokio::test(start_paused = true)]
async fn clocks_that_differ_neither_silence_nor_lose_a_cluster() {
    for hours in [2, -2, 48] {
        let (hub, spoke, hubs) = one();
        hub.with(|s| s.ahead = SignedDuration::from_hours(hours));
        let run = start(&spoke, &hubs, &[]);
        joined(&hub).await;
        hub.change(CLUSTER, |c| {
            c["status"]["conditions"].as_array_mut().unwrap().push(json!({"type": types::CLOCK_SYNCED, "status": "False",
                "reason": "ManagedClusterClockOutOfSync", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}));
            c["spec"]["leaseDurationSeconds"] = 10.into();
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        let lease = hub.get(LEASE).unwrap();
        let renewed: jiff::Timestamp = lease["spec"]["renewTime"].as_str().unwrap().parse().unwrap();
        let there = hub.clock.here() + SignedDuration::from_hours(hours);
        assert!(
            there.duration_since(renewed).abs().as_secs() < 15,
            "{renewed} {there}"
        );
        let told = &lease["metadata"]["annotations"][annotations::CLOCK_OFFSET];
        let told: i64 = told.as_str().unwrap().parse().unwrap();
        assert!((told - hours * 3600).abs() <= 1, "{told}");
        // It still reports.
        hub.change(CLUSTER, |c| {
            let list = c["status"]["conditions"].as_array_mut().unwrap();
            list.iter_mut()
                .find(|c| c["type"] == types::CLUSTER_AVAILABLE)
                .unwrap()["status"] = "Unknown".into();
        });
        eventually("it says that it is available", 10, || {
            is(&hub, types::CLUSTER_AVAILABLE, "True")
        })
        .await;
        assert_eq!((csrs(&hub), hub.with(|s| s.refused)), (1, 0), "{hours}");
        run.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn managed_namespaces_are_made_and_left() {
    let (hub, spoke, hubs) = one();
    let run = start(&spoke, &hubs, &[]);
    joined(&hub).await;
    let label = super::super::namespaces::label("https://hub");
    let value = |name: &str| {
        spoke
            .get(&format!("/api/v1/namespaces/{name}"))
            .map(|n| n["metadata"]["labels"][&label].clone())
    };
    hub.change(CLUSTER, |c| {
        c["status"]["managedNamespaces"] = json!([{"name": "team", "clusterSet": "s"}]);
    });
    eventually("it is there", 10, || value("team") == Some("true".into())).await;
    let told =
        |hub: &Stub| hub.get(CLUSTER).unwrap()["status"]["managedNamespaces"][0]["conditions"][0].clone();
    eventually("and told", 10, || {
        told(&hub)["type"] == "NamespaceAvailable" && told(&hub)["status"] == "True"
    })
    .await;
    spoke.change("/api/v1/namespaces/team", |n| n["metadata"]["labels"] = json!({}));
    eventually("it is labelled again", 10, || {
        value("team") == Some("true".into())
    })
    .await;
    hub.change(CLUSTER, |c| c["status"]["managedNamespaces"] = json!([]));
    eventually("it is released", 10, || value("team") == Some("false".into())).await;
    run.end().await;
}
