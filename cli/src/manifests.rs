//! Reading manifests from files: several YAML or JSON documents each, every error with its file, document and line.

use crate::Error;
use crate::error::one_line;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Files of a folder that are manifests.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Kinds of Kubernetes that live in namespaces, `group/Kind`.
const NAMESPACED: &[&str] = &[
    "/ConfigMap",
    "/Endpoints",
    "/Event",
    "/LimitRange",
    "/PersistentVolumeClaim",
    "/Pod",
    "/PodTemplate",
    "/ReplicationController",
    "/ResourceQuota",
    "/Secret",
    "/Service",
    "/ServiceAccount",
    "apps/ControllerRevision",
    "apps/DaemonSet",
    "apps/Deployment",
    "apps/ReplicaSet",
    "apps/StatefulSet",
    "autoscaling/HorizontalPodAutoscaler",
    "batch/CronJob",
    "batch/Job",
    "coordination.k8s.io/Lease",
    "discovery.k8s.io/EndpointSlice",
    "events.k8s.io/Event",
    "networking.k8s.io/Ingress",
    "networking.k8s.io/NetworkPolicy",
    "policy/PodDisruptionBudget",
    "rbac.authorization.k8s.io/Role",
    "rbac.authorization.k8s.io/RoleBinding",
    "resource.k8s.io/ResourceClaim",
    "resource.k8s.io/ResourceClaimTemplate",
    "storage.k8s.io/CSIStorageCapacity",
];

/// Where a manifest stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named; `standard input` for `-`.
    pub file: String,
    /// Which document of the file, from 1; empty ones do not count.
    pub document: usize,
    /// Line of the file on which the document begins, or where in it an error is.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, document {}, line {}", self.file, self.document, self.line)
    }
}

/// An object and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Where it stands.
    pub place: Place,
    /// The object.
    pub object: Value,
}

impl Manifest {
    /// Something is wrong with it.
    pub fn error(&self, problem: impl Into<String>) -> Error {
        error(&self.place, problem)
    }

    fn text(&self, pointer: &str) -> &str {
        self.object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn group(&self) -> &str {
        self.text("/apiVersion")
            .rsplit_once('/')
            .map_or("", |(group, _)| group)
    }
}

fn error(place: &Place, problem: impl Into<String>) -> Error {
    Error::Manifest {
        place: place.to_string(),
        problem: problem.into(),
    }
}

/// Reads all manifests of files, of folders (with `recursive` also of those in them), and of standard input for `-`.
pub fn read(paths: &[PathBuf], recursive: bool) -> Result<Vec<Manifest>, Error> {
    let mut manifests = Vec::new();
    if paths.iter().filter(|p| *p == Path::new("-")).count() > 1 {
        return Err(Error::Input("standard input (-) can be read only once".into()));
    }
    for path in paths {
        let text_of_path = path.to_string_lossy();
        if text_of_path.starts_with("https://") || text_of_path.starts_with("http://") {
            return Err(Error::File {
                path: path.clone(),
                problem: "URLs are not read; fetch it first: curl -sSfL URL | muster ... -f -".into(),
            });
        }
        if path == Path::new("-") {
            let mut bytes = Vec::new();
            std::io::stdin()
                .lock()
                .read_to_end(&mut bytes)
                .map_err(|e| file_error(path, &e))?;
            manifests.extend(parse("standard input", &text("standard input", bytes)?)?);
        } else if path.is_dir() {
            let files = manifest_files(path, recursive)?;
            if files.is_empty() {
                let more = if recursive {
                    ""
                } else {
                    " (folders in it are read with -R)"
                };
                return Err(Error::File {
                    path: path.clone(),
                    problem: format!("the folder holds no .yaml, .yml or .json file{more}"),
                });
            }
            for file in files {
                manifests.extend(read_file(&file)?);
            }
        } else {
            manifests.extend(read_file(path)?);
        }
    }
    if manifests.is_empty() {
        let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        return Err(Error::Input(format!(
            "there is no manifest in {}",
            names.join(", ")
        )));
    }
    Ok(manifests)
}

/// What makes a folder a kustomization, by its file name.
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
const NO_KUSTOMIZE: &str =
    "it is a kustomization, which Muster does not build: kustomize build FOLDER | muster ... -f -";

fn manifest_files(folder: &Path, recursive: bool) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(folder).map_err(|e| file_error(folder, &e))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| file_error(folder, &e))?;
        let path = entry.path();
        if KUSTOMIZATIONS.iter().any(|name| entry.file_name() == *name) {
            return Err(Error::File {
                path: folder.to_owned(),
                problem: NO_KUSTOMIZE.into(),
            });
        }
        // Links are not followed: they may lead around in a circle.
        if recursive && entry.file_type().is_ok_and(|t| t.is_dir()) {
            files.extend(manifest_files(&path, true)?);
            continue;
        }
        let fits = path
            .extension()
            .is_some_and(|e| EXTENSIONS.iter().any(|known| e == *known));
        if fits && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<Vec<Manifest>, Error> {
    let bytes = std::fs::read(path).map_err(|e| file_error(path, &e))?;
    let name = path.display().to_string();
    parse(&name, &text(&name, bytes)?)
}

