//! What runs for one hub: lease, status, certificate rotation, and the work agent. It outlives its credentials: when they are
//! renewed, refused or expired, it goes on with what it knows, and takes up the new ones in place.

use super::facts::Facts;
use super::hub_client::HubClient;
use super::namespaces::{self, Namespaces};
use super::rights::Rights;
use super::rotation::{self, Holding};
use super::seen::Seen;
use super::standing::{self, Standing};
use super::{Context, kept, lease};
use crate::gates::Gate;
use crate::work;
use kube::Client;
use muster_crds::cluster::v1::ManagedCluster;
use muster_crds::conditions::{NewCondition, find, is_true};
use muster_crds::constants::conditions as types;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Who and where the agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Cluster name at the hub.
    pub cluster: String,
    /// Agent name.
    pub agent: String,
}

/// What a session has to tell.
#[derive(Debug)]
pub enum News {
    /// The certificate ran out: only bootstrapping helps.
    Expired,
    /// The certificate was renewed and is in use.
    Renewed(Box<super::credentials::Credentials>),
    /// The hub took a renewal of the lease.
    Heard,
    /// The hub does not let the agent see its ManagedCluster, for a while already.
    Shut,
    /// The hub has just been asked for something regular, with whatever answer.
    Pulse,
    /// The hub denied the cluster, or has not been reached for too long. Only with several hubs.
    Lost(String),
}

/// A running session.
pub struct Session {
    shared: Arc<Shared>,
    ended: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// What the parts of a session share.
pub struct Shared {
    /// The managed cluster, options, and so on.
    pub context: Arc<Context>,
    /// The hub, always with the present credentials.
    pub hub: Client,
    /// Where those are exchanged.
    pub exchange: HubClient,
    /// Who the agent is.
    pub identity: Identity,
    /// The hub's URL.
    pub url: String,
    /// The credentials in use.
    pub holding: watch::Sender<Holding>,
    /// The ManagedCluster as last seen.
    pub cluster: watch::Sender<Option<Arc<ManagedCluster>>>,
    /// When the hub last took a lease renewal; before that, when the session began.
    pub heard: watch::Sender<Instant>,
    /// Since when it is seen that the hub misses the cluster.
    pub missed: watch::Sender<Option<Instant>>,
    /// How the cluster stands at the hub.
    pub seen: watch::Sender<Seen>,
    /// The status should be looked at.
    pub refresh: tokio::sync::Notify,
    /// Managed namespaces.
    pub namespaces: Namespaces,
    /// Whose the cluster's name is.
    pub standing: watch::Sender<Standing>,
    /// What the work agent keeps on the cluster without the hub saying so.
    pub kept: watch::Sender<Option<NewCondition>>,
    /// What the managed cluster says of itself.
    pub facts: Arc<Facts>,
    news: mpsc::UnboundedSender<News>,
}

impl Session {
    /// Begins to work for a hub.
    pub fn start(
        context: Arc<Context>,
        identity: Identity,
        holding: Holding,
        client: Client,
        rights: Option<Rights>,
        news: mpsc::UnboundedSender<News>,
    ) -> Self {
        context.trouble.anew();
        let (exchange, held) = match rights {
            None => (HubClient::new(client, context.clock.clone()), None),
            Some(rights) => {
                let (exchange, open) = HubClient::held(client, context.clock.clone());
                (exchange, Some((rights, open)))
            }
        };
        let shared = Arc::new(Shared {
            hub: exchange.client(),
            exchange,
            identity,
            url: holding.server.url.clone(),
            holding: watch::channel(holding).0,
            cluster: watch::channel(None).0,
            heard: watch::channel(Instant::now()).0,
            missed: watch::channel(None).0,
            seen: watch::channel(Seen::default()).0,
            refresh: tokio::sync::Notify::new(),
            namespaces: Namespaces::default(),
            standing: watch::channel(Standing::Unknown).0,
            kept: watch::channel(None).0,
            facts: Arc::default(),
            context,
            news,
        });
        let ended = CancellationToken::new();
        if let Some((rights, open)) = held {
            let shared = Arc::downgrade(&shared);
            tokio::spawn(async move {
                // What is known is not asked for once more before anything is told.
                if let (Some(cluster), Some(shared)) = (rights.there().await, shared.upgrade()) {
                    shared.saw(cluster);
                }
                open.send_replace(true);
            });
        }
        let task = tokio::spawn(run(shared.clone(), ended.clone()));
        Self { shared, ended, task }
    }

