//! `muster token`: join tokens. A token is a Kubernetes bootstrap token; what it may do is written beside it, and the hub
//! holds whoever uses it to that.

use crate::kubeconfig::{self, Connection, Hub};
use crate::output::{self, Format};
use crate::table::{Table, age, duration as words};
use crate::{Error, names};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use muster_crds::cluster::v1beta2::ManagedClusterSet;
use muster_crds::constants::names::{BOOTSTRAP_GROUP, BOOTSTRAP_TOKEN_NAMESPACE, BOOTSTRAP_TOKEN_PREFIX};
use muster_crds::constants::{annotations, labels};
use muster_hub::token::{Grant, MAX_USES, TokenView, secret_name, selector, validate_pattern};
use rand::Rng as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

const KIND: &str = "secrets";
/// Lengths of a bootstrap token's two parts (Kubernetes' bootstrapapi).
const ID: usize = 6;
const SECRET: usize = 16;

/// What to do with join tokens.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Token {
    /// Make a join token and print the command that joins a cluster with it
    #[command(
        long_about = "Makes a join token and prints one command. Run where a cluster's kubeconfig is, it joins that cluster to this hub. The hub holds whoever uses the token to what it allows; a cluster that comes with a token made without --accept waits until a person accepts it.",
        after_long_help = "Examples:\n  muster token create --accept\n  muster token create --clusters 'burst-*' --uses 10 --ttl 2h --accept --set burst --label env=test"
    )]
    Create(Create),
    /// Show join tokens and who used them
    #[command(visible_alias = "ls", after_long_help = "Examples:\n  muster token list")]
    List,
    /// End a join token; clusters that came with it stay
    #[command(
        visible_alias = "delete",
        after_long_help = "Examples:\n  muster token revoke a1b2c3"
    )]
    Revoke {
        /// Id of the token: what stands before its dot
        #[arg(value_name = "ID", value_parser = id, required = true)]
        ids: Vec<String>,
    },
}

/// `muster token create`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Create {
    /// How long it is good for
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = ttl)]
    pub ttl: Duration,
    /// How many clusters may come with it. Default: any number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_USES)))]
    pub uses: Option<u32>,
    /// Names of clusters it is good for, * for any characters. Default: any name
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = pattern)]
    pub clusters: Vec<String>,
    /// Cluster set that its clusters come into
    #[arg(long, value_name = "NAME", value_parser = set)]
    pub set: Option<String>,
    /// Label for its clusters
    #[arg(long = "label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Accept its clusters: no person has to
    #[arg(long)]
    pub accept: bool,
    /// URL under which clusters reach the hub. Default: the kubeconfig's
    #[arg(long, value_name = "URL", value_parser = https)]
    pub hub_url: Option<String>,
}

fn ttl(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration = text
        .parse()
        .map_err(|_| "write a duration like 30m or 24h".to_owned())?;
    let parsed = (!parsed.is_negative()).then(|| Duration::from(parsed));
    parsed
        .filter(|ttl| ttl.as_secs() > 0 && ttl.as_secs() <= 10 * 365 * 24 * 3600)
        .ok_or_else(|| "a token lives between a second and ten years".to_owned())
}

fn pattern(text: &str) -> Result<String, String> {
    validate_pattern(text).map_err(|problem| format!("a pattern of cluster names {problem}"))?;
    Ok(text.to_owned())
}

/// A cluster set's name is also a label's value.
fn set(text: &str) -> Result<String, String> {
    names::work(text)
        .ok()
        .filter(|name| name.len() <= 63)
        .ok_or_else(|| {
            "a cluster set's name must hold only lower case letters, digits, '-' and '.', 63 at most"
                .to_owned()
        })
}

