//! A hub and the clusters it manages: control planes, the hub's controllers and the klusterlets, all in this process, each
//! klusterlet behind a link to the hub that can be cut.

use crate::Link;
use crate::control_plane::{BOOTSTRAP_USER, ControlPlane, Role, is_embedded};
use crate::deploy;
use crate::kube::Kube;
use crate::objects;
use crate::wait::SOON;
use anyhow::Context as _;
use muster_apiserver::server::ServerOptions;
use muster_crds::constants::names;
use muster_hub::{Feature, FeatureGate, HubOptions};
use muster_klusterlet::Options;
use muster_klusterlet::registration::clock::Clock;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Shared control planes serve one fleet at a time.
static TURN: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(1)));

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// How many clusters.
    pub clusters: usize,
    /// The hub accepts clusters and approves their first certificates by itself.
    pub auto_approve: bool,
    /// The hub's control plane is on disk and can be stopped and started (embedded only).
    pub durable_hub: bool,
    /// Nodes that each managed cluster pretends to have (embedded only).
    pub nodes: usize,
    /// Every managed cluster is a server of its own, the embedded one, wherever the hub is: real ones are shared, and two
    /// clusters on one of them are one cluster under two names.
    pub own_clusters: bool,
    /// Hub and klusterlets have the rights of `deploy/`, and no others.
    pub deployed: bool,
    /// More feature gates of the hub.
    pub gates: Vec<Feature>,
    /// The hub serves its admission webhook, where the control plane reaches it.
    pub webhook: bool,
    /// What else the hub is told.
    pub hub: HubOptions,
    /// How the hub's control plane is run (embedded only).
    pub server: ServerOptions,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            clusters: 1,
            auto_approve: true,
            durable_hub: false,
            nodes: 0,
            own_clusters: false,
            deployed: false,
            gates: Vec::new(),
            webhook: true,
            hub: HubOptions::default(),
            server: ServerOptions::default(),
        }
    }
}

/// A task that can be ended in order or at once.
#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    /// Ends with this value, however the test ends.
    task: AbortOnDropHandle<Result<(), String>>,
}

impl Running {
    fn start<E: std::fmt::Display + 'static>(
        run: impl FnOnce(CancellationToken) -> std::pin::Pin<Box<dyn Future<Output = Result<(), E>> + Send>>,
    ) -> Self {
        let stop = CancellationToken::new();
        let future = run(stop.clone());
        Self {
            stop,
            task: AbortOnDropHandle::new(tokio::spawn(async { future.await.map_err(|e| e.to_string()) })),
        }
    }

    /// Ends it in order; says how it ended.
    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        let ended = tokio::time::timeout(SOON, self.task)
            .await
            .context("it does not stop when told")?;
        ended?.map_err(anyhow::Error::msg)
    }

    /// Ends it as a crash does: in the middle of whatever it does.
    async fn abort(self) {
        self.task.abort();
        // Cancelled is how it should have ended.
        let _ = self.task.await;
    }
}

/// The hub of a fleet.
#[derive(Debug)]
pub struct Hub {
    /// Its control plane.
    pub plane: ControlPlane,
    options: HubOptions,
    /// As whom it runs; an administrator otherwise.
    account: Option<Kube>,
    running: Option<Running>,
}

impl Hub {
    /// A control plane with the controllers running, once clusters may bootstrap there.
    pub async fn prepare(label: &str, options: &FleetOptions) -> anyhow::Result<Self> {
        if is_embedded() {
            Self::embedded(label, options).await
        } else {
            Self::on(ControlPlane::start(label, Role::Hub).await?, options).await
        }
    }

    /// The same on a server of its own, wherever tests run: real ones are shared, and have one hub at a time.
    pub async fn embedded(label: &str, options: &FleetOptions) -> anyhow::Result<Self> {
        let mut server = options.server.clone();
        if options.durable_hub {
            server.data_dir = Some(tempfile::TempDir::with_prefix("muster-test-data-")?.keep());
        }
        Self::on(ControlPlane::embedded(label, server).await?, options).await
    }

