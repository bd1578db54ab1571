//! Conditions that a work's rules derive from an object (wire §3.5): what is known of a kind, or CEL.
//!
//! Whatever is wrong with a rule becomes its condition, so that it is seen where the rule was written and harms nothing
//! else. The cost of an expression is bounded before it runs (its length; `cost`: what it can make of this object) and while it
//! runs (`bounded`).

mod cost;
mod equality;
mod functions;
mod optional;

use super::bounded;
use kube::core::cel::KubeCelExt as _;
use kube::core::cel::cel::objects::{Key, Map};
use kube::core::cel::cel::parser::{Expression, Parser};
use kube::core::cel::cel::{Context, Value as Cel};
use muster_crds::conditions::{NewCondition, Status};
use muster_crds::constants::{conditions as types, reasons};
use muster_crds::work::v1::{ConditionRule, ConditionRuleType};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Longest expression, in bytes.
const MAX_EXPRESSION: usize = 16 << 10;
/// Signs in one expression that may each make it one level deeper: the stack must hold them all.
const MAX_DEEPENING: usize = 600;
/// Longest message, in characters; a condition could hold more, but a work has many.
const MAX_MESSAGE: usize = 1024;
/// Compiled programs kept; all are dropped when there are more.
const MAX_PROGRAMS: usize = 512;
/// What an expression that costs too much is told by.
pub const OVER_BUDGET: &str = "CEL evaluation budget exceeded";

type Programs = HashMap<String, Arc<Expression>>;
static PROGRAMS: LazyLock<Mutex<Programs>> = LazyLock::new(Mutex::default);

/// The conditions that the rules give for an object, in their order, one of a type.
pub async fn evaluate(rules: &[ConditionRule], object: &Arc<Value>) -> Vec<NewCondition> {
    if rules.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<NewCondition> = Vec::new();
    for condition in evaluate_all(rules, object).await {
        let condition = match unusable(&condition.type_) {
            Some(why) => {
                let told = format!("the condition rule {:?} has no effect: {why}", condition.type_);
                NewCondition::new(
                    types::DEGRADED,
                    true,
                    reasons::CONDITION_RULE_INVALID,
                    shortened(&told),
                )
            }
            None => condition,
        };
        found.retain(|c| c.type_ != condition.type_);
        found.push(condition);
    }
    found
}

/// Why no rule can give a condition of this type. The API server would refuse the whole status.
fn unusable(type_: &str) -> Option<&'static str> {
    let ours = [
        types::APPLIED,
        types::STATUS_FEEDBACK_SYNCED,
        types::DELETING,
        types::REMOVAL_HELD,
        types::DRY_RUN,
    ];
    let part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_name =
        |name: &str| name.chars().all(part) && ends(name.chars().next()) && ends(name.chars().next_back());
    let is_domain = |domain: &str| {
        let label = |l: &str| is_name(l) && !l.contains('_') && l == l.to_ascii_lowercase();
        domain.split('.').all(label)
    };
    if ours.contains(&type_) {
        return Some("the agent says it itself");
    }
    let valid = match type_.split_once('/') {
        Some((domain, name)) => is_domain(domain) && is_name(name),
        None => is_name(type_),
    };
    (!valid || type_.len() > 316).then_some("it is no type of a condition")
}

async fn evaluate_all(rules: &[ConditionRule], object: &Arc<Value>) -> Vec<NewCondition> {
    let cel = |r: &ConditionRule| r.type_ == ConditionRuleType::Cel || !r.message_expression.is_empty();
    if !rules.iter().any(cel) {
        return evaluate_here(rules, object);
    }
    let texts: Vec<_> = rules
        .iter()
        .map(|r| (r.cel_expressions.clone(), r.message_expression.clone()))
        .collect();
    let (owned, object) = (rules.to_vec(), object.clone());
    match bounded::run(&texts, move || evaluate_here(&owned, &object)).await {
        Ok(found) => found,
        Err(bounded::RanAway) => rules
            .iter()
            .map(|r| failed(&r.condition, Problem::Expression(OVER_BUDGET.into())))
            .collect(),
    }
}

