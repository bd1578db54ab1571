//! Request bodies: size limit, JSON with duplicate keys noticed, YAML, and the type an object claims to be.

use super::negotiate::Format;
use super::params::FieldValidation;
use super::{go_json, known, protobuf};
use crate::ApiError;
use crate::error::FieldError;
use crate::registry::{Registry, Resource};
use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};

/// Up to here every whole number is a floating-point one too.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// Largest body taken, as kube-apiserver's.
pub const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// Reads a body, at most [`BODY_LIMIT`] bytes.
pub async fn read<B>(body: B) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: fmt::Display,
{
    let too_large =
        || ApiError::RequestEntityTooLarge(format!("Request entity too large: limit is {BODY_LIMIT}"));
    if body.size_hint().lower() > BODY_LIMIT as u64 {
        return Err(too_large());
    }
    let mut body = std::pin::pin!(body);
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::BadRequest(format!("error reading the body: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.as_ref().map_or(0, Bytes::len) + rest.len();
        if so_far + data.len() > BODY_LIMIT {
            return Err(too_large());
        }
        match &first {
            None => first = Some(data),
            Some(_) => rest.extend_from_slice(&data),
        }
    }
    Ok(match first {
        None => Bytes::new(),
        Some(only) if rest.is_empty() => only,
        Some(only) => {
            let mut whole = BytesMut::from(&only[..]);
            whole.extend_from_slice(&rest);
            whole.freeze()
        }
    })
}

/// A parsed body and what it says twice (the last one wins).
#[derive(Debug, Default)]
pub struct Parsed {
    /// The document.
    pub value: Value,
    /// What a strict reader says of each key met again.
    pub duplicates: Vec<String>,
    /// The JSON it was read from, which knows the order of its keys.
    source: Bytes,
}

impl Parsed {
    /// Puts paths in the order in which the document has them.
    pub fn in_order(&self, paths: &mut [String]) {
        if paths.len() < 2 || self.source.is_empty() {
            return;
        }
        let (duplicates, order) = (RefCell::default(), RefCell::default());
        let seed = Seed {
            place: Place::Root,
            notes: Notes {
                duplicates: &duplicates,
                order: Some(&order),
            },
        };
        let mut de = serde_json::Deserializer::from_slice(&self.source);
        if seed.deserialize(&mut de).is_ok() {
            let order: Vec<String> = order.into_inner();
            let places: HashMap<&str, usize> = order
                .iter()
                .enumerate()
                .map(|(i, path)| (path.as_str(), i))
                .collect();
            paths.sort_by_key(|path| places.get(path.as_str()).copied().unwrap_or(usize::MAX));
        }
    }
}

#[derive(Clone, Copy)]
struct Notes<'a> {
    duplicates: &'a RefCell<Duplicates>,
    order: Option<&'a RefCell<Vec<String>>>,
}

/// Where a value stands. Only what is wrong somewhere needs its name.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, key) => f.write_str(key),
            Self::Field(above, key) => write!(f, "{above}.{key}"),
            Self::Item(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

/// Keys met again, in order, each once.
#[derive(Default)]
struct Duplicates {
    problems: Vec<String>,
    seen: HashSet<String>,
}

struct Seed<'a> {
    place: Place<'a>,
    notes: Notes<'a>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        loop {
            let place = Place::Item(&self.place, out.len());
            match seq.next_element_seed(Seed {
                place,
                notes: self.notes,
            })? {
                Some(v) => out.push(v),
                None => return Ok(Value::Array(out)),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let place = Place::Field(&self.place, &key);
            if let Some(order) = self.notes.order {
                order.borrow_mut().push(place.to_string());
            }
            let value = map.next_value_seed(Seed {
                place,
                notes: self.notes,
            })?;
            match out.entry(key) {
                Entry::Vacant(free) => {
                    free.insert(value);
                }
                Entry::Occupied(mut taken) => {
                    let path = Place::Field(&self.place, taken.key()).to_string();
                    taken.insert(value);
                    let mut known = self.notes.duplicates.borrow_mut();
                    if known.seen.insert(path.clone()) {
                        known.problems.push(format!("duplicate field {path:?}"));
                    }
                }
            }
        }
        Ok(Value::Object(out))
    }
}

/// Parses JSON; the error is worded as Go's decoder does, as far as it can be told from here.
pub fn parse_json(bytes: &[u8]) -> Result<Parsed, String> {
    let duplicates = RefCell::new(Duplicates::default());
    let mut de = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed {
        place: Place::Root,
        notes: Notes {
            duplicates: &duplicates,
            order: None,
        },
    };
    let value = seed
        .deserialize(&mut de)
        .and_then(|v| de.end().map(|()| v))
        .map_err(|e| go_json::complaint(bytes).unwrap_or_else(|| e.to_string()))?;
    Ok(Parsed {
        value,
        duplicates: duplicates.into_inner().problems,
        source: Bytes::new(),
    })
}

