//! Writes to the hub's API: at most so many at a time, none for ever.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::Instant};

use crate::{error::Error, metrics::Metrics, room::Room};

/// The name under which the hub's fields are owned.
pub const FIELD_MANAGER: &str = "muster-hub";
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What requests that store something begin with, in words.
const STORING: [&str; 4] = ["create", "patch", "update", "apply"];

/// Writes for all controllers.
pub struct Writer {
    client: Client,
    permits: Semaphore,
    metrics: Arc<Metrics>,
    room: Mutex<Room>,
    since: Mutex<Option<Timestamp>>,
}

impl Writer {
    /// Writes through `client`, at most `limit` at a time: on two cores, more only wait in the server.
    pub fn new(client: Client, limit: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            permits: Semaphore::new(limit),
            metrics,
            room: Mutex::default(),
            since: Mutex::default(),
        }
    }

    /// Where requests, and anything else, are counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The client, for reads.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Creates an object.
    pub async fn create<K>(&self, api: &Api<K>, object: &K, what: &str) -> Result<K, Error>
    where
        K: Serialize + DeserializeOwned + Clone + Debug,
    {
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        self.bounded(format!("create {what}"), api.create(&parameters, object))
            .await
    }

    /// Merge-patches an object, or its subresource (`status`).
    pub async fn patch<K>(
        &self,
        api: &Api<K>,
        name: &str,
        subresource: Option<&str>,
        patch: &Value,
        what: &str,
    ) -> Result<K, Error>
    where
        K: DeserializeOwned + Clone + Debug,
    {
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(patch);
        match subresource {
            None => {
                self.bounded(format!("patch {what}"), api.patch(name, &parameters, &patch))
                    .await
            }
            Some(subresource) => {
                let request = api.patch_subresource(subresource, name, &parameters, &patch);
                self.bounded(format!("patch {subresource} of {what}"), request)
                    .await
            }
        }
    }

    /// Deletes an object, if it still is the one of that uid. That it is gone already is fine; so is another in its
    /// place: the next look decides about that one. Returns whether it is gone.
    pub async fn delete<K>(
        &self,
        api: &Api<K>,
        name: &str,
        uid: Option<&str>,
        what: &str,
    ) -> Result<bool, Error>
    where
        K: DeserializeOwned + Clone + Debug,
    {
        let preconditions = uid.map(|uid| Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        });
        let parameters = DeleteParams {
            preconditions,
            ..DeleteParams::default()
        };
        match self
            .bounded(format!("delete {what}"), api.delete(name, &parameters))
            .await
        {
            // The answer is the object as long as finalizers hold it.
            Ok(answer) => Ok(answer.is_right()),
            Err(error) if error.status().is_some_and(|status| status.code == 404) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Any other request, within the same bounds; `what` completes "cannot …".
    pub async fn bounded<T>(
        &self,
        what: String,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        let began = Instant::now();
        // `what` begins with a verb. A deletion makes room, and is tried in any case.
        let verb = what.split(' ').next().unwrap_or_default().to_owned();
        let stores = STORING.contains(&verb.as_str());
        if stores && !self.room().admit(began) {
            return Err(Error::NoRoom { what });
        }
        let answer = tokio::time::timeout(TIMEOUT, request).await;
        self.metrics.request(&verb, &code(&answer), began.elapsed());
        let result = match answer {
            Ok(result) => result.map_err(Error::request(what)),
            Err(_) => Err(Error::Timeout {
                what,
                seconds: TIMEOUT.as_secs(),
            }),
        };
        match &result {
            Ok(_) if stores => self.taken(),
            Err(error) if error.is_no_room() => self.refused(error),
            _ => {}
        }
        result
    }

    /// When the API server took writes again after it had no room, the last time.
    pub fn room_since(&self) -> Option<Timestamp> {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self) {
        if self.room().taken() {
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Timestamp::now());
            self.metrics.room(true);
            tracing::info!("the hub's API server takes writes again");
        }
    }

    fn refused(&self, error: &Error) {
        if self.room().refused(Instant::now()) {
            self.metrics.room(false);
            tracing::error!(
                %error,
                "the hub's API server has no room to store anything: until there is some, nothing is accepted, \
                 approved or noted; free space on its disk, or, with etcd, raise its quota, compact, defragment and \
                 disarm its alarm"
            );
        }
    }
}

/// How a request ended, in a word that is one of few.
fn code<T>(answer: &Result<Result<T, kube::Error>, tokio::time::error::Elapsed>) -> String {
    match answer {
        Ok(Ok(_)) => "2xx".to_owned(),
        Ok(Err(kube::Error::Api(status))) => status.code.to_string(),
        Ok(Err(_)) => "no answer".to_owned(),
        Err(_) => "timeout".to_owned(),
    }
}

/// `patch` on exactly the object of that uid, at exactly that version when one is given.
pub fn guarded(mut patch: Value, uid: &str, resource_version: Option<&str>) -> Value {
    patch["metadata"]["uid"] = json!(uid);
    if let Some(version) = resource_version {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    patch
}

/// What kube calls an object in a message: its kind and name.
pub fn what<K: Resource<DynamicType = ()>>(name: &str) -> String {
    format!("{} {name}", K::kind(&()))
}
