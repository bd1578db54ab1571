//! `muster detach`: letting go of a cluster, orderly, or by force when it will never come back.

use crate::kubeconfig::{self, Connection, Hub};
use crate::{Error, complete, follow, names, output, work};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::runtime::watcher;
use muster_crds::addon::v1beta1::ManagedClusterAddOn;
use muster_crds::cluster::v1::ManagedCluster;
use muster_crds::conditions::{find, is_true, is_unknown};
use muster_crds::constants::{conditions as types, labels};
use muster_crds::validity::Validity;
use muster_crds::work::v1::ManifestWork;
use serde_json::json;
use std::time::Duration;

const KIND: &str = "managedclusters";

/// `muster detach`.
#[derive(Debug, Clone, clap::Args)]
pub struct Detach {
    /// Cluster to detach
    #[arg(value_name = "NAME", value_parser = names::cluster, add = complete::clusters())]
    pub name: String,
    /// The cluster will never come back: do not wait for it to clean up
    #[arg(long)]
    pub force: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = work::duration)]
    pub timeout: Duration,
}

/// What a cluster leaves behind that was let go of by force.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    works: Vec<String>,
    addons: Vec<String>,
}

/// The namespace that a cluster had at the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    /// It is there, and was the cluster's.
    Left,
    /// There is none, or it is not the cluster's.
    None,
    /// It can not be seen.
    Hidden,
}

/// Runs `muster detach`.
pub async fn run(detach: &Detach, connection: &Connection) -> Result<(), Error> {
    let hub = connection.hub().await?;
    let clusters: Api<ManagedCluster> = Api::all(hub.client.clone());
    let name = detach.name.as_str();
    let looked = kubeconfig::get(&clusters, name);
    let cluster = hub
        .ask("look for the cluster", KIND, looked)
        .await?
        .ok_or_else(|| {
            Error::Input(format!(
                "the hub at {} has no cluster {name:?}; `muster get clusters` lists those it has",
                hub.server
            ))
        })?;
    if let Some(problem) = refuse(&cluster, detach.force) {
        return Err(Error::Input(problem));
    }
    let uid = cluster.uid().unwrap_or_default();
    if cluster.metadata.deletion_timestamp.is_none() {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        hub.ask("delete the cluster", KIND, clusters.delete(name, &parameters))
            .await?;
    }
    let mut left = Left::default();
    if detach.force {
        left.addons = release::<ManagedClusterAddOn>(&hub, name, "managedclusteraddons").await?;
        left.works = release::<ManifestWork>(&hub, name, "manifestworks").await?;
    }
    let gone = gone(&clusters, name, &uid, detach.timeout).await;
    match gone {
        Err(Error::Late {
            what,
            seconds,
            missing,
        }) if !detach.force => {
            return Err(Error::Late {
                what,
                seconds,
                missing: format!(
                    "{missing}; it goes on by itself, or, when the cluster will never come back, with --force"
                ),
            });
        }
        gone => gone?,
    }
    output::print(&format!("cluster {name} detached\n"))?;
    let namespace = namespace(&hub, name).await;
    for line in remains(&cluster, &left, detach.force, namespace) {
        output::note(&line);
    }
    Ok(())
}

/// Why the cluster can not be let go of in that way.
fn refuse(cluster: &ManagedCluster, force: bool) -> Option<String> {
    let conditions = cluster
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    let name = cluster.name_any();
    if force && is_true(conditions, types::CLUSTER_AVAILABLE) {
        return Some(format!(
            "cluster {name} is available and can clean up after itself: detach it without --force"
        ));
    }
    None
}

/// Waits until the cluster is gone, or another came in its place; tells what it waits for.
async fn gone(clusters: &Api<ManagedCluster>, name: &str, uid: &str, within: Duration) -> Result<(), Error> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let what = format!("cluster {name} was not gone");
    let mut told = String::new();
    follow::until(clusters.clone(), config, within, &what, |found| {
        let Some(cluster) = found.values().find(|c| c.uid().as_deref() == Some(uid)) else {
            return Ok(());
        };
        let progress = progress(cluster);
        if told != progress {
            output::note(&format!("{name}: {progress}"));
            told.clone_from(&progress);
        }
        Err(progress)
    })
    .await
}

/// What a cluster that is being deleted waits for.
fn progress(cluster: &ManagedCluster) -> String {
    let conditions = cluster
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    let mut text = match find(conditions, types::DELETING) {
        Some(deleting) if !deleting.message.is_empty() => crate::error::one_line(&deleting.message),
        _ => format!("waiting for {}", cluster.finalizers().join(", ")),
    };
    if is_unknown(conditions, types::CLUSTER_AVAILABLE) {
        text.push_str("; nothing is heard of the cluster");
    }
    text
}

