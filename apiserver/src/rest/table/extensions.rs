//! Cells of the other groups: RBAC, certificates, networking, policy, autoscaling, storage, admission and so on.

use super::{NONE, Row, UNSET, joined, selector_text, text};
use crate::registry::Resource;
use serde_json::{Value, json};

/// Cells of an object of these kinds; `None` for others.
pub(super) fn cells(resource: &Resource, row: &Row<'_>) -> Option<Vec<Value>> {
    let count = |pointer: &str| Value::from(row.items(pointer).count());
    let flag = |pointer: &str| Value::from(row.at(pointer).as_bool().unwrap_or(false));
    Some(match (resource.group.as_str(), resource.plural.as_str()) {
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => binding(row),
        ("certificates.k8s.io", _) => csr(row),
        ("coordination.k8s.io", "leases") => {
            vec![row.name(), row.text("/spec/holderIdentity").into(), row.age()]
        }
        ("networking.k8s.io", "networkpolicies") => {
            vec![
                row.name(),
                selector_text(row.at("/spec/podSelector")).into(),
                row.age(),
            ]
        }
        ("networking.k8s.io", "ingresses") => ingress(row),
        ("networking.k8s.io", "ingressclasses") => {
            let parameters = row.at("/spec/parameters");
            let shown = if parameters.is_null() {
                NONE.to_owned()
            } else {
                let group = text(parameters, "apiGroup");
                let kind = text(parameters, "kind");
                let kind = if group.is_empty() {
                    kind.to_owned()
                } else {
                    format!("{kind}.{group}")
                };
                format!("{kind}/{}", text(parameters, "name"))
            };
            let mut name = row.text("/metadata/name").to_owned();
            let annotations = row.at("/metadata/annotations");
            if annotations["ingressclass.kubernetes.io/is-default-class"] == "true" {
                name.push_str(" (default)");
            }
            vec![
                name.into(),
                row.text("/spec/controller").into(),
                shown.into(),
                row.age(),
            ]
        }
        ("networking.k8s.io", "ipaddresses") => {
            let parent = row.at("/spec/parentRef");
            let kind = text(parent, "resource");
            let group = text(parent, "group");
            let kind = if group.is_empty() {
                kind.to_owned()
            } else {
                format!("{kind}.{group}")
            };
            let place: Vec<&str> = [text(parent, "namespace"), text(parent, "name")]
                .into_iter()
                .filter(|s| !s.is_empty())
                .collect();
            vec![row.name(), format!("{kind}/{}", place.join("/")).into()]
        }
        ("networking.k8s.io", "servicecidrs") => {
            let cidrs = row
                .items("/spec/cidrs")
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(",");
            vec![row.name(), cidrs.into(), row.age()]
        }
        ("policy", "poddisruptionbudgets") => {
            let bound = |pointer: &str| match row.at(pointer) {
                Value::Null => "N/A".into(),
                Value::String(s) => s.as_str().into(),
                other => other.to_string().into(),
            };
            vec![
                row.name(),
                bound("/spec/minAvailable"),
                bound("/spec/maxUnavailable"),
                row.number("/status/disruptionsAllowed").into(),
                row.age(),
            ]
        }
        ("autoscaling", "horizontalpodautoscalers") => scaler(row),
        ("scheduling.k8s.io", "priorityclasses") => vec![
            row.name(),
            row.number("/value").into(),
            flag("/globalDefault"),
            row.age(),
            row.text("/preemptionPolicy").into(),
        ],
        ("node.k8s.io", "runtimeclasses") => vec![row.name(), row.text("/handler").into(), row.age()],
        ("storage.k8s.io", plural) => return storage(plural, row),
        ("admissionregistration.k8s.io", plural) => match plural {
            "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
                vec![row.name(), count("/webhooks"), row.age()]
            }
            "validatingadmissionpolicies" | "mutatingadmissionpolicies" => {
                let list = if plural.starts_with('m') {
                    "/spec/mutations"
                } else {
                    "/spec/validations"
                };
                let param = row.at("/spec/paramKind");
                let param = if param.is_null() {
                    UNSET.to_owned()
                } else {
                    format!("{}/{}", text(param, "apiVersion"), text(param, "kind"))
                };
                vec![row.name(), count(list), param.into(), row.age()]
            }
            _ => {
                let param = row.at("/spec/paramRef");
                let param = match (text(param, "namespace"), text(param, "name")) {
                    _ if param.is_null() => UNSET.to_owned(),
                    ("", "") => "*".to_owned(),
                    (namespace, name) => format!("{}/{}", star(namespace), star(name)),
                };
                vec![
                    row.name(),
                    row.text("/spec/policyName").into(),
                    param.into(),
                    row.age(),
                ]
            }
        },
        ("apiregistration.k8s.io", "apiservices") => {
            let service = row.at("/spec/service");
            let service = if service.is_null() {
                "Local".to_owned()
            } else {
                format!("{}/{}", text(service, "namespace"), text(service, "name"))
            };
            let available = row
                .items("/status/conditions")
                .find(|c| text(c, "type") == "Available");
            let available = match available {
                None => "Unknown".to_owned(),
                Some(c) if text(c, "status") == "True" => "True".to_owned(),
                Some(c) => format!("{} ({})", text(c, "status"), text(c, "reason")),
            };
            vec![row.name(), service.into(), available.into(), row.age()]
        }
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => {
            let dangling = row
                .items("/status/conditions")
                .find(|c| text(c, "type") == "Dangling");
            vec![
                row.name(),
                row.text("/spec/priorityLevelConfiguration/name").into(),
                row.number("/spec/matchingPrecedence").into(),
                row.text_or("/spec/distinguisherMethod/type", NONE),
                row.age(),
                dangling.map_or("?", |c| text(c, "status")).into(),
            ]
        }
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => {
            let number = |pointer: &str| match row.at(pointer).as_i64() {
                Some(n) => Value::from(n),
                None => NONE.into(),
            };
            let queuing = "/spec/limited/limitResponse/queuing";
            vec![
                row.name(),
                row.text("/spec/type").into(),
                number("/spec/limited/nominalConcurrencyShares"),
                number(&format!("{queuing}/queues")),
                number(&format!("{queuing}/handSize")),
                number(&format!("{queuing}/queueLengthLimit")),
                row.age(),
            ]
        }
        ("resource.k8s.io", plural) => return devices(plural, row),
        _ => return None,
    })
}

