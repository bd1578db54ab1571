//! ManifestWork: what the hub wants on one managed cluster. AppliedManifestWork: what the agent applied of it there.

mod applied;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use applied::*;

use crate::{
    Manifest,
    optional_spec::optional_spec,
    schema::{self, DNS_SUBDOMAIN},
};

optional_spec!(ManifestWorkSpec);

/// The field manager of server-side apply when a work names none. Others must start with it.
pub const DEFAULT_FIELD_MANAGER: &str = "work-agent";

/// What is to be on a managed cluster, and how.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "work.open-cluster-management.io",
    version = "v1",
    kind = "ManifestWork",
    doc = "Objects that the hub wants on the managed cluster whose namespace this is.",
    namespaced,
    status = "ManifestWorkStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", remote = "Self")]
pub struct ManifestWorkSpec {
    /// The objects.
    #[serde(default)]
    pub workload: ManifestsTemplate,
    /// What becomes of the objects when the work is deleted; all go when this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_option: Option<DeleteOption>,
    /// How single objects are applied, and what is reported of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifest_configs: Vec<ManifestConfigOption>,
    /// On whose behalf the agent applies; without it, on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<ManifestWorkExecutor>,
}

/// The objects of a work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestsTemplate {
    /// The objects, in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Manifest>,
}

/// What becomes of the applied objects when their work goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeleteOption {
    /// Which objects are deleted with the work.
    #[serde(default)]
    #[schemars(extend("x-default" = "Foreground"))]
    pub propagation_policy: DeletePropagationPolicyType,
    /// The objects that stay, for `SelectivelyOrphan`.
    #[serde(
        default,
        rename = "selectivelyOrphans",
        skip_serializing_if = "Option::is_none"
    )]
    pub selectively_orphan: Option<SelectivelyOrphan>,
    /// Seconds after completion until the hub deletes the work: 0 is at once, absent is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// Which objects are deleted with their work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletePropagationPolicyType {
    /// All.
    #[default]
    Foreground,
    /// None.
    Orphan,
    /// All but those the rules name.
    SelectivelyOrphan,
}

/// The objects that stay when their work goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SelectivelyOrphan {
    /// One rule an object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphaning_rules: Vec<OrphaningRule>,
}

/// Names one object that stays; it has the shape of a [`ResourceIdentifier`], matched exactly.
pub type OrphaningRule = ResourceIdentifier;

/// Names an object by its resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceIdentifier {
    /// API group; empty is the core group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Plural resource name, like `deployments`.
    pub resource: String,
    /// Name of the object.
    pub name: String,
    /// Its namespace; empty for a cluster-scoped object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// How one object is applied, and what is reported of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestConfigOption {
    /// The object; name and namespace may hold `*`.
    pub resource_identifier: ResourceIdentifier,
    /// Which values are reported back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feedback_rules: Vec<FeedbackRule>,
    /// How it is applied; `Update` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
    /// Conditions derived from the object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["condition"]))]
    pub condition_rules: Vec<ConditionRule>,
    /// How feedback is gathered. Muster watches in both cases.
    #[serde(default)]
    #[schemars(extend("x-default" = "Poll"))]
    pub feedback_scrape_type: FeedbackScrapeType,
}

/// How feedback is gathered from the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FeedbackScrapeType {
    /// Read at an interval.
    #[default]
    Poll,
    /// Followed as it changes.
    Watch,
}

/// A condition derived from an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.type != 'CEL' || self.condition != \"\"",
    "message": "Condition is required for CEL rules",
}]))]
pub struct ConditionRule {
    /// Type of the condition it sets.
    pub condition: String,
    /// How it is evaluated.
    #[serde(rename = "type")]
    pub type_: ConditionRuleType,
    /// CEL expressions over `object`; the condition is True when all are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cel_expressions: Vec<String>,
    /// Message of the condition.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// CEL expression over `object` and `result` that makes the message; it wins over `message`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message_expression: String,
}

/// How a condition rule is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionRuleType {
    /// By what is known of the object's kind.
    WellKnownConditions,
    /// By the rule's CEL expressions.
    #[serde(rename = "CEL")]
    Cel,
}

/// On whose behalf a work is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestWorkExecutor {
    /// Who must be allowed to write the objects.
    #[serde(default)]
    pub subject: ManifestWorkExecutorSubject,
}

/// Who must be allowed to write a work's objects on the managed cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestWorkExecutorSubject {
    /// What kind of subject it is.
    #[serde(rename = "type")]
    pub type_: ManifestWorkExecutorSubjectType,
    /// The service account, for `ServiceAccount`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ManifestWorkSubjectServiceAccount>,
}

/// Kinds of executor subjects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ManifestWorkExecutorSubjectType {
    /// A service account of the managed cluster.
    #[default]
    ServiceAccount,
}

/// A service account of the managed cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestWorkSubjectServiceAccount {
    /// Its namespace.
    #[schemars(extend("pattern" = DNS_SUBDOMAIN, "minLength" = 1, "maxLength" = 253))]
    pub namespace: String,
    /// Its name.
    #[schemars(extend("pattern" = DNS_SUBDOMAIN, "minLength" = 1, "maxLength" = 253))]
    pub name: String,
}

