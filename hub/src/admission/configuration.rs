//! What the API server is told: which writes to ask about, where, and whom to believe.
//!
//! Where the server has policies (see [`crate::install::admission`]), it asks only about what they cannot say, and about
//! a change only when it is one of what the rules look at: agents go on while the hub is away.
//!
//! Policies answer with their own codes and words. Scripts and people know OCM's; so, before policies are asked, the server
//! asks the webhook about what they are going to refuse, as it asks those that change objects. That it says no is all it
//! can do there, and where it does not answer the policies do.

use base64::Engine as _;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use muster_crds::{
    cluster,
    constants::{admission, labels},
    work,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::options::Place;
use crate::install::refuses;

/// What a hub tells the API server about its webhook.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// Where it is.
    pub place: &'a Place,
    /// PEM of whom to believe.
    pub bundle: &'a str,
    /// The server holds policies against the same writes.
    pub policies: bool,
    /// Clusters get a default set.
    pub default_set: bool,
    /// Works without an executor are checked too.
    pub nil_executor: bool,
    /// There are replica sets.
    pub replica_sets: bool,
}

/// The two kinds of configuration.
pub trait Configuration:
    kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
    + Serialize
    + DeserializeOwned
    + Clone
    + std::fmt::Debug
    + Send
    + 'static
{
    /// All names that the hub uses for this kind.
    const NAMES: &'static [&'static str];

    /// The webhook of that name, if the hub needs it.
    fn webhook(name: &str, terms: &Terms<'_>) -> Option<Value>;
}

impl Configuration for ValidatingWebhookConfiguration {
    const NAMES: &'static [&'static str] = &[
        admission::CLUSTER_VALIDATORS,
        admission::BINDING_VALIDATORS,
        admission::WORK_VALIDATORS,
        admission::REPLICA_SET_VALIDATORS,
    ];

    fn webhook(name: &str, terms: &Terms<'_>) -> Option<Value> {
        let conditions = match name {
            _ if !terms.policies => Vec::new(),
            admission::CLUSTER_VALIDATORS => {
                let accepts = |object: &str| {
                    format!(
                        "{object} != null && has({object}.spec) && has({object}.spec.hubAcceptsClient) && \
                         {object}.spec.hubAcceptsClient"
                    )
                };
                let expression = format!("({}) && !({})", accepts("object"), accepts("oldObject"));
                vec![condition("is-let-in", &expression)]
            }
            // One object and its author tell all.
            admission::BINDING_VALIDATORS => return None,
            _ => vec![condition("spec-changes", SPEC_CHANGES)],
        };
        Some(validator(name, conditions, terms))
    }
}

/// The webhook of that name that says no.
fn validator(name: &str, conditions: Vec<Value>, terms: &Terms<'_>) -> Value {
    let (path, rule) = match name {
        admission::CLUSTER_VALIDATORS => (
            admission::VALIDATE_CLUSTER,
            rule(cluster::GROUP, "*", "managedclusters"),
        ),
        admission::BINDING_VALIDATORS => (
            admission::VALIDATE_BINDING,
            rule(cluster::GROUP, "v1beta2", "managedclustersetbindings"),
        ),
        admission::REPLICA_SET_VALIDATORS => (
            admission::VALIDATE_REPLICA_SET,
            rule(work::GROUP, "*", "manifestworkreplicasets"),
        ),
        _ => (admission::VALIDATE_WORK, rule(work::GROUP, "*", "manifestworks")),
    };
    webhook(name, path, &rule, conditions, terms)
}

fn condition(name: &str, expression: &str) -> Value {
    json!({"name": name, "expression": expression})
}

/// That a write makes an object, or changes what it says.
pub const SPEC_CHANGES: &str = "oldObject == null || has(object.spec) != has(oldObject.spec) || \
     (has(object.spec) && object.spec != oldObject.spec)";

impl Configuration for MutatingWebhookConfiguration {
    const NAMES: &'static [&'static str] = &[
        admission::CLUSTER_MUTATORS,
        admission::CLUSTER_VALIDATORS,
        admission::BINDING_VALIDATORS,
        admission::WORK_VALIDATORS,
        admission::REPLICA_SET_VALIDATORS,
    ];

    fn webhook(name: &str, terms: &Terms<'_>) -> Option<Value> {
        let mut webhook = if name == admission::CLUSTER_MUTATORS {
            completes(name, terms)
        } else {
            foretells(name, terms)?
        };
        webhook["reinvocationPolicy"] = "Never".into();
        Some(webhook)
    }
}

