//! Webhooks of the managed cluster that refuse, and that do not answer.

use super::{manifest_condition, until_manifest, until_value};
use crate::Result;
use muster_tests::objects::{configmap, configmap_path, has_condition, manifest_status, work};
use muster_tests::wait::SOON;
use muster_tests::{Does, Fleet, Kube, Webhook};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A ConfigMap that the webhook is asked about.
fn asked(namespace: &str, name: &str) -> Value {
    let mut map = configmap(namespace, name, "1");
    map["metadata"]["labels"] = json!({"webhook": "asked"});
    map
}

/// Waits until the cluster asks the webhook before it makes anything.
async fn is_asked(spoke: &Kube, webhook: &Webhook, namespace: &str) -> Result {
    let trial = format!("/api/v1/namespaces/{namespace}/configmaps?dryRun=All");
    muster_tests::eventually(SOON, "the webhook is asked", async || {
        // How it is answered does not matter, and it may not be.
        let object = asked(namespace, "trial");
        let _ = tokio::time::timeout(Duration::from_millis(200), spoke.create(&trial, &object)).await;
        (webhook.asked() > 0)
            .then_some(())
            .ok_or_else(|| "nobody asks it".to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_webhook_refuses_is_told_in_its_words_and_the_rest_is_applied() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let webhook = Webhook::start(Does::Refuse("the gate stays shut on Sundays".into())).await?;
    webhook.install(&spoke, &ns, Duration::from_secs(5)).await?;
    is_asked(&spoke, &webhook, &ns).await?;
    let manifests = [
        configmap(&ns, "first", "1"),
        asked(&ns, "refused"),
        configmap(&ns, "last", "1"),
    ];
    fleet.create(&work(name, "app", &manifests)).await?;
    let told = (
        "Applied",
        "False",
        "AppliedManifestFailed",
        "the gate stays shut on Sundays",
    );
    let found = until_manifest(&fleet, name, "app", "refused", told).await?;
    let (_, _, message) = manifest_condition(&found, "refused", "Applied");
    assert!(message.contains("gate.example.com"), "{message}");
    for beside in ["first", "last"] {
        let told = ("Applied", "True", "AppliedManifestComplete", "");
        until_manifest(&fleet, name, "app", beside, told).await?;
        until_value(&spoke, &ns, beside, "1").await?;
    }
    assert!(spoke.find(&configmap_path(&ns, "refused")).await?.is_none());
    // Drift beside it is repaired as ever.
    spoke.delete(&configmap_path(&ns, "last")).await?;
    until_value(&spoke, &ns, "last", "1").await?;
    webhook.remove(&spoke, &ns).await?;
    fleet.until_applied(name, "app").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_does_not_answer_holds_up_no_other_work() -> Result {
    /// More works than there are workers, and more objects than requests at the start.
    const WORKS: usize = 24;
    const OBJECTS: usize = 40;
    const TIMEOUT: Duration = Duration::from_secs(15);
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    fleet
        .create(&work(name, "kept", &[configmap(&ns, "kept", "1")]))
        .await?;
    fleet.until_applied(name, "kept").await?;
    let webhook = Webhook::start(Does::Hang).await?;
    webhook.install(&spoke, &ns, TIMEOUT).await?;
    is_asked(&spoke, &webhook, &ns).await?;
    let before = webhook.asked();
    let many: Vec<Value> = (0..OBJECTS).map(|n| asked(&ns, &format!("many{n}"))).collect();
    fleet.create(&work(name, "many", &many)).await?;
    for number in 0..WORKS {
        let object = asked(&ns, &format!("one{number}"));
        fleet
            .create(&work(name, &format!("one{number}"), &[object]))
            .await?;
    }
    let began = Instant::now();
    muster_tests::eventually(SOON, "all that hangs hangs", async || {
        let asked = webhook.asked() - before;
        // Of a large work, only so many go at a time.
        (asked > WORKS)
            .then_some(())
            .ok_or_else(|| format!("{asked} questions"))
    })
    .await?;
    let mut longest = Duration::ZERO;
    for number in 0..3 {
        let began = Instant::now();
        let other = format!("other{number}");
        fleet
            .create(&work(name, &other, &[configmap(&ns, &other, "1")]))
            .await?;
        fleet.until_applied(name, &other).await?;
        spoke.delete(&configmap_path(&ns, "kept")).await?;
        until_value(&spoke, &ns, "kept", "1").await?;
        longest = longest.max(began.elapsed());
    }
    eprintln!(
        "all questions were asked after {:?}; a work beside them and a repair took {longest:?} at most",
        began.elapsed()
    );
    assert!(longest < TIMEOUT / 2, "others waited for {longest:?}");
    // The server gives up on it, and that is told; also of the large work, whose others come after.
    for (work, object) in [("one0", "one0"), ("many", "many0")] {
        let what = "what the server said is told";
        fleet
            .until_work(name, work, what, |work| {
                has_condition(Some(work), "Applied", "False")?;
                let (_, _, message) = manifest_condition(work, object, "Applied");
                let words = message.contains("gate.example.com") || message.contains("no answer within");
                words.then_some(()).ok_or(message)
            })
            .await?;
    }
    webhook.remove(&spoke, &ns).await?;
    let all = fleet
        .until_work(name, "many", "all of it is there", |work| {
            let there = |n: &usize| manifest_status(work, &format!("many{n}")).is_some();
            let told = (0..OBJECTS).filter(there).count();
            (told == OBJECTS)
                .then_some(())
                .ok_or_else(|| format!("{told} are told of"))
        })
        .await;
    all.map(drop)
}
