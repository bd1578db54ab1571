//! Tells what goes on for long that rights were taken away. kube-apiserver asks once, when a watch begins; here a watch ends
//! soon after its user lost the right to it.

use super::authorizer::Authorizer;
use super::rbac::{GROUP, Resource};
use crate::store::{Event, StoreError, Watch};
use futures::future::select_all;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Rights of many users may change together: whoever has to ask anew does so once.
const TOGETHER: Duration = Duration::from_millis(50);

/// Whether an event may have taken rights away. What is new only gives.
fn may_take(event: &Event) -> bool {
    event.deleted || event.prev.is_some()
}

/// Follows roles and bindings until `stop`, and tells [`Authorizer::revoked`] of what may have taken rights away.
pub async fn follow(authorizer: Arc<Authorizer>, stop: CancellationToken) {
    let followed = async {
        loop {
            let Ok(mut watches) = watches(&authorizer) else {
                return;
            };
            while let Ok(took) = next(&mut watches).await {
                if !took {
                    continue;
                }
                tokio::time::sleep(TOGETHER).await;
                if drain(&mut watches).is_err() {
                    break;
                }
                authorizer.tell_revoked();
            }
            // Something was missed: it may have been that.
            authorizer.tell_revoked();
        }
    };
    // A store that is closed ends it too.
    let _ = stop.run_until_cancelled(followed).await;
}

fn watches(authorizer: &Authorizer) -> Result<Vec<Watch>, StoreError> {
    let store = authorizer.store();
    let revision = store.revision();
    Resource::ALL
        .iter()
        .map(|resource| store.watch(&format!("{GROUP}/{}", resource.plural()), None, revision))
        .collect()
}

async fn next(watches: &mut [Watch]) -> Result<bool, StoreError> {
    let waiting = watches.iter_mut().map(|watch| Box::pin(watch.next()));
    select_all(waiting).await.0.map(|event| may_take(&event))
}

fn drain(watches: &mut [Watch]) -> Result<(), StoreError> {
    for watch in watches {
        while let Some(event) = watch.try_next() {
            event?;
        }
    }
    Ok(())
}
