use super::*;
use crate::pki::{Pair, Request as CertRequest, Usages, new_key, request};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Nothing here takes long; what does is broken.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// A server that tells every client who it is, and keeps those waiting who ask for `/slow` until told to go on.
async fn start(ca: &Ca, limits: Limits, go: CancellationToken) -> Running {
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let go = go.clone();
        async move {
            if request.uri().path() == "/slow" {
                go.cancelled().await;
            }
            if request.uri().path() == "/endless" {
                // Dropped with the answer's body: whoever reads it is told by that when the server gave up.
                let guard = go.clone().drop_guard();
                let more = futures::stream::repeat_with(move || {
                    let _ = &guard;
                    Ok(Frame::data(Bytes::from(vec![b'x'; 4096])))
                });
                return Ok(Response::new(StreamBody::new(more).boxed_unsync()));
            }
            let peer = request.extensions().get::<Peer>().unwrap();
            let who = match (&peer.cert, &peer.rejected) {
                (Some(cert), None) => format!("{}:{}", cert.common_name, cert.organizations.join("+")),
                (None, Some(_)) => "rejected".to_owned(),
                (None, None) => "nobody".to_owned(),
                (Some(_), Some(_)) => "both".to_owned(),
            };
            let body = format!("{:?} {who}", request.version());
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body)).boxed_unsync()))
        }
    });
    let tls = Tls::new(ca, &[]).unwrap();
    let task = tokio::spawn(serve(listener, tls, service, limits, shutdown.clone()));
    Running {
        address,
        shutdown,
        task,
    }
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}

fn client(ca: &Ca, pair: Option<&Pair>, alpn: &[u8]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.der().to_vec())).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain(&pair.cert_pem), key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn connect(
    address: SocketAddr,
    connector: &TlsConnector,
    name: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    connector
        .connect(ServerName::try_from(name.to_owned()).unwrap(), stream)
        .await
}

/// One HTTP/1.1 request on a connection of its own; the whole answer.
async fn get(address: SocketAddr, connector: &TlsConnector, path: &str) -> String {
    let exchange = async {
        let mut stream = connect(address, connector, "kubernetes.default.svc")
            .await
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .expect("no answer in time")
}

#[tokio::test]
async fn a_certificate_from_a_request_is_its_user_with_every_group() {
    let now = Timestamp::now();
    let ca = Ca::load_or_create(None, now).unwrap();
    let server = start(&ca, Limits::default(), CancellationToken::new()).await;

    // As a klusterlet does it: a key and a request of its own, signed by the hub.
    let key = new_key().unwrap();
    let csr = request::write("system:oc:c1:agent", &["group one", "group:two"], &key).unwrap();
    let csr = CertRequest::parse(csr.as_bytes()).unwrap();
    let usages = Usages::parse(["digital signature", "key encipherment", "client auth"]).unwrap();
    let cert_pem = ca.sign_csr(&csr, usages, DAY, now).unwrap();
    let own = Pair {
        cert_pem,
        key_pem: key.serialize_pem(),
    };

    let issued = ca.issue_client("admin", &["system:masters"], DAY, now).unwrap();
    let expired = ca
        .issue_client("late", &[], DAY, now - SignedDuration::from_hours(48))
        .unwrap();
    let foreign = Ca::load_or_create(None, now)
        .unwrap()
        .issue_client("admin", &["system:masters"], DAY, now)
        .unwrap();
    let server_only = ca
        .sign_csr(&csr, Usages::parse(["server auth"]).unwrap(), DAY, now)
        .unwrap();
    let server_only = Pair {
        cert_pem: server_only,
        key_pem: key.serialize_pem(),
    };
    let cases = [
        (None, "nobody"),
        (Some(&own), "system:oc:c1:agent:group one+group:two"),
        (Some(&issued), "admin:system:masters"),
        (Some(&expired), "rejected"),
        (Some(&foreign), "rejected"),
        (Some(&server_only), "rejected"),
    ];
    for (pair, expected) in cases {
        let answer = get(server.address, &client(&ca, pair, b"http/1.1"), "/").await;
        assert!(
            answer.ends_with(&format!("HTTP/1.1 {expected}")),
            "{expected}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_certificate_is_worth_nothing_without_its_key() {
    let now = Timestamp::now();
    let ca = Ca::load_or_create(None, now).unwrap();
    let server = start(&ca, Limits::default(), CancellationToken::new()).await;
    let stolen = ca.issue_client("admin", &["system:masters"], DAY, now).unwrap();
    let other = new_key().unwrap().serialize_pem();
    // rustls itself would not send a certificate with another's key, so it is told to.
    let provider = rustls::crypto::ring::default_provider();
    let key = PrivateKeyDer::from_pem_slice(other.as_bytes()).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let forged = Arc::new(CertifiedKey::new(chain(&stolen.cert_pem), key));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.der().to_vec())).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from((*forged).clone())));
        let connector = TlsConnector::from(Arc::new(config));
        let refused = tokio::time::timeout(PATIENCE, async {
            let mut stream = connect(server.address, &connector, "localhost").await?;
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map(|_| answer)
        });
        assert!(refused.await.expect("no end in time").is_err(), "{version:?}");
    }
}

