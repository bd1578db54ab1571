//! A control plane to test on, in one of three forms; which one, the environment decides.

use crate::assets::{Assets, RealPlane};
use crate::kube::Kube;
use crate::objects;
use crate::wait::SOON;
use anyhow::Context as _;
use base64::Engine as _;
use muster_apiserver::kubeconfig as files;
use muster_apiserver::server::{Server, ServerOptions};
use muster_crds::constants::names;
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// Folder with etcd and kube-apiserver (and kube-controller-manager), as envtest has it.
pub const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// Kubeconfig of a cluster that is there already.
pub const EXTERNAL: &str = "MUSTER_TEST_KUBECONFIG";

/// A name in every control plane's certificate that no resolver knows: a server of that name is reached through a proxy.
pub const HIDDEN_NAME: &str = "hub.muster.invalid";

/// Id of the bootstrap token the kit makes; the user behind it is [`BOOTSTRAP_USER`].
const TOKEN: (&str, &str) = ("muster", "0123456789abcdef");
/// Who comes with the kit's bootstrap kubeconfig.
pub const BOOTSTRAP_USER: &str = "system:bootstrap:muster";

/// Which control plane of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The hub's.
    Hub,
    /// A managed cluster's.
    Managed,
    /// That of a hub that is not Muster's.
    Foreign,
    /// One where only those controllers run that the embedded server has too.
    Bare,
}

/// One crypto provider for the process, and logs where `RUST_LOG` asks for them. Tests do it by using the kit.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only when one is installed already.
        drop(rustls::crypto::ring::default_provider().install_default());
        if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_default_env() {
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(std::io::stderr)
                .init();
        }
    });
}

/// Whether control planes are this process's own embedded servers.
pub fn is_embedded() -> bool {
    std::env::var_os(EXTERNAL).is_none() && std::env::var_os(ASSETS).is_none()
}

// There are a handful of them in a test: their size does not matter.
#[allow(clippy::large_enum_variant)]
enum Form {
    Embedded {
        options: ServerOptions,
        server: Mutex<Option<Server>>,
    },
    /// Its processes end when nobody holds it.
    Assets {
        plane: Arc<RealPlane>,
    },
    External,
}

/// A control plane. The embedded one is this value's own and ends with it; the others are shared.
pub struct ControlPlane {
    label: String,
    form: Form,
    dir: TempDir,
    kubeconfig: PathBuf,
    address: SocketAddr,
    kube: Kube,
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPlane")
            .field("label", &self.label)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// A control plane of the form that the environment asks for. The embedded one is in memory.
    pub async fn start(label: &str, role: Role) -> anyhow::Result<Self> {
        if let Some(path) = std::env::var_os(EXTERNAL) {
            return Self::external(label, Path::new(&path)).await;
        }
        if let Some(assets) = std::env::var_os(ASSETS) {
            return Self::real(label, role, Path::new(&assets)).await;
        }
        Self::embedded(label, ServerOptions::default()).await
    }

    /// An embedded control plane with options of its own; where `data_dir` is set, it can be stopped and started again.
    pub async fn embedded(label: &str, options: ServerOptions) -> anyhow::Result<Self> {
        init();
        let options = ServerOptions {
            // Tests delete many namespaces, and wait for each to go.
            namespace_delay: Duration::ZERO,
            ..options
        };
        let dir = TempDir::with_prefix("muster-test-")?;
        let server = Server::start(options.clone())
            .await
            .with_context(|| format!("starting {label}"))?;
        let kubeconfig = dir.path().join("admin.kubeconfig");
        files::write(&kubeconfig, &server.admin_kubeconfig()?)?;
        let address = server.address();
        let kube = Kube::from_file(label, &kubeconfig).await?;
        let options = ServerOptions {
            bind: address,
            ..options
        };
        let form = Form::Embedded {
            options,
            server: Mutex::new(Some(server)),
        };
        Ok(Self {
            label: label.to_owned(),
            form,
            dir,
            kubeconfig,
            address,
            kube,
        })
    }

