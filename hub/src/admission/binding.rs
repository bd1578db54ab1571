//! What is refused of ManagedClusterSetBindings (ocm-wire §8).

use muster_crds::cluster;
use serde::Deserialize;

use super::review::{Attributes, Check, Decision, Question, Refusal, User};

/// What the rules look at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Binding {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    cluster_set: String,
}

/// A binding has the name of its set, and who makes one may bind the set.
pub fn validate(user: &User, new: &Binding, old: Option<&Binding>) -> Decision {
    let set = &new.spec.cluster_set;
    if new.metadata.name != *set {
        return Err(Refusal::bad_request(
            "The ManagedClusterSetBinding must have the same name as the target ManagedClusterSet",
        ));
    }
    if old.is_some() {
        return Ok(Vec::new());
    }
    let right = Attributes {
        group: cluster::GROUP,
        resource: "managedclustersets",
        subresource: "bind",
        verb: "create",
        name: set.clone(),
        ..Attributes::default()
    };
    let why = format!(
        "user {:?} is not allowed to bind cluster set {set:?}",
        user.username
    );
    Ok(vec![Check {
        question: Question::May(right),
        refusal: Refusal::forbidden("managedclustersets/bind", set, why),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(name: &str, set: &str) -> Binding {
        Binding {
            metadata: Metadata {
                name: name.to_owned(),
            },
            spec: Spec {
                cluster_set: set.to_owned(),
            },
        }
    }

    #[test]
    fn a_binding_is_named_like_its_set_and_made_by_who_may_bind_it() {
        let user = User {
            username: "jane".to_owned(),
            ..User::default()
        };
        let other = "The ManagedClusterSetBinding must have the same name as the target ManagedClusterSet";
        for (new, old) in [
            (binding("a", "b"), None),
            (binding("a", ""), None),
            (binding("a", "b"), Some(binding("a", "a"))),
        ] {
            let refusal = validate(&user, &new, old.as_ref()).unwrap_err();
            assert_eq!(refusal, Refusal::bad_request(other));
        }
        let checks = validate(&user, &binding("a", "a"), None).unwrap();
        let [
            Check {
                question: Question::May(right),
                refusal,
            },
        ] = &checks[..]
        else {
            panic!("{checks:?}")
        };
        assert_eq!(
            (right.subresource, right.verb, right.name.as_str()),
            ("bind", "create", "a")
        );
        assert_eq!(
            refusal.message(),
            "managedclustersets/bind.cluster.open-cluster-management.io \"a\" is forbidden: \
             user \"jane\" is not allowed to bind cluster set \"a\""
        );
        // Who may change a binding may change its labels.
        let old = binding("a", "a");
        assert_eq!(validate(&user, &binding("a", "a"), Some(&old)), Ok(Vec::new()));
    }
}
