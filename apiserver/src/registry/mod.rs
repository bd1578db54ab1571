//! What kinds there are and what makes each of them itself: names, verbs, subresources, schema, defaults, rules.
//!
//! Built-in kinds are a table; CustomResourceDefinitions add to it and leave it while the server runs. Readers take a
//! snapshot and never wait for each other.

pub mod builtin;
pub mod convert;
pub mod crd;
pub mod crd_versions;
pub mod names;
pub mod strategy;
pub mod usage;

use crate::error::FieldError;
use crate::schema::{self, Schema, cel};
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

/// One resource of one group version, as it is served.
#[derive(Debug, Clone)]
pub struct Resource {
    /// API group, `""` for core.
    pub group: String,
    /// Version in the group.
    pub version: String,
    /// Plural name, the one in paths.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Kind of its lists.
    pub list_kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Short names for people.
    pub short_names: Vec<String>,
    /// Categories like `all`.
    pub categories: Vec<String>,
    /// Verbs of the main resource, in discovery's order.
    pub verbs: Vec<String>,
    /// What hangs under it.
    pub subresources: Vec<Subresource>,
    /// First part of store keys: `group/plural`. Kinds served in two groups or versions share one.
    pub storage: Arc<str>,
    /// Version objects are stored in.
    pub storage_version: String,
    /// apiVersion objects are stored with; the group differs from `group` where two groups share a storage.
    pub storage_api_version: String,
    /// Schema of a built-in kind, looked up when first asked for.
    pub(crate) builtin: OnceLock<Option<&'static Schema>>,
    /// What a CustomResourceDefinition says about it; `None` for built-in kinds.
    pub custom: Option<Arc<Custom>>,
}

/// A subresource like `status` or `scale`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// Last part of the path.
    pub name: String,
    /// Group of the kind it speaks.
    pub group: String,
    /// Version of the kind it speaks.
    pub version: String,
    /// Kind it speaks.
    pub kind: String,
    /// Its verbs.
    pub verbs: Vec<String>,
}

/// The parts of one CRD version that change how its objects are served.
#[derive(Debug)]
pub struct Custom {
    /// Name of the CustomResourceDefinition.
    pub crd: String,
    /// Structural schema of this version.
    pub schema: Arc<Schema>,
    /// Those of all versions of the definition, served or not.
    pub versions: Arc<[VersionSchema]>,
    /// The revision at which the definition got its schemas: objects stored before may be of another one. `u64::MAX` while
    /// it is being written.
    pub since: u64,
    /// Of the schemas of all versions.
    pub schemas_digest: u64,
    /// Of all that decides how its objects are served: another one is another definition.
    pub identity: u64,
    /// Compiled `x-kubernetes-validations`.
    pub rules: cel::Rules,
    /// Digest of `openAPIV3Schema` as written: the OpenAPI documents change with it. The document itself is in the CRD.
    pub openapi_digest: u64,
    /// Whether `status` is a subresource.
    pub status: bool,
    /// Paths of the scale subresource.
    pub scale: Option<ScalePaths>,
    /// Paths objects can be selected by, like `.spec.mode`.
    pub selectable: Vec<String>,
    /// Columns of tables; the Age column when the CRD names none.
    pub columns: Vec<PrinterColumn>,
    /// Warning sent with every answer when the version is deprecated.
    pub deprecation: Option<String>,
    /// True when the CRD asks for a conversion webhook: versions are then served by rewriting apiVersion only.
    pub webhook_conversion: bool,
}

/// The schema of one version of a CustomResourceDefinition.
#[derive(Debug)]
pub struct VersionSchema {
    /// The version.
    pub name: String,
    /// Its structural schema.
    pub schema: Arc<Schema>,
}

impl Custom {
    /// The schema of a version.
    pub fn schema_of(&self, version: &str) -> Option<&Schema> {
        self.versions
            .iter()
            .find(|v| v.name == version)
            .map(|v| &*v.schema)
    }
}

