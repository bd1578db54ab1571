//! Optional steps. The evaluator fails at `a.?b` where there is no `b`, and at fields of what an optional holds; it takes
//! `a[?'b']` well.

use super::{call_on, node};
use kube::core::cel::cel::IdedExpr;
use kube::core::cel::cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators};

/// Makes `a.?b`, and what is taken of it (`a.?b.c`), the step `a[?'b']`. Whether the expression is such a step.
pub(super) fn steps(expression: &mut IdedExpr) -> bool {
    match &mut expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => return false,
        Expr::Select(select) => {
            if !steps(&mut select.operand) {
                return false;
            }
            let test = select.test;
            let args = vec![std::mem::take(&mut *select.operand), field(&select.field)];
            let step = Expr::Call(CallExpr {
                func_name: operators::OPT_INDEX.into(),
                target: None,
                args,
            });
            if !test {
                expression.expr = step;
                return true;
            }
            let step = IdedExpr {
                id: expression.id,
                expr: step,
            };
            expression.expr = call_on(step, "hasValue", Vec::new()).expr;
        }
        Expr::Call(call) => {
            if let Some(target) = &mut call.target {
                steps(target);
            }
            let mut of_optional = false;
            for (i, arg) in call.args.iter_mut().enumerate() {
                of_optional |= steps(arg) && i == 0;
            }
            if call.func_name == operators::OPT_SELECT {
                operators::OPT_INDEX.clone_into(&mut call.func_name);
                if let Some(name) = call.args.get_mut(1) {
                    name.id = 0;
                }
            }
            return call.func_name == operators::OPT_INDEX
                || call.func_name == operators::INDEX && of_optional;
        }
        Expr::List(list) => list.elements.iter_mut().for_each(|e| {
            steps(e);
        }),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    steps(&mut entry.key);
                    steps(&mut entry.value);
                }
            }
        }
        // Those are maps by now.
        Expr::Struct(_) => {}
        Expr::Comprehension(c) => {
            for part in [
                &mut c.iter_range,
                &mut c.accu_init,
                &mut c.loop_cond,
                &mut c.loop_step,
                &mut c.result,
            ] {
                steps(part);
            }
        }
    }
    false
}

/// The name of a field as an index. Nothing an author wrote has the id 0.
fn field(name: &str) -> IdedExpr {
    node(Expr::Literal(LiteralValue::String(name.into())))
}

/// The field an optional step takes, when it was written as a field and not as an index.
pub(in super::super) fn taken_field(call: &CallExpr) -> Option<&str> {
    match &call.args[..] {
        [
            _,
            IdedExpr {
                id: 0,
                expr: Expr::Literal(LiteralValue::String(name)),
            },
        ] if call.func_name == operators::OPT_INDEX => Some(name.inner()),
        _ => None,
    }
}
