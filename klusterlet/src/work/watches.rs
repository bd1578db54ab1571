//! One watch for each kind that works contain, of the objects that carry our label; and one for each ReadOnly object,
//! which we never label. They tell at once what happens to applied objects; unrelated objects cost nothing.

use super::objects::Served;
use super::state::{ObjectKey, State};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::discovery::Scope;
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use muster_crds::constants::labels;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// What one watch covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Coverage {
    /// Every object of the kind with our label.
    Labelled,
    /// One object by namespace and name.
    Named(String, String),
}

/// How far a watch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It has not seen all that is there yet.
    Not,
    /// The agent may not list or watch this, or it is not served: it will not be told of changes.
    Refused,
    /// All that was there has been seen, and what happens to it is told.
    All,
}

/// The watches that run. Dropping it ends them.
pub struct Watches {
    client: Client,
    state: Arc<Mutex<State>>,
    running: Mutex<HashMap<(Arc<Served>, Coverage), Running>>,
    notify: tokio::sync::mpsc::UnboundedSender<String>,
}

#[derive(Debug)]
struct Running {
    sight: watch::Receiver<Sight>,
    hurry: Arc<Notify>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Watches {
    /// None yet. Names of works whose objects changed go to `notify`.
    pub fn new(
        client: Client,
        state: Arc<Mutex<State>>,
        notify: tokio::sync::mpsc::UnboundedSender<String>,
    ) -> Self {
        Self {
            client,
            state,
            running: Mutex::new(HashMap::new()),
            notify,
        }
    }

    /// Makes sure that the watch runs, and tells how far it is.
    pub fn ensure(&self, served: &Arc<Served>, scope: Coverage) -> watch::Receiver<Sight> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (served.clone(), scope);
        if let Some(found) = running.get(&key) {
            return found.sight.clone();
        }
        let (tx, sight) = watch::channel(Sight::Not);
        let (stop, hurry) = (CancellationToken::new(), Arc::<Notify>::default());
        let task = follow(
            self.client.clone(),
            key.0.clone(),
            key.1.clone(),
            self.state.clone(),
            self.notify.clone(),
            (tx, hurry.clone()),
        );
        let token = stop.clone();
        tokio::spawn(async move { token.run_until_cancelled(task).await });
        running.insert(
            key,
            Running {
                sight: sight.clone(),
                hurry,
                stop,
            },
        );
        sight
    }

    /// How many run.
    pub fn count(&self) -> usize {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Those of a group that failed are tried again at once: it may be served now.
    pub fn hurry(&self, group: &str) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let of_group = running.iter().filter(|((served, _), _)| served.group == group);
        of_group.for_each(|(_, running)| running.hurry.notify_waiters());
    }

    /// Ends the watches that no work needs any more.
    pub fn keep(&self, needed: impl Fn(&Served, &Coverage) -> bool) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|(served, scope), _| needed(served, scope));
    }
}

async fn follow(
    client: Client,
    served: Arc<Served>,
    scope: Coverage,
    state: Arc<Mutex<State>>,
    notify: tokio::sync::mpsc::UnboundedSender<String>,
    (sight, hurry): (watch::Sender<Sight>, Arc<Notify>),
) {
    let resource = ApiResource {
        group: served.group.clone(),
        version: served.version.clone(),
        api_version: if served.group.is_empty() {
            served.version.clone()
        } else {
            format!("{}/{}", served.group, served.version)
        },
        kind: served.kind.clone(),
        plural: served.plural.clone(),
    };
    let (api, config): (Api<DynamicObject>, _) = match &scope {
        Coverage::Labelled => {
            let config = watcher::Config::default().labels(&format!("{}=true", labels::APPLIED));
            (Api::all_with(client, &resource), config)
        }
        Coverage::Named(namespace, name) => {
            let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let kind = if served.namespaced {
                Scope::Namespaced
            } else {
                Scope::Cluster
            };
            let api = Api::dynamic(client, &resource, &kind);
            (
                if served.namespaced {
                    api.constrain(namespace)
                } else {
                    api
                },
                config,
            )
        }
    };
    let mut events = watcher(api, config).boxed();
    let mut fresh: HashSet<ObjectKey> = HashSet::new();
    let mut backoff = Backoff::default();
    let tell = |works: Vec<String>| works.into_iter().for_each(|w| drop(notify.send(w)));
    let with_state = |f: &mut dyn FnMut(&mut State) -> Vec<String>| {
        f(&mut state.lock().unwrap_or_else(PoisonError::into_inner))
    };
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(kind = %served.kind, %error, "watch of applied objects failed, it goes on");
                // What was seen of a kind that is not served, or not any more as it was, is to be found out anew.
                if code(&error) == Some(404) && sight.send_replace(Sight::Refused) == Sight::All {
                    tell(with_state(&mut |s| {
                        s.unwatched(|key| covers(&served, &scope, key))
                    }));
                }
                if can_not_be(&error) && sight.send_replace(Sight::Refused) != Sight::Refused {
                    tracing::warn!(
                        kind = %served.kind, %error,
                        "objects of a kind can not be watched: they are looked at every minute or two"
                    );
                    tell(with_state(&mut |s| {
                        s.unwatched(|key| covers(&served, &scope, key))
                    }));
                }
                tokio::select! { () = backoff.watch_again(&error) => {}, () = hurry.notified() => {} }
                continue;
            }
        };
        // Every try begins with Init, also one that is refused.
        if !matches!(event, watcher::Event::Init) {
            backoff = Backoff::default();
        }
        match event {
            watcher::Event::Init => fresh.clear(),
            watcher::Event::InitApply(object) => {
                let key = key_of(&served, &object);
                let object = whole(&resource, &object);
                fresh.insert(key.clone());
                tell(with_state(&mut |s| s.object_listed(&key, object.clone())));
            }
            watcher::Event::InitDone => {
                // What was there before and is not in the list went away while nobody watched.
                let gone: Vec<ObjectKey> =
                    with_seen(&state, |key| covers(&served, &scope, key) && !fresh.contains(key));
                for key in gone {
                    tell(with_state(&mut |s| s.object_gone(&key)));
                }
                fresh.clear();
                sight.send_replace(Sight::All);
            }
            watcher::Event::Apply(object) => {
                let key = key_of(&served, &object);
                let object = whole(&resource, &object);
                tell(with_state(&mut |s| s.object_seen(&key, object.clone())));
            }
            watcher::Event::Delete(object) => {
                let key = key_of(&served, &object);
                tell(with_state(&mut |s| s.object_gone(&key)));
            }
        }
    }
}

