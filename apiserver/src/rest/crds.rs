//! Custom resources are served from the moment their CustomResourceDefinition says Established, and not after it is gone.

use super::{Api, key};
use crate::object;
use crate::registry::Resource;
use crate::store::Range;
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

impl Api {
    /// The kind of CustomResourceDefinitions.
    fn crd_resource(&self) -> Option<Arc<Resource>> {
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

    /// Before a write that makes a CustomResourceDefinition Established: whoever sees that may use it at once.
    pub(super) fn before_crd_write(&self, r: &Resource, crd: &Value) {
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
    pub(super) fn after_crd_write(&self, r: &Resource, name: &str) {
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
