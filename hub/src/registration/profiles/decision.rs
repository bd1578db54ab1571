//! Whether a cluster has a profile in a namespace, and what that says.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use muster_crds::{
    cluster::v1::ManagedCluster,
    conditions::{NewCondition, Status, find, is_true, set_condition},
    constants::{conditions, labels},
    multicluster::v1alpha1::{ClusterProfile, ClusterProfileStatus, Property},
};
use serde_json::{Map, Value, json};

use super::super::{
    membership::selects,
    sets::SetView,
    view::{BindingView, ClusterView},
};

/// What a profile tells of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterFacts {
    /// What decides on sets, and what the cluster's conditions are.
    pub cluster: ClusterView,
    /// Kubernetes' version.
    pub version: String,
    /// Claims, by name.
    pub claims: Vec<(String, String)>,
}

impl ClusterFacts {
    /// What is kept of a cluster.
    pub fn of(cluster: &ManagedCluster) -> Self {
        let status = cluster.status.clone().unwrap_or_default();
        let claims = status.cluster_claims.into_iter();
        Self {
            cluster: ClusterView::of(cluster),
            version: status.version.kubernetes,
            claims: claims.map(|claim| (claim.name, claim.value)).collect(),
        }
    }
}

/// What is kept of a profile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProfileView {
    /// Its uid.
    pub uid: String,
    /// Its resource version.
    pub resource_version: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it is ours: this never changes.
    pub ours: bool,
    /// The labels that the hub sets.
    pub labels: [Option<String>; 3],
    /// Its status.
    pub status: ClusterProfileStatus,
}

/// The labels that the hub sets on a profile.
const LABELS: [&str; 3] = [labels::CLUSTER_MANAGER, labels::CLUSTER_NAME, labels::CLUSTER_SET];

impl ProfileView {
    /// What is kept of a profile.
    pub fn of(profile: &ClusterProfile) -> Self {
        let metadata = &profile.metadata;
        let label = |key: &str| metadata.labels.as_ref().and_then(|all| all.get(key)).cloned();
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            ours: profile.spec.cluster_manager.name == labels::CLUSTER_MANAGER_NAME,
            labels: LABELS.map(label),
            status: profile.status.clone().unwrap_or_default(),
        }
    }
}

/// What to do about a profile.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing.
    Leave,
    /// Make it; what it tells follows.
    Create,
    /// Patch its status, its labels, or both.
    Update {
        /// The new status, where it is another.
        status: Option<Value>,
        /// The new labels, where they are others.
        labels: Option<Value>,
    },
    /// Delete it.
    Delete,
}

/// Decides about the profile of `name` in a namespace with these bindings. `set` finds a set by name.
pub fn decide<'a>(
    name: &str,
    cluster: Option<&ClusterFacts>,
    bindings: impl IntoIterator<Item = &'a BindingView>,
    set: impl Fn(&str) -> Option<Arc<SetView>>,
    profile: Option<&ProfileView>,
    now: Timestamp,
) -> Decision {
    if profile.is_some_and(|profile| profile.deleting || !profile.ours) {
        return Decision::Leave;
    }
    let facts = cluster.filter(|facts| !facts.cluster.deleting);
    let wanted = facts.filter(|facts| {
        bindings.into_iter().any(|binding| {
            let bound = !binding.deleting && is_true(&binding.conditions, conditions::BOUND);
            bound
                && set(&binding.set).is_some_and(|view| {
                    // A selector that makes no sense selects nothing.
                    selects(&binding.set, &view.selector, &facts.cluster.labels).unwrap_or(false)
                })
        })
    });
    match (wanted, profile) {
        (None, None) => Decision::Leave,
        (None, Some(_)) => Decision::Delete,
        (Some(_), None) => Decision::Create,
        (Some(facts), Some(profile)) => {
            let status = status(facts, &profile.status, now);
            let labels = wanted_labels(name, facts);
            let labels = (labels != profile.labels).then(|| {
                let pairs = LABELS.into_iter().zip(labels);
                Value::Object(pairs.map(|(key, value)| (key.to_owned(), json!(value))).collect())
            });
            if status.is_none() && labels.is_none() {
                Decision::Leave
            } else {
                Decision::Update { status, labels }
            }
        }
    }
}

fn wanted_labels(name: &str, facts: &ClusterFacts) -> [Option<String>; 3] {
    [
        Some(labels::CLUSTER_MANAGER_NAME.to_owned()),
        Some(name.to_owned()),
        facts.cluster.set.clone(),
    ]
}

