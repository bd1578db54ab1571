//! Whether a webhook, policy or binding wants to see a write (apiserver `admission/plugin/webhook/predicates`). Pure.

use super::Operation;
use crate::registry::Resource;
use crate::registry::strategy::selector;
use serde_json::Value;

impl Operation {
    /// As rules and reviews spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// What a rule is held against.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What happens.
    pub operation: Operation,
    /// To which resource, in the version matched.
    pub resource: &'a Resource,
    /// `""` for the object itself.
    pub subresource: &'a str,
    /// Name of the object.
    pub name: &'a str,
}

fn texts<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    value[key]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn any(rule: &Value, key: &str, wanted: &str) -> bool {
    texts(rule, key).any(|v| v == "*" || v == wanted)
}

/// Whether one `RuleWithOperations` (with `resourceNames` or without) matches.
pub fn rule(rule: &Value, subject: &Subject<'_>) -> bool {
    let r = subject.resource;
    let in_scope = match rule["scope"].as_str() {
        None | Some("*") => true,
        // A namespace is looked at as cluster-scoped, whatever its requests look like.
        Some("Namespaced") => r.namespaced,
        Some("Cluster") => !r.namespaced,
        Some(_) => false,
    };
    let named = texts(rule, "resourceNames").next().is_none()
        || texts(rule, "resourceNames").any(|n| n == subject.name);
    in_scope
        && named
        && any(rule, "operations", subject.operation.as_str())
        && any(rule, "apiGroups", &r.group)
        && any(rule, "apiVersions", &r.version)
        && texts(rule, "resources").any(|pattern| {
            let (resource, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
            (resource == "*" || resource == r.plural) && (sub == "*" || sub == subject.subresource)
        })
}

/// Whether any rule of a list matches.
pub fn rules(list: &Value, subject: &Subject<'_>) -> bool {
    list.as_array().into_iter().flatten().any(|r| rule(r, subject))
}

/// Whether a selector, or none, leaves nothing out.
pub fn is_everything(selector: &Value) -> bool {
    let empty = |key: &str| match &selector[key] {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    empty("matchLabels") && empty("matchExpressions")
}

/// Whether an object selector wants one of these objects, by their labels. No selector wants all.
pub fn objects(wanted: &Value, new: Option<&Value>, old: Option<&Value>) -> bool {
    is_everything(wanted)
        || [new, old]
            .into_iter()
            .flatten()
            .any(|object| selector::matches(wanted, &object["metadata"]["labels"]))
}

/// Whether a namespace selector wants an object of that namespace: `labels` of the namespace, or of the object when it
/// is one. `None` for other cluster-scoped objects, which no selector leaves out.
pub fn namespace(wanted: &Value, labels: Option<&Value>) -> bool {
    is_everything(wanted) || labels.is_none_or(|labels| selector::matches(wanted, labels))
}

/// Configurations of admission itself are never subject to it: a broken one could otherwise not be taken away.
pub fn is_exempt(r: &Resource) -> bool {
    r.group == "admissionregistration.k8s.io"
}
