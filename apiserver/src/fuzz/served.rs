//! The whole server: scripts of requests, good and bad, of every kind it tells apart.

use super::{Outcome, RUNTIME, any_json, any_text, fuzz, json_of};
use crate::auth::{Authenticator, Authorizer, ServiceAccountKeys, UserInfo};
use crate::registry::Registry;
use crate::rest::Api;
use crate::store::{Store, StoreOptions};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::BoxedStrategy;
use serde_json::{Value, json};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

const JSON: &str = "application/json";
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// For scripts that know what is there.
static API: LazyLock<Api> = LazyLock::new(server);
/// For requests that may do anything.
static OTHER: LazyLock<Api> = LazyLock::new(server);

fn server() -> Api {
    RUNTIME.block_on(async {
        let store = Store::open(StoreOptions { path: None, keep_revisions: 1000 }).unwrap();
        let authorizer = Authorizer::new(store.clone());
        let keys = ServiceAccountKeys::load_or_create(None).unwrap();
        let authenticator = Authenticator::new(store.clone(), keys, authorizer.clone(), Vec::new()).unwrap();
        let api = Api::new(store, Registry::new(), authorizer, authenticator.into());
        api.bootstrap().await.unwrap();
        let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "gadgets.x.io"}, "spec": {"group": "x.io", "scope": "Namespaced",
            "names": {"plural": "gadgets", "kind": "Gadget"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"a": {"type": "integer", "default": 1}, "b": {"type": "string"},
                    "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                        "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}}},
                    "x-kubernetes-validations": [{"rule": "!has(self.b) || self.b != 'bad'"}]},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}});
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let answer = ask(&api, &Method::POST, path, &[("content-type", JSON)], crd.to_string().into()).await;
        assert_eq!(answer.code, 201, "{}", answer.text());
        // What the controllers do in a whole server.
        let established = json!({"status": {"conditions": [{"type": "Established", "status": "True"}]}}).to_string();
        let status = format!("{path}/gadgets.x.io/status");
        let answer = ask(&api, &Method::PATCH, &status, &[("content-type", PATCHES[1])], established.into()).await;
        assert_eq!(answer.code, 200, "{}", answer.text());
        api
    })
}

struct Answer {
    code: u16,
    body: Bytes,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn value(&self) -> Result<Value, TestCaseError> {
        serde_json::from_slice(&self.body).map_err(|e| TestCaseError::fail(format!("{e}: {}", self.text())))
    }
}

async fn ask(api: &Api, method: &Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Full::new(body)).unwrap();
    // Who says who it is, or whom it speaks for, is asked to prove it.
    let asks = |name: &&str| *name == "authorization" || name.starts_with("impersonate");
    if !headers.iter().any(|(name, _)| asks(name)) {
        request.extensions_mut().insert(UserInfo::loopback());
    }
    let response = api.answer(request).await;
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer { code, body }
}

/// A kind with a place and an object of it.
const KINDS: [(&str, &str); 4] = [
    ("/api/v1/namespaces/default/configmaps", "ConfigMap"),
    ("/apis/apps/v1/namespaces/default/deployments", "Deployment"),
    ("/apis/x.io/v1/namespaces/default/gadgets", "Gadget"),
    ("/api/v1/namespaces/default/services", "Service"),
];

fn object(kind: usize, name: &str) -> Value {
    let metadata = json!({"name": name, "labels": {"a": "b"}});
    match kind {
        0 => json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}}),
        1 => {
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": 1,
            "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}}})
        }
        2 => {
            json!({"apiVersion": "x.io/v1", "kind": "Gadget", "metadata": metadata, "spec": {"b": "c", "items": [{"k": "a"}]}})
        }
        _ => json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}),
    }
}

#[derive(Debug, Clone)]
struct Step {
    method: Method,
    content: &'static str,
    query: String,
    subresource: &'static str,
    body: Value,
}

