//! kubectl, where it is installed, against `muster apiserver` with simulated nodes.

mod access;
mod objects;
mod workloads;

use crate::MUSTER;
use muster_tests::Program;
use muster_tests::program::{Process, Run};
use std::path::PathBuf;

/// The kubectl of `PATH`. Without it these tests have nothing to try, and say so.
pub fn found() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("kubectl"))
        .find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no kubectl in PATH");
    }
    found
}

/// An API server of its own, and kubectl as its administrator.
struct Kubectl {
    path: PathBuf,
    program: Program,
    _server: Process,
}

impl Kubectl {
    /// `None`, with a message, where there is no kubectl.
    async fn start() -> anyhow::Result<Option<Self>> {
        let Some(path) = found() else { return Ok(None) };
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
        server.until_file(&program.home().join("admin")).await?;
        Ok(Some(Self {
            path,
            program,
            _server: server,
        }))
    }

    /// Writes a file, and gives its path.
    fn file(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.program.home().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    async fn run(&self, args: &[&str]) -> anyhow::Result<Run> {
        let admin = self.program.home().join("admin").display().to_string();
        let cache = self.program.home().join("cache").display().to_string();
        Program::other(
            &self.path,
            &[&["--kubeconfig", &admin, "--cache-dir", &cache], args].concat(),
        )
        .await
    }

    /// What a command prints; it must work.
    async fn ok(&self, args: &[&str]) -> anyhow::Result<String> {
        let run = self.run(args).await?;
        anyhow::ensure!(run.code == 0, "kubectl {args:?}: {run:?}");
        Ok(run.stdout)
    }

    /// Runs commands that must work and print something. `("create configmap c", "created")`; arguments have no spaces.
    async fn all(&self, commands: &[(&str, &str)]) -> anyhow::Result<()> {
        for (command, prints) in commands {
            let args: Vec<&str> = command.split(' ').collect();
            let shown = self.ok(&args).await?;
            anyhow::ensure!(
                shown.contains(prints),
                "kubectl {command}: no {prints:?} in: {shown}"
            );
        }
        Ok(())
    }

    /// Runs a command that must fail and say why.
    async fn refused(&self, args: &[&str], says: &str) -> anyhow::Result<()> {
        let run = self.run(args).await?;
        anyhow::ensure!(
            run.code != 0 && run.stderr.contains(says),
            "kubectl {args:?}: no {says:?} in: {run:?}"
        );
        Ok(())
    }
}

const APP: &str = r#"{"apiVersion": "apps/v1", "kind": "Deployment",
  "metadata": {"name": "web", "labels": {"app": "web"}},
  "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
    "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}}"#;
