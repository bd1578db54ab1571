//! ClusterClaim: a fact a cluster tells of itself. AddOnPlacementScore: numbers placements can weigh clusters by.
//! RolloutStrategy: how a change reaches many clusters.

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, Time},
    util::intstr::IntOrString,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    optional_spec::optional_spec,
    schema::{self, status_object},
};

optional_spec!(ClusterClaimSpec);

/// What is claimed.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cluster.open-cluster-management.io",
    version = "v1alpha1",
    kind = "ClusterClaim",
    doc = "On a managed cluster: a fact about it, reported to the hub.",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", remote = "Self")]
pub struct ClusterClaimSpec {
    /// The fact.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(extend("minLength" = 1, "maxLength" = 1024))]
    pub value: String,
}

status_object! {
    /// Scores of one cluster, in its namespace, for placements to weigh it by.
    AddOnPlacementScore, "cluster.open-cluster-management.io", "v1alpha1", "addonplacementscores",
    AddOnPlacementScoreStatus
}

/// The scores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddOnPlacementScoreStatus {
    /// Conditions of the scores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// One entry a score.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub scores: Vec<AddOnPlacementScoreItem>,
    /// When the scores expire; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Time>,
}

/// One score.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddOnPlacementScoreItem {
    /// Name of the score.
    pub name: String,
    /// Its value, -100 to 100.
    #[schemars(extend("minimum" = -100, "maximum" = 100))]
    pub value: i32,
}

const COUNT_OR_PERCENT: &str = r"^((100|[0-9]{1,2})%|[0-9]+)$";
/// As OCM has it, with its quirk: a number and a unit, or anything that ends in None.
const DEADLINE: &str = "^(([0-9])+[h|m|s])|None$";

/// How a change reaches many clusters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStrategy {
    /// The way; the field of its name holds its settings.
    #[serde(default, rename = "type")]
    #[schemars(extend("x-default" = "All"))]
    pub type_: RolloutType,
    /// Settings for `All`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<RolloutAll>,
    /// Settings for `Progressive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progressive: Option<RolloutProgressive>,
    /// Settings for `ProgressivePerGroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progressive_per_group: Option<RolloutProgressivePerGroup>,
}

/// Ways a change reaches many clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutType {
    /// All at once.
    #[default]
    All,
    /// A number of clusters at a time.
    Progressive,
    /// A decision group at a time.
    ProgressivePerGroup,
}

/// When a cluster counts as done or failed, and how many may fail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutConfig {
    /// How long a cluster must have been well before the next one starts, as Go's durations are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "0"))]
    pub min_success_time: Option<String>,
    /// How long a cluster may take, like `5m`; `None` is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "None", "pattern" = DEADLINE))]
    pub progress_deadline: Option<String>,
    /// How many clusters, or what share of them, may fail before the rollout stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_string", extend("x-default" = 0, "pattern" = COUNT_OR_PERCENT))]
    pub max_failures: Option<IntOrString>,
}

/// Settings of a rollout to all clusters at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutAll {
    /// When a cluster is done or failed.
    #[serde(flatten)]
    pub config: RolloutConfig,
}

/// Settings of a rollout to a number of clusters at a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutProgressive {
    /// When a cluster is done or failed.
    #[serde(flatten)]
    pub config: RolloutConfig,
    /// Groups that come first, one after the other, and must not fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mandatory_decision_groups: Vec<MandatoryDecisionGroup>,
    /// How many clusters, or what share of them, at a time; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_string", extend("pattern" = COUNT_OR_PERCENT))]
    pub max_concurrency: Option<IntOrString>,
}

/// Settings of a rollout to a decision group at a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutProgressivePerGroup {
    /// When a cluster is done or failed.
    #[serde(flatten)]
    pub config: RolloutConfig,
    /// Groups that come first, one after the other, and must not fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mandatory_decision_groups: Vec<MandatoryDecisionGroup>,
}

/// A decision group that comes first: by name, or by index when the name is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MandatoryDecisionGroup {
    /// Name of the group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group_name: String,
    /// Index of the group.
    #[serde(default)]
    pub group_index: i32,
}
