//! Objects and patches that expressions construct: `Object{…}`, `Object.spec{…}` and `JSONPatch{…}` (KEP-3962).
//!
//! The evaluator knows no messages. One is evaluated as a map that has its name in a field of its own; here these maps are
//! made, and read again.

use super::functions::seconds;
use super::rewrite::{mapped, node};
use base64::Engine as _;
use kube::core::cel::cel::common::ast::{
    EntryExpr, Expr, IdedEntryExpr, LiteralValue, MapEntryExpr, MapExpr, StructExpr,
};
use kube::core::cel::cel::objects::{Key, Map as CelMap};
use kube::core::cel::cel::{IdedExpr, Value as Cel};
use serde_json::{Map, Value, json};

/// The field that has the name of a message. No field of an object is called so.
const NAME: &str = "\0message";
/// The message of whole objects; those of their parts are called `Object.spec.template`.
pub(super) const OBJECT: &str = "Object";
/// The message of one operation of a JSON Patch.
pub(super) const PATCH: &str = "JSONPatch";
/// The function that comes with them.
pub(super) const ESCAPE: &str = "jsonpatch.escapeKey";

/// Whether there is a message of this name.
pub(super) fn is_known(name: &str) -> bool {
    name == PATCH
        || name == OBJECT
        || name
            .strip_prefix(OBJECT)
            .is_some_and(|rest| rest.starts_with('.'))
}

/// Makes every message in an expression the map it is evaluated as.
pub(super) fn as_maps(expression: IdedExpr) -> Result<IdedExpr, String> {
    let IdedExpr { id, expr } = expression;
    let expr = match expr {
        Expr::Struct(message) => Expr::Map(as_map(message)),
        other => other,
    };
    mapped(IdedExpr { id, expr }, &mut as_maps)
}

fn text(of: &str) -> IdedExpr {
    node(Expr::Literal(LiteralValue::String(of.into())))
}

fn as_map(message: StructExpr) -> MapExpr {
    let entry = |id, key: &str, value, optional| IdedEntryExpr {
        id,
        expr: EntryExpr::MapEntry(MapEntryExpr {
            key: text(key),
            value,
            optional,
        }),
    };
    let name = entry(0, NAME, text(&message.type_name), false);
    let fields = message.entries.into_iter().map(|e| match e.expr {
        EntryExpr::StructField(field) => entry(e.id, &field.field, field.value, field.optional),
        EntryExpr::MapEntry(_) => e,
    });
    MapExpr {
        entries: std::iter::once(name).chain(fields).collect(),
    }
}

/// The text of a key that no author wrote.
fn made_key(entry: &IdedEntryExpr) -> Option<(&str, &MapEntryExpr)> {
    match &entry.expr {
        EntryExpr::MapEntry(entry) if entry.key.id == 0 => match &entry.key.expr {
            Expr::Literal(LiteralValue::String(key)) => Some((key.inner(), entry)),
            _ => None,
        },
        _ => None,
    }
}

/// The name and the fields of the message that a map stands for.
pub(super) fn message(map: &MapExpr) -> Option<(&str, Vec<(&str, &MapEntryExpr)>)> {
    let (first, fields) = map.entries.split_first()?;
    let (NAME, name) = made_key(first)? else {
        return None;
    };
    let Expr::Literal(LiteralValue::String(name)) = &name.value.expr else {
        return None;
    };
    Some((name.inner(), fields.iter().filter_map(made_key).collect()))
}

/// Why a constructed value is of no use.
#[derive(Debug, PartialEq, Eq)]
pub enum Unmade {
    /// The expression fails.
    Evaluation(String),
    /// What it gives is not what it has to be.
    Shape(String),
}

fn fields(map: &CelMap) -> Result<Vec<(&str, &Cel)>, String> {
    let mut out = Vec::new();
    for (key, value) in map.map.iter() {
        match key {
            Key::String(key) => out.push((key.as_str(), value)),
            other => return Err(format!("map key {other:?} is not a string")),
        }
    }
    out.sort_by_key(|(key, _)| *key);
    Ok(out)
}

fn name_of(value: &Cel) -> Option<&str> {
    let Cel::Map(map) = value else { return None };
    match map.map.get(&Key::String(NAME.to_owned().into())) {
        Some(Cel::String(name)) => Some(name),
        _ => None,
    }
}

