//! What may be in a Service, and what of it may not change (`pkg/apis/core/validation`).

use super::check::Spot;
use super::endpoints::special;
use super::json::{items, same, text};
use super::metadata::validate_labels;
use super::network::{NO_ADDRESS, NO_RANGE, range};
use super::pod_rules::{one_of, one_of_if_set, port_number};
use super::service::{NODE_PORTS, NONE};
use crate::error::{FieldError, FieldErrorKind};
use crate::registry::names;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// A day, in seconds: the longest a client stays with one endpoint.
const MAX_AFFINITY: i64 = 86400;

fn validate_ports(spec: &Value, errors: &mut Vec<FieldError>) {
    let count = items(spec, "ports").count();
    let mut names_seen = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut nodes = BTreeSet::new();
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
        if port["nodePort"].as_u64().unwrap_or(0) != 0
            && !nodes.insert((port["nodePort"].to_string(), text(port, "protocol")))
        {
            let field = format!("{at}.nodePort");
            let why = "provided port is already allocated";
            errors.push(FieldError::invalid(field, &port["nodePort"], why));
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
    for address in Spot::new(spec, "spec").list("externalIPs") {
        match address.text().parse() {
            Err(_) => address.invalid(errors, NO_ADDRESS),
            Ok(parsed) => {
                if let Some(problem) = special(parsed) {
                    address.invalid(errors, problem);
                }
            }
        }
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
    }
    for (i, one) in items(spec, "loadBalancerSourceRanges").enumerate() {
        if one.as_str().is_none_or(|text| range(text.trim()).is_none()) {
            let at = format!("spec.LoadBalancerSourceRanges[{i}]");
            errors.push(FieldError::invalid(at, one, NO_RANGE));
        }
    }
    let asked = text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local";
    if !asked && spec["healthCheckNodePort"].as_u64().unwrap_or(0) != 0 {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        let port = &spec["healthCheckNodePort"];
        errors.push(FieldError::invalid("spec.healthCheckNodePort", port, why));
    }
    if let Some(class) = spec["loadBalancerClass"].as_str() {
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

/// Families of addresses: this server gives those of IPv4 alone. A Service that is given none may name any.
fn validate_families(spec: &Value, headless: bool, errors: &mut Vec<FieldError>) {
    let bare = spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    if headless && bare {
        return;
    }
    let policy = &spec["ipFamilyPolicy"];
    let families: Vec<&Value> = items(spec, "ipFamilies").collect();
    let several = policy == "PreferDualStack" || policy == "RequireDualStack";
    if policy == "RequireDualStack" {
        let message = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy, message));
    } else if families.len() > 1 && !several {
        let message =
            "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified";
        let shown = if policy.is_null() {
            &json!("SingleStack")
        } else {
            policy
        };
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", shown, message));
        return;
    }
    for (i, family) in families
        .iter()
        .enumerate()
        .filter(|(_, family)| **family == "IPv6")
    {
        let field = format!("spec.ipFamilies[{i}]");
        errors.push(FieldError::invalid(
            field,
            family,
            "not configured on this cluster",
        ));
    }
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
        if text(spec, "clusterIP").is_empty() && items(spec, "clusterIPs").next().is_some() {
            let message = "must be empty when `clusterIP` is not specified";
            errors.push(FieldError::invalid(
                "spec.clusterIPs",
                &spec["clusterIPs"],
                message,
            ));
        }
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
    if kind != "ExternalName" {
        validate_families(spec, headless, &mut errors);
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
    let mut errors = Vec::new();
    let balanced = |spec: &Value| text(spec, "type") == "LoadBalancer";
    if balanced(was) && balanced(spec) && !same(&spec["loadBalancerClass"], &was["loadBalancerClass"]) {
        let class = &spec["loadBalancerClass"];
        errors.push(FieldError::invalid(
            "spec.loadBalancerClass",
            class,
            "may not change once set",
        ));
    }
    if !was["clusterIPs"][0].is_null() && was["clusterIPs"][0] != spec["clusterIPs"][0] {
        let message = "may not change once set";
        errors.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            &spec["clusterIPs"],
            message,
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_addresses_and_ports() {
        let with = |change: Value| {
            let mut spec = json!({"type": "ClusterIP", "sessionAffinity": "None", "selector": {"a": "b"},
                "ports": [{"port": 80, "protocol": "TCP"}]});
            for (key, value) in change.as_object().into_iter().flatten() {
                spec[key] = value.clone();
            }
            json!({ "spec": spec })
        };
        for (change, want) in [
            (json!({}), ""),
            (json!({"ipFamilies": ["IPv6"]}), "spec.ipFamilies[0]"),
            (json!({"ipFamilies": ["IPv4", "IPv6"]}), "spec.ipFamilyPolicy"),
            (
                json!({"clusterIP": "None", "selector": {}, "ipFamilies": ["IPv6"]}),
                "",
            ),
            (json!({"ipFamilyPolicy": "PreferDualStack"}), ""),
            (
                json!({"ipFamilyPolicy": "RequireDualStack"}),
                "spec.ipFamilyPolicy",
            ),
            (json!({"clusterIPs": ["10.96.1.1"]}), "spec.clusterIPs"),
            (json!({"externalIPs": ["127.0.0.1"]}), "spec.externalIPs[0]"),
            (json!({"healthCheckNodePort": 30000}), "spec.healthCheckNodePort"),
            (
                json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["x"]}),
                "spec.LoadBalancerSourceRanges[0]",
            ),
            (
                json!({"type": "NodePort", "ports": [{"name": "a", "port": 80, "protocol": "TCP", "nodePort": 30000},
                    {"name": "b", "port": 81, "protocol": "TCP", "nodePort": 30000}]}),
                "spec.ports[1].nodePort",
            ),
            (
                json!({"type": "NodePort", "ports": [{"name": "a", "port": 80, "protocol": "TCP", "nodePort": 30000},
                    {"name": "b", "port": 80, "protocol": "UDP", "nodePort": 30000}]}),
                "",
            ),
        ] {
            let errors = validate(&with(change.clone()));
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields.join(" "), want, "{change}");
        }
    }

    #[test]
    fn a_balancers_class_stays() {
        let of = |class: Value| json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": class}});
        for (new, old, good) in [
            (json!("x.io/a"), json!("x.io/a"), true),
            (json!("x.io/b"), json!("x.io/a"), false),
            (Value::Null, json!("x.io/a"), false),
        ] {
            let errors = validate_update(&of(new.clone()), &of(old));
            assert_eq!(errors.is_empty(), good, "{new}: {errors:?}");
        }
    }
}
