//! Decisions, one table each.

use super::super::*;
use super::config_map;
use crate::controllers::garbage::{Dependent, Observed, OwnerState};
use crate::controllers::meta::{FOREGROUND, ORPHAN, Owner};
use crate::controllers::namespace::Content;
use crate::controllers::plan::Action;
use crate::pki::PkiError;
use crate::rest::params::Propagation;
use crate::store::Key;
use jiff::Timestamp;
use serde_json::json;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn later(seconds: u64) -> Plan {
    Plan::later(Duration::from_secs(seconds))
}

#[test]
fn garbage_is_what_has_only_dead_owners() {
    use OwnerState::{Gone, There, Unknown, WaitsForDependents as Waits};
    #[derive(Debug, PartialEq)]
    enum Want {
        Nothing,
        Keep(&'static [&'static str]),
        Delete(Propagation),
        Unblock,
    }
    let dependent = |waits: bool| Dependent {
        resource: "/configmaps".into(),
        object: json!({}),
        blocks: true,
        waits,
    };
    for (states, finalizers, dependents, want) in [
        (vec![], vec![], vec![], Want::Nothing),
        (vec![There], vec![], vec![], Want::Nothing),
        (vec![Unknown], vec![], vec![], Want::Nothing),
        (vec![Gone], vec![], vec![], Want::Delete(Propagation::Background)),
        (
            vec![Gone],
            vec![ORPHAN],
            vec![],
            Want::Delete(Propagation::Orphan),
        ),
        (
            vec![Gone],
            vec![FOREGROUND],
            vec![],
            Want::Delete(Propagation::Foreground),
        ),
        (vec![Gone, There], vec![], vec![], Want::Keep(&["u1"])),
        (vec![Gone, Unknown], vec![], vec![], Want::Keep(&["u1"])),
        (vec![Waits, There, Gone], vec![], vec![], Want::Keep(&["u1"])),
        (vec![Waits], vec![], vec![], Want::Delete(Propagation::Background)),
        (
            vec![Waits],
            vec![],
            vec![dependent(false)],
            Want::Delete(Propagation::Foreground),
        ),
        (vec![Waits], vec![], vec![dependent(true)], Want::Unblock),
    ] {
        let owners: Vec<Owner> = (0..states.len())
            .map(|i| Owner {
                uid: format!("u{i}"),
                block_owner_deletion: Some(true),
                ..Owner::default()
            })
            .collect();
        let mut object = config_map("n", "o", &[], &[]);
        object["metadata"]["ownerReferences"] = owners
            .iter()
            .map(|o| json!({"uid": o.uid, "blockOwnerDeletion": true}))
            .collect();
        let observed = Observed {
            resource: "/configmaps".into(),
            object,
            meta: Meta {
                uid: "me".into(),
                finalizers: Some(finalizers.iter().map(|f: &&str| (*f).to_owned()).collect()),
                owner_references: Some(owners.clone()),
                ..Meta::default()
            },
            owners: owners.into_iter().zip(states.clone()).collect(),
            dependents,
        };
        let plan = garbage::decide(&observed);
        let got = match plan.actions.as_slice() {
            [] => Want::Nothing,
            [
                Action::Delete {
                    propagation: Some(p), ..
                },
            ] => Want::Delete(*p),
            [Action::Update { object, .. }] => {
                let left = object["metadata"]["ownerReferences"].as_array().unwrap();
                if left.iter().all(|r| r["blockOwnerDeletion"] == false) {
                    Want::Unblock
                } else {
                    assert_eq!(left.len(), 1);
                    Want::Keep(&["u1"])
                }
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(got, want, "{states:?} {finalizers:?}");
        if let (Want::Keep(uids), [Action::Update { object, .. }]) = (want, plan.actions.as_slice()) {
            let left = object["metadata"]["ownerReferences"].as_array().unwrap();
            assert_eq!(
                left.iter()
                    .map(|r| r["uid"].as_str().unwrap())
                    .collect::<Vec<_>>(),
                uids
            );
        }
    }
}

#[test]
fn requests_are_signed_refused_or_cleaned() {
    let signed = |_: &certificate::Order| Ok("PEM".to_owned());
    let csr = |signer: &str, usages: Value, conditions: Value, more: Value| {
        let mut csr = json!({
            "metadata": {"name": "c", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-01-01T11:30:00Z"},
            "spec": {"signerName": signer, "usages": usages, "request": "UEVN"},
            "status": {"conditions": conditions},
        });
        if let Some(more) = more.as_object() {
            for (k, v) in more {
                csr["status"][k] = v.clone();
            }
        }
        csr
    };
    let client = "kubernetes.io/kube-apiserver-client";
    let approved = |at: &str| json!([{"type": "Approved", "status": "True", "lastUpdateTime": at}]);
    let fresh = approved("2026-01-01T11:59:00Z");
    let auth = json!(["client auth"]);
    let failure = |plan: &Plan| match plan.actions.as_slice() {
        [
            Action::Update {
                subresource: "status",
                object,
                ..
            },
        ] => {
            let failed = plan::condition(object, "Failed").cloned().unwrap_or_default();
            assert_eq!(failed["reason"], "SignerValidationFailure");
            failed["message"].as_str().unwrap().to_owned()
        }
        other => panic!("{other:?}"),
    };
    let plan = certificate::decide(
        &csr(client, auth.clone(), fresh.clone(), json!({})),
        now(),
        |order| {
            assert_eq!(
                (order.request.as_slice(), order.ttl.as_secs()),
                (&b"PEM"[..], 365 * 24 * 3600)
            );
            signed(order)
        },
    );
    let [Action::Update { object, .. }] = plan.actions.as_slice() else {
        panic!("{plan:?}")
    };
    assert_eq!(object["status"]["certificate"], "UEVN");
    for (signer, usages, message) in [
        (
            client,
            json!(["client auth", "server auth"]),
            "invalid usage for client certificate: server auth",
        ),
        (
            client,
            json!(["digital signature"]),
            "missing required usage for client certificate: client auth",
        ),
        (
            "kubernetes.io/kube-apiserver-client-kubelet",
            auth.clone(),
            "unusable certificate signing request: it is neither PEM nor DER",
        ),
    ] {
        let plan = certificate::decide(&csr(signer, usages, fresh.clone(), json!({})), now(), signed);
        assert_eq!(failure(&plan), message);
    }
    let plan = certificate::decide(
        &csr(client, auth.clone(), fresh.clone(), json!({})),
        now(),
        |_| Err(PkiError::Request("it does not parse".into())),
    );
    assert_eq!(
        failure(&plan),
        "unusable certificate signing request: it does not parse"
    );
    let other = certificate::decide(
        &csr("x.io/s", auth.clone(), fresh.clone(), json!({})),
        now(),
        signed,
    );
    assert_eq!(other, Plan::default());
    for (seconds, ttl) in [(601_u64, 601), (1, 600), (1_u64 << 40, 365 * 24 * 3600)] {
        let mut csr = csr(client, auth.clone(), fresh.clone(), json!({}));
        csr["spec"]["expirationSeconds"] = json!(seconds);
        certificate::decide(&csr, now(), |order| {
            assert_eq!(order.ttl.as_secs(), ttl);
            signed(order)
        });
    }
    let denied = |at: &str| json!([{"type": "Denied", "status": "True", "lastUpdateTime": at}]);
    let certificate = json!({"certificate": "UEVN"});
    for (conditions, more, left) in [
        (json!([]), json!({}), Some(24 * 3600 - 1800)),
        (denied("2026-01-01T11:30:00Z"), json!({}), Some(1800)),
        (denied("2026-01-01T11:00:00Z"), json!({}), None),
        (approved("2026-01-01T11:59:00Z"), certificate.clone(), Some(3540)),
        (approved("2026-01-01T10:00:00Z"), certificate, None),
    ] {
        let csr = csr(client, auth.clone(), conditions.clone(), more);
        let plan = certificate::decide(&csr, now(), |_| panic!("signed {conditions}"));
        match left {
            Some(left) => assert_eq!(plan, later(left)),
            None => assert!(
                matches!(plan.actions.as_slice(), [Action::Delete { .. }]),
                "{plan:?}"
            ),
        }
    }
}

#[test]
fn a_namespace_goes_pods_first() {
    let mut terminating = json!({
        "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T11:00:00Z"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"},
    });
    let object = |name: &str, going: bool| {
        let mut object = json!({"metadata": {"name": name, "namespace": "a", "uid": name}});
        if going {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T11:00:00Z".into();
        }
        object
    };
    let content = |pods: Vec<Value>, maps: Vec<Value>| {
        [("/configmaps", "configmaps", maps), ("/pods", "pods", pods)].map(|(s, r, objects)| Content {
            storage: s.into(),
            resource: r.into(),
            objects,
        })
    };
    let deleted = |plan: &Plan| -> Vec<String> {
        let names = plan.actions.iter().map(|a| match a {
            Action::Delete { name, .. } => name.clone(),
            Action::Update { subresource, .. } => format!("({subresource})"),
            Action::Create { .. } | Action::Apply { .. } => panic!("{a:?}"),
        });
        names.collect()
    };
    let decide = |ns: &Value, c: &[Content]| deleted(&namespace::terminate(ns, c, now()));
    let both = content(vec![object("p", false)], vec![object("m", false)]);
    assert_eq!(decide(&terminating, &both), ["p"]);
    let pod_waits = content(vec![object("p", true)], vec![object("m", false)]);
    assert_eq!(decide(&terminating, &pod_waits), ["(status)"]);
    assert_eq!(
        decide(&terminating, &content(vec![], vec![object("m", false)])),
        ["m"]
    );
    let waits = content(vec![], vec![object("m", true)]);
    let plan = namespace::terminate(&terminating, &waits, now());
    assert_eq!(deleted(&plan), ["(status)"]);
    let [Action::Update { object: said, .. }] = plan.actions.as_slice() else {
        panic!()
    };
    // Said once.
    assert_eq!(decide(said, &waits), Vec::<String>::new());
    assert_eq!(decide(&terminating, &[]), ["(finalize)"]);
    terminating["spec"]["finalizers"] = json!(["x.io/other"]);
    assert_eq!(decide(&terminating, &[]), Vec::<String>::new());
    let active = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
    assert_eq!(decide(&active, &both), Vec::<String>::new());
}

#[test]
fn aggregated_roles_are_the_sum_of_what_they_select() {
    let rule = |r: &str| json!({"apiGroups": [""], "resources": [r], "verbs": ["get"]});
    let role = |name: &str, label: &str, rules: Value| json!({"metadata": {"name": name, "labels": {"l": label}}, "rules": rules});
    let mut sum = role("sum", "x", Value::Null);
    sum["aggregationRule"] = json!({"clusterRoleSelectors": [
        {"matchLabels": {"l": "a"}},
        {"matchExpressions": [{"key": "l", "operator": "In", "values": ["b", "x"]}]},
    ]});
    let mut roles = vec![
        sum,
        role("z", "a", json!([rule("pods"), rule("secrets")])),
        role("y", "a", json!([rule("nodes")])),
        role("w", "b", json!([rule("pods"), rule("events")])),
        role("v", "c", json!([rule("leases")])),
    ];
    let plan = aggregation::decide(&roles);
    let [Action::Apply { config, .. }] = plan.actions.as_slice() else {
        panic!("{plan:?}")
    };
    let want = json!([rule("nodes"), rule("pods"), rule("secrets"), rule("events")]);
    assert_eq!(config["rules"], want);
    roles[0]["rules"] = want;
    assert_eq!(aggregation::decide(&roles), Plan::default());
    for (selector, selected) in [
        (json!({}), true),
        (
            json!({"matchExpressions": [{"key": "l", "operator": "Exists"}]}),
            true,
        ),
        (
            json!({"matchExpressions": [{"key": "m", "operator": "DoesNotExist"}]}),
            true,
        ),
        (
            json!({"matchExpressions": [{"key": "l", "operator": "NotIn", "values": ["a"]}]}),
            false,
        ),
        (
            json!({"matchExpressions": [{"key": "m", "operator": "NotIn", "values": ["a"]}]}),
            true,
        ),
        (
            json!({"matchExpressions": [{"key": "l", "operator": "Frob"}]}),
            false,
        ),
    ] {
        assert_eq!(aggregation::selects(&selector, &roles[1]), selected, "{selector}");
    }
}

#[test]
fn only_roles_that_gather_or_are_gathered_are_looked_at() {
    let entry = |name: &str, label: &str, selected: Option<&str>| {
        let mut role = json!({"metadata": {"name": name, "labels": {"l": label}}});
        if let Some(selected) = selected {
            let selector = json!({"matchLabels": {"l": selected}});
            role["aggregationRule"] = json!({"clusterRoleSelectors": [selector]});
        }
        let json = bytes::Bytes::from(role.to_string());
        Entry::new(Key::new(kinds::CLUSTER_ROLES, "", name), 1, json)
    };
    let mut gathering = aggregation::Gathering::default();
    let (sum, one, other) = (
        entry("sum", "", Some("a")),
        entry("one", "a", None),
        entry("one", "b", None),
    );
    for (now, gone, before, looked) in [
        // Nobody gathers yet.
        (&one, false, None, false),
        (&sum, false, None, true),
        (&one, false, None, true),
        (&other, false, None, false),
        // It was gathered before, or it is from now on.
        (&other, false, Some(&one), true),
        (&one, false, Some(&other), true),
        (&one, true, Some(&one), true),
        (&other, true, Some(&other), false),
        // Whoever gathered goes: what it gathered is of no interest to anyone.
        (&sum, true, Some(&sum), false),
        (&one, false, None, false),
    ] {
        assert_eq!(
            gathering.noticed(now, gone, before),
            looked,
            "{now:?} {gone} {before:?}"
        );
    }
}

#[test]
fn finished_jobs_go_after_their_time() {
    let job = |ttl: Value, condition: &str| {
        json!({
            "metadata": {"name": "j", "namespace": "n", "uid": "u"},
            "spec": {"ttlSecondsAfterFinished": ttl},
            "status": {"conditions": [
                {"type": condition, "status": "True", "lastTransitionTime": "2026-01-01T11:59:30Z"},
            ]},
        })
    };
    for (ttl, condition, want) in [
        (Value::Null, "Complete", Some(Plan::default())),
        (json!(60), "Suspended", Some(Plan::default())),
        (json!(60), "Complete", Some(later(30))),
        (json!(31), "Failed", Some(later(1))),
        (json!(30), "Failed", None),
        (json!(0), "Complete", None),
    ] {
        let plan = job::decide(&job(ttl.clone(), condition), now());
        match want {
            Some(want) => assert_eq!(plan, want, "{ttl} {condition}"),
            None => assert!(
                matches!(
                    plan.actions.as_slice(),
                    [Action::Delete {
                        propagation: Some(Propagation::Foreground),
                        ..
                    }]
                ),
                "{ttl} {condition}: {plan:?}"
            ),
        }
    }
}

#[test]
fn events_go_an_hour_after_they_last_happened() {
    let at = |seconds: i64| (now() + jiff::SignedDuration::from_secs(seconds)).to_string();
    let later = |seconds: u64| Some(Plan::later(Duration::from_secs(seconds)));
    for (event, want) in [
        (
            json!({"lastTimestamp": at(-60), "metadata": {"creationTimestamp": at(-7200)}}),
            later(3540),
        ),
        (
            json!({"eventTime": at(-7200), "series": {"lastObservedTime": at(-600)}}),
            later(3000),
        ),
        (json!({"eventTime": at(-10), "lastTimestamp": null}), later(3590)),
        (json!({"lastTimestamp": at(1_000_000)}), later(3600)),
        (json!({"metadata": {"creationTimestamp": at(-3600)}}), None),
        (json!({"lastTimestamp": at(-4000), "eventTime": null}), None),
    ] {
        let plan = event::decide(&event, now());
        match want {
            Some(want) => assert_eq!(plan, want, "{event}"),
            None => assert!(
                matches!(plan.actions.as_slice(), [Action::Delete { .. }]),
                "{event}: {plan:?}"
            ),
        }
    }
}

#[test]
fn protected_groups_say_whether_they_are_approved() {
    for (group, annotation, want) in [
        ("x.io", "", None),
        ("notk8s.io", "", None),
        (
            "gateway.networking.k8s.io",
            "https://github.com/x",
            Some(("True", "ApprovedAnnotation")),
        ),
        (
            "gateway.networking.k8s.io",
            "unapproved, trying",
            Some(("False", "UnapprovedAnnotation")),
        ),
        ("k8s.io", "", Some(("False", "MissingAnnotation"))),
        ("a.kubernetes.io", "yes", Some(("False", "InvalidAnnotation"))),
    ] {
        let crd = json!({
            "metadata": {"name": "as", "annotations": {"api-approved.kubernetes.io": annotation}},
            "spec": {
                "group": group, "names": {"plural": "as", "kind": "A"},
                "versions": [{"name": "v1", "storage": true}],
            },
        });
        let plan = crd::decide(&crd, std::slice::from_ref(&crd), &[], now());
        let [Action::Update { object, .. }] = plan.actions.as_slice() else {
            panic!("{plan:?}")
        };
        let got = plan::condition(object, "KubernetesAPIApprovalPolicyConformant");
        let got = got.map(|c| (c["status"].as_str().unwrap(), c["reason"].as_str().unwrap()));
        assert_eq!(got, want, "{group} {annotation:?}");
        assert_eq!(
            crd::decide(object, std::slice::from_ref(object), &[], now()),
            Plan::default()
        );
    }
}

#[test]
fn bootstrap_tokens_go_when_they_expire() {
    use base64::Engine as _;
    let token = |expiration: Option<&str>| {
        let encoded = expiration.map(|text| base64::engine::general_purpose::STANDARD.encode(text));
        json!({"type": "bootstrap.kubernetes.io/token", "data": {"expiration": encoded},
            "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system", "uid": "u"}})
    };
    let mut opaque = token(Some("2026-01-01T11:00:00Z"));
    opaque["type"] = json!("Opaque");
    for (secret, want) in [
        (token(None), Some(Plan::default())),
        (token(Some("")), Some(Plan::default())),
        (token(Some("2026-01-01T12:00:30Z")), Some(later(30))),
        (token(Some("2026-01-01T13:00:00+01:00")), None),
        (token(Some("2026-01-01T11:00:00Z")), None),
        (token(Some("tomorrow")), None),
        (opaque, Some(Plan::default())),
    ] {
        let plan = token::decide(&secret, now());
        match want {
            Some(want) => assert_eq!(plan, want, "{secret}"),
            None => assert!(
                matches!(plan.actions.as_slice(), [Action::Delete { .. }]),
                "{secret}: {plan:?}"
            ),
        }
    }
}

#[test]
fn a_namespace_is_left_alone_for_a_while() {
    let namespace = json!({"metadata": {"name": "n", "deletionTimestamp": "2026-01-01T11:59:58Z"}});
    for (delay, want) in [(0, None), (1, None), (2, None), (5, Some(3))] {
        let left = namespace::left(&namespace, Duration::from_secs(delay), now());
        assert_eq!(left, want.map(Duration::from_secs), "{delay}");
    }
    let stays = json!({"metadata": {"name": "n"}});
    assert_eq!(namespace::left(&stays, namespace::DELAY, now()), None);
}
