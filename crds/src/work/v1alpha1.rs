//! ManifestWorkReplicaSet: one work on every cluster that placements select.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    cluster::v1alpha1::RolloutStrategy, optional_spec::optional_spec, schema, work::v1::ManifestWorkSpec,
};

optional_spec!(ManifestWorkReplicaSetSpec);

/// Which work, on which clusters.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "work.open-cluster-management.io",
    version = "v1alpha1",
    kind = "ManifestWorkReplicaSet",
    doc = "Makes one work on every cluster that its placements select.",
    namespaced,
    status = "ManifestWorkReplicaSetStatus",
    shortname = "mwrs",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled",
    printcolumn = r#"{"name":"Placement","type":"string","jsonPath":".status.conditions[?(@.type==\"PlacementVerified\")].reason"}"#,
    printcolumn = r#"{"name":"Found","type":"string","jsonPath":".status.conditions[?(@.type==\"PlacementVerified\")].status"}"#,
    printcolumn = r#"{"name":"ManifestWorks","type":"string","jsonPath":".status.conditions[?(@.type==\"ManifestworkApplied\")].reason"}"#,
    printcolumn = r#"{"name":"Applied","type":"string","jsonPath":".status.conditions[?(@.type==\"ManifestworkApplied\")].status"}"#
)]
#[serde(rename_all = "camelCase", remote = "Self")]
pub struct ManifestWorkReplicaSetSpec {
    /// Spec of the works.
    #[serde(default)]
    pub manifest_work_template: ManifestWorkSpec,
    /// The placements, and how a change reaches their clusters.
    #[schemars(extend("minItems" = 1))]
    pub placement_refs: Vec<LocalPlacementReference>,
    /// Whether the replica set stays until its works are gone when it is deleted.
    #[serde(default)]
    #[schemars(extend("x-default" = "Background", "x-required" = true))]
    pub cascade_deletion_policy: CascadeDeletionPolicy,
}

/// How a replica set goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CascadeDeletionPolicy {
    /// At once; its works go after it.
    #[default]
    Background,
    /// When its works are gone.
    Foreground,
}

/// A placement of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalPlacementReference {
    /// Its name.
    #[schemars(extend("minLength" = 1))]
    pub name: String,
    /// How a change reaches its clusters.
    #[serde(default)]
    #[schemars(extend("x-default" = {"type": "All", "all": {"progressDeadline": "None"}}))]
    pub rollout_strategy: RolloutStrategy,
}

/// How the works are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestWorkReplicaSetStatus {
    /// Whether the placements are there, the works applied, the rollout through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Counts over all placements.
    #[serde(default)]
    pub summary: ManifestWorkReplicaSetSummary,
    /// Counts of each placement.
    #[serde(default, rename = "placementSummary", skip_serializing_if = "Vec::is_empty")]
    pub placements_summary: Vec<PlacementSummary>,
}

/// How the works of one placement are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementSummary {
    /// Name of the placement.
    #[serde(default)]
    pub name: String,
    /// How many decision groups have works, in words.
    #[serde(default)]
    pub available_decision_groups: String,
    /// Its counts.
    #[serde(default)]
    pub summary: ManifestWorkReplicaSetSummary,
}

/// Counts of works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestWorkReplicaSetSummary {
    /// Works that there are.
    #[serde(default)]
    #[schemars(extend("format" = null))]
    pub total: i64,
    /// Works on their way.
    #[serde(default)]
    #[schemars(extend("format" = null))]
    pub progressing: i64,
    /// Works whose objects are all there.
    #[serde(default)]
    #[schemars(extend("format" = null))]
    pub available: i64,
    /// Works not as good as they should be.
    #[serde(default)]
    #[schemars(extend("format" = null))]
    pub degraded: i64,
    /// Works that are applied.
    #[serde(default)]
    #[schemars(extend("format" = null))]
    pub applied: i64,
    /// Works that there should be.
    #[serde(default)]
    #[schemars(extend("format" = null))]
    pub desired_total: i64,
    /// Works that have the current template.
    #[serde(default)]
    #[schemars(extend("format" = null))]
    pub updated: i64,
}
