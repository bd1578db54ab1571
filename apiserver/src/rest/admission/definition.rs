//! What the two kinds of admission policies have in common: where they apply, to what, with which parameters and under which
//! conditions.

use super::conditions::{self, Conditions};
use super::seen::{Matched, Seen};
use crate::object;
use crate::registry::split_api_version;
use crate::registry::strategy::selector;
use crate::schema::cel::free::{Evaluation, Needs, Scope};
use crate::store::{Key, Range};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The common part of a policy, compiled.
#[derive(Debug)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// uid and generation: the same specification has both the same.
    version: (String, Option<i64>),
    constraints: Value,
    /// Errors are passed over.
    pub ignore: bool,
    param_kind: Option<(String, String)>,
    /// When it is held against a write at all.
    pub conditions: Conditions,
    /// Names of its expressions.
    pub scope: Scope,
    /// What is wrong with its variables.
    pub declared: Result<(), String>,
}

pub(super) fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

pub(super) fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn version(policy: &Value) -> (String, Option<i64>) {
    let generation = policy["metadata"]["generation"].as_i64();
    (object::uid(policy).to_owned(), generation)
}

/// Names of a policy's expressions, which its variables are not among yet.
pub fn scope(spec: &Value) -> Scope {
    let mut names = conditions::NAMES.to_vec();
    if !spec["paramKind"].is_null() {
        names.push("params");
    }
    Scope::new(&names)
}

impl Definition {
    /// Compiles what is common. What does not compile is said when the policy is to decide something.
    pub fn new(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let before = scope(spec);
        let mut scope = before.clone();
        let declared = list(spec, "variables")
            .try_for_each(|v| scope.declare(&text(v, "name"), v["expression"].as_str().unwrap_or_default()));
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
            declared,
        }
    }

    /// What its expressions look at.
    pub fn needs(&self) -> Needs {
        let mut needs = self.conditions.needs();
        needs.add(&self.scope.needs());
        needs
    }

    /// Whether this was made of that object, as far as its specification goes.
    pub fn is_of(&self, policy: &Value) -> bool {
        self.version == version(policy)
    }

    /// The version in which it wants to see a write, and those of its bindings that want it too.
    pub fn bound<'a>(
        &self,
        seen: &Seen<'_>,
        bindings: &'a BTreeMap<String, Arc<Binding>>,
    ) -> Option<(Matched, Vec<&'a Binding>)> {
        let mut of_this = bindings.values().filter(|b| b.policy == self.name).peekable();
        of_this.peek()?;
        let matched = wanted(seen, &self.constraints)?;
        let wants = |b: &&Binding| b.resources.is_null() || wanted(seen, &b.resources).is_some();
        Some((matched, of_this.map(|b| &**b).filter(wants).collect()))
    }

    /// An evaluation of its expressions about a write.
    pub fn evaluation<'s>(&'s self, seen: &'s Seen<'_>, matched: &Matched, params: &Value) -> Evaluation<'s> {
        let mut evaluation = conditions::evaluation(&self.scope, seen, matched, Some(params));
        evaluation
            .given()
            .give("namespaceObject", seen.namespace_object());
        evaluation
    }
}

/// A binding.
#[derive(Debug)]
pub struct Binding {
    /// Its name.
    pub name: String,
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

    /// Whether this is one of its actions.
    pub fn does(&self, action: &str) -> bool {
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
pub fn params(seen: &Seen<'_>, policy: &Definition, binding: &Binding) -> Result<Vec<Value>, String> {
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
