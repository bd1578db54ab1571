//! Volumes, claims, classes and what CSI drivers write: the rules of storage.

use super::check::Spot;
use super::go::{self, NODE_AFFINITY};
use super::json::{at, copy, default, each, items, made, remove, same, text};
use super::pod_rules::one_of;
use super::pod_scheduling::validate_node_selector;
use super::{claims, csi, quantity, volume_sources};
use crate::error::{FieldError, FieldErrorKind};
use crate::registry::names;
use serde_json::{Value, json};

/// Where a volume's content may be, in the order Kubernetes looks.
const SOURCES: [&str; 22] = [
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "hostPath",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flocker",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
    "flexVolume",
];

/// Defaults by plural.
pub(super) fn defaults(plural: &str, object: &mut Value) {
    if plural == "csinodes"
        && let Some(spec) = made(object, "spec")
    {
        for driver in each(spec, "drivers") {
            default(driver, "topologyKeys", Value::Null);
        }
    }
}

fn named(field: &str, value: &Value, errors: &mut Vec<FieldError>) {
    for message in names::dns_subdomain(value.as_str().unwrap_or_default()) {
        errors.push(FieldError::invalid(field, value, &message));
    }
}

fn validate_class(spec: &Value, errors: &mut Vec<FieldError>) {
    if !text(spec, "storageClassName").is_empty() {
        named("spec.storageClassName", &spec["storageClassName"], errors);
    }
}

fn validate_volume(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if items(spec, "accessModes").next().is_none() {
        errors.push(FieldError::required("spec.accessModes", ""));
    }
    let whole = Spot::new(spec, "spec");
    claims::access_modes(&whole, &mut errors);
    let capacity = &spec["capacity"];
    let amounts = capacity.as_object();
    if amounts.is_none_or(serde_json::Map::is_empty) {
        errors.push(FieldError::required("spec.capacity", ""));
    }
    if capacity["storage"].is_null() || amounts.is_some_and(|a| a.len() > 1) {
        errors.push(FieldError::not_supported("spec.capacity", capacity, &["storage"]));
    }
    for (_, amount) in whole.at("capacity").entries() {
        claims::positive(&amount, &mut errors);
    }
    let given: Vec<&str> = SOURCES.into_iter().filter(|s| !spec[*s].is_null()).collect();
    if given.is_empty() {
        errors.push(FieldError::required("spec", "must specify a volume type"));
    }
    for (i, source) in given.iter().enumerate() {
        if i == 0 {
            volume_sources::validate(&whole, source, true, &mut errors);
        } else {
            let message = "may not specify more than 1 volume type";
            errors.push(FieldError::forbidden(format!("spec.{source}"), message));
        }
    }
    let affinity = whole.at("nodeAffinity");
    if let Some(required) = affinity.given("required") {
        validate_node_selector(required.value, &required.path, &mut errors);
    } else if affinity.is_set() {
        let message = "must specify required node constraints";
        affinity.at("required").missing(&mut errors, message);
    } else if given.contains(&"local") {
        affinity.missing(&mut errors, "Local volume requires node affinity");
    }
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = &spec["persistentVolumeReclaimPolicy"];
    one_of(
        &mut errors,
        "spec.persistentVolumeReclaimPolicy",
        policy,
        &policies,
    );
    validate_class(spec, &mut errors);
    whole
        .at("volumeMode")
        .among_if_set(&mut errors, &["Block", "Filesystem"]);
    errors
}

/// What is wrong with an object of these kinds.
pub(super) fn validate(plural: &str, object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    match plural {
        "persistentvolumes" => errors = validate_volume(spec),
        "persistentvolumeclaims" => claims::validate(&Spot::new(spec, "spec"), &mut errors),
        "storageclasses" => {
            let provisioner = text(object, "provisioner");
            if provisioner.is_empty() {
                errors.push(FieldError::required("provisioner", ""));
            } else {
                for message in names::qualified_name(&provisioner.to_lowercase()) {
                    errors.push(FieldError::invalid(
                        "provisioner",
                        &object["provisioner"],
                        &message,
                    ));
                }
            }
            let policy = Spot::new(&object["reclaimPolicy"], "reclaimPolicy");
            if !policy.is_empty() {
                policy.among(&mut errors, &["Delete", "Retain"]);
            }
            let modes = ["Immediate", "WaitForFirstConsumer"];
            Spot::new(&object["volumeBindingMode"], "volumeBindingMode").among_if_set(&mut errors, &modes);
        }
        _ => {}
    }
    errors.extend(csi::validate(plural, object));
    errors
}

/// The older way to name a class.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn validate_claim_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (spec, was) = (&new["spec"], &old["spec"]);
    let mut allowed = spec.clone();
    if text(was, "volumeName").is_empty() {
        copy(was, &mut allowed, "volumeName");
    }
    // One that had no class may get one.
    if was["storageClassName"].is_null() && old["metadata"]["annotations"][OLD_CLASS].is_null() {
        copy(was, &mut allowed, "storageClassName");
    }
    // A class can be changed, and one be given, but not be taken away.
    if !text(spec, "volumeAttributesClassName").is_empty() && old["status"]["phase"] == "Bound" {
        copy(was, &mut allowed, "volumeAttributesClassName");
    }
    if old["status"]["phase"] == "Bound"
        && let Some(resources) = made(&mut allowed, "resources")
    {
        copy(&was["resources"], resources, "requests");
    }
    if !same(&allowed, was) {
        let message = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        return vec![FieldError::forbidden("spec", message)];
    }
    let amount = |value: &Value| value.as_str().and_then(quantity::nanos).unwrap_or(0);
    let size = |spec: &Value| amount(&spec["resources"]["requests"]["storage"]);
    if size(spec) < size(was) && size(spec) <= amount(&old["status"]["capacity"]["storage"]) {
        let field = "spec.resources.requests.storage";
        let message = "field can not be less than status.capacity";
        return vec![FieldError::forbidden(field, message)];
    }
    Vec::new()
}

