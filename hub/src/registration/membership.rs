//! What sets come to: whether a set has clusters, whether a binding has its set, which namespaces a cluster keeps for
//! its sets (ocm-wire §1.2, §1.3, §2.7).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{
    Api,
    core::{Expression, Selector, SelectorExt as _},
};
use muster_crds::{
    cluster::{
        v1::{ClusterSetManagedNamespaceConfig, ManagedCluster},
        v1beta2::{ManagedClusterSelector, ManagedClusterSet, ManagedClusterSetBinding, SelectorType},
    },
    conditions::{NewCondition, set_condition},
    constants::{conditions, labels, reasons},
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    sets::SetView,
    view::{BindingView, ClusterView},
};
use crate::{
    cache::Cache,
    error::Error,
    queue::{Next, Queue},
    writer::{Writer, guarded, what},
};

/// How often at most a set says how many clusters it has. When clusters come in hundreds, each of them would be a write.
const PACE: Duration = Duration::from_millis(250);

/// A set's selector, ready to be held against any number of clusters.
enum Members<'a> {
    Labelled(&'a str),
    Selected(Selector),
}

impl<'a> Members<'a> {
    /// Of a set; an error when its selector makes no sense.
    fn of(set: &'a str, selector: &ManagedClusterSelector) -> Result<Self, String> {
        match selector.selector_type {
            SelectorType::ExclusiveClusterSetLabel => Ok(Self::Labelled(set)),
            SelectorType::LabelSelector => compile(selector.label_selector.as_ref()).map(Self::Selected),
        }
    }

    fn has(&self, cluster: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Labelled(set) => cluster.get(labels::CLUSTER_SET).is_some_and(|label| label == set),
            Self::Selected(selector) => selector.matches(cluster),
        }
    }
}

/// Whether a selector selects a cluster of these labels; an error when it makes no sense.
pub fn selects(
    set: &str,
    selector: &ManagedClusterSelector,
    cluster: &BTreeMap<String, String>,
) -> Result<bool, String> {
    Members::of(set, selector).map(|members| members.has(cluster))
}

fn compile(selector: Option<&LabelSelector>) -> Result<Selector, String> {
    let selector = selector.ok_or("its labelSelector is missing")?;
    let mut all = Selector::default();
    for (key, value) in selector.match_labels.iter().flatten() {
        all.extend(Expression::Equal(key.clone(), value.clone()));
    }
    for one in selector.match_expressions.iter().flatten() {
        let values = || one.values.clone().unwrap_or_default().into_iter().collect();
        let key = one.key.clone();
        all.extend(match one.operator.as_str() {
            "In" => Expression::In(key, values()),
            "NotIn" => Expression::NotIn(key, values()),
            "Exists" => Expression::Exists(key),
            "DoesNotExist" => Expression::DoesNotExist(key),
            other => return Err(format!("its labelSelector has an operator {other:?}")),
        });
    }
    Ok(all)
}

/// The condition of a set with so many clusters.
pub fn empty(clusters: usize) -> NewCondition {
    let (status, reason, message) = if clusters == 0 {
        (
            true,
            reasons::NO_CLUSTER_MATCHED,
            "No ManagedCluster selected".to_owned(),
        )
    } else {
        (
            false,
            reasons::CLUSTERS_SELECTED,
            format!("{clusters} ManagedClusters selected"),
        )
    };
    NewCondition::new(conditions::CLUSTER_SET_EMPTY, status, reason, message)
}

/// The condition of a binding whose set is there, or not.
pub fn bound(set: &str, there: bool) -> NewCondition {
    if there {
        NewCondition::new(conditions::BOUND, true, reasons::CLUSTER_SET_BOUND, "")
    } else {
        let message = format!("ManagedClusterSet {set} is not there");
        NewCondition::new(conditions::BOUND, false, reasons::CLUSTER_SET_NOT_FOUND, message)
    }
}

