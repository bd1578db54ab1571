use std::net::SocketAddr;

use jiff::Timestamp;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::admission::certificate::{Due, Kept, Lives, renew};

struct Running {
    address: SocketAddr,
    served: Arc<Served>,
    kept: Kept,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        let names = ["127.0.0.1".to_owned()];
        let kept = renew(None, Due::Everything, &names, Lives::default(), Timestamp::now());
        let kept = kept.unwrap().unwrap();
        let served = Arc::<Served>::default();
        served.set(&kept.serving, &kept.serving_key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let answer = |path: String, body: Bytes| async move {
            match path.as_str() {
                "/echo" => Reply::Answer(String::from_utf8(body.to_vec()).unwrap()),
                "/bad" => Reply::NoReview("that is none".to_owned()),
                _ => Reply::NoSuchPath,
            }
        };
        let tls = super::super::tls::TlsOptions::default().builder().unwrap();
        let task = tokio::spawn(serve(listener, tls, served.clone(), answer, stop.clone()));
        Self {
            address,
            served,
            kept,
            stop,
            task,
        }
    }

    async fn connect(&self, bundle: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The status line and the body of what a whole connection brings.
    async fn ask(&self, request: &str, body: &str) -> (String, String) {
        let mut stream = self.connect(&self.kept.bundle()).await.unwrap();
        let text = format!(
            "{request}\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // A server that has seen enough closes while more is sent.
        let _ = stream.write_all(text.as_bytes()).await;
        // The end of what is long may be with TLS yet, and reading does not send it.
        let _ = stream.flush().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        (
            head.lines().next().unwrap_or_default().to_owned(),
            body.to_owned(),
        )
    }
}

#[tokio::test]
async fn reviews_are_answered_and_everything_else_told_why_not() {
    let running = Running::start().await;
    let post = |path: &str| format!("POST {path} HTTP/1.1\r\nContent-Type: application/json");
    for (request, body, status, words) in [
        ("GET /healthz HTTP/1.1".to_owned(), "", "200 OK", "ok"),
        (post("/echo?timeout=10s"), "{}", "200 OK", "{}"),
        (format!("{}; charset=utf-8", post("/echo")), "{}", "200 OK", "{}"),
        (post("/bad"), "{}", "400 Bad Request", "that is none"),
        (post("/other"), "{}", "404 Not Found", "no webhook at this path"),
        (
            "GET /echo HTTP/1.1".to_owned(),
            "",
            "405 Method Not Allowed",
            "POST an AdmissionReview",
        ),
        (
            "POST /echo HTTP/1.1\r\nContent-Type: text/plain".to_owned(),
            "{}",
            "415 Unsupported Media Type",
            "application/json",
        ),
    ] {
        let (line, text) = running.ask(&request, body).await;
        assert_eq!(line, format!("HTTP/1.1 {status}"), "{request}");
        assert!(text.contains(words), "{request}: {text}");
    }
    let large = " ".repeat(BODY + 1);
    let (line, _) = running.ask(&post("/echo"), &large).await;
    assert_eq!(line, "HTTP/1.1 413 Payload Too Large");
    running.stop.cancel();
    running.task.await.unwrap();
}

#[tokio::test]
async fn another_certificate_takes_its_place_while_connections_stay() {
    let running = Running::start().await;
    let mut open = running.connect(&running.kept.bundle()).await.unwrap();
    let names = ["127.0.0.1".to_owned()];
    let other = renew(None, Due::Everything, &names, Lives::default(), Timestamp::now());
    let other = other.unwrap().unwrap();
    assert!(
        running.connect(&other.bundle()).await.is_err(),
        "it is not served yet"
    );
    running.served.set(&other.serving, &other.serving_key).unwrap();
    running.connect(&other.bundle()).await.unwrap();
    assert!(running.connect(&running.kept.bundle()).await.is_err());
    for _ in 0..2 {
        open.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 15];
        open.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        // The rest of this answer: headers and three bytes.
        let mut rest = Vec::new();
        while !rest.ends_with(b"\r\n\r\nok\n") {
            rest.push(open.read_u8().await.unwrap());
        }
    }
    // What is no certificate leaves the one before in place, and quotes no key.
    let error = running
        .served
        .set(&other.serving, "-----BEGIN nonsense")
        .unwrap_err();
    assert!(!error.contains("nonsense"), "{error}");
    running.connect(&other.bundle()).await.unwrap();
    running.stop.cancel();
    drop(open);
    running.task.await.unwrap();
}
