//! The front door: TCP, TLS, HTTP/1.1 and HTTP/2, and who the connection belongs to.
//!
//! A slow or hostile client costs others nothing: handshakes run in tasks of their own, bounded in number and time, headers
//! are bounded in size and time, connections in number. Shutting down lets requests finish, within limits.

mod activity;
mod patient;

use crate::pki::{Ca, ClientCert, PkiError, SERVER_TTL};
use activity::{Activity, Over, Watched};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use jiff::{SignedDuration, Timestamp};
use patient::Patient;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

type BoxError = Box<dyn StdError + Send + Sync>;

/// How long accepting pauses when the system has no more file descriptors: closing connections frees some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// HTTP/2 pings on idle connections find peers that went away without a word.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// What an HTTP/2 ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What an HTTP/2 connection begins with: its preface, 24 bytes.
const H2_PREFACE: usize = 24;
/// Concurrent requests of one HTTP/2 connection, watches included.
const MAX_STREAMS: u32 = 250;

/// Who is on the other end of a connection. In the extensions of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where from.
    pub address: SocketAddr,
    /// The client certificate, when there is one and it chains to the CA.
    pub cert: Option<ClientCert>,
    /// Why the certificate that was sent is not to be believed.
    pub rejected: Option<String>,
}

/// Bounds of what clients can make the server do.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Handshakes at once.
    pub handshakes: usize,
    /// What a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a client may take to begin.
    pub begin_timeout: Duration,
    /// How long a connection may go without a request, and a client wait until the headers of its next one are there.
    pub idle_timeout: Duration,
    /// Bytes of a request's headers.
    pub header_bytes: u32,
    /// How long a client may leave what is sent to it unread.
    pub write_timeout: Duration,
    /// How long a client may leave a piece of one answer unread while it takes others, or none but answers pings.
    pub unread_timeout: Duration,
    /// How long open requests may go on after shutdown began.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32_768,
            handshakes: 512,
            handshake_timeout: Duration::from_secs(10),
            begin_timeout: Duration::from_secs(10),
            // As kube-apiserver's: clients that renew something every ten seconds find their connection.
            idle_timeout: Duration::from_secs(90),
            header_bytes: 64 * 1024,
            write_timeout: Duration::from_secs(30),
            unread_timeout: Duration::from_secs(120),
            drain: Duration::from_secs(5),
        }
    }
}

/// Why the server cannot listen or speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody else listens there.
    #[error("address {0} is already in use")]
    InUse(SocketAddr),
    /// Another reason not to listen there.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// No usable certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// rustls refuses the configuration.
    #[error("TLS: {0}")]
    Tls(String),
}

/// Listens on `address`; port 0 takes a free one.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|e| match e.kind() {
        io::ErrorKind::AddrInUse => ServeError::InUse(address),
        _ => ServeError::Listen(address, e),
    })
}

/// What the server needs for TLS: its own certificate, renewed in time, and how to tell a client's.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Tls {
    /// TLS with a certificate of `ca` for `names` besides the usual ones, and clients of `ca`.
    pub fn new(ca: &Ca, names: &[String]) -> Result<Self, ServeError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = |e: rustls::Error| ServeError::Tls(e.to_string());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(ca.der().to_vec())).map_err(tls)?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|e| ServeError::Tls(e.to_string()))?;
        let own = OwnCert {
            current: RwLock::new(OwnCert::issue(ca, names, &provider, Timestamp::now())?),
            ca: ca.clone(),
            names: names.to_vec(),
            provider: Arc::clone(&provider),
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_client_cert_verifier(Arc::new(AnyClient(Arc::clone(&clients))))
            .with_cert_resolver(Arc::new(own));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            clients,
        })
    }

    /// What a certificate that the client proved to have the key of says about it.
    fn peer(&self, address: SocketAddr, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        let mut peer = Peer {
            address,
            cert: None,
            rejected: None,
        };
        if let Some([leaf, intermediates @ ..]) = chain {
            let trusted = self
                .clients
                .verify_client_cert(leaf, intermediates, UnixTime::now())
                .map_err(|e| e.to_string())
                .and_then(|_| ClientCert::from_der(leaf).map_err(|e| e.to_string()));
            match trusted {
                Ok(cert) => peer.cert = Some(cert),
                Err(why) => peer.rejected = Some(why),
            }
        }
        peer
    }
}

