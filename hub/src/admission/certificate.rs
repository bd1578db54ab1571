//! The webhook's certificates: an authority of the hub's own, and a serving certificate by it.
//!
//! Both live in one Secret, so that all replicas of the hub serve with the same and a change is whole. A new authority
//! is trusted for a while before anything is served with it, and the one before as long as it lives: whoever calls with
//! a bundle a little older or newer than the certificate they meet goes on without an error.

use std::{collections::BTreeMap, fmt};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// Keys of the Secret: authority and its key, every authority that is trusted, serving certificate and its key.
const KEYS: [&str; 5] = ["ca.crt", "ca.key", "ca-bundle.crt", "tls.crt", "tls.key"];
/// Certificates begin before they are made: clocks differ.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// How long certificates live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// The authority.
    pub authority: SignedDuration,
    /// The serving certificate: at most a third of the authority's.
    pub serving: SignedDuration,
    /// How long an authority is trusted before anything is served with it.
    pub settle: SignedDuration,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            authority: SignedDuration::from_hours(365 * 24),
            serving: SignedDuration::from_hours(60 * 24),
            settle: SignedDuration::from_mins(10),
        }
    }
}

/// What the Secret holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    authority: String,
    authority_key: String,
    /// Newest first.
    bundle: Vec<String>,
    /// The serving certificate, PEM.
    pub serving: String,
    /// Its key, PEM.
    pub serving_key: String,
}

/// Without its keys.
impl fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Kept")
            .field("serving", &self.serving)
            .finish_non_exhaustive()
    }
}

/// What is to be done about the certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing before then.
    Nothing(Timestamp),
    /// A new authority; what is served stays as it is.
    Authority,
    /// A new serving certificate by the newest authority.
    Serving,
    /// All of it.
    Everything,
}

/// What matters of a certificate.
struct Facts {
    not_before: Timestamp,
    not_after: Timestamp,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    key: Vec<u8>,
    names: Vec<String>,
}

impl Facts {
    fn of(pem: &str) -> Option<Self> {
        let block = pem::parse(pem).ok()?;
        let (_, certificate) = X509Certificate::from_der(block.contents()).ok()?;
        let time = |seconds: i64| Timestamp::from_second(seconds).ok();
        let names = certificate
            .subject_alternative_name()
            .ok()?
            .map_or_else(Vec::new, |names| {
                names
                    .value
                    .general_names
                    .iter()
                    .filter_map(alternative_name)
                    .collect()
            });
        Some(Self {
            not_before: time(certificate.validity().not_before.timestamp())?,
            not_after: time(certificate.validity().not_after.timestamp())?,
            subject: certificate.subject().as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
            key: certificate.public_key().raw.to_vec(),
            names,
        })
    }

    /// With a third of its life left it is replaced.
    fn replace_at(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.made());
        self.not_after.saturating_sub(life / 3).unwrap_or(self.not_after)
    }

    fn made(&self) -> Timestamp {
        self.not_before
            .saturating_add(BACKDATE)
            .unwrap_or(self.not_before)
    }
}

fn alternative_name(name: &x509_parser::extensions::GeneralName<'_>) -> Option<String> {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|bytes| std::net::IpAddr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|bytes| std::net::IpAddr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    }
}

impl Kept {
    /// Reads a Secret's data; nothing when any of it is missing or does not belong together.
    pub fn read(data: &BTreeMap<String, ByteString>) -> Option<Self> {
        let [authority, authority_key, bundle, serving, serving_key] =
            KEYS.map(|key| String::from_utf8(data.get(key)?.0.clone()).ok());
        let bundle = pem::parse_many(bundle?).ok()?;
        let kept = Self {
            authority: pem::parse(authority?)
                .ok()
                .map(|block| to_pem(block.tag(), block.contents()))?,
            authority_key: authority_key?,
            bundle: bundle
                .iter()
                .map(|block| to_pem(block.tag(), block.contents()))
                .collect(),
            serving: serving?,
            serving_key: serving_key?,
        };
        let pairs = |certificate: &str, key: &str| {
            let key = KeyPair::from_pem(key).ok()?;
            (Facts::of(certificate)?.key == rcgen::PublicKeyData::subject_public_key_info(&key)).then_some(())
        };
        pairs(&kept.authority, &kept.authority_key)?;
        pairs(&kept.serving, &kept.serving_key)?;
        kept.bundle.contains(&kept.authority).then_some(kept)
    }

    /// The data of the Secret.
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let bundle = self.bundle();
        let values = [
            &self.authority,
            &self.authority_key,
            &bundle,
            &self.serving,
            &self.serving_key,
        ];
        KEYS.iter()
            .zip(values)
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.clone().into_bytes())))
            .collect()
    }

    /// All that is trusted, PEM.
    pub fn bundle(&self) -> String {
        self.bundle.concat()
    }

    /// The names the serving certificate is for.
    pub fn names(&self) -> Vec<String> {
        Facts::of(&self.serving)
            .map(|facts| facts.names)
            .unwrap_or_default()
    }
}

