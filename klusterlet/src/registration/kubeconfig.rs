//! Kubeconfigs: reading them with one clear error, comparing the hub they name, and writing the one the agent gets.

use crate::Error;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use std::net::IpAddr;
use std::path::Path;

/// The cluster that a kubeconfig's current context names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name of the cluster entry.
    pub cluster: String,
    /// URL exactly as written: its hash identifies the hub.
    pub url: String,
    /// Proxy, if any.
    pub proxy_url: Option<String>,
    /// CA bundle as PEM.
    pub ca: Vec<u8>,
}

/// Reads a kubeconfig file.
pub fn read(role: &'static str, path: &Path) -> Result<Kubeconfig, Error> {
    let problem = |problem: String| Error::Kubeconfig {
        role,
        path: path.to_owned(),
        problem,
    };
    let text = std::fs::read_to_string(path).map_err(|e| problem(e.to_string()))?;
    let parsed = Kubeconfig::from_yaml(&text).map_err(|e| problem(first_line(&e)))?;
    if parsed.clusters.is_empty() {
        return Err(problem("it names no cluster".into()));
    }
    Ok(absolute(parsed, path.parent().unwrap_or(Path::new("."))))
}

/// What is wrong and where. The lines after it show a part of the file, which may hold a token.
pub fn first_line(error: &dyn std::error::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// File names in a kubeconfig are relative to it.
fn absolute(mut config: Kubeconfig, dir: &Path) -> Kubeconfig {
    let fix = |file: &mut Option<String>| {
        if let Some(name) = file.as_mut().filter(|n| Path::new(n).is_relative()) {
            *name = dir.join(&*name).to_string_lossy().into_owned();
        }
    };
    for cluster in config.clusters.iter_mut().filter_map(|c| c.cluster.as_mut()) {
        fix(&mut cluster.certificate_authority);
    }
    for user in config.auth_infos.iter_mut().filter_map(|u| u.auth_info.as_mut()) {
        fix(&mut user.client_certificate);
        fix(&mut user.client_key);
        fix(&mut user.token_file);
    }
    config
}

/// The server behind the current context.
pub fn server(config: &Kubeconfig) -> Result<Server, String> {
    let context = config.current_context.as_deref().unwrap_or_default();
    let context = config
        .contexts
        .iter()
        .find(|c| c.name == context)
        .or_else(|| config.contexts.first().filter(|_| context.is_empty()))
        .and_then(|c| c.context.as_ref())
        .ok_or_else(|| format!("its current context {context:?} is not there"))?;
    let named = config
        .clusters
        .iter()
        .find(|c| c.name == context.cluster)
        .ok_or_else(|| format!("its cluster {:?} is not there", context.cluster))?;
    let cluster = named.cluster.clone().unwrap_or_default();
    let ca = match (
        &cluster.certificate_authority_data,
        &cluster.certificate_authority,
    ) {
        (Some(data), _) => STANDARD
            .decode(data)
            .map_err(|e| format!("its CA data is not base64: {e}"))?,
        (None, Some(file)) => std::fs::read(file).map_err(|e| format!("its CA file {file}: {e}"))?,
        (None, None) => Vec::new(),
    };
    Ok(Server {
        cluster: named.name.clone(),
        url: cluster.server.ok_or("its cluster has no server")?,
        proxy_url: cluster.proxy_url,
        ca,
    })
}

/// A client from a kubeconfig.
pub async fn client(role: &'static str, path: &Path, config: Kubeconfig) -> Result<Client, Error> {
    let problem = |problem: String| Error::Kubeconfig {
        role,
        path: path.to_owned(),
        problem,
    };
    let named = server(&config).ok().and_then(|s| s.proxy_url);
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .map_err(|e| problem(chain(&e)))?;
    config.proxy_url = match proxy(named, &config.cluster_url) {
        Some(proxy) => Some(
            proxy
                .parse()
                .map_err(|e| problem(format!("its proxy URL or HTTPS_PROXY makes no sense: {e}")))?,
        ),
        None => None,
    };
    // Whoever asks decides when to ask again (`limits`): the library's own attempts would hide from it that a server has too
    // much to do, and hold up works behind an API that is not there.
    config.default_retry = false;
    Client::try_from(config).map_err(|e| problem(e.to_string()))
}

/// The proxy by which a server is reached: the kubeconfig's, else the environment's. The library's own idea of NO_PROXY compares
/// it with the proxy's address, and lets it overrule the kubeconfig.
fn proxy(named: Option<String>, server: &http::Uri) -> Option<String> {
    let named = named.filter(|p| !p.is_empty());
    named.or_else(|| from_environment(server, |name| std::env::var(name).ok()))
}

fn from_environment(server: &http::Uri, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let either = |upper: &str| {
        let set = |name: &str| variable(name).filter(|v| !v.is_empty());
        set(upper).or_else(|| set(&upper.to_ascii_lowercase()))
    };
    let exceptions = either("NO_PROXY").unwrap_or_default();
    let plain = server.scheme_str() == Some("http");
    either(if plain { "HTTP_PROXY" } else { "HTTPS_PROXY" }).filter(|_| !without_proxy(server, &exceptions))
}

/// What went wrong on the way to a server: where that leads by a proxy, the proxy may be what refused.
pub fn by_way(server: &Server, problem: String) -> String {
    let proxy = server
        .url
        .parse()
        .ok()
        .and_then(|url| proxy(server.proxy_url.clone(), &url));
    match proxy {
        Some(proxy) => format!("by the proxy {}: {problem}", without_user(&proxy)),
        None => problem,
    }
}

/// A URL without user name and password, which are nobody's to read in a log.
fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{}", &rest[end..])
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{}: {}", first_line(error), first_line(source)),
        None => first_line(error),
    }
}

