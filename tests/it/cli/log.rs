//! What the programs write to their log.

use crate::{MUSTER, Result};
use anyhow::Context as _;
use muster_tests::wait::{SOON, eventually};
use muster_tests::{Kube, Program};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn one_line_at_debug_tells_of_a_request_that_changes_something() -> Result {
    let program = Program::new(MUSTER)?;
    let line = [
        "apiserver",
        "--in-memory",
        "--bind",
        "127.0.0.1:0",
        "--write-kubeconfig",
        "admin",
    ];
    let log = [("RUST_LOG", "muster_apiserver=debug")];
    let mut server = program.spawn_in(&line, &log)?;
    let file = program.home().join("admin");
    server.until_file(&file).await?;
    let kube = Kube::from_file("the server", &file).await?;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "hidden"}});
    kube.create(maps, &map).await?;
    kube.get(&format!("{maps}/m")).await?;
    let twice = kube.create(maps, &map).await;
    anyhow::ensure!(twice.is_err_and(|refused| refused.code == 409), "made twice");
    let lines = || -> Vec<String> {
        let log = server.stderr();
        let of_maps = log.lines().filter(|line| line.contains("configmaps"));
        of_maps.map(str::to_owned).collect()
    };
    eventually(SOON, "both are logged", async || {
        let seen = lines();
        let last = seen.iter().any(|line| line.contains("409"));
        last.then_some(()).ok_or_else(|| format!("{seen:?}"))
    })
    .await?;
    let seen: Vec<String> = lines()
        .into_iter()
        .filter(|line| line.contains("/default/"))
        .collect();
    assert_eq!(seen.len(), 2, "{seen:?}");
    let first = seen.first().context("there is one")?;
    for part in ["DEBUG", "create", maps, "201", "user", "took"] {
        assert!(first.contains(part), "{part}: {first}");
    }
    assert!(!server.stderr().contains("hidden"));
    Ok(())
}
