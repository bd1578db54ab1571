//! What goes wrong between a client and its API server: refusals, answers that are lost after the write took effect,
//! watches that break off, and a link that is cut. What happens to a request follows from the seed, the request and how
//! often it was made, so that the order in which concurrent requests come changes nothing.

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>>;

/// The faults of one link. Shared by all clients made with it.
#[derive(Debug)]
pub struct Faults {
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of 1000 requests, so many go wrong.
    rate: u64,
    made: HashMap<u64, u64>,
    cut: bool,
    /// Cancelled when the link is cut.
    whole: CancellationToken,
    writes: u64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    /// The server says this instead.
    Refused(u16, &'static str),
    /// It takes effect, and nobody hears of it.
    Unheard,
    /// It never arrives.
    Lost,
    /// A watch that ends after so many pieces, in an error or without a word.
    Breaks(usize, bool),
}

impl Faults {
    /// None yet.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            seed,
            state: Mutex::default(),
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on, so many of 1000 requests go wrong.
    pub fn rate(&self, rate: u64) {
        self.with(|s| s.rate = rate);
    }

    /// Cuts the link: what is under way ends in an error, what comes does too.
    pub fn cut(&self) {
        self.with(|s| {
            s.cut = true;
            std::mem::take(&mut s.whole).cancel();
        });
    }

    /// Heals the link, and nothing goes wrong any more.
    pub fn heal(&self) {
        self.with(|s| {
            s.cut = false;
            s.rate = 0;
        });
    }

    /// How many writing requests have come through so far.
    pub fn writes(&self) -> u64 {
        self.with(|s| s.writes)
    }

    /// The same client, with faults.
    pub fn between(self: &Arc<Self>, client: &Client) -> Client {
        let (faults, client) = (self.clone(), client.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (faults, client) = (faults.clone(), client.clone());
            async move { faults.pass(client, request).await }
        });
        Client::new(service, "default")
    }

    async fn pass(&self, client: Client, request: Request<Body>) -> Result<Answer, BoxError> {
        let (whole, cut) = self.with(|s| (s.whole.clone(), s.cut));
        if cut {
            return Err("the link is cut".into());
        }
        let fate = self.fate(&request);
        let writes = request.method() != Method::GET;
        match fate {
            Fate::Refused(code, reason) => return Ok(refusal(code, reason)),
            Fate::Lost => return Err("the request is lost".into()),
            _ => {}
        }
        // A task of its own: a request that has left takes effect whether or not somebody waits for the answer.
        let mut sent = tokio::spawn(async move { client.send(request).await });
        let answer = tokio::select! {
            answer = &mut sent => answer??,
            () = whole.cancelled() => return Err("the link is cut".into()),
        };
        if writes && answer.status().is_success() {
            self.with(|s| s.writes += 1);
        }
        if fate == Fate::Unheard {
            return Err("the answer is lost".into());
        }
        let (parts, body) = answer.into_parts();
        let (pieces, loud) = match fate {
            Fate::Breaks(pieces, loud) => (pieces, loud),
            _ => (usize::MAX, true),
        };
        let frames = BodyStream::new(body).map(|frame| frame.map_err(BoxError::from));
        let broken = async move { whole.cancelled().await };
        let cut =
            futures::stream::once(broken).map(|()| Err::<Frame<Bytes>, BoxError>("the link is cut".into()));
        let frames = Interrupted {
            frames: frames.boxed(),
            cut: cut.boxed(),
            left: pieces,
            loud,
        };
        Ok(Response::from_parts(
            parts,
            StreamBody::new(frames.stream()).boxed_unsync(),
        ))
    }

    fn fate(&self, request: &Request<Body>) -> Fate {
        let path = request.uri().path();
        let watch = request.uri().query().is_some_and(|q| q.contains("watch="));
        let mut hasher = DefaultHasher::new();
        (self.seed, request.method().as_str(), path, watch).hash(&mut hasher);
        let request_hash = hasher.finish();
        let (rate, made) = self.with(|s| {
            let made = s.made.entry(request_hash).or_default();
            *made += 1;
            (s.rate, *made)
        });
        (request_hash, made).hash(&mut hasher);
        let chance = hasher.finish();
        if chance % 1000 >= rate {
            return Fate::Pass;
        }
        let writes = request.method() != Method::GET;
        match (chance / 1000) % 8 {
            0 => Fate::Refused(429, "TooManyRequests"),
            1 => Fate::Refused(500, "InternalError"),
            2 => Fate::Refused(503, "ServiceUnavailable"),
            3 if watch => Fate::Refused(410, "Expired"),
            3 if writes => Fate::Refused(409, "Conflict"),
            4 => Fate::Lost,
            _ if watch => Fate::Breaks((chance / 8000 % 4) as usize, (chance / 32000).is_multiple_of(2)),
            _ if writes => Fate::Unheard,
            _ => Fate::Refused(504, "Timeout"),
        }
    }
}

type Frames = futures::stream::BoxStream<'static, Result<Frame<Bytes>, BoxError>>;

/// A body that may break off.
struct Interrupted {
    frames: Frames,
    cut: Frames,
    left: usize,
    loud: bool,
}

impl Interrupted {
    fn stream(self) -> impl futures::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static {
        futures::stream::unfold(Some(self), |state| async move {
            let mut state = state?;
            if state.left == 0 {
                let error: BoxError = "the connection breaks".into();
                return state.loud.then_some((Err(error), None));
            }
            state.left -= 1;
            tokio::select! {
                biased;
                Some(cut) = state.cut.next() => Some((cut, None)),
                frame = state.frames.next() => frame.map(|frame| (frame, Some(state))),
            }
        })
    }
}

fn refusal(code: u16, reason: &str) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": format!("a fault: {reason}")});
    let body = http_body_util::Full::new(Bytes::from(status.to_string()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}
