//! Certificate requests that wait for something about their cluster.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use crate::queue::Queue;

/// Requests that wait for something about their cluster.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashMap<String, BTreeSet<String>>>);

impl Waiting {
    /// Has the request looked at when the cluster changes.
    pub fn add(&self, cluster: &str, request: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(cluster.to_owned())
            .or_default()
            .insert(request.to_owned());
    }

    /// The cluster changed: what waited for it is looked at.
    pub fn changed(&self, cluster: &str, queue: &Queue) {
        let waited = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(cluster);
        for request in waited.into_iter().flatten() {
            queue.add(&request);
        }
    }

    /// It is not there any more.
    pub fn gone(&self, request: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, requests| {
            requests.remove(request);
            !requests.is_empty()
        });
    }

    /// It is decided.
    pub fn remove(&self, cluster: &str, request: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(requests) = all.get_mut(cluster) {
            requests.remove(request);
            if requests.is_empty() {
                all.remove(cluster);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_or_decided_is_not_waited_for() {
        let waiting = Waiting::default();
        for (cluster, request) in [("c1", "a"), ("c1", "b"), ("c2", "a"), ("c3", "c")] {
            waiting.add(cluster, request);
        }
        waiting.gone("a");
        waiting.remove("c3", "c");
        let left = waiting.0.into_inner().unwrap();
        let left: Vec<_> = left.into_iter().collect();
        assert_eq!(left, [("c1".to_owned(), BTreeSet::from(["b".to_owned()]))]);
    }
}
