//! CustomResourceDefinitions: whether their names are free, whether they are served, and how they go.

use super::kinds;
use super::plan::{Action, Plan, condition, is_true, remove_finalizer, set_condition};
use crate::object;
use crate::rest::rfc3339;
use crate::store::Entry;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// Holds a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Where a definition in a group of Kubernetes' own says who approved it (KEP-1111).
const APPROVAL: &str = "api-approved.kubernetes.io";

/// First part of the store keys of a definition's objects.
pub fn storage(crd: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    format!(
        "{}/{}",
        text(&crd["spec"]["group"]),
        text(&crd["spec"]["names"]["plural"])
    )
}

/// The next step of a definition. `others` are all definitions, `left` its objects.
pub fn decide(crd: &Value, others: &[Value], left: &[Arc<Entry>], now: Timestamp) -> Plan {
    let now = rfc3339(now);
    if object::is_deleting(crd) {
        return remove(crd, left, &now);
    }
    let mut new = crd.clone();
    // In the order the conditions are listed in.
    approval(&mut new, &now);
    accept_names(&mut new, others, &now);
    stored_versions(&mut new);
    if new == *crd {
        Plan::default()
    } else {
        Plan::of([Action::status(kinds::CRDS, new)])
    }
}

/// Objects first, those with finalizers in their own time; then the definition.
fn remove(crd: &Value, left: &[Arc<Entry>], now: &str) -> Plan {
    if !object::finalizers(crd).any(|f| f == CLEANUP) {
        return Plan::default();
    }
    // What another definition of the same names serves is not this one's to delete.
    let own = is_true(crd, "Established");
    let mut new = crd.clone();
    if left.is_empty() || !own {
        remove_finalizer(&mut new, CLEANUP);
        return Plan::of([Action::update(kinds::CRDS, new)]);
    }
    let mut actions = Vec::new();
    let message = "CustomResource deletion is in progress";
    if set_condition(
        &mut new,
        "Terminating",
        "True",
        "InstanceDeletionInProgress",
        message,
        now,
    ) {
        actions.push(Action::status(kinds::CRDS, new));
    }
    let storage = storage(crd);
    let doomed = left.iter().map(|e| e.value()).filter(|o| !object::is_deleting(o));
    actions.extend(doomed.map(|o| Action::delete(storage.clone(), &o, None)));
    Plan::of(actions)
}

/// Names another definition of the group was accepted with are taken.
fn accept_names(crd: &mut Value, others: &[Value], now: &str) {
    let taken: Vec<&Value> = others
        .iter()
        .filter(|o| object::uid(o) != object::uid(crd) && o["spec"]["group"] == crd["spec"]["group"])
        .map(|o| &o["status"]["acceptedNames"])
        .collect();
    let wanted = crd["spec"]["names"].clone();
    let mut accepted = crd["status"]["acceptedNames"].clone();
    if !accepted.is_object() {
        accepted = json!({"plural": "", "kind": ""});
    }
    // Plural, singular and short names share one space, kinds and list kinds another.
    let resource_taken = |name: &Value| {
        taken.iter().any(|t| {
            t["plural"] == *name
                || t["singular"] == *name
                || t["shortNames"].as_array().is_some_and(|l| l.contains(name))
        })
    };
    let kind_taken = |name: &Value| taken.iter().any(|t| t["kind"] == *name || t["listKind"] == *name);
    // Of several conflicts the last is told, in this order.
    let mut conflict = None;
    for (field, reason, is_kind) in [
        ("plural", "PluralConflict", false),
        ("singular", "SingularConflict", false),
        ("shortNames", "ShortNamesConflict", false),
        ("kind", "KindConflict", true),
        ("listKind", "ListKindConflict", true),
    ] {
        let names = match &wanted[field] {
            Value::Array(names) => names.clone(),
            name => vec![name.clone()],
        };
        let mut named = names.iter().filter(|n| n.as_str().is_some_and(|n| !n.is_empty()));
        match named.find(|n| if is_kind { kind_taken(n) } else { resource_taken(n) }) {
            Some(name) => conflict = Some((reason, format!("{name} is already in use"))),
            None => copy(&mut accepted, &wanted, field),
        }
    }
    copy(&mut accepted, &wanted, "categories");
    let status = object::child_mut(crd, "status");
    status.insert("acceptedNames".to_owned(), accepted);
    let (named, reason, message) = match &conflict {
        None => ("True", "NoConflicts", "no conflicts found"),
        Some((reason, message)) => ("False", *reason, message.as_str()),
    };
    set_condition(crd, "NamesAccepted", named, reason, message, now);
    let established = condition(crd, "Established").map(|c| c["status"].clone());
    if conflict.is_none() {
        // Once served, always served: only what was never established waits for its names.
        if established != Some("True".into()) {
            let message = "the initial names have been accepted";
            set_condition(crd, "Established", "True", "InitialNamesAccepted", message, now);
        }
    } else if established.is_none() {
        let message = "not all names are accepted";
        set_condition(crd, "Established", "False", "NotAccepted", message, now);
    }
}

fn copy(to: &mut Value, from: &Value, field: &str) {
    if let Some(map) = to.as_object_mut() {
        match from.get(field).filter(|v| !v.is_null()) {
            Some(value) => drop(map.insert(field.to_owned(), value.clone())),
            None => drop(map.remove(field)),
        }
    }
}

/// Whether a definition in a protected group follows the approval policy.
fn approval(crd: &mut Value, now: &str) {
    let group = crd["spec"]["group"].as_str().unwrap_or_default();
    let protected = ["k8s.io", "kubernetes.io"].iter().any(|p| {
        group
            .strip_suffix(p)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    if !protected {
        return;
    }
    let annotation = crd["metadata"]["annotations"][APPROVAL]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let is_url = annotation.starts_with("https://") || annotation.starts_with("http://");
    let (status, reason, message) = if annotation.is_empty() {
        (
            "False",
            "MissingAnnotation",
            format!("the group is protected and there is no annotation {APPROVAL:?}"),
        )
    } else if annotation.starts_with("unapproved") {
        (
            "False",
            "UnapprovedAnnotation",
            format!("not approved: {annotation:?}"),
        )
    } else if is_url {
        ("True", "ApprovedAnnotation", format!("approved in {annotation}"))
    } else {
        (
            "False",
            "InvalidAnnotation",
            format!("annotation {APPROVAL:?} is neither a URL nor unapproved"),
        )
    };
    set_condition(
        crd,
        "KubernetesAPIApprovalPolicyConformant",
        status,
        reason,
        &message,
        now,
    );
}

/// Versions objects may be stored in: every one that ever was the storage version and was not taken out by hand.
fn stored_versions(crd: &mut Value) {
    let storage = crd["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|v| v["storage"] == true);
    let Some(name) = storage.map(|v| v["name"].clone()) else {
        return;
    };
    let status = object::child_mut(crd, "status");
    let list = status.entry("storedVersions").or_insert_with(|| json!([]));
    if let Some(versions) = list.as_array_mut()
        && !versions.contains(&name)
    {
        versions.push(name);
    }
}
