//! Writing objects, whoever asks: requests over HTTP and controllers in this process come through here.
//!
//! One attempt is: read, make the new object, let strategy and admission see it, compare, store at the revision read.
//! What was written in between makes the next attempt, unless the caller named a resourceVersion.

use super::admission::{self, Operation, Review};
use super::params::WriteOptions;
use super::rules::{
    check_identity, creates_on_update, invalid, metadata_twice, needs_version, random_suffix, reset_fields,
    tracks_fields,
};
use super::service::creation;
use super::write::{PatchBody, check_name, check_namespace, patched};
use super::{Api, decode, key, modified, rfc3339, size, store_error, subject};
use crate::ApiError;
use crate::auth::UserInfo;
use crate::error::{FieldError, FieldErrorKind};
use crate::object::{self, set_meta};
use crate::patch::apply::Applier;
use crate::patch::managed;
use crate::registry::{Resource, convert, strategy};
use crate::schema::default;
use crate::store::{Entry, Expect, StoreError};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// How often a write is tried again when others write in between. Every failure means that another write went through.
const ATTEMPTS: usize = 64;
/// How often a generated name is made anew when it is taken.
const NAME_ATTEMPTS: usize = 8;
/// Longest beginning of a generated name; the rest is random.
const GENERATED_PREFIX: usize = 58;

/// One object, or a subresource of it.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// Kind.
    pub resource: Arc<Resource>,
    /// `""` for the object itself.
    pub subresource: &'a str,
    /// Namespace, `""` for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
}

impl<'a> Target<'a> {
    /// The object itself.
    pub fn object(resource: &Arc<Resource>, namespace: &'a str, name: &'a str) -> Self {
        Self {
            resource: Arc::clone(resource),
            subresource: "",
            namespace,
            name,
        }
    }

    /// A subresource of it.
    pub fn sub(resource: &Arc<Resource>, subresource: &'a str, namespace: &'a str, name: &'a str) -> Self {
        Self {
            resource: Arc::clone(resource),
            subresource,
            namespace,
            name,
        }
    }
}

/// What a write left, in the version objects are stored in.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// As it is in the store.
    Stored(Arc<Entry>),
    /// Not in the store: a dry run, or an object this write removed.
    Unstored(Value),
}

/// A write that went through.
#[derive(Debug, Clone)]
pub struct Written {
    /// The object.
    pub outcome: Outcome,
    /// It did not exist before.
    pub created: bool,
    /// For the client.
    pub warnings: Vec<String>,
}

/// Where a pod is bound to its node, or told that it is evicted: nobody owns that.
const UNOWNED: [&str; 2] = ["binding", "eviction"];

/// An object's next state, or how to make it from the current one.
enum Next<'a> {
    Replace(Value),
    Patch(&'a PatchBody),
    Function(&'a mut (dyn FnMut(&Value) -> Result<Value, ApiError> + Send)),
}

/// How a new object comes to be.
enum Making {
    /// By a request to create it.
    Create,
    /// By a PUT of one that is not there.
    Replace,
    /// By server-side apply, which has made these managedFields.
    Apply(Value),
}

type Fields = Map<String, Value>;

/// Whether two objects are the same, `resourceVersion` aside.
fn same_but_version(a: &Value, b: &Value) -> bool {
    fn without<'a>(fields: &'a Fields, name: &'a str) -> impl Iterator<Item = (&'a String, &'a Value)> {
        fields.iter().filter(move |(field, _)| *field != name)
    }
    let (Value::Object(a), Value::Object(b)) = (a, b) else {
        return a == b;
    };
    let none = Fields::new();
    let [of_a, of_b] =
        [a, b].map(|object| object.get("metadata").and_then(Value::as_object).unwrap_or(&none));
    without(a, "metadata").eq(without(b, "metadata"))
        && without(of_a, "resourceVersion").eq(without(of_b, "resourceVersion"))
}

