//! ResourceQuotas: what is bounded and how much of it the namespace uses (the resource quota controller).

use super::access::Access;
use super::plan::{Action, Plan};
use crate::object;
use crate::registry::strategy::quantity::Amount;
use crate::registry::usage::{self, Usage};
use crate::store::Entry;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Store key of the kind.
pub const QUOTAS: &str = "/resourcequotas";
/// When to count again what was too much: it may be of a write that is counted and not yet stored.
const AGAIN: Duration = Duration::from_secs(5);

/// Kinds that are bounded by other names than their own.
const BY_AMOUNT: [(&str, &str); 3] = [
    ("services", "/services"),
    ("persistentvolumeclaims", "/persistentvolumeclaims"),
    ("requests.storage", "/persistentvolumeclaims"),
];

/// Store key of the kind whose objects use what is bounded under this name.
fn storage(name: &str) -> String {
    if let Some(counted) = name.strip_prefix("count/") {
        return match counted.split_once('.') {
            Some((plural, group)) => format!("{group}/{plural}"),
            None => format!("/{counted}"),
        };
    }
    // Of one storage class.
    let name = name
        .rsplit_once(".storageclass.storage.k8s.io/")
        .map_or(name, |(_, name)| name);
    let exact = BY_AMOUNT.iter().find(|(known, _)| *known == name);
    match exact {
        Some((_, storage)) => (*storage).to_owned(),
        None if name.starts_with("services.") => "/services".to_owned(),
        None if usage::COUNTED.contains(&name) => format!("/{name}"),
        None => "/pods".to_owned(),
    }
}

/// Whether somebody bounded something else.
pub fn is_changed(before: &Value, now: &Value) -> bool {
    before["spec"] != now["spec"]
}

/// Store keys of the kinds whose objects use what a quota bounds.
pub fn kinds(quota: &Value) -> BTreeSet<String> {
    let hard = quota["spec"]["hard"].as_object().into_iter().flatten();
    hard.map(|(name, _)| storage(name)).collect()
}

/// Whether a namespace uses less after an event. What comes is counted when it is written; what goes is noticed here.
pub fn is_less(now: &Entry, gone: bool, before: Option<&Entry>) -> bool {
    let Some(before) = before.filter(|_| !gone) else {
        return gone;
    };
    let kind = &*now.key.resource;
    let (group, plural) = kind.split_once('/').unwrap_or(("", kind));
    if (group, plural) == ("", "pods") {
        return usage::has_ended(&now.value()) && !usage::has_ended(&before.value());
    }
    let uses = |entry: &Entry| usage::of(group, plural, &entry.value());
    usage::grows(group, plural) && fell(&uses(before), &uses(now))
}

fn fell(before: &Usage, now: &Usage) -> bool {
    before.iter().any(|(name, amount)| {
        let now = now.get(name).copied().unwrap_or(Amount::ZERO);
        amount.exceeds(now)
    })
}

/// All objects of a namespace that a quota is about, with their kinds.
pub fn observe(access: &Access, quota: &Value) -> Vec<(String, Arc<Entry>)> {
    let namespace = object::namespace(quota);
    let all = kinds(quota).into_iter().flat_map(|kind| {
        let entries = access.list(&kind, Some(namespace));
        entries.into_iter().map(move |entry| (kind.clone(), entry))
    });
    all.collect()
}

/// The status a quota should have, if it has another.
pub fn decide(quota: &Value, objects: &[(String, Arc<Entry>)]) -> Plan {
    let objects = objects.iter().map(|(kind, entry)| (kind.as_str(), entry.value()));
    let status = status(quota, objects);
    if quota["status"]["hard"] == status["hard"] && quota["status"]["used"] == status["used"] {
        return Plan::default();
    }
    let used = |status: &Value| -> Usage {
        let used = status["used"].as_object().into_iter().flatten();
        used.map(|(name, amount)| (name.clone(), Amount::of(amount)))
            .collect()
    };
    let lowers = fell(&used(&quota["status"]), &used(&status));
    let mut quota = quota.clone();
    quota["status"] = status;
    Plan {
        actions: vec![Action::status(QUOTAS, quota)],
        after: lowers.then_some(AGAIN),
    }
}

fn status<'a>(quota: &Value, objects: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let Some(hard) = quota["spec"]["hard"].as_object().filter(|hard| !hard.is_empty()) else {
        return json!({});
    };
    let mut used: Map<String, Value> = hard.keys().map(|name| (name.clone(), "0".into())).collect();
    for (kind, object) in objects {
        let (group, plural) = kind.split_once('/').unwrap_or(("", kind));
        if !usage::is_in_scope(quota, group, plural, &object) {
            continue;
        }
        for (name, amount) in usage::of(group, plural, &object) {
            if let Some(sum) = used.get_mut(&name) {
                *sum = Amount::of(sum).plus(amount).to_string().into();
            }
        }
    }
    json!({"hard": hard, "used": used})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_kinds() {
        for (name, want) in [
            ("pods", "/pods"),
            ("requests.cpu", "/pods"),
            ("configmaps", "/configmaps"),
            ("services.nodeports", "/services"),
            ("count/deployments.apps", "apps/deployments"),
            ("count/secrets", "/secrets"),
            (
                "gold.storageclass.storage.k8s.io/requests.storage",
                "/persistentvolumeclaims",
            ),
        ] {
            assert_eq!(storage(name), want);
        }
    }

    #[test]
    fn a_quota_is_about_kinds() {
        let quota =
            json!({"spec": {"hard": {"pods": "1", "requests.cpu": "1", "count/deployments.apps": "1"}}});
        let want = ["/pods", "apps/deployments"].map(str::to_owned);
        assert_eq!(kinds(&quota), BTreeSet::from(want));
        assert_eq!(kinds(&json!({})), BTreeSet::new());
    }

    #[test]
    fn less_than_before_is_noticed() {
        let service = |kind: &str| {
            let service = json!({"spec": {"type": kind, "ports": [{}]}});
            usage::of("", "services", &service)
        };
        assert!(fell(&service("NodePort"), &service("ClusterIP")));
        assert!(!fell(&service("ClusterIP"), &service("NodePort")));
        assert!(!fell(&service("NodePort"), &service("NodePort")));
    }

    #[test]
    fn what_is_lowered_is_counted_again() {
        for (used, after) in [(json!({}), None), (json!({"pods": "1"}), Some(AGAIN))] {
            let hard = json!({"pods": "5"});
            let quota = json!({"spec": {"hard": hard}, "status": {"hard": hard, "used": used}});
            let plan = decide(&quota, &[]);
            assert_eq!((plan.actions.len(), plan.after), (1, after), "{used}");
        }
    }

    #[test]
    fn what_is_used_is_added_up() {
        let quota = json!({"spec": {"hard": {"pods": "5", "requests.cpu": "4", "services": "1"}}});
        let pod = |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        let objects = [("/pods", pod("500m")), ("/pods", pod("1"))];
        assert_eq!(
            status(&quota, objects.into_iter()),
            json!({"hard": {"pods": "5", "requests.cpu": "4", "services": "1"},
                "used": {"pods": "2", "requests.cpu": "1500m", "services": "0"}})
        );
    }
}
