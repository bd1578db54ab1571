//! Compares answers with recorded ones and says where they differ.

use super::run::Answers;
use super::script::Script;
use crate::Result;
use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// How much of a value a report shows.
const SHOWN: usize = 300;

/// Differences that are known, with why they are there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    why: String,
    answers: Vec<String>,
}

/// The known differences of one area: id to reason.
#[derive(Debug)]
pub struct Known(BTreeMap<String, String>);

impl Known {
    fn all(path: &Path) -> anyhow::Result<Vec<Difference>> {
        let text = std::fs::read_to_string(path)?;
        serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// Those of an area.
    pub fn read(path: &Path, area: &str) -> anyhow::Result<Self> {
        let mut known = BTreeMap::new();
        for difference in Self::all(path)? {
            for answer in &difference.answers {
                if let Some((_, id)) = answer.split_once('/').filter(|(a, _)| *a == area) {
                    let before = known.insert(id.to_owned(), difference.why.clone());
                    anyhow::ensure!(before.is_none(), "{answer} is listed twice");
                }
            }
        }
        Ok(Self(known))
    }

    /// Whether each names an area that there is, and says why.
    pub fn check(path: &Path, areas: &[String]) -> Result {
        for difference in Self::all(path)? {
            anyhow::ensure!(!difference.why.is_empty(), "a difference without a reason");
            for answer in difference.answers {
                let area = answer.split('/').next().unwrap_or_default();
                anyhow::ensure!(areas.iter().any(|a| a == area), "{answer}: there is no such area");
            }
        }
        Ok(())
    }
}

/// The record: a line an answer, in the script's order.
pub fn write(script: &Script, answers: &Answers) -> String {
    let mut out = String::new();
    for step in &script.steps {
        let _ = writeln!(out, "{}", json!({"id": step.id, "answer": answers.get(&step.id)}));
    }
    out
}

/// Reads a record.
pub fn read(text: &str) -> anyhow::Result<Answers> {
    text.lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line)?;
            let id = line["id"].as_str().context("a line has an id")?.to_owned();
            Ok((id, line["answer"].take()))
        })
        .collect()
}

/// Every difference, as text by id.
fn differences(want: &Answers, got: &Answers) -> BTreeMap<String, String> {
    let ids: BTreeSet<&String> = want.keys().chain(got.keys()).collect();
    ids.into_iter()
        .filter_map(|id| {
            let (want, got) = (want.get(id), got.get(id));
            let mut report = String::new();
            differ(
                "",
                want.unwrap_or(&Value::Null),
                got.unwrap_or(&Value::Null),
                &mut report,
            );
            (!report.is_empty()).then(|| (id.clone(), report))
        })
        .collect()
}

/// Fails unless all answers are the same.
pub fn same(area: &str, want: &Answers, got: &Answers) -> Result {
    told(area, &differences(want, got), want.len())
}

/// Fails unless all answers are the same, but for those that are known to differ, which must.
pub fn but_for_known(area: &str, want: &Answers, got: &Answers, known: &Known) -> Result {
    let mut different = differences(want, got);
    let mut stale: Vec<&String> = known.0.keys().filter(|id| !different.contains_key(*id)).collect();
    different.retain(|id, _| !known.0.contains_key(id));
    told(area, &different, want.len())?;
    stale.sort();
    anyhow::ensure!(
        stale.is_empty(),
        "{area}: these do not differ any more, take them out of known.yaml: {stale:?}"
    );
    Ok(())
}

fn told(area: &str, different: &BTreeMap<String, String>, all: usize) -> Result {
    if different.is_empty() {
        return Ok(());
    }
    let mut report = format!("{area}: {} of {all} answers differ:\n", different.len());
    for (id, how) in different {
        let _ = write!(report, "{area}/{id}\n{how}");
    }
    anyhow::bail!(report)
}

fn differ(path: &str, want: &Value, got: &Value, report: &mut String) {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = format!("{path}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => differ(&path, a, b, report),
                    (Some(a), None) => line(report, &path, &shown(a), "nothing"),
                    (None, Some(b)) => line(report, &path, "nothing", &shown(b)),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differ(&format!("{path}[{i}]"), a, b, report);
            }
        }
        (a, b) if a == b => {}
        (a, b) => line(report, path, &shown(a), &shown(b)),
    }
}

fn line(report: &mut String, path: &str, want: &str, got: &str) {
    let _ = writeln!(report, "    {path}: want {want}\n        got {got}");
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
