//! When a certificate is good: as the hub writes it at a cluster, and as agents say it in a condition.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    cluster::v1::ManagedCluster,
    conditions::find,
    constants::{annotations, conditions},
};

/// Agents renew their certificates while a fifth to a quarter of their life is left (ocm-wire §2.3).
const RENEWED_WHILE_LEFT: f64 = 0.2;

/// When a certificate is good. As text it is an interval of ISO 8601: `2026-01-01T00:00:00Z/2027-01-01T00:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub not_before: Timestamp,
    /// To.
    pub not_after: Timestamp,
}

impl Validity {
    /// What is known of the certificate of a cluster's agent.
    pub fn of(cluster: &ManagedCluster) -> Option<Self> {
        let annotation = cluster
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(annotations::CLIENT_CERTIFICATE));
        let conditions = cluster.status.as_ref().map(|status| status.conditions.as_slice());
        let noted = annotation.and_then(|text| text.parse().ok());
        Self::latest(noted, conditions.unwrap_or_default())
    }

    /// The later one of what the hub noted when the certificate was issued, and what the agent says of it.
    pub fn latest(noted: Option<Self>, conditions: &[Condition]) -> Option<Self> {
        let told = find(conditions, conditions::CERTIFICATE_ROTATED)
            .filter(|condition| condition.status == "True")
            .and_then(|condition| Self::from_message(&condition.message));
        noted
            .into_iter()
            .chain(told)
            .max_by_key(|validity| validity.not_before)
    }

    /// From the message of an agent, `… from 2026-01-31 10:00:00 +0000 UTC to 2027-01-31 10:00:00 +0000 UTC`, as Go
    /// writes times, or with times as RFC 3339 has them.
    fn from_message(message: &str) -> Option<Self> {
        let (rest, end) = message.rsplit_once(" to ")?;
        let (_, start) = rest.rsplit_once(" from ")?;
        Some(Self {
            not_before: time(start)?,
            not_after: time(end)?,
        })
    }

    /// How much of its life is left at `now`, 0 to 1.
    pub fn left(&self, now: Timestamp) -> f64 {
        let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64();
        let life = seconds(self.not_before, self.not_after);
        if life <= 0.0 {
            return 0.0;
        }
        (seconds(now, self.not_after) / life).clamp(0.0, 1.0)
    }

    /// Whether it should have been renewed by `now`.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.left(now) < RENEWED_WHILE_LEFT
    }
}

/// `2027-01-31 10:00:00 +0000 UTC`, or RFC 3339.
fn time(text: &str) -> Option<Timestamp> {
    let mut words = text.split_whitespace();
    let first = words.next()?;
    match words.next() {
        None => first.parse().ok(),
        Some(time) => {
            let offset = words.next().unwrap_or("Z");
            format!("{first}T{time}{offset}").parse().ok()
        }
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.not_before, self.not_after)
    }
}

impl FromStr for Validity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = |text: &str| text.parse::<Timestamp>().map_err(|error| error.to_string());
        let (start, end) = text
            .split_once('/')
            .ok_or_else(|| format!("{text:?} is no interval: write FROM/TO"))?;
        Ok(Self {
            not_before: read(start)?,
            not_after: read(end)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn validity(start: &str, end: &str) -> Validity {
        Validity {
            not_before: start.parse().unwrap(),
            not_after: end.parse().unwrap(),
        }
    }

    fn cluster(noted: Option<&str>, status: &str, message: &str) -> ManagedCluster {
        let annotations = noted.map(|noted| json!({annotations::CLIENT_CERTIFICATE: noted}));
        serde_json::from_value(json!({
            "apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
            "metadata": {"name": "c", "annotations": annotations}, "spec": {},
            "status": {"conditions": [{"type": "ClusterCertificateRotated", "status": status, "reason": "r",
                "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
        .unwrap()
    }

    #[test]
    fn what_agents_say_and_what_the_hub_noted_is_read() {
        let go = "client certificate rotated starting from 2025-12-31 23:57:00 +0000 UTC to 2026-12-31 23:57:00 +0000 UTC";
        let ours = "client certificate rotated starting from 2025-12-31T23:57:00Z to 2026-12-31T23:57:00Z";
        let said = validity("2025-12-31T23:57:00Z", "2026-12-31T23:57:00Z");
        let later = validity("2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z");
        let noted = later.to_string();
        for (noted, status, message, wanted) in [
            (None, "True", go, Some(said)),
            (None, "True", ours, Some(said)),
            (None, "False", go, None),
            (None, "True", "something else to say", None),
            (None, "True", "", None),
            (Some(noted.as_str()), "True", go, Some(later)),
            (Some(noted.as_str()), "False", "it failed", Some(later)),
            (
                Some("2020-01-01T00:00:00Z/2021-01-01T00:00:00Z"),
                "True",
                go,
                Some(said),
            ),
            (Some("nonsense"), "True", go, Some(said)),
        ] {
            assert_eq!(
                Validity::of(&cluster(noted, status, message)),
                wanted,
                "{noted:?} {message}"
            );
        }
    }

    #[test]
    fn a_fifth_of_its_life_is_when_it_should_have_been_renewed() {
        let validity = validity("2026-01-01T00:00:00Z", "2026-01-01T01:40:00Z");
        let at = |minutes: i64| {
            let seconds = validity.not_before.as_second() + 60 * minutes;
            Timestamp::from_second(seconds).unwrap()
        };
        for (minutes, left, overdue) in [
            (-5, 1.0, false),
            (50, 0.5, false),
            (80, 0.2, false),
            (81, 0.19, true),
            (200, 0.0, true),
        ] {
            assert!((validity.left(at(minutes)) - left).abs() < 1e-9, "{minutes}");
            assert_eq!(validity.is_overdue(at(minutes)), overdue, "{minutes}");
        }
        let never = Validity {
            not_before: at(0),
            not_after: at(0),
        };
        assert!(never.is_overdue(at(-1)));
        assert_eq!(validity.to_string().parse(), Ok(validity));
        assert!("2026-01-01T00:00:00Z".parse::<Validity>().is_err());
    }
}
