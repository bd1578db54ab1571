use super::super::{Attributes, Authorizer, UserInfo};
use super::{binding, memory, put, remove, role};
use crate::store::{Store, StoreOptions};
use serde_json::{Value, json};

const ROLES: &str = "rbac.authorization.k8s.io/roles";
const BINDINGS: &str = "rbac.authorization.k8s.io/rolebindings";
const CLUSTER_ROLES: &str = "rbac.authorization.k8s.io/clusterroles";
const GROUP: &str = "rbac.authorization.k8s.io";

fn alice() -> UserInfo {
    UserInfo::new("alice", ["system:authenticated"])
}

async fn grant(store: &Store, name: &str, rules: Value) {
    put(store, ROLES, role("t", name, &rules)).await;
    put(
        store,
        BINDINGS,
        binding("t", name, &format!("Role/{name}"), &["User:alice"]),
    )
    .await;
}

#[tokio::test]
async fn a_decision_is_never_older_than_the_store() {
    let store = memory();
    let authorizer = Authorizer::new(store.clone());
    let get = Attributes::resource("get", "", "pods", "t", "p");
    let pods = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    for _ in 0..20 {
        assert!(!authorizer.authorize(&alice(), &get).is_allowed());
        grant(&store, "r", pods.clone()).await;
        assert!(authorizer.authorize(&alice(), &get).is_allowed());
        remove(&store, BINDINGS, "t", "r").await;
    }
}

#[tokio::test]
async fn falling_behind_the_log_is_made_up_for() {
    let store = Store::open(StoreOptions {
        path: None,
        keep_revisions: 4,
    })
    .unwrap();
    let authorizer = Authorizer::new(store.clone());
    let get = Attributes::resource("get", "", "pods", "t", "p");
    let pods = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    grant(&store, "r", pods.clone()).await;
    assert!(authorizer.authorize(&alice(), &get).is_allowed());
    remove(&store, BINDINGS, "t", "r").await;
    for i in 0..50 {
        put(
            &store,
            BINDINGS,
            binding("x", &format!("b{i}"), "Role/r", &["User:z"]),
        )
        .await;
    }
    assert!(!authorizer.authorize(&alice(), &get).is_allowed());
}

#[tokio::test]
async fn nobody_grants_more_than_they_have() {
    let store = memory();
    let authorizer = Authorizer::new(store.clone());
    put(&store, CLUSTER_ROLES, role("", "cluster-admin", &json!([
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ])))
    .await;
    grant(
        &store,
        "held",
        json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"]}]),
    )
    .await;

    let check = |plural: &str, new: &Value, old: Option<&Value>| {
        authorizer
            .check_write(&alice(), GROUP, plural, new, old)
            .map_err(|e| (e.code(), e.to_string()))
    };
    let less = role(
        "t",
        "less",
        &json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]}]),
    );
    let secrets = role(
        "t",
        "esc",
        &json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]),
    );
    assert_eq!(check("roles", &less, None), Ok(()));
    assert_eq!(
        check("roles", &secrets, None),
        Err((403, "roles.rbac.authorization.k8s.io \"esc\" is forbidden: user \"alice\" (groups=[\"system:authenticated\"]) is \
          attempting to grant RBAC permissions not currently held:\n\
          {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}".into()))
    );
    // What is held in one namespace is not held in another, nor everywhere.
    assert!(check("roles", &role("other", "x", &less["rules"]), None).is_err());
    assert!(check("clusterroles", &role("", "x", &less["rules"]), None).is_err());
    // Other resources are none of its business.
    assert_eq!(
        authorizer.check_write(&alice(), "", "configmaps", &secrets, None),
        Ok(())
    );
    assert_eq!(
        authorizer.check_write(&UserInfo::loopback(), GROUP, "roles", &secrets, None),
        Ok(())
    );

    let mut released = secrets.clone();
    released["metadata"]["finalizers"] = json!([]);
    assert_eq!(
        check("roles", &released, Some(&secrets)),
        Ok(()),
        "the garbage collector's fields"
    );

    assert_eq!(
        check("rolebindings", &binding("t", "b", "Role/held", &["User:x"]), None),
        Ok(())
    );
    assert_eq!(
        check("rolebindings", &binding("t", "esc", "ClusterRole/cluster-admin", &[]), None),
        Err((403, "rolebindings.rbac.authorization.k8s.io \"esc\" is forbidden: user \"alice\" (groups=[\"system:authenticated\"]) is \
          attempting to grant RBAC permissions not currently held:\n\
          {APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}\n{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}".into()))
    );
    let missing = check("rolebindings", &binding("t", "b", "Role/none", &["User:x"]), None);
    assert_eq!(
        missing,
        Err((
            404,
            "rolebindings.rbac.authorization.k8s.io \"none\" not found".into()
        ))
    );
}

#[tokio::test]
async fn escalate_and_bind_are_verbs_one_can_be_given() {
    let store = memory();
    let authorizer = Authorizer::new(store.clone());
    let secrets = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]);
    put(&store, ROLES, role("t", "secrets", &secrets)).await;
    let bind = |name: &str| binding("t", "b", &format!("Role/{name}"), &["User:x"]);
    let may = |plural: &str, new: &Value| authorizer.check_write(&alice(), GROUP, plural, new, None).is_ok();
    assert!(!may("roles", &role("t", "secrets", &secrets)) && !may("rolebindings", &bind("secrets")));
    grant(&store, "e", json!([
        {"verbs": ["escalate"], "apiGroups": [GROUP], "resources": ["roles"], "resourceNames": ["secrets"]},
        {"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["roles"], "resourceNames": ["secrets"]},
    ]))
    .await;
    assert!(may("roles", &role("t", "secrets", &secrets)) && may("rolebindings", &bind("secrets")));
    assert!(!may("roles", &role("t", "other", &secrets)));
    assert!(!may(
        "rolebindings",
        &binding("u", "b", "Role/secrets", &["User:x"])
    ));
}

#[tokio::test]
async fn aggregation_is_for_those_who_may_everything() {
    let store = memory();
    let authorizer = Authorizer::new(store.clone());
    let mut gathering = role("", "g", &json!([]));
    gathering["aggregationRule"] = json!({ "clusterRoleSelectors": [] });
    let error = authorizer
        .check_write(&alice(), GROUP, "clusterroles", &gathering, None)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("must have cluster-admin privileges to use an aggregationRule"),
        "{error}"
    );
    let mut labelled = gathering.clone();
    labelled["metadata"]["labels"] = json!({ "a": "b" });
    assert_eq!(
        authorizer.check_write(&alice(), GROUP, "clusterroles", &labelled, Some(&gathering)),
        Ok(())
    );
}