impl Api {
    /// An object in the version asked for.
    pub fn get_object(&self, r: &Resource, namespace: &str, name: &str) -> Result<Value, ApiError> {
        let entry = self.store.get(&key(r, namespace, name));
        entry
            .map(|e| convert::from_storage(r, e.value()))
            .ok_or_else(|| ApiError::NotFound(subject(r, name)))
    }

    /// Creates an object that is decoded and has its defaults.
    pub async fn create_object(
        &self,
        user: &UserInfo,
        r: &Arc<Resource>,
        namespace: &str,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let generated = object::name(&object).is_empty() && !object::meta(&object, "generateName").is_empty();
        if !generated {
            return self
                .create_once(user, r, namespace, object, options, Making::Create)
                .await;
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut object = object.clone();
            let mut prefix = object::meta(&object, "generateName").to_owned();
            while prefix.len() > GENERATED_PREFIX {
                prefix.pop();
            }
            let name = format!("{prefix}{}", random_suffix());
            set_meta(&mut object, "name", Some(name.into()));
            let done = self
                .create_once(user, r, namespace, object, options, Making::Create)
                .await;
            match done {
                Err(ApiError::AlreadyExists(_)) if attempt < NAME_ATTEMPTS => {}
                other => return other,
            }
        }
    }

    async fn create_once(
        &self,
        user: &UserInfo,
        r: &Arc<Resource>,
        namespace: &str,
        mut object: Value,
        options: &WriteOptions,
        making: Making,
    ) -> Result<Written, ApiError> {
        let now = self.clock.now();
        let name = object::name(&object).to_owned();
        if !matches!(making, Making::Apply(_)) && !object::resource_version(&object).is_empty() {
            return Err(ApiError::Plain(
                "resourceVersion should not be set on objects to be created".into(),
            ));
        }
        let review = Review {
            operation: Operation::Create,
            user,
            resource: r,
            subresource: "",
            namespace,
            name: &name,
            dry_run: options.dry_run,
        };
        admission::before(self, &review)?;
        let metadata = object::metadata_mut(&mut object);
        for field in [
            "uid",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "resourceVersion",
            "creationTimestamp",
        ] {
            metadata.remove(field);
        }
        let is_asked_again = !matches!(making, Making::Create);
        match making {
            Making::Apply(fields) => set_meta(&mut object, "managedFields", Some(fields)),
            _ if !tracks_fields(r) => set_meta(&mut object, "managedFields", None),
            _ => {
                let reset = reset_fields(r, "");
                managed::update(
                    r.schema(),
                    None,
                    &mut object,
                    &options.manager,
                    &r.api_version(),
                    "",
                    &reset,
                    now,
                );
            }
        }
        admission::defaults(self, &review, &mut object)?;
        let mut warnings = admission::mutate(self, &review, Some(&mut object), None).await?;
        set_meta(&mut object, "uid", Some(uuid::Uuid::new_v4().to_string().into()));
        set_meta(&mut object, "creationTimestamp", Some(rfc3339(now).into()));
        let context = strategy::Context {
            store: &self.store,
            user,
            now,
        };
        strategy::prepare_create(r, &context, &mut object);
        invalid(r, &name, strategy::validate_create(r, &object))?;
        invalid(r, &name, strategy::validate_allocation(r, &context, &object))?;
        if is_asked_again {
            // The right to change an object is not the right to make one.
            self.authorizer.require(user, &creation(r, namespace, &name))?;
        }
        warnings.extend(admission::validate(self, &review, Some(&object), None).await?);
        warnings.extend(strategy::warnings(r, &object, None));
        let stored = convert::to_storage(r, object);
        let key = key(r, namespace, &name);
        let outcome = if options.dry_run {
            if self.store.get(&key).is_some() {
                return Err(ApiError::AlreadyExists(subject(r, &name)));
            }
            Outcome::Unstored(stored)
        } else {
            size::check(r, &stored)?;
            let put = self.store_put(r, key, stored, Expect::Absent).await;
            Outcome::Stored(put.map_err(|e| store_error(&e, r, &name)).map_err(|e| {
                match self.get_object(r, namespace, &name) {
                    Ok(there) if matches!(e, ApiError::AlreadyExists(_)) && object::is_deleting(&there) => {
                        ApiError::StillDeleting(subject(r, &name))
                    }
                    _ => e,
                }
            })?)
        };
        Ok(Written {
            outcome,
            created: true,
            warnings,
        })
    }

