//! Cluster sets: the two every hub has, what they say of their clusters, and bindings.

use crate::Result;
use muster_crds::constants::{conditions, labels, names};
use muster_tests::objects::{cluster_path, has_condition, namespace};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, Kube};
use serde_json::{Value, json};

const SETS: &str = "/apis/cluster.open-cluster-management.io/v1beta2/managedclustersets";

fn set_path(name: &str) -> String {
    format!("{SETS}/{name}")
}

fn set(name: &str, selector: &Value) -> Value {
    json!({"apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSet",
        "metadata": {"name": name}, "spec": {"clusterSelector": selector}})
}

async fn until(hub: &Kube, path: &str, condition: &str, status: &str) -> Result {
    hub.until(
        path,
        SOON,
        &format!("{path} has {condition}={status}"),
        |object| has_condition(object, condition, status),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_and_the_global_set_come_back_as_they_were() -> Result {
    let fleet = Fleet::joined(1).await?;
    let hub = fleet.kube();
    let cluster = hub.get(&cluster_path(&fleet.clusters[0].name)).await?;
    assert_eq!(
        cluster["metadata"]["labels"][labels::CLUSTER_SET],
        names::DEFAULT_CLUSTER_SET
    );
    for name in [names::DEFAULT_CLUSTER_SET, names::GLOBAL_CLUSTER_SET] {
        let path = set_path(name);
        until(&hub, &path, conditions::CLUSTER_SET_EMPTY, "False").await?;
        let before = hub.get(&path).await?;
        // Deleted, it is made again; changed, it is changed back.
        hub.delete(&path).await?;
        let what = "it is made again";
        hub.until(&path, SOON, what, |object| {
            let uid = object.map(|object| &object["metadata"]["uid"]);
            uid.is_some_and(|uid| *uid != before["metadata"]["uid"])
                .then_some(())
                .ok_or_else(|| format!("{uid:?}"))
        })
        .await?;
        let other = json!({"selectorType": "LabelSelector", "labelSelector": {"matchLabels": {"a": "b"}}});
        hub.merge(&path, &json!({"spec": {"clusterSelector": other}}))
            .await?;
        hub.until(&path, SOON, "its selector is put back", |object| {
            let selector = object.map(|object| object["spec"]["clusterSelector"].clone());
            (selector.as_ref() == Some(&before["spec"]["clusterSelector"]))
                .then_some(())
                .ok_or_else(|| format!("{selector:?}"))
        })
        .await?;
    }
    // An empty one of its name is never left without its clusters.
    until(
        &hub,
        &set_path(names::GLOBAL_CLUSTER_SET),
        conditions::CLUSTER_SET_EMPTY,
        "False",
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_say_whether_they_are_empty_as_clusters_move() -> Result {
    let fleet = Fleet::joined(1).await?;
    let (hub, cluster) = (fleet.kube(), cluster_path(&fleet.clusters[0].name));
    let unique = format!("{:08x}", rand::random::<u32>());
    let (one, two) = (format!("one-{unique}"), format!("two-{unique}"));
    let exclusive = json!({"selectorType": "ExclusiveClusterSetLabel"});
    let by_label =
        json!({"selectorType": "LabelSelector", "labelSelector": {"matchLabels": {"lane": unique}}});
    hub.create(SETS, &set(&one, &exclusive)).await?;
    hub.create(SETS, &set(&two, &by_label)).await?;
    for name in [&one, &two] {
        until(&hub, &set_path(name), conditions::CLUSTER_SET_EMPTY, "True").await?;
    }
    let label = |key: &str, value: Value| json!({"metadata": {"labels": {key: value}}});
    hub.merge(&cluster, &label(labels::CLUSTER_SET, one.as_str().into()))
        .await?;
    until(&hub, &set_path(&one), conditions::CLUSTER_SET_EMPTY, "False").await?;
    hub.merge(&cluster, &label("lane", unique.as_str().into()))
        .await?;
    until(&hub, &set_path(&two), conditions::CLUSTER_SET_EMPTY, "False").await?;
    // It moves on: the one it left is empty again. Without a label it is in the default set.
    hub.merge(&cluster, &label(labels::CLUSTER_SET, Value::Null))
        .await?;
    until(&hub, &set_path(&one), conditions::CLUSTER_SET_EMPTY, "True").await?;
    hub.until(&cluster, SOON, "it is in the default set", |object| {
        let found = object.map(|object| object["metadata"]["labels"][labels::CLUSTER_SET].clone());
        (found == Some(names::DEFAULT_CLUSTER_SET.into()))
            .then_some(())
            .ok_or_else(|| format!("{found:?}"))
    })
    .await?;
    for name in [&one, &two] {
        hub.delete(&set_path(name)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_says_whether_its_set_is_there() -> Result {
    let fleet = Fleet::joined(0).await?;
    let hub = fleet.kube();
    let unique = format!("set-{:08x}", rand::random::<u32>());
    hub.ensure("/api/v1/namespaces", &namespace(&unique)).await?;
    let bindings = format!(
        "/apis/cluster.open-cluster-management.io/v1beta2/namespaces/{unique}/managedclustersetbindings"
    );
    let binding = json!({"apiVersion": "cluster.open-cluster-management.io/v1beta2",
        "kind": "ManagedClusterSetBinding", "metadata": {"name": unique}, "spec": {"clusterSet": unique}});
    hub.create(&bindings, &binding).await?;
    let path = format!("{bindings}/{unique}");
    until(&hub, &path, conditions::BOUND, "False").await?;
    let exclusive = json!({"selectorType": "ExclusiveClusterSetLabel"});
    hub.create(SETS, &set(&unique, &exclusive)).await?;
    until(&hub, &path, conditions::BOUND, "True").await?;
    hub.delete(&set_path(&unique)).await?;
    until(&hub, &path, conditions::BOUND, "False").await?;
    // A binding has its set's name, or is refused.
    let mut other = binding;
    other["metadata"]["name"] = "another".into();
    let refused = hub.create(&bindings, &other).await.map(drop).map_err(|r| r.code);
    assert!(matches!(refused, Err(403 | 422 | 400)), "{refused:?}");
    hub.delete(&format!("/api/v1/namespaces/{unique}")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn taints_of_others_stay_and_get_no_company_they_do_not_need() -> Result {
    let fleet = Fleet::joined(1).await?;
    let (hub, name) = (fleet.kube(), fleet.clusters[0].name.as_str());
    let taint = json!({"key": "example.com/maintenance", "value": "now", "effect": "PreferNoSelect"});
    let marked = hub
        .merge(&cluster_path(name), &json!({"spec": {"taints": [taint]}}))
        .await?;
    // With the time that the hub gave it.
    let theirs = marked["spec"]["taints"].clone();
    super::lose(&fleet, 0).await?;
    hub.until(&cluster_path(name), SOON, "it has both taints", |object| {
        let taints = object.and_then(|object| object["spec"]["taints"].as_array());
        match taints.map(Vec::as_slice) {
            Some([first, _]) if *first == theirs[0] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    fleet.clusters[0].link.heal()?;
    hub.until(&cluster_path(name), SOON, "only theirs is left", |object| {
        let taints = object.map(|object| object["spec"]["taints"].clone());
        (taints.as_ref() == Some(&theirs))
            .then_some(())
            .ok_or_else(|| format!("{taints:?}"))
    })
    .await
}
