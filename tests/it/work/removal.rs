//! What stands in the way of a removal holds up nothing else, and is told.

use super::{applied_resources, applied_work, delete, until_condition, whole_condition};
use crate::Result;
use muster_tests::objects::{configmap, configmap_path, work, work_path};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, Kube};
use serde_json::json;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

/// Forbids that ConfigMaps named `kept` are deleted in a namespace.
async fn forbid(spoke: &Kube, ns: &str) -> Result {
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": ns},
        "spec": {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                "operations": ["DELETE"], "resources": ["configmaps"]}]},
            "validations": [{"expression": "oldObject.metadata.name != 'kept'", "message": "the house keeps it"}]}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": ns}, "spec": {"policyName": ns, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns}}}}});
    spoke
        .create(&format!("{GROUP}/validatingadmissionpolicies"), &policy)
        .await?;
    spoke
        .create(&format!("{GROUP}/validatingadmissionpolicybindings"), &binding)
        .await?;
    let trial = format!("{}?dryRun=All", configmap_path(ns, "kept"));
    muster_tests::eventually(SOON, "the policy is in force", async || {
        match spoke.delete(&trial).await {
            Err(refused) if refused.message.contains("the house") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn allow(spoke: &Kube, ns: &str) -> Result {
    spoke
        .delete(&format!("{GROUP}/validatingadmissionpolicybindings/{ns}"))
        .await?;
    spoke
        .delete(&format!("{GROUP}/validatingadmissionpolicies/{ns}"))
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_removal_that_is_refused_holds_up_nothing_else() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let map = |map: &str| configmap(&ns, map, "1");
    let path = |map: &str| configmap_path(&ns, map);
    // The refused one is the first of the record.
    let manifests = [map("kept"), map("other"), map("third")];
    fleet.create(&work(name, "app", &manifests)).await?;
    fleet.until_applied(name, "app").await?;
    forbid(&spoke, &ns).await?;

    fleet.set_manifests(name, "app", &[map("new")]).await?;
    for gone in ["other", "third"] {
        spoke.until_gone(&path(gone), SOON).await?;
    }
    let told = "configmaps";
    fleet
        .until_work(name, "app", "what is refused is told", |work| {
            let degraded = whole_condition(&work["status"]["conditions"], "Degraded");
            let right = degraded.0 == "True" && degraded.1 == "RemovalFailed";
            let words = degraded.2.contains(&format!("{told} {ns}/kept: "))
                && degraded.2.contains("the house keeps it");
            (right && words)
                .then_some(())
                .ok_or_else(|| format!("{degraded:?}"))
        })
        .await?;
    muster_tests::eventually(SOON, "what is there is recorded", async || {
        let record = applied_work(&fleet, 0, "app").await.map_err(|e| e.to_string())?;
        let names: Vec<String> = applied_resources(&record)
            .iter()
            .map(|r| r["name"].as_str().unwrap_or_default().to_owned())
            .collect();
        (names == ["kept", "new"])
            .then_some(())
            .ok_or_else(|| format!("{names:?}"))
    })
    .await?;

    fleet.kube().delete(&work_path(name, "app")).await?;
    spoke.until_gone(&path("new"), SOON).await?;
    fleet
        .until_work(name, "app", "what is refused is told", |work| {
            let deleting = whole_condition(&work["status"]["conditions"], "Deleting");
            let words =
                deleting.2.contains(&format!("{ns}/kept: ")) && deleting.2.contains("the house keeps it");
            (deleting.0 == "True" && words)
                .then_some(())
                .ok_or_else(|| format!("{deleting:?}"))
        })
        .await?;
    allow(&spoke, &ns).await?;
    fleet.kube().until_gone(&work_path(name, "app"), SOON).await?;
    spoke.until_gone(&path("kept"), SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_is_allowed_at_last_is_told_no_more() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let manifests = [configmap(&ns, "kept", "1"), configmap(&ns, "new", "1")];
    fleet.create(&work(name, "app", &manifests)).await?;
    fleet.until_applied(name, "app").await?;
    forbid(&spoke, &ns).await?;
    fleet.set_manifests(name, "app", &manifests[1..]).await?;
    until_condition(&fleet, name, "app", "Degraded", "True").await?;
    allow(&spoke, &ns).await?;
    spoke.until_gone(&configmap_path(&ns, "kept"), SOON).await?;
    until_condition(&fleet, name, "app", "Degraded", "False").await?;
    delete(&fleet, name, "app").await
}
