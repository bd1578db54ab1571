//! `muster work diff`: what applying a work would change on its cluster. The cluster's own klusterlet works it out, with dry
//! runs of its API server, and answers through the work (`muster_klusterlet::work::dry_run`).
//!
//! The question is an annotation, so that an agent that does not know it does nothing; a work that does not exist yet is
//! asked about by another that changes nothing. Whatever happens, both are taken back.

mod show;

use super::{Which, duration};
use crate::error::one_line;
use crate::kubeconfig::{self, Connection, Hub};
use crate::output::{self, Format};
use crate::{Error, follow, get, manifests, names, process};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use muster_crds::Manifest;
use muster_crds::conditions::find;
use muster_crds::constants::{annotations, conditions as types};
use muster_crds::work::v1::{ManifestWork, ManifestWorkSpec};
use muster_klusterlet::work::dry_run::{Action, Answer, Object, Request};
use serde_json::json;
use show::{shown, title};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

const KIND: &str = "manifestworks";
/// Somebody else may write the work at the same moment.
const TRIES: usize = 5;

/// `muster work diff`.
#[derive(Debug, Clone, clap::Args)]
pub struct Diff {
    #[command(flatten)]
    which: Which,
    /// Ask about these manifests in place of the work's own: files, YAML or JSON, or folders of such files; - is standard
    /// input
    #[arg(long = "filename", short = 'f', value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// Also the folders in the folders
    #[arg(long, short = 'R', requires = "files")]
    recursive: bool,
    /// Namespace for manifests that have none and need one. Default: default
    #[arg(long, short, value_name = "NS", value_parser = names::namespace, requires = "files")]
    namespace: Option<String>,
    /// How long to wait for the cluster's answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

/// Through what the cluster is asked.
struct Question {
    api: Api<ManifestWork>,
    /// The work that carries it.
    work: String,
    /// It was made only for that.
    made: bool,
    annotation: String,
    id: String,
}

/// What the works of a bundle say together.
fn whole<'a>(first: &ManifestWork, others: impl Iterator<Item = &'a ManifestWork>) -> ManifestWorkSpec {
    let mut spec = first.spec.clone();
    for other in others {
        let manifests = &other.spec.workload.manifests;
        spec.workload.manifests.extend(manifests.iter().cloned());
        for config in &other.spec.manifest_configs {
            if !spec.manifest_configs.contains(config) {
                spec.manifest_configs.push(config.clone());
            }
        }
    }
    spec
}

impl Diff {
    /// Asks, shows the answer, and ends with [`Error::Differs`] when anything would change.
    pub async fn run(&self, connection: &Connection, format: Format) -> Result<(), Error> {
        let new = if self.files.is_empty() {
            None
        } else {
            let objects = manifests::prepare(
                manifests::read(&self.files, self.recursive)?,
                self.namespace.as_deref(),
            )?;
            Some(
                objects
                    .into_iter()
                    .map(|manifest| manifest.object.into())
                    .collect::<Vec<Manifest>>(),
            )
        };
        let hub = connection.hub().await?;
        let mut parts = self.which.parts(&hub).await?;
        let known = parts.remove(&1);
        // The first work of a bundle is asked about all of it.
        let other = new.is_some() || !parts.is_empty();
        let spec = match (&known, new) {
            (None, None) => return Err(self.which.missing(&hub).await),
            (Some(work), None) => whole(work, parts.values()),
            (known, Some(manifests)) => {
                let mut spec = known.as_ref().map(|w| w.spec.clone()).unwrap_or_default();
                spec.workload.manifests = manifests;
                spec
            }
        };
        if known.is_none() {
            // Whether there is such a cluster at all.
            get::cluster_of(&hub, &self.which.cluster).await?;
        }
        let stop = process::stop_on_signal()?;
        let question = self.question(&hub, known.is_some(), other.then_some(&spec))?;
        question.ask(&hub).await?;
        let answer = tokio::select! {
            answer = self.answer(&question) => answer,
            () = stop.cancelled() => Err(Error::Input("stopped before the cluster answered".into())),
        };
        let taken_back = question.take_back(&hub).await;
        let answer = answer?;
        taken_back?;
        output::print(&self.text(&answer, &spec, format)?)?;
        if answer.objects.is_empty() && answer.more_objects == 0 {
            return Ok(());
        }
        let failed = |o: &&Object| matches!(o.action, Action::Error | Action::Conflict);
        match answer.objects.iter().find(failed) {
            Some(first) => Err(Error::Input(format!(
                "not everything could be applied, first: {}: {}",
                title(first),
                one_line(&first.message)
            ))),
            None => Err(Error::Differs),
        }
    }

