use super::*;
use std::collections::BTreeSet;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::time::ASN1Time;

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    "2026-05-04T03:02:01Z".parse().unwrap()
}

fn der(pem_text: &str) -> Vec<u8> {
    pem::parse(pem_text).unwrap().into_contents()
}

fn identity(cert_pem: &str) -> (String, Vec<String>) {
    let cert = ClientCert::from_der(&der(cert_pem)).unwrap();
    (cert.common_name, cert.organizations)
}

#[test]
fn every_group_of_a_request_survives_signing() {
    let ca = Ca::load_or_create(None, now()).unwrap();
    let groups = [
        "system:open-cluster-management:cluster1",
        "system:open-cluster-management:managed-clusters",
        "é*",
    ];
    for orgs in [&groups[..0], &groups[..1], &groups[..3]] {
        let pem = request::write("system:node:x", orgs, &new_key().unwrap()).unwrap();
        let csr = Request::parse(pem.as_bytes()).unwrap();
        assert_eq!(
            (csr.common_name.as_str(), csr.organizations.as_slice()),
            ("system:node:x", &*to_owned(orgs))
        );
        let usages = Usages::parse(["digital signature", "client auth"]).unwrap();
        let cert = ca.sign_csr(&csr, usages, HOUR, now()).unwrap();
        assert_eq!(identity(&cert), ("system:node:x".to_owned(), to_owned(orgs)));
    }
}

fn to_owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|&s| s.to_owned()).collect()
}

#[test]
fn a_signed_request_has_the_usages_life_and_issuer() {
    let ca = Ca::load_or_create(None, now()).unwrap();
    let csr = Request::parse(
        request::write("u", &["a", "b"], &new_key().unwrap())
            .unwrap()
            .as_bytes(),
    )
    .unwrap();
    let usages = Usages::parse(["digital signature", "key encipherment", "client auth"]).unwrap();
    let ten_years = Duration::from_secs(20 * 365 * 24 * 3600);
    let cases = [
        (HOUR, now().as_second() + 3600),
        (Duration::from_secs(1), now().as_second() + 1),
        (ten_years, ca.not_after().as_second()),
        (Duration::MAX, ca.not_after().as_second()),
    ];
    for (ttl, end) in cases {
        let bytes = der(&ca.sign_csr(&csr, usages.clone(), ttl, now()).unwrap());
        let (rest, cert) = X509Certificate::from_der(&bytes).unwrap();
        assert!(rest.is_empty());
        assert_eq!(cert.validity().not_before.timestamp(), now().as_second() - 300);
        assert_eq!(cert.validity().not_after.timestamp(), end, "{ttl:?}");
        let usage = cert.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.digital_signature() && usage.value.key_encipherment());
        assert!(!usage.value.key_cert_sign());
        let extended = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.client_auth && !extended.server_auth && !extended.any);
        assert!(!cert.is_ca() && cert.basic_constraints().unwrap().unwrap().critical);
        let (_, issuer) = X509Certificate::from_der(ca.der()).unwrap();
        assert!(issuer.is_ca());
        assert_eq!(cert.issuer().as_raw(), issuer.subject().as_raw());
        cert.verify_signature(Some(issuer.public_key())).unwrap();
    }
    let after = ca.not_after() + Duration::from_secs(1);
    assert_eq!(
        ca.sign_csr(&csr, usages, HOUR, after).unwrap_err(),
        PkiError::Expired(ca.not_after())
    );
}

#[test]
fn serial_numbers_differ_and_are_positive() {
    let ca = Ca::load_or_create(None, now()).unwrap();
    let serials: BTreeSet<Vec<u8>> = (0..20)
        .map(|_| {
            let bytes = der(&ca.issue_client("u", &[], HOUR, now()).unwrap().cert_pem);
            let (_, cert) = X509Certificate::from_der(&bytes).unwrap();
            assert!(cert.raw_serial()[0] < 0x80 && cert.raw_serial().len() == 16);
            cert.raw_serial().to_vec()
        })
        .collect();
    assert_eq!(serials.len(), 20);
}

#[test]
fn a_foreign_request_keeps_its_alternative_names() {
    let mut params =
        rcgen::CertificateParams::new(vec!["a.example".to_owned(), "10.1.2.3".to_owned()]).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "system:node:n");
    let pem = params
        .serialize_request(&new_key().unwrap())
        .unwrap()
        .pem()
        .unwrap();
    let csr = Request::parse(pem.as_bytes()).unwrap();
    assert_eq!(csr.dns_names, ["a.example"]);
    assert_eq!(
        csr.ip_addresses,
        ["10.1.2.3".parse::<std::net::IpAddr>().unwrap()]
    );
    let ca = Ca::load_or_create(None, now()).unwrap();
    let bytes = der(&ca
        .sign_csr(&csr, Usages::parse(["server auth"]).unwrap(), HOUR, now())
        .unwrap());
    let (_, cert) = X509Certificate::from_der(&bytes).unwrap();
    assert_eq!(
        cert.subject_alternative_name()
            .unwrap()
            .unwrap()
            .value
            .general_names
            .len(),
        2
    );
}

