use super::*;

const NOW: &str = "2026-01-02T03:04:05Z";
const EARLIER: &str = "2025-01-01T00:00:00Z";
const NO_JOIN: &str = "user \"jane\" cannot add/remove a ManagedCluster to/from ManagedClusterSet";

fn cluster(value: Value) -> Cluster {
    serde_json::from_value(value).unwrap()
}

fn named(labels: &Value, spec: &Value) -> Cluster {
    cluster(json!({"metadata": {"name": "c1", "labels": labels}, "spec": spec}))
}

fn jane() -> User {
    User {
        username: "jane".to_owned(),
        ..User::default()
    }
}

fn validate(user: &User, new: &Cluster, old: Option<&Cluster>) -> Decision {
    super::validate(user, new, old, "hub")
}

/// The questions, each as a line, and the no that goes with each.
fn asked(decision: Decision) -> Vec<(String, String)> {
    let line = |question: &Question| match question {
        Question::NamespaceStays(name) => format!("stays {name}"),
        Question::May(right) => format!(
            "{} {}/{}.{} {}",
            right.verb, right.resource, right.subresource, right.group, right.name
        ),
    };
    let checks = decision.unwrap();
    checks
        .iter()
        .map(|check| (line(&check.question), check.refusal.message()))
        .collect()
}

#[test]
fn names_and_urls_are_refused_in_the_words_of_kubernetes() {
    let with = |name: &str, urls: &[&str]| {
        let configs: Vec<_> = urls.iter().map(|url| json!({"url": url})).collect();
        cluster(json!({"metadata": {"name": name}, "spec": {"managedClusterClientConfigs": configs}}))
    };
    let long = "x".repeat(64);
    let regex = "a lowercase RFC 1123 label must consist of";
    for (name, urls, message) in [
        (
            "c1",
            &["http://a:1"][..],
            "url \"http://a:1\" is invalid in client configs",
        ),
        ("c1", &[""], "url \"\" is invalid in client configs"),
        ("c1", &["a.b"], "url \"a.b\" is invalid in client configs"),
        (
            "c1",
            &["https://a", "ftp://b", "c"],
            "url \"ftp://b\" is invalid in client configs\nurl \"c\" is",
        ),
        (
            "a.b",
            &["https://a"],
            "metadata.name format is not correct: must not contain dots",
        ),
        (
            "a.b",
            &["c"],
            "metadata.name format is not correct: must not contain dots\nurl \"c\" is invalid",
        ),
        ("A", &[], regex),
        ("-a", &[], regex),
        ("a..b", &[], regex),
        ("", &[], regex),
        (
            &long,
            &[],
            "metadata.name format is not correct: must be no more than 63 characters",
        ),
    ] {
        let refusal = validate(&jane(), &with(name, urls), None).unwrap_err();
        assert!(
            refusal.message().contains(message),
            "{name} {urls:?}: {refusal:?}"
        );
        assert_eq!(refusal.status()["code"], 400);
    }
    for urls in [&[][..], &["https://a.b:6443"], &["https://[::1]:1/x"]] {
        assert_eq!(validate(&jane(), &with("c1", urls), None), Ok(Vec::new()));
    }
    for name in ["default", "kube-system", "work", "registration", "hub"] {
        let refusal = validate(&jane(), &with(name, &[]), None).unwrap_err();
        assert!(refusal.message().contains("is reserved"), "{name}: {refusal:?}");
        assert_eq!(
            validate(&jane(), &with(name, &[]), Some(&with(name, &[]))),
            Ok(Vec::new())
        );
    }
    // A name that is there may stay; a URL is looked at with every change.
    let old = with("a.b", &[]);
    assert_eq!(validate(&jane(), &with("a.b", &[]), Some(&old)), Ok(Vec::new()));
    assert!(validate(&jane(), &with("a.b", &["c"]), Some(&old)).is_err());
}

#[test]
fn letting_a_cluster_in_is_asked_for_when_it_is_new() {
    let (open, shut) = (
        named(&Value::Null, &json!({"hubAcceptsClient": true})),
        named(&Value::Null, &json!({"hubAcceptsClient": false})),
    );
    let of = "managedclusters/accept.cluster.open-cluster-management.io \"c1\" is forbidden: ";
    let wanted = [
        (
            "stays c1".to_owned(),
            format!("{of}cluster namespace \"c1\" is terminating"),
        ),
        (
            "update managedclusters/accept.register.open-cluster-management.io c1".to_owned(),
            format!("{of}user \"jane\" cannot update the HubAcceptsClient field"),
        ),
    ];
    assert_eq!(asked(validate(&jane(), &open, None)), wanted);
    assert_eq!(asked(validate(&jane(), &open, Some(&shut))), wanted);
    for (new, old) in [
        (&open, Some(&open)),
        (&shut, Some(&open)),
        (&shut, Some(&shut)),
        (&shut, None),
    ] {
        assert_eq!(asked(validate(&jane(), new, old)), []);
    }
}

#[test]
fn a_set_is_left_and_joined_by_who_may() {
    let set = |set: &str| match set {
        "-" => named(&Value::Null, &json!({})),
        set => named(&json!({labels::CLUSTER_SET: set}), &json!({})),
    };
    for (old, new, sets) in [
        (None, "-", &[][..]),
        (None, "", &[]),
        (None, "a", &["a"]),
        (Some("-"), "a", &["a"]),
        (Some("a"), "a", &[]),
        (Some("a"), "b", &["a", "b"]),
        (Some("a"), "-", &["a"]),
        (Some("a"), "", &["a"]),
        (Some(""), "-", &[]),
    ] {
        let before = old.map(set);
        let wanted: Vec<_> = sets
            .iter()
            .map(|set| {
                (
                    format!("create managedclustersets/join.cluster.open-cluster-management.io {set}"),
                    format!(
                        "managedclustersets/join.cluster.open-cluster-management.io {set:?} is forbidden: \
                         {NO_JOIN} {set:?}"
                    ),
                )
            })
            .collect();
        assert_eq!(
            asked(validate(&jane(), &set(new), before.as_ref())),
            wanted,
            "{old:?} -> {new}"
        );
    }
}

