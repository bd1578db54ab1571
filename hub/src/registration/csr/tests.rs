use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::{forge::*, *};

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
