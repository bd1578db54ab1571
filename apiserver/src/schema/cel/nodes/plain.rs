//! Nodes of types that no definition has, put together by hand. Their fields are called as they are written.

use super::{Node, Nodes, Property};
use crate::schema::Type;
use std::sync::Arc;

impl Nodes {
    /// A scalar.
    pub(in super::super) fn of_kind(&mut self, kind: Type) -> u32 {
        self.scalar_node(kind)
    }

    /// A list.
    pub(in super::super) fn list_of(&mut self, items: u32) -> u32 {
        self.push(Node {
            kind: Type::Array,
            items: Some(items),
            ..Node::default()
        })
    }

    /// A map from text.
    pub(in super::super) fn map_of(&mut self, values: u32) -> u32 {
        self.push(Node {
            kind: Type::Object,
            additional: Some(values),
            ..Node::default()
        })
    }

    /// An object with these fields.
    pub(in super::super) fn object_of(&mut self, fields: &[(&str, u32)]) -> u32 {
        let mut properties: Vec<Property> = fields
            .iter()
            .map(|(name, node)| Property {
                name: (*name).into(),
                escaped: Some(Arc::new((*name).to_owned())),
                node: *node,
            })
            .collect();
        properties.sort_by(|a, b| a.name.cmp(&b.name));
        self.push(Node {
            kind: Type::Object,
            properties,
            ..Node::default()
        })
    }
}
