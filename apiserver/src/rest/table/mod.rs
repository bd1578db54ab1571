//! Objects as `meta.k8s.io/v1` Tables: what `kubectl get` prints. Columns are data (`data/columns.json`, taken from a
//! running kube-apiserver, or a CRD's additionalPrinterColumns); cells are one function a kind.

mod core;
mod duration;
mod extensions;
mod jsonpath;
mod workloads;

pub use duration::human_duration;
pub use jsonpath::JsonPath;

use crate::object;
use crate::registry::{Custom, PrinterColumn, Resource};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;

/// How much of each object a table carries (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata, the default.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter; `None` for a value there is none of.
    pub fn parse(value: &str) -> Option<Self> {
        match value {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// Name, type, format and priority of a column.
type Column = (String, String, String, i64);

fn columns(resource: &Resource) -> Option<&'static [Column]> {
    static ALL: LazyLock<HashMap<String, Vec<Column>>> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../../../data/columns.json")).unwrap_or_default()
    });
    let key = format!("{}/{}/{}", resource.group, resource.version, resource.plural);
    ALL.get(&key).map(Vec::as_slice)
}

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

fn describe(column: &str) -> &'static str {
    match column {
        "Name" => "Name of the object.",
        "Age" => "Time since the object was created.",
        "Created At" => "When the object was created.",
        _ => "",
    }
}

fn custom_definition(column: &PrinterColumn) -> Value {
    let description = if column.description.is_empty() {
        format!(
            "Custom resource definition column (in JSONPath format): {}",
            column.json_path
        )
    } else {
        column.description.clone()
    };
    definition(
        &column.name,
        &column.kind,
        &column.format,
        &description,
        column.priority,
    )
}

/// The table of `objects`, all of one resource, as of now. Its `metadata` is the caller's to set.
pub fn table(resource: &Resource, objects: &[Value], include: IncludeObject) -> Value {
    table_at(resource, objects, include, Timestamp::now())
}

/// As [`table`], ages counted up to `now`.
pub fn table_at(resource: &Resource, objects: &[Value], include: IncludeObject, now: Timestamp) -> Value {
    let (definitions, cells) = match &resource.custom {
        Some(custom) => custom_table(custom, objects, now),
        None => builtin_table(resource, objects, now),
    };
    let rows: Vec<Value> = objects
        .iter()
        .zip(cells)
        .map(|(o, cells)| json!({"cells": cells, "object": carried(resource, o, include)}))
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// Column definitions and rows of cells.
type Cells = (Vec<Value>, Vec<Vec<Value>>);

fn custom_table(custom: &Custom, objects: &[Value], now: Timestamp) -> Cells {
    // A path that can not be read ends the columns.
    let columns: Vec<(&PrinterColumn, JsonPath)> = custom
        .columns
        .iter()
        .map_while(|c| Some((c, JsonPath::parse(&c.json_path).ok()?)))
        .collect();
    let mut definitions = vec![definition("Name", "string", "name", describe("Name"), 0)];
    definitions.extend(columns.iter().map(|(c, _)| custom_definition(c)));
    let row = |o: &Value| {
        let mut cells = vec![object::name(o).into()];
        cells.extend(columns.iter().map(|(c, p)| custom_cell(c, p, o, now)));
        cells
    };
    (definitions, objects.iter().map(row).collect())
}

fn builtin_table(resource: &Resource, objects: &[Value], now: Timestamp) -> Cells {
    let known = columns(resource).unwrap_or_default();
    if known.is_empty() {
        let definitions = vec![
            definition("Name", "string", "name", describe("Name"), 0),
            definition("Age", "string", "", describe("Age"), 0),
        ];
        return (
            definitions,
            objects
                .iter()
                .map(|o| vec![object::name(o).into(), age(o, now)])
                .collect(),
        );
    }
    let definitions = known
        .iter()
        .map(|(n, k, f, p)| definition(n, k, f, describe(n), *p))
        .collect();
    (
        definitions,
        objects
            .iter()
            .map(|o| builtin_row(resource, known, o, now))
            .collect(),
    )
}

fn carried(resource: &Resource, object: &Value, include: IncludeObject) -> Value {
    match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Object => object.clone(),
        IncludeObject::Metadata => partial(resource, object, "meta.k8s.io/v1"),
    }
}

/// Whether the metadata alone of a kind's objects is less than all their metadata.
pub fn hides_metadata(resource: &Resource) -> bool {
    resource.custom.is_none() && resource.group == "apps" && resource.plural == "daemonsets"
}

/// The metadata of an object. What counts a DaemonSet's templates is an annotation only where the whole object is shown.
pub fn partial(resource: &Resource, object: &Value, api_version: &str) -> Value {
    let mut metadata = object["metadata"].clone();
    if hides_metadata(resource)
        && let Some(Value::Object(annotations)) = metadata.get_mut("annotations")
    {
        annotations.remove("deprecated.daemonset.template.generation");
        if annotations.is_empty()
            && let Some(map) = metadata.as_object_mut()
        {
            map.remove("annotations");
        }
    }
    json!({"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": metadata})
}

