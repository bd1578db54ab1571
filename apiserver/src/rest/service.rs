//! The way of one request: who, what, may it, answer; whatever goes wrong comes out as a Status.

use super::params::Query;
use super::path::{self, RequestInfo};
use super::pretty::{self, Layout};
use super::respond::{self, Body};
use super::{
    Api, Call, Warned, body, delete, discovery, health, negotiate, openapi, pods, read, review, subresource,
    watch, write,
};
use crate::ApiError;
use crate::auth::{Attributes, UserInfo};
use crate::registry::Resource;
use crate::serve::Peer;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use serde_json::json;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Tells one request from another, in the answer and in the client's own logs.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Longest id a client may give its request.
const AUDIT_ID_LENGTH: usize = 64;

/// How long a request may take that is no watch, as kube-apiserver's `--request-timeout`. Its client may ask for less.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Verbs of requests for one object.
const OF_ONE: [&str; 4] = ["get", "update", "patch", "delete"];

/// How long the rest of a body nobody wants is waited for.
const DRAIN: Duration = Duration::from_secs(1);

impl<B> tower::Service<Request<B>> for Api
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move { Ok(api.answer(request).await) })
    }
}

impl Api {
    /// Answers one request. A panic in a handler becomes a 500.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let begun = Instant::now();
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let mut body = Some(body);
        let warned = Warned::default();
        let asker = OnceLock::new();
        let handled = self.handle(&parts, &info, &query, &mut body, &warned, &asker);
        let handled = AssertUnwindSafe(handled).catch_unwind();
        // Otherwise a body that does not come would hold its place among the requests in flight for good.
        let limit = time_limit(&info.verb, &query);
        let handled = match limit {
            None => handled.await,
            Some(limit) => tokio::time::timeout(limit, handled)
                .await
                .unwrap_or_else(|_| Ok(Err(out_of_time()))),
        };
        if let Some(unread) = body.filter(|b| !b.is_end_stream()) {
            // An answer before the end of the request would cost HTTP/1.1 clients their connection.
            let _ = tokio::time::timeout(DRAIN, body::read(unread)).await;
        }
        let format = || {
            let header = parts
                .headers
                .get(http::header::ACCEPT)
                .and_then(|v| v.to_str().ok());
            negotiate::accept(header).map(|a| a.format).unwrap_or_default()
        };
        let mut response = match handled {
            Ok(Ok(response)) => response,
            Ok(Err(e)) => respond::error(&e, format()),
            Err(_) => {
                tracing::error!(path = %info.path, verb = %info.verb, "a handler panicked");
                respond::error(
                    &ApiError::Internal("a handler failed unexpectedly".into()),
                    format(),
                )
            }
        };
        if !info.path.starts_with("/openapi") {
            let agent = parts
                .headers
                .get(http::header::USER_AGENT)
                .and_then(|v| v.to_str().ok());
            let is_custom = info.is_resource
                && self
                    .registry
                    .find(&info.group, &info.version, &info.resource)
                    .is_some_and(|r| r.custom.is_some());
            let layout = match pretty::is_wanted(query.get("pretty"), agent.unwrap_or_default()) {
                true if is_custom && response.status().is_success() => Layout::Indented,
                true => Layout::KindFirst,
                false => Layout::Line,
            };
            pretty::lay_out(&mut response, layout);
        }
        respond::warn_first(&mut response, &warned.take());
        response
            .headers_mut()
            .insert(AUDIT_ID, audit_id(parts.headers.get(AUDIT_ID)));
        let code = response.status().as_u16();
        let user = asker.get().map_or("", String::as_str);
        let (verb, path, took) = (info.verb.as_str(), info.path.as_str(), begun.elapsed());
        if path::is_mutating(verb) {
            tracing::debug!(verb, path, user, code, ?took, "request");
        } else {
            tracing::trace!(verb, path, user, code, ?took, "request");
        }
        let served = self.registry.find(&info.group, &info.version, &info.resource);
        let served = served.filter(|_| info.is_resource);
        self.metrics
            .request(&info.verb, served.as_deref(), code, begun.elapsed());
        response
    }

    async fn handle<B>(
        &self,
        parts: &Parts,
        info: &RequestInfo,
        query: &Query,
        body: &mut Option<B>,
        warned: &Warned,
        asker: &OnceLock<String>,
    ) -> Result<Response<Body>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let user = self.who(parts)?;
        asker.get_or_init(|| user.name.clone());
        let _seat = self.in_flight.seat(&user, &info.verb).await?;
        self.authorizer.require(&user, &attributes(info, query))?;
        if !info.is_resource {
            return self.other_path(parts, info, query);
        }
        query.check_timeout()?;
        if parts.uri.path().contains("//") {
            return Err(ApiError::NoSuchResource);
        }
        let resource = match self.registry.find(&info.group, &info.version, &info.resource) {
            Some(r) => r,
            // Groups of custom resources have no paths of their own.
            None if discovery::has_builtin_group(&self.registry, &info.group) => {
                return Err(ApiError::NoSuchResource);
            }
            None => return Ok(respond::no_such_path()),
        };
        let in_namespace = !info.namespace.is_empty() && info.resource != "namespaces";
        if info.resource == "namespaces" && info.name != info.namespace && info.group.is_empty() {
            // Namespaces are in no namespace.
            return Err(ApiError::NoSuchResource);
        }
        let needs_namespace = resource.namespaced
            && (!info.name.is_empty() || matches!(info.verb.as_str(), "create" | "deletecollection"));
        if needs_namespace && !in_namespace && info.name.is_empty() && resource.custom.is_none() {
            return Err(ApiError::MethodNotAllowed);
        }
        if (in_namespace && !resource.namespaced) || (needs_namespace && !in_namespace) {
            if resource.custom.is_some() {
                return Ok(respond::no_such_path());
            }
            return Err(ApiError::NoSuchResource);
        }
        let deprecation = resource.custom.as_ref().and_then(|c| c.deprecation.clone());
        let call = Call {
            info,
            query,
            user: &user,
            headers: &parts.headers,
            resource,
            warned,
        };
        if call.resource.has_verb(&info.verb) {
            let old = builtin_deprecation(&call.resource).map(str::to_owned);
            call.warn(old.into_iter().collect());
        }
        call.warn(deprecation.into_iter().collect());
        self.resource(&parts.method, &call, body).await
    }

    async fn resource<B>(
        &self,
        method: &Method,
        call: &Call<'_>,
        body: &mut Option<B>,
    ) -> Result<Response<Body>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let info = call.info;
        if !info.subresource.is_empty() {
            let sub = call
                .resource
                .subresource(&info.subresource)
                .ok_or_else(|| {
                    if call.resource.custom.is_some() {
                        ApiError::NotFound(call.subject())
                    } else {
                        ApiError::NoSuchResource
                    }
                })?
                .clone();
            if !sub.verbs.contains(&info.verb) {
                return Err(not_supported(call));
            }
            if *method == Method::HEAD {
                return Err(ApiError::MethodNotAllowed);
            }
            let bytes = if *method == Method::GET {
                Bytes::new()
            } else {
                read_body(body).await?
            };
            return subresource::serve(self, call, &sub, &bytes).await;
        }
        let named = !info.name.is_empty();
        if named && !OF_ONE.iter().any(|verb| call.resource.has_verb(verb)) {
            // What is only asked, or done, has no names.
            return Err(ApiError::NoSuchResource);
        }
        let wrong_place = match info.verb.as_str() {
            "create" => named,
            "update" | "patch" => !named,
            _ => false,
        };
        if wrong_place || *method == Method::HEAD || !call.resource.has_verb(&info.verb) {
            return Err(ApiError::MethodNotAllowed);
        }
        match info.verb.as_str() {
            "get" => read::get(self, call).await,
            "list" => read::list(self, call).await,
            "watch" => watch::serve(self, call).await,
            "create" if review::is_review(&call.resource) => {
                review::serve(self, call, &read_body(body).await?)
            }
            "create" if &*call.resource.storage == "/bindings" => {
                pods::bind_named(self, call, &read_body(body).await?).await
            }
            "create" => write::create(self, call, &read_body(body).await?).await,
            "update" => write::update(self, call, "", &read_body(body).await?).await,
            "patch" => write::patch(self, call, "", &read_body(body).await?).await,
            "delete" => delete::delete(self, call, &read_body(body).await?).await,
            "deletecollection" => delete::collection(self, call, &read_body(body).await?).await,
            _ => Err(ApiError::MethodNotAllowed),
        }
    }

    /// The identity a request comes with: put there by this process, or proven by certificate or token.
    fn who(&self, parts: &Parts) -> Result<UserInfo, ApiError> {
        if let Some(user) = parts.extensions.get::<UserInfo>() {
            return Ok(user.clone());
        }
        self.authenticator
            .authenticate(parts.extensions.get::<Peer>(), &parts.headers, self.clock.now())
    }

    fn other_path(
        &self,
        parts: &Parts,
        info: &RequestInfo,
        query: &Query,
    ) -> Result<Response<Body>, ApiError> {
        // Where Kubernetes' own handlers do not ask for the method, neither is it asked for here.
        let asked = ["/healthz", "/livez", "/readyz", "/openapi/"]
            .iter()
            .all(|p| !info.path.starts_with(p));
        if asked && !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(ApiError::MethodNotAllowed);
        }
        if matches!(info.path.as_str(), "/" | "/index.html") {
            return Ok(discovery::index(&self.registry, health::paths(self)));
        }
        if let Some(response) = health::serve(self, info, query) {
            return Ok(response);
        }
        let document = discovery::serve(&self.registry, &info.path, &parts.headers)
            .or_else(|| openapi::serve(&self.registry, &info.path, &parts.headers));
        if let Some(document) = document {
            return document;
        }
        Ok(respond::no_such_path())
    }
}

