//! Placement: which clusters. PlacementDecision: the answer, in slices.

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, LabelSelector, LabelSelectorRequirement, Time},
    util::intstr::IntOrString,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    cluster::v1::TaintEffect,
    schema::{self, QUALIFIED_NAME, status_object},
};

/// How a topology key may look: a label key.
const TOPOLOGY_KEY: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";

/// Which clusters are wanted.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cluster.open-cluster-management.io",
    version = "v1beta1",
    kind = "Placement",
    doc = "Selects clusters out of the sets that are bound to its namespace.",
    namespaced,
    status = "PlacementStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled",
    printcolumn = r#"{"name":"Succeeded","type":"string","jsonPath":".status.conditions[?(@.type==\"PlacementSatisfied\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"PlacementSatisfied\")].reason"}"#,
    printcolumn = r#"{"name":"SelectedClusters","type":"integer","jsonPath":".status.numberOfSelectedClusters"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PlacementSpec {
    /// The sets to select from; all bound ones when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_sets: Vec<String>,
    /// How many clusters; all that match when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_of_clusters: Option<i32>,
    /// Requirements; a cluster must meet one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predicates: Vec<ClusterPredicate>,
    /// What makes one cluster better than another.
    #[serde(default)]
    pub prioritizer_policy: PrioritizerPolicy,
    /// How the clusters are to be spread.
    #[serde(default)]
    pub spread_policy: SpreadPolicy,
    /// Taints that are put up with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// How the decisions are grouped.
    #[serde(default)]
    pub decision_strategy: DecisionStrategy,
    /// Order of the decisions.
    #[serde(default)]
    #[schemars(extend("x-default" = "ClusterName"))]
    pub sort_by: PlacementSortByType,
    /// How often changed scores may change the decisions, like `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "1m", "pattern" = "^[0-9]+[hms]$"))]
    pub score_rate_limit: Option<String>,
}

/// Order of decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PlacementSortByType {
    /// By name.
    #[default]
    ClusterName,
    /// The best first.
    Score,
}

/// A requirement on clusters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPredicate {
    /// What a cluster must match.
    #[serde(default)]
    pub required_cluster_selector: ClusterSelector,
}

/// Matches clusters by labels, claims and expressions, all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSelector {
    /// By labels.
    #[serde(default)]
    #[schemars(schema_with = "schema::label_selector")]
    pub label_selector: LabelSelector,
    /// By claims.
    #[serde(default)]
    pub claim_selector: ClusterClaimSelector,
    /// By CEL expressions.
    #[serde(default)]
    pub cel_selector: ClusterCelSelector,
}

/// Matches clusters by their claims.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterClaimSelector {
    /// Requirements on claims, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::requirements")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// Matches clusters by CEL expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterCelSelector {
    /// Expressions over `managedCluster`, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cel_expressions: Vec<String>,
}

/// What makes one cluster better than another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrioritizerPolicy {
    /// `Additive`: the defaults and these. `Exact`: only these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "Additive"))]
    pub mode: Option<String>,
    /// The prioritizers and their weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configurations: Vec<PrioritizerConfig>,
}

/// One prioritizer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrioritizerConfig {
    /// Where its scores come from.
    pub score_coordinate: ScoreCoordinate,
    /// Its weight, -10 to 10; 0 leaves it out.
    #[serde(default = "one")]
    #[schemars(extend("x-default" = 1, "minimum" = -10, "maximum" = 10))]
    pub weight: i32,
}

fn one() -> i32 {
    1
}

/// Where scores come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScoreCoordinate {
    /// Built in, or an add-on's.
    #[serde(default, rename = "type")]
    #[schemars(extend("x-default" = "BuiltIn", "x-required" = true))]
    pub type_: ScoreCoordinateType,
    /// Name of the built-in prioritizer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub built_in: String,
    /// The add-on's score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_on: Option<AddOnScore>,
}

/// Kinds of score sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScoreCoordinateType {
    /// Computed by the hub.
    #[default]
    BuiltIn,
    /// Read from AddOnPlacementScores.
    AddOn,
}

/// A score in AddOnPlacementScores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddOnScore {
    /// Name of the AddOnPlacementScore in each cluster's namespace.
    pub resource_name: String,
    /// Name of the score in it.
    pub score_name: String,
}

