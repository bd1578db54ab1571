//! Real control planes: one etcd, and a kube-apiserver (with its controller manager when it is there) for the hub, one
//! for a managed cluster and, where a test asks, others; shared by all tests of a process.
//!
//! Each program runs under a shell that ends it when its standard input closes: whatever way the test process ends, the
//! system closes the pipe, and nothing stays behind.

use crate::control_plane::{HIDDEN_NAME, Role};
use crate::kube::Kube;
use crate::wait::{SOON, eventually};
use anyhow::Context as _;
use muster_apiserver::kubeconfig::{self as files, Credentials};
use muster_apiserver::pki::{Ca, KeyPair, new_key, write_private};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Mutex;

/// Ends its program when its input ends. A kube-apiserver without its etcd would take a minute to end by itself, and what
/// it keeps is thrown away with it.
const KEEPER: &str = r#""$@" & child=$!; cat >/dev/null; kill -9 "$child""#;

/// A program that lives no longer than this value, nor than this process.
struct Kept(Child);

impl Kept {
    fn start(log: &Path, program: &Path, args: &[String]) -> anyhow::Result<Self> {
        let log = std::fs::File::create(log)?;
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "sh"]).arg(program).args(args);
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(
            command
                .spawn()
                .with_context(|| format!("starting {}", program.display()))?,
        ))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// One kube-apiserver with what belongs to it.
pub struct RealPlane {
    /// Ends after the API servers it serves.
    _processes: Vec<Kept>,
    _etcd: Arc<Etcd>,
    dir: TempDir,
    address: SocketAddr,
    ca: Ca,
}

struct Etcd {
    _process: Kept,
    url: String,
    _dir: TempDir,
}

/// What runs now; nothing, once no test holds it.
#[derive(Default)]
pub struct Assets {
    etcd: Weak<Etcd>,
    hub: Weak<RealPlane>,
    managed: Weak<RealPlane>,
    foreign: Weak<RealPlane>,
    bare: Weak<RealPlane>,
    /// Held for the whole process: starting takes seconds.
    kept: Vec<Arc<RealPlane>>,
}

static RUNNING: std::sync::LazyLock<Mutex<Assets>> = std::sync::LazyLock::new(Mutex::default);

impl Assets {
    /// The process's control plane for this role, started at its first use.
    pub async fn plane(assets: &Path, role: Role) -> anyhow::Result<Arc<RealPlane>> {
        let mut running = RUNNING.lock().await;
        let found = match role {
            Role::Hub => running.hub.upgrade(),
            Role::Managed => running.managed.upgrade(),
            Role::Foreign => running.foreign.upgrade(),
            Role::Bare => running.bare.upgrade(),
        };
        if let Some(plane) = found {
            return Ok(plane);
        }
        let etcd = match running.etcd.upgrade() {
            Some(etcd) => etcd,
            None => Arc::new(Etcd::start(assets, false).await?),
        };
        running.etcd = Arc::downgrade(&etcd);
        let plane = Arc::new(RealPlane::start(assets, role, etcd).await?);
        match role {
            Role::Hub => running.hub = Arc::downgrade(&plane),
            Role::Managed => running.managed = Arc::downgrade(&plane),
            Role::Foreign => running.foreign = Arc::downgrade(&plane),
            Role::Bare => running.bare = Arc::downgrade(&plane),
        }
        running.kept.push(plane.clone());
        Ok(plane)
    }

    /// One of the caller's own for a hub, that writes as durably as where people run it: for what is measured.
    pub async fn durable(assets: &Path) -> anyhow::Result<RealPlane> {
        let etcd = Arc::new(Etcd::start(assets, true).await?);
        RealPlane::start(assets, Role::Hub, etcd).await
    }
}

/// A port that is free now. Another program may take it before ours does; then starting fails with a clear error.
fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Etcd {
    async fn start(assets: &Path, durable: bool) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("muster-test-etcd-")?;
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let mut args = vec![
            format!("--data-dir={}", dir.path().join("data").display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls=http://127.0.0.1:{}", free_port()?),
            "--log-level=warn".into(),
        ];
        if !durable {
            args.push("--unsafe-no-fsync".into());
        }
        let process = Kept::start(&dir.path().join("log"), &assets.join("etcd"), &args)?;
        eventually(SOON, "etcd listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .map(drop)
                .map_err(|e| e.to_string())
        })
        .await?;
        Ok(Self {
            _process: process,
            url,
            _dir: dir,
        })
    }
}

