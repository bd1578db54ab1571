//! The parts of loops over two variables.

use super::{Infer, Info, Ty};
use crate::schema::cel::nodes::Nodes;
use crate::schema::cel::rewrite::pairs::{KEY, PAIRS, VALUE};

impl Nodes {
    /// A list's indices or a map's keys, and the values.
    pub(in super::super) fn pair(&self, ty: &Ty) -> Ty {
        let (key, value) = match self.scalar(ty) {
            Ty::Node(id) => match self.elements(id) {
                Some(Ty::String) if !self.is_list(id) => (Ty::String, self.indexed(id)),
                Some(item) => (Ty::Int, item),
                None => (Ty::Dyn, Ty::Dyn),
            },
            Ty::List(item) => (Ty::Int, *item),
            Ty::Map(key, value) => (*key, *value),
            _ => (Ty::Dyn, Ty::Dyn),
        };
        Ty::Pair(Box::new(key), Box::new(value))
    }
}

impl Infer<'_> {
    pub(super) fn pairs(&mut self, name: &str, args: &[Info], cost: f64) -> Option<Info> {
        let [of] = args else { return None };
        let ty = match (name, &of.ty) {
            (PAIRS, _) => {
                self.check_range(of);
                Ty::List(Box::new(self.nodes.pair(&of.ty)))
            }
            (KEY, Ty::Pair(key, _)) => (**key).clone(),
            (VALUE, Ty::Pair(_, value)) => (**value).clone(),
            (KEY | VALUE, _) => Ty::Dyn,
            _ => return None,
        };
        if let Ty::Node(_) = ty {
            return Some(self.of(ty, cost));
        }
        let weight = if name == PAIRS {
            of.weight * 2.0 + of.length
        } else {
            of.weight
        };
        Some(Info {
            ty,
            weight,
            cost: cost + weight,
            length: of.length,
        })
    }
}
