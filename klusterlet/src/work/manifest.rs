//! One manifest of a work: what it names and what is wrong with it before any server is asked.

use serde_json::Value;
use std::collections::HashMap;

/// Where objects go that name no namespace, as with kubectl.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What a manifest says it is. All parts may be empty where the manifest is unusable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// API group, `""` for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Namespace as written; may be empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Identity {
    /// Reads the identity without judging it.
    pub fn of(manifest: &Value) -> Self {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let api_version = manifest["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: text(&manifest["kind"]),
            namespace: text(&manifest["metadata"]["namespace"]),
            name: text(&manifest["metadata"]["name"]),
        }
    }

    /// Why the manifest can not be applied at all, or `None`.
    ///
    /// Names are parts of URLs. Of each kind the API server says itself which it takes; what would lead to another object, as
    /// that object's reader and writer is this agent, never gets there.
    pub fn problem(&self, manifest: &Value) -> Option<&'static str> {
        if !manifest.is_object() {
            Some("the manifest is not an object")
        } else if self.kind.is_empty() {
            Some("the manifest has no kind")
        } else if self.version.is_empty() {
            Some("the manifest has no apiVersion")
        } else if !manifest["metadata"]["generateName"].is_null() {
            Some("generateName must not be set in a manifest")
        } else if self.name.is_empty() {
            Some("the manifest has no metadata.name")
        } else if !is_group(&self.group) || !is_label(&self.version) {
            Some("the manifest's apiVersion is not valid")
        } else if matches!(&*self.name, "." | "..") || self.name.contains(['/', '%']) {
            Some("metadata.name may not be '.' or '..', nor contain '/' or '%'")
        } else if !self.namespace.is_empty() && !is_label(&self.namespace) {
            Some("metadata.namespace is not a namespace's name")
        } else {
            None
        }
    }
}

/// A label as RFC 1123 has it, as far as it matters: what is longer or begins otherwise is the name of nothing.
fn is_label(text: &str) -> bool {
    let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(part)
}

fn is_group(text: &str) -> bool {
    text.is_empty() || text.split('.').all(is_label)
}

/// For each manifest, an earlier one of the same object, if there is one. Versions do not tell objects apart, and no
/// namespace is `default`.
pub fn twins<'a>(manifests: impl IntoIterator<Item = &'a Value>) -> Vec<Option<usize>> {
    let mut first: HashMap<Identity, usize> = HashMap::new();
    let one = |(ordinal, manifest): (usize, &Value)| {
        let mut identity = Identity::of(manifest);
        if identity.problem(manifest).is_some() {
            return None;
        }
        identity.version.clear();
        if identity.namespace == DEFAULT_NAMESPACE {
            identity.namespace.clear();
        }
        let earlier = *first.entry(identity).or_insert(ordinal);
        (earlier != ordinal).then_some(earlier)
    };
    manifests.into_iter().enumerate().map(one).collect()
}

/// The manifest as it is sent: without what only a server may set.
pub fn required(manifest: &Value) -> Value {
    let mut object = manifest.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in [
            "uid",
            "resourceVersion",
            "generation",
            "selfLink",
            "managedFields",
        ] {
            metadata.remove(field);
        }
    }
    drop_null_timestamps(&mut object);
    if object["apiVersion"] == "v1" && object["kind"] == "Secret" {
        fold_string_data(&mut object);
    }
    object
}

/// `stringData` is write-only: servers store it in `data`, so that is what the live object is compared with.
fn fold_string_data(secret: &mut Value) {
    use base64::Engine as _;
    let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|s| s.remove("stringData")) else {
        return;
    };
    let encoded = texts.into_iter().filter_map(|(key, value)| {
        let text = value.as_str()?;
        Some((
            key,
            Value::String(base64::engine::general_purpose::STANDARD.encode(text)),
        ))
    });
    match &mut secret["data"] {
        Value::Object(data) => data.extend(encoded),
        data => *data = Value::Object(encoded.collect()),
    }
}