fn with_seen(state: &Mutex<State>, filter: impl Fn(&ObjectKey) -> bool) -> Vec<ObjectKey> {
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.seen.keys().filter(|k| filter(k)).cloned().collect()
}

fn covers(served: &Served, scope: &Coverage, key: &ObjectKey) -> bool {
    key.group == served.group
        && key.resource == served.plural
        && match scope {
            Coverage::Labelled => true,
            Coverage::Named(namespace, name) => key.namespace == *namespace && key.name == *name,
        }
}

fn key_of(served: &Served, object: &DynamicObject) -> ObjectKey {
    ObjectKey {
        group: served.group.clone(),
        resource: served.plural.clone(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

/// Items of a list come without their type.
fn whole(resource: &ApiResource, object: &DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if value["kind"].is_null() {
        value["apiVersion"] = resource.api_version.as_str().into();
        value["kind"] = resource.kind.as_str().into();
    }
    value
}

/// Growing waits with jitter, so that many agents do not come back at the same moment.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

/// The longest wait after what a watch would go on from was gone. A server with a short memory must not be asked for lists
/// without end.
const LONGEST_OF_EXPIRED: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(15);
/// The longest wait of a watch whose server is away: what it says when it is back is to be heard soon.
const LONGEST_OF_WATCH: Duration = Duration::from_secs(5);

/// Whether the objects can not be watched at all: the agent may not, or they are none that can (`metrics.k8s.io`).
fn can_not_be(error: &watcher::Error) -> bool {
    let no_such_verb = code(error) == Some(405) || matches!(error, watcher::Error::NoResourceVersion);
    no_such_verb || is_forbidden(error)
}

/// Whether the server said that what was watched may not be seen.
pub fn is_forbidden(error: &watcher::Error) -> bool {
    code(error) == Some(403)
}

/// What the server said, if it said anything.
fn code(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => Some(status.code),
        _ => None,
    }
}

impl Backoff {
    /// Waits for its next turn: 50 ms doubling to 15 s, half of it random.
    pub async fn wait(&mut self) {
        self.at_most(LONGEST).await;
    }

    /// The same after a watch failed. One that only missed too much to go on (410) begins anew almost at once, and one whose
    /// server does not answer waits 5 s at most.
    pub async fn watch_again(&mut self, error: &watcher::Error) {
        use watcher::Error::{InitialListFailed, WatchError, WatchStartFailed};
        match error {
            WatchError(status) if status.code == 410 => self.at_most(LONGEST_OF_EXPIRED).await,
            InitialListFailed(kube::Error::Api(_)) | WatchStartFailed(kube::Error::Api(_)) => {
                self.wait().await;
            }
            _ => self.at_most(LONGEST_OF_WATCH).await,
        }
    }

    async fn at_most(&mut self, longest: Duration) {
        let full = Duration::from_millis(50).saturating_mul(1 << self.failures.min(10));
        let full = full.min(longest);
        self.failures += 1;
        tokio::time::sleep(full.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}
