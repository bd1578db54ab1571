//! What Go's typed decoders would refuse of a built-in object, in their words (sigs.k8s.io/json and the types' own
//! `UnmarshalJSON`).

use super::{Ref, Schema, Type, builtin, formats};
use serde_json::Value;

const SUFFIX: &str = "unable to parse quantity's suffix";
const QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";

/// The decoder's complaint about `object`, or `None` when a typed decoder would take it. What follows
/// `<Kind> in version "<v>" cannot be handled as a <Kind>: ` in a 400.
pub fn check_types(schema: &Schema, object: &Value) -> Option<String> {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    node(
        schema,
        object,
        &Place {
            owner: kind,
            path: String::new(),
            own_type: kind.to_owned(),
        },
    )
}

/// A null in a map of strings is an empty string to Go's decoder.
pub fn fill_nulls(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                if let Some(property) = schema.properties.get(key.as_str()) {
                    fill_nulls(Schema::resolve(property), child);
                } else if let Some(additional) = &schema.additional {
                    let additional = Schema::resolve(additional);
                    if child.is_null() && additional.kind == Type::String {
                        *child = "".into();
                    } else {
                        fill_nulls(additional, child);
                    }
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.items() {
                for item in list {
                    fill_nulls(items, item);
                }
            }
        }
        _ => {}
    }
}

/// The complaint about the `metadata` of a custom resource and of the resources embedded in it.
pub fn check_metadata(schema: &Schema, object: &Value) -> Option<String> {
    embedded(schema, object, "", true)
}

fn embedded(schema: &Schema, value: &Value, path: &str, resource: bool) -> Option<String> {
    match value {
        Value::Object(map) => {
            let resource = resource || schema.embedded_resource;
            for (key, child) in map {
                let at = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let found = if resource && key == "metadata" {
                    let kind = map.get("kind").and_then(Value::as_str).unwrap_or_default();
                    let own_type = "v1.ObjectMeta".to_owned();
                    if path.is_empty() && child.is_object() {
                        let place = Place {
                            owner: "ObjectMeta",
                            path: String::new(),
                            own_type,
                        };
                        let found = node(builtin::object_meta(), child, &place);
                        if found.is_some() {
                            return found;
                        }
                        continue;
                    }
                    if !path.is_empty() && !child.is_object() && !child.is_null() {
                        let what = token(child);
                        return Some(format!(
                            "{at}: Invalid value: {child}: json: cannot unmarshal {what} into Go value of type {own_type}"
                        ));
                    }
                    node(
                        builtin::object_meta(),
                        child,
                        &Place {
                            owner: kind,
                            path: at,
                            own_type,
                        },
                    )
                } else {
                    schema.child(key).and_then(|s| embedded(s, child, &at, false))
                };
                if found.is_some() {
                    return found;
                }
            }
            None
        }
        Value::Array(list) => {
            let items = schema.items()?;
            list.iter().find_map(|item| embedded(items, item, path, false))
        }
        _ => None,
    }
}

/// Where a value stands, for the message: `Go struct field <owner>.<path> of type <own_type>`.
struct Place<'a> {
    owner: &'a str,
    path: String,
    own_type: String,
}

impl Place<'_> {
    #[allow(clippy::unnecessary_wraps)] // every caller answers with it
    fn refuse(&self, what: &str) -> Option<String> {
        Some(if self.path.is_empty() {
            format!(
                "json: cannot unmarshal {what} into Go value of type {}",
                self.own_type
            )
        } else {
            let Self {
                owner,
                path,
                own_type,
            } = self;
            format!("json: cannot unmarshal {what} into Go struct field {owner}.{path} of type {own_type}")
        })
    }
}

