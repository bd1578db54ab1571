//! Events of what works applied, and of what that owns, are told at the hub.

use crate::{MUSTER, Result, kubectl};
use futures::{StreamExt as _, TryStreamExt as _};
use muster_tests::objects::{configmap, configmap_path, work};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, Kube, Program, eventually};
use serde_json::{Value, json};
use std::time::Instant;

fn events_path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/events")
}

/// An Event as a component of the managed cluster writes it.
fn event(name: &str, object: &Value, reason: &str, message: &str) -> Value {
    let namespace = &object["metadata"]["namespace"];
    let now = jiff::Timestamp::now().to_string();
    let now = k8s_time(&now);
    json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"apiVersion": "v1", "kind": object["kind"], "namespace": namespace,
            "name": object["metadata"]["name"], "uid": object["metadata"]["uid"]},
        "type": "Warning", "reason": reason, "message": message, "count": 1,
        "firstTimestamp": now, "lastTimestamp": now, "source": {"component": "test", "host": "n1"}})
}

/// metav1.Time has whole seconds.
fn k8s_time(text: &str) -> String {
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text.to_owned(),
    }
}

/// The events at the hub about a work.
async fn told(hub: &Kube, cluster: &str, work: &str) -> anyhow::Result<Vec<Value>> {
    let mut events = hub.list(&events_path(cluster)).await?;
    events.retain(|e| e["involvedObject"]["kind"] == "ManifestWork" && e["involvedObject"]["name"] == work);
    Ok(events)
}

/// Waits until the hub has an event of this reason and count about the work; all its events.
async fn until_told(
    hub: &Kube,
    cluster: &str,
    work: &str,
    reason: &str,
    count: u64,
) -> anyhow::Result<Vec<Value>> {
    eventually(
        SOON,
        &format!("{reason} of {work} is told {count} times"),
        async || {
            let events = told(hub, cluster, work).await.map_err(|e| e.to_string())?;
            let there = events
                .iter()
                .any(|e| e["reason"] == reason && e["count"].as_u64().is_some_and(|c| c >= count));
            if there {
                Ok(events)
            } else {
                Err(format!("{events:?}"))
            }
        },
    )
    .await
}

