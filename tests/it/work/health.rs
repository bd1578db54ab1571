//! State that is derived without rules, of every kind for which something is known.

use super::{Checked, definition, manifest_condition, until_condition, whole_condition};
use crate::Result;
use muster_tests::Fleet;
use muster_tests::control_plane::is_embedded;
use muster_tests::objects::{configmap, deployment, namespace, work};
use serde_json::{Value, json};

/// What is said of an object: `None` of what has no state, else whether it progresses, whether it is degraded, and a part of
/// the words.
type State = Option<(bool, bool, &'static str)>;

/// An object, its path, its status, and what must be said of it.
struct Case {
    object: Value,
    path: String,
    status: Value,
    state: State,
}

fn cases(ns: &str, cluster: &str) -> Vec<Case> {
    let containers = json!([{"name": "main", "image": "a:1"}]);
    let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": containers}});
    let apps = |kind: &str, plural: &str, name: &str, status: Value, state: State| {
        let mut object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": ns},
            "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template}});
        if kind == "StatefulSet" {
            object["spec"]["serviceName"] = json!("a");
        }
        Case {
            object,
            path: format!("/apis/apps/v1/namespaces/{ns}/{plural}/{name}"),
            status,
            state,
        }
    };
    let core = |kind: &str, plural: &str, name: &str, spec: Value, status: Value, state: State| Case {
        object: json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": ns}, "spec": spec}),
        path: format!("/api/v1/namespaces/{ns}/{plural}/{name}"),
        status,
        state,
    };
    let batch = |kind: &str, plural: &str, name: &str, spec: Value, status: Value, state: State| Case {
        object: json!({"apiVersion": "batch/v1", "kind": kind, "metadata": {"name": name, "namespace": ns}, "spec": spec}),
        path: format!("/apis/batch/v1/namespaces/{ns}/{plural}/{name}"),
        status,
        state,
    };
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason,
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let pod = json!({"containers": containers});
    let never = json!({"template": {"spec": {"restartPolicy": "Never", "containers": containers}}});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let balancer = json!({"type": "LoadBalancer", "selector": {"app": "a"}, "ports": [{"port": 80}]});
    let (current, moving, sick) = (
        |w| Some((false, false, w)),
        |w| Some((true, false, w)),
        |w| Some((true, true, w)),
    );
    let deployments = ("Deployment", "deployments");
    let up = json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1});
    let stuck = json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1,
        "conditions": [condition("Progressing", "False", "ProgressDeadlineExceeded")]});
    let claims = ("PersistentVolumeClaim", "persistentvolumeclaims");
    let mut cases = vec![
        apps(
            deployments.0,
            deployments.1,
            "deploy-up",
            up,
            current("1 of 1 replicas are available"),
        ),
        apps(
            deployments.0,
            deployments.1,
            "deploy-new",
            json!({}),
            moving("generation 1 is not observed yet"),
        ),
        apps(
            deployments.0,
            deployments.1,
            "deploy-stuck",
            stuck,
            sick("ProgressDeadlineExceeded"),
        ),
        apps(
            "StatefulSet",
            "statefulsets",
            "set-up",
            json!({"observedGeneration": 1, "replicas": 1, "readyReplicas": 1}),
            current("1 of 1 replicas are ready"),
        ),
        apps(
            "StatefulSet",
            "statefulsets",
            "set-new",
            json!({"observedGeneration": 1, "replicas": 1}),
            moving("0 of 1"),
        ),
        apps(
            "DaemonSet",
            "daemonsets",
            "daemon-up",
            json!({"observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
            "numberMisscheduled": 0, "numberReady": 2, "updatedNumberScheduled": 2, "numberAvailable": 2}),
            current("2 of 2 Pods"),
        ),
        apps(
            "DaemonSet",
            "daemonsets",
            "daemon-new",
            json!({"observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
            "numberMisscheduled": 0, "numberReady": 1, "updatedNumberScheduled": 2, "numberAvailable": 1}),
            moving("1 of 2 Pods"),
        ),
        batch(
            "Job",
            "jobs",
            "job-runs",
            never.clone(),
            json!({"active": 1, "startTime": "2026-01-01T00:00:00Z"}),
            moving("0 of 1 Pods"),
        ),
        batch(
            "Job",
            "jobs",
            "job-failed",
            never.clone(),
            json!({"failed": 1, "startTime": "2026-01-01T00:00:00Z", "conditions": [
            condition("FailureTarget", "True", "BackoffLimitExceeded"), condition("Failed", "True", "BackoffLimitExceeded")]}),
            sick("BackoffLimitExceeded"),
        ),
        batch(
            "CronJob",
            "cronjobs",
            "cron",
            json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": never}}),
            json!({}),
            current("scheduled"),
        ),
        core(
            "Pod",
            "pods",
            "pod-ready",
            pod.clone(),
            json!({"phase": "Running", "conditions": [condition("Ready", "True", "")]}),
            current("the Pod is ready"),
        ),
        core(
            "Pod",
            "pods",
            "pod-crashes",
            pod.clone(),
            json!({"phase": "Running", "containerStatuses": [{"name": "main", "image": "a:1",
            "imageID": "", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            sick("CrashLoopBackOff"),
        ),
        core(
            "Pod",
            "pods",
            "pod-waits",
            pod,
            json!({"phase": "Pending"}),
            moving("the Pod is Pending"),
        ),
        core(
            "Service",
            "services",
            "balancer-new",
            balancer.clone(),
            json!({}),
            moving("no address yet"),
        ),
        core(
            "Service",
            "services",
            "balancer-up",
            balancer,
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}),
            current("has an address"),
        ),
        core(
            "Service",
            "services",
            "plain",
            json!({"selector": {"app": "a"}, "ports": [{"port": 80}]}),
            json!({}),
            None,
        ),
        core(
            claims.0,
            claims.1,
            "claim-bound",
            claim.clone(),
            json!({"phase": "Bound"}),
            current("bound"),
        ),
        core(
            claims.0,
            claims.1,
            "claim-lost",
            claim.clone(),
            json!({"phase": "Lost"}),
            sick("lost its volume"),
        ),
        core(
            claims.0,
            claims.1,
            "claim-new",
            claim,
            json!({"phase": "Pending"}),
            moving("not bound yet"),
        ),
    ];
    let plural = format!("fits{}", cluster.replace('-', ""));
    let (crd, things) = definition(&plural, "Fit", ns);
    cases.push(Case {
        object: crd,
        path: String::new(),
        status: Value::Null,
        state: current("its kind is served"),
    });
    for (name, conditions, state) in [
        (
            "custom-ready",
            json!([condition("Ready", "True", "")]),
            current("all is well"),
        ),
        (
            "custom-unready",
            json!([condition("Ready", "False", "Waiting")]),
            moving("Ready is False: Waiting"),
        ),
        (
            "custom-stalled",
            json!([condition("Stalled", "True", "Broken")]),
            sick("Stalled is True: Broken"),
        ),
        (
            "custom-unavailable",
            json!([condition("Available", "False", "Down")]),
            sick("Available is False: Down"),
        ),
        ("custom-other", json!([condition("Polished", "False", "")]), None),
    ] {
        let object = json!({"apiVersion": format!("{plural}.example.com/v1"), "kind": "Fit", "metadata": {"name": name, "namespace": ns}});
        cases.push(Case {
            object,
            path: format!("{things}/{name}"),
            status: json!({"conditions": conditions}),
            state,
        });
    }
    let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": format!("v1.away.{plural}.example.com")},
        "spec": {"group": format!("away.{plural}.example.com"), "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
            "insecureSkipTLSVerify": true, "service": {"name": "away", "namespace": ns}}});
    cases.push(Case {
        object: service,
        path: format!("/apis/apiregistration.k8s.io/v1/apiservices/v1.away.{plural}.example.com"),
        status: json!({"conditions": [condition("Available", "False", "ServiceNotFound")]}),
        state: Some((true, true, "Available is False")),
    });
    cases.push(Case {
        object: namespace(&format!("{ns}-more")),
        path: String::new(),
        status: Value::Null,
        state: current("the namespace is active"),
    });
    cases.push(Case {
        object: configmap(ns, "plain-map", "1"),
        path: String::new(),
        status: Value::Null,
        state: None,
    });
    cases
}

