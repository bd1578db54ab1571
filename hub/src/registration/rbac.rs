//! What an accepted, and what a denied, cluster may do at the hub (ocm-wire §2.5), as objects.

use std::collections::{BTreeMap, BTreeSet};

use muster_crds::{
    constants::{annotations, finalizers, labels, names},
    names as naming,
};
use serde_json::{Value, json};

use super::view;

/// The kinds of objects the hub makes for clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// core/v1
    Namespace,
    /// rbac.authorization.k8s.io/v1
    ClusterRole,
    /// rbac.authorization.k8s.io/v1
    ClusterRoleBinding,
    /// rbac.authorization.k8s.io/v1
    RoleBinding,
    /// coordination.k8s.io/v1
    Lease,
}

impl Kind {
    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ClusterRole => "ClusterRole",
            Self::ClusterRoleBinding => "ClusterRoleBinding",
            Self::RoleBinding => "RoleBinding",
            Self::Lease => "Lease",
        }
    }
}

/// An object as the hub wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty when it has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// All of it, but for `apiVersion` and `kind`.
    pub body: Value,
    /// Hash of what may change in it, as [`view::content`] makes it.
    pub content: u64,
    /// Hash of its `roleRef`.
    pub role_ref: u64,
}

impl Desired {
    fn new(
        kind: Kind,
        namespace: &str,
        name: String,
        labels: &BTreeMap<String, String>,
        mut body: Value,
    ) -> Self {
        let keys: BTreeSet<String> = labels.keys().cloned().collect();
        let content = view::content(Some(labels), &body, &keys);
        let role_ref = view::role_ref(&body);
        body["metadata"]["name"] = json!(name);
        body["metadata"]["labels"] = json!(labels);
        if !namespace.is_empty() {
            body["metadata"]["namespace"] = json!(namespace);
        }
        Self {
            kind,
            namespace: namespace.to_owned(),
            name,
            body,
            content,
            role_ref,
        }
    }
}

/// The keys of the labels that the hub sets on everything it makes, given its own `--labels`.
pub fn label_keys(extra: &BTreeMap<String, String>) -> BTreeSet<String> {
    extra
        .keys()
        .cloned()
        .chain([labels::CLUSTER_NAME.to_owned()])
        .collect()
}

fn labels_for(cluster: &str, extra: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = extra.clone();
    all.insert(labels::CLUSTER_NAME.to_owned(), cluster.to_owned());
    all
}

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn rule_on(name: &str, groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "resourceNames": [name], "verbs": verbs})
}

/// Most agents of a name that are remembered.
const MOST_FORMER: usize = 50;

/// Who has the rights of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holders {
    /// Whoever has a certificate in its group, as in OCM.
    Group,
    /// One agent: others had the name before, and have certificates in its group.
    Agent(String),
}

impl Holders {
    /// Of a cluster with this agent, after the former ones in order.
    pub fn of(agent: Option<&String>, former: &[String]) -> Self {
        match agent.or(former.last()) {
            Some(agent) if former.iter().any(|other| other != agent) => Self::Agent(agent.clone()),
            // The one that left and was let in again may have another's certificate beside it: none that is known.
            _ => Self::Group,
        }
    }
}

/// Former agents with one more, the last one last.
pub fn with_former(former: &[String], agent: &str) -> Vec<String> {
    let others = former.iter().filter(|other| *other != agent).cloned();
    let mut all: Vec<String> = others.chain([agent.to_owned()]).collect();
    let surplus = all.len().saturating_sub(MOST_FORMER);
    all.drain(..surplus);
    all
}

fn subjects(cluster: &str, holders: &Holders) -> Value {
    let subject = |kind: &str, name: String| json!({"apiGroup": RBAC_GROUP, "kind": kind, "name": name});
    match holders {
        Holders::Group => json!([
            subject("Group", naming::cluster_group(cluster)),
            subject("Group", naming::extra_cluster_group(cluster))
        ]),
        Holders::Agent(agent) => json!([subject("User", naming::user(cluster, agent))]),
    }
}