    async fn on(plane: ControlPlane, options: &FleetOptions) -> anyhow::Result<Self> {
        let mut hub_options = HubOptions {
            // A hub that crashed is started again at once.
            disable_leader_election: true,
            ..options.hub.clone()
        };
        // Somebody's cluster does not reach this process; the others do.
        let reached = plane.is_embedded() || std::env::var_os(crate::control_plane::EXTERNAL).is_none();
        hub_options.webhook.webhook_beside = options.webhook && reached;
        if options.auto_approve {
            hub_options.feature_gates.push(FeatureGate {
                feature: Feature::ManagedClusterAutoApproval,
                enabled: true,
            });
            hub_options.auto_approved_csr_users = vec![BOOTSTRAP_USER.to_owned()];
        }
        hub_options
            .feature_gates
            .extend(options.gates.iter().map(|feature| FeatureGate {
                feature: *feature,
                enabled: true,
            }));
        let account = if options.deployed {
            let objects = deploy::objects("hub")?;
            deploy::apply(&plane.kube(), &objects).await?;
            let file = deploy::account(
                &plane,
                names::HUB_NAMESPACE,
                "muster-hub",
                &[
                    ("apiextensions.k8s.io", "customresourcedefinitions"),
                    ("rbac.authorization.k8s.io", "clusterroles"),
                ],
            )
            .await?;
            Some(Kube::from_file("hub's service account", &file).await?)
        } else {
            None
        };
        // Servers that tests share keep what a hub that was dropped left: its webhook answers no more.
        let all = objects::WEBHOOKS.iter().chain(&objects::REPLICA_SET_WEBHOOKS);
        for path in all.filter(|_| !plane.is_embedded()) {
            match plane.kube().delete(path).await {
                Err(refused) if refused.code != 404 => return Err(refused.into()),
                _ => {}
            }
        }
        let mut hub = Self {
            plane,
            account,
            options: hub_options,
            running: None,
        };
        hub.start();
        hub.until_begun().await?;
        hub.plane
            .until_served("manifestworks.work.open-cluster-management.io")
            .await?;
        Ok(hub)
    }

    /// Starts the controllers.
    pub fn start(&mut self) {
        self.options.begun = CancellationToken::new();
        let kube = self.account.clone().unwrap_or_else(|| self.plane.kube());
        let (client, options) = (kube.client(), self.options.clone());
        self.running = Some(Running::start(|stop| {
            Box::pin(muster_hub::run(client, options, stop))
        }));
    }

    /// Waits until all is installed and clusters may bootstrap. What an earlier hub left on a shared server is no sign of it.
    pub async fn until_begun(&mut self) -> anyhow::Result<()> {
        let begun = self.options.begun.clone();
        if tokio::time::timeout(SOON, begun.cancelled()).await.is_ok() {
            return Ok(());
        }
        // A hub that gave up said why.
        let running = self.running.take().filter(|running| running.task.is_finished());
        anyhow::bail!(match running {
            Some(running) => format!("the hub ended: {:?}", running.task.await),
            None => "the hub does not begin".to_owned(),
        })
    }

    /// Stops the controllers in order.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        match self.running.take() {
            Some(running) => running.stop().await.context("hub"),
            None => Ok(()),
        }
    }

    /// Ends the controllers at once.
    pub async fn crash(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort().await;
        }
    }
}

/// A managed cluster of a fleet.
#[derive(Debug)]
pub struct Cluster {
    /// Its name at the hub, which is its namespace there.
    pub name: String,
    /// Its control plane.
    pub plane: ControlPlane,
    /// The only way from its klusterlet to the hub.
    pub link: Link,
    /// Its klusterlet's options.
    pub options: Options,
    /// Its klusterlet's clock.
    pub clock: Clock,
    running: Option<Running>,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// An administrator's client of the managed cluster.
    pub fn kube(&self) -> Kube {
        self.plane.kube()
    }

    /// A namespace on the managed cluster for what tests apply; the fleet makes it.
    pub fn namespace(&self) -> String {
        format!("app-{}", self.name)
    }

