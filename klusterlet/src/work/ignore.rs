//! Fields that a work leaves to others under server-side apply (wire §3.3): named by JSON paths, JSON pointers or jq.

mod cost;

use super::jsonpath::Steps;
use super::{bounded, jsonpath};
use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Vars, data, unwrap_valr};
use jaq_json::{Val, read};
use muster_crds::work::v1::{IgnoreField, IgnoreFieldsCondition};
use serde_json::{Map, Value};

/// Longest jq expression, in bytes: parser and interpreter recurse, and the stack must hold them.
const MAX_JQ: usize = 1 << 10;
/// So many places an expression may lead to.
const MOST_PLACES: usize = 10_000;
/// What a path may be made of. jq at large can loop for ever, overflow the stack, read the environment and end the process,
/// and nothing could stop it; what is named here is bounded by the object.
const ALLOWED: [&str; 50] = [
    "all",
    "and",
    "any",
    "arrays",
    "as",
    "ascii_downcase",
    "ascii_upcase",
    "booleans",
    "catch",
    "contains",
    "elif",
    "else",
    "empty",
    "end",
    "endswith",
    "error",
    "false",
    "first",
    "flatten",
    "getpath",
    "has",
    "if",
    "in",
    "index",
    "indices",
    "inside",
    "iterables",
    "keys",
    "last",
    "length",
    "ltrimstr",
    "map",
    "max",
    "min",
    "not",
    "null",
    "numbers",
    "objects",
    "or",
    "paths",
    "rtrimstr",
    "scalars",
    "select",
    "startswith",
    "strings",
    "test",
    "then",
    "tostring",
    "true",
    "type",
];

/// The object without the fields that are named for one of these conditions. The error says which name is wrong.
pub async fn without(
    object: &Value,
    fields: &[IgnoreField],
    conditions: &[IgnoreFieldsCondition],
) -> Result<Value, String> {
    let mut out = object.clone();
    let mut programs: Vec<String> = Vec::new();
    let mut steps = Steps::of(object);
    for field in fields.iter().filter(|f| conditions.contains(&f.condition)) {
        for path in &field.json_paths {
            let mut places = jsonpath::places(path, &out, &mut steps)?;
            // Later items first: an index must not move before it is used.
            places.sort_by(|a, b| by_steps(b, a));
            for place in &places {
                remove(&mut out, place);
            }
        }
        for pointer in &field.json_pointers {
            remove(&mut out, &pointer_steps(pointer)?);
        }
        programs.extend(field.jq_path_expressions.iter().cloned());
    }
    if programs.is_empty() {
        return Ok(out);
    }
    let named = programs.join(", ");
    let input = out;
    let key = programs.clone();
    match bounded::run(&key, move || {
        programs
            .iter()
            .try_fold(input, |object, program| deleted(object, program))
    })
    .await
    {
        Ok(result) => result,
        Err(bounded::RanAway) => Err(format!("the jq path {named:?} takes too long")),
    }
}