/// Makes whole numbers of those that are written with a fraction or an exponent, as Go writes a number whose type it does
/// not know. Where it knows that one is whole, Go refuses `1.0` in JSON.
pub fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            #[allow(clippy::cast_possible_truncation)] // it is small and whole
            if let Some(float) = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < WHOLE)
                && number.is_f64()
            {
                *value = (float as i64).into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(make_whole),
        Value::Object(map) => map.values_mut().for_each(make_whole),
        _ => {}
    }
}

/// How Go's YAML library begins its errors where it makes JSON of YAML.
const YAML_ERROR: &str = "error converting YAML to JSON: ";

/// Parses one YAML document. YAML 1.1 booleans of unquoted keys and values are as Kubernetes' own parser has them.
pub fn parse_yaml(bytes: &[u8]) -> Result<Parsed, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| "error converting YAML to JSON: yaml: invalid Unicode".to_owned())?;
    let text = first_document(text);
    let lenient =
        serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins };
    let value: Value = serde_saphyr::from_str_with_options(text, lenient).map_err(|e| {
        let line = e.location().map_or(1, |l| l.line());
        let full = e.to_string();
        // The parser's message comes with a drawing of the place; only its first line is said again.
        let what = full.lines().next().unwrap_or_default();
        let what = what.rsplit_once(": ").map_or(what, |(_, w)| w);
        let what = what.split_once(&format!("line {line} ")).map_or(what, |(_, w)| w);
        let what = if what.contains("unclosed") {
            if text.trim_end().ends_with(['[', '{', ',']) {
                "did not find expected node content"
            } else {
                "did not find expected ',' or ']'"
            }
        } else {
            what
        };
        format!("{YAML_ERROR}yaml: line {line}: {what}")
    })?;
    let mut yaml = Yaml11 {
        source: text,
        quoted: HashMap::new(),
    };
    // It becomes JSON before it is read.
    let mut value = yaml.read(value);
    make_whole(&mut value);
    Ok(Parsed {
        value,
        duplicates: yaml_duplicate(text).into_iter().collect(),
        source: Bytes::new(),
    })
}

/// The text up to where the first document ends: what comes after it is not looked at.
fn first_document(text: &str) -> &str {
    let (mut at, mut begun) = (0, false);
    for line in text.split_inclusive('\n') {
        let marks = ["---", "..."].iter().any(|mark| {
            let rest = line.strip_prefix(mark);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        });
        if marks && begun {
            return &text[..at];
        }
        let says = line.trim();
        begun |= !(says.is_empty() || says.starts_with(['#', '%']) || says == "---");
        at += line.len();
    }
    text
}

/// What Go's strict YAML decoder says of the first key that a mapping has twice.
fn yaml_duplicate(text: &str) -> Option<String> {
    let error = serde_saphyr::from_str::<Value>(text).err()?;
    let line = error.location().map_or(1, |l| l.line());
    let key = text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    // The error says where the second key stands.
    let column = usize::try_from(error.location()?.column()).ok()?.checked_sub(1)?;
    let key: String = key.chars().skip(column).take_while(|c| *c != ':').collect();
    let key = key.trim().trim_matches(['"', '\'']);
    Some(format!(
        "yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map"
    ))
}

/// Kubernetes reads YAML 1.1, where a plain `y`, `yes`, `on` … is a boolean: applied to plain scalars only, which are
/// recognised by not standing quoted in the source.
struct Yaml11<'a> {
    source: &'a str,
    /// Words looked for already, and whether they stand quoted.
    quoted: HashMap<&'static str, bool>,
}

/// What YAML 1.1 reads as booleans, beside `true` and `false`.
const BOOLEANS: [(&str, bool); 16] = [
    ("y", true),
    ("Y", true),
    ("yes", true),
    ("Yes", true),
    ("YES", true),
    ("on", true),
    ("On", true),
    ("ON", true),
    ("n", false),
    ("N", false),
    ("no", false),
    ("No", false),
    ("NO", false),
    ("off", false),
    ("Off", false),
    ("OFF", false),
];

