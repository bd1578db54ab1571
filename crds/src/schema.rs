//! From the types' JSON Schema to the structural schema a CustomResourceDefinition holds.
//!
//! The types say what the derive cannot: `x-default` is a default the API server writes, `x-required` makes a field
//! required although Rust decodes without it, `x-nullable` allows null. All else follows OCM's conventions: an
//! optional field is absent and never null, and what serde fills in is no API default.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value, json};

/// A label key, optionally with a DNS prefix; also a condition type (metav1.Condition).
pub(crate) const QUALIFIED_NAME: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";
/// A DNS-1123 label (RFC 1123): what names a namespace.
pub(crate) const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A DNS-1123 subdomain (RFC 1123).
pub(crate) const DNS_SUBDOMAIN: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)$";
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// The structural schema of `T`, without `apiVersion`, `kind` and `metadata`.
pub fn structural<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    normalise(&mut schema);
    schema
}

fn normalise(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    map.remove("title");
    map.remove("default");
    drop_null(map);
    collapse_enum(map);
    if let Some(default) = map.remove("x-default") {
        map.insert("default".into(), default);
    }
    if let Some(nullable) = map.remove("x-nullable") {
        map.insert("nullable".into(), nullable);
    }
    // `"format": null` is how a type says that its number has no Go size.
    if map.get("format").is_some_and(Value::is_null) {
        map.remove("format");
    }
    normalise_properties(map);
    for key in ["items", "additionalProperties", "not"] {
        if let Some(inner) = map.get_mut(key) {
            normalise(inner);
        }
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        if let Some(Value::Array(inner)) = map.get_mut(key) {
            inner.iter_mut().for_each(normalise);
        }
    }
}

fn normalise_properties(map: &mut Map<String, Value>) {
    let mut required: Vec<String> = match map.remove("required") {
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        for (name, property) in properties.iter_mut() {
            if let Some(forced) = property.as_object_mut().and_then(|p| p.remove("x-required")) {
                required.retain(|present| present != name);
                if forced == Value::Bool(true) {
                    required.push(name.clone());
                }
            }
            normalise(property);
        }
    }
    required.sort();
    if !required.is_empty() {
        map.insert("required".into(), required.into());
    }
}

/// `Option<T>` comes as "T or null"; on the wire it is T or absent.
fn drop_null(map: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let Some(Value::Array(alternatives)) = map.get("anyOf") else {
        return;
    };
    let null = json!({"type": "null"});
    if !alternatives.contains(&null) {
        return;
    }
    let rest: Vec<Value> = alternatives.iter().filter(|one| **one != null).cloned().collect();
    map.remove("anyOf");
    match <[Value; 1]>::try_from(rest) {
        Ok([Value::Object(only)]) => {
            for (key, value) in only {
                map.entry(key).or_insert(value); // what the field says wins over what its type says
            }
        }
        Ok([other]) => {
            map.insert("anyOf".into(), json!([other]));
        }
        Err(rest) => {
            map.insert("anyOf".into(), rest.into());
        }
    }
}

/// Documented enum variants come as `oneOf` of constants; a structural schema has one `enum`.
fn collapse_enum(map: &mut Map<String, Value>) {
    if let Some(constant) = map.remove("const") {
        map.insert("enum".into(), json!([constant]));
    }
    let Some(Value::Array(variants)) = map.get("oneOf") else {
        return;
    };
    let mut values = Vec::new();
    for variant in variants {
        match (variant.get("const"), variant.get("enum")) {
            (Some(value), _) => values.push(value.clone()),
            (None, Some(Value::Array(several))) => values.extend(several.iter().cloned()),
            _ => return,
        }
    }
    map.remove("oneOf");
    map.insert("type".into(), "string".into());
    map.insert("enum".into(), values.into());
}

/// metav1.Condition with the limits of `k8s.io/apimachinery/pkg/apis/meta/v1`.
fn condition() -> Value {
    json!({
        "type": "object",
        "description": "One aspect of the object's current state.",
        "required": ["lastTransitionTime", "message", "reason", "status", "type"],
        "properties": {
            "lastTransitionTime": {
                "type": "string", "format": "date-time", "description": "When status last changed.",
            },
            "message": {
                "type": "string", "maxLength": 32768, "description": "Details for people; may be empty.",
            },
            "observedGeneration": {
                "type": "integer", "format": "int64", "minimum": 0,
                "description": "The metadata.generation this condition speaks of.",
            },
            "reason": {
                "type": "string", "minLength": 1, "maxLength": 1024,
                "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                "description": "Why status is what it is, in CamelCase.",
            },
            "status": {
                "type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds.",
            },
            "type": {
                "type": "string", "maxLength": 316, "pattern": QUALIFIED_NAME,
                "description": "The aspect, in CamelCase or prefixed by a domain.",
            },
        },
    })
}

