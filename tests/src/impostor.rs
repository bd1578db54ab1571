//! A server in the hub's place, with the hub's own certificates, that says the wrong thing to everybody: what a hub's load
//! balancer, a restored hub or a broken one may answer for a while.

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use muster_apiserver::pki::Ca;
use muster_apiserver::serve::{self, Limits, Tls};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What an impostor answers to everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This HTTP status, with a Status of that code and reason; 429 asks to come again after a second.
    Refuse(u16, &'static str),
    /// Lists are empty, watches are silent, nothing else exists.
    Nothing,
}

/// An impostor that runs. Ends with the value.
#[derive(Debug)]
pub struct Impostor {
    asked: Arc<AtomicUsize>,
    wrote: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

type Chunks = std::pin::Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

impl Impostor {
    /// Takes the place of the server that listened at `address` with the CA of `data_dir`.
    pub async fn start(address: SocketAddr, data_dir: &Path, answer: Answer) -> anyhow::Result<Self> {
        let ca = Ca::load_or_create(Some(&data_dir.join("pki")), jiff::Timestamp::now())?;
        let tls = Tls::new(&ca, &[address.ip().to_string()])?;
        let listener = serve::listen(address).await?;
        let asked = Arc::new(AtomicUsize::new(0));
        let wrote = Arc::new(AtomicUsize::new(0));
        let (counter, writes) = (asked.clone(), wrote.clone());
        let service = tower::service_fn(move |request: Request<Incoming>| {
            if request.uri().path().ends_with("/manifestworks") {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            if request.uri().path().contains("/manifestworks/") && request.method() != http::Method::GET {
                writes.fetch_add(1, Ordering::Relaxed);
            }
            std::future::ready(Ok::<_, Infallible>(respond(&request, answer)))
        });
        let stop = CancellationToken::new();
        let limits = Limits {
            drain: std::time::Duration::ZERO,
            ..Limits::default()
        };
        let task = tokio::spawn(serve::serve(listener, tls, service, limits, stop.clone()));
        Ok(Self {
            asked,
            wrote,
            stop,
            task,
        })
    }

    /// How often somebody asked for works.
    pub fn asked_for_works(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// How often somebody wanted to write a work or its status.
    pub fn wanted_to_write_works(&self) -> usize {
        self.wrote.load(Ordering::Relaxed)
    }

    /// Leaves the place.
    pub async fn stop(self) {
        self.stop.cancel();
        // It only ends as it is told.
        let _ = self.task.await;
    }
}

fn respond(request: &Request<Incoming>, answer: Answer) -> Response<StreamBody<Chunks>> {
    let query = request.uri().query().unwrap_or_default();
    let (code, body) = match answer {
        Answer::Refuse(code, reason) => (code, Some(status(code, reason))),
        Answer::Nothing if query.contains("watch=") => (200, None),
        Answer::Nothing if is_collection(request.uri().path()) && request.method() == http::Method::GET => {
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []});
            (200, Some(list))
        }
        Answer::Nothing => (404, Some(status(404, "NotFound"))),
    };
    let chunks: Chunks = match body {
        Some(body) => futures::stream::iter([Ok(Frame::data(Bytes::from(body.to_string())))]).boxed(),
        None => futures::stream::pending().boxed(),
    };
    let mut response = Response::new(StreamBody::new(chunks));
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    if code == 429 {
        let second = http::HeaderValue::from_static("1");
        response.headers_mut().insert(http::header::RETRY_AFTER, second);
    }
    response
}

/// `/apis/g/v/plural` or `/apis/g/v/namespaces/ns/plural`, and the same under `/api/v1`.
fn is_collection(path: &str) -> bool {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let skipped = if parts.first() == Some(&"api") { 2 } else { 3 };
    matches!(parts.get(skipped..), Some([_] | ["namespaces", _, _]))
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": format!("an impostor says {reason}")})
}
