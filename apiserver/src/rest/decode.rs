//! From a parsed body to an object of its kind: unknown fields, wrong types, nulls, defaults.

use super::body::{self, Parsed};
use super::params::FieldValidation;
use crate::ApiError;
use crate::error::FieldError;
use crate::registry::{Registry, Resource, strategy};
use crate::schema::{Schema, Type, decode, prune};
use serde_json::Value;

/// Warnings of a decoded object, one each for what was dropped.
pub type Warnings = Vec<String>;

/// The 400 of a body its kind cannot be read from.
pub fn cannot_handle(kind: &str, version: &str, why: &str) -> ApiError {
    ApiError::BadRequest(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
    ))
}

/// Makes a parsed body an object of `r`: typed, pruned, defaulted.
pub fn object(
    r: &Resource,
    parsed: Parsed,
    validation: FieldValidation,
) -> Result<(Value, Warnings), ApiError> {
    let mut parsed = parsed;
    let mut value = std::mem::take(&mut parsed.value);
    let mut unknown = typed(r, &mut value).map_err(|e| cannot_handle(&r.kind, &r.version, &e))?;
    match &r.custom {
        None => parsed.in_order(&mut unknown),
        // The object's own metadata is read first, then all else in the order of paths, embedded metadata last.
        Some(_) => {
            unknown.sort_by_key(|path| {
                let is_own = path.starts_with("metadata.");
                (!is_own, is_of_metadata(path), path.clone())
            });
        }
    }
    let warnings = body::strictness(validation, &unknown, &parsed.duplicates)
        .map_err(|e| cannot_handle(&r.kind, &r.version, &e))?;
    strategy::default(r, &mut value);
    Ok((value, warnings))
}

/// Checks types and drops nulls and unknown fields, whose paths it returns.
fn typed(r: &Resource, value: &mut Value) -> Result<Vec<String>, String> {
    if r.custom.is_some() {
        body::make_whole(value);
        if let Some(why) = decode::check_metadata(r.schema(), value) {
            return Err(why);
        }
        if let Some(metadata) = value["metadata"].as_object_mut() {
            let is_empty = |v: &Value| {
                v.as_array().is_some_and(Vec::is_empty)
                    || v.as_object().is_some_and(serde_json::Map::is_empty)
            };
            // No owners is another thing than nothing said of them.
            metadata.retain(|k, v| !v.is_null() && (!is_empty(v) || k == "managedFields"));
        }
        drop_empty_metadata(value);
        return Ok(prune::prune(r.schema(), value, true));
    }
    if let Some(why) = decode::check_types(r.schema(), value) {
        return Err(why);
    }
    body::make_whole(value);
    decode::fill_nulls(r.schema(), value);
    drop_empty_metadata(value);
    Ok(prune::prune(r.schema(), value, false))
}

fn is_of_metadata(path: &str) -> bool {
    path.starts_with("metadata.") || path.contains(".metadata.")
}

/// The patched object of a PATCH, made whole again. What is wrong with it is the 422 that shows the patch's result, or
/// the `patch` itself where it was a strategic one: `before` makes that result once more. `noticed` is what is wrong with the
/// patch.
pub fn patched(
    r: &Resource,
    mut value: Value,
    before: impl Fn() -> Value,
    patch: Option<&Value>,
    validation: FieldValidation,
    noticed: &[String],
) -> Result<(Value, Warnings), ApiError> {
    let refused = |why: &str| {
        let shown = match patch {
            Some(patch) => Value::String(crate::patch::go_plain(patch)),
            None => Value::String(before().to_string()),
        };
        let error = FieldError::invalid("patch", &shown, why);
        ApiError::invalid("", "", "", vec![error])
    };
    // A strategic patch is put together before it is read as the kind's Go type.
    if let Some(why) = patch.and_then(|_| misshapen(r.schema(), &value)) {
        return Err(refused(&why));
    }
    let unknown = typed(r, &mut value).map_err(|why| {
        let shown = Value::String(before().to_string());
        let error = FieldError::invalid("patch", &shown, &why);
        ApiError::invalid("", "", "", vec![error])
    })?;
    let warnings = body::strictness(validation, &unknown, noticed).map_err(|e| refused(&e))?;
    strategy::default(r, &mut value);
    Ok((value, warnings))
}

