//! Which works an object belongs to: because they applied it, or because they applied what owns it, over any number of
//! owners up to a bound (Pod → ReplicaSet → Deployment). Owners are looked up as metadata when they are needed, and
//! remembered: no kind is watched for it.

use super::recent::Recent;
use super::seen::Subject;
use crate::work::manifest::Identity;
use crate::work::objects::{Mapper, REQUEST_TIMEOUT, RequestError};
use crate::work::state::{ObjectKey, State};
use kube::Client;
use serde::Deserialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Owners above each other that are followed: CronJob, Job and Pod below a custom resource or two.
const DEPTH: usize = 5;
/// Owners beside each other that are followed.
const BREADTH: usize = 4;
/// Objects whose owners are remembered.
const REMEMBERED: usize = 1024;
/// That an object is not there, or nobody's, is not believed for longer.
const NOBODY_FOR: Duration = Duration::from_secs(60);
/// Look-ups of objects nobody has asked for: so many at once, and then so many a second.
const LOOKUPS: (f64, f64) = (50.0, 10.0);
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;q=0.5";

/// A work that an object belongs to: name and UID.
pub type Belongs = (String, String);

#[derive(Debug, Clone)]
struct Known {
    owners: Arc<[Subject]>,
    at: Instant,
}

/// Finds the works of objects.
pub struct Lineage {
    client: Client,
    mapper: Arc<Mapper>,
    known: Recent<Subject, Known>,
    lookups: (f64, Instant),
}

#[derive(Deserialize)]
struct Partial {
    metadata: Owned,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owned {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    owner_references: Vec<Subject>,
}

impl Lineage {
    /// Knows nothing yet.
    pub fn new(client: Client, mapper: Arc<Mapper>) -> Self {
        Self {
            client,
            mapper,
            known: Recent::new(REMEMBERED),
            lookups: (LOOKUPS.0, Instant::now()),
        }
    }

    /// The works of an object; none when it is nobody's, or when it can not be told now. An urgent question waits for its
    /// turn to look up, another is given up.
    pub async fn works(&mut self, state: &Mutex<State>, subject: &Subject, urgent: bool) -> Vec<Belongs> {
        let mut level = vec![subject.clone()];
        for _ in 0..=DEPTH {
            {
                let state = state.lock().unwrap_or_else(PoisonError::into_inner);
                for object in &level {
                    let found = works_of(&state, &self.mapper, object);
                    if !found.is_empty() {
                        return found;
                    }
                }
                level.retain(|object| may_be_owned(&state, object));
            }
            let mut above = Vec::new();
            for object in level {
                let Some(owners) = self.owners(&object, urgent).await else {
                    return Vec::new();
                };
                above.extend(owners.iter().cloned());
            }
            above.truncate(BREADTH);
            if above.is_empty() {
                return Vec::new();
            }
            level = above;
        }
        Vec::new()
    }

    /// The owners of an object. `None`: there is no asking now.
    async fn owners(&mut self, object: &Subject, urgent: bool) -> Option<Arc<[Subject]>> {
        let now = Instant::now();
        if let Some(known) = self.known.get_mut(object) {
            let certain = !known.owners.is_empty() && !object.uid.is_empty();
            if certain || now.saturating_duration_since(known.at) < NOBODY_FOR {
                return Some(known.owners.clone());
            }
        }
        let (tokens, at) = &mut self.lookups;
        *tokens = (*tokens + (now - *at).as_secs_f64() * LOOKUPS.1).min(LOOKUPS.0);
        *at = now;
        if *tokens < 1.0 {
            if !urgent {
                return None;
            }
            tokio::time::sleep(Duration::from_secs_f64((1.0 - *tokens) / LOOKUPS.1)).await;
        }
        self.lookups.0 -= 1.0;
        let owners: Arc<[Subject]> = match self.ask(object).await {
            Ok(owners) => owners.into(),
            Err(error) => {
                tracing::debug!(object = object.told(), %error, "its owners can not be told");
                // What is refused or gone stays so for a while; a server that does not answer says nothing.
                if error.code() == 0 && !matches!(error, RequestError::UnknownKind(_)) {
                    return None;
                }
                Arc::default()
            }
        };
        self.known.insert(
            object.clone(),
            Known {
                owners: owners.clone(),
                at: now,
            },
        );
        Some(owners)
    }

