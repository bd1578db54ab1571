//! What an object looks like before it is created: for a built-in type not empty, because Go writes the structs in it.
//!
//! kube-apiserver compares a new object with the zero value of its Go type, so the creator of a Deployment does not own
//! `spec` or `spec.template` themselves. A CustomResourceDefinition's objects start from nothing.

use super::typed::resolve;
use crate::schema::{Ref, Schema, Type};
use serde_json::{Map, Value};

/// Struct fields that are no pointers in k8s.io/api, as (end of the owner's type name, field). `spec`, `status` and the
/// like of a whole object are in `ROOT_STRUCTS`.
const STRUCTS: &[(&str, &str)] = &[
    ("DaemonSetSpec", "template"),
    ("DaemonSetSpec", "updateStrategy"),
    ("DeploymentSpec", "strategy"),
    ("DeploymentSpec", "template"),
    ("ReplicaSetSpec", "template"),
    ("StatefulSetSpec", "template"),
    ("StatefulSetSpec", "updateStrategy"),
    ("SelfSubjectReviewStatus", "userInfo"),
    ("TokenReviewStatus", "user"),
    ("HorizontalPodAutoscalerSpec", "scaleTargetRef"),
    ("CronJobSpec", "jobTemplate"),
    ("JobTemplateSpec", "metadata"),
    ("JobTemplateSpec", "spec"),
    ("JobSpec", "template"),
    ("PodTemplateSpec", "metadata"),
    ("PodTemplateSpec", "spec"),
    ("NodeDaemonEndpoints", "kubeletEndpoint"),
    ("NodeStatus", "daemonEndpoints"),
    ("NodeStatus", "nodeInfo"),
    ("PersistentVolumeClaimSpec", "resources"),
    ("ServiceStatus", "loadBalancer"),
    ("FlowSchemaSpec", "priorityLevelConfiguration"),
    ("IngressStatus", "loadBalancer"),
    ("NetworkPolicySpec", "podSelector"),
    ("ResourceClaimSpec", "devices"),
    ("ResourceSliceSpec", "pool"),
    ("VolumeAttachmentSpec", "source"),
    ("CustomResourceDefinitionSpec", "names"),
    ("CustomResourceDefinitionStatus", "acceptedNames"),
];

const ROOT_STRUCTS: &[&str] = &[
    "spec",
    "status",
    "template",
    "target",
    "involvedObject",
    "source",
    "deprecatedSource",
    "regarding",
    "roleRef",
];

/// Fields Go writes always although they are not required, and required ones it does not write when empty.
const WRITTEN: &[(&str, &str)] = &[
    ("StatefulSetSpec", "serviceName"),
    ("StatefulSetStatus", "availableReplicas"),
    ("HorizontalPodAutoscalerStatus", "currentMetrics"),
    ("FlowSchemaSpec", "matchingPrecedence"),
    ("PodDisruptionBudgetStatus", "disruptionsAllowed"),
    ("PodDisruptionBudgetStatus", "currentHealthy"),
    ("PodDisruptionBudgetStatus", "desiredHealthy"),
    ("PodDisruptionBudgetStatus", "expectedPods"),
    ("RoleRef", "apiGroup"),
    ("DeviceClaim", "requests"),
    ("CustomResourceDefinitionStatus", "conditions"),
    ("CustomResourceDefinitionStatus", "storedVersions"),
];
const OMITTED: &[(&str, &str)] = &[
    ("ValidatingAdmissionPolicyBindingSpec", "policyName"),
    ("ValidatingAdmissionPolicyBindingSpec", "validationActions"),
    ("IPAddressSpec", "parentRef"),
];
const ROOT_WRITTEN: &[&str] = &[
    "rules",
    "endpoints",
    "ports",
    "firstTimestamp",
    "lastTimestamp",
    "eventTime",
    "deprecatedFirstTimestamp",
    "deprecatedLastTimestamp",
    "reportingComponent",
];

/// The zero value of a schema's objects.
pub(super) fn object(schema: &Schema) -> Value {
    if !is_builtin(schema) {
        return Value::Object(Map::new());
    }
    zero(schema, "")
}

/// Only built-in types are made of Kubernetes' named types; any schema may name ObjectMeta.
fn is_builtin(schema: &Schema) -> bool {
    let named = |r: &Ref| matches!(r, Ref::Named(name) if name.starts_with("io.k8s."));
    schema
        .properties
        .iter()
        .filter(|(name, _)| &***name != "metadata")
        .any(|(_, r)| match r {
            Ref::Named(_) => true,
            Ref::Inline(s) => s.items.as_ref().is_some_and(named) || s.additional.as_ref().is_some_and(named),
        })
}

/// `owner`: the end of the type's name, `""` for a whole object.
fn zero(schema: &Schema, owner: &str) -> Value {
    let in_table = |table: &[(&str, &str)], field: &str| table.contains(&(owner, field));
    let at_root = |table: &[&str], field: &str| owner.is_empty() && table.contains(&field);
    let mut out = Map::new();
    for (field, r) in &schema.properties {
        let Some(below) = resolve(r) else { continue };
        let required = schema.required.contains(field) && !in_table(OMITTED, field);
        let is_struct = in_table(STRUCTS, field) || at_root(ROOT_STRUCTS, field);
        let value = if is_struct && below.kind == Type::Object {
            // A field with a patch strategy has its type spelled out; such a struct has no structs in it.
            let owner = match r {
                Ref::Named(name) => name.rsplit('.').next().unwrap_or_default(),
                Ref::Inline(_) => "(inline)",
            };
            zero(below, owner)
        } else if required || in_table(WRITTEN, field) || at_root(ROOT_WRITTEN, field) {
            match below.kind {
                Type::String if below.format.is_none() => "".into(),
                Type::Integer | Type::Number => 0.into(),
                Type::Boolean => false.into(),
                _ => Value::Null,
            }
        } else {
            continue;
        };
        out.insert(field.to_string(), value);
    }
    Value::Object(out)
}
