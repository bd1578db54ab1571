//! What works may be about, and what the cluster must then be: written from the issue, not from the agent's code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_tests::Seed;
use muster_tests::objects::{self, configmap};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Kinds that works have here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
    Service,
    Deployment,
    Widget,
    ClusterRole,
}

/// An object that works may have. Few enough that works share some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    pub kind: Kind,
    pub namespace: usize,
    pub number: usize,
}

/// All of them.
pub fn objects() -> Vec<Object> {
    use Kind::{ClusterRole, ConfigMap, Deployment, Secret, Service, Widget};
    let all = [
        (ConfigMap, 0, 0),
        (ConfigMap, 0, 1),
        (ConfigMap, 1, 0),
        (Secret, 0, 0),
        (Service, 0, 0),
        (Deployment, 0, 0),
        (Deployment, 1, 0),
        (Widget, 0, 0),
        (Widget, 1, 0),
        (ClusterRole, 0, 0),
    ];
    all.map(|(kind, namespace, number)| Object {
        kind,
        namespace,
        number,
    })
    .to_vec()
}

/// A CustomResourceDefinition of kind Widget.
pub fn widgets() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.property.example.com"},
        "spec": {"group": "property.example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "properties": {
                    "size": {"type": "integer"}, "colour": {"type": "string", "default": "grey"},
                    "extra": {"type": "string"},
                    "tags": {"type": "array", "items": {"type": "string"}}}}}}}}]}})
}

impl Object {
    /// Group, plural.
    pub fn resource(self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::ConfigMap => ("", "configmaps"),
            Kind::Secret => ("", "secrets"),
            Kind::Service => ("", "services"),
            Kind::Deployment => ("apps", "deployments"),
            Kind::Widget => ("property.example.com", "widgets"),
            Kind::ClusterRole => ("rbac.authorization.k8s.io", "clusterroles"),
        }
    }

    /// Namespace in a run, `""` for cluster-scoped objects.
    pub fn namespace(self, run: &str) -> String {
        match self.kind {
            Kind::ClusterRole => String::new(),
            _ => format!("{run}-{}", self.namespace),
        }
    }

    pub fn name(self, run: &str) -> String {
        match self.kind {
            Kind::ClusterRole => format!("{run}-{}", self.number),
            _ => format!("o{}", self.number),
        }
    }

    pub fn collection(self, run: &str) -> String {
        let (group, plural) = self.resource();
        let root = if group.is_empty() {
            "/api/v1".to_owned()
        } else {
            format!("/apis/{group}/v1")
        };
        match self.namespace(run).as_str() {
            "" => format!("{root}/{plural}"),
            namespace => format!("{root}/namespaces/{namespace}/{plural}"),
        }
    }

    pub fn path(self, run: &str) -> String {
        format!("{}/{}", self.collection(run), self.name(run))
    }

    /// The manifest. Odd variants say more than even ones, so that a change also takes something away.
    pub fn manifest(self, run: &str, variant: usize) -> Value {
        let (namespace, name) = (self.namespace(run), self.name(run));
        let odd = variant % 2 == 1;
        let mut manifest = match self.kind {
            Kind::ConfigMap => {
                let mut map = configmap(&namespace, &name, &format!("v{variant}"));
                if odd {
                    map["data"]["extra"] = json!("x");
                }
                map
            }
            Kind::Secret => {
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
                "type": "Opaque", "stringData": if odd { json!({"value": variant.to_string(), "extra": "x"}) }
                    else { json!({"value": variant.to_string()}) }})
            }
            Kind::Service => {
                json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
                "spec": {"selector": {"app": format!("v{variant}")},
                    "ports": if odd { json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]) }
                        else { json!([{"name": "a", "port": 80}]) }}})
            }
            Kind::Deployment => {
                let replicas = u32::try_from(variant).unwrap_or_default();
                let mut deployment = objects::deployment(&namespace, &name, replicas);
                if odd {
                    deployment["spec"]["template"]["spec"]["containers"][0]["env"] =
                        json!([{"name": "A", "value": "x"}]);
                }
                deployment
            }
            Kind::Widget => {
                let spec = if odd {
                    json!({"size": variant, "extra": "x", "tags": ["a", "b"]})
                } else {
                    json!({"size": variant, "tags": ["a"]})
                };
                json!({"apiVersion": "property.example.com/v1", "kind": "Widget",
                    "metadata": {"name": name, "namespace": namespace}, "spec": spec})
            }
            Kind::ClusterRole => json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": name}, "rules": [{"apiGroups": [""], "resources": ["pods"],
                    "verbs": if odd { json!(["get", "list"]) } else { json!(["get"]) }}]}),
        };
        manifest["metadata"]["labels"] = json!({"variant": format!("v{variant}")});
        manifest
    }

    /// The manifest as the server keeps it.
    pub fn wanted(self, run: &str, variant: usize) -> Value {
        let mut wanted = self.manifest(run, variant);
        if let Some(Value::Object(texts)) = wanted.as_object_mut().and_then(|w| w.remove("stringData")) {
            let encoded = texts
                .iter()
                .map(|(k, v)| (k.clone(), json!(STANDARD.encode(v.as_str().unwrap_or_default()))));
            wanted["data"] = Value::Object(encoded.collect());
        }
        wanted
    }

    /// Where its content is, as an object of which the manifest's fields must be all that is there; `None`: the server fills
    /// in more.
    pub fn content(self, object: &Value) -> Option<Value> {
        match self.kind {
            Kind::ConfigMap | Kind::Secret => Some(object["data"].clone()),
            Kind::ClusterRole => Some(object["rules"].clone()),
            Kind::Widget => {
                let mut spec = object["spec"].clone();
                if let Some(spec) = spec.as_object_mut() {
                    spec.remove("colour");
                }
                Some(spec)
            }
            Kind::Service | Kind::Deployment => None,
        }
    }

    /// What somebody on the cluster changes: a field of ours, or one beside ours.
    pub fn edit(self, beside: bool) -> Value {
        match (self.kind, beside) {
            (Kind::ConfigMap, false) => json!({"data": {"value": "edited"}}),
            (Kind::ConfigMap, true) => json!({"data": {"added": "by somebody"}}),
            (Kind::Secret, false) => json!({"data": {"value": null}}),
            (Kind::Secret, true) => json!({"stringData": {"added": "by somebody"}}),
            (Kind::Service, false) => json!({"spec": {"selector": {"app": "edited"}}}),
            (Kind::Deployment, false) => json!({"spec": {"replicas": 99}}),
            (Kind::Deployment, true) => {
                json!({"spec": {"template": {"metadata": {"annotations": {"added": "by somebody"}}}}})
            }
            (Kind::Widget, false) => json!({"spec": {"size": 99}}),
            (Kind::Widget, true) => json!({"spec": {"colour": "red"}}),
            (Kind::ClusterRole, false) => json!({"rules": []}),
            // A selector and rules are one value to the server: who adds to them takes all of them.
            (Kind::Service | Kind::ClusterRole, true) => {
                json!({"metadata": {"annotations": {"added": "by somebody"}}})
            }
        }
    }
}

