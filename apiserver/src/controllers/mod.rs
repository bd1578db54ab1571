//! What kube-controller-manager does for the kinds that matter here: namespaces, garbage, certificates, CRDs, service
//! accounts, aggregated roles, finished jobs, old events, expired tokens, quotas, volumes and claims in use.
//!
//! One watch of the whole store feeds one queue ([`engine`]). Each controller observes through [`access`], decides in a
//! pure function and returns [`plan::Plan`]s, which are carried out in one place. Nothing is polled: what is about time
//! (expiry) is queued for its time.

pub mod access;
pub mod account;
pub mod address;
pub mod aggregation;
pub mod certificate;
pub mod crd;
pub mod engine;
pub mod event;
pub mod flow;
pub mod garbage;
pub mod job;
pub mod meta;
pub mod namespace;
pub mod orphan;
pub mod plan;
pub mod protection;
pub mod queue;
pub mod quota;
pub mod served;
#[cfg(test)]
pub(crate) mod tests;
pub mod token;

use crate::ApiError;
use crate::auth::tokens::{BOOTSTRAP_NAMESPACE, BOOTSTRAP_PREFIX};
use crate::pki::Ca;
use crate::rest::Api;
use crate::store::{Entry, Event};
use access::Access;
use aggregation::Gathering;
use engine::Reactor;
use garbage::Index;
use meta::Meta;
use plan::Plan;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Store keys of the kinds that controllers here know by name.
pub mod kinds {
    /// PersistentVolumeClaim.
    pub const CLAIMS: &str = "/persistentvolumeclaims";
    /// ClusterRole.
    pub const CLUSTER_ROLES: &str = "rbac.authorization.k8s.io/clusterroles";
    /// ConfigMap.
    pub const CONFIG_MAPS: &str = "/configmaps";
    /// CustomResourceDefinition.
    pub const CRDS: &str = "apiextensions.k8s.io/customresourcedefinitions";
    /// CertificateSigningRequest.
    pub const CSRS: &str = "certificates.k8s.io/certificatesigningrequests";
    /// Event.
    pub const EVENTS: &str = "/events";
    /// Job.
    pub const JOBS: &str = "batch/jobs";
    /// Namespace.
    pub const NAMESPACES: &str = "/namespaces";
    /// Pod.
    pub const PODS: &str = "/pods";
    /// Secret.
    pub const SECRETS: &str = "/secrets";
    /// ServiceAccount.
    pub const SERVICE_ACCOUNTS: &str = "/serviceaccounts";
    /// PersistentVolume.
    pub const VOLUMES: &str = "/persistentvolumes";
}

/// Starts the controllers; they stop when `shutdown` is cancelled. `ca` signs certificates, and its certificate is what
/// the ConfigMap `kube-root-ca.crt` of every namespace holds.
pub fn start(api: Api, ca: Ca, shutdown: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(run(api, ca, Times::default(), shutdown))
}

/// What controllers wait for, and how long what they make lives.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The longest life of a certificate.
    pub signing: Duration,
    /// Time from the deletion of a namespace until it is emptied.
    pub namespace_delay: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            signing: certificate::DEFAULT_TTL,
            namespace_delay: Duration::ZERO,
        }
    }
}

/// The same, to be spawned by the caller.
pub async fn run(api: Api, ca: Ca, times: Times, shutdown: CancellationToken) {
    let store = api.store.clone();
    let controllers = Controllers {
        apiserver: Access::new(api.clone(), "kube-apiserver"),
        access: Access::new(api, "kube-controller-manager"),
        ca,
        times,
        shared: Mutex::default(),
    };
    engine::run(Arc::new(controllers), store, shutdown).await;
}

