//! `/healthz`, `/livez`, `/readyz`, `/metrics`, and the keys of ServiceAccount tokens.

use super::negotiate::Format;
use super::params::Query;
use super::path::RequestInfo;
use super::respond::{self, Body};
use super::{Api, metrics};
use crate::auth::openid_configuration;
use crate::auth::tokens::ISSUER;
use http::Response;
use std::fmt::Write as _;

/// Checks by name and whether they hold. The server answers only after its store is loaded and its bootstrap objects
/// exist, so what can still fail is that the store's disk takes no writes, and having been told to stop. Both are for
/// `readyz` alone: starting anew would help with neither. The names are those of kube-apiserver's checks that mean
/// something here: what monitors ask for is `etcd`, which is the store.
fn checks(api: &Api, endpoint: &str) -> Vec<(&'static str, bool)> {
    let writes = endpoint != "readyz" || api.store.trouble().is_none();
    let mut checks = vec![("ping", true), ("log", true), ("etcd", writes)];
    if endpoint == "readyz" {
        checks.push(("informer-sync", true));
    }
    checks.push(("poststarthook/rbac/bootstrap-roles", true));
    checks.push(("poststarthook/scheduling/bootstrap-system-priority-classes", true));
    if endpoint == "readyz" {
        checks.push(("shutdown", !api.shutdown.is_cancelled()));
    }
    checks
}

/// The paths of the single checks.
pub fn paths(api: &Api) -> Vec<String> {
    let mut paths = Vec::new();
    for endpoint in ["healthz", "livez", "readyz"] {
        paths.push(format!("/{endpoint}"));
        paths.extend(
            checks(api, endpoint)
                .iter()
                .map(|(name, _)| format!("/{endpoint}/{name}")),
        );
    }
    paths
}

/// Answers a health path, `None` when it is none.
pub fn serve(api: &Api, info: &RequestInfo, query: &Query) -> Option<Response<Body>> {
    let path = info.path.trim_matches('/');
    if path == "metrics" {
        // The version of the text format that is written.
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        return Some(respond::with_type(200, kind, Body::full(metrics::render(api))));
    }
    match path {
        "openid/v1/jwks" => {
            let keys = respond::to_bytes(&api.authenticator.keys().jwks());
            return Some(respond::with_type(
                200,
                "application/jwk-set+json",
                Body::full(keys),
            ));
        }
        ".well-known/openid-configuration" => {
            let document = openid_configuration(ISSUER, &format!("{ISSUER}/openid/v1/jwks"));
            return Some(respond::value(200, &document, Format::Json));
        }
        _ => {}
    }
    let (endpoint, single) = path.split_once('/').map_or((path, None), |(e, s)| (e, Some(s)));
    if !matches!(endpoint, "healthz" | "livez" | "readyz") || info.path.ends_with('/') {
        return None;
    }
    let checks = checks(api, endpoint);
    if let Some(name) = single {
        let (_, ok) = checks.iter().find(|(n, _)| *n == name)?;
        return Some(if *ok {
            respond::text(200, "ok")
        } else {
            respond::text(500, "internal server error")
        });
    }
    let failed = checks.iter().any(|(_, ok)| !ok);
    if !failed && query.get("verbose").is_none() {
        return Some(respond::text(200, "ok"));
    }
    let mut out = String::new();
    for (name, ok) in &checks {
        let _ = writeln!(
            out,
            "{}",
            if *ok {
                format!("[+]{name} ok")
            } else {
                format!("[-]{name} failed: reason withheld")
            }
        );
    }
    let _ = writeln!(
        out,
        "{endpoint} check {}",
        if failed { "failed" } else { "passed" }
    );
    Some(respond::text(if failed { 500 } else { 200 }, out))
}
