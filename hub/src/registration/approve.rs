//! Answers certificate requests of agents (ocm-wire §2.4): renewals of those the hub lets renew, first requests of
//! users it was told to trust, and first requests made with a join token, which are held to what the token allows.
//! What a join token does not allow is denied, with the reason; anything else that is not approved waits for a person.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::CertificateSigningRequest,
    core::v1::Secret,
};
use kube::{
    Api,
    api::{PartialObjectMeta, PostParams},
};
use muster_crds::{
    cluster::v1::ManagedCluster,
    conditions::{NewCondition, is_false, is_true, is_unknown},
    constants::{annotations, conditions, labels, names, reasons},
    validity::Validity,
};
use serde_json::{Value, json};

use super::{
    accept,
    csr::{self, Agent},
    plan::{Write, set_conditions},
    rbac::with_former,
    refused,
    token::{self, Grant, TokenView},
    view::{ClusterView, CsrView},
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

/// What a decision about a request starts from.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The request.
    pub csr: &'a CsrView,
    /// The join token its requester came with.
    pub token: Option<&'a TokenView>,
    /// The cluster it says it is for.
    pub cluster: Option<&'a ClusterView>,
    /// A later request of the same cluster is approved.
    pub superseded: bool,
}

/// What a join token's holder gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Who comes.
    pub agent: Agent,
    /// The token's id.
    pub token: String,
    /// All who came with it, when that is counted and this one is new.
    pub used_by: Option<BTreeSet<String>>,
    /// What to change at the ManagedCluster first.
    pub patch: Option<Value>,
}

/// What to do about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing; a person may.
    Leave(String),
    /// Nothing until something about its cluster changes.
    Wait(String),
    /// Approve when the hub lets its requester renew.
    AskRenewal(Agent),
    /// Approve.
    Approve(Agent),
    /// Approve, after what its join token brings.
    Admit(Admission),
    /// Deny.
    Deny {
        /// Why, in CamelCase.
        reason: &'static str,
        /// Why, for people.
        message: String,
    },
    /// Write down who got a certificate, and when it is good.
    Record(Agent, Validity),
}

/// Whose first requests are approved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// Users.
    pub users: Vec<String>,
    /// Groups. Whoever holds a join token is held to it, whatever groups it brings.
    pub groups: Vec<String>,
}

impl Trusted {
    fn has(&self, csr: &CsrView, token: Option<&TokenView>) -> bool {
        let member = || csr.groups.iter().any(|group| self.groups.contains(group));
        self.users.contains(&csr.user) || (token.is_none() && member())
    }
}

/// Decides about a request.
pub fn decide(observed: Observed<'_>, trusted: &Trusted, now: Timestamp) -> Decision {
    let Observed { csr, cluster, .. } = observed;
    if csr.decided {
        return match (&csr.approved, cluster) {
            (Some(_), None) => Decision::Wait("its cluster is not there yet".to_owned()),
            (Some(agent), Some(cluster)) => match csr.issued {
                Some(issued) if news(csr, agent, issued, cluster) && !observed.superseded => {
                    Decision::Record(agent.clone(), issued)
                }
                _ => Decision::Leave("it is decided".to_owned()),
            },
            (None, _) => Decision::Leave("it is decided".to_owned()),
        };
    }
    let agent = match csr::validate(csr) {
        Ok(agent) => agent,
        Err(reason) => return Decision::Leave(reason.to_string()),
    };
    if csr.user == agent.user() {
        // Rights go by the cluster's group: a former agent of the name still has a certificate in it, but gets no other.
        return match cluster.and_then(|cluster| cluster.agent.as_ref()) {
            Some(known) if *known != agent.agent => Decision::Leave(format!(
                "a person has to approve it: agent {known:?} has the name {} now",
                agent.cluster
            )),
            _ => Decision::AskRenewal(agent),
        };
    }
    if trusted.has(csr, observed.token) {
        return match cluster.and_then(|cluster| taken(cluster, &agent)) {
            Some(why) => Decision::Wait(format!("it is not approved by itself: {why}")),
            None => Decision::Approve(agent),
        };
    }
    match (token::token_id(&csr.user, &csr.groups), observed.token) {
        (Some(id), Some(token)) => admit(agent, id, token, cluster, now),
        _ => Decision::Leave(format!(
            "a person has to approve it: its requester {:?} is not trusted to",
            csr.user
        )),
    }
}

