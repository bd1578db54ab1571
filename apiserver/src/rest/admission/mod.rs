//! What may refuse or change a write besides the rules of its kind.
//!
//! Every write passes these points, in kube-apiserver's order: [`before`] (namespace lifecycle), [`defaults`] and
//! [`mutate`] (mutating policies and webhooks), strategy and validation, [`validate`] (limits, Pod Security, validating
//! policies and webhooks, quotas).

mod call;
mod changed;
mod classes;
mod conditions;
mod connection;
pub(crate) mod definition;
mod growth;
mod hooks;
mod limits;
mod matching;
mod mutation;
mod policy;
mod priority;
mod quota;
mod runtime;
mod security;
mod seen;
mod signers;
mod trust;
mod webhook;

pub use hooks::Hooks;

use super::{Api, subject};
use crate::ApiError;
use crate::auth::UserInfo;
use crate::controllers::kinds::{CRDS, CSRS};
use crate::error::Subject;
use crate::registry::{Resource, strategy};
use crate::store::Key;
use base64::Engine as _;
use hooks::Index;
use seen::Seen;
use serde_json::{Value, json};
use std::sync::Arc;

/// What a write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change.
    Update,
    /// A removal.
    Delete,
}

/// A write under review.
#[derive(Debug)]
pub struct Review<'a> {
    /// What it does.
    pub operation: Operation,
    /// Who asked.
    pub user: &'a UserInfo,
    /// Kind.
    pub resource: &'a Arc<Resource>,
    /// Subresource, `""` for the object itself.
    pub subresource: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// Nothing will be stored.
    pub dry_run: bool,
}

/// Namespaces that stay.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Before anything else is looked at: the namespace is there and takes new objects.
pub fn before(api: &Api, review: &Review<'_>) -> Result<(), ApiError> {
    let r = review.resource;
    if &*r.storage == "/namespaces" {
        if review.operation == Operation::Delete && IMMORTAL.contains(&review.name) {
            return Err(ApiError::forbidden(
                subject(r, review.name),
                "this namespace may not be deleted",
            ));
        }
        return Ok(());
    }
    if review.operation == Operation::Create {
        definition_stays(api, review)?;
    }
    if !r.namespaced || review.operation != Operation::Create {
        return Ok(());
    }
    let at = Key {
        resource: "/namespaces".into(),
        namespace: "".into(),
        name: review.namespace.into(),
    };
    let Some(entry) = api.store.get(&at) else {
        return Err(ApiError::NotFound(Subject::new(
            "",
            "namespaces",
            review.namespace,
        )));
    };
    if entry.is_deleting() {
        return Err(terminating(r, review));
    }
    Ok(())
}

/// Nothing is made of a definition that is on its way out.
fn definition_stays(api: &Api, review: &Review<'_>) -> Result<(), ApiError> {
    let Some(custom) = &review.resource.custom else {
        return Ok(());
    };
    let at = Key {
        resource: CRDS.into(),
        namespace: "".into(),
        name: custom.crd.as_str().into(),
    };
    let entry = api.store.get(&at);
    if entry.is_some_and(|entry| entry.is_deleting()) {
        return Err(ApiError::forbidden(
            subject(review.resource, review.name),
            "create not allowed while custom resource definition is terminating",
        ));
    }
    Ok(())
}

/// Nobody becomes an administrator by a certificate (CertificateSubjectRestriction).
fn subject_restriction(review: &Review<'_>, new: &Value) -> Result<(), ApiError> {
    const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
    const MASTERS: &str = "system:masters";
    let is_request = &*review.resource.storage == CSRS && review.operation == Operation::Create;
    if !is_request || new["spec"]["signerName"] != SIGNER {
        return Ok(());
    }
    let pem = new["spec"]["request"].as_str().unwrap_or_default();
    let request = base64::engine::general_purpose::STANDARD
        .decode(pem)
        .ok()
        .and_then(|pem| crate::pki::Request::parse(&pem).ok());
    if request.is_some_and(|r| r.organizations.iter().any(|o| o == MASTERS)) {
        return Err(ApiError::forbidden(
            subject(review.resource, review.name),
            &format!("use of {SIGNER} signer with {MASTERS} group is not allowed"),
        ));
    }
    Ok(())
}

fn terminating(r: &Resource, review: &Review<'_>) -> ApiError {
    let detail = format!(
        "unable to create new content in namespace {} because it is being terminated",
        review.namespace
    );
    let mut status = ApiError::forbidden(subject(r, review.name), &detail).status();
    status["details"]["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {} is being terminated", review.namespace),
        "field": "metadata.namespace",
    }]);
    ApiError::Status(Box::new(status))
}

