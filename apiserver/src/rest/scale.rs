//! The scale subresource: a small object of its own that reads and writes the replicas of another.

use super::internal::{Outcome, Target};
use super::negotiate::{self, PatchKind, Shape};
use super::params::{FieldValidation, OptionsKind, WriteOptions};
use super::respond::{self, Body};
use super::rules::check_uid;
use super::view::{View, not_a_list};
use super::write::{PatchBody, check_name, check_namespace, name_of_url, target};
use super::{Api, Call, body, decode, modified, table};
use crate::ApiError;
use crate::error::FieldError;
use crate::object;
use crate::patch::{self, go_plain};
use crate::registry::{Resource, convert};
use crate::schema::{Schema, builtin, decode as schema_decode, prune};
use bytes::Bytes;
use http::{Response, header};
use serde_json::{Value, json};
use std::sync::OnceLock;

const GROUP: &str = "autoscaling";
const SCALE_VERSION: &str = "autoscaling/v1";
const VERSION: &str = "v1";

/// What kube-apiserver says of the scale of a custom resource that it can not read: it looks in the wrong place.
const UNREGISTERED: &str = "no kind is registered for the type v1.Scale in scheme \
     \"k8s.io/apiextensions-apiserver/pkg/apiserver/customresource_handler.go:781\"";

fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.')
        .filter(|p| !p.is_empty())
        .fold(object, |v, part| &v[part])
}

fn put_at(object: &mut Value, path: &str, value: Value) {
    let mut parts = path.split('.').filter(|p| !p.is_empty()).peekable();
    let mut node = object;
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            if let Some(map) = node.as_object_mut() {
                map.insert(part.to_owned(), value);
            }
            return;
        }
        object::child_mut(node, part);
        node = &mut node[part];
    }
}

/// A label selector as text: `a=b,c in (d,e),!f`.
fn selector_text(selector: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut terms: Vec<String> = Vec::new();
    let nested = selector["matchLabels"].is_object() || selector["matchExpressions"].is_array();
    let equal = if nested {
        &selector["matchLabels"]
    } else {
        selector
    };
    for (k, v) in equal.as_object().into_iter().flatten() {
        if v.is_string() {
            terms.push(format!("{k}={}", text(v)));
        }
    }
    for e in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = text(&e["key"]);
        let mut values: Vec<String> = e["values"].as_array().into_iter().flatten().map(text).collect();
        values.sort();
        let values = values.join(",");
        terms.push(match e["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key,
            _ => format!("!{key}"),
        });
    }
    terms.sort();
    terms.join(",")
}

fn paths(r: &Resource) -> (&str, &str) {
    match r.custom.as_ref().and_then(|c| c.scale.as_ref()) {
        Some(paths) => (&paths.spec, &paths.status),
        None => ("spec.replicas", "status.replicas"),
    }
}

