//! One watch a kind, shared by every controller, holding only what decisions need.
//!
//! A write is put into the cache with its answer, so that the next decision sees it although its event is still on
//! the way; an event older than what is known is dropped.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use futures::{Stream, StreamExt};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How the cache came to know a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// It was in a list, or is the answer to a write of our own: it may have been so for long.
    Listed,
    /// It was watched: it became so just now.
    Watched,
}

struct Entry<P> {
    version: u64,
    value: Arc<P>,
}

type Objects<P> = HashMap<Box<str>, BTreeMap<Box<str>, Entry<P>>>;
type Project<K, P> = Box<dyn Fn(&K, Option<&P>, Sighting) -> P + Send + Sync>;

/// Projections `P` of the objects of kind `K`, by namespace (empty for cluster-scoped kinds) and name.
pub struct Cache<K, P> {
    objects: RwLock<Objects<P>>,
    project: Project<K, P>,
    ready: watch::Sender<bool>,
}

impl<K, P> Cache<K, P>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// An empty cache; `project` makes of an object, and of what was kept of it before, what is kept.
    pub fn new(project: impl Fn(&K, Option<&P>, Sighting) -> P + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            objects: RwLock::new(HashMap::new()),
            project: Box::new(project),
            ready: watch::Sender::new(false),
        })
    }

    /// What is kept of the object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<P>> {
        let objects = self.read();
        Some(objects.get(namespace)?.get(name)?.value.clone())
    }

    /// Everything in the namespace, by name.
    pub fn list(&self, namespace: &str) -> Vec<(String, Arc<P>)> {
        self.read().get(namespace).map_or_else(Vec::new, |objects| {
            objects
                .iter()
                .map(|(name, entry)| (name.to_string(), entry.value.clone()))
                .collect()
        })
    }

    /// Everything, with namespace and name.
    pub fn everything(&self) -> Vec<(String, String, Arc<P>)> {
        self.read()
            .iter()
            .flat_map(|(namespace, objects)| {
                objects
                    .iter()
                    .map(|(name, entry)| (namespace.to_string(), name.to_string(), entry.value.clone()))
            })
            .collect()
    }

    /// Whether anything in the namespace passes.
    pub fn any(&self, namespace: &str, mut pass: impl FnMut(&str, &P) -> bool) -> bool {
        let objects = self.read();
        let mut all = objects.get(namespace).into_iter().flatten();
        all.any(|(name, entry)| pass(name, &entry.value))
    }

    /// How many in the namespace pass.
    pub fn matching(&self, namespace: &str, mut pass: impl FnMut(&str, &P) -> bool) -> usize {
        let objects = self.read();
        let all = objects.get(namespace).into_iter().flatten();
        all.filter(|(name, entry)| pass(name, &entry.value)).count()
    }

    /// How many objects the namespace has.
    pub fn count(&self, namespace: &str) -> usize {
        self.read().get(namespace).map_or(0, BTreeMap::len)
    }

    /// Waits until the cache holds what the API server holds.
    pub async fn ready(&self) {
        let mut ready = self.ready.subscribe();
        // The sender lives as long as `self`: waiting cannot fail.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// Whether the cache holds what the API server holds.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Puts in the answer to a write. The answer to the write that takes the last finalizer off a deleted object is
    /// the object's last state, and may come after the event that tells of its end.
    pub fn wrote(&self, object: &K) {
        if object.meta().deletion_timestamp.is_some() && object.finalizers().is_empty() {
            remove(
                &mut self.write(),
                &namespace_of(object),
                &object.name_any(),
                version_of(object),
            );
        } else {
            self.put(object, Sighting::Listed);
        }
    }

    /// Takes out what a write deleted.
    pub fn removed(&self, namespace: &str, name: &str) {
        remove(&mut self.write(), namespace, name, u64::MAX);
    }

    /// Watches until `shutdown`, through every interruption, and calls `changed` with namespace and name of what
    /// may have changed.
    pub async fn run(
        self: Arc<Self>,
        what: &'static str,
        api: Api<K>,
        config: watcher::Config,
        shutdown: CancellationToken,
        changed: impl Fn(&str, &str) + Send,
    ) where
        K::DynamicType: Send,
    {
        let stream = watcher::watcher(api, config).backoff(Retry::default());
        self.follow(what, stream, shutdown, changed).await;
    }

    async fn follow(
        &self,
        what: &'static str,
        stream: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
        shutdown: CancellationToken,
        changed: impl Fn(&str, &str) + Send,
    ) {
        let mut stream = std::pin::pin!(stream);
        let mut listed: Objects<P> = HashMap::new();
        let mut failing = false;
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                None => return,
                Some(Err(error)) => {
                    // The first failure is worth a line; the rest of an outage is not.
                    if failing {
                        tracing::debug!(what, error = %crate::error::innermost(&error), "still cannot watch");
                    } else {
                        tracing::warn!(what, error = %crate::error::innermost(&error), "cannot watch; trying again");
                    }
                    failing = true;
                    continue;
                }
                Some(Ok(Event::Init)) => listed.clear(),
                Some(Ok(Event::InitApply(object))) => self.buffer(&mut listed, &object),
                Some(Ok(Event::InitDone)) => {
                    for (namespace, name) in self.replace(std::mem::take(&mut listed)) {
                        changed(&namespace, &name);
                    }
                    self.ready.send_replace(true);
                }
                Some(Ok(Event::Apply(object))) => {
                    self.put(&object, Sighting::Watched);
                    changed(&namespace_of(&object), &object.name_any());
                }
                Some(Ok(Event::Delete(object))) => {
                    let (namespace, name) = (namespace_of(&object), object.name_any());
                    remove(&mut self.write(), &namespace, &name, version_of(&object));
                    changed(&namespace, &name);
                }
            }
            if failing {
                tracing::info!(what, "watching again");
                failing = false;
            }
        }
    }

    fn put(&self, object: &K, sighting: Sighting) {
        let (namespace, name, version) = (namespace_of(object), object.name_any(), version_of(object));
        let mut objects = self.write();
        let space = objects.entry(namespace.into()).or_default();
        let known = space.get(name.as_str());
        // The event of a write whose answer is here already says nothing new.
        if known.is_some_and(|known| known.version >= version) {
            return;
        }
        let value = Arc::new((self.project)(
            object,
            known.map(|known| known.value.as_ref()),
            sighting,
        ));
        space.insert(name.into(), Entry { version, value });
    }

    fn buffer(&self, listed: &mut Objects<P>, object: &K) {
        let (namespace, name) = (namespace_of(object), object.name_any());
        let known = self.get(&namespace, &name);
        let value = Arc::new((self.project)(object, known.as_deref(), Sighting::Listed));
        let entry = Entry {
            version: version_of(object),
            value,
        };
        listed
            .entry(namespace.into())
            .or_default()
            .insert(name.into(), entry);
    }

    /// Swaps in a list and returns the keys of all that is, or was, there.
    fn replace(&self, listed: Objects<P>) -> Vec<(Box<str>, Box<str>)> {
        let mut objects = self.write();
        let before = std::mem::replace(&mut *objects, listed);
        let mut keys: Vec<(Box<str>, Box<str>)> = objects
            .iter()
            .flat_map(|(namespace, space)| space.keys().map(|name| (namespace.clone(), name.clone())))
            .collect();
        for (namespace, space) in before {
            for (name, entry) in space {
                match objects.get_mut(&namespace).and_then(|space| space.get_mut(&name)) {
                    // Our own write may be newer than the list.
                    Some(now) if now.version < entry.version => *now = entry,
                    Some(_) => {}
                    None => keys.push((namespace.clone(), name)),
                }
            }
        }
        keys
    }

    fn read(&self) -> RwLockReadGuard<'_, Objects<P>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects<P>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 100 ms, doubled with every failure in a row, at most 10 s: a hub's API server that is back is seen soon.
