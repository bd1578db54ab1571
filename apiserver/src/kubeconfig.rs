//! Kubeconfig files with everything embedded: one file is enough to reach a server.

use crate::pki::{Pair, write_private};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::io;
use std::path::Path;

/// How a client says who it is.
#[derive(Clone)]
pub enum Credentials {
    /// By certificate.
    Cert(Pair),
    /// By bearer token.
    Token(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cert(_) => "Cert(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

/// A kubeconfig for `server_url` whose only context is called `name`. JSON inside, which every YAML parser reads, one entry
/// a line so that people can.
pub fn kubeconfig(server_url: &str, ca_pem: &str, credentials: &Credentials, name: &str) -> String {
    let user = match credentials {
        Credentials::Cert(pair) => json!({
            "client-certificate-data": STANDARD.encode(&pair.cert_pem),
            "client-key-data": STANDARD.encode(&pair.key_pem),
        }),
        Credentials::Token(token) => json!({ "token": token }),
    };
    let cluster = json!({ "certificate-authority-data": STANDARD.encode(ca_pem), "server": server_url });
    [
        "apiVersion: v1\nkind: Config\n".to_owned(),
        section(name, "cluster", &cluster),
        section(name, "user", &user),
        section(name, "context", &json!({ "cluster": name, "user": name })),
        format!("current-context: {}\n", Value::from(name)),
    ]
    .concat()
}

fn section(name: &str, kind: &str, fields: &Value) -> String {
    let head = format!("{kind}s:\n- name: {}\n  {kind}:\n", Value::from(name));
    let fields = fields.as_object().into_iter().flatten();
    let lines: Vec<String> = fields
        .map(|(key, value)| format!("    {key}: {value}\n"))
        .collect();
    head + &lines.concat()
}

/// Writes a kubeconfig whole or not at all, readable by its owner alone.
pub fn write(path: &Path, content: &str) -> io::Result<()> {
    write_private(path, content.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_reads_it() {
        let pair = Pair {
            cert_pem: "CERT".into(),
            key_pem: "KEY".into(),
        };
        for credentials in [Credentials::Cert(pair), Credentials::Token("a: \"b\" # c".into())] {
            let text = kubeconfig("https://[::1]:6443", "CA", &credentials, "my: \"hub\"");
            let config = kube::config::Kubeconfig::from_yaml(&text).unwrap();
            assert_eq!(config.current_context.as_deref(), Some("my: \"hub\""));
            let cluster = config.clusters[0].cluster.as_ref().unwrap();
            assert_eq!(cluster.server.as_deref(), Some("https://[::1]:6443"));
            assert_eq!(cluster.certificate_authority_data.as_deref(), Some("Q0E="));
            let context = config.contexts[0].context.as_ref().unwrap();
            assert_eq!(
                (&context.cluster, context.user.as_deref()),
                (&config.clusters[0].name, Some("my: \"hub\""))
            );
            let user = serde_json::to_value(config.auth_infos[0].auth_info.as_ref().unwrap()).unwrap();
            match credentials {
                Credentials::Cert(_) => assert_eq!(user["client-certificate-data"], "Q0VSVA=="),
                Credentials::Token(token) => assert_eq!(user["token"], token.as_str()),
            }
        }
    }
}
