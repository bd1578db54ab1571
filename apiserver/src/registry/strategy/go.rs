//! How Go prints a struct into a field error: all of its fields, in the order they are declared in.

use serde_json::{Value, json};

/// The fields of a struct: Go's name, the API's, and what is in it.
pub(super) type Shape = [(&'static str, &'static str, Part)];

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// Text, `""` when absent.
    Text,
    /// What is `null` when absent.
    Plain,
    /// A struct that is always there.
    Own(&'static Shape),
    /// A pointer to a struct.
    One(&'static Shape),
    /// A list of structs.
    Many(&'static Shape),
}

/// The struct as Go prints it.
pub(super) fn shown(value: &Value, shape: &Shape) -> String {
    let parts = shape.iter().map(|(name, key, part)| {
        let value = &value[*key];
        let shown = match part {
            Part::Text => json!(value.as_str().unwrap_or_default()).to_string(),
            Part::Plain => value.to_string(),
            Part::One(_) if value.is_null() => "null".to_owned(),
            Part::Own(shape) | Part::One(shape) => shown(value, shape),
            Part::Many(shape) => many(value, shape),
        };
        format!("{name:?}:{shown}")
    });
    format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
}

/// A list of structs as Go prints it.
pub(super) fn many(value: &Value, shape: &Shape) -> String {
    let Some(items) = value.as_array() else {
        return "null".to_owned();
    };
    let items = items.iter().map(|item| shown(item, shape));
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

pub(super) const OBJECT_REFERENCE: &Shape = &[
    ("Kind", "kind", Part::Text),
    ("Namespace", "namespace", Part::Text),
    ("Name", "name", Part::Text),
    ("UID", "uid", Part::Text),
    ("APIVersion", "apiVersion", Part::Text),
    ("ResourceVersion", "resourceVersion", Part::Text),
    ("FieldPath", "fieldPath", Part::Text),
];
const REQUIREMENT: &Shape = &[
    ("Key", "key", Part::Text),
    ("Operator", "operator", Part::Text),
    ("Values", "values", Part::Plain),
];
pub(super) const NODE_SELECTOR: &Shape = &[(
    "NodeSelectorTerms",
    "nodeSelectorTerms",
    Part::Many(&[
        ("MatchExpressions", "matchExpressions", Part::Many(REQUIREMENT)),
        ("MatchFields", "matchFields", Part::Many(REQUIREMENT)),
    ]),
)];
pub(super) const NODE_AFFINITY: &Shape = &[("Required", "required", Part::One(NODE_SELECTOR))];
pub(super) const TOLERATION: &Shape = &[
    ("Key", "key", Part::Text),
    ("Operator", "operator", Part::Text),
    ("Value", "value", Part::Text),
    ("Effect", "effect", Part::Text),
    ("TolerationSeconds", "tolerationSeconds", Part::Plain),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_show_all_they_have() {
        let reference = json!({"kind": "Pod", "name": "p"});
        assert_eq!(
            shown(&reference, OBJECT_REFERENCE),
            "{\"Kind\":\"Pod\",\"Namespace\":\"\",\"Name\":\"p\",\"UID\":\"\",\"APIVersion\":\"\",\"ResourceVersion\":\"\",\"FieldPath\":\"\"}"
        );
        let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "Exists"}]}]}});
        assert_eq!(
            shown(&affinity, NODE_AFFINITY),
            "{\"Required\":{\"NodeSelectorTerms\":[{\"MatchExpressions\":[{\"Key\":\"k\",\"Operator\":\"Exists\",\"Values\":null}],\"MatchFields\":null}]}}"
        );
        assert_eq!(shown(&json!({}), NODE_AFFINITY), "{\"Required\":null}");
    }
}
