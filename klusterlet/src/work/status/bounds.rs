//! A status is one object: what is larger than an API server takes would keep all of it from the hub.

use super::{Applied, Availability, Report};
use crate::work::feedback;

/// Longest message of one manifest about what went wrong, in characters; the API allows 32,768.
const LONGEST: usize = 4096;
/// What such messages of one work may have together, in bytes...
const LARGEST: usize = 256 << 10;
/// ...and each that comes after, in characters.
const SHORT: usize = 128;

/// Shortens what is too much for one status, of the last manifests first.
pub fn bound(reports: &mut [Report]) {
    feedback::bounded(reports.iter_mut().filter_map(|r| r.feedback.as_mut()));
    let mut left = LARGEST;
    for report in reports {
        if let Applied::No { message, .. } = &mut report.applied {
            shorten(message, &mut left);
        }
        if let Availability::Unknown { message, .. } = &mut report.availability {
            shorten(message, &mut left);
        }
        for condition in &mut report.conditions {
            shorten(&mut condition.message, &mut left);
        }
    }
}

fn shorten(message: &mut String, left: &mut usize) {
    let longest = if message.len() > *left { SHORT } else { LONGEST };
    if let Some((end, _)) = message.char_indices().nth(longest) {
        message.truncate(end);
        message.push('…');
    }
    *left = left.saturating_sub(message.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_crds::conditions::NewCondition;

    #[test]
    fn many_long_words_fit_into_a_status() {
        let report = |n: usize| Report {
            meta: muster_crds::work::v1::ManifestResourceMeta::default(),
            applied: Applied::No {
                reason: "r",
                message: "é".repeat(n),
            },
            availability: Availability::Unknown {
                reason: "r",
                message: "no".into(),
            },
            feedback: None,
            conditions: vec![NewCondition::new("Degraded", true, "r", "x".repeat(n))],
        };
        let mut few = vec![report(3000)];
        let before = few.clone();
        bound(&mut few);
        assert_eq!(few, before);
        let mut one = vec![report(10_000)];
        bound(&mut one);
        assert_eq!(one[0].conditions[0].message.chars().count(), LONGEST + 1);
        let mut many = vec![report(3000); 1000];
        bound(&mut many);
        let bytes: usize = many
            .iter()
            .map(|r| match &r.applied {
                Applied::No { message, .. } => message.len() + r.conditions[0].message.len(),
                _ => 0,
            })
            .sum();
        assert!(bytes < LARGEST + 1000 * 4 * (SHORT + 2), "{bytes}");
        assert_eq!(many[0], before[0], "the first are whole");
    }
}
