//! Resource quantities in their canonical form (apimachinery `resource.Quantity`).

use serde_json::Value;

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
/// A thousandth, in billionths.
const MILLI: i128 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Decimal,
    Binary,
    Exponent,
}

/// A quantity in billionths, rounded away from zero; `None` when it is none, or too large to be known exactly.
pub fn nanos(text: &str) -> Option<i128> {
    let (negative, _, nanos) = parse(text)?;
    Some(if negative { -nanos } else { nanos })
}

/// The parts of a quantity's text.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    family: Family,
    /// Of ten.
    power: i32,
    factor: i128,
}

fn parts(text: &str) -> Option<Parts<'_>> {
    let text = text.trim();
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
        (Family::Exponent, exponent(suffix.strip_prefix(['e', 'E'])?)?, 1)
    };
    (!fraction.contains('.')).then_some(Parts {
        negative,
        whole,
        fraction,
        family,
        power,
        factor,
    })
}

/// A power of ten; the largest there is for what is beyond it.
fn exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let beyond = if text.starts_with('-') { i32::MIN } else { i32::MAX };
    is_number.then(|| text.parse().unwrap_or(beyond))
}

/// Whether it is negative, how it is written, and its size in billionths.
fn parse(text: &str) -> Option<(bool, Family, i128)> {
    let Parts {
        negative,
        whole,
        fraction,
        family,
        power,
        factor,
    } = parts(text)?;
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?;
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

/// As [`parse`], for more digits than that can hold: what is beyond billionths is rounded up before the suffix is looked at,
/// and what is too large is the largest there is. Somebody who writes many digits must not get past a limit with them.
fn rounded(text: &str) -> Option<(bool, Family, i128)> {
    /// More digits than the largest number has.
    const MANY: usize = 40;
    let parts = parts(text)?;
    let all = format!("{}{}", parts.whole, parts.fraction);
    let digits = all.trim_start_matches('0');
    let zeros = i64::try_from(all.len() - digits.len()).ok()?;
    // How many of the digits are whole billionths.
    let kept = i64::try_from(parts.whole.len()).ok()? - zeros + i64::from(parts.power) + 9;
    let kept = usize::try_from(kept.max(0)).ok()?;
    let nanos = if digits.is_empty() {
        0
    } else if kept >= MANY {
        i128::MAX
    } else {
        let (kept_digits, rest) = digits.split_at(kept.min(digits.len()));
        let padding = "0".repeat(kept - kept_digits.len());
        let nanos: i128 = format!("0{kept_digits}{padding}").parse().unwrap_or(i128::MAX);
        let up = i128::from(rest.bytes().any(|digit| digit != b'0'));
        nanos.saturating_add(up).saturating_mul(parts.factor)
    };
    Some((parts.negative, parts.family, nanos))
}

/// The canonical text of a quantity; `None` when it is none, or too large for its digits to be known exactly.
pub(super) fn canonical(text: &str) -> Option<String> {
    let (negative, family, nanos) = parse(text)?;
    written(negative, family, nanos)
}

/// As [`canonical`] for amounts of resources, of which there is nothing smaller than a thousandth.
pub(super) fn canonical_resource(text: &str) -> Option<String> {
    let (negative, family, nanos) = parse(text)?;
    let thousandths = nanos.checked_add(MILLI - 1)? / MILLI;
    written(negative, family, thousandths.checked_mul(MILLI)?)
}

fn written(negative: bool, family: Family, nanos: i128) -> Option<String> {
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

/// An amount that can be added up. What is added to nothing is written as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// Billionths.
    nanos: i128,
    family: Family,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self::count(0);

    /// So many pieces.
    pub const fn count(pieces: i64) -> Self {
        Self {
            nanos: pieces as i128 * NANO,
            family: Family::Decimal,
        }
    }

    /// A quantity of an object; what is none is nothing, and what is too large to be known is the largest there is.
    pub fn of(value: &Value) -> Self {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Self::ZERO,
        };
        let known = parse(&text).or_else(|| rounded(&text));
        known.map_or(Self::ZERO, |(negative, family, nanos)| Self {
            nanos: if negative { -nanos } else { nanos },
            family,
        })
    }

    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is more than another.
    pub const fn exceeds(self, other: Self) -> bool {
        self.nanos > other.nanos
    }

    /// The larger of two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if other.exceeds(self) { other } else { self }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let nanos = self.nanos.saturating_add(other.nanos);
        let family = if self.is_zero() { other.family } else { self.family };
        Self { nanos, family }
    }

    /// What is left of it.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let nanos = self.nanos.saturating_sub(other.nanos);
        Self { nanos, ..self }
    }

    /// How often another goes into it.
    #[allow(clippy::cast_precision_loss)] // as Kubernetes divides them
    pub fn ratio(self, other: Self) -> f64 {
        self.nanos as f64 / other.nanos as f64
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = i128::try_from(self.nanos.unsigned_abs()).unwrap_or(i128::MAX);
        f.write_str(&written(self.nanos < 0, self.family, size).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::{Amount, NANO, canonical, canonical_resource};
    use serde_json::json;

    #[test]
    fn amounts_add_up() {
        let of = |text: &str| Amount::of(&json!(text));
        assert_eq!(of("0").plus(of("2Gi")).to_string(), "2Gi");
        assert_eq!(of("500m").plus(of("1500m")).to_string(), "2");
        assert_eq!(of("1Gi").minus(of("512Mi")).to_string(), "512Mi");
        assert_eq!(Amount::count(3).to_string(), "3");
        assert_eq!(Amount::of(&json!(2)).max(Amount::count(1)).to_string(), "2");
        assert!(of("1Gi").exceeds(of("1G")) && !Amount::ZERO.exceeds(of("0")));
    }

    #[test]
    fn digits_get_past_no_limit() {
        let of = |text: &str| Amount::of(&json!(text)).nanos;
        let zeros = "0".repeat(30);
        for (text, want) in [
            (format!("68719476736.{zeros}"), 68_719_476_736 * NANO),
            (format!("64.{zeros}Gi"), 68_719_476_736 * NANO),
            (format!("-2.{zeros}{zeros}"), -2 * NANO),
            (format!("1.{zeros}1"), NANO + 1),
            (format!("0.{zeros}{zeros}"), 0),
            (format!("0.{zeros}{zeros}1"), 1),
            (format!("1{zeros}"), i128::MAX),
            (format!("-1{zeros}"), -i128::MAX),
            ("1e30".into(), i128::MAX),
            ("1e99999999999".into(), i128::MAX),
            ("1e-99999999999".into(), 1),
            ("1000000000000Ei".into(), i128::MAX),
            ("1.2.3".into(), 0),
            ("1e".into(), 0),
            ("none".into(), 0),
        ] {
            assert_eq!(of(&text), want, "{text}");
        }
        let all = Amount::of(&json!("1e30"));
        assert_eq!(Amount::of(&json!(all.to_string())).nanos, all.nanos);
    }

    #[test]
    fn resources_are_rounded_up() {
        for (text, want) in [
            ("1.00001", "1001m"),
            ("0.0001", "1m"),
            ("1n", "1m"),
            ("-0.0001", "-1m"),
            ("1e-9", "1e-3"),
            ("1Gi", "1Gi"),
            (" 5 ", "5"),
        ] {
            assert_eq!(canonical_resource(text).as_deref(), Some(want), "{text}");
        }
    }

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
