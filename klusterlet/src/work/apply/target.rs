//! What is to be brought about of one manifest, and how its outcome is told.

use super::{Came, Outcome, Retry};
use crate::limits::Server;
use crate::work::contention::{self, Contention, Drifted, Verdict};
use crate::work::difference::{self, Difference};
use crate::work::drift::Marks;
use crate::work::feedback::{self, RawLimit};
use crate::work::objects::{RequestError, Served};
use crate::work::policy::{Drift, Policy};
use crate::work::settings::Settings;
use crate::work::state::ObjectKey;
use crate::work::status::{self, Applied, Availability, Report};
use crate::work::{bounded, health, rules};
use muster_crds::conditions::NewCondition;
use muster_crds::constants::{conditions as types, reasons};
use muster_crds::work::v1::{ManifestResourceMeta, UpdateStrategyType};
use muster_observe::prometheus_client::metrics::counter::Counter;
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// One manifest on its way.
pub struct Target<'a> {
    pub path: String,
    pub collection: String,
    pub required: Value,
    pub marks: Marks,
    pub owns: bool,
    pub settings: Settings<'a>,
    pub key: ObjectKey,
    /// Other works that have the object.
    pub rivals: Vec<String>,
    pub served: Arc<Served>,
    /// Writes are made with it: the agent's client, or the executor's.
    pub writer: Server,
    /// Everything else is asked with it.
    pub spoke: Server,
    /// The executor may not see the object: nothing of it is told.
    pub blind: bool,
    pub policy: Policy,
    pub raw: RawLimit,
    pub contention: Mutex<Contention>,
    /// Counts repairs.
    pub repairs: Counter,
    pub meta: ManifestResourceMeta,
}

