//! Selectors: what is written by a client that means something is read as meaning that.

use super::{any_json, any_text, fuzz};
use crate::rest::selector::{FieldSelector, LabelSelector};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::BoxedStrategy;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Term {
    Equals(String, &'static str, String),
    Differs(String, String),
    In(String, bool, Vec<String>),
    Exists(String, bool),
    Compares(String, bool, i64),
}

fn key() -> BoxedStrategy<String> {
    prop_oneof![4 => "[a-c]", 1 => "[a-b]\\.io/[a-c]", 1 => "[A-Za-z0-9]([A-Za-z0-9_.-]{0,4}[A-Za-z0-9])?"]
        .boxed()
}

fn value() -> BoxedStrategy<String> {
    prop_oneof![4 => "[a-c]", 2 => "[0-9]{1,3}", 1 => Just(String::new()), 1 => "[A-Za-z0-9]([A-Za-z0-9_.-]{0,4}[A-Za-z0-9])?"]
        .boxed()
}

fn term() -> BoxedStrategy<Term> {
    prop_oneof![
        (key(), prop::sample::select(vec!["=", "=="]), value()).prop_map(|(k, o, v)| Term::Equals(k, o, v)),
        (key(), value()).prop_map(|(k, v)| Term::Differs(k, v)),
        (key(), any::<bool>(), vec(value(), 1..4)).prop_map(|(k, not, v)| Term::In(k, not, v)),
        (key(), any::<bool>()).prop_map(|(k, not)| Term::Exists(k, not)),
        (key(), any::<bool>(), 0..200_i64).prop_map(|(k, more, n)| Term::Compares(k, more, n)),
    ]
    .boxed()
}

impl Term {
    fn text(&self, space: &str) -> String {
        match self {
            Self::Equals(k, o, v) => format!("{space}{k}{space}{o}{space}{v}{space}"),
            Self::Differs(k, v) => format!("{k}{space}!={space}{v}"),
            Self::In(k, not, values) => {
                let operator = if *not { "notin" } else { "in" };
                let values = values.join(&format!("{space},{space}"));
                format!("{k} {operator} ({space}{values}{space})")
            }
            Self::Exists(k, not) => format!("{}{k}{space}", if *not { "!" } else { "" }),
            Self::Compares(k, more, n) => format!("{k}{space}{}{space}{n}", if *more { ">" } else { "<" }),
        }
    }

    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Equals(k, _, v) => labels.get(k) == Some(v),
            Self::Differs(k, v) => labels.get(k) != Some(v),
            Self::In(k, not, values) => labels.get(k).is_some_and(|l| values.contains(l)) != *not,
            Self::Exists(k, not) => labels.contains_key(k) != *not,
            Self::Compares(k, more, n) => {
                let label = labels.get(k).and_then(|l| l.parse::<i64>().ok());
                label.is_some_and(|l| if *more { l > *n } else { l < *n })
            }
        }
    }
}

#[test]
fn label_selectors() {
    let space = prop::sample::select(vec!["", " ", "  ", "\t"]);
    let input = (vec(term(), 0..4), btree_map(key(), value(), 0..4), space);
    fuzz("label selectors", &input, |(terms, labels, space)| {
        let text: Vec<String> = terms.iter().map(|t| t.text(space)).collect();
        let text = text.join(&format!("{space},{space}"));
        let selector =
            LabelSelector::parse(&text).map_err(|e| TestCaseError::fail(format!("{text:?}: {e}")))?;
        let got = selector.matches(|k| labels.get(k).map(String::as_str));
        prop_assert_eq!(got, terms.iter().all(|t| t.holds(&labels)), "{:?}", text);
        prop_assert_eq!(selector.is_empty(), terms.is_empty());
        Ok(())
    });
}

/// `\` before what would end a value.
fn escaped(value: &str) -> String {
    let mut out = String::new();
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn field_value() -> BoxedStrategy<String> {
    prop_oneof![4 => "[a-b]{0,1}", 2 => "[0-9]", 1 => "[a-b\\\\,=!]{0,4}", 1 => any_text()].boxed()
}

#[test]
fn field_selectors() {
    let field = || {
        prop::sample::select(vec![
            "metadata.name",
            "metadata.namespace",
            "spec.nodeName",
            "status.phase",
            "x",
        ])
    };
    let terms = vec(
        (
            field(),
            prop::sample::select(vec!["=", "==", "!="]),
            field_value(),
        ),
        0..4,
    );
    let object = vec((field(), field_value()), 0..5);
    fuzz("field selectors", &(terms, object), |(terms, fields)| {
        let mut object = json!({});
        let mut known: BTreeMap<&str, &str> = BTreeMap::new();
        for (field, value) in &fields {
            known.insert(field, value);
            let pointer: Vec<&str> = field.split('.').collect();
            let mut at: &mut Value = &mut object;
            for part in pointer {
                if !at[part].is_object() {
                    at[part] = json!({});
                }
                at = &mut at[part];
            }
            *at = value.as_str().into();
        }
        let text: Vec<String> = terms
            .iter()
            .map(|(f, o, v)| format!("{f}{o}{}", escaped(v)))
            .collect();
        let text = text.join(",");
        let selector =
            FieldSelector::parse(&text).map_err(|e| TestCaseError::fail(format!("{text:?}: {e}")))?;
        let of = |field: &str| known.get(field).copied().unwrap_or_default();
        let holds =
            |terms: &[(&str, &str, String)]| terms.iter().all(|(f, o, v)| (of(f) == v) == (*o != "!="));
        prop_assert_eq!(
            selector.matches(&object),
            holds(&terms),
            "{:?} on {}",
            &text,
            &object
        );
        // The key alone decides what speaks of the key alone.
        let (of_key, rest): (Vec<_>, Vec<_>) = terms
            .iter()
            .cloned()
            .partition(|(f, _, _)| f.starts_with("metadata."));
        let by_key = selector.matches_key(of("metadata.namespace"), of("metadata.name"));
        prop_assert_eq!(by_key, holds(&of_key), "{:?} on {}", &text, &object);
        prop_assert_eq!(selector.is_metadata_only(), rest.is_empty());
        Ok(())
    });
}

#[test]
fn anything_as_a_selector() {
    let text = prop_oneof![
        "[ab!=<>(),.\\\\ /]{0,12}",
        "(a|b| in | notin |=|==|!=|!|,|\\(|\\)|<|>|1| ){0,9}",
        any::<String>(),
    ];
    fuzz("anything as a selector", &(text, any_json()), |(text, object)| {
        if let Ok(selector) = LabelSelector::parse(&text) {
            let _ = selector.matches(|k| object.get(k).and_then(Value::as_str));
        }
        if let Ok(selector) = FieldSelector::parse(&text) {
            let _ = selector.matches(&object);
            let _ = selector.matches_key("a", "b");
        }
        Ok(())
    });
}
