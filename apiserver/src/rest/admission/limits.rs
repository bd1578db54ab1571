//! What a LimitRange gives to pods that say nothing, and what it refuses (kube-apiserver's plugin LimitRanger).

use super::{Api, Operation, Review, subject};
use crate::ApiError;
use crate::object;
use crate::registry::strategy::quantity::Amount;
use crate::registry::usage::{self, Usage};
use crate::rest::store_error;
use crate::store::Range;
use serde_json::{Map, Value, json};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The limits of the namespace, when the write is one they are about.
fn limits(api: &Api, review: &Review<'_>) -> Result<Vec<Value>, ApiError> {
    let concerned = review.subresource.is_empty()
        && match &*review.resource.storage {
            "/pods" => review.operation == Operation::Create,
            "/persistentvolumeclaims" => review.operation != Operation::Delete,
            _ => false,
        };
    if !concerned {
        return Ok(Vec::new());
    }
    let range = Range {
        resource: "/limitranges".to_owned(),
        namespace: Some(review.namespace.to_owned()),
        ..Range::default()
    };
    let page = api.store.list(&range);
    let page = page.map_err(|e| store_error(&e, review.resource, review.name))?;
    let limits = page
        .entries
        .iter()
        .flat_map(|entry| {
            let limits = entry.value()["spec"]["limits"].take();
            limits.as_array().cloned().unwrap_or_default()
        })
        .collect();
    Ok(limits)
}

/// Gives the containers of a new pod what they do not say.
pub fn defaults(api: &Api, review: &Review<'_>, object: &mut Value) -> Result<(), ApiError> {
    if &*review.resource.storage != "/pods" {
        return Ok(());
    }
    for limit in limits(api, review)? {
        give(&limit, object);
    }
    Ok(())
}

fn give(limit: &Value, pod: &mut Value) {
    if limit["type"] != "Container" {
        return;
    }
    let mut given = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(list));
        for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (from, to) in [("defaultRequest", "requests"), ("default", "limits")] {
                let names = fill(container, to, &limit[from]);
                if !names.is_empty() {
                    let kind = to.trim_end_matches('s');
                    given.push(format!("{} {kind} for {what} {name}", names.join(", ")));
                }
            }
        }
    }
    if !given.is_empty() {
        let text = format!("LimitRanger plugin set: {}", given.join("; "));
        let annotations = object::metadata_mut(pod)
            .entry("annotations")
            .or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(ANNOTATION.into(), text.into());
        }
    }
}

/// Adds what is not there, and says what it was.
fn fill(container: &mut Value, list: &str, amounts: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for (name, amount) in amounts.as_object().into_iter().flatten() {
        let there = object::child_mut(container, "resources")
            .entry(list)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(there) = there.as_object_mut()
            && !there.contains_key(name)
        {
            there.insert(name.clone(), amount.clone());
            names.push(name.clone());
        }
    }
    names
}

/// Refuses what is beyond the limits.
pub fn validate(api: &Api, review: &Review<'_>, object: &Value) -> Result<(), ApiError> {
    let mut problems = Vec::new();
    for limit in limits(api, review)? {
        problems.extend(beyond(&limit, &review.resource.plural, &object["spec"]));
    }
    let detail = match problems.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Err(ApiError::forbidden(
        subject(review.resource, review.name),
        &detail,
    ))
}

fn beyond(limit: &Value, plural: &str, spec: &Value) -> Vec<String> {
    let kind = limit["type"].as_str().unwrap_or_default();
    let read = |amounts: &Value| -> Usage {
        let all = amounts.as_object().into_iter().flatten();
        all.map(|(name, amount)| (name.clone(), Amount::of(amount)))
            .collect()
    };
    match (plural, kind) {
        ("pods", "Container") => ["containers", "initContainers"]
            .iter()
            .flat_map(|list| spec[*list].as_array().into_iter().flatten())
            .flat_map(|container| {
                let resources = &container["resources"];
                check(
                    limit,
                    kind,
                    &read(&resources["requests"]),
                    Some(&read(&resources["limits"])),
                )
            })
            .collect(),
        ("pods", "Pod") => check(
            limit,
            kind,
            &usage::pod_amounts(spec, "requests"),
            Some(&usage::pod_amounts(spec, "limits")),
        ),
        ("persistentvolumeclaims", "PersistentVolumeClaim") => {
            check(limit, kind, &read(&spec["resources"]["requests"]), None)
        }
        _ => Vec::new(),
    }
}

