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
    ("TokenRequestSpec", "boundObjectRef"),
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
    "reportingInstance",
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

/// Writes what Go's encoder always writes of a built-in object: structs that are no pointers, required lists (`null`)
/// and numbers. Statuses are left alone, and so is what lies in lists and maps.
pub fn fill(schema: &Schema, object: &mut Value) {
    if is_builtin(schema) {
        fill_struct(schema, object, "");
    }
}

fn fill_struct(schema: &Schema, object: &mut Value, owner: &str) {
    let Value::Object(map) = object else { return };
    for (field, r) in &schema.properties {
        if owner.is_empty() && matches!(&**field, "status" | "metadata") {
            continue;
        }
        let Some(below) = resolve(r) else { continue };
        let is_struct =
            STRUCTS.contains(&(owner, field)) || (owner.is_empty() && ROOT_STRUCTS.contains(&&**field));
        if below.kind == Type::Object && !below.properties.is_empty() {
            if is_struct && map.get(&**field).is_none_or(Value::is_null) {
                map.insert(field.to_string(), Value::Object(Map::new()));
            }
            if let (Ref::Named(name), Some(value)) = (r, map.get_mut(&**field)) {
                fill_struct(below, value, name.rsplit('.').next().unwrap_or_default());
            }
            continue;
        }
        let written = (schema.required.contains(field) && !OMITTED.contains(&(owner, field)))
            || (owner, &**field) == ("StatefulSetSpec", "serviceName")
            || (owner.is_empty() && &**field == "rules");
        let value = match below.kind {
            Type::Array => Value::Null,
            Type::Integer => 0.into(),
            Type::String if &**field == "serviceName" => "".into(),
            _ => continue,
        };
        if written && !map.contains_key(&**field) {
            map.insert(field.to_string(), value);
        }
    }
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
