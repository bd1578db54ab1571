//! How large a work may be, counted as OCM counts.

/// Bytes of manifests that a work may hold, unless the hub was told otherwise.
pub const MANIFEST_LIMIT: usize = 500 * 1024;

/// What a manifest, given as compact JSON, counts towards the limit: its bytes as Kubernetes writes them, where `<`,
/// `>`, `&` and two kinds of line ends are escapes of six bytes, and the frame that OCM counts around it.
pub fn manifest_size(json: &str) -> usize {
    let bytes = json.as_bytes();
    let escaped = bytes
        .iter()
        .filter(|byte| matches!(byte, b'<' | b'>' | b'&'))
        .count();
    // U+2028 and U+2029 are three bytes when they are not escaped.
    let line_ends = bytes
        .windows(3)
        .filter(|three| matches!(three, [0xe2, 0x80, 0xa8 | 0xa9]))
        .count();
    let length = bytes.len() + 5 * escaped + 3 * line_ends;
    // One byte says what follows, the others how long it is, seven bits each.
    let frame = 1 + (length.max(1).ilog2() as usize / 7 + 1);
    length + frame
}

#[cfg(test)]
mod tests {
    use super::manifest_size;

    #[test]
    fn a_manifest_counts_as_kubernetes_writes_it() {
        for (json, size) in [
            ("{}".to_owned(), 4),
            (format!("{{{}}}", " ".repeat(125)), 129),
            (format!("{{{}}}", " ".repeat(126)), 131),
            (format!("{{{}}}", " ".repeat(16_381)), 16_386),
            (format!("{{{}}}", " ".repeat(16_382)), 16_388),
            (r#"{"a":"<&>"}"#.to_owned(), 11 + 15 + 2),
            (r#"{"a":"\u003c"}"#.to_owned(), 14 + 2),
            (
                "{\"a\":\"\u{2028}\u{2029}\u{2030}\"}".to_owned(),
                8 + 6 + 6 + 3 + 2,
            ),
        ] {
            assert_eq!(manifest_size(&json), size, "{}", &json[..json.len().min(20)]);
        }
    }
}
