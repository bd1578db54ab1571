//! Whether an applied configuration fits its schema, with kube-apiserver's words for what does not.

use super::path::PathElement;
use super::typed::{Field, Scalar, Shape, Ty};
use serde_json::Value;
use std::collections::BTreeSet;

/// What does not fit the schema, as (path, message).
pub(super) type Misfits = Vec<(String, String)>;

/// What does not fit the schema, in one text.
pub(super) fn complaint(ty: Ty<'_>, value: &Value) -> Option<String> {
    let mut misfits = Vec::new();
    validate(ty, value, &mut misfits);
    let mut lines = misfits.into_iter().map(|(path, message)| {
        if path.is_empty() {
            message
        } else {
            format!("{path}: {message}")
        }
    });
    let first = lines.next()?;
    let more: Vec<String> = lines.collect();
    if more.is_empty() {
        return Some(first);
    }
    Some(format!("errors:\n  {first}\n  {}", more.join("\n  ")))
}

/// Whether a configuration fits its schema. List items with the same keys do not.
pub(super) fn validate(ty: Ty<'_>, value: &Value, misfits: &mut Misfits) {
    let mut bad = |message: String| misfits.push((String::new(), message));
    match (ty.shape(value), value) {
        (_, Value::Null)
        | (Shape::Scalar(Scalar::Numeric), Value::Number(_))
        | (Shape::Scalar(Scalar::String), Value::String(_))
        | (Shape::Scalar(Scalar::Boolean), Value::Bool(_))
        | (Shape::Scalar(Scalar::Any), Value::Number(_) | Value::String(_) | Value::Bool(_)) => {}
        (Shape::Scalar(Scalar::Numeric), v) => {
            bad(format!("expected numeric (int or float), got {}", go_type(v)));
        }
        (Shape::Scalar(Scalar::String), v) => {
            bad(format!(
                "expected string, got &value.valueUnstructured{{Value:{}}}",
                go_syntax(v)
            ));
        }
        (Shape::Scalar(Scalar::Boolean), v) => bad(format!("expected boolean, got &{{{}}}", go_plain(v))),
        (Shape::Scalar(Scalar::Any), v) => bad(format!("expected any scalar, got &{{{}}}", go_plain(v))),
        (Shape::List(list), Value::Array(items)) => {
            let mut seen = BTreeSet::new();
            for (i, item) in items.iter().enumerate() {
                let element = if list.is_atomic() {
                    PathElement::Index(i64::try_from(i).unwrap_or(i64::MAX))
                } else {
                    match list.element(item) {
                        Ok(element) => element,
                        Err(e) => {
                            misfits.push((String::new(), format!("element {i}: {e}")));
                            return;
                        }
                    }
                };
                if seen.contains(&element) {
                    misfits.push((String::new(), format!("duplicate entries for key {element}")));
                }
                below(list.items, item, misfits, || element.to_string());
                seen.insert(element);
            }
        }
        (Shape::List(_), v) => bad(format!("expected list, got &{{{}}}", go_plain(v))),
        (Shape::Map(map), Value::Object(fields)) => {
            for (name, value) in fields {
                match map.field(name) {
                    Field::Unknown => {
                        misfits.push((format!(".{name}"), "field not declared in schema".into()));
                        // kube-apiserver stops at the first unknown field of a map.
                        return;
                    }
                    field => below(field.ty(), value, misfits, || format!(".{name}")),
                }
            }
        }
        (Shape::Map(_), v) => bad(format!("expected map, got &{{{}}}", go_plain(v))),
    }
}

/// Paths are only written where something does not fit.
fn below(ty: Ty<'_>, value: &Value, misfits: &mut Misfits, step: impl Fn() -> String) {
    let before = misfits.len();
    validate(ty, value, misfits);
    for (path, _) in &mut misfits[before..] {
        path.insert_str(0, &step());
    }
}

/// A value's type in Go.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go's `%v` writes it.
pub fn go_plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(s) => s.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_plain).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let fields: Vec<_> = map.iter().map(|(k, v)| format!("{k}:{}", go_plain(v))).collect();
            format!("map[{}]", fields.join(" "))
        }
        scalar => scalar.to_string(),
    }
}

/// A value as Go's `%#v` writes it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::Array(items) => {
            format!(
                "[]interface {{}}{{{}}}",
                items.iter().map(go_syntax).collect::<Vec<_>>().join(", ")
            )
        }
        Value::Object(map) => {
            let fields: Vec<_> = map
                .iter()
                .map(|(k, v)| format!("{k:?}:{}", go_syntax(v)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        scalar => scalar.to_string(),
    }
}
