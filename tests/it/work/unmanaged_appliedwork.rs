//! What OCM's work/unmanaged_appliedwork shows: what becomes of records whose work the hub does not have.

use super::Rig;
use crate::Result;
use muster_crds::constants::annotations::REMOVAL_HELD;
use muster_tests::objects::{APPLIED_WORKS, configmap, configmap_path, work, work_path};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions};
use serde_json::{Value, json};

const EVICTION: &str = "/status/evictionStartTime";

/// A rig whose work `app` with a ConfigMap `settings` is applied; path of its AppliedManifestWork.
async fn applied() -> anyhow::Result<(Rig, String)> {
    let rig = Rig::start(Fleet::prepare(FleetOptions::default()).await?, 3600).await?;
    let (cluster, ns) = (rig.cluster(), rig.namespace());
    rig.create(&work(&cluster, "app", &[configmap(&ns, "settings", "1")]))
        .await?;
    rig.fleet.until_applied(&cluster, "app").await?;
    let record = format!("{APPLIED_WORKS}/{}-app", rig.hash('a'));
    Ok((rig, record))
}

/// Takes a work from the hub without a word to its agent, as a restored hub does.
async fn lose(rig: &Rig, name: &str) -> Result {
    let path = work_path(&rig.cluster(), name);
    let hub = rig.fleet.kube();
    hub.merge(&path, &json!({"metadata": {"finalizers": null}}))
        .await?;
    hub.delete(&path).await?;
    hub.until_gone(&path, SOON).await
}