/// Completes clusters.
fn completes(name: &str, terms: &Terms<'_>) -> Value {
    let mut conditions = Vec::new();
    if terms.policies {
        let taints = |object: &str| {
            format!(
                "(has({object}.spec) && has({object}.spec.taints) && {object}.spec.taints != null ? \
                 {object}.spec.taints : [])"
            )
        };
        let set = labels::CLUSTER_SET;
        let without_set = format!(
            " || !has(object.metadata.labels) || !('{set}' in object.metadata.labels) || \
             object.metadata.labels['{set}'] == ''"
        );
        let expression = format!(
            "oldObject == null || {} != {}{}",
            taints("object"),
            taints("oldObject"),
            if terms.default_set { &without_set } else { "" }
        );
        conditions.push(condition("is-to-be-completed", &expression));
    }
    let rule = rule(cluster::GROUP, "*", "managedclusters");
    webhook(name, admission::MUTATE_CLUSTER, &rule, conditions, terms)
}

/// Says in OCM's words what the policy of that name is about to refuse. Nothing rests on it.
fn foretells(name: &str, terms: &Terms<'_>) -> Option<Value> {
    if !terms.policies {
        return None;
    }
    let refuses = condition("is-refused", &refuses(name, terms.nil_executor)?);
    let conditions = if [admission::WORK_VALIDATORS, admission::REPLICA_SET_VALIDATORS].contains(&name) {
        vec![condition("spec-changes", SPEC_CHANGES), refuses]
    } else {
        vec![refuses]
    };
    let mut webhook = validator(name, conditions, terms);
    webhook["failurePolicy"] = "Ignore".into();
    webhook["timeoutSeconds"] = 3.into();
    Some(webhook)
}

fn rule(group: &str, version: &str, plural: &str) -> Value {
    json!({
        "apiGroups": [group],
        "apiVersions": [version],
        "operations": ["CREATE", "UPDATE"],
        "resources": [plural],
        "scope": "*",
    })
}

/// With all that servers would fill in, so that one look tells whether it is as it should be.
fn webhook(name: &str, path: &str, rule: &Value, conditions: Vec<Value>, terms: &Terms<'_>) -> Value {
    let mut client = match terms.place {
        Place::Service {
            namespace,
            name,
            port,
        } => {
            json!({"service": {"namespace": namespace, "name": name, "port": port, "path": path}})
        }
        Place::Url { base, .. } => json!({"url": format!("{base}{path}")}),
    };
    client["caBundle"] = base64::engine::general_purpose::STANDARD
        .encode(terms.bundle)
        .into();
    let mut webhook = json!({
        "name": name,
        "clientConfig": client,
        "rules": [rule],
        "admissionReviewVersions": ["v1", "v1beta1"],
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": {},
        "sideEffects": "None",
        "timeoutSeconds": 10,
    });
    if !conditions.is_empty() {
        webhook["matchConditions"] = Value::Array(conditions);
    }
    webhook
}

/// Whether a configuration of that name is a concern of this hub at all. One that was left from when there were replica
/// sets has them refused, as OCM does: the webhook says that they are off.
pub fn concerns(name: &str, terms: &Terms<'_>) -> bool {
    terms.replica_sets || name != admission::REPLICA_SET_VALIDATORS
}

/// What a configuration is to be.
pub fn wanted<K: Configuration>(name: &str, terms: &Terms<'_>) -> Option<Value> {
    K::webhook(name, terms).map(|webhook| {
        json!({
            "metadata": {"name": name, "labels": {labels::MANAGED_BY: labels::MANAGED_BY_HUB}},
            "webhooks": [webhook],
        })
    })
}

/// The patch that makes `there` what is wanted, or nothing when it is so.
pub fn difference<K: Configuration>(wanted: &Value, there: &K) -> Option<Value> {
    // Through the type, so that both are written alike.
    let there = serde_json::to_value(there).ok()?;
    let normal = serde_json::from_value::<K>(wanted.clone())
        .and_then(|wanted| serde_json::to_value(&wanted))
        .ok()?;
    let ours = is_ours(&there);
    (!ours || there["webhooks"] != normal["webhooks"]).then(
        || json!({"metadata": {"labels": wanted["metadata"]["labels"]}, "webhooks": wanted["webhooks"]}),
    )
}

