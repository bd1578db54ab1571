//! What OCM's work/updatestrategy shows: the four strategies, fields that are ignored, wildcards, and that nothing is written
//! where nothing changed.

use super::{config, definition, delete, owners, patch, uid, until_field, until_manifest, until_value};
use crate::Result;
use anyhow::Context as _;
use muster_tests::Fleet;
use muster_tests::control_plane::is_embedded;
use muster_tests::objects::{
    condition_in, configmap, configmap_path, deployment, deployment_path, feedback, manifest_status,
    strategy, work, work_path, work_with, works_path,
};
use muster_tests::wait::SOON;
use serde_json::{Value, json};

/// `manifestConfigs` that apply a Deployment `web` server-side.
fn ssa(ns: &str, config: &Value) -> Value {
    let one = strategy(
        "apps",
        "deployments",
        ns,
        "web",
        &json!({"type": "ServerSideApply", "serverSideApply": config}),
    );
    json!({"manifestConfigs": [one]})
}

fn web(ns: &str, replicas: u32, image: &str) -> Value {
    let mut web = deployment(ns, "web", replicas);
    web["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    web
}

#[tokio::test(flavor = "multi_thread")]
async fn create_only_and_read_only_leave_objects_alone() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let there = spoke
        .create(
            &format!("/api/v1/namespaces/{ns}/configmaps"),
            &configmap(&ns, "theirs", "a"),
        )
        .await?;
    let manifests = |value: &str| {
        [
            configmap(&ns, "once", value),
            configmap(&ns, "theirs", value),
            configmap(&ns, "ours", value),
        ]
    };
    let configs = json!({"manifestConfigs": [
        strategy("", "configmaps", &ns, "once", &json!({"type": "CreateOnly"})),
        {"resourceIdentifier": {"group": "", "resource": "configmaps", "namespace": ns, "name": "theirs"},
         "updateStrategy": {"type": "ReadOnly"},
         "feedbackRules": [{"type": "JSONPaths", "jsonPaths": [{"name": "value", "path": ".data.value"}]}]},
    ]});
    fleet
        .create(&work_with(name, "app", &manifests("1"), &configs))
        .await?;
    fleet.until_applied(name, "app").await?;
    until_value(&spoke, &ns, "once", "1").await?;
    fleet.set_manifests(name, "app", &manifests("2")).await?;
    fleet.until_applied(name, "app").await?;
    until_value(&spoke, &ns, "ours", "2").await?;
    until_value(&spoke, &ns, "once", "1").await?;
    let theirs = spoke.get(&configmap_path(&ns, "theirs")).await?;
    assert_eq!(
        theirs["metadata"]["resourceVersion"], there["metadata"]["resourceVersion"],
        "a ReadOnly object was written"
    );

    // It is read all the same, also what becomes of it later.
    spoke
        .merge(&configmap_path(&ns, "theirs"), &json!({"data": {"value": "b"}}))
        .await?;
    let value = |work: &Value| feedback(work, "theirs", "value");
    fleet
        .until_work(name, "app", "feedback of a ReadOnly object", |work| {
            match value(work) {
                Some(found) if found == "b" => Ok(()),
                other => Err(format!("feedback is {other:?}")),
            }
        })
        .await?;

    fleet.kube().delete(&work_path(name, "app")).await?;
    fleet.kube().until_gone(&work_path(name, "app"), SOON).await?;
    spoke.until_gone(&configmap_path(&ns, "once"), SOON).await?;
    spoke.get(&configmap_path(&ns, "theirs")).await?;
    Ok(())
}

