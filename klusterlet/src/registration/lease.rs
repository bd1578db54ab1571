//! The lease by which the hub knows that the agent lives (wire §2.6).

use super::register;
use super::session::{News, Shared, is_accepted};
use super::trouble::{Lasting, Matter};
use crate::work::objects::{self, RequestError};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use muster_crds::cluster::v1::ManagedCluster;
use muster_crds::conditions::is_unknown;
use muster_crds::constants::conditions as types;
use muster_crds::constants::{annotations, names::CLUSTER_LEASE, names::DEFAULT_LEASE_DURATION};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often the lease is renewed.
pub fn period(cluster: Option<&ManagedCluster>) -> Duration {
    let seconds = cluster.and_then(|c| c.spec.lease_duration_seconds).unwrap_or(0);
    match u64::try_from(seconds) {
        Ok(seconds @ 1..) => Duration::from_secs(seconds),
        _ => DEFAULT_LEASE_DURATION,
    }
}

/// Writes a renewal into the lease. Where the clocks differ by more than the lease lasts, a hub that compares the renewal with
/// its own clock would take a living cluster for lost, or a lost one for living: then the time is the hub's, and an annotation
/// says by how much the cluster's differs.
pub fn renewed(lease: &mut Value, here: Timestamp, offset: SignedDuration, period: Duration) {
    let correct = offset.unsigned_abs() > period;
    let time = if correct {
        here.checked_add(offset).unwrap_or(here)
    } else {
        here
    };
    lease["spec"]["renewTime"] = json!(MicroTime(time));
    lease["spec"]["holderIdentity"] = CLUSTER_LEASE.into();
    if correct {
        lease["metadata"]["annotations"][annotations::CLOCK_OFFSET] = offset.as_secs().to_string().into();
    } else if let Some(list) = lease["metadata"]["annotations"].as_object_mut() {
        list.remove(annotations::CLOCK_OFFSET);
    }
}

/// What a renewal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The hub took it.
    Done,
    /// There is no lease: the hub makes it after it accepted the cluster, and shortly afterwards it is there.
    NotYet,
    /// It did not.
    Failed,
    /// It has no room to store it.
    NoRoom,
}

/// What the hub does not take for this many periods is told on the cluster. A hub that counts by Muster's factor misses the
/// cluster soon afterwards.
pub const PATIENCE_IN_PERIODS: u32 = 2;

/// So often a renewal is tried anew at once because somebody else wrote the lease.
const CONFLICTS: usize = 3;

/// Whether the hub says that nothing was heard of the cluster.
pub fn is_missed(cluster: &ManagedCluster) -> bool {
    let conditions = cluster.status.as_ref().map_or(&[][..], |s| &s.conditions);
    is_unknown(conditions, types::CLUSTER_AVAILABLE)
}

/// Since when the hub says so, by what is seen of the cluster now.
pub fn missed_since(before: Option<Instant>, cluster: &ManagedCluster, now: Instant) -> Option<Instant> {
    is_missed(cluster).then(|| before.unwrap_or(now))
}

/// Whether the status may be told: a cluster that was missed is available only once it was heard of since. Told before, the
/// hub would take it back at once.
pub fn may_tell(missed: Option<Instant>, heard: Instant) -> bool {
    missed.is_none_or(|missed| heard > missed)
}

/// How long to wait after a renewal, spread by a `share` from 0 to 1 (wire §2.6). One that failed is tried again so soon that it
/// alone never makes the cluster one that is missed.
pub fn rest(renewal: Renewal, period: Duration, share: f64) -> Duration {
    match renewal {
        Renewal::Done => period.mul_f64(1.0 + share / 4.0),
        Renewal::NotYet => Duration::from_secs_f64(0.1 * (1.0 + share)).min(period),
        Renewal::Failed => Duration::from_secs_f64(2.0 * (1.0 + share)).min(period),
        Renewal::NoRoom => Duration::from_secs_f64(8.0 * (1.0 + share)).min(period),
    }
}

/// Renews while the hub accepts the cluster, for ever.
pub async fn keep(shared: Arc<Shared>) {
    let mut cluster = shared.cluster.subscribe();
    let mut known: Option<Lease> = None;
    let mut no_room = false;
    let mut failing = Lasting::default();
    loop {
        let accepted = |c: &Option<Arc<ManagedCluster>>| c.as_ref().is_some_and(|c| is_accepted(c));
        if !accepted(&cluster.borrow()) {
            // Nothing is renewed then, and why is told elsewhere.
            failing.over();
            shared.context.trouble.over(Matter::Lease);
        }
        let period = match cluster.wait_for(accepted).await {
            Ok(cluster) => period(cluster.as_deref()),
            Err(_) => return,
        };
        let mut was_missed = cluster.borrow().as_deref().is_some_and(is_missed);
        let answer = renew(&shared, known.take(), period).await;
        shared.tell(News::Pulse);
        let next = match answer {
            Ok(lease) => {
                let told = failing.over();
                if std::mem::take(&mut no_room) {
                    tracing::info!("the hub takes writes again");
                } else if told {
                    tracing::info!("the hub takes renewals of the lease again");
                }
                shared.context.trouble.works();
                known = Some(lease);
                shared.heard.send_replace(tokio::time::Instant::now());
                shared.tell(News::Heard);
                rest(Renewal::Done, period, rand::random())
            }
            Err(error) => {
                tracing::debug!(%error, "the lease was not renewed");
                // Everything that is told to the hub fails then; it is said once, here.
                if error.is_no_room() && !std::mem::replace(&mut no_room, true) {
                    tracing::warn!(
                        %error,
                        "the hub has no room to store anything: this cluster will be taken for lost; works stay as they \
                         are, and what becomes of them is told when there is room. The hub's operator has to make some"
                    );
                }
                if let Some((lasted, first)) = failing.failed(Instant::now(), PATIENCE_IN_PERIODS * period) {
                    shared.not_renewed(&error, lasted, first && !no_room);
                }
                let renewal = match &error {
                    error if error.is_not_found() => Renewal::NotYet,
                    error if error.is_no_room() => Renewal::NoRoom,
                    _ => Renewal::Failed,
                };
                rest(renewal, period, rand::random())
            }
        };
        let deadline = tokio::time::Instant::now() + next;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => break,
                changed = cluster.changed() => {
                    if changed.is_err() { return; }
                    let now = cluster.borrow_and_update();
                    let missed = now.as_deref().is_some_and(is_missed);
                    // Once for each time that it is missed.
                    let newly = missed && !was_missed;
                    was_missed = missed;
                    if newly || self::period(now.as_deref()) != period { break; }
                }
            }
        }
    }
}