/// What one item of work is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// What every namespace has.
    Defaults(Arc<str>),
    /// A namespace that is being deleted.
    Terminate(Arc<str>),
    /// An object that owns or is owned.
    Garbage(crate::store::Key),
    /// A CertificateSigningRequest.
    Certificate(Arc<str>),
    /// A CustomResourceDefinition.
    Definition(Arc<str>),
    /// The ClusterRoles that gather the rules of others.
    Aggregate,
    /// A Job that may be finished.
    Job(crate::store::Key),
    /// An Event that may be old.
    Event(crate::store::Key),
    /// A bootstrap token that may have expired.
    Token(crate::store::Key),
    /// A PersistentVolumeClaim that is to go once no Pod uses it.
    Claim(crate::store::Key),
    /// A PersistentVolume that is to go once it is not bound.
    Volume(Arc<str>),
    /// A ResourceQuota whose namespace may use less.
    Quota(crate::store::Key),
    /// A Secret that asks for a token of a ServiceAccount.
    AccountToken(crate::store::Key),
    /// The APIServices of a group with definitions.
    Group(Arc<str>),
    /// An APIService that is available or not.
    ApiService(Arc<str>),
    /// A cluster address, and the Service that has or had it.
    Address(Arc<str>, crate::store::Key),
    /// A FlowSchema that names a priority level.
    Flow(Arc<str>),
    /// A pod that is being deleted and may be on no node.
    Orphan(crate::store::Key),
}

struct Controllers {
    access: Access,
    /// The same, but as the part of kube-apiserver that keeps CRDs: their status names it as its manager.
    apiserver: Access,
    ca: Ca,
    times: Times,
    shared: Mutex<Shared>,
}

/// What is remembered of events.
#[derive(Default)]
struct Shared {
    index: Index,
    /// Roles that gather the rules of others.
    gathering: Gathering,
    /// Namespaces that are being emptied.
    terminating: BTreeSet<Arc<str>>,
    /// ResourceQuotas by namespace, with the kinds they are about.
    quotas: BTreeMap<Arc<str>, BTreeMap<crate::store::Key, BTreeSet<String>>>,
    /// Kinds (as store keys) whose definition is being deleted, with its name.
    withdrawn: BTreeMap<Arc<str>, Arc<str>>,
    /// Claims that are being deleted.
    claims: BTreeSet<crate::store::Key>,
    /// Secrets that hold a token, with the account in their namespace that it is of.
    tokens: BTreeMap<crate::store::Key, Box<str>>,
}

