//! The metadata that lifecycle is about, read from a stored object without building the rest of it.

use crate::store::Entry;
use serde::Deserialize;

/// Holds an owner until the dependents that block it are gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Holds an owner until its dependents no longer name it.
pub const ORPHAN: &str = "orphan";

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Meta,
}

/// Metadata of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Identity.
    pub uid: String,
    /// When deletion was asked for.
    pub deletion_timestamp: Option<String>,
    /// What must be done before it goes.
    pub finalizers: Option<Vec<String>>,
    /// Who it goes with.
    pub owner_references: Option<Vec<Owner>>,
}

/// One owner reference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    /// Group and version of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner, in the namespace of the dependent or in none.
    pub name: String,
    /// Identity of the owner.
    pub uid: String,
    /// The owner's foreground deletion waits for this dependent.
    pub block_owner_deletion: Option<bool>,
    /// It is the one that manages the dependent.
    pub controller: Option<bool>,
}

impl Meta {
    /// Reads an entry. What cannot be read has no metadata, and nothing is done to it.
    pub fn of(entry: &Entry) -> Self {
        serde_json::from_slice::<Object>(&entry.json)
            .map(|o| o.metadata)
            .unwrap_or_default()
    }

    /// Whether deletion was asked for.
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// Owner references, if any.
    pub fn owners(&self) -> &[Owner] {
        self.owner_references.as_deref().unwrap_or_default()
    }

    /// Whether it has this finalizer.
    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().flatten().any(|f| f == name)
    }

    /// Whether it is being deleted after its dependents.
    pub fn waits_for_dependents(&self) -> bool {
        self.is_deleting() && self.has_finalizer(FOREGROUND)
    }

    /// Whether it is being deleted, its dependents to be kept.
    pub fn orphans(&self) -> bool {
        self.is_deleting() && self.has_finalizer(ORPHAN)
    }
}
