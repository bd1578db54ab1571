//! What runs while the agent holds good credentials: lease, status, certificate rotation, and the work agent.

use super::credentials::{Credentials, Place, Validity};
use super::facts::Facts;
use super::kubeconfig::Server;
use super::status::{self, Health, Observed};
use super::{csr, kubeconfig};
use crate::gates::{Gate, Gates};
use crate::work::objects::{self, RequestError};
use crate::work::{self, Backoff};
use crate::{Error, Options};
use arc_swap::ArcSwap;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher;
use muster_crds::cluster::v1::ManagedCluster;
use muster_crds::conditions::is_true;
use muster_crds::constants::{conditions as types, names::CLUSTER_LEASE, names::DEFAULT_LEASE_DURATION};
use muster_crds::names;
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Failing health checks are tolerated this long (wire §2.7).
const HEALTH_TOLERANCE: Duration = Duration::from_secs(20);
const HEALTH_RETRY: Duration = Duration::from_secs(5);

/// Who and where the agent is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Cluster name at the hub.
    pub cluster: String,
    /// Agent name.
    pub agent: String,
}

/// Why a session ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The program stops.
    Shutdown,
    /// The certificate ran out: only bootstrapping helps.
    Expired,
}

/// A client whose credentials can be exchanged: requests begun after an exchange use the new ones.
#[derive(Clone)]
pub struct HubClient {
    inner: Arc<ArcSwap<Client>>,
}

impl HubClient {
    /// Begins with a client.
    pub fn new(client: Client) -> Self {
        Self {
            inner: Arc::new(ArcSwap::from_pointee(client)),
        }
    }

    /// Exchanges the client.
    pub fn exchange(&self, client: Client) {
        self.inner.store(Arc::new(client));
    }

    /// A client that always uses the present one.
    pub fn client(&self) -> Client {
        let inner = self.inner.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let client = inner.load_full();
            async move { client.send(request).await }
        });
        Client::new(service, "default")
    }
}

/// A session. [`Session::run`] drives it.
pub struct Session {
    /// The managed cluster.
    pub spoke: Client,
    /// The hub, with the agent's own credentials.
    pub hub: HubClient,
    /// Where the hub is.
    pub server: Server,
    /// Who the agent is.
    pub identity: Identity,
    /// Where its credentials are kept.
    pub place: Place,
    /// How it runs.
    pub options: Options,
    /// When the present certificate is good.
    pub validity: Validity,
}

struct Shared {
    spoke: Client,
    hub: Client,
    identity: Identity,
    options: Options,
    gates: Gates,
    facts: Arc<Facts>,
    cluster: watch::Sender<Option<Arc<ManagedCluster>>>,
    certificate: Mutex<(Validity, Option<String>)>,
    refresh: tokio::sync::Notify,
}

impl Session {
    /// Runs until it is cancelled or the certificate runs out.
    pub async fn run(self, stop: &CancellationToken) -> End {
        let shared = Arc::new(Shared {
            spoke: self.spoke.clone(),
            hub: self.hub.client(),
            identity: self.identity.clone(),
            options: self.options.clone(),
            gates: self.options.gates().unwrap_or_default(),
            facts: Arc::default(),
            cluster: watch::channel(None).0,
            certificate: Mutex::new((self.validity, None)),
            refresh: tokio::sync::Notify::new(),
        });
        let work = work::Agent::new(
            shared.hub.clone(),
            self.spoke.clone(),
            &self.options.namespace,
            work::Settings {
                cluster: self.identity.cluster.clone(),
                hub_hash: work::hub_hash(&self.server.url),
                agent_id: self
                    .options
                    .agent_id
                    .clone()
                    .unwrap_or_else(|| work::hub_hash(&self.server.url)),
                workers: self.options.workload_agent_workers,
                eviction_grace: self.options.appliedmanifestwork_eviction_grace_period,
            },
        );
        let ended = stop.child_token();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(shared.facts.clone().follow_nodes(self.spoke.clone()));
        if shared.gates.on(Gate::ClusterClaim) {
            tasks.spawn(shared.facts.clone().follow_claims(self.spoke.clone()));
        }
        if shared.gates.on(Gate::ClusterProperty) {
            tasks.spawn(shared.facts.clone().follow_properties(self.spoke.clone()));
        }
        tasks.spawn(shared.clone().follow_cluster());
        tasks.spawn(shared.clone().keep_lease());
        tasks.spawn(shared.clone().keep_status());
        let (agent, token) = (work.clone(), ended.clone());
        let working = tokio::spawn(async move { agent.run(token).await });
        // The hub allows works to be seen only once it accepted the cluster: no need to wait out a back-off then.
        let mut cluster = shared.cluster.subscribe();
        tasks.spawn(async move {
            let accepted = |c: &Option<Arc<ManagedCluster>>| c.as_ref().is_some_and(|c| is_accepted(c));
            if cluster.wait_for(accepted).await.is_ok() {
                work.hub_is_ready();
            }
            std::future::pending::<()>().await;
        });
        let end = tokio::select! {
            () = stop.cancelled() => End::Shutdown,
            end = self.rotate(&shared) => end,
        };
        ended.cancel();
        tasks.shutdown().await;
        let _ = working.await;
        end
    }

