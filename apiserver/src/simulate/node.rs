//! Nodes: ready, of one size, with a lease that is renewed now and then.

use super::kinds;
use crate::controllers::plan::{Action, Plan};
use crate::rest::rfc3339;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// Where nodes keep their leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How long a lease is good for, in seconds. Longer than kubelet's 40, so that an idle server can be idle.
const LEASE_SECONDS: i64 = 600;
/// A lease is renewed when this many seconds of it are over.
const RENEW_SECONDS: i64 = LEASE_SECONDS / 2;
/// Version the nodes say they run.
const KUBELET: &str = "v1.36.0";

/// Name of a node by its number.
pub fn name(index: usize) -> String {
    format!("node-{index}")
}

/// Labels of a node by its name.
pub fn labels(name: &str) -> Value {
    json!({
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
    })
}

/// Whether a `nodeSelector` selects a node.
pub fn selects(selector: &Value, name: &str) -> bool {
    let labels = labels(name);
    selector
        .as_object()
        .into_iter()
        .flatten()
        .all(|(k, v)| labels[k] == *v)
}

/// Address of a node by its number.
pub fn address(index: usize) -> String {
    format!("10.0.{}.{}", index / 250, index % 250 + 1)
}

fn object(index: usize) -> Value {
    let name = name(index);
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels(&name)},
        "spec": {"podCIDR": format!("10.244.{}.0/24", index % 256), "providerID": format!("simulated://{name}")},
    })
}

fn status(index: usize, now: &str) -> Value {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    json!({
        "capacity": {
            "cpu": "8", "memory": "32886524Ki", "ephemeral-storage": "102350Mi", "pods": "110",
            "hugepages-1Gi": "0", "hugepages-2Mi": "0",
        },
        "allocatable": {
            "cpu": "7910m", "memory": "31482620Ki", "ephemeral-storage": "95551679124", "pods": "110",
            "hugepages-1Gi": "0", "hugepages-2Mi": "0",
        },
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "memory is sufficient"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "disk is sufficient"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "process ids are sufficient"),
            condition("Ready", "True", "KubeletReady", "the node is simulated and always ready"),
        ],
        "addresses": [
            {"type": "InternalIP", "address": address(index)},
            {"type": "Hostname", "address": name(index)},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": KUBELET, "kubeProxyVersion": "",
            "containerRuntimeVersion": "simulated://1", "kernelVersion": "6.8.0", "osImage": "Muster simulated node",
            "machineID": name(index), "systemUUID": name(index), "bootID": name(index),
        },
    })
}

/// What a node lacks: itself, its status, its lease, or a fresh one. The lease waits for its namespace.
pub fn decide(
    index: usize,
    node: Option<&Value>,
    has_namespace: bool,
    lease: Option<&Value>,
    now: Timestamp,
) -> Plan {
    let mut actions = Vec::new();
    let Some(node) = node else {
        // Its status follows when it is there: a status cannot be created.
        return Plan {
            actions: vec![Action::create(kinds::NODES, object(index))],
            after: Some(Duration::ZERO),
        };
    };
    if node["status"]["capacity"].is_null() {
        let mut node = node.clone();
        node["status"] = status(index, &rfc3339(now));
        actions.push(Action::status(kinds::NODES, node));
    }
    // The taint every Node is made with goes once it is ready, as a node lifecycle controller has it.
    let not_ready = |t: &Value| t["key"] == "node.kubernetes.io/not-ready";
    if let Some(taints) = node["spec"]["taints"].as_array()
        && taints.iter().any(not_ready)
    {
        let mut ready = node.clone();
        ready["spec"]["taints"] = taints.iter().filter(|t| !not_ready(t)).cloned().collect();
        actions.push(Action::update(kinds::NODES, ready));
    }
    let micro = now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let mut after = RENEW_SECONDS;
    match lease {
        // Looked at again when the namespace comes.
        None if !has_namespace => {}
        None => {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {
                    "name": name(index), "namespace": LEASE_NAMESPACE,
                    "ownerReferences": [{
                        "apiVersion": "v1", "kind": "Node", "name": name(index), "uid": node["metadata"]["uid"],
                    }],
                },
                "spec": {"holderIdentity": name(index), "leaseDurationSeconds": LEASE_SECONDS, "renewTime": micro},
            });
            actions.push(Action::create(kinds::LEASES, lease));
        }
        Some(lease) => {
            let renewed = lease["spec"]["renewTime"]
                .as_str()
                .and_then(|t| t.parse::<Timestamp>().ok());
            let age = renewed.map_or(i64::MAX, |t| now.as_second() - t.as_second());
            if age >= RENEW_SECONDS {
                let mut lease = lease.clone();
                lease["spec"]["renewTime"] = micro.into();
                actions.push(Action::update(kinds::LEASES, lease));
            } else {
                after = RENEW_SECONDS - age;
            }
        }
    }
    Plan {
        actions,
        after: Some(Duration::from_secs(after.unsigned_abs())),
    }
}
