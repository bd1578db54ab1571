//! What registration promises the other side, item by item: certificate requests, what both sides make and say, rights,
//! renewal, leases, denial, and the end.

use super::agents::{ANNOTATION, CREDENTIALS, URL};
use super::{Cluster, Hub, works};
use crate::Result;
use crate::registration::{csr_of, csrs_path, honest, lease_of, lease_path, name, stays, until_signed};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_apiserver::pki::Request;
use muster_crds::constants::{conditions, finalizers, labels, names};
use muster_crds::names as naming;
use muster_tests::objects::{CSRS, cluster_path, has_condition};
use muster_tests::wait::SOON;
use muster_tests::{Kube, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/// Agents that were refused ask again within half a minute, and then some.
const RETRIED: Duration = Duration::from_secs(120);

/// The cluster asks to join: what it makes, and how it asks.
pub async fn asks(hub: &Hub, cluster: &Cluster) -> Result {
    let object = hub.kube.until_there(&cluster_path(&cluster.name), SOON).await?;
    if hub.is_by_hand() {
        assert_eq!(object["spec"]["hubAcceptsClient"], false, "{object}");
    }
    let config = &object["spec"]["managedClusterClientConfigs"][0];
    assert_eq!(config["url"], URL, "{object}");
    let spoke: Value = serde_saphyr::from_str(&std::fs::read_to_string(cluster.plane.kubeconfig())?)?;
    let authority = &spoke["clusters"][0]["cluster"]["certificate-authority-data"];
    assert_eq!(&config["caBundle"], authority);
    assert_eq!(object["metadata"]["annotations"][ANNOTATION.0], ANNOTATION.1);
    assert_eq!(
        object["metadata"]["labels"][labels::CLUSTER_SET],
        names::DEFAULT_CLUSTER_SET
    );
    let csr = csr_of(&hub.kube, &cluster.name).await?;
    is_an_agents(&csr, cluster)?;
    let by = csr["spec"]["username"].as_str().unwrap_or_default();
    assert!(by.starts_with(names::BOOTSTRAP_USER_PREFIX), "{by}");
    has_bootstrap_rights(hub).await?;
    hub.admit(cluster).await
}

/// That a certificate request looks as OCM's agents' do.
fn is_an_agents(csr: &Value, cluster: &Cluster) -> Result {
    let metadata = &csr["metadata"];
    assert_eq!(metadata["generateName"], format!("{}-", cluster.name));
    assert_eq!(metadata["labels"], json!({labels::CLUSTER_NAME: cluster.name}));
    let spec = &csr["spec"];
    assert_eq!(spec["signerName"], names::KUBE_API_SERVER_CLIENT_SIGNER);
    let mut usages: Vec<&str> = spec["usages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    usages.sort_unstable();
    assert_eq!(usages, ["client auth", "digital signature", "key encipherment"]);
    assert_eq!(spec["expirationSeconds"], Value::Null);
    let pem = STANDARD.decode(spec["request"].as_str().unwrap_or_default())?;
    let request = Request::parse(&pem)?;
    assert_eq!(request.common_name, naming::user(&cluster.name, &cluster.agent));
    let mut organizations = request.organizations;
    organizations.sort_unstable();
    assert_eq!(
        organizations,
        [
            naming::cluster_group(&cluster.name),
            names::MANAGED_CLUSTERS_GROUP.to_owned()
        ]
    );
    assert!(request.dns_names.is_empty() && request.ip_addresses.is_empty() && request.uris.is_empty());
    Ok(())
}

/// The cluster has joined: what the hub made for it, what it says of itself, and where it keeps its credentials.
pub async fn joins(hub: &Hub, cluster: &Cluster) -> Result {
    let path = cluster_path(&cluster.name);
    let all = [
        (conditions::HUB_ACCEPTED, "HubClusterAdminAccepted"),
        (conditions::JOINED, "ManagedClusterJoined"),
        (conditions::CLUSTER_AVAILABLE, "ManagedClusterAvailable"),
        (conditions::CLOCK_SYNCED, "ManagedClusterClockSynced"),
    ];
    let object = hub
        .kube
        .until(&path, SOON, "it has joined", |object| {
            for (condition, reason) in all {
                has_condition(object, condition, "True")?;
                let found = object.map(|object| said(object, condition)["reason"].clone());
                if found.as_ref().is_none_or(|found| found != reason) {
                    return Err(format!("{condition} has the reason {found:?}"));
                }
            }
            let object = object.ok_or("it is not there")?;
            // What hubs add until it is available.
            match &object["spec"]["taints"] {
                Value::Null => Ok(object.clone()),
                Value::Array(taints) if taints.is_empty() => Ok(object.clone()),
                taints => Err(format!("it has taints: {taints}")),
            }
        })
        .await?;
    let there = object["metadata"]["finalizers"].to_string();
    for finalizer in [finalizers::MANAGED_CLUSTER, finalizers::MANAGED_CLUSTER_RESOURCES] {
        assert!(there.contains(finalizer), "{finalizer}: {there}");
    }
    let version = cluster.kube().get("/version").await?;
    assert_eq!(object["status"]["version"]["kubernetes"], version["gitVersion"]);
    if cluster.plane.is_embedded() {
        for field in ["capacity", "allocatable"] {
            assert!(object["status"][field]["cpu"].is_string(), "{field}: {object}");
        }
    }
    let namespace = format!("/api/v1/namespaces/{}", cluster.name);
    let namespace = hub.kube.get(&namespace).await?;
    assert_eq!(
        namespace["metadata"]["labels"][labels::CLUSTER_NAME],
        cluster.name.as_str()
    );
    let lease = hub.kube.get(&lease_path(&cluster.name)).await?;
    assert_eq!(
        lease["metadata"]["labels"][labels::CLUSTER_NAME],
        cluster.name.as_str()
    );
    assert_eq!(lease["spec"]["holderIdentity"], names::CLUSTER_LEASE);
    let events = format!("/apis/events.k8s.io/v1/namespaces/{}/events", cluster.name);
    hub.kube
        .until_all(&events, SOON, "an Event says that it is available", |events| {
            let found = events.values().any(|event| {
                event["reason"] == "Available" && event["reportingController"] == "klusterlet-agent"
            });
            found
                .then_some(())
                .ok_or_else(|| format!("{} Events", events.len()))
        })
        .await?;
    keeps_its_credentials(hub, cluster).await
}

/// The Secret has what OCM's work agent and add-ons read from it.
async fn keeps_its_credentials(hub: &Hub, cluster: &Cluster) -> Result {
    let secret = cluster.kube().get(CREDENTIALS).await?;
    let text = |key: &str| -> anyhow::Result<String> {
        let data = secret["data"][key]
            .as_str()
            .with_context(|| format!("no {key}"))?;
        Ok(String::from_utf8(STANDARD.decode(data)?)?)
    };
    assert_eq!(text(names::SECRET_CLUSTER_NAME)?, cluster.name);
    assert_eq!(text(names::SECRET_AGENT_NAME)?, cluster.agent);
    for key in [names::SECRET_TLS_CRT, names::SECRET_TLS_KEY] {
        assert!(text(key)?.starts_with("-----BEGIN "), "{key}");
    }
    let config: Value = serde_saphyr::from_str(&text(names::SECRET_KUBECONFIG)?)?;
    let bootstrap: Value = serde_saphyr::from_str(&std::fs::read_to_string(&hub.bootstrap)?)?;
    assert_eq!(config["current-context"], "default-context");
    assert_eq!(config["contexts"][0]["context"]["namespace"], "configuration");
    let user = &config["users"][0];
    assert_eq!(user["name"], "default-auth");
    assert_eq!(user["user"]["client-certificate"], names::SECRET_TLS_CRT);
    assert_eq!(user["user"]["client-key"], names::SECRET_TLS_KEY);
    assert_eq!(
        config["clusters"][0]["cluster"]["server"],
        bootstrap["clusters"][0]["cluster"]["server"]
    );
    assert_eq!(config["clusters"][0]["name"], bootstrap["clusters"][0]["name"]);
    Ok(())
}

/// What OCM's operator asks with the agents' credentials before it calls a cluster connected.
pub async fn has_its_rights(hub: &Hub, cluster: &Cluster) -> Result {
    let (own, kube) = (cluster.name.as_str(), cluster.at_hub().await?);
    let managed = "cluster.open-cluster-management.io";
    let work = "work.open-cluster-management.io";
    for (group, resource, namespace, name, verbs) in [
        (
            "certificates.k8s.io",
            "certificatesigningrequests",
            "",
            "",
            &["get", "list", "watch"][..],
        ),
        (
            managed,
            "managedclusters",
            "",
            own,
            &["get", "list", "update", "watch"],
        ),
        (managed, "managedclusters/status", "", own, &["patch", "update"]),
        (
            names::REGISTER_GROUP,
            "managedclusters/clientcertificates",
            "",
            "",
            &["renew"],
        ),
        (
            "coordination.k8s.io",
            "leases",
            own,
            names::CLUSTER_LEASE,
            &["get", "update"],
        ),
        ("", "events", own, "", &["create", "patch", "update"]),
        ("events.k8s.io", "events", own, "", &["create", "patch", "update"]),
        (
            work,
            "manifestworks",
            own,
            "",
            &["get", "list", "watch", "update"],
        ),
        (work, "manifestworks/status", own, "", &["patch", "update"]),
        (
            "addon.open-cluster-management.io",
            "managedclusteraddons",
            own,
            "",
            &["get", "list", "watch"],
        ),
        (
            "addon.open-cluster-management.io",
            "managedclusteraddons/status",
            own,
            "",
            &["patch", "update"],
        ),
    ] {
        for verb in verbs {
            let what = format!("{verb} {resource}");
            assert!(
                may(&kube, group, resource, namespace, name, verb).await?,
                "{what}"
            );
        }
    }
    let others = may(&kube, work, "manifestworks", "default", "", "get").await?;
    assert!(!others, "it reads others' works");
    let what = "the bootstrap kubeconfig is still good";
    has_bootstrap_rights(hub).await.context(what)
}

async fn has_bootstrap_rights(hub: &Hub) -> Result {
    let kube = Kube::from_file("the hub, to bootstrap", &hub.bootstrap).await?;
    for (group, resource, verbs) in [
        (
            "cluster.open-cluster-management.io",
            "managedclusters",
            &["create", "get"][..],
        ),
        (
            "certificates.k8s.io",
            "certificatesigningrequests",
            &["create", "get", "list", "watch"],
        ),
    ] {
        for verb in verbs {
            assert!(
                may(&kube, group, resource, "", "", verb).await?,
                "{verb} {resource}"
            );
        }
    }
    Ok(())
}

async fn may(
    kube: &Kube,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
    verb: &str,
) -> anyhow::Result<bool> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {
        "resourceAttributes": {"group": group, "resource": resource, "subresource": subresource, "namespace": namespace,
            "name": name, "verb": verb}}});
    let answer = kube.create(REVIEWS, &review).await?;
    Ok(answer["status"]["allowed"] == true)
}

