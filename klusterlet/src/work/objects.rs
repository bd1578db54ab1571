//! Reading and writing objects of any kind on the managed cluster, and finding out what kinds it serves.
//!
//! Objects are plain JSON here: the agent passes on what it does not understand, so a typed client would only be in the way.

use super::manifest::Identity;
use crate::limits::{Answer, Held, Server, Way};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// No single request may last longer than this: a link that is cut without a word gives no other sign.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// What is written may meet a webhook that does not answer. The server gives up on that after 30 s at most, and then has
/// something to say about it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(35);

/// Why a request to the managed cluster or the hub gave no object.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The server, or the way to it, said no.
    #[error("{}", words(.0))]
    Kube(#[source] Box<kube::Error>),
    /// No answer in time.
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    /// The server has asked to be left alone.
    #[error("the API server has too much to do and asks to be left alone for {} s", .0.as_secs().max(1))]
    Held(Duration),
    /// The request could not be built.
    #[error("the request could not be built: {0}")]
    Build(#[source] http::Error),
    /// The kind is not served.
    #[error("the server doesn't have a resource type {0:?}")]
    UnknownKind(String),
}

/// The server's own words where it gave any, without wrapping.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

impl RequestError {
    /// HTTP code of the server's answer; 0 when there was none.
    pub fn code(&self) -> u16 {
        match self {
            Self::Kube(e) => match &**e {
                kube::Error::Api(status) => status.code,
                _ => 0,
            },
            Self::Held(_) => 429,
            _ => 0,
        }
    }

    /// Reason of the server's Status.
    pub fn reason(&self) -> &str {
        match self {
            Self::Kube(e) => match &**e {
                kube::Error::Api(status) => &status.reason,
                _ => "",
            },
            _ => "",
        }
    }

    /// The object, or the resource, is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    /// The resource itself is not there, or not there: it is served no more, or under another name or scope. What misses an
    /// object, or a namespace, names it.
    pub fn is_unserved(&self) -> bool {
        let Self::Kube(error) = self else { return false };
        let kube::Error::Api(status) = &**error else {
            return false;
        };
        status.code == 404 && status.details.as_ref().is_none_or(|d| d.name.is_empty())
    }

    /// Somebody wrote in between.
    pub fn is_conflict(&self) -> bool {
        self.code() == 409 && self.reason() != "AlreadyExists"
    }

    /// The server has no room to store anything.
    pub fn is_no_room(&self) -> bool {
        match self {
            Self::Kube(error) => match &**error {
                kube::Error::Api(status) => muster_crds::storage::is_full(status.code, &status.message),
                _ => false,
            },
            _ => false,
        }
    }

    /// Another field manager has a field that was applied: asking again changes nothing.
    pub fn is_field_conflict(&self) -> bool {
        let Self::Kube(error) = self else { return false };
        let kube::Error::Api(status) = &**error else {
            return false;
        };
        let causes = status.details.as_ref().map_or(&[][..], |d| &d.causes);
        self.is_conflict() && causes.iter().any(|c| c.reason == "FieldManagerConflict")
    }

    /// The name is taken.
    pub fn already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }
}

/// A resource as the cluster serves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Served {
    /// API group, `""` for core.
    pub group: String,
    /// Version it is asked for in.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Plural name, as in URLs.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl Served {
    /// `/api/v1` or `/apis/<group>/<version>`.
    pub fn root(&self) -> String {
        root(&self.group, &self.version)
    }

    /// URL path of the collection, in a namespace or over all (`""`).
    pub fn collection(&self, namespace: &str) -> String {
        if self.namespaced && !namespace.is_empty() {
            format!("{}/namespaces/{namespace}/{}", self.root(), self.plural)
        } else {
            format!("{}/{}", self.root(), self.plural)
        }
    }

    /// URL path of one object.
    pub fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection(namespace), escaped(name, b":"))
    }
}

/// A text as a part of a URL: all but what needs no escape.
pub fn escaped(text: &str, also_plain: &[u8]) -> String {
    use std::fmt::Write as _;
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also_plain.contains(&byte) {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    }
}

