//! The demo's hub, clusters, klusterlets and the links between them: started, watched, stopped.

use crate::apiserver::write_kubeconfig;
use crate::link::Link;
use crate::{Error, hub, token};
use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use muster_apiserver::kubeconfig::{Credentials, kubeconfig};
use muster_apiserver::server::{Server, ServerOptions};
use muster_crds::constants::names::BOOTSTRAP_TOKEN_NAMESPACE;
use muster_hub::HubOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Field manager of what the demo writes.
pub const FIELD_MANAGER: &str = "muster-demo";
/// Nodes that each cluster pretends to have.
const NODES: usize = 2;
/// Life of the kubeconfigs' certificates.
const ADMIN_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Life of the token that clusters register with.
const BOOTSTRAP_TTL: Duration = Duration::from_secs(24 * 3600);

/// A cluster and its link to the hub.
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Its API, in this process.
    pub client: kube::Client,
    /// What its klusterlet reaches the hub through.
    pub link: Link,
    server: Server,
}

/// Everything that runs.
pub struct Fleet {
    dir: PathBuf,
    keep: bool,
    size: usize,
    hub: Option<Server>,
    clusters: Vec<Cluster>,
    stop: CancellationToken,
    tasks: TaskTracker,
    failures: mpsc::Sender<Error>,
}

impl Fleet {
    /// A fleet of so many clusters that keeps its files in `dir`, and the data of hub and clusters too when `keep` says so.
    /// A part that ends before it is to end is told of through the receiver.
    pub fn new(dir: PathBuf, size: usize, keep: bool) -> (Self, mpsc::Receiver<Error>) {
        // Only the first failure is told: the others follow from it.
        let (failures, failed) = mpsc::channel(1);
        let fleet = Self {
            dir,
            keep,
            size,
            hub: None,
            clusters: Vec::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            failures,
        };
        (fleet, failed)
    }

    /// Starts the hub: an API server with the hub's controllers.
    pub async fn start_hub(&mut self) -> Result<String, Error> {
        let data_dir = self.keep.then(|| self.dir.join("hub"));
        let mut server = Server::start_closed(ServerOptions {
            data_dir,
            ..ServerOptions::default()
        })
        .await?;
        let options = hub::beside(HubOptions {
            disable_leader_election: true,
            ..HubOptions::default()
        })?;
        let begun = options.begun.clone();
        self.watch_over("the hub", {
            let run = muster_hub::run(server.client(), options, self.stop.clone());
            async move { run.await.map_err(|error| hub::failure(Ok(Err(error)))) }
        });
        hub::ready(&begun).await?;
        server.open();
        let url = server.url().to_owned();
        Self::write_admin(&server, &self.hub_kubeconfig(), "hub")?;
        self.hub = Some(server);
        Ok(url)
    }

    /// Starts the clusters, each an API server with nodes that are pretended.
    pub async fn start_clusters(&mut self) -> Result<(), Error> {
        let hub = self.server()?.address();
        let this = &*self;
        let started = (1..=self.size).map(|number| async move {
            // A kept hub knows its clusters: under the same names others would be refused.
            let data_dir = this
                .keep
                .then(|| this.dir.join(format!("cluster{number}")).join("data"));
            let server = Server::start(ServerOptions {
                data_dir,
                simulate_nodes: NODES,
                ..ServerOptions::default()
            })
            .await?;
            let link = Link::open(hub)
                .map_err(|e| Error::Input(format!("can not open a link on 127.0.0.1: {e}")))?;
            Ok::<_, Error>(Cluster {
                name: format!("cluster{number}"),
                client: server.client(),
                link,
                server,
            })
        });
        self.clusters = try_join_all(started).await?;
        for cluster in &self.clusters {
            Self::write_admin(
                &cluster.server,
                &self.cluster_kubeconfig(&cluster.name),
                &cluster.name,
            )?;
        }
        Ok(())
    }

