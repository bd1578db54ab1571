//! How large a stored object may be: kube-apiserver's etcd takes no more than 1.5 MiB at once.

use crate::ApiError;
use crate::registry::Resource;
use serde_json::Value;

/// Bytes etcd takes (its `--max-request-bytes`).
const LIMIT: usize = 1536 * 1024;

/// Refuses what etcd would refuse, in its words.
pub fn check(r: &Resource, stored: &Value) -> Result<(), ApiError> {
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