/// Whether a hub of ours keeps it.
pub fn is_ours(configuration: &Value) -> bool {
    configuration["metadata"]["labels"][labels::MANAGED_BY] == labels::MANAGED_BY_HUB
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Place {
        Place::Service {
            namespace: "n".to_owned(),
            name: "hub".to_owned(),
            port: 443,
        }
    }

    fn terms(place: &Place, policies: bool) -> Terms<'_> {
        Terms {
            place,
            bundle: "PEM",
            policies,
            default_set: true,
            nil_executor: false,
            replica_sets: true,
        }
    }

    fn check<K: Configuration>(place: &Place, policies: bool) -> Vec<String> {
        let mut made = Vec::new();
        for name in K::NAMES {
            let Some(wanted) = wanted::<K>(name, &terms(place, policies)) else {
                continue;
            };
            let object: K = serde_json::from_value(wanted.clone()).unwrap();
            assert_eq!(
                difference(&wanted, &object),
                None,
                "what was just made is as it should be"
            );
            let webhook = &wanted["webhooks"][0];
            // What a policy holds too may be passed over, and nothing else.
            let mutating = webhook["reinvocationPolicy"].is_string();
            let foretells = mutating && *name != admission::CLUSTER_MUTATORS;
            for (field, value) in [
                ("failurePolicy", if foretells { "Ignore" } else { "Fail" }),
                ("sideEffects", "None"),
                ("matchPolicy", "Equivalent"),
            ] {
                assert_eq!(webhook[field], value);
            }
            assert_eq!(webhook["timeoutSeconds"], if foretells { 3 } else { 10 });
            assert_eq!(webhook["clientConfig"]["caBundle"], "UEVN");
            // A status is never asked about.
            let resource = webhook["rules"][0]["resources"].as_array().unwrap();
            assert!(resource.len() == 1 && !resource[0].as_str().unwrap().contains(['/', '*']));
            let conditions = webhook["matchConditions"].as_array().map_or(0, Vec::len);
            let more = foretells && name.starts_with("manifestwork");
            assert_eq!(conditions, usize::from(policies) + usize::from(more), "{name}");
            for change in [json!({"webhooks": []}), json!({"metadata": {"labels": null}})] {
                let mut other = serde_json::to_value(&object).unwrap();
                for (field, value) in change.as_object().unwrap() {
                    other[field] = value.clone();
                }
                let other: K = serde_json::from_value(other).unwrap();
                let patch = difference(&wanted, &other).unwrap();
                assert_eq!(patch["webhooks"], wanted["webhooks"]);
            }
            made.push((*name).to_owned());
        }
        made
    }

    #[test]
    fn configurations_are_whole_and_stay_as_they_are() {
        let url = Place::Url {
            base: "https://h:1".to_owned(),
            host: "h".to_owned(),
        };
        for place in [service(), url] {
            assert_eq!(check::<MutatingWebhookConfiguration>(&place, true).len(), 5);
            assert_eq!(check::<MutatingWebhookConfiguration>(&place, false).len(), 1);
            assert_eq!(check::<ValidatingWebhookConfiguration>(&place, true).len(), 3);
            assert_eq!(check::<ValidatingWebhookConfiguration>(&place, false).len(), 4);
        }
    }

    #[test]
    fn services_and_urls_have_the_path_of_their_kind() {
        let place = service();
        let wanted =
            wanted::<ValidatingWebhookConfiguration>(admission::WORK_VALIDATORS, &terms(&place, true))
                .unwrap();
        assert_eq!(
            wanted["webhooks"][0]["clientConfig"]["service"],
            json!({"namespace": "n", "name": "hub", "port": 443, "path": admission::VALIDATE_WORK})
        );
        let place = Place::Url {
            base: "https://[::1]:1".to_owned(),
            host: "::1".to_owned(),
        };
        let wanted =
            super::wanted::<MutatingWebhookConfiguration>(admission::CLUSTER_MUTATORS, &terms(&place, true));
        assert_eq!(
            wanted.unwrap()["webhooks"][0]["clientConfig"]["url"],
            format!("https://[::1]:1{}", admission::MUTATE_CLUSTER)
        );
    }
}
