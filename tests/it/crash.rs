//! kill -9 of a standalone hub and of a klusterlet, again and again, at moments that nobody chose, while works are made,
//! changed and deleted: everything converges, nothing is applied twice, nothing acknowledged is lost.

use crate::{MUSTER, Result};
use anyhow::Context as _;
use muster_apiserver::server::ServerOptions;
use muster_tests::control_plane::{BOOTSTRAP_USER, ControlPlane};
use muster_tests::kube::Objects;
use muster_tests::objects::{
    APPLIED_WORKS, cluster_path, configmap, has_condition, is_applied, work, work_path, works_path,
};
use muster_tests::program::Process;
use muster_tests::wait::SOON;
use muster_tests::{Kube, Program, Seed};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often each side is killed.
const KILLS: usize = 8;
/// Works that come and go.
const WORKS: usize = 12;
const CLUSTER: &str = "cluster1";
const NAMESPACE: &str = "app";

struct World {
    program: Program,
    hub_address: String,
    bootstrap: String,
    spoke: ControlPlane,
    hub: Kube,
}

impl World {
    fn start_hub(&self) -> anyhow::Result<Process> {
        let _ = std::fs::remove_file(self.program.home().join("hub/admin.kubeconfig"));
        self.program.spawn(&[
            "hub",
            "--standalone",
            "--data-dir",
            "hub",
            "--bind",
            &self.hub_address,
            "--feature-gates",
            "ManagedClusterAutoApproval=true",
            "--auto-approved-csr-users",
            BOOTSTRAP_USER,
        ])
    }

    fn start_klusterlet(&self) -> anyhow::Result<Process> {
        self.program.spawn(&[
            "klusterlet",
            "--cluster-name",
            CLUSTER,
            "--agent-id",
            "agent1",
            "--bootstrap-kubeconfig",
            &self.bootstrap,
            "--spoke-kubeconfig",
            &self.spoke.kubeconfig().display().to_string(),
            "--hub-kubeconfig-dir",
            "hub-kubeconfig",
        ])
    }
}

/// What the person at the hub knows: the value each work must have in the end; `None` where it must be gone.
type Acknowledged = BTreeMap<usize, Option<u64>>;

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_everything_converges() -> Result {
    let mut seed = Seed::of("killed_at_any_moment_everything_converges");
    let program = Program::new(MUSTER)?;
    let spoke = ControlPlane::embedded(CLUSTER, ServerOptions::default()).await?;
    spoke
        .kube()
        .ensure("/api/v1/namespaces", &muster_tests::objects::namespace(NAMESPACE))
        .await?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let hub_address = format!("127.0.0.1:{port}");

    // The first start makes the hub's CA, and with it what clients need.
    let admin = program.home().join("hub/admin.kubeconfig");
    let mut hub_process = program.spawn(&[
        "hub",
        "--standalone",
        "--data-dir",
        "hub",
        "--bind",
        &hub_address,
        "--feature-gates",
        "ManagedClusterAutoApproval=true",
        "--auto-approved-csr-users",
        BOOTSTRAP_USER,
    ])?;
    hub_process.until_file(&admin).await?;
    let hub = Kube::from_file("standalone hub", &admin).await?;
    let bootstrap = muster_tests::control_plane::bootstrap_kubeconfig(&hub, &admin, program.home()).await?;
    let world = World {
        hub_address,
        bootstrap: bootstrap.display().to_string(),
        spoke,
        hub,
        program,
    };
    let mut klusterlet = world.start_klusterlet()?;

    let done = Arc::new(AtomicBool::new(false));
    let person = tokio::spawn(person(
        world.hub.clone(),
        Seed::of("the person at the hub"),
        done.clone(),
    ));
    let witness = tokio::spawn(witness(world.spoke.kube(), done.clone()));
    for _ in 0..KILLS {
        tokio::time::sleep(seed.moment(Duration::from_millis(1500))).await;
        hub_process.kill()?;
        tokio::time::sleep(seed.moment(Duration::from_millis(200))).await;
        hub_process = world.start_hub()?;
        tokio::time::sleep(seed.moment(Duration::from_millis(1500))).await;
        klusterlet.kill()?;
        tokio::time::sleep(seed.moment(Duration::from_millis(200))).await;
        klusterlet = world.start_klusterlet()?;
    }
    done.store(true, Ordering::Relaxed);
    let acknowledged = person.await??;
    converged(&world, &acknowledged)
        .await
        .with_context(|| format!("hub: {}\nklusterlet: {}", last(&hub_process), last(&klusterlet)))?;
    witness.await??;
    Ok(())
}

