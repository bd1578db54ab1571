//! What a process tells of itself: by a log as verbose as it is told to be, and over HTTP: `/metrics` for Prometheus, `/livez`, `/readyz` and `/healthz` for probes,
//! as Kubernetes' own components have them.
//!
//! Whoever runs it registers metrics and checks at an [`Observed`] first, then serves it. It is plain HTTP and tells
//! names and numbers only: who may reach the address, may read them.

mod checks;
mod process;
mod series;
mod serve;
mod verbosity;

pub use checks::Check;
pub use prometheus_client;
pub use series::{Gauge, count, encode};
pub use serve::{bind, serve};
pub use verbosity::Verbosity;

use checks::Checks;
use prometheus_client::registry::Registry;

/// Metrics and checks.
#[derive(Debug)]
pub struct Observed {
    registry: Registry,
    live: Checks,
    ready: Checks,
    healthy: Checks,
}

impl Default for Observed {
    /// Metrics of the process, and no checks.
    fn default() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process::default()));
        Self {
            registry,
            live: Checks::default(),
            ready: Checks::default(),
            healthy: Checks::default(),
        }
    }
}

impl Observed {
    /// Where metrics are registered.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Adds a check of `/livez`: whether the process can go on at all. It counts for `/readyz` and `/healthz`, too.
    pub fn live(&mut self, name: &'static str, check: impl Check) {
        let check = std::sync::Arc::new(check);
        for checks in [&mut self.live, &mut self.ready, &mut self.healthy] {
            let check = check.clone();
            checks.add(name, move || check());
        }
    }

    /// Adds a check of `/readyz`: whether it does its work.
    pub fn ready(&mut self, name: &'static str, check: impl Check) {
        self.ready.add(name, check);
    }

    /// Adds a check of `/healthz`, which OCM's probes ask.
    pub fn healthy(&mut self, name: &'static str, check: impl Check) {
        self.healthy.add(name, check);
    }
}
