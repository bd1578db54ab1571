//! What works promise the other side: finalizers, statuses, records, owners, strategies, feedback, rules, and the end.

use super::agents::Maker;
use super::{Cluster, Hub};
use crate::Result;
use muster_crds::constants::{conditions, finalizers};
use muster_tests::objects::{
    APPLIED_WORKS, condition, condition_in, configmap, configmap_path, deployment, deployment_path, feedback,
    has_condition, is_applied, manifest_status, strategy, work_path, work_with, works_path,
};
use muster_tests::wait::SOON;
use serde_json::{Value, json};
use std::time::Duration;

/// The work that is there through most of the test.
const APP: &str = "app";

/// What [`begin`] applies, at a value.
fn manifests(namespace: &str, value: &str) -> Vec<Value> {
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "reader", "namespace": namespace},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]});
    vec![
        configmap(namespace, "settings", value),
        deployment(namespace, "web", 1),
        configmap(namespace, "applied", value),
        configmap(namespace, "once", value),
        configmap(namespace, "read", value),
        configmap(namespace, "left", value),
        role,
    ]
}

fn config(namespace: &str, name: &str, rest: &Value) -> Value {
    let mut config = rest.clone();
    config["resourceIdentifier"] =
        json!({"group": "", "resource": "configmaps", "namespace": namespace, "name": name});
    config
}

fn app(cluster: &Cluster) -> Value {
    let ns = cluster.namespace();
    let well_known = json!([{"type": "WellKnownStatus"}]);
    let value = json!([{"type": "JSONPaths", "jsonPaths": [{"name": "value", "path": ".data.value"}]}]);
    let rules = json!([{"condition": "Settled", "type": "CEL", "celExpressions": ["object.data.value == '2'"],
        "message": "by its value"}]);
    let spec = json!({
        "deleteOption": {"propagationPolicy": "SelectivelyOrphan", "selectivelyOrphans": {"orphaningRules": [
            {"group": "", "resource": "configmaps", "namespace": ns, "name": "left"}]}},
        "manifestConfigs": [
            {"resourceIdentifier": {"group": "apps", "resource": "deployments", "namespace": ns, "name": "web"},
                "feedbackRules": well_known},
            strategy("", "configmaps", &ns, "applied", &json!({"type": "ServerSideApply"})),
            strategy("", "configmaps", &ns, "once", &json!({"type": "CreateOnly"})),
            config(&ns, "settings", &json!({"conditionRules": rules})),
            config(&ns, "read", &json!({"updateStrategy": {"type": "ReadOnly"}, "feedbackRules": value}))]});
    work_with(&cluster.name, APP, &manifests(&ns, "1"), &spec)
}

/// The first work is applied, and told of as OCM's agent tells.
pub async fn begin(hub: &Hub, cluster: &Cluster) -> Result {
    let ns = cluster.namespace();
    let maps = format!("/api/v1/namespaces/{ns}/configmaps");
    cluster
        .kube()
        .create(&maps, &configmap(&ns, "read", "seen"))
        .await?;
    hub.kube.create(&works_path(&cluster.name), &app(cluster)).await?;
    let work = until(hub, cluster, APP, "it is applied and told of", |work| {
        is_applied(Some(work))?;
        match feedback(work, "web", "Replicas") {
            Some(replicas) if replicas == 1 => {}
            other => return Err(format!("replicas: {other:?}")),
        }
        match feedback(work, "read", "value") {
            Some(value) if value == "seen" => {}
            other => return Err(format!("value: {other:?}")),
        }
        match condition(work, "Settled") {
            Some(("False", "by its value")) => Ok(()),
            other => Err(format!("Settled: {other:?}")),
        }
    })
    .await?;
    assert_eq!(work["metadata"]["finalizers"], json!([finalizers::MANIFEST_WORK]));
    for (kind, reason) in [
        (conditions::APPLIED, "AppliedManifestWorkComplete"),
        (conditions::AVAILABLE, "ResourcesAvailable"),
        ("Settled", "ConditionRulesAggregated"),
    ] {
        let list = &work["status"]["conditions"];
        assert_eq!(whole(list, kind)["reason"], reason, "{list}");
        assert_eq!(whole(list, kind)["observedGeneration"], 1, "{list}");
    }
    tells_of_each(&work, &ns);
    keeps_a_record(cluster, &work).await
}

