use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use muster_crds::constants::names;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::*;

const TOKEN: &str = "system:bootstrap:abcdef";

fn agent(name: &str) -> Agent {
    Agent {
        cluster: "burst-1".to_owned(),
        agent: name.to_owned(),
    }
}

/// A request of agent `a1` of cluster `burst-1`, made by `user`.
fn csr(user: &str) -> CsrView {
    csr_of(&agent("a1"), user)
}

/// A request of that agent, made by `user`.
fn csr_of(agent: &Agent, user: &str) -> CsrView {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, agent.user());
    params.distinguished_name.push(
        DnType::OrganizationName,
        muster_crds::names::cluster_group(&agent.cluster),
    );
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    CsrView {
        uid: "u".to_owned(),
        cluster: Some(agent.cluster.clone()),
        signer: names::KUBE_API_SERVER_CLIENT_SIGNER.to_owned(),
        request: request.pem().unwrap().into_bytes(),
        usages: vec!["digital signature".to_owned(), "client auth".to_owned()],
        user: user.to_owned(),
        groups: vec![
            "system:bootstrappers".to_owned(),
            names::BOOTSTRAP_GROUP.to_owned(),
        ],
        ..CsrView::default()
    }
}

fn grant() -> Grant {
    Grant {
        clusters: vec!["burst-*".to_owned()],
        accept: true,
        set: Some("burst".to_owned()),
        labels: [("env".to_owned(), "test".to_owned())].into(),
        uses: Some(2),
    }
}

fn token(grant: Grant, used_by: &[&str]) -> TokenView {
    TokenView {
        expiration: Some(Timestamp::from_second(1000).unwrap()),
        grant: Ok(grant),
        used_by: used_by.iter().map(ToString::to_string).collect(),
        ..TokenView::default()
    }
}

fn new_cluster() -> ClusterView {
    ClusterView {
        name: "burst-1".to_owned(),
        ..ClusterView::default()
    }
}

/// A cluster whose agent is alive, as far as `available` says.
fn joined(by: &str, available: &str) -> ClusterView {
    let condition = |type_: &str, status: &str| Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: "R".to_owned(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    };
    ClusterView {
        accepts: true,
        agent: Some(by.to_owned()),
        conditions: vec![
            condition(conditions::HUB_ACCEPTED, "True"),
            condition(conditions::JOINED, "True"),
            condition(conditions::CLUSTER_AVAILABLE, available),
        ],
        ..new_cluster()
    }
}

fn ask(csr: &CsrView, token: Option<&TokenView>, cluster: Option<&ClusterView>, now: i64) -> Decision {
    let observed = Observed {
        csr,
        token,
        cluster,
        superseded: false,
        hub: Some("muster"),
    };
    decide(
        observed,
        &Trusted {
            users: vec!["trusted".to_owned()],
            groups: vec!["trusted-group".to_owned()],
        },
        Timestamp::from_second(now).unwrap(),
    )
}

#[test]
fn a_join_token_brings_what_it_says_once() {
    let (csr, token) = (csr(TOKEN), token(grant(), &["burst-0"]));
    let Decision::Admit(admission) = ask(&csr, Some(&token), Some(&new_cluster()), 0) else {
        panic!("not admitted")
    };
    let all: BTreeSet<String> = ["burst-0".to_owned(), "burst-1".to_owned()].into();
    assert_eq!(admission.used_by, Some(all));
    let wanted = json!({
        "metadata": {
            "labels": {"env": "test", "cluster.open-cluster-management.io/clusterset": "burst"},
            "annotations": {annotations::JOINED_WITH: "abcdef", annotations::AGENT: "a1"},
        },
        "spec": {"hubAcceptsClient": true},
    });
    assert_eq!(admission.patch, Some(wanted));

    // Asked again, by the agent the hub knows: nothing more to count or to bring.
    let known = ClusterView {
        token: Some("abcdef".to_owned()),
        agent: Some("a1".to_owned()),
        accepts: true,
        ..new_cluster()
    };
    let used = TokenView {
        used_by: ["burst-0".to_owned(), "burst-1".to_owned()].into(),
        ..token
    };
    let Decision::Admit(again) = ask(&csr, Some(&used), Some(&known), 0) else {
        panic!("not admitted again")
    };
    assert_eq!((again.used_by, again.patch), (None, None));
}

