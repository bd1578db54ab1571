//! Services: defaults, the cluster addresses and node ports they get, and their rules (`pkg/registry/core/service`).

use super::Context;
use super::json::{copy, default, each, items, made, remove, same, text};
use super::metadata::validate_labels;
use super::network::check_address;
use super::pod_rules::{one_of, one_of_if_set, port_number};
use crate::error::{FieldError, FieldErrorKind};
use crate::object;
use crate::registry::names;
use crate::store::Range;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Cluster addresses are given from here: 10.96.0.0/16, the usual Service CIDR.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([10, 96, 0, 0]);
/// How many addresses the range has; the first and the last are not given.
const ADDRESSES: u32 = 1 << 16;
/// kube-apiserver's default `--service-node-port-range`.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
/// The address of the Service `kubernetes`, never given to another.
const KUBERNETES_ADDRESS: u32 = FIRST_ADDRESS + 1;
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const NONE: &str = "None";
/// A day, in seconds: the longest a client stays with one endpoint.
const MAX_AFFINITY: i64 = 86400;

/// Defaults that need nothing but the Service.
pub(super) fn defaults(service: &mut Value) {
    let Some(spec) = made(service, "spec") else { return };
    default(spec, "type", "ClusterIP");
    default(spec, "sessionAffinity", NONE);
    if text(spec, "sessionAffinity") == NONE {
        remove(spec, "sessionAffinityConfig");
    } else if let Some(client) = made(spec, "sessionAffinityConfig").and_then(|c| made(c, "clientIP")) {
        default(client, "timeoutSeconds", 10800);
    }
    for port in each(spec, "ports") {
        default(port, "protocol", "TCP");
        let number = port["port"].clone();
        if port["targetPort"] == json!(0) || port["targetPort"] == json!("") {
            remove(port, "targetPort");
        }
        default(port, "targetPort", number);
    }
    let kind = text(spec, "type").to_owned();
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
    if let Some(status) = made(service, "status") {
        default(status, "loadBalancer", json!({}));
        for ingress in each(&mut status["loadBalancer"], "ingress") {
            if !text(ingress, "ip").is_empty() {
                default(ingress, "ipMode", "VIP");
            }
        }
    }
}

/// Addresses and ports taken by other Services.
#[derive(Debug, Default)]
struct Taken {
    addresses: BTreeSet<u32>,
    ports: BTreeSet<u16>,
}

/// The address of the Service `kubernetes`.
pub fn kubernetes_address() -> String {
    Ipv4Addr::from(KUBERNETES_ADDRESS).to_string()
}

/// The range that addresses of Services are from.
pub fn service_range() -> String {
    let bits = 32 - ADDRESSES.trailing_zeros();
    format!("{}/{bits}", Ipv4Addr::from(FIRST_ADDRESS))
}

fn taken(ctx: &Context<'_>, except: &Value) -> Taken {
    let mut taken = Taken::default();
    if (object::namespace(except), object::name(except)) != ("default", "kubernetes") {
        taken.addresses.insert(KUBERNETES_ADDRESS);
    }
    let range = Range {
        resource: "/services".to_owned(),
        ..Range::default()
    };
    let Ok(page) = ctx.store.list(&range) else {
        return taken;
    };
    for entry in page.entries {
        if *entry.key.namespace == *object::namespace(except) && *entry.key.name == *object::name(except) {
            continue;
        }
        let spec = &entry.value()["spec"];
        for address in items(spec, "clusterIPs").filter_map(Value::as_str) {
            if let Ok(ip) = address.parse::<Ipv4Addr>() {
                taken.addresses.insert(ip.into());
            }
        }
        let checked = spec["healthCheckNodePort"].as_u64();
        for port in items(spec, "ports")
            .filter_map(|p| p["nodePort"].as_u64())
            .chain(checked)
        {
            taken.ports.extend(u16::try_from(port));
        }
    }
    taken
}

