use super::*;
use serde_json::json;

/// The CRD kube-apiserver's answers were taken with.
pub(crate) fn gadgets() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.x.io"},
        "spec": {
            "group": "x.io", "scope": "Namespaced", "conversion": {"strategy": "None"},
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList",
                      "shortNames": ["gg"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["size"], "properties": {
                        "size": {"type": "integer", "minimum": 1, "maximum": 10, "default": 3},
                        "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
                        "when": {"type": "string"},
                    }, "x-kubernetes-validations": [{"rule": "self.mode == oldSelf.mode", "message": "mode is immutable"}]},
                    "status": {"type": "object", "properties": {
                        "ready": {"type": "integer"}, "replicas": {"type": "integer"}}},
                }}},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas"}},
                "selectableFields": [{"jsonPath": ".spec.mode"}],
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Mode", "type": "string", "jsonPath": ".spec.mode", "priority": 1},
                    {"name": "When", "type": "date", "jsonPath": ".spec.when"}],
            }, {
                "name": "v1beta1", "served": true, "storage": false,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

pub(crate) fn with_gadgets() -> Registry {
    let registry = Registry::new();
    registry.set_crd(&gadgets()).unwrap();
    registry
}

#[test]
fn built_in_kinds_are_found_by_path_and_by_kind() {
    let registry = Registry::new();
    let deployments = registry.find("apps", "v1", "deployments").unwrap();
    assert_eq!(deployments.kind, "Deployment");
    assert!(deployments.namespaced && deployments.has_status() && deployments.has_verb("watch"));
    assert_eq!(deployments.short_names, ["deploy"]);
    assert_eq!(deployments.subresource("scale").unwrap().group, "autoscaling");
    assert!(deployments.schema().property("spec").is_some());
    assert_eq!(
        registry.by_kind("", "v1", "ConfigMap").unwrap().plural,
        "configmaps"
    );
    assert!(registry.find("apps", "v1", "frobs").is_none());
    for resource in registry.all() {
        let stored = resource.has_verb("list") && resource.plural != "componentstatuses";
        assert!(
            !stored || resource.schema().property("metadata").is_some(),
            "{}",
            resource.qualified()
        );
    }
}

#[test]
fn kinds_served_twice_share_their_storage() {
    let registry = Registry::new();
    let core = registry.find("", "v1", "events").unwrap();
    let modern = registry.find("events.k8s.io", "v1", "events").unwrap();
    assert_eq!(core.storage, modern.storage);
    assert_eq!(modern.storage_api_version, "v1");
    assert_eq!(registry.stored_as("/events").len(), 2);
    let event =
        json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "hi", "regarding": {"name": "a"}});
    let stored = convert::to_storage(&modern, event.clone());
    assert_eq!(stored["message"], "hi");
    assert_eq!(stored["apiVersion"], "v1");
    assert_eq!(convert::from_storage(&modern, stored.clone()), event);
    assert_eq!(convert::from_storage(&core, stored.clone()), stored);
}

#[test]
fn scalers_convert_there_and_back() {
    let registry = Registry::new();
    let old = registry
        .find("autoscaling", "v1", "horizontalpodautoscalers")
        .unwrap();
    let object = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 60},
        "status": {"currentReplicas": 1, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 20},
    });
    let stored = convert::to_storage(&old, object.clone());
    assert_eq!(stored["apiVersion"], "autoscaling/v2");
    assert_eq!(
        stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
        60
    );
    assert_eq!(convert::from_storage(&old, stored), object);
}

#[test]
fn a_crd_is_served_in_all_its_versions_and_taken_away() {
    let registry = with_gadgets();
    let v1 = registry.find("x.io", "v1", "gadgets").unwrap();
    assert_eq!(
        v1.storage,
        registry.find("x.io", "v1beta1", "gadgets").unwrap().storage
    );
    assert_eq!(v1.storage_api_version, "x.io/v1");
    assert!(v1.has_status() && v1.is_custom());
    assert_eq!(v1.custom.as_ref().unwrap().selectable, [".spec.mode"]);
    let groups = registry.snapshot().groups();
    assert_eq!(
        groups.last().unwrap(),
        &("x.io".to_owned(), vec!["v1".to_owned(), "v1beta1".to_owned()])
    );
    let before = registry.generation();
    registry.remove_crd("gadgets.x.io");
    assert!(registry.find("x.io", "v1", "gadgets").is_none());
    assert!(registry.generation() > before);
}

