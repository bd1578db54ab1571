use super::*;
use crate::fuzz::fuzz;
use crate::registry::{Registry, api_version};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

fn put(out: &mut Vec<u8>, number: u8, body: &[u8]) {
    out.push(number << 3 | 2);
    out.push(u8::try_from(body.len()).unwrap());
    out.extend_from_slice(body);
}

fn nested(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, body) in fields {
        put(&mut out, *number, body);
    }
    out
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = nested(&[(1, api_version.as_bytes()), (2, kind.as_bytes())]);
    [MAGIC, &nested(&[(1, &type_meta), (2, raw), (3, b""), (4, b"")])].concat()
}

#[test]
fn objects_become_the_json_go_would_write() {
    let label = nested(&[(1, b"a"), (2, b"b")]);
    let meta = nested(&[(1, b"n"), (2, b""), (8, b""), (11, &label)]);
    let data = nested(&[(1, b"k"), (2, b"v")]);
    let raw = nested(&[(1, &meta), (2, &data)]);
    let want = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n", "labels": {"a": "b"}}, "data": {"k": "v"},
    });
    assert_eq!(decode(&body("v1", "ConfigMap", &raw)).unwrap(), want);
}

#[test]
fn inline_messages_and_special_ones() {
    // A Volume's source is inline; an IntOrString is a number or text; seconds become a time.
    let source = nested(&[(2, b"")]);
    let volume = nested(&[(1, b"v"), (2, &source)]);
    assert_eq!(
        message("core.v1.Volume", &volume, 9).unwrap(),
        json!({"name": "v", "emptyDir": {}})
    );
    assert_eq!(
        message("util.intstr.IntOrString", &[8, 0, 16, 80, 26, 0], 9).unwrap(),
        json!(80)
    );
    assert_eq!(
        message("util.intstr.IntOrString", &[8, 1, 16, 0, 26, 1, b'x'], 9).unwrap(),
        json!("x")
    );
    assert_eq!(
        message("meta.v1.Time", &[8, 1], 9).unwrap(),
        json!("1970-01-01T00:00:01Z")
    );
    assert_eq!(
        message("authorization.v1.ExtraValue", &[10, 1, b'g'], 9).unwrap(),
        json!(["g"])
    );
}

#[test]
fn a_message_that_is_there_is_a_value() {
    const INT_0: &[u8] = &[8, 0, 16, 0, 26, 0];
    let none: &[u8] = &[];
    let of = |name: &str, number: u8, body: &[u8]| {
        let mut field = Vec::new();
        put(&mut field, number & 15, body);
        // Numbers from 16 on take a second byte.
        if number > 15 {
            field[0] |= 0x80;
            field.insert(1, number >> 4);
        }
        message(name, &field, 9).unwrap()
    };
    for (name, number, body, want) in [
        (
            "apps.v1.RollingUpdateDeployment",
            1,
            INT_0,
            json!({"maxUnavailable": 0}),
        ),
        ("apps.v1.RollingUpdateDeployment", 2, none, json!({"maxSurge": 0})),
        (
            "policy.v1.PodDisruptionBudgetSpec",
            1,
            &[8, 1, 16, 0, 26, 0],
            json!({"minAvailable": ""}),
        ),
        ("core.v1.ServicePort", 4, INT_0, json!({"targetPort": 0})),
        ("core.v1.EmptyDirVolumeSource", 2, none, json!({"sizeLimit": "0"})),
        (
            "policy.v1.PodDisruptionBudgetStatus",
            2,
            &[10, 1, b'p', 18, 2, 8, 0],
            json!({"disruptedPods": {"p": "1970-01-01T00:00:00Z"}}),
        ),
        (
            "apiextensions.v1.JSONSchemaProps",
            30,
            &[8, 0],
            json!({"additionalProperties": false}),
        ),
        (
            "apiextensions.v1.JSONSchemaProps",
            8,
            &[10, 1, b'0'],
            json!({"default": 0}),
        ),
        // Go's zero time is an empty message, and null in JSON.
        ("meta.v1.ObjectMeta", 8, none, json!({})),
        ("coordination.v1.LeaseSpec", 4, none, json!({})),
    ] {
        assert_eq!(of(name, number, body), want, "{name} {number}");
    }
}

#[test]
fn broken_bodies_are_refused() {
    for bytes in [
        &b""[..],
        b"k8s",
        b"k8s\0\x0a\x05",
        b"k8s\0",
        b"k8s\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        assert!(decode(bytes).is_err(), "{bytes:?}");
    }
    assert!(decode(&body("v1", "Nothing", b"")).is_err());
}