/// Whether a certificate that was issued is not written down yet: this agent's, later than the one that is known, or another
/// agent's, who has the name now. A request older than the cluster is of a former one of that name, unless it was approved
/// for this one: its agent has the name, or the approval is not older than the cluster.
fn news(csr: &CsrView, agent: &Agent, issued: Validity, cluster: &ClusterView) -> bool {
    let known = cluster.certificate.map(|known| known.not_before);
    let same = cluster.agent.as_ref() == Some(&agent.agent);
    let later = !same || known.is_none_or(|known| known < issued.not_before);
    let former = csr.created.max(csr.approved_at) < cluster.created && !same;
    !cluster.deleting && !former && later
}

/// What the holder of a join token gets.
fn admit(
    agent: Agent,
    id: &str,
    token: &TokenView,
    cluster: Option<&ClusterView>,
    now: Timestamp,
) -> Decision {
    let name = agent.cluster.as_str();
    // Before the certificate is signed: nobody is to hold one for a name that no cluster can have.
    if let Some(message) = accept::refuse(name) {
        return Decision::Deny {
            reason: reasons::CSR_TOKEN_REFUSED,
            message,
        };
    }
    let grant = match token.check(name, now) {
        Ok(grant) => grant,
        Err(why) => {
            return Decision::Deny {
                reason: reasons::CSR_TOKEN_REFUSED,
                message: format!("the join token {id} {why}"),
            };
        }
    };
    let Some(cluster) = cluster.filter(|cluster| !cluster.deleting) else {
        return Decision::Wait(format!(
            "ManagedCluster {name} is not there yet, or is being deleted"
        ));
    };
    if let Some(message) = taken(cluster, &agent) {
        return Decision::Deny {
            reason: reasons::CSR_CLUSTER_NAME_TAKEN,
            message,
        };
    }
    if !cluster.accepts && is_false(&cluster.conditions, conditions::HUB_ACCEPTED) {
        return Decision::Deny {
            reason: reasons::CSR_CLUSTER_DENIED,
            message: format!("the hub's administrator keeps cluster {name} out"),
        };
    }
    let used_by = (grant.uses.is_some() && !token.used_by.contains(name)).then(|| {
        let mut all = token.used_by.clone();
        all.insert(name.to_owned());
        all
    });
    Decision::Admit(Admission {
        patch: bring(grant, id, cluster, &agent),
        token: id.to_owned(),
        used_by,
        agent,
    })
}

