//! What a certificate may be used for, by the names of `CertificateSigningRequest.spec.usages`.

use super::PkiError;

/// `keyUsage` bits by their Kubernetes names (RFC 5280 §4.2.1.3 numbers them). `signing` is an old name of the first.
const KEY_USAGES: &[(&str, u8)] = &[
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// `extKeyUsage` by their Kubernetes names.
const EXTENDED: &[(&str, &[u64])] = &[
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113_730, 4, 1]),
];

/// A set of key usages, extended ones included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usages {
    bits: u16,
    extended: Vec<&'static [u64]>,
}

impl Usages {
    /// From Kubernetes' names. One that is not known is an error, not ignored: a certificate must not say less than asked.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, PkiError> {
        let mut usages = Self::default();
        for name in names {
            if let Some((_, bit)) = KEY_USAGES.iter().find(|(n, _)| *n == name) {
                usages.bits |= 1 << bit;
            } else if let Some((_, oid)) = EXTENDED.iter().find(|(n, _)| *n == name) {
                if !usages.extended.contains(oid) {
                    usages.extended.push(oid);
                }
            } else {
                return Err(PkiError::Usage(name.to_owned()));
            }
        }
        Ok(usages)
    }

    pub(super) fn ca() -> Self {
        Self {
            bits: 1 | 1 << 2 | 1 << 5,
            extended: Vec::new(),
        }
    }

    pub(super) fn server() -> Self {
        Self {
            bits: 1,
            extended: vec![EXTENDED[1].1],
        }
    }

    pub(super) fn client() -> Self {
        Self {
            bits: 1,
            extended: vec![EXTENDED[2].1],
        }
    }

    /// The bit string of `keyUsage`, first bit highest, and its length without trailing zeros (DER); `None` when empty.
    pub(super) fn key_usage_bits(&self) -> Option<(Vec<u8>, usize)> {
        let length = 16 - self.bits.leading_zeros() as usize;
        let bytes = self.bits.reverse_bits().to_be_bytes();
        (length > 0).then(|| (bytes[..length.div_ceil(8)].to_vec(), length))
    }

    pub(super) fn extended(&self) -> &[&'static [u64]] {
        &self.extended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_bits_and_oids() {
        type Case<'a> = (&'a [&'a str], Option<(&'a [u8], usize)>, usize);
        let cases: &[Case<'_>] = &[
            (&[], None, 0),
            (&["client auth"], None, 1),
            (&["digital signature"], Some((&[0x80], 1)), 0),
            (
                &["signing", "key encipherment", "client auth", "client auth"],
                Some((&[0xa0], 3)),
                1,
            ),
            (&["decipher only"], Some((&[0, 0x80], 9)), 0),
            (&["email protection", "s/mime", "any"], None, 2),
        ];
        for (names, bits, extended) in cases {
            let usages = Usages::parse(names.iter().copied()).unwrap();
            let expected = bits.map(|(b, n)| (b.to_vec(), n));
            assert_eq!(
                (usages.key_usage_bits(), usages.extended().len()),
                (expected, *extended),
                "{names:?}"
            );
        }
        assert_eq!(
            Usages::parse(["frobbing"]),
            Err(PkiError::Usage("frobbing".into()))
        );
    }
}
