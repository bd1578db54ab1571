//! The form built-in objects take after Go's typed decoder and encoder, besides zero values.

use super::quantity;
use crate::schema::{Schema, Type};
use serde_json::Value;

/// Writes every quantity the way kube-apiserver does: no fraction, the largest suffix of its family.
pub(super) fn quantities(schema: &Schema, object: &mut Value) {
    match object {
        Value::Object(map) => {
            for (key, value) in map {
                let Some(child) = schema.property(key).or_else(|| schema.additional()) else {
                    continue;
                };
                let named = schema.property(key).is_some();
                if child.kind == Type::Quantity {
                    let text = match &*value {
                        Value::String(text) => text.clone(),
                        Value::Number(number) => number.to_string(),
                        _ => continue,
                    };
                    // A map of them is a list of resources.
                    let canonical = if named {
                        quantity::canonical(&text)
                    } else {
                        quantity::canonical_resource(&text)
                    };
                    *value = canonical.unwrap_or(text).into();
                } else {
                    quantities(child, value);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.items() {
                for item in list {
                    quantities(items, item);
                }
            }
        }
        _ => {}
    }
}
