//! GET and LIST: stored bytes go out as they are wherever nothing has to be left out or turned over.

use super::negotiate::{Format, Shape};
use super::params::{ListOptions, Match, parse_revision};
use super::respond::{self, Body};
use super::rules::builtin_fields;
use super::selector::{FieldSelector, LabelSelector};
use super::table;
pub use super::view::View;
use super::{Api, Call, key, too_large};
use crate::ApiError;
use crate::registry::Resource;
use crate::store::{Entry, Page, Range, StoreError};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine as _, alphabet};
use bytes::{Bytes, BytesMut};
use http::Response;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How long a revision that has not happened yet is waited for, as kube-apiserver's cache does.
const AWAITED: Duration = Duration::from_secs(3);

/// Waits a moment for a revision that has not happened yet.
pub async fn reach(api: &Api, revision: u64) {
    let current = api.store.revision();
    let Ok(mut changes) = api.store.watch_all(current) else {
        return;
    };
    let reached = async { while api.store.revision() < revision && changes.next().await.is_ok() {} };
    // Not in time: who asks is told so.
    let _ = tokio::time::timeout(AWAITED, reached).await;
}

/// Waits for the revision a request names. What names none is refused elsewhere.
async fn reach_asked(api: &Api, call: &Call<'_>) {
    if let Ok(revision) = parse_revision(call.query.text("resourceVersion"))
        && revision > api.store.revision()
    {
        reach(api, revision).await;
    }
}

/// What a list or watch lets through.
#[derive(Debug, Clone)]
pub struct Filter {
    labels: LabelSelector,
    fields: FieldSelector,
    view: View,
}

impl Filter {
    /// Parses and checks both selectors.
    pub fn new(view: &View, options: &ListOptions) -> Result<Self, ApiError> {
        let labels = LabelSelector::parse(&options.label_selector)?;
        let fields = FieldSelector::parse(&options.field_selector)?;
        for field in fields.fields() {
            check_field(&view.resource, field)?;
        }
        Ok(Self {
            labels,
            fields,
            view: view.clone(),
        })
    }

    /// Everything passes.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that passes, when a field selector says so.
    pub fn single_name(&self) -> Option<&str> {
        self.fields.required("metadata.name")
    }

    /// Whether an object passes.
    pub fn matches(&self, entry: &Entry) -> bool {
        if !self.fields.matches_key(&entry.key.namespace, &entry.key.name) {
            return false;
        }
        if !self.labels.is_empty() {
            let labels = entry.labels();
            let get = |key: &str| labels.iter().find(|(k, _)| &**k == key).map(|(_, v)| &**v);
            if !self.labels.matches(get) {
                return false;
            }
        }
        self.fields.is_metadata_only() || self.fields.matches(&self.view.value(&entry.json))
    }
}

fn check_field(r: &Resource, field: &str) -> Result<(), ApiError> {
    let known = match field {
        "metadata.name" => true,
        // Nothing of a cluster-scoped kind is in a namespace; only a custom one says so.
        "metadata.namespace" => {
            r.namespaced || (r.custom.is_none() && builtin_fields(&r.group, &r.plural).is_empty())
        }
        _ => match &r.custom {
            Some(custom) => custom
                .selectable
                .iter()
                .any(|s| s.trim_start_matches('.') == field),
            None => builtin_fields(&r.group, &r.plural).contains(&field),
        },
    };
    if known {
        return Ok(());
    }
    if (r.group.as_str(), r.plural.as_str()) == ("batch", "jobs") {
        return Err(ApiError::BadRequest(format!(
            "field label {field:?} not supported for Job"
        )));
    }
    let plain = r.custom.is_none() && builtin_fields(&r.group, &r.plural).is_empty();
    Err(ApiError::BadRequest(if plain {
        format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {field}")
    }))
}

/// GET of one object.
pub async fn get(api: &Api, call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let view = View::of(call)?;
    reach_asked(api, call).await;
    let version = call.query.text("resourceVersion");
    if !version.is_empty() {
        let wanted = parse_revision(version).map_err(ApiError::Plain)?;
        let current = api.store.revision();
        if wanted > current {
            return Err(too_large(wanted, current));
        }
    }
    let entry = api
        .store
        .get(&key(&call.resource, &call.info.namespace, &call.info.name))
        .ok_or_else(|| ApiError::NotFound(call.subject()))?;
    view.check_shape(false)?;
    let shown = view.object(&entry.json, entry.revision);
    Ok(respond::stored(200, shown, view.accept.format))
}

/// Go's `base64.RawURLEncoding`: no padding, loose trailing bits are not looked at.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The token of a next page (the shape kube-apiserver's has: revision and the last key given).
fn continue_token(revision: u64, last: &Entry) -> String {
    token(&revision.into(), &last.key.namespace, &last.key.name)
}

fn token(revision: &Value, namespace: &str, name: &str) -> String {
    let start = format!("{namespace}/{name}");
    BASE64.encode(json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start}).to_string())
}

