//! Several hubs: one that denies the cluster or falls silent is left for the next, and come back to.

use super::flow::{CLUSTER, LEASE, csrs, eventually, file, joined, start_in};
use super::hubs::{Hubs, kubeconfig, two};
use super::stub::Stub;
use std::path::Path;
use std::time::Duration;

/// Two hubs, a cluster, and the files of the bootstrap data for each.
fn two_files(dir: &Path) -> (Stub, Stub, Stub, Hubs, String) {
    let (one, two, spoke, hubs) = two();
    let files =
        [("b1", "https://hub"), ("b2", "https://hub2")].map(|(n, u)| file(dir, n, &kubeconfig(u, "t0ken")));
    (one, two, spoke, hubs, files.join(","))
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_denied_goes_to_the_next_hub_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, spoke, hubs, files) = two_files(dir.path());
    let run = start_in(
        dir,
        &spoke,
        &hubs,
        &[
            "--feature-gates=MultipleHubs=true",
            "--bootstrap-kubeconfigs",
            &files,
        ],
    );
    joined(&one).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(two.get(CLUSTER).is_none(), "the first good one is kept");
    one.change(CLUSTER, |c| c["spec"]["hubAcceptsClient"] = false.into());
    eventually("the second hub knows it", 60, || two.get(CLUSTER).is_some()).await;
    joined(&two).await;
    one.change(CLUSTER, |c| c["spec"]["hubAcceptsClient"] = true.into());
    let lease = one.get(LEASE).unwrap()["spec"]["renewTime"].clone();
    two.with(|s| s.down = true);
    eventually("back at the first", 900, || {
        one.get(LEASE).unwrap()["spec"]["renewTime"] != lease
    })
    .await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_is_silent_is_left_after_the_timeout_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, spoke, hubs, files) = two_files(dir.path());
    let args = [
        "--feature-gates=MultipleHubs=true",
        "--hub-connection-timeout-seconds=200",
        "--bootstrap-kubeconfigs",
        &files,
    ];
    let run = start_in(dir, &spoke, &hubs, &args);
    joined(&one).await;
    one.with(|s| s.down = true);
    tokio::time::sleep(Duration::from_secs(110)).await;
    assert!(two.get(CLUSTER).is_none());
    eventually("the second hub knows it", 150, || two.get(CLUSTER).is_some()).await;
    joined(&two).await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_shorter_than_the_lease_loses_no_hub() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, spoke, hubs, files) = two_files(dir.path());
    let args = [
        "--feature-gates=MultipleHubs=true",
        "--hub-connection-timeout-seconds=20",
        "--bootstrap-kubeconfigs",
        &files,
    ];
    let run = start_in(dir, &spoke, &hubs, &args);
    joined(&one).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let asked = two.with(|s| s.log.len());
    // Six questions of access and one for the cluster, at the start.
    assert_eq!((asked, csrs(&one)), (7, 1));
    run.end().await;
}
