//! `/openapi/v2` in protobuf, the message `openapi.v2.Document` of gnostic: the only form of it that kubectl reads.
//!
//! Only what such a document of this server has is written. Values of any type are text in YAML there; JSON is YAML.

use serde_json::{Map, Value};

/// The document as a message.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.inner(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    out.inner(8, |paths| {
        for (path, item) in members(&document["paths"]) {
            paths.named(2, path, |out| path_item(item, out));
        }
    });
    out.inner(9, |all| schemas(&document["definitions"], all));
    out.0
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn schemas(named: &Value, out: &mut Message) {
    for (name, of) in members(named) {
        out.named(1, name, |out| schema(of, out));
    }
}

fn schema(schema: &Value, out: &mut Message) {
    let Value::Object(map) = schema else { return };
    for (key, value) in map {
        match key.as_str() {
            "$ref" => out.text(1, value),
            "format" => out.text(2, value),
            "title" => out.text(3, value),
            "description" => out.text(4, value),
            "default" => out.any(5, value),
            "multipleOf" => out.double(6, value),
            "maximum" => out.double(7, value),
            "exclusiveMaximum" => out.flag(8, value),
            "minimum" => out.double(9, value),
            "exclusiveMinimum" => out.flag(10, value),
            "maxLength" => out.whole(11, value),
            "minLength" => out.whole(12, value),
            "pattern" => out.text(13, value),
            "maxItems" => out.whole(14, value),
            "minItems" => out.whole(15, value),
            "uniqueItems" => out.flag(16, value),
            "maxProperties" => out.whole(17, value),
            "minProperties" => out.whole(18, value),
            "required" => items(value).for_each(|v| out.text(19, v)),
            "enum" => items(value).for_each(|v| out.any(20, v)),
            "additionalProperties" => out.inner(21, |out| match value {
                Value::Bool(_) => out.flag(2, value),
                of => out.inner(1, |out| self::schema(of, out)),
            }),
            "type" => out.inner(22, |out| out.text(1, value)),
            "items" => out.inner(23, |out| out.inner(1, |out| self::schema(value, out))),
            "properties" => out.inner(25, |out| schemas(value, out)),
            _ => {}
        }
    }
    out.extensions(31, map);
}

fn path_item(item: &Value, out: &mut Message) {
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(Value::Object(map)) = item.get(method) {
            out.inner(number, |out| operation(map, out));
        }
    }
    for of in items(&item["parameters"]) {
        out.inner(9, |out| parameter(of, out));
    }
}

fn operation(operation: &Map<String, Value>, out: &mut Message) {
    let field = |name: &str| operation.get(name).unwrap_or(&Value::Null);
    for consumed in items(field("consumes")) {
        out.text(7, consumed);
    }
    for of in items(field("parameters")) {
        out.inner(8, |out| parameter(of, out));
    }
    out.inner(9, |responses| {
        for (code, response) in members(field("responses")) {
            responses.named(1, code, |value| {
                value.inner(1, |out| {
                    out.text(1, &response["description"]);
                    if !response["schema"].is_null() {
                        out.inner(2, |out| out.inner(1, |out| schema(&response["schema"], out)));
                    }
                });
            });
        }
    });
    out.extensions(13, operation);
}

/// Item of a list of parameters, which could be a reference too, of a parameter in the body or elsewhere.
fn parameter(of: &Value, out: &mut Message) {
    out.inner(1, |out| match of["in"].as_str() {
        Some("body") => out.inner(1, |out| {
            out.text(2, &of["name"]);
            out.text(3, &of["in"]);
            out.flag(4, &of["required"]);
            out.inner(5, |out| schema(&of["schema"], out));
        }),
        place => out.inner(2, |out| {
            // Where it may be left empty, the type is a number further on.
            let (message, kind) = if place == Some("path") { (4, 5) } else { (3, 6) };
            out.inner(message, |out| {
                out.flag(1, &of["required"]);
                out.text(2, &of["in"]);
                out.text(4, &of["name"]);
                out.text(kind, &of["type"]);
            });
        }),
    });
}