async fn until_owned_by(rig: &Rig, records: &[String]) -> Result {
    let names: Vec<&str> = records.iter().filter_map(|r| r.rsplit('/').next()).collect();
    let path = configmap_path(&rig.namespace(), "settings");
    rig.spoke()
        .until(&path, SOON, &format!("it is owned by {names:?}"), |object| {
            let owners = object.ok_or("it is not there")?["metadata"]["ownerReferences"].clone();
            let mut found: Vec<&str> = owners
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|o| o["name"].as_str())
                .collect();
            found.sort_unstable();
            let mut names = names.clone();
            names.sort_unstable();
            (found == names).then_some(()).ok_or_else(|| format!("{found:?}"))
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_hubs_agent_of_another_id_leaves_what_was_there() -> Result {
    let (mut rig, old) = applied().await?;
    rig.stop().await?;
    let (hash, agent) = (rig.hash('b'), format!("{}-other", rig.agent_id()));
    rig.run(&hash, &agent, 0);
    let new = format!("{APPLIED_WORKS}/{hash}-app");
    rig.spoke().until_there(&new, SOON).await?;
    until_owned_by(&rig, &[old.clone(), new]).await?;
    let left = rig.spoke().get(&old).await?;
    assert!(left.pointer(EVICTION).is_none_or(Value::is_null), "{left}");
    rig.stop().await?;
    let (hash, agent) = (rig.hash('a'), rig.agent_id());
    rig.run(&hash, &agent, 3600);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_hub_has_too_outlives_the_first() -> Result {
    let (mut rig, old) = applied().await?;
    let path = configmap_path(&rig.namespace(), "settings");
    let made = rig.spoke().get(&path).await?;
    rig.stop().await?;
    let (hash, agent) = (rig.hash('b'), rig.agent_id());
    // Long enough for the new hub's work to be applied before, as an hour is.
    rig.run(&hash, &agent, 3600);
    let new = format!("{APPLIED_WORKS}/{hash}-app");
    rig.spoke().until_there(&new, SOON).await?;
    until_owned_by(&rig, &[old.clone(), new.clone()]).await?;
    until_field_set(&rig, &old).await?;
    rig.stop().await?;
    rig.run(&hash, &agent, 0);
    rig.spoke().until_gone(&old, SOON).await?;
    until_owned_by(&rig, &[new]).await?;
    let left = rig.spoke().get(&path).await?;
    assert_eq!(left["metadata"]["uid"], made["metadata"]["uid"]);
    rig.end().await
}

async fn until_field_set(rig: &Rig, record: &str) -> Result {
    rig.spoke()
        .until(record, SOON, "its eviction has begun", |applied| {
            let applied = applied.ok_or("it is gone")?;
            let begun = applied.pointer(EVICTION).is_some_and(Value::is_string);
            begun.then_some(()).ok_or_else(|| applied["status"].to_string())
        })
        .await
}

async fn until_field_clear(rig: &Rig, record: &str) -> Result {
    rig.spoke()
        .until(record, SOON, "its eviction is called off", |applied| {
            let applied = applied.ok_or("it is gone")?;
            let clear = applied.pointer(EVICTION).is_none_or(Value::is_null);
            clear.then_some(()).ok_or_else(|| applied["status"].to_string())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hub_lost_is_evicted_after_the_grace_period() -> Result {
    let (mut rig, record) = applied().await?;
    rig.stop().await?;
    lose(&rig, "app").await?;
    let (hash, agent) = (rig.hash('a'), rig.agent_id());
    rig.run(&hash, &agent, 3600);
    until_field_set(&rig, &record).await?;
    rig.spoke()
        .get(&configmap_path(&rig.namespace(), "settings"))
        .await?;
    rig.stop().await?;
    rig.run(&hash, &agent, 1);
    rig.spoke().until_gone(&record, SOON).await?;
    rig.spoke()
        .until_gone(&configmap_path(&rig.namespace(), "settings"), SOON)
        .await?;
    rig.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_that_comes_back_in_time_was_never_away() -> Result {
    let (mut rig, record) = applied().await?;
    let path = configmap_path(&rig.namespace(), "settings");
    let made = rig.spoke().get(&path).await?;
    rig.stop().await?;
    lose(&rig, "app").await?;
    let (hash, agent) = (rig.hash('a'), rig.agent_id());
    rig.run(&hash, &agent, 3600);
    until_field_set(&rig, &record).await?;
    rig.create(&work(
        &rig.cluster(),
        "app",
        &[configmap(&rig.namespace(), "settings", "1")],
    ))
    .await?;
    until_field_clear(&rig, &record).await?;
    rig.fleet.until_applied(&rig.cluster(), "app").await?;
    let now = rig.spoke().get(&path).await?;
    assert_eq!(
        now["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );
    // It is another work of that name, so nothing of it would be removed yet; a person may end that.
    let held = format!("/metadata/annotations/{}", REMOVAL_HELD.replace('/', "~1"));
    rig.spoke()
        .until(&record, SOON, "removal is held", |object| {
            let object = object.ok_or("it is not there")?;
            object.pointer(&held).map(drop).ok_or("it is not".into())
        })
        .await?;
    let let_go = json!({"metadata": {"annotations": {REMOVAL_HELD: null}}});
    rig.spoke().merge(&record, &let_go).await?;
    rig.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_years_of_grace_call_evictions_off() -> Result {
    let (mut rig, record) = applied().await?;
    rig.stop().await?;
    lose(&rig, "app").await?;
    let (hash, agent) = (rig.hash('a'), rig.agent_id());
    rig.run(&hash, &agent, 3600);
    until_field_set(&rig, &record).await?;
    rig.stop().await?;
    rig.run(&hash, &agent, 876_000 * 3600);
    until_field_clear(&rig, &record).await?;
    rig.stop().await?;
    rig.run(&hash, &agent, 0);
    rig.spoke().until_gone(&record, SOON).await?;
    rig.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_a_work_and_without_objects_goes() -> Result {
    let mut rig = Rig::prepare(Fleet::prepare(FleetOptions::default()).await?).await?;
    let (hash, agent) = (rig.hash('a'), rig.agent_id());
    let record = json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "AppliedManifestWork",
        "metadata": {"name": format!("{hash}-fakework")},
        "spec": {"hubHash": hash, "agentID": agent, "manifestWorkName": "fakework"}});
    rig.spoke().create(APPLIED_WORKS, &record).await?;
    rig.run(&hash, &agent, 0);
    rig.spoke()
        .until_gone(&format!("{APPLIED_WORKS}/{hash}-fakework"), SOON)
        .await?;
    rig.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_deleted_while_its_agent_got_another_id_takes_its_objects_along() -> Result {
    let (mut rig, record) = applied().await?;
    rig.stop().await?;
    let path = work_path(&rig.cluster(), "app");
    rig.fleet.kube().delete(&path).await?;
    let (hash, agent) = (rig.hash('a'), format!("{}-new", rig.agent_id()));
    rig.run(&hash, &agent, 3600);
    rig.fleet.kube().until_gone(&path, SOON).await?;
    rig.spoke().until_gone(&record, SOON).await?;
    rig.spoke()
        .until_gone(&configmap_path(&rig.namespace(), "settings"), SOON)
        .await?;
    rig.end().await
}
