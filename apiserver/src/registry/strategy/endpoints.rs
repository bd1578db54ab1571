//! Endpoints and EndpointSlices: addresses one may send to, and the ports there.

use super::check::{Errors, Spot, unique};
use super::json::same;
use super::network::NO_ADDRESS;
use crate::registry::names;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// The most addresses of an endpoint.
const MANY_ADDRESSES: usize = 100;
/// The most zones or nodes a hint names.
const MANY_HINTS: usize = 8;

/// What of an endpoint's address is special, and so not to be sent to.
pub(super) fn special(address: IpAddr) -> Option<&'static str> {
    let (local, group) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if address.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if group {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    } else {
        None
    }
}

/// What is wrong with an object of these kinds.
pub(super) fn validate(plural: &str, object: &Value, old: Option<&Value>) -> Errors {
    let mut errors = Vec::new();
    let root = Spot::new(object, "");
    match plural {
        "endpoints" => {
            for subset in root.list("subsets") {
                validate_subset(&subset, &mut errors);
            }
        }
        "endpointslices" => validate_slice(&root, old, &mut errors),
        _ => {}
    }
    errors
}

fn validate_subset(subset: &Spot<'_>, errors: &mut Errors) {
    let lists = ["addresses", "notReadyAddresses"];
    if lists.iter().all(|list| subset.at(list).is_empty()) {
        let why = "must specify `addresses` or `notReadyAddresses`";
        subset.missing(errors, why);
    }
    for address in lists.iter().flat_map(|list| subset.list(list)) {
        let ip = address.at("ip");
        let parsed = ip.text().parse();
        if parsed.is_err() {
            ip.invalid(errors, NO_ADDRESS);
        }
        address.at("hostname").named_if_given(errors, names::dns_label);
        if let Some(node) = address.given("nodeName") {
            node.named(errors, names::dns_subdomain);
        }
        let problem = match parsed {
            Ok(address) => special(address),
            Err(_) => Some("must be a valid IP address"),
        };
        if let Some(problem) = problem {
            ip.invalid(errors, problem);
        }
    }
    let ports = subset.list("ports");
    for port in &ports {
        let name = port.at("name");
        if !name.is_empty() {
            name.named(errors, names::dns_label);
        } else if ports.len() > 1 {
            name.missing(errors, "");
        }
        let number = port.at("port");
        super::pod_rules::port_number(errors, &number.path, number.value);
        protocol(port, errors);
        app_protocol(port, errors);
    }
}

fn protocol(port: &Spot<'_>, errors: &mut Errors) {
    let protocol = port.at("protocol");
    if protocol.is_set() {
        protocol.among(errors, &PROTOCOLS);
    } else {
        protocol.missing(errors, "");
    }
}

fn app_protocol(port: &Spot<'_>, errors: &mut Errors) {
    if let Some(protocol) = port.given("appProtocol") {
        protocol.named(errors, names::qualified_name);
    }
}

fn validate_slice(slice: &Spot<'_>, old: Option<&Value>, errors: &mut Errors) {
    let kind = slice.at("addressType");
    if kind.required(errors, "") {
        kind.among(errors, &["FQDN", "IPv4", "IPv6"]);
    }
    let ports = slice.list("ports");
    unique(&ports, "name", errors);
    for port in &ports {
        port.at("name").named_if_given(errors, names::dns_label);
        protocol(port, errors);
        app_protocol(port, errors);
    }
    // What stays is not looked at again.
    if old.is_some_and(|old| same(&old["endpoints"], &slice.value["endpoints"])) {
        return;
    }
    for endpoint in slice.list("endpoints") {
        let addresses = endpoint.at("addresses");
        addresses.required(errors, "must contain at least 1 address");
        let count = addresses.items().len();
        if count > MANY_ADDRESSES {
            let why = format!("Too many: {count}: must have at most {MANY_ADDRESSES} items");
            addresses.refuse(errors, crate::error::FieldErrorKind::TooMany, why);
        }
        for address in addresses.items() {
            validate_address(kind.text(), &address, errors);
        }
        if let Some(node) = endpoint.given("nodeName") {
            node.named(errors, names::dns_subdomain);
        }
        if let Some(host) = endpoint.given("hostname") {
            host.named(errors, names::dns_label);
        }
        let hints = endpoint.at("hints");
        for (key, rule) in [
            ("forZones", names::label_value as fn(&str) -> Vec<String>),
            ("forNodes", names::dns_subdomain),
        ] {
            let places = hints.list(key);
            if places.len() > MANY_HINTS {
                let why = format!("Too many: {}: must have at most {MANY_HINTS} items", places.len());
                hints
                    .at(key)
                    .refuse(errors, crate::error::FieldErrorKind::TooMany, why);
            }
            let mut seen = BTreeSet::new();
            for name in places.iter().map(|place| place.at("name")) {
                if !seen.insert(name.text()) {
                    name.duplicate(errors);
                }
                name.named(errors, rule);
            }
        }
    }
}

