//! Bodies as long as they may be, made to be slow to read: each must be done in a time that a worker can spare.

use super::TOO_LONG;
use crate::patch::apply::Applier;
use crate::patch::{FieldSet, json_patch, managed, merge_patch, strategic_merge};
use crate::rest::body::{BODY_LIMIT, parse_json, parse_yaml};
use crate::rest::params::Query;
use crate::rest::selector::{FieldSelector, LabelSelector};
use crate::schema::cel::{Cost, Rules};
use crate::schema::validate::validate;
use crate::schema::{builtin, decode, prune, structural, validate_custom};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Length of the bodies. What grows with the square of it shows at a quarter as well, where a debug build is that much slower.
const LENGTH: usize = if cfg!(debug_assertions) {
    BODY_LIMIT / 4
} else {
    BODY_LIMIT
};

/// Items that fill a body, `each` bytes long.
fn many(each: usize) -> std::ops::Range<usize> {
    0..LENGTH / each
}

/// Time that this thread has had on a core: a machine that is busy with other things does not make it longer.
fn time_of_thread() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn in_time<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (start, before) = (Instant::now(), time_of_thread());
    let done = work();
    let took = match (before, time_of_thread()) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => start.elapsed(),
    };
    assert!(took < TOO_LONG, "{what} took {} ms", took.as_millis());
    if took > TOO_LONG / 10 {
        eprintln!("{what} took {} ms", took.as_millis());
    }
    done
}

#[test]
fn text_that_is_slow_to_parse() {
    let keys: Vec<String> = many(24).map(|n| format!("\"{n:07}\":1,\"{n:07}\":1")).collect();
    let twice = format!("{{{}}}", keys.join(","));
    let parsed = in_time("JSON with every key twice", || {
        parse_json(twice.as_bytes()).unwrap()
    });
    assert_eq!(parsed.duplicates.len(), many(24).len());
    let deep = format!("{}{}", "[".repeat(LENGTH / 2), "]".repeat(LENGTH / 2));
    assert!(in_time("deep JSON", || parse_json(deep.as_bytes())).is_err());
    assert!(in_time("deep YAML", || parse_yaml(deep.as_bytes())).is_err());
    let wide = format!("[{}1]", "1,".repeat(LENGTH / 2 - 2));
    assert!(in_time("a long list", || parse_json(wide.as_bytes())).is_ok());
    let booleans: String = many(4).map(|_| "- y\n").collect();
    let _ = in_time("YAML of booleans", || parse_yaml(booleans.as_bytes()));
    let quoted: String = many(6).map(|_| "- 'y'\n").collect();
    let _ = in_time("YAML of quoted booleans", || parse_yaml(quoted.as_bytes()));
    let aliases = (1..30).fold(String::from("a0: &a0 [x, x]\n"), |text, n| {
        format!("{text}a{n}: &a{n} [*a{}, *a{}, *a{}]\n", n - 1, n - 1, n - 1)
    });
    assert!(in_time("YAML that grows", || parse_yaml(aliases.as_bytes())).is_err());
}

#[test]
fn patches_with_very_many_parts() {
    let pod = builtin::for_gvk("", "v1", "Pod").unwrap();
    let values: Vec<String> = many(12).map(|n| format!("{n:08}")).collect();
    let (object, patch) = (
        json!({"metadata": {"finalizers": values}}),
        json!({"metadata": {"finalizers": values}}),
    );
    in_time("strategic merge of values", || {
        strategic_merge(pod, &object, &patch).unwrap()
    });
    let gone = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": values}});
    in_time("strategic removal of values", || {
        strategic_merge(pod, &object, &gone).unwrap()
    });
    let items: Vec<Value> = many(24)
        .map(|n| json!({"name": format!("{n:08}"), "a": 1}))
        .collect();
    let list = json!({"spec": {"containers": items}});
    in_time("strategic merge of items", || {
        strategic_merge(pod, &list, &list).unwrap()
    });
    let order: Vec<Value> = many(24).map(|n| json!({"name": format!("{n:08}")})).collect();
    let ordered = json!({"spec": {"$setElementOrder/containers": order, "containers": items}});
    in_time("strategic merge in an order", || {
        strategic_merge(pod, &list, &ordered).unwrap()
    });
    let removed: Vec<Value> = many(40)
        .map(|n| json!({"$patch": "delete", "name": format!("{n:08}")}))
        .collect();
    let removal = json!({"spec": {"containers": removed}});
    in_time("strategic removal of items", || {
        strategic_merge(pod, &list, &removal).unwrap()
    });
    let retain = json!({"spec": {"$retainKeys": values}});
    in_time("many keys to retain", || {
        strategic_merge(pod, &list, &retain).unwrap()
    });

    let fields: serde_json::Map<String, Value> = many(16).map(|n| (format!("{n:08}"), 1.into())).collect();
    let fields = Value::Object(fields);
    in_time("merge patch", || merge_patch(&fields, &fields));
    let list = Value::Array(many(2).map(|_| 1.into()).collect());
    let operations: Vec<Value> = (0..10_000)
        .map(|_| json!({"op": "add", "path": "/0", "value": 1}))
        .collect();
    let body = Value::Array(operations).to_string();
    assert!(
        in_time("JSON patch at the front of a long list", || json_patch(
            &list,
            body.as_bytes()
        ))
        .is_err()
    );
    // Copies of copies grow beyond all bounds.
    let grow: Vec<Value> = (0..40)
        .map(|n| json!({"op": "copy", "from": "", "path": format!("/{n}")}))
        .collect();
    let body = Value::Array(grow).to_string();
    assert!(
        in_time("JSON patch that grows", || json_patch(
            &json!({"a": 1}),
            body.as_bytes()
        ))
        .is_err()
    );
}

