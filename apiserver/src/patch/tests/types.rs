//! A short way to write schemas: the notation of data/types.json.

use crate::schema::{ListType, Ref, Schema, Type};
use serde_json::Value;

pub fn schema(v: &Value) -> Schema {
    let text = |name: &str| v[name].as_str().map(Box::from);
    let kind = match v["type"].as_str() {
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ if v.get("oneOf").is_some() => Type::Quantity,
        _ => Type::Any,
    };
    let texts = |name: &str| {
        v[name]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|k| k.as_str().map(Box::from))
    };
    Schema {
        kind,
        format: text("format"),
        default: v.get("default").cloned(),
        properties: v["fields"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, f)| (k.as_str().into(), of(f)))
            .collect(),
        required: texts("required").collect(),
        additional: v.get("map").map(of),
        items: v.get("items").map(of),
        list_type: v["list-type"].as_str().map(|t| match t {
            "map" => ListType::Map(texts("list-map-keys").collect()),
            "set" => ListType::Set,
            _ => ListType::Atomic,
        }),
        atomic_map: v["map-type"] == "atomic",
        patch_strategy: text("patch-strategy"),
        patch_merge_key: text("patch-merge-key"),
        preserve_unknown: v["preserve"] == true,
        embedded_resource: v["embedded"] == true,
        ..Schema::default()
    }
}

fn of(v: &Value) -> Ref {
    match v["ref"].as_str() {
        Some(name) => Ref::Named(name.into()),
        None => Ref::Inline(Box::new(schema(v))),
    }
}