/// Whoever makes a manifest `ReadOnly` says that the object is no longer the work's: it outlives the work.
#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_read_only_is_let_go() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let manifests = [configmap(&ns, "a", "1"), configmap(&ns, "b", "1")];
    fleet
        .create(&work_with(name, "app", &manifests, &json!({})))
        .await?;
    fleet.until_applied(name, "app").await?;
    let configs = json!([strategy("", "configmaps", &ns, "a", &json!({"type": "ReadOnly"}))]);
    fleet
        .kube()
        .merge(
            &work_path(name, "app"),
            &json!({"spec": {"manifestConfigs": configs}}),
        )
        .await?;
    spoke
        .until(
            &configmap_path(&ns, "a"),
            SOON,
            "no work owns it",
            |found| match found.map(|f| &f["metadata"]["ownerReferences"]) {
                Some(Value::Null) => Ok(()),
                other => Err(format!("its owners are {other:?}")),
            },
        )
        .await?;
    fleet.kube().delete(&work_path(name, "app")).await?;
    fleet.kube().until_gone(&work_path(name, "app"), SOON).await?;
    spoke.until_gone(&configmap_path(&ns, "b"), SOON).await?;
    spoke.get(&configmap_path(&ns, "a")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply_respects_other_managers_until_forced() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let ssa = |force: bool| {
        let one = |object: &str| {
            strategy(
                "",
                "configmaps",
                &ns,
                object,
                &json!({"type": "ServerSideApply", "serverSideApply": {"force": force}}),
            )
        };
        json!({"manifestConfigs": [one("free"), one("held")]})
    };
    spoke
        .apply(
            &configmap_path(&ns, "held"),
            "somebody",
            false,
            &configmap(&ns, "held", "theirs"),
        )
        .await?;
    let manifests = [configmap(&ns, "free", "ours"), configmap(&ns, "held", "ours")];
    fleet
        .create(&work_with(name, "app", &manifests, &ssa(false)))
        .await?;
    let conflict = fleet
        .until_work(name, "app", "the conflict is told", |work| {
            let status = manifest_status(work, "held").ok_or("no status of it")?;
            match condition_in(&status["conditions"], "Applied") {
                Some(("False", message)) if message.contains("somebody") => Ok(()),
                other => Err(format!("Applied is {other:?}")),
            }
        })
        .await?;
    let free = manifest_status(&conflict, "free").context("no status of the neighbour")?;
    assert_eq!(
        condition_in(&free["conditions"], "Applied").map(|c| c.0),
        Some("True")
    );
    until_value(&spoke, &ns, "held", "theirs").await?;
    let object = spoke.get(&configmap_path(&ns, "free")).await?;
    let managers = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert!(
        managers
            .iter()
            .any(|m| m["manager"] == "work-agent" && m["operation"] == "Apply"),
        "{managers:?}"
    );

    fleet
        .kube()
        .merge(&work_path(name, "app"), &json!({"spec": ssa(true)}))
        .await?;
    fleet.until_applied(name, "app").await?;
    until_value(&spoke, &ns, "held", "ours").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_ends_when_the_manifest_leaves_the_field_out() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let path = deployment_path(&ns, "web");
    fleet
        .create(&work_with(
            name,
            "app",
            &[web(&ns, 1, "a:1")],
            &ssa(&ns, &json!({})),
        ))
        .await?;
    fleet.until_applied(name, "app").await?;
    fleet.set_manifests(name, "app", &[web(&ns, 3, "a:1")]).await?;
    until_field(&spoke, &path, "/spec/replicas", &json!(3)).await?;

    spoke.apply(&path, "somebody", true, &web(&ns, 2, "a:1")).await?;
    let told = ("Applied", "False", "AppliedManifestFailed", "somebody");
    until_manifest(&fleet, name, "app", "web", told)
        .await
        .context("the field is taken")?;
    until_field(&spoke, &path, "/spec/replicas", &json!(2)).await?;
    let mut without = web(&ns, 0, "a:1");
    without["spec"]
        .as_object_mut()
        .context("a spec")?
        .remove("replicas");
    fleet.set_manifests(name, "app", &[without]).await?;
    fleet.until_applied(name, "app").await?;
    until_field(&spoke, &path, "/spec/replicas", &json!(2)).await
}

