//! One step of a field path, as managedFields name it: a field, a list item by its keys, a set member, an index.

use serde_json::Value;
use std::cmp::Ordering;
use std::fmt::{self, Write as _};

/// Selects a child of a value.
#[derive(Debug, Clone)]
pub enum PathElement {
    /// A field of a map.
    Field(Box<str>),
    /// The item of a list-map with these keys, sorted by name.
    Key(Box<[(Box<str>, Value)]>),
    /// The member of a set with this value.
    Item(Value),
    /// The item at this place.
    Index(i64),
}

/// A path from the object's root.
pub type Path = [PathElement];

impl PathElement {
    /// The element of a field.
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// The element of a list item with these keys.
    pub fn key(mut keys: Vec<(Box<str>, Value)>) -> Self {
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        Self::Key(keys.into())
    }

    /// The key this element has in fieldsV1.
    pub fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => {
                let mut text = String::from("k:{");
                for (i, (name, value)) in keys.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    // Writing to a String does not fail.
                    let _ = write!(text, "{comma}{}:{value}", Value::from(&**name));
                }
                text.push('}');
                text
            }
            Self::Item(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// Reads a key of fieldsV1. `Ok(None)` for a kind of element that is not known (a later server's).
    pub fn decode(text: &str) -> Result<Option<Self>, String> {
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(format!("missing colon: {text}"));
        };
        let json = || serde_json::from_str::<Value>(rest).map_err(|e| format!("{text}: {e}"));
        match kind {
            "f" => Ok(Some(Self::field(rest))),
            "v" => Ok(Some(Self::Item(json()?))),
            "k" => match json()? {
                Value::Object(map) => Ok(Some(Self::key(
                    map.into_iter().map(|(k, v)| (k.into_boxed_str(), v)).collect(),
                ))),
                other => Err(format!("expected keys, got {other}")),
            },
            "i" => rest
                .parse()
                .map(|index| Some(Self::Index(index)))
                .map_err(|_| format!("not an index: {rest}")),
            _ => Ok(None),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Item(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => a
                .iter()
                .zip(b.iter())
                .map(|(x, y)| x.0.cmp(&y.0).then_with(|| compare_values(&x.1, &y.1)))
                .find(|o| o.is_ne())
                .unwrap_or_else(|| a.len().cmp(&b.len())),
            (Self::Item(a), Self::Item(b)) => compare_values(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for PathElement {}

impl fmt::Display for PathElement {
    /// As conflicts and errors show it: `.field`, `[name="c"]`, `[="x"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                f.write_str("[")?;
                for (i, (name, value)) in keys.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            Self::Item(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A whole path as text.
pub fn shown(path: &Path) -> String {
    path.iter().map(ToString::to_string).collect()
}

/// A total order of JSON values in which `1` and `1.0` are equal: numbers, strings, booleans, lists, maps, null.
pub fn compare_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64(), x.as_u64(), y.as_u64()) {
            (Some(x), Some(y), _, _) => x.cmp(&y),
            (_, _, Some(x), Some(y)) => x.cmp(&y),
            _ => x
                .as_f64()
                .unwrap_or(f64::NAN)
                .total_cmp(&y.as_f64().unwrap_or(f64::NAN)),
        },
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        (Value::Array(x), Value::Array(y)) => x
            .iter()
            .zip(y)
            .map(|(p, q)| compare_values(p, q))
            .find(|o| o.is_ne())
            .unwrap_or_else(|| x.len().cmp(&y.len())),
        (Value::Object(x), Value::Object(y)) => x
            .iter()
            .zip(y)
            .map(|(p, q)| p.0.cmp(q.0).then_with(|| compare_values(p.1, q.1)))
            .find(|o| o.is_ne())
            .unwrap_or_else(|| x.len().cmp(&y.len())),
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Whether two values mean the same; `1` and `1.0` do.
pub fn same(a: &Value, b: &Value) -> bool {
    compare_values(a, b).is_eq()
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}
