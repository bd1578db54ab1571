//! What the parser or the evaluator does not do as Kubernetes' CEL does: macros that are left as plain calls become the
//! expressions cel-go's expansions of them are, and optional steps become ones that are evaluated well.

pub(super) mod optional;
pub(super) mod pairs;

use super::functions::TYPES;
use super::messages;
use kube::core::cel::cel::IdedExpr;
use kube::core::cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, ListExpr, LiteralValue, operators,
};

/// `optMap` and `optFlatMap` have what they are called on twice, so chains of them would grow beyond all bounds: so many
/// nodes may be repeated in one expression.
const REPEATED: usize = 5000;

/// The expression that is evaluated; the error is a message for the author of the expression.
pub(super) fn expanded(expression: IdedExpr) -> Result<IdedExpr, String> {
    let mut expression = messages::as_maps(expression)?;
    optional::steps(&mut expression);
    macros(expression, &mut 0)
}

/// Expands the macros everywhere in `expression`. `repeated` counts the nodes that are there twice for it.
fn macros(expression: IdedExpr, repeated: &mut usize) -> Result<IdedExpr, String> {
    let IdedExpr { id, expr } = expression;
    match expr {
        Expr::Call(call) => {
            let expr = self::call(call, repeated)?;
            Ok(IdedExpr { id, expr })
        }
        Expr::Unspecified => Err("ERROR: <input>:1:1: Syntax error: empty expression".into()),
        expr => mapped(IdedExpr { id, expr }, &mut |part| macros(part, repeated)),
    }
}

/// An expression with its direct parts replaced.
pub(super) fn mapped<F>(expression: IdedExpr, f: &mut F) -> Result<IdedExpr, String>
where
    F: FnMut(IdedExpr) -> Result<IdedExpr, String>,
{
    let IdedExpr { id, expr } = expression;
    let expr = match expr {
        Expr::Call(mut call) => {
            if let Some(target) = call.target.take() {
                call.target = Some(Box::new(f(*target)?));
            }
            call.args = call.args.into_iter().map(f).collect::<Result<_, _>>()?;
            Expr::Call(call)
        }
        Expr::Comprehension(mut c) => {
            for part in [
                &mut c.iter_range,
                &mut c.accu_init,
                &mut c.loop_cond,
                &mut c.loop_step,
                &mut c.result,
            ] {
                *part = f(std::mem::take(part))?;
            }
            Expr::Comprehension(c)
        }
        Expr::List(mut list) => {
            list.elements = list.elements.into_iter().map(f).collect::<Result<_, _>>()?;
            Expr::List(list)
        }
        Expr::Map(mut map) => {
            for entry in &mut map.entries {
                match &mut entry.expr {
                    EntryExpr::MapEntry(entry) => {
                        entry.key = f(std::mem::take(&mut entry.key))?;
                        entry.value = f(std::mem::take(&mut entry.value))?;
                    }
                    EntryExpr::StructField(field) => field.value = f(std::mem::take(&mut field.value))?,
                }
            }
            Expr::Map(map)
        }
        Expr::Select(mut select) => {
            *select.operand = f(std::mem::take(&mut *select.operand))?;
            Expr::Select(select)
        }
        other => other,
    };
    Ok(IdedExpr { id, expr })
}

fn every(expressions: Vec<IdedExpr>, repeated: &mut usize) -> Result<Vec<IdedExpr>, String> {
    expressions.into_iter().map(|e| macros(e, repeated)).collect()
}

pub(super) fn node(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

fn call_on(target: IdedExpr, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    node(Expr::Call(CallExpr {
        func_name: name.into(),
        target: Some(Box::new(target)),
        args,
    }))
}

/// `body` with `name` standing for `value`, as a comprehension over nothing.
fn bind(name: String, value: IdedExpr, body: IdedExpr) -> Expr {
    Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: node(Expr::List(ListExpr::new(Vec::new()))),
        iter_var: "#unused".into(),
        iter_var2: None,
        accu_init: value,
        loop_cond: node(Expr::Literal(LiteralValue::Boolean(false.into()))),
        loop_step: node(Expr::Ident(name.clone())),
        accu_var: name,
        result: body,
    }))
}

/// `type(x)`: its equals are names of types.
fn is_type_call(expr: &Expr) -> bool {
    matches!(expr, Expr::Call(call) if call.func_name == "type" && call.target.is_none() && call.args.len() == 1)
}

fn call(mut call: CallExpr, repeated: &mut usize) -> Result<Expr, String> {
    call.args = every(call.args, repeated)?;
    if let Some(target) = call.target.take() {
        call.target = Some(Box::new(macros(*target, repeated)?));
    }
    if matches!(call.func_name.as_str(), operators::EQUALS | operators::NOT_EQUALS)
        && call.args.iter().any(|arg| is_type_call(&arg.expr))
    {
        for arg in &mut call.args {
            if let Expr::Ident(name) = &arg.expr
                && TYPES.contains(&name.as_str())
            {
                arg.expr = Expr::Literal(LiteralValue::String(name.as_str().into()));
            }
        }
    }
    if pairs::is_loop(&call) {
        return pairs::over(call);
    }
    let flat = call.func_name == "optFlatMap";
    if !flat && call.func_name != "optMap" {
        return Ok(Expr::Call(call));
    }
    let (Some(target), Ok([name, body])) = (call.target, <[IdedExpr; 2]>::try_from(call.args)) else {
        return Err("optMap() takes a name and an expression".into());
    };
    let Expr::Ident(name) = name.expr else {
        return Err("optMap() variable name must be a simple identifier".into());
    };
    let optional = || node(Expr::Ident("optional".into()));
    *repeated += size(&target, REPEATED + 1);
    if *repeated > REPEATED {
        return Err(format!(
            "ERROR: <input>:1:1: too many optMap() on one another: they would repeat more than {REPEATED} parts of the expression"
        ));
    }
    let has = call_on((*target).clone(), "hasValue", Vec::new());
    let mapped = node(bind(name, call_on(*target, "value", Vec::new()), body));
    let mapped = if flat {
        mapped
    } else {
        call_on(optional(), "of", vec![mapped])
    };
    let none = call_on(optional(), "none", Vec::new());
    Ok(Expr::Call(CallExpr {
        func_name: operators::CONDITIONAL.into(),
        target: None,
        args: vec![has, mapped, none],
    }))
}

/// How large an expression is, or `enough`.
fn size(expression: &IdedExpr, enough: usize) -> usize {
    let all = |parts: &mut dyn Iterator<Item = &IdedExpr>| {
        parts.fold(1, |sum, part| {
            if sum < enough {
                sum + size(part, enough - sum)
            } else {
                sum
            }
        })
    };
    match &expression.expr {
        Expr::Call(call) => all(&mut call.target.iter().map(|t| &**t).chain(&call.args)),
        Expr::Select(select) => all(&mut std::iter::once(&*select.operand)),
        Expr::List(list) => all(&mut list.elements.iter()),
        Expr::Comprehension(c) => {
            all(&mut [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result].into_iter())
        }
        Expr::Map(map) => all(&mut map.entries.iter().flat_map(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
            EntryExpr::StructField(_) => Vec::new(),
        })),
        Expr::Struct(_) => enough,
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => 1,
    }
}
