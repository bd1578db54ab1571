//! The part of a schema that rules see: names as CEL spells them, types, and values made ready for evaluation.

mod plain;
mod values;

pub(super) use values::untyped;

use super::Compiled;
use super::compile::Compiler;
use super::cost::Bound;
use super::infer::Ty;
use crate::schema::{Former, ListType, Ref, Schema, Type};
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::Arc;

/// CEL's reserved words; as field names they are written `__word__` (apiserver `pkg/cel/escaping.go`).
pub const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A field name as CEL spells it, or `None` when rules can not name it.
pub(super) fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let escaped = name
        .replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__");
    escaped
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_')
        .then_some(escaped)
}

#[derive(Debug)]
struct Property {
    name: Box<str>,
    escaped: Option<Arc<String>>,
    node: u32,
}

/// A node of the schema.
#[derive(Debug, Default)]
pub(super) struct Node {
    kind: Type,
    /// How large its values can be.
    pub(super) bound: Bound,
    format: Option<Box<str>>,
    properties: Vec<Property>, // by name
    pub(super) additional: Option<u32>,
    pub(super) items: Option<u32>,
    list_keys: Vec<Box<str>>,
    pub(super) rules: Vec<Compiled>,
    pub(super) rules_below: bool,
}

impl Node {
    pub(super) fn property(&self, name: &str) -> Option<u32> {
        let at = self.properties.binary_search_by(|p| (*p.name).cmp(name)).ok()?;
        Some(self.properties[at].node)
    }

    /// The former state of a list with keys.
    pub(super) fn former<'a>(&'a self, old: Option<&'a Value>) -> Option<Former<'a>> {
        if self.list_keys.is_empty() {
            return None;
        }
        Former::of(&self.list_keys, old)
    }
}

/// All nodes; the root is the first. Empty when the schema has no rules.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    list: Vec<Node>,
}

/// How large the values at each node are, at most: items or characters, and JSON values below.
#[derive(Debug)]
pub(super) struct Sizes {
    sizes: Vec<(u32, u32)>,
    free: (u32, u32),
}

impl Sizes {
    pub(super) fn new(nodes: &Nodes) -> Self {
        Self {
            sizes: vec![(0, 0); nodes.list.len()],
            free: (0, 0),
        }
    }

    /// Length and weight of the values at a node.
    pub(super) fn of(&self, id: u32) -> (f64, f64) {
        let (length, weight) = self.sizes[id as usize];
        (f64::from(length), f64::from(weight))
    }

    /// Length and weight of the largest value that no schema describes.
    pub(super) fn free(&self) -> (f64, f64) {
        (f64::from(self.free.0), f64::from(self.free.1))
    }

    fn note(&mut self, id: Option<u32>, length: usize, weight: u32) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let slot = match id {
            Some(id) => &mut self.sizes[id as usize],
            None => &mut self.free,
        };
        *slot = (slot.0.max(length), slot.1.max(weight));
    }
}

fn has_rules(schema: &Schema) -> bool {
    let below = |r: &Ref| matches!(r, Ref::Inline(s) if has_rules(s));
    !schema.validations.is_empty()
        || schema.properties.values().any(below)
        || schema.items.as_ref().is_some_and(below)
        || schema.additional.as_ref().is_some_and(below)
}

pub(super) struct Place<'a> {
    pub(super) path: &'a str,
    /// A rule stands above, so values here may be read.
    read: bool,
    /// The list whose items have no identity, when there is one above.
    pub(super) uncorrelated: Option<&'a str>,
    /// How many such values an object can have, as far as the schema says.
    pub(super) count: Option<u64>,
}

impl Nodes {
    /// Reads a schema and compiles its rules.
    pub(super) fn build(schema: &Schema, path: &str, compiler: &mut Compiler) -> Self {
        let mut nodes = Self::default();
        if has_rules(schema) {
            nodes.add(
                schema,
                true,
                &Place {
                    path,
                    read: false,
                    uncorrelated: None,
                    count: Some(1),
                },
                compiler,
            );
        }
        nodes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn at(&self, id: u32) -> &Node {
        &self.list[id as usize]
    }

    fn push(&mut self, node: Node) -> u32 {
        self.list.push(node);
        u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX)
    }

    fn scalar_node(&mut self, kind: Type) -> u32 {
        self.push(Node {
            kind,
            ..Node::default()
        })
    }

    fn add(&mut self, schema: &Schema, resource: bool, place: &Place<'_>, compiler: &mut Compiler) -> u32 {
        let read = place.read || !schema.validations.is_empty();
        let id = self.push(Node {
            kind: schema.kind,
            bound: if read { Bound::of(schema) } else { Bound::default() },
            format: schema.format.clone(),
            list_keys: match &schema.list_type {
                Some(ListType::Map(keys)) => keys.clone(),
                _ => Vec::new(),
            },
            ..Node::default()
        });
        let mut below = false;
        let times = |most: Option<u64>| Some(place.count?.saturating_mul(most?));
        let mut step =
            |this: &mut Self, reference: &Ref, segment: &str, inner: (Option<&str>, Option<u64>)| {
                let (uncorrelated, count) = inner;
                let child = Schema::resolve(reference);
                let rules = matches!(reference, Ref::Inline(s) if has_rules(s));
                below |= rules;
                (read || rules).then(|| {
                    let path = format!("{}.{segment}", place.path);
                    let inner = Place {
                        path: &path,
                        read,
                        uncorrelated,
                        count,
                    };
                    this.add(child, child.embedded_resource, &inner, compiler)
                })
            };
        let mut properties = Vec::new();
        for (name, reference) in &schema.properties {
            let segment = format!("properties[{name}]");
            if let Some(node) = step(self, reference, &segment, (place.uncorrelated, place.count)) {
                properties.push((name.clone(), node));
            }
        }
        let additional = schema.additional.as_ref().and_then(|r| {
            let inner = (place.uncorrelated, times(schema.max_properties));
            step(self, r, "additionalProperties", inner)
        });
        let items = schema.items.as_ref().and_then(|r| {
            let correlated = matches!(schema.list_type, Some(ListType::Map(_)));
            let here = place.path.to_owned();
            let uncorrelated = if correlated {
                place.uncorrelated
            } else {
                place.uncorrelated.or(Some(&here))
            };
            step(self, r, "items", (uncorrelated, times(schema.max_items)))
        });
        if resource && read {
            self.add_identity(&mut properties);
        }
        properties.sort();
        let node = &mut self.list[id as usize];
        node.properties = properties
            .into_iter()
            .map(|(name, node)| Property {
                escaped: escape(&name).map(Arc::new),
                name,
                node,
            })
            .collect();
        (node.additional, node.items, node.rules_below) = (additional, items, below);
        if !schema.validations.is_empty() {
            let rules = compiler.rules(self, id, &schema.validations, place);
            self.list[id as usize].rules = rules;
        }
        id
    }

