//! What every cluster has from its first moment: the system namespaces and the roles clients count on.

mod flow;

use super::Api;
use super::internal::Target;
use super::params::WriteOptions;
use crate::ApiError;
use crate::auth::{UserInfo, bootstrap_policy};
use crate::controllers::plan::set_condition;
use crate::controllers::served;
use crate::object;
use crate::registry::strategy;
use futures::future::try_join_all;
use serde_json::{Value, json};

/// Namespaces that are always there.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// PriorityClasses that are always there.
const PRIORITIES: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];
/// ServiceCIDR that is always there.
const SERVICE_RANGE: &str = "kubernetes";
/// ConfigMap in kube-system with the CA of clients' certificates.
const CLIENT_CA: &str = "extension-apiserver-authentication";

/// Field manager of what the server itself writes.
pub const MANAGER: &str = "kube-apiserver";

impl Api {
    /// Creates what is missing. What is there stays as it is.
    pub async fn bootstrap(&self) -> Result<(), ApiError> {
        let namespaces = NAMESPACES
            .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        try_join_all(namespaces.into_iter().map(|n| self.ensure(n))).await?;
        try_join_all(bootstrap_policy().into_iter().map(|p| self.ensure(p))).await?;
        let classes = PRIORITIES.map(|(name, value, description)| {
            json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
                "value": value, "description": description})
        });
        try_join_all(classes.into_iter().map(|c| self.ensure(c))).await?;
        try_join_all(flow::objects().into_iter().map(|o| self.ensure(o))).await?;
        let all = self.registry.all();
        let versions: Vec<String> = all
            .iter()
            .filter(|r| r.custom.is_none())
            .map(|r| r.api_version())
            .collect();
        let services = served::builtins(versions.iter().map(String::as_str));
        try_join_all(services.into_iter().map(|s| self.ensure(s))).await?;
        self.service_range().await?;
        // Clients look it up to learn what the cluster's addresses are. Nothing routes to it here.
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"type": "ClusterIP", "clusterIP": strategy::kubernetes_address(), "sessionAffinity": "None",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": 6443}]}});
        // It is no reason not to start: who refuses it, a quota or a webhook, can be told so only while this server runs.
        if let Err(e) = self.ensure(service).await {
            tracing::warn!("Service default/kubernetes is not created: {e}");
        }
        Ok(())
    }

    /// The range that the addresses of Services are from.
    async fn service_range(&self) -> Result<(), ApiError> {
        let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": SERVICE_RANGE, "finalizers": ["networking.k8s.io/service-cidr-finalizer"]},
            "spec": {"cidrs": [strategy::service_range()]}});
        self.ensure(range).await?;
        let Some(r) = self.registry.by_kind("networking.k8s.io", "v1", "ServiceCIDR") else {
            return Ok(());
        };
        let now = super::rfc3339(self.clock.now());
        let mut change = |current: &Value| {
            let mut current = current.clone();
            set_condition(
                &mut current,
                "Ready",
                "True",
                "",
                "Kubernetes Service CIDR is ready",
                &now,
            );
            Ok(current)
        };
        let target = Target::sub(&r, "status", "", SERVICE_RANGE);
        let options = WriteOptions::internal(MANAGER);
        self.modify_object(&UserInfo::loopback(), &target, &options, &mut change)
            .await?;
        Ok(())
    }

    /// Tells extension API servers and controllers who vouches for clients. It follows the CA.
    pub async fn publish_client_ca(&self, pem: &str) -> Result<(), ApiError> {
        let data = json!({"client-ca-file": pem});
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {"name": CLIENT_CA, "namespace": "kube-system"}});
        self.ensure(object).await?;
        let Some(r) = self.registry.by_kind("", "v1", "ConfigMap") else {
            return Ok(());
        };
        let target = Target::object(&r, "kube-system", CLIENT_CA);
        let mut change = |current: &Value| {
            let mut current = current.clone();
            object::child_mut(&mut current, "data").insert("client-ca-file".into(), pem.into());
            Ok(current)
        };
        let options = WriteOptions::internal(MANAGER);
        self.modify_object(&UserInfo::loopback(), &target, &options, &mut change)
            .await?;
        Ok(())
    }

    async fn ensure(&self, mut object: Value) -> Result<(), ApiError> {
        let version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let kind = object["kind"].as_str().unwrap_or_default();
        let r = self
            .registry
            .by_kind(group, version, kind)
            .ok_or_else(|| ApiError::Internal(format!("{kind} is not served")))?;
        let namespace = object::namespace(&object).to_owned();
        if self
            .store
            .get(&super::key(&r, &namespace, object::name(&object)))
            .is_some()
        {
            return Ok(());
        }
        strategy::default(&r, &mut object);
        let user = UserInfo::loopback();
        match self
            .create_object(&user, &r, &namespace, object, &WriteOptions::internal(MANAGER))
            .await
        {
            Ok(_) | Err(ApiError::AlreadyExists(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }
}
