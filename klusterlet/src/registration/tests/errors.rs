//! What people get wrong when they join, each against a real TLS server: one clear error that says what to do.

use super::super::{ByKubeconfig, Context, driver};
use super::hubs::{Hubs, context, options};
use super::stub::Stub;
use crate::Error;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

type Reply = (u16, String);

/// An authority and a serving certificate.
struct Pki {
    ca: String,
    tls: TlsAcceptor,
}

fn pki(name: &str, expired: bool) -> Pki {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "ca");
    let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    if expired {
        params.not_after = time::OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
    }
    let certificate = params.signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    Pki {
        ca: authority.pem(),
        tls: TlsAcceptor::from(Arc::new(config)),
    }
}

fn status(code: u16, reason: &str, message: &str) -> Reply {
    let value = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message});
    (code, value.to_string())
}

/// Serves every request with what `reply` says to its method and path.
async fn serve(tls: TlsAcceptor, reply: impl Fn(&str, &str) -> Reply + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let reply = Arc::new(reply);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, reply) = (tls.clone(), reply.clone());
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else {
                    return;
                };
                let service =
                    hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let (code, text) = reply(request.method().as_str(), request.uri().path());
                        let answer = http::Response::builder()
                            .status(code)
                            .body(Full::new(Bytes::from(text)));
                        std::future::ready(answer)
                    });
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(io, service)
                    .await;
            });
        }
    });
    address
}

/// A proxy that knows one way only, whatever it is asked for; counts who asks.
async fn proxy(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                assert!(head.starts_with(b"CONNECT "), "{head:?}");
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut there = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
            });
        }
    });
    (address, asked)
}

fn kubeconfig(server: &str, ca: &str, proxy: &str) -> String {
    let mut cluster = json!({"server": server, "certificate-authority-data": STANDARD.encode(ca)});
    if !proxy.is_empty() {
        cluster["proxy-url"] = proxy.into();
    }
    json!({"clusters": [{"name": "hub", "cluster": cluster}], "users": [{"name": "u", "user": {"token": "s3cret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "hub", "user": "u"}}], "current-context": "x"})
    .to_string()
}

/// Joins with this bootstrap kubeconfig and returns what it failed with.
async fn join(bootstrap: &Path) -> Error {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("hub-kubeconfig");
    let options = options(&[
        "--cluster-name=c1",
        "--hub-kubeconfig-dir",
        place.to_str().unwrap(),
        "--bootstrap-kubeconfig",
        bootstrap.to_str().unwrap(),
    ]);
    let spoke = Stub::new("spoke", &super::super::clock::Clock::default());
    let context = Arc::into_inner(context(&spoke, &Hubs::default(), options)).unwrap();
    let context = Context {
        connect: Arc::new(ByKubeconfig),
        ..context
    };
    let error = driver::run(Arc::new(context), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(!error.to_string().contains("s3cret"), "no secrets in {error}");
    error
}

async fn problem(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bootstrap");
    std::fs::write(&path, text).unwrap();
    join(&path).await.to_string()
}

fn has(problem: &str, words: &[&str]) {
    for word in words {
        assert!(problem.contains(word), "{word:?} is not in: {problem}");
    }
}

fn nothing_found(method: &str, path: &str) -> Reply {
    match (method, path.rsplit('/').next()) {
        ("GET", Some(name)) => {
            let message = format!("managedclusters.cluster.open-cluster-management.io {name:?} not found");
            status(404, "NotFound", &message)
        }
        _ => status(403, "Forbidden", "the token may only join clusters named burst-*"),
    }
}

#[tokio::test]
async fn a_wrong_ca() {
    let address = serve(pki("127.0.0.1", false).tls, nothing_found).await;
    let problem = problem(&kubeconfig(
        &format!("https://{address}"),
        &pki("127.0.0.1", false).ca,
        "",
    ))
    .await;
    has(
        &problem,
        &[
            "can not be trusted",
            "not signed by the CA in the kubeconfig",
            &address.to_string(),
        ],
    );
}

#[tokio::test]
async fn a_certificate_for_another_name() {
    let pki = pki("hub.example.com", false);
    let address = serve(pki.tls, nothing_found).await;
    let problem = problem(&kubeconfig(&format!("https://{address}"), &pki.ca, "")).await;
    has(&problem, &["can not be trusted", "for other names"]);
}

#[tokio::test]
async fn a_certificate_that_expired_or_a_clock_that_is_wrong() {
    let pki = pki("127.0.0.1", true);
    let address = serve(pki.tls, nothing_found).await;
    let problem = problem(&kubeconfig(&format!("https://{address}"), &pki.ca, "")).await;
    has(&problem, &["can not be trusted", "not valid now", "clock"]);
}

#[tokio::test]
async fn a_server_that_is_no_hub() {
    for reply in [
        (404, "404 page not found\n".to_owned()),
        status(
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
    ] {
        let pki = pki("127.0.0.1", false);
        let address = serve(pki.tls, move |_, _| reply.clone()).await;
        let problem = problem(&kubeconfig(&format!("https://{address}"), &pki.ca, "")).await;
        has(&problem, &["is no hub", "check the server"]);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    // Nobody listens on the first of all ports.
    let problem = problem(&kubeconfig(
        "https://127.0.0.1:1",
        &pki("127.0.0.1", false).ca,
        "",
    ))
    .await;
    has(&problem, &["the hub at", "can not be reached", "refused"]);
}

#[tokio::test]
async fn a_token_that_expired() {
    let pki = pki("127.0.0.1", false);
    let address = serve(pki.tls, |_, _| status(401, "Unauthorized", "Unauthorized")).await;
    let problem = problem(&kubeconfig(&format!("https://{address}"), &pki.ca, "")).await;
    has(
        &problem,
        &[
            "refuses the credential",
            "expired or wrong",
            "new bootstrap kubeconfig",
        ],
    );
}

#[tokio::test]
async fn a_name_that_the_token_does_not_allow() {
    let pki = pki("127.0.0.1", false);
    let address = serve(pki.tls, nothing_found).await;
    let problem = problem(&kubeconfig(&format!("https://{address}"), &pki.ca, "")).await;
    has(
        &problem,
        &[
            "does not let this credential register a cluster named \"c1\"",
            "burst-*",
            "--cluster-name",
        ],
    );
}

#[tokio::test]
async fn a_token_that_may_not_request_certificates() {
    let pki = pki("127.0.0.1", false);
    let address = serve(pki.tls, |method, path| {
        match (method, path.contains("certificates.k8s.io")) {
            (_, true) => status(403, "Forbidden", "certificatesigningrequests is forbidden"),
            ("POST", false) => (201, "{}".into()),
            _ => nothing_found(method, path),
        }
    })
    .await;
    let problem = problem(&kubeconfig(&format!("https://{address}"), &pki.ca, "")).await;
    has(
        &problem,
        &[
            "does not let the credential",
            "certificate signing requests",
            "is forbidden",
        ],
    );
}

#[tokio::test]
async fn the_kubeconfigs_proxy_is_used() {
    let pki = pki("hub.invalid", false);
    let hub = serve(pki.tls, |_, _| status(401, "Unauthorized", "Unauthorized")).await;
    let (through, asked) = proxy(hub).await;
    let text = kubeconfig("https://hub.invalid:6443", &pki.ca, &format!("http://{through}"));
    has(&problem(&text).await, &["hub.invalid", "refuses the credential"]);
    assert!(asked.load(Ordering::SeqCst) > 0);
}
