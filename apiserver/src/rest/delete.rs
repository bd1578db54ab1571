//! DELETE: at once, or marked and left to whoever holds a finalizer; one object or a selection.

use super::admission::{self, Operation, Review};
use super::internal::{Outcome, Target, finished};
use super::params::{DeleteOptions, ListOptions, Match, Propagation};
use super::read::{self, Filter, Found, View};
use super::respond::{self, Body};
use super::{Api, Call, body, key, modified, negotiate, rfc3339, store_error, subject};
use crate::ApiError;
use crate::auth::UserInfo;
use crate::controllers::crd::CLEANUP as CRD_CLEANUP;
use crate::controllers::plan::set_condition;
use crate::error::Subject;
use crate::object::{self, set_meta};
use crate::registry::{Resource, convert};
use crate::schema::{builtin, decode};
use crate::store::{Entry, Expect, StoreError};
use bytes::Bytes;
use http::{Response, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

/// Waits for dependents (garbage collector).
pub const FOREGROUND: &str = "foregroundDeletion";
/// Dependents are let go first (garbage collector).
pub const ORPHAN: &str = "orphan";

const ATTEMPTS: usize = 64;

/// What a deletion came to.
#[derive(Debug, Clone)]
pub struct Deleted {
    /// The object: its last state when gone, else as marked. In storage version.
    pub outcome: Outcome,
    /// It no longer exists.
    pub gone: bool,
    /// For the client.
    pub warnings: Vec<String>,
}

/// Kinds whose DELETE answers with the object also when it is gone.
pub(super) fn returns_object(r: &Resource) -> bool {
    if r.is_custom() {
        return false;
    }
    match r.group.as_str() {
        "" => matches!(
            r.plural.as_str(),
            "pods"
                | "podtemplates"
                | "services"
                | "serviceaccounts"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "resourcequotas"
        ),
        "storage.k8s.io" => r.plural != "csistoragecapacities",
        "resource.k8s.io" => true,
        _ => false,
    }
}

/// Kinds that are only ever marked by DELETE and go by an update that takes the last finalizer away.
fn is_marked_only(r: &Resource) -> bool {
    matches!(
        (r.group.as_str(), r.plural.as_str()),
        ("", "namespaces") | ("apiextensions.k8s.io", "customresourcedefinitions")
    )
}

/// The finalizers an object has once its deletion with that propagation begins.
fn finalizers_for(current: &Value, propagation: Option<Propagation>) -> Vec<String> {
    let has = |name: &str| object::finalizers(current).any(|f| f == name);
    let (orphan, foreground) = match propagation {
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Foreground) => (false, true),
        Some(Propagation::Background) => (false, false),
        // The oldest of the controllers lets its pods go when nobody says anything else.
        None => (
            has(ORPHAN) || (current["kind"] == "ReplicationController" && !has(FOREGROUND)),
            has(FOREGROUND),
        ),
    };
    let mut out: Vec<String> = object::finalizers(current)
        .filter(|f| !matches!(*f, ORPHAN | FOREGROUND))
        .map(str::to_owned)
        .collect();
    if orphan {
        out.push(ORPHAN.into());
    }
    if foreground {
        out.push(FOREGROUND.into());
    }
    out
}

fn check_preconditions(r: &Resource, current: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    let conflict = |detail: String| {
        let subject = Subject::new(&r.group, &r.kind, object::name(current));
        Err(ApiError::Conflict { subject, detail })
    };
    if let Some(uid) = &options.uid
        && uid != object::uid(current)
    {
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted \
             and then recreated",
            object::uid(current)
        ));
    }
    if let Some(version) = &options.resource_version
        && version != object::resource_version(current)
    {
        return conflict(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The \
             object might have been modified",
            object::resource_version(current)
        ));
    }
    Ok(())
}

/// Seconds a pod has to end, when its deletion begins: what the request says, else what its spec says. What runs nowhere, or
/// has ended, needs none.
fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let nowhere = pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
    let own = || pod["spec"]["terminationGracePeriodSeconds"].as_i64();
    match asked.or_else(own).unwrap_or(0) {
        _ if ended || nowhere => 0,
        seconds if seconds < 0 => 1,
        seconds => seconds,
    }
}

/// What another deletion makes of one that is under way and has time left.
enum Again {
    /// It goes on as it does.
    Stays,
    /// It ends sooner, after so many seconds from when it began.
    Sooner(i64, Timestamp),
}

