//! What is completed, and refused, of ManagedClusters (ocm-wire §8).

use std::collections::BTreeMap;

use jiff::{Timestamp, Unit};
use muster_crds::{
    cluster,
    constants::{labels, names},
    names as naming,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::registration::accept;

use super::review::{Attributes, Check, Decision, Question, Refusal, User};

/// What the rules look at. Whether the rest makes sense, the schema says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cluster {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    hub_accepts_client: bool,
    managed_cluster_client_configs: Vec<ClientConfig>,
    taints: Vec<Taint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClientConfig {
    url: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Taint {
    key: String,
    value: String,
    effect: String,
    time_added: Option<String>,
}

impl Cluster {
    fn set(&self) -> &str {
        self.metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(labels::CLUSTER_SET))
            .map_or("", String::as_str)
    }

    fn taint(&self, key: &str) -> Option<&Taint> {
        self.spec.taints.iter().find(|taint| taint.key == key)
    }
}

impl Taint {
    fn added(&self) -> Result<Option<Timestamp>, Refusal> {
        let parse = |text: &String| {
            text.parse()
                .map_err(|error| Refusal::bad_request(format!("timeAdded of taint {:?}: {error}", self.key)))
        };
        self.time_added.as_ref().map(parse).transpose()
    }
}

/// What a cluster gets by itself: times on its taints, and the default set where that is switched on.
pub fn mutate(
    new: &Cluster,
    old: Option<&Cluster>,
    default_set: bool,
    now: Timestamp,
) -> Result<Vec<Value>, Refusal> {
    let mut patch = stamps(new, old, now)?;
    if default_set && new.set().is_empty() {
        patch.push(if new.metadata.labels.is_none() {
            let labels = json!({labels::CLUSTER_SET: names::DEFAULT_CLUSTER_SET});
            json!({"op": "add", "path": "/metadata/labels", "value": labels})
        } else {
            let path = format!("/metadata/labels/{}", labels::CLUSTER_SET.replace('/', "~1"));
            json!({"op": "add", "path": path, "value": names::DEFAULT_CLUSTER_SET})
        });
    }
    Ok(patch)
}

fn stamps(new: &Cluster, old: Option<&Cluster>, now: Timestamp) -> Result<Vec<Value>, Refusal> {
    let now = now.round(Unit::Second).unwrap_or(now).to_string();
    let (mut patch, mut set_by_caller) = (Vec::new(), Vec::new());
    for (place, taint) in new.spec.taints.iter().enumerate() {
        let stamped = match (old, old.and_then(|old| old.taint(&taint.key))) {
            // What is said of a new cluster's times is not listened to.
            (None, _) => true,
            (Some(_), Some(was)) if was.value == taint.value && was.effect == taint.effect => {
                match was.added()? {
                    // A taint that came while nobody looked: whoever names a time, it is this one.
                    None => true,
                    before if before == taint.added()? => false,
                    _ => {
                        set_by_caller.push(taint.key.as_str());
                        false
                    }
                }
            }
            (Some(_), _) => {
                if taint.added()?.is_some() {
                    set_by_caller.push(&taint.key);
                }
                true
            }
        };
        if stamped {
            let path = format!("/spec/taints/{place}/timeAdded");
            patch.push(json!({"op": "add", "path": path, "value": now}));
        }
    }
    if set_by_caller.is_empty() {
        return Ok(patch);
    }
    Err(Refusal::bad_request(format!(
        "It is not allowed to set TimeAdded of Taint {:?}.",
        set_by_caller.join(",")
    )))
}

/// What a cluster may be called, where its API server may be, and who may let it in or put it into a set.
/// `hub` is the namespace that the hub itself is in.
pub fn validate(user: &User, new: &Cluster, old: Option<&Cluster>, hub: &str) -> Decision {
    let name = &new.metadata.name;
    let mut wrong = Vec::new();
    // A name stays as it is: what was once let through may still be changed.
    if let Some(why) = old.is_none().then(|| name_problem(name)).flatten() {
        wrong.push(format!("metadata.name format is not correct: {why}"));
    }
    for config in &new.spec.managed_cluster_client_configs {
        if !is_https(&config.url) {
            wrong.push(format!("url {:?} is invalid in client configs", config.url));
        }
    }
    if !wrong.is_empty() {
        return Err(Refusal::bad_request(wrong.join("\n")));
    }
    if let Some(why) = old.is_none().then(|| accept::refuse(name, Some(hub))).flatten() {
        return Err(Refusal::forbidden("managedclusters", name, why));
    }
    let mut checks = Vec::new();
    if new.spec.hub_accepts_client && !old.is_some_and(|old| old.spec.hub_accepts_client) {
        let refusal = |why: String| Refusal::forbidden("managedclusters/accept", name, why);
        checks.push(Check {
            question: Question::NamespaceStays(name.clone()),
            refusal: refusal(format!("cluster namespace {name:?} is terminating")),
        });
        let right = Attributes {
            group: names::REGISTER_GROUP,
            resource: "managedclusters",
            subresource: "accept",
            verb: "update",
            name: name.clone(),
            ..Attributes::default()
        };
        checks.push(Check {
            question: Question::May(right),
            refusal: refusal(format!(
                "user {:?} cannot update the HubAcceptsClient field",
                user.username
            )),
        });
    }
    let (from, to) = (old.map_or("", Cluster::set), new.set());
    if from != to {
        let sets = [from, to].into_iter().filter(|set| !set.is_empty());
        checks.extend(sets.map(|set| joins(user, set)));
    }
    Ok(checks)
}

fn joins(user: &User, set: &str) -> Check {
    let right = Attributes {
        group: cluster::GROUP,
        resource: "managedclustersets",
        subresource: "join",
        verb: "create",
        name: set.to_owned(),
        ..Attributes::default()
    };
    let why = format!(
        "user {:?} cannot add/remove a ManagedCluster to/from ManagedClusterSet {set:?}",
        user.username
    );
    Check {
        question: Question::May(right),
        refusal: Refusal::forbidden("managedclustersets/join", set, why),
    }
}

/// Why no namespace may have that name, in Kubernetes' words.
fn name_problem(name: &str) -> Option<String> {
    if naming::is_cluster_name(name) {
        return None;
    }
    let label = |text: &str| {
        let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = text.as_bytes();
        bytes.iter().all(|&c| alphanumeric(c) || c == b'-')
            && bytes.first().is_some_and(|&c| alphanumeric(c))
            && bytes.last().is_some_and(|&c| alphanumeric(c))
    };
    let mut problems = Vec::new();
    if name.len() > 63 {
        problems.push("must be no more than 63 characters");
    }
    if !label(name) {
        problems.push(if name.split('.').all(label) {
            "must not contain dots"
        } else {
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
             and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        });
    }
    Some(problems.join(","))
}

/// As OCM has it, and a host besides: without one nothing can be reached.
fn is_https(url: &str) -> bool {
    url.parse::<http::Uri>()
        .is_ok_and(|uri| uri.scheme() == Some(&http::uri::Scheme::HTTPS))
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