    /// Replaces an object (or through a subresource a part of it) that is decoded and has its defaults.
    pub async fn update_object(
        &self,
        user: &UserInfo,
        target: &Target<'_>,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        self.write(user, target, Next::Replace(object), options).await
    }

    /// Patches an object; apply creates it when it is not there.
    pub async fn patch_object(
        &self,
        user: &UserInfo,
        target: &Target<'_>,
        patch: &PatchBody,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        self.write(user, target, Next::Patch(patch), options).await
    }

    /// Changes an object by a function of its current state, tried again while others write in between.
    pub async fn modify_object(
        &self,
        user: &UserInfo,
        target: &Target<'_>,
        options: &WriteOptions,
        change: &mut (dyn FnMut(&Value) -> Result<Value, ApiError> + Send),
    ) -> Result<Written, ApiError> {
        self.write(user, target, Next::Function(change), options).await
    }

    async fn write(
        &self,
        user: &UserInfo,
        target: &Target<'_>,
        mut next: Next<'_>,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let r = &target.resource;
        for _ in 0..ATTEMPTS {
            let entry = self.store.get(&key(r, target.namespace, target.name));
            let Some(entry) = entry else {
                return self.write_missing(user, target, next, options).await;
            };
            match self.attempt(user, target, &entry, &mut next, options).await {
                Ok(Some(written)) => return Ok(written),
                Ok(None) => {}
                Err(e) => return Err(e),
            }
        }
        Err(modified(r, target.name))
    }

    /// The object is not there: some writes make it.
    async fn write_missing(
        &self,
        user: &UserInfo,
        target: &Target<'_>,
        next: Next<'_>,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let r = &target.resource;
        let main = target.subresource.is_empty();
        match next {
            Next::Replace(mut object) if main && creates_on_update(r) => {
                set_meta(&mut object, "resourceVersion", None);
                self.create_once(user, r, target.namespace, object, options, Making::Replace)
                    .await
            }
            Next::Patch(PatchBody::Apply(config)) if main => {
                let uid = object::uid(config);
                if !uid.is_empty() {
                    return Err(ApiError::Conflict {
                        subject: subject(r, target.name),
                        detail: format!(
                            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                        ),
                    });
                }
                let (object, warnings) = self.applied(target, None, config, options)?;
                let fields = object["metadata"]["managedFields"].clone();
                let mut written = self
                    .create_once(user, r, target.namespace, object, options, Making::Apply(fields))
                    .await?;
                written.warnings.splice(0..0, warnings);
                Ok(written)
            }
            _ => Err(ApiError::NotFound(subject(r, target.name))),
        }
    }

    /// The result of server-side apply, decoded, with its managedFields.
    fn applied(
        &self,
        target: &Target<'_>,
        live: Option<&Value>,
        config: &Value,
        options: &WriteOptions,
    ) -> Result<(Value, decode::Warnings), ApiError> {
        let r = &target.resource;
        let reset = reset_fields(r, target.subresource);
        if !config["metadata"]["managedFields"].is_null() {
            return Err(ApiError::BadRequest("metadata.managedFields must be nil".into()));
        }
        let same_kind = config["apiVersion"] == r.api_version().as_str() && config["kind"] == r.kind.as_str();
        // To an object that is there a configuration need not say again which it is.
        if same_kind && (live.is_none() || !config["metadata"]["name"].is_null()) {
            check_name(target.name, config)?;
        }
        let applier = Applier {
            schema: r.schema(),
            api_version: &r.api_version(),
            kind: &r.kind,
            manager: &options.manager,
            subresource: target.subresource,
            force: options.force,
            now: self.clock.now(),
            reset_fields: &reset,
        };
        let mut merged = applier.apply(live, config)?;
        check_namespace(r, target.namespace, &mut merged)?;
        let before = merged.clone();
        let (mut object, warnings) = decode::patched(
            r,
            merged,
            || before.clone(),
            None,
            options.validation,
            &options.noticed,
        )?;
        if r.custom.is_some()
            && let Some(fields) = before.as_object()
        {
            for (name, given) in fields.iter().filter(|(name, _)| *name != "metadata") {
                if let (Some(schema), Some(value)) = (r.schema().child(name), object.get_mut(name)) {
                    default::restore_nulls(schema, given, value);
                }
            }
        }
        Ok((object, warnings))
    }

