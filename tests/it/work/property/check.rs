//! What must be once everything is settled.

use super::World;
use super::model::{Drift, Object, Past, Strategy, TakeOver, Work, covers, is_foreign, objects};
use muster_tests::objects::{condition, condition_in, has_condition};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Everything there is, on both sides.
#[derive(Debug, Default)]
pub struct Settled {
    pub objects: BTreeMap<Object, Value>,
    pub applied: Vec<Value>,
    pub works: Vec<Value>,
    pub strangers: BTreeMap<String, Value>,
    /// What works may not apply over what others have, by the server's word.
    pub refused: BTreeSet<(String, Object)>,
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
        status(world, settled, work).map_err(|e| format!("status of {name}: {e}"))?;
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

/// What the hub was told of an object of a work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Applied,
    Conflict,
    NotTakenOver,
}

fn manifest_of<'a>(work: &'a Value, object: Object, run: &str) -> Option<&'a Value> {
    let (group, plural) = object.resource();
    let (namespace, name) = (object.namespace(run), object.name(run));
    let manifests = work["status"]["resourceStatus"]["manifests"].as_array()?;
    manifests.iter().find(|m| {
        let meta = |field: &str| m["resourceMeta"][field].as_str().unwrap_or_default();
        (meta("group"), meta("resource")) == (group, plural)
            && (meta("namespace"), meta("name")) == (&namespace, &name)
    })
}

fn told(run: &str, settled: &Settled, work: &str, object: Object) -> Result<Told, String> {
    let at_hub = settled.works.iter().find(|w| text(w, "name") == work);
    let at_hub = at_hub.ok_or("its work is not there")?;
    let manifest = manifest_of(at_hub, object, run).ok_or("the hub knows nothing of it")?;
    let conditions = manifest["conditions"].as_array().into_iter().flatten();
    let mut applied = conditions.filter(|c| c["type"] == "Applied");
    let applied = applied
        .next()
        .ok_or("the hub does not know whether it is applied")?;
    if applied["observedGeneration"] != at_hub["metadata"]["generation"] {
        return Err(format!("the hub was told of an earlier generation: {applied}"));
    }
    let message = applied["message"].as_str().unwrap_or_default();
    match (applied["status"].as_str(), applied["reason"].as_str()) {
        (Some("True"), _) => Ok(Told::Applied),
        (_, Some("NotTakenOver")) => Ok(Told::NotTakenOver),
        (_, Some("AppliedManifestFailed")) if message.contains("conflict") => Ok(Told::Conflict),
        _ => Err(format!("{work}: {applied}")),
    }
}

/// A work that writes an object.
struct Writer<'a> {
    name: &'a str,
    work: &'a Work,
    strategy: Strategy,
    told: Told,
}

impl Writer<'_> {
    /// Whether what is changed on the cluster stays.
    fn is_loose(&self) -> bool {
        self.work.drift != Drift::Enforce
    }
}

/// The object as the works want it.
fn wanted(world: &World, object: Object) -> Value {
    let variant = world.variants.get(&object).copied().unwrap_or_default();
    object.wanted(&world.run, variant)
}

/// Objects that are not as their manifests say, or not owned by all who should own them.
pub fn adrift(world: &World, settled: &Settled) -> BTreeSet<Object> {
    let is = |object: &Object| {
        let wanted = wanted(world, *object);
        let owning: BTreeSet<&str> = settled
            .applied
            .iter()
            .filter(|a| {
                let work = a["spec"]["manifestWorkName"].as_str().unwrap_or_default();
                world.works.get(work).is_some_and(|w| w.owns(*object))
            })
            .map(|a| text(a, "uid"))
            .collect();
        settled.objects.get(object).is_some_and(|found| {
            !is_foreign(found)
                && owners(found) == owning
                && covers(found, &wanted, false)
                && object.content(found) == object.content(&wanted)
        })
    };
    objects().into_iter().filter(|o| !is(o)).collect()
}

