//! resource.k8s.io: claims of devices, classes and what drivers publish of a node.

use super::check::{Errors, Spot};
use super::device_slices;
use super::go::{self, Part, Shape};
use super::json::{at, default, each, text};
use super::volume_sources::driver;
use crate::error::FieldError;
use crate::registry::names;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
const NO_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
const FIXED: &str = "field is immutable";
const SELECTOR: &Shape = &[(
    "CEL",
    "cel",
    Part::One(&[("Expression", "expression", Part::Text)]),
)];
const EXACTLY: &Shape = &[
    ("DeviceClassName", "deviceClassName", Part::Text),
    ("Selectors", "selectors", Part::Many(SELECTOR)),
    ("AllocationMode", "allocationMode", Part::Text),
    ("Count", "count", Part::Plain),
    ("AdminAccess", "adminAccess", Part::Plain),
    ("Tolerations", "tolerations", Part::Plain),
    ("Capacity", "capacity", Part::Plain),
];
const DEVICE_CLAIM: &Shape = &[
    (
        "Requests",
        "requests",
        Part::Many(&[
            ("Name", "name", Part::Text),
            ("Exactly", "exactly", Part::One(EXACTLY)),
            ("FirstAvailable", "firstAvailable", Part::Plain),
        ]),
    ),
    (
        "Constraints",
        "constraints",
        Part::Many(&[
            ("Requests", "requests", Part::Plain),
            ("MatchAttribute", "matchAttribute", Part::Plain),
            ("DistinctAttribute", "distinctAttribute", Part::Plain),
        ]),
    ),
    ("Config", "config", Part::Plain),
];
const CLAIM: &Shape = &[("Devices", "devices", Part::Own(DEVICE_CLAIM))];
const TEMPLATE: &Shape = &[("Spec", "spec", Part::Own(CLAIM))];

/// Defaults by plural.
pub(super) fn defaults(plural: &str, object: &mut Value) {
    let spec = match plural {
        "resourceclaims" => at(object, "spec"),
        "resourceclaimtemplates" => at(object, "spec").and_then(|spec| at(spec, "spec")),
        _ => None,
    };
    let Some(devices) = spec.and_then(|spec| at(spec, "devices")) else {
        return;
    };
    for request in each(devices, "requests") {
        if let Some(exactly) = at(request, "exactly") {
            default_request(exactly);
        }
        for sub in each(request, "firstAvailable") {
            default_request(sub);
        }
    }
}

fn default_request(request: &mut Value) {
    default(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        // Its zero value is the same as none.
        if request["count"] == 0 {
            request["count"] = Value::Null;
        }
        default(request, "count", 1);
    }
}

/// What is wrong with an object of these kinds.
pub(super) fn validate(plural: &str, object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Spot::new(&object["spec"], "spec");
    match plural {
        "resourceclaims" => validate_claim(&spec.at("devices"), &mut errors),
        "resourceclaimtemplates" => validate_claim(&spec.at("spec").at("devices"), &mut errors),
        "deviceclasses" => validate_class(&spec, &mut errors),
        "resourceslices" => device_slices::validate(&spec, &mut errors),
        _ => {}
    }
    errors
}

fn validate_claim(devices: &Spot<'_>, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    let mut twice = Vec::new();
    for request in devices.list("requests") {
        let name = request.at("name");
        if name.required_label(errors) && !known.insert(name.text().to_owned()) {
            twice.push(FieldError::duplicate(&request.path, name.value));
        }
        let (exactly, first) = (request.at("exactly"), request.at("firstAvailable"));
        match (exactly.is_set(), !first.is_empty()) {
            (true, true) => {
                let why =
                    "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                request.invalid_shown(errors, "null", why);
            }
            (false, false) => {
                request.missing(errors, "exactly one of `exactly` or `firstAvailable` is required");
            }
            (true, false) => validate_request(&exactly, errors),
            (false, true) => {
                let mut seen = BTreeSet::new();
                for sub in first.items() {
                    let own = sub.at("name");
                    own.required_label(errors);
                    validate_request(&sub, errors);
                    if !seen.insert(own.text()) {
                        errors.push(FieldError::duplicate(&sub.path, own.value));
                    }
                    known.insert(format!("{}/{}", name.text(), own.text()));
                }
            }
        }
    }
    errors.append(&mut twice);
    for constraint in devices.list("constraints") {
        requests(&constraint, &known, errors);
        let attributes = ["matchAttribute", "distinctAttribute"].map(|key| constraint.at(key));
        if let Some(attribute) = attributes.iter().find(|attribute| attribute.is_set()) {
            validate_attribute(attribute, errors);
        } else {
            let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            constraint.missing(errors, why);
        }
    }
    for config in devices.list("config") {
        requests(&config, &known, errors);
        validate_opaque(&config.at("opaque"), errors);
    }
}

/// The requests a constraint or a configuration is about.
fn requests(holder: &Spot<'_>, known: &BTreeSet<String>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for request in holder.list("requests") {
        for part in request.text().splitn(2, '/') {
            for message in names::dns_label(part) {
                errors.push(FieldError::invalid(&request.path, &json!(part), &message));
            }
        }
        if !known.contains(request.text()) {
            request.invalid_text(errors, NO_REQUEST);
        }
        if !seen.insert(request.text()) {
            request.duplicate(errors);
        }
    }
}

