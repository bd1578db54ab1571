//! Server-side apply and its bookkeeping against a model that knows only leaves and who owns them.

use super::{Outcome, any_json, fuzz, json_of};
use crate::ApiError;
use crate::patch::apply::Applier;
use crate::patch::{FieldSet, managed};
use crate::schema::{Schema, builtin, structural};
use jiff::Timestamp;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::strategy::BoxedStrategy;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

const VERSION: &str = "x.io/v1";

static GADGET: LazyLock<Schema> = LazyLock::new(|| {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "base": {"type": "string"},
        "m": {"type": "object", "additionalProperties": {"type": "integer"}},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
        "whole": {"type": "array", "x-kubernetes-list-type": "atomic", "items": {"type": "integer"}}}}}});
    structural::parse(&schema, "").unwrap()
});

/// What a configuration says, leaf by leaf. A leaf is a path with dots; its value is text.
type Leaves = BTreeMap<String, String>;

#[derive(Debug, Clone)]
struct Config {
    map: BTreeMap<String, i64>,
    tags: BTreeSet<String>,
    items: BTreeMap<String, Option<i64>>,
    whole: Option<Vec<i64>>,
}

impl Config {
    fn leaves(&self) -> Leaves {
        let mut leaves = Leaves::new();
        for (k, v) in &self.map {
            leaves.insert(format!("m.{k}"), v.to_string());
        }
        for tag in &self.tags {
            leaves.insert(format!("tags.{tag}"), String::new());
        }
        for (k, v) in &self.items {
            leaves.insert(format!("items.{k}"), String::new());
            if let Some(v) = v {
                leaves.insert(format!("items.{k}.v"), v.to_string());
            }
        }
        if let Some(whole) = &self.whole {
            leaves.insert("whole".into(), json!(whole).to_string());
        }
        leaves
    }

    fn object(&self) -> Value {
        // Everybody says this: a configuration of nothing but an empty map is a matter of its own.
        let mut spec = json!({"base": "b"});
        if !self.map.is_empty() {
            spec["m"] = json!(self.map);
        }
        if !self.tags.is_empty() {
            spec["tags"] = json!(self.tags);
        }
        if !self.items.is_empty() {
            let item =
                |(k, v): (&String, &Option<i64>)| v.map_or(json!({"k": k}), |v| json!({"k": k, "v": v}));
            spec["items"] = self.items.iter().map(item).collect();
        }
        if let Some(whole) = &self.whole {
            spec["whole"] = json!(whole);
        }
        json!({"apiVersion": VERSION, "kind": "Gadget", "metadata": {"name": "g"}, "spec": spec})
    }
}

fn config() -> BoxedStrategy<Config> {
    let name = || prop::sample::select(vec!["a", "b", "c"]).prop_map(String::from);
    (
        btree_map(name(), 0..3_i64, 0..3),
        btree_set(name(), 0..3),
        btree_map(name(), prop::option::of(0..3_i64), 0..3),
        prop::option::weighted(0.3, vec(0..2_i64, 1..3)),
    )
        .prop_map(|(map, tags, items, whole)| Config {
            map,
            tags,
            items,
            whole,
        })
        .boxed()
}

/// The leaves an object has.
fn leaves_of(object: &Value) -> Leaves {
    let mut leaves = Leaves::new();
    let spec = &object["spec"];
    for (k, v) in spec["m"].as_object().into_iter().flatten() {
        leaves.insert(format!("m.{k}"), v.to_string());
    }
    for tag in spec["tags"].as_array().into_iter().flatten() {
        leaves.insert(format!("tags.{}", tag.as_str().unwrap()), String::new());
    }
    for item in spec["items"].as_array().into_iter().flatten() {
        let k = item["k"].as_str().unwrap();
        leaves.insert(format!("items.{k}"), String::new());
        if !item["v"].is_null() {
            leaves.insert(format!("items.{k}.v"), item["v"].to_string());
        }
    }
    if !spec["whole"].is_null() {
        leaves.insert("whole".into(), spec["whole"].to_string());
    }
    leaves
}

