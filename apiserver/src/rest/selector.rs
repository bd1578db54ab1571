//! Label and field selectors, parsed from their text and matched against objects (apimachinery `labels`, `fields`).

use crate::ApiError;
use crate::registry::names;
use serde_json::Value;

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

/// A parsed label selector; the empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Op(&'static str),
    End,
}

impl Token {
    fn shown(&self) -> &str {
        match self {
            Token::Word(w) => w,
            Token::Op(o) => o,
            Token::End => "",
        }
    }
}

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

fn lex(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        if c.is_ascii_whitespace() {
            chars.next();
            continue;
        }
        let single = |o| Token::Op(o);
        match c {
            '(' | ')' | ',' | '<' | '>' => {
                chars.next();
                out.push(single(match c {
                    '(' => "(",
                    ')' => ")",
                    ',' => ",",
                    '<' => "<",
                    _ => ">",
                }));
            }
            '=' | '!' => {
                chars.next();
                let follows = chars.peek() == Some(&'=');
                if follows {
                    chars.next();
                }
                out.push(single(match (c, follows) {
                    ('=', true) => "==",
                    ('=', false) => "=",
                    (_, true) => "!=",
                    (_, false) => "!",
                }));
            }
            _ => {
                let mut word = String::new();
                while let Some(&c) = chars.peek() {
                    if c.is_ascii_whitespace() || "()=!,<>".contains(c) {
                        break;
                    }
                    word.push(c);
                    chars.next();
                }
                out.push(Token::Word(word));
            }
        }
    }
    out.push(Token::End);
    out
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut out = Vec::new();
        loop {
            match self.peek() {
                Token::End => return Ok(out),
                Token::Word(_) | Token::Op("!") => {
                    out.push(
                        self.requirement()
                            .map_err(|e| format!("unable to parse requirement: {e}"))?,
                    );
                    match self.take() {
                        Token::End => return Ok(out),
                        Token::Op(",") => {
                            if !matches!(self.peek(), Token::Word(_) | Token::Op("!")) {
                                return Err(format!(
                                    "found '{}', expected: identifier after ','",
                                    self.peek().shown()
                                ));
                            }
                        }
                        other => {
                            return Err(format!(
                                "found '{}', expected: ',' or 'end of string'",
                                other.shown()
                            ));
                        }
                    }
                }
                other @ Token::Op(_) => {
                    return Err(format!(
                        "found '{}', expected: !, identifier, or 'end of string'",
                        other.shown()
                    ));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = *self.peek() == Token::Op("!");
        if negated {
            self.at += 1;
        }
        let key = match self.take() {
            Token::Word(word) => word,
            other @ (Token::Op(_) | Token::End) => {
                return Err(format!("found '{}', expected: identifier", other.shown()));
            }
        };
        check_key(&key)?;
        if negated {
            return Ok(Requirement::Absent(key));
        }
        if matches!(self.peek(), Token::End | Token::Op(",")) {
            return Ok(Requirement::Exists(key));
        }
        let operator = self.take();
        match operator.shown() {
            op @ ("in" | "notin") => {
                let values = self.values()?;
                for (i, v) in values.iter().enumerate() {
                    check_value(&key, i, v)?;
                }
                Ok(if op == "in" {
                    Requirement::In(key, values)
                } else {
                    Requirement::NotIn(key, values)
                })
            }
            op @ ("=" | "==" | "!=") => {
                let value = self.exact()?;
                check_value(&key, 0, &value)?;
                Ok(if op == "!=" {
                    Requirement::NotIn(key, vec![value])
                } else {
                    Requirement::In(key, vec![value])
                })
            }
            op @ (">" | "<" | "gt" | "lt") => {
                let value = self.exact()?;
                let number = value.parse().map_err(|_| {
                    format!("values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer")
                })?;
                Ok(if matches!(op, ">" | "gt") {
                    Requirement::Greater(key, number)
                } else {
                    Requirement::Less(key, number)
                })
            }
            other => Err(format!("found '{other}', expected: {OPERATORS}")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.take() {
            Token::Op("(") => {}
            Token::End => return Err("found '' expected: '('".into()),
            other => return Err(format!("found '{}', expected: '('", other.shown())),
        }
        let mut out = Vec::new();
        let mut expect_value = true;
        loop {
            match self.take() {
                Token::Word(word) if expect_value => {
                    out.push(word);
                    expect_value = false;
                }
                Token::Op(",") => {
                    if expect_value {
                        out.push(String::new());
                    }
                    expect_value = true;
                }
                Token::Op(")") => {
                    if expect_value {
                        out.push(String::new());
                    }
                    return Ok(out);
                }
                other => {
                    let more = if expect_value {
                        "',', ')' or identifier"
                    } else {
                        "',' or ')'"
                    };
                    return Err(format!("found '{}', expected: {more}", other.shown()));
                }
            }
        }
    }

    fn exact(&mut self) -> Result<String, String> {
        match self.peek() {
            Token::End | Token::Op(",") => Ok(String::new()),
            Token::Word(_) => Ok(self.take().shown().to_owned()),
            other @ Token::Op(_) => Err(format!("found '{}', expected: identifier", other.shown())),
        }
    }
}

fn check_key(key: &str) -> Result<(), String> {
    let why = names::label_key(key);
    if why.is_empty() {
        return Ok(());
    }
    Err(format!("<nil>: Invalid value: {key:?}: {}", why.join("; ")))
}

fn check_value(key: &str, at: usize, value: &str) -> Result<(), String> {
    let why = names::label_value(value);
    if why.is_empty() {
        return Ok(());
    }
    Err(format!(
        "values[{at}][{key}]: Invalid value: {value:?}: {}",
        why.join("; ")
    ))
}

impl LabelSelector {
    /// Parses `a=b,c in (d,e),!f`.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let mut parser = Parser {
            tokens: lex(text),
            at: 0,
        };
        parser.selector().map(Self).map_err(ApiError::BadRequest)
    }

    /// Matches everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether labels, looked up by `get`, satisfy it.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &str| get(key).and_then(|v| v.parse::<i64>().ok());
        self.0.iter().all(|r| match r {
            Requirement::In(key, values) => get(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Requirement::NotIn(key, values) => get(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Requirement::Exists(key) => get(key).is_some(),
            Requirement::Absent(key) => get(key).is_none(),
            Requirement::Greater(key, n) => number(key).is_some_and(|v| v > *n),
            Requirement::Less(key, n) => number(key).is_some_and(|v| v < *n),
        })
    }
}

/// A parsed field selector: path, value, and whether they must be equal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(String, String, bool)>);

impl FieldSelector {
    /// Parses `metadata.name=a,spec.x!=b`. Backslash escapes `,`, `=` and itself.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let mut out = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let (field, value, equal) = split_term(&term).ok_or_else(|| {
                ApiError::BadRequest(format!("invalid selector: '{text}'; can't understand '{term}'"))
            })?;
            let value = unescape(value).map_err(ApiError::BadRequest)?;
            out.push((field.to_owned(), value, equal));
        }
        Ok(Self(out))
    }

    /// Matches everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields it names.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(f, _, _)| f.as_str())
    }

    /// Whether it speaks of `metadata.name` and `metadata.namespace` only.
    pub fn is_metadata_only(&self) -> bool {
        self.fields()
            .all(|f| matches!(f, "metadata.name" | "metadata.namespace"))
    }

    /// The value `field` must have, when there is exactly such a term.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(f, _, equal)| f == field && *equal)
            .map(|(_, v, _)| v.as_str())
    }

    /// Whether a key alone satisfies the metadata terms.
    pub fn matches_key(&self, namespace: &str, name: &str) -> bool {
        self.0.iter().all(|(field, value, equal)| match field.as_str() {
            "metadata.name" => (name == value) == *equal,
            "metadata.namespace" => (namespace == value) == *equal,
            _ => true,
        })
    }

    /// Whether an object satisfies it.
    pub fn matches(&self, object: &Value) -> bool {
        self.0
            .iter()
            .all(|(field, value, equal)| (field_text(object, field) == *value) == *equal)
    }
}

