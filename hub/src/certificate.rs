//! What a certificate says of itself.

use jiff::Timestamp;
use muster_crds::validity::Validity;
use x509_parser::{parse_x509_certificate, pem::Pem};

/// When a certificate is good; of a chain, its first, which is its holder's.
pub fn validity(pem: &[u8]) -> Option<Validity> {
    let block = Pem::iter_from_buffer(pem).next()?.ok()?;
    if block.label != "CERTIFICATE" {
        return None;
    }
    let (_, certificate) = parse_x509_certificate(&block.contents).ok()?;
    let validity = certificate.validity();
    Some(Validity {
        not_before: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
        not_after: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn dates_are_read_from_the_first_certificate() {
        let pem = |year: i32| {
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.not_before = date_time_ymd(year, 1, 1);
            params.not_after = date_time_ymd(year + 1, 1, 1);
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
        };
        let chain = pem(2026) + &pem(2020);
        let wanted = "2026-01-01T00:00:00Z/2027-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(validity(chain.as_bytes()), Some(wanted));
        let key = KeyPair::generate().unwrap().serialize_pem();
        for nonsense in ["", "hello", &key] {
            assert_eq!(validity(nonsense.as_bytes()), None);
        }
    }
}
