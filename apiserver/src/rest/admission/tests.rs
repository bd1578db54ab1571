//! Policies and webhooks against a whole API, with a webhook server on 127.0.0.1.

#![allow(clippy::needless_pass_by_value)] // objects are written out where they are used

mod mutation;

use crate::ApiError;
use crate::auth::{Authenticator, Authorizer, ServiceAccountKeys, UserInfo};
use crate::registry::Registry;
use crate::rest::Api;
use crate::rest::internal::Target;
use crate::rest::params::{DeleteOptions, WriteOptions};
use crate::store::{Store, StoreOptions};
use base64::Engine as _;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

async fn api() -> Api {
    let store = Store::open(StoreOptions {
        path: None,
        keep_revisions: 1000,
    })
    .unwrap();
    let authorizer = Authorizer::new(store.clone());
    let keys = ServiceAccountKeys::load_or_create(None).unwrap();
    let authenticator = Authenticator::new(store.clone(), keys, authorizer.clone(), Vec::new()).unwrap();
    let api = Api::new(store, Registry::new(), authorizer, authenticator.into());
    api.bootstrap().await.unwrap();
    api
}

fn someone() -> UserInfo {
    UserInfo::new("jo", ["devs", "system:authenticated"])
}

/// Creates as `user`, in namespace `default` where the kind has one.
async fn create_as(
    api: &Api,
    user: &UserInfo,
    object: Value,
    dry_run: bool,
) -> Result<(Value, Vec<String>), ApiError> {
    let (group, version) = crate::registry::split_api_version(object["apiVersion"].as_str().unwrap());
    let r = api
        .registry
        .by_kind(group, version, object["kind"].as_str().unwrap())
        .unwrap();
    let mut object = object.clone();
    if r.namespaced {
        object["metadata"]["namespace"] = "default".into();
    }
    crate::registry::strategy::default(&r, &mut object);
    let options = WriteOptions {
        dry_run,
        ..WriteOptions::internal("test")
    };
    let namespace = if r.namespaced { "default" } else { "" };
    let written = api.create_object(user, &r, namespace, object, &options).await?;
    Ok((written.outcome.value(), written.warnings))
}

async fn create(api: &Api, object: Value) -> Result<Value, ApiError> {
    Ok(create_as(api, &UserInfo::loopback(), object, false).await?.0)
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn registration(kind: &str, name: &str, body: Value) -> Value {
    let mut object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
    });
    for (key, value) in body.as_object().unwrap() {
        object[key] = value.clone();
    }
    object
}

fn rules(resource: &str, operations: &[&str]) -> Value {
    json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": operations, "resources": [resource]}])
}