impl Yaml11<'_> {
    fn read(&mut self, value: Value) -> Value {
        match value {
            Value::String(s) => self.boolean(&s).map_or(Value::String(s), Value::Bool),
            Value::Array(items) => Value::Array(items.into_iter().map(|v| self.read(v)).collect()),
            Value::Object(map) => map
                .into_iter()
                .map(|(k, v)| (self.boolean(&k).map_or(k, |b| b.to_string()), self.read(v)))
                .collect(),
            other => other,
        }
    }

    fn boolean(&mut self, text: &str) -> Option<bool> {
        let (word, boolean) = BOOLEANS.iter().find(|(word, _)| *word == text)?;
        let source = self.source;
        let quoted = self.quoted.entry(word).or_insert_with(|| {
            source.contains(&format!("\"{word}\"")) || source.contains(&format!("'{word}'"))
        });
        (!*quoted).then_some(*boolean)
    }
}

/// The bytes an error about an unreadable object shows.
fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let cut = &bytes[..bytes.len().min(SHOWN)];
    let more = if bytes.len() > SHOWN { " ..." } else { "" };
    match bytes.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(cut)),
        Some(_) => {
            let mut hex = String::new();
            for byte in cut {
                let _ = write!(hex, "{byte:02x}");
            }
            hex + more
        }
    }
}

/// Go's name for what every object has.
pub(super) const TYPE_META: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// Name Go's decoder has for a JSON type.
pub fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Parses the body of a create or update of `kind`.
pub fn parse_object(bytes: &Bytes, format: Format, kind: &str) -> Result<Parsed, ApiError> {
    let not_read = |why: &str| {
        ApiError::BadRequest(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({})",
            summary(bytes)
        ))
    };
    let unrecognised = |why: String| not_read(&format!("couldn't get version/kind; json parse error: {why}"));
    let mut parsed = match format {
        Format::Json => {
            let mut parsed = parse_json(bytes).map_err(unrecognised)?;
            parsed.source = bytes.clone();
            parsed
        }
        Format::Protobuf if bytes.is_empty() => return Err(not_read("empty data")),
        Format::Protobuf if !protobuf::is_one(bytes) => return Err(not_read(protobuf::NONE)),
        Format::Protobuf => protobuf::decode(bytes)
            .map(|value| Parsed {
                value,
                ..Parsed::default()
            })
            .map_err(|e| ApiError::BadRequest(format!("unable to decode the body as {kind}: {e}")))?,
        Format::Yaml => parse_yaml(bytes).map_err(|e| {
            let why = e.strip_prefix(YAML_ERROR).unwrap_or(&e);
            // The first line is not told where it is the only one.
            let why = why.replacen("yaml: line 1: mapping", "yaml: mapping", 1);
            not_read(&why)
        })?,
    };
    // Go's decoder leaves everything as it is.
    if parsed.value.is_null() {
        parsed.value = Value::Object(Map::new());
    }
    match &parsed.value {
        Value::Object(map) => {
            for field in ["apiVersion", "kind"] {
                match map.get(field) {
                    None | Some(Value::String(_) | Value::Null) => {}
                    Some(other) => {
                        return Err(unrecognised(format!(
                            "json: cannot unmarshal {} into Go struct field .{field} of type string",
                            json_type(other)
                        )));
                    }
                }
            }
            let version = map.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
            if version.matches('/').count() > 1 {
                return Err(not_read(&format!("unexpected GroupVersion string: {version}")));
            }
            Ok(parsed)
        }
        other => Err(unrecognised(format!(
            "json: cannot unmarshal {} into Go value of type {TYPE_META}",
            json_type(other)
        ))),
    }
}

/// Where kube-apiserver's scheme is made, part of a message clients see.
pub const SCHEME: &str = "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30";

/// Checks that an object says it is what the URL takes, and fills `apiVersion` and `kind` where built-ins may leave
/// them out.
pub fn check_type(
    registry: &Registry,
    r: &Resource,
    kind: &str,
    gv: (&str, &str),
    object: &mut Value,
    source: Option<&Bytes>,
) -> Result<(), ApiError> {
    let expected = api_version(gv.0, gv.1);
    let sent = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    let sent_kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if r.custom.is_some() && gv.0 == r.group {
        if sent_kind.is_empty() {
            return Err(ApiError::BadRequest(match source {
                Some(bytes) => format!(
                    "the object provided is unrecognized (must be of type {kind}): Object 'Kind' is missing in '{}' ({})",
                    String::from_utf8_lossy(bytes),
                    summary(bytes)
                ),
                None => format!("Object 'Kind' is missing in '{object}'"),
            }));
        }
        if sent != expected {
            return Err(ApiError::BadRequest(format!(
                "the API version in the data ({sent}) does not match the expected API version ({expected})"
            )));
        }
        if sent_kind != kind {
            let why = format!("must be {kind}");
            let error = FieldError::invalid("kind", &sent_kind.clone().into(), &why);
            let name = crate::object::name(object);
            return Err(ApiError::invalid(&r.group, &sent_kind, name, vec![error]));
        }
        return Ok(());
    }
    let is_of_kind = sent_kind.is_empty() || sent_kind == kind;
    if sent != expected && is_of_kind && known::is_retired(&sent, kind) {
        return Err(ApiError::BadRequest(format!(
            "the API version in the data ({sent}) does not match the expected API version ({expected})"
        )));
    }
    if let Some((head, why)) = other_kind(registry, kind, gv, (&sent, &sent_kind)) {
        return Err(ApiError::BadRequest(format!("{head}: {why}")));
    }
    object["apiVersion"] = expected.into();
    object["kind"] = kind.into();
    Ok(())
}

