//! Writing schemas as OpenAPI v3, for `/openapi/v3` and for clients that explain or merge by it.

use super::{ListType, Ref, Schema, Type, builtin, openapi_texts};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// A schema as OpenAPI v3 JSON, with Kubernetes' extensions. Built-in types are referred to, not spelled out.
pub fn to_openapi_v3(schema: &Schema) -> Value {
    let mut out = Map::new();
    let kind = match schema.kind {
        Type::Object => Some("object"),
        Type::Array => Some("array"),
        Type::String => Some("string"),
        Type::Integer => Some("integer"),
        Type::Number => Some("number"),
        Type::Boolean => Some("boolean"),
        Type::Any | Type::IntOrString | Type::Quantity => None,
    };
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    if let Some(kind) = kind {
        put("type", kind.into());
    }
    match schema.kind {
        Type::Quantity => put("oneOf", json!([{"type": "string"}, {"type": "number"}])),
        Type::IntOrString if schema.format.is_some() => {
            put("oneOf", json!([{"type": "integer"}, {"type": "string"}]));
        }
        Type::IntOrString => put("x-kubernetes-int-or-string", true.into()),
        _ => {}
    }
    for (key, value) in [
        ("description", &schema.description),
        ("format", &schema.format),
        ("pattern", &schema.pattern),
        ("x-kubernetes-patch-strategy", &schema.patch_strategy),
        ("x-kubernetes-patch-merge-key", &schema.patch_merge_key),
    ] {
        if let Some(value) = value {
            put(key, (&**value).into());
        }
    }
    if let Some(default) = &schema.default {
        put("default", default.clone());
    }
    if !schema.enumeration.is_empty() {
        put("enum", schema.enumeration.clone().into());
    }
    let flags = [
        ("nullable", schema.nullable),
        ("exclusiveMinimum", schema.exclusive_minimum),
        ("exclusiveMaximum", schema.exclusive_maximum),
        ("uniqueItems", schema.unique_items),
        ("x-kubernetes-preserve-unknown-fields", schema.preserve_unknown),
        ("x-kubernetes-embedded-resource", schema.embedded_resource),
    ];
    for (key, set) in flags {
        if set {
            put(key, true.into());
        }
    }
    for (key, value) in [
        ("minimum", schema.minimum),
        ("maximum", schema.maximum),
        ("multipleOf", schema.multiple_of),
    ] {
        if let Some(value) = value {
            put(key, number(value));
        }
    }
    for (key, value) in [
        ("minLength", schema.min_length),
        ("maxLength", schema.max_length),
        ("minItems", schema.min_items),
        ("maxItems", schema.max_items),
        ("minProperties", schema.min_properties),
        ("maxProperties", schema.max_properties),
    ] {
        if let Some(value) = value {
            put(key, value.into());
        }
    }
    if !schema.properties.is_empty() {
        let properties: Map<_, _> = schema
            .properties
            .iter()
            .map(|(k, v)| (k.to_string(), reference(v)))
            .collect();
        put("properties", properties.into());
    }
    if !schema.required.is_empty() {
        put("required", json!(schema.required));
    }
    if let Some(additional) = &schema.additional {
        let any = matches!(additional, Ref::Named(name) if &**name == "any");
        put(
            "additionalProperties",
            if any { true.into() } else { reference(additional) },
        );
    }
    if let Some(items) = &schema.items {
        put("items", reference(items));
    }
    match &schema.list_type {
        Some(ListType::Atomic) => put("x-kubernetes-list-type", "atomic".into()),
        Some(ListType::Set) => put("x-kubernetes-list-type", "set".into()),
        Some(ListType::Map(keys)) => {
            put("x-kubernetes-list-type", "map".into());
            put("x-kubernetes-list-map-keys", json!(keys));
        }
        None => {}
    }
    if schema.atomic_map {
        put("x-kubernetes-map-type", "atomic".into());
    }
    for (key, list) in [
        ("allOf", &schema.all_of),
        ("anyOf", &schema.any_of),
        ("oneOf", &schema.one_of),
    ] {
        if !list.is_empty() {
            put(key, list.iter().map(to_openapi_v3).collect());
        }
    }
    if let Some(not) = &schema.not {
        put("not", to_openapi_v3(not));
    }
    if !schema.validations.is_empty() {
        put(
            "x-kubernetes-validations",
            schema.validations.iter().map(super::Rule::to_json).collect(),
        );
    }
    Value::Object(out)
}

/// Whole numbers without a decimal point, as the CRD had them.
#[allow(clippy::cast_possible_truncation)] // guarded by the bound
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        (value as i64).into()
    } else {
        value.into()
    }
}

fn reference(reference: &Ref) -> Value {
    match reference {
        Ref::Named(name) if &**name == "any" => json!({"x-kubernetes-preserve-unknown-fields": true}),
        Ref::Named(name) if builtin::is_scalar(name) => to_openapi_v3(Schema::resolve(reference)),
        Ref::Named(name) => json!({"$ref": format!("#/components/schemas/{name}")}),
        Ref::Inline(schema) => to_openapi_v3(schema),
    }
}

/// The schemas of the named built-in types and of all they refer to, as `components.schemas` holds them.
pub fn components<'a>(names: impl IntoIterator<Item = &'a str>) -> Map<String, Value> {
    let mut todo: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let mut seen: BTreeSet<String> = todo.iter().cloned().collect();
    let mut out = Map::new();
    while let Some(name) = todo.pop() {
        let Some(schema) = builtin::named(&name) else {
            continue;
        };
        let mut json = to_openapi_v3(schema);
        // Built-ins hold raw JSON without saying so.
        json.as_object_mut()
            .map(|o| o.remove("x-kubernetes-preserve-unknown-fields"));
        openapi_texts::named(&name, &mut json);
        let gvks = builtin::gvks(&name);
        if !gvks.is_empty() {
            openapi_texts::object(&mut json);
            json["x-kubernetes-group-version-kind"] = gvks
                .iter()
                .map(|(g, v, k)| json!({"group": g, "version": v, "kind": k}))
                .collect();
        }
        refers_to(schema, &mut |found| {
            if seen.insert(found.to_owned()) {
                todo.push(found.to_owned());
            }
        });
        out.insert(name, json);
    }
    out
}