    /// Whether it is for this agent at this hub.
    pub fn is_for(&self, identity: &Identity, url: &str) -> bool {
        self.shared.identity == *identity && self.shared.url == url
    }

    /// Whether it uses these credentials already.
    pub fn holds(&self, holding: &Holding) -> bool {
        let held = self.shared.holding.borrow();
        (&held.server, held.validity) == (&holding.server, holding.validity)
    }

    /// Takes up other credentials of the same agent at the same hub.
    pub fn take_up(&self, holding: Holding, client: Client) {
        self.shared.exchange.exchange(client);
        self.shared.holding.send_replace(holding);
        self.shared.refresh.notify_one();
    }

    /// The hub's client.
    pub fn hub(&self) -> HubClient {
        self.shared.exchange.clone()
    }

    /// Ends it. What it applied stays.
    pub async fn end(self) {
        self.ended.cancel();
        let _ = self.task.await;
    }
}

async fn run(shared: Arc<Shared>, ended: CancellationToken) {
    let context = &shared.context;
    let spoke = &context.spoke.client;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(shared.facts.clone().follow_nodes(spoke.clone()));
    if context.gates.on(Gate::ClusterClaim) {
        tasks.spawn(shared.facts.clone().follow_claims(spoke.clone()));
    }
    if context.gates.on(Gate::ClusterProperty) {
        tasks.spawn(shared.facts.clone().follow_properties(spoke.clone()));
    }
    tasks.spawn(shared.clone().follow_cluster());
    tasks.spawn(lease::keep(shared.clone()));
    tasks.spawn(shared.clone().keep_status());
    tasks.spawn(rotation::rotate(shared.clone()));
    tasks.spawn(namespaces::keep(shared.clone()));
    tasks.spawn(shared.clone().introduce());
    tasks.spawn(shared.clone().tell_of_waiting());
    if context.gates.on(Gate::MultipleHubs) {
        tasks.spawn(shared.clone().miss_hub());
    }
    let mut standing = shared.standing.subscribe();
    let taken = |s: &Standing| matches!(s, Standing::Taken(_));
    while !ended.is_cancelled() {
        tokio::select! {
            () = ended.cancelled() => break,
            free = standing.wait_for(|s| !taken(s)) => if free.is_err() { break },
        }
        // In another's name nothing is worked for; what this cluster applied in its own stays.
        let working = ended.child_token();
        let lost = working.clone();
        let mut standing = shared.standing.subscribe();
        tokio::join!(work_for(&shared, working), async {
            tokio::select! {
                () = lost.cancelled() => {}
                _ = standing.wait_for(taken) => lost.cancel(),
            }
        });
    }
    tasks.shutdown().await;
}

/// Works for the hub until `stop`.
async fn work_for(shared: &Arc<Shared>, stop: CancellationToken) {
    let context = &shared.context;
    let options = &context.options;
    let hash = work::hub_hash(&shared.url);
    let agent_id = options.agent_id.clone().or_else(|| context.agent_id.clone());
    let work = work::Agent::new(
        standing::guarded(&shared.exchange, &shared.standing),
        context.spoke.client.clone(),
        &options.namespace,
        work::Settings {
            cluster: shared.identity.cluster.clone(),
            agent_id: agent_id.unwrap_or_else(|| hash.clone()),
            hub_hash: hash,
            workers: options.workload_agent_workers,
            eviction_grace: options.appliedmanifestwork_eviction_grace_period,
            raw_feedback: context
                .gates
                .on(Gate::RawFeedbackJsonString)
                .then_some(options.max_json_raw_length),
            impersonate_executor: context.gates.on(Gate::ExecutorImpersonation),
            counts: context.metrics.counts(),
            remember_rights: context.gates.on(Gate::ExecutorValidatingCaches),
            agent_name: shared.identity.agent.clone(),
            events: options.work_events,
        },
    );
    context.metrics.follow(&shared.holding, &work);
    // The hub allows works to be seen only once it accepted the cluster: no need to wait out a back-off then.
    let mut cluster = shared.cluster.subscribe();
    let accepted = async {
        let accepted = |c: &Option<Arc<ManagedCluster>>| c.as_ref().is_some_and(|c| is_accepted(c));
        if cluster.wait_for(accepted).await.is_ok() {
            work.hub_is_ready();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = work.clone().run(stop) => {}
        () = accepted => {}
        () = kept::compare(shared.clone(), work.clone()) => {}
    }
}

/// Whether the hub lets the cluster in.
pub fn is_accepted(cluster: &ManagedCluster) -> bool {
    cluster
        .status
        .as_ref()
        .is_some_and(|s| is_true(&s.conditions, types::HUB_ACCEPTED))
}

/// Whether the hub has let the cluster in and no longer does. One that was never let in is only waiting.
pub fn is_denied(cluster: &ManagedCluster) -> bool {
    let conditions = cluster.status.as_ref().map_or(&[][..], |s| &s.conditions);
    !cluster.spec.hub_accepts_client && find(conditions, types::HUB_ACCEPTED).is_some()
}

impl Shared {
    /// Tells whoever started the session.
    pub fn tell(&self, news: News) {
        // Nobody listens any more only when the program ends.
        let _ = self.news.send(news);
    }

    /// The ManagedCluster as last seen.
    pub fn current(&self) -> Option<Arc<ManagedCluster>> {
        self.cluster.borrow().clone()
    }

    /// Tells when the hub denies the cluster or is not heard of for too long (wire §2.8).
    async fn miss_hub(self: Arc<Self>) {
        let timeout = Duration::from_secs(self.context.options.hub_connection_timeout_seconds);
        let mut cluster = self.cluster.subscribe();
        let mut heard = self.heard.subscribe();
        let mut told = Instant::now();
        loop {
            let denied = cluster.borrow_and_update().as_ref().is_some_and(|c| is_denied(c));
            if denied {
                self.tell(News::Lost("the hub denied this cluster".into()));
            }
            // A hub that was not even asked in the meantime is not silent.
            let shortest = lease::period(cluster.borrow().as_deref()) * 2;
            let silent_at = (*heard.borrow_and_update()).max(told) + timeout.max(shortest);
            tokio::select! {
                () = tokio::time::sleep_until(silent_at) => {
                    told = Instant::now();
                    self.tell(News::Lost(format!("the hub took no lease renewal for {} s", timeout.max(shortest).as_secs())));
                }
                changed = cluster.changed() => if changed.is_err() { return },
                changed = heard.changed() => if changed.is_err() { return },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_who_was_let_in_can_be_denied() {
        let cluster = |accepts: bool, condition: Option<&str>| -> ManagedCluster {
            let conditions: Vec<_> = condition
                .iter()
                .map(|status| {
                    json!({"type": types::HUB_ACCEPTED, "status": status, "reason": "R", "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"})
                })
                .collect();
            serde_json::from_value(json!({"apiVersion": "cluster.open-cluster-management.io/v1",
                "kind": "ManagedCluster", "metadata": {"name": "c"}, "spec": {"hubAcceptsClient": accepts},
                "status": {"conditions": conditions}}))
            .unwrap()
        };
        for (accepts, condition, expected) in [
            (false, None, false),
            (true, None, false),
            (true, Some("True"), false),
            (false, Some("True"), true),
            (false, Some("False"), true),
        ] {
            assert_eq!(
                is_denied(&cluster(accepts, condition)),
                expected,
                "{accepts} {condition:?}"
            );
        }
    }
}
