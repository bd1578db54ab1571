//! What `deploy/` brings: objects that API servers take, and rights that are enough, and no more than is said.

use crate::Result;
use muster_hub::Feature;
use muster_tests::control_plane::{ControlPlane, Role};
use muster_tests::objects::{self, cluster_path, configmap, configmap_path, work};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, deploy};
use serde_json::{Value, json};

#[tokio::test]
async fn what_is_to_be_deployed_is_taken() -> Result {
    let plane = ControlPlane::start("deploy", Role::Hub).await?;
    for folder in ["hub", "klusterlet"] {
        let objects = deploy::objects(folder)?;
        assert!(objects.len() > 4, "{folder} has only {} objects", objects.len());
        deploy::apply(&plane.kube(), &objects).await?;
        // Nothing of it is dropped, or read as something else.
        for object in objects {
            let path = deploy::path(&object)?;
            let there = plane.kube().get(&path).await?;
            // Filled by the server.
            if object.get("aggregationRule").is_none() {
                contains(&there, &object, &path);
            }
        }
    }
    Ok(())
}

/// That `there` has everything of `wanted`.
fn contains(there: &Value, wanted: &Value, at: &str) {
    match wanted {
        Value::Object(fields) => {
            for (key, value) in fields {
                contains(&there[key], value, &format!("{at}.{key}"));
            }
        }
        Value::Array(items) => {
            assert_eq!(there.as_array().map(Vec::len), Some(items.len()), "{at}: {there}");
            for (index, value) in items.iter().enumerate() {
                contains(&there[index], value, &format!("{at}[{index}]"));
            }
        }
        other => assert_eq!(there, other, "{at}"),
    }
}

/// A whole life of a cluster, with exactly the rights of `deploy/` on both sides.
#[tokio::test(flavor = "multi_thread")]
async fn the_rights_are_enough_to_join_work_and_leave() -> Result {
    let fleet = Fleet::start(FleetOptions {
        deployed: true,
        gates: vec![
            Feature::ClusterProfile,
            Feature::CleanUpCompletedManifestWork,
            Feature::ManifestWorkReplicaSet,
        ],
        ..FleetOptions::default()
    })
    .await?;
    fleet.until_available().await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (cluster.name.clone(), cluster.namespace());
    let hub = fleet.kube();

    // A join token is read and counted.
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    assert!(
        hub.list(secrets)
            .await?
            .iter()
            .any(|secret| secret["type"] == "bootstrap.kubernetes.io/token")
    );

    // Work: applied, repaired, taken away. A namespace and a role are more than the built-in role admin allows.
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "reader", "namespace": ns},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]});
    let manifests = [configmap(&ns, "app", "1"), role];
    fleet.create(&work(&name, "app", &manifests)).await?;
    fleet.until_applied(&name, "app").await?;
    let path = configmap_path(&ns, "app");
    cluster.kube().delete(&path).await?;
    cluster.kube().until_there(&path, SOON).await?;
    hub.delete(&objects::work_path(&name, "app")).await?;
    cluster.kube().until_gone(&path, SOON).await?;

    // A replica set, and its end.
    replica_set(&fleet, &name, &ns).await?;

    // Sets and profiles.
    let binding = json!({"apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSetBinding",
        "metadata": {"name": "global", "namespace": "default"}, "spec": {"clusterSet": "global"}});
    let bindings =
        "/apis/cluster.open-cluster-management.io/v1beta2/namespaces/default/managedclustersetbindings";
    hub.ensure(bindings, &binding).await?;
    let profile = format!("/apis/multicluster.x-k8s.io/v1alpha1/namespaces/default/clusterprofiles/{name}");
    hub.until(&profile, SOON, "its profile tells of it", |profile| {
        objects::has_condition(profile, "Joined", "True")
    })
    .await?;

    // Denied, let in again, gone.
    let path = cluster_path(&name);
    hub.merge(&path, &json!({"spec": {"hubAcceptsClient": false}}))
        .await?;
    fleet
        .until_condition(&name, "HubAcceptedManagedCluster", "False")
        .await?;
    hub.merge(&path, &json!({"spec": {"hubAcceptsClient": true}}))
        .await?;
    fleet
        .until_condition(&name, "HubAcceptedManagedCluster", "True")
        .await?;
    fleet
        .create(&work(&name, "last", &[configmap(&ns, "last", "1")]))
        .await?;
    fleet.until_applied(&name, "last").await?;
    hub.delete(&path).await?;
    hub.until_gone(&path, SOON).await?;
    cluster
        .kube()
        .until_gone(&configmap_path(&ns, "last"), SOON)
        .await?;
    hub.until_gone(&profile, SOON).await?;
    hub.delete(&format!("{bindings}/global")).await?;
    Ok(())
}

