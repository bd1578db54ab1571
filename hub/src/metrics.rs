//! What the hub counts, and what it tells of the fleet when it is asked.
//!
//! Counts are kept as things happen; the state of the fleet is read from the caches at each scrape, so that it costs
//! nothing in between. Labels are names of controllers, outcomes, clusters and join tokens: as many series as there are
//! of those.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use muster_crds::{
    conditions::find,
    constants::{conditions, names},
    validity::Validity,
};
use muster_observe::prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use muster_observe::{Gauge, count, encode};

use crate::{queue::Queue, registration::caches::Caches};

type Labels<const N: usize> = [(&'static str, String); N];

/// From a millisecond to half a minute.
pub fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// What was done with a certificate request.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// It was approved.
    Approved,
    /// It was denied.
    Denied,
}

/// What is known of the fleet.
#[derive(Default)]
struct Known {
    queues: Vec<(&'static str, Arc<Queue>)>,
    caches: Option<Arc<Caches>>,
    certificates: BTreeMap<&'static str, Validity>,
    leads: Option<bool>,
    no_room: bool,
}

/// The hub's metrics.
pub struct Metrics {
    requests: Family<Labels<2>, Counter>,
    request_seconds: Family<Labels<1>, Histogram, fn() -> Histogram>,
    answers: Family<Labels<1>, Counter>,
    known: Mutex<Known>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            answers: Family::default(),
            known: Mutex::default(),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Tells what there is to `registry`.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register(
            "muster_hub_requests",
            "Requests to the hub's API server, by verb and HTTP status",
            self.requests.clone(),
        );
        registry.register(
            "muster_hub_request_time_seconds",
            "Time that requests to the hub's API server took",
            self.request_seconds.clone(),
        );
        registry.register(
            "muster_hub_certificate_requests_answered",
            "Certificate requests of agents that the hub answered",
            self.answers.clone(),
        );
        registry.register_collector(Box::new(Scraped(self.clone())));
    }

    /// A request to the API server ended: `code` is its HTTP status, or a word where there was none.
    pub fn request(&self, verb: &str, code: &str, took: Duration) {
        let verb = ("verb", verb.to_owned());
        self.requests
            .get_or_create(&[verb.clone(), ("code", code.to_owned())])
            .inc();
        self.request_seconds
            .get_or_create(&[verb])
            .observe(took.as_secs_f64());
    }

    /// A certificate request was answered.
    pub fn answered(&self, answer: Answer) {
        let outcome = match answer {
            Answer::Approved => "approved",
            Answer::Denied => "denied",
        };
        self.answers
            .get_or_create(&[("outcome", outcome.to_owned())])
            .inc();
    }

    /// A controller works on the keys of a queue from now on.
    pub fn follow(&self, controller: &'static str, queue: &Arc<Queue>) {
        self.known().queues.push((controller, queue.clone()));
    }

    /// From now on the fleet is known from these.
    pub fn know(&self, caches: &Arc<Caches>) {
        self.known().caches = Some(caches.clone());
    }

    /// Whether the controllers' caches hold what the API server holds.
    pub fn is_ready(&self) -> bool {
        self.known()
            .caches
            .as_ref()
            .is_some_and(|caches| caches.is_ready())
    }

    /// Nothing is known of the fleet any more: somebody else sees to it.
    pub fn forget(&self) {
        let mut known = self.known();
        known.queues.clear();
        known.caches = None;
    }

    /// Whether another hub leads, or may, so that nothing need be known here.
    pub fn waits(&self) -> bool {
        self.known().leads == Some(false)
    }

    /// The hub's own certificates.
    pub fn own(&self, certificates: BTreeMap<&'static str, Validity>) {
        self.known().certificates = certificates;
    }

    /// Whether the API server has room for writes.
    pub fn room(&self, room: bool) {
        self.known().no_room = !room;
    }

    /// Whether this hub leads others.
    pub fn leads(&self, leads: bool) {
        self.known().leads = Some(leads);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Scraped(Arc<Metrics>);

impl fmt::Debug for Scraped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Scraped")
    }
}

impl Collector for Scraped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let known = self.0.known();
        encode(&mut encoder, &gauges(&known, Timestamp::now()))?;
        let help = "Reconciles by how they ended";
        let mut family =
            encoder.encode_descriptor("muster_hub_reconcile", help, None, MetricType::Counter)?;
        for (controller, queue) in &known.queues {
            for (result, count) in queue.counts.by_result() {
                let labels = [("controller", *controller), ("result", result)];
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&count.get(), None)?;
            }
        }
        let help = "Time that reconciles took";
        let name = "muster_hub_reconcile_time_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (controller, queue) in &known.queues {
            let labels = [("controller", *controller)];
            queue.counts.seconds.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss)] // microseconds of this millennium fit