/// A field as selectors see it: text as it is, numbers and booleans printed, absent as `""` (the zero value where Go
/// would have one).
fn field_text(object: &Value, field: &str) -> String {
    let mut node = object;
    for part in field.split('.').filter(|p| !p.is_empty()) {
        node = &node[part];
    }
    match node {
        Value::String(s) => s.clone(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        _ => match field {
            "spec.unschedulable" | "spec.hostNetwork" => "false".into(),
            "status.replicas" | "status.successful" => "0".into(),
            _ => String::new(),
        },
    }
}

fn split_terms(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            out.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    out
}

fn split_term(term: &str) -> Option<(&str, &str, bool)> {
    let at = term.find('=')?;
    if let Some(field) = term[..at].strip_suffix('!') {
        return Some((field, &term[at + 1..], false));
    }
    let value = &term[at + 1..];
    Some((&term[..at], value.strip_prefix('=').unwrap_or(value), true))
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => escaped,
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "invalid field selector: invalid escape sequence: \\{other}"
                    ));
                }
            },
            ',' | '=' => {
                let rune = u32::from(c);
                return Err(format!(
                    "invalid field selector: unescaped character in value: {rune}"
                ));
            }
            plain => plain,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let get = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        LabelSelector::parse(selector).unwrap().matches(get)
    }

    #[test]
    fn label_selectors_match() {
        let labels = [("a", "b"), ("n", "3"), ("x.io/y", "z")];
        for (selector, want) in [
            ("", true),
            ("a=b", true),
            ("a==b,n", true),
            ("a!=b", false),
            ("missing!=b", true),
            ("a in (b, c)", true),
            ("a notin (b)", false),
            ("missing notin (b)", true),
            ("!a", false),
            ("!missing,x.io/y=z", true),
            ("n>2", true),
            ("n<3", false),
            ("a in (c,)", false),
            ("a=", false),
        ] {
            assert_eq!(matches(selector, &labels), want, "{selector}");
        }
    }

    #[test]
    fn bad_label_selectors_are_refused() {
        for (selector, want) in [
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("a in b", "unable to parse requirement: found 'b', expected: '('"),
            ("a,", "found '', expected: identifier after ','"),
        ] {
            assert_eq!(
                LabelSelector::parse(selector).unwrap_err().to_string(),
                want,
                "{selector}"
            );
        }
        assert!(LabelSelector::parse("a=b c").is_err());
        assert!(LabelSelector::parse("a=-").is_err());
    }

    #[test]
    fn field_selectors_match() {
        let object = json!({"metadata": {"name": "n", "namespace": "s"}, "spec": {"x": 4}});
        for (selector, want) in [
            ("metadata.name=n", true),
            ("metadata.name!=n", false),
            ("metadata.name==n,spec.x=4", true),
            ("spec.missing=", true),
        ] {
            assert_eq!(
                FieldSelector::parse(selector).unwrap().matches(&object),
                want,
                "{selector}"
            );
        }
        for (selector, want) in [
            ("x", "invalid selector: 'x'; can't understand 'x'"),
            (
                "a=b=c",
                "invalid field selector: unescaped character in value: 61",
            ),
            (r"a=b\c", r"invalid field selector: invalid escape sequence: \c"),
            (r"a=b\", r"invalid field selector: invalid escape sequence: \"),
        ] {
            let error = FieldSelector::parse(selector).unwrap_err().to_string();
            assert_eq!(error, want, "{selector}");
        }
    }
}
