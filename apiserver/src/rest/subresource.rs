//! What hangs under an object. Those that speak the object's own kind are writes of a part of it; what needs a kubelet or
//! a proxy is refused.

use super::read::View;
use super::respond::{self, Body};
use super::{Api, Call, pods, review, scale, write};
use crate::ApiError;
use crate::registry::Subresource;
use bytes::Bytes;
use http::{Response, header};
use serde_json::json;

/// Answers a request on a subresource whose verbs allow it.
pub async fn serve(
    api: &Api,
    call: &Call<'_>,
    sub: &Subresource,
    bytes: &Bytes,
) -> Result<Response<Body>, ApiError> {
    match sub.name.as_str() {
        "scale" => return scale::serve(api, call, bytes).await,
        "token" => return review::token_request(api, call, bytes),
        "log" => return log(api, call),
        "binding" => return pods::bind(api, call, bytes).await,
        "eviction" => return pods::evict(api, call, bytes).await,
        "exec" | "attach" | "portforward" | "proxy" => {
            api.get_object(&call.resource, &call.info.namespace, &call.info.name)?;
            return Err(refused(call));
        }
        _ => {}
    }
    match call.info.verb.as_str() {
        "get" => {
            let view = View::of(call)?;
            let object = api
                .store
                .get(&super::key(&call.resource, &call.info.namespace, &call.info.name));
            let entry = object.ok_or_else(|| ApiError::NotFound(call.subject()))?;
            view.check_shape(false)?;
            Ok(respond::stored(
                200,
                view.object(&entry.json, entry.revision),
                view.accept.format,
            ))
        }
        "update" => write::update(api, call, &sub.name, bytes).await,
        "patch" => write::patch(api, call, &sub.name, bytes).await,
        _ => Err(ApiError::MethodNotAllowed),
    }
}

/// A pod that runs nowhere has no log: no content, as kube-apiserver answers for a pod that is not scheduled.
fn log(api: &Api, call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let pod = api.get_object(&call.resource, &call.info.namespace, &call.info.name)?;
    let wanted = call.query.text("container");
    let has = |list: &str| {
        let all = pod["spec"][list].as_array().into_iter().flatten();
        all.into_iter().any(|c| c["name"] == wanted)
    };
    if !wanted.is_empty()
        && !["containers", "initContainers", "ephemeralContainers"]
            .iter()
            .any(|l| has(l))
    {
        return Err(ApiError::BadRequest(format!(
            "container {wanted} is not valid for pod {}",
            call.info.name
        )));
    }
    // Without a node, but running: simulated.
    let waits = matches!(pod["status"]["phase"].as_str(), None | Some("Pending"));
    if waits && pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
        let mut response = respond::text(204, "");
        response.headers_mut().remove(header::CONTENT_TYPE);
        return Ok(response);
    }
    Err(refused(call))
}

fn refused(call: &Call<'_>) -> ApiError {
    let what = format!("{}/{}", call.resource.plural, call.info.subresource);
    ApiError::Status(Box::new(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 501,
        "reason": "NotImplemented",
        "message": format!("{what} is not served: behind this API server no kubelet runs pods"),
        "details": {"name": call.info.name, "kind": call.resource.plural},
    })))
}
