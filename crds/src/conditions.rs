//! Conditions that keep their history: `lastTransitionTime` moves only when `status` does, and an unchanged
//! condition is no change to write.

use jiff::{Timestamp, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Whether a condition holds, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody knows.
    Unknown,
}

impl Status {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition as a decision makes it: all but the time, which `set_condition` knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCondition {
    /// Its type.
    pub type_: String,
    /// Whether it holds.
    pub status: Status,
    /// Why, in CamelCase; never empty.
    pub reason: String,
    /// Details for people.
    pub message: String,
    /// The generation it speaks of.
    pub observed_generation: Option<i64>,
}

impl NewCondition {
    /// A condition that speaks of no generation.
    pub fn new(
        type_: impl Into<String>,
        status: impl Into<Status>,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            observed_generation: None,
        }
    }

    /// The same, speaking of `generation` (an object's `metadata.generation`).
    #[must_use]
    pub fn observed(mut self, generation: Option<i64>) -> Self {
        self.observed_generation = generation;
        self
    }
}

/// Longest message the API takes, in characters (metav1.Condition).
const MAX_MESSAGE: usize = 32_768;

/// Sets the condition of `new`'s type. Its `lastTransitionTime` becomes `now` when the condition is new or its
/// status changed and stays otherwise. A message longer than the API takes is cut. Returns whether anything changed.
pub fn set_condition(conditions: &mut Vec<Condition>, new: NewCondition, now: Timestamp) -> bool {
    let mut message = new.message;
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
    }
    let mut next = Condition {
        type_: new.type_,
        status: new.status.as_str().to_owned(),
        reason: new.reason,
        message,
        observed_generation: new.observed_generation,
        last_transition_time: now_in_seconds(now),
    };
    match conditions
        .iter_mut()
        .find(|condition| condition.type_ == next.type_)
    {
        None => {
            conditions.push(next);
            true
        }
        Some(current) => {
            if current.status == next.status {
                next.last_transition_time = current.last_transition_time.clone();
            }
            let changed = *current != next;
            if changed {
                *current = next;
            }
            changed
        }
    }
}

/// `now` as the wire carries it, so that what is kept in memory equals what comes back from the server.
fn now_in_seconds(now: Timestamp) -> Time {
    use jiff::{RoundMode, TimestampRound};
    Time(
        now.round(
            TimestampRound::new()
                .smallest(Unit::Second)
                .mode(RoundMode::Floor),
        )
        .unwrap_or(now),
    )
}

/// The condition of that type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition is there and True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// Whether the condition is there and False.
pub fn is_false(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "False")
}

/// Whether the condition is absent or neither True nor False.
pub fn is_unknown(conditions: &[Condition], type_: &str) -> bool {
    !is_true(conditions, type_) && !is_false(conditions, type_)
}

/// Removes the condition; returns whether it was there.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.type_ != type_);
    conditions.len() != before
}
