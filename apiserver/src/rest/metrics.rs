//! Counters behind `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Requests = BTreeMap<(String, String, String, u16), u64>;

/// What the server counts.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<Requests>,
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
    /// Counts an answered request.
    pub fn request(&self, verb: &str, group: &str, resource: &str, code: u16) {
        let key = (verb.to_owned(), group.to_owned(), resource.to_owned(), code);
        *self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default() += 1;
    }

    /// Counts a watch for as long as the answer lives.
    pub fn watching(self: &Arc<Self>) -> Watching {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watching(Arc::clone(self))
    }

    /// The text format of Prometheus.
    pub fn render(&self, revision: u64, objects: &[(Arc<str>, usize)]) -> String {
        let mut out = String::from("# TYPE apiserver_request_total counter\n");
        let requests = self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for ((verb, group, resource, code), n) in requests {
            let _ = writeln!(
                out,
                "apiserver_request_total{{verb=\"{verb}\",group=\"{group}\",resource=\"{resource}\",code=\"{code}\"}} {n}"
            );
        }
        out.push_str("# TYPE apiserver_longrunning_requests gauge\n");
        let watchers = self.watchers.load(Ordering::Relaxed);
        let _ = writeln!(out, "apiserver_longrunning_requests{{verb=\"WATCH\"}} {watchers}");
        out.push_str("# TYPE apiserver_storage_objects gauge\n");
        let mut objects = objects.to_vec();
        objects.sort();
        for (resource, n) in objects {
            let _ = writeln!(
                out,
                "apiserver_storage_objects{{resource=\"{}\"}} {n}",
                resource.trim_start_matches('/')
            );
        }
        out.push_str("# TYPE muster_apiserver_revision gauge\n");
        let _ = writeln!(out, "muster_apiserver_revision {revision}");
        out
    }
}
