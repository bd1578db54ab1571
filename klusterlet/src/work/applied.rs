//! AppliedManifestWorks: the managed cluster's own record of what was applied, and the only thing deletion follows
//! (wire §3.7). What is not in the record, not ours by UID, or owned by another work too, is never deleted.

use super::manifest::Identity;
use super::objects::{self, Mapper, RequestError};
use super::status::{Availability, Report};
use crate::limits::Server;
use futures::StreamExt as _;
use muster_crds::constants::{annotations, finalizers};
use muster_crds::work::v1::{AppliedManifestResourceMeta, AppliedManifestWork, ManifestWork};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// URL path of the collection.
pub const PATH: &str = "/apis/work.open-cluster-management.io/v1/appliedmanifestworks";

/// The owner reference that applied objects carry.
pub fn owner_reference(applied: &AppliedManifestWork) -> Value {
    json!({
        "apiVersion": "work.open-cluster-management.io/v1",
        "kind": "AppliedManifestWork",
        "name": applied.metadata.name,
        "uid": applied.metadata.uid,
    })
}

/// What is recorded now and what has to go.
#[derive(Debug, Default, PartialEq)]
pub struct Record {
    /// The new `status.appliedResources`, sorted.
    pub resources: Vec<AppliedManifestResourceMeta>,
    /// Recorded before, no longer part of the work.
    pub stale: Vec<AppliedManifestResourceMeta>,
}

/// Decides the record from what was recorded and what the manifests came to. `uids` goes with `reports`.
pub fn record(old: &[AppliedManifestResourceMeta], reports: &[Report], uids: &[String]) -> Record {
    let mut out = Record::default();
    for (report, uid) in reports.iter().zip(uids) {
        let meta = &report.meta;
        let entry = AppliedManifestResourceMeta {
            group: meta.group.clone(),
            version: meta.version.clone(),
            resource: meta.resource.clone(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: uid.clone(),
        };
        match &report.availability {
            Availability::Exists if !meta.resource.is_empty() && !uid.is_empty() => out.resources.push(entry),
            // Not known whether it exists: what was recorded of it stays. Its plural may not be known either.
            Availability::Unknown { .. } => out.resources.extend(
                old.iter()
                    .filter(|o| {
                        o.group == meta.group
                            && o.name == meta.name
                            && (meta.resource.is_empty() || o.resource == meta.resource)
                            && (meta.namespace.is_empty() || o.namespace == meta.namespace)
                    })
                    .cloned(),
            ),
            _ => {}
        }
    }
    let listed = |o: &AppliedManifestResourceMeta| {
        reports.iter().any(|r| {
            r.meta.group == o.group
                && r.meta.resource == o.resource
                && r.meta.namespace == o.namespace
                && r.meta.name == o.name
        }) || out.resources.iter().any(|r| same_object(r, o))
    };
    out.stale = old.iter().filter(|o| !listed(o)).cloned().collect();
    out.resources.sort();
    out.resources.dedup();
    out
}

/// Whether two entries name the same object.
pub fn same_object(a: &AppliedManifestResourceMeta, b: &AppliedManifestResourceMeta) -> bool {
    (&a.group, &a.resource, &a.namespace, &a.name) == (&b.group, &b.resource, &b.namespace, &b.name)
}

/// What to do with a recorded object whose record ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is not there, not the one recorded, or not ours.
    Leave,
    /// Another work owns it too: only our owner reference goes.
    Disown,
    /// Being deleted already.
    Wait,
    /// Delete it, this UID only.
    Delete,
}

/// Decides about one object.
pub fn removal(recorded_uid: &str, live: Option<&Value>, applied_uid: &str) -> Removal {
    let Some(live) = live else { return Removal::Leave };
    let metadata = &live["metadata"];
    if !recorded_uid.is_empty() && metadata["uid"].as_str() != Some(recorded_uid) {
        return Removal::Leave;
    }
    if !is_owned(live, applied_uid) {
        return Removal::Leave;
    }
    let mut owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let another = |o: &Value| {
        o["uid"].as_str() != Some(applied_uid)
            && o["kind"] == "AppliedManifestWork"
            && o["apiVersion"]
                .as_str()
                .is_some_and(|v| v.starts_with("work.open-cluster-management.io/"))
    };
    if owners.any(another) {
        Removal::Disown
    } else if !metadata["deletionTimestamp"].is_null() {
        Removal::Wait
    } else {
        Removal::Delete
    }
}

/// A recorded object, as far as it can be found now.
enum Found {
    Gone,
    /// Its resource is being changed.
    NotNow,
    At(String, Value),
}