/// JSON paths of a scale subresource, as `.spec.replicas`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// Where the wanted number is.
    pub spec: String,
    /// Where the actual number is.
    pub status: String,
    /// Where the serialised label selector is, if anywhere.
    pub selector: Option<String>,
}

/// One `additionalPrinterColumns` item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrinterColumn {
    /// Heading.
    pub name: String,
    /// OpenAPI type.
    pub kind: String,
    /// OpenAPI format.
    pub format: String,
    /// Prose.
    pub description: String,
    /// 0 is always shown, others with `-o wide`.
    pub priority: i64,
    /// Where the value is.
    pub json_path: String,
}

impl Resource {
    /// Schema of its objects. Kinds without one accept anything.
    pub fn schema(&self) -> &Schema {
        match &self.custom {
            Some(custom) => &custom.schema,
            None => self
                .builtin
                .get_or_init(|| schema::builtin::for_gvk(&self.group, &self.version, &self.kind))
                .unwrap_or_else(|| schema::builtin::any()),
        }
    }

    /// Whether `status` is written through its own subresource only.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether the main resource knows the verb.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Group, version and kind.
    pub fn gvk(&self) -> (&str, &str, &str) {
        (&self.group, &self.version, &self.kind)
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// `configmaps` or `deployments.apps`: how messages and CRD names call it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Whether it comes from a CustomResourceDefinition.
    pub fn is_custom(&self) -> bool {
        self.custom.is_some()
    }
}

/// `version`, or `group/version` outside core.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// Splits an apiVersion into group and version.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// One consistent view of all resources.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts changes; equal generations mean equal snapshots.
    pub generation: u64,
    resources: Vec<Arc<Resource>>,
    by_path: HashMap<(String, String, String), usize>,
    by_kind: HashMap<(String, String, String), usize>,
}

impl Snapshot {
    fn new(generation: u64, resources: Vec<Arc<Resource>>) -> Self {
        let mut snapshot = Self {
            generation,
            ..Self::default()
        };
        for (i, r) in resources.iter().enumerate() {
            let path = (r.group.clone(), r.version.clone(), r.plural.clone());
            snapshot.by_path.entry(path).or_insert(i);
            let kind = (r.group.clone(), r.version.clone(), r.kind.clone());
            snapshot.by_kind.entry(kind).or_insert(i);
        }
        snapshot.resources = resources;
        snapshot
    }

    /// Every resource: built-in ones in Kubernetes' order, custom ones after them.
    pub fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The resource served under that path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.by_path.get(&key).map(|i| Arc::clone(&self.resources[*i]))
    }

    /// The resource of that kind.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        self.by_kind.get(&key).map(|i| Arc::clone(&self.resources[*i]))
    }

    /// Groups with their versions, best version first, groups in discovery's order.
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut order: Vec<String> = Vec::new();
        let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for r in &self.resources {
            if !order.contains(&r.group) {
                order.push(r.group.clone());
            }
            let list = versions.entry(&r.group).or_default();
            if !list.contains(&r.version) {
                list.push(r.version.clone());
            }
        }
        order
            .into_iter()
            .map(|g| {
                let mut list = versions.remove(g.as_str()).unwrap_or_default();
                list.sort_by(|a, b| names::compare_versions(b, a));
                (g, list)
            })
            .collect()
    }

    /// Resources of one group version, in the order they were added.
    pub fn in_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.resources
            .iter()
            .filter(move |r| r.group == group && r.version == version)
    }
}

#[derive(Debug, Default)]
struct State {
    snapshot: Arc<Snapshot>,
    crds: BTreeMap<String, Vec<Arc<Resource>>>,
}

/// How many documents are kept.
const DOCUMENTS: usize = 256;

/// A document made of the registry: what it was made from, and its bytes.
type Document = (String, Bytes);

#[derive(Debug)]
struct Inner {
    state: RwLock<State>,
    documents: Mutex<HashMap<String, Document>>,
    changed: tokio::sync::watch::Sender<()>,
}

