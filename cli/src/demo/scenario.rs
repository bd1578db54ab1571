//! What the demo shows, step by step. Every step waits for what it tells of, and fails with what was missing.

use super::fleet::{Cluster, FIELD_MANAGER, Fleet};
use super::shop::{self, Version};
use super::stage::Stage;
use crate::{Error, follow};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher;
use muster_crds::cluster::v1::ManagedCluster;
use muster_crds::conditions::is_true;
use muster_crds::constants::conditions as types;
use muster_crds::work::v1::ManifestWork;
use std::time::Duration;

/// A step that takes longer has failed.
const STEP: Duration = Duration::from_secs(60);

/// Plays it.
pub async fn play(fleet: &mut Fleet, stage: &mut Stage) -> Result<(), Error> {
    build(fleet, stage).await?;
    Scene {
        hub: fleet.hub_client()?,
        clusters: fleet.clusters(),
    }
    .play(stage)
    .await?;
    stage.done()
}

async fn build(fleet: &mut Fleet, stage: &mut Stage) -> Result<(), Error> {
    stage.begin("start the hub")?;
    let url = fleet.start_hub().await?;
    stage.end(&[url])?;
    stage.begin("start the clusters, two nodes each")?;
    fleet.start_clusters().await?;
    stage.end(&[])?;
    stage.begin("clusters register with a bootstrap token, the hub accepts")?;
    fleet.start_klusterlets().await
}

struct Scene<'a> {
    hub: kube::Client,
    clusters: &'a [Cluster],
}

impl Scene<'_> {
    async fn play(&self, stage: &mut Stage) -> Result<(), Error> {
        self.conditions("accepted and joined", &[types::HUB_ACCEPTED, types::JOINED])
            .await?;
        stage.end(&[])?;
        stage.begin("clusters are available")?;
        self.conditions("available", &[types::CLUSTER_AVAILABLE]).await?;
        stage.end(&[])?;

        stage.begin("deploy a shop to all of them")?;
        self.apply(shop::FIRST).await?;
        stage.end(&[shop::FIRST.to_string()])?;
        stage.begin("the shop runs everywhere, and the hub knows")?;
        self.reported(shop::FIRST, |_| true).await?;
        stage.end(&self.running().await?)?;

        // The second one, as the story goes; the only one where there is no second.
        let Some(away) = self.clusters.get(1).or(self.clusters.first()) else {
            return Ok(());
        };
        let name = away.name.as_str();
        stage.begin(format!("cut {name}'s link to the hub"))?;
        let link = |e: std::io::Error| Error::Input(format!("can not change {name}'s link: {e}"));
        away.link.cut().await.map_err(link)?;
        stage.end(&[])?;

        stage.begin("change the shop: new image, one more replica, new banner")?;
        self.apply(shop::SECOND).await?;
        self.reported(shop::SECOND, |cluster| cluster != name).await?;
        self.behind(away).await?;
        stage.end(&self.running().await?)?;

        stage.begin(format!("heal the link: {name} catches up"))?;
        away.link.heal().map_err(link)?;
        self.reported(shop::SECOND, |_| true).await?;
        stage.end(&self.running().await?)
    }

    /// Waits until all clusters have conditions.
    async fn conditions(&self, words: &str, wanted: &[&str]) -> Result<(), Error> {
        let api: Api<ManagedCluster> = Api::all(self.hub.clone());
        let what = format!("not all clusters were {words}");
        follow::until(api, watcher::Config::default(), STEP, &what, |found| {
            for cluster in self.clusters {
                let name = &cluster.name;
                let object = found
                    .get(name)
                    .ok_or_else(|| format!("{name} has not registered"))?;
                let conditions = object
                    .status
                    .as_ref()
                    .map(|s| s.conditions.as_slice())
                    .unwrap_or_default();
                if let Some(missing) = wanted.iter().find(|type_| !is_true(conditions, type_)) {
                    return Err(format!("{name} has no condition {missing}=True"));
                }
            }
            Ok(())
        })
        .await
    }

    /// Makes the works, or changes them.
    async fn apply(&self, version: Version) -> Result<(), Error> {
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let applied = self.clusters.iter().map(|cluster| {
            let works: Api<ManifestWork> = Api::namespaced(self.hub.clone(), &cluster.name);
            let parameters = &parameters;
            async move {
                let work = shop::work(&cluster.name, version)?;
                let applied = works.patch(shop::NAME, parameters, &Patch::Apply(&work)).await;
                applied.map_err(|e| Error::Request {
                    what: format!("write the work {} of {}", shop::NAME, cluster.name),
                    problem: crate::error::innermost(&e),
                })
            }
        });
        try_join_all(applied).await.map(drop)
    }

    /// Waits until the hub was told that the clusters meant have this version.
    async fn reported(&self, version: Version, meant: impl Fn(&str) -> bool) -> Result<(), Error> {
        let api: Api<ManifestWork> = Api::all(self.hub.clone());
        let what = format!("not all clusters reported {version}");
        follow::until(api, watcher::Config::default(), STEP, &what, |works| {
            for cluster in self.clusters.iter().filter(|c| meant(&c.name)) {
                let work = works.get(&format!("{}/{}", cluster.name, shop::NAME));
                shop::reported(work, version).map_err(|problem| format!("{}: {problem}", cluster.name))?;
            }
            Ok(())
        })
        .await
    }

    /// Makes sure that a cluster whose link is cut has the first version, and that the hub knows nothing else of it.
    async fn behind(&self, cluster: &Cluster) -> Result<(), Error> {
        let name = &cluster.name;
        let web = self.web(cluster).await?;
        let running = shop::running(&web);
        if !running.contains(shop::FIRST.image) {
            return Err(Error::Input(format!(
                "{name} was to be cut off, but it runs {running}"
            )));
        }
        let works: Api<ManifestWork> = Api::namespaced(self.hub.clone(), name);
        let work = works.get(shop::NAME).await.map_err(|e| Error::Request {
            what: format!("read the work of {name}"),
            problem: crate::error::innermost(&e),
        })?;
        match shop::reported(Some(&work), shop::SECOND) {
            Err(_) => Ok(()),
            Ok(()) => Err(Error::Input(format!(
                "{name} was to be cut off, but it reported to the hub"
            ))),
        }
    }

    async fn web(&self, cluster: &Cluster) -> Result<Deployment, Error> {
        let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), shop::NAME);
        deployments.get(shop::WEB).await.map_err(|e| Error::Request {
            what: format!("read Deployment {} of {}", shop::WEB, cluster.name),
            problem: crate::error::innermost(&e),
        })
    }

    /// What the clusters themselves say they run, a line each.
    async fn running(&self) -> Result<Vec<String>, Error> {
        let lines = self.clusters.iter().map(|cluster| async move {
            let web = self.web(cluster).await?;
            Ok::<_, Error>(format!("{:<10} {}", cluster.name, shop::running(&web)))
        });
        try_join_all(lines).await
    }
}