impl RealPlane {
    async fn start(assets: &Path, role: Role, etcd: Arc<Etcd>) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("muster-test-plane-")?;
        let at = |name: &str| dir.path().join(name);
        let text = |name: &str| at(name).display().to_string();
        let now = jiff::Timestamp::now();
        let ca = Ca::load_or_create(Some(dir.path()), now)?;
        let server = ca.issue_server(&["127.0.0.1".into(), "localhost".into(), HIDDEN_NAME.into()], now)?;
        let admin = ca.issue_client("admin", &["system:masters"], Duration::from_secs(24 * 3600), now)?;
        let accounts: KeyPair = new_key()?;
        write_private(&at("server.crt"), server.cert_pem.as_bytes())?;
        write_private(&at("server.key"), server.key_pem.as_bytes())?;
        write_private(&at("accounts.key"), accounts.serialize_pem().as_bytes())?;
        write_private(&at("accounts.pub"), accounts.public_key_pem().as_bytes())?;
        let port = free_port()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let config = files::kubeconfig(
            &format!("https://{address}"),
            ca.pem(),
            &Credentials::Cert(admin),
            "muster-test",
        );
        files::write(&at("admin.kubeconfig"), &config)?;
        let prefix = match role {
            Role::Hub => "/hub",
            Role::Managed => "/managed",
            Role::Foreign => "/foreign",
            Role::Bare => "/registry",
        };
        let args = [
            format!("--etcd-servers={}", etcd.url),
            format!("--etcd-prefix={prefix}"),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", text("server.crt")),
            format!("--tls-private-key-file={}", text("server.key")),
            format!("--client-ca-file={}", text("ca.crt")),
            "--authorization-mode=RBAC".into(),
            "--enable-bootstrap-token-auth".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", text("accounts.pub")),
            format!("--service-account-signing-key-file={}", text("accounts.key")),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
            "--endpoint-reconciler-type=none".into(),
            "--disable-admission-plugins=ServiceAccount".into(),
        ];
        let mut processes = vec![Kept::start(
            &at("apiserver.log"),
            &assets.join("kube-apiserver"),
            &args,
        )?];
        let kube = Kube::from_file("kube-apiserver", &at("admin.kubeconfig")).await?;
        let ready = eventually(SOON, "kube-apiserver is ready", async || {
            kube.get("/api/v1/namespaces/kube-system")
                .await
                .map(drop)
                .map_err(|e| e.to_string())
        });
        ready.await.with_context(|| tail(&at("apiserver.log")))?;
        let manager = assets.join("kube-controller-manager");
        if manager.exists() {
            let config = text("admin.kubeconfig");
            let args = [
                format!("--kubeconfig={config}"),
                format!("--secure-port={}", free_port()?),
                "--bind-address=127.0.0.1".into(),
                format!("--authentication-kubeconfig={config}"),
                format!("--authorization-kubeconfig={config}"),
                format!("--cluster-signing-cert-file={}", text("ca.crt")),
                format!("--cluster-signing-key-file={}", text("ca.key")),
                format!("--root-ca-file={}", text("ca.crt")),
                format!("--service-account-private-key-file={}", text("accounts.key")),
                "--use-service-account-credentials=false".into(),
                "--leader-elect=false".into(),
                format!("--controllers={}", controllers(role)),
            ];
            processes.push(Kept::start(&at("controller-manager.log"), &manager, &args)?);
        }
        // The controller manager before its API server, that before etcd.
        processes.reverse();
        Ok(Self {
            _processes: processes,
            _etcd: etcd,
            dir,
            address,
            ca,
        })
    }

    /// Who signs its clients' certificates.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// Its administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Which controllers run beside a real API server.
fn controllers(role: Role) -> &'static str {
    match role {
        Role::Hub | Role::Managed | Role::Foreign => {
            "*,-nodeipam,-nodelifecycle,-cloud-node-lifecycle,-service-lb-controller"
        }
        Role::Bare => {
            "namespace-controller,garbage-collector-controller,certificatesigningrequest-signing-controller,\
             certificatesigningrequest-cleaner-controller,serviceaccount-controller,root-ca-certificate-publisher-controller,clusterrole-aggregation-controller,\
             ttl-after-finished-controller,token-cleaner-controller"
        }
    }
}

/// The end of a log, for an error.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