/// A place to begin looking for something free: the same for one object, different for two made at once.
fn spread(uid: &str, over: u32) -> u32 {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in uid.bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash % over
}

fn free_address(uid: &str, taken: &Taken) -> Option<Ipv4Addr> {
    let usable = ADDRESSES - 2;
    let start = spread(uid, usable);
    (0..usable)
        .map(|i| FIRST_ADDRESS + 1 + (start + i) % usable)
        .find(|a| !taken.addresses.contains(a))
        .map(Ipv4Addr::from)
}

fn free_port(uid: &str, taken: &BTreeSet<u16>) -> Option<u16> {
    let count = NODE_PORTS.end() - NODE_PORTS.start() + 1;
    let start = u16::try_from(spread(uid, u32::from(count))).unwrap_or_default();
    (0..count)
        .map(|i| NODE_PORTS.start() + (start + i) % count)
        .find(|p| !taken.contains(p))
}

/// Gives a Service its cluster address, families and node ports.
pub(super) fn allocate(ctx: &Context<'_>, service: &mut Value) {
    let uid = object::uid(service).to_owned();
    let used = taken(ctx, service);
    let Some(spec) = made(service, "spec") else { return };
    let kind = text(spec, "type").to_owned();
    if kind == "ExternalName" {
        return;
    }
    if let Some(first) = spec["clusterIPs"][0].as_str().map(str::to_owned) {
        default(spec, "clusterIP", first);
    }
    match text(spec, "clusterIP").to_owned().as_str() {
        NONE => {
            spec["clusterIPs"] = json!([NONE]);
            // A Service without selector may have endpoints of either family.
            let bare = spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
            let dual = bare && spec["ipFamilies"].is_null() && spec["ipFamilyPolicy"].is_null();
            default(
                spec,
                "ipFamilies",
                if dual {
                    json!(["IPv4", "IPv6"])
                } else {
                    json!(["IPv4"])
                },
            );
            default(
                spec,
                "ipFamilyPolicy",
                if dual { "RequireDualStack" } else { "SingleStack" },
            );
        }
        "" => {
            if let Some(address) = free_address(&uid, &used) {
                spec["clusterIP"] = address.to_string().into();
                spec["clusterIPs"] = json!([address.to_string()]);
            }
        }
        given => {
            default(spec, "clusterIPs", json!([given]));
        }
    }
    default(spec, "ipFamilies", json!(["IPv4"]));
    default(spec, "ipFamilyPolicy", "SingleStack");
    let wanted = kind == "NodePort"
        || (kind == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != json!(false));
    let mut ports = used.ports;
    let checked = kind == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local";
    if wanted {
        for port in items(spec, "ports").filter_map(|p| p["nodePort"].as_u64()) {
            ports.extend(u16::try_from(port));
        }
        for port in each(spec, "ports") {
            if port["nodePort"].as_u64().unwrap_or(0) == 0
                && let Some(free) = free_port(&uid, &ports)
            {
                port["nodePort"] = free.into();
                ports.insert(free);
            }
        }
    }
    // Where balancers ask whether a node has endpoints.
    if checked
        && spec["healthCheckNodePort"].as_u64().unwrap_or(0) == 0
        && let Some(free) = free_port(&uid, &ports)
    {
        spec["healthCheckNodePort"] = free.into();
    }
}

