use super::*;
use crate::registry::tests::with_gadgets;
use http::HeaderValue;

fn headers(accept: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    headers.insert(HOST, HeaderValue::from_static("127.0.0.1:6443"));
    headers
}

fn body(response: Response<Body>) -> Value {
    let Body::Chunks(chunks) = response.into_body() else {
        panic!("a stream")
    };
    serde_json::from_slice(&chunks.into_iter().flatten().collect::<Vec<u8>>()).unwrap_or_default()
}

fn get(path: &str) -> Value {
    body(
        serve(&with_gadgets(), path, &headers("application/json"))
            .unwrap()
            .unwrap(),
    )
}

#[test]
fn a_custom_group_version() {
    let want = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "x.io/v1", "resources": [
            {"name": "gadgets", "singularName": "gadget", "namespaced": true, "kind": "Gadget",
             "verbs": ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"],
             "shortNames": ["gg"], "categories": ["all"], "storageVersionHash": "H5LaGr5hW+0="},
            {"name": "gadgets/status", "singularName": "", "namespaced": true, "kind": "Gadget",
             "verbs": ["get", "patch", "update"]},
            {"name": "gadgets/scale", "singularName": "", "namespaced": true, "group": "autoscaling",
             "version": "v1", "kind": "Scale", "verbs": ["get", "patch", "update"]}],
    });
    assert_eq!(get("/apis/x.io/v1"), want);
}

#[test]
fn a_group_and_the_roots() {
    let want = json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": "x.io",
        "versions": [{"groupVersion": "x.io/v1", "version": "v1"},
                     {"groupVersion": "x.io/v1beta1", "version": "v1beta1"}],
        "preferredVersion": {"groupVersion": "x.io/v1", "version": "v1"},
    });
    assert_eq!(get("/apis/x.io"), want);
    assert_eq!(get("/api")["versions"], json!(["v1"]));
    assert_eq!(
        get("/api")["serverAddressByClientCIDRs"][0]["serverAddress"],
        "127.0.0.1:6443"
    );
    let groups = get("/apis");
    let names: Vec<&str> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|g| g["name"].as_str())
        .collect();
    assert!(names.contains(&"apps") && names.contains(&"x.io") && !names.contains(&""));
    assert!(serve(&with_gadgets(), "/apis/nope.io/v1", &HeaderMap::new()).is_none());
    assert!(serve(&with_gadgets(), "/nothing", &HeaderMap::new()).is_none());
    assert!(matches!(
        serve(&with_gadgets(), "/apis/apps/v1beta1", &HeaderMap::new()),
        Some(Err(ApiError::NoSuchResource))
    ));
    assert!(has_builtin_group(&with_gadgets(), "apps") && !has_builtin_group(&with_gadgets(), "x.io"));
}

#[test]
fn aggregated_by_accept_and_304_by_etag() {
    let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    let registry = with_gadgets();
    let response = serve(&registry, "/apis", &headers(kubectl)).unwrap().unwrap();
    let kind = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
    assert_eq!(
        kind,
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let tag = response.headers()[ETAG].clone();
    let list = body(response);
    assert_eq!(list["apiVersion"], "apidiscovery.k8s.io/v2");
    let gadgets = list["items"].as_array().unwrap().last().unwrap();
    assert_eq!(gadgets["metadata"]["name"], "x.io");
    let scale = &gadgets["versions"][0]["resources"][0]["subresources"][1];
    assert_eq!(
        scale["responseKind"],
        json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
    );

    let mut again = headers(kubectl);
    again.insert(IF_NONE_MATCH, tag);
    let response = serve(&registry, "/apis", &again).unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::NOT_MODIFIED);

    let old = headers("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList");
    assert!(matches!(
        serve(&registry, "/api", &old),
        Some(Err(ApiError::NotAcceptable(_)))
    ));
    let core = headers("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let list = body(serve(&registry, "/api", &core).unwrap().unwrap());
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let none = headers("application/vnd.kubernetes.protobuf");
    assert!(matches!(
        serve(&registry, "/api", &none),
        Some(Err(ApiError::NotAcceptable(_)))
    ));
}
