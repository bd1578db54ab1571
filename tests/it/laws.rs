//! The laws of the design, each with somebody who tries to break it.

use crate::Result;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_tests::control_plane::is_embedded;
use muster_tests::objects::{
    APPLIED_WORKS, CLUSTERS, CSRS, cluster_path, condition_in, configmap, configmap_path, deployment,
    deployment_path, manifest_status, work, work_path, works_path,
};
use muster_tests::wait::SOON;
use muster_tests::{Answer, Cluster, Fleet, FleetOptions, Impostor, Kube, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

/// Needs a hub whose certificates and data are at hand.
pub fn skipped() -> bool {
    if !is_embedded() {
        eprintln!("skipped: embedded only");
    }
    !is_embedded()
}

pub async fn uids(cluster: &Cluster, paths: &[String]) -> anyhow::Result<Vec<Value>> {
    let mut uids = Vec::new();
    for path in paths {
        uids.push(cluster.kube().get(path).await.context(path.clone())?["metadata"]["uid"].clone());
    }
    Ok(uids)
}

/// Edits a ConfigMap and waits until it is as before: the work agent is at work.
pub async fn drift_is_repaired(cluster: &Cluster, name: &str, value: &str) -> Result {
    let path = configmap_path(&cluster.namespace(), name);
    cluster
        .kube()
        .merge(&path, &json!({"data": {"value": "drifted"}}))
        .await?;
    has_value(&cluster.kube(), &path, value).await
}

pub async fn has_value(kube: &Kube, path: &str, value: &str) -> Result {
    kube.until(path, SOON, &format!("{path} has the value {value}"), |object| {
        let found = object.map(|object| object["data"]["value"].clone());
        (found == Some(json!(value)))
            .then_some(())
            .ok_or_else(|| format!("value is {found:?}"))
    })
    .await
}

// Laws 1 and 6: every work is applied or says why not, manifest by manifest, and what is wrong harms nothing beside it.
#[tokio::test(flavor = "multi_thread")]
async fn law_1_and_6_every_manifest_is_applied_or_says_why_not() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let mut invalid = deployment(&ns, "invalid", 1);
    invalid["spec"]["selector"]["matchLabels"]["app"] = json!("another");
    let mut immutable = deployment(&ns, "immutable", 1);
    spoke
        .create(&format!("/apis/apps/v1/namespaces/{ns}/deployments"), &immutable)
        .await?;
    immutable["spec"]["selector"]["matchLabels"] = json!({"app": "other"});
    immutable["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    let unknown = json!({"apiVersion": "nowhere.example.com/v1", "kind": "Nothing", "metadata": {"name": "unknown", "namespace": ns}});
    let lost = configmap("no-such-namespace", "lost", "1");
    let mistyped = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mistyped", "namespace": ns}, "data": {"n": 1}});
    // What is wrong, and what its condition has to mention.
    let wrong = [
        (invalid, "invalid", "selector"),
        (immutable, "immutable", "immutable"),
        (unknown, "unknown", "Nothing"),
        (lost, "lost", "no-such-namespace"),
        (mistyped, "mistyped", "ConfigMap"),
    ];
    let mut manifests: Vec<Value> = wrong.iter().map(|(manifest, ..)| manifest.clone()).collect();
    manifests.insert(3, configmap(&ns, "right", "1"));
    fleet.create(&work(name, "mixed", &manifests)).await?;
    fleet
        .create(&work(name, "other", &[configmap(&ns, "neighbour", "1")]))
        .await?;
    fleet.until_applied(name, "other").await?;
    let mixed = fleet
        .until_work(name, "mixed", "every manifest has its verdict", |work| {
            match condition_in(&work["status"]["conditions"], "Applied") {
                Some(("False", _)) => {}
                other => return Err(format!("Applied is {other:?}")),
            }
            for (_, name, mention) in &wrong {
                let status = manifest_status(work, name).ok_or_else(|| format!("no status of {name:?}"))?;
                match condition_in(&status["conditions"], "Applied") {
                    Some(("False", message)) if message.contains(mention) => {}
                    other => return Err(format!("{name:?}: Applied is {other:?}, without {mention:?}")),
                }
            }
            Ok(())
        })
        .await?;
    let right = manifest_status(&mixed, "right").context("no status of the right one")?;
    assert_eq!(
        condition_in(&right["conditions"], "Applied").map(|c| c.0),
        Some("True")
    );
    has_value(&spoke, &configmap_path(&ns, "right"), "1").await?;

    // What was missing comes, and the rest is applied without a nudge.
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "nothings.nowhere.example.com"},
        "spec": {"group": "nowhere.example.com", "scope": "Namespaced",
            "names": {"plural": "nothings", "singular": "nothing", "kind": "Nothing", "listKind": "NothingList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    spoke.create(muster_tests::objects::CRDS, &crd).await?;
    let nothing = format!("/apis/nowhere.example.com/v1/namespaces/{ns}/nothings/unknown");
    cluster.plane.until_served("nothings.nowhere.example.com").await?;
    let came = spoke.until_there(&nothing, SOON).await;
    spoke
        .delete(&format!(
            "{}/nothings.nowhere.example.com",
            muster_tests::objects::CRDS
        ))
        .await?;
    came.map(drop)
}

// Law 2: a restart of both sides over unchanged state writes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn law_2_a_restart_writes_nothing() -> Result {
    let mut fleet = Fleet::joined(2).await?;
    for cluster in &fleet.clusters {
        let ns = cluster.namespace();
        for number in 0..5 {
            let name = format!("app{number}");
            let manifests = [
                configmap(&ns, &name, "1"),
                deployment(&ns, &name, 2),
                service(&ns, &name),
            ];
            fleet.create(&work(&cluster.name, &name, &manifests)).await?;
        }
        let failing = json!({"apiVersion": "nowhere.example.com/v1", "kind": "Nothing", "metadata": {"name": "x", "namespace": ns}});
        fleet.create(&work(&cluster.name, "failing", &[failing])).await?;
    }
    for cluster in &fleet.clusters {
        for number in 0..5 {
            fleet
                .until_work(&cluster.name, &format!("app{number}"), "it is applied", applied)
                .await?;
        }
        fleet
            .until_work(
                &cluster.name,
                "failing",
                "it is refused",
                |work| match condition_in(&work["status"]["conditions"], "Applied") {
                    Some(("False", _)) => Ok(()),
                    other => Err(format!("{other:?}")),
                },
            )
            .await?;
    }
    let before = settled(&fleet).await?;
    for cluster in &mut fleet.clusters {
        cluster.stop().await?;
    }
    fleet.hub.stop().await?;
    fleet.hub.start();
    for cluster in &mut fleet.clusters {
        cluster.start();
    }
    // Each agent has been through what it knows when it is through with what comes after; three times to be sure.
    for cluster in &fleet.clusters {
        for round in 0..3 {
            let marker = format!("marker{round}");
            fleet
                .create(&work(
                    &cluster.name,
                    &marker,
                    &[configmap(&cluster.namespace(), &marker, "1")],
                ))
                .await?;
            fleet
                .until_work(&cluster.name, &marker, "it is applied", applied)
                .await?;
        }
    }
    let after = settled(&fleet).await?;
    let changed: Vec<_> = before
        .iter()
        // The copy of the works for times without a hub has the markers now.
        .filter(|(object, _)| !object.contains("/muster-works-"))
        // A hub beside its API server takes its webhook away when it ends, and serves the next at another port.
        .filter(|(object, _)| !object.contains("webhookconfigurations "))
        .filter(|(object, version)| after.get(*object) != Some(version))
        .collect();
    assert!(changed.is_empty(), "written by the restart: {changed:#?}");
    let made: Vec<_> = after
        .keys()
        .filter(|o| !before.contains_key(*o) && !o.contains("marker"))
        .collect();
    assert!(made.is_empty(), "made by the restart: {made:#?}");
    Ok(())
}

fn applied(work: &Value) -> std::result::Result<(), String> {
    muster_tests::objects::is_applied(Some(work))
}

fn service(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}})
}

