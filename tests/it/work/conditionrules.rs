//! What OCM's work/conditionrules shows: conditions that a work derives from its objects.

use super::{config, manifest_condition, patch, until_condition, until_manifest, whole_condition};
use crate::Result;
use muster_tests::objects::{configmap, configmap_path, work_with};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, Kube};
use serde_json::{Value, json};

/// A Job that no controller of the cluster touches: tests say how it goes.
fn job(ns: &str, name: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": ns},
        "spec": {"managedBy": "example.com/test", "template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "main", "image": "registry.example/job:1"}]}}}})
}

async fn set_status(spoke: &Kube, ns: &str, name: &str, status: &Value) -> Result {
    let path = format!("/apis/batch/v1/namespaces/{ns}/jobs/{name}/status");
    spoke.merge(&path, &json!({"status": status})).await?;
    Ok(())
}

fn running() -> Value {
    json!({"active": 1, "ready": 1, "startTime": "2026-01-01T00:00:00Z"})
}

fn complete() -> Value {
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "CompletionsReached", "message": "done",
        "lastProbeTime": "2026-01-01T00:00:01Z", "lastTransitionTime": "2026-01-01T00:00:01Z"})
    };
    json!({"active": 0, "ready": 0, "succeeded": 1, "startTime": "2026-01-01T00:00:00Z",
        "completionTime": "2026-01-01T00:00:01Z",
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")]})
}

/// Rules for Jobs by name, which are applied server-side.
fn rules(ns: &str, name: &str, rules: &Value) -> Value {
    config(
        "batch",
        "jobs",
        ns,
        name,
        &json!({"updateStrategy": {"type": "ServerSideApply"}, "conditionRules": rules}),
    )
}

fn well_known(condition: &str) -> Value {
    json!([{"type": "WellKnownConditions", "condition": condition}])
}

const EVALUATED: &str = "ConditionRuleEvaluated";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_completes() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let configs = json!({"manifestConfigs": [rules(&ns, "one", &well_known("Complete"))]});
    fleet
        .create(&work_with(name, "app", &[job(&ns, "one")], &configs))
        .await?;
    fleet.until_applied(name, "app").await?;
    set_status(&spoke, &ns, "one", &running()).await?;
    until_manifest(
        &fleet,
        name,
        "app",
        "one",
        ("Complete", "False", EVALUATED, "Job is not finished"),
    )
    .await?;
    set_status(&spoke, &ns, "one", &complete()).await?;
    until_manifest(
        &fleet,
        name,
        "app",
        "one",
        ("Complete", "True", EVALUATED, "Job is finished"),
    )
    .await?;
    let work = until_condition(&fleet, name, "app", "Complete", "True").await?;
    let found = whole_condition(&work["status"]["conditions"], "Complete");
    assert_eq!(
        (found.1.as_str(), found.2.as_str()),
        ("ConditionRulesAggregated", "Job is finished")
    );

    // A finished Job that is cleaned up is not started again.
    spoke
        .delete(&format!("/apis/batch/v1/namespaces/{ns}/jobs/one"))
        .await?;
    until_condition(&fleet, name, "app", "Available", "False").await?;
    let work = until_condition(&fleet, name, "app", "Complete", "True").await?;
    assert_eq!(manifest_condition(&work, "one", "Complete").0, "True");
    assert!(
        spoke
            .find(&format!("/apis/batch/v1/namespaces/{ns}/jobs/one"))
            .await?
            .is_none()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_come_from_cel_with_messages_of_their_own() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let message = "result ? 'One pod is active' : 'There is not only one pod active'";
    let cel = json!([{"type": "CEL", "condition": "OneActive", "messageExpression": message,
        "celExpressions": ["object.status.active == 1"]}]);
    let configs = json!({"manifestConfigs": [rules("*", "*1", &cel)]});
    fleet
        .create(&work_with(name, "app", &[job(&ns, "job1")], &configs))
        .await?;
    fleet.until_applied(name, "app").await?;
    let mut status = running();
    status["active"] = json!(3);
    status["ready"] = json!(0);
    set_status(&spoke, &ns, "job1", &status).await?;
    let not = (
        "OneActive",
        "False",
        EVALUATED,
        "There is not only one pod active",
    );
    until_manifest(&fleet, name, "app", "job1", not).await?;
    set_status(&spoke, &ns, "job1", &json!({"active": 1})).await?;
    until_manifest(
        &fleet,
        name,
        "app",
        "job1",
        ("OneActive", "True", EVALUATED, "One pod is active"),
    )
    .await?;
    // Without the rule the condition is gone.
    patch(&fleet, name, "app", &json!({"spec": {"manifestConfigs": null}})).await?;
    fleet
        .until_work(name, "app", "the condition is gone", |work| {
            let found = manifest_condition(work, "job1", "OneActive");
            let summed = whole_condition(&work["status"]["conditions"], "OneActive");
            (found.0.is_empty() && summed.0.is_empty())
                .then_some(())
                .ok_or_else(|| format!("{found:?} {summed:?}"))
        })
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_well_known_gives_no_condition() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let both = json!([{"type": "WellKnownConditions", "condition": "NotWellKnown"},
        {"type": "WellKnownConditions", "condition": "Complete"}]);
    let configs = json!({"manifestConfigs": [rules(&ns, "one", &both)]});
    fleet
        .create(&work_with(name, "app", &[job(&ns, "one")], &configs))
        .await?;
    fleet.until_applied(name, "app").await?;
    set_status(&spoke, &ns, "one", &running()).await?;
    let work = until_manifest(&fleet, name, "app", "one", ("Complete", "False", EVALUATED, "")).await?;
    assert_eq!(manifest_condition(&work, "one", "NotWellKnown").0, "");
    assert_eq!(
        whole_condition(&work["status"]["conditions"], "NotWellKnown").0,
        ""
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_rule_is_for_all_jobs_and_is_summed_up() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let configs = json!({"manifestConfigs": [rules("*", "job*", &well_known("Complete"))]});
    fleet
        .create(&work_with(
            name,
            "app",
            &[job(&ns, "job1"), job(&ns, "job2")],
            &configs,
        ))
        .await?;
    fleet.until_applied(name, "app").await?;
    set_status(&spoke, &ns, "job1", &running()).await?;
    set_status(&spoke, &ns, "job2", &complete()).await?;
    until_manifest(&fleet, name, "app", "job1", ("Complete", "False", EVALUATED, "")).await?;
    let work = until_manifest(&fleet, name, "app", "job2", ("Complete", "True", EVALUATED, "")).await?;
    let found = whole_condition(&work["status"]["conditions"], "Complete");
    assert_eq!(
        (found.0.as_str(), found.2.as_str()),
        ("False", "Aggregated from 2 manifest conditions")
    );
    set_status(&spoke, &ns, "job1", &complete()).await?;
    until_condition(&fleet, name, "app", "Complete", "True")
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_rules_for_a_job_the_first_match_counts() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let bad = json!([{"type": "CEL", "condition": "Complete", "celExpressions": ["badexpression"]}]);
    let configs =
        json!({"manifestConfigs": [rules("*", "job1", &well_known("Complete")), rules("*", "job*", &bad)]});
    fleet
        .create(&work_with(
            name,
            "app",
            &[job(&ns, "job1"), job(&ns, "job2")],
            &configs,
        ))
        .await?;
    fleet.until_applied(name, "app").await?;
    for job in ["job1", "job2"] {
        set_status(&spoke, &ns, job, &complete()).await?;
    }
    until_manifest(&fleet, name, "app", "job1", ("Complete", "True", EVALUATED, "")).await?;
    let error = "ConditionRuleExpressionError";
    until_manifest(
        &fleet,
        name,
        "app",
        "job2",
        ("Complete", "False", error, "badexpression"),
    )
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_work_does_not_claim_what_it_did_not_apply() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let rule = json!({"conditionRules": [{"type": "CEL", "condition": "Complete",
        "celExpressions": ["object.data.value == 'done'"]}]});
    let spec = json!({"manifestConfigs": [config("", "configmaps", &ns, "phase", &rule)]});
    let phase = configmap(&ns, "phase", "done");
    fleet
        .create(&work_with(name, "app", std::slice::from_ref(&phase), &spec))
        .await?;
    let frozen = until_condition(&fleet, name, "app", "Complete", "True").await?;
    let observed = |list: &Value| {
        let list = list.as_array().into_iter().flatten();
        let mut applied = list.filter(|c| c["type"] == "Applied");
        applied.next().map(|c| c["observedGeneration"].clone())
    };
    let first = observed(&frozen["status"]["conditions"]);
    fleet
        .set_manifests(name, "app", &[phase, configmap(&ns, "late", "1")])
        .await?;
    let told = ("Available", "False", "ResourceNotAvailable", "");
    let work = until_manifest(&fleet, name, "app", "late", told).await?;
    assert_eq!(manifest_condition(&work, "late", "Applied").0, "");
    assert_eq!(observed(&work["status"]["conditions"]), first);
    let phase = &work["status"]["resourceStatus"]["manifests"][0]["conditions"];
    assert_eq!(observed(phase), first);
    let late = configmap_path(&ns, "late");
    assert!(spoke.find(&late).await?.is_none());
    // Thawed, it is applied and says so.
    let thaw = json!({"spec": {"manifestConfigs": null}});
    patch(&fleet, name, "app", &thaw).await?;
    spoke.until_there(&late, SOON).await?;
    let work = fleet.until_applied(name, "app").await?;
    assert_eq!(
        observed(&work["status"]["conditions"]),
        Some(work["metadata"]["generation"].clone())
    );
    Ok(())
}