impl Controllers {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an object as it is now (or, with `gone`, was last) asks for. `before` is its state before the event.
    fn noticed(&self, now: &Arc<Entry>, gone: bool, before: Option<&Entry>, add: &mut dyn FnMut(Work)) {
        let key = &now.key;
        let meta = Meta::of(now);
        let mut shared = self.shared();
        shared
            .index
            .noticed(key, &meta, gone, before.map(Meta::of).as_ref(), add);
        if shared.terminating.contains(&key.namespace) {
            add(Work::Terminate(Arc::clone(&key.namespace)));
        }
        if gone && let Some(definition) = shared.withdrawn.get(&key.resource) {
            add(Work::Definition(Arc::clone(definition)));
        }
        if &*key.resource == kinds::CLUSTER_ROLES && shared.gathering.noticed(now, gone, before) {
            add(Work::Aggregate);
        }
        let quotas = shared.quotas.get(&key.namespace).into_iter().flatten();
        let mut concerned = quotas
            .filter(|(_, kinds)| kinds.contains(&*key.resource))
            .map(|(quota, _)| quota)
            .peekable();
        if concerned.peek().is_some() && quota::is_less(now, gone, before) {
            concerned.for_each(|quota| add(Work::Quota(quota.clone())));
        }
        match &*key.resource {
            quota::QUOTAS => {
                let all = shared.quotas.entry(Arc::clone(&key.namespace)).or_default();
                if gone {
                    all.remove(key);
                } else {
                    let value = now.value();
                    all.insert(key.clone(), quota::kinds(&value));
                    if before.is_none_or(|before| quota::is_changed(&before.value(), &value)) {
                        add(Work::Quota(key.clone()));
                    }
                }
                shared.quotas.retain(|_, quotas| !quotas.is_empty());
            }
            kinds::NAMESPACES => {
                if gone || !meta.is_deleting() {
                    shared.terminating.remove(&key.name);
                } else {
                    shared.terminating.insert(Arc::clone(&key.name));
                    add(Work::Terminate(Arc::clone(&key.name)));
                }
                if !gone && before.is_none() {
                    add(Work::Defaults(Arc::clone(&key.name)));
                }
            }
            kinds::SERVICE_ACCOUNTS => {
                if gone && &*key.name == namespace::DEFAULT_ACCOUNT {
                    add(Work::Defaults(Arc::clone(&key.namespace)));
                }
                let theirs = shared
                    .tokens
                    .iter()
                    .filter(|(secret, account)| secret.namespace == key.namespace && ***account == *key.name);
                theirs.for_each(|(secret, _)| add(Work::AccountToken(secret.clone())));
            }
            kinds::CONFIG_MAPS if &*key.name == namespace::ROOT_CA => {
                add(Work::Defaults(Arc::clone(&key.namespace)));
            }
            kinds::CSRS if !gone => add(Work::Certificate(Arc::clone(&key.name))),
            kinds::CRDS => {
                if let Some((_, group)) = key.name.split_once('.') {
                    add(Work::Group(group.into()));
                }
                if gone {
                    shared.withdrawn.retain(|_, name| *name != key.name);
                    // Names this one had may be free for another now.
                    for other in self.access.list(kinds::CRDS, None) {
                        add(Work::Definition(Arc::clone(&other.key.name)));
                    }
                } else {
                    if meta.is_deleting() {
                        let storage = crd::storage(&now.value());
                        shared.withdrawn.insert(storage.into(), Arc::clone(&key.name));
                    }
                    add(Work::Definition(Arc::clone(&key.name)));
                }
            }
            kinds::CLAIMS if gone => {
                shared.claims.remove(key);
            }
            kinds::CLAIMS if meta.is_deleting() => {
                shared.claims.insert(key.clone());
                add(Work::Claim(key.clone()));
            }
            orphan::NODES if gone => {
                for pod in self.access.list(kinds::PODS, None) {
                    if orphan::awaited(&pod.value()).is_some_and(|node| *node == *key.name) {
                        add(Work::Orphan(pod.key.clone()));
                    }
                }
            }
            kinds::PODS => {
                if !gone && meta.is_deleting() {
                    add(Work::Orphan(key.clone()));
                }
                let theirs = shared.claims.iter().filter(|c| c.namespace == key.namespace);
                theirs.for_each(|claim| add(Work::Claim(claim.clone())));
            }
            kinds::VOLUMES if !gone && meta.is_deleting() => add(Work::Volume(Arc::clone(&key.name))),
            kinds::JOBS if !gone => add(Work::Job(key.clone())),
            kinds::EVENTS if !gone => add(Work::Event(key.clone())),
            kinds::SECRETS => {
                let expires =
                    &*key.namespace == BOOTSTRAP_NAMESPACE && key.name.starts_with(BOOTSTRAP_PREFIX);
                // Few Secrets are such: the others are not parsed.
                let named = std::str::from_utf8(&now.json).is_ok_and(|t| t.contains(account::TOKEN_TYPE));
                let secret = if gone || !named { Value::Null } else { now.value() };
                if let Some(account) = account::account_of(&secret) {
                    shared.tokens.insert(key.clone(), account.into());
                    add(Work::AccountToken(key.clone()));
                } else {
                    shared.tokens.remove(key);
                }
                if expires && !gone {
                    add(Work::Token(key.clone()));
                }
            }
            address::SERVICES => {
                let states = [Some(&**now), before];
                for state in states.into_iter().flatten() {
                    for ip in address::of_service(&state.value()) {
                        add(Work::Address(ip.into(), key.clone()));
                    }
                }
            }
            address::ADDRESSES => {
                if let Some(service) = address::service_of(&now.value()) {
                    add(Work::Address(Arc::clone(&key.name), service));
                }
            }
            served::API_SERVICES if gone => add(Work::Group(served::group_of(&key.name).into())),
            served::API_SERVICES => add(Work::ApiService(Arc::clone(&key.name))),
            flow::SCHEMAS if !gone => add(Work::Flow(Arc::clone(&key.name))),
            flow::LEVELS if gone || before.is_none() => {
                let schemas = self.access.list(flow::SCHEMAS, None);
                let theirs = schemas.iter().filter(|s| flow::level(&s.value()) == &*key.name);
                theirs.for_each(|schema| add(Work::Flow(Arc::clone(&schema.key.name))));
            }
            _ => {}
        }
    }
}