/// How a work treats an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    Update,
    CreateOnly,
    Apply(Applying),
    ReadOnly,
}

/// How it is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applying {
    /// Whatever others have of it.
    pub force: bool,
    /// One field is left to others: [`Object::ignored`].
    pub ignoring: bool,
}

/// A field that works leave to others. Every work means the same by it: two that mean different things fight (`drift`).
#[derive(Debug, Clone, Copy)]
pub struct Ignored {
    /// `OnSpokePresent` or `OnSpokeChange`.
    pub condition: &'static str,
    /// The name of the list that it is in, and what it is there.
    pub named: (&'static str, &'static str),
    /// The same as a JSON pointer.
    pub pointer: &'static str,
}

impl Object {
    /// The field that works which ignore one ignore: the one that [`Object::edit`] changes.
    pub fn ignored(self) -> Option<Ignored> {
        let of = |condition, named, pointer| {
            Some(Ignored {
                condition,
                named,
                pointer,
            })
        };
        match self.kind {
            Kind::ConfigMap => of("OnSpokePresent", ("jsonPaths", ".data.value"), "/data/value"),
            Kind::Deployment => of(
                "OnSpokePresent",
                ("jqPathExpressions", ".spec.replicas"),
                "/spec/replicas",
            ),
            Kind::Service => of(
                "OnSpokeChange",
                ("jsonPointers", "/spec/selector/app"),
                "/spec/selector/app",
            ),
            Kind::Widget => of("OnSpokeChange", ("jsonPaths", ".spec.size"), "/spec/size"),
            Kind::Secret | Kind::ClusterRole => None,
        }
    }

