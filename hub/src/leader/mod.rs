//! One hub leads: of several that run against one API server, the one that holds a Lease runs the controllers.
//!
//! [`machine`] decides, [`Election`] does what it says and brings it the news. A hub that waits is told by a watch when
//! the Lease is let go of, and otherwise takes it when it was not renewed for its whole duration, by its own clock.

pub mod machine;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Namespace};
use kube::{
    Api, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event as Watched},
    },
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    writer::{Writer, guarded},
};
use machine::{Action, Event, Record, State, Timing, Write};

/// Name of the Lease.
pub const LEASE: &str = "muster-hub";

/// Who runs for the lead, and how.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Nobody else's name.
    pub identity: String,
    /// Namespace of the Lease.
    pub namespace: String,
    /// How long things take.
    pub timing: Timing,
}

/// One hub's part in the election.
pub struct Election {
    candidate: Candidate,
    writer: Arc<Writer>,
    leads: watch::Sender<bool>,
    failing: AtomicBool,
}

impl Election {
    /// Nothing is asked yet.
    pub fn new(candidate: Candidate, writer: Arc<Writer>) -> Self {
        Self {
            candidate,
            writer,
            leads: watch::Sender::new(false),
            failing: AtomicBool::new(false),
        }
    }

    /// Whether this hub leads, now and later.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Takes part until `stop`; then, when this hub leads, ends that and lets go of the Lease. Whoever acts as leader
    /// must have ended before `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let Candidate { identity, timing, .. } = &self.candidate;
        let config = watcher::Config::default().fields(&format!("metadata.name={LEASE}"));
        let mut events = watcher::watcher(self.api(), config).default_backoff().boxed();
        let mut listed = None;
        let mut state = State::Starting;
        let mut writing: Option<BoxFuture<'_, Event>> = None;
        let mut followed = String::new();
        loop {
            let wake = state.wake(timing);
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => Event::Time,
                event = written(&mut writing), if writing.is_some() => event,
                seen = events.next() => match seen {
                    Some(seen) => match news(seen, &mut listed) {
                        Some(event) => event,
                        None => continue,
                    },
                    None => break,
                },
            };
            let led = state.leads();
            let (next, action) = state.step(event, Instant::now(), identity, timing);
            state = next;
            if led != state.leads() {
                self.tell(&state, identity);
            }
            if let Some(other) = state
                .follows()
                .filter(|other| *other != identity && *other != followed)
            {
                tracing::info!(leader = other, lease = LEASE, "another hub leads; this one waits");
                other.clone_into(&mut followed);
            }
            if !state.waits() {
                writing = None;
            }
            match action {
                Action::None => {}
                Action::Write(write) => writing = Some(Box::pin(self.write(write))),
            }
        }
        // A renewal under way changes the Lease: what is let go of must be that.
        if let Some(writing) = writing
            && let Ok(event) = tokio::time::timeout(timing.retry, writing).await
        {
            state = state.step(event, Instant::now(), identity, timing).0;
        }
        if let State::Leading { record, .. } = &state {
            self.leads.send_replace(false);
            self.release(record).await;
        }
    }

    fn tell(&self, state: &State, identity: &str) {
        let leads = state.leads();
        if leads {
            tracing::info!(identity, lease = LEASE, "this hub leads");
        } else {
            tracing::warn!(
                identity,
                lease = LEASE,
                "this hub leads no more; its controllers end"
            );
        }
        self.leads.send_replace(leads);
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.writer.client(), &self.candidate.namespace)
    }

    /// Takes or renews the Lease.
    async fn write(&self, write: Write) -> Event {
        let asked = Instant::now();
        let limit = self.candidate.timing.renew;
        match tokio::time::timeout(limit, self.put(&write)).await {
            Ok(Ok(lease)) => {
                self.failing.store(false, Ordering::Relaxed);
                Event::Wrote {
                    record: record(&lease),
                    asked,
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the Lease is not written");
                let others = error.is_conflict() || error.is_no_room();
                // The first failure is worth a line; the rest of an outage is not.
                if !others && !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, lease = LEASE, "cannot take part in the election of a leader; trying again");
                }
                Event::Failed
            }
            Err(_) => Event::Failed,
        }
    }

    async fn put(&self, write: &Write) -> Result<Lease, Error> {
        let Candidate {
            identity,
            namespace,
            timing,
        } = &self.candidate;
        let now = format!("{:.6}", Timestamp::now());
        let mut spec = json!({
            "holderIdentity": identity,
            "leaseDurationSeconds": timing.lease.as_secs().max(1),
            "renewTime": now,
        });
        let subject = format!("Lease {namespace}/{LEASE}");
        match write {
            Write::Create => {
                spec["acquireTime"] = json!(now);
                spec["leaseTransitions"] = json!(0);
                let body = json!({"metadata": {"name": LEASE, "namespace": namespace}, "spec": spec});
                let lease: Lease = parse(body, &subject)?;
                let created = self.writer.create(&self.api(), &lease, &subject).await;
                match created {
                    Err(error) if error.status().is_some_and(|status| status.code == 404) => {
                        self.make_namespace().await?;
                        self.writer.create(&self.api(), &lease, &subject).await
                    }
                    created => created,
                }
            }
            Write::Take(record) => {
                spec["acquireTime"] = json!(now);
                spec["leaseTransitions"] = json!(record.transitions.saturating_add(1));
                self.patch(record, spec, &subject).await
            }
            Write::Renew(record) => self.patch(record, spec, &subject).await,
        }
    }

    async fn patch(&self, record: &Record, spec: Value, subject: &str) -> Result<Lease, Error> {
        let patch = guarded(json!({"spec": spec}), &record.uid, Some(&record.version));
        self.writer.patch(&self.api(), LEASE, None, &patch, subject).await
    }

    /// A hub that is tried somewhere has no namespace of its own yet.
    async fn make_namespace(&self) -> Result<(), Error> {
        let name = &self.candidate.namespace;
        let subject = format!("Namespace {name}");
        let namespace: Namespace = parse(json!({"metadata": {"name": name}}), &subject)?;
        let api = Api::all(self.writer.client());
        match self.writer.create(&api, &namespace, &subject).await {
            Err(error) if !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// So that another need not wait until the Lease runs out.
    async fn release(&self, record: &Record) {
        let spec = json!({
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "renewTime": format!("{:.6}", Timestamp::now()),
        });
        let subject = format!("Lease {}/{LEASE}", self.candidate.namespace);
        let release = self.patch(record, spec, &subject);
        match tokio::time::timeout(self.candidate.timing.retry, release).await {
            Ok(Ok(_)) => tracing::info!(lease = LEASE, "let go of the lead"),
            Ok(Err(error)) => tracing::warn!(%error, "another hub leads only when the Lease has run out"),
            Err(_) => tracing::warn!("another hub leads only when the Lease has run out: no answer"),
        }
    }
}

fn parse<K: serde::de::DeserializeOwned>(body: Value, subject: &str) -> Result<K, Error> {
    serde_json::from_value(body)
        .map_err(|error| Error::request(format!("make {subject}"))(kube::Error::SerdeError(error)))
}

async fn written<T>(writing: &mut Option<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> T {
    match writing {
        Some(future) => {
            let done = future.await;
            *writing = None;
            done
        }
        None => std::future::pending().await,
    }
}

/// What a watch says of the one Lease.
fn news(seen: Result<Watched<Lease>, watcher::Error>, listed: &mut Option<Record>) -> Option<Event> {
    match seen {
        Err(error) => {
            tracing::debug!(error = %crate::error::innermost(&error), "cannot watch the Lease; trying again");
            // Without its namespace there is no Lease; without the right to see it, taking it says so.
            matches!(error, watcher::Error::InitialListFailed(_)).then_some(Event::Unseen)
        }
        Ok(Watched::Init) => {
            *listed = None;
            None
        }
        Ok(Watched::InitApply(lease)) => {
            *listed = Some(record(&lease));
            None
        }
        Ok(Watched::InitDone) => Some(Event::Seen(listed.take())),
        Ok(Watched::Apply(lease)) => Some(Event::Seen(Some(record(&lease)))),
        Ok(Watched::Delete(_)) => Some(Event::Seen(None)),
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
    Record {
        uid: lease.uid().unwrap_or_default(),
        version: lease.resource_version().unwrap_or_default(),
        holder: spec
            .and_then(|spec| spec.holder_identity.clone())
            .unwrap_or_default(),
        duration: Duration::from_secs(seconds.max(0).unsigned_abs().into()),
        transitions: spec.and_then(|spec| spec.lease_transitions).unwrap_or(0),
    }
}
