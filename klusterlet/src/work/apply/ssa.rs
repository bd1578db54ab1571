//! The strategy `ServerSideApply` (wire §3.3).

use super::{Applier, CONFLICT_RETRIES, Came, Failure, Known, Look, Target};
use crate::limits::Server;
use crate::work::contention::Verdict;
use crate::work::drift::Marks;
use crate::work::objects::RequestError;
use crate::work::policy::TakeOver;
use crate::work::{drift, ignore, manifest, objects};
use muster_crds::constants::{annotations, labels};
use muster_crds::work::v1::{IgnoreFieldsCondition, ServerSideApplyConfig};
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};

/// What is to be applied over an object that exists.
struct Due {
    wanted: Value,
    /// It is as it should be no more: how it should be.
    drift: Option<Value>,
}

impl Applier {
    pub(super) async fn server_side_apply(&self, target: &Target<'_>, look: &Look) -> Result<Came, Failure> {
        let config = config(target);
        let _turn = self.turns.take(&target.key).await;
        let is_shared = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.is_shared(&target.key)
        };
        let mut live = if is_shared && !target.is_rehearsal() {
            // Another may just have applied it, which the watch does not know yet.
            self.observe_anew(target).await?
        } else if config.ignore_fields.is_empty() {
            match self.known(target).await {
                Known::Object(live) => Some(live),
                Known::Absent if target.policy.take_over == TakeOver::Always => None,
                Known::Absent | Known::Unknown => self.fetch(target).await?,
            }
        } else {
            self.observe(target).await?
        };
        let mut tries = 1;
        loop {
            match self.apply_over(target, look, &config, live).await {
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

    async fn apply_over(
        &self,
        target: &Target<'_>,
        look: &Look,
        config: &ServerSideApplyConfig,
        live: Option<Arc<Value>>,
    ) -> Result<Came, Failure> {
        let Some(live) = live else {
            let (_, hash) = reduced(target, config).await?;
            let wanted = marked(target.required.clone(), hash.as_deref());
            return self.make(target, look, config, wanted).await;
        };
        if let Some(came) = self.hands_off(target, &live).await? {
            return Ok(came);
        }
        let Some(due) = due(target, &live, config, look.trusted).await? else {
            return self.own(target, live).await;
        };
        if let Some(should) = &due.drift
            && let Verdict::Wait(wait) = target.drifted(&live, should)
        {
            return Ok(Came::Contended(Some(live), wait));
        }
        let repairs = due.drift.is_some();
        self.send(target, config, Some(&live), due.wanted, repairs).await
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
        let made = self.send(target, config, None, wanted, false).await;
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
        before: Option<&Value>,
        wanted: Value,
        repairs: bool,
    ) -> Result<Came, Failure> {
        let live = patch(target, &target.writer, config, before, wanted).await?;
        let same = |b: &Value| b["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"];
        {
            let mut fight = target.fight();
            if repairs && before.is_some_and(same) {
                // The server makes of the manifest what is there: nobody changed anything.
                fight.nothing_changed();
            }
            fight.confirm(print(target, &live, &config.field_manager));
        }
        let live = Arc::new(live);
        if let Some(came) = self.hands_off(target, &live).await? {
            return Ok(came);
        }
        self.own(target, live).await
    }

    /// What an object would be after an apply, as the server says in a dry run; `None`: nothing would be applied.
    pub(super) async fn foreseen(
        &self,
        target: &Target<'_>,
        live: &Value,
        trusted: bool,
    ) -> Result<Option<Value>, Failure> {
        let config = config(target);
        let Some(due) = due(target, live, &config, trusted).await? else {
            return Ok(None);
        };
        let plain = drift::overlaid(live, &due.wanted);
        match patch(target, &target.writer.dry(), &config, Some(live), due.wanted).await {
            Ok(made) => Ok(Some(made)),
            // It would be refused: what was asked for is told.
            Err(error) if error.is_field_conflict() || matches!(error.code(), 400 | 403 | 422) => {
                Ok(Some(plain))
            }
            Err(error) => Err(error.into()),
        }
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

fn config(target: &Target<'_>) -> ServerSideApplyConfig {
    let strategy = target.settings.strategy;
    strategy
        .and_then(|s| s.server_side_apply.clone())
        .unwrap_or_default()
}

async fn patch(
    target: &Target<'_>,
    server: &Server,
    config: &ServerSideApplyConfig,
    live: Option<&Value>,
    mut wanted: Value,
) -> Result<Value, RequestError> {
    let owners = owners(&wanted, live, &target.marks, &config.field_manager);
    if !owners.is_empty() || wanted["metadata"]["ownerReferences"].is_array() {
        wanted["metadata"]["ownerReferences"] = owners.into();
    }
    if let Some(live) = live.filter(|_| !server.is_dry()) {
        // What is to be applied over an object is not what one is made of: it is this one, or none.
        wanted["metadata"]["uid"] = live["metadata"]["uid"].clone();
    }
    let path = format!(
        "{}?fieldManager={}&force={}",
        target.path, config.field_manager, config.force
    );
    objects::request(
        server,
        http::Method::PATCH,
        &path,
        objects::APPLY_PATCH,
        Some(&wanted),
    )
    .await
}

async fn ignored(
    object: &Value,
    config: &ServerSideApplyConfig,
    when: &[IgnoreFieldsCondition],
) -> Result<Value, Failure> {
    ignore::without(object, &config.ignore_fields, when)
        .await
        .map_err(Failure::IgnoreFields)
}

/// The manifest without what is the cluster's once the object is there, and the hash by which the object tells what was
/// applied of it; none where nothing is ignored.
async fn reduced(
    target: &Target<'_>,
    config: &ServerSideApplyConfig,
) -> Result<(Value, Option<String>), Failure> {
    if config.ignore_fields.is_empty() {
        return Ok((target.required.clone(), None));
    }
    let reduced = ignored(&target.required, config, &[IgnoreFieldsCondition::OnSpokePresent]).await?;
    let hash = manifest::hash(&reduced);
    Ok((reduced, Some(hash)))
}

fn marked(mut object: Value, hash: Option<&str>) -> Value {
    object["metadata"]["labels"][labels::APPLIED] = "true".into();
    if let Some(hash) = hash {
        object["metadata"]["annotations"][annotations::CONFIG_SPEC_HASH] = hash.into();
    }
    object
}

/// Whether something must be applied over an object, and what. Around fields that are left to others the hash of what was
/// applied is on the object, so that what was changed is known without memory: the manifest (its `OnSpokeChange` fields
/// count again), or the object (they do not).
async fn due(
    target: &Target<'_>,
    live: &Value,
    config: &ServerSideApplyConfig,
    trusted: bool,
) -> Result<Option<Due>, Failure> {
    use IgnoreFieldsCondition::{OnSpokeChange, OnSpokePresent};
    let manager = config.field_manager.as_str();
    let confirmed = || trusted && target.fight().is_confirmed(&print(target, live, manager));
    let (reduced, hash) = reduced(target, config).await?;
    let Some(hash) = hash else {
        // Another work that applies it may leave fields to others: what it notes for that is kept, or both would go on writing.
        let ours = ignore::owned(live, manager);
        let noted = ours["metadata"]["annotations"][annotations::CONFIG_SPEC_HASH].as_str();
        let wanted = marked(reduced, noted);
        let known = trusted && applied_by(live, manager);
        let ours = known || is_as_applied(live, &wanted, manager);
        if (ours && stands(live, &wanted, manager, drift::covers)) || confirmed() {
            return Ok(None);
        }
        // What a server may have dropped itself is no fight.
        let fought = known && !stands(live, &wanted, manager, drift::covers_but_empties);
        let drift = fought.then(|| drift::overlaid(live, &wanted));
        return Ok(Some(Due { wanted, drift }));
    };
    let unchanged = live["metadata"]["annotations"][annotations::CONFIG_SPEC_HASH] == hash.as_str();
    let (mut due, left): (Due, &[IgnoreFieldsCondition]) = if unchanged {
        let bare = marked(ignored(&reduced, config, &[OnSpokeChange]).await?, Some(&hash));
        if stands(live, &bare, manager, drift::covers) || confirmed() {
            return Ok(None);
        }
        let drift = trusted.then(|| drift::overlaid(live, &bare));
        (Due { wanted: bare, drift }, &[OnSpokePresent, OnSpokeChange])
    } else {
        let wanted = marked(reduced, Some(&hash));
        (Due { wanted, drift: None }, &[OnSpokePresent])
    };
    // Ignored fields that are still ours from when we made the object stay as they are now.
    let ours = ignore::owned(live, manager);
    if let Ok(kept) = ignored(&ours, config, left).await {
        let before = due.wanted.clone();
        ignore::graft(&mut due.wanted, &ours, &kept);
        if due.wanted != before {
            // As they are in this version, and no other.
            due.wanted["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        }
    }
    Ok(Some(due))
}

/// What was asked for, and what the manager has of the object for it: as long as both are the same, to apply it again
/// changes nothing, also where the server or a webhook makes something else of it.
fn print(target: &Target<'_>, live: &Value, manager: &str) -> String {
    manifest::hash(&json!([target.required, ignore::owned(live, manager)]))
}

/// Whether all that is wanted is there: in the object, or in what of it is the manager's. In lists whose items have keys, as
/// containers, other managers may have items beside ours.
fn stands(live: &Value, wanted: &Value, manager: &str, covers: fn(&Value, &Value) -> bool) -> bool {
    covers(live, wanted)
        || (applied_by(live, manager) && covers(&applied_part(live, wanted, manager), wanted))
}

/// What of an object is the manager's, with the names by which the object is known.
fn applied_part(live: &Value, wanted: &Value, manager: &str) -> Value {
    let mut owned = ignore::owned(live, manager);
    for field in ["apiVersion", "kind"] {
        owned[field] = wanted[field].clone();
    }
    for field in ["name", "namespace"] {
        if let Some(value) = wanted["metadata"].get(field) {
            owned["metadata"][field] = value.clone();
        }
    }
    owned
}

/// The owners to apply with an object. Several works may apply the same object as the same manager, and what a manager leaves
/// out that it applied before goes: so each applies the others' owners along with its own. An owner that was written
/// otherwise is left as it is.
fn owners(wanted: &Value, live: Option<&Value>, marks: &Marks, manager: &str) -> Vec<Value> {
    let list = |object: &Value| object["metadata"]["ownerReferences"].as_array().cloned();
    let mut owners = list(wanted).unwrap_or_default();
    owners.retain(|owner| drift::removed_owner(owner).is_none());
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
    let mut owned = applied_part(live, wanted, manager);
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
    fn items_of_others_in_a_list_are_no_drift() {
        let entry = |manager: &str, operation: &str, names: &[&str]| {
            let items: serde_json::Map<String, Value> = names
                .iter()
                .map(|name| {
                    let key = format!("k:{}", json!({ "name": name }));
                    (key, json!({".": {}, "f:name": {}, "f:image": {}}))
                })
                .collect();
            json!({"manager": manager, "operation": operation,
                "fieldsV1": {"f:metadata": {"f:labels": {"f:x": {}}}, "f:spec": {"f:containers": items}}})
        };
        let object = |containers: Value, entries: Value| {
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a", "labels": {"x": "y"}, "managedFields": entries},
                "spec": {"containers": containers}})
        };
        let mut wanted = object(json!([{"name": "web", "image": "1"}]), Value::Null);
        wanted["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("managedFields");
        let item = |name: &str, image: &str| json!({"name": name, "image": image, "pullPolicy": "Always"});
        let ours = entry("work-agent", "Apply", &["web"]);
        for (containers, entries, expected) in [
            (json!([item("web", "1")]), json!([ours]), true),
            (
                json!([item("web", "1"), item("mesh", "1")]),
                json!([ours, entry("mesh", "Apply", &["mesh"])]),
                true,
            ),
            (
                json!([item("mesh", "1"), item("web", "1")]),
                json!([ours, entry("mesh", "Update", &["mesh"])]),
                true,
            ),
            // Another has our item now.
            (
                json!([item("web", "2"), item("mesh", "1")]),
                json!([
                    entry("work-agent", "Apply", &[]),
                    entry("mesh", "Update", &["web", "mesh"])
                ]),
                false,
            ),
            (
                json!([item("mesh", "1")]),
                json!([
                    entry("work-agent", "Apply", &[]),
                    entry("mesh", "Update", &["mesh"])
                ]),
                false,
            ),
            (
                json!([item("web", "1"), item("mesh", "1")]),
                json!([entry("another", "Apply", &["web", "mesh"])]),
                false,
            ),
        ] {
            let live = object(containers, entries);
            assert_eq!(
                stands(&live, &wanted, "work-agent", drift::covers),
                expected,
                "{live}"
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
