//! What writing does differently for some kinds, and what every write checks: facts of kube-apiserver's registries, as
//! pure functions.

use super::{modified, subject};
use crate::ApiError;
use crate::error::FieldError;
use crate::object::{self, set_meta};
use crate::patch::FieldSet;
use crate::registry::{Resource, split_api_version, strategy};
use rand::Rng as _;
use serde_json::Value;

/// Fields an endpoint never owns: the status on the object itself, the spec on its status.
pub fn reset_fields(r: &Resource, sub: &str) -> FieldSet {
    match sub {
        "status" if r.custom.is_some() => {
            FieldSet::of(&[&["spec"], &["metadata", "labels"], &["metadata", "annotations"]])
        }
        "status" if strategy::keeps_metadata(r) => FieldSet::of(&[&["spec"], &["metadata"]]),
        "status" => match r.plural.as_str() {
            "deployments" => FieldSet::of(&[&["spec"], &["metadata", "labels"]]),
            "pods" => FieldSet::of(&[
                &["spec"],
                &["metadata", "deletionTimestamp"],
                &["metadata", "ownerReferences"],
            ]),
            _ => FieldSet::of(&[&["spec"]]),
        },
        "" | "finalize" if r.has_status() => FieldSet::of(&[&["status"]]),
        _ => FieldSet::default(),
    }
}

/// Kinds whose PUT makes a missing object (their strategies' AllowCreateOnUpdate).
pub(super) fn creates_on_update(r: &Resource) -> bool {
    matches!(
        (r.group.as_str(), r.plural.as_str()),
        ("", "endpoints" | "events" | "limitranges" | "services")
            | ("events.k8s.io", "events")
            | ("coordination.k8s.io", "leases")
            | ("node.k8s.io", "runtimeclasses")
            | ("rbac.authorization.k8s.io", _)
    )
}

/// Kinds whose PUT needs a resourceVersion (their strategies' AllowUnconditionalUpdate is false).
pub(super) fn needs_version(r: &Resource) -> bool {
    r.custom.is_some()
        || matches!(
            (r.group.as_str(), r.plural.as_str()),
            (
                "apiextensions.k8s.io" | "apiregistration.k8s.io" | "admissionregistration.k8s.io",
                _,
            ) | ("coordination.k8s.io", "leases")
                | ("policy", "poddisruptionbudgets")
                | ("node.k8s.io", "runtimeclasses")
                | (
                    "storage.k8s.io",
                    "csidrivers" | "csinodes" | "volumeattachments" | "csistoragecapacities"
                )
        )
}

pub(super) fn invalid(r: &Resource, name: &str, errors: Vec<FieldError>) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    // Rules belong to the kind as it is stored: an Event of events.k8s.io is told about as one of core.
    let (group, _) = split_api_version(&r.storage_api_version);
    Err(ApiError::invalid(group, &r.kind, name, errors))
}

/// What kube-apiserver's update path does: metadata is looked at for every kind, and again by the kind's strategy.
pub(super) fn metadata_twice(errors: Vec<FieldError>) -> Vec<FieldError> {
    let (metadata, rest): (Vec<_>, Vec<_>) =
        errors.into_iter().partition(|e| e.field.starts_with("metadata."));
    let mut out = metadata.clone();
    out.extend(metadata);
    out.extend(rest);
    out
}

/// Whether field owners are kept. In the published schema of CertificateSigningRequests a byte string is called a list, so
/// kube-apiserver cannot read one as a typed object and keeps none.
pub(super) fn tracks_fields(r: &Resource) -> bool {
    !(r.group == "certificates.k8s.io" && r.plural == "certificatesigningrequests")
}

pub(super) fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect()
}

/// Compares what a write says about the object's identity with what is there, and carries over what the server sets.
pub(super) fn check_identity(
    r: &Resource,
    name: &str,
    replaces: bool,
    old: &Value,
    new: &mut Value,
) -> Result<(), ApiError> {
    let immutable = |field: &str, value: &Value| {
        let error = FieldError::invalid(format!("metadata.{field}"), value, "field is immutable");
        invalid(r, name, metadata_twice(vec![error]))
    };
    let uid = object::uid(new);
    if replaces {
        check_uid(r, name, uid, old)?;
    } else if !uid.is_empty() && uid != object::uid(old) {
        return immutable("uid", &new["metadata"]["uid"]);
    }
    let version = object::resource_version(new);
    if !version.is_empty() && version != object::resource_version(old) {
        return Err(modified(r, name));
    }
    let deletion = &new["metadata"]["deletionTimestamp"];
    if !deletion.is_null() && !object::is_deleting(old) {
        return immutable("deletionTimestamp", deletion);
    }
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        set_meta(
            new,
            field,
            Some(old["metadata"][field].clone()).filter(|v| !v.is_null()),
        );
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        set_meta(
            new,
            field,
            Some(old["metadata"][field].clone()).filter(|v| !v.is_null()),
        );
    }
    object::metadata_mut(new).remove("selfLink");
    Ok(())
}

/// Refuses a write that is meant for another object of this name.
pub(super) fn check_uid(r: &Resource, name: &str, uid: &str, old: &Value) -> Result<(), ApiError> {
    if uid.is_empty() || uid == object::uid(old) {
        return Ok(());
    }
    let detail = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{}/{}, ResourceVersion: 0, AdditionalErrorMsg: \
         Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
        etcd_prefix(r),
        format!("{}/{name}", object::namespace(old)).trim_start_matches('/'),
        object::uid(old)
    );
    Err(ApiError::Conflict {
        subject: subject(r, name),
        detail,
    })
}

/// Where kube-apiserver keeps objects of this kind in etcd, which it tells.
fn etcd_prefix(r: &Resource) -> String {
    let own = match (r.group.as_str(), r.plural.as_str()) {
        ("", "services") => "services/specs",
        ("", "endpoints") => "services/endpoints",
        ("", "nodes") => "minions",
        ("", "replicationcontrollers") => "controllers",
        ("networking.k8s.io", "ingresses") => "ingress",
        (group, plural)
            if r.custom.is_some() || matches!(group, "apiextensions.k8s.io" | "apiregistration.k8s.io") =>
        {
            return format!("{group}/{plural}");
        }
        (_, plural) => plural,
    };
    own.to_owned()
}

/// Fields a built-in kind can be selected by, besides its metadata.
pub fn builtin_fields(group: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("events.k8s.io", "events") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("", "secrets") => &["type"],
        ("", "namespaces") => &["status.phase"],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "replicationcontrollers") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["spec.signerName"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        _ => &[],
    }
}