    async fn real(label: &str, role: Role, assets: &Path) -> anyhow::Result<Self> {
        init();
        let plane = Assets::plane(assets, role).await?;
        let dir = TempDir::with_prefix("muster-test-")?;
        let kubeconfig = plane.kubeconfig();
        let kube = Kube::from_file(label, &kubeconfig).await?;
        let address = plane.address();
        Ok(Self {
            label: label.to_owned(),
            form: Form::Assets { plane },
            dir,
            kubeconfig,
            address,
            kube,
        })
    }

    async fn external(label: &str, path: &Path) -> anyhow::Result<Self> {
        init();
        let dir = TempDir::with_prefix("muster-test-")?;
        let config = kube::config::Kubeconfig::read_from(path)?;
        let config =
            kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await?;
        let host = config
            .cluster_url
            .host()
            .context("the kubeconfig's server has a host")?
            .to_owned();
        let port = config.cluster_url.port_u16().unwrap_or(443);
        let address = tokio::net::lookup_host((host.trim_matches(['[', ']']), port))
            .await?
            .next();
        let address = address.with_context(|| format!("{host} has no address"))?;
        let kube = Kube::from_file(label, path).await?;
        let kubeconfig = path.to_owned();
        Ok(Self {
            label: label.to_owned(),
            form: Form::External,
            dir,
            kubeconfig,
            address,
            kube,
        })
    }

