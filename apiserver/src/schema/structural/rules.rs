//! What a node of a CRD's schema may and must say (apiextensions `schema/validation.go`, `schema/complete.go` and
//! `apis/apiextensions/validation`).

use super::{Level, Reader, flag, is_int_or_string};
use crate::error::FieldError;
use crate::schema::{ListType, Schema, Type, regexes};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

impl Reader {
    /// A node that has structure.
    pub(super) fn check(&mut self, node: &Map<String, Value>, schema: &Schema, level: Level, path: &str) {
        self.check_type(node, schema, level, path);
        self.check_unsupported(node, path);
        self.check_lists(node, schema, path);
        if let Some(pattern) = &schema.pattern
            && let Err(e) = regexes::compile(pattern)
        {
            let detail = format!("must be a valid regular expression, but isn't: {e}");
            self.invalid(format!("{path}.pattern"), &pattern.to_string().into(), &detail);
        }
        let types = ["atomic", "granular"];
        if let Some(kind) = node.get("x-kubernetes-map-type").and_then(Value::as_str) {
            let field = format!("{path}.x-kubernetes-map-type");
            if !types.contains(&kind) {
                self.errors
                    .push(FieldError::not_supported(field, &kind.into(), &types));
            } else if schema.kind != Type::Object {
                self.invalid(
                    format!("{path}.type"),
                    &type_of(node),
                    "must be object if x-kubernetes-map-type is specified",
                );
            }
        }
        if level == Level::Root || schema.embedded_resource {
            self.check_identity(schema, path);
        }
        if level == Level::Root && flag(node, "nullable") {
            self.forbidden(format!("{path}.nullable"), "nullable cannot be true at the root");
        }
    }

