//! What schedulers and drains ask of pods: binding one to a node, and evicting it.

use super::admission::{self, Operation, Review};
use super::internal::Target;
use super::params::{DeleteOptions, OptionsKind, WriteOptions};
use super::respond::{self, Body};
use super::write::check_namespace;
use super::{Api, Call, body, budgets, decode, negotiate, rfc3339};
use crate::ApiError;
use crate::controllers::plan::set_condition;
use crate::error::{FieldError, Subject};
use crate::object;
use crate::schema::{builtin, decode as schema_decode, prune};
use bytes::Bytes;
use http::{Response, header};
use serde_json::{Value, json};

/// The version of evictions that is still taken beside their own.
const OLD_EVICTIONS: &str = "policy/v1beta1";

/// `POST …/pods/{name}/binding`: the pod runs on that node.
pub async fn bind(api: &Api, call: &Call<'_>, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
    let binding = read(api, call, bytes, "Binding")?;
    let place = super::write::target(call, "binding");
    bind_at(api, call, "binding", &place, binding).await
}

/// `POST …/bindings`, the older way: the binding says which pod it is of.
pub async fn bind_named(api: &Api, call: &Call<'_>, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
    let format = negotiate::body_format(call.header(header::CONTENT_TYPE), false)?;
    let binding = body::parse_object(bytes, format, "Binding")?.value;
    check_types(&binding, "Binding")?;
    let name = object::name(&binding).to_owned();
    if name.is_empty() {
        return Err(ApiError::BadRequest("Name parameter required.".into()));
    }
    let resource = api
        .registry
        .find("", "v1", "pods")
        .ok_or(ApiError::NoSuchResource)?;
    let place = Target {
        resource,
        subresource: "binding",
        namespace: &call.info.namespace,
        name: &name,
    };
    bind_at(api, call, "", &place, binding).await
}

/// `subresource`: of what was asked for.
async fn bind_at(
    api: &Api,
    call: &Call<'_>,
    subresource: &str,
    place: &Target<'_>,
    mut binding: Value,
) -> Result<Response<Body>, ApiError> {
    let accept = negotiate::no_table(negotiate::accept(call.header(header::ACCEPT))?)?;
    let mut options = WriteOptions::parse(call.query, OptionsKind::Create, call.user_agent())?;
    let review = review(call, subresource, place.name, options.dry_run);
    admission::command(api, &review, &mut binding).await?;
    options.reviewed = true;
    let target = &binding["target"];
    let node = target["name"].as_str().unwrap_or_default().to_owned();
    let kind = target["kind"].as_str().unwrap_or_default();
    let mut errors = Vec::new();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(
            "target.kind",
            &target["kind"],
            &["Node", "<empty>"],
        ));
    }
    if node.is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid("", "Binding", object::name(&binding), errors));
    }
    let now = rfc3339(api.clock.now());
    let mut change = |pod: &Value| {
        let refuse = |why: String| {
            Err(ApiError::Conflict {
                subject: Subject::new("", "pods/binding", place.name),
                detail: why,
            })
        };
        if object::is_deleting(pod) {
            return refuse(format!(
                "pod {} is being deleted, cannot be assigned to a host",
                place.name
            ));
        }
        let there = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if !there.is_empty() {
            return refuse(format!(
                "pod {} is already assigned to node {there:?}",
                place.name
            ));
        }
        let mut pod = pod.clone();
        pod["spec"]["nodeName"] = node.as_str().into();
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
        let conditions = object::child_mut(&mut pod, "status")
            .entry("conditions")
            .or_insert_with(|| json!([]));
        if let Some(conditions) = conditions.as_array_mut() {
            conditions.retain(|c| c["type"] != "PodScheduled");
            conditions.push(scheduled);
        }
        Ok(pod)
    };
    api.modify_object(call.user, place, &options, &mut change).await?;
    Ok(respond::value(201, &success(201), accept.format))
}

