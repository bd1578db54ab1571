//! The last known works, kept on the managed cluster itself, so that an agent that restarts without its hub keeps them in
//! place (law 5). They live in Secrets, because works may carry Secrets; compressed, split to stay below the size limit.

use super::agent::progress;
use super::manifest::hex;
use super::objects::{self, RequestError};
use super::state::{State, WorkState};
use super::trust::{HubSeen, Told};
use crate::limits::Server;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use muster_crds::constants::annotations;
use muster_crds::work::v1::{ManifestWork, ManifestWorkSpec, ManifestWorkStatus};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Saving takes no more than this part of the time, so that many changes of many works share a write...
const SHARE: u32 = 10;
/// ...and yet what is saved is never older than this. Without its hub an agent that restarts goes by it.
const OLDEST: Duration = Duration::from_secs(1);
/// Uncompressed size that one Secret aims at. Works compress at least threefold; the limit of a Secret is 1 MiB.
const SHARD_BYTES: usize = 1_500_000;
/// More than this is not unpacked: a damaged or hostile Secret must not fill the memory.
const MAX_UNPACKED: u64 = 256 << 20;
const LABEL: &str = "muster.open-cluster-management.io/saved-works";
const DATA_KEY: &str = "works.json.gz";
const KNOWN_KEY: &str = "known.json";

/// Why saved works can not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The API server said no.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// What is stored is not what was written.
    #[error("Secret {name} is damaged: {problem}")]
    Damaged {
        /// The Secret.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// What the last run knew.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The hub's works.
    pub works: Vec<ManifestWork>,
    /// What the cluster was told of before the hub had other works, or none.
    pub told: BTreeMap<String, Told>,
    /// Which hub it was.
    pub hub: Option<HubSeen>,
}

/// What is kept beside the works, in the first Secret.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Beside {
    told: BTreeMap<String, Told>,
    hub: Option<HubSeen>,
}

impl Beside {
    fn of(state: &State) -> Self {
        let ahead = state.told.iter().filter(|(name, told)| {
            let now = state.works.get(*name).map(|w| Told::of(&w.work));
            now.is_none_or(|now| now.uid != told.uid || now.generation < told.generation)
        });
        Self {
            told: ahead.map(|(name, told)| (name.clone(), told.clone())).collect(),
            hub: state.hub.clone(),
        }
    }

    /// Whether it needs writing because of it: a hub that goes on does not.
    fn matters(&self) -> Self {
        let hub = self.hub.clone().map(|hub| HubSeen { revision: 0, ..hub });
        Self {
            told: self.told.clone(),
            hub,
        }
    }
}

/// A work, and of its status what decides how it is applied.
type KeptWork = (Arc<ManifestWork>, ManifestWorkStatus);

/// The saved works of one hub.
pub struct Saved {
    client: Server,
    namespace: String,
    hub: String,
    changed: Notify,
    written: Mutex<HashMap<String, Vec<u8>>>,
    /// What the last run wrote is known: a restart over the same works writes nothing.
    recalled: AtomicBool,
}

