//! What the server serves, as clients ask for it: one path at a time (`/api`, `/apis`, `/apis/<group>/<version>`) or all
//! at once (aggregated discovery, KEP-3352).

use super::negotiate::{self, Format, SERVED, Shape};
use super::respond::{self, Body, to_yaml};
use crate::error::ApiError;
use crate::registry::{Registry, Resource, Snapshot, api_version, split_api_version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Version of Kubernetes whose API this is.
pub(super) const VERSION: &str = "v1.36.0";

/// Which form of the root documents the client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain(Format),
    /// Aggregated, in this version of apidiscovery.k8s.io.
    Aggregated(&'static str),
}

/// Whether a group has built-in resources.
pub fn has_builtin_group(registry: &Registry, group: &str) -> bool {
    let snapshot = registry.snapshot();
    let mut all = snapshot.all().iter();
    all.any(|r| r.custom.is_none() && r.group == group)
}

/// The answer to a discovery path; `None` when the path is not one or names no group that is served.
pub fn serve(
    registry: &Registry,
    path: &str,
    headers: &HeaderMap,
) -> Option<Result<Response<Body>, ApiError>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let snapshot = registry.snapshot();
    let document = match parts.as_slice() {
        [root @ ("api" | "apis")] => return Some(root_document(&snapshot, root, headers)),
        ["api", version] => match resources(&snapshot, "", version) {
            Some(document) => document,
            None => return Some(Err(ApiError::NoSuchResource)),
        },
        ["version"] => return Some(answer(&version(), "application/json", headers)),
        ["apis", name] => group(&snapshot, name)?,
        ["apis", group, version] => match resources(&snapshot, group, version) {
            Some(document) => document,
            None if has_builtin_group(registry, group) => return Some(Err(ApiError::NoSuchResource)),
            None => return None,
        },
        _ => return None,
    };
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok());
    Some(negotiate::accept(accept).and_then(|accept| match accept.shape {
        Shape::Object => written(&document, accept.format, headers),
        _ => Err(ApiError::NotAcceptable(SERVED.to_owned())),
    }))
}

fn written(document: &Value, format: Format, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    match format {
        Format::Json | Format::Protobuf => answer(document, "application/json", headers),
        Format::Yaml => tagged(to_yaml(document).into(), "application/yaml", headers),
    }
}

/// The answer to `/`: what one may ask for.
pub fn index(registry: &Registry, health: Vec<String>) -> Response<Body> {
    let mut paths = health;
    paths.extend(
        [
            "/.well-known/openid-configuration",
            "/api",
            "/api/v1",
            "/apis",
            "/apis/",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openapi/v3/",
            "/openid/v1/jwks",
            "/version",
        ]
        .map(str::to_owned),
    );
    for (name, versions) in named_groups(&registry.snapshot()) {
        paths.push(format!("/apis/{name}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{name}/{version}")));
    }
    paths.sort();
    let document = serde_json::to_vec_pretty(&json!({"paths": paths})).unwrap_or_default();
    respond::json_bytes(200, document)
}

/// `/version`: the Kubernetes whose API this is, and what serves it.
fn version() -> Value {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": format!("{VERSION}+muster-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{arch}", std::env::consts::OS),
    })
}

fn root_document(snapshot: &Snapshot, root: &str, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let core = root == "api";
    match form(headers)? {
        Form::Aggregated(version) => {
            let kind = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
            answer(&aggregated(snapshot, version, core), &kind, headers)
        }
        Form::Plain(format) if core => {
            let host = headers
                .get(HOST)
                .and_then(|h| h.to_str().ok())
                .unwrap_or_default();
            let document = json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}],
            });
            written(&document, format, headers)
        }
        Form::Plain(format) => {
            let groups: Vec<Value> = named_groups(snapshot)
                .map(|(name, versions)| group_object(&name, &versions))
                .collect();
            let document = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups});
            written(&document, format, headers)
        }
    }
}

/// The first of the accepted media types that can be served.
fn form(headers: &HeaderMap) -> Result<Form, ApiError> {
    let accept: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    let accept = accept.join(",");
    if accept.trim().is_empty() {
        return Ok(Form::Plain(Format::Json));
    }
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let format = match media {
            "application/json" | "application/*" | "*/*" => Format::Json,
            "application/yaml" => Format::Yaml,
            _ => continue,
        };
        let parameters: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
        let of = |key: &str| {
            parameters
                .iter()
                .find(|(k, _)| k.trim() == key)
                .map(|(_, v)| v.trim())
        };
        match (of("as"), of("v")) {
            (None, _) => return Ok(Form::Plain(format)),
            _ if format == Format::Yaml => {}
            (Some("APIGroupDiscoveryList"), Some("v2")) => return Ok(Form::Aggregated("v2")),
            _ => {}
        }
    }
    Err(ApiError::NotAcceptable(SERVED.to_owned()))
}

fn named_groups(snapshot: &Snapshot) -> impl Iterator<Item = (String, Vec<String>)> {
    snapshot.groups().into_iter().filter(|(name, _)| !name.is_empty())
}

fn group_object(name: &str, versions: &[String]) -> Value {
    let list: Vec<Value> = versions
        .iter()
        .map(|v| json!({"groupVersion": api_version(name, v), "version": v}))
        .collect();
    json!({"name": name, "versions": list, "preferredVersion": list.first()})
}

