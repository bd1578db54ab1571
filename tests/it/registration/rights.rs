//! What every party may do at the hub, exactly: the tables of docs/registration.md.

use super::{honest, name};
use crate::Result;
use muster_crds::constants::{names, taints};
use muster_tests::objects::{CLUSTERS, CSRS, cluster_path, configmap, work, work_path, works_path};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, Kube};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Every right a client has in a namespace beyond what everybody has: `verb group/resource[names]`.
async fn rights(kube: &Kube, namespace: &str) -> anyhow::Result<BTreeSet<String>> {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = kube.create(path, &review).await?;
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut all = BTreeSet::new();
    for rule in answer["status"]["resourceRules"].as_array().into_iter().flatten() {
        let named = texts(&rule["resourceNames"]);
        let named = if named.is_empty() {
            String::new()
        } else {
            format!(" {named:?}")
        };
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    // What system:basic-user gives to everybody: asking what one may do.
                    if resource.starts_with("selfsubject") {
                        continue;
                    }
                    all.insert(format!("{verb} {group}/{resource}{named}"));
                }
            }
        }
    }
    Ok(all)
}

fn expand(rows: &[(&str, &str, &str)], named: Option<&str>) -> BTreeSet<String> {
    let named = named.map(|name| format!(" {:?}", [name])).unwrap_or_default();
    let mut all = BTreeSet::new();
    for (group, resource, verbs) in rows {
        for verb in verbs.split(' ') {
            all.insert(format!("{verb} {group}/{resource}{named}"));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_klusterlet_has_the_rights_that_are_documented_and_no_other() -> Result {
    let fleet = Fleet::joined(2).await?;
    let (one, two) = (fleet.clusters[0].name.as_str(), fleet.clusters[1].name.as_str());
    let agent = fleet.clusters[0].at_hub().await?;
    let clusters = "cluster.open-cluster-management.io";
    let everywhere: BTreeSet<String> = expand(
        &[
            (
                "certificates.k8s.io",
                "certificatesigningrequests",
                "create get list watch",
            ),
            (
                names::REGISTER_GROUP,
                "managedclusters/clientcertificates",
                "renew",
            ),
        ],
        None,
    )
    .into_iter()
    .chain(expand(
        &[
            (clusters, "managedclusters", "get list update watch"),
            (clusters, "managedclusters/status", "patch update"),
        ],
        Some(one),
    ))
    .collect();
    let (addons, works) = (
        "addon.open-cluster-management.io",
        "work.open-cluster-management.io",
    );
    let mut own = everywhere.clone();
    own.extend(expand(
        &[
            ("coordination.k8s.io", "leases", "get list watch update"),
            (addons, "managedclusteraddons", "get list watch"),
            (addons, "managedclusteraddons/status", "patch update"),
            ("", "events", "create patch update"),
            ("events.k8s.io", "events", "create patch update"),
            (works, "manifestworks", "get list watch update patch"),
            (works, "manifestworks/status", "patch update"),
        ],
        None,
    ));
    assert_eq!(rights(&agent, one).await?, own, "in its own namespace");
    for namespace in [two, "default", "kube-system", "open-cluster-management-hub"] {
        assert_eq!(rights(&agent, namespace).await?, everywhere, "in {namespace}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_has_the_rights_that_are_documented_and_no_other() -> Result {
    let fleet = Fleet::joined(1).await?;
    let token = muster_tests::tokens::make(&fleet.kube(), &[]).await?;
    let holder = super::believed(&fleet, &token).await?;
    let clusters = "cluster.open-cluster-management.io";
    let wanted = expand(
        &[
            ("", "configmaps", "get"),
            (
                "certificates.k8s.io",
                "certificatesigningrequests",
                "create get list watch",
            ),
            (clusters, "managedclusters", "get create list watch"),
            (clusters, "managedclustersets/join", "create"),
        ],
        None,
    );
    for namespace in [fleet.clusters[0].name.as_str(), "default", "kube-system"] {
        assert_eq!(rights(&holder, namespace).await?, wanted, "in {namespace}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_list_is_closed_to_a_klusterlet_too() -> Result {
    let fleet = Fleet::joined(2).await?;
    let (one, two) = (fleet.clusters[0].name.as_str(), fleet.clusters[1].name.as_str());
    let hub = fleet.kube();
    let theirs = configmap(&fleet.clusters[1].namespace(), "theirs", "1");
    fleet.create(&work(two, "theirs", &[theirs])).await?;
    fleet.until_applied(two, "theirs").await?;
    let agent = fleet.clusters[0].at_hub().await?;
    let core = "/api/v1/namespaces";
    let reviews = "/apis/authorization.k8s.io/v1";
    let review =
        |kind: &str, group: &str, spec: Value| json!({"apiVersion": group, "kind": kind, "spec": spec});
    let access = json!({"user": "admin", "resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "default"}});
    let authorization = "authorization.k8s.io/v1";
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let created = [
        (
            "/apis/authentication.k8s.io/v1/tokenreviews".to_owned(),
            review("TokenReview", "authentication.k8s.io/v1", json!({"token": "a"})),
        ),
        (
            format!("{reviews}/subjectaccessreviews"),
            review("SubjectAccessReview", authorization, access.clone()),
        ),
        (
            format!("{reviews}/namespaces/default/localsubjectaccessreviews"),
            review("LocalSubjectAccessReview", authorization, access),
        ),
        (
            format!("{core}/kube-system/serviceaccounts/default/token"),
            token.clone(),
        ),
        (format!("{core}/{one}/serviceaccounts/default/token"), token),
        (format!("{core}/{one}/pods"), pod.clone()),
        (format!("{core}/{two}/pods"), pod),
        (
            format!("{core}/{one}/secrets"),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}),
        ),
        (
            format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{one}/rolebindings"),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "r"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": []}),
        ),
        (works_path(one), work(one, "own", &[])),
        (works_path(two), work(two, "own", &[])),
        (
            super::lease_path(one)
                .rsplit_once('/')
                .map(|(c, _)| c.to_owned())
                .unwrap_or_default(),
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}),
        ),
    ];
    for (path, object) in &created {
        let answer = agent.create(path, object).await;
        assert_eq!(answer.map(drop).map_err(|r| r.code), Err(403), "create {path}");
    }
    // In its own namespace it reads nothing but what is its.
    for resource in ["secrets", "configmaps", "serviceaccounts", "pods"] {
        let answer = agent.list(&format!("{core}/{one}/{resource}")).await;
        assert_eq!(answer.map(drop).map_err(|r| r.code), Err(403), "list {resource}");
    }
    // Another cluster's lease, works and status.
    let lease = hub.get(&super::lease_path(two)).await?;
    let object = hub.get(&cluster_path(two)).await?;
    let status = json!({"status": {"conditions": []}});
    for (what, answer) in [
        ("lease", agent.replace(&super::lease_path(two), &lease).await),
        ("cluster", agent.replace(&cluster_path(two), &object).await),
        (
            "cluster's status",
            agent
                .merge(&format!("{}/status", cluster_path(two)), &status)
                .await,
        ),
        ("work", agent.get(&work_path(two, "theirs")).await),
        (
            "work's status",
            agent
                .merge(&format!("{}/status", work_path(two, "theirs")), &status)
                .await,
        ),
        ("list of clusters", agent.get(CLUSTERS).await),
        (
            "list of another",
            agent
                .get(&format!("{CLUSTERS}?fieldSelector=metadata.name%3D{two}"))
                .await,
        ),
    ] {
        assert_eq!(answer.map(drop).map_err(|r| r.code), Err(403), "{what}");
    }
    // A request may be made, but neither decided nor signed by who made it.
    let mut csr = agent.create(CSRS, &honest(one, "agent-of-its-own")?).await?;
    csr["status"] =
        json!({"conditions": [{"type": "Approved", "status": "True", "reason": "R", "message": "m"}]});
    for sub in ["approval", "status"] {
        let path = format!("{CSRS}/{}/{sub}", name(&csr));
        let answer = agent.replace(&path, &csr).await;
        assert_eq!(answer.map(drop).map_err(|r| r.code), Err(403), "{sub}");
    }
    Ok(())
}

/// What a cluster tries to change of its ManagedCluster.
type Change = fn(&mut Value);

#[tokio::test(flavor = "multi_thread")]
async fn a_klusterlet_can_not_choose_what_its_cluster_is_chosen_by() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = fleet.clusters[0].name.as_str();
    let (hub, agent) = (fleet.kube(), fleet.clusters[0].at_hub().await?);
    let path = cluster_path(cluster);
    // A taint that goes while the object is changed comes with the change, and is refused for itself.
    hub.until(&path, SOON, "the hub has no taint to take away", |object| {
        let taints = object.map(|object| object["spec"]["taints"].to_string());
        let taints = taints.unwrap_or_default();
        (!taints.contains(taints::UNREACHABLE))
            .then_some(())
            .ok_or(taints)
    })
    .await?;
    let changes: [(&str, Change); 8] = [
        ("a label", |c| c["metadata"]["labels"]["env"] = "prod".into()),
        ("its set", |c| {
            c["metadata"]["labels"]["cluster.open-cluster-management.io/clusterset"] = "prod".into();
        }),
        ("a taint", |c| {
            c["spec"]["taints"] = json!([{"key": "a", "effect": "NoSelect"}]);
        }),
        ("its finalizers", |c| c["metadata"]["finalizers"] = json!([])),
        ("its acceptance", |c| c["spec"]["hubAcceptsClient"] = false.into()),
        ("its lease", |c| {
            c["spec"]["leaseDurationSeconds"] = 1_000_000.into();
        }),
        ("its agent", |c| {
            c["metadata"]["annotations"]["registration.muster.open-cluster-management.io/agent"] = "a".into();
        }),
        ("that it was accepted", |c| {
            c["metadata"]["annotations"]["open-cluster-management/automatically-accepted-on"] =
                "never".into();
        }),
    ];
    for (what, change) in changes {
        // The klusterlet writes too: a conflict is no answer.
        let refused = loop {
            let mut object = agent.get(&path).await?;
            change(&mut object);
            match agent.replace(&path, &object).await {
                Err(refused) if refused.code == 409 => {}
                Err(refused) => break refused,
                Ok(_) => panic!("{what}: changed"),
            }
        };
        assert_eq!(refused.code, 403, "{what}: {refused}");
        assert!(refused.message.contains("cannot"), "{what}: {refused}");
    }
    // What is its to say it says.
    let url = json!([{"url": "https://api.example.com:6443"}]);
    loop {
        let mut object = agent.get(&path).await?;
        object["spec"]["managedClusterClientConfigs"] = url.clone();
        match agent.replace(&path, &object).await {
            Err(refused) if refused.code == 409 => {}
            answer => break drop(answer?),
        }
    }
    assert_eq!(
        hub.get(&path).await?["spec"]["managedClusterClientConfigs"][0]["url"],
        url[0]["url"]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_a_certificate_gets_nothing_by_its_name() -> Result {
    // The names are in the certificate alone: neither a token's holder nor an anonymous client may take them on.
    let fleet = Fleet::joined(1).await?;
    let cluster = fleet.clusters[0].name.as_str();
    let token = muster_tests::tokens::make(&fleet.kube(), &["--accept"]).await?;
    let holder = super::believed(&fleet, &token).await?;
    for header in ["Impersonate-Group", "Impersonate-User"] {
        let request = http::Request::get(works_path(cluster))
            .header("Impersonate-User", muster_crds::names::user(cluster, "a"))
            .header(header, muster_crds::names::cluster_group(cluster))
            .body(Vec::new())?;
        let answer = holder.client().request::<Value>(request).await;
        assert!(
            matches!(&answer, Err(kube::Error::Api(status)) if status.code == 403),
            "{header}: {answer:?}"
        );
    }
    Ok(())
}
