//! Garbage collection: dependents go when the last of their owners is gone.
//!
//! An object is deleted only when every owner it names is known to be gone: the owner's kind is served, and the object of
//! that name is not there or has another uid. An owner that cannot be looked up keeps its dependents.

use super::Work;
use super::access::Access;
use super::meta::{FOREGROUND, Meta, ORPHAN, Owner};
use super::plan::{Action, Plan, remove_finalizer};
use crate::object;
use crate::rest::params::Propagation;
use crate::store::Key;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

/// Who depends on whom.
#[derive(Debug, Default)]
pub struct Index {
    /// Dependents by the uid of each owner they name.
    dependents: HashMap<String, BTreeSet<Key>>,
    /// Owners, by uid, that are being deleted and wait for their dependents.
    waiting: HashMap<String, Key>,
}

impl Index {
    fn add(&mut self, owners: &[Owner], key: &Key) {
        for owner in owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(key.clone());
        }
    }

    fn remove(&mut self, owners: &[Owner], key: &Key) {
        for owner in owners {
            if let Some(keys) = self.dependents.get_mut(&owner.uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    /// Who names this uid as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.dependents.get(uid).into_iter().flatten()
    }

    /// Takes an event in and adds who has to be looked at because of it.
    pub fn noticed(
        &mut self,
        key: &Key,
        now: &Meta,
        gone: bool,
        before: Option<&Meta>,
        add: &mut dyn FnMut(Work),
    ) {
        let owners_before = before.map(Meta::owners).unwrap_or_default();
        let owners_changed = gone || owners_before != now.owners();
        if owners_changed {
            self.remove(owners_before, key);
            if !gone {
                self.add(now.owners(), key);
                if !now.owners().is_empty() {
                    add(Work::Garbage(key.clone()));
                }
            }
            // A dependent went, or depends no longer: an owner that waits for it may go on.
            for owner in owners_before {
                if let Some(waiting) = self.waiting.get(&owner.uid) {
                    add(Work::Garbage(waiting.clone()));
                }
            }
        }
        let waits = !gone && (now.waits_for_dependents() || now.orphans());
        if waits {
            self.waiting.insert(now.uid.clone(), key.clone());
            add(Work::Garbage(key.clone()));
        } else {
            self.waiting.remove(&now.uid);
        }
        let waited = before.is_some_and(Meta::waits_for_dependents);
        if gone || (now.waits_for_dependents() && !waited) {
            for dependent in self.dependents(&now.uid) {
                add(Work::Garbage(dependent.clone()));
            }
        }
    }
}

/// What is known of an owner that an object names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerState {
    /// It is there.
    There,
    /// It is there and goes as soon as its dependents have gone.
    WaitsForDependents,
    /// It is not there, or another has its name.
    Gone,
    /// Its kind is not served, or a cluster-scoped object names it in a namespace: nothing follows.
    Unknown,
}

/// A dependent of the object in question.
#[derive(Debug, Clone)]
pub struct Dependent {
    /// Kind, as store key.
    pub resource: String,
    /// The object.
    pub object: Value,
    /// Its owner's foreground deletion waits for it.
    pub blocks: bool,
    /// It is itself waiting for dependents.
    pub waits: bool,
}

/// An object with its owners and, where they matter, dependents.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Kind, as store key.
    pub resource: String,
    /// The object.
    pub object: Value,
    /// Its metadata.
    pub meta: Meta,
    /// Who it names as owners.
    pub owners: Vec<(Owner, OwnerState)>,
    /// Who names it as owner.
    pub dependents: Vec<Dependent>,
}

/// Looks at an object and around it. `dependents` are the keys of those that name a uid.
pub fn observe(access: &Access, key: &Key, dependents: impl Fn(&str) -> Vec<Key>) -> Option<Observed> {
    let entry = access.entry(&key.resource, &key.namespace, &key.name)?;
    let meta = Meta::of(&entry);
    let owners: Vec<_> = meta
        .owners()
        .iter()
        .map(|o| (o.clone(), owner_state(access, key, o)))
        .collect();
    let of_interest = meta.is_deleting() || owners.iter().any(|(_, s)| *s == OwnerState::WaitsForDependents);
    let keys = if of_interest {
        dependents(&meta.uid)
    } else {
        Vec::new()
    };
    let dependents = keys
        .iter()
        .filter_map(|key| {
            let entry = access.entry(&key.resource, &key.namespace, &key.name)?;
            let its = Meta::of(&entry);
            let reference = its.owners().iter().find(|o| o.uid == meta.uid)?;
            Some(Dependent {
                resource: key.resource.to_string(),
                object: entry.value(),
                blocks: reference.block_owner_deletion == Some(true),
                waits: its.waits_for_dependents(),
            })
        })
        .collect();
    Some(Observed {
        resource: key.resource.to_string(),
        object: entry.value(),
        meta,
        owners,
        dependents,
    })
}