/// The Scale of an object.
pub fn of(r: &Resource, object: &Value) -> Value {
    let (spec_path, status_path) = paths(r);
    let selector = match r
        .custom
        .as_ref()
        .map(|c| c.scale.as_ref().and_then(|s| s.selector.as_deref()))
    {
        None => selector_text(&object["spec"]["selector"]),
        Some(path) => path
            .and_then(|p| at(object, p).as_str())
            .unwrap_or_default()
            .to_owned(),
    };
    let number = |v: &Value| v.as_i64().unwrap_or(0);
    let mut spec = json!({});
    let replicas = number(at(object, spec_path));
    if replicas != 0 {
        spec["replicas"] = replicas.into();
    }
    let mut status = json!({"replicas": number(at(object, status_path))});
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        let value = &object["metadata"][field];
        if !value.is_null() {
            metadata[field] = value.clone();
        }
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// GET, PUT and PATCH of a scale.
pub async fn serve(api: &Api, call: &Call<'_>, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
    let view = View::of(call)?;
    let r = &call.resource;
    let info = call.info;
    if info.verb == "get" {
        let object = api.get_object(r, &info.namespace, &info.name)?;
        if r.custom.is_some() && at(&object, paths(r).0).is_null() {
            let message = format!("the spec replicas field {:?} does not exist", paths(r).0);
            return Err(ApiError::Internal(message));
        }
        return shown(&view, of(r, &object));
    }
    let content_type = call.header(header::CONTENT_TYPE);
    let target = target(call, "scale");
    let outcome = if info.verb == "patch" {
        let kind = negotiate::patch_kind(content_type, r.custom.is_some())?;
        if kind == PatchKind::Apply {
            let outcome = apply(api, call, &target, bytes).await?;
            let object = convert::from_storage(r, outcome.value());
            return shown(&view, of(r, &object));
        }
        let options = WriteOptions::parse(call.query, OptionsKind::Patch, call.user_agent())?;
        let (patch, noticed) = PatchBody::parse(kind, bytes)?;
        let schema = schema()?;
        let warnings = OnceLock::new();
        let outcome = change(api, call, &target, &options, &|current| {
            let scale = patch.onto(schema, current)?;
            let (scale, told) = patched(schema, &patch, scale, options.validation, &noticed)?;
            // An attempt that has to be made again is told of once.
            let _ = warnings.set(told);
            Ok(scale)
        })
        .await?;
        call.warn(warnings.into_inner().unwrap_or_default());
        outcome
    } else {
        let options = WriteOptions::parse(call.query, OptionsKind::Update, call.user_agent())?;
        let format = negotiate::body_format(content_type, false)?;
        let mut parsed = body::parse_object(bytes, format, "Scale")?;
        let type_of_custom = |e| {
            if r.custom.is_some() && matches!(e, ApiError::BadRequest(_)) {
                return ApiError::BadRequest(UNREGISTERED.into());
            }
            e
        };
        body::check_type(
            &api.registry,
            r,
            "Scale",
            (GROUP, VERSION),
            &mut parsed.value,
            None,
        )
        .map_err(type_of_custom)?;
        let mut scale = parsed.value;
        let read = |why: &str| type_of_custom(decode::cannot_handle("Scale", VERSION, why));
        let schema = schema()?;
        if let Some(why) = schema_decode::check_types(schema, &scale) {
            return Err(decode::cannot_handle("Scale", VERSION, &why));
        }
        let unknown = prune::prune(schema, &mut scale, false);
        let told =
            body::strictness(options.validation, &unknown, &parsed.duplicates).map_err(|why| read(&why))?;
        call.warn(told);
        change(api, call, &target, &options, &|_| Ok(scale.clone())).await?
    };
    let object = convert::from_storage(r, outcome.value());
    shown(&view, of(r, &object))
}

fn schema() -> Result<&'static Schema, ApiError> {
    builtin::for_gvk(GROUP, VERSION, "Scale")
        .ok_or_else(|| ApiError::Internal("there is no schema of Scale".into()))
}

/// A Scale in the shape asked for.
fn shown(view: &View, scale: Value) -> Result<Response<Body>, ApiError> {
    let shown = match view.accept.shape {
        Shape::Object => scale,
        Shape::Table => view.of_meta_version(table::scale(&view.resource, &scale, view.include)),
        Shape::Partial => table::partial(&view.resource, &scale, view.accept.meta_version()),
        Shape::PartialList => return Err(not_a_list("autoscaling.Scale")),
    };
    Ok(respond::value(200, &shown, view.accept.format))
}

/// A patched Scale: of the right types, without what a Scale does not have, which is told or refused.
fn patched(
    schema: &Schema,
    patch: &PatchBody,
    mut scale: Value,
    validation: FieldValidation,
    noticed: &[String],
) -> Result<(Value, Vec<String>), ApiError> {
    let before = scale.to_string();
    let refused = |shown: String, why: &str| {
        let error = FieldError::invalid("patch", &shown.into(), why);
        ApiError::invalid("", "", "", vec![error])
    };
    if let Some(why) = schema_decode::check_types(schema, &scale) {
        return Err(refused(before, &why));
    }
    let unknown = prune::prune(schema, &mut scale, false);
    let warnings = body::strictness(validation, &unknown, noticed).map_err(|why| {
        let shown = match patch {
            PatchBody::Strategic(patch) => go_plain(patch),
            _ => before,
        };
        refused(shown, &why)
    })?;
    Ok((scale, warnings))
}