    fn question(&self, hub: &Hub, known: bool, spec: Option<&ManifestWorkSpec>) -> Result<Question, Error> {
        let id = format!("{:016x}", rand::random::<u64>());
        let request = Request {
            id: id.clone(),
            spec: spec.cloned(),
        };
        Ok(Question {
            api: self.which.api(hub),
            work: if known {
                self.which.name.clone()
            } else {
                format!("muster-diff-{id}")
            },
            made: !known,
            annotation: request.annotation().map_err(Error::Input)?,
            id,
        })
    }

    async fn answer(&self, question: &Question) -> Result<Answer, Error> {
        let Which { name, cluster } = &self.which;
        let config = watcher::Config::default().fields(&format!("metadata.name={}", question.work));
        let what = format!("cluster {cluster:?} did not say what work {name:?} would change");
        let found = follow::until(question.api.clone(), config, self.timeout, &what, |works| {
            question.look(works.values().next())
        });
        found.await?
    }

    fn text(&self, answer: &Answer, spec: &ManifestWorkSpec, format: Format) -> Result<String, Error> {
        match format {
            Format::Json | Format::Yaml => {
                let mut value = json!(answer);
                if let Some(map) = value.as_object_mut() {
                    map.remove("id");
                    map.insert("work".into(), self.which.name.clone().into());
                    map.insert("cluster".into(), self.which.cluster.clone().into());
                }
                output::document(&value, format)
            }
            Format::Name => Ok(answer
                .objects
                .iter()
                .flat_map(|o| [title(o), "\n".to_owned()])
                .collect()),
            Format::Table | Format::Wide => {
                let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                Ok(shown(answer, &spec.workload.manifests, colours))
            }
        }
    }
}

impl Question {
    async fn ask(&self, hub: &Hub) -> Result<(), Error> {
        if self.made {
            let work = placeholder(&self.work, &self.annotation)?;
            let params = PostParams {
                field_manager: Some("muster".into()),
                ..PostParams::default()
            };
            hub.ask(
                "ask the cluster through a work",
                KIND,
                self.api.create(&params, &work),
            )
            .await
            .map(drop)
        } else {
            let patch = json!({"metadata": {"annotations": {annotations::DRY_RUN: self.annotation}}});
            let params = PatchParams::apply("muster");
            let patch = Patch::Merge(&patch);
            hub.ask(
                "ask the cluster through the work",
                KIND,
                self.api.patch_metadata(&self.work, &params, &patch),
            )
            .await
            .map(drop)
        }
    }

    /// The answer in a work, or what is missing.
    fn look(&self, work: Option<&ManifestWork>) -> Result<Result<Answer, Error>, String> {
        let Some(work) = work else {
            return Ok(Err(Error::Input(
                "the work was deleted before the cluster answered".into(),
            )));
        };
        if work.annotations().get(annotations::DRY_RUN) != Some(&self.annotation) {
            return Ok(Err(Error::Input(
                "somebody else asks about the work at the same moment; try again".into(),
            )));
        }
        let conditions = work.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let silent = "it has not answered: is it available, and does Muster's klusterlet run there? Open Cluster \
                      Management's does not know the question";
        let condition = find(conditions, types::DRY_RUN).ok_or(silent)?;
        if condition.status != "True" {
            return Err(format!("it could not answer: {}", one_line(&condition.message)));
        }
        let answer: Answer = serde_json::from_str(&condition.message)
            .map_err(|e| format!("its answer makes no sense: {e}"))?;
        if answer.id == self.id {
            Ok(Ok(answer))
        } else {
            Err(silent.into())
        }
    }

