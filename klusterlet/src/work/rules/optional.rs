//! Optional steps of CEL (`a.?b`), and equality, brought into the form that the engine evaluates rightly.

use super::equality;
use kube::core::cel::cel::IdedExpr;
use kube::core::cel::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedEntryExpr, LiteralValue, operators};

/// Makes `a.?b`, and what is taken of it (`a.?b.c`), the step `a[?'b']`: the engine fails at the others where there is no
/// `b`. Whether the expression is such a step.
pub fn steps(expression: &mut IdedExpr) -> bool {
    let all = |list: &mut Vec<IdedExpr>| {
        for item in list {
            steps(item);
        }
    };
    let entries = |list: &mut Vec<IdedEntryExpr>| {
        for entry in list {
            match &mut entry.expr {
                EntryExpr::StructField(f) => {
                    steps(&mut f.value);
                }
                EntryExpr::MapEntry(e) => {
                    steps(&mut e.key);
                    steps(&mut e.value);
                }
            }
        }
    };
    match &mut expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => false,
        Expr::Select(select) => {
            if !steps(&mut select.operand) || select.test {
                return false;
            }
            let field = IdedExpr {
                id: expression.id,
                expr: Expr::Literal(LiteralValue::String(select.field.clone().into())),
            };
            let args = vec![std::mem::take(&mut *select.operand), field];
            expression.expr = Expr::Call(CallExpr {
                func_name: operators::OPT_INDEX.to_owned(),
                target: None,
                args,
            });
            true
        }
        Expr::Call(call) => {
            if let Some(target) = &mut call.target {
                steps(target);
            }
            let mut of_optional = false;
            for (place, arg) in call.args.iter_mut().enumerate() {
                of_optional |= steps(arg) && place == 0;
            }
            if call.func_name == operators::OPT_SELECT {
                operators::OPT_INDEX.clone_into(&mut call.func_name);
            }
            equality::of_numbers(call);
            call.func_name == operators::OPT_INDEX || (call.func_name == operators::INDEX && of_optional)
        }
        Expr::List(list) => {
            all(&mut list.elements);
            false
        }
        Expr::Map(map) => {
            entries(&mut map.entries);
            false
        }
        Expr::Struct(made) => {
            entries(&mut made.entries);
            false
        }
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
            false
        }
    }
}