/// What is wrong with a rule.
#[derive(Debug)]
enum Problem {
    /// It does not compile, fails, or gives the wrong type.
    Expression(String),
    /// It could not be run.
    Internal(String),
}

fn evaluate_here(rules: &[ConditionRule], object: &Value) -> Vec<NewCondition> {
    let mut known = None;
    rules
        .iter()
        .filter_map(|rule| match rule.type_ {
            ConditionRuleType::WellKnownConditions => {
                let (holds, message) = well_known(&rule.condition, object)?;
                Some(condition(rule, holds, message, || {
                    object_in_cel(&mut known, object)
                }))
            }
            ConditionRuleType::Cel => {
                let cel = object_in_cel(&mut known, object);
                let result = all_true(&rule.cel_expressions, &cel);
                Some(match result {
                    Ok(holds) => {
                        let not = if holds { "" } else { "not " };
                        let message = format!("Manifest is {not}{}", rule.condition);
                        condition(rule, holds, message, || cel)
                    }
                    Err(problem) => failed(&rule.condition, problem),
                })
            }
        })
        .collect()
}

fn object_in_cel(known: &mut Option<Cel>, object: &Value) -> Cel {
    known.get_or_insert_with(|| to_cel(object)).clone()
}

/// `Complete` of what runs to an end; other kinds and conditions have nothing known of them.
fn well_known(condition: &str, object: &Value) -> Option<(bool, String)> {
    if condition != types::COMPLETE {
        return None;
    }
    match (object["apiVersion"].as_str()?, object["kind"].as_str()?) {
        ("batch/v1", "Job") => {
            let finished = |c: &Value| {
                matches!(c["type"].as_str(), Some("Complete" | "Failed")) && c["status"] == "True"
            };
            let list = object["status"]["conditions"].as_array();
            let done = list.is_some_and(|l| l.iter().any(finished));
            Some((
                done,
                if done {
                    "Job is finished"
                } else {
                    "Job is not finished"
                }
                .to_owned(),
            ))
        }
        ("v1", "Pod") => {
            let phase = object["status"]["phase"].as_str().unwrap_or_default();
            let done = matches!(phase, "Succeeded" | "Failed");
            Some((done, format!("Pod is in phase {phase}")))
        }
        _ => None,
    }
}

fn condition(
    rule: &ConditionRule,
    holds: bool,
    default: String,
    object: impl FnOnce() -> Cel,
) -> NewCondition {
    let message = if !rule.message_expression.is_empty() {
        // What is wrong with the message changes nothing about what it is the message of.
        match message(&rule.message_expression, object(), holds) {
            Ok(message) | Err(Problem::Expression(message) | Problem::Internal(message)) => message,
        }
    } else if !rule.message.is_empty() {
        rule.message.clone()
    } else {
        default
    };
    let reason = reasons::CONDITION_RULE_EVALUATED;
    NewCondition::new(rule.condition.as_str(), holds, reason, shortened(&message))
}

fn failed(condition: &str, problem: Problem) -> NewCondition {
    let (status, reason, message) = match problem {
        Problem::Expression(m) => (Status::False, reasons::CONDITION_RULE_EXPRESSION_ERROR, m),
        Problem::Internal(m) => (Status::Unknown, reasons::CONDITION_RULE_INTERNAL_ERROR, m),
    };
    NewCondition::new(condition, status, reason, shortened(&message))
}

fn shortened(message: &str) -> String {
    message.chars().take(MAX_MESSAGE).collect()
}

