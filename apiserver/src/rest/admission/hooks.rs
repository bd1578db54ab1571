//! The webhooks, policies and bindings there are, read once and followed along with the store.
//!
//! A write takes in what changed since the last one before it looks, so what it sees is never older than the store was
//! when it came. Policies are compiled when they change; an index without anything in it costs one look at six queues.

use super::definition::Binding;
use super::mutation;
use super::policy::Policy;
use super::webhook::Hook;
use crate::schema::cel::free::Needs;
use crate::store::{Entry, Range, Store, StoreError, Watch};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const GROUP: &str = "admissionregistration.k8s.io";

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mutating,
    Validating,
    Policies,
    Bindings,
    Mutations,
    MutationBindings,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Mutating,
        Self::Validating,
        Self::Policies,
        Self::Bindings,
        Self::Mutations,
        Self::MutationBindings,
    ];

    fn plural(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingwebhookconfigurations",
            Self::Validating => "validatingwebhookconfigurations",
            Self::Policies => "validatingadmissionpolicies",
            Self::Bindings => "validatingadmissionpolicybindings",
            Self::Mutations => "mutatingadmissionpolicies",
            Self::MutationBindings => "mutatingadmissionpolicybindings",
        }
    }
}

/// Everything that may have a say in a write, by the name of its configuration.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// Mutating webhooks.
    pub mutating: BTreeMap<String, Vec<Arc<Hook>>>,
    /// Validating webhooks.
    pub validating: BTreeMap<String, Vec<Arc<Hook>>>,
    /// Validating policies.
    pub policies: BTreeMap<String, Arc<Policy>>,
    /// Where and how they apply.
    pub bindings: BTreeMap<String, Arc<Binding>>,
    /// Mutating policies.
    pub mutations: BTreeMap<String, Arc<mutation::Policy>>,
    /// Where they apply.
    pub mutation_bindings: BTreeMap<String, Arc<Binding>>,
    /// What all their expressions together look at.
    pub needs: Needs,
}

impl Index {
    fn set(&mut self, kind: Kind, entry: &Entry, deleted: bool) {
        let name = entry.key.name.to_string();
        if deleted {
            match kind {
                Kind::Mutating => drop(self.mutating.remove(&name)),
                Kind::Validating => drop(self.validating.remove(&name)),
                Kind::Policies => drop(self.policies.remove(&name)),
                Kind::Bindings => drop(self.bindings.remove(&name)),
                Kind::Mutations => drop(self.mutations.remove(&name)),
                Kind::MutationBindings => drop(self.mutation_bindings.remove(&name)),
            }
            return;
        }
        let value = entry.value();
        match kind {
            Kind::Mutating => drop(self.mutating.insert(name, Hook::all(&value))),
            Kind::Validating => drop(self.validating.insert(name, Hook::all(&value))),
            Kind::Policies => {
                if !self
                    .policies
                    .get(&name)
                    .is_some_and(|p| p.definition.is_of(&value))
                {
                    self.policies.insert(name, Arc::new(Policy::new(&value)));
                }
            }
            Kind::Bindings => drop(self.bindings.insert(name, Arc::new(Binding::new(&value)))),
            Kind::Mutations => {
                if !self
                    .mutations
                    .get(&name)
                    .is_some_and(|p| p.definition.is_of(&value))
                {
                    self.mutations
                        .insert(name, Arc::new(mutation::Policy::new(&value)));
                }
            }
            Kind::MutationBindings => {
                self.mutation_bindings
                    .insert(name, Arc::new(Binding::new(&value)));
            }
        }
    }

    fn sum_up(&mut self) {
        let mut needs = Needs::default();
        for hook in self.mutating.values().chain(self.validating.values()).flatten() {
            needs.add(&hook.needs());
        }
        for policy in self.policies.values() {
            needs.add(&policy.needs());
        }
        for policy in self.mutations.values() {
            needs.add(&policy.needs());
        }
        self.needs = needs;
    }

    /// Whether a mutating webhook or a bound mutating policy exists.
    pub fn mutates(&self) -> bool {
        !self.mutation_bindings.is_empty() || self.mutating.values().any(|hooks| !hooks.is_empty())
    }

    /// Whether a validating webhook or a bound policy exists.
    pub fn validates(&self) -> bool {
        !self.bindings.is_empty() || self.validating.values().any(|hooks| !hooks.is_empty())
    }
}

#[derive(Default)]
struct Followed {
    index: Arc<Index>,
    /// `None` before the first look and after having fallen behind.
    watches: Option<Vec<(Kind, Watch)>>,
}

/// The index of one store. Clones share it.
#[derive(Clone, Default)]
pub struct Hooks(Arc<Mutex<Followed>>);

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

impl Hooks {
    /// The index as of now.
    pub fn current(&self, store: &Store) -> Result<Arc<Index>, StoreError> {
        let mut followed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !follow(&mut followed)? {
            followed.watches = None;
            let (index, watches) = load(store)?;
            followed.index = Arc::new(index);
            followed.watches = Some(watches);
        }
        Ok(Arc::clone(&followed.index))
    }
}

/// Takes in what is new; false when everything has to be read anew.
fn follow(followed: &mut Followed) -> Result<bool, StoreError> {
    let Followed { index, watches } = followed;
    let Some(watches) = watches else {
        return Ok(false);
    };
    for (kind, watch) in watches {
        while let Some(next) = watch.try_next() {
            match next {
                Ok(event) => {
                    let index = Arc::make_mut(index);
                    index.set(*kind, &event.entry, event.deleted);
                    index.sum_up();
                }
                Err(StoreError::Compacted(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(true)
}

fn load(store: &Store) -> Result<(Index, Vec<(Kind, Watch)>), StoreError> {
    let mut index = Index::default();
    let mut watches = Vec::new();
    for kind in Kind::ALL {
        let stored = format!("{GROUP}/{}", kind.plural());
        let page = store.list(&Range {
            resource: stored.clone(),
            ..Range::default()
        })?;
        for entry in &page.entries {
            index.set(kind, entry, false);
        }
        watches.push((kind, store.watch(&stored, None, page.revision)?));
    }
    index.sum_up();
    Ok((index, watches))
}
