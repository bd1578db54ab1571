//! Admission: what is completed and refused of ManagedClusters, ManagedClusterSetBindings and ManifestWorks, by whom, and
//! what holds when the hub is away.

use crate::Result;
use anyhow::Context as _;
use muster_crds::constants::{admission, labels, names};
use muster_hub::admission::Lives;
use muster_hub::{Feature, FeatureGate, HubOptions};
use muster_tests::control_plane::EXTERNAL;
use muster_tests::kube::Refused;
use muster_tests::objects::{
    CLUSTERS, REPLICA_SET_WEBHOOKS, WEBHOOKS, cluster_path, configmap, namespace, work, work_path, work_with,
    works_path,
};
use muster_tests::wait::{SOON, eventually};
use muster_tests::{Fleet, FleetOptions, Kube};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const ROLE_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
const SETS: &str = "/apis/cluster.open-cluster-management.io/v1beta2/managedclustersets";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const LONG_AGO: &str = "2020-01-01T00:00:00Z";

/// What every user of these tests may do: write the kinds, and nothing that rules ask for.
fn writes() -> Vec<Value> {
    vec![
        json!({"apiGroups": ["cluster.open-cluster-management.io"], "verbs": ["*"],
            "resources": ["managedclusters", "managedclustersetbindings"]}),
        json!({"apiGroups": ["work.open-cluster-management.io"], "resources": ["manifestworks"],
            "verbs": ["create", "get", "update", "patch", "delete"]}),
        json!({"apiGroups": ["work.open-cluster-management.io"], "resources": ["manifestworkreplicasets"],
            "verbs": ["create", "get", "update", "patch", "delete"]}),
    ]
}

fn accept() -> Value {
    json!({"apiGroups": ["register.open-cluster-management.io"], "resources": ["managedclusters/accept"], "verbs": ["update"]})
}

fn on_set(verb: &str, set: &str) -> Value {
    json!({"apiGroups": ["cluster.open-cluster-management.io"], "resources": [format!("managedclustersets/{verb}")],
        "resourceNames": [set], "verbs": ["create"]})
}

fn execute_as(account: &str) -> Value {
    json!({"apiGroups": ["work.open-cluster-management.io"], "resources": ["manifestworks"],
        "resourceNames": [format!("system:serviceaccount:{account}")], "verbs": ["execute-as"]})
}

/// Somebody's cluster does not reach the webhook of this process.
fn skipped() -> bool {
    let skipped = std::env::var_os(EXTERNAL).is_some();
    if skipped {
        eprintln!("skipped: the cluster of {EXTERNAL} does not reach a webhook of this process");
    }
    skipped
}

/// A name that nobody else has on a shared control plane.
fn unique(what: &str) -> String {
    format!("{what}-{:08x}", rand::random::<u32>())
}

struct Hub {
    fleet: Fleet,
    admin: Kube,
}

impl Hub {
    async fn start(options: HubOptions) -> anyhow::Result<Self> {
        Self::with(options, true).await
    }

    async fn with(hub: HubOptions, webhook: bool) -> anyhow::Result<Self> {
        let nil = hub.gates().enabled(Feature::NilExecutorValidating);
        let fleet = Fleet::prepare(FleetOptions {
            clusters: 0,
            auto_approve: false,
            webhook,
            hub,
            ..FleetOptions::default()
        })
        .await?;
        let admin = fleet.kube();
        let this = Self { fleet, admin };
        this.until_held(webhook, nil).await?;
        Ok(this)
    }

