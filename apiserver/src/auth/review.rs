//! The reviews: questions about users, permissions and tokens, asked by creating an object that is answered, not stored.
//!
//! Every function takes the decoded body and returns the body with its status, or kube-apiserver's error for it.

use super::authorizer::Rules;
use super::jwt::ServiceAccountKeys;
use super::rbac::aggregate;
use super::tokens::{self, ISSUER, Objects, Verified};
use super::types::{Attributes, Decision, UserInfo};
use crate::error::{ApiError, FieldError, Subject};
use crate::object;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Shortest and longest life of a requested token, and what it is when not said; seconds.
const MIN_TOKEN: i64 = 600;
const MAX_TOKEN: i64 = 1 << 32;
const DEFAULT_TOKEN: i64 = 3600;

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

/// `SubjectAccessReview`: may somebody do something?
pub fn subject_access_review(
    body: &Value,
    authorize: impl Fn(&UserInfo, &Attributes) -> Decision,
) -> Result<Value, ApiError> {
    let mut errors = access_errors(body);
    errors.extend(subject_errors(body));
    errors.extend(metadata_errors(body, &[], "must be empty"));
    refuse(errors)?;
    Ok(answer_access(body, &subject(&body["spec"]), authorize))
}

/// `SelfSubjectAccessReview`: may `user`, who asks, do something?
pub fn self_subject_access_review(
    body: &Value,
    user: &UserInfo,
    authorize: impl Fn(&UserInfo, &Attributes) -> Decision,
) -> Result<Value, ApiError> {
    let mut errors = access_errors(body);
    errors.extend(metadata_errors(body, &[], "must be empty"));
    refuse(errors)?;
    Ok(answer_access(body, user, authorize))
}

/// `LocalSubjectAccessReview`: may somebody do something in `namespace`, that of the request?
pub fn local_subject_access_review(
    body: &Value,
    namespace: &str,
    authorize: impl Fn(&UserInfo, &Attributes) -> Decision,
) -> Result<Value, ApiError> {
    let mut body = body.clone();
    if object::namespace(&body).is_empty() {
        object::set_meta(&mut body, "namespace", Some(namespace.into()));
    }
    let spec = &body["spec"];
    let mut errors = access_errors(&body);
    errors.extend(subject_errors(&body));
    errors.extend(metadata_errors(
        &body,
        &["namespace"],
        "must be empty except for namespace",
    ));
    let asked = &spec["resourceAttributes"];
    if !asked.is_null() && text(asked, "namespace") != object::namespace(&body) {
        let field = "spec.resourceAttributes.namespace";
        errors.push(FieldError::invalid(
            field,
            &text(asked, "namespace").into(),
            "must match metadata.namespace",
        ));
    }
    let path = &spec["nonResourceAttributes"];
    if !path.is_null() {
        let field = "spec.nonResourceAttributes";
        errors.push(FieldError::invalid(
            field,
            &json!({"Path": text(path, "path"), "Verb": text(path, "verb")}),
            "disallowed on this kind of request",
        ));
    }
    refuse(errors)?;
    if object::namespace(&body) != namespace {
        return Err(ApiError::BadRequest(format!(
            "spec.resourceAttributes.namespace must match namespace: {namespace}"
        )));
    }
    let user = subject(spec);
    Ok(answer_access(&body, &user, authorize))
}

fn answer_access(
    body: &Value,
    user: &UserInfo,
    authorize: impl Fn(&UserInfo, &Attributes) -> Decision,
) -> Value {
    let decision = authorize(user, &attributes(&body["spec"]));
    let mut status = json!({ "allowed": decision.is_allowed() });
    let (Decision::Allowed(reason) | Decision::NoOpinion(reason)) = decision;
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    let mut answer = body.clone();
    answer["status"] = status;
    answer
}

fn subject(spec: &Value) -> UserInfo {
    let extra = spec["extra"].as_object().into_iter().flatten();
    UserInfo {
        name: text(spec, "user").to_owned(),
        uid: text(spec, "uid").to_owned(),
        groups: strings(&spec["groups"]),
        extra: extra.map(|(k, v)| (k.to_lowercase(), strings(v))).collect(),
    }
}

fn attributes(spec: &Value) -> Attributes {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_null() {
        return Attributes::path(text(path, "verb"), text(path, "path"));
    }
    Attributes {
        version: text(resource, "version").to_owned(),
        subresource: text(resource, "subresource").to_owned(),
        ..Attributes::resource(
            text(resource, "verb"),
            text(resource, "group"),
            text(resource, "resource"),
            text(resource, "namespace"),
            text(resource, "name"),
        )
    }
}

