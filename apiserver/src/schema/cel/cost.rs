//! What a rule may cost at most, estimated from its schema when a CustomResourceDefinition is written.
//!
//! The units are those of CEL's cost model as kube-apiserver counts them (KEP-2876): a step is one, text is looked at in
//! tenths of its length, a loop costs its body as often as its range is long. Sizes come from `maxLength`, `maxItems` and
//! `maxProperties`; where there are none, from what a request may hold.

mod size;
mod total;

pub(super) use size::Bound;
pub(super) use total::Total;

use super::functions::{is_function, returns};
use super::infer::Ty;
use super::nodes::Nodes;
use super::rewrite::optional::taken_field;
use super::rewrite::pairs::{KEY, PAIR, PAIRS, VALUE};
use kube::core::cel::cel::IdedExpr;
use kube::core::cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators,
};
use size::{CHARACTER, PATTERN, Size, share};

/// Making a list, and a map.
const LIST: u64 = 10;
const MAP: u64 = 30;
/// Asking the authorizer.
const CHECK: u64 = 350_000;
/// Length of the patterns behind the named formats.
const FORMAT_PATTERN: u64 = 128;

/// Which node of the schema a value is at.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// It was computed.
    None,
    /// There.
    Node(u32),
    /// Somewhere the schema says nothing about.
    Lost,
}

/// What is known of an expression.
#[derive(Debug, Clone)]
struct Estimate {
    cost: u64,
    size: Option<Size>,
    place: Place,
    ty: Ty,
}

impl Estimate {
    fn computed(cost: u64, ty: Ty) -> Self {
        Self {
            cost,
            size: None,
            place: Place::None,
            ty,
        }
    }

    fn sized(cost: u64, ty: Ty, size: Size) -> Self {
        Self {
            size: Some(size),
            ..Self::computed(cost, ty)
        }
    }
}

/// What an expression about the values at `node` costs at most.
pub(super) fn of(nodes: &Nodes, node: u32, optional_old: bool, expression: &IdedExpr) -> u64 {
    let this = Estimate {
        cost: 1,
        size: None,
        place: Place::Node(node),
        ty: Ty::Node(node),
    };
    let mut old = this.clone();
    if optional_old {
        old.ty = Ty::Optional(Box::new(old.ty));
    }
    let mut walk = Walk {
        nodes,
        root: node,
        scope: vec![("self".to_owned(), this), ("oldSelf".to_owned(), old)],
    };
    walk.expression(expression).cost
}

struct Walk<'a> {
    nodes: &'a Nodes,
    root: u32,
    scope: Vec<(String, Estimate)>,
}

