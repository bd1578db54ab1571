//! What the klusterlet counts, and what it tells of itself when it is asked. Labels are words out of a few: as many
//! series as there are words, whatever the works are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use muster_observe::prometheus_client::collector::Collector;
use muster_observe::prometheus_client::encoding::DescriptorEncoder;
use muster_observe::prometheus_client::metrics::counter::Counter;
use muster_observe::prometheus_client::metrics::family::Family;
use muster_observe::prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use muster_observe::{Gauge, Observed, count, encode};
use tokio::sync::watch;

use crate::registration::rotation::Holding;
use crate::work::Agent;
use crate::work::status::Applied;

/// What is counted of works, over all hubs worked for.
#[derive(Debug)]
pub struct Counts {
    applied: Family<[(&'static str, &'static str); 1], Counter>,
    seconds: Histogram,
    /// Objects that were changed on the cluster and put back.
    pub repairs: Counter,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            applied: Family::default(),
            // From half a millisecond to eight seconds.
            seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 15)),
            repairs: Counter::default(),
        }
    }
}

impl Counts {
    /// A manifest was looked at, and this came of it.
    pub fn looked_at(&self, applied: &Applied, took: Duration) {
        let result = match applied {
            Applied::Yes => "applied",
            Applied::Kept => "kept",
            Applied::No { .. } => "failed",
        };
        self.applied.get_or_create(&[("result", result)]).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

/// What is so at the moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Works by the status of their condition Applied.
    pub works: BTreeMap<String, usize>,
    /// AppliedManifestWorks.
    pub records: usize,
    /// Watches of applied objects.
    pub watches: usize,
    /// Works that wait to be looked at.
    pub queued: usize,
    /// Works whose last look failed.
    pub failing: usize,
}

#[derive(Default)]
struct Known {
    holding: Option<watch::Receiver<Holding>>,
    agent: Weak<Agent>,
}

/// The klusterlet's metrics and checks.
#[derive(Default)]
pub struct Metrics {
    counts: Arc<Counts>,
    known: Mutex<Known>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Where works are counted.
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// A session works for a hub with these credentials.
    pub fn follow(&self, holding: &watch::Sender<Holding>, agent: &Arc<Agent>) {
        *self.known() = Known {
            holding: Some(holding.subscribe()),
            agent: Arc::downgrade(agent),
        };
    }

    /// Everything that can be asked for over HTTP.
    pub fn observed(self: &Arc<Self>) -> Observed {
        let mut observed = Observed::default();
        let registry = observed.registry();
        registry.register(
            "muster_klusterlet_manifests_looked_at",
            "Manifests that were compared with the cluster, by what came of it",
            self.counts.applied.clone(),
        );
        registry.register(
            "muster_klusterlet_apply_time_seconds",
            "Time that bringing about a manifest took",
            self.counts.seconds.clone(),
        );
        registry.register(
            "muster_klusterlet_drift_repairs",
            "Objects that were changed on the cluster and put back",
            self.counts.repairs.clone(),
        );
        registry.register_collector(Box::new(Scraped(self.clone())));
        let known = self.clone();
        // OCM's name. The agent gets a new certificate by itself: this is no reason to start it again.
        observed.healthy("hub-kube-config", move || match known.ends() {
            Some(end) if end <= Timestamp::now() => Err(format!(
                "the client certificate expired at {end}; the agent registers anew"
            )),
            _ => Ok(()),
        });
        let known = self.clone();
        observed.ready("hub", move || match known.ends() {
            None => Err("the cluster has not joined a hub yet".to_owned()),
            Some(end) if end <= Timestamp::now() => Err(format!("the client certificate expired at {end}")),
            Some(_) => Ok(()),
        });
        observed
    }

    /// When the certificate in use ends.
    fn ends(&self) -> Option<Timestamp> {
        let holding = self.known().holding.clone()?;
        let held = holding.borrow();
        Some(held.validity.not_after)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Scraped(Arc<Metrics>);

impl Collector for Scraped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let agent = self.0.known().agent.upgrade();
        let figures = agent.map(|agent| agent.figures());
        encode(&mut encoder, &gauges(self.0.ends(), figures.as_ref()))
    }
}

fn gauges(ends: Option<Timestamp>, figures: Option<&Figures>) -> Vec<Gauge> {
    let mut all = Vec::new();
    if let Some(end) = ends {
        #[allow(clippy::cast_precision_loss)] // seconds of this millennium fit
        let seconds = end.as_second() as f64;
        all.push(Gauge::alone(
            "muster_klusterlet_certificate_expiration_timestamp_seconds",
            "When the certificate for the hub ends, in seconds since 1970",
            seconds,
        ));
    }
    if let Some(figures) = figures {
        let works = figures.works.iter();
        all.extend([
            Gauge::new(
                "muster_klusterlet_works",
                "Works of this cluster by the status of their condition Applied",
                works.map(|(status, number)| (vec![("applied", status.clone())], count(*number))),
            ),
            Gauge::alone(
                "muster_klusterlet_applied_works",
                "AppliedManifestWorks: what is recorded as applied",
                count(figures.records),
            ),
            Gauge::alone(
                "muster_klusterlet_watches",
                "Watches of applied objects",
                count(figures.watches),
            ),
            Gauge::alone(
                "muster_klusterlet_queue_depth",
                "Works that wait to be looked at",
                count(figures.queued),
            ),
            Gauge::alone(
                "muster_klusterlet_failing",
                "Works whose last look failed",
                count(figures.failing),
            ),
        ]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_so_is_told_as_gauges() {
        assert!(gauges(None, None).is_empty(), "nothing is known yet");
        let figures = Figures {
            works: [("True".to_owned(), 2), ("Absent".to_owned(), 1)].into(),
            records: 2,
            watches: 3,
            queued: 1,
            failing: 0,
        };
        let all = gauges(Some(Timestamp::from_second(60).unwrap()), Some(&figures));
        let value = |name: &str, labels: &[(&str, &str)]| {
            let gauge = all.iter().find(|gauge| gauge.name.ends_with(name)).unwrap();
            gauge.value(labels)
        };
        assert_eq!(value("_expiration_timestamp_seconds", &[]), Some(60.0));
        assert_eq!(value("klusterlet_works", &[("applied", "True")]), Some(2.0));
        assert_eq!(value("klusterlet_works", &[("applied", "False")]), None);
        assert_eq!(
            (value("_watches", &[]), value("_failing", &[])),
            (Some(3.0), Some(0.0))
        );
    }
}
