//! Brings one object to what its manifest says. Everything that can go wrong with it becomes part of its own report, so
//! that the other manifests of the work go on.
//!
//! Here is the way from a manifest to its outcome; `update` and `ssa` write, `executor` says whether that is allowed,
//! `target` is what is to be brought about. `rehearse` goes the same way without effect.

mod executor;
mod poll;
mod rehearse;
mod rights;
mod ssa;
mod target;
mod turns;
mod update;

use super::applied;
use super::bounded;
use super::contention::Contention;
use super::difference::{self, Difference};
use super::drift::{self, Decision, Marks};
use super::feedback::RawLimit;
use super::manifest::{self, Identity};
use super::objects::{self, Mapper, RequestError, Served};
use super::policy::{self, Drift, Policy, TakeOver};
use super::settings;
use super::state::{Known, ObjectKey, State};
use super::status::{Applied, Report};
use super::watches::{Coverage, Sight, Watches};
use crate::limits::Server;
use muster_crds::constants::reasons;
use muster_crds::work::v1::{ManifestResourceMeta, ManifestWork, UpdateStrategyType};
use muster_observe::prometheus_client::metrics::counter::Counter;
pub use rehearse::{Effect, Rehearsed};
use rights::Rights;
pub use rights::{KINDS as KINDS_OF_RIGHTS, ONCE_MORE};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use target::{Target, unusable};
use tokio::time::Instant;
use turns::Turns;

/// How long a first look waits for the kind's watch; after that it asks for the object alone.
const WATCH_PATIENCE: Duration = Duration::from_secs(3);
/// Somebody else may write at the same moment; more often than this in a row is left to the queue's back-off.
const CONFLICT_RETRIES: usize = 5;

/// What applying needs of the agent.
pub struct Applier {
    /// The managed cluster.
    pub spoke: Server,
    /// Kinds the cluster serves.
    pub mapper: Arc<Mapper>,
    /// Drift watches.
    pub watches: Watches,
    /// What they saw.
    pub state: Arc<Mutex<State>>,
    /// Whether feedback may be raw JSON, and how much.
    pub raw: RawLimit,
    /// Whether executors' objects are written as the executor itself.
    pub impersonate: bool,
    /// Counts what was changed on the cluster and is put back.
    pub repairs: Counter,
    /// What executors may do, as far as it is known.
    rights: Mutex<Rights>,
    /// What is being applied.
    turns: Turns,
}

/// One manifest to look at.
#[derive(Debug)]
pub struct Look {
    /// Its index in the work.
    pub ordinal: usize,
    /// This agent has applied the very same manifest before.
    pub trusted: bool,
    /// It was applied at the work's present generation.
    pub applied: bool,
    /// An earlier manifest of the same work that names the same object.
    pub twin: Option<usize>,
    /// It is complete: it is not applied any more, only looked at (wire §3.5).
    pub complete: bool,
    /// The fight over it.
    pub contention: Contention,
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
    /// The fight over it, if there is one.
    pub contention: Contention,
    /// Its executor may not see it, or that is not known: nothing of it is told.
    pub blind: bool,
}

/// How it came out.
enum Came {
    /// It is what it should be.
    Settled(Option<Arc<Value>>),
    /// It was only looked at.
    Seen(Option<Arc<Value>>),
    /// It may differ, and is left so; how it differs is told.
    Reported(Option<Arc<Value>>, Vec<Difference>),
    /// It is being deleted; what is to be done comes after.
    Terminating(Arc<Value>),
    /// It belongs to somebody else, and is left alone.
    NotTakenOver(Arc<Value>, String),
    /// It drifted again and again, and is not repaired before this time has passed.
    Contended(Option<Arc<Value>>, Duration),
}

impl Applier {
    /// Nothing is known yet.
    pub fn new(
        spoke: Server,
        watches: Watches,
        state: Arc<Mutex<State>>,
        raw: RawLimit,
        impersonate: bool,
        repairs: Counter,
    ) -> Self {
        Self {
            spoke,
            mapper: Arc::default(),
            watches,
            state,
            raw,
            impersonate,
            repairs,
            rights: Mutex::default(),
            turns: Turns::default(),
        }
    }