impl Walk<'_> {
    fn size(&self, of: &Estimate) -> Size {
        match (of.size, of.place) {
            (Some(size), _) => size,
            (None, Place::Node(id)) => Size::up_to(self.nodes.at(id).bound.most),
            (None, Place::None | Place::Lost) => match self.nodes.scalar(&of.ty) {
                Ty::Bool | Ty::Int | Ty::Uint | Ty::Double | Ty::Timestamp | Ty::Duration => Size::exactly(1),
                _ => Size::UNKNOWN,
            },
        }
    }

    /// The place of what a list or map holds. Of one that was computed cel-go takes it to be where `self` is.
    fn within(&self, place: Place) -> Place {
        match place {
            Place::None => Place::Node(self.root),
            Place::Lost => Place::Lost,
            Place::Node(id) => {
                let node = self.nodes.at(id);
                node.items.or(node.additional).map_or(Place::Lost, Place::Node)
            }
        }
    }

    /// What iterating over a value gives.
    fn element(&self, range: &Estimate) -> Estimate {
        let mut element = Estimate::computed(1, Ty::Dyn);
        match self.nodes.scalar(&range.ty) {
            Ty::Node(id) => match self.nodes.elements(id) {
                // Keys of maps are counted as nothing.
                Some(Ty::String) if self.nodes.at(id).items.is_none() => {
                    element.ty = Ty::String;
                    element.size = Some(Size::up_to(0));
                }
                ty => {
                    element.ty = ty.unwrap_or(Ty::Dyn);
                    element.place = self.within(range.place);
                }
            },
            Ty::List(inner) => {
                element.ty = *inner;
                element.place = self.within(range.place);
            }
            _ => element.place = self.within(range.place),
        }
        element
    }

    fn is_list(&self, ty: &Ty) -> bool {
        match self.nodes.scalar(ty) {
            Ty::List(_) => true,
            Ty::Node(id) => self.nodes.at(id).items.is_some(),
            _ => false,
        }
    }

    fn is_text(&self, ty: &Ty) -> bool {
        matches!(self.nodes.scalar(ty), Ty::String | Ty::Bytes)
    }

    fn is_open(&self, ty: &Ty) -> bool {
        self.nodes.scalar(ty) == Ty::Dyn
    }

    fn expression(&mut self, expression: &IdedExpr) -> Estimate {
        match &expression.expr {
            Expr::Unspecified | Expr::Struct(_) => Estimate::computed(0, Ty::Dyn),
            Expr::Literal(literal) => {
                let one = |ty| Estimate::sized(0, ty, Size::exactly(1));
                match literal {
                    LiteralValue::Boolean(_) => one(Ty::Bool),
                    LiteralValue::Double(_) => one(Ty::Double),
                    LiteralValue::Int(_) => one(Ty::Int),
                    LiteralValue::UInt(_) => one(Ty::Uint),
                    LiteralValue::Null => Estimate::computed(0, Ty::Null),
                    LiteralValue::Bytes(bytes) => {
                        Estimate::sized(0, Ty::Bytes, Size::exactly(bytes.inner().len()))
                    }
                    LiteralValue::String(text) => {
                        Estimate::sized(0, Ty::String, Size::exactly(text.inner().len()))
                    }
                }
            }
            Expr::Ident(name) => {
                let found = self.scope.iter().rev().find(|(n, _)| n == name);
                let known = found.map(|(_, e)| e.clone());
                Estimate {
                    // What a loop over two variables is made of is not counted.
                    cost: u64::from(name != PAIR),
                    ..known.unwrap_or_else(|| Estimate {
                        place: Place::Node(self.root),
                        ..Estimate::computed(1, Ty::Dyn)
                    })
                }
            }
            Expr::Select(select) => {
                let operand = self.expression(&select.operand);
                if select.test {
                    return Estimate::computed(operand.cost, Ty::Bool);
                }
                self.select(&operand, &select.field)
            }
            Expr::List(list) => {
                let items: Vec<Estimate> = list.elements.iter().map(|e| self.expression(e)).collect();
                let cost = sum(items.iter().map(|i| i.cost)).saturating_add(LIST);
                let ty = items.first().map_or(Ty::Dyn, |i| i.ty.clone());
                Estimate::sized(cost, Ty::List(Box::new(ty)), Size::exactly(items.len()))
            }
            Expr::Map(map) => {
                let mut cost = MAP;
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        for part in [&entry.key, &entry.value] {
                            cost = cost.saturating_add(self.expression(part).cost);
                        }
                    }
                }
                Estimate::sized(cost, Ty::Dyn, Size::exactly(map.entries.len()))
            }
            Expr::Comprehension(c) => self.comprehension(c),
            Expr::Call(call) => self.call(call),
        }
    }

    fn select(&self, operand: &Estimate, field: &str) -> Estimate {
        let place = match operand.place {
            Place::None => Place::Node(self.root),
            other => other,
        };
        let place = match place {
            // An entry of a map that is written as a field is one nobody knows the size of.
            Place::Node(id) if self.nodes.at(id).additional.is_none() => match self.nodes.field(id, field) {
                Ok(Some(child)) => Place::Node(child),
                _ => Place::Lost,
            },
            _ => Place::Lost,
        };
        let (inner, optional) = operand.ty.unwrapped();
        let (ty, step) = match self.nodes.scalar(inner) {
            Ty::Node(id) => match self.nodes.field(id, field) {
                Ok(Some(child)) => (Ty::Node(child), 1),
                _ => (Ty::Dyn, 1),
            },
            _ => (Ty::Dyn, 0),
        };
        Estimate {
            cost: operand.cost.saturating_add(step),
            size: None,
            place,
            ty: if optional { ty.optional() } else { ty },
        }
    }

    fn with(&mut self, name: &str, value: Estimate, body: impl FnOnce(&mut Self) -> Estimate) -> Estimate {
        self.scope.push((name.to_owned(), value));
        let out = body(self);
        self.scope.pop();
        out
    }

    fn comprehension(&mut self, c: &ComprehensionExpr) -> Estimate {
        let init = self.expression(&c.accu_init);
        if matches!(&c.iter_range.expr, Expr::List(l) if l.elements.is_empty()) {
            // A name for a value.
            let cost = init.cost;
            let result = self.with(&c.accu_var, init, |this| this.expression(&c.result));
            return Estimate {
                cost: cost.saturating_add(result.cost),
                ..result
            };
        }
        let range = self.expression(&c.iter_range);
        let (element, length) = (self.element(&range), self.size(&range));
        let accumulated = Estimate::computed(1, init.ty.clone());
        let mut ty = init.ty.clone();
        let round = self.with(&c.iter_var, element, |this| {
            this.with(&c.accu_var, accumulated, |this| {
                let condition = this.expression(&c.loop_cond);
                let step = this.expression(&c.loop_step);
                ty = step.ty;
                Estimate::computed(condition.cost.saturating_add(step.cost), Ty::Dyn)
            })
        });
        let accumulated = Estimate::computed(1, ty);
        let result = self.with(&c.accu_var, accumulated, |this| this.expression(&c.result));
        let rounds = length.most.saturating_mul(round.cost);
        let cost = sum([range.cost, init.cost, rounds, result.cost]);
        Estimate::sized(cost, result.ty, length)
    }

    fn call(&mut self, call: &CallExpr) -> Estimate {
        let qualified = match call.target.as_deref() {
            Some(IdedExpr {
                expr: Expr::Ident(prefix),
                ..
            }) => Some(format!("{prefix}.{}", call.func_name)).filter(|name| is_function(name)),
            _ => None,
        };
        let target = match (&qualified, &call.target) {
            (None, Some(target)) => Some(self.expression(target)),
            _ => None,
        };
        if let (Some(field), [operand, _]) = (taken_field(call), &call.args[..]) {
            let operand = self.expression(operand);
            let found = self.select(&operand, field);
            return Estimate {
                cost: operand.cost.saturating_add(1),
                ty: found.ty.clone().optional(),
                ..found
            };
        }
        let args: Vec<Estimate> = call.args.iter().map(|a| self.expression(a)).collect();
        let name = qualified.as_deref().unwrap_or(&call.func_name);
        let before = sum(target.iter().chain(&args).map(|e| e.cost));
        let mut out = match self.operator(name, &args) {
            Some(out) => out,
            None => self.function(name, target.as_ref(), &args, &call.args),
        };
        if name == operators::CONDITIONAL
            && let [condition, left, right] = &args[..]
        {
            out.cost = condition.cost.saturating_add(left.cost.max(right.cost));
        } else {
            out.cost = out.cost.saturating_add(before);
        }
        out
    }

    /// An operator, without what its operands cost.
    fn operator(&self, name: &str, args: &[Estimate]) -> Option<Estimate> {
        let smaller = |l: &Estimate, r: &Estimate| share(self.size(l).most.min(self.size(r).most), CHARACTER);
        Some(match (name, args) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, _) => Estimate::computed(0, Ty::Bool),
            (operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE, _) => Estimate::computed(1, Ty::Bool),
            (operators::EQUALS | operators::NOT_EQUALS, [l, r]) => {
                Estimate::computed(smaller(l, r), Ty::Bool)
            }
            (
                operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
                [l, r],
            ) => {
                let open = self.is_open(&l.ty) && self.is_open(&r.ty);
                let text = self.is_text(&l.ty) || self.is_text(&r.ty) || open;
                Estimate::computed(if text { smaller(l, r) } else { 1 }, Ty::Bool)
            }
            (operators::IN, [_, all]) => {
                let looked_at = if self.is_list(&all.ty) || self.is_open(&all.ty) && all.size.is_none() {
                    self.size(all).most
                } else {
                    1
                };
                Estimate::computed(looked_at, Ty::Bool)
            }
            (operators::CONDITIONAL, [_, l, r]) => {
                let empty = Ty::List(Box::new(Ty::Dyn));
                let ty = if l.ty == empty { &r.ty } else { &l.ty };
                Estimate::sized(0, ty.clone(), self.size(l).or(self.size(r)))
            }
            (operators::ADD, [l, r]) => {
                let (left, right) = (self.nodes.scalar(&l.ty), self.nodes.scalar(&r.ty));
                let size = self.size(l).plus(self.size(r));
                let nothing = Ty::List(Box::new(Ty::Dyn));
                let ty = if left == Ty::Dyn || left == nothing {
                    right
                } else {
                    left
                };
                if self.is_list(&l.ty) || self.is_list(&r.ty) {
                    Estimate::sized(1, ty, size)
                } else if self.is_text(&ty) || ty == Ty::Dyn {
                    Estimate::sized(size.read(), ty, size)
                } else {
                    Estimate::computed(1, ty)
                }
            }
            (PAIRS, [of]) => Estimate {
                cost: 0,
                size: Some(self.size(of)),
                place: of.place,
                ty: Ty::List(Box::new(self.nodes.pair(&of.ty))),
            },
            (KEY | VALUE, [of]) => {
                let ty = match &of.ty {
                    Ty::Pair(key, value) => {
                        if name == KEY {
                            key
                        } else {
                            value
                        }
                    }
                    other => other,
                };
                let mut part = of.clone();
                if name == KEY {
                    (part.place, part.size) = (Place::None, Some(Size::up_to(0)));
                }
                Estimate {
                    cost: 0,
                    ty: ty.clone(),
                    ..part
                }
            }
            (operators::INDEX | operators::OPT_INDEX, [of, _]) => {
                let (inner, optional) = of.ty.unwrapped();
                let ty = match self.nodes.scalar(inner) {
                    Ty::Node(id) => self.nodes.indexed(id),
                    Ty::List(inner) => *inner,
                    _ => Ty::Dyn,
                };
                let ty = if optional || name == operators::OPT_INDEX {
                    ty.optional()
                } else {
                    ty
                };
                Estimate {
                    place: self.within(of.place),
                    ..Estimate::computed(1, ty)
                }
            }
            (operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO, [l, _]) => {
                Estimate::computed(1, self.nodes.scalar(&l.ty))
            }
            (operators::NEGATE, [of]) => Estimate::computed(1, self.nodes.scalar(&of.ty)),
            ("dyn", [of]) => Estimate {
                cost: 1,
                ..of.clone()
            },
            _ => return None,
        })
    }

    /// A function, without what its arguments cost.
    fn function(
        &self,
        name: &str,
        target: Option<&Estimate>,
        args: &[Estimate],
        written: &[IdedExpr],
    ) -> Estimate {
        let ty = match (name, target.map(|t| &t.ty)) {
            ("value" | "orValue", Some(Ty::Optional(inner))) => (**inner).clone(),
            ("or", Some(ty)) => (*ty).clone(),
            ("optional.of" | "optional.ofNonZeroValue", _) => {
                args.first().map_or(Ty::Dyn, |a| a.ty.clone()).optional()
            }
            ("optional.none", _) => Ty::Dyn.optional(),
            ("sum" | "max" | "min", Some(_)) => target.map_or(Ty::Dyn, |t| self.element(t).ty),
            _ => returns(name),
        };
        let one = Estimate::computed(1, ty.clone());
        let first = args.first().map(|a| self.size(a));
        let own = target.map(|t| self.size(t));
        let read = |size: Size| Estimate::sized(size.read(), ty.clone(), size);
        let cost = |cost: u64| Estimate::computed(cost, ty.clone());
        match (name, own, first) {
            ("check", ..) => cost(CHECK),
            ("startsWith" | "endsWith", _, Some(part)) => cost(part.read()),
            ("contains", Some(text), Some(part)) => cost(text.read().saturating_mul(part.read())),
            ("matches", Some(text), Some(pattern)) => cost(search(text, pattern)),
            ("find" | "findAll", Some(text), Some(pattern)) => {
                Estimate::sized(search(text, pattern), ty, Size::up_to(text.most))
            }
            ("format" | "strings.quote", Some(text), _) => cost(text.read()),
            ("bytes", _, Some(text)) => {
                Estimate::sized(text.read(), ty, Size::up_to(text.most.saturating_mul(4)))
            }
            ("string", _, Some(bytes)) if self.nodes.scalar(&args[0].ty) == Ty::Bytes => read(bytes),
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(text), _)
            | (
                "url" | "ip" | "cidr" | "quantity" | "semver" | "isIP" | "isCIDR" | "isQuantity" | "isSemver"
                | "ip.isCanonical",
                _,
                Some(text),
            ) => read(text),
            ("replace", Some(text), Some(from)) => {
                let to = args.get(1).map_or(Size::UNKNOWN, |a| self.size(a));
                Estimate::sized(share(text.most, 2.0 * CHARACTER), ty, replaced(text, from, to))
            }
            ("split", Some(text), _) => {
                let most = match written.get(1).map(|e| &e.expr) {
                    Some(Expr::Literal(LiteralValue::Int(n))) => {
                        u64::try_from(*n.inner()).unwrap_or(text.most)
                    }
                    _ => text.most,
                };
                Estimate::sized(share(text.most, 2.0 * CHARACTER), ty, Size::up_to(most))
            }
            ("join", Some(list), _) => {
                let separator = first.map_or(0, |s| s.most);
                let item = target.map_or(0, |t| self.size(&self.element(t)).most);
                let most = list.most.saturating_mul(item);
                let most = most.saturating_add(list.most.saturating_sub(1).saturating_mul(separator));
                read(Size::up_to(most))
            }
            ("indexOf" | "lastIndexOf", Some(text), _) if target.is_some_and(|t| self.is_text(&t.ty)) => {
                cost(text.read())
            }
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(list), _) => {
                let item = target.map_or(0, |t| self.size(&self.element(t)).read());
                cost(list.most.saturating_mul(item.saturating_add(1)))
            }
            ("containsIP" | "containsCIDR", Some(range), Some(inner)) => {
                cost(range.read().saturating_add(inner.read()))
            }
            ("validate", _, Some(text)) => cost(text.read().saturating_mul(share(FORMAT_PATTERN, PATTERN))),
            ("sets.contains" | "sets.intersects" | "sets.equivalent", _, Some(left)) => {
                let right = args.get(1).map_or(Size::UNKNOWN, |a| self.size(a));
                let both = if name == "sets.equivalent" { 2 } else { 1 };
                let pairs = left.most.saturating_mul(right.most).saturating_mul(both);
                cost(pairs.saturating_add(1))
            }
            ("distinct" | "sort", Some(list), _) => {
                let pairs = list.most.saturating_mul(list.most);
                // Texts are looked at to sort them.
                let texts = name == "sort" && target.is_some_and(|t| self.is_text(&self.element(t).ty));
                let read = if texts { share(pairs, CHARACTER) } else { 0 };
                let cost = sum([pairs, pairs, read, LIST + 1]);
                Estimate::sized(cost, ty, list)
            }
            ("slice", Some(list), _) => {
                let at = |i: usize| match written.get(i).map(|e| &e.expr) {
                    Some(Expr::Literal(LiteralValue::Int(n))) => u64::try_from(*n.inner()).ok(),
                    _ => None,
                };
                let part = match (at(0), at(1)) {
                    (Some(from), Some(to)) => to.saturating_sub(from),
                    _ => list.most,
                };
                Estimate::sized(part.saturating_add(LIST + 1), ty, Size::up_to(part))
            }
            ("reverse", Some(list), _) => Estimate::sized(list.most.saturating_add(LIST + 1), ty, list),
            _ => one,
        }
    }
}

/// Looking for a pattern in a text, which may be empty.
fn search(text: Size, pattern: Size) -> u64 {
    let text = text.plus(Size::exactly(1)).read();
    text.saturating_mul(share(pattern.most, PATTERN))
}

/// The size of a text with `from` in it replaced by `to` as often as it can be there.
fn replaced(text: Size, from: Size, to: Size) -> Size {
    let (times, kept) = if from.least == 0 {
        (text.most.saturating_add(1), text.most)
    } else if to.most <= from.least {
        (0, text.most)
    } else {
        (text.most.div_ceil(from.least), 0)
    };
    Size::up_to(times.saturating_mul(to.most).saturating_add(kept))
}

fn sum(parts: impl IntoIterator<Item = u64>) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests;
