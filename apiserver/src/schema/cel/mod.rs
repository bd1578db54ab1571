//! `x-kubernetes-validations`: rules in CEL (KEP-2876), compiled once per CRD version, run on each write.
//!
//! The `cel` crate has no type checker and counts no cost, so both are done here: [`infer`] finds undeclared fields and
//! names when a CRD is written, and bounds an evaluation by the sizes of the actual values before it starts.

mod authorizer;
mod compile;
mod cost;
pub mod free;
mod functions;
mod infer;
mod known;
mod messages;
mod needs;
mod nodes;
mod rewrite;
#[cfg(test)]
mod tests;

use super::Schema;
use crate::error::{FieldError, FieldErrorKind};
use compile::Compiler;
use cost::Total;
use infer::Infer;
use kube::core::cel::KubeCelExt as _;
use kube::core::cel::cel::objects::OptionalValue;
use kube::core::cel::cel::parser::Parser;
use kube::core::cel::cel::{Context, ExecutionError, IdedExpr, Value as Cel};
pub use nodes::RESERVED;
use nodes::{Nodes, Sizes};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

/// Longest rule or message expression, in bytes.
const LONGEST_EXPRESSION: usize = 16 << 10;
/// How deep an expression may be: parsing and all that follows go down by recursion.
const DEEPEST: usize = 500;
/// Longest message an expression may make, in bytes (apiextensions `MaxEvaluatedMessageExpressionSizeBytes`).
const LONGEST_MESSAGE: usize = 5 << 10;
/// Steps one rule may take on one value, by the bound computed beforehand.
const RULE_BUDGET: f64 = 5e6;
/// Steps all rules of an object may take together.
const OBJECT_BUDGET: f64 = 2e7;

static FUNCTIONS: LazyLock<Context<'static>> = LazyLock::new(|| {
    let mut context = Context::default().with_all();
    functions::register(&mut context);
    context
});

/// The compiled rules of a schema.
#[derive(Debug)]
pub struct Rules {
    nodes: Nodes,
}

/// One rule, ready to run.
#[derive(Debug)]
struct Compiled {
    source: super::Rule,
    rule: Arc<IdedExpr>,
    message: Option<Arc<IdedExpr>>,
    uses_old: bool,
}

/// Parses an expression; the error is what Kubernetes says after `compilation failed: `.
fn parse(text: &str) -> Result<Arc<IdedExpr>, String> {
    if text.len() > LONGEST_EXPRESSION {
        return Err(format!("expression is longer than {LONGEST_EXPRESSION} bytes"));
    }
    let depth = depth(text);
    if depth > DEEPEST {
        return Err(format!(
            "expression is {depth} operators deep, {DEEPEST} are allowed"
        ));
    }
    // The generated parser is not proven free of panics, and the text is a stranger's.
    match catch_unwind(|| Parser::default().enable_optional_syntax(true).parse(text)) {
        Ok(Ok(expression)) => rewrite::expanded(expression).map(Arc::new),
        Ok(Err(errors)) => {
            let errors: Vec<String> = errors.errors.iter().map(ToString::to_string).collect();
            Err(errors.join("\n").replace("\n| ", "\n | "))
        }
        Err(_) => Err("ERROR: <input>:1:1: Syntax error: the expression can not be parsed".into()),
    }
}

/// A bound for how deep an expression is: what is in brackets is below all that is beside it in the same ones, and chains of
/// operators and selections go down with every link.
fn depth(text: &str) -> usize {
    // Of each bracket that is open, what is in it so far; `above`: of all but the last.
    let (mut open, mut above, mut here, mut deepest) = (Vec::new(), 0, 0usize, 0);
    let mut quote = None;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match quote {
            Some(_) if byte == b'\\' => drop(bytes.next()),
            Some(end) if byte == end => quote = None,
            Some(_) => {}
            None => match byte {
                b'"' | b'\'' => quote = Some(byte),
                b'(' | b'[' | b'{' => {
                    open.push(here);
                    above += here;
                    here = 1;
                }
                b')' | b']' | b'}' => {
                    // `a[1][2]` is a chain as well.
                    let outer = open.pop().unwrap_or_default();
                    above -= outer;
                    here = outer + 1;
                }
                b',' => here = 1,
                _ if b".+-*/%&|?!<>=".contains(&byte) => here += 1,
                _ => {}
            },
        }
        deepest = deepest.max(above + here);
    }
    deepest
}