/// A message that is being written. Zero values are left out, as the third version of protobuf does.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn tag(&mut self, number: u64, wire: u64) {
        self.varint(number << 3 | wire);
    }

    fn bytes(&mut self, number: u64, bytes: &[u8]) {
        self.tag(number, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A message, even one with nothing in it: that there are properties is something else than that there are none.
    fn inner(&mut self, number: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(number, &inner.0);
    }

    /// An entry of a map.
    fn named(&mut self, number: u64, name: &str, write: impl FnOnce(&mut Self)) {
        self.inner(number, |entry| {
            entry.bytes(1, name.as_bytes());
            entry.inner(2, write);
        });
    }

    fn text(&mut self, number: u64, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.bytes(number, text.as_bytes());
        }
    }

    fn flag(&mut self, number: u64, value: &Value) {
        if value == &Value::Bool(true) {
            self.whole(number, &1.into());
        }
    }

    fn whole(&mut self, number: u64, value: &Value) {
        if let Some(value) = value.as_u64().filter(|value| *value != 0) {
            self.tag(number, 0);
            self.varint(value);
        }
    }

    fn double(&mut self, number: u64, value: &Value) {
        if let Some(value) = value.as_f64().filter(|value| *value != 0.0) {
            self.tag(number, 1);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn any(&mut self, number: u64, value: &Value) {
        self.inner(number, |any| any.bytes(2, yaml(value).as_bytes()));
    }

    /// The vendor extensions of an object.
    fn extensions(&mut self, number: u64, owner: &Map<String, Value>) {
        for (name, value) in owner.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.inner(number, |entry| {
                entry.bytes(1, name.as_bytes());
                entry.any(2, value);
            });
        }
    }
}

/// JSON in which characters that YAML does not take as they are, but JSON does, are escaped.
fn yaml(value: &Value) -> String {
    let json = value.to_string();
    let refused = |c: char| {
        matches!(
            c,
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
    };
    if !json.contains(refused) {
        return json;
    }
    json.chars()
        .map(|c| {
            if refused(c) {
                format!("\\u{:04x}", u32::from(c))
            } else {
                c.to_string()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: &Value) -> Vec<u8> {
        let mut out = Message::default();
        schema(value, &mut out);
        out.0
    }

    #[test]
    fn schemas_are_written_as_gnostic_reads_them() {
        for (value, bytes) in [
            (json!({}), &b""[..]),
            (json!({"type": "string"}), b"\xb2\x01\x08\x0a\x06string"),
            (json!({"$ref": "#/d/A"}), b"\x0a\x05#/d/A"),
            (json!({"maxLength": 300}), b"\x58\xac\x02"),
            (
                json!({"minimum": 1, "exclusiveMinimum": true}),
                b"\x50\x01\x49\0\0\0\0\0\0\xf0\x3f",
            ),
            (json!({"minItems": 0}), b""),
            (json!({"properties": {}}), b"\xca\x01\x00"),
            (
                json!({"properties": {"a": {"format": "b"}}}),
                b"\xca\x01\x0a\x0a\x08\x0a\x01a\x12\x03\x12\x01b",
            ),
            (
                json!({"items": {"format": "b"}}),
                b"\xba\x01\x05\x0a\x03\x12\x01b",
            ),
            (json!({"additionalProperties": true}), b"\xaa\x01\x02\x10\x01"),
            (json!({"additionalProperties": {}}), b"\xaa\x01\x02\x0a\x00"),
            (json!({"enum": ["a"]}), b"\xa2\x01\x05\x12\x03\"a\""),
            (json!({"x-a": [1]}), b"\xfa\x01\x0c\x0a\x03x-a\x12\x05\x12\x03[1]"),
        ] {
            assert_eq!(of(&value), bytes, "{value}");
        }
    }

    #[test]
    fn json_is_yaml_too() {
        assert_eq!(yaml(&json!("a\u{85}\u{7f}\u{e9}")), "\"a\\u0085\\u007f\u{e9}\"");
        assert_eq!(yaml(&json!({"a": null})), r#"{"a":null}"#);
    }
}
