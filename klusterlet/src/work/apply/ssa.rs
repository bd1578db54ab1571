//! The strategy `ServerSideApply` (wire §3.3).

use super::{Applier, CONFLICT_RETRIES, Came, Failure, Known, Look, Target};
use crate::work::contention::Verdict;
use crate::work::drift::Marks;
use crate::work::policy::TakeOver;
use crate::work::{drift, ignore, manifest, objects};
use muster_crds::constants::{annotations, labels};
use muster_crds::work::v1::{IgnoreFieldsCondition, ServerSideApplyConfig};
use serde_json::{Value, json};
use std::sync::Arc;

impl Applier {
    pub(super) async fn server_side_apply(&self, target: &Target<'_>, look: &Look) -> Result<Came, Failure> {
        let config = target
            .settings
            .strategy
            .and_then(|s| s.server_side_apply.clone())
            .unwrap_or_default();
        if !config.ignore_fields.is_empty() {
            return self.apply_around(target, look, &config).await;
        }
        let mut wanted = target.required.clone();
        wanted["metadata"]["labels"][labels::APPLIED] = "true".into();
        let live = match self.known(target).await {
            Known::Object(live) => Some(live),
            Known::Absent if target.policy.take_over == TakeOver::Always && target.rivals.is_empty() => None,
            // Whoever owns it by apply must be applied along.
            Known::Absent | Known::Unknown => self.fetch(target).await?,
        };
        if let Some(live) = &live {
            if let Some(came) = self.hands_off(target, live).await? {
                return Ok(came);
            }
            let known = look.trusted && applied_by(live, &config.field_manager);
            if (known || is_as_applied(live, &wanted, &config.field_manager)) && drift::covers(live, &wanted)
            {
                return self.own(target, live.clone()).await;
            }
            // What a server may have dropped itself is no fight.
            if known
                && !drift::covers_but_empties(live, &wanted)
                && let Verdict::Wait(wait) = target.drifted(live, &drift::overlaid(live, &wanted))
            {
                return Ok(Came::Contended(Some(live.clone()), wait));
            }
        }
        match live {
            None => self.make(target, look, &config, wanted).await,
            Some(live) => self.send(target, &config, Some(&live), wanted).await,
        }
    }

    /// The object is not known to be there.
    async fn make(
        &self,
        target: &Target<'_>,
        look: &Look,
        config: &ServerSideApplyConfig,
        wanted: Value,
    ) -> Result<Came, Failure> {
        if look.trusted
            && let Verdict::Wait(wait) = target.vanished()
        {
            return Ok(Came::Contended(None, wait));
        }
        let made = self.send(target, config, None, wanted).await;
        if look.trusted && made.is_err() {
            target.fight().not_made();
        }
        made
    }

    /// Content and owner go in one write: an object that is made is never without its owner, or an agent that is ended right
    /// then would leave one that nobody knows.
    async fn send(
        &self,
        target: &Target<'_>,
        config: &ServerSideApplyConfig,
        live: Option<&Value>,
        mut wanted: Value,
    ) -> Result<Came, Failure> {
        let owners = owners(&wanted, live, &target.marks, &config.field_manager);
        if !owners.is_empty() {
            wanted["metadata"]["ownerReferences"] = owners.into();
        }
        let path = format!(
            "{}?fieldManager={}&force={}",
            target.path, config.field_manager, config.force
        );
        let method = http::Method::PATCH;
        let live =
            objects::request(&target.writer, method, &path, objects::APPLY_PATCH, Some(&wanted)).await?;
        let live = Arc::new(live);
        if let Some(came) = self.hands_off(target, &live).await? {
            return Ok(came);
        }
        self.own(target, live).await
    }

    /// Applies around the fields that are left to others. The hash of what was applied is on the object, so that what was
    /// changed is known without memory: the manifest (its `OnSpokeChange` fields count again), or the object (they do not).
    async fn apply_around(
        &self,
        target: &Target<'_>,
        look: &Look,
        config: &ServerSideApplyConfig,
    ) -> Result<Came, Failure> {
        let mut live = self.observe(target).await?;
        let mut tries = 1;
        loop {
            match self.apply_beside(target, look, config, live).await {
                // Somebody wrote at the same moment: what they wrote may be what is left to them.
                Err(Failure::Request(error))
                    if tries < CONFLICT_RETRIES && error.is_conflict() && !error.is_field_conflict() =>
                {
                    live = self.fetch(target).await?;
                    tries += 1;
                }
                came => return came,
            }
        }
    }

