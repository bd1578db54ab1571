//! An Event as the managed cluster has it: only what is passed on, so that a stream of them costs little.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use serde::Deserialize;

/// An object as Events and owner references name it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subject {
    /// apiVersion, with the group.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; `""` for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID; not every component says it.
    pub uid: String,
}

impl Subject {
    /// API group, `""` for core.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// As people name it: `Pod shop/web-1`.
    pub fn told(&self) -> String {
        match self.namespace.as_str() {
            "" => format!("{} {}", self.kind, self.name),
            namespace => format!("{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// Which component tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Its name.
    pub component: String,
    /// Its node.
    pub host: String,
}

/// metadata of an Event.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// UID.
    pub uid: String,
    /// Revision.
    pub resource_version: String,
    creation_timestamp: Option<Time>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Series {
    count: Option<i64>,
    last_observed_time: Option<MicroTime>,
}

/// An Event (core/v1).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seen {
    /// Its metadata.
    pub metadata: Metadata,
    /// What it is about.
    #[serde(rename = "involvedObject")]
    pub subject: Subject,
    /// Why, in one word.
    pub reason: Option<String>,
    /// What happened.
    pub message: Option<String>,
    #[serde(rename = "type")]
    type_: Option<String>,
    source: Option<Source>,
    reporting_component: Option<String>,
    first_timestamp: Option<Time>,
    last_timestamp: Option<Time>,
    event_time: Option<MicroTime>,
    count: Option<i64>,
    series: Option<Series>,
}

impl Seen {
    /// Whether it is a Warning. Whatever else it is counts as Normal.
    pub fn is_warning(&self) -> bool {
        self.type_.as_deref() == Some("Warning")
    }

    /// When it first happened.
    pub fn first(&self) -> Timestamp {
        let times = [
            self.first_timestamp.as_ref().map(|t| t.0),
            self.event_time.as_ref().map(|t| t.0),
        ];
        let first = times.into_iter().flatten().min();
        first
            .or_else(|| self.metadata.creation_timestamp.as_ref().map(|t| t.0))
            .unwrap_or_default()
    }

    /// When it last happened.
    pub fn last(&self) -> Timestamp {
        let series = self
            .series
            .as_ref()
            .and_then(|s| s.last_observed_time.as_ref())
            .map(|t| t.0);
        let times = [series, self.last_timestamp.as_ref().map(|t| t.0)];
        times
            .into_iter()
            .flatten()
            .max()
            .map_or_else(|| self.first(), |last| last.max(self.first()))
    }

    /// How often it happened, as the managed cluster counts.
    pub fn count(&self) -> u64 {
        let series = self.series.as_ref().and_then(|s| s.count).unwrap_or(0);
        let count = series.max(self.count.unwrap_or(0)).max(1);
        count.unsigned_abs()
    }

    /// Who tells.
    pub fn source(&self) -> Source {
        let mut source = self.source.clone().unwrap_or_default();
        if source.component.is_empty() {
            source.component = self.reporting_component.clone().unwrap_or_default();
        }
        source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn both_forms_of_events_are_read() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let cases: [(Value, u64, &str, &str, &str); 4] = [
            // As client-go's classic recorder writes.
            (
                json!({"count": 3, "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:01:00Z",
                    "eventTime": null, "source": {"component": "kubelet", "host": "n"}, "reportingComponent": ""}),
                3,
                "2026-01-01T00:00:00Z",
                "2026-01-01T00:01:00Z",
                "kubelet",
            ),
            // As the events.k8s.io recorder writes, once and in a series.
            (
                json!({"eventTime": "2026-01-01T00:00:00.5Z", "firstTimestamp": null, "lastTimestamp": null, "source": {},
                    "reportingComponent": "default-scheduler"}),
                1,
                "2026-01-01T00:00:00.5Z",
                "2026-01-01T00:00:00.5Z",
                "default-scheduler",
            ),
            (
                json!({"eventTime": "2026-01-01T00:00:00Z", "series": {"count": 7, "lastObservedTime": "2026-01-01T00:02:00Z"}}),
                7,
                "2026-01-01T00:00:00Z",
                "2026-01-01T00:02:00Z",
                "",
            ),
            // By hand, with next to nothing.
            (
                json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}),
                1,
                "2026-01-01T00:00:00Z",
                "2026-01-01T00:00:00Z",
                "",
            ),
        ];
        for (event, count, first, last, component) in cases {
            let seen: Seen = serde_json::from_value(event.clone()).unwrap();
            assert_eq!(seen.count(), count, "{event}");
            assert_eq!((seen.first(), seen.last()), (at(first), at(last)), "{event}");
            assert_eq!(seen.source().component, component, "{event}");
        }
    }
}
