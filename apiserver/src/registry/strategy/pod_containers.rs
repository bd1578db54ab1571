//! Containers of a pod: their variables, mounts and devices.

use super::check::{Errors, Spot, descending, no_steps_back};
use super::pod_rules::{all, one_of, one_of_if_set};
use super::pod_volumes::Volumes;
use super::{pod_hooks, pod_parts, pod_refs, pod_resources};
use crate::error::{FieldError, FieldErrorKind};
use crate::registry::names;
use serde_json::json;
use std::collections::BTreeSet;

const SOURCES: [&str; 5] = [
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "fileKeyRef",
];
const RESTARTS: [&str; 3] = ["Always", "Never", "OnFailure"];

/// What is wrong with the containers of a PodSpec, with those of its volumes that are sound.
pub(super) fn validate(spec: &Spot<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let grace = spec.at("terminationGracePeriodSeconds");
    let grace = grace.value.as_i64().unwrap_or(30);
    let mut seen = BTreeSet::new();
    let containers = spec.at("containers");
    containers.required(errors, "");
    for container in containers.items() {
        validate_one(&container, spec, volumes, errors);
        pod_hooks::validate(&container, grace, errors);
        container.at("restartPolicy").among_if_set(errors, &RESTARTS);
        if !container.at("name").is_empty() && !seen.insert(container.at("name").text()) {
            container.at("name").duplicate(errors);
        }
    }
    for container in spec.list("initContainers") {
        validate_one(&container, spec, volumes, errors);
        let restart = container.at("restartPolicy");
        restart.among_if_set(errors, &RESTARTS);
        if !container.at("name").is_empty() && !seen.insert(container.at("name").text()) {
            container.at("name").duplicate(errors);
        }
        if restart.text() == "Always" {
            pod_hooks::validate(&container, grace, errors);
        } else {
            pod_hooks::refuse_for_init(&container, errors);
        }
    }
    host_ports(spec, errors);
}

fn validate_one(container: &Spot<'_>, spec: &Spot<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let at = |key: &str| container.at(key);
    at("name").required_name(errors, names::dns_label);
    let image = at("image");
    if image.required(errors, "") && image.text().trim() != image.text() {
        image.invalid(errors, "must not have leading or trailing whitespace");
    }
    let messages = ["File", "FallbackToLogsOnError"];
    let policy = at("terminationMessagePolicy");
    one_of_if_set(errors, &policy.path, policy.value, &messages);
    validate_ports(container, errors);
    validate_env(container, errors);
    validate_mounts(container, volumes, errors);
    validate_devices(container, volumes, errors);
    let pull = at("imagePullPolicy");
    let policies = ["Always", "IfNotPresent", "Never"];
    one_of(errors, &pull.path, pull.value, &policies);
    pod_resources::validate(&at("resources"), errors);
    validate_resizing(container, spec.at("restartPolicy").text(), errors);
    pod_parts::validate_security(container.value, &container.path, errors);
    validate_file_volumes(container, spec, errors);
}

fn validate_ports(container: &Spot<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in container.list("ports") {
        let name = port.at("name");
        if !name.is_empty() {
            let messages = names::port_name(name.text());
            if messages.is_empty() && !seen.insert(name.text()) {
                name.duplicate(errors);
            }
            all(errors, &name.path, name.value, messages);
        }
        let number = port.at("containerPort");
        let why = "must be between 1 and 65535, inclusive";
        if number.number() == 0 {
            number.missing(errors, "");
        } else {
            number.between(errors, 1, 65535, why);
        }
        if port.at("hostPort").number() != 0 {
            port.at("hostPort").between(errors, 1, 65535, why);
        }
        let protocol = port.at("protocol");
        let protocols = ["SCTP", "TCP", "UDP"];
        one_of(errors, &protocol.path, protocol.value, &protocols);
    }
}

