//! The words authentication and authorization speak to each other and to the rest of the server.

use crate::error::{ApiError, Subject};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Group that may do everything, without looking at RBAC.
pub const SYSTEM_MASTERS: &str = "system:masters";
/// Group of everyone who proved who they are.
pub const ALL_AUTHENTICATED: &str = "system:authenticated";
/// Group of everyone who did not.
pub const ALL_UNAUTHENTICATED: &str = "system:unauthenticated";
/// User name of a request without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// User name of the server's own calls to itself.
pub const LOOPBACK: &str = "system:apiserver";

/// Who a request speaks for (`authentication.k8s.io/v1 UserInfo`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// User name.
    pub name: String,
    /// Identity that outlives the name; `""` when there is none.
    pub uid: String,
    /// Groups, in the order they were learned.
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user by name and groups.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            name: name.into(),
            groups: groups.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self::new(ANONYMOUS, [ALL_UNAUTHENTICATED])
    }

    /// The server itself.
    pub fn loopback() -> Self {
        Self::new(LOOPBACK, [SYSTEM_MASTERS, ALL_AUTHENTICATED])
    }

    /// Whether the user is in `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The user with `group`, once.
    #[must_use]
    pub fn with_group(mut self, group: &str) -> Self {
        if !self.in_group(group) {
            self.groups.push(group.to_owned());
        }
        self
    }

    /// As JSON: `username`, `uid`, `groups`, `extra`, each left out when empty.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        if !self.name.is_empty() {
            map.insert("username".into(), self.name.as_str().into());
        }
        if !self.uid.is_empty() {
            map.insert("uid".into(), self.uid.as_str().into());
        }
        if !self.groups.is_empty() {
            map.insert("groups".into(), self.groups.clone().into());
        }
        if !self.extra.is_empty() {
            let extra = self
                .extra
                .iter()
                .map(|(k, v)| (k.clone(), Value::from(v.clone())));
            map.insert("extra".into(), Value::Object(extra.collect()));
        }
        Value::Object(map)
    }
}

/// What a request wants to do, as authorization sees it. Parts that do not apply are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, … or for paths the lowercase HTTP method.
    pub verb: String,
    /// API group, `""` for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural resource.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace.
    pub namespace: String,
    /// Object name.
    pub name: String,
    /// Path of the request; what is decided on when this is no resource request.
    pub path: String,
    /// Whether this is about a resource, or about a path like `/metrics`.
    pub is_resource: bool,
}

impl Attributes {
    /// A request about a resource.
    pub fn resource(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            is_resource: true,
            ..Self::default()
        }
    }

    /// A request about a path.
    pub fn path(verb: &str, path: &str) -> Self {
        Self {
            verb: verb.into(),
            path: path.into(),
            ..Self::default()
        }
    }

    /// `resource` or `resource/subresource`.
    pub fn combined_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// The 403 that kube-apiserver answers when `user` may not do this; `reason` is the authorizer's, mostly `""`.
    pub fn forbidden(&self, user: &UserInfo, reason: &str) -> ApiError {
        let who = format!("User {:?} cannot {}", user.name, self.verb);
        let mut what = if self.is_resource {
            let scope = if self.namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {:?}", self.namespace)
            };
            format!(
                "{who} resource {:?} in API group {:?} {scope}",
                self.combined_resource(),
                self.group
            )
        } else {
            format!("{who} path {:?}", self.path)
        };
        if !reason.is_empty() {
            what = format!("{what}: {reason}");
        }
        if self.is_resource {
            ApiError::forbidden(Subject::new(&self.group, &self.resource, &self.name), &what)
        } else {
            ApiError::Forbidden {
                subject: Subject::default(),
                message: format!("forbidden: {what}"),
            }
        }
    }
}

/// What an authorizer says. RBAC never denies: it allows, or has no opinion, which without another authorizer is a no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and why.
    Allowed(String),
    /// Not by this authorizer, and what went wrong on the way, if anything.
    NoOpinion(String),
}

impl Decision {
    /// Whether it is a yes.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}
