//! Kubernetes' JSONPath as CRD columns use it: fields, `\.` escapes, indices, slices, lists of them, `*`, `..` and
//! filters like `[?(@.type=="Ready")]`. `['a']` is `.a`, so that a dot in it has to be escaped as well. Templates
//! (`{range}`) are not paths and are refused.

use serde_json::Value;

/// Longest path, in bytes.
const LONGEST: usize = 4096;
/// Brackets in one another, which are read and walked by recursion.
const DEEPEST: usize = 16;
/// Values one path may pass by on its way through an object. One cell is not worth more, and a path that leads on and on to the
/// same values would never end.
const MOST: usize = 100_000;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    /// From, to, and every how many.
    Slice(Option<i64>, Option<i64>, usize),
    Union(Vec<Vec<Step>>),
    All,
    Deep,
    Filter(Vec<Step>, Option<(Op, Value)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

impl JsonPath {
    /// Reads a path like `.status.conditions[?(@.type=="Ready")].status`; the error says what is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() > LONGEST {
            return Err(format!("may not be longer than {LONGEST} bytes"));
        }
        if nesting(text) > DEEPEST {
            return Err(format!(
                "may not have more than {DEEPEST} brackets in one another"
            ));
        }
        let text = text
            .strip_prefix('{')
            .and_then(|t| t.strip_suffix('}'))
            .unwrap_or(text);
        let text = text.strip_prefix('$').unwrap_or(text);
        if !(text.is_empty() || text.starts_with('.') || text.starts_with('[')) {
            return Err(format!("must begin with '.': {text}"));
        }
        steps(text).map(Self)
    }

    /// Every value the path leads to; none when there is too much on the way.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut left = MOST;
        walk(&self.0, value, &mut left).unwrap_or_default()
    }
}

/// How many brackets are open at most. In quotes they count too: too many is only more than there are.
fn nesting(text: &str) -> usize {
    let mut open = 0usize;
    let depths = text.bytes().map(|byte| {
        match byte {
            b'[' => open += 1,
            b']' => open = open.saturating_sub(1),
            _ => {}
        }
        open
    });
    depths.max().unwrap_or_default()
}

fn steps(text: &str) -> Result<Vec<Step>, String> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        match chars[i] {
            '.' if chars.get(i + 1) == Some(&'.') => {
                out.push(Step::Deep);
                i += 1;
                if matches!(chars.get(i + 1), Some('[')) {
                    i += 1;
                }
            }
            '.' => {
                let mut name = String::new();
                i += 1;
                while i < chars.len() && !matches!(chars[i], '.' | '[') {
                    if chars[i] == '\\' && i + 1 < chars.len() {
                        i += 1;
                    }
                    name.push(chars[i]);
                    i += 1;
                }
                match name.as_str() {
                    // `.[0]` is `[0]`, and a path of one dot is the object itself.
                    "" if i >= chars.len() || chars[i] == '[' => {}
                    "" => return Err(format!("a field has no name: {text}")),
                    "*" => out.push(Step::All),
                    _ => out.push(Step::Field(name)),
                }
            }
            '[' => {
                let end = closing(&chars, i).ok_or_else(|| format!("unterminated array: {text}"))?;
                let inner: String = chars[i + 1..end].iter().collect();
                out.extend(bracket(inner.trim())?);
                i = end + 1;
            }
            c => return Err(format!("unexpected {c:?}: {text}")),
        }
    }
    Ok(out)
}

/// Where the bracket opened at `from` closes, quotes and nested brackets skipped.
fn closing(chars: &[char], from: usize) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    let mut i = from;
    while i < chars.len() {
        match (quote, chars[i]) {
            (Some(_), '\\') => i += 1,
            (Some(q), c) if c == q => quote = None,
            (None, c @ ('"' | '\'')) => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
        i += 1;
    }
    None
}

fn unquoted(text: &str) -> Option<String> {
    ['"', '\''].iter().find_map(|q| {
        let inner = text.strip_prefix(*q)?.strip_suffix(*q)?;
        Some(inner.replace(&format!("\\{q}"), &q.to_string()))
    })
}