/// Deletes all of a kind in the cluster's namespace, finalizers or not. Returns the names of what was held by one.
async fn release<K>(hub: &Hub, namespace: &str, plural: &'static str) -> Result<Vec<String>, Error>
where
    K: kube::Resource<DynamicType = ()>,
{
    let api: Api<DynamicObject> =
        Api::namespaced_with(hub.client.clone(), namespace, &ApiResource::erase::<K>(&()));
    let list = hub
        .ask(
            &format!("list {plural}"),
            plural,
            api.list(&ListParams::default()),
        )
        .await?;
    let mut held = Vec::new();
    let gone = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 404);
    for object in list.items {
        let name = object.name_any();
        let (parameters, patching) = (DeleteParams::default(), PatchParams::default());
        match api.delete(&name, &parameters).await {
            Err(error) if gone(&error) => continue,
            Err(error) => return Err(hub.explain(&format!("delete {plural} {name}"), plural, &error)),
            Ok(_) => {}
        }
        if object.finalizers().is_empty() {
            continue;
        }
        let patch = json!({"metadata": {"finalizers": null, "uid": object.uid()}});
        match api.patch(&name, &patching, &Patch::Merge(&patch)).await {
            Err(error) if !gone(&error) => {
                return Err(hub.explain(&format!("release {plural} {name}"), plural, &error));
            }
            _ => held.push(name),
        }
    }
    Ok(held)
}

/// Looks for the cluster's namespace. One that the hub did not make for it is somebody else's, whatever its name.
async fn namespace(hub: &Hub, name: &str) -> Namespace {
    use k8s_openapi::api::core::v1::Namespace as Object;
    let all: Api<Object> = Api::all(hub.client.clone());
    match all.get_metadata_opt(name).await {
        Ok(Some(found)) if found.labels().get(labels::CLUSTER_NAME).map(String::as_str) == Some(name) => {
            Namespace::Left
        }
        Ok(_) => Namespace::None,
        Err(_) => Namespace::Hidden,
    }
}

/// What stays where nobody cleaned up, for the person who may still reach it.
fn remains(cluster: &ManagedCluster, left: &Left, force: bool, namespace: Namespace) -> Vec<String> {
    let name = cluster.name_any();
    let mut lines = Vec::new();
    match namespace {
        Namespace::Left => lines.push(format!(
            "left at the hub: namespace {name}; it remembers which agents had the name: keep it until their certificates \
             are no longer good{}, or the next cluster of that name shares its rights with them",
            Validity::of(cluster).map_or(String::new(), |one| format!(" ({:.0})", one.not_after))
        )),
        Namespace::Hidden => lines.push(format!(
            "left at the hub: namespace {name}, if the hub made one for the cluster"
        )),
        Namespace::None => {}
    }
    if !force {
        lines.push(format!(
            "left on the cluster: the klusterlet and its namespaces; stop it, or it may ask to join {name} again"
        ));
        return lines;
    }
    for (what, names) in [("objects of the works", &left.works), ("add-ons", &left.addons)] {
        if !names.is_empty() {
            lines.push(format!("left on the cluster: {what} {}", names.join(", ")));
        }
    }
    let until = Validity::of(cluster).map_or(String::new(), |validity| {
        format!(" (it ends at {})", validity.not_after)
    });
    lines.push(format!(
        "left on the cluster: the klusterlet, its namespaces, its AppliedManifestWorks, and its certificate for the hub{until}, which has no rights any more"
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(available: &str, deleting: &str) -> ManagedCluster {
        let condition = |type_: &str, status: &str, message: &str| {
            json!({"type": type_, "status": status, "reason": "r", "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let conditions = [
            condition("ManagedClusterConditionAvailable", available, ""),
            condition("Deleting", "False", deleting),
            condition(
                "ClusterCertificateRotated",
                "True",
                "client certificate rotated starting from 2026-01-01 00:00:00 +0000 UTC to 2027-01-01 00:00:00 +0000 UTC",
            ),
        ];
        serde_json::from_value(json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
            "metadata": {"name": "c1", "finalizers": ["f"]}, "spec": {}, "status": {"conditions": conditions}}))
        .unwrap()
    }

    #[test]
    fn force_is_for_clusters_that_do_not_answer() {
        assert!(
            refuse(&cluster("True", ""), true)
                .unwrap()
                .contains("without --force")
        );
        for (available, force) in [("True", false), ("Unknown", true), ("False", true)] {
            assert_eq!(refuse(&cluster(available, ""), force), None);
        }
    }

    #[test]
    fn progress_says_what_is_left_and_why_it_may_stay() {
        assert_eq!(progress(&cluster("True", "There are works")), "There are works");
        assert_eq!(
            progress(&cluster("Unknown", "")),
            "waiting for f; nothing is heard of the cluster"
        );
    }

    #[test]
    fn what_is_left_behind_is_told() {
        let left = Left {
            works: vec!["shop".into()],
            addons: vec![],
        };
        let lines = remains(&cluster("Unknown", ""), &left, true, Namespace::Left).join("\n");
        assert!(
            lines.contains("objects of the works shop") && lines.contains("ends at 2027-01-01T00:00:00Z"),
            "{lines}"
        );
        assert!(!lines.contains("add-ons"), "{lines}");
        for (namespace, told) in [
            (Namespace::Left, Some("keep it until")),
            (Namespace::Hidden, Some("if the hub made one")),
            (Namespace::None, None),
        ] {
            let lines = remains(&cluster("True", ""), &Left::default(), false, namespace).join("\n");
            assert!(lines.contains("klusterlet"), "{lines}");
            assert_eq!(lines.contains("left at the hub"), told.is_some(), "{lines}");
            assert!(lines.contains(told.unwrap_or_default()), "{lines}");
        }
    }
}