    /// Leaves the hub as it was.
    async fn take_back(&self, hub: &Hub) -> Result<(), Error> {
        if self.made {
            let deleted = async {
                match self.api.delete(&self.work, &DeleteParams::default()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                    answer => answer.map(drop),
                }
            };
            let what = format!("delete work {:?}, which asked the cluster", self.work);
            return hub.ask(&what, KIND, deleted).await;
        }
        let key = annotations::DRY_RUN;
        let what = format!("take the annotation {key} off work {:?} again", self.work);
        for _ in 0..TRIES {
            let Some(work) = hub
                .ask(&what, KIND, kubeconfig::get(&self.api, &self.work))
                .await?
            else {
                return Ok(());
            };
            if work.annotations().get(key) != Some(&self.annotation) {
                return Ok(());
            }
            let patch = json!({"metadata": {"resourceVersion": work.metadata.resource_version, "annotations": {key: null}}});
            let patched = async {
                let answer = self
                    .api
                    .patch_metadata(&self.work, &PatchParams::apply("muster"), &Patch::Merge(&patch))
                    .await;
                match answer {
                    Ok(_) => Ok(true),
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
                    Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
                    Err(error) => Err(error),
                }
            };
            if hub.ask(&what, KIND, patched).await? {
                return Ok(());
            }
        }
        Err(Error::Input(format!(
            "can not {what}: it is written all the time"
        )))
    }
}

/// A work that changes nothing, also where an agent does not know the annotation: it only looks at a namespace that every
/// cluster has.
fn placeholder(name: &str, annotation: &str) -> Result<ManifestWork, Error> {
    serde_json::from_value(json!({
        "apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
        "metadata": {"name": name, "annotations": {annotations::DRY_RUN: annotation}},
        "spec": {
            "deleteOption": {"propagationPolicy": "Orphan"},
            "workload": {"manifests": [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}]},
            "manifestConfigs": [{
                "resourceIdentifier": {"group": "", "resource": "namespaces", "namespace": "", "name": "default"},
                "updateStrategy": {"type": "ReadOnly"}}]}}))
    .map_err(|e| Error::Input(format!("the question does not fit into a work: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_this_question_counts() {
        let question = Question {
            api: Api::all(client()),
            work: "w".into(),
            made: false,
            annotation: "a".into(),
            id: "a".into(),
        };
        let work = |annotation: &str, condition: Option<(&str, &str)>| -> ManifestWork {
            let conditions: Vec<_> = condition
                .iter()
                .map(|(status, message)| {
                    json!({"type": types::DRY_RUN, "status": status, "reason": "r", "message": message,
                        "lastTransitionTime": "2026-01-01T00:00:00Z"})
                })
                .collect();
            serde_json::from_value(json!({"apiVersion": "v1", "kind": "ManifestWork",
                "metadata": {"name": "w", "annotations": {annotations::DRY_RUN: annotation}},
                "spec": {}, "status": {"conditions": conditions}}))
            .unwrap()
        };
        let look = |work: Option<&ManifestWork>| match question.look(work) {
            Ok(Ok(answer)) => answer.id,
            Ok(Err(error)) => format!("error: {error}"),
            Err(missing) => missing,
        };
        for (work, expected) in [
            (work("a", None), "is it available"),
            (work("a", Some(("True", "{\"id\":\"older\"}"))), "is it available"),
            (work("a", Some(("True", "nonsense"))), "makes no sense"),
            (
                work("a", Some(("False", "can not be unpacked"))),
                "can not be unpacked",
            ),
            (
                work("b", Some(("True", "{\"id\":\"a\"}"))),
                "error: somebody else",
            ),
            (work("a", Some(("True", "{\"id\":\"a\"}"))), "a"),
        ] {
            let found = look(Some(&work));
            assert!(
                found == expected || found.contains(expected),
                "{found}, not {expected}"
            );
        }
        assert!(look(None).starts_with("error: the work was deleted"));
    }

    fn client() -> kube::Client {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        kube::Client::try_from(config).unwrap()
    }

    #[test]
    fn what_asks_for_a_work_that_is_not_there_changes_nothing() {
        let work = placeholder("muster-diff-1", "1 x").unwrap();
        assert_eq!(work.spec.workload.manifests.len(), 1);
        let value = serde_json::to_value(&work).unwrap();
        assert_eq!(
            value["spec"]["manifestConfigs"][0]["updateStrategy"]["type"],
            "ReadOnly"
        );
        assert_eq!(value["spec"]["deleteOption"]["propagationPolicy"], "Orphan");
    }
}
