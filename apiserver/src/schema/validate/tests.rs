use super::*;
use crate::schema::structural;
use serde_json::json;

fn gadget() -> Schema {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["size"], "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 10}, "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        "mode": {"type": "string", "enum": ["A", "B"]}, "port": {"x-kubernetes-int-or-string": true},
        "opt": {"type": "string", "nullable": true},
        "items": {"type": "array", "maxItems": 3, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "min": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 2}},
        "when": {"type": "string", "format": "date-time"}, "i32": {"type": "integer", "format": "int32"},
        "m": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2},
        "lt": {"type": "number", "maximum": 1.5, "exclusiveMaximum": true, "multipleOf": 0.5},
        "one": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}}});
    structural::parse(&schema, "").unwrap()
}

#[test]
fn messages_of_kube_apiserver() {
    let schema = gadget();
    let cases: [(Value, &[&str]); 24] = [
        (
            json!({"size": "three"}),
            &["spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\""],
        ),
        (
            json!({"size": 11}),
            &["spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10"],
        ),
        (json!({"size": 1.0}), &[]),
        (
            json!({"name": "ABC"}),
            &["spec.name: Invalid value: \"ABC\": spec.name in body should match '^[a-z]+$'"],
        ),
        (
            json!({"name": "abcdef"}),
            &["spec.name: Too long: may not be more than 5 bytes"],
        ),
        (
            json!({"mode": "C"}),
            &["spec.mode: Unsupported value: \"C\": supported values: \"A\", \"B\""],
        ),
        (json!({"opt": null}), &[]),
        (
            json!({"mode": null}),
            &[
                "spec.mode: Invalid value: \"null\": spec.mode in body must be of type string: \"null\"",
                "spec.mode: Unsupported value: null: supported values: \"A\", \"B\"",
            ],
        ),
        (
            json!({"items": [{"k": "a"}, {"k": "a"}]}),
            &["spec.items[1]: Duplicate value: {\"k\":\"a\"}"],
        ),
        (
            json!({"tags": ["a", "a"]}),
            &["spec.tags[1]: Duplicate value: \"a\""],
        ),
        (json!({"items": [{"v": 1}]}), &["spec.items[0].k: Required value"]),
        (
            json!({"items": [{"k": "1"}, {"k": "2"}, {"k": "3"}, {"k": "4"}]}),
            &["spec.items: Too many: 4: must have at most 3 items"],
        ),
        (
            json!({"port": true}),
            &[
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
            ],
        ),
        (
            json!({"when": "yesterday"}),
            &[
                "spec.when: Invalid value: \"yesterday\": spec.when in body must be of type date-time: \"yesterday\"",
            ],
        ),
        (
            json!({"m": {"x": "y"}}),
            &["spec.m.x: Invalid value: \"string\": spec.m.x in body must be of type integer: \"string\""],
        ),
        (
            json!({"size": 0, "name": "A", "mode": "Z"}),
            &[
                "spec.mode: Unsupported value: \"Z\": supported values: \"A\", \"B\"",
                "spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'",
                "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
            ],
        ),
        (
            json!({"min": []}),
            &["spec.min: Invalid value: 0: spec.min in body should have at least 1 items"],
        ),
        (
            json!({"min": ["a"]}),
            &["spec.min[0]: Invalid value: \"a\": spec.min[0] in body should be at least 2 chars long"],
        ),
        (
            json!({"m": {"a": 1, "b": 1, "c": 1}}),
            &["spec.m: Too many: 3: must have at most 2 items"],
        ),
        (
            json!({"i32": 3_000_000_000_u64}),
            &[
                "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.i32",
            ],
        ),
        (
            json!({"lt": 1.5}),
            &["spec.lt: Invalid value: 1.5: spec.lt in body should be less than 1.5"],
        ),
        (
            json!({"one": {}}),
            &[
                "<nil>: Invalid value: \"\": \"spec.one\" must validate one and only one schema (oneOf). Found none valid",
                "spec.one.a: Required value",
            ],
        ),
        (
            json!({"one": {"a": "", "b": ""}}),
            &[
                "<nil>: Invalid value: \"\": \"spec.one\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ],
        ),
        (
            json!({"template": {"apiVersion": "v1"}}),
            &["spec.template.kind: Required value"],
        ),
    ];
    for (spec, expected) in cases {
        let mut object = json!({"spec": {"size": 3}});
        object["spec"]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let errors = validate(&schema, &object, None, "");
        let lines: Vec<String> = errors
            .iter()
            .map(|e| format!("{}: {}", e.field, e.message))
            .collect();
        assert_eq!(lines, expected, "{spec}");
    }
    let errors = validate(&schema, &json!({"spec": {}}), None, "");
    assert_eq!(errors, [FieldError::required("spec.size", "")]);
    assert!(unchecked_rules(&errors).is_some());
    assert!(unchecked_rules(&validate(&schema, &json!({"spec": {"size": 99}}), None, "")).is_none());
}

#[test]
fn what_did_not_change_is_not_judged_again() {
    let schema = gadget();
    let old = json!({"spec": {"size": 99, "items": [{"k": "a", "v": "x"}, {"k": "b"}], "tags": ["a", "a"]}});
    let new = json!({"spec": {"size": 99, "items": [{"k": "b"}, {"k": "a", "v": "x"}], "tags": ["a", "a"]}});
    assert!(validate(&schema, &new, Some(&old), "").is_empty());
    let new = json!({"spec": {"size": 98, "items": [{"k": "a", "v": "y"}], "tags": ["b", "a", "a"]}});
    assert_eq!(validate(&schema, &new, Some(&old), "").len(), 3);
}
