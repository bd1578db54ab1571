//! Works that are applied on behalf of a service account: what it may not do is not done for it (wire §3.6).

use crate::Result;
use muster_tests::objects::{condition_in, configmap, configmap_path, manifest_status, work_with};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, Kube};
use serde_json::{Value, json};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const ACCOUNT: &str = "deployer";

/// A fleet of one whose klusterlet has these gates.
async fn with_gates(gates: &[&str]) -> anyhow::Result<Fleet> {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    fleet.clusters[0].options.feature_gates = gates.iter().map(|gate| format!("{gate}=true")).collect();
    fleet.clusters[0].start();
    fleet.until_available().await?;
    Ok(fleet)
}

/// A work on behalf of the account.
fn executed(cluster: &str, namespace: &str, name: &str, manifests: &[Value], more: &Value) -> Value {
    let mut spec = json!({"executor": {"subject": {"type": "ServiceAccount",
        "serviceAccount": {"namespace": namespace, "name": ACCOUNT}}}});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    work_with(cluster, name, manifests, &spec)
}

fn role(namespace: &str, name: &str, rules: &Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": name, "namespace": namespace}, "rules": rules})
}

fn rule(groups: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [groups], "resources": resources, "verbs": verbs})
}

/// Gives the account a role with these rules, or changes it.
async fn allow(kube: &Kube, namespace: &str, rules: &Value) -> Result {
    let roles = format!("{RBAC}/namespaces/{namespace}/roles");
    let path = format!("{roles}/{ACCOUNT}");
    if kube.find(&path).await?.is_some() {
        kube.merge(&path, &json!({ "rules": rules })).await?;
        return Ok(());
    }
    kube.create(&roles, &role(namespace, ACCOUNT, rules)).await?;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": ACCOUNT, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}]});
    kube.create(&format!("{RBAC}/namespaces/{namespace}/rolebindings"), &binding)
        .await?;
    Ok(())
}

/// Waits until a manifest is not applied, and its condition mentions all of these.
async fn refused(fleet: &Fleet, work: &str, manifest: &str, mentions: &[&str]) -> Result {
    fleet
        .until_work(&fleet.clusters[0].name, work, "it is refused", |work| {
            let status = manifest_status(work, manifest).ok_or("no status")?;
            match condition_in(&status["conditions"], "Applied") {
                Some(("False", message)) if mentions.iter().all(|m| message.contains(m)) => Ok(()),
                other => Err(format!("{manifest}: {other:?}, without {mentions:?}")),
            }
        })
        .await
        .map(drop)
}

const CONFIGMAPS: [&str; 1] = ["configmaps"];

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_needs_every_right_and_what_changes_counts_at_once() -> Result {
    let fleet = with_gates(&["ExecutorValidatingCaches"]).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let owned = [configmap(&ns, "owned", "1"), configmap(&ns, "beside", "1")];
    fleet
        .create(&executed(name, &ns, "owned", &owned, &json!({})))
        .await?;
    let orphan = json!({"deleteOption": {"propagationPolicy": "Orphan"}});
    let orphaned = [configmap(&ns, "orphaned", "1")];
    fleet
        .create(&executed(name, &ns, "orphaned", &orphaned, &orphan))
        .await?;
    for (work, manifest) in [("owned", "owned"), ("owned", "beside"), ("orphaned", "orphaned")] {
        let account = format!("{ns}/{ACCOUNT}");
        refused(
            &fleet,
            work,
            manifest,
            &["not allowed to apply the resource", &account, "may not create it"],
        )
        .await?;
    }
    assert!(spoke.find(&configmap_path(&ns, "owned")).await?.is_none());

    // All but one of the verbs, of each the one that is missing.
    let all = ["create", "update", "patch", "get", "delete"];
    for missing in all {
        let verbs: Vec<&str> = all.into_iter().filter(|verb| *verb != missing).collect();
        allow(&spoke, &ns, &json!([rule("", &CONFIGMAPS, &verbs)])).await?;
        refused(&fleet, "owned", "owned", &[&format!("may not {missing} it")]).await?;
    }
    // To delete is needed only of what goes with the work.
    fleet.until_applied(name, "orphaned").await?;

    // Only one object of the work.
    let mut one = rule("", &CONFIGMAPS, &all);
    one["resourceNames"] = json!(["owned"]);
    allow(&spoke, &ns, &json!([one])).await?;
    refused(&fleet, "owned", "beside", &["may not"]).await?;

    allow(&spoke, &ns, &json!([rule("", &CONFIGMAPS, &all)])).await?;
    fleet.until_applied(name, "owned").await?;
    // Taken away again: what is there stays, and is not written any more.
    allow(&spoke, &ns, &json!([rule("", &CONFIGMAPS, &["get"])])).await?;
    refused(&fleet, "owned", "owned", &["may not"]).await?;
    let binding = format!("{RBAC}/namespaces/{ns}/rolebindings/{ACCOUNT}");
    allow(&spoke, &ns, &json!([rule("", &CONFIGMAPS, &all)])).await?;
    fleet.until_applied(name, "owned").await?;
    spoke.delete(&binding).await?;
    refused(&fleet, "owned", "owned", &["may not"]).await?;
    spoke.get(&configmap_path(&ns, "owned")).await?;
    // The work goes all the same when the hub wants it gone: that is the hub's order, not the executor's.
    fleet
        .kube()
        .delete(&muster_tests::objects::work_path(name, "owned"))
        .await?;
    spoke.until_gone(&configmap_path(&ns, "owned"), SOON).await
}

