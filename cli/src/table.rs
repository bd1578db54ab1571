//! Tables as kubectl prints them: upper-case headers, columns three spaces apart, ages in its words.

use jiff::Timestamp;

/// Columns are at least this wide, and this far apart (kubectl's tabwriter).
const MIN_WIDTH: usize = 6;
const PADDING: usize = 3;

/// Rows under headers.
#[derive(Debug, Clone, Default)]
pub struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(headers: &[&'static str]) -> Self {
        Self {
            headers: headers.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; it has as many cells as there are headers.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The text, ending in a line break.
    pub fn render(self) -> String {
        Lines::new(&self.headers).rows(self.rows)
    }
}

/// A table that goes on: what comes later stands under what came first.
#[derive(Debug, Clone)]
pub struct Lines {
    headers: Option<Vec<String>>,
    widths: Vec<usize>,
}

impl Lines {
    /// None yet. The headers come with the first rows.
    pub fn new(headers: &[&'static str]) -> Self {
        Self {
            headers: Some(headers.iter().map(|h| (*h).to_owned()).collect()),
            widths: vec![MIN_WIDTH; headers.len()],
        }
    }

    /// The text of more rows. A column that was too narrow is wider from now on.
    pub fn rows(&mut self, rows: Vec<Vec<String>>) -> String {
        let rows: Vec<Vec<String>> = self.headers.take().into_iter().chain(rows).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count() + PADDING);
            }
        }
        let mut text = String::new();
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&self.widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(
                    ' ',
                    width.saturating_sub(cell.chars().count()),
                ));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// How long ago `then` was, or `<unknown>`.
pub fn age(then: Option<Timestamp>, now: Timestamp) -> String {
    then.map_or_else(
        || "<unknown>".to_owned(),
        |then| duration(now.as_second() - then.as_second()),
    )
}

/// Seconds in kubectl's words: two units while they matter.
pub fn duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match seconds {
        // Clocks differ a little between machines.
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_kubectls() {
        for (seconds, want) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (8 * 3600 + 60, "8h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (49 * 3600, "2d1h"),
            (8 * 86_400, "8d"),
            (729 * 86_400, "729d"),
            (731 * 86_400, "2y1d"),
            (3000 * 86_400, "8y"),
        ] {
            assert_eq!(duration(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn columns_are_three_spaces_apart() {
        let mut table = Table::new(&["NAME", "A", "AGE"]);
        table.row(vec!["cluster1".into(), "x".into(), "5s".into()]);
        table.row(vec!["c".into(), String::new(), String::new()]);
        assert_eq!(table.render(), "NAME       A     AGE\ncluster1   x     5s\nc\n");
        let mut lines = Lines::new(&["NAME", "AGE"]);
        assert_eq!(
            lines.rows(vec![vec!["c".into(), "1s".into()]]),
            "NAME   AGE\nc      1s\n"
        );
        assert_eq!(lines.rows(vec![vec!["d".into(), "2s".into()]]), "d      2s\n");
        assert_eq!(
            lines.rows(vec![vec!["cluster1".into(), "2s".into()]]),
            "cluster1   2s\n"
        );
    }
}
