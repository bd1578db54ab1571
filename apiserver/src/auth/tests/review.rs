use super::super::review::*;
use super::super::tokens::{ISSUER, Verified};
use super::super::{Attributes, Decision, Rule, Rules, ServiceAccountKeys, UserInfo};
use super::{memory, put};
use crate::error::ApiError;
use jiff::Timestamp;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-05-04T03:02:01.5Z".parse().unwrap()
}

fn alice() -> UserInfo {
    UserInfo::new("alice", ["system:authenticated"])
}

/// Says yes to get, and who was asked about.
fn only_get(user: &UserInfo, attributes: &Attributes) -> Decision {
    if attributes.verb == "get" {
        Decision::Allowed(format!("{} may", user.name))
    } else {
        Decision::NoOpinion(String::new())
    }
}

#[test]
fn access_reviews_answer_for_the_right_user() {
    let ask = |verb: &str| {
        json!({ "spec": { "user": "bob", "groups": ["g"], "resourceAttributes": {
        "namespace": "t", "verb": verb, "resource": "configmaps", "name": "ap" } } })
    };
    let status = |answer: Result<Value, ApiError>| answer.unwrap()["status"].clone();
    let yes = |name: &str| json!({ "allowed": true, "reason": format!("{name} may") });
    let no = json!({ "allowed": false });
    assert_eq!(status(subject_access_review(&ask("get"), only_get)), yes("bob"));
    assert_eq!(status(subject_access_review(&ask("delete"), only_get)), no);
    assert_eq!(
        status(self_subject_access_review(&ask("get"), &alice(), only_get)),
        yes("alice")
    );
    assert_eq!(
        status(local_subject_access_review(&ask("get"), "t", only_get)),
        yes("bob")
    );
    let path = json!({ "spec": { "nonResourceAttributes": { "verb": "get", "path": "/metrics" } } });
    let seen = self_subject_access_review(&path, &alice(), |_, a| {
        assert_eq!(*a, Attributes::path("get", "/metrics"));
        Decision::NoOpinion("because".into())
    });
    assert_eq!(status(seen), json!({ "allowed": false, "reason": "because" }));
    let sub = json!({ "spec": { "resourceAttributes": { "verb": "get", "group": "apps", "version": "v1", "resource": "deployments", "subresource": "scale" } } });
    let answer = self_subject_access_review(&sub, &alice(), |_, a| {
        assert_eq!(
            (
                a.combined_resource().as_str(),
                a.group.as_str(),
                a.version.as_str()
            ),
            ("deployments/scale", "apps", "v1")
        );
        assert!(a.is_resource);
        Decision::Allowed(String::new())
    });
    assert_eq!(answer.unwrap()["spec"], sub["spec"], "the question comes back");
}

#[test]
fn bad_access_reviews_are_refused_in_kubernetes_words() {
    let attributes = json!({ "verb": "get", "resource": "pods", "namespace": "t" });
    let one_of = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
    let cases: Vec<(Value, &str)> = vec![
        (json!({ "spec": { "user": "a" } }), one_of),
        (
            json!({ "spec": { "user": "a", "resourceAttributes": attributes, "nonResourceAttributes": { "path": "/" } } }),
            "cannot be specified in combination with resourceAttributes",
        ),
        (
            json!({ "spec": { "resourceAttributes": attributes } }),
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
        ),
        (
            json!({ "metadata": { "name": "x" }, "spec": { "user": "a", "resourceAttributes": attributes } }),
            "metadata: Invalid value: {\"name\":\"x\"}: must be empty",
        ),
    ];
    for (body, expected) in cases {
        let error = subject_access_review(&body, only_get).unwrap_err();
        assert_eq!(error.code(), 422);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let empty = self_subject_access_review(&json!({ "spec": {} }), &alice(), only_get).unwrap_err();
    assert_eq!(
        empty.status(),
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": format!(".authorization.k8s.io \"\" is invalid: spec.resourceAttributes: Invalid value: null: {one_of}"),
            "reason": "Invalid", "code": 422,
            "details": { "group": "authorization.k8s.io", "causes": [{ "reason": "FieldValueInvalid",
                "message": format!("Invalid value: null: {one_of}"), "field": "spec.resourceAttributes" }] },
        })
    );
    let managed = json!({ "metadata": { "managedFields": [{}], "creationTimestamp": null }, "spec": { "resourceAttributes": attributes } });
    assert!(self_subject_access_review(&managed, &alice(), only_get).is_ok());

    let elsewhere = json!({ "spec": { "user": "a", "resourceAttributes": { "verb": "get", "resource": "pods", "namespace": "u" } } });
    let error = local_subject_access_review(&elsewhere, "t", only_get)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(
            "spec.resourceAttributes.namespace: Invalid value: \"u\": must match metadata.namespace"
        ),
        "{error}"
    );
    let path = json!({ "spec": { "user": "a", "nonResourceAttributes": { "path": "/" } } });
    let error = local_subject_access_review(&path, "t", only_get)
        .unwrap_err()
        .to_string();
    assert!(error.contains("disallowed on this kind of request"), "{error}");
    let other = json!({ "metadata": { "namespace": "u" }, "spec": elsewhere["spec"] });
    assert_eq!(
        local_subject_access_review(&other, "t", only_get)
            .unwrap_err()
            .code(),
        400
    );
}

