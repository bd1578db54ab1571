//! What OCM's work/deleteoption shows: objects that works share, and objects that works leave behind.

use super::{applied_work, delete, owners, patch, uid, until_manifest};
use crate::Result;
use muster_tests::Fleet;
use muster_tests::objects::{APPLIED_WORKS, configmap, configmap_path, strategy, work, work_path, work_with};
use muster_tests::wait::SOON;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn orphaned_objects_stay_and_are_free() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke, hub) = (&cluster.name, cluster.namespace(), cluster.kube(), fleet.kube());
    let orphan = json!({"deleteOption": {"propagationPolicy": "Orphan"}});
    fleet
        .create(&work_with(
            name,
            "orphan",
            &[configmap(&ns, "kept", "1")],
            &orphan,
        ))
        .await?;
    let selective = json!({"deleteOption": {"propagationPolicy": "SelectivelyOrphan", "selectivelyOrphans":
        {"orphaningRules": [{"group": "", "resource": "configmaps", "namespace": ns, "name": "chosen"}]}}});
    let manifests = [configmap(&ns, "chosen", "1"), configmap(&ns, "other", "1")];
    fleet
        .create(&work_with(name, "selective", &manifests, &selective))
        .await?;
    for work in ["orphan", "selective"] {
        fleet.until_applied(name, work).await?;
    }
    assert_eq!(owners(&spoke.get(&configmap_path(&ns, "kept")).await?), 0);
    assert_eq!(owners(&spoke.get(&configmap_path(&ns, "other")).await?), 1);
    for work in ["orphan", "selective"] {
        hub.delete(&work_path(name, work)).await?;
        hub.until_gone(&work_path(name, work), SOON).await?;
    }
    spoke.until_gone(&configmap_path(&ns, "other"), SOON).await?;
    for kept in ["kept", "chosen"] {
        let object = spoke.get(&configmap_path(&ns, kept)).await?;
        assert_eq!(owners(&object), 0, "{kept} is still owned");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_two_works_stays_with_the_second() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke, hub) = (&cluster.name, cluster.namespace(), cluster.kube(), fleet.kube());
    for work_name in ["first", "second"] {
        fleet
            .create(&work(name, work_name, &[configmap(&ns, "shared", "1")]))
            .await?;
        fleet.until_applied(name, work_name).await?;
    }
    let path = configmap_path(&ns, "shared");
    let made = spoke.get(&path).await?;
    assert_eq!(owners(&made), 2);
    hub.delete(&work_path(name, "first")).await?;
    hub.until_gone(&work_path(name, "first"), SOON).await?;
    let left = spoke.get(&path).await?;
    assert_eq!((uid(&left), owners(&left)), (uid(&made), 1));
    hub.delete(&work_path(name, "second")).await?;
    hub.until_gone(&work_path(name, "second"), SOON).await?;
    spoke.until_gone(&path, SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_object_stays_when_one_work_lets_it_go() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let path = configmap_path(&ns, "shared");
    for work_name in ["first", "second"] {
        let manifests = [configmap(&ns, "shared", "1"), configmap(&ns, work_name, "1")];
        fleet.create(&work(name, work_name, &manifests)).await?;
        fleet.until_applied(name, work_name).await?;
    }
    let made = spoke.get(&path).await?;
    let recorded = |record: &serde_json::Value| -> Vec<(String, String)> {
        let text = |r: &serde_json::Value, f: &str| r[f].as_str().unwrap_or_default().to_owned();
        let list = record["status"]["appliedResources"]
            .as_array()
            .into_iter()
            .flatten();
        list.map(|r| (text(r, "name"), text(r, "uid"))).collect()
    };
    let shared = ("shared".to_owned(), uid(&made));
    for work_name in ["first", "second"] {
        assert!(recorded(&applied_work(&fleet, 0, work_name).await?).contains(&shared));
    }
    fleet
        .set_manifests(name, "first", &[configmap(&ns, "first", "1")])
        .await?;
    fleet.until_applied(name, "first").await?;
    spoke
        .until(&path, SOON, "it has one owner", |object| {
            let found = object.map_or(0, owners);
            (found == 1)
                .then_some(())
                .ok_or_else(|| format!("{found} owners"))
        })
        .await?;
    let record = applied_work(&fleet, 0, "first").await?;
    let record = format!(
        "{APPLIED_WORKS}/{}",
        record["metadata"]["name"].as_str().unwrap_or_default()
    );
    spoke
        .until(&record, SOON, "it leaves the record", |record| {
            let found = recorded(record.ok_or("the record is gone")?);
            (!found.contains(&shared))
                .then_some(())
                .ok_or_else(|| format!("{found:?}"))
        })
        .await?;
    assert_eq!(uid(&spoke.get(&path).await?), uid(&made));
    assert!(recorded(&applied_work(&fleet, 0, "second").await?).contains(&shared));
    Ok(())
}