    /// One attempt at a write. `None`: someone else wrote, try again.
    async fn attempt(
        &self,
        user: &UserInfo,
        target: &Target<'_>,
        entry: &Arc<Entry>,
        next: &mut Next<'_>,
        options: &WriteOptions,
    ) -> Result<Option<Written>, ApiError> {
        let r = &target.resource;
        let old = convert::from_storage(r, entry.value());
        let mut applied = false;
        let (mut new, mut warnings) = match next {
            Next::Replace(object) => {
                let mut object = object.clone();
                let version = object::resource_version(&object);
                if !version.is_empty() && version.parse::<u64>().is_err() {
                    return Err(ApiError::Plain(format!(
                        "strconv.ParseUint: parsing {version:?}: invalid syntax"
                    )));
                }
                if matches!(version, "" | "0") {
                    if needs_version(r) {
                        let why = "Invalid value: 0: must be specified for an update";
                        let error = FieldError::new(FieldErrorKind::Invalid, "metadata.resourceVersion", why);
                        return Err(ApiError::Invalid {
                            subject: subject(r, target.name),
                            errors: vec![error],
                        });
                    }
                    set_meta(
                        &mut object,
                        "resourceVersion",
                        Some(entry.revision.to_string().into()),
                    );
                }
                (object, Vec::new())
            }
            Next::Patch(PatchBody::Apply(config)) => {
                applied = true;
                let done = self.applied(target, Some(&old), config, options)?;
                // Fields of others are told of first.
                let version = object::resource_version(config);
                if !version.is_empty() && version != object::resource_version(&old) {
                    return Err(modified(r, target.name));
                }
                done
            }
            Next::Patch(patch) => patched(&self.registry, r, patch, &old, options)?,
            Next::Function(change) => (change(&old)?, Vec::new()),
        };
        check_namespace(r, target.namespace, &mut new)?;
        check_name(target.name, &new)?;
        let replaces = matches!(next, Next::Replace(_));
        check_identity(r, target.name, replaces, &old, &mut new)?;
        let now = self.clock.now();
        if !tracks_fields(r) {
            set_meta(&mut new, "managedFields", None);
        } else if !applied && !UNOWNED.contains(&target.subresource) {
            let reset = reset_fields(r, target.subresource);
            managed::update(
                r.schema(),
                Some(&old),
                &mut new,
                &options.manager,
                &r.api_version(),
                target.subresource,
                &reset,
                now,
            );
        }
        let review = Review {
            operation: Operation::Update,
            user,
            resource: r,
            subresource: target.subresource,
            namespace: target.namespace,
            name: target.name,
            dry_run: options.dry_run,
        };
        admission::before(self, &review)?;
        if !options.reviewed {
            warnings.extend(admission::mutate(self, &review, Some(&mut new), Some(&old)).await?);
        }
        let context = strategy::Context {
            store: &self.store,
            user,
            now,
        };
        strategy::prepare_update(r, target.subresource, &context, &mut new, &old);
        managed::keep_times(&old, &mut new);
        let unchanged = same_but_version(&new, &old);
        if unchanged && !finished(&new) {
            if !options.reviewed {
                warnings.extend(admission::validate_hooks(self, &review, Some(&new), Some(&old)).await?);
            }
            let outcome = Outcome::Stored(Arc::clone(entry));
            return Ok(Some(Written {
                outcome,
                created: false,
                warnings,
            }));
        }
        let errors = update_errors(r, target.subresource, &new, &old);
        invalid(r, target.name, metadata_twice(errors))?;
        if !options.reviewed {
            warnings.extend(admission::validate(self, &review, Some(&new), Some(&old)).await?);
        }
        if target.subresource != "status" {
            warnings.extend(strategy::warnings(r, &new, Some(&old)));
        }
        let gone = finished(&new);
        let storage = convert::to_storage(r, new);
        let written = |outcome| {
            Ok(Some(Written {
                outcome,
                created: false,
                warnings,
            }))
        };
        if options.dry_run {
            return written(Outcome::Unstored(storage));
        }
        let result = if gone {
            let deleted = self
                .store_delete(r, entry.key.clone(), storage, entry.revision)
                .await;
            deleted.map(|e| Outcome::Unstored(e.value()))
        } else {
            size::check(r, &storage)?;
            let put = self
                .store_put(r, entry.key.clone(), storage, Expect::Revision(entry.revision))
                .await;
            put.map(Outcome::Stored)
        };
        match result {
            Ok(outcome) => written(outcome),
            Err(StoreError::Changed(_) | StoreError::Missing) => Ok(None),
            Err(e) => Err(store_error(&e, r, target.name)),
        }
    }
}

