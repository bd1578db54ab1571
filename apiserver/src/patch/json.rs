//! The two patches that need no schema: JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7386).

use crate::ApiError;
use serde_json::{Map, Value, json};

/// Most operations one JSON Patch may have.
const MAX_OPERATIONS: usize = 10_000;

/// Applies a JSON Patch. A body that is no list of operations is a 400, one that can not be carried out a 422.
pub fn json_patch(object: &Value, body: &[u8]) -> Result<Value, ApiError> {
    let bad = |what: &str| ApiError::BadRequest(format!("error decoding patch: {what}"));
    let patch: Value = serde_json::from_slice(body).map_err(|e| bad(&e.to_string()))?;
    let Value::Array(items) = patch else {
        let kind = go_kind(&patch);
        return Err(bad(&format!(
            "json: cannot unmarshal {kind} into Go value of type []handlers.jsonPatchOp"
        )));
    };
    if let Some(item) = items.iter().find(|i| !i.is_object()) {
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
    let operations: json_patch::Patch =
        serde_json::from_value(Value::Array(items)).map_err(|_| unprocessable())?;
    let mut patched = object.clone();
    // The object is a copy, so there is nothing to roll back when an operation fails.
    json_patch::patch_unsafe(&mut patched, &operations).map_err(|_| unprocessable())?;
    Ok(patched)
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