/// The second deletion of a pod may only shorten the time it has. `None` when the first left none.
fn again(pod: &Value, asked: Option<i64>) -> Option<Again> {
    let metadata = &pod["metadata"];
    let had = metadata["deletionGracePeriodSeconds"]
        .as_i64()
        .filter(|s| *s != 0)?;
    let had = if had < 0 { 1 } else { had };
    let asked = asked.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let end: Option<Timestamp> = metadata["deletionTimestamp"]
        .as_str()
        .and_then(|t| t.parse().ok());
    Some(match (asked, end) {
        (Some(seconds), Some(end)) if seconds < had => {
            let end = end
                .checked_sub(SignedDuration::from_secs(had - seconds))
                .unwrap_or(end);
            Again::Sooner(seconds, end)
        }
        _ => Again::Stays,
    })
}

/// The object marked as being deleted, or `None` when it already says all that.
fn marked(r: &Resource, current: &Value, options: &DeleteOptions, time: Timestamp) -> Option<Value> {
    let mut new = current.clone();
    let is_pod = &*r.storage == crate::controllers::kinds::PODS;
    if is_pod && object::is_deleting(current) {
        match again(current, options.grace) {
            Some(Again::Stays) => return None,
            Some(Again::Sooner(seconds, end)) => {
                set_meta(&mut new, "deletionTimestamp", Some(rfc3339(end).into()));
                set_meta(&mut new, "deletionGracePeriodSeconds", Some(seconds.into()));
            }
            None => {}
        }
    }
    let seconds = if is_pod { grace(current, options.grace) } else { 0 };
    let end = time
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(time);
    let (now, end) = (rfc3339(time), rfc3339(end));
    let now = now.as_str();
    let mut finalizers = finalizers_for(current, options.propagation);
    // Its objects go before it.
    let is_crd = &*r.storage == crate::controllers::kinds::CRDS;
    if is_crd && !object::is_deleting(current) && !finalizers.iter().any(|f| f == CRD_CLEANUP) {
        finalizers.push(CRD_CLEANUP.into());
    }
    if finalizers.is_empty() {
        set_meta(&mut new, "finalizers", None);
    } else {
        set_meta(&mut new, "finalizers", Some(finalizers.into()));
    }
    if is_crd && !object::is_deleting(current) {
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        set_condition(
            &mut new,
            "Terminating",
            "True",
            "InstanceDeletionPending",
            message,
            now,
        );
    }
    if !object::is_deleting(current) {
        set_meta(&mut new, "deletionTimestamp", Some(end.into()));
        if !is_marked_only(r) {
            if let Some(generation) = current["metadata"]["generation"].as_i64().filter(|g| *g > 0) {
                set_meta(&mut new, "generation", Some((generation + 1).into()));
            }
            set_meta(&mut new, "deletionGracePeriodSeconds", Some(seconds.into()));
        }
    }
    if &*r.storage == "/namespaces" {
        object::child_mut(&mut new, "status").insert("phase".into(), "Terminating".into());
    }
    (new != *current).then_some(new)
}

impl Api {
    /// Deletes an object, or marks it and leaves it to its finalizers.
    pub async fn delete_object(
        &self,
        user: &UserInfo,
        target: &Target<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let r = &target.resource;
        for _ in 0..ATTEMPTS {
            let entry = self
                .store
                .get(&key(r, target.namespace, target.name))
                .ok_or_else(|| ApiError::NotFound(subject(r, target.name)))?;
            match self.delete_attempt(user, target, &entry, options).await {
                Err(StoreOrApi::Store(StoreError::Changed(_) | StoreError::Missing)) => {}
                Err(StoreOrApi::Store(e)) => return Err(store_error(&e, r, target.name)),
                Err(StoreOrApi::Api(e)) => return Err(e),
                Ok(deleted) => return Ok(deleted),
            }
        }
        Err(modified(r, target.name))
    }

