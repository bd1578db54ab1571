//! The rows of DESIGN.md's budget on embedded servers: a standalone hub on disk, a managed cluster in memory and a
//! klusterlet, each a process of its own, seen through their APIs.
//!
//! `cargo bench -p muster-tests --bench fleet [-- work scale agents register]`. Sizes are set by environment: ROUNDS (50),
//! WORKS (300), MANY (5000) works of one object, OBJECTS (1000) of one work, AGENTS (1,100,1000), CLUSTERS (200,1000),
//! MUSTER_BENCH_PROGRAM (another build of the program), MUSTER_BENCH_DIR (where the hub's data go). With KUBEBUILDER_ASSETS,
//! `agents` and `register` have a hub on kube-apiserver and etcd instead, started from that folder; managed clusters stay
//! embedded.
#![allow(clippy::print_stdout)] // tables are what benches are for

mod agents;
#[path = "../common/mod.rs"]
mod common;
mod register;
mod scale;
mod work;

use anyhow::{Context as _, Result};
use common::client::{Lines, Target};
use common::process::{Memory, Server, computed, program};
use common::{Table, ms, wanted};
use muster_apiserver::kubeconfig::{Credentials, kubeconfig, write};
use muster_tests::Program;
use muster_tests::assets::{Assets, RealPlane};
use muster_tests::control_plane::ASSETS;
use muster_tests::objects::CLUSTERS;
use muster_tests::program::Process;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Id and secret of the token that clusters register with.
const TOKEN: (&str, &str) = ("muster", "0123456789abcdef");
/// Anything that takes longer is broken.
const LONG: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    muster_tests::control_plane::init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run())
}

async fn run() -> Result<()> {
    let base =
        std::env::var("MUSTER_BENCH_DIR").unwrap_or_else(|_| std::env::temp_dir().display().to_string());
    let dir = tempfile::TempDir::with_prefix_in("muster-bench-", base)?;
    let program = program()?;
    if wanted("work") {
        let table = Table::new("hub (on disk), managed cluster (in memory) and klusterlet, a process each");
        let hub = Hub::standalone(&program, &dir.path().join("hub")).await?;
        table.row("hub standalone, start to ready", &ms(hub.started_in), "");
        work::measure(&table, &program, &hub).await?;
    }
    if wanted("scale") {
        let table = Table::new("very many works and very large ones, and restarts over them");
        let mut hub = Hub::standalone(&program, &dir.path().join("scale")).await?;
        scale::measure(&table, &program, &mut hub).await?;
    }
    if wanted("agents") {
        let table = Table::new("agents of clusters that join: theirs and the hub's part together");
        let sizes = std::env::var("AGENTS").unwrap_or_else(|_| "1,100,1000".into());
        for (n, count) in sizes.split(',').enumerate() {
            let hub = Hub::start(&program, &dir.path().join(format!("agents{n}"))).await?;
            agents::measure(&table, &program, &hub, count.trim().parse()?).await?;
        }
    }
    if wanted("register") {
        let table = Table::new("clusters registering at once, the hub's part");
        let sizes = std::env::var("CLUSTERS").unwrap_or_else(|_| "200,1000".into());
        for (n, count) in sizes.split(',').enumerate() {
            let hub = Hub::start(&program, &dir.path().join(format!("hub{n}"))).await?;
            register::measure(&table, &hub, count.trim().parse()?).await?;
        }
    }
    Ok(())
}

/// A hub.
pub struct Hub {
    process: Process,
    /// The API server beside it, where it is not standalone.
    _plane: Option<RealPlane>,
    data: PathBuf,
    /// From its start until clusters may come.
    pub started_in: Duration,
    /// Its administrator.
    pub admin: Target,
    /// What clusters come with.
    pub bootstrap: PathBuf,
    /// Its CA, PEM.
    pub ca: Vec<u8>,
}

impl Hub {
    /// Standalone, or on the control plane that the environment names.
    async fn start(program: &Program, data: &Path) -> Result<Self> {
        match std::env::var_os(ASSETS) {
            Some(assets) => Self::on(program, data, Path::new(&assets)).await,
            None => Self::standalone(program, data).await,
        }
    }

    async fn standalone(program: &Program, data: &Path) -> Result<Self> {
        let (process, started_in) = Self::run(program, data, "127.0.0.1:0").await?;
        Self::of(process, started_in, None, data, &data.join("admin.kubeconfig")).await
    }