    /// Starts a klusterlet on each cluster, with nothing but a bootstrap kubeconfig.
    pub async fn start_klusterlets(&mut self) -> Result<(), Error> {
        let token = self.join_token().await?;
        for cluster in &self.clusters {
            let dir = self.dir.join(&cluster.name);
            std::fs::create_dir_all(&dir).map_err(|e| Error::File {
                path: dir.clone(),
                problem: e.to_string(),
            })?;
            let bootstrap = dir.join("bootstrap.kubeconfig");
            let url = format!("https://{}", cluster.link.address());
            let text = kubeconfig(
                &url,
                self.server()?.ca_pem(),
                &Credentials::Token(token.clone()),
                "hub",
            );
            write_kubeconfig(&bootstrap, &text)?;
            let flags: [(&str, PathBuf); 5] = [
                ("--cluster-name", cluster.name.clone().into()),
                ("--bootstrap-kubeconfig", bootstrap),
                ("--spoke-kubeconfig", self.cluster_kubeconfig(&cluster.name)),
                ("--hub-kubeconfig-dir", dir.join("hub-kubeconfig")),
                ("--spoke-external-server-urls", cluster.server.url().into()),
            ];
            let flags = flags
                .into_iter()
                .flat_map(|(flag, value)| [std::ffi::OsString::from(flag), value.into_os_string()]);
            let options =
                muster_klusterlet::Options::from_flags(flags).map_err(|e| Error::Input(e.to_string()))?;
            let run = muster_klusterlet::run(options, self.stop.clone());
            self.watch_over(format!("the klusterlet of {}", cluster.name), async move {
                Ok(run.await?)
            });
        }
        Ok(())
    }

    /// Makes the token that lets the demo's clusters join, and nothing else.
    async fn join_token(&self) -> Result<String, Error> {
        let create = token::Create {
            ttl: BOOTSTRAP_TTL,
            clusters: vec!["cluster*".to_owned()],
            uses: u32::try_from(self.size).ok(),
            accept: true,
            ..token::Create::default()
        };
        let (object, token) = token::secret(&create, Timestamp::now())?;
        let secrets: Api<Secret> = Api::namespaced(self.hub_client()?, BOOTSTRAP_TOKEN_NAMESPACE);
        let made = secrets.create(&PostParams::default(), &object).await;
        made.map_err(|e| Error::Request {
            what: "make the join token".into(),
            problem: crate::error::innermost(&e),
        })?;
        Ok(token)
    }

    /// Runs a part; its end before the fleet's is a failure.
    fn watch_over(
        &self,
        what: impl Into<String>,
        part: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) {
        let (stop, failures, what) = (self.stop.clone(), self.failures.clone(), what.into());
        self.tasks.spawn(async move {
            let ended = part.await;
            if !stop.is_cancelled() {
                let problem = ended
                    .err()
                    .map_or_else(|| "nobody asked it to".to_owned(), |e| e.to_string());
                // Full: an earlier failure is told already.
                let _ = failures.try_send(Error::Ended { what, problem });
            }
        });
    }

    /// Stops everything, in the order in which it is missed least.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let servers = self.clusters.drain(..).map(|c| c.server).chain(self.hub.take());
        futures::future::join_all(servers.map(Server::shutdown)).await;
    }

    /// The clusters.
    pub fn clusters(&self) -> &[Cluster] {
        &self.clusters
    }

    /// Whether the hub's data stay.
    pub fn is_kept(&self) -> bool {
        self.keep
    }

    /// The hub's API, in this process.
    pub fn hub_client(&self) -> Result<kube::Client, Error> {
        Ok(self.server()?.client())
    }

    fn server(&self) -> Result<&Server, Error> {
        self.hub
            .as_ref()
            .ok_or_else(|| Error::Input("the hub does not run".into()))
    }

    /// The administrator's kubeconfig of the hub.
    pub fn hub_kubeconfig(&self) -> PathBuf {
        self.dir.join("hub.kubeconfig")
    }

    fn cluster_kubeconfig(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.kubeconfig"))
    }

    /// The hub's and every cluster's kubeconfig.
    pub fn kubeconfigs(&self) -> Vec<(String, PathBuf)> {
        let clusters = self
            .clusters
            .iter()
            .map(|c| (c.name.clone(), self.cluster_kubeconfig(&c.name)));
        std::iter::once(("hub".to_owned(), self.hub_kubeconfig()))
            .chain(clusters)
            .collect()
    }

    fn write_admin(server: &Server, path: &Path, name: &str) -> Result<(), Error> {
        let pair = server.ca().issue_client(
            "kubernetes-admin",
            &["system:masters"],
            ADMIN_TTL,
            Timestamp::now(),
        )?;
        write_kubeconfig(
            path,
            &kubeconfig(server.url(), server.ca_pem(), &Credentials::Cert(pair), name),
        )
    }
}