    /// What every resource has for rules to see.
    fn add_identity(&mut self, properties: &mut Vec<(Box<str>, u32)>) {
        for name in ["apiVersion", "kind", "metadata"] {
            if properties.iter().any(|(n, _)| &**n == name) && name != "metadata" {
                continue;
            }
            properties.retain(|(n, _)| &**n != name);
            let node = if name == "metadata" {
                let names = ["generateName", "name"].map(|n| Property {
                    name: n.into(),
                    escaped: escape(n).map(Arc::new),
                    node: self.scalar_node(Type::String),
                });
                self.push(Node {
                    kind: Type::Object,
                    properties: names.into(),
                    ..Node::default()
                })
            } else {
                self.scalar_node(Type::String)
            };
            properties.push((name.into(), node));
        }
    }

    /// The type of values at a node, named as CEL does where it is a scalar.
    pub(super) fn scalar(&self, ty: &Ty) -> Ty {
        let Ty::Node(id) = ty else { return ty.clone() };
        let node = self.at(*id);
        match (node.kind, node.format.as_deref()) {
            (Type::String, Some("date-time" | "date")) => Ty::Timestamp,
            (Type::String, Some("duration")) => Ty::Duration,
            (Type::String, Some("byte")) => Ty::Bytes,
            (Type::String, _) => Ty::String,
            (Type::Integer, _) => Ty::Int,
            (Type::Number, _) => Ty::Double,
            (Type::Boolean, _) => Ty::Bool,
            (Type::Object | Type::Array, _) => ty.clone(),
            _ => Ty::Dyn,
        }
    }

    /// The node of the field a rule spells `escaped`. `Ok(None)` when nothing is known about the fields.
    pub(super) fn field(&self, id: u32, escaped: &str) -> Result<Option<u32>, ()> {
        let node = self.at(id);
        let found = node
            .properties
            .iter()
            .find(|p| p.escaped.as_ref().is_some_and(|e| **e == escaped));
        match found {
            Some(property) => Ok(Some(property.node)),
            None if node.additional.is_some() => Ok(node.additional),
            None if node.kind == Type::Object => Err(()),
            None => Ok(None),
        }
    }

    /// Whether a node's values are maps or lists, and the node of what they hold.
    pub(super) fn elements(&self, id: u32) -> Option<Ty> {
        let node = self.at(id);
        match node.kind {
            Type::Array => Some(node.items.map_or(Ty::Dyn, Ty::Node)),
            // Iterating a map gives its keys.
            Type::Object => Some(Ty::String),
            _ => None,
        }
    }

    /// The type of a node's values as a schema writes it.
    pub(super) fn type_name(&self, id: u32) -> &'static str {
        match self.at(id).kind {
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
            Type::Any | Type::IntOrString | Type::Quantity => "",
        }
    }

    /// Whether a node's values are lists.
    pub(super) fn is_list(&self, id: u32) -> bool {
        self.at(id).kind == Type::Array
    }

    /// Whether a node's values are objects of named fields, which are no maps.
    pub(super) fn is_structure(&self, id: u32) -> bool {
        let node = self.at(id);
        node.kind == Type::Object && node.additional.is_none()
    }

    /// What indexing a node's values gives.
    pub(super) fn indexed(&self, id: u32) -> Ty {
        let node = self.at(id);
        node.items.or(node.additional).map_or(Ty::Dyn, Ty::Node)
    }

    /// A `fieldPath` like `.spec.a['b-c']` as the rest of an error's field.
    pub(super) fn field_path(&self, mut id: u32, path: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = path;
        while !rest.is_empty() {
            let (name, tail) = if let Some(quoted) = rest.strip_prefix("['") {
                quoted.split_once("']").ok_or("must be a valid path")?
            } else if let Some(plain) = rest.strip_prefix('.') {
                plain.split_at(plain.find(['.', '[']).unwrap_or(plain.len()))
            } else {
                return Err("must be a valid path".to_owned());
            };
            let node = self.at(id);
            if let Some(child) = node.property(name) {
                out.push('.');
                out.push_str(name);
                id = child;
            } else if let Some(child) = node.additional {
                let _ = write!(out, "[{name}]");
                id = child;
            } else {
                return Err("must be a valid path".to_owned());
            }
            rest = tail;
        }
        if out.is_empty() {
            Err("must be a valid path".into())
        } else {
            Ok(out)
        }
    }
}
