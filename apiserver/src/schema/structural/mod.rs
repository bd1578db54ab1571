//! Reading a CRD version's `openAPIV3Schema` (apiextensions `schema.NewStructural`), and refusing what kube-apiserver
//! refuses: schemas that are not structural, that use what CRDs may not, whose defaults break their own rules.

mod rules;

use super::{ListType, Ref, Rule, Schema, Type, builtin};
use crate::error::{FieldError, FieldErrorKind, shown};
use serde_json::{Map, Value};

/// Where a node stands; what is demanded differs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
    /// Inside `allOf`, `anyOf`, `oneOf` or `not`: only value validations may stand here.
    Nested,
}

/// Reads a schema. `path` is where it stands in the CRD, like `spec.validation.openAPIV3Schema`; it begins the paths of
/// the errors.
pub fn parse(openapi_v3: &Value, path: &str) -> Result<Schema, Vec<FieldError>> {
    let mut reader = Reader { errors: Vec::new() };
    let Value::Object(root) = openapi_v3 else {
        return Err(vec![FieldError::required(path, "")]);
    };
    let schema = reader.node(root, Level::Root, path);
    if reader.errors.is_empty() {
        reader.defaults(&schema, path);
    }
    if reader.errors.is_empty() {
        Ok(schema)
    } else {
        Err(reader.errors)
    }
}

struct Reader {
    errors: Vec<FieldError>,
}

fn text(node: &Map<String, Value>, key: &str) -> Option<Box<str>> {
    node.get(key)
        .and_then(Value::as_str)
        .filter(|t| !t.is_empty())
        .map(Box::from)
}

