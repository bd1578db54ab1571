//! Pods and pod templates: the defaults kube-apiserver writes into them (`pkg/apis/core/v1/defaults.go`, and the
//! admission plugins that always run: Priority, DefaultTolerationSeconds).

use super::json::{at, default, each, items, made, remove, text};
use super::volume_defaults;
use serde_json::{Value, json};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
/// `0644`, the mode of files projected into volumes.
const FILE_MODE: i64 = 0o644;

fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    // What can not be read has no tag `latest` either.
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let name = last.split(':').next().unwrap_or(last);
    if name.is_empty() || !name.bytes().all(plain) {
        return "IfNotPresent";
    }
    match last.rsplit_once(':') {
        Some((_, tag)) if tag != "latest" => "IfNotPresent",
        _ => "Always",
    }
}

fn default_http(get: &mut Value) {
    default(get, "path", "/");
    default(get, "scheme", "HTTP");
}

fn default_probe(probe: &mut Value) {
    for (key, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if probe[key] == 0 {
            probe[key] = value.into();
        }
        default(probe, key, value);
    }
    if let Some(get) = at(probe, "httpGet") {
        default_http(get);
    }
    if let Some(grpc) = at(probe, "grpc") {
        default(grpc, "service", "");
    }
}

fn default_container(container: &mut Value, ephemeral: bool) {
    if !container.is_object() {
        return;
    }
    let policy = pull_policy(text(container, "image"));
    default(container, "imagePullPolicy", policy);
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    if ephemeral {
        return;
    }
    for port in each(container, "ports") {
        default(port, "protocol", "TCP");
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = at(container, probe) {
            default_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(get) = at(container, "lifecycle")
            .and_then(|l| at(l, hook))
            .and_then(|h| at(h, "httpGet"))
        {
            default_http(get);
        }
    }
    for variable in each(container, "env") {
        if let Some(field) = at(variable, "valueFrom").and_then(|v| at(v, "fieldRef")) {
            default(field, "apiVersion", "v1");
        }
        if let Some(amount) = at(variable, "valueFrom").and_then(|v| at(v, "resourceFieldRef")) {
            default(amount, "divisor", "0");
        }
        if let Some(key) = at(variable, "valueFrom").and_then(|v| at(v, "fileKeyRef")) {
            default(key, "optional", false);
        }
    }
}

fn default_volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|v| v.keys().all(|k| k == "name")) {
        volume["emptyDir"] = json!({});
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = at(volume, source) {
            default(source, "defaultMode", FILE_MODE);
            for item in each(source, "items") {
                if let Some(field) = at(item, "fieldRef") {
                    default(field, "apiVersion", "v1");
                }
                if let Some(amount) = at(item, "resourceFieldRef") {
                    default(amount, "divisor", "0");
                }
            }
        }
    }
    volume_defaults::fill(volume);
    if let Some(image) = at(volume, "image") {
        let policy = pull_policy(text(image, "reference"));
        default(image, "pullPolicy", policy);
    }
    if let Some(projected) = at(volume, "projected") {
        for source in each(projected, "sources") {
            remove(source, "clusterTrustBundle");
            if let Some(token) = at(source, "serviceAccountToken") {
                default(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = at(source, "downwardAPI") {
                for item in each(downward, "items") {
                    if let Some(field) = at(item, "fieldRef") {
                        default(field, "apiVersion", "v1");
                    }
                }
            }
        }
    }
    if let Some(claim) = at(volume, "ephemeral")
        .and_then(|e| at(e, "volumeClaimTemplate"))
        .and_then(|t| at(t, "spec"))
    {
        default(claim, "volumeMode", "Filesystem");
    }
}

/// Defaults of a PodSpec, in a pod or a template.
pub(super) fn default_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "securityContext", json!({}));
    default(spec, "schedulerName", "default-scheduler");
    // The older name of the same field is kept equal.
    if let Some(account) = spec
        .get("serviceAccountName")
        .or_else(|| spec.get("serviceAccount"))
        .cloned()
        && account.as_str().is_some_and(|a| !a.is_empty())
    {
        spec["serviceAccountName"] = account.clone();
        spec["serviceAccount"] = account;
    }
    for list in CONTAINERS {
        for container in each(spec, list) {
            default_container(container, list == "ephemeralContainers");
        }
    }
    for volume in each(spec, "volumes") {
        default_volume(volume);
    }
}

