//! The work agent: what OCM's integration tests of the same names show (ocm-wire §10.3), what Muster adds, and what must go
//! wrong well.

mod badinput;
mod conditionrules;
mod definitions;
mod deleteoption;
mod docs;
mod drift;
mod health;
mod property;
mod removal;
mod replicaset;
mod statusfeedback;
mod strangers;
mod takeover;
mod unmanaged_appliedwork;
mod updatestrategy;
mod webhooks;
#[allow(clippy::module_inception)] // OCM's name
mod work;

use crate::Result;
use muster_tests::objects::{condition_in, configmap_path, manifest_status, work_path};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, Kube};
use serde_json::{Value, json};

type Checked = std::result::Result<(), String>;

/// Waits until a ConfigMap has this value.
async fn until_value(kube: &Kube, namespace: &str, name: &str, value: &str) -> Result {
    until_data(kube, namespace, name, &json!({"value": value})).await
}

/// Waits until a ConfigMap has just this.
async fn until_data(kube: &Kube, namespace: &str, name: &str, data: &Value) -> Result {
    until_field(kube, &configmap_path(namespace, name), "/data", data).await
}

/// Waits until an object has this at a JSON pointer.
async fn until_field(kube: &Kube, path: &str, pointer: &str, wanted: &Value) -> Result {
    kube.until(path, SOON, &format!("{pointer} is {wanted}"), |object| {
        let found = object.ok_or("it is not there")?.pointer(pointer);
        (found == Some(wanted))
            .then_some(())
            .ok_or_else(|| format!("it is {}", found.unwrap_or(&Value::Null)))
    })
    .await
}

