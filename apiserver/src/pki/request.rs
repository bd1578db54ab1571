//! Certificate signing requests: writing one, and reading one that came from outside.

use super::{PkiError, der};
use rcgen::KeyPair;
use std::net::IpAddr;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Name};

/// Longest request that is looked at, in bytes. The largest sane one (RSA-8192, many names) is a tenth of it.
const MAX_REQUEST: usize = 64 * 1024;

/// A signing request for `common_name` in `organizations` (all of them, in order), PEM. The key must be ECDSA P-256.
pub fn write(common_name: &str, organizations: &[&str], key: &KeyPair) -> Result<String, PkiError> {
    let der = der::request(&der::name(common_name, organizations), key)?;
    Ok(super::to_pem("CERTIFICATE REQUEST", der))
}

/// What a signing request asks for. Its signature has been checked: the sender has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The last CN of the subject, `""` when there is none.
    pub common_name: String,
    /// Every O of the subject, in order.
    pub organizations: Vec<String>,
    /// DNS names asked for.
    pub dns_names: Vec<String>,
    /// Addresses asked for.
    pub ip_addresses: Vec<IpAddr>,
    /// Mail addresses asked for.
    pub emails: Vec<String>,
    /// URIs asked for.
    pub uris: Vec<String>,
    pub(super) subject: Vec<u8>,
    pub(super) spki: Vec<u8>,
    pub(super) alt_names: Option<Vec<u8>>,
}

impl Request {
    /// Reads PEM or DER and checks its signature.
    pub fn parse(input: &[u8]) -> Result<Self, PkiError> {
        let bad = |what: &str| PkiError::Request(what.to_owned());
        if input.len() > MAX_REQUEST {
            return Err(bad("it is too large"));
        }
        let der = if input.first() == Some(&0x30) {
            input.to_vec()
        } else {
            let block = pem::parse(input).map_err(|_| bad("it is neither PEM nor DER"))?;
            if !matches!(block.tag(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
                return Err(bad("PEM block type must be CERTIFICATE REQUEST"));
            }
            block.into_contents()
        };
        let (rest, csr) = X509CertificationRequest::from_der(&der).map_err(|_| bad("it does not parse"))?;
        if !rest.is_empty() {
            return Err(bad("there are bytes behind it"));
        }
        csr.verify_signature()
            .map_err(|_| bad("its signature does not fit its key"))?;
        let info = &csr.certification_request_info;
        let (common_name, organizations) =
            identity(&info.subject).ok_or_else(|| bad("its subject is not text"))?;
        let mut request = Self {
            common_name,
            organizations,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            emails: Vec::new(),
            uris: Vec::new(),
            subject: info.subject.as_raw().to_vec(),
            spki: info.subject_pki.raw.to_vec(),
            alt_names: None,
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(wanted) = attribute.parsed_attribute() else {
                continue;
            };
            for extension in &wanted.extensions {
                if extension.oid != OID_X509_EXT_SUBJECT_ALT_NAME {
                    continue;
                }
                let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                    return Err(bad("its alternative names do not parse"));
                };
                if request.alt_names.replace(extension.value.to_vec()).is_some() {
                    return Err(bad("it has alternative names twice"));
                }
                for name in &names.general_names {
                    request.add(name)?;
                }
            }
        }
        Ok(request)
    }

    fn add(&mut self, name: &GeneralName<'_>) -> Result<(), PkiError> {
        match name {
            GeneralName::DNSName(n) => self.dns_names.push((*n).to_owned()),
            GeneralName::RFC822Name(n) => self.emails.push((*n).to_owned()),
            GeneralName::URI(n) => self.uris.push((*n).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let ip = match bytes.len() {
                    4 => <[u8; 4]>::try_from(*bytes).map(IpAddr::from),
                    _ => <[u8; 16]>::try_from(*bytes).map(IpAddr::from),
                };
                self.ip_addresses
                    .push(ip.map_err(|_| PkiError::Request("it names a bad address".into()))?);
            }
            // Copied raw, a name of a kind nobody looked at would get the CA's word.
            _ => {
                return Err(PkiError::Request(
                    "it has an alternative name of an unsupported kind".into(),
                ));
            }
        }
        Ok(())
    }
}

/// CN (the last, as Go takes it) and every O of a name; `None` when one is not text.
pub(super) fn identity(name: &X509Name<'_>) -> Option<(String, Vec<String>)> {
    let mut common_name = String::new();
    for cn in name.iter_common_name() {
        cn.as_str().ok()?.clone_into(&mut common_name);
    }
    let organizations = name
        .iter_organization()
        .map(|o| o.as_str().map(str::to_owned))
        .collect::<Result<_, _>>();
    Some((common_name, organizations.ok()?))
}