/// A request with the agents' own certificate is approved without a person, and the lease is renewed as often as the hub says.
pub async fn renews(hub: &Hub, cluster: &Cluster) -> Result {
    let mut request = honest(&cluster.name, &cluster.agent)?;
    request["metadata"]["generateName"] = json!(format!("{}-", cluster.name));
    let csr = cluster.at_hub().await?.create(CSRS, &request).await?;
    until_signed(&hub.kube, name(&csr)).await?;
    let csr = hub.kube.get(&format!("{CSRS}/{}", name(&csr))).await?;
    let approved = csr["status"]["conditions"][0].clone();
    assert_eq!(approved["type"], "Approved", "{approved}");

    lease_of(&hub.kube, &cluster.name, 4).await?;
    for _ in 0..2 {
        renews_its_lease(hub, cluster).await?;
    }
    lease_of(&hub.kube, &cluster.name, 60).await
}

async fn renews_its_lease(hub: &Hub, cluster: &Cluster) -> Result {
    let path = lease_path(&cluster.name);
    let last = hub.kube.get(&path).await?["spec"]["renewTime"].clone();
    let what = "the lease is renewed";
    hub.kube
        .until(&path, RETRIED, what, |lease| {
            let now = lease.map(|lease| &lease["spec"]["renewTime"]);
            (now != Some(&last))
                .then_some(())
                .ok_or_else(|| format!("last {last}"))
        })
        .await
}