impl Target<'_> {
    pub fn strategy(&self) -> UpdateStrategyType {
        self.settings
            .strategy
            .map_or(UpdateStrategyType::Update, |s| s.type_)
    }

    /// Whether nothing is written for real.
    pub fn is_rehearsal(&self) -> bool {
        self.writer.is_dry()
    }

    pub fn fight(&self) -> MutexGuard<'_, Contention> {
        self.contention.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object that was settled differs: is it taken back now?
    pub fn drifted(&self, live: &Value, wanted: &Value) -> Verdict {
        let found = difference::differences(live, wanted);
        let writers = contention::writers(live, &found, &self.rivals);
        let writers = if writers.is_empty() {
            "another writer".to_owned()
        } else {
            writers.join(", ")
        };
        let fields = if found.is_empty() {
            "its metadata, or what is in a list".to_owned()
        } else {
            difference::fields(&found)
        };
        self.fought(Drifted::Changed, format!("{writers} keeps changing {fields}"))
    }

    /// An object that was there is gone: is it made again now?
    pub fn vanished(&self) -> Verdict {
        let told = "another writer keeps deleting the object".to_owned();
        self.fought(Drifted::Deleted, told)
    }

    fn fought(&self, how: Drifted, told: String) -> Verdict {
        tracing::debug!(object = self.path, %told, "drift");
        let verdict = self.fight().drifted(Instant::now(), how, told);
        if verdict == Verdict::Repair {
            self.repairs.inc();
        }
        verdict
    }

    pub async fn outcome(&self, came: Came) -> Outcome {
        let no = |reason, message: String| Applied::No { reason, message };
        match came {
            Came::Settled(live) => {
                let look = self.fight().calm(Instant::now());
                let mut outcome = self
                    .outcome_as(Applied::Yes, live, look.map_or(Retry::No, Retry::After))
                    .await;
                if self.policy.drift == Drift::Report {
                    outcome.report.set(drift_condition(&[]));
                }
                outcome
            }
            Came::Seen(live) => self.outcome_as(Applied::Kept, live, Retry::No).await,
            Came::Reported(live, found) => {
                let mut outcome = self.outcome_as(Applied::Yes, live, Retry::No).await;
                outcome.report.set(drift_condition(&found));
                outcome
            }
            Came::Terminating(live) => {
                let message = "the object is being deleted; it is made again once it is gone".to_owned();
                self.outcome_as(no(reasons::TERMINATING, message), Some(live), Retry::No)
                    .await
            }
            Came::NotTakenOver(live, why) => {
                self.outcome_as(no(reasons::NOT_TAKEN_OVER, why), Some(live), Retry::No)
                    .await
            }
            Came::Contended(live, wait) => {
                let told = self.fight().told().map(str::to_owned);
                let applied = match (&live, &told) {
                    (None, Some(told)) => no(reasons::CONTENDED, told.clone()),
                    _ => Applied::Yes,
                };
                let mut outcome = self.outcome_as(applied, live, Retry::After(wait)).await;
                // It is not what it should be, and will not be for a while.
                if let Some(told) = told {
                    let condition = NewCondition::new(types::PROGRESSING, true, reasons::CONTENDED, told);
                    outcome.report.set(condition);
                }
                outcome
            }
        }
    }

    pub async fn outcome_as(&self, applied: Applied, live: Option<Arc<Value>>, retry: Retry) -> Outcome {
        let mut report = Report {
            meta: self.meta.clone(),
            applied,
            availability: if live.is_some() {
                Availability::Exists
            } else {
                Availability::Missing
            },
            feedback: None,
            conditions: Vec::new(),
        };
        if self.blind && live.is_some() && !self.settings.feedback.is_empty() {
            let errors = vec!["the executor may not get the object".to_owned()];
            let values = Vec::new();
            report.feedback = Some(feedback::Feedback { values, errors });
        }
        if let Some(live) = live.as_ref().filter(|_| !self.blind) {
            if !self.settings.feedback.is_empty() {
                report.feedback = Some(feedback::evaluate(self.settings.feedback, live, self.raw));
            }
            report.conditions = rules::evaluate(self.settings.conditions, live).await;
            report.derive(status::health_conditions(health::derive(live)));
        }
        let late = |c: &NewCondition| c.message == rules::OVER_BUDGET;
        let retry = match retry {
            // It may have been a busy moment.
            Retry::No if report.conditions.iter().any(late) => Retry::After(bounded::PENALTY),
            other => other,
        };
        let contention = self.fight().clone();
        if let Some(told) = contention.told() {
            report.set(NewCondition::new(types::DEGRADED, true, reasons::CONTENDED, told));
        }
        let text = |field: &str| {
            live.as_ref()
                .and_then(|l| l["metadata"][field].as_str())
                .map(str::to_owned)
        };
        Outcome {
            report,
            key: Some(self.key.clone()),
            served: Some(self.served.clone()),
            uid: text("uid").unwrap_or_default(),
            settled: text("resourceVersion"),
            retry,
            contention,
            blind: self.blind,
        }
    }

    /// What there is could not be read either.
    pub fn unread(&self, applied: Applied, error: &RequestError, retry: Retry) -> Outcome {
        Outcome {
            report: Report {
                meta: self.meta.clone(),
                applied,
                availability: Availability::Unknown {
                    reason: reasons::FETCHING_RESOURCE_FAILED,
                    message: error.to_string(),
                },
                feedback: None,
                conditions: Vec::new(),
            },
            key: Some(self.key.clone()),
            served: Some(self.served.clone()),
            uid: String::new(),
            settled: None,
            retry,
            contention: self.fight().clone(),
            blind: self.blind,
        }
    }
}

fn drift_condition(found: &[Difference]) -> NewCondition {
    if found.is_empty() {
        NewCondition::new(
            types::DRIFTED,
            false,
            reasons::IN_SYNC,
            "Nothing differs from the manifest",
        )
    } else {
        NewCondition::new(types::DRIFTED, true, reasons::DRIFTED, difference::told(found))
    }
}

/// A manifest that does not even name an object.
pub fn unusable(meta: ManifestResourceMeta, message: String, retry: Retry) -> Outcome {
    let report = Report {
        meta,
        applied: Applied::No {
            reason: reasons::APPLIED_MANIFEST_FAILED,
            message: message.clone(),
        },
        availability: Availability::Unknown {
            reason: reasons::INCOMPLETE_RESOURCE_META,
            message,
        },
        feedback: None,
        conditions: Vec::new(),
    };
    Outcome {
        report,
        key: None,
        served: None,
        uid: String::new(),
        settled: None,
        retry,
        contention: Contention::default(),
        blind: false,
    }
}