fn group(snapshot: &Snapshot, name: &str) -> Option<Value> {
    let (name, versions) = named_groups(snapshot).find(|(n, _)| n == name)?;
    let mut object = group_object(&name, &versions);
    object["kind"] = "APIGroup".into();
    object["apiVersion"] = "v1".into();
    Some(object)
}

fn set_list(map: &mut Map<String, Value>, key: &str, list: &[String]) {
    if !list.is_empty() {
        map.insert(key.to_owned(), json!(list));
    }
}

/// Tells clients whether two resources are stored as one: the beginning of SHA-256 over the stored kind, in base64.
fn storage_version_hash(resource: &Resource) -> String {
    let (group, version) = split_api_version(&resource.storage_api_version);
    // Kubernetes stores these in an older version.
    let version = match (group, resource.kind.as_str()) {
        ("apiextensions.k8s.io", "CustomResourceDefinition")
        | ("admissionregistration.k8s.io", "MutatingAdmissionPolicy" | "MutatingAdmissionPolicyBinding") => {
            "v1beta1"
        }
        _ => version,
    };
    let stored = format!("{group}/{version}/{}", resource.kind);
    let digest = ring::digest::digest(&ring::digest::SHA256, stored.as_bytes());
    STANDARD.encode(&digest.as_ref()[..8])
}

fn api_resources(resource: &Resource) -> Vec<Value> {
    let mut main = Map::new();
    main.insert("name".into(), resource.plural.as_str().into());
    main.insert("singularName".into(), resource.singular.as_str().into());
    main.insert("namespaced".into(), resource.namespaced.into());
    main.insert("kind".into(), resource.kind.as_str().into());
    main.insert("verbs".into(), json!(resource.verbs));
    set_list(&mut main, "shortNames", &resource.short_names);
    set_list(&mut main, "categories", &resource.categories);
    if resource.has_verb("watch") {
        main.insert("storageVersionHash".into(), storage_version_hash(resource).into());
    }
    let mut out = vec![Value::Object(main)];
    for sub in &resource.subresources {
        let mut entry = json!({
            "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
            "namespaced": resource.namespaced, "kind": sub.kind, "verbs": sub.verbs,
        });
        if (&sub.group, &sub.version) != (&resource.group, &resource.version) {
            entry["group"] = sub.group.as_str().into();
            entry["version"] = sub.version.as_str().into();
        }
        out.push(entry);
    }
    out
}

fn resources(snapshot: &Snapshot, group: &str, version: &str) -> Option<Value> {
    let mut found: Vec<&std::sync::Arc<Resource>> = snapshot.in_version(group, version).collect();
    if found.is_empty() {
        return None;
    }
    found.sort_by(|a, b| a.plural.cmp(&b.plural));
    let list: Vec<Value> = found.into_iter().flat_map(|r| api_resources(r)).collect();
    let mut out = json!({
        "kind": "APIResourceList", "groupVersion": api_version(group, version), "resources": list,
    });
    // Of the core alone kube-apiserver does not say it.
    if !group.is_empty() {
        out["apiVersion"] = "v1".into();
    }
    Some(out)
}

fn discovered(resource: &Resource) -> Value {
    let kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut out = Map::new();
    out.insert("resource".into(), resource.plural.as_str().into());
    out.insert(
        "responseKind".into(),
        kind(&resource.group, &resource.version, &resource.kind),
    );
    out.insert(
        "scope".into(),
        if resource.namespaced {
            "Namespaced"
        } else {
            "Cluster"
        }
        .into(),
    );
    out.insert("singularResource".into(), resource.singular.as_str().into());
    out.insert("verbs".into(), json!(resource.verbs));
    set_list(&mut out, "shortNames", &resource.short_names);
    set_list(&mut out, "categories", &resource.categories);
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|s| {
            json!({
                "subresource": s.name, "responseKind": kind(&s.group, &s.version, &s.kind), "verbs": s.verbs,
            })
        })
        .collect();
    if !subresources.is_empty() {
        out.insert("subresources".into(), subresources.into());
    }
    Value::Object(out)
}

fn aggregated(snapshot: &Snapshot, version: &str, core: bool) -> Value {
    let items: Vec<Value> = snapshot
        .groups()
        .into_iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|v| {
                    let list: Vec<Value> = snapshot.in_version(&name, v).map(|r| discovered(r)).collect();
                    json!({"version": v, "resources": list, "freshness": "Current"})
                })
                .collect();
            let metadata = if core { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    })
}

/// A document with its ETag, or 304 when the client has it already.
fn answer(document: &Value, content_type: &str, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    tagged(Bytes::from(document.to_string()), content_type, headers)
}

/// As [`answer`], for bytes that are made already.
pub(super) fn tagged(
    bytes: Bytes,
    content_type: &str,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let tag = format!("\"{:016X}\"", hasher.finish());
    let known = headers
        .get(IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|t| t.contains(&tag));
    let (code, bytes) = if known {
        (StatusCode::NOT_MODIFIED, Bytes::new())
    } else {
        (StatusCode::OK, bytes)
    };
    Response::builder()
        .status(code)
        .header(CONTENT_TYPE, content_type)
        .header(ETAG, tag)
        .header(VARY, "Accept")
        .body(Body::full(bytes))
        .map_err(|e| ApiError::Internal(e.to_string()))
}

#[cfg(test)]
mod tests;