/// ClusterClaims go up, namespaces of its set come down.
pub async fn reports(hub: &Hub, cluster: &Cluster) -> Result {
    let claims = "/apis/cluster.open-cluster-management.io/v1alpha1/clusterclaims";
    let claim = format!("{}.example.com", cluster.name);
    let object = json!({"apiVersion": "cluster.open-cluster-management.io/v1alpha1", "kind": "ClusterClaim",
        "metadata": {"name": claim}, "spec": {"value": "blue"}});
    cluster.kube().create(claims, &object).await?;
    let path = cluster_path(&cluster.name);
    hub.kube
        .until(&path, SOON, "the claim is at the hub", |object| {
            let claims = object.map(|object| object["status"]["clusterClaims"].clone());
            let told = claims.iter().filter_map(Value::as_array).flatten();
            told.clone()
                .any(|told| told["name"] == claim.as_str() && told["value"] == "blue")
                .then_some(())
                .ok_or_else(|| format!("{claims:?}"))
        })
        .await?;
    cluster.kube().delete(&format!("{claims}/{claim}")).await?;

    let sets = "/apis/cluster.open-cluster-management.io/v1beta2/managedclustersets";
    let namespace = format!("team-{}", cluster.name);
    let set = json!({"apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSet",
        "metadata": {"name": namespace}, "spec": {"managedNamespaces": [{"name": namespace}]}});
    hub.kube.create(sets, &set).await?;
    let label = json!({"metadata": {"labels": {labels::CLUSTER_SET: namespace}}});
    hub.kube.merge(&path, &label).await?;
    let there = format!("/api/v1/namespaces/{namespace}");
    let made = cluster.kube().until_there(&there, SOON).await?;
    let marks = made["metadata"]["labels"].to_string();
    assert!(marks.contains(labels::CLUSTER_SET_NAMESPACE_PREFIX), "{marks}");
    hub.kube
        .until(&path, SOON, "the namespace is said to be there", |object| {
            let said = object.map(|object| object["status"]["managedNamespaces"].clone());
            let said = said.unwrap_or_default();
            let condition = &said[0]["conditions"][0];
            (said[0]["name"] == namespace.as_str()
                && condition["type"] == conditions::NAMESPACE_AVAILABLE
                && condition["status"] == "True")
                .then_some(())
                .ok_or_else(|| said.to_string())
        })
        .await
}

