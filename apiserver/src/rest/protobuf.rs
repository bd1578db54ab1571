//! Request bodies in `application/vnd.kubernetes.protobuf`: Go clients of built-in kinds write them, kubectl among them.
//!
//! `data/protobuf.tsv` has a line a message: its name, then `number name kind` of each field. Kinds: `s`tring, `b`ytes,
//! `i`nteger, `t`ruth, `d`ouble, `m`essage; before them `*` for lists, `%` for maps from text, `!` where Go's JSON keeps a
//! zero value, `^` where JSON has the message's fields in place of it. What is decoded is what the same Go object would
//! be as JSON; answers are JSON always.

use crate::registry::split_api_version;
use crate::schema::builtin;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::LazyLock;

const TABLE: &str = include_str!("../../data/protobuf.tsv");
/// What every such body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Deepest nesting; schemas of CRDs are the deepest there is.
const DEPTH: usize = 100;

struct Field {
    name: &'static str,
    kind: &'static str,
    list: bool,
    map: bool,
    keep_zero: bool,
    inline: bool,
}

type Message = HashMap<u64, Field>;

static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    TABLE
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('\t');
            let name = cells.next()?;
            Some((name, cells.filter_map(field).collect()))
        })
        .collect()
});

fn field(cell: &'static str) -> Option<(u64, Field)> {
    let mut parts = cell.splitn(3, ' ');
    let number = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let marked = parts.next()?;
    let kind = marked.trim_start_matches(['*', '%', '!', '^']);
    let marks = &marked[..marked.len() - kind.len()];
    let has = |mark| marks.contains(mark);
    let field = Field {
        name,
        kind,
        list: has('*'),
        map: has('%'),
        keep_zero: has('!'),
        inline: has('^'),
    };
    Some((number, field))
}

/// Name of the message of a kind, as the table has it.
fn message_of(api_version: &str, kind: &str) -> Option<String> {
    let (group, version) = split_api_version(api_version);
    let name = match builtin::name_of(group, version, kind) {
        Some(name) => name.to_owned(),
        // Options are sent in the group of what they are for.
        None if kind.ends_with("Options") => return Some(format!("meta.v1.{kind}")),
        None => return None,
    };
    let name = name.strip_prefix("io.k8s.").unwrap_or(&name);
    let mut parts: Vec<&str> = name.rsplitn(3, '.').collect();
    parts.reverse();
    let [package, version, kind] = parts.as_slice() else {
        return None;
    };
    let group = package.rsplit('.').next().unwrap_or(package);
    Some(format!("{group}.{version}.{kind}"))
}

/// One field on the wire.
enum Wire<'a> {
    Number(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

fn varint(input: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let (first, rest) = input.split_first().ok_or("unexpected EOF")?;
        *input = rest;
        if shift < 64 {
            value |= u64::from(first & 0x7f) << shift;
        }
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("proto: integer overflow".into())
}

fn take<'a>(input: &mut &'a [u8], n: usize) -> Result<&'a [u8], String> {
    if n > input.len() {
        return Err("unexpected EOF".into());
    }
    let (head, rest) = input.split_at(n);
    *input = rest;
    Ok(head)
}

/// The next field: its number and value.
fn next<'a>(input: &mut &'a [u8]) -> Result<(u64, Wire<'a>), String> {
    let tag = varint(input)?;
    let wire = match tag & 7 {
        0 => Wire::Number(varint(input)?),
        1 => {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(take(input, 8)?);
            Wire::Fixed(u64::from_le_bytes(bytes))
        }
        2 => {
            let length = usize::try_from(varint(input)?).map_err(|e| e.to_string())?;
            Wire::Bytes(take(input, length)?)
        }
        5 => {
            take(input, 4)?;
            Wire::Number(0)
        }
        other => return Err(format!("proto: illegal wireType {other}")),
    };
    Ok((tag >> 3, wire))
}

/// The fields of a message, nothing interpreted: number and value.
type Fields<'a> = Vec<(u64, Wire<'a>)>;

/// Reads all fields of a message.
fn fields(mut input: &[u8]) -> Result<Fields<'_>, String> {
    let mut out = Vec::new();
    while !input.is_empty() {
        out.push(next(&mut input)?);
    }
    Ok(out)
}