/// Whether expressions are refused that may cost too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// They are: a definition is being written.
    Bounded,
    /// They are not: the definition is there.
    Any,
}

impl Rules {
    /// Compiles all rules of a schema. `path` is where the schema stands in its CRD and begins the errors' paths.
    pub fn compile(schema: &Schema, path: &str, cost: Cost) -> Result<Rules, Vec<FieldError>> {
        let mut compiler = Compiler {
            errors: Vec::new(),
            programs: HashMap::new(),
            costs: (cost == Cost::Bounded).then(Total::default),
        };
        let nodes = Nodes::build(schema, path, &mut compiler);
        if let Some(costs) = compiler.costs.take() {
            compiler.errors.extend(costs.errors(path));
        }
        if compiler.errors.is_empty() {
            Ok(Rules { nodes })
        } else {
            Err(compiler.errors)
        }
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Runs the rules on an object that is valid otherwise. With `old`, transition rules run too, and rules without
    /// `oldSelf` are skipped where nothing changed.
    pub fn check(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut run = Run {
            nodes: &self.nodes,
            errors: Vec::new(),
            path: String::new(),
            budget: OBJECT_BUDGET,
        };
        run.node(0, new, old);
        run.errors
    }
}

/// The whole check of a custom resource: values, then rules when the values do not stand in their way.
pub fn validate_custom(schema: &Schema, rules: &Rules, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = super::validate::validate(schema, new, old, "");
    if !rules.is_empty() {
        match super::validate::unchecked_rules(&errors) {
            Some(unchecked) => errors.push(unchecked),
            None => errors.extend(rules.check(new, old)),
        }
    }
    errors
}

struct Run<'a> {
    nodes: &'a Nodes,
    errors: Vec<FieldError>,
    path: String,
    budget: f64,
}

