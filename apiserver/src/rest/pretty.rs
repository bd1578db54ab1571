//! JSON for people: indented for browsers and command line tools, as kube-apiserver does, and with a line end for others.

use super::respond::Body;
use bytes::Bytes;
use http::{Response, header};

/// How user agents begin that people look over the shoulder of.
const SHOWN: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];
/// Where an object begins, and a Status goes on.
const FIRST: [&str; 9] = [
    "kind",
    "apiVersion",
    "metadata",
    "spec",
    "status",
    "message",
    "reason",
    "details",
    "code",
];

/// How a client wants its JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One line.
    Line,
    /// Indented, fields as they come.
    Indented,
    /// Indented, with what the object is first.
    KindFirst,
}

/// Whether a request asks for indented JSON: by `pretty`, else by who it is from.
pub fn is_wanted(pretty: Option<&str>, agent: &str) -> bool {
    match pretty.filter(|p| !p.is_empty()) {
        Some(flag) => matches!(flag, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        None => SHOWN.iter().any(|s| agent.starts_with(s)),
    }
}

/// Lays out the body of an answer that is JSON and all there.
pub fn lay_out(response: &mut Response<Body>, layout: Layout) {
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| kind != "application/json") {
        return;
    }
    let Body::Chunks(chunks) = response.body_mut() else {
        return;
    };
    if chunks.is_empty() {
        return;
    }
    if layout == Layout::Line {
        if !chunks.back().is_some_and(|last| last.ends_with(b"\n")) {
            chunks.push_back(Bytes::from_static(b"\n"));
        }
        return;
    }
    let mut json = Vec::with_capacity(chunks.iter().map(Bytes::len).sum());
    chunks.drain(..).for_each(|chunk| json.extend_from_slice(&chunk));
    if layout == Layout::KindFirst {
        json = kind_first(&json);
    }
    chunks.push_back(indented(&json).into());
}

/// What the bytes of a JSON text are part of.
#[derive(Default)]
struct Place {
    in_string: bool,
    escaped: bool,
    depth: usize,
}

impl Place {
    /// Takes the next byte; whether it means something, and is no part of a string.
    fn step(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => return !byte.is_ascii_whitespace(),
        }
        byte != b'"'
    }
}

/// The fields of an object, what it is first. Anything else stays as it is.
fn kind_first(json: &[u8]) -> Vec<u8> {
    let text = json.trim_ascii();
    let Some(inner) = text.strip_prefix(b"{").and_then(|t| t.strip_suffix(b"}")) else {
        return json.to_vec();
    };
    let mut place = Place::default();
    let mut fields: Vec<&[u8]> = inner
        .split(|byte| place.step(*byte) && *byte == b',' && place.depth == 0)
        .collect();
    let rank = |field: &&[u8]| {
        let named = |name: &&str| {
            let rest = field
                .strip_prefix(b"\"")
                .and_then(|f| f.strip_prefix(name.as_bytes()));
            rest.is_some_and(|rest| rest.starts_with(b"\":"))
        };
        FIRST.iter().position(named).unwrap_or(FIRST.len())
    };
    fields.sort_by_key(rank);
    let mut out = Vec::with_capacity(text.len());
    out.push(b'{');
    out.extend(fields.join(&b','));
    out.push(b'}');
    out
}

/// JSON with a line for each value, two blanks deeper for each it lies in; as it was where that would make it many times as long.
fn indented(json: &[u8]) -> Vec<u8> {
    let longest = json.len().saturating_mul(8).saturating_add(1 << 20);
    let mut out = Vec::with_capacity(json.len() * 3 / 2);
    let mut place = Place::default();
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    // The last byte outside of strings opened something that may be empty.
    let mut opened = false;
    for byte in json {
        let in_string = place.in_string;
        let means = place.step(*byte);
        if !in_string && !means && *byte != b'"' {
            continue;
        }
        let closes = means && matches!(byte, b'}' | b']');
        if (opened && !closes) || (closes && !opened) {
            line(&mut out, place.depth);
        }
        opened = means && matches!(byte, b'{' | b'[');
        out.push(*byte);
        if out.len() > longest {
            return json.to_vec();
        }
        match byte {
            b',' if means => line(&mut out, place.depth),
            b':' if means => out.push(b' '),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn people_get_lines() {
        for (pretty, agent, want) in [
            (None, "curl/8.1", true),
            (None, "Wget/1.2", true),
            (None, "Mozilla/5.0 (X11)", true),
            (None, "kubectl/v1.32", false),
            (Some("false"), "curl/8.1", false),
            (Some("true"), "kubectl", true),
            (Some(""), "curl/8.1", true),
            (Some("yes"), "curl/8.1", false),
        ] {
            assert_eq!(is_wanted(pretty, agent), want, "{pretty:?} {agent}");
        }
    }

    #[test]
    fn as_go_indents() {
        let json = br#"{"apiVersion":"v1","data":{"a":"x,{\"y\":1}\\"},"kind":"K","l":[1,{},[],{"b":null}],"metadata":{}}"#;
        let want = r#"{
  "kind": "K",
  "apiVersion": "v1",
  "metadata": {},
  "data": {
    "a": "x,{\"y\":1}\\"
  },
  "l": [
    1,
    {},
    [],
    {
      "b": null
    }
  ]
}"#;
        assert_eq!(String::from_utf8(indented(&kind_first(json))).unwrap(), want);
        assert_eq!(indented(b"[]\n"), b"[]");
        assert_eq!(kind_first(b"[1,2]"), b"[1,2]");
        assert_eq!(kind_first(b"{}"), b"{}");
    }

    proptest! {
        #[test]
        fn what_it_says_stays(keys in proptest::collection::vec(("[a-z\"\\\\{},:\\[\\]]{0,6}", "[ -~]{0,8}"), 0..6)) {
            let map: serde_json::Map<String, Value> =
                keys.into_iter().map(|(k, v)| (k, Value::from(vec![Value::from(v)]))).collect();
            let value = Value::Object(map);
            let pretty = indented(&kind_first(value.to_string().as_bytes()));
            prop_assert_eq!(serde_json::from_slice::<Value>(&pretty).unwrap(), value.clone());
            prop_assert_eq!(String::from_utf8(indented(value.to_string().as_bytes())).unwrap(), serde_json::to_string_pretty(&value).unwrap());
        }
    }
}
