//! Everything between an authenticated request and the store: one handler per verb for every kind there is.
//!
//! `path` says what is asked, `params`, `selector`, `negotiate` and `body` read the rest of the request, `read`, `watch`,
//! `write`, `delete` and `subresource` answer it. [`Api`] carries what they share; it is a tower service, and its methods
//! (`internal`) are what controllers in this process call.

pub mod admission;
pub mod body;
pub mod bootstrap;
mod budgets;
pub mod client;
pub mod crds;
pub mod decode;
pub mod delete;
pub mod discovery;
pub mod go_json;
pub mod health;
pub mod inflight;
pub mod internal;
mod known;
pub mod metrics;
pub mod negotiate;
pub mod openapi;
pub mod params;
pub mod path;
pub mod pods;
pub mod pretty;
pub mod protobuf;
pub mod raw;
pub mod read;
pub mod respond;
pub mod review;
pub mod rules;
pub mod scale;
pub mod selector;
pub mod served;
pub mod service;
pub mod size;
pub mod subresource;
pub mod table;
pub mod view;
pub mod watch;
pub mod write;

use crate::ApiError;
use crate::auth::{Authenticator, Authorizer, UserInfo};
use crate::error::Subject;
use crate::registry::{Registry, Resource};
use crate::store::{Key, Store, StoreError};
use inflight::InFlight;
use jiff::Timestamp;
use metrics::Metrics;
use params::Query;
use path::RequestInfo;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The API: what every request and every controller in this process works with. Clones share everything.
#[derive(Clone)]
pub struct Api {
    /// Objects.
    pub store: Store,
    /// Kinds.
    pub registry: Registry,
    /// Who may do what.
    pub authorizer: Arc<Authorizer>,
    /// Who is asking.
    pub authenticator: Arc<Authenticator>,
    /// What `now` is.
    pub clock: Clock,
    /// Webhooks and policies that have a say in writes.
    pub hooks: admission::Hooks,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Seats for requests.
    pub in_flight: Arc<InFlight>,
    /// Ends watches when the server stops.
    pub shutdown: CancellationToken,
    /// Held while the served custom resources follow their CustomResourceDefinitions.
    crd_lock: Arc<std::sync::Mutex<()>>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// Where the time comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Arc::new(Timestamp::now))
    }

    /// A clock of one's own.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

/// A point in time as `metav1.Time` writes it: seconds, UTC.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// One request, as handlers see it.
#[derive(Debug)]
pub struct Call<'a> {
    /// What is asked.
    pub info: &'a RequestInfo,
    /// Query parameters.
    pub query: &'a Query,
    /// Who asks.
    pub user: &'a UserInfo,
    /// Headers.
    pub headers: &'a http::HeaderMap,
    /// The resource.
    pub resource: Arc<Resource>,
    /// What the client is told whatever the answer is.
    pub warned: &'a Warned,
}

/// Warnings of a request, gathered before it is clear what its answer is.
#[derive(Debug, Default)]
pub struct Warned(std::sync::Mutex<Vec<String>>);

impl Warned {
    fn add(&self, warnings: Vec<String>) {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.extend(warnings);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Call<'_> {
    /// Tells the client something, whatever the answer is.
    pub fn warn(&self, warnings: Vec<String>) {
        self.warned.add(warnings);
    }

    /// A header as text.
    pub fn header(&self, name: http::header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The user agent, `""` when absent.
    pub fn user_agent(&self) -> &str {
        self.header(http::header::USER_AGENT).unwrap_or_default()
    }

    /// What errors about the object on the URL name.
    pub fn subject(&self) -> Subject {
        subject(&self.resource, &self.info.name)
    }
}

/// Subject of errors about one object of a resource: group, plural, name.
pub fn subject(r: &Resource, name: &str) -> Subject {
    // Of this one kind Kubernetes' own errors have the singular.
    let plural = if &*r.storage == "/componentstatuses" {
        &r.singular
    } else {
        &r.plural
    };
    Subject::new(&r.group, plural, name)
}

/// Where an object of a resource is stored.
pub fn key(r: &Resource, namespace: &str, name: &str) -> Key {
    let namespace = if r.namespaced { namespace } else { "" };
    Key {
        resource: Arc::clone(&r.storage),
        namespace: namespace.into(),
        name: name.into(),
    }
}

/// What a failed store operation on one object means to a client.
pub fn store_error(error: &StoreError, r: &Resource, name: &str) -> ApiError {
    match error {
        StoreError::Exists => ApiError::AlreadyExists(subject(r, name)),
        StoreError::Missing => ApiError::NotFound(subject(r, name)),
        StoreError::Changed(_) => modified(r, name),
        StoreError::Compacted(_) => ApiError::Expired(COMPACTED.into()),
        StoreError::Future(current) => too_large(0, *current),
        StoreError::Disk(_) => ApiError::Internal(error.to_string()),
    }
}

/// The 409 of a stale resourceVersion.
pub fn modified(r: &Resource, name: &str) -> ApiError {
    ApiError::Conflict {
        subject: subject(r, name),
        detail: "the object has been modified; please apply your changes to the latest version and try again"
            .into(),
    }
}

pub(crate) const COMPACTED: &str = "The resourceVersion for the provided watch is too old.";

/// The 504 of a resourceVersion that has not happened yet (apiserver `storage.NewTooLargeResourceVersionError`).
pub fn too_large(asked: u64, current: u64) -> ApiError {
    ApiError::Status(Box::new(serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("Timeout: Too large resource version: {asked}, current: {current}"),
        "reason": "Timeout", "code": 504,
        "details": {
            "retryAfterSeconds": 1,
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        },
    })))
}

impl Api {
    /// An API over a store. CustomResourceDefinitions already stored are served at once.
    pub fn new(
        store: Store,
        registry: Registry,
        authorizer: Arc<Authorizer>,
        authenticator: Arc<Authenticator>,
    ) -> Self {
        let api = Self {
            store,
            registry,
            authorizer,
            authenticator,
            clock: Clock::system(),
            hooks: admission::Hooks::default(),
            metrics: Arc::default(),
            in_flight: Arc::default(),
            shutdown: CancellationToken::new(),
            crd_lock: Arc::default(),
        };
        api.serve_stored_crds();
        api
    }
}

#[cfg(test)]
mod tests;
