//! NetworkPolicies, Ingresses and their classes: their rules.

use super::json::{default, each, items, made, text};
use super::pod_rules::{all, one_of, port_number};
use super::selector;
use crate::error::FieldError;
use crate::registry::names;
use serde_json::{Value, json};
use std::net::IpAddr;

/// What Kubernetes says of what is no address.
pub(super) const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
pub(super) const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const NO_WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// An address range: its first address and how many bits all of it share.
pub(super) fn range(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let plain = bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let bits: u8 = bits.parse().ok().filter(|bits| plain && *bits <= all)?;
    Some((address, bits))
}

/// What is wrong with an address range.
pub(super) fn check_range(errors: &mut Vec<FieldError>, field: &str, value: &Value) -> bool {
    let good = value.as_str().is_some_and(|text| range(text).is_some());
    if !good {
        errors.push(FieldError::invalid(field, value, NO_RANGE));
    }
    good
}

/// What is wrong with an address, whichever it is.
pub(super) fn check_address(errors: &mut Vec<FieldError>, field: &str, value: &Value) {
    if value.as_str().is_none_or(|text| text.parse::<IpAddr>().is_err()) {
        errors.push(FieldError::invalid(field, value, NO_ADDRESS));
    }
}

/// Whether `inner` is a part of `outer`, and not all of it.
fn within(inner: (IpAddr, u8), outer: (IpAddr, u8)) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    };
    let shift = 128 - u32::from(outer.1);
    let head = |address| bits(address).checked_shr(shift).unwrap_or(0);
    inner.0.is_ipv4() == outer.0.is_ipv4() && inner.1 > outer.1 && head(inner.0) == head(outer.0)
}

/// Defaults by plural.
pub(super) fn defaults(plural: &str, object: &mut Value) {
    match plural {
        "endpointslices" => {
            for endpoint in each(object, "endpoints") {
                // Go has no pointer to them.
                made(endpoint, "conditions");
            }
            for port in each(object, "ports") {
                default(port, "name", "");
                default(port, "protocol", "TCP");
            }
        }
        "ingressclasses" => {
            if let Some(parameters) = made_if_there(object) {
                default(parameters, "scope", "Cluster");
            }
        }
        _ => {}
    }
}

fn made_if_there(class: &mut Value) -> Option<&mut Value> {
    class
        .get_mut("spec")?
        .get_mut("parameters")
        .filter(|parameters| parameters.is_object())
}

fn validate_backend(backend: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let service = &backend["service"];
    match (service.is_null(), backend["resource"].is_null()) {
        (true, true) => {
            let message = "resource or service backend is required";
            errors.push(FieldError::invalid(at, &json!(""), message));
        }
        (false, false) => {
            let message = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(at, &json!(""), message));
        }
        (false, true) => {
            let service_name = text(service, "name");
            if service_name.is_empty() {
                errors.push(FieldError::required(format!("{at}.service.name"), ""));
            } else {
                let field = format!("{at}.service.name");
                all(errors, &field, &service["name"], names::dns_label(service_name));
            }
            let port = &service["port"];
            let (number, name) = (!port["number"].is_null(), !text(port, "name").is_empty());
            let field = format!("{at}.service.port");
            if number && name {
                let message = "cannot set both port name & port number";
                errors.push(FieldError::invalid(field, &json!(""), message));
            } else if !number && !name {
                let message = "port name or number is required";
                errors.push(FieldError::required(field, message));
            } else if number {
                port_number(errors, &format!("{field}.number"), &port["number"]);
            } else {
                let messages = names::port_name(text(port, "name"));
                all(errors, &format!("{field}.name"), &port["name"], messages);
            }
        }
        (true, false) => {
            let resource = &backend["resource"];
            if let Some(group) = resource["apiGroup"].as_str() {
                let field = format!("{at}.resource.apiGroup");
                all(errors, &field, &resource["apiGroup"], names::dns_subdomain(group));
            }
            for key in ["kind", "name"] {
                if text(resource, key).is_empty() {
                    errors.push(FieldError::required(format!("{at}.resource.{key}"), ""));
                }
            }
        }
    }
}

/// What is wrong with a name like `*.example.com`.
fn names_of_wildcard(name: &str) -> Vec<String> {
    let rest = name.strip_prefix("*.").unwrap_or_default();
    if names::dns_subdomain(rest).is_empty() {
        Vec::new()
    } else {
        vec![NO_WILDCARD.to_owned()]
    }
}