/// The status of each manifest.
fn tells_of_each(work: &Value, namespace: &str) {
    for (ordinal, manifest) in manifests(namespace, "1").iter().enumerate() {
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        let told = manifest_status(work, name).unwrap_or(&Value::Null);
        let version = manifest["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = manifest["kind"].as_str().unwrap_or_default();
        let meta = json!({"ordinal": ordinal, "group": group, "version": version, "kind": kind, "name": name,
            "namespace": namespace, "resource": format!("{}s", kind.to_lowercase())});
        assert_eq!(told["resourceMeta"], meta, "{told}");
        let synced = match name {
            "web" | "read" => "StatusFeedbackSynced",
            _ => "NoStatusFeedbackSynced",
        };
        for (kind, reason) in [
            (conditions::APPLIED, "AppliedManifestComplete"),
            (conditions::AVAILABLE, "ResourceAvailable"),
            (conditions::STATUS_FEEDBACK_SYNCED, synced),
        ] {
            let said = whole(&told["conditions"], kind);
            assert_eq!(said["status"], "True", "{name}: {told}");
            assert_eq!(said["reason"], reason, "{name}: {told}");
        }
    }
}

/// The AppliedManifestWork of the work, and the owner of what it applied.
async fn keeps_a_record(cluster: &Cluster, work: &Value) -> Result {
    let kubeconfig: Value = serde_saphyr::from_str(&std::fs::read_to_string(
        cluster.credentials().join("kubeconfig"),
    )?)?;
    let url = kubeconfig["clusters"][0]["cluster"]["server"].as_str();
    let hash = muster_klusterlet::work::hub_hash(url.unwrap_or_default());
    let path = format!("{APPLIED_WORKS}/{hash}-{APP}");
    let count = work["spec"]["workload"]["manifests"]
        .as_array()
        .map_or(0, Vec::len);
    let what = "all is written down";
    let record = cluster
        .kube()
        .until(&path, SOON, what, |record| {
            let record = record.ok_or("it is not there")?;
            match applied(record).len() {
                written if written == count => Ok(record.clone()),
                written => Err(format!("{written} of {count}: {record}")),
            }
        })
        .await?;
    assert_eq!(
        record["metadata"]["finalizers"],
        json!([finalizers::APPLIED_MANIFEST_WORK])
    );
    let spec = json!({"hubHash": hash, "agentID": cluster.agent, "manifestWorkName": APP});
    assert_eq!(record["spec"], spec);
    let ns = cluster.namespace();
    for (path, owned) in [
        (configmap_path(&ns, "settings"), true),
        (deployment_path(&ns, "web"), true),
        (configmap_path(&ns, "applied"), true),
        (configmap_path(&ns, "once"), true),
        (configmap_path(&ns, "read"), false),
        (configmap_path(&ns, "left"), false),
    ] {
        let object = cluster.kube().get(&path).await?;
        let uid = &object["metadata"]["uid"];
        let written = applied(&record).iter().any(|resource| resource["uid"] == *uid);
        assert!(written, "{path}: {record}");
        let owner = json!([{"apiVersion": "work.open-cluster-management.io/v1", "kind": "AppliedManifestWork",
            "name": record["metadata"]["name"], "uid": record["metadata"]["uid"]}]);
        let owner = if owned { owner } else { Value::Null };
        assert_eq!(object["metadata"]["ownerReferences"], owner, "{path}");
    }
    Ok(())
}

/// The work changes, fails in part, and is deleted.
pub async fn go_on(hub: &Hub, cluster: &Cluster, maker: Maker) -> Result {
    let (ns, kube) = (cluster.namespace(), cluster.kube());
    // Feedback follows.
    let read = configmap_path(&ns, "read");
    kube.merge(&read, &json!({"data": {"value": "changed"}})).await?;
    until(hub, cluster, APP, "feedback follows", |work| {
        match feedback(work, "read", "value") {
            Some(value) if value == "changed" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;

    if maker == Maker::Muster {
        // OCM's agent looks again after minutes.
        let path = configmap_path(&ns, "settings");
        kube.merge(&path, &json!({"data": {"value": "drifted"}})).await?;
        until_value(cluster, "settings", "1").await?;
        let web = deployment_path(&ns, "web");
        let before = kube.get(&web).await?["metadata"]["uid"].clone();
        kube.delete(&web).await?;
        kube.until(&web, SOON, "it is back", |object| {
            let object = object.ok_or("it is not there")?;
            (object["metadata"]["uid"] != before)
                .then_some(())
                .ok_or_else(|| "it is the old one".into())
        })
        .await?;
    }

    // A change, and one manifest less.
    let mut changed = manifests(&ns, "2");
    let gone = changed.pop();
    hub.kube
        .merge(
            &work_path(&cluster.name, APP),
            &json!({"spec": {"workload": {"manifests": changed}}}),
        )
        .await?;
    until_value(cluster, "settings", "2").await?;
    until_value(cluster, "applied", "2").await?;
    let work = until(hub, cluster, APP, "it is applied at its generation", |work| {
        is_applied(Some(work))?;
        match condition(work, "Settled") {
            Some(("True", _)) => Ok(()),
            other => Err(format!("Settled: {other:?}")),
        }
    })
    .await?;
    assert_eq!(
        whole(&work["status"]["conditions"], conditions::APPLIED)["observedGeneration"],
        2
    );
    for (name, value) in [("once", "1"), ("read", "changed")] {
        let object = kube.get(&configmap_path(&ns, name)).await?;
        assert_eq!(object["data"]["value"], value, "{name}");
    }
    let path = muster_tests::deploy::path(&gone.unwrap_or_default())?;
    kube.until_gone(&path, SOON).await?;

    fails_in_part(hub, cluster).await?;
    has_an_executor(hub, cluster).await?;

    let path = work_path(&cluster.name, APP);
    hub.kube.delete(&path).await?;
    hub.kube.until_gone(&path, SOON).await?;
    for gone in ["settings", "applied", "once"] {
        kube.until_gone(&configmap_path(&ns, gone), SOON).await?;
    }
    kube.until_gone(&deployment_path(&ns, "web"), SOON).await?;
    for stays in ["left", "read"] {
        kube.get(&configmap_path(&ns, stays)).await?;
    }
    let left = records(cluster).await?;
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

/// A kind that nobody knows does not keep the rest from being applied.
async fn fails_in_part(hub: &Hub, cluster: &Cluster) -> Result {
    let ns = cluster.namespace();
    let unknown = json!({"apiVersion": "nobody.example.com/v1", "kind": "Unknown",
        "metadata": {"name": "unknown", "namespace": ns}});
    let object = work_with(
        &cluster.name,
        "part",
        &[unknown, configmap(&ns, "part", "1")],
        &json!({}),
    );
    hub.kube.create(&works_path(&cluster.name), &object).await?;
    let work = until(hub, cluster, "part", "it fails in part", |work| {
        has_condition(Some(work), conditions::APPLIED, "False")?;
        let good = manifest_status(work, "part").map(|m| m["conditions"].clone());
        match condition_in(&good.unwrap_or_default(), conditions::APPLIED) {
            Some(("True", _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let reason = whole(&work["status"]["conditions"], conditions::APPLIED)["reason"].clone();
    assert_eq!(reason, "AppliedManifestWorkFailed");
    let bad = work["status"]["resourceStatus"]["manifests"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|manifest| manifest["resourceMeta"]["ordinal"] == 0)
        .cloned()
        .unwrap_or_default();
    let said = whole(&bad["conditions"], conditions::APPLIED);
    assert_eq!(said["reason"], "AppliedManifestFailed", "{bad}");
    until_value(cluster, "part", "1").await?;
    end(hub, cluster, "part").await
}

/// A work on behalf of somebody without rights is not applied.
async fn has_an_executor(hub: &Hub, cluster: &Cluster) -> Result {
    let ns = cluster.namespace();
    let nobody = json!({"executor": {"subject": {"type": "ServiceAccount",
        "serviceAccount": {"namespace": ns, "name": "nobody"}}}});
    let object = work_with(&cluster.name, "behalf", &[configmap(&ns, "behalf", "1")], &nobody);
    hub.kube.create(&works_path(&cluster.name), &object).await?;
    until(hub, cluster, "behalf", "it is not allowed", |work| {
        has_condition(Some(work), conditions::APPLIED, "False")?;
        let told = manifest_status(work, "behalf").map(|m| m["conditions"].clone());
        match condition_in(&told.unwrap_or_default(), conditions::APPLIED) {
            Some(("False", message)) if message.contains("not allowed to apply") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    assert!(
        cluster
            .kube()
            .find(&configmap_path(&ns, "behalf"))
            .await?
            .is_none()
    );
    end(hub, cluster, "behalf").await
}

/// One more work that is applied; where its object is.
pub async fn last(hub: &Hub, cluster: &Cluster, within: Duration) -> anyhow::Result<String> {
    let ns = cluster.namespace();
    let object = work_with(&cluster.name, "last", &[configmap(&ns, "last", "1")], &json!({}));
    hub.kube.create(&works_path(&cluster.name), &object).await?;
    hub.kube
        .until(
            &work_path(&cluster.name, "last"),
            within,
            "the last work is applied",
            is_applied,
        )
        .await?;
    Ok(configmap_path(&ns, "last"))
}

/// The records of this cluster's agents.
pub async fn records(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let mut records = cluster.kube().list(APPLIED_WORKS).await?;
    records.retain(|record| record["spec"]["agentID"] == cluster.agent.as_str());
    Ok(records)
}

/// Deletes a work and waits until it is gone.
pub async fn end(hub: &Hub, cluster: &Cluster, work: &str) -> Result {
    let path = work_path(&cluster.name, work);
    hub.kube.delete(&path).await?;
    hub.kube.until_gone(&path, SOON).await
}

/// Waits for something to be true of a work; the work.
pub async fn until(
    hub: &Hub,
    cluster: &Cluster,
    work: &str,
    what: &str,
    check: impl Fn(&Value) -> std::result::Result<(), String>,
) -> anyhow::Result<Value> {
    let path = work_path(&cluster.name, work);
    hub.kube
        .until(&path, SOON, &format!("work {work}: {what}"), |work| {
            let work = work.ok_or("it is not there")?;
            check(work).map(|()| work.clone())
        })
        .await
}

/// Waits until a ConfigMap on the cluster has this value.
pub async fn until_value(cluster: &Cluster, name: &str, value: &str) -> Result {
    let path = configmap_path(&cluster.namespace(), name);
    let what = format!("{name} is {value}");
    cluster
        .kube()
        .until(&path, SOON, &what, |object| {
            let found = object.map(|object| object["data"]["value"].clone());
            (found == Some(json!(value)))
                .then_some(())
                .ok_or_else(|| format!("{found:?}"))
        })
        .await
}

fn applied(record: &Value) -> &[Value] {
    let list = record["status"]["appliedResources"].as_array();
    list.map_or(&[], Vec::as_slice)
}

/// One condition of a list.
fn whole<'a>(list: &'a Value, kind: &str) -> &'a Value {
    let found = list.as_array().into_iter().flatten().find(|c| c["type"] == kind);
    found.unwrap_or(&Value::Null)
}
