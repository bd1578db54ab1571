//! The Pod Security Standards: what each level forbids, by version.

mod context;

use super::level::{Level, LevelVersion};
use serde_json::Value;
use std::collections::BTreeSet;

/// The newest version that changed a rule.
const NEWEST: u32 = 35;

/// A pod, or what pods are made of.
pub(super) struct Pod<'a> {
    annotations: &'a Value,
    spec: &'a Value,
    /// Of all kinds, in the order they are looked at.
    containers: Vec<&'a Value>,
}

/// What is forbidden of a pod: in a word, and which part of it.
struct Complaint {
    reason: String,
    detail: String,
}

/// What a policy says of a pod.
pub(super) struct Verdict(Vec<Complaint>);

impl Verdict {
    /// Whether nothing is forbidden.
    pub(super) fn allows(&self) -> bool {
        self.0.is_empty()
    }

    /// What is forbidden, in words.
    pub(super) fn reason(&self) -> String {
        let all: Vec<&str> = self.0.iter().map(|c| c.reason.as_str()).collect();
        all.join(", ")
    }

    /// What is forbidden, and where it is.
    pub(super) fn detail(&self) -> String {
        let all: Vec<String> = self
            .0
            .iter()
            .map(|c| format!("{} ({})", c.reason, c.detail))
            .collect();
        all.join(", ")
    }
}

type Found = Option<Complaint>;
type Check = fn(&Pod<'_>, u32) -> Found;

/// What nobody may do, in the order it is told.
const BASELINE: [Check; 12] = [
    context::app_armor,
    // Restricted pods say more of these from 1.22 on.
    context::added_capabilities,
    host_namespaces,
    host_paths,
    host_ports,
    probed_hosts,
    context::privileged,
    context::proc_mount,
    context::se_linux,
    context::seccomp,
    sysctls,
    context::host_process,
];
/// The same for restricted pods, where a stricter rule stands in for some.
const RESTRICTED_TOO: [Check; 12] = [
    context::app_armor,
    |pod, minor| {
        if minor < 22 {
            context::added_capabilities(pod, minor)
        } else {
            None
        }
    },
    host_namespaces,
    |_, _| None,
    host_ports,
    probed_hosts,
    context::privileged,
    |pod, minor| {
        if minor < 35 {
            context::proc_mount(pod, minor)
        } else {
            None
        }
    },
    context::se_linux,
    |pod, minor| {
        if minor < 19 {
            context::seccomp(pod, minor)
        } else {
            None
        }
    },
    sysctls,
    context::host_process,
];
/// What hardened pods have to do.
const RESTRICTED: [Check; 7] = [
    context::escalation,
    context::capabilities,
    |pod, minor| {
        if minor >= 35 {
            context::proc_mount(pod, 0)
        } else {
            None
        }
    },
    volumes,
    context::non_root,
    context::user,
    context::seccomp_set,
];

/// What a level says of a pod.
pub(super) fn verdict(wanted: LevelVersion, pod: &Value) -> Verdict {
    let minor = wanted.version.unwrap_or(NEWEST).min(NEWEST);
    let spec = &pod["spec"];
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let pod = Pod {
        annotations: &pod["metadata"]["annotations"],
        spec,
        containers: lists.iter().flat_map(|list| items(&spec[list])).collect(),
    };
    let checks = match wanted.level {
        Level::Privileged => Vec::new(),
        Level::Baseline => BASELINE.to_vec(),
        Level::Restricted => [&RESTRICTED_TOO[..], &RESTRICTED[..]].concat(),
    };
    Verdict(checks.iter().filter_map(|check| check(&pod, minor)).collect())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// One word for one thing, another for many.
fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

fn quoted<T: AsRef<str>>(all: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = all
        .into_iter()
        .map(|one| format!("\"{}\"", one.as_ref()))
        .collect();
    all.join(", ")
}

fn complaint(reason: &str, detail: String) -> Complaint {
    Complaint {
        reason: reason.to_owned(),
        detail,
    }
}

impl Pod<'_> {
    /// `container "a"` or `containers "a", "b"`: those that are `bad`.
    fn named(&self, mut bad: impl FnMut(&Value) -> bool) -> Option<(String, usize)> {
        let names: Vec<&str> = self
            .containers
            .iter()
            .filter(|c| bad(c))
            .map(|c| text(c, "name"))
            .collect();
        let word = plural(names.len(), "container", "containers");
        (!names.is_empty()).then(|| (format!("{word} {}", quoted(&names)), names.len()))
    }

    /// Whether it runs in a user namespace of its own, where rules about users mean less.
    fn has_own_users(&self) -> bool {
        self.spec["hostUsers"] == false
    }

    fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }
}