/// One request that answers with an object.
pub async fn request(
    way: &impl Way,
    method: http::Method,
    path: &str,
    content_type: &str,
    body: Option<&Value>,
) -> Result<Value, RequestError> {
    let bytes = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
    let asked = if method != http::Method::GET && way.server().is_some_and(Server::is_dry) {
        let mark = if path.contains('?') { '&' } else { '?' };
        Cow::Owned(format!("{path}{mark}dryRun=All"))
    } else {
        Cow::Borrowed(path)
    };
    let limit = if method == http::Method::GET {
        REQUEST_TIMEOUT
    } else {
        WRITE_TIMEOUT
    };
    let (client, method, asked, bytes) = (way.client(), &method, &*asked, &bytes);
    let make = move || async move {
        let request = http::Request::builder()
            .method(method)
            .uri(asked)
            .header(http::header::CONTENT_TYPE, content_type)
            .header(http::header::ACCEPT, JSON)
            .body(Body::from(bytes.clone()))
            .map_err(|e| (RequestError::Build(e), None))?;
        match tokio::time::timeout(limit, send(client, request)).await {
            Ok(answer) => answer.map_err(|(e, pause)| (RequestError::Kube(Box::new(e)), pause)),
            Err(_) => Err((RequestError::Timeout, None)),
        }
    };
    let result = match way.server() {
        Some(server) => match server.run(judge, make).await {
            Ok(result) => result,
            Err(Held(wait)) => return Err(RequestError::Held(wait)),
        },
        None => make().await,
    };
    result.map_err(|(error, _)| error)
}

