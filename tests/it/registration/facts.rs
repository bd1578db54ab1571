//! What a cluster tells of itself, and the namespaces its sets have it keep.

use super::lease_of;
use crate::Result;
use muster_crds::constants::{conditions, labels};
use muster_klusterlet::registration::namespaces::label;
use muster_tests::control_plane::is_embedded;
use muster_tests::objects::{CLUSTERS, cluster_path, has_condition};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, Kube};
use serde_json::{Value, json};

const CLAIMS: &str = "/apis/cluster.open-cluster-management.io/v1alpha1/clusterclaims";
const PROPERTIES: &str = "/apis/about.k8s.io/v1alpha1/clusterproperties";

fn claim(name: &str, value: &str) -> Value {
    json!({"apiVersion": "cluster.open-cluster-management.io/v1alpha1", "kind": "ClusterClaim",
        "metadata": {"name": name}, "spec": {"value": value}})
}

/// Waits until the claims reported are these, in this order.
async fn until_claims(hub: &Kube, cluster: &str, wanted: &[(&str, &str)]) -> Result {
    let what = format!("its claims are {wanted:?}");
    hub.until(&cluster_path(cluster), SOON, &what, |object| {
        let object = object.ok_or("it is not there")?;
        let found: Vec<(&str, &str)> = object["status"]["clusterClaims"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|c| {
                (
                    c["name"].as_str().unwrap_or_default(),
                    c["value"].as_str().unwrap_or_default(),
                )
            })
            .collect();
        (found == wanted)
            .then_some(())
            .ok_or_else(|| format!("{found:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_properties_are_reported_by_their_rules() -> Result {
    // Claims are of a whole cluster: no other test's may be there.
    let mut fleet = Fleet::prepare(FleetOptions {
        own_clusters: true,
        ..FleetOptions::default()
    })
    .await?;
    let options = &mut fleet.clusters[0].options;
    options.feature_gates = vec!["ClusterProperty=true".to_owned()];
    options.max_custom_cluster_claims = 2;
    options.reserved_cluster_claim_suffixes = vec!["reserved.example.com".to_owned()];
    fleet.clusters[0].start();
    fleet.until_available().await?;
    let (hub, spoke, name) = (
        fleet.kube(),
        fleet.clusters[0].kube(),
        fleet.clusters[0].name.as_str(),
    );
    // Reserved ones first, then as many others as there may be, each in order; what is only for here stays here.
    for (claim_name, value) in [
        ("zone", "z"),
        ("area", "a"),
        ("lane", "l"),
        ("id.k8s.io", "id"),
        ("x.reserved.example.com", "r"),
    ] {
        spoke.create(CLAIMS, &claim(claim_name, value)).await?;
    }
    let mut secret = claim("aaa", "only here");
    secret["metadata"]["labels"] = json!({labels::SPOKE_ONLY: ""});
    spoke.create(CLAIMS, &secret).await?;
    let reserved = [("id.k8s.io", "id"), ("x.reserved.example.com", "r")];
    until_claims(
        &hub,
        name,
        &[&reserved[..], &[("area", "a"), ("lane", "l")]].concat(),
    )
    .await?;
    spoke
        .merge(&format!("{CLAIMS}/area"), &json!({"spec": {"value": "b"}}))
        .await?;
    spoke.delete(&format!("{CLAIMS}/lane")).await?;
    until_claims(
        &hub,
        name,
        &[&reserved[..], &[("area", "b"), ("zone", "z")]].concat(),
    )
    .await?;
    // A property counts before a claim of its name.
    let property = json!({"apiVersion": "about.k8s.io/v1alpha1", "kind": "ClusterProperty",
        "metadata": {"name": "area"}, "spec": {"value": "property"}});
    spoke.create(PROPERTIES, &property).await?;
    let mut secret = property.clone();
    secret["metadata"] = json!({"name": "aab", "labels": {labels::SPOKE_ONLY: "true"}});
    spoke.create(PROPERTIES, &secret).await?;
    until_claims(
        &hub,
        name,
        &[&reserved[..], &[("area", "property"), ("zone", "z")]].concat(),
    )
    .await?;
    spoke.delete(&format!("{PROPERTIES}/area")).await?;
    until_claims(
        &hub,
        name,
        &[&reserved[..], &[("area", "b"), ("zone", "z")]].concat(),
    )
    .await?;
    spoke.delete(&format!("{PROPERTIES}/aab")).await?;
    for (claim_name, _) in [
        ("zone", ""),
        ("area", ""),
        ("id.k8s.io", ""),
        ("x.reserved.example.com", ""),
        ("aaa", ""),
    ] {
        spoke.delete(&format!("{CLAIMS}/{claim_name}")).await?;
    }
    until_claims(&hub, name, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn capacity_is_of_all_nodes_and_allocatable_of_those_that_take_work() -> Result {
    if !super::embedded_only() {
        return Ok(());
    }
    let fleet = Fleet::start(FleetOptions {
        nodes: 2,
        ..FleetOptions::default()
    })
    .await?;
    fleet.until_available().await?;
    let (hub, spoke, name) = (
        fleet.kube(),
        fleet.clusters[0].kube(),
        fleet.clusters[0].name.as_str(),
    );
    let nodes = spoke.list("/api/v1/nodes").await?;
    let pods = |list: &str| -> Vec<u64> {
        let count = |node: &Value| node["status"][list]["pods"].as_str().and_then(|n| n.parse().ok());
        nodes.iter().filter_map(count).collect()
    };
    let (capacity, allocatable) = (pods("capacity"), pods("allocatable"));
    assert!(capacity.len() == 2 && allocatable.len() == 2, "{nodes:?}");
    let until = async |capacity: u64, allocatable: u64| -> Result {
        let what = format!("room for {capacity} pods, {allocatable} of them free");
        hub.until(&cluster_path(name), SOON, &what, |object| {
            let status = &object.ok_or("it is not there")?["status"];
            let found = (
                status["capacity"]["pods"].clone(),
                status["allocatable"]["pods"].clone(),
            );
            (found == (json!(capacity.to_string()), json!(allocatable.to_string())))
                .then_some(())
                .ok_or_else(|| format!("{found:?}"))
        })
        .await
    };
    let all: u64 = capacity.iter().sum();
    until(all, allocatable.iter().sum()).await?;
    let node = format!("/api/v1/nodes/{}", super::name(&nodes[0]));
    spoke
        .merge(&node, &json!({"spec": {"unschedulable": true}}))
        .await?;
    until(all, allocatable[1]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_tells_its_urls_and_that_it_became_available() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    let options = &mut fleet.clusters[0].options;
    options.spoke_external_server_urls = vec![
        "https://api.example.com:6443".into(),
        "https://other.example.com".into(),
    ];
    options.cluster_annotations = vec!["agent.open-cluster-management.io/site=north".into()];
    fleet.clusters[0].start();
    fleet.until_available().await?;
    let (hub, name) = (fleet.kube(), fleet.clusters[0].name.as_str());
    let object = hub.get(&cluster_path(name)).await?;
    assert_eq!(
        object["metadata"]["annotations"]["agent.open-cluster-management.io/site"],
        "north"
    );
    let configs = object["spec"]["managedClusterClientConfigs"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let urls: Vec<&Value> = configs.iter().map(|config| &config["url"]).collect();
    assert_eq!(
        urls,
        ["https://api.example.com:6443", "https://other.example.com"]
    );
    let admin = std::fs::read_to_string(fleet.clusters[0].plane.kubeconfig())?;
    let ca = configs[0]["caBundle"].as_str().unwrap_or_default();
    assert!(
        !ca.is_empty() && (!is_embedded() || admin.contains(ca)),
        "its CA is not there"
    );
    let events = format!("/apis/events.k8s.io/v1/namespaces/{name}/events");
    hub.until_all(&events, SOON, "the hub is told", |events| {
        let told = events.values().any(|event| {
            event["reason"] == "Available"
                && event["reportingController"] == "klusterlet-agent"
                && event["type"] == "Normal"
        });
        told.then_some(()).ok_or_else(|| format!("{events:?}"))
    })
    .await?;
    // Lost, the hub itself says so.
    super::lose(&fleet, 0).await?;
    hub.until_all(&events, SOON, "the hub says so", |events| {
        let told = events
            .values()
            .any(|event| event["reason"] == "AvailableUnknown" && event["type"] == "Warning");
        told.then_some(()).ok_or_else(|| format!("{events:?}"))
    })
    .await?;
    fleet.clusters[0].link.heal()?;
    lease_of(&hub, name, 60).await?;
    fleet.until_available().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_there_before_its_agent_tells_its_urls_and_those_that_come_later() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    let (hub, name) = (fleet.kube(), fleet.clusters[0].name.clone());
    let theirs = json!({"url": "https://by-hand.example.com"});
    let made = json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {"name": name}, "spec": {"managedClusterClientConfigs": [theirs]}});
    hub.create(CLUSTERS, &made).await?;
    let mut wanted = vec!["https://by-hand.example.com"];
    for url in ["https://api.example.com:6443", "https://moved.example.com:6443"] {
        fleet.clusters[0].stop().await?;
        fleet.clusters[0].options.spoke_external_server_urls = vec![url.into()];
        fleet.clusters[0].start();
        wanted.push(url);
        hub.until(&cluster_path(&name), SOON, "it tells its URL", |object| {
            let configs = object.map(|object| object["spec"]["managedClusterClientConfigs"].clone());
            let configs = configs.unwrap_or_default();
            let configs = configs.as_array().into_iter().flatten();
            let told: Vec<&Value> = configs.clone().map(|config| &config["url"]).collect();
            let trusted = configs
                .clone()
                .skip(1)
                .all(|config| config["caBundle"].is_string());
            (told == wanted && trusted)
                .then_some(())
                .ok_or_else(|| format!("{told:?}"))
        })
        .await?;
    }
    fleet.until_available().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_the_namespaces_of_its_sets_and_lets_go_of_them() -> Result {
    let fleet = Fleet::joined(1).await?;
    let (hub, spoke, name) = (
        fleet.kube(),
        fleet.clusters[0].kube(),
        fleet.clusters[0].name.as_str(),
    );
    let team = format!("team-{:08x}", rand::random::<u32>());
    let sets = "/apis/cluster.open-cluster-management.io/v1beta2/managedclustersets";
    let object = json!({"apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSet",
        "metadata": {"name": team}, "spec": {"clusterSelector": {"selectorType": "ExclusiveClusterSetLabel"},
            "managedNamespaces": [{"name": team}]}});
    hub.create(sets, &object).await?;
    hub.merge(
        &cluster_path(name),
        &json!({"metadata": {"labels": {labels::CLUSTER_SET: team}}}),
    )
    .await?;
    let key = label(&format!("https://{}", fleet.clusters[0].link.address()));
    let path = format!("/api/v1/namespaces/{team}");
    // Its uid; one that is on its way out does not count.
    let labelled = async |value: &str| -> anyhow::Result<Value> {
        spoke
            .until(&path, SOON, &format!("its label is {value:?}"), |namespace| {
                let metadata = namespace.map(|namespace| &namespace["metadata"]);
                metadata
                    .filter(|it| it["labels"][&key] == value && it["deletionTimestamp"].is_null())
                    .map(|it| it["uid"].clone())
                    .ok_or_else(|| format!("{metadata:?}"))
            })
            .await
    };
    let first = labelled("true").await?;
    hub.until(&cluster_path(name), SOON, "it says so", |object| {
        let kept = &object.ok_or("it is not there")?["status"]["managedNamespaces"][0];
        (kept["name"] == team.as_str() && kept["clusterSet"] == team.as_str())
            .then_some(())
            .ok_or_else(|| kept.to_string())?;
        has_condition(
            Some(&json!({"status": kept, "metadata": {}})),
            conditions::NAMESPACE_AVAILABLE,
            "True",
        )
    })
    .await?;
    // Somebody takes it away: it is made again. The cluster leaves the set: it stays, and is said not to be kept.
    spoke.delete(&path).await?;
    assert_ne!(labelled("true").await?, first);
    hub.merge(
        &cluster_path(name),
        &json!({"metadata": {"labels": {labels::CLUSTER_SET: "default"}}}),
    )
    .await?;
    labelled("false").await?;
    spoke.delete(&path).await?;
    hub.delete(&format!("{sets}/{team}")).await?;
    Ok(())
}
