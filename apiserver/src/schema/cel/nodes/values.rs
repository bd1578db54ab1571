//! Values made ready for evaluation, and how large they are.

use super::{Node, Nodes, Sizes};
use crate::schema::{Type, formats};
use base64::Engine as _;
use kube::core::cel::cel::Value as Cel;
use kube::core::cel::cel::objects::{Key, Map};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

impl Nodes {
    /// A value of node `id` as rules see it; its sizes are noted.
    pub(in crate::schema::cel) fn convert(&self, id: u32, value: &Value, sizes: &mut Sizes) -> Cel {
        self.weigh(id, value, sizes).0
    }

    fn weigh(&self, id: u32, value: &Value, sizes: &mut Sizes) -> (Cel, u32) {
        let node = self.at(id);
        let mut weight: u32 = 1;
        let (converted, length) = match value {
            Value::Array(list) => {
                let Some(items) = node.items else {
                    return free(value, sizes);
                };
                let mut out = Vec::with_capacity(list.len());
                for item in list {
                    let (item, w) = self.weigh(items, item, sizes);
                    weight = weight.saturating_add(w);
                    out.push(item);
                }
                (Cel::List(Arc::new(out)), list.len())
            }
            Value::Object(map) => {
                if node.properties.is_empty() && node.additional.is_none() {
                    return free(value, sizes);
                }
                let mut out = HashMap::with_capacity(map.len());
                for (key, child) in map {
                    let found = node.properties.binary_search_by(|p| (*p.name).cmp(key));
                    let (key, child) = match (found, node.additional) {
                        (Ok(at), _) => {
                            let property = &node.properties[at];
                            let Some(escaped) = &property.escaped else {
                                continue;
                            };
                            (escaped.clone(), self.weigh(property.node, child, sizes))
                        }
                        (Err(_), Some(additional)) => {
                            (Arc::new(key.clone()), self.weigh(additional, child, sizes))
                        }
                        // Fields no schema knows are not for rules.
                        (Err(_), None) => continue,
                    };
                    weight = weight.saturating_add(child.1);
                    out.insert(Key::String(key), child.0);
                }
                (Cel::Map(Map { map: Arc::new(out) }), map.len())
            }
            Value::String(text) => {
                weight = weight.saturating_add(u32::try_from(text.len() / 32).unwrap_or(u32::MAX));
                (formatted(node, text), text.len())
            }
            Value::Number(n) if node.kind == Type::Number => (Cel::Float(n.as_f64().unwrap_or(f64::NAN)), 1),
            Value::Number(n) if node.kind == Type::Integer && !n.is_i64() && !n.is_u64() => {
                // `3.0` is an integer to JSON Schema.
                #[allow(clippy::cast_possible_truncation)] // saturates
                let whole = n.as_f64().unwrap_or_default() as i64;
                (Cel::Int(whole), 1)
            }
            scalar => return free(scalar, sizes),
        };
        sizes.note(Some(id), length, weight);
        (converted, weight)
    }
}

fn formatted(node: &Node, text: &str) -> Cel {
    let plain = || Cel::String(Arc::new(text.to_owned()));
    if node.kind != Type::String {
        return plain();
    }
    match node.format.as_deref() {
        Some("date-time") => text.parse().map_or_else(|_| plain(), Cel::Timestamp),
        Some("date") => format!("{text}T00:00:00Z")
            .parse()
            .map_or_else(|_| plain(), Cel::Timestamp),
        Some("duration") => duration(text).unwrap_or_else(plain),
        Some("byte") => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_or_else(|_| plain(), |bytes| Cel::Bytes(Arc::new(bytes))),
        _ => plain(),
    }
}

/// A duration, as the time between the epoch and that much later.
fn duration(text: &str) -> Option<Cel> {
    let nanos = formats::duration_nanos(text)?;
    let later = jiff::Timestamp::from_nanosecond(i128::from(nanos))
        .ok()?
        .to_string();
    let (Cel::Timestamp(later), Cel::Timestamp(epoch)) = (
        Cel::Timestamp(later.parse().ok()?),
        Cel::Timestamp("1970-01-01T00:00:00Z".parse().ok()?),
    ) else {
        return None;
    };
    Some(Cel::Duration(later - epoch))
}

/// A value as expressions see it that know no schema, and how many values are in it.
pub(in crate::schema::cel) fn untyped(value: &Value) -> (Cel, u32) {
    let mut sizes = Sizes {
        sizes: Vec::new(),
        free: (0, 0),
    };
    free(value, &mut sizes)
}

/// A value no schema describes.
fn free(value: &Value, sizes: &mut Sizes) -> (Cel, u32) {
    let mut weight: u32 = 1;
    let (converted, length) = match value {
        Value::Null => (Cel::Null, 0),
        Value::Bool(b) => (Cel::Bool(*b), 1),
        Value::Number(n) => {
            let number = n.as_i64().map(Cel::Int).or_else(|| n.as_u64().map(Cel::UInt));
            (
                number.unwrap_or_else(|| Cel::Float(n.as_f64().unwrap_or(f64::NAN))),
                1,
            )
        }
        Value::String(text) => {
            weight = weight.saturating_add(u32::try_from(text.len() / 32).unwrap_or(u32::MAX));
            (Cel::String(Arc::new(text.clone())), text.len())
        }
        Value::Array(list) => {
            let mut out = Vec::with_capacity(list.len());
            for item in list {
                let (item, w) = free(item, sizes);
                weight = weight.saturating_add(w);
                out.push(item);
            }
            (Cel::List(Arc::new(out)), list.len())
        }
        Value::Object(map) => {
            let mut out = HashMap::with_capacity(map.len());
            for (key, child) in map {
                let (child, w) = free(child, sizes);
                weight = weight.saturating_add(w);
                out.insert(Key::String(Arc::new(key.clone())), child);
            }
            (Cel::Map(Map { map: Arc::new(out) }), map.len())
        }
    };
    sizes.note(None, length, weight);
    (converted, weight)
}
