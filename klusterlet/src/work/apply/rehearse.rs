//! What applying a manifest would change: the same way as applying it, with every write a dry run of the server's, so that
//! its defaults, admission and refusals are in the answer.

use super::{Applier, Came, Failure, Look, Target};
use crate::work::contention::Contention;
use crate::work::difference::{self, Difference};
use crate::work::objects::RequestError;
use crate::work::status::Applied;
use muster_crds::work::v1::{ManifestResourceMeta, ManifestWork, UpdateStrategyType};
use serde_json::Value;
use std::sync::Arc;

/// What would become of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// It would be made; anything there is to say about it.
    Create(String),
    /// These fields would change.
    Change(Vec<Difference>),
    /// It would be deleted and made anew.
    Replace(Vec<Difference>),
    /// Somebody else has it.
    Conflict(String),
    /// It would be left as it is.
    LeftAlone(String),
    /// It would not work.
    Error(String),
}

/// One manifest.
#[derive(Debug, Clone)]
pub struct Rehearsed {
    /// Which object it is.
    pub meta: ManifestResourceMeta,
    /// What would become of it.
    pub effect: Effect,
}

impl Applier {
    /// What applying one manifest of a work would change.
    pub async fn rehearse(&self, work: &ManifestWork, ordinal: usize, owner: &Value) -> Rehearsed {
        let mut target = match self.target(work, ordinal, Contention::default(), owner).await {
            Ok(target) => target,
            Err(outcome) => {
                let meta = outcome.report.meta;
                let problem = match outcome.report.applied {
                    Applied::No { message, .. } => message,
                    Applied::Yes | Applied::Kept => String::new(),
                };
                let effect = if brings_kind(work, &meta) {
                    Effect::Create("its kind comes with this work".to_owned())
                } else {
                    Effect::Error(problem)
                };
                return Rehearsed { meta, effect };
            }
        };
        target.writer = target.writer.dry();
        let effect = match self.unlicensed(work, &mut target).await {
            Some((problem, _)) => Effect::Error(problem),
            None => self.effect(work, &target, ordinal).await,
        };
        Rehearsed {
            meta: target.meta,
            effect,
        }
    }

    async fn effect(&self, work: &ManifestWork, target: &Target<'_>, ordinal: usize) -> Effect {
        if target.strategy() == UpdateStrategyType::ReadOnly {
            return Effect::Nothing;
        }
        let live = match self.fetch(target).await {
            Ok(live) => live,
            Err(error) => return Effect::Error(error.to_string()),
        };
        let look = Look {
            ordinal,
            trusted: false,
            applied: false,
            twin: None,
            complete: false,
            contention: Contention::default(),
        };
        match self.bring_about(target, &look).await {
            Ok(Came::Settled(Some(new))) => changed(live.as_ref(), &new),
            Ok(Came::NotTakenOver(_, why)) => Effect::LeftAlone(why),
            Ok(Came::Terminating(_)) => Effect::LeftAlone("it is being deleted".to_owned()),
            Ok(_) => Effect::Nothing,
            Err(Failure::Request(error)) => refused(work, target, &error),
            Err(Failure::IgnoreFields(problem)) => Effect::Error(problem),
        }
    }
}

fn changed(live: Option<&Arc<Value>>, new: &Value) -> Effect {
    let Some(live) = live else {
        return Effect::Create(String::new());
    };
    let found = difference::differences(live, new);
    if new["metadata"]["uid"].is_null() {
        Effect::Replace(found)
    } else if found.is_empty() {
        Effect::Nothing
    } else {
        Effect::Change(found)
    }
}

fn refused(work: &ManifestWork, target: &Target<'_>, error: &RequestError) -> Effect {
    let words = error.to_string();
    if error.is_conflict() {
        return Effect::Conflict(words);
    }
    let namespace = &target.meta.namespace;
    let brought = |kind: &str, name: &str| {
        let manifests = work.spec.workload.manifests.iter();
        manifests.filter(|m| m.kind() == kind).any(|m| m.name() == name)
    };
    let missing = error.is_not_found() && words.contains(&format!("namespaces \"{namespace}\" not found"));
    if missing && brought("Namespace", namespace) {
        return Effect::Create("its namespace comes with this work".to_owned());
    }
    Effect::Error(words)
}

/// Whether a work has the CustomResourceDefinition of one of its own objects.
fn brings_kind(work: &ManifestWork, meta: &ManifestResourceMeta) -> bool {
    !meta.kind.is_empty()
        && work.spec.workload.manifests.iter().any(|m| {
            let spec = &m.0["spec"];
            m.kind() == "CustomResourceDefinition"
                && spec["group"] == meta.group.as_str()
                && spec["names"]["kind"] == meta.kind.as_str()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn effects() {
        let object = |uid: Option<&str>, value: &str| {
            json!({"kind": "ConfigMap", "metadata": {"name": "a", "uid": uid, "resourceVersion": value},
                "data": {"k": value}})
        };
        let live = Arc::new(object(Some("u"), "1"));
        assert_eq!(
            changed(None, &object(Some("u"), "1")),
            Effect::Create(String::new())
        );
        assert_eq!(changed(Some(&live), &object(Some("u"), "1")), Effect::Nothing);
        let found = |effect| match effect {
            Effect::Change(found) => ("change", difference::told(&found)),
            Effect::Replace(found) => ("replace", difference::told(&found)),
            other => panic!("{other:?}"),
        };
        let told = "data.k is \"1\", should be \"2\"";
        assert_eq!(
            found(changed(Some(&live), &object(Some("u"), "2"))),
            ("change", told.into())
        );
        let (kind, fields) = found(changed(Some(&live), &object(None, "2")));
        assert_eq!(kind, "replace");
        assert!(fields.contains(told), "{fields}");
    }

    #[test]
    fn a_kind_may_come_with_the_work() {
        let work: ManifestWork = serde_json::from_value(json!({
            "apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork", "metadata": {"name": "w"},
            "spec": {"workload": {"manifests": [{"apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition", "metadata": {"name": "things.x.io"},
                "spec": {"group": "x.io", "names": {"kind": "Thing"}}}]}}}))
        .unwrap();
        for (group, kind, expected) in [
            ("x.io", "Thing", true),
            ("y.io", "Thing", false),
            ("x.io", "", false),
        ] {
            let meta = ManifestResourceMeta {
                group: group.into(),
                kind: kind.into(),
                ..Default::default()
            };
            assert_eq!(brings_kind(&work, &meta), expected, "{group} {kind}");
        }
    }
}
