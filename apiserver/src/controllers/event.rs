//! Events go an hour after what they tell of last happened, as with kube-apiserver's `--event-ttl`.

use super::kinds;
use super::plan::{Action, Plan};
use crate::object;
use crate::rest::params::Propagation;
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// How long an Event is kept.
const TTL: i64 = 3600;

/// What becomes of an Event.
pub fn decide(event: &Value, now: Timestamp) -> Plan {
    if object::is_deleting(event) {
        return Plan::default();
    }
    let times = [
        "/lastTimestamp",
        "/series/lastObservedTime",
        "/eventTime",
        "/metadata/creationTimestamp",
    ];
    let time = |pointer: &str| event.pointer(pointer)?.as_str()?.parse::<Timestamp>().ok();
    let Some(last) = times.into_iter().filter_map(time).max() else {
        return Plan::default();
    };
    let left = last.as_second().saturating_add(TTL) - now.as_second();
    if left > 0 {
        // Of one that claims to be from the future, no more is believed than that it is new.
        return Plan::later(Duration::from_secs(left.min(TTL).unsigned_abs()));
    }
    Plan::of([Action::delete_unchanged(
        kinds::EVENTS,
        event,
        Propagation::Background,
    )])
}
