//! What objects use of a ResourceQuota (`pkg/quota/v1/evaluator/core`): how many there are, and what they ask for.

use super::strategy::quantity::Amount;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Amounts by the names quotas have for them.
pub type Usage = BTreeMap<String, Amount>;

/// What a quota may bound of containers, which then have to say it.
const MUST_BE_SAID: [&str; 6] = [
    "cpu",
    "memory",
    "requests.cpu",
    "requests.memory",
    "limits.cpu",
    "limits.memory",
];
/// Core kinds that are counted by their bare name as well.
pub const COUNTED: [&str; 4] = [
    "configmaps",
    "secrets",
    "replicationcontrollers",
    "resourcequotas",
];
/// Amounts that are bounded without `requests.` too.
const PLAIN: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

/// Whether quotas look at changes of a kind, not only at new objects.
pub fn grows(group: &str, plural: &str) -> bool {
    group.is_empty() && matches!(plural, "services" | "persistentvolumeclaims")
}

/// What an object of a kind uses.
pub fn of(group: &str, plural: &str, object: &Value) -> Usage {
    let mut usage = Usage::new();
    let name = if group.is_empty() {
        plural.to_owned()
    } else {
        format!("{plural}.{group}")
    };
    usage.insert(format!("count/{name}"), Amount::count(1));
    match (group, plural) {
        ("", "pods") => pod(object, &mut usage),
        ("", "services") => service(&object["spec"], &mut usage),
        ("", "persistentvolumeclaims") => claim(object, &mut usage),
        ("", plural) if COUNTED.contains(&plural) => {
            usage.insert(plural.to_owned(), Amount::count(1));
        }
        _ => {}
    }
    usage
}

/// Whether a pod has ended: it is still counted as an object, and asks for nothing.
pub fn has_ended(pod: &Value) -> bool {
    matches!(text(&pod["status"], "phase"), "Succeeded" | "Failed")
}

fn pod(pod: &Value, usage: &mut Usage) {
    if has_ended(pod) {
        return;
    }
    usage.insert("pods".into(), Amount::count(1));
    for (name, amount) in pod_amounts(&pod["spec"], "requests") {
        if PLAIN.contains(&name.as_str()) || name.starts_with("hugepages-") {
            usage.insert(name.clone(), amount);
        }
        usage.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_amounts(&pod["spec"], "limits") {
        if PLAIN.contains(&name.as_str()) {
            usage.insert(format!("limits.{name}"), amount);
        }
    }
}

/// What a pod asks for: all its containers at once, or the largest of those that run before them.
pub fn pod_amounts(spec: &Value, list: &str) -> Usage {
    let mut total = Usage::new();
    let add = |total: &mut Usage, amounts: &Value| {
        for (name, amount) in amounts.as_object().into_iter().flatten() {
            let sum = total.entry(name.clone()).or_insert(Amount::ZERO);
            *sum = sum.plus(Amount::of(amount));
        }
    };
    for container in items(spec, "containers") {
        add(&mut total, &container["resources"][list]);
    }
    let (mut sidecars, mut before) = (Usage::new(), Usage::new());
    for container in items(spec, "initContainers") {
        let amounts = &container["resources"][list];
        let mut at_once = sidecars.clone();
        add(&mut at_once, amounts);
        if text(container, "restartPolicy") == "Always" {
            add(&mut total, amounts);
            sidecars.clone_from(&at_once);
        }
        for (name, amount) in at_once {
            let most = before.entry(name).or_insert(Amount::ZERO);
            *most = most.max(amount);
        }
    }
    for (name, amount) in before {
        let most = total.entry(name).or_insert(Amount::ZERO);
        *most = most.max(amount);
    }
    add(&mut total, &spec["overhead"]);
    total
}

fn service(spec: &Value, usage: &mut Usage) {
    usage.insert("services".into(), Amount::count(1));
    let kind = text(spec, "type");
    if kind == "LoadBalancer" {
        usage.insert("services.loadbalancers".into(), Amount::count(1));
    }
    let ports = match kind {
        "NodePort" => items(spec, "ports").count(),
        "LoadBalancer" if spec["allocateLoadBalancerNodePorts"] != Value::Bool(false) => {
            items(spec, "ports").count()
        }
        "LoadBalancer" => items(spec, "ports")
            .filter(|port| port["nodePort"].as_i64().unwrap_or(0) > 0)
            .count(),
        _ => 0,
    };
    if ports > 0 {
        let ports = Amount::count(i64::try_from(ports).unwrap_or(i64::MAX));
        usage.insert("services.nodeports".into(), ports);
    }
}

fn claim(claim: &Value, usage: &mut Usage) {
    let spec = &claim["spec"];
    let class = claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    let class = class.unwrap_or_else(|| text(spec, "storageClassName"));
    let storage = Amount::of(&spec["resources"]["requests"]["storage"]);
    let mut add = |name: &str, amount: Amount| {
        usage.insert(name.to_owned(), amount);
        if !class.is_empty() {
            usage.insert(format!("{class}.storageclass.storage.k8s.io/{name}"), amount);
        }
    };
    add("persistentvolumeclaims", Amount::count(1));
    if !storage.is_zero() {
        add("requests.storage", storage);
    }
}

/// Whether a quota is about an object, by its scopes: those are about pods alone.
pub fn is_in_scope(quota: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let spec = &quota["spec"];
    let is_pod = group.is_empty() && plural == "pods";
    let pod = &object["spec"];
    let holds = |scope: &str, operator: &str, values: &Value| {
        let deadline = pod["activeDeadlineSeconds"].as_i64().is_some();
        let effort = text(&object["status"], "qosClass") == "BestEffort";
        let class = text(pod, "priorityClassName");
        let named = || items(&serde_json::json!({ "v": values }), "v").any(|v| v.as_str() == Some(class));
        match (scope, operator) {
            ("Terminating", _) => deadline,
            ("NotTerminating", _) => !deadline,
            ("BestEffort", _) => effort,
            ("NotBestEffort", _) => !effort,
            ("PriorityClass", "In") => named(),
            ("PriorityClass", "NotIn") => !named(),
            ("PriorityClass", "DoesNotExist") => class.is_empty(),
            ("PriorityClass", _) => !class.is_empty(),
            ("CrossNamespacePodAffinity", _) => crosses(&pod["affinity"]),
            _ => false,
        }
    };
    let plain = items(spec, "scopes").map(|s| (s.as_str().unwrap_or_default(), "Exists", &Value::Null));
    let selected = items(&spec["scopeSelector"], "matchExpressions")
        .map(|e| (text(e, "scopeName"), text(e, "operator"), &e["values"]));
    plain
        .chain(selected)
        .all(|(scope, operator, values)| is_pod && holds(scope, operator, values))
}

/// Whether an affinity names other namespaces than the pod's own.
fn crosses(affinity: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let required = items(&affinity[*kind], "requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = items(
            &affinity[*kind],
            "preferredDuringSchedulingIgnoredDuringExecution",
        );
        required
            .chain(preferred.map(|p| &p["podAffinityTerm"]))
            .any(|term| items(term, "namespaces").next().is_some() || !term["namespaceSelector"].is_null())
    })
}

