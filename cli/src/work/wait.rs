//! What a person waits for: works that are applied and available, or gone; and how far that is.

use super::status;
use crate::error::one_line;
use crate::output::{self, Format};
use kube::ResourceExt as _;
use muster_crds::conditions::{find, is_true};
use muster_crds::constants::conditions as types;
use muster_crds::work::v1::ManifestWork;

/// Says on standard error how far it is, when that changes.
#[derive(Debug)]
pub struct Progress {
    last: String,
    quiet: bool,
}

impl Progress {
    /// Where the output is for machines, nothing is said.
    pub fn new(format: Format) -> Self {
        Self {
            last: String::new(),
            quiet: !matches!(format, Format::Table | Format::Wide),
        }
    }

    /// Passes on an answer, and says what is missing where that is news.
    pub fn told(&mut self, answer: Result<(), String>) -> Result<(), String> {
        if let Err(missing) = &answer
            && *missing != self.last
        {
            if !self.quiet {
                output::note(&format!("Waiting: {missing}"));
            }
            self.last.clone_from(missing);
        }
        answer
    }
}

/// Whether these many works are there and applied as they now say, or what is missing.
pub fn applied(works: &[&ManifestWork], expected: usize) -> Result<(), String> {
    all(works, expected, &[types::APPLIED])
}

/// Whether everything is applied and available as the works now say, or what is missing.
pub fn available(works: &[&ManifestWork], expected: usize) -> Result<(), String> {
    all(works, expected, &[types::APPLIED, types::AVAILABLE])
}

fn all(works: &[&ManifestWork], expected: usize, wanted: &[&str]) -> Result<(), String> {
    if works.len() < expected {
        return Err(match expected {
            1 => "the work was deleted".into(),
            _ => format!("{} of {expected} works are there", works.len()),
        });
    }
    let missing: Vec<String> = works.iter().filter_map(|work| one(work, wanted).err()).collect();
    match (missing.first(), works.len()) {
        (None, _) => Ok(()),
        (Some(why), 1) => Err(why.clone()),
        (Some(why), all) => Err(format!("{} of {all} works are ready; {why}", all - missing.len())),
    }
}

fn one(work: &ManifestWork, wanted: &[&str]) -> Result<(), String> {
    let conditions = work.status.as_ref().map_or(&[][..], |s| &s.conditions);
    for type_ in wanted {
        match find(conditions, type_) {
            None => return Err("the cluster has not reported yet".into()),
            Some(c) if c.observed_generation < work.metadata.generation => {
                return Err("the cluster has not reported on its last change yet".into());
            }
            Some(c) if !is_true(conditions, type_) => {
                let why = status::first_problem(work).unwrap_or_else(|| one_line(&c.message));
                let done = status::how_many(work, type_);
                let all = work.spec.workload.manifests.len();
                return Err(format!(
                    "{type_} is {} ({done} of {all} manifests): {why}",
                    c.status
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// What keeps works that were deleted.
pub fn remaining(works: &[&ManifestWork]) -> Result<(), String> {
    let Some(work) = works.first() else { return Ok(()) };
    let conditions = work.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let more = match works.len() {
        1 => String::new(),
        all => format!("{all} works are left; "),
    };
    Err(match find(conditions, types::DELETING) {
        Some(condition) => format!(
            "{more}the cluster is removing their objects: {}",
            one_line(&condition.message)
        ),
        None => format!(
            "{more}the cluster has not answered yet; is it available? (finalizers left: {})",
            work.finalizers().join(", ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn work(generation: i64, conditions: &[(&str, &str, i64)]) -> ManifestWork {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status, observed)| {
                json!({"type": type_, "status": status, "reason": "r", "message": "m", "observedGeneration": observed, "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "ManifestWork", "metadata": {"name": "w", "generation": generation},
            "spec": {}, "status": {"conditions": conditions}}))
        .unwrap()
    }

    #[test]
    fn available_means_as_the_work_now_says() {
        let ready = || work(1, &[("Applied", "True", 1), ("Available", "True", 1)]);
        for (work, want) in [
            (ready(), None),
            (
                work(2, &[("Applied", "True", 1), ("Available", "True", 1)]),
                Some("last change"),
            ),
            (work(1, &[("Applied", "True", 1)]), Some("not reported yet")),
            (
                work(1, &[("Applied", "False", 1), ("Available", "True", 1)]),
                Some("Applied is False (0 of 0 manifests): m"),
            ),
            (
                work(1, &[("Applied", "True", 1), ("Available", "Unknown", 1)]),
                Some("Available is Unknown"),
            ),
        ] {
            let alone = available(&[&work], 1);
            let ready = ready();
            let of_two = available(&[&ready, &work], 2);
            match want {
                None => assert_eq!((alone, of_two), (Ok(()), Ok(()))),
                Some(want) => {
                    assert!(alone.clone().unwrap_err().contains(want), "{alone:?}");
                    let told = of_two.unwrap_err();
                    assert!(
                        told.starts_with("1 of 2 works are ready") && told.contains(want),
                        "{told}"
                    );
                }
            }
        }
        assert_eq!(applied(&[&work(1, &[("Applied", "True", 1)])], 1), Ok(()));
        assert_eq!(available(&[], 1), Err("the work was deleted".into()));
        assert_eq!(available(&[&ready()], 3), Err("1 of 3 works are there".into()));
    }

    #[test]
    fn what_keeps_a_work_is_said() {
        assert_eq!(remaining(&[]), Ok(()));
        let going = work(1, &[("Deleting", "True", 1)]);
        assert!(
            remaining(&[&going])
                .unwrap_err()
                .contains("removing their objects: m")
        );
        let silent = work(1, &[]);
        let told = remaining(&[&silent, &going]).unwrap_err();
        assert!(
            told.contains("2 works are left") && told.contains("has not answered"),
            "{told}"
        );
    }
}
