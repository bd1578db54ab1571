//! Random works, edits on both sides, restarts, cuts and API errors: in the end the cluster is what the hub says, and
//! nothing that was not ours has changed.
//!
//! `MUSTER_PROPERTY_RUNS` asks for that many runs that nobody has seen yet, each with fresh namespaces on the same two servers;
//! a run that fails is told by its seed and its steps, and `MUSTER_SEED` repeats it alone. Where nothing is asked for, the
//! runs are the same every time: a change is judged by itself, not by the seeds it met. `model` says what works may be about and `check` what must
//! then be, from the issue and not from the agent's code.

mod check;
mod model;

use crate::Result;
use anyhow::Context as _;
use check::Settled;
use kube::Client;
use model::{Drift, Object, Past, Strategy, THEIRS, TakeOver, Work, objects, widgets};
use muster_apiserver::server::{Server, ServerOptions};
use muster_klusterlet::work::{Agent, Settings};
use muster_tests::objects::{APPLIED_WORKS, CRDS, configmap, namespace, work_path, works_path};
use muster_tests::wait::SOON;
use muster_tests::{Faults, Kube, Seed};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often one object is edited on the cluster, or changed at the hub, in a run: more is a fight, which the agent backs
/// off from (`drift`).
const CHANGES: usize = 2;

/// Runs where nobody says how many, and the seed of the first of them.
const RUNS: u64 = 60;
const FIRST: u64 = 2026;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_becomes_what_the_hub_says() -> Result {
    muster_tests::control_plane::init();
    let given = number("MUSTER_SEED");
    let asked = number("MUSTER_PROPERTY_RUNS");
    let (first, runs) = match (given, asked) {
        (Some(seed), _) => (seed, 1),
        (None, Some(runs)) => (rand::random(), runs),
        (None, None) => (FIRST, RUNS),
    };
    let hub = Server::start(ServerOptions::default()).await?;
    let spoke = Server::start(ServerOptions::default()).await?;
    let sides = [Kube::new("hub", hub.client()), Kube::new("spoke", spoke.client())];
    let crds = [muster_crds::crds::hub(), muster_crds::crds::spoke()];
    for (side, crds) in sides.iter().zip(crds) {
        for crd in crds {
            side.ensure(CRDS, &serde_json::to_value(&crd)?).await?;
        }
    }
    sides[1].ensure(CRDS, &widgets()).await?;
    for (side, crd) in [
        (0, "manifestworks.work.open-cluster-management.io"),
        (1, "appliedmanifestworks.work.open-cluster-management.io"),
        (1, "widgets.property.example.com"),
    ] {
        sides[side]
            .until(&format!("{CRDS}/{crd}"), SOON, &format!("{crd} is served"), |o| {
                muster_tests::objects::has_condition(o, "Established", "True")
            })
            .await?;
    }
    for run in 0..runs {
        let seed = first.wrapping_add(run);
        let mut world = World::new(&sides, &format!("r{run}"), seed).await?;
        let result = world.run().await;
        world.end().await;
        if let Err(error) = result {
            let steps = world.steps;
            anyhow::bail!("repeat with MUSTER_SEED={seed} (run {run})\n{steps}\n{error:#}");
        }
    }
    Ok(())
}

/// One run.
struct World {
    run: String,
    seed: Seed,
    hub: Kube,
    spoke: Kube,
    faults: [Arc<Faults>; 2],
    clients: [Client; 2],
    agent: Option<(JoinHandle<()>, CancellationToken)>,
    works: BTreeMap<String, Work>,
    variants: BTreeMap<Object, usize>,
    changes: BTreeMap<Object, usize>,
    past: BTreeMap<Object, Past>,
    /// Objects that were not as their manifests say when all was settled last: there are works that leave them so.
    adrift: BTreeSet<Object>,
    strangers: BTreeMap<String, Value>,
    steps: String,
}

