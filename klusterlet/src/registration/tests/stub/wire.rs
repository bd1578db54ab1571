//! What the server in memory reads of requests, and what it sends.

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;

pub type Body = BoxBody<Bytes, Infallible>;
pub type Answer = http::Response<Body>;

pub fn body(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).boxed()
}

pub fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let value = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message});
    (code, value)
}

/// Collection path, name and subresource of a request path.
pub fn parse(path: &str) -> (String, Option<String>, Option<String>) {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let root = if parts[0] == "api" { 2 } else { 3 };
    let rest = &parts[root.min(parts.len())..];
    let namespaced = rest.len() >= 3 && rest[0] == "namespaces" && rest[2] != "status";
    let width = root + if namespaced { 3 } else { 1 };
    let collection = format!("/{}", parts[..width.min(parts.len())].join("/"));
    let part = |i: usize| parts.get(i).map(|s| (*s).to_owned());
    (collection, part(width), part(width + 1))
}

/// Whether a listed path belongs to a collection, also that of all namespaces.
pub fn within(key: &str, collection: &str) -> bool {
    let (of, _, _) = parse(key);
    let plural = |c: &str| c.rsplit('/').next().unwrap_or_default().to_owned();
    of == collection
        || (!collection.contains("/namespaces/")
            && of.contains("/namespaces/")
            && plural(&of) == plural(collection)
            && of.split("/namespaces/").next() == collection.rsplit_once('/').map(|(c, _)| c))
}

/// What comes in the course of time. A body must be `Sync`; a channel's end is.
pub fn streamed<S>(frames: S) -> Answer
where
    S: futures::Stream<Item = Result<http_body::Frame<Bytes>, Infallible>> + Send + 'static,
{
    let (to, from) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut body = Box::pin(StreamBody::new(frames));
        while let Some(frame) = body.frame().await {
            if to.send(frame).is_err() {
                return;
            }
        }
    });
    let stream = futures::stream::unfold(
        from,
        |mut from| async move { from.recv().await.map(|f| (f, from)) },
    );
    http::Response::new(StreamBody::new(SyncStream(Mutex::new(Box::pin(stream)))).boxed())
}

struct SyncStream(Mutex<futures::stream::BoxStream<'static, Result<http_body::Frame<Bytes>, Infallible>>>);

impl futures::Stream for SyncStream {
    type Item = Result<http_body::Frame<Bytes>, std::convert::Infallible>;
    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.lock().unwrap().as_mut().poll_next(cx)
    }
}

pub fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'%' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&hex, 16).unwrap());
            }
            b'+' => out.push(b' '),
            b => out.push(b),
        }
    }
    String::from_utf8(out).unwrap()
}

pub fn selected(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let labels = query.get("labelSelector").map_or("", String::as_str);
    let fields = query.get("fieldSelector").map_or("", String::as_str);
    let label = |key: &str| object["metadata"]["labels"][key].as_str();
    let labels_match =
        labels
            .split(',')
            .filter(|l| !l.is_empty())
            .all(|l| match (l.strip_prefix('!'), l.split_once('=')) {
                (Some(key), _) => label(key).is_none(),
                (None, Some((key, value))) => label(key) == Some(value.trim_start_matches('=')),
                (None, None) => label(l).is_some(),
            });
    let fields_match = fields.split(',').filter(|f| !f.is_empty()).all(|f| {
        let (key, value) = f.split_once('=').unwrap();
        assert_eq!(key, "metadata.name");
        object["metadata"]["name"].as_str() == Some(value.trim_start_matches('='))
    });
    labels_match && fields_match
}
