//! Volumes of a pod: one source each, and that source sound.

use super::check::{Errors, Spot};
use super::metadata::{validate_annotations, validate_labels};
use super::{claims, pod_refs, quantity, volume_sources};
use crate::registry::names;
use std::collections::{BTreeMap, BTreeSet};

/// Names of a pod's volumes, and the source of each. Those with an error in them are not there.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a str>;

/// The shortest and the longest life of a token in a volume, in seconds.
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

/// What is wrong with the volumes of a PodSpec, and those nothing is wrong with.
pub(super) fn validate<'a>(spec: &Spot<'a>, errors: &mut Errors) -> Volumes<'a> {
    let mut sound = Volumes::new();
    for volume in spec.list("volumes") {
        let mut own = Vec::new();
        let source = validate_source(&volume, &mut own);
        let name = volume.at("name");
        if name.required(&mut own, "") {
            let before = own.len();
            name.named(&mut own, names::dns_label);
            if own.len() == before && sound.contains_key(name.text()) {
                name.duplicate(&mut own);
            }
        }
        if own.is_empty() {
            sound.insert(name.text(), source);
        }
        errors.append(&mut own);
    }
    sound
}

/// The sources Kubernetes looks at first; of two, the second is refused.
const FIRST: [&str; 19] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "azureFile",
    "configMap",
    "vsphereVolume",
];

fn validate_source<'a>(volume: &Spot<'a>, errors: &mut Errors) -> &'a str {
    let mut kinds: Vec<&str> = volume
        .value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(kind, source)| *kind != "name" && !source.is_null())
        .map(|(kind, _)| kind.as_str())
        .collect();
    kinds.sort_by_key(|kind| FIRST.iter().position(|k| k == kind).unwrap_or(FIRST.len()));
    for (i, kind) in kinds.iter().enumerate() {
        let source = volume.at(kind);
        if i > 0 {
            source.forbidden(errors, "may not specify more than 1 volume type");
            continue;
        }
        match *kind {
            "emptyDir" => {
                let size = source.at("sizeLimit");
                if size
                    .value
                    .as_str()
                    .and_then(quantity::nanos)
                    .is_some_and(|n| n < 0)
                {
                    size.forbidden(errors, "SizeLimit field must be a valid resource quantity");
                }
            }
            "configMap" | "secret" => {
                let name = if *kind == "secret" { "secretName" } else { "name" };
                source.at(name).required(errors, "");
                pod_refs::mode(&source.at("defaultMode"), errors);
                pod_refs::files(&source, errors);
            }
            "downwardAPI" => {
                pod_refs::mode(&source.at("defaultMode"), errors);
                pod_refs::downward(&source, errors);
            }
            "projected" => projected(&source, errors),
            "ephemeral" => {
                let template = source.at("volumeClaimTemplate");
                if template.is_set() {
                    let meta = template.at("metadata");
                    let (labels, notes) = (meta.at("labels"), meta.at("annotations"));
                    errors.extend(validate_annotations(notes.value, &notes.path));
                    errors.extend(validate_labels(labels.value, &labels.path));
                    claims::validate(&template.at("spec"), errors);
                } else {
                    template.missing(errors, "");
                }
            }
            _ => volume_sources::validate(volume, kind, false, errors),
        }
    }
    kinds.first().copied().unwrap_or_default()
}

fn projected(projected: &Spot<'_>, errors: &mut Errors) {
    let mut paths = BTreeSet::new();
    let mut clash = |path: &str, shown: &str, errors: &mut Errors| {
        if !path.is_empty() && !paths.insert(path.to_owned()) {
            projected.invalid_shown(errors, &format!("{shown:?}"), "conflicting duplicate paths");
        }
    };
    for source in projected.list("sources") {
        let kinds = source.value.as_object().into_iter().flatten();
        if kinds.filter(|(_, value)| !value.is_null()).count() > 1 {
            source.forbidden(errors, "may not specify more than 1 volume type per source");
        }
        for kind in ["secret", "configMap"] {
            let Some(part) = source.given(kind) else { continue };
            part.at("name").required(errors, "");
            pod_refs::files(&part, errors);
            for item in part.list("items") {
                clash(item.at("path").text(), part.at("name").text(), errors);
            }
        }
        if let Some(part) = source.given("downwardAPI") {
            pod_refs::downward(&part, errors);
            for item in part.list("items") {
                let path = item.at("path").text();
                clash(path, path, errors);
            }
        }
        if let Some(token) = source.given("serviceAccountToken") {
            let life = token.at("expirationSeconds");
            let why = "may not specify a duration less than 10 minutes";
            life.at_least(errors, SHORTEST, why);
            if life.number() > LONGEST {
                let why = "may not specify a duration larger than 2^32 seconds";
                life.invalid(errors, why);
            }
            let path = Spot::new(&token.value["path"], format!("{}.path", projected.path));
            if path.required(errors, "") {
                super::check::not_reserved(&path, errors);
            }
        }
    }
    pod_refs::mode(&projected.at("defaultMode"), errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(volume: &Value) -> (Vec<String>, usize) {
        let spec = json!({ "volumes": [volume] });
        let mut errors = Vec::new();
        let sound = validate(&Spot::new(&spec, "s"), &mut errors).len();
        (errors.into_iter().map(|e| e.field).collect(), sound)
    }

    #[test]
    fn volumes() {
        for (volume, want) in [
            (json!({"name": "a", "emptyDir": {"sizeLimit": "1Gi"}}), vec![]),
            (
                json!({"name": "a", "emptyDir": {"sizeLimit": "-1"}}),
                vec!["emptyDir.sizeLimit"],
            ),
            (json!({"name": "A_", "emptyDir": {}}), vec!["name"]),
            (
                json!({"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}),
                vec!["hostPath"],
            ),
            (json!({"name": "a", "secret": {}}), vec!["secret.secretName"]),
            (
                json!({"name": "a", "configMap": {"name": "c", "defaultMode": -1}}),
                vec!["configMap.defaultMode"],
            ),
            (
                json!({"name": "a", "ephemeral": {}}),
                vec!["ephemeral.volumeClaimTemplate"],
            ),
            (
                json!({"name": "a", "projected": {"sources": [{"serviceAccountToken": {"expirationSeconds": 1}}]}}),
                vec![
                    "projected.sources[0].serviceAccountToken.expirationSeconds",
                    "projected.path",
                ],
            ),
            (
                json!({"name": "a", "projected": {"sources": [{"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}},
                    {"configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}}]}}),
                vec!["projected"],
            ),
            (json!({"name": "a", "projected": {"defaultMode": 420}}), vec![]),
        ] {
            let (fields, sound) = told(&volume);
            let want: Vec<String> = want.iter().map(|w| format!("s.volumes[0].{w}")).collect();
            assert_eq!(fields, want, "{volume}");
            assert_eq!(sound, usize::from(want.is_empty()), "{volume}");
        }
    }
}
