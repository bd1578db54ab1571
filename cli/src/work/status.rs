//! What became of each manifest of a work: what the hub was told, set beside what the work says.

use crate::Error;
use crate::error::one_line;
use crate::output::{self, Format};
use crate::table::Table;
use kube::ResourceExt as _;
use muster_crds::Manifest;
use muster_crds::cluster::v1::ManagedCluster;
use muster_crds::conditions::{find, is_true};
use muster_crds::constants::conditions as types;
use muster_crds::work::v1::{FieldValue, ManifestCondition, ManifestWork};

/// One manifest.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    kind: String,
    name: String,
    applied: String,
    available: String,
    why: String,
    feedback: String,
}

/// Works as JSON or YAML: one by itself, several as a list.
pub fn documents(works: Vec<ManifestWork>, format: Format) -> Result<String, Error> {
    let values = works.into_iter().map(|work| {
        serde_json::to_value(work)
            .map(output::for_people)
            .map_err(|e| Error::Input(format!("the work does not fit into JSON: {e}")))
    });
    let values = values.collect::<Result<Vec<_>, _>>()?;
    match values.as_slice() {
        [one] => output::document(one, format),
        several => output::document(&output::list(several), format),
    }
}

/// What to show of a work, or of the works of a bundle.
pub fn text(
    works: Vec<ManifestWork>,
    cluster: Option<&ManagedCluster>,
    format: Format,
) -> Result<String, Error> {
    match format {
        Format::Json | Format::Yaml => documents(works, format),
        Format::Name => Ok(works
            .iter()
            .map(|work| crate::get::name_line::<ManifestWork>(&work.name_any()))
            .collect()),
        Format::Table | Format::Wide => Ok(table(&works, cluster, format == Format::Wide)),
    }
}

fn table(works: &[ManifestWork], cluster: Option<&ManagedCluster>, wide: bool) -> String {
    let several = works.len() > 1;
    let mut headers = vec!["KIND", "NAME", "APPLIED", "AVAILABLE"];
    if several {
        headers.insert(0, "WORK");
    }
    headers.extend(wide.then_some("FEEDBACK"));
    headers.push("WHY");
    let mut table = Table::new(&headers);
    let mut notes = Vec::new();
    for work in works {
        for row in rows(work) {
            let mut cells = vec![row.kind, row.name, row.applied, row.available];
            if several {
                cells.insert(0, work.name_any());
            }
            cells.extend(wide.then_some(row.feedback));
            cells.push(row.why);
            table.row(cells);
        }
        let of_work = work_notes(work).into_iter();
        if several {
            notes.extend(of_work.map(|note| format!("{}: {note}", work.name_any())));
        } else {
            notes.extend(of_work);
        }
    }
    notes.extend(cluster.and_then(cluster_note));
    let mut text = table.render();
    for note in notes {
        text.extend(["\n", &note, "\n"]);
    }
    text
}

/// Of how many manifests a condition is true.
pub fn how_many(work: &ManifestWork, type_: &str) -> usize {
    let reported = work.status.iter().flat_map(|s| &s.resource_status.manifests);
    reported.filter(|m| is_true(&m.conditions, type_)).count()
}

fn rows(work: &ManifestWork) -> Vec<Row> {
    let reported = work
        .status
        .as_ref()
        .map(|s| s.resource_status.manifests.as_slice())
        .unwrap_or_default();
    let manifests = work.spec.workload.manifests.iter();
    manifests
        .enumerate()
        .map(|(ordinal, manifest)| {
            let report = reported
                .iter()
                .find(|r| usize::try_from(r.resource_meta.ordinal) == Ok(ordinal) && same(r, manifest));
            row(manifest, report)
        })
        .collect()
}

/// Whether a report is on this manifest, and not on the one that had its place before a change.
fn same(report: &ManifestCondition, manifest: &Manifest) -> bool {
    let meta = &report.resource_meta;
    // The agent could not even tell what it is.
    meta.kind.is_empty() || (meta.kind == manifest.kind() && meta.name == manifest.name())
}

