//! What OCM's work/work shows: works made, changed and deleted, one manifest or many, order of kinds, conditions and their
//! times, deletion, completion, labels.

use super::{
    age, applied_work, config, definition, delete, manifest_condition, moved, owners, patch, uid,
    until_condition, until_field, until_value,
};
use crate::Result;
use anyhow::Context as _;
use muster_tests::Fleet;
use muster_tests::objects::{
    APPLIED_WORKS, CRDS, condition_in, configmap, configmap_path, deployment, deployment_path, has_condition,
    manifest_status, namespace, work, work_path, work_with,
};
use muster_tests::wait::SOON;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn update_makes_objects_as_the_work_says_and_follows_it() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let mut first = configmap(&ns, "settings", "1");
    first["data"]["extra"] = json!("goes with the next version");
    fleet
        .create(&work(name, "app", &[first, deployment(&ns, "web", 2)]))
        .await?;
    fleet.until_applied(name, "app").await?;
    let made = spoke.get(&deployment_path(&ns, "web")).await?;
    assert_eq!(made["spec"]["replicas"], 2);
    assert_eq!(owners(&made), 1);

    fleet
        .set_manifests(
            name,
            "app",
            &[configmap(&ns, "settings", "2"), deployment(&ns, "web", 3)],
        )
        .await?;
    let applied = fleet.until_applied(name, "app").await?;
    let settings = spoke.get(&configmap_path(&ns, "settings")).await?;
    assert_eq!(settings["data"], json!({"value": "2"}));
    let web = spoke.get(&deployment_path(&ns, "web")).await?;
    assert_eq!(web["spec"]["replicas"], 3);
    assert_eq!(uid(&web), uid(&made), "it was replaced instead of updated");
    let ordinals: Vec<_> = applied["status"]["resourceStatus"]["manifests"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|m| {
            (
                m["resourceMeta"]["ordinal"].clone(),
                m["resourceMeta"]["name"].clone(),
            )
        })
        .collect();
    assert_eq!(
        ordinals,
        [(json!(0), json!("settings")), (json!(1), json!("web"))]
    );

    // What is no longer in the work goes, the rest stays.
    fleet
        .set_manifests(name, "app", &[deployment(&ns, "web", 3)])
        .await?;
    spoke.until_gone(&configmap_path(&ns, "settings"), SOON).await?;
    assert_eq!(uid(&spoke.get(&deployment_path(&ns, "web")).await?), uid(&made));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_applied_in_the_order_that_kinds_need() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let new = format!("new-{}", cluster.name);
    let group = "example.com";
    let plural = format!("things{}", cluster.name.replace('-', ""));
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced",
            "names": {"plural": plural, "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
                    "properties": {"size": {"type": "integer"}}}}}}}]}});
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "one", "namespace": new},
        "spec": {"size": 1}});
    // Each needs one that comes after it.
    let manifests = [
        thing,
        deployment(&new, "web", 1),
        configmap(&new, "settings", "1"),
        crd,
        namespace(&new),
    ];
    fleet.create(&work(&cluster.name, "all", &manifests)).await?;
    fleet.until_applied(&cluster.name, "all").await?;
    let path = format!("/apis/example.com/v1/namespaces/{new}/{plural}/one");
    assert_eq!(cluster.kube().get(&path).await?["spec"]["size"], 1);

    // The CR is watched like anything else: an edit is taken back.
    cluster.kube().merge(&path, &json!({"spec": {"size": 7}})).await?;
    cluster
        .kube()
        .until(&path, SOON, "the edit is taken back", |thing| {
            let size = thing.map(|thing| thing["spec"]["size"].clone());
            (size == Some(json!(1)))
                .then_some(())
                .ok_or_else(|| format!("size is {size:?}"))
        })
        .await?;

    fleet.kube().delete(&work_path(&cluster.name, "all")).await?;
    fleet
        .kube()
        .until_gone(&work_path(&cluster.name, "all"), SOON)
        .await?;
    cluster
        .kube()
        .until_gone(&format!("{}/{plural}.{group}", muster_tests::objects::CRDS), SOON)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_waits_for_finalizers_and_says_so() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke, hub) = (&cluster.name, cluster.namespace(), cluster.kube(), fleet.kube());
    let mut held = configmap(&ns, "held", "1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    fleet
        .create(&work(name, "app", &[held, configmap(&ns, "free", "1")]))
        .await?;
    fleet.until_applied(name, "app").await?;
    hub.delete(&work_path(name, "app")).await?;
    fleet
        .until_work(
            name,
            "app",
            "it says that it is being deleted",
            |work| match condition_in(&work["status"]["conditions"], "Deleting") {
                Some(("True", _)) => Ok(()),
                other => Err(format!("Deleting is {other:?}")),
            },
        )
        .await?;
    spoke.until_gone(&configmap_path(&ns, "free"), SOON).await?;
    hub.get(&work_path(name, "app"))
        .await
        .context("the work is gone before its objects")?;
    spoke
        .merge(
            &configmap_path(&ns, "held"),
            &json!({"metadata": {"finalizers": null}}),
        )
        .await?;
    hub.until_gone(&work_path(name, "app"), SOON).await?;
    spoke.until_gone(&configmap_path(&ns, "held"), SOON).await?;
    let left = spoke.list(APPLIED_WORKS).await?;
    let mine = left
        .iter()
        .filter(|a| a["spec"]["agentID"] == cluster.options.agent_id.as_deref().unwrap_or_default());
    assert_eq!(mine.count(), 0, "an AppliedManifestWork is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_and_finalizers_of_others_stay_on_a_custom_resource() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let plural = format!("guests{}", name.replace('-', ""));
    let (crd, things) = definition(&plural, "Guest", &ns);
    let thing = json!({"apiVersion": format!("{plural}.example.com/v1"), "kind": "Guest",
        "metadata": {"name": "one", "namespace": ns}, "spec": {"size": 1}});
    fleet
        .create(&work(name, "app", &[crd.clone(), thing.clone()]))
        .await?;
    fleet.until_applied(name, "app").await?;
    let path = format!("{things}/one");
    spoke
        .merge(
            &path,
            &json!({"metadata": {"annotations": {"theirs": "a"}, "finalizers": ["example.com/hold"]}}),
        )
        .await?;
    let mut changed = thing;
    changed["metadata"]["annotations"] = json!({"ours": "b"});
    fleet.set_manifests(name, "app", &[crd, changed]).await?;
    until_field(&spoke, &path, "/metadata/annotations/ours", &json!("b")).await?;
    let live = spoke.get(&path).await?;
    assert_eq!(live["metadata"]["annotations"]["theirs"], "a");
    assert_eq!(live["metadata"]["finalizers"], json!(["example.com/hold"]));
    assert_eq!(live["spec"]["size"], 1);

    // Its end waits for that finalizer, and the CustomResourceDefinition goes with it.
    fleet.kube().delete(&work_path(name, "app")).await?;
    spoke
        .until(&path, SOON, "it is being deleted", |thing| {
            let thing = thing.ok_or("it is gone before its finalizer")?;
            thing["metadata"]["deletionTimestamp"]
                .is_string()
                .then_some(())
                .ok_or_else(|| thing["metadata"].to_string())
        })
        .await?;
    spoke
        .merge(&path, &json!({"metadata": {"finalizers": null}}))
        .await?;
    fleet.kube().until_gone(&work_path(name, "app"), SOON).await?;
    spoke
        .until_gone(&format!("{CRDS}/{plural}.{plural}.example.com"), SOON)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_accounts_and_workloads_follow_a_reordered_work() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let account = |name: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": ns}});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader", "namespace": ns},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader", "namespace": ns},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "one", "namespace": ns}]});
    let wide = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": format!("{ns}-wide")},
        "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]});
    let web = |account: &str| {
        let mut web = deployment(&ns, "web", 1);
        web["spec"]["template"]["spec"]["serviceAccountName"] = json!(account);
        web
    };
    let manifests = [
        account("one"),
        role.clone(),
        binding.clone(),
        web("one"),
        wide.clone(),
    ];
    fleet.create(&work(name, "app", &manifests)).await?;
    fleet.until_applied(name, "app").await?;
    let made = spoke.get(&deployment_path(&ns, "web")).await?;
    spoke
        .get(&format!(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/{ns}-wide"
        ))
        .await?;
    age(&fleet, name, "app").await?;

    let manifests = [web("two"), role, binding, account("two"), wide];
    fleet.set_manifests(name, "app", &manifests).await?;
    let status = fleet.until_applied(name, "app").await?;
    let live = spoke.get(&deployment_path(&ns, "web")).await?;
    assert_eq!(live["spec"]["template"]["spec"]["serviceAccountName"], "two");
    assert_eq!(uid(&live), uid(&made));
    let accounts = format!("/api/v1/namespaces/{ns}/serviceaccounts");
    spoke.until_gone(&format!("{accounts}/one"), SOON).await?;
    spoke.get(&format!("{accounts}/two")).await?;
    // What is as it was has not changed, and what is new has.
    let of = |name: &str| {
        manifest_status(&status, name)
            .map(|m| m["conditions"].clone())
            .unwrap_or_default()
    };
    assert!(!moved(&of("web")).contains(&"Applied"), "{}", of("web"));
    assert!(!moved(&status["status"]["conditions"]).contains(&"Applied"));
    assert!(moved(&of("two")).contains(&"Applied"), "{}", of("two"));
    delete(&fleet, name, "app").await
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_tell_their_generation_and_move_only_with_their_status() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    fleet
        .create(&work(name, "app", &[configmap(&ns, "settings", "1")]))
        .await?;
    let first = fleet.until_applied(name, "app").await?;
    age(&fleet, name, "app").await?;

    fleet
        .set_manifests(name, "app", &[configmap(&ns, "settings", "2")])
        .await?;
    let second = fleet.until_applied(name, "app").await?;
    let generation = second["metadata"]["generation"].as_i64();
    assert!(generation > first["metadata"]["generation"].as_i64());
    let lists = [
        &second["status"]["conditions"],
        &second["status"]["resourceStatus"]["manifests"][0]["conditions"],
    ];
    for list in lists {
        for condition in list.as_array().into_iter().flatten() {
            assert_eq!(
                condition["observedGeneration"].as_i64(),
                generation,
                "{condition}"
            );
        }
        assert_eq!(moved(list), [""; 0]);
    }

    // An edit on the cluster is taken back; nothing of that is a transition, and the work is not written at all.
    until_value(&spoke, &ns, "settings", "2").await?;
    let before = fleet.kube().get(&work_path(name, "app")).await?;
    let path = configmap_path(&ns, "settings");
    spoke.merge(&path, &json!({"data": {"value": "edited"}})).await?;
    until_value(&spoke, &ns, "settings", "2").await?;
    fleet
        .create(&work(name, "marker", &[configmap(&ns, "marker", "1")]))
        .await?;
    fleet.until_applied(name, "marker").await?;
    let after = fleet.kube().get(&work_path(name, "app")).await?;
    assert_eq!(
        after["metadata"]["resourceVersion"],
        before["metadata"]["resourceVersion"]
    );
    Ok(())
}

