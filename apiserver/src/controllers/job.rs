//! Finished Jobs with `ttlSecondsAfterFinished` go when their time is over (KEP-592).

use super::kinds;
use super::plan::{Action, Plan};
use crate::object;
use crate::rest::params::Propagation;
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// What becomes of a Job.
pub fn decide(job: &Value, now: Timestamp) -> Plan {
    let Some(ttl) = job["spec"]["ttlSecondsAfterFinished"].as_i64() else {
        return Plan::default();
    };
    let finished = job["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| matches!(c["type"].as_str(), Some("Complete" | "Failed")) && c["status"] == "True");
    let since = finished.and_then(|c| c["lastTransitionTime"].as_str()?.parse::<Timestamp>().ok());
    let (Some(since), false) = (since, object::is_deleting(job)) else {
        return Plan::default();
    };
    let left = since.as_second().saturating_add(ttl) - now.as_second();
    if left > 0 {
        return Plan::later(Duration::from_secs(left.unsigned_abs()));
    }
    Plan::of([Action::delete_unchanged(
        kinds::JOBS,
        job,
        Propagation::Foreground,
    )])
}
