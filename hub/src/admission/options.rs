//! Where the API server finds the hub's webhook.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use clap::Args;
use muster_crds::work::MANIFEST_LIMIT;

use super::{certificate::Lives, tls::TlsOptions};

/// OCM's port for webhooks.
const PORT: u16 = 9443;

/// Options of the hub's admission webhook.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct WebhookOptions {
    /// Serve the admission webhook, which the API server reaches through this Service in front of the hub's Pods
    #[arg(long, value_name = "NAMESPACE/NAME[:PORT]", conflicts_with = "webhook_url")]
    pub webhook_service: Option<WebhookService>,
    /// Serve the admission webhook, which the API server reaches at this URL
    #[arg(long, value_name = "https://HOST[:PORT]")]
    pub webhook_url: Option<WebhookUrl>,
    /// Port the webhook listens on
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    pub webhook_port: u16,
    /// Address the webhook listens on
    #[arg(long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub webhook_bind: IpAddr,
    /// Bytes that the manifests of a work may have together
    #[arg(long, alias = "manifestLimit", value_name = "BYTES", default_value_t = MANIFEST_LIMIT)]
    pub manifest_limit: usize,
    /// Which TLS it speaks.
    #[command(flatten)]
    pub tls: TlsOptions,
    /// The API server is on this machine, and nobody else's: the webhook takes a free port of 127.0.0.1.
    #[arg(skip)]
    pub webhook_beside: bool,
    /// How long the webhook's certificates live.
    #[arg(skip)]
    pub lives: Lives,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            webhook_service: None,
            webhook_url: None,
            webhook_port: PORT,
            webhook_bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            manifest_limit: MANIFEST_LIMIT,
            tls: TlsOptions::default(),
            webhook_beside: false,
            lives: Lives::default(),
        }
    }
}

impl WebhookOptions {
    /// Whether there is to be a webhook.
    pub fn is_on(&self) -> bool {
        self.webhook_beside || self.webhook_service.is_some() || self.webhook_url.is_some()
    }

    /// Where to listen.
    pub fn address(&self) -> SocketAddr {
        if self.webhook_beside {
            return SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        }
        SocketAddr::from((self.webhook_bind, self.webhook_port))
    }

    /// How the API server is to call what listens there.
    pub fn place(&self, listening: SocketAddr) -> Place {
        match (&self.webhook_service, &self.webhook_url) {
            _ if self.webhook_beside => Place::Url {
                base: format!("https://{listening}"),
                host: listening.ip().to_string(),
            },
            (Some(service), _) => Place::Service {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
                port: service.port.unwrap_or(self.webhook_port),
            },
            (None, Some(url)) => Place::Url {
                base: url.base.clone(),
                host: url.host.clone(),
            },
            (None, None) => Place::Url {
                base: format!("https://{listening}"),
                host: listening.ip().to_string(),
            },
        }
    }
}

/// Where the API server calls the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Through a Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
    /// At a URL.
    Url {
        /// Without a path.
        base: String,
        /// Its host.
        host: String,
    },
}

impl Place {
    /// The names its certificate must have.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Service { namespace, name, .. } => {
                vec![
                    format!("{name}.{namespace}.svc"),
                    format!("{name}.{namespace}.svc.cluster.local"),
                ]
            }
            Self::Url { host, .. } => vec![host.clone()],
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service {
                namespace,
                name,
                port,
            } => write!(formatter, "Service {namespace}/{name}, port {port}"),
            Self::Url { base, .. } => formatter.write_str(base),
        }
    }
}

/// A Service, `namespace/name` or `namespace/name:port` as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookService {
    namespace: String,
    name: String,
    port: Option<u16>,
}

impl FromStr for WebhookService {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no Service: write NAMESPACE/NAME or NAMESPACE/NAME:PORT");
        let (namespace, name) = text.split_once('/').ok_or_else(wrong)?;
        let (name, port) = match name.split_once(':') {
            None => (name, None),
            Some((name, port)) => (name, Some(port.parse().map_err(|_| wrong())?)),
        };
        let label = muster_crds::names::is_cluster_name;
        if !label(namespace) || !label(name) {
            return Err(wrong());
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port,
        })
    }
}

/// A URL of scheme https without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrl {
    base: String,
    host: String,
}

impl FromStr for WebhookUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no URL for the webhook: write https://HOST or https://HOST:PORT");
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let plain = uri.path().len() <= 1 && uri.query().is_none();
        let (Some("https"), Some(authority), true) = (uri.scheme_str(), uri.authority(), plain) else {
            return Err(wrong());
        };
        if authority.as_str().contains('@') {
            return Err(wrong());
        }
        Ok(Self {
            base: format!("https://{authority}"),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: WebhookOptions,
    }

    fn parse(arguments: &[&str]) -> Result<WebhookOptions, String> {
        Line::try_parse_from(std::iter::once(&"hub").chain(arguments))
            .map(|line| line.options)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_word_there_is_no_webhook() {
        let options = parse(&[]).unwrap();
        assert_eq!(options, WebhookOptions::default());
        assert!(!options.is_on());
        assert_eq!(options.manifest_limit, 512_000);
        for flag in ["--manifest-limit=7", "--manifestLimit=7"] {
            assert_eq!(parse(&[flag]).unwrap().manifest_limit, 7);
        }
    }

    #[test]
    fn the_api_server_is_told_where_to_call() {
        let listening: SocketAddr = "127.0.0.1:4711".parse().unwrap();
        let place = |arguments: &[&str]| parse(arguments).unwrap().place(listening);
        let service = place(&["--webhook-service=ns/hub"]);
        assert_eq!(service.to_string(), "Service ns/hub, port 9443");
        assert_eq!(service.names(), ["hub.ns.svc", "hub.ns.svc.cluster.local"]);
        let service = place(&["--webhook-service=ns/hub:443", "--webhook-port=8443"]);
        assert_eq!(service.to_string(), "Service ns/hub, port 443");
        let url = place(&["--webhook-url=https://hub.example:9443"]);
        assert_eq!(url.names(), ["hub.example"]);
        assert_eq!(url.to_string(), "https://hub.example:9443");
        assert_eq!(place(&["--webhook-url=https://[::1]:1/"]).names(), ["::1"]);
        let options = parse(&["--webhook-url=https://a", "--webhook-port=1", "--webhook-bind=::"]).unwrap();
        assert_eq!(options.address().to_string(), "[::]:1");
        let beside = WebhookOptions {
            webhook_beside: true,
            ..WebhookOptions::default()
        };
        assert_eq!(beside.address().to_string(), "127.0.0.1:0");
        assert_eq!(beside.place(listening).to_string(), "https://127.0.0.1:4711");
        assert_eq!(beside.place(listening).names(), ["127.0.0.1"]);
    }

    #[test]
    fn bad_places_are_refused_with_what_to_write() {
        for (argument, reason) in [
            ("--webhook-service=hub", "write NAMESPACE/NAME"),
            ("--webhook-service=ns/hub:x", "write NAMESPACE/NAME"),
            ("--webhook-service=ns/Hub", "write NAMESPACE/NAME"),
            ("--webhook-url=http://a", "write https://HOST"),
            ("--webhook-url=https://a/path", "write https://HOST"),
            ("--webhook-url=https://u:p@a", "write https://HOST"),
            ("--webhook-url=a:1", "write https://HOST"),
            ("--webhook-port=0x", "invalid value"),
        ] {
            let error = parse(&[argument]).unwrap_err();
            assert!(error.contains(reason), "{argument}: {error}");
        }
        assert!(parse(&["--webhook-service=a/b", "--webhook-url=https://a"]).is_err());
    }
}