fn row(manifest: &Manifest, report: Option<&ManifestCondition>) -> Row {
    let conditions = report.map(|r| r.conditions.as_slice()).unwrap_or_default();
    let status =
        |type_: &str| find(conditions, type_).map_or_else(|| "Unknown".to_owned(), |c| c.status.clone());
    let problem = |type_: &str| {
        find(conditions, type_)
            .filter(|c| c.status != "True")
            .map(|c| one_line(&c.message))
    };
    let why = match report {
        None => Some("the cluster has not reported on it yet".to_owned()),
        Some(_) => problem(types::APPLIED)
            .or_else(|| problem(types::AVAILABLE))
            .or_else(|| problem(types::STATUS_FEEDBACK_SYNCED)),
    };
    let name = match manifest.namespace() {
        "" => manifest.name().to_owned(),
        namespace => format!("{namespace}/{}", manifest.name()),
    };
    let values = report
        .map(|r| r.status_feedbacks.values.as_slice())
        .unwrap_or_default();
    let feedback: Vec<String> = values
        .iter()
        .map(|v| format!("{}={}", v.name, value(&v.value)))
        .collect();
    Row {
        kind: manifest.kind().to_owned(),
        name,
        applied: status(types::APPLIED),
        available: status(types::AVAILABLE),
        why: why.unwrap_or_default(),
        feedback: feedback.join(","),
    }
}

/// A reported value as text.
pub fn value(value: &FieldValue) -> String {
    let FieldValue {
        integer,
        string,
        boolean,
        json_raw,
        ..
    } = value;
    let number = integer.map(|i| i.to_string());
    number
        .or_else(|| string.clone())
        .or_else(|| boolean.map(|b| b.to_string()))
        .or_else(|| json_raw.clone())
        .unwrap_or_default()
}

/// The first manifest that is not as it should be, and why.
pub fn first_problem(work: &ManifestWork) -> Option<String> {
    let row = rows(work).into_iter().find(|r| !r.why.is_empty())?;
    Some(format!("{} {}: {}", row.kind, row.name, row.why))
}

/// What must be known of a work to read the table rightly.
fn work_notes(work: &ManifestWork) -> Vec<String> {
    let mut notes = Vec::new();
    let conditions = work
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    if work.metadata.deletion_timestamp.is_some() {
        notes.push(match find(conditions, types::DELETING) {
            Some(c) => format!("The work is being deleted: {}", one_line(&c.message)),
            None => "The work is being deleted.".to_owned(),
        });
    }
    let generation = work.metadata.generation.unwrap_or_default();
    match find(conditions, types::APPLIED).and_then(|c| c.observed_generation) {
        Some(seen) if seen < generation => {
            notes.push(format!(
                "The cluster has reported on generation {seen} of the work, not yet on {generation}."
            ));
        }
        _ => {}
    }
    notes
}

