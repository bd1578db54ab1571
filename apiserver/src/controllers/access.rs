//! How controllers read and write: the store for reading, the API's own write path for writing.

use super::plan::{Action, Plan};
use crate::ApiError;
use crate::auth::UserInfo;
use crate::object;
use crate::registry::Resource;
use crate::rest::internal::Target;
use crate::rest::params::{DeleteOptions, WriteOptions};
use crate::rest::write::PatchBody;
use crate::rest::{Api, key};
use crate::store::{Entry, Key, Range, Store};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The API as one controller sees it.
#[derive(Clone)]
pub struct Access {
    api: Api,
    user: UserInfo,
    options: WriteOptions,
}

impl Access {
    /// Writes as the server itself; `manager` is the owner of the fields written.
    pub fn new(api: Api, manager: &str) -> Self {
        Self {
            api,
            user: UserInfo::loopback(),
            options: WriteOptions::internal(manager),
        }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.api.store
    }

    /// The time, in whole seconds: what is written must compare equal to what is read back.
    pub fn now(&self) -> Timestamp {
        let now = self.api.clock.now();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    /// The entry of an object.
    pub fn entry(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.api.store.get(&Key::new(resource, namespace, name))
    }

    /// A token of these claims, signed with the key of ServiceAccounts' tokens.
    pub fn sign(&self, claims: &Value) -> Result<String, ApiError> {
        let keys = self.api.authenticator.keys();
        keys.sign(claims).map_err(|e| ApiError::Internal(e.to_string()))
    }

    /// An object as stored.
    pub fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.entry(resource, namespace, name).map(|e| e.value())
    }

    /// All entries of a kind, in one namespace or all.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<Arc<Entry>> {
        let range = Range {
            resource: resource.to_owned(),
            namespace: namespace.map(str::to_owned),
            ..Range::default()
        };
        // Now is never compacted and never in the future.
        self.api
            .store
            .list(&range)
            .map(|page| page.entries)
            .unwrap_or_default()
    }

    /// The kind under a store key, in the version it is stored in. `None` when it is not served (any more).
    pub fn kind(&self, storage: &str) -> Option<Arc<Resource>> {
        let served = self.api.registry.stored_as(storage);
        let stored = served
            .iter()
            .find(|r| r.version == r.storage_version)
            .or_else(|| served.first());
        stored.cloned()
    }

    /// The kind an owner reference names.
    pub fn named_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        let (group, version) = crate::registry::split_api_version(api_version);
        let snapshot = self.api.registry.snapshot();
        // A version that is no longer served does not make the owner go away.
        snapshot.by_kind(group, version, kind).or_else(|| {
            snapshot
                .all()
                .iter()
                .find(|r| r.group == group && r.kind == kind)
                .cloned()
        })
    }

    /// The entry of an owner that a reference names.
    pub fn owner(&self, kind: &Resource, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.api.store.get(&key(kind, namespace, name))
    }

    /// Carries out a plan. The first write that fails ends it: what follows may depend on it, and it will be looked at
    /// again.
    pub async fn carry_out(&self, plan: Plan) -> Result<Option<Duration>, ApiError> {
        for action in plan.actions {
            self.act(action).await?;
        }
        Ok(plan.after)
    }

    async fn act(&self, action: Action) -> Result<(), ApiError> {
        let kind = |storage: &str| self.kind(storage).ok_or(ApiError::NoSuchResource);
        match action {
            Action::Create { resource, object } => {
                let kind = kind(&resource)?;
                let namespace = object::namespace(&object).to_owned();
                let mut object = object;
                crate::registry::strategy::default(&kind, &mut object);
                self.api
                    .create_object(&self.user, &kind, &namespace, object, &self.options)
                    .await?;
            }
            Action::Update {
                resource,
                subresource,
                object,
            } => {
                let kind = kind(&resource)?;
                let (namespace, name) = (
                    object::namespace(&object).to_owned(),
                    object::name(&object).to_owned(),
                );
                let target = Target::sub(&kind, subresource, &namespace, &name);
                self.api
                    .update_object(&self.user, &target, object, &self.options)
                    .await?;
            }
            Action::Apply {
                resource,
                manager,
                config,
            } => {
                let kind = kind(&resource)?;
                let (namespace, name) = (
                    object::namespace(&config).to_owned(),
                    object::name(&config).to_owned(),
                );
                let target = Target::object(&kind, &namespace, &name);
                let mut options = WriteOptions::internal(manager);
                options.force = true;
                self.api
                    .patch_object(&self.user, &target, &PatchBody::Apply(config), &options)
                    .await?;
            }
            Action::Delete {
                resource,
                namespace,
                name,
                uid,
                version,
                propagation,
                grace,
            } => {
                let kind = kind(&resource)?;
                let options = DeleteOptions {
                    dry_run: false,
                    uid: Some(uid),
                    resource_version: Some(version).filter(|v| !v.is_empty()),
                    propagation,
                    cascades: false,
                    grace,
                    reviewed: false,
                };
                let target = Target::object(&kind, &namespace, &name);
                match self.api.delete_object(&self.user, &target, &options).await {
                    Ok(_) | Err(ApiError::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
