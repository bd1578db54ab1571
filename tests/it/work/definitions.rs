//! CustomResourceDefinitions that are deleted and made anew while works have objects of them: where the objects are now is
//! found out.

use super::{applied_resources, applied_work, config, definition, delete, until_condition, until_field};
use crate::Result;
use muster_tests::objects::{CRDS, condition_in, feedback, manifest_status, work, work_with};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, Kube};
use serde_json::{Value, json};

/// A definition of the same group and kind with another plural.
fn with_plural(crd: &Value, plural: &str) -> Value {
    let mut crd = crd.clone();
    let group = crd["spec"]["group"].as_str().unwrap_or_default().to_owned();
    crd["metadata"]["name"] = json!(format!("{plural}.{group}"));
    crd["spec"]["names"]["plural"] = json!(plural);
    crd
}

fn path_of(crd: &Value) -> String {
    format!("{CRDS}/{}", crd["metadata"]["name"].as_str().unwrap_or_default())
}

async fn make(kube: &Kube, crd: &Value) -> Result {
    kube.create(CRDS, crd).await?;
    let what = "the definition is in force";
    kube.until(&path_of(crd), SOON, what, |crd| {
        muster_tests::objects::has_condition(crd, "Established", "True")
    })
    .await
}

async fn unmake(kube: &Kube, crd: &Value) -> Result {
    kube.delete(&path_of(crd)).await?;
    kube.until_gone(&path_of(crd), SOON).await
}

/// Waits until a work is applied to objects of this resource and scope.
async fn until_applied_as(fleet: &Fleet, cluster: &str, work: &str, plural: &str, namespace: &str) -> Result {
    let what = format!("it is applied as {plural} in {namespace:?}");
    fleet
        .until_work(cluster, work, &what, |work| {
            muster_tests::objects::is_applied(Some(work))?;
            let meta = &manifest_status(work, "one").ok_or("no status")?["resourceMeta"];
            let namespaced = meta["namespace"].as_str().unwrap_or_default();
            (meta["resource"] == plural && namespaced == namespace)
                .then_some(())
                .ok_or_else(|| meta.to_string())
        })
        .await
        .map(drop)
}

