//! CertificateSigningRequests: signing the approved ones of Kubernetes' own signers, and removing old ones.

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

/// The signers this server is.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Who a kubelet is.
const NODES: &str = "system:nodes";
const NODE: &str = "system:node:";
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
    if ![CLIENT_SIGNER, KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER].contains(&signer) {
        // Another signer's.
        return Plan::default();
    }
    let refused = order(csr, signer).and_then(|order| sign(&order).map_err(|e| e.to_string()));
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

/// What the signer may be asked to sign, by its rules (Kubernetes' documentation of signers), refused in
/// kube-controller-manager's words.
fn order(csr: &Value, signer: &str) -> Result<Order, String> {
    let spec = &csr["spec"];
    let usages: Vec<String> = spec["usages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let request = STANDARD
        .decode(spec["request"].as_str().unwrap_or_default())
        .map_err(|_| "the request is not base64".to_owned())?;
    if signer == CLIENT_SIGNER {
        client_usages(&usages)?;
    } else {
        let asked = Request::parse(&request).map_err(|e| e.to_string())?;
        of_kubelet(&asked, &usages, signer == KUBELET_SERVING_SIGNER)?;
    }
    let ttl = match spec["expirationSeconds"].as_u64() {
        None => DEFAULT_TTL,
        Some(seconds) => Duration::from_secs(seconds).clamp(MIN_TTL, DEFAULT_TTL),
    };
    Ok(Order { request, usages, ttl })
}

/// A client certificate and nothing else.
fn client_usages(usages: &[String]) -> Result<(), String> {
    let allowed = ["client auth", "digital signature", "key encipherment"];
    if let Some(other) = usages.iter().find(|u| !allowed.contains(&u.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.iter().any(|u| u == "client auth") {
        return Err("missing required usage for client certificate: client auth".to_owned());
    }
    Ok(())
}

/// A node's certificate: as a client it has no other names, as a server it needs some.
fn of_kubelet(asked: &Request, usages: &[String], serves: bool) -> Result<(), String> {
    let not_allowed = |what: &str| Err(format!("{what} subjectAltNames are not allowed"));
    if asked.organizations != [NODES] {
        return Err(format!("subject organization is not {NODES}"));
    }
    if !asked.common_name.starts_with(NODE) {
        return Err(format!("subject common name does not begin with {NODE}"));
    }
    let is_named = !asked.dns_names.is_empty() || !asked.ip_addresses.is_empty();
    if serves && !is_named {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    if !serves && !asked.dns_names.is_empty() {
        return not_allowed("DNS");
    }
    if !asked.emails.is_empty() {
        return not_allowed("Email");
    }
    if !serves && !asked.ip_addresses.is_empty() {
        return not_allowed("IP");
    }
    if !asked.uris.is_empty() {
        return not_allowed("URI");
    }
    let required = if serves {
        ["digital signature", "key encipherment", "server auth"]
    } else {
        ["client auth", "digital signature", "key encipherment"]
    };
    let mut given: Vec<&str> = usages.iter().map(String::as_str).collect();
    given.sort_unstable();
    // Keys that encipher nothing need not be allowed to.
    let without: Vec<&str> = required
        .into_iter()
        .filter(|u| *u != "key encipherment")
        .collect();
    if given != required && given != without {
        return Err(format!("usages did not match [{}]", required.join(" ")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{new_key, request};

    #[test]
    fn what_kubelets_may_ask_for() {
        let key = new_key().unwrap();
        let asked = |organization: &str, name: &str| {
            Request::parse(request::write(name, &[organization], &key).unwrap().as_bytes()).unwrap()
        };
        let node = || asked(NODES, "system:node:n");
        let named = |mut request: Request| {
            request.dns_names.push("a.b".into());
            request
        };
        let mail = |mut request: Request| {
            request.emails.push("a@b.c".into());
            request
        };
        let uri = |mut request: Request| {
            request.uris.push("http://a.b".into());
            request
        };
        let ip = |mut request: Request| {
            request.ip_addresses.push([1, 2, 3, 4].into());
            request
        };
        let (client, server) = ("digital signature,client auth", "digital signature,server auth");
        let both = "key encipherment,digital signature,client auth";
        for (request, usages, serves, want) in [
            (node(), client, false, ""),
            (node(), both, false, ""),
            (named(node()), server, true, ""),
            (ip(node()), server, true, ""),
            (
                asked("o", "system:node:n"),
                client,
                false,
                "subject organization is not system:nodes",
            ),
            (
                asked(NODES, "n"),
                client,
                false,
                "subject common name does not begin with system:node:",
            ),
            (
                named(node()),
                client,
                false,
                "DNS subjectAltNames are not allowed",
            ),
            (ip(node()), client, false, "IP subjectAltNames are not allowed"),
            (
                mail(node()),
                client,
                false,
                "Email subjectAltNames are not allowed",
            ),
            (uri(node()), client, false, "URI subjectAltNames are not allowed"),
            (
                node(),
                "client auth",
                false,
                "usages did not match [client auth digital signature key encipherment]",
            ),
            (node(), server, true, "DNS or IP subjectAltName is required"),
            (
                mail(named(node())),
                server,
                true,
                "Email subjectAltNames are not allowed",
            ),
            (
                uri(named(node())),
                server,
                true,
                "URI subjectAltNames are not allowed",
            ),
            (
                named(node()),
                client,
                true,
                "usages did not match [digital signature key encipherment server auth]",
            ),
        ] {
            let usages: Vec<String> = usages.split(',').map(str::to_owned).collect();
            let told = of_kubelet(&request, &usages, serves).err().unwrap_or_default();
            assert_eq!(told, want, "{request:?} {usages:?}");
        }
    }
}
