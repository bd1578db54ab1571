//! What must be once everything is settled.

use super::World;
use super::model::{Object, Past, Strategy, Work, covers, objects};
use muster_tests::objects::{condition, has_condition};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Everything there is, on both sides.
#[derive(Debug, Default)]
pub struct Settled {
    pub objects: BTreeMap<Object, Value>,
    pub applied: Vec<Value>,
    pub works: Vec<Value>,
    pub strangers: BTreeMap<String, Value>,
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

impl Settled {
    /// Which version everything has.
    pub fn versions(&self) -> BTreeMap<String, String> {
        let version = |o: &Value| text(o, "resourceVersion").to_owned();
        let objects = self
            .objects
            .iter()
            .map(|(name, o)| (format!("{name:?}"), version(o)));
        let applied = self
            .applied
            .iter()
            .map(|o| (format!("applied {}", text(o, "name")), version(o)));
        let works = self
            .works
            .iter()
            .map(|o| (format!("work {}", text(o, "name")), version(o)));
        objects.chain(applied).chain(works).collect()
    }
}

/// Compares what is with what should be.
pub fn check(world: &World, settled: &Settled) -> Result<(), String> {
    for (path, before) in &world.strangers {
        let now = settled.strangers.get(path);
        if now != Some(before) {
            return Err(format!(
                "{path}, which no work names, was {before} and is {now:?}"
            ));
        }
    }
    let hash = world.hash();
    let uids: BTreeMap<&str, &str> = settled
        .applied
        .iter()
        .map(|a| {
            (
                a["spec"]["manifestWorkName"].as_str().unwrap_or_default(),
                text(a, "uid"),
            )
        })
        .collect();
    let names: BTreeSet<&str> = world.works.keys().map(String::as_str).collect();
    let recorded: BTreeSet<&str> = uids.keys().copied().collect();
    if recorded != names {
        return Err(format!(
            "AppliedManifestWorks are of {recorded:?}, works are {names:?}"
        ));
    }
    let at_hub: BTreeSet<&str> = settled.works.iter().map(|w| text(w, "name")).collect();
    if at_hub != names {
        return Err(format!("the hub has {at_hub:?}, works are {names:?}"));
    }
    for object in objects() {
        one(world, settled, &uids, object).map_err(|e| format!("{object:?}: {e}"))?;
    }
    for applied in &settled.applied {
        let work = applied["spec"]["manifestWorkName"].as_str().unwrap_or_default();
        if text(applied, "name") != format!("{hash}-{work}") {
            return Err(format!(
                "an AppliedManifestWork of {work} is called {}",
                text(applied, "name")
            ));
        }
        record(&world.works[work], settled, applied).map_err(|e| format!("record of {work}: {e}"))?;
    }
    for work in &settled.works {
        let name = text(work, "name");
        status(&world.works[name], settled, work).map_err(|e| format!("status of {name}: {e}"))?;
    }
    Ok(())
}

/// The AppliedManifestWorks that own an object, by UID.
fn owners(object: &Value) -> BTreeSet<&str> {
    let list = object["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten();
    list.filter(|o| o["kind"] == "AppliedManifestWork")
        .filter_map(|o| o["uid"].as_str())
        .collect()
}

fn one(world: &World, settled: &Settled, uids: &BTreeMap<&str, &str>, object: Object) -> Result<(), String> {
    let found = settled.objects.get(&object);
    let writing: BTreeMap<&String, &Work> = world.works.iter().filter(|(_, w)| w.writes(object)).collect();
    let past = &world.past[&object];
    if writing.is_empty() {
        let reading = world
            .works
            .iter()
            .filter(|(_, w)| w.objects.contains_key(&object));
        let mut reading = reading.filter_map(|(name, _)| uids.get(name.as_str()));
        if let Some(reader) = reading.find(|r| found.is_some_and(|f| owners(f).contains(**r))) {
            return Err(format!("{reader} only reads it, and owns it"));
        }
        return if past.read && (past.owned || past.orphaned) {
            Ok(())
        } else {
            left(past, found)
        };
    }
    let found = found.ok_or("it is not there")?;
    if !found["metadata"]["deletionTimestamp"].is_null() {
        return Err("it is being deleted".into());
    }
    let expected: BTreeSet<&str> = writing
        .iter()
        .filter(|(_, w)| w.owns(object))
        .filter_map(|(name, _)| uids.get(name.as_str()).copied())
        .collect();
    if owners(found) != expected {
        return Err(format!(
            "its owners are {:?}, they should be {expected:?}",
            owners(found)
        ));
    }
    let has = |strategy| {
        writing
            .values()
            .any(|w| w.objects.get(&object) == Some(&strategy))
    };
    if !has(Strategy::Update) && !has(Strategy::Apply) {
        // Made once; what became of it since is not the work's.
        return Ok(());
    }
    let variant = world.variants.get(&object).copied().unwrap_or_default();
    let wanted = object.wanted(&world.run, variant);
    if !covers(found, &wanted, has(Strategy::Apply)) {
        return Err(format!("it is {found}, it should be {wanted}"));
    }
    if !has(Strategy::Apply) && object.content(found) != object.content(&wanted) {
        return Err(format!(
            "it has more than it should: {found}, it should be {wanted}"
        ));
    }
    Ok(())
}

/// No work writes the object any more.
fn left(past: &Past, found: Option<&Value>) -> Result<(), String> {
    let ours = past.before.as_ref().is_some_and(|b| !owners(b).is_empty());
    if !past.owned && !past.orphaned {
        if past.edited || past.stripped || past.deleted || found == past.before.as_ref() {
            return Ok(());
        }
        return Err(format!(
            "no work writes it: it was {:?} and is {found:?}",
            past.before
        ));
    }
    if let Some(found) = found
        && !owners(found).is_empty()
        && !past.stripped
    {
        return Err(format!("works that let it go still own it: {found}"));
    }
    // Taken over or not, that depends on whether the agent saw the work in time.
    let theirs = past.before.is_some() && !ours;
    if past.owned && !past.orphaned && !theirs && !past.stripped && found.is_some() {
        return Err(format!(
            "the works that owned it are gone, and it is still there: {found:?}"
        ));
    }
    if past.orphaned && !past.owned && past.before.is_some() && !past.deleted && found.is_none() {
        return Err("it was to be left behind, and is gone".into());
    }
    Ok(())
}

fn record(work: &Work, settled: &Settled, applied: &Value) -> Result<(), String> {
    if !applied["status"]["evictionStartTime"].is_null() {
        return Err("it is to be evicted".into());
    }
    let list = applied["status"]["appliedResources"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let recorded: BTreeSet<&str> = list.iter().filter_map(|r| r["uid"].as_str()).collect();
    let there: BTreeSet<&str> = work
        .objects
        .keys()
        .filter_map(|o| settled.objects.get(o))
        .map(|o| text(o, "uid"))
        .collect();
    if recorded == there {
        Ok(())
    } else {
        Err(format!("it has {list:?}, there are {there:?}"))
    }
}

fn status(work: &Work, settled: &Settled, object: &Value) -> Result<(), String> {
    has_condition(Some(object), "Applied", "True")?;
    let all = work.objects.keys().all(|o| settled.objects.contains_key(o));
    has_condition(Some(object), "Available", if all { "True" } else { "False" })?;
    if let Some(("True", message)) = condition(object, "Degraded") {
        return Err(format!("it is degraded: {message}"));
    }
    Ok(())
}
