//! Bootstrap data: a kubeconfig that may only ask to join, in a file or in a Secret of the agent's namespace. Whichever
//! changed last counts; at the start, the file. The Secret is watched. The file is looked at (one `stat`) whenever it could
//! matter: with every lease renewal, when the hub does not answer, and before each attempt to register.

use super::kubeconfig::{self, Server};
use crate::Error;
use crate::work::Backoff;
use crate::work::objects::{self, RequestError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use kube::config::Kubeconfig;
use kube::runtime::watcher;
use muster_crds::constants::names::SECRET_KUBECONFIG;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio::sync::watch;

/// Keys and contents of a Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Where a bootstrap kubeconfig comes from, and what it says.
#[derive(Clone)]
pub struct Bootstrap {
    /// The file, or what names the Secret.
    pub origin: PathBuf,
    /// The kubeconfig; the files it names are absolute.
    pub config: Kubeconfig,
    /// The hub it names.
    pub server: Server,
}

impl std::fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bootstrap")
            .field("origin", &self.origin)
            .field("server", &self.server.url)
            .finish_non_exhaustive()
    }
}

impl Bootstrap {
    /// Reads a file.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let config = kubeconfig::read("bootstrap", path)?;
        Self::new(path.to_owned(), config)
    }

    /// Reads a Secret's data. Files the kubeconfig names are other keys of the Secret, as if it were mounted.
    pub fn from_secret(origin: &Path, data: &Data) -> Result<Self, Error> {
        let problem = |problem: String| Error::Kubeconfig {
            role: "bootstrap",
            path: origin.to_owned(),
            problem,
        };
        let bytes = data
            .get(SECRET_KUBECONFIG)
            .ok_or_else(|| problem(format!("there is no key {SECRET_KUBECONFIG:?}")))?;
        let mut config = Kubeconfig::from_yaml(&String::from_utf8_lossy(bytes))
            .map_err(|e| problem(kubeconfig::first_line(&e)))?;
        let taken = |file: &mut Option<String>| {
            let found = data.get(file.as_deref()?)?.clone();
            *file = None;
            Some(found)
        };
        for cluster in config.clusters.iter_mut().filter_map(|c| c.cluster.as_mut()) {
            if let Some(ca) = taken(&mut cluster.certificate_authority) {
                cluster.certificate_authority_data = Some(STANDARD.encode(ca));
            }
        }
        for user in config.auth_infos.iter_mut().filter_map(|u| u.auth_info.as_mut()) {
            if let Some(token) = taken(&mut user.token_file) {
                user.token = Some(String::from_utf8_lossy(&token).trim().to_owned().into());
            }
            if let Some(certificate) = taken(&mut user.client_certificate) {
                user.client_certificate_data = Some(STANDARD.encode(certificate));
            }
            if let Some(key) = taken(&mut user.client_key) {
                user.client_key_data = Some(STANDARD.encode(key).into());
            }
        }
        Self::new(origin.to_owned(), config)
    }

    fn new(origin: PathBuf, config: Kubeconfig) -> Result<Self, Error> {
        match kubeconfig::server(&config) {
            Ok(server) => Ok(Self {
                origin,
                config,
                server,
            }),
            Err(problem) => Err(Error::Kubeconfig {
                role: "bootstrap",
                path: origin,
                problem,
            }),
        }
    }
}

/// What a file looked like. A Secret mounted by the kubelet is a link that comes to point elsewhere: another inode.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path).ok()?;
    Some(Stamp {
        modified: found.modified().ok(),
        length: found.len(),
        inode: found.ino(),
    })
}

/// The one place bootstrap data are taken from.
#[derive(Debug)]
pub struct Source {
    file: Option<PathBuf>,
    stamp: Option<Stamp>,
    secret: Option<Data>,
    secret_name: PathBuf,
    secret_is_newer: bool,
}

impl Source {
    /// Data from this file, if given, and from the Secret with these names.
    pub fn new(file: Option<PathBuf>, namespace: &str, secret: &str) -> Self {
        let stamp = file.as_deref().and_then(stamp);
        Self {
            secret_is_newer: stamp.is_none(),
            stamp,
            file,
            secret: None,
            secret_name: PathBuf::from(format!("Secret {namespace}/{secret}")),
        }
    }

    /// The Secret is so now. `first` says that it was so before the start. True when it changed.
    pub fn secret_is(&mut self, data: Option<Data>, first: bool) -> bool {
        if self.secret == data {
            return false;
        }
        if !first {
            self.secret_is_newer = data.is_some();
        }
        self.secret = data;
        true
    }

    /// Looks whether the file changed since the last look.
    pub fn file_changed(&mut self) -> bool {
        let Some(path) = &self.file else { return false };
        let now = stamp(path);
        if now == self.stamp {
            return false;
        }
        self.secret_is_newer = now.is_none();
        self.stamp = now;
        true
    }

