//! What differs between an object and what it should be, in words that fit into a status.

use super::drift;
use muster_crds::constants::{annotations, labels};
use serde_json::Value;

/// Fields named at most.
const MAX_FIELDS: usize = 10;
/// Characters shown of a value at most.
const MAX_VALUE: usize = 60;
/// Characters shown of a path at most.
const MAX_PATH: usize = 120;

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where, as its steps.
    pub path: Vec<String>,
    /// Shortened JSON of what is there; `None`: nothing.
    pub is: Option<String>,
    /// Shortened JSON of what should be there; `None`: nothing.
    pub should: Option<String>,
}

/// The fields in which `live` differs from `target`. Our own marks and what only servers write do not count. Values of
/// Secrets are never shown.
pub fn differences(live: &Value, target: &Value) -> Vec<Difference> {
    let secret = live["kind"] == "Secret" || target["kind"] == "Secret";
    let kind = Kind {
        secret,
        empties: drift::keeps_empties(target),
    };
    let mut out = Vec::new();
    walk(&mut Vec::new(), Some(live), Some(target), kind, &mut out);
    out
}

/// What counts in a kind of objects.
#[derive(Clone, Copy)]
struct Kind {
    /// Its values are not shown.
    secret: bool,
    /// Empty maps and lists mean something.
    empties: bool,
}

fn ignored(path: &[String]) -> bool {
    let steps: Vec<&str> = path.iter().map(String::as_str).collect();
    match steps.as_slice() {
        ["status", ..] => true,
        ["metadata", rest @ ..] => match rest {
            [
                "managedFields" | "resourceVersion" | "generation" | "ownerReferences",
                ..,
            ] => true,
            ["labels", key] => [labels::APPLIED, labels::OBJECT_HASH].contains(key),
            ["annotations", key] => *key == annotations::CONFIG_SPEC_HASH,
            _ => false,
        },
        _ => false,
    }
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

fn walk(
    path: &mut Vec<String>,
    live: Option<&Value>,
    target: Option<&Value>,
    kind: Kind,
    out: &mut Vec<Difference>,
) {
    let null = |value: Option<&Value>| value.is_none_or(Value::is_null);
    let empties = kind.empties && path.first().is_some_and(|step| step != "metadata");
    let nothing = if empties {
        null(live) && null(target)
    } else {
        is_empty(live) && is_empty(target)
    };
    if live == target || nothing || ignored(path) {
        return;
    }
    let mut step = |name: String, live: Option<&Value>, target: Option<&Value>, out: &mut Vec<Difference>| {
        path.push(name);
        walk(path, live, target, kind, out);
        path.pop();
    };
    match (live, target) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for key in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                step(key.clone(), a.get(key), b.get(key), out);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                step(at.to_string(), Some(a), Some(b), out);
            }
        }
        // A map that one side does not have: its fields tell more, and our marks are found among them.
        (Some(Value::Object(a)), None) if !a.is_empty() => {
            for (key, value) in a {
                step(key.clone(), Some(value), None, out);
            }
        }
        (None, Some(Value::Object(b))) if !b.is_empty() => {
            for (key, value) in b {
                step(key.clone(), None, Some(value), out);
            }
        }
        (live, target) => {
            let hidden = kind.secret
                && matches!(
                    path.first().map(String::as_str),
                    Some("data" | "stringData" | "metadata")
                );
            let show = |value: Option<&Value>| {
                value.map(|v| {
                    if hidden {
                        "(not shown)".to_owned()
                    } else {
                        shortened(&v.to_string(), MAX_VALUE)
                    }
                })
            };
            out.push(Difference {
                path: path.clone(),
                is: show(live),
                should: show(target),
            });
        }
    }
}

fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(limit).collect();
    short.push('…');
    short
}

impl Difference {
    /// The path with dots; names that hold dots in brackets.
    pub fn dotted(&self) -> String {
        let mut out = String::new();
        for step in &self.path {
            if step.chars().all(|c| c.is_ascii_digit()) || step.contains(['.', '/']) {
                out.push('[');
                out.push_str(step);
                out.push(']');
            } else {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(step);
            }
        }
        shortened(&out, MAX_PATH)
    }
}

/// All of them in one sentence of bounded length.
pub fn told(differences: &[Difference]) -> String {
    let one = |d: &Difference| match (&d.is, &d.should) {
        (Some(is), Some(should)) => format!("{} is {is}, should be {should}", d.dotted()),
        (Some(is), None) => format!("{} is {is}, should not be there", d.dotted()),
        (None, Some(should)) => format!("{} is not there, should be {should}", d.dotted()),
        (None, None) => format!("{} is not there", d.dotted()),
    };
    let mut parts: Vec<String> = differences.iter().take(MAX_FIELDS).map(one).collect();
    if differences.len() > MAX_FIELDS {
        parts.push(format!("and {} more", differences.len() - MAX_FIELDS));
    }
    parts.join("; ")
}

/// Only where, in a few words.
pub fn fields(differences: &[Difference]) -> String {
    let mut parts: Vec<String> = differences.iter().take(5).map(Difference::dotted).collect();
    if differences.len() > 5 {
        parts.push(format!("and {} more", differences.len() - 5));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_named_with_both_values() {
        let live = json!({"kind": "Deployment", "metadata": {"labels": {"a.b/c": "x", (labels::APPLIED): "true"}, "generation": 3},
            "spec": {"replicas": 3, "extra": true, "template": {"containers": [{"image": "i:2"}]}}, "status": {"n": 1}});
        let target = json!({"kind": "Deployment", "metadata": {"labels": {"a.b/c": "y"}, "generation": 2},
            "spec": {"replicas": 1, "template": {"containers": [{"image": "i:1"}]}, "empty": {}}});
        let found = differences(&live, &target);
        assert_eq!(
            told(&found),
            "metadata.labels[a.b/c] is \"x\", should be \"y\"; spec.extra is true, should not be there; \
             spec.replicas is 3, should be 1; spec.template.containers[0].image is \"i:2\", should be \"i:1\""
        );
        assert!(differences(&live, &live).is_empty());
    }

    #[test]
    fn secrets_are_not_shown_and_long_things_are_cut() {
        let secret =
            |v: &str| json!({"kind": "Secret", "data": {"k": v}, "metadata": {"annotations": {"last": v}}});
        let text = told(&differences(&secret("aGlkZGVu"), &secret("b3RoZXI=")));
        assert!(text.contains("data.k is (not shown)"), "{text}");
        assert!(!text.contains("aGlkZGVu") && !text.contains("b3RoZXI="), "{text}");
        let wide: serde_json::Map<String, Value> = (0..500)
            .map(|i| (format!("{}{i}", "k".repeat(200)), "v".repeat(500).into()))
            .collect();
        let text = told(&differences(&json!({"data": {}}), &json!({ "data": wide })));
        assert!(text.len() < 4000, "{}", text.len());
        assert!(text.ends_with("and 490 more"), "{text}");
    }
}