fn told(work: &Value, case: &Case) -> Checked {
    let name = case.object["metadata"]["name"].as_str().unwrap_or_default();
    let progressing = manifest_condition(work, name, "Progressing");
    let degraded = manifest_condition(work, name, "Degraded");
    let right = match case.state {
        None => progressing.0.is_empty() && degraded.0.is_empty(),
        Some((moves, sick, words)) => {
            let is = |holds: bool| if holds { "True" } else { "False" };
            progressing.0 == is(moves) && degraded.0 == is(sick) && progressing.2.contains(words)
        }
    };
    if right {
        Ok(())
    } else {
        Err(format!(
            "{} {name}: {progressing:?} {degraded:?}",
            case.object["kind"]
        ))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_every_kind_is_told_without_rules() -> Result {
    if !is_embedded() {
        eprintln!("skipped: sets statuses that a real cluster's controllers set otherwise");
        return Ok(());
    }
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let cases = cases(&ns, name);
    let manifests: Vec<Value> = cases.iter().map(|c| c.object.clone()).collect();
    fleet.create(&work(name, "app", &manifests)).await?;
    fleet.until_applied(name, "app").await?;
    for case in cases
        .iter()
        .filter(|c| !c.path.is_empty() && c.status != json!({}))
    {
        spoke
            .merge(&format!("{}/status", case.path), &json!({"status": case.status}))
            .await?;
    }
    let work = fleet
        .until_work(name, "app", "every state is told", |work| {
            let wrong: Vec<String> = cases.iter().filter_map(|c| told(work, c).err()).collect();
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(wrong.join("; "))
            }
        })
        .await?;
    // One that works must not hide one that does not.
    let summed = |kind: &str| whole_condition(&work["status"]["conditions"], kind);
    assert_eq!(
        (summed("Progressing").0, summed("Degraded").0),
        ("True".to_owned(), "True".to_owned())
    );
    assert_eq!(summed("Degraded").1, "ManifestsDegraded");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_is_what_its_manifests_are() -> Result {
    if !is_embedded() {
        eprintln!("skipped: sets statuses that a real cluster's controllers set otherwise");
        return Ok(());
    }
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    fleet
        .create(&work(
            name,
            "app",
            &[deployment(&ns, "web", 1), configmap(&ns, "map", "1")],
        ))
        .await?;
    let path = format!("{}/status", muster_tests::objects::deployment_path(&ns, "web"));
    until_condition(&fleet, name, "app", "Progressing", "True").await?;
    until_condition(&fleet, name, "app", "Degraded", "False").await?;
    let up = json!({"status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "readyReplicas": 1}});
    spoke.merge(&path, &up).await?;
    until_condition(&fleet, name, "app", "Progressing", "False").await?;
    let failing = json!({"status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}]}});
    spoke.merge(&path, &failing).await?;
    let work = until_condition(&fleet, name, "app", "Degraded", "True").await?;
    assert!(
        whole_condition(&work["status"]["conditions"], "Degraded")
            .2
            .contains("FailedCreate")
    );
    spoke
        .merge(&path, &json!({"status": {"conditions": null}}))
        .await?;
    until_condition(&fleet, name, "app", "Degraded", "False")
        .await
        .map(drop)
}
