//! What is waited for, and how long: bodies, and revisions that have not happened yet.

use super::rights::send;
use super::{Api, api};
use crate::auth::UserInfo;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(20);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

#[tokio::test]
async fn a_body_that_does_not_come_holds_no_seat() {
    let api = api().await;
    let binding = json!({"metadata": {"name": "jo"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jo"}]});
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let made = send(
        &api,
        &UserInfo::loopback(),
        ("POST", path, "application/json"),
        binding,
    )
    .await;
    assert_eq!(made.0, 201, "{}", made.1);
    let never = futures::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
    let mut request = http::Request::post(format!("{MAPS}?timeout=200ms"))
        .header("content-type", "application/json")
        .body(StreamBody::new(never))
        .unwrap();
    request
        .extensions_mut()
        .insert(UserInfo::new("jo", ["system:authenticated"]));
    let answer = tokio::time::timeout(PATIENCE, api.answer(request)).await;
    assert_eq!(answer.expect("an answer in time").status(), 504);
    assert_eq!(api.in_flight.taken(), (0, 0));
}

async fn read(api: &Api, query: &str) -> (u16, Value, Duration) {
    let begun = Instant::now();
    let asked = ("GET", &*format!("{MAPS}{query}"), "application/json");
    let (code, answer) = send(api, &UserInfo::loopback(), asked, Value::Null).await;
    (code, answer, begun.elapsed())
}

#[tokio::test]
async fn a_revision_that_does_not_come_is_waited_for_three_seconds() {
    let api = api().await;
    let far = api.store.revision() + 100;
    let state = format!(
        "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion={far}"
    );
    let asked = [
        (format!("?resourceVersion={far}"), 504),
        (format!("?resourceVersion={far}&limit=1"), 504),
        (format!("/x?resourceVersion={far}"), 504),
        (state, 200),
    ];
    let answers = futures::future::join_all(asked.iter().map(|(query, _)| read(&api, query))).await;
    for ((query, code), (got, mut answer, took)) in asked.into_iter().zip(answers) {
        assert_eq!(got, code, "{query}");
        assert!(took >= Duration::from_secs(3), "{query}: {took:?}");
        if code == 200 {
            assert_eq!(answer["type"], "ERROR");
            answer = answer["object"].take();
        }
        assert_eq!(
            answer["details"]["causes"][0]["reason"], "ResourceVersionTooLarge",
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_revision_that_comes_is_waited_for() {
    let api = api().await;
    let next = api.store.revision() + 1;
    let asked = tokio::spawn({
        let api = api.clone();
        async move { read(&api, &format!("?resourceVersion={next}")).await }
    });
    tokio::task::yield_now().await;
    let root = UserInfo::loopback();
    send(&api, &root, ("POST", MAPS, "application/json"), map("a")).await;
    let (code, list, _) = asked.await.unwrap();
    assert_eq!(
        (code, list["items"][0]["metadata"]["name"].as_str()),
        (200, Some("a"))
    );

    // A watch tells what comes after the revision, and nothing up to it.
    let after = api.store.revision() + 1;
    let path = format!("{MAPS}?watch=1&resourceVersion={after}");
    let mut request = http::Request::get(path).body(Full::<Bytes>::default()).unwrap();
    request.extensions_mut().insert(root.clone());
    let mut frames = api.answer(request).await.into_body();
    for name in ["b", "c"] {
        send(&api, &root, ("POST", MAPS, "application/json"), map(name)).await;
    }
    let frame = tokio::time::timeout(PATIENCE, frames.frame()).await;
    let bytes = frame.unwrap().unwrap().unwrap().into_data().unwrap();
    let event: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(event["object"]["metadata"]["name"], "c");
}
