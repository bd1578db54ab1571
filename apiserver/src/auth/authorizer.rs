//! The authorizer: RBAC over the store's current roles and bindings, and the checks that keep people from granting
//! themselves more than they have.

use super::rbac::{self, GROUP, Index, Resource, RoleRef};
use super::rules::{Rule, quoted, uncovered};
use super::types::{Attributes, Decision, SYSTEM_MASTERS, UserInfo};
use crate::error::{ApiError, Subject};
use crate::object;
use crate::store::{Range, Store, StoreError, Watch};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::watch;

/// Decides by the RBAC objects in the store.
///
/// Every decision first takes in what was written since the last one, so it is never older than the store was when it was
/// asked. Reading along costs one look at four queues when nothing changed.
pub struct Authorizer {
    store: Store,
    // Lock order: feed, then index.
    feed: Mutex<Feed>,
    index: RwLock<Index>,
    revoked: watch::Sender<()>,
}

/// Where the authorizer is in the store's log; `None` before the first look, and after having fallen behind.
#[derive(Default)]
struct Feed(Option<Vec<(Resource, Watch)>>);

/// What a user may do in a namespace, as SelfSubjectRulesReview tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Rules about resources.
    pub resource: Vec<Rule>,
    /// Rules about paths.
    pub non_resource: Vec<Rule>,
    /// What could not be resolved.
    pub errors: Vec<String>,
}

impl Authorizer {
    /// An authorizer over `store`.
    pub fn new(store: Store) -> Arc<Self> {
        Arc::new(Self {
            store,
            feed: Mutex::default(),
            index: RwLock::default(),
            revoked: watch::Sender::default(),
        })
    }

    /// Changes when rights may have been taken away: what goes on for long asks anew then. Somebody has to run
    /// [`super::revocation::follow`].
    pub fn revoked(&self) -> watch::Receiver<()> {
        self.revoked.subscribe()
    }

    /// Tells of it.
    pub(super) fn tell_revoked(&self) {
        self.revoked.send_replace(());
    }

