//! Names that no cluster can have: the ClusterRole of such a name is one that all clusters share, or the namespace is the hub's.

use super::{denied_csr, honest, not_somebodys, until_said};
use crate::Result;
use muster_crds::constants::{admission, conditions, labels, names, reasons};
use muster_crds::names as naming;
use muster_tests::objects::{CLUSTERS, CSRS, cluster_path};
use muster_tests::wait::{SOON, eventually};
use muster_tests::{Fleet, FleetOptions, Kube};
use serde_json::{Value, json};

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const ROLE_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
const POLICY_BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const ALL_WORKS: &str = "/apis/work.open-cluster-management.io/v1/manifestworks";

fn cluster(name: &str) -> Value {
    json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {"name": name}, "spec": {"hubAcceptsClient": false}})
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cluster_is_made_with_a_name_that_none_can_have() -> Result {
    let fleet = Fleet::prepare(FleetOptions {
        clusters: 0,
        ..FleetOptions::default()
    })
    .await?;
    let plane = &fleet.hub.plane;
    let file = plane.bootstrap_kubeconfig(plane.address()).await?;
    let bootstrap = Kube::from_file("hub as bootstrap user", &file).await?;
    let dry = format!("{CLUSTERS}?dryRun=All");
    for name in [
        "work",
        "registration",
        "default",
        "kube-node-lease",
        names::HUB_NAMESPACE,
    ] {
        for kube in [&bootstrap, &fleet.kube()] {
            eventually(SOON, &format!("{name} is refused"), async || {
                match kube.create(&dry, &cluster(name)).await {
                    Err(refused) if refused.code == 403 && refused.message.contains("is reserved") => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
        }
    }
    Ok(())
}

/// As an earlier hub may have left it: the ManagedCluster is there, and bound to the shared role everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_named_like_a_shared_role_gets_nothing_by_it() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    let mut fleet = Fleet::start(FleetOptions {
        webhook: false,
        ..FleetOptions::default()
    })
    .await?;
    fleet.until_available().await?;
    let hub = fleet.kube();
    let name = "work";
    let role = names::WORK_CLUSTER_ROLE;
    assert_eq!(naming::cluster_role(name), role);
    let rules = hub.get(&format!("{ROLES}/{role}")).await?["rules"].clone();
    let group = naming::cluster_group(name);
    let user = naming::user(name, "evil");
    let evil = fleet
        .hub
        .plane
        .as_user(&user, &[&group, names::MANAGED_CLUSTERS_GROUP])
        .await?;

    fleet.hub.stop().await?;
    hub.delete(&format!("{POLICY_BINDINGS}/{}", admission::CLUSTER_VALIDATORS))
        .await?;
    eventually(SOON, "the name is not refused any more", async || {
        hub.ensure(CLUSTERS, &cluster(name))
            .await
            .map_err(|e| e.to_string())
    })
    .await?;
    let binding = json!({
        "metadata": {"name": role, "labels": {labels::CLUSTER_NAME: name}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
    });
    hub.create(ROLE_BINDINGS, &binding).await?;
    let sees = async |wanted: u16| {
        eventually(SOON, &format!("everybody's works: {wanted}"), async || {
            let code = evil.list(ALL_WORKS).await.map_or_else(|e| e.code, |_| 200);
            (code == wanted).then_some(()).ok_or_else(|| code.to_string())
        })
        .await
    };
    sees(200).await?;

    fleet.hub.start();
    fleet.hub.until_begun().await?;
    hub.until_gone(&format!("{ROLE_BINDINGS}/{role}"), SOON).await?;
    sees(403).await?;
    until_said(&hub, name, conditions::HUB_ACCEPTED, "False", "is reserved").await?;
    // Neither whom the hub trusts nor who has a certificate of that name gets one.
    let plane = &fleet.hub.plane;
    let file = plane.bootstrap_kubeconfig(plane.address()).await?;
    let trusted = Kube::from_file("hub as bootstrap user", &file).await?;
    let made = trusted.create(CSRS, &honest(name, "evil")?).await?;
    let (reason, message) = denied_csr(&hub, name).await?;
    assert_eq!(reason, reasons::CSR_CLUSTER_NAME_RESERVED);
    assert!(message.contains("is reserved"), "{message}");
    hub.delete(&format!("{CSRS}/{}", super::name(&made))).await?;
    // It goes, and the role stays as it was.
    hub.delete(&cluster_path(name)).await?;
    hub.until_gone(&cluster_path(name), SOON).await?;
    assert_eq!(hub.get(&format!("{ROLES}/{role}")).await?["rules"], rules);
    assert!(hub.find(&format!("{ROLE_BINDINGS}/{role}")).await?.is_none());
    let other = fleet.clusters[0].name.clone();
    super::renew_stops(&hub, &other).await?;
    super::lease_of(&hub, &other, 1).await?;
    super::renewed(&hub, &other).await
}
