//! Webhooks: which are called, with what, and what their answers mean (`admission/plugin/webhook`).

use super::call::Endpoint;
use super::conditions::{self, Conditions, Verdict};
use super::hooks::Index;
use super::seen::{Matched, Seen};
use super::{Operation, Write, changed};
use crate::rest::subject;
use crate::schema::cel::free::{Needs, Scope};
use crate::{ApiError, patch};
use base64::Engine as _;
use futures::future::join_all;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const REVIEW: &str = "admission.k8s.io/v1, Kind=AdmissionReview";

/// One webhook of a configuration.
#[derive(Debug)]
pub struct Hook {
    name: String,
    spec: Value,
    endpoint: Endpoint,
    conditions: Conditions,
    timeout: Duration,
}

/// What a webhook that was called said.
#[derive(Debug, Default, PartialEq)]
pub struct Said {
    /// JSON Patch.
    patch: Option<Vec<u8>>,
    /// For the client.
    warnings: Vec<String>,
}

/// Why a call does not count as a yes.
#[derive(Debug, PartialEq)]
enum Failure {
    /// It could not be asked; the failure policy says what that means.
    Calling(String),
    /// It said no, or may not be asked.
    Refused(ApiError),
}

impl Hook {
    /// Every webhook of a configuration, in its order.
    pub fn all(configuration: &Value) -> Vec<Arc<Self>> {
        let hooks = configuration["webhooks"].as_array().into_iter().flatten();
        hooks
            .map(|hook| {
                Arc::new(Self {
                    name: hook["name"].as_str().unwrap_or_default().to_owned(),
                    endpoint: Endpoint::new(&hook["clientConfig"]),
                    conditions: Conditions::new(hook, Scope::new(&conditions::NAMES)),
                    timeout: Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(10)),
                    spec: hook.clone(),
                })
            })
            .collect()
    }

    /// What its conditions look at.
    pub fn needs(&self) -> Needs {
        self.conditions.needs()
    }

    fn ignores(&self) -> bool {
        self.spec["failurePolicy"] == "Ignore"
    }

    /// The version this hook wants to see the write in, if it wants to.
    fn wants(&self, seen: &Seen<'_>) -> Result<Option<Matched>, ApiError> {
        let Some(matched) = seen.matched(&self.spec["rules"], &self.spec["matchPolicy"]) else {
            return Ok(None);
        };
        if !seen.selected(&self.spec) {
            return Ok(None);
        }
        match self.conditions.verdict(seen, &matched, None, self.ignores()) {
            Verdict::Match => Ok(Some(matched)),
            Verdict::Skip => Ok(None),
            Verdict::Error(why) => Err(ApiError::forbidden(
                subject(seen.review.resource, seen.review.name),
                &why,
            )),
        }
    }

    async fn call(&self, seen: &Seen<'_>, matched: &Matched, mutating: bool) -> Result<Said, ApiError> {
        let failed = match self.ask(seen, matched, mutating).await {
            Ok(said) => return Ok(said),
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::Calling(why)) => why,
        };
        let message = format!("failed calling webhook {:?}: {failed}", self.name);
        if self.ignores() {
            tracing::warn!(webhook = %self.name, "passed over: {message}");
            return Ok(Said::default());
        }
        Err(ApiError::Internal(message))
    }

    async fn ask(&self, seen: &Seen<'_>, matched: &Matched, mutating: bool) -> Result<Said, Failure> {
        let harmless = ["None", "NoneOnDryRun"]
            .iter()
            .any(|s| self.spec["sideEffects"] == **s);
        if seen.review.dry_run && !harmless {
            let message = format!("admission webhook {:?} does not support dry run", self.name);
            return Err(Failure::Refused(ApiError::BadRequest(message)));
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let mut request = seen.request(matched, &uid);
        request["object"] = seen.object(matched).into_owned();
        request["oldObject"] = seen.old_object(matched).into_owned();
        let review =
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request});
        let answer = self.endpoint.call(seen.api, &review, self.timeout).await;
        let answer = answer
            .and_then(readable)
            .map_err(|e| Failure::Calling(format!("failed to call webhook: {e}")))?;
        let response = verified(&answer, &uid, mutating)
            .map_err(|e| Failure::Calling(format!("received invalid webhook response: {e}")))?;
        if answer["response"]["allowed"] == true {
            return Ok(response);
        }
        Err(Failure::Refused(rejection(
            &self.name,
            &answer["response"]["status"],
        )))
    }
}