fn validate_request(request: &Spot<'_>, errors: &mut Errors) {
    request
        .at("deviceClassName")
        .required_name(errors, names::dns_subdomain);
    selectors(request, errors);
    let (mode, count) = (request.at("allocationMode"), request.at("count"));
    match mode.text() {
        "All" if count.number() != 0 => {
            count.invalid(errors, "must not be specified when allocationMode is 'All'");
        }
        "All" => {}
        "ExactCount" => count.at_least(errors, 1, "must be greater than zero"),
        _ => mode.among(errors, &["All", "ExactCount"]),
    }
}

fn selectors(holder: &Spot<'_>, errors: &mut Errors) {
    for selector in holder.list("selectors") {
        let cel = selector.at("cel");
        if !cel.is_set() {
            cel.missing(errors, "");
        }
    }
}

/// A name with the domain of who defined it.
fn validate_attribute(attribute: &Spot<'_>, errors: &mut Errors) {
    let Some((domain, own)) = attribute.text().split_once('/') else {
        identifier(attribute, attribute.text(), errors);
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        attribute.invalid_text(errors, why);
        return;
    };
    for message in names::dns_subdomain(domain) {
        errors.push(FieldError::invalid(&attribute.path, &json!(domain), &message));
    }
    identifier(attribute, own, errors);
}

pub(super) fn identifier(at: &Spot<'_>, name: &str, errors: &mut Errors) {
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        errors.push(FieldError::invalid(&at.path, &json!(name), IDENTIFIER));
    }
    if name.len() > 32 {
        let why = "Too long: may not be more than 32 bytes";
        at.refuse(errors, crate::error::FieldErrorKind::TooLong, why);
    }
}

fn validate_opaque(opaque: &Spot<'_>, errors: &mut Errors) {
    if !opaque.is_set() {
        opaque.missing(errors, "");
        return;
    }
    driver(&opaque.at("driver"), errors);
    let parameters = opaque.at("parameters");
    match parameters.value {
        Value::Null => parameters.missing(errors, ""),
        Value::Object(_) => {}
        _ => parameters.invalid_shown(errors, "\"<value omitted>\"", "must be a valid JSON object"),
    }
}

fn validate_class(spec: &Spot<'_>, errors: &mut Errors) {
    selectors(spec, errors);
    for config in spec.list("config") {
        validate_opaque(&config.at("opaque"), errors);
    }
    if let Some(name) = spec.given("extendedResourceName") {
        let text = name.text();
        let native = !text.contains('/') || text.contains("kubernetes.io/") || text.starts_with("requests.");
        if native || !names::qualified_name(&format!("requests.{text}")).is_empty() {
            name.invalid(errors, "must be a valid extended resource name");
        }
    }
}

/// What of an object of these kinds may not change.
pub(super) fn validate_update(plural: &str, new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Spot::new(&new["spec"], "spec");
    let shape = match plural {
        "resourceclaims" => CLAIM,
        "resourceclaimtemplates" => TEMPLATE,
        "resourceslices" => {
            for (path, was) in [
                (spec.at("pool").at("name"), &old["spec"]["pool"]["name"]),
                (spec.at("driver"), &old["spec"]["driver"]),
            ] {
                if path.text() != was.as_str().unwrap_or_default() {
                    path.invalid_text(&mut errors, FIXED);
                }
            }
            let node = spec.at("nodeName");
            if *node.value != old["spec"]["nodeName"] {
                node.invalid(&mut errors, FIXED);
            }
            return errors;
        }
        _ => return errors,
    };
    if !super::json::same(spec.value, &old["spec"]) {
        spec.invalid_shown(&mut errors, &go::shown(spec.value, shape), FIXED);
    }
    errors
}

impl Spot<'_> {
    /// A label that is there; `""` is told of as one.
    pub(super) fn required_label(&self, errors: &mut Errors) -> bool {
        self.named(errors, names::dns_label);
        !self.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(plural: &str, spec: &Value) -> Vec<String> {
        let mut object = json!({ "spec": spec });
        defaults(plural, &mut object);
        validate(plural, &object).into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn claims() {
        let request = json!({"name": "r", "exactly": {"deviceClassName": "c"}});
        for (devices, want) in [
            (json!({"requests": [request]}), vec![]),
            (
                json!({"requests": [request, request]}),
                vec!["spec.devices.requests[1]"],
            ),
            (
                json!({"requests": [{"name": "r"}]}),
                vec!["spec.devices.requests[0]"],
            ),
            (
                json!({"requests": [request], "constraints": [{"requests": ["z"], "matchAttribute": "x.io/a"}]}),
                vec!["spec.devices.constraints[0].requests[0]"],
            ),
            (
                json!({"requests": [{"name": "r", "firstAvailable": [{"name": "s", "deviceClassName": "c"}]}],
                    "constraints": [{"requests": ["r/s"], "matchAttribute": "x.io/a"}]}),
                vec![],
            ),
            (
                json!({"requests": [request], "config": [{"opaque": {"driver": "d.io"}}]}),
                vec!["spec.devices.config[0].opaque.parameters"],
            ),
        ] {
            assert_eq!(
                told("resourceclaims", &json!({ "devices": devices })),
                want,
                "{devices}"
            );
        }
    }
}