fn last(process: &Process) -> String {
    let text = process.stderr();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

fn name(number: usize) -> String {
    format!("work{number}")
}

fn manifest(number: usize, value: u64) -> Value {
    configmap(NAMESPACE, &name(number), &value.to_string())
}

/// Makes, changes and deletes works for as long as the killing goes on. What is not acknowledged is asked again until it is:
/// each request says what should be, so that one that came through unheard does no harm.
async fn person(hub: Kube, mut seed: Seed, done: Arc<AtomicBool>) -> anyhow::Result<Acknowledged> {
    let mut acknowledged = Acknowledged::new();
    let mut value = 0;
    while !done.load(Ordering::Relaxed) {
        value += 1;
        let number = seed.below(WORKS);
        let wanted = (seed.below(4) > 0).then_some(value);
        loop {
            match wish(&hub, number, wanted).await {
                Ok(()) => break,
                Err(refused)
                    if refused.code == 0 || refused.code >= 500 || [404, 409].contains(&refused.code) =>
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(refused) => anyhow::bail!("{} = {wanted:?}: {refused}", name(number)),
            }
        }
        acknowledged.insert(number, wanted);
        tokio::time::sleep(seed.moment(Duration::from_millis(60))).await;
    }
    Ok(acknowledged)
}

async fn wish(
    hub: &Kube,
    number: usize,
    wanted: Option<u64>,
) -> std::result::Result<(), muster_tests::kube::Refused> {
    let path = work_path(CLUSTER, &name(number));
    let live = hub.find(&path).await?;
    match (wanted, live) {
        (None, None) => Ok(()),
        (None, Some(live)) if live["metadata"]["deletionTimestamp"].is_string() => Ok(()),
        (None, Some(_)) => hub.delete(&path).await.map(drop),
        (Some(value), None) => hub
            .create(
                &works_path(CLUSTER),
                &work(CLUSTER, &name(number), &[manifest(number, value)]),
            )
            .await
            .map(drop),
        // One of that name is on its way out: asked again until it is.
        (Some(_), Some(live)) if live["metadata"]["deletionTimestamp"].is_string() => {
            Err(muster_tests::kube::Refused {
                code: 409,
                reason: "Deleting".into(),
                message: String::new(),
            })
        }
        (Some(value), Some(_)) => {
            let patch = json!({"spec": {"workload": {"manifests": [manifest(number, value)]}}});
            hub.merge(&path, &patch).await.map(drop)
        }
    }
}

/// Sees that no value is applied twice: on the cluster, an object's value only ever goes up.
async fn witness(spoke: Kube, done: Arc<AtomicBool>) -> Result {
    let mut highest: BTreeMap<String, u64> = BTreeMap::new();
    let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    while !done.load(Ordering::Relaxed) {
        for map in spoke.list(&maps).await? {
            let Some(value) = map["data"]["value"].as_str().and_then(|v| v.parse::<u64>().ok()) else {
                continue;
            };
            let name = map["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let known = highest.entry(name.clone()).or_default();
            anyhow::ensure!(value >= *known, "{name}: {value} was applied after {known}");
            *known = value;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn converged(world: &World, acknowledged: &Acknowledged) -> Result {
    let left: BTreeMap<String, u64> = acknowledged
        .iter()
        .filter_map(|(number, value)| Some((name(*number), (*value)?)))
        .collect();
    anyhow::ensure!(
        acknowledged.len() > 3,
        "the person did hardly anything: {acknowledged:?}"
    );
    let same = |objects: &Objects, mine: &dyn Fn(&str) -> bool, value: &dyn Fn(&Value) -> Option<String>| {
        let found: BTreeMap<String, Option<String>> = objects
            .iter()
            .filter(|((_, n), _)| mine(n))
            .map(|((_, n), o)| (n.clone(), value(o)))
            .collect();
        let wanted: BTreeMap<String, Option<String>> = left
            .iter()
            .map(|(name, value)| (name.clone(), Some(value.to_string())))
            .collect();
        if found == wanted {
            Ok(())
        } else {
            Err(format!("wanted {wanted:?}, found {found:?}"))
        }
    };
    let ours = |name: &str| name.starts_with("work");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    world
        .hub
        .until_all(
            &works_path(CLUSTER),
            SOON,
            "the hub has what was acknowledged, and all is applied",
            |works| {
                same(works, &ours, &|w| {
                    text(&w["spec"]["workload"]["manifests"][0]["data"]["value"])
                })?;
                works.values().try_for_each(|work| is_applied(Some(work)))
            },
        )
        .await?;
    let spoke = world.spoke.kube();
    let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    spoke
        .until_all(&maps, SOON, "the cluster has the same", |maps| {
            same(maps, &ours, &|m| text(&m["data"]["value"]))
        })
        .await?;
    spoke
        .until_all(
            APPLIED_WORKS,
            SOON,
            "there is one AppliedManifestWork for each work",
            |applied| {
                let mut found: Vec<_> = applied
                    .values()
                    .filter_map(|a| a["spec"]["manifestWorkName"].as_str())
                    .collect();
                found.sort_unstable();
                let wanted: Vec<_> = left.keys().map(String::as_str).collect();
                if found == wanted {
                    Ok(())
                } else {
                    Err(format!("wanted {wanted:?}, found {found:?}"))
                }
            },
        )
        .await?;
    let what = "the cluster is available";
    world
        .hub
        .until(&cluster_path(CLUSTER), SOON, what, |o| {
            has_condition(o, "ManagedClusterConditionAvailable", "True")
        })
        .await?;
    let clusters = world.hub.list(muster_tests::objects::CLUSTERS).await?;
    anyhow::ensure!(
        clusters.len() == 1,
        "it joined as more than one: {}",
        clusters.len()
    );
    Ok(())
}
