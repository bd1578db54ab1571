//! Putting a configuration into an object, and taking fields out of one.

use super::fieldset::FieldSet;
use super::path::PathElement;
use super::typed::{List, Shape, Ty};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The object with the configuration's fields set. Leaves come from the configuration, maps and keyed lists are joined.
pub(super) fn merge(ty: Ty<'_>, live: &Value, config: &Value) -> Value {
    match ty.shape(config) {
        Shape::Scalar(_) => config.clone(),
        Shape::List(list) => {
            let (l, r) = (live.as_array(), config.as_array());
            match (l.map_or(&[][..], Vec::as_slice), r.map_or(&[][..], Vec::as_slice)) {
                _ if list.is_atomic() => config.clone(),
                (_, []) if l.is_none_or(Vec::is_empty) => config.clone(),
                (l, []) => Value::Array(l.to_vec()),
                ([], _) => config.clone(),
                (l, r) => Value::Array(merge_items(&list, l, r)),
            }
        }
        Shape::Map(map) => {
            let (l, r) = (live.as_object(), config.as_object());
            match (l, r) {
                _ if map.atomic => config.clone(),
                (Some(l), None) if !l.is_empty() => Value::Object(l.clone()),
                (Some(l), Some(r)) if !l.is_empty() => {
                    let mut merged = Map::new();
                    for (name, value) in l.iter().filter(|(n, _)| !map.skips(n)) {
                        let value = match r.get(name) {
                            Some(config) => merge(map.field(name).ty(), value, config),
                            None => value.clone(),
                        };
                        merged.insert(name.clone(), value);
                    }
                    for (name, value) in r.iter().filter(|(n, _)| !l.contains_key(*n)) {
                        merged.insert(name.clone(), value.clone());
                    }
                    Value::Object(merged)
                }
                _ => config.clone(),
            }
        }
    }
}

/// Joins keyed lists: shared items come in the configuration's order, the live list's own items stay before the shared
/// item they stood before.
fn merge_items(list: &List<'_>, live: &[Value], config: &[Value]) -> Vec<Value> {
    let keys = |items: &[Value]| items.iter().map(|i| list.element(i).ok()).collect::<Vec<_>>();
    let (left, right) = (keys(live), keys(config));
    let mut of_left: BTreeMap<&PathElement, Option<&Value>> = BTreeMap::new();
    for (key, item) in left.iter().zip(live) {
        let Some(key) = key else { continue };
        // What is there several times is replaced, not merged.
        of_left.entry(key).and_modify(|v| *v = None).or_insert(Some(item));
    }
    let of_right: BTreeSet<&PathElement> = right.iter().flatten().collect();
    let mut shared = right.iter().flatten().filter(|key| of_left.contains_key(key));
    let mut next = shared.next();
    let join =
        |key: Option<&PathElement>, item: &Value| match key.and_then(|k| of_left.get(k).copied().flatten()) {
            Some(old) => merge(list.items, old, item),
            None => item.clone(),
        };
    let mut done: BTreeSet<&PathElement> = BTreeSet::new();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut r) = (0, 0);
    while l < live.len() || r < config.len() {
        let common = left
            .get(l)
            .and_then(Option::as_ref)
            .filter(|key| of_right.contains(*key));
        if l < live.len() && common.is_none() {
            out.push(live[l].clone());
            l += 1;
            continue;
        }
        if let Some(key) = common {
            let here = right.get(r).and_then(Option::as_ref);
            if here == Some(key) {
                l += 1;
            } else if r < config.len() && next.is_some_and(|n| n != key) {
                // The configuration wants it elsewhere.
                l += 1;
                continue;
            } else if done.contains(key) {
                l += 1;
            }
        }
        if let Some(item) = config.get(r) {
            let key = right[r].as_ref();
            out.push(join(key, item));
            done.extend(key);
            if key.is_some() && key == next {
                next = shared.next();
            }
            r += 1;
        }
    }
    out
}

/// The value without these fields. A map or list that loses all its fields and is not itself taken out stays, empty.
pub(super) fn remove(ty: Ty<'_>, value: &Value, fields: &FieldSet) -> Value {
    if fields.is_empty() {
        return value.clone();
    }
    match (ty.shape(value), value) {
        (Shape::List(list), Value::Array(items)) if !list.is_atomic() => {
            let keep = |item: &Value| match list.element(item).ok().and_then(|e| fields.get(&e)) {
                Some(node) if node.member => None,
                Some(node) => Some(remove(list.items, item, &node.children)),
                None => Some(item.clone()),
            };
            Value::Array(items.iter().filter_map(keep).collect())
        }
        (Shape::Map(map), Value::Object(entries)) if !map.atomic => {
            let mut kept = Map::new();
            for (name, value) in entries {
                match fields.get(&PathElement::field(name)) {
                    Some(node) if node.member => {}
                    Some(node) => {
                        kept.insert(name.clone(), remove(map.field(name).ty(), value, &node.children));
                    }
                    None => {
                        kept.insert(name.clone(), value.clone());
                    }
                }
            }
            Value::Object(kept)
        }
        _ => value.clone(),
    }
}
