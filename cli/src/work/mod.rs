//! `muster work`: making, deleting and explaining works of one cluster.

mod diff;
mod status;

pub use status::{first_problem, value};

use crate::get::{self, name_line};
use crate::kubeconfig::{self, Connection, Hub};
use crate::output::{self, Format};
use crate::{Error, follow, manifests, names};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::runtime::watcher;
use muster_crds::conditions::{find, is_true};
use muster_crds::constants::conditions as types;
use muster_crds::work::v1::{ManifestWork, ManifestWorkSpec, ManifestsTemplate};
use std::path::PathBuf;
use std::time::Duration;

const KIND: &str = "manifestworks";

/// What to do with a work.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Work {
    /// Make a work from manifests, for a cluster to apply
    #[command(
        long_about = "Makes a work from manifests. The cluster applies them, puts back what is changed there, and reports what became of each.",
        after_long_help = "Examples:\n  muster work create guestbook --cluster cluster1 -f guestbook.yaml\n  muster work create shop --cluster cluster1 -n shop -f manifests/ -f extra.json\n  kustomize build . | muster work create app --cluster cluster1 -f - --wait\n  muster work create app --cluster cluster1 -f app.yaml --dry-run -o yaml"
    )]
    Create(Create),
    /// Delete a work, and with it what it made on its cluster
    #[command(
        after_long_help = "Examples:\n  muster work delete guestbook --cluster cluster1\n  muster work delete guestbook --cluster cluster1 --wait --timeout 2m"
    )]
    Delete(Delete),
    /// What applying a work would change on its cluster
    #[command(
        long_about = "Asks a cluster what applying a work would change there, with nothing written: its klusterlet goes the whole way with dry runs of its API server. Without -f it tells how the cluster differs from the work as it is; with -f, what other manifests would change. Values of Secrets are not shown.\n\nEnds with 0 when nothing differs, 1 when something does, and more than 1 on errors, as kubectl diff.",
        after_long_help = "Examples:\n  muster work diff guestbook --cluster cluster1\n  muster work diff guestbook --cluster cluster1 -f guestbook.yaml\n  kustomize build . | muster work diff app --cluster cluster1 -f - -o json"
    )]
    Diff(diff::Diff),
    /// What became of each manifest of a work, and why
    #[command(
        long_about = "Shows for each manifest of a work whether it is applied and available on the cluster, and why not.",
        after_long_help = "Examples:\n  muster work status guestbook --cluster cluster1\n  muster work status guestbook --cluster cluster1 -o wide   # also the values reported back"
    )]
    Status(Status),
}

/// A work: its name and its cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct Which {
    /// Name of the work
    #[arg(value_name = "NAME", value_parser = names::work)]
    pub name: String,
    /// Cluster it is for
    #[arg(long, short, value_name = "CLUSTER", value_parser = names::cluster)]
    pub cluster: String,
}

/// `muster work create`.
#[derive(Debug, Clone, clap::Args)]
pub struct Create {
    #[command(flatten)]
    which: Which,
    /// File with manifests, YAML or JSON, or a folder of such files; - is standard input
    #[arg(long = "filename", short = 'f', value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Namespace for manifests that have none and need one. Default: default
    #[arg(long, short, value_name = "NS", value_parser = names::namespace)]
    namespace: Option<String>,
    /// Read and check everything, and make nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait until the cluster has everything applied and available
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration, requires = "wait")]
    timeout: Duration,
}

/// `muster work delete`.
#[derive(Debug, Clone, clap::Args)]
pub struct Delete {
    #[command(flatten)]
    which: Which,
    /// Wait until the cluster has removed everything and the work is gone
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration, requires = "wait")]
    timeout: Duration,
}

/// `muster work status`.
#[derive(Debug, Clone, clap::Args)]
pub struct Status {
    #[command(flatten)]
    which: Which,
}

/// A Go duration like `90s` or `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration = text
        .parse()
        .map_err(|_| "write a duration like 90s, 2m or 1h".to_owned())?;
    if parsed.is_negative() {
        return Err("must not be negative".into());
    }
    Ok(parsed.into())
}

impl Work {
    /// Whether it ends as diffs do: 1 is a difference, more is an error.
    pub fn is_diff(&self) -> bool {
        matches!(self, Self::Diff(_))
    }
}

