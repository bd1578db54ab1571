//! Rules about security contexts, of pods and of their containers.

use super::{Found, Pod, complaint, items, plural, quoted, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// The pod and the containers whose security context is `bad`, joined as Kubernetes does.
fn setters(pod: &Pod<'_>, mut bad: impl FnMut(&Value) -> bool) -> Option<String> {
    let mut found = Vec::new();
    if bad(&pod.spec["securityContext"]) {
        found.push("pod".to_owned());
    }
    found.extend(pod.named(|c| bad(&c["securityContext"])).map(|(names, _)| names));
    (!found.is_empty()).then(|| found.join(" and "))
}

pub(super) fn privileged(pod: &Pod<'_>, _: u32) -> Found {
    let (names, _) = pod.named(|c| c["securityContext"]["privileged"] == true)?;
    Some(complaint(
        "privileged",
        format!("{names} must not set securityContext.privileged=true"),
    ))
}

pub(super) fn host_process(pod: &Pod<'_>, _: u32) -> Found {
    let setters = setters(pod, |context| context["windowsOptions"]["hostProcess"] == true)?;
    let detail = format!("{setters} must not set securityContext.windowsOptions.hostProcess=true");
    Some(complaint("hostProcess", detail))
}

pub(super) fn app_armor(pod: &Pod<'_>, _: u32) -> Found {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut values = BTreeSet::new();
    let found = setters(pod, |context| {
        let profile = &context["appArmorProfile"];
        let kind = text(profile, "type");
        let bad = !profile.is_null() && !is_good_profile(kind);
        if bad {
            values.insert(kind.to_owned());
        }
        bad
    });
    let allowed = |profile: &str| {
        profile.is_empty() || profile == "runtime/default" || profile.starts_with("localhost/")
    };
    let annotations: BTreeSet<String> = pod
        .annotations
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, value)| key.starts_with(ANNOTATION) && !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut all: Vec<String> = found.into_iter().collect();
    if !annotations.is_empty() {
        all.push(plural(annotations.len(), "annotation", "annotations").to_owned());
    }
    if all.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    let reason = plural(
        values.len(),
        "forbidden AppArmor profile",
        "forbidden AppArmor profiles",
    );
    let detail = format!(
        "{} must not set AppArmor profile type to {}",
        all.join(" and "),
        quoted(&values)
    );
    Some(complaint(reason, detail))
}

pub(super) fn added_capabilities(pod: &Pod<'_>, _: u32) -> Found {
    const DEFAULT: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let mut added = BTreeSet::new();
    let (names, _) = pod.named(|c| adds(c, &DEFAULT, &mut added))?;
    let detail = format!(
        "{names} must not include {} in securityContext.capabilities.add",
        quoted(&added)
    );
    Some(complaint("non-default capabilities", detail))
}

/// Whether a container adds capabilities that are not `allowed`; notes them.
fn adds(container: &Value, allowed: &[&str], added: &mut BTreeSet<String>) -> bool {
    let wanted = items(&container["securityContext"]["capabilities"]["add"]).filter_map(Value::as_str);
    let bad: Vec<String> = wanted
        .filter(|c| !allowed.contains(c))
        .map(str::to_owned)
        .collect();
    let any = !bad.is_empty();
    added.extend(bad);
    any
}

pub(super) fn capabilities(pod: &Pod<'_>, minor: u32) -> Found {
    if minor < 22 || minor >= 25 && pod.is_windows() {
        return None;
    }
    let mut details = Vec::new();
    let keeps = |c: &Value| !items(&c["securityContext"]["capabilities"]["drop"]).any(|c| c == "ALL");
    if let Some((names, _)) = pod.named(keeps) {
        details.push(format!(
            "{names} must set securityContext.capabilities.drop=[\"ALL\"]"
        ));
    }
    let mut added = BTreeSet::new();
    if let Some((names, _)) = pod.named(|c| adds(c, &["NET_BIND_SERVICE"], &mut added)) {
        let added = quoted(&added);
        details.push(format!(
            "{names} must not include {added} in securityContext.capabilities.add"
        ));
    }
    if details.is_empty() {
        return None;
    }
    Some(complaint("unrestricted capabilities", details.join("; ")))
}

pub(super) fn escalation(pod: &Pod<'_>, minor: u32) -> Found {
    if minor < 8 || minor >= 25 && pod.is_windows() {
        return None;
    }
    let (names, _) = pod.named(|c| c["securityContext"]["allowPrivilegeEscalation"] != false)?;
    let detail = format!("{names} must set securityContext.allowPrivilegeEscalation=false");
    Some(complaint("allowPrivilegeEscalation != false", detail))
}

