//! Joining the hub and staying joined (wire §2). `machine` decides; `driver` does what it says and brings it the news;
//! `register` is one attempt to register, `session` what runs for a hub.

pub mod bootstrap;
pub mod clock;
pub mod credentials;
pub mod csr;
mod driver;
pub mod events;
pub mod facts;
pub mod hub_client;
pub mod hubs;
mod introduce;
mod kept;
pub mod kubeconfig;
pub mod lease;
pub mod machine;
pub mod namespaces;
mod prepare;
pub mod quantity;
pub mod register;
mod report;
mod rights;
pub mod rotation;
mod seen;
pub mod session;
pub mod standing;
pub mod status;
#[cfg(test)]
mod tests;
mod trouble;

use crate::gates::Gates;
use crate::metrics::Metrics;
use crate::work::Backoff;
use crate::work::objects;
use crate::{Error, Options};
use bootstrap::Bootstrap;
use clock::Clock;
use credentials::{Credentials, Place};
use futures::future::BoxFuture;
use kube::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};
use trouble::Trouble;

/// A first contact that fails is tried again this long: hub, cluster and klusterlet may be starting together. Who answers late
/// is waited for instead, up to [`objects::REQUEST_TIMEOUT`].
const FIRST_CONTACT: Duration = Duration::from_secs(5);

/// The managed cluster and the way to it.
pub struct Spoke {
    /// Its client.
    pub client: Client,
    /// Its URL.
    pub url: String,
    /// Its CA bundle as PEM.
    pub ca: Vec<u8>,
    /// UID of its `kube-system` namespace, which tells it from all others; where it may be read.
    pub uid: Option<String>,
}

/// How clients of hubs are made.
pub trait Connect: Send + Sync {
    /// A client with the agent's own credentials.
    fn agent<'a>(
        &'a self,
        credentials: &'a Credentials,
        place: &'a Place,
    ) -> BoxFuture<'a, Result<Client, Error>>;

    /// A client with bootstrap data.
    fn bootstrap<'a>(&'a self, bootstrap: &'a Bootstrap) -> BoxFuture<'a, Result<Client, Error>>;
}

/// Clients as kubeconfigs describe them.
struct ByKubeconfig;

impl Connect for ByKubeconfig {
    fn agent<'a>(
        &'a self,
        credentials: &'a Credentials,
        place: &'a Place,
    ) -> BoxFuture<'a, Result<Client, Error>> {
        Box::pin(async move {
            let path = place.dir.join(muster_crds::constants::names::SECRET_KUBECONFIG);
            let config = credentials.kubeconfig().map_err(|problem| Error::Kubeconfig {
                role: "hub",
                path: path.clone(),
                problem,
            })?;
            kubeconfig::client("hub", &path, config).await
        })
    }

    fn bootstrap<'a>(&'a self, bootstrap: &'a Bootstrap) -> BoxFuture<'a, Result<Client, Error>> {
        Box::pin(kubeconfig::client(
            "bootstrap",
            &bootstrap.origin,
            bootstrap.config.clone(),
        ))
    }
}

/// What everything here needs to know.
pub struct Context {
    /// The managed cluster.
    pub spoke: Spoke,
    /// How it runs.
    pub options: Options,
    /// What is switched on.
    pub gates: Gates,
    /// Where the agent's credentials are kept.
    pub place: Place,
    /// Time.
    pub clock: Clock,
    /// How hubs are reached.
    pub connect: Arc<dyn Connect>,
    /// Whose the AppliedManifestWorks are: this installation's, whatever hub it works for, so that what one hub left is handed
    /// to the next. UID of the agent's namespace, where it may be read.
    pub agent_id: Option<String>,
    /// What is counted and told.
    pub metrics: Arc<Metrics>,
    /// What keeps the cluster from its hub.
    pub trouble: Trouble,
}

/// Runs the klusterlet until `stop`. Errors end it only before it has joined for the first time.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Error> {
    run_by(options, Clock::default(), stop).await
}

