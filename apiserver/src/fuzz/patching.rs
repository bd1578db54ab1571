//! JSON Patch, merge patch and strategic merge patch against models that share no code with them.

use super::{Outcome, any_json, any_text, fuzz, json_of};
use crate::patch::{json_patch, merge_patch, strategic_merge};
use crate::schema::{Schema, builtin};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::strategy::BoxedStrategy;
use serde_json::{Map, Value, json};

fn without_nulls(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            for v in map.values_mut() {
                *v = without_nulls(v.take());
            }
        }
        // Nulls in lists are values like others.
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    value
}

/// The merge patch from one value to another; there is always one where the other has no null fields.
fn merge_diff(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let mut patch = Map::new();
    for name in from.keys().filter(|n| !to.contains_key(*n)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in to {
        match from.get(name) {
            Some(old) if old == value => {}
            Some(old @ Value::Object(_)) if value.is_object() => {
                patch.insert(name.clone(), merge_diff(old, value));
            }
            // An object in place of something else is merged into nothing.
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

#[test]
fn merge_patches() {
    fuzz(
        "merge patch",
        &(any_json(), any_json(), any_json()),
        |(object, patch, other)| {
            let merged = merge_patch(&object, &patch);
            // RFC 7386 as another implementation has it.
            let mut expected = object.clone();
            ::json_patch::merge(&mut expected, &patch);
            prop_assert_eq!(&merged, &expected);
            prop_assert_eq!(&merge_patch(&merged, &patch), &merged, "twice is as once");
            let target = without_nulls(other);
            let patch = merge_diff(&object, &target);
            prop_assert_eq!(merge_patch(&object, &patch), target, "by {}", patch);
            Ok(())
        },
    );
}

/// RFC 6902 as Kubernetes has it, over a tree walked by hand; `None` where the patch can not be carried out.
mod model {
    use serde_json::Value;

    fn parts(pointer: &str) -> Option<Vec<String>> {
        if pointer.is_empty() {
            return Some(Vec::new());
        }
        let rest = pointer.strip_prefix('/')?;
        Some(
            rest.split('/')
                .map(|p| p.replace("~1", "/").replace("~0", "~"))
                .collect(),
        )
    }

    fn index(text: &str, below: usize) -> Option<usize> {
        // As Go reads it, and from the end where it is negative.
        let n: i64 = text.parse().ok()?;
        let n = if n < 0 { n + i64::try_from(below).ok()? } else { n };
        usize::try_from(n).ok().filter(|n| *n < below)
    }

    fn look<'a>(value: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
        path.iter().try_fold(value, |at, part| match at {
            Value::Object(map) => map.get_mut(part),
            Value::Array(list) => index(part, list.len()).and_then(|i| list.get_mut(i)),
            _ => None,
        })
    }

    fn add(root: &mut Value, path: &[String], value: Value) -> Option<()> {
        let Some((last, above)) = path.split_last() else {
            *root = value;
            return Some(());
        };
        match look(root, above)? {
            Value::Object(map) => {
                map.insert(last.clone(), value);
            }
            Value::Array(list) if last == "-" => list.push(value),
            Value::Array(list) => list.insert(index(last, list.len() + 1)?, value),
            _ => return None,
        }
        Some(())
    }

    fn remove(root: &mut Value, path: &[String]) -> Option<Value> {
        let Some((last, above)) = path.split_last() else {
            // What is left of nothing is nothing an object can be.
            return None;
        };
        match look(root, above)? {
            Value::Object(map) => map.remove(last),
            Value::Array(list) => Some(list.remove(index(last, list.len())?)),
            _ => None,
        }
    }

    pub(super) fn patch(object: &Value, operations: &[Value]) -> Option<Value> {
        let mut object = object.clone();
        for operation in operations {
            let path = parts(operation["path"].as_str()?)?;
            let from = || parts(operation["from"].as_str()?);
            match operation["op"].as_str()? {
                "add" => add(&mut object, &path, operation["value"].clone())?,
                "remove" => drop(remove(&mut object, &path)?),
                "replace" => {
                    let value = operation["value"].clone();
                    if let Some(at) = look(&mut object, &path) {
                        *at = value;
                    } else {
                        // Kubernetes' library adds the field that is missing.
                        let (_, above) = path.split_last()?;
                        look(&mut object, above)?.is_object().then_some(())?;
                        add(&mut object, &path, value)?;
                    }
                }
                "test" => {
                    let there = look(&mut object, &path).cloned();
                    let there = there.or_else(|| {
                        // To Kubernetes' library a field that is missing is one that is null.
                        let (_, above) = path.split_last()?;
                        look(&mut object, above)?.is_object().then_some(Value::Null)
                    });
                    (there? == operation["value"]).then_some(())?;
                }
                "copy" => {
                    let value = look(&mut object, &from()?)?.clone();
                    add(&mut object, &path, value)?;
                }
                "move" => {
                    let from = from()?;
                    let value = remove(&mut object, &from)?;
                    add(&mut object, &path, value)?;
                }
                _ => return None,
            }
        }
        Some(object)
    }
}

fn pointer() -> BoxedStrategy<String> {
    let part = prop_oneof![
        4 => "[a-c]{0,2}",
        2 => "[0-4]",
        1 => Just("-".to_owned()),
        1 => prop::sample::select(vec!["~0", "~1", "00", "01", "-1", "+1", "é"]).prop_map(String::from),
    ];
    vec(part, 0..4)
        .prop_map(|parts| parts.into_iter().fold(String::new(), |p, part| p + "/" + &part))
        .boxed()
}

fn operation() -> BoxedStrategy<Value> {
    let op = prop::sample::select(vec!["add", "add", "remove", "replace", "test", "copy", "move"]);
    (op, pointer(), pointer(), any_json())
        .prop_map(|(op, path, from, value)| match op {
            "remove" => json!({"op": op, "path": path}),
            "copy" | "move" => json!({"op": op, "path": path, "from": from}),
            _ => json!({"op": op, "path": path, "value": value}),
        })
        .boxed()
}

#[test]
fn json_patches() {
    fuzz(
        "JSON patch",
        &(any_json(), vec(operation(), 0..5)),
        |(object, operations)| {
            let expected = model::patch(&object, &operations).filter(|v| v.is_object() || v.is_array());
            let body = Value::Array(operations).to_string();
            let patched = json_patch(&object, body.as_bytes()).ok();
            prop_assert_eq!(patched, expected);
            Ok(())
        },
    );
}

#[test]
fn anything_as_a_patch() {
    let names = prop_oneof![
        4 => any_text(),
        2 => prop::sample::select(vec![
            "$patch", "$retainKeys", "$setElementOrder/ports", "$deleteFromPrimitiveList/finalizers", "spec", "metadata",
            "finalizers", "ports", "template", "containers", "name", "port", "labels", "replace", "merge", "delete",
            "op", "path", "value", "from", "data", "managedFields", "ownerReferences", "uid", "strategy", "type",
        ])
        .prop_map(String::from),
    ]
    .boxed();
    let json = json_of(names);
    fuzz("anything as a patch", &(json.clone(), json), |(object, patch)| {
        let _ = json_patch(&object, patch.to_string().as_bytes());
        let _ = merge_patch(&object, &patch);
        for schema in [
            kind("apps", "Deployment"),
            kind("", "Service"),
            kind("", "ConfigMap"),
        ] {
            if let Ok(merged) = strategic_merge(schema, &object, &patch) {
                prop_assert!(merged.is_object());
            }
        }
        Ok(())
    });
}

fn kind(group: &str, kind: &str) -> &'static Schema {
    builtin::for_gvk(group, "v1", kind).unwrap()
}

/// Pods with a list of each kind of merging: containers by name, ports by number, environment by name, finalizers as
/// values, tolerations as a whole, labels as a map.
fn pod() -> BoxedStrategy<Value> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(String::from);
    let env = btree_map(name(), name(), 0..4).prop_map(|m| {
        m.into_iter()
            .map(|(k, v)| json!({"name": k, "value": v}))
            .collect::<Vec<_>>()
    });
    let ports = btree_map(80..83_i64, name(), 0..3).prop_map(|m| {
        m.into_iter()
            .map(|(p, n)| json!({"containerPort": p, "name": n}))
            .collect::<Vec<_>>()
    });
    let container = (name(), env, ports, prop::option::of(name())).prop_map(|(image, env, ports, dir)| {
        let mut c = json!({"image": image, "env": env, "ports": ports});
        if let Some(dir) = dir {
            c["workingDir"] = dir.into();
        }
        c
    });
    let containers = btree_map(name(), container, 1..4).prop_map(|m| {
        let with_name = |(name, mut c): (String, Value)| {
            c["name"] = name.into();
            c
        };
        m.into_iter().map(with_name).collect::<Vec<_>>()
    });
    let labels = btree_map(name(), name(), 0..3);
    let finalizers = btree_set(name(), 0..3);
    let tolerations = vec(name().prop_map(|k| json!({"key": k})), 0..3);
    (labels, finalizers, containers, tolerations)
        .prop_map(|(labels, finalizers, containers, tolerations)| {
            json!({"metadata": {"labels": labels, "finalizers": finalizers},
                "spec": {"containers": containers, "tolerations": tolerations}})
        })
        .boxed()
}

/// Key of the lists that pods above have, `None` for lists that are replaced; `""` for lists of values.
fn key_of(name: &str) -> Option<&'static str> {
    match name {
        "containers" | "env" => Some("name"),
        "ports" => Some("containerPort"),
        "finalizers" => Some(""),
        _ => None,
    }
}

