//! Structural schemas and the rules in them: generated schemas with values that fit or do not, against an evaluation of
//! their own.

use super::{any_json, fuzz};
use crate::schema::cel::{Cost, Rules};
use crate::schema::default::apply_defaults;
use crate::schema::openapi::to_openapi_v3;
use crate::schema::prune::prune;
use crate::schema::structural::parse;
use crate::schema::validate::validate;
use crate::schema::validate_custom;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::BoxedStrategy;
use serde_json::{Value, json};

fn name() -> BoxedStrategy<String> {
    "[a-c]".boxed()
}

/// A structural schema.
fn schema() -> BoxedStrategy<Value> {
    let bounds = (prop::option::of(-2..3_i64), prop::option::of(-2..3_i64));
    let leaf = prop_oneof![
        bounds.prop_map(|(low, high)| {
            let mut s = json!({"type": "integer"});
            if let Some(low) = low {
                s["minimum"] = low.into();
            }
            if let Some(high) = high {
                s["maximum"] = high.into();
            }
            s
        }),
        (0..2_u64, 0..3_u64)
            .prop_map(|(low, high)| json!({"type": "string", "minLength": low, "maxLength": high})),
        prop::sample::subsequence(vec!["", "a", "b", "c"], 1..3)
            .prop_map(|v| json!({"type": "string", "enum": v})),
        Just(json!({"type": "boolean"})),
        Just(json!({"type": "integer", "nullable": true})),
        Just(json!({"x-kubernetes-int-or-string": true})),
        Just(json!({"type": "string", "default": "a"})),
        Just(json!({"type": "integer", "default": 1})),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
    ];
    let node = leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            (
                btree_map(name(), inner.clone(), 0..4),
                vec(name(), 0..2),
                any::<bool>(),
                any::<bool>()
            )
                .prop_map(|(properties, mut required, preserve, filled)| {
                    required.retain(|r| properties.contains_key(r));
                    required.dedup();
                    let mut s = json!({"type": "object", "properties": properties});
                    if !required.is_empty() {
                        s["required"] = json!(required);
                    } else if filled {
                        s["default"] = json!({});
                    }
                    if preserve {
                        s["x-kubernetes-preserve-unknown-fields"] = true.into();
                    }
                    s
                }),
            inner
                .clone()
                .prop_map(|item| json!({"type": "object", "additionalProperties": item})),
            (inner, 0..3_u64)
                .prop_map(|(item, most)| json!({"type": "array", "maxItems": most, "items": item})),
        ]
    });
    btree_map(name(), node, 1..4)
        .prop_map(|properties| {
            json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}})
        })
        .boxed()
}

/// Values that meet such schemas.
fn value() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..4_i64).prop_map(Value::from),
        "[a-c]{0,3}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            3 => btree_map(name(), inner.clone(), 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
            1 => vec(inner, 0..4).prop_map(Value::from),
        ]
    });
    prop_oneof![4 => btree_map(name(), value.clone(), 0..4).prop_map(|m| json!({"spec": m})), 1 => value]
        .boxed()
}

/// Whether a value is as a schema says, read from the schema as it was written.
fn fits(schema: &Value, value: &Value) -> bool {
    if value.is_null() && schema["nullable"] == true {
        return true;
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return value.is_i64() || value.is_string();
    }
    let within = |n: i64, low: &str, high: &str| {
        schema[low].as_i64().is_none_or(|l| n >= l) && schema[high].as_i64().is_none_or(|h| n <= h)
    };
    match schema["type"].as_str() {
        None => true,
        Some("integer") => value.as_i64().is_some_and(|n| within(n, "minimum", "maximum")),
        Some("boolean") => value.is_boolean(),
        Some("string") => value.as_str().is_some_and(|s| {
            let known = schema["enum"].as_array().is_none_or(|e| e.contains(value));
            known && within(s.chars().count().try_into().unwrap(), "minLength", "maxLength")
        }),
        Some("array") => value.as_array().is_some_and(|items| {
            within(items.len().try_into().unwrap(), "minItems", "maxItems")
                && items.iter().all(|item| fits(&schema["items"], item))
        }),
        Some("object") => value.as_object().is_some_and(|map| {
            let required = schema["required"].as_array().into_iter().flatten();
            let mut required = required.filter_map(Value::as_str);
            required.all(|r| map.contains_key(r))
                && map.iter().all(|(k, v)| {
                    match (&schema["properties"][k], &schema["additionalProperties"]) {
                        (Value::Null, Value::Null) => true,
                        (Value::Null, all) => fits(all, v),
                        (own, _) => fits(own, v),
                    }
                })
        }),
        Some(other) => panic!("{other}"),
    }
}

