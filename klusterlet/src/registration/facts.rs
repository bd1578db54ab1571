//! What the managed cluster says of itself: health, version, nodes, claims. Nodes and claims are watched; only what is
//! summed up of them is kept.

use super::quantity::Sum;
use crate::gates::{Gate, Gates};
use crate::work::Backoff;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::Api;
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use muster_crds::about::v1alpha1::ClusterProperty;
use muster_crds::cluster::v1::ManagedClusterClaim;
use muster_crds::cluster::v1alpha1::ClusterClaim;
use muster_crds::constants::{labels, names::RESERVED_CLAIMS};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// The part of a node that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    capacity: BTreeMap<String, String>,
    allocatable: BTreeMap<String, String>,
    schedulable: bool,
}

impl NodeFacts {
    fn of(node: &Node) -> Self {
        let texts = |list: Option<&BTreeMap<String, Quantity>>| {
            list.into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.0.clone()))
                .collect()
        };
        let status = node.status.as_ref();
        Self {
            capacity: texts(status.and_then(|s| s.capacity.as_ref())),
            allocatable: texts(status.and_then(|s| s.allocatable.as_ref())),
            schedulable: !node
                .spec
                .as_ref()
                .and_then(|s| s.unschedulable)
                .unwrap_or_default(),
        }
    }
}

/// Capacity of all nodes, allocatable of the schedulable ones (wire §2.7).
pub fn resources<'a>(
    nodes: impl Iterator<Item = &'a NodeFacts> + Clone,
) -> (BTreeMap<String, Quantity>, BTreeMap<String, Quantity>) {
    let sum = |lists: &mut dyn Iterator<Item = &'a BTreeMap<String, String>>| {
        let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
        for (name, text) in lists.flatten() {
            sums.entry(name.clone()).or_default().add(text);
        }
        sums.into_iter().map(|(k, s)| (k, Quantity(s.text()))).collect()
    };
    let capacity = sum(&mut nodes.clone().map(|n| &n.capacity));
    let allocatable = sum(&mut nodes.filter(|n| n.schedulable).map(|n| &n.allocatable));
    (capacity, allocatable)
}

/// Claims to report: reserved ones always, custom ones up to the limit, each sorted (wire §2.7).
pub fn claims(
    all: &BTreeMap<String, String>,
    reserved_suffixes: &[String],
    limit: usize,
) -> (Vec<ManagedClusterClaim>, usize) {
    let reserved = |name: &str| {
        RESERVED_CLAIMS.contains(&name)
            || reserved_suffixes
                .iter()
                .any(|s| !s.is_empty() && name.ends_with(s.as_str()))
    };
    let claim = |(name, value): (&String, &String)| ManagedClusterClaim {
        name: name.clone(),
        value: value.clone(),
    };
    let mut list: Vec<_> = all.iter().filter(|(n, _)| reserved(n)).map(claim).collect();
    let custom = all.iter().filter(|(n, _)| !reserved(n));
    let count = custom.clone().count();
    let kept = if limit == 0 { count } else { count.min(limit) };
    list.extend(custom.take(kept).map(claim));
    (list, count - kept)
}

/// Claims longer than the ManagedCluster's schema takes would spoil its whole status.
const MAX_CLAIM: usize = 1024;

/// Claims and properties under one name once: the property counts (wire §2.7). And the names of what is too long to be told.
pub fn merged(
    claims: Option<&BTreeMap<String, String>>,
    properties: Option<&BTreeMap<String, String>>,
) -> (BTreeMap<String, String>, Vec<String>) {
    let mut all = claims.cloned().unwrap_or_default();
    all.extend(
        properties
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone())),
    );
    let mut long = Vec::new();
    all.retain(|name, value| {
        let fits = value.chars().count() <= MAX_CLAIM;
        if !fits {
            long.push(name.clone());
        }
        fits
    });
    (all, long)
}