/// A reference whose UID ends in `-` takes an owner off, as in OCM: also one that the object was made without.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_with_a_minus_is_taken_off() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let maps = format!("/api/v1/namespaces/{ns}/configmaps");
    let parent = spoke.create(&maps, &configmap(&ns, "parent", "1")).await?;
    let owner = |suffix: &str| {
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "parent",
            "uid": format!("{}{suffix}", uid(&parent))}])
    };
    let mut theirs = configmap(&ns, "there", "1");
    theirs["metadata"]["ownerReferences"] = owner("");
    spoke.create(&maps, &theirs).await?;
    let apply = json!({"manifestConfigs": [strategy("", "configmaps", &ns, "applied", &json!({"type": "ServerSideApply"}))]});
    let manifests = ["there", "made", "applied"].map(|map| {
        let mut map = configmap(&ns, map, "1");
        map["metadata"]["ownerReferences"] = owner("-");
        map
    });
    fleet.create(&work_with(name, "app", &manifests, &apply)).await?;
    fleet.until_applied(name, "app").await?;
    let record = uid(&applied_work(&fleet, 0, "app").await?);
    for map in ["there", "made", "applied"] {
        let object = spoke.get(&configmap_path(&ns, map)).await?;
        let list = &object["metadata"]["ownerReferences"];
        assert_eq!(
            (owners(&object), &list[0]["uid"]),
            (1, &json!(record)),
            "{map}: {list}"
        );
    }
    // The parent's end is nothing to them.
    spoke.delete(&configmap_path(&ns, "parent")).await?;
    spoke.until_gone(&configmap_path(&ns, "parent"), SOON).await?;
    delete(&fleet, name, "app").await
}

/// An object that is to outlive its work does, also where its manifest can not be applied when that is said.
#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_that_can_not_be_applied_stays_all_the_same() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let apply = json!({"manifestConfigs": [strategy("", "configmaps", &ns, "map", &json!({"type": "ServerSideApply"}))]});
    fleet
        .create(&work_with(name, "app", &[configmap(&ns, "map", "1")], &apply))
        .await?;
    fleet.until_applied(name, "app").await?;
    let path = configmap_path(&ns, "map");
    let edit = json!({"data": {"value": "theirs"}});
    spoke
        .merge(&format!("{path}?fieldManager=somebody"), &edit)
        .await?;
    let conflict = ("Applied", "False", "AppliedManifestFailed", "conflict");
    until_manifest(&fleet, name, "app", "map", conflict).await?;
    let orphan = json!({"spec": {"deleteOption": {"propagationPolicy": "Orphan"}}});
    patch(&fleet, name, "app", &orphan).await?;
    spoke
        .until(&path, SOON, "it is free", |object| {
            let found = owners(object.ok_or("it is gone")?);
            (found == 0)
                .then_some(())
                .ok_or_else(|| format!("{found} owners"))
        })
        .await?;
    delete(&fleet, name, "app").await?;
    assert_eq!(spoke.get(&path).await?["data"]["value"], "theirs");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_that_leaves_the_manifests_stays() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let manifests = [
        configmap(&ns, "chosen", "1"),
        configmap(&ns, "other", "1"),
        configmap(&ns, "rest", "1"),
    ];
    fleet
        .create(&work_with(name, "app", &manifests, &selective(&ns)))
        .await?;
    fleet.until_applied(name, "app").await?;
    assert_eq!(owners(&spoke.get(&configmap_path(&ns, "chosen")).await?), 0);
    fleet.set_manifests(name, "app", &manifests[2..]).await?;
    spoke.until_gone(&configmap_path(&ns, "other"), SOON).await?;
    fleet.until_applied(name, "app").await?;
    spoke.get(&configmap_path(&ns, "chosen")).await?;
    Ok(())
}

fn selective(ns: &str) -> serde_json::Value {
    json!({"deleteOption": {"propagationPolicy": "SelectivelyOrphan", "selectivelyOrphans":
        {"orphaningRules": [{"group": "", "resource": "configmaps", "namespace": ns, "name": "chosen"}]}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_orphan_any_more_goes_with_the_work() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let path = configmap_path(&ns, "chosen");
    let owned = |wanted: usize| {
        let (spoke, path) = (spoke.clone(), path.clone());
        async move {
            spoke
                .until(&path, SOON, &format!("{wanted} owners"), |object| {
                    let found = object.map_or(9, owners);
                    (found == wanted).then_some(()).ok_or_else(|| found.to_string())
                })
                .await
        }
    };
    fleet
        .create(&work(name, "app", &[configmap(&ns, "chosen", "1")]))
        .await?;
    fleet.until_applied(name, "app").await?;
    owned(1).await?;
    patch(&fleet, name, "app", &json!({"spec": selective(&ns)})).await?;
    owned(0).await?;
    patch(&fleet, name, "app", &json!({"spec": {"deleteOption": null}})).await?;
    owned(1).await?;
    delete(&fleet, name, "app").await?;
    spoke.until_gone(&path, SOON).await
}
