//! The two sets every hub has: `default` for clusters nobody put elsewhere, `global` for all (ocm-wire §1.2).

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{Api, api::ObjectMeta};
use muster_crds::{
    cluster::v1beta2::{ManagedClusterSelector, ManagedClusterSet, ManagedClusterSetSpec, SelectorType},
    constants::{annotations, names},
};
use serde_json::json;

use crate::{
    cache::Cache,
    error::Error,
    queue::Next,
    writer::{Writer, guarded, what},
};

/// What is kept of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct SetView {
    /// Its uid.
    pub uid: String,
    /// Its resource version.
    pub resource_version: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its administrator keeps the selector.
    pub own_way: bool,
    /// Which clusters are in it.
    pub selector: ManagedClusterSelector,
    /// Namespaces its clusters keep.
    pub namespaces: Vec<String>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

impl SetView {
    /// What is kept of a set.
    pub fn of(set: &ManagedClusterSet) -> Self {
        let metadata = &set.metadata;
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            own_way: metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(annotations::AUTO_UPDATE))
                .is_some_and(|value| value == "false"),
            selector: set.spec.cluster_selector.clone(),
            namespaces: set
                .spec
                .managed_namespaces
                .iter()
                .map(|one| one.name.clone())
                .collect(),
            conditions: set
                .status
                .as_ref()
                .map(|status| status.conditions.clone())
                .unwrap_or_default(),
        }
    }
}

/// What to do about one of the two sets.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing.
    Leave,
    /// Make it.
    Create(ManagedClusterSelector),
    /// Put its selector back.
    Restore(ManagedClusterSelector),
}

/// Decides about the set of that name.
pub fn decide(name: &str, observed: Option<&SetView>) -> Decision {
    let selector = match name {
        names::DEFAULT_CLUSTER_SET => ManagedClusterSelector {
            selector_type: SelectorType::ExclusiveClusterSetLabel,
            ..ManagedClusterSelector::default()
        },
        names::GLOBAL_CLUSTER_SET => ManagedClusterSelector {
            selector_type: SelectorType::LabelSelector,
            label_selector: Some(LabelSelector::default()),
        },
        _ => return Decision::Leave,
    };
    match observed {
        None => Decision::Create(selector),
        Some(set) if set.deleting || set.own_way || set.selector == selector => Decision::Leave,
        Some(_) => Decision::Restore(selector),
    }
}

/// What the controller works with.
pub struct Context {
    /// All sets.
    pub sets: Arc<Cache<ManagedClusterSet, SetView>>,
    /// How to write.
    pub writer: Arc<Writer>,
}

impl Context {
    /// Keeps one of the two sets.
    pub async fn reconcile(&self, name: &str) -> Result<Next, Error> {
        let observed = self.sets.get("", name);
        let api = Api::<ManagedClusterSet>::all(self.writer.client());
        let subject = what::<ManagedClusterSet>(name);
        let answer = match (decide(name, observed.as_deref()), &observed) {
            (Decision::Create(cluster_selector), _) => {
                let set = ManagedClusterSet {
                    metadata: ObjectMeta {
                        name: Some(name.to_owned()),
                        ..ObjectMeta::default()
                    },
                    spec: ManagedClusterSetSpec {
                        cluster_selector,
                        ..ManagedClusterSetSpec::default()
                    },
                    ..ManagedClusterSet::default()
                };
                self.writer.create(&api, &set, &subject).await?
            }
            (Decision::Restore(selector), Some(observed)) => {
                // A merge keeps what it does not name: say that the rest of the selector is to go.
                let mut value = json!({"labelSelector": null});
                if let (Some(into), Ok(serde_json::Value::Object(from))) =
                    (value.as_object_mut(), serde_json::to_value(&selector))
                {
                    into.extend(from);
                }
                if selector.label_selector.is_some() {
                    value["labelSelector"] = json!({"matchLabels": null, "matchExpressions": null});
                }
                let patch = json!({"spec": {"clusterSelector": value}});
                let patch = guarded(patch, &observed.uid, Some(&observed.resource_version));
                self.writer.patch(&api, name, None, &patch, &subject).await?
            }
            _ => return Ok(Next::Idle),
        };
        self.sets.wrote(&answer);
        Ok(Next::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_sets_are_kept_unless_somebody_wants_them_otherwise() {
        let Decision::Create(global) = decide("global", None) else {
            panic!("not made")
        };
        assert_eq!(global.label_selector, Some(LabelSelector::default()));
        let Decision::Create(default) = decide("default", None) else {
            panic!("not made")
        };
        let mut view = SetView {
            uid: String::new(),
            resource_version: String::new(),
            deleting: false,
            own_way: false,
            selector: default.clone(),
            namespaces: Vec::new(),
            conditions: Vec::new(),
        };
        assert_eq!(decide("default", Some(&view)), Decision::Leave);
        view.selector = global;
        assert_eq!(decide("default", Some(&view)), Decision::Restore(default));
        view.own_way = true;
        assert_eq!(decide("default", Some(&view)), Decision::Leave);
        assert_eq!(decide("somebody-elses", None), Decision::Leave);
    }
}