    async fn on(program: &Program, data: &Path, assets: &Path) -> Result<Self> {
        let plane = Assets::durable(assets).await?;
        std::fs::create_dir_all(data)?;
        let path = plane.kubeconfig();
        let start = Instant::now();
        let shown = format!("--kubeconfig={}", path.display());
        let [gates, user] = policy();
        let process = program.spawn(&["hub", &shown, "--disable-leader-election", &gates, &user])?;
        let hub = Self::of(process, Duration::ZERO, Some(plane), data, &path).await?;
        // Clusters may come once the API and the right to ask are there, and the hub knows what is there.
        let bootstrap = Target::from_kubeconfig(&hub.bootstrap)?;
        while let Err(error) = bootstrap.connect().await?.get(CLUSTERS).await {
            anyhow::ensure!(start.elapsed() < LONG, "the hub does not begin: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while !hub.process.stderr().contains("hub is ready") {
            anyhow::ensure!(start.elapsed() < LONG, "the hub does not become ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let started_in = start.elapsed();
        Ok(Self { started_in, ..hub })
    }

    async fn of(
        process: Process,
        started_in: Duration,
        plane: Option<RealPlane>,
        data: &Path,
        path: &Path,
    ) -> Result<Self> {
        let admin = Target::from_kubeconfig(path)?;
        let object = json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": format!("bootstrap-token-{}", TOKEN.0), "namespace": "kube-system"},
            "stringData": {"token-id": TOKEN.0, "token-secret": TOKEN.1, "usage-bootstrap-authentication": "true",
                "auth-extra-groups": "system:bootstrappers:managedcluster"}});
        let mut connection = admin.connect().await?;
        connection
            .post("/api/v1/namespaces/kube-system/secrets", object.to_string())
            .await?;
        let file: Value = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
        let ca = file["clusters"][0]["cluster"]["certificate-authority-data"].as_str();
        let ca = base64::Engine::decode(
            &base64::engine::general_purpose::STANDARD,
            ca.context("the kubeconfig has no CA")?,
        )?;
        let bootstrap = data.join("bootstrap.kubeconfig");
        let token = Credentials::Token(format!("{}.{}", TOKEN.0, TOKEN.1));
        let url = format!("https://{}", admin.address());
        let text = kubeconfig(&url, std::str::from_utf8(&ca)?, &token, "hub");
        write(&bootstrap, &text)?;
        Ok(Self {
            process,
            _plane: plane,
            data: data.to_owned(),
            started_in,
            admin,
            bootstrap,
            ca,
        })
    }

    /// Runs it on a data folder; from its start until clusters may come.
    async fn run(program: &Program, data: &Path, bind: &str) -> Result<(Process, Duration)> {
        let start = Instant::now();
        let (bind, shown) = (format!("--bind={bind}"), data.display().to_string());
        let [gates, user] = policy();
        let mut process =
            program.spawn(&["hub", "--standalone", &bind, "--data-dir", &shown, &gates, &user])?;
        process.until_file(&data.join("admin.kubeconfig")).await?;
        Ok((process, start.elapsed()))
    }

    /// Ends it in order and starts it again at the same address. When it started.
    pub async fn restart(&mut self, program: &Program) -> Result<Instant> {
        self.process.signal("TERM")?;
        self.process.until_ended(LONG).await?;
        std::fs::remove_file(self.data.join("admin.kubeconfig"))?;
        let start = Instant::now();
        let bind = self.admin.address().to_string();
        (self.process, self.started_in) = Self::run(program, &self.data, &bind).await?;
        self.admin = Target::from_kubeconfig(&self.data.join("admin.kubeconfig"))?;
        Ok(start)
    }

    /// Its memory.
    pub fn memory(&self) -> Result<Memory> {
        Memory::of(self.process.id())
    }

    /// How long it has computed.
    pub fn computed(&self) -> Result<Duration> {
        computed(self.process.id())
    }
}

/// Who comes is let in.
fn policy() -> [String; 2] {
    [
        "--feature-gates=ManagedClusterAutoApproval=true".to_owned(),
        format!("--auto-approved-csr-users=system:bootstrap:{}", TOKEN.0),
    ]
}

/// A managed cluster's API server and what runs its klusterlet.
pub struct Cluster {
    /// Its API server.
    pub server: Server,
    /// Its klusterlet.
    pub klusterlet: Process,
}

impl Cluster {
    /// Starts both. The klusterlet's start is the moment this gives.
    pub async fn start(program: &Program, hub: &Hub, name: &str) -> Result<(Self, Instant)> {
        let server = Server::start(program, None).await?;
        let start = Instant::now();
        let klusterlet = Self::klusterlet(program, hub, &server, name)?;
        Ok((Self { server, klusterlet }, start))
    }

    fn klusterlet(program: &Program, hub: &Hub, server: &Server, name: &str) -> Result<Process> {
        let dir = program.home().join(name).display().to_string();
        let (bootstrap, spoke) = (
            hub.bootstrap.display().to_string(),
            server.kubeconfig.display().to_string(),
        );
        program.spawn(&[
            "klusterlet",
            "--cluster-name",
            name,
            "--bootstrap-kubeconfig",
            &bootstrap,
            "--spoke-kubeconfig",
            &spoke,
            "--hub-kubeconfig-dir",
            &dir,
        ])
    }

    /// Starts the klusterlet again. When.
    pub fn restart(&mut self, program: &Program, hub: &Hub, name: &str) -> Result<Instant> {
        let start = Instant::now();
        self.klusterlet = Self::klusterlet(program, hub, &self.server, name)?;
        Ok(start)
    }

    /// Its klusterlet's memory.
    pub fn memory(&self) -> Result<Memory> {
        Memory::of(self.klusterlet.id())
    }
}

/// Events of a watch with the moments they came.
pub struct Events(mpsc::UnboundedReceiver<(Instant, String, Value)>);

impl Events {
    /// Of a collection, from its present state on.
    pub async fn of(target: &Target, path: &str) -> Result<Self> {
        let body = target
            .connect2()
            .await?
            .open(&format!("{path}?watch=1&resourceVersion=0"))
            .await?;
        let mut lines = Lines::new(body);
        let (tell, events) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((kind, object)) = lines.event().await {
                if tell.send((Instant::now(), kind, object)).is_err() {
                    break;
                }
            }
        });
        Ok(Self(events))
    }

    /// The moment of the first event from now on that passes.
    pub async fn until(&mut self, what: &str, mut pass: impl FnMut(&str, &Value) -> bool) -> Result<Instant> {
        let found = async {
            while let Some((at, kind, object)) = self.0.recv().await {
                if pass(&kind, &object) {
                    return Ok(at);
                }
            }
            anyhow::bail!("{what}: the watch ended")
        };
        tokio::time::timeout(LONG, found)
            .await
            .with_context(|| format!("{what}: not within {} s", LONG.as_secs()))?
    }
}

/// Whether an object has a condition that is true.
pub fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == condition && c["status"] == "True")
}
