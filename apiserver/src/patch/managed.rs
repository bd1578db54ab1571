//! metadata.managedFields: who owns which field, and what a create, update or patch changes in it (KEP-555).

use super::diff::Difference;
use super::fieldset::FieldSet;
use super::typed::{self, Ty};
use crate::object;
use crate::schema::{Schema, zeroes};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Most entries of operation Update an object keeps; older ones are merged.
const MAX_UPDATE_ENTRIES: usize = 10;
/// Manager of merged entries.
const ANCIENT: &str = "ancient-changes";

/// How an entry's owner came to own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// Who owns: what makes two entries the same owner's. An applier's version may change, an updater's does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) version: String,
    pub(super) subresource: String,
}

impl Owner {
    fn is(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.version == other.version)
    }
}

/// One entry of managedFields.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) owner: Owner,
    pub(super) time: Option<Timestamp>,
    pub(super) fields: FieldSet,
}

/// The entries of an object.
#[derive(Debug, Clone, Default)]
pub(super) struct Managers(pub(super) Vec<Entry>);

impl Managers {
    /// Reads metadata.managedFields; says what is wrong with it.
    pub(super) fn decode(object: &Value) -> Result<Self, String> {
        match &object["metadata"][typed::MANAGED_FIELDS] {
            Value::Null => Ok(Self::default()),
            Value::Array(entries) => {
                let mut managers = Self::default();
                for (i, entry) in entries.iter().enumerate() {
                    let entry = Entry::decode(i, entry)?;
                    match managers.position(&entry.owner) {
                        Some(at) => managers.0[at] = entry,
                        None => managers.0.push(entry),
                    }
                }
                Ok(managers)
            }
            other => Err(format!("expected a list of managedFields entries, got {other}")),
        }
    }

    pub(super) fn position(&self, owner: &Owner) -> Option<usize> {
        self.0.iter().position(|e| e.owner.is(owner))
    }

    /// Sets metadata.managedFields, or removes it when there is none.
    pub(super) fn write(mut self, object: &mut Value) {
        self.0.sort_by(|a, b| {
            let key = |e: &Entry| (e.owner.operation, e.time.map_or(0, Timestamp::as_second));
            key(a).cmp(&key(b)).then_with(|| {
                let key = |e: &'_ Entry| {
                    (
                        e.owner.manager.clone(),
                        e.owner.version.clone(),
                        e.owner.subresource.clone(),
                    )
                };
                key(a).cmp(&key(b))
            })
        });
        let entries: Vec<Value> = self.0.iter().map(Entry::encode).collect();
        if !entries.is_empty() {
            object::set_meta(object, typed::MANAGED_FIELDS, Some(Value::Array(entries)));
        } else if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            metadata.remove(typed::MANAGED_FIELDS);
        }
    }

    /// Takes touched and removed fields from everyone but `except`, and drops who owns nothing any more.
    pub(super) fn take(&mut self, except: Option<&Owner>, taken: &FieldSet) {
        if !taken.is_empty() {
            for entry in self
                .0
                .iter_mut()
                .filter(|e| except.is_none_or(|o| !e.owner.is(o)))
            {
                entry.fields = entry.fields.difference(taken);
            }
        }
        self.0.retain(|e| !e.fields.is_empty());
    }

    /// Follows changes of the schema between whole and field-by-field ownership.
    pub(super) fn reconcile(&mut self, ty: Ty<'_>) {
        for entry in &mut self.0 {
            typed::reconcile(ty, &mut entry.fields);
        }
    }

    /// Records that `owner` changed `old` into `new`.
    pub(super) fn record(
        &mut self,
        ty: Ty<'_>,
        old: &Value,
        new: &Value,
        owner: Owner,
        reset: &FieldSet,
        now: Timestamp,
    ) {
        self.reconcile(ty);
        let difference = Difference::of(ty, old, new).without(reset);
        let touched = difference.touched();
        self.take(None, &touched.union(&difference.removed));
        let fields = touched.difference(&never_owned());
        if fields.is_empty() {
            return;
        }
        match self.position(&owner) {
            Some(at) => {
                let entry = &mut self.0[at];
                entry.fields = entry.fields.union(&fields);
                entry.time = Some(now);
            }
            None => self.0.push(Entry {
                owner,
                time: Some(now),
                fields,
            }),
        }
    }

    /// Merges the oldest Update entries of each version until there are few enough.
    fn cap(&mut self) {
        let updates = |m: &Self| {
            m.0.iter()
                .filter(|e| e.owner.operation == Operation::Update)
                .count()
        };
        if updates(self) <= MAX_UPDATE_ENTRIES {
            return;
        }
        let mut order: Vec<(i64, Owner)> = self
            .0
            .iter()
            .filter(|e| e.owner.operation == Operation::Update)
            .map(|e| (e.time.map_or(0, Timestamp::as_second), e.owner.clone()))
            .collect();
        order.sort();
        let mut first_of: Vec<Owner> = Vec::new();
        for (_, owner) in order {
            if updates(self) <= MAX_UPDATE_ENTRIES {
                return;
            }
            let Some(first) = first_of.iter().find(|f| f.version == owner.version) else {
                first_of.push(owner);
                continue;
            };
            let ancient = Owner {
                manager: ANCIENT.into(),
                subresource: String::new(),
                ..owner.clone()
            };
            if self.position(&ancient).is_none()
                && let Some(at) = self.position(first)
            {
                self.0[at].owner = ancient.clone();
            }
            let Some(at) = self.position(&owner).filter(|_| !owner.is(&ancient)) else {
                continue;
            };
            let merged = self.0.remove(at);
            if let Some(at) = self.position(&ancient) {
                let bucket = &mut self.0[at];
                bucket.fields = bucket.fields.union(&merged.fields);
                bucket.time = merged.time;
            }
        }
    }
}

