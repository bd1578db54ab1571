//! Bootstrap tokens that have expired go, as with kube-controller-manager's token cleaner.

use super::kinds;
use super::plan::{Action, Plan};
use crate::auth::tokens::BOOTSTRAP_TYPE;
use crate::object;
use crate::rest::params::Propagation;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// What becomes of a Secret.
pub fn decide(secret: &Value, now: Timestamp) -> Plan {
    if secret["type"] != BOOTSTRAP_TYPE || object::is_deleting(secret) {
        return Plan::default();
    }
    let Some(expiration) = secret["data"]["expiration"]
        .as_str()
        .filter(|text| !text.is_empty())
    else {
        return Plan::default();
    };
    let expiration = STANDARD
        .decode(expiration)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok()?.parse::<Timestamp>().ok());
    // One that cannot be read lets nobody in either.
    let left = expiration.map_or(Duration::ZERO, |at| {
        at.duration_since(now).try_into().unwrap_or(Duration::ZERO)
    });
    if !left.is_zero() {
        return Plan::later(left);
    }
    Plan::of([Action::delete_unchanged(
        kinds::SECRETS,
        secret,
        Propagation::Background,
    )])
}
