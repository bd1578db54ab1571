//! What a server was asked, by its own count.

use super::client::Target;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;

/// How often each verb was asked of each resource.
#[derive(Debug, Clone, Default)]
pub struct Requests(BTreeMap<(String, String), u64>);

/// What the bench itself and the leases of agents do not count as.
const APART: [&str; 2] = ["leases", ""];
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
/// Created to ask, not to be kept.
const REVIEWS: &str = "reviews";

impl Requests {
    /// Until now.
    pub async fn of(target: &Target) -> Result<Self> {
        let text = target.connect().await?.get("/metrics").await?;
        let mut all = BTreeMap::new();
        for line in std::str::from_utf8(&text)?.lines() {
            let Some(rest) = line.strip_prefix("apiserver_request_total{") else {
                continue;
            };
            let (labels, count) = rest.split_once("} ").context("a line without a value")?;
            let label = |name: &str| {
                let value = labels
                    .split(',')
                    .find_map(|l| l.strip_prefix(name)?.strip_prefix("=\""));
                value
                    .map(|v| v.trim_end_matches('"').to_owned())
                    .unwrap_or_default()
            };
            *all.entry((label("verb"), label("resource"))).or_insert(0) += count.parse::<u64>()?;
        }
        Ok(Self(all))
    }

    /// Those that a server refused until now, for want of rights.
    pub async fn refused(target: &Target) -> Result<u64> {
        let text = target.connect().await?.get("/metrics").await?;
        let mut all = 0;
        for line in std::str::from_utf8(&text)?.lines() {
            if line.starts_with("apiserver_request_total{") && line.contains("code=\"403\"") {
                let (_, count) = line.rsplit_once("} ").context("a line without a value")?;
                all += count.parse::<u64>()?;
            }
        }
        Ok(all)
    }

    /// Only what came after `before`.
    pub fn since(&self, before: &Self) -> Self {
        let rest = self.0.iter().map(|(what, count)| {
            let known = before.0.get(what).copied().unwrap_or_default();
            (what.clone(), count - known)
        });
        Self(
            rest.filter(|(what, count)| *count > 0 && !APART.contains(&what.1.as_str()))
                .collect(),
        )
    }

    /// How many.
    pub fn all(&self) -> u64 {
        self.0.values().sum()
    }

    /// How many of them were to change something.
    pub fn writes(&self) -> u64 {
        let writes = self
            .0
            .iter()
            .filter(|((verb, resource), _)| WRITES.contains(&verb.as_str()) && !resource.ends_with(REVIEWS));
        writes.map(|(_, count)| count).sum()
    }

    /// Each, for people.
    pub fn show(&self) -> String {
        let all: Vec<String> = self
            .0
            .iter()
            .map(|((verb, resource), n)| format!("{n} {verb} {resource}"))
            .collect();
        all.join(", ")
    }
}