    async fn ask(&self, object: &Subject) -> Result<Vec<Subject>, RequestError> {
        let served = self.mapper.resolve(&self.client, &identity(object)).await?;
        let request = http::Request::get(served.object(&object.namespace, &object.name))
            .header(http::header::ACCEPT, METADATA)
            .body(Vec::new())
            .map_err(RequestError::Build)?;
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, self.client.request::<Partial>(request)).await;
        let found = answer
            .map_err(|_| RequestError::Timeout)?
            .map_err(|e| RequestError::Kube(Box::new(e)))?
            .metadata;
        if !object.uid.is_empty() && object.uid != found.uid {
            // Another of the same name: the one that was meant is gone.
            return Ok(Vec::new());
        }
        let mut owners = Vec::new();
        for mut owner in found.owner_references.into_iter().take(BREADTH) {
            // A kind that is not served has no object to follow.
            if let Ok(served) = self.mapper.resolve(&self.client, &identity(&owner)).await {
                if served.namespaced {
                    owner.namespace.clone_from(&object.namespace);
                }
                owners.push(owner);
            }
        }
        Ok(owners)
    }
}

fn identity(object: &Subject) -> Identity {
    let (group, version) = object
        .api_version
        .split_once('/')
        .unwrap_or(("", &object.api_version));
    Identity {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: object.kind.clone(),
        namespace: object.namespace.clone(),
        name: object.name.clone(),
    }
}

/// The works that applied the object itself. Kinds of applied objects are known: nothing is asked.
fn works_of(state: &State, mapper: &Mapper, object: &Subject) -> Vec<Belongs> {
    let Some(served) = mapper.known(object.group(), &object.kind) else {
        return Vec::new();
    };
    let key = ObjectKey {
        group: served.group.clone(),
        resource: served.plural.clone(),
        namespace: object.namespace.clone(),
        name: object.name.clone(),
    };
    let mut found: Vec<Belongs> = Vec::new();
    for name in state.owners.get(&key).into_iter().flatten() {
        let Some(work) = state.works.get(name) else {
            continue;
        };
        // Until the first look at it ended, its UID is not known; an older object of the name is not ours.
        let same = |uid: &str| object.uid.is_empty() || uid.is_empty() || uid == object.uid;
        let ours =
            |m: &crate::work::state::ManifestState| m.key.as_ref() == Some(&key) && !m.blind && same(&m.uid);
        if work.manifests.iter().any(ours) {
            let uid = work.work.metadata.uid.clone().unwrap_or_default();
            found.push((name.clone(), uid));
        }
    }
    found.sort();
    found
}

