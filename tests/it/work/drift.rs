//! What becomes of changes on the cluster, and of objects that were there before: repaired, told, or left.

use super::{delete, manifest_condition, owners, patch, uid, until_condition, until_manifest, until_value};
use crate::Result;
use anyhow::Context as _;
use muster_tests::objects::{
    configmap, configmap_path, deployment, deployment_path, feedback, has_condition, work,
};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, Kube};
use serde_json::{Value, json};

/// A work with an annotation.
fn annotated(cluster: &str, name: &str, manifests: &[Value], key: &str, value: &str) -> Value {
    let mut work = work(cluster, name, manifests);
    work["metadata"]["annotations"] = json!({format!("work.muster.open-cluster-management.io/{key}"): value});
    work
}

fn role(ns: &str) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader", "namespace": ns},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})
}

fn policy(ns: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "narrow", "namespace": ns},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}],
            "from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]}})
}

/// Lists that are one value to the server have no owner for each field, so that what somebody put into them can not be told
/// from the server's defaults by `managedFields` alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_into_an_atomic_list_is_taken_out_and_defaults_stay() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    fleet
        .create(&work(name, "app", &[role(&ns), policy(&ns)]))
        .await?;
    fleet.until_applied(name, "app").await?;
    let role_path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}/roles/reader");
    let policy_path = format!("/apis/networking.k8s.io/v1/namespaces/{ns}/networkpolicies/narrow");
    let made = spoke.get(&policy_path).await?;

    let narrowed = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["a"]}]});
    spoke.merge(&role_path, &narrowed).await?;
    let mut widened = json!({"spec": {"ingress": made["spec"]["ingress"]}});
    widened["spec"]["ingress"][0]["from"][0]["namespaceSelector"] = json!({});
    spoke.merge(&policy_path, &widened).await?;
    for (path, field, should) in [
        (&role_path, "/rules", &role(&ns)["rules"]),
        (&policy_path, "/spec/ingress", &made["spec"]["ingress"]),
    ] {
        spoke
            .until(path, SOON, "what was put in goes", |object| {
                let found = object.and_then(|o| o.pointer(field));
                (found == Some(should))
                    .then_some(())
                    .ok_or_else(|| format!("it is {found:?}"))
            })
            .await?;
    }

    // Somebody else is the owner of the very same list, defaults of the server and all: there is nothing to be done.
    spoke
        .merge(&policy_path, &json!({"spec": {"ingress": null}}))
        .await?;
    marker(&fleet, name, &ns, "first").await?;
    let mut same = policy(&ns);
    same["spec"] = json!({"ingress": made["spec"]["ingress"]});
    spoke.apply(&policy_path, "somebody", true, &same).await?;
    marker(&fleet, name, &ns, "second").await?;
    let before = spoke.get(&policy_path).await?;
    assert_eq!(before["spec"], made["spec"]);
    marker(&fleet, name, &ns, "third").await?;
    let after = spoke.get(&policy_path).await?;
    assert_eq!(
        before["metadata"]["resourceVersion"],
        after["metadata"]["resourceVersion"]
    );
    Ok(())
}

