//! Feature gates, by the names and defaults that OCM's agents have (wire §7.6), and Muster's own.

use std::collections::BTreeMap;
use std::str::FromStr;

/// Feedback values may be raw JSON.
pub const RAW_FEEDBACK_JSON_STRING: &str = "RawFeedbackJsonString";
/// Muster's own: what a work's executor stands for is written as the executor itself, by impersonation.
pub const EXECUTOR_IMPERSONATION: &str = "ExecutorImpersonation";

/// Name, default, and the value that is not to be had here.
const KNOWN: [(&str, bool, Option<bool>); 8] = [
    ("AddonManagement", true, None),
    ("ClusterClaim", true, Some(false)),
    ("ClusterProperty", false, Some(true)),
    (EXECUTOR_IMPERSONATION, false, None),
    // Reviews are never cached here, which is what the gate's default asks for.
    ("ExecutorValidatingCaches", false, Some(true)),
    ("MultipleHubs", false, Some(true)),
    (RAW_FEEDBACK_JSON_STRING, false, None),
    ("V1beta1CSRAPICompatibility", false, Some(true)),
];

/// One `Name=true` of `--feature-gates`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    name: &'static str,
    on: bool,
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("must be NAME=true or NAME=false")?;
        let known = || {
            let list: Vec<String> = KNOWN.iter().map(|(n, on, _)| format!("{n} ({on})")).collect();
            list.join(", ")
        };
        let (name, _, missing) = KNOWN.iter().find(|(n, ..)| *n == name.trim()).ok_or_else(|| {
            format!(
                "there is no feature gate {name:?}; known, with their defaults: {}",
                known()
            )
        })?;
        let on = match value.trim() {
            "true" => true,
            "false" => false,
            other => return Err(format!("{name} is {other:?}, it must be true or false")),
        };
        if *missing == Some(on) {
            return Err(format!("this klusterlet can not have {name}={on}"));
        }
        Ok(Self { name, on })
    }
}

/// Whether a gate is on; the last mention counts.
pub fn enabled(given: &[Gate], name: &str) -> bool {
    let defaults: BTreeMap<&str, bool> = KNOWN.iter().map(|(n, on, _)| (*n, *on)).collect();
    let last = given.iter().rev().find(|g| g.name == name).map(|g| g.on);
    last.or(defaults.get(name).copied()).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_have_defaults_and_the_last_mention_counts() {
        let gates = |text: &str| -> Vec<Gate> { text.split(',').map(|t| t.parse().unwrap()).collect() };
        assert!(!enabled(&[], RAW_FEEDBACK_JSON_STRING));
        assert!(enabled(&[], "AddonManagement"));
        assert!(enabled(
            &gates("RawFeedbackJsonString=true"),
            RAW_FEEDBACK_JSON_STRING
        ));
        let twice = gates("RawFeedbackJsonString=true,AddonManagement=false,RawFeedbackJsonString=false");
        assert!(!enabled(&twice, RAW_FEEDBACK_JSON_STRING));
        assert!(!enabled(&twice, "AddonManagement"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("RawFeedback=true", "RawFeedbackJsonString (false)"),
            ("ClusterClaim", "NAME=true"),
            ("ClusterClaim=yes", "must be true or false"),
            ("MultipleHubs=true", "can not have"),
        ] {
            let problem = text.parse::<Gate>().unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
        assert!("MultipleHubs=false".parse::<Gate>().is_ok());
    }
}