/// The namespaces a cluster keeps for `sets`, when they are not what it has: in order of set and name, what the agent
/// says of each kept.
pub fn namespaces(
    cluster: &ClusterView,
    sets: &[(String, Arc<SetView>)],
) -> Option<Vec<ClusterSetManagedNamespaceConfig>> {
    let mut wanted: Vec<ClusterSetManagedNamespaceConfig> = Vec::new();
    for (set, view) in sets {
        if view.deleting || view.namespaces.is_empty() {
            continue;
        }
        if !selects(set, &view.selector, &cluster.labels).unwrap_or(false) {
            continue;
        }
        let mut names: Vec<_> = view.namespaces.iter().collect();
        names.sort();
        for name in names {
            let known = cluster
                .managed_namespaces
                .iter()
                .find(|known| known.cluster_set == *set && known.name == *name);
            wanted.push(
                known
                    .cloned()
                    .unwrap_or_else(|| ClusterSetManagedNamespaceConfig {
                        cluster_set: set.clone(),
                        name: name.clone(),
                        ..ClusterSetManagedNamespaceConfig::default()
                    }),
            );
        }
    }
    (wanted != cluster.managed_namespaces).then_some(wanted)
}

/// What matters to a set of a cluster: its labels, and whether it is being deleted.
type Known = (BTreeMap<String, String>, bool);

/// Which clusters' labels are known: a cluster whose labels stay is no news to a set.
#[derive(Default)]
pub struct Seen(Mutex<HashMap<String, Known>>);

impl Seen {
    /// Whether the cluster came, went, or has other labels than before.
    fn news(&self, name: &str, cluster: Option<&ClusterView>) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match cluster {
            None => seen.remove(name).map(Some),
            Some(cluster) => {
                let now = (cluster.labels.clone(), cluster.deleting);
                if seen.get(name) == Some(&now) {
                    return false;
                }
                Some(seen.insert(name.to_owned(), now))
            }
        };
        before.is_some()
    }
}

/// The queues of what follows from sets.
#[derive(Clone)]
pub struct Queues {
    /// Sets by name.
    pub sets: Arc<Queue>,
    /// Bindings, `namespace/name`.
    pub bindings: Arc<Queue>,
    /// Clusters whose namespaces may change, by name.
    pub namespaces: Arc<Queue>,
}

/// What the controllers work with.
pub struct Context {
    /// All sets.
    pub sets: Arc<Cache<ManagedClusterSet, SetView>>,
    /// All bindings.
    pub bindings: Arc<Cache<ManagedClusterSetBinding, BindingView>>,
    /// All clusters.
    pub clusters: Arc<Cache<ManagedCluster, ClusterView>>,
    /// How to write.
    pub writer: Arc<Writer>,
    /// What sets know of clusters.
    pub seen: Seen,
    /// When each set last said how many clusters it has.
    pub said: Mutex<HashMap<String, Instant>>,
}

impl Context {
    /// A cluster changed: whom that concerns is looked at.
    pub fn cluster_changed(&self, name: &str, queues: &Queues) {
        let cluster = self.clusters.get("", name);
        queues.namespaces.add(name);
        if self.seen.news(name, cluster.as_deref()) {
            for (set, _) in self.sets.list("") {
                queues.sets.add(&set);
            }
        }
    }

    /// A set changed: its bindings, and the clusters that keep namespaces, are looked at.
    pub fn set_changed(&self, name: &str, queues: &Queues) {
        queues.sets.add(name);
        for (namespace, binding, view) in self.bindings.everything() {
            if view.set == name {
                queues.bindings.add(&format!("{namespace}/{binding}"));
            }
        }
        let keeps = self
            .sets
            .get("", name)
            .is_some_and(|set| !set.namespaces.is_empty());
        for (cluster, view) in self.clusters.list("") {
            if keeps || view.managed_namespaces.iter().any(|one| one.cluster_set == name) {
                queues.namespaces.add(&cluster);
            }
        }
    }

