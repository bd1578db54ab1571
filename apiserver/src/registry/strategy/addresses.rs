//! `IPAddress`es, `ServiceCIDR`s and the parameters of an IngressClass: small kinds of networking.

use super::check::{Errors, Spot};
use super::go::{self, Part, Shape};
use super::json::same;
use super::network::{NO_RANGE, range};
use crate::registry::names;
use serde_json::Value;
use std::net::IpAddr;

const FIXED: &str = "field is immutable";
const PARENT: &Shape = &[
    ("Group", "group", Part::Text),
    ("Resource", "resource", Part::Text),
    ("Namespace", "namespace", Part::Text),
    ("Name", "name", Part::Text),
];
const CIDRS: &Shape = &[("CIDRs", "cidrs", Part::Plain)];

/// What is wrong with an object of these kinds.
pub(super) fn validate(plural: &str, object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Spot::new(&object["spec"], "spec");
    match plural {
        "ipaddresses" => validate_parent(&spec.at("parentRef"), &mut errors),
        "ingressclasses" => {
            if let Some(parameters) = spec.given("parameters") {
                validate_parameters(&parameters, &mut errors);
            }
        }
        _ => {}
    }
    errors
}

/// What is wrong with a new `ServiceCIDR`; what it says does not change.
pub(super) fn validate_ranges(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Spot::new(&object["spec"], "spec");
    let ranges = spec.at("cidrs");
    let all = ranges.items();
    if !ranges.required(&mut errors, "at least one CIDR required") {
        return errors;
    }
    if all.len() > 2 {
        let shown = go::shown(spec.value, CIDRS);
        ranges.invalid_shown(&mut errors, &shown, "may only hold up to 2 values");
        return errors;
    }
    let families: Vec<bool> = all
        .iter()
        .filter_map(|one| Some(range(one.text())?.0.is_ipv4()))
        .collect();
    if let [one, other] = families[..]
        && one == other
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        ranges.invalid(&mut errors, why);
    }
    for one in all {
        match range(one.text()) {
            None => one.invalid_text(&mut errors, NO_RANGE),
            Some(range) if !is_masked(range) => {
                let why = "must not have bits set beyond the prefix length";
                one.invalid(&mut errors, why);
            }
            Some(_) => {}
        }
    }
    errors
}

/// Whether an address is the first of its range.
fn is_masked((address, bits): (IpAddr, u8)) -> bool {
    let value = match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    };
    value.checked_shl(u32::from(bits)).unwrap_or(0) == 0
}

fn validate_parent(parent: &Spot<'_>, errors: &mut Errors) {
    if !parent.is_set() {
        parent.missing(errors, "");
        return;
    }
    parent.at("group").named_if_given(errors, names::dns_subdomain);
    for key in ["resource", "name"] {
        parent.at(key).required_name(errors, names::path_segment);
    }
    parent.at("namespace").named_if_given(errors, names::path_segment);
}

fn validate_parameters(parameters: &Spot<'_>, errors: &mut Errors) {
    if let Some(group) = parameters.given("apiGroup") {
        group.named(errors, names::dns_subdomain);
    }
    for key in ["kind", "name"] {
        parameters.at(key).required_name(errors, names::path_segment);
    }
    let (scope, namespace) = (parameters.at("scope"), parameters.at("namespace"));
    match scope.text() {
        "Namespace" => {
            let why = "`parameters.scope` is set to 'Namespace'";
            if namespace.required(errors, why) {
                namespace.named(errors, names::dns_label);
            }
        }
        "Cluster" => {
            if namespace.is_set() {
                namespace.forbidden(errors, "`parameters.scope` is set to 'Cluster'");
            }
        }
        _ => scope.among(errors, &["Cluster", "Namespace"]),
    }
}

/// What of an object of these kinds may not change.
pub(super) fn validate_update(plural: &str, new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let (spec, was) = (Spot::new(&new["spec"], "spec"), &old["spec"]);
    match plural {
        "ipaddresses" if !same(&spec.value["parentRef"], &was["parentRef"]) => {
            let parent = spec.at("parentRef");
            let shown = if parent.is_set() {
                go::shown(parent.value, PARENT)
            } else {
                "null".to_owned()
            };
            parent.invalid_shown(&mut errors, &shown, FIXED);
        }
        "servicecidrs" if !same(&spec.value["cidrs"], &was["cidrs"]) => {
            let ranges = spec.at("cidrs");
            let (now, before) = (ranges.items(), was["cidrs"].as_array());
            if before.is_none_or(|before| before.len() != now.len()) {
                ranges.invalid(&mut errors, FIXED);
            } else {
                let pairs = now.iter().zip(before.into_iter().flatten());
                for (one, _) in pairs.filter(|(one, was)| one.value != *was) {
                    one.invalid(&mut errors, FIXED);
                }
            }
        }
        _ => {}
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(errors: &Errors) -> Vec<&str> {
        errors.iter().map(|e| e.field.as_str()).collect()
    }

    #[test]
    fn ranges_of_services() {
        for (cidrs, want) in [
            (json!(["10.0.0.0/24"]), vec![]),
            (json!(["10.0.0.0/24", "2001:db8::/64"]), vec![]),
            (json!([]), vec!["spec.cidrs"]),
            (json!(["10.0.0.1/24"]), vec!["spec.cidrs[0]"]),
            (json!(["x"]), vec!["spec.cidrs[0]"]),
            (json!(["10.0.0.0/24", "11.0.0.0/24"]), vec!["spec.cidrs"]),
            (
                json!(["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"]),
                vec!["spec.cidrs"],
            ),
        ] {
            let errors = validate_ranges(&json!({"spec": {"cidrs": cidrs}}));
            assert_eq!(fields(&errors), want, "{cidrs}");
        }
    }

    #[test]
    fn parents_and_parameters() {
        for (plural, spec, want) in [
            (
                "ipaddresses",
                json!({"parentRef": {"resource": "services", "name": "s"}}),
                vec![],
            ),
            ("ipaddresses", json!({}), vec!["spec.parentRef"]),
            (
                "ipaddresses",
                json!({"parentRef": {"name": "s"}}),
                vec!["spec.parentRef.resource"],
            ),
            ("ingressclasses", json!({}), vec![]),
            (
                "ingressclasses",
                json!({"parameters": {"kind": "K", "name": "n", "scope": "Namespace"}}),
                vec!["spec.parameters.namespace"],
            ),
            (
                "ingressclasses",
                json!({"parameters": {"kind": "K", "name": "n", "scope": "Cluster", "namespace": "n"}}),
                vec!["spec.parameters.namespace"],
            ),
        ] {
            let errors = validate(plural, &json!({ "spec": spec }));
            assert_eq!(fields(&errors), want, "{spec}");
        }
    }
}
