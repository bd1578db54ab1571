//! String formats of OpenAPI as apiextensions checks them (kube-openapi `validation/strfmt`).

use super::regexes;
use base64::Engine as _;
use jiff::civil::Date;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `text` has the format; formats nobody checks (`password`, unknown ones) always pass.
pub fn matches(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => is_date_time(text),
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "duration" => duration_nanos(text).is_some(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uri" => is_uri(text),
        "hostname" => is_hostname(text),
        "email" => is_email(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some(b'3')),
        "uuid4" => is_uuid(text, Some(b'4')) && variant(text),
        "uuid5" => is_uuid(text, Some(b'5')) && variant(text),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "hexcolor" => fits(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$", text),
        "rgbcolor" => fits(
            r"^rgb\(\s*(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\s*(,\s*(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\s*){2}\)$",
            text,
        ),
        "ssn" => fits(r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$", text),
        "creditcard" => is_credit_card(text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "k8s-short-name" => is_label(text),
        "k8s-long-name" => text.len() <= 253 && text.split('.').all(|p| !p.is_empty() && is_label_of(p, 253)),
        _ => true,
    }
}

/// Formats besides those with a name of one word and a number.
const KNOWN: [&str; 25] = [
    "bsonobjectid",
    "uri",
    "hostname",
    "email",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
];

/// Whether a format means anything for values of this type.
pub fn is_known(kind: &str, format: &str) -> bool {
    // Dashes do not count.
    let plain = format.replace('-', "");
    match plain.as_str() {
        "int32" | "int64" => kind == "integer",
        "float" | "double" => kind == "number",
        "k8slongname" => true,
        plain => KNOWN.contains(&plain),
    }
}

fn fits(pattern: &str, text: &str) -> bool {
    regexes::compile(pattern).is_ok_and(|re| re.is_match(text))
}

/// RFC 3339 with seconds and a zone.
pub fn is_date_time(text: &str) -> bool {
    fits(
        r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$",
        text,
    ) && text.parse::<jiff::Timestamp>().is_ok()
}

/// A Go duration like `1h30m` in nanoseconds (`time.ParseDuration`), or one like `2 days` of strfmt.
pub fn duration_nanos(text: &str) -> Option<i64> {
    go_duration(text).or_else(|| {
        let (count, unit) = text.trim().split_once(' ')?;
        let count: i64 = count.parse().ok()?;
        let unit = match unit.trim().trim_end_matches('s') {
            "nano" | "nanosecond" => 1,
            "micro" | "microsecond" => 1_000,
            "milli" | "millisecond" => 1_000_000,
            "sec" | "second" => 1_000_000_000,
            "min" | "minute" => 60_000_000_000,
            "hr" | "hour" => 3_600_000_000_000,
            "day" => 86_400_000_000_000,
            "wk" | "week" => 604_800_000_000_000,
            _ => return None,
        };
        count.checked_mul(unit)
    })
}

fn go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|n| *n > 0)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit: i64 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        let mut scale = unit;
        for digit in fraction.bytes() {
            if !digit.is_ascii_digit() {
                return None;
            }
            scale /= 10;
            total = total.checked_add(i64::from(digit - b'0') * scale)?;
        }
        rest = tail;
    }
    Some(if negative { -total } else { total })
}

fn is_cidr(text: &str) -> bool {
    let Some((ip, length)) = text.split_once('/') else {
        return false;
    };
    let Ok(length) = length.parse::<u8>() else {
        return false;
    };
    match ip.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => length <= 32,
        Ok(IpAddr::V6(_)) => length <= 128,
        Err(_) => false,
    }
}

fn is_mac(text: &str) -> bool {
    let separator = if text.contains(':') { ':' } else { '-' };
    let parts: Vec<_> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20)
        && parts
            .iter()
            .all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_uri(text: &str) -> bool {
    // What Go's url.ParseRequestURI accepts: an absolute URI or an absolute path.
    !text.is_empty()
        && !text.chars().any(|c| c.is_control() || c == ' ')
        && (text.starts_with('/') || fits(r"^[A-Za-z][A-Za-z0-9+.-]*:.+$", text))
}