    /// Says whether a set is empty.
    pub async fn reconcile_set(&self, name: &str) -> Result<Next, Error> {
        let Some(set) = self.sets.get("", name).filter(|set| !set.deleting) else {
            return Ok(Next::Idle);
        };
        if let Some(wait) = self.wait(name) {
            return Ok(Next::After(wait));
        }
        let count = match Members::of(name, &set.selector) {
            Ok(members) => {
                let member = |cluster: &ClusterView| !cluster.deleting && members.has(&cluster.labels);
                self.clusters.matching("", |_, cluster| member(cluster))
            }
            Err(problem) => {
                tracing::warn!(set = name, "ManagedClusterSet selects nothing: {problem}");
                0
            }
        };
        let Some(all) = changed(&set.conditions, empty(count)) else {
            return Ok(Next::Idle);
        };
        let api = Api::<ManagedClusterSet>::all(self.writer.client());
        let patch = guarded(
            json!({"status": {"conditions": all}}),
            &set.uid,
            Some(&set.resource_version),
        );
        let subject = what::<ManagedClusterSet>(name);
        let answer = self
            .writer
            .patch(&api, name, Some("status"), &patch, &subject)
            .await?;
        self.sets.wrote(&answer);
        self.said().insert(name.to_owned(), Instant::now());
        Ok(Next::Idle)
    }