    /// Whether its klusterlet runs.
    pub fn is_running(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| !running.task.is_finished())
    }

    /// Its own AppliedManifestWorks: clusters on a shared server have one list.
    pub async fn applied_works(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let mut all = self.kube().list(objects::APPLIED_WORKS).await?;
        if let Some(agent) = &self.options.agent_id {
            all.retain(|applied| applied["spec"]["agentID"] == agent.as_str());
        }
        Ok(all)
    }

    /// A folder that goes with the cluster.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The folder with the hub's credentials.
    pub fn credentials(&self) -> PathBuf {
        self.dir.path().join("hub-kubeconfig")
    }

    /// Starts the klusterlet.
    pub fn start(&mut self) {
        let (options, clock) = (self.options.clone(), self.clock.clone());
        self.running = Some(Running::start(|stop| {
            Box::pin(muster_klusterlet::run_by(options, clock, stop))
        }));
    }

    /// Stops the klusterlet in order.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        match self.running.take() {
            Some(running) => running
                .stop()
                .await
                .with_context(|| format!("klusterlet of {}", self.name)),
            None => Ok(()),
        }
    }

    /// Ends the klusterlet at once.
    pub async fn crash(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort().await;
        }
    }

    /// Waits for the klusterlet to give up; its error.
    pub async fn failure(&mut self) -> anyhow::Result<String> {
        let running = self.running.take().context("it does not run")?;
        match tokio::time::timeout(SOON, running.task)
            .await
            .context("it does not give up")??
        {
            Ok(()) => anyhow::bail!("it ended without an error"),
            Err(error) => Ok(error),
        }
    }

    /// What this cluster's klusterlet itself may do at the hub: a client with its credentials.
    pub async fn at_hub(&self) -> anyhow::Result<Kube> {
        let label = format!("hub as {}'s klusterlet", self.name);
        Kube::from_file(&label, &self.credentials().join("kubeconfig")).await
    }
}

