//! Works that apply the same object do so one after the other. All are one manager to the server, and what a manager leaves
//! out that it applied before goes: each has to see what the others applied.

use crate::work::state::ObjectKey;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedMutexGuard;

/// Objects that are being applied.
#[derive(Debug, Default)]
pub struct Turns {
    going: Mutex<HashMap<ObjectKey, Arc<tokio::sync::Mutex<()>>>>,
}

/// One's turn; it ends with the value.
pub struct Turn<'a> {
    turns: &'a Turns,
    key: &'a ObjectKey,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until nobody else applies the object.
    pub async fn take<'a>(&'a self, key: &'a ObjectKey) -> Turn<'a> {
        let going = {
            let mut all = self.going.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(key.clone()).or_default().clone()
        };
        let mut turn = Turn {
            turns: self,
            key,
            guard: None,
        };
        turn.guard = Some(going.lock_owned().await);
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.guard = None;
        let mut all = self.turns.going.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody waits, where nobody else has it.
        if all
            .get(self.key)
            .is_some_and(|going| Arc::strong_count(going) == 1)
        {
            all.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_and_nothing_is_left() {
        let (turns, going, most) = (Turns::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let key = |name: &str| ObjectKey {
            group: String::new(),
            resource: "configmaps".into(),
            namespace: "d".into(),
            name: name.into(),
        };
        let (a, b) = (key("a"), key("b"));
        let all = (0..20).map(|_| async {
            let _turn = turns.take(&a).await;
            most.fetch_max(going.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
            going.fetch_sub(1, Ordering::Relaxed);
        });
        let began = tokio::time::Instant::now();
        let given_up = tokio::time::timeout(Duration::from_millis(1), async {
            let _turn = turns.take(&b).await;
            turns.take(&b).await;
        });
        let (_, gave_up) = tokio::join!(futures::future::join_all(all), given_up);
        assert!(gave_up.is_err());
        assert_eq!(most.into_inner(), 1);
        assert_eq!(began.elapsed(), Duration::from_millis(100));
        assert!(turns.going.lock().unwrap().is_empty());
    }
}
