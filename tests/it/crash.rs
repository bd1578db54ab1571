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
use muster_tests::{Kube, Program, Seed, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often each side is killed.
const KILLS: usize = 8;
/// Works that come and go.
const WORKS: usize = 12;
/// Works that must have come at least.
const A_FEW: usize = 4;
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
        start_hub(&self.program, &self.hub_address)
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

    async fn hub_is_back(&self) -> anyhow::Result<()> {
        eventually(SOON, "the hub is back", async || {
            let works = self.hub.list(&works_path(CLUSTER)).await;
            works.map(drop).map_err(|e| e.to_string())
        })
        .await
    }
}

/// A standalone hub that accepts whoever bootstraps.
pub fn start_hub(program: &Program, address: &str) -> anyhow::Result<Process> {
    program.spawn(&[
        "hub",
        "--standalone",
        "--data-dir",
        "hub",
        "--bind",
        address,
        "--feature-gates",
        "ManagedClusterAutoApproval=true",
        "--auto-approved-csr-users",
        BOOTSTRAP_USER,
    ])
}

/// What the person at the hub knows: the value each work must have in the end; `None` where it must be gone.
type Acknowledged = BTreeMap<usize, Option<u64>>;

/// How the two sides come back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Return {
    /// One after the other: a klusterlet finds its hub.
    InTurn,
    /// At the same moment: the klusterlet starts without its hub, on what it had put by.
    Together,
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_turn_at_any_moment_everything_converges() -> Result {
    survive("killed_in_turn", Return::InTurn).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_together_at_any_moment_everything_converges() -> Result {
    survive("killed_together", Return::Together).await
}

async fn survive(test: &str, how: Return) -> Result {
    let mut seed = Seed::of(test);
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
    let mut hub_process = start_hub(&program, &hub_address)?;
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
        Seed::of(&format!("{test}, the person at the hub")),
        done.clone(),
    ));
    world
        .hub
        .until_there(&format!("/api/v1/namespaces/{CLUSTER}"), SOON)
        .await?;
    let witness = tokio::spawn(witness(world.spoke.kube(), how, done.clone()));
    for round in 0..KILLS {
        tokio::time::sleep(seed.moment(Duration::from_millis(1500))).await;
        hub_process.kill()?;
        tokio::time::sleep(seed.moment(Duration::from_millis(200))).await;
        if how == Return::Together {
            klusterlet.kill()?;
            klusterlet = world.start_klusterlet()?;
            tokio::time::sleep(seed.moment(Duration::from_millis(1500))).await;
            hub_process = world.start_hub()?;
            // At times it is killed while it starts, at times while it serves.
            if seed.below(2) == 0 {
                world.hub_is_back().await?;
            }
        } else {
            hub_process = world.start_hub()?;
            world.hub_is_back().await?;
            tokio::time::sleep(seed.moment(Duration::from_millis(1500))).await;
            klusterlet.kill()?;
            tokio::time::sleep(seed.moment(Duration::from_millis(200))).await;
            klusterlet = world.start_klusterlet()?;
            // It may have been killed before the hub knew the cluster.
            world
                .hub
                .until_there(&format!("/api/v1/namespaces/{CLUSTER}"), SOON)
                .await?;
            // Once it applied what is new, it has heard its hub.
            let marker = format!("marker{round}");
            let object = work(CLUSTER, &marker, &[configmap(NAMESPACE, &marker, "0")]);
            world.hub.create(&works_path(CLUSTER), &object).await?;
            let what = "the klusterlet is back";
            world
                .hub
                .until(&work_path(CLUSTER, &marker), SOON, what, is_applied)
                .await?;
            world.hub.delete(&work_path(CLUSTER, &marker)).await?;
        }
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
/// each request says what should be, so that one that came through unheard does no harm. However little time the killing
/// left, a few works are seen to.
async fn person(hub: Kube, mut seed: Seed, done: Arc<AtomicBool>) -> anyhow::Result<Acknowledged> {
    let mut acknowledged = Acknowledged::new();
    let mut value = 0;
    while !done.load(Ordering::Relaxed) || acknowledged.len() < A_FEW {
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

/// Sees that nothing is applied twice: an object that comes again has a newer value than any before it, and an object's
/// value only goes up. Without its hub a klusterlet goes by what it had put by, which may be a moment older; then only the
/// first holds.
async fn witness(spoke: Kube, how: Return, done: Arc<AtomicBool>) -> Result {
    let mut known: BTreeMap<String, (Value, u64)> = BTreeMap::new();
    let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    while !done.load(Ordering::Relaxed) {
        for map in spoke.list(&maps).await? {
            let Some(value) = map["data"]["value"].as_str().and_then(|v| v.parse::<u64>().ok()) else {
                continue;
            };
            let name = map["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let uid = &map["metadata"]["uid"];
            let (before, highest) = known.entry(name.clone()).or_insert_with(|| (uid.clone(), value));
            let came_again = *before != *uid;
            anyhow::ensure!(
                !came_again || value > *highest,
                "{name} came again with {value} after {highest}"
            );
            anyhow::ensure!(
                how == Return::Together || value >= *highest,
                "{name}: {value} was applied after {highest}"
            );
            *before = uid.clone();
            *highest = value.max(*highest);
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
                let names = applied
                    .values()
                    .filter_map(|a| a["spec"]["manifestWorkName"].as_str());
                let mut found: Vec<_> = names.collect();
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