/// No two containers are reached at one port of the node; with the node's own network, it is the container's.
fn host_ports(spec: &Spot<'_>, errors: &mut Errors) {
    for list in ["containers", "initContainers"] {
        let mut seen = BTreeSet::new();
        for port in spec.list(list).iter().flat_map(|c| c.list("ports")) {
            let host = port.at("hostPort");
            if host.number() == 0 {
                continue;
            }
            let key = format!(
                "{}/{}/{}",
                port.at("protocol").text(),
                port.at("hostIP").text(),
                host.number()
            );
            if !seen.insert(key.clone()) {
                errors.push(FieldError::duplicate(&host.path, &json!(key)));
            }
            if list == "containers"
                && spec.value["hostNetwork"] == true
                && host.value != port.at("containerPort").value
            {
                host.invalid(errors, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn validate_env(container: &Spot<'_>, errors: &mut Errors) {
    for variable in container.list("env") {
        variable.at("name").required_name(errors, names::env_name);
        let Some(from) = variable.given("valueFrom") else {
            continue;
        };
        let given: Vec<Spot<'_>> = SOURCES.iter().filter_map(|source| from.given(source)).collect();
        for source in &given {
            match source.path.rsplit('.').next().unwrap_or_default() {
                "fieldRef" => pod_refs::field(source, &pod_refs::FOR_VARIABLES, errors),
                "resourceFieldRef" => pod_refs::amount(source, false, errors),
                "fileKeyRef" => validate_file_key(source, errors),
                _ => pod_refs::key(source, errors),
            }
        }
        let refuse = |errors: &mut Errors, why: &str| from.invalid_shown(errors, "\"\"", why);
        if given.is_empty() {
            refuse(
                errors,
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            );
        } else if !variable.at("value").is_empty() {
            refuse(errors, "may not be specified when `value` is not empty");
        } else if given.len() > 1 {
            refuse(errors, "may not have more than one field specified at a time");
        }
    }
    let list = container.at("envFrom");
    for source in list.items() {
        source.at("prefix").named_if_given(errors, names::env_name);
        let references: Vec<Spot<'_>> = ["configMapRef", "secretRef"]
            .iter()
            .filter_map(|key| source.given(key))
            .collect();
        for reference in &references {
            reference.at("name").required_name(errors, names::dns_subdomain);
        }
        match references.len() {
            0 => list.invalid_shown(
                errors,
                "\"\"",
                "must specify one of: `configMapRef` or `secretRef`",
            ),
            1 => {}
            _ => list.invalid_shown(
                errors,
                "\"\"",
                "may not have more than one field specified at a time",
            ),
        }
    }
}

fn validate_file_key(source: &Spot<'_>, errors: &mut Errors) {
    source.at("key").required(errors, "");
    let volume = source.at("volumeName");
    volume.required_name(errors, names::dns_label);
    if source.at("path").required(errors, "") {
        super::check::not_reserved(&source.at("path"), errors);
    }
}

/// Volumes that variables are read from are the pod's.
fn validate_file_volumes(container: &Spot<'_>, spec: &Spot<'_>, errors: &mut Errors) {
    let volumes = spec.list("volumes");
    for variable in container.list("env") {
        if let Some(source) = variable.at("valueFrom").given("fileKeyRef") {
            let name = source.at("volumeName");
            if !volumes
                .iter()
                .any(|volume| volume.at("name").text() == name.text())
            {
                name.not_found(errors);
            }
        }
    }
}

fn validate_mounts(container: &Spot<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mut paths = BTreeSet::new();
    let list = container.at("volumeMounts");
    for mount in list.items() {
        let name = mount.at("name");
        name.required(errors, "");
        if !volumes.contains_key(name.text()) {
            name.not_found(errors);
        }
        let path = mount.at("mountPath");
        if path.required(errors, "") && !paths.insert(path.text()) {
            path.invalid(errors, "must be unique");
        }
        let of_all = |key: &str| Spot::new(&mount.value[key], format!("{}.{key}", list.path));
        let (below, expression) = (of_all("subPath"), mount.at("subPathExpr"));
        if !below.is_empty() {
            descending(&below, errors);
        }
        if !expression.is_empty() {
            if !below.is_empty() {
                let why = "subPathExpr and subPath are mutually exclusive";
                expression.invalid(errors, why);
            }
            descending(&expression, errors);
        }
        let propagation = of_all("mountPropagation");
        if propagation.is_set() {
            propagation.among(errors, &["Bidirectional", "HostToContainer", "None"]);
            if propagation.text() == "Bidirectional"
                && container.value["securityContext"]["privileged"] != true
            {
                let why = "Bidirectional mount propagation is available only to privileged containers";
                propagation.forbidden(errors, why);
            }
        }
        let below_too = of_all("recursiveReadOnly");
        if matches!(below_too.text(), "Enabled" | "IfPossible") {
            if mount.value["readOnly"] != true {
                below_too.forbidden(errors, "may only be specified when readOnly is true");
            }
            if !matches!(propagation.text(), "" | "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                below_too.forbidden(errors, why);
            }
        } else {
            below_too.among_if_set(errors, &["Disabled", "Enabled", "IfPossible"]);
        }
    }
}

fn validate_devices(container: &Spot<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mounts = container.list("volumeMounts");
    let mounted: BTreeSet<&str> = mounts.iter().map(|m| m.at("mountPath").text()).collect();
    let (mut names_seen, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.list("volumeDevices") {
        let name = device.at("name");
        name.required(errors, "");
        if !names_seen.insert(name.text()) {
            name.invalid(errors, "must be unique");
        }
        match volumes.get(name.text()) {
            Some(&("persistentVolumeClaim" | "ephemeral")) => {}
            Some(_) => {
                let why =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                name.invalid(errors, why);
            }
            None => name.not_found(errors),
        }
        let path = device.at("devicePath");
        if !path.required(errors, "") {
            continue;
        }
        if !paths.insert(path.text()) {
            path.invalid(errors, "must be unique");
        }
        no_steps_back(&path, errors);
        if mounted.contains(path.text()) {
            path.invalid(errors, "must not already exist as a path in volumeMounts");
        }
    }
}

fn validate_resizing(container: &Spot<'_>, pod_restarts: &str, errors: &mut Errors) {
    let list = container.at("resizePolicy");
    let mut seen = BTreeSet::new();
    for policy in list.items() {
        let named = |key: &str| Spot::new(&policy.value[key], &list.path);
        let (name, restart) = (named("resourceName"), named("restartPolicy"));
        if !seen.insert(name.text()) {
            errors.push(FieldError::duplicate(&policy.path, name.value));
        }
        for (field, allowed) in [
            (&name, ["cpu", "memory"]),
            (&restart, ["NotRequired", "RestartContainer"]),
        ] {
            if field.required(errors, "") {
                field.among(errors, &allowed);
            }
        }
        if pod_restarts == "Never" && restart.text() == "RestartContainer" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            restart.refuse(
                errors,
                FieldErrorKind::Invalid,
                format!("Invalid value: \"RestartContainer\": {why}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn told(container: &Value, volumes: &Value) -> Vec<String> {
        let mut one = json!({"name": "c", "image": "i", "imagePullPolicy": "Always"});
        for (key, value) in container.as_object().into_iter().flatten() {
            one[key] = value.clone();
        }
        let spec = json!({"containers": [one], "volumes": volumes});
        let mut errors = Vec::new();
        let spec = Spot::new(&spec, "s");
        let volumes = super::super::pod_volumes::validate(&spec, &mut errors);
        validate(&spec, &volumes, &mut errors);
        errors
            .iter()
            .map(|e| format!("{}: {}", e.field, e.message))
            .collect()
    }

    #[test]
    fn containers() {
        let volumes = json!([{"name": "v", "emptyDir": {}}, {"name": "b", "persistentVolumeClaim": {"claimName": "c"}}]);
        for (container, want) in [
            (json!({}), ""),
            (json!({"volumeMounts": [{"name": "v", "mountPath": "/a"}]}), ""),
            (
                json!({"volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "/b"}]}),
                "volumeMounts.subPath: Invalid value: \"/b\": must be a relative path",
            ),
            (
                json!({"volumeMounts": [{"name": "z", "mountPath": "/a"}]}),
                "volumeMounts[0].name: Not found: \"z\"",
            ),
            (json!({"volumeDevices": [{"name": "b", "devicePath": "/a"}]}), ""),
            (
                json!({"volumeDevices": [{"name": "v", "devicePath": "/a"}]}),
                "volumeDevices[0].name: Invalid value: \"v\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            (
                json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}),
                "env[0].valueFrom.secretKeyRef.key: Required value",
            ),
            (
                json!({"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p", "key": "k"}}}]}),
                "",
            ),
            (
                json!({"envFrom": [{"configMapRef": {}}]}),
                "envFrom[0].configMapRef.name: Required value",
            ),
            (
                json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "x"}]}),
                "resizePolicy: Unsupported value: \"x\": supported values: \"NotRequired\", \"RestartContainer\"",
            ),
        ] {
            let want: Vec<String> = [want]
                .iter()
                .filter(|w| !w.is_empty())
                .map(|w| format!("s.containers[0].{w}"))
                .collect();
            assert_eq!(told(&container, &volumes), want, "{container}");
        }
    }
}
