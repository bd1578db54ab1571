//! One call of a webhook: TLS with the configuration's CA, one POST of an AdmissionReview, its answer.
//!
//! What goes wrong is said in the words kube-apiserver's HTTP client has for it.

use super::connection::{Connection, Idle};
use super::trust::Trust;
use crate::rest::Api;
use crate::store::{Key, Range};
use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const UNKNOWN_AUTHORITY: &str =
    "tls: failed to verify certificate: x509: certificate signed by unknown authority";
/// Largest answer that is read.
const MAX_ANSWER: usize = 16 << 20;

/// Where a webhook is and how to know it.
pub struct Endpoint {
    config: Result<Arc<ClientConfig>, String>,
    address: Address,
    idle: Idle,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Address {
    Url(String),
    Service {
        namespace: String,
        name: String,
        path: String,
        port: u16,
    },
}

/// TLS that trusts a bundle. Without one nothing is trusted: the system's certificates are not asked.
fn tls(bundle: &Value) -> Result<Arc<ClientConfig>, String> {
    const UNUSABLE: &str = "unable to load root certificates: unable to parse bytes as PEM block";
    let mut roots = RootCertStore::empty();
    let mut bundled = Vec::new();
    if let Some(text) = bundle.as_str() {
        let pem = base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|_| UNUSABLE)?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| UNUSABLE)?;
            roots.add(certificate.clone()).map_err(|_| UNUSABLE)?;
            bundled.push(certificate);
        }
    }
    if bundled.is_empty() {
        return Err(UNKNOWN_AUTHORITY.into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|e| e.to_string())?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trust::new(usual, bundled)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

impl Endpoint {
    /// Reads a `WebhookClientConfig`.
    pub fn new(config: &Value) -> Self {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let service = &config["service"];
        let address = if service.is_object() {
            Address::Service {
                namespace: text(&service["namespace"]),
                name: text(&service["name"]),
                path: text(&service["path"]),
                port: service["port"]
                    .as_u64()
                    .and_then(|p| u16::try_from(p).ok())
                    .unwrap_or(443),
            }
        } else {
            Address::Url(text(&config["url"]))
        };
        Self {
            config: tls(&config["caBundle"]),
            address,
            idle: Idle::default(),
        }
    }

    /// The URL that is shown, and asked for.
    fn url(&self, timeout: Duration) -> String {
        let base = match &self.address {
            Address::Url(url) => url.clone(),
            Address::Service {
                namespace,
                name,
                path,
                port,
            } => {
                format!(
                    "https://{name}.{namespace}.svc:{port}/{}",
                    path.trim_start_matches('/')
                )
            }
        };
        let sign = if base.contains('?') { '&' } else { '?' };
        format!("{base}{sign}timeout={}s", timeout.as_secs())
    }

    /// Sends a review and gives what came back. The error is everything behind `failed to call webhook: `.
    pub async fn call(&self, api: &Api, review: &Value, timeout: Duration) -> Result<Value, String> {
        let url = self.url(timeout);
        let post = |why: String| format!("Post {url:?}: {why}");
        let exchange = self.exchange(api, &url, review);
        match tokio::time::timeout(timeout, exchange).await {
            Ok(Ok((200..=299, body))) => serde_json::from_slice(&body)
                .map_err(|e| format!("couldn't get version/kind; json parse error: {e}")),
            Ok(Ok((code, _))) => Err(refused(code)),
            Ok(Err(why)) => Err(post(why)),
            Err(_) => Err(post("context deadline exceeded".into())),
        }
    }

    async fn exchange(&self, api: &Api, url: &str, review: &Value) -> Result<(u16, Bytes), String> {
        let uri: Uri = url.parse().map_err(|_| "invalid URL".to_owned())?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let (to, port) = match &self.address {
            Address::Url(_) => (host.clone(), uri.port_u16().unwrap_or(443)),
            Address::Service {
                namespace,
                name,
                port,
                ..
            } => service(api, namespace, name, *port)?,
        };
        let at = (to, port);
        let body = Bytes::from(review.to_string());
        let request = || {
            let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            Request::post(target)
                .header(
                    header::HOST,
                    uri.authority()
                        .map_or(host.as_str(), http::uri::Authority::as_str),
                )
                .header(header::USER_AGENT, "kube-apiserver-admission")
                .header(header::ACCEPT, "application/json, */*")
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(body.clone()))
                .map_err(|e| e.to_string())
        };
        // One that was kept may have been closed meanwhile: then a new one is asked. A review may come twice.
        let kept = match self.idle.take(&at) {
            Some(mut connection) => connection
                .send(request()?)
                .await
                .ok()
                .map(|response| (connection, response)),
            None => None,
        };
        let (connection, response) = if let Some(answered) = kept {
            answered
        } else {
            let mut connection = self.connect(&host, at).await?;
            let response = connection.send(request()?).await.map_err(|e| http_error(&e))?;
            (connection, response)
        };
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| "the answer cannot be read".to_owned())?;
        self.idle.keep(connection);
        Ok((code, body.to_bytes()))
    }

    async fn connect(&self, host: &str, at: (String, u16)) -> Result<Connection, String> {
        let tcp = TcpStream::connect((at.0.as_str(), at.1))
            .await
            .map_err(|e| dial_error(&at.0, at.1, &e))?;
        let config = self.config.clone()?;
        // Small requests are waited for.
        let _ = tcp.set_nodelay(true);
        let server =
            ServerName::try_from(host.to_owned()).map_err(|_| format!("invalid host name {host:?}"))?;
        let tls = TlsConnector::from(config)
            .connect(server, tcp)
            .await
            .map_err(|e| tls_error(&e))?;
        Connection::open(tls, at).await.map_err(|e| http_error(&e))
    }
}

