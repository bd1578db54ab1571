//! Deployments and what runs for them: rollouts, scaling, pods, nodes.

use super::{APP, Kubectl};
use crate::Result;

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_rolled_out_and_back() -> Result {
    let Some(kubectl) = Kubectl::start().await? else {
        return Ok(());
    };
    let app = kubectl.file("app.json", APP)?;
    assert!(
        kubectl
            .ok(&["apply", "-f", &app])
            .await?
            .contains("deployment.apps/web created")
    );
    assert!(kubectl.ok(&["apply", "-f", &app]).await?.contains("unchanged"));
    kubectl
        .all(&[
            (
                "rollout status deployment/web --timeout=60s",
                "successfully rolled out",
            ),
            ("get deployment web -o wide", "2/2"),
            ("get pods -l app=web -o wide", "node-"),
            ("set image deployment/web c=i:2", "image updated"),
            (
                "rollout status deployment/web --timeout=60s",
                "successfully rolled out",
            ),
            ("rollout history deployment/web --revision=2", "i:2"),
            ("rollout undo deployment/web", "rolled back"),
            (
                "rollout status deployment/web --timeout=60s",
                "successfully rolled out",
            ),
            ("get deployment web -o jsonpath={..image}", "i:1"),
            ("rollout restart deployment/web", "restarted"),
            (
                "rollout status deployment/web --timeout=60s",
                "successfully rolled out",
            ),
            ("rollout pause deployment/web", "paused"),
            ("rollout resume deployment/web", "resumed"),
            ("scale deployment web --current-replicas=2 --replicas=3", "scaled"),
            (
                "wait --for=jsonpath={.status.readyReplicas}=3 deployment/web --timeout=60s",
                "condition met",
            ),
            ("autoscale deployment web --min=1 --max=5", "autoscaled"),
            ("get hpa web", "Deployment/web"),
            ("expose deployment web --port=80 --target-port=8080", "exposed"),
            ("get service web -o jsonpath={.spec.ports[0].targetPort}", "8080"),
            ("describe deployment web", "RollingUpdateStrategy"),
            ("describe pod -l app=web", "Containers:"),
            ("get all -l app=web", "replicaset.apps/web-"),
            ("delete deployment web --cascade=orphan", "deleted"),
            ("get replicasets -l app=web -o name", "replicaset.apps/web-"),
            ("delete replicasets,pods -l app=web --timeout=60s", "deleted"),
        ])
        .await?;
    kubectl.refused(&["get", "deployment", "web"], "NotFound").await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_jobs_and_nodes() -> Result {
    let Some(kubectl) = Kubectl::start().await? else {
        return Ok(());
    };
    let app = kubectl.file("app.json", APP)?;
    kubectl.ok(&["apply", "-f", &app]).await?;
    kubectl
        .all(&[
            ("get nodes", "Ready"),
            ("describe node node-0", "Conditions:"),
            ("run one --image=i", "pod/one created"),
            (
                "wait --for=condition=Ready pod/one --timeout=60s",
                "condition met",
            ),
            ("create job job --image=i", "created"),
            (
                "wait --for=condition=complete job/job --timeout=60s",
                "condition met",
            ),
            ("create cronjob cron --image=i --schedule=@hourly", "created"),
            ("create job from-cron --from=cronjob/cron", "created"),
            (
                "rollout status deployment/web --timeout=60s",
                "successfully rolled out",
            ),
            ("cordon node-0", "cordoned"),
            ("drain node-0 --force --timeout=60s", "drained"),
            ("uncordon node-0", "uncordoned"),
            ("taint nodes node-0 key=value:NoSchedule", "tainted"),
            ("label node node-0 zone=a", "labeled"),
            (
                "delete deployment web --cascade=foreground --timeout=60s",
                "deleted",
            ),
            ("delete pod one --wait=true --timeout=60s", "deleted"),
        ])
        .await?;
    // What needs a kubelet or a metrics server says so.
    kubectl.ok(&["run", "two", "--image=i"]).await?;
    kubectl
        .ok(&["wait", "--for=condition=Ready", "pod/two", "--timeout=60s"])
        .await?;
    for args in [
        &["logs", "two"][..],
        &["exec", "two", "--", "ls"],
        &["attach", "two"],
        &["port-forward", "pod/two", "8080:80"],
    ] {
        kubectl.refused(args, "no kubelet runs pods").await?;
    }
    kubectl
        .refused(&["top", "nodes"], "Metrics API not available")
        .await
}