/// An answer in a version of AdmissionReview that was not asked for cannot be read.
fn readable(answer: Value) -> Result<Value, String> {
    if answer["kind"] == "AdmissionReview" && answer["apiVersion"] == "admission.k8s.io/v1beta1" {
        let why = "converting (v1beta1.AdmissionReview) to (v1.AdmissionReview): unknown conversion";
        return Err(why.into());
    }
    Ok(answer)
}

/// Checks an answer and takes out what it says besides yes or no.
fn verified(answer: &Value, uid: &str, mutating: bool) -> Result<Said, String> {
    let response = &answer["response"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let version = text(&answer["apiVersion"]);
    let shown = format!("{version}, Kind={}", text(&answer["kind"]));
    if response.is_null() {
        return Err("webhook response was absent".into());
    }
    if shown != REVIEW {
        return Err(format!("expected webhook response of {REVIEW}, got {shown}"));
    }
    if response["uid"] != uid {
        return Err(format!(
            "expected response.uid={uid:?}, got {:?}",
            text(&response["uid"])
        ));
    }
    let (patch, kind) = (text(&response["patch"]), text(&response["patchType"]));
    let warnings = response["warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    if !mutating {
        if !response["patch"].is_null() {
            return Err("validating webhook may not return response.patch".into());
        }
        if !response["patchType"].is_null() {
            return Err("validating webhook may not return response.patchType".into());
        }
    }
    let patch = match (patch.is_empty(), kind.as_str()) {
        (true, "") => None,
        (true, _) => return Err("webhook returned response.patchType but not response.patch".into()),
        (false, "") => return Err("webhook returned response.patch but not response.patchType".into()),
        (false, "JSONPatch") => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(patch);
            Some(decoded.map_err(|_| "illegal base64 data in response.patch")?)
        }
        (false, other) => {
            return Err(format!(
                "webhook returned invalid response.patchType of {other:?}"
            ));
        }
    };
    Ok(Said { patch, warnings })
}

/// The Status of a no.
fn rejection(name: &str, status: &Value) -> ApiError {
    let mut status = if status.is_object() {
        status.clone()
    } else {
        json!({})
    };
    let by = format!("admission webhook {name:?} denied the request");
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let message = match (
        text(&status["message"]).as_str(),
        text(&status["reason"]).as_str(),
    ) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    status["kind"] = "Status".into();
    status["apiVersion"] = "v1".into();
    if !status["metadata"].is_object() {
        status["metadata"] = json!({});
    }
    status["message"] = message.into();
    status["status"] = "Failure".into();
    if status["code"].as_u64().is_none_or(|c| !(400..600).contains(&c)) {
        status["code"] = 400.into();
    }
    ApiError::Status(Box::new(status))
}

/// Calls every validating webhook that wants to see a write, all at once; the first no in their order counts.
pub async fn validate(seen: &Seen<'_>, index: &Index) -> Result<Vec<String>, ApiError> {
    let mut calls = Vec::new();
    for hook in index.validating.values().flatten() {
        if let Some(matched) = hook.wants(seen)? {
            calls.push(async move { hook.call(seen, &matched, false).await });
        }
    }
    let mut warnings = Vec::new();
    for said in join_all(calls).await {
        warnings.extend(said?.warnings);
    }
    Ok(warnings)
}

/// Whether a write may be one that a mutating webhook wants to see, by its rules alone.
pub fn concerns_mutating(seen: &Seen<'_>, index: &Index) -> bool {
    let mut hooks = index.mutating.values().flatten();
    hooks.any(|hook| {
        seen.matched(&hook.spec["rules"], &hook.spec["matchPolicy"])
            .is_some()
    })
}

/// The mutating webhooks of one write.
pub struct Calls<'a> {
    hooks: Vec<&'a Arc<Hook>>,
    called: Vec<bool>,
    /// Place of the one that changed the object last.
    last_change: Option<usize>,
}

impl<'a> Calls<'a> {
    /// None of them was called yet.
    pub fn new(index: &'a Index) -> Self {
        let hooks: Vec<_> = index.mutating.values().flatten().collect();
        Self {
            called: vec![false; hooks.len()],
            hooks,
            last_change: None,
        }
    }

    /// Whether one of them changed the object.
    pub fn changed(&self) -> bool {
        self.last_change.is_some()
    }

    /// Calls every one that wants to see the write, one after the other, each on what the one before left.
    pub async fn all(
        &mut self,
        write: Write<'_>,
        object: &mut Option<Value>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        for (i, hook) in self.hooks.iter().enumerate() {
            let (asked, changed) = one(write, hook, object, warnings).await?;
            self.called[i] = asked;
            if changed {
                self.last_change = Some(i);
            }
        }
        Ok(())
    }

