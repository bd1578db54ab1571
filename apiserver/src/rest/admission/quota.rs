//! Namespaces stay within their ResourceQuotas (kube-apiserver's plugin ResourceQuota): what a write would use is counted
//! into `status.used` before it is stored, or the write is refused.

use super::{Api, Operation, Review, subject};
use crate::ApiError;
use crate::patch::{FieldSet, managed};
use crate::registry::convert;
use crate::registry::strategy::quantity::Amount;
use crate::registry::usage::{self, Usage};
use crate::rest::{key, modified, store_error};
use crate::store::{Entry, Expect, Range, StoreError};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

const QUOTAS: &str = "/resourcequotas";
/// Who writes what a quota has used.
const MANAGER: &str = "kube-apiserver";
const ATTEMPTS: usize = 64;

/// What a quota says of a write.
#[derive(Debug, PartialEq)]
enum Answer {
    /// It is none of its business.
    Indifferent,
    /// It fits: this is used then.
    Used(Usage),
    /// It does not, with why.
    Refused(String),
}

/// Counts a write into the quotas of its namespace.
pub async fn admit(
    api: &Api,
    review: &Review<'_>,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let r = review.resource;
    let Some(new) = new.filter(|_| r.namespaced && review.subresource.is_empty()) else {
        return Ok(());
    };
    let grows = review.operation == Operation::Update && usage::grows(&r.group, &r.plural);
    if review.operation != Operation::Create && !grows {
        return Ok(());
    }
    let range = Range {
        resource: QUOTAS.to_owned(),
        namespace: Some(review.namespace.to_owned()),
        ..Range::default()
    };
    let page = api.store.list(&range);
    let quotas = page.map_err(|e| store_error(&e, r, review.name))?.entries;
    if quotas.is_empty() {
        return Ok(());
    }
    // An object that is there already is refused for that, and costs nothing.
    if review.operation == Operation::Create
        && api.store.get(&key(r, review.namespace, review.name)).is_some()
    {
        return Ok(());
    }
    // A write that one quota refuses must not be counted by another.
    for quota in &quotas {
        if let Answer::Refused(why) = answer(&quota.value(), (&r.group, &r.plural), new, old) {
            return Err(ApiError::forbidden(subject(r, review.name), &why));
        }
    }
    if review.dry_run {
        return Ok(());
    }
    for quota in quotas {
        count(api, review, quota, new, old).await?;
    }
    Ok(())
}

async fn count(
    api: &Api,
    review: &Review<'_>,
    mut quota: Arc<Entry>,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let r = review.resource;
    for _ in 0..ATTEMPTS {
        let current = quota.value();
        let used = match answer(&current, (&r.group, &r.plural), new, old) {
            Answer::Indifferent => return Ok(()),
            Answer::Refused(why) => return Err(ApiError::forbidden(subject(r, review.name), &why)),
            Answer::Used(used) => used,
        };
        let mut next = current.clone();
        for (name, amount) in used {
            next["status"]["used"][name] = amount.to_string().into();
        }
        if let Some(kind) = api.registry.find("", "v1", "resourcequotas") {
            let reset = FieldSet::default();
            let now = api.clock.now();
            managed::update(
                kind.schema(),
                Some(&current),
                &mut next,
                MANAGER,
                "v1",
                "status",
                &reset,
                now,
            );
            next = convert::to_storage(&kind, next);
        }
        let put = api
            .store
            .put(quota.key.clone(), next, Expect::Revision(quota.revision))
            .await;
        match put {
            Ok(_) | Err(StoreError::Missing) => return Ok(()),
            Err(StoreError::Changed(_)) => {}
            Err(e) => return Err(store_error(&e, r, review.name)),
        }
        let Some(again) = api.store.get(&quota.key) else {
            return Ok(());
        };
        quota = again;
    }
    Err(modified(r, review.name))
}