/// A policy over ConfigMaps with some of its specification, bound.
async fn policy(api: &Api, spec: Value, binding: Value) {
    let mut whole =
        json!({"matchConstraints": {"resourceRules": rules("configmaps", &["CREATE", "UPDATE", "DELETE"])}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    create(
        api,
        registration("ValidatingAdmissionPolicy", "p", json!({"spec": whole})),
    )
    .await
    .unwrap();
    let mut bound = json!({"policyName": "p", "validationActions": ["Deny"]});
    for (key, value) in binding.as_object().unwrap() {
        bound[key] = value.clone();
    }
    create(
        api,
        registration("ValidatingAdmissionPolicyBinding", "b", json!({"spec": bound})),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_policy_denies_with_its_message_and_reason() {
    for (spec, data, want) in [
        (
            json!({"validations": [{"expression": "has(object.data)"}]}),
            json!({"a": "1"}),
            None,
        ),
        (
            json!({"validations": [{"expression": "'b' in object.data"}]}),
            json!({"a": "1"}),
            Some((422, "failed expression: 'b' in object.data")),
        ),
        (
            json!({"validations": [{
                "expression": "object.data.a == 'b'", "reason": "Forbidden",
                "messageExpression": "'a is ' + object.data.a + ' of ' + request.userInfo.username",
            }]}),
            json!({"a": "1"}),
            Some((403, "a is 1 of jo")),
        ),
        (
            json!({
                "variables": [{"name": "keys", "expression": "object.data.map(k, k)"}],
                "validations": [{"expression": "variables.keys.size() < 2", "message": "too many"}],
            }),
            json!({"a": "1", "b": "2"}),
            Some((422, "too many")),
        ),
        (
            json!({"validations": [{"expression": "object.data.missing == '1'"}]}),
            json!({"a": "1"}),
            Some((
                422,
                "expression 'object.data.missing == '1'' resulted in error: no such key: missing",
            )),
        ),
        (
            json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.data.missing == '1'"}]}),
            json!({"a": "1"}),
            None,
        ),
        (
            json!({
                "matchConditions": [{"name": "other", "expression": "request.userInfo.username != 'jo'"}],
                "validations": [{"expression": "false"}],
            }),
            json!({}),
            None,
        ),
        (
            json!({"validations": [{"expression": "namespaceObject.metadata.name == 'default'"}]}),
            json!({}),
            None,
        ),
        (
            json!({"validations": [{
                "expression": "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()",
                "message": "may not read Secrets",
            }]}),
            json!({}),
            Some((422, "may not read Secrets")),
        ),
        (
            json!({"validations": [{"expression": "authorizer.requestResource.check('create').reason() == ''"}]}),
            json!({}),
            None,
        ),
    ] {
        let api = api().await;
        policy(&api, spec.clone(), json!({})).await;
        let outcome = create_as(&api, &someone(), map("m", data), false).await;
        let found = outcome.err().map(|e| (e.code(), e.to_string()));
        let message = |m: &str| {
            format!(
                "configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: {m}"
            )
        };
        assert_eq!(found, want.map(|(code, m)| (code, message(m))), "{spec}");
    }
}

#[tokio::test]
async fn a_binding_says_where_and_how() {
    let no = json!({"validations": [{"expression": "false", "message": "no"}]});
    let elsewhere = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "x"}}}});
    let labelled = json!({"matchResources": {"objectSelector": {"matchLabels": {"a": "b"}}}});
    let warns = json!({"validationActions": ["Warn", "Audit"]});
    let warning = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': no";
    for (binding, want) in [(elsewhere, vec![]), (labelled, vec![]), (warns, vec![warning])] {
        let api = api().await;
        policy(&api, no.clone(), binding.clone()).await;
        let (_, warnings) = create_as(&api, &someone(), map("m", json!({})), false)
            .await
            .unwrap();
        assert_eq!(warnings, want, "{binding}");
    }
}

#[tokio::test]
async fn parameters_come_from_the_cluster() {
    let api = api().await;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "not-itself", "expression": "object.metadata.name != 'limits'"}],
        "validations": [{
            "expression": "object.data.size() <= int(params.data.most)", "messageExpression": "'most ' + params.data.most",
        }],
    });
    policy(
        &api,
        spec.clone(),
        json!({"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}}),
    )
    .await;
    // Not even a binding that only warns lets pass what could not be looked at.
    let warning = self::api().await;
    let only = json!({"validationActions": ["Warn"], "paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}});
    policy(&warning, spec, only).await;
    let error = create(&warning, map("m", json!({}))).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("failed to configure binding: no params found"),
        "{error}"
    );
    let error = create(&api, map("m", json!({"a": "1"})))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{error}"
    );
    let r = api.registry.by_kind("", "v1", "ConfigMap").unwrap();
    let limits = map("limits", json!({"most": "1"}));
    let key = crate::rest::key(&r, "default", "limits");
    api.store
        .put(key, limits, crate::store::Expect::Absent)
        .await
        .unwrap();
    create(&api, map("m", json!({"a": "1"}))).await.unwrap();
    let error = create(&api, map("n", json!({"a": "1", "b": "2"})))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("denied request: most 1"), "{error}");
}

