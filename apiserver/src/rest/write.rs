//! CREATE, UPDATE and PATCH over HTTP: what is particular to the request; `internal` does the writing.

use super::internal::{Outcome, Target, Written};
use super::negotiate::{self, PatchKind};
use super::params::{FieldValidation, OptionsKind, WriteOptions};
use super::read::View;
use super::respond::{self, Body};
use super::{Api, Call, body, decode};
use crate::ApiError;
use crate::patch;
use crate::registry::{Registry, Resource};
use bytes::Bytes;
use http::{Response, header};
use serde_json::Value;
use std::sync::Arc;

/// Answers a write.
pub fn respond_written(view: &View, written: &Written) -> Response<Body> {
    let code = if written.created { 201 } else { 200 };
    let shown = view.object(&written.outcome.json(), written.outcome.revision());
    let mut response = respond::stored(code, shown, view.accept.format);
    respond::warn(&mut response, &written.warnings);
    response
}

/// Puts the namespace of the URL into an object, or refuses another one.
pub fn check_namespace(r: &Resource, namespace: &str, object: &mut Value) -> Result<(), ApiError> {
    let sent = crate::object::namespace(object);
    let wanted = if r.namespaced { namespace } else { "" };
    if sent.is_empty() {
        if !wanted.is_empty() {
            crate::object::set_meta(object, "namespace", Some(wanted.into()));
        }
        return Ok(());
    }
    if wanted.is_empty() {
        crate::object::set_meta(object, "namespace", None);
        return Ok(());
    }
    if sent != wanted {
        return Err(ApiError::BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request".into(),
        ));
    }
    Ok(())
}

