//! What a change added, removed and modified, field by field.

use super::fieldset::FieldSet;
use super::path::{PathElement, same};
use super::typed::{List, Shape, Ty};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The difference between two objects; no field is in two of the sets.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) added: FieldSet,
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
}

impl Difference {
    /// Compares two objects of one type.
    pub(super) fn of(ty: Ty<'_>, old: &Value, new: &Value) -> Self {
        let mut change = Change::default();
        change.compare(ty, Some(old), Some(new));
        let [added, removed, modified] = change.marks.map(|m| m.children);
        Self {
            added,
            removed,
            modified,
        }
    }

    /// Leaves out everything in or below these fields.
    pub(super) fn without(self, fields: &FieldSet) -> Self {
        if fields.is_empty() {
            return self;
        }
        Self {
            added: self.added.recursive_difference(fields),
            removed: self.removed.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
        }
    }

    /// What was added or modified.
    pub(super) fn touched(&self) -> FieldSet {
        self.modified.union(&self.added)
    }
}

const ADDED: usize = 0;
const REMOVED: usize = 1;
const MODIFIED: usize = 2;

#[derive(Default)]
struct Mark {
    member: bool,
    children: FieldSet,
}

/// One place of the comparison, for each of the three sets.
#[derive(Default)]
struct Change {
    marks: [Mark; 3],
}

impl Change {
    fn attach(&mut self, element: &PathElement, child: Self) {
        for (mark, below) in self.marks.iter_mut().zip(child.marks) {
            if below.member || !below.children.is_empty() {
                mark.children
                    .attach(element.clone(), below.member, below.children);
            }
        }
    }

    /// `None` is a value that is not there; at most one of the two is `None`.
    fn compare(&mut self, ty: Ty<'_>, old: Option<&Value>, new: Option<&Value>) {
        if let (Some(old), Some(new)) = (old, new)
            && old == new
        {
            return;
        }
        let leaf = match (old.map(|v| ty.shape(v)), new.map(|v| ty.shape(v))) {
            (None, None) => return,
            (Some(shape), None) | (None, Some(shape)) => self.visit(&shape, old, new),
            (Some(left), Some(right)) => {
                // A place of any type may hold a map before and a scalar after: both are looked at.
                if std::mem::discriminant(&left) != std::mem::discriminant(&right) {
                    self.visit(&left, old, new);
                }
                self.visit(&right, old, new)
            }
        };
        if !leaf && old.is_none() {
            self.marks[ADDED].member = true;
        } else if !leaf && new.is_none() {
            self.marks[REMOVED].member = true;
        }
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) -> bool {
        match (old, new) {
            (None, _) => self.marks[ADDED].member = true,
            (_, None) => self.marks[REMOVED].member = true,
            (Some(old), Some(new)) if !same(old, new) => self.marks[MODIFIED].member = true,
            _ => {}
        }
        true
    }

    /// Whether the place is a leaf. Two empty maps or lists are: empty and null differ.
    fn visit(&mut self, shape: &Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> bool {
        match shape {
            Shape::Scalar(_) => self.leaf(old, new),
            Shape::List(list) => {
                let (l, r) = (items(old), items(new));
                if list.is_atomic() || (l.is_empty() && r.is_empty()) {
                    return self.leaf(old, new);
                }
                self.compare_items(list, l, r);
                false
            }
            Shape::Map(map) => {
                let empty = Map::new();
                let l = old.and_then(Value::as_object).unwrap_or(&empty);
                let r = new.and_then(Value::as_object).unwrap_or(&empty);
                if map.atomic || (l.is_empty() && r.is_empty()) {
                    return self.leaf(old, new);
                }
                let names = l.keys().chain(r.keys().filter(|k| !l.contains_key(*k)));
                for name in names.filter(|n| !map.skips(n)) {
                    let mut child = Change::default();
                    child.compare(map.field(name).ty(), l.get(name), r.get(name));
                    self.attach(&PathElement::field(name), child);
                }
                false
            }
        }
    }

    fn compare_items(&mut self, list: &List<'_>, old: &[Value], new: &[Value]) {
        let mut both: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for item in old {
            if let Ok(element) = list.element(item) {
                both.entry(element).or_default().0.push(item);
            }
        }
        for item in new {
            if let Ok(element) = list.element(item) {
                both.entry(element).or_default().1.push(item);
            }
        }
        for (element, (old, new)) in both {
            let mut child = Change::default();
            match (old.len(), new.len()) {
                (0 | 1, 0 | 1) => child.compare(list.items, old.first().copied(), new.first().copied()),
                // Items that are there several times count as one piece, which is what others own of them.
                (2.., 2..) => {
                    let equal = old.len() == new.len() && old.iter().zip(&new).all(|(a, b)| same(a, b));
                    child.marks[MODIFIED].member = !equal;
                }
                (2.., _) => {
                    if let Some(item) = new.first() {
                        child.compare(list.items, None, Some(item));
                    }
                    child.marks[REMOVED].member = true;
                }
                (_, 2..) => {
                    if let Some(item) = old.first() {
                        child.compare(list.items, Some(item), None);
                    }
                    child.marks[ADDED].member = true;
                }
            }
            self.attach(&element, child);
        }
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    match value {
        Some(Value::Array(items)) => items,
        _ => &[],
    }
}