fn role_ref(role: &str) -> Value {
    json!({"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role})
}

/// The namespace of a cluster.
pub fn namespace(cluster: &str, extra: &BTreeMap<String, String>) -> Desired {
    Desired::new(
        Kind::Namespace,
        "",
        cluster.to_owned(),
        &labels_for(cluster, extra),
        json!({}),
    )
}

/// The same with the agents that had the cluster's name.
pub fn namespace_of(cluster: &str, former: &[String], extra: &BTreeMap<String, String>) -> Desired {
    let mut desired = namespace(cluster, extra);
    desired.body["metadata"]["annotations"] = json!({annotations::FORMER_AGENTS: former.join(",")});
    desired
}

/// The ClusterRole of a cluster that is accepted, or denied.
pub fn cluster_role(cluster: &str, accepted: bool, extra: &BTreeMap<String, String>) -> Desired {
    let group = muster_crds::cluster::GROUP;
    let rules = if accepted {
        json!([
            rule(
                &["certificates.k8s.io"],
                &["certificatesigningrequests"],
                &["create", "get", "list", "watch"]
            ),
            rule(
                &[names::REGISTER_GROUP],
                &["managedclusters/clientcertificates"],
                &["renew"]
            ),
            rule_on(
                cluster,
                &[group],
                &["managedclusters"],
                &["get", "list", "update", "watch"]
            ),
            rule_on(
                cluster,
                &[group],
                &["managedclusters/status"],
                &["patch", "update"]
            ),
        ])
    } else {
        json!([rule_on(
            cluster,
            &[group],
            &["managedclusters"],
            &["get", "list", "watch"]
        )])
    };
    let labels = labels_for(cluster, extra);
    Desired::new(
        Kind::ClusterRole,
        "",
        naming::cluster_role(cluster),
        &labels,
        json!({"rules": rules}),
    )
}

/// Binds a cluster's ClusterRole to its agents.
pub fn cluster_role_binding(cluster: &str, holders: &Holders, extra: &BTreeMap<String, String>) -> Desired {
    let name = naming::cluster_role(cluster);
    let body = json!({"roleRef": role_ref(&name), "subjects": subjects(cluster, holders)});
    Desired::new(
        Kind::ClusterRoleBinding,
        "",
        name,
        &labels_for(cluster, extra),
        body,
    )
}

/// Lets a cluster's agents register in its namespace.
pub fn registration_binding(cluster: &str, holders: &Holders, extra: &BTreeMap<String, String>) -> Desired {
    let body = json!({"roleRef": role_ref(names::REGISTRATION_CLUSTER_ROLE), "subjects": subjects(cluster, holders)});
    let name = naming::registration_role_binding(cluster);
    Desired::new(
        Kind::RoleBinding,
        cluster,
        name,
        &labels_for(cluster, extra),
        body,
    )
}

/// Lets a cluster's agents work in its namespace. It has a finalizer: agents keep it until their works are gone.
pub fn work_binding(cluster: &str, holders: &Holders, extra: &BTreeMap<String, String>) -> Desired {
    let body = json!({
        "metadata": {"finalizers": [finalizers::MANIFEST_WORK]},
        "roleRef": role_ref(names::WORK_CLUSTER_ROLE),
        "subjects": subjects(cluster, holders),
    });
    let name = naming::work_role_binding(cluster);
    Desired::new(
        Kind::RoleBinding,
        cluster,
        name,
        &labels_for(cluster, extra),
        body,
    )
}

/// Whether that is the name of a ClusterRole that all clusters share.
pub fn is_shared(role: &str) -> bool {
    [names::REGISTRATION_CLUSTER_ROLE, names::WORK_CLUSTER_ROLE].contains(&role)
}

/// The two ClusterRoles that all clusters' RoleBindings name.
pub fn shared_roles(extra: &BTreeMap<String, String>) -> [Desired; 2] {
    let addon = muster_crds::addon::GROUP;
    let work = muster_crds::work::GROUP;
    let registration = json!([
        rule(
            &["coordination.k8s.io"],
            &["leases"],
            &["get", "list", "watch", "update"]
        ),
        rule(&[addon], &["managedclusteraddons"], &["get", "list", "watch"]),
        rule(&[addon], &["managedclusteraddons/status"], &["patch", "update"]),
        rule(&["events.k8s.io"], &["events"], &["create"]),
    ]);
    let working = json!([
        rule(
            &["", "events.k8s.io"],
            &["events"],
            &["create", "patch", "update"]
        ),
        rule(
            &[work],
            &["manifestworks"],
            &["get", "list", "watch", "update", "patch"]
        ),
        rule(&[work], &["manifestworks/status"], &["patch", "update"]),
    ]);
    [
        (names::REGISTRATION_CLUSTER_ROLE, registration),
        (names::WORK_CLUSTER_ROLE, working),
    ]
    .map(|(name, rules)| {
        Desired::new(
            Kind::ClusterRole,
            "",
            name.to_owned(),
            &labels_for("", extra),
            json!({"rules": rules}),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_bound_to_both_forms_of_the_group_and_named_after_the_cluster() {
        let none = BTreeMap::new();
        let binding = work_binding("c1", &Holders::Group, &none);
        assert_eq!(binding.name, "open-cluster-management:managedcluster:c1:work");
        assert_eq!(
            binding.body["subjects"][0]["name"],
            "system:open-cluster-management:c1"
        );
        assert_eq!(binding.body["subjects"][1]["name"], "open-cluster-management:c1");
        assert_eq!(
            binding.body["metadata"]["finalizers"][0],
            finalizers::MANIFEST_WORK
        );
        assert_eq!(binding.body["metadata"]["labels"][labels::CLUSTER_NAME], "c1");
        let denied = cluster_role("c1", false, &none);
        assert_eq!(denied.body["rules"].as_array().unwrap().len(), 1);
        assert_ne!(denied.content, cluster_role("c1", true, &none).content);
        for role in shared_roles(&none) {
            assert_eq!(role.body["metadata"]["labels"][labels::CLUSTER_NAME], "");
        }
    }

    #[test]
    fn rights_are_one_agents_alone_once_others_had_the_name() {
        let (a, b) = ("a".to_owned(), "b".to_owned());
        let alone = |agent: &str| Holders::Agent(agent.to_owned());
        for (agent, former, wanted) in [
            (None, vec![], Holders::Group),
            (Some(&a), vec![], Holders::Group),
            (Some(&a), vec!["a"], Holders::Group),
            (Some(&b), vec!["a"], alone("b")),
            (Some(&a), vec!["a", "b"], alone("a")),
            // It left, and is let in again before it asked for another certificate.
            (None, vec!["a"], Holders::Group),
            (None, vec!["b", "a"], alone("a")),
        ] {
            let former: Vec<String> = former.into_iter().map(str::to_owned).collect();
            assert_eq!(Holders::of(agent, &former), wanted, "{agent:?} {former:?}");
        }
        let binding = registration_binding("c1", &alone("b"), &BTreeMap::new());
        assert_eq!(
            binding.body["subjects"],
            json!([{"apiGroup": RBAC_GROUP, "kind": "User", "name": "system:open-cluster-management:c1:b"}])
        );
        assert_eq!(with_former(&["a".into(), "b".into()], "a"), ["b", "a"]);
        let many: Vec<String> = (0..60).map(|n| n.to_string()).collect();
        assert_eq!(with_former(&many, "last").len(), MOST_FORMER);
    }

    #[test]
    fn what_comes_back_from_the_server_compares_equal_and_every_change_is_seen() {
        let extra = BTreeMap::from([("team".to_owned(), "x".to_owned())]);
        let keys = label_keys(&extra);
        let wanted = cluster_role("c1", true, &extra);
        let observe = |body: &Value| {
            let metadata = serde_json::from_value(body["metadata"].clone()).unwrap();
            view::ObjectView::of(&metadata, body, &keys).content
        };
        let mut served = wanted.body.clone();
        served["metadata"]["labels"]["somebody"] = json!("else's");
        served["metadata"]["uid"] = json!("u");
        assert_eq!(observe(&served), wanted.content);
        for (pointer, value) in [
            ("/metadata/labels/team", json!("y")),
            ("/rules/1/verbs", json!(["renew", "update"])),
            ("/rules/2/resourceNames/0", json!("c2")),
        ] {
            let mut changed = served.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            assert_ne!(observe(&changed), wanted.content, "{pointer}");
        }
    }
}