/// OCM's agent finds out with its next poll that somebody wrote the status.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_somebody_else_wrote_is_put_right() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    fleet
        .create(&work(name, "app", &[configmap(&ns, "settings", "1")]))
        .await?;
    fleet.until_applied(name, "app").await?;
    let status = format!("{}/status", work_path(name, "app"));
    for wrong in [
        json!({"status": {"conditions": [], "resourceStatus": {"manifests": []}}}),
        json!({"status": {"conditions": [{"type": "Applied", "status": "False", "reason": "Wrong", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
    ] {
        fleet.kube().merge(&status, &wrong).await?;
        let applied = fleet.until_applied(name, "app").await?;
        assert_eq!(
            applied["status"]["resourceStatus"]["manifests"]
                .as_array()
                .map(Vec::len),
            Some(1)
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_that_may_not_change_is_told_and_the_object_stays() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    let binding = |name: &str, role: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name, "namespace": ns},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": ns}]})
    };
    fleet
        .create(&work(name, "app", &[binding("one", "a"), binding("two", "a")]))
        .await?;
    fleet.until_applied(name, "app").await?;
    for (manifests, failing) in [
        ([binding("one", "b"), binding("two", "a")], vec!["one"]),
        ([binding("one", "b"), binding("two", "b")], vec!["one", "two"]),
    ] {
        fleet.set_manifests(name, "app", &manifests).await?;
        fleet
            .until_work(name, "app", "the failing bindings are told", |work| {
                has_condition(Some(work), "Applied", "False")?;
                has_condition(Some(work), "Available", "True")?;
                for name in ["one", "two"] {
                    let (status, _, message) = manifest_condition(work, name, "Applied");
                    let wrong = failing.contains(&name);
                    if (status == "False") != wrong || wrong != message.contains("cannot change roleRef") {
                        return Err(format!("{name} is {status}: {message}"));
                    }
                }
                Ok(())
            })
            .await?;
    }
    // Right again, it is applied.
    fleet
        .set_manifests(name, "app", &[binding("one", "a"), binding("two", "a")])
        .await?;
    fleet.until_applied(name, "app").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_the_work_stays_on_record_until_it_is_gone() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let mut held = configmap(&ns, "held", "1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    fleet
        .create(&work(name, "app", &[held, configmap(&ns, "kept", "1")]))
        .await?;
    fleet.until_applied(name, "app").await?;
    fleet
        .set_manifests(name, "app", &[configmap(&ns, "kept", "1")])
        .await?;
    let path = configmap_path(&ns, "held");
    until_field(&spoke, &path, "/metadata/deletionGracePeriodSeconds", &json!(0))
        .await
        .or_else(|_| Ok::<_, anyhow::Error>(()))?;
    let recorded = |applied: &Value| -> Vec<String> {
        let list = applied["status"]["appliedResources"]
            .as_array()
            .into_iter()
            .flatten();
        list.filter_map(|r| r["name"].as_str().map(str::to_owned))
            .collect()
    };
    assert_eq!(recorded(&applied_work(&fleet, 0, "app").await?), ["held", "kept"]);
    spoke
        .merge(&path, &json!({"metadata": {"finalizers": null}}))
        .await?;
    spoke.until_gone(&path, SOON).await?;
    let record = applied_work(&fleet, 0, "app").await?;
    let record = format!(
        "{APPLIED_WORKS}/{}",
        record["metadata"]["name"].as_str().unwrap_or_default()
    );
    spoke
        .until(&record, SOON, "it leaves the record", |applied| {
            let found = recorded(applied.ok_or("the record is gone")?);
            (found == ["kept"])
                .then_some(())
                .ok_or_else(|| format!("{found:?}"))
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_work_is_frozen() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let rules = json!({"manifestConfigs": [config("", "configmaps", &ns, "one", &json!({"conditionRules": [
        {"type": "CEL", "condition": "Complete",
         "celExpressions": ["has(object.data.complete) && object.data.complete == 'true'"]}]}))]});
    let map = |complete: bool, value: &str| {
        let mut one = configmap(&ns, "one", value);
        if complete {
            one["data"]["complete"] = json!("true");
        }
        [one, configmap(&ns, "two", value)]
    };
    fleet
        .create(&work_with(name, "app", &map(false, "1"), &rules))
        .await?;
    fleet.until_applied(name, "app").await?;
    until_condition(&fleet, name, "app", "Complete", "False").await?;
    fleet.set_manifests(name, "app", &map(true, "2")).await?;
    let complete = until_condition(&fleet, name, "app", "Complete", "True").await?;
    let (_, reason, _) = super::whole_condition(&complete["status"]["conditions"], "Complete");
    assert_eq!(reason, "ConditionRulesAggregated");
    until_value(&spoke, &ns, "two", "2").await?;

    // From now on neither the hub nor the cluster brings anything about.
    fleet.set_manifests(name, "app", &map(true, "3")).await?;
    spoke
        .merge(&configmap_path(&ns, "two"), &json!({"data": {"value": "edited"}}))
        .await?;
    fleet
        .create(&work(name, "marker", &[configmap(&ns, "marker", "1")]))
        .await?;
    fleet.until_applied(name, "marker").await?;
    until_value(&spoke, &ns, "two", "edited").await?;
    assert_eq!(
        spoke.get(&configmap_path(&ns, "one")).await?["data"]["value"],
        "2"
    );
    // It can still be deleted.
    delete(&fleet, name, "app").await?;
    spoke.until_gone(&configmap_path(&ns, "two"), SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_a_work_are_on_its_record() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    let mut labelled = work(name, "app", &[configmap(&ns, "settings", "1")]);
    labelled["metadata"]["labels"] = json!({"stage": "test"});
    fleet.create(&labelled).await?;
    fleet.until_applied(name, "app").await?;
    let record = applied_work(&fleet, 0, "app").await?;
    assert_eq!(record["metadata"]["labels"]["stage"], "test");
    let path = format!(
        "{APPLIED_WORKS}/{}",
        record["metadata"]["name"].as_str().unwrap_or_default()
    );
    // Somebody on the cluster may label it too.
    cluster
        .kube()
        .merge(&path, &json!({"metadata": {"labels": {"theirs": "a"}}}))
        .await?;
    patch(
        &fleet,
        name,
        "app",
        &json!({"metadata": {"labels": {"stage": "live", "more": "b"}}}),
    )
    .await?;
    until_field(
        &cluster.kube(),
        &path,
        "/metadata/labels",
        &json!({"stage": "live", "more": "b", "theirs": "a"}),
    )
    .await
}
