//! Answers what applying a work would change (`crate::work::dry_run`), beside everything else and one work at a time.

use super::{Agent, OBJECTS_AT_ONCE};
use crate::work::apply::{Effect, Rehearsed};
use crate::work::difference::Difference;
use crate::work::dry_run::{self, Action, Answer, Field, Object, Request};
use crate::work::state::Rehearsal;
use crate::work::{applied, objects};
use futures::StreamExt as _;
use kube::ResourceExt as _;
use muster_crds::conditions::NewCondition;
use muster_crds::constants::{conditions as types, reasons};
use muster_crds::names::applied_manifest_work_name;
use muster_crds::work::v1::{AppliedManifestWork, ManifestWork, ManifestWorkSpec};
use std::sync::Arc;

impl Agent {
    /// Answers for ever.
    pub(super) async fn rehearse(self: Arc<Self>) {
        loop {
            let name = self.rehearsals.next().await;
            self.answer(&name).await;
            self.rehearsals.done(&name);
        }
    }

    async fn answer(&self, name: &str) {
        let (work, asked) = {
            let state = self.state();
            let Some(known) = state.works.get(name).filter(|k| !k.cached) else {
                return;
            };
            let Some(asked) = dry_run::asked(&known.work).map(str::to_owned) else {
                return;
            };
            let generation = known.work.metadata.generation;
            let done = |r: &Rehearsal| r.asked == asked && r.generation == generation;
            if known.rehearsed.as_ref().is_some_and(done) {
                return;
            }
            (known.work.clone(), asked)
        };
        let answer = match Request::of(&asked) {
            Err(problem) => NewCondition::new(types::DRY_RUN, false, reasons::DRY_RUN_FAILED, problem),
            Ok(request) => {
                let answer = self.what_would_change(name, &work, request).await;
                NewCondition::new(types::DRY_RUN, true, reasons::DRY_RUN_DONE, answer.bounded())
            }
        };
        if let Some(known) = self.state().works.get_mut(name) {
            known.rehearsed = Some(Rehearsal {
                asked,
                generation: work.metadata.generation,
                answer,
            });
        }
        self.statuses.add(name.to_owned());
    }

    async fn what_would_change(&self, name: &str, work: &ManifestWork, request: Request) -> Answer {
        let mut work = work.clone();
        if let Some(spec) = request.spec {
            work.spec = in_place_of(&work.spec, spec);
        }
        let applied = {
            let applied = applied_manifest_work_name(&self.settings.hub_hash, name);
            self.state().applied.get(&applied).cloned()
        };
        // Without a record there is no owner yet; that it would be set is no difference.
        let owner = applied
            .as_deref()
            .map(applied::owner_reference)
            .unwrap_or_default();
        let (work, owner) = (&work, &owner);
        let manifests = 0..work.spec.workload.manifests.len();
        let rehearsals = manifests
            .map(|ordinal| async move { (ordinal, self.applier.rehearse(work, ordinal, owner).await) });
        let mut found: Vec<(usize, Rehearsed)> = futures::stream::iter(rehearsals)
            .buffer_unordered(OBJECTS_AT_ONCE)
            .collect()
            .await;
        found.sort_by_key(|(ordinal, _)| *ordinal);
        let mut answer = summed_up(&found);
        answer.id = request.id;
        if let Some(applied) = applied {
            answer.objects.extend(self.would_go(&applied, &found).await);
        }
        answer
    }

    /// What the work applied before and does not have any more.
    async fn would_go(&self, applied: &AppliedManifestWork, found: &[(usize, Rehearsed)]) -> Vec<Object> {
        let stays = |o: &muster_crds::work::v1::AppliedManifestResourceMeta| {
            found.iter().any(|(_, r)| {
                let same =
                    (&r.meta.group, &r.meta.name, &r.meta.namespace) == (&o.group, &o.name, &o.namespace);
                // A kind that is not known may be this one.
                same && (r.meta.resource.is_empty() || r.meta.resource == o.resource)
            })
        };
        let uid = applied.uid().unwrap_or_default();
        let mut out = Vec::new();
        for entry in applied
            .status
            .iter()
            .flat_map(|s| &s.applied_resources)
            .filter(|o| !stays(o))
        {
            let Ok(served) = self
                .applier
                .mapper
                .by_plural(&self.spoke, &entry.group, &entry.version, &entry.resource)
                .await
            else {
                continue;
            };
            let object = Object {
                action: Action::Delete,
                group: entry.group.clone(),
                version: entry.version.clone(),
                kind: served.kind.clone(),
                namespace: entry.namespace.clone(),
                name: entry.name.clone(),
                ..Object::default()
            };
            match objects::get(&self.spoke, &served.object(&entry.namespace, &entry.name)).await {
                Ok(live) if applied::removal(&entry.uid, Some(&live), &uid) == applied::Removal::Delete => {
                    out.push(object);
                }
                Err(error) if !error.is_not_found() => out.push(Object {
                    action: Action::Error,
                    message: error.to_string(),
                    ..object
                }),
                _ => {}
            }
        }
        out
    }
}

