//! Lists, maps and messages that are written out.

use super::{Infer, Info, Ty, length, shown};
use crate::schema::cel::messages::{PATCH, is_known, message};
use kube::core::cel::cel::IdedExpr;
use kube::core::cel::cel::common::ast::{
    CallExpr, EntryExpr, Expr, ListExpr, LiteralValue, MapEntryExpr, MapExpr, operators,
};

/// The type of a message's field.
pub(super) fn field_type(name: &str, field: &str) -> Ty {
    match field {
        "op" | "path" | "from" if name == PATCH => Ty::String,
        _ => Ty::Dyn,
    }
}

/// The part of the source an expression is pointed at by.
fn anchor(expression: &IdedExpr) -> String {
    match &expression.expr {
        Expr::Ident(name) => name.clone(),
        Expr::Select(select) => format!(".{}", select.field),
        Expr::Literal(LiteralValue::Int(n)) => n.inner().to_string(),
        Expr::Literal(LiteralValue::Boolean(b)) => b.inner().to_string(),
        Expr::Literal(LiteralValue::Null) => "null".into(),
        Expr::Map(map) => message(map).map_or_else(|| "{".into(), |(name, _)| name.to_owned()),
        Expr::Call(CallExpr { func_name, .. }) if func_name.starts_with(char::is_alphabetic) => {
            format!("{func_name}(")
        }
        Expr::Call(CallExpr { func_name, .. }) => func_name.trim_matches(['_', ']']).to_owned(),
        _ => "[".into(),
    }
}