/// Notes every message that is called otherwise than the place it stands at.
fn misnamed(value: &Cel, place: &str, wrong: &mut Vec<String>) {
    match value {
        Cel::List(items) => items.iter().for_each(|item| misnamed(item, place, wrong)),
        Cel::Map(map) => {
            let name = name_of(value);
            if let Some(name) = name.filter(|name| *name != place) {
                wrong.push(format!(
                    "unexpected type name {name:?}, expected {place:?}, which matches field name path from root Object type"
                ));
            }
            for (key, inner) in fields(map).unwrap_or_default() {
                if name.is_none() {
                    misnamed(inner, place, wrong);
                } else if key != NAME {
                    misnamed(inner, &format!("{place}.{key}"), wrong);
                }
            }
        }
        _ => {}
    }
}

fn check_names(value: &Cel) -> Result<(), String> {
    let mut wrong = Vec::new();
    if let Some(name) = name_of(value) {
        misnamed(value, name, &mut wrong);
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("type mismatch: {}", wrong.join("\n")))
    }
}

fn plain(value: &Cel) -> Result<Value, String> {
    Ok(match value {
        Cel::Null => Value::Null,
        Cel::Bool(b) => json!(b),
        Cel::Int(n) => json!(n),
        Cel::UInt(n) => json!(n),
        // A whole number is written as one.
        #[allow(clippy::cast_possible_truncation)] // it fits
        Cel::Float(n) if n.fract() == 0.0 && n.abs() < 9e15 => json!(*n as i64),
        Cel::Float(n) => json!(n),
        Cel::String(text) => json!(**text),
        Cel::Bytes(bytes) => json!(base64::engine::general_purpose::STANDARD.encode(&**bytes)),
        Cel::List(items) => items.iter().map(plain).collect::<Result<_, _>>()?,
        Cel::Map(_) if name_of(value) == Some(PATCH) => {
            return Err("cannot convert to native type: *structpb.Value".into());
        }
        Cel::Map(map) => {
            let mut out = Map::new();
            for (key, value) in fields(map)?.into_iter().filter(|(key, _)| *key != NAME) {
                out.insert(key.to_owned(), plain(value)?);
            }
            Value::Object(out)
        }
        Cel::Timestamp(at) => json!(at.to_rfc3339().replace("+00:00", "Z")),
        Cel::Duration(long) => json!(seconds(long.num_seconds(), long.subsec_nanos())),
        Cel::Opaque(_) | Cel::Function(..) => return Err("no JSON can be made of it".into()),
    })
}

/// The object that an expression constructs.
pub(super) fn object(value: &Cel) -> Result<Value, Unmade> {
    if name_of(value) != Some(OBJECT) {
        let why = "unsupported return type from ApplyConfiguration expression";
        return Err(Unmade::Shape(why.into()));
    }
    check_names(value).map_err(Unmade::Shape)?;
    plain(value).map_err(Unmade::Shape)
}

/// A type as Go calls it.
fn go_type(value: &Cel) -> &'static str {
    match value {
        Cel::Bool(_) => "bool",
        Cel::Int(_) => "int64",
        Cel::UInt(_) => "uint64",
        Cel::Float(_) => "float64",
        Cel::Bytes(_) => "[]uint8",
        Cel::List(_) => "[]ref.Val",
        Cel::Map(_) => "map[ref.Val]ref.Val",
        Cel::Null => "structpb.NullValue",
        _ => "string",
    }
}

/// The operations of the JSON Patch that an expression constructs.
pub(super) fn patch(value: &Cel) -> Result<Vec<Value>, Unmade> {
    let Cel::List(items) = value else {
        let why = "type mismatch: JSONPatchType.expression should evaluate to array";
        return Err(Unmade::Shape(why.into()));
    };
    items.iter().map(operation).collect()
}

fn operation(value: &Cel) -> Result<Value, Unmade> {
    let fields = match value {
        Cel::Map(map) if name_of(value) == Some(PATCH) => fields(map).map_err(Unmade::Shape)?,
        _ => {
            let why = "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch";
            return Err(Unmade::Shape(why.into()));
        }
    };
    let mut operation = json!({"op": "", "path": ""});
    for (name, value) in fields.into_iter().filter(|(name, _)| *name != NAME) {
        match (name, value) {
            ("value", value) => {
                check_names(value).map_err(Unmade::Shape)?;
                operation["value"] = plain(value).map_err(|why| {
                    Unmade::Shape(format!(
                        "JSONPath valueExpression evaluated to a type that could not marshal to JSON: {why}"
                    ))
                })?;
            }
            ("from", Cel::String(text)) if text.is_empty() => {}
            (_, Cel::String(text)) => operation[name] = json!(**text),
            (_, other) => {
                return Err(Unmade::Evaluation(format!(
                    "unexpected type {} for JSONPatchType '{name}' field",
                    go_type(other)
                )));
            }
        }
    }
    Ok(operation)
}