/// What is to change at the ManagedCluster; what the token brings, it brings once: an administrator may change it.
fn bring(grant: &Grant, id: &str, cluster: &ClusterView, agent: &Agent) -> Option<Value> {
    let mut metadata = serde_json::Map::new();
    let mut patch = serde_json::Map::new();
    if cluster.token.as_deref() != Some(id) {
        let mut wanted = grant.labels.clone();
        if let Some(set) = &grant.set {
            wanted.insert(labels::CLUSTER_SET.to_owned(), set.clone());
        }
        if !wanted.is_empty() {
            metadata.insert("labels".to_owned(), json!(wanted));
        }
    }
    if cluster.token.as_deref() != Some(id) || cluster.agent.as_ref() != Some(&agent.agent) {
        let mut notes = noted(cluster, agent);
        notes[annotations::JOINED_WITH] = id.into();
        metadata.insert("annotations".to_owned(), notes);
        patch.insert("metadata".to_owned(), Value::Object(metadata));
    }
    if grant.accept && !cluster.accepts {
        patch.insert("spec".to_owned(), json!({"hubAcceptsClient": true}));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The annotations that say which agent has the name, and which had it before.
fn noted(cluster: &ClusterView, agent: &Agent) -> Value {
    let mut notes = json!({annotations::AGENT: agent.agent});
    if let Some(other) = cluster.agent.as_ref().filter(|other| **other != agent.agent) {
        notes[annotations::FORMER_AGENTS] = with_former(&cluster.former, other).join(",").into();
    }
    notes
}

/// Why the cluster's name cannot be had: another agent has it and is alive.
fn taken(cluster: &ClusterView, agent: &Agent) -> Option<String> {
    let other = cluster.agent.as_ref().filter(|other| **other != agent.agent)?;
    let alive = cluster.accepts
        && is_true(&cluster.conditions, conditions::HUB_ACCEPTED)
        && is_true(&cluster.conditions, conditions::JOINED)
        && !is_unknown(&cluster.conditions, conditions::CLUSTER_AVAILABLE);
    alive.then(|| {
        format!(
            "the name {} is taken: agent {other:?} of a cluster with that name is alive; \
             join under another name, or stop that agent and wait until the cluster is Unknown, or detach it",
            cluster.name
        )
    })
}

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
    /// Join tokens that are known.
    pub tokens: Arc<Cache<PartialObjectMeta<Secret>, TokenView>>,
    /// Requests that wait for their cluster.
    pub waiting: Arc<Waiting>,
    /// How to write.
    pub writer: Arc<Writer>,
    /// Whose first requests are approved.
    pub trusted: Trusted,
    /// Uses of tokens are counted one by one: the next decision sees the last count.
    pub counting: tokio::sync::Mutex<()>,
}

impl Context {
    /// Decides about one request.
    pub async fn reconcile(&self, name: &str) -> Result<Next, Error> {
        let Some(csr) = self.requests.get("", name) else {
            return Ok(Next::Idle);
        };
        let cluster = match (&csr.cluster, &csr.approved) {
            (Some(cluster), _) => cluster.clone(),
            (None, Some(agent)) => agent.cluster.clone(),
            (None, None) => return Ok(Next::Idle),
        };
        // Before looking: a change after the look is not to be missed.
        self.waiting.add(&cluster, name);
        let decision = self.look(&csr, &cluster);
        if !matches!(decision, Decision::Wait(_)) {
            self.waiting.remove(&cluster, name);
        }
        match decision {
            Decision::Leave(reason) => tracing::debug!(request = name, "left alone: {reason}"),
            Decision::Wait(reason) if csr.decided => {
                tracing::debug!(request = name, cluster, "waits: {reason}");
            }
            Decision::Wait(reason) => tracing::info!(request = name, cluster, "waits: {reason}"),
            Decision::Approve(agent) => {
                self.approve(name, &csr, MESSAGE.to_owned()).await?;
                told(name, &agent);
            }
            Decision::AskRenewal(agent) => {
                if self.allowed(&csr, name).await? {
                    self.approve(name, &csr, MESSAGE.to_owned()).await?;
                    told(name, &agent);
                } else {
                    tracing::info!(request = name, cluster, "left alone: its requester may not renew");
                }
            }
            Decision::Admit(admission) if admission.used_by.is_some() => {
                let _one_by_one = self.counting.lock().await;
                match self.look(&csr, &cluster) {
                    Decision::Admit(admission) => {
                        self.count(&admission).await?;
                        self.admit(name, &csr, admission).await?;
                    }
                    // Somebody else took the last use meanwhile.
                    _ => return Ok(Next::Now),
                }
            }
            Decision::Admit(admission) => self.admit(name, &csr, admission).await?,
            Decision::Deny { reason, message } => {
                tracing::warn!(request = name, cluster, requester = csr.user, "denied: {message}");
                self.note(&cluster, |found| refused::told(found, reason, &message))
                    .await?;
                self.answer(name, &csr, conditions::CSR_DENIED, reason, &message)
                    .await?;
            }
            Decision::Record(agent, issued) => {
                if let Some(view) = self.clusters.get("", &cluster) {
                    // First: once the certificate is written down, nobody looks at it again.
                    self.note(&cluster, refused::over).await?;
                    let mut notes = noted(&view, &agent);
                    notes[annotations::CLIENT_CERTIFICATE] = issued.to_string().into();
                    self.patch_cluster(&cluster, json!({"metadata": {"annotations": notes}}))
                        .await?;
                }
            }
        }
        Ok(Next::Idle)
    }

    fn look(&self, csr: &CsrView, cluster: &str) -> Decision {
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
        };
        decide(observed, &self.trusted, Timestamp::now())
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

    /// Writes down who uses a token, before it is of use.
    async fn count(&self, admission: &Admission) -> Result<(), Error> {
        let Some(used_by) = &admission.used_by else {
            return Ok(());
        };
        let secret = token::secret_name(&admission.token);
        let Some(view) = self.tokens.get(names::BOOTSTRAP_TOKEN_NAMESPACE, &secret) else {
            return Ok(());
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
        Ok(())
    }

    async fn admit(&self, name: &str, csr: &CsrView, admission: Admission) -> Result<(), Error> {
        if let Some(patch) = admission.patch {
            self.patch_cluster(&admission.agent.cluster, patch).await?;
        }
        let message = format!("The join token {} allows it.", admission.token);
        self.approve(name, csr, message).await?;
        told(name, &admission.agent);
        Ok(())
    }

    async fn patch_cluster(&self, name: &str, patch: Value) -> Result<(), Error> {
        let Some(cluster) = self.clusters.get("", name) else {
            return Ok(());
        };
        let api = Api::<ManagedCluster>::all(self.writer.client());
        let patch = guarded(patch, &cluster.uid, None);
        let subject = what::<ManagedCluster>(name);
        let answer = self.writer.patch(&api, name, None, &patch, &subject).await?;
        self.clusters.wrote(&answer);
        Ok(())
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

#[cfg(test)]
#[path = "approve_tests.rs"]
mod tests;