    async fn delete_attempt(
        &self,
        user: &UserInfo,
        target: &Target<'_>,
        entry: &Arc<Entry>,
        options: &DeleteOptions,
    ) -> Result<Deleted, StoreOrApi> {
        let r = &target.resource;
        let current = convert::refreshed(r, entry.value());
        check_preconditions(r, &current, options)?;
        let review = Review {
            operation: Operation::Delete,
            user,
            resource: r,
            subresource: "",
            namespace: target.namespace,
            name: target.name,
            dry_run: options.dry_run,
        };
        admission::before(self, &review)?;
        let old = convert::from_storage(r, current.clone());
        let mut warnings = Vec::new();
        if !options.reviewed {
            warnings = admission::mutate(self, &review, None, Some(&old)).await?;
            warnings.extend(admission::validate(self, &review, None, Some(&old)).await?);
        }
        let new = marked(r, &current, options, self.clock.now());
        let state = new.as_ref().unwrap_or(&current);
        if finished(state) {
            let outcome = if options.dry_run {
                Outcome::Unstored(current)
            } else {
                // A pod that nothing has to stop is marked all the same, for who watches, and then removed.
                let (last, revision) = match new {
                    Some(marked) if &*r.storage == crate::controllers::kinds::PODS => {
                        let expect = Expect::Revision(entry.revision);
                        let put = self.store.put(entry.key.clone(), marked, expect).await?;
                        (put.value(), put.revision)
                    }
                    _ => (current, entry.revision),
                };
                let last = self.store_delete(r, entry.key.clone(), last, revision).await?;
                Outcome::Unstored(last.value())
            };
            return Ok(Deleted {
                outcome,
                gone: true,
                warnings,
            });
        }
        let outcome = match new {
            None => Outcome::Stored(Arc::clone(entry)),
            Some(new) if options.dry_run => Outcome::Unstored(new),
            Some(new) => {
                let put = self
                    .store_put(r, entry.key.clone(), new, Expect::Revision(entry.revision))
                    .await?;
                Outcome::Stored(put)
            }
        };
        Ok(Deleted {
            outcome,
            gone: false,
            warnings,
        })
    }
}

enum StoreOrApi {
    Store(StoreError),
    Api(ApiError),
}

impl From<StoreError> for StoreOrApi {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

impl From<ApiError> for StoreOrApi {
    fn from(e: ApiError) -> Self {
        Self::Api(e)
    }
}

/// Kinds whose dependents stay unless the request says otherwise, as they did before there was a garbage collector.
fn orphans_by_default(r: &Resource) -> bool {
    matches!(
        (r.group.as_str(), r.plural.as_str()),
        ("", "replicationcontrollers") | ("batch", "jobs")
    )
}

const ORPHANED_PODS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
     remove them or set propagationPolicy=Orphan to suppress this warning";

/// What the request asks for, and what its kind does where it asks for nothing.
fn options(call: &Call<'_>, bytes: &Bytes) -> Result<DeleteOptions, ApiError> {
    let mut options = asked(call, bytes)?;
    if options.propagation.is_none() && orphans_by_default(&call.resource) {
        options.propagation = Some(Propagation::Orphan);
        if call.resource.plural == "jobs" {
            call.warn(vec![ORPHANED_PODS.to_owned()]);
        }
    }
    Ok(options)
}

fn asked(call: &Call<'_>, bytes: &Bytes) -> Result<DeleteOptions, ApiError> {
    if bytes.is_empty() {
        return DeleteOptions::parse(None, call.query);
    }
    let format = negotiate::body_format(call.header(header::CONTENT_TYPE), false)?;
    let parsed = match body::parse_json(bytes) {
        Err(why) if format == negotiate::Format::Json => {
            return Err(ApiError::BadRequest(format!(
                "couldn't get version/kind; json parse error: {why}"
            )));
        }
        _ => body::parse_object(bytes, format, "DeleteOptions")?,
    };
    let text = |field: &str| parsed.value[field].as_str().unwrap_or_default();
    if !matches!(text("kind"), "" | "DeleteOptions") {
        return Err(ApiError::BadRequest(format!(
            "no kind {:?} is registered for version {:?} in scheme \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/\
             register.go:27\"",
            text("kind"),
            text("apiVersion")
        )));
    }
    if let Some(why) = wrong_types(&parsed.value) {
        return Err(ApiError::BadRequest(why));
    }
    DeleteOptions::parse(Some(&parsed.value), call.query)
}

/// What Go's decoder would say of these options.
fn wrong_types(options: &Value) -> Option<String> {
    let schema = builtin::named("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")?;
    let mut options = options.clone();
    options["kind"] = "DeleteOptions".into();
    decode::check_types(schema, &options)
}

/// DELETE of one object.
pub async fn delete(api: &Api, call: &Call<'_>, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
    let view = View::of(call)?;
    view.check_shape(false)?;
    let options = options(call, bytes)?;
    let target = super::write::target(call, "");
    let deleted = api.delete_object(call.user, &target, &options).await?;
    if !deleted.gone || returns_object(&call.resource) {
        let waits = !deleted.gone && options.cascades;
        let code = if waits { 202 } else { 200 };
        let shown = view.object(&deleted.outcome.json(), deleted.outcome.revision());
        let mut response = respond::stored(code, shown, view.accept.format);
        respond::warn(&mut response, &deleted.warnings);
        return Ok(response);
    }
    let value = deleted.outcome.value();
    let mut details =
        json!({"name": call.info.name, "kind": call.resource.plural, "uid": object::uid(&value)});
    if !call.resource.group.is_empty() {
        details["group"] = call.resource.group.as_str().into();
    }
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    });
    let mut response = respond::value(200, &status, view.accept.format);
    respond::warn(&mut response, &deleted.warnings);
    Ok(response)
}