    fn check_type(&mut self, node: &Map<String, Value>, schema: &Schema, level: Level, path: &str) {
        let typed = node
            .get("type")
            .and_then(Value::as_str)
            .is_some_and(|t| !t.is_empty());
        let int_or_string = schema.kind == Type::IntOrString;
        let field = format!("{path}.type");
        if int_or_string {
            if schema.preserve_unknown {
                let field = format!("{path}.x-kubernetes-preserve-unknown-fields");
                self.invalid(
                    field,
                    &true.into(),
                    "must be false if x-kubernetes-int-or-string is true",
                );
            }
            if schema.embedded_resource {
                let field = format!("{path}.x-kubernetes-embedded-resource");
                self.invalid(
                    field,
                    &true.into(),
                    "must be false if x-kubernetes-int-or-string is true",
                );
            }
            if typed
                && !matches!(
                    node.get("type").and_then(Value::as_str).unwrap_or_default(),
                    "string" | "integer"
                )
            {
                self.invalid(
                    field.clone(),
                    &type_of(node),
                    "must be empty if x-kubernetes-int-or-string is true",
                );
            }
        }
        if schema.embedded_resource && schema.kind != Type::Object {
            let detail = "must be object if x-kubernetes-embedded-resource is true";
            if typed {
                self.invalid(field, &type_of(node), detail);
            } else {
                self.required(field, detail);
            }
        } else if !typed && !int_or_string && !schema.preserve_unknown && !node.contains_key("$ref") {
            let detail = match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field | Level::Nested => "must not be empty for specified object fields",
            };
            self.required(field, detail);
        } else if level == Level::Root && typed && schema.kind != Type::Object {
            self.invalid(field, &type_of(node), "must be object at the root");
        }
        if schema.preserve_unknown && typed && schema.kind != Type::Object {
            let detail = "must be object or empty if x-kubernetes-preserve-unknown-fields is true";
            self.invalid(format!("{path}.type"), &type_of(node), detail);
        }
        if node.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let field = format!("{path}.x-kubernetes-preserve-unknown-fields");
            self.invalid(field, &false.into(), "must be true or undefined");
        }
        if schema.embedded_resource {
            if schema.additional.is_some() {
                let field = format!("{path}.additionalProperties");
                self.forbidden(field, "must not be used if x-kubernetes-embedded-resource is set");
            }
            if !schema.preserve_unknown && schema.properties.is_empty() {
                let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                              x-kubernetes-preserve-unknown-fields";
                self.required(format!("{path}.properties"), detail);
            }
        }
        if schema.kind == Type::Array && node.get("items").is_none() {
            self.required(format!("{path}.items"), "must be specified");
        }
        if level == Level::Root && node.get("additionalProperties").is_some_and(|v| !v.is_null()) {
            self.forbidden(
                format!("{path}.additionalProperties"),
                "must not be used at the root",
            );
        }
    }

    fn check_unsupported(&mut self, node: &Map<String, Value>, path: &str) {
        if flag(node, "uniqueItems") {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(format!("{path}.uniqueItems"), detail);
        }
        let both = node.get("additionalProperties").is_some_and(|a| !a.is_null())
            && node
                .get("properties")
                .and_then(Value::as_object)
                .is_some_and(|p| !p.is_empty());
        if both {
            let detail = "additionalProperties and properties are mutual exclusive";
            self.forbidden(format!("{path}.additionalProperties"), detail);
        }
        for (key, shown) in [
            ("$ref", "$ref"),
            ("id", "id"),
            ("definitions", "definitions"),
            ("dependencies", "dependencies"),
            ("patternProperties", "patternProperties"),
            ("additionalItems", "additionalItems"),
        ] {
            let set = match node.get(key) {
                None | Some(Value::Null) => false,
                Some(Value::String(s)) => !s.is_empty(),
                Some(Value::Object(o)) => !o.is_empty(),
                Some(_) => true,
            };
            if set {
                self.forbidden(format!("{path}.{key}"), &format!("{shown} is not supported"));
            }
        }
    }

    fn check_lists(&mut self, node: &Map<String, Value>, schema: &Schema, path: &str) {
        let keys_field = format!("{path}.x-kubernetes-list-map-keys");
        let declared_keys = node.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        let Some(kind) = node.get("x-kubernetes-list-type").and_then(Value::as_str) else {
            if declared_keys.is_some_and(|k| !k.is_empty()) {
                let field = format!("{path}.x-kubernetes-list-type");
                self.required(field, "must be map if x-kubernetes-list-map-keys is non-empty");
            }
            return;
        };
        let field = format!("{path}.x-kubernetes-list-type");
        if schema.kind != Type::Array {
            let detail = "must be array if x-kubernetes-list-type is specified";
            if type_of(node) == json!("") {
                self.required(format!("{path}.type"), detail);
            } else {
                self.invalid(format!("{path}.type"), &type_of(node), detail);
            }
        }
        if !matches!(kind, "atomic" | "set" | "map") {
            self.errors.push(FieldError::not_supported(
                field,
                &kind.into(),
                &["atomic", "set", "map"],
            ));
            return;
        }
        let Some(ListType::Map(keys)) = &schema.list_type else {
            if declared_keys.is_some_and(|k| !k.is_empty()) {
                self.invalid(
                    field,
                    &kind.into(),
                    "must be map if x-kubernetes-list-map-keys is non-empty",
                );
            }
            if kind == "set" {
                self.check_set(node, schema, path);
            }
            return;
        };
        if keys.is_empty() {
            self.required(keys_field, "must not be empty if x-kubernetes-list-type is map");
            return;
        }
        let Some(items) = schema.items() else { return };
        if items.kind != Type::Object {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            self.invalid(
                format!("{path}.items.type"),
                &json!(kind_name(items.kind)),
                detail,
            );
            return;
        }
        if items.nullable {
            let detail = "cannot be nullable when x-kubernetes-list-type is map";
            self.forbidden(format!("{path}.items.nullable"), detail);
        }
        for _ in keys.iter().filter(|key| items.property(key).is_none()) {
            let message = "entries must all be names of item properties";
            self.invalid(keys_field.clone(), &json!(keys), message);
        }
        let mut seen: Vec<&str> = Vec::new();
        if keys.iter().collect::<BTreeSet<_>>().len() < keys.len() {
            self.invalid(keys_field, &json!(keys), "must not contain duplicate entries");
        }
        for key in keys {
            if seen.contains(&&**key) {
                continue;
            }
            seen.push(key);
            let Some(property) = items.property(key) else {
                continue;
            };
            let property_path = format!("{path}.items.properties[{key}]");
            if matches!(property.kind, Type::Object | Type::Array) {
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                self.invalid(
                    format!("{property_path}.type"),
                    &json!(kind_name(property.kind)),
                    detail,
                );
            }
            if property.nullable {
                let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.forbidden(format!("{property_path}.nullable"), detail);
            }
            if property.default.is_none() && !items.required.contains(key) {
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                              property";
                self.required(format!("{property_path}.default"), detail);
            }
        }
    }

    fn check_set(&mut self, node: &Map<String, Value>, schema: &Schema, path: &str) {
        let Some(items) = schema.items() else { return };
        if items.nullable {
            let detail = "cannot be nullable when x-kubernetes-list-type is set";
            self.forbidden(format!("{path}.items.nullable"), detail);
        }
        if items.kind == Type::Array && items.list_type.as_ref().is_some_and(|t| *t != ListType::Atomic) {
            let field = format!("{path}.items.x-kubernetes-list-type");
            let shown = if items.list_type == Some(ListType::Set) {
                "set"
            } else {
                "map"
            };
            self.invalid(
                field,
                &json!(shown),
                "must be atomic as item of a list with x-kubernetes-list-type=set",
            );
        }
        if items.kind == Type::Object && !items.atomic_map {
            let field = format!("{path}.items.x-kubernetes-map-type");
            let written = node
                .get("items")
                .map_or(Value::Null, |i| i["x-kubernetes-map-type"].clone());
            self.invalid(
                field,
                &written,
                "must be atomic as item of a list with x-kubernetes-list-type=set",
            );
        }
    }

    /// `apiVersion`, `kind` and `metadata` belong to Kubernetes.
    fn check_identity(&mut self, schema: &Schema, path: &str) {
        for name in ["apiVersion", "kind"] {
            if let Some(property) = schema.property(name).filter(|p| p.kind != Type::String) {
                let field = format!("{path}.properties[{name}].type");
                self.invalid(field, &json!(kind_name(property.kind)), "must be string");
            }
        }
        let Some(metadata) = schema.property("metadata") else {
            return;
        };
        let path = format!("{path}.properties[metadata]");
        if metadata.kind != Type::Object {
            self.invalid(
                format!("{path}.type"),
                &json!(kind_name(metadata.kind)),
                "must be object",
            );
        }
        if metadata.default.is_some() {
            let field = format!("{path}.default");
            self.forbidden(field, "must not be set in top-level metadata");
        }
        for name in metadata.properties.keys() {
            if metadata.property(name).is_some_and(|p| p.default.is_some()) {
                let field = format!("{path}.properties[{name}].default");
                self.forbidden(field, "must not be set in top-level metadata");
            }
        }
        let only_names = metadata
            .properties
            .keys()
            .all(|k| &**k == "name" || &**k == "generateName");
        if !only_names
            || metadata.additional.is_some()
            || metadata.preserve_unknown
            || !metadata.validations.is_empty()
        {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.forbidden(path, detail);
        }
    }

    /// A node inside `allOf` and the like may not bring structure of its own.
    pub(super) fn check_nested(&mut self, node: &Map<String, Value>, schema: &Schema, path: &str) {
        for (key, set, detail) in [
            (
                "additionalProperties",
                schema.additional.is_some(),
                "must be undefined to be structural",
            ),
            (
                "title",
                node.contains_key("title"),
                "must be empty to be structural",
            ),
            (
                "description",
                schema.description.is_some(),
                "must be empty to be structural",
            ),
            (
                "default",
                node.get("default").is_some_and(|d| !d.is_null()),
                "must be undefined to be structural",
            ),
            ("nullable", schema.nullable, "must be false to be structural"),
            (
                "x-kubernetes-preserve-unknown-fields",
                schema.preserve_unknown,
                "must be false to be structural",
            ),
            (
                "x-kubernetes-embedded-resource",
                schema.embedded_resource,
                "must be false to be structural",
            ),
            (
                "x-kubernetes-int-or-string",
                schema.kind == Type::IntOrString,
                "must be false to be structural",
            ),
            (
                "x-kubernetes-list-type",
                schema.list_type.is_some(),
                "must be undefined to be structural",
            ),
            (
                "x-kubernetes-map-type",
                node.contains_key("x-kubernetes-map-type"),
                "must be undefined to be structural",
            ),
            (
                "x-kubernetes-validations",
                !schema.validations.is_empty(),
                "must be empty to be structural",
            ),
        ] {
            if set {
                self.forbidden(format!("{path}.{key}"), detail);
            }
        }
        if let Some(pattern) = &schema.pattern
            && let Err(e) = regexes::compile(pattern)
        {
            let detail = format!("must be a valid regular expression, but isn't: {e}");
            self.invalid(format!("{path}.pattern"), &pattern.to_string().into(), &detail);
        }
    }

    /// Types may stand in branches only as the two spellings of "integer or string".
    pub(super) fn check_branches(&mut self, schema: &Schema, path: &str) {
        for (key, branches) in branches(schema) {
            for (i, branch) in branches.iter().enumerate() {
                self.check_branch(Some(schema), branch, &format!("{path}.{key}[{i}]"));
            }
        }
        if let Some(not) = &schema.not {
            self.check_branch(Some(schema), not, &format!("{path}.not"));
        }
    }

    fn check_branch(&mut self, outer: Option<&Schema>, branch: &Schema, path: &str) {
        if branch.kind != Type::Any && branch.kind != Type::IntOrString {
            self.forbidden(format!("{path}.type"), "must be empty to be structural");
        }
        for (name, child) in &branch.properties {
            let outer = outer.and_then(|o| o.child(name));
            let at = format!("{path}.properties[{name}]");
            self.check_branch(outer, Schema::resolve(child), &at);
        }
        if let Some(items) = branch.items() {
            let outer = outer.and_then(Schema::items);
            self.check_branch(outer, items, &format!("{path}.items"));
        }
        for (key, branches) in branches(branch) {
            let int_or_string = outer.is_some_and(|o| o.kind == Type::IntOrString);
            if int_or_string && key == "anyOf" && is_int_or_string(branches) {
                continue;
            }
            for (i, nested) in branches.iter().enumerate() {
                self.check_branch(outer, nested, &format!("{path}.{key}[{i}]"));
            }
        }
        if let Some(not) = &branch.not {
            self.check_branch(outer, not, &format!("{path}.not"));
        }
    }
}

fn branches(schema: &Schema) -> [(&'static str, &[Schema]); 3] {
    [
        ("allOf", &schema.all_of),
        ("anyOf", &schema.any_of),
        ("oneOf", &schema.one_of),
    ]
}

fn type_of(node: &Map<String, Value>) -> Value {
    node.get("type").cloned().unwrap_or_else(|| json!(""))
}

fn kind_name(kind: Type) -> &'static str {
    match kind {
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::Any | Type::IntOrString | Type::Quantity => "",
    }
}