fn all_true(expressions: &[String], object: &Cel) -> Result<bool, Problem> {
    if expressions.is_empty() {
        return Err(Problem::Expression("the rule has no celExpressions".into()));
    }
    let mut context = context();
    context.add_variable_from_value("object", object.clone());
    for expression in expressions {
        let program = program(expression)?;
        if !cost::is_affordable(&program, &[("object", object)]) {
            return Err(Problem::Expression(OVER_BUDGET.into()));
        }
        match Cel::resolve(&program, &context) {
            Ok(Cel::Bool(true)) => {}
            Ok(Cel::Bool(false)) => return Ok(false),
            Ok(other) => {
                return Err(Problem::Expression(format!(
                    "the expression {expression:?} gives {}, not a bool",
                    other.type_of()
                )));
            }
            Err(error) => {
                return Err(Problem::Expression(format!(
                    "the expression {expression:?} failed: {error}"
                )));
            }
        }
    }
    Ok(true)
}

fn message(expression: &str, object: Cel, holds: bool) -> Result<String, Problem> {
    let program = program(expression)?;
    if !cost::is_affordable(&program, &[("object", &object)]) {
        return Err(Problem::Expression(OVER_BUDGET.into()));
    }
    let mut context = context();
    context.add_variable_from_value("object", object);
    context.add_variable_from_value("result", Cel::Bool(holds));
    match Cel::resolve(&program, &context) {
        Ok(Cel::String(text)) => Ok(text.to_string()),
        Ok(other) => Err(Problem::Expression(format!(
            "the messageExpression {expression:?} gives {}, not a string",
            other.type_of()
        ))),
        Err(error) => Err(Problem::Expression(format!(
            "the messageExpression {expression:?} failed: {error}"
        ))),
    }
}

/// Kubernetes' libraries, and `hasConditions(status)`: whether a status has a list of conditions.
fn context() -> Context<'static> {
    let mut context = Context::default().with_all();
    context.add_function("hasConditions", has_conditions);
    functions::add(&mut context);
    context
}

#[allow(clippy::needless_pass_by_value)] // the engine's calling convention
fn has_conditions(status: Cel) -> bool {
    let Cel::Map(Map { map }) = status else {
        return false;
    };
    let key = Key::String(Arc::new("conditions".to_owned()));
    matches!(map.get(&key), Some(Cel::List(_)))
}

fn program(expression: &str) -> Result<Arc<Expression>, Problem> {
    if expression.len() > MAX_EXPRESSION {
        return Err(Problem::Expression(format!(
            "the expression has {} bytes, {MAX_EXPRESSION} are allowed",
            expression.len()
        )));
    }
    let deepening = expression
        .bytes()
        .filter(|b| b".[{(+-*/%&|?!<>=".contains(b))
        .count();
    if deepening > MAX_DEEPENING {
        return Err(Problem::Expression(format!(
            "the expression has {deepening} operators, {MAX_DEEPENING} are allowed"
        )));
    }
    let locked = || PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = locked().get(expression).cloned() {
        return Ok(known);
    }
    let compiled =
        std::panic::catch_unwind(|| Parser::default().enable_optional_syntax(true).parse(expression))
            .map_err(|_| Problem::Internal("the expression can not be compiled".into()))?
            .map_err(|e| {
                Problem::Expression(format!("the expression {expression:?} does not compile: {e}"))
            })?;
    let mut compiled = compiled;
    optional::steps(&mut compiled);
    let compiled = Arc::new(compiled);
    let mut programs = locked();
    if programs.len() >= MAX_PROGRAMS {
        programs.clear();
    }
    programs.insert(expression.to_owned(), compiled.clone());
    Ok(compiled)
}

