//! Strategic merge patch: like a merge patch, but lists merge by key and `$` directives delete, replace and order.

use super::fit::go_plain;
use super::json::unprocessable;
use super::path::{compare_values, same};
use super::typed::resolve;
use crate::ApiError;
use crate::schema::{Ref, Schema};
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const ELEMENT_ORDER: &str = "$setElementOrder";

const BAD_PRIMITIVE_LIST: &str = "invalid patch format of primitive list";
const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";
const BAD_ELEMENT_ORDER: &str = "invalid patch format of setElementOrder list";

type Fields = Map<String, Value>;

/// Applies a strategic merge patch. A patch in the wrong form is a 400, lists of lists a 422.
pub fn strategic_merge(schema: &Schema, object: &Value, patch: &Value) -> Result<Value, ApiError> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(ApiError::BadRequest("invalid JSON document".into()));
    };
    merge_map(Some(schema), object.clone(), patch.clone()).map(Value::Object)
}

fn bad_request(message: &str) -> ApiError {
    ApiError::BadRequest(message.into())
}

/// The schema of a field; `None` where nothing is known.
fn field<'a>(schema: Option<&'a Schema>, name: &str) -> Option<&'a Schema> {
    let schema = schema?;
    let r: &Ref = schema.properties.get(name).or(schema.additional.as_ref())?;
    resolve(r)
}

fn items(schema: Option<&Schema>) -> Option<&Schema> {
    resolve(schema?.items.as_ref()?)
}

fn strategy(schema: Option<&Schema>, wanted: &str) -> bool {
    schema
        .and_then(|s| s.patch_strategy.as_deref())
        .is_some_and(|s| s.split(',').any(|part| part == wanted))
}

fn merge_key(schema: Option<&Schema>) -> &str {
    schema
        .and_then(|s| s.patch_merge_key.as_deref())
        .unwrap_or_default()
}

fn merge_map(schema: Option<&Schema>, mut old: Fields, mut patch: Fields) -> Result<Fields, ApiError> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Fields::new()),
            _ => Err(unknown_directive(&directive, patch)),
        };
    }
    retain_keys(&mut old, &mut patch)?;
    order_lists(schema, &mut old, &mut patch)?;
    for (name, mut value) in patch {
        if let Some(rest) = name.strip_prefix(DELETE_FROM) {
            let list = rest
                .strip_prefix('/')
                .ok_or_else(|| bad_request(BAD_PRIMITIVE_LIST))?;
            let Value::Array(gone) = value else {
                return Err(bad_request(BAD_PRIMITIVE_LIST));
            };
            if let Some(Value::Array(kept)) = old.get_mut(list) {
                let gone = Places::of(&gone, "");
                kept.retain(|v| gone.find(v).is_none());
            }
            continue;
        }
        if value.is_null() {
            old.remove(&name);
            continue;
        }
        let below = field(schema, &name);
        let merged = match (old.remove(&name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                if strategy(below, "replace") {
                    Some(Value::Object(new))
                } else {
                    Some(Value::Object(merge_map(below, old, new)?))
                }
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                if strategy(below, "merge") {
                    Some(Value::Array(merge_list(below, old, new)?))
                } else {
                    Some(Value::Array(new))
                }
            }
            (_, new) => {
                value = new;
                drop_nulls(&mut value);
                without_directives(value)
            }
        };
        if let Some(merged) = merged {
            old.insert(name, merged);
        }
    }
    Ok(old)
}

fn unknown_directive(directive: &Value, mut map: Fields) -> ApiError {
    map.insert(PATCH.into(), directive.clone());
    let map = go_plain(&Value::Object(map));
    ApiError::Plain(format!(
        "unknown patch type: {} in map: {map}",
        go_plain(directive)
    ))
}

fn no_merge_key(item: &Fields, key: &str) -> ApiError {
    let map = go_plain(&Value::Object(item.clone()));
    ApiError::Plain(format!("map: {map} does not contain declared merge key: {key}"))
}