/// What the containers of a new pod do not say although one of the `bounded` amounts is: `limits.cpu for: c; …`.
pub fn unsaid(pod: &Value, bounded: &BTreeSet<&str>) -> Option<String> {
    let mut found = Vec::new();
    for name in MUST_BE_SAID.iter().filter(|name| bounded.contains(**name)) {
        let (list, amount) = name.split_once('.').unwrap_or(("requests", name));
        let silent: BTreeSet<&str> = ["containers", "initContainers"]
            .iter()
            .flat_map(|containers| items(&pod["spec"], containers))
            .filter(|container| container["resources"][list][amount].is_null())
            .map(|container| text(container, "name"))
            .collect();
        if !silent.is_empty() {
            let names: Vec<&str> = silent.into_iter().collect();
            found.push(format!("{name} for: {}", names.join(",")));
        }
    }
    found.sort();
    (!found.is_empty()).then(|| found.join("; "))
}

/// `a=1,b=2`.
pub fn shown(usage: &Usage) -> String {
    let all: Vec<String> = usage
        .iter()
        .map(|(name, amount)| format!("{name}={amount}"))
        .collect();
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_objects_use() {
        let container =
            |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": "2"}}});
        for (group, plural, object, want) in [
            ("", "configmaps", json!({}), "configmaps=1,count/configmaps=1"),
            ("apps", "deployments", json!({}), "count/deployments.apps=1"),
            (
                "",
                "pods",
                json!({"spec": {"containers": [container("500m"), container("1")], "initContainers": [container("3")]}}),
                "count/pods=1,cpu=3,limits.cpu=4,pods=1,requests.cpu=3",
            ),
            ("", "pods", json!({"status": {"phase": "Failed"}}), "count/pods=1"),
            (
                "",
                "services",
                json!({"spec": {"type": "NodePort", "ports": [{}, {}]}}),
                "count/services=1,services=1,services.nodeports=2",
            ),
            (
                "",
                "persistentvolumeclaims",
                json!({"spec": {"storageClassName": "s", "resources": {"requests": {"storage": "1Gi"}}}}),
                "count/persistentvolumeclaims=1,persistentvolumeclaims=1,requests.storage=1Gi,\
                 s.storageclass.storage.k8s.io/persistentvolumeclaims=1,s.storageclass.storage.k8s.io/requests.storage=1Gi",
            ),
        ] {
            assert_eq!(shown(&of(group, plural, &object)), want, "{plural}");
        }
    }

    #[test]
    fn scopes_choose_pods() {
        let pod = json!({"spec": {"priorityClassName": "high"}, "status": {"qosClass": "BestEffort"}});
        for (spec, want) in [
            (json!({}), true),
            (json!({"scopes": ["BestEffort", "NotTerminating"]}), true),
            (json!({"scopes": ["Terminating"]}), false),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}),
                true,
            ),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "NotIn", "values": ["high"]}]}}),
                false,
            ),
        ] {
            assert_eq!(is_in_scope(&json!({"spec": spec}), "", "pods", &pod), want);
        }
        let scoped = json!({"spec": {"scopes": ["NotTerminating"]}});
        assert!(!is_in_scope(&scoped, "", "secrets", &json!({})));
    }

    #[test]
    fn bounded_amounts_must_be_said() {
        let pod = json!({"spec": {"containers": [{"name": "c"}, {"name": "d", "resources": {"requests": {"cpu": "1"}}}]}});
        let bounded = BTreeSet::from(["pods", "requests.cpu", "limits.cpu"]);
        assert_eq!(
            unsaid(&pod, &bounded).as_deref(),
            Some("limits.cpu for: c,d; requests.cpu for: c")
        );
        assert_eq!(unsaid(&pod, &BTreeSet::from(["pods"])), None);
    }
}
