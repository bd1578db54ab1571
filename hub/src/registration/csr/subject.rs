//! Who a certificate request makes its holder. Readers of requests differ in what they skip and in what they take the first of;
//! the one that signs must see the request that was looked at, so what any of them could read otherwise is not read at all.

use std::collections::BTreeSet;

use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::ParsedExtension,
    oid_registry::{
        OID_PKCS9_EXTENSION_REQUEST, OID_X509_COMMON_NAME, OID_X509_EXT_SUBJECT_ALT_NAME,
        OID_X509_ORGANIZATION_NAME,
    },
    pem::Pem,
    prelude::FromDer,
};

use super::Reason;

/// CN and all O of the request.
pub fn read(request: &[u8]) -> Result<(String, BTreeSet<String>), Reason> {
    if !is_one_plain_block(request) {
        return Err(Reason::Unreadable);
    }
    let mut blocks = Pem::iter_from_buffer(request);
    let (Some(Ok(block)), None) = (blocks.next(), blocks.next()) else {
        return Err(Reason::Unreadable);
    };
    if block.label != BLOCK {
        return Err(Reason::Unreadable);
    }
    let (rest, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|_| Reason::Unreadable)?;
    if !rest.is_empty() {
        return Err(Reason::Unreadable);
    }
    // Every attribute: signers gather what is asked for from all of them, not from the first.
    for attribute in request.certification_request_info.iter_attributes() {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(asked) => {
                for extension in &asked.extensions {
                    if extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME {
                        return Err(Reason::AlternativeNames);
                    }
                    match extension.parsed_extension() {
                        ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                            return Err(Reason::Authority);
                        }
                        ParsedExtension::ParseError { .. } => return Err(Reason::Unreadable),
                        _ => {}
                    }
                }
            }
            _ if attribute.oid == OID_PKCS9_EXTENSION_REQUEST => return Err(Reason::Unreadable),
            _ => {}
        }
    }
    let subject = &request.certification_request_info.subject;
    let refuse = || Reason::Subject(subject.to_string());
    let (mut user, mut groups) = (None, BTreeSet::new());
    for attribute in subject.iter_attributes() {
        let value = attribute.as_str().map_err(|_| refuse())?.to_owned();
        let oid = attribute.attr_type();
        if *oid == OID_X509_COMMON_NAME && user.is_none() {
            user = Some(value);
        } else if *oid == OID_X509_ORGANIZATION_NAME {
            groups.insert(value);
        } else {
            return Err(refuse());
        }
    }
    Ok((user.ok_or_else(refuse)?, groups))
}

/// The label of a request's PEM block.
const BLOCK: &str = "CERTIFICATE REQUEST";

/// Whether there is one block and nothing beside it, without headers: readers of PEM differ in what they skip, and the
/// one that signs must see the request that was looked at.
fn is_one_plain_block(request: &[u8]) -> bool {
    let base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=\r\n".contains(&b);
    std::str::from_utf8(request)
        .ok()
        .and_then(|text| {
            text.trim_end()
                .strip_prefix("-----BEGIN CERTIFICATE REQUEST-----")
        })
        .and_then(|text| text.strip_suffix("-----END CERTIFICATE REQUEST-----"))
        .is_some_and(|body| body.starts_with(['\r', '\n']) && body.bytes().all(base64))
}
