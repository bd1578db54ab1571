//! What containers and volumes of a pod take from elsewhere: fields of the pod, amounts of a container, keys of ConfigMaps
//! and Secrets.

use super::check::{Errors, Spot, not_reserved};
use crate::error::FieldError;
use crate::registry::names;
use serde_json::json;

/// Fields of a pod that a variable may have.
pub(super) const FOR_VARIABLES: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of a pod that a file may have.
pub(super) const FOR_FILES: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
/// Fields of a pod that have a name at all.
const KNOWN: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const AMOUNTS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTES: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// The bits of a file's mode.
pub(super) fn mode(mode: &Spot<'_>, errors: &mut Errors) {
    mode.between(errors, 0, 0o777, MODE);
}

/// `fieldRef`: one of `allowed`, or a label or annotation by its key.
pub(super) fn field(reference: &Spot<'_>, allowed: &[&str], errors: &mut Errors) {
    let version = reference.at("apiVersion");
    let path = reference.at("fieldPath");
    if !version.required(errors, "") || !path.required(errors, "") {
        return;
    }
    let text = path.text();
    let keyed = text
        .strip_suffix("']")
        .and_then(|rest| rest.split_once("['"))
        .filter(|(map, _)| !map.is_empty());
    let problem = if version.text() != "v1" {
        Some(format!("unsupported pod version: {}", version.text()))
    } else if let Some((map, _)) = keyed {
        let known = matches!(map, "metadata.annotations" | "metadata.labels");
        (!known).then(|| format!("field label does not support subscript: {text}"))
    } else {
        let known = KNOWN.contains(&text) || text == "spec.host";
        (!known).then(|| format!("field label not supported: {text}"))
    };
    if let Some(problem) = problem {
        path.invalid(errors, &format!("error converting fieldPath: {problem}"));
        return;
    }
    match keyed {
        Some((map, key)) => {
            let key = if map == "metadata.annotations" {
                key.to_lowercase()
            } else {
                key.to_owned()
            };
            for message in names::qualified_name(&key) {
                errors.push(FieldError::invalid(&reference.path, &json!(key), &message));
            }
        }
        None if !allowed.contains(&text) => {
            errors.push(FieldError::not_supported(&path.path, path.value, allowed));
        }
        None => {}
    }
}

/// `resourceFieldRef`: an amount of a container, divided by something. A volume has to say of which container.
pub(super) fn amount(reference: &Spot<'_>, in_volume: bool, errors: &mut Errors) {
    let resource = reference.at("resource");
    let name = resource.text();
    if in_volume && reference.at("containerName").is_empty() {
        reference.at("containerName").missing(errors, "");
    } else if name.is_empty() {
        resource.missing(errors, "");
    } else {
        let pages = ["limits.hugepages-", "requests.hugepages-"];
        if !AMOUNTS.contains(&name) && !pages.iter().any(|start| name.starts_with(start)) {
            errors.push(FieldError::not_supported(
                &resource.path,
                resource.value,
                &AMOUNTS,
            ));
        }
    }
    let divisor = reference.at("divisor");
    if divisor.is_empty() || divisor.text() == "0" {
        return;
    }
    let (good, of): (&[&str], _) = match name.split_once('.').map_or("", |(_, of)| of) {
        "cpu" => (&["1m", "1"], "cpu"),
        "memory" => (&BYTES, "memory"),
        "ephemeral-storage" => (&BYTES, "local ephemeral storage"),
        other if other.starts_with("hugepages-") => (&BYTES, "hugepages"),
        _ => return,
    };
    if !good.contains(&divisor.text()) {
        let list = if of == "cpu" {
            "1m and 1".to_owned()
        } else {
            BYTES.join(", ")
        };
        let why = format!("only divisor's values {list} are supported with the {of} resource");
        divisor.invalid_shown(errors, &format!("{name:?}"), &why);
    }
}

/// `configMapKeyRef` or `secretKeyRef`.
pub(super) fn key(reference: &Spot<'_>, errors: &mut Errors) {
    reference.at("name").named(errors, names::dns_subdomain);
    reference.at("key").required_name(errors, names::config_key);
}