fn file_error(path: &Path, error: &std::io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        problem: error.to_string(),
    }
}

fn text(file: &str, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e
            .as_bytes()
            .iter()
            .take(e.utf8_error().valid_up_to())
            .filter(|b| **b == b'\n')
            .count();
        Error::Manifest {
            place: format!("{file}, line {line}"),
            problem: "it is not UTF-8 text".into(),
        }
    })
}

/// Parses all documents of a file; a `List` is what it lists.
pub fn parse(file: &str, text: &str) -> Result<Vec<Manifest>, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut manifests = Vec::new();
    let mut document = 0;
    for (line, chunk) in documents(text) {
        let first = chunk.lines().position(|l| !blank(l)).unwrap_or_default();
        let place = Place {
            file: file.to_owned(),
            document: document + 1,
            line: line + first,
        };
        for object in objects(&place, line, &chunk)? {
            if object.is_null() {
                continue;
            }
            document += 1;
            flatten(
                Manifest {
                    place: Place {
                        document,
                        ..place.clone()
                    },
                    object,
                },
                &mut manifests,
            )?;
        }
    }
    Ok(manifests)
}

/// Neither a document nor part of one: empty, a comment, a directive.
fn blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line.starts_with('%')
}

/// Splits at `---` and `...` (YAML 1.2 §9.1: nothing else begins a line so), with the line each begins on.
fn documents(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let (mut begin, mut chunk) = (1, String::new());
    for (index, line) in text.lines().enumerate() {
        let marker = |m: &str| {
            line.strip_prefix(m)
                .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
        };
        let (rest, ends) = match (marker("---"), marker("...")) {
            // What follows the marker on its line stays in its column.
            (Some(rest), _) => (format!("   {rest}"), true),
            (None, Some(_)) => (String::new(), true),
            (None, None) => (line.to_owned(), false),
        };
        if ends {
            found.push((begin, std::mem::take(&mut chunk)));
            begin = index + 1;
        }
        chunk.push_str(&rest);
        chunk.push('\n');
    }
    found.push((begin, chunk));
    found.retain(|(_, chunk)| !chunk.lines().all(blank));
    found
}

/// The objects of one YAML document, or of several JSON values in a row.
fn objects(place: &Place, begin: usize, chunk: &str) -> Result<Vec<Value>, Error> {
    if chunk.trim_start().starts_with('{') {
        // Flow style YAML begins so too: only what reads as JSON throughout is taken as JSON.
        let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(chunk).into_iter().collect();
        if let Ok(values) = values {
            return Ok(values);
        }
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        // Kubernetes reads YAML 1.1: `defaultMode: 0644` is octal.
        legacy_octal_numbers: true,
    };
    let value = serde_saphyr::from_str_with_options(chunk, options).map_err(|e| {
        let line = e
            .location()
            .and_then(|l| usize::try_from(l.line()).ok())
            .map_or(place.line, |l| begin + l.max(1) - 1);
        error(
            &Place {
                line,
                ..place.clone()
            },
            format!("bad YAML: {}", without_location(&e.to_string())),
        )
    })?;
    Ok(vec![value])
}

/// The parser counts lines from the document's beginning: its own account of where would mislead.
fn without_location(message: &str) -> String {
    let line = one_line(message);
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    let line = match line.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, rest)) => rest,
        None => line,
    };
    line.split(" at line ").next().unwrap_or(line).to_owned()
}

