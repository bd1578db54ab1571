//! What the work agent keeps on the cluster although the hub does not have it: told in the ManagedCluster's status.

use super::session::Shared;
use crate::work;
use std::sync::Arc;

/// Shows the work agent which hub it is, and takes what it has to say about that.
pub async fn compare(shared: Arc<Shared>, agent: Arc<work::Agent>) {
    let mut cluster = shared.cluster.subscribe();
    let mut kept = agent.kept();
    // It may have been seen already.
    cluster.mark_changed();
    loop {
        tokio::select! {
            changed = cluster.changed() => if changed.is_err() { return },
            changed = kept.changed() => if changed.is_err() { return },
        }
        let seen = cluster.borrow_and_update().clone();
        if let Some(seen) = seen {
            agent.hub_is(&seen);
        }
        let now = kept.borrow_and_update().clone();
        if *shared.kept.borrow() != now {
            shared.kept.send_replace(now);
            shared.refresh.notify_one();
        }
    }
}