fn owners(object: &Value) -> usize {
    object["metadata"]["ownerReferences"]
        .as_array()
        .map_or(0, Vec::len)
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

/// One condition of the manifest that names `name`: status, reason, message; empty where there is none.
fn manifest_condition(work: &Value, name: &str, kind: &str) -> (String, String, String) {
    let list = manifest_status(work, name)
        .map(|m| m["conditions"].clone())
        .unwrap_or_default();
    whole_condition(&list, kind)
}

/// One condition of a list: status, reason, message; empty where there is none.
fn whole_condition(list: &Value, kind: &str) -> (String, String, String) {
    let found = list
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == kind)
        .cloned();
    let found = found.unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

/// Waits until a manifest has a condition with this status and reason, and this in its message; the work.
async fn until_manifest(
    fleet: &Fleet,
    cluster: &str,
    work: &str,
    name: &str,
    (kind, status, reason, mention): (&str, &str, &str, &str),
) -> anyhow::Result<Value> {
    let what = format!("{name} has {kind}={status}, {reason}, {mention:?}");
    fleet
        .until_work(cluster, work, &what, |work| {
            let found = manifest_condition(work, name, kind);
            if (found.0.as_str(), found.1.as_str()) == (status, reason) && found.2.contains(mention) {
                Ok(())
            } else {
                Err(format!("it is {found:?}"))
            }
        })
        .await
}

/// Waits until a work has a condition with this status; the work.
async fn until_condition(
    fleet: &Fleet,
    cluster: &str,
    work: &str,
    kind: &str,
    status: &str,
) -> anyhow::Result<Value> {
    fleet
        .until_work(
            cluster,
            work,
            &format!("{kind} is {status}"),
            |work| match condition_in(&work["status"]["conditions"], kind) {
                Some((found, _)) if found == status => Ok(()),
                other => Err(format!("{kind} is {other:?}")),
            },
        )
        .await
}

/// Changes a work's spec or metadata.
async fn patch(fleet: &Fleet, cluster: &str, work: &str, patch: &Value) -> Result {
    fleet.kube().merge(&work_path(cluster, work), patch).await?;
    Ok(())
}

/// Deletes a work and waits until it is gone.
async fn delete(fleet: &Fleet, cluster: &str, work: &str) -> Result {
    let path = work_path(cluster, work);
    fleet.kube().delete(&path).await?;
    fleet.kube().until_gone(&path, SOON).await
}

/// `manifestConfigs` for one object.
fn config(group: &str, resource: &str, namespace: &str, name: &str, rest: &Value) -> Value {
    let mut config = rest.clone();
    config["resourceIdentifier"] =
        json!({"group": group, "resource": resource, "namespace": namespace, "name": name});
    config
}

/// The AppliedManifestWork of a work.
async fn applied_work(fleet: &Fleet, cluster: usize, work: &str) -> anyhow::Result<Value> {
    let cluster = &fleet.clusters[cluster];
    let agent = cluster.options.agent_id.clone().unwrap_or_default();
    let all = cluster.kube().list(muster_tests::objects::APPLIED_WORKS).await?;
    all.into_iter()
        .find(|a| a["spec"]["agentID"] == agent.as_str() && a["spec"]["manifestWorkName"] == work)
        .ok_or_else(|| anyhow::anyhow!("no AppliedManifestWork of {work}"))
}

/// What a record says is applied.
fn applied_resources(record: &Value) -> Vec<Value> {
    record["status"]["appliedResources"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// When conditions are said to have changed before a test makes something change.
const LONG_AGO: &str = "2020-01-01T00:00:00Z";

/// Sets every transition time of a settled work's status to [`LONG_AGO`]: whatever changes afterwards shows.
async fn age(fleet: &Fleet, cluster: &str, work: &str) -> Result {
    let path = work_path(cluster, work);
    let old = |list: &mut Value| {
        for condition in list.as_array_mut().into_iter().flatten() {
            condition["lastTransitionTime"] = json!(LONG_AGO);
        }
    };
    let all = |object: &mut Value| {
        let status = &mut object["status"];
        old(&mut status["conditions"]);
        let manifests = status["resourceStatus"]["manifests"].as_array_mut();
        for manifest in manifests.into_iter().flatten() {
            old(&mut manifest["conditions"]);
        }
    };
    // An agent that is just writing the status writes what it knew before.
    loop {
        fleet.kube().edit(&path, "/status", all).await?;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        if moved(&fleet.kube().get(&path).await?["status"]["conditions"]).is_empty() {
            return Ok(());
        }
    }
}

/// Types of the conditions in a list that have changed since [`age`].
fn moved(list: &Value) -> Vec<&str> {
    let list = list.as_array().into_iter().flatten();
    list.filter(|c| c["lastTransitionTime"] != LONG_AGO)
        .filter_map(|c| c["type"].as_str())
        .collect()
}

/// A CustomResourceDefinition in group `<plural>.example.com` with an open schema, and the path of its objects in a namespace.
fn definition(plural: &str, kind: &str, namespace: &str) -> (Value, String) {
    let group = format!("{plural}.example.com");
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    (crd, format!("/apis/{group}/v1/namespaces/{namespace}/{plural}"))
}

/// Work agents by themselves, without registration, as an administrator on both sides: for what a klusterlet that joined in
/// order never meets.
struct Rig {
    fleet: Fleet,
    running: Vec<(tokio::task::JoinHandle<()>, tokio_util::sync::CancellationToken)>,
}

impl Rig {
    /// The agent of the fleet's first cluster, whose namespace at the hub is made here.
    async fn start(fleet: Fleet, grace: u64) -> anyhow::Result<Self> {
        let mut rig = Self::prepare(fleet).await?;
        let (hash, agent) = (rig.hash('a'), rig.agent_id());
        rig.run(&hash, &agent, grace);
        Ok(rig)
    }

    /// Without an agent yet.
    async fn prepare(fleet: Fleet) -> anyhow::Result<Self> {
        let rig = Self {
            fleet,
            running: Vec::new(),
        };
        let spoke = rig.spoke();
        for crd in muster_crds::crds::spoke() {
            spoke
                .ensure(muster_tests::objects::CRDS, &serde_json::to_value(&crd)?)
                .await?;
        }
        let plane = &rig.fleet.clusters[0].plane;
        plane
            .until_served("appliedmanifestworks.work.open-cluster-management.io")
            .await?;
        let namespaces = "/api/v1/namespaces";
        rig.fleet
            .kube()
            .ensure(namespaces, &muster_tests::objects::namespace(&rig.cluster()))
            .await?;
        spoke
            .ensure(namespaces, &muster_tests::objects::namespace(&rig.agent_id()))
            .await?;
        Ok(rig)
    }

    /// Namespace of the cluster's works at the hub.
    fn cluster(&self) -> String {
        self.fleet.clusters[0].name.clone()
    }

    /// Namespace for objects on the cluster.
    fn namespace(&self) -> String {
        self.fleet.clusters[0].namespace()
    }

    fn spoke(&self) -> Kube {
        self.fleet.clusters[0].kube()
    }

    fn agent_id(&self) -> String {
        format!("agent-{}", self.cluster())
    }

    /// The hash of a hub that is this cluster's alone.
    fn hash(&self, hub: char) -> String {
        let own = muster_klusterlet::work::hub_hash(&format!("https://{hub}.{}", self.cluster()));
        own.chars().take(64).collect()
    }

    /// Runs an agent of an ID that takes the hub for one with this hash.
    fn run(&mut self, hash: &str, agent_id: &str, grace: u64) {
        let settings = muster_klusterlet::work::Settings {
            cluster: self.cluster(),
            hub_hash: hash.to_owned(),
            agent_id: agent_id.to_owned(),
            workers: 4,
            eviction_grace: std::time::Duration::from_secs(grace),
            raw_feedback: None,
            impersonate_executor: false,
            remember_rights: false,
            agent_name: "agent".to_owned(),
            events: muster_klusterlet::work::WorkEvents::None,
            counts: std::sync::Arc::default(),
        };
        let (hub, spoke) = (self.fleet.kube().client(), self.spoke().client());
        let agent = muster_klusterlet::work::Agent::new(hub, spoke, &self.agent_id(), settings);
        let stop = tokio_util::sync::CancellationToken::new();
        self.running.push((tokio::spawn(agent.run(stop.clone())), stop));
    }

    /// Stops the agents in order.
    async fn stop(&mut self) -> Result {
        for (task, stop) in self.running.drain(..) {
            stop.cancel();
            task.await?;
        }
        Ok(())
    }

    async fn create(&self, work: &Value) -> Result {
        self.fleet.create(work).await
    }

    /// Deletes the works, and stops when they are gone.
    async fn end(mut self) -> Result {
        let works = muster_tests::objects::works_path(&self.cluster());
        for work in self.fleet.kube().list(&works).await? {
            let path = format!(
                "{works}/{}",
                work["metadata"]["name"].as_str().unwrap_or_default()
            );
            self.fleet.kube().delete(&path).await?;
            self.fleet.kube().until_gone(&path, SOON).await?;
        }
        self.stop().await
    }
}
