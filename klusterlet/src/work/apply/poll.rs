//! Objects that the agent may read and write but not watch: what becomes of them is found out by looking.

use super::{Applier, Outcome, Retry, Target};
use crate::work::watches::{Coverage, Sight};
use muster_crds::work::v1::UpdateStrategyType;
use std::time::Duration;

/// Between two looks at what can not be watched; up to twice as long, so that not all come at once.
const POLL: Duration = Duration::from_secs(60);

impl Applier {
    /// An outcome that says "when something changes" comes again by itself where nobody would say so.
    pub(super) async fn poll(&self, target: &Target<'_>, outcome: &mut Outcome) {
        if outcome.retry != Retry::No {
            return;
        }
        let sight = if target.strategy() == UpdateStrategyType::ReadOnly {
            let alone = Coverage::Named(target.key.namespace.clone(), target.key.name.clone());
            self.sight(&target.served, alone).await
        } else {
            // It was waited for before anything was done.
            *self.watches.ensure(&target.served, Coverage::Labelled).borrow()
        };
        if sight == Sight::Refused {
            outcome.retry = Retry::After(POLL.mul_f64(rand::random_range(1.0..2.0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Look;
    use super::*;
    use crate::limits::Server;
    use crate::work::contention::Contention;
    use crate::work::state::State;
    use crate::work::watches::Watches;
    use kube::Client;
    use muster_crds::work::v1::ManifestWork;
    use muster_observe::prometheus_client::metrics::counter::Counter;
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    /// How a kind is served that one can get.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Lists {
        Allowed,
        Forbidden,
        NotServed,
        /// As of `metrics.k8s.io`.
        WithoutRevision,
        /// Lists, and no watches.
        Alone,
    }

    /// A cluster with one ConfigMap `a`.
    fn cluster(lists: Lists) -> Client {
        let server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let path = request.uri().path().to_owned();
            let watch = request.uri().query().is_some_and(|q| q.contains("watch=true"));
            let refused = |code: u16, reason: &str| {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
                    "message": "no", "code": code});
                (code, status)
            };
            let (code, answer): (u16, Value) = match path.rsplit('/').next().unwrap_or_default() {
                "v1" => (
                    200,
                    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [
                        {"name": "configmaps", "singularName": "", "namespaced": true, "kind": "ConfigMap",
                         "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"]}]}),
                ),
                "configmaps" if lists == Lists::Forbidden => refused(403, "Forbidden"),
                "configmaps" if lists == Lists::NotServed || (watch && lists == Lists::Alone) => {
                    refused(405, "MethodNotAllowed")
                }
                "configmaps" => {
                    let revision = if lists == Lists::WithoutRevision { "" } else { "1" };
                    let list = json!({"kind": "ConfigMapList", "apiVersion": "v1",
                        "metadata": {"resourceVersion": revision}, "items": []});
                    (200, list)
                }
                _ => (
                    200,
                    json!({"kind": "ConfigMap", "apiVersion": "v1",
                        "metadata": {"name": "a", "namespace": "d", "uid": "u", "resourceVersion": "1"}}),
                ),
            };
            let mut response = http::Response::new(kube::client::Body::from(answer.to_string().into_bytes()));
            *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
            async move { Ok::<_, std::convert::Infallible>(response) }
        });
        Client::new(server, "default")
    }

    #[tokio::test]
    async fn what_may_not_be_watched_is_looked_at_again() {
        let work = |strategy: &str| -> ManifestWork {
            serde_json::from_value(json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
                "metadata": {"name": "w"}, "spec": {
                    "workload": {"manifests": [{"apiVersion": "v1", "kind": "ConfigMap",
                        "metadata": {"name": "a", "namespace": "d"}}]},
                    "manifestConfigs": [{"resourceIdentifier": {"resource": "configmaps", "name": "a", "namespace": "d"},
                        "updateStrategy": {"type": strategy}}]}}))
            .unwrap()
        };
        for (lists, strategy) in [
            (Lists::Forbidden, "Update"),
            (Lists::Forbidden, "ReadOnly"),
            (Lists::NotServed, "ReadOnly"),
            (Lists::WithoutRevision, "ReadOnly"),
            (Lists::Allowed, "ReadOnly"),
        ] {
            let client = cluster(lists);
            let state: Arc<Mutex<State>> = Arc::default();
            let (notify, _told) = tokio::sync::mpsc::unbounded_channel();
            let watches = Watches::new(client.clone(), state.clone(), notify);
            let spoke = Server::new("test", client);
            let applier = Applier::new(spoke, watches, state, None, false, Counter::default());
            let look = Look {
                ordinal: 0,
                trusted: false,
                applied: false,
                twin: None,
                complete: false,
                contention: Contention::default(),
            };
            let outcome = applier.apply(&work(strategy), look, &Value::Null).await;
            let again = matches!(outcome.retry, Retry::After(after) if after >= POLL && after < 2 * POLL);
            assert_eq!(again, lists != Lists::Allowed, "{lists:?} {strategy} {outcome:?}");
        }
    }
}