impl Saved {
    /// Works of the hub with this hash, in this namespace.
    pub fn new(client: Server, namespace: &str, hub_hash: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            hub: hub_hash.chars().take(16).collect(),
            changed: Notify::new(),
            written: Mutex::new(HashMap::new()),
            recalled: AtomicBool::new(false),
        }
    }

    /// The works are others now.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    /// Writes whenever something changed, for ever.
    pub async fn keep(&self, state: &Mutex<State>) {
        let mut quiet = Duration::ZERO;
        loop {
            self.changed.notified().await;
            tokio::time::sleep(quiet).await;
            let began = tokio::time::Instant::now();
            let known: Option<(Vec<KeptWork>, Beside)> = {
                let state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let found = |w: &WorkState| progress::deciding(&w.work, &w.so_far());
                let works = || state.works.values().map(|w| (w.work.clone(), found(w))).collect();
                state.hub_synced.then(|| (works(), Beside::of(&state)))
            };
            let Some((works, beside)) = known else { continue };
            if let Err(error) = self.store(works, &beside).await {
                tracing::warn!(%error, "the known works can not be saved on the managed cluster; tried again at the next change");
            }
            quiet = began.elapsed().saturating_mul(SHARE).min(OLDEST);
        }
    }

    async fn store(&self, works: Vec<KeptWork>, beside: &Beside) -> Result<(), SavedError> {
        if !self.recalled.load(Ordering::Relaxed)
            && let Err(error) = self.recall().await
        {
            // Then all of it is written, which is never wrong.
            tracing::debug!(%error, "what was saved by the last run is not known");
        }
        let mut kept = Vec::new();
        for (index, shard) in shards(&works).into_iter().enumerate() {
            let name = format!("muster-works-{}-{index}", self.hub);
            let beside = (index == 0).then_some(beside);
            let digest = digest(&shard, beside);
            kept.push(name.clone());
            let known = self
                .written
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&name)
                .cloned();
            if known.as_ref() == Some(&digest) {
                continue;
            }
            let packed = pack(&shard).map_err(|e| damaged(&name, &e))?;
            let mut secret = json!({"apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": name, "namespace": self.namespace, "labels": {LABEL: self.hub}},
                "data": {DATA_KEY: STANDARD.encode(packed)}});
            if let Some(beside) = beside {
                secret["data"][KNOWN_KEY] = STANDARD.encode(json!(beside).to_string()).into();
            }
            match objects::merge(&self.client, &format!("{}/{name}", self.path()), &secret).await {
                Err(error) if error.is_not_found() => {
                    objects::create(&self.client, &self.path(), &secret).await?;
                }
                other => drop(other?),
            }
            self.written
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(name, digest);
        }
        let surplus: Vec<String> = {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let surplus = written.keys().filter(|n| !kept.contains(n)).cloned().collect();
            written.retain(|n, _| kept.contains(n));
            surplus
        };
        for name in surplus {
            match objects::delete(&self.client, &format!("{}/{name}", self.path()), "").await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// What the last run knew.
    pub async fn load(&self) -> Result<Loaded, SavedError> {
        let mut loaded = Loaded::default();
        for (name, shard, beside) in self.recall().await? {
            let list: Vec<ManifestWork> = serde_json::from_slice(&shard).map_err(|e| damaged(&name, &e))?;
            loaded.works.extend(list);
            if let Some(beside) = beside {
                loaded.told = beside.told;
                loaded.hub = beside.hub;
            }
        }
        Ok(loaded)
    }

    /// What the Secrets hold, which is from now on known to be written.
    async fn recall(&self) -> Result<Vec<(String, Vec<u8>, Option<Beside>)>, SavedError> {
        let path = format!("{}?labelSelector={LABEL}%3D{}", self.path(), self.hub);
        let list = objects::get(&self.client, &path).await?;
        let mut shards = Vec::new();
        for secret in list["items"].as_array().into_iter().flatten() {
            let name = secret["metadata"]["name"].as_str().unwrap_or_default();
            let packed = STANDARD
                .decode(secret["data"][DATA_KEY].as_str().unwrap_or_default())
                .map_err(|e| damaged(name, &e))?;
            let shard = unpack(&packed).map_err(|e| damaged(name, &e))?;
            let beside = match secret["data"][KNOWN_KEY].as_str() {
                Some(text) => {
                    let text = STANDARD.decode(text).map_err(|e| damaged(name, &e))?;
                    Some(serde_json::from_slice::<Beside>(&text).map_err(|e| damaged(name, &e))?)
                }
                None => None,
            };
            self.written
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(name.to_owned(), digest(&shard, beside.as_ref()));
            shards.push((name.to_owned(), shard, beside));
        }
        self.recalled.store(true, Ordering::Relaxed);
        Ok(shards)
    }
}

/// By what it is known that a Secret needs no writing.
fn digest(shard: &[u8], beside: Option<&Beside>) -> Vec<u8> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(shard);
    if let Some(beside) = beside {
        context.update(json!(beside.matters()).to_string().as_bytes());
    }
    context.finish().as_ref().to_vec()
}

fn damaged(name: &str, problem: &dyn std::error::Error) -> SavedError {
    SavedError::Damaged {
        name: name.to_owned(),
        problem: problem.to_string(),
    }
}

/// Serialised lists of works. A work stays in its shard while the number of shards does.
fn shards(works: &[KeptWork]) -> Vec<Vec<u8>> {
    let mut texts: Vec<(String, String)> = works
        .iter()
        .filter_map(|w| Some((w.0.metadata.name.clone()?, stripped(w)?)))
        .collect();
    texts.sort();
    let total: usize = texts.iter().map(|(_, t)| t.len()).sum();
    let count = (total / SHARD_BYTES + 1).next_power_of_two();
    let mut shards = vec![String::from("["); count];
    for (name, text) in texts {
        let shard = &mut shards[shard_of(&name, count)];
        if shard.len() > 1 {
            shard.push(',');
        }
        shard.push_str(&text);
    }
    shards
        .into_iter()
        .map(|mut s| {
            s.push(']');
            s.into_bytes()
        })
        .collect()
}

fn shard_of(name: &str, count: usize) -> usize {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    usize::from(u16::from_be_bytes([digest.as_ref()[0], digest.as_ref()[1]])) % count
}

