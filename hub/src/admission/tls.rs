//! Which TLS the webhook speaks, by the names that Kubernetes' programs have for it.

use std::{str::FromStr, sync::Arc};

use clap::Args;
use rustls::{
    CipherSuite, ConfigBuilder, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, WantsVerifier,
    crypto::CryptoProvider,
    version::{TLS12, TLS13},
};

const FROM_12: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
const FROM_13: &[&SupportedProtocolVersion] = &[&TLS13];

/// Bounds for the webhook's TLS.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Oldest TLS that the webhook speaks: VersionTLS12 (the oldest there is here) or VersionTLS13
    #[arg(long, value_name = "VERSION", default_value = "")]
    pub tls_min_version: MinVersion,
    /// Cipher suites of the webhook for TLS 1.2, by their IANA names. Default: all that are safe; those of TLS 1.3 always are
    #[arg(long, value_name = "SUITE,...", value_delimiter = ',')]
    pub tls_cipher_suites: Vec<Suite>,
}

/// The oldest TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl FromStr for MinVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            // What is older than 1.2 is not spoken, whatever is allowed.
            "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => Ok(Self::Tls12),
            "VersionTLS13" => Ok(Self::Tls13),
            _ => Err(format!(
                "{text:?} is no version of TLS: write VersionTLS12 or VersionTLS13"
            )),
        }
    }
}

/// A cipher suite; none where the text is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite(Option<CipherSuite>);

impl FromStr for Suite {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let all: Vec<CipherSuite> = provider()
            .cipher_suites
            .iter()
            .map(SupportedCipherSuite::suite)
            .collect();
        if let Some(found) = all.iter().find(|one| name(**one) == text) {
            return Ok(Self(Some(*found)));
        }
        let all: Vec<String> = all.into_iter().map(name).collect();
        Err(format!(
            "the webhook has no cipher suite {text:?}; it has {}",
            all.join(", ")
        ))
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Its IANA name; those of TLS 1.3 are told apart by another beginning here.
fn name(suite: CipherSuite) -> String {
    let name = format!("{suite:?}");
    match name.strip_prefix("TLS13_") {
        Some(rest) => format!("TLS_{rest}"),
        None => name,
    }
}

impl TlsOptions {
    /// What the webhook's TLS begins with.
    pub fn builder(&self) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
        let mut provider = provider();
        let wanted: Vec<CipherSuite> = self.tls_cipher_suites.iter().filter_map(|one| one.0).collect();
        if !wanted.is_empty() {
            provider
                .cipher_suites
                .retain(|one| one.version().version == TLS13.version || wanted.contains(&one.suite()));
        }
        let versions = match self.tls_min_version {
            MinVersion::Tls12 => FROM_12,
            MinVersion::Tls13 => FROM_13,
        };
        ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: TlsOptions,
    }

    fn parse(arguments: &[&str]) -> Result<TlsOptions, String> {
        Line::try_parse_from(std::iter::once(&"hub").chain(arguments))
            .map(|line| line.options)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn kubernetes_names_are_read() {
        for (arguments, wanted) in [
            (&[][..], MinVersion::Tls12),
            (&["--tls-min-version="], MinVersion::Tls12),
            (&["--tls-min-version=VersionTLS12"], MinVersion::Tls12),
            (&["--tls-min-version=VersionTLS13"], MinVersion::Tls13),
        ] {
            assert_eq!(parse(arguments).unwrap().tls_min_version, wanted, "{arguments:?}");
        }
        assert_eq!(parse(&[]).unwrap(), TlsOptions::default());
        let suites = "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_AES_128_GCM_SHA256";
        assert_eq!(parse(&[suites]).unwrap().tls_cipher_suites.len(), 2);
        for (argument, reason) in [
            ("--tls-min-version=1.3", "write VersionTLS12 or VersionTLS13"),
            (
                "--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA",
                "it has TLS_AES_256_GCM_SHA384",
            ),
        ] {
            let error = parse(&[argument]).unwrap_err();
            assert!(error.contains(reason), "{argument}: {error}");
        }
    }

    #[test]
    fn what_is_not_wanted_is_not_spoken() {
        for (arguments, older, suites) in [
            (&[][..], true, 9),
            (&["--tls-min-version=VersionTLS13"], false, 9),
            (
                &["--tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"],
                true,
                4,
            ),
            (&["--tls-cipher-suites=TLS_AES_128_GCM_SHA256"], true, 3),
            (&["--tls-cipher-suites="], true, 9),
        ] {
            let config = parse(arguments).unwrap().builder().unwrap();
            assert_eq!(
                config.crypto_provider().cipher_suites.len(),
                suites,
                "{arguments:?}"
            );
            let text = format!("{config:?}");
            assert_eq!(text.contains("TLSv1_2"), older, "{arguments:?}: {text}");
        }
    }
}
