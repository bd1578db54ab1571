//! The work agent: watches the hub's works and the cluster's AppliedManifestWorks, and reconciles each work in a few
//! concurrent workers. A reconcile looks only at manifests that changed or whose object did.
//!
//! `follow` keeps what is known current, `reconcile` brings one work about, `memory` decides what of it must be looked
//! at, `report` tells the hub, `finalize` takes a work away, `evict` what a vanished work left, `hold` what is in doubt;
//! `rehearse` answers what applying would change, `rights` follows what executors may do.

mod evict;
mod finalize;
mod follow;
mod hold;
mod memory;
pub mod progress;
mod reconcile;
mod rehearse;
mod report;
mod rights;

use super::apply::Applier;
use super::events::{Reporter, WorkEvents};
use super::objects::RequestError;
use super::pace::Pace;
use super::queue::Queue;
use super::state::State;
use super::watches::Watches;
use crate::limits::Server;
use crate::metrics::{Counts, Figures};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kube::Client;
use muster_crds::conditions::find;
use muster_crds::constants::conditions;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How the agent runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the managed cluster: the namespace of its works on the hub.
    pub cluster: String,
    /// SHA-256 of the hub's URL (wire §3.1).
    pub hub_hash: String,
    /// Recorded in AppliedManifestWorks; defaults to the hub hash.
    pub agent_id: String,
    /// Works reconciled at the same time.
    pub workers: usize,
    /// How long what a vanished work applied is kept.
    pub eviction_grace: Duration,
    /// How long raw JSON may be in feedback; `None` without the gate RawFeedbackJsonString.
    pub raw_feedback: Option<usize>,
    /// Whether what an executor stands for is written as the executor itself.
    pub impersonate_executor: bool,
    /// Where it counts what it does.
    pub counts: Arc<Counts>,
    /// Whether what executors may do is remembered, and followed.
    pub remember_rights: bool,
    /// The agent's name at the hub, for the Events it writes there.
    pub agent_name: String,
    /// Which of the cluster's Events are told at the hub.
    pub events: WorkEvents,
}

/// A reconcile that takes longer does not keep its worker from others.
const LONG: Duration = Duration::from_secs(1);

/// Objects of one kind rank applied at the same time.
const OBJECTS_AT_ONCE: usize = 16;

/// A work whose objects change all the time is looked at so often, and no more: others want to be looked at too.
const WORK_PACE: Pace = Pace {
    burst: 100.0,
    per_second: 20.0,
};
/// A status that changes all the time is written so often, and no more.
pub const STATUS_PACE: Pace = Pace {
    burst: 50.0,
    per_second: 5.0,
};

/// What is reconciled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// A work by name.
    Work(String),
    /// An AppliedManifestWork by name.
    Applied(String),
}