    /// Renews the certificate when 20 to 25 % of its life is left, each agent at another moment.
    async fn rotate(&self, shared: &Shared) -> End {
        let mut validity = self.validity;
        let mut backoff = Backoff::default();
        let share = rand::random_range(0.20..0.25);
        loop {
            let due = renewal(validity, share);
            let wait = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
            // In steps: a machine that slept must not oversleep its certificate.
            if !wait.is_zero() {
                tokio::time::sleep(wait.min(Duration::from_secs(600))).await;
                continue;
            }
            if Timestamp::now() >= validity.not_after {
                tracing::warn!("the certificate for the hub expired; the cluster registers anew");
                return End::Expired;
            }
            let left =
                Duration::try_from(validity.not_after.duration_since(Timestamp::now())).unwrap_or_default();
            let renewed = tokio::time::timeout(left, self.renew(shared)).await;
            let problem = match renewed {
                Ok(Ok(new)) => {
                    tracing::info!(until = %new.not_after, "the certificate for the hub was renewed");
                    validity = new;
                    None
                }
                Ok(Err(problem)) => {
                    tracing::warn!(%problem, "the certificate for the hub could not be renewed, it is tried again");
                    Some(problem)
                }
                Err(_) => Some("no certificate was issued in time".to_owned()),
            };
            let failed = problem.is_some();
            *shared.certificate.lock().unwrap_or_else(PoisonError::into_inner) = (validity, problem);
            shared.refresh.notify_one();
            if failed {
                backoff.wait().await;
            } else {
                backoff = Backoff::default();
            }
        }
    }

    async fn renew(&self, shared: &Shared) -> Result<Validity, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let Identity { cluster, agent } = &self.identity;
        let request = csr::request(cluster, agent).map_err(|e| text(&e))?;
        let seconds = self.options.client_cert_expiration_seconds;
        let name = csr::create(&shared.hub, cluster, &request, seconds)
            .await
            .map_err(|e| text(&e))?;
        let certificate = csr::wait(&shared.hub, &name, &names::user(cluster, agent))
            .await
            .map_err(|e| text(&e))?;
        let credentials =
            Credentials::new(&self.server, cluster, agent, &certificate, request.key.as_bytes());
        let validity = credentials.check(Some(&self.server), cluster, agent, Timestamp::now())?;
        credentials
            .write_secret(&self.spoke, &self.place.namespace, &self.place.secret)
            .await
            .map_err(|e| text(&e))?;
        credentials.write_dir(&self.place.dir).map_err(|e| text(&e))?;
        self.hub.exchange(
            hub_client(&credentials, &self.place)
                .await
                .map_err(|e| text(&e))?,
        );
        Ok(validity)
    }
}

/// A client of the hub with these credentials.
pub async fn hub_client(credentials: &Credentials, place: &Place) -> Result<Client, Error> {
    let path = place.dir.join(muster_crds::constants::names::SECRET_KUBECONFIG);
    let config = credentials.kubeconfig().map_err(|problem| Error::Kubeconfig {
        role: "hub",
        path: path.clone(),
        problem,
    })?;
    kubeconfig::client("hub", &path, config).await
}

fn renewal(validity: Validity, share: f64) -> Timestamp {
    let life = validity
        .not_after
        .duration_since(validity.not_before)
        .as_secs_f64();
    let left = Duration::try_from_secs_f64((life * share).max(0.0)).unwrap_or_default();
    validity.not_after.checked_sub(left).unwrap_or(validity.not_after)
}

