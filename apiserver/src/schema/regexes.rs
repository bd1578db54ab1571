//! Regular expressions as Go's RE2 means them, run by the `regex` crate and kept once compiled.

use regex::{Regex, RegexBuilder};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Compiled expressions kept; beyond it the cache starts over.
const KEPT: usize = 512;
/// Largest compiled program, in bytes.
const PROGRAM_LIMIT: usize = 1 << 20;

static CACHE: LazyLock<Mutex<HashMap<Box<str>, Arc<Regex>>>> = LazyLock::new(Mutex::default);

/// Compiles a Go regular expression.
pub(super) fn compile(pattern: &str) -> Result<Arc<Regex>, String> {
    {
        let cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = cache.get(pattern) {
            return Ok(known.clone());
        }
    }
    let compiled = RegexBuilder::new(&translate(pattern))
        .size_limit(PROGRAM_LIMIT)
        .dfa_size_limit(PROGRAM_LIMIT)
        .build()
        .map_err(|e| in_go(pattern, e.to_string().lines().last().unwrap_or_default()))?;
    let compiled = Arc::new(compiled);
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= KEPT {
        cache.clear();
    }
    cache.insert(pattern.into(), compiled.clone());
    Ok(compiled)
}

/// The error as Go words it, for the mistakes that are made most.
fn in_go(pattern: &str, error: &str) -> String {
    let error = error.trim_start_matches("error: ");
    let (what, place) = match error {
        "unclosed group" => ("missing closing )", pattern),
        "unopened group" => ("unexpected )", pattern),
        "unclosed character class" => (
            "missing closing ]",
            pattern.rfind('[').map_or(pattern, |at| &pattern[at..]),
        ),
        "repetition operator missing expression" => {
            let at = pattern.find(['*', '+', '?']).unwrap_or_default();
            (
                "missing argument to repetition operator",
                pattern.get(at..=at).unwrap_or(pattern),
            )
        }
        "incomplete escape sequence, reached end of pattern prematurely" => {
            ("trailing backslash at end of expression", "")
        }
        _ => return error.to_owned(),
    };
    format!("error parsing regexp: {what}: `{place}`")
}

/// Writes a Go expression in the `regex` crate's syntax: Go's `\d \w \s \b` know only ASCII, its classes do not nest, and
/// a `{` that starts no repetition is a character.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut class_at: Option<usize> = None; // where the open class's items begin in `out`
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let in_class = class_at.is_some();
        if c == '\\' {
            let Some(escaped) = after.chars().next() else {
                out.push(c);
                break;
            };
            let width = 1 + escaped.len_utf8();
            match (escaped, in_class) {
                ('d', false) => out.push_str("[0-9]"),
                ('d', true) => out.push_str("0-9"),
                ('D', _) => out.push_str("[^0-9]"),
                ('w', false) => out.push_str("[0-9A-Za-z_]"),
                ('w', true) => out.push_str("0-9A-Za-z_"),
                ('W', _) => out.push_str("[^0-9A-Za-z_]"),
                ('s', false) => out.push_str(r"[\t\n\x0C\r\x20]"),
                ('s', true) => out.push_str(r"\t\n\x0C\r\x20"),
                ('S', _) => out.push_str(r"[^\t\n\x0C\r\x20]"),
                ('b', false) => out.push_str(r"(?-u:\b)"),
                ('<', _) => out.push('<'),
                ('>', _) => out.push('>'),
                ('Q', false) => {
                    let literal = &after[1..];
                    let (quoted, tail) = literal.split_once("\\E").unwrap_or((literal, ""));
                    out.push_str(&regex::escape(quoted));
                    rest = tail;
                    continue;
                }
                ('p' | 'P' | 'x', _) if after[1..].starts_with('{') && after.contains('}') => {
                    let end = rest.find('}').map_or(rest.len(), |at| at + 1);
                    out.push_str(&rest[..end]);
                    rest = &rest[end..];
                    continue;
                }
                _ => out.push_str(&rest[..width]),
            }
            rest = &rest[width..];
            continue;
        }
        match c {
            '[' if !in_class => {
                out.push('[');
                rest = after;
                if let Some(tail) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = tail;
                }
                if let Some(tail) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = tail;
                }
                class_at = Some(out.len());
                continue;
            }
            '[' if after.starts_with(':') => match after.find(":]") {
                Some(end) => {
                    out.push_str(&rest[..end + 3]);
                    rest = &rest[end + 3..];
                    continue;
                }
                None => out.push_str("\\["),
            },
            '[' => out.push_str("\\["),
            ']' if in_class => {
                out.push(']');
                class_at = None;
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '-' if in_class && (class_at == Some(out.len()) || after.starts_with(']')) => out.push_str("\\-"),
            '{' if !in_class && !is_repetition(after) => out.push_str("\\{"),
            '}' if !in_class && !closes_repetition(&out) => out.push_str("\\}"),
            _ => out.push(c),
        }
        rest = after;
    }
    out
}

fn is_repetition(after: &str) -> bool {
    let Some((count, _)) = after.split_once('}') else {
        return false;
    };
    let (low, high) = count.split_once(',').unwrap_or((count, ""));
    !low.is_empty() && low.bytes().chain(high.bytes()).all(|b| b.is_ascii_digit())
}

/// Whether a `}` that follows `before` ends a repetition.
fn closes_repetition(before: &str) -> bool {
    before.rfind('{').is_some_and(|at| {
        let escaped = at > 0 && before.as_bytes()[at - 1] == b'\\';
        !escaped && is_repetition(&format!("{}}}", &before[at + 1..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_expressions_mean_what_go_means() {
        let cases = [
            (r"^\d+$", "12", true),
            (r"^\d+$", "१२", false),
            (r"^[\w.-]+$", "a_b.c-d", true),
            (r"^\w+$", "é", false),
            (r"^[a-z[]+$", "a[", true),
            (r"^[]a]+$", "]a", true),
            (r"^[^]a]+$", "b", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^{a}$", "{a}", true),
            (r"^a{2,3}$", "aaa", true),
            (r"^a{2,}$", "aaaa", true),
            (r"^[a&&b]+$", "&", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^\p{Greek}+$", "αβ", true),
            (r"^[+-]?[0-9]+$", "-5", true),
            (r"^/(?:[/A-Za-z0-9\-]|%[0-9a-fA-F]{2})*$", "/a%2F-b", true),
            (r"^[!#$%&'*+\-.^_\x60|~0-9a-zA-Z]+$", "X-Head~er", true),
            (r"^a$", "a\n", false),
        ];
        for (pattern, input, expected) in cases {
            let re = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert_eq!(
                re.is_match(input),
                expected,
                "{pattern} on {input:?} as {}",
                translate(pattern)
            );
        }
        assert!(compile("(").is_err());
    }
}