    /// An object without the field that is ignored.
    pub fn without_ignored(self, mut object: Value) -> Value {
        if let Some((parent, field)) = self.ignored().and_then(|i| i.pointer.rsplit_once('/'))
            && let Some(Value::Object(parent)) = object.pointer_mut(parent)
        {
            parent.remove(field);
        }
        object
    }
}

impl Strategy {
    pub fn any(seed: &mut Seed, object: Object) -> Self {
        let ignored = object.ignored();
        match seed.below(12) {
            0..5 => Self::Update,
            5 => Self::Apply(Applying {
                force: true,
                ignoring: false,
            }),
            6 | 7 => Self::Apply(Applying {
                force: false,
                ignoring: false,
            }),
            8 | 9 => Self::Apply(Applying {
                // What the hub changes counts again under `OnSpokeChange`, so that others' changes are conflicts.
                force: ignored.is_none_or(|i| i.condition == "OnSpokeChange") || seed.below(2) == 0,
                ignoring: ignored.is_some(),
            }),
            10 => Self::CreateOnly,
            _ => Self::ReadOnly,
        }
    }

    fn spec(self, object: Object) -> Option<Value> {
        match self {
            Self::Update => None,
            Self::CreateOnly => Some(json!({"type": "CreateOnly"})),
            Self::ReadOnly => Some(json!({"type": "ReadOnly"})),
            Self::Apply(Applying { force, ignoring }) => {
                let mut apply = json!({ "force": force });
                if let Some(Ignored { condition, named, .. }) = object.ignored().filter(|_| ignoring) {
                    apply["ignoreFields"] = json!([{"condition": condition, named.0: [named.1]}]);
                }
                Some(json!({"type": "ServerSideApply", "serverSideApply": apply}))
            }
        }
    }

    /// Whether what it is about is kept as the manifest says.
    pub fn keeps(self) -> bool {
        matches!(self, Self::Update | Self::Apply(_))
    }

    pub fn applies(self) -> bool {
        matches!(self, Self::Apply(_))
    }

    /// Whether others' fields are conflicts.
    pub fn is_mild(self) -> bool {
        matches!(self, Self::Apply(Applying { force: false, .. }))
    }

    pub fn ignores(self) -> bool {
        matches!(self, Self::Apply(Applying { ignoring: true, .. }))
    }
}

/// What a work does about changes on the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    Enforce,
    Report,
    Once,
}

/// What a work does about objects that are not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOver {
    Always,
    IfNoDiff,
    Never,
}

/// Label of objects that were there before and are like no manifest.
pub const THEIRS: &str = "theirs";

/// Whether no work has to do with an object.
pub fn is_foreign(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    metadata["labels"]["muster.open-cluster-management.io/applied"] != "true"
        && owners.filter(|o| o["kind"] == "AppliedManifestWork").count() == 0
}

/// Which objects a work leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Orphans {
    None,
    All,
    Some(BTreeSet<Object>),
}

/// A work at the hub.
#[derive(Debug, Clone)]
pub struct Work {
    pub objects: BTreeMap<Object, Strategy>,
    pub orphans: Orphans,
    pub drift: Drift,
    pub take_over: TakeOver,
}

impl Work {
    /// A random one.
    pub fn any(seed: &mut Seed) -> Self {
        let all = objects();
        let mut work = Self {
            objects: BTreeMap::new(),
            orphans: Orphans::None,
            drift: Drift::Enforce,
            take_over: TakeOver::Always,
        };
        for _ in 0..=seed.below(4) {
            work.add(all[seed.below(all.len())], seed);
        }
        work.orphan(seed);
        work.choose(seed);
        work
    }

    /// Has an object, in one way or another.
    pub fn add(&mut self, object: Object, seed: &mut Seed) {
        self.objects.insert(object, Strategy::any(seed, object));
    }

    /// What its annotations say.
    pub fn choose(&mut self, seed: &mut Seed) {
        self.drift = match seed.below(8) {
            0 => Drift::Report,
            1 => Drift::Once,
            _ => Drift::Enforce,
        };
        self.take_over = match seed.below(6) {
            0 => TakeOver::IfNoDiff,
            1 => TakeOver::Never,
            _ => TakeOver::Always,
        };
    }

    /// Its annotations at the hub.
    pub fn annotations(&self) -> Value {
        json!({"work.muster.open-cluster-management.io/drift": format!("{:?}", self.drift),
            "work.muster.open-cluster-management.io/take-over": format!("{:?}", self.take_over)})
    }