/// Whether all of `part` is in `whole`.
fn is_part(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(k, v)| whole.get(k).is_some_and(|w| is_part(v, w))),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(p, w)| is_part(p, w))
        }
        _ => part == whole,
    }
}

/// Without nulls in maps: what defaulting may take away.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k.clone(), without_nulls(v)))
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn structural_schemas() {
    fuzz(
        "structural schemas",
        &(schema(), value(), value()),
        |(text, given, other)| {
            // Defaults that break the schema's own rules are refused: there is nothing to see then.
            let Ok(schema) = parse(&text, "") else {
                return Ok(());
            };

            let valid = validate(&schema, &given, None, "").is_empty();
            prop_assert_eq!(
                valid,
                fits(&text, &given),
                "{:?}",
                validate(&schema, &given, None, "")
            );
            prop_assert!(
                validate(&schema, &given, Some(&given), "").is_empty(),
                "unchanged is not judged"
            );
            if fits(&text, &other) {
                prop_assert!(
                    validate(&schema, &other, Some(&given), "").is_empty(),
                    "valid whatever was before"
                );
            }

            let mut pruned = given.clone();
            let removed = prune(&schema, &mut pruned, false);
            prop_assert!(is_part(&pruned, &given));
            prop_assert_eq!(removed.is_empty(), pruned == given);
            prop_assert!(
                prune(&schema, &mut pruned.clone(), false).is_empty(),
                "once is enough"
            );
            if valid {
                prop_assert!(
                    validate(&schema, &pruned, None, "").is_empty(),
                    "pruning spoils nothing"
                );
            }

            let mut filled = pruned.clone();
            apply_defaults(&schema, &mut filled);
            if given.is_object() {
                prop_assert!(
                    is_part(&without_nulls(&filled), &filled) && kept(&pruned, &filled),
                    "{} of {}",
                    filled,
                    pruned
                );
            }
            let mut again = filled.clone();
            apply_defaults(&schema, &mut again);
            prop_assert_eq!(&again, &filled, "once is enough");
            prop_assert!(
                prune(&schema, &mut again, false).is_empty(),
                "defaults are known fields"
            );
            if valid {
                prop_assert!(
                    validate(&schema, &filled, None, "").is_empty(),
                    "defaults are valid"
                );
            }

            // Published and read again it is the same schema.
            let published = to_openapi_v3(&schema);
            let back =
                parse(&published, "").map_err(|e| TestCaseError::fail(format!("{e:?} of {published}")))?;
            prop_assert_eq!(&to_openapi_v3(&back), &published);
            let words = |s| {
                validate(s, &given, None, "")
                    .into_iter()
                    .map(|e| format!("{e:?}"))
                    .collect::<Vec<_>>()
            };
            prop_assert_eq!(words(&back), words(&schema));
            Ok(())
        },
    );
}

/// Whether defaulting kept every value that was not null.
fn kept(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Null, _) => true,
        (Value::Object(before), Value::Object(after)) => before
            .iter()
            .all(|(k, v)| v.is_null() || after.get(k).is_some_and(|a| kept(v, a))),
        (Value::Array(before), Value::Array(after)) => {
            before.len() == after.len() && before.iter().zip(after).all(|(b, a)| kept(b, a))
        }
        _ => before == after,
    }
}

/// An arithmetic or boolean expression with what it is worth; `None` where CEL gives an error.
#[derive(Debug, Clone)]
struct Term<T> {
    text: String,
    worth: Option<T>,
}