pub(super) fn proc_mount(pod: &Pod<'_>, minor: u32) -> Found {
    if minor >= 35 && pod.has_own_users() {
        return None;
    }
    let mut values = BTreeSet::new();
    let (names, _) = pod.named(|c| {
        let mount = c["securityContext"]["procMount"]
            .as_str()
            .filter(|m| *m != "Default");
        values.extend(mount.map(str::to_owned));
        mount.is_some()
    })?;
    let detail = format!(
        "{names} must not set securityContext.procMount to {}",
        quoted(&values)
    );
    Some(complaint("procMount", detail))
}

pub(super) fn se_linux(pod: &Pod<'_>, minor: u32) -> Found {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let setters = setters(pod, |context| {
        let options = &context["seLinuxOptions"];
        let kind = text(options, "type");
        let known = matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || minor >= 31 && kind == "container_engine_t";
        let (sets_user, sets_role) = (
            !text(options, "user").is_empty(),
            !text(options, "role").is_empty(),
        );
        if !known {
            types.insert(kind.to_owned());
        }
        user |= sets_user;
        role |= sets_role;
        !known || sets_user || sets_role
    })?;
    let mut bad = Vec::new();
    if !types.is_empty() {
        bad.push(format!(
            "{} {}",
            plural(types.len(), "type", "types"),
            quoted(&types)
        ));
    }
    if user {
        bad.push("user may not be set".to_owned());
    }
    if role {
        bad.push("role may not be set".to_owned());
    }
    let detail = format!(
        "{setters} set forbidden securityContext.seLinuxOptions: {}",
        bad.join("; ")
    );
    Some(complaint("seLinuxOptions", detail))
}

fn is_good_profile(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

pub(super) fn seccomp(pod: &Pod<'_>, minor: u32) -> Found {
    if minor < 19 {
        return seccomp_annotations(pod);
    }
    let mut values = BTreeSet::new();
    let setters = setters(pod, |context| {
        let profile = &context["seccompProfile"];
        let kind = text(profile, "type");
        let bad = !profile.is_null() && !is_good_profile(kind);
        if bad {
            values.insert(kind.to_owned());
        }
        bad
    })?;
    let detail = format!(
        "{setters} must not set securityContext.seccompProfile.type to {}",
        quoted(&values)
    );
    Some(complaint("seccompProfile", detail))
}

fn seccomp_annotations(pod: &Pod<'_>) -> Found {
    let own = "seccomp.security.alpha.kubernetes.io/pod".to_owned();
    let of_containers = pod.containers.iter().map(|c| {
        format!(
            "container.seccomp.security.alpha.kubernetes.io/{}",
            text(c, "name")
        )
    });
    let good = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let bad: BTreeSet<String> = std::iter::once(own)
        .chain(of_containers)
        .filter_map(|key| {
            let value = pod.annotations[&key].as_str().filter(|v| !good(v))?;
            Some(format!("{key}={value:?}"))
        })
        .collect();
    if bad.is_empty() {
        return None;
    }
    let word = plural(bad.len(), "annotation", "annotations");
    let bad: Vec<String> = bad.into_iter().collect();
    Some(complaint(
        "seccompProfile",
        format!("forbidden {word} {}", bad.join(", ")),
    ))
}

pub(super) fn seccomp_set(pod: &Pod<'_>, minor: u32) -> Found {
    if minor < 19 || minor >= 25 && pod.is_windows() {
        return None;
    }
    if let Some(bad) = seccomp(pod, minor) {
        return Some(bad);
    }
    if is_good_profile(text(&pod.spec["securityContext"]["seccompProfile"], "type")) {
        return None;
    }
    let (names, _) = pod.named(|c| c["securityContext"]["seccompProfile"].is_null())?;
    let detail = format!(
        "pod or {names} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
    );
    Some(complaint("seccompProfile", detail))
}

pub(super) fn non_root(pod: &Pod<'_>, minor: u32) -> Found {
    const REASON: &str = "runAsNonRoot != true";
    if minor >= 35 && pod.has_own_users() {
        return None;
    }
    if let Some(setters) = setters(pod, |context| context["runAsNonRoot"] == false) {
        return Some(complaint(
            REASON,
            format!("{setters} must not set securityContext.runAsNonRoot=false"),
        ));
    }
    if pod.spec["securityContext"]["runAsNonRoot"] == true {
        return None;
    }
    let (names, _) = pod.named(|c| c["securityContext"]["runAsNonRoot"].is_null())?;
    Some(complaint(
        REASON,
        format!("pod or {names} must set securityContext.runAsNonRoot=true"),
    ))
}

pub(super) fn user(pod: &Pod<'_>, minor: u32) -> Found {
    if minor < 23 || minor >= 35 && pod.has_own_users() {
        return None;
    }
    let setters = setters(pod, |context| context["runAsUser"] == 0)?;
    Some(complaint(
        "runAsUser=0",
        format!("{setters} must not set runAsUser=0"),
    ))
}

#[cfg(test)]
mod tests;
