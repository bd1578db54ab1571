use super::{at, gadget};
use crate::patch::apply::Applier;
use crate::patch::path::PathElement;
use crate::patch::typed::{Ty, field_set, with_named_parents};
use crate::patch::{FieldSet, json_patch, managed, merge_patch, strategic_merge};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..3_i64).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        "[a-c]{1,2}",
        prop::sample::select(vec![
            "metadata",
            "spec",
            "tags",
            "items",
            "ports",
            "k",
            "port",
            "name",
            "$patch",
            "$retainKeys",
            "labels",
            "managedFields",
            "free",
            "m",
            "whole",
            "$setElementOrder/tags",
            "$deleteFromPrimitiveList/tags",
        ])
        .prop_map(String::from),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(name.clone(), inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// A configuration that fits the schema.
fn spec() -> impl Strategy<Value = Value> {
    let key = || prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(String::from);
    let items = btree_map(key(), prop::option::of(0..3_i64), 0..4).prop_map(|m| {
        let item = |(k, v): (String, Option<i64>)| match v {
            Some(v) => json!({"k": k, "v": v}),
            None => json!({"k": k}),
        };
        m.into_iter().map(item).collect::<Vec<_>>()
    });
    let ports = btree_set((80..83_i64, any::<bool>()), 0..3).prop_map(|s| {
        let port = |(port, udp)| {
            if udp {
                json!({"port": port, "protocol": "UDP"})
            } else {
                json!({"port": port})
            }
        };
        s.into_iter().map(port).collect::<Vec<_>>()
    });
    let fields = (
        prop::option::of(key()),
        prop::option::of(0..3_i64),
        prop::option::of(btree_map(key(), 0..2_i64, 1..3)),
        prop::option::of(btree_map(key(), key(), 0..2)),
        prop::option::of(btree_set(key(), 1..3)),
        prop::option::of(items),
        prop::option::of(ports),
        prop::option::of(btree_map(
            key(),
            btree_map(key(), vec(0..2_i64, 0..2), 1..3),
            1..3,
        )),
    );
    fields.prop_map(|(name, size, m, whole, tags, items, ports, free)| {
        let mut spec = json!({"name": name, "size": size, "m": m, "whole": whole, "tags": tags, "items": items,
            "ports": ports, "free": free});
        // What is not there is not null, and an empty list is not there either.
        if let Value::Object(fields) = &mut spec {
            fields.retain(|_, v| !v.is_null() && v.as_array().is_none_or(|a| !a.is_empty()));
        }
        json!({"apiVersion": "x.io/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": spec})
    })
}

fn apply(live: Option<&Value>, manager: &str, force: bool, now: i64, config: &Value) -> Option<Value> {
    let schema = gadget();
    let applier = Applier {
        schema: &schema,
        api_version: "x.io/v1",
        kind: config["kind"].as_str().unwrap_or_default(),
        manager,
        subresource: "",
        force,
        now: at(now),
        reset_fields: &FieldSet::EMPTY,
    };
    applier.apply(live, config).ok()
}

fn everyones(object: &Value) -> FieldSet {
    object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .fold(FieldSet::EMPTY, |all, entry| {
            all.union(&FieldSet::decode(&entry["fieldsV1"]).unwrap())
        })
}

fn has(object: &Value) -> FieldSet {
    let schema = gadget();
    let ty = Ty::object(&schema);
    let mut all = with_named_parents(ty, field_set(ty, object));
    // Empty lists and maps of the struct's own fields count as there.
    for (name, value) in object["spec"].as_object().into_iter().flatten() {
        if !value.is_null() {
            all.insert(&[PathElement::field("spec"), PathElement::field(name)]);
        }
    }
    if object.get("spec").is_some() {
        all.insert(&[PathElement::field("spec")]);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_twice_changes_nothing(a in spec(), b in spec()) {
        let live = apply(None, "one", false, 1, &a).unwrap();
        let live = apply(Some(&live), "two", true, 2, &b).unwrap();
        prop_assert_eq!(apply(Some(&live), "two", false, 3, &b).unwrap(), live);
    }

    #[test]
    fn a_forced_configuration_is_in_the_object(a in spec(), b in spec()) {
        let live = apply(None, "one", false, 1, &a).unwrap();
        let live = apply(Some(&live), "two", true, 2, &b).unwrap();
        let (schema, set) = (gadget(), has(&live));
        let wanted = field_set(Ty::object(&schema), &b);
        prop_assert!(wanted.is_subset(&set), "{} of {live}", wanted.difference(&set).encode());
        // Merging it once more finds nothing to do.
        let again = crate::patch::merge::merge(Ty::object(&schema), &live, &b);
        prop_assert_eq!(&again["spec"], &live["spec"]);
    }

    #[test]
    fn no_one_owns_what_is_not_there(steps in vec((spec(), 0..3_usize, any::<bool>()), 1..8)) {
        let schema = gadget();
        let mut live: Option<Value> = None;
        for (i, (config, who, applies)) in steps.into_iter().enumerate() {
            let manager = ["one", "two", "three"][who];
            let next = if applies {
                apply(live.as_ref(), manager, true, 1, &config)
            } else {
                let mut new = config;
                let now = at(i64::try_from(i).unwrap());
                managed::update(&schema, live.as_ref(), &mut new, manager, "x.io/v1", "", &FieldSet::EMPTY, now);
                Some(new)
            };
            let next = next.unwrap();
            let (owned, there) = (everyones(&next), has(&next));
            prop_assert!(owned.is_subset(&there), "{} not in {next}", owned.difference(&there).encode());
            live = Some(next);
        }
    }

    #[test]
    fn fields_v1_round_trips(a in spec(), b in any_json()) {
        let schema = gadget();
        for set in [field_set(Ty::object(&schema), &a), field_set(Ty::Deduced, &b)] {
            prop_assert_eq!(FieldSet::decode(&set.encode()).unwrap(), set);
        }
    }

    #[test]
    fn sets_behave_as_sets(a in spec(), b in spec()) {
        let schema = gadget();
        let (a, b) = (field_set(Ty::object(&schema), &a), field_set(Ty::object(&schema), &b));
        let (union, both) = (a.union(&b), a.intersection(&b));
        prop_assert!(a.is_subset(&union) && b.is_subset(&union) && both.is_subset(&a) && both.is_subset(&b));
        prop_assert_eq!(union.len() + both.len(), a.len() + b.len());
        prop_assert_eq!(a.difference(&b).union(&both), a.clone());
        prop_assert!(a.difference(&a).is_empty() && a.recursive_difference(&a).is_empty());
        prop_assert!(a.leaves().is_subset(&a));
        let mut count = 0;
        a.each(&mut |path| { count += 1; assert!(a.contains(path)); });
        prop_assert_eq!(count, a.len());
    }

    #[test]
    fn nothing_panics(live in any_json(), mut config in any_json(), patch in any_json(), fields in any_json()) {
        let schema = gadget();
        let _ = merge_patch(&live, &patch);
        let _ = json_patch(&live, patch.to_string().as_bytes());
        let _ = strategic_merge(&schema, &live, &patch);
        let _ = FieldSet::decode(&fields);
        let mut new = config.clone();
        managed::update(&schema, Some(&live), &mut new, "x", "x.io/v1", "", &FieldSet::EMPTY, at(1));
        managed::keep_times(&live, &mut new);
        if let Value::Object(map) = &mut config {
            map.insert("apiVersion".into(), "x.io/v1".into());
            map.insert("kind".into(), "Gadget".into());
        }
        let _ = apply(Some(&live), "x", true, 1, &config);
        let _ = apply(None, "kubectl", false, 1, &config);
    }
}
