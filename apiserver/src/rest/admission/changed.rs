//! An object that webhooks or policies changed, made an object of its kind again.

use super::seen::{Matched, Seen};
use crate::registry::{convert, strategy};
use crate::schema::{decode, prune};
use crate::{ApiError, object};
use serde_json::Value;
use std::sync::Arc;

/// What no webhook and no policy changes.
const KEPT: [&str; 9] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "resourceVersion",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
];

/// Refuses what a strict reader does not understand as an object of a built-in kind.
pub fn readable(matched: &Matched, changed: &Value) -> Result<(), ApiError> {
    let r = &matched.resource;
    if r.custom.is_some() {
        return Ok(());
    }
    if let Some(why) = decode::check_types(r.schema(), changed) {
        return Err(ApiError::Internal(why));
    }
    let unknown = prune::unknown_fields(r.schema(), changed, false);
    let all: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field {path:?}"))
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    Err(ApiError::Internal(format!(
        "strict decoding error: {}",
        all.join(", ")
    )))
}

/// The changed object, as `matched` shows it, in the version of the request; its identity stays that of `current`.
pub fn taken(seen: &Seen<'_>, matched: &Matched, current: &Value, changed: Value) -> Result<Value, ApiError> {
    let own = seen.review.resource;
    let mut changed = if Arc::ptr_eq(&matched.resource, own) {
        changed
    } else {
        convert::from_storage(own, convert::to_storage(&matched.resource, changed))
    };
    prune::prune(own.schema(), &mut changed, own.custom.is_some());
    if own.custom.is_none() {
        if let Some(why) = decode::check_types(own.schema(), &changed) {
            return Err(ApiError::Internal(why));
        }
        decode::fill_nulls(own.schema(), &mut changed);
    }
    strategy::default(own, &mut changed);
    for field in ["apiVersion", "kind"] {
        changed[field] = current[field].clone();
    }
    for field in KEPT {
        let value = current["metadata"].get(field).cloned();
        object::set_meta(&mut changed, field, value);
    }
    Ok(changed)
}