/// The same by another clock than this machine's.
pub async fn run_by(options: Options, clock: Clock, stop: CancellationToken) -> Result<(), Error> {
    options.check()?;
    let gates = options.gates()?;
    let without_effect = options.compatible.given();
    if !without_effect.is_empty() {
        tracing::info!(
            flags = without_effect.join(", "),
            "these flags have no effect here; --help says why"
        );
    }
    if let Some(path) = options.bootstrap_kubeconfig.as_deref().filter(|p| p.exists()) {
        // A file that makes no sense is told before anything is asked.
        Bootstrap::from_file(path)?;
    }
    let metrics = Arc::<Metrics>::default();
    let _told = tell(&options, &metrics, &stop).await?;
    let begin = async || {
        let mut spoke = connect_spoke(&options).await?;
        prepare::prepare(&spoke.client, &options.namespace, gates).await?;
        let (uid, agent_id) = tokio::join!(
            prepare::namespace_uid(&spoke.client, "kube-system"),
            prepare::namespace_uid(&spoke.client, &options.namespace)
        );
        spoke.uid = uid;
        Ok::<_, Error>((spoke, agent_id))
    };
    // Who has joined before keeps trying: its own cluster may be slow to come back. Who has not is told at once.
    let joined = Credentials::read_dir(&options.hub_kubeconfig_dir).is_ok_and(|found| found.server().is_ok());
    let mut backoff = Backoff::default();
    let (spoke, agent_id) = loop {
        let Some(begun) = stop.run_until_cancelled(begin()).await else {
            return Ok(());
        };
        match begun {
            Ok(begun) => break begun,
            Err(error @ (Error::Unreachable { .. } | Error::SpokeRefused { .. })) if joined => {
                tracing::warn!(%error, "the klusterlet can not begin yet, it is tried again");
                let _ = stop.run_until_cancelled(backoff.wait()).await;
            }
            Err(error) => return Err(error),
        }
    };
    let context = Context {
        spoke,
        gates,
        place: Place {
            dir: options.hub_kubeconfig_dir.clone(),
            namespace: options.namespace.clone(),
            secret: options.hub_kubeconfig_secret.clone(),
        },
        clock,
        connect: Arc::new(ByKubeconfig),
        agent_id,
        metrics,
        trouble: Trouble::default(),
        options,
    };
    let context = Arc::new(context);
    let run = Box::pin(async {
        if !joined {
            something_to_join_with(&context).await?;
        }
        driver::run(context.clone(), stop).await
    });
    trouble::told(&context, run).await
}

/// Serves metrics and health checks, where that is asked for, until the guard goes.
async fn tell(
    options: &Options,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<Option<DropGuard>, Error> {
    let Some(address) = options.listen else {
        return Ok(None);
    };
    let listener = muster_observe::bind(address).await.map_err(Error::Option)?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(%address, "metrics and health checks are served");
    let stop = stop.child_token();
    tokio::spawn(muster_observe::serve(
        listener,
        Arc::new(metrics.observed()),
        stop.clone(),
    ));
    Ok(Some(stop.drop_guard()))
}

/// Whoever starts a klusterlet for the first time and gives it nothing to join with is told at once. Later it waits for the
/// bootstrap Secret, which may be written anew at any time.
async fn something_to_join_with(context: &Context) -> Result<(), Error> {
    let options = &context.options;
    if options.bootstrap_kubeconfig.is_some() || !options.bootstrap_kubeconfigs.is_empty() {
        return Ok(());
    }
    for name in [
        &options.bootstrap_kubeconfig_secret,
        &options.hub_kubeconfig_secret,
    ] {
        let found = Credentials::read_secret(&context.spoke.client, &options.namespace, name).await;
        // What can not be read may be there.
        if found.is_err() || found.is_ok_and(|f| f.has_kubeconfig()) {
            return Ok(());
        }
    }
    Err(Error::Option(format!(
        "there is nothing to join a hub with: give --bootstrap-kubeconfig, or make the Secret {}/{}",
        options.namespace, options.bootstrap_kubeconfig_secret
    )))
}

async fn connect_spoke(options: &Options) -> Result<Spoke, Error> {
    let (client, server) = if let Some(path) = options.of_this_cluster() {
        let config = kubeconfig::read("spoke", path)?;
        let server = kubeconfig::server(&config).map_err(|problem| Error::Kubeconfig {
            role: "spoke",
            path: path.clone(),
            problem,
        })?;
        (
            kubeconfig::client("spoke", path, config).await?,
            (server.url, server.ca),
        )
    } else {
        let problem = |e: &dyn std::fmt::Display| {
            Error::Option(format!(
                "this is no Pod of a cluster ({e}): give --spoke-kubeconfig"
            ))
        };
        let mut config = kube::Config::incluster().map_err(|e| problem(&e))?;
        config.default_retry = false;
        let url = config.cluster_url.to_string();
        let ca = std::fs::read("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt").unwrap_or_default();
        (Client::try_from(config).map_err(|e| problem(&e))?, (url, ca))
    };
    let (url, ca) = server;
    match answers(&client, &url).await {
        Ok(()) => Ok(Spoke {
            client,
            url,
            ca,
            uid: None,
        }),
        Err(problem) => Err(Error::Unreachable {
            role: "managed cluster",
            server: url,
            problem,
        }),
    }
}

/// Waits until a managed cluster answers, whatever it says.
async fn answers(spoke: &Client, url: &str) -> Result<(), String> {
    let begun = tokio::time::Instant::now();
    let mut backoff = Backoff::default();
    loop {
        let asked = objects::get(spoke, "/version");
        let problem = match patiently("managed cluster", url, asked).await {
            Ok(_) => return Ok(()),
            Err(error) if error.code() != 0 => return Ok(()),
            Err(error) => register::said(&error),
        };
        if begun.elapsed() >= FIRST_CONTACT {
            return Err(problem);
        }
        backoff.wait().await;
    }
}

/// Waits for a first answer. Where hundreds of clusters join at once, or a server has just started, it may come late: asking
/// again, or ending and being started again, would only add to what the server has to do.
async fn patiently<T>(role: &'static str, server: &str, answer: impl Future<Output = T>) -> T {
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => return answer,
        () = tokio::time::sleep(FIRST_CONTACT) => {}
    }
    tracing::info!(
        server,
        "the {role} has not answered for {} s; it is waited for",
        FIRST_CONTACT.as_secs()
    );
    answer.await
}
