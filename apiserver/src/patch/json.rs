//! The two patches that need no schema: JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7386).

use crate::ApiError;
use ::json_patch::PatchOperation;
use serde_json::{Map, Value, json};

/// Most operations one JSON Patch may have.
const MAX_OPERATIONS: usize = 10_000;
/// Most values one JSON Patch may move: some tenths of a second, where without a bound ten thousand operations on a long list
/// take minutes.
const MOST_MOVED: usize = 20_000_000;
/// Most bytes of JSON one JSON Patch may copy, as much as a body may have (kube-apiserver's bound too): copies of copies would
/// take all memory.
const MOST_COPIED: usize = 3 << 20;
/// Levels of lists and objects in one another that a JSON Patch may make. A body can not be as deep, and values are dropped
/// by recursion.
const DEEPEST: usize = 256;
const TOO_MUCH: &str = "The JSON patch moves or copies too many values";

/// Applies a JSON Patch. A body that is no list of operations is a 400, one that can not be carried out a 422.
pub fn json_patch(object: &Value, body: &[u8]) -> Result<Value, ApiError> {
    let bad = |what: &str| ApiError::BadRequest(format!("error decoding patch: {what}"));
    let patch: Value = serde_json::from_slice(body)
        .map_err(|e| bad(&crate::rest::go_json::complaint(body).unwrap_or_else(|| e.to_string())))?;
    let Value::Array(items) = patch else {
        let kind = go_kind(&patch);
        return Err(bad(&format!(
            "json: cannot unmarshal {kind} into Go value of type []handlers.jsonPatchOp"
        )));
    };
    if let Some(item) = items.iter().find(|i| !i.is_object() && !i.is_null()) {
        let kind = go_kind(item);
        return Err(bad(&format!(
            "json: cannot unmarshal {kind} into Go value of type handlers.jsonPatchOp"
        )));
    }
    if items.len() > MAX_OPERATIONS {
        return Err(ApiError::RequestEntityTooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            items.len()
        )));
    }
    let mut patched = object.clone();
    let mut left = Left::default();
    for item in items {
        for mut item in moved(item, &patched) {
            if !lenient(&mut item, &patched) {
                continue;
            }
            let operation: PatchOperation = serde_json::from_value(item).map_err(|_| unprocessable())?;
            charge(&patched, &operation, &mut left)
                .ok_or_else(|| ApiError::RequestEntityTooLarge(TOO_MUCH.into()))?;
            if deepens(&patched, &operation, &mut left) {
                return Err(unprocessable());
            }
            // The object is a copy, so there is nothing to roll back when an operation fails.
            ::json_patch::patch_unsafe(&mut patched, std::slice::from_ref(&operation))
                .map_err(|_| unprocessable())?;
        }
    }
    match patched {
        // What is no document is nothing that a patch can give.
        Value::Object(_) | Value::Array(_) => Ok(patched),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(unprocessable()),
    }
}

/// Applies operations one by one. `None` when a test among them does not hold; the error is what Kubernetes' library says of
/// the operation that can not be carried out.
pub fn steps(object: &Value, operations: Vec<Value>) -> Result<Option<Value>, String> {
    let mut patched = object.clone();
    let mut left = Left::default();
    for mut step in operations {
        let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        let (op, path, from) = (text("op"), text("path"), text("from"));
        if !["add", "remove", "replace", "move", "copy", "test"].contains(&op.as_str()) {
            return Err(format!("Unexpected kind: {op}"));
        }
        if op == "copy" && patched.pointer(&from).is_none() {
            // As if there were nothing.
            step = json!({"op": "add", "path": path, "value": null});
        }
        for mut step in moved(step, &patched) {
            if !lenient(&mut step, &patched) {
                continue;
            }
            let why = || why_not(&patched, &op, &path, &from);
            let operation: PatchOperation = serde_json::from_value(step).map_err(|_| why())?;
            charge(&patched, &operation, &mut left).ok_or(TOO_MUCH)?;
            if deepens(&patched, &operation, &mut left) {
                return Err(TOO_MUCH.into());
            }
            let why = why();
            if ::json_patch::patch_unsafe(&mut patched, std::slice::from_ref(&operation)).is_err() {
                return if op == "test" { Ok(None) } else { Err(why) };
            }
        }
    }
    Ok(Some(patched))
}