/// A hub and its clusters. Everything ends with it.
#[derive(Debug)]
pub struct Fleet {
    /// The hub.
    pub hub: Hub,
    /// The clusters.
    pub clusters: Vec<Cluster>,
    own_clusters: bool,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Fleet {
    /// A running fleet with the defaults and this many clusters, all Available.
    pub async fn joined(clusters: usize) -> anyhow::Result<Self> {
        let fleet = Self::start(FleetOptions {
            clusters,
            ..FleetOptions::default()
        })
        .await?;
        fleet.until_available().await?;
        Ok(fleet)
    }

    /// A running fleet; its clusters join as it returns.
    pub async fn start(options: FleetOptions) -> anyhow::Result<Self> {
        let mut fleet = Self::prepare(options).await?;
        for cluster in &mut fleet.clusters {
            cluster.start();
        }
        Ok(fleet)
    }

    /// One more cluster, whose klusterlet does not run yet.
    pub async fn add_cluster(&mut self, name: &str) -> anyhow::Result<&mut Cluster> {
        self.add_named(name, 0, false).await?;
        self.clusters.last_mut().context("it was just added")
    }

    /// A hub that runs, and clusters whose klusterlets do not yet.
    pub async fn prepare(options: FleetOptions) -> anyhow::Result<Self> {
        let turn = if is_embedded() {
            None
        } else {
            Some(TURN.clone().acquire_owned().await?)
        };
        let mut fleet = Self {
            hub: Hub::prepare("hub", &options).await?,
            clusters: Vec::new(),
            own_clusters: is_embedded() || options.own_clusters,
            _turn: turn,
        };
        for number in 1..=options.clusters {
            fleet.add(number, options.nodes, options.deployed).await?;
        }
        Ok(fleet)
    }

    async fn add(&mut self, number: usize, nodes: usize, deployed: bool) -> anyhow::Result<()> {
        // On shared control planes a name must be nobody else's.
        let name = if is_embedded() {
            format!("cluster{number}")
        } else {
            format!("cluster{number}-{:08x}", rand::random::<u32>())
        };
        self.add_named(&name, nodes, deployed).await
    }

    async fn add_named(&mut self, name: &str, nodes: usize, deployed: bool) -> anyhow::Result<()> {
        let name = name.to_owned();
        let plane = if self.own_clusters {
            ControlPlane::embedded(
                &name,
                ServerOptions {
                    simulate_nodes: nodes,
                    ..ServerOptions::default()
                },
            )
            .await?
        } else {
            ControlPlane::start(&name, Role::Managed).await?
        };
        let link = Link::open(self.hub.plane.address())?;
        let dir = tempfile::TempDir::with_prefix("muster-test-klusterlet-")?;
        let mut options = klusterlet_options(&name, &self.hub.plane, link.address(), &plane, &dir).await?;
        if deployed {
            let objects = deploy::in_namespace(
                deploy::objects("klusterlet")?,
                names::AGENT_NAMESPACE,
                &options.namespace,
            )?;
            deploy::apply(&plane.kube(), &objects).await?;
            options.spoke_kubeconfig = Some(
                deploy::account(
                    &plane,
                    &options.namespace,
                    "klusterlet",
                    &[
                        ("work.open-cluster-management.io", "appliedmanifestworks"),
                        ("rbac.authorization.k8s.io", "clusterroles"),
                        ("", "configmaps"),
                    ],
                )
                .await?,
            );
        }
        let cluster = Cluster {
            name,
            plane,
            link,
            options,
            clock: Clock::default(),
            running: None,
            dir,
        };
        cluster
            .kube()
            .ensure("/api/v1/namespaces", &objects::namespace(&cluster.namespace()))
            .await?;
        self.clusters.push(cluster);
        Ok(())
    }

    /// An administrator's client of the hub.
    pub fn kube(&self) -> Kube {
        self.hub.plane.kube()
    }

    /// Waits until every cluster is accepted, joined and available.
    pub async fn until_available(&self) -> anyhow::Result<()> {
        for cluster in &self.clusters {
            self.until_condition(&cluster.name, "ManagedClusterConditionAvailable", "True")
                .await?;
        }
        Ok(())
    }

    /// Waits for a condition of a cluster.
    pub async fn until_condition(&self, cluster: &str, condition: &str, status: &str) -> anyhow::Result<()> {
        let what = format!("{cluster} has {condition}={status}");
        self.kube()
            .until(&objects::cluster_path(cluster), SOON, &what, |o| {
                objects::has_condition(o, condition, status)
            })
            .await
    }

    /// Creates a work on a cluster.
    pub async fn create(&self, work: &serde_json::Value) -> anyhow::Result<()> {
        let cluster = work["metadata"]["namespace"]
            .as_str()
            .context("a work has a namespace")?;
        self.kube().create(&objects::works_path(cluster), work).await?;
        Ok(())
    }

    /// Waits until a work is applied and available at its present generation; the work.
    pub async fn until_applied(&self, cluster: &str, name: &str) -> anyhow::Result<serde_json::Value> {
        self.until_work(cluster, name, "it is applied", |work| {
            objects::is_applied(Some(work))
        })
        .await
    }

    /// Waits for something to be true of a work; the work.
    pub async fn until_work(
        &self,
        cluster: &str,
        name: &str,
        what: &str,
        check: impl Fn(&serde_json::Value) -> Result<(), String>,
    ) -> anyhow::Result<serde_json::Value> {
        let path = objects::work_path(cluster, name);
        let what = format!("work {cluster}/{name}: {what}");
        self.kube()
            .until(&path, SOON, &what, |work| {
                let work = work.ok_or("it is not there")?;
                check(work).map(|()| work.clone())
            })
            .await
    }

    /// Changes the manifests of a work.
    pub async fn set_manifests(
        &self,
        cluster: &str,
        name: &str,
        manifests: &[serde_json::Value],
    ) -> anyhow::Result<()> {
        let patch = json!({"spec": {"workload": {"manifests": manifests}}});
        self.kube()
            .merge(&objects::work_path(cluster, name), &patch)
            .await?;
        Ok(())
    }
}

/// Options of a klusterlet of `spoke` that reaches the hub at `hub_address`.
async fn klusterlet_options(
    name: &str,
    hub: &ControlPlane,
    hub_address: SocketAddr,
    spoke: &ControlPlane,
    dir: &tempfile::TempDir,
) -> anyhow::Result<Options> {
    let agent = format!("agent-{name}");
    let flags: [(&str, PathBuf); 7] = [
        ("--cluster-name", name.into()),
        (
            "--bootstrap-kubeconfig",
            hub.bootstrap_kubeconfig(hub_address).await?,
        ),
        ("--spoke-kubeconfig", spoke.kubeconfig().to_owned()),
        ("--hub-kubeconfig-dir", dir.path().join("hub-kubeconfig")),
        ("--agent-id", agent.clone().into()),
        // Clusters that share a control plane have a namespace each.
        ("--namespace", agent.into()),
        ("--appliedmanifestwork-eviction-grace-period", "1h".into()),
    ];
    let flags = flags
        .into_iter()
        .flat_map(|(flag, value)| [flag.into(), value.into_os_string()]);
    Ok(Options::from_flags(flags)?)
}
