//! RBAC decisions: a pure function of an index of the stored roles and bindings (rbac.authorization.k8s.io/v1).

use super::rules::Rule;
use super::types::{Attributes, Decision, SYSTEM_MASTERS, UserInfo};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Kinds of a binding's `roleRef`.
const ROLE: &str = "Role";
const CLUSTER_ROLE: &str = "ClusterRole";

/// The four resources of RBAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// `clusterroles`
    ClusterRoles,
    /// `roles`
    Roles,
    /// `clusterrolebindings`
    ClusterRoleBindings,
    /// `rolebindings`
    RoleBindings,
}

impl Resource {
    /// All of them, roles first: an index filled in this order never sees a binding before its role.
    pub const ALL: [Self; 4] = [
        Self::ClusterRoles,
        Self::Roles,
        Self::ClusterRoleBindings,
        Self::RoleBindings,
    ];

    /// The plural.
    pub fn plural(self) -> &'static str {
        match self {
            Self::ClusterRoles => "clusterroles",
            Self::Roles => "roles",
            Self::ClusterRoleBindings => "clusterrolebindings",
            Self::RoleBindings => "rolebindings",
        }
    }

    /// The one with this plural.
    pub fn named(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.plural() == plural)
    }
}

/// Who a binding can be found by. A ServiceAccount is found by its user name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    User(Arc<str>),
    Group(Arc<str>),
}

/// One subject of a binding: how to find it, and how reasons show it.
#[derive(Debug, Clone)]
struct BoundSubject {
    who: Who,
    shown: String,
}

/// What a binding refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRef {
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl RoleRef {
    /// The `roleRef` of a binding.
    pub fn of(binding: &Value) -> Self {
        let text = |field: &str| binding["roleRef"][field].as_str().unwrap_or_default().to_owned();
        Self {
            kind: text("kind"),
            name: text("name"),
        }
    }

    /// The plural of what is referred to.
    pub fn plural(&self) -> &'static str {
        if self.kind == CLUSTER_ROLE {
            "clusterroles"
        } else {
            "roles"
        }
    }

    /// How errors say that it is not there.
    fn not_found(&self) -> String {
        format!(
            "{}.{GROUP} {:?} not found",
            self.plural().trim_end_matches('s'),
            self.name
        )
    }
}

#[derive(Debug)]
struct Binding {
    role: RoleRef,
    subjects: Vec<BoundSubject>,
}

/// (namespace, name); the namespace is `""` for cluster-wide objects, which therefore come first.
type Id = (Arc<str>, Arc<str>);

/// Every role and binding, bindings findable by whom they bind. Kept current object by object.
#[derive(Debug, Default)]
pub struct Index {
    roles: HashMap<Id, Arc<[Rule]>>,
    bindings: HashMap<Id, Arc<Binding>>,
    by_subject: HashMap<Who, BTreeMap<Id, Arc<Binding>>>,
}

/// One rule that applies to a user, and through what.
struct Grant<'a> {
    rule: &'a Rule,
    id: &'a Id,
    role: &'a RoleRef,
    subject: &'a BoundSubject,
}

impl Index {
    /// Takes in the present state of one object; `None` when it is gone.
    pub fn set(&mut self, resource: Resource, namespace: &str, name: &str, object: Option<&Value>) {
        let id: Id = (namespace.into(), name.into());
        match resource {
            Resource::ClusterRoles | Resource::Roles => {
                match object {
                    Some(role) => self.roles.insert(id, Rule::list(&role["rules"]).into()),
                    None => self.roles.remove(&id),
                };
            }
            Resource::ClusterRoleBindings | Resource::RoleBindings => self.set_binding(id, object),
        }
    }

    fn set_binding(&mut self, id: Id, object: Option<&Value>) {
        if let Some(old) = self.bindings.remove(&id) {
            for subject in &old.subjects {
                if let Some(bound) = self.by_subject.get_mut(&subject.who) {
                    bound.remove(&id);
                    if bound.is_empty() {
                        self.by_subject.remove(&subject.who);
                    }
                }
            }
        }
        let Some(object) = object else { return };
        let subjects = object["subjects"].as_array().into_iter().flatten();
        let binding = Arc::new(Binding {
            role: RoleRef::of(object),
            subjects: subjects.filter_map(|s| bound_subject(s, &id.0)).collect(),
        });
        for subject in &binding.subjects {
            let bound = self.by_subject.entry(subject.who.clone()).or_default();
            bound.insert(id.clone(), Arc::clone(&binding));
        }
        self.bindings.insert(id, binding);
    }

