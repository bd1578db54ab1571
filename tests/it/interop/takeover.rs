//! A cluster that goes from OCM's agents to ours and back, with the names, credentials and records that are there: no object
//! is made anew or rewritten.

use super::works::{begin, until, until_value};
use super::{Agents, Cluster, Hub, Maker, Ocm, registration, works};
use crate::Result;
use muster_crds::constants::conditions;
use muster_tests::objects::{
    configmap, configmap_path, deployment, deployment_path, has_condition, is_applied, strategy, work_path,
    work_with, works_path,
};
use muster_tests::wait::SOON;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Each object with what says whether it was made anew or rewritten.
type Seen = BTreeMap<String, [Value; 3]>;

#[tokio::test(flavor = "multi_thread")]
async fn at_ocms_hub_a_cluster_goes_to_our_klusterlet_and_back() -> Result {
    let Some(ocm) = Ocm::found().await? else {
        return Ok(());
    };
    let hub = Hub::ocms(&ocm).await?;
    hub.explain(there_and_back(&ocm, &hub).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn at_our_hub_a_cluster_goes_to_our_klusterlet_and_back() -> Result {
    let Some(ocm) = Ocm::found().await? else {
        return Ok(());
    };
    let hub = Hub::ours().await?;
    there_and_back(&ocm, &hub).await
}

async fn there_and_back(ocm: &Ocm, hub: &Hub) -> Result {
    let cluster = Cluster::start(ocm).await?;
    let mut agents = Agents::start(ocm, &cluster, hub, Maker::Ocm)?;
    let told = async {
        registration::asks(hub, &cluster).await?;
        agents.complete(ocm, &cluster).await?;
        registration::joins(hub, &cluster).await?;
        begin(hub, &cluster).await?;
        ignoring(hub, &cluster).await
    }
    .await;
    agents.explain(told)?;
    let before = seen(&cluster).await?;
    let certificate = std::fs::read(cluster.credentials().join("tls.crt"))?;
    agents.kill()?;

    let mut agents = Agents::start(ocm, &cluster, hub, Maker::Muster)?;
    let told = async {
        has_told(hub, &cluster, "app").await?;
        has_told(hub, &cluster, "ignoring").await?;
        settles(hub, &cluster, "ours").await?;
        same(&before, &seen(&cluster).await?);
        // It came with what it found.
        anyhow::ensure!(std::fs::read(cluster.credentials().join("tls.crt"))? == certificate);
        anyhow::ensure!(
            hub.kube
                .list(&crate::registration::csrs_path(&cluster.name))
                .await?
                .len()
                == 1
        );
        until_value(&cluster, "settings", "1").await
    }
    .await;
    agents.explain(told)?;
    agents.kill()?;

    let mut agents = Agents::start(ocm, &cluster, hub, Maker::Ocm)?;
    let told = async {
        agents.complete(ocm, &cluster).await?;
        settles(hub, &cluster, "theirs").await?;
        same(&before, &seen(&cluster).await?);
        for work in ["app", "ignoring", "ours", "theirs"] {
            works::end(hub, &cluster, work).await?;
        }
        let path = deployment_path(&cluster.namespace(), "web");
        cluster.kube().until_gone(&path, SOON).await?;
        registration::leaves(hub, &cluster).await
    }
    .await;
    agents.explain(told)
}

/// A work with fields that are left to the cluster, and another's hand on them.
async fn ignoring(hub: &Hub, cluster: &Cluster) -> Result {
    let ns = cluster.namespace();
    let ignore = json!({"type": "ServerSideApply", "serverSideApply": {"ignoreFields": [
        {"condition": "OnSpokePresent", "jsonPaths": [".spec.replicas"]}]}});
    let object = work_with(
        &cluster.name,
        "ignoring",
        &[deployment(&ns, "scaled", 1)],
        &json!({"manifestConfigs": [strategy("apps", "deployments", &ns, "scaled", &ignore)]}),
    );
    hub.kube.create(&works_path(&cluster.name), &object).await?;
    until(hub, cluster, "ignoring", "it is applied", |work| {
        is_applied(Some(work))
    })
    .await?;
    let scale = json!({"spec": {"replicas": 3}});
    let path = deployment_path(&ns, "scaled");
    cluster.kube().merge(&path, &scale).await?;
    Ok(())
}

/// Waits until our klusterlet has been through a work: it says what Muster alone says of works.
async fn has_told(hub: &Hub, cluster: &Cluster, work: &str) -> Result {
    let path = work_path(&cluster.name, work);
    hub.kube
        .until(&path, SOON, "our klusterlet has told of the work", |work| {
            has_condition(work, conditions::DEGRADED, "False")
        })
        .await
}

/// Waits until the agent that came last has done something new: it is through with what was there.
async fn settles(hub: &Hub, cluster: &Cluster, work: &str) -> Result {
    let object = configmap(&cluster.namespace(), work, "1");
    let object = work_with(&cluster.name, work, &[object], &json!({}));
    hub.kube.create(&works_path(&cluster.name), &object).await?;
    until(hub, cluster, work, "it is applied", |work| is_applied(Some(work)))
        .await
        .map(drop)
}

/// What the two works applied, and the records of them.
async fn seen(cluster: &Cluster) -> anyhow::Result<Seen> {
    let ns = cluster.namespace();
    let mut seen = Seen::new();
    let mut paths: Vec<String> = ["settings", "applied", "once", "read", "left"]
        .iter()
        .map(|name| configmap_path(&ns, name))
        .collect();
    paths.extend(["web", "scaled"].iter().map(|name| deployment_path(&ns, name)));
    let mut objects = Vec::new();
    for path in paths {
        objects.push((path.clone(), cluster.kube().get(&path).await?));
    }
    for record in works::records(cluster).await? {
        let work = record["spec"]["manifestWorkName"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if ["app", "ignoring"].contains(&work.as_str()) {
            objects.push((work, record));
        }
    }
    for (name, object) in objects {
        let metadata = &object["metadata"];
        // With fields that are ignored goes one extra apply, and a Deployment's generation moves with its annotation.
        let generation = if name.ends_with("/scaled") {
            Value::Null
        } else {
            metadata["generation"].clone()
        };
        let content = if object["data"].is_null() {
            object["spec"].clone()
        } else {
            object["data"].clone()
        };
        seen.insert(name, [metadata["uid"].clone(), generation, content]);
    }
    Ok(seen)
}

fn same(before: &Seen, now: &Seen) {
    assert_eq!(before.keys().collect::<Vec<_>>(), now.keys().collect::<Vec<_>>());
    for (name, was) in before {
        assert_eq!(was, &now[name], "{name}");
    }
}