/// As klusterlets are without the gate: nothing is remembered, and what is not allowed is tried again when the work changes or
/// a minute has passed.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_needs_every_right_also_where_nothing_is_remembered() -> Result {
    let fleet = with_gates(&[]).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let maps = |value: &str| [configmap(&ns, "one", value), configmap(&ns, "two", value)];
    fleet
        .create(&executed(name, &ns, "app", &maps("0"), &json!({})))
        .await?;
    let account = format!("{ns}/{ACCOUNT}");
    refused(
        &fleet,
        "app",
        "one",
        &["not allowed to apply the resource", &account, "may not"],
    )
    .await?;
    assert!(spoke.find(&configmap_path(&ns, "one")).await?.is_none());

    // What is there when each right is missing, and that each is asked for by its name.
    let all = ["create", "update", "patch", "get", "delete"];
    for (number, missing) in all.into_iter().enumerate() {
        let verbs: Vec<&str> = all.into_iter().filter(|verb| *verb != missing).collect();
        allow(&spoke, &ns, &json!([rule("", &CONFIGMAPS, &verbs)])).await?;
        until_may(&spoke, &ns, missing, false).await?;
        fleet
            .set_manifests(name, "app", &maps(&number.to_string()))
            .await?;
        for map in ["one", "two"] {
            refused(&fleet, "app", map, &[&format!("may not {missing} it")]).await?;
        }
    }
    assert!(spoke.find(&configmap_path(&ns, "one")).await?.is_none());

    // To delete is not needed of what outlives the work, and is of the rest.
    let some = json!({"spec": {"deleteOption": {"propagationPolicy": "SelectivelyOrphan", "selectivelyOrphans": {
        "orphaningRules": [{"group": "", "resource": "configmaps", "namespace": ns, "name": "one"}]}}}});
    let path = muster_tests::objects::work_path(name, "app");
    fleet.kube().merge(&path, &some).await?;
    spoke.until_there(&configmap_path(&ns, "one"), SOON).await?;
    refused(&fleet, "app", "two", &["may not delete it"]).await?;
    let one = spoke.get(&configmap_path(&ns, "one")).await?;
    assert!(one["metadata"]["ownerReferences"].is_null(), "{one}");
    assert!(spoke.find(&configmap_path(&ns, "two")).await?.is_none());
    let orphan =
        json!({"spec": {"deleteOption": {"propagationPolicy": "Orphan", "selectivelyOrphans": null}}});
    fleet.kube().merge(&path, &orphan).await?;
    fleet.until_applied(name, "app").await?;

    // With the right, they are the work's again, and go with it.
    allow(&spoke, &ns, &json!([rule("", &CONFIGMAPS, &all)])).await?;
    until_may(&spoke, &ns, "delete", true).await?;
    let own = json!({"spec": {"deleteOption": {"propagationPolicy": "Foreground"}}});
    fleet.kube().merge(&path, &own).await?;
    fleet.until_applied(name, "app").await?;
    fleet.set_manifests(name, "app", &maps("last")).await?;
    fleet.until_applied(name, "app").await?;
    assert_eq!(
        spoke.get(&configmap_path(&ns, "two")).await?["data"]["value"],
        "last"
    );
    // Everything taken away, what is there stays as it is, and is not written.
    allow(&spoke, &ns, &json!([])).await?;
    until_may(&spoke, &ns, "get", false).await?;
    fleet.set_manifests(name, "app", &maps("never")).await?;
    refused(&fleet, "app", "one", &["may not"]).await?;
    assert_eq!(
        spoke.get(&configmap_path(&ns, "one")).await?["data"]["value"],
        "last"
    );
    fleet.kube().delete(&path).await?;
    for map in ["one", "two"] {
        spoke.until_gone(&configmap_path(&ns, map), SOON).await?;
    }
    Ok(())
}