/// DELETE of a selection. Answers with the objects as they were when they were chosen.
pub async fn collection(api: &Api, call: &Call<'_>, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
    let view = View::of(call)?;
    view.check_shape(true)?;
    let mut list = ListOptions::parse(call.query, false)?;
    // What is deleted is read as it was then, not as it is by now.
    if list.version_match.is_none() && !matches!(list.resource_version.as_str(), "" | "0") {
        list.version_match = Some(Match::Exact);
    }
    let delete = options(call, bytes)?;
    let filter = Filter::new(&view, &list)?;
    let found: Found = read::find(api, &filter, &call.info.namespace, &list)?;
    for entry in &found.entries {
        let target = Target::object(&call.resource, &entry.key.namespace, &entry.key.name);
        match api.delete_object(call.user, &target, &delete).await {
            Ok(_) | Err(ApiError::NotFound(_)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(read::list_response(&view, &found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_types() {
        let bad = wrong_types(&json!({"gracePeriodSeconds": "x"}));
        let why = "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64";
        assert_eq!(bad.as_deref(), Some(why));
        assert_eq!(wrong_types(&json!({"gracePeriodSeconds": 1, "zz": "x"})), None);
    }

    #[test]
    fn propagation_becomes_finalizers() {
        let plain = json!({"metadata": {"finalizers": ["x.io/f"]}});
        let orphaning = json!({"metadata": {"finalizers": ["orphan"]}});
        let controller = json!({"kind": "ReplicationController", "metadata": {}});
        for (object, propagation, want) in [
            (&plain, None, vec!["x.io/f"]),
            (&plain, Some(Propagation::Foreground), vec!["x.io/f", FOREGROUND]),
            (&plain, Some(Propagation::Orphan), vec!["x.io/f", ORPHAN]),
            (&orphaning, None, vec![ORPHAN]),
            (&orphaning, Some(Propagation::Background), vec![]),
            (&orphaning, Some(Propagation::Foreground), vec![FOREGROUND]),
            (&controller, None, vec![ORPHAN]),
            (&controller, Some(Propagation::Background), vec![]),
        ] {
            assert_eq!(
                finalizers_for(object, propagation),
                want,
                "{object} {propagation:?}"
            );
        }
    }

    #[test]
    fn pods_get_time_to_end() {
        let pod = |node: &str, phase: &str, own: Value| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": own}, "status": {"phase": phase}});
        for (pod, asked, want) in [
            (pod("n", "Running", json!(30)), None, 30),
            (pod("n", "Running", json!(null)), None, 0),
            (pod("n", "Running", json!(30)), Some(5), 5),
            (pod("n", "Running", json!(30)), Some(0), 0),
            (pod("n", "Pending", json!(30)), Some(-1), 1),
            (pod("", "Pending", json!(30)), Some(5), 0),
            (pod("n", "Succeeded", json!(30)), None, 0),
            (pod("n", "Failed", json!(30)), Some(5), 0),
        ] {
            assert_eq!(grace(&pod, asked), want, "{pod} {asked:?}");
        }
    }

    #[test]
    fn a_second_deletion_only_shortens_the_first() {
        let registry = crate::registry::Registry::new();
        let pods = registry.find("", "v1", "pods").unwrap();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mark = |pod: &Value, grace, now| {
            let options = DeleteOptions {
                grace,
                ..DeleteOptions::default()
            };
            marked(&pods, pod, &options, now)
        };
        let first = mark(&pod, None, now).unwrap();
        let shown = |pod: &Value| {
            let m = &pod["metadata"];
            json!([m["deletionTimestamp"], m["deletionGracePeriodSeconds"]])
        };
        assert_eq!(shown(&first), json!(["2026-01-01T00:00:30Z", 30]));
        assert!(!finished(&first));
        let later: Timestamp = "2026-01-01T00:00:07Z".parse().unwrap();
        for (grace, want) in [
            (None, None),
            (Some(30), None),
            (Some(60), None),
            (Some(10), Some(json!(["2026-01-01T00:00:10Z", 10]))),
            (Some(-5), Some(json!(["2026-01-01T00:00:01Z", 1]))),
            (Some(0), Some(json!(["2026-01-01T00:00:00Z", 0]))),
        ] {
            let again = mark(&first, grace, later);
            assert_eq!(again.as_ref().map(shown), want, "{grace:?}");
            assert_eq!(again.is_some_and(|pod| finished(&pod)), grace == Some(0));
        }
    }
}