#[test]
fn every_stored_kind_has_its_message() {
    for r in crate::registry::Registry::new().all() {
        let name = message_of(&r.api_version(), &r.kind).unwrap_or_default();
        assert!(
            MESSAGES.contains_key(name.as_str()),
            "{} {}: {name}",
            r.api_version(),
            r.kind
        );
    }
}

/// Chance, one byte at a time; nothing but zeros when it is used up.
struct Chance<'a>(&'a [u8]);

impl Chance<'_> {
    fn next(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }
}

fn write_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(u8::try_from(n & 0x7f).unwrap() | 0x80);
        n >>= 7;
    }
    out.push(u8::try_from(n).unwrap());
}

/// One value on the wire, without its tag.
enum Part {
    Number(u64),
    Fixed(u64),
    Bytes(Vec<u8>),
}

impl Part {
    fn write(&self, out: &mut Vec<u8>, number: u64) {
        let wire = match self {
            Self::Number(_) => 0,
            Self::Fixed(_) => 1,
            Self::Bytes(_) => 2,
        };
        write_varint(out, number << 3 | wire);
        match self {
            Self::Number(n) => write_varint(out, *n),
            Self::Fixed(n) => out.extend(n.to_le_bytes()),
            Self::Bytes(bytes) => {
                write_varint(out, bytes.len() as u64);
                out.extend(bytes);
            }
        }
    }
}

fn message_with(parts: &[(u64, Part)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, part) in parts {
        part.write(&mut out, *number);
    }
    out
}

/// A value of a kind with its JSON.
fn make(kind: &'static str, chance: &mut Chance<'_>, depth: usize) -> (Part, Value) {
    let n = chance.next();
    match kind.as_bytes()[0] {
        b's' => {
            let text = "é-text".chars().take(usize::from(n % 8)).collect::<String>();
            (Part::Bytes(text.clone().into_bytes()), text.into())
        }
        b'b' => (
            Part::Bytes(vec![n; usize::from(n % 3)]),
            BASE64_STANDARD.encode(vec![n; usize::from(n % 3)]).into(),
        ),
        b'i' => {
            let n = if n.is_multiple_of(2) {
                i64::from(n)
            } else {
                -i64::from(n) << 40
            };
            (Part::Number(n.cast_unsigned()), n.into())
        }
        b't' => (Part::Number(u64::from(n % 2)), (n % 2 == 1).into()),
        b'd' => (
            Part::Fixed((f64::from(n) / 4.0).to_bits()),
            (f64::from(n) / 4.0).into(),
        ),
        _ => {
            let (bytes, value) = make_message(&kind[1..], chance, depth);
            (Part::Bytes(bytes), value)
        }
    }
}

/// A message with the JSON Go would write for it.
fn make_message(name: &str, chance: &mut Chance<'_>, depth: usize) -> (Vec<u8>, Value) {
    const SCHEMA: &str = "apiextensions.v1.JSONSchemaProps";
    let n = chance.next();
    let text = |t: &str| Part::Bytes(t.as_bytes().to_vec());
    match name {
        "meta.v1.Time" => {
            let second = u64::from(n % 60);
            (
                message_with(&[(1, Part::Number(second))]),
                format!("1970-01-01T00:00:{second:02}Z").into(),
            )
        }
        "meta.v1.MicroTime" => {
            let parts = [(1, Part::Number(1)), (2, Part::Number(u64::from(n) * 1000))];
            (
                message_with(&parts),
                format!("1970-01-01T00:00:01.{n:06}Z").into(),
            )
        }
        "resource.Quantity" => (
            message_with(&[(1, text(&format!("{n}Mi")))]),
            format!("{n}Mi").into(),
        ),
        "util.intstr.IntOrString" if n.is_multiple_of(2) => (
            message_with(&[(1, Part::Number(0)), (2, Part::Number(u64::from(n)))]),
            n.into(),
        ),
        "util.intstr.IntOrString" => (
            message_with(&[(1, Part::Number(1)), (3, text("50%"))]),
            "50%".into(),
        ),
        "runtime.RawExtension" | "meta.v1.FieldsV1" | "apiextensions.v1.JSON" => {
            let value = json!({"a": [n, null]});
            (message_with(&[(1, text(&value.to_string()))]), value)
        }
        "apiextensions.v1.JSONSchemaPropsOrBool" if n.is_multiple_of(2) || depth == 0 => (
            message_with(&[(1, Part::Number(u64::from(n % 4 / 2)))]),
            (n % 4 / 2 == 1).into(),
        ),
        "apiextensions.v1.JSONSchemaPropsOrBool" => {
            let (bytes, value) = make_message(SCHEMA, chance, depth - 1);
            (message_with(&[(2, Part::Bytes(bytes))]), value)
        }
        "apiextensions.v1.JSONSchemaPropsOrStringArray" if n.is_multiple_of(2) || depth == 0 => {
            (message_with(&[(2, text("x")), (2, text("y"))]), json!(["x", "y"]))
        }
        "apiextensions.v1.JSONSchemaPropsOrArray" if depth == 0 => (Vec::new(), json!([])),
        "apiextensions.v1.JSONSchemaPropsOrArray" if n.is_multiple_of(2) => {
            let (bytes, value) = make_message(SCHEMA, chance, depth - 1);
            (message_with(&[(2, Part::Bytes(bytes))]), json!([value]))
        }
        "apiextensions.v1.JSONSchemaPropsOrArray" | "apiextensions.v1.JSONSchemaPropsOrStringArray" => {
            let (bytes, value) = make_message(SCHEMA, chance, depth - 1);
            (message_with(&[(1, Part::Bytes(bytes))]), value)
        }
        _ => make_fields(name, chance, depth),
    }
}

