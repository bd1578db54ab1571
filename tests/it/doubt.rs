//! Law 3 with hubs that are not what they were: restored from an older backup, or another one at the same address. What they
//! say is applied, nothing is removed for it, and it is told why.

use crate::Result;
use crate::laws::{copy, has_value, skipped, uids, unpacked};
use anyhow::Context as _;
use muster_tests::objects::{
    APPLIED_WORKS, CLUSTERS, cluster_path, condition, configmap, configmap_path, work, work_path,
};
use muster_tests::wait::SOON;
use muster_tests::{Cluster, Fleet, FleetOptions};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const HELD: &str = "work.muster.open-cluster-management.io/removal-held";

/// Waits until the work says that what it applied before is kept, and for what reason.
async fn is_held(fleet: &Fleet, cluster: &str, name: &str, reason: &str) -> anyhow::Result<Value> {
    fleet
        .until_work(cluster, name, "it says that removal is held", |work| {
            let held = work["status"]["conditions"]
                .as_array()
                .and_then(|c| c.iter().find(|c| c["type"] == "RemovalHeld"));
            match held {
                Some(held) if held["status"] == "True" && held["reason"] == reason => Ok(()),
                other => Err(format!("RemovalHeld is {other:?}, not {reason}")),
            }
        })
        .await
}

/// Lets the cluster remove what is held, as the condition says.
async fn let_go(cluster: &Cluster) -> Result {
    let works = cluster.applied_works().await?;
    let [applied] = works.as_slice() else {
        anyhow::bail!("not one AppliedManifestWork: {works:?}");
    };
    assert!(applied["metadata"]["annotations"][HELD].is_string(), "{applied}");
    let path = format!(
        "{APPLIED_WORKS}/{}",
        applied["metadata"]["name"].as_str().context("name")?
    );
    let patch = json!({"metadata": {"annotations": {HELD: null}}});
    cluster.kube().merge(&path, &patch).await?;
    Ok(())
}

/// Takes a work away from the hub without its cluster knowing.
async fn take_away(fleet: &Fleet, cluster: &str, name: &str) -> Result {
    let path = work_path(cluster, name);
    fleet
        .kube()
        .merge(&path, &json!({"metadata": {"finalizers": null}}))
        .await?;
    fleet.kube().delete(&path).await?;
    fleet.kube().until_gone(&path, SOON).await
}

async fn saved_at(cluster: &Cluster, generation: u64) -> Result {
    let secrets = format!("/api/v1/namespaces/{}/secrets", cluster.options.namespace);
    let needle = format!("\"generation\":{generation}");
    cluster
        .kube()
        .until_all(&secrets, SOON, "the work is saved on the cluster", |secrets| {
            let ours = secrets
                .iter()
                .filter(|((_, n), _)| n.starts_with("muster-works-"));
            let mut texts = ours.map(|(_, secret)| unpacked(secret).unwrap_or_default());
            texts
                .any(|text| text.contains(&needle))
                .then_some(())
                .ok_or_else(|| format!("no work at {needle}"))
        })
        .await
}

