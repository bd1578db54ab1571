//! Answers certificate requests of agents (ocm-wire §2.4): renewals of those the hub lets renew, first requests of
//! users it was told to trust, and first requests made with a join token, which are held to what the token allows.
//! What a join token does not allow is denied, with the reason; anything else that is not approved waits for a person.

mod decision;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::CertificateSigningRequest,
    core::v1::{Namespace, Secret},
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, PartialObjectMeta, PostParams},
};
use muster_crds::{
    cluster::v1::ManagedCluster,
    conditions::NewCondition,
    constants::{annotations, conditions, labels, names, reasons},
    names as naming,
};
use serde_json::{Value, json};

use self::decision::noted;
pub use self::decision::{Admission, Decision, Observed, Trusted, decide};
use super::{
    csr::Agent,
    event,
    plan::{Write, set_conditions},
    refused,
    token::{self, TokenView},
    view::{ClusterView, CsrView, ObjectView},
    waiting::Waiting,
};
use crate::{
    cache::Cache,
    error::Error,
    metrics::Answer,
    queue::{Next, Queue},
    writer::{Writer, guarded, what},
};

/// The message of the approval, as OCM writes it.
const MESSAGE: &str = "Auto approving Managed cluster agent certificate after SubjectAccessReview.";

/// Reason of the event that tells of a renewal that is left to a person.
pub const EVENT_NOT_RENEWED: &str = "CertificateNotRenewed";

