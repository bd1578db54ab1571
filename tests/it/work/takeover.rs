//! A cluster that Open Cluster Management's agent has worked on until now: its records, objects and finalizers as that
//! leaves them. Ours takes over, and no workload notices.

use super::{Rig, applied_resources, config, until_data};
use crate::Result;
use anyhow::Context as _;
use muster_tests::objects::{
    APPLIED_WORKS, configmap, configmap_path, deployment, deployment_path, has_condition, strategy, work,
    work_path, work_with,
};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, Kube};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const RECORD: &str = "cluster.open-cluster-management.io/applied-manifest-work-cleanup";
const WORK: &str = "cluster.open-cluster-management.io/manifest-work-cleanup";
const SPEC_HASH: &str = "open-cluster-management.io/config-spec-hash";

/// What that agent has of one manifest.
struct Left {
    path: String,
    plural: &'static str,
    object: Value,
}

/// An object made as its strategy `Update` makes it: by PUT and POST, as manager `work`.
async fn made(spoke: &Kube, path: &str, mut object: Value, record: Option<&Value>) -> anyhow::Result<Value> {
    if let Some(record) = record {
        object["metadata"]["ownerReferences"] = json!([owner(record)]);
    }
    let (collection, _) = path.rsplit_once('/').context("a path")?;
    Ok(spoke
        .create(&format!("{collection}?fieldManager=work"), &object)
        .await?)
}

/// The same by server-side apply: the owner is a patch of its own.
async fn applied(spoke: &Kube, path: &str, object: &Value, record: &Value) -> anyhow::Result<Value> {
    spoke.apply(path, "work-agent", false, object).await?;
    let owners = json!({"metadata": {"ownerReferences": [owner(record)]}});
    Ok(spoke.merge(&format!("{path}?fieldManager=work"), &owners).await?)
}

fn owner(record: &Value) -> Value {
    json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "AppliedManifestWork",
        "name": record["metadata"]["name"], "uid": record["metadata"]["uid"]})
}

/// An AppliedManifestWork of that agent.
async fn record(rig: &Rig, work: &str) -> anyhow::Result<Value> {
    let hash = rig.hash('a');
    let record = json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "AppliedManifestWork",
        "metadata": {"name": format!("{hash}-{work}"), "finalizers": [RECORD]},
        "spec": {"hubHash": hash, "agentID": rig.agent_id(), "manifestWorkName": work}});
    Ok(rig.spoke().create(APPLIED_WORKS, &record).await?)
}

async fn write_down(rig: &Rig, record: &Value, left: &[Left]) -> Result {
    let resources: Vec<Value> = left
        .iter()
        .map(|l| {
            let version = l.object["apiVersion"].as_str().unwrap_or_default();
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            json!({"group": group, "version": version, "resource": l.plural, "namespace": l.object["metadata"]["namespace"],
                "name": l.object["metadata"]["name"], "uid": l.object["metadata"]["uid"]})
        })
        .collect();
    let path = format!(
        "{APPLIED_WORKS}/{}/status",
        record["metadata"]["name"].as_str().unwrap_or_default()
    );
    rig.spoke()
        .merge(&path, &json!({"status": {"appliedResources": resources}}))
        .await?;
    Ok(())
}