/// A list whose items have keys may have items of others: they are no drift, however often the object is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn items_of_others_are_let_be_and_ours_are_kept() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let ignoring = json!([{"condition": "OnSpokePresent", "jsonPaths": [".spec.replicas"]}]);
    for (work, ignore) in [("plain", json!([])), ("around", ignoring)] {
        let strategy =
            json!({"type": "ServerSideApply", "serverSideApply": {"force": true, "ignoreFields": ignore}});
        let paths = [json!({"name": "round", "path": ".metadata.labels.round"})];
        let rest = json!({"updateStrategy": strategy,
            "feedbackRules": [{"type": "JSONPaths", "jsonPaths": paths}]});
        let configs = json!({"manifestConfigs": [config("apps", "deployments", &ns, "web", &rest)]});
        let manifests = [web(&ns, 1, "a:1")];
        fleet.create(&work_with(name, work, &manifests, &configs)).await?;
        fleet.until_applied(name, work).await?;
        let path = deployment_path(&ns, "web");
        let beside = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": ns},
            "spec": {"template": {"spec": {"containers": [{"name": "mesh", "image": "mesh:1"}]}}}});
        spoke.apply(&path, "mesh", false, &beside).await?;
        for round in 0..8 {
            let label = json!({"metadata": {"labels": {"round": format!("r{round}")}}});
            spoke.merge(&path, &label).await?;
            let found = fleet
                .until_work(name, work, "the label is told", |work| {
                    let value = feedback(work, "web", "round");
                    (value == Some(json!(format!("r{round}"))))
                        .then_some(())
                        .ok_or_else(|| format!("it is {value:?}"))
                })
                .await?;
            let degraded = super::manifest_condition(&found, "web", "Degraded");
            assert_ne!(degraded.1, "Contended", "{work} {round}: {degraded:?}");
        }
        // What is ours among them is still kept.
        let container = |object: &Value, name: &str| {
            let list = object["spec"]["template"]["spec"]["containers"].as_array();
            let found = list.into_iter().flatten().find(|c| c["name"] == name);
            found.cloned().unwrap_or_default()
        };
        let mut edited = spoke.get(&path).await?;
        for one in edited["spec"]["template"]["spec"]["containers"]
            .as_array_mut()
            .context("containers")?
        {
            one["image"] = json!("edited");
        }
        spoke
            .replace(&format!("{path}?fieldManager=somebody"), &edited)
            .await?;
        let kept = spoke
            .until(&path, SOON, "our container is put back", |object| {
                let found = container(object.ok_or("gone")?, "main")["image"].clone();
                (found == "a:1")
                    .then(|| object.cloned())
                    .ok_or_else(|| format!("{found}"))
            })
            .await?
            .context("the object")?;
        assert_eq!(container(&kept, "mesh")["image"], "edited");
        delete(&fleet, name, work).await?;
        spoke.until_gone(&path, SOON).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_works_apply_an_object_as_two_managers() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let path = deployment_path(&ns, "web");
    fleet
        .create(&work_with(
            name,
            "one",
            &[web(&ns, 1, "a:1")],
            &ssa(&ns, &json!({})),
        ))
        .await?;
    fleet.until_applied(name, "one").await?;
    let mut without = web(&ns, 0, "a:1");
    without["spec"]
        .as_object_mut()
        .context("a spec")?
        .remove("replicas");
    let other = ssa(&ns, &json!({"force": true, "fieldManager": "work-agent-another"}));
    fleet.create(&work_with(name, "two", &[without], &other)).await?;
    fleet.until_applied(name, "two").await?;
    assert_eq!(owners(&spoke.get(&path).await?), 2);

    // The first still has the replicas, the image it shares.
    fleet.set_manifests(name, "one", &[web(&ns, 3, "a:1")]).await?;
    fleet.until_applied(name, "one").await?;
    until_field(&spoke, &path, "/spec/replicas", &json!(3)).await?;
    fleet.set_manifests(name, "one", &[web(&ns, 3, "a:2")]).await?;
    let told = ("Applied", "False", "AppliedManifestFailed", "work-agent-another");
    until_manifest(&fleet, name, "one", "web", told).await?;
    fleet.set_manifests(name, "one", &[web(&ns, 3, "a:1")]).await?;
    fleet.until_applied(name, "one").await?;

    // It lets the object go without touching it, and deleted it leaves it to the other.
    patch(
        &fleet,
        name,
        "one",
        &json!({"spec": {"deleteOption": {"propagationPolicy": "Orphan"}}}),
    )
    .await?;
    spoke
        .until(&path, SOON, "one owner is left", |object| {
            let found = object.map_or(0, owners);
            (found == 1)
                .then_some(())
                .ok_or_else(|| format!("{found} owners"))
        })
        .await?;
    delete(&fleet, name, "one").await?;
    spoke.get(&path).await?;
    delete(&fleet, name, "two").await?;
    spoke.until_gone(&path, SOON).await
}