/// Waits until the agent has been through everything it knew of: it is through with what comes after.
async fn marker(fleet: &Fleet, cluster: &str, ns: &str, name: &str) -> Result {
    fleet
        .create(&work(cluster, name, &[configmap(ns, name, "1")]))
        .await?;
    fleet.until_applied(cluster, name).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_repaired() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    fleet
        .create(&work(
            name,
            "app",
            &[configmap(&ns, "settings", "1"), deployment(&ns, "web", 2)],
        ))
        .await?;
    fleet.until_applied(name, "app").await?;
    let path = configmap_path(&ns, "settings");

    spoke.merge(&path, &json!({"data": {"value": "edited"}})).await?;
    until_value(&spoke, &ns, "settings", "1")
        .await
        .context("an edit")?;

    spoke.merge(&path, &json!({"data": {"added": "x"}})).await?;
    spoke
        .until(&path, SOON, "an added key goes", |object| {
            let data = object.map(|object| object["data"].clone());
            (data == Some(json!({"value": "1"})))
                .then_some(())
                .ok_or_else(|| format!("data is {data:?}"))
        })
        .await?;

    // What others put into metadata is theirs; what the klusterlet put there comes back.
    let strip = json!({"metadata": {"labels": {"theirs": "stays", "muster.open-cluster-management.io/applied": null},
        "ownerReferences": null}});
    spoke.merge(&path, &strip).await?;
    spoke
        .until(&path, SOON, "owner and label come back", |object| {
            let meta = &object.ok_or("it is not there")?["metadata"];
            let marked = meta["labels"]["muster.open-cluster-management.io/applied"].is_string();
            let owned = meta["ownerReferences"].as_array().is_some_and(|o| o.len() == 1);
            (marked && owned).then_some(()).ok_or_else(|| meta.to_string())
        })
        .await?;
    assert_eq!(spoke.get(&path).await?["metadata"]["labels"]["theirs"], "stays");

    for path in [path, deployment_path(&ns, "web")] {
        let old = uid(&spoke.get(&path).await?);
        spoke.delete(&path).await?;
        spoke
            .until(
                &path,
                SOON,
                "a deleted object comes back",
                |object| match object {
                    Some(object) if uid(object) != old => Ok(()),
                    Some(_) => Err("it is still the old one".into()),
                    None => Err("it is not there".into()),
                },
            )
            .await?;
    }
    spoke
        .merge(&deployment_path(&ns, "web"), &json!({"spec": {"replicas": 9}}))
        .await?;
    spoke
        .until(
            &deployment_path(&ns, "web"),
            SOON,
            "scaling by hand is taken back",
            |object| {
                let replicas = object.map(|object| object["spec"]["replicas"].clone());
                (replicas == Some(json!(2)))
                    .then_some(())
                    .ok_or_else(|| format!("replicas: {replicas:?}"))
            },
        )
        .await?;
    fleet.until_applied(name, "app").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_that_is_reported_stays() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let secret = |value: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": ns},
        "stringData": {"password": value}})
    };
    let manifests = |value: &str| [configmap(&ns, "settings", value), secret("hidden")];
    fleet
        .create(&annotated(name, "app", &manifests("1"), "drift", "Report"))
        .await?;
    fleet.until_applied(name, "app").await?;
    until_manifest(
        &fleet,
        name,
        "app",
        "settings",
        ("Drifted", "False", "InSync", ""),
    )
    .await?;

    let path = configmap_path(&ns, "settings");
    let edit = json!({"data": {"value": "edited", "added": "by somebody"}});
    spoke
        .merge(&format!("{path}?fieldManager=somebody"), &edit)
        .await?;
    let told = (
        "Drifted",
        "True",
        "Drifted",
        r#"data.value is "edited", should be "1""#,
    );
    let found = until_manifest(&fleet, name, "app", "settings", told).await?;
    assert!(
        manifest_condition(&found, "settings", "Drifted")
            .2
            .contains("data.added is")
    );
    spoke
        .merge(
            &format!("/api/v1/namespaces/{ns}/secrets/key"),
            &json!({"stringData": {"password": "leaked"}}),
        )
        .await?;
    let told = (
        "Drifted",
        "True",
        "Drifted",
        "data.password is (not shown), should be (not shown)",
    );
    let found = until_manifest(&fleet, name, "app", "key", told).await?;
    let status = found["status"].to_string();
    assert!(
        !status.contains("bGVha2Vk") && !status.contains("leaked"),
        "{status}"
    );
    assert_eq!(manifest_condition(&found, "settings", "Applied").0, "True");
    marker(&fleet, name, &ns, "marker").await?;
    assert_eq!(spoke.get(&path).await?["data"]["value"], "edited");
    let work = until_condition(&fleet, name, "app", "Drifted", "True").await?;
    has_condition(Some(&work), "Applied", "True").map_err(anyhow::Error::msg)?;

    // A deleted object is told too, and not made.
    spoke.delete(&path).await?;
    until_manifest(
        &fleet,
        name,
        "app",
        "settings",
        ("Drifted", "True", "Drifted", "not there"),
    )
    .await?;
    until_manifest(
        &fleet,
        name,
        "app",
        "settings",
        ("Available", "False", "ResourceNotAvailable", ""),
    )
    .await?;
    // What the hub changes is applied.
    fleet.set_manifests(name, "app", &manifests("2")).await?;
    until_value(&spoke, &ns, "settings", "2").await?;
    until_manifest(
        &fleet,
        name,
        "app",
        "settings",
        ("Drifted", "False", "InSync", ""),
    )
    .await?;
    // And enforcing takes all back.
    spoke.merge(&path, &edit).await?;
    let annotation =
        json!({"metadata": {"annotations": {"work.muster.open-cluster-management.io/drift": "Enforce"}}});
    patch(&fleet, name, "app", &annotation).await?;
    until_value(&spoke, &ns, "settings", "2").await?;
    fleet
        .until_work(
            name,
            "app",
            "nothing is said to drift",
            |work| match super::whole_condition(&work["status"]["conditions"], "Drifted") {
                found if found.0.is_empty() => Ok(()),
                found => Err(format!("{found:?}")),
            },
        )
        .await
        .map(drop)
}

