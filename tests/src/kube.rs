//! One API server as a test sees it: objects of any kind as plain JSON by their URL path, and waits by watch.

use anyhow::Context as _;
use futures::StreamExt as _;
use http::Method;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::WatchEvent;
use kube::{Client, Config};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A server that does not answer at all is asked again after this.
const AGAIN: Duration = Duration::from_millis(50);
/// No single request of a test takes longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// What a server answered instead of an object. Code 0: it did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status.
    pub code: u16,
    /// Reason of the Status.
    pub reason: String,
    /// Its message, or why there was no answer.
    pub message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code, self.reason, self.message)
    }
}

impl std::error::Error for Refused {}

impl From<kube::Error> for Refused {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self {
                code: status.code,
                reason: status.reason.clone(),
                message: status.message.clone(),
            },
            other => Self {
                code: 0,
                reason: String::new(),
                message: format!("{:#}", anyhow::Error::new(other)),
            },
        }
    }
}

/// Objects at the moment, by namespace and name.
pub type Objects = BTreeMap<(String, String), Value>;

/// A client of one server under one identity.
#[derive(Clone)]
pub struct Kube {
    label: String,
    client: Client,
}

impl fmt::Debug for Kube {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kube").field(&self.label).finish()
    }
}

impl Kube {
    /// With a client at hand; `label` says in errors which server it is.
    pub fn new(label: &str, client: Client) -> Self {
        Self {
            label: label.to_owned(),
            client,
        }
    }

    /// As whom a kubeconfig file says.
    pub async fn from_file(label: &str, path: &Path) -> anyhow::Result<Self> {
        crate::control_plane::init();
        let config = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
        let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        config.connect_timeout = Some(Duration::from_secs(5));
        Ok(Self::new(label, Client::try_from(config)?))
    }

    /// An administrator who speaks for another user.
    pub async fn impersonating(path: &Path, user: &str, groups: &[&str]) -> anyhow::Result<Self> {
        crate::control_plane::init();
        let config = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
        let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        config.auth_info.impersonate = Some(user.to_owned());
        let groups = groups.iter().map(|group| (*group).to_owned());
        config.auth_info.impersonate_groups = Some(groups.collect());
        Ok(Self::new(user, Client::try_from(config)?))
    }