impl World {
    async fn new(sides: &[Kube; 2], run: &str, seed: u64) -> anyhow::Result<Self> {
        let [hub, spoke] = sides.clone();
        let faults = [Faults::new(seed), Faults::new(seed.rotate_left(32))];
        let clients = [
            faults[0].between(&hub.client()),
            faults[1].between(&spoke.client()),
        ];
        let mut world = Self {
            run: run.to_owned(),
            seed: Seed::from(seed),
            hub,
            spoke,
            faults,
            clients,
            agent: None,
            works: BTreeMap::new(),
            variants: BTreeMap::new(),
            changes: BTreeMap::new(),
            past: BTreeMap::new(),
            adrift: BTreeSet::new(),
            strangers: BTreeMap::new(),
            steps: String::new(),
        };
        world.hub.create("/api/v1/namespaces", &namespace(run)).await?;
        for space in world.namespaces() {
            world
                .spoke
                .create("/api/v1/namespaces", &namespace(&space))
                .await?;
        }
        // Some objects are there before; some of those no work ever names.
        for object in objects() {
            let before = match world.seed.below(12) {
                0 | 1 => {
                    let mut theirs = object.manifest(run, 7);
                    theirs["metadata"]["labels"] = json!({THEIRS: "yes"});
                    theirs
                }
                2 => object.manifest(run, 0),
                _ => continue,
            };
            world.spoke.create(&object.collection(run), &before).await?;
            world.step(format_args!(
                "there before: {object:?}, {}",
                before["metadata"]["labels"]
            ));
        }
        for space in &world.namespaces()[..2] {
            let collection = format!("/api/v1/namespaces/{space}/configmaps");
            let made = world
                .spoke
                .create(&collection, &configmap(space, "stranger", "1"))
                .await?;
            world.strangers.insert(format!("{collection}/stranger"), made);
        }
        Ok(world)
    }

    fn namespaces(&self) -> [String; 3] {
        ["0", "1", "agent"].map(|n| format!("{}-{n}", self.run))
    }

    fn hash(&self) -> String {
        format!("{:0>64}", self.run.replace('r', "a"))
    }

    fn step(&mut self, what: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = writeln!(self.steps, "  {what}");
    }

    fn start(&mut self) {
        if self.agent.is_some() {
            return;
        }
        let settings = Settings {
            cluster: self.run.clone(),
            hub_hash: self.hash(),
            agent_id: format!("agent-{}", self.run),
            workers: 4,
            eviction_grace: Duration::from_secs(3600),
            raw_feedback: None,
            impersonate_executor: false,
            remember_rights: false,
            agent_name: "agent".to_owned(),
            events: muster_klusterlet::work::WorkEvents::None,
            counts: Arc::default(),
        };
        let [hub, spoke] = self.clients.clone();
        let agent = Agent::new(hub, spoke, &self.namespaces()[2], settings);
        let stop = CancellationToken::new();
        self.agent = Some((tokio::spawn(agent.run(stop.clone())), stop));
    }

    async fn stop(&mut self, crash: bool) {
        if let Some((task, stop)) = self.agent.take() {
            if crash {
                task.abort();
            } else {
                stop.cancel();
            }
            // Cancelled is how it should have ended.
            let _ = task.await;
        }
    }

    /// A few rounds of disorder, each until everything is settled again.
    async fn run(&mut self) -> Result {
        self.start();
        for _ in 0..=self.seed.below(3) {
            self.remember().await?;
            for _ in 0..2 + self.seed.below(9) {
                self.disorder().await?;
                if self.seed.below(3) > 0 {
                    tokio::time::sleep(self.seed.moment(Duration::from_millis(12))).await;
                }
            }
            self.step(format_args!("faults end"));
            for faults in &self.faults {
                faults.heal();
            }
            self.start();
            self.settle().await?;
            self.adrift = check::adrift(self, &self.look().await?);
        }
        self.restart_writes_nothing().await
    }