#[tokio::test]
async fn http2_is_offered_and_every_name_is_certified() {
    let ca = Ca::load_or_create(None, Timestamp::now()).unwrap();
    let server = start(&ca, Limits::default(), CancellationToken::new()).await;
    for name in [
        "127.0.0.1",
        "::1",
        "localhost",
        "kubernetes",
        "kubernetes.default.svc",
        "10.96.0.1",
    ] {
        let stream = connect(server.address, &client(&ca, None, b"h2"), name)
            .await
            .unwrap();
        let (_, connection): (_, &ClientConnection) = stream.get_ref();
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
    }
    assert!(
        connect(server.address, &client(&ca, None, b"h2"), "example.org")
            .await
            .is_err()
    );

    let stream = connect(server.address, &client(&ca, None, b"h2"), "localhost")
        .await
        .unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("https://localhost/")
        .body(Full::<Bytes>::default())
        .unwrap();
    let answer = sender
        .send_request(request)
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(&answer[..], b"HTTP/2.0 nobody");
    server.shutdown.cancel();
    tokio::time::timeout(PATIENCE, server.task)
        .await
        .expect("did not end")
        .unwrap();
    tokio::time::timeout(PATIENCE, connection)
        .await
        .expect("was not told to go")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn open_requests_may_finish_and_no_new_ones_come() {
    let ca = Ca::load_or_create(None, Timestamp::now()).unwrap();
    let go = CancellationToken::new();
    let server = start(&ca, Limits::default(), go.clone()).await;
    let connector = client(&ca, None, b"http/1.1");
    let mut stream = connect(server.address, &connector, "localhost").await.unwrap();
    stream
        .write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    // An answered request on a second connection: by then the first one was read or is on its way in.
    get(server.address, &connector, "/").await;
    let idle = connect(server.address, &connector, "localhost").await.unwrap();
    server.shutdown.cancel();
    let refused = async {
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused)
        .await
        .expect("still listening");
    go.cancel();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .expect("no answer in time")
        .unwrap();
    assert!(answer.ends_with("HTTP/1.1 nobody"), "{answer}");
    tokio::time::timeout(PATIENCE, server.task)
        .await
        .expect("did not end")
        .unwrap();
    drop(idle);
}

#[tokio::test]
async fn what_never_ends_is_cut() {
    let ca = Ca::load_or_create(None, Timestamp::now()).unwrap();
    let limits = Limits {
        drain: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = start(&ca, limits, CancellationToken::new()).await;
    let mut stream = connect(server.address, &client(&ca, None, b"http/1.1"), "localhost")
        .await
        .unwrap();
    stream
        .write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    server.shutdown.cancel();
    tokio::time::timeout(PATIENCE, server.task)
        .await
        .expect("did not end")
        .unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("not cut");
    assert!(answer.is_empty(), "{end:?}");
}

#[tokio::test]
async fn silent_clients_are_dropped_and_hold_nobody_up() {
    let ca = Ca::load_or_create(None, Timestamp::now()).unwrap();
    let limits = Limits {
        handshake_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = start(&ca, limits, CancellationToken::new()).await;
    let connector = client(&ca, None, b"http/1.1");
    let mut mute = TcpStream::connect(server.address).await.unwrap();
    let mut slow = connect(server.address, &connector, "localhost").await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert!(get(server.address, &connector, "/").await.contains("nobody"));
    let mut rest = Vec::new();
    // How it ends, cleanly or reset, is the system's choice.
    let _ = tokio::time::timeout(PATIENCE, mute.read_to_end(&mut rest))
        .await
        .expect("a mute client is kept");
    let _ = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut rest))
        .await
        .expect("a slow client is kept");
    assert!(!String::from_utf8_lossy(&rest).contains("200"));
}

#[tokio::test]
async fn who_never_begins_is_dropped() {
    let ca = Ca::load_or_create(None, Timestamp::now()).unwrap();
    let limits = Limits {
        begin_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = start(&ca, limits, CancellationToken::new()).await;
    for (protocol, begun) in [(&b"http/1.1"[..], &b""[..]), (b"h2", b""), (b"h2", b"PRI * HTTP")] {
        let mut stream = connect(server.address, &client(&ca, None, protocol), "localhost")
            .await
            .unwrap();
        stream.write_all(begun).await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap_or_else(|_| panic!("kept: {protocol:?} {begun:?}"));
    }
}

#[tokio::test]
async fn who_is_idle_between_requests_is_kept_for_a_while() {
    let ca = Ca::load_or_create(None, Timestamp::now()).unwrap();
    let server = start(&ca, Limits::default(), CancellationToken::new()).await;
    let mut stream = connect(server.address, &client(&ca, None, b"http/1.1"), "localhost")
        .await
        .unwrap();
    for _ in 0..2 {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = vec![0; 4096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer))
            .await
            .expect("no answer in time")
            .unwrap();
        assert!(String::from_utf8_lossy(&answer[..read]).contains("200 OK"));
    }
}

#[tokio::test]
async fn who_does_not_read_is_dropped() {
    let ca = Ca::load_or_create(None, Timestamp::now()).unwrap();
    let limits = Limits {
        write_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let dropped = CancellationToken::new();
    let server = start(&ca, limits, dropped.clone()).await;
    let mut stream = connect(server.address, &client(&ca, None, b"http/1.1"), "localhost")
        .await
        .unwrap();
    stream
        .write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    // Others are served meanwhile.
    let connector = client(&ca, None, b"http/1.1");
    assert!(get(server.address, &connector, "/").await.contains("nobody"));
    tokio::time::timeout(PATIENCE, dropped.cancelled())
        .await
        .expect("a client that does not read is kept");
    drop(stream);
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let ca = Ca::load_or_create(None, Timestamp::now()).unwrap();
    let server = start(&ca, Limits::default(), CancellationToken::new()).await;
    let mut stream = connect(server.address, &client(&ca, None, b"http/1.1"), "localhost")
        .await
        .unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "a".repeat(1_000_000)
    );
    // The server may hang up before all of it is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("no end in time");
    assert!(!String::from_utf8_lossy(&answer).contains("200"), "accepted");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let address = first.local_addr().unwrap();
    let error = listen(address).await.unwrap_err();
    assert_eq!(error.to_string(), format!("address {address} is already in use"));
}

#[test]
fn the_servers_certificate_is_renewed_in_time() {
    let now = Timestamp::now();
    let ca = Ca::load_or_create(None, now).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let current = RwLock::new(OwnCert::issue(&ca, &[], &provider, now).unwrap());
    let own = OwnCert {
        ca,
        names: Vec::new(),
        provider,
        current,
    };
    let first = own.at(now);
    let days = |n: i64| now + SignedDuration::from_hours(24 * n);
    assert!(Arc::ptr_eq(&first, &own.at(days(240))));
    let second = own.at(days(250));
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&second, &own.at(days(251))));
}