/// Under server-side apply only what an apply would change differs: neither what is left to others, nor what is never
/// written.
#[tokio::test(flavor = "multi_thread")]
async fn what_would_not_be_written_does_not_differ() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let configs = |object: &str| {
        let strategy = json!({"type": "ServerSideApply", "serverSideApply": {"ignoreFields": [
            {"condition": "OnSpokePresent", "jsonPaths": [".spec.replicas"]}]}});
        let paths = [
            json!({"name": "replicas", "path": ".spec.replicas"}),
            json!({"name": "paused", "path": ".spec.minReadySeconds"}),
        ];
        let rest = json!({"updateStrategy": strategy,
            "feedbackRules": [{"type": "JSONPaths", "jsonPaths": paths}]});
        json!([super::config("apps", "deployments", &ns, object, &rest)])
    };
    let mut web = deployment(&ns, "web", 2);
    web["spec"]["minReadySeconds"] = json!(3);
    let mut watched = annotated(name, "watched", &[web], "drift", "Report");
    watched["spec"]["manifestConfigs"] = configs("web");
    fleet.create(&watched).await?;
    let in_sync = ("Drifted", "False", "InSync", "");
    until_manifest(&fleet, name, "watched", "web", in_sync).await?;
    let path = deployment_path(&ns, "web");
    let told = |field: &'static str, value: i64| {
        fleet.until_work(name, "watched", field, move |work| {
            let found = feedback(work, "web", field);
            (found == Some(json!(value)))
                .then_some(())
                .ok_or_else(|| format!("it is {found:?}"))
        })
    };
    let edit = |spec: Value| {
        let (spoke, path) = (spoke.clone(), format!("{path}?fieldManager=autoscaler"));
        async move { spoke.merge(&path, &json!({ "spec": spec })).await }
    };
    edit(json!({"replicas": 5})).await?;
    let found = told("replicas", 5).await?;
    assert_eq!(manifest_condition(&found, "web", "Drifted").1, "InSync");
    edit(json!({"minReadySeconds": 9})).await?;
    let differs = (
        "Drifted",
        "True",
        "Drifted",
        "spec.minReadySeconds is 9, should be 3",
    );
    let found = until_manifest(&fleet, name, "watched", "web", differs).await?;
    let told = manifest_condition(&found, "web", "Drifted").2;
    assert!(!told.contains("replicas"), "{told}");

    // So it is when an object is taken over.
    let theirs = deployment(&ns, "theirs", 5);
    spoke
        .create(&format!("/apis/apps/v1/namespaces/{ns}/deployments"), &theirs)
        .await?;
    spoke
        .create(
            &format!("/api/v1/namespaces/{ns}/configmaps"),
            &configmap(&ns, "once", "theirs"),
        )
        .await?;
    let manifests = [deployment(&ns, "theirs", 2), configmap(&ns, "once", "ours")];
    let mut taken = annotated(name, "taken", &manifests, "take-over", "IfNoDiff");
    taken["spec"]["manifestConfigs"] = configs("theirs");
    let once = json!({"type": "CreateOnly"});
    if let Some(list) = taken["spec"]["manifestConfigs"].as_array_mut() {
        list.push(muster_tests::objects::strategy(
            "",
            "configmaps",
            &ns,
            "once",
            &once,
        ));
    }
    fleet.create(&taken).await?;
    fleet.until_applied(name, "taken").await?;
    let found = spoke.get(&deployment_path(&ns, "theirs")).await?;
    assert_eq!((&found["spec"]["replicas"], owners(&found)), (&json!(5), 1));
    until_value(&spoke, &ns, "once", "theirs").await
}

