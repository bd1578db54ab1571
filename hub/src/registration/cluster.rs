//! The controller of clusters: one look at all that concerns a cluster, one plan, then the writes.

use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::Namespace,
    rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding},
};
use kube::{
    Api,
    api::PartialObjectMeta,
    core::{DynamicObject, PartialObjectMetaExt},
};
use muster_crds::{
    cluster::v1::ManagedCluster,
    conditions::{NewCondition, Status, is_true},
    constants::{conditions, names, reasons},
    names as naming,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    accept,
    caches::Caches,
    event,
    plan::{Observed, Plan, Policy, Remaining, Write, set_conditions},
    rbac::{Desired, Kind},
    view::{ClusterView, ObjectView},
};
use crate::{
    cache::Cache,
    error::Error,
    queue::Next,
    writer::{Writer, guarded, what},
};

/// What the controller works with.
pub struct Context {
    /// What is known.
    pub caches: Arc<Caches>,
    /// How to write.
    pub writer: Arc<Writer>,
    /// What the hub was told.
    pub policy: Policy,
}

impl Context {
    /// Brings one cluster a step further.
    pub async fn reconcile(&self, name: &str) -> Result<Next, Error> {
        let Some(mut observed) = self.observe(name) else {
            return self.forget(name).await;
        };
        let mut now = Timestamp::now();
        let mut plan = accept::decide(&observed, now, &self.policy);
        if plan.doubt {
            self.look_at_lease(name).await?;
            observed = match self.observe(name) {
                Some(observed) => observed,
                None => return Ok(Next::Now),
            };
            now = Timestamp::now();
            plan = accept::decide(&observed, now, &self.policy);
        }
        for note in &plan.notes {
            tracing::debug!(cluster = name, "{note}");
        }
        self.execute(&observed, &plan).await?;
        Ok(match plan.next {
            _ if plan.again => Next::Now,
            Some(next) => Next::After(next.duration_since(now).try_into().unwrap_or_default()),
            None => Next::Idle,
        })
    }

    /// Reads the lease itself: the watch may be behind, or stand still.
    async fn look_at_lease(&self, name: &str) -> Result<(), Error> {
        let api = Api::<Lease>::namespaced(self.writer.client(), name);
        let read = api.get_opt(names::CLUSTER_LEASE);
        let subject = format!("read {}", what::<Lease>(name));
        if let Some(lease) = self.writer.bounded(subject, read).await? {
            self.caches.leases.wrote(&lease);
        }
        Ok(())
    }

    /// Takes away the rights of a cluster that is not there any more: somebody took its finalizer off, or no hub ran that
    /// was to wait for it.
    async fn forget(&self, name: &str) -> Result<Next, Error> {
        let nobody = ClusterView {
            name: name.to_owned(),
            ..ClusterView::default()
        };
        let observed = self.observe_of(Arc::new(nobody));
        let writes = accept::revoke(&observed);
        if writes.is_empty() {
            return Ok(Next::Idle);
        }
        // What is to end somebody's rights is not decided by a list alone.
        let api = Api::<ManagedCluster>::all(self.writer.client());
        let read = api.get_metadata_opt(name);
        let subject = format!("read {}", what::<ManagedCluster>(name));
        if self.writer.bounded(subject, read).await?.is_some() {
            return Ok(Next::Idle);
        }
        tracing::info!(
            cluster = name,
            "its ManagedCluster is gone: its rights are taken away"
        );
        let mut plan = Plan::default();
        plan.stage(writes);
        self.execute(&observed, &plan).await?;
        Ok(Next::Idle)
    }

    fn observe(&self, name: &str) -> Option<Observed> {
        Some(self.observe_of(self.caches.clusters.get("", name)?))
    }

    fn observe_of(&self, cluster: Arc<ClusterView>) -> Observed {
        let caches = &self.caches;
        let name = cluster.name.clone();
        let name = name.as_str();
        let role = naming::cluster_role(name);
        let remaining = if cluster.deleting {
            caches
                .cleaned
                .iter()
                .enumerate()
                .map(|(resource, cleaned)| Remaining {
                    resource,
                    plural: cleaned.resource.plural.clone(),
                    items: cleaned.items.list(name),
                })
                .collect()
        } else {
            Vec::new()
        };
        Observed {
            cluster,
            namespace: caches.namespaces.get("", name),
            role: caches.roles.get("", &role),
            role_binding: caches.role_bindings.get("", &role),
            registration: caches
                .bindings
                .get(name, &naming::registration_role_binding(name)),
            work: caches.bindings.get(name, &naming::work_role_binding(name)),
            lease: caches.leases.get(name, names::CLUSTER_LEASE),
            works: caches.works.count(name),
            room_since: self.writer.room_since(),
            remaining,
        }
    }

