//! WATCH: the store's log, filtered and shaped for one client. Watchers that want everything as stored share one frame.

use super::negotiate::{Format, STREAMS, Shape};
use super::params::{ListOptions, parse_revision};
use super::read::{Filter, View, find, namespace_of, reach};
use super::respond::{self, Body};
use super::served::{Now, Served};
use super::service::attributes;
use super::{Api, COMPACTED, Call, key, too_large};
use crate::ApiError;
use crate::auth::{Attributes, Authorizer, UserInfo};
use crate::object;
use crate::registry::convert;
use crate::store::{Entry, Event, StoreError, Watch};
use bytes::Bytes;
use futures::StreamExt;
use http::Response;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often an idle watch is told how far it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Least time a watch without `timeoutSeconds` lives; up to as much again is added, so that they do not end together.
const LIFETIME: u64 = 1800;
/// Marks the bookmark that ends the initial state (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

struct Watcher {
    view: View,
    filter: Filter,
    plain: bool,
    /// The initial state, made into events one by one: a thousand watches that begin together must not each hold a copy.
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// The revision of the initial state, where the client wants to be told when it is over.
    initial_end: Option<u64>,
    /// What comes after it and before the first change.
    queue: VecDeque<Bytes>,
    watch: Option<Watch>,
    /// Changes up to here are not told: the revision the client has, which may be one that has not happened yet.
    after: u64,
    deadline: Instant,
    bookmark: Option<Instant>,
    shutdown: CancellationToken,
    right: Right,
    served: Served,
    columns_sent: bool,
    _counted: super::metrics::Watching,
}

/// The right to go on watching.
struct Right {
    authorizer: Arc<Authorizer>,
    user: UserInfo,
    attributes: Attributes,
    revoked: tokio::sync::watch::Receiver<()>,
}

impl Right {
    fn of(api: &Api, call: &Call<'_>) -> Self {
        Self {
            // Before anything is asked: what is taken away meanwhile is seen.
            revoked: api.authorizer.revoked(),
            authorizer: Arc::clone(&api.authorizer),
            user: call.user.clone(),
            attributes: attributes(call.info, call.query),
        }
    }

    /// Returns when it is gone.
    async fn gone(&mut self) {
        loop {
            if self.revoked.changed().await.is_err() {
                return std::future::pending().await;
            }
            if !self
                .authorizer
                .authorize(&self.user, &self.attributes)
                .is_allowed()
            {
                return;
            }
        }
    }
}

fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 32);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}

fn error_frame(error: &ApiError) -> Bytes {
    frame("ERROR", &respond::to_bytes(&error.status()))
}

/// What a watch that cannot begin after a revision is told.
fn too_old(error: &StoreError, after: u64) -> ApiError {
    match error {
        StoreError::Compacted(oldest) => {
            ApiError::Expired(format!("too old resource version: {after} ({oldest})"))
        }
        other => store_error(other),
    }
}

fn store_error(error: &StoreError) -> ApiError {
    match error {
        StoreError::Compacted(oldest) => {
            ApiError::Expired(format!("{COMPACTED} Oldest kept revision: {oldest}."))
        }
        other => ApiError::Internal(other.to_string()),
    }
}

/// An event's type from whether the object passed the filter before and passes it now.
fn transition(before: bool, now: bool) -> Option<&'static str> {
    match (before, now) {
        (false, false) => None,
        (false, true) => Some("ADDED"),
        (true, true) => Some("MODIFIED"),
        (true, false) => Some("DELETED"),
    }
}

impl Watcher {
    /// Whether objects can not be shown as asked for: none is a list. kube-apiserver notices with the first, and ends.
    fn is_stuck(&self) -> bool {
        self.view.accept.shape == Shape::PartialList
    }

    /// The object of one event in the shape asked for. Only the first Table of a watch describes its columns.
    fn shaped(&mut self, json: &Bytes, revision: u64) -> Bytes {
        let bytes = self.view.object(json, revision);
        if self.view.accept.shape != Shape::Table {
            return bytes;
        }
        if !self.columns_sent {
            self.columns_sent = true;
            return bytes;
        }
        let mut table: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if let Some(map) = table.as_object_mut() {
            map.insert("columnDefinitions".into(), Value::Null);
        }
        respond::to_bytes(&table)
    }

