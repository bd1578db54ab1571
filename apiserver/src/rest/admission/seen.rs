//! A write as webhooks and policies see it: in the version they asked for, with who, where and how.

use super::hooks::Index;
use super::{Operation, Review, matching};
use crate::auth::Attributes;
use crate::object;
use crate::registry::{Resource, convert};
use crate::rest::{Api, scale};
use crate::schema::cel::free::{Converted, Given, Needs};
use crate::store::Key;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// A write with its objects.
pub struct Seen<'a> {
    /// The server.
    pub api: &'a Api,
    /// What is done.
    pub review: &'a Review<'a>,
    /// The new object; `None` for a deletion.
    pub new: Option<&'a Value>,
    /// The object as it was; `None` for a creation.
    pub old: Option<&'a Value>,
    needs: &'a Needs,
    known: Known,
}

/// What several webhooks and policies look at, made when the first of them does.
#[derive(Default)]
struct Known {
    /// The resource in all its versions.
    versions: OnceLock<Vec<Arc<Resource>>>,
    namespace: OnceLock<Option<Value>>,
    // As expressions see them, in the request's own version.
    given: OnceLock<Given<'static>>,
    namespace_object: OnceLock<Converted>,
}

/// The API version in which a webhook or policy looks at a write.
#[derive(Debug, Clone)]
pub struct Matched {
    /// The resource in that version.
    pub resource: Arc<Resource>,
    /// It is another one than the request's.
    converted: bool,
}

impl<'a> Seen<'a> {
    /// A write as it is now, to be held against what is in `index`.
    pub fn new(
        api: &'a Api,
        review: &'a Review<'a>,
        index: &'a Index,
        new: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> Self {
        Self {
            api,
            review,
            new,
            old,
            needs: &index.needs,
            known: Known::default(),
        }
    }

    /// The request's own version.
    pub fn own(&self) -> Matched {
        Matched {
            resource: Arc::clone(self.review.resource),
            converted: false,
        }
    }

    /// The version in which `rules` want this write: the request's own or, unless the policy is `Exact`, an equivalent one.
    pub fn matched(&self, rules: &Value, policy: &Value) -> Option<Matched> {
        if rules.as_array().is_none_or(Vec::is_empty) {
            return None;
        }
        let own = self.review.resource;
        if matching::rules(rules, &self.subject(own)) {
            return Some(self.own());
        }
        if policy == "Exact" {
            return None;
        }
        let versions = self
            .known
            .versions
            .get_or_init(|| self.api.registry.stored_as(&own.storage));
        let found = versions
            .iter()
            .find(|r| matching::rules(rules, &self.subject(r)))?;
        Some(Matched {
            resource: Arc::clone(found),
            converted: true,
        })
    }

    fn subject<'r>(&'r self, resource: &'r Resource) -> matching::Subject<'r> {
        matching::Subject {
            operation: self.review.operation,
            resource,
            subresource: self.review.subresource,
            name: self.review.name,
        }
    }

    /// Whether both selectors of a webhook, policy or binding want this write.
    pub fn selected(&self, of: &Value) -> bool {
        let namespaces = &of["namespaceSelector"];
        let namespace = matching::is_everything(namespaces)
            || matching::namespace(namespaces, self.namespace_labels().as_ref());
        namespace && matching::objects(&of["objectSelector"], self.new, self.old)
    }

    fn namespace_labels(&self) -> Option<Value> {
        let is_namespace = &*self.review.resource.storage == "/namespaces";
        let labels = |object: &Value| object["metadata"]["labels"].clone();
        if is_namespace {
            return self.new.or(self.old).map(labels);
        }
        let namespaced = self.review.resource.namespaced;
        namespaced.then(|| self.namespace().map_or(Value::Null, labels))
    }

    /// The namespace the object is in.
    fn namespace(&self) -> Option<&Value> {
        let found = self.known.namespace.get_or_init(|| {
            let key = Key::new("/namespaces", "", self.review.namespace);
            let found = (!self.review.namespace.is_empty()).then(|| self.api.store.get(&key));
            found.flatten().map(|entry| entry.value())
        });
        found.as_ref()
    }

    /// `object`, `oldObject`, `request` and `authorizer` of expressions in the request's own version, for all who see it so.
    pub fn given(&self, matched: &Matched) -> Option<&Given<'static>> {
        let make = || {
            let mut given = Given::default();
            self.give(matched, &mut given);
            given
        };
        (!matched.converted).then(|| self.known.given.get_or_init(make))
    }

