//! What Go's JSON decoder says of bytes that are no JSON: clients see these words in kube-apiserver's errors.

use std::fmt::Write as _;

/// The complaint about `bytes`, which a JSON parser refused. Empty when Go would take them.
pub fn complaint(bytes: &[u8]) -> Option<String> {
    let mut scanner = Scanner { bytes, at: 0 };
    let found = scanner.value().and_then(|()| {
        scanner.space();
        match scanner.peek() {
            None => Ok(()),
            Some(byte) => Err(unexpected(byte, "after top-level value")),
        }
    });
    found.err()
}

/// A value as Go's encoder writes it: what HTML would read as markup is escaped, and the two line ends of Unicode.
pub fn text(value: &serde_json::Value) -> String {
    let json = value.to_string();
    let special = |c: char| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
    if !json.contains(special) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if special(c) {
            // They stand in strings only.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// How deep values may lie in each other.
const DEEPEST: usize = 10_000;

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Scan = Result<(), String>;

/// What a value stands in.
#[derive(Clone, Copy)]
enum Open {
    Array,
    Object,
}

fn unexpected(byte: u8, place: &str) -> String {
    format!("invalid character {} {place}", go_char(byte))
}

/// A byte as Go's JSON errors quote it.
pub fn go_char(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        b'\n' => r"'\n'".into(),
        b'\r' => r"'\r'".into(),
        b'\t' => r"'\t'".into(),
        // Go takes the byte for a character.
        0x20..=0x7e | 0xa1..=0xac | 0xae..=0xff => format!("'{}'", char::from(byte)),
        _ => format!("'\\x{byte:02x}'"),
    }
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Result<u8, String> {
        let byte = self.peek().ok_or("unexpected end of JSON input")?;
        self.at += 1;
        Ok(byte)
    }

    /// One value with all that lies in it. What is open is kept aside: a client decides how deep values lie in each other.
    fn value(&mut self) -> Scan {
        let mut open: Vec<Open> = Vec::new();
        loop {
            if self.begin(&mut open)? {
                continue;
            }
            // A value is done: what it stands in goes on, or is done with it.
            loop {
                let Some(inner) = open.last().copied() else {
                    return Ok(());
                };
                self.space();
                match (inner, self.next()?) {
                    (Open::Array, b',') => break,
                    (Open::Object, b',') => {
                        self.key()?;
                        break;
                    }
                    (Open::Array, b']') | (Open::Object, b'}') => {
                        open.pop();
                    }
                    (Open::Array, byte) => return Err(unexpected(byte, "after array element")),
                    (Open::Object, byte) => return Err(unexpected(byte, "after object key:value pair")),
                }
            }
        }
    }

    /// Begins a value. True when it holds others, and the first of them comes next.
    fn begin(&mut self, open: &mut Vec<Open>) -> Result<bool, String> {
        if open.len() >= DEEPEST {
            return Err("exceeded max depth".into());
        }
        self.space();
        match self.next()? {
            b'{' => {
                self.space();
                if self.peek() == Some(b'}') {
                    self.at += 1;
                    return Ok(false);
                }
                self.key()?;
                open.push(Open::Object);
                return Ok(true);
            }
            b'[' => {
                self.space();
                if self.peek() == Some(b']') {
                    self.at += 1;
                    return Ok(false);
                }
                open.push(Open::Array);
                return Ok(true);
            }
            b'"' => self.string()?,
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            b'-' => match self.next()? {
                first @ b'0'..=b'9' => self.number(first)?,
                byte => return Err(unexpected(byte, "in numeric literal")),
            },
            first @ b'0'..=b'9' => self.number(first)?,
            byte => return Err(unexpected(byte, "looking for beginning of value")),
        }
        Ok(false)
    }

    /// A key and its colon.
    fn key(&mut self) -> Scan {
        self.space();
        match self.next()? {
            b'"' => self.string()?,
            byte => return Err(unexpected(byte, "looking for beginning of object key string")),
        }
        self.space();
        match self.next()? {
            b':' => Ok(()),
            byte => Err(unexpected(byte, "after object key")),
        }
    }

    fn string(&mut self) -> Scan {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            match self.next()? {
                                byte if byte.is_ascii_hexdigit() => {}
                                byte => return Err(unexpected(byte, r"in \u hexadecimal character escape")),
                            }
                        }
                    }
                    byte => return Err(unexpected(byte, "in string escape code")),
                },
                byte if byte < 0x20 => return Err(unexpected(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn literal(&mut self, word: &str) -> Scan {
        for expected in word.bytes().skip(1) {
            let byte = self.next()?;
            if byte != expected {
                let place = format!("in literal {word} (expecting {})", go_char(expected));
                return Err(unexpected(byte, &place));
            }
        }
        Ok(())
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    /// What follows the first digit.
    fn number(&mut self, first: u8) -> Scan {
        if first != b'0' {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            match self.next()? {
                b'0'..=b'9' => self.digits(),
                byte => return Err(unexpected(byte, "after decimal point in numeric literal")),
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            match self.next()? {
                b'0'..=b'9' => self.digits(),
                byte => return Err(unexpected(byte, "in exponent of numeric literal")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_says() {
        for (text, says) in [
            (r#"{"a":[1,2.5e3,-0,"x\u00e9",true,null]} "#, None),
            ("", Some("unexpected end of JSON input")),
            (r#"{"a":1,"#, Some("unexpected end of JSON input")),
            (
                "hello",
                Some("invalid character 'h' looking for beginning of value"),
            ),
            (
                "text",
                Some("invalid character 'e' in literal true (expecting 'r')"),
            ),
            ("{} {}", Some("invalid character '{' after top-level value")),
            (
                "{a}",
                Some("invalid character 'a' looking for beginning of object key string"),
            ),
            (r#"{"a" 1}"#, Some("invalid character '1' after object key")),
            (
                r#"{"a":1 "b"}"#,
                Some("invalid character '\"' after object key:value pair"),
            ),
            ("[1 2]", Some("invalid character '2' after array element")),
            ("-x", Some("invalid character 'x' in numeric literal")),
            (
                "1.x",
                Some("invalid character 'x' after decimal point in numeric literal"),
            ),
            (r#""\q""#, Some("invalid character 'q' in string escape code")),
        ] {
            assert_eq!(complaint(text.as_bytes()).as_deref(), says, "{text}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        for (depth, says) in [(9_999, None), (100_000, Some("exceeded max depth"))] {
            let text = "[".repeat(depth) + "1" + &"]".repeat(depth);
            assert_eq!(complaint(text.as_bytes()).as_deref(), says, "{depth}");
            let text = r#"{"a":"#.repeat(depth) + "1" + &"}".repeat(depth);
            assert_eq!(complaint(text.as_bytes()).as_deref(), says, "{depth}");
        }
    }
}