/// The object without what only says that the agent is another one now: our marks, and what a server writes with them.
fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    // What controllers of the cluster write is not the agent's doing.
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let metadata = &mut object["metadata"];
    if metadata["annotations"][SPEC_HASH].is_string()
        && let Some(fields) = metadata.as_object_mut()
    {
        // With fields that are ignored goes one extra apply, and a Deployment's generation moves with an annotation.
        fields.remove("generation");
    }
    for (field, mark) in [
        ("labels", "muster.open-cluster-management.io/applied"),
        ("labels", "muster.open-cluster-management.io/object-hash"),
        ("annotations", SPEC_HASH),
        ("annotations", "deployment.kubernetes.io/revision"),
    ] {
        if let Some(map) = metadata[field].as_object_mut() {
            map.remove(mark);
            if map.is_empty() {
                metadata[field] = Value::Null;
            }
        }
    }
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.retain(|field, value| {
            !["managedFields", "resourceVersion"].contains(&field.as_str()) && !value.is_null()
        });
    }
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_of_an_ocm_agent_is_taken_over_in_place() -> Result {
    let mut rig = Rig::prepare(Fleet::prepare(FleetOptions::default()).await?).await?;
    let (cluster, ns, spoke, hub) = (rig.cluster(), rig.namespace(), rig.spoke(), rig.fleet.kube());
    let app = record(&rig, "app").await?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": ns}, "type": "Opaque",
        "data": {"password": "eA=="}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": ns},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let manifests = [
        deployment(&ns, "web", 1),
        service.clone(),
        configmap(&ns, "settings", "1"),
        secret.clone(),
        configmap(&ns, "applied", "1"),
        deployment(&ns, "scaled", 1),
        configmap(&ns, "left", "1"),
        configmap(&ns, "read", "1"),
        configmap(&ns, "shrunk", "1"),
    ];
    let mut left = Vec::new();
    let mut keep = |path: String, plural, object| left.push(Left { path, plural, object });
    let maps = |name: &str| configmap_path(&ns, name);
    for (path, plural, object) in [
        (deployment_path(&ns, "web"), "deployments", manifests[0].clone()),
        (
            format!("/api/v1/namespaces/{ns}/services/web"),
            "services",
            service,
        ),
        (maps("settings"), "configmaps", manifests[2].clone()),
        (format!("/api/v1/namespaces/{ns}/secrets/key"), "secrets", secret),
    ] {
        let object = made(&spoke, &path, object, Some(&app)).await?;
        keep(path, plural, object);
    }
    let object = applied(&spoke, &maps("applied"), &manifests[4], &app).await?;
    keep(maps("applied"), "configmaps", object);
    let mut scaled = manifests[5].clone();
    scaled["metadata"]["annotations"] = json!({SPEC_HASH: "0123456789abcdef0123456789abcdef"});
    applied(&spoke, &deployment_path(&ns, "scaled"), &scaled, &app).await?;
    // An autoscaler has it.
    let scale = json!({"spec": {"replicas": 7}});
    let path = deployment_path(&ns, "scaled");
    let object = spoke
        .merge(&format!("{path}?fieldManager=scaler"), &scale)
        .await?;
    keep(path, "deployments", object);
    let object = made(&spoke, &maps("left"), manifests[6].clone(), None).await?;
    keep(maps("left"), "configmaps", object);
    let object = spoke
        .create(&format!("/api/v1/namespaces/{ns}/configmaps"), &manifests[7])
        .await?;
    keep(maps("read"), "configmaps", object);
    write_down(&rig, &app, &left).await?;
    // Its manifest has lost a key while no agent was there.
    let mut grown = manifests[8].clone();
    grown["data"]["former"] = json!("x");
    let shrunk = made(&spoke, &maps("shrunk"), grown, Some(&app)).await?;

    // A work that the hub has lost: a case for eviction, not for haste.
    let lost = record(&rig, "lost").await?;
    let object = made(&spoke, &maps("lost"), configmap(&ns, "lost", "1"), Some(&lost)).await?;
    let lost_left = [Left {
        path: maps("lost"),
        plural: "configmaps",
        object,
    }];
    write_down(&rig, &lost, &lost_left).await?;

    let ignoring = json!({"type": "ServerSideApply", "serverSideApply": {"ignoreFields": [
        {"condition": "OnSpokePresent", "jsonPaths": [".spec.replicas"]}]}});
    let spec = json!({
        "deleteOption": {"propagationPolicy": "SelectivelyOrphan", "selectivelyOrphans": {"orphaningRules": [
            {"group": "", "resource": "configmaps", "namespace": ns, "name": "left"}]}},
        "manifestConfigs": [
            strategy("", "configmaps", &ns, "applied", &json!({"type": "ServerSideApply"})),
            strategy("apps", "deployments", &ns, "scaled", &ignoring),
            config("", "configmaps", &ns, "read", &json!({"updateStrategy": {"type": "ReadOnly"}}))]});
    let mut object = work_with(&cluster, "app", &manifests, &spec);
    object["metadata"]["finalizers"] = json!([WORK]);
    rig.create(&object).await?;
    let condition = |kind: &str, reason: &str| {
        json!({"type": kind, "status": "True", "reason": reason, "message": "",
        "observedGeneration": 1, "lastTransitionTime": "2020-01-01T00:00:00Z"})
    };
    let status = json!({"status": {"conditions": [condition("Applied", "AppliedManifestWorkComplete"),
        condition("Available", "ResourcesAvailable")]}});
    hub.merge(&format!("{}/status", work_path(&cluster, "app")), &status)
        .await?;

    let (hash, agent) = (rig.hash('a'), rig.agent_id());
    rig.run(&hash, &agent, 3600);
    settled(&rig, "before").await?;
    for one in left.iter().chain(&lost_left) {
        let now = spoke
            .get(&one.path)
            .await
            .with_context(|| format!("{} is gone", one.path))?;
        assert_eq!(bare(&now), bare(&one.object), "{} was changed", one.path);
    }
    for path in [maps("read"), maps("lost")] {
        let before = left
            .iter()
            .chain(&lost_left)
            .find(|l| l.path == path)
            .context("one of them")?;
        assert_eq!(spoke.get(&path).await?, before.object, "{path} was written");
    }
    until_data(&spoke, &ns, "shrunk", &json!({"value": "1"})).await?;
    assert_eq!(
        spoke.get(&maps("shrunk")).await?["metadata"]["uid"],
        shrunk["metadata"]["uid"]
    );

    let path = format!("{APPLIED_WORKS}/{hash}-app");
    let now = spoke.get(&path).await?;
    for field in ["uid", "finalizers"] {
        assert_eq!(now["metadata"][field], app["metadata"][field]);
    }
    assert_eq!(now["spec"], app["spec"]);
    let recorded = applied_resources(&now);
    for one in &left {
        let (name, uid) = (&one.object["metadata"]["name"], &one.object["metadata"]["uid"]);
        assert!(
            recorded.iter().any(|r| r["name"] == *name && r["uid"] == *uid),
            "{name}: {recorded:?}"
        );
    }
    assert!(now["status"]["evictionStartTime"].is_null());
    assert!(
        spoke.get(&format!("{APPLIED_WORKS}/{hash}-lost")).await?["status"]["evictionStartTime"].is_string()
    );
    let at_hub = hub.get(&work_path(&cluster, "app")).await?;
    assert_eq!(at_hub["metadata"]["finalizers"], json!([WORK]));
    has_condition(Some(&at_hub), "Applied", "True").map_err(anyhow::Error::msg)?;

    // From now on a restart writes nothing at all.
    let versions = async || {
        let mut versions = BTreeMap::new();
        for one in &left {
            versions.insert(
                one.path.clone(),
                spoke.get(&one.path).await?["metadata"]["resourceVersion"].clone(),
            );
        }
        anyhow::Ok(versions)
    };
    let before = versions().await?;
    rig.stop().await?;
    rig.run(&hash, &agent, 3600);
    settled(&rig, "after").await?;
    assert_eq!(versions().await?, before);

    // And the work goes as that agent would have let it go.
    hub.delete(&work_path(&cluster, "app")).await?;
    hub.until_gone(&work_path(&cluster, "app"), SOON).await?;
    spoke.until_gone(&deployment_path(&ns, "web"), SOON).await?;
    for stays in ["left", "read", "lost"] {
        spoke.get(&maps(stays)).await.context(stays)?;
    }
    rig.end().await
}

/// Waits until the agent has been through all it knew: it is through with what comes after.
async fn settled(rig: &Rig, name: &str) -> Result {
    let cluster = rig.cluster();
    // What Muster alone says of works.
    let path = work_path(&cluster, "app");
    rig.fleet
        .kube()
        .until(&path, SOON, "the agent has told of the work", |work| {
            has_condition(work, "Degraded", "False")
        })
        .await?;
    rig.create(&work(&cluster, name, &[configmap(&rig.namespace(), name, "1")]))
        .await?;
    rig.fleet.until_applied(&cluster, name).await.map(drop)
}