impl Controllers {
    /// All definitions of a definition's group. Their names end in it, so that no other has to be parsed.
    fn same_group(&self, crd: &Value) -> Vec<Value> {
        let suffix = format!(".{}", crd["spec"]["group"].as_str().unwrap_or_default());
        let all = self.access.list(kinds::CRDS, None);
        all.iter()
            .filter(|e| e.key.name.ends_with(&suffix))
            .map(|e| e.value())
            .collect()
    }
}

impl Reactor for Controllers {
    type Work = Work;

    fn on_event(&self, event: &Event, add: &mut dyn FnMut(Work)) {
        self.noticed(&event.entry, event.deleted, event.prev.as_deref(), add);
    }

    fn resync(&self, add: &mut dyn FnMut(Work)) {
        *self.shared() = Shared::default();
        // Namespaces and definitions first: what is in them is looked at knowing that they go.
        let mut resources: Vec<Arc<str>> = self
            .access
            .store()
            .resources()
            .into_iter()
            .map(|(r, _)| r)
            .collect();
        resources.sort_by_key(|r| !matches!(&**r, kinds::NAMESPACES | kinds::CRDS));
        for resource in resources {
            for entry in self.access.list(&resource, None) {
                self.noticed(&entry, false, None, add);
            }
        }
    }