async fn find(
    spoke: &Server,
    mapper: &Mapper,
    entry: &AppliedManifestResourceMeta,
) -> Result<Found, RequestError> {
    let mut asked_anew = false;
    loop {
        let served = match mapper
            .by_plural(spoke, &entry.group, &entry.version, &entry.resource)
            .await
        {
            Ok(served) => served,
            // The kind itself is gone, and its objects with it.
            Err(RequestError::UnknownKind(_)) => return Ok(Found::Gone),
            Err(error) => return Err(error),
        };
        let unserved = if served.namespaced == entry.namespace.is_empty() {
            // It has another scope now: no object that it had before is left.
            Found::Gone
        } else {
            let path = served.object(&entry.namespace, &entry.name);
            match objects::get(spoke, &path).await {
                Ok(live) => return Ok(Found::At(path, live)),
                Err(error) if error.is_unserved() => Found::NotNow,
                Err(error) if error.is_not_found() => return Ok(Found::Gone),
                Err(error) => return Err(error),
            }
        };
        if asked_anew {
            return Ok(unserved);
        }
        // What was known of the kind may be of before.
        mapper.forget_group(&entry.group);
        asked_anew = true;
    }
}

/// Ends the record of one object. True when there is nothing left to wait for.
pub async fn remove(
    spoke: &Server,
    mapper: &Mapper,
    entry: &AppliedManifestResourceMeta,
    applied_uid: &str,
) -> Result<bool, RequestError> {
    let (path, live) = match find(spoke, mapper, entry).await? {
        Found::Gone => return Ok(true),
        Found::NotNow => return Ok(false),
        Found::At(path, live) => (path, live),
    };
    match removal(&entry.uid, Some(&live), applied_uid) {
        Removal::Leave => Ok(true),
        Removal::Wait => Ok(false),
        Removal::Disown => disown(spoke, &path, live, applied_uid).await.map(|_| true),
        Removal::Delete => {
            let uid = live["metadata"]["uid"].as_str().unwrap_or_default();
            match objects::delete(spoke, &path, uid).await {
                // A Status: gone at once. The object: it has finalizers.
                Ok(answer) => {
                    Ok(answer["kind"] == "Status" || answer["metadata"]["deletionTimestamp"].is_null())
                }
                Err(error) if error.is_not_found() => Ok(true),
                Err(error) => Err(error),
            }
        }
    }
}

