//! What could not be removed of records whose work is gone: nobody but the log is there to be told, and it is told once.

use super::applied::same_but_numbers;
use std::collections::HashMap;

/// What was told last of each record.
#[derive(Debug, Default)]
pub struct Refusals(HashMap<String, Vec<String>>);

/// What a try to remove came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// This is refused, and it was not before.
    Refused,
    /// The same is refused as before.
    Still,
    /// Nothing is refused any more.
    Over,
}

impl Refusals {
    /// It was tried, and this was refused. Of a try that did not come to its end (`broken_off`) it is not known that nothing is
    /// refused any more.
    pub fn tried(&mut self, record: &str, refused: &[String], broken_off: bool) -> Option<News> {
        if refused.is_empty() {
            return (!broken_off && self.over(record)).then_some(News::Over);
        }
        let known = self.0.get(record);
        if known.is_some_and(|known| same_but_numbers(known, refused)) {
            return Some(News::Still);
        }
        self.0.insert(record.to_owned(), refused.to_vec());
        Some(News::Refused)
    }

    /// The record is gone, however it went; whether anything had been told of it.
    pub fn over(&mut self, record: &str) -> bool {
        self.0.remove(record).is_some()
    }

    /// Only these records are there; those of which something had been told that are not.
    pub fn keep(&mut self, is_there: impl Fn(&str) -> bool) -> Vec<String> {
        self.0
            .extract_if(|record, _| !is_there(record))
            .map(|(record, _)| record)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_news_once_and_so_is_its_end() {
        let mut refusals = Refusals::default();
        let no = |words: &str| vec![format!("configmaps n/a: {words}")];
        for (refused, broken_off, wanted) in [
            (vec![], false, None),
            (no("port 1234"), false, Some(News::Refused)),
            (no("port 999"), false, Some(News::Still)),
            (no("port 999"), true, Some(News::Still)),
            (vec![], true, None),
            (no("port 1"), false, Some(News::Still)),
            (no("not today"), false, Some(News::Refused)),
            (vec![], false, Some(News::Over)),
            (vec![], false, None),
            (no("not today"), false, Some(News::Refused)),
        ] {
            let found = refusals.tried("r", &refused, broken_off);
            assert_eq!(found, wanted, "{refused:?} {broken_off}");
        }
        assert_eq!(refusals.tried("s", &no("port"), false), Some(News::Refused));
        assert!(refusals.over("s") && !refusals.over("s"));
        assert_eq!(refusals.keep(|record| record != "r"), ["r"]);
        assert!(refusals.keep(|_| false).is_empty());
    }
}
