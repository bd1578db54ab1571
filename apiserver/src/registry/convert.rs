//! Between the version an object is stored in and the one it is served in. Of custom resources apiVersion is another
//! (conversion None) and what the schema of a version does not know is dropped; two built-in kinds have two shapes: Events
//! and HorizontalPodAutoscalers.

use super::{Custom, Resource, split_api_version};
use crate::object;
use crate::schema::{default, prune};
use serde_json::{Map, Value, json};

/// core/v1 name and events.k8s.io/v1 name of an Event's fields that differ.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];
const CPU: &str = "cpu";

/// The object as its resource's storage keeps it.
pub fn to_storage(resource: &Resource, mut value: Value) -> Value {
    if resource.api_version() == resource.storage_api_version || !value.is_object() {
        return value;
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("events.k8s.io", "events") => rename(&mut value, |(old, new)| (new, old)),
        ("autoscaling", "horizontalpodautoscalers") => scaler_to_v2(&mut value),
        _ => {}
    }
    value["apiVersion"] = resource.storage_api_version.as_str().into();
    if let Some(custom) = &resource.custom {
        conform(custom, &resource.storage_version, &mut value, true);
    }
    value
}

/// Makes a custom object one of a version's schema.
fn conform(custom: &Custom, version: &str, value: &mut Value, fill: bool) {
    let Some(schema) = custom.schema_of(version) else {
        return;
    };
    prune::prune(schema, value, true);
    if fill {
        default::apply_defaults(schema, value);
    }
}

/// A stored object as it would be stored today.
pub fn refreshed(resource: &Resource, mut value: Value) -> Value {
    if let Some(custom) = &resource.custom {
        let revision = object::resource_version(&value).parse().unwrap_or_default();
        if !is_current(resource, revision) {
            let stored = value["apiVersion"].as_str().unwrap_or_default().to_owned();
            conform(custom, split_api_version(&stored).1, &mut value, true);
        }
    }
    value
}

/// Whether an object stored at this revision is as it would be stored today.
pub fn is_current(resource: &Resource, revision: u64) -> bool {
    resource.custom.as_ref().is_none_or(|c| revision >= c.since)
}

/// A stored object as this resource serves it.
pub fn from_storage(resource: &Resource, mut value: Value) -> Value {
    let wanted = resource.api_version();
    if !value.is_object() {
        return value;
    }
    let stored = value["apiVersion"].as_str().unwrap_or_default().to_owned();
    if let Some(custom) = &resource.custom {
        value = refreshed(resource, value);
        if stored != wanted {
            value["apiVersion"] = wanted.into();
            conform(custom, &resource.version, &mut value, false);
        }
        return value;
    }
    if stored == wanted {
        return value;
    }
    match (resource.plural.as_str(), stored.as_str()) {
        ("events", "v1") => {
            rename(&mut value, |pair| pair);
            // Empty they are written in the core's version only.
            for key in ["reportingController", "reportingInstance"] {
                if value[key] == json!("") {
                    value.as_object_mut().map(|map| map.remove(key));
                }
            }
        }
        ("horizontalpodautoscalers", "autoscaling/v2") => scaler_to_v1(&mut value),
        _ => {}
    }
    value["apiVersion"] = wanted.into();
    value
}

fn rename(value: &mut Value, pick: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Value::Object(map) = value else { return };
    for pair in EVENT_FIELDS {
        let (from, to) = pick(pair);
        if let Some(field) = map.remove(from) {
            map.insert(to.to_owned(), field);
        }
    }
}

fn utilization(metric: &Value) -> Option<&Value> {
    let resource = &metric["resource"];
    (resource["name"] == CPU)
        .then(|| &resource["target"]["averageUtilization"])
        .filter(|v| !v.is_null())
}

/// autoscaling/v1 knows one metric, the cpu utilization; others travel in annotations there, as in Kubernetes.
const METRICS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn take_annotation(value: &mut Value, key: &str) -> Option<Value> {
    let annotations = value.pointer_mut("/metadata/annotations")?.as_object_mut()?;
    let text = annotations.remove(key)?;
    if annotations.is_empty() {
        object::set_meta(value, "annotations", None);
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn scaler_to_v2(value: &mut Value) {
    let others = take_annotation(value, METRICS_ANNOTATION);
    let behavior = take_annotation(value, BEHAVIOR_ANNOTATION);
    let spec = object::child_mut(value, "spec");
    let mut metrics: Vec<Value> = others.and_then(|o| o.as_array().cloned()).unwrap_or_default();
    if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
        metrics.push(json!({
            "type": "Resource",
            "resource": {"name": CPU, "target": {"type": "Utilization", "averageUtilization": percent}},
        }));
    }
    if !metrics.is_empty() {
        spec.insert("metrics".to_owned(), Value::Array(metrics));
    }
    if let Some(behavior) = behavior {
        spec.insert("behavior".to_owned(), behavior);
    }
    let status = object::child_mut(value, "status");
    let current = status.remove("currentCPUUtilizationPercentage").map_or(Value::Null, |percent| {
        json!([{"type": "Resource", "resource": {"name": CPU, "current": {"averageUtilization": percent}}}])
    });
    status.insert("currentMetrics".to_owned(), current);
    // Always written in v1, and only when there are any in v2.
    if status.get("currentReplicas") == Some(&json!(0)) {
        status.remove("currentReplicas");
    }
}

fn scaler_to_v1(value: &mut Value) {
    let spec = object::child_mut(value, "spec");
    let mut metrics = spec
        .remove("metrics")
        .and_then(|m| m.as_array().cloned())
        .unwrap_or_default();
    let behavior = spec.remove("behavior");
    let cpu = metrics.iter().position(|m| utilization(m).is_some());
    if let Some(at) = cpu {
        let metric = metrics.remove(at);
        if let Some(percent) = utilization(&metric) {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), percent.clone());
        }
    }
    let status = object::child_mut(value, "status");
    let current = status.remove("currentMetrics").unwrap_or_default();
    let percent = current
        .as_array()
        .into_iter()
        .flatten()
        .find(|m| m["resource"]["name"] == CPU)
        .map(|m| m["resource"]["current"]["averageUtilization"].clone())
        .filter(|p| !p.is_null());
    if let Some(percent) = percent {
        status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
    }
    status.entry("currentReplicas").or_insert_with(|| 0.into());
    status.remove("conditions");
    let mut extra = Map::new();
    if !metrics.is_empty() {
        extra.insert(
            METRICS_ANNOTATION.to_owned(),
            Value::Array(metrics).to_string().into(),
        );
    }
    if let Some(behavior) = behavior {
        extra.insert(BEHAVIOR_ANNOTATION.to_owned(), behavior.to_string().into());
    }
    if !extra.is_empty() {
        let annotations = object::metadata_mut(value)
            .entry("annotations")
            .or_insert_with(|| json!({}));
        if let Value::Object(own) = annotations {
            own.extend(extra);
        }
    }
}
