//! Optional values: what steps into them and their functions give.

use super::{Infer, Info, Ty, definite, shown};
use kube::core::cel::cel::common::ast::operators;

impl Ty {
    /// An optional of this; an optional stays what it is.
    pub(in super::super) fn optional(self) -> Self {
        match self {
            Self::Optional(_) => self,
            inner => Self::Optional(Box::new(inner)),
        }
    }

    /// What is inside, and whether this is an optional.
    pub(in super::super) fn unwrapped(&self) -> (&Self, bool) {
        match self {
            Self::Optional(inner) => (inner, true),
            other => (other, false),
        }
    }

    /// The type of what has one of two types, where one of them says more about what an optional holds.
    pub(in super::super) fn joined(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Optional(l), Self::Optional(r)) if **l == Self::Dyn => Some(Self::Optional(r.clone())),
            (Self::Optional(l), Self::Optional(r)) if **r == Self::Dyn => Some(Self::Optional(l.clone())),
            _ => None,
        }
    }
}

impl Infer<'_> {
    /// `target.?field`
    pub(super) fn optional_field(&mut self, target: &Info, field: &str) -> Info {
        let found = self.select(target, field);
        Info {
            ty: found.ty.clone().optional(),
            ..found
        }
    }

    /// What is at an index, which of an optional is optional as well.
    pub(super) fn step(&mut self, name: &str, target: &Info, cost: f64) -> Info {
        let (inner, optional) = target.ty.unwrapped();
        let inside = Info {
            ty: inner.clone(),
            ..target.clone()
        };
        let found = self.indexed(&inside, cost);
        if optional || name == operators::OPT_INDEX {
            let ty = found.ty.clone().optional();
            return Info { ty, ..found };
        }
        found
    }

    /// The functions of optionals; `None` where it is another one.
    pub(super) fn optional_function(
        &mut self,
        name: &str,
        target: Option<&Info>,
        args: &[Info],
        cost: f64,
    ) -> Option<Info> {
        if name == "optional.none" && args.is_empty() {
            return Some(Info::scalar(Ty::Dyn.optional(), cost));
        }
        if let ("optional.of" | "optional.ofNonZeroValue", [arg]) = (name, args) {
            let ty = Ty::Optional(Box::new(arg.ty.clone()));
            return Some(Info {
                ty,
                cost: cost + arg.weight,
                ..arg.clone()
            });
        }
        let wanted = match name {
            "hasValue" | "value" => 0,
            "orValue" | "or" => 1,
            _ => return None,
        };
        let target = target?;
        let (inner, optional) = target.ty.unwrapped();
        let inner = inner.clone();
        let shown_target = self.nodes.scalar(&target.ty);
        let mismatch = match args {
            [arg] if name == "orValue" => {
                let (l, r) = (self.nodes.scalar(&inner), self.nodes.scalar(&arg.ty));
                definite(&l) && definite(&r) && l != r
            }
            [arg] if name == "or" => !matches!(arg.ty, Ty::Optional(_) | Ty::Dyn),
            _ => false,
        };
        if args.len() != wanted || !optional && shown_target != Ty::Dyn || mismatch {
            let types: Vec<String> = args.iter().map(|a| shown(&self.nodes.scalar(&a.ty))).collect();
            let message = format!(
                "found no matching overload for '{name}' applied to '{}.({})'",
                shown(&self.inside(&target.ty)),
                types.join(", ")
            );
            self.error(&format!("{name}("), &message);
        }
        let other = args.first();
        let length = target.length.max(other.map_or(0.0, |o| o.length));
        let weight = target.weight.max(other.map_or(0.0, |o| o.weight));
        let ty = match name {
            "hasValue" => return Some(Info::scalar(Ty::Bool, cost)),
            "or" => other
                .and_then(|o| target.ty.joined(&o.ty))
                .unwrap_or_else(|| target.ty.clone()),
            "orValue" if inner == Ty::Dyn => other.map_or(Ty::Dyn, |o| o.ty.clone()),
            _ => inner,
        };
        Some(Info {
            ty,
            length,
            weight,
            cost: cost + weight,
        })
    }

    /// A type with the scalar that an optional holds named.
    fn inside(&self, ty: &Ty) -> Ty {
        match ty.unwrapped() {
            (inner, true) => self.nodes.scalar(inner).optional(),
            (other, false) => self.nodes.scalar(other),
        }
    }
}
