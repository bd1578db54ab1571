//! Leaving: in order, or by force; and what of it is left, at the hub and on the cluster.

use super::{lease_path, lose, stays, until_available, until_said};
use crate::{MUSTER, Result};
use jiff::Timestamp;
use muster_crds::constants::{annotations, conditions};
use muster_crds::names as naming;
use muster_tests::fleet::Hub;
use muster_tests::objects::{
    cluster_path, configmap, configmap_path, has_condition, work, work_path, works_path,
};
use muster_tests::program::Run;
use muster_tests::wait::{SOON, eventually};
use muster_tests::{Fleet, FleetOptions, Program, tokens};
use serde_json::json;
use std::time::Duration;

async fn detach(fleet: &Fleet, index: usize, flags: &[&str]) -> anyhow::Result<Run> {
    let admin = fleet.hub.plane.kubeconfig().display().to_string();
    let name = &fleet.clusters[index].name;
    let args = [&["detach", name, "--kubeconfig", &admin], flags].concat();
    Program::new(MUSTER)?.run(&args).await
}

/// That nothing at the hub gives the cluster a right any more, and nothing of it is left but its namespace.
async fn nothing_is_left(fleet: &Fleet, cluster: &str) -> Result {
    fleet.kube().until_gone(&lease_path(cluster), SOON).await?;
    nothing_but_the_lease_is_left(fleet, cluster).await
}