fn apply(schema: &crate::schema::Schema, live: Option<&Value>, config: &Value) -> Value {
    let applier = Applier {
        schema,
        api_version: "v1",
        kind: config["kind"].as_str().unwrap_or("Gadget"),
        manager: "m",
        subresource: "",
        force: true,
        now: Timestamp::UNIX_EPOCH,
        reset_fields: &FieldSet::EMPTY,
    };
    applier.apply(live, config).unwrap()
}

#[test]
fn objects_with_very_many_fields() {
    let pod = builtin::for_gvk("", "v1", "Pod").unwrap();
    let items: Vec<Value> = many(24).map(|n| json!({"name": format!("{n:08}")})).collect();
    let values: Vec<String> = many(40).map(|n| format!("{n:08}")).collect();
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "finalizers": values}, "spec": {"containers": items}});
    let live = in_time("apply of many items", || apply(pod, None, &object));
    let again = in_time("apply of many items again", || apply(pod, Some(&live), &object));
    assert_eq!(again, live);
    let mut new = object.clone();
    in_time("tracking of many items", || {
        managed::update(
            pod,
            Some(&live),
            &mut new,
            "u",
            "v1",
            "",
            &FieldSet::EMPTY,
            Timestamp::UNIX_EPOCH,
        );
    });
    assert!(in_time("types of many items", || decode::check_types(pod, &object)).is_none());
    let unknown: serde_json::Map<String, Value> = many(16).map(|n| (format!("{n:08}"), 1.into())).collect();
    let mut object = json!({"spec": unknown});
    let removed = in_time("many unknown fields", || prune::prune(pod, &mut object, false));
    assert_eq!(removed.len(), many(16).len());
}

#[test]
fn values_that_are_slow_to_judge() {
    let schema = json!({"type": "object", "properties": {
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "unique": {"type": "array", "items": {"type": "integer"}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
        "text": {"type": "string", "pattern": "^(a+)+$"},
        "ruled": {"type": "array", "maxItems": 100_000, "items": {"type": "integer"},
            "x-kubernetes-validations": [{"rule": "self.all(x, x >= 0)"}]}}});
    let schema = structural::parse(&schema, "").unwrap();
    let rules = Rules::compile(&schema, "", Cost::Any).unwrap();
    let set: Vec<String> = many(12).map(|n| format!("{n:08}")).collect();
    let map: Vec<Value> = many(24)
        .map(|n| json!({"k": format!("{n:08}"), "v": n}))
        .collect();
    let newer: Vec<Value> = many(24)
        .map(|n| json!({"k": format!("{n:08}"), "v": n + 1}))
        .collect();
    let text = "a".repeat(LENGTH) + "b";
    let ruled: Vec<usize> = (0..100_000).collect();
    let old = json!({"set": set, "map": map, "ruled": ruled});
    assert!(in_time("long lists", || validate(&schema, &old, None, "")).is_empty());
    let new = json!({"set": set, "map": newer});
    assert!(
        in_time("long lists that change", || validate(
            &schema,
            &new,
            Some(&old),
            ""
        ))
        .is_empty()
    );
    let slow = json!({"text": text});
    assert!(!in_time("a long text", || validate(&schema, &slow, None, "")).is_empty());
    in_time("a rule over many items", || {
        validate_custom(&schema, &rules, &old, None)
    });
    let same: Vec<&str> = many(4).map(|_| "a").collect();
    assert!(
        !in_time("a set of one value", || validate(
            &schema,
            &json!({"set": same}),
            None,
            ""
        ))
        .is_empty()
    );
}

#[test]
fn long_queries() {
    // hyper takes a request's head up to some hundred kilobytes.
    let terms: Vec<String> = (0..20_000).map(|n| format!("k{n}=v{n}")).collect();
    let text = terms.join(",");
    let selector = in_time("a long label selector", || LabelSelector::parse(&text).unwrap());
    in_time("its match", || selector.matches(|_| Some("v")));
    let selector = in_time("a long field selector", || FieldSelector::parse(&text).unwrap());
    in_time("its match", || selector.matches(&json!({})));
    let values = format!(
        "a in ({})",
        terms.iter().map(|t| &t[..2]).collect::<Vec<_>>().join(",")
    );
    in_time("many values", || LabelSelector::parse(&values).unwrap());
    let query = in_time("a long query", || Query::parse(&"a=%41&".repeat(30_000)));
    assert_eq!(query.all("a").len(), 30_000);
}