/// How an object is brought to what the work says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// The strategy.
    #[serde(default, rename = "type")]
    #[schemars(extend("x-default" = "Update", "x-required" = true))]
    pub type_: UpdateStrategyType,
    /// Settings for `ServerSideApply`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_side_apply: Option<ServerSideApplyConfig>,
}

/// Ways to bring an object to what the work says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdateStrategyType {
    /// Create it; put back whatever differs from the manifest.
    #[default]
    Update,
    /// Create it, and leave it alone from then on.
    CreateOnly,
    /// Apply on the server side, with field ownership.
    ServerSideApply,
    /// Never write; only report.
    ReadOnly,
}

/// Settings of server-side apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerSideApplyConfig {
    /// Whether to take over fields that others own.
    #[serde(default)]
    pub force: bool,
    /// The field manager, `work-agent` or a name that begins so.
    #[serde(default = "default_field_manager")]
    #[schemars(extend("x-default" = "work-agent", "pattern" = "^work-agent"))]
    pub field_manager: String,
    /// Fields that are left to others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["condition"]))]
    pub ignore_fields: Vec<IgnoreField>,
}

impl Default for ServerSideApplyConfig {
    fn default() -> Self {
        Self {
            force: false,
            field_manager: default_field_manager(),
            ignore_fields: Vec::new(),
        }
    }
}

fn default_field_manager() -> String {
    DEFAULT_FIELD_MANAGER.to_owned()
}

/// Fields of an object that are left to others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IgnoreField {
    /// When they are left alone.
    #[serde(default)]
    #[schemars(extend("x-default" = "OnSpokePresent", "x-required" = true))]
    pub condition: IgnoreFieldsCondition,
    /// Fields as dotted paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub json_paths: Vec<String>,
    /// Fields as JSON pointers (RFC 6901).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub json_pointers: Vec<String>,
    /// Fields as jq paths.
    #[serde(default, rename = "jqPathExpressions", skip_serializing_if = "Vec::is_empty")]
    pub jq_path_expressions: Vec<String>,
}

/// When ignored fields are left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IgnoreFieldsCondition {
    /// Once the object is there.
    #[default]
    OnSpokePresent,
    /// While only the cluster changes them; a change of the manifest applies them again.
    OnSpokeChange,
}

/// Values of an object that are reported back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeedbackRule {
    /// How the values are chosen.
    #[serde(rename = "type")]
    pub type_: FeedBackType,
    /// The values, for `JSONPaths`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub json_paths: Vec<JsonPath>,
}

/// How feedback values are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FeedBackType {
    /// By what is known of the object's kind.
    WellKnownStatus,
    /// By JSON paths.
    #[serde(rename = "JSONPaths")]
    JsonPaths,
}

/// One feedback value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JsonPath {
    /// Name it is reported by.
    pub name: String,
    /// API version of the object the path is made for; any when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Kubernetes JSONPath, like `.status.readyReplicas`.
    pub path: String,
}

/// What became of a work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestWorkStatus {
    /// Conditions of the whole work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Conditions and values of each object.
    #[serde(default)]
    pub resource_status: ManifestResourceStatus,
}

/// What became of the objects of a work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestResourceStatus {
    /// One entry an object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<ManifestCondition>,
}

/// What became of one object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestCondition {
    /// The object.
    pub resource_meta: ManifestResourceMeta,
    /// Values reported by its feedback rules.
    #[serde(default, rename = "statusFeedback")]
    pub status_feedbacks: StatusFeedbackResult,
    /// Its conditions.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions", extend("x-required" = true))]
    pub conditions: Vec<Condition>,
}

/// Names an object of a work by its place and all its coordinates, which are all written, also the empty ones: as OCM does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestResourceMeta {
    /// Its index in the work, from 0.
    pub ordinal: i32,
    /// API group; empty is the core group.
    #[serde(default)]
    pub group: String,
    /// API version.
    #[serde(default)]
    pub version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
    /// Plural resource name.
    #[serde(default)]
    pub resource: String,
    /// Name of the object.
    #[serde(default)]
    pub name: String,
    /// Its namespace; empty for a cluster-scoped object.
    #[serde(default)]
    pub namespace: String,
}

/// Values reported of an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusFeedbackResult {
    /// The values, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub values: Vec<FeedbackValue>,
}

/// One reported value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeedbackValue {
    /// Name of the rule's path or of the well-known value.
    pub name: String,
    /// The value.
    #[serde(rename = "fieldValue")]
    pub value: FieldValue,
}

/// A value and its type; the field of its type's name holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldValue {
    /// Which field is set.
    #[serde(rename = "type")]
    pub type_: ValueType,
    /// The value of an `Integer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integer: Option<i64>,
    /// The value of a `String`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub string: Option<String>,
    /// The value of a `Boolean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boolean: Option<bool>,
    /// The JSON text of a `JsonRaw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 1024))]
    pub json_raw: Option<String>,
}

/// Types of reported values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValueType {
    /// A whole number.
    Integer,
    /// Text.
    String,
    /// True or false.
    Boolean,
    /// Anything else, as JSON text.
    JsonRaw,
}