    async fn reconcile(&self, work: &Work) -> Result<Option<Duration>, ApiError> {
        let access = &self.access;
        let now = access.now();
        let object = |kind: &str, name: &str| access.object(kind, "", name);
        let plan = match work {
            Work::Defaults(name) => match object(kinds::NAMESPACES, name) {
                Some(found) => {
                    let account = access.object(kinds::SERVICE_ACCOUNTS, name, namespace::DEFAULT_ACCOUNT);
                    let root = access.object(kinds::CONFIG_MAPS, name, namespace::ROOT_CA);
                    namespace::defaults(&found, account.as_ref(), root.as_ref(), self.ca.pem())
                }
                None => Plan::default(),
            },
            Work::Terminate(name) => {
                let Some(found) = object(kinds::NAMESPACES, name) else {
                    return Ok(None);
                };
                if let Some(left) = namespace::left(&found, self.times.namespace_delay, now) {
                    return Ok(Some(left));
                }
                let left = namespace::content(access, name);
                namespace::terminate(&found, &left, now)
            }
            Work::Garbage(key) => {
                let dependents = |uid: &str| self.shared().index.dependents(uid).cloned().collect();
                match garbage::observe(access, key, dependents) {
                    Some(observed) => garbage::decide(&observed),
                    None => Plan::default(),
                }
            }
            Work::Certificate(name) => match object(kinds::CSRS, name) {
                Some(csr) => certificate::decide(&csr, now, |order| {
                    certificate::sign(&self.ca, order, self.times.signing, now)
                }),
                None => Plan::default(),
            },
            Work::Definition(name) => {
                let Some(found) = object(kinds::CRDS, name) else {
                    return Ok(None);
                };
                let others = self.same_group(&found);
                let left = access.list(&crd::storage(&found), None);
                let plan = crd::decide(&found, &others, &left, now);
                return self.apiserver.carry_out(plan).await;
            }
            Work::Aggregate => {
                let roles: Vec<Value> = access
                    .list(kinds::CLUSTER_ROLES, None)
                    .iter()
                    .map(|e| e.value())
                    .collect();
                aggregation::decide(&roles)
            }
            Work::Job(key) => match access.object(kinds::JOBS, &key.namespace, &key.name) {
                Some(job) => job::decide(&job, now),
                None => Plan::default(),
            },
            Work::Event(key) => match access.object(kinds::EVENTS, &key.namespace, &key.name) {
                Some(event) => event::decide(&event, now),
                None => Plan::default(),
            },
            Work::Quota(key) => match access.object(quota::QUOTAS, &key.namespace, &key.name) {
                Some(found) => quota::decide(&found, &quota::observe(access, &found)),
                None => Plan::default(),
            },
            Work::Token(key) => match access.object(kinds::SECRETS, &key.namespace, &key.name) {
                Some(secret) => token::decide(&secret, now),
                None => Plan::default(),
            },
            Work::AccountToken(key) => match access.object(kinds::SECRETS, &key.namespace, &key.name) {
                Some(secret) => {
                    let name = account::account_of(&secret).unwrap_or_default();
                    let owner = access.object(kinds::SERVICE_ACCOUNTS, &key.namespace, name);
                    account::decide(&secret, owner.as_ref(), self.ca.pem(), |owner| {
                        access.sign(&account::claims(&secret, owner))
                    })?
                }
                None => Plan::default(),
            },
            Work::Group(group) => {
                let of_group = |kind: &str| -> Vec<Value> {
                    let all = access.list(kind, None);
                    let own = all
                        .iter()
                        .filter(|e| e.key.name.split_once('.').is_some_and(|(_, g)| g == &**group));
                    own.map(|e| e.value()).collect()
                };
                let plan = served::decide(group, &of_group(kinds::CRDS), &of_group(served::API_SERVICES));
                return self.apiserver.carry_out(plan).await;
            }
            Work::ApiService(name) => match object(served::API_SERVICES, name) {
                Some(service) => {
                    let there = |namespace: &str, name: &str| {
                        access.entry(address::SERVICES, namespace, name).is_some()
                    };
                    let plan = served::available(&service, there, now);
                    return self.apiserver.carry_out(plan).await;
                }
                None => Plan::default(),
            },
            Work::Address(ip, service) => {
                let found = access.object(&service.resource, &service.namespace, &service.name);
                let address = object(address::ADDRESSES, ip);
                let plan = address::decide(ip, service, found.as_ref(), address.as_ref());
                return self.apiserver.carry_out(plan).await;
            }
            Work::Orphan(key) => match access.object(kinds::PODS, &key.namespace, &key.name) {
                Some(pod) => {
                    let there = |node| access.entry(orphan::NODES, "", node).is_some();
                    orphan::decide(&pod, orphan::awaited(&pod).is_some_and(there), now)
                }
                None => Plan::default(),
            },
            Work::Flow(name) => match object(flow::SCHEMAS, name) {
                Some(schema) => {
                    let is_there = access.entry(flow::LEVELS, "", flow::level(&schema)).is_some();
                    let plan = flow::decide(&schema, is_there, now);
                    return self.apiserver.carry_out(plan).await;
                }
                None => Plan::default(),
            },
            Work::Claim(key) => match access.object(kinds::CLAIMS, &key.namespace, &key.name) {
                Some(claim) => {
                    let pods = access.list(kinds::PODS, Some(&key.namespace));
                    let used = pods.iter().any(|pod| protection::uses(&pod.value(), &key.name));
                    protection::decide(kinds::CLAIMS, protection::CLAIM, &claim, used)
                }
                None => Plan::default(),
            },
            Work::Volume(name) => match object(kinds::VOLUMES, name) {
                Some(volume) => {
                    let used = protection::is_bound(&volume);
                    protection::decide(kinds::VOLUMES, protection::VOLUME, &volume, used)
                }
                None => Plan::default(),
            },
        };
        access.carry_out(plan).await
    }
}