/// How long a request may take; a watch sees to that itself.
fn time_limit(verb: &str, query: &Query) -> Option<Duration> {
    let asked = query.timeout().unwrap_or(REQUEST_TIMEOUT);
    (verb != "watch").then_some(asked.min(REQUEST_TIMEOUT))
}

/// The 504 of a request that took too long.
fn out_of_time() -> ApiError {
    ApiError::Timeout(
        "Timeout: request did not complete within requested timeout - context deadline exceeded".into(),
    )
}

/// The id of a request: the client's own, or a new one.
fn audit_id(given: Option<&HeaderValue>) -> HeaderValue {
    let given = given.filter(|id| (1..=AUDIT_ID_LENGTH).contains(&id.len()));
    given.cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static("-"))
    })
}

/// The 405 of a subresource that is there and does not do that.
fn not_supported(call: &Call<'_>) -> ApiError {
    let r = &call.resource;
    if r.custom.is_none() {
        return ApiError::MethodNotAllowed;
    }
    ApiError::Status(Box::new(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 405,
        "reason": "MethodNotAllowed", "details": {"group": r.group, "kind": r.plural},
        "message": format!("{} is not supported on resources of kind {:?}", call.info.verb, r.qualified()),
    })))
}

/// The warning of a built-in kind that one should use no more.
fn builtin_deprecation(r: &Resource) -> Option<&'static str> {
    match (&*r.storage, r.custom.is_some()) {
        ("/endpoints", false) => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        ("/componentstatuses", false) => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

/// The body, which is read once.
async fn read_body<B>(body: &mut Option<B>) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    match body.take() {
        Some(body) => body::read(body).await,
        None => Ok(Bytes::new()),
    }
}

