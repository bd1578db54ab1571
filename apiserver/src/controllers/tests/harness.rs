//! A whole API in memory with its controllers, for tests.

use crate::auth::{Authenticator, Authorizer, ServiceAccountKeys, UserInfo};
use crate::controllers::access::Access;
use crate::object;
use crate::pki::Ca;
use crate::registry::{Registry, Resource};
use crate::rest::Api;
use crate::rest::internal::Target;
use crate::rest::params::{DeleteOptions, Propagation, WriteOptions};
use crate::store::{Store, StoreOptions};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest time anything here may take.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    pub(crate) api: Api,
    pub(crate) ca: Ca,
    access: Access,
    pub(crate) shutdown: CancellationToken,
    _stop: DropGuard,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let store = Store::open(StoreOptions {
            path: None,
            keep_revisions: 20_000,
        })
        .unwrap();
        let authorizer = Authorizer::new(store.clone());
        let keys = ServiceAccountKeys::load_or_create(None).unwrap();
        let authenticator = Authenticator::new(store.clone(), keys, authorizer.clone(), Vec::new()).unwrap();
        let api = Api::new(store, Registry::new(), authorizer, authenticator.into());
        api.bootstrap().await.unwrap();
        let ca = Ca::load_or_create(None, Timestamp::now()).unwrap();
        let shutdown = CancellationToken::new();
        crate::controllers::start(api.clone(), ca.clone(), shutdown.clone());
        let cluster = Self {
            access: Access::new(api.clone(), "test"),
            api,
            ca,
            _stop: shutdown.clone().drop_guard(),
            shutdown,
        };
        cluster.settle().await;
        cluster
    }

    fn kind(&self, resource: &str) -> Arc<Resource> {
        self.access
            .kind(resource)
            .unwrap_or_else(|| panic!("{resource} is not served"))
    }

    pub(crate) async fn create(&self, resource: &str, mut object: Value) -> Value {
        let kind = self.kind(resource);
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.as_str().into();
        crate::registry::strategy::default(&kind, &mut object);
        let namespace = object::namespace(&object).to_owned();
        let options = WriteOptions::internal("test");
        let made = self
            .api
            .create_object(&UserInfo::loopback(), &kind, &namespace, object, &options)
            .await;
        made.unwrap().outcome.value()
    }

    pub(crate) async fn update(&self, resource: &str, sub: &str, object: Value) -> Value {
        let kind = self.kind(resource);
        let (namespace, name) = (
            object::namespace(&object).to_owned(),
            object::name(&object).to_owned(),
        );
        let target = Target::sub(&kind, sub, &namespace, &name);
        let options = WriteOptions::internal("test");
        let done = self
            .api
            .update_object(&UserInfo::loopback(), &target, object, &options)
            .await;
        done.unwrap().outcome.value()
    }

    pub(crate) async fn delete(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        propagation: Option<Propagation>,
    ) {
        let kind = self.kind(resource);
        let target = Target::object(&kind, namespace, name);
        let options = DeleteOptions {
            propagation,
            ..DeleteOptions::default()
        };
        self.api
            .delete_object(&UserInfo::loopback(), &target, &options)
            .await
            .unwrap();
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.access.object(resource, namespace, name)
    }

    pub(crate) fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        self.access
            .list(resource, Some(namespace))
            .iter()
            .map(|e| e.value())
            .collect()
    }

    pub(crate) fn names(&self, resource: &str, namespace: &str) -> Vec<String> {
        self.list(resource, namespace)
            .iter()
            .map(|o| object::name(o).to_owned())
            .collect()
    }

    /// Waits until `look` sees something, looking again at every change.
    pub(crate) async fn wait<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let mut watch = self.api.store.watch_all(self.api.store.revision()).unwrap();
        let looking = async {
            loop {
                if let Some(found) = look() {
                    return found;
                }
                watch.next().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(DEADLINE, looking).await;
        waited.unwrap_or_else(|_| panic!("{what} did not come in {DEADLINE:?}"))
    }

    pub(crate) async fn gone(&self, resource: &str, namespace: &str, name: &str) {
        let what = format!("{resource} {namespace}/{name} to be gone");
        self.wait(&what, || {
            self.get(resource, namespace, name).is_none().then_some(())
        })
        .await;
    }

    /// Waits until nothing has been written for a while: what would still come would be too late.
    pub(crate) async fn settle(&self) {
        let mut watch = self.api.store.watch_all(self.api.store.revision()).unwrap();
        let quiet = Duration::from_millis(150);
        let settled = async { while tokio::time::timeout(quiet, watch.next()).await.is_ok() {} };
        assert!(
            tokio::time::timeout(DEADLINE, settled).await.is_ok(),
            "writes never end"
        );
    }
}