/// Why an object of this apiVersion and kind is none of the kind wanted: what can not be done, and the reason. What is left
/// out is what is wanted.
pub fn other_kind(
    registry: &Registry,
    kind: &str,
    gv: (&str, &str),
    sent: (&str, &str),
) -> Option<(String, String)> {
    let expected = api_version(gv.0, gv.1);
    let given = |sent: &str, wanted: &str| {
        if sent.is_empty() {
            wanted.to_owned()
        } else {
            sent.to_owned()
        }
    };
    let (sent_version, sent_kind) = (given(sent.0, &expected), given(sent.1, kind));
    if sent_version == expected && sent_kind == kind {
        return None;
    }
    let (group, version) = sent_version.split_once('/').unwrap_or(("", &sent_version));
    let head = format!("{sent_kind} in version {version:?} cannot be handled as a {kind}");
    let of_list = sent_kind
        .strip_suffix("List")
        .is_some_and(|item| registry.by_kind(group, version, item).is_some());
    let known = of_list
        || registry.by_kind(group, version, &sent_kind).is_some()
        || known::is_retired(&sent_version, &sent_kind)
        || known::is_common(&sent_version, &sent_kind);
    let why = if known {
        let internal = match gv.0.split('.').next() {
            None | Some("") => "core",
            Some(group) => group,
        };
        format!("converting ({version}.{sent_kind}) to ({internal}.{kind}): unknown conversion")
    } else {
        format!("no kind {sent_kind:?} is registered for version {sent_version:?} in scheme {SCHEME:?}")
    };
    Some((head, why))
}

/// `group/version`, or only the version for core.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// Decides what unknown and duplicate fields mean: warnings, nothing, or a refusal.
pub fn strictness(
    validation: FieldValidation,
    unknown: &[String],
    duplicates: &[String],
) -> Result<Vec<String>, String> {
    let problems: Vec<String> = duplicates
        .iter()
        .cloned()
        .chain(unknown.iter().map(|p| format!("unknown field {p:?}")))
        .collect();
    match validation {
        _ if problems.is_empty() => Ok(problems),
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(problems),
        FieldValidation::Strict => Err(format!("strict decoding error: {}", problems.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_noticed_and_the_last_wins() {
        let p = parse_json(br#"{"data":{"a":"1","a":"2"},"l":[{"x":1,"x":2}]}"#).unwrap();
        assert_eq!(
            p.duplicates,
            [r#"duplicate field "data.a""#, r#"duplicate field "l[0].x""#]
        );
        assert_eq!(p.value["data"]["a"], "2");
    }

    #[test]
    fn unreadable_bodies_are_described() {
        let error = |b: &'static [u8]| {
            parse_object(&Bytes::from_static(b), Format::Json, "ConfigMap")
                .unwrap_err()
                .to_string()
        };
        assert!(error(br#"{"a":"#).ends_with(r#"json parse error: unexpected end of JSON input ({"a":)"#));
        assert!(error(b"").ends_with("unexpected end of JSON input (<empty>)"));
        assert!(error(b"[]").contains("cannot unmarshal array into Go value"));
        assert!(error(b"[]").ends_with("(5b5d)"));
    }

    #[test]
    fn yaml_is_kubernetes_yaml() {
        let p = parse_yaml(b"metadata:\n  name: y\ndata:\n  a: 'no'\n").unwrap();
        assert_eq!(
            (&p.value["metadata"]["name"], &p.value["data"]["a"]),
            (&Value::Bool(true), &Value::from("no"))
        );
    }

    #[test]
    fn strictness_levels() {
        let unknown = ["foo".to_owned()];
        assert_eq!(
            strictness(FieldValidation::Warn, &unknown, &[]).unwrap(),
            [r#"unknown field "foo""#]
        );
        assert!(
            strictness(FieldValidation::Ignore, &unknown, &[])
                .unwrap()
                .is_empty()
        );
        assert_eq!(
            strictness(FieldValidation::Strict, &unknown, &[]).unwrap_err(),
            r#"strict decoding error: unknown field "foo""#
        );
    }
}
