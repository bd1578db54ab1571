//! `matchConditions` of webhooks and policies: all must hold for it to be asked at all.

use super::seen::{Matched, Seen};
use crate::schema::cel::free::{Converted, Evaluation, Expression, Gives, Needs, Scope};
use serde_json::Value;

/// Compiled conditions, or what is wrong with one.
#[derive(Debug)]
pub struct Conditions {
    scope: Scope,
    compiled: Result<Vec<Expression>, String>,
}

/// What the conditions say.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All hold.
    Match,
    /// One does not, or the failure policy says to pass over one that cannot be told.
    Skip,
    /// One cannot be told, and that refuses the write.
    Error(String),
}

/// Names every condition may use.
pub const NAMES: [&str; 5] = ["object", "oldObject", "request", "authorizer", "namespaceObject"];

impl Conditions {
    /// Compiles the `matchConditions` of a webhook or policy.
    pub fn new(of: &Value, scope: Scope) -> Self {
        let list = of["matchConditions"].as_array().into_iter().flatten();
        let compiled = list.map(|c| {
            let text = c["expression"].as_str().unwrap_or_default();
            scope.compile(text, Gives::Bool)
        });
        let compiled = compiled.collect();
        Self { scope, compiled }
    }

    /// What they look at.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        for condition in self.compiled.iter().flatten() {
            needs.add(condition.needs());
        }
        needs
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.compiled.as_ref().is_ok_and(Vec::is_empty)
    }

    /// Holds them against a write. `params` is given where the scope knows them.
    pub fn verdict(
        &self,
        seen: &Seen<'_>,
        matched: &Matched,
        params: Option<&Value>,
        ignore: bool,
    ) -> Verdict {
        if self.is_empty() {
            return Verdict::Match;
        }
        let failed = |why: String| {
            if ignore {
                Verdict::Skip
            } else {
                Verdict::Error(why)
            }
        };
        let compiled = match &self.compiled {
            Ok(compiled) => compiled,
            Err(why) => return failed(why.clone()),
        };
        let evaluation = evaluation(&self.scope, seen, matched, params);
        let mut error = None;
        // One that does not hold decides, also after one that could not be told.
        for condition in compiled {
            match evaluation.check(condition) {
                Ok(true) => {}
                Ok(false) => return Verdict::Skip,
                Err(why) => {
                    error.get_or_insert(format!(
                        "expression '{}' resulted in error: {why}",
                        condition.text()
                    ));
                }
            }
        }
        error.map_or(Verdict::Match, failed)
    }
}

/// An evaluation of expressions about a write.
pub fn evaluation<'s>(
    scope: &'s Scope,
    seen: &'s Seen<'_>,
    matched: &Matched,
    params: Option<&Value>,
) -> Evaluation<'s> {
    let mut evaluation = if let Some(given) = seen.given(matched) {
        Evaluation::over(scope, given)
    } else {
        let mut evaluation = Evaluation::new(scope);
        seen.give(matched, evaluation.given());
        evaluation
    };
    // Which namespace it is is known where more than conditions is evaluated.
    evaluation
        .given()
        .give("namespaceObject", Converted::of(&Value::Null));
    if let Some(params) = params {
        evaluation.given().give("params", Converted::of(params));
    }
    evaluation
}