/// Server-side apply of a Scale is one of the object that says nothing but its replicas.
async fn apply(api: &Api, call: &Call<'_>, target: &Target<'_>, bytes: &Bytes) -> Result<Outcome, ApiError> {
    let (r, info) = (&call.resource, call.info);
    let options = WriteOptions::parse(call.query, OptionsKind::Apply, call.user_agent())?;
    let (patch, _) = PatchBody::parse(PatchKind::Apply, bytes)?;
    let PatchBody::Apply(mut scale) = patch else {
        return Err(ApiError::Internal("apply was read as another patch".into()));
    };
    patch::check_configuration(schema()?, (SCALE_VERSION, "Scale"), &scale)?;
    if r.custom.is_some() {
        return Err(ApiError::Plain(format!(
            "failed to convert new object ({}/{}; {SCALE_VERSION}, Kind=Scale) to proper version: request to convert CR to an \
             invalid group/version: {SCALE_VERSION}",
            object::namespace(&scale),
            object::name(&scale)
        )));
    }
    check_namespace(r, &info.namespace, &mut scale)?;
    name_of_url(&info.name, &mut scale);
    check_name(&info.name, &scale)?;
    let mut metadata = scale["metadata"].clone();
    if let Some(map) = metadata.as_object_mut() {
        map.retain(|key, _| {
            matches!(
                key.as_str(),
                "name" | "namespace" | "uid" | "resourceVersion" | "managedFields"
            )
        });
    }
    let mut config = json!({"apiVersion": r.api_version(), "kind": r.kind, "metadata": metadata});
    if !scale["spec"]["replicas"].is_null() {
        let replicas = wanted(r, &info.name, &scale)?;
        put_at(&mut config, paths(r).0, replicas.into());
    }
    let written = api
        .patch_object(call.user, target, &PatchBody::Apply(config), &options)
        .await?;
    Ok(written.outcome)
}

/// The number of replicas a Scale asks for.
fn wanted(r: &Resource, name: &str, scale: &Value) -> Result<i32, ApiError> {
    let replicas = match &scale["spec"]["replicas"] {
        Value::Null => 0,
        v => v.as_i64().and_then(|n| i32::try_from(n).ok()).ok_or_else(|| {
            let what = match v {
                Value::Number(n) => format!("number {n}"),
                other => body::json_type(other).to_owned(),
            };
            let why = format!(
                "json: cannot unmarshal {what} into Go struct field ScaleSpec.spec.replicas of type int32"
            );
            decode::cannot_handle("Scale", VERSION, &why)
        })?,
    };
    if replicas >= 0 {
        return Ok(replicas);
    }
    let value = json!(replicas);
    if r.custom.is_some() {
        // Told of with what the schema says.
        return Ok(replicas);
    }
    let error = FieldError::invalid("spec.replicas", &value, "must be greater than or equal to 0");
    Err(ApiError::invalid(GROUP, "Scale", name, vec![error]))
}

async fn change(
    api: &Api,
    call: &Call<'_>,
    target: &Target<'_>,
    options: &WriteOptions,
    make: &(dyn Fn(&Value) -> Result<Value, ApiError> + Sync),
) -> Result<Outcome, ApiError> {
    let r = &call.resource;
    let info = call.info;
    let mut apply = |current: &Value| {
        let mut scale = make(&of(r, current))?;
        check_namespace(r, &info.namespace, &mut scale)?;
        check_name(&info.name, &scale)?;
        let version = object::resource_version(&scale);
        if !version.is_empty() && version != object::resource_version(current) {
            return Err(modified(r, &info.name));
        }
        check_uid(r, &info.name, object::uid(&scale), current)?;
        let replicas = wanted(r, &info.name, &scale)?;
        let mut object = current.clone();
        put_at(&mut object, paths(r).0, replicas.into());
        if r.custom.is_some() {
            // The path may be one that the schema does not have.
            prune::prune(r.schema(), &mut object, true);
        }
        Ok(object)
    };
    Ok(api
        .modify_object(call.user, target, options, &mut apply)
        .await?
        .outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scale_does_not_have_is_told_or_refused() {
        let schema = builtin::for_gvk(GROUP, VERSION, "Scale").unwrap();
        let with = |spec: Value, validation| {
            let scale = json!({"kind": "Scale", "metadata": {"name": "d"}, "spec": spec});
            patched(schema, &PatchBody::Merge(json!({})), scale, validation, &[])
        };
        let (scale, warnings) = with(json!({"replicas": 1, "zz": 1}), FieldValidation::Warn).unwrap();
        assert_eq!(scale["spec"], json!({"replicas": 1}));
        assert_eq!(warnings, [r#"unknown field "spec.zz""#]);
        for spec in [json!({"zz": 1}), json!({"replicas": "x"})] {
            let refused = with(spec, FieldValidation::Strict).unwrap_err();
            assert_eq!(refused.code(), 422);
        }
    }

    #[test]
    fn selectors_become_text() {
        for (selector, want) in [
            (json!({"matchLabels": {"a": "b"}}), "a=b"),
            (json!({"a": "b", "c": "d"}), "a=b,c=d"),
            (
                json!({"matchExpressions": [{"key": "k", "operator": "In", "values": ["z", "y"]}, {"key": "e", "operator": "Exists"}]}),
                "e,k in (y,z)",
            ),
            (json!(null), ""),
        ] {
            assert_eq!(selector_text(&selector), want);
        }
    }
}
