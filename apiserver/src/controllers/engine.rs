//! The loop that controllers run in: a watch of the store feeds a queue, and what is due runs, a few at a time.

use super::queue::Queue;
use crate::ApiError;
use crate::store::{Event, Store, StoreError};
use futures::FutureExt;
use std::fmt::Debug;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Runs at the same time. Most of a run is waiting for the disk, and those waits are shared.
const CONCURRENCY: usize = 32;

/// A set of controllers over one stream of events.
pub trait Reactor: Send + Sync + 'static {
    /// What is queued: a kind of work and what it is about.
    type Work: Ord + Clone + Debug + Send + Sync + 'static;

    /// Adds what an event asks to be looked at.
    fn on_event(&self, event: &Event, add: &mut dyn FnMut(Self::Work));

    /// Forgets what was remembered of events and adds everything there is: at the start, and when events were missed.
    fn resync(&self, add: &mut dyn FnMut(Self::Work));

    /// Looks at one thing, and brings it one step further. Returns when it is due again on its own.
    fn reconcile(&self, work: &Self::Work)
    -> impl Future<Output = Result<Option<Duration>, ApiError>> + Send;
}

/// Runs until `shutdown`; what runs then is finished.
pub async fn run<R: Reactor>(reactor: Arc<R>, store: Store, shutdown: CancellationToken) {
    let mut queue = Queue::default();
    let mut running = JoinSet::new();
    while !shutdown.is_cancelled() {
        // The watch begins before the listing, so that nothing falls between them.
        let watch = store.watch_all(store.revision());
        let Ok(mut watch) = watch else { continue };
        let now = Instant::now();
        reactor.resync(&mut |work| queue.add(work, now));
        loop {
            let now = Instant::now();
            // All that happened is known before anything is decided.
            let mut missed = false;
            while let Some(event) = watch.try_next() {
                let Ok(event) = event else {
                    missed = true;
                    break;
                };
                reactor.on_event(&event, &mut |work| queue.add(work, now));
            }
            if missed {
                break;
            }
            while queue.running() < CONCURRENCY
                && let Some(work) = queue.take(now)
            {
                let reactor = Arc::clone(&reactor);
                running.spawn(async move {
                    let result = AssertUnwindSafe(reactor.reconcile(&work)).catch_unwind().await;
                    (work, result)
                });
            }
            let due = if queue.running() < CONCURRENCY {
                queue.next_due()
            } else {
                None
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = running.join_next() => {
                    let Ok((work, result)) = ended else { continue };
                    let result = match result {
                        Ok(Ok(after)) => Ok(after),
                        Ok(Err(error)) => {
                            tracing::debug!(?work, %error, "to be tried again");
                            Err(())
                        }
                        Err(_) => {
                            tracing::error!(?work, "a controller panicked");
                            Err(())
                        }
                    };
                    queue.done(work, result, Instant::now());
                }
                event = watch.next() => match event {
                    Ok(event) => {
                        let now = Instant::now();
                        reactor.on_event(&event, &mut |work| queue.add(work, now));
                    }
                    Err(StoreError::Compacted(_)) => break,
                    Err(error) => {
                        tracing::error!(%error, "the controllers' watch ended");
                        break;
                    }
                },
                () = sleep_until(due) => {}
            }
        }
    }
    while running.join_next().await.is_some() {}
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
