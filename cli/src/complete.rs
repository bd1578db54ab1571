//! Completion of what only a hub knows: names of its clusters and works. The shell asks this program, and it asks the hub
//! that the command line means. Without an answer in a moment there is nothing to complete, and nothing is said.

use crate::Error;
use crate::args::Arguments;
use crate::kubeconfig::Connection;
use crate::process;
use clap::CommandFactory as _;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use muster_crds::cluster::v1::ManagedCluster;
use muster_crds::constants::labels;
use muster_crds::work::v1::ManifestWork;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

/// Nobody waits longer for a name.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Variable by which the shell says that it wants candidates, not the command.
const VARIABLE: &str = "COMPLETE";

/// Answers a shell that asks for candidates, and ends the program then.
pub fn answer() {
    CompleteEnv::with_factory(Arguments::command)
        .var(VARIABLE)
        .complete();
}

/// The script that makes a shell ask.
pub fn script(shell: clap_complete::Shell) -> Result<String, Error> {
    let (shells, name) = (Shells::builtins(), shell.to_string());
    let Some(completer) = shells.completer(&name) else {
        return Err(Error::Input(format!("there is no completion for {name}")));
    };
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, "muster", "muster", "muster", &mut script)
        .map_err(Error::Output)?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// Completes names of clusters.
pub fn clusters() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| candidates(current, What::Clusters))
}

/// Completes names of works, of the cluster that is named on the same line, or of any.
pub fn works() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| candidates(current, What::Works))
}

#[derive(Debug, Clone, Copy)]
enum What {
    Clusters,
    Works,
}

fn candidates(current: &OsStr, what: What) -> Vec<CompletionCandidate> {
    let line = Line::of(std::env::args_os());
    let found = process::runtime(process::Threads::One).ok().and_then(|runtime| {
        let asked = async { tokio::time::timeout(ANSWER_WITHIN, names(&line, what)).await };
        runtime.block_on(asked).ok()?.ok()
    });
    let current = current.to_string_lossy();
    found
        .into_iter()
        .flatten()
        .filter(|name| name.starts_with(&*current))
        .map(CompletionCandidate::new)
        .collect()
}

async fn names(line: &Line, what: What) -> Result<BTreeSet<String>, Error> {
    let hub = line.connection.hub().await?;
    let all = ListParams::default();
    match what {
        What::Clusters => {
            let api: Api<ManagedCluster> = Api::all(hub.client.clone());
            let list = hub
                .ask("list clusters", "managedclusters", api.list_metadata(&all))
                .await?;
            Ok(list.items.iter().map(ResourceExt::name_any).collect())
        }
        What::Works => {
            let api: Api<ManifestWork> = match &line.cluster {
                Some(cluster) => Api::namespaced(hub.client.clone(), cluster),
                None => Api::all(hub.client.clone()),
            };
            let list = hub
                .ask("list works", "manifestworks", api.list_metadata(&all))
                .await?;
            let works = list.items.iter();
            Ok(works
                .map(|work| {
                    let bundle = work.labels().get(labels::BUNDLE);
                    bundle.cloned().unwrap_or_else(|| work.name_any())
                })
                .collect())
        }
    }
}

/// What an unfinished command line says of the hub and the cluster.
#[derive(Debug, Default)]
struct Line {
    connection: Connection,
    cluster: Option<String>,
}

impl Line {
    fn of(words: impl IntoIterator<Item = OsString>) -> Self {
        let mut line = Self::default();
        let words: Vec<String> = words
            .into_iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        for (index, word) in words.iter().enumerate() {
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (word.as_str(), words.get(index + 1).cloned()),
            };
            match flag {
                "--kubeconfig" => line.connection.kubeconfig = value.map(Into::into),
                "--context" => line.connection.context = value,
                "--cluster" | "-c" => line.cluster = value.filter(|v| !v.is_empty()),
                _ => {}
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_which_hub_and_cluster() {
        let of = |text: &str| Line::of(text.split_whitespace().map(OsString::from));
        let line = of("muster -- muster work status --kubeconfig=k --context x -c edge-1 ap");
        assert_eq!(line.connection.kubeconfig, Some("k".into()));
        assert_eq!(line.connection.context.as_deref(), Some("x"));
        assert_eq!(line.cluster.as_deref(), Some("edge-1"));
        let line = of("muster -- muster get works --cluster");
        assert!(line.cluster.is_none() && line.connection.kubeconfig.is_none());
    }

    #[test]
    fn every_shell_has_a_script_that_asks() {
        use clap::ValueEnum as _;
        for shell in clap_complete::Shell::value_variants() {
            let script = script(*shell).unwrap();
            assert!(script.contains(VARIABLE), "{shell}: {script}");
        }
    }
}