/// Runs `muster work`.
pub async fn run(work: &Work, connection: &Connection, format: Format) -> Result<(), Error> {
    match work {
        Work::Create(create) => create.run(connection, format).await,
        Work::Delete(delete) => delete.run(connection, format).await,
        Work::Diff(diff) => diff.run(connection, format).await,
        Work::Status(status) => {
            let hub = connection.hub().await?;
            let work = status.which.get(&hub).await?;
            let cluster = get::cluster(&hub, &status.which.cluster).await?;
            output::print(&status::text(work, cluster.as_ref(), format)?)
        }
    }
}

impl Which {
    fn api(&self, hub: &Hub) -> Api<ManifestWork> {
        Api::namespaced(hub.client.clone(), &self.cluster)
    }

    async fn get(&self, hub: &Hub) -> Result<ManifestWork, Error> {
        match hub
            .ask("get the work", KIND, kubeconfig::get(&self.api(hub), &self.name))
            .await?
        {
            Some(work) => Ok(work),
            None => Err(self.missing(hub).await),
        }
    }

    /// Says which of the two is not there: the work or its cluster.
    async fn missing(&self, hub: &Hub) -> Error {
        match get::cluster(hub, &self.cluster).await {
            Err(error) => error,
            Ok(_) => Error::Input(format!(
                "cluster {:?} has no work {:?}; `muster get works --cluster {}` lists those it has",
                self.cluster, self.name, self.cluster
            )),
        }
    }

    /// Follows the work until `done` says so; a work that is gone is `None`. The error says what `missing` said last.
    async fn follow(
        &self,
        hub: &Hub,
        within: Duration,
        what: &str,
        mut done: impl FnMut(Option<&ManifestWork>) -> Result<(), String>,
    ) -> Result<(), Error> {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        follow::until(self.api(hub), config, within, what, |works| {
            done(works.values().next())
        })
        .await
    }
}

impl Create {
    async fn run(&self, connection: &Connection, format: Format) -> Result<(), Error> {
        let work = self.work()?;
        let Which { name, cluster } = &self.which;
        if self.dry_run {
            return self.tell(work, format, "created (dry run)");
        }
        let hub = connection.hub().await?;
        if let Some(managed) = get::cluster(&hub, cluster).await?
            && !managed.spec.hub_accepts_client
        {
            return Err(Error::Input(format!(
                "the hub has not accepted cluster {cluster:?}, so nobody would read the work: set spec.hubAcceptsClient of ManagedCluster {cluster} to true first"
            )));
        }
        let api = self.which.api(&hub);
        let created = async {
            match api
                .create(
                    &PostParams {
                        field_manager: Some("muster".into()),
                        ..Default::default()
                    },
                    &work,
                )
                .await
            {
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
                answer => answer.map(Some),
            }
        };
        match hub
            .ask(
                &format!("create work {name:?} for cluster {cluster:?}"),
                KIND,
                created,
            )
            .await?
        {
            Some(created) => self.tell(created, format, "created")?,
            None => {
                return Err(Error::Input(format!(
                    "cluster {cluster:?} has a work {name:?} already: choose another name, change it with `kubectl edit manifestwork -n {cluster} {name}`, or `muster work delete {name} --cluster {cluster} --wait` first"
                )));
            }
        }
        if self.wait {
            let what = format!("work {name:?} was not applied and available on cluster {cluster:?}");
            self.which.follow(&hub, self.timeout, &what, available).await?;
        }
        Ok(())
    }

    /// The work, from the files.
    fn work(&self) -> Result<ManifestWork, Error> {
        let objects = manifests::prepare(manifests::read(&self.files)?, self.namespace.as_deref())?;
        let manifests = objects.into_iter().map(Into::into).collect();
        Ok(ManifestWork {
            metadata: ObjectMeta {
                name: Some(self.which.name.clone()),
                namespace: Some(self.which.cluster.clone()),
                ..ObjectMeta::default()
            },
            spec: ManifestWorkSpec {
                workload: ManifestsTemplate { manifests },
                ..ManifestWorkSpec::default()
            },
            status: None,
        })
    }

