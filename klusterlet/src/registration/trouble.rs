//! What keeps a cluster from its hub, told where its own operator looks: as an Event beside the bootstrap Secret. The hub can
//! not tell of it, for it has never heard of the cluster. OCM's operator says the same as a condition of its Klusterlet, after
//! which the reasons are named.

use super::Context;
use crate::work::objects::{self, RequestError};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::time::Duration;

const REPORTER: &str = "muster-klusterlet";
/// So much of a message fits into an Event.
const MOST: usize = 1024;
/// A program that ends for what it tells does not wait longer for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How the cluster stands with its hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Somebody has to mend something, or the hub is away.
    Degraded,
    /// All is well again.
    Functional,
}

impl Connection {
    fn reason(self) -> &'static str {
        match self {
            Self::Degraded => "HubConnectionDegraded",
            Self::Functional => "HubConnectionFunctional",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Degraded => "Warning",
            Self::Functional => "Normal",
        }
    }
}

/// The name of the one Event of its kind: however often something is tried, and however often the agent is started, there is
/// one, which counts.
fn name(secret: &str, connection: Connection) -> String {
    format!("{secret}.{}", connection.reason().to_lowercase())
}

/// The Event, for the first time.
fn first(namespace: &str, secret: &str, connection: Connection, message: &str, now: Timestamp) -> Value {
    let now = Time(now);
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name(secret, connection), "namespace": namespace},
        "involvedObject": {"apiVersion": "v1", "kind": "Secret", "namespace": namespace, "name": secret},
        "type": connection.kind(),
        "reason": connection.reason(),
        "message": short(message),
        "source": {"component": REPORTER},
        "reportingComponent": REPORTER,
        "reportingInstance": "",
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
    })
}

/// What changes at the Event that is there already.
fn again(found: &Value, message: &str, now: Timestamp) -> Value {
    let count = found["count"].as_i64().unwrap_or(1).saturating_add(1);
    json!({"count": count.min(i64::from(i32::MAX)), "lastTimestamp": Time(now), "message": short(message)})
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

async fn write(context: &Context, connection: Connection, message: &str) -> Result<(), RequestError> {
    let (spoke, options) = (&context.spoke.client, &context.options);
    let (namespace, secret) = (&options.namespace, &options.bootstrap_kubeconfig_secret);
    let now = context.clock.here();
    let events = format!("/api/v1/namespaces/{namespace}/events");
    let path = |connection| format!("{events}/{}", name(secret, connection));
    let find = async |connection| match objects::get(spoke, &path(connection)).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    };
    let mut found = find(Connection::Degraded).await?;
    if connection == Connection::Functional {
        // That all is well is news only after something was not.
        let Some(degraded) = found else { return Ok(()) };
        found = find(connection).await?;
        if found.as_ref().is_some_and(|told| later(told, &degraded)) {
            return Ok(());
        }
    }
    match found {
        Some(found) => objects::merge(spoke, &path(connection), &again(&found, message, now)).await?,
        None => {
            objects::create(
                spoke,
                &events,
                &first(namespace, secret, connection, message, now),
            )
            .await?
        }
    };
    Ok(())
}

/// Tells it. What can not be told in a moment is only in the log.
pub async fn tell(context: &Context, connection: Connection, message: &str) {
    let error = match tokio::time::timeout(PATIENCE, write(context, connection, message)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer".to_owned(),
    };
    tracing::debug!(error, "the Event was not written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_counts() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let event = first(
            "ns",
            "bootstrap",
            Connection::Degraded,
            "the hub can not be reached",
            at(0),
        );
        assert_eq!(event["metadata"]["name"], "bootstrap.hubconnectiondegraded");
        assert_eq!((&event["type"], &event["count"]), (&json!("Warning"), &json!(1)));
        let patch = again(&event, "the hub refuses the credential", at(60));
        assert_eq!(
            patch,
            json!({"count": 2, "lastTimestamp": "1970-01-01T00:01:00Z", "message": "the hub refuses the credential"})
        );
        let well = first("ns", "bootstrap", Connection::Functional, "", at(30));
        assert_ne!(well["metadata"]["name"], event["metadata"]["name"]);
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
