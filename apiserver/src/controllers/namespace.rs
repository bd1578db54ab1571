//! Namespaces: what each of them has, and how one goes.

use super::access::Access;
use super::kinds;
use super::plan::{Action, Plan, set_condition};
use crate::object;
use crate::rest::rfc3339;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// The ServiceAccount of every namespace.
pub const DEFAULT_ACCOUNT: &str = "default";
/// The ConfigMap with the server's CA certificate in every namespace.
pub const ROOT_CA: &str = "kube-root-ca.crt";
/// Key in [`ROOT_CA`].
const CA_CRT: &str = "ca.crt";
/// The finalizer in a namespace's spec that content is deleted for.
const KUBERNETES: &str = "kubernetes";

/// What a namespace that stays must have: its default account, and the CA to trust.
pub fn defaults(namespace: &Value, account: Option<&Value>, root_ca: Option<&Value>, ca_pem: &str) -> Plan {
    if object::is_deleting(namespace) {
        return Plan::default();
    }
    let name = object::name(namespace);
    let mut actions = Vec::new();
    if account.is_none() {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": DEFAULT_ACCOUNT, "namespace": name},
        });
        actions.push(Action::create(kinds::SERVICE_ACCOUNTS, account));
    }
    match root_ca {
        None => {
            let map = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {
                    "name": ROOT_CA, "namespace": name,
                    "annotations": {
                        "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                         endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed \
                         across distributions of Kubernetes clusters.",
                    },
                },
                "data": {CA_CRT: ca_pem},
            });
            actions.push(Action::create(kinds::CONFIG_MAPS, map));
        }
        Some(map) if !object::is_deleting(map) && map["data"] != json!({CA_CRT: ca_pem}) => {
            let mut map = map.clone();
            map["data"] = json!({CA_CRT: ca_pem});
            actions.push(Action::update(kinds::CONFIG_MAPS, map));
        }
        Some(_) => {}
    }
    Plan::of(actions)
}

/// How long a namespace that is being deleted is left as it is: who deletes the objects of a file one after the other, and the
/// namespace they are in before them, finds them still there.
pub const DELAY: Duration = Duration::from_secs(5);

/// How much of `delay` is left to a namespace that is being deleted.
pub fn left(namespace: &Value, delay: Duration, now: Timestamp) -> Option<Duration> {
    let since: Timestamp = object::meta(namespace, "deletionTimestamp").parse().ok()?;
    let gone: Duration = now.duration_since(since).try_into().unwrap_or_default();
    delay.checked_sub(gone).filter(|left| !left.is_zero())
}

/// The objects of one kind in a namespace.
#[derive(Debug, Clone)]
pub struct Content {
    /// Kind as store key.
    pub storage: String,
    /// `pods` or `deployments.apps`.
    pub resource: String,
    /// The objects.
    pub objects: Vec<Value>,
}

/// What is in a namespace.
pub fn content(access: &Access, namespace: &str) -> Vec<Content> {
    let mut resources = access.store().resources();
    resources.sort();
    let mut all = Vec::new();
    for (storage, count) in resources {
        if count == 0 {
            continue;
        }
        let entries = access.list(&storage, Some(namespace));
        // Objects of a definition that is gone are nobody's: they cannot be reached, so they hold nothing.
        if let Some(kind) = access.kind(&storage).filter(|_| !entries.is_empty()) {
            let objects = entries.iter().map(|e| e.value()).collect();
            all.push(Content {
                storage: storage.to_string(),
                resource: kind.qualified(),
                objects,
            });
        }
    }
    all
}

/// The next step of a namespace that is being deleted: its pods, then all else (KEP-5080), then itself. What cannot go
/// yet is said in its conditions, as kube-controller-manager does.
pub fn terminate(namespace: &Value, content: &[Content], now: Timestamp) -> Plan {
    let held = namespace["spec"]["finalizers"]
        .as_array()
        .is_some_and(|f| f.iter().any(|f| f == KUBERNETES));
    if !object::is_deleting(namespace) || !held {
        return Plan::default();
    }
    if content.iter().all(|c| c.objects.is_empty()) {
        let mut namespace = namespace.clone();
        let others = namespace["spec"]["finalizers"]
            .as_array()
            .is_some_and(|f| f.len() > 1);
        // Somebody else keeps it: then it says that its content is gone.
        if (others || object::finalizers(&namespace).next().is_some())
            && set_conditions(&mut namespace, content, now)
        {
            return Plan::of([Action::status(kinds::NAMESPACES, namespace)]);
        }
        if let Some(list) = namespace["spec"]["finalizers"].as_array_mut() {
            list.retain(|f| f != KUBERNETES);
        }
        return Plan::of([Action::Update {
            resource: kinds::NAMESPACES.into(),
            subresource: "finalize",
            object: namespace,
        }]);
    }
    let pods_left = content
        .iter()
        .any(|c| c.storage == kinds::PODS && !c.objects.is_empty());
    let doomed = content.iter().filter(|c| !pods_left || c.storage == kinds::PODS);
    let mut actions: Vec<Action> = doomed
        .flat_map(|c| c.objects.iter().map(move |o| (c, o)))
        .filter(|(_, o)| !object::is_deleting(o))
        .map(|(c, o)| Action::delete(c.storage.clone(), o, None))
        .collect();
    // With everything asked to go, what is still there waits for someone: say for whom.
    if actions.is_empty() {
        let mut shown = namespace.clone();
        if set_conditions(&mut shown, content, now) {
            actions.push(Action::status(kinds::NAMESPACES, shown));
        }
    }
    Plan::of(actions)
}

fn set_conditions(namespace: &mut Value, content: &[Content], now: Timestamp) -> bool {
    let now = rfc3339(now);
    let mut remaining = String::new();
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for c in content.iter().filter(|c| !c.objects.is_empty()) {
        let separator = if remaining.is_empty() { "" } else { ", " };
        let _ = write!(
            remaining,
            "{separator}{} has {} resource instances",
            dotted(&c.resource),
            c.objects.len()
        );
        for finalizer in c.objects.iter().flat_map(object::finalizers) {
            *finalizers.entry(finalizer).or_default() += 1;
        }
    }
    let held: Vec<String> = finalizers
        .iter()
        .map(|(f, n)| format!("{f} in {n} resource instances"))
        .collect();
    let remaining = format!("Some resources are remaining: {remaining}");
    let holding = format!(
        "Some content in the namespace has finalizers remaining: {}",
        held.join(", ")
    );
    let conditions = [
        (
            "NamespaceDeletionDiscoveryFailure",
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        if content.iter().all(|c| c.objects.is_empty()) {
            (
                "NamespaceContentRemaining",
                "False",
                "ContentRemoved",
                "All content successfully removed",
            )
        } else {
            (
                "NamespaceContentRemaining",
                "True",
                "SomeResourcesRemain",
                remaining.as_str(),
            )
        },
        if held.is_empty() {
            (
                "NamespaceFinalizersRemaining",
                "False",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            )
        } else {
            (
                "NamespaceFinalizersRemaining",
                "True",
                "SomeFinalizersRemain",
                holding.as_str(),
            )
        },
    ];
    let mut changed = false;
    for (kind, status, reason, message) in conditions {
        changed |= set_condition(namespace, kind, status, reason, message, &now);
    }
    changed
}

/// `pods.` for core, `deployments.apps`: how the message writes a group resource.
fn dotted(resource: &str) -> String {
    if resource.contains('.') {
        resource.to_owned()
    } else {
        format!("{resource}.")
    }
}
