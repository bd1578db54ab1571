//! Filling in a CRD's `default`s (apiextensions `schema/defaulting`).

use super::{Schema, Type};
use serde_json::Value;

/// Applies defaults in place, nested ones too. A `null` where the field is not nullable counts as absent: it becomes the
/// default, or goes away when there is none.
pub fn apply_defaults(schema: &Schema, object: &mut Value) {
    match object {
        Value::Object(map) => {
            map.retain(|key, value| {
                let Some(child) = schema.child(key) else {
                    return true;
                };
                !stray_null(child, value) || child.default.is_some()
            });
            for (name, reference) in &schema.properties {
                let child = Schema::resolve(reference);
                let Some(default) = &child.default else { continue };
                match map.get_mut(&**name) {
                    None => {
                        map.insert(name.to_string(), default.clone());
                    }
                    Some(value) if stray_null(child, value) => *value = default.clone(),
                    Some(_) => {}
                }
            }
            for (key, value) in map.iter_mut() {
                if let Some(child) = schema.child(key) {
                    fill_null(child, value);
                    apply_defaults(child, value);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = schema.items() else { return };
            for item in list {
                fill_null(items, item);
                apply_defaults(items, item);
            }
        }
        _ => {}
    }
}

/// Puts back each `null` of `given` that defaulting let go: server-side apply is held to what it says, where other writes may
/// say null for nothing.
pub fn restore_nulls(schema: &Schema, given: &Value, object: &mut Value) {
    match (given, object) {
        (Value::Object(given), Value::Object(object)) => {
            for (key, value) in given {
                let Some(child) = schema.child(key) else { continue };
                match object.get_mut(key) {
                    Some(kept) => restore_nulls(child, value, kept),
                    None if stray_null(child, value) => {
                        object.insert(key.clone(), Value::Null);
                    }
                    None => {}
                }
            }
        }
        (Value::Array(given), Value::Array(list)) => {
            let Some(items) = schema.items() else { return };
            for (given, item) in given.iter().zip(list) {
                restore_nulls(items, given, item);
            }
        }
        _ => {}
    }
}

fn fill_null(schema: &Schema, value: &mut Value) {
    if let (true, Some(default)) = (stray_null(schema, value), &schema.default) {
        *value = default.clone();
    }
}

fn stray_null(schema: &Schema, value: &Value) -> bool {
    // A node without a type holds whatever was given, null included.
    value.is_null() && !schema.nullable && !(schema.kind == Type::Any && schema.preserve_unknown)
}

#[cfg(test)]
mod tests {
    use super::super::structural;
    use super::*;
    use serde_json::json;

    #[test]
    fn nulls_that_were_let_go_come_back() {
        let schema = structural::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "s": {"type": "string"}, "d": {"type": "string", "default": "x"}, "n": {"type": "string", "nullable": true},
            "l": {"type": "array", "items": {"type": "object", "properties": {"s": {"type": "string"}}}},
            "m": {"type": "object", "additionalProperties": {"type": "string"}}}}}}), "")
        .unwrap();
        let given = json!({"spec": {"s": null, "d": null, "n": null, "l": [{"s": null}], "m": {"a": null}, "zz": null}});
        let mut object = given.clone();
        object["spec"].as_object_mut().unwrap().remove("zz");
        apply_defaults(&schema, &mut object);
        let want = json!({"spec": {"d": "x", "n": null, "l": [{}], "m": {}}});
        assert_eq!(object, want);
        restore_nulls(&schema, &given, &mut object);
        let want = json!({"spec": {"s": null, "d": "x", "n": null, "l": [{"s": null}], "m": {"a": null}}});
        assert_eq!(object, want);
    }

    #[test]
    fn nested_nulls_lists_and_maps() {
        let schema = structural::parse(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
                "size": {"type": "integer", "default": 3},
                "mode": {"type": "string", "default": "A"},
                "name": {"type": "string"},
                "opt": {"type": "string", "nullable": true},
                "optd": {"type": "string", "nullable": true, "default": "x"},
                "items": {"type": "array", "items": {"type": "object", "properties": {
                    "k": {"type": "string"}, "v": {"type": "integer", "default": 1}}}},
                "m": {"type": "object", "additionalProperties": {"type": "object", "default": {}, "properties": {
                    "d": {"type": "integer", "default": 7}}}},
                "deep": {"type": "object", "default": {}, "properties": {"x": {"type": "integer", "default": 9}}}}}}}),
            "",
        )
        .unwrap();
        let cases = [
            (json!({}), json!({})),
            (
                json!({"spec": {}}),
                json!({"spec": {"size": 3, "mode": "A", "optd": "x", "deep": {"x": 9}}}),
            ),
            (
                json!({"spec": {"opt": null, "optd": null, "mode": null, "name": null, "deep": {"x": null}}}),
                json!({"spec": {"size": 3, "mode": "A", "opt": null, "optd": null, "deep": {"x": 9}}}),
            ),
            (
                json!({"spec": {"size": 1, "mode": "B", "optd": "", "deep": {"x": 1}, "items": [{"k": "a"}, {"k": "b", "v": 2}],
                    "m": {"a": {}, "b": null}}}),
                json!({"spec": {"size": 1, "mode": "B", "optd": "", "deep": {"x": 1},
                    "items": [{"k": "a", "v": 1}, {"k": "b", "v": 2}], "m": {"a": {"d": 7}, "b": {"d": 7}}}}),
            ),
        ];
        for (mut given, expected) in cases {
            apply_defaults(&schema, &mut given);
            assert_eq!(given, expected);
        }
    }
}