/// The answer, or the error and how long the server wants to be left alone.
async fn send(
    client: &Client,
    request: http::Request<Body>,
) -> Result<Value, (kube::Error, Option<Duration>)> {
    let answer = client.send(request).await.map_err(|e| (e, None))?;
    let code = answer.status();
    let pause = answer
        .headers()
        .get(http::header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let bytes = answer.into_body().collect_bytes().await.map_err(|e| (e, pause))?;
    if !code.is_client_error() && !code.is_server_error() {
        return serde_json::from_slice(&bytes).map_err(|e| (kube::Error::SerdeError(e), pause));
    }
    // Proxies, and servers that have too much to do, answer with plain text.
    let status = serde_json::from_slice::<Status>(&bytes).unwrap_or_else(|_| {
        let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
        Status::failure(String::from_utf8_lossy(&bytes).trim(), &reason).with_code(code.as_u16())
    });
    Err((kube::Error::Api(Box::new(status)), pause))
}

/// What an answer tells about the server.
fn judge(result: &Result<Value, (RequestError, Option<Duration>)>) -> Answer {
    let Err((error, pause)) = result else {
        return Answer::Fine;
    };
    match (error.code(), error) {
        (429, _) => Answer::Refused(*pause),
        (503, _) if pause.is_some() => Answer::Refused(*pause),
        // A webhook that can not be reached is not the server's fault.
        (500, error) if error.to_string().contains("webhook") => Answer::Fine,
        (500.., _) | (0, RequestError::Kube(_) | RequestError::Timeout) => Answer::Failing,
        _ => Answer::Fine,
    }
}

/// `application/json`.
pub const JSON: &str = "application/json";
/// JSON merge patch, RFC 7386.
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// Server-side apply. JSON is YAML.
pub const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// GET.
pub async fn get(way: &impl Way, path: &str) -> Result<Value, RequestError> {
    request(way, http::Method::GET, path, JSON, None).await
}

/// POST to a collection.
pub async fn create(way: &impl Way, path: &str, object: &Value) -> Result<Value, RequestError> {
    let path = format!("{path}?fieldManager={}", super::drift::FIELD_MANAGER);
    request(way, http::Method::POST, &path, JSON, Some(object)).await
}

/// PUT; the object's resourceVersion guards it.
pub async fn replace(way: &impl Way, path: &str, object: &Value) -> Result<Value, RequestError> {
    let path = format!("{path}?fieldManager={}", super::drift::FIELD_MANAGER);
    request(way, http::Method::PUT, &path, JSON, Some(object)).await
}

/// PATCH with a merge patch.
pub async fn merge(way: &impl Way, path: &str, patch: &Value) -> Result<Value, RequestError> {
    let path = format!("{path}?fieldManager={}", super::drift::FIELD_MANAGER);
    request(way, http::Method::PATCH, &path, MERGE_PATCH, Some(patch)).await
}

/// DELETE in the background, only the object with this UID. The answer is a Status when it is gone at once.
pub async fn delete(way: &impl Way, path: &str, uid: &str) -> Result<Value, RequestError> {
    let mut options =
        serde_json::json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    if !uid.is_empty() {
        options["preconditions"] = serde_json::json!({ "uid": uid });
    }
    request(way, http::Method::DELETE, path, JSON, Some(&options)).await
}

/// What kinds the cluster serves, asked once per group version and again when a kind is missing.
#[derive(Debug)]
pub struct Mapper {
    known: Mutex<HashMap<(String, String), Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    kinds: Arc<HashMap<String, Arc<Served>>>,
    asked: Instant,
}

/// A missing kind is not asked for again sooner than this.
const MISS_TTL: Duration = Duration::from_millis(250);

impl Default for Mapper {
    fn default() -> Self {
        Self {
            known: Mutex::new(HashMap::new()),
        }
    }
}

impl Mapper {
    /// The resource behind a manifest's apiVersion and kind.
    pub async fn resolve(&self, client: &impl Way, identity: &Identity) -> Result<Arc<Served>, RequestError> {
        let key = (identity.group.clone(), identity.version.clone());
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if let Some(known) = known {
            if let Some(served) = known.kinds.get(&identity.kind) {
                return Ok(served.clone());
            }
            if known.asked.elapsed() < MISS_TTL {
                return Err(RequestError::UnknownKind(identity.kind.clone()));
            }
        }
        let kinds = Arc::new(self.ask(client, &identity.group, &identity.version).await?);
        let found = kinds.get(&identity.kind).cloned();
        let known = Known {
            kinds,
            asked: Instant::now(),
        };
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, known);
        found.ok_or_else(|| RequestError::UnknownKind(identity.kind.clone()))
    }

    /// The resource by its plural, in the version given: how AppliedManifestWorks name objects.
    pub async fn by_plural(
        &self,
        client: &impl Way,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Result<Arc<Served>, RequestError> {
        let key = (group.to_owned(), version.to_owned());
        let find =
            |kinds: &HashMap<String, Arc<Served>>| kinds.values().find(|s| s.plural == plural).cloned();
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if let Some(served) = known.and_then(|k| find(&k.kinds)) {
            return Ok(served);
        }
        let kinds = Arc::new(self.ask(client, group, version).await?);
        let found = find(&kinds);
        let known = Known {
            kinds,
            asked: Instant::now(),
        };
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, known);
        found.ok_or_else(|| RequestError::UnknownKind(plural.to_owned()))
    }

    /// The resource of a kind in whatever version it was asked for before. Nothing is asked now.
    pub fn known(&self, group: &str, kind: &str) -> Option<Arc<Served>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_group = known.iter().filter(|((g, _), _)| g == group);
        of_group.find_map(|(_, known)| known.kinds.get(kind).cloned())
    }

    /// Forgets a group: its CustomResourceDefinitions changed.
    pub fn forget_group(&self, group: &str) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(g, _), _| g != group);
    }

    async fn ask(
        &self,
        client: &impl Way,
        group: &str,
        version: &str,
    ) -> Result<HashMap<String, Arc<Served>>, RequestError> {
        let list = match get(client, &root(group, version)).await {
            Ok(list) => list,
            Err(e) if e.is_not_found() => return Ok(HashMap::new()),
            Err(e) => return Err(e),
        };
        let list: APIResourceList = serde_json::from_value(list)
            .map_err(|e| RequestError::Kube(Box::new(kube::Error::SerdeError(e))))?;
        let resources = list.resources.into_iter().filter(|r| !r.name.contains('/'));
        Ok(resources
            .map(|r| {
                let served = Served {
                    group: group.to_owned(),
                    version: version.to_owned(),
                    kind: r.kind.clone(),
                    plural: r.name,
                    namespaced: r.namespaced,
                };
                (r.kind, Arc::new(served))
            })
            .collect())
    }
}
