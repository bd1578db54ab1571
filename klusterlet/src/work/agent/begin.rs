//! How a work begins here: with its finalizer at the hub and its record on the cluster, before anything of it is applied.

use super::{Agent, ReconcileError};
use crate::work::applied;
use crate::work::objects::{self, RequestError};
use kube::ResourceExt as _;
use muster_crds::constants::finalizers;
use muster_crds::names::applied_manifest_work_name;
use muster_crds::work::v1::{AppliedManifestWork, ManifestWork};
use serde_json::json;
use std::sync::Arc;

impl Agent {
    /// A work that is new here gets its finalizer and its record side by side: nothing is applied before both are there.
    pub(super) async fn begin(
        &self,
        name: &str,
        work: &ManifestWork,
        frozen: bool,
    ) -> Result<(), ReconcileError> {
        if work.finalizers().iter().any(|f| f == finalizers::MANIFEST_WORK) {
            return Ok(());
        }
        let applied_name = applied_manifest_work_name(&self.settings.hub_hash, name);
        if frozen || self.state().applied.contains_key(&applied_name) {
            return self.ensure_finalizer(work).await;
        }
        let (finalizer, made) = tokio::join!(
            self.ensure_finalizer(work),
            self.make_applied(&applied_name, name, work)
        );
        match made {
            // It was there: whose it is comes next.
            Err(ReconcileError::Spoke(error)) if error.already_exists() => finalizer,
            Ok(made) => {
                if let Err(ReconcileError::Hub(error)) = &finalizer
                    && self.is_over(work, error).await
                {
                    // What was made for it and never used goes too.
                    self.delete_applied(&made).await?;
                }
                finalizer
            }
            Err(error) => finalizer.and(Err(error)),
        }
    }

    /// Whether the hub refused a write of a work because that is gone, or another has its name.
    async fn is_over(&self, work: &ManifestWork, error: &RequestError) -> bool {
        if !error.is_conflict() {
            return error.is_not_found();
        }
        let hub = self.hub.of(&work.name_any()).hurried();
        match objects::get(&hub, &self.work_path(&work.name_any())).await {
            Ok(now) => now["metadata"]["uid"].as_str() != work.metadata.uid.as_deref(),
            Err(error) => error.is_not_found(),
        }
    }

    async fn ensure_finalizer(&self, work: &ManifestWork) -> Result<(), ReconcileError> {
        let mut list = work.finalizers().to_vec();
        list.push(finalizers::MANIFEST_WORK.to_owned());
        let patch = json!({"metadata": {
            "uid": work.metadata.uid, "resourceVersion": work.metadata.resource_version, "finalizers": list}});
        // Not at any price: the cluster's other works must not wait for a hub that has too much to do.
        let hub = self.hub.of(&work.name_any()).hurried();
        let answer = objects::merge(&hub, &self.work_path(&work.name_any()), &patch)
            .await
            .map_err(ReconcileError::Hub)?;
        self.learn(answer);
        Ok(())
    }

    pub(super) async fn ensure_applied(
        &self,
        name: &str,
        work: &ManifestWork,
    ) -> Result<Arc<AppliedManifestWork>, ReconcileError> {
        let applied_name = applied_manifest_work_name(&self.settings.hub_hash, name);
        let known = self.state().applied.get(&applied_name).cloned();
        if let Some(known) = known {
            if known.metadata.deletion_timestamp.is_some() {
                return Err(ReconcileError::NotYet(format!("{applied_name} is being deleted")));
            }
            return self.keep_applied(known, work).await;
        }
        match self.make_applied(&applied_name, name, work).await {
            Err(ReconcileError::Spoke(error)) if error.already_exists() => {
                let answer = self.adopt_applied(&applied_name).await?;
                self.learn_applied(answer)
            }
            made => made,
        }
    }

