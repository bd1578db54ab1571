//! Cells of the core group's kinds that are not workloads, of events and of discovery.

use super::{NONE, Row, UNKNOWN, UNSET, joined, label_pairs, text};
use crate::registry::Resource;
use serde_json::{Value, json};

/// How many endpoints or ports are spelled out before `+ n more...`.
const SPELLED: usize = 3;

/// Cells of an object of these kinds; `None` for others.
pub(super) fn cells(resource: &Resource, row: &Row<'_>) -> Option<Vec<Value>> {
    Some(match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "configmaps") => {
            let count = size(row.at("/data")) + size(row.at("/binaryData"));
            vec![row.name(), count.into(), row.age()]
        }
        ("", "secrets") => {
            vec![
                row.name(),
                row.text("/type").into(),
                size(row.at("/data")).into(),
                row.age(),
            ]
        }
        ("", "serviceaccounts") => vec![row.name(), row.age()],
        ("", "namespaces") => vec![row.name(), row.text("/status/phase").into(), row.age()],
        ("", "nodes") => node(row),
        ("", "services") => service(row),
        ("", "endpoints") => vec![row.name(), endpoints(row).into(), row.age()],
        ("", "persistentvolumeclaims") => claim(row),
        ("", "persistentvolumes") => volume(row),
        ("", "resourcequotas") => quota(row),
        ("" | "events.k8s.io", "events") => event(row),
        ("discovery.k8s.io", "endpointslices") => slice(row),
        _ => return None,
    })
}

fn size(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

fn modes(list: impl Iterator<Item = String>) -> Value {
    let short = list.map(|m| match m.as_str() {
        "ReadWriteOnce" => "RWO".to_owned(),
        "ReadOnlyMany" => "ROX".to_owned(),
        "ReadWriteMany" => "RWX".to_owned(),
        "ReadWriteOncePod" => "RWOP".to_owned(),
        _ => m,
    });
    short.collect::<Vec<_>>().join(",").into()
}

fn strings<'a>(row: &Row<'a>, pointer: &str) -> impl Iterator<Item = String> + use<'a> {
    row.items(pointer).filter_map(Value::as_str).map(str::to_owned)
}

