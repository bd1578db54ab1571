//! A Kubernetes object of any kind, carried inside another object.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An embedded Kubernetes object of any kind; every field it came with is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest(pub Value);

impl Manifest {
    /// Its `apiVersion`, empty when absent.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// Its `kind`, empty when absent.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// Its `metadata.name`, empty when absent.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// Its `metadata.namespace`, empty when absent.
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    fn text(&self, pointer: &str) -> &str {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

impl From<Value> for Manifest {
    fn from(object: Value) -> Self {
        Self(object)
    }
}

impl JsonSchema for Manifest {
    fn schema_name() -> Cow<'static, str> {
        "Manifest".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "A Kubernetes object of any kind.",
            "x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true,
        })
    }
}
