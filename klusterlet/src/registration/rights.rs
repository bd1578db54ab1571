//! Between a certificate and the rights that go with it. A hub that lets a cluster in makes its rights while its request is
//! signed, and an agent that has its certificate first would ask for everything in vain. So it looks on with the credential it
//! came with, and asks nothing with the certificate before the rights are there. Where it may not look, and where nobody has
//! accepted the cluster a moment later, it asks all the same: a person may take days.

use super::session::is_accepted;
use futures::TryStreamExt as _;
use kube::api::{Api, WatchEvent, WatchParams};
use kube::{Client, ResourceExt as _};
use muster_crds::cluster::v1::ManagedCluster;
use muster_crds::conditions::find;
use muster_crds::constants::{conditions as types, reasons};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// A hub that accepts by itself does so while the certificate is made, or as soon as a thousand others let it.
const MOMENT: Duration = Duration::from_secs(15);
/// Rights that are not there after this are not waited for: the agent tries, as everywhere.
const ON_THEIR_WAY: Duration = Duration::from_secs(30);

/// Whether the hub is about to make the cluster's rights.
fn on_their_way(cluster: &ManagedCluster) -> bool {
    let conditions = cluster.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let settled = find(conditions, types::HUB_ACCEPTED)
        .is_some_and(|told| told.status == "True" || told.reason == reasons::ERROR);
    cluster.spec.hub_accepts_client && !settled && cluster.metadata.deletion_timestamp.is_none()
}

/// What becomes of the cluster while its certificate is made.
pub struct Rights {
    known: watch::Receiver<ManagedCluster>,
    _following: AbortOnDropHandle<()>,
}

impl Rights {
    /// Looks on from what `cluster` is now, with the credential of `hub`.
    pub fn follow(hub: &Client, cluster: ManagedCluster) -> Self {
        let (name, version) = (cluster.name_any(), cluster.resource_version());
        let (tell, known) = watch::channel(cluster);
        let hub = hub.clone();
        let following = async move {
            // Who does not see what becomes of it does not wait for it.
            if let Some(version) = version {
                follow(&hub, &name, &version, &tell).await;
            }
        };
        Self {
            known,
            _following: AbortOnDropHandle::new(tokio::spawn(following)),
        }
    }

    /// Waits for them where they are on their way; the cluster as it is when it has them.
    pub async fn there(mut self) -> Option<ManagedCluster> {
        let accepted = self.known.wait_for(|cluster| cluster.spec.hub_accepts_client);
        let accepted = tokio::time::timeout(MOMENT, accepted).await;
        let accepted = accepted.is_ok_and(|seen| seen.is_ok());
        let there = self.known.wait_for(|cluster| !on_their_way(cluster));
        let there = tokio::time::timeout(ON_THEIR_WAY, there).await;
        let there = there.is_ok_and(|seen| seen.is_ok());
        if !accepted || !there {
            tracing::debug!(accepted, "the rights at the hub are not waited for any longer");
        }
        let now = self.known.borrow().clone();
        is_accepted(&now).then_some(now)
    }
}

/// Tells what becomes of the cluster, as long as the hub says so.
async fn follow(hub: &Client, name: &str, version: &str, tell: &watch::Sender<ManagedCluster>) {
    let api: Api<ManagedCluster> = Api::all(hub.clone());
    let only = WatchParams::default().fields(&format!("metadata.name={name}"));
    let events = match api.watch(&only, version).await {
        Ok(events) => events,
        Err(error) => {
            tracing::debug!(%error, "the ManagedCluster can not be watched with the bootstrap credential");
            return;
        }
    };
    let mut events = std::pin::pin!(events);
    while let Ok(Some(event)) = events.try_next().await {
        match event {
            WatchEvent::Added(cluster) | WatchEvent::Modified(cluster) => {
                tell.send_replace(cluster);
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Deleted(_) | WatchEvent::Error(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rights_are_on_their_way_from_acceptance_until_the_hub_says_so() {
        for (accepts, told, expected) in [
            (false, None, false),
            (true, None, true),
            (true, Some(("True", reasons::HUB_ACCEPTED)), false),
            (true, Some(("False", reasons::HUB_DENIED)), true),
            (true, Some(("False", reasons::ERROR)), false),
            (false, Some(("False", reasons::HUB_DENIED)), false),
        ] {
            let conditions: Vec<_> = told
                .iter()
                .map(|(status, reason)| {
                    json!({"type": types::HUB_ACCEPTED, "status": status, "reason": reason, "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"})
                })
                .collect();
            let cluster =
                serde_json::from_value(json!({"apiVersion": "cluster.open-cluster-management.io/v1",
                "kind": "ManagedCluster", "metadata": {"name": "c"}, "spec": {"hubAcceptsClient": accepts},
                "status": {"conditions": conditions}}))
                .unwrap();
            assert_eq!(on_their_way(&cluster), expected, "{accepts} {told:?}");
        }
    }
}