fn text(bytes: &[u8]) -> Result<Value, String> {
    std::str::from_utf8(bytes)
        .map(Value::from)
        .map_err(|_| "proto: field contains invalid UTF-8".into())
}

/// First bytes field of that number.
fn bytes_at<'a>(all: &[(u64, Wire<'a>)], number: u64) -> Option<&'a [u8]> {
    all.iter().rev().find_map(|(n, w)| match w {
        Wire::Bytes(b) if *n == number => Some(*b),
        _ => None,
    })
}

fn number_at(all: &[(u64, Wire<'_>)], number: u64) -> Option<i64> {
    all.iter().rev().find_map(|(n, w)| match w {
        Wire::Number(v) if *n == number => Some(v.cast_signed()),
        _ => None,
    })
}

/// Messages that are something else in JSON. `None`: the ordinary way.
fn special(name: &str, input: &[u8], depth: usize) -> Option<Result<Value, String>> {
    let read = |f: fn(&Fields<'_>) -> Result<Value, String>| Some(fields(input).and_then(|all| f(&all)));
    match name {
        "meta.v1.Time" => read(|all| time(all, "%Y-%m-%dT%H:%M:%SZ")),
        "meta.v1.MicroTime" => read(|all| time(all, "%Y-%m-%dT%H:%M:%S.%6fZ")),
        "resource.Quantity" => read(|all| text(bytes_at(all, 1).unwrap_or(b"0"))),
        "util.intstr.IntOrString" => read(|all| {
            if number_at(all, 1) == Some(1) {
                text(bytes_at(all, 3).unwrap_or_default())
            } else {
                Ok(number_at(all, 2).unwrap_or(0).into())
            }
        }),
        "runtime.RawExtension" | "meta.v1.FieldsV1" | "apiextensions.v1.JSON" => read(|all| {
            let raw = bytes_at(all, 1).unwrap_or_default();
            if raw.is_empty() {
                return Ok(Value::Null);
            }
            serde_json::from_slice(raw).map_err(|e| e.to_string())
        }),
        "apiextensions.v1.JSONSchemaPropsOrArray"
        | "apiextensions.v1.JSONSchemaPropsOrBool"
        | "apiextensions.v1.JSONSchemaPropsOrStringArray" => Some(schema_or(name, input, depth)),
        _ => None,
    }
}

fn time(all: &[(u64, Wire<'_>)], format: &str) -> Result<Value, String> {
    let Some(seconds) = number_at(all, 1) else {
        return Ok(Value::Null);
    };
    let nanos = i32::try_from(number_at(all, 2).unwrap_or(0)).map_err(|e| e.to_string())?;
    let time = Timestamp::new(seconds, nanos).map_err(|e| e.to_string())?;
    Ok(time.strftime(format).to_string().into())
}

/// A schema, or else a list of schemas, a boolean, or a list of text, by the name of the message.
fn schema_or(name: &str, input: &[u8], depth: usize) -> Result<Value, String> {
    const SCHEMA: &str = "apiextensions.v1.JSONSchemaProps";
    let all = fields(input)?;
    let (schema, other) = if name.ends_with("OrBool") { (2, 1) } else { (1, 2) };
    if let Some(bytes) = bytes_at(&all, schema) {
        return message(SCHEMA, bytes, depth);
    }
    if name.ends_with("OrBool") {
        return Ok((number_at(&all, other) != Some(0)).into());
    }
    let items = all.iter().filter_map(|(n, w)| match w {
        Wire::Bytes(b) if *n == other => Some(*b),
        _ => None,
    });
    let item = |b: &[u8]| {
        if name.ends_with("OrArray") {
            message(SCHEMA, b, depth)
        } else {
            text(b)
        }
    };
    Ok(Value::Array(items.map(item).collect::<Result<_, _>>()?))
}

fn scalar(kind: &str, wire: &Wire<'_>, depth: usize) -> Result<Value, String> {
    match (kind.as_bytes().first(), wire) {
        (Some(b's'), Wire::Bytes(b)) => text(b),
        (Some(b'b'), Wire::Bytes(b)) => Ok(BASE64_STANDARD.encode(b).into()),
        (Some(b'i'), Wire::Number(n)) => Ok(n.cast_signed().into()),
        (Some(b't'), Wire::Number(n)) => Ok((*n != 0).into()),
        (Some(b'd'), Wire::Fixed(n)) => Ok(f64::from_bits(*n).into()),
        (Some(b'm'), Wire::Bytes(b)) => message(&kind[1..], b, depth),
        _ => Err(format!("proto: wrong wireType for a field of kind {kind}")),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(s) => s.is_empty(),
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        _ => false,
    }
}

fn message(name: &str, input: &[u8], depth: usize) -> Result<Value, String> {
    if depth == 0 {
        return Err("proto: nested too deep".into());
    }
    let depth = depth - 1;
    if let Some(done) = special(name, input, depth) {
        return done;
    }
    let known = MESSAGES
        .get(name)
        .ok_or_else(|| format!("proto: unknown message {name}"))?;
    let mut out = Map::new();
    for (number, wire) in fields(input)? {
        let Some(field) = known.get(&number) else { continue };
        if field.map {
            let Wire::Bytes(entry) = wire else {
                return Err("proto: a map entry is no message".into());
            };
            let entry = fields(entry)?;
            let key = text(bytes_at(&entry, 1).unwrap_or_default())?;
            let value = match entry.iter().rev().find(|(n, _)| *n == 2) {
                Some((_, wire)) => scalar(field.kind, wire, depth)?,
                None => scalar(field.kind, &Wire::Bytes(&[]), depth)?,
            };
            let map = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            if let (Value::Object(map), Value::String(key)) = (map, key) {
                map.insert(key, value);
            }
        } else if field.list {
            let list = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else { continue };
            match wire {
                // Packed numbers come as one field.
                Wire::Bytes(mut packed) if matches!(field.kind, "i" | "t") => {
                    while !packed.is_empty() {
                        list.push(scalar(field.kind, &Wire::Number(varint(&mut packed)?), depth)?);
                    }
                }
                wire => list.push(scalar(field.kind, &wire, depth)?),
            }
        } else {
            let value = scalar(field.kind, &wire, depth)?;
            // A message that is there is a value, whatever it is in JSON: `maxSurge: 0` is not the same as none.
            let may_be_none = !field.keep_zero && !field.kind.starts_with('m');
            if value.is_null() || (may_be_none && is_zero(&value)) {
                continue;
            }
            match value {
                Value::Object(inner) if field.inline => out.extend(inner),
                value => {
                    out.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    // Named lists of text are messages of one list on the wire and lists in JSON.
    if let (true, Some(items)) = (known.len() == 1, known.get(&1))
        && items.name == "items"
        && items.kind == "s"
    {
        return Ok(out.remove("items").unwrap_or_else(|| Value::Array(Vec::new())));
    }
    Ok(Value::Object(out))
}

/// What is said of a body that is no message.
pub const NONE: &str =
    "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";

/// Whether a body begins as a message does.
pub fn is_one(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Decodes a body into the JSON object it stands for, `apiVersion` and `kind` included.
pub fn decode(bytes: &[u8]) -> Result<Value, String> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(NONE)?;
    let envelope = fields(envelope)?;
    let type_meta = fields(bytes_at(&envelope, 1).unwrap_or_default())?;
    let part = |n| text(bytes_at(&type_meta, n).unwrap_or_default());
    let (api_version, kind) = (part(1)?, part(2)?);
    let (version_text, kind_text) = (
        api_version.as_str().unwrap_or_default(),
        kind.as_str().unwrap_or_default(),
    );
    let name = message_of(version_text, kind_text)
        .filter(|n| MESSAGES.contains_key(n.as_str()))
        .ok_or_else(|| format!("no kind {kind} is registered for version {api_version}"))?;
    let mut object = message(&name, bytes_at(&envelope, 2).unwrap_or_default(), DEPTH)?;
    object["apiVersion"] = api_version;
    object["kind"] = kind;
    Ok(object)
}

#[cfg(test)]
mod tests;