    async fn execute(&self, observed: &Observed, plan: &Plan) -> Result<(), Error> {
        let cluster = &observed.cluster;
        for stage in &plan.stages {
            let results = join_all(stage.iter().map(|write| self.write(cluster, write))).await;
            let mut errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
            if errors.iter().any(Error::is_permanent) && !cluster.deleting && cluster.accepts {
                self.tell(cluster, &errors).await?;
            }
            match errors.len() {
                0 => {}
                1 => return Err(errors.remove(0)),
                _ if errors.iter().all(Error::is_no_room) => return Err(errors.remove(0)),
                _ => return Err(Error::Several(joined(&errors))),
            }
        }
        Ok(())
    }

    /// What keeps a cluster out for longer than a moment goes into its condition.
    async fn tell(&self, cluster: &ClusterView, errors: &[Error]) -> Result<(), Error> {
        let condition = NewCondition::new(
            conditions::HUB_ACCEPTED,
            Status::False,
            reasons::ERROR,
            joined(errors),
        );
        match set_conditions(cluster, vec![condition], Timestamp::now()) {
            Some(write) => self.write(cluster, &write).await,
            None => Ok(()),
        }
    }

    async fn write(&self, cluster: &ClusterView, write: &Write) -> Result<(), Error> {
        let client = self.writer.client();
        let caches = &self.caches;
        match write {
            Write::PatchCluster(patch) => self.patch_cluster(cluster, None, patch.clone()).await,
            Write::SetConditions(all) => {
                let was = is_true(&cluster.conditions, conditions::HUB_ACCEPTED);
                self.patch_cluster(cluster, Some("status"), json!({"status": {"conditions": all}}))
                    .await?;
                let is = is_true(all, conditions::HUB_ACCEPTED);
                if was != is {
                    tracing::info!(cluster = cluster.name, accepted = is, "ManagedCluster");
                }
                Ok(())
            }
            Write::Create(desired) => match desired.kind {
                Kind::Namespace => self.create_namespace(desired).await,
                Kind::ClusterRole => {
                    self.create(&Api::<ClusterRole>::all(client), desired, &caches.roles)
                        .await
                }
                Kind::ClusterRoleBinding => {
                    let api = Api::<ClusterRoleBinding>::all(client);
                    self.create(&api, desired, &caches.role_bindings).await
                }
                Kind::RoleBinding => {
                    let api = Api::<RoleBinding>::namespaced(client, &desired.namespace);
                    self.create(&api, desired, &caches.bindings).await
                }
                Kind::Lease => self.create_lease(desired).await,
            },
            Write::Update(desired, uid) => {
                let mut patch = guarded(desired.body.clone(), uid, None);
                if let Some(body) = patch.as_object_mut() {
                    body.remove("roleRef");
                }
                self.patch(desired.kind, &desired.namespace, &desired.name, &patch)
                    .await
            }
            Write::SetFinalizers(kind, namespace, name, uid, finalizers) => {
                let patch = guarded(json!({"metadata": {"finalizers": finalizers}}), uid, None);
                match self.patch(*kind, namespace, name, &patch).await {
                    // Gone meanwhile, which is what was wanted.
                    Err(error) if error.status().is_some_and(|status| status.code == 404) => Ok(()),
                    result => result,
                }
            }
            Write::Delete(kind, namespace, name, uid) => self.delete(*kind, namespace, name, uid).await,
            Write::DeleteLease => {
                let api = Api::<Lease>::namespaced(client, &cluster.name);
                self.writer
                    .delete(&api, names::CLUSTER_LEASE, None, &what::<Lease>(&cluster.name))
                    .await?;
                caches.leases.removed(&cluster.name, names::CLUSTER_LEASE);
                Ok(())
            }
            Write::DeleteItem(resource, name) => {
                let Some(cleaned) = caches.cleaned.get(*resource) else {
                    return Ok(());
                };
                let api = Api::<DynamicObject>::namespaced_with(client, &cluster.name, &cleaned.resource);
                let subject = format!("{} {}/{name}", cleaned.resource.plural, cluster.name);
                self.writer.delete(&api, name, None, &subject).await.map(|_| ())
            }
            Write::Event { reason, note } => {
                let mark = format!("{:x}", Timestamp::now().as_nanosecond());
                event::tell(&self.writer, cluster, &mark, reason, note).await
            }
        }
    }

    async fn patch_cluster(
        &self,
        cluster: &ClusterView,
        sub: Option<&str>,
        patch: Value,
    ) -> Result<(), Error> {
        let api = Api::<ManagedCluster>::all(self.writer.client());
        let patch = guarded(patch, &cluster.uid, Some(&cluster.resource_version));
        let subject = what::<ManagedCluster>(&cluster.name);
        let answer = self
            .writer
            .patch(&api, &cluster.name, sub, &patch, &subject)
            .await?;
        self.caches.clusters.wrote(&answer);
        Ok(())
    }