fn star(name: &str) -> &str {
    if name.is_empty() { "*" } else { name }
}

fn binding(row: &Row<'_>) -> Vec<Value> {
    let subjects = |kind: &str| {
        let list = row
            .items("/subjects")
            .filter(|s| text(s, "kind") == kind)
            .map(|s| {
                if kind == "ServiceAccount" {
                    format!("{}/{}", text(s, "namespace"), text(s, "name"))
                } else {
                    text(s, "name").to_owned()
                }
            });
        Value::from(list.collect::<Vec<_>>().join(", "))
    };
    let role = format!("{}/{}", row.text("/roleRef/kind"), row.text("/roleRef/name"));
    vec![
        row.name(),
        role.into(),
        row.age(),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

fn csr(row: &Row<'_>) -> Vec<Value> {
    let has = |kind: &str| row.items("/status/conditions").any(|c| text(c, "type") == kind);
    let mut condition = if has("Denied") {
        "Denied".to_owned()
    } else if has("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if has("Failed") {
        condition.push_str(",Failed");
    }
    if !row.text("/status/certificate").is_empty() {
        condition.push_str(",Issued");
    }
    let asked = row
        .at("/spec/expirationSeconds")
        .as_i64()
        .map_or(NONE.to_owned(), super::human_duration);
    vec![
        row.name(),
        row.age(),
        row.text_or("/spec/signerName", NONE),
        row.text("/spec/username").into(),
        asked.into(),
        condition.into(),
    ]
}

fn ingress(row: &Row<'_>) -> Vec<Value> {
    let hosts: Vec<String> = row
        .items("/spec/rules")
        .map(|r| text(r, "host").to_owned())
        .filter(|h| !h.is_empty())
        .collect();
    let hosts = match hosts.len() {
        0 => "*".to_owned(),
        n if n > 3 => format!("{} + {} more...", hosts[..3].join(","), n - 3),
        _ => hosts.join(","),
    };
    let addresses: Vec<&str> = row
        .items("/status/loadBalancer/ingress")
        .map(|i| {
            if text(i, "ip").is_empty() {
                text(i, "hostname")
            } else {
                text(i, "ip")
            }
        })
        .filter(|a| !a.is_empty())
        .collect();
    let ports = if row.items("/spec/tls").next().is_some() {
        "80, 443"
    } else {
        "80"
    };
    vec![
        row.name(),
        row.text_or("/spec/ingressClassName", NONE),
        hosts.into(),
        addresses.join(",").into(),
        ports.into(),
        row.age(),
    ]
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `current/target` of one metric of a HorizontalPodAutoscaler.
fn metric(spec: &Value, current: &[&Value], index: usize) -> String {
    let key = match text(spec, "type") {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let target = &spec[key]["target"];
    let now = current.get(index).map(|c| &c[key]["current"]);
    let (wanted, field, percent) = if target["averageUtilization"].is_null() {
        let field = if target["averageValue"].is_null() {
            "value"
        } else {
            "averageValue"
        };
        (shown(&target[field]), field, "")
    } else {
        (shown(&target["averageUtilization"]), "averageUtilization", "%")
    };
    let now = now.map(|c| &c[field]).filter(|v| !v.is_null());
    let now = now.map_or("<unknown>".to_owned(), |v| format!("{}{percent}", shown(v)));
    let text = format!("{now}/{wanted}{percent}");
    if matches!(key, "resource" | "containerResource") {
        format!("{}: {text}", super::text(&spec[key], "name"))
    } else {
        text
    }
}

fn scaler(row: &Row<'_>) -> Vec<Value> {
    let target = row.at("/spec/scaleTargetRef");
    let reference = format!("{}/{}", text(target, "kind"), text(target, "name"));
    let current: Vec<&Value> = row.items("/status/currentMetrics").collect();
    let mut metrics: Vec<String> = row
        .items("/spec/metrics")
        .enumerate()
        .map(|(i, m)| metric(m, &current, i))
        .collect();
    if let Some(wanted) = row.at("/spec/targetCPUUtilizationPercentage").as_i64() {
        let now = row.at("/status/currentCPUUtilizationPercentage").as_i64();
        let now = now.map_or("<unknown>".to_owned(), |n| format!("{n}%"));
        metrics.push(format!("cpu: {now}/{wanted}%"));
    }
    let metrics = match metrics.len() {
        0 => NONE.to_owned(),
        n if n > 2 => format!("{} + {} more...", metrics[..2].join(", "), n - 2),
        _ => metrics.join(", "),
    };
    let least = row
        .at("/spec/minReplicas")
        .as_i64()
        .map_or(UNSET.to_owned(), |n| n.to_string());
    vec![
        row.name(),
        reference.into(),
        metrics.into(),
        least.into(),
        row.number("/spec/maxReplicas").into(),
        row.number("/status/currentReplicas").into(),
        row.age(),
    ]
}

fn storage(plural: &str, row: &Row<'_>) -> Option<Vec<Value>> {
    let flag = |pointer: &str| Value::from(row.at(pointer).as_bool().unwrap_or(false));
    Some(match plural {
        "storageclasses" => {
            let mut name = row.text("/metadata/name").to_owned();
            if row.at("/metadata/annotations")["storageclass.kubernetes.io/is-default-class"] == json!("true")
            {
                name.push_str(" (default)");
            }
            vec![
                name.into(),
                row.text("/provisioner").into(),
                row.text_or("/reclaimPolicy", "Delete"),
                row.text_or("/volumeBindingMode", "Immediate"),
                flag("/allowVolumeExpansion"),
                row.age(),
            ]
        }
        "csidrivers" => {
            let tokens = row
                .items("/spec/tokenRequests")
                .map(|t| text(t, "audience").to_owned());
            let modes = row
                .items("/spec/volumeLifecycleModes")
                .filter_map(Value::as_str)
                .map(str::to_owned);
            let tokens: Vec<String> = tokens.collect();
            vec![
                row.name(),
                row.at("/spec/attachRequired").as_bool().unwrap_or(true).into(),
                flag("/spec/podInfoOnMount"),
                flag("/spec/storageCapacity"),
                if tokens.is_empty() {
                    UNSET.into()
                } else {
                    tokens.join(",").into()
                },
                flag("/spec/requiresRepublish"),
                joined(modes).into(),
                row.age(),
            ]
        }
        "csinodes" => vec![row.name(), row.items("/spec/drivers").count().into(), row.age()],
        "volumeattachments" => vec![
            row.name(),
            row.text("/spec/attacher").into(),
            row.text("/spec/source/persistentVolumeName").into(),
            row.text("/spec/nodeName").into(),
            flag("/status/attached"),
            row.age(),
        ],
        "volumeattributesclasses" => vec![row.name(), row.text("/driverName").into(), row.age()],
        _ => return None,
    })
}

fn devices(plural: &str, row: &Row<'_>) -> Option<Vec<Value>> {
    Some(match plural {
        "resourceclaims" => {
            let allocated = !row.at("/status/allocation").is_null();
            let reserved = row.items("/status/reservedFor").next().is_some();
            let mut states = Vec::new();
            if !row.at("/metadata/deletionTimestamp").is_null() {
                states.push("deleted");
            }
            match (allocated, reserved) {
                (false, _) => states.push("pending"),
                (true, false) => states.push("allocated"),
                (true, true) => states.extend(["allocated", "reserved"]),
            }
            vec![row.name(), states.join(",").into(), row.age()]
        }
        "resourceslices" => vec![
            row.name(),
            row.text_or("/spec/nodeName", UNSET),
            row.text("/spec/driver").into(),
            row.text("/spec/pool/name").into(),
            row.age(),
        ],
        _ => return None,
    })
}