type H2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// An HTTP/2 connection, and how it ends.
async fn h2(ca: &Ca, address: SocketAddr, window: u32) -> (H2, tokio::task::JoinHandle<()>) {
    let stream = connect(address, &client(ca, None, b"h2"), "localhost")
        .await
        .unwrap();
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let task = tokio::spawn(async move {
        // However it ends.
        let _ = connection.await;
    });
    (sender, task)
}

fn ask(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("https://localhost{path}"))
        .body(Full::default())
        .unwrap()
}

#[tokio::test]
async fn too_many_headers_are_refused_over_http2() {
    let ca = Ca::load_or_create(None, Timestamp::now()).unwrap();
    let limits = Limits {
        header_bytes: 8192,
        ..Limits::default()
    };
    let server = start(&ca, limits, CancellationToken::new()).await;
    let (mut sender, _task) = h2(&ca, server.address, 65_535).await;
    let ask_with = |length: usize| {
        let mut request = ask("/");
        request
            .headers_mut()
            .insert("x", "a".repeat(length).parse().unwrap());
        request
    };
    // Refused with a status, or by an end of the connection.
    if let Ok(answer) = sender.send_request(ask_with(32_768)).await {
        assert_eq!(answer.status(), 431);
    }
    let (mut sender, _task) = h2(&ca, server.address, 65_535).await;
    let answer = sender.send_request(ask_with(1024)).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn who_finds_no_place_waits_until_one_is_free() {
    let ca = Ca::load_or_create(None, Timestamp::now()).unwrap();
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let server = start(&ca, limits, CancellationToken::new()).await;
    let connector = client(&ca, None, b"http/1.1");
    let first = connect(server.address, &connector, "localhost").await.unwrap();
    let address = server.address;
    let mut second =
        tokio::spawn(async move { connect(address, &connector, "localhost").await.map(drop).is_ok() });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut second).await;
    assert!(early.is_err(), "a second was taken");
    drop(first);
    let taken = tokio::time::timeout(PATIENCE, second).await;
    assert!(taken.expect("nobody was let in").unwrap());
}