/// The revision a token's page is of and what it comes after; without a revision it is of whatever is there now.
fn read_token(token: &str) -> Result<(Option<u64>, (String, String)), ApiError> {
    let bad = |why: String| {
        ApiError::BadRequest(format!(
            "invalid continue token: continue key is not valid: {why}"
        ))
    };
    let bytes = BASE64.decode(token).map_err(|e| {
        let at = match e {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            // The last one is no whole byte.
            DecodeError::InvalidLength(length) => length.saturating_sub(1),
            DecodeError::InvalidPadding => token.len(),
        };
        bad(format!("illegal base64 data at input byte {at}"))
    })?;
    let value = super::body::parse_json(&bytes).map_err(bad)?.value;
    let version = value["v"].as_str().unwrap_or_default();
    if version != "meta.k8s.io/v1" {
        return Err(bad(format!(
            "server does not recognize this encoded version {version}"
        )));
    }
    let revision = value["rv"]
        .as_i64()
        .filter(|revision| *revision != 0)
        .ok_or_else(|| bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()))?;
    let (namespace, name) = value["start"]
        .as_str()
        .and_then(|s| s.split_once('/'))
        .ok_or_else(|| bad("incorrect encoded start key (version meta.k8s.io/v1)".into()))?;
    Ok((
        u64::try_from(revision).ok(),
        (namespace.to_owned(), name.to_owned()),
    ))
}

const TOKEN_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a \
     new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
     results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
     deleted between the time the first chunk was returned and now may show up in the list.";
const LIST_EXPIRED: &str = "The resourceVersion for the provided list is too old.";

/// The 410 of a list or page that is no more; of a page, with a token that goes on from there in what is there now.
fn expired(after: Option<&(String, String)>) -> ApiError {
    let Some((namespace, name)) = after else {
        return ApiError::Expired(LIST_EXPIRED.into());
    };
    let mut status = ApiError::Expired(TOKEN_EXPIRED.into()).status();
    status["metadata"]["continue"] = token(&(-1).into(), namespace, name).into();
    ApiError::Status(Box::new(status))
}

/// What a list found.
pub struct Found {
    /// Items, filtered.
    pub entries: Vec<Arc<Entry>>,
    /// Revision shown.
    pub revision: u64,
    /// Token of the next page.
    pub next: Option<String>,
    /// Items behind this page, when they need no filter to be counted.
    pub remaining: Option<usize>,
}

/// Lists what options ask for.
pub fn find(api: &Api, filter: &Filter, namespace: &str, options: &ListOptions) -> Result<Found, ApiError> {
    let r = &filter.view.resource;
    let current = api.store.revision();
    let mut range = Range {
        resource: r.storage.to_string(),
        namespace: (!namespace.is_empty() && r.namespaced).then(|| namespace.to_owned()),
        ..Range::default()
    };
    // Any state will do: kube-apiserver gives all of its cache, whatever page is asked for.
    let any = options.resource_version == "0"
        && options.continue_token.is_empty()
        && options.version_match != Some(Match::Exact);
    let options = &if any {
        ListOptions {
            limit: 0,
            ..options.clone()
        }
    } else {
        options.clone()
    };
    if options.continue_token.is_empty() {
        if !options.resource_version.is_empty() {
            let wanted = parse_revision(&options.resource_version)
                .map_err(|e| ApiError::BadRequest(format!("invalid resource version: {e}")))?;
            if wanted > current {
                return Err(too_large(wanted, current));
            }
            // Without a match a page of a list is exact (the meaning from before resourceVersionMatch).
            let exact = options.version_match == Some(Match::Exact)
                || (options.version_match.is_none() && options.limit > 0 && wanted > 0);
            range.at = exact.then_some(wanted);
        }
    } else {
        let (revision, after) = read_token(&options.continue_token)?;
        range.at = revision;
        range.after = Some(after);
    }
    if let (Some(name), Some(ns)) = (filter.single_name(), namespace_of(r, namespace))
        && range.at.is_none()
        && range.after.is_none()
    {
        // The revision is read first: what is found is then at least as new as the answer says.
        let mut revision = api.store.revision();
        let entry = api.store.get(&key(r, ns, name));
        if let Some(entry) = &entry {
            revision = revision.max(entry.revision);
        }
        let entries = entry.into_iter().filter(|e| filter.matches(e)).collect();
        return Ok(Found {
            entries,
            revision,
            next: None,
            remaining: None,
        });
    }
    if filter.is_empty() {
        range.limit = options.limit;
    }
    let Page {
        entries,
        revision,
        remaining,
    } = api.store.list(&range).map_err(|e| match e {
        StoreError::Compacted(_) => expired(range.after.as_ref()),
        StoreError::Future(current) => too_large(range.at.unwrap_or_default(), current),
        other => ApiError::Internal(other.to_string()),
    })?;
    if filter.is_empty() {
        let next = entries
            .last()
            .filter(|_| remaining > 0)
            .map(|last| continue_token(revision, last));
        let remaining = next.is_some().then_some(remaining);
        return Ok(Found {
            entries,
            revision,
            next,
            remaining,
        });
    }
    let mut found = Found {
        entries: Vec::new(),
        revision,
        next: None,
        remaining: None,
    };
    for entry in entries.into_iter().filter(|e| filter.matches(e)) {
        if options.limit > 0 && found.entries.len() == options.limit {
            found.next = found.entries.last().map(|last| continue_token(revision, last));
            break;
        }
        found.entries.push(entry);
    }
    Ok(found)
}

