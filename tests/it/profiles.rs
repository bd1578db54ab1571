//! ClusterProfiles (gate ClusterProfile): where clusters have one, and what it tells.

use crate::Result;
use muster_hub::Feature;
use muster_tests::objects::{self, cluster_path};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, Kube};
use serde_json::{Value, json};

const SETS: &str = "/apis/cluster.open-cluster-management.io/v1beta2/managedclustersets";

/// Names that are nobody else's, also on a shared API server.
struct Names(u32);

impl Names {
    fn of(&self, what: &str) -> String {
        format!("{what}-{:08x}", self.0)
    }
}

fn profiles(namespace: &str) -> String {
    format!("/apis/multicluster.x-k8s.io/v1alpha1/namespaces/{namespace}/clusterprofiles")
}

fn bindings(namespace: &str) -> String {
    format!(
        "/apis/cluster.open-cluster-management.io/v1beta2/namespaces/{namespace}/managedclustersetbindings"
    )
}

async fn set(kube: &Kube, name: &str, selector: Value) -> Result {
    let set = json!({"apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSet",
        "metadata": {"name": name}, "spec": {"clusterSelector": selector}});
    kube.create(SETS, &set).await?;
    Ok(())
}

async fn bind(kube: &Kube, namespace: &str, set: &str) -> Result {
    let binding = json!({"apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSetBinding",
        "metadata": {"name": set}, "spec": {"clusterSet": set}});
    kube.create(&bindings(namespace), &binding).await?;
    Ok(())
}

async fn cluster(kube: &Kube, name: &str, labels: Value) -> Result {
    let cluster = json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {"name": name, "labels": labels}, "spec": {}});
    kube.create(objects::CLUSTERS, &cluster).await?;
    Ok(())
}