fn names() -> BoxedStrategy<String> {
    prop_oneof![
        8 => prop::sample::select(vec![
            "metadata", "spec", "data", "status", "labels", "annotations", "finalizers", "ownerReferences", "managedFields",
            "name", "namespace", "uid", "resourceVersion", "generation", "deletionTimestamp", "creationTimestamp", "generateName",
            "apiVersion", "kind", "a", "b", "items", "k", "replicas", "selector", "template", "containers", "ports", "port",
            "matchLabels", "strategy", "type", "immutable", "binaryData", "clusterIP", "$patch", "$retainKeys", "op", "path",
            "value", "manager", "fieldsV1", "time",
        ]).prop_map(String::from),
        1 => any_text(),
    ]
    .boxed()
}

fn body() -> BoxedStrategy<Value> {
    let pointer = prop::sample::select(vec![
        "",
        "/",
        "/metadata",
        "/metadata/labels",
        "/metadata/labels/a",
        "/metadata/name",
        "/metadata/uid",
        "/metadata/resourceVersion",
        "/metadata/managedFields",
        "/metadata/managedFields/0",
        "/metadata/finalizers",
        "/metadata/generation",
        "/metadata/creationTimestamp",
        "/spec",
        "/spec/replicas",
        "/spec/template/spec/containers/0",
        "/spec/ports/0/port",
        "/spec/items/0/k",
        "/data",
        "/data/a",
        "/kind",
        "/apiVersion",
        "/status",
        "/metadata/ownerReferences",
    ]);
    let op = prop::sample::select(vec!["add", "remove", "replace", "test", "copy", "move"]);
    let operations = vec((op, pointer.clone(), pointer.clone(), any_json()), 0..3).prop_map(|ops| {
        let one = |(op, path, from, value): (&str, &str, &str, Value)| json!({"op": op, "path": path, "from": from, "value": value});
        ops.into_iter().map(one).collect()
    });
    let edited = (0..4_usize, vec((pointer, json_of(names())), 0..3)).prop_map(|(kind, edits)| {
        let mut o = object(kind, "n");
        for (at, value) in edits {
            if let Some(place) = o.pointer_mut(at) {
                *place = value;
            } else if let Some((above, last)) = at.rsplit_once('/')
                && let Some(Value::Object(map)) = o.pointer_mut(above)
            {
                map.insert(last.to_owned(), value);
            }
        }
        o
    });
    prop_oneof![2 => json_of(names()), 2 => operations, 4 => edited].boxed()
}

fn step() -> BoxedStrategy<Step> {
    let content = prop_oneof![2 => Just(JSON), 8 => prop::sample::select(PATCHES.to_vec()), 1 => Just("application/yaml"), 1 => Just("")];
    let method = prop::sample::select(vec![
        Method::PUT,
        Method::PATCH,
        Method::PATCH,
        Method::PATCH,
        Method::POST,
        Method::DELETE,
    ]);
    let query = vec(
        prop::sample::select(vec![
            "fieldManager=m",
            "fieldManager=n",
            "force=true",
            "dryRun=All",
            "fieldValidation=Strict",
            "fieldValidation=Ignore",
            "propagationPolicy=Foreground",
            "propagationPolicy=Orphan",
        ]),
        0..3,
    )
    .prop_map(|q| q.join("&"));
    let sub = prop_oneof![8 => Just(""), 1 => Just("/status"), 1 => Just("/scale")];
    (method, content, query, sub, body())
        .prop_map(|(method, content, query, subresource, body)| Step {
            method,
            content,
            query,
            subresource,
            body,
        })
        .boxed()
}

/// Null is no body.
fn body_of(value: &Value) -> Bytes {
    match value {
        Value::Null => Bytes::new(),
        some => some.to_string().into(),
    }
}

/// What a client may be told about its own request.
fn is_answer(code: u16, text: &str) -> bool {
    // kube-apiserver has 500s of its own for patches that do not fit; a failed handler is never one of them.
    // What is not served is a 501, a revision that has not happened a 504.
    code < 500
        || matches!(code, 501 | 504)
        || (code == 500 && !text.contains("a handler failed unexpectedly"))
}

