//! Compiling the rules of a schema, and what is wrong with them as CRD validation says it.

use super::cost::{self, Total};
use super::infer::{Infer, Ty};
use super::nodes::{Nodes, Place};
use super::{Compiled, parse};
use crate::error::{FieldError, FieldErrorKind};
use crate::rest::go_json;
use crate::schema::Rule;
use kube::core::cel::cel::IdedExpr;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Compiles the rules of one node and reports what is wrong with them, as CRD validation does.
pub(super) struct Compiler {
    pub(super) errors: Vec<FieldError>,
    pub(super) programs: HashMap<String, Result<Arc<IdedExpr>, String>>,
    /// What the expressions cost, where that is asked for.
    pub(super) costs: Option<Total>,
}

impl Compiler {
    fn parse(&mut self, text: &str) -> Result<Arc<IdedExpr>, String> {
        self.programs
            .entry(text.to_owned())
            .or_insert_with(|| parse(text))
            .clone()
    }

    /// An expression that makes sense on values of node `id` and gives a `wanted`.
    fn expression(
        &mut self,
        nodes: &Nodes,
        id: u32,
        optional: bool,
        text: &str,
        wanted: &Ty,
    ) -> Result<Arc<IdedExpr>, String> {
        let parsed = self.parse(text).map_err(|e| format!("compilation failed: {e}"))?;
        let mut infer = Infer::new(nodes, id, optional, text, None);
        let info = infer.expression(&parsed);
        if !infer.errors.is_empty() {
            return Err(format!("compilation failed: {}", infer.errors.join("\n")));
        }
        let found = nodes.scalar(&info.ty);
        if found != Ty::Dyn && found != *wanted {
            return Err(if *wanted == Ty::Bool {
                "cel expression must evaluate to a bool".into()
            } else {
                "messageExpression must evaluate to a string".into()
            });
        }
        Ok(parsed)
    }

    fn count(&mut self, cost: impl FnOnce() -> u64, field: &str, what: &str) {
        if let Some(costs) = &mut self.costs {
            self.errors.extend(costs.add(cost(), field.to_owned(), what));
        }
    }

    pub(super) fn rules(
        &mut self,
        nodes: &Nodes,
        id: u32,
        rules: &[Rule],
        place: &Place<'_>,
    ) -> Vec<Compiled> {
        let mut compiled = Vec::new();
        for (i, source) in rules.iter().enumerate() {
            let at = format!("{}.x-kubernetes-validations[{i}]", place.path);
            if let Some(one) = self.rule(nodes, id, source, place, &at) {
                compiled.push(one);
            }
        }
        compiled
    }

    fn rule(
        &mut self,
        nodes: &Nodes,
        id: u32,
        source: &Rule,
        place: &Place<'_>,
        at: &str,
    ) -> Option<Compiled> {
        let invalid = |this: &mut Self, part: &str, shown: &str, detail: &str| {
            let message = format!("Invalid value: {shown}: {detail}");
            this.errors.push(FieldError::new(
                FieldErrorKind::Invalid,
                format!("{at}.{part}"),
                message,
            ));
        };
        if source.rule.trim().is_empty() {
            self.errors.push(FieldError::required(
                format!("{at}.rule"),
                "rule is not specified",
            ));
            return None;
        }
        if let Some(message) = source.message.as_ref().filter(|m| m.trim().is_empty()) {
            let detail = "must be non-empty if specified";
            invalid(self, "message", &format!("{message:?}"), detail);
        } else if let Some(message) = source.message.as_ref().filter(|m| m.contains(['\n', '\r'])) {
            invalid(
                self,
                "message",
                &format!("{message:?}"),
                "must not contain line breaks",
            );
        } else if source.message.is_none()
            && source.rule.trim().contains(['\n', '\r'])
            && source.message_expression.is_none()
        {
            let field = format!("{at}.message");
            self.errors.push(FieldError::required(
                field,
                "message must be specified if rule contains line breaks",
            ));
        }
        let reasons = [
            "FieldValueDuplicate",
            "FieldValueForbidden",
            "FieldValueInvalid",
            "FieldValueRequired",
        ];
        if let Some(reason) = source.reason.as_ref().filter(|r| !reasons.contains(&&***r)) {
            let field = format!("{at}.reason");
            self.errors
                .push(FieldError::not_supported(field, &(&**reason).into(), &reasons));
        }
        if let Some(path) = &source.field_path
            && let Err(detail) = nodes.field_path(id, path)
        {
            invalid(self, "fieldPath", &format!("{path:?}"), &detail);
        }
        let rule = self.expression(nodes, id, source.optional_old_self, &source.rule, &Ty::Bool);
        match &rule {
            Ok(rule) => {
                let times = place.count.unwrap_or_else(|| nodes.at(id).bound.in_a_request());
                let cost = || cost::of(nodes, id, source.optional_old_self, rule).saturating_mul(times);
                self.count(cost, &format!("{at}.rule"), "estimated rule cost");
            }
            Err(detail) => invalid(self, "rule", &go_shown(source), detail),
        }
        let blank = source
            .message_expression
            .as_ref()
            .is_some_and(|m| m.trim().is_empty());
        if blank {
            let detail = "messageExpression must be non-empty if specified";
            self.errors
                .push(FieldError::required(format!("{at}.messageExpression"), detail));
        }
        let message = source
            .message_expression
            .as_ref()
            .filter(|_| !blank)
            .map(|text| self.expression(nodes, id, source.optional_old_self, text, &Ty::String));
        match &message {
            Some(Ok(message)) => {
                let cost = || cost::of(nodes, id, source.optional_old_self, message);
                let field = format!("{at}.messageExpression");
                self.count(cost, &field, "estimated messageExpression cost");
            }
            Some(Err(detail)) => {
                let detail = detail.replace("compilation failed", "messageExpression compilation failed");
                invalid(self, "messageExpression", &go_shown(source), &detail);
            }
            None => {}
        }
        let rule = rule.ok()?;
        let uses_old = rule.references().has_variable("oldSelf");
        if uses_old {
            if let Some(list) = place.uncorrelated {
                let detail = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"
                );
                invalid(self, "rule", &format!("{:?}", source.rule), &detail);
                return None;
            }
        } else if source.optional_old_self {
            let detail = "may not be set if oldSelf is not used in rule";
            invalid(self, "optionalOldSelf", "true", detail);
        }
        Some(Compiled {
            source: source.clone(),
            rule,
            message: message.and_then(Result::ok),
            uses_old,
        })
    }
}

/// The rule as Go prints its struct, which is what CRD errors show.
fn go_shown(rule: &Rule) -> String {
    let quoted = |text: &str| go_json::text(&Value::from(text));
    let part = |text: &Option<Box<str>>| quoted(text.as_deref().unwrap_or_default());
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        quoted(&rule.rule),
        part(&rule.message),
        part(&rule.message_expression),
        rule.reason.as_deref().map_or_else(|| "null".into(), quoted),
        part(&rule.field_path),
        if rule.optional_old_self { "true" } else { "null" },
    )
}
