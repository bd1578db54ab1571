//! MutatingAdmissionPolicies and their bindings (KEP-3962).

use super::conditions::Verdict;
use super::definition::{self, Definition, list, text};
use super::hooks::Index;
use super::seen::{Matched, Seen};
use super::{Review, changed};
use crate::ApiError;
use crate::object;
use crate::patch;
use crate::rest::{Api, subject};
use crate::schema::cel::free::{Evaluation, Expression, Gives, Needs, Unmade};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a policy does to an object.
#[derive(Debug)]
enum Mutation {
    /// Merges an object into it.
    Configuration(Expression),
    /// Carries out the operations of a JSON Patch.
    Patch(Expression),
}

/// A policy, compiled.
#[derive(Debug)]
pub struct Policy {
    /// What it has in common with others.
    pub definition: Definition,
    /// What does not compile fails when it is asked for.
    mutations: Vec<Result<Mutation, String>>,
    /// It wants to see what others did after it.
    again: bool,
}

impl Policy {
    /// Compiles a policy.
    pub fn new(policy: &Value) -> Self {
        let definition = Definition::new(policy);
        let spec = &policy["spec"];
        let scope = definition.scope.constructing();
        let compile = |mutation: &Value| {
            definition.declared.clone()?;
            let expression = |of: &str| text(&mutation[of], "expression");
            if mutation["patchType"] == "JSONPatch" {
                let compiled = scope.compile(&expression("jsonPatch"), Gives::Patch)?;
                return Ok(Mutation::Patch(compiled));
            }
            let compiled = scope.compile(&expression("applyConfiguration"), Gives::Object)?;
            Ok(Mutation::Configuration(compiled))
        };
        Self {
            mutations: list(spec, "mutations").map(compile).collect(),
            again: spec["reinvocationPolicy"] == "IfNeeded",
            definition,
        }
    }

    /// What its expressions look at.
    pub fn needs(&self) -> Needs {
        let mut needs = self.definition.needs();
        for mutation in self.mutations.iter().flatten() {
            needs.add(mutation.expression().needs());
        }
        needs
    }
}

/// Why an object can not be mutated.
enum Failed {
    /// The failure policy says what that means.
    Policy(String),
    /// It refuses the write whatever that says.
    Write(ApiError),
}

impl Mutation {
    fn expression(&self) -> &Expression {
        match self {
            Self::Configuration(expression) | Self::Patch(expression) => expression,
        }
    }

    /// The object as it is after this; `None` when it says to leave it.
    fn mutated(
        &self,
        evaluation: &Evaluation<'_>,
        seen: &Seen<'_>,
        matched: &Matched,
    ) -> Result<Option<Value>, Failed> {
        let unmade = |unmade| {
            Failed::Policy(match unmade {
                Unmade::Shape(why) => why,
                Unmade::Evaluation(why) => format!(
                    "expression '{}' resulted in error: {why}",
                    self.expression().text().trim()
                ),
            })
        };
        let shown = seen.object(matched);
        match self {
            Self::Configuration(expression) => {
                let configuration = evaluation.object(expression).map_err(unmade)?;
                let failed = |why: String| Failed::Policy(format!("error applying patch: {why}"));
                if seen.review.subresource == "scale" {
                    // kube-apiserver has no schema for these to merge with.
                    let why = "failed to convert patch object to typed object: no corresponding type for autoscaling/v1, Kind=Scale";
                    return Err(failed(why.into()));
                }
                let merged = configured(matched, &shown, configuration).map_err(failed)?;
                Ok(Some(merged))
            }
            Self::Patch(expression) => {
                let operations = evaluation.patch(expression).map_err(unmade)?;
                let patched = patch::steps(&shown, operations)
                    .map_err(|why| Failed::Policy(format!("JSON Patch: {why}")))?;
                if let Some(patched) = &patched {
                    changed::readable(matched, patched).map_err(Failed::Write)?;
                }
                Ok(patched)
            }
        }
    }
}

fn configured(matched: &Matched, shown: &Value, mut configuration: Value) -> Result<Value, String> {
    for field in ["apiVersion", "kind"] {
        configuration[field] = shown[field].clone();
    }
    patch::configured(matched.resource.schema(), shown, &configuration)
}

/// One policy with one of its bindings and parameters.
type Key = (String, String, String);

/// A policy that is to be asked about a write.
struct Invocation<'a> {
    policy: &'a Policy,
    binding: &'a str,
    matched: Matched,
    params: Value,
}

