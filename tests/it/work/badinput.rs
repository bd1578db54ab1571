//! Bad input: each has its own condition with the server's words, and everything else of the work is applied.

use super::{
    Rig, config, definition, delete, manifest_condition, until_condition, until_manifest, until_value,
    whole_condition,
};
use crate::Result;
use anyhow::Context as _;
use muster_crds::constants::admission::WORK_VALIDATORS;
use muster_tests::objects::{
    CRDS, condition_in, configmap, configmap_path, deployment, feedback, has_condition, namespace, work,
    work_path, work_with, works_path,
};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions};
use serde_json::{Value, json};

/// A fleet whose hub lets through what its admission would refuse, as a hub without it does.
async fn unguarded() -> anyhow::Result<Fleet> {
    let fleet = Fleet::prepare(FleetOptions {
        webhook: false,
        ..FleetOptions::default()
    })
    .await?;
    let (hub, cluster) = (fleet.kube(), fleet.clusters[0].name.clone());
    hub.ensure("/api/v1/namespaces", &namespace(&cluster)).await?;
    let bindings = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
    hub.delete(&format!("{bindings}/{WORK_VALIDATORS}")).await?;
    let trial = format!("{}?dryRun=All", works_path(&cluster));
    muster_tests::eventually(SOON, "works are not checked any more", async || {
        let empty = work(&cluster, "unchecked", &[]);
        hub.create(&trial, &empty)
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    })
    .await?;
    Ok(fleet)
}

