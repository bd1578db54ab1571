use super::super::tokens::{self, check_bootstrap, check_claims, split_bootstrap, split_service_account};
use super::super::{ANONYMOUS, Authenticator, Authorizer, ServiceAccountKeys, StaticToken, UserInfo};
use super::{memory, put, remove};
use crate::error::ApiError;
use crate::pki::ClientCert;
use crate::serve::Peer;
use crate::store::Store;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Peer, Authorization header, when, and who that is: `None` for 401.
type Connected<'a> = (Option<&'a Peer>, Option<&'a str>, Timestamp, Option<&'a str>);
/// Stored secret, secret sent, and the groups or the reason.
type Bootstrap<'a> = (Value, &'a str, Result<&'a [&'a str], &'a str>);

const NOW: &str = "2026-05-04T03:02:01Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() + seconds).unwrap()
}

fn authenticator(store: &Store) -> Authenticator {
    let token = StaticToken {
        token: "admin-secret".into(),
        user: UserInfo::new("admin", ["system:masters"]),
    };
    let keys = ServiceAccountKeys::load_or_create(None).unwrap();
    Authenticator::new(store.clone(), keys, Authorizer::new(store.clone()), vec![token]).unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()))
        .collect()
}

fn peer(cert: Option<ClientCert>, rejected: Option<&str>) -> Peer {
    Peer {
        address: ([127, 0, 0, 1], 1).into(),
        cert,
        rejected: rejected.map(str::to_owned),
    }
}

fn cert(name: &str) -> ClientCert {
    ClientCert {
        common_name: name.into(),
        organizations: vec!["a".into(), "b".into()],
        not_before: now().as_second() - 10,
        not_after: now().as_second() + 10,
        fingerprint: "00".into(),
    }
}

#[tokio::test]
async fn credentials_in_the_right_order() {
    let authenticator = authenticator(&memory());
    let good = peer(Some(cert("alice")), None);
    let foreign = peer(None, Some("unknown issuer"));
    let nameless = peer(Some(cert("")), None);
    let plain = peer(None, None);
    let admin = Some("Bearer admin-secret");
    let wrong = Some("Bearer admin-secres");
    let cases: Vec<Connected<'_>> = vec![
        (None, None, now(), Some(ANONYMOUS)),
        (Some(&plain), None, now(), Some(ANONYMOUS)),
        (Some(&nameless), None, now(), Some(ANONYMOUS)),
        (Some(&good), None, now(), Some("alice")),
        (Some(&good), None, after(10), Some("alice")),
        (Some(&good), None, after(11), None),
        (Some(&good), None, after(-11), None),
        (Some(&good), wrong, now(), Some("alice")),
        (Some(&good), admin, after(11), Some("admin")),
        (Some(&foreign), None, now(), None),
        (Some(&foreign), admin, now(), Some("admin")),
        (None, admin, now(), Some("admin")),
        (None, Some("bearer admin-secret"), now(), Some("admin")),
        (None, wrong, now(), None),
        (None, Some("Bearer admin-secret2"), now(), None),
        (None, Some("Bearer admin"), now(), None),
        (None, Some("Bearer "), now(), Some(ANONYMOUS)),
        (None, Some("Basic YTpi"), now(), Some(ANONYMOUS)),
    ];
    for (peer, authorization, when, expected) in cases {
        let headers = authorization.map_or_else(HeaderMap::new, |a| headers(&[("authorization", a)]));
        let found = authenticator.authenticate(peer, &headers, when);
        match expected {
            Some(name) => assert_eq!(found.unwrap().name, name, "{peer:?} {authorization:?} {when}"),
            None => assert_eq!(
                found,
                Err(ApiError::Unauthorized),
                "{peer:?} {authorization:?} {when}"
            ),
        }
    }
    let user = authenticator
        .authenticate(Some(&good), &HeaderMap::new(), now())
        .unwrap();
    assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
}