/// `items` of a ConfigMap or Secret: which key becomes which file.
pub(super) fn files(source: &Spot<'_>, errors: &mut Errors) {
    for item in source.list("items") {
        item.at("key").required(errors, "");
        if item.at("path").required(errors, "") {
            not_reserved(&item.at("path"), errors);
        }
        mode(&item.at("mode"), errors);
    }
}

/// Files of `downwardAPI`, told of as `downward` itself.
pub(super) fn downward(downward: &Spot<'_>, errors: &mut Errors) {
    for item in downward.list("items") {
        let item = Spot::new(item.value, &downward.path);
        if item.at("path").required(errors, "") {
            not_reserved(&item.at("path"), errors);
        }
        match (item.given("fieldRef"), item.given("resourceFieldRef")) {
            (Some(reference), other) => {
                field(&reference, &FOR_FILES, errors);
                if other.is_some() {
                    let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    item.invalid_shown(errors, "\"resource\"", why);
                }
            }
            (None, Some(reference)) => amount(&reference, true, errors),
            (None, None) => item.missing(errors, "one of fieldRef and resourceFieldRef is required"),
        }
        mode(&item.at("mode"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn told(check: impl Fn(&Spot<'_>, &mut Errors), value: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        check(&Spot::new(value, "r"), &mut errors);
        errors
            .iter()
            .map(|e| format!("{}: {}", e.field, e.message))
            .collect()
    }

    #[test]
    fn fields_of_a_pod() {
        for (path, want) in [
            ("metadata.name", ""),
            ("metadata.labels['a.io/b']", ""),
            (
                "metadata.labels",
                "r.fieldPath: Unsupported value: \"metadata.labels\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
            ),
            (
                "spec.x['a']",
                "r.fieldPath: Invalid value: \"spec.x['a']\": error converting fieldPath: field label does not support subscript: spec.x['a']",
            ),
            (
                "frob",
                "r.fieldPath: Invalid value: \"frob\": error converting fieldPath: field label not supported: frob",
            ),
            ("", "r.fieldPath: Required value"),
        ] {
            let reference = json!({"apiVersion": "v1", "fieldPath": path});
            let told = told(|r, e| field(r, &FOR_VARIABLES, e), &reference);
            assert_eq!(told.join("; "), want, "{path}");
        }
        let key = json!({"apiVersion": "v1", "fieldPath": "metadata.labels['a b']"});
        assert_eq!(told(|r, e| field(r, &FOR_VARIABLES, e), &key).len(), 1);
    }

    #[test]
    fn amounts_of_a_container() {
        for (reference, want) in [
            (json!({"resource": "limits.cpu", "divisor": "1m"}), ""),
            (json!({"resource": "limits.memory", "divisor": "0"}), ""),
            (json!({"resource": "limits.hugepages-2Mi"}), ""),
            (json!({}), "r.resource: Required value"),
            (
                json!({"resource": "limits.cpu", "divisor": "5"}),
                "r.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
            ),
        ] {
            let told = told(|r, e| amount(r, false, e), &reference);
            assert_eq!(told.join("; "), want, "{reference}");
        }
        let nobody = json!({"resource": "limits.cpu"});
        let told = told(|r, e| amount(r, true, e), &nobody);
        assert_eq!(told, ["r.containerName: Required value"]);
    }

    #[test]
    fn files_of_keys_and_fields() {
        for (source, want) in [
            (json!({"items": [{"key": "k", "path": "a/b", "mode": 0o400}]}), 0),
            (json!({"items": [{"key": "k", "path": "/a"}]}), 1),
            (json!({"items": [{}]}), 2),
            (json!({"items": [{"key": "k", "path": "a", "mode": 512}]}), 1),
        ] {
            assert_eq!(told(files, &source).len(), want, "{source}");
        }
        for (source, want) in [
            (
                json!({"items": [{"path": "a", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}]}),
                "",
            ),
            (
                json!({"items": [{"path": "a"}]}),
                "r: Required value: one of fieldRef and resourceFieldRef is required",
            ),
            (
                json!({"items": [{"path": "a", "resourceFieldRef": {"resource": "limits.cpu"}}]}),
                "r.resourceFieldRef.containerName: Required value",
            ),
        ] {
            assert_eq!(told(downward, &source).join("; "), want, "{source}");
        }
    }
}
