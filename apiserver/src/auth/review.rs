//! The reviews: questions about users, permissions and tokens, asked by creating an object that is answered, not stored.
//!
//! Every function takes the decoded body and returns the body with its status, or kube-apiserver's error for it.

use super::authorizer::Rules;
use super::jwt::ServiceAccountKeys;
use super::rbac::aggregate;
use super::tokens::{self, ISSUER, Objects, Verified};
use super::types::{Attributes, Decision, UserInfo};
use crate::error::{ApiError, FieldError, FieldErrorKind, Subject};
use crate::object;
use crate::registry::names;
use crate::rest::selector::{FieldSelector, LabelSelector};
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
    if let Some(error) = unread_selectors(&body["spec"]["resourceAttributes"]) {
        status["evaluationError"] = error.into();
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
            .flat_map(|key| selector_errors(key, &resource[key]))
            .collect(),
        (true, false) => Vec::new(),
    }
}

/// What is wrong with a selector of resource attributes.
fn selector_errors(key: &str, selector: &Value) -> Vec<FieldError> {
    let at = format!("spec.resourceAttributes.{key}");
    let requirements = selector["requirements"].as_array().map_or(&[][..], Vec::as_slice);
    let raw = text(selector, "rawSelector");
    if selector.is_object() && raw.is_empty() && requirements.is_empty() {
        return vec![FieldError::required(
            format!("{at}.requirements"),
            &format!("when {at} is specified, requirements or rawSelector is required"),
        )];
    }
    if !raw.is_empty() && !requirements.is_empty() {
        let detail = "may not specified at the same time as requirements";
        return vec![FieldError::invalid(
            format!("{at}.rawSelector"),
            &raw.into(),
            detail,
        )];
    }
    let mut errors = Vec::new();
    for (i, requirement) in requirements.iter().enumerate() {
        let at = format!("{at}.requirements[{i}]");
        let name = &requirement["key"];
        let name = name.as_str().unwrap_or_default();
        if key == "labelSelector" {
            for why in names::label_key(name) {
                errors.push(FieldError::invalid(format!("{at}.key"), &name.into(), &why));
            }
        } else if name.is_empty() {
            errors.push(FieldError::required(format!("{at}.key"), "must be specified"));
        }
        let values = requirement["values"].as_array().is_some_and(|v| !v.is_empty());
        // Operators to come are for whoever decides.
        match text(requirement, "operator") {
            "In" | "NotIn" if !values => errors.push(FieldError::required(
                format!("{at}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if values => errors.push(FieldError::forbidden(
                format!("{at}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            _ => {}
        }
    }
    errors
}

/// Selectors that are no selectors narrow nothing, which is told.
fn unread_selectors(resource: &Value) -> Option<String> {
    let raw = |key: &str| text(&resource[key], "rawSelector");
    let unread = [
        (
            "fieldSelector",
            FieldSelector::parse(raw("fieldSelector")).is_err(),
        ),
        (
            "labelSelector",
            LabelSelector::parse(raw("labelSelector")).is_err(),
        ),
    ];
    let told: Vec<String> = unread
        .into_iter()
        .filter(|(_, is_unread)| *is_unread)
        .map(|(key, _)| format!("spec.resourceAttributes.{key} ignored due to parse error"))
        .collect();
    (!told.is_empty()).then(|| aggregate(&told))
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
    rest.retain(|field, value| !except.contains(&field.as_str()) && !is_zero(value));
    if rest.keys().all(|field| field == "managedFields") {
        return Vec::new();
    }
    let shown = format!("Invalid value: {}: {detail}", struct_text(&rest, &METADATA));
    vec![FieldError::new(FieldErrorKind::Invalid, "metadata", shown)]
}

/// The order of fields in Go's struct of metadata, and of an entry of its managedFields.
const METADATA: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];
const ENTRY: [&str; 7] = [
    "manager",
    "operation",
    "apiVersion",
    "time",
    "fieldsType",
    "fieldsV1",
    "subresource",
];

/// Fields as JSON, in this order.
fn struct_text(fields: &Map<String, Value>, order: &[&str]) -> String {
    let shown = |name: &&str| {
        let value = fields.get(*name)?;
        let value = match value {
            Value::Array(entries) if *name == "managedFields" => {
                let entries = entries.iter().filter_map(Value::as_object);
                let entries: Vec<String> = entries.map(|entry| struct_text(entry, &ENTRY)).collect();
                format!("[{}]", entries.join(","))
            }
            other => other.to_string(),
        };
        Some(format!("{name:?}:{value}"))
    };
    let fields: Vec<String> = order.iter().filter_map(shown).collect();
    format!("{{{}}}", fields.join(","))
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
pub fn self_subject_review(user: &UserInfo, now: Timestamp) -> Value {
    json!({
        "kind": "SelfSubjectReview",
        "apiVersion": format!("{AUTHENTICATION}/v1"),
        "metadata": { "creationTimestamp": seconds(now) },
        "status": { "userInfo": user.to_value() },
    })
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
    let given = object::name(body);
    if !given.is_empty() && given != name {
        let detail = "must match the service account name if specified";
        let error = FieldError::invalid("metadata.name", &given.into(), detail);
        return Err(ApiError::invalid(
            AUTHENTICATION,
            "TokenRequest",
            name,
            vec![error],
        ));
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