async fn nothing_but_the_lease_is_left(fleet: &Fleet, cluster: &str) -> Result {
    let hub = fleet.kube();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = naming::cluster_role(cluster);
    for path in [
        cluster_path(cluster),
        format!("{rbac}/clusterroles/{role}"),
        format!("{rbac}/clusterrolebindings/{role}"),
        format!(
            "{rbac}/namespaces/{cluster}/rolebindings/{}",
            naming::registration_role_binding(cluster)
        ),
        format!(
            "{rbac}/namespaces/{cluster}/rolebindings/{}",
            naming::work_role_binding(cluster)
        ),
    ] {
        hub.until_gone(&path, SOON).await?;
    }
    assert!(hub.list(&works_path(cluster)).await?.is_empty(), "works are left");
    hub.get(&format!("/api/v1/namespaces/{cluster}")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_leaves_in_order_cleans_up_after_itself() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (cluster.name.as_str(), cluster.namespace(), cluster.kube());
    fleet
        .create(&work(name, "app", &[configmap(&ns, "settings", "1")]))
        .await?;
    fleet.until_applied(name, "app").await?;
    let agent = cluster.at_hub().await?;
    let forced = detach(&fleet, 0, &["--force"]).await?;
    assert!(
        forced.code == 1 && forced.stderr.contains("detach it without --force"),
        "{forced:?}"
    );

    let run = detach(&fleet, 0, &[]).await?;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(
        run.stdout.contains(&format!("cluster {name} detached")),
        "{run:?}"
    );
    assert!(
        run.stderr.contains(&format!("left at the hub: namespace {name}")),
        "{run:?}"
    );
    assert!(
        run.stderr.contains("left on the cluster: the klusterlet"),
        "{run:?}"
    );
    nothing_is_left(&fleet, name).await?;
    spoke.until_gone(&configmap_path(&ns, "settings"), SOON).await?;
    assert!(cluster.applied_works().await?.is_empty());
    // What it held is worth nothing, and by itself it does not come back.
    assert_eq!(agent.list(&works_path(name)).await.map_err(|r| r.code), Err(403));
    assert_eq!(agent.get(&cluster_path(name)).await.map_err(|r| r.code), Err(403));
    let hub = fleet.kube();
    stays(
        Duration::from_secs(1),
        "a detached cluster came back by itself",
        async || {
            anyhow::ensure!(hub.find(&cluster_path(name)).await?.is_none());
            Ok(())
        },
    )
    .await?;
    assert!(cluster.is_running());
    let again = detach(&fleet, 0, &[]).await?;
    assert!(
        again.code == 1 && again.stderr.contains("has no cluster"),
        "{again:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_clusters_namespace_goes_by_priority_and_the_cluster_says_what_is_left() -> Result {
    let mut fleet = Fleet::joined(1).await?;
    let (hub, name) = (fleet.kube(), fleet.clusters[0].name.clone());
    // Nobody takes the works away but this test.
    fleet.clusters[0].stop().await?;
    let held = |work: &str, priority: Option<&str>| {
        let mut object = muster_tests::objects::work(&name, work, &[configmap("default", work, "1")]);
        object["metadata"]["finalizers"] = json!(["example.com/held"]);
        if let Some(priority) = priority {
            object["metadata"]["annotations"] = json!({annotations::CLEANUP_PRIORITY: priority});
        }
        object
    };
    for (work, priority) in [
        ("last", Some("100")),
        ("first", None),
        ("second", Some("7")),
        ("with-it", Some("7")),
    ] {
        fleet.create(&held(work, priority)).await?;
    }
    hub.delete(&cluster_path(&name)).await?;
    for (batch, others) in [
        (&["first"][..], &["last", "second", "with-it"][..]),
        (&["second", "with-it"], &["last"]),
        (&["last"], &[]),
    ] {
        for work in batch {
            let what = format!("{work} is deleted");
            hub.until(&work_path(&name, work), SOON, &what, |object| {
                let going = object.is_some_and(|object| object["metadata"]["deletionTimestamp"].is_string());
                going.then_some(()).ok_or_else(|| format!("{object:?}"))
            })
            .await?;
        }
        until_said(&hub, &name, conditions::DELETING, "False", "manifestworks").await?;
        for work in others {
            let object = hub.get(&work_path(&name, work)).await?;
            assert!(
                object["metadata"]["deletionTimestamp"].is_null(),
                "{work} goes with {batch:?}"
            );
        }
        for work in batch {
            let free = json!({"metadata": {"finalizers": null}});
            hub.merge(&work_path(&name, work), &free).await?;
        }
    }
    nothing_is_left(&fleet, &name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_answer_is_waited_for_and_said_so() -> Result {
    let fleet = Fleet::joined(1).await?;
    let (name, ns) = (fleet.clusters[0].name.as_str(), fleet.clusters[0].namespace());
    fleet
        .create(&work(name, "app", &[configmap(&ns, "settings", "1")]))
        .await?;
    fleet.until_applied(name, "app").await?;
    lose(&fleet, 0).await?;
    let run = detach(&fleet, 0, &["--timeout", "1s"]).await?;
    assert_eq!(run.code, 1, "{run:?}");
    for mention in ["manifestworks", "nothing is heard of the cluster", "--force"] {
        assert!(run.stderr.contains(mention), "no {mention:?} in {run:?}");
    }
    let cluster = fleet.kube().get(&cluster_path(name)).await?;
    has_condition(Some(&cluster), conditions::DELETING, "False").map_err(anyhow::Error::msg)?;
    // Back again, it finishes what was begun.
    fleet.clusters[0].link.heal()?;
    nothing_is_left(&fleet, name).await?;
    fleet.clusters[0]
        .kube()
        .until_gone(&configmap_path(&ns, "settings"), SOON)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_never_comes_back_is_let_go_and_one_that_does_has_no_rights() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    // What a vanished work left is evicted after this, once the cluster has a hub again that does not have the work.
    fleet.clusters[0]
        .options
        .appliedmanifestwork_eviction_grace_period = Duration::from_secs(1);
    fleet.clusters[0].start();
    fleet.until_available().await?;
    let (name, ns) = (fleet.clusters[0].name.clone(), fleet.clusters[0].namespace());
    let (hub, spoke) = (fleet.kube(), fleet.clusters[0].kube());
    fleet
        .create(&work(&name, "app", &[configmap(&ns, "settings", "1")]))
        .await?;
    fleet.until_applied(&name, "app").await?;
    let agent = fleet.clusters[0].at_hub().await?;
    let settings = configmap_path(&ns, "settings");
    let before = spoke.get(&settings).await?;
    lose(&fleet, 0).await?;

    let run = detach(&fleet, 0, &["--force"]).await?;
    assert_eq!(run.code, 0, "{run:?}");
    for mention in [
        "objects of the works app",
        "AppliedManifestWorks",
        "which has no rights any more",
    ] {
        assert!(run.stderr.contains(mention), "no {mention:?} in {run:?}");
    }
    nothing_is_left(&fleet, &name).await?;

    // It comes back all the same: it may do nothing, comes in nowhere, and deletes nothing for not knowing better.
    fleet.clusters[0].link.heal()?;
    for path in [works_path(&name), cluster_path(&name), lease_path(&name)] {
        assert_eq!(agent.get(&path).await.map_err(|r| r.code), Err(403), "{path}");
    }
    stays(Duration::from_secs(2), "the returning cluster", async || {
        anyhow::ensure!(hub.find(&cluster_path(&name)).await?.is_none(), "it came in");
        let now = spoke.get(&settings).await?;
        anyhow::ensure!(
            now["metadata"]["uid"] == before["metadata"]["uid"],
            "its object is not the same"
        );
        Ok(())
    })
    .await?;
    assert!(fleet.clusters[0].is_running());

    // Started again it joins anew by its bootstrap credential, and then what the hub does not have is cleaned up.
    fleet.clusters[0].stop().await?;
    fleet.clusters[0].start();
    until_available(&hub, &name).await?;
    spoke.until_gone(&settings, SOON).await?;
    eventually(SOON, "nothing of the former works is left", async || {
        let works = fleet.clusters[0].applied_works().await;
        let works = works.map_err(|error| error.to_string())?;
        works.is_empty().then_some(()).ok_or_else(|| format!("{works:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_given_up_can_be_had_by_another_cluster() -> Result {
    let mut fleet = Fleet::joined(1).await?;
    let (hub, name) = (fleet.kube(), fleet.clusters[0].name.clone());
    fleet.clusters[0].stop().await?;
    let detached = detach(&fleet, 0, &[]).await?;
    assert_eq!(detached.code, 0, "{detached:?}");
    fleet.add_cluster(&name).await?.options.agent_id = Some("heir".into());
    fleet.clusters[1].start();
    until_available(&hub, &name).await?;
    let ns = fleet.clusters[1].namespace();
    fleet
        .create(&work(&name, "new", &[configmap(&ns, "new", "1")]))
        .await?;
    fleet.until_applied(&name, "new").await?;
    fleet.clusters[1].kube().get(&configmap_path(&ns, "new")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_comes_back_under_its_name_to_a_hub_of_another_ca_and_url() -> Result {
    if !super::not_somebodys() {
        return Ok(());
    }
    let mut fleet = Fleet::joined(1).await?;
    let (name, ns) = (fleet.clusters[0].name.clone(), fleet.clusters[0].namespace());
    let detached = detach(&fleet, 0, &[]).await?;
    assert_eq!(detached.code, 0, "{detached:?}");
    fleet.clusters[0].stop().await?;
    fleet.hub.stop().await?;
    // The same folders and Secrets, another hub.
    let second = Hub::embedded("second hub", &FleetOptions::default()).await?;
    let file = second.plane.bootstrap_kubeconfig(second.plane.address()).await?;
    fleet.clusters[0].options.bootstrap_kubeconfig = Some(file);
    fleet.clusters[0].start();
    let there = second.plane.kube();
    until_available(&there, &name).await?;
    there
        .create(
            &works_path(&name),
            &work(&name, "app", &[configmap(&ns, "settings", "1")]),
        )
        .await?;
    there
        .until(
            &work_path(&name, "app"),
            SOON,
            "it is applied",
            muster_tests::objects::is_applied,
        )
        .await
}

/// Somebody takes the finalizers off a ManagedCluster that goes, while no hub runs.
#[tokio::test(flavor = "multi_thread")]
async fn rights_go_with_a_managed_cluster_that_is_gone_and_the_next_of_its_name_is_not_denied() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions {
        auto_approve: false,
        ..FleetOptions::default()
    })
    .await?;
    let hub = fleet.kube();
    let token = tokens::make(&hub, &["--accept"]).await?;
    let address = fleet.clusters[0].link.address();
    let file = fleet.hub.plane.token_kubeconfig(&token, address)?;
    let cluster = &mut fleet.clusters[0];
    cluster.options.bootstrap_kubeconfig = Some(file);
    cluster.start();
    let name = cluster.name.clone();
    until_available(&hub, &name).await?;
    let agent = cluster.at_hub().await?;
    cluster.stop().await?;
    let role = format!(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/{}",
        naming::cluster_role(&name)
    );
    let may = async |wanted: bool| {
        eventually(SOON, &format!("it may see its works: {wanted}"), async || {
            let may = agent.list(&works_path(&name)).await.is_ok();
            (may == wanted).then_some(()).ok_or_else(|| may.to_string())
        })
        .await
    };
    for made_anew_at_once in [false, true] {
        may(true).await?;
        fleet.hub.stop().await?;
        let released = json!({"metadata": {"finalizers": null}});
        hub.merge(&cluster_path(&name), &released).await?;
        hub.delete(&cluster_path(&name)).await?;
        hub.until_gone(&cluster_path(&name), SOON).await?;
        let made = hub.get(&role).await?["metadata"]["creationTimestamp"].clone();
        let made: Timestamp = made.as_str().unwrap_or_default().parse()?;
        let anew = json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
            "metadata": {"name": name}, "spec": {"hubAcceptsClient": false}});
        if made_anew_at_once {
            // Times of objects are in whole seconds.
            eventually(SOON, "the next second", async || {
                let now = Timestamp::now();
                (now.as_second() > made.as_second())
                    .then_some(())
                    .ok_or_else(|| now.to_string())
            })
            .await?;
            hub.create(muster_tests::objects::CLUSTERS, &anew).await?;
        }
        fleet.hub.start();
        hub.until_gone(&role, SOON).await?;
        may(false).await?;
        if !made_anew_at_once {
            nothing_but_the_lease_is_left(&fleet, &name).await?;
            hub.create(muster_tests::objects::CLUSTERS, &anew).await?;
        }
        hub.until(&cluster_path(&name), SOON, "the hub looked at it", |object| {
            let taints = object.map(|object| object["spec"]["taints"].clone());
            taints
                .is_some_and(|taints| taints.is_array())
                .then_some(())
                .ok_or_else(|| format!("{object:?}"))
        })
        .await?;
        stays(Duration::from_secs(1), "it is denied", async || {
            let object = hub.get(&cluster_path(&name)).await?;
            anyhow::ensure!(
                muster_tests::objects::condition(&object, conditions::HUB_ACCEPTED).is_none(),
                "{object}"
            );
            Ok(())
        })
        .await?;
        super::accept(&hub, &name, true).await?;
    }
    may(true).await
}