/// What must be known of the cluster.
fn cluster_note(cluster: &ManagedCluster) -> Option<String> {
    let conditions = cluster
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    match find(conditions, types::CLUSTER_AVAILABLE) {
        Some(c) if c.status == "True" => None,
        Some(c) => Some(format!(
            "Cluster {} is not available ({}: {}): this is what it said last.",
            cluster.name_any(),
            c.status,
            one_line(&c.message)
        )),
        None => Some(format!("Cluster {} was never available.", cluster.name_any())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn condition(type_: &str, status: &str, message: &str, generation: i64) -> Value {
        json!({"type": type_, "status": status, "reason": "R", "message": message, "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    fn work() -> ManifestWork {
        let object = |kind: &str, name: &str, namespace: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}});
        serde_json::from_value(json!({
            "apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
            "metadata": {"name": "w", "namespace": "c", "generation": 3, "managedFields": []},
            "spec": {"workload": {"manifests": [
                object("ConfigMap", "a", "n"), object("Widget", "b", ""), object("Secret", "new", "n"), object("Deployment", "d", "n"),
            ]}},
            "status": {"conditions": [condition("Applied", "False", "Failed", 2)], "resourceStatus": {"manifests": [
                {"resourceMeta": {"ordinal": 0, "kind": "ConfigMap", "name": "a", "namespace": "n"},
                 "conditions": [condition("Applied", "True", "ok", 2), condition("Available", "True", "ok", 2)]},
                {"resourceMeta": {"ordinal": 1, "kind": "Widget", "name": "b"},
                 "conditions": [condition("Applied", "False", "no matches for\nkind", 2)]},
                {"resourceMeta": {"ordinal": 2, "kind": "Secret", "name": "old", "namespace": "n"},
                 "conditions": [condition("Applied", "True", "ok", 2)]},
                {"resourceMeta": {"ordinal": 3, "kind": "Deployment", "name": "d", "namespace": "n"},
                 "conditions": [condition("Applied", "True", "ok", 2), condition("Available", "False", "0 of 1", 2)],
                 "statusFeedback": {"values": [
                    {"name": "ReadyReplicas", "fieldValue": {"type": "Integer", "integer": 0}},
                    {"name": "image", "fieldValue": {"type": "String", "string": "nginx"}}]}},
            ]}}
        }))
        .unwrap()
    }

    #[test]
    fn every_manifest_says_why() {
        let want = "KIND         NAME    APPLIED   AVAILABLE   WHY\n\
                    ConfigMap    n/a     True      True\n\
                    Widget       b       False     Unknown     no matches for; kind\n\
                    Secret       n/new   Unknown   Unknown     the cluster has not reported on it yet\n\
                    Deployment   n/d     True      False       0 of 1\n\
                    \nThe cluster has reported on generation 2 of the work, not yet on 3.\n";
        assert_eq!(text(vec![work()], None, Format::Table).unwrap(), want);
        let wide = text(vec![work()], None, Format::Wide).unwrap();
        assert!(wide.contains("ReadyReplicas=0,image=nginx   0 of 1"), "{wide}");
        let mut second = work();
        second.metadata.name = Some("w-2".into());
        let both = text(vec![work(), second], None, Format::Table).unwrap();
        assert!(
            both.starts_with("WORK   KIND ") && both.contains("\nw-2    ConfigMap    n/a "),
            "{both}"
        );
        assert!(
            both.contains("\nw-2: The cluster has reported on generation 2"),
            "{both}"
        );
        assert_eq!(how_many(&work(), "Applied"), 3);
        assert_eq!(first_problem(&work()).unwrap(), "Widget b: no matches for; kind");
        let yaml = text(vec![work()], None, Format::Yaml).unwrap();
        assert!(
            yaml.contains("kind: ManifestWork") && !yaml.contains("managedFields"),
            "{yaml}"
        );
    }

    #[test]
    fn a_cluster_that_is_away_is_noted() {
        let cluster = |conditions: Value| -> ManagedCluster {
            serde_json::from_value(json!({"apiVersion": "v1", "kind": "ManagedCluster", "metadata": {"name": "c"}, "spec": {}, "status": {"conditions": conditions}})).unwrap()
        };
        let note = |cluster: ManagedCluster| cluster_note(&cluster).unwrap();
        let away = cluster(json!([condition(
            "ManagedClusterConditionAvailable",
            "Unknown",
            "stopped",
            0
        )]));
        assert_eq!(
            note(away),
            "Cluster c is not available (Unknown: stopped): this is what it said last."
        );
        assert_eq!(note(cluster(json!([]))), "Cluster c was never available.");
        let there = cluster(json!([condition(
            "ManagedClusterConditionAvailable",
            "True",
            "",
            0
        )]));
        assert_eq!(cluster_note(&there), None);
    }
}
