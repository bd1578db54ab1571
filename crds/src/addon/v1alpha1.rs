//! The version add-ons are stored in.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::identical::identical_kinds;
pub use super::{common::*, identical::*};
use crate::schema::{self, DNS_LABEL};

identical_kinds!("v1alpha1", true);

/// How an add-on is set up on one cluster.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "addon.open-cluster-management.io",
    version = "v1alpha1",
    storage = true,
    kind = "ManagedClusterAddOn",
    doc = "An add-on on the managed cluster whose namespace this is.",
    namespaced,
    status = "ManagedClusterAddOnStatus",
    shortname = "mca",
    shortname = "mcas",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled",
    printcolumn = r#"{"name":"Available","type":"string","jsonPath":".status.conditions[?(@.type==\"Available\")].status"}"#,
    printcolumn = r#"{"name":"Degraded","type":"string","jsonPath":".status.conditions[?(@.type==\"Degraded\")].status"}"#,
    printcolumn = r#"{"name":"Progressing","type":"string","jsonPath":".status.conditions[?(@.type==\"Progressing\")].status"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ManagedClusterAddOnSpec {
    /// Namespace of the agent on the managed cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-default" = "open-cluster-management-agent-addon", "pattern" = DNS_LABEL, "maxLength" = 63,
    ))]
    pub install_namespace: Option<String>,
    /// Configurations on this cluster, before all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<AddOnConfig>,
}

/// How an add-on is on one cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedClusterAddOnStatus {
    /// Whether it is available, configured, on its way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Objects that belong to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related_objects: Vec<ObjectReference>,
    /// What it calls itself.
    #[serde(default)]
    pub add_on_meta: AddOnMeta,
    /// Deprecated: where the add-on's configuration is.
    #[serde(default)]
    pub add_on_configuration: ConfigCoordinates,
    /// Resources its configurations may be of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["group", "resource"]))]
    pub supported_configs: Vec<ConfigGroupResource>,
    /// The configurations wanted and applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config_references: Vec<ConfigReference>,
    /// Namespace of its agent on the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// How its agent gets credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registrations: Vec<RegistrationConfig>,
    /// How its health is told.
    #[serde(default)]
    pub health_check: HealthCheck,
    /// How the agent gets its hub credentials; the agent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_client_driver: Option<KubeClientDriver>,
}

/// A certificate an add-on's agent gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationConfig {
    /// Name of the signer.
    #[schemars(extend("pattern" = SIGNER, "minLength" = 5, "maxLength" = 571))]
    pub signer_name: String,
    /// Subject of the certificate.
    #[serde(default)]
    pub subject: Subject,
}

/// Subject of a certificate.
pub type Subject = TemplateSubject;

/// A configuration wanted and applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigReference {
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
    /// The generation last seen of it.
    #[serde(default)]
    pub last_observed_generation: i64,
    /// What is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_config: Option<ConfigSpecHash>,
    /// What was applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_config: Option<ConfigSpecHash>,
}

/// Deprecated: where an add-on's configuration is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigCoordinates {
    /// Name of the configuration's CRD.
    #[serde(default, rename = "crdName", skip_serializing_if = "String::is_empty")]
    pub crd_name: String,
    /// Name of the configuration.
    #[serde(default, rename = "crName", skip_serializing_if = "String::is_empty")]
    pub cr_name: String,
    /// The generation last seen of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_observed_generation: Option<i64>,
}

/// How an add-on is set up on all clusters.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "addon.open-cluster-management.io",
    version = "v1alpha1",
    storage = true,
    kind = "ClusterManagementAddOn",
    doc = "An add-on that managed clusters may have.",
    status = "ClusterManagementAddOnStatus",
    shortname = "cma",
    shortname = "cmas",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled",
    printcolumn = r#"{"name":"DISPLAY NAME","type":"string","jsonPath":".spec.addOnMeta.displayName"}"#,
    printcolumn = r#"{"name":"CRD NAME","type":"string","jsonPath":".spec.addOnConfiguration.crdName"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterManagementAddOnSpec {
    /// What it calls itself.
    #[serde(default)]
    pub add_on_meta: AddOnMeta,
    /// Deprecated: where the add-on's configuration is.
    #[serde(default)]
    pub add_on_configuration: ConfigCoordinates,
    /// Resources configurations may be of, and the defaults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["group", "resource"]))]
    pub supported_configs: Vec<ConfigMeta>,
    /// On which clusters it is installed.
    #[serde(default)]
    #[schemars(extend("x-default" = {"type": "Manual"}))]
    pub install_strategy: InstallStrategy,
}

/// A resource configurations may be of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMeta {
    /// API group of the configuration's resource; empty is the core group.
    #[serde(default)]
    #[schemars(extend("x-default" = ""))]
    pub group: String,
    /// Plural name of the configuration's resource.
    #[schemars(extend("minLength" = 1))]
    pub resource: String,
    /// The configuration used when nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_config: Option<ConfigReferent>,
}

/// How an add-on is on all clusters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterManagementAddOnStatus {
    /// The default configurations.
    #[serde(
        default,
        rename = "defaultconfigReferences",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub default_config_references: Vec<DefaultConfigReference>,
    /// How far each placement is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub install_progressions: Vec<InstallProgression>,
}
