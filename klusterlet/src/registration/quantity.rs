//! Adding up resource quantities exactly (apimachinery `resource.Quantity`): node capacities become a cluster's.

use std::fmt::Write as _;

/// How a quantity is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
}

const BINARY: [(&str, i128); 6] = [
    ("Ei", 1 << 60),
    ("Pi", 1 << 50),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
];
const DECIMAL: [(&str, i128); 6] = [
    ("E", 1_000_000_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];
/// Values are kept in units of 1e-9, the smallest there is.
const NANO: i128 = 1_000_000_000;

/// A sum of quantities, written in the form of the first one added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    nano: i128,
    format: Option<Format>,
}

impl Sum {
    /// Adds a quantity; what is none is left out.
    pub fn add(&mut self, text: &str) {
        if let Some((nano, format)) = parse(text) {
            self.nano = self.nano.saturating_add(nano);
            if self.format.is_none() && nano != 0 {
                self.format = Some(format);
            }
        }
    }

    /// The canonical form: the largest suffix that leaves a whole number.
    pub fn text(&self) -> String {
        if self.nano % NANO != 0 {
            let (divisor, suffix) = if self.nano % 1_000_000 == 0 {
                (1_000_000, "m")
            } else if self.nano % 1_000 == 0 {
                (1_000, "u")
            } else {
                (1, "n")
            };
            return format!("{}{suffix}", self.nano / divisor);
        }
        let whole = self.nano / NANO;
        let suffixes = if self.format == Some(Format::Binary) {
            &BINARY
        } else {
            &DECIMAL
        };
        let fitting = suffixes
            .iter()
            .find(|(_, factor)| whole != 0 && whole % factor == 0);
        let mut text = String::new();
        let _ = match fitting {
            Some((suffix, factor)) => write!(text, "{}{suffix}", whole / factor),
            None => write!(text, "{whole}"),
        };
        text
    }
}

fn parse(text: &str) -> Option<(i128, Format)> {
    let end = text
        .find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let decimal = |factor: i128| Some((factor, Format::Decimal));
    let (factor, format) = match suffix {
        "" => decimal(NANO),
        "n" => decimal(1),
        "u" => decimal(1_000),
        "m" => decimal(1_000_000),
        _ => {
            let binary = BINARY
                .iter()
                .find(|(s, _)| *s == suffix)
                .map(|(_, f)| (f * NANO, Format::Binary));
            let decimal = DECIMAL
                .iter()
                .find(|(s, _)| *s == suffix)
                .map(|(_, f)| (f * NANO, Format::Decimal));
            binary.or(decimal).or_else(|| {
                let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
                Some((10i128.checked_pow(exponent)?.checked_mul(NANO)?, Format::Decimal))
            })
        }
    }?;
    let negative = number.starts_with('-');
    let number = number.trim_start_matches(['+', '-']);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let nano = digits.checked_mul(factor)? / scale;
    Some((if negative { -nano } else { nano }, format))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_canonical() {
        let cases: [(&[&str], &str); 9] = [
            (&["4", "4"], "8"),
            (&["500m", "500m"], "1"),
            (&["1500m"], "1500m"),
            (&["16Gi", "16Gi"], "32Gi"),
            (&["1023Ki", "1Ki"], "1Mi"),
            (&["110", "110"], "220"),
            (&["1000"], "1k"),
            (&["0", "nonsense", "2Ki"], "2Ki"),
            (&["1e3", "0.5"], "1000500m"),
        ];
        for (parts, expected) in cases {
            let mut sum = Sum::default();
            for part in parts {
                sum.add(part);
            }
            assert_eq!(sum.text(), expected, "{parts:?}");
        }
    }
}