/// What is asked about. The executor stays the work's: whether its writer may use it was checked when the work was written,
/// and an annotation is checked by nobody.
fn in_place_of(stored: &ManifestWorkSpec, asked: ManifestWorkSpec) -> ManifestWorkSpec {
    ManifestWorkSpec {
        executor: stored.executor.clone(),
        ..asked
    }
}

fn summed_up(found: &[(usize, Rehearsed)]) -> Answer {
    let mut answer = Answer::default();
    for (ordinal, Rehearsed { meta, effect }) in found {
        let (action, fields, message) = match effect {
            Effect::Nothing => {
                answer.unchanged += 1;
                continue;
            }
            Effect::Create(message) => (Action::Create, Vec::new(), message.clone()),
            Effect::Change(found) => (Action::Change, found.iter().map(field).collect(), String::new()),
            Effect::Replace(found) => (Action::Replace, found.iter().map(field).collect(), String::new()),
            Effect::Conflict(words) => (Action::Conflict, Vec::new(), words.clone()),
            Effect::LeftAlone(why) => (Action::LeaveAlone, Vec::new(), why.clone()),
            Effect::Error(words) => (Action::Error, Vec::new(), words.clone()),
        };
        answer.objects.push(Object {
            action,
            group: meta.group.clone(),
            version: meta.version.clone(),
            kind: meta.kind.clone(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            ordinal: Some(*ordinal),
            fields,
            more_fields: 0,
            message,
        });
    }
    answer
}

fn field(difference: &Difference) -> Field {
    Field {
        path: difference.dotted(),
        old: difference.is.clone(),
        new: difference.should.clone(),
    }
}

/// The condition that a work's status should have about what it asks; `None`: that of before, because the answer is not
/// there yet.
pub fn condition(known: &crate::work::state::WorkState) -> Option<NewCondition> {
    let asked = dry_run::asked(&known.work)?;
    let rehearsed = known.rehearsed.as_ref().filter(|r| r.asked == asked)?;
    Some(rehearsed.answer.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_crds::work::v1::ManifestResourceMeta;

    #[test]
    fn a_question_is_asked_as_the_works_own_executor() {
        let spec = |account: Option<&str>, name: &str| -> ManifestWorkSpec {
            let mut spec = serde_json::json!({"workload": {"manifests": [
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}]}});
            if let Some(account) = account {
                spec["executor"] = serde_json::json!({"subject": {"type": "ServiceAccount",
                    "serviceAccount": {"namespace": "d", "name": account}}});
            }
            serde_json::from_value(spec).unwrap()
        };
        for (stored, asked) in [
            (Some("weak"), None),
            (Some("weak"), Some("strong")),
            (None, Some("strong")),
            (None, None),
        ] {
            let rehearsed = in_place_of(&spec(stored, "a"), spec(asked, "b"));
            assert_eq!(rehearsed, spec(stored, "b"));
        }
    }

    #[test]
    fn only_what_changes_is_named() {
        let rehearsed = |name: &str, effect| Rehearsed {
            meta: ManifestResourceMeta {
                kind: "ConfigMap".into(),
                name: name.into(),
                ..Default::default()
            },
            effect,
        };
        let differs = Difference {
            path: vec!["data".into(), "a.b".into()],
            is: Some("\"1\"".into()),
            should: None,
        };
        let found = [
            (0, rehearsed("same", Effect::Nothing)),
            (1, rehearsed("new", Effect::Create(String::new()))),
            (2, rehearsed("other", Effect::Change(vec![differs]))),
            (3, rehearsed("taken", Effect::Conflict("by kubectl".into()))),
        ];
        let answer = summed_up(&found);
        assert_eq!(answer.unchanged, 1);
        let told: Vec<_> = answer
            .objects
            .iter()
            .map(|o| (o.action, o.name.as_str(), o.ordinal, o.message.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (Action::Create, "new", Some(1), ""),
                (Action::Change, "other", Some(2), ""),
                (Action::Conflict, "taken", Some(3), "by kubectl")
            ]
        );
        let field = &answer.objects[1].fields[0];
        assert_eq!(
            (field.path.as_str(), field.old.as_deref(), field.new.as_deref()),
            ("data[a.b]", Some("\"1\""), None)
        );
    }
}
