//! Asking the hub for a client certificate (wire §2.3).

use super::credentials::certificate;
use crate::Error;
use crate::work::objects::{self, RequestError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::Api;
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use muster_crds::constants::{labels, names::KUBE_API_SERVER_CLIENT_SIGNER, names::MANAGED_CLUSTERS_GROUP};
use muster_crds::names;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use yasna::models::ObjectIdentifier;

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// With so many requests of this agent at the hub no more are made: somebody must look first.
const TOO_MANY: usize = 10;

/// A key and the request made with it, both PEM.
pub struct KeyAndRequest {
    /// `PRIVATE KEY` (PKCS #8), ECDSA P-256.
    pub key: String,
    /// `CERTIFICATE REQUEST`.
    pub request: String,
}

impl std::fmt::Debug for KeyAndRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyAndRequest").finish_non_exhaustive()
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    /// The hub said no, or nothing.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Too many requests of this agent, so many, are at the hub already. In OCM's words, which people search for.
    #[error("Stop creating csr since there are too many csr created already on hub")]
    TooMany(usize),
    /// Somebody denied it.
    #[error("certificate signing request {name} was denied: {message}")]
    Denied {
        /// Its name.
        name: String,
        /// The denier's words.
        message: String,
    },
    /// The signer could not.
    #[error("certificate signing request {name} failed: {message}")]
    Failed {
        /// Its name.
        name: String,
        /// The signer's words.
        message: String,
    },
    /// It was deleted before it was signed.
    #[error("certificate signing request {0} was deleted before it was signed")]
    Deleted(String),
    /// The certificate is not the one asked for.
    #[error("the hub signed something else than was asked for: {0}")]
    Wrong(String),
    /// No key could be made.
    #[error("{0}")]
    Crypto(#[from] Error),
}

/// Makes a fresh key and a request for this cluster and agent: CN is the user, the two O's are its groups.
pub fn request(cluster: &str, agent: &str) -> Result<KeyAndRequest, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Crypto(e.to_string());
    let random = ring::rand::SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|e| failed(&e))?;
    let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).map_err(|e| failed(&e))?;
    let groups = [names::cluster_group(cluster), MANAGED_CLUSTERS_GROUP.to_owned()];
    let info = request_info(&names::user(cluster, agent), &groups, key.public_key().as_ref());
    let signature = key.sign(&random, &info).map_err(|e| failed(&e))?;
    let der = yasna::construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_der(&info);
            w.next()
                .write_sequence(|w| w.next().write_oid(&oid(&[1, 2, 840, 10045, 4, 3, 2])));
            w.next()
                .write_bitvec_bytes(signature.as_ref(), signature.as_ref().len() * 8);
        });
    });
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    Ok(KeyAndRequest {
        key: pem::encode_config(&pem::Pem::new("PRIVATE KEY", document.as_ref()), config),
        request: pem::encode_config(&pem::Pem::new("CERTIFICATE REQUEST", der), config),
    })
}

fn oid(parts: &[u64]) -> ObjectIdentifier {
    ObjectIdentifier::from_slice(parts)
}

/// CertificationRequestInfo of RFC 2986. Written by hand because certificate crates keep only one O.
fn request_info(common_name: &str, organizations: &[String], public_key: &[u8]) -> Vec<u8> {
    let attribute = |w: yasna::DERWriter<'_>, kind: &[u64], value: &str| {
        w.write_set(|w| {
            w.next().write_sequence(|w| {
                w.next().write_oid(&oid(kind));
                w.next().write_utf8_string(value);
            });
        });
    };
    yasna::construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_u8(0);
            w.next().write_sequence(|w| {
                for organization in organizations {
                    attribute(w.next(), &[2, 5, 4, 10], organization);
                }
                attribute(w.next(), &[2, 5, 4, 3], common_name);
            });
            w.next().write_sequence(|w| {
                w.next().write_sequence(|w| {
                    w.next().write_oid(&oid(&[1, 2, 840, 10045, 2, 1]));
                    w.next().write_oid(&oid(&[1, 2, 840, 10045, 3, 1, 7]));
                });
                w.next().write_bitvec_bytes(public_key, public_key.len() * 8);
            });
            w.next()
                .write_tagged_implicit(yasna::Tag::context(0), |w| w.write_set(|_| {}));
        });
    })
}

/// Where a request stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nobody decided, or the signer has not signed yet.
    Waiting,
    /// Signed.
    Issued(Vec<u8>),
    /// Denied, with the words given.
    Denied(String),
    /// The signer failed, with its words.
    Failed(String),
}