    /// Waits until the server holds webhook and policies as this hub wants them: a kube-apiserver learns of them a moment
    /// later, and shared ones had another hub before.
    async fn until_held(&self, webhook: bool, nil: bool) -> Result {
        let spec = json!({"taints": [{"key": "try", "effect": "NoSelect"}]});
        let try_cluster = cluster(&unique("try"), &Value::Null, &spec);
        let dry = format!("{CLUSTERS}?dryRun=All");
        eventually(SOON, "the webhook is asked, or not", async || {
            let made = self
                .admin
                .create(&dry, &try_cluster)
                .await
                .map_err(|e| e.to_string())?;
            let timed = made["spec"]["taints"][0]["timeAdded"].is_string();
            (timed == webhook)
                .then_some(())
                .ok_or_else(|| made["spec"].to_string())
        })
        .await?;
        let user = self.user(&[]).await?;
        let try_work = work("default", &unique("try"), &[configmap("default", "a", "1")]);
        let dry = format!("{}?dryRun=All", works_path("default"));
        eventually(SOON, "the policies are this hub's", async || {
            match user.create(&dry, &try_work).await {
                Err(refused) if nil && refused.code == 400 => Ok(()),
                Ok(_) if !nil => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// A user with these rights, once the server knows of them.
    async fn user(&self, rules: &[Value]) -> anyhow::Result<Kube> {
        let user = unique("user");
        let all: Vec<Value> = writes().into_iter().chain(rules.iter().cloned()).collect();
        self.admin
            .create(ROLES, &json!({"metadata": {"name": user}, "rules": all}))
            .await?;
        let binding = json!({
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        self.admin.create(ROLE_BINDINGS, &binding).await?;
        let kube = Kube::impersonating(
            self.fleet.hub.plane.kubeconfig(),
            &user,
            &["system:authenticated"],
        )
        .await?;
        for rule in &all {
            let (resource, subresource) = {
                let resource = rule["resources"][0].as_str().unwrap_or_default();
                resource.split_once('/').unwrap_or((resource, ""))
            };
            let verb = rule["verbs"][0].as_str().unwrap_or_default();
            let ask = json!({"spec": {"resourceAttributes": {"group": rule["apiGroups"][0], "resource": resource,
                "subresource": subresource, "name": rule["resourceNames"][0].as_str().unwrap_or_default(),
                "verb": if verb == "*" { "create" } else { verb }}}});
            let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
            eventually(SOON, &format!("{user} has its rights"), async || {
                let answer = kube.create(review, &ask).await.map_err(|e| e.to_string())?;
                (answer["status"]["allowed"] == true)
                    .then_some(())
                    .ok_or_else(|| answer.to_string())
            })
            .await?;
        }
        Ok(kube)
    }

    /// A namespace for works or bindings.
    async fn namespace(&self, what: &str) -> anyhow::Result<String> {
        let name = unique(what);
        self.admin.create("/api/v1/namespaces", &namespace(&name)).await?;
        Ok(name)
    }
}

fn cluster(name: &str, labels: &Value, spec: &Value) -> Value {
    json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {"name": name, "labels": labels}, "spec": spec})
}

fn in_set(set: &str) -> Value {
    json!({labels::CLUSTER_SET: set})
}

/// That a write was refused, with this code and reason, and in these words.
fn refused(answer: std::result::Result<Value, Refused>, code: u16, reason: &str, words: &str) -> Result {
    match answer {
        Ok(object) => anyhow::bail!("not refused ({words}): {object}"),
        Err(refused) => {
            anyhow::ensure!(
                refused.code == code && refused.reason == reason && refused.message.contains(words),
                "refused otherwise than {code} {reason} {words}: {refused}"
            );
            Ok(())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn taints_get_their_time_from_the_webhook() -> Result {
    if skipped() {
        return Ok(());
    }
    let hub = Hub::start(HubOptions::default()).await?;
    let name = unique("taints");
    let user = hub.user(&[on_set("join", "default")]).await?;
    let taint = |key: &str, value: &str, time: Option<&str>| {
        let mut taint = json!({"key": key, "value": value, "effect": "NoSelect"});
        if let Some(time) = time {
            taint["timeAdded"] = time.into();
        }
        taint
    };
    let path = cluster_path(&name);
    let find = |object: &Value, key: &str| {
        let taints = object["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.into_iter().find(|taint| taint["key"] == key)
    };
    let time_of = |object: &Value, key: &str| -> anyhow::Result<String> {
        let taint = find(object, key).with_context(|| format!("{key} is not among {}", object["spec"]))?;
        Ok(taint["timeAdded"].as_str().context("no timeAdded")?.to_owned())
    };

    // Whatever a new cluster says of its times; and it is in the default set.
    let made = user
        .create(
            CLUSTERS,
            &cluster(
                &name,
                &Value::Null,
                &json!({"taints": [taint("a", "1", Some(LONG_AGO))]}),
            ),
        )
        .await?;
    let first = time_of(&made, "a")?;
    assert_ne!(first, LONG_AGO);
    assert_eq!(made["metadata"]["labels"][labels::CLUSTER_SET], "default");

    // The hub's own taint has a time too, and is written once.
    let own = "cluster.open-cluster-management.io/unreachable";
    let settled = hub
        .admin
        .until(&path, SOON, "the hub's taint", |cluster| {
            let cluster = cluster.ok_or("it is gone")?;
            time_of(cluster, own).map_err(|e| e.to_string())?;
            Ok(cluster.clone())
        })
        .await?;
    assert_eq!(time_of(&settled, "a")?, first, "what was there keeps its time");

    let write = async |change: &dyn Fn(&mut Vec<Value>)| {
        let mut object = hub.admin.get(&path).await?;
        let mut taints = object["spec"]["taints"].as_array().cloned().unwrap_or_default();
        change(&mut taints);
        object["spec"]["taints"] = taints.into();
        user.replace(&path, &object).await
    };
    let denied = "admission webhook \"managedclustermutators.admission.cluster.open-cluster-management.io\" denied the \
                  request: It is not allowed to set TimeAdded of Taint";
    let with_time = |taints: &mut Vec<Value>| taints.push(taint("b", "", Some(LONG_AGO)));
    refused(
        write(&with_time).await,
        400,
        "BadRequest",
        &format!("{denied} \"b\"."),
    )?;
    let two = |taints: &mut Vec<Value>| {
        taints.push(taint("b", "", Some(LONG_AGO)));
        taints.push(taint("c", "", Some(LONG_AGO)));
    };
    refused(
        write(&two).await,
        400,
        "BadRequest",
        &format!("{denied} \"b,c\"."),
    )?;
    for time in [json!(LONG_AGO), Value::Null] {
        let another = |taints: &mut Vec<Value>| {
            for taint in taints.iter_mut().filter(|taint| taint["key"] == "a") {
                taint["timeAdded"] = time.clone();
            }
        };
        refused(
            write(&another).await,
            400,
            "BadRequest",
            &format!("{denied} \"a\"."),
        )?;
    }
    let changed = |taints: &mut Vec<Value>| {
        taints.retain(|taint| taint["key"] != "a");
        taints.push(taint("a", "2", None));
        taints.push(taint("b", "", None));
    };
    let after = write(&changed).await?;
    time_of(&after, "a")?;
    time_of(&after, "b")?;
    let gone = |taints: &mut Vec<Value>| taints.retain(|taint| taint["key"] != "b");
    assert!(find(&write(&gone).await?, "b").is_none());
    hub.admin.delete(&path).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_are_let_in_and_put_into_sets_by_who_may() -> Result {
    if skipped() {
        return Ok(());
    }
    let hub = Hub::start(HubOptions::default()).await?;
    let set = unique("set");
    let kind =
        json!({"apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSet"});
    let mut object = kind.clone();
    object["metadata"] = json!({"name": set});
    hub.admin.create(SETS, &object).await?;
    let nobody = hub.user(&[on_set("join", "default")]).await?;
    let joins = hub
        .user(&[on_set("join", "default"), on_set("join", &set)])
        .await?;
    let accepts = hub.user(&[on_set("join", "default"), accept()]).await?;

    for url in ["http://a:6443", "a"] {
        let spec = json!({"managedClusterClientConfigs": [{"url": url}]});
        let answer = nobody
            .create(CLUSTERS, &cluster(&unique("c"), &Value::Null, &spec))
            .await;
        // Word by word what OCM's own tests ask for.
        let answer = answer.expect_err("it is refused");
        assert_eq!(
            (answer.code, answer.reason.as_str(), answer.message),
            (
                400,
                "BadRequest",
                format!(
                    "admission webhook \"{}\" denied the request: url \"{url}\" is invalid in client configs",
                    admission::CLUSTER_VALIDATORS
                )
            )
        );
    }
    let answer = nobody
        .create(
            CLUSTERS,
            &cluster(&format!("{}.b", unique("c")), &Value::Null, &json!({})),
        )
        .await;
    refused(answer, 400, "BadRequest", "metadata.name format is not correct")?;

    let open = json!({"hubAcceptsClient": true});
    let no_accept = "cannot update the HubAcceptsClient field";
    let name = unique("c");
    refused(
        nobody
            .create(CLUSTERS, &cluster(&name, &Value::Null, &open))
            .await,
        403,
        "Forbidden",
        no_accept,
    )?;
    nobody
        .create(CLUSTERS, &cluster(&name, &Value::Null, &json!({})))
        .await?;
    let path = cluster_path(&name);
    refused(
        nobody.merge(&path, &json!({"spec": open})).await,
        403,
        "Forbidden",
        no_accept,
    )?;
    accepts.merge(&path, &json!({"spec": open})).await?;
    // Who may not let it in may change the rest, and shut it out.
    nobody
        .merge(&path, &json!({"metadata": {"annotations": {"note": "x"}}}))
        .await?;
    nobody
        .merge(&path, &json!({"spec": {"hubAcceptsClient": false}}))
        .await?;

    let no_join =
        |set: &str| format!("cannot add/remove a ManagedCluster to/from ManagedClusterSet \"{set}\"");
    let other = unique("c");
    let answer = nobody
        .create(CLUSTERS, &cluster(&other, &in_set(&set), &json!({})))
        .await;
    refused(answer, 403, "Forbidden", &no_join(&set))?;
    joins
        .create(CLUSTERS, &cluster(&other, &in_set(&set), &json!({})))
        .await?;
    let move_to = |set: Value| json!({"metadata": {"labels": {labels::CLUSTER_SET: set}}});
    let other = cluster_path(&other);
    refused(
        nobody.merge(&other, &move_to(json!("default"))).await,
        403,
        "Forbidden",
        &no_join(&set),
    )?;
    refused(
        nobody.merge(&path, &move_to(json!(set))).await,
        403,
        "Forbidden",
        &no_join(&set),
    )?;
    // Without a set it is in the default one.
    let moved = joins.merge(&other, &move_to(Value::Null)).await?;
    assert_eq!(moved["metadata"]["labels"][labels::CLUSTER_SET], "default");
    let moved = joins.merge(&other, &move_to(json!(""))).await?;
    assert_eq!(moved["metadata"]["labels"][labels::CLUSTER_SET], "default");
    let stranger = hub.user(&[]).await?;
    let answer = stranger
        .create(CLUSTERS, &cluster(&unique("c"), &Value::Null, &json!({})))
        .await;
    refused(answer, 403, "Forbidden", &no_join("default"))?;
    for path in [path, other, format!("{SETS}/{set}")] {
        hub.admin.delete(&path).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_namespace_is_going_is_not_let_in() -> Result {
    if skipped() {
        return Ok(());
    }
    let hub = Hub::start(HubOptions::default()).await?;
    let accepts = hub.user(&[on_set("join", "default"), accept()]).await?;
    let name = hub.namespace("going").await?;
    let namespace = format!("/api/v1/namespaces/{name}");
    let map = json!({"metadata": {"name": "holds", "finalizers": ["example.com/holds"]}});
    hub.admin.create(&format!("{namespace}/configmaps"), &map).await?;
    hub.admin.delete(&namespace).await?;
    let open = json!({"hubAcceptsClient": true});
    let words = format!(
        "admission webhook \"{}\" denied the request: managedclusters/accept.cluster.open-cluster-management.io \
         \"{name}\" is forbidden: cluster namespace \"{name}\" is terminating",
        admission::CLUSTER_VALIDATORS
    );
    refused(
        accepts
            .create(CLUSTERS, &cluster(&name, &Value::Null, &open))
            .await,
        403,
        "Forbidden",
        &words,
    )?;
    accepts
        .create(CLUSTERS, &cluster(&name, &Value::Null, &json!({})))
        .await?;
    let path = cluster_path(&name);
    refused(
        accepts.merge(&path, &json!({"spec": open})).await,
        403,
        "Forbidden",
        &words,
    )?;
    hub.admin
        .merge(
            &format!("{namespace}/configmaps/holds"),
            &json!({"metadata": {"finalizers": null}}),
        )
        .await?;
    hub.admin.until_gone(&namespace, SOON).await?;
    accepts.merge(&path, &json!({"spec": open})).await?;
    hub.admin.delete(&path).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bindings_are_named_like_their_set_and_made_by_who_may_bind_it() -> Result {
    if skipped() {
        return Ok(());
    }
    let hub = Hub::start(HubOptions::default()).await?;
    let (set, namespace) = (unique("set"), hub.namespace("bind").await?);
    let (nobody, binds) = (hub.user(&[]).await?, hub.user(&[on_set("bind", &set)]).await?);
    let bindings = format!(
        "/apis/cluster.open-cluster-management.io/v1beta2/namespaces/{namespace}/managedclustersetbindings"
    );
    let binding = |name: &str, set: &str| {
        json!({"apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSetBinding",
            "metadata": {"name": name}, "spec": {"clusterSet": set}})
    };
    let other = "The ManagedClusterSetBinding must have the same name as the target ManagedClusterSet";
    refused(
        binds.create(&bindings, &binding("other", &set)).await,
        400,
        "BadRequest",
        other,
    )?;
    let words = format!("is not allowed to bind cluster set \"{set}\"");
    refused(
        nobody.create(&bindings, &binding(&set, &set)).await,
        403,
        "Forbidden",
        &words,
    )?;
    binds.create(&bindings, &binding(&set, &set)).await?;
    let path = format!("{bindings}/{set}");
    nobody
        .merge(&path, &json!({"metadata": {"labels": {"a": "b"}}}))
        .await?;
    refused(
        binds
            .merge(&path, &json!({"spec": {"clusterSet": "other"}}))
            .await,
        400,
        "BadRequest",
        other,
    )?;
    hub.admin
        .delete(&format!("/api/v1/namespaces/{namespace}"))
        .await?;
    Ok(())
}

fn large(name: &str, bytes: usize) -> Value {
    configmap("default", name, &"x".repeat(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn works_have_manifests_each_once_and_not_too_large() -> Result {
    if skipped() {
        return Ok(());
    }
    let mut options = HubOptions::default();
    options.webhook.manifest_limit = 20_000;
    let hub = Hub::start(options).await?;
    let ns = hub.namespace("works").await?;
    let (user, works) = (hub.user(&[]).await?, works_path(&ns));
    let map = |name: &str| configmap("default", name, "1");
    let unnamed = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "default"}});
    let generated = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "a", "generateName": "a-", "namespace": "default"}});
    let by_webhook = format!(
        "admission webhook \"{}\" denied the request: ",
        admission::WORK_VALIDATORS
    );
    let wrong = [
        (vec![], "denied the request: manifests should not be empty"),
        (
            vec![map("a"), unnamed],
            "denied the request: name must be set in manifest",
        ),
        (
            vec![generated],
            "denied the request: generateName must not be set in manifest",
        ),
        (
            vec![map("a"), map("b"), map("a")],
            "request: duplicate manifest for resource default/a with resource type v1.ConfigMap",
        ),
        (
            vec![large("a", 10_000), large("b", 10_000)],
            "bytes which exceeds the 20000 limit",
        ),
    ];
    user.create(&works, &work(&ns, "right", &[map("a"), map("b")]))
        .await?;
    user.create(&works, &work(&ns, "large", &[large("a", 19_000)]))
        .await?;
    let right = work_path(&ns, "right");
    for (manifests, words) in wrong {
        let answer = user.create(&works, &work(&ns, "wrong", &manifests)).await;
        refused(answer, 400, "BadRequest", words)?;
        let answer = user
            .merge(&right, &json!({"spec": {"workload": {"manifests": manifests}}}))
            .await;
        refused(answer.clone(), 400, "BadRequest", words)?;
        refused(answer, 400, "BadRequest", &by_webhook)?;
        assert!(hub.admin.find(&work_path(&ns, "wrong")).await?.is_none());
    }
    hub.admin.delete(&format!("/api/v1/namespaces/{ns}")).await?;
    Ok(())
}

fn executor(name: &str) -> Value {
    json!({"executor": {"subject": {"type": "ServiceAccount", "serviceAccount": {"namespace": "run", "name": name}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_names_an_executor_may_execute_as_it() -> Result {
    if skipped() {
        return Ok(());
    }
    let hub = Hub::start(HubOptions::default()).await?;
    let ns = hub.namespace("executor").await?;
    let (nobody, may) = (hub.user(&[]).await?, hub.user(&[execute_as("run:a")]).await?);
    let works = works_path(&ns);
    let manifests = [configmap("default", "a", "1")];
    let with = |name: &str, account: &str| work_with(&ns, name, &manifests, &executor(account));
    let words = |account: &str| {
        format!("cannot manipulate the Manifestwork with executor run/{account} in namespace {ns}")
    };
    refused(
        nobody.create(&works, &with("w", "a")).await,
        400,
        "BadRequest",
        &words("a"),
    )?;
    refused(
        may.create(&works, &with("w", "b")).await,
        400,
        "BadRequest",
        &words("b"),
    )?;
    may.create(&works, &with("w", "a")).await?;
    // Who may not execute as it may change what it executes, as with OCM: the right is asked for with the executor.
    let path = work_path(&ns, "w");
    let manifests = json!({"spec": {"workload": {"manifests": [configmap("default", "a", "2")]}}});
    nobody.merge(&path, &manifests).await?;
    refused(
        may.merge(&path, &json!({"spec": executor("b")})).await,
        400,
        "BadRequest",
        &words("b"),
    )?;
    let nil = json!({"spec": {"executor": {"subject": {"type": "ServiceAccount", "serviceAccount": null}}}});
    refused(
        may.merge(&path, &nil).await,
        400,
        "BadRequest",
        "executor service account can not be nil",
    )?;
    nobody.merge(&path, &json!({"spec": {"executor": null}})).await?;
    nobody
        .create(&works, &work(&ns, "plain", &[configmap("default", "a", "1")]))
        .await?;
    hub.admin.delete(&format!("/api/v1/namespaces/{ns}")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn works_without_an_executor_are_checked_where_that_is_wanted() -> Result {
    if skipped() {
        return Ok(());
    }
    let hub = Hub::start(HubOptions {
        feature_gates: vec![FeatureGate {
            feature: Feature::NilExecutorValidating,
            enabled: true,
        }],
        ..HubOptions::default()
    })
    .await?;
    let ns = hub.namespace("nil").await?;
    let (nobody, may) = (
        hub.user(&[]).await?,
        hub.user(&[execute_as(":klusterlet-work-sa")]).await?,
    );
    let manifests = [configmap("default", "a", "1")];
    let answer = nobody.create(&works_path(&ns), &work(&ns, "w", &manifests)).await;
    let words =
        format!("cannot manipulate the Manifestwork with executor /klusterlet-work-sa in namespace {ns}");
    refused(answer, 400, "BadRequest", &words)?;
    may.create(&works_path(&ns), &work(&ns, "w", &manifests)).await?;
    hub.admin.delete(&format!("/api/v1/namespaces/{ns}")).await?;
    Ok(())
}

fn with_replica_sets() -> HubOptions {
    HubOptions {
        feature_gates: vec![FeatureGate {
            feature: Feature::ManifestWorkReplicaSet,
            enabled: true,
        }],
        ..HubOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_sets_are_judged_by_their_template() -> Result {
    if skipped() {
        return Ok(());
    }
    let mut hub = Hub::start(with_replica_sets()).await?;
    let ns = hub.namespace("sets").await?;
    let sets =
        format!("/apis/work.open-cluster-management.io/v1alpha1/namespaces/{ns}/manifestworkreplicasets");
    let set = |name: &str, manifests: &[Value], executor: Option<&str>| {
        let mut template = work(&ns, name, manifests)["spec"].clone();
        if let Some((namespace, name)) = executor.and_then(|executor| executor.split_once('/')) {
            template["executor"] = json!({"subject": {"type": "ServiceAccount",
                "serviceAccount": {"namespace": namespace, "name": name}}});
        }
        json!({"apiVersion": "work.open-cluster-management.io/v1alpha1", "kind": "ManifestWorkReplicaSet",
            "metadata": {"name": name}, "spec": {"placementRefs": [{"name": "p"}], "manifestWorkTemplate": template}})
    };
    let (nobody, may) = (hub.user(&[]).await?, hub.user(&[execute_as("ns:app")]).await?);
    let map = configmap("default", "a", "1");
    eventually(SOON, "replica sets are judged", async || {
        let answer = nobody
            .create(&format!("{sets}?dryRun=All"), &set("try", &[], None))
            .await;
        refused(answer, 400, "BadRequest", "manifests should not be empty").map_err(|e| e.to_string())
    })
    .await?;
    let twice = set("twice", &[map.clone(), map.clone()], None);
    refused(
        nobody.create(&sets, &twice).await,
        400,
        "BadRequest",
        "duplicate manifest for resource default/a with resource type v1.ConfigMap",
    )?;
    let executed = set("run", std::slice::from_ref(&map), Some("ns/app"));
    let words = "cannot manipulate the ManifestWorkReplicaSet with executor ns/app in all namespaces";
    refused(nobody.create(&sets, &executed).await, 400, "BadRequest", words)?;
    may.create(&sets, &executed).await?;
    let run = format!("{sets}/run");
    nobody
        .merge(&run, &json!({"metadata": {"labels": {"a": "b"}}}))
        .await?;
    nobody
        .create(&sets, &set("plain", std::slice::from_ref(&map), None))
        .await?;
    let executor = json!({"spec": {"manifestWorkTemplate": executed["spec"]["manifestWorkTemplate"]}});
    let plain = format!("{sets}/plain");
    refused(nobody.merge(&plain, &executor).await, 400, "BadRequest", words)?;
    let empty = json!({"spec": {"manifestWorkTemplate": {"workload": {"manifests": []}}}});
    refused(
        nobody.merge(&plain, &empty).await,
        400,
        "BadRequest",
        "manifests should not be empty",
    )?;
    // Without the hub the policy says it.
    for name in ["run", "plain"] {
        hub.admin.delete(&format!("{sets}/{name}")).await?;
        hub.admin.until_gone(&format!("{sets}/{name}"), SOON).await?;
    }
    hub.fleet.hub.stop().await?;
    eventually(SOON, "the policy refuses executors", async || {
        refused(nobody.create(&sets, &executed).await, 403, "Forbidden", words).map_err(|e| e.to_string())
    })
    .await?;
    may.create(&sets, &executed).await?;
    hub.admin.delete(&run).await?;
    hub.admin.delete(&format!("/api/v1/namespaces/{ns}")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_or_deleted_comes_back() -> Result {
    if skipped() {
        return Ok(());
    }
    let hub = Hub::start(with_replica_sets()).await?;
    for path in WEBHOOKS.iter().chain(&REPLICA_SET_WEBHOOKS) {
        let wanted = hub.admin.get(path).await?["webhooks"].clone();
        // What the policies hold too is only foretold.
        let foretells = wanted[0]["reinvocationPolicy"].is_string() && !path.contains("mutators.");
        assert_eq!(
            wanted[0]["failurePolicy"],
            if foretells { "Ignore" } else { "Fail" }
        );
        let back = async |what: &str| {
            let what = format!("{path} comes back after {what}");
            hub.admin
                .until(path, SOON, &what, |found| match found {
                    Some(found) if found["webhooks"] == wanted => Ok(()),
                    other => Err(format!("{other:?}")),
                })
                .await
        };
        hub.admin.delete(path).await?;
        back("its deletion").await?;
        let mut weaker = wanted.clone();
        weaker[0]["failurePolicy"] = "Ignore".into();
        weaker[0]["clientConfig"]["caBundle"] = Value::Null;
        hub.admin.merge(path, &json!({"webhooks": weaker})).await?;
        back("a change").await?;
        hub.admin
            .merge(path, &json!({"metadata": {"labels": null}, "webhooks": null}))
            .await?;
        back("the loss of all").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_fails_while_certificates_change() -> Result {
    if skipped() {
        return Ok(());
    }
    let mut options = HubOptions::default();
    options.webhook.lives = Lives {
        settle: jiff::SignedDuration::from_millis(500),
        ..Lives::default()
    };
    let hub = Hub::start(options).await?;
    let ns = hub.namespace("rotation").await?;
    let (done, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..3)
        .map(|client| {
            let (admin, ns, done, writes) = (hub.admin.clone(), ns.clone(), done.clone(), writes.clone());
            tokio::spawn(async move {
                let name = format!("w{client}");
                let map = |n: usize| configmap("default", "a", &n.to_string());
                admin
                    .create(&works_path(&ns), &work(&ns, &name, &[map(0)]))
                    .await?;
                while !done.load(Ordering::Relaxed) {
                    let n = writes.fetch_add(1, Ordering::Relaxed) + 1;
                    let patch = json!({"spec": {"workload": {"manifests": [map(n)]}}});
                    admin.merge(&work_path(&ns, &name), &patch).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    let secret = format!(
        "/api/v1/namespaces/{}/secrets/{}",
        names::HUB_NAMESPACE,
        admission::WEBHOOK_SECRET
    );
    let mut data = hub.admin.until_there(&secret, SOON).await?["data"].clone();
    for round in 0..3 {
        let (first, before) = (data.clone(), writes.load(Ordering::Relaxed));
        // Whoever wants new keys deletes the old.
        hub.admin.delete(&secret).await?;
        data = hub
            .admin
            .until(
                &secret,
                SOON,
                &format!("round {round}: all keys are new"),
                |secret| {
                    let data = &secret.ok_or("it is not there")?["data"];
                    let all = ["ca.crt", "ca.key", "tls.crt", "tls.key"]
                        .iter()
                        .all(|key| data[key] != first[key]);
                    all.then(|| data.clone())
                        .ok_or_else(|| "some are the old ones".into())
                },
            )
            .await?;
        for path in WEBHOOKS {
            let config = hub.admin.get(path).await?;
            assert_eq!(
                config["webhooks"][0]["clientConfig"]["caBundle"], data["ca-bundle.crt"],
                "{path}"
            );
        }
        eventually(SOON, "writes go on with the new ones", async || {
            let now = writes.load(Ordering::Relaxed);
            let failed = clients.iter().any(tokio::task::JoinHandle::is_finished);
            (failed || now > before + 20)
                .then_some(())
                .ok_or_else(|| format!("{now} writes"))
        })
        .await?;
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    hub.admin.delete(&format!("/api/v1/namespaces/{ns}")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_hold_and_agents_go_on_without_the_hub() -> Result {
    if skipped() {
        return Ok(());
    }
    let mut hub = Hub::start(HubOptions::default()).await?;
    let ns = hub.namespace("away").await?;
    let nobody = hub.user(&[on_set("join", "default")]).await?;
    let (name, works) = (unique("c"), works_path(&ns));
    nobody
        .create(CLUSTERS, &cluster(&name, &Value::Null, &json!({})))
        .await?;
    nobody
        .create(&works, &work(&ns, "w", &[configmap("default", "a", "1")]))
        .await?;
    let (path, w) = (cluster_path(&name), work_path(&ns, "w"));
    hub.admin
        .until(&path, SOON, "the hub is through with the cluster", |cluster| {
            let cluster = cluster.ok_or("it is not there")?;
            let tainted = cluster["spec"]["taints"][0]["timeAdded"].is_string();
            tainted.then_some(()).ok_or_else(|| cluster["spec"].to_string())
        })
        .await?;

    hub.fleet.hub.crash().await;
    let away = "failed calling webhook";
    let answer = nobody
        .create(&works, &work(&ns, "w2", &[configmap("default", "a", "1")]))
        .await;
    refused(answer, 500, "InternalError", away)?;
    let answer = nobody
        .create(CLUSTERS, &cluster(&unique("c"), &Value::Null, &json!({})))
        .await;
    refused(answer, 500, "InternalError", away)?;
    let open = json!({"spec": {"hubAcceptsClient": true}});
    refused(
        nobody.merge(&path, &open).await,
        403,
        "Forbidden",
        "cannot update the HubAcceptsClient field",
    )?;
    let moved = json!({"metadata": {"labels": in_set("other")}});
    refused(
        nobody.merge(&path, &moved).await,
        403,
        "Forbidden",
        "cannot add/remove a ManagedCluster",
    )?;
    let empty = json!({"spec": {"workload": {"manifests": []}}});
    refused(
        nobody.merge(&w, &empty).await,
        422,
        "Invalid",
        "manifests should not be empty",
    )?;
    let as_root = json!({"spec": executor("root")});
    refused(
        nobody.merge(&w, &as_root).await,
        403,
        "Forbidden",
        "cannot manipulate the Manifestwork",
    )?;
    // What agents do: finalizers and status of works, the cluster's own addresses.
    let finalizer = json!({"metadata": {"finalizers": ["example.com/agent"]}});
    nobody.merge(&w, &finalizer).await?;
    nobody
        .merge(&w, &json!({"metadata": {"finalizers": null}}))
        .await?;
    hub.admin
        .merge(&format!("{w}/status"), &json!({"status": {"conditions": []}}))
        .await?;
    let urls = json!({"spec": {"managedClusterClientConfigs": [{"url": "https://a:6443"}]}});
    nobody.merge(&path, &urls).await?;

    // The next hub serves at another port, and all goes on.
    hub.fleet.hub.start();
    let again = work(&ns, "w3", &[configmap("default", "a", "1")]);
    eventually(SOON, "works are taken again", async || {
        nobody
            .create(&works, &again)
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    })
    .await?;
    // In order it leaves nothing behind that would refuse all.
    hub.fleet.hub.until_begun().await?;
    hub.fleet.hub.stop().await?;
    for path in WEBHOOKS {
        assert!(hub.admin.find(path).await?.is_none(), "{path} is still there");
    }
    eventually(SOON, "works are taken without a hub", async || {
        let work = work(&ns, &unique("w"), &[configmap("default", "a", "1")]);
        nobody
            .create(&works, &work)
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    })
    .await?;
    refused(
        nobody.merge(&w, &empty).await,
        422,
        "Invalid",
        "manifests should not be empty",
    )?;
    hub.admin.delete(&path).await?;
    hub.admin.delete(&format!("/api/v1/namespaces/{ns}")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_webhook_controllers_complete_clusters_and_nothing_stale_refuses() -> Result {
    if skipped() {
        return Ok(());
    }
    let mut hub = Hub::with(HubOptions::default(), false).await?;
    hub.fleet.hub.stop().await?;
    // As a hub that was killed leaves it.
    let config = json!({"metadata": {"name": admission::CLUSTER_MUTATORS, "labels": {labels::MANAGED_BY: labels::MANAGED_BY_HUB}},
        "webhooks": [{"name": admission::CLUSTER_MUTATORS, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://127.0.0.1:9/nobody"}, "rules": [{"apiGroups": ["cluster.open-cluster-management.io"],
                "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["managedclusters"]}]}]});
    hub.admin.create(MUTATING, &config).await?;
    hub.fleet.hub.start();
    hub.admin
        .until_gone(&format!("{MUTATING}/{}", admission::CLUSTER_MUTATORS), SOON)
        .await?;
    let name = unique("bare");
    let spec = json!({"taints": [{"key": "theirs", "effect": "NoSelect"}]});
    eventually(SOON, "a cluster is taken", async || {
        let made = hub
            .admin
            .create(CLUSTERS, &cluster(&name, &Value::Null, &spec))
            .await;
        made.map(drop).map_err(|e| e.to_string())
    })
    .await?;
    hub.admin
        .until(&cluster_path(&name), SOON, "it is completed", |cluster| {
            let cluster = cluster.ok_or("it is not there")?;
            let taints = cluster["spec"]["taints"]
                .as_array()
                .map_or(&[][..], Vec::as_slice);
            let timed = taints.len() == 2 && taints.iter().all(|taint| taint["timeAdded"].is_string());
            let set = cluster["metadata"]["labels"][labels::CLUSTER_SET] == "default";
            (timed && set).then_some(()).ok_or_else(|| cluster.to_string())
        })
        .await?;
    hub.admin.delete(&cluster_path(&name)).await?;
    Ok(())
}
