//! CertificateSigningRequests: signing the approved ones of `kubernetes.io/kube-apiserver-client`, and removing old ones.

use super::kinds;
use super::plan::{Action, Plan, condition, set_condition};
use crate::object;
use crate::pki::{Ca, PkiError, Request, Usages};
use crate::rest::params::Propagation;
use crate::rest::rfc3339;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// The signer this server is.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// Signers whose rules need what is not here: kubelets, and the retired catch-all.
const REFUSED_SIGNERS: &[&str] = &[
    "kubernetes.io/kube-apiserver-client-kubelet",
    "kubernetes.io/kubelet-serving",
    "kubernetes.io/legacy-unknown",
];
/// A certificate's life when the request names none (kube-controller-manager's --cluster-signing-duration), and at most.
pub const DEFAULT_TTL: Duration = Duration::from_secs(365 * 24 * 3600);
/// At least, whatever the request names.
const MIN_TTL: Duration = Duration::from_secs(600);
/// How long requests stay that were issued, denied or failed, in seconds.
const KEEP_DECIDED: i64 = 3600;
/// How long requests stay that nobody decided.
const KEEP_PENDING: i64 = 24 * 3600;
/// Reason of a request that breaks its signer's rules.
const INVALID: &str = "SignerValidationFailure";

/// What is to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The request, PEM.
    pub request: Vec<u8>,
    /// `spec.usages`.
    pub usages: Vec<String>,
    /// Life.
    pub ttl: Duration,
}

/// Signs an order for `longest` at most: the certificate, PEM.
pub fn sign(ca: &Ca, order: &Order, longest: Duration, now: Timestamp) -> Result<String, PkiError> {
    let request = Request::parse(&order.request)?;
    let usages = Usages::parse(order.usages.iter().map(String::as_str))?;
    ca.sign_csr(&request, usages, order.ttl.min(longest), now)
}

/// What becomes of a request. `sign` makes the certificate; it has no effect but that.
pub fn decide(csr: &Value, now: Timestamp, sign: impl FnOnce(&Order) -> Result<String, PkiError>) -> Plan {
    let age = |since: &str| -> Option<i64> {
        let since: Timestamp = since.parse().ok()?;
        Some(now.as_second() - since.as_second())
    };
    // Kept until this many seconds after that time; `None` when that is no time.
    let expiry = |since: &str, keep: i64| age(since).map(|age| keep - age);
    let updated = |kind: &str| {
        condition(csr, kind)
            .filter(|c| c["status"] == "True")
            .map(|c| &c["lastUpdateTime"])
    };
    let of = |kind: &str| updated(kind).map(|t| expiry(t.as_str().unwrap_or_default(), KEEP_DECIDED));
    let issued = csr["status"]["certificate"]
        .as_str()
        .is_some_and(|c| !c.is_empty());
    let undecided = csr["status"]["conditions"].as_array().is_none_or(Vec::is_empty);
    let left = if let Some(denied) = of("Denied").or_else(|| of("Failed")) {
        denied
    } else if issued {
        of("Approved").flatten()
    } else if undecided {
        expiry(object::meta(csr, "creationTimestamp"), KEEP_PENDING)
    } else if updated("Approved").is_some() {
        return decide_approved(csr, now, sign);
    } else {
        None
    };
    match left {
        Some(left) if left <= 0 => Plan::of([Action::delete_unchanged(
            kinds::CSRS,
            csr,
            Propagation::Background,
        )]),
        Some(left) => Plan::later(Duration::from_secs(left.unsigned_abs())),
        None => Plan::default(),
    }
}

fn decide_approved(
    csr: &Value,
    now: Timestamp,
    sign: impl FnOnce(&Order) -> Result<String, PkiError>,
) -> Plan {
    let signer = csr["spec"]["signerName"].as_str().unwrap_or_default();
    let refused = if REFUSED_SIGNERS.contains(&signer) {
        Err(format!("this server does not sign for {signer}"))
    } else if signer == CLIENT_SIGNER {
        order(csr).and_then(|order| sign(&order).map_err(|e| e.to_string()))
    } else {
        // Another signer's.
        return Plan::default();
    };
    let mut csr = csr.clone();
    match refused {
        Ok(certificate) => {
            let status = object::child_mut(&mut csr, "status");
            status.insert("certificate".to_owned(), STANDARD.encode(certificate).into());
        }
        Err(message) => {
            let now = rfc3339(now);
            set_condition(&mut csr, "Failed", "True", INVALID, &message, &now);
            if let Some(failed) = csr["status"]["conditions"]
                .as_array_mut()
                .and_then(|c| c.iter_mut().find(|c| c["type"] == "Failed"))
            {
                failed["lastUpdateTime"] = now.into();
            }
        }
    }
    Plan::of([Action::status(kinds::CSRS, csr)])
}

/// What the signer may be asked to sign, by its rules (Kubernetes' documentation of signers): a client certificate and
/// nothing else.
fn order(csr: &Value) -> Result<Order, String> {
    let spec = &csr["spec"];
    let usages: Vec<String> = spec["usages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let allowed = ["client auth", "digital signature", "key encipherment"];
    if let Some(other) = usages.iter().find(|u| !allowed.contains(&u.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.iter().any(|u| u == "client auth") {
        return Err("missing required usage for client certificate: client auth".to_owned());
    }
    let request = STANDARD
        .decode(spec["request"].as_str().unwrap_or_default())
        .map_err(|_| "the request is not base64".to_owned())?;
    let ttl = match spec["expirationSeconds"].as_u64() {
        None => DEFAULT_TTL,
        Some(seconds) => Duration::from_secs(seconds).clamp(MIN_TTL, DEFAULT_TTL),
    };
    Ok(Order { request, usages, ttl })
}
