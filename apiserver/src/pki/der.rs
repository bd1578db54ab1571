//! The one place that writes X.509: certificates and signing requests, byte for byte.
//!
//! rcgen keeps a name as a map, so of several organisations only the last survives. Here every O is a group, so names are
//! written (or copied raw) by hand. Structures: RFC 5280 (certificates), RFC 2986 (requests), RFC 5758 (ECDSA).

use super::PkiError;
use super::usage::Usages;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use std::net::IpAddr;
use time::OffsetDateTime;
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, DERWriterSeq, Tag, construct_der};

const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const SUBJECT_KEY_ID: &[u64] = &[2, 5, 29, 14];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY_ID: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const ECDSA_WITH_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];

/// Bits of a certificate serial number: positive, unguessable, well under the 20 bytes RFC 5280 allows.
const SERIAL_BYTES: usize = 16;

/// What a certificate says, everything but the issuer's signature.
pub(super) struct Leaf<'a> {
    /// DER of the subject, copied or from [`name`].
    pub subject: &'a [u8],
    /// DER of the SubjectPublicKeyInfo.
    pub spki: &'a [u8],
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
    /// Key usages.
    pub usages: Usages,
    /// DER of the subjectAltName extension's value, `None` to leave it out.
    pub alt_names: Option<Vec<u8>>,
    /// Whether it may issue.
    pub is_ca: bool,
}

/// Who signs: the raw subject of the issuing certificate and its key.
pub(super) struct Issuer<'a> {
    /// DER of the issuer's subject.
    pub name: &'a [u8],
    /// Its key.
    pub key: &'a KeyPair,
}

fn oid(parts: &[u64]) -> ObjectIdentifier {
    ObjectIdentifier::from_slice(parts)
}

/// DER of a name: each O an RDN of its own in the order given, then CN.
pub(super) fn name(common_name: &str, organizations: &[&str]) -> Vec<u8> {
    construct_der(|w| {
        w.write_sequence(|rdns| {
            let all = organizations
                .iter()
                .map(|o| (ORGANIZATION, *o))
                .chain([(COMMON_NAME, common_name)]);
            for (kind, value) in all {
                rdns.next().write_set(|set| {
                    set.next().write_sequence(|pair| {
                        pair.next().write_oid(&oid(kind));
                        pair.next().write_utf8_string(value);
                    });
                });
            }
        });
    })
}

/// DER of a subjectAltName value: what parses as an address is an address, everything else a DNS name.
pub(super) fn alt_names(names: &[String]) -> Vec<u8> {
    construct_der(|w| {
        w.write_sequence(|list| {
            for n in names {
                match n.parse::<IpAddr>() {
                    Ok(IpAddr::V4(ip)) => implicit(list.next(), 7, &ip.octets()),
                    Ok(IpAddr::V6(ip)) => implicit(list.next(), 7, &ip.octets()),
                    Err(_) => list
                        .next()
                        .write_tagged_implicit(Tag::context(2), |w| w.write_ia5_string(n)),
                }
            }
        });
    })
}

fn implicit(writer: DERWriter<'_>, tag: u64, bytes: &[u8]) {
    writer.write_tagged_implicit(Tag::context(tag), |w| w.write_bytes(bytes));
}

/// The key identifier of a public key: the first 20 bytes of the SHA-256 of it (RFC 7093 method 1, over the whole SPKI).
pub(super) fn key_id(spki: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, spki).as_ref()[..20].to_vec()
}

/// Writes and signs a certificate; DER.
pub(super) fn certificate(leaf: &Leaf<'_>, issuer: &Issuer<'_>) -> Result<Vec<u8>, PkiError> {
    let mut serial = [0u8; SERIAL_BYTES];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut serial)
        .map_err(|_| PkiError::Random)?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let (not_before, not_after) = (instant(leaf.not_before)?, instant(leaf.not_after)?);
    let tbs = construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_tagged(Tag::context(0), |w| w.write_u8(2));
            w.next().write_bigint_bytes(&serial, true);
            write_ecdsa_with_sha256(w.next());
            w.next().write_der(issuer.name);
            w.next().write_sequence(|w| {
                write_time(w.next(), not_before);
                write_time(w.next(), not_after);
            });
            w.next().write_der(leaf.subject);
            w.next().write_der(leaf.spki);
            w.next().write_tagged(Tag::context(3), |w| {
                w.write_sequence(|w| write_extensions(w, leaf, issuer));
            });
        });
    });
    signed(&tbs, issuer.key)
}

