//! ValidatingAdmissionPolicies and their bindings (KEP-3488).

use super::conditions::{self, Conditions, Verdict};
use super::seen::{Matched, Seen};
use crate::ApiError;
use crate::object;
use crate::registry::split_api_version;
use crate::registry::strategy::selector;
use crate::rest::subject;
use crate::schema::cel::free::{Evaluation, Expression, Gives, Needs, Scope};
use crate::store::{Key, Range};
use serde_json::{Value, json};
use std::sync::Arc;

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
    name: String,
    /// uid and generation: the same specification has both the same.
    version: (String, Option<i64>),
    constraints: Value,
    ignore: bool,
    param_kind: Option<(String, String)>,
    conditions: Conditions,
    scope: Scope,
    validations: Result<Vec<Validation>, String>,
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn version(policy: &Value) -> (String, Option<i64>) {
    let generation = policy["metadata"]["generation"].as_i64();
    (object::uid(policy).to_owned(), generation)
}

/// Names of a policy's expressions, and of its match conditions, which come before variables and namespace.
fn scopes(spec: &Value) -> (Scope, Scope) {
    let mut names = conditions::NAMES.to_vec();
    if !spec["paramKind"].is_null() {
        names.push("params");
    }
    let before = Scope::new(&names);
    names.push("namespaceObject");
    (before, Scope::new(&names))
}

/// What is wrong with the expressions of a policy: field, expression and what to say about it.
pub fn problems(spec: &Value) -> Vec<(String, String, String)> {
    let mut problems = Vec::new();
    let (before, mut scope) = scopes(spec);
    for (i, variable) in list(spec, "variables").enumerate() {
        let expression = text(variable, "expression");
        if let Err(why) = scope.declare(&text(variable, "name"), &expression) {
            problems.push((format!("spec.variables[{i}].expression"), expression, why));
        }
    }
    let mut check = |scope: &Scope, field: String, value: &Value, gives| {
        let Some(expression) = value.as_str().filter(|e| !e.trim().is_empty()) else {
            return;
        };
        if let Err(why) = scope.compile(expression, gives) {
            problems.push((field, expression.to_owned(), why));
        }
    };
    for (i, validation) in list(spec, "validations").enumerate() {
        let at = format!("spec.validations[{i}]");
        check(
            &scope,
            format!("{at}.expression"),
            &validation["expression"],
            Gives::Bool,
        );
        let message = &validation["messageExpression"];
        check(&scope, format!("{at}.messageExpression"), message, Gives::Text);
    }
    for (i, annotation) in list(spec, "auditAnnotations").enumerate() {
        let field = format!("spec.auditAnnotations[{i}].valueExpression");
        check(&scope, field, &annotation["valueExpression"], Gives::TextOrNull);
    }
    for (i, condition) in list(spec, "matchConditions").enumerate() {
        let field = format!("spec.matchConditions[{i}].expression");
        check(&before, field, &condition["expression"], Gives::Bool);
    }
    problems
}

impl Policy {
    /// Compiles a policy. What does not compile is said when the policy is to decide something.
    pub fn new(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let (before, mut scope) = scopes(spec);
        let declared = list(spec, "variables")
            .try_for_each(|v| scope.declare(&text(v, "name"), v["expression"].as_str().unwrap_or_default()));
        let validations = declared.and_then(|()| {
            list(spec, "validations")
                .map(|v| Validation::new(v, &scope))
                .collect()
        });
        let param_kind = &spec["paramKind"];
        Self {
            name: object::name(policy).to_owned(),
            version: version(policy),
            constraints: spec["matchConstraints"].clone(),
            ignore: spec["failurePolicy"] == "Ignore",
            param_kind: (!param_kind.is_null())
                .then(|| (text(param_kind, "apiVersion"), text(param_kind, "kind"))),
            conditions: Conditions::new(spec, before),
            scope,
            validations,
        }
    }

    /// What its expressions look at.
    pub fn needs(&self) -> Needs {
        let mut needs = self.conditions.needs();
        needs.add(&self.scope.needs());
        for validation in self.validations.iter().flatten() {
            needs.add(validation.expression.needs());
            if let Some(message) = &validation.message_expression {
                needs.add(message.needs());
            }
        }
        needs
    }

