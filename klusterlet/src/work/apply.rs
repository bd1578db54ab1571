//! Brings one object to what its manifest says. Everything that can go wrong with it becomes part of its own report, so
//! that the other manifests of the work go on.

use super::drift::{self, Decision, Marks};
use super::feedback;
use super::manifest::{self, Identity};
use super::objects::{self, Mapper, RequestError, Served};
use super::settings::{self, Settings};
use super::state::{ObjectKey, State};
use super::status::{Applied, Availability, Report};
use super::watches::{Coverage, Watches};
use kube::Client;
use muster_crds::constants::reasons;
use muster_crds::work::v1::{ManifestResourceMeta, ManifestWork, ManifestWorkExecutor, UpdateStrategyType};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A work that is not allowed to apply something asks again after this (wire §3.6).
const NOT_ALLOWED_RETRY: Duration = Duration::from_secs(60);
/// How long a first look waits for the kind's watch; after that it asks for the object alone.
const WATCH_PATIENCE: Duration = Duration::from_secs(3);
/// Somebody else may write at the same moment; more often than this in a row is left to the queue's back-off.
const CONFLICT_RETRIES: usize = 5;

/// What applying needs of the agent.
pub struct Applier {
    /// Client of the managed cluster.
    pub spoke: Client,
    /// Kinds the cluster serves.
    pub mapper: Mapper,
    /// Drift watches.
    pub watches: Watches,
    /// What they saw.
    pub state: Arc<Mutex<State>>,
}

/// When the work must be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// When something changes.
    No,
    /// With growing waits: it failed.
    Backoff,
    /// After this.
    After(Duration),
}

/// What came of one manifest.
#[derive(Debug)]
pub struct Outcome {
    /// For the status.
    pub report: Report,
    /// Where the object lives.
    pub key: Option<ObjectKey>,
    /// As what it was applied.
    pub served: Option<Arc<Served>>,
    /// UID of the object, `""` when it is not there.
    pub uid: String,
    /// resourceVersion at which it is as it should be.
    pub settled: Option<String>,
    /// When to come again.
    pub retry: Retry,
}

/// What is known of the live object without asking.
enum Known {
    Object(Arc<Value>),
    Absent,
    Unknown,
}