/// What is due at `now`, for a server that is called by these names.
pub fn due(kept: Option<&Kept>, names: &[String], lives: Lives, now: Timestamp) -> Due {
    let facts = kept.and_then(|kept| Some((Facts::of(&kept.authority)?, Facts::of(&kept.serving)?)));
    let Some((authority, serving)) = facts else {
        return Due::Everything;
    };
    if authority.not_after <= now {
        return Due::Everything;
    }
    // Two authorities never have the same name.
    let served = serving.issuer == authority.subject;
    let settled = authority
        .made()
        .saturating_add(lives.settle)
        .unwrap_or(Timestamp::MAX);
    if names.iter().any(|name| !serving.names.contains(name)) {
        return Due::Serving;
    }
    if served && authority.replace_at() <= now && now < serving.replace_at() {
        return Due::Authority;
    }
    // Not everybody may know the newest authority yet; who waits for it must not wait too long.
    let waits = !served && now < settled && settled < serving.not_after;
    if waits {
        return Due::Nothing(settled);
    }
    if !served || serving.replace_at() <= now {
        return Due::Serving;
    }
    Due::Nothing(serving.replace_at().min(authority.replace_at()))
}

/// Does what is due; nothing when nothing is.
pub fn renew(
    kept: Option<&Kept>,
    due: Due,
    names: &[String],
    lives: Lives,
    now: Timestamp,
) -> Result<Option<Kept>, rcgen::Error> {
    let next = match (due, kept) {
        (Due::Nothing(_), Some(_)) => return Ok(None),
        (Due::Authority, Some(kept)) => {
            let (authority, authority_key) = authority(lives, now)?;
            let bundle = trusted(&authority, &kept.bundle, now);
            Kept {
                authority,
                authority_key,
                bundle,
                ..kept.clone()
            }
        }
        (Due::Serving, Some(kept)) => {
            // Another replica may be called by other names. What nobody needs goes with the next renewal in time.
            let early = Facts::of(&kept.serving).is_some_and(|facts| now < facts.replace_at());
            let mut names = names.to_vec();
            if early {
                names.extend(
                    kept.names()
                        .into_iter()
                        .filter(|name| !names.contains(name))
                        .collect::<Vec<_>>(),
                );
            }
            let (serving, serving_key) = serving(&kept.authority, &kept.authority_key, names, lives, now)?;
            Kept {
                bundle: trusted(&kept.authority, &kept.bundle, now),
                serving,
                serving_key,
                ..kept.clone()
            }
        }
        (_, kept) => {
            let (authority, authority_key) = authority(lives, now)?;
            let (serving, serving_key) = serving(&authority, &authority_key, names.to_vec(), lives, now)?;
            let before = kept.map(|kept| kept.bundle.as_slice()).unwrap_or_default();
            Kept {
                bundle: trusted(&authority, before, now),
                authority,
                authority_key,
                serving,
                serving_key,
            }
        }
    };
    Ok(Some(next))
}

/// The newest authority and those before it that still live.
fn trusted(newest: &str, before: &[String], now: Timestamp) -> Vec<String> {
    let lives = |pem: &&String| Facts::of(pem).is_some_and(|facts| facts.not_after > now);
    let mut all = vec![newest.to_owned()];
    all.extend(before.iter().filter(lives).filter(|pem| *pem != newest).cloned());
    all
}

fn authority(lives: Lives, now: Timestamp) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    let name = format!("muster-webhook-ca-{}", now.as_nanosecond());
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    span(
        &mut params,
        now,
        now.saturating_add(lives.authority).unwrap_or(Timestamp::MAX),
    );
    let certificate = params.self_signed(&key)?;
    Ok((
        to_pem("CERTIFICATE", certificate.der()),
        to_pem("PRIVATE KEY", &key.serialize_der()),
    ))
}

fn serving(
    authority: &str,
    authority_key: &str,
    names: Vec<String>,
    lives: Lives,
    now: Timestamp,
) -> Result<(String, String), rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(authority, KeyPair::from_pem(authority_key)?)?;
    let end = Facts::of(authority).map_or(now, |facts| facts.not_after);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "muster-webhook");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    span(
        &mut params,
        now,
        now.saturating_add(lives.serving).unwrap_or(end).min(end),
    );
    let certificate = params.signed_by(&key, &issuer)?;
    Ok((
        to_pem("CERTIFICATE", certificate.der()),
        to_pem("PRIVATE KEY", &key.serialize_der()),
    ))
}

fn span(params: &mut CertificateParams, now: Timestamp, end: Timestamp) {
    let begin = now.saturating_sub(BACKDATE).unwrap_or(now);
    let time = |time: Timestamp| {
        time::OffsetDateTime::from_unix_timestamp(time.as_second())
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
    };
    params.not_before = time(begin);
    params.not_after = time(end);
}

/// One block, PEM, with the line ends of everybody else.
fn to_pem(label: &str, contents: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, contents), config)
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
