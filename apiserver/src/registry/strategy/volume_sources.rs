//! Where the content of a volume may be, for pods and PersistentVolumes: what each kind of source must say.
//!
//! Most of it is a table of fields that must be there; a few sources have rules of their own.

use super::check::{Errors, Spot, no_steps_back};
use crate::error::{FieldError, FieldErrorKind};
use crate::registry::names;
use serde_json::Value;

/// Sources and what of them must be there.
const NEEDED: [(&str, &[&str]); 20] = [
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("hostPath", &["path"]),
    ("local", &["path"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("rbd", &["monitors", "image"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("azureFile", &["secretName", "shareName"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("secret", &["secretName"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("image", &["reference"]),
];
const HOST_PATHS: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
const BLOBS: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
const MANAGED: &str =
    "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
/// Secrets that a persistent CSI volume names and Kubernetes checks.
const CSI_SECRETS: [&str; 4] = [
    "controllerPublishSecretRef",
    "controllerExpandSecretRef",
    "nodePublishSecretRef",
    "nodeExpandSecretRef",
];

/// What is wrong with the source `kind` of `volume`, which is a pod's or, `persistent`, the spec of a PersistentVolume.
pub(super) fn validate(volume: &Spot<'_>, kind: &str, persistent: bool, errors: &mut Errors) {
    // As it was called before it was of Google alone.
    let name = if kind == "gcePersistentDisk" {
        "persistentDisk"
    } else {
        kind
    };
    let source = volume.named_at(kind, name);
    let needed = NEEDED.iter().find(|(known, _)| *known == kind);
    for field in needed.iter().flat_map(|(_, fields)| *fields) {
        source.at(field).required(errors, "");
    }
    match kind {
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            let why = "must be between 1 and 255, inclusive";
            source.at("partition").between(errors, 0, 255, why);
        }
        "hostPath" => {
            no_steps_back(&source.at("path"), errors);
            source.at("type").among_if_set(errors, &HOST_PATHS);
        }
        "local" => no_steps_back(&source.at("path"), errors),
        "nfs" if !source.at("path").text().starts_with('/') => {
            source.at("path").invalid_text(errors, "must be an absolute path");
        }
        "iscsi" => iscsi(&source, persistent, errors),
        "fc" => fibre_channel(&source, errors),
        "flocker" => flocker(&source, errors),
        "quobyte" => quobyte(&source, errors),
        "azureDisk" => azure_disk(&source, errors),
        "azureFile" if persistent && source.at("secretNamespace").is_set() => {
            source.at("secretNamespace").required(errors, "");
        }
        "storageos" => {
            source.at("volumeName").required_name(errors, names::dns_label);
            source
                .at("volumeNamespace")
                .named_if_given(errors, names::dns_label);
            secret(&source, persistent, errors);
        }
        "cinder" => secret(&source, persistent, errors),
        "csi" if persistent => {
            driver(&source.at("driver"), errors);
            source.at("volumeHandle").required(errors, "");
            for reference in CSI_SECRETS {
                if let Some(secret) = source.given(reference) {
                    secret.at("name").required_name(errors, names::dns_subdomain);
                    secret.at("namespace").required_name(errors, names::dns_label);
                }
            }
        }
        "csi" => {
            driver(&source.at("driver"), errors);
            if let Some(secret) = source.given("nodePublishSecretRef")
                && secret.at("name").required(errors, "")
            {
                let mut name = source.at("name");
                name.value = &secret.value["name"];
                name.named(errors, names::dns_subdomain);
            }
        }
        "image" => {
            let policies = ["Always", "IfNotPresent", "Never"];
            source.at("pullPolicy").among_if_set(errors, &policies);
        }
        _ => {}
    }
}

/// The name of a CSI driver.
pub(super) fn driver(name: &Spot<'_>, errors: &mut Errors) {
    if !name.required(errors, "") {
        return;
    }
    if name.text().len() > 63 {
        let why = "Too long: may not be more than 63 bytes";
        name.refuse(errors, FieldErrorKind::TooLong, why);
    }
    for message in names::dns_subdomain(&name.text().to_lowercase()) {
        name.invalid(errors, &message);
    }
}

fn secret(source: &Spot<'_>, persistent: bool, errors: &mut Errors) {
    if let Some(secret) = source.given("secretRef") {
        secret.at("name").required(errors, "");
        if persistent {
            secret.at("namespace").required(errors, "");
        }
    }
}

fn iscsi(source: &Spot<'_>, persistent: bool, errors: &mut Errors) {
    let name = source.at("iqn");
    if !name.is_empty() {
        initiator(&name, persistent, errors);
    }
    let why = "must be between 0 and 255, inclusive";
    source.at("lun").between(errors, 0, 255, why);
    let asked = ["chapAuthDiscovery", "chapAuthSession"];
    let secret = source.at("secretRef");
    if asked.iter().any(|key| source.value[*key] == true) && !secret.is_set() {
        secret.missing(errors, "");
    }
    if persistent && secret.is_set() {
        secret.at("name").required(errors, "");
    }
    if source.at("initiatorName").is_set() {
        let name = source.named_at("initiatorName", "initiatorname");
        initiator(&name, persistent, errors);
    }
}

/// The name of an iSCSI node.
fn initiator(name: &Spot<'_>, persistent: bool, errors: &mut Errors) {
    const NONE: &str = "must be valid format starting with iqn, eui, or naa";
    let text = name.text();
    let letters = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
    // A letter of any kind stands for the dot that should be there.
    let of_length = |length: usize| text.get(4..).is_some_and(|t| t.len() == length && letters(t));
    let good = if text.starts_with("iqn") {
        qualified(text)
    } else if text.starts_with("eui") {
        of_length(16)
    } else if text.starts_with("naa") {
        of_length(32)
    } else {
        if !persistent {
            name.invalid(errors, NONE);
            return;
        }
        false
    };
    if !good {
        name.invalid(errors, "must be valid format");
    }
}

/// Whether a name is like `iqn.2001-04.com.example:storage`.
fn qualified(text: &str) -> bool {
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let Some((date, rest)) = text.strip_prefix("iqn.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let dated = date
        .split_once('-')
        .is_some_and(|(year, month)| digits(year, 4) && digits(month, 2));
    let Some((domain, own)) = rest.split_once(':') else {
        return false;
    };
    let domain_good = !domain.is_empty()
        && domain
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    dated && domain_good && !own.is_empty() && !own.contains([',', ';', '*', '&', '$', '|', ' ', '\t'])
}

fn fibre_channel(source: &Spot<'_>, errors: &mut Errors) {
    let (targets, ids) = (source.at("targetWWNs"), source.at("wwids"));
    if targets.is_empty() && ids.is_empty() {
        targets.missing(errors, "must specify either targetWWNs or wwids, but not both");
    } else if !targets.is_empty() && !ids.is_empty() {
        targets.invalid(errors, "targetWWNs and wwids can not be specified simultaneously");
    }
    let lun = source.at("lun");
    if targets.is_empty() {
        return;
    }
    if lun.is_set() {
        lun.between(errors, 0, 255, "must be between 0 and 255, inclusive");
    } else {
        lun.missing(errors, "lun is required if targetWWNs is specified");
    }
}

fn flocker(source: &Spot<'_>, errors: &mut Errors) {
    let (name, id) = (source.at("datasetName"), source.at("datasetUUID"));
    if name.is_empty() && id.is_empty() {
        source.missing(errors, "one of datasetName and datasetUUID is required");
    } else if !name.is_empty() && !id.is_empty() {
        let why = "datasetName and datasetUUID can not be specified simultaneously";
        source.invalid_shown(errors, "\"resource\"", why);
    }
    if name.text().contains('/') {
        name.invalid(errors, "must not contain '/'");
    }
}

fn quobyte(source: &Spot<'_>, errors: &mut Errors) {
    let registry = source.at("registry");
    if registry.required(errors, PAIRS) {
        for pair in registry.text().split(',') {
            let good = pair
                .rsplit_once(':')
                .is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
            if !good {
                registry.invalid(errors, PAIRS);
            }
        }
    }
    if source.at("tenant").text().len() >= 65 {
        let why = "must be UUID and may not exceed a length of 64 characters";
        source.at("tenant").missing(errors, why);
    }
    source.at("volume").required(errors, "");
}

fn azure_disk(source: &Spot<'_>, errors: &mut Errors) {
    source
        .at("cachingMode")
        .among_if_set(errors, &["None", "ReadOnly", "ReadWrite"]);
    source
        .at("kind")
        .among_if_set(errors, &["Dedicated", "Managed", "Shared"]);
    let uri = source.at("diskURI");
    let (start, example) = if source.value["kind"] == "Managed" {
        ("/subscriptions/", MANAGED)
    } else {
        ("https://", BLOBS)
    };
    if !uri.text().starts_with(start) {
        let text = Value::from(uri.text());
        errors.push(FieldError::not_supported(&uri.path, &text, &[example]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(kind: &str, source: &Value, persistent: bool) -> Vec<String> {
        let volume = json!({ kind: source });
        let mut errors = Vec::new();
        validate(&Spot::new(&volume, "v"), kind, persistent, &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn sources_say_what_they_need() {
        for (kind, source, want) in [
            ("nfs", json!({"server": "s", "path": "/p"}), vec![]),
            ("nfs", json!({"server": "s", "path": "p"}), vec!["v.nfs.path"]),
            (
                "gcePersistentDisk",
                json!({"partition": 256}),
                vec!["v.persistentDisk.pdName", "v.persistentDisk.partition"],
            ),
            ("fc", json!({}), vec!["v.fc.targetWWNs"]),
            ("fc", json!({"targetWWNs": ["a"]}), vec!["v.fc.lun"]),
            ("fc", json!({"wwids": ["a"]}), vec![]),
            ("hostPath", json!({"path": "/a", "type": "Directory"}), vec![]),
            (
                "hostPath",
                json!({"path": "/../a", "type": "x"}),
                vec!["v.hostPath.path", "v.hostPath.type"],
            ),
            (
                "flocker",
                json!({"datasetName": "a/b"}),
                vec!["v.flocker.datasetName"],
            ),
            ("quobyte", json!({"registry": "a:1,b:2", "volume": "v"}), vec![]),
            (
                "quobyte",
                json!({"registry": "a", "volume": "v"}),
                vec!["v.quobyte.registry"],
            ),
            (
                "azureDisk",
                json!({"diskName": "d", "diskURI": "https://x"}),
                vec![],
            ),
            (
                "azureDisk",
                json!({"diskName": "d", "diskURI": "https://x", "kind": "Managed"}),
                vec!["v.azureDisk.diskURI"],
            ),
            ("csi", json!({"driver": "d.io"}), vec![]),
            ("csi", json!({"driver": "d_"}), vec!["v.csi.driver"]),
            (
                "csi",
                json!({"driver": "d.io", "nodePublishSecretRef": {"name": "A_"}}),
                vec!["v.csi.name"],
            ),
            (
                "image",
                json!({"pullPolicy": "x"}),
                vec!["v.image.reference", "v.image.pullPolicy"],
            ),
        ] {
            assert_eq!(told(kind, &source, false), want, "{kind} {source}");
        }
        let source = json!({"driver": "d.io", "volumeHandle": "h", "nodeExpandSecretRef": {"name": "n"}});
        assert_eq!(
            told("csi", &source, true),
            ["v.csi.nodeExpandSecretRef.namespace"]
        );
    }

    #[test]
    fn names_of_nodes() {
        let sixteen = "0123456789abcdef";
        for (name, good) in [
            ("iqn.2001-04.com.example:storage".to_owned(), true),
            ("iqn.2001-04.com.example".to_owned(), false),
            ("iqn.frob".to_owned(), false),
            (format!("eui.{sixteen}"), true),
            ("eui.0".to_owned(), false),
            (format!("naa.{sixteen}{sixteen}"), true),
            ("frob".to_owned(), false),
        ] {
            let source = json!({"targetPortal": "p", "iqn": name, "lun": 0});
            assert_eq!(told("iscsi", &source, false).is_empty(), good, "{name}");
        }
    }
}
