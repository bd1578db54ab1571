//! Types of expressions and what evaluating them costs at most.
//!
//! With a CRD at hand only types matter: undeclared names and fields are errors. With an object at hand its sizes give a
//! bound on the steps an evaluation takes, in the interpreter's way of working: it copies what it selects and iterates.

mod calls;
mod literals;
mod operators;
mod optionals;
mod pairs;

use super::authorizer::{answers, is_authorizer_function};
use super::functions::{is_function, returns};
use super::messages::ESCAPE;
use super::nodes::{Nodes, Sizes};
use super::rewrite::optional::taken_field;
use kube::core::cel::cel::IdedExpr;
use kube::core::cel::cel::common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue};
use operators::definite;

/// A type, as far as it is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ty {
    /// Anything.
    Dyn,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Null,
    Timestamp,
    Duration,
    /// The values at a node of the schema.
    Node(u32),
    List(Box<Ty>),
    /// Keys and values of a map that is written out.
    Map(Box<Ty>, Box<Ty>),
    /// `Object.spec` and the like.
    Message(Box<str>),
    Optional(Box<Ty>),
    /// An index or key with its value.
    Pair(Box<Ty>, Box<Ty>),
}

/// What is known of an expression's value and of its evaluation.
#[derive(Debug, Clone)]
pub(super) struct Info {
    pub(super) ty: Ty,
    /// Items or characters, at most.
    length: f64,
    /// Values inside, at most: what a copy costs.
    weight: f64,
    /// Steps to get it, at most.
    pub(super) cost: f64,
}

pub(super) struct Infer<'a> {
    nodes: &'a Nodes,
    sizes: Option<&'a Sizes>,
    source: &'a str,
    scope: Vec<(String, Info)>,
    /// Objects and patches may be constructed.
    pub(super) constructs: bool,
    /// Names of which it is known that nothing can be known of their types.
    pub(super) dynamic: Vec<String>,
    pub(super) errors: Vec<String>,
}

impl Info {
    fn scalar(ty: Ty, cost: f64) -> Self {
        Self {
            ty,
            length: 1.0,
            weight: 1.0,
            cost,
        }
    }
}

impl<'a> Infer<'a> {
    /// For an expression about the values at node `id`, with their sizes when there are values.
    pub(super) fn new(
        nodes: &'a Nodes,
        id: u32,
        optional_old: bool,
        source: &'a str,
        sizes: Option<&'a Sizes>,
    ) -> Self {
        let mut this = Self {
            nodes,
            sizes,
            source,
            scope: Vec::new(),
            constructs: false,
            dynamic: Vec::new(),
            errors: Vec::new(),
        };
        let (length, weight) = this.size(&Ty::Node(id));
        let info = |ty| Info {
            ty,
            length,
            weight,
            cost: 1.0,
        };
        this.scope.push(("self".into(), info(Ty::Node(id))));
        let old = if optional_old {
            Ty::Optional(Box::new(Ty::Node(id)))
        } else {
            Ty::Node(id)
        };
        this.scope.push(("oldSelf".into(), info(old)));
        this
    }