/// Waits until a namespace has profiles of exactly these clusters.
async fn until_profiles(kube: &Kube, namespace: &str, wanted: &[&str]) -> Result {
    let mut wanted: Vec<&str> = wanted.to_vec();
    wanted.sort_unstable();
    let what = format!("{namespace} has profiles of {wanted:?}");
    kube.until_all(&profiles(namespace), SOON, &what, |found| {
        let found: Vec<&str> = found.keys().map(|(_, name)| name.as_str()).collect();
        if found == wanted {
            Ok(())
        } else {
            Err(format!("it has {found:?}"))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_have_profiles_where_their_sets_are_bound() -> Result {
    let fleet = Fleet::prepare(FleetOptions {
        clusters: 0,
        gates: vec![Feature::ClusterProfile],
        ..FleetOptions::default()
    })
    .await?;
    fleet
        .hub
        .plane
        .until_served("clusterprofiles.multicluster.x-k8s.io")
        .await?;
    let kube = fleet.kube();
    let names = Names(rand::random());
    let (one, two) = (names.of("one"), names.of("two"));
    for namespace in [&one, &two] {
        kube.create("/api/v1/namespaces", &objects::namespace(namespace))
            .await?;
    }
    let (prod, dev, lab) = (names.of("prod"), names.of("dev"), names.of("lab"));
    let by_label = |expression: Value| json!({"selectorType": "LabelSelector", "labelSelector": {"matchExpressions": [expression]}});
    let team = names.of("team");
    let by_env = |set: &str, values: &[&str]| {
        (
            names.of(set),
            by_label(json!({"key": names.of("env"), "operator": "In", "values": values})),
        )
    };
    set(&kube, &team, json!({"selectorType": "ExclusiveClusterSetLabel"})).await?;
    let (both, both_selector) = by_env("both", &["prod", "dev"]);
    let (only, only_selector) = by_env("only", &["prod"]);
    set(&kube, &both, both_selector).await?;
    set(&kube, &only, only_selector).await?;
    let env = |value: &str| json!({names.of("env"): value});
    cluster(
        &kube,
        &prod,
        json!({names.of("env"): "prod", "cluster.open-cluster-management.io/clusterset": team}),
    )
    .await?;
    cluster(&kube, &dev, env("dev")).await?;
    cluster(&kube, &lab, env("lab")).await?;

    // Several namespaces; by label and by expressions; in several sets and yet once.
    bind(&kube, &one, &team).await?;
    until_profiles(&kube, &one, &[&prod]).await?;
    bind(&kube, &two, &both).await?;
    until_profiles(&kube, &two, &[&prod, &dev]).await?;
    bind(&kube, &two, &only).await?;
    bind(&kube, &two, &team).await?;
    until_profiles(&kube, &two, &[&prod, &dev]).await?;

    // A binding goes: those that no other set selects go with it.
    kube.delete(&format!("{}/{both}", bindings(&two))).await?;
    until_profiles(&kube, &two, &[&prod]).await?;
    // A cluster comes into a set, and leaves it.
    kube.merge(&cluster_path(&lab), &json!({"metadata": {"labels": env("prod")}}))
        .await?;
    until_profiles(&kube, &two, &[&prod, &lab]).await?;
    kube.merge(&cluster_path(&lab), &json!({"metadata": {"labels": env("lab")}}))
        .await?;
    until_profiles(&kube, &two, &[&prod]).await?;
    // A set's selector changes.
    let (_, wider) = by_env("only", &["prod", "lab"]);
    kube.merge(
        &format!("{SETS}/{only}"),
        &json!({"spec": {"clusterSelector": wider}}),
    )
    .await?;
    until_profiles(&kube, &two, &[&prod, &lab]).await?;
    // One that somebody deletes comes back; one that is not ours is left alone.
    kube.delete(&format!("{}/{prod}", profiles(&two))).await?;
    until_profiles(&kube, &two, &[&prod, &lab]).await?;
    let foreign = json!({"apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ClusterProfile",
        "metadata": {"name": dev}, "spec": {"displayName": "theirs", "clusterManager": {"name": "somebody"}}});
    kube.create(&profiles(&one), &foreign).await?;
    bind(&kube, &one, &both).await?;
    until_profiles(&kube, &one, &[&prod, &dev]).await?;
    let theirs = kube.get(&format!("{}/{dev}", profiles(&one))).await?;
    assert_eq!(theirs["spec"]["displayName"], "theirs");
    assert!(
        theirs["status"]["conditions"].is_null() && theirs["metadata"]["labels"].is_null(),
        "{theirs}"
    );

    // A cluster that goes has none any more, also while its finalizers hold it.
    kube.merge(
        &cluster_path(&lab),
        &json!({"metadata": {"finalizers": ["example.com/held"]}}),
    )
    .await?;
    kube.delete(&cluster_path(&lab)).await?;
    until_profiles(&kube, &two, &[&prod]).await?;
    // Not even a binding that comes later brings one.
    bind(&kube, &two, &both).await?;
    until_profiles(&kube, &two, &[&prod, &dev]).await?;
    kube.merge(&cluster_path(&lab), &json!({"metadata": {"finalizers": null}}))
        .await?;
    // A binding without its set is not bound.
    let nothing = names.of("nothing");
    bind(&kube, &one, &nothing).await?;
    kube.until(
        &format!("{}/{nothing}", bindings(&one)),
        SOON,
        "it is not bound",
        |binding| objects::has_condition(binding, "Bound", "False"),
    )
    .await?;
    until_profiles(&kube, &one, &[&prod, &dev]).await?;
    for set in [&both, &only, &team] {
        kube.delete(&format!("{SETS}/{set}")).await?;
    }
    until_profiles(&kube, &two, &[]).await?;
    for cluster in [&prod, &dev] {
        kube.delete(&cluster_path(cluster)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_tells_what_is_known_of_its_cluster() -> Result {
    let fleet = Fleet::start(FleetOptions {
        gates: vec![Feature::ClusterProfile],
        ..FleetOptions::default()
    })
    .await?;
    fleet.until_available().await?;
    let (hub, cluster) = (fleet.kube(), &fleet.clusters[0]);
    let namespace = Names(rand::random()).of("inventory");
    hub.create("/api/v1/namespaces", &objects::namespace(&namespace))
        .await?;
    bind(&hub, &namespace, "global").await?;
    let path = format!("{}/{}", profiles(&namespace), cluster.name);
    for condition in ["ControlPlaneHealthy", "Joined"] {
        hub.until(&path, SOON, condition, |profile| {
            objects::has_condition(profile, condition, "True")
        })
        .await?;
    }
    let claim = json!({"apiVersion": "cluster.open-cluster-management.io/v1alpha1", "kind": "ClusterClaim",
        "metadata": {"name": "region.example.com"}, "spec": {"value": "north"}});
    let claims = "/apis/cluster.open-cluster-management.io/v1alpha1/clusterclaims";
    cluster.kube().ensure(claims, &claim).await?;
    let wanted = json!({"name": "region.example.com", "value": "north"});
    let profile = hub
        .until(&path, SOON, "the claim is a property", |profile| {
            let profile = profile.ok_or("it is not there")?;
            let all = profile["status"]["properties"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if all.contains(&wanted) {
                Ok(profile.clone())
            } else {
                Err(format!("properties: {all:?}"))
            }
        })
        .await?;
    assert_eq!(
        profile["spec"],
        json!({"displayName": cluster.name, "clusterManager": {"name": "open-cluster-management"}})
    );
    assert!(
        profile["status"]["version"]["kubernetes"]
            .as_str()
            .is_some_and(|version| version.starts_with('v'))
    );
    let labels = &profile["metadata"]["labels"];
    assert_eq!(labels["x-k8s.io/cluster-manager"], "open-cluster-management");
    assert_eq!(
        labels["open-cluster-management.io/cluster-name"],
        cluster.name.as_str()
    );
    // Nothing more is written when nothing changes.
    let version = profile["metadata"]["resourceVersion"].clone();
    hub.merge(
        &cluster_path(&cluster.name),
        &json!({"metadata": {"annotations": {"somebody": "else"}}}),
    )
    .await?;
    let set = "cluster.open-cluster-management.io/clusterset";
    hub.until(&path, SOON, "the set is a label", |profile| {
        let label = profile.map(|profile| profile["metadata"]["labels"][set].clone());
        if label == Some(json!("default")) {
            Ok(())
        } else {
            Err(format!("{label:?}, was {version}"))
        }
    })
    .await?;
    hub.delete(&format!("{}/global", bindings(&namespace))).await?;
    hub.until_gone(&path, SOON).await?;
    hub.delete(&format!("/api/v1/namespaces/{namespace}")).await?;
    Ok(())
}