impl Entry {
    fn decode(index: usize, entry: &Value) -> Result<Self, String> {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let operation = match entry["operation"].as_str() {
            Some("Apply") => Operation::Apply,
            Some("Update") => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".into()),
        };
        if text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".into());
        }
        match entry["fieldsType"].as_str().unwrap_or_default() {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
            other => {
                return Err(format!(
                    "invalid fieldsType {other:?} in managed fields entry {index}"
                ));
            }
        }
        let fields = match &entry["fieldsV1"] {
            Value::Null => FieldSet::default(),
            fields => FieldSet::decode(fields)?,
        };
        let owner = Owner {
            manager: text("manager"),
            operation,
            version: text("apiVersion"),
            subresource: text("subresource"),
        };
        Ok(Self {
            owner,
            time: text("time").parse().ok(),
            fields,
        })
    }

    fn encode(&self) -> Value {
        let operation = match self.owner.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        };
        let mut entry = json!({
            "operation": operation,
            "apiVersion": self.owner.version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.encode(),
        });
        for (name, value) in [
            ("manager", &self.owner.manager),
            ("subresource", &self.owner.subresource),
        ] {
            if !value.is_empty() {
                entry[name] = value.as_str().into();
            }
        }
        if let Some(time) = self.time {
            entry["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
        }
        entry
    }
}

/// Fields no one owns: the server sets them, or they say which object it is.
pub(super) fn never_owned() -> FieldSet {
    FieldSet::of(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
}

/// Records a create (`live` is `None`), update or patch by `manager`: what it added or changed becomes its own, what it
/// removed no one's. Sets `new`'s metadata.managedFields; nothing else is changed.
///
/// managedFields that the request itself carries count, except on a subresource: `[]` and `[{}]` end tracking, a valid
/// list replaces the live one, anything else is ignored.
#[allow(clippy::too_many_arguments)]
pub fn update(
    schema: &Schema,
    live: Option<&Value>,
    new: &mut Value,
    manager: &str,
    api_version: &str,
    subresource: &str,
    reset: &FieldSet,
    now: Timestamp,
) {
    let of_live = || {
        live.map(|l| Managers::decode(l).unwrap_or_default())
            .unwrap_or_default()
    };
    let mut managers = if !subresource.is_empty() {
        of_live()
    } else if is_cleared(&new["metadata"][typed::MANAGED_FIELDS]) {
        Managers::default()
    } else {
        match Managers::decode(new) {
            Ok(given) if !given.0.is_empty() => given,
            _ => of_live(),
        }
    };
    // An existing object that is not tracked stays so until the first apply.
    if live.is_none() || !managers.0.is_empty() {
        let owner = Owner {
            manager: manager.into(),
            operation: Operation::Update,
            version: api_version.into(),
            subresource: subresource.into(),
        };
        let zero = if live.is_none() {
            zeroes::object(schema)
        } else {
            Value::Null
        };
        let old = live.unwrap_or(&zero);
        managers.record(Ty::object(schema), old, new, owner, reset, now);
        managers.cap();
    }
    managers.write(new);
}

/// Whether a request asks to forget all owners.
fn is_cleared(entries: &Value) -> bool {
    let is_blank = |v: &Value| match v {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match entries.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(entry)]) => entry.values().all(is_blank),
        _ => false,
    }
}

/// Makes a write that changed nothing but the times in managedFields one that changes nothing: when `new` differs from
/// `live` only there (and in resourceVersion), `new` gets `live`'s managedFields.
pub fn keep_times(live: &Value, new: &mut Value) {
    let times_apart = |a: &Value, b: &Value| match (a.as_array(), b.as_array()) {
        (Some(a), Some(b)) => {
            let without_time = |entry: &Value| -> Map<String, Value> {
                let fields = entry.as_object().into_iter().flatten();
                fields
                    .filter(|(k, _)| *k != "time")
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect()
            };
            // A later time may have moved an entry to another place.
            a.len() == b.len()
                && a.iter()
                    .all(|x| b.iter().any(|y| without_time(x) == without_time(y)))
        }
        _ => false,
    };
    let (Some(old), Some(fresh)) = (live.as_object(), new.as_object()) else {
        return;
    };
    let same_but = |a: &Map<String, Value>, b: &Map<String, Value>, apart: &[&str]| {
        let rest = |map: &'_ Map<String, Value>| map.keys().filter(|k| !apart.contains(&k.as_str())).count();
        let same = |(k, v): (&String, &Value)| apart.contains(&k.as_str()) || b.get(k) == Some(v);
        rest(a) == rest(b) && a.iter().all(same)
    };
    // Most writes change something, and are not looked at more closely.
    if !same_but(old, fresh, &["metadata"]) {
        return;
    }
    let (Some(old_meta), Some(new_meta)) = (live["metadata"].as_object(), new["metadata"].as_object()) else {
        return;
    };
    let (Some(old_managed), Some(new_managed)) = (
        old_meta.get(typed::MANAGED_FIELDS),
        new_meta.get(typed::MANAGED_FIELDS),
    ) else {
        return;
    };
    let apart = ["resourceVersion", typed::MANAGED_FIELDS];
    if same_but(old_meta, new_meta, &apart) && times_apart(old_managed, new_managed) {
        let old_managed = old_managed.clone();
        object::set_meta(new, typed::MANAGED_FIELDS, Some(old_managed));
    }
}