fn one(world: &World, settled: &Settled, uids: &BTreeMap<&str, &str>, object: Object) -> Result<(), String> {
    let found = settled.objects.get(&object);
    let past = &world.past[&object];
    if let Some(before) = past.before.as_ref().filter(|b| is_foreign(b))
        && !past.taken
        && past.is_quiet()
        && found != Some(before)
    {
        return Err(format!(
            "nobody was to take it over: it was {before} and is {found:?}"
        ));
    }
    let having = world
        .works
        .iter()
        .filter(|(_, w)| w.objects.contains_key(&object));
    for (name, _) in having.filter(|(_, w)| !w.writes(object)) {
        let uid = uids.get(name.as_str()).copied().unwrap_or_default();
        if found.is_some_and(|f| owners(f).contains(uid)) {
            return Err(format!("{name} only reads it, and owns it"));
        }
        if told(&world.run, settled, name, object)? != Told::Applied {
            return Err(format!("{name} only reads it, and says that it failed"));
        }
    }
    let writing: Vec<Writer<'_>> = world
        .works
        .iter()
        .filter(|(_, w)| w.writes(object))
        .map(|(name, work)| {
            Ok(Writer {
                name,
                work,
                strategy: work.objects[&object],
                told: told(&world.run, settled, name, object)?,
            })
        })
        .collect::<Result<_, String>>()?;
    if writing.is_empty() {
        return if past.read && (past.owned || past.orphaned) {
            Ok(())
        } else {
            left(past, found)
        };
    }
    for writer in &writing {
        truthful(world, settled, object, writer)
            .map_err(|e| format!("{} says {:?}: {e}", writer.name, writer.told))?;
    }
    let Some(found) = found else {
        // Deleted, and left so by all who have it.
        return if past.deleted || past.owned || world.adrift.contains(&object) {
            Ok(())
        } else {
            Err("it is not there".into())
        };
    };
    if !found["metadata"]["deletionTimestamp"].is_null() {
        return Err("it is being deleted".into());
    }
    owned(world, found, uids, object, &writing)?;
    content(world, found, object, &writing)
}

/// Whether what a work says of an object is so.
fn truthful(world: &World, settled: &Settled, object: Object, writer: &Writer<'_>) -> Result<(), String> {
    let found = settled.objects.get(&object);
    let refused = settled.refused.contains(&(writer.name.to_owned(), object));
    match (writer.told, found) {
        // It was applied once; what became of it since is not the work's.
        (Told::Applied, _) if writer.is_loose() => Ok(()),
        (Told::Applied, None) => Err("it is not there".into()),
        (Told::Applied, Some(found)) if is_foreign(found) => Err(format!("it has no mark of ours: {found}")),
        (Told::Applied, Some(found)) if refused => Err(format!("the server would refuse it: {found}")),
        (Told::Applied, Some(_)) => Ok(()),
        (Told::Conflict, Some(_)) if writer.strategy.is_mild() && refused => Ok(()),
        (Told::Conflict, found) => Err(format!("there is no conflict: {found:?}")),
        (Told::NotTakenOver, Some(found)) if is_foreign(found) => {
            let wanted = object.without_ignored(wanted(world, object));
            let differs = !covers(found, &wanted, false) || object.content(found).is_none();
            match writer.work.take_over {
                TakeOver::Never => Ok(()),
                TakeOver::IfNoDiff if writer.strategy.keeps() && (differs || writer.strategy.is_mild()) => {
                    Ok(())
                }
                TakeOver::IfNoDiff if object.content(found) != object.content(&wanted) => Ok(()),
                _ => Err(format!("it should be taken over: {found}")),
            }
        }
        (Told::NotTakenOver, found) => Err(format!("it is ours, or nobody's: {found:?}")),
    }
}

