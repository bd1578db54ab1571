//! Kubernetes' dialect of JSONPath, as `kubectl -o jsonpath` and feedback rules have it, on an RFC 9535 engine.
//!
//! Differences that are rewritten: the braces around the whole, a missing `$` or `@` for it, a missing leading dot, and names
//! that RFC 9535 wants in quotes: with `-` in them, or `\.`, or a digit at the front.
//! `{range}` and text around the braces have no meaning where one value is asked for and are refused.
//!
//! The engine gathers all that a path leads to and can not be stopped: how much that may be is worked out before.

use jsonpath_rust::JsonPath as _;
use serde_json::Value;

/// Longest path, in bytes.
const MAX_PATH: usize = 4096;
/// The engine's parser recurses into brackets and negations: so many fit on any stack.
const MAX_BRACKETS: usize = 64;

/// So many places one path may lead to and pass by...
const MOST: u64 = 200_000;
/// ...and all paths over an object together.
const MOST_OF_ALL: u64 = 10 * MOST;

/// An object's size, and how many steps through it are left to the paths.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    nodes: u64,
    depth: u64,
    left: u64,
}

impl Steps {
    /// None are made yet.
    pub fn of(object: &Value) -> Self {
        let (nodes, depth) = size(object);
        Self {
            nodes,
            depth,
            left: MOST_OF_ALL,
        }
    }

    fn take(&mut self, path: &str, query: &str) -> Result<(), String> {
        let most = cost(query, self.nodes, self.depth)
            .map_err(|problem| format!("the JSONPath {path:?} is not valid: {problem}"))?;
        if most > MOST {
            return Err(format!(
                "the JSONPath {path:?} may lead to {most} places, {MOST} are allowed"
            ));
        }
        let left = self.left.checked_sub(most);
        self.left = left.ok_or_else(|| {
            format!("the JSONPath {path:?} and those before it may lead to more than {MOST_OF_ALL} places")
        })?;
        Ok(())
    }
}

/// How many values an object is made of, and how many of them are in one another.
fn size(value: &Value) -> (u64, u64) {
    let below = |(nodes, depth): (u64, u64), inner: &Value| {
        let (more, deep) = size(inner);
        (nodes + more, depth.max(deep))
    };
    let (nodes, depth) = match value {
        Value::Object(map) => map.values().fold((0, 0), below),
        Value::Array(items) => items.iter().fold((0, 0), below),
        _ => (0, 0),
    };
    (nodes + 1, depth + 1)
}

/// An upper bound for what a query may lead to: what `..` leads to again and again, every union that names more than one
/// thing, and for each of that what a filter looks through.
fn cost(query: &str, nodes: u64, depth: u64) -> Result<u64, String> {
    let (mut descents, mut wide, mut factor) = (0u32, false, 1u64);
    let mut open: Vec<u64> = Vec::new();
    let (mut quote, mut before) = (None, ' ');
    let mut chars = query.chars();
    while let Some(c) = chars.next() {
        if let Some(end) = quote {
            if c == '\\' {
                chars.next();
            } else if c == end {
                quote = None;
            }
            continue;
        }
        let selects = open.is_empty() || (open.len() == 1 && matches!(before, '[' | ','));
        match c {
            '\'' | '"' => quote = Some(c),
            '[' => open.push(1),
            ']' => factor = factor.saturating_mul(open.pop().unwrap_or(1)),
            ',' => {
                if let Some(selectors) = open.last_mut() {
                    *selectors += 1;
                }
            }
            '(' if before.is_alphanumeric() || before == '_' => return Err("it calls a function".into()),
            '.' if before == '.' && open.is_empty() => descents += 1,
            '.' if before == '.' => factor = factor.saturating_mul(nodes),
            '*' if selects => wide = true,
            '?' | ':' if open.len() == 1 => wide = true,
            '*' | '?' | ':' => factor = factor.saturating_mul(nodes),
            _ => {}
        }
        if c != ' ' {
            before = c;
        }
    }
    let led = match descents {
        0 if wide => nodes,
        0 => 1,
        again => nodes.saturating_mul(depth.saturating_pow(again - 1)),
    };
    Ok(led.saturating_mul(factor))
}

