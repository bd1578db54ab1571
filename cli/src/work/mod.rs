//! `muster work`: making, changing, deleting and explaining works of one cluster.

mod apply;
mod bundle;
mod diff;
mod status;
mod wait;

pub use bundle::MAX_NAME as MAX_BUNDLE_NAME;
pub use status::{first_problem, value};

use crate::get::{self, name_line};
use crate::kubeconfig::{self, Connection, Hub};
use crate::output::{self, Format};
use crate::{Error, complete, events, follow, names};
use apply::{Apply, Mode};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::runtime::watcher;
use muster_crds::constants::labels;
use muster_crds::work::v1::ManifestWork;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wait::Progress;

const KIND: &str = "manifestworks";
/// So many of a work's latest warnings are shown with its status.
const WARNINGS: usize = 5;

/// What to do with a work.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Work {
    /// Make a work from manifests, for a cluster to apply
    #[command(
        long_about = "Makes a work from manifests. The cluster applies them, puts back what is changed there, and reports what became of each.\n\nWhat is too large for one work becomes several, NAME, NAME-2, NAME-3 and so on: a bundle, which the other commands take as one.",
        after_long_help = "Examples:\n  muster work create guestbook --cluster cluster1 -f guestbook.yaml\n  muster work create shop --cluster cluster1 -n shop -f manifests/ -R -f extra.json\n  kustomize build . | muster work create app --cluster cluster1 -f - --wait\n  muster work create app --cluster cluster1 -f app.yaml --dry-run -o yaml"
    )]
    Create(Box<Apply>),
    /// Make a work from manifests, or change it so that it has these and no others
    #[command(
        long_about = "Makes a work from manifests, or changes the one that is there so that it has these and no others. How it is applied (strategies, executor, deletion) stays as it is.\n\nIn a bundle an object stays in the work it is in, so that a change touches few works. An object leaves a work only when the cluster has it from another, and works that are no longer needed are deleted last. Run again, it completes what was interrupted.",
        after_long_help = "Examples:\n  muster work apply guestbook --cluster cluster1 -f guestbook.yaml\n  muster work apply app --cluster cluster1 -f app/ -R --wait --timeout 2m\n  muster work apply app --cluster cluster1 -f app.yaml --dry-run=server"
    )]
    Apply(Box<Apply>),
    /// Delete works, and with them what they made on their cluster
    #[command(
        after_long_help = "Examples:\n  muster work delete guestbook --cluster cluster1\n  muster work delete guestbook shop --cluster cluster1 --wait --timeout 2m"
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
        long_about = "Shows for each manifest of a work whether it is applied and available on the cluster, and why not, with the latest warnings from there.",
        after_long_help = "Examples:\n  muster work status guestbook --cluster cluster1\n  muster work status guestbook --cluster cluster1 -o wide   # also the values reported back"
    )]
    Status(Status),
    /// Show works: the same as `muster get works`
    #[command(
        visible_alias = "list",
        alias = "ls",
        after_long_help = "Examples:\n  muster work get\n  muster work get --cluster cluster1 -w\n  muster work get guestbook --cluster cluster1 -o yaml"
    )]
    Get(get::Works),
}

/// How far a dry run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// Nothing is sent
    Client,
    /// The hub checks, and keeps nothing
    Server,
}

/// A work: its name and its cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct Which {
    /// Name of the work
    #[arg(value_name = "NAME", value_parser = names::work, add = complete::works())]
    pub name: String,
    /// Cluster it is for
    #[arg(long, short, value_name = "CLUSTER", value_parser = names::cluster, add = complete::clusters())]
    pub cluster: String,
}

/// `muster work delete`.
#[derive(Debug, Clone, clap::Args)]
pub struct Delete {
    /// Names of the works
    #[arg(value_name = "NAME", required = true, value_parser = names::work, add = complete::works())]
    names: Vec<String>,
    /// Cluster they are for
    #[arg(long, short, value_name = "CLUSTER", value_parser = names::cluster, add = complete::clusters())]
    cluster: String,
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
        Work::Create(create) => create.run(Mode::Create, connection, format).await,
        Work::Apply(apply) => apply.run(Mode::Apply, connection, format).await,
        Work::Delete(delete) => delete.run(connection, format).await,
        Work::Diff(diff) => diff.run(connection, format).await,
        Work::Status(status) => status.run(connection, format).await,
        Work::Get(works) => get::works_of(works, connection, format).await,
    }
}

impl Which {
    fn api(&self, hub: &Hub) -> Api<ManifestWork> {
        Api::namespaced(hub.client.clone(), &self.cluster)
    }

