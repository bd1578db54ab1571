//! Dropping fields a schema does not know (apiextensions `schema/pruning`; for built-ins what Go's decoder ignores).

use super::{Ref, Schema, Type, builtin};
use serde_json::Value;
use std::fmt::Write as _;

/// Removes unknown fields from `object` and returns their paths, like `spec.containers[0].imagee`, in document order.
///
/// `metadata_too` says that `object` is a custom resource: `apiVersion`, `kind` and `metadata` then belong to it whatever
/// the schema says, and `metadata` is pruned as ObjectMeta. Embedded resources are always treated so.
pub fn prune(schema: &Schema, object: &mut Value, metadata_too: bool) -> Vec<String> {
    let mut pruner = Pruner {
        removed: Vec::new(),
        path: String::new(),
    };
    pruner.node(schema, object, metadata_too);
    pruner.removed
}

/// The paths [`prune`] would remove.
pub fn unknown_fields(schema: &Schema, object: &Value, metadata_too: bool) -> Vec<String> {
    prune(schema, &mut object.clone(), metadata_too)
}

struct Pruner {
    removed: Vec<String>,
    path: String,
}

impl Pruner {
    fn within(&mut self, key: &str, body: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        body(self);
        self.path.truncate(length);
    }

    fn node(&mut self, schema: &Schema, value: &mut Value, resource: bool) {
        match value {
            Value::Object(map) => {
                let resource = resource || schema.embedded_resource;
                // Structs that hold raw JSON, and nodes without a type, take everything.
                let open =
                    schema.preserve_unknown || (schema.kind == Type::Any && schema.properties.is_empty());
                let mut unknown = Vec::new();
                for (key, child) in map.iter_mut() {
                    if resource && (key == "apiVersion" || key == "kind") {
                        continue;
                    }
                    if resource && key == "metadata" {
                        self.within(key, |p| p.node(builtin::object_meta(), child, false));
                        continue;
                    }
                    match schema.properties.get(key.as_str()).or(schema.additional.as_ref()) {
                        Some(Ref::Named(name)) if builtin::is_scalar(name) => {}
                        Some(known) => self.within(key, |p| p.node(Schema::resolve(known), child, false)),
                        None if open => {}
                        None => unknown.push(key.clone()),
                    }
                }
                for key in unknown {
                    map.remove(&key);
                    self.within(&key, |p| p.removed.push(p.path.clone()));
                }
            }
            Value::Array(list) => {
                let Some(items) = schema.items() else { return };
                for (i, item) in list.iter_mut().enumerate() {
                    let length = self.path.len();
                    let _ = write!(self.path, "[{i}]");
                    self.node(items, item, false);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::structural;
    use super::*;
    use serde_json::json;

    #[test]
    fn custom_resources() {
        let schema = structural::parse(
            &json!({"type": "object", "properties": {
                "spec": {"type": "object", "properties": {
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                             "properties": {"strict": {"type": "object", "properties": {"a": {"type": "string"}}}}},
                    "m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
                    "any": {"type": "object", "additionalProperties": true},
                    "l": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
                    "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                                 "properties": {"spec": {"type": "object"}}}}}}}),
            "",
        )
        .unwrap();
        let mut object = json!({"apiVersion": "x.io/v1", "kind": "Gadget", "metadata": {"name": "g", "odd": 1}, "extra": 1,
            "spec": {"unknown": 1, "free": {"x": {"y": 1}, "strict": {"a": "", "b": 1}},
                     "m": {"k": {"a": "", "b": 1}}, "any": {"x": {"y": 1}}, "l": [{"k": ""}, {"z": 1}],
                     "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b"}, "bad": 1},
                                  "spec": {"z": 1}, "data": {}}}});
        let mut removed = prune(&schema, &mut object, true);
        removed.sort();
        let expected = [
            "extra",
            "metadata.odd",
            "spec.free.strict.b",
            "spec.l[1].z",
            "spec.m.k.b",
            "spec.template.data",
            "spec.template.metadata.bad",
            "spec.template.spec.z",
            "spec.unknown",
        ];
        assert_eq!(removed, expected);
        assert_eq!(object["spec"]["free"]["x"], json!({"y": 1}));
        assert_eq!(object["spec"]["any"], json!({"x": {"y": 1}}));
        assert_eq!(
            object["spec"]["template"]["metadata"],
            json!({"labels": {"a": "b"}})
        );
        assert!(prune(&schema, &mut object, true).is_empty());
    }

    #[test]
    fn built_ins() {
        let deployment = builtin::for_gvk("apps", "v1", "Deployment").unwrap();
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "sn", "managedFields": [
            {"fieldsV1": {"f:spec": {}}}]}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata":
            {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i", "imagee": "x"}]}}}});
        assert_eq!(
            unknown_fields(deployment, &object, false),
            ["spec.template.spec.containers[0].imagee"]
        );
        let config_map = builtin::for_gvk("", "v1", "ConfigMap").unwrap();
        assert_eq!(
            unknown_fields(config_map, &json!({"data": {"a": "b"}, "foo": 1}), false),
            ["foo"]
        );
        let crd = builtin::for_gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
        let object = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"default": {"a": 1}, "properties": {
            "x": {"items": {"type": "object"}, "enum": [{"a": 1}]}}}}}]}});
        assert!(unknown_fields(crd, &object, false).is_empty());
    }
}