/// The values a path selects, in order; none where a part of the path is missing. The error says what is wrong with the
/// path.
pub fn select<'a>(path: &str, object: &'a Value, steps: &mut Steps) -> Result<Vec<&'a Value>, String> {
    let query = rewrite(path)?;
    steps.take(path, &query)?;
    let found = object.query(&query).map_err(|e| invalid(path, &e.to_string()))?;
    if found.is_empty()
        && let Some((index, length)) = out_of_bounds(path, &query, object, steps)?
    {
        return Err(format!(
            "array index out of bounds: index {index}, length {length}"
        ));
    }
    Ok(found)
}

/// An index of the path that a list of the object does not have, and the list's length: not a missing key, but an error, as
/// in Kubernetes.
fn out_of_bounds(
    path: &str,
    query: &str,
    object: &Value,
    steps: &mut Steps,
) -> Result<Option<(i64, usize)>, String> {
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
                {
                    steps.take(path, &query[..at])?;
                    let lists = object.query(&query[..at]).unwrap_or_default();
                    if lists.is_empty() {
                        // Nor does anything come after it.
                        return Ok(None);
                    }
                    let mut lengths = lists.iter().filter_map(|l| l.as_array()).map(Vec::len);
                    let has = |length: usize| {
                        let length = i64::try_from(length).unwrap_or(i64::MAX);
                        (-length..length).contains(&index)
                    };
                    if let Some(length) = lengths.find(|length| !has(*length)) {
                        return Ok(Some((index, length)));
                    }
                }
            }
            (None, ']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(None)
}

/// The engine shows where it stopped by a drawing of several lines; a condition has one.
fn invalid(path: &str, drawn: &str) -> String {
    let expected = drawn.lines().find_map(|l| l.trim_start().strip_prefix("= "));
    let why = expected.unwrap_or_else(|| drawn.lines().next().unwrap_or_default());
    format!("the JSONPath {path:?} is not valid: {why}")
}

/// Where a path leads, each as the steps to one place.
pub fn places(path: &str, object: &Value, steps: &mut Steps) -> Result<Vec<Vec<String>>, String> {
    let query = rewrite(path)?;
    steps.take(path, &query)?;
    let found = object
        .query_only_path(&query)
        .map_err(|e| invalid(path, &e.to_string()))?;
    Ok(found.iter().map(|p| normalised(p)).collect())
}

/// The steps of a normalised path (RFC 9535 §2.7), like `$['a'][0]`.
fn normalised(path: &str) -> Vec<String> {
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
    Ok(quoted(&rooted))
}

/// `.a-b` and `.a\.b` become `['a-b']` and `['a.b']`, and so does `['a\.b']`; everything else stays.
fn quoted(path: &str) -> String {
    let chars: Vec<char> = path.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    // The last character that is part of no name.
    let mut plain = ' ';
    while at < chars.len() {
        let begins = |c: &char| !matches!(c, '.' | '*' | '[' | ' ');
        if let quote @ ('\'' | '"') = chars[at] {
            at = unescape_quoted(&chars, at, quote, &mut out);
            plain = quote;
        } else if chars[at] == '.' && !plain.is_ascii_digit() && chars.get(at + 1).is_some_and(begins) {
            let (name, next) = name(&chars, at + 1);
            if is_shorthand(&name) {
                out.push('.');
                out.push_str(&name);
            } else {
                if plain == '.' {
                    out.push('.');
                }
                out.push_str("['");
                out.push_str(&name.replace('\\', "\\\\").replace('\'', "\\'"));
                out.push_str("']");
            }
            at = next;
            plain = ' ';
        } else {
            plain = chars[at];
            out.push(plain);
            at += 1;
        }
    }
    out
}

/// The name that begins there, and where it ends.
fn name(chars: &[char], at: usize) -> (String, usize) {
    let mut name = String::new();
    let mut next = at;
    while let Some(&c) = chars.get(next) {
        match c {
            '\\' => {
                next += 1;
                name.extend(chars.get(next));
            }
            '.' | '[' | ']' | ')' | '=' | '!' | '<' | '>' | '&' | '|' | ' ' => break,
            c => name.push(c),
        }
        next += 1;
    }
    (name, next)
}