fn flag(node: &Map<String, Value>, key: &str) -> bool {
    node.get(key).and_then(Value::as_bool).unwrap_or_default()
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

impl Reader {
    fn required(&mut self, field: String, detail: &str) {
        self.errors.push(FieldError::required(field, detail));
    }

    fn forbidden(&mut self, field: String, detail: &str) {
        self.errors.push(FieldError::forbidden(field, detail));
    }

    fn invalid(&mut self, field: String, value: &Value, detail: &str) {
        self.errors.push(FieldError::invalid(field, value, detail));
    }

    fn child(&mut self, node: &Value, level: Level, path: &str) -> Ref {
        let Value::Object(map) = node else {
            return Ref::Named("any".into());
        };
        match builtin::scalar_name(map) {
            Some(name) => Ref::Named(name.into()),
            None => Ref::Inline(Box::new(self.node(map, level, path))),
        }
    }

    fn node(&mut self, node: &Map<String, Value>, level: Level, path: &str) -> Schema {
        let int_or_string = flag(node, "x-kubernetes-int-or-string");
        let number = |key: &str| node.get(key).and_then(Value::as_f64);
        let count = |key: &str| node.get(key).and_then(Value::as_u64);
        let mut schema = Schema {
            kind: self.kind(node, int_or_string, path),
            nullable: flag(node, "nullable"),
            default: node.get("default").filter(|d| !d.is_null()).cloned(),
            enumeration: node
                .get("enum")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            format: text(node, "format"),
            pattern: text(node, "pattern"),
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: flag(node, "exclusiveMinimum"),
            exclusive_maximum: flag(node, "exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: flag(node, "uniqueItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            required: texts(node, "required"),
            list_type: match node.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("atomic") => Some(ListType::Atomic),
                Some("set") => Some(ListType::Set),
                Some("map") => Some(ListType::Map(texts(node, "x-kubernetes-list-map-keys"))),
                _ => None,
            },
            atomic_map: node.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic"),
            preserve_unknown: flag(node, "x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag(node, "x-kubernetes-embedded-resource"),
            validations: Self::validations(node),
            description: text(node, "description"),
            ..Schema::default()
        };
        let nested_or = |other| {
            if level == Level::Nested {
                Level::Nested
            } else {
                other
            }
        };
        for (name, child) in node
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let path = format!("{path}.properties[{name}]");
            let child = self.child(child, nested_or(Level::Field), &path);
            schema.properties.insert(name.as_str().into(), child);
        }
        match node.get("additionalProperties") {
            Some(Value::Bool(true)) => schema.additional = Some(Ref::Named("any".into())),
            Some(child @ Value::Object(_)) => {
                let path = format!("{path}.additionalProperties");
                schema.additional = Some(self.child(child, nested_or(Level::Field), &path));
            }
            _ => {}
        }
        match node.get("items") {
            Some(child @ Value::Object(_)) => {
                let path = format!("{path}.items");
                schema.items = Some(self.child(child, nested_or(Level::Item), &path));
            }
            Some(Value::Array(_)) => {
                self.forbidden(
                    format!("{path}.items"),
                    "items must be a schema object and not an array",
                );
            }
            _ => {}
        }
        schema.all_of = self.nested_list(node, "allOf", path);
        schema.any_of = self.nested_list(node, "anyOf", path);
        schema.one_of = self.nested_list(node, "oneOf", path);
        if let Some(Value::Object(not)) = node.get("not") {
            schema.not = Some(Box::new(self.node(not, Level::Nested, &format!("{path}.not"))));
        }
        if level == Level::Nested {
            self.check_nested(node, &schema, path);
            // The exception for int-or-string lets branches name the two types, so a nested type is kept as it is.
        } else {
            if int_or_string {
                Self::drop_int_or_string_branches(&mut schema);
            }
            self.check(node, &schema, level, path);
            self.check_branches(&schema, path);
        }
        schema
    }

    fn nested_list(&mut self, node: &Map<String, Value>, key: &str, path: &str) -> Vec<Schema> {
        let mut list = Vec::new();
        for (i, branch) in node
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
        {
            if let Value::Object(branch) = branch {
                list.push(self.node(branch, Level::Nested, &format!("{path}.{key}[{i}]")));
            }
        }
        list
    }

    fn kind(&mut self, node: &Map<String, Value>, int_or_string: bool, path: &str) -> Type {
        match node.get("type").and_then(Value::as_str) {
            _ if int_or_string => Type::IntOrString,
            Some("object") => Type::Object,
            Some("array") => Type::Array,
            Some("string") => Type::String,
            Some("integer") => Type::Integer,
            Some("number") => Type::Number,
            Some("boolean") => Type::Boolean,
            None | Some("") => Type::Any,
            Some(other) => {
                let supported = ["array", "boolean", "integer", "number", "object", "string"];
                let error = FieldError::not_supported(format!("{path}.type"), &other.into(), &supported);
                self.errors.push(error);
                Type::Any
            }
        }
    }

    /// The two spellings of "integer or string" that may stand beside `x-kubernetes-int-or-string` add nothing to it.
    fn drop_int_or_string_branches(schema: &mut Schema) {
        if is_int_or_string(&schema.any_of) {
            schema.any_of.clear();
        }
        if schema
            .all_of
            .first()
            .is_some_and(|first| is_int_or_string(&first.any_of))
        {
            schema.all_of.remove(0);
        }
    }

    fn validations(node: &Map<String, Value>) -> Vec<Rule> {
        let list = node.get("x-kubernetes-validations").and_then(Value::as_array);
        let rule = |rule: &Map<String, Value>| Rule {
            rule: text(rule, "rule").unwrap_or_default(),
            message: text(rule, "message"),
            message_expression: text(rule, "messageExpression"),
            reason: rule.get("reason").and_then(Value::as_str).map(Box::from),
            field_path: text(rule, "fieldPath"),
            optional_old_self: flag(rule, "optionalOldSelf"),
        };
        list.into_iter()
            .flatten()
            .filter_map(Value::as_object)
            .map(rule)
            .collect()
    }

    /// Defaults must be valid values themselves, without fields that would be pruned.
    fn defaults(&mut self, schema: &Schema, path: &str) {
        if let Some(default) = &schema.default {
            let path = format!("{path}.default");
            let mut filled = default.clone();
            super::default::apply_defaults(schema, &mut filled);
            let unknown = super::prune::unknown_fields(schema, default, false);
            if unknown.is_empty() {
                // What is wrong is said of the value alone, which has no name.
                let mut found = super::validate::validate(schema, &filled, None, &path);
                for error in &mut found {
                    error.message = error.message.replace(&format!("{path} in body"), " in body");
                }
                self.errors.extend(found);
            } else {
                let message = format!("Invalid value: {}: must not have unknown fields", shown(default));
                self.errors
                    .push(FieldError::new(FieldErrorKind::Invalid, path, message));
            }
        }
        let step = |reference: &Ref| match reference {
            Ref::Inline(child) => Some(child.clone()),
            Ref::Named(_) => None,
        };
        for (name, child) in &schema.properties {
            if let Some(child) = step(child) {
                self.defaults(&child, &format!("{path}.properties[{name}]"));
            }
        }
        if let Some(child) = schema.items.as_ref().and_then(step) {
            self.defaults(&child, &format!("{path}.items"));
        }
        if let Some(child) = schema.additional.as_ref().and_then(step) {
            self.defaults(&child, &format!("{path}.additionalProperties"));
        }
    }
}

fn is_int_or_string(branches: &[Schema]) -> bool {
    matches!(branches, [a, b] if a.kind == Type::Integer && b.kind == Type::String)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_kube_apiserver_refuses() {
        let field = |spec: Value| json!({"type": "object", "properties": {"spec": spec}});
        let list = |extra: Value| {
            let mut node = json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}});
            node.as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            field(node)
        };
        let cases = [
            (
                field(json!({"properties": {"a": {"type": "string"}}})),
                "p.properties[spec].type: Required value: must not be empty for specified object fields",
            ),
            (json!({}), "p.type: Required value: must not be empty at the root"),
            (
                json!({"type": "array", "items": {"type": "string"}}),
                "p.type: Invalid value: \"array\": must be object at the root",
            ),
            (
                field(json!({"type": "array", "items": {"x": 1}})),
                "p.properties[spec].items.type: Required value: must not be empty for specified array items",
            ),
            (
                field(json!({"type": "array"})),
                "p.properties[spec].items: Required value: must be specified",
            ),
            (
                field(json!({"type": "string", "pattern": "("})),
                "p.properties[spec].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `(`",
            ),
            (
                field(json!({"type": "integer", "default": "x"})),
                "p.properties[spec].default: Invalid value: \"string\":  in body must be of type \
                 integer: \"string\"",
            ),
            (
                field(
                    json!({"type": "object", "default": {"zz": 1}, "properties": {"a": {"type": "string"}}}),
                ),
                "p.properties[spec].default: Invalid value: {\"zz\":1}: must not have unknown fields",
            ),
            (
                field(json!({"type": "string", "anyOf": [{"type": "string"}]})),
                "p.properties[spec].anyOf[0].type: Forbidden: must be empty to be structural",
            ),
            (
                field(
                    json!({"type": "object", "additionalProperties": false, "properties": {"a": {"type": "string"}}}),
                ),
                "p.properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ),
            (
                field(json!({"type": "object", "oneOf": [{"properties": {"b": {"type": "string"}}}]})),
                "p.properties[spec].oneOf[0].properties[b].type: Forbidden: must be empty to be structural",
            ),
            (
                field(json!({"type": "text"})),
                "p.properties[spec].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \
                 \"number\", \"object\", \"string\"",
            ),
            (
                list(json!({"x-kubernetes-list-type": "map"})),
                "p.properties[spec].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type \
                 is map",
            ),
            (
                list(json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]})),
                "p.properties[spec].items.properties[k].default: Required value: this property is in \
                 x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ),
            (
                list(json!({"uniqueItems": true})),
                "p.properties[spec].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity \
                 becomes quadratic",
            ),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type":
                    "object"}}}}}),
                "p.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata \
                 is implicitly specified",
            ),
        ];
        for (schema, expected) in cases {
            let errors = parse(&schema, "p").map(|_| ()).unwrap_err();
            let lines: Vec<String> = errors
                .iter()
                .map(|e| format!("{}: {}", e.field, e.message))
                .collect();
            assert!(
                lines.iter().any(|l| l == expected),
                "{schema}\nwanted {expected}\ngot {lines:#?}"
            );
        }
    }

    #[test]
    fn what_is_structural() {
        for schema in [
            json!({"type": "object"}),
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            json!({"type": "object", "properties": {"p": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"},
                {"type": "string"}], "pattern": "^a$"}}}),
            json!({"type": "object", "properties": {"p": {"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": [{"type":
                "integer"}, {"type": "string"}]}, {"pattern": "^a$"}]}}}),
            json!({"type": "object", "properties": {"p": {"x-kubernetes-preserve-unknown-fields": true}}}),
            json!({"type": "object", "properties": {"e": {"type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true}}}),
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["a", "b"]}}),
        ] {
            if let Err(errors) = parse(&schema, "p") {
                panic!("{schema}: {errors:#?}");
            }
        }
    }
}
