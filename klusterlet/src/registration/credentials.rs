//! The agent's credentials at the hub: a Secret on the managed cluster, and the same as files for everything that reads
//! files. Whether they are good is decided from their bytes alone (wire §2.2).

use super::bootstrap;
use super::kubeconfig::{self, Server};
use super::session::Identity;
use crate::Error;
use crate::work::objects::{self, RequestError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kube::Client;
use kube::config::Kubeconfig;
use muster_crds::constants::names::{
    SECRET_AGENT_NAME, SECRET_CLUSTER_NAME, SECRET_KUBECONFIG, SECRET_TLS_CRT, SECRET_TLS_KEY,
};
use muster_crds::names;
pub use muster_crds::validity::Validity;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Keys and contents of the hub secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(BTreeMap<String, Vec<u8>>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl From<BTreeMap<String, Vec<u8>>> for Credentials {
    fn from(data: BTreeMap<String, Vec<u8>>) -> Self {
        Self(data)
    }
}

impl Credentials {
    /// Credentials as they are written after a certificate was given.
    pub fn new(server: &Server, cluster: &str, agent: &str, certificate: &[u8], key: &[u8]) -> Self {
        let entries = [
            (SECRET_CLUSTER_NAME, cluster.as_bytes().to_vec()),
            (SECRET_AGENT_NAME, agent.as_bytes().to_vec()),
            (SECRET_KUBECONFIG, kubeconfig::for_agent(server).into_bytes()),
            (SECRET_TLS_CRT, certificate.to_vec()),
            (SECRET_TLS_KEY, key.to_vec()),
        ];
        Self(entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
    }

    /// Whether the other holds all of these, and maybe more.
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.iter().all(|(key, value)| other.0.get(key) == Some(value))
    }

    /// Common name and validity of their certificate.
    pub fn certificate(&self) -> Result<(String, Validity), String> {
        certificate(self.get(SECRET_TLS_CRT))
    }

    /// Until when their certificate is good.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.certificate().ok().map(|(_, v)| v.not_after)
    }

    /// Whose they are, by their certificate.
    pub fn identity(&self) -> Option<Identity> {
        let (user, _) = self.certificate().ok()?;
        let (cluster, agent) = names::parse_user(&user)?;
        Some(Identity {
            cluster: cluster.to_owned(),
            agent: agent.to_owned(),
        })
    }

    fn get(&self, key: &str) -> &[u8] {
        self.0.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether there is more than the names that were kept before there was a certificate.
    pub fn has_kubeconfig(&self) -> bool {
        !self.get(SECRET_KUBECONFIG).is_empty()
    }

    /// The text under a key, trimmed, when there is any.
    pub fn text(&self, key: &str) -> Option<String> {
        let text = String::from_utf8_lossy(self.get(key)).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// What is in a folder; empty when the folder is not there.
    pub fn read_dir(dir: &Path) -> Result<Self, Error> {
        let mut found = BTreeMap::new();
        for name in [
            SECRET_CLUSTER_NAME,
            SECRET_AGENT_NAME,
            SECRET_KUBECONFIG,
            SECRET_TLS_CRT,
            SECRET_TLS_KEY,
        ] {
            let path = dir.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => {
                    found.insert(name.to_owned(), bytes);
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::File { path, source }),
            }
        }
        Ok(Self(found))
    }

    /// Writes the files: folder 0700, files 0600, each whole or not at all, the certificate pair before the kubeconfig that
    /// points to it.
    pub fn write_dir(&self, dir: &Path) -> Result<(), Error> {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { path, source }
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed(dir))?;
        for name in [
            SECRET_CLUSTER_NAME,
            SECRET_AGENT_NAME,
            SECRET_TLS_KEY,
            SECRET_TLS_CRT,
            SECRET_KUBECONFIG,
        ] {
            let Some(bytes) = self.0.get(name) else { continue };
            let path = dir.join(name);
            if std::fs::read(&path).is_ok_and(|old| old == *bytes) {
                continue;
            }
            let temporary = dir.join(format!(".{name}.new"));
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&temporary).map_err(failed(&temporary))?;
            file.write_all(bytes)
                .and_then(|()| file.sync_all())
                .map_err(failed(&temporary))?;
            std::fs::rename(&temporary, &path).map_err(failed(&path))?;
        }
        Ok(())
    }

    /// What the Secret holds; empty when there is none.
    pub async fn read_secret(spoke: &Client, namespace: &str, name: &str) -> Result<Self, RequestError> {
        let found = bootstrap::read_secret(spoke, namespace, name).await?;
        Ok(found.map_or_else(Self::default, Self::from))
    }

    /// Writes the Secret, keeping keys it does not know.
    pub async fn write_secret(
        &self,
        spoke: &Client,
        namespace: &str,
        name: &str,
    ) -> Result<(), RequestError> {
        let path = format!("/api/v1/namespaces/{namespace}/secrets");
        let data: Map<String, Value> = self
            .0
            .iter()
            .map(|(k, v)| (k.clone(), STANDARD.encode(v).into()))
            .collect();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": name, "namespace": namespace}, "data": data});
        match objects::merge(spoke, &format!("{path}/{name}"), &json!({ "data": data })).await {
            Err(error) if error.is_not_found() => objects::create(spoke, &path, &secret).await.map(|_| ()),
            other => other.map(|_| ()),
        }
    }

    /// Whether these credentials are good for this cluster and agent at this hub now; why not otherwise. Without a
    /// bootstrap kubeconfig any hub is the right one.
    pub fn check(
        &self,
        hub: Option<&Server>,
        cluster: &str,
        agent: &str,
        now: Timestamp,
    ) -> Result<Validity, String> {
        for key in [SECRET_KUBECONFIG, SECRET_TLS_KEY, SECRET_TLS_CRT] {
            if self.get(key).is_empty() {
                return Err(format!("there is no {key}"));
            }
        }
        let config = Kubeconfig::from_yaml(&String::from_utf8_lossy(self.get(SECRET_KUBECONFIG)))
            .map_err(|e| format!("the kubeconfig is damaged: {}", kubeconfig::first_line(&e)))?;
        let named = kubeconfig::server(&config)?;
        if let Some(hub) = hub
            && named != *hub
        {
            return Err(format!(
                "they are for another hub than the bootstrap kubeconfig's: {}",
                named.url
            ));
        }
        for (key, expected) in [(SECRET_CLUSTER_NAME, cluster), (SECRET_AGENT_NAME, agent)] {
            if self.text(key).is_some_and(|have| have != expected) {
                return Err(format!("their {key} is another one than {expected}"));
            }
        }
        let (subject, validity) = certificate(self.get(SECRET_TLS_CRT))?;
        if subject != names::user(cluster, agent) {
            return Err(format!("the certificate is for {subject:?}"));
        }
        if now >= validity.not_after {
            return Err(format!("the certificate expired at {}", validity.not_after));
        }
        Ok(validity)
    }

    /// The server the kubeconfig names.
    pub fn server(&self) -> Result<Server, String> {
        let config = Kubeconfig::from_yaml(&String::from_utf8_lossy(self.get(SECRET_KUBECONFIG)))
            .map_err(|e| format!("the kubeconfig is damaged: {}", kubeconfig::first_line(&e)))?;
        kubeconfig::server(&config)
    }

    /// The hub kubeconfig, with the certificate inside.
    pub fn kubeconfig(&self) -> Result<Kubeconfig, String> {
        let text = String::from_utf8_lossy(self.get(SECRET_KUBECONFIG));
        let mut config = Kubeconfig::from_yaml(&text)
            .map_err(|e| format!("the kubeconfig is damaged: {}", kubeconfig::first_line(&e)))?;
        for user in config.auth_infos.iter_mut().filter_map(|u| u.auth_info.as_mut()) {
            if user.client_certificate.take().is_some() {
                user.client_certificate_data = Some(STANDARD.encode(self.get(SECRET_TLS_CRT)));
            }
            if user.client_key.take().is_some() {
                user.client_key_data = Some(STANDARD.encode(self.get(SECRET_TLS_KEY)).into());
            }
        }
        Ok(config)
    }
}

