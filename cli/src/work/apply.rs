//! `muster work create` and `apply`: manifests become a work, or a bundle of works.

use super::bundle::{self, Change, Plan};
use super::wait::{self, Progress};
use super::{DryRun, KIND, Which, duration, status};
use crate::get;
use crate::kubeconfig::{Connection, Hub};
use crate::output::{self, Format};
use crate::{Error, manifests, names};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use muster_crds::constants::annotations;
use muster_crds::work::MANIFEST_LIMIT;
use muster_crds::work::v1::{ManifestWork, ManifestWorkSpec};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Who wrote, in managedFields.
const FIELD_MANAGER: &str = "muster";

/// What `muster work create` and `apply` are given.
#[derive(Debug, Clone, clap::Args)]
pub struct Apply {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    files: Files,
    /// Namespace for manifests that have none and need one. Default: default
    #[arg(long, short, value_name = "NS", value_parser = names::namespace)]
    namespace: Option<String>,
    /// Most bytes of manifests that the hub lets one work have; what is larger is divided among several works
    #[arg(long, value_name = "BYTES", default_value_t = MANIFEST_LIMIT, value_parser = limit)]
    manifest_limit: usize,
    /// Only check: `client` sends nothing, `server` has the hub check too
    #[arg(
        long,
        value_name = "WHERE",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "client"
    )]
    dry_run: Option<DryRun>,
    /// Wait until the cluster has everything applied and available
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait for the cluster
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    timeout: Duration,
}

/// Where manifests are.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = true)]
struct Files {
    /// File with manifests, YAML or JSON, or a folder of such files; - is standard input. May be given several times
    #[arg(long = "filename", short = 'f', value_name = "FILE", num_args = 1..)]
    paths: Vec<PathBuf>,
    /// Also the folders in the folders
    #[arg(long, short = 'R', requires = "paths")]
    recursive: bool,
    /// Not supported: pipe `kustomize build DIR` into -f -
    #[arg(long, short = 'k', value_name = "DIR", hide = true, conflicts_with = "paths")]
    kustomize: Option<PathBuf>,
}

fn limit(text: &str) -> Result<usize, String> {
    let limit: usize = text.parse().map_err(|_| "write a number of bytes".to_owned())?;
    if limit < 1024 {
        return Err("must be 1024 or more".into());
    }
    Ok(limit)
}

/// Whether works may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No.
    Create,
    /// They are changed.
    Apply,
}

impl Apply {
    /// Runs it.
    pub async fn run(&self, mode: Mode, connection: &Connection, format: Format) -> Result<(), Error> {
        let manifests = self.manifests()?;
        if self.dry_run == Some(DryRun::Client) {
            let plan = bundle::plan(
                &self.template(None),
                manifests,
                &BTreeMap::new(),
                self.manifest_limit,
            );
            self.check_name(&plan)?;
            let works = plan.first.into_iter().filter_map(|change| match change {
                Change::Create(work) | Change::Update(work) => Some((*work, "created (dry run)")),
                Change::Keep(_) | Change::Delete(_) => None,
            });
            return tell(works.collect(), format);
        }
        let hub = connection.hub().await?;
        self.run_at(&hub, mode, manifests, format).await
    }

    async fn run_at(
        &self,
        hub: &Hub,
        mode: Mode,
        manifests: Vec<manifests::Manifest>,
        format: Format,
    ) -> Result<(), Error> {
        let Which { name, cluster } = &self.which;
        self.check_cluster(hub).await?;
        let existing = self.which.parts(hub).await?;
        let expected = existing.values().map(bundle::parts).max().unwrap_or(0);
        let begun = existing.len() < expected;
        if mode == Mode::Create && !existing.is_empty() && !begun {
            return Err(Error::Input(format!(
                "cluster {cluster:?} has a work {name:?} already: choose another name, change it with `muster work apply`, or `muster work delete {name} --cluster {cluster} --wait` first"
            )));
        }
        if let Some(going) = existing
            .values()
            .find(|w| w.metadata.deletion_timestamp.is_some())
        {
            return Err(Error::Input(format!(
                "work {:?} of cluster {cluster:?} is being deleted: wait until it is gone (`muster work delete {name} --cluster {cluster} --wait`)",
                going.name_any()
            )));
        }
        let plan = bundle::plan(
            &self.template(existing.values().next()),
            manifests,
            &existing,
            self.manifest_limit,
        );
        self.check_name(&plan)?;
        let server = self.dry_run.is_some();
        if plan.parts > 1 && !server {
            // What the hub does not take is better known before the first work is there.
            self.carry_out(hub, &plan.first, true).await.1?;
        }
        let parts = plan.parts;
        let (mut done, outcome) = self.carry_out(hub, &plan.first, server).await;
        let mut outcome = outcome.map_err(|error| self.half(error, &done, &plan));
        if outcome.is_ok() && !plan.then.is_empty() {
            if !server {
                outcome = self.settled(hub, &plan).await;
            }
            if outcome.is_ok() {
                let (more, result) = self.carry_out(hub, &plan.then, server).await;
                done.extend(more);
                outcome = result.map_err(|error| self.half(error, &done, &plan));
            }
        }
        tell(done, format)?;
        outcome?;
        if self.wait {
            let what = format!("work {name:?} was not applied and available on cluster {cluster:?}");
            let mut progress = Progress::new(format);
            let done = |works: &[&ManifestWork]| progress.told(wait::available(works, parts));
            self.which
                .follow(hub, parts > 1, self.timeout, &what, done)
                .await?;
        }
        Ok(())
    }

