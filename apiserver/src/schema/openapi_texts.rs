//! Descriptions of the fields that objects of all kinds have, in published schemas: `kubectl explain` shows them. Kubernetes'
//! own prose is not repeated here, so that fields of one kind only have none.

use super::builtin;
use serde_json::{Value, json};

/// Fields of every object.
const OBJECT: [(&str, &str); 6] = [
    (
        "apiVersion",
        "Group and version of the API that this object is written in, like apps/v1; the version alone in the core group.",
    ),
    (
        "kind",
        "What the object is: the name, in upper camel case, that its fields are defined under in its group and version.",
    ),
    (
        "metadata",
        "What objects of all kinds have: name, namespace, labels, annotations, owners, and what the server keeps about them.",
    ),
    ("spec", "What is wanted: written by whoever owns the object."),
    (
        "status",
        "What was observed: written by controllers, through the subresource of that name where there is one.",
    ),
    ("items", "The objects of the list."),
];

/// Fields of `metadata`.
const METADATA: [(&str, &str); 15] = [
    (
        "annotations",
        "Texts by key, for tools and people. They take up to 256 KiB together and cannot be selected by.",
    ),
    (
        "creationTimestamp",
        "When the server stored the object first. Set by the server.",
    ),
    (
        "deletionGracePeriodSeconds",
        "Seconds the object has to end from the moment its deletion was asked for. Set by the server.",
    ),
    (
        "deletionTimestamp",
        "When the object is to be gone, once its deletion was asked for. It stays as long as it has finalizers. Set by the server.",
    ),
    (
        "finalizers",
        "Names of what has to be done before a deleted object is removed: who has done it takes its name away.",
    ),
    (
        "generateName",
        "Beginning of a name that the server completes with random letters, where no name is given.",
    ),
    (
        "generation",
        "Counts the changes of what is wanted of the object. Set by the server.",
    ),
    (
        "labels",
        "Short texts by key that objects are selected and grouped by.",
    ),
    (
        "managedFields",
        "Which manager set which fields, and when: what server-side apply finds conflicts by.",
    ),
    (
        "name",
        "Name of the object, unique among its kind in its namespace. It never changes.",
    ),
    (
        "namespace",
        "Namespace the object is in. It never changes; objects of the whole cluster have none.",
    ),
    (
        "ownerReferences",
        "Objects this one belongs to: it goes when all of them are gone. One of them at most is its controller.",
    ),
    (
        "resourceVersion",
        "Stands for this state of the object: to notice changes in between, and to watch from. Not to be interpreted.",
    ),
    ("selfLink", "Not used any more."),
    (
        "uid",
        "Tells the object from all others, also from one of the same name before or after it. Set by the server.",
    ),
];

/// Describes the fields of a kind, or of a list of one, that are not described.
pub(super) fn object(schema: &mut Value) {
    fields(schema, &OBJECT);
}

/// Describes what of a named built-in type all objects have.
pub(super) fn named(name: &str, schema: &mut Value) {
    if name == builtin::OBJECT_META {
        fields(schema, &METADATA);
    }
}

fn fields(schema: &mut Value, texts: &[(&str, &str)]) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (name, text) in texts {
        let Some(Value::Object(field)) = properties.get_mut(*name) else {
            continue;
        };
        if field.contains_key("description") {
            continue;
        }
        // What stands beside a reference does not count.
        if let Some(target) = field.remove("$ref") {
            field.insert("allOf".to_owned(), json!([{"$ref": target}]));
        }
        field.insert("description".to_owned(), (*text).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_described_stays() {
        let mut schema = json!({"properties": {
            "kind": {"type": "string"}, "spec": {"description": "own"}, "metadata": {"$ref": "x"}, "other": {}}});
        object(&mut schema);
        let fields = &schema["properties"];
        assert!(fields["kind"]["description"].is_string());
        assert_eq!(fields["spec"]["description"], "own");
        assert_eq!(fields["metadata"]["allOf"], json!([{"$ref": "x"}]));
        assert!(fields["metadata"]["$ref"].is_null() && fields["other"]["description"].is_null());
    }
}
