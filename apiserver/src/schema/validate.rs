//! Checking custom resources against their schema, with kube-apiserver's messages (kube-openapi `validation/validate` as
//! apiextensions turns it into field errors, and apiextensions `schema/listtype`).

use super::{ListType, Schema, Type, builtin, formats, regexes};
use crate::error::{FieldError, FieldErrorKind};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

/// What is wrong with `new`. `path` is prepended to the fields' paths (`""` for a whole object).
///
/// On update, `old` is the stored object: what has not changed is not judged again (KEP-4008, ratcheting).
pub fn validate(schema: &Schema, new: &Value, old: Option<&Value>, path: &str) -> Vec<FieldError> {
    let mut run = Run {
        errors: Vec::new(),
        path: path.to_owned(),
    };
    run.node(schema, new, old);
    run.uniqueness(schema, new, old);
    run.errors
}

/// The error that says that CEL rules were not run because of `errors`, when there is one among them that blocks them.
pub fn unchecked_rules(errors: &[FieldError]) -> Option<FieldError> {
    use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    let blocks = |e: &FieldError| matches!(e.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid);
    errors.iter().any(blocks).then(|| {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing errors \
                      to complete validation";
        FieldError::invalid("<nil>", &Value::Null, detail)
    })
}

/// Nobody reads more of them, and an object may have hundreds of thousands.
const MOST_ERRORS: usize = 1000;

struct Run {
    errors: Vec<FieldError>,
    path: String,
}

/// The JSON type as OpenAPI names it.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if is_integer(n) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_integer(n: &serde_json::Number) -> bool {
    n.is_i64() || n.is_u64() || n.as_f64().is_some_and(|f| f.fract() == 0.0)
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(x), Some(y)) => x.total_cmp(&y).is_eq(),
        _ => a == b,
    }
}

impl Run {
    fn within(&mut self, key: &str, body: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        body(self);
        self.path.truncate(length);
    }

    fn at(&mut self, index: usize, body: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        let _ = write!(self.path, "[{index}]");
        body(self);
        self.path.truncate(length);
    }

    fn field(&self) -> String {
        if self.path.is_empty() {
            "<nil>".into()
        } else {
            self.path.clone()
        }
    }

    fn push(&mut self, kind: FieldErrorKind, message: String) {
        let field = self.field();
        self.errors.push(FieldError::new(kind, field, message));
    }

    /// `<path> in body should …`, about `value`.
    fn should(&mut self, value: &Value, rule: &str) {
        let detail = format!("{} in body should {rule}", self.path);
        let field = self.field();
        self.errors.push(FieldError::invalid(field, value, &detail));
    }

    /// A value of a type or format that is not the schema's.
    fn wrong_type(&mut self, wanted: &str, got: &str) {
        let message = format!(
            "Invalid value: {got:?}: {} in body must be of type {wanted}: {got:?}",
            self.path
        );
        self.push(FieldErrorKind::TypeInvalid, message);
    }

    /// Kube's composite errors name the path in the text and not as the field.
    fn composite(&mut self, rest: &str) {
        let message = format!("Invalid value: \"\": {:?} {rest}", self.path);
        self.errors
            .push(FieldError::new(FieldErrorKind::Invalid, "<nil>", message));
    }

    fn node(&mut self, schema: &Schema, new: &Value, old: Option<&Value>) {
        if old == Some(new) || self.errors.len() > MOST_ERRORS {
            return;
        }
        self.kind(schema, new);
        let allowed_null = new.is_null() && schema.nullable;
        if !schema.enumeration.is_empty() && !allowed_null {
            self.enumeration(schema, new);
        }
        match new {
            Value::Object(map) => self.object(schema, map, old),
            Value::Array(list) => self.list(schema, new, list, old),
            Value::String(text) => self.text(schema, new, text),
            Value::Number(number) => self.number(schema, new, number),
            Value::Null | Value::Bool(_) => {}
        }
        self.combined(schema, new, old);
    }

    fn kind(&mut self, schema: &Schema, new: &Value) {
        let ok = match (schema.kind, new) {
            (Type::Any, _)
            | (Type::Object, Value::Object(_))
            | (Type::Array, Value::Array(_))
            | (Type::String | Type::IntOrString | Type::Quantity, Value::String(_))
            | (Type::Number | Type::Quantity, Value::Number(_))
            | (Type::Boolean, Value::Bool(_)) => true,
            (Type::Integer | Type::IntOrString, Value::Number(n)) => is_integer(n),
            (_, Value::Null) => schema.nullable,
            _ => false,
        };
        if !ok {
            let format = schema
                .format
                .as_deref()
                .filter(|f| matches!(*f, "int32" | "int64"));
            if let (Type::Integer, Value::Number(_), Some(format)) = (schema.kind, new, format) {
                self.wrong_type(format, "float64");
                self.not_of_format(format);
                return;
            }
            let wanted = match schema.kind {
                Type::Any => "any",
                Type::Object => "object",
                Type::Array => "array",
                Type::String => "string",
                Type::Integer => "integer",
                Type::Number => "number",
                Type::Boolean => "boolean",
                Type::IntOrString => "integer,string",
                Type::Quantity => "string,number",
            };
            self.wrong_type(wanted, type_name(new));
        }
    }

