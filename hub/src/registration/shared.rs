//! The two ClusterRoles that all clusters share: there as long as there is a cluster (ocm-wire §2.5).

use super::{
    cluster::{Context, keep_shared, shared},
    plan::{Write, delete, keep},
    rbac::{Kind, shared_roles},
};
use crate::{error::Error, queue::Next};

impl Context {
    /// Keeps the shared roles, or deletes them after the last cluster.
    pub async fn reconcile_shared(&self) -> Result<Next, Error> {
        let needed = self.caches.clusters.count("") > 0;
        let mut writes: Vec<Write> = Vec::new();
        for role in shared_roles(&self.policy.labels) {
            let observed = shared(self, &role.name);
            if needed {
                writes.extend(keep(role, observed.as_deref()));
            } else if let Some(observed) = observed.filter(|observed| !observed.deleting) {
                writes.push(delete(Kind::ClusterRole, "", &role.name, &observed));
            }
        }
        keep_shared(self, writes).await?;
        Ok(Next::Idle)
    }
}
