//! Follows the managed cluster's Events from the moment the agent starts, and only while works have anything there. No list
//! of them is kept: a busy cluster has very many.

use super::lineage::Lineage;
use super::seen::Seen;
use super::{REFUSED_FOR, Reporter, WorkEvents};
use crate::work::Backoff;
use crate::work::objects::{self, RequestError};
use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use kube::core::WatchEvent;
use serde::Deserialize;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::watch;

/// A watch is asked for as long as this, in seconds; the server ends it then.
const WATCH_SECONDS: u64 = 290;
/// A watch that should have ended and did not is cut.
const SILENCE: Duration = Duration::from_secs(310);
/// Where only times can tell what is new, clocks may differ by so much.
const SLACK: SignedDuration = SignedDuration::from_secs(10);
const PAGE: u32 = 250;

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    #[serde(default = "Vec::new")]
    items: Vec<Seen>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(rename = "continue", default)]
    token: String,
}

/// How far the events were seen.
struct Position {
    /// Revision to go on from. None: it is not kept by the server any more, or was never known.
    revision: Option<String>,
    /// Up to then nothing was missed.
    until: Timestamp,
}

/// Why following stops for a while.
enum Stop {
    /// The server ended the watch, as it does.
    Ended,
    /// The revision is not kept any more.
    Expired,
    Failed(RequestError),
}

impl From<kube::Error> for Stop {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 410 => Self::Expired,
            other => Self::Failed(RequestError::Kube(Box::new(other))),
        }
    }
}

impl Reporter {
    /// Follows the events for ever, with pauses while there is nothing they could be about.
    pub(super) async fn follow(&self, mut lineage: Lineage) {
        let mut holding = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.holding.subscribe()
        };
        let mut refusal = Refusal::default();
        // Asked for before anything is applied: what happens to it then comes later.
        let mut position = Position {
            revision: self.revision().await.ok(),
            until: Timestamp::now(),
        };
        loop {
            if holding.wait_for(|h| *h).await.is_err() {
                return;
            }
            position.until = position.until.max(self.since);
            tokio::select! {
                () = self.follow_while(&mut lineage, &mut position, &mut refusal) => {}
                idle = until_idle(&mut holding) => if !idle { return },
            }
            position.until = Timestamp::now();
        }
    }

    async fn follow_while(&self, lineage: &mut Lineage, position: &mut Position, refusal: &mut Refusal) {
        let mut backoff = Backoff::default();
        loop {
            let begun = Timestamp::now();
            let stop = match &position.revision {
                Some(revision) => {
                    let revision = revision.clone();
                    self.watch(&revision, lineage, position).await
                }
                None => self.catch_up(lineage, position).await,
            };
            match stop {
                Ok(()) | Err(Stop::Ended) => {
                    refusal.over();
                    // A server that ends every watch at once is not asked without a pause.
                    if Timestamp::now().duration_since(begun) > SignedDuration::from_secs(1) {
                        backoff = Backoff::default();
                    } else if position.revision.is_some() {
                        backoff.wait().await;
                    }
                }
                Err(Stop::Expired) => position.revision = None,
                Err(Stop::Failed(error)) if error.code() == 403 => {
                    refusal.tell(&error);
                    tokio::time::sleep(REFUSED_FOR).await;
                }
                Err(Stop::Failed(error)) => {
                    tracing::debug!(%error, "the cluster's events can not be watched, it goes on");
                    backoff.wait().await;
                }
            }
        }
    }

    fn path(&self, query: &str) -> String {
        let only = match self.which {
            WorkEvents::Warning => "&fieldSelector=type%3DWarning",
            _ => "",
        };
        format!("/api/v1/events?{query}{only}")
    }

    /// The revision that the cluster's events are at.
    async fn revision(&self) -> Result<String, RequestError> {
        self.list(1, "").await.map(|list| list.metadata.resource_version)
    }

    async fn list(&self, limit: u32, token: &str) -> Result<List, RequestError> {
        let mut query = format!("limit={limit}");
        if !token.is_empty() {
            query.push_str("&continue=");
            query.push_str(&objects::escaped(token, b""));
        }
        let request = http::Request::get(self.path(&query))
            .body(Vec::new())
            .map_err(RequestError::Build)?;
        let answer = tokio::time::timeout(objects::REQUEST_TIMEOUT, self.spoke.request(request)).await;
        answer
            .map_err(|_| RequestError::Timeout)?
            .map_err(|e| RequestError::Kube(Box::new(e)))
    }

    /// Reads all events page by page, where the watch lost its place; by their times, those that were missed.
    async fn catch_up(&self, lineage: &mut Lineage, position: &mut Position) -> Result<(), Stop> {
        let since = position.until - SLACK;
        let begun = Timestamp::now();
        let mut token = String::new();
        loop {
            let list = self.list(PAGE, &token).await.map_err(Stop::Failed)?;
            for seen in list.items.iter().filter(|seen| seen.last() >= since) {
                self.noticed(lineage, seen).await;
            }
            token = list.metadata.token;
            if token.is_empty() {
                position.revision = Some(list.metadata.resource_version);
                position.until = begun;
                return Ok(());
            }
        }
    }

    async fn watch(
        &self,
        revision: &str,
        lineage: &mut Lineage,
        position: &mut Position,
    ) -> Result<(), Stop> {
        let query = format!(
            "watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={revision}"
        );
        let request = http::Request::get(self.path(&query))
            .body(Vec::new())
            .map_err(|e| Stop::Failed(RequestError::Build(e)))?;
        let timeout = |_| Stop::Failed(RequestError::Timeout);
        let opened = tokio::time::timeout(
            objects::REQUEST_TIMEOUT,
            self.spoke.request_events::<Seen>(request),
        );
        let mut events = std::pin::pin!(opened.await.map_err(timeout)??);
        loop {
            let next = tokio::time::timeout(SILENCE, events.try_next()).await;
            let event = match next.map_err(timeout)? {
                Ok(Some(event)) => event,
                Ok(None) => return Err(Stop::Ended),
                Err(kube::Error::SerdeError(error)) => {
                    tracing::debug!(%error, "an event of the cluster can not be read");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            position.until = Timestamp::now();
            match event {
                WatchEvent::Added(seen) | WatchEvent::Modified(seen) => {
                    position.revision = Some(seen.metadata.resource_version.clone());
                    self.noticed(lineage, &seen).await;
                }
                WatchEvent::Deleted(seen) => position.revision = Some(seen.metadata.resource_version),
                WatchEvent::Bookmark(mark) => position.revision = Some(mark.metadata.resource_version),
                WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
            }
        }
    }
}

/// Waits until nothing is applied any more. False when nobody will ever tell.
async fn until_idle(holding: &mut watch::Receiver<bool>) -> bool {
    holding.wait_for(|h| !*h).await.is_ok()
}

/// A refusal is told once, until it is over.
#[derive(Default)]
struct Refusal {
    told: bool,
}

impl Refusal {
    fn tell(&mut self, error: &RequestError) {
        if !self.told {
            tracing::warn!(
                %error,
                "the events of this cluster can not be watched, so none are told at the hub: let the agent list and watch events, or start it with --work-events=None"
            );
        }
        self.told = true;
    }

    fn over(&mut self) {
        self.told = false;
    }
}
