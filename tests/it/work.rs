//! ManifestWorks on the managed cluster: strategies, order, feedback, drift, ownership, deletion.

use crate::Result;
use anyhow::Context as _;
use muster_tests::control_plane::is_embedded;
use muster_tests::objects::{
    APPLIED_WORKS, condition_in, configmap, configmap_path, deployment, deployment_path, feedback,
    manifest_status, namespace, strategy, work, work_path, work_with,
};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, Kube};
use serde_json::{Value, json};

/// Waits until a ConfigMap has this value.
async fn until_value(kube: &Kube, namespace: &str, name: &str, value: &str) -> Result {
    kube.until(
        &configmap_path(namespace, name),
        SOON,
        &format!("{name} has value {value}"),
        |object| match object {
            Some(object) if object["data"]["value"] == value => Ok(()),
            Some(object) => Err(format!("data is {}", object["data"])),
            None => Err("it is not there".into()),
        },
    )
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

#[tokio::test(flavor = "multi_thread")]
async fn update_makes_objects_as_the_work_says_and_follows_it() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let mut first = configmap(&ns, "settings", "1");
    first["data"]["extra"] = json!("goes with the next version");
    fleet
        .create(&work(name, "app", &[first, deployment(&ns, "web", 2)]))
        .await?;
    fleet.until_applied(name, "app").await?;
    let made = spoke.get(&deployment_path(&ns, "web")).await?;
    assert_eq!(made["spec"]["replicas"], 2);
    assert_eq!(owners(&made), 1);

    fleet
        .set_manifests(
            name,
            "app",
            &[configmap(&ns, "settings", "2"), deployment(&ns, "web", 3)],
        )
        .await?;
    let applied = fleet.until_applied(name, "app").await?;
    let settings = spoke.get(&configmap_path(&ns, "settings")).await?;
    assert_eq!(settings["data"], json!({"value": "2"}));
    let web = spoke.get(&deployment_path(&ns, "web")).await?;
    assert_eq!(web["spec"]["replicas"], 3);
    assert_eq!(uid(&web), uid(&made), "it was replaced instead of updated");
    let ordinals: Vec<_> = applied["status"]["resourceStatus"]["manifests"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|m| {
            (
                m["resourceMeta"]["ordinal"].clone(),
                m["resourceMeta"]["name"].clone(),
            )
        })
        .collect();
    assert_eq!(
        ordinals,
        [(json!(0), json!("settings")), (json!(1), json!("web"))]
    );

    // What is no longer in the work goes, the rest stays.
    fleet
        .set_manifests(name, "app", &[deployment(&ns, "web", 3)])
        .await?;
    spoke.until_gone(&configmap_path(&ns, "settings"), SOON).await?;
    assert_eq!(uid(&spoke.get(&deployment_path(&ns, "web")).await?), uid(&made));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_only_and_read_only_leave_objects_alone() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let there = spoke
        .create(
            &format!("/api/v1/namespaces/{ns}/configmaps"),
            &configmap(&ns, "theirs", "a"),
        )
        .await?;
    let manifests = |value: &str| {
        [
            configmap(&ns, "once", value),
            configmap(&ns, "theirs", value),
            configmap(&ns, "ours", value),
        ]
    };
    let configs = json!({"manifestConfigs": [
        strategy("", "configmaps", &ns, "once", &json!({"type": "CreateOnly"})),
        {"resourceIdentifier": {"group": "", "resource": "configmaps", "namespace": ns, "name": "theirs"},
         "updateStrategy": {"type": "ReadOnly"},
         "feedbackRules": [{"type": "JSONPaths", "jsonPaths": [{"name": "value", "path": ".data.value"}]}]},
    ]});
    fleet
        .create(&work_with(name, "app", &manifests("1"), &configs))
        .await?;
    fleet.until_applied(name, "app").await?;
    until_value(&spoke, &ns, "once", "1").await?;
    fleet.set_manifests(name, "app", &manifests("2")).await?;
    fleet.until_applied(name, "app").await?;
    until_value(&spoke, &ns, "ours", "2").await?;
    until_value(&spoke, &ns, "once", "1").await?;
    let theirs = spoke.get(&configmap_path(&ns, "theirs")).await?;
    assert_eq!(
        theirs["metadata"]["resourceVersion"], there["metadata"]["resourceVersion"],
        "a ReadOnly object was written"
    );

    // It is read all the same, also what becomes of it later.
    spoke
        .merge(&configmap_path(&ns, "theirs"), &json!({"data": {"value": "b"}}))
        .await?;
    let value = |work: &Value| feedback(work, "theirs", "value");
    fleet
        .until_work(name, "app", "feedback of a ReadOnly object", |work| {
            match value(work) {
                Some(found) if found == "b" => Ok(()),
                other => Err(format!("feedback is {other:?}")),
            }
        })
        .await?;

    fleet.kube().delete(&work_path(name, "app")).await?;
    fleet.kube().until_gone(&work_path(name, "app"), SOON).await?;
    spoke.until_gone(&configmap_path(&ns, "once"), SOON).await?;
    spoke.get(&configmap_path(&ns, "theirs")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply_respects_other_managers_until_forced() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let ssa = |force: bool| {
        let one = |object: &str| {
            strategy(
                "",
                "configmaps",
                &ns,
                object,
                &json!({"type": "ServerSideApply", "serverSideApply": {"force": force}}),
            )
        };
        json!({"manifestConfigs": [one("free"), one("held")]})
    };
    spoke
        .apply(
            &configmap_path(&ns, "held"),
            "somebody",
            false,
            &configmap(&ns, "held", "theirs"),
        )
        .await?;
    let manifests = [configmap(&ns, "free", "ours"), configmap(&ns, "held", "ours")];
    fleet
        .create(&work_with(name, "app", &manifests, &ssa(false)))
        .await?;
    let conflict = fleet
        .until_work(name, "app", "the conflict is told", |work| {
            let status = manifest_status(work, "held").ok_or("no status of it")?;
            match condition_in(&status["conditions"], "Applied") {
                Some(("False", message)) if message.contains("somebody") => Ok(()),
                other => Err(format!("Applied is {other:?}")),
            }
        })
        .await?;
    let free = manifest_status(&conflict, "free").context("no status of the neighbour")?;
    assert_eq!(
        condition_in(&free["conditions"], "Applied").map(|c| c.0),
        Some("True")
    );
    until_value(&spoke, &ns, "held", "theirs").await?;
    let object = spoke.get(&configmap_path(&ns, "free")).await?;
    let managers = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert!(
        managers
            .iter()
            .any(|m| m["manager"] == "work-agent" && m["operation"] == "Apply"),
        "{managers:?}"
    );

    fleet
        .kube()
        .merge(&work_path(name, "app"), &json!({"spec": ssa(true)}))
        .await?;
    fleet.until_applied(name, "app").await?;
    until_value(&spoke, &ns, "held", "ours").await
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_applied_in_the_order_that_kinds_need() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let new = format!("new-{}", cluster.name);
    let group = "example.com";
    let plural = format!("things{}", cluster.name.replace('-', ""));
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced",
            "names": {"plural": plural, "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
                    "properties": {"size": {"type": "integer"}}}}}}}]}});
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "one", "namespace": new},
        "spec": {"size": 1}});
    // Each needs one that comes after it.
    let manifests = [
        thing,
        deployment(&new, "web", 1),
        configmap(&new, "settings", "1"),
        crd,
        namespace(&new),
    ];
    fleet.create(&work(&cluster.name, "all", &manifests)).await?;
    fleet.until_applied(&cluster.name, "all").await?;
    let path = format!("/apis/example.com/v1/namespaces/{new}/{plural}/one");
    assert_eq!(cluster.kube().get(&path).await?["spec"]["size"], 1);

    // The CR is watched like anything else: an edit is taken back.
    cluster.kube().merge(&path, &json!({"spec": {"size": 7}})).await?;
    cluster
        .kube()
        .until(&path, SOON, "the edit is taken back", |thing| {
            let size = thing.map(|thing| thing["spec"]["size"].clone());
            (size == Some(json!(1)))
                .then_some(())
                .ok_or_else(|| format!("size is {size:?}"))
        })
        .await?;

    fleet.kube().delete(&work_path(&cluster.name, "all")).await?;
    fleet
        .kube()
        .until_gone(&work_path(&cluster.name, "all"), SOON)
        .await?;
    cluster
        .kube()
        .until_gone(&format!("{}/{plural}.{group}", muster_tests::objects::CRDS), SOON)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_repaired() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    fleet
        .create(&work(
            name,
            "app",
            &[configmap(&ns, "settings", "1"), deployment(&ns, "web", 2)],
        ))
        .await?;
    fleet.until_applied(name, "app").await?;
    let path = configmap_path(&ns, "settings");

    spoke.merge(&path, &json!({"data": {"value": "edited"}})).await?;
    until_value(&spoke, &ns, "settings", "1")
        .await
        .context("an edit")?;

    spoke.merge(&path, &json!({"data": {"added": "x"}})).await?;
    spoke
        .until(&path, SOON, "an added key goes", |object| {
            let data = object.map(|object| object["data"].clone());
            (data == Some(json!({"value": "1"})))
                .then_some(())
                .ok_or_else(|| format!("data is {data:?}"))
        })
        .await?;

    // What others put into metadata is theirs; what the klusterlet put there comes back.
    let strip = json!({"metadata": {"labels": {"theirs": "stays", "muster.open-cluster-management.io/applied": null},
        "ownerReferences": null}});
    spoke.merge(&path, &strip).await?;
    spoke
        .until(&path, SOON, "owner and label come back", |object| {
            let meta = &object.ok_or("it is not there")?["metadata"];
            let marked = meta["labels"]["muster.open-cluster-management.io/applied"].is_string();
            let owned = meta["ownerReferences"].as_array().is_some_and(|o| o.len() == 1);
            (marked && owned).then_some(()).ok_or_else(|| meta.to_string())
        })
        .await?;
    assert_eq!(spoke.get(&path).await?["metadata"]["labels"]["theirs"], "stays");

    for path in [path, deployment_path(&ns, "web")] {
        let old = uid(&spoke.get(&path).await?);
        spoke.delete(&path).await?;
        spoke
            .until(
                &path,
                SOON,
                "a deleted object comes back",
                |object| match object {
                    Some(object) if uid(object) != old => Ok(()),
                    Some(_) => Err("it is still the old one".into()),
                    None => Err("it is not there".into()),
                },
            )
            .await?;
    }
    spoke
        .merge(&deployment_path(&ns, "web"), &json!({"spec": {"replicas": 9}}))
        .await?;
    spoke
        .until(
            &deployment_path(&ns, "web"),
            SOON,
            "scaling by hand is taken back",
            |object| {
                let replicas = object.map(|object| object["spec"]["replicas"].clone());
                (replicas == Some(json!(2)))
                    .then_some(())
                    .ok_or_else(|| format!("replicas: {replicas:?}"))
            },
        )
        .await?;
    fleet.until_applied(name, "app").await?;
    Ok(())
}

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
async fn deletion_waits_for_finalizers_and_says_so() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke, hub) = (&cluster.name, cluster.namespace(), cluster.kube(), fleet.kube());
    let mut held = configmap(&ns, "held", "1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    fleet
        .create(&work(name, "app", &[held, configmap(&ns, "free", "1")]))
        .await?;
    fleet.until_applied(name, "app").await?;
    hub.delete(&work_path(name, "app")).await?;
    fleet
        .until_work(
            name,
            "app",
            "it says that it is being deleted",
            |work| match condition_in(&work["status"]["conditions"], "Deleting") {
                Some(("True", _)) => Ok(()),
                other => Err(format!("Deleting is {other:?}")),
            },
        )
        .await?;
    spoke.until_gone(&configmap_path(&ns, "free"), SOON).await?;
    hub.get(&work_path(name, "app"))
        .await
        .context("the work is gone before its objects")?;
    spoke
        .merge(
            &configmap_path(&ns, "held"),
            &json!({"metadata": {"finalizers": null}}),
        )
        .await?;
    hub.until_gone(&work_path(name, "app"), SOON).await?;
    spoke.until_gone(&configmap_path(&ns, "held"), SOON).await?;
    let left = spoke.list(APPLIED_WORKS).await?;
    let mine = left
        .iter()
        .filter(|a| a["spec"]["agentID"] == cluster.options.agent_id.as_deref().unwrap_or_default());
    assert_eq!(mine.count(), 0, "an AppliedManifestWork is left");
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
async fn feedback_by_path_follows_the_object() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    let rules = json!({"manifestConfigs": [{
        "resourceIdentifier": {"group": "", "resource": "configmaps", "namespace": ns, "name": "*"},
        "feedbackRules": [{"type": "JSONPaths", "jsonPaths": [
            {"name": "value", "path": ".data.value"}, {"name": "label", "path": ".metadata.labels.stage"},
            {"name": "missing", "path": ".data.nothing"}]}]}]});
    let mut map = configmap(&ns, "settings", "1");
    map["metadata"]["labels"] = json!({"stage": "test"});
    fleet
        .create(&work_with(name, "app", &[map.clone()], &rules))
        .await?;
    let values = |work: &Value| ["value", "label", "missing"].map(|v| feedback(work, "settings", v));
    for expected in ["1", "2"] {
        map["data"]["value"] = json!(expected);
        fleet.set_manifests(name, "app", &[map.clone()]).await?;
        fleet
            .until_work(name, "app", "feedback is there", |work| {
                let found = values(work);
                if found == [Some(json!(expected)), Some(json!("test")), None] {
                    Ok(())
                } else {
                    Err(format!("feedback is {found:?}"))
                }
            })
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn well_known_feedback_of_a_running_deployment() -> Result {
    if !is_embedded() {
        eprintln!("skipped: needs nodes, simulated ones are embedded only");
        return Ok(());
    }
    let fleet = Fleet::start(FleetOptions {
        nodes: 2,
        ..FleetOptions::default()
    })
    .await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    let rules = json!({"manifestConfigs": [{
        "resourceIdentifier": {"group": "apps", "resource": "deployments", "namespace": ns, "name": "web"},
        "feedbackRules": [{"type": "WellKnownStatus"}]}]});
    fleet.until_available().await?;
    fleet
        .create(&work_with(name, "app", &[deployment(&ns, "web", 2)], &rules))
        .await?;
    for replicas in [2, 3] {
        fleet
            .set_manifests(name, "app", &[deployment(&ns, "web", replicas)])
            .await?;
        fleet
            .until_work(name, "app", "the Deployment's replicas are reported", |work| {
                let found =
                    ["ReadyReplicas", "Replicas", "AvailableReplicas"].map(|v| feedback(work, "web", v));
                if found.iter().all(|v| *v == Some(json!(replicas))) {
                    Ok(())
                } else {
                    Err(format!("{found:?}"))
                }
            })
            .await?;
    }
    Ok(())
}
