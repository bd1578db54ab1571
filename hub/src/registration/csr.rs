//! Whether a certificate request is one of a cluster's agent (ocm-wire §2.4), and exactly that.
//!
//! Stricter than OCM where no honest agent notices: no alternative names, no claim to be an authority, no other
//! part of the subject than CN and O, no usages beyond a client's. Names are compared whole, never by prefix.

use std::collections::BTreeSet;

use muster_crds::{constants::names, names as naming};
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

use super::view::CsrView;

/// Why a request is none of ours to approve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It says for no cluster.
    #[error("it has no label with its cluster's name")]
    NoCluster,
    /// What it says is no cluster's name.
    #[error("its label names no cluster: {0:?} is not a DNS label")]
    BadCluster(String),
    /// Somebody else signs it.
    #[error("its signer is {0:?}")]
    Signer(String),
    /// It asks for more, or other, than a client needs.
    #[error("its usages are {0:?}")]
    Usages(Vec<String>),
    /// It cannot be read.
    #[error("its request is not exactly one PEM block CERTIFICATE REQUEST with a readable request")]
    Unreadable,
    /// Its subject has something other than CN and O, or not exactly one CN.
    #[error("its subject is {0:?}")]
    Subject(String),
    /// It asks for alternative names.
    #[error("it asks for alternative names")]
    AlternativeNames,
    /// It asks to be an authority.
    #[error("it asks to be an authority")]
    Authority,
    /// It asks for other groups than its cluster's.
    #[error("its groups are {0:?}")]
    Groups(Vec<String>),
    /// Its user is no agent.
    #[error("its user is {0:?}, which is no agent's")]
    User(String),
    /// Its label and its subject name different clusters.
    #[error("its label names cluster {label:?}, its subject cluster {subject:?}")]
    OtherCluster {
        /// Cluster by label.
        label: String,
        /// Cluster by subject.
        subject: String,
    },
}

/// Who a valid request makes its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The cluster.
    pub cluster: String,
    /// The agent's id.
    pub agent: String,
}

impl Agent {
    /// The user name of the certificate.
    pub fn user(&self) -> String {
        naming::user(&self.cluster, &self.agent)
    }
}

const USAGES: [&str; 3] = ["digital signature", "key encipherment", "client auth"];

/// Which agent the request is for, or why it is none's.
pub fn validate(csr: &CsrView) -> Result<Agent, Reason> {
    let cluster = csr
        .cluster
        .as_deref()
        .filter(|name| !name.is_empty())
        .ok_or(Reason::NoCluster)?;
    if !naming::is_cluster_name(cluster) {
        return Err(Reason::BadCluster(cluster.to_owned()));
    }
    if csr.signer != names::KUBE_API_SERVER_CLIENT_SIGNER {
        return Err(Reason::Signer(csr.signer.clone()));
    }
    let known = csr.usages.iter().all(|usage| USAGES.contains(&usage.as_str()));
    if !known || !csr.usages.iter().any(|usage| usage == "client auth") {
        return Err(Reason::Usages(csr.usages.clone()));
    }
    let (user, mut groups) = subject(&csr.request)?;
    groups.remove(names::MANAGED_CLUSTERS_GROUP);
    if groups.len() != 1 || !groups.contains(&naming::cluster_group(cluster)) {
        return Err(Reason::Groups(groups.into_iter().collect()));
    }
    let Some((subject, agent)) = naming::parse_user(&user) else {
        return Err(Reason::User(user));
    };
    if subject != cluster {
        return Err(Reason::OtherCluster {
            label: cluster.to_owned(),
            subject: subject.to_owned(),
        });
    }
    Ok(Agent {
        cluster: cluster.to_owned(),
        agent: agent.to_owned(),
    })
}

