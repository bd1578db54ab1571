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

/// The zero value of a schema's objects.
pub(super) fn object(schema: &Schema) -> Value {
    if !is_builtin(schema) {
        return Value::Object(Map::new());
    }
    zero(schema, |field| ROOT_STRUCTS.contains(&field))
}

/// Only built-in types are made of named types; every schema may name ObjectMeta.
fn is_builtin(schema: &Schema) -> bool {
    let named = |r: &Ref| matches!(r, Ref::Named(_));
    schema
        .properties
        .iter()
        .filter(|(name, _)| &***name != "metadata")
        .any(|(_, r)| match r {
            Ref::Named(_) => true,
            Ref::Inline(s) => s.items.as_ref().is_some_and(named) || s.additional.as_ref().is_some_and(named),
        })
}

fn zero(schema: &Schema, is_struct: impl Fn(&str) -> bool) -> Value {
    let mut out = Map::new();
    for (field, r) in &schema.properties {
        let value = match (r, resolve(r)) {
            (Ref::Named(owner), Some(below)) if is_struct(field) && below.kind == Type::Object => {
                let owner = owner.rsplit('.').next().unwrap_or_default();
                zero(below, |field| STRUCTS.contains(&(owner, field)))
            }
            (_, Some(below)) if schema.required.contains(field) => match below.kind {
                Type::String => "".into(),
                Type::Integer | Type::Number => 0.into(),
                Type::Boolean => false.into(),
                _ => Value::Null,
            },
            _ => continue,
        };
        out.insert(field.to_string(), value);
    }
    Value::Object(out)
}
