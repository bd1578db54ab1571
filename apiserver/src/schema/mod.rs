//! What fields an object has: one shape for built-in types and for CustomResourceDefinitions' structural schemas.
//!
//! [`builtin`] reads the built-in types, [`structural`] reads a CRD's schema; everything else works on [`Schema`] alone:
//! [`decode`] refuses what Go's typed decoders would, [`prune`] drops unknown fields, [`default`] fills in, [`validate`]
//! checks values, [`zeroes`] drops and writes what Go's encoder does, [`cel`] runs `x-kubernetes-validations`, [`openapi`] writes schemas back for clients.

pub mod builtin;
pub mod cel;
pub mod decode;
pub mod default;
pub mod formats;
pub mod openapi;
mod openapi_texts;
pub mod prune;
mod regexes;
pub mod structural;
pub mod validate;
pub mod zeroes;

#[cfg(test)]
mod proptests;

pub use cel::{Rules, validate_custom};

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

/// A node's type. Follows OpenAPI v3 as Kubernetes uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Type {
    /// Anything at all (RawExtension, JSON, a node without a type).
    #[default]
    Any,
    /// A map or a struct.
    Object,
    /// A list.
    Array,
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// `x-kubernetes-int-or-string`.
    IntOrString,
    /// A resource quantity: text or number.
    Quantity,
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// Scalars that appear once.
    Set,
    /// Objects with these keys.
    Map(Vec<Box<str>>),
}

/// A node of a schema, or the name of a built-in type (types are recursive, so they are referred to by name).
#[derive(Debug, Clone)]
pub enum Ref {
    /// Spelled out here.
    Inline(Box<Schema>),
    /// A key of the built-in types, like `io.k8s.api.core.v1.PodSpec`.
    Named(Box<str>),
}

/// One rule of `x-kubernetes-validations`.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// CEL over `self` and `oldSelf`.
    pub rule: Box<str>,
    /// Message when it fails.
    pub message: Option<Box<str>>,
    /// CEL that makes the message.
    pub message_expression: Option<Box<str>>,
    /// `FieldValueInvalid` and the like.
    pub reason: Option<Box<str>>,
    /// Field the error is shown at, relative to the node.
    pub field_path: Option<Box<str>>,
    /// Evaluate a transition rule also on create.
    pub optional_old_self: bool,
}

/// One node of a schema.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// Type of the value.
    pub kind: Type,
    /// `null` is a value of its own.
    pub nullable: bool,
    /// Value when absent.
    pub default: Option<Value>,
    /// The only values allowed.
    pub enumeration: Vec<Value>,
    /// `date-time`, `int32`, `byte` …
    pub format: Option<Box<str>>,
    /// Regular expression of a string.
    pub pattern: Option<Box<str>>,
    /// Bounds, all inclusive unless the exclusive flag says otherwise.
    pub minimum: Option<f64>,
    /// Upper bound.
    pub maximum: Option<f64>,
    /// `minimum` itself is out.
    pub exclusive_minimum: bool,
    /// `maximum` itself is out.
    pub exclusive_maximum: bool,
    /// Number must be a multiple of this.
    pub multiple_of: Option<f64>,
    /// Shortest string.
    pub min_length: Option<u64>,
    /// Longest string.
    pub max_length: Option<u64>,
    /// Fewest items.
    pub min_items: Option<u64>,
    /// Most items.
    pub max_items: Option<u64>,
    /// Items must differ.
    pub unique_items: bool,
    /// Fewest properties.
    pub min_properties: Option<u64>,
    /// Most properties.
    pub max_properties: Option<u64>,
    /// Named fields of an object.
    pub properties: BTreeMap<Box<str>, Ref>,
    /// Names of `properties` that must be there.
    pub required: Vec<Box<str>>,
    /// Values of a map; `None` where only `properties` are known.
    pub additional: Option<Ref>,
    /// Items of a list.
    pub items: Option<Ref>,
    /// How a list merges.
    pub list_type: Option<ListType>,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    /// `x-kubernetes-patch-strategy` contains `merge` / `retainKeys` / `replace` (strategic merge patch).
    pub patch_strategy: Option<Box<str>>,
    /// `x-kubernetes-patch-merge-key`.
    pub patch_merge_key: Option<Box<str>>,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded_resource: bool,
    /// `x-kubernetes-validations`.
    pub validations: Vec<Rule>,
    /// Value validations only (structural schemas forbid structure in them).
    pub all_of: Vec<Schema>,
    /// At least one must hold.
    pub any_of: Vec<Schema>,
    /// Exactly one must hold.
    pub one_of: Vec<Schema>,
    /// Must not hold.
    pub not: Option<Box<Schema>>,
    /// `x-kubernetes-unions` and prose are not kept.
    pub description: Option<Box<str>>,
    /// How Go writes the zero values of this struct's fields; `None` for a custom resource's types.
    pub zeroes: Option<&'static zeroes::Zeroes>,
}