    /// For an expression over names with these types.
    pub(super) fn over<'n>(
        nodes: &'a Nodes,
        source: &'a str,
        names: impl Iterator<Item = (&'n str, Ty)>,
    ) -> Self {
        Self {
            nodes,
            sizes: None,
            source,
            scope: names
                .map(|(name, ty)| (name.to_owned(), Info::scalar(ty, 1.0)))
                .collect(),
            constructs: false,
            dynamic: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn size(&self, ty: &Ty) -> (f64, f64) {
        let Some(sizes) = self.sizes else {
            return (0.0, 1.0);
        };
        match ty {
            Ty::Node(id) => {
                let (length, weight) = sizes.of(*id);
                if self.nodes.scalar(ty) == Ty::Dyn || self.nodes.indexed(*id) == Ty::Dyn {
                    let free = sizes.free();
                    return (length.max(free.0), weight.max(free.1));
                }
                (length, weight)
            }
            Ty::Optional(inner) => self.size(inner),
            Ty::Dyn | Ty::List(_) | Ty::Map(..) | Ty::Message(_) | Ty::String | Ty::Pair(..) => sizes.free(),
            _ => (1.0, 1.0),
        }
    }

    fn of(&self, ty: Ty, cost: f64) -> Info {
        let (length, weight) = self.size(&ty);
        Info {
            ty,
            length,
            weight,
            cost: cost + weight,
        }
    }

    /// Says what is wrong with the place in the source where `at` stands.
    fn error(&mut self, at: &str, message: &str) {
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let whole = |start: usize| {
            let before = self.source[..start].chars().next_back();
            let after = self.source[start + at.len()..].chars().next();
            let starts = at.starts_with(name) && before.is_some_and(name);
            let ends = at.ends_with(name) && after.is_some_and(name);
            !(starts || ends)
        };
        let start = self
            .source
            .match_indices(at)
            .map(|(i, _)| i)
            .find(|i| whole(*i))
            .unwrap_or(0);
        self.error_from(start, message);
    }

    /// Says what is wrong with what begins there in the source.
    fn error_from(&mut self, start: usize, message: &str) {
        self.errors.push(pointed(self.source, start, message));
    }

    pub(super) fn expression(&mut self, expression: &IdedExpr) -> Info {
        match &expression.expr {
            Expr::Unspecified | Expr::Struct(_) => Info::scalar(Ty::Dyn, 1.0),
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Info::scalar(Ty::Bool, 1.0),
                LiteralValue::Bytes(_) => Info::scalar(Ty::Bytes, 1.0),
                LiteralValue::Double(_) => Info::scalar(Ty::Double, 1.0),
                LiteralValue::Int(_) => Info::scalar(Ty::Int, 1.0),
                LiteralValue::Null => Info::scalar(Ty::Null, 1.0),
                LiteralValue::UInt(_) => Info::scalar(Ty::Uint, 1.0),
                LiteralValue::String(text) => Info {
                    length: length(text.inner().len()),
                    ..Info::scalar(Ty::String, 1.0)
                },
            },
            Expr::Ident(name) => self.ident(name),
            Expr::Select(select) => {
                let operand = self.expression(&select.operand);
                let before = self.errors.len();
                let field = self.select(&operand, &select.field);
                if !select.test {
                    return field;
                }
                let error = self.errors.drain(before..).next();
                if let Some(error) = error {
                    // What is tested is pointed at by the test.
                    let line = error.lines().next().unwrap_or_default();
                    let message = line.splitn(5, ':').nth(4).unwrap_or_default().trim().to_owned();
                    let has = self.source.find("has(").map_or(0, |at| at + 3);
                    self.error_from(has, &message);
                }
                Info::scalar(Ty::Bool, operand.cost + 1.0)
            }
            // What is made of a loop may hold anything.
            Expr::List(list) => self.list(list, expression.id != 0),
            Expr::Map(map) => self.map(map),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Call(call) => self.call(call),
        }
    }

    fn ident(&mut self, name: &str) -> Info {
        if let Some((_, info)) = self.scope.iter().rev().find(|(n, _)| n == name) {
            return Info {
                cost: 1.0,
                ..info.clone()
            };
        }
        self.error(
            name,
            &format!("undeclared reference to '{name}' (in container '')"),
        );
        Info::scalar(Ty::Dyn, 1.0)
    }

    fn select(&mut self, operand: &Info, field: &str) -> Info {
        let cost = operand.cost + 1.0;
        match self.nodes.scalar(&operand.ty) {
            Ty::Node(id) => match (self.nodes.field(id, field), self.nodes.elements(id)) {
                (_, Some(element)) if element != Ty::String => {
                    self.error(
                        &format!(".{field}"),
                        "type 'list' does not support field selection",
                    );
                    Info::scalar(Ty::Dyn, cost)
                }
                (Ok(Some(node)), _) => self.of(Ty::Node(node), cost),
                (Ok(None), _) => self.of(Ty::Dyn, cost),
                (Err(()), _) => {
                    self.error(&format!(".{field}"), &format!("undefined field '{field}'"));
                    Info::scalar(Ty::Dyn, cost)
                }
            },
            Ty::Optional(inner) => {
                let found = self.select(
                    &Info {
                        ty: *inner,
                        ..operand.clone()
                    },
                    field,
                );
                Info {
                    ty: found.ty.clone().optional(),
                    ..found
                }
            }
            Ty::Dyn => Info {
                cost: cost + operand.weight,
                ..operand.clone()
            },
            Ty::Map(_, value) => Info {
                ty: *value,
                cost: cost + operand.weight,
                ..operand.clone()
            },
            Ty::Message(name) => Info {
                ty: literals::field_type(&name, field),
                cost: cost + operand.weight,
                ..operand.clone()
            },
            other => {
                let message = format!("type '{}' does not support field selection", shown(&other));
                self.error(&format!(".{field}"), &message);
                Info::scalar(Ty::Dyn, cost)
            }
        }
    }

    /// What iterating gives.
    fn element(&self, range: &Info) -> Info {
        let ty = match self.nodes.scalar(&range.ty) {
            Ty::Node(id) => self.nodes.elements(id).unwrap_or(Ty::Dyn),
            Ty::List(inner) | Ty::Map(inner, _) => *inner,
            _ => Ty::Dyn,
        };
        match ty {
            Ty::Node(_) => self.of(ty, 1.0),
            Ty::Pair(_, ref value) if matches!(**value, Ty::Node(_)) => {
                let inside = self.of((**value).clone(), 1.0);
                Info {
                    ty,
                    weight: inside.weight + 2.0,
                    ..inside
                }
            }
            // An item of a computed list is no larger than the list.
            ty => Info {
                ty,
                length: range.length.max(range.weight * 32.0),
                weight: range.weight,
                cost: 1.0,
            },
        }
    }

    fn with(&mut self, name: &str, info: Info, body: impl FnOnce(&mut Self) -> Info) -> Info {
        self.scope.push((name.to_owned(), info));
        let out = body(self);
        self.scope.pop();
        out
    }

    fn check_range(&mut self, range: &Info) {
        let ty = self.nodes.scalar(&range.ty);
        if definite(&ty) {
            let shown = shown(&ty);
            let message = format!(
                "expression of type '{shown}' cannot be range of a comprehension (must be list, map, or dynamic)"
            );
            self.error("", &message);
        }
    }

    fn comprehension(&mut self, c: &ComprehensionExpr) -> Info {
        let range = self.expression(&c.iter_range);
        self.check_range(&range);
        let init = self.expression(&c.accu_init);
        let element = self.element(&range);
        let times = range.length;
        let item_weight = element.weight;
        let looped = |this: &mut Self, accumulated: Info| {
            this.with(&c.iter_var, element.clone(), |this| {
                this.with(&c.accu_var, accumulated, |this| {
                    let condition = this.expression(&c.loop_cond);
                    let step = this.expression(&c.loop_step);
                    Info {
                        cost: step.cost + condition.cost,
                        ..step
                    }
                })
            })
        };
        let unbound = matches!(c.iter_range.expr, Expr::List(ref l) if l.elements.is_empty());
        let step = if unbound {
            Info {
                cost: 0.0,
                ..init.clone()
            }
        } else {
            looped(self, init.clone())
        };
        // What one round adds, all rounds add as often.
        let accumulated = Info {
            ty: if step.ty == Ty::List(Box::new(Ty::Dyn)) || step.ty == Ty::Dyn {
                init.ty.clone()
            } else {
                step.ty.clone()
            },
            length: init.length + times * (step.length - init.length).max(0.0),
            weight: init.weight + times * (step.weight - init.weight).max(0.0),
            cost: 1.0,
        };
        let copied = item_weight + accumulated.weight;
        let rounds = times * (step.cost + copied);
        let result = self.with(&c.accu_var, accumulated, |this| this.expression(&c.result));
        Info {
            cost: range.cost + range.weight + init.cost + rounds + result.cost,
            ..result
        }
    }

    fn is_function(&self, name: &str) -> bool {
        is_function(name) || self.constructs && name == ESCAPE
    }

    fn call(&mut self, call: &CallExpr) -> Info {
        let qualified = match call.target.as_deref() {
            Some(IdedExpr {
                expr: Expr::Ident(prefix),
                ..
            }) => Some(format!("{prefix}.{}", call.func_name)),
            _ => None,
        };
        let qualified = qualified.filter(|name| self.is_function(name));
        let target = match (&qualified, &call.target) {
            (None, Some(target)) => Some(self.expression(target)),
            _ => None,
        };
        if let (Some(field), [operand, _]) = (taken_field(call), &call.args[..]) {
            let operand = self.expression(operand);
            return self.optional_field(&operand, field);
        }
        let format = call.func_name == "format";
        let args: Vec<Info> = call.args.iter().map(|a| self.argument(a, format)).collect();
        let cost = 1.0
            + target.iter().chain(&args).map(|i| i.cost).sum::<f64>()
            + target
                .iter()
                .chain(&args)
                .map(|i| i.weight + i.length / 10.0)
                .sum::<f64>();
        let name = qualified.as_deref().unwrap_or(&call.func_name);
        if let Some(info) = self.operator(name, &args, cost) {
            return info;
        }
        let known = self.is_function(name) || target.is_some() && is_authorizer_function(name);
        if !known {
            let message = format!("undeclared reference to '{name}' (in container '')");
            self.error_at_call(name, &message);
            return Info::scalar(Ty::Dyn, cost);
        }
        self.check_call(call, name, target.as_ref(), &args);
        if let Some(info) = self.optional_function(name, target.as_ref(), &args, cost) {
            return info;
        }
        let inputs = || target.iter().chain(&args);
        let weight = 1.0 + inputs().map(|i| i.weight).sum::<f64>();
        let mut characters = inputs().map(|i| i.length).sum::<f64>();
        if name == "replace" {
            // Every character may become the replacement.
            characters *= args.get(1).map_or(1.0, |a| a.length.max(1.0));
        }
        if name == "lists.range" {
            characters = match call.args.first().map(|a| &a.expr) {
                Some(Expr::Literal(LiteralValue::Int(n))) => {
                    f64::from(i32::try_from(*n.inner()).unwrap_or(i32::MAX))
                }
                _ => f64::from(i32::MAX),
            };
        }
        let asks = is_authorizer_function(name) && !is_function(name);
        match if asks { answers(name) } else { returns(name) } {
            ty @ (Ty::Bool | Ty::Int | Ty::Uint | Ty::Double | Ty::Timestamp | Ty::Duration) => {
                Info::scalar(ty, cost)
            }
            ty @ Ty::List(_) => Info {
                ty,
                length: characters,
                weight: weight.max(characters),
                cost: cost + characters,
            },
            ty => Info {
                ty,
                length: characters,
                weight: weight.max(characters / 32.0),
                cost: cost + characters / 10.0,
            },
        }
    }
}

#[allow(clippy::cast_precision_loss)] // sizes far below 2^52
fn length(n: usize) -> f64 {
    n as f64
}

/// A message about what begins there in a source, with the line it is in, as CEL writes it.
pub(super) fn pointed(source: &str, start: usize, message: &str) -> String {
    let line_start = source[..start].rfind('\n').map_or(0, |i| i + 1);
    let line = source[line_start..].lines().next().unwrap_or_default();
    let (row, column) = (source[..start].matches('\n').count() + 1, start - line_start + 1);
    let dots = ".".repeat(column - 1);
    format!("ERROR: <input>:{row}:{column}: {message}\n | {line}\n | {dots}^")
}

pub(super) fn shown(ty: &Ty) -> String {
    match ty {
        Ty::Dyn => "dyn".into(),
        Ty::Bool => "bool".into(),
        Ty::Int => "int".into(),
        Ty::Uint => "uint".into(),
        Ty::Double => "double".into(),
        Ty::String => "string".into(),
        Ty::Bytes => "bytes".into(),
        Ty::Null => "null".into(),
        Ty::Timestamp => "timestamp".into(),
        Ty::Duration => "duration".into(),
        Ty::Node(_) => "object".into(),
        Ty::List(inner) => format!("list({})", shown(inner)),
        Ty::Map(key, value) => format!("map({}, {})", shown(key), shown(value)),
        Ty::Message(name) => name.to_string(),
        Ty::Optional(inner) => format!("optional_type({})", shown(inner)),
        Ty::Pair(..) => "list(dyn)".into(),
    }
}
