//! What is served follows CustomResourceDefinitions, whoever goes away in between.

use super::Api;
use super::api_over;
use crate::auth::UserInfo;
use crate::rest::internal::Target;
use crate::rest::params::WriteOptions;
use crate::rest::respond;
use crate::store::StoreOptions;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use std::time::Duration;

const NAME: &str = "things.x.io";
const PATIENCE: Duration = Duration::from_secs(20);

fn version(name: &str, served: bool, storage: bool) -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({"name": name, "served": served, "storage": storage, "schema": {"openAPIV3Schema": any}})
}

/// Serves `things.x.io` in these versions.
async fn define(api: &Api, versions: Value) {
    let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"});
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": NAME},
        "spec": {"group": "x.io", "scope": "Namespaced", "names": names, "versions": versions},
    });
    let r = api.crd_resource().unwrap();
    let mut object = crd.clone();
    crate::registry::strategy::default(&r, &mut object);
    let options = WriteOptions::internal("test");
    let user = UserInfo::loopback();
    api.create_object(&user, &r, "", object, &options).await.unwrap();
    change(api, "status", &mut |crd| {
        crd["status"]["acceptedNames"] = names.clone();
        crd["status"]["conditions"] = json!([
            {"type": "NamesAccepted", "status": "True", "reason": "R", "message": "m"},
            {"type": "Established", "status": "True", "reason": "R", "message": "m"},
        ]);
    })
    .await;
}

async fn change(api: &Api, sub: &str, change: &mut (dyn FnMut(&mut Value) + Send)) {
    let r = api.crd_resource().unwrap();
    let target = Target::sub(&r, sub, "", NAME);
    let mut changed = |crd: &Value| {
        let mut crd = crd.clone();
        change(&mut crd);
        Ok(crd)
    };
    let options = WriteOptions::internal("test");
    api.modify_object(&UserInfo::loopback(), &target, &options, &mut changed)
        .await
        .unwrap();
}

fn since(api: &Api) -> u64 {
    let r = api.registry.find("x.io", "v1", "things").unwrap();
    r.custom.as_ref().unwrap().since
}

#[tokio::test]
async fn a_definition_is_served_as_written_when_its_writer_went_away() {
    let dir = tempfile::tempdir().unwrap();
    let api = api_over(StoreOptions {
        path: Some(dir.path().join("db")),
        keep_revisions: 100,
    })
    .await;
    define(&api, json!([version("v1", true, true)])).await;
    let r = api.crd_resource().unwrap();
    let target = Target::object(&r, "", NAME);
    let options = WriteOptions::internal("test");
    let user = UserInfo::loopback();
    let mut narrowed = |crd: &Value| {
        let mut crd = crd.clone();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({"type": "object"});
        Ok(crd)
    };
    let before = api.get_object(&r, "", NAME).unwrap();
    let mut write = Box::pin(api.modify_object(&user, &target, &options, &mut narrowed));
    assert!(futures::poll!(&mut write).is_pending(), "the disk takes its time");
    drop(write);
    let served = async {
        while api.get_object(&r, "", NAME).unwrap() == before || since(&api) == u64::MAX {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, served)
        .await
        .expect("served as it is stored");
}

/// A watch of things from now on; its frames.
async fn watch(api: &Api) -> respond::Body {
    let revision = api.store.revision();
    let path = format!("/apis/x.io/v1/namespaces/default/things?watch=1&resourceVersion={revision}");
    let mut request = http::Request::get(path).body(Full::<Bytes>::default()).unwrap();
    request.extensions_mut().insert(UserInfo::loopback());
    let answer = api.answer(request).await;
    assert_eq!(answer.status(), 200);
    answer.into_body()
}

/// What is left of a watch, which has to end.
async fn rest(frames: respond::Body) -> Vec<Value> {
    let all = tokio::time::timeout(PATIENCE, frames.collect())
        .await
        .expect("the watch ends")
        .unwrap();
    let text = String::from_utf8(all.to_bytes().to_vec()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn make(api: &Api, version: &str, name: &str) {
    let r = api.registry.find("x.io", version, "things").unwrap();
    let object = json!({"apiVersion": format!("x.io/{version}"), "kind": "Thing",
        "metadata": {"name": name, "namespace": "default"}});
    let options = WriteOptions::internal("test");
    api.create_object(&UserInfo::loopback(), &r, "default", object, &options)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_watch_ends_when_its_definition_changes_and_only_then() {
    // The storage moves; the version is served no more.
    for (v1_served, v2_stored) in [(true, true), (false, true), (false, false)] {
        let api = super::api().await;
        // A version that is stored is served until it is not.
        define(
            &api,
            json!([version("v1", true, true), version("v2", true, false)]),
        )
        .await;
        let frames = watch(&api).await;
        change(&api, "status", &mut |crd| {
            crd["status"]["conditions"][0]["message"] = "other words".into();
        })
        .await;
        make(&api, "v1", "before").await;
        change(&api, "", &mut |crd| {
            crd["spec"]["versions"][0]["served"] = v1_served.into();
            crd["spec"]["versions"][0]["storage"] = (!v2_stored).into();
            crd["spec"]["versions"][1]["storage"] = v2_stored.into();
        })
        .await;
        make(&api, "v2", "after").await;
        let seen = rest(frames).await;
        let of_v2 = |frame: &Value| frame["object"]["apiVersion"] != "x.io/v1";
        assert!(!seen.iter().any(of_v2), "{v1_served} {v2_stored}: {seen:?}");
        assert!(seen.len() <= 1, "{seen:?}");
        if v1_served {
            let frames = watch(&api).await;
            make(&api, "v2", "later").await;
            api.shutdown.cancel();
            assert!(rest(frames).await.len() <= 1);
        }
    }
}

#[tokio::test]
async fn a_watch_tells_the_last_deletions_and_ends_with_its_definition() {
    let api = super::api().await;
    define(&api, json!([version("v1", true, true)])).await;
    make(&api, "v1", "a").await;
    let frames = watch(&api).await;
    let user = UserInfo::loopback();
    let options = crate::rest::params::DeleteOptions::default();
    let things = api.registry.find("x.io", "v1", "things").unwrap();
    api.delete_object(&user, &Target::object(&things, "default", "a"), &options)
        .await
        .unwrap();
    let r = api.crd_resource().unwrap();
    let gone = Target::object(&r, "", NAME);
    api.delete_object(&user, &gone, &options).await.unwrap();
    change(&api, "", &mut |crd| crd["metadata"]["finalizers"] = Value::Null).await;
    assert!(api.registry.find("x.io", "v1", "things").is_none());
    let seen = rest(frames).await;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0]["type"], "DELETED");
}

#[tokio::test]
async fn a_watch_does_not_outlive_a_definition_that_is_made_again() {
    let api = super::api().await;
    define(&api, json!([version("v1", true, true)])).await;
    let frames = watch(&api).await;
    let r = api.crd_resource().unwrap();
    let gone = Target::object(&r, "", NAME);
    let options = crate::rest::params::DeleteOptions::default();
    api.delete_object(&UserInfo::loopback(), &gone, &options)
        .await
        .unwrap();
    change(&api, "", &mut |crd| crd["metadata"]["finalizers"] = Value::Null).await;
    define(&api, json!([version("v1", true, true)])).await;
    make(&api, "v1", "new").await;
    let seen = rest(frames).await;
    assert!(seen.is_empty(), "{seen:?}");
}