fn validate_host(host: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let text = host.as_str().unwrap_or_default();
    if text.is_empty() {
        return;
    }
    let messages = if text.parse::<IpAddr>().is_ok() {
        vec!["must be a DNS name, not an IP address".to_owned()]
    } else if text.contains('*') {
        names_of_wildcard(text)
    } else {
        names::dns_subdomain(text)
    };
    errors.extend(
        messages
            .iter()
            .map(|message| FieldError::invalid(at, host, message)),
    );
}

fn validate_path(path: &Value, at: &str, errors: &mut Vec<FieldError>) {
    const KINDS: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
    const PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
    const ENDS: [&str; 2] = ["/..", "/."];
    let field = format!("{at}.path");
    let value = text(path, "path");
    let mut refuse = |message: &str| errors.push(FieldError::invalid(&field, &json!(value), message));
    match path["pathType"].as_str() {
        None => {
            let message = "pathType must be specified";
            errors.push(FieldError::required(format!("{at}.pathType"), message));
            return;
        }
        Some("Exact" | "Prefix") => {
            if !value.starts_with('/') {
                refuse("must be an absolute path");
            }
            if !value.is_empty() {
                let parts = PARTS.iter().filter(|part| value.contains(**part));
                parts.for_each(|part| refuse(&format!("must not contain '{part}'")));
                let ends = ENDS.iter().filter(|end| value.ends_with(**end));
                ends.for_each(|end| refuse(&format!("cannot end with '{end}'")));
            }
        }
        Some("ImplementationSpecific") => {
            if !value.is_empty() && !value.starts_with('/') {
                refuse("must be an absolute path");
            }
        }
        Some(_) => errors.push(FieldError::not_supported(
            format!("{at}.pathType"),
            &path["pathType"],
            &KINDS,
        )),
    }
    validate_backend(&path["backend"], &format!("{at}.backend"), errors);
}

fn validate_ingress(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if items(spec, "rules").next().is_none() && spec["defaultBackend"].is_null() {
        let message = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid("spec", &Value::Null, message));
    }
    if !spec["defaultBackend"].is_null() {
        validate_backend(&spec["defaultBackend"], "spec.defaultBackend", &mut errors);
    }
    for (i, rule) in items(spec, "rules").enumerate() {
        validate_host(&rule["host"], &format!("spec.rules[{i}].host"), &mut errors);
        let http = &rule["http"];
        if !http.is_null() && items(http, "paths").next().is_none() {
            errors.push(FieldError::required(format!("spec.rules[{i}].http.paths"), ""));
        }
        for (j, path) in items(http, "paths").enumerate() {
            validate_path(path, &format!("spec.rules[{i}].http.paths[{j}]"), &mut errors);
        }
    }
    for (i, tls) in items(spec, "tls").enumerate() {
        for (j, host) in items(tls, "hosts").enumerate() {
            let name = host.as_str().unwrap_or_default();
            let messages = if name.contains('*') {
                names_of_wildcard(name)
            } else {
                names::dns_subdomain(name)
            };
            all(&mut errors, &format!("spec.tls[{i}].hosts[{j}]"), host, messages);
        }
        let secret = text(tls, "secretName");
        if !secret.is_empty() {
            let field = format!("spec.tls[{i}].secretName");
            all(
                &mut errors,
                &field,
                &tls["secretName"],
                names::dns_subdomain(secret),
            );
        }
    }
    if let Some(class) = spec["ingressClassName"].as_str() {
        let messages = names::dns_subdomain(class);
        all(
            &mut errors,
            "spec.ingressClassName",
            &spec["ingressClassName"],
            messages,
        );
    }
    errors
}

fn validate_policy_port(port: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let protocols = ["TCP", "UDP", "SCTP"];
    one_of(errors, &format!("{at}.protocol"), &port["protocol"], &protocols);
    let (number, end) = (&port["port"], &port["endPort"]);
    let field = format!("{at}.port");
    match number {
        Value::Null => {
            if !end.is_null() {
                errors.push(FieldError::required(
                    field,
                    "must be specified when `endPort` is specified",
                ));
            }
        }
        Value::String(name) => {
            for message in names::port_name(name) {
                errors.push(FieldError::invalid(&field, number, &message));
            }
            if !end.is_null() {
                let message = "may not be specified when `port` is non-numeric";
                errors.push(FieldError::invalid(format!("{at}.endPort"), end, message));
            }
        }
        _ => {
            port_number(errors, &field, number);
            if end
                .as_i64()
                .is_some_and(|end| number.as_i64().is_some_and(|first| end < first))
            {
                let message = "must be greater than or equal to `port`";
                errors.push(FieldError::invalid(format!("{at}.endPort"), number, message));
            } else if !end.is_null() {
                port_number(errors, &format!("{at}.endPort"), end);
            }
        }
    }
}