    /// The data that count now; an error when they can not be used, nothing when there are none.
    pub fn bootstrap(&self) -> Result<Option<Bootstrap>, Error> {
        let file = self.file.as_deref().filter(|_| self.stamp.is_some());
        match (file, &self.secret) {
            (Some(path), None) => Bootstrap::from_file(path).map(Some),
            (Some(path), Some(_)) if !self.secret_is_newer => Bootstrap::from_file(path).map(Some),
            (_, Some(data)) => Bootstrap::from_secret(&self.secret_name, data).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// What to give when there is nothing, in words.
    pub fn wanted(&self) -> String {
        match &self.file {
            Some(path) => format!("{} or {}", path.display(), self.secret_name.display()),
            None => self.secret_name.display().to_string(),
        }
    }
}

/// What a Secret holds now; nothing when there is none.
pub async fn read_secret(spoke: &Client, namespace: &str, name: &str) -> Result<Option<Data>, RequestError> {
    match objects::get(spoke, &format!("/api/v1/namespaces/{namespace}/secrets/{name}")).await {
        Ok(secret) => {
            let data = secret["data"].as_object().into_iter().flatten();
            let decoded = data.filter_map(|(k, v)| Some((k.clone(), STANDARD.decode(v.as_str()?).ok()?)));
            Ok(Some(decoded.collect()))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Follows one Secret for ever. The outer `None` until it is known whether it is there.
pub async fn follow_secret(
    spoke: Client,
    namespace: String,
    name: String,
    into: watch::Sender<Option<Option<Data>>>,
) {
    let api: Api<Secret> = Api::namespaced(spoke, &namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = Box::pin(watcher(api, config));
    let mut backoff = Backoff::default();
    let mut seen = false;
    let mut told = false;
    let data =
        |secret: Secret| -> Data { secret.data.into_iter().flatten().map(|(k, v)| (k, v.0)).collect() };
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => seen = false,
            Ok(Some(watcher::Event::InitApply(secret) | watcher::Event::Apply(secret))) => {
                seen = true;
                backoff = Backoff::default();
                into.send_replace(Some(Some(data(secret))));
            }
            Ok(Some(watcher::Event::InitDone)) if !seen => {
                backoff = Backoff::default();
                into.send_replace(Some(None));
            }
            Ok(Some(watcher::Event::InitDone)) => {}
            Ok(Some(watcher::Event::Delete(_))) => {
                into.send_replace(Some(None));
            }
            Ok(None) => return,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(namespace, name, %error, "the Secret can not be watched; changes of it take hold once it can be");
                }
                backoff.wait().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(server: &str) -> String {
        format!(
            "current-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: \"{server}\", certificate-authority: ca.crt}}}}]\n\
             users: [{{name: u, user: {{tokenFile: token}}}}]\n"
        )
    }

    fn data(server: &str) -> Data {
        [
            ("kubeconfig", text(server)),
            ("ca.crt", "pem".into()),
            ("token", "t0ken\n".into()),
        ]
        .map(|(k, v)| (k.to_owned(), v.into_bytes()))
        .into()
    }

    fn url(source: &Source) -> Option<String> {
        source.bootstrap().unwrap().map(|b| b.server.url)
    }

    #[test]
    fn what_changed_last_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        std::fs::write(dir.path().join("ca.crt"), "pem").unwrap();
        std::fs::write(&path, text("https://file")).unwrap();
        let mut source = Source::new(Some(path.clone()), "ns", "boot");
        assert!(!source.file_changed());
        assert!(source.secret_is(Some(data("https://secret")), true));
        assert_eq!(
            url(&source).as_deref(),
            Some("https://file"),
            "at the start the file"
        );
        assert!(source.secret_is(Some(data("https://secret2")), false));
        assert!(
            !source.secret_is(Some(data("https://secret2")), false),
            "no change"
        );
        assert_eq!(url(&source).as_deref(), Some("https://secret2"));
        std::fs::write(&path, text("https://file-2")).unwrap();
        assert!(source.file_changed() && !source.file_changed());
        assert_eq!(url(&source).as_deref(), Some("https://file-2"));
        std::fs::remove_file(&path).unwrap();
        assert!(source.file_changed());
        assert_eq!(
            url(&source).as_deref(),
            Some("https://secret2"),
            "the file vanished"
        );
        assert!(source.secret_is(None, false));
        assert_eq!(url(&source), None);
        std::fs::write(&path, text("https://file-3")).unwrap();
        assert!(source.file_changed());
        assert_eq!(url(&source).as_deref(), Some("https://file-3"));
    }

    #[test]
    fn a_secret_brings_the_files_its_kubeconfig_names() {
        let found = Bootstrap::from_secret(Path::new("Secret ns/boot"), &data("https://hub")).unwrap();
        assert_eq!(found.server.ca, b"pem");
        let user = found.config.auth_infos[0].auth_info.as_ref().unwrap();
        assert!(user.token_file.is_none() && user.token.is_some());
        assert!(!format!("{found:?}").contains("t0ken"));
    }

    #[test]
    fn a_secret_without_its_key_is_said_so() {
        let error = Bootstrap::from_secret(Path::new("Secret ns/boot"), &Data::new()).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("Secret ns/boot") && error.contains("kubeconfig"),
            "{error}"
        );
    }
}
