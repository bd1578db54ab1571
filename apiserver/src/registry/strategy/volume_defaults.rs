//! What is written into the source of a volume where nothing is said, and fields of features that are off by default.

use super::json::{at, default, remove};
use serde_json::{Value, json};

/// Sources, and what their fields are when nobody says.
const DEFAULTS: [(&str, &[(&str, &str)]); 5] = [
    ("iscsi", &[("iscsiInterface", "default")]),
    (
        "rbd",
        &[
            ("pool", "rbd"),
            ("user", "admin"),
            ("keyring", "/etc/ceph/keyring"),
        ],
    ),
    (
        "scaleIO",
        &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")],
    ),
    (
        "azureDisk",
        &[
            ("cachingMode", "ReadWrite"),
            ("fsType", "ext4"),
            ("kind", "Shared"),
        ],
    ),
    ("hostPath", &[("type", "")]),
];

/// Fields that kube-apiserver drops, because what they are for is off; `*` is every item.
const OFF: [(&str, &[&str]); 6] = [
    ("leases", &["spec", "strategy"]),
    ("leases", &["spec", "preferredHolder"]),
    ("nodes", &["spec", "configSource"]),
    ("nodes", &["status", "config"]),
    ("endpointslices", &["endpoints", "*", "deprecatedTopology"]),
    (
        "statefulsets",
        &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"],
    ),
];

/// Fills in the sources of a volume, a pod's or a PersistentVolume's.
pub(super) fn fill(volume: &mut Value) {
    for (kind, fields) in DEFAULTS {
        if let Some(source) = at(volume, kind) {
            for (field, value) in fields {
                default(source, field, *value);
            }
        }
    }
    if let Some(disk) = at(volume, "azureDisk") {
        default(disk, "readOnly", json!(false));
    }
}

/// Takes away what is for features that are off.
pub(super) fn drop_off(plural: &str, object: &mut Value) {
    for (_, path) in OFF.iter().filter(|(kind, _)| *kind == plural) {
        drop_path(object, path);
    }
}

fn drop_path(value: &mut Value, path: &[&str]) {
    match path {
        [] => {}
        [last] => remove(value, last),
        ["*", rest @ ..] => {
            for item in value.as_array_mut().into_iter().flatten() {
                drop_path(item, rest);
            }
        }
        [first, rest @ ..] => {
            if let Some(child) = at(value, first) {
                drop_path(child, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_filled_in() {
        for (volume, want) in [
            (
                json!({"rbd": {"image": "i", "pool": "p"}}),
                json!({"rbd": {"image": "i", "pool": "p", "user": "admin", "keyring": "/etc/ceph/keyring"}}),
            ),
            (
                json!({"hostPath": {"path": "/"}}),
                json!({"hostPath": {"path": "/", "type": ""}}),
            ),
            (json!({"emptyDir": {}}), json!({"emptyDir": {}})),
        ] {
            let mut filled = volume.clone();
            fill(&mut filled);
            assert_eq!(filled, want, "{volume}");
        }
    }

    #[test]
    fn what_is_off_goes() {
        for (plural, object, want) in [
            (
                "leases",
                json!({"spec": {"strategy": "x", "holderIdentity": "h"}}),
                json!({"spec": {"holderIdentity": "h"}}),
            ),
            (
                "endpointslices",
                json!({"endpoints": [{"deprecatedTopology": {"a": "b"}, "zone": "z"}]}),
                json!({"endpoints": [{"zone": "z"}]}),
            ),
            ("nodes", json!({"spec": {}}), json!({"spec": {}})),
            (
                "pods",
                json!({"spec": {"strategy": 1}}),
                json!({"spec": {"strategy": 1}}),
            ),
        ] {
            let mut left = object.clone();
            drop_off(plural, &mut left);
            assert_eq!(left, want, "{plural}");
        }
    }
}