    /// What is known of executors' rights.
    pub fn with_rights<T>(&self, f: impl FnOnce(&mut Rights) -> T) -> T {
        f(&mut self.rights.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the cluster serves of a group may be another now: it is found out anew.
    pub fn forget_group(&self, group: &str) {
        self.mapper.forget_group(group);
        self.watches.hurry(group);
    }

    /// What one manifest of a work is about; the outcome at once where it names no object that the cluster could have.
    async fn target<'a>(
        &self,
        work: &'a ManifestWork,
        ordinal: usize,
        contention: Contention,
        owner: &Value,
    ) -> Result<Target<'a>, Outcome> {
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
            return Err(unusable(meta, problem.to_owned(), Retry::No));
        }
        let served = match self.mapper.resolve(&self.spoke, &identity).await {
            Ok(served) => served,
            Err(error) => return Err(unusable(meta, error.to_string(), Retry::Backoff)),
        };
        meta.resource.clone_from(&served.plural);
        let mut required = manifest::required(manifest);
        if served.namespaced && identity.namespace.is_empty() {
            manifest::DEFAULT_NAMESPACE.clone_into(&mut meta.namespace);
            required["metadata"]["namespace"] = manifest::DEFAULT_NAMESPACE.into();
        } else if !served.namespaced {
            meta.namespace.clear();
            if let Some(metadata) = required["metadata"].as_object_mut() {
                metadata.remove("namespace");
            }
        }
        let owns = settings::owns(&work.spec, &meta);
        let spoke = self.spoke.of(work.metadata.name.as_deref().unwrap_or_default());
        Ok(Target {
            path: served.object(&meta.namespace, &meta.name),
            collection: served.collection(&meta.namespace),
            required,
            marks: marks(owner, owns),
            owns,
            settings: settings::settings(&work.spec.manifest_configs, &meta),
            key: ObjectKey {
                group: served.group.clone(),
                resource: served.plural.clone(),
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
            },
            rivals: Vec::new(),
            served,
            writer: spoke.clone(),
            spoke,
            // Until it is known what the executor may see.
            blind: work.spec.executor.is_some(),
            policy: Policy::default(),
            raw: self.raw,
            repairs: self.repairs.clone(),
            contention: Mutex::new(contention),
            meta,
        })
    }

    /// Applies one manifest of a work. `owner` is the work's AppliedManifestWork as an owner reference.
    pub async fn apply(&self, work: &ManifestWork, look: Look, owner: &Value) -> Outcome {
        let mut target = match self
            .target(work, look.ordinal, look.contention.clone(), owner)
            .await
        {
            Ok(target) => target,
            Err(outcome) => return outcome,
        };
        let name = work.metadata.name.as_deref().unwrap_or_default();
        target.rivals =
            self.state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .own(&target.key, name, look.ordinal);
        if (look.twin.is_some() || look.complete)
            && let Some(account) = executor::account(work.spec.executor.as_ref())
        {
            target.blind = match account {
                Err(_) => true,
                Ok(account) => match self.executor_may_get(account, &target).await {
                    Ok(may) => !may,
                    Err(error) => return target.unread(Applied::Kept, &error, Retry::Backoff),
                },
            };
        }
        if let Some(twin) = look.twin {
            let problem = format!(
                "duplicate manifest for resource {}/{} with resource type {}/{}: manifest {twin} of the work is applied",
                target.key.namespace, target.key.name, target.key.group, target.key.resource
            );
            let retry = if target.blind {
                self.not_allowed()
            } else {
                Retry::No
            };
            return self
                .failed(&target, reasons::APPLIED_MANIFEST_FAILED, problem, retry)
                .await;
        }
        if look.complete {
            return match self.observe(&target).await {
                Ok(live) => {
                    let mut outcome = target.outcome(Came::Seen(live)).await;
                    self.poll(&target, &mut outcome).await;
                    if target.blind {
                        outcome.retry = self.not_allowed();
                    }
                    outcome
                }
                Err(error) if error.is_unserved() => self.unserved(target),
                Err(error) => target.unread(Applied::Kept, &error, Retry::Backoff),
            };
        }
        if let Some((problem, retry)) = self.unlicensed(work, &mut target).await {
            return self
                .failed(&target, reasons::APPLIED_MANIFEST_FAILED, problem, retry)
                .await;
        }
        match self.bring_about(&target, &look).await {
            Ok(came) => {
                let mut outcome = target.outcome(came).await;
                self.poll(&target, &mut outcome).await;
                outcome
            }
            Err(Failure::Request(error)) if error.is_unserved() => self.unserved(target),
            Err(Failure::Request(error)) => {
                // A field of another manager needs a person, not a retry (wire §3.2).
                let retry = if error.is_field_conflict() {
                    // Or that the other lets go of it, also where the object has no label of ours yet.
                    self.watch_alone(&target);
                    Retry::No
                } else {
                    Retry::Backoff
                };
                self.failed(
                    &target,
                    reasons::APPLIED_MANIFEST_FAILED,
                    error.to_string(),
                    retry,
                )
                .await
            }
            Err(Failure::IgnoreFields(problem)) => {
                let reason = reasons::APPLIED_MANIFEST_SSA_IGNORE_FIELD_ERROR;
                self.failed(&target, reason, problem, Retry::After(bounded::PENALTY))
                    .await
            }
        }
    }

    /// Whether the work's annotations and executor let it be applied; why not, and when to come again.
    async fn unlicensed(&self, work: &ManifestWork, target: &mut Target<'_>) -> Option<(String, Retry)> {
        match Policy::of(work.metadata.annotations.as_ref()) {
            Ok(policy) => target.policy = policy,
            Err(problem) => return Some((problem, Retry::No)),
        }
        let account = match executor::account(work.spec.executor.as_ref())? {
            Ok(account) => account,
            Err(problem) => {
                target.blind = true;
                return Some((problem.to_owned(), Retry::No));
            }
        };
        // What it may not see is not told to who speaks through it.
        let may = self.executor_may(account, target, target.owns).await;
        target.blind = match &may {
            Ok(None) => false,
            Ok(Some(denied)) => !denied.may_get,
            Err(_) => true,
        };
        match may {
            Ok(None) if self.impersonate => {
                let Some(writer) = executor::impersonating(&target.writer, account) else {
                    return Some(("the executor is no service account".to_owned(), Retry::No));
                };
                target.writer = writer;
                None
            }
            Ok(None) => None,
            Ok(Some(denied)) => Some((denied.why, self.not_allowed())),
            Err(error) => Some((error.to_string(), Retry::Backoff)),
        }
    }

    /// When what an executor may not do is tried again.
    fn not_allowed(&self) -> Retry {
        Retry::After(self.with_rights(|r| r.ask_again(Instant::now())))
    }

    async fn bring_about(&self, target: &Target<'_>, look: &Look) -> Result<Came, Failure> {
        let strategy = target.strategy();
        if strategy == UpdateStrategyType::ReadOnly {
            self.watch_alone(target);
            return Ok(Came::Settled(self.let_go(target).await?));
        }
        match target.policy.drift {
            Drift::Report if look.applied => return self.report_drift(target, look).await,
            Drift::Once if look.applied => return Ok(Came::Settled(self.observe(target).await?)),
            _ => {}
        }
        match strategy {
            UpdateStrategyType::ServerSideApply => self.server_side_apply(target, look).await,
            _ => self.update(target, look).await,
        }
    }

    /// Only says how the object differs from its manifest.
    async fn report_drift(&self, target: &Target<'_>, look: &Look) -> Result<Came, Failure> {
        let Some(live) = self.observe(target).await? else {
            let missing = Difference {
                path: vec!["the object".into()],
                is: None,
                should: None,
            };
            return Ok(Came::Reported(None, vec![missing]));
        };
        let wanted = match target.strategy() {
            UpdateStrategyType::Update => match drift::decide(&target.required, &live, &target.marks) {
                Decision::Replace(wanted) => Some(wanted),
                Decision::ReplaceIfOther(wanted, doubt)
                    if self.would_change(target, &live, &wanted, doubt).await? =>
                {
                    Some(wanted)
                }
                Decision::Keep | Decision::ReplaceIfOther(..) => None,
                Decision::Recreate => Some(target.required.clone()),
            },
            UpdateStrategyType::ServerSideApply => self.foreseen(target, &live, look.trusted).await?,
            UpdateStrategyType::CreateOnly | UpdateStrategyType::ReadOnly => None,
        };
        let found = wanted
            .map(|w| difference::differences(&live, &w))
            .unwrap_or_default();
        Ok(Came::Reported(Some(live), found))
    }

    /// What exists, without writing.
    async fn observe(&self, target: &Target<'_>) -> Result<Option<Arc<Value>>, RequestError> {
        match self.known(target).await {
            Known::Object(object) => Ok(Some(object)),
            // Without our label the kind's watch does not see it.
            Known::Absent | Known::Unknown => {
                let live = self.fetch(target).await?;
                if live.as_ref().is_none_or(|l| !policy::is_labelled(l)) {
                    self.watch_alone(target);
                }
                Ok(live)
            }
        }
    }

    /// The same by the server's word.
    async fn observe_anew(&self, target: &Target<'_>) -> Result<Option<Arc<Value>>, RequestError> {
        // So that what is seen of it is taken as seen, and its kind is watched.
        let _ = self.known(target).await;
        let live = self.fetch(target).await?;
        if live.as_ref().is_some_and(|l| !policy::is_labelled(l)) {
            self.watch_alone(target);
        }
        Ok(live)
    }

    /// What exists of a `ReadOnly` manifest. Under another strategy the work may have owned it: with the work's record as an
    /// owner it would end with the work, and `ReadOnly` objects are never deleted (wire §3.7).
    async fn let_go(&self, target: &Target<'_>) -> Result<Option<Arc<Value>>, RequestError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let Some(live) = self.fetch(target).await? else {
                return Ok(None);
            };
            let Some(record) = target.marks.record().filter(|r| applied::is_owned(&live, r)) else {
                return Ok(Some(live));
            };
            // The record is the agent's own, whoever the executor is.
            let let_go = applied::disown(&target.spoke, &target.path, Value::clone(&live), record).await;
            match let_go {
                Ok(object) => return Ok(Some(Arc::new(object))),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) if error.is_conflict() && tries < CONFLICT_RETRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// An object that is to outlive its work must not be owned by it, also where its manifest can not be applied: it would go
    /// with the work.
    async fn let_outlive(
        &self,
        target: &Target<'_>,
        live: Option<Arc<Value>>,
    ) -> Result<Option<Arc<Value>>, RequestError> {
        let record = target.marks.record();
        match (&live, record.filter(|_| !target.owns && !target.is_rehearsal())) {
            (Some(object), Some(record)) if applied::is_owned(object, record) => {
                let object = Value::clone(object);
                let object = applied::disown(&target.spoke, &target.path, object, record).await?;
                Ok(Some(Arc::new(object)))
            }
            _ => Ok(live),
        }
    }

    /// Makes sure that changes of an object that does not carry our label are noticed.
    fn watch_alone(&self, target: &Target<'_>) {
        if target.is_rehearsal() {
            return;
        }
        let scope = Coverage::Named(target.key.namespace.clone(), target.key.name.clone());
        self.watches.ensure(&target.served, scope);
    }

    /// Why an existing object must not be touched, if it must not.
    async fn hands_off(&self, target: &Target<'_>, live: &Arc<Value>) -> Result<Option<Came>, Failure> {
        if !live["metadata"]["deletionTimestamp"].is_null() {
            // Its end is an event, and then it is made again at once.
            if !policy::is_labelled(live) {
                self.watch_alone(target);
            }
            return Ok(Some(Came::Terminating(live.clone())));
        }
        if target.policy.take_over == TakeOver::Always || policy::is_ours(live) {
            return Ok(None);
        }
        let why = match target.policy.take_over {
            TakeOver::Always => return Ok(None),
            TakeOver::Never => "it exists and is not ours, and take-over is Never".to_owned(),
            TakeOver::IfNoDiff => {
                let found = self.would_differ(target, live).await?;
                if found.is_empty() {
                    return Ok(None);
                }
                format!(
                    "it exists, is not ours and differs, and take-over is IfNoDiff: {}",
                    difference::told(&found)
                )
            }
        };
        self.watch_alone(target);
        Ok(Some(Came::NotTakenOver(live.clone(), why)))
    }

    /// What taking an object over would change of it, but for the marks and the owner that it gets.
    async fn would_differ(&self, target: &Target<'_>, live: &Value) -> Result<Vec<Difference>, Failure> {
        match target.strategy() {
            UpdateStrategyType::Update => {}
            UpdateStrategyType::ServerSideApply => {
                let new = self.foreseen(target, live, false).await?;
                return Ok(new
                    .map(|new| difference::differences(live, &new))
                    .unwrap_or_default());
            }
            // Its content is never written.
            UpdateStrategyType::CreateOnly | UpdateStrategyType::ReadOnly => return Ok(Vec::new()),
        }
        let new = match drift::decide(&target.required, live, &target.marks) {
            Decision::Keep => return Ok(Vec::new()),
            Decision::Recreate => drift::created(&target.required, &target.marks),
            Decision::Replace(new) | Decision::ReplaceIfOther(new, _) => {
                if difference::differences(live, &new).is_empty() {
                    return Ok(Vec::new());
                }
                // What the manifest leaves out of a list may be the server's default, which only the server knows.
                match objects::replace(&target.writer.dry(), &target.path, &new).await {
                    Ok(made) => made,
                    Err(error) if matches!(error.code(), 400 | 403 | 422) => new,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        Ok(difference::differences(live, &new))
    }

    /// Whether the watch of a kind has seen all that is there, which it is given a moment for; starts it when it is the
    /// first of its kind.
    pub async fn saw(&self, served: &Arc<Served>) -> bool {
        self.sight(served, Coverage::Labelled).await == Sight::All
    }

    /// How far a watch is, which it is given a moment for.
    async fn sight(&self, served: &Arc<Served>, scope: Coverage) -> Sight {
        let mut sight = self.watches.ensure(served, scope);
        let known = tokio::time::timeout(WATCH_PATIENCE, sight.wait_for(|s| *s != Sight::Not)).await;
        known.ok().and_then(Result::ok).map_or(Sight::Not, |s| *s)
    }

    /// What the drift watch knows.
    async fn known(&self, target: &Target<'_>) -> Known {
        if target.is_rehearsal() {
            return Known::Unknown;
        }
        if !self.saw(&target.served).await {
            return Known::Unknown;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.look(&target.key, &target.required["apiVersion"])
    }

    /// As it was seen last, if that is not long ago and a watch would say that it is another now.
    fn last_seen(&self, target: &Target<'_>) -> Option<Arc<Value>> {
        let is_watched = || *self.watches.ensure(&target.served, Coverage::Labelled).borrow() == Sight::All;
        if target.is_rehearsal() || !is_watched() {
            return None;
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last_seen(&target.key, &target.required["apiVersion"])
    }

    /// The answer to a write says how the object is now.
    fn wrote(&self, target: &Target<'_>, object: &Value) {
        if !target.is_rehearsal() {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.wrote(&target.key, object);
        }
    }

    /// The resource is not where it was: its definition is gone, or was made anew with another plural or scope.
    fn unserved(&self, target: Target<'_>) -> Outcome {
        self.forget_group(&target.served.group);
        let mut meta = target.meta;
        meta.resource.clear();
        let error = RequestError::UnknownKind(meta.kind.clone());
        unusable(meta, error.to_string(), Retry::Backoff)
    }

    async fn fetch(&self, target: &Target<'_>) -> Result<Option<Arc<Value>>, RequestError> {
        match objects::get(&target.spoke, &target.path).await {
            Ok(object) => Ok(Some(Arc::new(object))),
            Err(error) if error.is_unserved() => Err(error),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The manifest was not applied; what exists is reported all the same.
    async fn failed(
        &self,
        target: &Target<'_>,
        reason: &'static str,
        message: String,
        retry: Retry,
    ) -> Outcome {
        let applied = Applied::No { reason, message };
        match self.fetch(target).await {
            Ok(live) => {
                let (live, retry) = match self.let_outlive(target, live.clone()).await {
                    Ok(live) => (live, retry),
                    Err(error) => {
                        tracing::debug!(object = target.path, %error, "the work still owns it");
                        (live, Retry::Backoff)
                    }
                };
                let mut outcome = target.outcome_as(applied, live, retry).await;
                // It may have become so since it was judged: if a watch tells of just this version, it is judged again.
                outcome.settled = None;
                outcome
            }
            // Whatever the manifest waits for, what there is has to be read.
            Err(error) => target.unread(applied, &error, Retry::Backoff),
        }
    }
}

enum Failure {
    Request(RequestError),
    IgnoreFields(String),
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

fn marks(owner: &Value, owns: bool) -> Marks {
    if owner.is_null() {
        Marks::default()
    } else if owns {
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
