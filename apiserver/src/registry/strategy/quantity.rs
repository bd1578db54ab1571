//! Resource quantities in their canonical form (apimachinery `resource.Quantity`).

/// Powers of ten by suffix, smallest first.
const DECIMAL: &[(i32, &str)] = &[
    (-9, "n"),
    (-6, "u"),
    (-3, "m"),
    (0, ""),
    (3, "k"),
    (6, "M"),
    (9, "G"),
    (12, "T"),
    (15, "P"),
    (18, "E"),
];
const BINARY: &[&str] = &["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// Quantities hold no more than nine decimal places: what is smaller is rounded up.
const NANO: i128 = 1_000_000_000;

enum Family {
    Decimal,
    Binary,
    Exponent,
}

/// A quantity in billionths, rounded away from zero; `None` when it is none, or too large to be known exactly.
pub(super) fn nanos(text: &str) -> Option<i128> {
    let (negative, _, nanos) = parse(text)?;
    Some(if negative { -nanos } else { nanos })
}

/// Whether it is negative, how it is written, and its size in billionths.
fn parse(text: &str) -> Option<(bool, Family, i128)> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?;
    let (family, power, factor) = if suffix.is_empty() {
        (Family::Decimal, 0, 1)
    } else if let Some(at) = BINARY.iter().position(|s| *s == suffix) {
        (
            Family::Binary,
            0,
            1024_i128.checked_pow(u32::try_from(at).ok()? + 1)?,
        )
    } else if let Some((power, _)) = DECIMAL.iter().find(|(_, s)| *s == suffix) {
        (Family::Decimal, *power, 1)
    } else {
        (
            Family::Exponent,
            suffix.strip_prefix(['e', 'E'])?.parse().ok()?,
            1,
        )
    };
    // In billionths, rounded away from zero.
    let scaled = digits.checked_mul(factor)?;
    let exponent = power.checked_sub(places)?.checked_add(9)?;
    let nanos = if exponent >= 0 {
        scaled.checked_mul(10_i128.checked_pow(u32::try_from(exponent).ok()?)?)?
    } else {
        let divisor = 10_i128.checked_pow(exponent.unsigned_abs())?;
        scaled.checked_add(divisor - 1)? / divisor
    };
    Some((negative, family, nanos))
}

/// The canonical text of a quantity; `None` when it is none, or too large for its digits to be known exactly.
pub(super) fn canonical(text: &str) -> Option<String> {
    let (negative, family, nanos) = parse(text)?;
    let out = match family {
        _ if nanos == 0 => "0".to_owned(),
        Family::Binary if nanos % NANO == 0 && nanos / NANO >= 1024 => binary(nanos / NANO),
        Family::Exponent => {
            let (power, count) = largest(nanos);
            if power == 0 {
                count.to_string()
            } else {
                format!("{count}e{power}")
            }
        }
        Family::Binary | Family::Decimal => {
            let (power, count) = largest(nanos);
            let suffix = DECIMAL.iter().find(|(p, _)| *p == power)?.1;
            format!("{count}{suffix}")
        }
    };
    Some(if negative && nanos != 0 {
        format!("-{out}")
    } else {
        out
    })
}

/// The largest power of thousand that leaves no fraction, and how many of it.
fn largest(nanos: i128) -> (i32, i128) {
    let (mut power, mut count) = (-9, nanos);
    while power < 18 && count % 1000 == 0 {
        count /= 1000;
        power += 3;
    }
    (power, count)
}

fn binary(mut count: i128) -> String {
    let mut suffix = "";
    for next in BINARY {
        if count % 1024 != 0 {
            break;
        }
        count /= 1024;
        suffix = next;
    }
    format!("{count}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn quantities_are_written_as_kubernetes_writes_them() {
        for (text, want) in [
            ("0.1", "100m"),
            ("1.5Gi", "1536Mi"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1024Ki", "1Mi"),
            ("1000Ki", "1000Ki"),
            ("0.5Ki", "512"),
            ("1000", "1k"),
            ("0", "0"),
            ("0Gi", "0"),
            ("-1.50", "-1500m"),
            ("1e3", "1e3"),
            ("12E2", "1200"),
            ("0.0000000001", "1n"),
            ("1M", "1M"),
            ("+5", "5"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(want), "{text}");
        }
    }
}
