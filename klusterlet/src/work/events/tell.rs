//! What an event looks like at the hub, and how it gets there.
//!
//! It is about the ManifestWork, as an Event must be about something in its own namespace; what it came from on the managed
//! cluster is in `related` and in front of the message. Its name follows from its content, so that another run of the agent
//! finds it again. The agent may create and patch Events at the hub, not read them (wire §2.5); but a patch answers with
//! what it left.

use super::ledger::Note;
use crate::work::objects::{self, RequestError};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use muster_crds::constants::names;
use muster_crds::work;
use serde_json::{Value, json};

/// Longest message, in bytes, as Kubernetes has it.
const MAX_MESSAGE: usize = 1024;
/// Longest reason, in bytes.
const MAX_REASON: usize = 128;

/// The events of one cluster at its hub.
pub struct Hub {
    /// The hub.
    pub client: Client,
    /// The cluster, which is the namespace.
    pub cluster: String,
    /// The agent's name.
    pub agent: String,
}

/// An event that the hub has.
#[derive(Debug, PartialEq)]
pub struct There {
    /// How often it says that it happened.
    pub count: u64,
    /// When first.
    pub first: Option<Timestamp>,
    /// When last.
    pub last: Option<Timestamp>,
}

impl Hub {
    fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/events", self.cluster)
    }

    /// Makes the event.
    pub async fn create(&self, note: &Note) -> Result<(), RequestError> {
        let event = event(note, &self.cluster, &self.agent);
        objects::create(&self.client, &self.collection(), &event)
            .await
            .map(drop)
    }

    /// Brings the event up to date.
    pub async fn update(&self, note: &Note) -> Result<(), RequestError> {
        self.patch(note, &change(note)).await.map(drop)
    }

    /// What the hub has of the event. Nothing is changed.
    pub async fn look(&self, note: &Note) -> Result<There, RequestError> {
        let found = self.patch(note, &json!({})).await?;
        let time = |field: &str| found[field].as_str().and_then(|t| t.parse().ok());
        Ok(There {
            count: found["count"].as_u64().unwrap_or(1),
            first: time("firstTimestamp"),
            last: time("lastTimestamp"),
        })
    }

    async fn patch(&self, note: &Note, patch: &Value) -> Result<Value, RequestError> {
        let path = format!("{}/{}", self.collection(), name(note));
        objects::merge(&self.client, &path, patch).await
    }
}

/// The name of the event: the work's, and what it says as a number.
pub fn name(note: &Note) -> String {
    format!("{}.{}", note.work, crate::work::manifest::hex(&note.id))
}

/// The event.
pub fn event(note: &Note, cluster: &str, agent: &str) -> Value {
    let mut event = change(note);
    let (subject, source) = (&note.subject, &note.source);
    let fields = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name(note), "namespace": cluster},
        "involvedObject": {
            "apiVersion": format!("{}/v1", work::GROUP), "kind": "ManifestWork",
            "namespace": cluster, "name": note.work, "uid": note.work_uid,
        },
        "related": {
            "apiVersion": subject.api_version, "kind": subject.kind,
            "namespace": subject.namespace, "name": subject.name, "uid": subject.uid,
        },
        "type": if note.warning { "Warning" } else { "Normal" },
        "reason": shortened(&note.reason, MAX_REASON),
        "firstTimestamp": Time(note.first),
        "source": {"component": source.component, "host": source.host},
        "reportingComponent": names::EVENT_REPORTER,
        "reportingInstance": agent,
    });
    if let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) {
        event.extend(fields);
    }
    event
}

/// What changes when it happens again.
fn change(note: &Note) -> Value {
    let combined = if note.combined {
        "(combined from similar events): "
    } else {
        ""
    };
    let message = format!("{}: {combined}{}", note.subject.told(), note.message);
    json!({
        "message": shortened(&message, MAX_MESSAGE),
        "count": i32::try_from(note.count).unwrap_or(i32::MAX),
        "lastTimestamp": Time(note.last),
    })
}

fn shortened(text: &str, longest: usize) -> &str {
    if text.len() <= longest {
        return text;
    }
    let mut end = longest;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::events::seen::{Source, Subject};

    #[test]
    fn an_event_names_the_work_and_the_object() {
        let note = Note {
            id: [0, 1, 2, 3, 4, 5, 6, 255],
            work: "shop".into(),
            work_uid: "u".into(),
            warning: true,
            subject: Subject {
                api_version: "v1".into(),
                kind: "Pod".into(),
                namespace: "shop".into(),
                name: "web-1".into(),
                uid: "p".into(),
            },
            reason: "BackOff".into(),
            message: "ä".repeat(1000),
            combined: true,
            source: Source {
                component: "kubelet".into(),
                host: "n1".into(),
            },
            first: Timestamp::UNIX_EPOCH,
            last: Timestamp::UNIX_EPOCH,
            count: 3,
            known: false,
        };
        let told = event(&note, "cluster1", "agent");
        let message = told["message"].as_str().unwrap();
        assert!(
            message.starts_with("Pod shop/web-1: (combined from similar events): ä") && message.len() >= 1023,
            "{message}"
        );
        assert!(message.len() <= 1024);
        assert_eq!(told["metadata"]["name"], "shop.00010203040506ff");
        assert_eq!(told["involvedObject"]["namespace"], told["metadata"]["namespace"]);
        assert_eq!(told["related"]["name"], "web-1");
        assert_eq!(told["reportingComponent"], "muster-klusterlet");
        assert_eq!((&told["count"], &told["type"]), (&json!(3), &json!("Warning")));
        assert_eq!(told["firstTimestamp"], "1970-01-01T00:00:00Z");
    }
}
