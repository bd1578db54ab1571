//! kubectl, where it is installed, against the embedded API server.

use crate::{MUSTER, Result};
use muster_tests::program::Run;
use muster_tests::{Program, objects};
use std::path::{Path, PathBuf};

/// The system's kubectl. Without it these tests have nothing to try, and say so.
pub fn found() -> Option<PathBuf> {
    let path = Path::new("/usr/bin/kubectl");
    if path.exists() {
        return Some(path.to_owned());
    }
    eprintln!("skipped: there is no {}", path.display());
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_gets_and_deletes() -> Result {
    let Some(kubectl) = found() else { return Ok(()) };
    let program = Program::new(MUSTER)?;
    let mut server = program.spawn(&[
        "apiserver",
        "--in-memory",
        "--bind",
        "127.0.0.1:0",
        "--simulate-nodes",
        "2",
        "--write-kubeconfig",
        "admin",
    ])?;
    let admin = program.home().join("admin");
    server.until_file(&admin).await?;
    let admin = admin.display().to_string();
    let cache = program.home().join("cache").display().to_string();
    let run = async |args: &[&str]| -> anyhow::Result<Run> {
        Program::other(
            &kubectl,
            &[&["--kubeconfig", &admin, "--cache-dir", &cache], args].concat(),
        )
        .await
    };
    let ok = async |args: &[&str]| -> anyhow::Result<String> {
        let run = run(args).await?;
        anyhow::ensure!(run.code == 0, "kubectl {args:?}: {run:?}");
        Ok(run.stdout)
    };
    assert_eq!(ok(&["get", "nodes"]).await?.matches(" Ready ").count(), 2);
    let file = program.home().join("app.yaml");
    let manifest = |replicas| objects::deployment("default", "web", replicas).to_string();
    let app = file.display().to_string();
    std::fs::write(&file, manifest(2))?;
    assert!(
        ok(&["apply", "-f", &app])
            .await?
            .contains("deployment.apps/web created")
    );
    assert!(ok(&["apply", "-f", &app]).await?.contains("unchanged"));
    ok(&["rollout", "status", "deployment/web", "--timeout=60s"]).await?;
    assert_eq!(
        ok(&["get", "pods", "-l", "app=web"])
            .await?
            .matches("Running")
            .count(),
        2
    );
    std::fs::write(&file, manifest(3))?;
    assert!(ok(&["apply", "-f", &app]).await?.contains("configured"));
    assert!(
        ok(&["apply", "--server-side", "--force-conflicts", "-f", &app])
            .await?
            .contains("serverside-applied")
    );
    assert_eq!(
        ok(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"]).await?,
        "3"
    );
    ok(&["scale", "deployment", "web", "--replicas=1"]).await?;
    ok(&["label", "deployment", "web", "stage=test"]).await?;
    ok(&["patch", "deployment", "web", "-p", r#"{"spec":{"paused":true}}"#]).await?;
    let shown = ok(&["get", "deployment", "web", "-o", "yaml"]).await?;
    assert!(
        shown.contains("stage: test") && shown.contains("paused: true"),
        "{shown}"
    );
    assert!(
        ok(&["describe", "deployment", "web"])
            .await?
            .contains("Replicas:")
    );
    assert!(
        ok(&["explain", "deployment.spec.replicas"])
            .await?
            .contains("replicas")
    );
    assert_eq!(ok(&["auth", "can-i", "delete", "nodes"]).await?.trim(), "yes");
    ok(&["create", "configmap", "settings", "--from-literal=a=b"]).await?;
    ok(&["delete", "-f", &app]).await?;
    let gone = run(&["get", "deployment", "web"]).await?;
    assert!(gone.code == 1 && gone.stderr.contains("NotFound"), "{gone:?}");
    Ok(())
}
