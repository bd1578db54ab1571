//! The threat model of docs/registration.md, and what it says of mistakes: every line names a test that is there.

use crate::Result;
use std::collections::BTreeSet;
use std::path::Path;

fn sources(folder: &Path, into: &mut String) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// The names of tests in a row of the table: what is in the last cell in backquotes.
fn named(row: &str) -> Vec<&str> {
    let last = row
        .trim()
        .trim_matches('|')
        .rsplit('|')
        .next()
        .unwrap_or_default();
    last.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_line_of_the_threat_model_and_of_what_goes_wrong_names_a_test_that_is_there() -> Result {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut code = String::new();
    for part in [
        "tests/it",
        "crds/src",
        "hub/src",
        "klusterlet/src",
        "apiserver/src",
        "cli/src",
    ] {
        sources(&root.join(part), &mut code)?;
    }
    let tests: BTreeSet<&str> = code
        .split("fn ")
        .skip(1)
        .filter_map(|rest| rest.split('(').next())
        .collect();
    let text = std::fs::read_to_string(root.join("docs/registration.md"))?;
    let table = |heading: &str| -> Vec<&str> {
        let (_, from) = text.split_once(heading).unwrap_or_default();
        let lines = from.lines().skip_while(|line| !line.starts_with('|')).skip(2);
        lines.take_while(|line| line.starts_with('|')).collect()
    };
    let (model, wrong) = (table("## Threat model"), table("## When it goes wrong"));
    assert!(
        model.len() > 15 && wrong.len() > 10,
        "only {} and {} lines",
        model.len(),
        wrong.len()
    );
    for row in model.into_iter().chain(wrong) {
        let named = named(row);
        assert!(!named.is_empty(), "no test guards: {row}");
        for name in named {
            assert!(
                tests.contains(name),
                "there is no test {name}, but it guards: {row}"
            );
        }
    }
    Ok(())
}
