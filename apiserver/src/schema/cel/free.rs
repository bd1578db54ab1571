//! Expressions that know no schema: admission policies and match conditions, over `object`, `request` and the like.
//!
//! `variables.x` is computed when it is first asked for. What an object makes an expression do is bounded while it runs:
//! every round of a loop is counted, weighed by how much there is to look at.

use super::authorizer;
use super::infer::{Infer, Ty, pointed, shown};
use super::known;
pub use super::messages::Unmade;
use super::messages::{self, OBJECT, PATCH};
pub use super::needs::Needs;
use super::nodes::untyped;
use super::rewrite::mapped;
use super::{LONGEST_MESSAGE, evaluate, parse};
use crate::auth::{Attributes, Authorizer, UserInfo};
use kube::core::cel::KubeCelExt as _;
use kube::core::cel::cel::common::ast::{CallExpr, Expr, LiteralValue};
use kube::core::cel::cel::context::VariableResolver;
use kube::core::cel::cel::objects::{Key, Map};
use kube::core::cel::cel::{Context, ExecutionError, IdedExpr, Value as Cel};
use serde_json::Value;
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

/// Work all expressions of one policy may do on one request: rounds of loops, by the size of their bodies and values.
const BUDGET: i64 = 20_000_000;
const TICK: &str = "@tick";
const OVER_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";
const REQUEST_RESOURCE: &str = "authorizer.requestResource";

static FUNCTIONS: LazyLock<Context<'static>> = LazyLock::new(|| {
    let mut context = Context::default().with_all();
    context.add_function(TICK, tick);
    authorizer::register(&mut context);
    super::functions::register(&mut context);
    context
});

thread_local! {
    /// What is left of the running evaluation's budget, and what one node of a loop's body costs.
    static LEFT: Cell<(i64, i64)> = const { Cell::new((0, 1)) };
}

/// Called before each round of a loop with its condition and the size of its body.
fn tick(condition: bool, nodes: i64) -> Result<Cel, ExecutionError> {
    let (left, unit) = LEFT.get();
    let left = left.saturating_sub(nodes.saturating_mul(unit));
    LEFT.set((left, unit));
    if left < 0 {
        return Err(ExecutionError::function_error(TICK, OVER_BUDGET));
    }
    Ok(Cel::Bool(condition))
}

/// What an expression is to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// Yes or no.
    Bool,
    /// Text.
    Text,
    /// Text, or null for none.
    TextOrNull,
    /// A part of an object, to be merged into one.
    Object,
    /// Operations of a JSON Patch.
    Patch,
    /// Any value.
    Anything,
}

impl Gives {
    /// Whether a type will do. One that is not known may do, but for what has to be constructed.
    fn allows(self, ty: &Ty) -> bool {
        let is_message = |ty: &Ty, name: &str| matches!(ty, Ty::Message(found) if **found == *name);
        match (self, ty) {
            (Self::Object, ty) => is_message(ty, OBJECT),
            (Self::Patch, Ty::List(item)) => is_message(item, PATCH),
            (Self::Patch, _) => false,
            (Self::Anything, _)
            | (_, Ty::Dyn)
            | (Self::Bool, Ty::Bool)
            | (Self::Text | Self::TextOrNull, Ty::String)
            | (Self::TextOrNull, Ty::Null) => true,
            _ => false,
        }
    }

    fn refusal(self) -> &'static str {
        match self {
            Self::Bool => "must evaluate to bool",
            Self::Text => "must evaluate to string",
            Self::Object => "must evaluate to Object",
            Self::Patch => "must evaluate to list(JSONPatch)",
            Self::TextOrNull | Self::Anything => "must evaluate to one of [string null_type]",
        }
    }
}

/// An expression that makes sense in its scope.
#[derive(Clone)]
pub struct Expression {
    text: Box<str>,
    ast: Arc<IdedExpr>,
    needs: Needs,
    ty: Ty,
    /// Its type is one that can not be known beforehand.
    dynamic: bool,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl Expression {
    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it looks at, the variables it uses aside.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }
}

