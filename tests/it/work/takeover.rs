//! A cluster that Open Cluster Management's agent has worked on until now: its records, objects and finalizers as that
//! leaves them. Ours takes over, and no workload notices.

use super::{Rig, applied_resources, config, definition, until_data};
use crate::Result;
use anyhow::Context as _;
use muster_tests::objects::{
    APPLIED_WORKS, CRDS, configmap, configmap_path, deployment, deployment_path, has_condition, strategy,
    work, work_path, work_with,
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
async fn made<'a>(
    spoke: &Kube,
    path: &str,
    mut object: Value,
    records: impl IntoIterator<Item = &'a Value>,
) -> anyhow::Result<Value> {
    let owners: Vec<Value> = records.into_iter().map(owner).collect();
    if !owners.is_empty() {
        object["metadata"]["ownerReferences"] = owners.into();
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
    record_of(rig, &rig.agent_id(), work).await
}

/// The same of an agent with another ID.
async fn record_of(rig: &Rig, agent: &str, work: &str) -> anyhow::Result<Value> {
    let hash = rig.hash('a');
    let record = json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "AppliedManifestWork",
        "metadata": {"name": format!("{hash}-{work}"), "finalizers": [RECORD]},
        "spec": {"hubHash": hash, "agentID": agent, "manifestWorkName": work}});
    Ok(rig.spoke().create(APPLIED_WORKS, &record).await?)
}

async fn write_down<'a>(rig: &Rig, record: &Value, left: impl IntoIterator<Item = &'a Left>) -> Result {
    let resources: Vec<Value> = left
        .into_iter()
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
    left_at_hub(&rig, work_with(&cluster, "app", &manifests, &spec)).await?;

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
    let paths: Vec<String> = left.iter().map(|one| one.path.clone()).collect();
    let before = versions(&spoke, &paths).await?;
    rig.stop().await?;
    rig.run(&hash, &agent, 3600);
    settled(&rig, "after").await?;
    assert_eq!(versions(&spoke, &paths).await?, before);

    // And the work goes as that agent would have let it go.
    hub.delete(&work_path(&cluster, "app")).await?;
    hub.until_gone(&work_path(&cluster, "app"), SOON).await?;
    spoke.until_gone(&deployment_path(&ns, "web"), SOON).await?;
    for stays in ["left", "read", "lost"] {
        spoke.get(&maps(stays)).await.context(stays)?;
    }
    rig.end().await
}

/// A work as that agent has left it at the hub: with its finalizer, and told to be applied.
async fn left_at_hub(rig: &Rig, mut work: Value) -> Result {
    work["metadata"]["finalizers"] = json!([WORK]);
    rig.create(&work).await?;
    let condition = |kind: &str, reason: &str| {
        json!({"type": kind, "status": "True", "reason": reason, "message": "",
        "observedGeneration": 1, "lastTransitionTime": "2020-01-01T00:00:00Z"})
    };
    let status = json!({"status": {"conditions": [condition("Applied", "AppliedManifestWorkComplete"),
        condition("Available", "ResourcesAvailable")]}});
    let name = work["metadata"]["name"].as_str().unwrap_or_default();
    let path = format!("{}/status", work_path(&rig.cluster(), name));
    rig.fleet.kube().merge(&path, &status).await?;
    Ok(())
}

/// Marks a record as one whose work was missing at the hub ten minutes ago.
async fn doom(rig: &Rig, record: &Value) -> anyhow::Result<String> {
    let since = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(10);
    let since = since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let name = record["metadata"]["name"].as_str().unwrap_or_default();
    rig.spoke()
        .merge(
            &format!("{APPLIED_WORKS}/{name}/status"),
            &json!({"status": {"evictionStartTime": since}}),
        )
        .await?;
    Ok(since)
}

async fn versions(
    spoke: &Kube,
    paths: impl IntoIterator<Item = &String>,
) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut versions = BTreeMap::new();
    for path in paths {
        let object = spoke.get(path).await.with_context(|| format!("{path} is gone"))?;
        versions.insert(path.clone(), object["metadata"]["resourceVersion"].clone());
    }
    Ok(versions)
}

