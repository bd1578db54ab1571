//! The second version of OpenAPI, made of the third: kubectl validates the items of a List by it.
//!
//! It has fewer words: what it can not say is left out, and takes anything.

use super::{COMPONENTS, info, paths, schemas};
use crate::registry::Snapshot;
use serde_json::{Map, Value, json};

/// Where schemas are in this version.
pub(super) const DEFINITIONS: &str = "#/definitions/";

/// All group versions in one document.
pub(super) fn document(snapshot: &Snapshot) -> Value {
    let (mut all_paths, mut definitions) = (Map::new(), Map::new());
    for (group, versions) in snapshot.groups() {
        for version in versions {
            all_paths.extend(paths(snapshot, &group, &version));
            definitions.extend(schemas(snapshot, &group, &version));
        }
    }
    for item in all_paths.values_mut().filter_map(Value::as_object_mut) {
        for (key, value) in item.iter_mut() {
            if key == "parameters" {
                let parameters = value.as_array_mut().into_iter().flatten();
                parameters.for_each(parameter);
            } else {
                operation(value);
            }
        }
    }
    definitions.values_mut().for_each(schema);
    json!({"swagger": "2.0", "info": info(), "paths": all_paths, "definitions": definitions})
}

/// Rewrites a schema and those in it. Properties may have any name, those of keywords too.
fn schema(value: &mut Value) {
    let Value::Object(map) = value else { return };
    if let Some(Value::Array(all)) = map.remove("allOf")
        && let [Value::Object(only)] = all.as_slice()
        && only.contains_key("$ref")
    {
        // The third version wraps a reference that carries more.
        map.extend(only.clone());
    }
    if let Some(Value::String(target)) = map.get_mut("$ref") {
        *target = target.replace(COMPONENTS, DEFINITIONS);
    }
    for key in ["oneOf", "anyOf", "not"] {
        map.remove(key);
    }
    if map.remove("nullable") == Some(Value::Bool(true)) {
        // No type of this version takes null.
        for key in ["type", "properties", "items", "additionalProperties"] {
            map.remove(key);
        }
    }
    if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        map.remove("properties");
        map.remove("items");
        // Whatever it is, it is not looked at. What a kind is stays said.
        if !map.contains_key("x-kubernetes-group-version-kind") {
            map.remove("type");
        }
    }
    map.remove("default");
    if map.get("type") == Some(&json!("array")) && !map.contains_key("items") {
        map.remove("type");
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(schema);
    }
    for key in ["items", "additionalProperties"] {
        map.get_mut(key).into_iter().for_each(schema);
    }
}

fn operation(operation: &mut Value) {
    let inner = |content: &Value| {
        let first = content.as_object().and_then(|c| c.values().next());
        let mut found = first.map_or(Value::Null, |c| c["schema"].clone());
        schema(&mut found);
        found
    };
    let Value::Object(map) = operation else { return };
    let given = map.get("parameters").and_then(Value::as_array);
    let mut parameters: Vec<Value> = given.cloned().unwrap_or_default();
    parameters.iter_mut().for_each(parameter);
    if let Some(body) = map.remove("requestBody") {
        let schema = inner(&body["content"]);
        parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": schema}));
        if let Some(types) = body["content"].as_object() {
            map.insert("consumes".to_owned(), types.keys().cloned().collect());
        }
    }
    if !parameters.is_empty() {
        map.insert("parameters".to_owned(), parameters.into());
    }
    if let Some(responses) = map.get_mut("responses").and_then(Value::as_object_mut) {
        for response in responses.values_mut() {
            let mut new = json!({"description": response["description"]});
            if !response["content"].is_null() {
                new["schema"] = inner(&response["content"]);
            }
            *response = new;
        }
    }
}

fn parameter(parameter: &mut Value) {
    if let Value::Object(map) = parameter
        && let Some(schema) = map.remove("schema")
    {
        map.insert("type".to_owned(), schema["type"].clone());
    }
}

#[test]
fn a_schema_loses_what_the_second_version_has_no_words_for() {
    for (before, after) in [
        (
            json!({"allOf": [{"$ref": "#/components/schemas/A"}], "default": {}, "description": "d"}),
            json!({"$ref": "#/definitions/A", "description": "d"}),
        ),
        (
            json!({"type": "object", "properties": {"not": {"type": "string"}, "allOf": {"type": "string", "nullable": true}}}),
            json!({"type": "object", "properties": {"not": {"type": "string"}, "allOf": {}}}),
        ),
        (
            json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            json!({}),
        ),
        (
            json!({"type": "array", "items": {"not": {}}, "x-kubernetes-preserve-unknown-fields": true}),
            json!({"x-kubernetes-preserve-unknown-fields": true}),
        ),
    ] {
        let mut got = before.clone();
        schema(&mut got);
        assert_eq!(got, after, "{before}");
    }
}
