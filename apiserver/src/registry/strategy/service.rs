//! Services: defaults, the cluster addresses and node ports they get (`pkg/registry/core/service`).

use super::Context;
use super::json::{copy, default, each, items, made, remove, same, text};
use crate::error::FieldError;
use crate::object;
use crate::store::Range;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Cluster addresses are given from here: 10.96.0.0/16, the usual Service CIDR.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([10, 96, 0, 0]);
/// How many addresses the range has; the first and the last are not given.
const ADDRESSES: u32 = 1 << 16;
/// kube-apiserver's default `--service-node-port-range`.
pub(super) const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
/// The address of the Service `kubernetes`, never given to another.
const KUBERNETES_ADDRESS: u32 = FIRST_ADDRESS + 1;
pub(super) const NONE: &str = "None";

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
    if text(spec, "clusterIP").is_empty() && spec["clusterIPs"][0].is_string() {
        // To be refused.
        return;
    }
    match text(spec, "clusterIP").to_owned().as_str() {
        NONE => {
            spec["clusterIPs"] = json!([NONE]);
            // A Service without selector may have endpoints of either family.
            let bare = spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
            if bare {
                default(spec, "ipFamilyPolicy", "RequireDualStack");
                default(spec, "ipFamilies", json!(["IPv4"]));
                if text(spec, "ipFamilyPolicy") != "SingleStack"
                    && let Some(families) = spec["ipFamilies"].as_array_mut()
                    && families.len() == 1
                {
                    let other = if families[0] == "IPv4" { "IPv6" } else { "IPv4" };
                    families.push(other.into());
                }
            }
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