/// Whether works applied anything that could own the object: something in its namespace, or a custom object of the cluster.
fn may_be_owned(state: &State, object: &Subject) -> bool {
    state.hosts.contains_key("") || state.hosts.contains_key(&object.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::state::ManifestState;
    use muster_crds::work::v1::ManifestWork;
    use serde_json::{Value, json};
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A cluster that serves a few objects, and counts what it is asked.
    fn cluster(objects: HashMap<&'static str, Value>) -> (Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let path = request.uri().path().to_owned();
            let kinds = |list: Value| {
                Some(json!({"kind": "APIResourceList", "groupVersion": "v", "resources": list}))
            };
            let found = match path.as_str() {
                "/api/v1" => kinds(json!([
                    {"name": "pods", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": []},
                    {"name": "nodes", "singularName": "", "namespaced": false, "kind": "Node", "verbs": []}])),
                "/apis/apps/v1" => kinds(json!([
                    {"name": "deployments", "singularName": "", "namespaced": true, "kind": "Deployment", "verbs": []},
                    {"name": "replicasets", "singularName": "", "namespaced": true, "kind": "ReplicaSet", "verbs": []}])),
                path => {
                    if path.contains("/namespaces/") {
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                    objects.get(path).cloned()
                }
            };
            let (code, body) = match found {
                Some(object) => (200, object),
                None => (
                    404,
                    json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "no"}),
                ),
            };
            let answer = http::Response::builder()
                .status(code)
                .body(kube::client::Body::from(body.to_string().into_bytes()));
            std::future::ready(answer)
        });
        (Client::new(service, "default"), asked)
    }

    fn subject(api_version: &str, kind: &str, namespace: &str, name: &str) -> Subject {
        Subject {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
            uid: name.into(),
        }
    }

    fn owned(name: &str, owner: Option<(&str, &str, &str)>) -> Value {
        let owners: Vec<Value> = owner
            .iter()
            .map(|(api, kind, name)| json!({"apiVersion": api, "kind": kind, "name": name, "uid": name}))
            .collect();
        json!({"metadata": {"uid": name, "ownerReferences": owners}})
    }

    fn state() -> Mutex<State> {
        let mut state = State::default();
        let work: ManifestWork =
            serde_json::from_value(json!({"apiVersion": "work.open-cluster-management.io/v1",
            "kind": "ManifestWork", "metadata": {"name": "shop", "uid": "u"}}))
            .unwrap();
        state.work_applied(work);
        let key = ObjectKey {
            group: "apps".into(),
            resource: "deployments".into(),
            namespace: "shop".into(),
            name: "web".into(),
        };
        let manifest = ManifestState {
            uid: "web".into(),
            ..ManifestState::default()
        };
        state.works.get_mut("shop").unwrap().manifests.push(manifest);
        state.own(&key, "shop", 0);
        Mutex::new(state)
    }

    #[tokio::test]
    async fn owners_lead_to_the_work() {
        let (client, asked) = cluster(HashMap::from([
            (
                "/api/v1/namespaces/shop/pods/web-1-a",
                owned("web-1-a", Some(("apps/v1", "ReplicaSet", "web-1"))),
            ),
            (
                "/apis/apps/v1/namespaces/shop/replicasets/web-1",
                owned("web-1", Some(("apps/v1", "Deployment", "web"))),
            ),
            ("/api/v1/namespaces/shop/pods/lonely", owned("lonely", None)),
            (
                "/api/v1/namespaces/shop/pods/foreign",
                owned("foreign", Some(("nobody.example/v1", "Thing", "t"))),
            ),
            (
                "/apis/apps/v1/namespaces/shop/replicasets/turning",
                owned("turning", Some(("apps/v1", "ReplicaSet", "turning"))),
            ),
        ]));
        let mapper = Arc::new(Mapper::default());
        // As applying did.
        let deployment = subject("apps/v1", "Deployment", "shop", "web");
        mapper.resolve(&client, &identity(&deployment)).await.unwrap();
        let mut lineage = Lineage::new(client, mapper);
        let state = state();
        let mut older = deployment.clone();
        older.uid = "older".into();
        let ours = [("shop".to_owned(), "u".to_owned())];
        let cases = [
            (deployment, &ours[..], 0),
            (subject("v1", "Pod", "shop", "web-1-a"), &ours[..], 2),
            (subject("v1", "Pod", "shop", "web-1-a"), &ours[..], 0),
            (subject("apps/v1", "ReplicaSet", "shop", "web-1"), &ours[..], 0),
            (subject("v1", "Pod", "shop", "lonely"), &[], 1),
            (subject("v1", "Pod", "shop", "lonely"), &[], 0),
            (subject("v1", "Pod", "shop", "foreign"), &[], 1),
            (subject("v1", "Pod", "shop", "gone"), &[], 1),
            (subject("apps/v1", "ReplicaSet", "shop", "turning"), &[], 1),
            // Nothing of any work is there: nobody is asked.
            (subject("v1", "Pod", "elsewhere", "web-1-a"), &[], 0),
            (subject("v1", "Node", "", "n"), &[], 0),
            (older, &[], 1),
        ];
        for (object, expected, requests) in cases {
            let before = asked.load(Ordering::SeqCst);
            let found = lineage.works(&state, &object, true).await;
            assert_eq!(found, expected, "{object:?}");
            assert_eq!(
                asked.load(Ordering::SeqCst) - before,
                requests,
                "requests for {object:?}"
            );
        }
    }

    #[tokio::test]
    async fn look_ups_are_bounded() {
        let (client, asked) = cluster(HashMap::new());
        let mut lineage = Lineage::new(client, Arc::default());
        let state = state();
        for number in 0..500 {
            let pod = subject("v1", "Pod", "shop", &format!("p{number}"));
            assert!(lineage.works(&state, &pod, false).await.is_empty());
        }
        let asked = asked.load(Ordering::SeqCst);
        assert!((50..200).contains(&asked), "{asked}");
    }
}