fn by_steps(a: &[String], b: &[String]) -> std::cmp::Ordering {
    let number = |s: &String| s.parse::<u64>().ok();
    for (x, y) in a.iter().zip(b) {
        let order = match (number(x), number(y)) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => x.cmp(y),
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// The steps of a JSON pointer (RFC 6901).
fn pointer_steps(pointer: &str) -> Result<Vec<String>, String> {
    let Some(rest) = pointer.strip_prefix('/') else {
        return Err(format!("the JSON pointer {pointer:?} must begin with /"));
    };
    Ok(rest
        .split('/')
        .map(|s| s.replace("~1", "/").replace("~0", "~"))
        .collect())
}

/// Removes what is there; what is not is no error.
fn remove(object: &mut Value, steps: &[String]) {
    let Some((last, parents)) = steps.split_last() else {
        return;
    };
    let mut at = object;
    for step in parents {
        let next = match at {
            Value::Object(map) => map.get_mut(step),
            Value::Array(items) => step.parse().ok().and_then(|i: usize| items.get_mut(i)),
            _ => None,
        };
        let Some(next) = next else { return };
        at = next;
    }
    match at {
        Value::Object(map) => {
            map.remove(last);
        }
        Value::Array(items) => {
            if let Some(index) = last.parse::<usize>().ok().filter(|i| *i < items.len()) {
                items.remove(index);
            }
        }
        _ => {}
    }
}

/// Refuses what a path has no use for.
fn allowed(path: &str) -> Result<(), String> {
    let mut chars = path.chars().peekable();
    let mut before = ' ';
    while let Some(c) = chars.next() {
        match c {
            '"' => loop {
                match chars.next() {
                    Some('\\') if chars.next() == Some('(') => return Err("must not build strings".into()),
                    Some('"') | None => break,
                    Some(_) => {}
                }
            },
            '*' | '@' | '#' => return Err(format!("must not have {c:?}")),
            c if c.is_alphabetic() || c == '_' => {
                let mut word = String::from(c);
                while let Some(next) = chars.next_if(|n| n.is_alphanumeric() || *n == '_' || *n == ':') {
                    word.push(next);
                }
                if !matches!(before, '.' | '$') && !ALLOWED.contains(&word.as_str()) {
                    return Err(format!(
                        "must not use {word}; these may be used: {}",
                        ALLOWED.join(", ")
                    ));
                }
            }
            _ => {}
        }
        before = c;
    }
    Ok(())
}

/// `del(path)` of an object: jq says where the path leads, and what is there is removed.
fn deleted(object: Value, path: &str) -> Result<Value, String> {
    if path.len() > MAX_JQ {
        return Err(format!(
            "the jq path has {} bytes, {MAX_JQ} are allowed",
            path.len()
        ));
    }
    let wrong = |problem: &str| format!("the jq path {path:?} {problem}");
    allowed(path).map_err(|problem| wrong(&problem))?;
    cost::check(path, &object).map_err(|problem| wrong(&problem))?;
    let code = format!("path({path})");
    let arena = Arena::default();
    let definitions = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let file = File {
        code: code.as_str(),
        path: (),
    };
    let modules = Loader::new(definitions)
        .load(&arena, file)
        .map_err(|_| wrong("does not parse"))?;
    let functions = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    let filter = Compiler::default()
        .with_funs(functions)
        .compile(modules)
        .map_err(|_| wrong("uses what is not defined"))?;
    let input = read::parse_single(object.to_string().as_bytes())
        .map_err(|e| wrong(&format!("has no input: {e}")))?;
    let context = Ctx::<data::JustLut<Val>>::new(&filter.lut, Vars::new([]));
    let mut places = Vec::new();
    for found in filter.id.run((context, input)).map(unwrap_valr) {
        let found = found.map_err(|error| wrong(&format!("fails: {error}")))?;
        let found: Vec<Value> = serde_json::from_str(&found.to_string())
            .map_err(|e| wrong(&format!("leads to no place: {e}")))?;
        let steps = found.iter().map(|step| match step {
            Value::String(name) => Ok(name.clone()),
            Value::Number(index) if index.is_u64() => Ok(index.to_string()),
            other => Err(wrong(&format!("leads to {other}, which is no field and no item"))),
        });
        places.push(steps.collect::<Result<Vec<String>, String>>()?);
        if places.len() > MOST_PLACES {
            return Err(wrong(&format!("leads to more than {MOST_PLACES} places")));
        }
    }
    if places.iter().any(Vec::is_empty) {
        return Err(wrong("is the whole object"));
    }
    let mut out = object;
    places.sort_by(|a, b| by_steps(b, a));
    for place in &places {
        remove(&mut out, place);
    }
    Ok(out)
}

/// The part of a live object that a manager owns by server-side apply.
pub fn owned(live: &Value, manager: &str) -> Value {
    let entries = live["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut ours = entries
        .filter(|e| e["manager"] == manager && e["operation"] == "Apply" && e["subresource"].is_null())
        .map(|e| &e["fieldsV1"]);
    ours.next_back()
        .map_or_else(|| Value::Object(Map::new()), |fields| extract(live, fields))
}

fn extract(live: &Value, fields: &Value) -> Value {
    let Some(map) = fields.as_object().filter(|m| m.keys().any(|k| k != ".")) else {
        return live.clone();
    };
    match live {
        Value::Object(object) => {
            let named = map.iter().filter_map(|(selector, inner)| {
                let name = selector.strip_prefix("f:")?;
                Some((name.to_owned(), extract(object.get(name)?, inner)))
            });
            Value::Object(named.collect())
        }
        Value::Array(items) => {
            let picked = items.iter().filter_map(|item| {
                map.iter().find_map(|(selector, inner)| {
                    if let Some(keys) = selector.strip_prefix("k:") {
                        let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
                        keys.iter()
                            .all(|(k, v)| item.get(k) == Some(v))
                            .then(|| extract(item, inner))
                    } else {
                        let value: Value = serde_json::from_str(selector.strip_prefix("v:")?).ok()?;
                        (value == *item).then(|| item.clone())
                    }
                })
            });
            Value::Array(picked.collect())
        }
        other => other.clone(),
    }
}

/// Whether two items of a list are the same one: by what items are known by, or as a whole.
fn same_item(a: &Value, b: &Value) -> bool {
    const KEYS: [&str; 7] = ["name", "key", "port", "containerPort", "mountPath", "type", "ip"];
    let mut shared = KEYS.iter().filter(|k| a.get(**k).is_some()).peekable();
    if shared.peek().is_none() {
        return a == b;
    }
    shared.all(|k| b.get(*k) == a.get(*k))
}

/// Puts into `target` what `full` has and `kept` does not: what we own of the ignored fields stays as it is, because to
/// leave it out would take it away.
pub fn graft(target: &mut Value, full: &Value, kept: &Value) {
    match (full, kept) {
        (Value::Object(full), Value::Object(kept)) => {
            if target.is_null() {
                *target = Value::Object(Map::new());
            }
            let Value::Object(target) = target else { return };
            for (key, value) in full {
                match kept.get(key) {
                    None => {
                        target.entry(key.clone()).or_insert_with(|| value.clone());
                    }
                    Some(kept) if kept != value => {
                        let slot = target.entry(key.clone()).or_insert(Value::Null);
                        graft(slot, value, kept);
                        if slot.is_null() {
                            target.remove(key);
                        }
                    }
                    Some(_) => {}
                }
            }
        }
        (Value::Array(full), Value::Array(kept)) => {
            let mut items = match std::mem::take(target) {
                Value::Array(items) => items,
                Value::Null => Vec::new(),
                other => {
                    *target = other;
                    return;
                }
            };
            for full in full {
                let same = |item: &&Value| same_item(full, item);
                let kept = kept.iter().find(same);
                if kept == Some(full) {
                    continue;
                }
                match (items.iter_mut().find(|item| same_item(full, item)), kept) {
                    (Some(item), Some(kept)) => graft(item, full, kept),
                    (None, None) => items.push(full.clone()),
                    _ => {}
                }
            }
            if !items.is_empty() {
                *target = Value::Array(items);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use IgnoreFieldsCondition::{OnSpokeChange, OnSpokePresent};
    use serde_json::json;

    fn object() -> Value {
        json!({"spec": {"replicas": 3, "template": {"spec": {"containers": [
            {"name": "a", "image": "a:1", "env": [{"name": "X"}, {"name": "Y"}]}, {"name": "b", "image": "b:1"}]}}},
            "data": {"k": "v", "a/b": "w"}, "metadata": {"annotations": {"x.io/y": "z"}}})
    }

    async fn reduced(field: Value) -> Result<Value, String> {
        let fields: Vec<IgnoreField> = serde_json::from_value(json!([field])).unwrap();
        without(&object(), &fields, &[OnSpokePresent]).await
    }

    #[tokio::test]
    async fn all_three_languages_take_fields_away() {
        let changed = |path: &str, edit: &dyn Fn(&mut Value)| {
            let mut expected = object();
            edit(expected.pointer_mut(path).unwrap());
            expected
        };
        let drop = |key: &'static str| move |v: &mut Value| drop(v.as_object_mut().unwrap().remove(key));
        let containers = "/spec/template/spec/containers";
        let cases = [
            (
                json!({"jsonPaths": [".spec.replicas"]}),
                changed("/spec", &drop("replicas")),
            ),
            (
                json!({"jsonPaths": ["spec.replicas", ".absent.x"]}),
                changed("/spec", &drop("replicas")),
            ),
            (
                json!({"jsonPaths": [".metadata.annotations.x\\.io/y"]}),
                changed("/metadata/annotations", &drop("x.io/y")),
            ),
            (
                json!({"jsonPaths": [".spec.template.spec.containers[?(@.name=='b')].image"]}),
                changed(&format!("{containers}/1"), &drop("image")),
            ),
            (
                json!({"jsonPaths": [".spec.template.spec.containers[0].env[*]"]}),
                changed(&format!("{containers}/0"), &|c| c["env"] = json!([])),
            ),
            (
                json!({"jsonPointers": ["/spec/replicas"]}),
                changed("/spec", &drop("replicas")),
            ),
            (
                json!({"jsonPointers": ["/data/a~1b", "/none/at/all"]}),
                changed("/data", &drop("a/b")),
            ),
            (
                json!({"jsonPointers": ["/spec/template/spec/containers/0"]}),
                changed(containers, &|c| drop_first(c)),
            ),
            (
                json!({"jqPathExpressions": [".spec.replicas"]}),
                changed("/spec", &drop("replicas")),
            ),
            (
                json!({"jqPathExpressions": [".none.at.all", ".spec.replicas"]}),
                changed("/spec", &drop("replicas")),
            ),
            (
                json!({"jqPathExpressions": [".spec.template.spec.containers[] | select(.name == \"b\") | .image"]}),
                changed(&format!("{containers}/1"), &drop("image")),
            ),
            (
                json!({"jqPathExpressions": [".spec.template.spec.containers[] | select(.name | test(\"^b$\")) | .image"]}),
                changed(&format!("{containers}/1"), &drop("image")),
            ),
            (
                json!({"jqPathExpressions": [".data[\"a/b\"], .data.k"]}),
                changed("", &|o| o["data"] = json!({})),
            ),
        ];
        for (field, expected) in cases {
            assert_eq!(reduced(field.clone()).await, Ok(expected), "{field}");
        }
        let later = json!([{"condition": "OnSpokeChange", "jsonPaths": [".spec.replicas"]}]);
        let fields: Vec<IgnoreField> = serde_json::from_value(later).unwrap();
        assert_eq!(without(&object(), &fields, &[OnSpokePresent]).await, Ok(object()));
        assert_ne!(without(&object(), &fields, &[OnSpokeChange]).await, Ok(object()));
    }

    fn drop_first(list: &mut Value) {
        list.as_array_mut().unwrap().remove(0);
    }

    #[tokio::test]
    async fn what_is_wrong_is_said() {
        for (field, part) in [
            (json!({"jsonPaths": [".a["]}), ".a["),
            (json!({"jsonPointers": ["spec"]}), "must begin with /"),
            (json!({"jqPathExpressions": [".a | ("]}), "does not parse"),
            (json!({"jqPathExpressions": ["has"]}), "not defined"),
            (json!({"jqPathExpressions": ["."]}), "whole object"),
            (json!({"jqPathExpressions": [".spec.replicas.x"]}), "fails"),
            (
                json!({"jqPathExpressions": ["nonsense"]}),
                "must not use nonsense",
            ),
            (json!({"jqPathExpressions": ["halt"]}), "must not use halt"),
            (json!({"jqPathExpressions": ["env"]}), "must not use env"),
            (json!({"jqPathExpressions": ["def f: f; f"]}), "must not use def"),
            (json!({"jqPathExpressions": ["repeat(.)"]}), "must not use repeat"),
            (
                json!({"jqPathExpressions": [".[\"a\" * 1000000000]"]}),
                "must not have '*'",
            ),
            (
                json!({"jqPathExpressions": [".[\"\\(halt)\"]"]}),
                "must not build strings",
            ),
        ] {
            let problem = reduced(field.clone()).await.unwrap_err();
            assert!(problem.contains(part), "{field}: {problem}");
        }
    }

    #[tokio::test]
    async fn what_would_run_away_is_not_begun() {
        for expression in [
            "..|".repeat(40) + "..",
            format!("select([{}..] | length > 0)", "..|".repeat(40)),
            format!(". as $x | ({}$x) | .a", "($x+$x) as $x|".repeat(60)),
            "(.,.)|".repeat(100) + ".a",
        ] {
            let problem = reduced(json!({"jqPathExpressions": [expression]}))
                .await
                .unwrap_err();
            assert!(problem.contains("steps"), "{problem}");
        }
    }

    #[tokio::test]
    async fn deep_expressions_do_not_overflow_the_stack() {
        for expression in [
            format!(".{}{}", "[[".repeat(250), "]]".repeat(250)),
            format!("{}.a{}", "(".repeat(500), ")".repeat(500)),
            ".a".repeat(500),
            ".a|".repeat(300) + ".a",
            "-".repeat(1000) + ".a",
            "..|".repeat(300) + ".a",
            ".[]?".repeat(250),
            "if .a then .b else ".repeat(40) + ".c" + &" end".repeat(40),
        ] {
            // Whatever comes of it, it comes back.
            drop(reduced(json!({"jqPathExpressions": [expression]})).await);
        }
    }

    #[test]
    fn what_we_own_of_ignored_fields_stays() {
        let live = json!({"spec": {"replicas": 5, "paused": true, "list": [{"name": "a", "v": 1, "w": 2}, {"name": "b"}], "set": ["x", "y"]},
            "metadata": {"managedFields": [
                {"manager": "other", "operation": "Update", "fieldsV1": {"f:spec": {"f:paused": {}}}},
                {"manager": "work-agent", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {},
                    "f:list": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:v": {}}}, "f:set": {"v:\"x\"": {}}}}}]}});
        let own = owned(&live, "work-agent");
        assert_eq!(
            own,
            json!({"spec": {"replicas": 5, "list": [{"name": "a", "v": 1}], "set": ["x"]}})
        );
        assert_eq!(owned(&live, "nobody"), json!({}));
        let mut target = json!({"spec": {"list": [{"name": "b"}, {"name": "a"}]}});
        let kept = json!({"spec": {"list": [{"name": "a"}], "set": ["x"]}});
        graft(&mut target, &own, &kept);
        assert_eq!(
            target,
            json!({"spec": {"replicas": 5, "list": [{"name": "b"}, {"name": "a", "v": 1}]}})
        );
    }

    #[test]
    fn an_ignored_item_of_a_list_that_is_ours_stays() {
        let own = json!({"env": [{"name": "A", "value": "1"}, {"name": "B"}], "args": ["x", "y"], "other": [{"name": "C"}]});
        let kept =
            json!({"env": [{"name": "A", "value": "1"}], "args": ["x", "y"], "other": [{"name": "C"}]});
        let mut target = json!({"env": [{"name": "A", "value": "2"}], "args": ["z"]});
        graft(&mut target, &own, &kept);
        let expected = json!({"env": [{"name": "A", "value": "2"}, {"name": "B"}], "args": ["z"]});
        assert_eq!(target, expected);
    }
}
