//! A whole API server in this process: store, PKI, API, TLS listener, controllers.

use crate::ApiError;
use crate::auth::{Authenticator, Authorizer, ServiceAccountKeys, UserInfo, revocation};
use crate::controllers::{self, Times};
use crate::kubeconfig::{self, Credentials};
use crate::pki::{Ca, PkiError};
use crate::registry::Registry;
use crate::rest::Api;
use crate::rest::inflight::{self, InFlight};
use crate::serve::{self, Limits, ServeError, Tls};
use crate::simulate;
use crate::store::{Store, StoreError, StoreOptions};
use jiff::Timestamp;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How many past revisions stay watchable and listable.
const KEEP_REVISIONS: usize = 20_000;
/// User and group of the administrator's kubeconfig.
const ADMIN: (&str, &str) = ("admin", crate::auth::SYSTEM_MASTERS);
/// Life of the administrator's certificate.
const ADMIN_TTL: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long open requests may go on once the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// How to run a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Where to keep everything; `None` keeps it in memory.
    pub data_dir: Option<PathBuf>,
    /// Nodes to pretend.
    pub simulate_nodes: usize,
    /// More names and addresses the serving certificate is good for.
    pub server_names: Vec<String>,
    /// URL in kubeconfigs, where it is not the bind address.
    pub external_url: Option<String>,
    /// How long the certificates live that the server signs for CertificateSigningRequests, at most.
    pub signing_duration: Duration,
    /// How long after its deletion a namespace is emptied.
    pub namespace_delay: Duration,
    /// Reading requests worked on at once; 0 is no limit. More wait a moment, then get a 429.
    pub max_requests_inflight: usize,
    /// Writing requests worked on at once, likewise.
    pub max_mutating_requests_inflight: usize,
}

impl Default for ServerOptions {
    /// In memory, on any free loopback port.
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: None,
            simulate_nodes: 0,
            server_names: Vec::new(),
            external_url: None,
            signing_duration: controllers::certificate::DEFAULT_TTL,
            namespace_delay: controllers::namespace::DELAY,
            max_requests_inflight: inflight::READING,
            max_mutating_requests_inflight: inflight::WRITING,
        }
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on, or TLS cannot be set up.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The data directory cannot be used.
    #[error("cannot use the data directory {}: {reason}", .path.display())]
    DataDir {
        /// Directory.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The database cannot be opened.
    #[error("cannot open the store {0}")]
    Store(String),
    /// Keys or certificates cannot be made or read.
    #[error("cannot set up keys and certificates: {0}")]
    Pki(PkiError),
    /// What every cluster has cannot be made.
    #[error("cannot make the initial objects: {0}")]
    Bootstrap(ApiError),
}

impl From<PkiError> for ServerError {
    fn from(e: PkiError) -> Self {
        Self::Pki(e)
    }
}

impl From<ApiError> for ServerError {
    fn from(e: ApiError) -> Self {
        Self::Bootstrap(e)
    }
}

/// A running server. Dropping it stops it without waiting; [`Server::shutdown`] waits.
#[derive(Debug)]
pub struct Server {
    api: Api,
    ca: Ca,
    address: SocketAddr,
    url: String,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    /// What clients come in by, until it is open.
    door: Option<(TcpListener, Tls)>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn file_in(dir: Option<&Path>, name: &str) -> Option<PathBuf> {
    dir.map(|d| d.join(name))
}

impl Server {
    /// Starts a server. When this returns it answers, its initial objects are there and its controllers run.
    pub async fn start(options: ServerOptions) -> Result<Self, ServerError> {
        let mut server = Self::start_closed(options).await?;
        server.open();
        Ok(server)
    }

    /// Starts a server that answers this process's own clients alone. Others may connect and wait until it is opened: what
    /// they must not find missing can be made first.
    pub async fn start_closed(options: ServerOptions) -> Result<Self, ServerError> {
        let now = Timestamp::now();
        let dir = options.data_dir.as_deref();
        if let Some(path) = dir {
            std::fs::create_dir_all(path).map_err(|reason| ServerError::DataDir {
                path: path.to_owned(),
                reason,
            })?;
        }
        let listener = serve::listen(options.bind).await?;
        let address = listener
            .local_addr()
            .map_err(|e| ServeError::Listen(options.bind, e))?;
        let path = file_in(dir, "store.redb");
        // A restored backup must not give out revisions that its clients saw with other content: they would resume their
        // watches as if nothing had happened. Microseconds are ahead of any rate of writes.
        let revision = if path.is_some() {
            now.as_microsecond().try_into().unwrap_or(0)
        } else {
            0
        };
        let options_of_store = StoreOptions {
            path,
            keep_revisions: KEEP_REVISIONS,
        };
        let store = Store::open_from(options_of_store, revision).map_err(|e| match e {
            // Says which file and why.
            StoreError::Disk(why) => ServerError::Store(why),
            other => ServerError::Store(other.to_string()),
        })?;
        let pki = file_in(dir, "pki");
        let ca = Ca::load_or_create(pki.as_deref(), now)?;
        let keys = ServiceAccountKeys::load_or_create(pki.as_deref())?;
        let authorizer = Authorizer::new(store.clone());
        let authenticator = Authenticator::new(store.clone(), keys, authorizer.clone(), Vec::new())?;
        let mut api = Api::new(store, Registry::new(), authorizer.clone(), authenticator.into());
        api.in_flight = Arc::new(InFlight::new(
            options.max_requests_inflight,
            options.max_mutating_requests_inflight,
        ));
        api.bootstrap().await?;
        api.publish_client_ca(ca.pem()).await?;

        let mut names = options.server_names.clone();
        if !address.ip().is_unspecified() {
            names.push(address.ip().to_string());
        }
        let tls = Tls::new(&ca, &names)?;
        let stop = api.shutdown.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(controllers::run(
            api.clone(),
            ca.clone(),
            Times {
                signing: options.signing_duration,
                namespace_delay: options.namespace_delay,
            },
            stop.clone(),
        ));
        tasks.spawn(revocation::follow(authorizer.clone(), stop.clone()));
        if options.simulate_nodes > 0 {
            tasks.spawn(simulate::run(api.clone(), options.simulate_nodes, stop.clone()));
        }
        let url = options.external_url.unwrap_or_else(|| url_of(address));
        Ok(Self {
            api,
            ca,
            address,
            url,
            stop,
            tasks,
            door: Some((listener, tls)),
        })
    }