/// What the server itself gives a new object that says nothing: amounts, priority, tolerations, classes.
pub fn defaults(api: &Api, review: &Review<'_>, object: &mut Value) -> Result<(), ApiError> {
    if COMMANDS.contains(&review.subresource) {
        return Ok(());
    }
    limits::defaults(api, review, object)?;
    priority::priority(api, review, object)?;
    if &*review.resource.storage == "/pods" && review.operation == Operation::Create {
        strategy::tolerate(object);
    }
    runtime::defaults(api, review, object)?;
    classes::defaults(api, review, object)
}

/// A write that something may change, and what it is held against.
type Write<'a> = (&'a Api, &'a Review<'a>, &'a Index, Option<&'a Value>);

/// Mutating policies, then webhooks: may change the new object, before its kind's own rules see it. What asks for it is asked
/// once more after all of them, as kube-apiserver does: a policy also where it alone changed the object. `new` is `None` for a deletion. Gives warnings for the client.
pub async fn mutate(
    api: &Api,
    review: &Review<'_>,
    new: Option<&mut Value>,
    old: Option<&Value>,
) -> Result<Vec<String>, ApiError> {
    let index = index(api)?;
    if !index.mutates() || matching::is_exempt(review.resource) {
        return Ok(Vec::new());
    }
    // Most writes are none of theirs: those are not copied for them.
    let seen = Seen::new(api, review, &index, new.as_deref(), old);
    if !webhook::concerns_mutating(&seen, &index) && !mutation::concerns(&seen, &index) {
        return Ok(Vec::new());
    }
    drop(seen);
    // Few writes come here, and all would have to carry what this needs.
    Box::pin(change((api, review, &index, old), new)).await
}

/// Lets policies and webhooks change a write that concerns one of them.
async fn change(write: Write<'_>, new: Option<&mut Value>) -> Result<Vec<String>, ApiError> {
    let (api, review, index, _) = write;
    let mut object = new.as_deref().cloned();
    let mut warnings = Vec::new();
    let mut first = mutation::Done::default();
    if let Some(object) = &mut object {
        first = mutation::mutate(write, object, None)?;
    }
    let mut calls = webhook::Calls::new(index);
    calls.all(write, &mut object, &mut warnings).await?;
    if first.any || calls.changed() {
        let mut by_others = false;
        if let Some(object) = &mut object {
            let before = object.clone();
            defaults(api, review, object)?;
            mutation::mutate(write, object, Some(&first.again))?;
            by_others = *object != before;
        }
        calls.again(write, by_others, &mut object, &mut warnings).await?;
        if let (Some(new), Some(object)) = (new, object) {
            *new = object;
        }
    }
    Ok(warnings)
}

/// May refuse the write, once the object is as it will be stored: nobody gives away rights they do not have, then
/// policies, then webhooks. `new` is `None` for a deletion. Gives warnings for the client.
pub async fn validate(
    api: &Api,
    review: &Review<'_>,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<Vec<String>, ApiError> {
    if let Some(new) = new {
        let r = review.resource;
        limits::validate(api, review, new)?;
        runtime::validate(api, review, new)?;
        subject_restriction(review, new)?;
        api.authorizer
            .check_write(review.user, &r.group, &r.plural, new, old)?;
    }
    classes::validate(api, review, new)?;
    growth::validate(api, review, new, old)?;
    let warnings = validate_hooks(api, review, new, old).await?;
    quota::admit(api, review, new, old).await?;
    Ok(warnings)
}

/// As [`validate`], with signers' rights, Pod Security, policies and webhooks alone: all that looks at a write that changes
/// nothing.
pub async fn validate_hooks(
    api: &Api,
    review: &Review<'_>,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<Vec<String>, ApiError> {
    signers::validate(api, review, new, old)?;
    let mut warnings = security::validate(api, review, new, old)?;
    let index = index(api)?;
    if !index.validates() || matching::is_exempt(review.resource) {
        return Ok(warnings);
    }
    let seen = Seen::new(api, review, &index, new, old);
    warnings.extend(policy::validate(&seen, &index)?);
    warnings.extend(webhook::validate(&seen, &index).await?);
    Ok(warnings)
}

/// Subresources whose body is a command, and no part of the object.
const COMMANDS: [&str; 2] = ["binding", "eviction"];

/// Policies and webhooks of a command about an object, for which they see the command alone. What is done for it they do not see.
pub async fn command(api: &Api, review: &Review<'_>, command: &mut Value) -> Result<Vec<String>, ApiError> {
    let mut warnings = mutate(api, review, Some(command), None).await?;
    let index = index(api)?;
    if index.validates() && !matching::is_exempt(review.resource) {
        let seen = Seen::new(api, review, &index, Some(command), None);
        warnings.extend(policy::validate(&seen, &index)?);
        warnings.extend(webhook::validate(&seen, &index).await?);
    }
    Ok(warnings)
}

/// Without knowing who has a say nothing is let through.
fn index(api: &Api) -> Result<Arc<Index>, ApiError> {
    api.hooks
        .current(&api.store)
        .map_err(|e| ApiError::Internal(e.to_string()))
}

#[cfg(test)]
mod tests;
