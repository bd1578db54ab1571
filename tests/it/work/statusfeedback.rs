//! What OCM's work/statusfeedback shows: values of objects at the hub.

use super::{age, config, definition, delete, moved, until_manifest};
use crate::Result;
use muster_tests::control_plane::is_embedded;
use muster_tests::objects::{
    condition_in, configmap, configmap_path, deployment, feedback, manifest_status, work_path, work_with,
};
use muster_tests::{Fleet, FleetOptions};
use serde_json::{Value, json};

/// Feedback rules for one object.
fn rules(group: &str, resource: &str, ns: &str, name: &str, rules: &Value) -> Value {
    config(group, resource, ns, name, &json!({"feedbackRules": rules}))
}

fn paths(paths: &[(&str, &str)]) -> Value {
    let paths: Vec<Value> = paths
        .iter()
        .map(|(name, path)| json!({"name": name, "path": path}))
        .collect();
    json!([{"type": "JSONPaths", "jsonPaths": paths}])
}

async fn until_values(
    fleet: &Fleet,
    cluster: &str,
    work: &str,
    object: &str,
    wanted: &[(&str, Option<Value>)],
) -> anyhow::Result<Value> {
    fleet
        .until_work(cluster, work, &format!("{object} has {wanted:?}"), |work| {
            for (name, wanted) in wanted {
                let found = feedback(work, object, name);
                if found != *wanted {
                    return Err(format!("{name} is {found:?}"));
                }
            }
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_by_path_follows_the_object() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    let rules = json!({"manifestConfigs": [{
        "resourceIdentifier": {"group": "", "resource": "configmaps", "namespace": ns, "name": "*"},
        "feedbackRules": [{"type": "JSONPaths", "jsonPaths": [
            {"name": "value", "path": ".data.value"}, {"name": "label", "path": ".metadata.labels.stage"},
            {"name": "missing", "path": ".data.nothing"}]}]}]});
    let mut map = configmap(&ns, "settings", "1");
    map["metadata"]["labels"] = json!({"stage": "test"});
    fleet
        .create(&work_with(name, "app", &[map.clone()], &rules))
        .await?;
    let values = |work: &Value| ["value", "label", "missing"].map(|v| feedback(work, "settings", v));
    for expected in ["1", "2"] {
        map["data"]["value"] = json!(expected);
        fleet.set_manifests(name, "app", &[map.clone()]).await?;
        fleet
            .until_work(name, "app", "feedback is there", |work| {
                let found = values(work);
                if found == [Some(json!(expected)), Some(json!("test")), None] {
                    Ok(())
                } else {
                    Err(format!("feedback is {found:?}"))
                }
            })
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn well_known_feedback_of_a_running_deployment() -> Result {
    if !is_embedded() {
        eprintln!("skipped: needs nodes, simulated ones are embedded only");
        return Ok(());
    }
    let fleet = Fleet::start(FleetOptions {
        nodes: 2,
        ..FleetOptions::default()
    })
    .await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    let rules = json!({"manifestConfigs": [{
        "resourceIdentifier": {"group": "apps", "resource": "deployments", "namespace": ns, "name": "web"},
        "feedbackRules": [{"type": "WellKnownStatus"}]}]});
    fleet.until_available().await?;
    fleet
        .create(&work_with(name, "app", &[deployment(&ns, "web", 2)], &rules))
        .await?;
    for replicas in [2, 3] {
        fleet
            .set_manifests(name, "app", &[deployment(&ns, "web", replicas)])
            .await?;
        fleet
            .until_work(name, "app", "the Deployment's replicas are reported", |work| {
                let found =
                    ["ReadyReplicas", "Replicas", "AvailableReplicas"].map(|v| feedback(work, "web", v));
                if found.iter().all(|v| *v == Some(json!(replicas))) {
                    Ok(())
                } else {
                    Err(format!("{found:?}"))
                }
            })
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn well_known_values_of_every_kind() -> Result {
    if !is_embedded() {
        eprintln!("skipped: sets statuses that a real cluster's controllers set otherwise");
        return Ok(());
    }
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let containers = json!([{"name": "main", "image": "a:1"}]);
    let daemon = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "daemon", "namespace": ns},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": containers}}}});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": ns},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": containers}}}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "namespace": ns}, "spec": {"containers": containers}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "account", "namespace": ns}});
    let known = json!([{"type": "WellKnownStatus"}]);
    let configs = json!({"manifestConfigs": [rules("apps", "deployments", &ns, "web", &known), rules("apps", "daemonsets", &ns, "daemon", &known),
        rules("batch", "jobs", &ns, "job", &known), rules("", "pods", &ns, "pod", &known), rules("", "serviceaccounts", &ns, "account", &known)]});
    let manifests = [deployment(&ns, "web", 3), daemon, job, pod, account];
    fleet
        .create(&work_with(name, "app", &manifests, &configs))
        .await?;
    fleet.until_applied(name, "app").await?;
    let statuses = [
        (
            "/apis/apps/v1",
            "deployments/web",
            json!({"replicas": 3, "readyReplicas": 2, "availableReplicas": 2}),
        ),
        (
            "/apis/apps/v1",
            "daemonsets/daemon",
            json!({"numberReady": 1, "desiredNumberScheduled": 3, "numberAvailable": 2,
            "currentNumberScheduled": 3, "numberMisscheduled": 0}),
        ),
        (
            "/apis/batch/v1",
            "jobs/job",
            json!({"succeeded": 1, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:01Z",
            "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}]}),
        ),
        (
            "/api/v1",
            "pods/pod",
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
        ),
    ];
    for (root, object, status) in statuses {
        spoke
            .merge(
                &format!("{root}/namespaces/{ns}/{object}/status"),
                &json!({"status": status}),
            )
            .await?;
    }
    let some = |v: Value| Some(v);
    until_values(
        &fleet,
        name,
        "app",
        "web",
        &[
            ("ReadyReplicas", some(json!(2))),
            ("Replicas", some(json!(3))),
            ("AvailableReplicas", some(json!(2))),
        ],
    )
    .await?;
    until_values(
        &fleet,
        name,
        "app",
        "daemon",
        &[
            ("NumberReady", some(json!(1))),
            ("DesiredNumberScheduled", some(json!(3))),
            ("NumberAvailable", some(json!(2))),
        ],
    )
    .await?;
    until_values(
        &fleet,
        name,
        "app",
        "job",
        &[
            ("JobComplete", some(json!("True"))),
            ("JobSucceeded", some(json!(1))),
        ],
    )
    .await?;
    until_values(
        &fleet,
        name,
        "app",
        "pod",
        &[
            ("PodReady", some(json!("True"))),
            ("PodPhase", some(json!("Running"))),
        ],
    )
    .await?;
    let told = (
        "StatusFeedbackSynced",
        "False",
        "StatusFeedbackSyncFailed",
        "no well-known status is defined",
    );
    until_manifest(&fleet, name, "app", "account", told).await?;
    until_manifest(
        &fleet,
        name,
        "app",
        "web",
        ("StatusFeedbackSynced", "True", "StatusFeedbackSynced", ""),
    )
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn values_move_the_time_of_their_condition() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    let configs = json!({"manifestConfigs": [rules("", "configmaps", &ns, "told", &paths(&[("value", ".data.value")]))]});
    fleet
        .create(&work_with(name, "app", &[configmap(&ns, "told", "1")], &configs))
        .await?;
    fleet.until_applied(name, "app").await?;
    until_values(&fleet, name, "app", "told", &[("value", Some(json!("1")))]).await?;
    age(&fleet, name, "app").await?;
    fleet
        .set_manifests(name, "app", &[configmap(&ns, "told", "2")])
        .await?;
    let work = until_values(&fleet, name, "app", "told", &[("value", Some(json!("2")))]).await?;
    let conditions = &work["status"]["resourceStatus"]["manifests"][0]["conditions"];
    assert_eq!(moved(conditions), ["StatusFeedbackSynced"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_namespace_and_of_the_cluster_are_followed() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let plural = format!("gauges{}", name.replace('-', ""));
    let (crd, gauges) = definition(&plural, "Gauge", &ns);
    let group = format!("{plural}.example.com");
    let gauge = json!({"apiVersion": format!("{group}/v1"), "kind": "Gauge", "metadata": {"name": "gauge", "namespace": ns}});
    let space = format!("{ns}-told");
    let mut watched = rules(
        "",
        "namespaces",
        "",
        &space,
        &paths(&[("phase", ".status.phase"), ("team", ".metadata.labels.team")]),
    );
    watched["feedbackScrapeType"] = json!("Watch");
    let values = [
        ("first", ".status.list[0].value"),
        ("ready", r#".status.list[?(@.name=="b")].value"#),
        ("dotted", r".metadata.annotations.example\.com/a"),
        ("none", ".status.nothing.at.all"),
    ];
    let configs =
        json!({"manifestConfigs": [rules(&group, &plural, &ns, "gauge", &paths(&values)), watched]});
    fleet
        .create(&work_with(
            name,
            "app",
            &[crd, gauge, muster_tests::objects::namespace(&space)],
            &configs,
        ))
        .await?;
    fleet.until_applied(name, "app").await?;
    let path = format!("{gauges}/gauge");
    spoke
        .merge(
            &path,
            &json!({"metadata": {"annotations": {"example.com/a": "x"}}}),
        )
        .await?;
    spoke
        .merge(
            &format!("{path}/status"),
            &json!({"status": {"list": [{"name": "a", "value": 7}, {"name": "b", "value": true}]}}),
        )
        .await?;
    let wanted = [
        ("first", Some(json!(7))),
        ("ready", Some(json!(true))),
        ("dotted", Some(json!("x"))),
        ("none", None),
    ];
    until_values(&fleet, name, "app", "gauge", &wanted).await?;
    until_values(
        &fleet,
        name,
        "app",
        &space,
        &[("phase", Some(json!("Active"))), ("team", None)],
    )
    .await?;
    spoke
        .merge(
            &format!("/api/v1/namespaces/{space}"),
            &json!({"metadata": {"labels": {"team": "a"}}}),
        )
        .await?;
    until_values(&fleet, name, "app", &space, &[("team", Some(json!("a")))]).await?;
    delete(&fleet, name, "app").await
}

#[tokio::test(flavor = "multi_thread")]
async fn structures_come_as_json_where_the_gate_is_on() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    fleet.clusters[0]
        .options
        .feature_gates
        .push("RawFeedbackJsonString=true".into());
    fleet.clusters[0].start();
    fleet.until_available().await?;
    let (name, ns) = (fleet.clusters[0].name.clone(), fleet.clusters[0].namespace());
    let mut map = configmap(&ns, "told", "1");
    map["metadata"]["labels"] = json!({"a": "b"});
    let both = paths(&[("data", ".data"), ("each", ".data.*"), ("plain", ".data.value")]);
    let configs = json!({"manifestConfigs": [
        rules("", "configmaps", &ns, "told", &both), rules("apps", "deployments", &ns, "web", &lists())]});
    let manifests = [map, two_containers(&ns)];
    fleet
        .create(&work_with(&name, "app", &manifests, &configs))
        .await?;
    let wanted = [
        ("data", Some(json!(r#"{"value":"1"}"#))),
        ("plain", Some(json!("1"))),
    ];
    until_values(&fleet, &name, "app", "told", &wanted).await?;
    // Of what a path finds several of, all come as one list; of what it finds one of, that.
    let wanted = [
        ("each", Some(json!(r#"["main","side"]"#))),
        ("chosen", Some(json!("registry.example/side:1"))),
        ("port", Some(json!("[8080,8081]"))),
        ("none", None),
    ];
    let work = until_values(&fleet, &name, "app", "web", &wanted).await?;
    let values = &manifest_status(&work, "web").cloned().unwrap_or_default()["statusFeedback"]["values"];
    let kind = |name: &str| {
        let mut list = values.as_array().into_iter().flatten();
        list.find(|v| v["name"] == name)
            .map(|v| v["fieldValue"]["type"].clone())
    };
    assert_eq!(kind("each"), Some(json!("JsonRaw")));
    assert_eq!(kind("chosen"), Some(json!("String")));
    until_manifest(
        &fleet,
        &name,
        "app",
        "told",
        ("StatusFeedbackSynced", "True", "StatusFeedbackSynced", ""),
    )
    .await
    .map(drop)
}

/// A Deployment with two containers.
fn two_containers(ns: &str) -> Value {
    let mut web = deployment(ns, "web", 0);
    web["spec"]["template"]["spec"]["containers"] = json!([
        {"name": "main", "image": "registry.example/app:1", "ports": [{"containerPort": 8080}]},
        {"name": "side", "image": "registry.example/side:1", "ports": [{"containerPort": 8081}]}]);
    web
}

/// Paths that go through its lists.
fn lists() -> Value {
    paths(&[
        ("each", ".spec.template.spec.containers[*].name"),
        (
            "chosen",
            r#".spec.template.spec.containers[?(@.name=="side")].image"#,
        ),
        ("port", "..containerPort"),
        (
            "none",
            r#".spec.template.spec.containers[?(@.name=="none")].image"#,
        ),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_a_path_finds_several_of_the_first_comes_without_the_gate() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    let configs = json!({"manifestConfigs": [rules("apps", "deployments", &ns, "web", &lists())]});
    fleet
        .create(&work_with(name, "app", &[two_containers(&ns)], &configs))
        .await?;
    let wanted = [
        ("each", Some(json!("main"))),
        ("chosen", Some(json!("registry.example/side:1"))),
        ("port", Some(json!(8080))),
        ("none", None),
    ];
    until_values(&fleet, name, "app", "web", &wanted).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn that_nothing_is_asked_for_is_told_too() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    let configs = json!({"manifestConfigs": [rules("", "configmaps", &ns, "asked", &paths(&[("value", ".data.value")]))]});
    let manifests = [configmap(&ns, "asked", "1"), configmap(&ns, "other", "1")];
    fleet
        .create(&work_with(name, "app", &manifests, &configs))
        .await?;
    let nothing = ("StatusFeedbackSynced", "True", "NoStatusFeedbackSynced", "");
    let something = ("StatusFeedbackSynced", "True", "StatusFeedbackSynced", "");
    until_manifest(&fleet, name, "app", "other", nothing).await?;
    until_manifest(&fleet, name, "app", "asked", something).await?;
    // The rule taken away, its values go with it.
    super::patch(&fleet, name, "app", &json!({"spec": {"manifestConfigs": null}})).await?;
    let work = until_manifest(&fleet, name, "app", "asked", nothing).await?;
    assert_eq!(feedback(&work, "asked", "value"), None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_rules_for_an_object_the_first_match_counts() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    let configs = json!({"manifestConfigs": [
        rules("", "configmaps", "*", "one", &paths(&[("first", ".data.value")])),
        rules("", "configmaps", "*", "*", &paths(&[("all", ".data.value")]))]});
    fleet
        .create(&work_with(
            name,
            "app",
            &[configmap(&ns, "one", "1"), configmap(&ns, "two", "2")],
            &configs,
        ))
        .await?;
    until_values(
        &fleet,
        name,
        "app",
        "one",
        &[("first", Some(json!("1"))), ("all", None)],
    )
    .await?;
    until_values(
        &fleet,
        name,
        "app",
        "two",
        &[("first", None), ("all", Some(json!("2")))],
    )
    .await
    .map(drop)
}

/// What another controller writes into a status that changes all the time stays.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_others_outlive_what_is_written_at_the_same_moment() -> Result {
    const ROUNDS: usize = 40;
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let paths = json!([{"name": "value", "path": ".data.value"}]);
    let rest = json!({"feedbackRules": [{"type": "JSONPaths", "jsonPaths": paths}]});
    let strategy = json!({"type": "CreateOnly"});
    let mut one = config("", "configmaps", &ns, "busy", &rest);
    one["updateStrategy"] = strategy;
    let configs = json!({ "manifestConfigs": [one] });
    let manifests = [configmap(&ns, "busy", "begin")];
    fleet
        .create(&work_with(name, "app", &manifests, &configs))
        .await?;
    fleet.until_applied(name, "app").await?;
    let (hub, path) = (fleet.kube(), work_path(name, "app"));
    for round in 0..ROUNDS {
        let busy = async {
            let value = json!({"data": {"value": format!("v{round}")}});
            spoke.merge(&configmap_path(&ns, "busy"), &value).await
        };
        let theirs = hub.edit(&path, "/status", |work| {
            let condition = json!({"type": format!("Theirs{round}"), "status": "True", "reason": "Theirs",
                "message": "", "lastTransitionTime": "2020-01-01T00:00:00Z"});
            if let Some(list) = work["status"]["conditions"].as_array_mut() {
                list.push(condition);
            }
        });
        let (busy, theirs) = tokio::join!(busy, theirs);
        busy?;
        theirs?;
    }
    let found = fleet
        .until_work(name, "app", "the last value is told", |work| {
            let value = feedback(work, "busy", "value");
            (value == Some(json!(format!("v{}", ROUNDS - 1))))
                .then_some(())
                .ok_or_else(|| format!("it is {value:?}"))
        })
        .await?;
    let conditions = &found["status"]["conditions"];
    let lost: Vec<String> = (0..ROUNDS)
        .map(|round| format!("Theirs{round}"))
        .filter(|kind| condition_in(conditions, kind).is_none())
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    Ok(())
}
