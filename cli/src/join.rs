//! `muster join`: what a join token's line runs on a cluster. It writes the kubeconfig that may only ask to join, tries it
//! once, and runs the klusterlet.

use crate::error::innermost;
use crate::kubeconfig::Connection;
use crate::{Error, names, output, token};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use muster_crds::constants::names::{SECRET_CLUSTER_NAME, SECRET_KUBECONFIG};
use muster_crds::names::validate_cluster_name;
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A hub that does not answer for so long is not there.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Options of `muster join`.
#[derive(Debug, Clone, clap::Args)]
pub struct Join {
    /// URL of the hub
    #[arg(long, value_name = "URL", value_parser = token::https)]
    pub hub: String,
    /// Join token
    #[arg(long, value_name = "TOKEN", value_parser = join_token, required_unless_present = "token_file")]
    pub token: Option<JoinToken>,
    /// File with the join token: nobody reads it in the list of processes
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// Certificate of an authority that the hub's certificate comes from, base64 of its DER. Default: the system's
    #[arg(long, value_name = "BASE64", value_parser = authority)]
    pub ca: Vec<Authority>,
    /// Name of this cluster at the hub. Default: what an earlier run used, else a random one
    #[arg(long, value_name = "NAME", value_parser = names::cluster)]
    pub cluster_name: Option<String>,
    /// What a random name begins with
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "cluster-",
        conflicts_with = "cluster_name",
        value_parser = prefix
    )]
    pub cluster_name_prefix: String,
    /// Folder for the credentials. Default: .muster/agents/ADDRESS in the home folder, after this cluster's address
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Kubeconfig of the cluster that joins. Default: $KUBECONFIG, else ~/.kube/config, else the Pod's service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of that kubeconfig to use. Default: its current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// More flags for the klusterlet, after --
    #[arg(last = true, value_name = "FLAG")]
    pub flags: Vec<OsString>,
}

/// A token; it is never shown.
#[derive(Clone)]
pub struct JoinToken(String);

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinToken")
    }
}