/// What of a value its type can not be made of, as Go's converter says it. Types that read themselves are not asked here.
fn misshapen(schema: &Schema, value: &Value) -> Option<String> {
    let go = match value {
        Value::Null => return None,
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    };
    match (schema.kind, value) {
        (Type::Object, Value::Object(map)) => map
            .iter()
            .find_map(|(key, value)| misshapen(schema.child(key)?, value)),
        (Type::Array, Value::Array(list)) => {
            let items = schema.items()?;
            list.iter().find_map(|item| misshapen(items, item))
        }
        (Type::Object, _) if schema.additional.is_some() => Some(format!("cannot restore map from {go}")),
        (Type::Object, _) if !schema.properties.is_empty() => {
            Some(format!("cannot restore struct from: {go}"))
        }
        (Type::Array, _) => Some(format!("cannot restore slice from {go}")),
        (Type::Boolean, Value::Bool(_))
        | (Type::String, Value::String(_))
        | (Type::Number, Value::Number(_)) => None,
        (Type::Integer, Value::Number(n)) if n.as_f64().is_some_and(|n| n.fract() == 0.0) => None,
        (Type::Boolean | Type::Integer | Type::Number | Type::String, _) => {
            let wanted = match (schema.kind, schema.format.as_deref()) {
                (Type::Boolean, _) => "bool",
                (Type::Integer, Some("int32")) => "int32",
                (Type::Integer, _) => "int64",
                (Type::Number, _) => "float64",
                (_, None) => "string",
                (_, Some(_)) => return None,
            };
            Some(format!("unrecognized type: {wanted}"))
        }
        _ => None,
    }
}

/// A patch makes no object of another kind, and no kind of something that is no object.
pub fn check_patched_type(registry: &Registry, r: &Resource, value: &mut Value) -> Result<(), ApiError> {
    let refused = |value: &Value, why: &str| {
        let shown = Value::String(value.to_string());
        let error = FieldError::invalid("patch", &shown, why);
        Err(ApiError::invalid("", "", "", vec![error]))
    };
    let parse_error = |what: &str, into: &str| {
        format!("couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go {into}")
    };
    let Value::Object(map) = &*value else {
        let into = format!("value of type {}", body::TYPE_META);
        return refused(value, &parse_error(body::json_type(value), &into));
    };
    let mut sent = ["", ""];
    for (field, text) in ["apiVersion", "kind"].into_iter().zip(&mut sent) {
        match map.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(given)) => *text = given,
            Some(other) => {
                let into = format!("struct field .{field} of type string");
                return refused(value, &parse_error(body::json_type(other), &into));
            }
        }
    }
    let [version, kind] = sent;
    let wanted = r.api_version();
    if r.custom.is_some() {
        if kind.is_empty() {
            return refused(value, &format!("Object 'Kind' is missing in '{value}'"));
        }
        if version.is_empty() {
            let why = "Object 'apiVersion' is missing in 'object has no apiVersion field'";
            return Err(ApiError::Internal(why.into()));
        }
        let mut errors = Vec::new();
        for (field, sent, wanted) in [("kind", kind, r.kind.as_str()), ("apiVersion", version, &wanted)] {
            if sent != wanted {
                let detail = format!("must be {wanted}");
                errors.push(FieldError::invalid(field, &sent.into(), &detail));
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        let group = version.split_once('/').map_or("", |(group, _)| group);
        return Err(ApiError::invalid(group, kind, crate::object::name(value), errors));
    }
    if let Some((_, why)) = body::other_kind(registry, &r.kind, (&r.group, &r.version), (version, kind)) {
        return refused(value, &why);
    }
    value["apiVersion"] = wanted.into();
    value["kind"] = r.kind.as_str().into();
    Ok(())
}

/// Empty text that `metadata` leaves out.
fn drop_empty_metadata(value: &mut Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        let texts = ["namespace", "generateName", "uid", "resourceVersion", "selfLink"];
        metadata.retain(|k, v| !(texts.contains(&k.as_str()) && v.as_str() == Some("")));
    }
}
