//! What an eviction asks of the PodDisruptionBudgets of its pod: whether it may go, and to be counted.

use super::internal::Target;
use super::params::WriteOptions;
use super::{Api, bootstrap, rfc3339, store_error};
use crate::ApiError;
use crate::auth::UserInfo;
use crate::controllers::plan::set_condition;
use crate::error::Subject;
use crate::object;
use crate::registry::strategy::selector;
use crate::store::Range;
use serde_json::{Value, json};

/// Evictions that a budget's controller has not seen happen, at most.
const UNCONFIRMED: usize = 2000;

/// Asks the budget of a pod, and counts the eviction there unless nothing is to be stored.
pub async fn charge(api: &Api, namespace: &str, pod: &Value, dry_run: bool) -> Result<(), ApiError> {
    let Some(resource) = api.registry.by_kind("policy", "v1", "PodDisruptionBudget") else {
        return Ok(());
    };
    let range = Range {
        resource: resource.storage.to_string(),
        namespace: Some(namespace.to_owned()),
        ..Range::default()
    };
    let there = api
        .store
        .list(&range)
        .map_err(|e| store_error(&e, &resource, ""))?;
    let budgets: Vec<Value> = there.entries.iter().map(|e| e.value().clone()).collect();
    let Some(budget) = asked(&budgets, pod)? else {
        return Ok(());
    };
    let name = object::name(pod);
    let now = rfc3339(api.clock.now());
    if dry_run {
        return charged(budget, name, &now).map(drop);
    }
    let target = Target::sub(&resource, "status", namespace, object::name(budget));
    let mut change = |budget: &Value| charged(budget, name, &now);
    let options = WriteOptions {
        reviewed: true,
        ..WriteOptions::internal(bootstrap::MANAGER)
    };
    api.modify_object(&UserInfo::loopback(), &target, &options, &mut change)
        .await?;
    Ok(())
}

/// The budget that has a say about a pod. A pod that is not ready is no loss where its budget is met or does not care.
fn asked<'a>(budgets: &'a [Value], pod: &Value) -> Result<Option<&'a Value>, ApiError> {
    let labels = &pod["metadata"]["labels"];
    let mut matching = budgets
        .iter()
        .filter(|b| selector::matches(&b["spec"]["selector"], labels));
    let Some(budget) = matching.next() else {
        return Ok(None);
    };
    if matching.next().is_some() {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(ApiError::Status(Box::new(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": 500,
        }))));
    }
    let is_ready = condition(pod, "Ready").is_some_and(|c| c["status"] == "True");
    let (desired, current) = (count(budget, "desiredHealthy"), count(budget, "currentHealthy"));
    let is_met = desired > 0 && current >= desired;
    let is_no_loss = !is_ready && (budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || is_met);
    Ok((!is_no_loss).then_some(budget))
}

/// The budget with one disruption less, or why there is none.
fn charged(budget: &Value, pod: &str, now: &str) -> Result<Value, ApiError> {
    let name = object::name(budget);
    if count(budget, "observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(held(&why, Some(10)));
    }
    let unconfirmed = budget["status"]["disruptedPods"].as_object();
    if unconfirmed.is_some_and(|pods| pods.len() > UNCONFIRMED) {
        return Err(ApiError::forbidden(
            Subject::new("policy", "poddisruptionbudget", name),
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    let left = count(budget, "disruptionsAllowed");
    if left <= 0 {
        let failed = condition(budget, "DisruptionAllowed")
            .filter(|c| c["status"] == "False" && c["reason"] == "SyncFailed")
            .and_then(|c| c["message"].as_str());
        let why = match failed {
            Some(problem) => format!(
                "The disruption budget {name} does not allow evicting pods currently because it failed sync: {problem}"
            ),
            None if count(budget, "currentHealthy") > count(budget, "desiredHealthy") => {
                format!("The disruption budget {name} does not allow evicting pods currently")
            }
            None => format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                count(budget, "desiredHealthy"),
                count(budget, "currentHealthy")
            ),
        };
        return Err(held(&why, None));
    }
    let mut budget = budget.clone();
    let observed = budget["status"]["observedGeneration"].clone();
    budget["status"]["disruptionsAllowed"] = (left - 1).into();
    budget["status"]["disruptedPods"][pod] = now.into();
    if left == 1 {
        set_condition(
            &mut budget,
            "DisruptionAllowed",
            "False",
            "InsufficientPods",
            "",
            now,
        );
        let conditions = budget["status"]["conditions"].as_array_mut();
        for condition in conditions.into_iter().flatten() {
            if condition["type"] == "DisruptionAllowed" {
                condition["observedGeneration"] = observed.clone();
            }
        }
    }
    Ok(budget)
}

/// The 429 of a budget that lets no pod go.
fn held(why: &str, retry_after: Option<u64>) -> ApiError {
    let mut details = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
    if let Some(seconds) = retry_after {
        details["retryAfterSeconds"] = seconds.into();
    }
    ApiError::Status(Box::new(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "Cannot evict pod as it would violate the pod's disruption budget.",
        "reason": "TooManyRequests", "code": 429, "details": details,
    })))
}

