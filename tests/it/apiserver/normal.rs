//! Answers without what must differ from server to server: uids, revisions, times, addresses, random names, signatures.

use serde_json::{Map, Value};

/// The same answer on any server.
pub fn normal(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (text(k), field(map, k, v))).collect()),
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::String(text) => self::text(text).into(),
        other => other.clone(),
    }
}

fn field(owner: &Map<String, Value>, key: &str, value: &Value) -> Value {
    let star = || Value::from("*");
    match (key, value) {
        ("uid" | "resourceVersion" | "continue", Value::String(text)) if !text.is_empty() => star(),
        ("clusterIP", Value::String(ip)) if is_ip(ip) => star(),
        ("clusterIPs", Value::Array(ips)) => ips
            .iter()
            .map(|ip| {
                if ip.as_str().is_some_and(is_ip) {
                    star()
                } else {
                    ip.clone()
                }
            })
            .collect(),
        ("nodePort" | "healthCheckNodePort", Value::Number(port)) if port.as_u64() != Some(0) => star(),
        (
            "token" | "certificate" | "caBundle" | "ca.crt" | "authentication.kubernetes.io/credential-id",
            _,
        ) => star(),
        ("name", Value::String(name)) => match owner.get("generateName").and_then(Value::as_str) {
            Some(start) if !start.is_empty() && name.starts_with(start) => format!("{start}*").into(),
            _ => text(name).into(),
        },
        ("managedFields", Value::Array(entries)) => {
            let mut entries: Vec<Value> = entries
                .iter()
                .map(|entry| {
                    let mut entry = normal(entry);
                    if let Value::Object(entry) = &mut entry {
                        entry.remove("time");
                    }
                    entry
                })
                .collect();
            entries.sort_by_cached_key(|entry| {
                ["manager", "operation", "subresource"]
                    .map(|k| entry[k].as_str().unwrap_or_default().to_owned())
            });
            entries.into()
        }
        ("causes", Value::Array(causes)) => {
            let mut causes: Vec<Value> = causes.iter().map(normal).collect();
            causes.sort_by_cached_key(|cause| {
                ["field", "message"].map(|k| cause[k].as_str().unwrap_or_default().to_owned())
            });
            causes.into()
        }
        // They come in the order of caches.
        ("resourceRules" | "nonResourceRules", Value::Array(rules)) => {
            let mut rules: Vec<Value> = rules.iter().map(normal).collect();
            rules.sort_by_cached_key(ToString::to_string);
            rules.into()
        }
        // Descriptions are Kubernetes' own documentation.
        ("columnDefinitions", Value::Array(columns)) => columns
            .iter()
            .map(|column| {
                let mut column = normal(column);
                if let Value::Object(column) = &mut column {
                    column.remove("description");
                }
                column
            })
            .collect(),
        ("cells", Value::Array(cells)) => cells
            .iter()
            .map(|cell| match cell.as_str() {
                Some(age) if is_age(age) => "AGE".into(),
                _ => normal(cell),
            })
            .collect(),
        (_, value) => normal(value),
    }
}

fn is_ip(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// `5s`, `2m10s`.
fn is_age(text: &str) -> bool {
    let mut units = 0;
    let mut digits = 0;
    for c in text.chars() {
        match c {
            '0'..='9' => digits += 1,
            's' | 'm' | 'h' | 'd' | 'y' if digits > 0 => {
                units += 1;
                digits = 0;
            }
            _ => return false,
        }
    }
    units > 0 && digits == 0
}

/// Text without what must differ.
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some((replacement, length)) = variable(&out, rest) {
            out.push_str(replacement);
            rest = &rest[length..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// Something at the beginning of `rest` that differs, with what stands for it and how long it is.
fn variable(before: &str, rest: &str) -> Option<(&'static str, usize)> {
    const TIME: &str = "dddd-dd-ddTdd:dd:dd";
    const UID: &str = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    if like(rest, TIME) {
        let tail = &rest[TIME.len()..];
        let fraction = tail
            .strip_prefix('.')
            .map_or(0, |t| 1 + t.bytes().take_while(u8::is_ascii_digit).count());
        return tail[fraction..]
            .starts_with('Z')
            .then_some(("T", TIME.len() + fraction + 1));
    }
    if like(rest, UID) {
        return Some(("*", UID.len()));
    }
    if let Some(port) = rest.strip_prefix("127.0.0.1:") {
        let digits = port.bytes().take_while(u8::is_ascii_digit).count();
        return Some(("*", "127.0.0.1:".len() + digits));
    }
    let number = rest.bytes().take_while(u8::is_ascii_digit).count();
    let counted = [
        "current: ",
        "record (",
        r#"resourceVersion":""#,
        r#"resourceVersion\":\""#,
    ];
    if number > 0 && counted.iter().any(|start| before.ends_with(start)) {
        return Some(("*", number));
    }
    // A place in the source as the compiler was told to write it.
    if before.ends_with("in scheme \"") {
        return rest.find('"').map(|end| ("*", end));
    }
    // An object quoted in an error: its keys come in the order of Go's types, which says nothing.
    if rest.starts_with(r#""{\""#) && rest.contains(r#"}": "#) {
        let keys = ["apiVersion", "kind", "metadata", "spec", "data"];
        if keys.iter().any(|key| rest[4..].starts_with(key)) {
            let end = rest.find(r#"}": "#)?;
            return Some(("\"{OBJECT}", end + 1));
        }
    }
    let random = |start: &str| {
        rest.strip_prefix(start).is_some_and(|tail| {
            tail.bytes()
                .take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
                .count()
                == 5
        })
    };
    ["Gen_", "gen-"]
        .into_iter()
        .find(|start| random(start))
        .map(|start| {
            if start == "Gen_" {
                ("Gen_*", 9)
            } else {
                ("gen-*", 9)
            }
        })
}

/// Whether a text begins like a pattern of `d`igits, he`x` digits and other characters.
fn like(text: &str, pattern: &str) -> bool {
    text.len() >= pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(c, p)| match p {
            b'd' => c.is_ascii_digit(),
            b'x' => c.is_ascii_digit() || (b'a'..=b'f').contains(&c),
            _ => c == p,
        })
}

#[test]
fn only_what_must_differ_is_taken_out() {
    assert_eq!(text("at 2024-01-01T00:00:00.5Z by 127.0.0.1:99"), "at T by *");
    assert_eq!(text("11111111-2222-3333-4444-555555555555 x"), "* x");
    assert_eq!(
        text("in record (17). gen-ab1cd, gen-erated"),
        "in record (*). gen-*, gen-erated"
    );
    assert_eq!(
        text(r#"Invalid value: "{\"kind\":\"X\"}": why"#),
        r#"Invalid value: "{OBJECT}": why"#
    );
    assert_eq!(text(r#"in scheme "a/b.go:1""#), r#"in scheme "*""#);
    assert_eq!(text("2024-01-01 is a day"), "2024-01-01 is a day");
    assert!(is_age("2m10s") && !is_age("10") && !is_age("sm"));
}
