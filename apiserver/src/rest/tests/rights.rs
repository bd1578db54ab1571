//! Rights that a request needs besides the one for its own verb and path.

use super::{Api, api};
use crate::auth::UserInfo;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// One request; the code and the body of its answer.
pub(super) async fn send(
    api: &Api,
    user: &UserInfo,
    (method, path, media): (&str, &str, &str),
    body: Value,
) -> (u16, Value) {
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media)
        .body(Full::<Bytes>::from(body.to_string()))
        .unwrap();
    request.extensions_mut().insert(user.clone());
    let answer = api.answer(request).await;
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

/// What an administrator makes.
async fn make(api: &Api, path: &str, body: Value) {
    let (code, made) = send(
        api,
        &UserInfo::loopback(),
        ("POST", path, "application/json"),
        body,
    )
    .await;
    assert_eq!(code, 201, "{made}");
}

/// A user with these rules everywhere.
async fn user_with(api: &Api, rules: Value) -> UserInfo {
    make(
        api,
        &format!("{RBAC}/clusterroles"),
        json!({"metadata": {"name": "r"}, "rules": rules}),
    )
    .await;
    let binding = json!({"metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jo"}]});
    make(api, &format!("{RBAC}/clusterrolebindings"), binding).await;
    UserInfo::new("jo", ["system:authenticated"])
}

#[tokio::test]
async fn who_may_change_an_object_may_not_make_it() {
    let api = api().await;
    let resources = json!(["configmaps", "leases", "namespaces"]);
    let rules = json!([
        {"apiGroups": ["", "coordination.k8s.io"], "resources": resources, "verbs": ["patch", "update"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["create"]},
    ]);
    let jo = user_with(&api, rules).await;
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let lease = |spec: Value| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": spec});
    let maps = "/api/v1/namespaces/default/configmaps";
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let no_map = "configmaps \"m\" is forbidden: User \"jo\" cannot create resource \"configmaps\" in API group \"\" in the namespace \"default\"";
    let no_lease = "leases.coordination.k8s.io \"l\" is forbidden: User \"jo\" cannot create resource \"leases\" in API group \"coordination.k8s.io\" in the namespace \"default\"";
    let no_namespace = "namespaces \"n\" is forbidden: User \"jo\" cannot create resource \"namespaces\" in API group \"\" in the namespace \"n\"";
    for (method, path, media, body, code, message) in [
        (
            "PATCH",
            format!("{maps}/m?fieldManager=f"),
            APPLY,
            map("m"),
            403,
            no_map,
        ),
        (
            "PATCH",
            format!("{maps}/m?fieldManager=f&dryRun=All"),
            APPLY,
            map("m"),
            403,
            no_map,
        ),
        // Whoever may create this one name may apply it.
        (
            "PATCH",
            format!("{maps}/mine?fieldManager=f"),
            APPLY,
            map("mine"),
            201,
            "",
        ),
        (
            "PUT",
            format!("{leases}/l"),
            "application/json",
            lease(json!({})),
            403,
            no_lease,
        ),
        (
            "PATCH",
            "/api/v1/namespaces/n?fieldManager=f".to_owned(),
            APPLY,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}),
            403,
            no_namespace,
        ),
    ] {
        let (got, answer) = send(&api, &jo, (method, &path, media), body).await;
        assert_eq!(got, code, "{method} {path}: {answer}");
        assert!(message.is_empty() || answer["message"] == message, "{answer}");
    }
    // What is wrong with the object is told first.
    let wrong = lease(json!({"leaseDurationSeconds": -1}));
    let (code, _) = send(
        &api,
        &jo,
        ("PUT", &format!("{leases}/l"), "application/json"),
        wrong,
    )
    .await;
    assert_eq!(code, 422);
    assert!(
        api.store
            .get(&crate::store::Key::new("/configmaps", "default", "m"))
            .is_none()
    );
    make(&api, maps, map("m")).await;
    let (code, _) = send(
        &api,
        &jo,
        ("PATCH", &format!("{maps}/m?fieldManager=f"), APPLY),
        map("m"),
    )
    .await;
    assert_eq!(code, 200, "what is there may be changed");
}

#[tokio::test]
async fn approving_and_signing_need_rights_for_the_signer() {
    let api = api().await;
    let rules = json!([
        {"apiGroups": ["certificates.k8s.io"], "verbs": ["patch"],
            "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"]},
        {"apiGroups": ["certificates.k8s.io"], "verbs": ["approve", "sign"],
            "resources": ["signers"], "resourceNames": ["all.io/*", "one.io/x"]},
    ]);
    let jo = user_with(&api, rules).await;
    let key = crate::pki::new_key().unwrap();
    let pem = crate::pki::request::write("me", &[], &key).unwrap();
    let request = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    for (name, signer) in [("a", "all.io/x"), ("b", "one.io/x"), ("c", "one.io/y")] {
        let spec = json!({"request": request, "signerName": signer, "usages": ["client auth"]});
        make(&api, CSRS, json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "r", "message": "m"});
    let status = |conditions: Value| json!({"status": {"conditions": conditions}});
    let approved = status(json!([condition("Approved")]));
    let failed = status(json!([condition("Approved"), condition("Failed")]));
    let only_failed = status(json!([condition("Failed")]));
    let jo = &jo;
    let patch = async |name: &str, sub: &str, body: Value| {
        let path = format!("{CSRS}/{name}/{sub}");
        let (code, answer) = send(&api, jo, ("PATCH", &path, MERGE), body).await;
        (code, answer["message"].as_str().unwrap_or_default().to_owned())
    };
    for (name, code) in [("a", 200), ("b", 200), ("c", 403)] {
        assert_eq!(patch(name, "approval", approved.clone()).await.0, code, "{name}");
        let answered = if code == 200 { &failed } else { &only_failed };
        assert_eq!(patch(name, "status", answered.clone()).await.0, code, "{name}");
    }
    let no = |verb: &str| {
        format!(
            "certificatesigningrequests.certificates.k8s.io \"c\" is forbidden: user not permitted to {verb} requests \
             with signerName \"one.io/y\""
        )
    };
    assert_eq!(
        patch("c", "approval", json!({})).await.1,
        no("approve"),
        "also of what changes nothing"
    );
    assert_eq!(patch("c", "status", only_failed).await.1, no("sign"));
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(
        patch("c", "status", label).await.0,
        200,
        "only the answer is the signer's"
    );
}