fn number(a: i64, b: i64) -> BoxedStrategy<Term<i64>> {
    let of = |text: String, worth| Term { text, worth };
    let leaf = prop_oneof![
        (0..20_i64).prop_map(move |n| of(n.to_string(), Some(n))),
        Just(of("self.a".into(), Some(a))),
        Just(of("self.b".into(), Some(b))),
        Just(of("size(self.text)".into(), Some(3))),
        Just(of("self.list[1]".into(), Some(20))),
        Just(of("self.list.size()".into(), Some(3))),
        Just(of("int('7')".into(), Some(7))),
    ];
    leaf.prop_recursive(4, 24, 2, move |inner| {
        let two = (
            inner.clone(),
            inner.clone(),
            prop::sample::select(vec!["+", "-", "*", "/", "%"]),
        );
        let cond = (boolean_of(inner.clone()), inner.clone(), inner);
        prop_oneof![
            3 => two.prop_map(move |(a, b, op)| {
                let worth = a.worth.zip(b.worth).and_then(|(a, b)| match op {
                    "+" => a.checked_add(b),
                    "-" => a.checked_sub(b),
                    "*" => a.checked_mul(b),
                    "/" => a.checked_div(b),
                    _ => a.checked_rem(b),
                });
                of(format!("({} {op} {})", a.text, b.text), worth)
            }),
            1 => cond.prop_map(move |(c, a, b)| {
                let worth = c.worth.and_then(|c| if c { a.worth } else { b.worth });
                of(format!("({} ? {} : {})", c.text, a.text, b.text), worth)
            }),
        ]
    })
    .boxed()
}

fn boolean_of(number: BoxedStrategy<Term<i64>>) -> BoxedStrategy<Term<bool>> {
    (
        number.clone(),
        number,
        prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]),
    )
        .prop_map(|(a, b, op)| {
            let worth = a.worth.zip(b.worth).map(|(a, b)| match op {
                "<" => a < b,
                "<=" => a <= b,
                ">" => a > b,
                ">=" => a >= b,
                "==" => a == b,
                _ => a != b,
            });
            Term {
                text: format!("{} {op} {}", a.text, b.text),
                worth,
            }
        })
        .boxed()
}

fn boolean(a: i64, b: i64) -> BoxedStrategy<Term<bool>> {
    boolean_of(number(a, b))
        .prop_recursive(3, 12, 2, |inner| {
            let two = (inner.clone(), inner.clone(), any::<bool>());
            prop_oneof![
                two.prop_map(|(a, b, and)| {
                    // An error on one side does not matter when the other decides.
                    let decides = Some(!and);
                    let worth = match (a.worth, b.worth) {
                        (Some(a), Some(b)) => Some(if and { a && b } else { a || b }),
                        (a, b) if a == decides || b == decides => decides,
                        _ => None,
                    };
                    let op = if and { "&&" } else { "||" };
                    Term {
                        text: format!("({} {op} {})", a.text, b.text),
                        worth,
                    }
                }),
                inner.clone().prop_map(|t| Term {
                    text: format!("!({})", t.text),
                    worth: t.worth.map(|w| !w)
                }),
                inner.prop_map(|t| Term {
                    text: format!("[1, 2].all(x, x > 0 && ({}))", t.text),
                    worth: t.worth
                }),
            ]
        })
        .boxed()
}

fn ruled(rule: &str) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "integer"}, "b": {"type": "integer"}, "text": {"type": "string", "maxLength": 9},
        "list": {"type": "array", "maxItems": 5, "items": {"type": "integer"}}},
        "x-kubernetes-validations": [{"rule": rule}]}}})
}

fn small() -> BoxedStrategy<i64> {
    prop_oneof![4 => -4..5_i64, 1 => any::<i64>()].boxed()
}

#[test]
fn rules() {
    let input = (small(), small()).prop_flat_map(|(a, b)| (Just(a), Just(b), boolean(a, b)));
    fuzz("rules", &input, |(a, b, term)| {
        let schema = parse(&ruled(&term.text), "").map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
        // What is too dear to be allowed is refused, and says so.
        let rules = match Rules::compile(&schema, "", Cost::Any) {
            Ok(rules) => rules,
            Err(errors) => {
                let text = format!("{errors:?}");
                prop_assert!(
                    text.contains("cost") || text.contains("nest"),
                    "{}: {}",
                    term.text,
                    text
                );
                return Ok(());
            }
        };
        let object = json!({"spec": {"a": a, "b": b, "text": "xyz", "list": [10, 20, 30]}});
        let errors = validate_custom(&schema, &rules, &object, None);
        prop_assert_eq!(
            errors.is_empty(),
            term.worth == Some(true),
            "{}: {:?}",
            &term.text,
            errors
        );
        prop_assert!(
            rules.check(&object, Some(&object)).is_empty(),
            "unchanged is not judged"
        );
        Ok(())
    });
}