#[tokio::test]
async fn updates_and_deletions_are_looked_at_and_a_policy_ends_with_its_binding() {
    let api = api().await;
    let made = create(&api, map("m", json!({"a": "1"}))).await.unwrap();
    let text = "request.operation != 'DELETE' && (oldObject == null || object.data == oldObject.data)";
    policy(
        &api,
        json!({"validations": [{"expression": text, "message": "stays"}]}),
        json!({}),
    )
    .await;
    let r = api.registry.by_kind("", "v1", "ConfigMap").unwrap();
    let target = Target::object(&r, "default", "m");
    let options = WriteOptions::internal("test");
    let mut changed = made.clone();
    changed["data"]["a"] = "2".into();
    let user = UserInfo::loopback();
    let error = api
        .update_object(&user, &target, changed.clone(), &options)
        .await
        .unwrap_err();
    assert!(error.to_string().ends_with("denied request: stays"), "{error}");
    let error = api
        .delete_object(&user, &target, &DeleteOptions::default())
        .await
        .unwrap_err();
    assert!(error.to_string().ends_with("denied request: stays"), "{error}");
    let bindings = api
        .registry
        .by_kind(
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingAdmissionPolicyBinding",
        )
        .unwrap();
    let binding = Target::object(&bindings, "", "b");
    api.delete_object(&user, &binding, &DeleteOptions::default())
        .await
        .unwrap();
    api.update_object(&user, &target, changed, &options)
        .await
        .unwrap();
    api.delete_object(&user, &target, &DeleteOptions::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn an_expression_that_makes_no_sense_is_refused_when_it_is_written() {
    let api = api().await;
    let spec = json!({
        "matchConstraints": {"resourceRules": rules("configmaps", &["CREATE"])},
        "validations": [{"expression": "params.x == 1"}, {"expression": "1 + 1"}],
    });
    let error = create(
        &api,
        registration("ValidatingAdmissionPolicy", "p", json!({"spec": spec})),
    )
    .await
    .unwrap_err()
    .to_string();
    assert!(
        error.contains(
            "spec.validations[0].expression: Invalid value: \"params.x == 1\": compilation failed: "
        ),
        "{error}"
    );
    assert!(
        error.contains(
            "spec.validations[1].expression: Invalid value: \"1 + 1\": must evaluate to bool but got int"
        ),
        "{error}"
    );
}

/// A webhook server; its requests are kept.
struct Server {
    port: u16,
    bundle: String,
    seen: Arc<Mutex<Vec<Value>>>,
    _stop: DropGuard,
}

impl Server {
    /// Answers by path: `response` without its uid.
    async fn start(answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        let names = ["127.0.0.1".to_owned(), "hook.default.svc".to_owned()];
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        // What `openssl req -x509` makes: the server's certificate is its own CA.
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let bundle = base64::engine::general_purpose::STANDARD.encode(certificate.pem());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let stop = CancellationToken::new();
        let (requests, stopped) = (Arc::clone(&seen), stop.clone());
        let answer = Arc::new(answer);
        tokio::spawn(stopped.run_until_cancelled_owned(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, requests, answer) = (acceptor.clone(), Arc::clone(&requests), Arc::clone(&answer));
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
                        async move {
                            let path = request.uri().path().to_owned();
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            let review: Value = serde_json::from_slice(&body).unwrap();
                            let mut response = answer(&path, &review["request"]);
                            if path == "/silent" {
                                std::future::pending::<()>().await;
                            }
                            requests.lock().unwrap().push(review.clone());
                            if response["uid"].is_null() {
                                response["uid"] = review["request"]["uid"].clone();
                            }
                            let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
                            Ok::<_, std::convert::Infallible>(http::Response::new(answer.to_string()))
                        }
                    });
                    let io = hyper_util::rt::TokioIo::new(tls);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                });
            }
        }));
        Self {
            port,
            bundle,
            seen,
            _stop: stop.drop_guard(),
        }
    }

    fn client(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": self.bundle})
    }

    fn hook(&self, name: &str, path: &str, more: Value) -> Value {
        let mut hook = json!({
            "name": name, "clientConfig": self.client(path), "rules": rules("configmaps", &["*"]), "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        });
        for (key, value) in more.as_object().unwrap() {
            hook[key] = value.clone();
        }
        hook
    }
}

async fn register(api: &Api, kind: &str, hooks: Value) {
    create(api, registration(kind, "w", json!({"webhooks": hooks})))
        .await
        .unwrap();
}

const VALIDATING: &str = "ValidatingWebhookConfiguration";
const MUTATING: &str = "MutatingWebhookConfiguration";

#[tokio::test]
async fn a_validating_webhook_sees_the_write_and_decides() {
    let server = Server::start(|_, request| {
        let fine = request["object"]["data"]["a"] != "bad";
        json!({"allowed": fine, "warnings": ["looked at"], "status": {"message": "a is bad", "code": 409}})
    })
    .await;
    let api = api().await;
    register(&api, VALIDATING, json!([server.hook("v.x.io", "/v", json!({}))])).await;
    let (_, warnings) = create_as(&api, &someone(), map("good", json!({"a": "1"})), false)
        .await
        .unwrap();
    assert_eq!(warnings, ["looked at"]);
    let error = create_as(&api, &someone(), map("m", json!({"a": "bad"})), false)
        .await
        .unwrap_err();
    let message = "admission webhook \"v.x.io\" denied the request: a is bad";
    assert_eq!((error.code(), error.to_string().as_str()), (409, message));
    let r = api.registry.by_kind("", "v1", "ConfigMap").unwrap();
    let target = Target::object(&r, "default", "good");
    api.delete_object(&someone(), &target, &DeleteOptions::default())
        .await
        .unwrap();
    let seen = server.seen.lock().unwrap();
    let first = &seen[0]["request"];
    assert_eq!(first["operation"], "CREATE");
    assert_eq!(
        first["userInfo"],
        json!({"username": "jo", "groups": ["devs", "system:authenticated"]})
    );
    assert_eq!(
        first["resource"],
        json!({"group": "", "version": "v1", "resource": "configmaps"})
    );
    assert_eq!(
        first["kind"],
        json!({"group": "", "version": "v1", "kind": "ConfigMap"})
    );
    assert_eq!(first["namespace"], "default");
    assert_eq!(first["object"]["data"], json!({"a": "1"}));
    assert_eq!(
        (&first["oldObject"], &first["dryRun"]),
        (&Value::Null, &json!(false))
    );
    let last = &seen[2]["request"];
    assert_eq!(
        (&last["operation"], &last["object"]),
        (&json!("DELETE"), &Value::Null)
    );
    assert_eq!(last["oldObject"]["data"], json!({"a": "1"}));
}

fn patch(operations: &Value) -> Value {
    let patch = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

#[tokio::test]
async fn mutating_webhooks_follow_each_other_and_are_asked_again() {
    let server = Server::start(|path, request| match path {
        // Counts the keys it sees.
        "/count" => {
            let keys = request["object"]["data"].as_object().unwrap().keys();
            let count = keys.filter(|k| *k != "count").count().to_string();
            patch(&json!([{"op": "add", "path": "/data/count", "value": count}]))
        }
        _ => patch(&json!([
            {"op": "add", "path": "/data/added", "value": "1"},
            {"op": "replace", "path": "/metadata/name", "value": "other"},
        ])),
    })
    .await;
    for (policy, want) in [("Never", "1"), ("IfNeeded", "2")] {
        let api = api().await;
        let hooks = json!([
            server.hook("count.x.io", "/count", json!({"reinvocationPolicy": policy})),
            server.hook("add.x.io", "/add", json!({})),
        ]);
        register(&api, MUTATING, hooks).await;
        let made = create(&api, map("m", json!({"a": "1"}))).await.unwrap();
        assert_eq!(
            made["data"],
            json!({"a": "1", "added": "1", "count": want}),
            "{policy}"
        );
        assert_eq!(made["metadata"]["name"], "m", "an object keeps its name");
    }
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_refuses_or_is_passed_over() {
    let server = Server::start(|path, _| match path {
        "/uid" => json!({"uid": "other", "allowed": true}),
        "/patch" => patch(&json!([{"op": "remove", "path": "/data/nothing"}])),
        _ => json!({"allowed": true}),
    })
    .await;
    let port = server.port;
    let post = |path: &str, why: &str| {
        format!("failed to call webhook: Post \"https://127.0.0.1:{port}{path}?timeout=1s\": {why}")
    };
    let service = json!({"service": {"namespace": "default", "name": "hook", "path": "/x"}});
    for (more, path, want) in [
        (json!({"timeoutSeconds": 1}), "/silent", Some(post("/silent", "context deadline exceeded"))),
        (
            json!({"timeoutSeconds": 1, "clientConfig": {"url": format!("https://127.0.0.1:{port}/v")}}),
            "/v",
            Some(post("/v", "tls: failed to verify certificate: x509: certificate signed by unknown authority")),
        ),
        (
            json!({"timeoutSeconds": 1, "clientConfig": {"url": "https://127.0.0.1:1/x"}}),
            "/x",
            Some(
                "failed to call webhook: Post \"https://127.0.0.1:1/x?timeout=1s\": dial tcp 127.0.0.1:1: connect: connection \
                 refused"
                    .into(),
            ),
        ),
        (
            json!({"clientConfig": service}),
            "",
            Some(
                "failed to call webhook: Post \"https://hook.default.svc:443/x?timeout=10s\": service \"hook\" not found".into(),
            ),
        ),
        (json!({"namespaceSelector": {"matchLabels": {"not": "there"}}}), "/silent", None),
        (json!({"matchConditions": [{"name": "n", "expression": "has(object.data)"}]}), "/silent", None),
    ] {
        for ignore in [false, true] {
            let api = api().await;
            let mut hook = server.hook("v.x.io", path, more.clone());
            hook["failurePolicy"] = if ignore { "Ignore" } else { "Fail" }.into();
            register(&api, VALIDATING, json!([hook])).await;
            let outcome = create(&api, map("m", json!({}))).await;
            let found = outcome.err().map(|e| (e.code(), e.to_string()));
            let message = |m: &String| format!("Internal error occurred: failed calling webhook \"v.x.io\": {m}");
            let want = want.as_ref().filter(|_| !ignore).map(|m| (500, message(m)));
            assert_eq!(found, want, "{more} {ignore}");
        }
    }
    let api = api().await;
    register(
        &api,
        VALIDATING,
        json!([server.hook("v.x.io", "/uid", json!({}))]),
    )
    .await;
    let error = create(&api, map("m", json!({}))).await.unwrap_err().to_string();
    assert!(
        error.contains("received invalid webhook response: expected response.uid="),
        "{error}"
    );
    let hooks = api
        .registry
        .by_kind("admissionregistration.k8s.io", "v1", VALIDATING)
        .unwrap();
    let target = Target::object(&hooks, "", "w");
    api.delete_object(&UserInfo::loopback(), &target, &DeleteOptions::default())
        .await
        .unwrap();
    register(
        &api,
        MUTATING,
        json!([server.hook("m.x.io", "/patch", json!({}))]),
    )
    .await;
    assert_eq!(create(&api, map("m", json!({}))).await.unwrap_err().code(), 500);
}

#[tokio::test]
async fn a_service_is_reached_at_its_endpoints_and_dry_runs_need_harmless_hooks() {
    let server = Server::start(|_, _| json!({"allowed": false})).await;
    let api = api().await;
    create(
        &api,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}]}}),
    )
    .await
    .unwrap();
    let client =
        json!({"service": {"namespace": "default", "name": "hook", "path": "/x"}, "caBundle": server.bundle});
    register(
        &api,
        VALIDATING,
        json!([server.hook("v.x.io", "", json!({"clientConfig": client}))]),
    )
    .await;
    let error = create(&api, map("m", json!({}))).await.unwrap_err().to_string();
    assert!(
        error.ends_with("no endpoints available for service \"hook\""),
        "{error}"
    );
    // Not through the API, which takes no loopback addresses.
    let slices = api
        .registry
        .by_kind("discovery.k8s.io", "v1", "EndpointSlice")
        .unwrap();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "hook-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "hook"}},
        "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"name": "", "port": server.port}],
    });
    api.store
        .put(
            crate::rest::key(&slices, "default", "hook-1"),
            slice,
            crate::store::Expect::Absent,
        )
        .await
        .unwrap();
    let user = UserInfo::loopback();
    let error = create_as(&api, &user, map("m", json!({})), true)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "admission webhook \"v.x.io\" denied the request without explanation"
    );
    assert_eq!(server.seen.lock().unwrap()[0]["request"]["dryRun"], true);
}
