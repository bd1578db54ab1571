//! Finding the hub as kubectl finds its cluster: `--kubeconfig`, else `$KUBECONFIG`, else `~/.kube/config`, else the Pod's
//! own service account.

use crate::Error;
use crate::error::innermost;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Status;
use kube::{Client, Config};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A hub that takes longer to take a connection is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A hub that takes longer to answer is told of as not there.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Which hub, and as who.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Which hub")]
pub struct Connection {
    /// Kubeconfig of the hub. Default: $KUBECONFIG, else ~/.kube/config
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use. Default: its current one
    #[arg(long, value_name = "NAME", global = true)]
    pub context: Option<String>,
}

/// A client of a hub, and how to speak of it in errors.
#[derive(Clone)]
pub struct Hub {
    /// The client.
    pub client: Client,
    /// Its URL.
    pub server: String,
    /// The kubeconfig it came from.
    pub kubeconfig: String,
    /// The certificate authorities it is trusted by, DER; none: the system's.
    pub ca: Vec<Vec<u8>>,
}

/// A cluster's address, and a kubeconfig that names it alone.
pub struct Resolved {
    /// Its URL.
    pub server: String,
    /// The kubeconfig's text; none: the Pod's service account.
    pub kubeconfig: Option<String>,
}

/// A kubeconfig and where it came from.
struct Found {
    config: Kubeconfig,
    path: String,
}

impl Connection {
    /// A client of the hub. Nothing is sent yet.
    pub async fn hub(&self) -> Result<Hub, Error> {
        let found = match &self.kubeconfig {
            Some(path) => Some(read(path)?),
            None => find(std::env::var_os("KUBECONFIG"), std::env::home_dir())?,
        };
        let (mut config, kubeconfig) = match found {
            Some(found) => self.config(found).await?,
            None => match Config::incluster() {
                Ok(config) => (config, "of the Pod's service account".to_owned()),
                Err(_) => {
                    return Err(Error::Input(
                        "no kubeconfig of a hub was found: give --kubeconfig FILE, or set KUBECONFIG (`muster demo` makes a hub and prints its kubeconfig)".into(),
                    ));
                }
            },
        };
        config.connect_timeout = Some(CONNECT_WITHIN);
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let ca = config.root_cert.clone().unwrap_or_default();
        let client = Client::try_from(config).map_err(|e| Error::Kubeconfig {
            path: kubeconfig.clone(),
            problem: innermost(&e),
        })?;
        Ok(Hub {
            client,
            server,
            kubeconfig,
            ca,
        })
    }

    /// The kubeconfig of the cluster that is meant, with nothing else in it. Nothing is sent.
    pub async fn resolved(&self) -> Result<Resolved, Error> {
        let found = match &self.kubeconfig {
            Some(path) => Some(read(path)?),
            None => find(std::env::var_os("KUBECONFIG"), std::env::home_dir())?,
        };
        let Some(found) = found else {
            let config = Config::incluster().map_err(|_| {
                Error::Input(
                    "no kubeconfig of the cluster that joins was found: give --kubeconfig FILE, or set KUBECONFIG"
                        .into(),
                )
            })?;
            return Ok(Resolved {
                server: config.cluster_url.to_string(),
                kubeconfig: None,
            });
        };
        let mut whole = found.config.clone();
        let (config, path) = self.config(found).await?;
        if let Some(context) = &self.context {
            whole.current_context = Some(context.clone());
        }
        let current = whole.current_context.clone().unwrap_or_default();
        whole.contexts.retain(|context| context.name == current);
        let context = whole
            .contexts
            .first()
            .and_then(|named| named.context.clone())
            .unwrap_or_default();
        whole.clusters.retain(|cluster| cluster.name == context.cluster);
        whole
            .auth_infos
            .retain(|user| Some(&user.name) == context.user.as_ref());
        let text = serde_json::to_string(&whole).map_err(|e| Error::Kubeconfig {
            path,
            problem: e.to_string(),
        })?;
        Ok(Resolved {
            server: config.cluster_url.to_string(),
            kubeconfig: Some(text),
        })
    }

