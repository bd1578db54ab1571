//! Keeps what a work applied while it is in doubt whether the hub really wants it gone (`crate::work::trust`).

use super::{Agent, ReconcileError};
use crate::work::applied;
use crate::work::trust::{self, Hold, HubSeen, Told};
use jiff::Timestamp;
use kube::ResourceExt as _;
use muster_crds::cluster::v1::ManagedCluster;
use muster_crds::constants::annotations;
use muster_crds::work::v1::{AppliedManifestWork, ManifestWork};
use serde_json::json;
use std::time::Duration;

/// Many works vanish at the same moment: it is told of them all at once.
const KEPT_PAUSE: Duration = Duration::from_millis(200);

impl Agent {
    /// How much longer nothing of what the work applied may be removed, if anything holds that up. What holds it up is on
    /// the cluster, so that it outlives this agent.
    pub(super) async fn hold(
        &self,
        name: &str,
        work: &ManifestWork,
        applied: &AppliedManifestWork,
    ) -> Result<Option<Duration>, ReconcileError> {
        let told = Told::of(work);
        let known = self.state().told.get(name).cloned();
        let evicting = applied
            .status
            .as_ref()
            .is_some_and(|s| s.eviction_start_time.is_some());
        let now = Timestamp::now();
        let mut hold = Hold::of(applied);
        let of = applied::work_uid(applied);
        let ended = |uid: &str| self.state().has_ended(uid);
        let doubt = trust::doubt(of, known.as_ref(), work, evicting, ended);
        if doubt.is_none() && of.is_some_and(|of| of != told.uid) {
            // The work before ended without this agent's doing: its record is this one's from now on.
            let signed = json!({"annotations": {annotations::WORK_UID: told.uid}});
            self.write_applied(applied, &signed).await?;
        }
        if let Some(doubt) = doubt {
            let new = Hold {
                since: now,
                reason: doubt.reason().to_owned(),
            };
            tracing::warn!(work = name, "{}", new.told(self.settings.eviction_grace));
            let annotations = json!({annotations::REMOVAL_HELD: new.text(), annotations::WORK_UID: told.uid});
            self.write_applied(applied, &json!({ "annotations": annotations }))
                .await?;
            hold = Some(new);
        }
        if known.as_ref() != Some(&told) {
            self.state().told.insert(name.to_owned(), told);
        }
        let left = hold
            .as_ref()
            .and_then(|h| h.left(now, self.settings.eviction_grace));
        if hold.is_some() && left.is_none() {
            let over = json!({"annotations": {annotations::REMOVAL_HELD: null}});
            self.write_applied(applied, &over).await?;
        }
        Ok(left)
    }

    /// The hub's ManagedCluster of this cluster, as it is now: by it a hub is told from another, and from what it was.
    pub fn hub_is(&self, cluster: &ManagedCluster) {
        let now = HubSeen {
            cluster: cluster.uid().unwrap_or_default(),
            revision: crate::work::state::revision(cluster.resource_version().as_deref()),
        };
        {
            let mut state = self.state();
            if let Some(before) = &state.hub
                && let Some(reason) = trust::changed(before, &now)
            {
                if trust::is_anew(before, &now) {
                    tracing::info!(
                        "the hub has another ManagedCluster of this cluster than before: it was registered anew; nothing \
                         is removed for that"
                    );
                } else {
                    tracing::warn!(reason, "the hub is not what it was; nothing is removed for that");
                }
                state.hub_changed = Some(reason);
                // A watch from a revision that the hub does not have yet would be silent until it does.
                self.look_again.notify_one();
            }
            let another = state
                .hub
                .as_ref()
                .is_none_or(|before| before.cluster != now.cluster);
            state.hub = Some(now);
            if another {
                self.saved.changed();
            }
        }
        self.evictions.notify_one();
    }

    /// What is on the cluster without the hub saying so; changes are told.
    pub fn kept(&self) -> tokio::sync::watch::Receiver<Option<muster_crds::conditions::NewCondition>> {
        self.kept.subscribe()
    }

    /// Sums up what is kept whenever that may have changed, for ever.
    pub(super) async fn sum_up_kept(&self) {
        loop {
            self.evictions.notified().await;
            let new = {
                let mut state = self.state();
                let all = state.applied.values().map(AsRef::as_ref);
                let new = trust::kept(all, state.hub_changed, self.settings.eviction_grace);
                if new.is_none() && self.kept.borrow().is_some() {
                    // It is over: what comes next has its own reason.
                    state.hub_changed = None;
                }
                new
            };
            self.kept.send_if_modified(|kept| {
                let changed = *kept != new;
                *kept = new;
                changed
            });
            tokio::time::sleep(KEPT_PAUSE).await;
        }
    }
}
