//! A part of an object together with its path, so that a rule about it is one line.

use super::json::text;
use crate::error::{FieldError, FieldErrorKind, shown};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(super) type Errors = Vec<FieldError>;

/// A value and where it is.
#[derive(Debug, Clone)]
pub(super) struct Spot<'a> {
    pub value: &'a Value,
    pub path: String,
}

impl<'a> Spot<'a> {
    pub(super) fn new(value: &'a Value, path: impl Into<String>) -> Self {
        let path = path.into();
        Self { value, path }
    }

    /// The field `key` of this.
    pub(super) fn at(&self, key: &str) -> Self {
        let path = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        };
        Self::new(&self.value[key], path)
    }

    /// The field `key`, told of as `name`.
    pub(super) fn named_at(&self, key: &str, name: &str) -> Self {
        let mut spot = self.at(name);
        spot.value = &self.value[key];
        spot
    }

    /// The field `key` where it is there.
    pub(super) fn given(&self, key: &str) -> Option<Self> {
        Some(self.at(key)).filter(Self::is_set)
    }

    /// Items of the list `key`.
    pub(super) fn list(&self, key: &str) -> Vec<Self> {
        self.at(key).items()
    }

    /// Items of this list.
    pub(super) fn items(&self) -> Vec<Self> {
        let items = self.value.as_array().into_iter().flatten().enumerate();
        items
            .map(|(i, item)| Self::new(item, format!("{}[{i}]", self.path)))
            .collect()
    }

    /// Values of this map, by key.
    pub(super) fn entries(&self) -> Vec<(&'a str, Self)> {
        let entries = self.value.as_object().into_iter().flatten();
        entries
            .map(|(key, value)| (key.as_str(), Self::new(value, format!("{}[{key}]", self.path))))
            .collect()
    }

    pub(super) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Whether nothing is in it: no text, no items.
    pub(super) fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        }
    }

    /// Its text, `""` when there is none.
    pub(super) fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    pub(super) fn number(&self) -> i64 {
        self.value.as_i64().unwrap_or(0)
    }

    pub(super) fn refuse(&self, errors: &mut Errors, kind: FieldErrorKind, message: impl Into<String>) {
        errors.push(FieldError::new(kind, &self.path, message));
    }

    /// `Invalid value`, with the value as Go prints it: what is absent is its zero value only where a caller says so.
    pub(super) fn invalid(&self, errors: &mut Errors, why: &str) {
        errors.push(FieldError::invalid(&self.path, self.value, why));
    }

    /// `Invalid value` of a text, `""` when absent.
    pub(super) fn invalid_text(&self, errors: &mut Errors, why: &str) {
        errors.push(FieldError::invalid(&self.path, &json!(self.text()), why));
    }

    /// `Invalid value` with what Go shows of a struct.
    pub(super) fn invalid_shown(&self, errors: &mut Errors, shown: &str, why: &str) {
        let message = format!("Invalid value: {shown}: {why}");
        self.refuse(errors, FieldErrorKind::Invalid, message);
    }

    pub(super) fn forbidden(&self, errors: &mut Errors, why: &str) {
        errors.push(FieldError::forbidden(&self.path, why));
    }

    pub(super) fn duplicate(&self, errors: &mut Errors) {
        errors.push(FieldError::duplicate(&self.path, self.value));
    }

    pub(super) fn not_found(&self, errors: &mut Errors) {
        let message = format!("Not found: {}", shown(&json!(self.text())));
        self.refuse(errors, FieldErrorKind::NotFound, message);
    }

    pub(super) fn missing(&self, errors: &mut Errors, why: &str) {
        errors.push(FieldError::required(&self.path, why));
    }

    /// Whether something is there; told when not.
    pub(super) fn required(&self, errors: &mut Errors, why: &str) -> bool {
        if self.is_empty() {
            self.missing(errors, why);
        }
        !self.is_empty()
    }

    /// Its text keeps a rule of names.
    pub(super) fn named(&self, errors: &mut Errors, rule: fn(&str) -> Vec<String>) {
        for message in rule(self.text()) {
            self.invalid_text(errors, &message);
        }
    }

    /// There, and keeping a rule of names.
    pub(super) fn required_name(&self, errors: &mut Errors, rule: fn(&str) -> Vec<String>) {
        if self.required(errors, "") {
            self.named(errors, rule);
        }
    }

    /// Keeping a rule of names when there is one.
    pub(super) fn named_if_given(&self, errors: &mut Errors, rule: fn(&str) -> Vec<String>) {
        if !self.is_empty() {
            self.named(errors, rule);
        }
    }

    /// One of `allowed`; absent is `""`.
    pub(super) fn among(&self, errors: &mut Errors, allowed: &[&str]) {
        let value = self.text();
        if !allowed.contains(&value) {
            errors.push(FieldError::not_supported(&self.path, &json!(value), allowed));
        }
    }

    /// One of `allowed` when set.
    pub(super) fn among_if_set(&self, errors: &mut Errors, allowed: &[&str]) {
        if self.is_set() {
            self.among(errors, allowed);
        }
    }

    pub(super) fn not_negative(&self, errors: &mut Errors) {
        self.at_least(errors, 0, "must be greater than or equal to 0");
    }

    /// Not less than `least`, when set.
    pub(super) fn at_least(&self, errors: &mut Errors, least: i64, why: &str) {
        if self.value.as_i64().is_some_and(|n| n < least) {
            self.invalid(errors, why);
        }
    }

    /// From `low` to `high`, when set.
    pub(super) fn between(&self, errors: &mut Errors, low: i64, high: i64, why: &str) {
        if self.value.as_i64().is_some_and(|n| n < low || n > high) {
            self.invalid(errors, why);
        }
    }
}

