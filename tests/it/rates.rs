//! How much the klusterlet asks of its API servers: no more than they bear, and nobody is starved.

use crate::Result;
use crate::laws::{drift_is_repaired, skipped};
use anyhow::Context as _;
use muster_tests::objects::{configmap, configmap_path, feedback, work_path, work_with};
use muster_tests::wait::SOON;
use muster_tests::{Answer, Fleet, FleetOptions, Impostor};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A work with a ConfigMap that is left to others once it is made, and whose value is reported.
fn reported(cluster: &str, namespace: &str, name: &str) -> Value {
    let config = json!({"resourceIdentifier": {"group": "", "resource": "configmaps", "namespace": namespace, "name": name},
        "updateStrategy": {"type": "CreateOnly"},
        "feedbackRules": [{"type": "JSONPaths", "jsonPaths": [{"name": "value", "path": ".data.value"}]}]});
    work_with(
        cluster,
        name,
        &[configmap(namespace, name, "0")],
        &json!({"manifestConfigs": [config]}),
    )
}

async fn set(kube: &muster_tests::Kube, namespace: &str, name: &str, value: &str) -> Result {
    let patch = json!({"data": {"value": value}});
    kube.merge(&configmap_path(namespace, name), &patch).await?;
    Ok(())
}

fn says(work: &Value, name: &str, value: &str) -> std::result::Result<(), String> {
    match feedback(work, name, "value") {
        Some(found) if found == value => Ok(()),
        other => Err(format!("its feedback is {other:?}, not {value}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_has_too_much_to_do_is_left_alone_and_holds_up_no_repair() -> Result {
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
    for work in ["one", "two", "three"] {
        fleet.create(&reported(&name, &ns, work)).await?;
    }
    fleet
        .create(&muster_tests::objects::work(
            &name,
            "kept",
            &[configmap(&ns, "kept", "1")],
        ))
        .await?;
    for work in ["one", "two", "three", "kept"] {
        fleet.until_applied(&name, work).await?;
    }
    fleet.hub.stop().await?;
    fleet.hub.plane.stop().await;
    let data = fleet.hub.plane.data_dir().context("on disk")?.to_owned();
    let busy = Answer::Refuse(429, "TooManyRequests");
    let impostor = Impostor::start(fleet.hub.plane.address(), &data, busy).await?;
    let spoke = fleet.clusters[0].kube();
    let began = Instant::now();
    for round in 0..10 {
        for work in ["one", "two", "three"] {
            set(&spoke, &ns, work, &format!("{round}")).await?;
        }
        drift_is_repaired(&fleet.clusters[0], "kept", "1").await?;
    }
    let (writes, seconds) = (impostor.wanted_to_write_works(), began.elapsed().as_secs());
    // Three statuses, of which each is one write; what begins before the first answer comes besides. Fewer, down to none, where
    // the hub's first refusal is of the question whose the name is.
    let bound = 6 + 4 * (usize::try_from(seconds)? + 1);
    assert!(
        writes <= bound,
        "{writes} writes in {seconds} s, {bound} would be enough"
    );
    impostor.stop().await;
    fleet.hub.plane.start_again().await?;
    fleet.hub.start();
    for work in ["one", "two", "three"] {
        fleet
            .until_work(&name, work, "the newest value comes", |found| {
                says(found, work, "9")
            })
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_flaps_is_thinned_out_and_starves_nobody() -> Result {
    const QUIET: usize = 50;
    const FLAPPING: Duration = Duration::from_secs(3);
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns, spoke) = (&cluster.name, cluster.namespace(), cluster.kube());
    let quiet: Vec<String> = (0..QUIET).map(|number| format!("quiet{number}")).collect();
    for work in quiet.iter().map(String::as_str).chain(["flapping"]) {
        fleet.create(&reported(name, &ns, work)).await?;
    }
    for work in quiet.iter().map(String::as_str).chain(["flapping"]) {
        fleet
            .until_work(name, work, "its value is known", |found| says(found, work, "0"))
            .await?;
    }
    let (flaps, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let began = Instant::now();
    let flap = async {
        // As fast as the server takes it.
        while flaps.load(Ordering::Relaxed) < 400 || began.elapsed() < FLAPPING {
            let number = flaps.fetch_add(1, Ordering::Relaxed);
            set(&spoke, &ns, "flapping", &number.to_string()).await?;
        }
        set(&spoke, &ns, "flapping", "last").await?;
        anyhow::Ok(began.elapsed())
    };
    let follow = fleet.kube();
    let path = work_path(name, "flapping");
    let last = follow.until(
        &path,
        SOON,
        "the last value of the flapping object is told",
        |work| {
            told.fetch_add(1, Ordering::Relaxed);
            says(work.ok_or("it is gone")?, "flapping", "last")
        },
    );
    let others = async {
        for work in &quiet {
            set(&spoke, &ns, work, "changed").await?;
            fleet
                .until_work(name, work, "the value of a quiet object is told", |found| {
                    says(found, work, "changed")
                })
                .await?;
        }
        anyhow::Ok(began.elapsed())
    };
    let (flapped, last, others) = tokio::join!(flap, last, others);
    last?;
    eprintln!(
        "flapped for {:?}; the others were through after {:?}",
        flapped?, others?
    );
    let (flaps, told) = (flaps.into_inner(), told.into_inner());
    // A burst, and then five a second; a few events besides are the first look and the end.
    let seconds = began.elapsed().as_secs_f64();
    let bound = 50.0 + 5.0 * seconds + 10.0;
    #[allow(clippy::cast_precision_loss)]
    let told = told as f64;
    assert!(told <= bound, "told {told} times in {seconds} s of {flaps} flaps");
    // And not silenced either. A busy machine tells of many flaps at once.
    #[allow(clippy::cast_precision_loss)]
    let least = (flaps as f64 / 4.0).min(10.0);
    assert!(
        told >= least,
        "told only {told} times in {seconds} s of {flaps} flaps"
    );
    Ok(())
}
