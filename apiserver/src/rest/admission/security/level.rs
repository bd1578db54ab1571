//! Levels, versions, and the labels that name them.

use crate::error::FieldError;
use serde_json::Value;
use std::fmt;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict a policy is, the least strict first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Everything goes.
    #[default]
    Privileged,
    /// What is known to escalate privileges does not.
    Baseline,
    /// Pods are hardened.
    Restricted,
}

/// The version of Kubernetes whose rules are meant: `None` is the latest.
pub type Version = Option<u32>;

/// A level as of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LevelVersion {
    /// The level.
    pub level: Level,
    /// The version.
    pub version: Version,
}

/// What a namespace asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// What pods have to meet.
    pub enforce: LevelVersion,
    /// What they are warned of not meeting.
    pub warn: LevelVersion,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

impl LevelVersion {
    /// Whether it forbids nothing.
    pub fn is_privileged(self) -> bool {
        self.level == Level::Privileged
    }
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

fn version(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor == "0" || !minor.starts_with('0') && minor.bytes().all(|c| c.is_ascii_digit());
    plain.then(|| minor.parse().ok()).flatten().map(Some)
}

impl Policy {
    /// Whether it forbids and warns of nothing.
    pub fn is_privileged(self) -> bool {
        self.enforce.is_privileged() && self.warn.is_privileged()
    }

    /// The policy that labels ask for, and what is wrong with them. A level that makes no sense enforces the strictest and
    /// warns of nothing.
    pub fn of(labels: &Value) -> (Self, Vec<FieldError>) {
        let mut errors = Vec::new();
        let mut read = |mode: &str, wrong: Level| {
            let at = |key: &str| labels[format!("{PREFIX}{key}")].as_str().map(str::to_owned);
            let (key, version_key) = (mode.to_owned(), format!("{mode}-version"));
            let (wanted, asked) = (at(&key), at(&version_key));
            let mut refuse = |key: &str, value: &str, message: &str| {
                let field = format!("metadata.labels[{PREFIX}{key}]");
                errors.push(FieldError::invalid(field, &value.into(), message));
            };
            let found = wanted.as_deref().map(level);
            if let (Some(text), Some(None)) = (&wanted, found) {
                refuse(&key, text, "must be one of privileged, baseline, restricted");
            }
            let version = asked.as_deref().map(version);
            if let (Some(text), Some(None)) = (&asked, version) {
                refuse(&version_key, text, "must be \"latest\" or \"v1.x\"");
            }
            let whole = LevelVersion {
                level: found.map_or(Level::Privileged, |level| level.unwrap_or(wrong)),
                version: version.flatten().flatten(),
            };
            (whole, found, asked.is_some())
        };
        let (enforce, valid, _) = read("enforce", Level::Restricted);
        read("audit", Level::Privileged);
        let (mut warn, named, versioned) = read("warn", Level::Privileged);
        // Who enforces something and says nothing of warnings is warned of it too, before a pod is made.
        if named.is_none() && matches!(valid, Some(Some(_))) && enforce.level > warn.level {
            warn.level = enforce.level;
            if !versioned {
                warn.version = enforce.version;
            }
        }
        (Self { enforce, warn }, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_name_a_policy() {
        for (labels, enforce, warn, errors) in [
            (json!({}), "privileged:latest", "privileged:latest", ""),
            (
                json!({"enforce": "baseline"}),
                "baseline:latest",
                "baseline:latest",
                "",
            ),
            (
                json!({"enforce": "restricted", "enforce-version": "v1.24", "warn-version": "v1.30"}),
                "restricted:v1.24",
                "restricted:v1.30",
                "",
            ),
            (
                json!({"enforce": "restricted", "enforce-version": "v1.24"}),
                "restricted:v1.24",
                "restricted:v1.24",
                "",
            ),
            (
                json!({"enforce": "baseline", "warn": "privileged"}),
                "baseline:latest",
                "privileged:latest",
                "",
            ),
            (
                json!({"enforce": "frob", "audit": "frob", "warn": "frob"}),
                "restricted:latest",
                "privileged:latest",
                "enforce audit warn",
            ),
            (
                json!({"enforce-version": "v2.1", "audit-version": "v1.01", "warn-version": "1.2"}),
                "privileged:latest",
                "privileged:latest",
                "enforce-version audit-version warn-version",
            ),
        ] {
            let prefixed = labels.as_object().unwrap().iter();
            let prefixed: Value = prefixed
                .map(|(k, v)| (format!("{PREFIX}{k}"), v.clone()))
                .collect();
            let (policy, found) = Policy::of(&prefixed);
            let fields: Vec<&str> = found
                .iter()
                .map(|e| {
                    e.field
                        .trim_start_matches("metadata.labels[")
                        .trim_start_matches(PREFIX)
                        .trim_end_matches(']')
                })
                .collect();
            assert_eq!(
                (
                    policy.enforce.to_string().as_str(),
                    policy.warn.to_string().as_str(),
                    fields.join(" ").as_str()
                ),
                (enforce, warn, errors),
                "{labels}"
            );
        }
    }
}
