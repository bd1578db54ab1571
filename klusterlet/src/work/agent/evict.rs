//! AppliedManifestWorks whose work is gone from the hub: kept for a grace period, then removed (wire §3.7, law 3).

use super::{Agent, ReconcileError};
use crate::work::{applied, objects};
use jiff::Timestamp;
use kube::ResourceExt as _;
use muster_crds::work::v1::AppliedManifestWork;
use serde_json::json;
use std::time::Duration;

impl Agent {
    /// An AppliedManifestWork changed, or the work it belongs to vanished.
    pub(super) async fn reconcile_applied(&self, name: &str) -> Result<Option<Duration>, ReconcileError> {
        let (applied, work_known, synced) = {
            let state = self.state();
            let Some(applied) = state.applied.get(name).cloned() else {
                return Ok(None);
            };
            let ours = applied.spec.hub_hash == self.settings.hub_hash;
            let known = ours && state.works.contains_key(&applied.spec.manifest_work_name);
            (applied, known, state.hub_synced)
        };
        if applied.metadata.deletion_timestamp.is_some() {
            if work_known {
                // The work's own reconcile sees to it, or makes the record again afterwards.
                let deleting = self
                    .state()
                    .works
                    .get(&applied.spec.manifest_work_name)
                    .is_some_and(|w| w.work.metadata.deletion_timestamp.is_some());
                if deleting {
                    return Ok(None);
                }
            }
            return if self.finalize_applied(&applied).await? {
                Ok(None)
            } else {
                Err(ReconcileError::NotYet(
                    "its objects are still being deleted".into(),
                ))
            };
        }
        if !synced {
            return Ok(None);
        }
        let started = applied
            .status
            .as_ref()
            .and_then(|s| s.eviction_start_time.clone());
        match evict(
            work_known,
            started.map(|t| t.0),
            Timestamp::now(),
            self.settings.eviction_grace,
        ) {
            Eviction::None => Ok(None),
            Eviction::Clear => self.set_eviction(&applied, None).await.map(|()| None),
            Eviction::Start(now) => {
                tracing::info!(
                    applied = name,
                    "its work is gone from the hub; what it applied stays for the grace period"
                );
                self.set_eviction(&applied, Some(now)).await?;
                Ok(Some(self.settings.eviction_grace))
            }
            Eviction::Wait(left) => Ok(Some(left)),
            Eviction::Now => {
                tracing::info!(
                    applied = name,
                    "the grace period is over: removing what it applied"
                );
                self.delete_applied(&applied).await.map(|()| None)
            }
        }
    }

    pub(super) async fn set_eviction(
        &self,
        applied: &AppliedManifestWork,
        start: Option<Timestamp>,
    ) -> Result<(), ReconcileError> {
        let start = start.map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
        let patch =
            json!({"metadata": {"uid": applied.metadata.uid}, "status": {"evictionStartTime": start}});
        let path = format!("{}/{}/status", applied::PATH, applied.name_any());
        let answer = objects::merge(&self.spoke, &path, &patch)
            .await
            .map_err(ReconcileError::Spoke)?;
        self.learn_applied(answer).map(|_| ())
    }
}

/// A grace period from which on nothing is evicted (wire §3.7).
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What to do about an AppliedManifestWork whose work may be gone.
#[derive(Debug, PartialEq)]
enum Eviction {
    None,
    Clear,
    Start(Timestamp),
    Wait(Duration),
    Now,
}

fn evict(work_known: bool, started: Option<Timestamp>, now: Timestamp, grace: Duration) -> Eviction {
    match (work_known || grace >= FOR_EVER, started) {
        (true, None) => Eviction::None,
        (true, Some(_)) => Eviction::Clear,
        (false, None) => Eviction::Start(now),
        (false, Some(start)) => {
            let elapsed = Duration::try_from(now.duration_since(start)).unwrap_or_default();
            if elapsed >= grace {
                Eviction::Now
            } else {
                Eviction::Wait(grace.saturating_sub(elapsed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eviction_waits_for_the_grace_period() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let grace = Duration::from_secs(60);
        let cases = [
            (true, None, Eviction::None),
            (true, Some(at(0)), Eviction::Clear),
            (false, None, Eviction::Start(at(100))),
            (false, Some(at(90)), Eviction::Wait(Duration::from_secs(50))),
            (false, Some(at(40)), Eviction::Now),
            (false, Some(at(0)), Eviction::Now),
        ];
        for (known, started, expected) in cases {
            assert_eq!(evict(known, started, at(100), grace), expected);
        }
    }

    #[test]
    fn a_hundred_years_are_for_ever() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        assert_eq!(evict(false, None, at(1), FOR_EVER), Eviction::None);
        assert_eq!(evict(false, Some(at(0)), at(1), FOR_EVER), Eviction::Clear);
    }
}
