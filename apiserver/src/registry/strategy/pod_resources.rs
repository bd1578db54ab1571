//! What containers ask for and are allowed, by name.

use super::check::{Errors, Spot};
use super::quantity::{self, Amount};
use crate::error::FieldError;
use crate::registry::names;
use serde_json::{Value, json};

/// Amounts by name: those there are, none below zero, and what is asked for no more than what is allowed.
pub(super) fn validate(resources: &Spot<'_>, errors: &mut Errors) {
    let limits = resources.at("limits");
    for (name, amount) in limits.entries() {
        check_name(name, &amount, errors);
        check_value(name, &amount, errors);
        huge_pages(name, &amount, errors);
    }
    let requests = resources.at("requests");
    for (name, amount) in requests.entries() {
        check_name(name, &amount, errors);
        check_value(name, &amount, errors);
        let limit = limits.at(name);
        if limit.is_set() {
            exceeds(name, &requests, &amount, limit.value, errors);
        } else if !may_overcommit(name) {
            let why = "Limit must be set for non overcommitable resources";
            limits.missing(errors, why);
        }
        huge_pages(name, &amount, errors);
    }
    let has = |name: &str| !limits.value[name].is_null() || !requests.value[name].is_null();
    let pages = limits.entries().iter().any(|(name, _)| is_huge_pages(name));
    if pages && !has("cpu") && !has("memory") {
        resources.forbidden(errors, "HugePages require cpu or memory");
    }
}

/// What may be taken of a node twice is asked for up to its limit, the rest exactly.
fn exceeds(name: &str, requests: &Spot<'_>, amount: &Spot<'_>, limit: &Value, errors: &mut Errors) {
    let (asked, allowed) = (Amount::of(amount.value), Amount::of(limit));
    let must = if may_overcommit(name) {
        asked.exceeds(allowed).then_some("less than or equal to")
    } else {
        (asked.exceeds(allowed) || allowed.exceeds(asked)).then_some("equal to")
    };
    if let Some(must) = must {
        let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let why = format!("must be {must} {name} limit of {}", shown(limit));
        requests.invalid_shown(errors, &format!("{:?}", shown(amount.value)), &why);
    }
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether a resource is Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// The name of something a container uses.
pub(super) fn check_name(name: &str, at: &Spot<'_>, errors: &mut Errors) {
    let value = json!(name);
    let mut refuse = |why: &str| errors.push(FieldError::invalid(&at.path, &value, why));
    let messages = names::qualified_name(name);
    let qualified = messages.is_empty();
    for message in &messages {
        refuse(message);
    }
    if !name.contains('/') {
        let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name);
        if !known {
            if qualified {
                refuse("must be a standard resource type or fully qualified");
            }
            refuse("must be a standard resource for containers");
        }
    } else if !is_native(name)
        && (name.starts_with("requests.") || !names::qualified_name(&format!("requests.{name}")).is_empty())
    {
        refuse("doesn't follow extended resource name standard");
    }
}

fn check_value(name: &str, amount: &Spot<'_>, errors: &mut Errors) {
    let Some(nanos) = amount.value.as_str().and_then(quantity::nanos) else {
        return;
    };
    if nanos < 0 {
        amount.invalid(errors, "must be greater than or equal to 0");
    }
    if !is_native(name) && nanos % 1_000_000_000 != 0 {
        amount.invalid(errors, "must be an integer");
    }
}

/// Pages are whole.
fn huge_pages(name: &str, amount: &Spot<'_>, errors: &mut Errors) {
    let Some(page) = name.strip_prefix("hugepages-").and_then(quantity::nanos) else {
        return;
    };
    let Some(nanos) = amount.value.as_str().and_then(quantity::nanos) else {
        return;
    };
    if page <= 0 || nanos < 0 || nanos % page != 0 {
        let why = format!("{} is not positive integer multiple of {name}", amount.text());
        amount.invalid(errors, &why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (resources, want) in [
            (json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}}), ""),
            (json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1000m"}}), ""),
            (
                json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
                "r.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                json!({"requests": {"x.io/g": "1"}}),
                "r.limits: Required value: Limit must be set for non overcommitable resources",
            ),
            (
                json!({"requests": {"x.io/g": "1"}, "limits": {"x.io/g": "2"}}),
                "r.requests: Invalid value: \"1\": must be equal to x.io/g limit of 2",
            ),
            (
                json!({"limits": {"x.io/g": "1500m"}}),
                "r.limits[x.io/g]: Invalid value: \"1500m\": must be an integer",
            ),
            (
                json!({"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}}),
                "r.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
            ),
            (
                json!({"limits": {"hugepages-2Mi": "4Mi"}}),
                "r: Forbidden: HugePages require cpu or memory",
            ),
            (
                json!({"limits": {"cpu": "-1"}}),
                "r.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
        ] {
            let mut errors = Vec::new();
            validate(&Spot::new(&resources, "r"), &mut errors);
            let told: Vec<String> = errors
                .iter()
                .map(|e| format!("{}: {}", e.field, e.message))
                .collect();
            assert_eq!(told.join("; "), want, "{resources}");
        }
    }
}