/// The version of every object on all sides, once it is the same for a while.
async fn settled(fleet: &Fleet) -> anyhow::Result<BTreeMap<String, String>> {
    const QUIET: std::time::Duration = std::time::Duration::from_secs(2);
    let mut last: Option<(std::time::Instant, BTreeMap<String, String>)> = None;
    loop {
        let mut all = BTreeMap::new();
        let hub = fleet.kube().versions().await?;
        all.extend(
            hub.into_iter()
                .map(|(object, version)| (format!("hub {object}"), version)),
        );
        for cluster in &fleet.clusters {
            let versions = cluster.kube().versions().await?;
            let name = &cluster.name;
            all.extend(
                versions
                    .into_iter()
                    .map(|(object, version)| (format!("{name} {object}"), version)),
            );
        }
        match last {
            Some((since, same)) if same == all && since.elapsed() >= QUIET => return Ok(all),
            Some((since, same)) if same == all => last = Some((since, same)),
            _ => last = Some((std::time::Instant::now(), all)),
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

// Law 3: whatever a hub answers for a while, also to a klusterlet that just started, nothing is deleted.
#[tokio::test(flavor = "multi_thread")]
async fn law_3_wrong_answers_delete_nothing() -> Result {
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
    fleet
        .create(&work(
            &name,
            "app",
            &[configmap(&ns, "settings", "1"), deployment(&ns, "web", 1)],
        ))
        .await?;
    fleet.until_applied(&name, "app").await?;
    let paths = [configmap_path(&ns, "settings"), deployment_path(&ns, "web")];
    let before = uids(&fleet.clusters[0], &paths).await?;
    saved(&fleet.clusters[0], "app").await?;
    fleet.hub.stop().await?;
    fleet.hub.plane.stop().await;
    let (address, data) = (
        fleet.hub.plane.address(),
        fleet.hub.plane.data_dir().context("on disk")?.to_owned(),
    );
    for answer in [
        Answer::Refuse(401, "Unauthorized"),
        Answer::Refuse(403, "Forbidden"),
        Answer::Refuse(410, "Expired"),
        Answer::Nothing,
    ] {
        let impostor = Impostor::start(address, &data, answer).await?;
        for restarted in [false, true] {
            if restarted {
                fleet.clusters[0].crash().await;
                fleet.clusters[0].start();
            }
            let seen = impostor.asked_for_works();
            let enough = if answer == Answer::Nothing { 2 } else { 3 };
            eventually(
                SOON,
                &format!("{answer:?}: the klusterlet asks for works"),
                async || {
                    let asked = impostor.asked_for_works() - seen;
                    if asked >= enough {
                        Ok(())
                    } else {
                        Err(format!("asked {asked} times"))
                    }
                },
            )
            .await?;
            drift_is_repaired(&fleet.clusters[0], "settings", "1")
                .await
                .with_context(|| format!("{answer:?}"))?;
            assert_eq!(
                uids(&fleet.clusters[0], &paths).await?,
                before,
                "{answer:?}, restarted: {restarted}"
            );
        }
        impostor.stop().await;
    }
    fleet.hub.plane.start_again().await?;
    fleet.hub.start();
    fleet
        .set_manifests(
            &name,
            "app",
            &[configmap(&ns, "settings", "2"), deployment(&ns, "web", 1)],
        )
        .await?;
    fleet.until_applied(&name, "app").await?;
    has_value(&fleet.clusters[0].kube(), &paths[0], "2").await?;
    assert_eq!(uids(&fleet.clusters[0], &paths).await?, before);
    Ok(())
}

// Law 3: a hub restored from a backup without the works is no order to delete; the works come back to what is there.
#[tokio::test(flavor = "multi_thread")]
async fn law_3_a_restored_hub_deletes_nothing() -> Result {
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
    let data = fleet.hub.plane.data_dir().context("on disk")?.to_owned();
    let backup = tempfile::TempDir::with_prefix("muster-test-backup-")?;
    fleet.hub.stop().await?;
    fleet.hub.plane.stop().await;
    copy(&data, backup.path())?;
    fleet.hub.plane.start_again().await?;
    fleet.hub.start();

    let app = work(&name, "app", &[configmap(&ns, "settings", "1")]);
    fleet.create(&app).await?;
    fleet.until_applied(&name, "app").await?;
    let paths = [configmap_path(&ns, "settings")];
    let before = uids(&fleet.clusters[0], &paths).await?;

    fleet.hub.stop().await?;
    fleet.hub.plane.stop().await;
    std::fs::remove_dir_all(&data)?;
    copy(backup.path(), &data)?;
    fleet.hub.plane.start_again().await?;
    fleet.hub.start();
    let eviction = |set: bool| {
        move |works: &muster_tests::kube::Objects| {
            let started = works
                .values()
                .any(|work| work["status"]["evictionStartTime"].is_string());
            (works.len() == 1 && started == set)
                .then_some(())
                .ok_or_else(|| format!("{works:?}"))
        }
    };
    let spoke = fleet.clusters[0].kube();
    spoke
        .until_all(
            APPLIED_WORKS,
            SOON,
            "the klusterlet misses the work",
            eviction(true),
        )
        .await?;
    assert_eq!(uids(&fleet.clusters[0], &paths).await?, before);
    assert!(
        fleet.kube().list(&works_path(&name)).await?.is_empty(),
        "the backup has the work"
    );

    fleet.create(&app).await?;
    fleet.until_applied(&name, "app").await?;
    spoke
        .until_all(APPLIED_WORKS, SOON, "the eviction is called off", eviction(false))
        .await?;
    assert_eq!(uids(&fleet.clusters[0], &paths).await?, before);
    Ok(())
}

/// Law 3: what has the right name but is not ours stays.
#[tokio::test(flavor = "multi_thread")]
async fn law_3_an_object_that_is_no_longer_ours_stays() -> Result {
    let mut fleet = Fleet::joined(1).await?;
    let (name, ns) = (fleet.clusters[0].name.clone(), fleet.clusters[0].namespace());
    let spoke = fleet.clusters[0].kube();
    fleet
        .create(&work(&name, "app", &[configmap(&ns, "settings", "1")]))
        .await?;
    fleet.until_applied(&name, "app").await?;
    let path = configmap_path(&ns, "settings");
    fleet.clusters[0].stop().await?;
    spoke.delete(&path).await?;
    let theirs = spoke
        .create(
            &format!("/api/v1/namespaces/{ns}/configmaps"),
            &configmap(&ns, "settings", "theirs"),
        )
        .await?;
    fleet.kube().delete(&work_path(&name, "app")).await?;
    fleet.clusters[0].start();
    fleet.kube().until_gone(&work_path(&name, "app"), SOON).await?;
    let left = spoke.get(&path).await?;
    assert_eq!(left["metadata"]["uid"], theirs["metadata"]["uid"]);
    Ok(())
}

// Law 4: with a klusterlet's own credentials, every verb on every resource.
#[tokio::test(flavor = "multi_thread")]
async fn law_4_a_klusterlet_reaches_nothing_that_is_not_its_own() -> Result {
    let fleet = Fleet::joined(2).await?;
    let (one, two) = (&fleet.clusters[0].name, &fleet.clusters[1].name);
    fleet
        .create(&work(
            two,
            "theirs",
            &[configmap(&fleet.clusters[1].namespace(), "theirs", "secret")],
        ))
        .await?;
    let agent = fleet.clusters[0].at_hub().await?;
    // It can do its own work, so a refusal below is about whose it is.
    agent.list(&works_path(one)).await?;
    agent.get(&cluster_path(one)).await?;

    let own: &[(&str, &[&str])] = &[(CSRS, &["list", "watch", "get", "create"])];
    let mut refused = 0;
    let mut open = Vec::new();
    for (collection, namespaced) in collections(&fleet.kube()).await? {
        let mut places = vec![collection.clone()];
        if namespaced {
            let (root, plural) = collection.rsplit_once('/').context("a collection has a name")?;
            places
                .extend([two, "default", "kube-system"].map(|ns| format!("{root}/namespaces/{ns}/{plural}")));
        }
        for place in places {
            // One that exists where there is one: not finding it would prove nothing.
            let there = fleet.kube().list(&place).await.unwrap_or_default();
            // Not the cluster's own object, nor its own namespace.
            let there = there.iter().find(|o| {
                o["metadata"]["name"] != one.as_str() && o["metadata"]["namespace"] != one.as_str()
            });
            let name = there
                .and_then(|o| o["metadata"]["name"].as_str())
                .unwrap_or("anything")
                .to_owned();
            let object = there
                .cloned()
                .unwrap_or_else(|| json!({"metadata": {"name": name}}));
            let allowed = own
                .iter()
                .find(|(path, _)| *path == place)
                .map_or(&[][..], |(_, verbs)| verbs);
            for (verb, result) in every_verb(&agent, &place, &name, &object).await {
                match result {
                    Err(r) if r.code == 403 => refused += 1,
                    // Not a verb of this resource: nothing to get.
                    Err(r) if r.code == 405 => {}
                    _ if allowed.contains(&verb) => {}
                    other => open.push(format!("{verb} {place}/{name}: {:?}", other.map(|_| "done"))),
                }
            }
        }
    }
    assert!(open.is_empty(), "open to {one}'s klusterlet: {open:#?}");
    assert!(refused > 500, "only {refused} requests were tried");

    // Its own ManagedCluster it reads and reports on, but does not accept, and its request it does not approve.
    let mine = agent.get(&cluster_path(one)).await?;
    assert_eq!(
        agent.delete(&cluster_path(one)).await.map_err(|r| r.code),
        Err(403)
    );
    assert_eq!(
        agent
            .create(
                CLUSTERS,
                &json!({"apiVersion": mine["apiVersion"], "kind": "ManagedCluster",
        "metadata": {"name": "another"}})
            )
            .await
            .map_err(|r| r.code),
        Err(403)
    );
    let csrs = agent.list(CSRS).await?;
    let csr = csrs.first().context("a CSR")?;
    let path = format!("{CSRS}/{}", csr["metadata"]["name"].as_str().unwrap_or_default());
    for sub in ["approval", "status"] {
        let answer = agent.replace(&format!("{path}/{sub}"), csr).await;
        assert_eq!(answer.map_err(|r| r.code), Err(403), "{sub} of a CSR");
    }
    for (path, sub) in [
        (work_path(two, "theirs"), "/status"),
        (cluster_path(two), "/status"),
    ] {
        let answer = agent
            .merge(&format!("{path}{sub}"), &json!({"status": {"conditions": []}}))
            .await;
        assert_eq!(answer.map_err(|r| r.code), Err(403), "{path}{sub}");
    }
    // Nor as somebody else.
    let request = http::Request::get(format!("{}{}", "", works_path(two)))
        .header("Impersonate-User", "admin")
        .header("Impersonate-Group", "system:masters")
        .body(Vec::new())?;
    let answer = agent.client().request::<Value>(request).await;
    assert!(
        matches!(answer, Err(kube::Error::Api(status)) if status.code == 403),
        "impersonation"
    );
    Ok(())
}

async fn collections(hub: &Kube) -> anyhow::Result<Vec<(String, bool)>> {
    let mut found = Vec::new();
    for (_, path) in hub.collections().await? {
        let (root, plural) = path.rsplit_once('/').context("a collection has a name")?;
        let resources = hub.get(root).await?;
        let resource = resources["resources"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|r| r["name"] == plural);
        found.push((path.clone(), resource.is_some_and(|r| r["namespaced"] == true)));
    }
    Ok(found)
}

type Answered = std::result::Result<Value, muster_tests::kube::Refused>;

async fn every_verb(agent: &Kube, place: &str, name: &str, object: &Value) -> Vec<(&'static str, Answered)> {
    let path = format!("{place}/{name}");
    let patch = json!({"metadata": {"labels": {"mine": "now"}}});
    let mut watch = Ok(Value::Null);
    let request = http::Request::get(format!("{place}?watch=1&timeoutSeconds=1")).body(Vec::new());
    if let Ok(request) = request {
        watch = agent
            .client()
            .request_events::<Value>(request)
            .await
            .map(|_| Value::Null)
            .map_err(Into::into);
    }
    vec![
        ("list", agent.get(place).await),
        ("watch", watch),
        ("create", agent.create(place, object).await),
        ("deletecollection", agent.delete(place).await),
        ("get", agent.get(&path).await),
        ("update", agent.replace(&path, object).await),
        ("patch", agent.merge(&path, &patch).await),
        ("apply", agent.apply(&path, "thief", true, object).await),
        ("delete", agent.delete(&path).await),
    ]
}

// Law 5: without its hub, also after its own restart, the klusterlet keeps the works in place.
#[tokio::test(flavor = "multi_thread")]
async fn law_5_cut_off_it_carries_on() -> Result {
    let mut fleet = Fleet::joined(1).await?;
    let (name, ns) = (fleet.clusters[0].name.clone(), fleet.clusters[0].namespace());
    fleet
        .create(&work(
            &name,
            "app",
            &[configmap(&ns, "settings", "1"), deployment(&ns, "web", 1)],
        ))
        .await?;
    fleet.until_applied(&name, "app").await?;
    saved(&fleet.clusters[0], "app").await?;
    let paths = [configmap_path(&ns, "settings"), deployment_path(&ns, "web")];
    let before = uids(&fleet.clusters[0], &paths).await?;

    fleet.clusters[0].link.cut().await?;
    drift_is_repaired(&fleet.clusters[0], "settings", "1").await?;
    for crashed in [false, true] {
        if crashed {
            fleet.clusters[0].crash().await;
        } else {
            fleet.clusters[0].stop().await?;
        }
        // What happens while it is away is seen when it is back.
        fleet.clusters[0]
            .kube()
            .merge(&paths[0], &json!({"data": {"value": "drifted"}}))
            .await?;
        fleet.clusters[0].start();
        has_value(&fleet.clusters[0].kube(), &paths[0], "1")
            .await
            .context("after a restart without hub")?;
        drift_is_repaired(&fleet.clusters[0], "settings", "1")
            .await
            .context("while running without hub")?;
    }
    assert_eq!(uids(&fleet.clusters[0], &paths).await?, before);

    // The hub changes one thing and adds another meanwhile; both arrive once the link is healed.
    fleet
        .set_manifests(
            &name,
            "app",
            &[configmap(&ns, "settings", "2"), deployment(&ns, "web", 1)],
        )
        .await?;
    fleet
        .create(&work(&name, "new", &[configmap(&ns, "new", "1")]))
        .await?;
    drift_is_repaired(&fleet.clusters[0], "settings", "1").await?;
    fleet.clusters[0].link.heal()?;
    fleet.until_applied(&name, "app").await?;
    fleet.until_applied(&name, "new").await?;
    has_value(&fleet.clusters[0].kube(), &paths[0], "2").await?;
    assert_eq!(uids(&fleet.clusters[0], &paths).await?, before);
    Ok(())
}

/// Waits until the klusterlet has put this work by for times without a hub.
async fn saved(cluster: &Cluster, work: &str) -> Result {
    let secrets = format!("/api/v1/namespaces/{}/secrets", cluster.options.namespace);
    let name = format!("\"name\":\"{work}\"");
    cluster
        .kube()
        .until_all(
            &secrets,
            SOON,
            "the known works are saved on the cluster",
            |secrets| {
                let ours = secrets
                    .iter()
                    .filter(|((_, name), _)| name.starts_with("muster-works-"));
                let mut found = ours.map(|(_, secret)| unpacked(secret).unwrap_or_default());
                found
                    .any(|text| text.contains(&name))
                    .then_some(())
                    .ok_or_else(|| format!("not in any of {:?}", secrets.keys()))
            },
        )
        .await
}

/// What a Secret with saved works holds, as JSON text.
pub fn unpacked(secret: &Value) -> anyhow::Result<String> {
    let packed = STANDARD.decode(secret["data"]["works.json.gz"].as_str().context("no data")?)?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text)?;
    Ok(text)
}

pub fn copy(from: &Path, to: &Path) -> Result {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
