//! A set of field paths as a sorted tree: what one manager owns, what one change touched (fieldsV1 of KEP-555).
//!
//! A node that is a *member* is itself in the set; a node may also only lead to members below it.

use super::path::{Path, PathElement};
use serde_json::{Map, Value};
use std::cmp::Ordering;

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) element: PathElement,
    pub(super) member: bool,
    pub(super) children: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

impl FieldSet {
    /// The set of nothing.
    pub const EMPTY: FieldSet = FieldSet { nodes: Vec::new() };

    /// A set of named fields, each given as its path from the root.
    pub fn of(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(
                &path
                    .iter()
                    .map(|name| PathElement::field(name))
                    .collect::<Vec<_>>(),
            );
        }
        set
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.nodes.iter().all(Node::is_empty)
    }

    /// How many fields are in the set.
    pub fn len(&self) -> usize {
        self.nodes
            .iter()
            .map(|n| usize::from(n.member) + n.children.len())
            .sum()
    }

    /// Adds one field; its parents are not added.
    pub fn insert(&mut self, path: &Path) {
        let Some((last, parents)) = path.split_last() else {
            return;
        };
        let mut set = self;
        for element in parents {
            set = &mut set.node(element).children;
        }
        set.node(last).member = true;
    }

    /// Whether this very field is in the set.
    pub fn contains(&self, path: &Path) -> bool {
        let Some((last, parents)) = path.split_last() else {
            return false;
        };
        let mut set = self;
        for element in parents {
            match set.get(element) {
                Some(node) => set = &node.children,
                None => return false,
            }
        }
        set.get(last).is_some_and(|n| n.member)
    }

    /// Whether every field of this set is in the other.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.nodes.iter().all(|a| {
            a.is_empty()
                || other
                    .get(&a.element)
                    .is_some_and(|b| (!a.member || b.member) && a.children.is_subset(&b.children))
        })
    }

    pub(super) fn get(&self, element: &PathElement) -> Option<&Node> {
        self.nodes
            .binary_search_by(|n| n.element.cmp(element))
            .ok()
            .map(|at| &self.nodes[at])
    }

    pub(super) fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    pub(super) fn node(&mut self, element: &PathElement) -> &mut Node {
        let at = match self.nodes.binary_search_by(|n| n.element.cmp(element)) {
            Ok(at) => at,
            Err(at) => {
                let node = Node {
                    element: element.clone(),
                    member: false,
                    children: Self::EMPTY,
                };
                self.nodes.insert(at, node);
                at
            }
        };
        &mut self.nodes[at]
    }

    /// Adds a subtree; nothing when it is empty.
    pub(super) fn attach(&mut self, element: PathElement, member: bool, children: FieldSet) {
        if !member && children.nodes.is_empty() {
            return;
        }
        let last = self
            .nodes
            .last()
            .map_or(Ordering::Less, |n| n.element.cmp(&element));
        if last.is_lt() {
            self.nodes.push(Node {
                element,
                member,
                children,
            });
            return;
        }
        let node = self.node(&element);
        node.member |= member;
        if node.children.nodes.is_empty() {
            node.children = children;
        } else {
            node.children = node.children.union(&children);
        }
    }

    #[allow(clippy::many_single_char_names)] // two lists in step
    /// Walks both sets in step; `f` gets the nodes of one element, at least one of them, and says what stays.
    fn zip(&self, other: &Self, f: impl Fn(Option<&Node>, Option<&Node>) -> Option<Node>) -> Self {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let (mut i, mut j) = (0, 0);
        loop {
            let kept = match (self.nodes.get(i), other.nodes.get(j)) {
                (None, None) => break,
                (Some(a), None) => {
                    i += 1;
                    f(Some(a), None)
                }
                (None, Some(b)) => {
                    j += 1;
                    f(None, Some(b))
                }
                (Some(a), Some(b)) => match a.element.cmp(&b.element) {
                    Ordering::Less => {
                        i += 1;
                        f(Some(a), None)
                    }
                    Ordering::Greater => {
                        j += 1;
                        f(None, Some(b))
                    }
                    Ordering::Equal => {
                        i += 1;
                        j += 1;
                        f(Some(a), Some(b))
                    }
                },
            };
            nodes.extend(kept.filter(|n| !n.is_empty()));
        }
        Self { nodes }
    }

    /// Fields in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| match (a, b) {
            (Some(a), Some(b)) => Some(Node {
                element: a.element.clone(),
                member: a.member || b.member,
                children: a.children.union(&b.children),
            }),
            (a, b) => a.or(b).cloned(),
        })
    }

    /// Fields in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| {
            let (a, b) = (a?, b?);
            Some(Node {
                element: a.element.clone(),
                member: a.member && b.member,
                children: a.children.intersection(&b.children),
            })
        })
    }

    /// Fields of this set that are not in the other. A child stays when only its parent is in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |a, b| {
            let a = a?;
            let Some(b) = b else { return Some(a.clone()) };
            Some(Node {
                element: a.element.clone(),
                member: a.member && !b.member,
                children: a.children.difference(&b.children),
            })
        })
    }

    /// Fields of this set that are neither in the other nor below a field of it.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        if other.nodes.is_empty() {
            return self.clone();
        }
        self.zip(other, |a, b| {
            let a = a?;
            let Some(b) = b else { return Some(a.clone()) };
            if b.member {
                return None;
            }
            Some(Node {
                element: a.element.clone(),
                member: a.member,
                children: a.children.recursive_difference(&b.children),
            })
        })
    }

    /// Fields that have no field of the set below them.
    #[must_use]
    pub fn leaves(&self) -> Self {
        let nodes = self
            .nodes
            .iter()
            .map(|n| Node {
                element: n.element.clone(),
                member: n.member && n.children.is_empty(),
                children: n.children.leaves(),
            })
            .filter(|n| !n.is_empty())
            .collect();
        Self { nodes }
    }

    /// Calls `f` for each field: those of a level first, then what is below them (kube-apiserver lists conflicts so).
    pub fn each(&self, f: &mut impl FnMut(&Path)) {
        self.each_below(&mut Vec::new(), f);
    }

    fn each_below(&self, path: &mut Vec<PathElement>, f: &mut impl FnMut(&Path)) {
        for node in self.nodes.iter().filter(|n| n.member) {
            path.push(node.element.clone());
            f(path);
            path.pop();
        }
        for node in self.nodes.iter().filter(|n| !n.children.nodes.is_empty()) {
            path.push(node.element.clone());
            node.children.each_below(path, f);
            path.pop();
        }
    }

    /// As fieldsV1.
    pub fn encode(&self) -> Value {
        let mut map = Map::new();
        for node in self.nodes.iter().filter(|n| !n.is_empty()) {
            let mut child = node.children.encode();
            if node.member
                && let Value::Object(fields) = &mut child
                && !fields.is_empty()
            {
                fields.insert(".".into(), Value::Object(Map::new()));
            }
            map.insert(node.element.encode(), child);
        }
        Value::Object(map)
    }

    /// From fieldsV1; says what can not be read.
    pub fn decode(fields: &Value) -> Result<Self, String> {
        Ok(Self::decode_node(fields)?.1)
    }

    fn decode_node(fields: &Value) -> Result<(bool, Self), String> {
        let Value::Object(map) = fields else {
            return Err(format!("expected an object of fields, got {fields}"));
        };
        let mut set = Self {
            nodes: Vec::with_capacity(map.len()),
        };
        let mut dot = false;
        for (key, below) in map {
            if key == "." {
                dot = true;
                continue;
            }
            let Some(element) = PathElement::decode(key)? else {
                continue;
            };
            let (member, children) = Self::decode_node(below)?;
            set.attach(element, member, children);
        }
        Ok((dot || map.is_empty(), set))
    }
}
