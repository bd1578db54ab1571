//! Kinds that are questions and never stored: access reviews, token reviews, who am I, and tokens of ServiceAccounts.

use super::negotiate;
use super::params::{OptionsKind, WriteOptions};
use super::respond::{self, Body};
use super::rules::reset_fields;
use super::write::check_namespace;
use super::{Api, Call, body, decode, rfc3339};
use crate::ApiError;
use crate::auth::review;
use crate::object::{self, set_meta};
use crate::patch::{FieldSet, managed};
use crate::registry::Resource;
use crate::schema::{builtin, decode as schema_decode, prune};
use bytes::Bytes;
use http::{Response, header};
use serde_json::{Value, json};

/// Whether creating one of these asks a question.
pub fn is_review(r: &Resource) -> bool {
    matches!(r.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io") && r.custom.is_none()
}

/// Answers a review.
pub fn serve(api: &Api, call: &Call<'_>, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
    let r = &call.resource;
    let accept = negotiate::no_table(negotiate::accept(call.header(header::ACCEPT))?)?;
    let options = WriteOptions::parse(call.query, OptionsKind::Create, call.user_agent())?;
    let format = negotiate::body_format(call.header(header::CONTENT_TYPE), false)?;
    let mut parsed = body::parse_object(bytes, format, &r.kind)?;
    body::check_type(
        &api.registry,
        r,
        &r.kind,
        (&r.group, &r.version),
        &mut parsed.value,
        None,
    )?;
    let (mut object, warnings) = decode::object(r, parsed, options.validation)?;
    if !r.namespaced {
        // A question is in no namespace, whatever it says.
        set_meta(&mut object, "namespace", None);
    }
    check_namespace(r, &call.info.namespace, &mut object)?;
    // A question shows who wrote it, as every created object does.
    object["status"] = Value::Null;
    managed::update(
        r.schema(),
        None,
        &mut object,
        &options.manager,
        &r.api_version(),
        "",
        &reset_fields(r, ""),
        api.clock.now(),
    );
    let answered = match r.plural.as_str() {
        "subjectaccessreviews" => {
            review::subject_access_review(&object, |user, a| api.authorizer.authorize(user, a))
        }
        "selfsubjectaccessreviews" => review::self_subject_access_review(&object, call.user, |user, a| {
            api.authorizer.authorize(user, a)
        }),
        "localsubjectaccessreviews" => {
            review::local_subject_access_review(&object, &call.info.namespace, |user, a| {
                api.authorizer.authorize(user, a)
            })
        }
        "selfsubjectrulesreviews" => {
            review::self_subject_rules_review(&object, |namespace| api.authorizer.rules(call.user, namespace))
        }
        "selfsubjectreviews" => Ok(review::self_subject_review(call.user, api.clock.now())),
        "tokenreviews" => review::token_review(&object, |token, audiences| {
            api.authenticator
                .authenticate_token(token, audiences, api.clock.now())
        }),
        _ => Err(ApiError::MethodNotAllowed),
    };
    let mut answer = answered?;
    object::metadata_mut(&mut answer);
    let mut response = respond::value(201, &answer, accept.format);
    respond::warn(&mut response, &warnings);
    Ok(response)
}

fn carry_owners(from: &Value, to: &mut Value) {
    let owners = &from["metadata"]["managedFields"];
    if owners.is_array() {
        set_meta(to, "managedFields", Some(owners.clone()));
    }
}

/// `POST …/serviceaccounts/{name}/token`.
pub fn token_request(api: &Api, call: &Call<'_>, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
    const GROUP: &str = "authentication.k8s.io";
    let accept = negotiate::no_table(negotiate::accept(call.header(header::ACCEPT))?)?;
    let options = WriteOptions::parse(call.query, OptionsKind::Create, call.user_agent())?;
    let format = negotiate::body_format(call.header(header::CONTENT_TYPE), false)?;
    let mut parsed = body::parse_object(bytes, format, "TokenRequest")?;
    body::check_type(
        &api.registry,
        &call.resource,
        "TokenRequest",
        (GROUP, "v1"),
        &mut parsed.value,
        None,
    )?;
    let schema = builtin::for_gvk(GROUP, "v1", "TokenRequest");
    if let Some(schema) = schema {
        let bad = |why: &str| decode::cannot_handle("TokenRequest", "v1", why);
        if let Some(why) = schema_decode::check_types(schema, &parsed.value) {
            return Err(bad(&why));
        }
        let unknown = prune::prune(schema, &mut parsed.value, false);
        let told =
            body::strictness(options.validation, &unknown, &parsed.duplicates).map_err(|why| bad(&why))?;
        call.warn(told);
    }
    let mut object = parsed.value;
    check_namespace(&call.resource, &call.info.namespace, &mut object)?;
    let account = api.get_object(&call.resource, &call.info.namespace, &call.info.name)?;
    let now = api.clock.now();
    let mut answer = review::token_request(&object, &account, &api.store, api.authenticator.keys(), now)?;
    if let Some(schema) = schema {
        object::child_mut(&mut object, "spec")
            .entry("expirationSeconds")
            .or_insert_with(|| answer["spec"]["expirationSeconds"].clone());
        managed::update(
            schema,
            None,
            &mut object,
            &options.manager,
            "authentication.k8s.io/v1",
            "token",
            &FieldSet::default(),
            now,
        );
        carry_owners(&object, &mut answer);
    }
    if answer["metadata"]["creationTimestamp"].is_null() {
        set_meta(&mut answer, "creationTimestamp", Some(json!(rfc3339(now))));
    }
    Ok(respond::value(201, &answer, accept.format))
}