/// The names expressions may use.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    names: Vec<&'static str>,
    variables: Vec<(Box<str>, Expression)>,
    constructs: bool,
    /// There is `variables`, also where there are none.
    composes: bool,
}

impl Scope {
    /// A scope with these names; `authorizer` brings `authorizer.requestResource` along.
    pub fn new(names: &[&'static str]) -> Self {
        Self {
            names: names.to_vec(),
            variables: Vec::new(),
            constructs: false,
            composes: false,
        }
    }

    /// The same with `variables`.
    #[must_use]
    pub fn composing(&self) -> Self {
        Self {
            composes: true,
            ..self.clone()
        }
    }

    /// The same without one of its names.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut rest = self.clone();
        rest.names.retain(|n| *n != name);
        rest
    }

    /// The same, for expressions that construct objects and patches.
    #[must_use]
    pub fn constructing(&self) -> Self {
        Self {
            constructs: true,
            ..self.clone()
        }
    }

    /// Adds `variables.<name>`, for the expressions that are compiled from here on.
    pub fn declare(&mut self, name: &str, text: &str) -> Result<(), String> {
        let expression = self.compile(text, Gives::Anything)?;
        self.variables.push((name.into(), expression));
        Ok(())
    }

    /// What the variables look at.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        for (_, variable) in &self.variables {
            needs.add(variable.needs());
        }
        needs
    }

    /// Compiles; the error is what Kubernetes' validation says about the expression.
    pub fn compile(&self, text: &str, gives: Gives) -> Result<Expression, String> {
        let failed = |e: String| format!("compilation failed: {e}");
        let parsed = parse(text).map_err(failed)?;
        let named = self.names_in((*parsed).clone(), text).map_err(failed)?;
        let lazy: Vec<String> = self
            .variables
            .iter()
            .map(|(name, _)| format!("variables.{name}"))
            .collect();
        let resource = self.names.contains(&"authorizer").then_some(REQUEST_RESOURCE);
        let names = self.names.iter().copied().chain(resource);
        let names = names.map(|name| (name, known::of(name)));
        let made = self.variables.iter().map(|(_, variable)| variable.ty.clone());
        let lazily = lazy.iter().map(String::as_str).zip(made);
        let mut infer = Infer::over(known::nodes(), text, names.chain(lazily));
        infer.constructs = self.constructs;
        let variables = lazy.iter().zip(&self.variables).filter(|(_, (_, v))| v.dynamic);
        infer.dynamic = known::DYNAMIC
            .iter()
            .map(|name| (*name).to_owned())
            .chain(variables.map(|(name, _)| name.clone()))
            .collect();
        let info = infer.expression(&named);
        if !infer.errors.is_empty() {
            return Err(failed(infer.errors.join("\n")));
        }
        let dynamic = infer.is_dynamic(&named);
        let ty = known::nodes().scalar(&info.ty);
        if !gives.allows(&ty) || dynamic && gives != Gives::Anything {
            let found = match ty {
                _ if dynamic => "dyn".to_owned(),
                Ty::Null => "null_type".to_owned(),
                ty => shown(&ty),
            };
            return Err(format!("{} but got {found}", gives.refusal()));
        }
        Ok(Expression {
            text: text.into(),
            needs: Needs::of(&named),
            ast: Arc::new(counted(named).0),
            // What a part of a request is is only known of the request itself.
            ty: if matches!(ty, Ty::Node(_)) { Ty::Dyn } else { ty },
            dynamic,
        })
    }

    /// `variables.x` and `authorizer.requestResource` as names of their own.
    fn names_in(&self, expression: IdedExpr, text: &str) -> Result<IdedExpr, String> {
        let id = expression.id;
        if let Expr::Select(select) = &expression.expr
            && let Expr::Ident(of) = &select.operand.expr
        {
            if of == "variables" && (self.composes || !self.variables.is_empty()) {
                if !self.variables.iter().any(|(name, _)| **name == *select.field) {
                    return Err(undefined(text, &select.field));
                }
                let expr = if select.test {
                    Expr::Literal(LiteralValue::Boolean(true.into()))
                } else {
                    Expr::Ident(format!("variables.{}", select.field))
                };
                return Ok(IdedExpr { id, expr });
            }
            if of == "authorizer" && select.field == "requestResource" && !select.test {
                let expr = Expr::Ident(REQUEST_RESOURCE.into());
                return Ok(IdedExpr { id, expr });
            }
        }
        mapped(expression, &mut |e| self.names_in(e, text))
    }
}

