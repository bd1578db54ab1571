//! OpenAPI documents: `/openapi/v3` (an index, and one document a group version) and `/openapi/v2`, as JSON and as the
//! protobuf that kubectl asks for. Enough for `kubectl explain`, its validation, and clients that merge by schema; made
//! when first asked for.

mod gnostic;
mod swagger;

use super::delete;
use super::discovery::{self, VERSION};
use super::respond::Body;
use crate::error::ApiError;
use crate::registry::{Registry, Resource, Snapshot};
use crate::schema::{builtin, openapi};
use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const COMPONENTS: &str = "#/components/schemas/";
const JSON: &str = "application/json";
const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The name that clients ask by: it is no well-formed media type, so nothing answers with it.
const GNOSTIC_BEFORE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The answer to an OpenAPI path; `None` when the path is not one.
pub fn serve(
    registry: &Registry,
    path: &str,
    headers: &HeaderMap,
) -> Option<Result<Response<Body>, ApiError>> {
    let path = path.trim_end_matches('/');
    let snapshot = registry.snapshot();
    if path == "/openapi/v3" {
        let index = index(&snapshot);
        // JSON, under the type kube-apiserver calls it by.
        return Some(discovery::tagged(
            Bytes::from(index.to_string()),
            "text/plain; charset=utf-8",
            headers,
        ));
    }
    if path == "/openapi/v2" {
        let Some(form) = second_form(headers) else {
            return Some(Ok(empty(StatusCode::NOT_ACCEPTABLE)));
        };
        let key = format!("{path} {form}");
        let bytes = registry.document(&key, &snapshot.generation.to_string(), || {
            let document = swagger::document(&snapshot);
            if form == GNOSTIC {
                gnostic::encode(&document).into()
            } else {
                document.to_string().into()
            }
        });
        return Some(discovery::tagged(bytes, form, headers));
    }
    let name = path.strip_prefix("/openapi/v3/")?;
    let (group, version) = match name.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => (String::new(), (*version).to_owned()),
        ["apis", group, version] => ((*group).to_owned(), (*version).to_owned()),
        _ => return None,
    };
    if snapshot.in_version(&group, &version).next().is_none() {
        return Some(Ok(empty(StatusCode::NOT_FOUND)));
    }
    let hash = hash(&snapshot, &group, &version);
    let bytes = registry.document(path, &hash, || {
        document(&snapshot, &group, &version).to_string().into()
    });
    Some(discovery::tagged(bytes, JSON, headers))
}

/// Which form of `/openapi/v2` a client wants: the first that it names and that there is.
fn second_form(headers: &HeaderMap) -> Option<&'static str> {
    let header = headers
        .get(ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if header.trim().is_empty() {
        return Some(JSON);
    }
    header.split(',').find_map(|clause| {
        let media = clause.split(';').next().unwrap_or_default().trim();
        match media {
            JSON | "application/*" | "*/*" => Some(JSON),
            GNOSTIC | GNOSTIC_BEFORE => Some(GNOSTIC),
            _ => None,
        }
    })
}

fn empty(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::new()));
    *response.status_mut() = code;
    response
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// Changes when what is served in the group version changes.
fn hash(snapshot: &Snapshot, group: &str, version: &str) -> String {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    for resource in snapshot.in_version(group, version) {
        (
            &resource.plural,
            &resource.kind,
            resource.namespaced,
            &resource.subresources.len(),
        )
            .hash(&mut hasher);
        if let Some(custom) = &resource.custom {
            custom.openapi_digest.hash(&mut hasher);
        }
    }
    format!("{:016X}", hasher.finish())
}

fn index(snapshot: &Snapshot) -> Value {
    let mut paths = Map::new();
    for (group, versions) in snapshot.groups() {
        for version in versions {
            let root = root(&group, &version);
            let url = format!("/openapi/v3/{root}?hash={}", hash(snapshot, &group, &version));
            paths.insert(root, json!({"serverRelativeURL": url}));
        }
    }
    json!({ "paths": paths })
}

fn reversed(group: &str) -> String {
    group.split('.').rev().collect::<Vec<_>>().join(".")
}

/// Name of a custom kind's component, like `io.x.v1.Gadget`.
fn component(resource: &Resource, kind: &str) -> String {
    format!("{}.{}.{kind}", reversed(&resource.group), resource.version)
}