/// `$retainKeys`: of the old fields only these stay; the patch may set no others.
fn retain_keys(old: &mut Fields, patch: &mut Fields) -> Result<(), ApiError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(keys) = keys else {
        return Err(bad_request(BAD_RETAIN_KEYS));
    };
    let keys: BTreeSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let retained = |name: &str| keys.contains(name);
    let foreign = patch.iter().any(|(name, value)| {
        !value.is_null()
            && !name.starts_with(DELETE_FROM)
            && !name.starts_with(ELEMENT_ORDER)
            && !retained(name)
    });
    if foreign {
        return Err(bad_request(BAD_RETAIN_KEYS));
    }
    old.retain(|name, _| retained(name));
    Ok(())
}

/// `$setElementOrder/<list>`: merges the list and puts it in this order, items only the server has stay in place.
fn order_lists(schema: Option<&Schema>, old: &mut Fields, patch: &mut Fields) -> Result<(), ApiError> {
    let names: Vec<String> = patch
        .keys()
        .filter(|k| k.starts_with(ELEMENT_ORDER))
        .cloned()
        .collect();
    for name in names {
        let Some(list) = name
            .strip_prefix(ELEMENT_ORDER)
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            return Err(bad_request(BAD_ELEMENT_ORDER));
        };
        let Some(Value::Array(order)) = patch.remove(&name) else {
            return Err(bad_request(BAD_ELEMENT_ORDER));
        };
        let list_of = |value: Option<Value>| match value {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(bad_request(BAD_ELEMENT_ORDER)),
        };
        let (new, before) = (list_of(patch.remove(list))?, list_of(old.get(list).cloned())?);
        let below = field(schema, list);
        let key = merge_key(below);
        check_order(new.as_deref().unwrap_or_default(), &order, key)?;
        let server = before.clone().unwrap_or_default();
        let merged = match (before, new) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(new)) => match without_directives(Value::Array(new)) {
                Some(Value::Array(items)) => items,
                _ => continue,
            },
            (Some(before), Some(new)) if strategy(below, "merge") => merge_list(below, before, new)?,
            (Some(_), Some(new)) => new,
        };
        old.insert(
            list.to_owned(),
            Value::Array(arrange(merged, &order, &server, key)?),
        );
    }
    Ok(())
}

/// The patch's items must come in the order the directive gives.
fn check_order(patch: &[Value], order: &[Value], key: &str) -> Result<(), ApiError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut left = order.iter();
    for item in patch.iter().filter(|i| i.get(PATCH).is_none()) {
        if !left.any(|o| same_item(o, item, key)) {
            let (patch, order) = (Value::Array(patch.to_vec()), Value::Array(order.to_vec()));
            return Err(ApiError::Plain(format!(
                "The order in patch list:\n{}\n doesn't match {ELEMENT_ORDER} list:\n{}\n",
                go_plain(&patch),
                go_plain(&order)
            )));
        }
    }
    Ok(())
}

/// What tells an item of a list from others: the value of its key, or the item itself where there is no key.
fn identity<'a>(item: &'a Value, key: &str) -> Option<&'a Value> {
    if key.is_empty() { Some(item) } else { item.get(key) }
}

fn same_item(a: &Value, b: &Value, key: &str) -> bool {
    match (identity(a, key), identity(b, key)) {
        (Some(a), Some(b)) => same(a, b),
        _ => false,
    }
}

/// A value that can be looked up by what it means.
struct Meaning<'a>(&'a Value);

impl Ord for Meaning<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_values(self.0, other.0)
    }
}

impl PartialOrd for Meaning<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Meaning<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Meaning<'_> {}

/// Where the items of a list are, each by its first place.
struct Places<'a> {
    key: &'a str,
    first: BTreeMap<Meaning<'a>, usize>,
}

impl<'a> Places<'a> {
    fn of(items: &'a [Value], key: &'a str) -> Self {
        let mut first = BTreeMap::new();
        for (at, item) in items.iter().enumerate() {
            if let Some(identity) = identity(item, key) {
                first.entry(Meaning(identity)).or_insert(at);
            }
        }
        Self { key, first }
    }

    fn find(&self, item: &Value) -> Option<usize> {
        self.first.get(&Meaning(identity(item, self.key)?)).copied()
    }
}