/// One bad manifest beside a good one: its own condition says why, in the words of `mention`, and the good one is applied.
async fn told_beside(fleet: &Fleet, name: &str, bad: Value, told: (&str, &str, &str, &str)) -> Result {
    let (cluster, ns) = (&fleet.clusters[0].name, fleet.clusters[0].namespace());
    let object = bad["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let good = format!("{name}-good");
    let manifests = [bad, configmap(&ns, &good, "1")];
    fleet.create(&work(cluster, name, &manifests)).await?;
    let found = until_manifest(fleet, cluster, name, &object, told)
        .await
        .context(name.to_owned())?;
    let found = fleet
        .until_work(cluster, name, "the good one is applied", |work| {
            has_condition(Some(work), "Applied", "False")?;
            match manifest_condition(work, &good, "Applied").0.as_str() {
                "True" => Ok(()),
                other => Err(format!("{other}: {}", found["status"])),
            }
        })
        .await?;
    assert_eq!(manifest_condition(&found, &good, "Available").0, "True");
    until_value(&fleet.clusters[0].kube(), &ns, &good, "1").await
}

const FAILED: (&str, &str, &str) = ("Applied", "False", "AppliedManifestFailed");

fn failed(mention: &str) -> (&str, &str, &str, &str) {
    (FAILED.0, FAILED.1, FAILED.2, mention)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_kind_is_applied_when_its_definition_appears() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let plural = format!("laters{}", name.replace('-', ""));
    let (crd, things) = definition(&plural, "Later", &ns);
    let thing = json!({"apiVersion": format!("{plural}.example.com/v1"), "kind": "Later",
        "metadata": {"name": "one", "namespace": ns}, "spec": {"size": 1}});
    told_beside(
        &fleet,
        "app",
        thing,
        failed("the server doesn't have a resource type \"Later\""),
    )
    .await?;
    let status = until_condition(&fleet, name, "app", "Available", "Unknown").await?;
    assert_eq!(
        manifest_condition(&status, "one", "Available").1,
        "IncompleteResourceMeta"
    );
    // Tried for a while, it waits long between two tries: the definition's coming is what counts.
    spoke.create(CRDS, &crd).await?;
    spoke.until_there(&format!("{things}/one"), SOON).await?;
    fleet.until_applied(name, "app").await?;
    delete(&fleet, name, "app").await?;
    spoke
        .delete(&format!("{CRDS}/{plural}.{plural}.example.com"))
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_told_in_its_words() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (ns, spoke) = (cluster.namespace(), cluster.kube());
    let mut invalid = deployment(&ns, "invalid", 1);
    invalid["spec"]["selector"]["matchLabels"]["app"] = json!("another");
    told_beside(
        &fleet,
        "invalid",
        invalid,
        failed("`selector` does not match template `labels`"),
    )
    .await?;

    let mut immutable = deployment(&ns, "immutable", 1);
    spoke
        .create(&format!("/apis/apps/v1/namespaces/{ns}/deployments"), &immutable)
        .await?;
    immutable["spec"]["selector"]["matchLabels"] = json!({"app": "other"});
    immutable["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    told_beside(&fleet, "immutable", immutable, failed("field is immutable")).await?;

    // A kube-apiserver refuses it within the work already.
    if muster_tests::control_plane::is_embedded() {
        let mut big = configmap(&ns, "big", "1");
        big["metadata"]["annotations"] = json!({"big": "x".repeat(300_000)});
        told_beside(&fleet, "big", big, failed("262144 bytes")).await?;
    }

    let lost = configmap(&format!("{ns}-nowhere"), "lost", "1");
    told_beside(&fleet, "lost", lost, failed("not found")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_names_no_object_is_told() -> Result {
    let mut fleet = unguarded().await?;
    fleet.clusters[0].start();
    fleet.until_available().await?;
    let ns = fleet.clusters[0].namespace();
    let nameless = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": ns}});
    told_beside(&fleet, "nameless", nameless, failed("has no metadata.name")).await?;
    let generated =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": ns, "generateName": "a-"}});
    told_beside(
        &fleet,
        "generated",
        generated,
        failed("generateName must not be set"),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_forbids_is_told_in_its_words() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let group = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": ns},
        "spec": {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}]},
            "validations": [{"expression": "object.metadata.name != 'forbidden'", "message": "the house forbids it"}]}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": ns}, "spec": {"policyName": ns, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns}}}}});
    spoke
        .create(&format!("{group}/validatingadmissionpolicies"), &policy)
        .await?;
    spoke
        .create(&format!("{group}/validatingadmissionpolicybindings"), &binding)
        .await?;
    let forbidden = configmap(&ns, "forbidden", "1");
    let trial = format!("/api/v1/namespaces/{ns}/configmaps?dryRun=All");
    muster_tests::eventually(SOON, "the policy is in force", async || {
        match spoke.create(&trial, &forbidden).await {
            Err(refused) if refused.message.contains("the house") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    told_beside(&fleet, "app", forbidden, failed("the house forbids it")).await?;
    // Allowed at last, it is applied without anybody's doing.
    spoke
        .delete(&format!("{group}/validatingadmissionpolicybindings/{ns}"))
        .await?;
    spoke
        .delete(&format!("{group}/validatingadmissionpolicies/{ns}"))
        .await?;
    fleet.until_applied(name, "app").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_may_not_do_is_told() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    let cluster = &mut fleet.clusters[0];
    let (name, ns, spoke) = (cluster.name.clone(), cluster.namespace(), cluster.kube());
    // Everything but Services.
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": ns},
        "rules": [
            {"apiGroups": [""], "resources": ["configmaps", "secrets", "namespaces", "nodes", "events"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["apiextensions.k8s.io", "work.open-cluster-management.io",
                "cluster.open-cluster-management.io", "coordination.k8s.io", "apps"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": ns},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ns},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "limited"}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    spoke.create(&format!("{rbac}/clusterroles"), &role).await?;
    spoke
        .create(&format!("{rbac}/clusterrolebindings"), &binding)
        .await?;
    let mut config: Value = serde_saphyr::from_str(&std::fs::read_to_string(cluster.plane.kubeconfig())?)?;
    config["users"][0]["user"]["as"] = json!("limited");
    let path = cluster.plane.dir().join("limited.kubeconfig");
    std::fs::write(&path, config.to_string())?;
    cluster.options.spoke_kubeconfig = Some(path);
    cluster.start();
    fleet.until_available().await?;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": ns},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    told_beside(
        &fleet,
        "app",
        service,
        failed("cannot create resource \"services\""),
    )
    .await?;
    // The right given, it is used.
    let rule = json!([{"op": "replace", "path": "/rules/1/verbs", "value": ["*"]}]);
    let kind = "application/json-patch+json";
    spoke
        .request(
            http::Method::PATCH,
            &format!("{rbac}/clusterroles/{ns}"),
            kind,
            Some(&rule),
        )
        .await?;
    fleet.until_applied(&name, "app").await?;
    spoke.delete(&format!("{rbac}/clusterrolebindings/{ns}")).await?;
    spoke.delete(&format!("{rbac}/clusterroles/{ns}")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminating_namespace_is_waited_for() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, spoke) = (&cluster.name, cluster.kube());
    let going = format!("going-{name}");
    spoke.create("/api/v1/namespaces", &namespace(&going)).await?;
    let mut held = configmap(&going, "held", "1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    spoke
        .create(&format!("/api/v1/namespaces/{going}/configmaps"), &held)
        .await?;
    spoke.delete(&format!("/api/v1/namespaces/{going}")).await?;
    told_beside(
        &fleet,
        "app",
        configmap(&going, "late", "1"),
        failed("it is being terminated"),
    )
    .await?;
    spoke
        .merge(
            &configmap_path(&going, "held"),
            &json!({"metadata": {"finalizers": null}}),
        )
        .await?;
    spoke
        .until_gone(&format!("/api/v1/namespaces/{going}"), SOON)
        .await?;
    spoke.create("/api/v1/namespaces", &namespace(&going)).await?;
    fleet.until_applied(name, "app").await?;
    spoke.delete(&format!("/api/v1/namespaces/{going}")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_taken_by_another_work_is_told_with_that_work() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    for (work_name, value) in [("first", "1"), ("second", "2")] {
        let manifests = [configmap(&ns, "shared", value), configmap(&ns, work_name, value)];
        fleet.create(&work(name, work_name, &manifests)).await?;
    }
    for (work_name, other) in [("first", "second"), ("second", "first")] {
        let told = ("Degraded", "True", "Contended", format!("work {other}"));
        let told = (told.0, told.1, told.2, told.3.as_str());
        let found = until_manifest(&fleet, name, work_name, "shared", told).await?;
        assert!(
            manifest_condition(&found, "shared", "Degraded")
                .2
                .contains("data.value")
        );
        assert_eq!(manifest_condition(&found, work_name, "Applied").0, "True");
    }
    // One of them gives in.
    fleet
        .set_manifests(name, "second", &[configmap(&ns, "second", "2")])
        .await?;
    until_condition(&fleet, name, "first", "Degraded", "False").await?;
    until_value(&cluster.kube(), &ns, "shared", "1").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_is_told_and_the_first_is_applied() -> Result {
    let fleet = unguarded().await?;
    let hub = fleet.kube();
    let rig = Rig::start(fleet, 3600).await?;
    let (cluster, ns) = (rig.cluster(), rig.namespace());
    let mut second = configmap(&ns, "twice", "2");
    second["metadata"]["annotations"] = json!({"second": "yes"});
    let manifests = [
        configmap(&ns, "twice", "1"),
        second.clone(),
        configmap(&ns, "other", "1"),
    ];
    rig.create(&work(&cluster, "app", &manifests)).await?;
    let conditions = |work: &Value, ordinal: usize| {
        let list = &work["status"]["resourceStatus"]["manifests"][ordinal]["conditions"];
        whole_condition(list, "Applied")
    };
    hub.until(
        &work_path(&cluster, "app"),
        SOON,
        "the duplicate is told",
        |work| {
            let work = work.ok_or("it is not there")?;
            let (first, twin, other) = (conditions(work, 0), conditions(work, 1), conditions(work, 2));
            let told = twin.2.contains("duplicate manifest for resource")
                && twin.2.contains("manifest 0 of the work");
            (first.0 == "True" && twin.0 == "False" && told && other.0 == "True")
                .then_some(())
                .ok_or_else(|| format!("{first:?} {twin:?} {other:?}"))
        },
    )
    .await?;
    until_value(&rig.spoke(), &ns, "twice", "1").await?;
    // The first gone, the second takes its place.
    let patch = json!({"spec": {"workload": {"manifests": [second, configmap(&ns, "other", "1")]}}});
    hub.merge(&work_path(&cluster, "app"), &patch).await?;
    until_value(&rig.spoke(), &ns, "twice", "2").await?;
    rig.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_without_manifests_is_told() -> Result {
    let fleet = unguarded().await?;
    let hub = fleet.kube();
    let rig = Rig::start(fleet, 3600).await?;
    let cluster = rig.cluster();
    rig.create(&work(&cluster, "app", &[])).await?;
    hub.until(&work_path(&cluster, "app"), SOON, "it is told", |work| {
        let work = work.ok_or("it is not there")?;
        let of = |kind: &str| whole_condition(&work["status"]["conditions"], kind);
        let (applied, available) = (of("Applied"), of("Available"));
        let told = applied.0 == "False" && applied.2.contains("no manifests");
        // It has nothing that could be there.
        (told && (available.0.as_str(), available.1.as_str()) == ("Unknown", "ResourcesStatusUnknown"))
            .then_some(())
            .ok_or_else(|| format!("{applied:?} {available:?}"))
    })
    .await?;
    rig.end().await
}

/// An executor that names nobody is not the agent itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_without_an_account_is_told() -> Result {
    let fleet = unguarded().await?;
    let rig = Rig::start(fleet, 3600).await?;
    let (cluster, ns, spoke) = (rig.cluster(), rig.namespace(), rig.spoke());
    let executor = json!({"executor": {"subject": {"type": "ServiceAccount"}}});
    let manifests = [configmap(&ns, "a", "1")];
    rig.create(&work_with(&cluster, "app", &manifests, &executor))
        .await?;
    let told = failed("the executor service account is nil");
    until_manifest(&rig.fleet, &cluster, "app", "a", told).await?;
    assert!(spoke.find(&configmap_path(&ns, "a")).await?.is_none());
    rig.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_that_are_wrong_or_run_away_are_told() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let rule = |condition: &str, expression: &str| json!({"type": "CEL", "condition": condition, "celExpressions": [expression]});
    let list = "[1,2,3,4,5,6,7,8,9,10]";
    let away = format!(
        "{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, {list}.all(e, {list}.all(f, true))))))"
    );
    let rules = json!({"conditionRules": [rule("Unparsed", "object.data. =="), rule("NoBool", "1 + 1"),
            rule("Away", &away), rule("Right", "object.data.value == '1'")],
        "feedbackRules": [{"type": "JSONPaths", "jsonPaths": [{"name": "bad", "path": ".data[?("},
            {"name": "map", "path": ".data"}, {"name": "good", "path": ".data.value"}]}]});
    let ignoring = |jq: &str| {
        json!({"updateStrategy": {"type": "ServerSideApply", "serverSideApply": {"ignoreFields": [
            {"condition": "OnSpokePresent", "jqPathExpressions": [jq]}]}}})
    };
    let configs = json!({"manifestConfigs": [
        config("", "configmaps", &ns, "told", &rules),
        config("", "configmaps", &ns, "unparsed", &ignoring(".spec.containers[] | invalid syntax here")),
        config("", "configmaps", &ns, "endless", &ignoring("last(repeat(.))"))]});
    let manifests = ["told", "unparsed", "endless", "good"].map(|n| configmap(&ns, n, "1"));
    fleet
        .create(&work_with(name, "app", &manifests, &configs))
        .await?;
    let expressions = [
        (
            "Unparsed",
            "False",
            "ConditionRuleExpressionError",
            "does not compile",
        ),
        ("NoBool", "False", "ConditionRuleExpressionError", "not a bool"),
        ("Away", "False", "ConditionRuleExpressionError", "budget exceeded"),
        ("Right", "True", "ConditionRuleEvaluated", ""),
        (
            "StatusFeedbackSynced",
            "False",
            "StatusFeedbackSyncFailed",
            "is not valid",
        ),
        (
            "StatusFeedbackSynced",
            "False",
            "StatusFeedbackSyncFailed",
            "is no integer, string or boolean",
        ),
        ("Applied", "True", "AppliedManifestComplete", ""),
    ];
    for told in expressions {
        until_manifest(&fleet, name, "app", "told", told).await?;
    }
    let jq = "AppliedManifestSSAIgnoreFieldError";
    until_manifest(
        &fleet,
        name,
        "app",
        "unparsed",
        ("Applied", "False", jq, "jq path"),
    )
    .await?;
    until_manifest(
        &fleet,
        name,
        "app",
        "endless",
        ("Applied", "False", jq, "must not use"),
    )
    .await?;
    let found = until_manifest(
        &fleet,
        name,
        "app",
        "good",
        ("Applied", "True", "AppliedManifestComplete", ""),
    )
    .await?;
    assert_eq!(feedback(&found, "told", "good"), Some(json!("1")));
    assert!(spoke.find(&configmap_path(&ns, "unparsed")).await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_that_is_too_long_is_told_and_the_rest_is_there() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    fleet.clusters[0]
        .options
        .feature_gates
        .push("RawFeedbackJsonString=true".into());
    fleet.clusters[0].options.max_json_raw_length = 40;
    fleet.clusters[0].start();
    fleet.until_available().await?;
    let (name, ns) = (fleet.clusters[0].name.clone(), fleet.clusters[0].namespace());
    let rules = json!({"feedbackRules": [{"type": "JSONPaths", "jsonPaths": [
        {"name": "long", "path": ".data"}, {"name": "short", "path": ".metadata.labels"}]}]});
    let mut map = configmap(&ns, "told", &"x".repeat(100));
    map["metadata"]["labels"] = json!({"a": "b"});
    let configs = json!({"manifestConfigs": [config("", "configmaps", &ns, "told", &rules)]});
    let configs = {
        let mut configs = configs;
        configs["manifestConfigs"][0]["updateStrategy"] = json!({"type": "ReadOnly"});
        configs
    };
    fleet.clusters[0]
        .kube()
        .create(&format!("/api/v1/namespaces/{ns}/configmaps"), &map)
        .await?;
    fleet.create(&work_with(&name, "app", &[map], &configs)).await?;
    let told = (
        "StatusFeedbackSynced",
        "False",
        "StatusFeedbackSyncFailed",
        "40 are allowed",
    );
    let found = until_manifest(&fleet, &name, "app", "told", told).await?;
    assert_eq!(feedback(&found, "told", "short"), Some(json!(r#"{"a":"b"}"#)));
    assert_eq!(feedback(&found, "told", "long"), None);
    assert_eq!(manifest_condition(&found, "told", "Applied").0, "True");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leaves_no_room_for_a_record_is_told() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (&cluster.name, cluster.namespace());
    let long = "w".repeat(189);
    fleet
        .create(&work(name, &long, &[configmap(&ns, "settings", "1")]))
        .await?;
    fleet
        .until_work(name, &long, "it is told", |found| {
            match condition_in(&found["status"]["conditions"], "Applied") {
                Some(("False", message)) if message.contains("188 are allowed") => Ok(()),
                other => Err(format!("Applied is {other:?}")),
            }
        })
        .await?;
    fleet.kube().delete(&work_path(name, &long)).await?;
    fleet.kube().until_gone(&work_path(name, &long), SOON).await
}