    /// The rules of a role that a binding in `namespace` refers to; `None` when there is no such role.
    pub fn role_rules(&self, role: &RoleRef, namespace: &str) -> Option<&[Rule]> {
        let namespace = match role.kind.as_str() {
            ROLE => namespace,
            CLUSTER_ROLE => "",
            _ => return None,
        };
        self.roles
            .get(&(namespace.into(), role.name.as_str().into()))
            .map(|r| &**r)
    }

    /// Calls `visit` with every rule the user has in `namespace` (`""` for cluster-wide ones only) until it says stop, cluster
    /// bindings first, each by name. What could not be resolved comes back.
    fn visit<'a>(
        &'a self,
        user: &UserInfo,
        namespace: &str,
        mut visit: impl FnMut(Grant<'a>) -> bool,
    ) -> Vec<String> {
        let mut errors = Vec::new();
        let whos = std::iter::once(Who::User(user.name.as_str().into()))
            .chain(user.groups.iter().map(|g| Who::Group(g.as_str().into())));
        let found: Vec<_> = whos.filter_map(|w| self.by_subject.get_key_value(&w)).collect();
        for scope in ["", namespace] {
            let first: Id = (scope.into(), "".into());
            let mut bindings: BTreeMap<&Id, (&Who, &Binding)> = BTreeMap::new();
            for (who, bound) in &found {
                for (id, binding) in bound.range(first.clone()..).take_while(|(id, _)| *id.0 == *scope) {
                    bindings.entry(id).or_insert((who, binding));
                }
            }
            for (id, (who, binding)) in bindings {
                let Some(rules) = self.role_rules(&binding.role, scope) else {
                    errors.push(binding.role.not_found());
                    continue;
                };
                let Some(subject) = binding.subjects.iter().find(|s| s.who == *who) else {
                    continue;
                };
                for rule in rules {
                    if !visit(Grant {
                        rule,
                        id,
                        role: &binding.role,
                        subject,
                    }) {
                        return errors;
                    }
                }
            }
            if namespace.is_empty() {
                break;
            }
        }
        errors
    }

    /// Every rule the user has in `namespace`, and what went wrong collecting them.
    pub fn rules(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let mut rules = Vec::new();
        let errors = self.visit(user, namespace, |grant| {
            rules.push(grant.rule.clone());
            true
        });
        (rules, errors)
    }
}

fn bound_subject(subject: &Value, namespace: &str) -> Option<BoundSubject> {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str().unwrap_or_default() {
        "User" => Some(BoundSubject {
            who: Who::User(name.into()),
            shown: format!("User {name:?}"),
        }),
        "Group" => Some(BoundSubject {
            who: Who::Group(name.into()),
            shown: format!("Group {name:?}"),
        }),
        "ServiceAccount" => {
            let own = subject["namespace"].as_str().unwrap_or_default();
            let namespace = if own.is_empty() { namespace } else { own };
            if namespace.is_empty() {
                return None;
            }
            Some(BoundSubject {
                who: Who::User(service_account_user(namespace, name).into()),
                shown: format!("ServiceAccount {:?}", format!("{name}/{namespace}")),
            })
        }
        _ => None,
    }
}

/// The user name of a ServiceAccount.
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// May `user` do `attributes`? Members of system:masters may anything; everyone else what some binding grants.
pub fn evaluate(index: &Index, user: &UserInfo, attributes: &Attributes) -> Decision {
    if user.in_group(SYSTEM_MASTERS) {
        return Decision::Allowed(String::new());
    }
    let combined = attributes.combined_resource();
    let namespace = if attributes.is_resource {
        attributes.namespace.as_str()
    } else {
        ""
    };
    let mut reason = None;
    let errors = index.visit(user, namespace, |grant| {
        if !grant.rule.allows(attributes, &combined) {
            return true;
        }
        let (scope, name) = grant.id;
        let binding = if scope.is_empty() {
            format!("ClusterRoleBinding {name:?}")
        } else {
            format!("RoleBinding {:?}", format!("{name}/{scope}"))
        };
        reason = Some(format!(
            "RBAC: allowed by {binding} of {} {:?} to {}",
            grant.role.kind, grant.role.name, grant.subject.shown
        ));
        false
    });
    match reason {
        Some(reason) => Decision::Allowed(reason),
        None if errors.is_empty() => Decision::NoOpinion(String::new()),
        None => Decision::NoOpinion(format!("RBAC: {}", aggregate(&errors))),
    }
}

/// Several errors in one sentence, as apimachinery's Aggregate writes them: each once, in brackets when more than one.
pub fn aggregate(errors: &[String]) -> String {
    let mut once: Vec<&str> = Vec::new();
    for error in errors {
        if !once.contains(&error.as_str()) {
            once.push(error);
        }
    }
    if once.len() == 1 {
        once[0].to_owned()
    } else {
        format!("[{}]", once.join(", "))
    }
}
