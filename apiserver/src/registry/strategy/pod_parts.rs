//! What may be in the parts of a pod that few pods have: probes, hooks, tolerations, affinity, gates, security contexts.

use super::json::{items, text};
use super::pod_rules::{all, not_negative, one_of_if_set, port_number};
use super::{network, pod_scheduling};
use crate::error::{FieldError, FieldErrorKind};
use crate::registry::names;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const POD_AND_NODE_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn port(errors: &mut Vec<FieldError>, field: &str, value: &Value) {
    match value.as_str() {
        Some(name) => all(errors, field, value, names::port_name(name)),
        None => port_number(errors, field, value),
    }
}

/// A probe or hook: exactly one handler, and that one sound.
fn handler(holder: &Value, kinds: &[&str], at: &str, errors: &mut Vec<FieldError>) {
    let mut handlers = 0;
    for kind in kinds {
        let value = &holder[*kind];
        if value.is_null() {
            continue;
        }
        handlers += 1;
        if handlers > 1 {
            errors.push(FieldError::forbidden(
                format!("{at}.{kind}"),
                "may not specify more than 1 handler type",
            ));
            continue;
        }
        match *kind {
            "exec" if items(value, "command").next().is_none() => {
                errors.push(FieldError::required(format!("{at}.exec.command"), ""));
            }
            "httpGet" => {
                if text(value, "path").is_empty() {
                    errors.push(FieldError::required(format!("{at}.httpGet.path"), ""));
                }
                port(errors, &format!("{at}.httpGet.port"), &value["port"]);
                one_of_if_set(
                    errors,
                    &format!("{at}.httpGet.scheme"),
                    &value["scheme"],
                    &["HTTP", "HTTPS"],
                );
            }
            "tcpSocket" | "grpc" => port(errors, &format!("{at}.{kind}.port"), &value["port"]),
            _ => {}
        }
    }
    if handlers == 0 {
        errors.push(FieldError::required(at.to_owned(), "must specify a handler type"));
    }
}

/// Hooks and probes of a container.
pub(super) fn validate_hooks(container: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for hook in ["postStart", "preStop"] {
        let value = &container["lifecycle"][hook];
        if !value.is_null() {
            let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
            handler(value, &kinds, &format!("{at}.lifecycle.{hook}"), errors);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let value = &container[probe];
        if value.is_null() {
            continue;
        }
        let at = format!("{at}.{probe}");
        handler(value, &["exec", "httpGet", "tcpSocket", "grpc"], &at, errors);
        for number in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            not_negative(errors, &format!("{at}.{number}"), &value[number]);
        }
        let successes = &value["successThreshold"];
        if probe != "readinessProbe" && successes.as_i64().is_some_and(|n| n > 1) {
            errors.push(FieldError::invalid(
                format!("{at}.successThreshold"),
                successes,
                "must be 1",
            ));
        }
    }
}

/// `fieldRef` of a variable.
pub(super) fn validate_field_ref(reference: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if reference.is_null() {
        return;
    }
    let path = text(reference, "fieldPath");
    let keyed = ["metadata.annotations['", "metadata.labels['"];
    if path.is_empty() {
        errors.push(FieldError::required(format!("{at}.fieldPath"), ""));
    } else if !POD_AND_NODE_FIELDS.contains(&path) && !keyed.iter().any(|k| path.starts_with(k)) {
        errors.push(FieldError::invalid(
            format!("{at}.fieldPath"),
            &reference["fieldPath"],
            &format!("error converting fieldPath: field label not supported: {path}"),
        ));
    }
}

/// One toleration.
pub(super) fn validate_toleration(toleration: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
    if !key.is_empty() {
        let messages = names::label_key(key);
        all(errors, &format!("{at}.key"), &toleration["key"], messages);
    } else if operator != "Exists" {
        let message =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(
            format!("{at}.operator"),
            &toleration["operator"],
            message,
        ));
    }
    if !toleration["tolerationSeconds"].is_null() && text(toleration, "effect") != "NoExecute" {
        let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(
            format!("{at}.effect"),
            &toleration["effect"],
            message,
        ));
    }
    if operator == "Exists" && !text(toleration, "value").is_empty() {
        errors.push(FieldError::invalid(
            format!("{at}.operator"),
            &toleration["value"],
            "value must be empty when `operator` is 'Exists'",
        ));
    } else if !matches!(operator, "" | "Equal" | "Exists" | "Lt" | "Gt") {
        errors.push(FieldError::not_supported(
            format!("{at}.operator"),
            &toleration["operator"],
            &["Equal", "Exists"],
        ));
    }
    if !text(toleration, "effect").is_empty() {
        one_of_if_set(
            errors,
            &format!("{at}.effect"),
            &toleration["effect"],
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
        );
    }
}

