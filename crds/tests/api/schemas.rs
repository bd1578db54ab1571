//! The CRDs accept and serve what OCM's do. The fixtures say what that is, one line a field; here the generated
//! CRDs are flattened in the same way and compared as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
    path::Path,
};

use muster_crds::crds;
use serde_json::{Value, json};

/// What one field accepts.
#[derive(Clone, Debug, PartialEq)]
struct Field {
    type_: String,
    required: bool,
    default: Value,
    keywords: Value,
}

/// By crd, version and path.
type Fields = BTreeMap<(String, String, String), Field>;

fn parse_json(text: &str) -> Value {
    if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(text).expect(text)
    }
}

/// The fixture, its shapes spelled out.
fn expected() -> Fields {
    let mut shapes: BTreeMap<&str, Vec<(&str, Field)>> = BTreeMap::new();
    let mut rows = Vec::new();
    for line in include_str!("../fixtures/schemas.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let columns: Vec<&str> = line.split('\t').collect();
        let [owner, versions, path, type_, required, default, keywords] = columns[..] else {
            panic!("seven columns: {line}")
        };
        let field = Field {
            type_: type_.to_owned(),
            required: required == "R",
            default: parse_json(default),
            keywords: parse_json(keywords),
        };
        match owner.strip_prefix('@') {
            Some(shape) => shapes.entry(shape).or_default().push((path, field)),
            None => rows.push((owner, versions, path, field)),
        }
    }
    let mut fields = Fields::new();
    for (crd, versions, path, field) in rows {
        for version in versions.split(',') {
            expand(&shapes, crd, version, path, &field, &mut fields);
        }
    }
    fields
}

fn expand(
    shapes: &BTreeMap<&str, Vec<(&str, Field)>>,
    crd: &str,
    version: &str,
    path: &str,
    field: &Field,
    into: &mut Fields,
) {
    let Some(shape) = field.type_.strip_prefix('@') else {
        into.insert(
            (crd.to_owned(), version.to_owned(), path.to_owned()),
            field.clone(),
        );
        return;
    };
    for (below, inner) in &shapes[shape] {
        let mut inner = inner.clone();
        if below.is_empty() {
            inner.required = field.required;
            inner.default = field.default.clone();
            expand(shapes, crd, version, path, &inner, into);
        } else {
            expand(shapes, crd, version, &format!("{path}.{below}"), &inner, into);
        }
    }
}

fn generated() -> Fields {
    let mut fields = Fields::new();
    for crd in crds::all() {
        let definition: Value = serde_saphyr::from_str(&crds::to_yaml(&crd).unwrap()).unwrap();
        let name = definition["metadata"]["name"].as_str().unwrap();
        for version in definition["spec"]["versions"].as_array().unwrap() {
            let schema = &version["schema"]["openAPIV3Schema"];
            flatten(
                schema,
                name,
                version["name"].as_str().unwrap(),
                "",
                false,
                &mut fields,
            );
        }
    }
    fields
}

fn flatten(schema: &Value, crd: &str, version: &str, path: &str, required: bool, into: &mut Fields) {
    let mut keywords = schema.as_object().unwrap().clone();
    keywords.remove("description");
    let default = keywords.remove("default").unwrap_or_default();
    let needed = keywords.remove("required").unwrap_or_else(|| json!([]));
    let properties = keywords.remove("properties").unwrap_or_else(|| json!({}));
    let items = keywords.remove("items");
    let values = keywords.remove("additionalProperties");
    let mut type_ = keywords
        .remove("type")
        .map_or("-".to_owned(), |name| name.as_str().unwrap().to_owned());
    if let Some(format) = keywords.remove("format") {
        type_ = format!("{type_}({})", format.as_str().unwrap());
    }
    let keywords = if keywords.is_empty() {
        Value::Null
    } else {
        Value::Object(keywords)
    };
    let field = Field {
        type_,
        required,
        default,
        keywords,
    };
    into.insert((crd.to_owned(), version.to_owned(), path.to_owned()), field);
    for (name, property) in properties.as_object().unwrap() {
        let below = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let required = needed.as_array().unwrap().iter().any(|one| one == name);
        flatten(property, crd, version, &below, required, into);
    }
    if let Some(items) = items {
        flatten(&items, crd, version, &format!("{path}[]"), false, into);
    }
    if let Some(values) = values {
        flatten(&values, crd, version, &format!("{path}{{}}"), false, into);
    }
}