fn validate_peer(peer: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let given = |key: &str| !peer[key].is_null();
    let selectors = ["podSelector", "namespaceSelector"];
    for key in selectors.iter().filter(|key| given(key)) {
        errors.extend(selector::validate(&peer[*key], &format!("{at}.{key}")));
    }
    let selects = selectors.iter().any(|key| given(key));
    let block = &peer["ipBlock"];
    if !block.is_null() {
        let field = format!("{at}.ipBlock");
        if text(block, "cidr").is_empty() {
            errors.push(FieldError::required(format!("{field}.cidr"), ""));
        } else if check_range(errors, &format!("{field}.cidr"), &block["cidr"]) {
            let outer = range(text(block, "cidr"));
            for (i, except) in items(block, "except").enumerate() {
                let field = format!("{field}.except[{i}]");
                let inner = except.as_str().and_then(range);
                if check_range(errors, &field, except)
                    && !outer
                        .zip(inner)
                        .is_some_and(|(outer, inner)| within(inner, outer))
                {
                    errors.push(FieldError::invalid(
                        field,
                        except,
                        "must be a strict subset of `cidr`",
                    ));
                }
            }
        }
    }
    if !selects && block.is_null() {
        errors.push(FieldError::required(at, "must specify a peer"));
    } else if selects && !block.is_null() {
        errors.push(FieldError::forbidden(
            at,
            "may not specify both ipBlock and another peer",
        ));
    }
}

fn validate_network_policy(spec: &Value) -> Vec<FieldError> {
    let mut errors = selector::validate(&spec["podSelector"], "spec.podSelector");
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in items(spec, direction).enumerate() {
            let at = format!("spec.{direction}[{i}]");
            for (j, port) in items(rule, "ports").enumerate() {
                validate_policy_port(port, &format!("{at}.ports[{j}]"), &mut errors);
            }
            for (j, peer) in items(rule, peers).enumerate() {
                validate_peer(peer, &format!("{at}.{peers}[{j}]"), &mut errors);
            }
        }
    }
    if items(spec, "policyTypes").count() > 2 {
        let message = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid(
            "spec.policyTypes",
            &spec["policyTypes"],
            message,
        ));
        return errors;
    }
    for (i, kind) in items(spec, "policyTypes").enumerate() {
        one_of(
            &mut errors,
            &format!("spec.policyTypes[{i}]"),
            kind,
            &["Ingress", "Egress"],
        );
    }
    errors
}

fn validate_controller(controller: &Value) -> Vec<FieldError> {
    const FIELD: &str = "spec.controller";
    let name = controller.as_str().unwrap_or_default();
    if name.is_empty() {
        return vec![FieldError::required(FIELD, "")];
    }
    match name.split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => names::dns_subdomain(domain)
            .iter()
            .map(|message| FieldError::invalid(FIELD, &json!(domain), message))
            .collect(),
        _ => {
            let message = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            vec![FieldError::invalid(FIELD, controller, message)]
        }
    }
}

/// What is wrong with an object of these kinds.
pub(super) fn validate(plural: &str, object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    match plural {
        "networkpolicies" => validate_network_policy(spec),
        "ingresses" => validate_ingress(spec),
        "ingressclasses" => validate_controller(&spec["controller"]),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_compared() {
        for (inner, outer, want) in [
            ("10.1.0.0/16", "10.0.0.0/8", true),
            ("10.0.0.0/8", "10.0.0.0/8", false),
            ("11.0.0.0/16", "10.0.0.0/8", false),
            ("1.0.0.0/8", "0.0.0.0/0", true),
            ("2001:db8::/64", "2001:db8::/32", true),
            ("10.0.0.0/16", "::/0", false),
        ] {
            let (inner, outer) = (range(inner).unwrap(), range(outer).unwrap());
            assert_eq!(within(inner, outer), want, "{inner:?} {outer:?}");
        }
        for bad in [
            "frob",
            "1.2.3.4",
            "1.2.3.4/33",
            "1.2.3.4/08",
            "::/129",
            "1.2.3.4/",
        ] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[test]
    fn hosts_are_names() {
        for (host, good) in [
            ("a.io", true),
            ("*.a.io", true),
            ("", true),
            ("*", false),
            ("*.*.io", false),
            ("1.2.3.4", false),
            ("A.io", false),
        ] {
            let mut errors = Vec::new();
            validate_host(&json!(host), "host", &mut errors);
            assert_eq!(errors.is_empty(), good, "{host}: {errors:?}");
        }
    }
}
