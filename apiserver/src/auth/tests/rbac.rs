use super::super::rbac::{Index, Resource, evaluate};
use super::super::rules::{Rule, uncovered};
use super::super::{Attributes, Decision, UserInfo, bootstrap_policy};
use super::{binding, role};
use crate::object;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// `get apps deployments/status ns name` with `-` for empty, or `get /path`.
fn attributes(text: &str) -> Attributes {
    let words: Vec<&str> = text.split(' ').map(|w| if w == "-" { "" } else { w }).collect();
    match words[..] {
        [verb, path] => Attributes::path(verb, path),
        [verb, group, combined, namespace, name] => {
            let (resource, subresource) = combined.split_once('/').unwrap_or((combined, ""));
            Attributes {
                subresource: subresource.into(),
                ..Attributes::resource(verb, group, resource, namespace, name)
            }
        }
        _ => panic!("{text}"),
    }
}

fn fill(index: &mut Index, resource: Resource, object: &Value) {
    index.set(
        resource,
        object::namespace(object),
        object::name(object),
        Some(object),
    );
}

#[test]
fn rules_match_as_in_kubernetes() {
    let cases: &[(Value, &str, bool)] = &[
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
            "get - pods n p",
            true,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
            "list - pods n -",
            false,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
            "get apps pods n p",
            false,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
            "get - pods/log n p",
            false,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}),
            "get - pods/log n p",
            true,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}),
            "get - pods n p",
            false,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/*"]}),
            "get - pods/log n p",
            false,
        ),
        (
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]}),
            "get apps deployments/scale n d",
            true,
        ),
        (
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]}),
            "get apps deployments n d",
            false,
        ),
        (
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]}),
            "get apps deployments/status n d",
            false,
        ),
        (
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
            "frob x y/z n d",
            true,
        ),
        (
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
            "get /metrics",
            false,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}),
            "get - pods n a",
            true,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}),
            "get - pods n b",
            false,
        ),
        (
            json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}),
            "list - pods n -",
            false,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [], "resources": ["pods"]}),
            "get - pods n a",
            false,
        ),
        (
            json!({"verbs": [], "apiGroups": [""], "resources": ["pods"]}),
            "get - pods n a",
            false,
        ),
        (
            json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}),
            "get /healthz",
            true,
        ),
        (
            json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}),
            "get /healthz/ping",
            false,
        ),
        (
            json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]}),
            "get /healthz/ping",
            true,
        ),
        (
            json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]}),
            "get /healthz",
            false,
        ),
        (
            json!({"verbs": ["get"], "nonResourceURLs": ["*"]}),
            "get /any",
            true,
        ),
        (
            json!({"verbs": ["get"], "nonResourceURLs": ["*"]}),
            "post /any",
            false,
        ),
        (
            json!({"verbs": ["get"], "nonResourceURLs": ["*"]}),
            "get - pods n a",
            false,
        ),
    ];
    for (rule, request, expected) in cases {
        let request_attributes = attributes(request);
        let allowed =
            Rule::from_value(rule).allows(&request_attributes, &request_attributes.combined_resource());
        assert_eq!(allowed, *expected, "{rule} {request}");
    }
}

#[test]
fn bindings_decide_who_and_where() {
    let pods = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    let nodes = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}, {"verbs": ["get"], "nonResourceURLs": ["/m"]}]);
    let mut index = Index::default();
    fill(&mut index, Resource::Roles, &role("n", "pods", &pods));
    fill(&mut index, Resource::ClusterRoles, &role("", "pods", &pods));
    fill(&mut index, Resource::ClusterRoles, &role("", "nodes", &nodes));
    for b in [
        binding(
            "n",
            "local",
            "Role/pods",
            &["User:alice", "ServiceAccount:n/bot", "ServiceAccount:other/bot"],
        ),
        binding("m", "shared", "ClusterRole/pods", &["Group:devs"]),
        binding("m", "dangling", "Role/pods", &["User:alice"]),
        binding("n", "own", "Role/pods", &["ServiceAccount:here"]),
        binding("n", "wide", "ClusterRole/nodes", &["User:zoe"]),
    ] {
        fill(&mut index, Resource::RoleBindings, &b);
    }
    fill(
        &mut index,
        Resource::ClusterRoleBindings,
        &binding("", "nodes", "ClusterRole/nodes", &["Group:ops"]),
    );

    let allowed = |why: &str| Decision::Allowed(why.into());
    let no = |why: &str| Decision::NoOpinion(why.into());
    let alice = "RBAC: allowed by RoleBinding \"local/n\" of Role \"pods\" to User \"alice\"";
    let cases: &[(&str, &[&str], &str, Decision)] = &[
        ("alice", &[], "get - pods n p", allowed(alice)),
        (
            "alice",
            &[],
            "get - pods m p",
            no("RBAC: role.rbac.authorization.k8s.io \"pods\" not found"),
        ),
        ("alice", &[], "get - pods - p", no("")),
        (
            "bob",
            &["x", "devs"],
            "get - pods m p",
            allowed("RBAC: allowed by RoleBinding \"shared/m\" of ClusterRole \"pods\" to Group \"devs\""),
        ),
        ("devs", &[], "get - pods m p", no("")),
        ("bob", &["alice"], "get - pods n p", no("")),
        (
            "system:serviceaccount:n:bot",
            &[],
            "get - pods n p",
            allowed("RBAC: allowed by RoleBinding \"local/n\" of Role \"pods\" to ServiceAccount \"bot/n\""),
        ),
        (
            "system:serviceaccount:other:bot",
            &[],
            "get - pods n p",
            allowed(
                "RBAC: allowed by RoleBinding \"local/n\" of Role \"pods\" to ServiceAccount \"bot/other\"",
            ),
        ),
        (
            "system:serviceaccount:n:here",
            &[],
            "get - pods n p",
            allowed("RBAC: allowed by RoleBinding \"own/n\" of Role \"pods\" to ServiceAccount \"here/n\""),
        ),
        (
            "op",
            &["ops"],
            "get - nodes - x",
            allowed(
                "RBAC: allowed by ClusterRoleBinding \"nodes\" of ClusterRole \"nodes\" to Group \"ops\"",
            ),
        ),
        (
            "op",
            &["ops"],
            "get /m",
            allowed(
                "RBAC: allowed by ClusterRoleBinding \"nodes\" of ClusterRole \"nodes\" to Group \"ops\"",
            ),
        ),
        // Paths and cluster-wide resources are nothing a binding in a namespace can give.
        ("zoe", &[], "get /m", no("")),
        ("zoe", &[], "get - nodes - x", no("")),
        (
            "root",
            &["system:masters"],
            "delete any thing/at all -",
            allowed(""),
        ),
    ];
    for (name, groups, request, expected) in cases {
        let user = UserInfo::new(*name, groups.iter().copied());
        assert_eq!(
            evaluate(&index, &user, &attributes(request)),
            *expected,
            "{name} {groups:?} {request}"
        );
    }
}

#[test]
fn the_index_follows_changes() {
    let pods = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    let request = attributes("get - pods n p");
    let may =
        |index: &Index, name: &str| evaluate(index, &UserInfo::new(name, [""; 0]), &request).is_allowed();
    let mut index = Index::default();
    fill(
        &mut index,
        Resource::RoleBindings,
        &binding("n", "b", "Role/r", &["User:a", "User:b"]),
    );
    assert!(!may(&index, "a"), "no role yet");
    fill(&mut index, Resource::Roles, &role("n", "r", &pods));
    assert!(may(&index, "a") && may(&index, "b"));
    fill(
        &mut index,
        Resource::RoleBindings,
        &binding("n", "b", "Role/r", &["User:b"]),
    );
    assert!(!may(&index, "a") && may(&index, "b"));
    fill(&mut index, Resource::Roles, &role("n", "r", &json!([])));
    assert!(!may(&index, "b"));
    fill(&mut index, Resource::Roles, &role("n", "r", &pods));
    index.set(Resource::RoleBindings, "n", "b", None);
    assert!(!may(&index, "b"));
    index.set(Resource::RoleBindings, "n", "b", None);
}

#[test]
fn what_is_not_covered_is_shown_compactly() {
    let rule = |v: &[&str], g: &[&str], r: &[&str]| Rule::resources(v, g, r);
    let named = |r: Rule, names: &[&str]| Rule {
        resource_names: names.iter().map(|&n| n.to_owned()).collect(),
        ..r
    };
    let everything = || vec![rule(&["*"], &["*"], &["*"]), Rule::urls(&["*"], &["*"])];
    let cases: Vec<(Vec<Rule>, Vec<Rule>, &str)> = vec![
        (vec![], vec![], ""),
        (
            vec![],
            vec![rule(&["get"], &[""], &["secrets"])],
            r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#,
        ),
        (
            vec![rule(&["get"], &[""], &["pods"])],
            vec![rule(&["get", "list", "watch"], &[""], &["pods", "nodes"])],
            "{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\" \"watch\"]}\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"watch\"]}",
        ),
        (
            everything(),
            vec![rule(&["x"], &["y"], &["z/w"]), Rule::urls(&["get"], &["/a/*"])],
            "",
        ),
        (
            vec![],
            everything(),
            "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}\n{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}",
        ),
        // Two rules together cover what neither does alone.
        (
            vec![
                rule(&["get"], &[""], &["pods"]),
                rule(&["list"], &[""], &["pods"]),
            ],
            vec![rule(&["get", "list"], &[""], &["pods"])],
            "",
        ),
        (
            vec![rule(&["*"], &[""], &["*/scale"])],
            vec![rule(&["get"], &[""], &["rc/scale"])],
            "",
        ),
        (
            vec![rule(&["*"], &[""], &["rc"])],
            vec![rule(&["get"], &[""], &["*"])],
            r#"{APIGroups:[""], Resources:["*"], Verbs:["get"]}"#,
        ),
        (
            vec![rule(&["get"], &[""], &["pods"])],
            vec![named(rule(&["get"], &[""], &["pods"]), &["a", "b"])],
            "",
        ),
        (
            vec![named(rule(&["get"], &[""], &["pods"]), &["a"])],
            vec![named(rule(&["get"], &[""], &["pods"]), &["a", "b"])],
            r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["b"], Verbs:["get"]}"#,
        ),
        (
            vec![named(rule(&["get"], &[""], &["pods"]), &["a"])],
            vec![rule(&["get"], &[""], &["pods"])],
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#,
        ),
        (
            vec![Rule::urls(&["get"], &["/a/b"])],
            vec![Rule::urls(&["get"], &["/a/*"])],
            r#"{NonResourceURLs:["/a/*"], Verbs:["get"]}"#,
        ),
    ];
    for (held, wanted, expected) in cases {
        let shown: Vec<String> = uncovered(&held, &wanted).iter().map(Rule::compact).collect();
        assert_eq!(shown.join("\n"), expected, "{held:?} {wanted:?}");
    }
}