    fn event(&mut self, event: &Event) -> Option<Bytes> {
        let everything = self.filter.is_empty();
        let now = !event.deleted && (everything || self.filter.matches(&event.entry));
        let before = match &event.prev {
            Some(prev) => everything || self.filter.matches(prev),
            None => event.deleted && (everything || self.filter.matches(&event.entry)),
        };
        let kind = transition(before, now)?;
        let as_stored = match kind {
            "ADDED" => event.prev.is_none(),
            "DELETED" => event.deleted,
            _ => true,
        };
        // What is deleted was last written at some revision before.
        let written = match &event.prev {
            Some(prev) if event.deleted => prev.revision,
            _ => event.entry.revision,
        };
        if as_stored && self.plain && self.view.is_as_stored(written) {
            return Some(event.frame());
        }
        let json = match &event.prev {
            // It left the selection: what left is the object as it was, at the revision it left.
            Some(prev) if kind == "DELETED" && !event.deleted => {
                let mut old = convert::refreshed(&self.view.resource, prev.value());
                object::set_meta(
                    &mut old,
                    "resourceVersion",
                    Some(event.revision.to_string().into()),
                );
                respond::to_bytes(&old)
            }
            _ => event.entry.json.clone(),
        };
        let object = self.shaped(&json, written);
        Some(frame(kind, &object))
    }

    fn bookmark_frame(&mut self, revision: u64, initial_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
        }
        let r = &self.view.resource;
        let (kind, version) = match self.view.accept.shape {
            Shape::Partial | Shape::PartialList => (
                "PartialObjectMetadata",
                self.view.accept.meta_version().to_owned(),
            ),
            _ => (r.kind.as_str(), r.api_version()),
        };
        let object = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
        let object = respond::to_bytes(&object);
        if self.view.accept.shape == Shape::Table {
            let table = self.shaped(&object, revision);
            return frame("BOOKMARK", &table);
        }
        frame("BOOKMARK", &object)
    }

    /// What is still told when the resource is not what it was: the deletions that came before the definition's own.
    fn last(&mut self) -> Option<Bytes> {
        while self.served.now() == Now::Gone
            && let Some(Ok(event)) = self.watch.as_mut()?.try_next()
        {
            if let Some(bytes) = self.event(&event) {
                return Some(bytes);
            }
        }
        None
    }

    /// The next piece of the answer, `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.served.now() != Now::Same {
                return self.last();
            }
            if let Some(entry) = self.initial.next() {
                if self.is_stuck() {
                    return None;
                }
                let object = self.shaped(&entry.json, entry.revision);
                return Some(frame("ADDED", &object));
            }
            if let Some(revision) = self.initial_end.take() {
                let bytes = self.bookmark_frame(revision, true);
                return Some(bytes);
            }
            if let Some(bytes) = self.queue.pop_front() {
                return Some(bytes);
            }
            let watch = self.watch.as_mut()?;
            let wake = self.bookmark.map_or(self.deadline, |b| b.min(self.deadline));
            let event = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                () = self.right.gone() => return None,
                () = self.served.ended() => continue,
                event = watch.next() => event,
                () = tokio::time::sleep_until(wake) => {
                    if wake == self.deadline {
                        return None;
                    }
                    let revision = watch.revision();
                    self.bookmark = Some(Instant::now() + BOOKMARK_EVERY);
                    if revision < self.after {
                        continue;
                    }
                    let bytes = self.bookmark_frame(revision, false);
                    return Some(bytes);
                }
            };
            match event {
                // Written by another definition: not for this watch.
                Ok(_) if self.served.now() == Now::Other => return None,
                Ok(event) if event.revision <= self.after => {}
                Ok(event) => {
                    if let Some(bytes) = self.event(&event) {
                        return Some(bytes).filter(|_| !self.is_stuck());
                    }
                    if Instant::now() >= self.deadline {
                        return None;
                    }
                }
                Err(e) => {
                    self.watch = None;
                    return Some(error_frame(&store_error(&e)));
                }
            }
        }
    }
}

