//! Watches what executors' rights are made of, so that answers about them can be remembered, and so that a right that is
//! given or taken away counts at once (gate ExecutorValidatingCaches).

use super::{Agent, Key};
use crate::work::Backoff;
use crate::work::apply::{KINDS_OF_RIGHTS, ONCE_MORE};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use std::sync::Arc;
use tokio::time::Instant;

impl Agent {
    /// Follows all kinds of rights for ever.
    pub(super) async fn follow_rights(self: Arc<Self>) {
        let kinds = KINDS_OF_RIGHTS.map(|kind| self.follow_kind_of_rights(kind));
        futures::future::join_all(kinds).await;
    }

    async fn follow_kind_of_rights(&self, kind: &'static str) {
        let resource = ApiResource {
            group: "rbac.authorization.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "rbac.authorization.k8s.io/v1".to_owned(),
            kind: String::new(),
            plural: kind.to_owned(),
        };
        // That something changed is enough to know.
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::all_with(self.spoke.client().clone(), &resource);
        let mut events = watcher(api, watcher::Config::default()).boxed();
        let mut backoff = Backoff::default();
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Init | watcher::Event::InitApply(_))) => {}
                Ok(Some(watcher::Event::InitDone)) => {
                    backoff = Backoff::default();
                    self.applier
                        .with_rights(|r| r.watched(kind, true, Instant::now()));
                    self.look_at_executors();
                }
                Ok(Some(watcher::Event::Apply(_) | watcher::Event::Delete(_))) => {
                    self.applier.with_rights(|r| r.changed(Instant::now()));
                    self.look_at_executors();
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(kind, %error, "rights can not be watched, they are asked for each time");
                    self.applier
                        .with_rights(|r| r.watched(kind, false, Instant::now()));
                    backoff.wait().await;
                }
            }
        }
    }

    /// Works with an executor are looked at again, each of their manifests.
    fn look_at_executors(&self) {
        let mut names = Vec::new();
        for (name, known) in &mut self.state().works {
            if known.work.spec.executor.is_some() {
                known.manifests.iter_mut().for_each(|m| m.dirty = true);
                names.push(name.clone());
            }
        }
        for name in names {
            self.queue.add(Key::Work(name.clone()));
            self.again_later(name);
        }
    }

    /// A server may answer from before a change that it has already told of.
    fn again_later(&self, name: String) {
        self.recheck.add_after(name, ONCE_MORE);
    }

    /// Looks at executors' works once more, some time after their rights changed.
    pub(super) async fn recheck(self: Arc<Self>) {
        loop {
            let name = self.recheck.next().await;
            if let Some(known) = self.state().works.get_mut(&name) {
                known.manifests.iter_mut().for_each(|m| m.dirty = true);
            }
            self.queue.add(Key::Work(name.clone()));
            // This look was due for a change before the last: that one is to have its own.
            let too_soon = self
                .applier
                .with_rights(|r| r.changed_within(ONCE_MORE, Instant::now()));
            if too_soon {
                self.again_later(name.clone());
            }
            self.recheck.done(&name);
        }
    }
}
