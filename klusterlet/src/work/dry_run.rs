//! What a work's annotation asks of the agent, and the answer: what applying would change. Both are what `muster work diff`
//! speaks with the agent, through the work itself, so they are small: an annotation may have 256 KiB with all others, the
//! message of a condition 32 KiB.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_crds::constants::{annotations, finalizers};
use muster_crds::work::v1::{ManifestWork, ManifestWorkSpec};
use serde::{Deserialize, Serialize};
use std::io::{Read as _, Write as _};

/// Longest annotation. All of an object's together may have 256 KiB.
const MAX_REQUEST: usize = 240 << 10;
/// More than this is not unpacked.
const MAX_UNPACKED: u64 = 8 << 20;
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 30 << 10;
/// What asks about a work as it is, and stops it being applied.
const STOPPED: &str = "true";

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The answer carries it too.
    pub id: String,
    /// What to ask about in place of what the work has.
    pub spec: Option<ManifestWorkSpec>,
}

impl Request {
    /// The annotation that asks it.
    pub fn annotation(&self) -> Result<String, String> {
        let Some(spec) = &self.spec else {
            return Ok(self.id.clone());
        };
        let text = serde_json::to_vec(spec).map_err(|e| e.to_string())?;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let packed = encoder.write_all(&text).and_then(|()| encoder.finish());
        let packed = STANDARD.encode(packed.map_err(|e| e.to_string())?);
        if packed.len() > MAX_REQUEST {
            return Err(format!(
                "the manifests have {} bytes when compressed, {MAX_REQUEST} can be asked about at a time: ask about fewer",
                packed.len()
            ));
        }
        Ok(format!("{} {packed}", self.id))
    }

    /// What an annotation asks.
    pub fn of(annotation: &str) -> Result<Self, String> {
        let wrong =
            |problem: &dyn std::fmt::Display| format!("the annotation {} {problem}", annotations::DRY_RUN);
        let Some((id, packed)) = annotation.split_once(' ') else {
            return Ok(Self {
                id: annotation.to_owned(),
                spec: None,
            });
        };
        let packed = STANDARD
            .decode(packed)
            .map_err(|e| wrong(&format!("is no base64: {e}")))?;
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&*packed)
            .take(MAX_UNPACKED)
            .read_to_end(&mut text)
            .map_err(|e| wrong(&format!("can not be unpacked: {e}")))?;
        let spec = serde_json::from_slice(&text).map_err(|e| wrong(&format!("has no work's spec: {e}")))?;
        Ok(Self {
            id: id.to_owned(),
            spec: Some(spec),
        })
    }
}

/// What a work asks, if it asks.
pub fn asked(work: &ManifestWork) -> Option<&str> {
    let asked = work.metadata.annotations.as_ref()?.get(annotations::DRY_RUN)?;
    Some(asked)
}

/// Whether a work is not to be applied, because it only asks.
pub fn is_stopped(work: &ManifestWork) -> bool {
    let ours = work
        .metadata
        .finalizers
        .as_ref()
        .is_some_and(|list| list.iter().any(|f| f == finalizers::MANIFEST_WORK));
    asked(work).is_some_and(|asked| asked == STOPPED || !ours)
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answer {
    /// Of the question.
    pub id: String,
    /// Objects of which nothing would change.
    pub unchanged: usize,
    /// Objects that would change, and those that can not.
    pub objects: Vec<Object>,
    /// So many more than fit.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_objects: usize,
}

/// One object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    /// What would become of it.
    pub action: Action,
    /// API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// API version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Which manifest it is; none: of no manifest any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<usize>,
    /// What would change of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
    /// So many more than fit.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_fields: usize,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What would become of an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// It would be made.
    Create,
    /// Some of its fields would change.
    #[default]
    Change,
    /// It would be deleted and made anew.
    Replace,
    /// It would be deleted.
    Delete,
    /// It is somebody else's.
    Conflict,
    /// It would be left as it is, although it differs.
    LeaveAlone,
    /// It could not be applied.
    Error,
}

