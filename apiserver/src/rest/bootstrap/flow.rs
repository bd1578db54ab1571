//! The FlowSchemas and PriorityLevelConfigurations every cluster has. Requests are not sorted by them here (see
//! [`super::super::inflight`]): they are there for who looks them up, and to be changed.

use crate::auth::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, SYSTEM_MASTERS};
use serde_json::{Value, json};

const GROUP: &str = "flowcontrol.apiserver.k8s.io/v1";

/// Queues, hand size and length of a queue.
type Queuing = Option<(i64, i64, i64)>;

/// Levels that are limited: name, shares, percentage that others may borrow, queues.
const LEVELS: [(&str, i64, i64, Queuing); 7] = [
    ("catch-all", 5, 0, None),
    ("global-default", 20, 50, Some((128, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("system", 30, 33, Some((64, 6, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
];

const EXEMPT: &str = "exempt";
const MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
const NODES: &str = "system:nodes";

/// Who a schema is about: groups, users, and the namespace of ServiceAccounts.
type Who = (
    &'static [&'static str],
    &'static [&'static str],
    Option<&'static str>,
);

const ANYBODY: Who = (&[ALL_UNAUTHENTICATED, ALL_AUTHENTICATED], &[], None);

/// Schemas: name, precedence, level, what tells flows apart (`""`: nothing), who.
const SCHEMAS: [(&str, i64, &str, &str, Who); 11] = [
    ("catch-all", 10_000, "catch-all", "ByUser", ANYBODY),
    ("exempt", 1, EXEMPT, "", (&[SYSTEM_MASTERS], &[], None)),
    ("global-default", 9900, "global-default", "ByUser", ANYBODY),
    (
        "kube-controller-manager",
        800,
        "workload-high",
        "ByNamespace",
        (&[], &[MANAGER], None),
    ),
    (
        "kube-scheduler",
        800,
        "workload-high",
        "ByNamespace",
        (&[], &[SCHEDULER], None),
    ),
    (
        "kube-system-service-accounts",
        900,
        "workload-high",
        "ByNamespace",
        (&[], &[], Some("kube-system")),
    ),
    ("probes", 2, EXEMPT, "", ANYBODY),
    (
        "service-accounts",
        9000,
        "workload-low",
        "ByUser",
        (&["system:serviceaccounts"], &[], None),
    ),
    (
        "system-leader-election",
        100,
        "leader-election",
        "ByUser",
        (&[], &[MANAGER, SCHEDULER], Some("kube-system")),
    ),
    (
        "system-node-high",
        400,
        "node-high",
        "ByUser",
        (&[NODES], &[], None),
    ),
    ("system-nodes", 500, "system", "ByUser", (&[NODES], &[], None)),
];

/// All of them, levels first.
pub fn objects() -> Vec<Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"lendablePercent": 0, "nominalConcurrencyShares": 0}});
    let mut all = vec![object("PriorityLevelConfiguration", EXEMPT, &exempt)];
    all.extend(LEVELS.map(|(name, shares, lendable, queuing)| {
        let response = queuing.map_or_else(
            || json!({"type": "Reject"}),
            |(queues, hand, length)| {
                json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}})
            },
        );
        let limited = json!({
            "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response,
        });
        object(
            "PriorityLevelConfiguration",
            name,
            &json!({"type": "Limited", "limited": limited}),
        )
    }));
    all.extend(SCHEMAS.map(|(name, precedence, level, flows, who)| {
        let mut rule = what(name);
        rule["subjects"] = subjects(who);
        let mut spec = json!({
            "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level}, "rules": [rule],
        });
        if !flows.is_empty() {
            spec["distinguisherMethod"] = json!({"type": flows});
        }
        object("FlowSchema", name, &spec)
    }));
    all
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": GROUP, "kind": kind,
        "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}},
        "spec": spec,
    })
}

fn subjects((groups, users, accounts): Who) -> Value {
    let groups = groups
        .iter()
        .map(|g| json!({"kind": "Group", "group": {"name": g}}));
    let users = users.iter().map(|u| json!({"kind": "User", "user": {"name": u}}));
    let accounts =
        accounts.map(|n| json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": n}}));
    groups.chain(users).chain(accounts).collect()
}

/// The requests a schema is about: all, but for three of them.
fn what(schema: &str) -> Value {
    let resources = |group: &str, names: Value, verbs: Value, cluster: bool| {
        let mut rule = json!({"apiGroups": [group], "resources": names, "verbs": verbs, "namespaces": ["*"]});
        if cluster {
            rule["clusterScope"] = true.into();
        }
        rule
    };
    let leases = |verbs| resources("coordination.k8s.io", json!(["leases"]), verbs, false);
    match schema {
        "probes" => {
            let paths = json!(["/healthz", "/readyz", "/livez"]);
            json!({"nonResourceRules": [{"nonResourceURLs": paths, "verbs": ["get"]}]})
        }
        "system-leader-election" => json!({"resourceRules": [leases(json!(["get", "create", "update"]))]}),
        "system-node-high" => {
            let nodes = resources("", json!(["nodes", "nodes/status"]), json!(["*"]), true);
            json!({"resourceRules": [nodes, leases(json!(["*"]))]})
        }
        _ => json!({
            "nonResourceRules": [{"nonResourceURLs": ["*"], "verbs": ["*"]}],
            "resourceRules": [resources("*", json!(["*"]), json!(["*"]), true)],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_has_its_level() {
        let all = objects();
        let of = |kind: &str| -> Vec<&Value> { all.iter().filter(|o| o["kind"] == kind).collect() };
        let levels = of("PriorityLevelConfiguration");
        assert_eq!((levels.len(), of("FlowSchema").len()), (8, 11));
        for schema in of("FlowSchema") {
            let level = &schema["spec"]["priorityLevelConfiguration"]["name"];
            assert!(levels.iter().any(|l| l["metadata"]["name"] == *level), "{schema}");
        }
    }
}