fn host_namespaces(pod: &Pod<'_>, _: u32) -> Found {
    let used: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|key| pod.spec[**key] == true)
        .map(|key| format!("{key}=true"))
        .collect();
    (!used.is_empty()).then(|| complaint("host namespaces", used.join(", ")))
}

fn host_paths(pod: &Pod<'_>, _: u32) -> Found {
    let names: Vec<&str> = items(&pod.spec["volumes"])
        .filter(|v| !v["hostPath"].is_null())
        .map(|v| text(v, "name"))
        .collect();
    let word = plural(names.len(), "volume", "volumes");
    (!names.is_empty()).then(|| complaint("hostPath volumes", format!("{word} {}", quoted(&names))))
}

fn host_ports(pod: &Pod<'_>, _: u32) -> Found {
    let mut ports = BTreeSet::new();
    let (containers, count) = pod.named(|container| {
        let used: Vec<String> = items(&container["ports"])
            .filter_map(|port| port["hostPort"].as_i64())
            .filter(|port| *port != 0)
            .map(|port| port.to_string())
            .collect();
        let bad = !used.is_empty();
        ports.extend(used);
        bad
    })?;
    let (uses, word) = (
        plural(count, "uses", "use"),
        plural(ports.len(), "hostPort", "hostPorts"),
    );
    let ports: Vec<String> = ports.into_iter().collect();
    Some(complaint(
        "hostPort",
        format!("{containers} {uses} {word} {}", ports.join(", ")),
    ))
}

fn probed_hosts(pod: &Pod<'_>, minor: u32) -> Found {
    if minor < 34 {
        return None;
    }
    let mut hosts = BTreeSet::new();
    let mut names = BTreeSet::new();
    for container in &pod.containers {
        let handlers = ["livenessProbe", "readinessProbe", "startupProbe"]
            .iter()
            .map(|probe| &container[*probe])
            .chain(
                ["postStart", "preStop"]
                    .iter()
                    .map(|hook| &container["lifecycle"][*hook]),
            );
        for host in handlers.flat_map(|h| [text(&h["httpGet"], "host"), text(&h["tcpSocket"], "host")]) {
            if !host.is_empty() {
                hosts.insert(host);
                names.insert(text(container, "name"));
            }
        }
    }
    if names.is_empty() {
        return None;
    }
    let containers = plural(names.len(), "container", "containers");
    let uses = plural(names.len(), "uses", "use");
    let what = plural(hosts.len(), "probe or lifecycle host", "probe or lifecycle hosts");
    let detail = format!("{containers} {} {uses} {what} {}", quoted(&names), quoted(&hosts));
    Some(complaint("probe or lifecycle host", detail))
}

fn sysctls(pod: &Pod<'_>, minor: u32) -> Found {
    /// Those that are safe, with the version that found them so.
    const SAFE: [(&str, u32); 12] = [
        ("kernel.shm_rmid_forced", 0),
        ("net.ipv4.ip_local_port_range", 0),
        ("net.ipv4.tcp_syncookies", 0),
        ("net.ipv4.ping_group_range", 0),
        ("net.ipv4.ip_unprivileged_port_start", 0),
        ("net.ipv4.ip_local_reserved_ports", 27),
        ("net.ipv4.tcp_keepalive_time", 29),
        ("net.ipv4.tcp_fin_timeout", 29),
        ("net.ipv4.tcp_keepalive_intvl", 29),
        ("net.ipv4.tcp_keepalive_probes", 29),
        ("net.ipv4.tcp_rmem", 32),
        ("net.ipv4.tcp_wmem", 32),
    ];
    let bad: Vec<&str> = items(&pod.spec["securityContext"]["sysctls"])
        .map(|s| text(s, "name"))
        .filter(|name| !SAFE.iter().any(|(safe, since)| safe == name && *since <= minor))
        .collect();
    (!bad.is_empty()).then(|| complaint("forbidden sysctls", bad.join(", ")))
}

fn volumes(pod: &Pod<'_>, _: u32) -> Found {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let mut names = Vec::new();
    let mut types = BTreeSet::new();
    for volume in items(&pod.spec["volumes"]) {
        let mut sources = volume.as_object().into_iter().flatten();
        if ALLOWED.iter().any(|kind| !volume[*kind].is_null()) {
            continue;
        }
        names.push(text(volume, "name"));
        let source = sources.find(|(key, value)| *key != "name" && !value.is_null());
        types.insert(source.map_or("unknown", |(key, _)| key.as_str()));
    }
    if names.is_empty() {
        return None;
    }
    let volumes = plural(names.len(), "volume", "volumes");
    let uses = plural(names.len(), "uses", "use");
    let word = plural(types.len(), "restricted volume type", "restricted volume types");
    let detail = format!("{volumes} {} {uses} {word} {}", quoted(&names), quoted(&types));
    Some(complaint("restricted volume types", detail))
}