/// WATCH of a resource.
pub async fn serve(api: &Api, call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let view = View::of(call)?;
    if view.accept.format == Format::Yaml {
        return Err(ApiError::NotAcceptable(STREAMS.to_owned()));
    }
    let mut options = ListOptions::parse(call.query, true)?;
    if !call.info.name.is_empty() {
        // The old `/watch/` paths may name one object; who may watch that one sees no other.
        let comma = if options.field_selector.is_empty() {
            ""
        } else {
            ","
        };
        options.field_selector = format!(
            "{}{comma}metadata.name={}",
            options.field_selector, call.info.name
        );
    }
    let filter = Filter::new(&view, &options)?;
    let start = if options.resource_version.is_empty() {
        0
    } else {
        parse_revision(&options.resource_version).map_err(ApiError::Plain)?
    };
    // Who wants the state at a revision to come is told when it does not; who wants what is after it waits.
    let wants_state = options.send_initial_events == Some(true);
    if wants_state && start > api.store.revision() {
        reach(api, start).await;
    }
    let seconds = options
        .timeout_seconds
        .unwrap_or_else(|| LIFETIME + rand::random_range(0..LIFETIME));
    let now = Instant::now();
    let mut watcher = Watcher {
        plain: view.is_plain(),
        view,
        filter,
        initial: Vec::new().into_iter(),
        initial_end: None,
        queue: VecDeque::new(),
        watch: None,
        after: start,
        deadline: now + Duration::from_secs(seconds),
        bookmark: options.bookmarks.then_some(now + BOOKMARK_EVERY),
        shutdown: api.shutdown.clone(),
        right: Right::of(api, call),
        served: Served::new(&api.registry, &call.resource),
        columns_sent: false,
        _counted: api.metrics.watching(),
    };
    let current = api.store.revision();
    if wants_state && start > current {
        watcher.queue.push_back(error_frame(&too_large(start, current)));
    } else {
        begin(
            api,
            &mut watcher,
            &call.info.namespace,
            &options,
            start.min(current),
        )?;
    }
    let stream = futures::stream::unfold(watcher, |mut w| async move { w.next().await.map(|b| (b, w)) });
    Ok(respond::with_type(
        200,
        "application/json",
        Body::Stream(stream.boxed()),
    ))
}

/// Queues the initial state where one is asked for and opens the log behind it.
fn begin(
    api: &Api,
    watcher: &mut Watcher,
    namespace: &str,
    options: &ListOptions,
    start: u64,
) -> Result<(), ApiError> {
    let initial = options.send_initial_events.unwrap_or(start == 0);
    let mut after = if start == 0 { api.store.revision() } else { start };
    if initial {
        let all = ListOptions::default();
        let found = find(api, &watcher.filter, namespace, &all)?;
        after = found.revision;
        watcher.initial = found.entries.into_iter();
        if options.bookmarks {
            watcher.initial_end = Some(after);
        }
    }
    let r = &watcher.view.resource;
    let opened = match (watcher.filter.single_name(), namespace_of(r, namespace)) {
        (Some(name), Some(ns)) => api.store.watch_object(&key(r, ns, name), after),
        _ => api.store.watch(
            &r.storage,
            namespace_of(r, namespace).filter(|n| !n.is_empty()),
            after,
        ),
    };
    match opened {
        Ok(watch) => watcher.watch = Some(watch),
        // An HTTP error would leave clients retrying the same revision: they relist on an ERROR event.
        Err(e) => watcher.queue.push_back(error_frame(&too_old(&e, after))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions() {
        assert_eq!(transition(false, true), Some("ADDED"));
        assert_eq!(transition(true, true), Some("MODIFIED"));
        assert_eq!(transition(true, false), Some("DELETED"));
        assert_eq!(transition(false, false), None);
    }
}