impl Infer<'_> {
    /// The one type of all these, which are to be of one: what is not is told. Nothing is known where one is not known.
    fn one_type(&mut self, parts: &[(&IdedExpr, &Ty)]) -> Ty {
        let named = |this: &Self, (expression, ty): (&IdedExpr, &Ty)| {
            let ty = this.nodes.scalar(ty);
            match ty {
                Ty::Dyn if this.is_dynamic(expression) => Some("dyn".to_owned()),
                Ty::Dyn
                | Ty::Node(_)
                | Ty::Null
                | Ty::Optional(_)
                | Ty::Pair(..)
                | Ty::List(_)
                | Ty::Map(..) => None,
                known => Some(shown(&known)),
            }
        };
        let Some(first) = parts.first() else {
            return Ty::Dyn;
        };
        if let Some(wanted) = named(self, *first) {
            for part in &parts[1..] {
                if let Some(found) = named(self, *part).filter(|found| *found != wanted) {
                    let text = format!("expected type '{wanted}' but found '{found}'");
                    let name = match &part.0.expr {
                        Expr::Map(map) => message(map).map(|(name, _)| name),
                        _ => None,
                    };
                    if let Some(name) = name {
                        self.error_from(self.braces_of(name), &text);
                    } else {
                        let at = match &part.0.expr {
                            Expr::Literal(LiteralValue::String(text)) => self.quoted(text.inner()),
                            _ => anchor(part.0),
                        };
                        self.error(&at, &text);
                    }
                    return Ty::Dyn;
                }
            }
        }
        if parts.iter().all(|(_, ty)| *ty == first.1) {
            first.1.clone()
        } else {
            Ty::Dyn
        }
    }

    /// An argument; those of `format()` may be of several types.
    pub(super) fn argument(&mut self, expression: &IdedExpr, of_format: bool) -> Info {
        match &expression.expr {
            Expr::List(list) if of_format => self.list(list, false),
            _ => self.expression(expression),
        }
    }

    /// A list, whose items are to be of one type when they are to be `alike`.
    pub(super) fn list(&mut self, list: &ListExpr, alike: bool) -> Info {
        let items: Vec<Info> = list.elements.iter().map(|e| self.expression(e)).collect();
        let parts: Vec<_> = list.elements.iter().zip(items.iter().map(|i| &i.ty)).collect();
        let ty = if alike && list.optional_indices.is_empty() {
            self.one_type(&parts)
        } else {
            Ty::Dyn
        };
        Info {
            ty: Ty::List(Box::new(ty)),
            length: length(items.len()),
            weight: 1.0 + items.iter().map(|i| i.weight).sum::<f64>(),
            cost: 1.0 + items.iter().map(|i| i.cost).sum::<f64>(),
        }
    }

    pub(super) fn map(&mut self, map: &MapExpr) -> Info {
        if let Some((name, fields)) = message(map) {
            return self.message(name, &fields);
        }
        let entries: Vec<&MapEntryExpr> = map
            .entries
            .iter()
            .filter_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => Some(entry),
                EntryExpr::StructField(_) => None,
            })
            .collect();
        let infos: Vec<(Info, Info)> = entries
            .iter()
            .map(|e| (self.expression(&e.key), self.expression(&e.value)))
            .collect();
        let keys: Vec<_> = entries
            .iter()
            .zip(&infos)
            .map(|(e, (k, _))| (&e.key, &k.ty))
            .collect();
        let values: Vec<_> = entries
            .iter()
            .zip(&infos)
            .map(|(e, (_, v))| (&e.value, &v.ty))
            .collect();
        let key = self.one_type(&keys);
        let value = if entries.iter().any(|e| e.optional) {
            Ty::Dyn
        } else {
            self.one_type(&values)
        };
        let both = || infos.iter().flat_map(|(k, v)| [k, v]);
        Info {
            ty: Ty::Map(Box::new(key), Box::new(value)),
            length: length(entries.len()),
            weight: 1.0 + both().map(|i| i.weight).sum::<f64>(),
            cost: 1.0 + both().map(|i| i.cost).sum::<f64>(),
        }
    }

    /// Where the braces of a message begin.
    fn braces_of(&self, name: &str) -> usize {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let found = self.source.match_indices(name).find_map(|(at, _)| {
            let rest = self.source[at + name.len()..].trim_start();
            let alone = !self.source[..at].ends_with(is_name);
            (alone && rest.starts_with('{')).then(|| self.source.len() - rest.len())
        });
        found.unwrap_or(0)
    }

    fn message(&mut self, name: &str, fields: &[(&str, &MapEntryExpr)]) -> Info {
        let start = self.braces_of(name);
        if !self.constructs || !is_known(name) {
            self.error_from(
                start,
                &format!("undeclared reference to '{name}' (in container '')"),
            );
        }
        let mut out = Info {
            ty: Ty::Message(name.into()),
            length: length(fields.len()),
            weight: 1.0,
            cost: 1.0,
        };
        for (field, entry) in fields {
            let value = self.expression(&entry.value);
            out.weight += value.weight;
            out.cost += value.cost;
            let (inner, _) = value.ty.unwrapped();
            let found = self.nodes.scalar(if entry.optional { inner } else { &value.ty });
            let wanted = match (name, *field) {
                (PATCH, "op" | "path" | "from") => "string",
                (PATCH, "value") => continue,
                (PATCH, _) => "",
                _ => continue,
            };
            if wanted == shown(&found) || wanted == "string" && found == Ty::Dyn {
                continue;
            }
            let colon = self.source[start..]
                .find(&format!("{field}:"))
                .map_or(start, |at| start + at + field.len());
            let message = format!(
                "expected type of field '{field}' is '{wanted}' but provided type is '{}'",
                shown(&found)
            );
            self.error_from(colon, &message);
        }
        out
    }

    /// Whether nothing can be known of an expression's type before it is evaluated, as of a part of a written object.
    pub(in super::super) fn is_dynamic(&self, expression: &IdedExpr) -> bool {
        match &expression.expr {
            Expr::Ident(name) => {
                let named = |n: &String| n == name;
                // The variable of a loop may be called as one of them.
                self.dynamic.iter().any(named) && self.scope.iter().filter(|(n, _)| named(n)).count() == 1
            }
            Expr::Select(select) => !select.test && self.is_dynamic(&select.operand),
            Expr::Call(call) => match (call.func_name.as_str(), &call.args[..]) {
                ("dyn", [_]) => true,
                (operators::INDEX | operators::OPT_INDEX, [of, _]) => self.is_dynamic(of),
                (
                    operators::ADD
                    | operators::SUBSTRACT
                    | operators::MULTIPLY
                    | operators::DIVIDE
                    | operators::MODULO,
                    [left, right],
                ) => self.is_dynamic(left) && self.is_dynamic(right),
                ("orValue" | "value", _) => call.target.as_ref().is_some_and(|of| self.is_dynamic(of)),
                (operators::CONDITIONAL, [_, left, right]) => self.is_dynamic(left) || self.is_dynamic(right),
                _ => false,
            },
            _ => false,
        }
    }
}