/// The error that there is no such variable.
fn undefined(source: &str, field: &str) -> String {
    let at = source
        .find(&format!("variables.{field}"))
        .map_or(0, |at| at + "variables".len());
    pointed(source, at, &format!("undefined field '{field}'"))
}

/// The expression with its loops counting their rounds, and its size.
fn counted(expression: IdedExpr) -> (IdedExpr, i64) {
    let mut size: i64 = 1;
    let counting = mapped(expression.clone(), &mut |part| {
        let (part, nodes) = counted(part);
        size += nodes;
        Ok(part)
    });
    let Ok(mut counting) = counting else {
        return (expression, size);
    };
    if let Expr::Comprehension(c) = &mut counting.expr {
        let condition = std::mem::take(&mut c.loop_cond);
        let nodes = IdedExpr {
            id: 0,
            expr: Expr::Literal(LiteralValue::Int(size.into())),
        };
        c.loop_cond = IdedExpr {
            id: 0,
            expr: Expr::Call(CallExpr {
                func_name: TICK.into(),
                target: None,
                args: vec![condition, nodes],
            }),
        };
    }
    (counting, size)
}

/// A value as expressions see it. Making one costs as much as the value is large; a copy costs nothing.
#[derive(Debug, Clone)]
pub struct Converted {
    value: Cel,
    weight: i64,
}

impl Converted {
    /// Of this value.
    pub fn of(value: &Value) -> Self {
        let (value, weight) = untyped(value);
        Self {
            value,
            weight: i64::from(weight),
        }
    }

    /// Of what is needed of an object.
    pub fn part(object: &Value, needs: &Needs) -> Self {
        let Value::Object(fields) = object else {
            return Self::of(object);
        };
        if needs.is_whole() {
            return Self::of(object);
        }
        let fields = fields.iter().filter(|(name, _)| needs.has(name));
        Self::map(fields.map(|(name, field)| match field {
            Value::Object(metadata) if name == "metadata" => {
                let metadata = metadata.iter().filter(|(name, _)| needs.has_metadata(name));
                (
                    name,
                    Self::map(metadata.map(|(name, field)| (name, Self::of(field)))),
                )
            }
            _ => (name, Self::of(field)),
        }))
    }

    fn map<'v>(fields: impl Iterator<Item = (&'v String, Self)>) -> Self {
        let (mut map, mut weight) = (HashMap::new(), 1);
        for (name, field) in fields {
            weight += field.weight;
            map.insert(Key::String(Arc::new(name.clone())), field.value);
        }
        Self {
            value: Cel::Map(Map { map: Arc::new(map) }),
            weight,
        }
    }
}

/// Names with their values, which many evaluations may share.
pub struct Given<'a> {
    values: Context<'a>,
    weight: i64,
}

impl Default for Given<'_> {
    fn default() -> Self {
        Self {
            values: FUNCTIONS.new_inner_scope(),
            weight: 0,
        }
    }
}

impl Given<'_> {
    /// Gives a name its value.
    pub fn give(&mut self, name: &str, converted: Converted) {
        self.weight += converted.weight;
        self.values.add_variable_from_value(name, converted.value);
    }

    /// Gives `authorizer` its value: questions about `user`, with the request itself as `requestResource`.
    pub fn set_authorizer(&mut self, authorizer: &Arc<Authorizer>, user: &UserInfo, request: Attributes) {
        self.values
            .add_variable_from_value("authorizer", authorizer::root(authorizer, user));
        let resource = authorizer::request_resource(authorizer, user, request);
        self.values.add_variable_from_value(REQUEST_RESOURCE, resource);
    }
}