    /// Begins a new account of what may have become of each object.
    async fn remember(&mut self) -> Result {
        let settled = self.look().await?;
        self.past = objects()
            .into_iter()
            .map(|object| {
                let past = Past {
                    before: settled.objects.get(&object).cloned(),
                    ..Past::default()
                };
                (object, past)
            })
            .collect();
        let works: Vec<Work> = self.works.values().cloned().collect();
        for work in &works {
            self.account(work);
        }
        Ok(())
    }

    /// A work said this at some time.
    fn account(&mut self, work: &Work) {
        for object in work.objects.keys() {
            if let Some(past) = self.past.get_mut(object) {
                past.account(work, *object);
            }
        }
    }

    async fn disorder(&mut self) -> Result {
        match self.seed.below(20) {
            0..3 => self.create_work().await,
            3..6 => self.change_work().await,
            6 => self.delete_work().await,
            7 | 8 => self.change_content().await,
            9..13 => self.edit_cluster().await,
            13 => {
                self.step(format_args!("the agent crashes"));
                self.stop(true).await;
                Ok(())
            }
            14 => {
                self.step(format_args!("the agent restarts"));
                self.stop(false).await;
                self.start();
                Ok(())
            }
            15 => {
                self.step(format_args!("the agent starts"));
                self.start();
                Ok(())
            }
            16 => {
                let side = self.seed.below(2);
                self.step(format_args!("the link to {} is cut", ["hub", "spoke"][side]));
                self.faults[side].cut();
                Ok(())
            }
            17 => {
                self.step(format_args!("the links are whole"));
                self.faults.iter().for_each(|f| f.heal());
                Ok(())
            }
            _ => {
                let (side, rate) = (self.seed.below(2), 100 + 100 * self.seed.below(5));
                self.step(format_args!(
                    "of 1000 requests to {} {rate} go wrong",
                    ["hub", "spoke"][side]
                ));
                self.faults[side].rate(rate as u64);
                Ok(())
            }
        }
    }

