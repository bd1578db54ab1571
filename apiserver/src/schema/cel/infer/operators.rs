//! What operators give, and which types they take.

use super::{Infer, Info, Ty, shown};
use kube::core::cel::cel::common::ast::operators;

impl Infer<'_> {
    pub(super) fn operator(&mut self, name: &str, args: &[Info], cost: f64) -> Option<Info> {
        Some(match (name, args) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT, _) => {
                for arg in args {
                    let ty = self.nodes.scalar(&arg.ty);
                    if ty != Ty::Bool && ty != Ty::Dyn {
                        self.overload(name, args);
                        break;
                    }
                }
                Info::scalar(Ty::Bool, cost)
            }
            (operators::NOT_STRICTLY_FALSE | operators::IN, _) => Info::scalar(Ty::Bool, cost),
            (
                operators::EQUALS
                | operators::NOT_EQUALS
                | operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                [left, right],
            ) => {
                self.comparable(name, left, right);
                Info::scalar(Ty::Bool, cost)
            }
            (operators::CONDITIONAL, [_, left, right]) => {
                if matches!((&left.ty, &right.ty), (Ty::Message(l), Ty::Message(r)) if l != r) {
                    self.overload(name, args);
                }
                let ty = if left.ty == right.ty || right.ty == Ty::List(Box::new(Ty::Dyn)) {
                    left.ty.clone()
                } else if left.ty == Ty::List(Box::new(Ty::Dyn)) {
                    right.ty.clone()
                } else if let Some(joined) = left.ty.joined(&right.ty) {
                    joined
                } else {
                    let (l, r) = (self.nodes.scalar(&left.ty), self.nodes.scalar(&right.ty));
                    if l == r { l } else { Ty::Dyn }
                };
                Info {
                    ty,
                    length: left.length.max(right.length),
                    weight: left.weight.max(right.weight),
                    cost,
                }
            }
            (operators::ADD, [left, right]) => {
                self.arithmetic(name, left, right);
                let (l, r) = (self.nodes.scalar(&left.ty), self.nodes.scalar(&right.ty));
                let nothing = Ty::List(Box::new(Ty::Dyn));
                let ty = if l == r || r == nothing {
                    l
                } else if l == nothing {
                    r
                } else {
                    Ty::Dyn
                };
                Info {
                    ty,
                    length: left.length + right.length,
                    weight: left.weight + right.weight,
                    cost,
                }
            }
            (
                operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO,
                [left, right],
            ) => {
                self.arithmetic(name, left, right);
                let (l, r) = (self.nodes.scalar(&left.ty), self.nodes.scalar(&right.ty));
                Info::scalar(
                    if l == r && matches!(l, Ty::Int | Ty::Uint | Ty::Double) {
                        l
                    } else {
                        Ty::Dyn
                    },
                    cost,
                )
            }
            (operators::NEGATE, [value]) => Info::scalar(self.nodes.scalar(&value.ty), cost),
            (operators::INDEX | operators::OPT_INDEX, [target, _]) => self.step(name, target, cost),
            ("dyn", [of]) => Info {
                ty: Ty::Dyn,
                cost,
                ..of.clone()
            },
            _ => return self.pairs(name, args, cost),
        })
    }

    pub(super) fn indexed(&mut self, target: &Info, cost: f64) -> Info {
        match self.nodes.scalar(&target.ty) {
            Ty::Node(id) => {
                if self.nodes.is_structure(id) {
                    let message = "found no matching overload for '_[_]' applied to '(object, string)'";
                    self.error("[", message);
                }
                let ty = self.nodes.indexed(id);
                if ty == Ty::Dyn {
                    Info {
                        ty,
                        cost,
                        ..target.clone()
                    }
                } else {
                    self.of(ty, cost)
                }
            }
            Ty::List(inner) | Ty::Map(_, inner) => Info {
                ty: *inner,
                cost,
                ..target.clone()
            },
            _ => Info {
                ty: Ty::Dyn,
                cost,
                ..target.clone()
            },
        }
    }

    /// Whether two values can be added, subtracted and so on, where both types are known.
    fn arithmetic(&mut self, name: &str, left: &Info, right: &Info) {
        let (l, r) = (self.nodes.scalar(&left.ty), self.nodes.scalar(&right.ty));
        let fits = match (name, &l, &r) {
            (operators::MODULO, Ty::Double, _) => false,
            (operators::ADD, Ty::String | Ty::Bytes, _) | (_, Ty::Int | Ty::Uint | Ty::Double, _) => l == r,
            (operators::ADD, Ty::Timestamp, _) | (operators::SUBSTRACT, Ty::Duration, _) => r == Ty::Duration,
            (operators::ADD, Ty::Duration, _) | (operators::SUBSTRACT, Ty::Timestamp, _) => {
                matches!(r, Ty::Duration | Ty::Timestamp)
            }
            _ => false,
        };
        if definite(&l) && definite(&r) && !fits {
            self.overload(name, &[left.clone(), right.clone()]);
        }
    }

    fn comparable(&mut self, name: &str, left: &Info, right: &Info) {
        let (l, r) = (self.nodes.scalar(&left.ty), self.nodes.scalar(&right.ty));
        let numeric = |t: &Ty| matches!(t, Ty::Int | Ty::Uint | Ty::Double);
        let ordered = name != operators::EQUALS && name != operators::NOT_EQUALS;
        let optionals = matches!((&l, &r), (Ty::Optional(_), Ty::Optional(_)));
        if definite(&l) && definite(&r) && l != r && !optionals && !(ordered && numeric(&l) && numeric(&r)) {
            self.overload(name, &[left.clone(), right.clone()]);
        }
    }

    fn overload(&mut self, name: &str, args: &[Info]) {
        let types: Vec<String> = args.iter().map(|a| shown(&self.nodes.scalar(&a.ty))).collect();
        let sign = match name {
            operators::CONDITIONAL => "?",
            other => other.trim_matches('_'),
        };
        let sign = sign.to_owned();
        let message = format!(
            "found no matching overload for '{name}' applied to '({})'",
            types.join(", ")
        );
        self.error(&sign, &message);
    }
}

/// Whether values of a type are of one kind, whatever is in them.
pub(super) fn definite(ty: &Ty) -> bool {
    matches!(
        ty,
        Ty::Bool
            | Ty::Int
            | Ty::Uint
            | Ty::Double
            | Ty::String
            | Ty::Bytes
            | Ty::Timestamp
            | Ty::Duration
            | Ty::Optional(_)
    )
}