fn bracket(inner: &str) -> Result<Vec<Step>, String> {
    if inner == "*" {
        return Ok(vec![Step::All]);
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|c| c.strip_suffix(')')) {
        return filter(condition.trim()).map(|f| vec![f]);
    }
    if inner.contains(',') {
        let parts = inner.split(',').map(|part| bracket(part.trim()));
        return Ok(vec![Step::Union(parts.collect::<Result<_, _>>()?)]);
    }
    if let Some(name) = inner.strip_prefix('\'').and_then(|i| i.strip_suffix('\'')) {
        return steps(&format!(".{name}"));
    }
    let invalid = || format!("invalid array index {inner}");
    let number = |s: &str| s.trim().parse::<i64>().map_err(|_| invalid());
    let sides: Vec<&str> = inner.split(':').map(str::trim).collect();
    let side = |i: usize| match sides.get(i) {
        None | Some(&"") => Ok(None),
        Some(s) => number(s).map(Some),
    };
    match sides.len() {
        1 => Ok(vec![Step::Index(number(inner)?)]),
        2 | 3 => {
            let every = usize::try_from(side(2)?.unwrap_or(1)).map_err(|_| invalid())?;
            if every == 0 {
                return Err(invalid());
            }
            Ok(vec![Step::Slice(side(0)?, side(1)?, every)])
        }
        _ => Err(invalid()),
    }
}

fn filter(condition: &str) -> Result<Step, String> {
    const OPS: [(&str, Op); 6] = [
        ("==", Op::Eq),
        ("!=", Op::Ne),
        (">=", Op::Ge),
        ("<=", Op::Le),
        (">", Op::Gt),
        ("<", Op::Lt),
    ];
    let found = OPS
        .iter()
        .filter_map(|(sign, op)| condition.find(sign).map(|at| (at, sign.len(), *op)))
        .min_by_key(|(at, len, _)| (*at, std::cmp::Reverse(*len)));
    let path = |text: &str| {
        let text = text.trim();
        text.strip_prefix('@')
            .ok_or_else(|| format!("a filter must begin with '@': {text}"))
            .and_then(steps)
    };
    let Some((at, len, op)) = found else {
        return Ok(Step::Filter(path(condition)?, None));
    };
    let right = condition[at + len..].trim();
    let value = match unquoted(right) {
        Some(text) => Value::String(text),
        None => serde_json::from_str(right).map_err(|_| format!("unrecognized value in filter: {right}"))?,
    };
    Ok(Step::Filter(path(&condition[..at])?, Some((op, value))))
}

fn compare(left: &Value, op: Op, right: &Value) -> bool {
    let order = match (left, right) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => None,
        },
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    };
    match op {
        Op::Eq => order.is_some_and(std::cmp::Ordering::is_eq),
        Op::Ne => order.is_some_and(std::cmp::Ordering::is_ne),
        Op::Gt => order.is_some_and(std::cmp::Ordering::is_gt),
        Op::Ge => order.is_some_and(std::cmp::Ordering::is_ge),
        Op::Lt => order.is_some_and(std::cmp::Ordering::is_lt),
        Op::Le => order.is_some_and(std::cmp::Ordering::is_le),
    }
}

fn deep<'a>(value: &'a Value, out: &mut Vec<&'a Value>, most: usize) {
    if out.len() > most {
        return;
    }
    out.push(value);
    match value {
        Value::Array(list) => list.iter().for_each(|v| deep(v, out, most)),
        Value::Object(map) => map.values().for_each(|v| deep(v, out, most)),
        _ => {}
    }
}

fn position(index: i64, len: usize) -> Option<usize> {
    let len = i64::try_from(len).ok()?;
    usize::try_from(if index < 0 { len + index } else { index }).ok()
}

/// `left`: values that may still be passed by; `None` when there are more.
fn walk<'a>(path: &[Step], value: &'a Value, left: &mut usize) -> Option<Vec<&'a Value>> {
    let mut current = vec![value];
    for step in path {
        let mut next = Vec::new();
        for value in current {
            let before = next.len();
            match (step, value) {
                (Step::Field(name), Value::Object(map)) => next.extend(map.get(name)),
                (Step::Index(i), Value::Array(list)) => {
                    next.extend(position(*i, list.len()).and_then(|p| list.get(p)));
                }
                (Step::Slice(from, to, every), Value::Array(list)) => {
                    let from = from.and_then(|f| position(f, list.len())).unwrap_or(0);
                    let to = to.and_then(|t| position(t, list.len())).unwrap_or(list.len());
                    next.extend(list.iter().take(to).skip(from).step_by(*every));
                }
                (Step::All, Value::Array(list)) => next.extend(list),
                (Step::All, Value::Object(map)) => next.extend(map.values()),
                (Step::Union(paths), _) => {
                    for path in paths {
                        next.extend(walk(path, value, left)?);
                    }
                }
                (Step::Deep, _) => deep(value, &mut next, before + *left),
                (Step::Filter(path, test), Value::Array(list)) => {
                    for item in list {
                        *left = left.checked_sub(1)?;
                        let found = walk(path, item, left)?;
                        let holds = match test {
                            None => !found.is_empty(),
                            Some((op, right)) => found.iter().any(|l| compare(l, *op, right)),
                        };
                        if holds {
                            next.push(item);
                        }
                    }
                }
                _ => {}
            }
            *left = left.checked_sub(next.len() - before)?;
        }
        current = next;
    }
    Some(current)
}
