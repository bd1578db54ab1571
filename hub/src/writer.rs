//! Writes to the hub's API: at most so many at a time, none for ever.

use std::{fmt::Debug, time::Duration};

use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::error::Error;

/// The name under which the hub's fields are owned.
pub const FIELD_MANAGER: &str = "muster-hub";
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Writes for all controllers.
pub struct Writer {
    client: Client,
    permits: Semaphore,
}

impl Writer {
    /// Writes through `client`, at most `limit` at a time: on two cores, more only wait in the server.
    pub fn new(client: Client, limit: usize) -> Self {
        Self {
            client,
            permits: Semaphore::new(limit),
        }
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
        match tokio::time::timeout(TIMEOUT, request).await {
            Ok(result) => result.map_err(Error::request(what)),
            Err(_) => Err(Error::Timeout {
                what,
                seconds: TIMEOUT.as_secs(),
            }),
        }
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
