//! What may be in the parts of a pod that few pods have: tolerations, gates, names, security contexts.

use super::check::{Errors, Spot, descending};
use super::go::{self, Part, Shape};
use super::json::{items, text};
use super::pod_rules::{all, one_of_if_set};
use super::{network, pod_scheduling};
use crate::error::FieldError;
use crate::registry::names;
use serde_json::{Value, json};
use std::collections::BTreeSet;

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
            &json!(text(toleration, "effect")),
            message,
        ));
    }
    if matches!(operator, "" | "Equal") {
        let messages = names::label_value(text(toleration, "value"));
        if !messages.is_empty() {
            let at = format!("{at}.operator");
            errors.push(FieldError::invalid(at, &toleration["value"], &messages.join(";")));
        }
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
    let context = Spot::new(&spec["securityContext"], format!("{field}.securityContext"));
    for id in ["runAsUser", "runAsGroup", "fsGroup"] {
        validate_id(&context.at(id), errors);
    }
    for group in context.list("supplementalGroups") {
        validate_id(&group, errors);
    }
    validate_claims(&Spot::new(spec, field), errors);
    validate_dns(
        &Spot::new(&spec["dnsConfig"], format!("{field}.dnsConfig")),
        errors,
    );
}

const CLAIM: &Shape = &[
    ("Name", "name", Part::Text),
    ("ResourceClaimName", "resourceClaimName", Part::Plain),
    (
        "ResourceClaimTemplateName",
        "resourceClaimTemplateName",
        Part::Plain,
    ),
];

/// Devices the pod asks for: each by a name of its own, from a claim or a template of one.
fn validate_claims(spec: &Spot<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for claim in spec.list("resourceClaims") {
        let name = claim.at("name");
        if name.required(errors, "") {
            name.named(errors, names::dns_label);
            if !seen.insert(name.text()) {
                name.duplicate(errors);
            }
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"].map(|key| claim.at(key));
        let shown = || go::shown(claim.value, CLAIM);
        match sources.iter().filter(|source| source.is_set()).count() {
            0 => {
                let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                claim.invalid_shown(errors, &shown(), why);
            }
            1 => {}
            _ => {
                let why =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                claim.invalid_shown(errors, &shown(), why);
            }
        }
        for source in sources.iter().filter(|source| source.is_set()) {
            source.named(errors, names::dns_subdomain);
        }
    }
}

/// Servers, domains to search in and options of the pod's own resolver.
fn validate_dns(config: &Spot<'_>, errors: &mut Errors) {
    for (key, most, what) in [
        ("nameservers", 3, "nameservers"),
        ("searches", 32, "search paths"),
    ] {
        let list = config.at(key);
        if list.items().len() > most {
            list.invalid(errors, &format!("must not have more than {most} {what}"));
        }
    }
    for domain in config.list("searches") {
        let text = domain.text();
        // The root of all names, and the end of a name that is whole.
        let name = if text == "." {
            "a"
        } else {
            text.strip_suffix('.').unwrap_or(text)
        };
        for message in names::dns_subdomain_with_underscore(name) {
            domain.invalid(errors, &message);
        }
    }
    for option in config.list("options") {
        if option.at("name").is_empty() {
            option.missing(errors, "must not be empty");
        }
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
    Spot::new(context, at.as_str())
        .at("seLinuxChangePolicy")
        .among_if_set(errors, &["Recursive"]);
    let mut seen = BTreeSet::new();
    for sysctl in Spot::new(context, at).list("sysctls") {
        let name = sysctl.at("name");
        if name.required(errors, "") && !is_sysctl(name.text()) {
            name.invalid(errors, SYSCTL);
        } else if !seen.insert(name.text()) {
            name.duplicate(errors);
        }
    }
}

const SYSCTL: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Whether a name is one of the kernel's settings.
fn is_sysctl(name: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(alnum)
            && bytes.last().is_some_and(alnum)
            && bytes.iter().all(|b| alnum(b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}

/// `seccompProfile` and `appArmorProfile` of a pod or container.
fn validate_profiles(context: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for (key, name) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let profile = &context[key];
        if profile.is_null() {
            continue;
        }
        let kind = text(profile, "type");
        let local = Spot::new(
            &profile["localhostProfile"],
            format!("{at}.{key}.localhostProfile"),
        );
        // Only one of the two takes an empty text for none.
        let set = local.is_set() && (key == "seccompProfile" || !local.is_empty());
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
            local.missing(errors, &message);
        } else if kind == "Localhost" {
            descending(&local, errors);
        } else if local.is_set() && matches!(kind, "RuntimeDefault" | "Unconfined") {
            let why = format!("can only be set when {name} type is Localhost");
            let shown = if key == "seccompProfile" {
                let shape: &Shape = &[
                    ("Type", "type", Part::Text),
                    ("LocalhostProfile", "localhostProfile", Part::Plain),
                ];
                go::shown(profile, shape)
            } else {
                local.value.to_string()
            };
            local.invalid_shown(errors, &shown, &why);
        }
    }
}

fn validate_id(id: &Spot<'_>, errors: &mut Errors) {
    let why = "must be between 0 and 2147483647, inclusive";
    id.between(errors, 0, i64::from(i32::MAX), why);
}

/// A container's security context: ids, profiles, and that one with all rights is not denied more of them.
pub(super) fn validate_security(container: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let context = Spot::new(&container["securityContext"], format!("{at}.securityContext"));
    for id in ["runAsUser", "runAsGroup"] {
        validate_id(&context.at(id), errors);
    }
    context
        .at("procMount")
        .among_if_set(errors, &["Default", "Unmasked"]);
    validate_profiles(context.value, &context.path, errors);
    if context.value["allowPrivilegeEscalation"] == false {
        let added = context.value["capabilities"]["add"].as_array();
        let sys_admin = |added: &Vec<Value>| added.iter().any(|c| c == "CAP_SYS_ADMIN");
        let rights = [
            (context.value["privileged"] == true, "`privileged` to true"),
            (added.is_some_and(sys_admin), "`capabilities.Add` CAP_SYS_ADMIN"),
        ];
        for (_, what) in rights.iter().filter(|(given, _)| *given) {
            context.invalid(
                errors,
                &format!("cannot set `allowPrivilegeEscalation` to false and {what}"),
            );
        }
    }
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
}
