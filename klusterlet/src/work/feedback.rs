//! What an object's status says, as the values a work asks for (wire §3.4).

use super::jsonpath;
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

/// Evaluates all rules over one object.
pub fn evaluate(rules: &[FeedbackRule], object: &Value) -> Feedback {
    let mut out = Feedback::default();
    for rule in rules {
        match rule.type_ {
            FeedBackType::WellKnownStatus => well_known(object, &mut out),
            FeedBackType::JsonPaths => rule.json_paths.iter().for_each(|p| one_path(p, object, &mut out)),
        }
    }
    out
}

fn well_known(object: &Value, out: &mut Feedback) {
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
        one_path(&path, object, out);
    }
}

fn one_path(path: &JsonPath, object: &Value, out: &mut Feedback) {
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
    match jsonpath::select(&path.path, object) {
        Err(e) => out.errors.push(format!("{}: {e}", path.name)),
        Ok(values) => match values.first() {
            None | Some(Value::Null) => {}
            Some(value) => match field_value(value) {
                Some(value) => out.values.push(FeedbackValue {
                    name: path.name.clone(),
                    value,
                }),
                None => out.errors.push(format!(
                    "{}: the value at {} is no integer, string or boolean",
                    path.name, path.path
                )),
            },
        },
    }
}

fn field_value(value: &Value) -> Option<FieldValue> {
    let mut field = FieldValue {
        type_: ValueType::Integer,
        integer: None,
        string: None,
        boolean: None,
        json_raw: None,
    };
    match value {
        Value::Number(n) => field.integer = Some(n.as_i64()?),
        Value::String(s) => {
            field.type_ = ValueType::String;
            field.string = Some(s.clone());
        }
        Value::Bool(b) => {
            field.type_ = ValueType::Boolean;
            field.boolean = Some(*b);
        }
        _ => return None,
    }
    Some(field)
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
        let found = evaluate(&rules(json!([{"type": "WellKnownStatus"}])), &object);
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
        );
        assert_eq!(
            shown(&found),
            json!([{"name": "a", "fieldValue": {"type": "String", "string": "x"}},
                {"name": "b", "fieldValue": {"type": "Boolean", "boolean": true}}])
        );
        assert_eq!(found.errors.len(), 4, "{:?}", found.errors);
    }
}