#[test]
fn a_crd_that_cannot_be_understood_changes_nothing() {
    let registry = with_gadgets();
    let mut broken = gadgets();
    broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] =
        json!({"properties": {"a": {"type": "string"}}});
    assert!(registry.set_crd(&broken).is_err());
    assert!(registry.find("x.io", "v1", "gadgets").is_some());
}

#[test]
fn documents_are_kept_until_their_hash_changes() {
    let registry = Registry::new();
    let made = std::cell::Cell::new(0);
    let make = || {
        made.set(made.get() + 1);
        made.get().to_string().into()
    };
    assert_eq!(registry.document("a", "1", make), "1");
    assert_eq!(registry.document("a", "1", make), "1");
    assert_eq!(registry.document("a", "2", make), "2");
    assert_eq!(made.get(), 2);
    for other in 0..DOCUMENTS {
        registry.document(&other.to_string(), "1", make);
    }
    assert!(registry.0.documents.lock().unwrap().len() <= DOCUMENTS);
}

#[test]
fn versions_are_ordered_as_kubernetes_does() {
    let mut list = ["foo", "v1alpha1", "v1beta1", "v10", "v2", "bar", "v1", "v1beta2"];
    list.sort_by(|a, b| names::compare_versions(b, a));
    assert_eq!(
        list,
        ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "bar", "foo"]
    );
}

#[test]
fn names_follow_their_rules() {
    for (check, name, good) in [
        (names::dns_label as fn(&str) -> Vec<String>, "a-1", true),
        (names::dns_label, "Bad_Name", false),
        (names::dns_label, "a.b", false),
        (names::dns_label, "-a", false),
        (names::dns_subdomain, "a.b-c.d", true),
        (names::dns_subdomain, "a..b", false),
        (names::dns_1035_label, "1a", false),
        (names::path_segment, "system:node:x", true),
        (names::path_segment, "a/b", false),
        (names::path_segment, "..", false),
        (names::qualified_name, "x.io/Name_1", true),
        (names::qualified_name, "a b", false),
        (names::qualified_name, "/a", false),
        (names::qualified_name, "a/b/c", false),
        (names::label_value, "", true),
        (names::label_value, "x y", false),
        (names::config_key, ".dockerconfigjson", true),
        (names::config_key, "a/b", false),
        (names::config_key, "..", false),
        (names::port_name, "http", true),
        (names::port_name, "80", false),
        (names::port_name, "much-too-long-a-name", false),
    ] {
        assert_eq!(check(name).is_empty(), good, "{name}: {:?}", check(name));
    }
}

#[test]
fn custom_objects_follow_the_schemas_of_their_versions() {
    let text = json!({"type": "string"});
    let version = |name: &str, storage: bool, fields: Value| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}}})
    };
    let crd = json!({
        "metadata": {"name": "ages.x.io", "resourceVersion": "10"},
        "spec": {"group": "x.io", "scope": "Namespaced", "names": {"plural": "ages", "kind": "Age"}, "versions": [
            version("v1", true, json!({"a": text, "c": {"type": "string", "default": "filled"}})),
            version("v2", false, json!({"a": text, "b": text})),
        ]},
    });
    let registry = Registry::new();
    registry.set_crd(&crd).unwrap();
    let of = |version: &str| registry.find("x.io", version, "ages").unwrap();
    let (v1, v2) = (of("v1"), of("v2"));
    let object = |version: &str, revision: &str, spec: Value| {
        json!({"apiVersion": format!("x.io/{version}"), "kind": "Age", "spec": spec,
            "metadata": {"name": "o", "resourceVersion": revision}})
    };
    // Stored by the schema of the storage version.
    assert_eq!(
        convert::to_storage(&v2, object("v2", "", json!({"a": "a", "b": "b"}))),
        object("v1", "", json!({"a": "a", "c": "filled"}))
    );
    // Read by that of the version read.
    assert_eq!(
        convert::from_storage(&v2, object("v1", "11", json!({"a": "a", "c": "c"}))),
        object("v2", "11", json!({"a": "a"}))
    );
    // What was stored before the schema was this one is made one of it.
    assert!(convert::is_current(&v1, 10) && !convert::is_current(&v1, 9));
    let old = object("v1", "9", json!({"a": "a", "gone": 1}));
    let fresh = object("v1", "9", json!({"a": "a", "c": "filled"}));
    assert_eq!(convert::from_storage(&v1, old.clone()), fresh);
    assert_eq!(convert::refreshed(&v1, old), fresh);
}