fn write_extensions(w: &mut DERWriterSeq<'_>, leaf: &Leaf<'_>, issuer: &Issuer<'_>) {
    extension(
        w,
        BASIC_CONSTRAINTS,
        true,
        &construct_der(|w| {
            w.write_sequence(|w| {
                if leaf.is_ca {
                    w.next().write_bool(true);
                }
            });
        }),
    );
    if let Some((bytes, bits)) = leaf.usages.key_usage_bits() {
        extension(
            w,
            KEY_USAGE,
            true,
            &construct_der(|w| w.write_bitvec_bytes(&bytes, bits)),
        );
    }
    let extended = leaf.usages.extended();
    if !extended.is_empty() {
        extension(
            w,
            EXTENDED_KEY_USAGE,
            false,
            &construct_der(|w| {
                w.write_sequence(|w| extended.iter().for_each(|o| w.next().write_oid(&oid(o))));
            }),
        );
    }
    if leaf.is_ca {
        extension(
            w,
            SUBJECT_KEY_ID,
            false,
            &construct_der(|w| w.write_bytes(&key_id(leaf.spki))),
        );
    } else {
        let authority = key_id(&issuer.key.subject_public_key_info());
        extension(
            w,
            AUTHORITY_KEY_ID,
            false,
            &construct_der(|w| {
                w.write_sequence(|w| implicit(w.next(), 0, &authority));
            }),
        );
    }
    if let Some(names) = &leaf.alt_names {
        extension(w, SUBJECT_ALT_NAME, false, names);
    }
}

fn extension(w: &mut DERWriterSeq<'_>, kind: &[u64], critical: bool, value: &[u8]) {
    w.next().write_sequence(|w| {
        w.next().write_oid(&oid(kind));
        if critical {
            w.next().write_bool(true);
        }
        w.next().write_bytes(value);
    });
}

/// Writes and signs a certificate signing request; DER.
pub(super) fn request(subject: &[u8], key: &KeyPair) -> Result<Vec<u8>, PkiError> {
    let spki = key.subject_public_key_info();
    let info = construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_u8(0);
            w.next().write_der(subject);
            w.next().write_der(&spki);
            w.next()
                .write_tagged_implicit(Tag::context(0), |w| w.write_set_of(|_| ()));
        });
    });
    signed(&info, key)
}

fn signed(body: &[u8], key: &KeyPair) -> Result<Vec<u8>, PkiError> {
    if key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(PkiError::Key("only ECDSA P-256 keys sign here".into()));
    }
    let signature = key.sign(body).map_err(|e| PkiError::Key(e.to_string()))?;
    Ok(construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_der(body);
            write_ecdsa_with_sha256(w.next());
            w.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

fn write_ecdsa_with_sha256(w: DERWriter<'_>) {
    w.write_sequence(|w| w.next().write_oid(&oid(ECDSA_WITH_SHA256)));
}

fn instant(seconds: i64) -> Result<OffsetDateTime, PkiError> {
    let time = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| PkiError::Time(seconds))?;
    if (1950..10_000).contains(&time.year()) {
        Ok(time)
    } else {
        Err(PkiError::Time(seconds))
    }
}

/// RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime after.
fn write_time(w: DERWriter<'_>, time: OffsetDateTime) {
    if time.year() < 2050 {
        w.write_utctime(&UTCTime::from_datetime(time));
    } else {
        w.write_generalized_time(&GeneralizedTime::from_datetime(time));
    }
}
