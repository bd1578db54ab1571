//! AddOnDeploymentConfig and AddOnTemplate, which both versions have alike: one macro makes the kinds of a version,
//! the parts are shared.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{ResourceRequirements, Toleration},
        rbac::v1::RoleRef,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{addon::common::SIGNER, schema};

pub(crate) const NAMESPACE_OR_EMPTY: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$";

/// The kinds of one version.
macro_rules! identical_kinds {
    ($version:tt, $storage:tt) => {
        /// What add-ons are told that use it.
        #[derive(
            ::kube::CustomResource,
            Clone,
            Debug,
            Default,
            PartialEq,
            ::serde::Serialize,
            ::serde::Deserialize,
            ::schemars::JsonSchema,
        )]
        #[kube(
            group = "addon.open-cluster-management.io",
            version = $version,
            storage = $storage,
            kind = "AddOnDeploymentConfig",
            doc = "How and where an add-on's agent runs.",
            namespaced,
            derive = "Default",
            derive = "PartialEq",
            schema = "disabled"
        )]
        #[serde(rename_all = "camelCase")]
        pub struct AddOnDeploymentConfigSpec {
            /// Values for the variables in the add-on's manifests.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
            pub customized_variables: Vec<CustomizedVariable>,
            /// On which nodes the agent runs.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub node_placement: Option<NodePlacement>,
            /// Where images come from instead.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub registries: Vec<ImageMirror>,
            /// The proxy between cluster and hub.
            #[serde(default)]
            pub proxy_config: ProxyConfig,
            /// Namespace of the agent.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(extend(
                "x-default" = "open-cluster-management-agent-addon",
                "pattern" = $crate::addon::identical::NAMESPACE_OR_EMPTY,
                "maxLength" = 63,
            ))]
            pub agent_install_namespace: Option<String>,
            /// Resources of the agent's containers.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["containerID"]))]
            pub resource_requirements: Vec<ContainerResourceRequirements>,
        }

        /// What an add-on consists of.
        #[derive(
            ::kube::CustomResource,
            Clone,
            Debug,
            Default,
            PartialEq,
            ::serde::Serialize,
            ::serde::Deserialize,
            ::schemars::JsonSchema,
        )]
        #[kube(
            group = "addon.open-cluster-management.io",
            version = $version,
            storage = $storage,
            kind = "AddOnTemplate",
            doc = "An add-on as manifests with variables.",
            derive = "Default",
            derive = "PartialEq",
            schema = "disabled",
            printcolumn = r#"{"name":"ADDON NAME","type":"string","jsonPath":".spec.addonName"}"#
        )]
        #[serde(rename_all = "camelCase")]
        pub struct AddOnTemplateSpec {
            /// Name of the add-on.
            pub addon_name: String,
            /// The work that installs its agent; strings in it may hold variables.
            pub agent_spec: $crate::work::v1::ManifestWorkSpec,
            /// How the agent gets credentials.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub registration: Vec<RegistrationSpec>,
        }
    };
}
pub(crate) use identical_kinds;

/// A value for a variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomizedVariable {
    /// The variable.
    #[schemars(extend("pattern" = "^[a-zA-Z_][_a-zA-Z0-9]*$", "maxLength" = 255))]
    pub name: String,
    /// Its value.
    #[serde(default)]
    #[schemars(extend("maxLength" = 1024))]
    pub value: String,
}

/// On which nodes an agent runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePlacement {
    /// Labels of the nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints the agent puts up with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::pod_tolerations")]
    pub tolerations: Vec<Toleration>,
}

/// Where images come from instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageMirror {
    /// The registry, or part of it, that is used.
    pub mirror: String,
    /// The registry, or part of it, that images name; all when empty.
    #[serde(default)]
    pub source: String,
}

/// The proxy between cluster and hub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyConfig {
    /// URL of the proxy for HTTP.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub http_proxy: String,
    /// URL of the proxy for HTTPS.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub https_proxy: String,
    /// PEM bundle that the proxy's certificate is verified with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bytes")]
    pub ca_bundle: Option<ByteString>,
    /// What is reached without the proxy, comma-separated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub no_proxy: String,
}

/// Resources of containers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerResourceRequirements {
    /// The containers, as `<resource>:<name>:<container>`; each may be `*`.
    #[serde(rename = "containerID")]
    #[schemars(extend(
        "pattern" = r"^(deployments|daemonsets|statefulsets|replicasets|jobs|cronjobs|pods|\*):.+:.+$"
    ))]
    pub container_id: String,
    /// Their requests and limits.
    #[schemars(schema_with = "schema::resource_requirements")]
    pub resources: ResourceRequirements,
}

/// One way an agent gets credentials.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationSpec {
    /// The way; the field of its name holds its settings.
    #[serde(rename = "type")]
    pub type_: AddOnTemplateRegistrationType,
    /// Settings for `KubeClient`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_client: Option<KubeClientRegistrationConfig>,
    /// Settings for `CustomSigner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_signer: Option<CustomSignerRegistrationConfig>,
}

/// Ways an agent gets credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddOnTemplateRegistrationType {
    /// To the hub's API server.
    #[default]
    KubeClient,
    /// A certificate from a signer of the add-on's own.
    CustomSigner,
}

/// What an agent may do at the hub.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeClientRegistrationConfig {
    /// The roles it is bound to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hub_permissions: Vec<HubPermissionConfig>,
}

/// A role an agent is bound to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HubPermissionConfig {
    /// Where; the field of its name holds its settings.
    #[serde(rename = "type")]
    pub type_: HubPermissionsBindingType,
    /// Settings for `CurrentCluster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_cluster: Option<CurrentClusterBindingConfig>,
    /// Settings for `SingleNamespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single_namespace: Option<SingleNamespaceBindingConfig>,
}

/// Where an agent is bound to a role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HubPermissionsBindingType {
    /// In its cluster's namespace.
    #[default]
    CurrentCluster,
    /// In one namespace.
    SingleNamespace,
}

/// A role in the cluster's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurrentClusterBindingConfig {
    /// The ClusterRole.
    pub cluster_role_name: String,
}

/// A role in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SingleNamespaceBindingConfig {
    /// The namespace.
    pub namespace: String,
    /// The Role or ClusterRole.
    #[schemars(schema_with = "schema::role_ref")]
    pub role_ref: RoleRef,
}

/// A certificate from a signer of the add-on's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomSignerRegistrationConfig {
    /// Name of the signer.
    #[schemars(extend("pattern" = SIGNER, "minLength" = 5, "maxLength" = 571))]
    pub signer_name: String,
    /// Subject of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<TemplateSubject>,
    /// Secret at the hub with the key that signs.
    #[serde(rename = "signingCA")]
    pub signing_ca: SigningCaRef,
}

/// Subject of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateSubject {
    /// Common name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Organizations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Organizational units.
    #[serde(default, rename = "organizationUnit", skip_serializing_if = "Vec::is_empty")]
    pub organization_units: Vec<String>,
}

/// A Secret with a signing key and its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningCaRef {
    /// Name of the Secret.
    pub name: String,
    /// Its namespace; the hub's own when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}
