//! The authorizer as admission expressions ask it: `authorizer.group('apps').resource('deployments').check('create')
//! .allowed()` (apiserver `pkg/cel/library/authz.go`).

// Functions of expressions get their arguments by value.
#![allow(clippy::needless_pass_by_value)]

use super::infer::Ty;
use crate::auth::{Attributes, Authorizer, Decision, UserInfo};
use kube::core::cel::cel::extractors::This;
use kube::core::cel::cel::objects::Opaque;
use kube::core::cel::cel::{Context, ExecutionError, Value as Cel};
use std::fmt;
use std::sync::Arc;

const FUNCTIONS: [&str; 12] = [
    "path",
    "group",
    "serviceAccount",
    "resource",
    "subresource",
    "namespace",
    "name",
    "check",
    "allowed",
    "reason",
    "errored",
    "error",
];

/// Whether a method of this name belongs to the authorizer.
pub(super) fn is_authorizer_function(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

/// What one of them gives.
pub(super) fn answers(name: &str) -> Ty {
    match name {
        "allowed" | "errored" => Ty::Bool,
        "reason" | "error" => Ty::String,
        _ => Ty::Dyn,
    }
}

/// A question that is still being put together.
#[derive(Clone)]
pub(super) struct Question {
    authorizer: Arc<Authorizer>,
    user: UserInfo,
    about: Attributes,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody said yet what about.
    Open,
    /// A group is known, a resource is not.
    Group,
    /// Ready for a verb.
    Ready,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("user", &self.user.name)
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        self.user == other.user && self.about == other.about && self.stage == other.stage
    }
}

impl Eq for Question {}

impl Opaque for Question {
    fn runtime_type_name(&self) -> &'static str {
        "kubernetes.authorization.Authorizer"
    }
}

/// The answer to one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    allowed: bool,
    reason: String,
}

impl Opaque for Answer {
    fn runtime_type_name(&self) -> &'static str {
        "kubernetes.authorization.Decision"
    }
}

/// The value of `authorizer`.
pub(super) fn root(authorizer: &Arc<Authorizer>, user: &UserInfo) -> Cel {
    Cel::Opaque(Arc::new(Question {
        authorizer: Arc::clone(authorizer),
        user: user.clone(),
        about: Attributes::default(),
        stage: Stage::Open,
    }))
}

/// The value of `authorizer.requestResource`.
pub(super) fn request_resource(authorizer: &Arc<Authorizer>, user: &UserInfo, about: Attributes) -> Cel {
    Cel::Opaque(Arc::new(Question {
        authorizer: Arc::clone(authorizer),
        user: user.clone(),
        about,
        stage: Stage::Ready,
    }))
}

type Given = Result<Cel, ExecutionError>;

fn wrong(function: &str) -> ExecutionError {
    ExecutionError::function_error(function, "no such overload")
}

fn question<'a>(this: &'a Cel, function: &str) -> Result<&'a Question, ExecutionError> {
    match this {
        Cel::Opaque(opaque) => opaque.downcast_ref::<Question>().ok_or_else(|| wrong(function)),
        _ => Err(wrong(function)),
    }
}

fn step(this: &Cel, function: &str, from: Stage, change: impl FnOnce(&mut Question)) -> Given {
    let mut next = question(this, function)?.clone();
    if next.stage != from {
        return Err(wrong(function));
    }
    change(&mut next);
    Ok(Cel::Opaque(Arc::new(next)))
}

fn path(This(this): This<Cel>, path: Arc<String>) -> Given {
    if path.is_empty() {
        return Err(ExecutionError::function_error("path", "path must not be empty"));
    }
    step(&this, "path", Stage::Open, |q| {
        q.about.path = path.to_string();
        q.about.is_resource = false;
        q.stage = Stage::Ready;
    })
}

fn service_account(This(this): This<Cel>, namespace: Arc<String>, name: Arc<String>) -> Given {
    step(&this, "serviceAccount", Stage::Open, |q| {
        let groups = [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            crate::auth::ALL_AUTHENTICATED.to_owned(),
        ];
        q.user = UserInfo::new(format!("system:serviceaccount:{namespace}:{name}"), groups);
    })
}

fn group(This(this): This<Cel>, group: Arc<String>) -> Given {
    step(&this, "group", Stage::Open, |q| {
        q.about.group = group.to_string();
        q.stage = Stage::Group;
    })
}

fn resource(This(this): This<Cel>, resource: Arc<String>) -> Given {
    step(&this, "resource", Stage::Group, |q| {
        q.about.resource = resource.to_string();
        q.about.version = "*".into();
        q.about.is_resource = true;
        q.stage = Stage::Ready;
    })
}

fn narrowed(this: &Cel, function: &str, change: impl FnOnce(&mut Attributes)) -> Given {
    if !question(this, function)?.about.is_resource {
        return Err(wrong(function));
    }
    step(this, function, Stage::Ready, |q| change(&mut q.about))
}

fn subresource(This(this): This<Cel>, subresource: Arc<String>) -> Given {
    narrowed(&this, "subresource", |a| a.subresource = subresource.to_string())
}

fn namespace(This(this): This<Cel>, namespace: Arc<String>) -> Given {
    narrowed(&this, "namespace", |a| a.namespace = namespace.to_string())
}

fn name(This(this): This<Cel>, name: Arc<String>) -> Given {
    narrowed(&this, "name", |a| a.name = name.to_string())
}

fn check(This(this): This<Cel>, verb: Arc<String>) -> Given {
    let question = question(&this, "check")?;
    if question.stage != Stage::Ready {
        return Err(wrong("check"));
    }
    let about = Attributes {
        verb: verb.to_string(),
        ..question.about.clone()
    };
    let (allowed, reason) = match question.authorizer.authorize(&question.user, &about) {
        Decision::Allowed(reason) => (true, reason),
        Decision::NoOpinion(reason) => (false, reason),
    };
    Ok(Cel::Opaque(Arc::new(Answer { allowed, reason })))
}

fn answer<'a>(this: &'a Cel, function: &str) -> Result<&'a Answer, ExecutionError> {
    match this {
        Cel::Opaque(opaque) => opaque.downcast_ref::<Answer>().ok_or_else(|| wrong(function)),
        _ => Err(wrong(function)),
    }
}

fn allowed(This(this): This<Cel>) -> Given {
    Ok(Cel::Bool(answer(&this, "allowed")?.allowed))
}

fn reason(This(this): This<Cel>) -> Given {
    Ok(Cel::String(Arc::new(answer(&this, "reason")?.reason.clone())))
}

/// RBAC always comes to a decision; what it could not read is in the reason of a no.
fn errored(This(this): This<Cel>) -> Given {
    answer(&this, "errored").map(|_| Cel::Bool(false))
}

fn error(This(this): This<Cel>) -> Given {
    answer(&this, "error").map(|_| Cel::String(Arc::default()))
}

/// Adds the methods to a root context.
pub(super) fn register(context: &mut Context<'_>) {
    context.add_function("path", path);
    context.add_function("group", group);
    context.add_function("serviceAccount", service_account);
    context.add_function("resource", resource);
    context.add_function("subresource", subresource);
    context.add_function("namespace", namespace);
    context.add_function("name", name);
    context.add_function("check", check);
    context.add_function("allowed", allowed);
    context.add_function("reason", reason);
    context.add_function("errored", errored);
    context.add_function("error", error);
}
