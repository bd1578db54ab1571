//! Kubernetes' dialect of JSONPath, as `kubectl -o jsonpath` and feedback rules have it, on an RFC 9535 engine.
//!
//! Differences that are rewritten: the braces around the whole, a missing `$` or `@` for it, a missing leading dot, and `\.`
//! in names.
//! `{range}` and text around the braces have no meaning where one value is asked for and are refused.

use jsonpath_rust::JsonPath as _;
use serde_json::Value;

/// Longest path, in bytes.
const MAX_PATH: usize = 4096;
/// The engine's parser recurses into brackets and negations: so many fit on any stack.
const MAX_BRACKETS: usize = 64;

/// The values a path selects, in order; none where a part of the path is missing. The error says what is wrong with the
/// path.
pub fn select(path: &str, object: &Value) -> Result<Vec<Value>, String> {
    let query = rewrite(path)?;
    let found = object.query(&query).map_err(|e| invalid(path, &e.to_string()))?;
    if found.is_empty()
        && let Some((index, length)) = out_of_bounds(&query, object)
    {
        return Err(format!(
            "array index out of bounds: index {index}, length {length}"
        ));
    }
    Ok(found.into_iter().cloned().collect())
}

/// An index of the path that a list of the object does not have, and the list's length: not a missing key, but an error, as
/// in Kubernetes.
fn out_of_bounds(query: &str, object: &Value) -> Option<(i64, usize)> {
    let (mut depth, mut quote) = (0usize, None);
    for (at, c) in query.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => {
                depth += 1;
                let inside = query[at + 1..].split(']').next().unwrap_or_default();
                if depth == 1
                    && let Ok(index) = inside.trim().parse::<i64>()
                    && let Ok(lists) = object.query(&query[..at])
                {
                    let mut lengths = lists.iter().filter_map(|l| l.as_array()).map(Vec::len);
                    let has = |length: usize| {
                        let length = i64::try_from(length).unwrap_or(i64::MAX);
                        (-length..length).contains(&index)
                    };
                    if let Some(length) = lengths.find(|length| !has(*length)) {
                        return Some((index, length));
                    }
                }
            }
            (None, ']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The engine shows where it stopped by a drawing of several lines; a condition has one.
fn invalid(path: &str, drawn: &str) -> String {
    let expected = drawn.lines().find_map(|l| l.trim_start().strip_prefix("= "));
    let why = expected.unwrap_or_else(|| drawn.lines().next().unwrap_or_default());
    format!("the JSONPath {path:?} is not valid: {why}")
}

/// Where a path leads, each as the steps to one place.
pub fn places(path: &str, object: &Value) -> Result<Vec<Vec<String>>, String> {
    let query = rewrite(path)?;
    let found = object
        .query_only_path(&query)
        .map_err(|e| invalid(path, &e.to_string()))?;
    Ok(found.iter().map(|p| steps(p)).collect())
}

/// The steps of a normalised path (RFC 9535 §2.7), like `$['a'][0]`.
fn steps(path: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut chars = path.chars().skip_while(|c| *c != '[');
    while let Some('[') = chars.next() {
        let mut step = String::new();
        match chars.next() {
            Some('\'') => {
                while let Some(c) = chars.next() {
                    match c {
                        '\'' => break,
                        '\\' => step.extend(chars.next()),
                        c => step.push(c),
                    }
                }
                chars.next();
            }
            Some(digit) => {
                step.push(digit);
                step.extend(chars.by_ref().take_while(|c| *c != ']'));
            }
            None => break,
        }
        out.push(step);
    }
    out
}

fn rewrite(path: &str) -> Result<String, String> {
    let mut inner = path.trim();
    if let Some(stripped) = inner.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
        inner = stripped.trim();
    }
    if inner.is_empty() {
        return Err("the JSONPath is empty".into());
    }
    if inner.len() > MAX_PATH {
        return Err(format!(
            "the JSONPath has {} bytes, {MAX_PATH} are allowed",
            inner.len()
        ));
    }
    if inner.bytes().filter(|b| b"([!".contains(b)).count() > MAX_BRACKETS {
        return Err(format!("the JSONPath has more than {MAX_BRACKETS} brackets"));
    }
    if inner.contains(['{', '}']) || inner.starts_with("range ") || inner == "end" {
        return Err(format!(
            "the JSONPath {path:?} must select one value, without range or text"
        ));
    }
    let rooted = match inner.chars().next() {
        Some('$') => inner.to_owned(),
        Some('.' | '[') => format!("${inner}"),
        Some('@') => format!("${}", &inner[1..]),
        _ => format!("$.{inner}"),
    };
    Ok(unescape(&rooted))
}

/// `.a\.b` becomes `['a.b']`, and so does `['a\.b']`; everything else stays.
fn unescape(path: &str) -> String {
    if !path.contains('\\') {
        return path.to_owned();
    }
    let chars: Vec<char> = path.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        if let quote @ ('\'' | '"') = chars[at] {
            at = unescape_quoted(&chars, at, quote, &mut out);
        } else if chars[at] == '.'
            && chars
                .get(at + 1)
                .is_some_and(|c| !matches!(c, '.' | '*' | '[' | ' '))
        {
            let mut name = String::new();
            let mut escaped = false;
            let mut next = at + 1;
            while let Some(&c) = chars.get(next) {
                match c {
                    '\\' => {
                        escaped = true;
                        next += 1;
                        if let Some(&c) = chars.get(next) {
                            name.push(c);
                        }
                    }
                    '.' | '[' | ']' | ')' | '=' | '!' | '<' | '>' | '&' | '|' | ' ' => break,
                    c => name.push(c),
                }
                next += 1;
            }
            if escaped {
                out.push_str("['");
                out.push_str(&name.replace('\'', "\\'"));
                out.push_str("']");
            } else {
                out.push('.');
                out.push_str(&name);
            }
            at = next;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// Copies what is in quotes, where RFC 9535 knows fewer escapes; returns where it goes on.
fn unescape_quoted(chars: &[char], at: usize, quote: char, out: &mut String) -> usize {
    out.push(quote);
    let mut at = at + 1;
    while let Some(&c) = chars.get(at) {
        at += 1;
        match (c, chars.get(at)) {
            ('\\', Some('.')) => {}
            ('\\', Some(&escaped)) => {
                out.extend([c, escaped]);
                at += 1;
            }
            _ => out.push(c),
        }
        if c == quote {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kubernetes_forms() {
        let object = json!({"status": {"n": 3, "conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "False"},
            {"type": "X.Y", "status": "Unknown"}], "labels": {"a.b/c": "d"}}, "list": [1, 2, 3]});
        let cases = [
            (".status.n", vec![json!(3)]),
            ("{.status.n}", vec![json!(3)]),
            ("status.n", vec![json!(3)]),
            ("$.status.n", vec![json!(3)]),
            (
                "{.status.conditions[?(@.type==\"Ready\")].status}",
                vec![json!("True")],
            ),
            (".status.conditions[0].type", vec![json!("Ready")]),
            (".list[-1]", vec![json!(3)]),
            (".list[*]", vec![json!(1), json!(2), json!(3)]),
            (".status.labels.a\\.b/c", vec![json!("d")]),
            (".status.labels['a\\.b/c']", vec![json!("d")]),
            (".status['labels']['a.b/c']", vec![json!("d")]),
            ("{@.status.n}", vec![json!(3)]),
            (
                "{.status.conditions[?(@.type=='X\\.Y')].status}",
                vec![json!("Unknown")],
            ),
            (".status.absent.deeper", vec![]),
        ];
        for (path, expected) in cases {
            assert_eq!(select(path, &object).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn an_index_that_a_list_does_not_have_is_an_error() {
        let object = json!({"list": [1, 2], "deep": [{"l": []}], "a[9]": 1});
        for (path, expected) in [
            (".list[9]", Err("index 9, length 2")),
            (".list[-3]", Err("index -3, length 2")),
            (".list[-2]", Ok(1)),
            (".deep[0].l[0].x", Err("index 0, length 0")),
            (".absent[3]", Ok(0)),
            (".list[9:]", Ok(0)),
            (".list[?(@[9]==1)]", Ok(0)),
            ("['a[9]']", Ok(1)),
            ("['b[9]']", Ok(0)),
        ] {
            let found = select(path, &object);
            match (&found, expected) {
                (Ok(values), Ok(count)) => assert_eq!(values.len(), count, "{path}"),
                (Err(problem), Err(words)) => assert!(problem.ends_with(words), "{path}: {problem}"),
                _ => panic!("{path}: {found:?}"),
            }
        }
    }

    #[test]
    fn places_are_found() {
        let object = json!({"a": {"b.c/d": 1}, "l": [{"n": "x", "v": 1}, {"n": "y"}]});
        let steps = |path: &str| places(path, &object).unwrap();
        let none: Vec<Vec<String>> = Vec::new();
        assert_eq!(steps(".a.b\\.c/d"), [["a", "b.c/d"]]);
        assert_eq!(steps(".l[?(@.n==\"x\")].v"), [["l", "0", "v"]]);
        assert_eq!(steps(".l[*].v"), [["l", "0", "v"]]);
        assert_eq!(steps(".absent.x"), none);
    }

    #[test]
    fn deep_paths_are_refused_before_they_overflow_the_stack() {
        let object = json!({"a": [{"b": 1}]});
        for (open, close) in [("(", ")"), ("!(", ")"), ("@[?", "]")] {
            for depth in [10, MAX_BRACKETS / 2 - 1, 2000] {
                let path = format!(".a[?{}@.b==1{}]", open.repeat(depth), close.repeat(depth));
                let found = select(&path, &object);
                assert!(depth < 2000 || found.is_err(), "{open} {depth}");
            }
        }
        let wide = format!(".a{}", ".a".repeat(MAX_PATH / 2 - 2));
        assert_eq!(select(&wide, &object), Ok(vec![]));
        assert!(select(&format!("{wide}.a.a"), &object).is_err());
    }

    #[test]
    fn what_is_not_a_path_is_said_so() {
        for path in ["", "{}", "{range .items[*]}{.a}{end}", ".a[", ".a[?(@.b=="] {
            let problem = select(path, &json!({})).unwrap_err();
            assert!(!problem.contains('\n'), "{path}: {problem}");
        }
    }
}
