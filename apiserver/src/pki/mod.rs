//! The cluster's certificate authority: who may speak TLS with whom, and as whom.
//!
//! A certificate's CN is a user and every O of it a group, as in Kubernetes. The CA lives in the data directory (or in
//! memory, and dies with the process); its key never leaves this module.

mod der;
mod file;
pub mod request;
mod usage;

#[cfg(test)]
mod tests;

pub use file::write_private;
pub use rcgen::KeyPair;
pub use request::Request;
pub use usage::Usages;

use jiff::Timestamp;
use rcgen::PublicKeyData;
use ring::digest::{SHA256, digest};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// File of the CA's certificate in the directory it is kept in.
pub const CA_CERT_FILE: &str = "ca.crt";
/// File of the CA's key.
pub const CA_KEY_FILE: &str = "ca.key";

/// Certificates begin this long before they were asked for, so that a client whose clock is behind can use them.
const BACKDATE: i64 = 5 * 60;
/// How long a CA is good for: ten years.
const CA_TTL: i64 = 10 * 365 * 24 * 3600;
/// How long the server's own certificate is good for: one year. It is renewed while the server runs.
pub const SERVER_TTL: Duration = Duration::from_secs(365 * 24 * 3600);
/// Names every API server answers to, besides those configured: loopback, and the `kubernetes` Service.
pub const SERVER_NAMES: &[&str] = &[
    "localhost",
    "127.0.0.1",
    "::1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "10.96.0.1",
];

/// Why a certificate or key could not be made, read or kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// The operating system gave no randomness.
    #[error("no random numbers from the operating system")]
    Random,
    /// A key is unusable.
    #[error("unusable key: {0}")]
    Key(String),
    /// A time (unix seconds) that no certificate can hold.
    #[error("a certificate cannot hold the time {0}")]
    Time(i64),
    /// A key usage that does not exist.
    #[error("unknown key usage {0:?}")]
    Usage(String),
    /// A signing request is unusable.
    #[error("unusable certificate signing request: {0}")]
    Request(String),
    /// A certificate is unusable.
    #[error("unusable certificate: {0}")]
    Certificate(String),
    /// The CA has no life left to give.
    #[error("the certificate authority expired at {0}")]
    Expired(Timestamp),
    /// A file could not be read or written; with its path.
    #[error("{0}")]
    File(String),
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    /// Certificate chain, leaf first.
    pub cert_pem: String,
    /// PKCS #8 key.
    pub key_pem: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("cert_pem", &self.cert_pem)
            .finish_non_exhaustive()
    }
}

/// Who a client certificate speaks for. Only made of a certificate that chains to the CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCert {
    /// User name.
    pub common_name: String,
    /// Groups, every O in order.
    pub organizations: Vec<String>,
    /// First second it is valid, unix time.
    pub not_before: i64,
    /// Last second it is valid, unix time.
    pub not_after: i64,
    /// SHA-256 of the whole certificate, in hex.
    pub fingerprint: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

impl ClientCert {
    /// Reads the identity of a certificate. Whether it can be trusted is for the caller to have found out.
    pub fn from_der(der: &[u8]) -> Result<Self, PkiError> {
        let bad = |what: &str| PkiError::Certificate(what.to_owned());
        let (_, cert) = X509Certificate::from_der(der).map_err(|_| bad("it does not parse"))?;
        let (common_name, organizations) =
            request::identity(cert.subject()).ok_or_else(|| bad("its subject is not text"))?;
        Ok(Self {
            common_name,
            organizations,
            not_before: cert.validity().not_before.timestamp(),
            not_after: cert.validity().not_after.timestamp(),
            fingerprint: hex(digest(&SHA256, der).as_ref()),
        })
    }

    /// Whether `now` is within its life.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now.as_second())
    }
}

/// The certificate authority. Clones share it.
#[derive(Clone)]
pub struct Ca(Arc<Authority>);

struct Authority {
    key: KeyPair,
    der: Vec<u8>,
    pem: String,
    subject: Vec<u8>,
    not_after: i64,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca")
            .field("not_after", &self.0.not_after)
            .finish_non_exhaustive()
    }
}

impl Ca {
    /// The CA kept in `dir` (made when it is not there, key first), or a new one in memory.
    ///
    /// A key without certificate is a creation that was interrupted, and is finished. A certificate without its key, or with
    /// another's, is an error: making a new CA would lock out every client.
    pub fn load_or_create(dir: Option<&Path>, now: Timestamp) -> Result<Self, PkiError> {
        let Some(dir) = dir else {
            return Self::self_signed(new_key()?, now);
        };
        std::fs::create_dir_all(dir).map_err(|e| PkiError::File(format!("{}: {e}", dir.display())))?;
        let key = load_or_create_key(&dir.join(CA_KEY_FILE), || !dir.join(CA_CERT_FILE).exists())?;
        let cert_path = dir.join(CA_CERT_FILE);
        let ca = if let Some(pem) = read(&cert_path)? {
            Self::from_pem(&pem, key).map_err(|e| PkiError::File(format!("{}: {e}", cert_path.display())))?
        } else {
            let ca = Self::self_signed(key, now)?;
            write_private(&cert_path, ca.pem().as_bytes()).map_err(|e| PkiError::File(e.to_string()))?;
            ca
        };
        if ca.0.not_after < now.as_second() {
            return Err(PkiError::Expired(ca.not_after()));
        }
        Ok(ca)
    }