/// The table of one Scale.
pub fn scale(resource: &Resource, scale: &Value, include: IncludeObject) -> Value {
    let columns = [
        ("Name", "string"),
        ("Desired", "integer"),
        ("Available", "integer"),
        ("Age", "string"),
    ];
    let definitions = columns.map(|(name, kind)| definition(name, kind, "", describe(name), 0));
    let number = |part: &str| scale[part]["replicas"].as_i64().unwrap_or(0);
    let cells = json!([
        object::name(scale),
        number("spec"),
        number("status"),
        age(scale, Timestamp::now())
    ]);
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": scale["metadata"]["resourceVersion"]},
        "columnDefinitions": definitions, "rows": [{"cells": cells, "object": carried(resource, scale, include)}],
    })
}

/// Cells of a built-in object: its kind's function, and for the rest what every object has.
fn builtin_row(resource: &Resource, columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    let row = Row { object, now };
    let cells = workloads::cells(resource, &row)
        .or_else(|| core::cells(resource, &row))
        .or_else(|| extensions::cells(resource, &row));
    if let Some(cells) = cells {
        debug_assert_eq!(cells.len(), columns.len(), "{}", resource.qualified());
        return cells;
    }
    columns
        .iter()
        .map(|(name, ..)| match name.as_str() {
            "Name" => object::name(object).into(),
            "Age" => age(object, now),
            "Created At" => object["metadata"]["creationTimestamp"].clone(),
            _ => Value::Null,
        })
        .collect()
}

/// One object being shown.
struct Row<'a> {
    object: &'a Value,
    now: Timestamp,
}

/// What is shown where there is nothing.
const NONE: &str = "<none>";
const UNSET: &str = "<unset>";
const UNKNOWN: &str = "<unknown>";

impl<'a> Row<'a> {
    fn at(&self, pointer: &str) -> &'a Value {
        self.object.pointer(pointer).unwrap_or(&Value::Null)
    }

    fn text(&self, pointer: &str) -> &'a str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    fn text_or(&self, pointer: &str, other: &str) -> Value {
        let text = self.text(pointer);
        if text.is_empty() {
            other.into()
        } else {
            text.into()
        }
    }

    fn number(&self, pointer: &str) -> i64 {
        self.at(pointer).as_i64().unwrap_or(0)
    }

    fn items(&self, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.at(pointer).as_array().into_iter().flatten()
    }

    fn name(&self) -> Value {
        object::name(self.object).into()
    }

    fn age(&self) -> Value {
        age(self.object, self.now)
    }

    /// How long ago a time was; `other` where there is none.
    fn since(&self, time: &Value, other: &str) -> Value {
        time.as_str().map_or_else(|| other.into(), |t| since(t, self.now))
    }
}

fn since(time: &str, now: Timestamp) -> Value {
    match time.parse::<Timestamp>() {
        Ok(then) => human_duration(now.as_second() - then.as_second()).into(),
        Err(_) => "<invalid>".into(),
    }
}

fn age(object: &Value, now: Timestamp) -> Value {
    let created = object::meta(object, "creationTimestamp");
    if created.is_empty() {
        UNKNOWN.into()
    } else {
        since(created, now)
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// `a,b,c`, or `<none>`.
fn joined(parts: impl IntoIterator<Item = String>) -> String {
    let list: Vec<String> = parts.into_iter().collect();
    if list.is_empty() {
        NONE.to_owned()
    } else {
        list.join(",")
    }
}

fn label_pairs(labels: &Value) -> impl Iterator<Item = String> {
    labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
}

/// A LabelSelector as people write it: `a=b,c in (d,e),!f`.
fn selector_text(selector: &Value) -> String {
    let expressions = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|e| {
            let key = text(e, "key");
            let mut values: Vec<&str> = e["values"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            values.sort_unstable();
            match text(e, "operator") {
                "In" => format!("{key} in ({})", values.join(",")),
                "NotIn" => format!("{key} notin ({})", values.join(",")),
                "Exists" => key.to_owned(),
                _ => format!("!{key}"),
            }
        });
    let mut parts: Vec<String> = label_pairs(&selector["matchLabels"]).chain(expressions).collect();
    parts.sort();
    joined(parts)
}

/// Names and images of the containers of a PodSpec.
fn containers(spec: &Value) -> (Value, Value) {
    let all = || spec["containers"].as_array().into_iter().flatten();
    let list = |key: &'static str| all().map(|c| text(c, key)).collect::<Vec<_>>().join(",").into();
    (list("name"), list("image"))
}

fn custom_cell(column: &PrinterColumn, path: &JsonPath, object: &Value, now: Timestamp) -> Value {
    let Some(value) = path.find(object).into_iter().next() else {
        return Value::Null;
    };
    match column.kind.as_str() {
        "string" => match value {
            Value::Null => Value::Null,
            Value::String(_) => value.clone(),
            other => other.to_string().into(),
        },
        "integer" => match value.as_i64() {
            Some(n) => n.into(),
            #[allow(clippy::cast_possible_truncation)] // as Go's conversion does
            None => value.as_f64().map_or(Value::Null, |f| (f as i64).into()),
        },
        "number" => {
            if value.is_number() {
                value.clone()
            } else {
                Value::Null
            }
        }
        "boolean" => {
            if value.is_boolean() {
                value.clone()
            } else {
                Value::Null
            }
        }
        "date" => value.as_str().map_or(Value::Null, |t| since(t, now)),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests;