#[test]
fn a_token_that_does_not_accept_leaves_acceptance_to_a_person() {
    let plain = Grant {
        accept: false,
        set: None,
        labels: BTreeMap::new(),
        uses: None,
        ..grant()
    };
    let decision = ask(&csr(TOKEN), Some(&token(plain, &[])), Some(&new_cluster()), 0);
    let Decision::Admit(admission) = decision else {
        panic!("not admitted")
    };
    assert_eq!(admission.used_by, None);
    let patch = admission.patch.unwrap();
    assert!(
        patch.get("spec").is_none() && patch["metadata"].get("labels").is_none(),
        "{patch}"
    );
}

#[test]
fn what_a_token_does_not_allow_is_denied_with_the_reason() {
    let denied = ClusterView {
        accepts: false,
        conditions: joined("a1", "True")
            .conditions
            .into_iter()
            .map(|one| Condition {
                status: "False".to_owned(),
                ..one
            })
            .collect(),
        ..new_cluster()
    };
    let other_names = Grant {
        clusters: vec!["prod-*".to_owned()],
        ..grant()
    };
    for (token, cluster, now, why, words) in [
        (
            token(grant(), &["burst-8", "burst-9"]),
            new_cluster(),
            0,
            reasons::CSR_TOKEN_REFUSED,
            "abcdef is used up: 2 of 2",
        ),
        (
            token(other_names, &[]),
            new_cluster(),
            0,
            reasons::CSR_TOKEN_REFUSED,
            "abcdef is not for a cluster named \"burst-1\"",
        ),
        (
            token(grant(), &[]),
            new_cluster(),
            1000,
            reasons::CSR_TOKEN_REFUSED,
            "abcdef expired",
        ),
        (
            token(grant(), &[]),
            joined("a2", "True"),
            0,
            reasons::CSR_CLUSTER_NAME_TAKEN,
            "agent \"a2\"",
        ),
        (
            token(grant(), &[]),
            joined("a2", "False"),
            0,
            reasons::CSR_CLUSTER_NAME_TAKEN,
            "is alive",
        ),
        (
            token(grant(), &[]),
            denied,
            0,
            reasons::CSR_CLUSTER_DENIED,
            "keeps cluster burst-1 out",
        ),
    ] {
        match ask(&csr(TOKEN), Some(&token), Some(&cluster), now) {
            Decision::Deny { reason, message } => {
                assert_eq!(reason, why);
                assert!(message.contains(words), "{message}");
            }
            other => panic!("{words}: {other:?}"),
        }
    }
}

#[test]
fn a_name_is_free_when_its_agent_is_silent_or_the_same() {
    let token = token(grant(), &[]);
    for cluster in [joined("a2", "Unknown"), joined("a1", "True"), new_cluster()] {
        let decision = ask(&csr(TOKEN), Some(&token), Some(&cluster), 0);
        assert!(
            matches!(decision, Decision::Admit(_)),
            "{:?}: {decision:?}",
            cluster.agent
        );
    }
    // The trusted users of the command line are held to it too; they wait until the name is free.
    let trusted = csr("trusted");
    let decide = |cluster: &ClusterView| ask(&trusted, None, Some(cluster), 0);
    assert!(matches!(decide(&joined("a2", "True")), Decision::Wait(_)));
    assert_eq!(decide(&joined("a2", "Unknown")), Decision::Approve(agent("a1")));
}

#[test]
fn a_name_is_its_first_agents_until_that_is_silent_or_forgotten() {
    let token = token(grant(), &[]);
    let decide = |cluster: &ClusterView, now: i64| ask(&csr(TOKEN), Some(&token), Some(cluster), now);
    let denied = |cluster: &ClusterView| matches!(decide(cluster, 0), Decision::Deny { reason, .. } if reason == reasons::CSR_CLUSTER_NAME_TAKEN);
    // As long as it has not come, it may never: then the next one is let in.
    let taken = |cluster: &ClusterView, now: i64| matches!(decide(cluster, now), Decision::Wait(why) if why.contains("is taken"));
    let good = |until: i64| Validity {
        not_before: Timestamp::from_second(0).unwrap(),
        not_after: Timestamp::from_second(until).unwrap(),
    };
    let waits = |certificate: Option<Validity>| ClusterView {
        agent: Some("a2".to_owned()),
        certificate,
        ..new_cluster()
    };
    assert!(taken(&waits(None), 0), "its certificate is just being signed");
    assert!(taken(&waits(Some(good(500))), 499));
    assert!(!taken(&waits(Some(good(500))), 500), "it can not come any more");
    let accepted = ClusterView {
        conditions: vec![],
        ..joined("a2", "True")
    };
    assert!(taken(&accepted, 0), "accepted, and not heard of yet");
    let of_another_hub = ClusterView {
        agent: None,
        ..joined("a2", "True")
    };
    assert!(denied(&of_another_hub), "nobody wrote down whose it is");
    let imported = ClusterView {
        accepts: true,
        ..new_cluster()
    };
    assert!(matches!(decide(&imported, 0), Decision::Admit(one) if !one.lets_in));
    assert!(matches!(decide(&new_cluster(), 0), Decision::Admit(one) if one.lets_in));
}

