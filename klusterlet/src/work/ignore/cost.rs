//! How much a jq path may do at most, worked out before it is run: the interpreter can not be stopped, and what it gathers
//! takes memory until it ends.
//!
//! The bound grows with everything that gives more than one answer, as if each stood inside the one before. That is more than
//! what most paths do, and little for the paths that name fields.

use serde_json::Value;

/// So many steps a path may make.
const MOST: u64 = 1_000_000;

/// Refuses what may be too much for an object.
pub fn check(path: &str, object: &Value) -> Result<(), String> {
    let most = bound(path, object);
    if most > MOST {
        return Err(format!("may make {most} steps, {MOST} are allowed"));
    }
    Ok(())
}

/// How large an object is: its values, and the most that are directly in one.
fn size(value: &Value) -> (u64, u64) {
    let (mut nodes, mut widest, mut here) = (1, 1, 0);
    let mut add = |inner: &Value| {
        let (more, wide) = size(inner);
        nodes += more;
        widest = widest.max(wide);
        here += 1;
    };
    match value {
        Value::Object(map) => map.values().for_each(&mut add),
        Value::Array(items) => items.iter().for_each(&mut add),
        _ => {}
    }
    (nodes, widest.max(here))
}

/// A part of a path that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Every item of something: `[]`, or a function that goes through them.
    Items,
    /// All values at any depth: `..`, `paths`.
    All,
    /// Twice as much as before: `,`, `+`, or a text of a text.
    Twice,
    /// A list or map of what comes before and inside.
    Gathered,
    /// A text is taken apart, or made of an object.
    Text,
}

fn bound(path: &str, object: &Value) -> u64 {
    let parts = parts(path);
    let (mut nodes, mut widest) = size(object);
    if parts.contains(&Part::Text) {
        let bytes = object.to_string().len() as u64;
        (nodes, widest) = (nodes.max(bytes), bytes);
    }
    let (mut most, mut gathered) = (1u64, false);
    for part in parts {
        let times = match part {
            // What was gathered may have as much in it as there was before.
            Part::Items if gathered => widest.max(most),
            Part::Items => widest,
            Part::All if gathered => nodes.saturating_mul(most),
            Part::All => nodes,
            Part::Twice => 2,
            Part::Gathered => {
                gathered = true;
                1
            }
            Part::Text => 1,
        };
        most = most.saturating_mul(times);
    }
    most
}

/// What counts of a path, in its order. Texts in it have nothing that does: `\(` is not allowed there.
fn parts(path: &str) -> Vec<Part> {
    let chars: Vec<char> = path.chars().collect();
    let mut out = Vec::new();
    let mut at = 0;
    // Where a word ends that a `[` may follow to look into what it gives.
    let mut operand = None;
    while let Some(&c) = chars.get(at) {
        let begin = at;
        at += 1;
        match c {
            '"' => {
                while let Some(&c) = chars.get(at) {
                    at += if c == '\\' { 2 } else { 1 };
                    if c == '"' {
                        break;
                    }
                }
                operand = Some(at);
            }
            '.' if chars.get(at) == Some(&'.') => {
                at += 1;
                out.push(Part::All);
                operand = Some(at);
            }
            '.' | ')' | ']' | '}' | '?' => operand = Some(at),
            '[' => {
                let next = chars[at..].iter().find(|c| !c.is_whitespace());
                if next == Some(&']') {
                    out.push(Part::Items);
                } else if operand != Some(begin) {
                    out.push(Part::Gathered);
                }
            }
            '{' => out.push(Part::Gathered),
            ',' => out.push(Part::Twice),
            '+' => out.extend([Part::Twice, Part::Gathered]),
            '/' if chars.get(at) == Some(&'/') => at += 1,
            '/' => out.extend([Part::Text, Part::Gathered]),
            c if c.is_alphanumeric() || c == '_' => {
                while chars.get(at).is_some_and(|c| c.is_alphanumeric() || *c == '_') {
                    at += 1;
                }
                let word: String = chars[begin..at].iter().collect();
                let named = begin > 0 && matches!(chars[begin - 1], '.' | '$');
                if named || !is_keyword(&word) {
                    operand = Some(at);
                }
                if !named {
                    out.extend(of_word(&word));
                }
            }
            _ => {}
        }
    }
    out
}

/// Words after which a `[` begins a list.
fn is_keyword(word: &str) -> bool {
    matches!(
        word,
        "and" | "or" | "as" | "if" | "then" | "elif" | "else" | "catch" | "try"
    )
}

fn of_word(word: &str) -> &'static [Part] {
    match word {
        "all" | "any" => &[Part::Items],
        "map" | "indices" | "index" | "keys" => &[Part::Items, Part::Gathered],
        "paths" | "flatten" => &[Part::All, Part::Gathered],
        "tostring" => &[Part::Text, Part::Twice],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_that_name_fields_are_cheap_and_what_multiplies_is_dear() {
        let container =
            |name: &str| json!({"name": name, "image": "i", "env": [{"name": "A", "value": "1"}]});
        let object = json!({"metadata": {"name": "web", "labels": {"a": "b"}},
            "spec": {"template": {"spec": {"containers": [container("a"), container("b"), container("c")]}}}});
        let (nodes, widest) = size(&object);
        assert_eq!((nodes, widest), (30, 3));
        let bytes = object.to_string().len() as u64;
        for (path, expected) in [
            (".spec.replicas", 1),
            (".a[\"b.c\"][0].d", 1),
            (".metadata.annotations[\"a/b,c..\"]", 1),
            (
                ".a[] | select(.name == \"x\") | .env[] | select(.name == \"y\") | .value",
                widest * widest,
            ),
            (".a // .b", 1),
            (".a, .b", 2),
            ("..", nodes),
            (".. | select(.x) | ..", nodes * nodes),
            ("[..]", nodes),
            (". | [..] | .[]", nodes * nodes),
            ("if .a then[..]|.[] else .b end", nodes * nodes),
            ("map(.a)", widest),
            ("paths", nodes),
            (".paths.map", 1),
            ("$x[]", widest),
            (".a / \",\" | .[]", bytes),
            (".a + .a + .a", 4),
        ] {
            assert_eq!(bound(path, &object), expected, "{path}");
        }
        assert!(check(&"..|".repeat(40), &object).is_err());
    }
}