/// What RBAC is asked about a request.
pub fn attributes(info: &RequestInfo, query: &Query) -> Attributes {
    Attributes {
        verb: info.verb.clone(),
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        namespace: info.namespace.clone(),
        name: info.authorized_name(query),
        path: info.path.clone(),
        is_resource: info.is_resource,
    }
}

/// What RBAC is asked about an object that a PUT or an apply makes.
pub fn creation(r: &Resource, namespace: &str, name: &str) -> Attributes {
    let is_namespace = &*r.storage == "/namespaces";
    Attributes {
        verb: "create".into(),
        group: r.group.clone(),
        version: r.version.clone(),
        resource: r.plural.clone(),
        // As the path of a request says it.
        namespace: if is_namespace { name } else { namespace }.into(),
        name: name.into(),
        is_resource: true,
        ..Attributes::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_a_minute_and_watches_their_own_time() {
        for (verb, query, seconds) in [
            ("create", "", Some(60)),
            ("list", "timeout=7s", Some(7)),
            ("get", "timeout=5m", Some(60)),
            ("watch", "timeout=7s", None),
        ] {
            let limit = time_limit(verb, &Query::parse(query));
            assert_eq!(limit.map(|l| l.as_secs()), seconds, "{verb} {query}");
        }
    }
}
