//! What the server says of itself while its disk takes no writes.

use super::{api_on, map, maps};
use crate::rest::Api;
use crate::store::tests::disk::Platter;
use http_body_util::BodyExt as _;
use kube::api::{ListParams, PostParams};
use std::time::Duration;

async fn told(api: &Api, path: &str) -> (u16, String) {
    let request = http::Request::get(path)
        .body(kube::client::Body::empty())
        .unwrap();
    let response = api.client().send(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (
        parts.status.as_u16(),
        String::from_utf8_lossy(&bytes).into_owned(),
    )
}

#[tokio::test]
async fn a_full_disk_makes_it_unready_until_there_is_room() {
    let platter = Platter::default();
    let api = api_on(platter.open().unwrap()).await;
    let maps = maps(&api);
    maps.create(&PostParams::default(), &map("a", "1")).await.unwrap();
    assert_eq!(told(&api, "/readyz").await, (200, "ok".into()));

    platter.fail_after(0);
    let refused = maps.create(&PostParams::default(), &map("b", "1")).await;
    assert!(
        matches!(&refused, Err(kube::Error::Api(e)) if e.code == 500),
        "{refused:?}"
    );
    for path in ["/readyz", "/readyz?verbose"] {
        let (code, text) = told(&api, path).await;
        assert_eq!(code, 500);
        assert!(text.contains("[+]ping ok\n"), "{text}");
        assert!(text.contains("[-]etcd failed: reason withheld\n"), "{text}");
        assert!(text.ends_with("readyz check failed\n"), "{text}");
    }
    assert_eq!(told(&api, "/readyz/etcd").await.0, 500);
    // A new process would have the same disk.
    assert_eq!(told(&api, "/livez").await, (200, "ok".into()));
    let listed = maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items.len(), 1, "reads go on");

    platter.mend();
    let ready = async {
        while told(&api, "/readyz").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ready)
        .await
        .unwrap();
    maps.create(&PostParams::default(), &map("b", "1")).await.unwrap();
}
