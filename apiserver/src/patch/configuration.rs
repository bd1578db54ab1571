//! Merging what a policy says an object should have: as an apply without a manager, so nobody owns it and nothing is
//! taken away (KEP-3962).

use super::fit;
use super::merge::merge;
use super::path::PathElement;
use super::typed::{Field, Scalar, Shape, Ty};
use crate::schema::Schema;
use serde_json::Value;

/// The object with the configuration merged in; the error is what Kubernetes says of one that does not fit.
pub fn configured(schema: &Schema, object: &Value, configuration: &Value) -> Result<Value, String> {
    let ty = Ty::object(schema);
    if let Some(what) = nulls(ty, configuration).or_else(|| fit::complaint(ty, configuration)) {
        return Err(format!("failed to convert patch object to typed object: {what}"));
    }
    let mut whole = Vec::new();
    atomics(ty, configuration, "", &mut whole);
    if whole.is_empty() {
        return Ok(merge(ty, object, configuration));
    }
    Err(format!(
        "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
        whole.join(", ")
    ))
}

/// The places of what can only be replaced as a whole: what a policy does not name would be lost there.
fn atomics(ty: Ty<'_>, value: &Value, path: &str, found: &mut Vec<String>) {
    match (ty.shape(value), value) {
        (Shape::Map(map), Value::Object(fields)) => {
            if map.atomic {
                found.push(path.to_owned());
            }
            for (name, value) in fields {
                if let Field::Declared(ty) = map.field(name) {
                    atomics(ty, value, &format!("{path}.{name}"), found);
                }
            }
        }
        (Shape::List(list), Value::Array(items)) => {
            if list.is_atomic() {
                found.push(path.to_owned());
            }
            for (i, value) in items.iter().enumerate() {
                atomics(list.items, value, &format!("{path}[{i}]"), found);
            }
        }
        _ => {}
    }
}

/// What is said of the first null there is: an expression's null is none of a schema's values.
fn nulls(ty: Ty<'_>, value: &Value) -> Option<String> {
    let inside = |step: String, inner: Option<String>| inner.map(|what| step + &what);
    match (ty.shape(value), value) {
        (shape, Value::Null) => Some(match shape {
            Shape::Map(_) => ": expected map, got &{NULL_VALUE}".into(),
            Shape::List(_) => ": expected list, got &{NULL_VALUE}".into(),
            Shape::Scalar(Scalar::String) => {
                ": expected string, got &value.valueUnstructured{Value:0}".into()
            }
            Shape::Scalar(Scalar::Boolean) => ": expected boolean, got &{NULL_VALUE}".into(),
            Shape::Scalar(Scalar::Numeric) => {
                ": expected numeric (int or float), got structpb.NullValue".into()
            }
            Shape::Scalar(Scalar::Any) => ": expected any scalar, got &{NULL_VALUE}".into(),
        }),
        (Shape::Map(map), Value::Object(fields)) => fields
            .iter()
            .find_map(|(name, value)| inside(format!(".{name}"), nulls(map.field(name).ty(), value))),
        (Shape::List(list), Value::Array(items)) => items.iter().enumerate().find_map(|(i, item)| {
            let element = if list.is_atomic() {
                PathElement::Index(i64::try_from(i).unwrap_or(i64::MAX))
            } else {
                list.element(item).ok()?
            };
            inside(element.to_string(), nulls(list.items, item))
        }),
        _ => None,
    }
}
