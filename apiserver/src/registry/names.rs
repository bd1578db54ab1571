//! Rules of names: DNS labels and subdomains, qualified names, label values, versions; with Kubernetes' own sentences
//! (apimachinery `util/validation`), because clients show and match them.

use std::cmp::Ordering;

const LABEL_SENTENCE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_SENTENCE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const UNDERSCORE_SENTENCE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";
const DNS_1035_SENTENCE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_SENTENCE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_SENTENCE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY_SENTENCE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME_SENTENCE: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn lower_alnum(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label_shape(s: &str) -> bool {
    let b = s.as_bytes();
    matches!((b.first(), b.last()), (Some(&f), Some(&l)) if lower_alnum(f) && lower_alnum(l))
        && b.iter().all(|&c| lower_alnum(c) || c == b'-')
}

/// RFC 1123 label, at most 63 characters.
pub fn dns_label(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 63 {
        out.push(too_long(63));
    }
    if !is_label_shape(s) {
        out.push(LABEL_SENTENCE.to_owned());
    }
    out
}

/// RFC 1123 subdomain, at most 253 characters.
pub fn dns_subdomain(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 253 {
        out.push(too_long(253));
    }
    if !s.split('.').all(is_label_shape) {
        out.push(SUBDOMAIN_SENTENCE.to_owned());
    }
    out
}

/// As [`dns_subdomain`], with underscores, as domains to search in may have them.
pub fn dns_subdomain_with_underscore(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 253 {
        out.push(too_long(253));
    }
    let part = |part: &str| {
        let b = part.strip_prefix('_').unwrap_or(part).as_bytes();
        matches!((b.first(), b.last()), (Some(&f), Some(&l)) if lower_alnum(f) && lower_alnum(l))
            && b.iter().all(|&c| lower_alnum(c) || matches!(c, b'-' | b'_'))
    };
    if !s.split('.').all(part) {
        out.push(UNDERSCORE_SENTENCE.to_owned());
    }
    out
}

/// RFC 1035 label: as a DNS label, beginning with a letter.
pub fn dns_1035_label(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 63 {
        out.push(too_long(63));
    }
    if !is_label_shape(s) || !s.as_bytes().first().is_some_and(u8::is_ascii_lowercase) {
        out.push(DNS_1035_SENTENCE.to_owned());
    }
    out
}

/// A name that only has to fit into one path segment (RBAC).
pub fn path_segment(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s == "." || s == ".." {
        out.push(format!("may not be '{s}'"));
    }
    for illegal in ["/", "%"] {
        if s.contains(illegal) {
            out.push(format!("may not contain '{illegal}'"));
        }
    }
    out
}

/// An address in its one form.
pub fn address(s: &str) -> Vec<String> {
    match s.parse::<std::net::IpAddr>() {
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
        Ok(address) if address.to_string() != s => {
            vec![format!("must be in canonical form (\"{address}\")")]
        }
        Ok(_) => Vec::new(),
    }
}

fn is_qualified_part(s: &str) -> bool {
    let b = s.as_bytes();
    matches!((b.first(), b.last()), (Some(f), Some(l)) if f.is_ascii_alphanumeric() && l.is_ascii_alphanumeric())
        && b.iter()
            .all(|&c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// [`qualified_name`] as the rules of labels word it.
pub fn label_key(s: &str) -> Vec<String> {
    qualified_name(s)
        .into_iter()
        .map(|m| match m.strip_prefix("a qualified name must") {
            Some(rest) => format!("a valid label key must{rest}"),
            None => m,
        })
        .collect()
}

/// `name` or `prefix/name`: keys of annotations, finalizers.
pub fn qualified_name(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    let parts: Vec<&str> = s.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".to_owned());
            } else {
                out.extend(
                    dns_subdomain(prefix)
                        .into_iter()
                        .map(|m| format!("prefix part {m}")),
                );
            }
            *name
        }
        _ => {
            return vec![
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
                    .to_owned(),
            ];
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        out.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_qualified_part(name) {
        out.push(QUALIFIED_SENTENCE.to_owned());
    }
    out
}

/// Value of a label: empty, or shaped like a qualified name's last part.
pub fn label_value(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 63 {
        out.push("must be no more than 63 bytes".to_owned());
    }
    if !s.is_empty() && !is_qualified_part(s) {
        out.push(LABEL_VALUE_SENTENCE.to_owned());
    }
    out
}

/// Key of a ConfigMap's or Secret's data.
pub fn config_key(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 253 {
        out.push(too_long(253));
    }
    if s.is_empty()
        || !s
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
    {
        out.push(CONFIG_KEY_SENTENCE.to_owned());
    }
    if s == "." || s == ".." {
        out.push(format!("must not be '{s}'"));
    } else if s.starts_with("..") {
        out.push("must not start with '..'".to_owned());
    }
    out
}

/// Name of an environment variable.
pub fn env_name(s: &str) -> Vec<String> {
    if !s.is_empty() && s.bytes().all(|c| (0x20..0x7f).contains(&c) && c != b'=') {
        Vec::new()
    } else {
        vec![ENV_NAME_SENTENCE.to_owned()]
    }
}

/// Name of a port: at most 15 characters, `[a-z0-9-]`, with a letter, no `--`.
pub fn port_name(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 15 {
        out.push("must be no more than 15 characters".to_owned());
    }
    if !s.bytes().all(|c| lower_alnum(c) || c == b'-') || s.is_empty() {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !s.bytes().any(|c| c.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)".to_owned());
    }
    if s.contains("--") {
        out.push("must not contain consecutive hyphens".to_owned());
    }
    if s.starts_with('-') || s.ends_with('-') {
        out.push("must not begin or end with a hyphen".to_owned());
    }
    out
}

fn parse_version(s: &str) -> Option<(u8, u64, u64)> {
    let rest = s.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok()?;
    let stage = &rest[digits..];
    if stage.is_empty() {
        return Some((2, major, 0));
    }
    for (rank, word) in [(1, "beta"), (0, "alpha")] {
        if let Some(minor) = stage.strip_prefix(word) {
            return Some((rank, major, minor.parse().ok()?));
        }
    }
    None
}

/// Kubernetes' order of version names: GA over beta over alpha, higher numbers over lower, anything else last and
/// alphabetical (so `Greater` means preferred).
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (parse_version(a), parse_version(b)) {
        (Some(x), Some(y)) => x.cmp(&y),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => b.cmp(a),
    }
}
