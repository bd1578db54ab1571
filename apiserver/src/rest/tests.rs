//! The API through a kube client in process.

mod definitions;
mod readiness;
mod rights;
mod waiting;

use super::Api;
use crate::auth::{Authenticator, Authorizer, ServiceAccountKeys, UserInfo};
use crate::registry::Registry;
use crate::store::{Store, StoreOptions};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use serde_json::json;
use std::time::Duration;

async fn api() -> Api {
    api_over(StoreOptions {
        path: None,
        keep_revisions: 100,
    })
    .await
}

async fn api_over(options: StoreOptions) -> Api {
    api_on(Store::open(options).unwrap()).await
}

async fn api_on(store: Store) -> Api {
    let authorizer = Authorizer::new(store.clone());
    let keys = ServiceAccountKeys::load_or_create(None).unwrap();
    let authenticator = Authenticator::new(store.clone(), keys, authorizer.clone(), Vec::new()).unwrap();
    let api = Api::new(store, Registry::new(), authorizer, authenticator.into());
    api.bootstrap().await.unwrap();
    api
}

fn maps(api: &Api) -> kube::Api<ConfigMap> {
    kube::Api::namespaced(api.client(), "default")
}

fn map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"v": value}}, "data": {"k": value}}))
        .unwrap()
}

