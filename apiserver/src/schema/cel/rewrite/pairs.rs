//! Loops over two variables: `all(i, v, …)`, `transformMap(k, v, …)` and the like. The evaluator knows one variable, so they
//! become loops over the pairs of a list or map, in which both names stand for a part of the pair.

use super::{bind, node};
use kube::core::cel::cel::IdedExpr;
use kube::core::cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, ListExpr, LiteralValue, operators,
};

/// The loop's own variable; no author can write the name, nor those of the functions here.
pub(in super::super) const PAIR: &str = "@pair";
/// A list's indices or a map's keys, with the values.
pub(in super::super) const PAIRS: &str = "@pairs";
pub(in super::super) const KEY: &str = "@key";
pub(in super::super) const VALUE: &str = "@value";
/// A map of pairs, and one of maps.
pub(in super::super) const MAP: &str = "@map";
pub(in super::super) const MERGE: &str = "@merge";
const RESULT: &str = "@result";

/// Whether the call is a loop over two variables.
pub(super) fn is_loop(call: &CallExpr) -> bool {
    call.target.is_some()
        && match call.func_name.as_str() {
            "all" | "exists" | "existsOne" | "exists_one" => call.args.len() == 3,
            "transformList" | "transformMap" | "transformMapEntry" => matches!(call.args.len(), 3 | 4),
            _ => false,
        }
}

fn global(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    node(Expr::Call(CallExpr {
        func_name: name.into(),
        target: None,
        args,
    }))
}

fn ident(name: &str) -> IdedExpr {
    node(Expr::Ident(name.into()))
}

fn literal(value: LiteralValue) -> IdedExpr {
    node(Expr::Literal(value))
}

fn list(items: Vec<IdedExpr>) -> IdedExpr {
    node(Expr::List(ListExpr::new(items)))
}

/// The loop as one over pairs.
pub(super) fn over(call: CallExpr) -> Result<Expr, String> {
    let name = call.func_name;
    let mut args = call.args.into_iter();
    let mut variable = || match args.next().map(|a| a.expr) {
        Some(Expr::Ident(name)) => Ok(name),
        _ => Err("ERROR: <input>:1:1: argument must be a simple name"),
    };
    let (first, second) = (variable()?, variable()?);
    let mut rest: Vec<IdedExpr> = args.collect();
    let (Some(range), Some(body)) = (call.target, rest.pop()) else {
        return Err("ERROR: <input>:1:1: a loop needs a range and a body".into());
    };
    let filter = rest.pop();
    let named = |body: IdedExpr| {
        let part = |function: &str| global(function, vec![ident(PAIR)]);
        let inner = node(bind(second.clone(), part(VALUE), body));
        node(bind(first.clone(), part(KEY), inner))
    };
    let accumulated = || ident(RESULT);
    let yes = || literal(LiteralValue::Boolean(true.into()));
    let not_strictly_false = |e| global(operators::NOT_STRICTLY_FALSE, vec![e]);
    let (init, condition, step, result) = match name.as_str() {
        "all" => (
            yes(),
            not_strictly_false(accumulated()),
            global(operators::LOGICAL_AND, vec![accumulated(), named(body)]),
            accumulated(),
        ),
        "exists" => (
            literal(LiteralValue::Boolean(false.into())),
            not_strictly_false(global(operators::LOGICAL_NOT, vec![accumulated()])),
            global(operators::LOGICAL_OR, vec![accumulated(), named(body)]),
            accumulated(),
        ),
        "existsOne" | "exists_one" => {
            let one = || literal(LiteralValue::Int(1.into()));
            let more = global(operators::ADD, vec![accumulated(), one()]);
            (
                literal(LiteralValue::Int(0.into())),
                yes(),
                global(operators::CONDITIONAL, vec![named(body), more, accumulated()]),
                global(operators::EQUALS, vec![accumulated(), one()]),
            )
        }
        _ => {
            let (item, result) = match name.as_str() {
                "transformMap" => (
                    list(vec![global(KEY, vec![ident(PAIR)]), named(body)]),
                    global(MAP, vec![accumulated()]),
                ),
                "transformMapEntry" => (named(body), global(MERGE, vec![accumulated()])),
                _ => (named(body), accumulated()),
            };
            let more = global(operators::ADD, vec![accumulated(), list(vec![item])]);
            let step = match filter {
                Some(filter) => global(operators::CONDITIONAL, vec![named(filter), more, accumulated()]),
                None => more,
            };
            (list(Vec::new()), yes(), step, result)
        }
    };
    Ok(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: global(PAIRS, vec![*range]),
        iter_var: PAIR.into(),
        iter_var2: None,
        accu_var: RESULT.into(),
        accu_init: init,
        loop_cond: condition,
        loop_step: step,
        result,
    })))
}