/// Kept out, the agents have no rights; let in again, they go on.
pub async fn is_denied_and_let_in_again(hub: &Hub, cluster: &Cluster) -> Result {
    let path = cluster_path(&cluster.name);
    let accepts = |yes: bool| json!({"spec": {"hubAcceptsClient": yes}});
    hub.kube.merge(&path, &accepts(false)).await?;
    let what = "it is denied";
    hub.kube
        .until(&path, SOON, what, |object| {
            has_condition(object, conditions::HUB_ACCEPTED, "False")?;
            let reason = object.map(|object| said(object, conditions::HUB_ACCEPTED)["reason"].clone());
            (reason == Some(json!("HubClusterAdminDenied")))
                .then_some(())
                .ok_or_else(|| format!("{reason:?}"))
        })
        .await?;
    let kube = cluster.at_hub().await?;
    eventually(SOON, "its rights are gone", async || {
        let lease = may(
            &kube,
            "coordination.k8s.io",
            "leases",
            &cluster.name,
            names::CLUSTER_LEASE,
            "update",
        )
        .await;
        match lease {
            Ok(false) => Ok(()),
            other => Err(format!("may it renew its lease? {other:?}")),
        }
    })
    .await?;
    hub.kube.merge(&path, &accepts(true)).await?;
    hub.kube
        .until(&path, SOON, "it is accepted again", |object| {
            has_condition(object, conditions::HUB_ACCEPTED, "True")
        })
        .await?;
    lease_of(&hub.kube, &cluster.name, 8).await?;
    renews_its_lease(hub, cluster).await?;
    lease_of(&hub.kube, &cluster.name, 60).await
}

/// The hub deletes the cluster: its works and what they applied go first, then everything that was made for it.
pub async fn leaves(hub: &Hub, cluster: &Cluster) -> Result {
    let last = works::last(hub, cluster, RETRIED).await?;
    let path = cluster_path(&cluster.name);
    hub.kube.delete(&path).await?;
    hub.kube.until_gone(&path, RETRIED).await?;
    cluster.kube().until_gone(&last, SOON).await?;
    let left = works::records(cluster).await?;
    assert!(left.is_empty(), "{left:?}");
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = naming::cluster_role(&cluster.name);
    for path in [
        format!("{rbac}/clusterroles/{role}"),
        format!("{rbac}/clusterrolebindings/{role}"),
        format!(
            "{rbac}/namespaces/{}/rolebindings/{}",
            cluster.name,
            naming::work_role_binding(&cluster.name)
        ),
        format!(
            "{rbac}/namespaces/{}/rolebindings/{}",
            cluster.name,
            naming::registration_role_binding(&cluster.name)
        ),
    ] {
        hub.kube.until_gone(&path, SOON).await?;
    }
    // Nobody makes it again.
    let requests = hub.kube.list(&csrs_path(&cluster.name)).await?.len();
    stays(Duration::from_secs(3), "it stays away", async || {
        anyhow::ensure!(hub.kube.find(&path).await?.is_none(), "it is back");
        let now = hub.kube.list(&csrs_path(&cluster.name)).await?.len();
        anyhow::ensure!(now <= requests, "it asks for certificates again");
        Ok(())
    })
    .await
}

/// A condition of an object.
fn said<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|c| c["type"] == kind);
    found.unwrap_or(&Value::Null)
}