/// Neither that the hub has not yet told, nor that the cluster took the condition away, makes a denial undone.
#[test]
fn no_token_undoes_a_denial() {
    let token = token(grant(), &[]);
    let denied = |conditions: &[Condition], finalizers: &[&str]| ClusterView {
        accepts: false,
        conditions: conditions.to_vec(),
        finalizers: finalizers.iter().map(ToString::to_string).collect(),
        token: Some("abcdef".to_owned()),
        ..joined("a1", "True")
    };
    let accepted = joined("a1", "True").conditions;
    for cluster in [
        denied(&accepted, &[]),
        denied(&[], &[muster_crds::constants::finalizers::MANAGED_CLUSTER]),
    ] {
        let decision = ask(&csr(TOKEN), Some(&token), Some(&cluster), 0);
        assert!(
            matches!(&decision, Decision::Deny { reason, .. } if *reason == reasons::CSR_CLUSTER_DENIED),
            "{decision:?}"
        );
    }
}

#[test]
fn whoever_takes_a_name_over_leaves_the_former_agent_on_record() {
    let token = token(grant(), &[]);
    let lost = ClusterView {
        former: vec!["a0".to_owned()],
        ..joined("a2", "Unknown")
    };
    let Decision::Admit(admission) = ask(&csr(TOKEN), Some(&token), Some(&lost), 0) else {
        panic!("not admitted")
    };
    let notes = &admission.patch.unwrap()["metadata"]["annotations"];
    assert_eq!(notes[annotations::AGENT], "a1");
    assert_eq!(notes[annotations::FORMER_AGENTS], "a0,a2");
}

