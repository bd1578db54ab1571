//! Waiting for objects by watching them: told at once when it is so, and what was missing when it never is.

use crate::Error;
use crate::error::innermost;
use futures::TryStreamExt as _;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

/// Objects by `namespace/name`, or name alone where there is no namespace.
pub type Objects<K> = BTreeMap<String, K>;

/// Watches until `done` gives something; its errors say what is missing still. `what` begins the sentence that is told
/// when the time is over, like `cluster1 was not available`.
pub async fn until<K, T>(
    api: Api<K>,
    config: watcher::Config,
    within: Duration,
    what: &str,
    mut done: impl FnMut(&Objects<K>) -> Result<T, String>,
) -> Result<T, Error>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut missing = "no answer".to_owned();
    let follow = async {
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        let (mut objects, mut complete) = (Objects::new(), false);
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Init)) => {
                    objects.clear();
                    complete = false;
                    continue;
                }
                Ok(Some(watcher::Event::InitApply(object) | watcher::Event::Apply(object))) => {
                    objects.insert(key(&object), object);
                }
                Ok(Some(watcher::Event::Delete(object))) => {
                    objects.remove(&key(&object));
                }
                Ok(Some(watcher::Event::InitDone)) => complete = true,
                Ok(None) => return Err(Error::Input("the watch ended for good".into())),
                Err(error) => {
                    missing = innermost(&error);
                    continue;
                }
            }
            if complete {
                match done(&objects) {
                    Ok(found) => return Ok(found),
                    Err(problem) => missing = problem,
                }
            }
        }
    };
    match tokio::time::timeout(within, follow).await {
        Ok(ended) => ended,
        Err(_) => Err(Error::Late {
            what: what.to_owned(),
            seconds: within.as_secs(),
            missing,
        }),
    }
}

fn key<K: kube::Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}
