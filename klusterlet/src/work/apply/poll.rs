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

    /// A cluster with one ConfigMap `a`, whose kind may be listed or not.
    fn cluster(may_list: bool) -> Client {
        let server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let path = request.uri().path().to_owned();
            let (code, answer): (u16, Value) = match path.rsplit('/').next().unwrap_or_default() {
                "v1" => (
                    200,
                    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [
                        {"name": "configmaps", "singularName": "", "namespaced": true, "kind": "ConfigMap",
                         "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"]}]}),
                ),
                "configmaps" if !may_list => (
                    403,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden",
                        "message": "may not list", "code": 403}),
                ),
                "configmaps" => (
                    200,
                    json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"},
                        "items": []}),
                ),
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
        for (may_list, strategy) in [(false, "Update"), (false, "ReadOnly"), (true, "ReadOnly")] {
            let client = cluster(may_list);
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
            assert_eq!(again, !may_list, "{strategy} {outcome:?}");
        }
    }
}
