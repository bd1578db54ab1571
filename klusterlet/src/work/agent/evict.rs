//! AppliedManifestWorks whose work is gone from the hub: kept for a grace period, then removed (wire §3.7, law 3).

use super::{Agent, ReconcileError};
use crate::work::{applied, dry_run, objects};
use jiff::Timestamp;
use kube::ResourceExt as _;
use muster_crds::conditions::is_true;
use muster_crds::constants::conditions;
use muster_crds::work::v1::AppliedManifestWork;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// A run looks at least this long before it removes anything for a grace period that began before it.
const SETTLING: Duration = Duration::from_secs(60);

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
        let missed = {
            let mut state = self.state();
            if work_known {
                state.missing.remove(name);
                Duration::ZERO
            } else {
                let since = state.missing.entry(name.to_owned()).or_insert_with(Instant::now);
                since.elapsed()
            }
        };
        let started = applied
            .status
            .as_ref()
            .and_then(|s| s.eviction_start_time.clone());
        match evict(
            work_known,
            started.map(|t| t.0),
            Timestamp::now(),
            self.settings.eviction_grace,
            missed,
        ) {
            Eviction::None => Ok(None),
            Eviction::Clear if !self.is_judged(&applied) => Err(ReconcileError::NotYet(
                "whether its work is the one that it was is not known yet".into(),
            )),
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

    /// Whether the work of a record was looked at since it is back, or need not be: that it was gone is not forgotten before.
    fn is_judged(&self, applied: &AppliedManifestWork) -> bool {
        let (state, name) = (self.state(), &applied.spec.manifest_work_name);
        let Some(known) = state.works.get(name) else {
            return true;
        };
        let judged = state.told.get(name).map(|told| told.uid.as_str()) == known.work.metadata.uid.as_deref();
        judged || dry_run::is_stopped(&known.work) || is_true(&known.status.conditions, conditions::COMPLETE)
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
        self.learn_applied(answer)?;
        self.evictions.notify_one();
        Ok(())
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

/// `missed`: how long this run has missed the work. One that starts long after the grace period began does not take the
/// hub's first answer for all that there was in between.
fn evict(
    work_known: bool,
    started: Option<Timestamp>,
    now: Timestamp,
    grace: Duration,
    missed: Duration,
) -> Eviction {
    match (work_known || grace >= FOR_EVER, started) {
        (true, None) => Eviction::None,
        (true, Some(_)) => Eviction::Clear,
        (false, None) => Eviction::Start(now),
        (false, Some(start)) => {
            let elapsed = Duration::try_from(now.duration_since(start)).unwrap_or_default();
            let left = grace
                .saturating_sub(elapsed)
                .max(grace.min(SETTLING).saturating_sub(missed));
            if left.is_zero() {
                Eviction::Now
            } else {
                Eviction::Wait(left)
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
        let wait = |s| Eviction::Wait(Duration::from_secs(s));
        let cases = [
            (true, None, 0, Eviction::None),
            (true, Some(at(0)), 0, Eviction::Clear),
            (false, None, 0, Eviction::Start(at(100))),
            (false, Some(at(90)), 10, wait(50)),
            (false, Some(at(40)), 60, Eviction::Now),
            (false, Some(at(0)), 99, Eviction::Now),
            // It was missed before this run, and nobody knows what was in between.
            (false, Some(at(0)), 0, wait(60)),
            (false, Some(at(0)), 59, wait(1)),
            // A clock that was set back.
            (false, Some(at(500)), 99, wait(60)),
        ];
        for (known, started, missed, expected) in cases {
            let found = evict(known, started, at(100), grace, Duration::from_secs(missed));
            assert_eq!(found, expected, "{known} {started:?} {missed}");
        }
        let hour = Duration::from_secs(3600);
        assert_eq!(evict(false, Some(at(-3000)), at(0), hour, SETTLING), wait(600));
        assert_eq!(
            evict(false, Some(at(-9000)), at(0), hour, SETTLING),
            Eviction::Now
        );
    }

    #[test]
    fn a_hundred_years_are_for_ever() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        assert_eq!(
            evict(false, None, at(1), FOR_EVER, Duration::ZERO),
            Eviction::None
        );
        assert_eq!(
            evict(false, Some(at(0)), at(1), FOR_EVER, Duration::ZERO),
            Eviction::Clear
        );
    }
}