/// Why a reconcile must come again.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error("the hub: {0}")]
    Hub(#[source] RequestError),
    #[error("the managed cluster: {0}")]
    Spoke(#[source] RequestError),
    #[error("{0}")]
    NotYet(String),
}

/// The agent. [`Agent::run`] drives it.
pub struct Agent {
    hub: Server,
    spoke: Server,
    settings: Settings,
    state: Arc<Mutex<State>>,
    applier: Applier,
    queue: Queue<Key>,
    statuses: Queue<String>,
    rehearsals: Queue<String>,
    recheck: Queue<String>,
    events: Mutex<Option<tokio::sync::mpsc::UnboundedReceiver<String>>>,
    saved: super::saved::Saved,
    ready: tokio::sync::Notify,
    kind_missing: tokio::sync::Notify,
    look_again: tokio::sync::Notify,
    evictions: tokio::sync::Notify,
    kept: tokio::sync::watch::Sender<Option<muster_crds::conditions::NewCondition>>,
}

impl Agent {
    /// An agent that has not started. `namespace` is the agent's own on the managed cluster, for what it saves.
    pub fn new(hub: Client, spoke: Client, namespace: &str, settings: Settings) -> Arc<Self> {
        let (hub, spoke) = (Server::new("hub", hub), Server::new("managed cluster", spoke));
        let state = Arc::new(Mutex::new(State::default()));
        let (notify, events) = tokio::sync::mpsc::unbounded_channel();
        let watches = Watches::new(spoke.client(), state.clone(), notify);
        let applier = Applier::new(
            spoke.clone(),
            watches,
            state.clone(),
            settings.raw_feedback,
            settings.impersonate_executor,
            settings.counts.repairs.clone(),
        );
        let saved = super::saved::Saved::new(spoke.clone(), namespace, &settings.hub_hash);
        Arc::new(Self {
            hub,
            spoke,
            settings,
            state,
            applier,
            queue: Queue::paced(WORK_PACE),
            statuses: Queue::paced(STATUS_PACE),
            rehearsals: Queue::paced(STATUS_PACE),
            recheck: Queue::default(),
            events: Mutex::new(Some(events)),
            saved,
            ready: tokio::sync::Notify::new(),
            kind_missing: tokio::sync::Notify::new(),
            look_again: tokio::sync::Notify::new(),
            evictions: tokio::sync::Notify::new(),
            kept: tokio::sync::watch::Sender::new(None),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How things are.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures {
            watches: self.applier.watches.count(),
            ..Figures::default()
        };
        (figures.queued, figures.failing) = self.queue.figures();
        let state = self.state();
        figures.records = state.applied.len();
        for work in state.works.values() {
            let applied = find(&work.status.conditions, conditions::APPLIED);
            let status = applied.map_or("Absent", |condition| condition.status.as_str());
            *figures.works.entry(status.to_owned()).or_default() += 1;
        }
        figures
    }

    /// The hub has just accepted the cluster: what it refused a moment ago is worth asking for again.
    pub fn hub_is_ready(&self) {
        self.ready.notify_one();
    }

    /// Runs until it is cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tasks = tokio::task::JoinSet::new();
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut events) = events {
            let agent = self.clone();
            tasks.spawn(async move {
                while let Some(work) = events.recv().await {
                    agent.queue.forget(&Key::Work(work.clone()));
                    agent.queue.add(Key::Work(work));
                }
            });
        }
        tasks.spawn(self.clone().follow_applied());
        tasks.spawn(self.clone().follow_works());
        tasks.spawn(self.clone().follow_kinds());
        tasks.spawn(self.reporter().run());
        for _ in 0..self.settings.workers.max(1) {
            tasks.spawn(self.clone().work());
            tasks.spawn(self.clone().report());
        }
        let agent = self.clone();
        tasks.spawn(async move { agent.saved.keep(&agent.state).await });
        tasks.spawn(self.clone().rehearse());
        if self.settings.remember_rights {
            tasks.spawn(self.clone().follow_rights());
            tasks.spawn(self.clone().recheck());
        }
        let agent = self.clone();
        tasks.spawn(async move { agent.sum_up_kept().await });
        stop.cancelled().await;
        tasks.shutdown().await;
    }

    fn reporter(&self) -> Reporter {
        Reporter::new(
            self.settings.events,
            self.spoke.client(),
            self.hub.client(),
            (&self.settings.cluster, &self.settings.agent_name),
            self.state.clone(),
            self.applier.mapper.clone(),
        )
    }

    /// Brings about what comes, one after the other. What takes long is looked after beside the next: a webhook that does not
    /// answer must not hold up other works.
    async fn work(self: Arc<Self>) {
        let mut slow = FuturesUnordered::new();
        loop {
            let key = tokio::select! {
                key = self.queue.next() => key,
                Some(()) = slow.next() => continue,
            };
            let mut going = Box::pin(self.handle(key));
            let long = tokio::time::sleep(LONG);
            tokio::pin!(long);
            let ended = loop {
                tokio::select! {
                    biased;
                    () = &mut going => break true,
                    () = &mut long => break false,
                    Some(()) = slow.next() => {}
                }
            };
            if !ended {
                slow.push(going);
            }
        }
    }

    async fn handle(&self, key: Key) {
        let result = match &key {
            Key::Work(name) => self.reconcile_work(name).await,
            Key::Applied(name) => self.reconcile_applied(name).await,
        };
        match result {
            Ok(None) => self.queue.done(&key),
            Ok(Some(after)) => {
                self.queue.done(&key);
                self.queue.add_after(key, after);
            }
            Err(error) => {
                let delay = self.queue.failed(&key);
                tracing::debug!(?key, %error, ?delay, "reconcile comes again");
            }
        }
    }
}
