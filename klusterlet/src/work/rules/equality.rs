//! Equality of numbers by what they are, whatever their types: `dyn(1) == dyn(1.0)`. All that an object holds is `dyn`, and the
//! engine's own operators find an int never equal to a double, be it alone or within lists and maps. (Its comparisons do.)

use kube::core::cel::cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use kube::core::cel::cel::objects::{Key, Map};
use kube::core::cel::cel::{Context, ExecutionError, Value as Cel};

/// `==`, under a name that nobody can write.
pub const EQUAL: &str = "@equal";
/// `!=`.
pub const UNEQUAL: &str = "@unequal";
/// `in`.
pub const WITHIN: &str = "@within";

/// Adds them.
pub fn add(context: &mut Context<'_>) {
    context.add_function(EQUAL, |one: Cel, other: Cel| -> bool { one == other });
    context.add_function(UNEQUAL, |one: Cel, other: Cel| -> bool { one != other });
    context.add_function(WITHIN, within);
}

/// Makes a call of the engine's operator one of these, where numbers may be in it.
pub fn of_numbers(call: &mut CallExpr) {
    let [one, other] = call.args.as_slice() else {
        return;
    };
    let name = match call.func_name.as_str() {
        operators::EQUALS if may_hold_numbers(&one.expr) && may_hold_numbers(&other.expr) => EQUAL,
        operators::NOT_EQUALS if may_hold_numbers(&one.expr) && may_hold_numbers(&other.expr) => UNEQUAL,
        operators::IN if may_hold_numbers(&one.expr) => WITHIN,
        _ => return,
    };
    name.clone_into(&mut call.func_name);
}

/// What is compared with text most often need not be copied for it.
fn may_hold_numbers(expression: &Expr) -> bool {
    use LiteralValue::{Boolean, Bytes, Null, String};
    !matches!(
        expression,
        Expr::Literal(Boolean(_) | Bytes(_) | Null | String(_))
    )
}

#[allow(clippy::needless_pass_by_value)] // the engine's calling convention
fn within(item: Cel, container: Cel) -> Result<bool, ExecutionError> {
    match &container {
        Cel::List(list) => Ok(list.contains(&item)),
        Cel::Map(Map { map }) => Ok(match item {
            Cel::String(text) => map.contains_key(&Key::String(text)),
            item => map.keys().any(|key| Cel::from(key) == item),
        }),
        _ => Err(ExecutionError::NoSuchOverload),
    }
}