fn refers_to(schema: &Schema, found: &mut impl FnMut(&str)) {
    for child in schema
        .properties
        .values()
        .chain(&schema.items)
        .chain(&schema.additional)
    {
        match child {
            Ref::Named(name) if builtin::is_scalar(name) => {}
            Ref::Named(name) => found(name),
            Ref::Inline(inner) => refers_to(inner, found),
        }
    }
}

/// The schema of a custom kind: its own fields and those every object has.
pub fn custom_kind(schema: &Schema, group: &str, version: &str, kind: &str) -> Value {
    let mut out = to_openapi_v3(schema);
    published(&mut out);
    if !out["properties"].is_object() {
        out["properties"] = json!({});
    }
    out["properties"]["apiVersion"] = json!({"type": "string"});
    out["properties"]["kind"] = json!({"type": "string"});
    out["properties"]["metadata"] =
        json!({"allOf": [{"$ref": format!("#/components/schemas/{}", builtin::OBJECT_META)}]});
    openapi_texts::object(&mut out);
    out["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
    out
}

/// Says in OpenAPI's own words what extensions of a custom schema mean: an object within has what objects have, and a number
/// or a text is either.
fn published(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    let is_set = |map: &Map<String, Value>, key: &str| map.get(key) == Some(&Value::Bool(true));
    if is_set(map, "x-kubernetes-int-or-string") && !map.contains_key("anyOf") && !map.contains_key("allOf") {
        map.insert(
            "anyOf".to_owned(),
            json!([{"type": "integer"}, {"type": "string"}]),
        );
    }
    if is_set(map, "x-kubernetes-embedded-resource") {
        let mut whole = json!({"properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": {"allOf": [{"$ref": format!("#/components/schemas/{}", builtin::OBJECT_META)}]}}});
        openapi_texts::object(&mut whole);
        let own = map.entry("properties").or_insert_with(|| json!({}));
        if let (Value::Object(own), Value::Object(all)) = (own, whole["properties"].take()) {
            own.extend(all);
        }
        let required = map.entry("required").or_insert_with(|| json!([]));
        if let Value::Array(required) = required {
            for field in ["apiVersion", "kind"] {
                if !required.iter().any(|r| r == field) {
                    required.push(field.into());
                }
            }
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(published);
    }
    for key in ["items", "additionalProperties"] {
        map.get_mut(key).into_iter().for_each(published);
    }
}

/// The schema of a list of a custom kind, whose component is `item`.
pub fn custom_list(item: &str, group: &str, version: &str, list_kind: &str) -> Value {
    let mut out = json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"allOf": [{"$ref": format!("#/components/schemas/{}", builtin::LIST_META)}]},
            "items": {"type": "array", "items": {"allOf": [{"$ref": format!("#/components/schemas/{item}")}]}},
        },
        "x-kubernetes-group-version-kind": [{"group": group, "version": version, "kind": list_kind}],
    });
    openapi_texts::object(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::super::structural;
    use super::*;

    #[test]
    fn a_custom_schema_comes_back_as_it_was() {
        let given = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["size"],
            "properties": {
                "size": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 10, "default": 3},
                "name": {"type": "string", "pattern": "^a$", "maxLength": 5, "description": "its name"},
                "port": {"x-kubernetes-int-or-string": true},
                "opt": {"type": "string", "nullable": true, "enum": ["A", "B"]},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "m": {"type": "object", "additionalProperties": {"type": "integer"}},
                "items": {"type": "array", "maxItems": 3, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                    "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}}},
            "oneOf": [{"required": ["name"]}, {"required": ["port"]}],
            "x-kubernetes-validations": [{"rule": "self.size > 0", "message": "m", "fieldPath": ".size"}]}}});
        let schema = structural::parse(&given, "").unwrap();
        assert_eq!(to_openapi_v3(&schema), given);
        let kind = custom_kind(&schema, "x.io", "v1", "Gadget");
        assert_eq!(kind["x-kubernetes-group-version-kind"][0]["kind"], "Gadget");
        assert!(kind["properties"]["metadata"]["allOf"][0]["$ref"].is_string());
    }

    #[test]
    fn published_schemas_say_what_extensions_mean() {
        let given = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "port": {"x-kubernetes-int-or-string": true},
            "list": {"type": "array", "items": {"type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true}}}}}});
        let kind = custom_kind(&structural::parse(&given, "").unwrap(), "x.io", "v1", "Gadget");
        let spec = &kind["properties"]["spec"]["properties"];
        assert_eq!(spec["port"]["anyOf"][0]["type"], "integer");
        let embedded = &spec["list"]["items"];
        assert_eq!(embedded["required"], json!(["apiVersion", "kind"]));
        assert!(embedded["properties"]["metadata"]["allOf"].is_array());
        assert!(kind["properties"]["kind"]["description"].is_string());
    }

    #[test]
    fn components_are_complete() {
        let all = components(["io.k8s.api.apps.v1.Deployment"]);
        let text = serde_json::to_string(&all).unwrap();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(all.contains_key(name), "{name} is referred to");
        }
        let deployment = &all["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["group"], "apps");
        let containers = &all["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(
            all["io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"],
            json!({"type": "object"})
        );
    }
}