    /// Answers everybody from now on.
    pub fn open(&mut self) {
        let Some((listener, tls)) = self.door.take() else {
            return;
        };
        self.tasks.spawn(serve::serve(
            listener,
            tls,
            self.api.clone(),
            Limits::default(),
            self.stop.clone(),
        ));
        tracing::info!(url = self.url, "serving");
    }

    /// Where clients reach it, like `https://127.0.0.1:6443`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Address it listens on, with the port it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Certificate of its CA, PEM.
    pub fn ca_pem(&self) -> &str {
        self.ca.pem()
    }

    /// Its CA: signs server and client certificates.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// The API without a network in between.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// An in-process client that may do everything.
    pub fn client(&self) -> kube::Client {
        self.api.client()
    }

    /// An in-process client that speaks for `user`.
    pub fn client_as(&self, user: UserInfo) -> kube::Client {
        self.api.client_as(user)
    }

    /// A kubeconfig of `admin` in `system:masters`, good for a year.
    pub fn admin_kubeconfig(&self) -> Result<String, PkiError> {
        self.kubeconfig(ADMIN.0, &[ADMIN.1], ADMIN_TTL)
    }

    /// A kubeconfig with a new client certificate for a user and its groups.
    pub fn kubeconfig(&self, user: &str, groups: &[&str], ttl: Duration) -> Result<String, PkiError> {
        let pair = self.ca.issue_client(user, groups, ttl, Timestamp::now())?;
        Ok(kubeconfig::kubeconfig(
            &self.url,
            self.ca.pem(),
            &Credentials::Cert(pair),
            "muster",
        ))
    }

    /// Stops: no new requests, watches end, open requests get a few seconds. When it returns, the data directory is free for
    /// the next server: clients of this process may still hold the API, but no longer its file.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut self.tasks);
        if tokio::time::timeout(DRAIN, tasks.join_all()).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
        let store = self.api.store.clone();
        // It waits for the disk. Only the runtime's own end cancels it, and that closes the file as well.
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }
}

fn url_of(address: SocketAddr) -> String {
    let host = match address.ip() {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        std::net::IpAddr::V4(ip) => ip.to_string(),
    };
    format!("https://{host}:{}", address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_reachable_address() {
        for (address, want) in [
            ("127.0.0.1:1", "https://127.0.0.1:1"),
            ("0.0.0.0:2", "https://127.0.0.1:2"),
            ("[::1]:3", "https://[::1]:3"),
        ] {
            assert_eq!(url_of(address.parse().unwrap()), want);
        }
    }

    #[tokio::test]
    async fn a_client_reaches_it_by_kubeconfig_and_it_stops_with_open_watches() {
        use futures::{StreamExt, TryStreamExt};
        use k8s_openapi::api::core::v1::Namespace;
        use kube::config::{KubeConfigOptions, Kubeconfig};

        let server = Server::start(ServerOptions::default()).await.unwrap();
        let kubeconfig = Kubeconfig::from_yaml(&server.admin_kubeconfig().unwrap()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        let namespaces = kube::Api::<Namespace>::all(kube::Client::try_from(config).unwrap());
        let found = namespaces.list(&kube::api::ListParams::default()).await.unwrap();
        let names: Vec<_> = found.iter().filter_map(|n| n.metadata.name.as_deref()).collect();
        assert_eq!(
            names,
            ["default", "kube-node-lease", "kube-public", "kube-system"]
        );
        let mut watch = namespaces
            .watch(&kube::api::WatchParams::default(), "0")
            .await
            .unwrap()
            .boxed();
        watch.try_next().await.unwrap();
        let stopped = tokio::time::timeout(DRAIN, server.shutdown()).await;
        assert!(stopped.is_ok(), "an open watch keeps the server from stopping");
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let server = Server::start(ServerOptions::default()).await.unwrap();
        let options = ServerOptions {
            bind: server.address(),
            ..ServerOptions::default()
        };
        let error = Server::start(options).await.unwrap_err().to_string();
        assert_eq!(error, format!("address {} is already in use", server.address()));
    }

    #[tokio::test]
    async fn what_is_in_a_deleted_namespace_can_still_be_deleted() {
        use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
        use kube::api::{DeleteParams, ObjectMeta, PostParams};

        let server = Server::start(ServerOptions::default()).await.unwrap();
        let meta = |name: &str| ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata: meta("n"),
            ..Namespace::default()
        };
        let namespaces = kube::Api::<Namespace>::all(server.client());
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
        let maps = kube::Api::<ConfigMap>::namespaced(server.client(), "n");
        let map = ConfigMap {
            metadata: meta("m"),
            ..ConfigMap::default()
        };
        maps.create(&PostParams::default(), &map).await.unwrap();
        let gone = namespaces.delete("n", &DeleteParams::default()).await.unwrap();
        assert!(gone.left().unwrap().metadata.deletion_timestamp.is_some());
        maps.delete("m", &DeleteParams::default()).await.unwrap();
    }
}