fn is_accepted(cluster: &ManagedCluster) -> bool {
    cluster
        .status
        .as_ref()
        .is_some_and(|s| is_true(&s.conditions, types::HUB_ACCEPTED))
}

impl Shared {
    fn current(&self) -> Option<Arc<ManagedCluster>> {
        self.cluster.borrow().clone()
    }

    /// Watches this cluster's own ManagedCluster, and nothing else of its kind.
    async fn follow_cluster(self: Arc<Self>) {
        let api: Api<ManagedCluster> = Api::all(self.hub.clone());
        let fields = format!("metadata.name={}", self.identity.cluster);
        let mut events = Box::pin(watcher(api, watcher::Config::default().fields(&fields)));
        let mut backoff = Backoff::default();
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::InitApply(cluster) | watcher::Event::Apply(cluster))) => {
                    backoff = Backoff::default();
                    self.cluster.send_replace(Some(Arc::new(cluster)));
                }
                Ok(Some(watcher::Event::Delete(_))) => {
                    tracing::warn!(
                        "the hub deleted this cluster's ManagedCluster; nothing is reported any more"
                    );
                    self.cluster.send_replace(None);
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "the ManagedCluster can not be watched, it goes on");
                    backoff.wait().await;
                }
            }
        }
    }

    /// Renews the lease while the hub accepts the cluster (wire §2.6).
    async fn keep_lease(self: Arc<Self>) {
        let mut cluster = self.cluster.subscribe();
        let mut known: Option<Lease> = None;
        loop {
            let accepted = |c: &Option<Arc<ManagedCluster>>| c.as_ref().is_some_and(|c| is_accepted(c));
            let period = match cluster.wait_for(accepted).await {
                Ok(cluster) => lease_period(cluster.as_deref()),
                Err(_) => return,
            };
            let next = match self.renew_lease(known.take()).await {
                Ok(lease) => {
                    known = Some(lease);
                    period.mul_f64(rand::random_range(1.0..1.25))
                }
                Err(error) => {
                    // The hub makes the lease after it accepted: shortly afterwards it is there.
                    tracing::debug!(%error, "the lease was not renewed");
                    let early = if error.is_not_found() { 0.1 } else { 2.0 };
                    Duration::from_secs_f64(early * rand::random_range(1.0..2.0)).min(period)
                }
            };
            let deadline = tokio::time::Instant::now() + next;
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(deadline) => break,
                    changed = cluster.changed() => {
                        if changed.is_err() { return; }
                        if lease_period(cluster.borrow_and_update().as_deref()) != period { break; }
                    }
                }
            }
        }
    }

    async fn renew_lease(&self, known: Option<Lease>) -> Result<Lease, RequestError> {
        let cluster = &self.identity.cluster;
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{cluster}/leases/{CLUSTER_LEASE}");
        let broken = |e| RequestError::Kube(Box::new(kube::Error::SerdeError(e)));
        let mut lease = match known {
            Some(lease) => serde_json::to_value(lease).map_err(broken)?,
            None => objects::get(&self.hub, &path).await?,
        };
        lease["spec"]["renewTime"] = json!(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(
            Timestamp::now()
        ));
        lease["spec"]["holderIdentity"] = CLUSTER_LEASE.into();
        let answer = objects::replace(&self.hub, &path, &lease).await?;
        serde_json::from_value(answer).map_err(broken)
    }

    /// Writes the status whenever what it tells of changed, and looks once a period.
    async fn keep_status(self: Arc<Self>) {
        let mut cluster = self.cluster.subscribe();
        let mut sick_since: Option<tokio::time::Instant> = None;
        let mut version: Option<String> = None;
        let mut health = Health::Ok;
        let mut look_at = tokio::time::Instant::now();
        let mut backoff = Backoff::default();
        loop {
            if cluster
                .borrow_and_update()
                .as_ref()
                .is_some_and(|c| is_accepted(c))
            {
                if tokio::time::Instant::now() >= look_at {
                    let (found, git_version) = self.look().await;
                    sick_since = match found {
                        Health::Ok => None,
                        Health::Bad(..) => sick_since.or(Some(tokio::time::Instant::now())),
                    };
                    let tolerated = sick_since.is_some_and(|s| s.elapsed() < HEALTH_TOLERANCE);
                    look_at = tokio::time::Instant::now()
                        + if tolerated {
                            HEALTH_RETRY
                        } else {
                            self.options.cluster_healthcheck_period
                        };
                    if !tolerated {
                        health = found;
                    }
                    version = git_version.or(version);
                }
                match self.write_status(&health, version.as_ref()).await {
                    Ok(()) => backoff = Backoff::default(),
                    Err(error) => {
                        tracing::debug!(%error, "the ManagedCluster's status was not written, it is tried again");
                        backoff.wait().await;
                        continue;
                    }
                }
            }
            let idle = self.current().is_none_or(|c| !is_accepted(&c));
            tokio::select! {
                changed = cluster.changed() => if changed.is_err() { return },
                () = self.facts.changed() => {}
                () = self.refresh.notified() => {}
                () = tokio::time::sleep_until(look_at), if !idle => {}
            }
        }
    }

    async fn look(&self) -> (Health, Option<String>) {
        let probe = |path: &'static str| async move {
            let request = http::Request::get(path)
                .body(Vec::new())
                .map_err(RequestError::Build)?;
            match tokio::time::timeout(Duration::from_secs(10), self.spoke.request_text(request)).await {
                Ok(answer) => answer.map_err(|e| RequestError::Kube(Box::new(e))),
                Err(_) => Err(RequestError::Timeout),
            }
        };
        let mut found = probe("/livez").await;
        if matches!(&found, Err(e) if matches!(e.code(), 403 | 404)) {
            found = probe("/healthz").await;
        }
        let health = match found {
            Ok(_) => Health::Ok,
            Err(error) => Health::Bad(error.code(), error.to_string()),
        };
        let version = self.spoke.apiserver_version().await.ok().map(|v| v.git_version);
        (health, version)
    }

    async fn write_status(&self, health: &Health, version: Option<&String>) -> Result<(), RequestError> {
        let Some(cluster) = self.current() else {
            return Ok(());
        };
        let old = cluster.status.clone().unwrap_or_default();
        let (validity, rotation_problem) = self
            .certificate
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let claims = self.facts.claims(
            self.gates,
            &self.options.reserved_cluster_claim_suffixes,
            self.options.max_custom_cluster_claims,
        );
        if let Some((_, left_out @ 1..)) = claims {
            tracing::warn!(
                left_out,
                "there are more custom ClusterClaims than --max-custom-cluster-claims allows"
            );
        }
        let observed = Observed {
            health: health.clone(),
            version: version.cloned(),
            resources: self.facts.resources(),
            claims: claims.map(|(list, _)| list),
            certificate: Some(validity),
            rotation_problem,
        };
        let new = status::status(&old, &observed, Timestamp::now());
        if new == old {
            return Ok(());
        }
        // The hub writes conditions into the same list: the revision keeps either from undoing the other.
        let patch = json!({"metadata": {"uid": cluster.metadata.uid,
            "resourceVersion": cluster.metadata.resource_version}, "status": new});
        let name = &self.identity.cluster;
        let path = format!("/apis/cluster.open-cluster-management.io/v1/managedclusters/{name}/status");
        match objects::merge(&self.hub, &path, &patch).await {
            Ok(answer) => {
                if let Ok(written) = serde_json::from_value::<ManagedCluster>(answer) {
                    self.cluster.send_if_modified(|known| {
                        let same = known.as_ref().is_some_and(|k| {
                            k.metadata.resource_version == cluster.metadata.resource_version
                        });
                        if same {
                            *known = Some(Arc::new(written));
                        }
                        false
                    });
                }
                Ok(())
            }
            // Somebody wrote in between: the watch brings it, and with it the next try.
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn lease_period(cluster: Option<&ManagedCluster>) -> Duration {
    let seconds = cluster.and_then(|c| c.spec.lease_duration_seconds).unwrap_or(0);
    match u64::try_from(seconds) {
        Ok(seconds @ 1..) => Duration::from_secs(seconds),
        _ => DEFAULT_LEASE_DURATION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_in_the_last_quarter() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let validity = Validity {
            not_before: at(0),
            not_after: at(1000),
        };
        assert_eq!(renewal(validity, 0.2), at(800));
        assert_eq!(renewal(validity, 0.25), at(750));
    }

    #[test]
    fn lease_period_has_a_default() {
        let mut cluster = ManagedCluster::default();
        for (seconds, expected) in [(None, 60), (Some(0), 60), (Some(-5), 60), (Some(5), 5)] {
            cluster.spec.lease_duration_seconds = seconds;
            assert_eq!(lease_period(Some(&cluster)), Duration::from_secs(expected));
        }
    }
}