/// Takes the record off the owners of an object that stays.
pub async fn let_go(
    spoke: &Server,
    mapper: &Mapper,
    entry: &AppliedManifestResourceMeta,
    applied_uid: &str,
) -> Result<(), RequestError> {
    match find(spoke, mapper, entry).await? {
        Found::At(path, live) if is_owned(&live, applied_uid) => {
            match disown(spoke, &path, live, applied_uid).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// What came of removals.
#[derive(Debug, Default)]
pub struct Removed {
    /// What is still there.
    pub left: Vec<AppliedManifestResourceMeta>,
    /// Why some of it could not be removed: object and words, in their order.
    pub refused: Vec<String>,
    /// An error that says nothing about the object itself.
    pub error: Option<RequestError>,
}

/// Ends the record of several objects, `at_once` at a time. One that can not be removed does not hold up the others.
pub async fn remove_all(
    spoke: &Server,
    mapper: &Mapper,
    entries: Vec<AppliedManifestResourceMeta>,
    applied_uid: &str,
    at_once: usize,
) -> Removed {
    let removals = entries.into_iter().map(|entry| async move {
        let gone = remove(spoke, mapper, &entry, applied_uid).await;
        (entry, gone)
    });
    let mut results = futures::stream::iter(removals).buffer_unordered(at_once);
    let mut removed = Removed::default();
    while let Some((entry, gone)) = results.next().await {
        match gone {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) if is_refusal(&error) => removed.refused.push(refusal(&entry, &error)),
            Err(error) => removed.error = Some(error),
        }
        removed.left.push(entry);
    }
    removed.refused.sort_unstable();
    removed
}

/// Whether it is the server's answer about this object, and not that it can not answer now.
fn is_refusal(error: &RequestError) -> bool {
    !matches!(error.code(), 0 | 401 | 408 | 409 | 429 | 502..=504)
}

/// Whether two lists of refusals say the same of the same objects, whatever numbers the server's words have in them.
pub fn same_but_numbers(one: &[String], other: &[String]) -> bool {
    let parts = |text: &String| {
        let (object, words) = text.split_once(": ").unwrap_or((text, ""));
        (object.to_owned(), words.replace(|c: char| c.is_ascii_digit(), ""))
    };
    one.iter().map(parts).eq(other.iter().map(parts))
}

fn refusal(entry: &AppliedManifestResourceMeta, error: &RequestError) -> String {
    let words: String = error.to_string().chars().take(LONGEST_REFUSAL).collect();
    let group = if entry.group.is_empty() { "" } else { "." };
    let namespace = if entry.namespace.is_empty() { "" } else { "/" };
    format!(
        "{}{group}{} {}{namespace}{}: {words}",
        entry.resource, entry.group, entry.namespace, entry.name
    )
}

/// Of the server's words, in characters.
const LONGEST_REFUSAL: usize = 512;
/// Objects named that could not be removed.
const MOST_REFUSALS: usize = 3;

/// What could not be removed, in one sentence.
pub fn refusals(refused: &[String]) -> String {
    let first = refused[..refused.len().min(MOST_REFUSALS)].join("; ");
    match refused.len().saturating_sub(MOST_REFUSALS) {
        0 => format!("not removed: {first}"),
        more => format!("not removed: {first}; and {more} more"),
    }
}

/// Whether an object names the record as its owner.
pub fn is_owned(live: &Value, applied_uid: &str) -> bool {
    let owners = live["metadata"]["ownerReferences"].as_array();
    owners
        .into_iter()
        .flatten()
        .any(|o| o["uid"].as_str() == Some(applied_uid))
}

/// Takes the record off an object's owners, unless it is not the same object any more.
pub async fn disown(
    spoke: &Server,
    path: &str,
    mut live: Value,
    applied_uid: &str,
) -> Result<Value, RequestError> {
    if let Some(owners) = live["metadata"]["ownerReferences"].as_array_mut() {
        owners.retain(|o| o["uid"].as_str() != Some(applied_uid));
    }
    let patch = json!({"metadata": {
        "uid": live["metadata"]["uid"],
        "resourceVersion": live["metadata"]["resourceVersion"],
        "ownerReferences": live["metadata"]["ownerReferences"],
    }});
    objects::merge(spoke, path, &patch).await
}

/// The AppliedManifestWork for a work.
pub fn new(name: &str, work: &ManifestWork, hub_hash: &str, agent_id: &str) -> Value {
    let mut object = json!({
        "apiVersion": "work.open-cluster-management.io/v1",
        "kind": "AppliedManifestWork",
        "metadata": {"name": name, "finalizers": [finalizers::APPLIED_MANIFEST_WORK],
            "annotations": {annotations::KINDS: joined(&kinds(work)), annotations::WORK_UID: work.metadata.uid}},
        "spec": {"hubHash": hub_hash, "agentID": agent_id, "manifestWorkName": work.metadata.name},
    });
    if let Some(labels) = work.metadata.labels.as_ref().filter(|l| !l.is_empty()) {
        object["metadata"]["labels"] = json!(labels);
    }
    object
}

/// The kinds of a work's manifests, as they are noted on its record before anything of them is made: an agent that is ended
/// between making an object and recording it finds the object again.
pub fn kinds(work: &ManifestWork) -> BTreeSet<String> {
    let manifests = work.spec.workload.manifests.iter().map(|m| Identity::of(&m.0));
    manifests
        .filter(|i| !i.kind.is_empty() && !i.version.is_empty())
        .map(|i| format!("{}.{}.{}", i.kind, i.version, i.group))
        .collect()
}

/// UID of the work that the record was made for, where it says so.
pub fn work_uid(applied: &AppliedManifestWork) -> Option<&str> {
    let annotations = applied.metadata.annotations.as_ref()?;
    annotations.get(annotations::WORK_UID).map(String::as_str)
}

/// The kinds noted on a record.
pub fn noted(applied: &AppliedManifestWork) -> BTreeSet<String> {
    let annotations = applied.metadata.annotations.as_ref();
    let noted = annotations.and_then(|a| a.get(annotations::KINDS));
    let kinds = noted.into_iter().flat_map(|n| n.split(','));
    kinds.filter(|k| !k.is_empty()).map(str::to_owned).collect()
}

/// As they are written.
pub fn joined(kinds: &BTreeSet<String>) -> String {
    kinds.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

/// What a noted kind names.
pub fn kind(noted: &str) -> Option<Identity> {
    let mut parts = noted.splitn(3, '.');
    Some(Identity {
        kind: parts.next()?.to_owned(),
        version: parts.next()?.to_owned(),
        group: parts.next()?.to_owned(),
        ..Identity::default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::status::Applied;
    use super::*;
    use muster_crds::work::v1::ManifestResourceMeta;

    #[test]
    fn other_numbers_in_the_servers_words_are_no_news() {
        for (one, other, same) in [
            (
                "configmaps n/a1: port 41234 refused",
                "configmaps n/a1: port 9 refused",
                true,
            ),
            (
                "configmaps n/a1: port 41234 refused",
                "configmaps n/a2: port 41234 refused",
                false,
            ),
            ("configmaps n/a1: refused", "configmaps n/a1: forbidden", false),
        ] {
            assert_eq!(
                same_but_numbers(&[one.into()], &[other.into()]),
                same,
                "{one} {other}"
            );
        }
        assert!(!same_but_numbers(&[], &["configmaps n/a: refused".into()]));
    }

    fn entry(resource: &str, name: &str, uid: &str) -> AppliedManifestResourceMeta {
        AppliedManifestResourceMeta {
            version: "v1".into(),
            resource: resource.into(),
            namespace: "d".into(),
            name: name.into(),
            uid: uid.into(),
            ..AppliedManifestResourceMeta::default()
        }
    }

    fn report(resource: &str, name: &str, availability: Availability) -> Report {
        let meta = ManifestResourceMeta {
            version: "v1".into(),
            resource: resource.into(),
            namespace: "d".into(),
            name: name.into(),
            ..ManifestResourceMeta::default()
        };
        Report {
            meta,
            applied: Applied::Yes,
            availability,
            feedback: None,
            conditions: vec![],
        }
    }

    #[test]
    fn what_left_the_work_is_stale_and_what_is_unknown_stays() {
        let old = [
            entry("configmaps", "a", "1"),
            entry("configmaps", "b", "2"),
            entry("widgets", "c", "3"),
        ];
        let unknown = || Availability::Unknown {
            reason: "R",
            message: String::new(),
        };
        let reports = [
            report("configmaps", "a", Availability::Exists),
            report("", "c", unknown()),
            report("configmaps", "new", Availability::Exists),
            report("configmaps", "missing", Availability::Missing),
        ];
        let uids = ["1".into(), String::new(), "9".into(), String::new()];
        let record = record(&old, &reports, &uids);
        let expected = [
            entry("configmaps", "a", "1"),
            entry("configmaps", "new", "9"),
            entry("widgets", "c", "3"),
        ];
        assert_eq!(record.resources, expected);
        assert_eq!(record.stale, [entry("configmaps", "b", "2")]);
    }

    #[test]
    fn what_is_refused_is_told_shortly() {
        let refused: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        assert_eq!(refusals(&refused[..1]), "not removed: a");
        assert_eq!(refusals(&refused), "not removed: a; b; c; and 2 more");
        let error = |code: u16| {
            let status = kube::core::Status::failure("words", "Reason").with_code(code);
            RequestError::Kube(Box::new(kube::Error::Api(Box::new(status))))
        };
        let mut thing = entry("things", "a", "1");
        thing.group = "x.io".into();
        assert_eq!(refusal(&thing, &error(403)), "things.x.io d/a: words");
        for (code, expected) in [
            (403, true),
            (422, true),
            (500, true),
            (409, false),
            (429, false),
            (503, false),
        ] {
            assert_eq!(is_refusal(&error(code)), expected, "{code}");
        }
        assert!(!is_refusal(&RequestError::Timeout));
    }

    #[test]
    fn a_missing_object_of_the_work_is_not_stale() {
        let old = [entry("configmaps", "a", "1")];
        let record = record(
            &old,
            &[report("configmaps", "a", Availability::Missing)],
            &[String::new()],
        );
        assert_eq!(record, Record::default());
    }

    #[test]
    fn only_what_is_ours_is_deleted() {
        let owner = |uid: &str, kind: &str| json!({"uid": uid, "kind": kind, "apiVersion": "work.open-cluster-management.io/v1"});
        let live = |uid: &str, owners: Value| json!({"metadata": {"uid": uid, "ownerReferences": owners}});
        let ours = owner("amw", "AppliedManifestWork");
        let mut terminating = live("1", json!([ours]));
        terminating["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let cases = [
            (None, Removal::Leave),
            (Some(live("1", json!([ours]))), Removal::Delete),
            (Some(live("2", json!([ours]))), Removal::Leave),
            (Some(live("1", json!([]))), Removal::Leave),
            (
                Some(live("1", json!([owner("x", "AppliedManifestWork")]))),
                Removal::Leave,
            ),
            (
                Some(live("1", json!([ours, owner("x", "AppliedManifestWork")]))),
                Removal::Disown,
            ),
            (
                Some(live("1", json!([ours, owner("x", "Deployment")]))),
                Removal::Delete,
            ),
            (Some(terminating), Removal::Wait),
        ];
        for (live, expected) in cases {
            assert_eq!(removal("1", live.as_ref(), "amw"), expected, "{live:?}");
        }
    }
}
