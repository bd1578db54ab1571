//! A small API server in memory, in virtual time: objects, watches, certificate signing, and a script of refusals.

mod wire;

use super::super::clock::Clock;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use wire::{Answer, body, parse, selected, status, unescape, within};

/// Who asks.
#[derive(Clone, Debug)]
pub enum Caller {
    Admin,
    Bootstrap(String),
    Agent { not_after: Timestamp },
}

/// What happens to certificate requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Signing {
    Approve,
    Deny,
    Ignore,
}

pub struct State {
    pub objects: BTreeMap<String, Value>,
    /// Revision, key, what happened, object, object before.
    events: Vec<(u64, String, &'static str, Value, Value)>,
    revision: u64,
    pub log: Vec<(String, String, u16)>,
    pub signing: Signing,
    pub lifetime: SignedDuration,
    pub down: bool,
    /// How late it answers.
    pub slow: Duration,
    pub bootstrap_tokens: Vec<String>,
    /// Certificates signed before this are refused.
    pub revoked_before: Option<Timestamp>,
    pub ahead: SignedDuration,
    pub forbidden: Vec<String>,
    pub refused: usize,
    /// Agents may do nothing.
    pub unaccepting: bool,
    /// What agents may not do, as `METHOD path`.
    pub closed: Vec<String>,
    /// How often all watches were ended.
    pub watches: u32,
    /// Paths that it does not serve.
    pub missing: Vec<String>,
}

#[derive(Clone)]
pub struct Stub {
    pub name: String,
    pub clock: Clock,
    state: Arc<Mutex<State>>,
    moved: watch::Sender<u64>,
}

impl Stub {
    pub fn new(name: &str, clock: &Clock) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            events: Vec::new(),
            revision: 1,
            log: Vec::new(),
            signing: Signing::Approve,
            lifetime: SignedDuration::from_hours(24),
            down: false,
            slow: Duration::ZERO,
            bootstrap_tokens: vec!["t0ken".into()],
            revoked_before: None,
            ahead: SignedDuration::ZERO,
            forbidden: Vec::new(),
            refused: 0,
            unaccepting: false,
            closed: Vec::new(),
            watches: 0,
            missing: Vec::new(),
        };
        Self {
            name: name.into(),
            clock: clock.clone(),
            state: Arc::new(Mutex::new(state)),
            moved: watch::channel(1).0,
        }
    }

    pub fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap())
    }

    pub fn client(&self, caller: Caller) -> Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (this, caller) = (this.clone(), caller.clone());
            async move { this.serve(&caller, request).await }
        });
        Client::new(service, "default")
    }

    async fn serve(
        &self,
        caller: &Caller,
        request: http::Request<kube::client::Body>,
    ) -> Result<Answer, std::io::Error> {
        let (head, sent) = request.into_parts();
        let bytes = sent.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let path = head.uri.path().to_owned();
        if self.with(|s| s.down) {
            return Err(std::io::Error::other("connection refused"));
        }
        // The way there and back takes time, as everywhere.
        tokio::time::sleep(Duration::from_millis(2) + self.with(|s| s.slow)).await;
        let query: BTreeMap<String, String> = head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.to_owned(), unescape(v)))
            .collect();
        let (code, value) = match self.allowed(caller, head.method.as_str(), &path) {
            Err(refusal) => refusal,
            Ok(()) if query.get("watch").is_some_and(|w| w == "true" || w == "1") => {
                return Ok(self.watch(&path, &query));
            }
            Ok(()) => self.answer(caller, &head.method, &path, &query, &bytes),
        };
        self.with(|s| s.log.push((head.method.to_string(), path.clone(), code)));
        let date = self.clock.here().checked_add(self.with(|s| s.ahead)).unwrap();
        let date = jiff::fmt::rfc2822::to_string(&date.to_zoned(jiff::tz::TimeZone::UTC)).unwrap();
        let text = if value.is_string() {
            value.as_str().unwrap().to_owned()
        } else {
            value.to_string()
        };
        Ok(http::Response::builder()
            .status(code)
            .header("date", date)
            .body(body(text))
            .unwrap())
    }

    fn allowed(&self, caller: &Caller, method: &str, path: &str) -> Result<(), (u16, Value)> {
        self.with(|s| {
            let known = match caller {
                Caller::Admin => true,
                Caller::Bootstrap(token) => s.bootstrap_tokens.contains(token),
                Caller::Agent { not_after } => {
                    let now = self.clock.here() + s.ahead;
                    let signed = *not_after - s.lifetime;
                    now < *not_after && s.revoked_before.is_none_or(|at| signed >= at)
                }
            };
            if !known {
                s.refused += 1;
                return Err(status(401, "Unauthorized", "Unauthorized"));
            }
            let asked = format!("{method} {path}");
            let closed = s.unaccepting || s.closed.contains(&asked);
            if closed && matches!(caller, Caller::Agent { .. }) {
                s.log.push((method.to_owned(), path.to_owned(), 403));
                return Err(status(403, "Forbidden", "not accepted"));
            }
            let bootstrap = matches!(caller, Caller::Bootstrap(_));
            if bootstrap && s.forbidden.iter().any(|f| asked.starts_with(f.as_str())) {
                return Err(status(403, "Forbidden", "the token does not allow that"));
            }
            Ok(())
        })
    }

    fn commit(&self, s: &mut State, key: &str, kind: &'static str, mut object: Value) -> Value {
        s.revision += 1;
        object["metadata"]["resourceVersion"] = s.revision.to_string().into();
        let old = s.objects.get(key).cloned().unwrap_or(Value::Null);
        match kind {
            "DELETED" => drop(s.objects.remove(key)),
            _ => drop(s.objects.insert(key.to_owned(), object.clone())),
        }
        s.events
            .push((s.revision, key.to_owned(), kind, object.clone(), old));
        self.moved.send_replace(s.revision);
        object
    }

    pub fn get(&self, key: &str) -> Option<Value> {
        self.with(|s| s.objects.get(key).cloned())
    }

    pub fn put(&self, key: &str, object: Value) {
        self.with(|s| {
            let kind = if s.objects.contains_key(key) {
                "MODIFIED"
            } else {
                "ADDED"
            };
            let mut object = object;
            if object["metadata"]["uid"].is_null() {
                object["metadata"]["uid"] = format!("uid-{}", s.revision).into();
            }
            let (_, name, _) = parse(key);
            object["metadata"]["name"] = name.unwrap().into();
            self.commit(s, key, kind, object);
        });
    }

    pub fn change(&self, key: &str, f: impl FnOnce(&mut Value)) {
        let mut object = self.get(key).unwrap_or_else(|| panic!("{key} is not there"));
        f(&mut object);
        self.put(key, object);
    }

    /// Ends all watches, as a server does from time to time.
    pub fn end_watches(&self) {
        self.with(|s| s.watches += 1);
        self.moved.send_modify(|_| {});
    }

    pub fn delete(&self, key: &str) {
        self.with(|s| {
            let object = s.objects[key].clone();
            self.commit(s, key, "DELETED", object);
        });
    }

    fn answer(
        &self,
        caller: &Caller,
        method: &http::Method,
        path: &str,
        query: &BTreeMap<String, String>,
        bytes: &[u8],
    ) -> (u16, Value) {
        if self.with(|s| s.missing.iter().any(|missing| missing == path)) {
            return status(
                404,
                "NotFound",
                "the server could not find the requested resource",
            );
        }
        if matches!(path, "/livez" | "/healthz") {
            return (200, "ok".into());
        }
        if path == "/version" {
            return (
                200,
                json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
            );
        }
        let (collection, name, subresource) = parse(path);
        let plural = collection.rsplit('/').next().unwrap().to_owned();
        let sent: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
        if plural == "selfsubjectaccessreviews" {
            return (201, json!({"status": {"allowed": true}}));
        }
        let key = name.as_ref().map(|n| format!("{collection}/{n}"));
        let missing = || {
            let group = collection.split('/').nth(2).unwrap_or_default();
            let name = name.clone().unwrap_or_default();
            status(404, "NotFound", &format!("{plural}.{group} {name:?} not found"))
        };
        self.with(|s| match (method.as_str(), key) {
            ("GET", None) => {
                let items: Vec<Value> = s
                    .objects
                    .iter()
                    .filter(|(k, o)| within(k, &collection) && selected(o, query))
                    .map(|(_, o)| o.clone())
                    .collect();
                let revision = s.revision.to_string();
                (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": revision}, "items": items}))
            }
            ("GET", Some(key)) => s.objects.get(&key).map_or_else(missing, |o| (200, o.clone())),
            ("POST", _) => {
                let mut object = sent;
                let name = match object["metadata"]["name"].as_str() {
                    Some(name) => name.to_owned(),
                    None => format!("{}{}", object["metadata"]["generateName"].as_str().unwrap(), s.revision),
                };
                object["metadata"]["name"] = name.clone().into();
                object["metadata"]["uid"] = format!("uid-{}", s.revision).into();
                let key = format!("{collection}/{name}");
                if s.objects.contains_key(&key) {
                    return status(409, "AlreadyExists", &format!("{plural} {name:?} already exists"));
                }
                if plural == "certificatesigningrequests" {
                    let asked = Self::asked_for(&object);
                    object["spec"]["username"] = match caller {
                        Caller::Agent { .. } => asked.into(),
                        _ => "system:bootstrap:muster".into(),
                    };
                    self.sign(s, &mut object);
                }
                if plural == "customresourcedefinitions" {
                    object["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
                }
                (201, self.commit(s, &key, "ADDED", object))
            }
            ("PUT", Some(key)) => match s.objects.get(&key) {
                None => missing(),
                Some(old) if old["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] => {
                    status(409, "Conflict", "the object has been modified")
                }
                Some(old) => {
                    let mut object = sent;
                    object["status"] = old["status"].clone();
                    (200, self.commit(s, &key, "MODIFIED", object))
                }
            },
            ("PATCH", Some(key)) => match s.objects.get(&key).cloned() {
                None => missing(),
                Some(old) => {
                    let guard = &sent["metadata"]["resourceVersion"];
                    if guard.is_string() && *guard != old["metadata"]["resourceVersion"] {
                        return status(409, "Conflict", "the object has been modified");
                    }
                    let mut object = old.clone();
                    json_patch::merge(&mut object, &sent);
                    if subresource.is_some() {
                        let status = object["status"].take();
                        object = old;
                        object["status"] = status;
                    }
                    (200, self.commit(s, &key, "MODIFIED", object))
                }
            },
            ("DELETE", Some(key)) => match s.objects.get(&key).cloned() {
                None => missing(),
                Some(object) => {
                    self.commit(s, &key, "DELETED", object);
                    (200, json!({"kind": "Status", "status": "Success"}))
                }
            },
            (other, _) => panic!("{other} {path} by {caller:?} is not served"),
        })
    }

    /// The user that a request is for.
    pub fn asked_for(csr: &Value) -> String {
        use x509_parser::prelude::FromDer as _;
        let text = STANDARD.decode(csr["spec"]["request"].as_str().unwrap()).unwrap();
        let der = pem::parse(text).unwrap();
        let (_, request) =
            x509_parser::certification_request::X509CertificationRequest::from_der(der.contents()).unwrap();
        let mut names = request.certification_request_info.subject.iter_common_name();
        names.next().unwrap().as_str().unwrap().to_owned()
    }

    fn sign(&self, s: &State, csr: &mut Value) {
        let type_ = match s.signing {
            Signing::Approve => "Approved",
            Signing::Deny => "Denied",
            Signing::Ignore => return,
        };
        csr["status"]["conditions"] = json!([{"type": type_, "status": "True", "message": "so it is"}]);
        if s.signing == Signing::Approve {
            let now = self.clock.here() + s.ahead;
            let certificate = certificate(&Self::asked_for(csr), now, now + s.lifetime);
            csr["status"]["certificate"] = STANDARD.encode(certificate).into();
        }
    }

    fn watch(&self, path: &str, query: &BTreeMap<String, String>) -> Answer {
        let (collection, _, _) = parse(path);
        let from: u64 = query
            .get("resourceVersion")
            .and_then(|v| v.parse().ok())
            .unwrap_or(0);
        let begun = self.with(|s| s.watches);
        let frames = futures::stream::unfold(
            (
                self.clone(),
                self.moved.subscribe(),
                from,
                query.clone(),
                collection,
            ),
            move |(this, mut moved, mut from, query, collection)| async move {
                loop {
                    moved.borrow_and_update();
                    if this.with(|s| s.watches) != begun {
                        return None;
                    }
                    let (seen, next) = this.with(|s| {
                        let start = s.events.partition_point(|(r, ..)| *r <= from);
                        let found =
                            s.events[start..]
                                .iter()
                                .find_map(|(revision, key, kind, object, old)| {
                                    if !within(key, &collection) {
                                        return None;
                                    }
                                    let kind = match (
                                        selected(object, &query),
                                        !old.is_null() && selected(old, &query),
                                    ) {
                                        (true, _) => kind,
                                        (false, true) => "DELETED",
                                        (false, false) => return None,
                                    };
                                    Some((*revision, json!({"type": kind, "object": object})))
                                });
                        (s.revision, found)
                    });
                    if let Some((revision, event)) = next {
                        let frame = http_body::Frame::data(Bytes::from(format!("{event}\n")));
                        return Some((Ok(frame), (this, moved, revision, query, collection)));
                    }
                    from = seen;
                    if moved.changed().await.is_err() {
                        return None;
                    }
                }
            },
        );
        wire::streamed(frames)
    }
}

/// A certificate for a user with this life.
pub fn certificate(user: &str, from: Timestamp, to: Timestamp) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, user);
    let at = |t: Timestamp| time::OffsetDateTime::from_unix_timestamp(t.as_second()).unwrap();
    params.not_before = at(from);
    params.not_after = at(to);
    params.self_signed(&key).unwrap().pem()
}
