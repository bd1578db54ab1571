//! How large a stored object may be: kube-apiserver's etcd takes no more than 1.5 MiB at once. And how deep: what is read back
//! is read by recursion, here and in every client that uses serde_json, whose bound is 128 with all that is around the object.

use crate::ApiError;
use crate::registry::Resource;
use serde_json::Value;

/// Bytes etcd takes (its `--max-request-bytes`).
const LIMIT: usize = 1536 * 1024;

/// Levels of lists and objects in one another, the object and its `managedFields` included.
const DEEPEST: usize = 100;

/// Refuses what etcd would refuse, in its words, and what is too deep to be read.
pub fn check(r: &Resource, stored: &Value) -> Result<(), ApiError> {
    if is_deeper(stored, DEEPEST) {
        return Err(ApiError::BadRequest(format!(
            "the object has lists and objects more than {DEEPEST} levels deep, which is more than this server keeps"
        )));
    }
    // Most objects are small: counting their text costs less than writing them out.
    let mut size = texts(stored);
    if r.is_custom() && size > LIMIT / 4 {
        size = serde_json::to_vec(stored).map_or(size, |json| json.len());
    }
    if size <= LIMIT {
        return Ok(());
    }
    Err(ApiError::Plain("etcdserver: request is too large".into()))
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(_) | Value::Object(_) if levels == 0 => true,
        Value::Array(items) => items.iter().any(|v| is_deeper(v, levels - 1)),
        Value::Object(fields) => fields.values().any(|v| is_deeper(v, levels - 1)),
        _ => false,
    }
}

/// Bytes of all texts: about what a built-in object takes, which Kubernetes stores as protobuf. Names of fields are not in
/// that, and bytes not in base64.
fn texts(value: &Value) -> usize {
    let binary = match value["kind"].as_str() {
        Some("Secret") => all_texts(&value["data"]),
        Some("ConfigMap") => all_texts(&value["binaryData"]),
        _ => 0,
    };
    all_texts(value) - binary / 4
}

fn all_texts(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(all_texts).sum(),
        Value::Object(fields) => fields.values().map(all_texts).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_too_deep_to_be_read_is_refused() {
        let registry = crate::registry::Registry::new();
        let maps = registry.find("", "v1", "configmaps").unwrap();
        let deep = |levels: usize| {
            (1..levels).fold(json!({}), |inner, n| {
                if n % 2 == 0 {
                    json!([inner])
                } else {
                    json!({"a": inner})
                }
            })
        };
        assert!(check(&maps, &deep(DEEPEST)).is_ok());
        let refused = check(&maps, &deep(DEEPEST + 1)).unwrap_err();
        assert!(
            matches!(&refused, ApiError::BadRequest(m) if m.contains("levels deep")),
            "{refused:?}"
        );
    }

    #[test]
    fn what_etcd_refuses_is_refused() {
        let registry = crate::registry::Registry::new();
        let maps = registry.find("", "v1", "configmaps").unwrap();
        let text = |n: usize| "\n".repeat(n);
        for (object, good) in [
            (
                json!({"kind": "ConfigMap", "data": {"a": text(1024 * 1024)}}),
                true,
            ),
            (
                json!({"kind": "ConfigMap", "data": {"a": text(LIMIT - 64)}}),
                true,
            ),
            (
                json!({"kind": "ConfigMap", "data": {"a": text(LIMIT + 1)}}),
                false,
            ),
            // As many bytes as etcd takes, in base64.
            (
                json!({"kind": "Secret", "data": {"a": text((LIMIT - 64) / 3 * 4)}}),
                true,
            ),
            (
                json!({"kind": "Secret", "data": {"a": text((LIMIT + 64) / 3 * 4)}}),
                false,
            ),
        ] {
            assert_eq!(check(&maps, &object).is_ok(), good);
        }
    }
}