/// Who owns which leaves, as managedFields say.
fn owners_of(object: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut owners = BTreeMap::new();
    for entry in object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let mut leaves = BTreeSet::new();
        let spec = &entry["fieldsV1"]["f:spec"];
        for name in spec["f:m"].as_object().into_iter().flatten().map(|(k, _)| k) {
            leaves.extend(name.strip_prefix("f:").map(|n| format!("m.{n}")));
        }
        for name in spec["f:tags"].as_object().into_iter().flatten().map(|(k, _)| k) {
            leaves.extend(
                name.strip_prefix("v:")
                    .map(|n| format!("tags.{}", n.trim_matches('"'))),
            );
        }
        for (name, fields) in spec["f:items"].as_object().into_iter().flatten() {
            let Some(key) = name.strip_prefix("k:") else {
                continue;
            };
            let key: Value = serde_json::from_str(key).unwrap();
            let k = key["k"].as_str().unwrap();
            if fields.get(".").is_some() {
                leaves.insert(format!("items.{k}"));
            }
            if fields.get("f:v").is_some() {
                leaves.insert(format!("items.{k}.v"));
            }
        }
        if spec.get("f:whole").is_some() {
            leaves.insert("whole".into());
        }
        let who = format!(
            "{} {}",
            entry["operation"].as_str().unwrap(),
            entry["manager"].as_str().unwrap()
        );
        if !leaves.is_empty() {
            owners.insert(who, leaves);
        }
    }
    owners
}

/// KEP-555 in short.
#[derive(Debug, Default)]
struct Model {
    live: Leaves,
    owners: BTreeMap<String, BTreeSet<String>>,
}

impl Model {
    fn owned_by_others(&self, who: &str, leaf: &str) -> bool {
        self.owners
            .iter()
            .any(|(o, leaves)| o != who && leaves.contains(leaf))
    }

    /// Leaves that stand against an apply: another's, and to be changed.
    fn conflicts(&self, who: &str, wanted: &Leaves) -> BTreeSet<String> {
        let differs = |(leaf, value): &(&String, &String)| self.live.get(*leaf).is_some_and(|v| v != *value);
        let theirs = wanted
            .iter()
            .filter(differs)
            .filter(|(leaf, _)| self.owned_by_others(who, leaf));
        theirs.map(|(leaf, _)| leaf.clone()).collect()
    }

    fn apply(&mut self, who: &str, wanted: &Leaves) {
        for leaf in self.conflicts(who, wanted) {
            for (owner, leaves) in &mut self.owners {
                if owner != who {
                    leaves.remove(&leaf);
                }
            }
        }
        let before = self.owners.remove(who).unwrap_or_default();
        for leaf in before.iter().filter(|l| !wanted.contains_key(*l)) {
            // An item goes with all that is in it, whoever set that.
            if !self.owners.values().flatten().any(|l| l == leaf) {
                self.live
                    .retain(|l, _| l != leaf && !l.starts_with(&format!("{leaf}.")));
            }
        }
        self.live.extend(wanted.clone());
        self.owners.insert(who.into(), wanted.keys().cloned().collect());
        self.tidy();
    }

    fn replace(&mut self, who: &str, new: &Leaves) {
        let changed: Vec<String> = new
            .iter()
            .filter(|(leaf, v)| self.live.get(*leaf) != Some(v))
            .map(|(leaf, _)| leaf.clone())
            .collect();
        for leaves in self.owners.values_mut() {
            leaves.retain(|leaf| new.contains_key(leaf) && !changed.contains(leaf));
        }
        self.owners.entry(who.into()).or_default().extend(changed);
        self.live = new.clone();
        self.tidy();
    }

    fn tidy(&mut self) {
        for leaves in self.owners.values_mut() {
            leaves.retain(|leaf| self.live.contains_key(leaf));
        }
        self.owners.retain(|_, leaves| !leaves.is_empty());
    }
}

fn apply(live: Option<&Value>, manager: &str, force: bool, config: &Value) -> Result<Value, ApiError> {
    let applier = Applier {
        schema: &GADGET,
        api_version: VERSION,
        kind: config["kind"].as_str().unwrap_or("Gadget"),
        manager,
        subresource: "",
        force,
        now: Timestamp::UNIX_EPOCH,
        reset_fields: &FieldSet::EMPTY,
    };
    applier.apply(live, config)
}

#[derive(Debug, Clone)]
enum Step {
    Apply(usize, bool, Config),
    Replace(usize, Config),
}

fn step() -> BoxedStrategy<Step> {
    prop_oneof![
        3 => (0..3_usize, any::<bool>(), config()).prop_map(|(who, force, c)| Step::Apply(who, force, c)),
        1 => (0..2_usize, config()).prop_map(|(who, c)| Step::Replace(who, c)),
    ]
    .boxed()
}