/// Reads a request's status.
pub fn progress(csr: &CertificateSigningRequest) -> Progress {
    let Some(status) = &csr.status else {
        return Progress::Waiting;
    };
    let condition = |type_: &str| {
        let list = status.conditions.iter().flatten();
        let mut found = list.filter(|c| c.type_ == type_ && c.status == "True");
        found.next().map(|c| c.message.clone().unwrap_or_default())
    };
    if let Some(message) = condition("Denied") {
        return Progress::Denied(message);
    }
    if let Some(message) = condition("Failed") {
        return Progress::Failed(message);
    }
    match &status.certificate {
        Some(certificate) if condition("Approved").is_some() && !certificate.0.is_empty() => {
            Progress::Issued(certificate.0.clone())
        }
        _ => Progress::Waiting,
    }
}

/// Whose requests count against the limit. Anybody who may ask can put the cluster's label on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Those that the agent made with its own certificate: nobody else's keep it from renewing that.
    Renewals,
    /// Those for the same agent, and all that nobody decided: before it has a certificate it asks under no name of its own.
    First,
}

impl Counted {
    fn counts(self, csr: &Value, user: &str) -> bool {
        match self {
            Self::Renewals => csr["spec"]["username"] == user,
            Self::First => {
                let decided = csr["status"]["conditions"]
                    .as_array()
                    .is_some_and(|all| !all.is_empty());
                let request = csr["spec"]["request"]
                    .as_str()
                    .and_then(|text| STANDARD.decode(text).ok());
                !decided || request.is_some_and(|pem| asked_for(&pem).as_deref() == Some(user))
            }
        }
    }
}

/// The user that a request is for.
fn asked_for(pem: &[u8]) -> Option<String> {
    use x509_parser::prelude::FromDer as _;
    let block = pem::parse(pem).ok()?;
    let (_, csr) =
        x509_parser::certification_request::X509CertificationRequest::from_der(block.contents()).ok()?;
    let subject = &csr.certification_request_info.subject;
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

/// Creates a request of `user`. Its name is the hub's choice.
pub async fn create(
    hub: &Client,
    cluster: &str,
    (counted, user): (Counted, &str),
    request: &KeyAndRequest,
    expiration_seconds: i32,
) -> Result<String, CsrError> {
    let selector = format!("{}%3D{cluster}%2C%21{}", labels::CLUSTER_NAME, labels::ADDON_NAME);
    let list = objects::get(
        hub,
        &format!("{PATH}?labelSelector={}", selector.replace('/', "%2F")),
    )
    .await?;
    let all = list["items"].as_array().into_iter().flatten();
    let waiting = all.filter(|csr| counted.counts(csr, user)).count();
    if waiting >= TOO_MANY {
        return Err(CsrError::TooMany(waiting));
    }
    let mut object = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": names::csr_generate_name(cluster), "labels": {labels::CLUSTER_NAME: cluster}},
        "spec": {
            "request": STANDARD.encode(&request.request),
            "signerName": KUBE_API_SERVER_CLIENT_SIGNER,
            "usages": ["digital signature", "key encipherment", "client auth"],
        },
    });
    if expiration_seconds > 0 {
        object["spec"]["expirationSeconds"] = expiration_seconds.into();
    }
    let created: Value = objects::create(hub, PATH, &object).await?;
    Ok(created["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

/// Waits until the request is decided, for as long as that takes. The certificate is checked against what was asked for.
/// `now` is the hub's time.
pub async fn wait(
    hub: &Client,
    name: &str,
    user: &str,
    now: &(dyn Fn() -> Timestamp + Send + Sync),
) -> Result<Vec<u8>, CsrError> {
    let api: Api<CertificateSigningRequest> = Api::all(hub.clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, config).boxed();
    let mut backoff = crate::work::Backoff::default();
    let mut listed = false;
    loop {
        match events.next().await {
            Some(Ok(watcher::Event::InitApply(csr) | watcher::Event::Apply(csr)))
                if csr.name_any() == name =>
            {
                listed = true;
                match progress(&csr) {
                    Progress::Waiting => {}
                    Progress::Denied(message) => {
                        return Err(CsrError::Denied {
                            name: name.into(),
                            message,
                        });
                    }
                    Progress::Failed(message) => {
                        return Err(CsrError::Failed {
                            name: name.into(),
                            message,
                        });
                    }
                    Progress::Issued(certificate) => return verified(certificate, user, now()),
                }
            }
            Some(Ok(watcher::Event::Init)) => listed = false,
            Some(Ok(watcher::Event::InitDone)) if !listed => return Err(CsrError::Deleted(name.into())),
            Some(Ok(watcher::Event::Delete(_))) | None => return Err(CsrError::Deleted(name.into())),
            Some(Ok(_)) => {}
            // A credential that is refused stays refused: whoever waits must look for another.
            Some(Err(watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)))
                if matches!(&error, kube::Error::Api(status) if status.code == 401) =>
            {
                return Err(RequestError::Kube(Box::new(error)).into());
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "the certificate signing request can not be watched, it goes on");
                backoff.wait().await;
            }
        }
    }
}

