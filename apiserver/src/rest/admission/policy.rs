//! ValidatingAdmissionPolicies and their bindings (KEP-3488).

use super::conditions::Verdict;
use super::definition::{self, Binding, Definition, list};
use super::seen::{Matched, Seen};
use crate::ApiError;
use crate::rest::subject;
use crate::schema::cel::free::{Evaluation, Expression, Gives, Needs, Scope};
use serde_json::{Value, json};

/// One check of a policy.
#[derive(Debug)]
struct Validation {
    expression: Expression,
    message: Option<String>,
    message_expression: Option<Expression>,
    reason: Option<String>,
}

/// A policy, compiled.
#[derive(Debug)]
pub struct Policy {
    /// What it has in common with others.
    pub definition: Definition,
    validations: Result<Vec<Validation>, String>,
}

impl Policy {
    /// Compiles a policy. What does not compile is said when the policy is to decide something.
    pub fn new(policy: &Value) -> Self {
        let definition = Definition::new(policy);
        let validations = definition.declared.clone().and_then(|()| {
            list(&policy["spec"], "validations")
                .map(|v| Validation::new(v, &definition.scope))
                .collect()
        });
        Self {
            definition,
            validations,
        }
    }

    /// What its expressions look at.
    pub fn needs(&self) -> Needs {
        let mut needs = self.definition.needs();
        for validation in self.validations.iter().flatten() {
            needs.add(validation.expression.needs());
            if let Some(message) = &validation.message_expression {
                needs.add(message.needs());
            }
        }
        needs
    }
}

impl Validation {
    fn new(validation: &Value, scope: &Scope) -> Result<Self, String> {
        let message = validation["messageExpression"]
            .as_str()
            .filter(|e| !e.trim().is_empty());
        Ok(Self {
            expression: scope.compile(validation["expression"].as_str().unwrap_or_default(), Gives::Bool)?,
            message: validation["message"]
                .as_str()
                .filter(|m| !m.is_empty())
                .map(|m| m.trim().to_owned()),
            message_expression: message.map(|m| scope.compile(m, Gives::Text)).transpose()?,
            reason: validation["reason"]
                .as_str()
                .filter(|r| !r.is_empty())
                .map(str::to_owned),
        })
    }

    /// Why it is not met, if it is not: message and reason.
    fn refusal(&self, evaluation: &Evaluation<'_>, ignore: bool) -> Option<Refusal> {
        match evaluation.check(&self.expression) {
            Ok(true) => None,
            Ok(false) => {
                let made = self
                    .message_expression
                    .as_ref()
                    .and_then(|m| evaluation.message(m));
                let written = || {
                    self.message
                        .clone()
                        .unwrap_or_else(|| format!("failed expression: {}", self.expression.text().trim()))
                };
                Some(Refusal {
                    message: made.unwrap_or_else(written),
                    reason: self.reason.clone(),
                    always: false,
                })
            }
            Err(_) if ignore => None,
            Err(why) => Some(Refusal::of(format!(
                "expression '{}' resulted in error: {why}",
                self.expression.text()
            ))),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    message: String,
    reason: Option<String>,
    /// It stands whatever the binding's actions are: nothing was looked at.
    always: bool,
}

impl Refusal {
    fn of(message: String) -> Self {
        Self {
            message,
            reason: None,
            always: false,
        }
    }
}

/// What one binding has to say.
fn refusals(seen: &Seen<'_>, matched: &Matched, policy: &Policy, binding: &Binding) -> Vec<Refusal> {
    let definition = &policy.definition;
    let failed = |why: String| {
        if definition.ignore {
            Vec::new()
        } else {
            vec![Refusal {
                always: true,
                ..Refusal::of(why)
            }]
        }
    };
    let validations = match &policy.validations {
        Ok(validations) => validations,
        Err(why) => return failed(format!("failed to configure policy: {why}")),
    };
    let params = match definition::params(seen, definition, binding) {
        Ok(params) => params,
        Err(why) => return failed(format!("failed to configure binding: {why}")),
    };
    let mut refusals = Vec::new();
    for params in params {
        match definition
            .conditions
            .verdict(seen, matched, Some(&params), definition.ignore)
        {
            Verdict::Match => {}
            Verdict::Skip => continue,
            Verdict::Error(why) => {
                refusals.push(Refusal::of(why));
                continue;
            }
        }
        let evaluation = definition.evaluation(seen, matched, &params);
        refusals.extend(
            validations
                .iter()
                .filter_map(|v| v.refusal(&evaluation, definition.ignore)),
        );
    }
    refusals
}

fn code(reason: &str) -> u16 {
    match reason {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    }
}

fn denied(seen: &Seen<'_>, policy: &Policy, binding: &Binding, refusal: &Refusal) -> ApiError {
    let message = format!(
        "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {}",
        policy.definition.name, binding.name, refusal.message
    );
    let reason = refusal.reason.as_deref().unwrap_or("Invalid");
    let mut status = ApiError::forbidden(subject(seen.review.resource, seen.review.name), &message).status();
    status["reason"] = reason.into();
    status["code"] = code(reason).into();
    status["details"]["causes"] = json!([{ "message": message }]);
    ApiError::Status(Box::new(status))
}

/// Holds every bound policy against a write; gives warnings.
pub fn validate(seen: &Seen<'_>, index: &super::hooks::Index) -> Result<Vec<String>, ApiError> {
    let mut warnings = Vec::new();
    let mut refused = None;
    for policy in index.policies.values() {
        let Some((matched, bound)) = policy.definition.bound(seen, &index.bindings) else {
            continue;
        };
        let name = &policy.definition.name;
        for binding in bound {
            for refusal in refusals(seen, &matched, policy, binding) {
                if binding.does("Warn") && !refusal.always {
                    warnings.push(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{}': {}",
                        binding.name, refusal.message
                    ));
                }
                if binding.does("Audit") {
                    tracing::info!(
                        policy = %name, binding = %binding.name, message = %refusal.message,
                        resource = %seen.review.resource.plural, namespace = %seen.review.namespace,
                        name = %seen.review.name, "a write does not meet an admission policy"
                    );
                }
                if (binding.does("Deny") || refusal.always) && refused.is_none() {
                    refused = Some(denied(seen, policy, binding, &refusal));
                }
            }
        }
    }
    refused.map_or(Ok(warnings), Err)
}