impl Applier {
    /// Applies manifest `ordinal` of a work. `owner` is the work's AppliedManifestWork as an owner reference, and `trusted`
    /// says that this agent has applied the very same manifest before.
    pub async fn apply(&self, work: &ManifestWork, ordinal: usize, owner: &Value, trusted: bool) -> Outcome {
        let manifest = &work.spec.workload.manifests[ordinal].0;
        let identity = Identity::of(manifest);
        let mut meta = ManifestResourceMeta {
            ordinal: i32::try_from(ordinal).unwrap_or(i32::MAX),
            group: identity.group.clone(),
            version: identity.version.clone(),
            kind: identity.kind.clone(),
            resource: String::new(),
            name: identity.name.clone(),
            namespace: identity.namespace.clone(),
        };
        if let Some(problem) = identity.problem(manifest) {
            return unusable(meta, problem.to_owned(), Retry::No);
        }
        let served = match self.mapper.resolve(&self.spoke, &identity).await {
            Ok(served) => served,
            Err(error) => return unusable(meta, error.to_string(), Retry::Backoff),
        };
        meta.resource.clone_from(&served.plural);
        let mut required = manifest::required(manifest);
        if served.namespaced && identity.namespace.is_empty() {
            // As kubectl does: what names no namespace goes into "default".
            "default".clone_into(&mut meta.namespace);
            required["metadata"]["namespace"] = "default".into();
        } else if !served.namespaced {
            meta.namespace.clear();
            if let Some(metadata) = required["metadata"].as_object_mut() {
                metadata.remove("namespace");
            }
        }
        let settings = settings::settings(&work.spec.manifest_configs, &meta);
        let owns = settings::owns(&work.spec, &meta);
        let key = ObjectKey {
            group: served.group.clone(),
            resource: served.plural.clone(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        };
        let target = Target {
            path: served.object(&meta.namespace, &meta.name),
            collection: served.collection(&meta.namespace),
            required,
            marks: marks(owner, owns),
            settings,
            key,
            served,
            work: work.metadata.name.clone().unwrap_or_default(),
            trusted,
        };
        if let Some(executor) = &work.spec.executor {
            match self.executor_may(executor, &target, owns).await {
                Ok(None) => {}
                Ok(Some(denied)) => return target.failed(meta, denied, Retry::After(NOT_ALLOWED_RETRY)),
                Err(error) => return target.failed(meta, error.to_string(), Retry::Backoff),
            }
        }
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .own(&target.key, &target.work);
        match self.bring_about(&target).await {
            Ok(live) => target.done(meta, live.as_deref()),
            Err(Failure::Request(error)) => {
                let availability = self.find_out(&target).await;
                let retry = match error.code() {
                    // An SSA conflict needs a person, not a retry (wire §3.2).
                    409 if target.strategy() == UpdateStrategyType::ServerSideApply => Retry::No,
                    _ => Retry::Backoff,
                };
                let mut outcome = target.failed(meta, error.to_string(), retry);
                if let Ok(Some(live)) = availability {
                    live["metadata"]["uid"]
                        .as_str()
                        .unwrap_or_default()
                        .clone_into(&mut outcome.uid);
                    outcome.report.availability = Availability::Exists;
                    outcome.report.feedback = target.feedback(Some(&live));
                } else if let Err(error) = availability {
                    let reason = reasons::FETCHING_RESOURCE_FAILED;
                    outcome.report.availability = Availability::Unknown {
                        reason,
                        message: error.to_string(),
                    };
                }
                outcome
            }
            Err(Failure::IgnoreFields) => {
                let mut outcome = target.failed(
                    meta,
                    "ignoreFields of ServerSideApply is not supported by this klusterlet".into(),
                    Retry::No,
                );
                if let Applied::No { reason, .. } = &mut outcome.report.applied {
                    *reason = reasons::APPLIED_MANIFEST_SSA_IGNORE_FIELD_ERROR;
                }
                outcome
            }
        }
    }

    async fn bring_about(&self, target: &Target<'_>) -> Result<Option<Arc<Value>>, Failure> {
        match target.strategy() {
            UpdateStrategyType::ReadOnly => {
                let (namespace, name) = (target.key.namespace.clone(), target.key.name.clone());
                self.watches
                    .ensure(&target.served, Coverage::Named(namespace, name));
                Ok(self.find_out(target).await?)
            }
            UpdateStrategyType::ServerSideApply => self.server_side_apply(target).await,
            strategy => {
                let create_only = strategy == UpdateStrategyType::CreateOnly;
                Ok(Some(self.update(target, create_only).await?))
            }
        }
    }

    async fn update(&self, target: &Target<'_>, create_only: bool) -> Result<Arc<Value>, RequestError> {
        let mut live = match self.known(target).await {
            Known::Object(object) => Some(object),
            Known::Absent => None,
            Known::Unknown => self.fetch(target).await?,
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let result = match &live {
                None => {
                    let object = drift::created(&target.required, &target.marks);
                    objects::create(&self.spoke, &target.collection, &object).await
                }
                Some(object) => {
                    let decision = if create_only {
                        drift::decide_marks(object, &target.marks).map_or(Decision::Keep, Decision::Replace)
                    } else {
                        drift::decide(&target.required, object, &target.marks)
                    };
                    match decision {
                        Decision::Keep => return Ok(object.clone()),
                        Decision::Replace(new) => objects::replace(&self.spoke, &target.path, &new).await,
                        Decision::Recreate => {
                            let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
                            objects::delete(&self.spoke, &target.path, uid).await?;
                            live = None;
                            continue;
                        }
                    }
                }
            };
            match result {
                Ok(object) => return Ok(Arc::new(object)),
                Err(error) if tries >= CONFLICT_RETRIES => return Err(error),
                Err(error) if error.is_conflict() || error.already_exists() => {
                    live = self.fetch(target).await?;
                }
                Err(error) if error.is_not_found() && live.is_some() => live = None,
                Err(error) => return Err(error),
            }
        }
    }

    async fn server_side_apply(&self, target: &Target<'_>) -> Result<Option<Arc<Value>>, Failure> {
        let config = target
            .settings
            .strategy
            .and_then(|s| s.server_side_apply.clone())
            .unwrap_or_default();
        if !config.ignore_fields.is_empty() {
            return Err(Failure::IgnoreFields);
        }
        let mut wanted = target.required.clone();
        wanted["metadata"]["labels"][muster_crds::constants::labels::APPLIED] = "true".into();
        let live = match self.known(target).await {
            Known::Object(live)
                if target.trusted
                    && drift::covers(&live, &wanted)
                    && applied_by(&live, &config.field_manager) =>
            {
                live
            }
            _ => {
                let path = format!(
                    "{}?fieldManager={}&force={}",
                    target.path, config.field_manager, config.force
                );
                let body = Some(&wanted);
                let method = http::Method::PATCH;
                Arc::new(objects::request(&self.spoke, method, &path, objects::APPLY_PATCH, body).await?)
            }
        };
        // Several works may apply the same object as the same manager: owners are not part of what is applied.
        match drift::decide_marks(&live, &target.marks) {
            None => Ok(Some(live)),
            Some(marked) => {
                let patch = json!({"metadata": {
                    "uid": live["metadata"]["uid"],
                    "resourceVersion": live["metadata"]["resourceVersion"],
                    "ownerReferences": marked["metadata"]["ownerReferences"],
                }});
                Ok(Some(Arc::new(
                    objects::merge(&self.spoke, &target.path, &patch).await?,
                )))
            }
        }
    }

    /// What the drift watch knows; starts it when it is the first of its kind.
    async fn known(&self, target: &Target<'_>) -> Known {
        let mut synced = self.watches.ensure(&target.served, Coverage::Labelled);
        let ready = tokio::time::timeout(WATCH_PATIENCE, synced.wait_for(|s| *s)).await;
        if !matches!(ready, Ok(Ok(_))) {
            return Known::Unknown;
        }
        drop(ready);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.seen.get_mut(&target.key) {
            None => Known::Absent,
            Some(seen) => seen.object.take().map_or(Known::Unknown, Known::Object),
        }
    }

    async fn fetch(&self, target: &Target<'_>) -> Result<Option<Arc<Value>>, RequestError> {
        match objects::get(&self.spoke, &target.path).await {
            Ok(object) => Ok(Some(Arc::new(object))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn find_out(&self, target: &Target<'_>) -> Result<Option<Arc<Value>>, RequestError> {
        self.fetch(target).await
    }

    /// Whether the executor may do what is about to be done; `Some` says what it may not (wire §3.6).
    async fn executor_may(
        &self,
        executor: &ManifestWorkExecutor,
        target: &Target<'_>,
        owns: bool,
    ) -> Result<Option<String>, RequestError> {
        let Some(account) = &executor.subject.service_account else {
            return Ok(None);
        };
        let (namespace, name) = (&account.namespace, &account.name);
        let mut verbs = vec!["create", "update", "patch", "get"];
        if owns {
            verbs.push("delete");
        }
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        for verb in verbs {
            let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
                "user": format!("system:serviceaccount:{namespace}:{name}"),
                "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
                "resourceAttributes": {"verb": verb, "group": target.served.group, "version": target.served.version,
                    "resource": target.served.plural, "namespace": target.key.namespace, "name": target.key.name}}});
            let answer = objects::request(
                &self.spoke,
                http::Method::POST,
                path,
                objects::JSON,
                Some(&review),
            )
            .await?;
            if answer["status"]["allowed"].as_bool() != Some(true) {
                return Ok(Some(format!(
                    "not allowed to apply the resource {}/{} {}/{}: the executor {namespace}/{name} may not {verb} it",
                    target.served.group, target.served.plural, target.key.namespace, target.key.name
                )));
            }
        }
        Ok(None)
    }
}

#[derive(Debug)]
enum Failure {
    Request(RequestError),
    IgnoreFields,
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

struct Target<'a> {
    path: String,
    collection: String,
    required: Value,
    marks: Marks,
    settings: Settings<'a>,
    key: ObjectKey,
    served: Arc<Served>,
    work: String,
    trusted: bool,
}

impl Target<'_> {
    fn strategy(&self) -> UpdateStrategyType {
        self.settings
            .strategy
            .map_or(UpdateStrategyType::Update, |s| s.type_)
    }