impl Shared {
    /// Renewals have failed for so long that somebody has to look.
    fn not_renewed(&self, error: &RequestError, lasted: Duration, is_news: bool) {
        let problem = format!(
            "the hub {} has taken no renewal of the lease of cluster {} for {} s and takes it for lost, now or soon: {}",
            self.url,
            self.identity.cluster,
            lasted.as_secs(),
            register::said(error)
        );
        if is_news {
            tracing::warn!("{problem}");
        }
        self.context.trouble.is(Matter::Lease, problem);
    }
}

async fn renew(shared: &Shared, known: Option<Lease>, period: Duration) -> Result<Lease, RequestError> {
    let cluster = &shared.identity.cluster;
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{cluster}/leases/{CLUSTER_LEASE}");
    let broken = |e| RequestError::Kube(Box::new(kube::Error::SerdeError(e)));
    let mut lease = match known {
        Some(lease) => serde_json::to_value(lease).map_err(broken)?,
        None => objects::get(&shared.hub, &path).await?,
    };
    let clock = &shared.context.clock;
    let mut conflicts = 0;
    loop {
        renewed(&mut lease, clock.here(), clock.offset(), period);
        match objects::replace(&shared.hub, &path, &lease).await {
            Ok(answer) => return serde_json::from_value(answer).map_err(broken),
            // Somebody else wrote it: a short lease must not wait for that.
            Err(error) if error.is_conflict() && conflicts < CONFLICTS => {
                conflicts += 1;
                lease = objects::get(&shared.hub, &path).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_period_has_a_default() {
        let mut cluster = ManagedCluster::default();
        for (seconds, expected) in [(None, 60), (Some(0), 60), (Some(-5), 60), (Some(5), 5)] {
            cluster.spec.lease_duration_seconds = seconds;
            assert_eq!(period(Some(&cluster)), Duration::from_secs(expected));
        }
    }

    #[test]
    fn one_missed_renewal_never_suffices_to_be_missed() {
        for seconds in 1..=600 {
            let period = Duration::from_secs(seconds);
            // As late as it may be, lost, and as late again.
            let late = rest(Renewal::Done, period, 1.0) + rest(Renewal::Failed, period, 1.0);
            assert!(late < period.mul_f64(2.5), "{seconds} s: {late:?}");
            assert!(rest(Renewal::Done, period, 0.0) >= period);
            assert!(rest(Renewal::NotYet, period, 1.0) <= period);
            // A full hub is asked more seldom, and is not to blame for who is missed.
            let full = rest(Renewal::NoRoom, period, 0.0);
            assert!(full <= period && full >= rest(Renewal::Failed, period, 1.0));
        }
    }

    #[test]
    fn a_cluster_that_is_missed_is_heard_of_before_it_is_available() {
        let begin = Instant::now();
        let at = |s| begin + Duration::from_secs(s);
        let cluster = |available: &str| -> ManagedCluster {
            serde_json::from_value(json!({"apiVersion": "cluster.open-cluster-management.io/v1",
                "kind": "ManagedCluster", "metadata": {"name": "c"}, "spec": {},
                "status": {"conditions": [{"type": types::CLUSTER_AVAILABLE, "status": available, "reason": "R",
                    "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
            .unwrap()
        };
        let (available, missed) = (cluster("True"), cluster("Unknown"));
        for (before, now, wanted) in [
            (None, &available, None),
            (None, &missed, Some(at(9))),
            (Some(at(5)), &missed, Some(at(5))),
            (Some(at(5)), &available, None),
        ] {
            assert_eq!(missed_since(before, now, at(9)), wanted);
        }
        for (missed, heard, wanted) in [
            (None, at(0), true),
            (Some(at(5)), at(4), false),
            (Some(at(5)), at(6), true),
        ] {
            assert_eq!(may_tell(missed, heard), wanted);
        }
    }

    #[test]
    fn clocks_that_differ_much_do_not_make_a_stale_lease() {
        let here = Timestamp::from_second(10_000).unwrap();
        let minute = Duration::from_secs(60);
        for (offset, expected, told) in [
            (0, "1970-01-01T02:46:40", None),
            (50, "1970-01-01T02:46:40", None),
            (7200, "1970-01-01T04:46:40", Some("7200")),
            (-7200, "1970-01-01T00:46:40", Some("-7200")),
        ] {
            let mut lease = json!({"metadata": {"annotations": {annotations::CLOCK_OFFSET: "1", "a": "b"}}});
            renewed(&mut lease, here, SignedDuration::from_secs(offset), minute);
            let time = lease["spec"]["renewTime"].as_str().unwrap();
            assert!(time.starts_with(expected), "{offset}: {time}");
            let found = &lease["metadata"]["annotations"];
            assert_eq!(found[annotations::CLOCK_OFFSET].as_str(), told);
            assert_eq!(found["a"], "b");
        }
    }
}
