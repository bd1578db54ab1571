//! APIServices: one for every group and version this server has, and whether each is available.

use super::plan::{Action, Plan, set_condition};
use crate::object;
use crate::registry::split_api_version;
use crate::rest::rfc3339;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// APIServices, as a store key.
pub const API_SERVICES: &str = "apiregistration.k8s.io/apiservices";
/// Who keeps an APIService: `onstart` those that are always there, `true` those of definitions.
pub const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// What [`MANAGED`] says of those of definitions.
const BY_DEFINITION: &str = "true";

/// Priorities of the built-in groups among each other.
const GROUPS: [(&str, i64); 20] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("resource.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
];
/// The group of APIServices is not one of them: who serves it is who keeps them.
const OWN_GROUP: &str = "apiregistration.k8s.io";

/// The APIService of a built-in group and version; `None` for that of APIServices themselves.
pub fn builtin(group: &str, version: &str) -> Option<Value> {
    if group == OWN_GROUP {
        return None;
    }
    let among_groups = GROUPS
        .iter()
        .find(|(name, _)| *name == group)
        .map_or(16_000, |g| g.1);
    let among_versions = match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io" | "resource.k8s.io", _) => 21,
        _ => 15,
    };
    Some(local(group, version, (among_groups, among_versions), "onstart"))
}

fn local(group: &str, version: &str, (groups, versions): (i64, i64), managed: &str) -> Value {
    let mut spec = json!({"version": version, "groupPriorityMinimum": groups, "versionPriority": versions});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({
        "apiVersion": format!("{OWN_GROUP}/v1"), "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: managed}},
        "spec": spec,
    })
}

/// Brings the APIServices of a group in step with its definitions. `there` are those of the group.
pub fn decide(group: &str, definitions: &[Value], there: &[Value]) -> Plan {
    let served: BTreeSet<&str> = definitions
        .iter()
        .flat_map(|crd| crd["spec"]["versions"].as_array().into_iter().flatten())
        .filter(|v| v["served"] == true)
        .filter_map(|v| v["name"].as_str())
        .collect();
    let named = |version: &str| there.iter().find(|s| s["spec"]["version"] == version);
    let missing = served.iter().filter(|version| named(version).is_none());
    let mut actions: Vec<Action> = missing
        .map(|version| Action::create(API_SERVICES, local(group, version, (1000, 100), BY_DEFINITION)))
        .collect();
    let stale = there.iter().filter(|service| {
        service["metadata"]["labels"][MANAGED] == BY_DEFINITION
            && !served.contains(service["spec"]["version"].as_str().unwrap_or_default())
            && !object::is_deleting(service)
    });
    actions.extend(stale.map(|service| Action::delete(API_SERVICES, service, None)));
    Plan::of(actions)
}

/// The group in an APIService's name, `<version>.<group>`.
pub fn group_of(name: &str) -> &str {
    name.split_once('.').map_or("", |(_, group)| group)
}

/// Whether an APIService is available: those this server answers itself are. `backend` says whether the Service that another
/// names is there.
pub fn available(service: &Value, backend: impl Fn(&str, &str) -> bool, now: Timestamp) -> Plan {
    let named = &service["spec"]["service"];
    let text = |field: &str| named[field].as_str().unwrap_or_default();
    let missing;
    let (status, reason, message) = if named.is_null() {
        ("True", "Local", "Local APIServices are always available")
    } else if !backend(text("namespace"), text("name")) {
        missing = format!(
            "service/{} in {:?} is not present",
            text("name"),
            text("namespace")
        );
        ("False", "ServiceNotFound", missing.as_str())
    } else {
        // Nothing is asked of it from here.
        return Plan::default();
    };
    let mut new = service.clone();
    if object::is_deleting(service)
        || !set_condition(&mut new, "Available", status, reason, message, &rfc3339(now))
    {
        return Plan::default();
    }
    Plan::of([Action::status(API_SERVICES, new)])
}

/// The built-in groups and versions that are served, from their `apiVersion`s.
pub fn builtins<'a>(versions: impl Iterator<Item = &'a str>) -> Vec<Value> {
    let all: BTreeSet<(&str, &str)> = versions.map(split_api_version).collect();
    all.into_iter()
        .filter_map(|(group, version)| builtin(group, version))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_follow_their_definitions() {
        let crd = |versions: &[(&str, bool)]| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|(name, served)| json!({"name": name, "served": served}))
                .collect();
            json!({"spec": {"versions": versions}})
        };
        let there = |version: &str, managed: &str| {
            let mut service = local("x.io", version, (1000, 100), managed);
            service["metadata"]["uid"] = version.into();
            service
        };
        for (definitions, services, made, gone) in [
            (
                vec![crd(&[("v1", true), ("v2", false)])],
                vec![],
                vec!["v1.x.io"],
                vec![],
            ),
            (
                vec![crd(&[("v1", true)]), crd(&[("v1", true), ("v2", true)])],
                vec![there("v1", "true")],
                vec!["v2.x.io"],
                vec![],
            ),
            (vec![], vec![there("v1", "true")], vec![], vec!["v1.x.io"]),
            (vec![], vec![there("v1", "onstart")], vec![], vec![]),
            (
                vec![crd(&[("v1", false)])],
                vec![there("v1", "true")],
                vec![],
                vec!["v1.x.io"],
            ),
        ] {
            let plan = decide("x.io", &definitions, &services);
            let mut got = (Vec::new(), Vec::new());
            for action in &plan.actions {
                match action {
                    Action::Create { object, .. } => got.0.push(object::name(object).to_owned()),
                    Action::Delete { name, .. } => got.1.push(name.clone()),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(
                got,
                (
                    made.iter().map(|s| (*s).to_owned()).collect(),
                    gone.iter().map(|s| (*s).to_owned()).collect()
                )
            );
        }
    }

    #[test]
    fn local_ones_are_available() {
        let now = Timestamp::UNIX_EPOCH;
        let status =
            |service: &Value, there: bool| match available(service, |_, _| there, now).actions.as_slice() {
                [Action::Update { object, .. }] => object["status"]["conditions"][0]["reason"].clone(),
                _ => Value::Null,
            };
        let mut service = builtin("apps", "v1").unwrap();
        assert_eq!(status(&service, false), "Local");
        service["spec"]["service"] = json!({"name": "s", "namespace": "n"});
        assert_eq!(status(&service, false), "ServiceNotFound");
        assert_eq!(status(&service, true), Value::Null);
        assert_eq!(group_of("v1."), "");
        assert_eq!(group_of("v1.a.io"), "a.io");
    }
}