#[tokio::test]
async fn impersonation_asks_rbac() {
    let store = memory();
    let authenticator = authenticator(&store);
    let become_bob = [("impersonate-user", "bob")];
    let alice = peer(Some(cert("alice")), None);
    let refused = authenticator
        .authenticate(Some(&alice), &headers(&become_bob), now())
        .unwrap_err();
    assert_eq!(refused.code(), 403);
    assert!(
        refused
            .to_string()
            .starts_with("users \"bob\" is forbidden: User \"alice\" cannot impersonate")
    );

    let rules = json!([{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"]}]);
    put(
        &store,
        "rbac.authorization.k8s.io/clusterroles",
        super::role("", "r", &rules),
    )
    .await;
    let binding = super::binding("", "b", "ClusterRole/r", &["User:alice"]);
    put(&store, "rbac.authorization.k8s.io/clusterrolebindings", binding).await;
    let bob = authenticator
        .authenticate(Some(&alice), &headers(&become_bob), now())
        .unwrap();
    assert_eq!(bob, UserInfo::new("bob", ["system:authenticated"]));
    let more = [
        ("impersonate-user", "bob"),
        ("impersonate-group", "system:masters"),
    ];
    assert_eq!(
        authenticator
            .authenticate(Some(&alice), &headers(&more), now())
            .unwrap_err()
            .code(),
        403
    );
    let admin = [("authorization", "Bearer admin-secret"), more[0], more[1]];
    let root = authenticator.authenticate(None, &headers(&admin), now()).unwrap();
    assert_eq!(root.groups, ["system:masters", "system:authenticated"]);
}

fn account() -> Value {
    json!({ "metadata": { "namespace": "t", "name": "bot", "uid": "u1" } })
}

fn claims() -> Value {
    json!({
        "iss": tokens::ISSUER, "sub": "system:serviceaccount:t:bot", "aud": [tokens::ISSUER, "other"],
        "iat": now().as_second(), "nbf": now().as_second(), "exp": now().as_second() + 600, "jti": "j",
        "kubernetes.io": { "namespace": "t", "serviceaccount": { "name": "bot", "uid": "u1" } },
    })
}

#[tokio::test]
async fn claims_are_worth_what_the_objects_behind_them_are() {
    let store = memory();
    put(&store, "/serviceaccounts", account()).await;
    put(
        &store,
        "/secrets",
        json!({ "metadata": { "namespace": "t", "name": "s", "uid": "u2" } }),
    )
    .await;
    put(
        &store,
        "/pods",
        json!({ "metadata": { "namespace": "t", "name": "p", "uid": "u3", "deletionTimestamp": NOW } }),
    )
    .await;
    put(
        &store,
        "/nodes",
        json!({ "metadata": { "name": "n", "uid": "u4" } }),
    )
    .await;
    put(
        &store,
        "/serviceaccounts",
        json!({ "metadata": { "namespace": "t", "name": "leaving", "uid": "u5", "deletionTimestamp": NOW } }),
    )
    .await;

    let with = |path: &str, value: Value| {
        let mut claims = claims();
        *claims.pointer_mut(path).unwrap() = value;
        claims
    };
    let bound = |kind: &str, name: &str, uid: &str| {
        let mut claims = claims();
        claims["kubernetes.io"][kind] = json!({ "name": name, "uid": uid });
        claims
    };
    let leaving = {
        let mut claims = with("/sub", "system:serviceaccount:t:leaving".into());
        claims["kubernetes.io"]["serviceaccount"] = json!({ "name": "leaving", "uid": "u5" });
        claims
    };
    let cases: Vec<(Value, Timestamp, &str)> = vec![
        (claims(), now(), ""),
        (claims(), after(599), ""),
        (claims(), after(600), "has expired"),
        (claims(), after(-1), "not valid yet"),
        (with("/exp", "never".into()), now(), "has no exp"),
        (with("/exp", Value::Null), now(), "has no exp"),
        (with("/nbf", Value::Null), now(), "has no nbf"),
        (with("/iss", "https://elsewhere".into()), now(), "issuer"),
        (with("/aud", json!(["x"])), now(), "audiences"),
        (with("/aud", tokens::ISSUER.into()), now(), ""),
        (
            with("/sub", "system:serviceaccount:t:other".into()),
            now(),
            "names no ServiceAccount",
        ),
        (
            with("/kubernetes.io/namespace", "u".into()),
            now(),
            "names no ServiceAccount",
        ),
        (
            with("/kubernetes.io/serviceaccount/uid", "u9".into()),
            now(),
            "was replaced",
        ),
        (
            with("/kubernetes.io/serviceaccount/uid", Value::Null),
            now(),
            "was replaced",
        ),
        (leaving, now(), "being deleted"),
        (bound("secret", "s", "u2"), now(), ""),
        (bound("secret", "s", "u1"), now(), "was replaced"),
        (bound("secret", "gone", "u2"), now(), "not found"),
        (bound("pod", "p", "u3"), now(), "being deleted"),
        (bound("pod", "p", "u4"), now(), "was replaced"),
        (bound("node", "n", "u4"), now(), ""),
    ];
    let audience = [tokens::ISSUER.to_owned()];
    for (claims, when, expected) in cases {
        match check_claims(&claims, &audience, &store, when) {
            Ok(found) => {
                assert_eq!(expected, "", "{claims}");
                assert_eq!(
                    (found.user.name.as_str(), found.user.uid.as_str()),
                    ("system:serviceaccount:t:bot", "u1")
                );
                assert_eq!(
                    found.user.groups,
                    [
                        "system:serviceaccounts",
                        "system:serviceaccounts:t",
                        "system:authenticated"
                    ]
                );
                assert_eq!(found.user.extra[tokens::CREDENTIAL_ID], ["JTI=j"]);
                assert_eq!(found.audiences, audience);
            }
            Err(why) => assert!(
                !expected.is_empty() && why.contains(expected),
                "{why} | {expected} | {claims}"
            ),
        }
    }
    let node = check_claims(&bound("node", "n", "u4"), &audience, &store, now()).unwrap();
    assert_eq!(node.user.extra["authentication.kubernetes.io/node-name"], ["n"]);
}

#[tokio::test]
async fn an_issued_token_dies_with_its_account() {
    let store = memory();
    put(&store, "/serviceaccounts", account()).await;
    let authenticator = authenticator(&store);
    let audiences = [tokens::ISSUER.to_owned()];
    let grant = tokens::Grant {
        account: &account(),
        audiences: &audiences,
        seconds: 600,
        bound: None,
    };
    let token = tokens::issue(authenticator.keys(), &grant, now()).unwrap();
    let bearer = headers(&[("authorization", &format!("Bearer {token}"))]);
    let user = authenticator.authenticate(None, &bearer, now()).unwrap();
    assert_eq!(user.name, "system:serviceaccount:t:bot");
    assert_eq!(
        authenticator.authenticate(None, &bearer, after(600)),
        Err(ApiError::Unauthorized)
    );
    remove(&store, "/serviceaccounts", "t", "bot").await;
    assert_eq!(
        authenticator.authenticate(None, &bearer, now()),
        Err(ApiError::Unauthorized)
    );
    let mut again = account();
    again["metadata"]["uid"] = "u7".into();
    put(&store, "/serviceaccounts", again).await;
    assert_eq!(
        authenticator.authenticate(None, &bearer, now()),
        Err(ApiError::Unauthorized),
        "same name, another account"
    );
}

fn bootstrap_secret(changes: &[(&str, &str)]) -> Value {
    let mut data = json!({
        "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
        "expiration": "2026-05-04T04:00:00Z", "auth-extra-groups": "system:bootstrappers:muster",
    });
    for (key, value) in changes {
        data[*key] = (*value).into();
    }
    for value in data.as_object_mut().unwrap().values_mut() {
        *value = STANDARD.encode(value.as_str().unwrap()).into();
    }
    json!({
        "metadata": { "namespace": "kube-system", "name": "bootstrap-token-abcdef" },
        "type": "bootstrap.kubernetes.io/token", "data": data,
    })
}

#[tokio::test]
async fn bootstrap_tokens_need_a_good_secret() {
    let mut other_type = bootstrap_secret(&[]);
    other_type["type"] = "Opaque".into();
    let mut leaving = bootstrap_secret(&[]);
    leaving["metadata"]["deletionTimestamp"] = NOW.into();
    let good: &[&str] = &[
        "system:bootstrappers",
        "system:bootstrappers:muster",
        "system:authenticated",
    ];
    let plain: &[&str] = &["system:bootstrappers", "system:authenticated"];
    let cases: Vec<Bootstrap<'_>> = vec![
        (bootstrap_secret(&[]), "0123456789abcdef", Ok(good)),
        (
            bootstrap_secret(&[("expiration", "")]),
            "0123456789abcdef",
            Ok(good),
        ),
        (
            bootstrap_secret(&[("auth-extra-groups", "")]),
            "0123456789abcdef",
            Ok(plain),
        ),
        (bootstrap_secret(&[]), "0123456789abcdee", Err("is wrong")),
        (
            bootstrap_secret(&[("token-secret", "")]),
            "0123456789abcdef",
            Err("is wrong"),
        ),
        (
            bootstrap_secret(&[("token-id", "bbcdef")]),
            "0123456789abcdef",
            Err("is wrong"),
        ),
        (
            bootstrap_secret(&[("expiration", NOW)]),
            "0123456789abcdef",
            Err("has expired"),
        ),
        (
            bootstrap_secret(&[("expiration", "tomorrow")]),
            "0123456789abcdef",
            Err("has expired"),
        ),
        (
            bootstrap_secret(&[("usage-bootstrap-authentication", "false")]),
            "0123456789abcdef",
            Err("not for authentication"),
        ),
        (
            bootstrap_secret(&[("auth-extra-groups", "system:masters")]),
            "0123456789abcdef",
            Err("may not have"),
        ),
        (
            bootstrap_secret(&[("auth-extra-groups", "system:bootstrappers:")]),
            "0123456789abcdef",
            Err("may not have"),
        ),
        (
            bootstrap_secret(&[("auth-extra-groups", "system:bootstrappers:A")]),
            "0123456789abcdef",
            Err("may not have"),
        ),
        (other_type, "0123456789abcdef", Err("not usable")),
        (leaving, "0123456789abcdef", Err("not usable")),
    ];
    for (secret, sent, expected) in cases {
        let store = memory();
        put(&store, "/secrets", secret.clone()).await;
        match (
            check_bootstrap("abcdef", sent, &store, |a, b| a == b, now()),
            expected,
        ) {
            (Ok(user), Ok(groups)) => {
                assert_eq!(
                    (user.name.as_str(), &user.groups[..]),
                    (
                        "system:bootstrap:abcdef",
                        groups
                            .iter()
                            .map(|&g| g.to_owned())
                            .collect::<Vec<_>>()
                            .as_slice()
                    )
                );
            }
            (Err(why), Err(part)) => assert!(why.contains(part), "{why} should contain {part}"),
            (found, expected) => panic!("{found:?} instead of {expected:?} for {secret}"),
        }
    }
    let store = memory();
    put(&store, "/secrets", bootstrap_secret(&[])).await;
    let authenticator = authenticator(&store);
    let ask = |token: &str| {
        authenticator.authenticate(
            None,
            &headers(&[("authorization", &format!("Bearer {token}"))]),
            now(),
        )
    };
    assert_eq!(
        ask("abcdef.0123456789abcdef").unwrap().name,
        "system:bootstrap:abcdef"
    );
    assert_eq!(ask("abcdef.0123456789abcdee"), Err(ApiError::Unauthorized));
    assert_eq!(ask("bbcdef.0123456789abcdef"), Err(ApiError::Unauthorized));
}

#[test]
fn names_and_tokens_split() {
    let cases = [
        ("abcdef.0123456789abcdef", Some(("abcdef", "0123456789abcdef"))),
        ("abcdeF.0123456789abcdef", None),
        ("abcdef.0123456789abcde", None),
        ("abcdef.0123456789abcde.", None),
        ("abcdef", None),
    ];
    for (token, parts) in cases {
        assert_eq!(split_bootstrap(token), parts);
    }
    assert_eq!(
        split_service_account("system:serviceaccount:a:b"),
        Some(("a", "b"))
    );
    for name in [
        "system:serviceaccount:a",
        "system:serviceaccount::b",
        "system:serviceaccount:a:b:c",
        "alice",
    ] {
        assert_eq!(split_service_account(name), None);
    }
}