/// Kinds of every sort, objects of two works, records that were to be evicted, and of an agent with another ID.
#[tokio::test(flavor = "multi_thread")]
async fn definitions_rights_shared_and_doomed_objects_are_taken_over_in_place() -> Result {
    let mut rig = Rig::prepare(Fleet::prepare(FleetOptions::default()).await?).await?;
    let (cluster, ns, spoke, hub) = (rig.cluster(), rig.namespace(), rig.spoke(), rig.fleet.kube());
    let plural = format!("heirs{}", cluster.replace('-', ""));
    let (crd, things) = definition(&plural, "Heir", &ns);
    let crd_name = format!("{plural}.{plural}.example.com");
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rule = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let binding = |kind: &str, role: &str| {
        let mut binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": &ns},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": &ns},
            "subjects": [{"kind": "ServiceAccount", "name": "heir", "namespace": &ns}]});
        if kind == "RoleBinding" {
            binding["metadata"]["namespace"] = json!(ns);
        }
        binding
    };
    let workload = |kind: &str| {
        let mut object = deployment(&ns, "heir", 1);
        object["kind"] = json!(kind);
        if kind == "StatefulSet" {
            object["spec"]["serviceName"] = json!("heir");
        } else {
            object["spec"].as_object_mut().map(|spec| spec.remove("replicas"));
        }
        object
    };
    let of_namespace = |plural: &str| format!("/api/v1/namespaces/{ns}/{plural}/heir");
    let of_rbac = |plural: &str| format!("{rbac}/namespaces/{ns}/{plural}/{ns}");
    let of_apps = |plural: &str| format!("/apis/apps/v1/namespaces/{ns}/{plural}/heir");
    let maps = |name: &str| configmap_path(&ns, name);
    let mut manifests: Vec<(String, &'static str, Value)> = vec![
        (
            format!("{CRDS}/{crd_name}"),
            "customresourcedefinitions",
            crd.clone(),
        ),
        (
            of_namespace("serviceaccounts"),
            "serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "heir", "namespace": ns}}),
        ),
        (
            of_rbac("roles"),
            "roles",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                "metadata": {"name": ns, "namespace": ns}, "rules": rule}),
        ),
        (
            of_rbac("rolebindings"),
            "rolebindings",
            binding("RoleBinding", "Role"),
        ),
        (
            format!("{rbac}/clusterroles/{ns}"),
            "clusterroles",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": ns}, "rules": rule}),
        ),
        (
            format!("{rbac}/clusterrolebindings/{ns}"),
            "clusterrolebindings",
            binding("ClusterRoleBinding", "ClusterRole"),
        ),
        (of_apps("daemonsets"), "daemonsets", workload("DaemonSet")),
        (of_apps("statefulsets"), "statefulsets", workload("StatefulSet")),
        (maps("once"), "configmaps", configmap(&ns, "once", "1")),
    ];
    let app = record(&rig, "app").await?;
    let mut left = Vec::new();
    for (path, plural, object) in &manifests {
        let object = made(&spoke, path, object.clone(), [&app]).await?;
        left.push(Left {
            path: path.clone(),
            plural,
            object,
        });
    }
    rig.fleet.clusters[0].plane.until_served(&crd_name).await?;
    // What is made once belongs to the cluster since.
    let theirs = json!({"data": {"value": "theirs", "more": "theirs"}});
    left.last_mut().context("one")?.object = spoke
        .merge(&format!("{}?fieldManager=somebody", maps("once")), &theirs)
        .await?;
    let thing = json!({"apiVersion": format!("{plural}.example.com/v1"), "kind": "Heir",
        "metadata": {"name": "heir", "namespace": ns}, "spec": {"size": 1, "empty": {}, "list": []}});
    let path = format!("{things}/heir");
    let object = made(&spoke, &path, thing.clone(), [&app]).await?;
    let custom = Left {
        path,
        plural: "",
        object,
    };
    manifests.push((custom.path.clone(), "", thing));
    // Two works have these.
    let other = record(&rig, "other").await?;
    let mut shared = Vec::new();
    for name in ["both", "all"] {
        let map = configmap(&ns, name, "1");
        let object = made(&spoke, &maps(name), map.clone(), [&app, &other]).await?;
        manifests.push((maps(name), "configmaps", map));
        shared.push(Left {
            path: maps(name),
            plural: "configmaps",
            object,
        });
    }
    write_down(&rig, &app, left.iter().chain(&shared)).await?;
    write_down(&rig, &other, &shared).await?;
    // Records that were to be evicted: the work of one is there again, that of the other is not.
    let (back, lost) = (record(&rig, "back").await?, record(&rig, "lost").await?);
    // And one of an agent with another ID.
    let strange = record_of(&rig, "0a1b2c3d-klusterlet-uid", "strange").await?;
    let mut alone = Vec::new();
    for (name, record) in [("back", &back), ("lost", &lost), ("strange", &strange)] {
        let object = made(&spoke, &maps(name), configmap(&ns, name, "1"), [record]).await?;
        let one = Left {
            path: maps(name),
            plural: "configmaps",
            object,
        };
        write_down(&rig, record, [&one]).await?;
        alone.push(one);
    }
    doom(&rig, &back).await?;
    let since = doom(&rig, &lost).await?;

    let once = config(
        "",
        "configmaps",
        &ns,
        "once",
        &json!({"updateStrategy": {"type": "CreateOnly"}}),
    );
    let all: Vec<Value> = manifests
        .iter()
        .map(|(_, _, manifest)| manifest.clone())
        .collect();
    left_at_hub(
        &rig,
        work_with(&cluster, "app", &all, &json!({"manifestConfigs": [once]})),
    )
    .await?;
    let both = [configmap(&ns, "both", "1"), configmap(&ns, "all", "1")];
    left_at_hub(&rig, work(&cluster, "other", &both)).await?;
    for name in ["back", "strange"] {
        left_at_hub(&rig, work(&cluster, name, &[configmap(&ns, name, "1")])).await?;
    }

    let (hash, agent) = (rig.hash('a'), rig.agent_id());
    rig.run(&hash, &agent, 3600);
    settled(&rig, "before").await?;
    for name in ["app", "other", "back", "strange"] {
        rig.fleet.until_applied(&cluster, name).await?;
    }
    let everything: Vec<&Left> = left
        .iter()
        .chain([&custom])
        .chain(&shared)
        .chain(&alone)
        .collect();
    for one in &everything {
        let now = spoke
            .get(&one.path)
            .await
            .with_context(|| format!("{} is gone", one.path))?;
        assert_eq!(bare(&now), bare(&one.object), "{} was changed", one.path);
    }
    assert_eq!(
        spoke.get(&maps("lost")).await?,
        alone[1].object,
        "what is to be evicted was written"
    );

    let now = async |work: &str| {
        let found = spoke.get(&format!("{APPLIED_WORKS}/{hash}-{work}")).await?;
        anyhow::Ok((found["metadata"]["uid"].clone(), found))
    };
    for (name, before) in [
        ("app", &app),
        ("other", &other),
        ("back", &back),
        ("lost", &lost),
        ("strange", &strange),
    ] {
        let (uid, found) = now(name).await?;
        assert_eq!(uid, before["metadata"]["uid"], "{name}");
        assert_eq!(found["metadata"]["finalizers"], json!([RECORD]), "{name}");
        assert_eq!(found["spec"]["agentID"], agent.as_str(), "{name}");
    }
    // Back in time, it is not evicted; the grace period of the other goes on as it began.
    assert!(now("back").await?.1["status"]["evictionStartTime"].is_null());
    assert_eq!(
        now("lost").await?.1["status"]["evictionStartTime"],
        since.as_str()
    );
    let recorded = applied_resources(&now("app").await?.1);
    for one in left.iter().chain([&custom]).chain(&shared) {
        let uid = &one.object["metadata"]["uid"];
        assert!(
            recorded.iter().any(|r| r["uid"] == *uid),
            "{}: {recorded:?}",
            one.path
        );
    }

    let paths: Vec<String> = everything.iter().map(|one| one.path.clone()).collect();
    let before = versions(&spoke, &paths).await?;
    rig.stop().await?;
    rig.run(&hash, &agent, 3600);
    settled(&rig, "after").await?;
    assert_eq!(
        versions(&spoke, &paths).await?,
        before,
        "a restart wrote something"
    );

    // What two had stays with the second, and goes with it.
    hub.delete(&work_path(&cluster, "app")).await?;
    hub.until_gone(&work_path(&cluster, "app"), SOON).await?;
    // The definition goes as the last, with what is left of its kind.
    let definition = format!("{CRDS}/{crd_name}");
    for gone in [definition, maps("once"), of_apps("daemonsets")] {
        spoke.until_gone(&gone, SOON).await?;
    }
    for stays in ["both", "all", "lost"] {
        spoke.get(&maps(stays)).await.context(stays)?;
    }
    hub.delete(&work_path(&cluster, "other")).await?;
    for gone in ["both", "all"] {
        spoke.until_gone(&maps(gone), SOON).await?;
    }
    spoke.get(&maps("lost")).await?;
    // What was missing at the hub is not removed at once either: somebody says that it may be.
    let path = format!("{APPLIED_WORKS}/{hash}-back");
    let held = "work.muster.open-cluster-management.io/removal-held";
    let found = spoke.get(&path).await?;
    assert!(found["metadata"]["annotations"][held].is_string(), "{found}");
    spoke
        .merge(&path, &json!({"metadata": {"annotations": {held: null}}}))
        .await?;
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
