//! Warnings of pods and pod templates: what is deprecated, does nothing any more, or is surely not meant.

use super::json::{items, text};
use super::quantity;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Labels of nodes that have other names now: old name, version, new name.
const NODE_LABELS: [(&str, &str, &str); 5] = [
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    (
        "beta.kubernetes.io/instance-type",
        "v1.17",
        "node.kubernetes.io/instance-type",
    ),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "v1.17",
        "topology.kubernetes.io/region",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "v1.17",
        "topology.kubernetes.io/zone",
    ),
];

/// Annotations that do nothing any more.
const ANNOTATIONS: [(&str, &str); 2] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

/// Sources of volumes that are or will be no more.
const VOLUMES: [(&str, &str); 8] = [
    (
        "gitRepo",
        "deprecated in v1.11, and disabled by default in v1.33+",
    ),
    (
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
];
const RBD: (&str, &str) = ("rbd", "deprecated in v1.28, non-functional in v1.31+");

const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const APP_ARMOR: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// What is said of a label of nodes that has another name now.
pub(super) fn node_label(key: &str) -> Option<String> {
    let (_, since, new) = NODE_LABELS.iter().find(|(old, ..)| *old == key)?;
    Some(format!("deprecated since {since}; use {new:?} instead"))
}

/// What is said of the sources of a volume, each at `at`.
pub(super) fn sources(volume: &Value, at: &str, out: &mut Vec<String>) {
    for (source, why) in VOLUMES.iter().chain([&RBD]) {
        if !volume[*source].is_null() {
            out.push(format!("{at}.{source}: {why}"));
        }
    }
}

/// Whether a list of resources has a part of a byte of one.
pub(super) fn fraction(list: &Value, name: &str, at: &str, out: &mut Vec<String>) {
    let amount = text(list, name);
    if quantity::nanos(amount).is_some_and(|n| n % 1_000_000_000 != 0) {
        out.push(format!(
            "{at}[{name}]: fractional byte value {amount:?} is invalid, must be an integer"
        ));
    }
}

/// Warnings of a pod, or of a template at `at` (`""` for the pod itself).
pub(super) fn of(pod: &Value, at: &str) -> Vec<String> {
    let field = |name: &str| {
        if at.is_empty() {
            name.to_owned()
        } else {
            format!("{at}.{name}")
        }
    };
    let (meta, spec_at, spec) = (field("metadata.annotations"), field("spec"), &pod["spec"]);
    let annotations = &pod["metadata"]["annotations"];
    let mut out = Vec::new();
    scheduling(spec, &spec_at, &mut out);
    for (key, why) in ANNOTATIONS {
        if !annotations[key].is_null() {
            out.push(format!("{meta}[{key}]: {why}"));
        }
    }
    for (i, volume) in items(spec, "volumes").enumerate() {
        let volume_at = format!("{spec_at}.volumes[{i}]");
        sources(volume, &volume_at, &mut out);
        let claim = &volume["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]["requests"];
        let claim_at = format!("{volume_at}.ephemeral.volumeClaimTemplate.spec.resources.requests");
        fraction(claim, "storage", &claim_at, &mut out);
    }
    twice(spec, &spec_at, &mut out);
    let no_profile = |of: &Value| of["securityContext"]["seccompProfile"].is_null();
    let pod_key = "seccomp.security.alpha.kubernetes.io/pod";
    if no_profile(spec) && !annotations[pod_key].is_null() {
        out.push(format!("{meta}[{pod_key}]: {SECCOMP}"));
    }
    for list in ["initContainers", "containers"] {
        for (i, container) in items(spec, list).enumerate() {
            let key = format!(
                "container.seccomp.security.alpha.kubernetes.io/{}",
                text(container, "name")
            );
            if no_profile(container) && !annotations[&key].is_null() {
                out.push(format!("{meta}[{key}]: {SECCOMP}"));
            }
            if !at.is_empty() {
                container_app_armor(container, annotations, &meta, &mut out);
            }
            of_container(container, &format!("{spec_at}.{list}[{i}]"), &mut out);
        }
    }
    if spec["terminationGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|s| s < 0)
    {
        out.push(format!(
            "{spec_at}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    affinity_selectors(spec, &spec_at, &mut out);
    out
}

/// What is said of a new pod's annotations before anything else; of templates it is said with the rest.
pub(super) fn app_armor(pod: &Value, out: &mut Vec<String>) {
    let all = ["initContainers", "containers"];
    for container in all.into_iter().flat_map(|list| items(&pod["spec"], list)) {
        container_app_armor(
            container,
            &pod["metadata"]["annotations"],
            "metadata.annotations",
            out,
        );
    }
}

fn container_app_armor(container: &Value, annotations: &Value, meta: &str, out: &mut Vec<String>) {
    let key = format!(
        "container.apparmor.security.beta.kubernetes.io/{}",
        text(container, "name")
    );
    if container["securityContext"]["appArmorProfile"].is_null() && !annotations[&key].is_null() {
        out.push(format!("{meta}[{key}]: {APP_ARMOR}"));
    }
}

/// Old labels of nodes, and constraints that select nothing.
fn scheduling(spec: &Value, at: &str, out: &mut Vec<String>) {
    for key in spec["nodeSelector"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| k)
    {
        if let Some(why) = node_label(key) {
            out.push(format!("{at}.nodeSelector[{key}]: {why}"));
        }
    }
    let mut term = |term: &Value, at: &str| {
        for (i, expression) in items(term, "matchExpressions").enumerate() {
            let key = text(expression, "key");
            if let Some(why) = node_label(key) {
                out.push(format!("{at}.matchExpressions[{i}].key: {key} is {why}"));
            }
        }
    };
    let nodes = &spec["affinity"]["nodeAffinity"];
    let nodes_at = format!("{at}.affinity.nodeAffinity");
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    for (i, found) in items(&nodes[required], "nodeSelectorTerms").enumerate() {
        term(found, &format!("{nodes_at}.{required}.nodeSelectorTerms[{i}]"));
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (i, found) in items(nodes, preferred).enumerate() {
        term(
            &found["preference"],
            &format!("{nodes_at}.{preferred}[{i}].preference"),
        );
    }
    for (i, constraint) in items(spec, "topologySpreadConstraints").enumerate() {
        let at = format!("{at}.topologySpreadConstraints[{i}]");
        let key = text(constraint, "topologyKey");
        if let Some(why) = node_label(key) {
            out.push(format!("{at}.topologyKey: {key} is {why}"));
        }
        if constraint["labelSelector"].is_null() {
            out.push(format!("{at}.labelSelector: {NULL_SELECTOR}"));
        }
    }
}

/// What is there twice where once was meant.
fn twice(spec: &Value, at: &str, out: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (i, alias) in items(spec, "hostAliases").enumerate() {
        let ip = text(alias, "ip");
        if !seen.insert(ip) {
            out.push(format!("{at}.hostAliases[{i}].ip: duplicate ip {ip:?}"));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, secret) in items(spec, "imagePullSecrets").enumerate() {
        let name = text(secret, "name");
        let at = format!("{at}.imagePullSecrets[{i}].name");
        if name.is_empty() {
            out.push(format!("{at}: invalid empty name \"\""));
        } else if !seen.insert(name) {
            out.push(format!("{at}: duplicate name {name:?}"));
        }
    }
}

fn of_container(container: &Value, at: &str, out: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        for list in ["limits", "requests"] {
            let amounts = &container["resources"][list];
            fraction(amounts, name, &format!("{at}.resources.{list}"), out);
        }
    }
    let mut seen = BTreeSet::new();
    for (j, variable) in items(container, "env").enumerate() {
        let name = text(variable, "name");
        if !seen.insert(name) {
            out.push(format!(
                "{at}.env[{j}]: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
    let mut ports: Vec<Value> = Vec::new();
    for (j, port) in items(container, "ports").enumerate() {
        let key = json!([
            port["containerPort"],
            port["protocol"],
            port["hostPort"],
            port["hostIP"]
        ]);
        if let Some(first) = ports.iter().position(|p| *p == key) {
            out.push(format!(
                "{at}.ports[{j}]: duplicate port definition with {at}.ports[{first}]"
            ));
        }
        ports.push(key);
    }
}

/// Terms of pods near each other, or apart, that select nothing.
fn affinity_selectors(spec: &Value, at: &str, out: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let terms = &spec["affinity"][kind];
        for (list, inner) in [
            ("requiredDuringSchedulingIgnoredDuringExecution", ""),
            (
                "preferredDuringSchedulingIgnoredDuringExecution",
                ".podAffinityTerm",
            ),
        ] {
            for (i, term) in items(terms, list).enumerate() {
                let term = if inner.is_empty() {
                    term
                } else {
                    &term["podAffinityTerm"]
                };
                if term["labelSelector"].is_null() {
                    out.push(format!(
                        "{at}.affinity.{kind}.{list}[{i}]{inner}.labelSelector: {NULL_SELECTOR}"
                    ));
                }
            }
        }
    }
}
