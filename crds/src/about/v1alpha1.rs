//! ClusterProperty: a fact a cluster tells of itself (KEP-2149).

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::optional_spec::optional_spec;

optional_spec!(ClusterPropertySpec);

/// What the property says.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "about.k8s.io",
    version = "v1alpha1",
    kind = "ClusterProperty",
    plural = "clusterproperties",
    doc = "On a managed cluster: a fact about it, reported to the hub.",
    status = "ClusterPropertyStatus",
    derive = "Default",
    derive = "PartialEq",
    annotation(
        "api-approved.kubernetes.io",
        "https://github.com/kubernetes/enhancements/pull/3084"
    ),
    schema = "disabled",
    printcolumn = r#"{"name":"value","type":"string","jsonPath":".spec.value"}"#,
    printcolumn = r#"{"name":"age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", remote = "Self")]
pub struct ClusterPropertySpec {
    /// The fact.
    #[schemars(extend("minLength" = 1))]
    pub value: String,
}

/// Nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterPropertyStatus {}