/// Defaults of the template at `key`.
pub(super) fn default_template(spec: &mut Value, key: &str) {
    if let Some(pod) = at(spec, key).and_then(|t| at(t, "spec")) {
        default_spec(pod);
    }
}

/// Defaults of a Pod.
pub(super) fn default_pod(pod: &mut Value) {
    if let Some(spec) = at(pod, "spec") {
        default_spec(spec);
        default(spec, "enableServiceLinks", true);
        if spec["terminationGracePeriodSeconds"]
            .as_i64()
            .is_some_and(|s| s < 0)
        {
            spec["terminationGracePeriodSeconds"] = 1.into();
        }
        let host_network = spec["hostNetwork"] == json!(true);
        for list in ["initContainers", "containers"] {
            for container in each(spec, list) {
                // Of a pod alone: a template would change with it.
                if host_network {
                    for port in each(container, "ports") {
                        let number = port["containerPort"].clone();
                        default(port, "hostPort", number);
                    }
                }
                let limits = container["resources"]["limits"].clone();
                if let Some(resources) = at(container, "resources")
                    && limits.as_object().is_some_and(|l| !l.is_empty())
                    && let Some(requests) = made(resources, "requests")
                {
                    for (name, amount) in limits.as_object().into_iter().flatten() {
                        default(requests, name, amount.clone());
                    }
                }
            }
        }
    }
    for list in [
        "initContainerStatuses",
        "containerStatuses",
        "ephemeralContainerStatuses",
    ] {
        for status in pod.get_mut("status").into_iter().flat_map(|s| each(s, list)) {
            // Go has no pointers to them.
            default(status, "state", json!({}));
            default(status, "lastState", json!({}));
        }
    }
}

/// What every pod tolerates for a while (DefaultTolerationSeconds).
pub(super) fn tolerate(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = items(spec, "tolerations").any(|t| {
            (text(t, "key") == key || (text(t, "key").is_empty() && text(t, "operator") == "Exists"))
                && matches!(text(t, "effect"), "" | "NoExecute")
        });
        if !tolerated {
            default(spec, "tolerations", json!([]));
            if let Some(list) = spec["tolerations"].as_array_mut() {
                list.push(json!({
                    "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
                }));
            }
        }
    }
}

/// What the server adds to a changed pod, so that the manifest it was made of can be sent again.
pub(super) fn prepare_update(pod: &mut Value, old: &Value) {
    if let Some(spec) = at(pod, "spec") {
        tolerate(spec);
        for key in ["priority", "preemptionPolicy"] {
            if let Some(was) = old["spec"].get(key) {
                default(spec, key, was.clone());
            }
        }
    }
}

/// What the server adds to a new pod.
pub(super) fn prepare_create(pod: &mut Value, now: &str) {
    let qos = qos_class(&pod["spec"]);
    if let Some(spec) = at(pod, "spec") {
        default(spec, "priority", 0);
        default(spec, "preemptionPolicy", "PreemptLowerPriority");
        tolerate(spec);
    }
    let mut status = json!({ "phase": "Pending", "qosClass": qos });
    if items(&pod["spec"], "schedulingGates").next().is_some() {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "lastProbeTime": null, "lastTransitionTime": now,
            "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    pod["status"] = status;
}

fn is_nothing(amount: &Value) -> bool {
    amount.as_str() == Some("0") || amount.as_f64() == Some(0.0)
}

/// The quality of service a pod gets by what its containers ask for.
pub(super) fn qos_class(spec: &Value) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for container in ["initContainers", "containers"]
        .iter()
        .flat_map(|l| items(spec, l))
    {
        let amounts = &container["resources"];
        for name in ["cpu", "memory"] {
            // Nothing of something is as good as not saying it.
            let of = |list: &str| Some(&amounts[list][name]).filter(|amount| !is_nothing(amount));
            let (request, limit) = (
                of("requests").unwrap_or(&Value::Null),
                of("limits").unwrap_or(&Value::Null),
            );
            any |= !request.is_null() || !limit.is_null();
            guaranteed &= !limit.is_null() && (request.is_null() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
