//! The strategies `Update` and `CreateOnly`: read what is there, decide, write with its resourceVersion.

use super::{Applier, CONFLICT_RETRIES, Came, Failure, Known, Look, Target};
use crate::work::contention::Verdict;
use crate::work::drift::{self, Decision, Doubt};
use crate::work::objects::{self, RequestError};
use muster_crds::work::v1::UpdateStrategyType;
use serde_json::Value;
use std::sync::Arc;

impl Applier {
    pub(super) async fn update(&self, target: &Target<'_>, look: &Look) -> Result<Came, Failure> {
        let create_only = target.strategy() == UpdateStrategyType::CreateOnly;
        let mut live = match self.known(target).await {
            Known::Object(object) => Some(object),
            Known::Absent => None,
            Known::Unknown => match self.last_seen(target) {
                None => self.fetch(target).await?,
                seen => seen,
            },
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let result = match &live {
                None => {
                    // It was there, and somebody deleted it.
                    let again = look.trusted && tries == 1;
                    if again && let Verdict::Wait(wait) = target.vanished() {
                        return Ok(Came::Contended(None, wait));
                    }
                    let object = drift::created(&target.required, &target.marks);
                    let made = objects::create(&target.writer, &target.collection, &object).await;
                    if again && made.is_err() {
                        target.fight().not_made();
                    }
                    made
                }
                Some(object) => {
                    match self.hands_off(target, object).await {
                        Ok(None) => {}
                        Ok(Some(came)) => return Ok(came),
                        Err(Failure::Request(error))
                            if tries < CONFLICT_RETRIES && (error.is_conflict() || error.is_not_found()) =>
                        {
                            live = self.fetch(target).await?;
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                    let decision = if create_only {
                        drift::decide_marks(object, &target.marks).map_or(Decision::Keep, Decision::Replace)
                    } else {
                        drift::decide(&target.required, object, &target.marks)
                    };
                    let other = match &decision {
                        Decision::ReplaceIfOther(new, doubt) => {
                            self.would_change(target, object, new, *doubt).await?
                        }
                        _ => true,
                    };
                    match decision {
                        Decision::Keep => return Ok(Came::Settled(live)),
                        Decision::ReplaceIfOther(..) if !other => return Ok(Came::Settled(live)),
                        Decision::Replace(new) | Decision::ReplaceIfOther(new, _) => {
                            if look.trusted
                                && tries == 1
                                && let Verdict::Wait(wait) = target.drifted(object, &new)
                            {
                                return Ok(Came::Contended(live, wait));
                            }
                            objects::replace(&target.writer, &target.path, &new).await
                        }
                        Decision::Recreate => {
                            let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
                            if target.is_rehearsal() {
                                let made = drift::created(&target.required, &target.marks);
                                return Ok(Came::Settled(Some(Arc::new(made))));
                            }
                            objects::delete(&target.writer, &target.path, uid).await?;
                            live = None;
                            continue;
                        }
                    }
                }
            };
            match result {
                Ok(object) => {
                    self.wrote(target, &object);
                    return Ok(Came::Settled(Some(Arc::new(object))));
                }
                Err(error) if tries >= CONFLICT_RETRIES => return Err(error.into()),
                Err(error) if error.is_conflict() || error.already_exists() => {
                    live = self.fetch(target).await?;
                }
                Err(error) if error.is_not_found() && live.is_some() => live = None,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether the object would be another one, by a dry run.
    pub(super) async fn would_change(
        &self,
        target: &Target<'_>,
        live: &Value,
        new: &Value,
        doubt: Doubt,
    ) -> Result<bool, RequestError> {
        match objects::replace(&target.writer.dry(), &target.path, new).await {
            Ok(made) => Ok(!drift::identical(&made, live)),
            // It has changed since: what is done next is found out by doing it.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(true),
            // Who can not try it can not tell: what the manifest says is there, and what is one with it stays.
            Err(error) if matches!(error.code(), 400 | 403 | 422) => {
                tracing::debug!(object = target.path, %error, "whether it was added to is not known");
                Ok(doubt == Doubt::Beside)
            }
            Err(error) => Err(error),
        }
    }
}