/// A label as Kubernetes has them.
fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is no label: write key=value"))?;
    let word = |word: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        word.len() <= 63
            && ends(word.chars().next())
            && ends(word.chars().last())
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    if !word(name) || prefix.is_some_and(|prefix| names::work(prefix).is_err()) {
        return Err(format!("{key:?} can not be a label's key"));
    }
    if !value.is_empty() && !word(value) {
        return Err(format!("{value:?} can not be a label's value"));
    }
    if key == labels::CLUSTER_SET {
        return Err("say the cluster set with --set".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// The URL of a hub.
pub fn https(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]%".contains(c);
    if rest.is_empty() || rest.starts_with('/') || !rest.chars().all(plain) {
        return Err("write a URL like https://hub.example.com:6443".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn id(text: &str) -> Result<String, String> {
    // A whole token may be pasted too; its secret is not needed.
    let id = text.split('.').next().unwrap_or_default();
    let good = id.len() == ID && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    good.then(|| id.to_owned())
        .ok_or_else(|| format!("a token's id is {ID} lower case letters and digits"))
}

/// Runs `muster token`.
pub async fn run(token: &Token, connection: &Connection, format: Format) -> Result<(), Error> {
    let hub = connection.hub().await?;
    let secrets: Api<Secret> = Api::namespaced(hub.client.clone(), BOOTSTRAP_TOKEN_NAMESPACE);
    match token {
        Token::Create(create) => {
            let url = create.hub_url.clone().unwrap_or_else(|| hub.server.clone());
            // What a cluster can not use is said before anything is made.
            let url = https(&url).map_err(|_| {
                Error::Input(format!(
                    "clusters can not join over {url:?}: give --hub-url https://…"
                ))
            })?;
            if let Some(set) = &create.set {
                let sets: Api<ManagedClusterSet> = Api::all(hub.client.clone());
                let found = kubeconfig::get(&sets, set);
                let found = hub
                    .ask("look for the cluster set", "managedclustersets", found)
                    .await?;
                found.ok_or_else(|| Error::Input(format!("the hub has no cluster set {set:?}")))?;
            }
            let (object, token) = secret(create, Timestamp::now())?;
            let parameters = PostParams::default();
            let made = secrets.create(&parameters, &object);
            let made = hub.ask("make the token", KIND, made).await?;
            match format {
                Format::Table | Format::Wide => {
                    output::print(&format!("{}\n", line(&url, &hub.ca, &token, &create.clusters)))
                }
                Format::Name => output::print(&format!("secret/{}\n", made.name_any())),
                Format::Json | Format::Yaml => {
                    let value = json!({
                        "id": token.split('.').next(),
                        "token": token,
                        "command": line(&url, &hub.ca, &token, &create.clusters),
                    });
                    output::print(&output::document(&value, format)?)
                }
            }
        }
        Token::List => {
            let selected = ListParams::default().labels(&selector());
            let found = hub.ask("list the tokens", KIND, secrets.list(&selected)).await?;
            list(&hub, &found.items, format)
        }
        Token::Revoke { ids } => {
            for id in ids {
                revoke(&hub, &secrets, id).await?;
            }
            Ok(())
        }
    }
}

async fn revoke(hub: &Hub, secrets: &Api<Secret>, id: &str) -> Result<(), Error> {
    let name = secret_name(id);
    let found = hub
        .ask("look for the token", KIND, kubeconfig::get(secrets, &name))
        .await?;
    let ours = found.filter(|secret| {
        secret
            .labels()
            .get(labels::JOIN_TOKEN)
            .is_some_and(|v| v == "true")
    });
    if ours.is_none() {
        return Err(Error::Input(format!(
            "the hub has no join token {id:?}; `muster token list` lists those it has"
        )));
    }
    hub.ask(
        "revoke the token",
        KIND,
        secrets.delete(&name, &DeleteParams::default()),
    )
    .await?;
    output::print(&format!("token {id} revoked\n"))
}

/// The Secret of a new token, and the token.
pub fn secret(create: &Create, now: Timestamp) -> Result<(Secret, String), Error> {
    let (id, secret) = (random(ID), random(SECRET));
    let seconds = i64::try_from(create.ttl.as_secs()).unwrap_or(i64::MAX);
    let expiration = Timestamp::from_second(now.as_second().saturating_add(seconds))
        .map_err(|e| Error::Input(format!("the token would live too long: {e}")))?;
    let grant = Grant {
        clusters: create.clusters.clone(),
        accept: create.accept,
        set: create.set.clone(),
        labels: create.labels.iter().cloned().collect(),
        uses: create.uses,
    };
    let mut notes: BTreeMap<String, String> = grant.annotations();
    notes.insert(annotations::TOKEN_EXPIRATION.to_owned(), expiration.to_string());
    let object = json!({
        "metadata": {
            "name": secret_name(&id),
            "labels": {labels::JOIN_TOKEN: "true"},
            "annotations": notes,
        },
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "description": "Join token, made by muster token create",
            "token-id": id,
            "token-secret": secret,
            "expiration": expiration.to_string(),
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": BOOTSTRAP_GROUP,
        },
    });
    let object = serde_json::from_value(object)
        .map_err(|e| Error::Input(format!("the token can not be made: {e}")))?;
    Ok((object, format!("{id}.{secret}")))
}

/// Random letters and digits, from the operating system's generator by way of a cryptographic one.
pub fn random(length: usize) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = rand::rng();
    (0..length)
        .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
        .collect()
}

/// The command that joins a cluster. The hub's CA is in it: what it is pasted into trusts that CA, and no other.
pub fn line(url: &str, ca: &[Vec<u8>], token: &str, patterns: &[String]) -> String {
    let mut line = format!("muster join --hub {url} --token {token}");
    if let [pattern] = patterns {
        match pattern.split_once('*') {
            None => {
                let _ = write!(line, " --cluster-name {pattern}");
            }
            Some((prefix, "")) if !prefix.is_empty() => {
                let _ = write!(line, " --cluster-name-prefix {prefix}");
            }
            Some(_) => line.push_str(" --cluster-name NAME"),
        }
    } else if !patterns.is_empty() {
        line.push_str(" --cluster-name NAME");
    }
    for der in ca {
        let _ = write!(line, " --ca {}", STANDARD.encode(der));
    }
    line
}

fn list(hub: &Hub, secrets: &[Secret], format: Format) -> Result<(), Error> {
    let now = Timestamp::now();
    let text = match format {
        Format::Name => {
            let mut text = String::new();
            for secret in secrets {
                let _ = writeln!(text, "secret/{}", secret.name_any());
            }
            text
        }
        Format::Json | Format::Yaml => {
            let values: Vec<_> = secrets.iter().map(summary).collect();
            output::document(&output::list(&values), format)?
        }
        Format::Table | Format::Wide if secrets.is_empty() => {
            output::note(&format!("No join tokens found at {}", hub.server));
            return Ok(());
        }
        Format::Table | Format::Wide => table(secrets, now),
    };
    output::print(&text)
}

fn token_of(secret: &Secret) -> String {
    let name = secret.name_any();
    name.strip_prefix(BOOTSTRAP_TOKEN_PREFIX)
        .unwrap_or(&name)
        .to_owned()
}

/// A token without its secret.
fn summary(secret: &Secret) -> serde_json::Value {
    let view = TokenView::of(&secret.metadata);
    let mut value = json!({
        "id": token_of(secret),
        "expiration": view.expiration.map(|time| time.to_string()),
        "usedBy": view.used_by,
    });
    match view.grant {
        Err(problem) => value["problem"] = json!(problem),
        Ok(grant) => {
            value["clusters"] = json!(grant.clusters);
            value["accept"] = json!(grant.accept);
            value["set"] = json!(grant.set);
            value["labels"] = json!(grant.labels);
            value["uses"] = json!(grant.uses);
        }
    }
    value
}

fn table(secrets: &[Secret], now: Timestamp) -> String {
    let mut table = Table::new(&[
        "ID", "CLUSTERS", "USES", "ACCEPT", "SET", "LABELS", "EXPIRES", "AGE",
    ]);
    for secret in secrets {
        let view = TokenView::of(&secret.metadata);
        let expires = match view.expiration {
            None => "never".to_owned(),
            Some(time) if time <= now => "expired".to_owned(),
            Some(time) => format!("in {}", words(time.as_second() - now.as_second())),
        };
        let or_any = |text: String| if text.is_empty() { "<any>".to_owned() } else { text };
        let or_none = |text: String| {
            if text.is_empty() {
                "<none>".to_owned()
            } else {
                text
            }
        };
        let age = age(secret.creation_timestamp().map(|time| time.0), now);
        let mut cells = vec![token_of(secret)];
        match view.grant {
            Err(problem) => {
                cells.push(format!("<invalid: {problem}>"));
                cells.extend(std::iter::repeat_n("<none>".to_owned(), 4));
            }
            Ok(grant) => {
                let labels: Vec<String> = grant.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                cells.extend([
                    or_any(grant.clusters.join(",")),
                    grant.uses.map_or_else(
                        || "<any>".to_owned(),
                        |uses| format!("{}/{uses}", view.used_by.len()),
                    ),
                    grant.accept.to_string(),
                    or_none(grant.set.unwrap_or_default()),
                    or_none(labels.join(",")),
                ]);
            }
        }
        cells.extend([expires, age]);
        table.row(cells);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_bootstrap_token_with_its_grant_beside_it() {
        let create = Create {
            ttl: Duration::from_secs(3600),
            uses: Some(3),
            clusters: vec!["burst-*".to_owned()],
            set: Some("burst".to_owned()),
            labels: vec![("env".to_owned(), "test".to_owned())],
            accept: true,
            hub_url: None,
        };
        let (secret, token) = secret(&create, Timestamp::UNIX_EPOCH).unwrap();
        let (id, rest) = token.split_once('.').unwrap();
        assert_eq!((id.len(), rest.len()), (6, 16));
        assert_eq!(secret.name_any(), format!("bootstrap-token-{id}"));
        let data = secret.string_data.clone().unwrap();
        assert_eq!(data["expiration"], "1970-01-01T01:00:00Z");
        assert_eq!(data["auth-extra-groups"], "system:bootstrappers:managedcluster");
        let view = TokenView::of(&secret.metadata);
        assert_eq!(view.expiration, Some(Timestamp::from_second(3600).unwrap()));
        assert!(view.check("burst-1", Timestamp::UNIX_EPOCH).unwrap().accept);
        assert!(view.check("prod-1", Timestamp::UNIX_EPOCH).is_err());
        // What lists and prints a token never tells its secret.
        let shown = format!(
            "{}{}",
            summary(&secret),
            table(std::slice::from_ref(&secret), Timestamp::UNIX_EPOCH)
        );
        assert!(!shown.contains(rest), "{shown}");
        assert!(
            shown.contains("burst-*") && shown.contains("0/3") && shown.contains("in 60m"),
            "{shown}"
        );
        assert_ne!(super::secret(&create, Timestamp::UNIX_EPOCH).unwrap().1, token);
    }

    #[test]
    fn the_join_line_names_the_cluster_where_the_token_does() {
        let line = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            line("https://h:1", &[vec![1, 2, 3]], "a.b", &patterns)
        };
        let start = "muster join --hub https://h:1 --token a.b";
        for (patterns, wanted) in [
            (&[][..], " --ca AQID"),
            (&["c1"], " --cluster-name c1 --ca AQID"),
            (&["burst-*"], " --cluster-name-prefix burst- --ca AQID"),
            (&["*"], " --cluster-name NAME --ca AQID"),
            (&["a", "b"], " --cluster-name NAME --ca AQID"),
        ] {
            assert_eq!(line(patterns), format!("{start}{wanted}"), "{patterns:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in ["0s", "-1h", "1", "20000000h"] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
        for bad in [
            "a",
            "=v",
            "a=b c",
            "a/=v",
            "A/b=c",
            "cluster.open-cluster-management.io/clusterset=x",
        ] {
            assert!(label(bad).is_err(), "{bad}");
        }
        assert_eq!(label("a.io/b="), Ok(("a.io/b".to_owned(), String::new())));
        for bad in ["http://h", "https://", "https:///x", "https://h; rm", "h"] {
            assert!(https(bad).is_err(), "{bad}");
        }
        assert_eq!(https("https://[::1]:6443/"), Ok("https://[::1]:6443".to_owned()));
        assert_eq!(id("abcdef.0123456789abcdef"), Ok("abcdef".to_owned()));
        assert!(id("abc").is_err() && id("ABCDEF").is_err());
        assert!(set("A").is_err());
    }
}