/// Waits until the API server itself says that the account may do this with ConfigMaps, or may not: its own knowledge of roles
/// lags behind.
async fn until_may(spoke: &Kube, namespace: &str, verb: &str, may: bool) -> Result {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": format!("system:serviceaccount:{namespace}:{ACCOUNT}"),
        "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
        "resourceAttributes": {"verb": verb, "group": "", "version": "v1", "resource": "configmaps",
            "namespace": namespace, "name": "one"}}});
    muster_tests::eventually(SOON, "the server knows the role", async || {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = spoke.create(path, &review).await.map_err(|e| e.to_string())?;
        (answer["status"]["allowed"] == may)
            .then_some(())
            .ok_or_else(|| answer["status"].to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_gives_no_rights_that_it_does_not_have() -> Result {
    let fleet = with_gates(&["ExecutorValidatingCaches"]).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let all = ["create", "update", "patch", "get", "delete"];
    let roles = ["roles", "rolebindings"];
    let giving = rule("rbac.authorization.k8s.io", &roles, &all);
    allow(&spoke, &ns, &json!([giving, rule("", &CONFIGMAPS, &["get"])])).await?;
    let modest = role(&ns, "modest", &json!([rule("", &CONFIGMAPS, &["get"])]));
    let greedy = role(&ns, "greedy", &json!([rule("", &["secrets"], &["*"])]));
    let bound = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "bound", "namespace": ns},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": ns}]});
    fleet
        .create(&executed(
            name,
            &ns,
            "rights",
            &[modest, greedy, bound],
            &json!({}),
        ))
        .await?;
    refused(
        &fleet,
        "rights",
        "greedy",
        &["not allowed to apply the resource", "secrets"],
    )
    .await?;
    refused(&fleet, "rights", "bound", &["not allowed to apply the resource"]).await?;
    let role_path = |role: &str| format!("{RBAC}/namespaces/{ns}/roles/{role}");
    spoke.until_there(&role_path("modest"), SOON).await?;
    assert!(spoke.find(&role_path("greedy")).await?.is_none());

    // One that is there already may not be made more of either.
    let patch = json!({"spec": {"workload": {"manifests": [
        role(&ns, "modest", &json!([rule("", &CONFIGMAPS, &["get", "delete"])]))]}}});
    fleet
        .kube()
        .merge(&muster_tests::objects::work_path(name, "rights"), &patch)
        .await?;
    refused(&fleet, "rights", "modest", &["not allowed to apply the resource"]).await?;
    let kept = spoke.get(&role_path("modest")).await?;
    assert_eq!(kept["rules"][0]["verbs"], json!(["get"]));
    // Whoever has it may give it.
    let giving = rule("rbac.authorization.k8s.io", &roles, &all);
    allow(
        &spoke,
        &ns,
        &json!([giving, rule("", &CONFIGMAPS, &["get", "delete"])]),
    )
    .await?;
    fleet.until_applied(name, "rights").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_impersonation_the_executor_itself_writes() -> Result {
    let fleet = with_gates(&["ExecutorValidatingCaches", "ExecutorImpersonation"]).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    // A policy that lets nobody else touch what is guarded.
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let guard = format!("guard-{ns}");
    let user = format!("system:serviceaccount:{ns}:{ACCOUNT}");
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": guard}, "spec": {"failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns}},
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                    "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}]},
            "validations": [{"expression": format!("object.metadata.name == 'kube-root-ca.crt' || request.userInfo.username == '{user}'"),
                "message": "guarded"}]}});
    spoke.create(policies, &policy).await?;
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": guard}, "spec": {"policyName": guard, "validationActions": ["Deny"]}});
    spoke
        .create(&policies.replace("policies", "policybindings"), &binding)
        .await?;
    muster_tests::eventually(SOON, "the policy is in force", async || {
        let try_it = configmap(&ns, "somebody", "1");
        match spoke
            .create(&format!("/api/v1/namespaces/{ns}/configmaps?dryRun=All"), &try_it)
            .await
        {
            Err(refused) if refused.message.contains("guarded") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    fleet
        .create(&muster_tests::objects::work(
            name,
            "agents",
            &[configmap(&ns, "agents", "1")],
        ))
        .await?;
    refused(&fleet, "agents", "agents", &["guarded"]).await?;
    allow(
        &spoke,
        &ns,
        &json!([rule(
            "",
            &CONFIGMAPS,
            &["create", "update", "patch", "get", "delete"]
        )]),
    )
    .await?;
    fleet
        .create(&executed(
            name,
            &ns,
            "executed",
            &[configmap(&ns, "executed", "1")],
            &json!({}),
        ))
        .await?;
    fleet.until_applied(name, "executed").await?;
    fleet
        .set_manifests(name, "executed", &[configmap(&ns, "executed", "2")])
        .await?;
    fleet.until_applied(name, "executed").await?;
    let live = spoke.get(&configmap_path(&ns, "executed")).await?;
    assert_eq!(live["data"]["value"], "2");
    // On shared control planes it is nobody else's.
    spoke.delete(&format!("{policies}/{guard}")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_executor_may_not_see_is_not_told_to_the_hub() -> Result {
    let fleet = with_gates(&["ExecutorValidatingCaches"]).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let collection = format!("/api/v1/namespaces/{ns}/configmaps");
    spoke
        .create(&collection, &configmap(&ns, "theirs", "hidden"))
        .await?;
    let tells = |object: &str| {
        json!({"resourceIdentifier": {"group": "", "resource": "configmaps", "namespace": ns, "name": object},
        "feedbackRules": [{"type": "JSONPaths", "jsonPaths": [{"name": "value", "path": ".data.value"}]}],
        "conditionRules": [{"type": "CEL", "condition": "Told", "celExpressions": ["true"],
            "messageExpression": "object.data.value"}]})
    };
    let more = json!({"manifestConfigs": [tells("theirs")]});
    let theirs = [configmap(&ns, "theirs", "1")];
    fleet.create(&executed(name, &ns, "nosy", &theirs, &more)).await?;
    refused(&fleet, "nosy", "theirs", &["may not create it"]).await?;
    let silent = |work: &Value| {
        let status = work["status"].to_string();
        if status.contains("hidden") {
            return Err(status);
        }
        let told = manifest_status(work, "theirs").ok_or("no status")?;
        match condition_in(&told["conditions"], "StatusFeedbackSynced") {
            Some(("False", message)) if message.contains("the executor may not get the object") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    fleet.until_work(name, "nosy", "nothing is told", silent).await?;
    // It may look, and no more: then it is told what it sees.
    allow(&spoke, &ns, &json!([rule("", &CONFIGMAPS, &["get"])])).await?;
    fleet
        .until_work(name, "nosy", "it is told", |work| {
            let value = muster_tests::objects::feedback(work, "theirs", "value");
            value.map(drop).ok_or_else(|| work["status"].to_string())
        })
        .await?;
    refused(&fleet, "nosy", "theirs", &["may not create it"]).await
}