fn make_fields(name: &str, chance: &mut Chance<'_>, depth: usize) -> (Vec<u8>, Value) {
    let known = &MESSAGES[name];
    let ordered: BTreeMap<_, _> = known.iter().collect();
    let (mut bytes, mut json) = (Vec::new(), Map::new());
    for (number, field) in ordered {
        let wanted = chance.next();
        if wanted.is_multiple_of(3) || (depth == 0 && field.kind.starts_with('m')) {
            continue;
        }
        let below = depth.saturating_sub(1);
        if field.map {
            let (part, value) = make(field.kind, chance, below);
            let mut entry = message_with(&[(1, Part::Bytes(b"key".to_vec()))]);
            part.write(&mut entry, 2);
            Part::Bytes(entry).write(&mut bytes, *number);
            json.insert(field.name.into(), json!({"key": value}));
        } else if field.list {
            let made: Vec<(Part, Value)> = (0..wanted % 3).map(|_| make(field.kind, chance, below)).collect();
            let packed = wanted >= 128 && field.kind == "i";
            let mut all = Vec::new();
            for (part, _) in &made {
                match part {
                    Part::Number(n) if packed => write_varint(&mut all, *n),
                    part => part.write(&mut bytes, *number),
                }
            }
            if packed {
                Part::Bytes(all).write(&mut bytes, *number);
            }
            json.insert(field.name.into(), made.into_iter().map(|(_, v)| v).collect());
        } else {
            let (part, value) = make(field.kind, chance, below);
            part.write(&mut bytes, *number);
            let zero = [json!(""), json!(0), json!(0.0), json!(false)].contains(&value);
            match value {
                Value::Object(inner) if field.inline => json.extend(inner),
                value if field.keep_zero || field.kind.starts_with('m') || !zero => {
                    drop(json.insert(field.name.into(), value));
                }
                _ => {}
            }
        }
        if wanted == 250 {
            // A field of a later version.
            Part::Bytes(b"later".to_vec()).write(&mut bytes, 1000);
        }
    }
    let only = known.len() == 1 && known.get(&1).is_some_and(|f| f.name == "items" && f.kind == "s");
    let value = if only {
        json.remove("items").unwrap_or(json!([]))
    } else {
        Value::Object(json)
    };
    (bytes, value)
}

#[test]
fn every_kind_is_read_as_it_was_written() {
    let kinds: Vec<(String, String)> = Registry::new()
        .all()
        .iter()
        .map(|r| (api_version(&r.group, &r.version), r.kind.clone()))
        .collect();
    let input = (
        prop::sample::select(kinds),
        vec(any::<u8>(), 0..300),
        vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    );
    fuzz("protobuf bodies", &input, |((version, kind), chance, damages)| {
        let name = message_of(&version, &kind).unwrap();
        let (raw, mut expected) = make_message(&name, &mut Chance(&chance), 5);
        let type_meta = message_with(&[
            (1, Part::Bytes(version.clone().into_bytes())),
            (2, Part::Bytes(kind.clone().into_bytes())),
        ]);
        let envelope = message_with(&[(1, Part::Bytes(type_meta)), (2, Part::Bytes(raw))]);
        let mut bytes = [MAGIC, &envelope].concat();
        expected["apiVersion"] = version.into();
        expected["kind"] = kind.into();
        prop_assert_eq!(decode(&bytes).map_err(TestCaseError::fail)?, expected);
        for (at, byte) in &damages {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
            if let Ok(value) = decode(&bytes) {
                prop_assert!(value.is_object());
            }
        }
        let _ = decode(&bytes[..bytes.len() - usize::from(chance.len() > 3)]);
        Ok(())
    });
}