    async fn config(&self, found: Found) -> Result<(Config, String), Error> {
        let Found { config, path } = found;
        let fail = |problem: String| Error::Kubeconfig {
            path: path.clone(),
            problem,
        };
        if let Some(context) = &self.context
            && !config.contexts.iter().any(|c| c.name == *context)
        {
            let names: Vec<&str> = config.contexts.iter().map(|c| c.name.as_str()).collect();
            return Err(fail(format!(
                "it has no context {context:?}, only: {}",
                names.join(", ")
            )));
        }
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..Default::default()
        };
        let config = Config::from_custom_kubeconfig(config, &options)
            .await
            .map_err(|e| fail(problem(&e)))?;
        Ok((config, path))
    }
}

fn read(path: &Path) -> Result<Found, Error> {
    let path_text = path.display().to_string();
    let fail = |problem: String| Error::Kubeconfig {
        path: path_text.clone(),
        problem,
    };
    let config = Kubeconfig::read_from(path).map_err(|e| fail(problem(&e)))?;
    if config.clusters.is_empty() {
        return Err(fail("it names no cluster".into()));
    }
    Ok(Found {
        config,
        path: path_text,
    })
}

/// What kubectl would read: the files of `KUBECONFIG` that are there, else the one in the home folder.
fn find(variable: Option<std::ffi::OsString>, home: Option<PathBuf>) -> Result<Option<Found>, Error> {
    let variable = variable.filter(|v| !v.is_empty());
    let from_variable = variable.is_some();
    let paths: Vec<PathBuf> = match &variable {
        Some(list) => std::env::split_paths(list)
            .filter(|p| !p.as_os_str().is_empty())
            .collect(),
        None => home.map(|h| h.join(".kube/config")).into_iter().collect(),
    };
    let there: Vec<&PathBuf> = paths.iter().filter(|p| p.exists()).collect();
    if there.is_empty() {
        return match paths.first() {
            Some(first) if from_variable => Err(Error::Kubeconfig {
                path: first.display().to_string(),
                problem: "it is named by KUBECONFIG but is not there".into(),
            }),
            _ => Ok(None),
        };
    }
    let mut merged: Option<Found> = None;
    for path in there {
        let next = read(path)?;
        merged = Some(match merged {
            None => next,
            Some(before) => {
                let path = format!("{}:{}", before.path, next.path);
                let config = before.config.merge(next.config).map_err(|e| Error::Kubeconfig {
                    path: path.clone(),
                    problem: problem(&e),
                })?;
                Found { config, path }
            }
        });
    }
    Ok(merged)
}