/// Whether RFC 9535 takes the name without quotes, or what is there is no name.
fn is_shorthand(name: &str) -> bool {
    let first = |c: char| c.is_alphabetic() || c == '_' || !c.is_ascii();
    let mut chars = name.chars();
    chars.next().is_none_or(first) && chars.all(|c| first(c) || c.is_ascii_digit())
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

    fn select(path: &str, object: &Value) -> Result<Vec<Value>, String> {
        let found = super::select(path, object, &mut Steps::of(object))?;
        Ok(found.into_iter().cloned().collect())
    }

    fn places(path: &str, object: &Value) -> Result<Vec<Vec<String>>, String> {
        super::places(path, object, &mut Steps::of(object))
    }

    #[test]
    fn names_need_no_quotes() {
        let object = json!({"data": {"my-key": 1, "9lives": 2, "a-b.c": 3, "a": 1.5, "it's": 4, "x:y": 5},
            "list": [{"my-type": "a", "n-o": 1.5, "v": 7}], "deep-er": {"my-key": 6}});
        for (path, expected) in [
            (".data.my-key", vec![json!(1)]),
            ("data.my-key", vec![json!(1)]),
            ("{.data.9lives}", vec![json!(2)]),
            (".data.a-b\\.c", vec![json!(3)]),
            (".data.it's", vec![json!(4)]),
            (".data.x:y", vec![json!(5)]),
            (".deep-er.my-key", vec![json!(6)]),
            (".list[?(@.my-type==\"a\")].v", vec![json!(7)]),
            (".list[?(@.n-o==1.5)].v", vec![json!(7)]),
            (".list[?(@.n-o>0.5)].my-type", vec![json!("a")]),
            (".list[0].my-type", vec![json!("a")]),
            (".data.no-such", vec![]),
        ] {
            assert_eq!(select(path, &object).unwrap(), expected, "{path}");
        }
        let mut all = select("..my-key", &object).unwrap();
        all.sort_by_key(Value::as_i64);
        assert_eq!(all, [json!(1), json!(6)]);
        assert_eq!(places(".data.my-key", &object).unwrap(), [["data", "my-key"]]);
    }

    #[test]
    fn what_would_run_away_is_not_begun() {
        let mut deep = json!({"x": [1, 2, 3, 4, 5, 6, 7, 8]});
        for _ in 0..40 {
            deep = json!({"a": deep, "b": [{"type": "Ready", "v": 1}]});
        }
        for (path, runs) in [
            ("..v", true),
            ("..a..v", true),
            ("..b[?(@.type==\"Ready\")].v", true),
            (".a.b[*].v", true),
            (".b['type','v']", true),
            ("..*..*..*..*", false),
            ("..a..a..a..a..a..a..a", false),
            ("..*[?(@..v==1)]..v", false),
            ("..[?(@..[?(@..v)])]", false),
            (".b[?length(@)==1]", false),
            (".b[?search(@.type, 'x')]", false),
        ] {
            assert_eq!(select(path, &deep).is_ok(), runs, "{path}");
        }
        let twice = format!("$.a{}", "[*,*]".repeat(40));
        assert!(select(&twice, &deep).unwrap_err().contains("places"));
        // What is asked to say why there is nothing counts too.
        let many = format!("$..*{}", "[0]".repeat(60));
        let wide: Value = (0..3000).map(|n| json!({"v": n})).collect();
        let mut steps = Steps::of(&wide);
        let ended =
            (0..1000).find(|_| super::select(&many, &wide, &mut steps).is_err_and(|e| e.contains("places")));
        assert!(ended.is_some_and(|n| n < 200), "{ended:?}");
        // Many that are small are too much together.
        let mut steps = Steps::of(&deep);
        let ended = (0..1000).find(|_| super::select("..*..*", &deep, &mut steps).is_err());
        assert!(ended.is_some_and(|n| n > 10), "{ended:?}");
    }

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