/// Components of one group version and the name of each resource's kind and list among them.
fn schemas(snapshot: &Snapshot, group: &str, version: &str) -> Map<String, Value> {
    let mut names: BTreeSet<&'static str> = BTreeSet::new();
    let mut custom = Map::new();
    let mut add = |group: &str, version: &str, kind: &str| {
        names.extend(builtin::name_of(group, version, kind));
    };
    for resource in snapshot.in_version(group, version) {
        for sub in &resource.subresources {
            add(&sub.group, &sub.version, &sub.kind);
        }
        if let Some(own) = &resource.custom {
            let item = component(resource, &resource.kind);
            let schema = openapi::custom_kind(&own.schema, group, version, &resource.kind);
            let list = openapi::custom_list(&item, group, version, &resource.list_kind);
            custom.insert(item, schema);
            custom.insert(component(resource, &resource.list_kind), list);
        } else {
            add(group, version, &resource.kind);
            add(group, version, &resource.list_kind);
        }
    }
    let common = ["ObjectMeta", "ListMeta", "Status", "DeleteOptions", "WatchEvent"];
    for kind in common {
        let name = format!("{META}.{kind}");
        names.extend(builtin::names().find(|n| **n == *name));
    }
    let mut out = openapi::components(names);
    out.extend(custom);
    out
}

fn reference(resource: &Resource, group: &str, version: &str, kind: &str) -> Value {
    let name = if resource.is_custom() && (group, version) == (&*resource.group, &*resource.version) {
        Some(component(resource, kind))
    } else {
        builtin::name_of(group, version, kind).map(str::to_owned)
    };
    name.map_or_else(
        || json!({"type": "object"}),
        |n| json!({"$ref": format!("{COMPONENTS}{n}")}),
    )
}

fn parameter(name: &str, place: &str, kind: &str) -> Value {
    json!({"name": name, "in": place, "required": place == "path", "schema": {"type": kind}})
}

/// Letters and digits of a text, the first of each part a capital: what generated clients call things by.
fn joined(text: &str) -> String {
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric());
    parts.map(capital).collect()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The group of a resource in the names of operations.
fn short_group(group: &str) -> &str {
    match group {
        "" => "core",
        group => group.strip_suffix(".k8s.io").unwrap_or(group),
    }
}

/// What an operation is called: unique in all documents, and the same as at every API server.
fn operation_id(resource: &Resource, verb: &str, place: &str) -> String {
    let (word, many) = match verb {
        "update" => ("replace", ""),
        "get" => ("read", ""),
        "deletecollection" => ("delete", "Collection"),
        other => (other, ""),
    };
    let group = joined(short_group(&resource.group));
    let namespaced = if resource.namespaced && place != EVERYWHERE {
        "Namespaced"
    } else {
        ""
    };
    let (version, kind, place) = (joined(&resource.version), &resource.kind, joined(place));
    format!("{word}{group}{version}{many}{namespaced}{kind}{place}")
}

/// At the end of the name of an operation on objects of all namespaces.
const EVERYWHERE: &str = "ForAllNamespaces";