    async fn apply_beside(
        &self,
        target: &Target<'_>,
        look: &Look,
        config: &ServerSideApplyConfig,
        live: Option<Arc<Value>>,
    ) -> Result<Came, Failure> {
        use IgnoreFieldsCondition::{OnSpokeChange, OnSpokePresent};
        let fields = &config.ignore_fields;
        let ignored = async |object: &Value, when: &[IgnoreFieldsCondition]| {
            ignore::without(object, fields, when)
                .await
                .map_err(Failure::IgnoreFields)
        };
        let reduced = ignored(&target.required, &[OnSpokePresent]).await?;
        let hash = manifest::hash(&reduced);
        let marked = |mut object: Value| {
            object["metadata"]["labels"][labels::APPLIED] = "true".into();
            object["metadata"]["annotations"][annotations::CONFIG_SPEC_HASH] = hash.as_str().into();
            object
        };
        let Some(live) = live else {
            return self
                .make(target, look, config, marked(target.required.clone()))
                .await;
        };
        if let Some(came) = self.hands_off(target, &live).await? {
            return Ok(came);
        }
        let unchanged = live["metadata"]["annotations"][annotations::CONFIG_SPEC_HASH] == hash.as_str();
        let (mut wanted, left): (Value, &[IgnoreFieldsCondition]) = if unchanged {
            let bare = marked(ignored(&reduced, &[OnSpokeChange]).await?);
            if drift::covers(&live, &bare) {
                return self.own(target, live).await;
            }
            if look.trusted
                && let Verdict::Wait(wait) = target.drifted(&live, &drift::overlaid(&live, &bare))
            {
                return Ok(Came::Contended(Some(live), wait));
            }
            (bare, &[OnSpokePresent, OnSpokeChange])
        } else {
            (marked(reduced), &[OnSpokePresent])
        };
        // Ignored fields that are still ours from when we made the object stay as they are now.
        let ours = ignore::owned(&live, &config.field_manager);
        if let Ok(kept) = ignored(&ours, left).await {
            let before = wanted.clone();
            ignore::graft(&mut wanted, &ours, &kept);
            if wanted != before {
                // As they are in this version, and no other.
                wanted["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
            }
        }
        self.send(target, config, Some(&live), wanted).await
    }

    /// Owners that are there already in another way, and those that are not to be there any more, are not applied.
    async fn own(&self, target: &Target<'_>, live: Arc<Value>) -> Result<Came, Failure> {
        if target.is_rehearsal() {
            return Ok(Came::Settled(Some(live)));
        }
        let Some(marked) = drift::decide_marks(&live, &target.marks) else {
            return Ok(Came::Settled(Some(live)));
        };
        let patch = json!({"metadata": {
            "uid": live["metadata"]["uid"],
            "resourceVersion": live["metadata"]["resourceVersion"],
            "ownerReferences": marked["metadata"]["ownerReferences"],
        }});
        let live = objects::merge(&target.writer, &target.path, &patch).await?;
        Ok(Came::Settled(Some(Arc::new(live))))
    }
}

/// The owners to apply with an object. Several works may apply the same object as the same manager, and what a manager leaves
/// out that it applied before goes: so each applies the others' owners along with its own. An owner that was written
/// otherwise is left as it is.
fn owners(wanted: &Value, live: Option<&Value>, marks: &Marks, manager: &str) -> Vec<Value> {
    let list = |object: &Value| object["metadata"]["ownerReferences"].as_array().cloned();
    let mut owners = list(wanted).unwrap_or_default();
    let applied = live.map(|live| ignore::owned(live, manager));
    let applied = applied.as_ref().and_then(list).unwrap_or_default();
    let others = applied.iter().filter(|owner| {
        owner["kind"] == "AppliedManifestWork" && owner["uid"].as_str() != marks.disowned_uid.as_deref()
    });
    let there = live.and_then(list).unwrap_or_default();
    let ours = marks.owner.iter().filter(|ours| {
        let same = |owner: &Value| owner["uid"] == ours["uid"];
        !there.iter().any(same)
    });
    for owner in others.chain(ours) {
        if !owners.iter().any(|known| known["uid"] == owner["uid"]) {
            owners.push(owner.clone());
        }
    }
    owners
}

/// Whether what the manager applied last is just what is wanted: with what the object holds that is known without memory, and
/// a restarted agent writes nothing. Owners are looked at apart.
fn is_as_applied(live: &Value, wanted: &Value, manager: &str) -> bool {
    if !applied_by(live, manager) {
        return false;
    }
    let mut owned = ignore::owned(live, manager);
    for field in ["apiVersion", "kind"] {
        owned[field] = wanted[field].clone();
    }
    for field in ["name", "namespace"] {
        if let Some(value) = wanted["metadata"].get(field) {
            owned["metadata"][field] = value.clone();
        }
    }
    if let Some(owners) = owned["metadata"]["ownerReferences"].as_array_mut() {
        owners.retain(|owner| owner["kind"] != "AppliedManifestWork");
    }
    // Both ways: nothing is missing, and nothing has left the manifest.
    drift::same(&owned["metadata"], &wanted["metadata"])
        && drift::covers_but_empties(&owned, wanted)
        && drift::covers_but_empties(wanted, &owned)
}

fn applied_by(live: &Value, manager: &str) -> bool {
    live["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|e| e["manager"] == manager && e["operation"] == "Apply")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_applied_is_read_off_the_object() {
        let wanted = |data: Value| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "d",
                "labels": {"ours": "true"}}, "data": data})
        };
        let fields = json!({"f:metadata": {"f:labels": {"f:ours": {}}, "f:ownerReferences": {"k:{\"uid\":\"r\"}": {}}},
            "f:data": {"f:k": {}, "f:l": {}}});
        let mut live = wanted(json!({"k": "1", "l": "2", "theirs": "3"}));
        live["metadata"]["labels"]["theirs"] = "x".into();
        live["metadata"]["ownerReferences"] = json!([{"kind": "AppliedManifestWork", "uid": "r"}]);
        live["metadata"]["managedFields"] =
            json!([{"manager": "work-agent", "operation": "Apply", "fieldsV1": fields}]);
        for (data, manager, expected) in [
            (json!({"k": "1", "l": "2"}), "work-agent", true),
            (json!({"k": "1", "l": "2"}), "work-agent-x", false),
            // One left the manifest, one came to it, one changed.
            (json!({"k": "1"}), "work-agent", false),
            (json!({"k": "1", "l": "2", "theirs": "3"}), "work-agent", false),
            (json!({"k": "9", "l": "2"}), "work-agent", false),
        ] {
            assert_eq!(
                is_as_applied(&live, &wanted(data.clone()), manager),
                expected,
                "{data} {manager}"
            );
        }
    }

    #[test]
    fn an_object_is_applied_with_every_owner_that_was_applied() {
        let record = |uid: &str| json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "AppliedManifestWork", "name": uid, "uid": uid});
        let thing = json!({"apiVersion": "v1", "kind": "Thing", "name": "t", "uid": "t"});
        let object = |owners: &[&Value]| json!({"metadata": {"name": "a", "ownerReferences": owners}});
        // Of the live object's owners, those in `applied` are of our manager.
        let live = |owners: &[&Value], applied: &[&str]| {
            let mut live = object(owners);
            let fields: serde_json::Map<String, Value> = applied
                .iter()
                .map(|uid| {
                    (
                        format!("k:{}", json!({"uid": uid})),
                        json!({".": {}, "f:uid": {}, "f:kind": {}, "f:name": {}, "f:apiVersion": {}}),
                    )
                })
                .collect();
            let mut owned = json!({"f:metadata": {"f:labels": {"f:a": {}}}});
            if !fields.is_empty() {
                owned["f:metadata"]["f:ownerReferences"] = fields.into();
            }
            live["metadata"]["managedFields"] =
                json!([{"manager": "work-agent", "operation": "Apply", "fieldsV1": owned}]);
            live
        };
        let marks = |owner: Option<Value>, disowned: Option<&str>| Marks {
            owner,
            disowned_uid: disowned.map(str::to_owned),
        };
        let (ours, theirs) = (record("ours"), record("theirs"));
        let plain = json!({"metadata": {"name": "a"}});
        let own = || marks(Some(ours.clone()), None);
        let cases: [(&Value, Option<Value>, Marks, Vec<&str>); 8] = [
            (&plain, None, own(), vec!["ours"]),
            (&plain, None, marks(None, None), vec![]),
            (&object(&[&thing]), None, own(), vec!["t", "ours"]),
            (
                &plain,
                Some(live(&[&theirs], &["theirs"])),
                own(),
                vec!["theirs", "ours"],
            ),
            // Written by a patch, by whomever.
            (&plain, Some(live(&[&theirs, &ours], &[])), own(), vec![]),
            (
                &plain,
                Some(live(&[&theirs, &ours], &["theirs", "ours"])),
                own(),
                vec!["theirs", "ours"],
            ),
            // Of others' kinds none is claimed.
            (&plain, Some(live(&[&thing], &["t"])), own(), vec!["ours"]),
            (
                &plain,
                Some(live(&[&theirs, &ours], &["theirs", "ours"])),
                marks(None, Some("ours")),
                vec!["theirs"],
            ),
        ];
        for (wanted, live, marks, expected) in cases {
            let found = owners(wanted, live.as_ref(), &marks, "work-agent");
            let uids: Vec<&str> = found.iter().filter_map(|o| o["uid"].as_str()).collect();
            assert_eq!(uids, expected, "{live:?} {marks:?}");
        }
    }
}
