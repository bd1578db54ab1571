//! A managed cluster, and the agents of either maker on it, as processes.

use super::{Hub, Ocm};
use crate::{MUSTER, Result};
use muster_apiserver::server::ServerOptions;
use muster_crds::constants::names;
use muster_tests::control_plane::{Role, is_embedded};
use muster_tests::objects::namespace;
use muster_tests::program::Process;
use muster_tests::wait::SOON;
use muster_tests::{ControlPlane, Kube, Program, eventually};
use std::path::PathBuf;

/// Where the cluster's API is reached from outside, as its agent tells.
pub const URL: &str = "https://cluster.example:6443";
/// The Secret with the hub's credentials on the cluster.
pub const CREDENTIALS: &str =
    "/api/v1/namespaces/open-cluster-management-agent/secrets/hub-kubeconfig-secret";
/// An annotation that its agent brings.
pub const ANNOTATION: (&str, &str) = ("agent.open-cluster-management.io/purpose", "interop");

/// Whose agents they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// Open Cluster Management.
    Ocm,
    /// Muster.
    Muster,
}

/// A managed cluster.
pub struct Cluster {
    pub name: String,
    /// ID of its agents.
    pub agent: String,
    pub plane: ControlPlane,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// One with the definitions that OCM's operator installs.
    pub async fn start(ocm: &Ocm) -> anyhow::Result<Self> {
        // On shared control planes a name must be nobody else's.
        let name = format!("interop-{:08x}", rand::random::<u32>());
        let plane = if is_embedded() {
            let options = ServerOptions {
                simulate_nodes: 1,
                ..ServerOptions::default()
            };
            ControlPlane::embedded(&name, options).await?
        } else {
            ControlPlane::start(&name, Role::Managed).await?
        };
        let cluster = Self {
            agent: format!("agent-{name}"),
            name,
            plane,
            dir: tempfile::TempDir::with_prefix("muster-test-interop-")?,
        };
        // Outside of a Pod, OCM's agents are always in this namespace.
        for name in [names::AGENT_NAMESPACE, &cluster.namespace()] {
            let object = namespace(name);
            cluster.kube().ensure("/api/v1/namespaces", &object).await?;
        }
        // On a shared control plane a cluster before this one had its credentials there.
        match cluster.kube().delete(CREDENTIALS).await {
            Err(refused) if refused.code != 404 => return Err(refused.into()),
            _ => {}
        }
        let mut crds = muster_crds::crds::spoke();
        crds.push(muster_crds::crds::cluster_property());
        ocm.install(&cluster.plane, crds).await?;
        Ok(cluster)
    }

    /// An administrator's client.
    pub fn kube(&self) -> Kube {
        self.plane.kube()
    }

    /// Namespace for what works apply.
    pub fn namespace(&self) -> String {
        format!("app-{}", self.name)
    }

    /// Folder with the hub's credentials.
    pub fn credentials(&self) -> PathBuf {
        self.dir.path().join("hub-kubeconfig")
    }

    /// A client of the hub with the agents' credentials.
    pub async fn at_hub(&self) -> anyhow::Result<Kube> {
        let label = format!("the hub as {}'s agent", self.name);
        Kube::from_file(&label, &self.credentials().join("kubeconfig")).await
    }
}

/// The agents of a cluster.
pub struct Agents {
    maker: Maker,
    processes: Vec<Process>,
    /// How much each had logged when it was told to be quiet from then on.
    marks: Vec<usize>,
}