    fn manifests(&self) -> Result<Vec<manifests::Manifest>, Error> {
        if let Some(folder) = &self.files.kustomize {
            return Err(Error::Input(format!(
                "-k is not supported, Muster does not build kustomizations: kustomize build {} | muster work apply {} --cluster {} -f -",
                folder.display(),
                self.which.name,
                self.which.cluster
            )));
        }
        let read = manifests::read(&self.files.paths, self.files.recursive)?;
        let prepared = manifests::prepare(read, self.namespace.as_deref())?;
        let limit = self.manifest_limit;
        for manifest in &prepared {
            let size = bundle::size(&manifest.object);
            if size > limit {
                let text = |pointer: &str| {
                    let value = manifest.object.pointer(pointer);
                    value.and_then(|v| v.as_str()).unwrap_or_default()
                };
                return Err(manifest.error(format!(
                    "{} {:?} alone is {size} bytes, and a work holds at most {limit}: make it smaller, or raise the hub's --manifestLimit and give the same to --manifest-limit",
                    text("/kind"),
                    text("/metadata/name")
                )));
            }
        }
        Ok(prepared)
    }

    /// What the works have in common: as they are told to be applied stays as it is.
    fn template(&self, existing: Option<&ManifestWork>) -> ManifestWork {
        let kept = [annotations::DRIFT, annotations::TAKE_OVER];
        let kept: BTreeMap<String, String> = existing
            .iter()
            .flat_map(|work| work.annotations())
            .filter(|(key, _)| kept.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        ManifestWork {
            metadata: ObjectMeta {
                name: Some(self.which.name.clone()),
                namespace: Some(self.which.cluster.clone()),
                annotations: (!kept.is_empty()).then_some(kept),
                ..ObjectMeta::default()
            },
            spec: existing.map_or_else(ManifestWorkSpec::default, |work| work.spec.clone()),
            status: None,
        }
    }

    /// A bundle's name is a label's value.
    fn check_name(&self, plan: &Plan) -> Result<(), Error> {
        let (name, longest) = (&self.which.name, bundle::MAX_NAME);
        if plan.parts > 1 && name.len() > longest {
            return Err(Error::Input(format!(
                "the manifests need {} works, and the name of a bundle of works has at most {longest} characters: {name:?} has {}",
                plan.parts,
                name.len()
            )));
        }
        Ok(())
    }

    async fn check_cluster(&self, hub: &Hub) -> Result<(), Error> {
        let cluster = &self.which.cluster;
        if let Some(managed) = get::cluster_of(hub, cluster).await?
            && !managed.spec.hub_accepts_client
        {
            return Err(Error::Input(format!(
                "the hub has not accepted cluster {cluster:?}, so nobody would read the work: set spec.hubAcceptsClient of ManagedCluster {cluster} to true first"
            )));
        }
        Ok(())
    }

    /// Does one after the other; what was done, and what stopped it.
    async fn carry_out(
        &self,
        hub: &Hub,
        changes: &[Change],
        dry_run: bool,
    ) -> (Vec<Done>, Result<(), Error>) {
        let mut done = Vec::new();
        for change in changes {
            match self.change(hub, change, dry_run).await {
                Ok(one) => done.push(one),
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    async fn change(&self, hub: &Hub, change: &Change, dry_run: bool) -> Result<Done, Error> {
        let api = self.which.api(hub);
        let (name, cluster) = (change.name(), &self.which.cluster);
        let said = |word: &'static str, dry: &'static str| if dry_run { dry } else { word };
        match change {
            Change::Create(work) => {
                let params = PostParams {
                    dry_run,
                    field_manager: Some(FIELD_MANAGER.into()),
                };
                let created = async {
                    match api.create(&params, work).await {
                        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
                        answer => answer.map(Some),
                    }
                };
                let what = format!("create work {name:?} for cluster {cluster:?}");
                match hub.ask(&what, KIND, created).await? {
                    Some(work) => Ok((work, said("created", "created (server dry run)"))),
                    None => Err(Error::Input(format!(
                        "cluster {cluster:?} has a work {name:?} already that is not part of {:?}: choose another name",
                        self.which.name
                    ))),
                }
            }
            Change::Update(work) => {
                let patch = json!({
                    "metadata": {"uid": work.uid(), "labels": work.metadata.labels, "annotations": work.metadata.annotations},
                    "spec": {"workload": work.spec.workload},
                });
                let params = PatchParams {
                    dry_run,
                    field_manager: Some(FIELD_MANAGER.into()),
                    ..PatchParams::default()
                };
                let what = format!("change work {name:?} of cluster {cluster:?}");
                let patched = hub
                    .ask(&what, KIND, api.patch(&name, &params, &Patch::Merge(&patch)))
                    .await?;
                Ok((patched, said("configured", "configured (server dry run)")))
            }
            Change::Keep(work) => Ok(((**work).clone(), said("unchanged", "unchanged (server dry run)"))),
            Change::Delete(work) => {
                if !dry_run {
                    let what = format!("delete work {name:?} of cluster {cluster:?}");
                    hub.ask(&what, KIND, delete(&api, work)).await?;
                }
                Ok(((**work).clone(), said("deleted", "deleted (server dry run)")))
            }
        }
    }

    /// Waits until the cluster has applied what came first.
    async fn settled(&self, hub: &Hub, plan: &Plan) -> Result<(), Error> {
        let Which { name, cluster } = &self.which;
        let names: Vec<String> = plan.first.iter().map(Change::name).collect();
        output::note(&format!(
            "Objects leave a work only when cluster {cluster:?} has them from another: waiting for {}",
            names.join(", ")
        ));
        let what = format!(
            "nothing was taken out of the other works of bundle {name:?} yet, run the same again to complete it: {} not applied on cluster {cluster:?}",
            names.join(", ")
        );
        let done = |works: &[&ManifestWork]| {
            let of_plan: Vec<&ManifestWork> = works
                .iter()
                .copied()
                .filter(|w| names.contains(&w.name_any()))
                .collect();
            wait::applied(&of_plan, names.len())
        };
        self.which.follow(hub, true, self.timeout, &what, done).await
    }

    /// What is there when not everything could be done.
    fn half(&self, error: Error, done: &[Done], plan: &Plan) -> Error {
        if done.is_empty() || plan.parts < 2 {
            return error;
        }
        let names: Vec<String> = done
            .iter()
            .map(|(work, word)| format!("{} {word}", work.name_any()))
            .collect();
        Error::Input(format!(
            "{error}; of the {} works of bundle {:?}: {}; run the same command again to complete it",
            plan.parts,
            self.which.name,
            names.join(", ")
        ))
    }
}

/// A work and what was done with it.
type Done = (ManifestWork, &'static str);

/// Deletes the very work that was looked at.
pub async fn delete(api: &Api<ManifestWork>, work: &ManifestWork) -> Result<(), kube::Error> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: work.uid(),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match api.delete(&work.name_any(), &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        answer => answer.map(drop),
    }
}

fn tell(done: Vec<Done>, format: Format) -> Result<(), Error> {
    match format {
        Format::Table | Format::Wide | Format::Name => {
            let line = |(work, word): &Done| {
                let line = get::name_line::<ManifestWork>(&work.name_any());
                match format {
                    Format::Name => line,
                    _ => format!("{} {word}\n", line.trim_end()),
                }
            };
            output::print(&done.iter().map(line).collect::<String>())
        }
        Format::Json | Format::Yaml => {
            let works = done.into_iter().map(|(work, _)| work).collect();
            output::print(&status::documents(works, format)?)
        }
    }
}

#[cfg(test)]
mod tests;