impl Run<'_> {
    fn within(&mut self, segment: &str, body: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(if length == 0 {
            segment.strip_prefix('.').unwrap_or(segment)
        } else {
            segment
        });
        body(self);
        self.path.truncate(length);
    }

    fn node(&mut self, id: u32, new: &Value, old: Option<&Value>) {
        let node = self.nodes.at(id);
        if self.budget < 0.0 {
            return;
        }
        if !node.rules.is_empty() && !new.is_null() {
            self.rules(id, new, old);
        }
        if !node.rules_below {
            return;
        }
        match new {
            Value::Object(map) => {
                for (key, value) in map {
                    let old = old.and_then(|o| o.get(key));
                    if let Some(child) = node.property(key) {
                        self.within(&format!(".{key}"), |run| run.node(child, value, old));
                    } else if let Some(child) = node.additional {
                        self.within(&format!("[{key}]"), |run| run.node(child, value, old));
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = node.items else { return };
                let mut former = node.former(old);
                for (i, item) in list.iter().enumerate() {
                    let old = former.as_mut().and_then(|f| f.find(i, item));
                    self.within(&format!("[{i}]"), |run| run.node(items, item, old));
                }
            }
            _ => {}
        }
    }

    fn rules(&mut self, id: u32, new: &Value, old: Option<&Value>) {
        let node = self.nodes.at(id);
        let unchanged = old == Some(new);
        let mut sizes = Sizes::new(self.nodes);
        let this = self.nodes.convert(id, new, &mut sizes);
        let any_old = node.rules.iter().any(|r| r.uses_old);
        let before = old
            .filter(|_| any_old)
            .map(|o| self.nodes.convert(id, o, &mut sizes));
        let mut scope = FUNCTIONS.new_inner_scope();
        scope.add_variable_from_value("self", this);
        for rule in &node.rules {
            let optional = rule.source.optional_old_self;
            if rule.uses_old && before.is_none() && !optional || !rule.uses_old && unchanged {
                continue;
            }
            let mut scope = scope.new_inner_scope();
            if rule.uses_old {
                let value = match (&before, optional) {
                    (Some(before), false) => before.clone(),
                    (Some(before), true) => Cel::Opaque(Arc::new(OptionalValue::of(before.clone()))),
                    (None, _) => Cel::Opaque(Arc::new(OptionalValue::none())),
                };
                scope.add_variable_from_value("oldSelf", value);
            }
            let mut infer = Infer::new(self.nodes, id, optional, &rule.source.rule, Some(&sizes));
            let cost = infer.expression(&rule.rule).cost;
            self.budget -= cost;
            let outcome = if cost.is_nan() || cost > RULE_BUDGET || self.budget < 0.0 {
                Err("call cost exceeds limit for rule, no further validation rules will be run".to_owned())
            } else {
                evaluate(&rule.rule, &scope)
            };
            match outcome {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => {
                    let message = message(rule, &scope, self.nodes, id, &sizes);
                    self.fail(id, &rule.source, &message, new);
                }
                Ok(_) => self.broken(id, &rule.source, "rule did not evaluate to a bool"),
                Err(e) => self.broken(id, &rule.source, &e),
            }
            if self.budget < 0.0 {
                return;
            }
        }
    }

    fn field(&self) -> String {
        if self.path.is_empty() {
            "<nil>".into()
        } else {
            self.path.clone()
        }
    }

    /// A rule that could not be evaluated refuses the object.
    fn broken(&mut self, id: u32, rule: &super::Rule, error: &str) {
        // Not the value is shown, which may be large, but its type.
        let ty = self.nodes.type_name(id);
        let shown = rule.message.as_deref().unwrap_or(&rule.rule).trim();
        let message = if error.starts_with("No such overload") {
            format!(
                "Invalid value: {ty:?}: 'no such overload': call arguments did not match a supported operator, function or macro \
                 signature for rule: {shown}"
            )
        } else {
            format!("Invalid value: {ty:?}: {error} evaluating rule: {shown}")
        };
        self.errors
            .push(FieldError::new(FieldErrorKind::Invalid, self.field(), message));
    }

    fn fail(&mut self, id: u32, rule: &super::Rule, message: &str, value: &Value) {
        let mut field = self.path.clone();
        if let Some(Ok(relative)) = rule.field_path.as_ref().map(|p| self.nodes.field_path(id, p)) {
            let _ = write!(
                field,
                "{}",
                if field.is_empty() {
                    relative.trim_start_matches('.')
                } else {
                    &relative
                }
            );
        }
        if field.is_empty() {
            "<nil>".clone_into(&mut field);
        }
        let error = match rule.reason.as_deref() {
            Some("FieldValueForbidden") => FieldError::forbidden(field, message),
            Some("FieldValueRequired") => FieldError::required(field, message),
            Some("FieldValueDuplicate") => {
                FieldError::new(FieldErrorKind::Duplicate, field, "Duplicate value")
            }
            // Of what is no scalar the value is not shown: it may be large.
            _ if value.is_object() || value.is_array() => FieldError::new(
                FieldErrorKind::Invalid,
                field,
                format!("Invalid value: {message}"),
            ),
            _ => FieldError::invalid(field, value, message),
        };
        self.errors.push(error);
    }
}

/// The message of a rule that failed: made by its expression, or written in it, or the rule itself.
fn message(rule: &Compiled, scope: &Context<'_>, nodes: &Nodes, id: u32, sizes: &Sizes) -> String {
    if let (Some(expression), Some(text)) = (&rule.message, &rule.source.message_expression) {
        let mut infer = Infer::new(nodes, id, rule.source.optional_old_self, text, Some(sizes));
        if infer.expression(expression).cost <= RULE_BUDGET
            && let Ok(Cel::String(made)) = evaluate(expression, scope)
        {
            let made = made.trim();
            if !made.is_empty() && made.len() <= LONGEST_MESSAGE && !made.contains('\n') {
                return made.to_owned();
            }
        }
    }
    match &rule.source.message {
        Some(message) => message.trim().to_owned(),
        None => format!("failed rule: {}", rule.source.rule.trim()),
    }
}

fn evaluate(expression: &IdedExpr, scope: &Context<'_>) -> Result<Cel, String> {
    match catch_unwind(AssertUnwindSafe(|| Cel::resolve(expression, scope))) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(ExecutionError::NoSuchKey(key))) => Err(format!("no such key: {key}")),
        Ok(Err(ExecutionError::IndexOutOfBounds(index))) => Err(match index {
            Cel::Int(at) => format!("index out of bounds: {at}"),
            _ => "index out of bounds".into(),
        }),
        Ok(Err(ExecutionError::DivisionByZero(_))) => Err("division by zero".into()),
        Ok(Err(ExecutionError::Overflow(..))) => Err("integer overflow".into()),
        Ok(Err(ExecutionError::FunctionError { message, .. })) => Err(message),
        Ok(Err(error)) => {
            // Values may hold secrets and be large: only what went wrong is said.
            let text = error.to_string();
            Err(text
                .split([':', '{', '('])
                .next()
                .unwrap_or("evaluation failed")
                .trim()
                .to_owned())
        }
        Err(_) => Err("the evaluation failed".into()),
    }
}
