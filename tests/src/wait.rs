//! Waiting: until a condition holds, and no longer than a deadline. What was missing is in the error.

use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often a condition that nobody announces is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How long anything may take before a test gives up: far more than it needs, also on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Waits until `look` gives a value. For what has no watch: files, processes, what a command prints.
pub async fn eventually<T, F>(within: Duration, what: &str, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(missing) if Instant::now() >= deadline => {
                anyhow::bail!("{what}: not within {} s: {missing}", within.as_secs());
            }
            Err(_) => sleep(LOOK).await,
        }
    }
}