fn is_label_of(text: &str, longest: usize) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    text.len() <= longest
        && bytes.first().is_some_and(|b| alphanumeric(*b))
        && bytes.last().is_some_and(|b| alphanumeric(*b))
        && bytes.iter().all(|b| alphanumeric(*b) || *b == b'-')
}

fn is_label(text: &str) -> bool {
    is_label_of(text, 63)
}

fn is_hostname(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|part| {
            !part.is_empty()
                && part.len() <= 63
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.chars().all(|c| c.is_alphanumeric() || c == '-')
        })
}

fn is_email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !local.contains(char::is_whitespace) && !domain.is_empty() && is_hostname(domain)
    })
}

fn is_uuid(text: &str, version: Option<u8>) -> bool {
    fits(
        r"^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$",
        text,
    ) && version.is_none_or(|v| hex_digits(text).nth(12) == Some(v))
}

fn variant(text: &str) -> bool {
    hex_digits(text)
        .nth(16)
        .is_some_and(|b| matches!(b.to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b'))
}

fn hex_digits(text: &str) -> impl Iterator<Item = u8> {
    text.bytes().filter(|b| *b != b'-')
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

fn is_credit_card(text: &str) -> bool {
    let digits = digits(text);
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, d)| {
            if i % 2 == 1 {
                (d * 2) / 10 + (d * 2) % 10
            } else {
                *d
            }
        })
        .sum();
    (13..=19).contains(&digits.len())
        && text.chars().all(|c| c.is_ascii_digit() || c == ' ' || c == '-')
        && sum.is_multiple_of(10)
}

fn is_isbn10(text: &str) -> bool {
    let chars: Vec<char> = text.chars().filter(|c| *c != '-' && *c != ' ').collect();
    if chars.len() != 10 {
        return false;
    }
    let mut sum = 0;
    for (weight, c) in (1..=10).rev().zip(&chars) {
        let Some(value) = (if weight == 1 && *c == 'X' {
            Some(10)
        } else {
            c.to_digit(10)
        }) else {
            return false;
        };
        sum += weight * value;
    }
    sum % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let clean: String = text.chars().filter(|c| *c != '-' && *c != ' ').collect();
    let digits = digits(&clean);
    let sum: u32 = digits
        .iter()
        .enumerate()
        .map(|(i, d)| if i % 2 == 1 { d * 3 } else { *d })
        .sum();
    clean.len() == 13 && digits.len() == 13 && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_accept_and_refuse() {
        let cases: [(&str, &[&str], &[&str]); 14] = [
            (
                "date-time",
                &["2024-01-02T03:04:05Z", "2024-01-02T03:04:05.5+01:00"],
                &[
                    "yesterday",
                    "2024-01-02",
                    "2024-13-02T03:04:05Z",
                    "2024-01-02 03:04:05Z",
                ],
            ),
            ("date", &["2024-02-29"], &["2023-02-29", "2024-2-9"]),
            ("byte", &["", "YQ=="], &["%%", "YQ"]),
            (
                "duration",
                &["1h30m", "-1.5s", "0", "300ms", "2 days"],
                &["", "1", "1x", "h"],
            ),
            ("ipv4", &["10.0.0.1"], &["10.0.0", "::1"]),
            ("ipv6", &["::1"], &["10.0.0.1"]),
            ("cidr", &["10.0.0.0/8", "::/0"], &["10.0.0.0", "10.0.0.0/33"]),
            ("uri", &["https://a/b", "/x"], &["", "a b", "nope"]),
            ("hostname", &["a.example.com", "A"], &["-a", "a..b", ""]),
            ("uuid", &["7d444840-9dc0-11d1-b245-5ffdce74fad2"], &["7d444840"]),
            ("mac", &["01:23:45:67:89:ab"], &["01:23"]),
            (
                "isbn",
                &["0-306-40615-2", "978-3-16-148410-0"],
                &["0-306-40615-3"],
            ),
            ("creditcard", &["4111 1111 1111 1111"], &["4111 1111 1111 1112"]),
            ("password", &["", "anything"], &[]),
        ];
        for (format, good, bad) in cases {
            for text in good {
                assert!(matches(format, text), "{format} takes {text:?}");
            }
            for text in bad {
                assert!(!matches(format, text), "{format} refuses {text:?}");
            }
        }
        assert_eq!(duration_nanos("1h1.5s"), Some(3_601_500_000_000));
    }
}
