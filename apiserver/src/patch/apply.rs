//! Server-side apply: a manager says which fields it wants, the server merges them and remembers whose they are (KEP-555).

use super::diff::Difference;
use super::fieldset::FieldSet;
use super::fit;
use super::managed::{Entry, Managers, Operation, Owner, never_owned};
use super::merge::{merge, remove};
use super::path::{self, PathElement, same};
use super::typed::{self, Ty, field_set, with_named_parents};
use crate::rest::go_json;
use crate::schema::{Schema, zeroes};
use crate::{ApiError, object};
use jiff::Timestamp;
use serde_json::{Map, Value};

/// Owner of what an object had before anyone applied to it.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager of `kubectl apply --server-side`, which may take over what `kubectl apply` set before.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One apply request's terms.
#[derive(Debug, Clone, Copy)]
pub struct Applier<'a> {
    /// Of the object's kind and version.
    pub schema: &'a Schema,
    /// The version the request is for, like `apps/v1`.
    pub api_version: &'a str,
    /// The kind the request is for.
    pub kind: &'a str,
    /// `fieldManager`.
    pub manager: &'a str,
    /// `status` and the like, `""` for the object itself.
    pub subresource: &'a str,
    /// Take fields from other managers.
    pub force: bool,
    /// Time of changed entries, shown in seconds.
    pub now: Timestamp,
    /// Fields this endpoint never owns: status on the object itself, spec on status.
    pub reset_fields: &'a FieldSet,
}

/// One field that is another's.
struct Conflict {
    owner: Owner,
    path: Vec<PathElement>,
}

/// Why an apply is not carried out.
enum Refused {
    Conflicts(Vec<Conflict>),
    Other(ApiError),
}

impl Applier<'_> {
    /// Merges the configuration into the live object (`None`: it is created) and returns the result with its new
    /// managedFields. Defaults are not applied here. A configuration that does not fit the schema is a 500 as in
    /// kube-apiserver, one that sets managedFields or another version a 400, fields of others an `ApplyConflict`.
    pub fn apply(&self, live: Option<&Value>, config: &Value) -> Result<Value, ApiError> {
        check(self.schema, (self.api_version, self.kind), config)?;
        let mut merged = match self.attempt(live, config, self.force) {
            Err(Refused::Conflicts(conflicts)) => self.take_over(live, config, conflicts)?,
            Err(Refused::Other(e)) => return Err(e),
            Ok(merged) => merged,
        };
        if self.manager == KUBECTL {
            refresh_last_applied(&mut merged, config);
        }
        Ok(merged)
    }

    /// kubectl takes fields over that `kubectl apply` had set client-side; all other conflicts stand.
    fn take_over(
        &self,
        live: Option<&Value>,
        config: &Value,
        mut conflicts: Vec<Conflict>,
    ) -> Result<Value, ApiError> {
        if let Some(allowed) = live
            .filter(|_| self.manager == KUBECTL)
            .and_then(|l| self.client_side_applied(l))
        {
            conflicts.retain(|c| !allowed.contains(&c.path));
            if conflicts.is_empty() {
                return self.attempt(live, config, true).map_err(|refused| match refused {
                    Refused::Conflicts(conflicts) => self.conflict_error(&conflicts),
                    Refused::Other(e) => e,
                });
            }
        }
        Err(self.conflict_error(&conflicts))
    }

    fn owner(&self, manager: &str, operation: Operation) -> Owner {
        Owner {
            manager: manager.into(),
            operation,
            version: self.api_version.into(),
            subresource: self.subresource.into(),
        }
    }

    /// The merged object, or the fields that stand against it.
    fn attempt(&self, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, Refused> {
        let ty = Ty::object(self.schema);
        let mut managers = match live {
            Some(live) => Managers::decode(live).map_err(|e| {
                Refused::Other(ApiError::Plain(format!("failed to decode managed fields: {e}")))
            })?,
            None => Managers::default(),
        };
        if let Some(live) = live.filter(|_| managers.0.is_empty()) {
            let zero = zeroes::object(self.schema);
            let owner = self.owner(BEFORE_FIRST_APPLY, Operation::Update);
            managers.record(ty, &zero, live, owner, self.reset_fields, self.now);
        }
        managers.reconcile(ty);

        let owner = self.owner(self.manager, Operation::Apply);
        let own = field_set(ty, config).recursive_difference(self.reset_fields);
        let (last, time) = match managers.position(&owner).map(|at| managers.0.remove(at)) {
            Some(entry) => (entry.fields, entry.time),
            None => (FieldSet::default(), None),
        };

        let nothing = Value::Object(Map::new());
        let old = live.unwrap_or(&nothing);
        let mut merged = merge(ty, old, config);
        if !last.is_subset(&own) {
            let everyones = managers.0.iter().fold(own.clone(), |all, e| all.union(&e.fields));
            merged = prune(ty, merged, &last, everyones);
        }

        let difference = Difference::of(ty, old, &merged).without(self.reset_fields);
        let touched = difference.touched();
        let mut conflicts: Vec<Conflict> = Vec::new();
        if !force {
            for entry in &managers.0 {
                entry.fields.intersection(&touched).each(&mut |path| {
                    conflicts.push(Conflict {
                        owner: entry.owner.clone(),
                        path: path.to_vec(),
                    });
                });
            }
        }
        if !conflicts.is_empty() {
            return Err(Refused::Conflicts(conflicts));
        }
        managers.take(None, &touched.union(&difference.removed));

        let unchanged = live.is_some_and(|live| same_but_managed(live, &merged));
        let fields = own.difference(&never_owned());
        if !fields.is_empty() {
            // A manager that changed no value keeps its time, a new one has none (as in kube-apiserver).
            let time = if unchanged { time } else { Some(self.now) };
            managers.0.push(Entry { owner, time, fields });
        }
        managers.write(&mut merged);
        Ok(merged)
    }

    fn conflict_error(&self, conflicts: &[Conflict]) -> ApiError {
        // Through scale an object is a Scale to all of its owners.
        let is_scale = self.subresource == "scale";
        let with = |owner: &Owner| {
            let subresource = match owner.subresource.as_str() {
                "" => String::new(),
                name => format!(" with subresource {name:?}"),
            };
            match owner.operation {
                Operation::Apply => format!("{:?}{subresource}", owner.manager),
                Operation::Update => {
                    let version = if is_scale {
                        "autoscaling/v1"
                    } else {
                        &owner.version
                    };
                    format!("{:?}{subresource} using {version}", owner.manager)
                }
            }
        };
        let mut sorted: Vec<&Conflict> = conflicts.iter().collect();
        sorted.sort_by(|a, b| a.owner.cmp(&b.owner));
        let causes: Vec<(String, String)> = sorted
            .iter()
            .map(|c| (format!("conflict with {}", with(&c.owner)), path::shown(&c.path)))
            .collect();
        if let [(with, field)] = causes.as_slice() {
            let message = format!("Apply failed with 1 conflict: {with}: {field}");
            return ApiError::ApplyConflict { message, causes };
        }
        let mut lines = Vec::new();
        let mut before = None;
        for conflict in &sorted {
            if before != Some(&conflict.owner) {
                lines.push(format!("conflicts with {}:", with(&conflict.owner)));
            }
            before = Some(&conflict.owner);
            lines.push(format!("- {}", path::shown(&conflict.path)));
        }
        let message = format!(
            "Apply failed with {} conflicts: {}",
            causes.len(),
            lines.join("\n")
        );
        ApiError::ApplyConflict { message, causes }
    }

    /// Fields whose value is still what `kubectl apply` last set, by the annotation it leaves.
    fn client_side_applied(&self, live: &Value) -> Option<FieldSet> {
        let text = live["metadata"]["annotations"][LAST_APPLIED]
            .as_str()
            .filter(|t| !t.is_empty())?;
        let applied: Value = serde_json::from_str(text).ok()?;
        if applied["apiVersion"].as_str() != Some(self.api_version) {
            return None;
        }
        let ty = Ty::object(self.schema);
        let difference = Difference::of(ty, &applied, live);
        Some(field_set(ty, &applied).difference(&difference.touched().union(&difference.removed)))
    }
}