impl Agents {
    /// What registers; OCM's work agent starts when there are credentials.
    pub fn start(ocm: &Ocm, cluster: &Cluster, hub: &Hub, maker: Maker) -> anyhow::Result<Self> {
        std::fs::create_dir_all(cluster.credentials())?;
        let mut args: Vec<String> = [
            format!("--spoke-cluster-name={}", cluster.name),
            format!("--agent-id={}", cluster.agent),
            format!("--namespace={}", names::AGENT_NAMESPACE),
            format!("--bootstrap-kubeconfig={}", hub.bootstrap.display()),
            format!("--hub-kubeconfig-dir={}", cluster.credentials().display()),
            format!("--spoke-external-server-urls={URL}"),
            format!("--cluster-annotations={}={}", ANNOTATION.0, ANNOTATION.1),
        ]
        .into();
        let spoke = cluster.plane.kubeconfig().display();
        let process = match maker {
            Maker::Muster => {
                args.splice(
                    0..0,
                    ["klusterlet".to_owned(), format!("--spoke-kubeconfig={spoke}")],
                );
                Program::new(MUSTER)?.spawn(&borrowed(&args))?
            }
            Maker::Ocm => {
                args.splice(0..0, ["agent".to_owned(), format!("--kubeconfig={spoke}")]);
                args.extend(alone()?);
                ocm.registration.spawn(&borrowed(&args))?
            }
        };
        Ok(Self {
            maker,
            processes: vec![process],
            marks: Vec::new(),
        })
    }

    /// What works, once the cluster has its credentials.
    pub async fn complete(&mut self, ocm: &Ocm, cluster: &Cluster) -> Result {
        let dir = cluster.credentials();
        eventually(SOON, "the hub's credentials are there", async || {
            for file in ["kubeconfig", "tls.key", "tls.crt"] {
                let there = std::fs::metadata(dir.join(file)).map(|file| file.len());
                if there.unwrap_or_default() == 0 {
                    return Err(format!("no {file}"));
                }
            }
            Ok(())
        })
        .await?;
        if self.maker == Maker::Muster {
            return Ok(());
        }
        let config = dir.join("kubeconfig");
        let mut args = vec![
            "agent".to_owned(),
            format!("--kubeconfig={}", cluster.plane.kubeconfig().display()),
            format!("--namespace={}", names::AGENT_NAMESPACE),
            format!("--spoke-cluster-name={}", cluster.name),
            format!("--agent-id={}", cluster.agent),
            format!("--hub-kubeconfig={}", config.display()),
            format!("--workload-source-config={}", config.display()),
            "--status-sync-interval=1s".to_owned(),
        ];
        args.extend(alone()?);
        self.processes.push(ocm.work.spawn(&borrowed(&args))?);
        Ok(())
    }

    /// From here on they are refused nothing.
    pub fn mark(&mut self) {
        self.marks = self.processes.iter().map(|p| p.stderr().len()).collect();
    }

    /// That none was refused anything since [`Self::mark`].
    pub fn were_refused_nothing(&self) -> Result {
        for (process, mark) in self.processes.iter().zip(&self.marks) {
            let log = process.stderr();
            let refused: Vec<&str> = log[*mark..]
                .lines()
                .filter(|line| line.to_lowercase().contains("forbidden"))
                .collect();
            anyhow::ensure!(refused.is_empty(), "refused: {refused:#?}");
        }
        Ok(())
    }

    /// Ends them as a node that fails does.
    pub fn kill(&mut self) -> Result {
        for mut process in self.processes.drain(..) {
            process.kill()?;
        }
        Ok(())
    }

    /// Adds to an error what they said last.
    pub fn explain(&self, result: Result) -> Result {
        explain(&self.processes, result)
    }
}

/// Adds to an error what processes said last.
pub fn explain(processes: &[Process], result: Result) -> Result {
    result.map_err(|error| {
        processes.iter().rev().fold(error, |error, process| {
            let log = process.stderr();
            // What it does every second without end.
            let lines: Vec<&str> = log.lines().filter(|l| !l.contains("requestheader")).collect();
            let last = lines[lines.len().saturating_sub(15)..].join("\n");
            error.context(format!("process {} said:\n{last}", process.id()))
        })
    })
}

/// Flags of a program of OCM's that is alone, and serves its metrics where nobody else does.
pub fn alone() -> anyhow::Result<[String; 3]> {
    Ok([
        "--disable-leader-election".to_owned(),
        format!("--listen=127.0.0.1:{}", free_port()?),
        "-v=2".to_owned(),
    ])
}

/// A port that is free now.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Arguments as a program takes them.
pub fn borrowed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}