    fn enumeration(&mut self, schema: &Schema, new: &Value) {
        if schema.enumeration.iter().any(|allowed| equal(allowed, new)) {
            return;
        }
        let allowed: Vec<String> = schema
            .enumeration
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .collect();
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        let field = self.field();
        self.errors.push(FieldError::not_supported(field, new, &allowed));
    }

    fn object(&mut self, schema: &Schema, map: &Map<String, Value>, old: Option<&Value>) {
        let count = map.len() as u64;
        if let Some(max) = schema.max_properties.filter(|max| count > *max) {
            self.too_many(count, max);
        }
        if let Some(min) = schema.min_properties.filter(|min| count < *min) {
            self.should(&count.into(), &format!("have at least {min} properties"));
        }
        for name in &schema.required {
            if !map.contains_key(&**name) {
                self.within(name, |run| {
                    run.push(FieldErrorKind::Required, "Required value".into());
                });
            }
        }
        if schema.embedded_resource {
            for name in ["apiVersion", "kind"] {
                if map.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                    self.within(name, |run| {
                        run.push(FieldErrorKind::Required, "Required value".into());
                    });
                }
            }
            let version = map.get("apiVersion").unwrap_or(&Value::Null);
            if let Some(text) = version.as_str().filter(|text| text.matches('/').count() > 1) {
                self.within("apiVersion", |run| {
                    let why = format!("unexpected GroupVersion string: {text}");
                    run.push(FieldErrorKind::Invalid, format!("Invalid value: {text:?}: {why}"));
                });
            }
            let labels = map.get("metadata").map_or(&Value::Null, |m| &m["labels"]);
            let dot = if self.path.is_empty() { "" } else { "." };
            let field = format!("{}{dot}metadata.labels", self.path);
            self.errors
                .extend(crate::registry::strategy::validate_labels(labels, &field));
        }
        for (key, value) in map {
            if let Some(child) = schema.child(key) {
                let old = old.and_then(|o| o.get(key));
                self.within(key, |run| run.node(child, value, old));
            }
        }
    }

    fn too_many(&mut self, count: u64, max: u64) {
        let plural = if max == 1 { "item" } else { "items" };
        self.push(
            FieldErrorKind::TooMany,
            format!("Too many: {count}: must have at most {max} {plural}"),
        );
    }

    fn list(&mut self, schema: &Schema, new: &Value, list: &[Value], old: Option<&Value>) {
        let count = list.len() as u64;
        if let Some(max) = schema.max_items.filter(|max| count > *max) {
            self.too_many(count, max);
        }
        if let Some(min) = schema.min_items.filter(|min| count < *min) {
            self.should(&count.into(), &format!("have at least {min} items"));
        }
        if schema.unique_items && list.iter().map(Value::to_string).collect::<HashSet<_>>().len() < list.len()
        {
            let detail = format!("{} in body shouldn't contain duplicates", self.path);
            let field = self.field();
            self.errors.push(FieldError::invalid(field, new, &detail));
        }
        if let Some(items) = schema.items() {
            let mut former = schema.former(old);
            for (i, item) in list.iter().enumerate() {
                let old = former.as_mut().and_then(|f| f.find(i, item));
                self.at(i, |run| run.node(items, item, old));
            }
        }
    }

    fn text(&mut self, schema: &Schema, new: &Value, text: &str) {
        let length = text.chars().count() as u64;
        if let Some(max) = schema.max_length.filter(|max| length > *max) {
            let plural = if max == 1 { "byte" } else { "bytes" };
            self.push(
                FieldErrorKind::TooLong,
                format!("Too long: may not be more than {max} {plural}"),
            );
        } else if let Some(min) = schema.min_length.filter(|min| length < *min) {
            self.should(new, &format!("be at least {min} chars long"));
        } else if let Some(pattern) = &schema.pattern {
            match regexes::compile(pattern) {
                Ok(re) if re.is_match(text) => {}
                Ok(_) => self.should(new, &format!("match '{pattern}'")),
                Err(e) => self.should(new, &format!("match '{pattern}', but pattern is invalid: {e}")),
            }
        }
        if let Some(format) = &schema.format
            && !formats::matches(format, text)
        {
            self.wrong_type(format, text);
        }
    }

    fn not_of_format(&mut self, format: &str) {
        let message = format!(
            "Invalid value: \"\": Checked value must be of type integer with format {format} in {}",
            self.path
        );
        self.errors
            .push(FieldError::new(FieldErrorKind::Invalid, "<nil>", message));
    }

    fn number(&mut self, schema: &Schema, new: &Value, number: &serde_json::Number) {
        let value = number.as_f64().unwrap_or(f64::NAN);
        if let (Type::Integer, Some(format)) = (schema.kind, schema.format.as_deref()) {
            let fits = match format {
                "int32" => value >= f64::from(i32::MIN) && value <= f64::from(i32::MAX),
                "uint32" => value >= 0.0 && value <= f64::from(u32::MAX),
                "int64" => number.is_i64() || (!number.is_u64() && value.abs() < 9.3e18),
                _ => true,
            };
            if !fits {
                self.not_of_format(format);
            }
        }
        if let Some(factor) = schema.multiple_of {
            let quotient = value / factor;
            if (quotient - quotient.round()).abs() > 1e-9 {
                self.should(new, &format!("be a multiple of {factor}"));
            }
        }
        if let Some(max) = schema.maximum {
            if schema.exclusive_maximum && value >= max {
                self.should(new, &format!("be less than {max}"));
            } else if value > max {
                self.should(new, &format!("be less than or equal to {max}"));
            }
        }
        if let Some(min) = schema.minimum {
            if schema.exclusive_minimum && value <= min {
                self.should(new, &format!("be greater than {min}"));
            } else if value < min {
                self.should(new, &format!("be greater than or equal to {min}"));
            }
        }
    }

    /// The errors of `schema` alone, at the same path.
    fn branch(&self, schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut run = Self {
            errors: Vec::new(),
            path: self.path.clone(),
        };
        run.node(schema, new, old);
        run.errors
    }

    fn combined(&mut self, schema: &Schema, new: &Value, old: Option<&Value>) {
        let count_valid = |results: &[Vec<FieldError>]| results.iter().filter(|r| r.is_empty()).count();
        // The branch that came closest explains best.
        let closest =
            |results: Vec<Vec<FieldError>>| results.into_iter().min_by_key(Vec::len).unwrap_or_default();
        let branches = |run: &Self, list: &[Schema]| -> Vec<Vec<FieldError>> {
            list.iter().map(|s| run.branch(s, new, old)).collect()
        };
        if !schema.any_of.is_empty() {
            let results = branches(self, &schema.any_of);
            if count_valid(&results) == 0 {
                self.composite("must validate at least one schema (anyOf)");
                self.errors.extend(closest(results));
            }
        }
        if !schema.one_of.is_empty() {
            let results = branches(self, &schema.one_of);
            match count_valid(&results) {
                1 => {}
                0 => {
                    self.composite("must validate one and only one schema (oneOf). Found none valid");
                    self.errors.extend(closest(results));
                }
                n => {
                    let rest = format!(
                        "must validate one and only one schema (oneOf). Found {n} valid alternatives"
                    );
                    self.composite(&rest);
                }
            }
        }
        if !schema.all_of.is_empty() {
            let results = branches(self, &schema.all_of);
            let valid = count_valid(&results);
            self.errors.extend(results.into_iter().flatten());
            if valid == 0 {
                self.composite("must validate all the schemas (allOf). None validated");
            } else if valid < schema.all_of.len() {
                self.composite("must validate all the schemas (allOf)");
            }
        }
        if let Some(not) = &schema.not
            && self.branch(not, new, old).is_empty()
        {
            self.composite("must not validate the schema (not)");
        }
    }

    /// Items of sets, and keys of lists that are maps, appear once.
    fn uniqueness(&mut self, schema: &Schema, new: &Value, old: Option<&Value>) {
        if old == Some(new) || self.errors.len() > MOST_ERRORS {
            return;
        }
        match new {
            Value::Object(map) => {
                for (key, value) in map {
                    if let Some(child) = schema.child(key) {
                        let old = old.and_then(|o| o.get(key));
                        self.within(key, |run| run.uniqueness(child, value, old));
                    }
                }
            }
            Value::Array(list) => {
                let mut seen: HashMap<String, u32> = HashMap::new();
                let mut former = schema.former(old);
                for (i, item) in list.iter().enumerate() {
                    let identity = match &schema.list_type {
                        Some(ListType::Set) => Some(item.clone()),
                        Some(ListType::Map(keys)) => Some(Self::keys_of(schema, keys, item)),
                        _ => None,
                    };
                    // What is there more often is told of once.
                    let second = |identity: &Value| {
                        let times = seen.entry(identity.to_string()).or_default();
                        *times += 1;
                        *times == 2
                    };
                    if let Some(identity) = identity.filter(second) {
                        self.at(i, |run| {
                            run.errors
                                .push(FieldError::duplicate(run.path.clone(), &identity));
                        });
                    }
                    let old = former.as_mut().and_then(|f| f.find(i, item));
                    self.at(i, |run| {
                        run.uniqueness(schema.items().unwrap_or_else(|| builtin::any()), item, old);
                    });
                }
            }
            _ => {}
        }
    }

    fn keys_of(schema: &Schema, keys: &[Box<str>], item: &Value) -> Value {
        let mut identity = Map::new();
        for key in keys {
            let value = item
                .get(&**key)
                .or_else(|| schema.items()?.property(key)?.default.as_ref());
            if let Some(value) = value {
                identity.insert(key.to_string(), value.clone());
            }
        }
        Value::Object(identity)
    }
}

#[cfg(test)]
mod tests;