/// The parts of a pod's spec that stand beside its containers.
pub(super) fn validate_rest(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    pod_scheduling::validate_affinity(&spec["affinity"], &format!("{field}.affinity"), errors);
    pod_scheduling::validate_spread(spec, field, errors);
    validate_names(spec, field, errors);
    if text(spec, "dnsPolicy") == "None" && items(&spec["dnsConfig"], "nameservers").next().is_none() {
        if spec["dnsConfig"].is_null() {
            errors.push(FieldError::required(
                format!("{field}.dnsConfig"),
                "must provide `dnsConfig` when `dnsPolicy` is None",
            ));
        } else {
            errors.push(FieldError::required(
                format!("{field}.dnsConfig.nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            ));
        }
    }
    for name in ["hostname", "subdomain"] {
        let value = text(spec, name);
        let at = format!("{field}.{name}");
        if value.contains('.') && name == "hostname" {
            errors.push(FieldError::invalid(at, &spec[name], "must not contain dots"));
        } else if !value.is_empty() {
            all(errors, &at, &spec[name], names::dns_label(value));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, gate) in items(spec, "schedulingGates").enumerate() {
        let at = format!("{field}.schedulingGates[{i}]");
        let name = text(gate, "name");
        all(errors, &at, &gate["name"], names::qualified_name(name));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(at, &gate["name"]));
        }
    }
    if spec["os"]["name"] == "windows" {
        for (at, value) in [
            ("hostPID", &spec["hostPID"]),
            ("hostIPC", &spec["hostIPC"]),
            (
                "securityContext.seLinuxOptions",
                &spec["securityContext"]["seLinuxOptions"],
            ),
            ("securityContext.fsGroup", &spec["securityContext"]["fsGroup"]),
            ("securityContext.runAsUser", &spec["securityContext"]["runAsUser"]),
            (
                "securityContext.runAsGroup",
                &spec["securityContext"]["runAsGroup"],
            ),
        ] {
            if !value.is_null() && *value != json!(false) {
                errors.push(FieldError::forbidden(
                    format!("{field}.{at}"),
                    "cannot be set for a windows pod",
                ));
            }
        }
    }
    for id in ["runAsUser", "runAsGroup", "fsGroup"] {
        validate_id(
            &spec["securityContext"],
            id,
            &format!("{field}.securityContext"),
            errors,
        );
    }
}

/// Addresses and names that a pod's own files have, and the conditions it waits for.
fn validate_names(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for (i, server) in items(&spec["dnsConfig"], "nameservers").enumerate() {
        network::check_address(errors, &format!("{field}.dnsConfig.nameservers[{i}]"), server);
    }
    for (i, gate) in items(spec, "readinessGates").enumerate() {
        let messages = names::qualified_name(text(gate, "conditionType"));
        let at = format!("{field}.readinessGates[{i}].conditionType");
        all(errors, &at, &gate["conditionType"], messages);
    }
    for (i, alias) in items(spec, "hostAliases").enumerate() {
        let at = format!("{field}.hostAliases[{i}]");
        network::check_address(errors, &format!("{at}.ip"), &json!(text(alias, "ip")));
        for (j, host) in items(alias, "hostnames").enumerate() {
            let messages = names::dns_subdomain(host.as_str().unwrap_or_default());
            all(errors, &format!("{at}.hostnames[{j}]"), host, messages);
        }
    }
    let os = &spec["os"];
    if !os.is_null() {
        let name = text(os, "name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{field}.os.name"), ""));
        } else if !matches!(name, "linux" | "windows") {
            let at = format!("{field}.os");
            errors.push(FieldError::not_supported(at, &os["name"], &["linux", "windows"]));
        }
    }
    if spec["hostPID"] == json!(true) && spec["shareProcessNamespace"] == json!(true) {
        errors.push(FieldError::invalid(
            format!("{field}.securityContext.shareProcessNamespace"),
            &json!(true),
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
    for list in ["containers", "initContainers"] {
        for (i, container) in items(spec, list).enumerate() {
            let mount = &container["securityContext"]["procMount"];
            if mount == "Unmasked" && spec["hostUsers"] != json!(false) {
                let at = format!("{field}.{list}[{i}].securityContext.procMount");
                let message = "`hostUsers` must be false to use `Unmasked`";
                errors.push(FieldError::invalid(at, mount, message));
            }
        }
    }
    let context = &spec["securityContext"];
    let at = format!("{field}.securityContext");
    for (key, allowed) in [
        ("fsGroupChangePolicy", ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
    ] {
        let value = &context[key];
        if !value.is_null() && !allowed.iter().any(|a| value == a) {
            errors.push(FieldError::not_supported(format!("{at}.{key}"), value, &allowed));
        }
    }
    validate_profiles(context, &at, errors);
    let mut seen = BTreeSet::new();
    for (i, sysctl) in items(context, "sysctls").enumerate() {
        if !seen.insert(text(sysctl, "name")) {
            errors.push(FieldError::duplicate(
                format!("{at}.sysctls[{i}].name"),
                &sysctl["name"],
            ));
        }
    }
}

/// `seccompProfile` and `appArmorProfile` of a pod or container.
fn validate_profiles(context: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for (key, name) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let profile = &context[key];
        if profile.is_null() {
            continue;
        }
        let kind = text(profile, "type");
        let set = !profile["localhostProfile"].is_null();
        if kind.is_empty() {
            let message = format!("type is required when {key} is set");
            errors.push(FieldError::required(format!("{at}.{key}.type"), &message));
        } else if !matches!(kind, "Localhost" | "RuntimeDefault" | "Unconfined") {
            errors.push(FieldError::not_supported(
                format!("{at}.{key}.type"),
                &profile["type"],
                &["Localhost", "RuntimeDefault", "Unconfined"],
            ));
        }
        if kind == "Localhost" && !set {
            let message = format!("must be set when {name} type is Localhost");
            errors.push(FieldError::required(
                format!("{at}.{key}.localhostProfile"),
                &message,
            ));
        }
    }
}

fn validate_id(context: &Value, id: &str, at: &str, errors: &mut Vec<FieldError>) {
    let value = &context[id];
    if value.as_i64().is_some_and(|n| !(0..=2_147_483_647).contains(&n)) {
        let message = "must be between 0 and 2147483647, inclusive";
        errors.push(FieldError::invalid(format!("{at}.{id}"), value, message));
    }
}

/// A container's security context: ids, and that a container does not say two things. Privileged ones are refused, as
/// a kube-apiserver without `--allow-privileged` does.
pub(super) fn validate_security(container: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let context = &container["securityContext"];
    for id in ["runAsUser", "runAsGroup"] {
        validate_id(context, id, &format!("{at}.securityContext"), errors);
    }
    validate_profiles(context, &format!("{at}.securityContext"), errors);
}

/// Requests no larger than limits.
pub(super) fn validate_requests(resources: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for (name, request) in resources["requests"].as_object().into_iter().flatten() {
        let limit = &resources["limits"][name];
        let amounts = (amount(request), amount(limit));
        if let (Some(requested), Some(limited)) = amounts
            && requested > limited
        {
            let shown = limit.as_str().map_or_else(|| limit.to_string(), str::to_owned);
            errors.push(FieldError::new(
                FieldErrorKind::Invalid,
                format!("{at}.requests"),
                format!("Invalid value: {request}: must be less than or equal to {name} limit of {shown}"),
            ));
        }
    }
}

/// A quantity as a number, near enough to compare two.
fn amount(value: &Value) -> Option<f64> {
    let shown = match value {
        Value::String(text) => text.clone(),
        Value::Number(n) => n.to_string(),
        _ => return None,
    };
    let end = shown
        .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-'))
        .unwrap_or(shown.len());
    let (number, unit) = shown.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match unit {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 2f64.powi(10),
        "Mi" => 2f64.powi(20),
        "Gi" => 2f64.powi(30),
        "Ti" => 2f64.powi(40),
        "Pi" => 2f64.powi(50),
        "Ei" => 2f64.powi(60),
        exponent => 10f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(check: impl Fn(&mut Vec<FieldError>)) -> Vec<String> {
        let mut errors = Vec::new();
        check(&mut errors);
        errors.iter().map(|e| format!("{e:?}")).collect()
    }

    #[test]
    fn requests_fit_limits() {
        for (request, limit, fits) in [
            (json!("500m"), json!("1"), true),
            (json!("1"), json!("1000m"), true),
            (json!(2), json!("1"), false),
            (json!("1Gi"), json!("1G"), false),
            (json!("1e3"), json!("1k"), true),
            (json!("1"), json!(null), true),
        ] {
            let resources = json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
            let errors = told(|e| validate_requests(&resources, "r", e));
            assert_eq!(errors.is_empty(), fits, "{resources}: {errors:?}");
        }
    }

    #[test]
    fn tolerations() {
        for (toleration, errors) in [
            (json!({"key": "a", "operator": "Exists"}), 0),
            (json!({"operator": "Exists"}), 0),
            (json!({"operator": "Equal"}), 1),
            (json!({"key": "a", "operator": "Exists", "value": "v"}), 1),
            (json!({"key": "a", "effect": "Frob"}), 1),
            (
                json!({"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}),
                1,
            ),
        ] {
            let told = told(|e| validate_toleration(&toleration, "t", e));
            assert_eq!(told.len(), errors, "{toleration}: {told:?}");
        }
    }

    #[test]
    fn a_probe_has_one_handler() {
        for (probe, errors) in [
            (json!({"tcpSocket": {"port": 80}}), 0),
            (json!({}), 1),
            (json!({"tcpSocket": {"port": 80}, "grpc": {"port": 80}}), 1),
            (json!({"httpGet": {"path": "/", "port": "a-name"}}), 0),
            (json!({"httpGet": {"path": "/", "port": 0}}), 1),
        ] {
            let container = json!({"livenessProbe": probe});
            let told = told(|e| validate_hooks(&container, "c", e));
            assert_eq!(told.len(), errors, "{container}: {told:?}");
        }
    }
}