fn flatten(manifest: Manifest, into: &mut Vec<Manifest>) -> Result<(), Error> {
    let is_list = manifest.text("/apiVersion") == "v1" && manifest.text("/kind") == "List";
    match manifest.object.get("items") {
        Some(Value::Array(items)) if is_list => {
            for object in items {
                flatten(
                    Manifest {
                        place: manifest.place.clone(),
                        object: object.clone(),
                    },
                    into,
                )?;
            }
        }
        _ if is_list => return Err(manifest.error("the List has no items")),
        _ => into.push(manifest),
    }
    Ok(())
}

/// Checks what every manifest must have and fills in the namespace where the kind is known to need one. What `namespace`
/// says must not contradict a manifest.
pub fn prepare(manifests: Vec<Manifest>, namespace: Option<&str>) -> Result<Vec<Manifest>, Error> {
    let custom = custom_kinds(&manifests);
    let mut seen: BTreeMap<(String, String, String, String), Place> = BTreeMap::new();
    let mut prepared = Vec::new();
    for mut manifest in manifests {
        check(&manifest)?;
        let kind = format!("{}/{}", manifest.group(), manifest.text("/kind"));
        let namespaced = NAMESPACED.contains(&kind.as_str()) || custom.get(&kind) == Some(&true);
        if namespaced {
            let own = manifest.text("/metadata/namespace").to_owned();
            match namespace {
                _ if own.is_empty() => {
                    manifest.object["metadata"]["namespace"] = namespace.unwrap_or("default").into();
                }
                Some(namespace) if namespace != own => {
                    return Err(manifest.error(format!(
                        "its namespace {own:?} is not the one of --namespace, {namespace:?}"
                    )));
                }
                _ => {}
            }
        }
        let identity = (
            manifest.group().to_owned(),
            manifest.text("/kind").to_owned(),
            manifest.text("/metadata/namespace").to_owned(),
            manifest.text("/metadata/name").to_owned(),
        );
        if let Some(first) = seen.get(&identity) {
            let (_, kind, _, name) = &identity;
            return Err(manifest.error(format!(
                "{kind} {name:?} is there twice, first in {first}: a work holds an object once"
            )));
        }
        seen.insert(identity, manifest.place.clone());
        prepared.push(manifest);
    }
    Ok(prepared)
}

/// Whether the kinds that CustomResourceDefinitions among the manifests define live in namespaces.
fn custom_kinds(manifests: &[Manifest]) -> BTreeMap<String, bool> {
    let crds = manifests
        .iter()
        .filter(|m| m.text("/kind") == "CustomResourceDefinition");
    crds.map(|crd| {
        let kind = format!("{}/{}", crd.text("/spec/group"), crd.text("/spec/names/kind"));
        (kind, crd.text("/spec/scope") == "Namespaced")
    })
    .collect()
}

fn check(manifest: &Manifest) -> Result<(), Error> {
    if !manifest.object.is_object() {
        let what = match &manifest.object {
            Value::Array(_) => "a list",
            Value::String(_) => "a text",
            _ => "a single value",
        };
        return Err(manifest.error(format!(
            "it is {what}, not an object: a manifest begins with apiVersion and kind"
        )));
    }
    let missing = |pointer: &str| manifest.text(pointer).is_empty();
    let text_or_absent = |pointer: &str| {
        manifest
            .object
            .pointer(pointer)
            .is_none_or(|v| v.is_string() || v.is_null())
    };
    for (pointer, field) in [
        ("/apiVersion", "apiVersion"),
        ("/kind", "kind"),
        ("/metadata/name", "metadata.name"),
        ("/metadata/namespace", "metadata.namespace"),
    ] {
        if !text_or_absent(pointer) {
            return Err(manifest.error(format!("its {field} is no text: put it in quotes")));
        }
    }
    if manifest.group() == "kustomize.config.k8s.io" {
        return Err(manifest.error(NO_KUSTOMIZE));
    }
    for (pointer, field) in [("/apiVersion", "apiVersion"), ("/kind", "kind")] {
        if missing(pointer) {
            return Err(manifest.error(format!("the manifest has no {field}")));
        }
    }
    let kind = manifest.text("/kind");
    if manifest
        .object
        .pointer("/metadata/generateName")
        .is_some_and(|v| v != "")
    {
        return Err(manifest.error(format!(
            "the {kind} has metadata.generateName: in a work every object has its own name"
        )));
    }
    if missing("/metadata/name") {
        return Err(manifest.error(format!("the {kind} has no metadata.name")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