#[tokio::test(flavor = "multi_thread")]
async fn once_is_once_a_generation() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let path = configmap_path(&ns, "settings");
    fleet
        .create(&annotated(
            name,
            "app",
            &[configmap(&ns, "settings", "1")],
            "drift",
            "Once",
        ))
        .await?;
    fleet.until_applied(name, "app").await?;
    spoke.merge(&path, &json!({"data": {"value": "edited"}})).await?;
    marker(&fleet, name, &ns, "marker").await?;
    until_value(&spoke, &ns, "settings", "edited").await?;
    spoke.delete(&path).await?;
    until_condition(&fleet, name, "app", "Available", "False").await?;
    assert!(spoke.find(&path).await?.is_none());
    fleet
        .set_manifests(name, "app", &[configmap(&ns, "settings", "2")])
        .await?;
    until_value(&spoke, &ns, "settings", "2").await?;
    // With a generation, also what it leaves as it was.
    spoke.delete(&path).await?;
    until_condition(&fleet, name, "app", "Available", "False").await?;
    let more = [configmap(&ns, "settings", "2"), configmap(&ns, "more", "1")];
    fleet.set_manifests(name, "app", &more).await?;
    until_value(&spoke, &ns, "more", "1").await?;
    until_value(&spoke, &ns, "settings", "2").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_that_does_not_exist_is_told() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    for (key, right) in [
        ("drift", "Enforce, Report, Once"),
        ("take-over", "Always, IfNoDiff, Never"),
    ] {
        fleet
            .create(&annotated(
                name,
                key,
                &[configmap(&ns, key, "1")],
                key,
                "sometimes",
            ))
            .await?;
        let told = ("Applied", "False", "AppliedManifestFailed", right);
        until_manifest(&fleet, name, key, key, told).await?;
        let annotation = json!({"metadata": {"annotations": {format!("work.muster.open-cluster-management.io/{key}"): null}}});
        patch(&fleet, name, key, &annotation).await?;
        fleet.until_applied(name, key).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_others_are_taken_over_as_the_work_chooses() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let collection = format!("/api/v1/namespaces/{ns}/configmaps");
    let mut theirs = Vec::new();
    for object in ["same-never", "same-ifnodiff", "other-ifnodiff", "other-always"] {
        let value = if object.starts_with("same") { "1" } else { "theirs" };
        theirs.push(spoke.create(&collection, &configmap(&ns, object, value)).await?);
    }
    let one = |object: &str| configmap(&ns, object, "1");
    fleet
        .create(&annotated(
            name,
            "never",
            &[one("same-never"), one("fresh")],
            "take-over",
            "Never",
        ))
        .await?;
    let manifests = [one("same-ifnodiff"), one("other-ifnodiff")];
    fleet
        .create(&annotated(name, "ifnodiff", &manifests, "take-over", "IfNoDiff"))
        .await?;
    fleet
        .create(&annotated(
            name,
            "always",
            &[one("other-always")],
            "take-over",
            "Always",
        ))
        .await?;
    let not = |mention: &'static str| ("Applied", "False", "NotTakenOver", mention);
    until_manifest(&fleet, name, "never", "same-never", not("take-over is Never")).await?;
    let differs = not(r#"data.value is "theirs", should be "1""#);
    until_manifest(&fleet, name, "ifnodiff", "other-ifnodiff", differs).await?;
    for (work, object) in [
        ("never", "fresh"),
        ("ifnodiff", "same-ifnodiff"),
        ("always", "other-always"),
    ] {
        until_manifest(
            &fleet,
            name,
            work,
            object,
            ("Applied", "True", "AppliedManifestComplete", ""),
        )
        .await?;
    }
    fleet.until_applied(name, "always").await?;
    until_value(&spoke, &ns, "other-always", "1").await?;
    for (at, object) in [(0, "same-never"), (2, "other-ifnodiff")] {
        assert_eq!(
            spoke.get(&configmap_path(&ns, object)).await?,
            theirs[at],
            "it was written"
        );
    }
    assert_eq!(
        owners(&spoke.get(&configmap_path(&ns, "same-ifnodiff")).await?),
        1
    );

    // Once nothing differs any more, it is taken over; once it is gone, it is made.
    spoke
        .merge(
            &configmap_path(&ns, "other-ifnodiff"),
            &json!({"data": {"value": "1"}}),
        )
        .await?;
    fleet.until_applied(name, "ifnodiff").await?;
    spoke.delete(&configmap_path(&ns, "same-never")).await?;
    fleet.until_applied(name, "never").await?;
    assert_eq!(owners(&spoke.get(&configmap_path(&ns, "same-never")).await?), 1);
    for work in ["never", "ifnodiff", "always"] {
        delete(&fleet, name, work).await?;
    }
    assert!(
        spoke
            .list(&collection)
            .await?
            .iter()
            .all(|o| o["metadata"]["labels"].is_null())
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_not_taken_over_is_not_deleted_with_the_work() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let collection = format!("/api/v1/namespaces/{ns}/configmaps");
    let theirs = spoke.create(&collection, &configmap(&ns, "theirs", "1")).await?;
    fleet
        .create(&annotated(
            name,
            "app",
            &[configmap(&ns, "theirs", "2")],
            "take-over",
            "Never",
        ))
        .await?;
    until_condition(&fleet, name, "app", "Applied", "False").await?;
    delete(&fleet, name, "app").await?;
    assert_eq!(spoke.get(&configmap_path(&ns, "theirs")).await?, theirs);
    Ok(())
}

/// Another controller, which wants `value` to be its own and writes it back as often as it is asked to.
async fn fight(spoke: &Kube, ns: &str, rounds: usize) -> Result {
    let path = configmap_path(ns, "settings");
    for round in 0..rounds {
        until_value(spoke, ns, "settings", "ours")
            .await
            .with_context(|| format!("round {round}"))?;
        spoke
            .merge(
                &format!("{path}?fieldManager=fighter"),
                &json!({"data": {"value": "theirs"}}),
            )
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_fight_are_noticed_and_named() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let manifests = [configmap(&ns, "settings", "ours"), configmap(&ns, "quiet", "1")];
    fleet.create(&work(name, "app", &manifests)).await?;
    fleet.until_applied(name, "app").await?;
    fight(&spoke, &ns, 6).await?;
    let told = (
        "Degraded",
        "True",
        "Contended",
        "fighter keeps changing data.value",
    );
    let found = until_manifest(&fleet, name, "app", "settings", told).await?;
    assert_ne!(manifest_condition(&found, "quiet", "Degraded").0, "True");
    let work = until_condition(&fleet, name, "app", "Degraded", "True").await?;
    assert_eq!(
        super::whole_condition(&work["status"]["conditions"], "Degraded").1,
        "Contended"
    );
    // The other gives up: it is repaired once more, and after a while nothing is said of it any more.
    until_value(&spoke, &ns, "settings", "ours").await?;
    until_condition(&fleet, name, "app", "Degraded", "False")
        .await
        .map(drop)
}