    /// Creates an object, or learns of the one that is there: the label it is watched by may be missing on it.
    async fn create<K, P>(&self, api: &Api<K>, desired: &Desired, cache: &Cache<K, P>) -> Result<(), Error>
    where
        K: kube::Resource<DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug
            + Send
            + 'static,
    {
        let object: K = read(desired)?;
        match self.writer.create(api, &object, &subject(desired)).await {
            Ok(answer) => {
                cache.wrote(&answer);
                Ok(())
            }
            Err(error) if error.status().is_some_and(kube::core::Status::is_already_exists) => {
                let there = self
                    .writer
                    .bounded(format!("read {}", subject(desired)), api.get(&desired.name))
                    .await?;
                cache.wrote(&there);
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Creates a lease. One that is there already lost the label it is watched by: it gets it back, and stays as it is.
    async fn create_lease(&self, desired: &Desired) -> Result<(), Error> {
        let api = Api::<Lease>::namespaced(self.writer.client(), &desired.namespace);
        let lease: Lease = read(desired)?;
        match self.writer.create(&api, &lease, &subject(desired)).await {
            Ok(answer) => self.caches.leases.wrote(&answer),
            Err(error) if error.status().is_some_and(kube::core::Status::is_already_exists) => {
                let patch = json!({"metadata": {"labels": desired.body["metadata"]["labels"]}});
                self.patch(Kind::Lease, &desired.namespace, &desired.name, &patch)
                    .await?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn create_namespace(&self, desired: &Desired) -> Result<(), Error> {
        let api = Api::<Namespace>::all(self.writer.client());
        let metadata = Api::<PartialObjectMeta<Namespace>>::all(self.writer.client());
        let object: Namespace = read(desired)?;
        match self.writer.create(&api, &object, &subject(desired)).await {
            Ok(answer) => {
                self.caches
                    .namespaces
                    .wrote(&answer.metadata.into_response_partial());
                Ok(())
            }
            Err(error) if error.status().is_some_and(kube::core::Status::is_already_exists) => {
                let read = self
                    .writer
                    .bounded(format!("read {}", subject(desired)), metadata.get(&desired.name));
                self.caches.namespaces.wrote(&read.await?);
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn patch(&self, kind: Kind, namespace: &str, name: &str, patch: &Value) -> Result<(), Error> {
        let client = self.writer.client();
        let caches = &self.caches;
        let subject = format!("{} {name}", kind.as_str());
        match kind {
            Kind::Namespace => {
                let api = Api::<PartialObjectMeta<Namespace>>::all(client);
                let answer = self.writer.patch(&api, name, None, patch, &subject).await?;
                caches.namespaces.wrote(&answer);
            }
            Kind::ClusterRole => {
                let api = Api::<ClusterRole>::all(client);
                caches
                    .roles
                    .wrote(&self.writer.patch(&api, name, None, patch, &subject).await?);
            }
            Kind::ClusterRoleBinding => {
                let api = Api::<ClusterRoleBinding>::all(client);
                caches
                    .role_bindings
                    .wrote(&self.writer.patch(&api, name, None, patch, &subject).await?);
            }
            Kind::RoleBinding => {
                let api = Api::<RoleBinding>::namespaced(client, namespace);
                caches
                    .bindings
                    .wrote(&self.writer.patch(&api, name, None, patch, &subject).await?);
            }
            Kind::Lease => {
                let api = Api::<Lease>::namespaced(client, namespace);
                caches
                    .leases
                    .wrote(&self.writer.patch(&api, name, None, patch, &subject).await?);
            }
        }
        Ok(())
    }

    async fn delete(&self, kind: Kind, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
        let client = self.writer.client();
        let caches = &self.caches;
        let subject = format!("{} {name}", kind.as_str());
        let uid = Some(uid);
        match kind {
            Kind::ClusterRole => {
                let api = Api::<ClusterRole>::all(client);
                if self.writer.delete(&api, name, uid, &subject).await? {
                    caches.roles.removed("", name);
                }
            }
            Kind::ClusterRoleBinding => {
                let api = Api::<ClusterRoleBinding>::all(client);
                if self.writer.delete(&api, name, uid, &subject).await? {
                    caches.role_bindings.removed("", name);
                }
            }
            Kind::RoleBinding => {
                let api = Api::<RoleBinding>::namespaced(client, namespace);
                if self.writer.delete(&api, name, uid, &subject).await? {
                    caches.bindings.removed(namespace, name);
                }
            }
            // The hub never deletes a namespace, and a lease only by its own write.
            Kind::Namespace | Kind::Lease => {}
        }
        Ok(())
    }
}

/// Keeps an object that belongs to no cluster, or deletes it.
pub async fn keep_shared(context: &Context, writes: Vec<Write>) -> Result<(), Error> {
    let nobody = ClusterView::default();
    for write in writes {
        context.write(&nobody, &write).await?;
    }
    Ok(())
}

/// Whether a shared role is there.
pub fn shared(context: &Context, name: &str) -> Option<Arc<ObjectView>> {
    context.caches.roles.get("", name)
}

fn read<K: DeserializeOwned>(desired: &Desired) -> Result<K, Error> {
    serde_json::from_value(desired.body.clone())
        .map_err(|error| Error::request(format!("make {}", subject(desired)))(kube::Error::SerdeError(error)))
}

fn subject(desired: &Desired) -> String {
    if desired.namespace.is_empty() {
        format!("{} {}", desired.kind.as_str(), desired.name)
    } else {
        format!("{} {}/{}", desired.kind.as_str(), desired.namespace, desired.name)
    }
}

fn joined(errors: &[Error]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