    fn feedback(&self, live: Option<&Value>) -> Option<feedback::Feedback> {
        if self.settings.feedback.is_empty() {
            return None;
        }
        live.map(|object| feedback::evaluate(self.settings.feedback, object))
    }

    fn outcome(&self, report: Report, live: Option<&Value>, retry: Retry) -> Outcome {
        let text = |field: &str| {
            live.and_then(|l| l["metadata"][field].as_str())
                .map(str::to_owned)
        };
        Outcome {
            report,
            key: Some(self.key.clone()),
            served: Some(self.served.clone()),
            uid: text("uid").unwrap_or_default(),
            settled: text("resourceVersion"),
            retry,
        }
    }

    fn report(&self, meta: ManifestResourceMeta, applied: Applied, live: Option<&Value>) -> Report {
        Report {
            meta,
            applied,
            availability: if live.is_some() {
                Availability::Exists
            } else {
                Availability::Missing
            },
            feedback: self.feedback(live),
            unsupported_rules: self.settings.conditions.to_vec(),
        }
    }

    fn done(&self, meta: ManifestResourceMeta, live: Option<&Value>) -> Outcome {
        self.outcome(self.report(meta, Applied::Yes, live), live, Retry::No)
    }

    fn failed(&self, meta: ManifestResourceMeta, message: String, retry: Retry) -> Outcome {
        let applied = Applied::No {
            reason: reasons::APPLIED_MANIFEST_FAILED,
            message,
        };
        self.outcome(self.report(meta, applied, None), None, retry)
    }
}

fn unusable(meta: ManifestResourceMeta, message: String, retry: Retry) -> Outcome {
    let report = Report {
        meta,
        applied: Applied::No {
            reason: reasons::APPLIED_MANIFEST_FAILED,
            message: message.clone(),
        },
        availability: Availability::Unknown {
            reason: reasons::INCOMPLETE_RESOURCE_META,
            message,
        },
        feedback: None,
        unsupported_rules: Vec::new(),
    };
    Outcome {
        report,
        key: None,
        served: None,
        uid: String::new(),
        settled: None,
        retry,
    }
}

fn marks(owner: &Value, owns: bool) -> Marks {
    if owns {
        Marks {
            owner: Some(owner.clone()),
            disowned_uid: None,
        }
    } else {
        Marks {
            owner: None,
            disowned_uid: owner["uid"].as_str().map(str::to_owned),
        }
    }
}

fn applied_by(live: &Value, manager: &str) -> bool {
    live["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|e| e["manager"] == manager && e["operation"] == "Apply")
}