#[test]
fn anything_as_a_rule() {
    let piece = prop::sample::select(vec![
        "self",
        "oldSelf",
        ".a",
        ".list",
        ".text",
        ".m",
        "[0]",
        "['a']",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        "?",
        ":",
        " + ",
        " - ",
        " * ",
        " / ",
        " % ",
        " && ",
        " || ",
        "!",
        " == ",
        " < ",
        " in ",
        "1",
        "2u",
        "1.5",
        "'a'",
        "b'a'",
        "r'\\d'",
        "\"\\u00e9\"",
        "true",
        "null",
        ".all(x, ",
        ".exists(x, ",
        ".map(x, ",
        ".filter(x, ",
        "x",
        ".size()",
        ".matches('a')",
        ".startsWith(",
        "has(self.a)",
        "size(",
        "int(",
        "string(",
        "duration('1h')",
        "timestamp('2020-01-01T00:00:00Z')",
        "quantity('1Gi')",
        "url('https://a')",
        "ip('::1')",
        "cidr('10.0.0.0/8')",
        "semver('1.0.0')",
        "optional.of(",
        ".orValue(",
        "?.a",
        "[?0]",
        ".split(',')",
        ".join('')",
        ".sum()",
        ".min()",
        ".indexOf('a')",
        ".lowerAscii()",
        ".format([1])",
        "sets.contains(",
        "-9223372036854775808",
        "9223372036854775807",
        "1e309",
        "__a__",
        "dyn(",
        "type(",
        "//",
        "\n",
    ]);
    let text = vec(piece, 0..14).prop_map(|p| p.concat());
    let text = prop_oneof![4 => text, 1 => any::<String>()];
    let object = json!({"spec": {"a": 1, "b": 2, "text": "a,b", "list": [1, 2, 3], "m": {"a": "b"}}});
    fuzz("anything as a rule", &(text, any_json()), |(rule, other)| {
        let mut text = ruled(&rule);
        text["properties"]["spec"]["properties"]["m"] =
            json!({"type": "object", "maxProperties": 3, "additionalProperties": {"type": "string"}});
        if let Ok(schema) = parse(&text, "")
            && let Ok(rules) = Rules::compile(&schema, "", Cost::Any)
        {
            let words = || {
                rules
                    .check(&object, None)
                    .into_iter()
                    .map(|e| format!("{e:?}"))
                    .collect::<Vec<_>>()
            };
            prop_assert_eq!(words(), words(), "the same each time");
            let _ = rules.check(&object, Some(&json!({"spec": {"a": 2}})));
            let _ = validate_custom(&schema, &rules, &json!({"spec": other}), None);
        }
        Ok(())
    });
}

#[test]
fn anything_as_a_schema() {
    let names = prop::sample::select(vec![
        "type",
        "properties",
        "items",
        "additionalProperties",
        "required",
        "enum",
        "default",
        "minimum",
        "maximum",
        "pattern",
        "format",
        "nullable",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-int-or-string",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-validations",
        "rule",
        "message",
        "messageExpression",
        "object",
        "array",
        "string",
        "integer",
        "map",
        "set",
        "uniqueItems",
        "multipleOf",
        "minLength",
        "metadata",
        "spec",
        "a",
        "$ref",
        "id",
    ])
    .prop_map(String::from)
    .boxed();
    let word = prop::sample::select(vec![
        json!("object"),
        json!("array"),
        json!("string"),
        json!("integer"),
        json!("number"),
        json!("boolean"),
        json!("map"),
        json!("set"),
        json!(true),
        json!(0),
        json!(-1),
        json!(0.5),
        json!(["a"]),
        json!("(a+)+$"),
        json!("date-time"),
        json!("a"),
        json!("self.a == 1"),
        Value::Null,
    ]);
    let schema = word
        .prop_recursive(5, 40, 5, move |inner| {
            prop_oneof![
                1 => vec(inner.clone(), 0..3).prop_map(Value::from),
                4 => btree_map(names.clone(), inner, 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
        .boxed();
    fuzz("anything as a schema", &(schema, any_json()), |(inner, value)| {
        let wrapped = json!({"type": "object", "properties": {"spec": inner}});
        for text in [inner, wrapped] {
            let Ok(schema) = parse(&text, "p") else { continue };
            let _ = to_openapi_v3(&schema);
            let mut filled = value.clone();
            prune(&schema, &mut filled, true);
            apply_defaults(&schema, &mut filled);
            let once = filled.clone();
            apply_defaults(&schema, &mut filled);
            prop_assert_eq!(filled, once);
            if let Ok(rules) = Rules::compile(&schema, "p", Cost::Any) {
                let _ = validate_custom(&schema, &rules, &value, None);
            }
        }
        Ok(())
    });
}