#[test]
fn rules_reviews_show_rules_and_what_went_wrong() {
    let rules = |namespace: &str| {
        assert_eq!(namespace, "t");
        Rules {
            resource: vec![Rule::resources(&["get"], &[""], &["pods"])],
            non_resource: vec![Rule::urls(&["get"], &["/api"])],
            errors: vec!["x".into(), "x".into()],
        }
    };
    let answer = self_subject_rules_review(&json!({ "spec": { "namespace": "t" } }), rules).unwrap();
    assert_eq!(
        answer,
        json!({
            "kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {},
            "status": {
                "resourceRules": [{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }],
                "nonResourceRules": [{ "verbs": ["get"], "nonResourceURLs": ["/api"] }],
                "incomplete": false, "evaluationError": "x",
            },
        })
    );
    let error = self_subject_rules_review(&json!({ "spec": {} }), rules).unwrap_err();
    assert_eq!(error, ApiError::BadRequest("no namespace on request".into()));
}

#[test]
fn who_am_i() {
    let answer = self_subject_review(&alice(), now());
    assert_eq!(
        answer,
        json!({
            "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
            "metadata": { "creationTimestamp": "2026-05-04T03:02:01Z" },
            "status": { "userInfo": { "username": "alice", "groups": ["system:authenticated"] } },
        })
    );
}

#[test]
fn token_reviews_tell_whose_or_why_not() {
    let verify = |token: &str, audiences: &[String]| {
        assert_eq!(audiences, ["a"]);
        if token == "good" {
            Ok(Verified {
                user: alice(),
                audiences: audiences.to_vec(),
            })
        } else {
            Err("invalid bearer token".to_owned())
        }
    };
    let ask = |token: &str| token_review(&json!({ "spec": { "token": token, "audiences": ["a"] } }), verify);
    assert_eq!(
        ask("good").unwrap()["status"],
        json!({
            "authenticated": true, "audiences": ["a"], "user": { "username": "alice", "groups": ["system:authenticated"] },
        })
    );
    assert_eq!(
        ask("nope").unwrap()["status"],
        json!({ "user": {}, "error": "invalid bearer token" })
    );
    assert_eq!(ask("").unwrap_err().code(), 400);
}

#[tokio::test]
async fn token_requests_are_checked_and_answered() {
    let store = memory();
    let keys = ServiceAccountKeys::load_or_create(None).unwrap();
    let account = json!({ "metadata": { "namespace": "t", "name": "bot", "uid": "u1" } });
    put(
        &store,
        "/secrets",
        json!({ "metadata": { "namespace": "t", "name": "s", "uid": "u2" } }),
    )
    .await;
    put(&store, "/pods", json!({ "metadata": { "namespace": "t", "name": "mine", "uid": "u3" }, "spec": { "serviceAccountName": "bot" } })).await;
    put(&store, "/pods", json!({ "metadata": { "namespace": "t", "name": "theirs", "uid": "u4" }, "spec": { "serviceAccountName": "x" } })).await;
    let ask = |body: Value| token_request(&body, &account, &store, &keys, now());
    let bound = |kind: &str, name: &str, uid: &str| json!({ "spec": { "boundObjectRef": { "apiVersion": "v1", "kind": kind, "name": name, "uid": uid } } });

    let answer = ask(json!({ "kind": "TokenRequest", "spec": { "expirationSeconds": 600 } })).unwrap();
    assert_eq!(
        answer["spec"],
        json!({ "audiences": [ISSUER], "expirationSeconds": 600, "boundObjectRef": null })
    );
    assert_eq!(answer["metadata"]["name"], "bot");
    assert_eq!(answer["status"]["expirationTimestamp"], "2026-05-04T03:12:01Z");
    let claims = keys.verify(answer["status"]["token"].as_str().unwrap()).unwrap();
    assert_eq!(
        claims["kubernetes.io"],
        json!({ "namespace": "t", "serviceaccount": { "name": "bot", "uid": "u1" } })
    );
    assert_eq!(
        (&claims["exp"], &claims["aud"]),
        (&json!(now().as_second() + 600), &json!([ISSUER]))
    );
    assert_eq!(ask(json!({})).unwrap()["spec"]["expirationSeconds"], 3600);

    let secret = ask(bound("Secret", "s", "u2")).unwrap();
    let claims = keys.verify(secret["status"]["token"].as_str().unwrap()).unwrap();
    assert_eq!(
        claims["kubernetes.io"]["secret"],
        json!({ "name": "s", "uid": "u2" })
    );
    assert!(ask(bound("Pod", "mine", "")).is_ok());

    let cases: Vec<(Value, u16, &str)> = vec![
        (
            json!({ "spec": { "expirationSeconds": 5 } }),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
        ),
        (
            json!({ "spec": { "expirationSeconds": 4_294_967_297_i64 } }),
            422,
            "larger than 2^32 seconds",
        ),
        (
            json!({ "metadata": { "name": "other" } }),
            422,
            "must match the service account name if specified",
        ),
        (bound("Secret", "none", ""), 404, "secrets \"none\" not found"),
        (
            bound("Secret", "s", "u9"),
            409,
            "does not match the UID in record",
        ),
        (bound("Pod", "theirs", ""), 400, "different serviceaccount name"),
        (
            bound("ConfigMap", "s", ""),
            400,
            "cannot bind token to object of type /v1, Kind=ConfigMap",
        ),
    ];
    for (body, code, message) in cases {
        let error = ask(body).unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.to_string().contains(message), "{error}");
    }
}