fn token(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `v1.PodSpec` for `io.k8s.api.core.v1.PodSpec`, and the bare type name.
fn go_names(name: &str) -> (String, &str) {
    let mut parts = name.rsplit('.');
    let last = parts.next().unwrap_or_default();
    let package = parts.next().unwrap_or_default();
    (format!("{package}.{last}"), last)
}

fn go_type(reference: &Ref) -> String {
    let schema = Schema::resolve(reference);
    if let Ref::Named(name) = reference
        && !builtin::is_scalar(name)
    {
        return go_names(name).0;
    }
    match schema.kind {
        Type::String if schema.format.as_deref() == Some("byte") => "[]uint8".into(),
        Type::String => "string".into(),
        Type::Boolean => "bool".into(),
        Type::Integer => schema.format.as_deref().unwrap_or("int64").into(),
        Type::Number => "float64".into(),
        Type::Array => format!(
            "[]{}",
            schema
                .items
                .as_ref()
                .map_or_else(|| "interface {}".into(), go_type)
        ),
        Type::Object => {
            format!(
                "map[string]{}",
                schema
                    .additional
                    .as_ref()
                    .map_or_else(|| "interface {}".into(), go_type)
            )
        }
        Type::Any | Type::IntOrString | Type::Quantity => "interface {}".into(),
    }
}

fn node(schema: &Schema, value: &Value, place: &Place<'_>) -> Option<String> {
    if value.is_null() {
        return None; // null leaves any Go value as it is
    }
    match schema.kind {
        Type::Any => None,
        Type::Object => object(schema, value, place),
        Type::Array => match value {
            Value::Array(list) => {
                let reference = schema.items.as_ref()?;
                let items = Schema::resolve(reference);
                let own_type = go_type(reference);
                let owner = named_owner(reference).unwrap_or(place.owner);
                let place = Place {
                    owner,
                    path: place.path.clone(),
                    own_type,
                };
                list.iter().find_map(|item| node(items, item, &place))
            }
            other => place.refuse(token(other)),
        },
        Type::Boolean => {
            if value.is_boolean() {
                None
            } else {
                place.refuse(token(value))
            }
        }
        Type::Number => {
            if value.is_number() {
                None
            } else {
                place.refuse(token(value))
            }
        }
        Type::Integer => match value {
            Value::Number(n) => {
                let fits = n
                    .as_i64()
                    .is_some_and(|i| place.own_type != "int32" || i32::try_from(i).is_ok());
                if fits {
                    None
                } else {
                    place.refuse(&format!("number {n}"))
                }
            }
            other => place.refuse(token(other)),
        },
        Type::String => match (value, schema.format.as_deref()) {
            (Value::String(text), Some("byte")) => bad_base64(text),
            (Value::String(text), Some("date-time")) => bad_time(text).or_else(|| {
                let micro = builtin::named(MICRO_TIME).is_some_and(|s| std::ptr::eq(s, schema));
                micro.then(|| bad_micro_time(text)).flatten()
            }),
            (Value::String(_), _) => None,
            (other, Some("date-time")) => Some(format!(
                "json: cannot unmarshal {} into Go value of type string",
                token(other)
            )),
            (other, _) => place.refuse(token(other)),
        },
        Type::IntOrString => match value {
            Value::String(_) => None,
            Value::Number(n) if n.as_i64().is_some_and(|i| i32::try_from(i).is_ok()) => None,
            Value::Number(n) => Some(format!(
                "json: cannot unmarshal number {n} into Go value of type int32"
            )),
            other => Some(format!(
                "json: cannot unmarshal {} into Go value of type int32",
                token(other)
            )),
        },
        Type::Quantity => match value {
            Value::String(text) => quantity_problem(text).map(str::to_owned),
            Value::Number(n) => quantity_problem(&n.to_string()).map(str::to_owned),
            _ => Some(QUANTITY.into()),
        },
    }
}

fn named_owner(reference: &Ref) -> Option<&str> {
    match reference {
        Ref::Named(name) if !builtin::is_scalar(name) => Some(go_names(name).1),
        _ => None,
    }
}

/// The struct that a Go type has a field from without saying so in JSON: decoders name it on their way.
fn embedded_struct(own_type: &str, field: &str) -> Option<&'static str> {
    let (_, name) = own_type.rsplit_once('.')?;
    match (name, field) {
        ("Probe", "exec" | "httpGet" | "tcpSocket" | "grpc") => Some("ProbeHandler"),
        ("Volume", "name") | ("EphemeralContainer", "targetContainerName") => None,
        ("Volume", _) => Some("VolumeSource"),
        ("EphemeralContainer", _) => Some("EphemeralContainerCommon"),
        (
            "PersistentVolumeSpec",
            "awsElasticBlockStore"
            | "azureDisk"
            | "azureFile"
            | "cephfs"
            | "cinder"
            | "csi"
            | "fc"
            | "flexVolume"
            | "flocker"
            | "gcePersistentDisk"
            | "glusterfs"
            | "hostPath"
            | "iscsi"
            | "local"
            | "nfs"
            | "photonPersistentDisk"
            | "portworxVolume"
            | "quobyte"
            | "rbd"
            | "scaleIO"
            | "storageos"
            | "vsphereVolume",
        ) => Some("PersistentVolumeSource"),
        ("IngressRule", "http") => Some("IngressRuleValue"),
        (
            "ConfigMapKeySelector"
            | "SecretKeySelector"
            | "ConfigMapEnvSource"
            | "SecretEnvSource"
            | "ConfigMapProjection"
            | "SecretProjection"
            | "ConfigMapVolumeSource",
            "name",
        ) => Some("LocalObjectReference"),
        _ => None,
    }
}