/// One operation: what it acts on, what it takes and what it answers with.
fn operation(resource: &Resource, action: &str, verb: &str, kind: (&str, &str, &str), place: &str) -> Value {
    let (group, version, name) = kind;
    let list = action == "list";
    let object = reference(resource, group, version, name);
    let answered = match action {
        "list" => reference(resource, group, version, &resource.list_kind),
        "deletecollection" => json!({"$ref": format!("{COMPONENTS}{META}.Status")}),
        "delete" if !delete::returns_object(resource) => {
            json!({"$ref": format!("{COMPONENTS}{META}.Status")})
        }
        _ => object.clone(),
    };
    let content = |schema: &Value| json!({"application/json": {"schema": schema}});
    let also: &[(&str, &str)] = match action {
        "create" => &[("201", "Created"), ("202", "Accepted")],
        "update" | "patch" => &[("201", "Created")],
        "delete" => &[("202", "Accepted")],
        _ => &[],
    };
    let mut responses = Map::new();
    for (code, text) in [("200", "OK")].iter().chain(also) {
        responses.insert(
            (*code).to_owned(),
            json!({"description": text, "content": content(&answered)}),
        );
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    let shown = match action {
        "list" | "deletecollection" => action,
        _ => verb,
    };
    let mut tag = joined(short_group(&resource.group));
    if let Some(first) = tag.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    let mut out = json!({
        "operationId": operation_id(resource, action, place),
        "tags": [format!("{tag}_{}", resource.version)],
        "x-kubernetes-action": shown,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": name},
        "responses": responses,
    });
    let mut parameters = Vec::new();
    if matches!(verb, "post" | "put" | "patch") {
        parameters
            .extend(["dryRun", "fieldManager", "fieldValidation"].map(|p| parameter(p, "query", "string")));
    }
    match verb {
        "post" | "put" => out["requestBody"] = json!({"required": true, "content": content(&object)}),
        "patch" => {
            parameters.push(parameter("force", "query", "boolean"));
            let mut types = Map::new();
            let plain = json!({"schema": {"type": "object"}});
            for media in [
                "apply-patch+yaml",
                "json-patch+json",
                "merge-patch+json",
                "strategic-merge-patch+json",
            ] {
                if !(resource.is_custom() && media.starts_with("strategic")) {
                    types.insert(format!("application/{media}"), plain.clone());
                }
            }
            out["requestBody"] = json!({"required": true, "content": types});
        }
        "delete" => parameters.push(parameter("dryRun", "query", "string")),
        _ if list => parameters.extend(
            ["labelSelector", "fieldSelector", "resourceVersion", "continue"]
                .map(|p| parameter(p, "query", "string"))
                .into_iter()
                .chain(["limit", "timeoutSeconds"].map(|p| parameter(p, "query", "integer")))
                .chain([parameter("watch", "query", "boolean")]),
        ),
        _ => {}
    }
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    out
}

fn add_paths(paths: &mut Map<String, Value>, resource: &Resource) {
    let base = format!("/{}", root(&resource.group, &resource.version));
    let scoped = if resource.namespaced {
        format!("{base}/namespaces/{{namespace}}")
    } else {
        base.clone()
    };
    let place = |named: bool| {
        let mut list = Vec::new();
        if named {
            list.push(parameter("name", "path", "string"));
        }
        if resource.namespaced {
            list.push(parameter("namespace", "path", "string"));
        }
        list
    };
    let kind = resource.gvk();
    let methods = |verbs: &[String], wanted: &[(&str, &str)], kind: (&str, &str, &str), place: &str| {
        let mut item = Map::new();
        for (verb, method) in wanted {
            if verbs.iter().any(|v| v == verb) {
                item.insert(
                    (*method).to_owned(),
                    operation(resource, verb, method, kind, place),
                );
            }
        }
        item
    };
    let mut insert = |path: String, mut item: Map<String, Value>, named: bool| {
        if item.is_empty() {
            return;
        }
        let parameters = place(named);
        if !parameters.is_empty() {
            item.insert("parameters".to_owned(), parameters.into());
        }
        paths.insert(path, Value::Object(item));
    };
    let plural = &resource.plural;
    let collection = [
        ("list", "get"),
        ("create", "post"),
        ("deletecollection", "delete"),
    ];
    let one = [
        ("get", "get"),
        ("update", "put"),
        ("patch", "patch"),
        ("delete", "delete"),
    ];
    insert(
        format!("{scoped}/{plural}"),
        methods(&resource.verbs, &collection, kind, ""),
        false,
    );
    insert(
        format!("{scoped}/{plural}/{{name}}"),
        methods(&resource.verbs, &one, kind, ""),
        true,
    );
    for sub in &resource.subresources {
        let kind = (sub.group.as_str(), sub.version.as_str(), sub.kind.as_str());
        let all = [
            ("get", "get"),
            ("update", "put"),
            ("patch", "patch"),
            ("create", "post"),
        ];
        insert(
            format!("{scoped}/{plural}/{{name}}/{}", sub.name),
            methods(&sub.verbs, &all, kind, &sub.name),
            true,
        );
    }
    if resource.namespaced {
        let item = methods(&resource.verbs, &[("list", "get")], kind, EVERYWHERE);
        if !item.is_empty() {
            paths.insert(format!("{base}/{plural}"), Value::Object(item));
        }
    }
}

fn paths(snapshot: &Snapshot, group: &str, version: &str) -> Map<String, Value> {
    let mut paths = Map::new();
    for resource in snapshot.in_version(group, version) {
        add_paths(&mut paths, resource);
    }
    paths
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": VERSION})
}

fn document(snapshot: &Snapshot, group: &str, version: &str) -> Value {
    json!({
        "openapi": "3.0.0", "info": info(), "paths": paths(snapshot, group, version),
        "components": {"schemas": schemas(snapshot, group, version)},
    })
}

#[cfg(test)]
mod tests;