impl Rule {
    /// The rule as a CRD spells it.
    pub fn to_json(&self) -> Value {
        let mut out = serde_json::Map::new();
        out.insert("rule".into(), (&*self.rule).into());
        for (key, value) in [
            ("message", &self.message),
            ("messageExpression", &self.message_expression),
            ("reason", &self.reason),
            ("fieldPath", &self.field_path),
        ] {
            if let Some(value) = value {
                out.insert(key.into(), (&**value).into());
            }
        }
        if self.optional_old_self {
            out.insert("optionalOldSelf".into(), true.into());
        }
        Value::Object(out)
    }
}

impl Schema {
    /// The schema a reference means. A name that is no built-in type means a node that takes anything.
    pub fn resolve(reference: &Ref) -> &Schema {
        match reference {
            Ref::Inline(schema) => schema,
            Ref::Named(name) => builtin::named(name).unwrap_or_else(|| builtin::any()),
        }
    }

    /// The schema of a declared field.
    pub fn property(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).map(Self::resolve)
    }

    /// The schema of a list's items.
    pub fn items(&self) -> Option<&Schema> {
        self.items.as_ref().map(Self::resolve)
    }

    /// The schema of a map's values.
    pub fn additional(&self) -> Option<&Schema> {
        self.additional.as_ref().map(Self::resolve)
    }

    /// The schema of the value under `name`, be it a declared field or a map's value.
    pub fn child(&self, name: &str) -> Option<&Schema> {
        self.property(name).or_else(|| self.additional())
    }

    /// Finds items of the list `old` by the keys of this list; `None` for lists whose items have no identity across
    /// versions of an object.
    pub fn former<'a>(&'a self, old: Option<&'a Value>) -> Option<Former<'a>> {
        match &self.list_type {
            Some(ListType::Map(keys)) => Former::of(keys, old),
            _ => None,
        }
    }
}

/// The former state of a list of keyed items.
#[derive(Debug)]
pub struct Former<'a> {
    keys: &'a [Box<str>],
    items: &'a [Value],
    /// Positions by keys, once it is worth it.
    index: Option<HashMap<String, usize>>,
}

impl<'a> Former<'a> {
    /// Of the list `old`, whose items have these keys.
    pub fn of(keys: &'a [Box<str>], old: Option<&'a Value>) -> Option<Self> {
        let items = old?.as_array()?;
        Some(Self {
            keys,
            items,
            index: None,
        })
    }

    /// The item that has the same keys as `item`, which is now at this position: most are where they were.
    pub fn find(&mut self, at: usize, item: &Value) -> Option<&'a Value> {
        let same = |other: &&Value| self.keys.iter().all(|k| other.get(&**k) == item.get(&**k));
        if let Some(there) = self.items.get(at).filter(same) {
            return Some(there);
        }
        let text = |item: &Value| {
            let mut text = String::new();
            for key in self.keys {
                let _ = match item.get(&**key) {
                    Some(value) => write!(text, "{value},"),
                    None => write!(text, ","),
                };
            }
            text
        };
        let index = self.index.get_or_insert_with(|| {
            let mut index = HashMap::with_capacity(self.items.len());
            for (at, item) in self.items.iter().enumerate() {
                index.entry(text(item)).or_insert(at);
            }
            index
        });
        index.get(&text(item)).and_then(|at| self.items.get(*at))
    }
}