fn owned(
    world: &World,
    found: &Value,
    uids: &BTreeMap<&str, &str>,
    object: Object,
    writing: &[Writer<'_>],
) -> Result<(), String> {
    let past = &world.past[&object];
    // Whoever leaves changes alone does not put his mark back either.
    let undisturbed = past.is_quiet() && !world.adrift.contains(&object);
    let owning = |must: bool| -> BTreeSet<&str> {
        let owning = writing.iter().filter(|w| {
            w.work.owns(object)
                && match w.told {
                    Told::Applied => !must || !w.is_loose() || undisturbed,
                    Told::Conflict => !must,
                    Told::NotTakenOver => false,
                }
        });
        owning.filter_map(|w| uids.get(w.name).copied()).collect()
    };
    let (owners, must, may) = (owners(found), owning(true), owning(false));
    if must.is_subset(&owners) && owners.is_subset(&may) {
        Ok(())
    } else {
        Err(format!(
            "its owners are {owners:?}, they should be {must:?}, and may be {may:?}"
        ))
    }
}

fn content(world: &World, found: &Value, object: Object, writing: &[Writer<'_>]) -> Result<(), String> {
    let past = &world.past[&object];
    let undisturbed = past.is_quiet() && !world.adrift.contains(&object);
    // Whoever has no rival that takes things back, and nothing was changed, has it as it was made.
    let all_loose = writing.iter().all(Writer::is_loose);
    let keeping: Vec<&Writer<'_>> = writing
        .iter()
        .filter(|w| w.told == Told::Applied && w.strategy.keeps())
        .filter(|w| !w.is_loose() || (all_loose && undisturbed))
        .collect();
    if keeping.is_empty() {
        // Made once; what became of it since is not the work's.
        return Ok(());
    }
    let ignoring = keeping.iter().all(|w| w.strategy.ignores());
    let mut wanted = wanted(world, object);
    if ignoring {
        wanted = object.without_ignored(wanted);
    }
    let more = writing.iter().any(|w| w.strategy.applies());
    if !covers(found, &wanted, more) {
        return Err(format!("it is {found}, it should be {wanted}"));
    }
    if !more && object.content(found) != object.content(&wanted) {
        return Err(format!(
            "it has more than it should: {found}, it should be {wanted}"
        ));
    }
    if ignoring {
        left_to_others(world, found, object)?;
    }
    Ok(())
}

/// The field that all who write the object ignore.
fn left_to_others(world: &World, found: &Value, object: Object) -> Result<(), String> {
    let (past, Some(ignored)) = (&world.past[&object], object.ignored()) else {
        return Ok(());
    };
    let at = |object: &Value| object.pointer(ignored.pointer).cloned().unwrap_or_default();
    let now = at(found);
    if now.is_null() {
        return Err(format!("the ignored field is gone: {found}"));
    }
    let before = past.before.as_ref();
    let Some(before) = before.filter(|b| text(b, "uid") == text(found, "uid") && !past.whole) else {
        return Ok(());
    };
    let edited = at(&object.edit(false));
    let wanted = at(&wanted(world, object));
    let right = match (ignored.condition, past.field_edited) {
        ("OnSpokePresent", true) => now == edited,
        ("OnSpokePresent", false) => now == at(before),
        (_, true) => now == edited || now == wanted,
        (_, false) => now == at(before) || now == wanted,
    };
    if right {
        Ok(())
    } else {
        Err(format!(
            "the ignored field is {now}, it was {}, was edited: {}, the hub has {wanted}",
            at(before),
            past.field_edited
        ))
    }
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

fn status(world: &World, settled: &Settled, object: &Value) -> Result<(), String> {
    let name = text(object, "name");
    let work = &world.works[name];
    let mut applied = true;
    for object in work.objects.keys() {
        applied &= told(&world.run, settled, name, *object)? == Told::Applied;
    }
    has_condition(Some(object), "Applied", if applied { "True" } else { "False" })?;
    let all = work.objects.keys().all(|o| settled.objects.contains_key(o));
    has_condition(Some(object), "Available", if all { "True" } else { "False" })?;
    if let Some(("True", message)) = condition(object, "Degraded")
        && applied
    {
        return Err(format!("it is degraded: {message}"));
    }
    for (named, strategy) in &work.objects {
        drifted(world, settled, object, *named, *strategy).map_err(|e| format!("{named:?}: {e}"))?;
    }
    Ok(())
}

/// Whether a work that tells of drift tells what is.
fn drifted(
    world: &World,
    settled: &Settled,
    work: &Value,
    object: Object,
    strategy: Strategy,
) -> Result<(), String> {
    let name = text(work, "name");
    let reports = world.works[name].drift == Drift::Report;
    let list = manifest_of(work, object, &world.run).map(|m| m["conditions"].clone());
    let list = list.unwrap_or_default();
    let drifted = condition_in(&list, "Drifted");
    let found = drifted.map(|(status, _)| status);
    if !reports {
        return found.map_or(Ok(()), |_| Err("it tells of drift, unasked".into()));
    }
    if told(&world.run, settled, name, object)? != Told::Applied {
        return Ok(());
    }
    let mut wanted = wanted(world, object);
    if strategy.ignores() {
        wanted = object.without_ignored(wanted);
    }
    let live = settled.objects.get(&object);
    let is = match live {
        None => Some(strategy != Strategy::ReadOnly),
        _ if !strategy.keeps() => Some(false),
        Some(live) if !covers(live, &wanted, strategy.applies()) => Some(true),
        Some(live) => {
            // Whether what is beside the manifest's fields is drift, the model does not know of all kinds.
            let same = !strategy.ignores() && object.content(live) == object.content(&wanted);
            let added = live["spec"]["colour"] == "red";
            (same && !added && object.content(live).is_some() && !is_foreign(live)).then_some(false)
        }
    };
    match (is, found) {
        (None, Some(_)) | (Some(true), Some("True")) | (Some(false), Some("False")) => Ok(()),
        (is, _) => Err(format!("Drifted is {drifted:?}, it should be {is:?}: {live:?}")),
    }
}