/// Whether a server is reached without the environment's proxy: it is this machine, or NO_PROXY names it, by the rules of Go's
/// clients: `*`; an address, or a range of them; a domain, with all below it, or with a leading dot only those below it; each
/// but ranges with an optional port.
pub fn without_proxy(server: &http::Uri, no_proxy: &str) -> bool {
    let host = server.host().unwrap_or_default();
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_ascii_lowercase();
    let plain = server.scheme_str() == Some("http");
    let port = server.port_u16().unwrap_or(if plain { 80 } else { 443 });
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|a| a.is_loopback()) {
        return true;
    }
    no_proxy
        .split(',')
        .map(|e| e.trim().to_ascii_lowercase())
        .any(|entry| {
            if entry.is_empty() {
                return false;
            }
            if entry == "*" {
                return true;
            }
            if let Some((net, bits)) = entry.split_once('/') {
                return match (net.parse(), bits.parse(), address) {
                    (Ok(net), Ok(bits), Some(address)) => in_range(address, net, bits),
                    _ => false,
                };
            }
            let (name, only_port) = match entry.parse::<IpAddr>() {
                Ok(_) => (entry.as_str(), None),
                Err(_) => match entry.rsplit_once(':') {
                    Some((name, port)) => (name, Some(port)),
                    None => (entry.as_str(), None),
                },
            };
            if only_port.is_some_and(|p| p != port.to_string()) {
                return false;
            }
            let name = name.trim_start_matches('[').trim_end_matches(']');
            if let (Ok(named), Some(address)) = (name.parse::<IpAddr>(), address) {
                return named == address;
            }
            match name.trim_start_matches('*').strip_prefix('.') {
                Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
                None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
            }
        })
}

fn in_range(address: IpAddr, net: IpAddr, bits: u32) -> bool {
    match (address, net) {
        (IpAddr::V4(a), IpAddr::V4(n)) if bits <= 32 => {
            let shift = 32 - bits;
            u32::from(a).checked_shr(shift).unwrap_or(0) == u32::from(n).checked_shr(shift).unwrap_or(0)
        }
        (IpAddr::V6(a), IpAddr::V6(n)) if bits <= 128 => {
            let shift = 128 - bits;
            u128::from(a).checked_shr(shift).unwrap_or(0) == u128::from(n).checked_shr(shift).unwrap_or(0)
        }
        _ => false,
    }
}

