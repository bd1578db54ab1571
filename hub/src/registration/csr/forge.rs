//! Certificate requests as nobody honest writes them, for tests.

use k8s_openapi::ByteString;
use rcgen::KeyPair;
use yasna::{Tag, models::ObjectIdentifier};

/// A request with any attributes, any number of times. It is not signed: that is the API server's to check.
pub fn request(attributes: &[(&[u64], &str)]) -> Vec<u8> {
    asking(attributes, &[])
}

/// The same, with an attribute that asks for each of these extensions.
pub fn asking(attributes: &[(&[u64], &str)], extensions: &[(&[u64], &[u8])]) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let der = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_sequence(|writer| {
                writer.next().write_u8(0);
                writer.next().write_sequence(|writer| {
                    for (oid, value) in attributes {
                        writer.next().write_set(|writer| {
                            writer.next().write_sequence(|writer| {
                                writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
                                writer.next().write_utf8_string(value);
                            });
                        });
                    }
                });
                let public = rcgen::PublicKeyData::subject_public_key_info(&key);
                writer.next().write_der(&public);
                writer.next().write_tagged_implicit(Tag::context(0), |writer| {
                    writer.write_set(|writer| {
                        for (oid, value) in extensions {
                            writer.next().write_sequence(|writer| {
                                let asks = &[1, 2, 840, 113_549, 1, 9, 14];
                                writer.next().write_oid(&ObjectIdentifier::from_slice(asks));
                                writer.next().write_set(|writer| {
                                    writer.next().write_sequence(|writer| {
                                        writer.next().write_sequence(|writer| {
                                            writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
                                            writer.next().write_bytes(value);
                                        });
                                    });
                                });
                            });
                        }
                    });
                });
            });
            writer.next().write_sequence(|writer| {
                writer
                    .next()
                    .write_oid(&ObjectIdentifier::from_slice(&[1, 2, 840, 10045, 4, 3, 2]));
            });
            writer.next().write_bitvec_bytes(&[0; 8], 64);
        });
    });
    armour("CERTIFICATE REQUEST", &der)
}

pub fn armour(label: &str, der: &[u8]) -> Vec<u8> {
    let text = serde_json::to_value(ByteString(der.to_vec())).unwrap();
    let text = text.as_str().unwrap().as_bytes();
    let lines: Vec<&str> = text
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
    .into_bytes()
}

pub const CN: &[u64] = &[2, 5, 4, 3];
pub const O: &[u64] = &[2, 5, 4, 10];
pub const OU: &[u64] = &[2, 5, 4, 11];
pub const NAMES: &[u64] = &[2, 5, 29, 17];
pub const USAGE: &[u64] = &[2, 5, 29, 15];
pub const CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