/// Whether a write fits into a quota. Without `status.hard`, which says what is bounded now, nothing is.
fn answer(quota: &Value, kind: (&str, &str), new: &Value, old: Option<&Value>) -> Answer {
    let (group, plural) = kind;
    let name = crate::object::name(quota);
    let Some(hard) = quota["status"]["hard"].as_object() else {
        return Answer::Indifferent;
    };
    if !usage::is_in_scope(quota, group, plural, new) {
        return Answer::Indifferent;
    }
    let mut asked = usage::of(group, plural, new);
    if let Some(old) = old {
        for (name, amount) in usage::of(group, plural, old) {
            let asked = asked.entry(name).or_insert(Amount::ZERO);
            *asked = asked.minus(amount);
        }
    }
    if kind == ("", "pods") {
        let bounded: BTreeSet<&str> = hard.keys().map(String::as_str).collect();
        if let Some(unsaid) = usage::unsaid(new, &bounded) {
            return Answer::Refused(format!("failed quota: {name}: must specify {unsaid}"));
        }
    }
    // What a write gives back is not taken off here: the controller counts anew once the write is stored, and a write that
    // is tried again must not give back twice.
    asked.retain(|name, amount| hard.contains_key(name) && amount.exceeds(Amount::ZERO));
    if asked.is_empty() {
        return Answer::Indifferent;
    }
    let of = |list: &str, name: &str| Amount::of(&quota["status"][list][name]);
    let (mut used, mut exceeded) = (Usage::new(), Vec::new());
    for (name, amount) in &asked {
        let sum = of("used", name).plus(*amount);
        if sum.exceeds(of("hard", name)) {
            exceeded.push(name);
        }
        used.insert(name.clone(), sum);
    }
    if exceeded.is_empty() {
        return Answer::Used(used);
    }
    let shown = |amount: &dyn Fn(&str) -> Amount| {
        let only = exceeded.iter().map(|name| ((*name).clone(), amount(name)));
        usage::shown(&only.collect())
    };
    Answer::Refused(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        shown(&|name| asked[name]),
        shown(&|name| of("used", name)),
        shown(&|name| of("hard", name)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_write_fits_or_does_not() {
        let quota = json!({"metadata": {"name": "q"}, "status": {
            "hard": {"pods": "1", "configmaps": "3", "requests.cpu": "1"},
            "used": {"pods": "0", "configmaps": "3", "requests.cpu": "500m"}}});
        let pod = |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        let refused = |why: &str| Answer::Refused(why.to_owned());
        for (plural, object, want) in [
            ("secrets", json!({}), Answer::Indifferent),
            (
                "configmaps",
                json!({}),
                refused(
                    "exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: configmaps=3",
                ),
            ),
            (
                "pods",
                json!({"spec": {"containers": [{"name": "c"}]}}),
                refused("failed quota: q: must specify requests.cpu for: c"),
            ),
            (
                "pods",
                pod("2"),
                refused(
                    "exceeded quota: q, requested: requests.cpu=2, used: requests.cpu=500m, limited: requests.cpu=1",
                ),
            ),
            (
                "pods",
                pod("250m"),
                Answer::Used(Usage::from([
                    ("pods".to_owned(), Amount::count(1)),
                    ("requests.cpu".to_owned(), Amount::of(&json!("750m"))),
                ])),
            ),
        ] {
            assert_eq!(
                answer(&quota, ("", plural), &object, None),
                want,
                "{plural} {object}"
            );
        }
        let claims = json!({"metadata": {"name": "q"}, "status": {
            "hard": {"requests.storage": "3Gi"}, "used": {"requests.storage": "2Gi"}}});
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        for (new, want) in [
            ("1Gi", Answer::Indifferent),
            (
                "3Gi",
                Answer::Used(Usage::from([(
                    "requests.storage".to_owned(),
                    Amount::of(&json!("3Gi")),
                )])),
            ),
        ] {
            let kind = ("", "persistentvolumeclaims");
            assert_eq!(
                answer(&claims, kind, &claim(new), Some(&claim("2Gi"))),
                want,
                "{new}"
            );
        }
        let unknown = json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "0"}}, "status": {}});
        assert_eq!(
            answer(&unknown, ("", "configmaps"), &json!({}), None),
            Answer::Indifferent
        );
    }
}