/// The question whether the requester may renew certificates.
pub fn may_renew(csr: &CsrView) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(csr.user.clone()),
            uid: Some(csr.user_uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(csr.groups.clone()),
            extra: Some(csr.extra.clone()).filter(|extra| !extra.is_empty()),
            resource_attributes: Some(ResourceAttributes {
                group: Some(names::REGISTER_GROUP.to_owned()),
                resource: Some("managedclusters".to_owned()),
                subresource: Some("clientcertificates".to_owned()),
                verb: Some("renew".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// The requests that came with a token, for when something about it changes.
pub fn of_token(requests: &Cache<CertificateSigningRequest, CsrView>, secret: &str, queue: &Queue) {
    let Some(id) = secret.strip_prefix(names::BOOTSTRAP_TOKEN_PREFIX) else {
        return;
    };
    let user = format!("{}{id}", names::BOOTSTRAP_USER_PREFIX);
    for (name, csr) in requests.list("") {
        if !csr.decided && csr.user == user {
            queue.add(&name);
        }
    }
}

/// What the controller works with.
pub struct Context {
    /// Requests that are known.
    pub requests: Arc<Cache<CertificateSigningRequest, CsrView>>,
    /// Clusters that are known.
    pub clusters: Arc<Cache<ManagedCluster, ClusterView>>,
    /// Clusters' namespaces that are known.
    pub namespaces: Arc<Cache<PartialObjectMeta<Namespace>, ObjectView>>,
    /// Join tokens that are known.
    pub tokens: Arc<Cache<PartialObjectMeta<Secret>, TokenView>>,
    /// Requests that wait for their cluster.
    pub waiting: Arc<Waiting>,
    /// How to write.
    pub writer: Arc<Writer>,
    /// Whose first requests are approved.
    pub trusted: Trusted,
    /// The namespace that the hub itself is in, which is no cluster's.
    pub namespace: Option<String>,
    /// Why requests that are there wait, or are left to a person, as it was last said.
    pub said: Mutex<HashMap<String, String>>,
    /// Uses of tokens are counted one by one: the next decision sees the last count.
    pub counting: tokio::sync::Mutex<()>,
}

impl Context {
    /// Decides about one request.
    pub async fn reconcile(&self, name: &str) -> Result<Next, Error> {
        let Some(csr) = self.requests.get("", name) else {
            self.waiting.gone(name);
            self.said().remove(name);
            return Ok(Next::Idle);
        };
        let cluster = match (&csr.cluster, &csr.approved) {
            (Some(cluster), _) => cluster.clone(),
            (None, Some(agent)) => agent.cluster.clone(),
            (None, None) => return Ok(Next::Idle),
        };
        // Before looking: a change after the look is not to be missed.
        self.waiting.add(&cluster, name);
        let (decision, seen) = self.look(&csr, &cluster);
        if !matches!(decision, Decision::Wait(_)) {
            self.waiting.remove(&cluster, name);
        }
        match decision {
            Decision::Leave(reason) => self.leave(name, &csr, &cluster, &reason).await?,
            Decision::Wait(reason) if csr.decided => {
                tracing::debug!(request = name, cluster, "waits: {reason}");
            }
            Decision::Wait(reason) if self.is_news(name, &reason) => {
                tracing::info!(request = name, cluster, "waits: {reason}");
            }
            Decision::Nothing | Decision::Wait(_) => {}
            Decision::Approve(agent) => return self.trust(name, &csr, &agent, &seen).await,
            Decision::AskToken(agent, id) => {
                if self.is_plain(&id).await? {
                    return self.trust(name, &csr, &agent, &seen).await;
                }
                // What becomes known of it brings the next look.
                tracing::info!(
                    request = name,
                    cluster,
                    "left alone: its requester's token {id} is revoked, or is a join token that is not known yet"
                );
            }
            Decision::AskRenewal(agent) => {
                if self.allowed(&csr, name).await? {
                    self.approve(name, &csr, MESSAGE.to_owned()).await?;
                    told(name, &agent);
                } else {
                    self.leave(name, &csr, &cluster, "its requester may not renew")
                        .await?;
                }
            }
            Decision::Admit(admission) if admission.lets_in && self.is_anothers(&cluster).await? => {
                let message = format!(
                    "the namespace {cluster} is there, and is no cluster's: an administrator may accept a cluster of that \
                     name, a join token may not"
                );
                self.refuse(name, &csr, &cluster, reasons::CSR_TOKEN_REFUSED, &message)
                    .await?;
            }
            Decision::Admit(admission) if admission.used_by.is_some() => {
                let _one_by_one = self.counting.lock().await;
                match self.look(&csr, &cluster) {
                    (Decision::Admit(admission), seen) if self.count(&admission).await? => {
                        return self.admit(name, &csr, &seen, admission).await;
                    }
                    // Somebody else took the last use meanwhile, or took the token away.
                    _ => return Ok(Next::Now),
                }
            }
            Decision::Admit(admission) => return self.admit(name, &csr, &seen, admission).await,
            Decision::Deny { reason, message } => {
                self.refuse(name, &csr, &cluster, reason, &message).await?;
            }
            Decision::RecordAt(settled) => {
                let wait = settled.duration_since(Timestamp::now());
                return Ok(Next::After(wait.try_into().unwrap_or_default()));
            }
            Decision::Record(agent, issued) => {
                if let Some(view) = self.clusters.get("", &cluster) {
                    // First: once the certificate is written down, nobody looks at it again.
                    self.note(&cluster, refused::over).await?;
                    let mut notes = noted(&view, &agent);
                    notes[annotations::CLIENT_CERTIFICATE] = issued.to_string().into();
                    let patch = json!({"metadata": {"annotations": notes}});
                    self.patch_cluster(&cluster, patch, None).await?;
                }
            }
        }
        Ok(Next::Idle)
    }

    /// The decision, and the version of the cluster that it is about.
    fn look(&self, csr: &CsrView, cluster: &str) -> (Decision, String) {
        let cluster = self.clusters.get("", cluster);
        let superseded = match (&csr.approved, &cluster) {
            // It matters once there is a certificate to write down.
            (Some(agent), Some(cluster))
                if csr.issued.is_some() && cluster.agent.as_ref() != Some(&agent.agent) =>
            {
                self.superseded(csr, agent)
            }
            _ => false,
        };
        let token = token::token_id(&csr.user, &csr.groups).and_then(|id| {
            self.tokens
                .get(names::BOOTSTRAP_TOKEN_NAMESPACE, &token::secret_name(id))
        });
        let observed = Observed {
            csr,
            token: token.as_deref(),
            cluster: cluster.as_deref(),
            superseded,
            hub: self.namespace.as_deref(),
        };
        let decision = decide(observed, &self.trusted, Timestamp::now());
        let version = cluster.as_ref().map(|cluster| cluster.resource_version.clone());
        (decision, version.unwrap_or_default())
    }

    /// Whether a namespace of that name is there that is not the cluster's: its agent would get rights in it.
    async fn is_anothers(&self, cluster: &str) -> Result<bool, Error> {
        if self.namespaces.get("", cluster).is_some() {
            return Ok(false);
        }
        let api = Api::<Namespace>::all(self.writer.client());
        let read = api.get_metadata_opt(cluster);
        let found = self
            .writer
            .bounded(format!("read Namespace {cluster}"), read)
            .await?;
        let owner = |one: &PartialObjectMeta<Namespace>| one.labels().get(labels::CLUSTER_NAME).cloned();
        Ok(found.is_some_and(|one| owner(&one).as_deref() != Some(cluster)))
    }

    /// Whether a bootstrap token is there, and none that `muster token create` made: those are not all known at the start.
    async fn is_plain(&self, id: &str) -> Result<bool, Error> {
        let api = Api::<Secret>::namespaced(self.writer.client(), names::BOOTSTRAP_TOKEN_NAMESPACE);
        let name = token::secret_name(id);
        let only = ListParams::default().fields(&format!("metadata.name={name}"));
        let subject = format!("look for Secret {name}");
        let found = self.writer.bounded(subject, api.list_metadata(&only)).await?;
        let ours = |one: &PartialObjectMeta<Secret>| one.labels().contains_key(labels::JOIN_TOKEN);
        Ok(found.items.first().is_some_and(|one| !ours(one)))
    }

    /// Approves the request of whoever the hub was told to trust, after writing down whose the name is.
    async fn trust(&self, name: &str, csr: &CsrView, agent: &Agent, version: &str) -> Result<Next, Error> {
        let known = self.clusters.get("", &agent.cluster);
        if known.is_none() && !version.is_empty() {
            // What was decided about is gone.
            return Ok(Next::Now);
        }
        if let Some(known) = known.filter(|known| known.agent.as_ref() != Some(&agent.agent)) {
            let patch = json!({"metadata": {"annotations": noted(&known, agent)}});
            if !self.patch_cluster(&agent.cluster, patch, Some(version)).await? {
                return Ok(Next::Now);
            }
        }
        self.approve(name, csr, MESSAGE.to_owned()).await?;
        told(name, agent);
        Ok(Next::Idle)
    }

    /// Leaves a request to a person, and says so once. Of an agent's renewal its cluster is told too.
    async fn leave(&self, name: &str, csr: &CsrView, cluster: &str, reason: &str) -> Result<(), Error> {
        if !self.is_news(name, reason) {
            return Ok(());
        }
        tracing::info!(
            request = name,
            cluster,
            requester = csr.user,
            "left to a person: {reason}"
        );
        let renews = naming::parse_user(&csr.user).is_some_and(|(of, _)| of == cluster);
        match self.clusters.get("", cluster).filter(|_| renews) {
            Some(view) => {
                let note = format!(
                    "The certificate request {name} of {} was not approved: {reason}",
                    csr.user
                );
                event::tell(&self.writer, &view, &csr.uid, EVENT_NOT_RENEWED, &note).await
            }
            None => Ok(()),
        }
    }

    /// Whether that was not said of the request last.
    fn is_news(&self, request: &str, reason: &str) -> bool {
        let before = self.said().insert(request.to_owned(), reason.to_owned());
        before.as_deref() != Some(reason)
    }

    fn said(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn refuse(
        &self,
        name: &str,
        csr: &CsrView,
        cluster: &str,
        reason: &'static str,
        message: &str,
    ) -> Result<(), Error> {
        tracing::warn!(request = name, cluster, requester = csr.user, "denied: {message}");
        self.note(cluster, |found| refused::told(found, reason, message))
            .await?;
        self.answer(name, csr, conditions::CSR_DENIED, reason, message)
            .await
    }

    /// Whether a later request of the same cluster is approved.
    fn superseded(&self, csr: &CsrView, agent: &Agent) -> bool {
        self.requests.any("", |_, other| {
            other.created > csr.created
                && other
                    .approved
                    .as_ref()
                    .is_some_and(|one| one.cluster == agent.cluster)
        })
    }

    /// Writes down who uses a token, before it is of use; whether the token is still there.
    async fn count(&self, admission: &Admission) -> Result<bool, Error> {
        let Some(used_by) = &admission.used_by else {
            return Ok(true);
        };
        let secret = token::secret_name(&admission.token);
        let Some(view) = self.tokens.get(names::BOOTSTRAP_TOKEN_NAMESPACE, &secret) else {
            // It was revoked meanwhile.
            return Ok(false);
        };
        let list: Vec<&str> = used_by.iter().map(String::as_str).collect();
        let patch = json!({"metadata": {"annotations": {annotations::TOKEN_USED_BY: list.join(",")}}});
        let patch = guarded(patch, &view.uid, Some(&view.resource_version));
        let api = Api::<PartialObjectMeta<Secret>>::namespaced(
            self.writer.client(),
            names::BOOTSTRAP_TOKEN_NAMESPACE,
        );
        let subject = format!("Secret {secret}");
        let answer = self.writer.patch(&api, &secret, None, &patch, &subject).await?;
        self.tokens.wrote(&answer);
        Ok(true)
    }

    async fn admit(
        &self,
        name: &str,
        csr: &CsrView,
        seen: &str,
        admission: Admission,
    ) -> Result<Next, Error> {
        let cluster = &admission.agent.cluster;
        let there = match admission.patch {
            // At the version that was decided about: neither another agent nor a denial is to be missed.
            Some(patch) => self.patch_cluster(cluster, patch, Some(seen)).await?,
            None => self.clusters.get("", cluster).is_some(),
        };
        if !there {
            return Ok(Next::Now);
        }
        let message = format!("The join token {} allows it.", admission.token);
        self.approve(name, csr, message).await?;
        told(name, &admission.agent);
        Ok(Next::Idle)
    }

    /// Changes a ManagedCluster; whether it is there.
    async fn patch_cluster(&self, name: &str, patch: Value, version: Option<&str>) -> Result<bool, Error> {
        let Some(cluster) = self.clusters.get("", name) else {
            return Ok(false);
        };
        let api = Api::<ManagedCluster>::all(self.writer.client());
        let patch = guarded(patch, &cluster.uid, version);
        let subject = what::<ManagedCluster>(name);
        let answer = self.writer.patch(&api, name, None, &patch, &subject).await?;
        self.clusters.wrote(&answer);
        Ok(true)
    }

    /// Sets a condition of the cluster, when there is one to set. A request may be seen before its cluster is.
    async fn note(
        &self,
        name: &str,
        condition: impl FnOnce(&ClusterView) -> Option<NewCondition>,
    ) -> Result<(), Error> {
        let api = Api::<ManagedCluster>::all(self.writer.client());
        let subject = what::<ManagedCluster>(name);
        let mut known = self.clusters.get("", name);
        if known.is_none() {
            let read = self.writer.bounded(format!("read {subject}"), api.get_opt(name));
            known = read.await?.map(|found| Arc::new(ClusterView::of(&found)));
        }
        let Some(known) = known.filter(|known| !known.deleting) else {
            return Ok(());
        };
        let new = condition(&known).into_iter().collect();
        let Some(Write::SetConditions(all)) = set_conditions(&known, new, Timestamp::now()) else {
            return Ok(());
        };
        let patch = json!({"status": {"conditions": all}});
        let patch = guarded(patch, &known.uid, Some(&known.resource_version));
        let answer = self
            .writer
            .patch(&api, name, Some("status"), &patch, &subject)
            .await?;
        self.clusters.wrote(&answer);
        Ok(())
    }

    async fn allowed(&self, csr: &CsrView, name: &str) -> Result<bool, Error> {
        let api = Api::<SubjectAccessReview>::all(self.writer.client());
        let review = may_renew(csr);
        let parameters = PostParams::default();
        let ask = api.create(&parameters, &review);
        let answer = self
            .writer
            .bounded(format!("review access for request {name}"), ask)
            .await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn approve(&self, name: &str, csr: &CsrView, message: String) -> Result<(), Error> {
        self.answer(
            name,
            csr,
            conditions::CSR_APPROVED,
            reasons::CSR_AUTO_APPROVED,
            &message,
        )
        .await
    }

    async fn answer(
        &self,
        name: &str,
        csr: &CsrView,
        type_: &str,
        reason: &str,
        message: &str,
    ) -> Result<(), Error> {
        let api = Api::<CertificateSigningRequest>::all(self.writer.client());
        let condition = json!({
            "type": type_,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastUpdateTime": format!("{:.0}", Timestamp::now()),
        });
        let patch = guarded(
            json!({"status": {"conditions": [condition]}}),
            &csr.uid,
            Some(&csr.resource_version),
        );
        let subject = what::<CertificateSigningRequest>(name);
        match self
            .writer
            .patch(&api, name, Some("approval"), &patch, &subject)
            .await
        {
            Ok(answer) => {
                self.requests.wrote(&answer);
                let denied = type_ == conditions::CSR_DENIED;
                self.writer
                    .metrics()
                    .answered(if denied { Answer::Denied } else { Answer::Approved });
                Ok(())
            }
            // Its maker gave up on it.
            Err(error) if error.status().is_some_and(|status| status.code == 404) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn told(name: &str, agent: &Agent) {
    tracing::info!(
        request = name,
        cluster = agent.cluster,
        agent = agent.agent,
        "certificate approved"
    );
}