/// Why a kubeconfig can not be used, without the file's name, which is said already.
fn problem(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(source, _) => source.to_string(),
        KubeconfigError::CurrentContextNotSet => "it has no current context: give --context".into(),
        KubeconfigError::LoadContext(name) => format!("its context {name:?} is not there"),
        KubeconfigError::LoadClusterOfContext(name) => {
            format!("the cluster of its context, {name:?}, is not there")
        }
        KubeconfigError::Parse(source) => format!(
            "it is no kubeconfig: {}",
            crate::error::one_line(first_line(&source.to_string()))
        ),
        other => innermost(other),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Whether a 404 is about an object; else it is about the path: nothing of the kind is served.
fn names_object(status: &Status) -> bool {
    status
        .details
        .as_ref()
        .is_some_and(|details| !details.name.is_empty())
}

/// An object, if it is there. That its kind is not served is an error.
pub async fn get<K: Clone + DeserializeOwned + Debug>(
    api: &Api<K>,
    name: &str,
) -> Result<Option<K>, kube::Error> {
    match api.get(name).await {
        Err(kube::Error::Api(status)) if status.code == 404 && names_object(&status) => Ok(None),
        answer => answer.map(Some),
    }
}

impl Hub {
    /// Waits for an answer to a request that is to `what`, like `list the clusters`; `kind` is what it asks for.
    pub async fn ask<T>(
        &self,
        what: &str,
        kind: &'static str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(ANSWER_WITHIN, request).await {
            Ok(answer) => answer.map_err(|error| self.explain(what, kind, &error)),
            Err(_) => Err(self.unreachable(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))),
        }
    }

    /// An error of a request, in words for the person who caused it.
    pub fn explain(&self, what: &str, kind: &'static str, error: &kube::Error) -> Error {
        match error {
            kube::Error::Api(status) if status.code == 401 => Error::Refused {
                server: self.server.clone(),
                problem: innermost(error),
                kubeconfig: self.kubeconfig.clone(),
            },
            kube::Error::Api(status) if status.code == 404 && !names_object(status) => Error::NoHub {
                server: self.server.clone(),
                kind,
            },
            kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {
                self.unreachable(innermost(error))
            }
            kube::Error::Auth(_) => Error::Kubeconfig {
                path: self.kubeconfig.clone(),
                problem: innermost(error),
            },
            _ => Error::Request {
                what: what.to_owned(),
                problem: innermost(error),
            },
        }
    }

    fn unreachable(&self, problem: String) -> Error {
        Error::Unreachable {
            server: self.server.clone(),
            problem,
            kubeconfig: self.kubeconfig.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\n";

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    async fn error_of(kubeconfig: PathBuf, context: Option<&str>) -> String {
        let connection = Connection {
            kubeconfig: Some(kubeconfig),
            context: context.map(str::to_owned),
        };
        connection.hub().await.err().unwrap().to_string()
    }

    #[tokio::test]
    async fn a_bad_kubeconfig_is_said_in_one_line() {
        for (text, context, want) in [
            ("clusters: [", None, "it is no kubeconfig"),
            ("{}", None, "it names no cluster"),
            (GOOD, Some("b"), "no context \"b\", only: a"),
            (
                &GOOD.replace("current-context: a", "current-context: z"),
                None,
                "its context \"z\" is not there",
            ),
            (&GOOD.replace("name: c,", "name: d,"), None, "\"c\", is not there"),
        ] {
            let (_dir, path) = file(text);
            let error = error_of(path.clone(), context).await;
            assert!(
                error.contains(want) && error.contains(&path.display().to_string()),
                "{error}"
            );
            assert!(!error.contains('\n'), "{error}");
        }
        let error = error_of("/not/there".into(), None).await;
        assert!(
            error.contains("/not/there") && error.contains("No such file"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_hub_that_is_not_there_is_told_at_once() {
        let (_dir, path) = file(GOOD);
        let hub = Connection {
            kubeconfig: Some(path),
            context: None,
        }
        .hub()
        .await
        .unwrap();
        let error = hub
            .ask("ask", "x", hub.client.apiserver_version())
            .await
            .unwrap_err();
        let Error::Unreachable { server, problem, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(server, "http://127.0.0.1:1");
        assert!(problem.contains("refused"), "{problem}");
    }

    #[test]
    fn the_variable_wins_over_the_home_folder() {
        let (home, _) = file("");
        std::fs::create_dir(home.path().join(".kube")).unwrap();
        std::fs::write(home.path().join(".kube/config"), GOOD).unwrap();
        let in_home = || Some(home.path().to_path_buf());
        assert!(find(None, Some("/not/there".into())).unwrap().is_none());
        assert!(
            find(None, in_home())
                .unwrap()
                .unwrap()
                .path
                .ends_with(".kube/config")
        );
        assert!(find(Some("".into()), in_home()).unwrap().is_some());
        let (_one, first) = file(&GOOD.replace("current-context: a", "current-context: b"));
        let (_two, second) = file(&GOOD.replace("name: a", "name: b"));
        let list = std::env::join_paths([&first, &"/not/there".into(), &second]).unwrap();
        let merged = find(Some(list), in_home()).unwrap().unwrap();
        assert_eq!(merged.config.current_context.as_deref(), Some("b"));
        assert_eq!(merged.config.contexts.len(), 2);
        let error = find(Some("/not/there".into()), in_home()).err().unwrap();
        assert!(error.to_string().contains("named by KUBECONFIG"), "{error}");
    }
}