fn validate_address(kind: &str, address: &Spot<'_>, errors: &mut Errors) {
    let text = address.text();
    if kind == "FQDN" {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            address.missing(errors, "");
        } else {
            address.named(errors, |text| {
                names::dns_subdomain(text.strip_suffix('.').unwrap_or(text))
            });
            if !name.contains('.') {
                let why = "should be a domain with at least two segments separated by dots";
                address.invalid(errors, why);
            }
        }
        return;
    }
    // Its family is told of the whole list.
    let list = Spot::new(
        address.value,
        address.path.rsplit_once('[').map_or("", |(list, _)| list),
    );
    let Ok(parsed) = text.parse::<IpAddr>() else {
        address.invalid_text(errors, NO_ADDRESS);
        return;
    };
    match kind {
        "IPv4" if !parsed.is_ipv4() => list.invalid(errors, "must be an IPv4 address"),
        "IPv6" if !parsed.is_ipv6() => list.invalid(errors, "must be an IPv6 address"),
        _ => {}
    }
    if let Some(problem) = special(parsed) {
        address.invalid(errors, problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn slices() {
        let slice = |kind: &str, endpoint: Value| json!({"addressType": kind, "endpoints": [endpoint]});
        for (slice, want) in [
            (slice("IPv4", json!({"addresses": ["1.2.3.4"]})), vec![]),
            (
                slice("IPv4", json!({"addresses": ["x"]})),
                vec!["endpoints[0].addresses[0]"],
            ),
            (
                slice("IPv4", json!({"addresses": ["::2"]})),
                vec!["endpoints[0].addresses"],
            ),
            (slice("IPv6", json!({"addresses": ["2001:db8::1"]})), vec![]),
            (
                slice("IPv4", json!({"addresses": ["127.0.0.1"]})),
                vec!["endpoints[0].addresses[0]"],
            ),
            (slice("FQDN", json!({"addresses": ["a.io"]})), vec![]),
            (
                slice("FQDN", json!({"addresses": ["a"]})),
                vec!["endpoints[0].addresses[0]"],
            ),
            (slice("IPv4", json!({})), vec!["endpoints[0].addresses"]),
            (
                slice(
                    "IPv4",
                    json!({"addresses": ["1.2.3.4"], "hints": {"forZones": [{"name": "z"}, {"name": "z"}]}}),
                ),
                vec!["endpoints[0].hints.forZones[1].name"],
            ),
            (
                json!({"addressType": "IPv4", "ports": [{"name": "a", "protocol": "TCP"}, {"name": "a", "protocol": "x"}]}),
                vec!["ports[1].name", "ports[1].protocol"],
            ),
        ] {
            let errors = validate("endpointslices", &slice, None);
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields, want, "{slice}");
        }
    }

    #[test]
    fn subsets() {
        for (subset, want) in [
            (
                json!({"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 80, "protocol": "TCP"}]}),
                0,
            ),
            (json!({}), 1),
            (json!({"addresses": [{"ip": "127.0.0.1"}]}), 1),
            (json!({"addresses": [{"ip": "1.2.3.4", "nodeName": "N_"}]}), 1),
            (
                json!({"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 80, "protocol": "TCP", "appProtocol": ""}]}),
                2,
            ),
        ] {
            let told = validate("endpoints", &json!({ "subsets": [subset] }), None);
            assert_eq!(told.len(), want, "{subset}: {told:?}");
        }
    }
}
