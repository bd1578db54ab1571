//! The built-in types, read from `data/types.json` one by one when they are first asked for.
//!
//! Most servers touch a small part of the 581 types, so only their places in the text are indexed at first use. Plain
//! scalars are shared: a field that is just text refers to the type named `string`.

use super::{ListType, Ref, Schema, Type, zeroes};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

static TYPES: &str = include_str!("../../data/types.json");

/// Name of the type of `metadata`.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Name of the type of a list's `metadata`.
pub const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

struct Entry {
    text: &'static str,
    schema: OnceLock<Box<Schema>>,
}

struct Index {
    types: HashMap<&'static str, Entry>,
    gvks: HashMap<&'static str, &'static str>,
}

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut index = Index {
        types: HashMap::new(),
        gvks: HashMap::new(),
    };
    for (name, text) in members(TYPES) {
        for gvk in gvk_texts(text) {
            index.gvks.insert(gvk, name);
        }
        index.types.insert(
            name,
            Entry {
                text,
                schema: OnceLock::new(),
            },
        );
    }
    index
});

/// Names and texts of the members of a JSON object that has no white space, as `data/types.json` is.
fn members(text: &'static str) -> Vec<(&'static str, &'static str)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 1;
    while at < bytes.len() && bytes[at] == b'"' {
        let Some(length) = text[at + 1..].find('"') else {
            break;
        };
        let name = &text[at + 1..at + 1 + length];
        let start = at + length + 3; // past `":`
        let (mut depth, mut quoted, mut end) = (0_usize, false, start);
        while end < bytes.len() {
            match bytes[end] {
                b'\\' if quoted => end += 1,
                b'"' => quoted = !quoted,
                b'{' | b'[' if !quoted => depth += 1,
                b'}' | b']' if !quoted => depth -= 1,
                _ => {}
            }
            end += 1;
            if depth == 0 && !quoted {
                break;
            }
        }
        found.push((name, &text[start..end]));
        at = end + 1; // past `,`
    }
    found
}

/// The `group/version/Kind` texts of a type.
fn gvk_texts(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.find("\"gvk\":[")
        .and_then(|at| text[at + 7..].split_once(']'))
        .map_or("", |(list, _)| list)
        .split(',')
        .map(|gvk| gvk.trim_matches('"'))
        .filter(|gvk| !gvk.is_empty())
}

static SCALARS: LazyLock<HashMap<&'static str, Schema>> = LazyLock::new(|| {
    let scalar = |kind, format: Option<&str>| Schema {
        kind,
        format: format.map(Box::from),
        ..Schema::default()
    };
    HashMap::from([
        (
            "any",
            Schema {
                preserve_unknown: true,
                ..Schema::default()
            },
        ),
        ("string", scalar(Type::String, None)),
        ("boolean", scalar(Type::Boolean, None)),
        ("integer", scalar(Type::Integer, None)),
        ("number", scalar(Type::Number, None)),
        ("int32", scalar(Type::Integer, Some("int32"))),
        ("int64", scalar(Type::Integer, Some("int64"))),
    ])
});

/// The schema of anything at all.
pub fn any() -> &'static Schema {
    static ANY: LazyLock<Schema> = LazyLock::new(|| Schema {
        preserve_unknown: true,
        ..Schema::default()
    });
    &ANY
}

/// The shared name of a node that says nothing but its scalar type.
pub(super) fn scalar_name(node: &Map<String, Value>) -> Option<&'static str> {
    let kind = node.get("type")?.as_str()?;
    match (kind, node.get("format").and_then(Value::as_str), node.len()) {
        ("string", None, 1) => Some("string"),
        ("boolean", None, 1) => Some("boolean"),
        ("integer", None, 1) => Some("integer"),
        ("number", None, 1) => Some("number"),
        ("integer", Some("int32"), 2) => Some("int32"),
        ("integer", Some("int64"), 2) => Some("int64"),
        _ => None,
    }
}

/// Whether `name` is one of the shared scalars and not a type of Kubernetes.
pub(super) fn is_scalar(name: &str) -> bool {
    SCALARS.contains_key(name)
}

/// A built-in type by its OpenAPI name, like `io.k8s.api.core.v1.PodSpec`, or a shared scalar like `string`.
pub fn named(name: &str) -> Option<&'static Schema> {
    if let Some(scalar) = SCALARS.get(name) {
        return Some(scalar);
    }
    let (name, entry) = INDEX.types.get_key_value(name)?;
    Some(entry.schema.get_or_init(|| Box::new(read(name, entry.text))))
}

/// The OpenAPI name of a kind.
pub fn name_of(group: &str, version: &str, kind: &str) -> Option<&'static str> {
    INDEX
        .gvks
        .get(format!("{group}/{version}/{kind}").as_str())
        .copied()
}

/// The schema of a kind.
pub fn for_gvk(group: &str, version: &str, kind: &str) -> Option<&'static Schema> {
    named(name_of(group, version, kind)?)
}

/// The schema of `metadata`.
pub fn object_meta() -> &'static Schema {
    named(OBJECT_META).unwrap_or_else(|| any())
}

/// Group, version and kind of each kind that a built-in type is.
pub fn gvks(name: &str) -> Vec<(&'static str, &'static str, &'static str)> {
    let Some(entry) = INDEX.types.get(name) else {
        return Vec::new();
    };
    gvk_texts(entry.text)
        .filter_map(|gvk| {
            let (group, rest) = gvk.split_once('/')?;
            let (version, kind) = rest.split_once('/')?;
            Some((group, version, kind))
        })
        .collect()
}