/// CN and all O of the request.
fn subject(request: &[u8]) -> Result<(String, BTreeSet<String>), Reason> {
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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use yasna::{Tag, models::ObjectIdentifier};

    use super::*;

    /// A request with any attributes, any number of times. It is not signed: that is the API server's to check.
    fn request(attributes: &[(&[u64], &str)]) -> Vec<u8> {
        asking(attributes, &[])
    }

    /// The same, with an attribute that asks for each of these extensions.
    fn asking(attributes: &[(&[u64], &str)], extensions: &[(&[u64], &[u8])]) -> Vec<u8> {
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

    fn armour(label: &str, der: &[u8]) -> Vec<u8> {
        use k8s_openapi::ByteString;
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

    const CN: &[u64] = &[2, 5, 4, 3];
    const O: &[u64] = &[2, 5, 4, 10];
    const OU: &[u64] = &[2, 5, 4, 11];
    const NAMES: &[u64] = &[2, 5, 29, 17];
    const USAGE: &[u64] = &[2, 5, 29, 15];
    const CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
    const ALL: &str = "system:open-cluster-management:managed-clusters";
    const C1: &str = "system:open-cluster-management:c1";
    const AGENT: &str = "system:open-cluster-management:c1:a1";

    fn csr(attributes: &[(&[u64], &str)]) -> CsrView {
        CsrView {
            cluster: Some("c1".to_owned()),
            signer: names::KUBE_API_SERVER_CLIENT_SIGNER.to_owned(),
            request: request(attributes),
            usages: USAGES.iter().map(ToString::to_string).collect(),
            ..CsrView::default()
        }
    }

    fn honest() -> CsrView {
        csr(&[(O, C1), (O, ALL), (CN, AGENT)])
    }

    #[test]
    fn an_agents_request_is_valid() {
        let agent = validate(&honest()).unwrap();
        assert_eq!(
            agent,
            Agent {
                cluster: "c1".to_owned(),
                agent: "a1".to_owned()
            }
        );
        assert_eq!(agent.user(), AGENT);
        // The group of all agents may be missing, as in OCM.
        assert!(validate(&csr(&[(O, C1), (CN, AGENT)])).is_ok());
        // An RSA-less client leaves out key encipherment.
        let usages = vec!["digital signature".to_owned(), "client auth".to_owned()];
        assert!(validate(&CsrView { usages, ..honest() }).is_ok());
    }

    #[test]
    fn forged_subjects_are_refused() {
        type Attack = (
            &'static str,
            &'static [(&'static [u64], &'static str)],
            fn(&Reason) -> bool,
        );
        let attacks: &[Attack] = &[
            (
                "masters beside",
                &[(O, C1), (O, ALL), (O, "system:masters"), (CN, AGENT)],
                |r| matches!(r, Reason::Groups(_)),
            ),
            ("masters instead", &[(O, "system:masters"), (CN, AGENT)], |r| {
                matches!(r, Reason::Groups(_))
            }),
            ("no group", &[(CN, AGENT)], |r| matches!(r, Reason::Groups(_))),
            ("only the common group", &[(O, ALL), (CN, AGENT)], |r| {
                matches!(r, Reason::Groups(_))
            }),
            (
                "other cluster's group",
                &[(O, "system:open-cluster-management:c10"), (O, ALL), (CN, AGENT)],
                |r| matches!(r, Reason::Groups(_)),
            ),
            (
                "both clusters' groups",
                &[(O, C1), (O, "system:open-cluster-management:c2"), (CN, AGENT)],
                |r| matches!(r, Reason::Groups(_)),
            ),
            (
                "extra group form",
                &[(O, C1), (O, "open-cluster-management:c1"), (CN, AGENT)],
                |r| matches!(r, Reason::Groups(_)),
            ),
            (
                "other cluster's user",
                &[(O, C1), (O, ALL), (CN, "system:open-cluster-management:c2:a1")],
                |r| matches!(r, Reason::OtherCluster { .. }),
            ),
            (
                "prefix is no name",
                &[(O, C1), (O, ALL), (CN, "system:open-cluster-management:c10:a1")],
                |r| matches!(r, Reason::OtherCluster { .. }),
            ),
            (
                "no agent",
                &[(O, C1), (O, ALL), (CN, "system:open-cluster-management:c1")],
                |r| matches!(r, Reason::User(_)),
            ),
            (
                "empty agent",
                &[(O, C1), (O, ALL), (CN, "system:open-cluster-management:c1:")],
                |r| matches!(r, Reason::User(_)),
            ),
            (
                "empty cluster",
                &[(O, C1), (O, ALL), (CN, "system:open-cluster-management::a1")],
                |r| matches!(r, Reason::User(_)),
            ),
            (
                "extra part",
                &[(O, C1), (O, ALL), (CN, "system:open-cluster-management:c1:a1:x")],
                |r| matches!(r, Reason::User(_)),
            ),
            (
                "add-on's user",
                &[
                    (O, C1),
                    (O, ALL),
                    (CN, "system:open-cluster-management:cluster:c1:addon:x:agent:x"),
                ],
                |r| matches!(r, Reason::User(_)),
            ),
            ("no prefix", &[(O, C1), (O, ALL), (CN, "c1:a1")], |r| {
                matches!(r, Reason::User(_))
            }),
            ("admin", &[(O, C1), (O, ALL), (CN, "kubernetes-admin")], |r| {
                matches!(r, Reason::User(_))
            }),
            ("no user", &[(O, C1), (O, ALL)], |r| {
                matches!(r, Reason::Subject(_))
            }),
            (
                "two users",
                &[(O, C1), (O, ALL), (CN, AGENT), (CN, "system:admin")],
                |r| matches!(r, Reason::Subject(_)),
            ),
            (
                "two users, other way",
                &[(O, C1), (O, ALL), (CN, "system:admin"), (CN, AGENT)],
                |r| matches!(r, Reason::Subject(_)),
            ),
            ("a unit", &[(O, C1), (O, ALL), (OU, "x"), (CN, AGENT)], |r| {
                matches!(r, Reason::Subject(_))
            }),
            (
                "other case",
                &[(O, C1), (O, ALL), (CN, "System:open-cluster-management:c1:a1")],
                |r| matches!(r, Reason::User(_)),
            ),
        ];
        for (name, attributes, expected) in attacks {
            let reason = validate(&csr(attributes)).unwrap_err();
            assert!(expected(&reason), "{name}: {reason}");
        }
    }

    #[test]
    fn forged_envelopes_are_refused() {
        let usages = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let der = request(&[(O, C1), (O, ALL), (CN, AGENT)]);
        let twice = [der.clone(), der.clone()].concat();
        let relabelled = String::from_utf8(der.clone())
            .unwrap()
            .replace("CERTIFICATE REQUEST", "CERTIFICATE");
        let cases = [
            (
                "no label",
                CsrView {
                    cluster: None,
                    ..honest()
                },
                Reason::NoCluster,
            ),
            (
                "empty label",
                CsrView {
                    cluster: Some(String::new()),
                    ..honest()
                },
                Reason::NoCluster,
            ),
            (
                "label no name",
                CsrView {
                    cluster: Some("C1".to_owned()),
                    ..honest()
                },
                Reason::BadCluster("C1".to_owned()),
            ),
            (
                "label with agent",
                CsrView {
                    cluster: Some("c1:a1".to_owned()),
                    ..honest()
                },
                Reason::BadCluster("c1:a1".to_owned()),
            ),
            (
                "kubelet's signer",
                CsrView {
                    signer: "kubernetes.io/kubelet-serving".to_owned(),
                    ..honest()
                },
                Reason::Signer("kubernetes.io/kubelet-serving".to_owned()),
            ),
            (
                "signer not whole",
                CsrView {
                    signer: "kubernetes.io/kube-apiserver-client-kubelet".to_owned(),
                    ..honest()
                },
                Reason::Signer("kubernetes.io/kube-apiserver-client-kubelet".to_owned()),
            ),
            (
                "server usage",
                CsrView {
                    usages: usages(&["client auth", "server auth"]),
                    ..honest()
                },
                Reason::Usages(usages(&["client auth", "server auth"])),
            ),
            (
                "signing usage",
                CsrView {
                    usages: usages(&["client auth", "cert sign"]),
                    ..honest()
                },
                Reason::Usages(usages(&["client auth", "cert sign"])),
            ),
            (
                "no usage",
                CsrView {
                    usages: vec![],
                    ..honest()
                },
                Reason::Usages(vec![]),
            ),
            (
                "no client usage",
                CsrView {
                    usages: usages(&["digital signature"]),
                    ..honest()
                },
                Reason::Usages(usages(&["digital signature"])),
            ),
            (
                "empty request",
                CsrView {
                    request: vec![],
                    ..honest()
                },
                Reason::Unreadable,
            ),
            (
                "no PEM",
                CsrView {
                    request: b"hello".to_vec(),
                    ..honest()
                },
                Reason::Unreadable,
            ),
            (
                "two requests",
                CsrView {
                    request: twice,
                    ..honest()
                },
                Reason::Unreadable,
            ),
            (
                "text before it",
                CsrView {
                    request: [b"hello\n".to_vec(), der.clone()].concat(),
                    ..honest()
                },
                Reason::Unreadable,
            ),
            (
                "text after it",
                CsrView {
                    request: [der.clone(), b"-----BEGIN".to_vec()].concat(),
                    ..honest()
                },
                Reason::Unreadable,
            ),
            (
                "headers",
                CsrView {
                    request: String::from_utf8(der.clone())
                        .unwrap()
                        .replacen("-----\n", "-----\nProc-Type: 4\n\n", 1)
                        .into_bytes(),
                    ..honest()
                },
                Reason::Unreadable,
            ),
            (
                "a certificate",
                CsrView {
                    request: relabelled.into_bytes(),
                    ..honest()
                },
                Reason::Unreadable,
            ),
            (
                "garbage within",
                CsrView {
                    request: armour("CERTIFICATE REQUEST", &[1, 2, 3]),
                    ..honest()
                },
                Reason::Unreadable,
            ),
        ];
        for (name, csr, reason) in cases {
            assert_eq!(validate(&csr), Err(reason), "{name}");
        }
        for cluster in ["c", "c10", "c2"] {
            let csr = CsrView {
                cluster: Some(cluster.to_owned()),
                ..honest()
            };
            assert!(matches!(validate(&csr), Err(Reason::Groups(_))), "{cluster}");
        }
    }

    #[test]
    fn alternative_names_and_authorities_are_refused() {
        let mut params = CertificateParams::new(vec!["kubernetes.default.svc".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, AGENT);
        params.distinguished_name.push(DnType::OrganizationName, C1);
        let key = KeyPair::generate().unwrap();
        let pem = |params: &CertificateParams| {
            params
                .serialize_request(&key)
                .unwrap()
                .pem()
                .unwrap()
                .into_bytes()
        };
        let csr = CsrView {
            request: pem(&params),
            ..honest()
        };
        assert_eq!(validate(&csr), Err(Reason::AlternativeNames));
        params.subject_alt_names.clear();
        let csr = CsrView {
            request: pem(&params),
            ..honest()
        };
        assert!(validate(&csr).is_ok());
        // What a signer would find in a second attribute counts too, and what cannot be read is not passed over.
        let digital: &[u8] = &[3, 2, 7, 0x80];
        let example: &[u8] = &[0x30, 3, 0x82, 1, b'a'];
        let authority: &[u8] = &[0x30, 3, 1, 1, 0xff];
        let asks = |extensions: &[(&[u64], &[u8])]| {
            validate(&CsrView {
                request: asking(&[(O, C1), (CN, AGENT)], extensions),
                ..honest()
            })
        };
        assert!(asks(&[(USAGE, digital)]).is_ok());
        let second = [(USAGE, digital), (NAMES, example)];
        assert_eq!(asks(&second), Err(Reason::AlternativeNames));
        assert_eq!(asks(&[(NAMES, &[1, 2, 3])]), Err(Reason::AlternativeNames));
        assert_eq!(asks(&[(CONSTRAINTS, authority)]), Err(Reason::Authority));
        assert_eq!(asks(&[(CONSTRAINTS, &[1, 2, 3])]), Err(Reason::Unreadable));
    }
}
