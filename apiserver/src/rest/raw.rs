//! The outer level of stored JSON without parsing it: where each top-level member begins and ends.
//!
//! Lists and metadata answers copy most of an object byte for byte; this finds what to leave out. Input is what serde
//! wrote (no whitespace between tokens), so the scan only has to know strings and nesting.

use bytes::Bytes;

/// One top-level member: its name without quotes and the range of its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// Name, still escaped (names that matter here have nothing to escape).
    pub name: &'a str,
    /// The value's bytes.
    pub value: &'a [u8],
}

/// The members of a JSON object written by serde, in order; `None` when it is none.
pub fn members(json: &[u8]) -> Option<Vec<Member<'_>>> {
    let mut out = Vec::new();
    let mut at = 1;
    if json.first() != Some(&b'{') {
        return None;
    }
    while json.get(at) == Some(&b'"') {
        let end = string_end(json, at)?;
        let name = std::str::from_utf8(json.get(at + 1..end - 1)?).ok()?;
        if json.get(end) != Some(&b':') {
            return None;
        }
        let start = end + 1;
        let stop = value_end(json, start)?;
        out.push(Member {
            name,
            value: json.get(start..stop)?,
        });
        at = stop;
        if json.get(at) == Some(&b',') {
            at += 1;
        }
    }
    (json.get(at) == Some(&b'}')).then_some(out)
}

/// Index behind the string that starts at `at`.
fn string_end(json: &[u8], at: usize) -> Option<usize> {
    let mut i = at + 1;
    loop {
        match json.get(i)? {
            b'"' => return Some(i + 1),
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
}

/// Index behind the value that starts at `at`.
fn value_end(json: &[u8], at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut i = at;
    loop {
        match json.get(i)? {
            b'"' => {
                i = string_end(json, i)?;
                if depth == 0 {
                    return Some(i);
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                if depth == 0 {
                    return Some(i);
                }
                depth -= 1;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            b',' if depth == 0 => return Some(i),
            _ => {}
        }
        i += 1;
    }
}

/// The object without its `apiVersion` and `kind`, as items of a built-in list are written.
pub fn without_type(json: &Bytes) -> Bytes {
    let Some(members) = members(json) else {
        return json.clone();
    };
    let mut out = Vec::with_capacity(json.len());
    out.push(b'{');
    for m in members
        .iter()
        .filter(|m| m.name != "apiVersion" && m.name != "kind")
    {
        push_member(&mut out, m.name, m.value);
    }
    out.push(b'}');
    out.into()
}

/// A `PartialObjectMetadata` with the object's metadata.
pub fn partial(json: &[u8], api_version: &str) -> Bytes {
    let metadata = members(json)
        .and_then(|all| all.into_iter().find(|m| m.name == "metadata"))
        .map_or(&b"{}"[..], |m| m.value);
    let mut out = br#"{"kind":"PartialObjectMetadata","apiVersion":""#.to_vec();
    out.extend_from_slice(api_version.as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
    out.extend_from_slice(metadata);
    out.push(b'}');
    out.into()
}

fn push_member(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn members_are_found() {
        let value = json!({"a": "x\"},{\\", "apiVersion": "v1", "kind": "K", "metadata": {"n": [1, "]"]}, "z": -1.5, "t": null});
        let bytes = Bytes::from(serde_json::to_vec(&value).unwrap());
        let back: Value = serde_json::from_slice(&without_type(&bytes)).unwrap();
        let mut want = value.clone();
        want.as_object_mut()
            .unwrap()
            .retain(|k, _| k != "kind" && k != "apiVersion");
        assert_eq!(back, want);
        let back: Value = serde_json::from_slice(&partial(&bytes, "meta.k8s.io/v1")).unwrap();
        assert_eq!(back["metadata"], value["metadata"]);
        assert_eq!(members(b"{}"), Some(Vec::new()));
        assert_eq!(members(b"[]"), None);
    }

    proptest! {
        #[test]
        fn any_strings_survive(key in ".*", text in ".*", n in any::<i64>()) {
            let value = json!({ key.as_str(): { "deep": [text.as_str(), n] }, "kind": text.as_str(), "z": n });
            let bytes = Bytes::from(serde_json::to_vec(&value).unwrap());
            let back: Value = serde_json::from_slice(&without_type(&bytes)).unwrap();
            let mut want = value.clone();
            want.as_object_mut().unwrap().retain(|k, _| k != "kind" && k != "apiVersion");
            prop_assert_eq!(back, want);
        }
    }
}
