use super::*;
use crate::registry::tests::{gadgets, with_gadgets};

fn get(registry: &Registry, path: &str) -> Value {
    let response = serve(registry, path, &HeaderMap::new()).unwrap().unwrap();
    let Body::Chunks(chunks) = response.into_body() else {
        panic!("a stream")
    };
    serde_json::from_slice(&chunks.into_iter().flatten().collect::<Vec<u8>>()).unwrap()
}

/// Names of references that lead nowhere.
fn dangling(value: &Value, prefix: &str, known: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                let name = target.strip_prefix(prefix).unwrap_or("?");
                if known.get(name).is_none() {
                    out.insert(target.clone());
                }
            }
            map.values().for_each(|v| dangling(v, prefix, known, out));
        }
        Value::Array(list) => list.iter().for_each(|v| dangling(v, prefix, known, out)),
        _ => {}
    }
}

#[test]
fn documents_name_kinds_and_what_patches_take() {
    let registry = with_gadgets();
    for (path, item, group, kind) in [
        (
            "/openapi/v3/apis/apps/v1",
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
            "apps",
            "Deployment",
        ),
        (
            "/openapi/v3/apis/x.io/v1",
            "/apis/x.io/v1/namespaces/{namespace}/gadgets/{name}",
            "x.io",
            "Gadget",
        ),
    ] {
        let document = get(&registry, path);
        let patch = &document["paths"][item]["patch"];
        let gvk = json!({"group": group, "version": "v1", "kind": kind});
        assert_eq!(patch["x-kubernetes-group-version-kind"], gvk);
        let parameters = patch["parameters"].as_array().unwrap();
        assert!(
            parameters.iter().any(|p| p["name"] == "fieldValidation"),
            "{path}"
        );
        let schemas = &document["components"]["schemas"];
        let of_kind = schemas.as_object().unwrap().values().find(|s| {
            s["x-kubernetes-group-version-kind"]
                .as_array()
                .is_some_and(|l| l.contains(&gvk))
        });
        assert!(
            of_kind.is_some_and(|s| s["properties"]["spec"].is_object()),
            "{kind}"
        );
        let mut missing = BTreeSet::new();
        dangling(&document, COMPONENTS, schemas, &mut missing);
        assert_eq!(missing, BTreeSet::new(), "{path}");
    }
    let unknown = serve(&registry, "/openapi/v3/apis/nope.io/v1", &HeaderMap::new());
    assert_eq!(unknown.unwrap().unwrap().status(), 404);
}

#[test]
fn the_index_changes_with_a_crd_and_only_there() {
    let registry = with_gadgets();
    let url = |name: &str| get(&registry, "/openapi/v3")["paths"][name]["serverRelativeURL"].clone();
    let (apps, custom) = (url("apis/apps/v1"), url("apis/x.io/v1"));
    assert!(
        custom
            .as_str()
            .unwrap()
            .starts_with("/openapi/v3/apis/x.io/v1?hash=")
    );
    let mut changed = gadgets();
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["extra"] =
        json!({"type": "string"});
    let before = get(&registry, "/openapi/v3/apis/x.io/v1");
    registry.set_crd(&changed).unwrap();
    assert_eq!(url("apis/apps/v1"), apps);
    assert_ne!(url("apis/x.io/v1"), custom);
    assert_ne!(get(&registry, "/openapi/v3/apis/x.io/v1"), before);
}

#[test]
fn the_second_version_holds_together() {
    let document = get(&with_gadgets(), "/openapi/v2");
    assert_eq!(document["swagger"], "2.0");
    let definitions = &document["definitions"];
    assert!(definitions["io.k8s.api.core.v1.Pod"].is_object() && definitions["io.x.v1.Gadget"].is_object());
    let mut missing = BTreeSet::new();
    dangling(&document, "#/definitions/", definitions, &mut missing);
    assert_eq!(missing, BTreeSet::new());
    let operations = document["paths"].as_object().unwrap().values();
    let ids: Vec<&str> = operations
        .flat_map(|item| item.as_object().unwrap().values())
        .filter_map(|operation| operation["operationId"].as_str())
        .collect();
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "operations of one name");
    for id in [
        "listCoreV1PodForAllNamespaces",
        "deleteCoreV1CollectionNamespacedPod",
        "readAppsV1NamespacedDeploymentScale",
        "replaceRbacAuthorizationV1ClusterRole",
        "createXIoV1NamespacedGadget",
    ] {
        assert!(unique.contains(id), "{id}");
    }
    let schema = &definitions["io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"];
    assert!(schema["properties"]["oneOf"].is_object() && schema["properties"]["not"].is_object());
}

#[test]
fn the_second_version_has_the_form_that_is_asked_for() {
    let registry = with_gadgets();
    for (accept, code, answered) in [
        ("", 200, JSON),
        ("*/*", 200, JSON),
        (GNOSTIC_BEFORE, 200, GNOSTIC),
        (GNOSTIC, 200, GNOSTIC),
        ("text/html, application/json;q=0.5", 200, JSON),
        ("text/html", 406, ""),
    ] {
        let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
        let response = serve(&registry, "/openapi/v2", &headers).unwrap().unwrap();
        let kind = response.headers().get("content-type");
        let kind = kind.map_or("", |v| v.to_str().unwrap());
        assert_eq!((response.status().as_u16(), kind), (code, answered), "{accept}");
    }
}