fn join_token(text: &str) -> Result<JoinToken, String> {
    let word = |word: &str, length: usize| {
        word.len() == length && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    match text.trim().split_once('.') {
        Some((id, secret)) if word(id, 6) && word(secret, 16) => Ok(JoinToken(text.trim().to_owned())),
        // It may be a secret that was cut short: it is not repeated.
        _ => Err("a join token is 6 and 16 lower case letters and digits with a dot between".to_owned()),
    }
}

/// A certificate authority, as DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority(Vec<u8>);

fn authority(text: &str) -> Result<Authority, String> {
    let der = STANDARD
        .decode(text)
        .map_err(|e| format!("it is not base64, is the line whole? {e}"))?;
    // The first and outermost length of DER: a line that was cut short is told here, not as a broken handshake.
    let whole = match der.get(..4) {
        Some([0x30, 0x82, high, low]) => 4 + usize::from(*high) * 256 + usize::from(*low),
        Some([0x30, 0x81, length, _]) => 3 + usize::from(*length),
        _ => 0,
    };
    if whole == 0 || whole != der.len() {
        return Err("it is no certificate, is the line whole?".to_owned());
    }
    Ok(Authority(der))
}

fn prefix(text: &str) -> Result<String, String> {
    validate_cluster_name(&format!("{text}00000")).map_err(|problem| format!("a cluster name {problem}"))?;
    Ok(text.to_owned())
}

/// Joins and runs the klusterlet until `stop`.
pub async fn run(join: Join, stop: CancellationToken) -> Result<(), Error> {
    let token = match (&join.token, &join.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(|e| file(path, &e))?;
            join_token(&text).map_err(|problem| Error::File {
                path: path.clone(),
                problem,
            })?
        }
        (None, None) => return Err(Error::Input("give --token or --token-file".into())),
    };
    let connection = Connection {
        kubeconfig: join.kubeconfig.clone(),
        context: join.context.clone(),
    };
    let spoke = connection.resolved().await?;
    let dir = match &join.dir {
        Some(dir) => dir.clone(),
        None => std::env::home_dir()
            .ok_or_else(|| Error::Input("there is no home folder: give --dir".into()))?
            .join(".muster/agents")
            .join(folder(&spoke.server)),
    };
    let credentials = dir.join("hub-kubeconfig");
    private(&credentials)?;
    let name = cluster_name(&join, &credentials)?;
    let bootstrap = dir.join("bootstrap.kubeconfig");
    let text = kubeconfig(&join.hub, &join.ca, &token);
    let first = !credentials.join(SECRET_KUBECONFIG).exists();
    if first {
        // Afterwards the token may have ended: the klusterlet has credentials of its own.
        let Some(tried) = stop.run_until_cancelled(attempt(&join.hub, &text)).await else {
            return Ok(());
        };
        tried?;
    }
    crate::apiserver::write_kubeconfig(&bootstrap, &text)?;
    let mut flags: Vec<OsString> = vec![
        "--cluster-name".into(),
        name.clone().into(),
        "--bootstrap-kubeconfig".into(),
        bootstrap.into(),
        "--hub-kubeconfig-dir".into(),
        credentials.into(),
    ];
    if let Some(text) = &spoke.kubeconfig {
        // Whole and by itself: its context chosen, whatever becomes of the file it came from.
        let path = dir.join("cluster.kubeconfig");
        crate::apiserver::write_kubeconfig(&path, text)?;
        flags.extend(["--spoke-kubeconfig".into(), path.into()]);
    }
    flags.extend(join.flags.iter().cloned());
    let options = muster_klusterlet::Options::from_flags(flags)
        .map_err(|e| Error::Input(crate::error::one_line(&e.to_string())))?;
    output::note(&format!(
        "Joining {} as {name}; credentials are kept in {}",
        join.hub,
        dir.display()
    ));
    Ok(muster_klusterlet::run(options, stop).await?)
}

fn file(path: &Path, error: &std::io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        problem: error.to_string(),
    }
}

/// Makes the folder, for its owner alone.
fn private(dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| file(dir, &e))
}

/// A server's address as a folder's name.
fn folder(server: &str) -> String {
    let address = server.split_once("://").map_or(server, |(_, address)| address);
    let keep = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    address.chars().map(keep).collect()
}

/// The name given, else an earlier run's, else a new one that an interrupted run uses again.
fn cluster_name(join: &Join, credentials: &Path) -> Result<String, Error> {
    if let Some(name) = &join.cluster_name {
        return Ok(name.clone());
    }
    let path = credentials.join(SECRET_CLUSTER_NAME);
    match std::fs::read_to_string(&path) {
        Ok(name) if validate_cluster_name(name.trim()).is_ok() => return Ok(name.trim().to_owned()),
        Ok(_) => {
            return Err(Error::File {
                path,
                problem: "it does not hold a cluster's name; delete it, or give --cluster-name".into(),
            });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(file(&path, &error)),
    }
    let name = format!("{}{}", join.cluster_name_prefix, token::random(5));
    std::fs::write(&path, &name).map_err(|e| file(&path, &e))?;
    Ok(name)
}

/// The kubeconfig that may only ask to join.
fn kubeconfig(hub: &str, ca: &[Authority], token: &JoinToken) -> String {
    let mut cluster = json!({"server": hub});
    if !ca.is_empty() {
        let pem: String = ca.iter().map(|authority| armour(&authority.0)).collect();
        cluster["certificate-authority-data"] = STANDARD.encode(pem).into();
    }
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "hub", "cluster": cluster}],
        "users": [{"name": "join-token", "user": {"token": token.0}}],
        "contexts": [{"name": "hub", "context": {"cluster": "hub", "user": "join-token"}}],
        "current-context": "hub",
    });
    // JSON is YAML.
    format!("{config:#}\n")
}