#[test]
fn both_checks_come_in_ocms_order() {
    let spec = json!({"hubAcceptsClient": true});
    let new = named(&json!({labels::CLUSTER_SET: "s"}), &spec);
    let lines: Vec<_> = asked(validate(&jane(), &new, None))
        .into_iter()
        .map(|(line, _)| line.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(lines, ["stays", "update", "create"]);
}

fn taints(taints: &[(&str, &str, &str, Option<&str>)]) -> Cluster {
    let taints: Vec<_> = taints
        .iter()
        .map(|(key, value, effect, time)| json!({"key": key, "value": value, "effect": effect, "timeAdded": time}))
        .collect();
    named(&json!({labels::CLUSTER_SET: "s"}), &json!({"taints": taints}))
}

/// Which taints get a time, or the no.
fn stamped(new: &Cluster, old: Option<&Cluster>) -> Result<Vec<String>, String> {
    let now = NOW.parse().unwrap();
    let patch = mutate(new, old, true, now).map_err(|refusal| refusal.message())?;
    Ok(patch
        .iter()
        .map(|operation| {
            assert_eq!(
                (&operation["op"], &operation["value"]),
                (&json!("add"), &json!(NOW))
            );
            operation["path"].as_str().unwrap().to_owned()
        })
        .collect())
}

#[test]
fn taints_get_their_time_from_the_hub_alone() {
    let first = "/spec/taints/0/timeAdded".to_owned();
    let second = "/spec/taints/1/timeAdded".to_owned();
    let a = ("a", "v", "NoSelect", Some(EARLIER));
    let old = taints(&[a]);
    let refused = |keys: &str| Err(format!("It is not allowed to set TimeAdded of Taint {keys:?}."));
    for (new, created, updated) in [
        (taints(&[]), Ok(vec![]), Ok(vec![])),
        (taints(&[a]), Ok(vec![first.clone()]), Ok(vec![])),
        // The same moment, written otherwise.
        (
            taints(&[("a", "v", "NoSelect", Some("2025-01-01T01:00:00+01:00"))]),
            Ok(vec![first.clone()]),
            Ok(vec![]),
        ),
        (
            taints(&[("a", "v", "NoSelect", None)]),
            Ok(vec![first.clone()]),
            refused("a"),
        ),
        (
            taints(&[("a", "v", "NoSelect", Some(NOW))]),
            Ok(vec![first.clone()]),
            refused("a"),
        ),
        (
            taints(&[("a", "w", "NoSelect", None)]),
            Ok(vec![first.clone()]),
            Ok(vec![first.clone()]),
        ),
        (
            taints(&[("a", "v", "PreferNoSelect", None)]),
            Ok(vec![first.clone()]),
            Ok(vec![first.clone()]),
        ),
        (
            taints(&[("a", "w", "NoSelect", Some(EARLIER))]),
            Ok(vec![first.clone()]),
            refused("a"),
        ),
        (
            taints(&[a, ("b", "", "NoSelect", None)]),
            Ok(vec![first.clone(), second.clone()]),
            Ok(vec![second.clone()]),
        ),
        (
            taints(&[
                ("b", "", "NoSelect", Some(NOW)),
                ("c", "", "NoSelect", Some(NOW)),
                a,
            ]),
            Ok(vec![
                first.clone(),
                second.clone(),
                "/spec/taints/2/timeAdded".to_owned(),
            ]),
            refused("b,c"),
        ),
    ] {
        assert_eq!(stamped(&new, None), created, "{new:?}");
        assert_eq!(stamped(&new, Some(&old)), updated, "{new:?}");
    }
}

#[test]
fn a_taint_that_came_without_a_time_gets_one() {
    let first = "/spec/taints/0/timeAdded".to_owned();
    let old = taints(&[("a", "v", "NoSelect", None)]);
    for time in [None, Some(EARLIER)] {
        let new = taints(&[("a", "v", "NoSelect", time)]);
        assert_eq!(stamped(&new, Some(&old)), Ok(vec![first.clone()]));
    }
    let new = taints(&[("b", "v", "NoSelect", Some("yesterday"))]);
    let why = stamped(&new, Some(&old)).unwrap_err();
    assert!(why.contains("timeAdded of taint \"b\""), "{why}");
}

#[test]
fn a_cluster_without_a_set_is_in_the_default_one() {
    let now = NOW.parse().unwrap();
    let into = |labels: Value, gate: bool| mutate(&named(&labels, &json!({})), None, gate, now).unwrap();
    let key = "/metadata/labels/cluster.open-cluster-management.io~1clusterset";
    let added = vec![json!({"op": "add", "path": key, "value": "default"})];
    assert_eq!(into(json!({"x": "y"}), true), added);
    assert_eq!(into(json!({labels::CLUSTER_SET: ""}), true), added);
    assert_eq!(
        into(json!({labels::CLUSTER_SET: "mine"}), true),
        Vec::<Value>::new()
    );
    assert_eq!(
        into(Value::Null, true),
        [json!({"op": "add", "path": "/metadata/labels", "value": {labels::CLUSTER_SET: "default"}})]
    );
    assert_eq!(into(Value::Null, false), Vec::<Value>::new());
}