/// Lets handshakes with any certificate through, as kube-apiserver does, so that a client with an expired one gets a 401 that
/// says so instead of a broken connection. [`Tls::peer`] decides what the certificate is worth; that the client has its key is
/// checked here as ever.
#[derive(Debug)]
struct AnyClient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyClient {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The server's certificate, issued anew while the server runs, before it ends.
#[derive(Debug)]
struct OwnCert {
    ca: Ca,
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
    current: RwLock<(Arc<CertifiedKey>, Timestamp)>,
}

impl OwnCert {
    /// A new certificate and when to replace it: with a third of its life left.
    fn issue(
        ca: &Ca,
        names: &[String],
        provider: &CryptoProvider,
        now: Timestamp,
    ) -> Result<(Arc<CertifiedKey>, Timestamp), ServeError> {
        let pair = ca.issue_server(names, now)?;
        let bad = |e: rustls::pki_types::pem::Error| ServeError::Tls(e.to_string());
        let cert = CertificateDer::from_pem_slice(pair.cert_pem.as_bytes()).map_err(bad)?;
        let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).map_err(bad)?;
        let key =
            CertifiedKey::from_der(vec![cert], key, provider).map_err(|e| ServeError::Tls(e.to_string()))?;
        let life = SignedDuration::try_from(SERVER_TTL / 3 * 2).unwrap_or(SignedDuration::ZERO);
        Ok((Arc::new(key), now.saturating_add(life).unwrap_or(Timestamp::MAX)))
    }

    fn at(&self, now: Timestamp) -> Arc<CertifiedKey> {
        let (key, renew_at) = self
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if now < renew_at {
            return key;
        }
        match Self::issue(&self.ca, &self.names, &self.provider, now) {
            Ok(next) => {
                let key = Arc::clone(&next.0);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
                key
            }
            Err(error) => {
                tracing::error!(%error, "the server's certificate cannot be renewed");
                key
            }
        }
    }
}

impl ResolvesServerCert for OwnCert {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(Timestamp::now()))
    }
}

/// Accepts connections and has `service` answer their requests, each with a [`Peer`] in its extensions, until `shutdown`.
///
/// Then no new connection is taken, HTTP says goodbye on the open ones, and what is still running after `limits.drain` is cut.
/// Streams that never end, like watches, have to watch `shutdown` themselves to end well.
pub async fn serve<S, B>(
    listener: TcpListener,
    tls: Tls,
    service: S,
    limits: Limits,
    shutdown: CancellationToken,
) where
    S: tower::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    let mut connections = JoinSet::new();
    loop {
        // Ended connections are reaped here, so that the set holds only those that live.
        while connections.try_join_next().is_some() {}
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            let handshake = Arc::clone(&handshakes).acquire_owned().await.ok()?;
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
            Ok((stream, address)) => {
                let connection = Connection {
                    tls: tls.clone(),
                    limits: limits.clone(),
                    address,
                    shutdown: shutdown.clone(),
                    service: service.clone(),
                };
                connections.spawn(async move {
                    let _place = place;
                    if let Err(error) = connection.run(stream, handshake).await {
                        tracing::debug!(%address, error, "connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::warn!("cut connections that did not end in time");
        connections.shutdown().await;
    }
}

struct Connection<S> {
    tls: Tls,
    limits: Limits,
    address: SocketAddr,
    shutdown: CancellationToken,
    service: S,
}

impl<S, B> Connection<S>
where
    S: tower::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    async fn run(self, stream: TcpStream, handshake: OwnedSemaphorePermit) -> Result<(), String> {
        // Answers are small and waited for: Nagle's algorithm would only delay them.
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let accept = TlsAcceptor::from(Arc::clone(&self.tls.config)).accept(stream);
        let stream = tokio::select! {
            () = self.shutdown.cancelled() => return Ok(()),
            done = tokio::time::timeout(self.limits.handshake_timeout, accept) => {
                done.map_err(|_| "the TLS handshake took too long")?.map_err(|e| e.to_string())?
            }
        };
        drop(handshake);
        let peer = self
            .tls
            .peer(self.address, stream.get_ref().1.peer_certificates());
        if let Some(why) = &peer.rejected {
            tracing::debug!(address = %self.address, why, "client certificate refused");
        }

        let service = self.service;
        let activity = Activity::new();
        let exchanges = Arc::clone(&activity);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let exchange = exchanges.begin();
            request.extensions_mut().insert(peer.clone());
            let answer = service.clone().oneshot(request);
            async move { Ok::<_, S::Error>(answer.await?.map(|body| Watched::new(body, exchange))) }
        });
        // Either by what was agreed on: finding out from the first bytes would wait for them without a limit.
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let (opening, mut builder) = if is_h2 {
            (H2_PREFACE, auto::Builder::new(TokioExecutor::new()).http2_only())
        } else {
            (1, auto::Builder::new(TokioExecutor::new()).http1_only())
        };
        let stream = Patient::new(
            stream,
            opening,
            self.limits.begin_timeout,
            self.limits.write_timeout,
        );
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.idle_timeout)
            .max_buf_size(self.limits.header_bytes as usize);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(self.limits.header_bytes)
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            done = connection.as_mut() => return done.map_err(|e| e.to_string()),
            () = self.shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
            over = activity.over(self.limits.idle_timeout, self.limits.unread_timeout) => {
                if over == Over::Unread {
                    return Err("the peer left an answer unread".into());
                }
                connection.as_mut().graceful_shutdown();
                // What is still on its way may get there.
                return match tokio::time::timeout(self.limits.write_timeout, connection).await {
                    Ok(done) => done.map_err(|e| e.to_string()),
                    Err(_) => Err("the peer did not take the end of an idle connection".into()),
                };
            }
        }
        connection.await.map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests;