/// How clusters are to be spread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpreadPolicy {
    /// The constraints, the more important first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 8))]
    pub spread_constraints: Vec<SpreadConstraintsTerm>,
}

/// A constraint on the spread over one topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpreadConstraintsTerm {
    /// The label or claim whose values are the topology.
    #[schemars(extend("pattern" = TOPOLOGY_KEY, "maxLength" = 316))]
    pub topology_key: String,
    /// Whether the key is a label or a claim.
    pub topology_key_type: TopologyKeyType,
    /// By how many clusters two values may differ.
    #[serde(default = "one")]
    #[schemars(extend("x-default" = 1, "minimum" = 1))]
    pub max_skew: i32,
    /// What happens when that cannot be.
    #[serde(default)]
    #[schemars(extend("x-default" = "ScheduleAnyway"))]
    pub when_unsatisfiable: UnsatisfiableMaxSkewAction,
}

/// What a topology key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TopologyKeyType {
    /// A label.
    Label,
    /// A claim.
    Claim,
}

/// What happens when clusters cannot be spread as wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UnsatisfiableMaxSkewAction {
    /// Fewer clusters are selected.
    DoNotSchedule,
    /// They are selected all the same.
    #[default]
    ScheduleAnyway,
}

/// Puts up with a taint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint; empty, with `Exists`, is any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(extend("pattern" = QUALIFIED_NAME, "maxLength" = 316))]
    pub key: String,
    /// `Equal` compares the value, `Exists` does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "Equal"))]
    pub operator: Option<String>,
    /// Value of the taint.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(extend("maxLength" = 1024))]
    pub value: String,
    /// Effect of the taint; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// For how many seconds from when the taint was added; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// How decisions are grouped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionStrategy {
    /// The groups.
    #[serde(default)]
    pub group_strategy: GroupStrategy,
}

/// The groups of decisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupStrategy {
    /// Named groups; the first that matches takes the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decision_groups: Vec<DecisionGroup>,
    /// How many clusters, or what share of all, make a group of the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        schema_with = "schema::int_or_string",
        extend("x-default" = "100%", "pattern" = "^((100|[1-9][0-9]{0,1})%|[1-9][0-9]*)$")
    )]
    pub clusters_per_decision_group: Option<IntOrString>,
}

/// A named group of decisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionGroup {
    /// Its name.
    #[schemars(extend("pattern" = "^[a-zA-Z0-9][-A-Za-z0-9_.]{0,61}[a-zA-Z0-9]$"))]
    pub group_name: String,
    /// Which clusters are in it.
    #[serde(rename = "groupClusterSelector")]
    pub cluster_selector: GroupClusterSelector,
}

/// Matches the clusters of a group by labels and claims, all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupClusterSelector {
    /// By labels.
    #[serde(default)]
    #[schemars(schema_with = "schema::label_selector")]
    pub label_selector: LabelSelector,
    /// By claims.
    #[serde(default)]
    pub claim_selector: ClusterClaimSelector,
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementStatus {
    /// How many clusters are selected.
    #[serde(default)]
    pub number_of_selected_clusters: i32,
    /// The groups the decisions fell into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decision_groups: Vec<DecisionGroupStatus>,
    /// Whether enough clusters were found, and whether the placement makes sense.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// When scores last changed the decisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_score_update_time: Option<Time>,
}

/// A group of decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionGroupStatus {
    /// Its index, from 0.
    #[serde(default)]
    pub decision_group_index: i32,
    /// Its name; empty for groups of the rest.
    #[serde(default)]
    pub decision_group_name: String,
    /// The PlacementDecisions of the group.
    #[serde(default)]
    pub decisions: Vec<String>,
    /// How many clusters are in it.
    #[serde(default, rename = "clusterCount")]
    #[schemars(extend("x-default" = 0))]
    pub clusters_count: i32,
}

status_object! {
    /// A slice of a placement's decisions.
    PlacementDecision, "cluster.open-cluster-management.io", "v1beta1", "placementdecisions",
    PlacementDecisionStatus
}

/// The clusters decided for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementDecisionStatus {
    /// The clusters, at most a hundred.
    pub decisions: Vec<ClusterDecision>,
}

/// A cluster decided for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterDecision {
    /// Its name.
    pub cluster_name: String,
    /// Why; empty.
    pub reason: String,
    /// Its score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<i64>,
}
