//! Counters behind `/metrics`. Labels come from what is served, never from what is asked for: a stranger's paths make no
//! series.

use super::Api;
use crate::registry::Resource;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Upper ends of the latency buckets, in seconds: some of kube-apiserver's, and smaller ones that it does not need.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];
/// Every verb there is; a method that is none of these is `other`.
const VERBS: [&str; 14] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "head",
    "options",
    "post",
    "put",
    "connect",
    "other",
];

/// What is counted together: a verb and a resource as `group/plural`, none for other paths and for what is not served.
type Label = (&'static str, Option<Arc<str>>);

#[derive(Debug, Clone, Default)]
struct Series {
    codes: BTreeMap<u16, u64>,
    buckets: [u64; BUCKETS.len()],
    sum: Duration,
}

/// What the server counts.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<HashMap<Label, Series>>,
    watchers: AtomicI64,
}

/// One open watch; counted until dropped.
#[derive(Debug)]
pub struct Watching(Arc<Metrics>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts an answered request. `resource` only when it is served.
    pub fn request(&self, verb: &str, resource: Option<&Resource>, code: u16, took: Duration) {
        let verb = VERBS.into_iter().find(|v| *v == verb).unwrap_or("other");
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let label = (verb, resource.map(|r| Arc::clone(&r.storage)));
        let series = requests.entry(label).or_default();
        *series.codes.entry(code).or_default() += 1;
        let seconds = took.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|end| seconds <= *end) {
            series.buckets[bucket] += 1;
        }
        series.sum += took;
    }

    /// Counts a watch for as long as the answer lives.
    pub fn watching(self: &Arc<Self>) -> Watching {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watching(Arc::clone(self))
    }

    fn requests(&self, out: &mut String) {
        let mut requests: Vec<(Label, Series)> = self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(label, series)| (label.clone(), series.clone()))
            .collect();
        requests.sort_by(|a, b| a.0.cmp(&b.0));
        let labels = |(verb, resource): &Label| {
            let resource = resource.as_deref().unwrap_or_default();
            let (group, resource) = resource.split_once('/').unwrap_or_default();
            format!("verb=\"{verb}\",group=\"{group}\",resource=\"{resource}\"")
        };
        head(
            out,
            "apiserver_request_total",
            "counter",
            "Requests answered, watches as they begin.",
        );
        for (label, series) in &requests {
            let labels = labels(label);
            for (code, n) in &series.codes {
                let _ = writeln!(out, "apiserver_request_total{{{labels},code=\"{code}\"}} {n}");
            }
        }
        let name = "apiserver_request_duration_seconds";
        head(
            out,
            name,
            "histogram",
            "From a request's headers to its answer, watches left out.",
        );
        for (label, series) in requests.iter().filter(|(label, _)| label.0 != "watch") {
            let labels = labels(label);
            let mut so_far = 0;
            for (end, n) in BUCKETS.iter().zip(series.buckets) {
                so_far += n;
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{end}\"}} {so_far}");
            }
            let count: u64 = series.codes.values().sum();
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", series.sum.as_secs_f64());
            let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// The text format of Prometheus.
pub fn render(api: &Api) -> String {
    let mut out = String::new();
    api.metrics.requests(&mut out);
    let mut gauge = |name: &str, help: &str, rows: &[(String, u64)]| {
        head(&mut out, name, "gauge", help);
        for (labels, value) in rows {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let watchers = api.metrics.watchers.load(Ordering::Relaxed);
    gauge(
        "apiserver_longrunning_requests",
        "Open watches.",
        &[("{verb=\"WATCH\"}".into(), u64::try_from(watchers).unwrap_or(0))],
    );
    let (reading, writing) = api.in_flight.taken();
    gauge(
        "apiserver_current_inflight_requests",
        "Requests that hold a seat.",
        &[
            ("{request_kind=\"mutating\"}".into(), writing as u64),
            ("{request_kind=\"readOnly\"}".into(), reading as u64),
        ],
    );
    let mut objects: Vec<(String, u64)> = api
        .store
        .resources()
        .into_iter()
        .map(|(resource, n)| {
            let resource = resource.trim_start_matches('/').to_owned();
            (format!("{{resource=\"{resource}\"}}"), n as u64)
        })
        .collect();
    objects.sort();
    gauge("apiserver_storage_objects", "Stored objects.", &objects);
    let size = api.store.file_bytes().map(|bytes| (String::new(), bytes));
    gauge(
        "apiserver_storage_size_bytes",
        "Size of the store's file; none in memory.",
        size.as_slice(),
    );
    let revision = (String::new(), api.store.revision());
    gauge(
        "muster_apiserver_revision",
        "Last revision given out.",
        &[revision],
    );
    let kept = api.store.kept();
    gauge(
        "muster_apiserver_kept_revisions",
        "Changes that watches can still resume from.",
        &[(String::new(), kept.0 as u64)],
    );
    gauge(
        "muster_apiserver_kept_bytes",
        "Bytes of the objects of those changes.",
        &[(String::new(), kept.1 as u64)],
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    #[test]
    fn series_are_bounded_by_what_is_served() {
        let metrics = Metrics::default();
        let registry = Registry::new();
        let maps = registry.find("", "v1", "configmaps").unwrap();
        for n in 0..1000_u16 {
            metrics.request(&format!("method{n}"), None, 401, Duration::ZERO);
        }
        metrics.request("create", Some(&maps), 201, Duration::from_millis(2));
        metrics.request("create", Some(&maps), 409, Duration::from_secs(100));
        metrics.request("watch", Some(&maps), 200, Duration::from_millis(2));
        let mut text = String::new();
        metrics.requests(&mut text);
        for line in [
            "apiserver_request_total{verb=\"other\",group=\"\",resource=\"\",code=\"401\"} 1000",
            "apiserver_request_total{verb=\"create\",group=\"\",resource=\"configmaps\",code=\"201\"} 1",
            "apiserver_request_duration_seconds_bucket{verb=\"create\",group=\"\",resource=\"configmaps\",le=\"0.001\"} 0",
            "apiserver_request_duration_seconds_bucket{verb=\"create\",group=\"\",resource=\"configmaps\",le=\"0.0025\"} 1",
            "apiserver_request_duration_seconds_bucket{verb=\"create\",group=\"\",resource=\"configmaps\",le=\"60\"} 1",
            "apiserver_request_duration_seconds_bucket{verb=\"create\",group=\"\",resource=\"configmaps\",le=\"+Inf\"} 2",
            "apiserver_request_duration_seconds_count{verb=\"create\",group=\"\",resource=\"configmaps\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("_count{verb=\"watch\""));
        assert_eq!(metrics.requests.lock().unwrap().len(), 3);
    }
}