/// Why an operation can not be carried out.
fn why_not(object: &Value, op: &str, path: &str, from: &str) -> String {
    let at = if op == "move" { from } else { path };
    let (above, key) = at.rsplit_once('/').unwrap_or(("", at));
    if object
        .pointer(above)
        .is_none_or(|v| !v.is_object() && !v.is_array())
    {
        return format!("{op} operation does not apply: doc is missing path: {at:?}: missing value");
    }
    match op {
        "remove" | "move" => {
            format!("error in {op} for path: '{at}': Unable to remove nonexistent key: {key}: missing value")
        }
        _ => format!("{op} operation does not apply: doc is missing key: {at}: missing value"),
    }
}

/// What may still be moved, and copied.
struct Left {
    moved: usize,
    copied: usize,
}

impl Default for Left {
    fn default() -> Self {
        Self {
            moved: MOST_MOVED,
            copied: MOST_COPIED,
        }
    }
}

/// Whether an operation makes the object too deep, or that takes too long to find out.
fn deepens(object: &Value, operation: &PatchOperation, left: &mut Left) -> bool {
    let put = match operation {
        PatchOperation::Add(o) => Some((&o.path, Some(&o.value))),
        PatchOperation::Replace(o) => Some((&o.path, Some(&o.value))),
        PatchOperation::Move(o) => Some((&o.path, object.pointer(o.from.as_str()))),
        PatchOperation::Copy(o) => Some((&o.path, object.pointer(o.from.as_str()))),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
    };
    let Some((path, Some(value))) = put else {
        return false;
    };
    let above = path.as_str().matches('/').count();
    depth(value, &mut left.moved).is_none_or(|depth| above + depth > DEEPEST)
}

/// How deep a value is; what is looked at is taken from `left`.
fn depth(value: &Value, left: &mut usize) -> Option<usize> {
    *left = left.checked_sub(1)?;
    let mut deepest = 0;
    match value {
        Value::Array(items) => {
            for item in items {
                deepest = deepest.max(depth(item, left)? + 1);
            }
        }
        Value::Object(fields) => {
            for field in fields.values() {
                deepest = deepest.max(depth(field, left)? + 1);
            }
        }
        _ => {}
    }
    Some(deepest)
}

/// Takes what an operation costs from `left`: the items of a list that move up or down, and what is copied. `None` when
/// there is not so much left.
fn charge(object: &Value, operation: &PatchOperation, left: &mut Left) -> Option<()> {
    let above = |pointer: &str| {
        let list = pointer
            .rsplit_once('/')
            .and_then(|(above, _)| object.pointer(above));
        list.and_then(Value::as_array).map_or(0, Vec::len)
    };
    let moved = match operation {
        PatchOperation::Add(o) => above(o.path.as_str()),
        PatchOperation::Remove(o) => above(o.path.as_str()),
        PatchOperation::Move(o) => above(o.from.as_str()) + above(o.path.as_str()),
        PatchOperation::Copy(o) => {
            if let Some(value) = object.pointer(o.from.as_str()) {
                copy(value, &mut left.copied)?;
            }
            above(o.path.as_str())
        }
        PatchOperation::Replace(_) | PatchOperation::Test(_) => 0,
    };
    left.moved = left.moved.checked_sub(moved)?;
    Some(())
}

/// Takes the length that a value has at least as JSON from `left`.
fn copy(value: &Value, left: &mut usize) -> Option<()> {
    let own = match value {
        Value::String(text) => text.len() + 3,
        Value::Object(map) => map.keys().map(|key| key.len() + 3).sum::<usize>() + 2,
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) => 2,
    };
    *left = left.checked_sub(own)?;
    match value {
        Value::Object(map) => map.values().try_for_each(|v| copy(v, left)),
        Value::Array(items) => items.iter().try_for_each(|v| copy(v, left)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(()),
    }
}

/// An operation as those it is made of: what is moved is taken out before it is looked where it goes.
fn moved(operation: Value, object: &Value) -> Vec<Value> {
    if operation["op"] == "move"
        && let (Some(from), Some(_)) = (operation["from"].as_str(), operation["path"].as_str())
        && let Some(value) = object.pointer(&plain(from, object, false))
    {
        return vec![
            json!({"op": "remove", "path": from}),
            json!({"op": "add", "path": operation["path"], "value": value}),
        ];
    }
    vec![operation]
}

