//! Events of the managed cluster about what works applied, and about what that owns, told at the hub as Events of the work.
//!
//! `follow` watches the cluster's Events while there is anything applied; `lineage` finds the works of an event's object;
//! `ledger` decides what is told and when; `tell` puts it into the hub's words. Only what happens while the agent runs is
//! told. Nothing here holds up the works themselves.

mod follow;
mod ledger;
mod lineage;
mod recent;
mod seen;
mod tell;

use super::Backoff;
use super::objects::{Mapper, RequestError};
use super::state::State;
use jiff::Timestamp;
use kube::Client;
use ledger::{Ledger, Limits, Next, Note};
use lineage::Lineage;
use seen::Seen;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Which events are told at the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum WorkEvents {
    /// Warnings, and what there is room for of the others
    #[default]
    #[value(name = "All", alias = "all")]
    All,
    /// Warnings only
    #[value(name = "Warning", alias = "warning")]
    Warning,
    /// None: the cluster's events are not even watched
    #[value(name = "None", alias = "none")]
    None,
}

/// After a refusal, the other side is asked again so much later: rights may be given at any time.
const REFUSED_FOR: Duration = Duration::from_secs(300);

/// Tells the hub about events.
pub struct Reporter {
    which: WorkEvents,
    spoke: Client,
    state: Arc<Mutex<State>>,
    mapper: Arc<Mapper>,
    hub: tell::Hub,
    ledger: Mutex<Ledger>,
    news: Notify,
    since: Timestamp,
}

impl Reporter {
    /// One that has not begun. `agent` is its name at the hub, `cluster` its namespace there.
    pub fn new(
        which: WorkEvents,
        spoke: Client,
        hub: Client,
        (cluster, agent): (&str, &str),
        state: Arc<Mutex<State>>,
        mapper: Arc<Mapper>,
    ) -> Self {
        Self {
            which,
            spoke,
            state,
            mapper,
            hub: tell::Hub {
                client: hub,
                cluster: cluster.to_owned(),
                agent: agent.to_owned(),
            },
            ledger: Mutex::new(Ledger::new(Limits::default())),
            news: Notify::new(),
            since: Timestamp::now(),
        }
    }

    /// Runs for ever.
    pub async fn run(self) {
        if self.which == WorkEvents::None {
            return;
        }
        let lineage = Lineage::new(self.spoke.clone(), self.mapper.clone());
        tokio::join!(self.follow(lineage), self.tell());
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened on the managed cluster.
    async fn noticed(&self, lineage: &mut Lineage, seen: &Seen) {
        let works = lineage.works(&self.state, &seen.subject, seen.is_warning()).await;
        for (work, uid) in &works {
            let told = self
                .ledger()
                .record(Instant::now(), self.since, (work, uid), seen);
            if told {
                self.news.notify_one();
            }
        }
    }

    /// Tells one after the other, as fast as the ledger allows.
    async fn tell(&self) {
        let mut backoff = Backoff::default();
        let mut refused = false;
        loop {
            let (next, left_out) = {
                let mut ledger = self.ledger();
                (ledger.next(Instant::now()), ledger.take_left_out())
            };
            if left_out > 0 {
                tracing::debug!(left_out, "more events than are told at the hub");
            }
            let note = match next {
                Next::Tell(note) => *note,
                Next::Wait(wait) => {
                    tokio::select! { () = tokio::time::sleep(wait) => {}, () = self.news.notified() => {} }
                    continue;
                }
                Next::Idle => {
                    self.news.notified().await;
                    continue;
                }
            };
            if !self.is_wanted(&note) {
                continue;
            }
            match self.tell_one(&note).await {
                Ok(()) => {
                    backoff = Backoff::default();
                    refused = false;
                }
                Err(error) if matches!(error.code(), 400 | 413 | 422) => {
                    tracing::debug!(work = note.work, %error, "the hub does not take an event like this");
                }
                Err(error) => {
                    self.ledger().give_back(note);
                    if error.code() == 403 {
                        if !refused {
                            tracing::warn!(%error, "the hub does not let this agent write Events, so none are told there; it is tried again later");
                        }
                        refused = true;
                        tokio::time::sleep(REFUSED_FOR).await;
                    } else {
                        tracing::debug!(%error, "an event was not told, it is tried again");
                        backoff.wait().await;
                    }
                }
            }
        }
    }

    /// A work that is gone needs no events any more.
    fn is_wanted(&self, note: &Note) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .works
            .get(&note.work)
            .is_some_and(|known| known.work.metadata.uid.as_deref().unwrap_or_default() == note.work_uid)
    }