/// Exactly one of the two kinds of question.
fn access_errors(body: &Value) -> Vec<FieldError> {
    let spec = &body["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    match (resource.is_null(), path.is_null()) {
        (true, true) => vec![FieldError::invalid(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )],
        (false, false) => vec![FieldError::invalid(
            "spec.nonResourceAttributes",
            // As Go shows its own struct.
            &json!({"Path": text(path, "path"), "Verb": text(path, "verb")}),
            "cannot be specified in combination with resourceAttributes",
        )],
        (false, true) => ["fieldSelector", "labelSelector"]
            .into_iter()
            .filter_map(|key| {
                let selector = &resource[key];
                if selector.as_object().is_some_and(serde_json::Map::is_empty) {
                    return Some(FieldError::required(
                        format!("spec.resourceAttributes.{key}.requirements"),
                        &format!(
                            "when spec.resourceAttributes.{key} is specified, requirements or rawSelector is required"
                        ),
                    ));
                }
                let both = !text(selector, "rawSelector").is_empty()
                    && selector["requirements"].as_array().is_some_and(|r| !r.is_empty());
                let field = format!("spec.resourceAttributes.{key}.rawSelector");
                let detail = "may not specified at the same time as requirements";
                both.then(|| FieldError::invalid(field, &selector["rawSelector"], detail))
            })
            .collect(),
        (true, false) => Vec::new(),
    }
}

fn subject_errors(body: &Value) -> Vec<FieldError> {
    let spec = &body["spec"];
    if text(spec, "user").is_empty() && strings(&spec["groups"]).is_empty() {
        let detail = "at least one of user or group must be specified";
        return vec![FieldError::invalid("spec.user", &"".into(), detail)];
    }
    Vec::new()
}

/// Metadata means nothing on a question, and must not be there, but for the fields in `except`.
fn metadata_errors(body: &Value, except: &[&str], detail: &str) -> Vec<FieldError> {
    let mut rest = body["metadata"].as_object().cloned().unwrap_or_default();
    rest.retain(|field, value| {
        field != "managedFields" && !except.contains(&field.as_str()) && !is_zero(value)
    });
    if rest.is_empty() {
        return Vec::new();
    }
    vec![FieldError::invalid("metadata", &Value::Object(rest), detail)]
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::Number(n) => n.as_i64() == Some(0),
        Value::Bool(b) => !b,
    }
}

/// The kind is missing from these errors in kube-apiserver too.
fn refuse(errors: Vec<FieldError>) -> Result<(), ApiError> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(AUTHORIZATION, "", "", errors))
    }
}

/// `SelfSubjectRulesReview`: everything the asker may do in a namespace, by `rules(namespace)`.
pub fn self_subject_rules_review(body: &Value, rules: impl Fn(&str) -> Rules) -> Result<Value, ApiError> {
    let namespace = text(&body["spec"], "namespace");
    if namespace.is_empty() {
        return Err(ApiError::BadRequest("no namespace on request".into()));
    }
    let rules = rules(namespace);
    let list = |rules: &[super::Rule]| rules.iter().map(super::Rule::to_value).collect::<Vec<_>>();
    let mut status = json!({
        "resourceRules": list(&rules.resource),
        "nonResourceRules": list(&rules.non_resource),
        // What could not be read was no rule that there is.
        "incomplete": false,
    });
    if !rules.errors.is_empty() {
        status["evaluationError"] = aggregate(&rules.errors).into();
    }
    Ok(json!({
        "kind": "SelfSubjectRulesReview",
        "apiVersion": format!("{AUTHORIZATION}/v1"),
        "metadata": {},
        "spec": {},
        "status": status,
    }))
}

/// `SelfSubjectReview`: who am I?
pub fn self_subject_review(body: &Value, user: &UserInfo, now: Timestamp) -> Value {
    let mut answer = body.clone();
    object::set_meta(&mut answer, "creationTimestamp", Some(seconds(now)));
    answer["status"] = json!({ "userInfo": user.to_value() });
    answer
}

/// `TokenReview`: whose token is this? `verify(token, audiences)` knows.
pub fn token_review(
    body: &Value,
    verify: impl Fn(&str, &[String]) -> Result<Verified, String>,
) -> Result<Value, ApiError> {
    let spec = &body["spec"];
    let token = text(spec, "token");
    if token.is_empty() {
        return Err(ApiError::BadRequest(
            "token is required for TokenReview in authentication".into(),
        ));
    }
    let mut answer = body.clone();
    answer["status"] = match verify(token, &strings(&spec["audiences"])) {
        Ok(found) => {
            json!({ "authenticated": true, "user": found.user.to_value(), "audiences": found.audiences })
        }
        Err(why) => json!({ "user": {}, "error": why }),
    };
    Ok(answer)
}

