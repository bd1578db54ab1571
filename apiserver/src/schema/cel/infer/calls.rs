//! Calls of functions that take only what they take, where it is known what they are given.

use super::{Infer, Info, Ty, definite, shown};
use crate::schema::cel::messages::ESCAPE;
use crate::schema::{formats, regexes};
use kube::core::cel::cel::IdedExpr;
use kube::core::cel::cel::common::ast::{CallExpr, Expr, LiteralValue};

/// The types of the arguments of functions of text.
fn of_text(name: &str) -> Option<&'static [Ty]> {
    Some(match name {
        "contains" | "startsWith" | "endsWith" | "matches" => &[Ty::String],
        "lowerAscii" | "upperAscii" | "trim" => &[],
        _ => return None,
    })
}

fn text(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

impl Infer<'_> {
    /// Tells of calls that can not be carried out whatever the values are.
    pub(super) fn check_call(&mut self, call: &CallExpr, name: &str, target: Option<&Info>, args: &[Info]) {
        let type_of = |info: &Info| self.nodes.scalar(&info.ty);
        let given: Vec<Ty> = args.iter().map(type_of).collect();
        let on = target.map(type_of);
        let other = |wanted: &Ty, found: &Ty| definite(found) && found != wanted;
        let sized = |ty: &Ty| {
            !matches!(ty, Ty::Message(_)) && (!definite(ty) || matches!(ty, Ty::String | Ty::Bytes))
        };
        let fits = match (name, &on, &given[..]) {
            ("size", Some(on), []) => sized(on),
            ("size", None, [one]) => sized(one),
            (ESCAPE, _, [one]) => !other(&Ty::String, one),
            ("sum", Some(Ty::List(item)), []) => !matches!(**item, Ty::String | Ty::Bytes | Ty::Bool),
            (name, Some(on), given) => of_text(name).is_none_or(|wanted| {
                !other(&Ty::String, on)
                    && wanted.len() == given.len()
                    && !wanted
                        .iter()
                        .zip(given)
                        .any(|(wanted, found)| other(wanted, found))
            }),
            _ => true,
        };
        if !fits {
            let all: Vec<String> = given.iter().map(shown).collect();
            let on = on
                .as_ref()
                .map(|on| format!("{}.", shown(on)))
                .unwrap_or_default();
            let message = format!(
                "found no matching overload for '{name}' applied to '{on}({})'",
                all.join(", ")
            );
            self.error_at_call(name, &message);
        }
        self.check_literal(call, name);
    }

    /// Texts that are no expression, time or duration.
    fn check_literal(&mut self, call: &CallExpr, name: &str) {
        let Some(literal) = call.args.first().and_then(text) else {
            return;
        };
        let fits = match name {
            "matches" => regexes::compile(literal).is_ok(),
            "duration" => formats::duration_nanos(literal).is_some(),
            "timestamp" => literal.parse::<jiff::Timestamp>().is_ok(),
            _ => true,
        };
        if !fits {
            let quoted = self.quoted(literal);
            self.error(&quoted, &format!("invalid {name} argument"));
        }
    }

    /// A text as it is written in the source.
    pub(super) fn quoted(&self, text: &str) -> String {
        let single = format!("'{text}'");
        if self.source.contains(&single) {
            single
        } else {
            format!("{text:?}")
        }
    }

    /// Says what is wrong with a call: it is pointed at by what stands before its arguments.
    pub(super) fn error_at_call(&mut self, name: &str, message: &str) {
        let short = name.rsplit('.').next().unwrap_or(name);
        let at = self
            .source
            .find(&format!("{short}("))
            .map_or(0, |at| at + short.len());
        self.error_from(at, message);
    }
}