/// One field, values shortened; a Secret's are not shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Where.
    pub path: String,
    /// What is there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub old: Option<String>,
    /// What would be there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub new: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's calling convention
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Answer {
    /// As JSON that is short enough. Fields are left out first, then objects; how many is said.
    pub fn bounded(&self) -> String {
        self.within(MAX_ANSWER)
    }

    fn within(&self, limit: usize) -> String {
        let text = |answer: &Self| serde_json::to_string(answer).unwrap_or_default();
        let mut answer = self.clone();
        for fields in [usize::MAX, 50, 10, 3, 1, 0] {
            for object in &mut answer.objects {
                if object.fields.len() > fields {
                    object.more_fields += object.fields.len() - fields;
                    object.fields.truncate(fields);
                }
                if fields <= 3 {
                    object.message = shortened(&object.message, 200);
                }
            }
            let short = text(&answer);
            if short.len() <= limit {
                return short;
            }
        }
        loop {
            let short = text(&answer);
            if short.len() <= limit || answer.objects.is_empty() {
                return short;
            }
            let left = answer.objects.len() * 3 / 4;
            answer.more_objects += answer.objects.len() - left;
            answer.objects.truncate(left);
        }
    }
}

fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(manifests: usize, size: usize) -> ManifestWorkSpec {
        let random = |i: usize| {
            let mut text = String::new();
            for block in 0..size.div_ceil(32) {
                let hash = super::super::manifest::hash(&json!([i, block]));
                text.push_str(&hash);
            }
            text
        };
        let manifests: Vec<_> = (0..manifests)
            .map(|i| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": i.to_string()}, "data": {"k": random(i)}}))
            .collect();
        serde_json::from_value(json!({"workload": {"manifests": manifests}})).unwrap()
    }

    #[test]
    fn questions_come_over_whole() {
        for spec in [None, Some(spec(3, 100))] {
            let request = Request {
                id: "a1".into(),
                spec,
            };
            let text = request.annotation().unwrap();
            assert_eq!(Request::of(&text), Ok(request));
        }
        let large = Request {
            id: "a".into(),
            spec: Some(spec(10, 60_000)),
        };
        assert!(large.annotation().unwrap_err().contains("ask about fewer"));
        for (wrong, part) in [("a %", "no base64"), ("a AAAA", "unpacked")] {
            let problem = Request::of(wrong).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn who_only_asks_is_not_applied() {
        let work = |annotation: Option<&str>, finalizers: &[&str]| -> ManifestWork {
            let annotations = annotation.map(|a| json!({annotations::DRY_RUN: a}));
            serde_json::from_value(
                json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
                "metadata": {"name": "w", "annotations": annotations, "finalizers": finalizers}}),
            )
            .unwrap()
        };
        let ours = [finalizers::MANIFEST_WORK];
        for (annotation, finalizers, expected) in [
            (None, &[][..], false),
            (None, &ours, false),
            (Some("a1"), &[], true),
            (Some("a1"), &["another"], true),
            (Some("a1"), &ours, false),
            (Some("true"), &ours, true),
        ] {
            assert_eq!(
                is_stopped(&work(annotation, finalizers)),
                expected,
                "{annotation:?} {finalizers:?}"
            );
        }
    }

    #[test]
    fn answers_are_bounded_and_say_what_is_left_out() {
        let object = |i: usize, fields: usize| Object {
            kind: "ConfigMap".into(),
            name: format!("name{i}"),
            fields: (0..fields)
                .map(|f| Field {
                    path: format!("data.key{f}"),
                    old: Some("é".repeat(60)),
                    new: Some("\"".repeat(60)),
                })
                .collect(),
            message: "m".repeat(500),
            ..Object::default()
        };
        for (objects, fields) in [(0, 0), (1, 5), (1, 1000), (50, 40), (2000, 3), (20_000, 0)] {
            let answer = Answer {
                id: "a".into(),
                unchanged: 7,
                objects: (0..objects).map(|i| object(i, fields)).collect(),
                more_objects: 0,
            };
            let text = answer.bounded();
            assert!(text.len() <= MAX_ANSWER, "{objects} {fields}: {}", text.len());
            let back: Answer = serde_json::from_str(&text).unwrap();
            assert_eq!(back.objects.len() + back.more_objects, objects);
            for found in &back.objects {
                assert_eq!(found.fields.len() + found.more_fields, fields);
            }
            assert_eq!((back.id.as_str(), back.unchanged), ("a", 7));
            if objects <= 1 && fields <= 5 {
                assert_eq!(back, answer, "nothing needs to be left out");
            }
        }
    }
}