fn armour(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// Asks the hub once, so that a wrong line is told at once and in one line.
async fn attempt(hub: &str, text: &str) -> Result<(), Error> {
    let wrong = |problem: String| Error::Join {
        hub: hub.to_owned(),
        problem,
    };
    let config = Kubeconfig::from_yaml(text).map_err(|e| wrong(innermost(&e)))?;
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .map_err(|e| wrong(innermost(&e)))?;
    let client = Client::try_from(config).map_err(|e| wrong(innermost(&e)))?;
    match tokio::time::timeout(ANSWER_WITHIN, client.apiserver_version()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 401 => Err(wrong(
            "it does not take the join token: it expired, was revoked, or is another hub's; make one with `muster token create`"
                .into(),
        )),
        // Whatever it may not ask: it is known there.
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => Ok(()),
        Ok(Err(error)) => {
            let problem = innermost(&error);
            let advice = if problem.contains("certificate") || problem.contains("UnknownIssuer") {
                "; the line is another hub's, or the hub has a new certificate authority"
            } else {
                "; check the URL, and that this machine can reach it"
            };
            Err(wrong(format!("{problem}{advice}")))
        }
        Err(_) => Err(wrong(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_short_is_told() {
        assert!(join_token("abcdef.0123456789abcdef").is_ok());
        for bad in [
            "abcdef",
            "abcdef.",
            "abcdef.0123456789abcde",
            "ABCDEF.0123456789abcdef",
        ] {
            let problem = join_token(bad).unwrap_err();
            assert!(!problem.contains(bad), "{problem}");
        }
        let der = [&[0x30, 0x82, 1, 0][..], &[7; 256]].concat();
        assert_eq!(authority(&STANDARD.encode(&der)), Ok(Authority(der.clone())));
        for bad in [&der[..100], &[], &[0x30, 0x82, 1, 0], &[1, 2, 3, 4, 5]] {
            assert!(authority(&STANDARD.encode(bad)).is_err());
        }
        assert!(authority("@").is_err());
        assert!(
            prefix("burst-").is_ok() && prefix("").is_ok() && prefix("-a").is_err() && prefix("A").is_err()
        );
    }

    #[test]
    fn a_name_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let join = |name: Option<&str>| Join {
            hub: "https://h".into(),
            token: None,
            token_file: None,
            ca: vec![],
            cluster_name: name.map(str::to_owned),
            cluster_name_prefix: "burst-".into(),
            dir: None,
            kubeconfig: None,
            context: None,
            flags: vec![],
        };
        let name = cluster_name(&join(None), dir.path()).unwrap();
        assert!(name.starts_with("burst-") && name.len() == 11, "{name}");
        assert_eq!(cluster_name(&join(None), dir.path()).unwrap(), name);
        assert_eq!(cluster_name(&join(Some("c1")), dir.path()).unwrap(), "c1");
        std::fs::write(dir.path().join(SECRET_CLUSTER_NAME), "No Name").unwrap();
        let error = cluster_name(&join(None), dir.path()).unwrap_err().to_string();
        assert!(error.contains("does not hold a cluster's name"), "{error}");
    }

    #[test]
    fn the_kubeconfig_holds_the_token_and_the_authority() {
        let token = join_token("abcdef.0123456789abcdef").unwrap();
        assert_eq!(format!("{token:?}"), "JoinToken");
        let text = kubeconfig("https://h:1", &[Authority(vec![1; 100])], &token);
        let config = Kubeconfig::from_yaml(&text).unwrap();
        let cluster = config.clusters[0].cluster.clone().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://h:1"));
        let pem = STANDARD
            .decode(cluster.certificate_authority_data.unwrap())
            .unwrap();
        assert!(pem.starts_with(b"-----BEGIN CERTIFICATE-----\n"));
        assert_eq!(folder("https://127.0.0.1:6443/"), "127.0.0.1-6443-");
    }
}
