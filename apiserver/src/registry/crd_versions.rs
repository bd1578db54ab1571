//! From a CustomResourceDefinition to the resources it makes: one for each served version.

use super::{Custom, PrinterColumn, Resource, ScalePaths, Subresource, VersionSchema, api_version, names};
use crate::error::FieldError;
use crate::object;
use crate::schema::{Schema, cel, structural};
use serde_json::{Value, json};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, OnceLock};

/// Verbs of a custom resource, in discovery's order.
const VERBS: [&str; 8] = [
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

/// Whether all versions say the same of schema, subresources, columns and fields: errors are then shown at
/// `spec.validation`, where such a CRD keeps its one schema internally.
pub(super) fn uniform(spec: &Value) -> bool {
    let mut versions = spec["versions"].as_array().into_iter().flatten();
    let Some(first) = versions.next() else {
        return false;
    };
    versions.all(|v| {
        [
            "schema",
            "subresources",
            "additionalPrinterColumns",
            "selectableFields",
        ]
        .iter()
        .all(|key| v[*key] == first[*key])
    })
}

/// Where errors in the schema of version `index` are shown.
pub(super) fn schema_path(spec: &Value, index: usize) -> String {
    if uniform(spec) {
        "spec.validation.openAPIV3Schema".to_owned()
    } else {
        format!("spec.versions[{index}].schema.openAPIV3Schema")
    }
}

/// Schema and compiled rules of one version.
pub(super) fn schema(
    version: &Value,
    path: &str,
    cost: cel::Cost,
) -> Result<(Schema, cel::Rules), Vec<FieldError>> {
    let schema = match &version["schema"]["openAPIV3Schema"] {
        Value::Null => Schema {
            preserve_unknown: true,
            ..Schema::default()
        },
        openapi => structural::parse(openapi, path)?,
    };
    let rules = cel::Rules::compile(&schema, path, cost)?;
    Ok((schema, rules))
}

fn columns(version: &Value) -> Vec<PrinterColumn> {
    let listed = version["additionalPrinterColumns"]
        .as_array()
        .filter(|c| !c.is_empty());
    let Some(listed) = listed else {
        return vec![PrinterColumn {
            name: "Age".to_owned(),
            kind: "date".to_owned(),
            format: String::new(),
            description: "Time since the object was created.".to_owned(),
            priority: 0,
            json_path: ".metadata.creationTimestamp".to_owned(),
        }];
    };
    listed
        .iter()
        .map(|c| PrinterColumn {
            name: text(c, "name").to_owned(),
            kind: text(c, "type").to_owned(),
            format: text(c, "format").to_owned(),
            description: text(c, "description").to_owned(),
            priority: c["priority"].as_i64().unwrap_or(0),
            json_path: text(c, "jsonPath").to_owned(),
        })
        .collect()
}

/// Tells whether two documents are the same, for as long as this process lives.
fn digest(document: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    document.to_string().hash(&mut hasher);
    hasher.finish()
}

/// What of a version decides how objects are stored and read.
fn of_schema(version: &Value) -> Value {
    json!([version["name"], version["storage"], version["schema"]])
}

/// The schemas of all versions, and their rules.
type Schemas = (Arc<[VersionSchema]>, Vec<cel::Rules>);

/// The schema and rules of every version, served or not, in their order.
fn schemas(spec: &Value) -> Result<Schemas, Vec<FieldError>> {
    let (mut schemas, mut all) = (Vec::new(), Vec::new());
    for (index, version) in spec["versions"].as_array().into_iter().flatten().enumerate() {
        let (schema, rules) = schema(version, &schema_path(spec, index), cel::Cost::Any)?;
        schemas.push(VersionSchema {
            name: text(version, "name").to_owned(),
            schema: Arc::new(schema),
        });
        all.push(rules);
    }
    Ok((schemas.into(), all))
}

fn custom(
    crd: &Value,
    version: &Value,
    versions: &Arc<[VersionSchema]>,
    index: usize,
    rules: cel::Rules,
) -> Custom {
    let spec = &crd["spec"];
    let scale = &version["subresources"]["scale"];
    let deprecated = version["deprecated"] == json!(true);
    let warning = || match version["deprecationWarning"].as_str() {
        Some(warning) => warning.to_owned(),
        None => deprecation(spec, text(version, "name")),
    };
    Custom {
        crd: object::name(crd).to_owned(),
        schema: Arc::clone(&versions[index].schema),
        versions: Arc::clone(versions),
        since: object::resource_version(crd).parse().unwrap_or(u64::MAX),
        rules,
        schemas_digest: digest(
            &spec["versions"]
                .as_array()
                .into_iter()
                .flatten()
                .map(of_schema)
                .collect(),
        ),
        identity: digest(&json!([
            crd["metadata"]["uid"],
            spec,
            crd["status"]["acceptedNames"]
        ])),
        openapi_digest: digest(&version["schema"]["openAPIV3Schema"]),
        status: version["subresources"]["status"].is_object(),
        scale: scale.is_object().then(|| ScalePaths {
            spec: text(scale, "specReplicasPath").to_owned(),
            status: text(scale, "statusReplicasPath").to_owned(),
            selector: scale["labelSelectorPath"]
                .as_str()
                .filter(|p| !p.is_empty())
                .map(str::to_owned),
        }),
        selectable: version["selectableFields"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|f| text(f, "jsonPath").to_owned())
            .collect(),
        columns: columns(version),
        deprecation: deprecated.then(warning),
        webhook_conversion: text(&spec["conversion"], "strategy") == "Webhook",
    }
}

/// The warning of a version that is deprecated and does not say how: names the best one to use instead.
fn deprecation(spec: &Value, version: &str) -> String {
    let of = |version: &str| {
        let version = api_version(text(spec, "group"), version);
        format!("{version} {}", text(&spec["names"], "kind"))
    };
    let others = spec["versions"].as_array().into_iter().flatten();
    let better = others
        .filter(|v| v["served"] == json!(true) && v["deprecated"] != json!(true))
        .map(|v| text(v, "name"))
        .filter(|name| names::compare_versions(name, version).is_gt())
        .max_by(|a, b| names::compare_versions(a, b));
    match better {
        Some(better) => format!("{} is deprecated; use {}", of(version), of(better)),
        None => format!("{} is deprecated", of(version)),
    }
}

/// The resources a CustomResourceDefinition makes. Names are those accepted, or else those asked for.
pub fn resources(crd: &Value) -> Result<Vec<Resource>, Vec<FieldError>> {
    let spec = &crd["spec"];
    let accepted = &crd["status"]["acceptedNames"];
    let names = if text(accepted, "plural").is_empty() {
        &spec["names"]
    } else {
        accepted
    };
    let group = text(spec, "group");
    let plural = text(names, "plural");
    let kind = text(names, "kind");
    let versions = || spec["versions"].as_array().into_iter().flatten();
    let storage_version = versions()
        .find(|v| v["storage"] == json!(true))
        .map_or("", |v| text(v, "name"));
    let storage: Arc<str> = format!("{group}/{plural}").into();
    let mut out = Vec::new();
    let (schemas, rules) = schemas(spec)?;
    for (index, (version, rules)) in versions().zip(rules).enumerate() {
        if version["served"] != json!(true) {
            continue;
        }
        let name = text(version, "name");
        let custom = custom(crd, version, &schemas, index, rules);
        let mut subresources = Vec::new();
        if custom.status {
            subresources.push(Subresource {
                name: "status".to_owned(),
                group: group.to_owned(),
                version: name.to_owned(),
                kind: kind.to_owned(),
                verbs: owned(&SUBRESOURCE_VERBS),
            });
        }
        if custom.scale.is_some() {
            subresources.push(Subresource {
                name: "scale".to_owned(),
                group: "autoscaling".to_owned(),
                version: "v1".to_owned(),
                kind: "Scale".to_owned(),
                verbs: owned(&SUBRESOURCE_VERBS),
            });
        }
        let or = |key: &str, other: String| {
            Some(text(names, key))
                .filter(|s| !s.is_empty())
                .map_or(other, str::to_owned)
        };
        out.push(Resource {
            group: group.to_owned(),
            version: name.to_owned(),
            plural: plural.to_owned(),
            singular: or("singular", kind.to_lowercase()),
            kind: kind.to_owned(),
            list_kind: or("listKind", format!("{kind}List")),
            namespaced: text(spec, "scope") == "Namespaced",
            short_names: texts(&names["shortNames"]),
            categories: texts(&names["categories"]),
            verbs: owned(&VERBS),
            subresources,
            storage: Arc::clone(&storage),
            storage_version: storage_version.to_owned(),
            storage_api_version: api_version(group, storage_version),
            builtin: OnceLock::new(),
            custom: Some(Arc::new(custom)),
        });
    }
    Ok(out)
}