fn node(row: &Row<'_>) -> Vec<Value> {
    let ready = row
        .items("/status/conditions")
        .find(|c| text(c, "type") == "Ready");
    let mut status = match ready.map(|c| text(c, "status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if row.at("/spec/unschedulable") == &json!(true) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = row.at("/metadata/labels").as_object().into_iter().flatten();
    let mut roles: Vec<String> = labels
        .filter_map(|(k, v)| match k.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role.to_owned()),
            _ if k == "kubernetes.io/role" => v.as_str().map(str::to_owned),
            _ => None,
        })
        .collect();
    roles.sort();
    let address = |kind: &str| {
        let found = row.items("/status/addresses").find(|a| text(a, "type") == kind);
        Value::from(found.map_or(NONE, |a| text(a, "address")))
    };
    vec![
        row.name(),
        status.into(),
        joined(roles).into(),
        row.age(),
        row.text("/status/nodeInfo/kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        row.text_or("/status/nodeInfo/osImage", UNKNOWN),
        kernel(row).into(),
        row.text_or("/status/nodeInfo/containerRuntimeVersion", UNKNOWN),
    ]
}

/// A node's kernel, and what it runs on.
fn kernel(row: &Row<'_>) -> String {
    let version = row.text("/status/nodeInfo/kernelVersion");
    let architecture = row.text("/status/nodeInfo/architecture");
    match (version, architecture) {
        ("", _) => UNKNOWN.to_owned(),
        (version, "") => version.to_owned(),
        (version, architecture) => format!("{version} ({architecture})"),
    }
}

fn external_ip(row: &Row<'_>) -> String {
    let ips: Vec<String> = strings(row, "/spec/externalIPs").collect();
    let given: Vec<String> = row
        .items("/status/loadBalancer/ingress")
        .map(|i| {
            if text(i, "ip").is_empty() {
                text(i, "hostname")
            } else {
                text(i, "ip")
            }
            .to_owned()
        })
        .filter(|s| !s.is_empty())
        .collect();
    match row.text("/spec/type") {
        "ExternalName" => row.text("/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let all: Vec<String> = given.into_iter().chain(ips).collect();
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        _ => joined(ips),
    }
}

fn service(row: &Row<'_>) -> Vec<Value> {
    let ports = row.items("/spec/ports").map(|p| {
        let (port, protocol) = (p["port"].as_i64().unwrap_or(0), text(p, "protocol"));
        match p["nodePort"].as_i64() {
            Some(node) if node > 0 => format!("{port}:{node}/{protocol}"),
            _ => format!("{port}/{protocol}"),
        }
    });
    vec![
        row.name(),
        row.text("/spec/type").into(),
        row.text_or("/spec/clusterIP", NONE),
        external_ip(row).into(),
        joined(ports).into(),
        row.age(),
        joined(label_pairs(row.at("/spec/selector"))).into(),
    ]
}

fn more(list: &[String]) -> String {
    match list.len() {
        0 => NONE.to_owned(),
        n if n > SPELLED => format!("{} + {} more...", list[..SPELLED].join(","), n - SPELLED),
        _ => list.join(","),
    }
}

fn endpoints(row: &Row<'_>) -> String {
    let mut all = Vec::new();
    for subset in row.items("/subsets") {
        let addresses = || subset["addresses"].as_array().into_iter().flatten();
        let ports: Vec<i64> = subset["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|p| p["port"].as_i64())
            .collect();
        if ports.is_empty() {
            all.extend(addresses().map(|a| text(a, "ip").to_owned()));
        }
        for port in ports {
            all.extend(addresses().map(|a| format!("{}:{port}", text(a, "ip"))));
        }
    }
    more(&all)
}

fn slice(row: &Row<'_>) -> Vec<Value> {
    let ports: Vec<String> = row
        .items("/ports")
        .filter_map(|p| {
            let name = || {
                p["name"]
                    .as_str()
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
            };
            p["port"].as_i64().map(|n| n.to_string()).or_else(name)
        })
        .collect();
    let ports = if ports.is_empty() {
        UNSET.to_owned()
    } else {
        more(&ports)
    };
    let addresses: Vec<String> = row
        .items("/endpoints")
        .flat_map(|e| e["addresses"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let addresses = if addresses.is_empty() {
        UNSET.to_owned()
    } else {
        more(&addresses)
    };
    vec![
        row.name(),
        row.text("/addressType").into(),
        ports.into(),
        addresses.into(),
        row.age(),
    ]
}

fn claim(row: &Row<'_>) -> Vec<Value> {
    let phase = if row.at("/metadata/deletionTimestamp").is_null() {
        row.text("/status/phase")
    } else {
        "Terminating"
    };
    let bound = !row.text("/spec/volumeName").is_empty();
    let (capacity, access) = if bound {
        (
            row.text("/status/capacity/storage").into(),
            modes(strings(row, "/status/accessModes")),
        )
    } else {
        ("".into(), "".into())
    };
    vec![
        row.name(),
        phase.into(),
        row.text("/spec/volumeName").into(),
        capacity,
        access,
        row.text("/spec/storageClassName").into(),
        row.text_or("/spec/volumeAttributesClassName", UNSET),
        row.age(),
        row.text_or("/spec/volumeMode", UNSET),
    ]
}

fn volume(row: &Row<'_>) -> Vec<Value> {
    let claim = row.at("/spec/claimRef");
    let claim = if claim.is_null() {
        String::new()
    } else {
        format!("{}/{}", text(claim, "namespace"), text(claim, "name"))
    };
    let phase = if row.at("/metadata/deletionTimestamp").is_null() {
        row.text("/status/phase")
    } else {
        "Terminating"
    };
    vec![
        row.name(),
        row.text("/spec/capacity/storage").into(),
        modes(strings(row, "/spec/accessModes")),
        row.text("/spec/persistentVolumeReclaimPolicy").into(),
        phase.into(),
        claim.into(),
        row.text("/spec/storageClassName").into(),
        row.text_or("/spec/volumeAttributesClassName", UNSET),
        row.text("/status/reason").into(),
        row.age(),
        row.text_or("/spec/volumeMode", UNSET),
    ]
}

fn quota(row: &Row<'_>) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in row.at("/status/hard").as_object().into_iter().flatten() {
        let show = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let used = row
            .at("/status/used")
            .get(name)
            .map_or_else(|| "0".to_owned(), show);
        let part = format!("{name}: {used}/{}", show(hard));
        if name.starts_with("limits.") {
            limits.push(part);
        } else {
            requests.push(part);
        }
    }
    vec![
        row.name(),
        requests.join(", ").into(),
        limits.join(", ").into(),
        row.age(),
    ]
}

fn event(row: &Row<'_>) -> Vec<Value> {
    // Both groups' names of the same fields.
    let of = |core: &str, modern: &str| {
        let value = row.at(core);
        if value.is_null() { row.at(modern) } else { value }
    };
    let about = of("/involvedObject", "/regarding");
    let source = of("/source", "/deprecatedSource");
    let object = format!("{}/{}", text(about, "kind").to_lowercase(), text(about, "name"));
    let first = of("/firstTimestamp", "/deprecatedFirstTimestamp");
    let first = if first.is_null() {
        row.at("/eventTime")
    } else {
        first
    };
    let last = row.at("/series/lastObservedTime");
    let last = if last.is_null() {
        of("/lastTimestamp", "/deprecatedLastTimestamp")
    } else {
        last
    };
    let last = if last.is_null() { first } else { last };
    let component = if text(source, "component").is_empty() {
        of("/reportingComponent", "/reportingController")
            .as_str()
            .unwrap_or_default()
    } else {
        text(source, "component")
    };
    let host = if text(source, "host").is_empty() {
        row.text("/reportingInstance")
    } else {
        text(source, "host")
    };
    let source = if host.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {host}")
    };
    let count = row
        .at("/series/count")
        .as_i64()
        .or(of("/count", "/deprecatedCount").as_i64())
        .unwrap_or(1);
    vec![
        row.since(last, UNKNOWN),
        row.text("/type").into(),
        row.text("/reason").into(),
        object.into(),
        text(about, "fieldPath").into(),
        source.into(),
        of("/message", "/note").as_str().unwrap_or_default().trim().into(),
        row.since(first, UNKNOWN),
        count.max(1).into(),
        row.name(),
    ]
}