/// The object is kept as it should be, and recorded where it is.
async fn is_kept(fleet: &Fleet, path: &str, plural: &str) -> Result {
    let spoke = fleet.clusters[0].kube();
    until_field(&spoke, path, "/spec/size", &json!(1)).await?;
    spoke.merge(path, &json!({"spec": {"size": 5}})).await?;
    until_field(&spoke, path, "/spec/size", &json!(1)).await?;
    let uid = super::uid(&spoke.get(path).await?);
    muster_tests::eventually(SOON, "it is recorded, and nothing else is", async || {
        let record = applied_work(fleet, 0, "app")
            .await
            .map_err(|e| format!("{e:#}"))?;
        let list = applied_resources(&record);
        match list.as_slice() {
            [one] if one["resource"] == plural && one["uid"] == uid.as_str() => Ok(()),
            _ => Err(format!("{list:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_made_anew_with_another_plural_is_followed() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let plural = format!("plates{}", name.replace('-', ""));
    let (crd, things) = definition(&plural, "Plate", &ns);
    let (root, _) = things.rsplit_once('/').unwrap_or_default();
    make(&spoke, &crd).await?;
    let thing = json!({"apiVersion": format!("{plural}.example.com/v1"), "kind": "Plate",
        "metadata": {"name": "one", "namespace": ns}, "spec": {"size": 1}});
    fleet.create(&work(name, "app", &[thing])).await?;
    until_applied_as(&fleet, name, "app", &plural, &ns).await?;
    is_kept(&fleet, &format!("{things}/one"), &plural).await?;

    unmake(&spoke, &crd).await?;
    let other = format!("dishes{}", name.replace('-', ""));
    let anew = with_plural(&crd, &other);
    make(&spoke, &anew).await?;
    until_applied_as(&fleet, name, "app", &other, &ns).await?;
    is_kept(&fleet, &format!("{root}/{other}/one"), &other).await?;

    // Not there for a while, that is told; as it was before, it is as it was before.
    unmake(&spoke, &anew).await?;
    until_condition(&fleet, name, "app", "Applied", "False").await?;
    make(&spoke, &crd).await?;
    until_applied_as(&fleet, name, "app", &plural, &ns).await?;
    is_kept(&fleet, &format!("{things}/one"), &plural).await?;
    delete(&fleet, name, "app").await?;
    spoke.until_gone(&format!("{things}/one"), SOON).await?;
    unmake(&spoke, &crd).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_made_anew_with_another_scope_is_followed() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let plural = format!("bowls{}", name.replace('-', ""));
    let (crd, things) = definition(&plural, "Bowl", &ns);
    let mut wide = crd.clone();
    wide["spec"]["scope"] = json!("Cluster");
    let over_all = format!("/apis/{plural}.example.com/v1/{plural}");
    make(&spoke, &crd).await?;
    let thing = json!({"apiVersion": format!("{plural}.example.com/v1"), "kind": "Bowl",
        "metadata": {"name": "one", "namespace": ns}, "spec": {"size": 1}});
    fleet.create(&work(name, "app", &[thing])).await?;
    until_applied_as(&fleet, name, "app", &plural, &ns).await?;
    for (former, next, path, namespace) in [
        (&crd, &wide, format!("{over_all}/one"), ""),
        (&wide, &crd, format!("{things}/one"), ns.as_str()),
    ] {
        unmake(&spoke, former).await?;
        make(&spoke, next).await?;
        until_applied_as(&fleet, name, "app", &plural, namespace).await?;
        is_kept(&fleet, &path, &plural).await?;
    }
    delete(&fleet, name, "app").await?;
    spoke.until_gone(&format!("{things}/one"), SOON).await?;
    unmake(&spoke, &crd).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_read_is_read_where_it_is_now() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let plural = format!("cups{}", name.replace('-', ""));
    let (crd, things) = definition(&plural, "Cup", &ns);
    let (root, _) = things.rsplit_once('/').unwrap_or_default();
    let other = format!("mugs{}", name.replace('-', ""));
    let anew = with_plural(&crd, &other);
    make(&spoke, &crd).await?;
    let mut thing = json!({"apiVersion": format!("{plural}.example.com/v1"), "kind": "Cup",
        "metadata": {"name": "one", "namespace": ns}, "spec": {"size": 1}});
    spoke.create(&things, &thing).await?;
    let group = format!("{plural}.example.com");
    let told = |plural: &str| {
        config(
            &group,
            plural,
            &ns,
            "one",
            &json!({"updateStrategy": {"type": "ReadOnly"},
            "feedbackRules": [{"type": "JSONPaths", "jsonPaths": [{"name": "size", "path": ".spec.size"}]}]}),
        )
    };
    let spec = json!({"manifestConfigs": [told(&plural), told(&other)]});
    fleet
        .create(&work_with(name, "app", &[thing.clone()], &spec))
        .await?;
    let until_size = async |size: i64| {
        fleet
            .until_work(name, "app", "the value comes", |work| {
                match feedback(work, "one", "size") {
                    Some(found) if found == size => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await
    };
    until_size(1).await?;
    unmake(&spoke, &crd).await?;
    fleet
        .until_work(name, "app", "it is told that it is gone", |work| {
            let told = manifest_status(work, "one").ok_or("no status")?;
            match condition_in(&told["conditions"], "Available") {
                Some(("True", _)) | None => Err(told.to_string()),
                Some(_) => Ok(()),
            }
        })
        .await?;
    make(&spoke, &anew).await?;
    thing["spec"]["size"] = json!(2);
    spoke.create(&format!("{root}/{other}"), &thing).await?;
    until_size(2).await?;
    spoke
        .merge(&format!("{root}/{other}/one"), &json!({"spec": {"size": 3}}))
        .await?;
    until_size(3).await?;
    delete(&fleet, name, "app").await?;
    spoke.get(&format!("{root}/{other}/one")).await?;
    unmake(&spoke, &anew).await
}