fn count(budget: &Value, field: &str) -> i64 {
    budget["status"][field].as_i64().unwrap_or(0)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|c| c["type"] == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(name: &str, status: &Value) -> Value {
        json!({"metadata": {"name": name, "generation": 2}, "spec": {"selector": {"matchLabels": {"a": "b"}}}, "status": status})
    }

    #[test]
    fn who_is_asked() {
        let pod = |ready: &str| {
            json!({"metadata": {"labels": {"a": "b"}},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}})
        };
        let [met, unmet] = [2, 1].map(|n| budget("x", &json!({"desiredHealthy": 2, "currentHealthy": n})));
        let mut careless = unmet.clone();
        careless["spec"]["unhealthyPodEvictionPolicy"] = "AlwaysAllow".into();
        let mut other = unmet.clone();
        other["spec"]["selector"] = Value::Null;
        for (what, budgets, ready, want) in [
            ("a ready pod counts", vec![met.clone()], "True", true),
            (
                "an unready one does not where enough are",
                vec![met],
                "False",
                false,
            ),
            ("and does where they are not", vec![unmet.clone()], "False", true),
            ("unless nobody cares", vec![careless], "False", false),
            ("nothing matches", vec![other.clone()], "True", false),
            ("one of two matches", vec![other, unmet.clone()], "True", true),
        ] {
            assert_eq!(asked(&budgets, &pod(ready)).unwrap().is_some(), want, "{what}");
        }
        let error = asked(&[unmet.clone(), unmet], &pod("True")).unwrap_err();
        assert_eq!(error.code(), 500);
    }

    #[test]
    fn what_a_budget_says() {
        let many: Value = (0..2001).map(|i| (format!("p{i}"), json!("t"))).collect();
        for (status, code, word) in [
            (
                json!({"observedGeneration": 1, "disruptionsAllowed": 1}),
                429,
                "still being processed",
            ),
            (json!({"observedGeneration": 2}), 429, "needs 0 healthy pods"),
            (
                json!({"observedGeneration": 2, "conditions": [
                    {"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "no luck"}]}),
                429,
                "failed sync: no luck",
            ),
            (
                json!({"observedGeneration": 2, "disruptionsAllowed": 1, "disruptedPods": many}),
                403,
                "DisruptedPods map too big",
            ),
        ] {
            let error = charged(&budget("x", &status), "p", "now").unwrap_err();
            assert_eq!(error.code(), code, "{word}");
            assert!(error.status().to_string().contains(word), "{word}");
        }
        let two = budget("x", &json!({"observedGeneration": 2, "disruptionsAllowed": 2}));
        let one = charged(&two, "p", "now").unwrap();
        let want = json!({"observedGeneration": 2, "disruptionsAllowed": 1, "disruptedPods": {"p": "now"}});
        assert_eq!(one["status"], want);
        let none = charged(&one, "q", "then").unwrap();
        let want = json!({"observedGeneration": 2, "disruptionsAllowed": 0, "disruptedPods": {"p": "now", "q": "then"},
            "conditions": [{"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
                "lastTransitionTime": "then", "observedGeneration": 2}]});
        assert_eq!(none["status"], want);
    }
}