/// What is wrong with an update. An object that an older release stored may have zero values that are left out today: that
/// they are gone is no change.
fn update_errors(r: &Resource, subresource: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let errors = strategy::validate_update(r, subresource, new, old);
    if errors.is_empty() || r.custom.is_some() {
        return errors;
    }
    let mut as_today = old.clone();
    strategy::default(r, &mut as_today);
    let again = strategy::validate_update(r, subresource, new, &as_today);
    if again.len() < errors.len() { again } else { errors }
}

/// Whether an object waits only to be removed: deletion was asked for and nothing holds it any more.
pub fn finished(object: &Value) -> bool {
    let held = |finalizers: &Value| finalizers.as_array().is_some_and(|f| !f.is_empty());
    object::is_deleting(object)
        && !held(&object["metadata"]["finalizers"])
        && !(object["kind"] == json!("Namespace") && held(&object["spec"]["finalizers"]))
        && object["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0)
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_values_of_older_releases_are_no_change() {
        let registry = crate::registry::Registry::new();
        let r = registry.find("", "v1", "pods").unwrap();
        let mut new = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "default", "uid": "u", "resourceVersion": "1"},
            "spec": {"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": ""}]}]}});
        strategy::default(&r, &mut new);
        let mut old = new.clone();
        old["spec"]["hostNetwork"] = json!(false);
        old["spec"]["containers"][0]["env"][0]["value"] = json!("");
        assert_eq!(
            update_errors(&r, "", &new, &old),
            strategy::validate_update(&r, "", &new, &new)
        );
        old["spec"]["hostNetwork"] = json!(true);
        assert!(!update_errors(&r, "", &new, &old).is_empty());
    }

    #[test]
    fn a_version_alone_makes_no_difference() {
        let object =
            json!({"kind": "K", "metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"x": 1}});
        let with = |pointer: &str, value: Value| {
            let mut other = object.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            other
        };
        let mut versionless = object.clone();
        set_meta(&mut versionless, "resourceVersion", None);
        let mut labelled = object.clone();
        set_meta(&mut labelled, "labels", Some(json!({})));
        let mut more = object.clone();
        more["status"] = json!({});
        for (other, same) in [
            (object.clone(), true),
            (with("/metadata/resourceVersion", json!("2")), true),
            (versionless, true),
            (with("/metadata/name", json!("b")), false),
            (with("/spec", json!({"resourceVersion": "1", "x": 1})), false),
            (with("/kind", json!("L")), false),
            (labelled, false),
            (more, false),
        ] {
            assert_eq!(same_but_version(&object, &other), same, "{other}");
            assert_eq!(same_but_version(&other, &object), same, "{other}");
        }
    }
}