    /// An administrator's client, over TLS.
    pub fn kube(&self) -> Kube {
        self.kube.clone()
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it is this value's own embedded server.
    pub fn is_embedded(&self) -> bool {
        matches!(self.form, Form::Embedded { .. })
    }

    /// Where an embedded server on disk keeps everything.
    pub fn data_dir(&self) -> Option<&Path> {
        match &self.form {
            Form::Embedded { options, .. } => options.data_dir.as_deref(),
            _ => None,
        }
    }

    /// A folder that goes with this value.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The administrator's kubeconfig, but with a server at another address: through a link.
    pub fn kubeconfig_through(&self, address: SocketAddr) -> anyhow::Result<PathBuf> {
        let text = std::fs::read_to_string(&self.kubeconfig)?;
        let path = self
            .dir
            .path()
            .join(format!("admin-{}.kubeconfig", address.port()));
        files::write(&path, &redirected(&text, address)?)?;
        Ok(path)
    }

    /// A kubeconfig that may only bootstrap, at `address`.
    pub async fn bootstrap_kubeconfig(&self, address: SocketAddr) -> anyhow::Result<PathBuf> {
        make_token(&self.kube).await?;
        self.token_kubeconfig(&format!("{}.{}", TOKEN.0, TOKEN.1), address)
    }

    /// A kubeconfig with a bearer token, at `address`.
    pub fn token_kubeconfig(&self, token: &str, address: SocketAddr) -> anyhow::Result<PathBuf> {
        let text = std::fs::read_to_string(&self.kubeconfig)?;
        let id = token.split('.').next().unwrap_or_default();
        let path = self
            .dir
            .path()
            .join(format!("token-{id}-{}.kubeconfig", address.port()));
        files::write(&path, &with_token(&redirected(&text, address)?, token)?)?;
        Ok(path)
    }

    /// A kubeconfig of a service account with this token.
    pub fn account_kubeconfig(&self, name: &str, token: &str) -> anyhow::Result<PathBuf> {
        let text = std::fs::read_to_string(&self.kubeconfig)?;
        let path = self.dir.path().join(format!("account-{name}.kubeconfig"));
        files::write(&path, &with_token(&text, token)?)?;
        Ok(path)
    }

    /// An identity with a certificate of its own, where the CA is at hand: not on somebody's cluster.
    pub async fn as_user(&self, user: &str, groups: &[&str]) -> anyhow::Result<Kube> {
        let (cert, key) = self.certificate(user, groups, Duration::from_secs(3600))?;
        let text = std::fs::read_to_string(&self.kubeconfig)?;
        let mut config: serde_json::Value = serde_saphyr::from_str(&text)?;
        let encoded = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
        config["users"][0]["user"] =
            json!({"client-certificate-data": encoded(&cert), "client-key-data": encoded(&key)});
        let text = config.to_string();
        let path = self
            .dir
            .path()
            .join(format!("user-{}.kubeconfig", user.replace([':', '/'], "-")));
        files::write(&path, &text)?;
        Kube::from_file(&format!("{} as {user}", self.label), &path).await
    }

    /// A certificate and its key, PEM, from the server's CA, where it is at hand: not on somebody's cluster.
    pub fn certificate(
        &self,
        user: &str,
        groups: &[&str],
        ttl: Duration,
    ) -> anyhow::Result<(String, String)> {
        let now = jiff::Timestamp::now();
        let pair = match &self.form {
            Form::Embedded { server, .. } => {
                let server = server.lock().unwrap_or_else(PoisonError::into_inner);
                let server = server
                    .as_ref()
                    .with_context(|| format!("{} is stopped", self.label))?;
                server.ca().issue_client(user, groups, ttl, now)?
            }
            Form::Assets { plane } => plane.ca().issue_client(user, groups, ttl, now)?,
            Form::External => anyhow::bail!("{}: its CA does not sign for tests", self.label),
        };
        Ok((pair.cert_pem, pair.key_pem))
    }

    /// Stops an embedded server. Clients see it gone.
    pub async fn stop(&self) {
        if let Form::Embedded { server, .. } = &self.form {
            let server = server.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(server) = server {
                server.shutdown().await;
            }
        }
    }

    /// Starts a stopped embedded server on disk again, at the same address.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        let Form::Embedded { options, server } = &self.form else {
            anyhow::bail!("{}: only embedded servers are started again", self.label);
        };
        let started = Server::start(options.clone()).await?;
        *server.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
        Ok(())
    }

    /// Waits until a CustomResourceDefinition is served.
    pub async fn until_served(&self, crd: &str) -> anyhow::Result<()> {
        let path = format!("{}/{crd}", objects::CRDS);
        self.kube
            .until(&path, SOON, &format!("{crd} is served"), |o| {
                objects::has_condition(o, "Established", "True")
            })
            .await
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Form::Embedded {
            options: ServerOptions {
                data_dir: Some(dir), ..
            },
            server,
        } = &mut self.form
        {
            drop(server.get_mut().unwrap_or_else(PoisonError::into_inner).take());
            // A folder under the system's temporary one: left behind at worst.
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// The same kubeconfig with every cluster's server at `address`.
pub fn redirected(kubeconfig: &str, address: SocketAddr) -> anyhow::Result<String> {
    let mut config: serde_json::Value = serde_saphyr::from_str(kubeconfig)?;
    for cluster in config["clusters"]
        .as_array_mut()
        .context("a kubeconfig has clusters")?
    {
        cluster["cluster"]["server"] = json!(format!("https://{address}"));
    }
    Ok(config.to_string())
}

/// A kubeconfig in `dir` that may only bootstrap at a server, from its administrator's.
pub async fn bootstrap_kubeconfig(kube: &Kube, admin: &Path, dir: &Path) -> anyhow::Result<PathBuf> {
    make_token(kube).await?;
    token_kubeconfig(admin, &format!("{}.{}", TOKEN.0, TOKEN.1), dir)
}

/// A kubeconfig in `dir` with a bearer token, from a server's administrator's.
pub fn token_kubeconfig(admin: &Path, token: &str, dir: &Path) -> anyhow::Result<PathBuf> {
    let path = dir.join("bootstrap.kubeconfig");
    let text = std::fs::read_to_string(admin)?;
    files::write(&path, &with_token(&text, token)?)?;
    Ok(path)
}

async fn make_token(kube: &Kube) -> anyhow::Result<()> {
    let (id, secret) = TOKEN;
    let object = json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
        "stringData": {"token-id": id, "token-secret": secret, "usage-bootstrap-authentication": "true",
            "auth-extra-groups": names::BOOTSTRAP_GROUP}});
    Ok(kube
        .ensure("/api/v1/namespaces/kube-system/secrets", &object)
        .await?)
}

/// The same kubeconfig with a bearer token for a user.
fn with_token(kubeconfig: &str, token: &str) -> anyhow::Result<String> {
    let mut config: serde_json::Value = serde_saphyr::from_str(kubeconfig)?;
    config["users"][0]["user"] = json!({ "token": token });
    Ok(config.to_string())
}
