//! What an object's status says, as the values a work asks for (wire §3.4).

use super::jsonpath::{self, Steps};
use muster_crds::work::v1::{FeedBackType, FeedbackRule, FeedbackValue, FieldValue, JsonPath, ValueType};
use serde_json::Value;

/// The values found, and what could not be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Feedback {
    /// Values in the order of the rules.
    pub values: Vec<FeedbackValue>,
    /// One sentence for each path or rule that gave an error.
    pub errors: Vec<String>,
}

/// How long a value may be that is no integer, string or boolean, in bytes of JSON; `None`: such values are errors (feature
/// gate RawFeedbackJsonString).
pub type RawLimit = Option<usize>;

/// Longest text that is reported, in bytes. A status is one object: what is larger than an API server takes would keep all
/// of it from the hub.
const LONGEST_TEXT: usize = 64 << 10;
/// What the values of one work may have together, in bytes.
const LARGEST: usize = 512 << 10;

/// Takes out, of the last manifests first, what is too much for one status, and says so.
pub fn bounded<'a>(all: impl IntoIterator<Item = &'a mut Feedback>) {
    let mut left = LARGEST;
    for feedback in all {
        let mut dropped = Vec::new();
        feedback.values.retain(|value| {
            let size = value.name.len() + value.value.string.as_ref().map_or(8, String::len);
            let size = size + value.value.json_raw.as_ref().map_or(0, String::len);
            let fits = size <= left;
            if fits {
                left -= size;
            } else {
                dropped.push(value.name.clone());
            }
            fits
        });
        if !dropped.is_empty() {
            feedback.errors.push(format!(
                "{}: the values of this work have more than {LARGEST} bytes together",
                dropped.join(", ")
            ));
        }
    }
}

/// Evaluates all rules over one object.
pub fn evaluate(rules: &[FeedbackRule], object: &Value, raw: RawLimit) -> Feedback {
    let mut out = Feedback::default();
    let mut steps = Steps::of(object);
    for rule in rules {
        match rule.type_ {
            FeedBackType::WellKnownStatus => well_known(object, raw, &mut steps, &mut out),
            FeedBackType::JsonPaths => {
                rule.json_paths
                    .iter()
                    .for_each(|p| one_path(p, object, raw, &mut steps, &mut out));
            }
        }
    }
    // A list keyed by name: the API would refuse the whole status for a name that comes twice.
    let mut names = std::collections::HashSet::new();
    out.values.retain(|v| names.insert(v.name.clone()));
    out
}

fn well_known(object: &Value, raw: RawLimit, steps: &mut Steps, out: &mut Feedback) {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    let paths: &[(&str, &str)] = match (api_version, kind) {
        ("apps/v1", "Deployment") => &[
            ("ReadyReplicas", ".status.readyReplicas"),
            ("Replicas", ".status.replicas"),
            ("AvailableReplicas", ".status.availableReplicas"),
        ],
        ("apps/v1", "DaemonSet") => &[
            ("NumberReady", ".status.numberReady"),
            ("DesiredNumberScheduled", ".status.desiredNumberScheduled"),
            ("NumberAvailable", ".status.numberAvailable"),
        ],
        ("batch/v1", "Job") => &[
            (
                "JobComplete",
                ".status.conditions[?(@.type==\"Complete\")].status",
            ),
            ("JobSucceeded", ".status.succeeded"),
        ],
        ("v1", "Pod") => &[
            ("PodReady", ".status.conditions[?(@.type==\"Ready\")].status"),
            ("PodPhase", ".status.phase"),
        ],
        _ => {
            out.errors.push(format!(
                "no well-known status is defined for {api_version} {kind}"
            ));
            return;
        }
    };
    for (name, path) in paths {
        let path = JsonPath {
            name: (*name).to_owned(),
            path: (*path).to_owned(),
            version: String::new(),
        };
        one_path(&path, object, raw, steps, out);
    }
}

fn one_path(path: &JsonPath, object: &Value, raw: RawLimit, steps: &mut Steps, out: &mut Feedback) {
    if !path.version.is_empty() {
        let api_version = object["apiVersion"].as_str().unwrap_or_default();
        let version = api_version.rsplit('/').next().unwrap_or_default();
        if version != path.version {
            out.errors.push(format!(
                "version of {} is {}, but the object's is {version}",
                path.name, path.version
            ));
            return;
        }
    }
    let values = match jsonpath::select(&path.path, object, steps) {
        Err(e) => return out.errors.push(format!("{}: {e}", path.name)),
        Ok(values) => values,
    };
    // Without the gate the first one stands for all.
    let value = match (values.as_slice(), raw) {
        ([] | [Value::Null], _) | ([Value::Null, ..], None) => return,
        ([_, _, ..], Some(limit)) => list_value(&values, limit),
        ([first, ..], _) => field_value(first, raw),
    };
    match value {
        Ok(value) => out.values.push(FeedbackValue {
            name: path.name.clone(),
            value,
        }),
        Err(problem) => out
            .errors
            .push(format!("{}: the value at {} {problem}", path.name, path.path)),
    }
}

/// Several values as one list. They may be the same large one again and again: no more of them is written than is allowed.
fn list_value(values: &[&Value], limit: usize) -> Result<FieldValue, String> {
    let mut text = String::from("[");
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&value.to_string());
        if text.len() >= limit {
            return Err(format!(
                "has more than the {limit} bytes of JSON that are allowed"
            ));
        }
    }
    text.push(']');
    Ok(raw_value(text))
}