/// The strategic merge patch from one to another, as a client makes it.
fn strategic_diff(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let mut patch = Map::new();
    for name in from.keys().filter(|n| !to.contains_key(*n)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in to {
        let Some(old) = from.get(name) else {
            patch.insert(name.clone(), value.clone());
            continue;
        };
        if old == value {
            continue;
        }
        match (old, value, key_of(name)) {
            (Value::Object(_), Value::Object(_), _) => {
                patch.insert(name.clone(), strategic_diff(old, value));
            }
            (Value::Array(old), Value::Array(new), Some("")) => {
                let gone: Vec<&Value> = old.iter().filter(|v| !new.contains(v)).collect();
                let more: Vec<&Value> = new.iter().filter(|v| !old.contains(v)).collect();
                patch.insert(format!("$deleteFromPrimitiveList/{name}"), json!(gone));
                patch.insert(name.clone(), json!(more));
            }
            (Value::Array(old), Value::Array(new), Some(key)) => {
                let of = |list: &[Value], item: &Value| list.iter().find(|o| o[key] == item[key]).cloned();
                let mut items = Vec::new();
                for item in old.iter().filter(|o| of(new, o).is_none()) {
                    items.push(json!({"$patch": "delete", key: item[key]}));
                }
                for item in new {
                    let mut change = of(old, item).map_or_else(|| item.clone(), |o| strategic_diff(&o, item));
                    change[key] = item[key].clone();
                    items.push(change);
                }
                patch.insert(name.clone(), items.into());
            }
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

/// Merged lists in an order of their own, so that two can be compared.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(name, v)| {
                let mut v = sorted(v);
                if let (Some(_), Value::Array(items)) = (key_of(name), &mut v) {
                    items.sort_by_key(Value::to_string);
                }
                (name.clone(), v)
            })
            .collect(),
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[test]
fn strategic_patches() {
    let schema = kind("", "Pod");
    fuzz(
        "strategic merge patch",
        &(pod(), pod(), any::<bool>()),
        |(from, to, whole)| -> Outcome {
            // Either what changed, or the wanted object itself as `kubectl apply` may send it: then nothing goes away.
            let patch = if whole {
                to.clone()
            } else {
                strategic_diff(&from, &to)
            };
            let shown = |e: crate::ApiError| TestCaseError::fail(e.to_string());
            let merged = strategic_merge(schema, &from, &patch).map_err(shown)?;
            if !whole {
                prop_assert_eq!(sorted(&merged), sorted(&to), "by {}", patch);
            }
            let again = strategic_merge(schema, &merged, &patch).map_err(shown)?;
            prop_assert_eq!(&again, &merged, "twice is as once, order included");
            // What the patch gives stands in its order.
            let names = |v: &Value| -> Vec<String> {
                let containers = v["spec"]["containers"].as_array().into_iter().flatten();
                containers
                    .filter(|c| c.get("$patch").is_none())
                    .map(|c| c["name"].to_string())
                    .collect()
            };
            let wanted = names(&patch);
            let got: Vec<String> = names(&merged)
                .into_iter()
                .filter(|n| wanted.contains(n))
                .collect();
            prop_assert_eq!(got, wanted);
            Ok(())
        },
    );
}