    fn tell(&self, work: ManifestWork, format: Format, done: &str) -> Result<(), Error> {
        let line = name_line::<ManifestWork>(&self.which.name);
        match format {
            Format::Table | Format::Wide => output::print(&format!("{} {done}\n", line.trim_end())),
            Format::Name => output::print(&line),
            Format::Json | Format::Yaml => output::print(&status::document(work, format)?),
        }
    }
}

/// Whether everything is applied and available as the work now says, or what is missing.
fn available(work: Option<&ManifestWork>) -> Result<(), String> {
    let Some(work) = work else {
        return Err("the work was deleted".into());
    };
    let conditions = work
        .status
        .iter()
        .flat_map(|s| &s.conditions)
        .cloned()
        .collect::<Vec<_>>();
    for type_ in [types::APPLIED, types::AVAILABLE] {
        match find(&conditions, type_) {
            None => return Err("the cluster has not reported yet".into()),
            Some(c) if c.observed_generation < work.metadata.generation => {
                return Err("the cluster has not reported on its last change yet".into());
            }
            Some(c) if !is_true(&conditions, type_) => {
                let why = status::first_problem(work).unwrap_or_else(|| crate::error::one_line(&c.message));
                return Err(format!("{type_} is {}: {why}", c.status));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

impl Delete {
    async fn run(&self, connection: &Connection, format: Format) -> Result<(), Error> {
        let Which { name, cluster } = &self.which;
        let hub = connection.hub().await?;
        let work = self.which.get(&hub).await?;
        let uid = work.uid();
        let what = format!("delete work {name:?} of cluster {cluster:?}");
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        let api = self.which.api(&hub);
        let deleted = async {
            match api.delete(name, &params).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                answer => answer.map(drop),
            }
        };
        hub.ask(&what, KIND, deleted).await?;
        if self.wait {
            let what = format!("work {name:?} of cluster {cluster:?} was not gone");
            let gone = |work: Option<&ManifestWork>| match work.filter(|w| w.uid() == uid) {
                None => Ok(()),
                Some(work) => Err(remaining(work)),
            };
            self.which.follow(&hub, self.timeout, &what, gone).await?;
        }
        let line = name_line::<ManifestWork>(name);
        match format {
            Format::Name => output::print(&line),
            _ => output::print(&format!("{} deleted\n", line.trim_end())),
        }
    }
}

/// What keeps a deleted work.
fn remaining(work: &ManifestWork) -> String {
    let conditions = work
        .status
        .iter()
        .flat_map(|s| &s.conditions)
        .cloned()
        .collect::<Vec<_>>();
    match find(&conditions, types::DELETING) {
        Some(condition) => format!(
            "the cluster is removing its objects: {}",
            crate::error::one_line(&condition.message)
        ),
        None => format!(
            "the cluster has not answered; is it available? (finalizers left: {})",
            work.finalizers().join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn work(generation: i64, conditions: &[(&str, &str, i64)]) -> ManifestWork {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status, observed)| {
                json!({"type": type_, "status": status, "reason": "r", "message": "m", "observedGeneration": observed, "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "ManifestWork", "metadata": {"name": "w", "generation": generation},
            "spec": {}, "status": {"conditions": conditions}}))
        .unwrap()
    }

    #[test]
    fn available_means_as_the_work_now_says() {
        for (work, want) in [
            (work(1, &[("Applied", "True", 1), ("Available", "True", 1)]), None),
            (
                work(2, &[("Applied", "True", 1), ("Available", "True", 1)]),
                Some("last change"),
            ),
            (work(1, &[("Applied", "True", 1)]), Some("not reported yet")),
            (
                work(1, &[("Applied", "False", 1), ("Available", "True", 1)]),
                Some("Applied is False: m"),
            ),
            (
                work(1, &[("Applied", "True", 1), ("Available", "Unknown", 1)]),
                Some("Available is Unknown: m"),
            ),
        ] {
            let got = available(Some(&work));
            match want {
                None => assert_eq!(got, Ok(())),
                Some(want) => assert!(got.clone().unwrap_err().contains(want), "{got:?}"),
            }
        }
        assert!(available(None).is_err());
    }

    #[test]
    fn what_keeps_a_work_is_said() {
        assert!(remaining(&work(1, &[("Deleting", "True", 1)])).contains("removing its objects: m"));
        assert!(remaining(&work(1, &[])).contains("has not answered"));
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("-1s").is_err() && duration("soon").is_err());
    }
}