/// What of the addresses and ports a client named is taken by another Service.
pub(super) fn taken_errors(ctx: &Context<'_>, service: &Value) -> Vec<FieldError> {
    let used = taken(ctx, service);
    let mut errors = Vec::new();
    for address in items(&service["spec"], "clusterIPs") {
        let known = address
            .as_str()
            .and_then(|a| a.parse::<Ipv4Addr>().ok())
            .map(u32::from);
        let text = address.as_str().unwrap_or_default();
        let problem = match known {
            Some(a) if used.addresses.contains(&a) => "provided IP is already allocated".to_owned(),
            Some(a) if a.wrapping_sub(FIRST_ADDRESS) >= ADDRESSES => {
                "the provided network does not match the current range".to_owned()
            }
            _ => continue,
        };
        let message = format!("failed to allocate IP {text}: {problem}");
        errors.push(FieldError::invalid(
            "spec.clusterIPs",
            &service["spec"]["clusterIPs"],
            &message,
        ));
    }
    for (i, port) in items(&service["spec"], "ports").enumerate() {
        let number = port["nodePort"].as_u64().and_then(|p| u16::try_from(p).ok());
        if number.is_some_and(|p| used.ports.contains(&p)) {
            let field = format!("spec.ports[{i}].nodePort");
            errors.push(FieldError::invalid(
                field,
                &port["nodePort"],
                "provided port is already allocated",
            ));
        }
    }
    errors
}

/// Keeps what was allocated when a change leaves it out; lets go of what the new type does not have.
pub(super) fn prepare_update(ctx: &Context<'_>, new: &mut Value, old: &Value) {
    let was = &old["spec"];
    let Some(spec) = made(new, "spec") else { return };
    if text(spec, "type") == "ExternalName" {
        if text(was, "type") != "ExternalName" {
            for key in [
                "clusterIP",
                "clusterIPs",
                "ipFamilies",
                "ipFamilyPolicy",
                "internalTrafficPolicy",
                "externalTrafficPolicy",
                "allocateLoadBalancerNodePorts",
                "healthCheckNodePort",
                "loadBalancerClass",
            ] {
                if same(&spec[key], &was[key]) {
                    remove(spec, key);
                }
            }
        }
        return;
    }
    if text(was, "type") != "ExternalName" {
        let changed = text(spec, "clusterIP");
        let kept = spec["clusterIPs"].is_null() || spec["clusterIPs"] == was["clusterIPs"];
        if !changed.is_empty() && kept && changed != text(was, "clusterIP") {
            spec["clusterIPs"] = json!([changed]);
        }
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec[key].is_null() {
                copy(was, spec, key);
            }
        }
    }
    if matches!(text(spec, "type"), "NodePort" | "LoadBalancer") {
        for port in each(spec, "ports") {
            let before =
                items(was, "ports").find(|p| p["port"] == port["port"] && p["protocol"] == port["protocol"]);
            if let Some(number) = before.and_then(|p| p.get("nodePort")) {
                default(port, "nodePort", number.clone());
            }
        }
    } else if matches!(text(was, "type"), "NodePort" | "LoadBalancer") {
        for port in each(spec, "ports") {
            let before = items(was, "ports").any(|p| p["nodePort"] == port["nodePort"]);
            if before {
                remove(port, "nodePort");
            }
        }
        for key in [
            "externalTrafficPolicy",
            "allocateLoadBalancerNodePorts",
            "healthCheckNodePort",
            "loadBalancerClass",
        ] {
            if same(&spec[key], &was[key]) {
                remove(spec, key);
            }
        }
    }
    let asked = text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local";
    if !asked && same(&spec["healthCheckNodePort"], &was["healthCheckNodePort"]) {
        remove(spec, "healthCheckNodePort");
    }
    allocate(ctx, new);
}