    fn self_signed(key: KeyPair, now: Timestamp) -> Result<Self, PkiError> {
        let spki = key.subject_public_key_info();
        // The name tells one cluster's CA from another's, for people and for clients that pick a certificate by issuer.
        let id = der::key_id(&spki)[..4]
            .iter()
            .fold(0, |id, b| id << 8 | u32::from(*b));
        let subject = der::name(&format!("muster-ca-{id:08x}"), &[]);
        let not_after = now.as_second() + CA_TTL;
        let leaf = der::Leaf {
            subject: &subject,
            spki: &spki,
            not_before: now.as_second() - BACKDATE,
            not_after,
            usages: Usages::ca(),
            alt_names: None,
            is_ca: true,
        };
        let cert = der::certificate(
            &leaf,
            &der::Issuer {
                name: &subject,
                key: &key,
            },
        )?;
        let pem = to_pem("CERTIFICATE", cert.clone());
        Ok(Self(Arc::new(Authority {
            key,
            der: cert,
            pem,
            subject,
            not_after,
        })))
    }

    fn from_pem(text: &str, key: KeyPair) -> Result<Self, PkiError> {
        let bad = |what: &str| PkiError::Certificate(what.to_owned());
        let block = pem::parse(text).map_err(|_| bad("it is not PEM"))?;
        let (_, cert) = X509Certificate::from_der(block.contents()).map_err(|_| bad("it does not parse"))?;
        if cert.public_key().raw != key.subject_public_key_info() {
            return Err(bad("it does not belong to the key beside it"));
        }
        let subject = cert.subject().as_raw().to_vec();
        let not_after = cert.validity().not_after.timestamp();
        let der = block.contents().to_vec();
        Ok(Self(Arc::new(Authority {
            key,
            pem: to_pem("CERTIFICATE", der.clone()),
            der,
            subject,
            not_after,
        })))
    }

    /// Its certificate, PEM: what clients trust.
    pub fn pem(&self) -> &str {
        &self.0.pem
    }

    /// Its certificate, DER.
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// Its end; nothing it issues lives longer.
    pub fn not_after(&self) -> Timestamp {
        Timestamp::from_second(self.0.not_after).unwrap_or(Timestamp::MAX)
    }

    /// A certificate and new key for this server: [`SERVER_NAMES`] and `names`, each a DNS name or an address.
    pub fn issue_server(&self, names: &[String], now: Timestamp) -> Result<Pair, PkiError> {
        let mut all: Vec<String> = SERVER_NAMES.iter().map(|&n| n.to_owned()).collect();
        for name in names {
            if !name.is_ascii() || name.is_empty() {
                return Err(PkiError::Certificate(format!(
                    "{name:?} is no DNS name and no address"
                )));
            }
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        let subject = der::name("kube-apiserver", &[]);
        self.issue(
            &subject,
            Usages::server(),
            Some(der::alt_names(&all)),
            SERVER_TTL,
            now,
        )
    }

    /// A certificate and new key for user `common_name` in groups `organizations`.
    pub fn issue_client(
        &self,
        common_name: &str,
        organizations: &[&str],
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Pair, PkiError> {
        self.issue(
            &der::name(common_name, organizations),
            Usages::client(),
            None,
            ttl,
            now,
        )
    }

    fn issue(
        &self,
        subject: &[u8],
        usages: Usages,
        alt_names: Option<Vec<u8>>,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Pair, PkiError> {
        let key = new_key()?;
        let spki = key.subject_public_key_info();
        let cert_pem = self.sign(subject, &spki, usages, alt_names, ttl, now)?;
        Ok(Pair {
            cert_pem,
            key_pem: key.serialize_pem(),
        })
    }

    /// Signs a request: its subject and key byte for byte, its alternative names, `usages`; from five minutes before `now`
    /// for `ttl`, which the CA's own end cuts short. PEM.
    ///
    /// Whether the subject may have what it asks for is for the approver to have decided.
    pub fn sign_csr(
        &self,
        request: &Request,
        usages: Usages,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<String, PkiError> {
        self.sign(
            &request.subject,
            &request.spki,
            usages,
            request.alt_names.clone(),
            ttl,
            now,
        )
    }

    fn sign(
        &self,
        subject: &[u8],
        spki: &[u8],
        usages: Usages,
        alt_names: Option<Vec<u8>>,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<String, PkiError> {
        let start = now.as_second();
        if start >= self.0.not_after {
            return Err(PkiError::Expired(self.not_after()));
        }
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let leaf = der::Leaf {
            subject,
            spki,
            not_before: start - BACKDATE,
            not_after: start.saturating_add(seconds).min(self.0.not_after),
            usages,
            alt_names,
            is_ca: false,
        };
        let issuer = der::Issuer {
            name: &self.0.subject,
            key: &self.0.key,
        };
        Ok(to_pem("CERTIFICATE", der::certificate(&leaf, &issuer)?))
    }
}

/// A new ECDSA P-256 key.
pub fn new_key() -> Result<KeyPair, PkiError> {
    KeyPair::generate().map_err(|e| PkiError::Key(e.to_string()))
}

/// The key kept in `path`; a new one when there is none and `may_create` agrees.
pub(crate) fn load_or_create_key(path: &Path, may_create: impl Fn() -> bool) -> Result<KeyPair, PkiError> {
    if let Some(text) = read(path)? {
        // The parser's error is not shown: it could quote the file.
        return KeyPair::from_pem(&text)
            .map_err(|_| PkiError::Key(format!("{}: not a PKCS #8 key", path.display())));
    }
    if !may_create() {
        return Err(PkiError::File(format!("{} is missing", path.display())));
    }
    let key = new_key()?;
    write_private(path, key.serialize_pem().as_bytes()).map_err(|e| PkiError::File(e.to_string()))?;
    Ok(key)
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(PkiError::File(format!("{}: {e}", path.display()))),
    }
}

fn to_pem(tag: &str, der: Vec<u8>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(tag, der), config)
}