fn object(schema: &Schema, value: &Value, place: &Place<'_>) -> Option<String> {
    let Value::Object(map) = value else {
        // Raw JSON is kept whatever it is.
        return if schema.preserve_unknown {
            None
        } else {
            place.refuse(token(value))
        };
    };
    for (key, child) in map {
        let found = if let Some(reference) = schema.properties.get(key.as_str()) {
            let within = embedded_struct(&place.own_type, key);
            let parts = [place.path.as_str(), within.unwrap_or_default(), key];
            let path = parts
                .into_iter()
                .filter(|p| !p.is_empty())
                .collect::<Vec<_>>()
                .join(".");
            // A field's struct is the owner of what stands inside it.
            let inner = Schema::resolve(reference);
            let owner = match (named_owner(reference), inner.properties.is_empty()) {
                (Some(owner), false) if child.is_object() => owner,
                _ => place.owner,
            };
            node(
                inner,
                child,
                &Place {
                    owner,
                    path,
                    own_type: go_type(reference),
                },
            )
        } else if let Some(reference) = &schema.additional {
            let owner = named_owner(reference).unwrap_or(place.owner);
            let place = Place {
                owner,
                path: place.path.clone(),
                own_type: go_type(reference),
            };
            node(Schema::resolve(reference), child, &place)
        } else {
            None
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

fn bad_base64(text: &str) -> Option<String> {
    let at = where_base64_breaks(text.as_bytes())?;
    Some(format!("illegal base64 data at input byte {at}"))
}

/// Where Go's `base64.StdEncoding` stops: at the character, or where the four begin that are no four. It skips line breaks and
/// does not look at loose trailing bits.
fn where_base64_breaks(text: &[u8]) -> Option<usize> {
    let is_break = |at: usize| matches!(text.get(at), Some(b'\n' | b'\r'));
    let after_breaks = |mut at: usize| {
        while is_break(at) {
            at += 1;
        }
        at
    };
    let (mut at, mut have) = (0, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => have = (have + 1) % 4,
            b'\n' | b'\r' => {}
            b'=' if have >= 2 => {
                at += 1;
                if have == 2 {
                    at = after_breaks(at);
                    match text.get(at) {
                        Some(b'=') => at += 1,
                        Some(_) => return Some(at - 1),
                        None => return Some(text.len()),
                    }
                }
                at = after_breaks(at);
                return (at < text.len()).then_some(at);
            }
            _ => return Some(at),
        }
        at += 1;
    }
    (have > 0).then(|| text.len() - have)
}

fn bad_time(text: &str) -> Option<String> {
    if formats::is_date_time(text) {
        return None;
    }
    // Go names the first part of the layout that does not fit; the year is where most bad times fail.
    Some(format!(
        "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
    ))
}

/// Of a time in microseconds Go reads six decimal places, no more and no less.
fn bad_micro_time(text: &str) -> Option<String> {
    let rest = text.get("2006-01-02T15:04:05".len()..)?;
    let (rest, wanted) = match rest.strip_prefix('.') {
        Some(fraction) => match fraction.bytes().take_while(u8::is_ascii_digit).count() {
            6 => return None,
            0..6 => (rest, ".000000"),
            _ => (&fraction[6..], "Z07:00"),
        },
        None => (rest, ".000000"),
    };
    Some(format!(
        "parsing time {text:?} as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse {rest:?} as {wanted:?}"
    ))
}

/// Why `text` is no resource quantity (apimachinery `resource.ParseQuantity`).
fn quantity_problem(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let exponent = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let shaped = number.bytes().filter(|b| *b == b'.').count() < 2
        && !(number.is_empty() && digits.is_empty())
        && digits.bytes().all(|b| b.is_ascii_digit());
    if !shaped {
        return Some(QUANTITY);
    }
    let known = match suffix {
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi"
        | "Ei" => true,
        _ => suffix
            .strip_prefix(['e', 'E'])
            .is_some_and(|exponent| exponent.parse::<i32>().is_ok()),
    };
    (!known).then_some(SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn where_base64_ends() {
        for (text, want) in [
            ("", None),
            ("aGVsbG8=", None),
            ("aGVsbG8\n=\n", None),
            ("YR==", None),
            ("aGVsbG8", Some(4)),
            ("aGVsb", Some(4)),
            ("aGVsbG8=x", Some(8)),
            ("YQ==YQ==", Some(4)),
            ("YQ", Some(0)),
            ("YQ=", Some(3)),
            ("YQ=x", Some(2)),
            ("${AGENT}", Some(0)),
            ("a b", Some(1)),
            ("=", Some(0)),
        ] {
            assert_eq!(where_base64_breaks(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_quantity() {
        for (text, want) in [
            ("1", None),
            (" 1.5Gi ", None),
            (".5", None),
            ("1e-3", None),
            ("5kk", Some(SUFFIX)),
            ("5e", Some(SUFFIX)),
            ("+-1", Some(SUFFIX)),
            ("5Q", Some(QUANTITY)),
            ("1.2.3", Some(QUANTITY)),
            ("", Some(QUANTITY)),
        ] {
            assert_eq!(quantity_problem(text), want, "{text}");
        }
    }

    #[test]
    fn what_go_refuses() {
        let cases = [
            (
                "",
                "v1",
                "Pod",
                json!({"spec": {"containers": [{"livenessProbe": {"httpGet": {"path": 1}}}]}}),
                Some(
                    "json: cannot unmarshal number into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.path of type string",
                ),
            ),
            (
                "",
                "v1",
                "Pod",
                json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": 1}}]}}),
                Some(
                    "json: cannot unmarshal number into Go struct field ConfigMapVolumeSource.spec.volumes.VolumeSource.configMap.LocalObjectReference.name of type string",
                ),
            ),
            (
                "",
                "v1",
                "Secret",
                json!({"data": {"p": "%%"}}),
                Some("illegal base64 data at input byte 0"),
            ),
            (
                "",
                "v1",
                "Secret",
                json!({"data": {"p": "YQ"}}),
                Some("illegal base64 data at input byte 0"),
            ),
            (
                "",
                "v1",
                "Secret",
                json!({"data": {"p": "YQ=="}, "stringData": null}),
                None,
            ),
            (
                "",
                "v1",
                "Secret",
                json!({"data": {"p": 1}}),
                Some("json: cannot unmarshal number into Go struct field Secret.data of type []uint8"),
            ),
            (
                "",
                "v1",
                "ResourceQuota",
                json!({"spec": {"hard": {"pods": "abc"}}}),
                Some(QUANTITY),
            ),
            (
                "",
                "v1",
                "ResourceQuota",
                json!({"spec": {"hard": {"pods": 5, "cpu": "1.5", "memory": "-1e3"}}}),
                None,
            ),
            (
                "apps",
                "v1",
                "Deployment",
                json!({"spec": {"replicas": "three"}}),
                Some(
                    "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
                ),
            ),
            (
                "apps",
                "v1",
                "Deployment",
                json!({"spec": {"replicas": 1.5}}),
                Some(
                    "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
                ),
            ),
            (
                "",
                "v1",
                "ConfigMap",
                json!({"data": {"n": 5}}),
                Some("json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
            ),
            (
                "",
                "v1",
                "ConfigMap",
                json!({"metadata": {"name": true}}),
                Some(
                    "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.name of type string",
                ),
            ),
            (
                "",
                "v1",
                "ConfigMap",
                json!({"data": ["x"]}),
                Some(
                    "json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string",
                ),
            ),
            (
                "",
                "v1",
                "Pod",
                json!({"spec": {"containers": "x"}}),
                Some(
                    "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
                ),
            ),
            (
                "",
                "v1",
                "Pod",
                json!({"spec": "x"}),
                Some("json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec"),
            ),
            (
                "",
                "v1",
                "Pod",
                json!({"spec": {"containers": [{"name": 1}]}}),
                Some(
                    "json: cannot unmarshal number into Go struct field Container.spec.containers.name of type string",
                ),
            ),
            (
                "",
                "v1",
                "Service",
                json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}),
                None,
            ),
            (
                "",
                "v1",
                "Service",
                json!({"spec": {"ports": [{"port": 80, "targetPort": true}]}}),
                Some("json: cannot unmarshal bool into Go value of type int32"),
            ),
            (
                "",
                "v1",
                "Pod",
                json!({"metadata": {"deletionTimestamp": "2024-01-02T03:04:05Z"}}),
                None,
            ),
            (
                "",
                "v1",
                "Pod",
                json!({"metadata": {"deletionTimestamp": "soon"}}),
                Some(
                    "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\"",
                ),
            ),
        ];
        for (group, version, kind, mut object, expected) in cases {
            object["kind"] = kind.into();
            let schema = builtin::for_gvk(group, version, kind).unwrap();
            assert_eq!(check_types(schema, &object).as_deref(), expected, "{object}");
        }
    }

    #[test]
    fn metadata_of_custom_resources() {
        let schema = Schema::default();
        let object = json!({"kind": "Gadget", "metadata": {"labels": {"a": 1}}});
        assert_eq!(
            check_metadata(&schema, &object).as_deref(),
            Some("json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string")
        );
        assert_eq!(
            check_metadata(
                &schema,
                &json!({"metadata": {"name": "x"}, "spec": {"metadata": 1}})
            ),
            None
        );
    }
}
