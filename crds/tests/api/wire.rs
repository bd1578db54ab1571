//! Objects keep every field on their way through the types.

use std::fmt::Debug;

use kube::{Resource, core::object::HasSpec};
use muster_crds::{
    about::v1alpha1 as about, addon::v1alpha1 as addon_old, addon::v1beta1 as addon_new, cluster, crds,
    multicluster::v1alpha1 as multicluster, work,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// An object with every field its CRD knows.
pub fn full(group: &str, version: &str, kind: &str) -> Value {
    let crd = crds::all()
        .into_iter()
        .find(|crd| crd.spec.group == group && crd.spec.names.kind == kind)
        .unwrap_or_else(|| panic!("no definition of {kind}"));
    let served = crd
        .spec
        .versions
        .iter()
        .find(|served| served.name == version)
        .unwrap();
    let schema = serde_json::to_value(served.schema.as_ref().unwrap()).unwrap();
    let mut object = sample(&schema["openAPIV3Schema"]);
    object["apiVersion"] = format!("{group}/{version}").into();
    object["kind"] = kind.into();
    object["metadata"] = json!({"name": "one", "namespace": "two", "generation": 3});
    object
}

fn sample(schema: &Value) -> Value {
    if let Some(values) = schema["enum"].as_array() {
        return values.last().unwrap().clone(); // seldom the default
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": null}});
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return json!("7");
    }
    match (schema["type"].as_str().unwrap(), schema["format"].as_str()) {
        ("object", _) if schema["additionalProperties"].is_object() => {
            json!({ "some": sample(&schema["additionalProperties"]) })
        }
        ("object", _) => {
            let properties = schema["properties"].as_object().cloned().unwrap_or_default();
            Value::Object(
                properties
                    .iter()
                    .map(|(name, inner)| (name.clone(), sample(inner)))
                    .collect(),
            )
        }
        ("array", _) => json!([sample(&schema["items"])]),
        ("integer", _) => json!(7),
        ("boolean", _) => json!(true),
        ("string", Some("date-time")) => json!("2026-01-02T03:04:05Z"),
        ("string", Some("byte")) => json!("eA=="),
        ("string", _) => json!("seven"),
        other => panic!("no sample of {other:?}"),
    }
}

fn keeps_all<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned>() {
    let object = full(&K::group(&()), &K::version(&()), &K::kind(&()));
    let typed: K = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    assert_eq!(serde_json::to_value(&typed).unwrap(), object);
}

#[test]
fn every_field_survives() {
    keeps_all::<cluster::v1::ManagedCluster>();
    keeps_all::<cluster::v1beta2::ManagedClusterSet>();
    keeps_all::<cluster::v1beta2::ManagedClusterSetBinding>();
    keeps_all::<cluster::v1beta1::Placement>();
    keeps_all::<cluster::v1beta1::PlacementDecision>();
    keeps_all::<cluster::v1alpha1::AddOnPlacementScore>();
    keeps_all::<cluster::v1alpha1::ClusterClaim>();
    keeps_all::<work::v1::ManifestWork>();
    keeps_all::<work::v1::AppliedManifestWork>();
    keeps_all::<work::v1alpha1::ManifestWorkReplicaSet>();
    keeps_all::<addon_old::ManagedClusterAddOn>();
    keeps_all::<addon_old::ClusterManagementAddOn>();
    keeps_all::<addon_old::AddOnDeploymentConfig>();
    keeps_all::<addon_old::AddOnTemplate>();
    keeps_all::<addon_new::ManagedClusterAddOn>();
    keeps_all::<addon_new::ClusterManagementAddOn>();
    keeps_all::<addon_new::AddOnDeploymentConfig>();
    keeps_all::<addon_new::AddOnTemplate>();
    keeps_all::<about::ClusterProperty>();
    keeps_all::<multicluster::ClusterProfile>();
}

fn reads<K: DeserializeOwned>(object: Value) -> Result<K, String> {
    serde_json::from_value(object).map_err(|error| error.to_string())
}

/// What a CRD lets through must not fail a list: objects with nothing but a name, or a null spec.
fn reads_bare<K>()
where
    K: DeserializeOwned + HasSpec,
    K::Spec: Default + PartialEq + Debug,
{
    for object in [
        json!({"metadata": {"name": "a"}}),
        json!({"metadata": {"name": "a"}, "spec": null}),
    ] {
        assert_eq!(reads::<K>(object).unwrap().spec(), &K::Spec::default());
    }
}

#[test]
fn bare_objects_are_read() {
    reads_bare::<cluster::v1::ManagedCluster>();
    reads_bare::<work::v1::ManifestWork>();
    reads_bare::<work::v1::AppliedManifestWork>();
    reads_bare::<cluster::v1beta2::ManagedClusterSet>();
    reads_bare::<cluster::v1beta2::ManagedClusterSetBinding>();
    reads_bare::<cluster::v1alpha1::ClusterClaim>();
    reads_bare::<work::v1alpha1::ManifestWorkReplicaSet>();
    reads_bare::<about::ClusterProperty>();
    let decision = reads::<cluster::v1beta1::PlacementDecision>(json!({"metadata": {}})).unwrap();
    assert_eq!(decision.status, None);
    let spec_is_there = json!({"metadata": {}, "spec": {"hubHash": 1}});
    let error = reads::<work::v1::AppliedManifestWork>(spec_is_there).unwrap_err();
    assert!(
        error.contains("expected a string"),
        "a spec that is there is read in full: {error}"
    );
}

#[test]
fn absent_fields_read_as_the_crd_defaults_them() {
    let object = json!({
        "metadata": {},
        "spec": { "manifestConfigs": [{
            "resourceIdentifier": {"resource": "deployments", "name": "d"},
            "updateStrategy": {"serverSideApply": {}},
        }], "deleteOption": {} },
    });
    let work: work::v1::ManifestWork = reads(object).unwrap();
    let config = &work.spec.manifest_configs[0];
    assert_eq!(config.feedback_scrape_type, work::v1::FeedbackScrapeType::Poll);
    let strategy = config.update_strategy.as_ref().unwrap();
    assert_eq!(strategy.type_, work::v1::UpdateStrategyType::Update);
    assert_eq!(
        strategy.server_side_apply.as_ref().unwrap().field_manager,
        "work-agent"
    );
    let delete = work.spec.delete_option.unwrap();
    assert_eq!(
        delete.propagation_policy,
        work::v1::DeletePropagationPolicyType::Foreground
    );
}

#[test]
fn what_is_not_set_is_not_sent() {
    let cluster = cluster::v1::ManagedCluster::new("one", cluster::v1::ManagedClusterSpec::default());
    assert_eq!(
        serde_json::to_value(cluster).unwrap(),
        json!({
            "apiVersion": "cluster.open-cluster-management.io/v1",
            "kind": "ManagedCluster",
            "metadata": {"name": "one"},
            "spec": {"hubAcceptsClient": false},
        })
    );
    let empty: Map<String, Value> = Map::new();
    let resources = work::v1::ManifestResourceStatus::default();
    assert_eq!(serde_json::to_value(resources).unwrap(), Value::Object(empty));
}

#[test]
fn manifests_tell_what_they_are() {
    let manifest = muster_crds::Manifest(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"},
    }));
    assert_eq!(
        [
            manifest.api_version(),
            manifest.kind(),
            manifest.name(),
            manifest.namespace()
        ],
        ["apps/v1", "Deployment", "d", "n"]
    );
    assert_eq!(muster_crds::Manifest(json!("no object")).kind(), "");
}

#[test]
fn what_names_an_object_is_written_also_where_it_is_empty() {
    let meta = json!({"ordinal": 0, "group": "", "version": "v1", "kind": "Namespace", "resource": "namespaces", "name": "a",
        "namespace": ""});
    let typed: work::v1::ManifestResourceMeta = serde_json::from_value(meta.clone()).unwrap();
    assert_eq!(serde_json::to_value(&typed).unwrap(), meta);
    let short: work::v1::ManifestResourceMeta =
        reads(json!({"ordinal": 0, "version": "v1", "kind": "Namespace",
        "resource": "namespaces", "name": "a"}))
        .unwrap();
    assert_eq!(short, typed);
    let recorded = json!({"group": "", "version": "v1", "resource": "namespaces", "namespace": "", "name": "a", "uid": "u"});
    let typed: work::v1::AppliedManifestResourceMeta = serde_json::from_value(recorded.clone()).unwrap();
    assert_eq!(serde_json::to_value(&typed).unwrap(), recorded);
}