/// Names of all built-in types.
pub fn names() -> impl Iterator<Item = &'static str> {
    INDEX.types.keys().copied()
}

fn read(name: &str, text: &str) -> Schema {
    let mut schema = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(node)) => node_schema(&node),
        _ => Schema::default(),
    };
    match name.rsplit('.').next().unwrap_or_default() {
        "Quantity" => schema.kind = Type::Quantity,
        "IntOrString" => schema.kind = Type::IntOrString,
        // Kept as they come: Go holds them as raw JSON.
        "RawExtension" | "FieldsV1" | "Patch" => schema.preserve_unknown = true,
        _ if schema.kind == Type::Any => schema.preserve_unknown = true,
        _ => {}
    }
    schema.zeroes = zeroes::of(name);
    schema
}

fn reference(node: &Value) -> Ref {
    let Value::Object(node) = node else {
        return Ref::Named("any".into());
    };
    let Some(name) = node.get("ref").and_then(Value::as_str) else {
        return scalar_name(node).map_or_else(
            || Ref::Inline(Box::new(node_schema(node))),
            |name| Ref::Named(name.into()),
        );
    };
    if node.len() == 1 {
        return Ref::Named(name.into());
    }
    // Three fields say more than the type they refer to (how they merge).
    let mut schema = named(name).cloned().unwrap_or_default();
    merge_hints(&mut schema, node);
    Ref::Inline(Box::new(schema))
}

fn text(node: &Map<String, Value>, key: &str) -> Option<Box<str>> {
    node.get(key).and_then(Value::as_str).map(Box::from)
}

fn texts(node: &Map<String, Value>, key: &str) -> Vec<Box<str>> {
    node.get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(Box::from)
        .collect()
}

fn merge_hints(schema: &mut Schema, node: &Map<String, Value>) {
    if let Some(default) = node.get("default") {
        schema.default = Some(default.clone());
    }
    if let Some(strategy) = text(node, "patch-strategy") {
        schema.patch_strategy = Some(strategy);
    }
    if let Some(key) = text(node, "patch-merge-key") {
        schema.patch_merge_key = Some(key);
    }
    if let Some(kind) = node.get("map-type").and_then(Value::as_str) {
        schema.atomic_map = kind == "atomic";
    }
}

fn node_schema(node: &Map<String, Value>) -> Schema {
    let kind = match node.get("type").and_then(Value::as_str) {
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ => Type::Any,
    };
    let mut schema = Schema {
        kind,
        enumeration: node
            .get("enum")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default(),
        format: text(node, "format"),
        properties: node
            .get("fields")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, field)| (Box::from(name.as_str()), reference(field)))
            .collect(),
        required: texts(node, "required"),
        additional: node.get("map").map(reference),
        items: node.get("items").map(reference),
        list_type: match node.get("list-type").and_then(Value::as_str) {
            Some("atomic") => Some(ListType::Atomic),
            Some("set") => Some(ListType::Set),
            Some("map") => Some(ListType::Map(texts(node, "list-map-keys"))),
            _ => None,
        },
        ..Schema::default()
    };
    merge_hints(&mut schema, node);
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_and_refers_to_types_that_exist() {
        let mut count = 0;
        for name in names() {
            let schema = named(name).unwrap();
            count += 1;
            let children = schema
                .properties
                .values()
                .chain(&schema.items)
                .chain(&schema.additional);
            for child in children {
                if let Ref::Named(n) = child {
                    assert!(named(n).is_some(), "{name} refers to {n}");
                }
            }
        }
        assert!(count > 500, "{count} types");
    }

    #[test]
    fn facts_of_some_types() {
        let deployment = for_gvk("apps", "v1", "Deployment").unwrap();
        let spec = deployment.property("spec").unwrap();
        assert_eq!(
            spec.property("replicas").unwrap().format.as_deref(),
            Some("int32")
        );
        assert_eq!(
            spec.property("strategy").unwrap().patch_strategy.as_deref(),
            Some("retainKeys")
        );
        assert!(spec.property("selector").unwrap().atomic_map);
        let pod = spec.property("template").unwrap().property("spec").unwrap();
        let containers = pod.property("containers").unwrap();
        assert_eq!(containers.list_type, Some(ListType::Map(vec!["name".into()])));
        assert_eq!(containers.patch_merge_key.as_deref(), Some("name"));
        let ports = containers.items().unwrap().property("ports").unwrap();
        assert_eq!(
            ports.list_type,
            Some(ListType::Map(vec!["containerPort".into(), "protocol".into()]))
        );
        assert_eq!(
            ports.items().unwrap().property("protocol").unwrap().default,
            Some("TCP".into())
        );
        let limits = containers
            .items()
            .unwrap()
            .property("resources")
            .unwrap()
            .property("limits")
            .unwrap();
        assert_eq!(limits.additional().unwrap().kind, Type::Quantity);
        let service = for_gvk("", "v1", "Service").unwrap().property("spec").unwrap();
        let port = service.property("ports").unwrap().items().unwrap();
        assert_eq!(port.property("targetPort").unwrap().kind, Type::IntOrString);
        assert_eq!(service.property("type").unwrap().enumeration.len(), 4);
        assert!(object_meta().property("managedFields").is_some());
        assert!(for_gvk("", "v1", "Nothing").is_none());
        assert_eq!(
            gvks("io.k8s.api.apps.v1.Deployment"),
            [("apps", "v1", "Deployment")]
        );
    }
}