/// The values of a scope's names for one request; runs its expressions.
pub struct Evaluation<'a> {
    given: Given<'a>,
    variables: &'a [(Box<str>, Expression)],
    computed: Vec<OnceLock<Result<Cel, String>>>,
    failure: Mutex<Option<String>>,
    left: Cell<i64>,
}

/// Computes variables when they are asked for.
struct Lazy<'a> {
    values: &'a Context<'a>,
    variables: &'a [(Box<str>, Expression)],
    computed: &'a [OnceLock<Result<Cel, String>>],
    failure: &'a Mutex<Option<String>>,
}

impl VariableResolver for Lazy<'_> {
    fn resolve(&self, variable: &str) -> Option<Cel> {
        let name = variable.strip_prefix("variables.")?;
        let at = self.variables.iter().position(|(n, _)| **n == *name)?;
        let made = self.computed.get(at)?.get_or_init(|| {
            // A variable sees those before it only, so this ends.
            let earlier = Lazy {
                variables: &self.variables[..at],
                ..*self
            };
            let mut scope = self.values.new_inner_scope();
            scope.set_variable_resolver(&earlier);
            evaluate(&self.variables[at].1.ast, &scope)
        });
        match made {
            Ok(value) => Some(value.clone()),
            Err(error) => {
                let message = format!("composited variable {name:?} fails to evaluate: {error}");
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
                None
            }
        }
    }
}

impl<'a> Evaluation<'a> {
    /// An evaluation of expressions of `scope`, whose names are still to be [given](Self::given).
    pub fn new(scope: &'a Scope) -> Self {
        Self::with(scope, Given::default())
    }

    /// One whose names have these values; more can be given.
    pub fn over(scope: &'a Scope, given: &'a Given<'_>) -> Self {
        let more = Given {
            values: given.values.new_inner_scope(),
            weight: given.weight,
        };
        Self::with(scope, more)
    }

    fn with(scope: &'a Scope, given: Given<'a>) -> Self {
        Self {
            given,
            variables: &scope.variables,
            computed: scope.variables.iter().map(|_| OnceLock::new()).collect(),
            failure: Mutex::default(),
            left: Cell::new(BUDGET),
        }
    }

    /// The names and their values.
    pub fn given(&mut self) -> &mut Given<'a> {
        &mut self.given
    }

    fn run(&self, expression: &Expression) -> Result<Cel, String> {
        if self.left.get() < 0 {
            return Err(OVER_BUDGET.into());
        }
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let lazy = Lazy {
            values: &self.given.values,
            variables: self.variables,
            computed: &self.computed,
            failure: &self.failure,
        };
        let mut scope = self.given.values.new_inner_scope();
        scope.set_variable_resolver(&lazy);
        LEFT.set((self.left.get(), 1 + self.given.weight / 256));
        let outcome = evaluate(&expression.ast, &scope);
        self.left.set(LEFT.get().0);
        if self.left.get() < 0 {
            return Err(OVER_BUDGET.into());
        }
        outcome.map_err(|error| {
            let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
            failure.unwrap_or(error)
        })
    }

    /// Runs an expression that gives yes or no.
    pub fn check(&self, expression: &Expression) -> Result<bool, String> {
        match self.run(expression)? {
            Cel::Bool(yes) => Ok(yes),
            _ => Err("expression did not evaluate to a bool".into()),
        }
    }

    /// Runs an expression that constructs a part of an object.
    pub fn object(&self, expression: &Expression) -> Result<Value, Unmade> {
        let made = self.run(expression).map_err(Unmade::Evaluation)?;
        messages::object(&made)
    }

    /// Runs an expression that constructs a JSON Patch: its operations.
    pub fn patch(&self, expression: &Expression) -> Result<Vec<Value>, Unmade> {
        let made = self.run(expression).map_err(Unmade::Evaluation)?;
        messages::patch(&made)
    }

    /// Runs an expression that makes a message. `None` when it does not make a usable one.
    pub fn message(&self, expression: &Expression) -> Option<String> {
        let Ok(Cel::String(text)) = self.run(expression) else {
            return None;
        };
        let text = text.trim();
        let usable = !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n');
        usable.then(|| text.to_owned())
    }
}

#[cfg(test)]
mod tests;