    async fn make_applied(
        &self,
        applied_name: &str,
        name: &str,
        work: &ManifestWork,
    ) -> Result<Arc<AppliedManifestWork>, ReconcileError> {
        let (hash, agent) = (&self.settings.hub_hash, &self.settings.agent_id);
        let object = applied::new(applied_name, work, hash, agent);
        let answer = objects::create(&self.spoke.of(name), applied::PATH, &object).await;
        self.learn_applied(answer.map_err(ReconcileError::Spoke)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;
    use crate::work::events::WorkEvents;
    use http::{Method, Request, Response};
    use http_body_util::BodyExt as _;
    use kube::Client;
    use kube::client::Body;
    use serde_json::Value;
    use std::sync::Mutex;
    use std::time::Duration;

    /// What was asked of a server: method, path and body.
    type Asked = Arc<Mutex<Vec<(Method, String, Value)>>>;

    /// A server that answers everything in one way.
    fn server(answer: impl Fn(&Method) -> (u16, Value) + Clone + Send + 'static) -> (Client, Asked) {
        let asked = Asked::default();
        let log = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (answer, log) = (answer.clone(), log.clone());
            async move {
                let (parts, body) = request.into_parts();
                let bytes = body.collect().await?.to_bytes();
                let body = serde_json::from_slice(&bytes).unwrap_or_default();
                let (code, said) = answer(&parts.method);
                log.lock()
                    .unwrap()
                    .push((parts.method, parts.uri.path().to_owned(), body));
                let response = Response::builder().status(code);
                Ok::<_, kube::Error>(response.body(Body::from(said.to_string().into_bytes())).unwrap())
            }
        });
        (Client::new(service, "default"), asked)
    }

    fn settings() -> Settings {
        Settings {
            cluster: "c".into(),
            hub_hash: "h".into(),
            agent_id: "h".into(),
            workers: 1,
            eviction_grace: Duration::from_secs(60),
            raw_feedback: None,
            impersonate_executor: false,
            counts: Arc::default(),
            remember_rights: false,
            agent_name: "a".into(),
            events: WorkEvents::None,
        }
    }

    #[tokio::test]
    async fn a_record_that_was_made_for_a_work_that_is_over_goes() {
        let work: ManifestWork = serde_json::from_value(json!({
            "apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
            "metadata": {"name": "w", "namespace": "c", "uid": "u"}, "spec": {}}))
        .unwrap();
        let refused = |code: u16, reason: &str| {
            (
                code,
                json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no"}),
            )
        };
        let gone = refused(404, "NotFound");
        let changed = refused(409, "Conflict");
        let now = |uid: &str| (200, json!({"metadata": {"name": "w", "uid": uid}}));
        // What the hub answers to the finalizer, and to the question what the work is now; whether the record goes.
        for (finalizer, question, goes) in [
            (gone.clone(), gone.clone(), true),
            (changed.clone(), gone.clone(), true),
            (changed.clone(), now("another"), true),
            (changed.clone(), now("u"), false),
            (refused(500, "InternalError"), gone, false),
            (now("u"), now("u"), false),
        ] {
            let said = (finalizer.clone(), question.clone());
            let (hub, _) = server(move |method| {
                if *method == Method::GET {
                    question.clone()
                } else {
                    finalizer.clone()
                }
            });
            let (spoke, asked) = server(|_| {
                (
                    201,
                    json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "AppliedManifestWork",
                    "metadata": {"name": "h-w", "uid": "r", "resourceVersion": "1"},
                    "spec": {"hubHash": "h", "agentID": "h", "manifestWorkName": "w"}}),
                )
            });
            let agent = Agent::new(hub, spoke, "n", settings());
            let begun = agent.begin("w", &work, false).await;
            assert_eq!(begun.is_ok(), said.0.0 == 200, "{said:?}");
            let asked: Vec<(Method, String, Value)> = asked.lock().unwrap().clone();
            assert_eq!(asked[0].0, Method::POST, "{said:?}");
            let removed: Vec<&Value> = asked
                .iter()
                .filter(|a| a.0 == Method::DELETE)
                .map(|a| &a.2)
                .collect();
            assert_eq!(removed.len(), usize::from(goes), "{said:?}");
            assert!(
                removed.iter().all(|r| r["preconditions"]["uid"] == "r"),
                "only the very one"
            );
        }
    }
}
