//! How large values can be, by their schema or by what a request may hold.

use crate::schema::{Schema, Type};

/// The largest request, in bytes.
const REQUEST: u64 = 3 << 20;
/// The same without the quotation marks or brackets around a value.
const INSIDE: u64 = REQUEST - 2;
/// Looking at a character.
pub(super) const CHARACTER: f64 = 0.1;
/// A character of a regular expression.
pub(super) const PATTERN: f64 = 0.25;

/// How large the values of a node can be.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::schema::cel) struct Bound {
    /// Items, entries or bytes, at most.
    pub(in crate::schema::cel) most: u64,
    /// Bytes of the shortest value, written as JSON.
    least: u64,
}

impl Bound {
    /// How many such values fit into a request.
    pub(in crate::schema::cel) fn in_a_request(self) -> u64 {
        REQUEST / (self.least + 1)
    }

    pub(in crate::schema::cel) fn of(schema: &Schema) -> Self {
        let (most, least) = match schema.kind {
            Type::Array => {
                let items = schema.items().map_or(0, |s| Self::of(s).least);
                (schema.max_items.unwrap_or(INSIDE / (items + 1)), 2)
            }
            Type::Object => match schema.additional() {
                Some(values) => {
                    let entry = Self::of(values).least + 6;
                    (schema.max_properties.unwrap_or(INSIDE / entry), 2)
                }
                None => (
                    0,
                    2 + schema
                        .required
                        .iter()
                        .map(|name| member(schema, name))
                        .sum::<u64>(),
                ),
            },
            Type::String => text(schema),
            Type::Boolean => (0, 4),
            Type::Integer | Type::Number => (0, 1),
            Type::IntOrString | Type::Quantity => (INSIDE, 1),
            Type::Any => (u64::MAX, 0),
        };
        Self { most, least }
    }
}

/// What a field that must be there adds to an object.
fn member(schema: &Schema, name: &str) -> u64 {
    match schema.property(name) {
        Some(field) if field.default.is_none() => name.len() as u64 + Bound::of(field).least + 4,
        _ => 0,
    }
}

fn text(schema: &Schema) -> (u64, u64) {
    match schema.format.as_deref() {
        Some("byte") => (schema.max_length.unwrap_or(INSIDE), 2),
        Some("duration") => (32, 3),
        Some("date") => (12, 12),
        Some("date-time") => (32, 21),
        _ => {
            // A character may take four bytes.
            let longest = schema
                .enumeration
                .iter()
                .filter_map(|v| v.as_str())
                .map(str::len)
                .max();
            let most = match (schema.max_length, longest) {
                (Some(length), _) => length.saturating_mul(4),
                (None, Some(longest)) => longest as u64,
                (None, None) => INSIDE,
            };
            (most, 2)
        }
    }
}

/// Items or bytes of a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Size {
    pub(super) const UNKNOWN: Self = Self {
        least: 0,
        most: u64::MAX,
    };

    pub(super) fn exactly(n: usize) -> Self {
        Self {
            least: n as u64,
            most: n as u64,
        }
    }

    pub(super) fn up_to(most: u64) -> Self {
        Self { least: 0, most }
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            most: self.most.max(other.most),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            least: self.least.saturating_add(other.least),
            most: self.most.saturating_add(other.most),
        }
    }

    /// Looking at all of it.
    pub(super) fn read(self) -> u64 {
        share(self.most, CHARACTER)
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)] // saturates
pub(super) fn share(n: u64, factor: f64) -> u64 {
    (n as f64 * factor).ceil() as u64
}