fn when(time: Timestamp) -> f64 {
    time.as_microsecond() as f64 / 1e6
}

fn gauges(known: &Known, now: Timestamp) -> Vec<Gauge> {
    let yes = |value: bool| f64::from(u8::from(value));
    let of_queues = |value: fn(&Queue) -> usize| {
        let series = known.queues.iter();
        series.map(move |(controller, queue)| {
            let labels = vec![("controller", (*controller).to_owned())];
            (labels, count(value(queue)))
        })
    };
    let own = known.certificates.iter().map(|(name, validity)| {
        let labels = vec![("certificate", (*name).to_owned())];
        (labels, when(validity.not_after))
    });
    let mut all = vec![
        Gauge::alone(
            "muster_hub_storage_full",
            "Whether the hub's API server refuses writes for want of room",
            yes(known.no_room),
        ),
        Gauge::new(
            "muster_hub_queue_depth",
            "Keys that wait to be looked at",
            of_queues(Queue::depth),
        ),
        Gauge::new(
            "muster_hub_failing",
            "Keys whose last reconcile failed",
            of_queues(Queue::failing),
        ),
        Gauge::new(
            "muster_hub_certificate_expiration_timestamp_seconds",
            "When a certificate of the hub itself ends, in seconds since 1970",
            own,
        ),
    ];
    if let Some(leads) = known.leads {
        all.push(Gauge::alone(
            "muster_hub_leader",
            "Whether this hub leads",
            yes(leads),
        ));
    }
    if let Some(caches) = known.caches.as_ref().filter(|caches| caches.is_ready()) {
        all.extend(fleet(caches, now));
    }
    all
}

