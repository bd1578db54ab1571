//! What of a written object expressions look at. A write that concerns nobody is asked about by every condition there is:
//! what none of them can see, such as who manages which field, is not made ready for them.

use kube::core::cel::cel::IdedExpr;
use kube::core::cel::cel::common::ast::{EntryExpr, Expr, LiteralValue, operators};
use std::collections::BTreeSet;

/// The names of the written object, as it is to be and as it was.
const OBJECTS: [&str; 2] = ["object", "oldObject"];
const METADATA: &str = "metadata";
const MANAGED: &str = "managedFields";

/// The parts of an object that are looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// It is taken as a whole.
    whole: bool,
    /// And so is its metadata, or who manages which field.
    managed: bool,
    /// Fields of it.
    fields: BTreeSet<Box<str>>,
}

impl Needs {
    /// What an expression needs.
    pub fn of(expression: &IdedExpr) -> Self {
        let mut needs = Self::default();
        needs.look(expression);
        needs
    }

    /// What others need is needed too.
    pub fn add(&mut self, other: &Self) {
        self.whole |= other.whole;
        self.managed |= other.managed;
        self.fields.extend(other.fields.iter().cloned());
    }

    /// Whether an object is needed as it is.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether a field of the object is needed.
    pub fn has(&self, field: &str) -> bool {
        self.whole || self.fields.contains(field)
    }

    /// Whether a field of its metadata is.
    pub fn has_metadata(&self, field: &str) -> bool {
        self.whole || self.managed || field != MANAGED
    }

    fn look(&mut self, expression: &IdedExpr) {
        match &expression.expr {
            Expr::Ident(_) => self.whole |= is_object(expression),
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(_) if is_object(&select.operand) => {
                    self.fields.insert(select.field.as_str().into());
                    // As nothing is selected of it.
                    self.managed |= select.field == METADATA;
                }
                Expr::Select(of) if of.field == METADATA && is_object(&of.operand) => {
                    self.fields.insert(METADATA.into());
                    self.managed |= select.field == MANAGED;
                }
                _ => self.look(&select.operand),
            },
            Expr::Call(call) => {
                let compares = matches!(call.func_name.as_str(), operators::EQUALS | operators::NOT_EQUALS);
                let null = |e: &IdedExpr| matches!(&e.expr, Expr::Literal(LiteralValue::Null));
                // Whether there is an object at all is known without looking at it.
                let only_whether = compares && call.args.iter().any(null);
                for part in call.target.iter().map(|t| &**t).chain(&call.args) {
                    if !(only_whether && is_object(part)) {
                        self.look(part);
                    }
                }
            }
            Expr::Comprehension(c) => {
                for part in [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result] {
                    self.look(part);
                }
            }
            Expr::List(list) => list.elements.iter().for_each(|e| self.look(e)),
            Expr::Map(map) => {
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::MapEntry(entry) => {
                            self.look(&entry.key);
                            self.look(&entry.value);
                        }
                        EntryExpr::StructField(field) => self.look(&field.value),
                    }
                }
            }
            Expr::Literal(_) | Expr::Unspecified => {}
            // Nothing that is understood here.
            Expr::Struct(_) => self.whole = true,
        }
    }
}

fn is_object(expression: &IdedExpr) -> bool {
    matches!(&expression.expr, Expr::Ident(name) if OBJECTS.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn an_expression_needs_what_it_names() {
        for (text, whole, managed, fields) in [
            ("true", false, false, ""),
            ("request.name == 'x'", false, false, ""),
            (
                "oldObject == null || object.spec != oldObject.spec",
                false,
                false,
                "spec",
            ),
            ("null != object && has(object.status)", false, false, "status"),
            ("object.metadata.name == 'x'", false, false, "metadata"),
            (
                "object.metadata.labels['managedFields'] == 'x'",
                false,
                false,
                "metadata",
            ),
            ("has(object.metadata.managedFields)", false, true, "metadata"),
            ("object.metadata == oldObject.metadata", false, true, "metadata"),
            ("size(object.metadata) == 1", false, true, "metadata"),
            (
                "object.spec.list.all(m, has(m.name) && m.name == object.kind)",
                false,
                false,
                "kind spec",
            ),
            ("object == oldObject", true, false, ""),
            ("object['spec'] == 1", true, false, ""),
            ("[object].all(o, o.spec == 1)", true, false, ""),
            ("{'a': object} == {}", true, false, ""),
            ("dyn(object).spec == 1", true, false, ""),
            ("(true ? object : oldObject).spec == 1", true, false, ""),
        ] {
            let needs = Needs::of(&parse(text).unwrap());
            let named: Vec<&str> = needs.fields.iter().map(|f| &**f).collect();
            let found = (needs.whole, needs.managed, named.join(" "));
            assert_eq!(found, (whole, managed, fields.to_owned()), "{text}");
        }
        let mut both = Needs::of(&parse("object.spec == 1").unwrap());
        both.add(&Needs::of(&parse("object.metadata.name == 'x'").unwrap()));
        assert!(both.has("spec") && both.has("metadata") && !both.has("status") && !both.is_whole());
        assert!(both.has_metadata("name") && !both.has_metadata(MANAGED));
        both.add(&Needs::of(
            &parse("object == null || object == oldObject").unwrap(),
        ));
        assert!(both.has("status") && both.has_metadata(MANAGED));
    }
}
