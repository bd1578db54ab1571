//! Zero values of built-in objects, as they are after Go's typed decoder and encoder: what `omitempty` drops, and what
//! is written although nobody said it.
//!
//! A field that is no pointer cannot tell "not set" from its zero value: `paused: false` is the same as no `paused`, an
//! empty `restartPolicy` gets the default, and a condition without a reason has an empty one. OpenAPI does not say which
//! fields these are, so `data/zeroes.tsv` does: a type, then three lists of its fields. Runs before defaults.

use super::{Schema, Type};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::LazyLock;

static TABLE: &str = include_str!("../../data/zeroes.tsv");

/// How Go writes zero values of one struct's fields. What is in no list is a pointer, or a list or map, that is absent
/// when not set.
#[derive(Debug)]
pub struct Zeroes {
    /// Scalars that are left out when zero.
    dropped: Vec<&'static str>,
    /// Scalars and structs that are always written.
    written: Vec<&'static str>,
    /// What is written as `null` when there is none: lists, times, raw JSON.
    null: Vec<&'static str>,
}

static TYPES: LazyLock<HashMap<&'static str, Zeroes>> = LazyLock::new(|| {
    let fields = |cell: Option<&'static str>| -> Vec<&'static str> {
        let names = cell.unwrap_or_default().split(',');
        names.filter(|name| !name.is_empty()).collect()
    };
    TABLE
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('\t');
            let name = cells.next()?;
            let [dropped, written, null] = [(); 3].map(|()| fields(cells.next()));
            let zeroes = Zeroes {
                dropped,
                written,
                null,
            };
            Some((name, zeroes))
        })
        .collect()
});

/// The facts about a built-in type.
pub(super) fn of(name: &str) -> Option<&'static Zeroes> {
    TYPES.get(name)
}

/// What Go writes of an object of which nothing is set: nothing for a custom resource.
pub fn object(schema: &Schema) -> Value {
    let mut object = Value::Object(Map::new());
    normalise(schema, &mut object);
    object
}

/// Brings a built-in object into the form Go's decoder and encoder leave it in.
pub fn normalise(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) if schema.properties.is_empty() => {
            let Some(item) = schema.additional() else { return };
            for value in map.values_mut() {
                element(item, value);
            }
        }
        Value::Object(map) => fields(schema, map),
        Value::Array(list) => {
            let Some(item) = schema.items() else { return };
            for value in list {
                element(item, value);
            }
        }
        // Bytes are written anew, without the line breaks they came with.
        Value::String(text) if schema.format.as_deref() == Some("byte") => {
            text.retain(|c| c != '\n' && c != '\r');
        }
        _ => {}
    }
}

/// `null` in a list or map is the zero value of its items.
fn element(schema: &Schema, value: &mut Value) {
    if value.is_null() {
        *value = zero(schema);
    }
    normalise(schema, value);
}

fn fields(schema: &Schema, map: &mut Map<String, Value>) {
    let null = schema.zeroes.map_or(&[][..], |facts| &facts.null);
    let dropped = schema.zeroes.map_or(&[][..], |facts| &facts.dropped);
    map.retain(|key, value| {
        if value.is_null() {
            return false;
        }
        let Some(child) = schema.property(key) else {
            return true;
        };
        normalise(child, value);
        match value {
            // No owners is another thing than nothing said of them.
            Value::Array(list) => !list.is_empty() || key == "managedFields",
            Value::Object(fields) => !fields.is_empty() || !is_plain_map(child),
            _ => !(is_zero(value) && dropped.contains(&key.as_str())),
        }
    });
    for field in null {
        map.entry(*field).or_insert(Value::Null);
    }
    for field in schema.zeroes.map_or(&[][..], |facts| &facts.written) {
        if map.contains_key(*field) {
            continue;
        }
        if let Some(child) = schema.property(field) {
            let mut value = zero(child);
            normalise(child, &mut value);
            map.insert((*field).to_owned(), value);
        }
    }
}

fn zero(schema: &Schema) -> Value {
    match schema.kind {
        Type::String => "".into(),
        Type::Integer | Type::Number | Type::IntOrString => 0.into(),
        Type::Boolean => false.into(),
        Type::Quantity => "0".into(),
        Type::Object => Value::Object(Map::new()),
        Type::Array | Type::Any => Value::Null,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(yes) => !yes,
        _ => false,
    }
}

fn is_plain_map(schema: &Schema) -> bool {
    schema.kind == Type::Object && schema.properties.is_empty() && schema.additional.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::builtin;
    use serde_json::json;

    fn normal(kind: (&str, &str, &str), mut object: Value) -> Value {
        normalise(builtin::for_gvk(kind.0, kind.1, kind.2).unwrap(), &mut object);
        object
    }

    #[test]
    fn the_table_names_fields_that_exist() {
        for (name, facts) in TYPES.iter() {
            let schema = builtin::named(name).unwrap_or_else(|| panic!("no type {name}"));
            for field in facts.dropped.iter().chain(&facts.written).chain(&facts.null) {
                assert!(schema.property(field).is_some(), "{name}.{field}");
            }
        }
    }

    #[test]
    fn zero_values_of_optional_fields_go() {
        let pod = json!({"metadata": {}, "spec": {
            "hostPID": false, "restartPolicy": "", "shareProcessNamespace": false, "activeDeadlineSeconds": 0, "nodeSelector": {},
            "containers": [{"name": "c", "stdin": false, "command": [], "env": [{"name": "A", "value": ""}],
                "ports": [{"containerPort": 80, "hostPort": 0, "protocol": ""}], "securityContext": {"privileged": false}}],
            "imagePullSecrets": [null]}});
        let want = json!({"metadata": {}, "spec": {
            "shareProcessNamespace": false, "activeDeadlineSeconds": 0,
            "containers": [{"name": "c", "resources": {}, "env": [{"name": "A"}],
                "ports": [{"containerPort": 80}], "securityContext": {"privileged": false}}],
            "imagePullSecrets": [{}]}, "status": {}});
        assert_eq!(normal(("", "v1", "Pod"), pod), want);
    }

    #[test]
    fn what_is_always_written_is() {
        for (kind, object, want) in [
            (
                ("scheduling.k8s.io", "v1", "PriorityClass"),
                json!({"globalDefault": false, "description": ""}),
                json!({"value": 0}),
            ),
            (
                ("discovery.k8s.io", "v1", "EndpointSlice"),
                json!({"addressType": "IPv4", "endpoints": []}),
                json!({"addressType": "IPv4", "endpoints": null, "ports": null}),
            ),
            (
                ("", "v1", "ConfigMap"),
                json!({"data": {"a": null}, "immutable": false, "binaryData": {}}),
                json!({"data": {"a": ""}, "immutable": false}),
            ),
            (
                ("", "v1", "ResourceQuota"),
                json!({"spec": {"hard": {"cpu": null}}}),
                json!({"spec": {"hard": {"cpu": "0"}}, "status": {}}),
            ),
        ] {
            assert_eq!(normal(kind, object), want, "{kind:?}");
        }
    }

    #[test]
    fn twice_is_once() {
        for (_, name) in builtin::names().map(|n| (0, n)) {
            let schema = builtin::named(name).unwrap();
            let once = object(schema);
            let mut twice = once.clone();
            normalise(schema, &mut twice);
            assert_eq!(once, twice, "{name}");
        }
    }

    #[test]
    fn a_custom_type_has_no_zero_values() {
        assert_eq!(object(&Schema::default()), json!({}));
    }
}
