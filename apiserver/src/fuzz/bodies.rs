//! Bodies: JSON and YAML are read as other readers of them do, and what is broken is refused.

use super::{Outcome, any_json, fuzz};
use crate::rest::body::{parse_json, parse_object, parse_yaml};
use crate::rest::negotiate::Format;
use crate::rest::raw;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

/// Whether two values are the same but for numbers that are written differently and mean the same.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|o| alike(v, o)))
        }
        _ => a == b,
    }
}

/// What happens to bytes on their way.
#[derive(Debug, Clone)]
enum Damage {
    Set(Index, u8),
    Cut(Index),
    Insert(Index, &'static str),
    Repeat(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "\"",
        ",",
        ":",
        "\\",
        "null",
        "1e999",
        "-",
        "\u{0}",
        "\\ud800",
        "é",
        "&a ",
        "*a",
        "!!binary ",
        "---\n",
        "\t",
        "\n",
        "? ",
        "| ",
        "<<: ",
        "'",
        "#",
        "%",
    ]);
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Damage::Set(i, b)),
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), piece).prop_map(|(i, p)| Damage::Insert(i, p)),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Damage::Repeat(a, b)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        match damage {
            Damage::Set(i, b) => {
                let at = i.index(bytes.len());
                bytes[at] = *b;
            }
            Damage::Cut(i) => bytes.truncate(i.index(bytes.len())),
            Damage::Insert(i, piece) => {
                let at = i.index(bytes.len());
                bytes.splice(at..at, piece.bytes());
            }
            Damage::Repeat(a, b) => {
                let (a, b) = (a.index(bytes.len()), b.index(bytes.len()));
                let part = bytes[a.min(b)..a.max(b)].to_vec();
                bytes.splice(a..a, part);
            }
        }
    }
    bytes
}

/// With whole numbers written without a fraction, as they are read.
fn whole(value: Value) -> Value {
    match value {
        Value::Number(n) => match n.as_f64() {
            #[allow(clippy::cast_possible_truncation)] // it is small and whole
            Some(f) if n.is_f64() && f.fract() == 0.0 && f.abs() < 9_007_199_254_740_992.0 => {
                (f as i64).into()
            }
            _ => Value::Number(n),
        },
        Value::Array(items) => items.into_iter().map(whole).collect(),
        Value::Object(map) => map.into_iter().map(|(k, v)| (k, whole(v))).collect(),
        other => other,
    }
}

#[test]
fn json_bodies() {
    fuzz(
        "JSON bodies",
        &(any_json(), vec(damage(), 0..3)),
        |(value, damages)| -> Outcome {
            let bytes = damaged(serde_json::to_vec(&value).unwrap(), &damages);
            let (ours, theirs) = (parse_json(&bytes), serde_json::from_slice::<Value>(&bytes));
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => {
                    // Which numbers are whole is for who knows their types.
                    prop_assert_eq!(whole(ours.value.clone()), whole(theirs));
                    if damages.is_empty() {
                        prop_assert!(ours.duplicates.is_empty(), "{:?}", ours.duplicates);
                    }
                }
                (Err(message), Err(_)) => prop_assert!(!message.is_empty()),
                (ours, theirs) => return Err(TestCaseError::fail(format!("{ours:?} and {theirs:?}"))),
            }
            for format in [Format::Json, Format::Yaml, Format::Protobuf] {
                if let Ok(parsed) = parse_object(&bytes::Bytes::from(bytes.clone()), format, "ConfigMap") {
                    prop_assert!(parsed.value.is_object());
                }
            }
            Ok(())
        },
    );
}

#[test]
fn repeated_keys() {
    let pairs = vec(("[a-d]", 0..3_i64), 0..6);
    fuzz("repeated keys", &pairs, |pairs| {
        let text: Vec<String> = pairs.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        let text = format!("{{\"o\":[{{{}}}]}}", text.join(","));
        let parsed = parse_json(text.as_bytes()).map_err(TestCaseError::fail)?;
        let mut seen: Vec<&str> = Vec::new();
        let mut again: Vec<String> = Vec::new();
        for (k, v) in &pairs {
            let path = format!("duplicate field \"o[0].{k}\"");
            if seen.contains(&k.as_str()) && !again.contains(&path) {
                again.push(path);
            }
            seen.push(k);
            let last = pairs.iter().rfind(|(other, _)| other == k).map(|(_, v)| v);
            prop_assert_eq!(
                parsed.value["o"][0][k.as_str()].as_i64(),
                last.copied(),
                "{} {}",
                k,
                v
            );
        }
        prop_assert_eq!(parsed.duplicates, again);
        Ok(())
    });
}

#[test]
fn json_is_yaml() {
    fuzz("JSON as YAML", &any_json(), |value| {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let parsed =
                parse_yaml(text.as_bytes()).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
            prop_assert!(alike(&parsed.value, &value), "{} became {}", text, parsed.value);
        }
        Ok(())
    });
}

#[test]
fn written_yaml_is_read() {
    fuzz("YAML", &(any_json(), vec(damage(), 0..3)), |(value, damages)| {
        let text = serde_saphyr::to_string(&value).map_err(|e| TestCaseError::fail(e.to_string()))?;
        if damages.is_empty() {
            let parsed =
                parse_yaml(text.as_bytes()).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
            prop_assert!(alike(&parsed.value, &value), "{} became {}", text, parsed.value);
        } else {
            let _ = parse_yaml(&damaged(text.into_bytes(), &damages));
        }
        Ok(())
    });
}

#[test]
fn outer_levels_of_stored_objects() {
    fuzz(
        "outer levels",
        &(any_json(), vec(damage(), 0..2)),
        |(value, damages)| {
            let bytes = Bytes::from(damaged(serde_json::to_vec(&value).unwrap(), &damages));
            let _ = (raw::without_type(&bytes), raw::partial(&bytes, "meta.k8s.io/v1"));
            if let (true, Value::Object(map)) = (damages.is_empty(), &value) {
                let members = raw::members(&bytes).ok_or_else(|| TestCaseError::fail("no members"))?;
                prop_assert_eq!(members.len(), map.len());
                for (member, value) in members.iter().zip(map.values()) {
                    prop_assert_eq!(&serde_json::from_slice::<Value>(member.value).unwrap(), value);
                }
            }
            Ok(())
        },
    );
}