#[tokio::test]
async fn a_connection_that_nothing_is_asked_of_ends_and_a_busy_one_does_not() {
    let ca = Ca::load_or_create(None, Timestamp::now()).unwrap();
    let go = CancellationToken::new();
    let idle_timeout = Duration::from_millis(200);
    let limits = Limits {
        idle_timeout,
        ..Limits::default()
    };
    let server = start(&ca, limits, go.clone()).await;
    let (mut busy, busy_task) = h2(&ca, server.address, 65_535).await;
    let slow = tokio::spawn(busy.send_request(ask("/slow")));
    let (mut idle, idle_task) = h2(&ca, server.address, 65_535).await;
    let answer = idle.send_request(ask("/")).await.unwrap();
    answer.into_body().collect().await.unwrap();
    tokio::time::timeout(PATIENCE, idle_task)
        .await
        .expect("an idle connection ends")
        .unwrap();
    // The other one is older.
    assert!(!busy_task.is_finished());
    go.cancel();
    let answer = tokio::time::timeout(PATIENCE, slow)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(answer.status(), 200);
    server.shutdown.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn a_stream_nobody_reads_ends_its_connection() {
    let ca = Ca::load_or_create(None, Timestamp::now()).unwrap();
    let ended = CancellationToken::new();
    let limits = Limits {
        unread_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = start(&ca, limits, ended.clone()).await;
    let (mut sender, task) = h2(&ca, server.address, 16_384).await;
    let answer = sender.send_request(ask("/endless")).await.unwrap();
    tokio::time::timeout(PATIENCE, task)
        .await
        .expect("the connection ends")
        .unwrap();
    tokio::time::timeout(PATIENCE, ended.cancelled())
        .await
        .expect("the answer is dropped");
    drop(answer);
    server.shutdown.cancel();
    server.task.await.unwrap();
}