/// A hub restored from a backup in which a work had fewer manifests. `restarted`: the klusterlet starts only afterwards.
async fn an_older_backup(restarted: bool) -> Result {
    if skipped() {
        return Ok(());
    }
    let options = FleetOptions {
        durable_hub: true,
        ..FleetOptions::default()
    };
    let mut fleet = Fleet::start(options).await?;
    fleet.until_available().await?;
    let (name, ns) = (fleet.clusters[0].name.clone(), fleet.clusters[0].namespace());
    let first = configmap(&ns, "first", "1");
    fleet
        .create(&work(&name, "app", std::slice::from_ref(&first)))
        .await?;
    fleet.until_applied(&name, "app").await?;
    let data = fleet.hub.plane.data_dir().context("on disk")?.to_owned();
    let backup = tempfile::TempDir::with_prefix("muster-test-backup-")?;
    fleet.hub.stop().await?;
    fleet.hub.plane.stop().await;
    copy(&data, backup.path())?;
    fleet.hub.plane.start_again().await?;
    fleet.hub.start();
    let second = configmap(&ns, "second", "1");
    fleet
        .set_manifests(&name, "app", &[configmap(&ns, "first", "2"), second])
        .await?;
    let applied = fleet.until_applied(&name, "app").await?;
    let paths = [configmap_path(&ns, "first"), configmap_path(&ns, "second")];
    let before = uids(&fleet.clusters[0], &paths).await?;
    if restarted {
        saved_at(
            &fleet.clusters[0],
            applied["metadata"]["generation"].as_u64().context("generation")?,
        )
        .await?;
        fleet.clusters[0].stop().await?;
    }
    fleet.hub.stop().await?;
    fleet.hub.plane.stop().await;
    std::fs::remove_dir_all(&data)?;
    copy(backup.path(), &data)?;
    fleet.hub.plane.start_again().await?;
    fleet.hub.start();
    if restarted {
        fleet.clusters[0].start();
    }
    let held = is_held(&fleet, &name, "app", "HubRestored").await?;
    let (_, message) = condition(&held, "RemovalHeld").context("no condition")?;
    assert!(
        message.contains("older backup") && message.contains(HELD),
        "{message}"
    );
    // What the hub says is done, as far as nothing is removed for it.
    has_value(&fleet.clusters[0].kube(), &paths[0], "1").await?;
    assert_eq!(uids(&fleet.clusters[0], &paths).await?, before);
    // Also by a klusterlet that starts now, and for what the hub says next.
    fleet.clusters[0].crash().await;
    fleet.clusters[0].start();
    fleet
        .set_manifests(&name, "app", &[configmap(&ns, "first", "3")])
        .await?;
    has_value(&fleet.clusters[0].kube(), &paths[0], "3").await?;
    fleet.until_applied(&name, "app").await?;
    is_held(&fleet, &name, "app", "HubRestored").await?;
    assert_eq!(uids(&fleet.clusters[0], &paths).await?, before);
    // A person may let it go.
    let_go(&fleet.clusters[0]).await?;
    fleet.clusters[0].kube().until_gone(&paths[1], SOON).await?;
    fleet
        .until_work(&name, "app", "nothing is held", |work| {
            match condition(work, "RemovalHeld") {
                None => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
    assert_eq!(uids(&fleet.clusters[0], &paths[..1]).await?, before[..1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn law_3_an_older_backup_removes_nothing() -> Result {
    an_older_backup(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn law_3_an_older_backup_removes_nothing_from_a_klusterlet_that_starts() -> Result {
    an_older_backup(true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn law_3_another_work_of_the_same_name_removes_nothing() -> Result {
    let fleet = Fleet::joined(1).await?;
    let (name, ns) = (fleet.clusters[0].name.clone(), fleet.clusters[0].namespace());
    fleet
        .create(&work(&name, "app", &[configmap(&ns, "ours", "1")]))
        .await?;
    fleet.until_applied(&name, "app").await?;
    let paths = [configmap_path(&ns, "ours")];
    let before = uids(&fleet.clusters[0], &paths).await?;
    // What another hub at the same address looks like.
    fleet.clusters[0].link.cut().await?;
    take_away(&fleet, &name, "app").await?;
    fleet
        .create(&work(&name, "app", &[configmap(&ns, "theirs", "1")]))
        .await?;
    fleet.clusters[0].link.heal()?;
    fleet.until_applied(&name, "app").await?;
    is_held(&fleet, &name, "app", "HubReplaced").await?;
    assert_eq!(uids(&fleet.clusters[0], &paths).await?, before);
    // Its deletion is no order to remove what the first one made either.
    fleet.kube().delete(&work_path(&name, "app")).await?;
    fleet
        .until_work(&name, "app", "its deletion waits", |work| {
            match (condition(work, "Deleting"), condition(work, "RemovalHeld")) {
                (Some(("True", _)), Some(("True", _))) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
    assert_eq!(uids(&fleet.clusters[0], &paths).await?, before);
    let_go(&fleet.clusters[0]).await?;
    fleet.kube().until_gone(&work_path(&name, "app"), SOON).await?;
    fleet.clusters[0].kube().until_gone(&paths[0], SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn law_3_what_is_in_doubt_goes_when_the_grace_period_is_over() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    fleet.clusters[0]
        .options
        .appliedmanifestwork_eviction_grace_period = Duration::from_secs(10);
    fleet.clusters[0].start();
    fleet.until_available().await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (cluster.name.clone(), cluster.namespace());
    fleet
        .create(&work(&name, "app", &[configmap(&ns, "ours", "1")]))
        .await?;
    fleet.until_applied(&name, "app").await?;
    cluster.link.cut().await?;
    take_away(&fleet, &name, "app").await?;
    fleet
        .create(&work(&name, "app", &[configmap(&ns, "theirs", "1")]))
        .await?;
    let began = Instant::now();
    cluster.link.heal()?;
    cluster
        .kube()
        .until_gone(&configmap_path(&ns, "ours"), SOON)
        .await?;
    assert!(
        began.elapsed() >= Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    fleet
        .until_work(&name, "app", "nothing is held", |work| {
            muster_tests::objects::is_applied(Some(work))?;
            match condition(work, "RemovalHeld") {
                None => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
    let works = cluster.applied_works().await?;
    assert!(
        works.iter().all(|w| w["metadata"]["annotations"][HELD].is_null()),
        "{works:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn law_3_another_hub_that_lists_nothing_removes_nothing_and_it_is_told() -> Result {
    let fleet = Fleet::joined(1).await?;
    let (name, ns) = (fleet.clusters[0].name.clone(), fleet.clusters[0].namespace());
    let app = work(&name, "app", &[configmap(&ns, "ours", "1")]);
    fleet.create(&app).await?;
    fleet.until_applied(&name, "app").await?;
    let paths = [configmap_path(&ns, "ours")];
    let before = uids(&fleet.clusters[0], &paths).await?;
    fleet.clusters[0].link.cut().await?;
    take_away(&fleet, &name, "app").await?;
    fleet.kube().delete(&cluster_path(&name)).await?;
    fleet.kube().until_gone(&cluster_path(&name), SOON).await?;
    let cluster = json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {"name": name}, "spec": {"hubAcceptsClient": true, "leaseDurationSeconds": 60}});
    fleet.kube().create(CLUSTERS, &cluster).await?;
    fleet.clusters[0].link.heal()?;
    let kept = |reason: Option<&'static str>| {
        move |cluster: Option<&Value>| {
            let cluster = cluster.ok_or("there is no ManagedCluster")?;
            let kept = cluster["status"]["conditions"]
                .as_array()
                .and_then(|c| c.iter().find(|c| c["type"] == "WorksKept"));
            let found = kept.map(|c| c["reason"].as_str().unwrap_or_default());
            if found == reason {
                Ok(kept.map(|c| c["message"].as_str().unwrap_or_default().to_owned()))
            } else {
                Err(format!("WorksKept is {kept:?}, not {reason:?}"))
            }
        }
    };
    let told = fleet
        .kube()
        .until(
            &cluster_path(&name),
            SOON,
            "the hub is told what is kept",
            kept(Some("HubReplaced")),
        )
        .await?;
    let told = told.context("no message")?;
    assert!(
        told.contains("1 of the works") && told.contains("(app)"),
        "{told}"
    );
    assert_eq!(uids(&fleet.clusters[0], &paths).await?, before);
    // The work comes to the new hub, and all is well.
    fleet.create(&app).await?;
    fleet.until_applied(&name, "app").await?;
    fleet
        .kube()
        .until(
            &cluster_path(&name),
            SOON,
            "nothing is kept without the hub",
            kept(None),
        )
        .await?;
    assert_eq!(uids(&fleet.clusters[0], &paths).await?, before);
    Ok(())
}
