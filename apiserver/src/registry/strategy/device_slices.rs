//! ResourceSlices: what a driver publishes of a node's devices.

use super::check::{Errors, Spot};
use super::devices::identifier;
use super::go::{self, NODE_SELECTOR, Part, Shape};
use super::pod_scheduling::validate_node_selector;
use super::volume_sources::driver;
use crate::error::FieldError;
use crate::registry::names;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What is wrong with a ResourceSlice.
pub(super) fn validate(spec: &Spot<'_>, errors: &mut Errors) {
    driver(&spec.at("driver"), errors);
    let pool = spec.at("pool");
    let name = pool.at("name");
    if name.required(errors, "") {
        for part in name.text().split('/') {
            for message in names::dns_subdomain(part) {
                errors.push(FieldError::invalid(&name.path, &json!(part), &message));
            }
        }
    }
    if pool.at("resourceSliceCount").number() <= 0 {
        let count = pool.at("resourceSliceCount");
        count.invalid_shown(errors, &count.number().to_string(), "must be greater than zero");
    }
    let why = "must be greater than or equal to zero";
    pool.at("generation").at_least(errors, 0, why);
    let keys = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let given: Vec<&str> = keys
        .into_iter()
        .filter(|key| match spec.at(key).value {
            Value::Null => false,
            Value::Bool(yes) => *yes,
            Value::String(name) => !name.is_empty(),
            _ => true,
        })
        .collect();
    if let Some(node) = spec.given("nodeName") {
        if node.is_empty() {
            node.invalid(errors, "must be either unset or set to a non-empty string");
        } else {
            node.named(errors, names::dns_subdomain);
        }
    }
    if let Some(selector) = spec.given("nodeSelector") {
        validate_node_selector(selector.value, &selector.path, errors);
        let terms = selector.at("nodeSelectorTerms");
        if terms.items().len() != 1 {
            let shown = go::shown(selector.value, NODE_SELECTOR);
            let shown = shown
                .strip_prefix("{\"NodeSelectorTerms\":")
                .and_then(|rest| rest.strip_suffix('}'))
                .unwrap_or("null");
            let shown = if shown == "null" { "[]" } else { shown };
            terms.invalid_shown(errors, shown, "must have exactly one node selector term");
        }
    }
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.as_slice() {
        [] => spec.missing(errors, one),
        [_] => {}
        several => {
            let several: Vec<String> = several.iter().map(|key| format!("`{key}`")).collect();
            let shown = format!("\"{{{}}}\"", several.join(", "));
            let why = format!("{one}, but multiple fields are set");
            spec.invalid_shown(errors, &shown, &why);
        }
    }
    let mut seen = BTreeSet::new();
    for device in spec.list("devices") {
        let name = device.at("name");
        name.required_label(errors);
        if !seen.insert(name.text()) {
            errors.push(FieldError::duplicate(&device.path, name.value));
        }
        validate_device(&device, errors);
    }
}

fn validate_device(device: &Spot<'_>, errors: &mut Errors) {
    let all = device.at("attributes");
    for (name, attribute) in all.entries() {
        match name.split_once('/') {
            Some((domain, own)) => {
                for message in names::dns_subdomain(domain) {
                    errors.push(FieldError::invalid(&all.path, &json!(domain), &message));
                }
                identifier(&all, own, errors);
            }
            None => identifier(&all, name, errors),
        }
        let values = attribute.value.as_object().into_iter().flatten();
        let one = "exactly one value must be specified";
        match values.filter(|(_, value)| !value.is_null()).count() {
            0 => attribute.invalid_shown(errors, "\"\"", one),
            1 => {}
            _ => attribute.invalid_shown(errors, &go::shown(attribute.value, ATTRIBUTE), one),
        }
        for (key, text) in [
            ("string", attribute.at("string")),
            ("version", attribute.at("version")),
        ] {
            if !text.is_set() {
                continue;
            }
            if key == "version" && !is_semantic(text.text()) {
                let why = "must be a string compatible with semver.org spec 2.0.0";
                text.invalid(errors, why);
            }
            if text.text().len() > 64 {
                let why = "Too long: may not be more than 64 bytes";
                text.refuse(errors, crate::error::FieldErrorKind::TooLong, why);
            }
        }
    }
    for taint in device.list("taints") {
        taint.at("key").named(errors, names::label_key);
        taint.at("value").named_if_given(errors, names::label_value);
        taint
            .at("effect")
            .among(errors, &["NoExecute", "NoSchedule", "None"]);
    }
}

const ATTRIBUTE: &Shape = &[
    ("IntValue", "int", Part::Plain),
    ("BoolValue", "bool", Part::Plain),
    ("StringValue", "string", Part::Plain),
    ("VersionValue", "version", Part::Plain),
    ("IntValues", "ints", Part::Plain),
    ("BoolValues", "bools", Part::Plain),
    ("StringValues", "strings", Part::Plain),
    ("VersionValues", "versions", Part::Plain),
];

/// Whether a version is one of semver.org.
fn is_semantic(version: &str) -> bool {
    let (rest, build) = version
        .split_once('+')
        .map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest
        .split_once('-')
        .map_or((rest, None), |(core, before)| (core, Some(before)));
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let numbers: Vec<&str> = core.split('.').collect();
    numbers.len() == 3
        && numbers.into_iter().all(number)
        && build.is_none_or(|build| build.split('.').all(word))
        && before.is_none_or(|before| {
            before
                .split('.')
                .all(|part| word(part) && (!digits(part) || number(part)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices() {
        let with = |change: Value| {
            let mut spec =
                json!({"driver": "d.io", "nodeName": "n", "pool": {"name": "p", "resourceSliceCount": 1}});
            for (key, value) in change.as_object().into_iter().flatten() {
                spec[key] = value.clone();
            }
            spec
        };
        for (change, want) in [
            (json!({}), vec![]),
            (json!({"allNodes": true}), vec!["spec"]),
            (json!({"nodeName": null}), vec!["spec"]),
            (
                json!({"pool": {"name": "a//b", "resourceSliceCount": 1}}),
                vec!["spec.pool.name"],
            ),
            (
                json!({"devices": [{"name": "d"}, {"name": "d"}]}),
                vec!["spec.devices[1]"],
            ),
            (
                json!({"devices": [{"name": "d", "attributes": {"a": {}}}]}),
                vec!["spec.devices[0].attributes[a]"],
            ),
        ] {
            let spec = with(change.clone());
            let mut errors = Vec::new();
            validate(&Spot::new(&spec, "spec"), &mut errors);
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields, want, "{change}");
        }
    }

    #[test]
    fn versions() {
        for (version, good) in [
            ("1.0.0", true),
            ("1.0.0-a.1+b", true),
            ("1.0.01", false),
            ("1.0", false),
            ("", false),
        ] {
            assert_eq!(is_semantic(version), good, "{version}");
        }
    }
}
