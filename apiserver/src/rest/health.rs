//! `/healthz`, `/livez`, `/readyz`, `/metrics`.

use super::Api;
use super::params::Query;
use super::path::RequestInfo;
use super::respond::{self, Body};
use http::Response;
use std::fmt::Write as _;

/// Checks by name and whether they hold. The server answers only after its store is loaded and its bootstrap objects
/// exist, so what can still fail is having been told to stop.
fn checks(api: &Api, endpoint: &str) -> Vec<(&'static str, bool)> {
    let mut checks = vec![("ping", true), ("log", true), ("store", true)];
    if endpoint == "readyz" {
        checks.push(("shutdown", !api.shutdown.is_cancelled()));
    }
    checks
}

/// Answers a health path, `None` when it is none.
pub fn serve(api: &Api, info: &RequestInfo, query: &Query) -> Option<Response<Body>> {
    let path = info.path.trim_matches('/');
    if path == "metrics" {
        let objects = api.store.resources();
        return Some(respond::text(200, api.metrics.render(api.store.revision(), &objects)));
    }
    let (endpoint, single) = path.split_once('/').map_or((path, None), |(e, s)| (e, Some(s)));
    if !matches!(endpoint, "healthz" | "livez" | "readyz") {
        return None;
    }
    let checks = checks(api, endpoint);
    if let Some(name) = single {
        let (_, ok) = checks.iter().find(|(n, _)| *n == name)?;
        return Some(if *ok { respond::text(200, "ok") } else { respond::text(500, "internal server error") });
    }
    let failed = checks.iter().any(|(_, ok)| !ok);
    if !failed && query.get("verbose").is_none() {
        return Some(respond::text(200, "ok"));
    }
    let mut out = String::new();
    for (name, ok) in &checks {
        let _ = writeln!(out, "{}", if *ok { format!("[+]{name} ok") } else { format!("[-]{name} failed: reason withheld") });
    }
    let _ = writeln!(out, "{endpoint} check {}", if failed { "failed" } else { "passed" });
    Some(respond::text(if failed { 500 } else { 200 }, out))
}
