//! What is too large for one work becomes a bundle of several: `NAME`, `NAME-2`, `NAME-3` … They are made, changed, shown and
//! deleted as one.
//!
//! An object stays in the work it is in for as long as it fits there. So a change touches few works, and nothing is deleted
//! on a cluster only because it came from one work into another.

use crate::manifests::Manifest;
use kube::ResourceExt as _;
use muster_crds::constants::{annotations, labels};
use muster_crds::work::manifest_size;
use muster_crds::work::v1::ManifestWork;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Longest name of a bundle: it is the value of a label.
pub const MAX_NAME: usize = 63;

/// What an object is called, whatever its version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    group: String,
    kind: String,
    namespace: String,
    name: String,
}

impl Id {
    /// Of a manifest.
    pub fn of(object: &Value) -> Self {
        let text = |pointer: &str| {
            let value = object.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let api_version = text("/apiVersion");
        Self {
            group: api_version
                .rsplit_once('/')
                .map_or(String::new(), |(group, _)| group.to_owned()),
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        }
    }

    /// What others need comes into the first works.
    fn rank(&self) -> u8 {
        match (self.group.as_str(), self.kind.as_str()) {
            ("", "Namespace") | ("apiextensions.k8s.io", "CustomResourceDefinition") => 0,
            _ => 1,
        }
    }
}

/// How large a hub finds a manifest.
pub fn size(object: &Value) -> usize {
    manifest_size(&object.to_string())
}

/// Name of a work of a bundle.
pub fn name(bundle: &str, part: usize) -> String {
    if part == 1 {
        bundle.to_owned()
    } else {
        format!("{bundle}-{part}")
    }
}

/// The bundle that a work says it is part of, and which part.
pub fn part(work: &ManifestWork) -> Option<(&str, usize)> {
    let labels = work.metadata.labels.as_ref()?;
    let part = labels.get(labels::BUNDLE_PART)?.parse().ok()?;
    Some((labels.get(labels::BUNDLE)?, part))
}

/// How many works its bundle should have.
pub fn parts(work: &ManifestWork) -> usize {
    let said = work.annotations().get(annotations::BUNDLE_PARTS);
    said.and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// Which manifests, by index, are in which part.
pub type Split = BTreeMap<usize, Vec<usize>>;

/// Divides manifests among parts, as near as can be to how they were divided `before`. Every manifest fits by itself.
pub fn split(manifests: &[(Id, usize)], before: &BTreeMap<usize, Vec<Id>>, limit: usize) -> Split {
    let home: HashMap<&Id, usize> = before
        .iter()
        .flat_map(|(part, ids)| ids.iter().map(move |id| (id, *part)))
        .collect();
    let bytes = |list: &[usize]| list.iter().map(|i| manifests[*i].1).sum::<usize>();
    let mut order: Vec<usize> = (0..manifests.len()).collect();
    order.sort_by_key(|i| manifests[*i].0.rank());
    let mut split: Split = before.keys().map(|part| (*part, Vec::new())).collect();
    let mut fresh = Vec::new();
    for index in order {
        match home.get(&manifests[index].0) {
            Some(part) => split.entry(*part).or_default().push(index),
            None => fresh.push(index),
        }
    }
    // What grew too large gives away its last ones.
    let mut moving = Vec::new();
    let mut giving = BTreeSet::new();
    for (part, list) in &mut split {
        while bytes(list) > limit
            && let Some(index) = list.pop()
        {
            moving.push(index);
            giving.insert(*part);
        }
    }
    moving.reverse();
    let whole = bytes(&moving) + bytes(&fresh) + split.values().map(|l| bytes(l)).sum::<usize>();
    // Where several are needed, some room is left for manifests to grow in their place.
    let fill = if whole <= limit { limit } else { limit - limit / 8 };
    for index in moving.into_iter().chain(fresh) {
        let moves = home.contains_key(&manifests[index].0);
        let size = manifests[index].1;
        let fits = |part: &usize, list: &[usize]| {
            bytes(list) + size <= fill && (!moves || !giving.contains(part)) && (moves || !list.is_empty())
        };
        let found = split
            .iter()
            .find(|(part, list)| fits(part, list))
            .map(|(part, _)| *part);
        let part = found.unwrap_or_else(|| free(&split, &giving));
        split.entry(part).or_default().push(index);
    }
    // The first work has the bundle's name: there is always one.
    if split.get(&1).is_none_or(Vec::is_empty)
        && let Some(last) = split.iter().rev().find(|(_, l)| !l.is_empty()).map(|(p, _)| *p)
        && let Some(list) = split.remove(&last)
    {
        split.insert(1, list);
    }
    split.retain(|_, list| !list.is_empty());
    for list in split.values_mut() {
        list.sort_by_key(|i| (manifests[*i].0.rank(), *i));
    }
    split
}

/// The first part with nothing in it.
fn free(split: &Split, giving: &BTreeSet<usize>) -> usize {
    let taken = |part: &usize| split.get(part).is_some_and(|l| !l.is_empty()) || giving.contains(part);
    // Of one more than are taken, one is free.
    (1..=split.len() + giving.len() + 1)
        .find(|part| !taken(part))
        .unwrap_or(1)
}

/// What is done with one work.
#[derive(Debug, PartialEq)]
pub enum Change {
    /// It is not there yet.
    Create(Box<ManifestWork>),
    /// It changes.
    Update(Box<ManifestWork>),
    /// It is as it should be.
    Keep(Box<ManifestWork>),
    /// It is no longer needed.
    Delete(Box<ManifestWork>),
}

impl Change {
    /// Name of the work.
    pub fn name(&self) -> String {
        let (Self::Create(work) | Self::Update(work) | Self::Keep(work) | Self::Delete(work)) = self;
        work.name_any()
    }
}

/// What brings a bundle about.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// To be done at once, in this order.
    pub first: Vec<Change>,
    /// To be done once the cluster has applied what came first: objects leave a work only when another has them.
    pub then: Vec<Change>,
    /// How many works the bundle has in the end.
    pub parts: usize,
}

/// Works out what to do with a bundle's works. `template` has all that the works have in common.
pub fn plan(
    template: &ManifestWork,
    manifests: Vec<Manifest>,
    existing: &BTreeMap<usize, ManifestWork>,
    limit: usize,
) -> Plan {
    let before: BTreeMap<usize, Vec<Id>> = existing.iter().map(|(part, work)| (*part, ids(work))).collect();
    let sized: Vec<(Id, usize)> = manifests
        .iter()
        .map(|m| (Id::of(&m.object), size(&m.object)))
        .collect();
    let split = split(&sized, &before, limit);
    let now: HashMap<&Id, usize> = split
        .iter()
        .flat_map(|(part, list)| list.iter().map(|i| (&sized[*i].0, *part)))
        .collect();
    let mut objects: Vec<Option<Value>> = manifests.into_iter().map(|m| Some(m.object)).collect();
    let mut plan = Plan {
        first: Vec::new(),
        then: Vec::new(),
        parts: split.len(),
    };
    for (part, list) in &split {
        let mut work = existing.get(part).unwrap_or(template).clone();
        work.metadata.name = Some(name(&template.name_any(), *part));
        work.spec.workload.manifests = list
            .iter()
            .filter_map(|index| objects[*index].take())
            .map(Into::into)
            .collect();
        mark(&mut work, &template.name_any(), *part, split.len());
        let Some(old) = existing.get(part) else {
            plan.first.push(Change::Create(Box::new(work)));
            continue;
        };
        if work == *old {
            plan.first.push(Change::Keep(Box::new(work)));
            continue;
        }
        let loses = before
            .get(part)
            .is_some_and(|ids| ids.iter().any(|id| now.get(id).is_some_and(|to| to != part)));
        let change = Change::Update(Box::new(work));
        if loses {
            plan.then.push(change);
        } else {
            plan.first.push(change);
        }
    }
    let surplus = existing
        .iter()
        .rev()
        .filter(|(part, _)| !split.contains_key(part));
    plan.then
        .extend(surplus.map(|(_, work)| Change::Delete(Box::new(work.clone()))));
    plan
}

fn ids(work: &ManifestWork) -> Vec<Id> {
    work.spec
        .workload
        .manifests
        .iter()
        .map(|m| Id::of(&m.0))
        .collect()
}

/// Says on a work which part of the bundle it is. One that is all there is needs no mark.
fn mark(work: &mut ManifestWork, bundle: &str, part: usize, parts: usize) {
    let marked = self::part(work).is_some();
    if parts == 1 && !marked {
        return;
    }
    let labels = work.metadata.labels.get_or_insert_default();
    labels.insert(labels::BUNDLE.to_owned(), bundle.to_owned());
    labels.insert(labels::BUNDLE_PART.to_owned(), part.to_string());
    let annotations = work.metadata.annotations.get_or_insert_default();
    annotations.insert(annotations::BUNDLE_PARTS.to_owned(), parts.to_string());
}

#[cfg(test)]
mod tests;