fn reasons(events: &[Value]) -> Vec<&str> {
    let mut reasons: Vec<&str> = events.iter().filter_map(|e| e["reason"].as_str()).collect();
    reasons.sort_unstable();
    reasons
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_applied_and_owned_objects_is_told_and_counted() -> Result {
    let mut fleet = Fleet::joined(1).await?;
    let hub = fleet.kube();
    let (name, ns) = (fleet.clusters[0].name.clone(), fleet.clusters[0].namespace());
    let spoke = fleet.clusters[0].kube();
    fleet
        .create(&work(&name, "app", &[configmap(&ns, "ours", "1")]))
        .await?;
    fleet.until_applied(&name, "app").await?;
    let maps = format!("/api/v1/namespaces/{ns}/configmaps");
    let ours = spoke.get(&configmap_path(&ns, "ours")).await?;
    let owned_by = |owner: &Value, name: &str| {
        let mut map = configmap(&ns, name, "");
        map["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap",
            "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}]);
        map
    };
    let child = spoke.create(&maps, &owned_by(&ours, "child")).await?;
    let grandchild = spoke.create(&maps, &owned_by(&child, "grandchild")).await?;
    let foreign = spoke.create(&maps, &configmap(&ns, "foreign", "")).await?;
    let of_foreign = spoke.create(&maps, &owned_by(&foreign, "of-foreign")).await?;
    let events = events_path(&ns);
    let mut last = Value::Null;
    for (object, reason) in [
        (&foreign, "Foreign"),
        (&of_foreign, "Foreign"),
        (&ours, "Applied"),
        (&child, "Owned"),
        (&grandchild, "OwnedByOwned"),
    ] {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let event = event(&format!("{name}.1"), object, reason, "it fails");
        last = spoke.create(&events, &event).await?;
    }
    let found = until_told(&hub, &name, "app", "OwnedByOwned", 1).await?;
    assert_eq!(reasons(&found), ["Applied", "Owned", "OwnedByOwned"]);
    let of_grandchild = found.iter().find(|e| e["reason"] == "OwnedByOwned");
    let of_grandchild = of_grandchild.ok_or_else(|| anyhow::anyhow!("{found:?}"))?;
    assert_eq!(of_grandchild["related"]["name"], "grandchild");
    assert_eq!(of_grandchild["type"], "Warning");
    assert_eq!(
        of_grandchild["message"],
        format!("ConfigMap {ns}/grandchild: it fails")
    );

    // It is counted, not told again; also not by a klusterlet that starts anew.
    let path = format!("{events}/grandchild.1");
    let again = |count: u32| {
        // Events have whole seconds, and what is not later than what the hub has is not news.
        let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2 * i64::from(count));
        json!({"count": count, "lastTimestamp": k8s_time(&later.to_string()), "metadata": {"uid": last["metadata"]["uid"]}})
    };
    spoke.merge(&path, &again(5)).await?;
    assert_eq!(until_told(&hub, &name, "app", "OwnedByOwned", 5).await?.len(), 3);
    fleet.clusters[0].stop().await?;
    fleet.clusters[0].start();
    // It says so once it is there; events before that are not told again.
    let marker = "ready";
    let made = spoke.create(&maps, &owned_by(&ours, marker)).await?;
    eventually(SOON, "the klusterlet watches events again", async || {
        let name_of = format!("{marker}.{:x}", rand::random::<u32>());
        let event = event(&name_of, &made, "Ready", "again");
        spoke.create(&events, &event).await.map_err(|e| e.to_string())?;
        match told(&hub, &name, "app").await {
            Ok(found) if found.iter().any(|e| e["reason"] == "Ready") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    spoke.merge(&path, &again(7)).await?;
    let found = until_told(&hub, &name, "app", "OwnedByOwned", 7).await?;
    assert_eq!(reasons(&found), ["Applied", "Owned", "OwnedByOwned", "Ready"]);

    // As people read it.
    let program = Program::new(MUSTER)?;
    let admin = fleet.hub.plane.kubeconfig().display().to_string();
    let ok = async |args: &[&str]| -> anyhow::Result<String> {
        let run = program.run(&[args, &["--kubeconfig", &admin]].concat()).await?;
        anyhow::ensure!(run.code == 0, "{args:?}: {run:?}");
        Ok(run.stdout)
    };
    let shown = ok(&["events", "--work", "app", "--cluster", &name]).await?;
    let line = shown.lines().find(|l| l.contains("OwnedByOwned"));
    let line = line.ok_or_else(|| anyhow::anyhow!("{shown}"))?;
    for part in [
        "(x7 over ",
        "Warning",
        &format!("ConfigMap/{ns}/grandchild"),
        "it fails",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    assert!(!shown.contains("Foreign"), "{shown}");
    let normal = ["events", "--cluster", &name, "--types", "Normal", "-o", "name"];
    assert_eq!(ok(&normal).await?, "");
    let warnings = ["events", "--cluster", &name, "--types", "warning", "-o", "json"];
    let warnings: Value = serde_json::from_str(&ok(&warnings).await?)?;
    assert_eq!(warnings["items"].as_array().map(Vec::len), Some(4), "{warnings}");
    let all = ok(&["events", "-A"]).await?;
    assert!(
        all.lines().any(|l| l.contains(&name) && l.contains(" app ")),
        "{all}"
    );
    let status = ok(&["work", "status", "app", "--cluster", &name]).await?;
    assert!(
        status.contains("Latest warnings")
            && status.contains(&format!("ConfigMap/{ns}/grandchild: it fails")),
        "{status}"
    );
    if let Some(kubectl) = kubectl::found() {
        let args = ["--kubeconfig", &admin, "get", "events", "-n", &name];
        let run = Program::other(&kubectl, &args).await?;
        assert!(
            run.code == 0
                && run.stdout.contains("manifestwork/app")
                && run.stdout.contains("grandchild: it fails"),
            "{run:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_events_is_bounded_and_hides_no_other_work() -> Result {
    let fleet = Fleet::joined(1).await?;
    let (cluster, hub) = (&fleet.clusters[0], fleet.kube());
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    for work_name in ["loud", "calm"] {
        let map = configmap(&ns, work_name, "1");
        fleet.create(&work(name, work_name, &[map])).await?;
        fleet.until_applied(name, work_name).await?;
    }
    let loud = spoke.get(&configmap_path(&ns, "loud")).await?;
    let calm = spoke.get(&configmap_path(&ns, "calm")).await?;
    let begun = Instant::now();
    let events = events_path(&ns);
    let flood = (0..2_000).map(|number| {
        // Half of them differ in their reason, half in their message only.
        let (reason, message) = if number % 2 == 0 {
            (format!("R{number}"), "it fails".to_owned())
        } else {
            ("Probe".to_owned(), format!("it took {number} ms"))
        };
        let event = event(&format!("loud.{number}"), &loud, &reason, &message);
        let (spoke, events) = (spoke.clone(), events.clone());
        async move { spoke.create(&events, &event).await.map(drop) }
    });
    futures::stream::iter(flood)
        .buffer_unordered(64)
        .try_collect::<Vec<()>>()
        .await?;
    spoke
        .create(&events, &event("calm.1", &calm, "Calm", "one word"))
        .await?;
    until_told(&hub, name, "calm", "Calm", 1).await?;
    let told = told(&hub, name, "loud").await?;
    // 30 at once and one in two seconds; a request more may be under way.
    let most = 31 + begun.elapsed().as_secs() / 2 + 1;
    assert!(
        !told.is_empty() && told.len() as u64 <= most,
        "{} of at most {most}",
        told.len()
    );
    Ok(())
}