#[test]
fn the_bootstrap_policy_is_whole_and_means_what_it_says() {
    let policy = bootstrap_policy();
    let names: BTreeSet<(&str, &str)> = policy
        .iter()
        .map(|o| (o["kind"].as_str().unwrap(), object::name(o)))
        .collect();
    assert_eq!(names.len(), policy.len(), "no name twice");
    let mut index = Index::default();
    for object in &policy {
        let kind = object["kind"].as_str().unwrap();
        let resource = Resource::named(&format!("{}s", kind.to_lowercase())).unwrap();
        fill(&mut index, resource, object);
        if kind == "ClusterRoleBinding" {
            assert!(
                names.contains(&("ClusterRole", object["roleRef"]["name"].as_str().unwrap())),
                "{object}"
            );
        }
        for rule in object["rules"].as_array().into_iter().flatten() {
            let rule = Rule::from_value(rule);
            assert_eq!(rule.resources.is_empty(), rule.api_groups.is_empty(), "{rule:?}");
            assert!(!rule.verbs.is_empty() && rule.resources.is_empty() != rule.non_resource_urls.is_empty());
        }
    }
    let anyone = UserInfo::new("a", [super::super::ALL_AUTHENTICATED]);
    let account = UserInfo::new("b", ["system:serviceaccounts", super::super::ALL_AUTHENTICATED]);
    let nobody = UserInfo::anonymous();
    let cases: &[(&UserInfo, &str, bool)] = &[
        (&anyone, "get /api", true),
        (&anyone, "get /apis/apps/v1", true),
        (&anyone, "get /metrics", false),
        (
            &anyone,
            "create authorization.k8s.io selfsubjectaccessreviews - -",
            true,
        ),
        (
            &anyone,
            "create authentication.k8s.io selfsubjectreviews - -",
            true,
        ),
        (
            &anyone,
            "create authorization.k8s.io subjectaccessreviews - -",
            false,
        ),
        (&anyone, "get - secrets kube-system x", false),
        (&nobody, "get /version", true),
        (&nobody, "get /healthz", true),
        (&nobody, "get /api", false),
        (&nobody, "list - namespaces - -", false),
        (&account, "get /openid/v1/jwks", true),
        (&anyone, "get /openid/v1/jwks", false),
    ];
    for (user, request, expected) in cases {
        assert_eq!(
            evaluate(&index, user, &attributes(request)).is_allowed(),
            *expected,
            "{} {request}",
            user.name
        );
    }
    let (rules, errors) = index.rules(&anyone, "t");
    assert_eq!(errors, [""; 0]);
    assert_eq!(
        rules[0].to_value(),
        json!({"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]})
    );
}

#[test]
fn a_no_reads_as_in_kubernetes() {
    let alice = UserInfo::new("alice", [""; 0]);
    let cases = [
        (
            attributes("list - configmaps t -"),
            "configmaps is forbidden: User \"alice\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"t\"",
        ),
        (
            attributes("get - configmaps t ap"),
            "configmaps \"ap\" is forbidden: User \"alice\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"t\"",
        ),
        (
            attributes("list - nodes - -"),
            "nodes is forbidden: User \"alice\" cannot list resource \"nodes\" in API group \"\" at the cluster scope",
        ),
        (
            attributes("patch apps deployments/status t d"),
            "deployments.apps \"d\" is forbidden: User \"alice\" cannot patch resource \"deployments/status\" in API group \"apps\" in the namespace \"t\"",
        ),
        (
            attributes("get /metrics"),
            "forbidden: User \"alice\" cannot get path \"/metrics\"",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(request.forbidden(&alice, "").to_string(), expected);
    }
    let status = attributes("get /metrics").forbidden(&alice, "").status();
    assert_eq!((&status["details"], &status["code"]), (&json!({}), &json!(403)));
    let why = attributes("get /metrics")
        .forbidden(&alice, "RBAC: gone")
        .to_string();
    assert!(why.ends_with("\"/metrics\": RBAC: gone"));
}
