//! What others made, copied, hold or take away: it is left to them, put back, or told.

use super::{
    definition, delete, manifest_condition, owners, uid, until_condition, until_field, until_manifest,
};
use crate::Result;
use anyhow::Context as _;
use muster_tests::Fleet;
use muster_tests::objects::{configmap, configmap_path, work};
use muster_tests::wait::SOON;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_has_more_than_its_manifest_is_not_taken_over_as_it_is() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let collection = format!("/api/v1/namespaces/{ns}/configmaps");
    let mut more = configmap(&ns, "more", "1");
    more["data"]["theirs"] = "stays".into();
    let before = spoke.create(&collection, &more).await?;
    // What the server fills in beside the manifest is nothing that would change.
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": ns},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let services = format!("/api/v1/namespaces/{ns}/services");
    let served = spoke.create(&services, &service).await?;
    let mut app = work(name, "app", &[configmap(&ns, "more", "1"), service]);
    app["metadata"]["annotations"] = json!({"work.muster.open-cluster-management.io/take-over": "IfNoDiff"});
    fleet.create(&app).await?;
    let told = ("Applied", "False", "NotTakenOver", "data.theirs is \"stays\"");
    until_manifest(&fleet, name, "app", "more", told).await?;
    let told = ("Applied", "True", "AppliedManifestComplete", "");
    until_manifest(&fleet, name, "app", "web", told).await?;
    assert_eq!(spoke.get(&configmap_path(&ns, "more")).await?, before);
    let taken = spoke.get(&format!("{services}/web")).await?;
    assert_eq!((&taken["spec"], owners(&taken)), (&served["spec"], 1));
    delete(&fleet, name, "app").await?;
    assert_eq!(spoke.get(&configmap_path(&ns, "more")).await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_an_object_is_whoevers_made_it() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    fleet
        .create(&work(name, "app", &[configmap(&ns, "settings", "1")]))
        .await?;
    fleet.until_applied(name, "app").await?;
    let original = spoke.get(&configmap_path(&ns, "settings")).await?;
    let mut copy = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "copy", "namespace": ns},
        "data": {"value": "1"}});
    for field in ["labels", "ownerReferences"] {
        copy["metadata"][field] = original["metadata"][field].clone();
    }
    let made = spoke
        .create(
            &format!("/api/v1/namespaces/{ns}/configmaps?fieldManager=kubectl-create"),
            &copy,
        )
        .await?;
    // The work is looked at again, and what it does not have any more goes.
    fleet
        .set_manifests(name, "app", &[configmap(&ns, "other", "1")])
        .await?;
    spoke.until_gone(&configmap_path(&ns, "settings"), SOON).await?;
    fleet.until_applied(name, "app").await?;
    let left = spoke.get(&configmap_path(&ns, "copy")).await?;
    assert_eq!(uid(&left), uid(&made));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fight_by_deletion_is_noticed_too() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let applied = configmap(&ns, "applied", "1");
    let mut app = work(name, "app", &[configmap(&ns, "settings", "1"), applied]);
    app["spec"]["manifestConfigs"] = json!([super::config(
        "",
        "configmaps",
        &ns,
        "applied",
        &json!({"updateStrategy": {"type": "ServerSideApply"}})
    )]);
    fleet.create(&app).await?;
    fleet.until_applied(name, "app").await?;
    for object in ["settings", "applied"] {
        let path = configmap_path(&ns, object);
        for round in 0..=100 {
            spoke
                .until_there(&path, SOON)
                .await
                .with_context(|| format!("round {round}"))?;
            spoke.delete(&path).await?;
        }
        let told = ("Degraded", "True", "Contended", "keeps deleting the object");
        let found = until_manifest(&fleet, name, "app", object, told).await?;
        let (status, reason, _) = manifest_condition(&found, object, "Available");
        assert!(
            status == "False" || reason == "ResourceAvailable",
            "{status} {reason}"
        );
    }
    // The other gives up.
    for object in ["settings", "applied"] {
        spoke.until_there(&configmap_path(&ns, object), SOON).await?;
    }
    until_condition(&fleet, name, "app", "Degraded", "False").await?;
    fleet.until_applied(name, "app").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_empty_in_a_custom_resource_comes_back() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let (crd, path) = definition("empties", "Empty", &ns);
    spoke.ensure(muster_tests::objects::CRDS, &crd).await?;
    cluster.plane.until_served("empties.empties.example.com").await?;
    let spec = json!({"selfSigned": {}, "deep": {"x": {"y": {}}}, "list": []});
    let custom = |object: &str| {
        json!({"apiVersion": "empties.example.com/v1", "kind": "Empty",
        "metadata": {"name": object, "namespace": ns}, "spec": spec})
    };
    let mut app = work(name, "app", &[custom("updated"), custom("applied")]);
    app["spec"]["manifestConfigs"] = json!([super::config(
        "empties.example.com",
        "empties",
        &ns,
        "applied",
        &json!({"updateStrategy": {"type": "ServerSideApply", "serverSideApply": {"force": true}}})
    )]);
    fleet.create(&app).await?;
    fleet.until_applied(name, "app").await?;
    let remove = |pointer: &str| json!({"spec": {pointer: null}});
    for object in ["updated", "applied"] {
        let path = format!("{path}/{object}");
        for edit in [
            remove("selfSigned"),
            remove("list"),
            json!({"spec": {"deep": {"x": {"y": null}}}}),
        ] {
            spoke
                .merge(&format!("{path}?fieldManager=somebody"), &edit)
                .await?;
            until_field(&spoke, &path, "/spec", &spec)
                .await
                .with_context(|| format!("{object} {edit}"))?;
        }
    }
    for added in [json!({}), json!([])] {
        let path = format!("{path}/updated");
        let edit = json!({"spec": {"extra": added}});
        spoke
            .merge(&format!("{path}?fieldManager=somebody"), &edit)
            .await?;
        until_field(&spoke, &path, "/spec", &spec)
            .await
            .with_context(|| edit.to_string())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_are_left_to_those_that_take_them_off() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let mut held = configmap(&ns, "held", "1");
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    fleet.create(&work(name, "app", &[held])).await?;
    fleet.until_applied(name, "app").await?;
    let path = configmap_path(&ns, "held");
    let made = spoke.get(&path).await?;
    assert_eq!(made["metadata"]["finalizers"], json!(["example.com/held"]));
    let off = json!({"metadata": {"finalizers": null}, "data": {"value": "edited"}});
    spoke.merge(&path, &off).await?;
    until_field(&spoke, &path, "/data/value", &json!("1")).await?;
    let left = spoke.get(&path).await?["metadata"]["finalizers"].clone();
    assert_eq!(left, Value::Null);
    delete(&fleet, name, "app").await?;
    spoke.until_gone(&path, SOON).await
}