/// `TokenRequest`, `POST …/serviceaccounts/{name}/token`: a token for `account`, the stored ServiceAccount.
pub fn token_request(
    body: &Value,
    account: &Value,
    objects: &impl Objects,
    keys: &ServiceAccountKeys,
    now: Timestamp,
) -> Result<Value, ApiError> {
    let (namespace, name) = (object::namespace(account), object::name(account));
    for (field, own) in [("name", name), ("namespace", namespace)] {
        let given = object::meta(body, field);
        if !given.is_empty() && given != own {
            if field == "name" {
                let detail = "must match the service account name if specified";
                let error = FieldError::invalid("metadata.name", &given.into(), detail);
                return Err(ApiError::invalid(
                    AUTHENTICATION,
                    "TokenRequest",
                    name,
                    vec![error],
                ));
            }
            return Err(ApiError::BadRequest(format!(
                "the {field} in the body ({given}) does not match the {field} in the URL ({own})"
            )));
        }
    }
    let mut answer = body.clone();
    if !answer["spec"].is_object() {
        answer["spec"] = Value::Object(Map::new());
    }
    let lifetime = answer["spec"]["expirationSeconds"]
        .as_i64()
        .unwrap_or(DEFAULT_TOKEN);
    let limit = if lifetime < MIN_TOKEN {
        Some("may not specify a duration less than 10 minutes")
    } else if lifetime > MAX_TOKEN {
        Some("may not specify a duration larger than 2^32 seconds")
    } else {
        None
    };
    if let Some(limit) = limit {
        let error = FieldError::invalid("spec.expirationSeconds", &lifetime.into(), limit);
        return Err(ApiError::invalid(AUTHENTICATION, "TokenRequest", "", vec![error]));
    }
    let mut audiences = strings(&answer["spec"]["audiences"]);
    if audiences.is_empty() {
        audiences.push(ISSUER.into());
    }
    let bound = bound_object(&answer["spec"]["boundObjectRef"], namespace, name, objects)?;
    let grant = tokens::Grant {
        account,
        audiences: &audiences,
        seconds: lifetime,
        bound: bound.as_ref().map(|(kind, object)| (*kind, object)),
    };
    let token = tokens::issue(keys, &grant, now)?;

    answer["spec"]["audiences"] = audiences.into();
    answer["spec"]["expirationSeconds"] = lifetime.into();
    if answer["spec"]["boundObjectRef"].is_null() {
        answer["spec"]["boundObjectRef"] = Value::Null;
    }
    answer["status"] = json!({
        "token": token,
        "expirationTimestamp": seconds(now.saturating_add(SignedDuration::from_secs(lifetime)).unwrap_or(now)),
    });
    for (field, value) in [
        ("name", name.into()),
        ("namespace", namespace.into()),
        ("uid", uuid::Uuid::new_v4().to_string().into()),
        ("creationTimestamp", seconds(now)),
    ] {
        object::set_meta(&mut answer, field, Some(value));
    }
    Ok(answer)
}

/// The object a token is to be bound to, and its claim: a Pod of that ServiceAccount, a Secret of its namespace, a Node.
fn bound_object(
    reference: &Value,
    namespace: &str,
    account: &str,
    objects: &impl Objects,
) -> Result<Option<(&'static str, Value)>, ApiError> {
    if reference.is_null() {
        return Ok(None);
    }
    let (api_version, kind) = (text(reference, "apiVersion"), text(reference, "kind"));
    let (claim, plural, namespace) = match (api_version, kind) {
        ("" | "v1", "Pod") => ("pod", "pods", namespace),
        ("" | "v1", "Secret") => ("secret", "secrets", namespace),
        ("" | "v1", "Node") => ("node", "nodes", ""),
        _ => {
            let gv = if api_version.contains('/') {
                api_version.to_owned()
            } else {
                format!("/{api_version}")
            };
            return Err(ApiError::BadRequest(format!(
                "cannot bind token to object of type {gv}, Kind={kind}"
            )));
        }
    };
    let name = text(reference, "name");
    let found = objects
        .object(&format!("/{plural}"), namespace, name)
        .ok_or_else(|| ApiError::NotFound(Subject::new("", plural, name)))?;
    if claim == "pod" && text(&found["spec"], "serviceAccountName") != account {
        return Err(ApiError::BadRequest(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        )));
    }
    let uid = text(reference, "uid");
    if !uid.is_empty() && uid != object::uid(&found) {
        return Err(ApiError::Conflict {
            subject: Subject::new("", kind, name),
            detail: format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            ),
        });
    }
    Ok(Some((claim, found)))
}

/// RFC 3339 with whole seconds, as `metav1.Time` is written.
fn seconds(time: Timestamp) -> Value {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}
