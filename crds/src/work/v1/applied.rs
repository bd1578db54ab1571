//! AppliedManifestWork: what the agent applied of one work.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::optional_spec::optional_spec;

optional_spec!(AppliedManifestWorkSpec);

/// Which work was applied, from which hub, by which agent.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "work.open-cluster-management.io",
    version = "v1",
    kind = "AppliedManifestWork",
    doc = "On a managed cluster: what the agent applied of one work. It owns the objects.",
    status = "AppliedManifestWorkStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", remote = "Self")]
pub struct AppliedManifestWorkSpec {
    /// Hash of the hub's address, see `names::applied_manifest_work_name`.
    pub hub_hash: String,
    /// The agent that applied it; a new hub's agent of the same id may evict it.
    #[serde(default, rename = "agentID", skip_serializing_if = "String::is_empty")]
    pub agent_id: String,
    /// Name of the work at the hub.
    pub manifest_work_name: String,
}

/// What is on the cluster because of a work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedManifestWorkStatus {
    /// The objects that exist, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied_resources: Vec<AppliedManifestResourceMeta>,
    /// Since when the hub no longer knows the work; after a grace period it is evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction_start_time: Option<Time>,
}

/// An object that exists because of a work.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedManifestResourceMeta {
    /// API group; empty is the core group.
    #[serde(default)]
    pub group: String,
    /// API version it was applied in.
    pub version: String,
    /// Plural resource name.
    pub resource: String,
    /// Its namespace; empty for a cluster-scoped object.
    #[serde(default)]
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// UID of the object: only the object that has it is ever deleted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}