#[test]
fn bad_requests_are_refused_with_the_reason() {
    let good = request::write("u", &["g"], &new_key().unwrap()).unwrap();
    let mut forged = der(&good);
    let at = forged.windows(2).position(|w| w == [0x0c, 1]).unwrap() + 2;
    forged[at] = b'h';
    let mut trailing = der(&good);
    trailing.push(0);
    let cases: &[(&[u8], &str)] = &[
        (b"", "neither PEM nor DER"),
        (b"hello", "neither PEM nor DER"),
        (b"\x30\x03abc", "does not parse"),
        (&forged, "signature does not fit"),
        (&trailing, "bytes behind it"),
        (
            good.replace("CERTIFICATE REQUEST", "CERTIFICATE")
                .leak()
                .as_bytes(),
            "PEM block type",
        ),
        (&vec![b'x'; 70_000], "too large"),
    ];
    for (input, expected) in cases {
        let error = Request::parse(input).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} should contain {expected}");
    }
    assert!(Request::parse(&der(&good)).is_ok(), "DER is taken too");
}

#[test]
fn server_certificates_name_loopback_service_and_what_is_asked() {
    let ca = Ca::load_or_create(None, now()).unwrap();
    let names = [
        "hub.example".to_owned(),
        "192.0.2.7".to_owned(),
        "localhost".to_owned(),
    ];
    let bytes = der(&ca.issue_server(&names, now()).unwrap().cert_pem);
    let (_, cert) = X509Certificate::from_der(&bytes).unwrap();
    let mut found = BTreeSet::new();
    for extension in cert.extensions() {
        if let ParsedExtension::SubjectAlternativeName(san) = extension.parsed_extension() {
            for name in &san.general_names {
                assert!(found.insert(match name {
                    GeneralName::DNSName(n) => (*n).to_owned(),
                    GeneralName::IPAddress(b) if b.len() == 4 =>
                        format!("{}.{}.{}.{}", b[0], b[1], b[2], b[3]),
                    GeneralName::IPAddress(b) => {
                        std::net::Ipv6Addr::from(<[u8; 16]>::try_from(*b).unwrap()).to_string()
                    }
                    other => panic!("{other:?}"),
                }));
            }
        }
    }
    let wanted = SERVER_NAMES.iter().map(|&s| s.to_owned()).chain(names);
    assert_eq!(found, wanted.collect());
    assert!(ca.issue_server(&["hübsch".to_owned()], now()).is_err());
}

#[test]
fn times_after_2049_are_generalized() {
    let late: Timestamp = "2049-12-31T23:00:00Z".parse().unwrap();
    let ca = Ca::load_or_create(None, late).unwrap();
    let bytes = der(&ca.issue_client("u", &[], HOUR * 2, late).unwrap().cert_pem);
    let (_, cert) = X509Certificate::from_der(&bytes).unwrap();
    assert!(cert.validity().not_before.is_utctime() && cert.validity().not_after.is_generalizedtime());
    assert_eq!(
        cert.validity().not_after,
        ASN1Time::from_timestamp(late.as_second() + 7200).unwrap()
    );
}

#[test]
fn the_ca_is_kept_and_its_parts_must_fit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pki");
    let first = Ca::load_or_create(Some(&path), now()).unwrap();
    assert_eq!(Ca::load_or_create(Some(&path), now()).unwrap().pem(), first.pem());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path.join(CA_KEY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    // Stopped between the two files: the same key, a certificate for it.
    std::fs::remove_file(path.join(CA_CERT_FILE)).unwrap();
    let again = Ca::load_or_create(Some(&path), now()).unwrap();
    assert_eq!(again.0.subject, first.0.subject);

    let expired = Ca::load_or_create(Some(&path), again.not_after() + HOUR).unwrap_err();
    assert!(matches!(expired, PkiError::Expired(_)), "{expired}");

    std::fs::rename(path.join(CA_KEY_FILE), path.join("elsewhere")).unwrap();
    let missing = Ca::load_or_create(Some(&path), now()).unwrap_err().to_string();
    assert!(missing.contains("ca.key is missing"), "{missing}");

    std::fs::write(path.join(CA_KEY_FILE), new_key().unwrap().serialize_pem()).unwrap();
    let foreign = Ca::load_or_create(Some(&path), now()).unwrap_err().to_string();
    assert!(
        foreign.contains("ca.crt") && foreign.contains("does not belong"),
        "{foreign}"
    );

    std::fs::write(path.join(CA_KEY_FILE), "-----BEGIN SECRET").unwrap();
    let broken = Ca::load_or_create(Some(&path), now()).unwrap_err().to_string();
    assert!(
        broken.contains("ca.key") && !broken.contains("SECRET"),
        "{broken}"
    );
}

#[test]
fn secrets_are_not_shown() {
    let ca = Ca::load_or_create(None, now()).unwrap();
    let pair = ca.issue_client("u", &[], HOUR, now()).unwrap();
    let secret = pair.key_pem.lines().nth(1).unwrap();
    assert!(!format!("{pair:?}{ca:?}").contains(secret));
}
