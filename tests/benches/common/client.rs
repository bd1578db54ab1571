//! A client that does little besides TLS and HTTP, because it runs on the cores of what it measures.

use anyhow::Context as _;
use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A server and who asks it.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    token: Option<String>,
}

impl Target {
    /// As a kubeconfig says.
    pub fn from_kubeconfig(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let file: Value = serde_saphyr::from_str(&text)?;
        let cluster = &file["clusters"][0]["cluster"];
        let user = &file["users"][0]["user"];
        let data = |value: &Value| -> anyhow::Result<Vec<u8>> {
            let text = value.as_str().context("the kubeconfig lacks data")?;
            Ok(base64::engine::general_purpose::STANDARD.decode(text)?)
        };
        let server = cluster["server"]
            .as_str()
            .context("the kubeconfig has no server")?;
        let address = server
            .strip_prefix("https://")
            .context("the server is not https")?
            .parse()?;
        let ca = data(&cluster["certificate-authority-data"])?;
        let identity = match &user["client-certificate-data"] {
            Value::Null => None,
            cert => Some((data(cert)?, data(&user["client-key-data"])?)),
        };
        let identity = identity
            .as_ref()
            .map(|(cert, key)| (cert.as_slice(), key.as_slice()));
        let mut target = Self::new(address, &ca, identity)?;
        target.token = user["token"].as_str().map(str::to_owned);
        Ok(target)
    }

    /// A server, its CA and a certificate with its key, all PEM.
    pub fn new(address: SocketAddr, ca: &[u8], identity: Option<(&[u8], &[u8])>) -> anyhow::Result<Self> {
        muster_tests::control_plane::init();
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(ca) {
            roots.add(cert?)?;
        }
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let config = match identity {
            Some((cert, key)) => {
                let chain = CertificateDer::pem_slice_iter(cert).collect::<Result<Vec<_>, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self {
            address,
            config: Arc::new(config),
            token: None,
        })
    }

    /// Where the server is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    async fn stream(
        &self,
        protocol: &[u8],
    ) -> anyhow::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(TokioIo::new(stream))
    }

    /// One HTTP/1.1 connection.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let (sender, connection) = http1::handshake(self.stream(b"http/1.1").await?).await?;
        tokio::spawn(connection);
        Ok(Connection {
            sender,
            host: self.address.to_string(),
            token: self.token.clone(),
        })
    }

    /// One HTTP/2 connection.
    pub async fn connect2(&self) -> anyhow::Result<Connection2> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .handshake(self.stream(b"h2").await?)
            .await?;
        tokio::spawn(connection);
        Ok(Connection2 {
            sender,
            host: self.address.to_string(),
        })
    }
}

/// An HTTP/1.1 connection: one request at a time.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
    token: Option<String>,
}

impl Connection {
    /// Sends a request; its status and its body as it comes.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> anyhow::Result<http::Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("content-type", kind);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// A request that must succeed; the whole body.
    pub async fn request(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let response = self.send(method.clone(), path, "application/json", body).await?;
        let code = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(
            code.is_success(),
            "{method} {path}: {code} {}",
            String::from_utf8_lossy(&bytes)
        );
        Ok(bytes)
    }

    /// GET.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Bytes> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    /// POST.
    pub async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> anyhow::Result<Bytes> {
        self.request(Method::POST, path, body.into()).await
    }

    /// GET, parsed.
    pub async fn value(&mut self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.get(path).await?)?)
    }

    /// PATCH with a merge patch.
    pub async fn merge(&mut self, path: &str, patch: &Value) -> anyhow::Result<()> {
        let kind = "application/merge-patch+json";
        let response = self
            .send(Method::PATCH, path, kind, patch.to_string().into())
            .await?;
        let code = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(
            code.is_success(),
            "PATCH {path}: {code} {}",
            String::from_utf8_lossy(&bytes)
        );
        Ok(())
    }
}

/// An HTTP/2 connection: many requests at a time.
pub struct Connection2 {
    sender: http2::SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection2 {
    /// Opens a stream that stays open, like a watch.
    pub async fn open(&mut self, path: &str) -> anyhow::Result<Incoming> {
        let request = Request::get(format!("https://{}{path}", self.host)).body(Full::default())?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        anyhow::ensure!(
            response.status().is_success(),
            "GET {path}: {}",
            response.status()
        );
        Ok(response.into_body())
    }
}

/// The events of a watch, line by line.
pub struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// Of this body.
    pub fn new(body: Incoming) -> Self {
        Self {
            body,
            rest: Vec::new(),
        }
    }

    /// The next line; `None` at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let next = self.rest.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.rest, next)));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                self.rest.extend_from_slice(&data);
            }
        }
    }

    /// The next event, parsed.
    pub async fn event(&mut self) -> anyhow::Result<(String, Value)> {
        let line = self.next().await?.context("the watch ended")?;
        let mut event: Value = serde_json::from_slice(&line)?;
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        anyhow::ensure!(kind != "ERROR", "the watch ended: {}", event["object"]);
        Ok((kind, event["object"].take()))
    }
}