fn raw_value(text: String) -> FieldValue {
    FieldValue {
        type_: ValueType::JsonRaw,
        integer: None,
        string: None,
        boolean: None,
        json_raw: Some(text),
    }
}

fn field_value(value: &Value, raw: RawLimit) -> Result<FieldValue, String> {
    let mut field = FieldValue {
        type_: ValueType::Integer,
        integer: None,
        string: None,
        boolean: None,
        json_raw: None,
    };
    match (value, raw) {
        (Value::Number(n), _) if n.is_i64() => field.integer = n.as_i64(),
        (Value::String(s), _) if s.len() > LONGEST_TEXT => {
            return Err(format!("has {} bytes, {LONGEST_TEXT} are allowed", s.len()));
        }
        (Value::String(s), _) => {
            field.type_ = ValueType::String;
            field.string = Some(s.clone());
        }
        (Value::Bool(b), _) => {
            field.type_ = ValueType::Boolean;
            field.boolean = Some(*b);
        }
        (_, None) => return Err("is no integer, string or boolean".into()),
        (value, Some(limit)) => {
            let text = value.to_string();
            if text.len() > limit {
                return Err(format!("has {} bytes of JSON, {limit} are allowed", text.len()));
            }
            return Ok(raw_value(text));
        }
    }
    Ok(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(value: Value) -> Vec<FeedbackRule> {
        serde_json::from_value(value).unwrap()
    }

    fn shown(feedback: &Feedback) -> Value {
        serde_json::to_value(&feedback.values).unwrap()
    }

    #[test]
    fn well_known_deployment() {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "status": {"readyReplicas": 2, "replicas": 3}});
        let found = evaluate(&rules(json!([{"type": "WellKnownStatus"}])), &object, None);
        assert_eq!(
            shown(&found),
            json!([{"name": "ReadyReplicas", "fieldValue": {"type": "Integer", "integer": 2}},
                {"name": "Replicas", "fieldValue": {"type": "Integer", "integer": 3}}])
        );
        assert!(found.errors.is_empty());
    }

    #[test]
    fn errors_leave_the_other_values() {
        let object = json!({"apiVersion": "example.com/v2", "kind": "Thing", "status": {"a": "x", "f": 1.5, "b": true}});
        let found = evaluate(
            &rules(
                json!([{"type": "WellKnownStatus"}, {"type": "JSONPaths", "jsonPaths": [
                {"name": "a", "path": ".status.a"}, {"name": "f", "path": ".status.f"}, {"name": "bad", "path": ".a["},
                {"name": "old", "path": ".status.a", "version": "v1"}, {"name": "none", "path": ".status.none"},
                {"name": "b", "path": "{.status.b}", "version": "v2"}]}]),
            ),
            &object,
            None,
        );
        assert_eq!(
            shown(&found),
            json!([{"name": "a", "fieldValue": {"type": "String", "string": "x"}},
                {"name": "b", "fieldValue": {"type": "Boolean", "boolean": true}}])
        );
        assert_eq!(found.errors.len(), 4, "{:?}", found.errors);
    }

    #[test]
    fn raw_json_under_its_gate() {
        let object = json!({"status": {"list": [1, 2], "map": {"a": 1.5}, "long": ["x".repeat(50)], "n": 3}});
        let rules = rules(json!([{"type": "JSONPaths", "jsonPaths": [
            {"name": "each", "path": ".status.list[*]"}, {"name": "map", "path": ".status.map"},
            {"name": "n", "path": ".status.n"}, {"name": "long", "path": ".status.long"}, {"name": "n", "path": ".status.list[0]"}]}]));
        let found = evaluate(&rules, &object, Some(40));
        assert_eq!(
            shown(&found),
            json!([{"name": "each", "fieldValue": {"type": "JsonRaw", "jsonRaw": "[1,2]"}},
                {"name": "map", "fieldValue": {"type": "JsonRaw", "jsonRaw": "{\"a\":1.5}"}},
                {"name": "n", "fieldValue": {"type": "Integer", "integer": 3}}])
        );
        assert_eq!(found.errors.len(), 1, "{:?}", found.errors);
        let found = evaluate(&rules, &object, None);
        assert_eq!(found.errors.len(), 2, "{:?}", found.errors);
        assert_eq!(
            shown(&found)[0],
            json!({"name": "each", "fieldValue": {"type": "Integer", "integer": 1}})
        );
    }

    #[test]
    fn long_texts_are_told_and_a_status_stays_within_its_size() {
        let object =
            json!({"kind": "X", "long": "x".repeat(LONGEST_TEXT + 1), "fits": "y".repeat(LONGEST_TEXT)});
        let rules = rules(json!([{"type": "JSONPaths", "jsonPaths": [
            {"name": "long", "path": ".long"}, {"name": "fits", "path": ".fits"}]}]));
        let one = evaluate(&rules, &object, None);
        assert_eq!(one.values.len(), 1);
        assert_eq!(
            one.errors,
            ["long: the value at .long has 65537 bytes, 65536 are allowed"]
        );
        let mut many = vec![one; 9];
        bounded(&mut many);
        let kept = many.iter().map(|f| f.values.len()).collect::<Vec<_>>();
        assert_eq!(kept, [1, 1, 1, 1, 1, 1, 1, 0, 0]);
        assert_eq!(
            many[8].errors[1],
            "fits: the values of this work have more than 524288 bytes together"
        );
    }
}
