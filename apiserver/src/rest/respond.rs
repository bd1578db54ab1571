//! Answers: a body that shares stored bytes instead of copying them, and the shapes of it.

use super::negotiate::Format;
use crate::ApiError;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Body of an answer.
pub enum Body {
    /// Pieces that are all there.
    Chunks(VecDeque<Bytes>),
    /// Pieces that come as they happen.
    Stream(BoxStream<'static, Bytes>),
}

impl Body {
    /// A body of one piece.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Chunks(VecDeque::from([bytes.into()]))
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chunks(chunks) => write!(f, "Body({} chunks)", chunks.len()),
            Self::Stream(_) => f.write_str("Body(stream)"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Chunks(chunks) => Poll::Ready(chunks.pop_front().map(|b| Ok(Frame::data(b)))),
            Self::Stream(stream) => stream
                .as_mut()
                .poll_next(cx)
                .map(|b| b.map(|b| Ok(Frame::data(b)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Chunks(chunks) if chunks.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Chunks(chunks) => SizeHint::with_exact(chunks.iter().map(|b| b.len() as u64).sum()),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// An answer with a status, a media type and a body.
pub fn with_type(code: u16, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

/// Bytes of JSON as they are.
pub fn json_bytes(code: u16, bytes: impl Into<Bytes>) -> Response<Body> {
    with_type(code, "application/json", Body::full(bytes))
}

/// A value in the format asked for.
pub fn value(code: u16, value: &Value, format: Format) -> Response<Body> {
    match format {
        Format::Json | Format::Protobuf => json_bytes(code, to_bytes(value)),
        Format::Yaml => with_type(code, "application/yaml", Body::full(to_yaml(value))),
    }
}

/// Serialises a value; a `Value` always can be.
pub fn to_bytes(value: &Value) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

/// Writes a value as YAML.
pub fn to_yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}

/// Stored JSON in the format asked for.
pub fn stored(code: u16, json: Bytes, format: Format) -> Response<Body> {
    match format {
        Format::Json | Format::Protobuf => json_bytes(code, json),
        Format::Yaml => value(code, &serde_json::from_slice(&json).unwrap_or_default(), format),
    }
}

/// Plain text.
pub fn text(code: u16, text: impl Into<Bytes>) -> Response<Body> {
    with_type(code, "text/plain; charset=utf-8", Body::full(text))
}

/// The 404 of a path that belongs to nothing.
pub fn no_such_path() -> Response<Body> {
    text(404, "404 page not found\n")
}

/// An error as its `metav1.Status`.
pub fn error(error: &ApiError, format: Format) -> Response<Body> {
    let mut response = value(error.code(), &error.status(), format);
    if let ApiError::Status(status) = error
        && let Some(seconds) = status["details"]["retryAfterSeconds"].as_u64()
    {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if let ApiError::TooManyRequests { retry_after, .. } = error {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, retry_after.as_secs().max(1).into());
    }
    response
}

/// Adds `Warning` headers before those that are there.
pub fn warn_first(response: &mut Response<Body>, warnings: &[String]) {
    if warnings.is_empty() {
        return;
    }
    let later: Vec<HeaderValue> = response
        .headers()
        .get_all(header::WARNING)
        .iter()
        .cloned()
        .collect();
    response.headers_mut().remove(header::WARNING);
    warn(response, warnings);
    for warning in later {
        response.headers_mut().append(header::WARNING, warning);
    }
}

/// Adds a `Warning` header for each text.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let text: String = warning
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if let Ok(v) = HeaderValue::from_str(&format!("299 - {text:?}")) {
            response.headers_mut().append(header::WARNING, v);
        }
    }
}