#[tokio::test]
async fn objects_are_created_read_changed_and_deleted() {
    let api = api().await;
    let maps = maps(&api);
    let made = maps.create(&PostParams::default(), &map("a", "1")).await.unwrap();
    let revision = api.store.revision();
    let patch = json!({"data": {"k": "1"}});
    let same = maps
        .patch("a", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    assert_eq!(made.metadata.resource_version, same.metadata.resource_version);
    assert_eq!(
        api.store.revision(),
        revision,
        "a patch that changes nothing writes nothing"
    );
    let patch = json!({"data": {"l": "2"}});
    let changed = maps
        .patch("a", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    assert_eq!(
        changed.data.as_ref().map(std::collections::BTreeMap::len),
        Some(2)
    );
    let stale = maps
        .replace("a", &PostParams::default(), &made)
        .await
        .unwrap_err();
    assert!(matches!(stale, kube::Error::Api(s) if s.code == 409 && s.reason == "Conflict"));
    let gone = maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(gone.is_right());
    let missing = maps.get("a").await.unwrap_err();
    assert!(matches!(missing, kube::Error::Api(s) if s.code == 404));
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let api = api().await;
    let maps = maps(&api);
    let mut held = map("held", "1");
    held.metadata.finalizers = Some(vec!["x.io/f".into()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    let marked = maps
        .delete("held", &DeleteParams::default())
        .await
        .unwrap()
        .unwrap_left();
    assert!(marked.metadata.deletion_timestamp.is_some());
    let patch = json!({"metadata": {"finalizers": null}});
    maps.patch("held", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    assert!(maps.get_opt("held").await.unwrap().is_none());
}

#[tokio::test]
async fn many_writers_of_one_object_all_get_through() {
    let api = api().await;
    maps(&api)
        .create(&PostParams::default(), &map("hot", "0"))
        .await
        .unwrap();
    let writers = (0..40).map(|i| {
        let maps = maps(&api);
        tokio::spawn(async move {
            let patch = json!({"data": {format!("w{i}"): "x"}});
            maps.patch("hot", &PatchParams::default(), &Patch::Merge(&patch))
                .await
        })
    });
    for done in futures::future::join_all(writers).await {
        done.unwrap().unwrap();
    }
    let data = maps(&api).get("hot").await.unwrap().data.unwrap();
    assert_eq!(data.len(), 41);
}

#[tokio::test]
async fn pages_show_one_revision() {
    let api = api().await;
    let maps = maps(&api);
    for i in 0..5 {
        maps.create(&PostParams::default(), &map(&format!("p{i}"), "1"))
            .await
            .unwrap();
    }
    let first = maps.list(&ListParams::default().limit(2)).await.unwrap();
    maps.delete("p4", &DeleteParams::default()).await.unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    let rest = maps
        .list(&ListParams::default().continue_token(&token))
        .await
        .unwrap();
    let names: Vec<_> = rest
        .items
        .iter()
        .filter_map(|m| m.metadata.name.as_deref())
        .collect();
    assert_eq!(names, ["p2", "p3", "p4"]);
    assert_eq!(first.metadata.resource_version, rest.metadata.resource_version);
    for i in 0..200 {
        let patch = json!({"data": {"k": i.to_string()}});
        maps.patch("p0", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }
    let expired = maps
        .list(&ListParams::default().continue_token(&token))
        .await
        .unwrap_err();
    let kube::Error::Api(expired) = expired else {
        panic!("{expired}");
    };
    assert_eq!((expired.code, expired.reason.as_str()), (410, "Expired"));
    assert!(
        expired
            .message
            .contains("use the continue token in this response")
    );
    let token = expired.metadata.and_then(|m| m.continue_).unwrap();
    maps.create(&PostParams::default(), &map("p5", "1"))
        .await
        .unwrap();
    let page = ListParams::default().limit(1);
    let third = maps.list(&page.clone().continue_token(&token)).await.unwrap();
    assert_eq!(third.items[0].metadata.name.as_deref(), Some("p2"));
    let now = Some(api.store.revision().to_string());
    assert_eq!(third.metadata.resource_version, now, "what is there now is shown");
    let token = third.metadata.continue_.unwrap();
    let rest = maps
        .list(&ListParams::default().continue_token(&token))
        .await
        .unwrap();
    let names: Vec<_> = rest
        .items
        .iter()
        .filter_map(|m| m.metadata.name.as_deref())
        .collect();
    assert_eq!(names, ["p3", "p5"], "p4 is gone, p5 is new");
}

#[tokio::test]
async fn metrics_show_watches_objects_and_the_revision() {
    let folder = tempfile::tempdir().unwrap();
    let api = api_over(StoreOptions {
        path: Some(folder.path().join("store")),
        keep_revisions: 100,
    })
    .await;
    let value = |name: &str| {
        let text = super::metrics::render(&api);
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .parse::<u64>()
            .unwrap()
    };
    let watches = "apiserver_longrunning_requests{verb=\"WATCH\"}";
    assert_eq!(value(watches), 0);
    maps(&api)
        .create(&PostParams::default(), &map("m", "1"))
        .await
        .unwrap();
    assert_eq!(value("apiserver_storage_objects{resource=\"configmaps\"}"), 1);
    assert_eq!(value("muster_apiserver_revision"), api.store.revision());
    assert!(value("apiserver_storage_size_bytes") > 0);
    let stream = maps(&api)
        .watch(&WatchParams::default(), "0")
        .await
        .unwrap()
        .boxed();
    assert_eq!(value(watches), 1);
    drop(stream);
    assert_eq!(value(watches), 0, "a watch is counted for as long as it is open");
}

async fn next<T>(stream: &mut (impl futures::Stream<Item = T> + Unpin)) -> T {
    tokio::time::timeout(Duration::from_secs(10), stream.next())
        .await
        .expect("an event within ten seconds")
        .expect("the stream goes on")
}

#[tokio::test]
async fn watches_follow_a_selection() {
    let api = api().await;
    let maps = maps(&api);
    let start = api.store.revision().to_string();
    let params = WatchParams::default().labels("v=1");
    let mut events = maps.watch(&params, &start).await.unwrap().boxed();
    maps.create(&PostParams::default(), &map("a", "1")).await.unwrap();
    for value in ["2", "1"] {
        let patch = json!({"metadata": {"labels": {"v": value}}});
        maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(match next(&mut events).await.unwrap() {
            WatchEvent::Added(_) => "ADDED",
            WatchEvent::Modified(_) => "MODIFIED",
            WatchEvent::Deleted(_) => "DELETED",
            other => panic!("unexpected {other:?}"),
        });
    }
    assert_eq!(kinds, ["ADDED", "DELETED", "ADDED", "DELETED"]);
}

#[tokio::test]
async fn a_watch_from_a_forgotten_revision_is_told_in_the_stream() {
    let api = api().await;
    let maps = maps(&api);
    maps.create(&PostParams::default(), &map("a", "0")).await.unwrap();
    let start = api.store.revision().to_string();
    for i in 1..300 {
        let patch = json!({"data": {"k": i.to_string()}});
        maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }
    let mut events = maps.watch(&WatchParams::default(), &start).await.unwrap().boxed();
    assert!(
        matches!(next(&mut events).await.unwrap(), WatchEvent::Error(s) if s.code == 410 && s.reason == "Expired")
    );
}

#[tokio::test]
async fn watchers_sync_by_list_and_by_stream() {
    let api = api().await;
    let maps = maps(&api);
    maps.create(&PostParams::default(), &map("a", "1")).await.unwrap();
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let mut events = watcher(maps.clone(), config).boxed();
        let mut seen = Vec::new();
        loop {
            match tokio::time::timeout(Duration::from_secs(10), events.try_next())
                .await
                .unwrap()
                .unwrap()
                .unwrap()
            {
                watcher::Event::InitApply(m) => seen.extend(m.metadata.name),
                watcher::Event::InitDone => break,
                watcher::Event::Init => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(seen, ["a"]);
    }
}

#[tokio::test]
async fn watches_end_when_the_server_stops() {
    let api = api().await;
    let mut events = maps(&api)
        .watch(&WatchParams::default(), "0")
        .await
        .unwrap()
        .boxed();
    api.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), async {
        while events.next().await.is_some() {}
    })
    .await;
    assert!(ended.is_ok(), "the watch goes on after shutdown");
}

#[tokio::test]
async fn authorization_applies_in_process_too() {
    let api = api().await;
    let nobody = api.client_as(UserInfo::new("alice", ["system:authenticated"]));
    let error = kube::Api::<Namespace>::all(nobody)
        .list(&ListParams::default())
        .await
        .unwrap_err();
    assert!(matches!(error, kube::Error::Api(s) if s.code == 403));
}

#[tokio::test]
async fn apply_creates_and_dry_run_stores_nothing() {
    let api = api().await;
    let maps = maps(&api);
    let body =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": {"a": "1"}});
    let dry = PatchParams {
        dry_run: true,
        ..PatchParams::apply("one")
    };
    maps.patch("s", &dry, &Patch::Apply(&body)).await.unwrap();
    assert!(maps.get_opt("s").await.unwrap().is_none());
    maps.patch("s", &PatchParams::apply("one"), &Patch::Apply(&body))
        .await
        .unwrap();
    let other =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": {"a": "2"}});
    let conflict = maps
        .patch("s", &PatchParams::apply("two"), &Patch::Apply(&other))
        .await
        .unwrap_err();
    assert!(matches!(conflict, kube::Error::Api(s) if s.code == 409));
}

#[tokio::test]
async fn large_bodies_and_crowds_are_refused() {
    use super::inflight::InFlight;
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use std::convert::Infallible;

    const PATH: &str = "/api/v1/namespaces/default/configmaps";
    fn request<B>(user: &UserInfo, method: &str, body: B) -> http::Request<B> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(PATH)
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        request.extensions_mut().insert(user.clone());
        request
    }
    let mut api = api().await;
    api.in_flight = InFlight::new(1, 1).impatient().into();
    let root = UserInfo::loopback();
    let send = async |user: &UserInfo, method: &str, body: Vec<u8>| {
        let answer = api.answer(request(user, method, Full::<Bytes>::from(body))).await;
        let (code, retry) = (
            answer.status().as_u16(),
            answer.headers().get("retry-after").cloned(),
        );
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        (code, retry, body)
    };
    let (code, _, status) = send(&root, "POST", vec![b' '; super::body::BODY_LIMIT + 1]).await;
    assert_eq!(
        (code, status["reason"].as_str()),
        (413, Some("RequestEntityTooLarge"))
    );

    let binding = json!({"metadata": {"name": "alice"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}]});
    kube::Api::<k8s_openapi::api::rbac::v1::ClusterRoleBinding>::all(api.client())
        .create(&PostParams::default(), &serde_json::from_value(binding).unwrap())
        .await
        .unwrap();
    let alice = UserInfo::new("alice", ["system:authenticated"]);
    // Its body does not come, so it stays in flight.
    let endless = futures::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
    let held = tokio::spawn({
        let (api, request) = (api.clone(), request(&alice, "POST", StreamBody::new(endless)));
        async move { api.answer(request).await.status() }
    });
    while api.in_flight.taken().1 == 0 {
        tokio::task::yield_now().await;
    }
    let map = |name: &str| json!({"metadata": {"name": name}}).to_string().into_bytes();
    let (code, retry, status) = send(&alice, "POST", map("a")).await;
    assert_eq!((code, status["reason"].as_str()), (429, Some("TooManyRequests")));
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
    assert_eq!(retry.unwrap(), "1");
    assert_eq!(
        send(&alice, "GET", Vec::new()).await.0,
        200,
        "reading has seats of its own"
    );
    assert_eq!(
        send(&root, "POST", map("b")).await.0,
        201,
        "an administrator gets in"
    );
    held.abort();
    held.await.unwrap_err();
    assert_eq!(
        send(&alice, "POST", map("a")).await.0,
        201,
        "the seat is free again"
    );
}

#[tokio::test]
async fn a_patch_makes_no_object_of_another_kind() {
    let api = api().await;
    maps(&api)
        .create(&PostParams::default(), &map("a", "1"))
        .await
        .unwrap();
    let patch = |kind: &'static str, body: serde_json::Value| {
        let client = api.client();
        async move {
            let request = http::Request::patch("/api/v1/namespaces/default/configmaps/a")
                .header("content-type", format!("application/{kind}"))
                .body(body.to_string().into_bytes())
                .unwrap();
            client.request::<serde_json::Value>(request).await
        }
    };
    let json = "json-patch+json";
    let merge = "merge-patch+json";
    for (kind, body, why) in [
        (
            merge,
            json!({"apiVersion": "apps/v1", "kind": "Deployment"}),
            "converting (v1.Deployment) to (core.ConfigMap): unknown conversion",
        ),
        (
            merge,
            json!({"kind": "Other"}),
            "no kind \"Other\" is registered for version \"v1\"",
        ),
        (
            merge,
            json!({"kind": 5}),
            "json: cannot unmarshal number into Go struct field .kind of type string",
        ),
        (
            json,
            json!([{"op": "replace", "path": "", "value": []}]),
            "json: cannot unmarshal array into Go value of type struct",
        ),
        (
            json,
            json!([{"op": "replace", "path": "", "value": 5}]),
            "the server rejected our request due to an error in our request",
        ),
    ] {
        match patch(kind, body.clone()).await {
            Err(kube::Error::Api(status)) => {
                assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{body}");
                assert!(status.message.contains(why), "{}", status.message);
            }
            other => panic!("{body}: {other:?}"),
        }
    }
    for (kind, body) in [
        (merge, json!({"metadata": null})),
        (merge, json!({"metadata": {"name": null}})),
        (json, json!([{"op": "remove", "path": "/metadata"}])),
    ] {
        let error = patch(kind, body.clone()).await.unwrap_err();
        let why = "the name of the object (a based on URL) was undeterminable: name must be provided";
        assert!(
            matches!(&error, kube::Error::Api(s) if s.code == 400 && s.message == why),
            "{body}: {error}"
        );
    }
    // Left out, it is what it was; a strategic patch does not get at it at all.
    let strategic = patch("strategic-merge-patch+json", json!({"kind": "Other"}))
        .await
        .unwrap();
    assert_eq!(strategic["kind"], "ConfigMap");
    let same = patch(merge, json!({"kind": null, "apiVersion": null}))
        .await
        .unwrap();
    assert_eq!(
        (&same["kind"], &same["apiVersion"]),
        (&json!("ConfigMap"), &json!("v1"))
    );
}