#[derive(Default)]
struct Retry(u32);

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = Duration::from_millis(100 << self.0).min(Duration::from_secs(10));
        self.0 = (self.0 + 1).min(7);
        Some(delay)
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Removes the object unless a newer one of that name is known.
fn remove<P>(objects: &mut Objects<P>, namespace: &str, name: &str, version: u64) {
    let Some(space) = objects.get_mut(namespace) else {
        return;
    };
    if space.get(name).is_some_and(|known| known.version <= version) {
        space.remove(name);
    }
    if space.is_empty() {
        objects.remove(namespace);
    }
}

fn namespace_of<K: Resource>(object: &K) -> String {
    object.meta().namespace.clone().unwrap_or_default()
}

/// Resource versions can be compared since Kubernetes says so (KEP-5504); one that is no number counts as newest.
fn version_of<K: Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .map_or(u64::MAX, |version| version.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn object(name: &str, version: &str) -> ConfigMap {
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "n", "resourceVersion": version}}),
        )
        .unwrap()
    }

    fn cache() -> Arc<Cache<ConfigMap, String>> {
        Cache::new(|object: &ConfigMap, _, _| object.resource_version().unwrap_or_default())
    }

    async fn follow(cache: &Cache<ConfigMap, String>, events: Vec<Event<ConfigMap>>) -> Vec<String> {
        let changed = Mutex::new(Vec::new());
        let stream = futures::stream::iter(events.into_iter().map(Ok));
        cache
            .follow(
                "ConfigMaps",
                stream,
                CancellationToken::new(),
                |namespace, name| {
                    changed.lock().unwrap().push(format!("{namespace}/{name}"));
                },
            )
            .await;
        changed.into_inner().unwrap()
    }

    #[tokio::test]
    async fn a_list_replaces_and_tells_what_went() {
        let cache = cache();
        let list = |names: &[&str]| {
            let mut events = vec![Event::Init];
            events.extend(names.iter().map(|name| Event::InitApply(object(name, "5"))));
            events.push(Event::InitDone);
            events
        };
        assert_eq!(follow(&cache, list(&["a", "b"])).await, ["n/a", "n/b"]);
        cache.ready().await;
        assert_eq!(follow(&cache, list(&["b"])).await, ["n/b", "n/a"]);
        assert!(cache.get("n", "a").is_none());
        assert_eq!(cache.count("n"), 1);
    }

    #[tokio::test]
    async fn a_write_is_seen_at_once_and_no_old_event_undoes_it() {
        let cache = cache();
        cache.wrote(&object("a", "10"));
        follow(&cache, vec![Event::Apply(object("a", "9"))]).await;
        assert_eq!(cache.get("n", "a").unwrap().as_str(), "10");
        follow(&cache, vec![Event::Delete(object("a", "9"))]).await;
        assert!(
            cache.get("n", "a").is_some(),
            "the deletion of an older object of that name"
        );
        follow(&cache, vec![Event::Delete(object("a", "11"))]).await;
        assert!(cache.get("n", "a").is_none());
    }

    #[tokio::test]
    async fn the_answer_to_the_write_that_ends_an_object_does_not_bring_it_back() {
        use jiff::Timestamp;
        use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
        let cache = cache();
        cache.wrote(&object("a", "10"));
        let mut ended = object("a", "10");
        ended.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        follow(&cache, vec![Event::Delete(object("a", "11"))]).await;
        cache.wrote(&ended);
        assert!(cache.get("n", "a").is_none());
        cache.wrote(&object("a", "12"));
        cache.wrote(&ended);
        assert!(
            cache.get("n", "a").is_some(),
            "another of that name was made meanwhile"
        );
    }
}
