//! The strategy `ServerSideApply` (wire §3.3).

use super::{Applier, Came, Failure, Known, Look, Target};
use crate::work::contention::Verdict;
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
            Known::Absent | Known::Unknown if target.policy.take_over != TakeOver::Always => {
                self.fetch(target).await?
            }
            Known::Absent | Known::Unknown => None,
        };
        if let Some(live) = &live {
            if let Some(came) = self.hands_off(target, live) {
                return Ok(came);
            }
            if look.trusted && applied_by(live, &config.field_manager) {
                if drift::covers(live, &wanted) {
                    return self.own(target, live.clone()).await;
                }
                if let Verdict::Wait(wait) = target.drifted(live, &drift::overlaid(live, &wanted)) {
                    return Ok(Came::Contended(live.clone(), wait));
                }
            }
        }
        self.send(target, &config, &wanted).await
    }

    async fn send(
        &self,
        target: &Target<'_>,
        config: &ServerSideApplyConfig,
        wanted: &Value,
    ) -> Result<Came, Failure> {
        let path = format!(
            "{}?fieldManager={}&force={}",
            target.path, config.field_manager, config.force
        );
        let method = http::Method::PATCH;
        let live =
            objects::request(&target.writer, method, &path, objects::APPLY_PATCH, Some(wanted)).await?;
        let live = Arc::new(live);
        if let Some(came) = self.hands_off(target, &live) {
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
        let Some(live) = self.observe(target).await? else {
            return self.send(target, config, &marked(target.required.clone())).await;
        };
        if let Some(came) = self.hands_off(target, &live) {
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
                return Ok(Came::Contended(live, wait));
            }
            (bare, &[OnSpokePresent, OnSpokeChange])
        } else {
            (marked(reduced), &[OnSpokePresent])
        };
        // Ignored fields that are still ours from when we made the object stay as they are now.
        let ours = ignore::owned(&live, &config.field_manager);
        if let Ok(kept) = ignored(&ours, left).await {
            ignore::graft(&mut wanted, &ours, &kept);
        }
        self.send(target, config, &wanted).await
    }

    /// Several works may apply the same object as the same manager: owners are not part of what is applied.
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

fn applied_by(live: &Value, manager: &str) -> bool {
    live["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|e| e["manager"] == manager && e["operation"] == "Apply")
}
