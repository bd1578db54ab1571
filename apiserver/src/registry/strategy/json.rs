//! Small reads and writes on objects known only as JSON, shared by the strategies.

use serde_json::{Map, Value};

/// Sets `key` unless it has a value already. Does nothing on what is not an object.
pub(super) fn default(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Value::Object(map) = object
        && map.get(key).is_none_or(Value::is_null)
    {
        map.insert(key.to_owned(), value.into());
    }
}

/// Removes `key`.
pub(super) fn remove(object: &mut Value, key: &str) {
    if let Value::Object(map) = object {
        map.remove(key);
    }
}

/// The value at `key` when it is an object or list.
pub(super) fn at<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    object
        .as_object_mut()?
        .get_mut(key)
        .filter(|v| v.is_object() || v.is_array())
}

/// The object at `key`, made when absent; `None` when `object` itself is none.
pub(super) fn made<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    let slot = object.as_object_mut()?.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot.is_object().then_some(slot)
}

/// Items of the list at `key`, to change.
pub(super) fn each<'a>(object: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    object
        .as_object_mut()
        .and_then(|m| m.get_mut(key))
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Items of the list at `key`.
pub(super) fn items<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    object[key].as_array().into_iter().flatten()
}

/// Text at `key`, `""` when absent.
pub(super) fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_default()
}

/// Copies `key` from `from` to `to`, or removes it there when `from` has none.
pub(super) fn copy(from: &Value, to: &mut Value, key: &str) {
    match from.get(key) {
        Some(value) if to.is_object() => to[key] = value.clone(),
        _ => remove(to, key),
    }
}

/// Whether two values are the same to Kubernetes: absent, null, `{}` and `[]` are one.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    fn empty(v: &Value) -> bool {
        match v {
            Value::Null => true,
            Value::Array(a) => a.is_empty(),
            Value::Object(m) => m.values().all(empty),
            _ => false,
        }
    }
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(k, v)| same(v, y.get(k).unwrap_or(&Value::Null)))
                && y.iter().all(|(k, v)| x.contains_key(k) || empty(v))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(p, q)| same(p, q)),
        _ => a == b || (empty(a) && empty(b)),
    }
}