/// Refuses an object that is called otherwise than the URL, or nothing.
pub fn check_name(name: &str, object: &Value) -> Result<(), ApiError> {
    let sent = crate::object::name(object);
    if sent.is_empty() {
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    if sent != name {
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({sent}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}

/// What is applied to a part of an object need not say which object.
pub fn name_of_url(name: &str, config: &mut Value) {
    let says = !crate::object::name(config).is_empty();
    if !says && config.is_object() && matches!(config["metadata"], Value::Null | Value::Object(_)) {
        crate::object::set_meta(config, "name", Some(name.into()));
    }
}

fn content_type<'a>(call: &'a Call<'_>) -> Option<&'a str> {
    call.header(header::CONTENT_TYPE)
}

/// POST.
pub async fn create(api: &Api, call: &Call<'_>, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
    let view = View::of(call)?;
    view.check_shape(false)?;
    let r = &call.resource;
    let options = WriteOptions::parse(call.query, OptionsKind::Create, call.user_agent())?;
    let format = negotiate::body_format(content_type(call), r.custom.is_some())?;
    let mut parsed = body::parse_object(bytes, format, &r.kind)?;
    body::check_type(
        &api.registry,
        r,
        &r.kind,
        (&r.group, &r.version),
        &mut parsed.value,
        Some(bytes),
    )?;
    let (mut object, warnings) = decode::object(r, parsed, options.validation)?;
    call.warn(warnings);
    check_namespace(r, &call.info.namespace, &mut object)?;
    let written = api
        .create_object(call.user, r, &call.info.namespace, object, &options)
        .await?;
    Ok(respond_written(&view, &written))
}

/// PUT of an object or of a subresource that speaks the object's own kind.
pub async fn update(
    api: &Api,
    call: &Call<'_>,
    sub: &str,
    bytes: &Bytes,
) -> Result<Response<Body>, ApiError> {
    let view = View::of(call)?;
    view.check_shape(false)?;
    let r = &call.resource;
    let options = WriteOptions::parse(call.query, OptionsKind::Update, call.user_agent())?;
    let format = negotiate::body_format(content_type(call), r.custom.is_some())?;
    let mut parsed = body::parse_object(bytes, format, &r.kind)?;
    body::check_type(
        &api.registry,
        r,
        &r.kind,
        (&r.group, &r.version),
        &mut parsed.value,
        Some(bytes),
    )?;
    let (mut object, warnings) = decode::object(r, parsed, options.validation)?;
    call.warn(warnings);
    check_namespace(r, &call.info.namespace, &mut object)?;
    check_name(&call.info.name, &object)?;
    let target = target(call, sub);
    let written = api.update_object(call.user, &target, object, &options).await?;
    Ok(respond_written(&view, &written))
}

/// The object a request is about.
pub fn target<'a>(call: &'a Call<'_>, sub: &'a str) -> Target<'a> {
    Target {
        resource: Arc::clone(&call.resource),
        subresource: sub,
        namespace: &call.info.namespace,
        name: &call.info.name,
    }
}

/// A PATCH as sent.
#[derive(Debug, Clone)]
pub enum PatchBody {
    /// RFC 6902.
    Json(Bytes),
    /// RFC 7386.
    Merge(Value),
    /// Strategic merge.
    Strategic(Value),
    /// Server-side apply.
    Apply(Value),
}

impl PatchBody {
    /// Reads a patch of that kind; with it comes what a strict reader says of it.
    pub fn parse(kind: PatchKind, bytes: &Bytes) -> Result<(Self, Vec<String>), ApiError> {
        let map = |begin: &str| -> Result<(Value, Vec<String>), ApiError> {
            let bad = |why: String| ApiError::BadRequest(format!("{begin}{why}"));
            let parsed = body::parse_json(bytes).map_err(bad)?;
            match parsed.value {
                Value::Object(_) => Ok((parsed.value, parsed.duplicates)),
                other => Err(bad(cannot_unmarshal(&other))),
            }
        };
        match kind {
            PatchKind::Json => Ok((Self::Json(bytes.clone()), patch::json_patch_unknown(bytes))),
            PatchKind::Merge => map("error decoding patch: ").map(|(p, noticed)| (Self::Merge(p), noticed)),
            PatchKind::Strategic => map("").map(|(mut p, noticed)| {
                // What is merged is read from values, not from text: a whole number is one, however it was written.
                body::make_whole(&mut p);
                (Self::Strategic(p), noticed)
            }),
            PatchKind::Apply => {
                let parsed = if bytes.first() == Some(&b'{') {
                    body::parse_json(bytes)
                } else {
                    body::parse_yaml(bytes)
                };
                let mut parsed =
                    parsed.map_err(|e| ApiError::BadRequest(format!("error decoding YAML: {e}")))?;
                body::make_whole(&mut parsed.value);
                match parsed.value {
                    value @ (Value::Object(_) | Value::Null) => Ok((Self::Apply(value), parsed.duplicates)),
                    other => Err(ApiError::BadRequest(format!(
                        "error decoding YAML: error unmarshaling JSON: while decoding JSON: {}",
                        cannot_unmarshal(&other)
                    ))),
                }
            }
        }
    }

    /// The patched object, not yet checked. Apply is not done here: it needs who owns what.
    pub fn onto(&self, schema: &crate::schema::Schema, current: &Value) -> Result<Value, ApiError> {
        match self {
            Self::Json(bytes) => patch::json_patch(current, bytes),
            Self::Merge(p) => Ok(patch::merge_patch(current, p)),
            Self::Strategic(p) => patch::strategic_merge(schema, current, p),
            Self::Apply(_) => Err(ApiError::Internal("apply is not a plain patch".into())),
        }
    }
}

fn cannot_unmarshal(value: &Value) -> String {
    format!(
        "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
        body::json_type(value)
    )
}

/// PATCH of an object or of a subresource that speaks the object's own kind.
pub async fn patch(api: &Api, call: &Call<'_>, sub: &str, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
    let view = View::of(call)?;
    view.check_shape(false)?;
    let r = &call.resource;
    let kind = negotiate::patch_kind(content_type(call), r.custom.is_some())?;
    let options_kind = if kind == PatchKind::Apply {
        OptionsKind::Apply
    } else {
        OptionsKind::Patch
    };
    let mut options = WriteOptions::parse(call.query, options_kind, call.user_agent())?;
    let (mut patch, noticed) = PatchBody::parse(kind, bytes)?;
    if let (PatchBody::Apply(config), false) = (&mut patch, sub.is_empty()) {
        name_of_url(&call.info.name, config);
    }
    if let (PatchBody::Apply(_), FieldValidation::Strict, Some(problem)) =
        (&patch, options.validation, noticed.first())
    {
        let what = if problem.starts_with("yaml") {
            "error converting YAML to JSON: "
        } else {
            ""
        };
        return Err(ApiError::BadRequest(format!(
            "error strict decoding YAML: {what}{problem}"
        )));
    }
    options.noticed = noticed;
    let target = target(call, sub);
    let written = api.patch_object(call.user, &target, &patch, &options).await?;
    Ok(respond_written(&view, &written))
}

/// The current object with a patch on it, as an object of its kind again.
pub fn patched(
    registry: &Registry,
    r: &Resource,
    patch: &PatchBody,
    current: &Value,
    options: &WriteOptions,
) -> Result<(Value, decode::Warnings), ApiError> {
    let make = || {
        let mut raw = patch.onto(r.schema(), current)?;
        if let PatchBody::Strategic(_) = patch {
            // It is merged into fields that these two are none of.
            for field in ["apiVersion", "kind"] {
                raw[field] = current[field].clone();
            }
        }
        decode::check_patched_type(registry, r, &mut raw)?;
        Ok::<_, ApiError>(raw)
    };
    let raw = make()?;
    let nameless = match &raw["metadata"] {
        Value::Null => true,
        Value::Object(metadata) => metadata.get("name").is_none_or(|n| n.is_null() || n == ""),
        _ => false,
    };
    if nameless {
        let name = crate::object::name(current);
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    let strategic = match patch {
        PatchBody::Strategic(patch) => Some(patch),
        _ => None,
    };
    let before = || make().unwrap_or_default();
    decode::patched(r, raw, before, strategic, options.validation, &options.noticed)
}

impl Outcome {
    /// Stored JSON, or what would have been stored.
    pub fn json(&self) -> Bytes {
        match self {
            Self::Stored(entry) => entry.json.clone(),
            Self::Unstored(value) => respond::to_bytes(value),
        }
    }

    /// The revision it is stored at; 0 when it is not.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Stored(entry) => entry.revision,
            Self::Unstored(_) => 0,
        }
    }

    /// The object, parsed.
    pub fn value(&self) -> Value {
        match self {
            Self::Stored(entry) => entry.value(),
            Self::Unstored(value) => value.clone(),
        }
    }
}