/// Nodes and claims as last seen. `None` while a list is not complete, or may not be read.
#[derive(Debug, Default)]
pub struct Facts {
    nodes: Mutex<Option<BTreeMap<String, NodeFacts>>>,
    claims: Mutex<Option<BTreeMap<String, String>>>,
    properties: Mutex<Option<BTreeMap<String, String>>>,
    /// Claims that are too long, and how many are too many, as last told.
    left_out: Mutex<(Vec<String>, usize)>,
    changed: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Facts {
    /// Returns when something changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Capacity and allocatable, once the nodes are known.
    pub fn resources(&self) -> Option<(BTreeMap<String, Quantity>, BTreeMap<String, Quantity>)> {
        locked(&self.nodes)
            .as_ref()
            .map(|nodes| resources(nodes.values()))
    }

    /// The claims to report, once everything the gates ask for is known. What is left out of them is told when it changes.
    pub fn claims(
        &self,
        gates: Gates,
        suffixes: &[String],
        limit: usize,
    ) -> Option<Vec<ManagedClusterClaim>> {
        let claims_known = locked(&self.claims);
        let properties_known = locked(&self.properties);
        let missing = (gates.on(Gate::ClusterClaim) && claims_known.is_none())
            || (gates.on(Gate::ClusterProperty) && properties_known.is_none());
        (!missing).then(|| {
            let (all, long) = merged(claims_known.as_ref(), properties_known.as_ref());
            let (list, many) = claims(&all, suffixes, limit);
            self.leave_out(long, many);
            list
        })
    }

    fn leave_out(&self, long: Vec<String>, many: usize) {
        let mut told = locked(&self.left_out);
        if *told == (long.clone(), many) {
            return;
        }
        if !long.is_empty() {
            let names = long.join(", ");
            tracing::warn!(
                names,
                "claims that are longer than {MAX_CLAIM} characters are not reported"
            );
        }
        if many > 0 {
            tracing::warn!(
                left_out = many,
                "there are more custom ClusterClaims than --max-custom-cluster-claims allows"
            );
        }
        *told = (long, many);
    }

    /// Follows the nodes, for ever.
    pub async fn follow_nodes(self: Arc<Self>, spoke: Client) {
        let api: Api<Node> = Api::all(spoke);
        let read = |node: &Node| Some((node.name_any(), NodeFacts::of(node)));
        let everything = watcher::Config::default();
        follow(api, everything, read, &self.nodes, &self.changed).await;
    }

    /// Follows the ClusterClaims, for ever.
    pub async fn follow_claims(self: Arc<Self>, spoke: Client) {
        let api: Api<ClusterClaim> = Api::all(spoke);
        let read = |claim: &ClusterClaim| {
            let spoke_only = claim.labels().contains_key(labels::SPOKE_ONLY);
            let value = claim.spec.value.clone();
            (!spoke_only && !value.is_empty()).then(|| (claim.name_any(), value))
        };
        let everything = watcher::Config::default();
        follow(api, everything, read, &self.claims, &self.changed).await;
    }

    /// Follows the ClusterProperties, for ever.
    pub async fn follow_properties(self: Arc<Self>, spoke: Client) {
        let api: Api<ClusterProperty> = Api::all(spoke);
        let read = |property: &ClusterProperty| {
            let spoke_only = property.labels().contains_key(labels::SPOKE_ONLY);
            let value = property.spec.value.clone();
            (!spoke_only && !value.is_empty()).then(|| (property.name_any(), value))
        };
        let everything = watcher::Config::default();
        follow(api, everything, read, &self.properties, &self.changed).await;
    }
}

/// Follows objects of one kind for ever, keeping what `read` takes of each. `None` there until the list is complete.
pub async fn follow<K, V: PartialEq>(
    api: Api<K>,
    config: watcher::Config,
    read: impl Fn(&K) -> Option<(String, V)>,
    into: &Mutex<Option<BTreeMap<String, V>>>,
    changed: &Notify,
) where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut events = Box::pin(watcher(api, config));
    let mut backoff = Backoff::default();
    let mut fresh = BTreeMap::new();
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "the cluster's own facts can not be watched, it goes on");
                backoff.wait().await;
                continue;
            }
        };
        // Every try begins with Init, also one that is refused.
        if !matches!(event, watcher::Event::Init) {
            backoff = Backoff::default();
        }
        let moved = match event {
            watcher::Event::Init => {
                fresh.clear();
                false
            }
            watcher::Event::InitApply(object) => {
                fresh.extend(read(&object));
                false
            }
            watcher::Event::InitDone => {
                let complete = Some(std::mem::take(&mut fresh));
                let mut known = locked(into);
                let moved = *known != complete;
                *known = complete;
                moved
            }
            watcher::Event::Apply(object) => {
                let mut known = locked(into);
                let map = known.get_or_insert_default();
                match read(&object) {
                    Some((name, facts)) if map.get(&name) == Some(&facts) => false,
                    Some((name, facts)) => {
                        map.insert(name, facts);
                        true
                    }
                    None => map.remove(&object.name_any()).is_some(),
                }
            }
            watcher::Event::Delete(object) => locked(into)
                .get_or_insert_default()
                .remove(&object.name_any())
                .is_some(),
        };
        if moved {
            changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(cpu: &str, schedulable: bool) -> NodeFacts {
        let cpu = BTreeMap::from([("cpu".to_owned(), cpu.to_owned())]);
        NodeFacts {
            capacity: cpu.clone(),
            allocatable: cpu,
            schedulable,
        }
    }

    #[test]
    fn unschedulable_nodes_have_capacity_but_nothing_allocatable() {
        let nodes = [node("4", true), node("4", false)];
        let (capacity, allocatable) = resources(nodes.iter());
        assert_eq!(
            (capacity["cpu"].0.as_str(), allocatable["cpu"].0.as_str()),
            ("8", "4")
        );
    }

    #[test]
    fn properties_come_before_claims_of_the_same_name() {
        let map = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
        };
        let long = "x".repeat(MAX_CLAIM + 1);
        let all = merged(
            Some(&map(&[("a", "claim"), ("b", "claim")])),
            Some(&map(&[("b", "property"), ("long", &long)])),
        );
        let told = map(&[("a", "claim"), ("b", "property")]);
        assert_eq!(all, (told, vec!["long".to_owned()]));
    }

    #[test]
    fn claims_wait_for_all_that_the_gates_ask_for() {
        let facts = Facts::default();
        let both = Gates::parse(&["ClusterProperty=true".into()]).unwrap();
        let none = Gates::parse(&["ClusterClaim=false".into()]).unwrap();
        assert_eq!(facts.claims(none, &[], 0), Some(Vec::new()));
        assert_eq!(facts.claims(Gates::default(), &[], 0), None);
        *locked(&facts.claims) = Some(BTreeMap::new());
        assert!(facts.claims(Gates::default(), &[], 0).is_some());
        assert_eq!(facts.claims(both, &[], 0), None);
    }

    #[test]
    fn reserved_claims_are_never_cut() {
        let all: BTreeMap<String, String> = ["a", "b", "c", "id.k8s.io", "x.keep.me"]
            .map(|n| (n.to_owned(), "v".to_owned()))
            .into();
        let names = |limit| {
            let (list, left_out) = claims(&all, &["keep.me".to_owned()], limit);
            (
                list.into_iter().map(|c| c.name).collect::<Vec<_>>().join(" "),
                left_out,
            )
        };
        assert_eq!(names(2), ("id.k8s.io x.keep.me a b".into(), 1));
        assert_eq!(names(0), ("id.k8s.io x.keep.me a b c".into(), 0));
    }
}