/// What of an object of these kinds may not change.
pub(super) fn validate_update(plural: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let (spec, was) = (&new["spec"], &old["spec"]);
    match plural {
        "persistentvolumeclaims" => validate_claim_update(new, old),
        "persistentvolumes" if SOURCES.iter().any(|source| !same(&spec[*source], &was[*source])) => {
            let field = "spec.persistentvolumesource";
            let message = "spec.persistentvolumesource is immutable after creation";
            vec![FieldError::forbidden(field, message)]
        }
        "persistentvolumes"
            if !was["nodeAffinity"].is_null() && !same(&spec["nodeAffinity"], &was["nodeAffinity"]) =>
        {
            let affinity = &spec["nodeAffinity"];
            let shown = if affinity.is_null() {
                "null".to_owned()
            } else {
                go::shown(affinity, NODE_AFFINITY)
            };
            let message = format!(
                "Invalid value: {shown}: field is immutable, except for updating from beta label to GA"
            );
            vec![FieldError::new(FieldErrorKind::Invalid, "nodeAffinity", message)]
        }
        "volumeattributesclasses" => csi::validate_update(plural, new, old),
        "volumeattachments" if !same(spec, was) => {
            // As Go shows its own struct.
            let (attacher, node) = (&spec["attacher"], &spec["nodeName"]);
            let (name, inline) = (
                &spec["source"]["persistentVolumeName"],
                &spec["source"]["inlineVolumeSpec"],
            );
            let message = format!(
                "Invalid value: {{\"Attacher\":{attacher},\"Source\":{{\"PersistentVolumeName\":{name},\"InlineVolumeSpec\":{inline}}},\"NodeName\":{node}}}: field is immutable"
            );
            vec![FieldError::new(FieldErrorKind::Invalid, "spec", message)]
        }
        _ => Vec::new(),
    }
}

/// What a claim is filled from, by its old field and its new one: the old knows claims and snapshots only, and each is
/// written as the other where one is left out.
pub(super) fn data_sources(claim: &mut Value, old: &Value) {
    let Some(spec) = at(claim, "spec") else { return };
    let source = &spec["dataSource"];
    let (group, kind) = (text(source, "apiGroup"), text(source, "kind"));
    let known = matches!(
        (group, kind),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    );
    if !source.is_null() && !known && old["spec"]["dataSource"].is_null() {
        remove(spec, "dataSource");
    }
    let (source, reference) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    if !source.is_null() {
        default(spec, "dataSourceRef", source);
    } else if !reference.is_null() && text(&reference, "namespace").is_empty() {
        default(spec, "dataSource", reference);
    }
}

/// When a volume's phase changed, which only the server writes.
pub(super) fn phase_time(new: &mut Value, old: Option<&Value>, now: &str) {
    const SINCE: &str = "lastPhaseTransitionTime";
    let before = old.map_or(&Value::Null, |old| &old["status"]);
    let status = &new["status"];
    let written = !status[SINCE].is_null() && !same(&status[SINCE], &before[SINCE]);
    if status["phase"] != before["phase"] && !written {
        new["status"][SINCE] = json!(now);
    } else if status[SINCE].is_null() && !before[SINCE].is_null() {
        new["status"][SINCE] = before[SINCE].clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_grow_once_they_are_bound() {
        let claim = |phase: &str, size: &str| {
            json!({"spec": {"volumeName": "v", "resources": {"requests": {"storage": size}}},
                "status": {"phase": phase, "capacity": {"storage": "2Gi"}}})
        };
        for (phase, before, after, good) in [
            ("Bound", "2Gi", "3Gi", true),
            ("Bound", "4Gi", "3Gi", true),
            ("Bound", "2Gi", "1Gi", false),
            ("Pending", "2Gi", "3Gi", false),
            ("Pending", "2Gi", "2Gi", true),
        ] {
            let errors = validate_update(
                "persistentvolumeclaims",
                &claim(phase, after),
                &claim(phase, before),
            );
            assert_eq!(errors.is_empty(), good, "{phase} {before} {after}: {errors:?}");
        }
    }

    #[test]
    fn sources_of_data_are_written_twice() {
        let claim = json!({"kind": "PersistentVolumeClaim", "name": "c"});
        let other = json!({"apiGroup": "x.io", "kind": "K", "name": "n"});
        for (spec, want) in [
            (
                json!({"dataSource": claim}),
                json!({"dataSource": claim, "dataSourceRef": claim}),
            ),
            (json!({"dataSource": other}), json!({})),
            (
                json!({"dataSourceRef": other}),
                json!({"dataSource": other, "dataSourceRef": other}),
            ),
            (json!({}), json!({})),
        ] {
            let mut object = json!({ "spec": spec });
            data_sources(&mut object, &Value::Null);
            assert_eq!(object["spec"], want, "{spec}");
        }
    }

    #[test]
    fn a_volume_is_in_one_place() {
        let errors = |spec: &Value| validate_volume(spec).len();
        let volume = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"},
            "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"});
        let with = |key: &str, value: Value| {
            let mut volume = volume.clone();
            volume[key] = value;
            volume
        };
        assert_eq!(errors(&volume), 0);
        assert_eq!(errors(&with("nfs", json!({"server": "s"}))), 1);
        assert_eq!(errors(&with("hostPath", Value::Null)), 1);
        assert_eq!(errors(&with("capacity", json!({"storage": "-1"}))), 1);
    }
}
