//! The strategy `ServerSideApply` (wire §3.3).

use super::{Applier, Came, Failure, Known, Look, Target};
use crate::work::contention::Verdict;
use crate::work::policy::TakeOver;
use crate::work::{drift, objects};
use muster_crds::constants::labels;
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
            return Err(Failure::IgnoreFields(
                "ignoreFields of ServerSideApply is not supported by this klusterlet".into(),
            ));
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
        let path = format!(
            "{}?fieldManager={}&force={}",
            target.path, config.field_manager, config.force
        );
        let method = http::Method::PATCH;
        let live =
            objects::request(&target.writer, method, &path, objects::APPLY_PATCH, Some(&wanted)).await?;
        let live = Arc::new(live);
        if let Some(came) = self.hands_off(target, &live) {
            return Ok(came);
        }
        self.own(target, live).await
    }

    /// Several works may apply the same object as the same manager: owners are not part of what is applied.
    async fn own(&self, target: &Target<'_>, live: Arc<Value>) -> Result<Came, Failure> {
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
