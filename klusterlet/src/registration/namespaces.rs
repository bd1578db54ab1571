//! Managed namespaces (wire §2.7): the hub says which namespaces its cluster sets want on the cluster; the agent makes and
//! labels them, and says so. It never deletes one: a namespace that is no longer wanted gets the label's value `false`.

use super::facts;
use super::session::Shared;
use crate::work::objects::{self, RequestError};
use crate::work::{self, Backoff};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use muster_crds::cluster::v1::{ManagedCluster, ManagedClusterStatus};
use muster_crds::conditions::{NewCondition, set_condition};
use muster_crds::constants::{conditions as types, labels, reasons};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// The label on namespaces managed for the hub at this URL.
pub fn label(hub_url: &str) -> String {
    let hash: String = work::hub_hash(hub_url).chars().take(63).collect();
    format!("{}{hash}", labels::CLUSTER_SET_NAMESPACE_PREFIX)
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Make or label these `true`.
    pub manage: Vec<String>,
    /// Label these `false`.
    pub release: Vec<String>,
}

/// Decides from what the hub wants and the namespaces that carry the label, with whether it is `true`.
pub fn plan(cluster: &ManagedCluster, labelled: &BTreeMap<String, bool>) -> Plan {
    let leaving = cluster.metadata.deletion_timestamp.is_some();
    let wanted: BTreeSet<&str> = cluster
        .status
        .iter()
        .filter(|_| !leaving)
        .flat_map(|s| &s.managed_namespaces)
        .map(|n| n.name.as_str())
        .collect();
    Plan {
        manage: wanted
            .iter()
            .filter(|n| labelled.get(**n) != Some(&true))
            .map(|n| (*n).to_owned())
            .collect(),
        release: labelled
            .iter()
            .filter(|(name, on)| **on && !wanted.contains(name.as_str()))
            .map(|(name, _)| name.clone())
            .collect(),
    }
}

/// Writes NamespaceAvailable for every namespace whose outcome is known: nothing, or the problem.
pub fn report(
    status: &mut ManagedClusterStatus,
    outcomes: &BTreeMap<String, Option<String>>,
    now: Timestamp,
) {
    for namespace in &mut status.managed_namespaces {
        let condition = match outcomes.get(&namespace.name) {
            None => continue,
            Some(None) => NewCondition::new(
                types::NAMESPACE_AVAILABLE,
                true,
                reasons::NAMESPACE_APPLIED,
                "The namespace is there and labelled",
            ),
            Some(Some(problem)) => NewCondition::new(
                types::NAMESPACE_AVAILABLE,
                false,
                reasons::NAMESPACE_APPLY_FAILED,
                problem.as_str(),
            ),
        };
        set_condition(&mut namespace.conditions, condition, now);
    }
}

/// The labelled namespaces as last seen, and how each wanted one came out.
#[derive(Debug, Default)]
pub struct Namespaces {
    labelled: Mutex<Option<BTreeMap<String, bool>>>,
    outcomes: Mutex<BTreeMap<String, Option<String>>>,
    changed: Notify,
}

