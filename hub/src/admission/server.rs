//! The webhook's HTTPS server: one POST a review, and `GET /healthz`.
//!
//! Whoever reaches the port may ask, as with every webhook: connections, handshakes, bodies and times are bounded.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{
    ConfigBuilder, ServerConfig, WantsVerifier,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 512;
/// Handshakes at once.
const HANDSHAKES: usize = 64;
/// What a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be idle: longer than API servers keep theirs, so that they close first.
const IDLE: Duration = Duration::from_secs(120);
/// What one review may take: API servers wait as long.
const REVIEW: Duration = Duration::from_secs(10);
/// Largest review: two objects as large as an API server takes them, and what is around.
const BODY: usize = 8 << 20;
/// How long accepting pauses when the system has no more file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How long open reviews may go on after shutdown began.
const DRAIN: Duration = Duration::from_secs(5);

/// The certificate that is served with; another one takes its place while the server runs.
#[derive(Debug, Default)]
pub struct Served(RwLock<Option<Arc<CertifiedKey>>>);

impl Served {
    /// Serves new connections with this certificate.
    pub fn set(&self, certificate: &str, key: &str) -> Result<(), String> {
        let bad = |error: rustls::pki_types::pem::Error| error.to_string();
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(bad)?;
        // The parser's error is not shown: it could quote the key.
        let key =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "its key is no key".to_owned())?;
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| error.to_string())?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        Ok(())
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the server says to a review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The answer, JSON.
    Answer(String),
    /// There is nothing at that path.
    NoSuchPath,
    /// That is no review, and why.
    NoReview(String),
}

/// Answers until `shutdown`, then lets open reviews end.
pub async fn serve<F, Fut>(
    listener: TcpListener,
    tls: ConfigBuilder<ServerConfig, WantsVerifier>,
    served: Arc<Served>,
    answer: F,
    shutdown: CancellationToken,
) where
    F: Fn(String, Bytes) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Reply> + Send,
{
    let mut config = tls.with_no_client_auth().with_cert_resolver(served);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            let place = places.clone().acquire_owned().await.ok()?;
            let handshake = handshakes.clone().acquire_owned().await.ok()?;
            Some((place, handshake, listener.accept().await))
        };
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        let Some((place, handshake, accepted)) = accepted else {
            break;
        };
        match accepted {
            Ok((stream, _)) => {
                let (acceptor, answer, shutdown) = (acceptor.clone(), answer.clone(), shutdown.clone());
                connections.spawn(async move {
                    let _place = place;
                    let secured = tokio::select! {
                        () = shutdown.cancelled() => return,
                        secured = tokio::time::timeout(HANDSHAKE, secure(&acceptor, stream)) => secured,
                    };
                    drop(handshake);
                    match secured {
                        Ok(Ok(stream)) => connection(stream, answer, shutdown).await,
                        Ok(Err(error)) => {
                            tracing::debug!(%error, "no TLS with a caller of the admission webhook");
                        }
                        Err(_) => tracing::debug!("a caller of the admission webhook was too slow"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admission webhook cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        connections.shutdown().await;
    }
}

type Secured = tokio_rustls::server::TlsStream<TcpStream>;

async fn secure(acceptor: &TlsAcceptor, stream: TcpStream) -> std::io::Result<Secured> {
    // Answers are small and waited for.
    stream.set_nodelay(true)?;
    acceptor.accept(stream).await
}

async fn connection<F, Fut>(stream: Secured, answer: F, shutdown: CancellationToken)
where
    F: Fn(String, Bytes) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Reply> + Send,
{
    let service = service_fn(move |request| {
        let answer = answer.clone();
        async move {
            let response = tokio::time::timeout(REVIEW, respond(request, answer)).await;
            Ok::<_, Infallible>(
                response.unwrap_or_else(|_| text(StatusCode::GATEWAY_TIMEOUT, "it took too long")),
            )
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admission webhook ended");
    }
}

async fn respond<F, Fut>(request: Request<Incoming>, answer: F) -> Response<Full<Bytes>>
where
    F: Fn(String, Bytes) -> Fut,
    Fut: Future<Output = Reply>,
{
    let path = request.uri().path().to_owned();
    if path == "/healthz" {
        return text(StatusCode::OK, "ok");
    }
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview");
    }
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    if kind != Some("application/json") {
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json");
    }
    let body = match Limited::new(request.into_body(), BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the review is too large");
        }
        Err(_) => return text(StatusCode::BAD_REQUEST, "the review did not come whole"),
    };
    match answer(path, body).await {
        Reply::Answer(answer) => {
            let mut response = Response::new(Full::new(Bytes::from(answer)));
            let json = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Reply::NoSuchPath => text(StatusCode::NOT_FOUND, "there is no webhook at this path"),
        Reply::NoReview(why) => text(StatusCode::BAD_REQUEST, &why),
    }
}

fn text(code: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = code;
    response
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