/// Go's serialiser writes `creationTimestamp: null`, also into pod templates; server-side apply would own it.
fn drop_null_timestamps(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Object(metadata)) = map.get_mut("metadata")
                && metadata.get("creationTimestamp").is_some_and(Value::is_null)
            {
                metadata.remove("creationTimestamp");
            }
            map.values_mut().for_each(drop_null_timestamps);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_null_timestamps),
        _ => {}
    }
}

/// A short hash of a value, stable across restarts and versions: object keys are sorted by serde_json's map.
pub fn hash(value: &Value) -> String {
    hex(&ring::digest::digest(&ring::digest::SHA256, value.to_string().as_bytes()).as_ref()[..16])
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn twins_name_the_same_object() {
        let map = |version: &str, namespace: &str, name: &str| json!({"apiVersion": version, "kind": "Thing", "metadata": {"name": name, "namespace": namespace}});
        let manifests = [
            map("g/v1", "default", "a"),
            map("g/v1", "n", "a"),
            map("g/v2", "", "a"),
            map("h/v1", "", "a"),
            map("g/v1", "n", "a"),
            json!({"apiVersion": "g/v1", "kind": "Thing"}),
            json!({"apiVersion": "g/v1", "kind": "Thing"}),
        ];
        let found = twins(&manifests);
        assert_eq!(found, [None, None, Some(0), None, Some(1), None, None]);
    }

    #[test]
    fn identity_and_problems() {
        let cases = [
            (json!("text"), Some("the manifest is not an object")),
            (
                json!({"apiVersion": "v1", "metadata": {"name": "a"}}),
                Some("the manifest has no kind"),
            ),
            (
                json!({"kind": "ConfigMap", "metadata": {"name": "a"}}),
                Some("the manifest has no apiVersion"),
            ),
            (
                json!({"apiVersion": "v1", "kind": "ConfigMap"}),
                Some("the manifest has no metadata.name"),
            ),
            (
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "a-"}}),
                Some("generateName must not be set in a manifest"),
            ),
            (
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}),
                None,
            ),
            (
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                    "metadata": {"name": "system:a?b#c", "namespace": "kube-system"}}),
                None,
            ),
            (
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system/secrets/foo"}}),
                Some("metadata.name may not be '.' or '..', nor contain '/' or '%'"),
            ),
            (
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "..", "namespace": "a"}}),
                Some("metadata.name may not be '.' or '..', nor contain '/' or '%'"),
            ),
            (
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "x/secrets/foo?"}}),
                Some("metadata.namespace is not a namespace's name"),
            ),
            (
                json!({"apiVersion": "apps/v1/../../api/v1", "kind": "Deployment", "metadata": {"name": "a"}}),
                Some("the manifest's apiVersion is not valid"),
            ),
            (
                json!({"apiVersion": "../v1", "kind": "Deployment", "metadata": {"name": "a"}}),
                Some("the manifest's apiVersion is not valid"),
            ),
        ];
        for (manifest, problem) in cases {
            assert_eq!(Identity::of(&manifest).problem(&manifest), problem, "{manifest}");
        }
    }

    #[test]
    fn required_leaves_out_what_servers_set() {
        let manifest = json!({"metadata": {"name": "a", "uid": "u", "creationTimestamp": null},
            "spec": {"template": {"metadata": {"creationTimestamp": null, "labels": {"a": "b"}}}}});
        let expected =
            json!({"metadata": {"name": "a"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}}}}});
        assert_eq!(required(&manifest), expected);
    }

    #[test]
    fn hash_is_stable() {
        assert_eq!(hash(&json!({"b": 1, "a": 2})), hash(&json!({"a": 2, "b": 1})));
        assert_ne!(hash(&json!({"a": 2})), hash(&json!({"a": 3})));
    }
}