fn verified(pem: Vec<u8>, user: &str, now: Timestamp) -> Result<Vec<u8>, CsrError> {
    let (subject, validity) = certificate(&pem).map_err(CsrError::Wrong)?;
    if subject != user {
        return Err(CsrError::Wrong(format!(
            "the certificate is for {subject:?}, not {user:?}"
        )));
    }
    if validity.not_after <= now {
        return Err(CsrError::Wrong(format!(
            "the certificate expired at {}",
            validity.not_after
        )));
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::FromDer as _;

    #[test]
    fn the_request_carries_user_and_both_groups_and_is_signed() {
        let made = request("c1", "a1").unwrap();
        let der = pem::parse(&made.request).unwrap();
        let (_, csr) =
            x509_parser::certification_request::X509CertificationRequest::from_der(der.contents()).unwrap();
        csr.verify_signature().unwrap();
        let subject = &csr.certification_request_info.subject;
        let names = |it: &mut dyn Iterator<Item = &x509_parser::x509::AttributeTypeAndValue<'_>>| {
            it.map(|a| a.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            names(&mut subject.iter_common_name()),
            ["system:open-cluster-management:c1:a1"]
        );
        assert_eq!(
            names(&mut subject.iter_organization()),
            [
                "system:open-cluster-management:c1",
                "system:open-cluster-management:managed-clusters"
            ]
        );
        assert!(made.key.starts_with("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn others_requests_keep_nobody_from_renewing() {
        let user = names::user("c1", "a1");
        let csr = |by: &str, agent: &str, decided: bool| {
            let request = request("c1", agent).unwrap().request;
            let conditions = if decided {
                json!([{"type": "Denied"}])
            } else {
                json!([])
            };
            json!({"spec": {"username": by, "request": STANDARD.encode(request)},
                "status": {"conditions": conditions}})
        };
        let token = "system:bootstrap:abcdef";
        for (what, csr, renewals, first) in [
            ("its renewal", csr(&user, "a1", false), true, true),
            ("an earlier one", csr(&user, "a1", true), true, true),
            ("its first one", csr(token, "a1", true), false, true),
            ("another's, denied", csr(token, "a2", true), false, false),
            ("another's, undecided", csr(token, "a2", false), false, true),
            (
                "no request",
                json!({"spec": {"request": "eA=="}, "status": {"conditions": [{}]}}),
                false,
                false,
            ),
        ] {
            assert_eq!(Counted::Renewals.counts(&csr, &user), renewals, "{what}");
            assert_eq!(Counted::First.counts(&csr, &user), first, "{what}");
        }
    }

    #[test]
    fn progress_of_a_request() {
        let csr = |status: Value| -> CertificateSigningRequest {
            serde_json::from_value(
                json!({"metadata": {}, "spec": {"request": "", "signerName": "s"}, "status": status}),
            )
            .unwrap()
        };
        let condition = |t: &str| json!([{"type": t, "status": "True", "message": "m"}]);
        assert_eq!(progress(&csr(Value::Null)), Progress::Waiting);
        assert_eq!(
            progress(&csr(json!({"conditions": condition("Approved")}))),
            Progress::Waiting
        );
        assert_eq!(
            progress(&csr(json!({"conditions": condition("Denied")}))),
            Progress::Denied("m".into())
        );
        assert_eq!(
            progress(&csr(json!({"conditions": condition("Failed")}))),
            Progress::Failed("m".into())
        );
        assert_eq!(progress(&csr(json!({"certificate": "YQ=="}))), Progress::Waiting);
        let issued = csr(json!({"conditions": condition("Approved"), "certificate": "YQ=="}));
        assert_eq!(progress(&issued), Progress::Issued(b"a".to_vec()));
    }
}
