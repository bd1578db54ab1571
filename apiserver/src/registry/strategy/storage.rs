//! Volumes, claims, classes and what CSI drivers write: the rules of storage.

use super::json::{copy, default, each, items, made, same, text};
use super::pod_rules::one_of;
use super::quantity;
use crate::error::{FieldError, FieldErrorKind};
use crate::registry::names;
use serde_json::{Value, json};

const MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
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

fn positive(field: &str, value: &Value, errors: &mut Vec<FieldError>) {
    if value.as_str().and_then(quantity::nanos).is_some_and(|n| n <= 0) {
        errors.push(FieldError::invalid(field, value, "must be greater than zero"));
    }
}

fn validate_modes(spec: &Value, errors: &mut Vec<FieldError>) {
    for mode in items(spec, "accessModes") {
        one_of(errors, "spec.accessModes", mode, &MODES);
    }
    let once = items(spec, "accessModes").any(|mode| mode == "ReadWriteOncePod");
    if once && items(spec, "accessModes").count() > 1 {
        let message = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden("spec.accessModes", message));
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
    validate_modes(spec, &mut errors);
    let capacity = &spec["capacity"];
    let amounts = capacity.as_object();
    if amounts.is_none_or(serde_json::Map::is_empty) {
        errors.push(FieldError::required("spec.capacity", ""));
    }
    if capacity["storage"].is_null() || amounts.is_some_and(|a| a.len() > 1) {
        errors.push(FieldError::not_supported("spec.capacity", capacity, &["storage"]));
    }
    for (name, amount) in amounts.into_iter().flatten() {
        positive(&format!("spec.capacity[{name}]"), amount, &mut errors);
    }
    let given: Vec<&str> = SOURCES.into_iter().filter(|s| !spec[*s].is_null()).collect();
    if given.is_empty() {
        errors.push(FieldError::required("spec", "must specify a volume type"));
    }
    for source in given.iter().skip(1) {
        let message = "may not specify more than 1 volume type";
        errors.push(FieldError::forbidden(format!("spec.{source}"), message));
    }
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = &spec["persistentVolumeReclaimPolicy"];
    one_of(
        &mut errors,
        "spec.persistentVolumeReclaimPolicy",
        policy,
        &policies,
    );
    validate_class_and_mode(spec, &mut errors);
    errors
}

/// What a volume and a claim say in the same way.
fn validate_class_and_mode(spec: &Value, errors: &mut Vec<FieldError>) {
    validate_class(spec, errors);
    let modes = ["Block", "Filesystem"];
    one_of(errors, "spec.volumeMode", &spec["volumeMode"], &modes);
}

fn validate_claim(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if items(spec, "accessModes").next().is_none() {
        let message = "at least 1 access mode is required";
        errors.push(FieldError::required("spec.accessModes", message));
    }
    validate_modes(spec, &mut errors);
    let size = &spec["resources"]["requests"]["storage"];
    if size.is_null() {
        errors.push(FieldError::required("spec.resources[storage]", ""));
    } else {
        positive("spec.resources[storage]", size, &mut errors);
    }
    validate_class_and_mode(spec, &mut errors);
    errors
}

fn validate_attachment(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if text(spec, "attacher").is_empty() {
        errors.push(FieldError::required("spec.attacher", ""));
    }
    let source = &spec["source"];
    let given = |key: &str| !source[key].is_null();
    if given("inlineVolumeSpec") == given("persistentVolumeName") {
        let message = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        errors.push(FieldError::required("spec.source", message));
    }
    named("spec.nodeName", &spec["nodeName"], &mut errors);
    errors
}

/// What is wrong with an object of these kinds.
pub(super) fn validate(plural: &str, object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    match plural {
        "persistentvolumes" => errors = validate_volume(spec),
        "persistentvolumeclaims" => errors = validate_claim(spec),
        "volumeattachments" => errors = validate_attachment(spec),
        "csinodes" => {
            for (i, driver) in items(spec, "drivers").enumerate() {
                for key in ["name", "nodeID"] {
                    if text(driver, key).is_empty() {
                        errors.push(FieldError::required(format!("spec.drivers[{i}].{key}"), ""));
                    }
                }
            }
        }
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
            one_of(
                &mut errors,
                "reclaimPolicy",
                &object["reclaimPolicy"],
                &["Delete", "Retain"],
            );
            let modes = ["Immediate", "WaitForFirstConsumer"];
            one_of(
                &mut errors,
                "volumeBindingMode",
                &object["volumeBindingMode"],
                &modes,
            );
        }
        _ => {}
    }
    errors
}

fn validate_claim_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (spec, was) = (&new["spec"], &old["spec"]);
    let mut allowed = spec.clone();
    if text(was, "volumeName").is_empty() {
        copy(was, &mut allowed, "volumeName");
        copy(was, &mut allowed, "storageClassName");
    }
    copy(was, &mut allowed, "volumeAttributesClassName");
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

/// When a volume's phase changed, which only the server writes.
pub(super) fn phase_time(new: &mut Value, old: Option<&Value>, now: &str) {
    const SINCE: &str = "lastPhaseTransitionTime";
    let before = old.map_or(&Value::Null, |old| &old["status"]);
    let status = &new["status"];
    let written = !status[SINCE].is_null() && !same(&status[SINCE], &before[SINCE]);
    if status["phase"] != before["phase"] && !written {
        new["status"][SINCE] = json!(now);
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