fn owner_state(access: &Access, dependent: &Key, owner: &Owner) -> OwnerState {
    let Some(kind) = access.named_kind(&owner.api_version, &owner.kind) else {
        return OwnerState::Unknown;
    };
    if kind.namespaced && dependent.namespace.is_empty() {
        return OwnerState::Unknown;
    }
    let Some(entry) = access.owner(&kind, &dependent.namespace, &owner.name) else {
        return OwnerState::Gone;
    };
    let meta = Meta::of(&entry);
    if meta.uid != owner.uid {
        OwnerState::Gone
    } else if meta.waits_for_dependents() {
        OwnerState::WaitsForDependents
    } else {
        OwnerState::There
    }
}

/// What becomes of an object.
pub fn decide(observed: &Observed) -> Plan {
    let Observed {
        resource,
        object,
        meta,
        owners,
        dependents,
    } = observed;
    let resource = || resource.clone();
    if meta.orphans() {
        // First nobody names it any more, then it may go.
        let mut actions: Vec<Action> = dependents
            .iter()
            .map(|d| {
                let mut object = d.object.clone();
                without_owners(&mut object, |uid| uid == meta.uid);
                Action::update(d.resource.clone(), object)
            })
            .collect();
        let mut owner = object.clone();
        remove_finalizer(&mut owner, ORPHAN);
        actions.push(Action::update(resource(), owner));
        return Plan::of(actions);
    }
    if meta.waits_for_dependents() {
        if dependents.iter().any(|d| d.blocks) {
            return Plan::default();
        }
        let mut owner = object.clone();
        remove_finalizer(&mut owner, FOREGROUND);
        return Plan::of([Action::update(resource(), owner)]);
    }
    if meta.is_deleting() || owners.is_empty() {
        return Plan::default();
    }
    let stays = |state: OwnerState| matches!(state, OwnerState::There | OwnerState::Unknown);
    let leaving: BTreeSet<&str> = owners
        .iter()
        .filter(|(_, s)| !stays(*s))
        .map(|(o, _)| o.uid.as_str())
        .collect();
    if owners.iter().any(|(_, s)| stays(*s)) {
        if leaving.is_empty() {
            return Plan::default();
        }
        let mut object = object.clone();
        without_owners(&mut object, |uid| leaving.contains(uid));
        return Plan::of([Action::update(resource(), object)]);
    }
    let waited_for = owners.iter().any(|(_, s)| *s == OwnerState::WaitsForDependents);
    if waited_for && !dependents.is_empty() {
        // In a circle of owners everyone would wait for the other.
        if dependents.iter().any(|d| d.waits)
            && meta.owners().iter().any(|o| o.block_owner_deletion == Some(true))
        {
            let mut object = object.clone();
            for reference in references(&mut object) {
                reference["blockOwnerDeletion"] = false.into();
            }
            return Plan::of([Action::update(resource(), object)]);
        }
        return Plan::of([Action::delete_unchanged(
            resource(),
            object,
            Propagation::Foreground,
        )]);
    }
    let propagation = if meta.has_finalizer(ORPHAN) {
        Propagation::Orphan
    } else if meta.has_finalizer(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    Plan::of([Action::delete_unchanged(resource(), object, propagation)])
}

fn references(object: &mut Value) -> &mut [Value] {
    let list = object::metadata_mut(object).get_mut("ownerReferences");
    list.and_then(Value::as_array_mut)
        .map(Vec::as_mut_slice)
        .unwrap_or_default()
}

fn without_owners(object: &mut Value, leaves: impl Fn(&str) -> bool) {
    let metadata = object::metadata_mut(object);
    let Some(list) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) else {
        return;
    };
    list.retain(|r| !leaves(r["uid"].as_str().unwrap_or_default()));
    if list.is_empty() {
        metadata.remove("ownerReferences");
    }
}
