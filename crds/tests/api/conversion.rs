//! Add-ons keep their meaning between v1alpha1 and v1beta1.

use muster_crds::addon::{v1alpha1 as old, v1beta1 as new};
use serde_json::{Value, json};

use crate::wire::full;

const GROUP: &str = "addon.open-cluster-management.io";

fn to_new_mca(object: Value) -> Value {
    let typed: old::ManagedClusterAddOn = serde_json::from_value(object).unwrap();
    serde_json::to_value(new::ManagedClusterAddOn::from(typed)).unwrap()
}

fn to_old_mca(object: Value) -> Value {
    let typed: new::ManagedClusterAddOn = serde_json::from_value(object).unwrap();
    serde_json::to_value(old::ManagedClusterAddOn::from(typed)).unwrap()
}

fn to_new_cma(object: Value) -> Value {
    let typed: old::ClusterManagementAddOn = serde_json::from_value(object).unwrap();
    serde_json::to_value(new::ClusterManagementAddOn::from(typed)).unwrap()
}

fn to_old_cma(object: Value) -> Value {
    let typed: new::ClusterManagementAddOn = serde_json::from_value(object).unwrap();
    serde_json::to_value(old::ClusterManagementAddOn::from(typed)).unwrap()
}

/// A v1alpha1 object of every field comes back, but for what v1beta1 cannot hold.
#[test]
fn from_the_stored_version_and_back() {
    let cma = full(GROUP, "v1alpha1", "ClusterManagementAddOn");
    let mut kept = cma.clone();
    kept["spec"]["addOnConfiguration"] = json!({});
    assert_eq!(to_old_cma(to_new_cma(cma)), kept);

    let mut mca = full(GROUP, "v1alpha1", "ManagedClusterAddOn");
    mca["status"]["registrations"] = json!([
        {"signerName": "kubernetes.io/kube-apiserver-client", "subject": {"user": "u", "groups": ["g"]}},
        {"signerName": "example.com/s", "subject": {"user": "u", "groups": ["g"], "organizationUnit": ["o"]}},
    ]);
    let mut kept = mca.clone();
    kept["status"]["addOnConfiguration"] = json!({});
    assert_eq!(to_old_mca(to_new_mca(mca)), kept);
}

/// A v1beta1 object of every field comes back whole.
#[test]
fn from_the_newer_version_and_back() {
    let cma = full(GROUP, "v1beta1", "ClusterManagementAddOn");
    assert_eq!(to_new_cma(to_old_cma(cma.clone())), cma);

    let mut mca = full(GROUP, "v1beta1", "ManagedClusterAddOn");
    mca["status"]["registrations"] = json!([
        {"type": "kubeClient", "kubeClient": {"subject": {"user": "u", "groups": ["g"]}, "driver": "token"}},
        {"type": "customSigner", "customSigner": {
            "signerName": "example.com/s", "subject": {"user": "u", "organizationUnits": ["o"]},
        }},
    ]);
    assert_eq!(to_new_mca(to_old_mca(mca.clone())), mca);
}

#[test]
fn no_default_configuration_has_a_reserved_name() {
    let cma = json!({"metadata": {}, "spec": {"supportedConfigs": [
        {"group": "g", "resource": "with", "defaultConfig": {"name": "n", "namespace": "ns"}},
        {"group": "g", "resource": "without"},
    ]}});
    let converted = to_new_cma(cma.clone());
    assert_eq!(
        converted["spec"]["defaultConfigs"],
        json!([
            {"group": "g", "resource": "with", "name": "n", "namespace": "ns"},
            {"group": "g", "resource": "without", "name": "__reserved_no_default__"},
        ])
    );
    assert_eq!(
        to_old_cma(converted)["spec"]["supportedConfigs"],
        cma["spec"]["supportedConfigs"]
    );
}

#[test]
fn default_config_references_change_their_spelling() {
    let references =
        json!([{"group": "g", "resource": "r", "desiredConfig": {"name": "n", "specHash": "h"}}]);
    let cma = json!({"metadata": {}, "spec": {}, "status": {"defaultconfigReferences": references}});
    assert_eq!(to_new_cma(cma)["status"]["defaultConfigReferences"], references);
}

#[test]
fn install_namespace_becomes_an_annotation() {
    let key = "addon.open-cluster-management.io/v1alpha1-install-namespace";
    let converted = to_new_mca(json!({"metadata": {}, "spec": {"installNamespace": "n"}}));
    assert_eq!(converted["metadata"]["annotations"], json!({ key: "n" }));
    let back = to_old_mca(converted);
    assert_eq!(back["spec"], json!({"installNamespace": "n"}));
    assert_eq!(back["metadata"], json!({}));
    let none = to_new_mca(json!({"metadata": {}, "spec": {"installNamespace": ""}}));
    assert_eq!(none["metadata"], json!({}));
}

#[test]
fn the_driver_moves_to_the_kube_client_registration() {
    let mca = json!({"metadata": {}, "spec": {}, "status": {
        "kubeClientDriver": "token",
        "registrations": [
            {"signerName": "example.com/s", "subject": {"user": "a", "organizationUnit": ["o"]}},
            {"signerName": "kubernetes.io/kube-apiserver-client", "subject": {"user": "b", "groups": ["g"]}},
        ],
    }});
    let converted = to_new_mca(mca);
    assert_eq!(
        converted["status"]["registrations"],
        json!([
            {"type": "customSigner", "customSigner": {
                "signerName": "example.com/s", "subject": {"user": "a", "organizationUnits": ["o"]},
            }},
            {"type": "kubeClient", "kubeClient": {"driver": "token", "subject": {"user": "b", "groups": ["g"]}}},
        ])
    );
    assert_eq!(to_old_mca(converted)["status"]["kubeClientDriver"], "token");
}

#[test]
fn config_references_take_their_name_from_what_is_desired() {
    let desired = json!({"name": "n", "namespace": "ns", "specHash": "h"});
    let mca = json!({"metadata": {}, "spec": {}, "status": {"configReferences": [
        {"group": "g", "resource": "r", "lastObservedGeneration": 2, "desiredConfig": desired},
        {"group": "g", "resource": "q", "lastObservedGeneration": 2},
    ]}});
    assert_eq!(
        to_old_mca(mca)["status"]["configReferences"],
        json!([
            {"group": "g", "resource": "r", "lastObservedGeneration": 2, "desiredConfig": desired,
                "name": "n", "namespace": "ns"},
            {"group": "g", "resource": "q", "lastObservedGeneration": 2, "name": ""},
        ])
    );
}