/// The patch of a profile's status, where it is not what the cluster's says.
fn status(facts: &ClusterFacts, known: &ClusterProfileStatus, now: Timestamp) -> Option<Value> {
    let mut patch = Map::new();
    if known.version.kubernetes != facts.version {
        patch.insert("version".to_owned(), json!({"kubernetes": facts.version}));
    }
    let same = known.properties.len() == facts.claims.len()
        && known
            .properties
            .iter()
            .zip(&facts.claims)
            .all(|(property, (name, value))| property.name == *name && property.value == *value);
    if !same {
        let properties: Vec<Property> = facts
            .claims
            .iter()
            .map(|(name, value)| Property {
                name: name.clone(),
                value: value.clone(),
                last_observed_time: None,
            })
            .collect();
        patch.insert("properties".to_owned(), json!(properties));
    }
    let mut all = known.conditions.clone();
    let mut changed = false;
    for (theirs, ours) in [
        (conditions::CLUSTER_AVAILABLE, conditions::CONTROL_PLANE_HEALTHY),
        (conditions::JOINED, conditions::PROFILE_JOINED),
    ] {
        if let Some(condition) = find(&facts.cluster.conditions, theirs) {
            changed |= set_condition(&mut all, mirrored(ours, condition), now);
        }
    }
    if changed {
        patch.insert("conditions".to_owned(), json!(all));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn mirrored(type_: &str, condition: &Condition) -> NewCondition {
    let status = match condition.status.as_str() {
        "True" => Status::True,
        "False" => Status::False,
        _ => Status::Unknown,
    };
    NewCondition::new(
        type_,
        status,
        condition.reason.as_str(),
        condition.message.as_str(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(change: impl FnOnce(&mut Value)) -> ClusterFacts {
        let mut value = json!({
            "metadata": {"name": "c1", "labels": {"cluster.open-cluster-management.io/clusterset": "a", "env": "test"}},
            "spec": {},
            "status": {
                "version": {"kubernetes": "v1.36.0"},
                "clusterClaims": [{"name": "region", "value": "north"}],
                "conditions": [
                    {"type": "ManagedClusterConditionAvailable", "status": "Unknown", "reason": "Gone", "message": "m",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"},
                    {"type": "ManagedClusterJoined", "status": "True", "reason": "R", "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"},
                ],
            },
        });
        change(&mut value);
        ClusterFacts::of(&serde_json::from_value(value).unwrap())
    }

    fn binding(set: &str, bound: bool) -> BindingView {
        let mut all = Vec::new();
        set_condition(
            &mut all,
            NewCondition::new("Bound", bound, "R", ""),
            Timestamp::UNIX_EPOCH,
        );
        BindingView {
            set: set.to_owned(),
            conditions: all,
            ..BindingView::default()
        }
    }

    /// `a` by its label; `test` and `prod` by the label `env`; `all`; `odd`, whose selector makes no sense.
    fn set(name: &str) -> Option<Arc<SetView>> {
        let by_env = |value: &str| {
            json!({"selectorType": "LabelSelector", "labelSelector": {"matchExpressions":
                [{"key": "env", "operator": "In", "values": [value]}]}})
        };
        let selector = match name {
            "a" => json!({"selectorType": "ExclusiveClusterSetLabel"}),
            "all" => json!({"selectorType": "LabelSelector", "labelSelector": {}}),
            "odd" => json!({"selectorType": "LabelSelector"}),
            "test" | "prod" => by_env(name),
            _ => return None,
        };
        let set = json!({"metadata": {"name": name}, "spec": {"clusterSelector": selector}});
        Some(Arc::new(SetView::of(&serde_json::from_value(set).unwrap())))
    }

    fn ask(
        facts: Option<&ClusterFacts>,
        bindings: &[BindingView],
        profile: Option<&ProfileView>,
    ) -> Decision {
        decide("c1", facts, bindings, set, profile, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_profile_is_where_a_bound_set_selects_the_cluster() {
        let cluster = facts(|_| {});
        let going = facts(|c| c["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
        let ending = BindingView {
            deleting: true,
            ..binding("a", true)
        };
        let yes = Decision::Create;
        let no = Decision::Leave;
        for (what, facts, bindings, wanted) in [
            (
                "by the set's label",
                Some(&cluster),
                vec![binding("a", true)],
                &yes,
            ),
            ("by a selector", Some(&cluster), vec![binding("test", true)], &yes),
            ("by any", Some(&cluster), vec![binding("all", true)], &yes),
            (
                "twice is once",
                Some(&cluster),
                vec![binding("a", true), binding("test", true)],
                &yes,
            ),
            (
                "one of two",
                Some(&cluster),
                vec![binding("prod", true), binding("test", true)],
                &yes,
            ),
            ("another's", Some(&cluster), vec![binding("prod", true)], &no),
            ("not bound", Some(&cluster), vec![binding("a", false)], &no),
            ("unbound soon", Some(&cluster), vec![ending], &no),
            ("no set", Some(&cluster), vec![binding("gone", true)], &no),
            ("no sense", Some(&cluster), vec![binding("odd", true)], &no),
            ("no binding", Some(&cluster), vec![], &no),
            ("going", Some(&going), vec![binding("a", true)], &no),
            ("gone", None, vec![binding("a", true)], &no),
        ] {
            assert_eq!(ask(facts, &bindings, None), *wanted, "{what}");
            let there = ProfileView {
                ours: true,
                ..ProfileView::default()
            };
            let deleted = ask(facts, &bindings, Some(&there)) == Decision::Delete;
            assert_eq!(deleted, *wanted == no, "{what}, where it is there");
        }
    }

    #[test]
    fn somebody_elses_profile_is_left_alone() {
        let cluster = facts(|_| {});
        let bound = [binding("a", true)];
        for (ours, deleting) in [(false, false), (false, true), (true, true)] {
            let profile = ProfileView {
                deleting,
                ours,
                ..ProfileView::default()
            };
            assert_eq!(ask(Some(&cluster), &bound, Some(&profile)), Decision::Leave);
            assert_eq!(ask(None, &[], Some(&profile)), Decision::Leave);
        }
    }

    #[test]
    fn a_profile_tells_what_the_cluster_does_and_is_written_once() {
        let bound = [binding("a", true)];
        let mut profile: ClusterProfile = serde_json::from_value(json!({
            "metadata": {"name": "c1", "labels": {"somebody": "else's"}},
            "spec": {"displayName": "c1", "clusterManager": {"name": "open-cluster-management"}},
        }))
        .unwrap();
        let cluster = facts(|_| {});
        let decision = ask(Some(&cluster), &bound, Some(&ProfileView::of(&profile)));
        let Decision::Update {
            status: Some(status),
            labels: Some(labels),
        } = decision
        else {
            panic!("not updated: {decision:?}")
        };
        assert_eq!(status["version"]["kubernetes"], "v1.36.0");
        assert_eq!(
            status["properties"],
            json!([{"name": "region", "value": "north"}])
        );
        let told: Vec<_> = status["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| (&c["type"], &c["status"], &c["reason"]))
            .collect();
        assert_eq!(
            told,
            [
                (&json!("ControlPlaneHealthy"), &json!("Unknown"), &json!("Gone")),
                (&json!("Joined"), &json!("True"), &json!("R"))
            ]
        );
        assert_eq!(labels["cluster.open-cluster-management.io/clusterset"], "a");
        assert_eq!(labels["x-k8s.io/cluster-manager"], "open-cluster-management");
        assert_eq!(labels["open-cluster-management.io/cluster-name"], "c1");

        let all = profile.metadata.labels.get_or_insert_default();
        for (key, value) in labels.as_object().unwrap() {
            all.insert(key.clone(), value.as_str().unwrap().to_owned());
        }
        profile.status = serde_json::from_value(status).unwrap();
        let view = ProfileView::of(&profile);
        assert_eq!(ask(Some(&cluster), &bound, Some(&view)), Decision::Leave);
        // The set's label goes with the cluster's.
        let moved = facts(|c| c["metadata"]["labels"] = json!({"env": "test"}));
        let decision = ask(Some(&moved), &[binding("test", true)], Some(&view));
        let Decision::Update {
            status: None,
            labels: Some(labels),
        } = decision
        else {
            panic!("{decision:?}")
        };
        assert_eq!(
            labels["cluster.open-cluster-management.io/clusterset"],
            Value::Null
        );
        let bare = facts(|c| c["status"] = json!({}));
        let Decision::Update {
            status: Some(status), ..
        } = ask(Some(&bare), &[binding("all", true)], Some(&view))
        else {
            panic!("what is claimed no more is still told")
        };
        assert_eq!(
            (&status["properties"], &status["conditions"]),
            (&json!([]), &Value::Null)
        );
    }
}
