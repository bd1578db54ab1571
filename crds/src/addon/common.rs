//! Parts that v1alpha1 and v1beta1 have in common; both versions export them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{cluster::v1alpha1::RolloutStrategy, schema};

/// Name of a signer: a domain and a path.
pub(crate) const SIGNER: &str = r"^([a-z0-9][a-z0-9-]*[a-z0-9]\.)+[a-z]+\/[a-z0-9-\.]+$";

/// A configuration an add-on uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddOnConfig {
    /// API group of the configuration's resource; empty is the core group.
    #[serde(default)]
    #[schemars(extend("x-default" = ""))]
    pub group: String,
    /// Plural name of the configuration's resource.
    #[schemars(extend("minLength" = 1))]
    pub resource: String,
    /// Namespace of the configuration; empty for a cluster-scoped one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name of the configuration.
    #[schemars(extend("minLength" = 1))]
    pub name: String,
}

/// A resource configurations are of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigGroupResource {
    /// API group of the configuration's resource; empty is the core group.
    #[serde(default)]
    #[schemars(extend("x-default" = ""))]
    pub group: String,
    /// Plural name of the configuration's resource.
    #[schemars(extend("minLength" = 1))]
    pub resource: String,
}

/// Names a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigReferent {
    /// Namespace of the configuration; empty for a cluster-scoped one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name of the configuration.
    #[schemars(extend("minLength" = 1))]
    pub name: String,
}

/// A configuration and the hash of its spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigSpecHash {
    /// Namespace of the configuration; empty for a cluster-scoped one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name of the configuration.
    #[schemars(extend("minLength" = 1))]
    pub name: String,
    /// Hash of its spec.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub spec_hash: String,
}

/// What an add-on calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddOnMeta {
    /// Name for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// An object that belongs to an add-on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// API group.
    pub group: String,
    /// Plural resource name.
    pub resource: String,
    /// Its namespace; empty for a cluster-scoped object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

/// How an add-on's health is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// The way.
    #[serde(default)]
    #[schemars(extend("x-default" = "Lease"))]
    pub mode: HealthCheckMode,
}

/// Ways to tell an add-on's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HealthCheckMode {
    /// The add-on renews a lease on its cluster.
    #[default]
    Lease,
    /// The add-on's own controller says.
    Customized,
}

/// How an add-on's agent gets its hub credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum KubeClientDriver {
    /// By certificate signing requests.
    Csr,
    /// By service account tokens.
    Token,
}

/// On which clusters an add-on is installed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstallStrategy {
    /// The way.
    #[serde(default, rename = "type")]
    #[schemars(extend("x-default" = "Manual"))]
    pub type_: InstallStrategyType,
    /// The placements, for `Placements`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace", "name"]))]
    pub placements: Vec<PlacementStrategy>,
}

/// Ways to choose the clusters of an add-on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InstallStrategyType {
    /// A person creates each ManagedClusterAddOn.
    #[default]
    Manual,
    /// Placements choose.
    Placements,
}

/// A placement that chooses clusters for an add-on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementStrategy {
    /// Namespace of the placement.
    #[schemars(extend("minLength" = 1))]
    pub namespace: String,
    /// Name of the placement.
    #[schemars(extend("minLength" = 1))]
    pub name: String,
    /// Configurations on its clusters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<AddOnConfig>,
    /// How a change of configuration reaches its clusters.
    #[serde(default)]
    #[schemars(extend("x-default" = {"type": "All"}))]
    pub rollout_strategy: RolloutStrategy,
}

/// The default configuration in use, of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefaultConfigReference {
    /// API group of the configuration's resource; empty is the core group.
    #[serde(default)]
    #[schemars(extend("x-default" = ""))]
    pub group: String,
    /// Plural name of the configuration's resource.
    #[schemars(extend("minLength" = 1))]
    pub resource: String,
    /// The configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_config: Option<ConfigSpecHash>,
}

/// How far an add-on's configuration is on one placement's clusters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstallProgression {
    /// Namespace of the placement.
    #[schemars(extend("minLength" = 1))]
    pub namespace: String,
    /// Name of the placement.
    #[schemars(extend("minLength" = 1))]
    pub name: String,
    /// The configurations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config_references: Vec<InstallConfigReference>,
    /// Whether it is under way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// How far one configuration is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstallConfigReference {
    /// API group of the configuration's resource; empty is the core group.
    #[serde(default)]
    #[schemars(extend("x-default" = ""))]
    pub group: String,
    /// Plural name of the configuration's resource.
    #[schemars(extend("minLength" = 1))]
    pub resource: String,
    /// What is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_config: Option<ConfigSpecHash>,
    /// What worked last on all clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known_good_config: Option<ConfigSpecHash>,
    /// What was applied last on all clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_config: Option<ConfigSpecHash>,
}
