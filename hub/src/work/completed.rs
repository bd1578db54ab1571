//! Deletes works a time after they are complete (gate CleanUpCompletedManifestWork, ocm-wire §3.5).
//!
//! Of each work only what decides is read; what is kept is one line for each work that is complete and has a time, and a
//! timer for when that has passed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ObjectMeta, Preconditions},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use muster_crds::{
    conditions::find,
    constants::{conditions, labels},
    work::v1::ManifestWork,
};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, innermost},
    queue::{Next, Queue},
    writer::Writer,
};

/// A ManifestWork without what it embeds.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = ManifestWork)]
pub struct Outline {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    delete_option: Option<DeleteOption>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeleteOption {
    ttl_seconds_after_finished: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

/// A work that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    uid: String,
    resource_version: String,
    /// When.
    pub deadline: Timestamp,
}

/// Whether, and when, a work is to go. Not one that is complete only in an earlier generation, nor one that a
/// ManifestWorkReplicaSet made: that would make it again.
pub fn finished(work: &Outline) -> Option<Finished> {
    let metadata = &work.metadata;
    let ttl = work.spec.delete_option.as_ref()?.ttl_seconds_after_finished?;
    let owned = metadata
        .labels
        .as_ref()
        .is_some_and(|all| all.contains_key(labels::REPLICA_SET));
    if metadata.deletion_timestamp.is_some() || owned {
        return None;
    }
    let complete =
        find(&work.status.conditions, conditions::COMPLETE).filter(|complete| complete.status == "True")?;
    if let (Some(observed), Some(generation)) = (complete.observed_generation, metadata.generation)
        && observed < generation
    {
        return None;
    }
    let since = complete.last_transition_time.0;
    Some(Finished {
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        deadline: since
            .checked_add(SignedDuration::from_secs(ttl.max(0)))
            .unwrap_or(Timestamp::MAX),
    })
}

/// What the controller works with.
pub struct Context {
    works: Mutex<HashMap<Arc<str>, Finished>>,
    writer: Arc<Writer>,
}

impl Context {
    /// Nothing is known yet.
    pub fn new(writer: Arc<Writer>) -> Self {
        Self {
            works: Mutex::default(),
            writer,
        }
    }

    fn works(&self) -> MutexGuard<'_, HashMap<Arc<str>, Finished>> {
        self.works.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches all works until `stop`, through every interruption.
    pub async fn follow(&self, queue: &Queue, stop: CancellationToken) {
        let api = Api::<Outline>::all(self.writer.client());
        let stream = watcher::watcher(api, watcher::Config::default()).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let mut listed = HashMap::new();
        while let Some(Some(event)) = stop.run_until_cancelled(stream.next()).await {
            match event {
                Err(error) => {
                    tracing::debug!(error = %innermost(&error), "cannot watch for completed works; trying again");
                }
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(work)) => {
                    if let Some(finished) = finished(&work) {
                        listed.insert(key(&work), finished);
                    }
                }
                Ok(Event::InitDone) => {
                    let keys: Vec<Arc<str>> = listed.keys().cloned().collect();
                    *self.works() = std::mem::take(&mut listed);
                    for key in &keys {
                        queue.add(key);
                    }
                }
                Ok(Event::Apply(work)) => {
                    let key = key(&work);
                    if let Some(finished) = finished(&work) {
                        self.works().insert(key.clone(), finished);
                        queue.add(&key);
                    } else {
                        self.works().remove(&key);
                    }
                }
                Ok(Event::Delete(work)) => {
                    self.works().remove(&key(&work));
                }
            }
        }
    }

    /// Deletes a work whose time has come.
    pub async fn reconcile(&self, key: &str) -> Result<Next, Error> {
        let Some(finished) = self.works().get(key).cloned() else {
            return Ok(Next::Idle);
        };
        let Some((namespace, name)) = key.split_once('/') else {
            return Ok(Next::Idle);
        };
        let left = finished.deadline.duration_since(Timestamp::now());
        if left > SignedDuration::ZERO {
            return Ok(Next::After(left.try_into().unwrap_or_default()));
        }
        // Of what was seen, nothing may have changed: it may be complete no more.
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(finished.uid),
                resource_version: Some(finished.resource_version),
            }),
            ..DeleteParams::default()
        };
        let api = Api::<Outline>::namespaced(self.writer.client(), namespace);
        let request = api.delete(name, &parameters);
        match self
            .writer
            .bounded(format!("delete ManifestWork {key}"), request)
            .await
        {
            Ok(_) => tracing::info!(work = key, "deleted: its time after completion has passed"),
            Err(error) if error.status().is_some_and(|status| status.code == 404) => {}
            // The watch brings what it is now.
            Err(error) if error.is_conflict() => tracing::debug!(work = key, "it changed meanwhile"),
            Err(error) => return Err(error),
        }
        Ok(Next::Idle)
    }
}

fn key(work: &Outline) -> Arc<str> {
    format!("{}/{}", work.namespace().unwrap_or_default(), work.name_any()).into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn work(change: impl FnOnce(&mut Value)) -> Outline {
        let mut value = json!({
            "apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
            "metadata": {"name": "w", "namespace": "c1", "uid": "u", "resourceVersion": "7", "generation": 2},
            "spec": {"deleteOption": {"ttlSecondsAfterFinished": 30}, "workload": {"manifests": [{"kind": "Job"}]}},
            "status": {"conditions": [{"type": "Complete", "status": "True", "reason": "ConditionRulesAggregated",
                "message": "", "observedGeneration": 2, "lastTransitionTime": "1970-01-01T00:00:10Z"}]},
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_work_goes_a_time_after_it_is_complete_and_no_other() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change, Option<i64>); 11] = [
            ("complete", |_| {}, Some(40)),
            (
                "at once",
                |w| w["spec"]["deleteOption"]["ttlSecondsAfterFinished"] = json!(0),
                Some(10),
            ),
            (
                "no time",
                |w| w["spec"]["deleteOption"] = json!({"propagationPolicy": "Orphan"}),
                None,
            ),
            ("no option", |w| w["spec"] = json!({}), None),
            (
                "not complete",
                |w| w["status"]["conditions"][0]["status"] = json!("False"),
                None,
            ),
            ("unknown", |w| w["status"]["conditions"] = json!([]), None),
            ("no status", |w| w["status"] = json!({}), None),
            (
                "complete in an earlier generation",
                |w| w["metadata"]["generation"] = json!(3),
                None,
            ),
            (
                "no generation said",
                |w| {
                    w["status"]["conditions"][0]
                        .as_object_mut()
                        .unwrap()
                        .remove("observedGeneration");
                },
                Some(40),
            ),
            (
                "of a replica set",
                |w| {
                    w["metadata"]["labels"] =
                        json!({"work.open-cluster-management.io/manifestworkreplicaset": "ns.rs"});
                },
                None,
            ),
            (
                "going already",
                |w| w["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
                None,
            ),
        ];
        for (what, change, wanted) in cases {
            let deadline = finished(&work(change)).map(|finished| finished.deadline.as_second());
            assert_eq!(deadline, wanted, "{what}");
        }
        let for_ever = work(|w| w["spec"]["deleteOption"]["ttlSecondsAfterFinished"] = json!(i64::MAX));
        assert_eq!(finished(&for_ever).unwrap().deadline, Timestamp::MAX);
    }
}