    /// The store.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// May `user` do this, by the store as it is now? No, with the reason, when the store cannot be read.
    pub fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        if user.in_group(SYSTEM_MASTERS) {
            return Decision::Allowed(String::new());
        }
        match self.current() {
            Ok(index) => rbac::evaluate(&index, user, attributes),
            Err(error) => Decision::NoOpinion(format!("RBAC: {error}")),
        }
    }

    /// As [`Self::authorize`], with kube-apiserver's 403 for a no.
    pub fn require(&self, user: &UserInfo, attributes: &Attributes) -> Result<(), ApiError> {
        match self.authorize(user, attributes) {
            Decision::Allowed(_) => Ok(()),
            Decision::NoOpinion(reason) => Err(attributes.forbidden(user, &reason)),
        }
    }

    /// Every rule `user` has in `namespace`.
    pub fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let (all, errors) = match self.current() {
            Ok(index) => index.rules(user, namespace),
            Err(error) => (Vec::new(), vec![error.to_string()]),
        };
        let mut rules = Rules {
            errors,
            ..Rules::default()
        };
        for rule in all {
            if !rule.resources.is_empty() {
                rules.resource.push(Rule {
                    non_resource_urls: Vec::new(),
                    ..rule.clone()
                });
            }
            if !rule.non_resource_urls.is_empty() {
                rules.non_resource.push(Rule::urls_of(rule));
            }
        }
        rules
    }

    /// May `user` hand out `rules` in `namespace` (`""`: everywhere)? Only what they hold themselves. The error is about
    /// `subject`, the role or binding being written.
    pub fn check_escalation(
        &self,
        user: &UserInfo,
        rules: &[Rule],
        namespace: &str,
        subject: Subject,
    ) -> Result<(), ApiError> {
        if user.in_group(SYSTEM_MASTERS) {
            return Ok(());
        }
        let (held, errors) = self
            .current()
            .map_err(|e| ApiError::Internal(e.to_string()))?
            .rules(user, namespace);
        let missing = uncovered(&held, rules);
        if missing.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = missing.iter().map(Rule::compact).collect();
        let unresolved = if errors.is_empty() {
            String::new()
        } else {
            format!("; resolution errors: {}", quoted(&errors))
        };
        let message = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}{unresolved}",
            user.name,
            quoted(&user.groups),
            list.join("\n")
        );
        Err(ApiError::forbidden(subject, &message))
    }

    /// Whether `user` may write this role or binding, past having the verb for it: a role only with rules they hold (or verb
    /// `escalate`), a binding only to a role whose rules they hold (or verb `bind` on it). `old` is what it replaces.
    ///
    /// Other resources pass. To be called after admission and validation, with the object as it will be stored.
    pub fn check_write(
        &self,
        user: &UserInfo,
        group: &str,
        plural: &str,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(resource) = (group == GROUP).then(|| Resource::named(plural)).flatten() else {
            return Ok(());
        };
        // The garbage collector must be able to take off what keeps an object from going.
        if user.in_group(SYSTEM_MASTERS) || old.is_some_and(|old| only_gc_fields_change(old, new)) {
            return Ok(());
        }
        let subject = Subject::new(GROUP, plural, object::name(new));
        let namespace = object::namespace(new);
        match resource {
            Resource::ClusterRoles | Resource::Roles => self.check_role(user, resource, new, old, subject),
            Resource::ClusterRoleBindings | Resource::RoleBindings => {
                let role = RoleRef::of(new);
                let bind = Attributes::resource("bind", GROUP, role.plural(), namespace, &role.name);
                if self.authorize(user, &bind).is_allowed() {
                    return Ok(());
                }
                let rules = self
                    .current()
                    .map_err(|e| ApiError::Internal(e.to_string()))?
                    .role_rules(&role, namespace)
                    .map(<[Rule]>::to_vec)
                    .ok_or_else(|| ApiError::NotFound(Subject::new(GROUP, plural, &role.name)))?;
                self.check_escalation(user, &rules, namespace, subject)
            }
        }
    }

    fn check_role(
        &self,
        user: &UserInfo,
        resource: Resource,
        new: &Value,
        old: Option<&Value>,
        subject: Subject,
    ) -> Result<(), ApiError> {
        let (name, namespace) = (object::name(new), object::namespace(new));
        let escalate = Attributes::resource("escalate", GROUP, resource.plural(), namespace, name);
        if self.authorize(user, &escalate).is_allowed() {
            return Ok(());
        }
        self.check_escalation(user, &Rule::list(&new["rules"]), namespace, subject.clone())?;
        let gathers = !new["aggregationRule"].is_null();
        if gathers && old.is_none_or(|old| old["aggregationRule"] != new["aggregationRule"]) {
            // Aggregation gathers whatever carries a label, now and later: only who may do all may ask for it.
            let everything = [
                Rule::resources(&["*"], &["*"], &["*"]),
                Rule::urls(&["*"], &["*"]),
            ];
            self.check_escalation(user, &everything, "", subject.clone())
                .map_err(|_| {
                    ApiError::forbidden(
                        subject,
                        "must have cluster-admin privileges to use an aggregationRule",
                    )
                })?;
        }
        Ok(())
    }

    /// The index, brought up to the store's present.
    fn current(&self) -> Result<RwLockReadGuard<'_, Index>, StoreError> {
        let mut feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.follow(&mut feed)? {
            *feed = Feed::default();
            let (index, watches) = load(&self.store)?;
            *self.index.write().unwrap_or_else(PoisonError::into_inner) = index;
            *feed = Feed(Some(watches));
        }
        // The read lock is taken before others may go on writing: what is read is not older than this call.
        Ok(self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in what is new; false when everything has to be read anew.
    fn follow(&self, feed: &mut Feed) -> Result<bool, StoreError> {
        let Some(watches) = &mut feed.0 else {
            return Ok(false);
        };
        for (resource, watch) in watches {
            while let Some(next) = watch.try_next() {
                let event = match next {
                    Ok(event) => event,
                    Err(StoreError::Compacted(_)) => return Ok(false),
                    Err(error) => return Err(error),
                };
                let value = (!event.deleted).then(|| event.entry.value());
                let key = &event.entry.key;
                let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
                index.set(*resource, &key.namespace, &key.name, value.as_ref());
            }
        }
        Ok(true)
    }
}

type Watches = Vec<(Resource, Watch)>;

fn load(store: &Store) -> Result<(Index, Watches), StoreError> {
    let mut index = Index::default();
    let mut watches = Vec::new();
    for resource in Resource::ALL {
        let stored = format!("{GROUP}/{}", resource.plural());
        let page = store.list(&Range {
            resource: stored.clone(),
            ..Range::default()
        })?;
        for entry in &page.entries {
            index.set(
                resource,
                &entry.key.namespace,
                &entry.key.name,
                Some(&entry.value()),
            );
        }
        watches.push((resource, store.watch(&stored, None, page.revision)?));
    }
    Ok((index, watches))
}

fn only_gc_fields_change(old: &Value, new: &Value) -> bool {
    let strip = |object: &Value| {
        let mut object = object.clone();
        for field in [
            "ownerReferences",
            "finalizers",
            "managedFields",
            "resourceVersion",
        ] {
            object::set_meta(&mut object, field, None);
        }
        object
    };
    strip(old) == strip(new) && old != new
}

impl Rule {
    fn urls_of(rule: Self) -> Self {
        Self {
            verbs: rule.verbs,
            non_resource_urls: rule.non_resource_urls,
            ..Self::default()
        }
    }
}