/// Where a Service's endpoints are.
fn service(api: &Api, namespace: &str, name: &str, port: u16) -> Result<(String, u16), String> {
    let found = api.store.get(&Key::new("/services", namespace, name));
    let Some(service) = found.map(|e| e.value()) else {
        return Err(format!("service {name:?} not found"));
    };
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return Ok((spec["externalName"].as_str().unwrap_or_default().to_owned(), port));
    }
    let ports = spec["ports"].as_array().into_iter().flatten();
    let wanted = ports.into_iter().find(|p| p["port"] == port);
    let Some(wanted) = wanted else {
        return Err(format!("no service port {port} found for service {name:?}"));
    };
    let port_name = wanted["name"].as_str().unwrap_or_default();
    let range = Range {
        resource: "discovery.k8s.io/endpointslices".into(),
        namespace: Some(namespace.to_owned()),
        ..Range::default()
    };
    let slices = api.store.list(&range).map_err(|e| e.to_string())?;
    let of_service = |slice: &Value| slice["metadata"]["labels"]["kubernetes.io/service-name"] == name;
    for slice in slices.entries.iter().map(|e| e.value()).filter(of_service) {
        let named = |p: &&Value| p["name"].as_str().unwrap_or_default() == port_name;
        let port = slice["ports"].as_array().into_iter().flatten().find(named);
        let ready = |e: &&Value| e["conditions"]["ready"] != false;
        let endpoint = slice["endpoints"].as_array().into_iter().flatten().find(ready);
        if let (Some(port), Some(address)) = (port, endpoint.and_then(|e| e["addresses"][0].as_str()))
            && let Some(port) = port["port"].as_u64().and_then(|p| u16::try_from(p).ok())
        {
            return Ok((address.to_owned(), port));
        }
    }
    let endpoints = api
        .store
        .get(&Key::new("/endpoints", namespace, name))
        .map(|e| e.value());
    for subset in endpoints
        .iter()
        .flat_map(|e| e["subsets"].as_array().into_iter().flatten())
    {
        let named = |p: &&Value| p["name"].as_str().unwrap_or_default() == port_name;
        let port = subset["ports"].as_array().into_iter().flatten().find(named);
        if let (Some(address), Some(port)) = (subset["addresses"][0]["ip"].as_str(), port)
            && let Some(port) = port["port"].as_u64().and_then(|p| u16::try_from(p).ok())
        {
            return Ok((address.to_owned(), port));
        }
    }
    Err(format!("no endpoints available for service {name:?}"))
}

fn dial_error(host: &str, port: u16, error: &io::Error) -> String {
    let shown = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("dial tcp {shown}: connect: connection refused"),
        io::ErrorKind::NetworkUnreachable => format!("dial tcp {shown}: connect: network is unreachable"),
        io::ErrorKind::HostUnreachable => format!("dial tcp {shown}: connect: no route to host"),
        _ if error.raw_os_error().is_none() => format!("dial tcp: lookup {host}: no such host"),
        _ => format!("dial tcp {shown}: connect: {error}"),
    }
}

fn tls_error(error: &io::Error) -> String {
    use rustls::{CertificateError, Error};
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    let why = match inner {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "x509: certificate signed by unknown authority".to_owned()
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "x509: certificate is not valid for this name".to_owned(),
        Some(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "x509: certificate has expired or is not yet valid".to_owned(),
        Some(Error::InvalidCertificate(other)) => format!("x509: {other}"),
        Some(other) => return format!("remote error: tls: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => return "EOF".into(),
        None => return error.to_string(),
    };
    format!("tls: failed to verify certificate: {why}")
}

fn http_error(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_closed() {
        return "EOF".into();
    }
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

/// What the generic Kubernetes client makes of an answer that is no success.
fn refused(code: u16) -> String {
    match code {
        401 => "the server has asked for the client to provide credentials".into(),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        413 => "the server responded with the status code 413 but did not return more information".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the \
                request"
            .into(),
        500..=599 => "an error on the server (\"unknown\") has prevented the request from succeeding".into(),
        400..=499 => "unknown".into(),
        _ => format!("the server responded with the status code {code} but did not return more information"),
    }
}