    /// The client, for what this type does not do.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Any request with a JSON answer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refused> {
        let bytes = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, kind);
        let refused = |message: String| Refused {
            code: 0,
            reason: String::new(),
            message,
        };
        let request = request.body(bytes).map_err(|e| refused(e.to_string()))?;
        match tokio::time::timeout(REQUEST_TIMEOUT, self.client.request(request)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(refused(format!(
                "no answer within {} s",
                REQUEST_TIMEOUT.as_secs()
            ))),
        }
    }

    /// One object, or a whole list object.
    pub async fn get(&self, path: &str) -> Result<Value, Refused> {
        self.request(Method::GET, path, JSON, None).await
    }

    /// One object if it is there.
    pub async fn find(&self, path: &str) -> Result<Option<Value>, Refused> {
        match self.get(path).await {
            Ok(object) => Ok(Some(object)),
            Err(refused) if refused.code == 404 => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// The items of a collection.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, Refused> {
        let mut list = self.get(path).await?;
        Ok(list["items"]
            .as_array_mut()
            .map(std::mem::take)
            .unwrap_or_default())
    }

    /// POST to a collection.
    pub async fn create(&self, collection: &str, object: &Value) -> Result<Value, Refused> {
        self.request(Method::POST, collection, JSON, Some(object)).await
    }

    /// POST, where an object that is there already is fine.
    pub async fn ensure(&self, collection: &str, object: &Value) -> Result<(), Refused> {
        match self.create(collection, object).await {
            Err(refused) if refused.reason != "AlreadyExists" => Err(refused),
            _ => Ok(()),
        }
    }

    /// PUT.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value, Refused> {
        self.request(Method::PUT, path, JSON, Some(object)).await
    }

    /// PATCH with a merge patch.
    pub async fn merge(&self, path: &str, patch: &Value) -> Result<Value, Refused> {
        self.request(Method::PATCH, path, MERGE, Some(patch)).await
    }

    /// Server-side apply.
    pub async fn apply(
        &self,
        path: &str,
        manager: &str,
        force: bool,
        object: &Value,
    ) -> Result<Value, Refused> {
        let path = format!("{path}?fieldManager={manager}&force={force}");
        self.request(Method::PATCH, &path, APPLY, Some(object)).await
    }

    /// DELETE in the background.
    pub async fn delete(&self, path: &str) -> Result<Value, Refused> {
        self.request(Method::DELETE, path, JSON, None).await
    }

    /// DELETE with this propagation policy.
    pub async fn delete_with(&self, path: &str, policy: &str) -> Result<Value, Refused> {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
        self.request(Method::DELETE, path, JSON, Some(&options)).await
    }

    /// Waits until `check` is content with one object; `None` when it is not there.
    pub async fn until<T>(
        &self,
        path: &str,
        within: Duration,
        what: &str,
        check: impl Fn(Option<&Value>) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        let (collection, name) = path.rsplit_once('/').context("an object's path has a name")?;
        let selected = format!("{collection}?fieldSelector=metadata.name%3D{name}");
        self.until_all(&selected, within, what, |objects| check(objects.values().next()))
            .await
    }

    /// Waits until an object is gone.
    pub async fn until_gone(&self, path: &str, within: Duration) -> anyhow::Result<()> {
        self.until(path, within, &format!("{path} goes"), |object| match object {
            None => Ok(()),
            Some(object) => Err(format!("it is still there: {}", object["metadata"])),
        })
        .await
    }

    /// Waits until an object is there.
    pub async fn until_there(&self, path: &str, within: Duration) -> anyhow::Result<Value> {
        self.until(path, within, &format!("{path} comes"), |object| {
            object.cloned().ok_or("it is not there".into())
        })
        .await
    }

    /// Waits until `check` is content with a collection (`path` may have a query).
    pub async fn until_all<T>(
        &self,
        path: &str,
        within: Duration,
        what: &str,
        check: impl Fn(&Objects) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        let missing = Mutex::new("the server was not asked yet".to_owned());
        let tell = |problem| *missing.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        let attempts = async {
            loop {
                match self.follow(path, &check, &tell).await {
                    Ok(value) => return value,
                    Err(refused) if refused.code == 200 => {}
                    Err(refused) => tell(refused.to_string()),
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        if let Ok(value) = tokio::time::timeout(within, attempts).await {
            return Ok(value);
        }
        let missing = missing.lock().unwrap_or_else(PoisonError::into_inner);
        anyhow::bail!(
            "{}: {what}: not within {} s: {missing}",
            self.label,
            within.as_secs()
        )
    }

    /// Lists and watches until `check` is content. Code 200 when the watch only ended.
    async fn follow<T>(
        &self,
        path: &str,
        check: &impl Fn(&Objects) -> Result<T, String>,
        tell: &impl Fn(String),
    ) -> Result<T, Refused> {
        let list = self.get(path).await?;
        let mut objects: Objects = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| (key(item), item.clone()))
            .collect();
        match check(&objects) {
            Ok(value) => return Ok(value),
            Err(problem) => tell(problem),
        }
        let from = list["metadata"]["resourceVersion"].as_str().unwrap_or("0");
        let mark = if path.contains('?') { '&' } else { '?' };
        let request = http::Request::get(format!(
            "{path}{mark}watch=1&resourceVersion={from}&timeoutSeconds=60"
        ));
        let request = request.body(Vec::new()).map_err(|e| Refused {
            code: 0,
            reason: String::new(),
            message: e.to_string(),
        })?;
        let events = self.client.request_events::<Value>(request).await?;
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    objects.insert(key(&object), object);
                }
                WatchEvent::Deleted(object) => {
                    objects.remove(&key(&object));
                }
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
            }
            match check(&objects) {
                Ok(value) => return Ok(value),
                Err(problem) => tell(problem),
            }
        }
        Err(Refused {
            code: 200,
            reason: String::new(),
            message: "the watch ended".into(),
        })
    }

    /// Every collection the server serves with `list` and `get`, as `(group, URL path over all namespaces)`.
    pub async fn collections(&self) -> Result<Vec<(String, String)>, Refused> {
        let mut versions = vec![(String::new(), "/api/v1".to_owned())];
        let groups = self.get("/apis").await?;
        for group in groups["groups"].as_array().into_iter().flatten() {
            let name = group["name"].as_str().unwrap_or_default();
            let version = group["preferredVersion"]["groupVersion"]
                .as_str()
                .unwrap_or_default();
            versions.push((name.to_owned(), format!("/apis/{version}")));
        }
        let mut found = Vec::new();
        for (group, root) in versions {
            let resources = self.get(&root).await?;
            for resource in resources["resources"].as_array().into_iter().flatten() {
                let name = resource["name"].as_str().unwrap_or_default();
                let lists = resource["verbs"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|v| v == "list");
                if lists && !name.contains('/') {
                    found.push((group.clone(), format!("{root}/{name}")));
                }
            }
        }
        Ok(found)
    }

    /// The resourceVersion of every object of every kind but those that only tell the time: leases and events.
    pub async fn versions(&self) -> Result<BTreeMap<String, String>, Refused> {
        let mut versions = BTreeMap::new();
        for (_, path) in self.collections().await? {
            if ["leases", "events", "componentstatuses"]
                .iter()
                .any(|skipped| path.ends_with(skipped))
            {
                continue;
            }
            for object in self.list(&path).await? {
                let (namespace, name) = key(&object);
                let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                versions.insert(format!("{path} {namespace}/{name}"), version.to_owned());
            }
        }
        Ok(versions)
    }
}

impl Kube {
    /// Reads an object, changes it and writes it as a whole (to `path` with what is `beside` it: a subresource, a query), as
    /// often as somebody else writes in between.
    pub async fn edit(
        &self,
        path: &str,
        beside: &str,
        mut change: impl FnMut(&mut Value),
    ) -> Result<Value, Refused> {
        loop {
            let mut object = self.get(path).await?;
            change(&mut object);
            match self.replace(&format!("{path}{beside}"), &object).await {
                Err(refused) if refused.code == 409 => {}
                answer => return answer,
            }
        }
    }
}

fn key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}