/// All resources the server has. Clones share it.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// The built-in kinds.
    pub fn new() -> Self {
        let snapshot = Arc::new(Snapshot::new(0, builtin::resources().to_vec()));
        let state = RwLock::new(State {
            snapshot,
            crds: BTreeMap::new(),
        });
        Self(Arc::new(Inner {
            state,
            documents: Mutex::default(),
            changed: tokio::sync::watch::Sender::default(),
        }))
    }

    /// One consistent view; cheap.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(
            &self
                .0
                .state
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .snapshot,
        )
    }

    /// Counts changes of what is served.
    pub fn generation(&self) -> u64 {
        self.snapshot().generation
    }

    /// Changes whenever what is served may have changed.
    pub fn changed(&self) -> tokio::sync::watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// The resource served under that path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.snapshot().find(group, version, plural)
    }

    /// The resource of that kind.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Resource>> {
        self.snapshot().by_kind(group, version, kind)
    }

    /// Every resource.
    pub fn all(&self) -> Vec<Arc<Resource>> {
        self.snapshot().all().to_vec()
    }

    /// The resources stored under a key's first part, one per served version.
    pub fn stored_as(&self, storage: &str) -> Vec<Arc<Resource>> {
        self.snapshot()
            .all()
            .iter()
            .filter(|r| &*r.storage == storage)
            .cloned()
            .collect()
    }

    /// Serves what a CustomResourceDefinition describes, in place of what it described before. The caller decides when:
    /// once it is Established. Returns what could not be understood of the schemas, with nothing changed then.
    pub fn set_crd(&self, crd: &Value) -> Result<(), Vec<FieldError>> {
        let mut resources = crd::resources(crd)?;
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        let name = crate::object::name(crd);
        let before = state.crds.get(name).and_then(|all| all.first()?.custom.as_ref());
        if let Some(before) = before.map(|c| (c.schemas_digest, c.since)) {
            // What is stored by the same schemas is as it would be stored now.
            let customs = resources.iter_mut().filter_map(|r| r.custom.as_mut());
            let same = customs.filter_map(Arc::get_mut);
            same.filter(|c| c.schemas_digest == before.0 && before.1 != u64::MAX)
                .for_each(|c| c.since = before.1);
        }
        let resources = resources.into_iter().map(Arc::new).collect();
        state.crds.insert(name.to_owned(), resources);
        state.rebuild();
        drop(state);
        self.0.changed.send_replace(());
        Ok(())
    }

    /// Stops serving what the CustomResourceDefinition of that name described.
    pub fn remove_crd(&self, name: &str) {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.crds.remove(name).is_some() {
            state.rebuild();
            drop(state);
            self.0.changed.send_replace(());
        }
    }

    /// The document kept under `name`, made anew when `hash` says that what it is made from has changed.
    pub fn document(&self, name: &str, hash: &str, make: impl FnOnce() -> Bytes) -> Bytes {
        let kept = || self.0.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, bytes)) = kept().get(name)
            && of == hash
        {
            return bytes.clone();
        }
        // Made outside the lock: two at once may do the same work, and nobody waits for it.
        let bytes = make();
        let mut kept = kept();
        // Documents of definitions that are gone stay behind. All that is asked for is soon made again.
        if kept.len() >= DOCUMENTS && !kept.contains_key(name) {
            kept.clear();
        }
        kept.insert(name.to_owned(), (hash.to_owned(), bytes.clone()));
        bytes
    }

    /// Names of the CustomResourceDefinitions served.
    pub fn crds(&self) -> BTreeSet<String> {
        self.0
            .state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .crds
            .keys()
            .cloned()
            .collect()
    }
}

impl State {
    fn rebuild(&mut self) {
        let mut all = builtin::resources().to_vec();
        let mut custom: Vec<Arc<Resource>> = self.crds.values().flatten().cloned().collect();
        custom.sort_by(|a, b| {
            (&a.group, &a.plural)
                .cmp(&(&b.group, &b.plural))
                .then_with(|| names::compare_versions(&b.version, &a.version))
        });
        all.extend(custom);
        self.snapshot = Arc::new(Snapshot::new(self.snapshot.generation + 1, all));
    }
}

#[cfg(test)]
pub(crate) mod tests;