fn validate_ports(spec: &Value, errors: &mut Vec<FieldError>) {
    let count = items(spec, "ports").count();
    let mut names_seen = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (i, port) in items(spec, "ports").enumerate() {
        let at = format!("spec.ports[{i}]");
        let name = text(port, "name");
        if name.is_empty() && count > 1 {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else if !name.is_empty() {
            for message in names::dns_label(name) {
                errors.push(FieldError::invalid(format!("{at}.name"), &port["name"], &message));
            }
            if !names_seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), &port["name"]));
            }
        }
        port_number(errors, &format!("{at}.port"), &port["port"]);
        one_of(
            errors,
            &format!("{at}.protocol"),
            &port["protocol"],
            &["SCTP", "TCP", "UDP"],
        );
        let target = &port["targetPort"];
        if let Some(target_name) = target.as_str() {
            for message in names::port_name(target_name) {
                errors.push(FieldError::invalid(format!("{at}.targetPort"), target, &message));
            }
        } else if target.is_number() {
            port_number(errors, &format!("{at}.targetPort"), target);
        }
        if !seen.insert((port["port"].to_string(), text(port, "protocol"))) {
            // As Go shows its own struct, with what is compared in it.
            let message = format!(
                "Duplicate value: {{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                port["protocol"], port["port"],
            );
            errors.push(FieldError::new(FieldErrorKind::Duplicate, at.clone(), message));
        }
        let node = port["nodePort"].as_u64().unwrap_or(0);
        if node != 0 && text(spec, "type") == "ClusterIP" {
            let message = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(format!("{at}.nodePort"), message));
        } else if node != 0 && !u16::try_from(node).is_ok_and(|p| NODE_PORTS.contains(&p)) {
            let message = "provided port is not in the valid range. The range of valid ports is 30000-32767";
            errors.push(FieldError::invalid(
                format!("{at}.nodePort"),
                &port["nodePort"],
                message,
            ));
        }
    }
}

/// How a Service is reached: families, addresses, load balancers, affinity, distribution.
fn validate_reach(spec: &Value, errors: &mut Vec<FieldError>) {
    let among = |errors: &mut Vec<FieldError>, key: &str, allowed: &[&str]| {
        let value = &spec[key];
        if !value.is_null() && !allowed.iter().any(|a| value == a) {
            errors.push(FieldError::not_supported(format!("spec.{key}"), value, allowed));
        }
    };
    for (i, port) in items(spec, "ports").enumerate() {
        if let Some(protocol) = port["appProtocol"].as_str() {
            for message in names::qualified_name(protocol) {
                let at = format!("spec.ports[{i}].appProtocol");
                errors.push(FieldError::invalid(at, &port["appProtocol"], &message));
            }
        }
    }
    among(
        errors,
        "ipFamilyPolicy",
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
    );
    let mut families = BTreeSet::new();
    for (i, family) in items(spec, "ipFamilies").enumerate() {
        let at = format!("spec.ipFamilies[{i}]");
        let name = family.as_str().unwrap_or_default();
        if !matches!(name, "IPv4" | "IPv6") {
            errors.push(FieldError::not_supported(at, family, &["IPv4", "IPv6"]));
        } else if !families.insert(name) {
            errors.push(FieldError::duplicate(at, family));
        }
    }
    for (i, address) in items(spec, "externalIPs").enumerate() {
        check_address(errors, &format!("spec.externalIPs[{i}]"), address);
    }
    let seconds = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    if spec["sessionAffinity"] == "ClientIP"
        && seconds.as_i64().is_some_and(|s| !(1..=MAX_AFFINITY).contains(&s))
    {
        let at = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        let message = format!("must be greater than 0 and less than {MAX_AFFINITY}");
        errors.push(FieldError::invalid(at, seconds, &message));
    }
    if text(spec, "type") != "LoadBalancer" {
        let message = "may only be used when `type` is 'LoadBalancer'";
        for (key, shown) in [
            ("loadBalancerSourceRanges", "LoadBalancerSourceRanges"),
            ("allocateLoadBalancerNodePorts", "allocateLoadBalancerNodePorts"),
            ("loadBalancerClass", "loadBalancerClass"),
        ] {
            if !same(&spec[key], &Value::Null) {
                errors.push(FieldError::forbidden(format!("spec.{shown}"), message));
            }
        }
    } else if let Some(class) = spec["loadBalancerClass"].as_str() {
        for message in names::qualified_name(class) {
            errors.push(FieldError::invalid(
                "spec.loadBalancerClass",
                &spec["loadBalancerClass"],
                &message,
            ));
        }
    }
    among(
        errors,
        "trafficDistribution",
        &["PreferClose", "PreferSameZone", "PreferSameNode"],
    );
}