    /// Calls those once more that ask for it, when others changed the object after them; `by_others` says that something
    /// else than a webhook did.
    pub async fn again(
        &mut self,
        write: Write<'_>,
        by_others: bool,
        object: &mut Option<Value>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        for (i, hook) in self.hooks.iter().enumerate() {
            let after = by_others || self.last_change.is_some_and(|last| last > i);
            if self.called[i] && after && hook.spec["reinvocationPolicy"] == "IfNeeded" {
                one(write, hook, object, warnings).await?;
            }
        }
        Ok(())
    }
}

/// Calls one mutating webhook if it wants to see the write: whether it did, and whether it changed the object.
async fn one(
    (api, review, index, old): Write<'_>,
    hook: &Hook,
    object: &mut Option<Value>,
    warnings: &mut Vec<String>,
) -> Result<(bool, bool), ApiError> {
    let now = Seen::new(api, review, index, object.as_ref(), old);
    let Some(matched) = hook.wants(&now)? else {
        return Ok((false, false));
    };
    let said = hook.call(&now, &matched, true).await?;
    warnings.extend(said.warnings);
    let Some(patch) = said.patch else {
        return Ok((true, false));
    };
    let scale = review.subresource == "scale";
    let Some(current) = object
        .as_ref()
        .filter(|_| review.operation != Operation::Delete && !scale)
    else {
        return Err(ApiError::Internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        )));
    };
    let patched = patched(&now, &matched, current, &patch)?;
    let changed = patched != *current;
    *object = Some(patched);
    Ok((true, changed))
}

/// Why a patch cannot be carried out; removing what is not there is the common case.
fn unfit(object: &Value, patch: &[u8], error: &ApiError) -> String {
    let operations: Vec<Value> = serde_json::from_slice(patch).unwrap_or_default();
    let missing = operations.iter().find_map(|o| {
        let path = o["path"].as_str().filter(|_| o["op"] == "remove")?;
        object.pointer(path).is_none().then_some(path)
    });
    match missing {
        Some(path) => {
            let key = path.rsplit('/').next().unwrap_or_default();
            format!(
                "error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value"
            )
        }
        None => error.to_string(),
    }
}

/// The object with a webhook's patch on it.
fn patched(seen: &Seen<'_>, matched: &Matched, current: &Value, patch: &[u8]) -> Result<Value, ApiError> {
    let shown = seen.object(matched);
    let patched =
        patch::json_patch(&shown, patch).map_err(|e| ApiError::Internal(unfit(&shown, patch, &e)))?;
    changed::taken(seen, matched, current, patched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked() {
        let review = |response: Value| json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        let of = |v: &str| json!({"apiVersion": v, "kind": "AdmissionReview", "response": {"uid": "u"}});
        for (answer, mutating, want) in [
            (review(json!({"uid": "u", "allowed": true})), false, Ok(None)),
            (
                review(json!({"uid": "u", "patch": "W10=", "patchType": "JSONPatch"})),
                true,
                Ok(Some(b"[]".to_vec())),
            ),
            (
                review(json!({"uid": "u", "patch": "W10=", "patchType": "JSONPatch"})),
                false,
                Err("validating webhook may not return response.patch"),
            ),
            (
                review(json!({"uid": "u", "patch": "W10="})),
                true,
                Err("webhook returned response.patch but not response.patchType"),
            ),
            (
                review(json!({"uid": "other"})),
                true,
                Err("expected response.uid=\"u\", got \"other\""),
            ),
            (
                of("admission.k8s.io/v2"),
                true,
                Err(
                    "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got \
                     admission.k8s.io/v2, Kind=AdmissionReview",
                ),
            ),
            (json!({}), true, Err("webhook response was absent")),
        ] {
            let found = verified(&answer, "u", mutating).map(|said| said.patch);
            assert_eq!(found, want.map_err(str::to_owned), "{answer}");
        }
    }

    #[test]
    fn a_no_becomes_a_status() {
        for (status, code, message) in [
            (
                Value::Null,
                400,
                "admission webhook \"w.x.io\" denied the request without explanation",
            ),
            (
                json!({"code": 403, "message": "not so"}),
                403,
                "admission webhook \"w.x.io\" denied the request: not so",
            ),
            (
                json!({"code": 200, "reason": "Forbidden"}),
                400,
                "admission webhook \"w.x.io\" denied the request: Forbidden",
            ),
        ] {
            let error = rejection("w.x.io", &status);
            assert_eq!((error.code(), error.to_string().as_str()), (code, message));
        }
    }
}