/// Tells of items whose `key` another before them has; at the item's `key`.
pub(super) fn unique(items: &[Spot<'_>], key: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for item in items {
        if !seen.insert(text(item.value, key)) {
            item.at(key).duplicate(errors);
        }
    }
}

/// A path below some directory, as Kubernetes wants those of files it makes.
pub(super) fn descending(spot: &Spot<'_>, errors: &mut Errors) {
    let path = spot.text();
    if path.starts_with('/') {
        spot.invalid(errors, "must be a relative path");
    }
    no_steps_back(spot, errors);
}

/// As [`descending`], and nothing that kubelet keeps for itself.
pub(super) fn not_reserved(spot: &Spot<'_>, errors: &mut Errors) {
    descending(spot, errors);
    if spot.text().starts_with("..") && !spot.text().starts_with("../") {
        spot.invalid(errors, "must not start with '..'");
    }
}

pub(super) fn no_steps_back(spot: &Spot<'_>, errors: &mut Errors) {
    if spot.text().split('/').any(|part| part == "..") {
        spot.invalid(errors, "must not contain '..'");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_say_where() {
        let object = json!({"a": {"b": ["x", ""], "n": -1}, "m": {"k": "v"}});
        let root = Spot::new(&object, "");
        let told = |check: &dyn Fn(&mut Errors)| {
            let mut errors = Vec::new();
            check(&mut errors);
            let said: Vec<String> = errors
                .iter()
                .map(|e| format!("{}: {}", e.field, e.message))
                .collect();
            said.join("; ")
        };
        let second = root.at("a").list("b")[1].clone();
        for (said, want) in [
            (
                told(&|e| {
                    second.required(e, "");
                }),
                "a.b[1]: Required value",
            ),
            (
                told(&|e| root.at("a").list("b")[0].among(e, &["y"])),
                "a.b[0]: Unsupported value: \"x\": supported values: \"y\"",
            ),
            (
                told(&|e| root.at("a").at("n").not_negative(e)),
                "a.n: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                told(&|e| root.at("m").entries()[0].1.not_found(e)),
                "m[k]: Not found: \"v\"",
            ),
            (told(&|e| root.at("z").among_if_set(e, &["y"])), ""),
            (
                told(&|e| unique(&root.at("a").list("b"), "k", e)),
                "a.b[1].k: Duplicate value: null",
            ),
        ] {
            assert_eq!(said, want);
        }
    }

    #[test]
    fn paths_stay_below() {
        for (path, wrong) in [
            ("a/b", 0),
            ("/a", 1),
            ("../a", 1),
            ("..a", 1),
            ("a/..b", 0),
            ("a/../b", 1),
        ] {
            let value = json!(path);
            let mut errors = Vec::new();
            not_reserved(&Spot::new(&value, "p"), &mut errors);
            assert_eq!(errors.len(), wrong, "{path}: {errors:?}");
        }
    }
}
