//! An admission webhook of a cluster: one that refuses everything it is asked about, or one that never answers.

use crate::kube::{Kube, Refused};
use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use muster_apiserver::pki::Ca;
use muster_apiserver::serve::{self, Limits, Tls};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Collection of all ValidatingWebhookConfigurations.
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

/// What a webhook does.
#[derive(Debug, Clone)]
pub enum Does {
    /// It refuses, in these words.
    Refuse(String),
    /// It takes the question and never answers.
    Hang,
}

/// A webhook that runs. Ends with the value.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    ca: String,
    asked: Arc<AtomicUsize>,
    stop: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Webhook {
    /// One on a port of its own.
    pub async fn start(does: Does) -> anyhow::Result<Self> {
        let ca = Ca::load_or_create(None, jiff::Timestamp::now())?;
        let listener = serve::listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let tls = Tls::new(&ca, &[address.ip().to_string()])?;
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let does = does.clone();
            counter.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, Infallible>(answer(does, request).await) }
        });
        let stop = CancellationToken::new();
        let limits = Limits {
            drain: Duration::ZERO,
            ..Limits::default()
        };
        let task = tokio::spawn(serve::serve(listener, tls, service, limits, stop.clone()));
        Ok(Self {
            address,
            ca: ca.pem().to_owned(),
            asked,
            stop,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Has a cluster ask it about ConfigMaps of a namespace that have the label `webhook` with the value `asked`.
    pub async fn install(&self, kube: &Kube, namespace: &str, timeout: Duration) -> Result<(), Refused> {
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.ca);
        let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": namespace}, "webhooks": [{
                "name": "gate.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
                "timeoutSeconds": timeout.as_secs(), "clientConfig": {"url": format!("https://{}/", self.address), "caBundle": ca},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "objectSelector": {"matchLabels": {"webhook": "asked"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["configmaps"]}]}]});
        kube.create(CONFIGURATIONS, &configuration).await.map(drop)
    }

    /// A cluster asks it no more.
    pub async fn remove(&self, kube: &Kube, namespace: &str) -> Result<(), Refused> {
        kube.delete(&format!("{CONFIGURATIONS}/{namespace}"))
            .await
            .map(drop)
    }
}

async fn answer(does: Does, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let words = match does {
        Does::Refuse(words) => words,
        Does::Hang => std::future::pending().await,
    };
    let body = request
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let review: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
        "uid": review["request"]["uid"], "allowed": false, "status": {"code": 403, "message": words}}});
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}