    /// The work, or the works of the bundle, by part; none where there is no such work.
    async fn parts(&self, hub: &Hub) -> Result<BTreeMap<usize, ManifestWork>, Error> {
        let api = self.api(hub);
        let mut parts = BTreeMap::new();
        if self.name.len() <= bundle::MAX_NAME {
            let of_bundle = ListParams::default().labels(&format!("{}={}", labels::BUNDLE, self.name));
            let list = hub.ask("list the works", KIND, api.list(&of_bundle)).await?;
            for work in list.items {
                let part = bundle::part(&work).map(|(_, part)| part);
                // Labels can be written by anybody: the name must say the same.
                if let Some(part) = part.filter(|part| bundle::name(&self.name, *part) == work.name_any()) {
                    parts.insert(part, work);
                }
            }
        }
        let first = if parts.contains_key(&1) {
            None
        } else {
            let asked = kubeconfig::get(&api, &self.name);
            hub.ask("get the work", KIND, asked).await?
        };
        if let Some(work) = first {
            if let Some((bundle, part)) = bundle::part(&work).filter(|(b, _)| *b != self.name) {
                return Err(Error::Input(format!(
                    "work {:?} of cluster {:?} is part {part} of the bundle {bundle:?}: say {bundle} to mean all of it",
                    self.name, self.cluster
                )));
            }
            parts.insert(1, work);
        }
        Ok(parts)
    }

    /// The same, but that there is none is an error.
    async fn existing(&self, hub: &Hub) -> Result<BTreeMap<usize, ManifestWork>, Error> {
        let parts = self.parts(hub).await?;
        if parts.is_empty() {
            return Err(self.missing(hub).await);
        }
        Ok(parts)
    }

    /// Says which of the two is not there: the work or its cluster.
    async fn missing(&self, hub: &Hub) -> Error {
        match get::cluster_of(hub, &self.cluster).await {
            Err(error) => error,
            Ok(_) => Error::Input(format!(
                "cluster {:?} has no work {:?}; `muster get works --cluster {}` lists those it has",
                self.cluster, self.name, self.cluster
            )),
        }
    }

    /// Follows the work, or the works of the bundle, until `done` says so. The error says what `missing` said last.
    async fn follow(
        &self,
        hub: &Hub,
        bundle: bool,
        within: Duration,
        what: &str,
        mut done: impl FnMut(&[&ManifestWork]) -> Result<(), String>,
    ) -> Result<(), Error> {
        let config = if bundle {
            watcher::Config::default().labels(&format!("{}={}", labels::BUNDLE, self.name))
        } else {
            watcher::Config::default().fields(&format!("metadata.name={}", self.name))
        };
        follow::until(self.api(hub), config, within, what, |works| {
            done(&works.values().collect::<Vec<_>>())
        })
        .await
    }
}

impl Status {
    async fn run(&self, connection: &Connection, format: Format) -> Result<(), Error> {
        let hub = connection.hub().await?;
        let works = self.which.existing(&hub).await?;
        let cluster = get::cluster_of(&hub, &self.which.cluster).await?;
        let names: Vec<String> = works.values().map(ManifestWork::name_any).collect();
        let missing = works.values().map(bundle::parts).max().unwrap_or(1) > works.len();
        let mut text = status::text(works.into_values().collect(), cluster.as_ref(), format)?;
        if matches!(format, Format::Table | Format::Wide) {
            let Which { name, cluster } = &self.which;
            if missing {
                text.extend([format!(
                    "\nWorks of the bundle are missing: `muster work apply {name} --cluster {cluster} -f ...` completes it.\n"
                )]);
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let warnings = events::warnings(&hub, cluster, &names, WARNINGS).await;
            if !warnings.is_empty() {
                text.push_str("\nLatest warnings from the cluster:\n");
            }
            for warning in warnings {
                text.extend(["  ", &warning, "\n"]);
            }
        }
        output::print(&text)
    }
}

impl Delete {
    async fn run(&self, connection: &Connection, format: Format) -> Result<(), Error> {
        let hub = connection.hub().await?;
        let mut all = Vec::new();
        for name in &self.names {
            let which = Which {
                name: name.clone(),
                cluster: self.cluster.clone(),
            };
            // All are looked for before any is deleted.
            let works = which.existing(&hub).await?;
            all.push((which, works));
        }
        for (which, works) in &all {
            for work in works.values().rev() {
                let what = format!("delete work {:?} of cluster {:?}", work.name_any(), self.cluster);
                hub.ask(&what, KIND, apply::delete(&which.api(&hub), work))
                    .await?;
            }
            if !self.wait {
                tell_deleted(works, format)?;
            }
        }
        for (which, works) in all.iter().filter(|_| self.wait) {
            let uids: BTreeSet<Option<String>> = works.values().map(ManifestWork::uid).collect();
            let what = format!("work {:?} of cluster {:?} was not gone", which.name, self.cluster);
            let mut progress = Progress::new(format);
            let gone = |left: &[&ManifestWork]| {
                let left: Vec<&ManifestWork> =
                    left.iter().copied().filter(|w| uids.contains(&w.uid())).collect();
                progress.told(wait::remaining(&left))
            };
            let bundle = works.values().any(|w| bundle::part(w).is_some());
            which.follow(&hub, bundle, self.timeout, &what, gone).await?;
            tell_deleted(works, format)?;
        }
        Ok(())
    }
}

fn tell_deleted(works: &BTreeMap<usize, ManifestWork>, format: Format) -> Result<(), Error> {
    let line = |work: &ManifestWork| {
        let line = name_line::<ManifestWork>(&work.name_any());
        match format {
            Format::Name => line,
            _ => format!("{} deleted\n", line.trim_end()),
        }
    };
    output::print(&works.values().map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("-1s").is_err() && duration("soon").is_err());
    }
}
