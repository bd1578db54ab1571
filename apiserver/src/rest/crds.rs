//! Custom resources are served from the moment their CustomResourceDefinition says Established, and not after it is gone.
//!
//! Every write of the API to the store goes through here, so that those of definitions take what is served along.

use super::{Api, key};
use crate::object;
use crate::registry::Resource;
use crate::store::{Entry, Expect, Key, Range, StoreError};
use serde_json::Value;
use std::sync::{Arc, PoisonError};

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";

fn is_crd(r: &Resource) -> bool {
    r.group == GROUP && r.plural == PLURAL
}

fn is_established(crd: &Value) -> bool {
    crd["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Established" && c["status"] == "True")
}

/// Does all of a write, whoever waits for it.
async fn whole(
    write: impl Future<Output = Result<Arc<Entry>, StoreError>> + Send + 'static,
) -> Result<Arc<Entry>, StoreError> {
    let done = tokio::spawn(write).await;
    done.unwrap_or_else(|error| Err(StoreError::Disk(error.to_string())))
}

impl Api {
    /// The kind of CustomResourceDefinitions.
    pub(super) fn crd_resource(&self) -> Option<Arc<Resource>> {
        self.registry.find(GROUP, "v1", PLURAL)
    }

    fn serve_crd(&self, crd: &Value) {
        if let Err(errors) = self.registry.set_crd(crd) {
            let name = object::name(crd);
            tracing::warn!(
                crd = name,
                ?errors,
                "a stored CustomResourceDefinition cannot be served"
            );
        }
    }

    /// At start: what was stored Established is served.
    pub(super) fn serve_stored_crds(&self) {
        let Some(r) = self.crd_resource() else { return };
        let range = Range {
            resource: r.storage.to_string(),
            ..Range::default()
        };
        let Ok(page) = self.store.list(&range) else { return };
        for crd in page.entries.iter().map(|e| e.value()).filter(is_established) {
            self.serve_crd(&crd);
        }
    }

    /// Writes to the store. A client that goes away in between stops nothing.
    pub(super) async fn store_put(
        &self,
        r: &Arc<Resource>,
        key: Key,
        object: Value,
        expect: Expect,
    ) -> Result<Arc<Entry>, StoreError> {
        if !is_crd(r) {
            return self.store.put(key, object, expect).await;
        }
        let (api, r) = (self.clone(), Arc::clone(r));
        whole(async move {
            let name = Arc::clone(&key.name);
            api.before_crd_write(&r, &object);
            let put = api.store.put(key, object, expect).await;
            api.after_crd_write(&r, &name);
            put
        })
        .await
    }

    /// Deletes from the store, as [`Self::store_put`] writes.
    pub(super) async fn store_delete(
        &self,
        r: &Arc<Resource>,
        key: Key,
        last: Value,
        revision: u64,
    ) -> Result<Arc<Entry>, StoreError> {
        if !is_crd(r) {
            return self.store.delete(key, last, revision).await;
        }
        let (api, r) = (self.clone(), Arc::clone(r));
        whole(async move {
            let name = Arc::clone(&key.name);
            let deleted = api.store.delete(key, last, revision).await;
            api.after_crd_write(&r, &name);
            deleted
        })
        .await
    }

    /// Before a write that makes a CustomResourceDefinition Established: whoever sees that may use it at once.
    fn before_crd_write(&self, r: &Resource, crd: &Value) {
        if is_crd(r) && is_established(crd) {
            let _held = self.crd_lock.lock().unwrap_or_else(PoisonError::into_inner);
            let mut unwritten = crd.clone();
            if let Some(metadata) = unwritten["metadata"].as_object_mut() {
                metadata.remove("resourceVersion");
            }
            self.serve_crd(&unwritten);
        }
    }

    /// After any write of one, also one that failed: what is served follows what is stored.
    fn after_crd_write(&self, r: &Resource, name: &str) {
        if !is_crd(r) {
            return;
        }
        let _held = self.crd_lock.lock().unwrap_or_else(PoisonError::into_inner);
        match self.store.get(&key(r, "", name)).map(|e| e.value()) {
            Some(crd) if is_established(&crd) => self.serve_crd(&crd),
            Some(_) | None => self.registry.remove_crd(name),
        }
    }
}