    pub fn orphan(&mut self, seed: &mut Seed) {
        self.orphans = match seed.below(6) {
            0 => Orphans::All,
            1 => Orphans::Some(
                self.objects
                    .keys()
                    .filter(|_| seed.below(2) == 0)
                    .copied()
                    .collect(),
            ),
            _ => Orphans::None,
        };
    }

    /// Whether it writes the object.
    pub fn writes(&self, object: Object) -> bool {
        self.objects
            .get(&object)
            .is_some_and(|s| *s != Strategy::ReadOnly)
    }

    /// Whether the object goes with it.
    pub fn owns(&self, object: Object) -> bool {
        self.writes(object)
            && match &self.orphans {
                Orphans::None => true,
                Orphans::All => false,
                Orphans::Some(some) => !some.contains(&object),
            }
    }

    /// Its spec at the hub.
    pub fn spec(&self, run: &str, variants: &BTreeMap<Object, usize>) -> Value {
        let variant = |o: &Object| variants.get(o).copied().unwrap_or_default();
        let manifests: Vec<Value> = self.objects.keys().map(|o| o.manifest(run, variant(o))).collect();
        let configs: Vec<Value> = self
            .objects
            .iter()
            .filter_map(|(o, s)| {
                let (group, resource) = o.resource();
                Some(objects::strategy(
                    group,
                    resource,
                    &o.namespace(run),
                    &o.name(run),
                    &s.spec(*o)?,
                ))
            })
            .collect();
        let option = match &self.orphans {
            Orphans::None => json!({"propagationPolicy": "Foreground"}),
            Orphans::All => json!({"propagationPolicy": "Orphan"}),
            Orphans::Some(some) => {
                let rules: Vec<Value> = some.iter().map(|o| {
                    let (group, resource) = o.resource();
                    json!({"group": group, "resource": resource, "namespace": o.namespace(run), "name": o.name(run)})
                }).collect();
                json!({"propagationPolicy": "SelectivelyOrphan", "selectivelyOrphans": {"orphaningRules": rules}})
            }
        };
        json!({"workload": {"manifests": manifests}, "manifestConfigs": configs, "deleteOption": option})
    }
}

/// What is known of an object from one settled moment to the next.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// The object then.
    pub before: Option<Value>,
    /// A work that wrote it and owned it was there at some time.
    pub owned: bool,
    /// A work that wrote it and left it behind was there at some time.
    pub orphaned: bool,
    /// A work only read it at some time: what it wrote before that stays as it is, also that it owns it.
    pub read: bool,
    /// A work that may take it over though it was not ours was there at some time.
    pub taken: bool,
    /// A work that writes also the field that others ignore was there at some time.
    pub whole: bool,
    /// Somebody on the cluster wrote it (the field that may be ignored, or beside it), took our marks off it, deleted it.
    pub edited: bool,
    pub field_edited: bool,
    pub stripped: bool,
    pub deleted: bool,
}

impl Past {
    /// Whether nobody on the cluster did anything with it.
    pub fn is_quiet(&self) -> bool {
        !self.edited && !self.stripped && !self.deleted
    }

    /// A work said this at some time.
    pub fn account(&mut self, work: &Work, object: Object) {
        let Some(strategy) = work.objects.get(&object) else {
            return;
        };
        let writes = work.writes(object);
        self.read |= !writes;
        self.owned |= work.owns(object);
        self.orphaned |= writes && !work.owns(object);
        self.whole |= writes && !strategy.ignores();
        // What is like no manifest is not taken over where nothing may change; of what is made once nothing does.
        let unlike = |o: &Value| o["metadata"]["labels"][THEIRS].is_string();
        self.taken |= writes
            && match work.take_over {
                TakeOver::Always => true,
                TakeOver::IfNoDiff => !strategy.keeps() || !self.before.as_ref().is_some_and(unlike),
                TakeOver::Never => false,
            };
    }
}

/// Whether everything in `wanted` is in `found`; of lists, whether that is all, unless others may have `more` in them.
pub fn covers(found: &Value, wanted: &Value, more: bool) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted
            .iter()
            .all(|(k, w)| found.get(k).is_some_and(|f| covers(f, w, more))),
        (Value::Array(found), Value::Array(wanted)) if more => {
            wanted.iter().all(|w| found.iter().any(|f| covers(f, w, more)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(f, w)| covers(f, w, more))
        }
        (found, wanted) => found == wanted,
    }
}
