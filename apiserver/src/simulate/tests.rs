//! A simulated cluster, as `kubectl rollout status` and `kubectl wait` look at it.

use super::*;
use crate::controllers::plan::{condition, is_true};
use crate::controllers::tests::harness::Cluster;
use crate::object;
use serde_json::json;

async fn simulated(nodes: usize) -> Cluster {
    let cluster = Cluster::start().await;
    start(cluster.api.clone(), nodes, cluster.shutdown.clone());
    cluster
}

fn workload(name: &str, image: &str, more: &Value) -> Value {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}

/// What `kubectl rollout status deployment` waits for.
fn is_rolled_out(deployment: &Value) -> bool {
    let status = &deployment["status"];
    let want = deployment["spec"]["replicas"].as_i64().unwrap();
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && ["replicas", "updatedReplicas", "availableReplicas"]
            .iter()
            .all(|f| status[f].as_i64().unwrap_or(0) == want)
}

#[tokio::test]
async fn nodes_are_ready_and_hold_leases() {
    let cluster = simulated(3).await;
    for i in 0..3 {
        let name = node::name(i);
        let ready = || {
            cluster
                .get(kinds::NODES, "", &name)
                .filter(|n| is_true(n, "Ready"))
        };
        let node = cluster.wait("a ready node", ready).await;
        assert_eq!(node["status"]["allocatable"]["pods"], "110");
        let lease = cluster
            .wait("its lease", || {
                cluster.get(kinds::LEASES, node::LEASE_NAMESPACE, &name)
            })
            .await;
        assert_eq!(lease["spec"]["holderIdentity"], name);
    }
    // The leases come back with their namespace.
    cluster
        .delete(
            crate::controllers::kinds::NAMESPACES,
            "",
            node::LEASE_NAMESPACE,
            None,
        )
        .await;
    cluster
        .gone(crate::controllers::kinds::NAMESPACES, "", node::LEASE_NAMESPACE)
        .await;
    cluster
        .create(
            crate::controllers::kinds::NAMESPACES,
            json!({"metadata": {"name": node::LEASE_NAMESPACE}}),
        )
        .await;
    cluster
        .wait("its lease again", || {
            cluster.get(kinds::LEASES, node::LEASE_NAMESPACE, "node-2")
        })
        .await;
    // A deleted node comes back.
    cluster.delete(kinds::NODES, "", "node-1", None).await;
    cluster
        .wait("the node again", || {
            cluster
                .get(kinds::NODES, "", "node-1")
                .filter(|n| is_true(n, "Ready"))
        })
        .await;
}

#[tokio::test]
async fn a_deployment_rolls_out_rolls_on_and_scales() {
    let cluster = simulated(2).await;
    cluster
        .create(kinds::DEPLOYMENTS, workload("web", "v1", &json!({"replicas": 3})))
        .await;
    let rolled_out = |image: &'static str, replicas: i64| {
        let cluster = &cluster;
        move || {
            let found = cluster.get(kinds::DEPLOYMENTS, "default", "web")?;
            let right = found["spec"]["template"]["spec"]["containers"][0]["image"] == image
                && found["spec"]["replicas"] == replicas;
            (right && is_rolled_out(&found)).then_some(found)
        }
    };
    let mut deployment = cluster.wait("the rollout", rolled_out("v1", 3)).await;
    assert!(is_true(&deployment, "Available"));
    assert_eq!(
        condition(&deployment, "Progressing").unwrap()["reason"],
        "NewReplicaSetAvailable"
    );
    assert_eq!(
        deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "1"
    );
    let pods = cluster.list(PODS, "default");
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        assert!(pod::is_ready(pod));
        assert_eq!(pod["status"]["phase"], "Running");
        assert!(pod["spec"]["nodeName"].as_str().unwrap().starts_with("node-"));
    }
    cluster.settle().await;
    let revision = cluster.api.store.revision();
    cluster.settle().await;
    assert_eq!(
        cluster.api.store.revision(),
        revision,
        "nothing is written when nothing changes"
    );

    // A deleted pod is replaced.
    cluster
        .delete(PODS, "default", object::name(&pods[0]), None)
        .await;
    let replaced = || {
        let now = cluster.list(PODS, "default");
        let fresh = now
            .iter()
            .all(|p| object::uid(p) != object::uid(&pods[0]) && pod::is_ready(p));
        (now.len() == 3 && fresh).then_some(())
    };
    cluster.wait("another pod", replaced).await;

    deployment = cluster.get(kinds::DEPLOYMENTS, "default", "web").unwrap();
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "v2".into();
    deployment["spec"]["replicas"] = 2.into();
    cluster.update(kinds::DEPLOYMENTS, "", deployment).await;
    deployment = cluster.wait("the next rollout", rolled_out("v2", 2)).await;
    assert_eq!(
        deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "2"
    );
    assert_eq!(cluster.names(kinds::REPLICA_SETS, "default").len(), 2);
    let images = || -> Vec<Value> {
        cluster
            .list(PODS, "default")
            .iter()
            .map(|p| p["spec"]["containers"][0]["image"].clone())
            .collect()
    };
    assert_eq!(images(), ["v2", "v2"]);
    // Back to the first template: its ReplicaSet becomes the newest.
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "v1".into();
    cluster.update(kinds::DEPLOYMENTS, "", deployment).await;
    deployment = cluster.wait("the rollback", rolled_out("v1", 2)).await;
    assert_eq!(
        deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "3"
    );
    assert_eq!(cluster.names(kinds::REPLICA_SETS, "default").len(), 2);
    deployment["spec"]["replicas"] = 0.into();
    cluster.update(kinds::DEPLOYMENTS, "", deployment).await;
    cluster.wait("none", rolled_out("v1", 0)).await;
    assert_eq!(images(), Vec::<Value>::new());

    cluster.delete(kinds::DEPLOYMENTS, "default", "web", None).await;
    let empty = || {
        cluster
            .names(kinds::REPLICA_SETS, "default")
            .is_empty()
            .then_some(())
    };
    cluster.wait("its ReplicaSets to go", empty).await;
}