async fn replica_set(fleet: &Fleet, cluster: &str, ns: &str) -> Result {
    let hub = fleet.kube();
    fleet
        .hub
        .plane
        .until_served("manifestworkreplicasets.work.open-cluster-management.io")
        .await?;
    // Nobody else's, also on a shared server.
    let placement = format!("of-{cluster}");
    let root = "/apis/cluster.open-cluster-management.io/v1beta1/namespaces/default";
    hub.create(
        &format!("{root}/placements"),
        &json!({"apiVersion": "cluster.open-cluster-management.io/v1beta1", "kind": "Placement",
            "metadata": {"name": placement}, "spec": {}}),
    )
    .await?;
    let decision = json!({"apiVersion": "cluster.open-cluster-management.io/v1beta1", "kind": "PlacementDecision",
        "metadata": {"name": placement, "labels": {"cluster.open-cluster-management.io/placement": placement}}});
    hub.create(&format!("{root}/placementdecisions"), &decision)
        .await?;
    let decisions = json!({"status": {"decisions": [{"clusterName": cluster, "reason": ""}]}});
    let path = format!("{root}/placementdecisions/{placement}/status");
    hub.merge(&path, &decisions).await?;
    let sets = "/apis/work.open-cluster-management.io/v1alpha1/namespaces/default/manifestworkreplicasets";
    let mut set = json!({"apiVersion": "work.open-cluster-management.io/v1alpha1", "kind": "ManifestWorkReplicaSet",
        "metadata": {"name": placement},
        "spec": {"placementRefs": [{"name": placement}], "cascadeDeletionPolicy": "Foreground",
            "manifestWorkTemplate": {"workload": {"manifests": [configmap(ns, "many", "1")]}}}});
    hub.create(sets, &set).await?;
    let path = format!("{sets}/{placement}");
    let done = async |hub: &muster_tests::Kube| {
        hub.until(&path, SOON, "its work is done", |set| {
            objects::has_condition(set, "PlacementRolledOut", "True")
        })
        .await
    };
    done(&hub).await?;
    set["spec"]["manifestWorkTemplate"]["workload"]["manifests"][0]["data"]["value"] = "2".into();
    let template = json!({"spec": {"manifestWorkTemplate": set["spec"]["manifestWorkTemplate"]}});
    hub.merge(&path, &template).await?;
    done(&hub).await?;
    hub.delete(&path).await?;
    hub.until_gone(&path, SOON).await?;
    hub.delete(&format!("{root}/placementdecisions/{placement}"))
        .await?;
    hub.delete(&format!("{root}/placements/{placement}")).await?;
    Ok(())
}

/// What nobody should find in these roles.
#[tokio::test]
async fn the_rights_are_named() -> Result {
    for object in deploy::objects("hub")?
        .into_iter()
        .chain(deploy::objects("klusterlet")?)
    {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let everywhere = object["kind"] == "ClusterRole";
        for rule in object["rules"].as_array().into_iter().flatten() {
            let has = |field: &str, value: &str| {
                rule[field]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|one| one == value)
            };
            for field in ["apiGroups", "resources", "verbs", "nonResourceURLs"] {
                assert!(!has(field, "*"), "{name}: {rule}");
            }
            assert!(
                !(everywhere && has("resources", "secrets")),
                "{name} reads every Secret: {rule}"
            );
            // Works may make roles: that is what this one role is for, and it can be left out.
            let gives = has("verbs", "escalate") || has("verbs", "bind");
            assert!(!gives || name == "muster-klusterlet-execution", "{name}: {rule}");
            assert!(
                !has("verbs", "impersonate") || has("resources", "serviceaccounts"),
                "{name}: {rule}"
            );
        }
    }
    Ok(())
}
