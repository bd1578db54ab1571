//! storage.k8s.io: classes, drivers and what they say of nodes and capacity.

use super::check::{Errors, Spot};
use super::json::same;
use super::volume_sources::driver;
use super::{quantity, selector};
use crate::error::FieldError;
use crate::registry::names;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The longest id of a node.
const NODE_ID: usize = 256;
/// The most parameters of a class, and bytes in all of them.
const MANY_PARAMETERS: usize = 512;
const LONG_PARAMETERS: usize = 256 * 1024;

/// What is wrong with an object of these kinds.
pub(super) fn validate(plural: &str, object: &Value) -> Errors {
    let mut errors = Vec::new();
    let root = Spot::new(object, "");
    let spec = root.at("spec");
    match plural {
        "storageclasses" => {
            parameters(&root.at("parameters"), &mut errors);
            topologies(&root.at("allowedTopologies"), &mut errors);
        }
        "volumeattributesclasses" => {
            driver(&root.at("driverName"), &mut errors);
            let parameters_at = root.at("parameters");
            let why = "must contain at least one key/value pair";
            if parameters_at.required(&mut errors, why) {
                parameters(&parameters_at, &mut errors);
            }
        }
        "csidrivers" => validate_driver(&spec, &mut errors),
        "csinodes" => validate_node(&spec, &mut errors),
        "csistoragecapacities" => {
            root.at("storageClassName")
                .named(&mut errors, names::dns_subdomain);
            let amount = root.at("capacity");
            let nanos = amount.value.as_str().and_then(quantity::nanos);
            if nanos.is_some_and(|n| n < 0) {
                let why = "must be greater than or equal to 0";
                amount.invalid(&mut errors, why);
            }
            let topology = root.at("nodeTopology");
            errors.extend(selector::validate(topology.value, &topology.path));
        }
        "volumeattachments" => validate_attachment(&spec, &mut errors),
        _ => {}
    }
    errors
}

fn parameters(parameters: &Spot<'_>, errors: &mut Errors) {
    let entries = parameters.entries();
    if entries.len() > MANY_PARAMETERS {
        let why = format!("Too long: may not be more than {MANY_PARAMETERS} bytes");
        parameters.refuse(errors, crate::error::FieldErrorKind::TooLong, why);
        return;
    }
    let mut size = 0;
    for (key, value) in &entries {
        if key.is_empty() {
            parameters.invalid_shown(errors, "\"\"", "field can not be empty.");
        }
        size += key.len() + value.text().len();
    }
    if size > LONG_PARAMETERS {
        let why = format!("Too long: may not be more than {LONG_PARAMETERS} bytes");
        parameters.refuse(errors, crate::error::FieldErrorKind::TooLong, why);
    }
}

fn topologies(topologies: &Spot<'_>, errors: &mut Errors) {
    let mut seen: Vec<&Value> = Vec::new();
    for topology in topologies.items() {
        let expressions = topology.at("matchLabelExpressions");
        let mut keys = BTreeSet::new();
        for expression in expressions.items() {
            let (key, values) = (expression.at("key"), expression.at("values"));
            values.required(errors, "");
            let mut listed = BTreeSet::new();
            for value in values.items() {
                if !listed.insert(value.text()) {
                    value.duplicate(errors);
                }
            }
            key.named(errors, names::label_key);
            if !keys.insert(key.text()) {
                key.duplicate(errors);
            }
        }
        if seen.contains(&topology.value) {
            errors.push(FieldError::duplicate(&expressions.path, &json!("")));
        }
        seen.push(topology.value);
    }
}

fn validate_driver(spec: &Spot<'_>, errors: &mut Errors) {
    let modes = spec.at("volumeLifecycleModes");
    for mode in modes.items() {
        Spot::new(mode.value, &modes.path).among(errors, &["Persistent", "Ephemeral"]);
    }
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    spec.at("fsGroupPolicy").among_if_set(errors, &policies);
    let tokens = spec.at("tokenRequests");
    let mut seen = BTreeSet::new();
    for token in tokens.items() {
        let audience = token.at("audience");
        if !seen.insert(audience.text()) {
            audience.duplicate(errors);
        }
        let life = token.at("expirationSeconds");
        let why = "may not specify a duration less than 10 minutes";
        life.at_least(errors, 600, why);
        if life.number() > 1 << 32 {
            let why = "may not specify a duration larger than 2^32 seconds";
            life.invalid(errors, why);
        }
    }
    let secrets = spec.at("serviceAccountTokenInSecrets");
    if secrets.value == true && tokens.is_empty() {
        let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        secrets.invalid(errors, why);
    }
    let why = "must be greater than or equal to 10 seconds";
    spec.at("nodeAllocatableUpdatePeriodSeconds")
        .at_least(errors, 10, why);
}