#[tokio::test]
async fn sets_and_jobs_come_to_what_they_want() {
    let cluster = simulated(2).await;
    let stateful = json!({"replicas": 2, "serviceName": "db"});
    cluster
        .create(kinds::STATEFUL_SETS, workload("db", "v1", &stateful))
        .await;
    let ready = || {
        let set = cluster.get(kinds::STATEFUL_SETS, "default", "db")?;
        let status = &set["status"];
        let done = status["observedGeneration"] == set["metadata"]["generation"]
            && status["readyReplicas"] == 2
            && status["updatedReplicas"] == 2
            && status["currentRevision"] == status["updateRevision"];
        done.then_some(set)
    };
    let mut set = cluster.wait("the StatefulSet", ready).await;
    assert_eq!(cluster.names(PODS, "default"), ["db-0", "db-1"]);
    let before = set["status"]["updateRevision"].clone();
    set["spec"]["template"]["spec"]["containers"][0]["image"] = "v2".into();
    cluster.update(kinds::STATEFUL_SETS, "", set).await;
    let updated = || ready().filter(|s| s["status"]["updateRevision"] != before);
    cluster.wait("the StatefulSet's update", updated).await;
    assert!(
        cluster
            .list(PODS, "default")
            .iter()
            .all(|p| p["spec"]["containers"][0]["image"] == "v2")
    );

    cluster
        .create(kinds::DAEMON_SETS, workload("agent", "v1", &json!({})))
        .await;
    let scheduled = || {
        let set = cluster.get(kinds::DAEMON_SETS, "default", "agent")?;
        (set["status"]["numberReady"] == 2 && set["status"]["updatedNumberScheduled"] == 2).then_some(set)
    };
    let set = cluster.wait("the DaemonSet", scheduled).await;
    assert_eq!(set["status"]["desiredNumberScheduled"], 2);
    let nodes: Vec<Value> = cluster
        .list(PODS, "default")
        .iter()
        .filter(|p| p["metadata"]["labels"]["app"] == "agent")
        .map(|p| p["spec"]["nodeName"].clone())
        .collect();
    assert!(
        nodes.contains(&json!("node-0")) && nodes.contains(&json!("node-1")),
        "{nodes:?}"
    );

    let job = json!({
        "metadata": {"name": "once", "namespace": "default"},
        "spec": {
            "completions": 3, "parallelism": 2,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
        },
    });
    cluster.create(job::JOBS, job).await;
    let complete = || {
        cluster
            .get(job::JOBS, "default", "once")
            .filter(|j| is_true(j, "Complete"))
    };
    let job = cluster.wait("the Job", complete).await;
    assert_eq!(
        (&job["status"]["succeeded"], &job["status"]["ready"]),
        (&json!(3), &json!(0))
    );
    cluster.settle().await;
    let revision = cluster.api.store.revision();
    cluster.settle().await;
    assert_eq!(
        cluster.api.store.revision(),
        revision,
        "nothing is written when nothing changes"
    );
}

#[test]
fn leases_are_renewed_at_half_their_life() {
    let now: jiff::Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let node = json!({"metadata": {"name": "node-0", "uid": "u"}, "status": {"capacity": {}}});
    let lease = |at: &str| json!({"metadata": {"name": "node-0"}, "spec": {"renewTime": at}});
    for (at, writes, after) in [
        ("2026-01-01T12:00:00.000000Z", 0, 300),
        ("2026-01-01T11:56:40.000000Z", 0, 100),
        ("2026-01-01T11:55:00.000000Z", 1, 300),
    ] {
        let plan = node::decide(0, Some(&node), true, Some(&lease(at)), now);
        assert_eq!(
            (plan.actions.len(), plan.after),
            (writes, Some(Duration::from_secs(after))),
            "{at}"
        );
    }
    let plan = node::decide(0, Some(&node), false, None, now);
    assert_eq!(
        (plan.actions.len(), plan.after),
        (0, Some(Duration::from_secs(300)))
    );
}

#[test]
fn generated_names_are_stable_and_legal() {
    assert_eq!(pod::letters(pod::hash("a"), 5), pod::letters(pod::hash("a"), 5));
    assert_ne!(pod::letters(pod::hash("a"), 5), pod::letters(pod::hash("b"), 5));
    assert!(
        pod::letters(u32::MAX, 7)
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    );
}