/// JSON as CEL has it for Kubernetes: whole numbers are ints, never uints.
fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(b) => Cel::Bool(*b),
        Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Cel::Int(i),
            (None, Some(f)) => Cel::Float(f),
            (None, None) => Cel::Null,
        },
        Value::String(s) => Cel::String(Arc::new(s.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(map) => {
            let map: HashMap<Key, Cel> = map
                .iter()
                .map(|(k, v)| (Key::String(Arc::new(k.clone())), to_cel(v)))
                .collect();
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(rule: Value, object: &Value) -> Option<(Status, String, String)> {
        let rule: ConditionRule = serde_json::from_value(rule).unwrap();
        evaluate_here(&[rule], object)
            .pop()
            .map(|c| (c.status, c.reason, c.message))
    }

    fn job(kind: &str, status: &str) -> Value {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"n": 2},
            "status": {"active": 1, "conditions": [{"type": kind, "status": status}]}})
    }

    #[test]
    fn well_known_conditions() {
        let pod = |phase: &str| json!({"apiVersion": "v1", "kind": "Pod", "status": {"phase": phase}});
        let rule = |condition: &str| json!({"type": "WellKnownConditions", "condition": condition});
        let cases = [
            (job("Complete", "True"), Some((Status::True, "Job is finished"))),
            (job("Failed", "True"), Some((Status::True, "Job is finished"))),
            (
                job("Complete", "False"),
                Some((Status::False, "Job is not finished")),
            ),
            (
                pod("Succeeded"),
                Some((Status::True, "Pod is in phase Succeeded")),
            ),
            (pod("Running"), Some((Status::False, "Pod is in phase Running"))),
            (json!({"apiVersion": "v1", "kind": "ConfigMap"}), None),
        ];
        for (object, expected) in cases {
            let found = one(rule("Complete"), &object);
            let short = found.as_ref().map(|(s, _, m)| (*s, m.as_str()));
            assert_eq!(short, expected, "{object}");
        }
        assert_eq!(one(rule("Degraded"), &job("Complete", "True")), None);
        let own = json!({"type": "WellKnownConditions", "condition": "Complete",
            "messageExpression": "result ? object.metadata.name + ' is done' : 'no'"});
        assert_eq!(one(own, &job("Complete", "True")).unwrap().2, "j is done");
    }

    #[test]
    fn cel_rules() {
        let cel =
            |expressions: Value| json!({"type": "CEL", "condition": "Fine", "celExpressions": expressions});
        let evaluated = reasons::CONDITION_RULE_EVALUATED;
        let wrong = reasons::CONDITION_RULE_EXPRESSION_ERROR;
        let cases = [
            (
                json!(["object.spec.n == 2", "object.status.active > 0"]),
                Status::True,
                evaluated,
                "Manifest is Fine",
            ),
            (
                json!(["object.spec.n == 3"]),
                Status::False,
                evaluated,
                "Manifest is not Fine",
            ),
            (
                json!([
                    "hasConditions(object.status) && object.status.conditions.exists(c, c.type == 'X' && c.status == 'True')"
                ]),
                Status::True,
                evaluated,
                "Manifest is Fine",
            ),
            (
                json!(["!hasConditions(object.spec)"]),
                Status::True,
                evaluated,
                "Manifest is Fine",
            ),
            (json!(["object.spec.n"]), Status::False, wrong, "not a bool"),
            (json!(["object.absent == 1"]), Status::False, wrong, "absent"),
            (json!(["object.("]), Status::False, wrong, "does not compile"),
            (json!([]), Status::False, wrong, "no celExpressions"),
            (
                json!(["quantity('1Gi').isGreaterThan(quantity('500Mi'))"]),
                Status::True,
                evaluated,
                "Manifest is Fine",
            ),
            (
                json!([
                    "object.?absent.?deeper.orValue(3) == 3",
                    "object.?spec.n.value() == 2",
                    "!object.?absent.deeper[0].hasValue()",
                    "object.spec.?n.hasValue()",
                    "[1].all(i, object.?absent.orValue(i) == 1)",
                    "!object[?'absent'].hasValue()",
                    "optional.none().or(optional.of(1)).value() == 1"
                ]),
                Status::True,
                evaluated,
                "Manifest is Fine",
            ),
            // As stock agents answer.
            (
                json!([
                    "optional.of(1).optMap(x, x + 1).value() == 2",
                    "!optional.none().optMap(x, x + 1).hasValue()",
                    "object.spec.?n.optFlatMap(x, optional.of(x)).value() == 2",
                    "[1, 2].all(i, optional.of(i).optMap(x, x + i).value() == i + i)",
                    "format.named('dns1123Label').hasValue()",
                    "!format.named('dns1123Label').value().validate('ok').hasValue()",
                    "!format.named('nothing').hasValue()",
                    "type(1) == int && type('a') == string && type(1) != type(1.0) && type(int) == type",
                    "dyn(1) == 1",
                    "bool('true') && !bool('0')",
                    "string(duration('1h')) == '3600s' && string(duration('-1.5s')) == '-1.5s'",
                    "string(timestamp('2020-01-01T00:00:00Z')) == '2020-01-01T00:00:00Z'",
                    "timestamp('2020-01-01T00:00:00Z').getHours('+01:00') == 1",
                    "timestamp('2020-01-01T00:00:00Z').getMinutes('-00:30') == 30",
                    "timestamp('2020-01-01T00:00:00Z').getFullYear('-02:30') == 2019",
                    "timestamp('2020-01-01T00:00:00+02:00').getHours() == 22",
                    "timestamp('2020-01-01T00:00:00Z').getDayOfWeek() == 3 && duration('90m').getMinutes() == 90"
                ]),
                Status::True,
                evaluated,
                "Manifest is Fine",
            ),
            (json!(["bool('yes')"]), Status::False, wrong, "is no bool"),
        ];
        for (expressions, status, reason, message) in cases {
            let found = one(cel(expressions.clone()), &job("X", "True")).unwrap();
            assert_eq!(
                (found.0, found.1.as_str()),
                (status, reason),
                "{expressions} {}",
                found.2
            );
            assert!(found.2.contains(message), "{expressions}: {}", found.2);
        }
    }

    #[test]
    fn numbers_are_equal_by_what_they_are() {
        let object = json!({"apiVersion": "v1", "kind": "X", "int": 1, "double": 1.0, "half": 1.5,
            "list": [1, [2.0]], "map": {"a": 1, "1": true}});
        for holds in [
            "dyn(1) == dyn(1.0)",
            "object.int == object.double && object.int == 1.0 && object.double == 1",
            "!(object.int != object.double) && object.int != object.half",
            "object.int < object.half && object.half > 1 && dyn(1) <= dyn(1.0)",
            "dyn(1u) == dyn(1) && dyn(-1) != dyn(18446744073709551615u)",
            "1 in [1.0] && 1.0 in object.list && !(1.5 in object.list)",
            "[2] in object.list && object.list == [1.0, [2]]",
            "object.map == {'a': 1.0, '1': true} && object.map != {'a': 1}",
            "1.0 in {1: 'a'} && 1u in {1: 'a'} && 1 in {1u: 'a'} && !(1.5 in {1: 'a'}) && !(-1 in {1u: 'a'})",
            "!(1e300 in {1: 'a'}) && !(object.int in {'1': 'a'})",
            // All that is no number is as it was.
            "'a' in object.map && object.map.a in [1] && ['a'].all(k, k in object.map)",
            "object.kind == 'X' && object.kind == object.kind && dyn('1') != dyn(1) && dyn(true) != dyn(1)",
            "type(object.int) == int && type(object.int) != type(object.double)",
            "optional.of(1) == optional.of(1) && optional.none() == optional.none()",
            "optional.of(1) != optional.none() && object.?absent == optional.none()",
            "duration('60s') == duration('1m') && duration('60s') != duration('1s')",
            "timestamp('2020-01-01T00:00:00Z') in [timestamp('2020-01-01T00:00:00Z')]",
            "quantity('1Gi') == quantity('1024Mi') && b'a' == b'a' && null == null",
            "[1, 2].exists_one(i, i == 2.0) && [1, 1.0].exists(i, i == 1)",
        ] {
            let rule = json!({"type": "CEL", "condition": "Fine", "celExpressions": [holds]});
            let (status, _, message) = one(rule, &object).unwrap();
            assert_eq!(status, Status::True, "{holds}: {message}");
        }
    }

    #[test]
    fn messages() {
        let with = |field: &str, text: &str| {
            let mut rule =
                json!({"type": "CEL", "condition": "Fine", "celExpressions": ["object.spec.n == 2"]});
            rule[field] = text.into();
            let found = one(rule, &job("X", "True")).unwrap();
            assert_eq!(
                (found.0, found.1.as_str()),
                (Status::True, reasons::CONDITION_RULE_EVALUATED)
            );
            found.2
        };
        assert_eq!(with("messageExpression", "'got ' + string(result)"), "got true");
        assert!(with("messageExpression", "object.(").contains("does not compile"));
        assert_eq!(with("message", "so"), "so");
        assert_eq!(
            with("messageExpression", "'n is ' + string(object.spec.n)"),
            "n is 2"
        );
        assert!(with("messageExpression", "object.spec.n").contains("not a string"));
        assert_eq!(with("messageExpression", "'x'.replace('x', 'y')"), "y");
    }

    #[test]
    fn loops_over_wide_lists_are_over_budget() {
        let wide: Vec<u32> = (0..1000).collect();
        let object = json!({"apiVersion": "v1", "kind": "X", "l": wide});
        let rule = |e: &str| json!({"type": "CEL", "condition": "Fine", "celExpressions": [e]});
        assert_eq!(
            one(rule("object.l.all(a, a >= 0)"), &object).unwrap().0,
            Status::True
        );
        let nested = "object.l.all(a, object.l.all(b, object.l.all(c, a + b + c >= 0)))";
        let found = one(rule(nested), &object).unwrap();
        assert_eq!((found.0, found.2.as_str()), (Status::False, OVER_BUDGET));
    }

    #[tokio::test]
    async fn deep_expressions_do_not_overflow_the_stack() {
        let nested = [
            format!("{}true", "!".repeat(MAX_DEEPENING)),
            format!("object{}", ".a".repeat(MAX_DEEPENING)),
            format!("object{}", "[0]".repeat(MAX_DEEPENING)),
            format!("{}true{}", "(".repeat(MAX_DEEPENING), ")".repeat(MAX_DEEPENING)),
            format!("{}1{}", "[".repeat(MAX_DEEPENING), "]".repeat(MAX_DEEPENING)),
            vec!["1"; MAX_DEEPENING].join("+"),
            vec!["true"; MAX_DEEPENING / 2].join("&&"),
            vec!["true?true"; MAX_DEEPENING].join(":") + ":true",
            format!("object{}", ".a".repeat(MAX_DEEPENING + 1)),
            "x".repeat(MAX_EXPRESSION + 1),
        ];
        for expression in nested {
            let rules = [ConditionRule {
                condition: "A".into(),
                type_: ConditionRuleType::Cel,
                cel_expressions: vec![expression],
                message: String::new(),
                message_expression: String::new(),
            }];
            let found = evaluate(&rules, &Arc::new(json!({"apiVersion": "v1", "kind": "X"}))).await;
            assert_ne!(found[0].message, OVER_BUDGET, "it takes too long");
        }
    }

    #[tokio::test]
    async fn every_rule_has_its_own_condition() {
        let rules: Vec<ConditionRule> = serde_json::from_value(json!([
            {"type": "CEL", "condition": "A", "celExpressions": ["object.x == 1"]},
            {"type": "CEL", "condition": "B", "celExpressions": ["object.x =="]},
            {"type": "WellKnownConditions", "condition": "Complete"}]))
        .unwrap();
        let found = evaluate(
            &rules,
            &Arc::new(json!({"apiVersion": "v1", "kind": "X", "x": 1})),
        )
        .await;
        let short: Vec<_> = found.iter().map(|c| (c.type_.as_str(), c.status)).collect();
        assert_eq!(short, [("A", Status::True), ("B", Status::False)]);
    }
}
