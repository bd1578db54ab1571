//! Open Cluster Management's own programs on the other side: our klusterlet at its hub, its agents at our hub, and a cluster
//! that goes from its agents to ours and back. They run where `MUSTER_TEST_OCM` names a folder with its programs
//! `registration` and `work`; with a folder `crds` beside them, its definitions are used, too.

mod agents;
mod hubs;
mod registration;
mod rotation;
mod takeover;
mod works;

use crate::Result;
use agents::{Agents, Cluster, Maker};
use hubs::Hub;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use muster_tests::control_plane::EXTERNAL;
use muster_tests::objects::CRDS;
use muster_tests::{ControlPlane, Program, deploy};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::sync::{Mutex, MutexGuard};

/// Names the folder with OCM's programs.
const PROGRAMS: &str = "MUSTER_TEST_OCM";

/// One test at a time: OCM's programs keep a machine busy, and its hub is alone on its control plane.
static TURN: Mutex<()> = Mutex::const_new(());

/// OCM's programs.
struct Ocm {
    registration: Program,
    work: Program,
    definitions: BTreeMap<String, Value>,
    _turn: MutexGuard<'static, ()>,
}

impl Ocm {
    /// `None`, with a message, where they are not to be had.
    async fn found() -> anyhow::Result<Option<Self>> {
        let Some(dir) = std::env::var_os(PROGRAMS).map(PathBuf::from) else {
            eprintln!("skipped: {PROGRAMS} names no folder with OCM's programs");
            return Ok(None);
        };
        if std::env::var_os(EXTERNAL).is_some() {
            eprintln!("skipped: OCM's hub needs a control plane of its own");
            return Ok(None);
        }
        let program = |name: &str| {
            let path = dir.join(name);
            anyhow::ensure!(path.exists(), "{PROGRAMS}: there is no {}", path.display());
            Program::new(&path.display().to_string())
        };
        Ok(Some(Self {
            registration: program("registration")?,
            work: program("work")?,
            definitions: definitions(&dir.join("crds"))?,
            _turn: TURN.lock().await,
        }))
    }

    /// Installs definitions: OCM's own where they are at hand, which should make no difference.
    async fn install(&self, plane: &ControlPlane, ours: Vec<CustomResourceDefinition>) -> Result {
        for crd in ours {
            let ours = serde_json::to_value(&crd)?;
            let name = ours["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let wanted = self.definitions.get(&name).unwrap_or(&ours);
            let path = format!("{CRDS}/{name}");
            if plane.kube().find(&path).await?.is_none() {
                deploy::apply(&plane.kube(), std::slice::from_ref(wanted)).await?;
            }
            plane.until_served(&name).await?;
        }
        Ok(())
    }
}

/// The definitions in a folder's YAML files, by name. Those that are templates are left out.
fn definitions(dir: &Path) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(found);
    };
    for entry in entries {
        let text = std::fs::read_to_string(entry?.path())?;
        if text.contains("{{") {
            continue;
        }
        let crd: Value = serde_saphyr::from_str(&text)?;
        let name = crd["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        found.insert(name, crd);
    }
    Ok(found)
}

/// A whole life of a cluster with agents of this maker at a hub.
async fn life(ocm: &Ocm, hub: &Hub, maker: Maker) -> Result {
    let cluster = Cluster::start(ocm).await?;
    let mut agents = Agents::start(ocm, &cluster, hub, maker)?;
    let told = async {
        registration::asks(hub, &cluster).await?;
        agents.complete(ocm, &cluster).await?;
        registration::joins(hub, &cluster).await?;
        works::begin(hub, &cluster).await?;
        agents.mark();
        registration::has_its_rights(hub, &cluster).await?;
        registration::renews(hub, &cluster).await?;
        registration::reports(hub, &cluster).await?;
        works::go_on(hub, &cluster, maker).await?;
        agents.were_refused_nothing()?;
        registration::is_denied_and_let_in_again(hub, &cluster).await?;
        registration::leaves(hub, &cluster).await
    }
    .await;
    agents.explain(told)
}

#[tokio::test(flavor = "multi_thread")]
async fn our_klusterlet_at_ocms_hub() -> Result {
    let Some(ocm) = Ocm::found().await? else {
        return Ok(());
    };
    let hub = Hub::ocms(&ocm).await?;
    hub.explain(life(&ocm, &hub, Maker::Muster).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn ocms_agents_at_our_hub() -> Result {
    let Some(ocm) = Ocm::found().await? else {
        return Ok(());
    };
    let hub = Hub::ours().await?;
    life(&ocm, &hub, Maker::Ocm).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ocms_agents_at_our_standalone_hub() -> Result {
    let Some(ocm) = Ocm::found().await? else {
        return Ok(());
    };
    let hub = Hub::standalone().await?;
    hub.explain(life(&ocm, &hub, Maker::Ocm).await)
}

/// What does not hold here is asked too much of the others.
#[tokio::test(flavor = "multi_thread")]
async fn ocms_agents_at_ocms_hub() -> Result {
    let Some(ocm) = Ocm::found().await? else {
        return Ok(());
    };
    let hub = Hub::ocms(&ocm).await?;
    hub.explain(life(&ocm, &hub, Maker::Ocm).await)
}