fn merge_list(schema: Option<&Schema>, old: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    if old.iter().chain(&patch).any(Value::is_array) {
        return Err(unprocessable());
    }
    let maps = old.iter().chain(&patch).filter(|v| v.is_object()).count();
    if maps != 0 && maps != old.len() + patch.len() {
        let lists = Value::Array(vec![Value::Array(old), Value::Array(patch)]);
        return Err(ApiError::Plain(format!(
            "list element types are not identical: {}",
            go_plain(&lists)
        )));
    }
    let key = merge_key(schema);
    if maps == 0 {
        let mut met = BTreeSet::new();
        let all = old.iter().chain(&patch).filter(|v| met.insert(Meaning(v)));
        let merged: Vec<Value> = all.cloned().collect();
        return arrange(merged, &patch, &old, "");
    }
    if key.is_empty() {
        return Err(ApiError::Plain("cannot merge lists without merge key".into()));
    }
    let (mut old, patch) = list_directives(old, patch, key)?;
    let server = old.clone();
    let places = Places::of(&server, key);
    // Items the patch brings, for a patch that names one twice.
    let mut brought: BTreeMap<Meaning<'_>, usize> = BTreeMap::new();
    for item in &patch {
        let Value::Object(fields) = item else { continue };
        if !fields.contains_key(key) {
            return Err(no_merge_key(fields, key));
        }
        let known = identity(item, key).map(Meaning);
        let there = places
            .find(item)
            .or_else(|| brought.get(known.as_ref()?).copied());
        if let Some(slot) = there.and_then(|at| old.get_mut(at)) {
            if let Value::Object(before) = std::mem::take(slot) {
                *slot = Value::Object(merge_map(items(schema), before, fields.clone())?);
            }
        } else {
            let mut item = item.clone();
            drop_nulls(&mut item);
            if let (Some(item), Some(known)) = (without_directives(item), known) {
                brought.insert(known, old.len());
                old.push(item);
            }
        }
    }
    arrange(old, &patch, &server, key)
}

/// Carries out the `$patch` items of a list: what is left of the list, and what is left of the patch.
fn list_directives(
    mut old: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), ApiError> {
    let mut left = Vec::with_capacity(patch.len());
    let mut gone = Vec::new();
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(PATCH) else {
            left.push(item);
            continue;
        };
        match (directive.as_str(), item.as_object()) {
            (Some("replace"), _) => replace = true,
            (Some("delete"), Some(fields)) if !fields.contains_key(key) => {
                return Err(no_merge_key(fields, key));
            }
            (Some("delete"), _) => gone.push(item),
            (Some("merge"), _) => {
                return Err(ApiError::Plain(
                    "merging lists cannot yet be specified in the patch".into(),
                ));
            }
            (_, fields) => return Err(unknown_directive(directive, fields.cloned().unwrap_or_default())),
        }
    }
    if replace {
        return Ok((left, Vec::new()));
    }
    let gone = Places::of(&gone, key);
    old.retain(|o| gone.find(o).is_none());
    Ok((old, left))
}

/// Puts the items `order` names in that order, and the others, in the server's order, before the named item they stood
/// before; named items come first where nothing is known.
fn arrange(merged: Vec<Value>, order: &[Value], server: &[Value], key: &str) -> Result<Vec<Value>, ApiError> {
    if let Some(Value::Object(item)) = merged.iter().find(|m| !key.is_empty() && m.get(key).is_none()) {
        return Err(no_merge_key(item, key));
    }
    let (order, server) = (Places::of(order, key), Places::of(server, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| order.find(item).is_some());
    named.sort_by_cached_key(|item| order.find(item));
    others.sort_by_cached_key(|item| server.find(item).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return Ok(out),
            (other, None) => other.is_some(),
            (None, _) => false,
            (Some(other), Some(item)) => match (server.find(other), server.find(item)) {
                (Some(a), Some(b)) => a < b,
                _ => false,
            },
        };
        out.extend(if other_first { others.next() } else { named.next() });
    }
}

/// A patch's value where the object has none: without directives, `None` when it is nothing but one.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(PATCH) => None,
        Value::Object(fields) => Some(Value::Object(
            fields
                .into_iter()
                .filter_map(|(name, v)| Some((name, without_directives(v)?)))
                .collect(),
        )),
        Value::Array(items) => Some(Value::Array(
            items.into_iter().filter_map(without_directives).collect(),
        )),
        other => Some(other),
    }
}

/// Nulls delete; where there is nothing to delete they are nothing.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, v| !v.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