#[test]
fn managers_and_their_fields() {
    fuzz("server-side apply", &vec(step(), 1..8), |steps| -> Outcome {
        let mut model = Model::default();
        let mut live: Option<Value> = None;
        for step in steps {
            match &step {
                Step::Apply(who, force, config) => {
                    let manager = ["one", "two", "three"][*who];
                    let owner = format!("Apply {manager}");
                    let (wanted, object) = (config.leaves(), config.object());
                    let conflicts = model.conflicts(&owner, &wanted);
                    match apply(live.as_ref(), manager, *force, &object) {
                        Ok(next) => {
                            prop_assert!(
                                *force || conflicts.is_empty(),
                                "no conflict about {conflicts:?} at {step:?}"
                            );
                            model.apply(&owner, &wanted);
                            let again = apply(Some(&next), manager, false, &object);
                            let again =
                                again.map_err(|e| TestCaseError::fail(format!("again: {e} at {step:?}")))?;
                            prop_assert_eq!(&again, &next, "once more changes something");
                            live = Some(next);
                        }
                        Err(ApiError::ApplyConflict { .. }) => {
                            prop_assert!(
                                !force && !conflicts.is_empty(),
                                "a conflict at {step:?} in {model:?}"
                            );
                        }
                        Err(other) => return Err(TestCaseError::fail(format!("{other} at {step:?}"))),
                    }
                }
                Step::Replace(who, config) => {
                    let manager = ["one", "four"][*who];
                    let mut new = config.object();
                    let now = Timestamp::UNIX_EPOCH;
                    managed::update(
                        &GADGET,
                        live.as_ref(),
                        &mut new,
                        manager,
                        VERSION,
                        "",
                        &FieldSet::EMPTY,
                        now,
                    );
                    model.replace(&format!("Update {manager}"), &config.leaves());
                    live = Some(new);
                }
            }
            if let Some(live) = &live {
                prop_assert_eq!(leaves_of(live), model.live.clone(), "after {:?}", step);
                prop_assert_eq!(
                    owners_of(live),
                    model.owners.clone(),
                    "after {:?} of {}",
                    step,
                    live
                );
            }
        }
        Ok(())
    });
}

#[test]
fn anything_applied() {
    let names = prop::sample::select(vec![
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "status",
        "m",
        "tags",
        "items",
        "whole",
        "k",
        "v",
        "name",
        "labels",
        "managedFields",
        "manager",
        "operation",
        "fieldsType",
        "fieldsV1",
        "f:spec",
        "k:{\"k\":\"a\"}",
        "v:1",
        "i:0",
        ".",
        "template",
        "containers",
        "ports",
        "data",
    ])
    .prop_map(String::from)
    .boxed();
    let object = (json_of(names.clone()), any_json(), 0..3_usize).prop_map(|(object, fields, shape)| {
        let entry = json!({"manager": "m", "operation": "Apply", "apiVersion": VERSION, "fieldsType": "FieldsV1",
            "time": "2020-01-01T00:00:00Z", "fieldsV1": fields});
        let mut whole = json!({"apiVersion": VERSION, "kind": "Gadget", "metadata": {"name": "g"}, "spec": object});
        match shape {
            0 => whole["metadata"]["managedFields"] = json!([entry]),
            1 => whole["metadata"]["managedFields"] = object,
            _ => {}
        }
        whole
    });
    let input = (
        object.clone(),
        object,
        prop::sample::select(vec!["one", "kubectl", ""]),
        any::<bool>(),
    );
    let deployment = builtin::for_gvk("apps", "v1", "Deployment").unwrap();
    fuzz(
        "anything applied",
        &input,
        |(live, mut config, manager, force)| {
            if let Some(metadata) = config["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            for schema in [&GADGET, deployment] {
                let applier = Applier {
                    schema,
                    api_version: VERSION,
                    kind: config["kind"].as_str().unwrap_or("Gadget"),
                    manager,
                    subresource: "",
                    force,
                    now: Timestamp::UNIX_EPOCH,
                    reset_fields: &FieldSet::EMPTY,
                };
                // Where nobody owns anything, the next apply is the first one again: it finds an owner for what is there.
                if let Ok(next) = applier.apply(Some(&live), &config)
                    && next["metadata"]["managedFields"].is_array()
                    && let Ok(again) = applier.apply(Some(&next), &config)
                {
                    prop_assert_eq!(again, next, "twice is as once");
                }
                let mut new = config.clone();
                managed::update(
                    schema,
                    Some(&live),
                    &mut new,
                    manager,
                    VERSION,
                    "",
                    &FieldSet::EMPTY,
                    Timestamp::UNIX_EPOCH,
                );
                new["metadata"]["managedFields"] = Value::Null;
                let mut same = config.clone();
                same["metadata"]["managedFields"] = Value::Null;
                prop_assert_eq!(new, same, "bookkeeping changes nothing else");
            }
            Ok(())
        },
    );
}