    /// Whether this was made of that object, as far as its specification goes.
    pub fn is_of(&self, policy: &Value) -> bool {
        self.version == version(policy)
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

/// A binding.
#[derive(Debug)]
pub struct Binding {
    name: String,
    policy: String,
    resources: Value,
    actions: Vec<String>,
    param_ref: Value,
}

impl Binding {
    /// Reads a binding.
    pub fn new(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let actions = list(spec, "validationActions").filter_map(Value::as_str);
        Self {
            name: object::name(binding).to_owned(),
            policy: text(spec, "policyName"),
            resources: spec["matchResources"].clone(),
            actions: actions.map(str::to_owned).collect(),
            param_ref: spec["paramRef"].clone(),
        }
    }

    fn does(&self, action: &str) -> bool {
        self.actions.iter().any(|a| a == action)
    }
}

/// The version in which `constraints` of a policy or binding want a write. Constraints without rules want all.
fn wanted(seen: &Seen<'_>, constraints: &Value) -> Option<Matched> {
    if seen
        .matched(&constraints["excludeResourceRules"], &constraints["matchPolicy"])
        .is_some()
    {
        return None;
    }
    let matched = match &constraints["resourceRules"] {
        Value::Array(rules) if !rules.is_empty() => {
            seen.matched(&constraints["resourceRules"], &constraints["matchPolicy"])?
        }
        _ => seen.own(),
    };
    seen.selected(constraints).then_some(matched)
}

/// The parameters a binding names: one `null` where the policy takes none.
fn params(seen: &Seen<'_>, policy: &Policy, binding: &Binding) -> Result<Vec<Value>, String> {
    let Some((api_version, kind)) = &policy.param_kind else {
        return Ok(vec![Value::Null]);
    };
    let reference = &binding.param_ref;
    if reference.is_null() {
        return Ok(vec![Value::Null]);
    }
    let (group, version) = split_api_version(api_version);
    let resource = seen.api.registry.by_kind(group, version, kind).ok_or_else(|| {
        format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'")
    })?;
    let mut namespace = text(reference, "namespace");
    if resource.namespaced && namespace.is_empty() {
        seen.review.namespace.clone_into(&mut namespace);
        if namespace.is_empty() {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .into(),
            );
        }
    }
    if !resource.namespaced && !namespace.is_empty() {
        return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
    }
    let name = text(reference, "name");
    let found = if name.is_empty() {
        let range = Range {
            resource: resource.storage.to_string(),
            namespace: resource.namespaced.then_some(namespace),
            ..Range::default()
        };
        let page = seen.api.store.list(&range).map_err(|e| e.to_string())?;
        let all = page.entries.iter().map(|e| e.value());
        all.filter(|p| selector::matches(&reference["selector"], &p["metadata"]["labels"]))
            .collect()
    } else {
        let key = Key::new(Arc::clone(&resource.storage), namespace, name);
        seen.api
            .store
            .get(&key)
            .map(|e| vec![e.value()])
            .unwrap_or_default()
    };
    if found.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found
        .into_iter()
        .map(|p| crate::registry::convert::from_storage(&resource, p))
        .collect())
}

/// What one binding has to say.
fn refusals(seen: &Seen<'_>, matched: &Matched, policy: &Policy, binding: &Binding) -> Vec<Refusal> {
    let failed = |why: String| {
        if policy.ignore {
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
    let params = match params(seen, policy, binding) {
        Ok(params) => params,
        Err(why) => return failed(format!("failed to configure binding: {why}")),
    };
    let mut refusals = Vec::new();
    for params in params {
        match policy
            .conditions
            .verdict(seen, matched, Some(&params), policy.ignore)
        {
            Verdict::Match => {}
            Verdict::Skip => continue,
            Verdict::Error(why) => {
                refusals.push(Refusal::of(why));
                continue;
            }
        }
        let mut evaluation = conditions::evaluation(&policy.scope, seen, matched, Some(&params));
        evaluation
            .given()
            .give("namespaceObject", seen.namespace_object());
        refusals.extend(
            validations
                .iter()
                .filter_map(|v| v.refusal(&evaluation, policy.ignore)),
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
        policy.name, binding.name, refusal.message
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
        let bound = index.bindings.values().filter(|b| b.policy == policy.name);
        let mut bound = bound.peekable();
        if bound.peek().is_none() {
            continue;
        }
        let Some(matched) = wanted(seen, &policy.constraints) else {
            continue;
        };
        for binding in bound {
            if !binding.resources.is_null() && wanted(seen, &binding.resources).is_none() {
                continue;
            }
            for refusal in refusals(seen, &matched, policy, binding) {
                if binding.does("Warn") && !refusal.always {
                    warnings.push(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, refusal.message
                    ));
                }
                if binding.does("Audit") {
                    tracing::info!(
                        policy = %policy.name, binding = %binding.name, message = %refusal.message,
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