/// The kubeconfig of the agent at the hub (wire §2.1): the bootstrap's cluster, the certificate in files beside it.
pub fn for_agent(server: &Server) -> String {
    let mut cluster = json!({"server": server.url, "insecure-skip-tls-verify": false});
    if !server.ca.is_empty() {
        cluster["certificate-authority-data"] = STANDARD.encode(&server.ca).into();
    }
    if let Some(proxy) = &server.proxy_url {
        cluster["proxy-url"] = proxy.as_str().into();
    }
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": server.cluster, "cluster": cluster}],
        "contexts": [{"name": "default-context", "context":
            {"cluster": server.cluster, "namespace": "configuration", "user": "default-auth"}}],
        "current-context": "default-context",
        "users": [{"name": "default-auth", "user": {"client-certificate": "tls.crt", "client-key": "tls.key"}}],
    });
    // JSON is YAML, and reads the same everywhere.
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_kubeconfig_names_the_same_hub() {
        let hub = Server {
            cluster: "hub".into(),
            url: "https://127.0.0.1:6443".into(),
            proxy_url: Some("http://proxy:3128".into()),
            ca: b"pem".to_vec(),
        };
        let parsed = Kubeconfig::from_yaml(&for_agent(&hub)).unwrap();
        assert_eq!(server(&parsed).unwrap(), hub);
    }

    #[test]
    fn a_broken_file_is_told_without_its_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        std::fs::write(&path, "clusters: []\nusers: [{name: u, user: {token: s3cret\n").unwrap();
        let error = read("bootstrap", &path).unwrap_err().to_string();
        assert!(
            error.contains("line") && !error.contains("s3cret") && !error.contains('\n'),
            "{error}"
        );
    }

    #[test]
    fn a_proxy_on_the_way_is_named_without_its_password() {
        let hub = |proxy: Option<&str>| Server {
            cluster: "hub".into(),
            url: "https://127.0.0.1:6443".into(),
            proxy_url: proxy.map(Into::into),
            ca: Vec::new(),
        };
        for (proxy, expected) in [
            (None, "refused"),
            (Some(""), "refused"),
            (
                Some("http://proxy:3128"),
                "by the proxy http://proxy:3128: refused",
            ),
            (
                Some("http://me:s3cret@proxy:3128/"),
                "by the proxy http://proxy:3128/: refused",
            ),
            (Some("me:s3cret@proxy"), "by the proxy http://proxy: refused"),
        ] {
            assert_eq!(by_way(&hub(proxy), "refused".into()), expected);
        }
    }

    #[test]
    fn the_environments_proxy_goes_by_the_servers_scheme() {
        let (secure, plain) = ("https://hub.example.com:6443", "http://hub.example.com");
        for (url, set, wanted) in [
            (
                secure,
                &[("HTTPS_PROXY", "a"), ("HTTP_PROXY", "b")][..],
                Some("a"),
            ),
            (plain, &[("HTTPS_PROXY", "a"), ("HTTP_PROXY", "b")], Some("b")),
            (secure, &[("https_proxy", "a")], Some("a")),
            (plain, &[("http_proxy", "b")], Some("b")),
            (secure, &[("HTTPS_PROXY", ""), ("https_proxy", "a")], Some("a")),
            (secure, &[("HTTP_PROXY", "b")], None),
            (secure, &[("HTTPS_PROXY", "a"), ("NO_PROXY", "example.com")], None),
            (
                secure,
                &[("HTTPS_PROXY", "a"), ("no_proxy", "hub.example.com:443")],
                Some("a"),
            ),
            (
                plain,
                &[("HTTP_PROXY", "b"), ("no_proxy", "hub.example.com:80")],
                None,
            ),
        ] {
            let find = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            let found = from_environment(&url.parse().unwrap(), find);
            assert_eq!(found.as_deref(), wanted, "{url} {set:?}");
        }
    }

    #[test]
    fn no_proxy() {
        for (url, no_proxy, expected) in [
            ("https://127.0.0.1:6443", "", true),
            ("https://127.8.8.8", "", true),
            ("https://[::1]:6443", "", true),
            ("https://localhost:6443", "", true),
            ("https://10.0.0.1:6443", "", false),
            ("https://localhost.example.com", "", false),
            ("https://hub.example.com", "*", true),
            ("https://hub.example.com", "a, example.com,", true),
            ("https://hub.example.com", ".example.com", true),
            ("https://hub.example.com", "*.example.com", true),
            ("https://example.com", ".example.com", false),
            ("https://badexample.com", "example.com", false),
            ("https://HUB.example.com", "Hub.Example.Com", true),
            ("https://hub.example.com:6443", "hub.example.com:6443", true),
            ("https://hub.example.com", "hub.example.com:443", true),
            ("https://hub.example.com:6443", "hub.example.com:443", false),
            ("https://10.1.2.3:6443", "10.0.0.0/8", true),
            ("https://11.1.2.3:6443", "10.0.0.0/8", false),
            ("https://11.1.2.3:6443", "0.0.0.0/0", true),
            ("https://10.1.2.3:6443", "10.1.2.3", true),
            ("https://10.1.2.3:6443", "10.1.2.3:443", false),
            ("https://[fd00::1]:6443", "fd00::/8", true),
            ("https://[fd00::1]:6443", "fd00::1", true),
            ("https://10.1.2.3:6443", "fd00::/8,10.0.0.0/33,x/y", false),
        ] {
            assert_eq!(
                without_proxy(&url.parse().unwrap(), no_proxy),
                expected,
                "{url} {no_proxy}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("clusters: [{name: c, cluster: {server: s}}]", "current context"),
            (
                "current-context: x\ncontexts: [{name: x, context: {cluster: y}}]\nclusters: [{name: c}]",
                "cluster \"y\"",
            ),
            (
                "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\nclusters: [{name: c, cluster: {}}]",
                "no server",
            ),
        ];
        for (text, expected) in cases {
            let error = server(&Kubeconfig::from_yaml(text).unwrap()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