impl Namespaces {
    /// How each came out: nothing, or the problem.
    pub fn outcomes(&self) -> BTreeMap<String, Option<String>> {
        self.outcomes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn labelled(&self) -> Option<BTreeMap<String, bool>> {
        self.labelled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Learns from a write, before the watch says the same.
    fn known(&self, name: &str, on: bool) {
        let mut labelled = self.labelled.lock().unwrap_or_else(PoisonError::into_inner);
        labelled.get_or_insert_default().insert(name.to_owned(), on);
    }

    /// Follows the namespaces that carry the label, for ever.
    async fn follow(&self, spoke: Client, label: &str) {
        let api: Api<Namespace> = Api::all(spoke);
        let read = |n: &Namespace| {
            // One that is being deleted is as good as gone: it must be made again.
            let going = n.metadata.deletion_timestamp.is_some();
            let value = n.labels().get(label).filter(|_| !going)?;
            Some((n.name_any(), value == "true"))
        };
        let config = watcher::Config::default().labels(label);
        facts::follow(api, config, read, &self.labelled, &self.changed).await;
    }
}

/// Keeps the namespaces as the hub wants them, for ever.
pub async fn keep(shared: Arc<Shared>) {
    let label = label(&shared.url);
    let spoke = shared.context.spoke.client.clone();
    tokio::join!(shared.namespaces.follow(spoke, &label), tend(&shared, &label));
}

async fn tend(shared: &Shared, label: &str) {
    let mut cluster = shared.cluster.subscribe();
    let namespaces = &shared.namespaces;
    let mut backoff = Backoff::default();
    loop {
        let current = cluster.borrow_and_update().clone();
        let mut failed = false;
        if let (Some(current), Some(labelled)) = (current, namespaces.labelled()) {
            let plan = plan(&current, &labelled);
            let mut outcomes: BTreeMap<String, Option<String>> = labelled
                .iter()
                .filter(|(_, on)| **on)
                .map(|(name, _)| (name.clone(), None))
                .collect();
            for name in &plan.manage {
                let problem = manage(&shared.context.spoke.client, name, label).await.err();
                if problem.is_none() {
                    namespaces.known(name, true);
                }
                failed |= problem.is_some();
                outcomes.insert(name.clone(), problem);
            }
            for name in &plan.release {
                match set(&shared.context.spoke.client, name, label, "false").await {
                    Err(error) if !error.is_not_found() => {
                        tracing::warn!(namespace = name, %error, "the namespace is no longer managed, but its label can not be changed");
                        failed = true;
                    }
                    _ => {
                        namespaces.known(name, false);
                        tracing::info!(namespace = name, "the namespace is no longer managed; it stays");
                    }
                }
            }
            let moved = {
                let mut known = namespaces.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                let moved = *known != outcomes;
                *known = outcomes;
                moved
            };
            if moved {
                shared.refresh.notify_one();
            }
        }
        if failed {
            tokio::select! {
                () = backoff.wait() => {}
                () = namespaces.changed.notified() => {}
            }
        } else {
            backoff = Backoff::default();
            tokio::select! {
                changed = cluster.changed() => if changed.is_err() { return },
                () = namespaces.changed.notified() => {}
            }
        }
    }
}

async fn set(
    spoke: &Client,
    name: &str,
    label: &str,
    value: &str,
) -> Result<serde_json::Value, RequestError> {
    let patch = json!({"metadata": {"labels": {label: value}}});
    objects::merge(spoke, &format!("/api/v1/namespaces/{name}"), &patch).await
}

async fn manage(spoke: &Client, name: &str, label: &str) -> Result<(), String> {
    let made = match set(spoke, name, label, "true").await {
        Err(error) if error.is_not_found() => {
            let object = json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": {label: "true"}}});
            objects::create(spoke, "/api/v1/namespaces", &object).await
        }
        other => other,
    };
    match made {
        Ok(namespace) if namespace["metadata"]["deletionTimestamp"].is_null() => Ok(()),
        Ok(_) => Err(format!("namespace {name} is being deleted")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(wanted: &[&str], leaving: bool) -> ManagedCluster {
        let list: Vec<_> = wanted
            .iter()
            .map(|n| json!({"name": n, "clusterSet": "s"}))
            .collect();
        let mut metadata = json!({"name": "c1"});
        if leaving {
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        serde_json::from_value(
            json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
            "metadata": metadata, "spec": {}, "status": {"managedNamespaces": list}}),
        )
        .unwrap()
    }

    /// Wanted, leaving, labelled; to manage, to release.
    type Case = (
        &'static [&'static str],
        bool,
        &'static [(&'static str, bool)],
        &'static [&'static str],
        &'static [&'static str],
    );

    #[test]
    fn plans() {
        let cases: [Case; 6] = [
            (&[], false, &[], &[], &[]),
            (&["b", "a", "a"], false, &[], &["a", "b"], &[]),
            (&["a"], false, &[("a", true)], &[], &[]),
            (
                &["a"],
                false,
                &[("a", false), ("b", true), ("c", false)],
                &["a"],
                &["b"],
            ),
            (&[], false, &[("a", true)], &[], &["a"]),
            (&["a", "b"], true, &[("a", true)], &[], &["a"]),
        ];
        for (wanted, leaving, labelled, manage, release) in cases {
            let labelled = labelled.iter().map(|(n, on)| ((*n).to_owned(), *on)).collect();
            let plan = plan(&cluster(wanted, leaving), &labelled);
            assert_eq!(
                (&plan.manage[..], &plan.release[..]),
                (
                    &manage.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..],
                    &release.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]
                ),
                "{wanted:?} {labelled:?}"
            );
        }
    }

    #[test]
    fn outcomes_are_told_once() {
        let mut status = cluster(&["a", "b", "c"], false).status.unwrap();
        let outcomes = BTreeMap::from([("a".to_owned(), None), ("b".to_owned(), Some("no".to_owned()))]);
        report(&mut status, &outcomes, Timestamp::UNIX_EPOCH);
        let told: Vec<_> = status
            .managed_namespaces
            .iter()
            .map(|n| {
                n.conditions
                    .first()
                    .map(|c| (c.status.as_str(), c.reason.as_str(), c.message.as_str()))
            })
            .collect();
        assert_eq!(
            told,
            [
                Some(("True", "NamespaceApplied", "The namespace is there and labelled")),
                Some(("False", "NamespaceApplyFailed", "no")),
                None
            ]
        );
        let before = status.clone();
        report(&mut status, &outcomes, Timestamp::from_second(99).unwrap());
        assert_eq!(status, before, "nothing changed");
    }

    #[test]
    fn the_label_is_one() {
        let label = label("https://127.0.0.1:6443");
        let (prefix, name) = label.split_once('/').unwrap();
        assert_eq!(
            (prefix, name.len()),
            ("clusterset.open-cluster-management.io", 63)
        );
    }
}