    /// Gives expressions the same as `matched` sees it.
    pub fn give(&self, matched: &Matched, given: &mut Given<'_>) {
        given.give("object", Converted::part(&self.object(matched), self.needs));
        given.give(
            "oldObject",
            Converted::part(&self.old_object(matched), self.needs),
        );
        given.give("request", Converted::of(&self.request(matched, "")));
        given.set_authorizer(&self.api.authorizer, self.review.user, self.attributes());
    }

    /// `namespaceObject` of expressions.
    pub fn namespace_object(&self) -> Converted {
        let make = || Converted::of(self.namespace().unwrap_or(&Value::Null));
        self.known.namespace_object.get_or_init(make).clone()
    }

    fn shown<'v>(&self, value: &'v Value, matched: &Matched) -> Cow<'v, Value> {
        let own = self.review.resource;
        if self.review.subresource == "scale" {
            return Cow::Owned(scale::of(own, value));
        }
        if !matched.converted {
            return Cow::Borrowed(value);
        }
        let stored = convert::to_storage(own, value.clone());
        Cow::Owned(convert::from_storage(&matched.resource, stored))
    }

    /// The new object, as `matched` sees it; null when there is none.
    pub fn object(&self, matched: &Matched) -> Cow<'_, Value> {
        self.new
            .map_or(Cow::Owned(Value::Null), |v| self.shown(v, matched))
    }

    /// The old object, as `matched` sees it; null when there is none.
    pub fn old_object(&self, matched: &Matched) -> Cow<'_, Value> {
        self.old
            .map_or(Cow::Owned(Value::Null), |v| self.shown(v, matched))
    }

    fn kind_of(&self, r: &Resource) -> Value {
        match self.review.subresource {
            "scale" => return json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}),
            "eviction" => return json!({"group": "policy", "version": "v1", "kind": "Eviction"}),
            "binding" => return json!({"group": "", "version": "v1", "kind": "Binding"}),
            _ => {}
        }
        json!({"group": r.group, "version": r.version, "kind": r.kind})
    }

    fn options(&self) -> Value {
        let kind = match self.review.operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
        };
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.review.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    /// `request` of expressions and reviews, without the objects (`admission.k8s.io/v1 AdmissionRequest`).
    pub fn request(&self, matched: &Matched, uid: &str) -> Value {
        let (own, r) = (self.review.resource, &matched.resource);
        let resource = |r: &Resource| json!({"group": r.group, "version": r.version, "resource": r.plural});
        let mut request = json!({
            "uid": uid,
            "kind": self.kind_of(r),
            "resource": resource(r),
            "requestKind": self.kind_of(own),
            "requestResource": resource(own),
            "operation": self.review.operation.as_str(),
            "userInfo": self.review.user.to_value(),
            "dryRun": self.review.dry_run,
            "options": self.options(),
        });
        let fields = [
            ("subResource", self.review.subresource),
            ("requestSubResource", self.review.subresource),
            ("name", self.review.name),
            ("namespace", self.review.namespace),
        ];
        for (field, text) in fields {
            if !text.is_empty() {
                request[field] = text.into();
            }
        }
        if &*own.storage == "/namespaces" {
            // Requests about a namespace are requests in it.
            let name = self.new.or(self.old).map_or(self.review.name, object::name);
            request["namespace"] = name.into();
        }
        request
    }

    /// The request as authorization sees it.
    pub fn attributes(&self) -> Attributes {
        let r = self.review.resource;
        let verb = match self.review.operation {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
        };
        Attributes {
            version: r.version.clone(),
            subresource: self.review.subresource.to_owned(),
            ..Attributes::resource(verb, &r.group, &r.plural, self.review.namespace, self.review.name)
        }
    }
}