    async fn tell_one(&self, note: &Note) -> Result<(), RequestError> {
        if note.known {
            match self.hub.update(note).await {
                // Events expire.
                Err(error) if error.is_not_found() => self.ledger().forget(note.id),
                answer => return answer,
            }
        }
        match self.hub.create(note).await {
            Err(error) if error.already_exists() => {}
            answer => {
                answer?;
                self.ledger().told(note.id);
                return Ok(());
            }
        }
        // An earlier run of the agent told it: that is gone on with.
        let there = self.hub.look(note).await?;
        let count = self.ledger().learn(note, there.count, there.first);
        if there.last.is_some_and(|last| last >= note.last) {
            return Ok(());
        }
        let note = Note {
            count,
            ..note.clone()
        };
        self.hub.update(&note).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A server that answers everything with this code.
    fn server(code: u16) -> (Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            counter.fetch_add(1, Ordering::SeqCst);
            let body = serde_json::json!({"kind": "Status", "status": "Failure", "code": code, "reason": "R", "message": "no"});
            let body = kube::client::Body::from(body.to_string().into_bytes());
            std::future::ready(http::Response::builder().status(code).body(body))
        });
        (Client::new(service, "default"), asked)
    }

    fn reporter(which: WorkEvents, spoke: Client, hub: Client, holds: bool) -> Reporter {
        let state = State::default();
        state.holding.send_replace(holds);
        Reporter::new(
            which,
            spoke,
            hub,
            ("c", "a"),
            Arc::new(Mutex::new(state)),
            Arc::default(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_watched_where_nothing_is_applied_or_told() {
        for (which, holds, expected) in [
            (WorkEvents::None, true, 0..=0),
            // Only where the events are at the start.
            (WorkEvents::All, false, 1..=1),
            // That, and then again every five minutes: it may be allowed by then.
            (WorkEvents::All, true, 12..=14),
        ] {
            let (spoke, asked) = server(403);
            let (hub, told) = server(500);
            let run = reporter(which, spoke, hub, holds).run();
            let _ = tokio::time::timeout(Duration::from_secs(3600), run).await;
            let asked = asked.load(Ordering::SeqCst);
            assert!(expected.contains(&asked), "{which:?} {holds}: {asked}");
            assert_eq!(told.load(Ordering::SeqCst), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_that_refuses_or_fails_is_not_pressed_and_keeps_its_place() {
        for (code, expected) in [(403, 2..=13), (500, 200..=400)] {
            let (spoke, _) = server(403);
            let (hub, told) = server(code);
            let reporter = reporter(WorkEvents::All, spoke, hub, false);
            let work = serde_json::from_value(serde_json::json!({
                "apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
                "metadata": {"name": "w", "uid": "u"}}));
            reporter.state.lock().unwrap().work_applied(work.unwrap());
            let seen: Seen =
                serde_json::from_value(serde_json::json!({"type": "Warning", "reason": "R"})).unwrap();
            let now = Instant::now();
            assert!(
                reporter
                    .ledger()
                    .record(now, Timestamp::UNIX_EPOCH, ("w", "u"), &seen)
            );
            // Of a work that is gone, nothing is told.
            reporter
                .ledger()
                .record(now, Timestamp::UNIX_EPOCH, ("gone", "u"), &seen);
            let _ = tokio::time::timeout(Duration::from_secs(3600), reporter.tell()).await;
            let told = told.load(Ordering::SeqCst);
            assert!(expected.contains(&told), "{code}: {told}");
            let waiting = reporter.ledger().waiting();
            assert!(waiting <= 1, "{code}: {waiting}");
        }
    }
}