/// `POST …/pods/{name}/eviction`: the pod is deleted, unless a budget holds it.
pub async fn evict(api: &Api, call: &Call<'_>, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
    let accept = negotiate::no_table(negotiate::accept(call.header(header::ACCEPT))?)?;
    let mut write = WriteOptions::parse(call.query, OptionsKind::Create, call.user_agent())?;
    let mut eviction = read(api, call, bytes, "Eviction")?;
    let review = review(call, "eviction", &call.info.name, write.dry_run);
    admission::command(api, &review, &mut eviction).await?;
    write.reviewed = true;
    let pod = api.get_object(&call.resource, &call.info.namespace, &call.info.name)?;
    let options = &eviction["deleteOptions"];
    let mut delete = DeleteOptions::parse(options.is_object().then_some(options), call.query)?;
    delete.dry_run |= write.dry_run;
    delete.reviewed = true;
    let ended = matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed" | "Pending")
    );
    if !ended && !object::is_deleting(&pod) {
        budgets::charge(api, &call.info.namespace, &pod, delete.dry_run).await?;
    }
    // Who names the state that is evicted must find it so.
    let is_meant =
        delete.resource_version.is_none() && delete.uid.as_deref().is_none_or(|uid| uid == object::uid(&pod));
    if is_meant && !delete.dry_run && !object::is_deleting(&pod) {
        let place = super::write::target(call, "eviction");
        let now = rfc3339(api.clock.now());
        let mut change = |pod: &Value| {
            let mut pod = pod.clone();
            set_condition(
                &mut pod,
                "DisruptionTarget",
                "True",
                "EvictionByEvictionAPI",
                "Eviction API: evicting",
                &now,
            );
            Ok(pod)
        };
        api.modify_object(call.user, &place, &write, &mut change).await?;
    }
    let target = super::write::target(call, "");
    api.delete_object(call.user, &target, &delete).await?;
    Ok(respond::value(201, &success(201), accept.format))
}

fn review<'a>(call: &'a Call<'_>, subresource: &'a str, name: &'a str, dry_run: bool) -> Review<'a> {
    Review {
        operation: Operation::Create,
        user: call.user,
        resource: &call.resource,
        subresource,
        namespace: &call.info.namespace,
        name,
        dry_run,
    }
}

/// The body, of that kind and about the pod of the URL.
fn read(api: &Api, call: &Call<'_>, bytes: &Bytes, kind: &str) -> Result<Value, ApiError> {
    let options = WriteOptions::parse(call.query, OptionsKind::Create, call.user_agent())?;
    let format = negotiate::body_format(call.header(header::CONTENT_TYPE), false)?;
    let mut parsed = body::parse_object(bytes, format, kind)?;
    let group = if kind == "Eviction" { "policy" } else { "" };
    if kind == "Eviction" && parsed.value["apiVersion"] == OLD_EVICTIONS {
        parsed.value["apiVersion"] = "policy/v1".into();
    }
    body::check_type(
        &api.registry,
        &call.resource,
        kind,
        (group, "v1"),
        &mut parsed.value,
        None,
    )?;
    if let Some(schema) = builtin::for_gvk(group, "v1", kind) {
        if let Some(why) = schema_decode::check_types(schema, &parsed.value) {
            return Err(decode::cannot_handle(kind, "v1", &why));
        }
        let unknown = prune::prune(schema, &mut parsed.value, false);
        let told = body::strictness(options.validation, &unknown, &parsed.duplicates)
            .map_err(|why| decode::cannot_handle(kind, "v1", &why))?;
        call.warn(told);
    }
    check_namespace(&call.resource, &call.info.namespace, &mut parsed.value)?;
    if object::name(&parsed.value) != call.info.name {
        return Err(ApiError::BadRequest(format!(
            "name in URL does not match name in {kind} object"
        )));
    }
    Ok(parsed.value)
}

fn check_types(value: &Value, kind: &str) -> Result<(), ApiError> {
    let group = if kind == "Eviction" { "policy" } else { "" };
    let schema = builtin::for_gvk(group, "v1", kind);
    match schema.and_then(|s| schema_decode::check_types(s, value)) {
        Some(why) => Err(decode::cannot_handle(kind, "v1", &why)),
        None => Ok(()),
    }
}

fn success(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code})
}