/// Every key whose values differ, in words.
fn differences<K: Ord + Clone + Debug, V: PartialEq + Debug>(
    expected: &BTreeMap<K, V>,
    generated: &BTreeMap<K, V>,
) -> Vec<String> {
    let keys: BTreeSet<&K> = expected.keys().chain(generated.keys()).collect();
    keys.into_iter()
        .filter(|key| expected.get(key) != generated.get(key))
        .map(|key| {
            format!(
                "{key:?}\n  OCM:  {:?}\n  ours: {:?}",
                expected.get(key),
                generated.get(key)
            )
        })
        .collect()
}

#[test]
fn every_field_accepts_what_ocm_accepts() {
    let expected = expected();
    assert!(
        expected.len() > 1000,
        "the fixture holds only {} fields",
        expected.len()
    );
    let differences = differences(&expected, &generated());
    assert!(
        differences.is_empty(),
        "{} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// The comparison itself: a field too few, one too many, and one that differs are all told.
#[test]
fn the_comparison_tells_every_difference() {
    let expected = expected();
    let mut changed = expected.clone();
    let keys: Vec<_> = expected.keys().cloned().collect();
    changed.remove(&keys[10]);
    changed.get_mut(&keys[20]).unwrap().required ^= true;
    let extra = (String::from("x"), String::from("v1"), String::from("spec"));
    changed.insert(extra, expected[&keys[0]].clone());
    assert_eq!(differences(&expected, &changed).len(), 3);
}

#[test]
fn definitions_serve_what_ocm_serves() {
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in include_str!("../fixtures/definitions.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        if !line.starts_with('\t') {
            line.split('\t').next().unwrap().clone_into(&mut current);
        }
        expected.entry(current.clone()).or_default().push(line.to_owned());
    }
    let mut generated = BTreeMap::new();
    for crd in crds::all() {
        let name = crd.metadata.name.clone().unwrap();
        let spec = &crd.spec;
        let names = &spec.names;
        assert_eq!(name, format!("{}.{}", names.plural, spec.group));
        assert_eq!(
            names.singular.as_deref(),
            Some(names.kind.to_lowercase().as_str()),
            "{name}"
        );
        assert_eq!(
            names.list_kind.as_deref(),
            Some(format!("{}List", names.kind).as_str()),
            "{name}"
        );
        let annotations = crd
            .metadata
            .annotations
            .as_ref()
            .map_or(String::new(), |annotations| {
                serde_json::to_string(annotations)
                    .unwrap()
                    .replace("\":\"", "\": \"")
            });
        let short_names = names.short_names.clone().unwrap_or_default().join(",");
        let mut lines = vec![
            [&name, &spec.scope, &names.kind, &short_names, &annotations]
                .map(String::as_str)
                .join("\t"),
        ];
        for version in &spec.versions {
            assert!(version.served, "{name} {}", version.name);
            let columns: Vec<String> = version
                .additional_printer_columns
                .iter()
                .flatten()
                .map(|column| format!("{} {} {}", column.name, column.type_, column.json_path))
                .collect();
            let storage = if version.storage { "storage" } else { "" };
            let status = version
                .subresources
                .as_ref()
                .is_some_and(|all| all.status.is_some());
            let status = if status { "status" } else { "" };
            lines.push(["", &version.name, storage, status, &columns.join(" | ")].join("\t"));
        }
        generated.insert(name, lines);
    }
    let differences = differences(&expected, &generated);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn each_side_gets_its_definitions() {
    let kinds = |crds: Vec<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    >| {
        let mut kinds: Vec<String> = crds.into_iter().map(|crd| crd.spec.names.kind).collect();
        kinds.sort();
        kinds.join(" ")
    };
    assert_eq!(kinds(crds::spoke()), "AppliedManifestWork ClusterClaim");
    assert_eq!(
        kinds(crds::hub()),
        "AddOnDeploymentConfig AddOnPlacementScore AddOnTemplate ClusterManagementAddOn ManagedCluster \
         ManagedClusterAddOn ManagedClusterSet ManagedClusterSetBinding ManifestWork ManifestWorkReplicaSet \
         Placement PlacementDecision"
    );
}

/// Made anew by `cargo run -p muster-crds --bin gen-crds`.
#[test]
fn the_files_in_deploy_are_current() {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds"));
    let expected: BTreeMap<String, String> = crds::all()
        .iter()
        .map(|crd| (crds::file_name(crd), crds::to_yaml(crd).unwrap()))
        .collect();
    let found: BTreeMap<String, String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read_to_string(entry.path()).unwrap(),
            )
        })
        .collect();
    let stale: Vec<&String> = expected
        .keys()
        .chain(found.keys())
        .filter(|file| expected.get(*file) != found.get(*file))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    assert!(
        stale.is_empty(),
        "stale, run `cargo run -p muster-crds --bin gen-crds`: {stale:?}"
    );
}