fn validate_node(spec: &Spot<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for plugin in spec.list("drivers") {
        let (name, id) = (plugin.at("name"), plugin.at("nodeID"));
        driver(&name, errors);
        id.required(errors, "");
        if id.text().len() > NODE_ID {
            id.invalid(errors, &format!("must be {NODE_ID} characters or less"));
        }
        plugin.at("allocatable").at("count").not_negative(errors);
        let mut keys = BTreeSet::new();
        for key in plugin.list("topologyKeys") {
            let key = Spot::new(key.value, &plugin.path);
            key.required(errors, "");
            if !keys.insert(key.text()) {
                key.duplicate(errors);
            }
            key.named(errors, names::label_key);
        }
        if !seen.insert(name.text()) {
            name.duplicate(errors);
        }
    }
}

fn validate_attachment(spec: &Spot<'_>, errors: &mut Errors) {
    driver(&spec.at("attacher"), errors);
    let source = spec.at("source");
    let (name, inline) = (source.at("persistentVolumeName"), source.at("inlineVolumeSpec"));
    if name.is_set() == inline.is_set() {
        let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        source.missing(errors, why);
    }
    if name.is_set() {
        name.required(errors, "must specify non empty persistentVolumeName");
        name.named(errors, names::dns_subdomain);
    }
    if inline.is_set() && !inline.at("csi").is_set() {
        let why = "has to be specified in the context of inline volumes";
        inline.at("csi").missing(errors, why);
    }
    spec.at("nodeName").named(errors, names::dns_subdomain);
}

/// What of an object of these kinds may not change.
pub(super) fn validate_update(plural: &str, new: &Value, old: &Value) -> Errors {
    if plural != "volumeattributesclasses" {
        return Vec::new();
    }
    ["driverName", "parameters"]
        .into_iter()
        .filter(|key| !same(&new[*key], &old[*key]))
        .map(|key| FieldError::forbidden(key, &format!("updates to {key} are forbidden.")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_drivers() {
        let terms =
            |expressions: Value| json!({"allowedTopologies": [{"matchLabelExpressions": expressions}]});
        for (plural, object, want) in [
            (
                "storageclasses",
                terms(json!([{"key": "a", "values": ["b"]}])),
                "",
            ),
            (
                "storageclasses",
                terms(json!([{"key": "a", "values": []}])),
                "allowedTopologies[0].matchLabelExpressions[0].values",
            ),
            (
                "storageclasses",
                terms(json!([{"key": "a", "values": ["b"]}, {"key": "a", "values": ["c"]}])),
                "allowedTopologies[0].matchLabelExpressions[1].key",
            ),
            ("storageclasses", json!({"parameters": {"": "x"}}), "parameters"),
            (
                "volumeattributesclasses",
                json!({"driverName": "d.io"}),
                "parameters",
            ),
            (
                "csidrivers",
                json!({"spec": {"tokenRequests": [{"audience": "a", "expirationSeconds": 1}]}}),
                "spec.tokenRequests[0].expirationSeconds",
            ),
            (
                "csidrivers",
                json!({"spec": {"volumeLifecycleModes": ["Frob"]}}),
                "spec.volumeLifecycleModes",
            ),
            (
                "csinodes",
                json!({"spec": {"drivers": [{"name": "d.io", "nodeID": "n"}, {"name": "d.io", "nodeID": "n"}]}}),
                "spec.drivers[1].name",
            ),
            (
                "csinodes",
                json!({"spec": {"drivers": [{"name": "d.io", "nodeID": "n", "topologyKeys": ["a", "a"]}]}}),
                "spec.drivers[0]",
            ),
            (
                "csistoragecapacities",
                json!({"storageClassName": "s", "capacity": "-1"}),
                "capacity",
            ),
            (
                "volumeattachments",
                json!({"spec": {"attacher": "d.io", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
                "",
            ),
            (
                "volumeattachments",
                json!({"spec": {"attacher": "d.io", "nodeName": "n", "source": {}}}),
                "spec.source",
            ),
        ] {
            let errors = validate(plural, &object);
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields.join(" "), want, "{object}");
        }
    }
}
