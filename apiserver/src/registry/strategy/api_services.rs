//! `APIService`s: what says that another server serves a version of a group.

use super::check::{Errors, Spot};
use super::json::{at, default};
use crate::object;
use crate::registry::names;
use serde_json::Value;

/// The port a service is asked at when none is said.
const PORT: i64 = 443;
const PRIORITY: i64 = 20_000;
const VERSION_PRIORITY: i64 = 1_000;

pub(super) fn defaults(object: &mut Value) {
    if let Some(service) = at(object, "spec").and_then(|spec| at(spec, "service")) {
        default(service, "port", PORT);
    }
}

/// What is wrong with an `APIService`.
pub(super) fn validate(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Spot::new(&object["spec"], "spec");
    let (group, version) = (spec.at("group"), spec.at("version"));
    let named = format!("{}.{}", version.text(), group.text());
    if object::name(object) != named {
        let why = format!("must be `spec.version+\".\"+spec.group`: {named:?}");
        let name = &object["metadata"]["name"];
        Spot::new(name, "metadata.name").invalid(&mut errors, &why);
    }
    if !group.is_empty() {
        group.named(&mut errors, names::dns_subdomain);
    } else if version.text() != "v1" {
        let why = "only v1 may have an empty group and it better be legacy kube";
        group.missing(&mut errors, why);
    }
    version.named(&mut errors, names::dns_1035_label);
    for (key, most) in [
        ("groupPriorityMinimum", PRIORITY),
        ("versionPriority", VERSION_PRIORITY),
    ] {
        let priority = spec.at(key);
        let number = priority.number();
        if number <= 0 || number > most {
            let why = format!("must be positive and less than {most}");
            priority.invalid_shown(&mut errors, &number.to_string(), &why);
        }
    }
    validate_server(&spec, &mut errors);
    errors
}

/// Where the other server is, and how it is known for who it is.
fn validate_server(spec: &Spot<'_>, errors: &mut Errors) {
    let (bundle, insecure) = (spec.at("caBundle"), spec.at("insecureSkipTLSVerify"));
    let Some(service) = spec.given("service") else {
        if !bundle.is_empty() {
            let text = bundle.text();
            let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
            let shown = format!("\"{} bytes\"", (text.len() / 4 * 3).saturating_sub(padding));
            bundle.invalid_shown(errors, &shown, "local APIServices may not have a caBundle");
        }
        if insecure.value == true {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            insecure.invalid(errors, why);
        }
        return;
    };
    for key in ["namespace", "name"] {
        service.at(key).required(errors, "");
    }
    let port = service.at("port");
    let why = "port is not valid: must be between 1 and 65535, inclusive";
    port.between(errors, 1, 65535, why);
    if insecure.value == true && !bundle.is_empty() {
        insecure.invalid(errors, "may not be true if caBundle is present");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services_of_versions() {
        for (change, want) in [
            (json!({}), vec![]),
            (
                json!({"group": "y.io"}),
                vec![
                    "metadata.name: Invalid value: \"v1.x.io\": must be `spec.version+\".\"+spec.group`: \"v1.y.io\"",
                ],
            ),
            (
                json!({"versionPriority": 0}),
                vec!["spec.versionPriority: Invalid value: 0: must be positive and less than 1000"],
            ),
            (
                json!({"insecureSkipTLSVerify": true}),
                vec![
                    "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
                ],
            ),
            (
                json!({"caBundle": "eA=="}),
                vec!["spec.caBundle: Invalid value: \"1 bytes\": local APIServices may not have a caBundle"],
            ),
            (
                json!({"service": {"name": "s", "namespace": "n", "port": 0}}),
                vec![
                    "spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                ],
            ),
        ] {
            let mut object = json!({"metadata": {"name": "v1.x.io"},
                "spec": {"group": "x.io", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10}});
            for (key, value) in change.as_object().into_iter().flatten() {
                object["spec"][key] = value.clone();
            }
            defaults(&mut object);
            let told: Vec<String> = validate(&object)
                .iter()
                .map(|e| format!("{}: {}", e.field, e.message))
                .collect();
            assert_eq!(told, want, "{change}");
        }
    }
}