/// An ignored field: what the cluster makes of it, and what becomes of it when only another field of the manifest changes
/// and when it changes itself.
async fn ignoring(ignore: &Value, on_own_change: u32) -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let path = deployment_path(&ns, "web");
    let config = ssa(&ns, &json!({"force": true, "ignoreFields": [ignore]}));
    fleet
        .create(&work_with(name, "app", &[web(&ns, 1, "a:1")], &config))
        .await?;
    fleet.until_applied(name, "app").await?;
    let made = spoke.get(&path).await?;
    assert_eq!(
        made["spec"]["replicas"], 1,
        "an object is made with all its fields"
    );
    assert!(made["metadata"]["annotations"]["open-cluster-management.io/config-spec-hash"].is_string());

    spoke
        .merge(
            &format!("{path}?fieldManager=somebody"),
            &json!({"spec": {"replicas": 2}}),
        )
        .await?;
    fleet
        .create(&work(name, "marker", &[configmap(&ns, "marker", "1")]))
        .await?;
    fleet.until_applied(name, "marker").await?;
    until_field(&spoke, &path, "/spec/replicas", &json!(2))
        .await
        .context("left to the cluster")?;
    // Other fields are not.
    let image = "/spec/template/spec/containers/0/image";
    let mut edited = spoke.get(&path).await?;
    edited["spec"]["template"]["spec"]["containers"][0]["image"] = json!("edited");
    spoke
        .replace(&format!("{path}?fieldManager=somebody"), &edited)
        .await?;
    until_field(&spoke, &path, image, &json!("a:1")).await?;
    until_field(&spoke, &path, "/spec/replicas", &json!(2)).await?;

    fleet.set_manifests(name, "app", &[web(&ns, 3, "a:1")]).await?;
    fleet.until_applied(name, "app").await?;
    until_field(&spoke, &path, "/spec/replicas", &json!(on_own_change))
        .await
        .context("its own change")?;

    // Made anew, it is made whole.
    spoke.delete(&path).await?;
    spoke
        .until(&path, SOON, "it comes back whole", |object| match object {
            Some(object) if uid(object) != uid(&made) && object["spec"]["replicas"] == 3 => Ok(()),
            other => Err(format!("{:?}", other.map(|o| o["spec"]["replicas"].clone()))),
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_ignored_on_spoke_change_changes_with_its_manifest() -> Result {
    ignoring(
        &json!({"condition": "OnSpokeChange", "jsonPaths": [".spec.replicas"]}),
        3,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_ignored_on_spoke_present_is_the_clusters() -> Result {
    ignoring(
        &json!({"condition": "OnSpokePresent", "jsonPaths": [".spec.replicas"]}),
        2,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_is_ignored_by_its_pointer() -> Result {
    ignoring(
        &json!({"condition": "OnSpokePresent", "jsonPointers": ["/spec/replicas"]}),
        2,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_variable_of_a_container_is_ignored_by_jq() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let path = deployment_path(&ns, "web");
    let with = |options: &str, stage: &str| {
        let mut web = web(&ns, 1, "a:1");
        web["spec"]["template"]["spec"]["containers"][0]["env"] =
            json!([{"name": "STAGE", "value": stage}, {"name": "JAVA_OPTS", "value": options}]);
        web
    };
    let jq = r#".spec.template.spec.containers[].env[] | select(.name == "JAVA_OPTS")"#;
    let config = ssa(
        &ns,
        &json!({"force": true, "ignoreFields": [{"condition": "OnSpokePresent", "jqPathExpressions": [jq]}]}),
    );
    fleet
        .create(&work_with(name, "app", &[with("-Xmx512m", "test")], &config))
        .await?;
    fleet.until_applied(name, "app").await?;
    let env = "/spec/template/spec/containers/0/env";
    spoke
        .edit(&path, "?fieldManager=somebody", |web| {
            assert_eq!(web.pointer(env).and_then(Value::as_array).map(Vec::len), Some(2));
            web["spec"]["template"]["spec"]["containers"][0]["env"][1]["value"] = json!("-Xmx1g");
        })
        .await?;
    fleet
        .set_manifests(name, "app", &[with("-Xmx2g", "live")])
        .await?;
    fleet.until_applied(name, "app").await?;
    let wanted = json!([{"name": "STAGE", "value": "live"}, {"name": "JAVA_OPTS", "value": "-Xmx1g"}]);
    until_field(&spoke, &path, env, &wanted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_changes_no_generation_changes() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    // Kinds with defaults of the server in every corner, each under both strategies that write again.
    let service = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": ns, "creationTimestamp": null},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})
    };
    let cron = |name: &str| {
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name, "namespace": ns},
            "spec": {"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"metadata": {"creationTimestamp": null}, "spec":
                {"template": {"spec": {"restartPolicy": "Never",
                    "containers": [{"name": "main", "image": "a:1", "resources": {"limits": {"cpu": "1000m"}}}]}}}}}})
    };
    let plural = format!("still{}", name.replace('-', ""));
    let (crd, things) = definition(&plural, "Still", &ns);
    let thing = |name: &str| {
        json!({"apiVersion": format!("{plural}.example.com/v1"), "kind": "Still",
        "metadata": {"name": name, "namespace": ns, "creationTimestamp": null}, "spec": {"empty": {}, "none": null, "list": []}})
    };
    let mut manifests = vec![crd];
    let mut paths = Vec::new();
    let mut configs = Vec::new();
    for kind in ["update", "apply"] {
        manifests.extend([service(kind), cron(kind), thing(kind), deployment(&ns, kind, 0)]);
        paths.extend([
            format!("/api/v1/namespaces/{ns}/services/{kind}"),
            format!("/apis/batch/v1/namespaces/{ns}/cronjobs/{kind}"),
            format!("{things}/{kind}"),
            deployment_path(&ns, kind),
        ]);
    }
    for (group, resource) in [("", "services"), ("batch", "cronjobs"), ("apps", "deployments")] {
        configs.push(strategy(
            group,
            resource,
            &ns,
            "apply",
            &json!({"type": "ServerSideApply"}),
        ));
    }
    let group = format!("{plural}.example.com");
    configs.push(strategy(
        &group,
        &plural,
        &ns,
        "apply",
        &json!({"type": "ServerSideApply"}),
    ));
    fleet
        .create(&work_with(
            name,
            "app",
            &manifests,
            &json!({"manifestConfigs": configs}),
        ))
        .await?;
    fleet.until_applied(name, "app").await?;
    let mut before = Vec::new();
    for path in &paths {
        before.push(spoke.get(path).await.context(path.clone())?);
    }
    // What is of no consequence for any object makes the agent look at all of them again.
    patch(
        &fleet,
        name,
        "app",
        &json!({"spec": {"deleteOption": {"propagationPolicy": "Foreground"}}}),
    )
    .await?;
    fleet.until_applied(name, "app").await?;
    for (path, before) in paths.iter().zip(&before) {
        let now = spoke.get(path).await?;
        assert_eq!(
            now["metadata"]["generation"], before["metadata"]["generation"],
            "{path}: {now}"
        );
        if is_embedded() {
            assert_eq!(
                now["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"],
                "{path}"
            );
        }
    }
    delete(&fleet, name, "app").await
}

#[tokio::test(flavor = "multi_thread")]
async fn wildcards_read_all_and_the_first_match_counts() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let map = |name: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": ns},
        "data": {"a": "1", "b": "2"}})
    };
    let collection = format!("/api/v1/namespaces/{ns}/configmaps");
    for object in ["cm1", "cm2"] {
        spoke.create(&collection, &map(object)).await?;
    }
    let read = |pattern: &str, field: &str| {
        config(
            "",
            "configmaps",
            "*",
            pattern,
            &json!({"updateStrategy": {"type": "ReadOnly"}, "feedbackRules": [
            {"type": "JSONPaths", "jsonPaths": [{"name": field, "path": format!(".data.{field}")}]}]}),
        )
    };
    let configs = json!({"manifestConfigs": [read("*", "a"), read("cm*", "b")]});
    fleet
        .create(&work_with(name, "app", &[map("cm1"), map("cm2")], &configs))
        .await?;
    for value in ["1", "changed"] {
        fleet
            .until_work(name, "app", "both values are there", |work| {
                let values = |object| [feedback(work, object, "a"), feedback(work, object, "b")];
                let wanted = [Some(json!(value)), None];
                (values("cm1") == wanted && values("cm2") == wanted)
                    .then_some(())
                    .ok_or_else(|| format!("{:?} {:?}", values("cm1"), values("cm2")))
            })
            .await?;
        for object in ["cm1", "cm2"] {
            spoke
                .merge(&configmap_path(&ns, object), &json!({"data": {"a": "changed"}}))
                .await?;
        }
    }
    assert_eq!(owners(&spoke.get(&configmap_path(&ns, "cm1")).await?), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_no_object_may_have_is_refused_at_the_hub() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let mut map = configmap(&cluster.namespace(), "settings", "1");
    // OCM's agent takes a label off for it; no API server lets it into a work, whose manifests' metadata it checks.
    map["metadata"]["labels"] = json!({"old-": ""});
    let refused = fleet
        .kube()
        .create(&works_path(&cluster.name), &work(&cluster.name, "app", &[map]))
        .await
        .err()
        .context("it was taken")?;
    assert_eq!(refused.code, 422, "{refused}");
    let field = "spec.workload.manifests[0].metadata.labels";
    assert!(refused.message.contains(field), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_another_type_is_made_anew() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let secret = |kind: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": ns},
        "type": kind, "stringData": {"password": "x"}})
    };
    let path = format!("/api/v1/namespaces/{ns}/secrets/key");
    fleet
        .create(&work(name, "app", &[secret("example.com/one")]))
        .await?;
    fleet.until_applied(name, "app").await?;
    let made = spoke.get(&path).await?;
    fleet
        .set_manifests(name, "app", &[secret("example.com/two")])
        .await?;
    until_field(&spoke, &path, "/type", &json!("example.com/two")).await?;
    fleet.until_applied(name, "app").await?;
    let anew = spoke.get(&path).await?;
    assert_ne!(uid(&anew), uid(&made));
    assert_eq!(anew["data"], json!({"password": "eA=="}));
    Ok(())
}