    async fn create_work(&mut self) -> Result {
        let name = format!("w{}", self.seed.below(4));
        if self.works.contains_key(&name) || self.hub.find(&work_path(&self.run, &name)).await?.is_some() {
            return Ok(());
        }
        let work = Work::any(&mut self.seed);
        self.step(format_args!("create {name}: {work:?}"));
        let object = json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
            "metadata": {"name": name, "namespace": self.run, "annotations": work.annotations()},
            "spec": work.spec(&self.run, &self.variants)});
        self.hub.create(&works_path(&self.run), &object).await?;
        self.account(&work);
        self.works.insert(name, work);
        Ok(())
    }

    fn some_work(&mut self) -> Option<String> {
        let names: Vec<&String> = self.works.keys().collect();
        if names.is_empty() {
            return None;
        }
        Some(names[self.seed.below(names.len())].clone())
    }

    async fn change_work(&mut self) -> Result {
        let Some(name) = self.some_work() else {
            return Ok(());
        };
        let Some(mut work) = self.works.get(&name).cloned() else {
            return Ok(());
        };
        let all = objects();
        match self.seed.below(5) {
            0 | 1 => {
                let object = all[self.seed.below(all.len())];
                work.add(object, &mut self.seed);
            }
            2 if work.objects.len() > 1 => {
                let object = *work
                    .objects
                    .keys()
                    .nth(self.seed.below(work.objects.len()))
                    .context("one")?;
                work.objects.remove(&object);
            }
            3 => work.choose(&mut self.seed),
            _ => work.orphan(&mut self.seed),
        }
        self.step(format_args!("change {name}: {work:?}"));
        self.account(&work);
        self.works.insert(name.clone(), work);
        self.write(&name).await
    }

    async fn write(&mut self, name: &str) -> Result {
        let work = &self.works[name];
        let spec = work.spec(&self.run, &self.variants);
        // The delete option's rules must not stay behind in a merge.
        let patch = json!([{"op": "replace", "path": "/spec", "value": spec},
            {"op": "replace", "path": "/metadata/annotations", "value": work.annotations()}]);
        let kind = "application/json-patch+json";
        self.hub
            .request(
                http::Method::PATCH,
                &work_path(&self.run, name),
                kind,
                Some(&patch),
            )
            .await?;
        Ok(())
    }

    async fn delete_work(&mut self) -> Result {
        let Some(name) = self.some_work() else {
            return Ok(());
        };
        self.step(format_args!("delete {name}"));
        self.works.remove(&name);
        self.hub.delete(&work_path(&self.run, &name)).await?;
        Ok(())
    }

    async fn change_content(&mut self) -> Result {
        let all = objects();
        let object = all[self.seed.below(all.len())];
        if !self.may_change(object) {
            return Ok(());
        }
        let variant = self.variants.entry(object).or_default();
        *variant += 1;
        let variant = *variant;
        self.step(format_args!("{object:?} becomes v{variant} at the hub"));
        let having: Vec<String> = self
            .works
            .iter()
            .filter(|(_, w)| w.objects.contains_key(&object))
            .map(|(n, _)| n.clone())
            .collect();
        for name in having {
            self.write(&name).await?;
        }
        Ok(())
    }

    fn may_change(&mut self, object: Object) -> bool {
        let changes = self.changes.entry(object).or_default();
        *changes += 1;
        *changes <= CHANGES
    }

    async fn edit_cluster(&mut self) -> Result {
        let all = objects();
        let object = all[self.seed.below(all.len())];
        let path = object.path(&self.run);
        if self.spoke.find(&path).await?.is_none() || !self.may_change(object) {
            return Ok(());
        }
        let what = self.seed.below(5);
        let past = self.past.entry(object).or_default();
        let done = match what {
            0 => {
                past.deleted = true;
                self.step(format_args!("somebody deletes {object:?}"));
                self.spoke.delete(&path).await
            }
            1 => {
                past.stripped = true;
                self.step(format_args!("somebody takes labels and owners off {object:?}"));
                let patch = json!({"metadata": {"labels": null, "ownerReferences": null}});
                self.spoke.merge(&path, &patch).await
            }
            _ => {
                past.edited = true;
                past.field_edited |= what != 2;
                self.step(format_args!(
                    "somebody edits {object:?}{}",
                    if what == 2 { " beside" } else { "" }
                ));
                self.spoke
                    .merge(&format!("{path}?fieldManager=somebody"), &object.edit(what == 2))
                    .await
            }
        };
        match done {
            // The agent was faster.
            Err(refused) if refused.code == 404 => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Everything there is.
    async fn look(&self) -> anyhow::Result<Settled> {
        let mut settled = Settled::default();
        for object in objects() {
            if let Some(found) = self.spoke.find(&object.path(&self.run)).await? {
                settled.objects.insert(object, found);
            }
        }
        let agent = format!("agent-{}", self.run);
        let applied = self.spoke.list(APPLIED_WORKS).await?;
        settled.applied = applied
            .into_iter()
            .filter(|a| a["spec"]["agentID"] == agent.as_str())
            .collect();
        settled.works = self.hub.list(&works_path(&self.run)).await?;
        for (name, work) in &self.works {
            let mild = work.objects.iter().filter(|(_, strategy)| strategy.is_mild());
            for (object, strategy) in mild.filter(|(o, _)| settled.objects.contains_key(o)) {
                if self.is_refused(*object, *strategy).await? {
                    settled.refused.insert((name.clone(), *object));
                }
            }
        }
        for path in self.strangers.keys() {
            settled
                .strangers
                .insert(path.clone(), self.spoke.get(path).await?);
        }
        Ok(settled)
    }

    /// Whether the server refuses to apply an object over what others have of it.
    async fn is_refused(&self, object: Object, strategy: Strategy) -> anyhow::Result<bool> {
        let variant = self.variants.get(&object).copied().unwrap_or_default();
        // Of what is given as text the server only sees later what it is.
        let mut manifest = object.wanted(&self.run, variant);
        if strategy.ignores() {
            manifest = object.without_ignored(manifest);
        }
        let path = format!(
            "{}?fieldManager=work-agent&force=false&dryRun=All",
            object.path(&self.run)
        );
        let kind = "application/apply-patch+yaml";
        match self
            .spoke
            .request(http::Method::PATCH, &path, kind, Some(&manifest))
            .await
        {
            Ok(_) => Ok(false),
            Err(refused) if refused.code == 409 => Ok(true),
            Err(refused) => Err(refused.into()),
        }
    }

    async fn settle(&mut self) -> Result {
        muster_tests::eventually(SOON, "it settles", async || {
            let settled = self.look().await.map_err(|e| format!("{e:#}"))?;
            check::check(self, &settled)
        })
        .await
    }

    /// Law 2, for whatever the run has come to.
    async fn restart_writes_nothing(&mut self) -> Result {
        // What a fault has made the agent say may be said for a while yet: not by one that has not met any.
        self.restart().await?;
        self.settle().await?;
        let before = self.look().await?.versions();
        self.restart().await?;
        let after = self.look().await?.versions();
        let changed: BTreeSet<&String> = before
            .keys()
            .chain(after.keys())
            .filter(|name| before.get(*name) != after.get(*name))
            .collect();
        anyhow::ensure!(
            changed.is_empty(),
            "written by a restart over unchanged state: {changed:?}"
        );
        Ok(())
    }

    /// Restarts the agent, and waits until it has been through everything: it is through with what comes after.
    async fn restart(&mut self) -> Result {
        self.step(format_args!("a restart"));
        self.stop(false).await;
        self.start();
        let marker = Object {
            kind: model::Kind::ConfigMap,
            namespace: 1,
            number: 9,
        };
        let work = Work {
            objects: BTreeMap::from([(marker, Strategy::Update)]),
            orphans: model::Orphans::None,
            drift: Drift::Enforce,
            take_over: TakeOver::Always,
        };
        for _ in 0..2 {
            let path = work_path(&self.run, "marker");
            let object = json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
                "metadata": {"name": "marker", "namespace": self.run}, "spec": work.spec(&self.run, &self.variants)});
            self.hub.create(&works_path(&self.run), &object).await?;
            let what = "a work after the restart is applied";
            self.hub
                .until(&path, SOON, what, muster_tests::objects::is_applied)
                .await?;
            self.hub.delete(&path).await?;
            self.hub.until_gone(&path, SOON).await?;
        }
        Ok(())
    }

    /// Leaves as little behind as can be, so that many runs are as fast as few.
    async fn end(&mut self) {
        self.stop(true).await;
        let finalizers = json!({"metadata": {"finalizers": null}});
        let Ok(settled) = self.look().await else { return };
        for applied in &settled.applied {
            let path = format!(
                "{APPLIED_WORKS}/{}",
                applied["metadata"]["name"].as_str().unwrap_or_default()
            );
            // Whatever fails here only costs time later.
            let _ = self.spoke.merge(&path, &finalizers).await;
            let _ = self.spoke.delete(&path).await;
        }
        for work in &settled.works {
            let path = work_path(&self.run, work["metadata"]["name"].as_str().unwrap_or_default());
            let _ = self.hub.merge(&path, &finalizers).await;
        }
        for object in settled
            .objects
            .keys()
            .filter(|o| o.namespace(&self.run).is_empty())
        {
            let _ = self.spoke.delete(&object.path(&self.run)).await;
        }
        let _ = self.hub.delete(&format!("/api/v1/namespaces/{}", self.run)).await;
        for space in self.namespaces() {
            let _ = self.spoke.delete(&format!("/api/v1/namespaces/{space}")).await;
        }
    }
}