/// What is wrong with a Service.
pub(super) fn validate(service: &Value) -> Vec<FieldError> {
    let spec = &service["spec"];
    let mut errors = Vec::new();
    let kind = text(spec, "type");
    let headless = text(spec, "clusterIP") == NONE;
    if !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported("spec.type", &spec["type"], &TYPES));
    }
    if items(spec, "ports").next().is_none() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    validate_ports(spec, &mut errors);
    errors.extend(validate_labels(&spec["selector"], "spec.selector"));
    one_of(
        &mut errors,
        "spec.sessionAffinity",
        &spec["sessionAffinity"],
        &["ClientIP", NONE],
    );
    if kind == "ExternalName" {
        let external = text(spec, "externalName");
        if external.is_empty() {
            errors.push(FieldError::required("spec.externalName", ""));
        } else {
            for message in names::dns_subdomain(external.trim_end_matches('.')) {
                errors.push(FieldError::invalid(
                    "spec.externalName",
                    &spec["externalName"],
                    &message,
                ));
            }
        }
        if !spec["clusterIPs"].is_null() && items(spec, "clusterIPs").next().is_some() {
            let message = "may not be set when `type` is 'ExternalName'";
            errors.push(FieldError::forbidden("spec.clusterIPs[0]", message));
        }
    } else {
        if headless && kind == "LoadBalancer" {
            let message = "may not be set to 'None' for LoadBalancer services";
            errors.push(FieldError::invalid("spec.clusterIPs[0]", &json!(NONE), message));
        }
        if headless && kind == "NodePort" {
            let message = "may not be set to 'None' for NodePort services";
            errors.push(FieldError::invalid("spec.clusterIPs[0]", &json!(NONE), message));
        }
        let first = text(spec, "clusterIP");
        if !first.is_empty() && !headless {
            if first.parse::<std::net::IpAddr>().is_err() {
                let message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                errors.push(FieldError::invalid("spec.clusterIPs[0]", &json!(first), message));
            }
            if spec["clusterIPs"][0] != spec["clusterIP"] {
                let message = "first value must match `clusterIP`";
                errors.push(FieldError::invalid(
                    "spec.clusterIPs",
                    &spec["clusterIPs"],
                    message,
                ));
            }
        }
    }
    if spec["ipFamilyPolicy"] == "RequireDualStack" && !headless {
        let message = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(
            "spec.ipFamilyPolicy",
            &spec["ipFamilyPolicy"],
            message,
        ));
    }
    validate_reach(spec, &mut errors);
    let policies = ["Cluster", "Local"];
    let external = &spec["externalTrafficPolicy"];
    let reachable =
        matches!(kind, "LoadBalancer" | "NodePort") || items(spec, "externalIPs").next().is_some();
    if !external.is_null() && !reachable {
        let message = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(
            "spec.externalTrafficPolicy",
            external,
            message,
        ));
    } else {
        one_of_if_set(&mut errors, "spec.externalTrafficPolicy", external, &policies);
    }
    let internal = &spec["internalTrafficPolicy"];
    one_of_if_set(&mut errors, "spec.internalTrafficPolicy", internal, &policies);
    errors
}

/// What of a Service may not change.
pub(super) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (spec, was) = (&new["spec"], &old["spec"]);
    if text(spec, "type") == "ExternalName" || text(was, "type") == "ExternalName" {
        return Vec::new();
    }
    if !was["clusterIPs"][0].is_null() && was["clusterIPs"][0] != spec["clusterIPs"][0] {
        let message = "may not change once set";
        return vec![FieldError::invalid(
            "spec.clusterIPs[0]",
            &spec["clusterIPs"],
            message,
        )];
    }
    Vec::new()
}
