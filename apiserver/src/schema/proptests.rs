//! Whatever JSON comes in, nothing panics, and pruning and defaulting twice is the same as once.

use super::{Schema, builtin, decode, default, openapi, prune, structural, validate};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

static GADGET: LazyLock<Schema> = LazyLock::new(|| {
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "integer", "minimum": 1, "multipleOf": 2, "default": 4},
        "b": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3, "nullable": true, "default": "x"},
        "c": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"], "items": {"type": "object",
              "required": ["a"], "properties": {"a": {"type": "string"}, "b": {"type": "integer", "default": 1}}}},
        "d": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "e": {"type": "object", "additionalProperties": {"type": "object", "default": {},
              "properties": {"a": {"type": "boolean", "default": true}}}},
        "f": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
              "properties": {"a": {"type": "object", "properties": {"b": {"type": "number"}}}}},
        "g": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        "h": {"x-kubernetes-int-or-string": true},
        "i": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer", "default": 3}},
              "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"properties": {"a": {"enum": ["z"]}}}}}});
    structural::parse(&schema, "").unwrap()
});

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-i]",
        1 => prop::sample::select(vec!["metadata".to_owned(), "apiVersion".into(), "kind".into(), "name".into(), "spec".into()]),
        1 => "\\PC{0,3}",
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-10_i64..10).prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        "\\PC{0,4}".prop_map(Value::from),
        "[a-z]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn schemas() -> [&'static Schema; 3] {
    let deployment = builtin::for_gvk("apps", "v1", "Deployment").unwrap();
    [
        &GADGET,
        deployment,
        builtin::for_gvk("", "v1", "Service").unwrap(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn values(new in json_value(), old in json_value()) {
        for schema in schemas() {
            validate::validate(schema, &new, Some(&old), "");
            prop_assert!(validate::validate(schema, &new, Some(&new), "").is_empty(), "unchanged is never judged");
            decode::check_types(schema, &new);
            decode::check_metadata(schema, &new);

            for resource in [false, true] {
                let mut pruned = new.clone();
                prune::prune(schema, &mut pruned, resource);
                let once = pruned.clone();
                prop_assert!(prune::prune(schema, &mut pruned, resource).is_empty());
                prop_assert_eq!(&once, &pruned);
            }

            let mut filled = new.clone();
            default::apply_defaults(schema, &mut filled);
            let once = filled.clone();
            default::apply_defaults(schema, &mut filled);
            prop_assert_eq!(once, filled);
        }
    }

    #[test]
    fn any_json_as_a_schema(schema in json_value(), value in json_value()) {
        let wrapped = json!({"type": "object", "properties": schema, "default": value, "allOf": [schema]});
        if let Ok(schema) = structural::parse(&wrapped, "p") {
            openapi::to_openapi_v3(&schema);
            validate::validate(&schema, &value, None, "");
        }
    }
}