/// A work as it is saved.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept<'a> {
    api_version: Cow<'static, str>,
    kind: Cow<'static, str>,
    metadata: ObjectMeta,
    spec: &'a ManifestWorkSpec,
    /// What decides how it is applied, where there is any.
    #[serde(skip_serializing_if = "is_empty")]
    status: &'a ManifestWorkStatus,
}

fn is_empty(status: &ManifestWorkStatus) -> bool {
    *status == ManifestWorkStatus::default()
}

/// Without what changes on every write: a status update must not rewrite the Secret.
fn stripped((work, found): &KeptWork) -> Option<String> {
    let mut metadata = work.metadata.clone();
    metadata.resource_version = None;
    metadata.managed_fields = None;
    if let Some(given) = &mut metadata.annotations {
        given.remove(annotations::DRY_RUN);
    }
    let kept = Kept {
        api_version: ManifestWork::api_version(&()),
        kind: ManifestWork::kind(&()),
        metadata,
        spec: &work.spec,
        status: found,
    };
    serde_json::to_string(&kept).ok()
}

fn pack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn unpack(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(packed)
        .take(MAX_UNPACKED)
        .read_to_end(&mut out)?;
    Ok(out)
}

/// SHA-256 of the hub's URL exactly as in the kubeconfig: how a hub is told from another (wire §3.1).
pub fn hub_hash(server: &str) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, server.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(name: &str, size: usize) -> KeptWork {
        let work: ManifestWork = serde_json::from_value(
            json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
            "metadata": {"name": name, "resourceVersion": "7"},
            "spec": {"workload": {"manifests": [{"kind": "ConfigMap", "data": {"k": "x".repeat(size)}}]}}}),
        )
        .unwrap();
        (Arc::new(work), ManifestWorkStatus::default())
    }

    #[test]
    fn packed_works_come_back_whole_and_in_shards() {
        let works: Vec<_> = (0..9).map(|i| work(&format!("w{i}"), 500_000)).collect();
        let shards = shards(&works);
        assert_eq!(shards.len(), 4);
        let mut names = Vec::new();
        for shard in shards {
            let back: Vec<ManifestWork> =
                serde_json::from_slice(&unpack(&pack(&shard).unwrap()).unwrap()).unwrap();
            names.extend(back.into_iter().map(|w| w.metadata.name.unwrap()));
        }
        names.sort();
        assert_eq!(names, (0..9).map(|i| format!("w{i}")).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_beside_the_works_is_written_when_it_matters() {
        let mut state = State::default();
        let told = |uid: &str, generation| Told {
            uid: uid.into(),
            generation,
        };
        for (name, uid, generation) in [("same", "a", 3), ("older", "b", 3), ("other", "c", 3)] {
            let mut work = (*work(name, 1).0).clone();
            work.metadata.uid = Some(uid.into());
            work.metadata.generation = Some(generation);
            state.work_applied(work);
        }
        let before = [
            ("same", told("a", 2)),
            ("older", told("b", 4)),
            ("other", told("x", 1)),
            ("gone", told("d", 1)),
        ];
        state.told = before.map(|(name, told)| (name.to_owned(), told)).into();
        state.hub = Some(HubSeen {
            cluster: "h".into(),
            revision: 7,
        });
        let beside = Beside::of(&state);
        assert_eq!(beside.told.keys().collect::<Vec<_>>(), ["gone", "older", "other"]);
        let same = |other: &Beside| digest(b"[]", Some(&beside)) == digest(b"[]", Some(other));
        let mut later = beside.clone();
        later.hub = Some(HubSeen {
            cluster: "h".into(),
            revision: 8,
        });
        assert!(same(&later), "the hub only went on");
        later.hub = None;
        assert!(!same(&later));
        let mut fewer = beside.clone();
        fewer.told.clear();
        assert!(!same(&fewer));
    }

    #[test]
    fn status_and_revision_do_not_change_what_is_saved() {
        let (before, none) = work("a", 1);
        let mut other = (*before).clone();
        other.metadata.resource_version = Some("8".into());
        other.status = Some(ManifestWorkStatus::default());
        assert_eq!(shards(&[work("a", 1)]), shards(&[(Arc::new(other), none)]));
    }

    #[test]
    fn what_is_complete_is_so_after_a_restart_without_the_hub() {
        let (work, _) = work("a", 1);
        let found: ManifestWorkStatus =
            serde_json::from_value(json!({"conditions": [{"type": "Complete", "status": "True",
            "reason": "r", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}))
            .unwrap();
        let shards = shards(&[(work, found.clone())]);
        let back: Vec<ManifestWork> = serde_json::from_slice(&shards[0]).unwrap();
        assert_eq!(back[0].status, Some(found));
    }

    #[test]
    fn hub_hash_is_hex_sha256() {
        let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hub_hash(""), expected);
    }
}