/// Kubernetes' library takes more than RFC 6902: `replace` adds a missing field, a missing value is `null`, a missing field is
/// one that is `null`, and places in a list are any numbers that Go reads, from its end where they are negative. False when
/// nothing is left to do.
fn lenient(operation: &mut Value, object: &Value) -> bool {
    let op = operation["op"].as_str().unwrap_or_default().to_owned();
    let path = operation["path"].as_str().map(str::to_owned);
    let (Some(fields), Some(path)) = (operation.as_object_mut(), path) else {
        return true;
    };
    let path = plain(&path, object, matches!(op.as_str(), "add" | "copy"));
    if let Some(Value::String(from)) = fields.get_mut("from") {
        *from = plain(from, object, false);
    }
    if matches!(op.as_str(), "replace" | "add") {
        fields.entry("value").or_insert(Value::Null);
    }
    if let Some((parent, _)) = path.rsplit_once('/')
        && object.pointer(&path).is_none()
        && object.pointer(parent).is_some_and(Value::is_object)
    {
        match op.as_str() {
            "replace" => drop(fields.insert("op".into(), "add".into())),
            "test" if fields.get("value").is_none_or(Value::is_null) => return false,
            _ => {}
        }
    }
    fields.insert("path".into(), path.into());
    true
}

/// A pointer as RFC 6901 has it: escapes that are none are what they look like, places in lists are counted from their
/// beginning. What is added is counted as if it were there.
fn plain(path: &str, object: &Value, adds: bool) -> String {
    let Some(steps) = path.strip_prefix('/') else {
        return path.to_owned();
    };
    let mut out = String::with_capacity(path.len());
    let mut at = Some(object);
    let mut steps = steps.split('/').peekable();
    while let Some(step) = steps.next() {
        let key = step.replace("~1", "/").replace("~0", "~");
        let key = match at {
            Some(Value::Array(items)) => {
                let length = items.len() + usize::from(adds && steps.peek().is_none());
                place(&key, length).map_or(key, |place| place.to_string())
            }
            _ => key,
        };
        at = match at {
            Some(Value::Array(items)) => key.parse().ok().and_then(|i: usize| items.get(i)),
            Some(Value::Object(map)) => map.get(&key),
            _ => None,
        };
        out.push('/');
        out.push_str(&key.replace('~', "~0").replace('/', "~1"));
    }
    out
}

/// The place that a number is in a list of this length.
fn place(text: &str, length: usize) -> Option<usize> {
    let number: i64 = text.parse().ok()?;
    match usize::try_from(number) {
        Ok(place) => Some(place),
        Err(_) => length.checked_sub(usize::try_from(number.unsigned_abs()).ok()?),
    }
}

/// What a strict reader says of a JSON Patch: fields of operations that there are none of.
pub fn json_patch_unknown(body: &[u8]) -> Vec<String> {
    let Ok(Value::Array(items)) = serde_json::from_slice(body) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for (i, item) in items.iter().enumerate() {
        for key in item.as_object().into_iter().flat_map(Map::keys) {
            if !["op", "path", "from", "value"].contains(&key.as_str()) {
                out.push(format!("json patch unknown field \"[{i}].{key}\""));
            }
        }
    }
    out
}

/// The answer to a patch that was understood but does not fit the object.
pub(super) fn unprocessable() -> ApiError {
    ApiError::Status(Box::new(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "the server rejected our request due to an error in our request",
        "reason": "Invalid", "details": {}, "code": 422,
    })))
}

/// What Go's JSON decoder calls a value.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Applies a JSON Merge Patch.
pub fn merge_patch(object: &Value, patch: &Value) -> Value {
    let Value::Object(fields) = patch else {
        return patch.clone();
    };
    let mut merged = match object {
        Value::Object(map) => map.clone(),
        _ => Map::new(),
    };
    for (name, value) in fields {
        if value.is_null() {
            merged.remove(name);
        } else {
            let old = merged.remove(name).unwrap_or(Value::Null);
            merged.insert(name.clone(), merge_patch(&old, value));
        }
    }
    Value::Object(merged)
}