/// The namespace one object of a list is in: `None` when the list spans all.
pub fn namespace_of<'a>(r: &Resource, namespace: &'a str) -> Option<&'a str> {
    if r.namespaced {
        Some(namespace).filter(|n| !n.is_empty())
    } else {
        Some("")
    }
}

/// Collects small pieces into larger ones and passes large ones on uncopied.
#[derive(Default)]
struct Pieces {
    done: VecDeque<Bytes>,
    open: BytesMut,
}

const COPY_BELOW: usize = 8 * 1024;
const PIECE: usize = 64 * 1024;

impl Pieces {
    fn text(&mut self, bytes: &[u8]) {
        self.open.extend_from_slice(bytes);
    }

    fn bytes(&mut self, bytes: Bytes) {
        if bytes.len() < COPY_BELOW {
            self.open.extend_from_slice(&bytes);
            if self.open.len() >= PIECE {
                self.done.push_back(self.open.split().freeze());
            }
        } else {
            if !self.open.is_empty() {
                self.done.push_back(self.open.split().freeze());
            }
            self.done.push_back(bytes);
        }
    }

    fn finish(mut self) -> Body {
        if !self.open.is_empty() {
            self.done.push_back(self.open.freeze());
        }
        Body::Chunks(self.done)
    }
}

fn list_meta(found: &Found, r: &Resource, shape: Shape) -> Value {
    let mut metadata = json!({"resourceVersion": found.revision.to_string()});
    if r.custom.is_some() && shape == Shape::Object {
        // Lists of custom resources are written untyped, and say so where a page ends and where none does.
        metadata["continue"] = "".into();
    }
    if let Some(token) = &found.next {
        metadata["continue"] = token.as_str().into();
    }
    if let Some(n) = found.remaining {
        metadata["remainingItemCount"] = n.into();
    }
    metadata
}

/// The answer to a list.
pub fn list_response(view: &View, found: &Found) -> Response<Body> {
    let r = &view.resource;
    if view.accept.shape == Shape::Table {
        let values: Vec<Value> = found.entries.iter().map(|e| view.value(&e.json)).collect();
        let mut table = table::table(r, &values, view.include);
        table["metadata"] = list_meta(found, r, view.accept.shape);
        return respond::value(200, &view.of_meta_version(table), view.accept.format);
    }
    let (kind, version) = match view.accept.shape {
        Shape::Partial | Shape::PartialList => (
            "PartialObjectMetadataList".to_owned(),
            view.accept.meta_version().to_owned(),
        ),
        _ => (r.list_kind.clone(), r.api_version()),
    };
    let mut pieces = Pieces::default();
    pieces.text(format!("{{\"kind\":{},\"apiVersion\":{},", json!(kind), json!(version)).as_bytes());
    pieces.text(
        format!(
            "\"metadata\":{},\"items\":",
            list_meta(found, r, view.accept.shape)
        )
        .as_bytes(),
    );
    // Go makes this list item by item, so that without one there is none.
    let partial = matches!(view.accept.shape, Shape::Partial | Shape::PartialList);
    let none = found.entries.is_empty() && partial;
    pieces.text(if none { b"null" } else { b"[" });
    for (i, entry) in found.entries.iter().enumerate() {
        if i > 0 {
            pieces.text(b",");
        }
        pieces.bytes(view.item(entry));
    }
    pieces.text(if none { b"}" } else { b"]}" });
    let body = pieces.finish();
    match view.accept.format {
        Format::Json | Format::Protobuf => respond::with_type(200, "application/json", body),
        Format::Yaml => {
            let Body::Chunks(chunks) = body else {
                return respond::text(500, "");
            };
            let whole: Vec<u8> = chunks.iter().flat_map(|b| b.iter().copied()).collect();
            respond::value(
                200,
                &serde_json::from_slice(&whole).unwrap_or_default(),
                Format::Yaml,
            )
        }
    }
}

/// LIST.
pub async fn list(api: &Api, call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let view = View::of(call)?;
    let options = ListOptions::parse(call.query, false)?;
    let filter = Filter::new(&view, &options)?;
    reach_asked(api, call).await;
    let found = find(api, &filter, &call.info.namespace, &options)?;
    view.check_shape(true)?;
    Ok(list_response(&view, &found))
}
