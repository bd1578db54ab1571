//! How long a resource is the one a watch began with: a watch must not show objects by a definition that is no more.

use crate::registry::{Registry, Resource};
use std::sync::Arc;
use tokio::sync::watch;

/// A resource, and whether it is still served as it was.
pub struct Served {
    registry: Registry,
    resource: Arc<Resource>,
    changed: watch::Receiver<()>,
    now: Now,
}

/// What became of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    /// It is served as it was.
    Same,
    /// It is served by another definition, or other versions of it alone are.
    Other,
    /// It is not served any more in any version.
    Gone,
}

/// What became of a resource that is found like this now. `others`: its objects are served in some version.
fn compare(began: &Resource, now: Option<&Resource>, others: bool) -> Now {
    let identity = |r: &Resource| r.custom.as_ref().map(|c| c.identity);
    match now {
        None if others => Now::Other,
        None => Now::Gone,
        Some(now) if identity(now) == identity(began) => Now::Same,
        Some(_) => Now::Other,
    }
}

impl Served {
    /// From now on.
    pub fn new(registry: &Registry, resource: &Arc<Resource>) -> Self {
        let mut changed = registry.changed();
        // It may have changed since it was found.
        changed.mark_changed();
        Self {
            registry: registry.clone(),
            resource: Arc::clone(resource),
            changed,
            now: Now::Same,
        }
    }

    /// What became of it. What it was once, it does not become again.
    pub fn now(&mut self) -> Now {
        let r = &self.resource;
        if self.now == Now::Same && r.is_custom() && self.changed.has_changed().unwrap_or(false) {
            self.changed.mark_unchanged();
            let found = self.registry.find(&r.group, &r.version, &r.plural);
            let others = found.is_none() && !self.registry.stored_as(&r.storage).is_empty();
            self.now = compare(r, found.as_deref(), others);
        }
        self.now
    }

    /// Returns when it is not what it was.
    pub async fn ended(&mut self) {
        if !self.resource.is_custom() {
            return std::future::pending().await;
        }
        while self.now() == Now::Same {
            if self.changed.changed().await.is_err() {
                return std::future::pending().await;
            }
            self.changed.mark_changed();
        }
    }
}