#[test]
fn who_is_let_in_already_is_not_replaced_by_a_token_that_lets_nobody_in() {
    let plain = Grant {
        accept: false,
        ..grant()
    };
    let (plain, accepting) = (token(plain, &[]), token(grant(), &[]));
    let imported = ClusterView {
        accepts: true,
        ..new_cluster()
    };
    let came_with = |by: &str, id: &str, available: &str| ClusterView {
        token: Some(id.to_owned()),
        ..joined(by, available)
    };
    for (what, cluster, by_plain) in [
        ("another's, lost", joined("a2", "Unknown"), false),
        (
            "another's with this token, lost",
            came_with("a2", "abcdef", "Unknown"),
            false,
        ),
        ("nobody's yet", imported, false),
        (
            "its own, with another token",
            came_with("a1", "fedcba", "Unknown"),
            false,
        ),
        ("its own", came_with("a1", "abcdef", "Unknown"), true),
        ("not let in", new_cluster(), true),
    ] {
        let ask = |token: &TokenView| ask(&csr(TOKEN), Some(token), Some(&cluster), 0);
        assert!(matches!(ask(&accepting), Decision::Admit(_)), "{what}");
        match ask(&plain) {
            Decision::Admit(_) if by_plain => {}
            Decision::Leave(why) if !by_plain => {
                assert!(
                    why.contains("the join token abcdef accepts none"),
                    "{what}: {why}"
                );
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn a_token_brings_set_and_labels_only_where_there_are_none() {
    let all = |labels: &[(&str, &str)]| -> BTreeMap<String, String> {
        labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let set = labels::CLUSTER_SET;
    let token = token(grant(), &[]);
    for (there, wanted) in [
        (vec![], vec![("env", "test"), (set, "burst")]),
        (vec![(set, "default")], vec![("env", "test"), (set, "burst")]),
        (vec![(set, "")], vec![("env", "test"), (set, "burst")]),
        (vec![(set, "prod")], vec![("env", "test")]),
        (vec![("env", "prod")], vec![(set, "burst")]),
        (vec![("tier", "edge"), (set, "prod")], vec![]),
    ] {
        let cluster = ClusterView {
            labels: all(&there),
            set: all(&there).get(set).cloned(),
            ..new_cluster()
        };
        let Decision::Admit(admission) = ask(&csr(TOKEN), Some(&token), Some(&cluster), 0) else {
            panic!("{there:?}: not admitted")
        };
        let brought = admission.patch.unwrap()["metadata"]["labels"].clone();
        let brought: BTreeMap<String, String> = serde_json::from_value(brought).unwrap_or_default();
        assert_eq!(brought, all(&wanted), "{there:?}");
    }
}

#[test]
fn members_of_a_trusted_group_get_in_but_by_a_join_token() {
    let member = |user: &str| CsrView {
        groups: vec!["trusted-group".to_owned(), names::BOOTSTRAP_GROUP.to_owned()],
        ..csr(user)
    };
    let cluster = new_cluster();
    let decide = |user: &str| ask(&member(user), None, Some(&cluster), 0);
    assert_eq!(
        decide("system:serviceaccount:ns:bootstrap"),
        Decision::Approve(agent("a1"))
    );
    // A bootstrap token that is not known as a join token: it may be revoked, or not be known yet.
    assert_eq!(
        decide(TOKEN),
        Decision::AskToken(agent("a1"), "abcdef".to_owned())
    );
    let used_up = token(grant(), &["burst-8", "burst-9"]);
    let decision = ask(&member(TOKEN), Some(&used_up), Some(&cluster), 0);
    assert!(matches!(decision, Decision::Deny { .. }), "{decision:?}");
    let longer = CsrView {
        groups: vec!["trusted-group-2".to_owned()],
        ..csr("somebody")
    };
    assert!(matches!(
        ask(&longer, None, Some(&cluster), 0),
        Decision::Leave(_)
    ));
}

#[test]
fn only_the_agent_that_has_the_name_renews() {
    let renewal = csr(&agent("a1").user());
    let ask = |cluster: Option<&ClusterView>| ask(&renewal, None, cluster, 0);
    assert_eq!(
        ask(Some(&joined("a1", "True"))),
        Decision::AskRenewal(agent("a1"))
    );
    let denied = ClusterView {
        accepts: false,
        ..joined("a1", "True")
    };
    for cluster in [new_cluster(), denied] {
        assert!(matches!(ask(Some(&cluster)), Decision::Wait(_)));
    }
    // Somebody deleted it: whatever rights are left, they are taken away.
    assert!(matches!(ask(None), Decision::Wait(_)));
    // A former agent of the name, that comes back with a certificate that is still good.
    for available in ["True", "Unknown"] {
        let decision = ask(Some(&joined("a2", available)));
        assert!(
            matches!(&decision, Decision::Leave(why) if why.contains("\"a2\" has the name burst-1")),
            "{decision:?}"
        );
    }
}

#[test]
fn who_has_no_say_waits_for_a_person() {
    let valid = token(grant(), &[]);
    let cluster = new_cluster();
    // Not a token of ours, or not its holder.
    assert!(matches!(
        ask(&csr(TOKEN), None, Some(&cluster), 0),
        Decision::Leave(_)
    ));
    let outside = CsrView {
        groups: vec![],
        ..csr(TOKEN)
    };
    assert!(matches!(
        ask(&outside, Some(&valid), Some(&cluster), 0),
        Decision::Leave(_)
    ));
    // Another agent's user is no renewal, and no trust.
    let other = csr("system:open-cluster-management:burst-1:a2");
    assert!(matches!(
        ask(&other, Some(&valid), Some(&cluster), 0),
        Decision::Leave(_)
    ));
    // Somebody may have made the request before the cluster, or while a former one goes.
    let going = ClusterView {
        deleting: true,
        ..new_cluster()
    };
    for cluster in [None, Some(&going)] {
        assert!(matches!(
            ask(&csr(TOKEN), Some(&valid), cluster, 0),
            Decision::Wait(_)
        ));
    }
}

#[test]
fn who_got_the_last_certificate_is_written_down_once() {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let hours = |start: i64, end: i64| Validity {
        not_before: at(3600 * start),
        not_after: at(3600 * end),
    };
    let approved = |issued: Option<Validity>| CsrView {
        created: Some(at(100)),
        decided: true,
        approved: Some(agent("a1")),
        issued,
        ..CsrView::default()
    };
    let known = |agent: Option<&str>, certificate: Option<Validity>| ClusterView {
        created: Some(at(90)),
        agent: agent.map(str::to_owned),
        certificate,
        ..new_cluster()
    };
    let ask = |csr: &CsrView, cluster: Option<&ClusterView>, superseded: bool| {
        let observed = Observed {
            csr,
            token: None,
            cluster,
            superseded,
            hub: None,
        };
        decide(observed, &Trusted::default(), Timestamp::UNIX_EPOCH)
    };
    let (first, second) = (hours(0, 10), hours(8, 18));
    for (what, issued, cluster, superseded, wanted) in [
        ("the first", Some(first), known(None, None), false, Some(first)),
        ("not issued yet", None, known(None, None), false, None),
        (
            "of a token's agent",
            Some(first),
            known(Some("a1"), None),
            false,
            Some(first),
        ),
        ("again", Some(first), known(Some("a1"), Some(first)), false, None),
        (
            "renewed",
            Some(second),
            known(Some("a1"), Some(first)),
            false,
            Some(second),
        ),
        (
            "an old one, after a restart",
            Some(first),
            known(Some("a1"), Some(second)),
            false,
            None,
        ),
        // A person let another agent in, or a former one's request is still there.
        (
            "another agent's",
            Some(second),
            known(Some("a2"), Some(first)),
            false,
            Some(second),
        ),
        (
            "a former agent's",
            Some(second),
            known(Some("a2"), Some(first)),
            true,
            None,
        ),
    ] {
        let decision = ask(&approved(issued), Some(&cluster), superseded);
        match wanted {
            Some(issued) => assert_eq!(decision, Decision::Record(agent("a1"), issued), "{what}"),
            None => assert!(matches!(decision, Decision::Nothing), "{what}: {decision:?}"),
        }
    }
    // Who renewed is given a moment to say so first; who is new is noted at once.
    for (what, cluster, seconds, wanted) in [
        (
            "renewed just now",
            known(Some("a1"), Some(first)),
            0,
            Err(at(104)),
        ),
        ("renewed", known(Some("a1"), Some(first)), 3, Err(at(104))),
        (
            "renewed, and time to say so",
            known(Some("a1"), Some(first)),
            4,
            Ok(second),
        ),
        (
            "approved by a clock ahead",
            known(Some("a1"), Some(first)),
            -1,
            Ok(second),
        ),
        ("a token's, just now", known(Some("a1"), None), 0, Ok(second)),
        (
            "another agent's, just now",
            known(Some("a2"), Some(first)),
            0,
            Ok(second),
        ),
    ] {
        let csr = CsrView {
            approved_at: Some(at(100)),
            ..approved(Some(second))
        };
        let observed = Observed {
            csr: &csr,
            token: None,
            cluster: Some(&cluster),
            superseded: false,
            hub: None,
        };
        let decision = decide(observed, &Trusted::default(), at(100 + seconds));
        let wanted = match wanted {
            Ok(issued) => Decision::Record(agent("a1"), issued),
            Err(settled) => Decision::RecordAt(settled),
        };
        assert_eq!(decision, wanted, "{what}");
    }
    let heir = ClusterView {
        created: Some(at(101)),
        ..new_cluster()
    };
    // A request that was there before its cluster was: a token's, and one that a person approved later.
    let mine = ClusterView {
        agent: Some("a1".to_owned()),
        ..heir.clone()
    };
    let later = |second| CsrView {
        approved_at: Some(at(second)),
        ..approved(Some(first))
    };
    for (what, csr, cluster, wanted) in [
        ("a token's", approved(Some(first)), &mine, true),
        ("approved later", later(101), &heir, true),
        ("a former cluster's", later(100), &heir, false),
    ] {
        let recorded = ask(&csr, Some(cluster), false) == Decision::Record(agent("a1"), first);
        assert_eq!(recorded, wanted, "{what}");
    }
    let going = ClusterView {
        deleting: true,
        ..known(None, None)
    };
    for cluster in [heir, going] {
        assert!(matches!(
            ask(&approved(Some(first)), Some(&cluster), false),
            Decision::Nothing
        ));
    }
    assert!(matches!(
        ask(&approved(Some(first)), None, false),
        Decision::Wait(_)
    ));
}

#[test]
fn nobody_gets_a_certificate_for_a_name_that_no_cluster_can_have() {
    let mut any = grant();
    any.clusters = vec!["*".to_owned()];
    let any = token(any, &[]);
    for name in [
        "kube-system",
        "kube-public",
        "default",
        "open-cluster-management",
        "work",
        "registration",
        "muster",
    ] {
        let agent = Agent {
            cluster: name.to_owned(),
            agent: "a1".to_owned(),
        };
        let cluster = ClusterView {
            name: name.to_owned(),
            accepts: true,
            ..ClusterView::default()
        };
        for (user, token) in [
            (TOKEN.to_owned(), Some(&any)),
            (TOKEN.to_owned(), None),
            ("trusted".to_owned(), None),
            (agent.user(), None),
        ] {
            let csr = csr_of(&agent, &user);
            // Also before the cluster is there: it will not get another answer.
            for cluster in [Some(&cluster), None] {
                match ask(&csr, token, cluster, 0) {
                    Decision::Deny { reason, message } => {
                        assert_eq!(reason, reasons::CSR_CLUSTER_NAME_RESERVED);
                        assert!(message.contains("reserved"), "{message}");
                    }
                    other => panic!("{name} for {user}: {other:?}"),
                }
            }
        }
    }
}