async fn run(kind: usize, steps: Vec<Step>) -> Outcome {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("f{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let (collection, word) = KINDS[kind];
    let path = format!("{collection}/{name}");
    let made = ask(
        &API,
        &Method::POST,
        collection,
        &[("content-type", JSON)],
        object(kind, &name).to_string().into(),
    )
    .await;
    prop_assert_eq!(made.code, 201, "{}", made.text());
    let mut before = made.value()?;
    for mut step in steps {
        if let Some(metadata) = step.body.get_mut("metadata").and_then(Value::as_object_mut)
            && metadata.get("name") == Some(&"n".into())
        {
            metadata.insert("name".into(), name.clone().into());
        }
        let target = match step.method {
            Method::POST => format!("{collection}?{}", step.query),
            _ => format!("{path}{}?{}", step.subresource, step.query),
        };
        if step.method == Method::DELETE {
            // A body says all there is to say: the query counts where there is none.
            step.body = Value::Null;
        }
        let headers = [("content-type", step.content), ("user-agent", "fuzz/1")];
        let answer = ask(&API, &step.method, &target, &headers, body_of(&step.body)).await;
        prop_assert!(
            is_answer(answer.code, &answer.text()),
            "{}: {} to {step:?}",
            answer.code,
            answer.text()
        );
        let said = answer.value()?;
        if answer.code >= 400 {
            prop_assert_eq!(&said["kind"], "Status");
            prop_assert_eq!(said["code"].as_u64(), Some(answer.code.into()), "{}", said);
        }
        let now = ask(&API, &Method::GET, &path, &[], Bytes::new()).await;
        if now.code == 404 {
            prop_assert!(!step.query.contains("dryRun"), "a dry run deleted: {step:?}");
            return Ok(());
        }
        let now = now.value()?;
        if answer.code >= 400 || step.query.contains("dryRun") {
            prop_assert_eq!(&now, &before, "what was refused or tried changed it: {:?}", step);
        }
        if answer.code < 300
            && step.method != Method::POST
            && step.subresource != "/scale"
            && said["kind"] == word
            && !step.query.contains("dryRun")
        {
            prop_assert_eq!(&now, &said, "what was answered is not what is there: {:?}", step);
        }
        let revision = |o: &Value| {
            o["metadata"]["resourceVersion"]
                .as_str()
                .and_then(|v| v.parse::<u64>().ok())
        };
        let (old, new) = (revision(&before), revision(&now));
        prop_assert!(old.is_some() && new >= old);
        prop_assert_eq!(new == old, now == before, "a revision for a change: {:?}", step);
        for field in ["uid", "name", "creationTimestamp"] {
            prop_assert_eq!(&now["metadata"][field], &before["metadata"][field], "{:?}", step);
        }
        prop_assert_eq!(
            (&now["kind"], &now["apiVersion"]),
            (&before["kind"], &before["apiVersion"])
        );
        before = now;
    }
    // What is there can be put back as it is, and that changes nothing.
    let headers = [("content-type", JSON)];
    let put = ask(
        &API,
        &Method::PUT,
        &format!("{path}?fieldManager=last"),
        &headers,
        before.to_string().into(),
    )
    .await;
    prop_assert_eq!(put.code, 200, "{} of {}", put.text(), &before);
    prop_assert_eq!(put.value()?, before);
    // Listed and as a table it is there too.
    let selected = format!("{collection}?fieldSelector=metadata.name%3D{name}");
    let list = ask(&API, &Method::GET, &selected, &[], Bytes::new())
        .await
        .value()?;
    prop_assert_eq!(
        &list["items"][0]["metadata"]["uid"],
        &put.value()?["metadata"]["uid"]
    );
    let table = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    let table = ask(&API, &Method::GET, &selected, &table, Bytes::new()).await;
    prop_assert_eq!(table.code, 200, "{}", table.text());
    let clear = json!({"metadata": {"finalizers": null}}).to_string();
    ask(
        &API,
        &Method::PATCH,
        &path,
        &[("content-type", PATCHES[1])],
        clear.into(),
    )
    .await;
    ask(&API, &Method::DELETE, &path, &[], Bytes::new()).await;
    Ok(())
}

#[test]
fn scripts_of_requests() {
    // Made before a runtime is entered.
    LazyLock::force(&API);
    fuzz(
        "scripts of requests",
        &(0..KINDS.len(), vec(step(), 1..6)),
        |(kind, steps)| RUNTIME.block_on(run(kind, steps)),
    );
}

#[test]
fn requests_for_anything() {
    LazyLock::force(&OTHER);
    let path = prop_oneof![
        3 => prop::sample::select(vec!["/", "/api", "/apis", "/api/v1", "/apis/apps/v1", "/openapi/v2", "/openapi/v3", "/version", "/metrics",
            "/healthz", "/readyz", "/livez", "/api/v1/namespaces", "/api/v1/namespaces/default", "/api/v1/pods", "/api/v1/nodes/x",
            "/apis/x.io/v1/gadgets", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "/apis/authentication.k8s.io/v1/tokenreviews",
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            "/api/v1/namespaces/default/serviceaccounts/default/token", "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", "/api/v1/namespaces/default/secrets",
            "/apis/batch/v1/namespaces/default/jobs", "/apis/batch/v1/namespaces/default/cronjobs", "/api/v1/namespaces/default/pods",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            "/apis/networking.k8s.io/v1/namespaces/default/ingresses", "/apis/policy/v1/namespaces/default/poddisruptionbudgets"])
            .prop_map(String::from),
        1 => "(/api|/apis|/v1|/namespaces|/default|/configmaps|/a|/status|/%2e%2e|/%00|/watch){0,7}",
    ];
    let query = vec(
        prop::sample::select(vec![
            "watch=1&timeoutSeconds=1&resourceVersion=999999",
            "limit=1",
            "limit=-1",
            "continue=x",
            "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ",
            "resourceVersion=1",
            "resourceVersion=x",
            "labelSelector=a%3Db",
            "labelSelector=(",
            "fieldSelector=a",
            "fieldSelector=metadata.name%3Da",
            "resourceVersionMatch=Exact",
            "sendInitialEvents=true",
            "dryRun=All",
            "fieldManager=m",
            "fieldValidation=Strict",
            "verbose",
        ]),
        0..3,
    )
    .prop_map(|q| q.join("&"));
    let header = (
        prop::sample::select(vec![
            "accept",
            "content-type",
            "authorization",
            "impersonate-user",
            "impersonate-group",
            "impersonate-extra-a",
            "impersonate-uid",
            "user-agent",
            "accept-encoding",
            "x-remote-user",
            "if-none-match",
        ]),
        prop_oneof![
            prop::sample::select(vec![
                "application/json",
                "application/yaml",
                "application/vnd.kubernetes.protobuf",
                "Bearer x.y.z",
                "Bearer abcdef.0123456789abcdef",
                "application/json;as=Table;v=v1;g=meta.k8s.io",
                "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                "system:admin",
                "gzip",
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
            ])
            .prop_map(String::from),
            "[ -~]{0,12}"
        ],
    );
    let method = prop::sample::select(vec![
        Method::GET,
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ]);
    let typed = (json_of(names()), names()).prop_map(
        |(spec, kind)| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}, "spec": spec}),
    );
    let body = prop_oneof![Just(Value::Null), typed, any_json()];
    let input = (method, path, query, vec(header, 0..3), body);
    fuzz(
        "requests for anything",
        &input,
        |(method, path, query, headers, body)| {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let bytes = if body.is_null() {
                Bytes::new()
            } else {
                body.to_string().into()
            };
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let uri = format!("{path}?{query}");
            let answer = RUNTIME.block_on(ask(&OTHER, &method, &uri, &headers, bytes));
            prop_assert!(
                is_answer(answer.code, &answer.text()),
                "{}: {}",
                answer.code,
                answer.text()
            );
            Ok(())
        },
    );
}