/// What of the requests and limits is too small, too large, or too far from the other. A claim has no limits.
fn check(limit: &Value, kind: &str, requests: &Usage, limits: Option<&Usage>) -> Vec<String> {
    let mut problems = Vec::new();
    let bounds = |key: &str| {
        let map = limit[key].as_object().cloned().unwrap_or_default();
        map.into_iter().map(|(name, bound)| (name, Amount::of(&bound)))
    };
    let limit_of = |name: &str| limits.and_then(|limits| limits.get(name)).copied();
    for (name, least) in bounds("min") {
        let (request, limit) = (requests.get(&name).copied(), limit_of(&name));
        let begin = format!("minimum {name} usage per {kind} is {least}");
        problems.extend(match (request, limit) {
            (None, _) => Some(format!("{begin}.  No request is specified")),
            (Some(request), _) if least.exceeds(request) => {
                Some(format!("{begin}, but request is {request}"))
            }
            (_, Some(limit)) if least.exceeds(limit) => Some(format!("{begin}, but limit is {limit}")),
            _ => None,
        });
    }
    for (name, most) in bounds("max") {
        let (request, limit) = (requests.get(&name).copied(), limit_of(&name));
        let begin = format!("maximum {name} usage per {kind} is {most}");
        problems.extend(match (request, limit) {
            (None, None) if limits.is_none() => Some(format!("{begin}.  No request is specified")),
            (_, None) if limits.is_some() => Some(format!("{begin}.  No limit is specified")),
            (_, Some(limit)) if limit.exceeds(most) => Some(format!("{begin}, but limit is {limit}")),
            (Some(request), _) if request.exceeds(most) => Some(format!("{begin}, but request is {request}")),
            _ => None,
        });
    }
    for (name, ratio) in bounds("maxLimitRequestRatio") {
        let some = |amount: Option<Amount>| amount.filter(|amount| !amount.is_zero());
        let (request, limit) = (some(requests.get(&name).copied()), some(limit_of(&name)));
        let begin = format!("{name} max limit to request ratio per {kind} is {ratio}, but");
        problems.extend(match (request, limit) {
            (None, _) => Some(format!("{begin} no request is specified or request is 0")),
            (_, None) => Some(format!("{begin} no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let is = limit.ratio(request);
                let most = ratio.ratio(Amount::count(1));
                (is > most).then(|| format!("{begin} provided ratio is {is:.6}"))
            }
        });
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_get_what_they_do_not_say() {
        let limit =
            json!({"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}});
        let mut pod = json!({"metadata": {}, "spec": {"containers": [
            {"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}]}});
        give(&limit, &mut pod);
        assert!(pod["spec"].get("initContainers").is_none());
        let containers = &pod["spec"]["containers"];
        assert_eq!(
            containers[0]["resources"],
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}})
        );
        assert_eq!(containers[1]["resources"]["limits"]["cpu"], "1");
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; cpu limit for container a"
        );
    }

    #[test]
    fn what_is_beyond_is_told() {
        let limit = json!({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "100m"}, "maxLimitRequestRatio": {"cpu": "2"}});
        let pod = |request: &str, limit: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": request}, "limits": {"cpu": limit}}}]});
        for (spec, want) in [
            (pod("500m", "1"), vec![]),
            (
                pod("2", "2"),
                vec!["maximum cpu usage per Container is 1, but limit is 2"],
            ),
            (
                pod("50m", "100m"),
                vec!["minimum cpu usage per Container is 100m, but request is 50m"],
            ),
            (
                pod("100m", "1"),
                vec!["cpu max limit to request ratio per Container is 2, but provided ratio is 10.000000"],
            ),
        ] {
            assert_eq!(beyond(&limit, "pods", &spec), want, "{spec}");
        }
        let claim = json!({"resources": {"requests": {"storage": "2Gi"}}});
        let limit = json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}});
        assert_eq!(
            beyond(&limit, "persistentvolumeclaims", &claim),
            ["maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"]
        );
    }
}