impl Invocation<'_> {
    fn key(&self) -> Key {
        let params = format!(
            "{}/{}",
            object::namespace(&self.params),
            object::name(&self.params)
        );
        (
            self.policy.definition.name.clone(),
            self.binding.to_owned(),
            params,
        )
    }
}

/// What the policies did.
#[derive(Debug, Default)]
pub struct Done {
    /// One of them had a say.
    pub any: bool,
    /// Those that are to be asked once more.
    pub again: BTreeSet<Key>,
}

/// What went wrong where it counts: with the reason it gives the refusal.
struct Problems(Vec<(String, Option<&'static str>)>);

impl Problems {
    fn add(&mut self, policy: &Definition, binding: &str, why: &str, reason: Option<&'static str>) {
        if !policy.ignore {
            let name = &policy.name;
            let message = format!("policy '{name}' with binding '{binding}' denied request: {why}");
            self.0.push((message, reason));
        }
    }

    /// The first one speaks for all.
    fn refuse(self, review: &Review<'_>) -> Result<(), ApiError> {
        let Some((message, reason)) = self.0.first() else {
            return Ok(());
        };
        let mut status = ApiError::forbidden(subject(review.resource, review.name), "").status();
        status["message"] = message.as_str().into();
        if let Some(reason) = reason {
            status["reason"] = (*reason).into();
        }
        let causes = self.0.iter().map(|(message, _)| json!({"message": message}));
        status["details"]["causes"] = causes.collect();
        Err(ApiError::Status(Box::new(status)))
    }
}

/// Whether a write may be one that a policy wants to see.
pub fn concerns(seen: &Seen<'_>, index: &Index) -> bool {
    seen.new.is_some()
        && index
            .mutations
            .values()
            .any(|p| p.definition.bound(seen, &index.mutation_bindings).is_some())
}

/// Lets every bound policy change the object of a write, one after the other; only those of `only`, where that is given.
pub fn mutate(
    (api, review, index, old): (&Api, &Review<'_>, &Index, Option<&Value>),
    object: &mut Value,
    only: Option<&BTreeSet<Key>>,
) -> Result<Done, ApiError> {
    let mut done = Done::default();
    let mut problems = Problems(Vec::new());
    let before = Seen::new(api, review, index, Some(object), old);
    let mut invocations = Vec::new();
    for policy in index.mutations.values() {
        let Some((matched, bound)) = policy.definition.bound(&before, &index.mutation_bindings) else {
            continue;
        };
        for binding in bound {
            match definition::params(&before, &policy.definition, binding) {
                Ok(params) => invocations.extend(params.into_iter().map(|params| Invocation {
                    policy,
                    binding: &binding.name,
                    matched: matched.clone(),
                    params,
                })),
                Err(why) => {
                    let why = format!("failed to configure binding: {why}");
                    problems.add(&policy.definition, &binding.name, &why, None);
                }
            }
        }
    }
    drop(before);
    for invocation in &invocations {
        let Invocation {
            policy,
            binding,
            matched,
            params,
        } = invocation;
        let definition = &policy.definition;
        let seen = Seen::new(api, review, index, Some(object), old);
        match definition
            .conditions
            .verdict(&seen, matched, Some(params), definition.ignore)
        {
            Verdict::Match => {}
            Verdict::Skip => continue,
            Verdict::Error(why) => {
                problems.add(definition, binding, &why, Some("Invalid"));
                continue;
            }
        }
        drop(seen);
        let key = invocation.key();
        if only.is_some_and(|only| !only.contains(&key)) {
            continue;
        }
        for mutation in &policy.mutations {
            let mutated = {
                let seen = Seen::new(api, review, index, Some(object), old);
                let evaluation = definition.evaluation(&seen, matched, params);
                let mutation = mutation.as_ref().map_err(|why| Failed::Policy(why.clone()));
                let taken = |mutated: Option<Value>| {
                    let taken = mutated.map(|m| changed::taken(&seen, matched, object, m));
                    taken.transpose().map_err(Failed::Write)
                };
                mutation
                    .and_then(|m| m.mutated(&evaluation, &seen, matched))
                    .and_then(taken)
            };
            match mutated {
                Ok(next) => {
                    done.any = true;
                    if let Some(next) = next {
                        *object = next;
                    }
                }
                Err(Failed::Write(error)) => return Err(error),
                Err(Failed::Policy(why)) => problems.add(definition, binding, &why, Some("Invalid")),
            }
        }
        if policy.again {
            done.again.insert(key);
        }
    }
    problems.refuse(review)?;
    Ok(done)
}