/// Refuses a configuration that is of another kind than `wanted`, sets managedFields, or does not fit the schema.
pub fn check(schema: &Schema, wanted: (&str, &str), config: &Value) -> Result<(), ApiError> {
    let sent = config["apiVersion"].as_str().unwrap_or_default();
    let kind = config["kind"].as_str().unwrap_or_default();
    if (sent, kind) != wanted {
        let (group, version) = sent.split_once('/').unwrap_or(("", sent));
        return Err(ApiError::BadRequest(format!(
            "invalid object type: {group}/{version}, Kind={kind}"
        )));
    }
    if !config["metadata"][typed::MANAGED_FIELDS].is_null() {
        return Err(ApiError::BadRequest("metadata.managedFields must be nil".into()));
    }
    let Some(what) = fit::complaint(Ty::object(schema), config) else {
        return Ok(());
    };
    let (namespace, name) = (object::namespace(config), object::name(config));
    Err(ApiError::Plain(format!(
        "failed to create typed patch object ({namespace}/{name}; {}{sent}, Kind={kind}): {what}",
        if sent.contains('/') { "" } else { "/" },
    )))
}

/// Takes out what the manager applied last time and not this time, unless someone owns it or never owned it.
fn prune(ty: Ty<'_>, merged: Value, last: &FieldSet, everyones: FieldSet) -> Value {
    let named = |value: &Value| with_named_parents(ty, field_set(ty, value));
    let last = with_named_parents(ty, last.clone());
    let everyones = with_named_parents(ty, everyones);
    let all = named(&merged);
    let without_last = remove(ty, &merged, &last);
    // Give back what someone owns, with its parents.
    let gone = all.difference(&named(&without_last).union(&everyones));
    let owned = remove(ty, &merged, &gone);
    // Give back what this manager never owned: only its own fields go.
    let gone = all.difference(&named(&owned)).intersection(&last);
    if gone.is_empty() {
        merged
    } else {
        remove(ty, &merged, &gone)
    }
}

fn same_but_managed(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else {
        return false;
    };
    a.len() == b.len()
        && a.iter()
            .all(|(name, x)| match (name.as_str(), b.get(name), x.as_object()) {
                (_, None, _) => false,
                ("metadata", Some(Value::Object(y)), Some(x)) => {
                    let counted = |k: &&String| *k != typed::MANAGED_FIELDS;
                    x.keys().filter(counted).count() == y.keys().filter(counted).count()
                        && x.iter()
                            .filter(|(k, _)| counted(k))
                            .all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
                }
                (_, Some(y), _) => same(x, y),
            })
}

/// Keeps the annotation of client-side apply in step, when the object has it, so that `kubectl apply` can be used again.
fn refresh_last_applied(merged: &mut Value, config: &Value) {
    if merged["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .is_none_or(str::is_empty)
    {
        return;
    }
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED);
    }
    if let Some(Value::Object(annotations)) = merged.pointer_mut("/metadata/annotations") {
        annotations.insert(
            LAST_APPLIED.into(),
            format!("{}\n", go_json::text(&config)).into(),
        );
    }
}
