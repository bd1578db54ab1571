//! The Events that tell of it: however often something is tried, and however often the agent is started, there is one of a
//! kind, which counts.

use super::super::Context;
use super::Connection;
use crate::work::objects::{self, RequestError};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

const REPORTER: &str = "muster-klusterlet";
/// So much of a message fits into an Event.
const MOST: usize = 1024;

const DEGRADED: &str = "HubConnectionDegraded";
const FUNCTIONAL: &str = "HubConnectionFunctional";

impl Connection {
    /// Reason, type and message of its Event.
    fn words(&self) -> (&'static str, &'static str, String) {
        match self {
            Self::Degraded(problem) => (DEGRADED, "Warning", short(problem)),
            Self::Functional => (
                FUNCTIONAL,
                "Normal",
                "the cluster works with its hub again".into(),
            ),
        }
    }
}

fn name(secret: &str, reason: &str) -> String {
    format!("{secret}.{}", reason.to_lowercase())
}

/// The Event, for the first time.
fn first(namespace: &str, secret: &str, connection: &Connection, times: u64, now: Timestamp) -> Value {
    let now = Time(now);
    let (reason, kind, message) = connection.words();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name(secret, reason), "namespace": namespace},
        "involvedObject": {"apiVersion": "v1", "kind": "Secret", "namespace": namespace, "name": secret},
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": REPORTER},
        "reportingComponent": REPORTER,
        "reportingInstance": "",
        "count": counted(0, times),
        "firstTimestamp": now,
        "lastTimestamp": now,
    })
}

/// What changes at the Event that is there already.
fn again(found: &Value, connection: &Connection, times: u64, now: Timestamp) -> Value {
    let count = counted(found["count"].as_i64().unwrap_or(1), times);
    json!({"count": count, "lastTimestamp": Time(now), "message": connection.words().2})
}

fn counted(before: i64, times: u64) -> i64 {
    let times = i64::try_from(times.max(1)).unwrap_or(i64::MAX);
    before.saturating_add(times).min(i64::from(i32::MAX))
}

fn short(message: &str) -> String {
    let mut end = message.len().min(MOST);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}

/// Whether one Event is of later than another.
fn later(one: &Value, other: &Value) -> bool {
    let at = |event: &Value| event["lastTimestamp"].as_str()?.parse::<Timestamp>().ok();
    at(one) > at(other)
}

/// Writes it, after something was found to be wrong so many times since the last one.
pub async fn write(context: &Context, connection: &Connection, times: u64) -> Result<(), RequestError> {
    let (spoke, options) = (&context.spoke.client, &context.options);
    let (namespace, secret) = (&options.namespace, &options.bootstrap_kubeconfig_secret);
    let now = context.clock.here();
    let events = format!("/api/v1/namespaces/{namespace}/events");
    let path = |reason| format!("{events}/{}", name(secret, reason));
    let find = async |reason| match objects::get(spoke, &path(reason)).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    };
    let mut found = find(DEGRADED).await?;
    if *connection == Connection::Functional {
        // That all is well is news only after something was not.
        let Some(degraded) = found else { return Ok(()) };
        found = find(FUNCTIONAL).await?;
        if found.as_ref().is_some_and(|told| later(told, &degraded)) {
            return Ok(());
        }
    }
    let reason = connection.words().0;
    if let Some(found) = found {
        let patch = again(&found, connection, times, now);
        objects::merge(spoke, &path(reason), &patch).await?;
    } else {
        let event = first(namespace, secret, connection, times, now);
        objects::create(spoke, &events, &event).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_counts() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let away = Connection::Degraded("the hub can not be reached".into());
        let refused = Connection::Degraded("the hub refuses the credential".into());
        let event = first("ns", "bootstrap", &away, 1, at(0));
        assert_eq!(event["metadata"]["name"], "bootstrap.hubconnectiondegraded");
        assert_eq!((&event["type"], &event["count"]), (&json!("Warning"), &json!(1)));
        let patch = again(&event, &refused, 3, at(60));
        assert_eq!(
            patch,
            json!({"count": 4, "lastTimestamp": "1970-01-01T00:01:00Z", "message": "the hub refuses the credential"})
        );
        let well = first("ns", "bootstrap", &Connection::Functional, 0, at(30));
        assert_ne!(well["metadata"]["name"], event["metadata"]["name"]);
        assert_eq!(well["count"], 1);
        assert!(later(&well, &event) && !later(&event, &well) && !later(&event, &event));
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(short("short"), "short");
        let long = "ä".repeat(MOST);
        assert_eq!(short(&long).len(), MOST);
        assert_eq!(short(&format!("a{long}")).len(), MOST - 1);
    }
}