/// A list of conditions merged by type.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": condition(),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// A list of conditions without a list type, as some older kinds have it.
pub(crate) fn plain_conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": condition() })
}

/// Resource quantities by resource name.
pub(crate) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY,
            "x-kubernetes-int-or-string": true,
        },
    })
}

/// Bytes, in base64.
pub(crate) fn bytes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "byte" })
}

/// A number or a string; the field adds its pattern.
pub(crate) fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": true,
    })
}

fn requirement() -> Value {
    json!({
        "type": "object",
        "description": "A key, an operator, and values.",
        "required": ["key", "operator"],
        "properties": {
            "key": { "type": "string", "description": "The label or claim." },
            "operator": { "type": "string", "description": "In, NotIn, Exists or DoesNotExist." },
            "values": {
                "type": "array", "items": { "type": "string" }, "x-kubernetes-list-type": "atomic",
                "description": "For In and NotIn, the values.",
            },
        },
    })
}

/// A list of selector requirements.
pub(crate) fn requirements(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": requirement() })
}

/// metav1.LabelSelector.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchExpressions": {
                "type": "array", "items": requirement(), "x-kubernetes-list-type": "atomic",
                "description": "Requirements, all of them.",
            },
            "matchLabels": {
                "type": "object", "additionalProperties": { "type": "string" },
                "description": "Labels and their values, all of them.",
            },
        },
    })
}

/// An object of any fields.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// Tolerations of a pod, without the validations that pods themselves get.
pub(crate) fn pod_tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "effect": { "type": "string", "description": "Effect of the taint; any when empty." },
                "key": { "type": "string", "description": "Key of the taint; empty, with Exists, is any." },
                "operator": { "type": "string", "description": "Equal or Exists." },
                "tolerationSeconds": {
                    "type": "integer", "format": "int64", "description": "For how long; for ever when absent.",
                },
                "value": { "type": "string", "description": "Value of the taint." },
            },
        },
    })
}

/// core/v1 ResourceRequirements.
pub(crate) fn resource_requirements(generator: &mut SchemaGenerator) -> Schema {
    let quantities = quantities(generator);
    json_schema!({
        "type": "object",
        "properties": {
            "claims": {
                "type": "array",
                "description": "Resource claims the container uses.",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": { "type": "string", "description": "The pod's claim." },
                        "request": { "type": "string", "description": "The request in it; all when empty." },
                    },
                },
            },
            "limits": quantities,
            "requests": quantities,
        },
    })
}

/// rbac/v1 RoleRef.
pub(crate) fn role_ref(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "required": ["apiGroup", "kind", "name"],
        "properties": {
            "apiGroup": { "type": "string", "description": "API group of the role." },
            "kind": { "type": "string", "description": "Role or ClusterRole." },
            "name": { "type": "string", "description": "Name of the role." },
        },
    })
}

/// A namespaced kind that has a status and no spec, which kube's derive cannot make.
macro_rules! status_object {
    ($(#[doc = $doc:literal])+ $kind:ident, $group:literal, $version:literal, $plural:literal, $status:ident) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default, PartialEq, ::serde::Deserialize)]
        pub struct $kind {
            /// Standard object metadata.
            #[serde(default)]
            pub metadata: ::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            /// What was found.
            #[serde(default)]
            pub status: Option<$status>,
        }

        impl ::serde::Serialize for $kind {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use ::serde::ser::SerializeStruct;
                let fields = 3 + usize::from(self.status.is_some());
                let mut object = serializer.serialize_struct(stringify!($kind), fields)?;
                object.serialize_field("apiVersion", concat!($group, "/", $version))?;
                object.serialize_field("kind", stringify!($kind))?;
                object.serialize_field("metadata", &self.metadata)?;
                if let Some(status) = &self.status {
                    object.serialize_field("status", status)?;
                }
                object.end()
            }
        }

        impl ::kube::Resource for $kind {
            type DynamicType = ();
            type Scope = ::kube::core::NamespaceResourceScope;

            fn kind((): &()) -> ::std::borrow::Cow<'_, str> {
                stringify!($kind).into()
            }

            fn group((): &()) -> ::std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> ::std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> ::std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(crate) use status_object;