    fn said(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a set has still to wait before it says anything again.
    fn wait(&self, set: &str) -> Option<Duration> {
        let mut said = self.said();
        // What is longer ago delays nothing any more, and neither does a set that is gone.
        said.retain(|_, at| at.elapsed() < PACE);
        said.get(set).map(|at| PACE.saturating_sub(at.elapsed()))
    }

    /// Says whether a binding has its set.
    pub async fn reconcile_binding(&self, key: &str) -> Result<Next, Error> {
        let Some((namespace, name)) = key.split_once('/') else {
            return Ok(Next::Idle);
        };
        let Some(binding) = self.bindings.get(namespace, name).filter(|one| !one.deleting) else {
            return Ok(Next::Idle);
        };
        let there = self.sets.get("", &binding.set).is_some();
        let Some(all) = changed(&binding.conditions, bound(&binding.set, there)) else {
            return Ok(Next::Idle);
        };
        let api = Api::<ManagedClusterSetBinding>::namespaced(self.writer.client(), namespace);
        let patch = guarded(
            json!({"status": {"conditions": all}}),
            &binding.uid,
            Some(&binding.resource_version),
        );
        let subject = format!("ManagedClusterSetBinding {key}");
        let answer = self
            .writer
            .patch(&api, name, Some("status"), &patch, &subject)
            .await?;
        self.bindings.wrote(&answer);
        Ok(Next::Idle)
    }

    /// Tells a cluster which namespaces to keep.
    pub async fn reconcile_namespaces(&self, name: &str) -> Result<Next, Error> {
        let Some(cluster) = self.clusters.get("", name).filter(|cluster| !cluster.deleting) else {
            return Ok(Next::Idle);
        };
        let Some(wanted) = namespaces(&cluster, &self.sets.list("")) else {
            return Ok(Next::Idle);
        };
        let api = Api::<ManagedCluster>::all(self.writer.client());
        let patch = guarded(
            json!({"status": {"managedNamespaces": wanted}}),
            &cluster.uid,
            Some(&cluster.resource_version),
        );
        let subject = what::<ManagedCluster>(name);
        let answer = self
            .writer
            .patch(&api, name, Some("status"), &patch, &subject)
            .await?;
        self.clusters.wrote(&answer);
        Ok(Next::Idle)
    }
}

/// The conditions with `new` in them, when that changes anything.
fn changed(known: &[Condition], new: NewCondition) -> Option<Vec<Condition>> {
    let mut all = known.to_vec();
    set_condition(&mut all, new, Timestamp::now()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn selector(value: serde_json::Value) -> ManagedClusterSelector {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn sets_select_by_their_label_or_by_any() {
        let cluster = labelled(&[(labels::CLUSTER_SET, "a"), ("env", "test")]);
        let by_labels = |value| selector(json!({"selectorType": "LabelSelector", "labelSelector": value}));
        let exclusive = selector(json!({"selectorType": "ExclusiveClusterSetLabel"}));
        assert_eq!(selects("a", &exclusive, &cluster), Ok(true));
        assert_eq!(selects("ab", &exclusive, &cluster), Ok(false));
        assert_eq!(selects("a", &exclusive, &BTreeMap::new()), Ok(false));
        for (value, wanted) in [
            (json!({}), true),
            (json!({"matchLabels": {"env": "test"}}), true),
            (json!({"matchLabels": {"env": "prod"}}), false),
            (
                json!({"matchExpressions": [{"key": "env", "operator": "In", "values": ["a", "test"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["test"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "gone", "operator": "DoesNotExist"}]}),
                true,
            ),
            (
                json!({"matchLabels": {"env": "test"}, "matchExpressions": [{"key": "gone", "operator": "Exists"}]}),
                false,
            ),
        ] {
            assert_eq!(
                selects("x", &by_labels(value.clone()), &cluster),
                Ok(wanted),
                "{value}"
            );
        }
        assert!(selects("x", &selector(json!({"selectorType": "LabelSelector"})), &cluster).is_err());
        let wrong = by_labels(json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}));
        assert!(selects("x", &wrong, &cluster).is_err());
    }

    #[test]
    fn conditions_are_ocms() {
        let (none, three) = (empty(0), empty(3));
        assert_eq!(
            (none.status.as_str(), none.reason.as_str(), none.message.as_str()),
            ("True", "NoClusterMatched", "No ManagedCluster selected")
        );
        assert_eq!(
            (
                three.status.as_str(),
                three.reason.as_str(),
                three.message.as_str()
            ),
            ("False", "ClustersSelected", "3 ManagedClusters selected")
        );
        assert_eq!(bound("s", true).reason, "ClusterSetBound");
        assert_eq!(bound("s", false).reason, "ClusterSetNotFound");
    }

    #[test]
    fn a_cluster_keeps_the_namespaces_of_its_sets_and_what_is_said_of_them() {
        let set = |names: &[&str]| {
            Arc::new(SetView {
                namespaces: names.iter().map(ToString::to_string).collect(),
                ..SetView::of(&ManagedClusterSet::default())
            })
        };
        let sets = [
            ("a".to_owned(), set(&["two", "one"])),
            ("b".to_owned(), set(&["three"])),
        ];
        let mut cluster = ClusterView {
            labels: labelled(&[(labels::CLUSTER_SET, "a")]),
            ..ClusterView::default()
        };
        let mut wanted = namespaces(&cluster, &sets).unwrap();
        let pairs: Vec<_> = wanted
            .iter()
            .map(|one| (one.cluster_set.as_str(), one.name.as_str()))
            .collect();
        assert_eq!(pairs, [("a", "one"), ("a", "two")]);
        let said = set_condition(
            &mut wanted[0].conditions,
            NewCondition::new("NamespaceAvailable", true, "NamespaceApplied", ""),
            Timestamp::UNIX_EPOCH,
        );
        assert!(said);
        cluster.managed_namespaces = wanted.clone();
        assert_eq!(namespaces(&cluster, &sets), None);
        let fewer = [("a".to_owned(), set(&["one"]))];
        assert_eq!(namespaces(&cluster, &fewer), Some(vec![wanted[0].clone()]));
        cluster.labels.clear();
        assert_eq!(namespaces(&cluster, &sets), Some(vec![]));
    }

    #[test]
    fn only_labels_and_comings_and_goings_are_news_to_sets() {
        let seen = Seen::default();
        let mut cluster = ClusterView::default();
        assert!(seen.news("c", Some(&cluster)));
        cluster.resource_version = "2".to_owned();
        assert!(!seen.news("c", Some(&cluster)));
        cluster.labels = labelled(&[("a", "b")]);
        assert!(seen.news("c", Some(&cluster)));
        assert!(seen.news("c", None));
        assert!(!seen.news("c", None));
    }
}