/// What the caches tell of the fleet.
fn fleet(caches: &Caches, now: Timestamp) -> Vec<Gauge> {
    const CONDITIONS: [&str; 3] = [
        conditions::HUB_ACCEPTED,
        conditions::JOINED,
        conditions::CLUSTER_AVAILABLE,
    ];
    let mut by_condition: BTreeMap<(&str, String), usize> = BTreeMap::new();
    let (mut leases, mut certificates) = (Vec::new(), Vec::new());
    for (name, cluster) in caches.clusters.list("") {
        for type_ in CONDITIONS {
            let status = find(&cluster.conditions, type_).map_or("Absent", |found| found.status.as_str());
            *by_condition.entry((type_, status.to_owned())).or_default() += 1;
        }
        let of = |name: &str| vec![("cluster", name.to_owned())];
        let lease = caches.leases.get(&name, names::CLUSTER_LEASE);
        if let Some(heard) = lease.and_then(|lease| lease.seen.or(lease.renewed)) {
            leases.push((of(&name), now.duration_since(heard).as_secs_f64().max(0.0)));
        }
        if let Some(validity) = Validity::latest(cluster.certificate, &cluster.conditions) {
            certificates.push((of(&name), when(validity.not_after)));
        }
    }
    let clusters = by_condition.into_iter().map(|((type_, status), number)| {
        let labels = vec![("condition", type_.to_owned()), ("status", status)];
        (labels, count(number))
    });
    let state = |state: &str| vec![("state", state.to_owned())];
    let mut tokens: BTreeMap<&str, usize> = BTreeMap::new();
    let mut token_ends = Vec::new();
    for (name, token) in caches.tokens.list(names::BOOTSTRAP_TOKEN_NAMESPACE) {
        *tokens.entry(token.state(now)).or_default() += 1;
        let id = name.strip_prefix(names::BOOTSTRAP_TOKEN_PREFIX).unwrap_or(&name);
        if let Some(end) = token.expiration {
            token_ends.push((vec![("token", id.to_owned())], when(end)));
        }
    }
    let requests = caches.requests.list("");
    let decided = requests.iter().filter(|(_, request)| request.decided).count();
    let works = caches.works.everything();
    let going = works.iter().filter(|(_, _, work)| work.deleting).count();
    vec![
        Gauge::new(
            "muster_hub_clusters",
            "Clusters by condition and its status",
            clusters,
        ),
        Gauge::new(
            "muster_hub_cluster_lease_age_seconds",
            "How long ago the hub last heard of the cluster",
            leases,
        ),
        Gauge::new(
            "muster_hub_cluster_certificate_expiration_timestamp_seconds",
            "When the certificate of the cluster's agent ends, in seconds since 1970",
            certificates,
        ),
        Gauge::new(
            "muster_hub_certificate_requests",
            "Certificate requests of agents that are there",
            [
                (state("decided"), count(decided)),
                (state("pending"), count(requests.len() - decided)),
            ],
        ),
        Gauge::new(
            "muster_hub_join_tokens",
            "Join tokens by what they are good for",
            tokens
                .into_iter()
                .map(|(name, number)| (state(name), count(number))),
        ),
        Gauge::new(
            "muster_hub_join_token_expiration_timestamp_seconds",
            "When a join token ends, in seconds since 1970",
            token_ends,
        ),
        Gauge::new(
            "muster_hub_works",
            "ManifestWorks of all clusters",
            [
                (state("present"), count(works.len() - going)),
                (state("deleting"), count(going)),
            ],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use muster_crds::cluster::v1::ManagedCluster;
    use muster_observe::prometheus_client::encoding::text;
    use serde_json::json;

    use super::*;

    fn scrape(metrics: &Arc<Metrics>) -> String {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        out
    }

    #[test]
    fn counts_are_told() {
        let metrics = Arc::<Metrics>::default();
        metrics.request("create", "201", Duration::from_millis(3));
        metrics.request("create", "201", Duration::from_millis(3));
        metrics.answered(Answer::Denied);
        metrics.leads(true);
        let validity = "2026-01-01T00:00:00Z/2026-01-01T00:00:01Z".parse().unwrap();
        metrics.own([("kubeconfig", validity)].into());
        let queue = Queue::new();
        metrics.follow("ManagedCluster", &queue);
        queue.add("a");
        let text = scrape(&metrics);
        for line in [
            "muster_hub_requests_total{verb=\"create\",code=\"201\"} 2",
            "muster_hub_request_time_seconds_count{verb=\"create\"} 2",
            "muster_hub_certificate_requests_answered_total{outcome=\"denied\"} 1",
            "muster_hub_leader 1.0",
            "muster_hub_storage_full 0.0",
            "muster_hub_queue_depth{controller=\"ManagedCluster\"} 1.0",
            "muster_hub_failing{controller=\"ManagedCluster\"} 0.0",
            "muster_hub_reconcile_total{controller=\"ManagedCluster\",result=\"success\"} 0",
            "muster_hub_reconcile_time_seconds_count{controller=\"ManagedCluster\"} 0",
            "muster_hub_certificate_expiration_timestamp_seconds{certificate=\"kubeconfig\"} 1767225601.0",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in {text}");
        }
        assert!(
            !text.contains("muster_hub_clusters"),
            "nothing is known of the fleet yet: {text}"
        );
        assert!(!metrics.is_ready());
    }

    #[test]
    fn the_fleet_is_told_as_the_caches_have_it() {
        let caches = Caches::new(&BTreeSet::new(), &[]);
        for (name, status) in [("c1", "True"), ("c2", "True"), ("c3", "Unknown")] {
            let cluster: ManagedCluster = serde_json::from_value(json!({
                "metadata": {"name": name, "resourceVersion": "1", "annotations": {
                    "registration.muster.open-cluster-management.io/client-certificate":
                        "1970-01-01T00:00:00Z/1970-01-01T00:01:00Z"}},
                "spec": {},
                "status": {"conditions": [{"type": conditions::CLUSTER_AVAILABLE, "status": status, "reason": "R",
                    "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .unwrap();
            caches.clusters.wrote(&cluster);
        }
        let token = json!({"metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system",
            "resourceVersion": "1", "annotations":
                {"token.muster.open-cluster-management.io/expiration": "1970-01-01T00:00:30Z"}}});
        caches.tokens.wrote(&serde_json::from_value(token).unwrap());
        let all = fleet(&caches, Timestamp::from_second(10).unwrap());
        let value = |name: &str, labels: &[(&str, &str)]| {
            let gauge = all.iter().find(|gauge| gauge.name == name).unwrap();
            gauge.value(labels)
        };
        let available = |status| {
            value(
                "muster_hub_clusters",
                &[("condition", conditions::CLUSTER_AVAILABLE), ("status", status)],
            )
        };
        assert_eq!(
            (available("True"), available("Unknown"), available("False")),
            (Some(2.0), Some(1.0), None)
        );
        let joined = value(
            "muster_hub_clusters",
            &[("condition", conditions::JOINED), ("status", "Absent")],
        );
        assert_eq!(joined, Some(3.0));
        let name = "muster_hub_cluster_certificate_expiration_timestamp_seconds";
        assert_eq!(value(name, &[("cluster", "c2")]), Some(60.0));
        assert_eq!(value("muster_hub_join_tokens", &[("state", "valid")]), Some(1.0));
        let name = "muster_hub_join_token_expiration_timestamp_seconds";
        assert_eq!(value(name, &[("token", "abcdef")]), Some(30.0));
        assert_eq!(value("muster_hub_works", &[("state", "present")]), Some(0.0));
    }
}