/// Common name and validity of the first certificate of a PEM chain.
pub fn certificate(pem: &[u8]) -> Result<(String, Validity), String> {
    let (_, block) =
        x509_parser::pem::parse_x509_pem(pem).map_err(|e| format!("the certificate is no PEM: {e}"))?;
    let parsed = block
        .parse_x509()
        .map_err(|e| format!("the certificate is damaged: {e}"))?;
    let name = parsed
        .subject()
        .iter_common_name()
        .next()
        .and_then(|n| n.as_str().ok());
    let time =
        |t: i64| Timestamp::from_second(t).map_err(|e| format!("the certificate's dates are damaged: {e}"));
    let validity = Validity {
        not_before: time(parsed.validity().not_before.timestamp())?,
        not_after: time(parsed.validity().not_after.timestamp())?,
    };
    Ok((name.unwrap_or_default().to_owned(), validity))
}

/// Names of cluster and agent in the order of their sources (wire §2.1): option, earlier run, random.
pub fn identity(
    cluster: Option<&str>,
    agent: Option<&str>,
    earlier: &Credentials,
) -> Result<(String, String), Error> {
    let cluster = cluster
        .map(str::to_owned)
        .or_else(|| earlier.text(SECRET_CLUSTER_NAME))
        .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    names::validate_cluster_name(&cluster).map_err(|problem| Error::Name {
        what: "cluster name",
        name: cluster.clone(),
        problem: problem.into(),
    })?;
    let agent = agent
        .map(str::to_owned)
        .or_else(|| earlier.text(SECRET_AGENT_NAME))
        .unwrap_or_else(|| {
            let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
            (0..5)
                .map(|_| char::from(letters[rand::random_range(0..letters.len())]))
                .collect()
        });
    Ok((cluster, agent))
}

/// The names, to be written down where the credentials are to be; nothing where an earlier run did.
pub fn names_to_keep(cluster: &str, agent: &str, earlier: &Credentials) -> Option<Credentials> {
    if earlier.text(SECRET_AGENT_NAME).is_some() {
        return None;
    }
    let names = [(SECRET_CLUSTER_NAME, cluster), (SECRET_AGENT_NAME, agent)];
    let names = names.map(|(key, name)| (key.to_owned(), name.as_bytes().to_vec()));
    Some(Credentials(names.into()))
}

/// Where credentials live besides the Secret.
#[derive(Debug, Clone)]
pub struct Place {
    /// Folder with the files.
    pub dir: PathBuf,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_started_again_before_it_has_a_certificate_is_the_same_agent() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("hub-kubeconfig");
        let (cluster, agent) = identity(None, None, &Credentials::default()).unwrap();
        let names = names_to_keep(&cluster, &agent, &Credentials::default()).unwrap();
        names.write_dir(&dir).unwrap();
        let earlier = Credentials::read_dir(&dir).unwrap();
        assert_eq!(identity(None, None, &earlier).unwrap(), (cluster, agent));
        assert!(!earlier.has_kubeconfig(), "it has not joined");
        // What an earlier run wrote stays.
        assert_eq!(names_to_keep("other", "other", &earlier), None);
    }
}
